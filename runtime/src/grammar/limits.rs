//! Which schemas are small enough: what the parser makes of one is not bounded by its length.

use serde_json::{Map, Value};

/// A form may be written in about so many bytes.
pub(super) const LONGEST: usize = 128 << 10;
/// Texts that must match several patterns at once may match so many: the automaton of all of them can have as many
/// states as the product of theirs.
const MOST_PATTERNS: usize = 32;
/// Beyond this integers and doubles are not one to one.
const LARGEST: f64 = (1u64 << 53) as f64;

/// Is a form of so many bytes read?
pub(super) fn length(bytes: usize) -> Result<(), String> {
    match bytes {
        0..=LONGEST => Ok(()),
        _ => Err(format!("it has {bytes} bytes; at most {LONGEST} are read")),
    }
}

/// Is a schema read?
///
/// # Errors
/// What is too much of it.
pub(super) fn check(schema: &Value) -> Result<(), String> {
    let mut seen = Seen::default();
    seen.look(schema)?;
    match seen.patterns > MOST_PATTERNS && seen.joins {
        true => Err(format!(
            "it has {} patterns and formats, and such as must match together; {MOST_PATTERNS} are the most then",
            seen.patterns
        )),
        false => Ok(()),
    }
}

/// What there is in a schema.
#[derive(Default)]
struct Seen {
    /// Bytes, about as many as it is written in.
    bytes: usize,
    /// Patterns and formats.
    patterns: usize,
    /// May a text have to match several of them?
    joins: bool,
}

impl Seen {
    fn look(&mut self, value: &Value) -> Result<(), String> {
        self.bytes += match value {
            Value::String(text) => text.len() + 3,
            _ => 3,
        };
        if self.bytes > LONGEST {
            return Err(format!("it has more than {LONGEST} bytes"));
        }
        match value {
            Value::Number(n) => {
                let whole = n.as_f64().filter(|x| x.fract() == 0.0 && x.abs() > LARGEST);
                // The double next to 2^53 + 1 is 2^53.
                let next = n.as_u64().or(n.as_i64().map(i64::unsigned_abs)) == Some((1 << 53) + 1);
                match whole.is_some() || next {
                    true => Err(format!("{n} is beyond ±2^53, which is all that is exact here")),
                    false => Ok(()),
                }
            }
            Value::Array(list) => list.iter().try_for_each(|value| self.look(value)),
            Value::Object(members) => {
                self.count(members);
                members.iter().try_for_each(|(name, value)| {
                    self.bytes += name.len() + 3;
                    self.look(value)
                })
            }
            Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
        }
    }

    fn count(&mut self, members: &Map<String, Value>) {
        let has = |name: &str| members.contains_key(name);
        let own = usize::from(has("pattern")) + usize::from(has("format"));
        let of_names = members.get("patternProperties").and_then(Value::as_object);
        self.patterns += own + of_names.map_or(0, Map::len);
        let others = ["$ref", "$dynamicRef", "anyOf", "oneOf", "not", "if"];
        self.joins |= has("allOf") || of_names.is_some() || own > 0 && others.into_iter().any(has);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_can_be_too_much_is_refused() {
        let patterns = |n: usize| (0..n).map(|i| json!({"pattern": format!("^.*{i}.*$")}));
        let list = |n: usize| patterns(n).collect::<Vec<_>>();
        // Apart from each other they may be many.
        check(&json!({"anyOf": list(1000)})).unwrap();
        check(&json!({"allOf": list(32)})).unwrap();
        let mut nested = json!({"type": "string"});
        let mut chain = Map::new();
        for (i, pattern) in patterns(33).enumerate() {
            nested = json!({"anyOf": [nested], "pattern": pattern["pattern"]});
            let next = format!("#/$defs/{}", i + 1);
            chain.insert(i.to_string(), json!({"$ref": next, "pattern": pattern["pattern"]}));
        }
        for many in [
            json!({"allOf": list(33)}),
            nested,
            json!({"$defs": chain}),
            json!({"patternProperties": patterns(33).enumerate()
                .map(|(i, p)| (format!("^.*{i}.*$"), p)).collect::<Map<_, _>>()}),
        ] {
            assert!(check(&many).unwrap_err().contains("32 are the most"), "{many}");
        }
        for number in [
            json!((1u64 << 53) + 1),
            json!(-(1i64 << 53) - 1),
            json!(i64::MIN),
            json!(u64::MAX),
            json!(18446744073709551616.0),
        ] {
            let e = check(&json!({"items": [{"const": number}]})).unwrap_err();
            assert!(e.contains("2^53"), "{number}: {e}");
        }
        check(&json!({"const": 1u64 << 53, "minimum": -0.5})).unwrap();
        assert!(check(&json!({"enum": vec![1; 100_000]})).is_err());
        assert!(length(LONGEST).is_ok() && length(LONGEST + 1).is_err());
    }
}
