//! How a body is packed.

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};

use crate::error::{Error, ErrorKind, Result};

/// A content coding (RFC 9110, section 8.4.1; RFC 8878).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// As it is.
    Identity,
    /// gzip, which every server knows.
    Gzip,
    /// Zstandard: smaller than gzip in a fraction of the time.
    Zstd,
}

/// Level of Zstandard: beyond it the time grows faster than the body shrinks.
const ZSTD_LEVEL: i32 = 3;

/// A shorter body is sent as it is, in bytes: it would hardly shrink.
const PACKED_BYTES_MIN: usize = 512;

impl Coding {
    /// The value of `Content-Encoding`; none for what is not packed.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }

    /// `body` packed, and how it really is: a short one stays as it is.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the library says no.
    pub fn pack(self, body: &Bytes) -> Result<(Bytes, Self)> {
        if body.len() < PACKED_BYTES_MIN {
            return Ok((body.clone(), Self::Identity));
        }
        let packed = match self {
            Self::Identity => return Ok((body.clone(), self)),
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(body).and_then(|()| encoder.finish())
            }
            Self::Zstd => zstd::bulk::compress(body, ZSTD_LEVEL),
        };
        let packed =
            packed.map_err(|source| Error::new(ErrorKind::Internal, "pack body").caused_by(source))?;
        Ok((Bytes::from(packed), self))
    }
}
