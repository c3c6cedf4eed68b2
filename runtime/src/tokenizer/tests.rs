use proptest::prelude::*;
use quant::gguf::MetaValue;

use super::testing::{Entry, byte_tokenizer, entries, load, metadata};
use super::*;

type Metadata = Vec<(String, MetaValue)>;

/// The smallest vocabulary with these pieces after the control and byte tokens.
fn with(pieces: &[(&str, f32, i32)]) -> Metadata {
    let mut all = entries();
    all.extend(pieces.iter().map(|&(text, score, kind)| (text.to_string(), score, kind)));
    metadata(&all)
}

fn set(metadata: &mut Metadata, key: &str, value: MetaValue) {
    metadata.retain(|(k, _)| k != key);
    metadata.push((key.into(), value));
}

fn texts(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    ids.iter().map(|&id| tokenizer.token_text(id).unwrap().to_string()).collect()
}

#[test]
fn any_text_survives_bytes() {
    let tokenizer = byte_tokenizer();
    let text = "a é 中 🙂\n\0\u{2581}<bos>";
    let ids = tokenizer.encode(text, Special::Plain);
    assert_eq!(tokenizer.decode(&ids), text.replace('\u{2581}', " "));
    assert_eq!(tokenizer.encode("", Special::Parse), [0; 0]);
}

#[test]
fn control_tokens_are_parsed_only_where_allowed() {
    let tokenizer = byte_tokenizer();
    let bos = tokenizer.special().bos.unwrap();
    assert_eq!(tokenizer.encode("<bos>", Special::Parse), [bos]);
    let plain = tokenizer.encode("<bos>", Special::Plain);
    assert_eq!(plain.len(), 5);
    use Special::{Parse, Plain};
    assert_eq!(tokenizer.encode_parts(&[("<b", Parse), ("os>", Parse)]), [bos]);
    for parts in [
        [("<bo", Parse), ("s>", Plain), ("", Plain)],
        [("<", Plain), ("bos>", Parse), ("", Parse)],
        [("<b", Parse), ("o", Plain), ("s>", Parse)],
    ] {
        assert_eq!(tokenizer.encode_parts(&parts), plain, "{parts:?}");
    }
    // An empty part keeps nothing out, and what is around a plain part still counts.
    assert_eq!(tokenizer.encode_parts(&[("<b", Parse), ("", Plain), ("os>", Parse)]), [bos]);
    let mixed = tokenizer.encode_parts(&[("<bos>", Parse), ("<bos>", Plain), ("<bos>", Parse)]);
    assert_eq!((mixed[0], mixed[6], mixed.len()), (bos, bos, 7));
}

#[test]
fn parts_merge_across_their_borders() {
    let tokenizer =
        load(&with(&[("a", -1.0, 1), ("b", -2.0, 1), ("ab", -3.0, 1), ("x", 0.0, 4)])).unwrap();
    use Special::{Parse, Plain};
    let ids = tokenizer.encode_parts(&[("a", Parse), ("b", Plain), ("x", Plain)]);
    assert_eq!(texts(&tokenizer, &ids), ["ab", "x"]);
}

#[test]
fn streaming_never_splits_a_character() {
    let tokenizer = byte_tokenizer();
    let byte = |b: u8| tokenizer.token_to_id(&format!("<0x{b:02X}>")).unwrap();
    let bos = tokenizer.special().bos.unwrap();
    let space = tokenizer.token_to_id("\u{2581}").unwrap();
    let mut stream = StreamDecoder::new();
    let mut push = |id| stream.push(&tokenizer, id);
    assert_eq!(push(byte(0xC3)), "");
    assert_eq!(push(bos), "", "hidden, and no end to the run");
    assert_eq!(push(byte(0xA9)), "");
    assert_eq!(push(space), "é ");
    assert_eq!(push(byte(0xC3)), "");
    assert_eq!(push(space), "\u{FFFD} ");
    assert_eq!(push(u32::MAX), "");
    assert_eq!(push(byte(b'a')), "");
    assert_eq!(push(byte(0xFF)), "");
    assert_eq!(stream.finish(), "\u{FFFD}\u{FFFD}", "one bad byte spoils its run");
    assert_eq!(stream.finish(), "");
}

#[test]
fn control_tokens_marked_otherwise_are_mended() {
    for kind in [1, 4] {
        let mut all = entries();
        all.iter_mut().filter(|e| e.0.contains("turn")).for_each(|e| e.2 = kind);
        all.push(("<b>".into(), 0.0, kind));
        all.push(("<".into(), -1.0, 1));
        all.push((">".into(), -2.0, 1));
        all.push(("<>".into(), -3.0, 1));
        let tokenizer = load(&metadata(&all)).unwrap();
        assert!(tokenizer.warnings()[0].contains("<start_of_turn>"), "{:?}", tokenizer.warnings());
        let end = tokenizer.token_to_id("<end_of_turn>").unwrap();
        assert_eq!(tokenizer.kind(end), Kind::Control);
        assert!(tokenizer.is_eos(end) && tokenizer.is_eos(1));
        assert!(tokenizer.encode("<end_of_turn>", Special::Plain).len() > 1);
        assert_eq!(tokenizer.encode("<end_of_turn>", Special::Parse), [end]);
        assert_eq!(tokenizer.decode(&[end]), "");
        // What merging cannot make is verbatim; what it can, is not.
        let ids = tokenizer.encode("<b><>", Special::Plain);
        assert_eq!(texts(&tokenizer, &ids), ["<b>", "<>"]);
        assert_eq!(tokenizer.kind(tokenizer.token_to_id("<>").unwrap()), Kind::Normal);
    }
}

#[test]
fn all_ends_are_known() {
    let mut keys = with(&[("x", -1.0, 1)]);
    set(&mut keys, "tokenizer.ggml.eos_token_id", MetaValue::I32(1));
    set(&mut keys, "tokenizer.ggml.eot_token_id", MetaValue::U32(6));
    set(&mut keys, "tokenizer.ggml.eom_token_id", MetaValue::I32(-1));
    set(&mut keys, "tokenizer.ggml.eos_token_ids", MetaValue::U32s(vec![1, 7]));
    let tokenizer = load(&keys).unwrap();
    assert_eq!(tokenizer.special().eos, [1, 6, 7, super::testing::END]);
}

#[test]
fn missing_bytes_fall_back_to_unknown() {
    let mut all: Vec<Entry> = entries().into_iter().filter(|e| !e.0.ends_with("9>")).collect();
    all.push(("a".into(), -1.0, 1));
    all.push(("aé".into(), -1.0, 1));
    let tokenizer = load(&metadata(&all)).unwrap();
    let unk = "<unk>".to_string();
    let ids = tokenizer.encode("aéé é", Special::Plain);
    // A run of unknown text is one token. The space has its bytes, of which none ends in 9.
    assert_eq!(texts(&tokenizer, &ids)[..2], ["a".to_string(), unk.clone()]);
    assert_eq!(texts(&tokenizer, &ids).iter().filter(|t| **t == unk).count(), 2);
    // Without an unknown token there would be no ids at all.
    let mut keys = metadata(&all);
    keys.retain(|(k, _)| k != "tokenizer.ggml.unknown_token_id");
    assert!(matches!(load(&keys), Err(TokenizerError::NoFallback { .. })));
}

#[test]
fn what_does_not_add_up_is_refused_by_name() {
    let refuse = |change: &dyn Fn(&mut Metadata), named: &[&str]| {
        let mut keys = with(&[("a", -1.0, 1)]);
        change(&mut keys);
        let message = load(&keys).unwrap_err().to_string();
        for name in named {
            assert!(message.contains(name), "{message:?} lacks {name}");
        }
    };
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    refuse(&|k| k.retain(|(name, _)| *name != key("model")), &["tokenizer.ggml.model"]);
    refuse(&|k| set(k, &key("model"), MetaValue::String("gpt2".into())), &["gpt2", "llama"]);
    refuse(&|k| k.retain(|(name, _)| *name != key("tokens")), &["tokenizer.ggml.tokens"]);
    refuse(&|k| k.retain(|(name, _)| *name != key("scores")), &["tokenizer.ggml.scores"]);
    refuse(&|k| set(k, &key("tokens"), MetaValue::F32s(vec![1.0; 266])), &["strings"]);
    refuse(&|k| set(k, &key("tokens"), MetaValue::U32(1)), &["an array"]);
    refuse(
        &|k| set(k, &key("scores"), MetaValue::F32s(vec![1.0])),
        &["scores", "1 entries", "266"],
    );
    refuse(
        &|k| set(k, &key("token_type"), MetaValue::I32s(vec![1; 9])),
        &["token_type", "9 entries"],
    );
    refuse(&|k| set(k, &key("token_type"), MetaValue::I32s(vec![7; 266])), &["token_type", "7"]);
    refuse(
        &|k| set(k, &key("token_type"), MetaValue::F32s(vec![1.0; 266])),
        &["token_type", "f32"],
    );
    refuse(&|k| set(k, &key("scores"), MetaValue::F32s(vec![f32::NAN; 266])), &["NaN", "<pad>"]);
    for name in ["bos_token_id", "eos_token_id", "eot_token_id", "unknown_token_id"] {
        refuse(&|k| set(k, &key(name), MetaValue::U32(266)), &[name, "266"]);
        refuse(&|k| set(k, &key(name), MetaValue::String("x".into())), &[name]);
    }
    refuse(
        &|k| set(k, &key("eos_token_ids"), MetaValue::I32s(vec![1, -5])),
        &["eos_token_ids", "-5"],
    );
    let long = "a".repeat(70_000);
    let mut all = entries();
    all.push((long, 0.0, 1));
    assert!(matches!(load(&metadata(&all)), Err(TokenizerError::TooLong { id: 265, .. })));
    assert!(load(&metadata(&[])).is_err(), "no tokens, no bytes, no unknown token");
}

#[test]
fn odd_vocabularies_have_a_defined_meaning() {
    // Duplicates: the first counts. Empty texts: never matched. Infinite scores: in order.
    let tokenizer = load(&with(&[
        ("a", -1.0, 1),
        ("a", -1.0, 1),
        ("", -1.0, 1),
        ("", -1.0, 4),
        ("aa", f32::INFINITY, 1),
        ("aaa", f32::NEG_INFINITY, 1),
        ("b", -1.0, 5),
    ]))
    .unwrap();
    assert!(tokenizer.warnings().iter().any(|w| w.starts_with("2 tokens")));
    let ids = tokenizer.encode("aaaab", Special::Plain);
    assert_eq!(texts(&tokenizer, &ids), ["aa", "aa", "<0x62>"], "b is unused");
    assert_eq!(ids[0], 265 + 4);
    // Types left out: texts decide.
    let mut keys = with(&[("a", -1.0, 1)]);
    keys.retain(|(k, _)| k != "tokenizer.ggml.token_type");
    let tokenizer = load(&keys).unwrap();
    assert_eq!(tokenizer.kind(2), Kind::Control);
    assert_eq!(tokenizer.encode("a\n", Special::Plain).len(), 2);
}

/// One merge after another, looked for from scratch: what merging is, too simple to be wrong.
fn naive(pieces: &[(String, f32)], word: &str) -> Vec<String> {
    let mut parts: Vec<String> = word.chars().map(String::from).collect();
    loop {
        let best = (1..parts.len())
            .filter_map(|i| {
                let joined = format!("{}{}", parts[i - 1], parts[i]);
                let score = pieces.iter().find(|(text, _)| *text == joined)?.1;
                let chars = |s: &str| -(s.chars().count() as f32);
                Some(([-score, chars(&parts[i - 1]), chars(&parts[i])], i))
            })
            .min_by(|a, b| a.0.partial_cmp(&b.0).unwrap().then(a.1.cmp(&b.1)));
        let Some((_, i)) = best else { return parts };
        let right = parts.remove(i);
        parts[i - 1] += &right;
    }
}

proptest! {
    #[test]
    fn merging_is_what_it_says(
        pieces in prop::collection::hash_map("[ab▁]{2,6}", -9..9i32, 0..30),
        word in "[ab▁]{0,90}",
    ) {
        let mut all = entries();
        let letters = ["a", "b", "\u{2581}"].map(|s| (s.to_string(), -100.0));
        let mut scored: Vec<(String, f32)> = letters.to_vec();
        scored.extend(pieces.into_iter().map(|(text, score)| (text, score as f32)));
        all.extend(scored.iter().map(|(text, score)| (text.clone(), *score, 1)));
        let tokenizer = load(&metadata(&all)).unwrap();
        let ids = tokenizer.encode(&word, Special::Plain);
        prop_assert_eq!(texts(&tokenizer, &ids), naive(&scored, &word));
    }

    #[test]
    fn hostile_vocabularies_do_not_panic(
        tokens in prop::collection::vec(("[<>a-c▁\n 0x\u{0}é]{0,5}", any::<f32>(), -1..8i32), 0..40),
        text in ".{0,40}",
        ids in prop::collection::vec(any::<u32>(), 0..10),
        all_bytes in any::<bool>(),
    ) {
        let mut all = if all_bytes { entries() } else { vec![] };
        all.extend(tokens);
        if let Ok(tokenizer) = load(&metadata(&all)) {
            for special in [Special::Plain, Special::Parse] {
                let encoded = tokenizer.encode(&text, special);
                prop_assert!(encoded.iter().all(|&id| (id as usize) < tokenizer.len()));
                tokenizer.decode(&encoded);
            }
            tokenizer.decode(&ids);
        }
    }
}
