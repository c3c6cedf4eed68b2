//! The header of a weights file: whatever is accepted lies inside the file.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(tensors) = convert::checkpoint::header(bytes, 0) else { return };
    let mut last = 0;
    for t in tensors {
        assert!(t.offset >= last && t.offset <= bytes.len() as u64, "{t:?}");
        last = t.offset;
        if let Ok(dtype) = t.dtype {
            let elements: u64 = t.shape.iter().product();
            let end = t.offset + elements * dtype.block_bytes() as u64;
            assert!(end <= bytes.len() as u64, "{dtype} at {}", t.offset);
        }
    }
});
