//! tokenizer.json: the vocabulary of a BPE model with byte fallback, the tokens added to it, and
//! for each piece the rank of the merge that first makes it.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A token that stands beside the model: control tokens and fixed pieces of text.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(super) struct AddedToken {
    pub id: u32,
    pub content: String,
    #[serde(default)]
    pub special: bool,
}

/// The parts of a tokenizer.json that are needed when there is no tokenizer.model.
#[derive(Deserialize)]
pub(super) struct Tokenizer {
    pub model: Model,
    #[serde(default, deserialize_with = "null_is_default")]
    pub added_tokens: Vec<AddedToken>,
    #[serde(default)]
    pub pre_tokenizer: Option<Stage>,
}

/// The parts that are needed when there is one.
#[derive(Deserialize)]
pub(super) struct AddedOnly {
    #[serde(default, deserialize_with = "null_is_default")]
    pub added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
pub(super) struct Stage {
    #[serde(rename = "type")]
    pub kind: String,
}

#[derive(Deserialize)]
pub(super) struct Model {
    #[serde(rename = "type")]
    pub kind: Option<String>,
    #[serde(default)]
    pub unk_token: Option<String>,
    #[serde(default)]
    pub byte_fallback: bool,
    pub vocab: Vocabulary,
    #[serde(default)]
    pub merges: Ranks,
}

fn null_is_default<'de, D, T>(d: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// Pieces and their ids, in file order.
pub(super) struct Vocabulary(pub Vec<(String, u32)>);

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Vocabulary;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of pieces and their ids")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocabulary, A::Error> {
                let mut pieces = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    if pieces.len() >= super::MAX_TOKENS {
                        return Err(A::Error::custom("more pieces than any tokenizer has"));
                    }
                    pieces.push(entry);
                }
                Ok(Vocabulary(pieces))
            }
        }
        d.deserialize_map(V)
    }
}

/// For each piece that a merge makes, the rank of the first one that does. The merges themselves
/// are not kept: there are half a million.
#[derive(Default)]
pub(super) struct Ranks(pub HashMap<String, u32>);

impl<'de> Deserialize<'de> for Ranks {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Ranks;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of merges")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Ranks, A::Error> {
                let mut ranks = HashMap::new();
                let mut rank = 0u32;
                while let Some(Merged(piece)) = seq.next_element()? {
                    ranks.entry(piece).or_insert(rank);
                    rank = rank.saturating_add(1);
                }
                Ok(Ranks(ranks))
            }
        }
        d.deserialize_seq(V)
    }
}

/// What one merge makes. Written as `["a", "b"]`, or by older versions as `"a b"`.
struct Merged(String);

impl<'de> Deserialize<'de> for Merged {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Merged;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a merge: two pieces")
            }

            fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<Merged, E> {
                let (a, b) = v.split_once(' ').ok_or_else(|| E::custom("a merge of one piece"))?;
                Ok(Merged([a, b].concat()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merged, A::Error> {
                let missing = || A::Error::custom("a merge of fewer than two pieces");
                let mut piece: String = seq.next_element()?.ok_or_else(missing)?;
                piece.push_str(&seq.next_element::<String>()?.ok_or_else(missing)?);
                match seq.next_element::<IgnoredAny>()? {
                    None => Ok(Merged(piece)),
                    Some(_) => Err(A::Error::custom("a merge of more than two pieces")),
                }
            }
        }
        d.deserialize_any(V)
    }
}
