//! The digits of a number, eight at a time.

/// A decimal fraction: all its digits as one whole number, and how many of them stand behind the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fixed {
    pub(crate) negative: bool,
    pub(crate) value: u64,
    pub(crate) fraction: u32,
}

impl Fixed {
    /// So many always fit.
    pub(crate) const MAX: usize = 19;
}

/// Powers of ten, by exponent.
pub(crate) const POWERS: [u64; Fixed::MAX + 1] = {
    let mut powers = [1; Fixed::MAX + 1];
    let mut exponent = 1;
    while exponent < powers.len() {
        powers[exponent] = powers[exponent - 1] * 10;
        exponent += 1;
    }
    powers
};

/// Each byte of a word 1.
const ONES: u64 = u64::MAX / 255;
const HIGH: u64 = ONES << 7;

/// The bytes as digits, the first in the lowest byte; 10 and more for what is none.
#[inline]
pub(super) fn digit_values(chunk: [u8; 8]) -> u64 {
    u64::from_le_bytes(chunk) ^ (ONES * u64::from(b'0'))
}

/// How many of the first bytes are digits.
#[inline]
pub(super) fn leading_digits(values: u64) -> usize {
    let none = (((values & !HIGH) + ONES * (0x80 - 10)) | values) & HIGH;
    none.trailing_zeros() as usize / 8
}

/// What the first `length` of eight digits come to, 1 to 8 of them.
#[inline]
pub(super) fn number_of(values: u64, length: usize) -> u64 {
    // With zeros in front there are always eight. Each step adds neighbours, one of them times 10, 100, 10,000.
    let pairs = (values << (64 - 8 * length)).wrapping_mul((10 << 8) | 1) >> 8;
    let fours = (pairs & 0x00FF_00FF_00FF_00FF).wrapping_mul((100 << 16) | 1) >> 16;
    (fours & 0x0000_FFFF_0000_FFFF).wrapping_mul((10_000 << 32) | 1) >> 32
}

/// The whole number at the start with its length, if it has one to seven digits and no other byte of a number behind it.
#[inline]
pub(super) fn small(bytes: &[u8]) -> Option<(u32, usize)> {
    let chunk = bytes.first_chunk::<8>()?;
    let values = digit_values(*chunk);
    let length = leading_digits(values);
    let behind = *chunk.get(length)?;
    if length == 0 || (chunk[0] == b'0' && length > 1) || matches!(behind, b'.' | b'e' | b'E') {
        return None;
    }
    Some((number_of(values, length) as u32, length))
}
