//! naga checks every kernel, without any GPU, and the layouts of the parameter structs.

use lapidary_shaders::*;
use naga::valid::{Capabilities, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};

/// Every kernel, in every shape that a Gemma (or a test's small model) asks for.
fn all() -> Vec<Kernel> {
    let mut out = vec![gather(), argmax(), argmax_last(256, None, 256), copy()];
    out.push(layer_norm());
    out.extend(Finish::ALL.map(Finish::kernel));
    out.extend([Top::Logits, Top::Again].map(Top::kernel));
    for format in Format::ALL {
        out.push(embed(format));
        out.push(argmax_last(8192, Some(format), 1024));
        for output in Output::ALL {
            let matmul = Matmul { format, output };
            let takes = |way: &&Many| match way {
                Many::Int8 => format.symmetric(),
                Many::Matrix { .. } => format != Format::F32,
                _ => true,
            };
            let ways = ALL_WAYS.iter().filter(takes);
            out.extend(ways.map(|way| matmul.many(*way)));
            for (tokens, reduce) in
                [1, 2, 4, 8].into_iter().flat_map(|t| Reduce::ALL.map(|r| (t, r)))
            {
                let shared = |(rows, pieces)| Few::new(tokens, rows, pieces);
                let many = shared((1 << 18, 320));
                let of_few_registers = Few { at_once: Few::AT_ONCE_OF_FEW, ..many };
                for few in [shared((2, 3)), shared((70, 80)), many, of_few_registers] {
                    out.push(matmul.few(few, reduce));
                    if format.scaled() {
                        out.push(matmul.few_int8(few, reduce));
                    }
                }
                if tokens == 1 && output != Output::Glu {
                    for few in [(2, 3), (1 << 18, 320)].map(|(r, p)| Few::best(r, p)) {
                        out.push(matmul.one_best(few, false, reduce));
                        if format.scaled() {
                            out.push(matmul.one_best(few, true, reduce));
                        }
                    }
                }
                if format.scaled() && tokens == 1 && output == Output::Plain {
                    for (rows, cols) in [(96, 64), (1536, 1152), (4096, 2560)] {
                        let few = Few::normed(rows, cols / format.piece());
                        out.extend([false, true].map(|r| matmul.one_normed(few, r, false)));
                    }
                }
                if format.scaled() && tokens == 1 && output == Output::Glu {
                    for cols in [64, 1152, 2560] {
                        let few = Few::blocks(cols / format.piece());
                        out.extend([false, true].map(|r| matmul.one_normed(few, r, true)));
                    }
                    out.extend([3, 64, 80].map(|p| matmul.one_to_int8(Few::blocks(p), reduce)));
                }
            }
        }
    }
    for reduce in Reduce::ALL {
        for stride in [32, 1152, 5376] {
            out.push(norm(true, Normed::Nothing, stride, reduce));
            for normed in [Normed::Float, Normed::Int8] {
                out.extend([false, true].map(|residual| norm(residual, normed, stride, reduce)));
            }
        }
    }
    out.extend([Prepare::Int8, Prepare::Half].map(Prepare::kernel));
    for head_dim in [16, 24, 32, 72, 128, 256] {
        let int8: &[bool] = if head_dim % 32 == 0 { &[false, true] } else { &[false] };
        out.extend(int8.iter().map(|int8| merge(head_dim, *int8)));
        for cache in CacheFormat::ALL.into_iter().filter(|c| c.takes(head_dim)) {
            for normed in [false, true] {
                out.push(Rope { head_dim, normed, cache }.kernel());
            }
            for group in [1, 2, 4] {
                for many in [false, true] {
                    let (heads, rows) = Attention::shape(group, many);
                    let attention = Attention { head_dim, heads, rows, cache };
                    out.push(attention.kernel());
                    let by_matrices = attention.by_matrices().filter(|_| many);
                    out.extend(by_matrices.iter().flat_map(|a| [128, 256].map(|w| a.matrix(w))));
                    let lanes = [4, 8, 16, 32].map(|subgroup| attention.lanes(subgroup));
                    for (lanes, int8) in
                        lanes.into_iter().flatten().flat_map(|l| int8.iter().map(move |i| (l, *i)))
                    {
                        let one = Attention { heads: 1, ..attention };
                        out.push(one.one(lanes, int8));
                        if cache == CacheFormat::F16 {
                            out.extend([false, true].map(|n| one.with_rope(lanes, n, int8)));
                        }
                    }
                }
            }
        }
    }
    out.extend(whole_layers().iter().map(WholeLayer::kernel));
    out
}

/// Whole layers of 1B, 4B, 27B and of a test's small model, for subgroups of different sizes.
fn whole_layers() -> Vec<WholeLayer> {
    let mut out = Vec::new();
    for format in [Format::Q4_0, Format::Q8_0] {
        for (hidden, q, kv, head_dim, ffn, subgroup, workgroup) in [
            (64, 64, 32, 32, 96, 8, 256),
            (1152, 1024, 256, 256, 6912, 32, 512),
            (2560, 2048, 1024, 256, 10240, 32, 512),
            (5376, 4096, 2048, 128, 21504, 64, 256),
        ] {
            let pieces = |cols: usize| cols / format.piece();
            let matrix = |units, rows, cols| LayerMatrix::new(units, rows, pieces(cols), subgroup);
            let attention = Attention { head_dim, heads: 1, rows: 1, cache: CacheFormat::F16 };
            let layer = WholeLayer {
                heads: q / head_dim,
                kv_heads: kv / head_dim,
                format,
                head_dim,
                normed: hidden != 1152,
                capped: hidden == 1152,
                hidden,
                ffn,
                matrices: [
                    matrix(q + 2 * kv, 1, hidden),
                    matrix(hidden, 1, q),
                    matrix(ffn, 2, hidden),
                    matrix(hidden, 1, ffn),
                ],
                lanes: attention.lanes(subgroup).unwrap(),
                workgroup,
            };
            out.push(layer);
        }
    }
    out
}

/// Whether a device has room for a whole layer is known before it is compiled.
#[test]
fn whole_layers_take_the_memory_that_they_say() {
    for layer in whole_layers() {
        let taken = workgroup_memory(&parse(&layer.kernel())) as usize;
        let said = layer.workgroup_bytes();
        assert!(taken <= said && said <= taken + 1024, "{layer:?}: {taken}, not {said}");
    }
}

/// Every way of multiplying many rows, matrices for subgroups of any size that there is.
const ALL_WAYS: [Many; 10] = [
    Many::Float,
    Many::Int8,
    Many::Half,
    Many::Matrix { size: 8, workgroup: 64, tile: (64, 64) },
    Many::Matrix { size: 8, workgroup: 128, tile: (64, 64) },
    Many::Matrix { size: 8, workgroup: 256, tile: (64, 64) },
    Many::Matrix { size: 16, workgroup: 128, tile: (128, 128) },
    Many::Matrix { size: 16, workgroup: 128, tile: (128, 64) },
    Many::Matrix { size: 16, workgroup: 128, tile: (64, 64) },
    Many::Matrix { size: 16, workgroup: 256, tile: (64, 64) },
];

fn parse(kernel: &Kernel) -> naga::Module {
    naga::front::wgsl::parse_str(&kernel.source)
        .unwrap_or_else(|e| panic!("{}: {}", kernel.name, e.emit_to_string(&kernel.source)))
}

/// Bytes of workgroup memory that WebGPU promises.
const WORKGROUP_BYTES: u32 = 16384;

/// What naga finds out about a kernel, or a failure with the place in its text.
fn validate(kernel: &Kernel, module: &naga::Module) -> naga::valid::ModuleInfo {
    // No capability beyond what WebGPU asks of every adapter, and what the kernel says it needs.
    let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    capabilities.set(Capabilities::SUBGROUP, kernel.needs.subgroups);
    capabilities.set(Capabilities::SHADER_FLOAT16, kernel.needs.f16);
    capabilities.set(Capabilities::COOPERATIVE_MATRIX, kernel.needs.matrices);
    let mut validator = Validator::new(ValidationFlags::all(), capabilities);
    if kernel.needs.subgroups {
        validator
            .subgroup_stages(ShaderStages::COMPUTE)
            .subgroup_operations(SubgroupOperationSet::all());
    }
    validator
        .validate(module)
        .unwrap_or_else(|e| panic!("{}: {}", kernel.name, e.emit_to_string(&kernel.source)))
}

/// Bytes of workgroup memory that a kernel takes.
fn workgroup_memory(module: &naga::Module) -> u32 {
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).unwrap();
    let variables = module.global_variables.iter();
    variables
        .filter(|(_, v)| v.space == naga::AddressSpace::WorkGroup)
        .map(|(_, v)| layouter[v.ty].size)
        .sum()
}

#[test]
fn every_kernel_is_valid() {
    let kernels = all();
    for kernel in &kernels {
        let module = parse(kernel);
        validate(kernel, &module);
        let workgroup = workgroup_memory(&module);
        // GPUs with cooperative matrices have more.
        // Whole layers ask for what they take (`WholeLayer::workgroup_bytes`).
        let is_layer = kernel.name.starts_with("layer");
        let most = match kernel.needs {
            _ if is_layer => 3 * WORKGROUP_BYTES,
            Needs { matrices: true, .. } => 2 * WORKGROUP_BYTES,
            _ => WORKGROUP_BYTES,
        };
        assert!(workgroup <= most, "{}: {workgroup} bytes", kernel.name);
        let [entry] = &module.entry_points[..] else { panic!("{}", kernel.name) };
        assert_eq!(entry.name, "main");
        // The last step of greedy decoding is made for what the device allows.
        let invocations = match &kernel.name {
            name if name.starts_with("argmax_last") => 1024,
            _ if is_layer => 512,
            _ => 256,
        };
        assert!(entry.workgroup_size.iter().product::<u32>() <= invocations, "{}", kernel.name);
        let buffers = kernel.bindings.iter().filter(|b| b.access != Access::Uniform).count();
        let most = if is_layer { WholeLayer::BUFFERS } else { Attention::ROPE_BUFFERS };
        assert!(buffers <= most, "{}: too many buffers", kernel.name);
    }
    println!("{} kernels", kernels.len());
}

/// What wgpu makes of a kernel for each kind of driver, as far as that can be seen without one: naga
/// refuses, or panics at, some of what its validation lets pass.
#[test]
fn every_kernel_can_be_translated() {
    use naga::back::{hlsl, msl, spv};
    use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};

    let policies = BoundsCheckPolicies {
        index: BoundsCheckPolicy::Restrict,
        buffer: BoundsCheckPolicy::Restrict,
        ..Default::default()
    };
    for kernel in all() {
        let module = parse(&kernel);
        let info = validate(&kernel, &module);
        let name = &kernel.name;
        let stage = naga::ShaderStage::Compute;
        let options = spv::Options {
            lang_version: (1, 3),
            bounds_check_policies: policies,
            fake_missing_bindings: true,
            ..Default::default()
        };
        let entry = spv::PipelineOptions { shader_stage: stage, entry_point: "main".into() };
        spv::write_vec(&module, &info, &options, Some(&entry))
            .unwrap_or_else(|e| panic!("{name} in SPIR-V: {e}"));
        // Metal has matrices of 8 × 8, DirectX 12 none that wgpu knows.
        if !kernel.source.contains("coop_mat16x16") {
            let options = msl::Options {
                lang_version: (3, 0),
                bounds_check_policies: policies,
                fake_missing_bindings: true,
                ..Default::default()
            };
            msl::write_string(&module, &info, &options, &Default::default())
                .unwrap_or_else(|e| panic!("{name} in Metal's language: {e}"));
        }
        // With FXC there is no more than 5.1.
        let models = match kernel.needs {
            Needs { matrices: true, .. } => &[][..],
            Needs { subgroups: false, f16: false, .. } => &[hlsl::ShaderModel::V5_1],
            _ => &[hlsl::ShaderModel::V6_2],
        };
        for &shader_model in models {
            let options =
                hlsl::Options { shader_model, fake_missing_bindings: true, ..Default::default() };
            let mut text = String::new();
            hlsl::Writer::new(&mut text, &options, &Default::default())
                .write(&module, &info, None)
                .unwrap_or_else(|e| panic!("{name} in HLSL: {e}"));
            // A type with two names has its zero defined twice.
            let mut zeros: Vec<_> = text
                .lines()
                .filter(|line| line.contains(" ZeroValue") && line.ends_with("{"))
                .collect();
            let defined = zeros.len();
            zeros.sort_unstable();
            zeros.dedup();
            assert_eq!(zeros.len(), defined, "{name} in HLSL: {zeros:?}");
        }
    }
}

/// NVIDIA's compiler keeps loops that multiply or divide what they count by as loops, and they cost a lot
/// there (benches/README.md): `@halving` lines write them out.
#[test]
fn no_loop_multiplies_its_counter() {
    use naga::{BinaryOperator, Block, Expression, Function, Statement};

    fn multiplies(function: &Function, continuing: &Block) -> bool {
        use BinaryOperator::{Divide, Multiply, ShiftLeft, ShiftRight};
        let by = |value: &Expression| {
            matches!(
                value,
                Expression::Binary { op: Multiply | Divide | ShiftLeft | ShiftRight, .. }
            )
        };
        continuing.iter().any(|statement| {
            matches!(statement, Statement::Store { value, .. } if by(&function.expressions[*value]))
        })
    }
    fn check(name: &str, function: &Function, block: &Block) {
        for statement in block {
            match statement {
                Statement::Loop { body, continuing, .. } => {
                    assert!(!multiplies(function, continuing), "{name}: a loop doubles or halves");
                    check(name, function, body);
                }
                Statement::Block(body) => check(name, function, body),
                Statement::If { accept, reject, .. } => {
                    check(name, function, accept);
                    check(name, function, reject);
                }
                Statement::Switch { cases, .. } => {
                    cases.iter().for_each(|case| check(name, function, &case.body));
                }
                _ => {}
            }
        }
    }
    for kernel in &all() {
        let module = parse(kernel);
        let entries = module.entry_points.iter().map(|e| &e.function);
        for function in module.functions.iter().map(|(_, f)| f).chain(entries) {
            check(&kernel.name, function, &function.body);
        }
    }
}

/// Kernels that ask for nothing are what FXC gets, which compiles for DirectX 12 where there is no newer
/// compiler. A loop that writes to an element of a vector by a number that changes is unrolled there, with
/// the loops around it, or refused.
#[test]
fn loops_of_plain_kernels_write_to_elements_by_their_names() {
    use naga::{Block, Expression, Function, Statement, TypeInner};

    fn by_number(module: &naga::Module, function: &Function, pointer: &Expression) -> bool {
        let Expression::Access { base, .. } = pointer else { return false };
        let Expression::LocalVariable(variable) = function.expressions[*base] else { return false };
        let ty = function.local_variables[variable].ty;
        matches!(module.types[ty].inner, TypeInner::Vector { .. })
    }
    fn check(name: &str, module: &naga::Module, function: &Function, block: &Block, looped: bool) {
        let inside = |block: &Block, looped| check(name, module, function, block, looped);
        for statement in block {
            match statement {
                Statement::Store { pointer, .. } => {
                    let pointer = &function.expressions[*pointer];
                    let bad = looped && by_number(module, function, pointer);
                    assert!(!bad, "{name}: a loop writes to an element of a vector by a number");
                }
                Statement::Loop { body, continuing, .. } => {
                    inside(body, true);
                    inside(continuing, true);
                }
                Statement::Block(body) => inside(body, looped),
                Statement::If { accept, reject, .. } => {
                    inside(accept, looped);
                    inside(reject, looped);
                }
                Statement::Switch { cases, .. } => {
                    cases.iter().for_each(|case| inside(&case.body, looped));
                }
                _ => {}
            }
        }
    }
    for kernel in all().iter().filter(|k| k.needs == Needs::default() && !k.in_bounds) {
        let module = parse(kernel);
        let entries = module.entry_points.iter().map(|e| &e.function);
        for function in module.functions.iter().map(|(_, f)| f).chain(entries) {
            check(&kernel.name, &module, function, &function.body, false);
        }
    }
}

/// A pipeline is looked up by its kernel's name.
#[test]
fn names_are_unique() {
    let mut seen = std::collections::HashMap::new();
    for kernel in all() {
        if let Some(before) = seen.insert(kernel.name.clone(), kernel.source.clone()) {
            assert_eq!(before, kernel.source, "{}", kernel.name);
        }
    }
}

/// Every binding that is declared is used, with the access and the place that it was declared with.
#[test]
fn bindings_are_what_they_say() {
    for kernel in all() {
        let module = parse(&kernel);
        let globals: Vec<_> =
            module.global_variables.iter().filter(|(_, v)| v.binding.is_some()).collect();
        assert_eq!(globals.len(), kernel.bindings.len(), "{}", kernel.name);
        for (i, ((_, variable), binding)) in globals.into_iter().zip(&kernel.bindings).enumerate() {
            assert_eq!(variable.name.as_deref(), Some(binding.name));
            assert_eq!(variable.binding.map(|b| (b.group, b.binding)), Some((0, i as u32)));
            assert_eq!(
                variable.space == naga::AddressSpace::Uniform,
                binding.access == Access::Uniform
            );
        }
    }
}

#[test]
fn structs_lie_as_wgsl_lays_them_out() {
    for (name, size, fields, wgsl) in params::ALL {
        let source = format!("{wgsl}\n@group(0) @binding(0) var<storage> s: {name};");
        let module = naga::front::wgsl::parse_str(&source).unwrap();
        let (_, ty) = module.types.iter().find(|(_, t)| t.name.as_deref() == Some(name)).unwrap();
        let naga::TypeInner::Struct { members, span } = &ty.inner else { panic!("{name}") };
        let found: Vec<_> =
            members.iter().map(|m| (m.name.as_deref().unwrap(), m.offset as usize)).collect();
        assert_eq!(&found[..], *fields, "{name}");
        assert_eq!(*span as usize, *size, "{name}");
        // Uniform buffers are multiples of 16 bytes.
        assert!(size % 16 == 0, "{name}");
    }
}

/// The choices for matrices of 1B and 4B, and for tiny ones.
#[test]
fn lanes_are_busy_and_workgroups_many() {
    let lanes = |rows, pieces| Few::new(1, rows, pieces).lanes;
    assert_eq!(lanes(2560, 320), 32);
    assert_eq!(lanes(20480, 80), 16); // 32 would leave a sixth idle
    assert_eq!(lanes(1152, 36), 8); // and 16 a quarter
    assert_eq!(lanes(1152, 216), 32); // 8 would have 27 each
    // One workgroup of those that leave bytes is a block.
    for pieces in [2, 36, 64, 80, 320] {
        assert_eq!(Few::blocks(pieces).workgroup_rows(), 64);
    }
}
