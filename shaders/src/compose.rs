//! Puts a shader together from its parts.

use std::fmt::Write;

/// What a shader does with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// A uniform buffer.
    Uniform,
    /// A storage buffer that is only read.
    Read,
    /// A storage buffer that is written.
    Write,
}

/// A buffer of group 0; its number is its place in [`Kernel::bindings`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Its name in the shader.
    pub name: &'static str,
    /// How it is used.
    pub access: Access,
    /// Its WGSL type.
    pub ty: &'static str,
}

/// What a kernel asks of an adapter beyond WebGPU's least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Operations across the invocations of a subgroup.
    pub subgroups: bool,
    /// Half precision as a type.
    pub f16: bool,
    /// Cooperative matrices (wgpu's experimental form of them).
    pub matrices: bool,
}

/// A shader ready to be compiled, with the entry point `main`.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The file and the constants: no two different kernels have the same.
    pub name: String,
    /// What it asks of an adapter.
    pub needs: Needs,
    /// Its buffers, in order.
    pub bindings: Vec<Binding>,
    /// The whole WGSL text.
    pub source: String,
}

/// Collects the parts of a [`Kernel`].
pub(crate) struct Parts {
    name: String,
    needs: Needs,
    constants: String,
    structs: Vec<&'static str>,
    bindings: Vec<Binding>,
    snippets: Vec<&'static str>,
}

impl Parts {
    pub(crate) fn new(name: &str) -> Self {
        Parts {
            name: name.into(),
            needs: Needs::default(),
            constants: String::new(),
            structs: Vec::new(),
            bindings: Vec::new(),
            snippets: Vec::new(),
        }
    }

    pub(crate) fn needs(mut self, needs: Needs) -> Self {
        self.needs = needs;
        self
    }

    pub(crate) fn u32(mut self, name: &str, value: usize) -> Self {
        let _ = writeln!(self.constants, "const {name}: u32 = {value}u;");
        let _ = write!(self.name, " {name}={value}");
        self
    }

    pub(crate) fn definition(mut self, wgsl: &'static str) -> Self {
        self.structs.push(wgsl);
        self
    }

    pub(crate) fn bind(mut self, name: &'static str, access: Access, ty: &'static str) -> Self {
        self.bindings.push(Binding { name, access, ty });
        self
    }

    /// A snippet; `name` stands for it in [`Kernel::name`] where there is a choice.
    pub(crate) fn snippet(mut self, name: &str, text: &'static str) -> Self {
        if !name.is_empty() {
            let _ = write!(self.name, " {name}");
        }
        self.snippets.push(text);
        self
    }

    /// The kernel whose `main` is in `body`.
    pub(crate) fn kernel(self, body: &str) -> Kernel {
        let mut source = String::new();
        // naga knows subgroup operations without being told.
        if self.needs.f16 {
            source.push_str("enable f16;\n");
        }
        if self.needs.matrices {
            source.push_str("enable wgpu_cooperative_matrix;\n");
        }
        source.push_str(&self.constants);
        for s in self.structs {
            source.push_str(s);
            source.push('\n');
        }
        for (i, b) in self.bindings.iter().enumerate() {
            let space = match b.access {
                Access::Uniform => "uniform",
                Access::Read => "storage, read",
                Access::Write => "storage, read_write",
            };
            let _ = writeln!(source, "@group(0) @binding({i}) var<{space}> {}: {};", b.name, b.ty);
        }
        for s in self.snippets {
            source.push_str(s);
        }
        source.push_str(body);
        Kernel { name: self.name, needs: self.needs, bindings: self.bindings, source }
    }
}
