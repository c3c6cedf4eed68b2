//! The GGUF reader: whatever it accepts can be walked, and read again after it was written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quant::gguf::{Gguf, Layout, MetaValue, TensorSpec};

fuzz_target!(|bytes: &[u8]| {
    let Ok(gguf) = Gguf::parse(bytes) else { return };
    let mut metadata = Vec::new();
    for (key, value) in gguf.metadata() {
        if let Some(array) = value.as_array() {
            assert_eq!(array.iter().count(), array.len());
        }
        if *key != "general.alignment" {
            metadata.push(((*key).to_owned(), MetaValue::from(*value)));
        }
    }
    let mut specs = Vec::new();
    let mut row = Vec::new();
    for t in gguf.tensors() {
        let m = t.matrix();
        assert_eq!(m.rows() as u64 * m.cols() as u64, t.elements());
        row.resize(m.cols(), 0.0);
        quant::codec::decode_row(t.dtype, m.row(0), &mut row);
        specs.push(TensorSpec { name: t.name.into(), dtype: t.dtype, dims: t.dims.clone() });
    }
    let layout = Layout::new(&metadata, &specs).expect("what was read can be written");
    let mut file = layout.header.clone();
    for (t, &offset) in gguf.tensors().iter().zip(&layout.offsets) {
        file.resize(offset as usize, 0);
        file.extend(t.data);
    }
    file.resize(layout.file_len as usize, 0);
    let again = Gguf::parse(&file).expect("what was written can be read");
    for (a, b) in gguf.tensors().iter().zip(again.tensors()) {
        assert_eq!((a.name, &a.dims, a.data), (b.name, &b.dims, b.data));
    }
});
