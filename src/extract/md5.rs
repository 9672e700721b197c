//! MD5 (RFC 1321), as servers still declare it of their files. Not for anything that must be hard to forge.

/// The digest of bytes that come piece by piece.
#[derive(Clone)]
pub struct Md5 {
    words: [u32; 4],
    /// Bytes of a block that is not full.
    block: [u8; 64],
    /// Bytes so far.
    bytes: u64,
}

/// The rotations of each round, by step modulo 4.
const ROTATIONS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];

impl Md5 {
    /// The digest of nothing yet.
    pub fn new() -> Self {
        Self {
            words: [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476],
            block: [0; 64],
            bytes: 0,
        }
    }

    /// Adds bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let filled = (self.bytes % 64) as usize;
            let count = bytes.len().min(64 - filled);
            self.block[filled..filled + count].copy_from_slice(&bytes[..count]);
            self.bytes = self.bytes.wrapping_add(count as u64);
            bytes = &bytes[count..];
            if filled + count == 64 {
                self.compress();
            }
        }
    }

    /// The digest.
    pub fn finish(mut self) -> [u8; 16] {
        let bits = self.bytes.wrapping_mul(8);
        self.update(&[0x80]);
        while self.bytes % 64 != 56 {
            self.update(&[0]);
        }
        self.update(&bits.to_le_bytes());
        let mut digest = [0; 16];
        for (place, word) in digest.chunks_exact_mut(4).zip(self.words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        digest
    }

    fn compress(&mut self) {
        let mut input = [0; 16];
        for (word, four) in input.iter_mut().zip(self.block.chunks_exact(4)) {
            *word = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
        }
        let [mut a, mut b, mut c, mut d] = self.words;
        for step in 0..64 {
            let round = step / 16;
            let (mixed, place) = match round {
                0 => ((b & c) | (!b & d), step),
                1 => ((d & b) | (!d & c), 5 * step + 1),
                2 => (b ^ c ^ d, 3 * step + 5),
                _ => (c ^ (b | !d), 7 * step),
            };
            // The RFC's table: the whole part of 2^32 times the sine, without its sign.
            let sine = ((step as f64 + 1.0).sin().abs() * 4_294_967_296.0) as u32;
            let sum = a
                .wrapping_add(mixed)
                .wrapping_add(sine)
                .wrapping_add(input[place % 16]);
            a = d;
            d = c;
            c = b;
            b = b.wrapping_add(sum.rotate_left(ROTATIONS[round][step % 4]));
        }
        for (word, more) in self.words.iter_mut().zip([a, b, c, d]) {
            *word = word.wrapping_add(more);
        }
    }
}

impl Default for Md5 {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::raw::frame::hex;

    fn md5(text: &str) -> String {
        let mut md5 = Md5::new();
        md5.update(text.as_bytes());
        hex(&md5.finish())
    }

    /// RFC 1321, appendix A.5.
    #[test]
    fn the_vectors_of_the_rfc_hold() {
        let table = [
            ("", "d41d8cd98f00b204e9800998ecf8427e"),
            ("a", "0cc175b9c0f1b6a831c399e269772661"),
            ("abc", "900150983cd24fb0d6963f7d28e17f72"),
            ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
            ("abcdefghijklmnopqrstuvwxyz", "c3fcd3d76192e4007dfb496cca67e13b"),
            (
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
                "d174ab98d277d9f5a5611c2c9f419d9f",
            ),
            (
                "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
                "57edf4a22be3c955ac49da2e2107b67a",
            ),
        ];
        for (text, expected) in table {
            assert_eq!(md5(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(text in "[a-z]{0,200}", cut in 0..200_usize) {
            let cut = cut.min(text.len());
            let mut pieces = Md5::new();
            pieces.update(&text.as_bytes()[..cut]);
            pieces.update(&text.as_bytes()[cut..]);
            prop_assert_eq!(hex(&pieces.finish()), md5(&text));
        }
    }
}
