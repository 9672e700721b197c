//! How much a decoder may give out.

use std::fmt;

/// Decoded bytes before the ratio is looked at: short texts of one repeated word are harmless.
const RATIO_FREE_BYTES: u64 = 1024 * 1024;

/// Counts what a decoder gives out, so that a small input cannot become an endless output.
#[derive(Debug)]
pub struct Meter {
    encoded: u64,
    decoded: u64,
    bytes_max: u64,
    ratio_max: u64,
}

/// A decoder gave out too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// More decoded bytes than this.
    Bytes(u64),
    /// More decoded bytes per encoded byte than this.
    Ratio(u64),
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(max) => write!(f, "decoded_too_large: more than {max} bytes"),
            Self::Ratio(max) => write!(f, "decoded_too_large: more than {max} bytes per encoded byte"),
        }
    }
}

impl Meter {
    /// For an input of `encoded` bytes.
    pub fn new(encoded: u64, bytes_max: u64, ratio_max: u64) -> Self {
        Self {
            encoded,
            decoded: 0,
            bytes_max,
            ratio_max,
        }
    }

    /// The input is `encoded` bytes long as far as is known by now.
    pub fn expect(&mut self, encoded: u64) {
        self.encoded = encoded;
    }

    /// Counts `bytes` more that were given out.
    ///
    /// # Errors
    /// The bound that is passed now.
    pub fn take(&mut self, bytes: usize) -> Result<(), Excess> {
        self.decoded += bytes as u64;
        if self.decoded > self.bytes_max {
            return Err(Excess::Bytes(self.bytes_max));
        }
        let dense = self.decoded > self.encoded.saturating_mul(self.ratio_max);
        if self.decoded > RATIO_FREE_BYTES && dense {
            return Err(Excess::Ratio(self.ratio_max));
        }
        Ok(())
    }
}
