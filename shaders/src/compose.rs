//! Puts a shader together from its parts.

use std::borrow::Cow;
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
    /// Are its indices into workgroup memory and arrays of an invocation's own known to lie within those, so
    /// that they need not be checked?
    pub in_bounds: bool,
    /// Its buffers, in order.
    pub bindings: Vec<Binding>,
    /// The whole WGSL text.
    pub source: String,
}

/// Collects the parts of a [`Kernel`].
pub(crate) struct Parts {
    name: String,
    needs: Needs,
    in_bounds: bool,
    constants: String,
    structs: Vec<&'static str>,
    bindings: Vec<Binding>,
    snippets: Vec<Cow<'static, str>>,
}

impl Parts {
    pub(crate) fn new(name: &str) -> Self {
        Parts {
            name: name.into(),
            needs: Needs::default(),
            in_bounds: false,
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

    /// See [`Kernel::in_bounds`].
    pub(crate) fn in_bounds(mut self) -> Self {
        self.in_bounds = true;
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
        self.snippets.push(text.into());
        self
    }

    /// A snippet made of a template: each of `words` is put in place of its name in braces, after
    /// [`repeat`].
    pub(crate) fn template(
        mut self,
        text: &str,
        words: &[(&str, &str)],
        counts: &[(&str, usize)],
    ) -> Self {
        let put =
            |text: String, (name, word): &(&str, &str)| text.replace(&format!("{{{name}}}"), word);
        self.snippets.push(words.iter().fold(repeat(text, counts), put).into());
        self
    }

    /// The kernel whose `main` is in `body`, after [`repeat`].
    pub(crate) fn repeated(self, body: &str, counts: &[(&str, usize)]) -> Kernel {
        self.kernel(&repeat(body, counts))
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
        for s in &self.structs {
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
        for s in &self.snippets {
            source.push_str(s);
        }
        source.push_str(body);
        let source = unalias(&halve(&source));
        let Parts { name, needs, in_bounds, bindings, .. } = self;
        Kernel { name, needs, in_bounds, bindings, source }
    }
}

/// Writes lines that begin with `@name` (one or more of them) as often as `counts` says, with the
/// number in place of `{name}`; within such a line, what lies between `[[name: ` and `]]`. Values that may
/// not lie in arrays, as drivers put those into memory where they don't see through a loop, get names
/// of their own so.
fn repeat(body: &str, counts: &[(&str, usize)]) -> String {
    let mut out = String::new();
    for line in body.lines() {
        let mut rest = line.trim_start();
        let mut names = Vec::new();
        while let Some((name, after)) = rest.strip_prefix('@').and_then(|r| r.split_once(' ')) {
            let Some(count) = counts.iter().find(|(n, _)| *n == name) else { break };
            names.push(count);
            rest = after;
        }
        if names.is_empty() {
            out.push_str(line);
            out.push('\n');
            continue;
        }
        let all: usize = names.iter().map(|(_, count)| count).product();
        for number in 0..all {
            let (mut text, mut left) = (rest.to_owned(), number);
            // The last name counts fastest.
            for (name, count) in names.iter().rev() {
                text = text.replace(&format!("{{{name}}}"), &(left % count).to_string());
                left /= count;
            }
            out.push_str(&repeat_within(&text, counts));
            out.push('\n');
        }
    }
    out
}

/// The parts of a line between `[[name: ` and `]]` as often as `counts` says.
fn repeat_within(line: &str, counts: &[(&str, usize)]) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("[[") {
        let part = after.split_once(": ").and_then(|(name, text)| {
            let (text, after) = text.split_once("]]")?;
            Some((counts.iter().find(|(n, _)| *n == name)?, text, after))
        });
        let Some(((name, count), text, after)) = part else { break };
        out.push_str(before);
        for number in 0..*count {
            out.push_str(&text.replace(&format!("{{{name}}}"), &number.to_string()));
        }
        rest = after;
    }
    out + rest
}

/// Writes a line that begins with `@halving n` once for each of n / 2, n / 4 and so on to 1, in place of
/// `{step}`; n is a number, or a constant of the kernel that is one. A loop over these would do the same, but
/// NVIDIA's compiler leaves loops that multiply or divide what they count by as loops, at a
/// quarter of a microsecond each (three turns, an H100).
fn halve(source: &str) -> String {
    let constant = |name: &str| {
        let number = source.split_once(&format!("const {name}: u32 = "))?.1.split_once("u;")?.0;
        number.parse().ok()
    };
    let mut out = String::with_capacity(source.len());
    for line in source.lines() {
        let Some(rest) = line.trim_start().strip_prefix("@halving ") else {
            out.push_str(line);
            out.push('\n');
            continue;
        };
        let (n, text) = rest.split_once(' ').expect("a number and a statement");
        let n: usize =
            n.parse().ok().or_else(|| constant(n)).expect("a number, or a constant's name");
        debug_assert!(n.is_power_of_two());
        for step in (0..n.ilog2()).rev().map(|power| 1 << power) {
            out.push_str(&text.replace("{step}", &step.to_string()));
            out.push('\n');
        }
    }
    out
}

/// Puts what `alias` lines say in place of their names. naga makes a type of its own of each alias, and what it writes
/// for DirectX then defines the zero of such a type twice where it is the zero of two names.
fn unalias(source: &str) -> String {
    let parts = |line: &'_ str| {
        let (name, of) = line.strip_prefix("alias ")?.strip_suffix(';')?.split_once(" = ")?;
        Some((name.to_owned(), of.to_owned()))
    };
    let aliases: Vec<_> = source.lines().filter_map(parts).collect();
    if aliases.is_empty() {
        return source.to_owned();
    }
    let in_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut out = String::with_capacity(source.len());
    for line in source.lines().filter(|line| parts(line).is_none()) {
        let mut rest = line;
        while !rest.is_empty() {
            let end = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            let of = aliases.iter().find(|(name, _)| name == word);
            out.push_str(of.map_or(word, |(_, of)| of));
            let end = after.find(in_word).unwrap_or(after.len());
            out.push_str(&after[..end]);
            rest = &after[end..];
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{halve, repeat, unalias};

    #[test]
    fn aliases_are_written_out() {
        let text = "alias Scale = vec2<f32>;\nfn f(s: Scale) -> Scale {\n    return Scale() + Scales_1;\n}\n";
        let want = "fn f(s: vec2<f32>) -> vec2<f32> {\n    return vec2<f32>() + Scales_1;\n}\n";
        assert_eq!(unalias(text), want);
        assert_eq!(unalias("fn main() {}\n"), "fn main() {}\n");
    }

    #[test]
    fn lines_are_halved() {
        let text = "const N: u32 = 8u;\n  @halving N s += f(s, {step}u);\n@halving 2 a{step}\n@halving 1 b\n";
        let want = "const N: u32 = 8u;\ns += f(s, 4u);\ns += f(s, 2u);\ns += f(s, 1u);\na1\n";
        assert_eq!(halve(text), want);
    }

    #[test]
    fn lines_are_repeated() {
        let text = "fn main() {\n    @a @b let v{a}_{b} = {b}u;\n    @workgroup\n}\n";
        let want = "fn main() {\nlet v0_0 = 0u;\nlet v0_1 = 1u;\nlet v1_0 = 0u;\nlet v1_1 = 1u;\n    @workgroup\n}\n";
        assert_eq!(repeat(text, &[("a", 2), ("b", 2)]), want);
        let text = "@a let v{a} = a[0];[[b:  x{a}{b} += v{a};]]";
        let want = "let v0 = a[0]; x00 += v0; x01 += v0;\n";
        assert_eq!(repeat(text, &[("a", 1), ("b", 2)]), want);
    }
}
