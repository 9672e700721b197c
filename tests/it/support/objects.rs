//! Raw objects, read by the words of the zstd format alone.

use std::{fs, path::Path};

use zstd::zstd_safe::find_frame_compressed_size;

/// Magic number and length before what a skippable frame holds.
const HEAD_BYTES: usize = 8;

/// The facts behind each frame of an object: JSON arrays, compressed ones decompressed.
pub fn facts(object: &[u8]) -> Vec<Vec<u8>> {
    let (mut found, mut rest) = (Vec::new(), object);
    while !rest.is_empty() {
        let (frame, behind) = rest.split_at(find_frame_compressed_size(rest).unwrap());
        match u32::from_le_bytes(frame[..4].try_into().unwrap()) {
            0x184D_2A50 => found.push(frame[HEAD_BYTES..].to_vec()),
            0x184D_2A51 => found.push(zstd::decode_all(&frame[HEAD_BYTES..]).unwrap()),
            _ => {}
        }
        rest = behind;
    }
    found
}

/// Whether `text` stands in a file: as it is, in the bodies of a raw object or in its facts.
pub fn holds(file: &Path, text: &str) -> bool {
    let bytes = fs::read(file).unwrap();
    let mut forms = vec![bytes.clone()];
    if file.to_string_lossy().ends_with(".jsonl.zst") {
        forms.push(zstd::decode_all(&bytes[..]).unwrap());
        forms.extend(facts(&bytes));
    }
    let mut windows = forms.iter().flat_map(|bytes| bytes.windows(text.len()));
    windows.any(|window| window == text.as_bytes())
}
