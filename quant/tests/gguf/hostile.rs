//! Damaged files: no panic, and no more memory than a small factor of the file's length.

use lapidary_quant::DType;
use lapidary_quant::gguf::{Gguf, GgufError, ValueType};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::alloc::peak;
use crate::bytes::Bytes;
use crate::round_trip::{metadata, tensors, write};

/// Bytes that parsing may hold for each byte of the file. A tensor is 32 bytes in the file at least;
/// here its descriptor, its finished form, its index entry (in a table up to 16/7 as large as its
/// content) and a small allocation for its dimensions come to less than 10 times that. A key of 13
/// bytes, with 56 for name and value and an index entry of 25, stays below the same factor.
const FACTOR: usize = 10;
/// What a file of no length at all may cost: an error's text, the smallest tables.
const BASE: usize = 4096;

/// Parses, reads everything there is to read, and checks the memory that it took.
fn survive(bytes: &[u8]) -> Result<(), GgufError> {
    let (result, held) = peak(|| Gguf::parse(bytes));
    assert!(held <= FACTOR * bytes.len() + BASE, "{held} bytes held for {}", bytes.len());
    let file = result?;
    for (key, value) in file.metadata() {
        let _ = (file.u64(key), file.f32(key), file.bool(key), file.str(key));
        if let Some(array) = value.as_array() {
            assert_eq!(array.iter().count(), array.len());
            let _ = (array.f32s(), array.i64s(), array.strings().map(Iterator::count));
        }
    }
    for t in file.tensors() {
        assert_eq!((t.matrix().rows() * t.matrix().cols()) as u64, t.elements());
    }
    Ok(())
}

/// One way to spoil a file.
#[derive(Clone, Debug)]
enum Damage {
    Byte(u8),
    Flip(u8),
    U32(u32),
    U64(u64),
    Cut,
    Repeat(usize),
    Remove(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let large = prop_oneof![
        any::<u64>(),
        0u64..64,
        (0u32..64).prop_map(|s| 1u64 << s),
        (0u64..64).prop_map(|n| u64::MAX - n),
        (0u64..64).prop_map(|n| (1 << 63) - n),
    ];
    prop_oneof![
        any::<u8>().prop_map(Damage::Byte),
        (0u32..8).prop_map(|b| Damage::Flip(1 << b)),
        prop_oneof![0u32..40, any::<u32>()].prop_map(Damage::U32),
        large.prop_map(Damage::U64),
        Just(Damage::Cut),
        (1usize..100).prop_map(Damage::Repeat),
        (1usize..40).prop_map(Damage::Remove),
    ]
}

fn spoil(file: &mut Vec<u8>, at: usize, damage: &Damage) {
    if file.is_empty() {
        return;
    }
    let at = at % file.len();
    let mut put = |bytes: &[u8]| {
        let n = bytes.len().min(file.len() - at);
        file[at..at + n].copy_from_slice(&bytes[..n]);
    };
    match *damage {
        Damage::Byte(b) => put(&[b]),
        Damage::Flip(bit) => file[at] ^= bit,
        Damage::U32(v) => put(&v.to_le_bytes()),
        Damage::U64(v) => put(&v.to_le_bytes()),
        Damage::Cut => file.truncate(at),
        Damage::Repeat(n) => {
            let piece = file[at..(at + n).min(file.len())].to_vec();
            file.splice(at..at, piece);
        }
        Damage::Remove(n) => drop(file.drain(at..(at + n).min(file.len()))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_files_do_no_harm(
        metadata in metadata(),
        tensors in tensors(),
        damages in vec((any::<usize>(), damage()), 1..4),
        in_header in any::<bool>(),
    ) {
        let (layout, mut file) = write(&metadata, &tensors);
        let reach = if in_header { layout.header.len() } else { file.len() };
        for (at, damage) in damages {
            spoil(&mut file, at % reach, &damage);
        }
        let _ = survive(&file);
    }

    #[test]
    fn noise_does_no_harm(noise in vec(any::<u8>(), 0..400), keys in 0u64..20, tensors in 0u64..8) {
        let _ = survive(&noise);
        let _ = survive(&Bytes::header(tensors, keys).raw(&noise).0);
    }
}

/// The densest files there can be, whole and with the last entry missing.
#[test]
fn memory_stays_in_proportion() {
    for n in [1u64, 100, 30_000] {
        let keys = (0..n)
            .fold(Bytes::header(0, n), |b, i| b.key(&format!("{i:x}"), ValueType::U8).raw(&[0]));
        survive(&keys.0).unwrap();
        survive(&keys.0[..keys.0.len() - 1]).unwrap_err();

        let described = (0..n).fold(Bytes::header(n, 0), |b, i| {
            b.tensor(&format!("{i:x}"), &[1], DType::F32, 32 * i)
        });
        survive(&described.0).unwrap_err();
        survive(&described.data(32 * n as usize).0).unwrap();

        // Counts that the bytes could just hold, were they not all zeros.
        for (tensors, keys) in [(0, n), (n, 0), (n, n), (n, 1)] {
            let _ = survive(&Bytes::header(tensors, keys).data(13 * n as usize).0);
            let _ = survive(&Bytes::header(tensors, keys).data(45 * n as usize).0);
        }
    }
    // One string, one array of empty strings, one of arrays: borrowed, whatever their length.
    let long = 1 << 20;
    let one = || Bytes::header(0, 1);
    let array = |item| one().key("k", ValueType::Array).array(item, long as u64);
    survive(&one().key("k", ValueType::String).u64(long as u64).raw(&vec![b'x'; long]).0).unwrap();
    survive(&array(ValueType::String).raw(&vec![0; 8 * long]).0).unwrap();
    survive(&array(ValueType::Array).raw(&vec![0; 12 * long]).0).unwrap();
    survive(&array(ValueType::Bool).raw(&vec![1; long]).0).unwrap();
}
