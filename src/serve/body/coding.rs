//! Content codings (RFC 9110 section 8.4.1) and their decoders.

use std::io::{self, ErrorKind, Read};

use axum::http::{HeaderMap, HeaderValue, header};
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};

use crate::serve::problem::{Problem, code::Code};

/// The codings a body may come in, as told in `Accept-Encoding`.
pub const ACCEPTED: &str = "gzip, zstd, deflate, identity";

/// Largest zstd window, as a power of two: 8 MiB, what RFC 9659 allows in HTTP.
pub(crate) const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// How a body is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Not at all.
    Identity,
    /// One or more gzip members (RFC 1952 section 2.2).
    Gzip,
    /// The zlib format (RFC 1950), which is what RFC 9110 section 8.4.1.2 means by `deflate`.
    Deflate,
    /// One or more Zstandard frames (RFC 8878) with windows up to 8 MiB (RFC 9659).
    Zstd,
}

impl Coding {
    /// The coding named by the headers; names are compared without regard to case, `x-gzip` is `gzip`.
    ///
    /// # Errors
    /// `unsupported_encoding` for any other name and for more than one coding: nobody gains by packing twice, and each
    /// layer multiplies what a hostile body can cost.
    pub fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut found = Self::Identity;
        for value in headers.get_all(header::CONTENT_ENCODING) {
            let value = value.to_str().map_err(|_| unsupported("is not text"))?;
            for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                let coding = match name.to_ascii_lowercase().as_str() {
                    "identity" => continue,
                    "gzip" | "x-gzip" => Self::Gzip,
                    "deflate" => Self::Deflate,
                    "zstd" => Self::Zstd,
                    _ => return Err(unsupported("names an unknown coding")),
                };
                if found != Self::Identity {
                    return Err(unsupported("names more than one coding"));
                }
                found = coding;
            }
        }
        Ok(found)
    }

    /// Memory a decoder needs beside its output, in bytes.
    pub(super) fn window_bytes(self) -> usize {
        match self {
            Self::Identity => 0,
            Self::Gzip | Self::Deflate => 64 << 10,
            Self::Zstd => 9 << 20,
        }
    }
}

fn unsupported(what: &'static str) -> Problem {
    Problem::new(
        Code::UnsupportedEncoding,
        format!("the Content-Encoding header {what}"),
    )
    .with_header(header::ACCEPT_ENCODING, HeaderValue::from_static(ACCEPTED))
}

/// Unpacks bytes step by step.
pub(super) enum Decoder<'wire> {
    Gzip(Box<MultiGzDecoder<&'wire [u8]>>),
    Deflate(Box<ZlibDecoder<&'wire [u8]>>),
    Zstd(Box<zstd::stream::read::Decoder<'wire, &'wire [u8]>>),
}

impl<'wire> Decoder<'wire> {
    /// A decoder at the beginning of `wire`; none if there is nothing to decode.
    pub(super) fn open(coding: Coding, wire: &'wire [u8]) -> Result<Option<Self>, Problem> {
        Ok(Some(match coding {
            Coding::Identity => return Ok(None),
            Coding::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(wire))),
            Coding::Deflate => Self::Deflate(Box::new(ZlibDecoder::new(wire))),
            Coding::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(wire).map_err(problem)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(problem)?;
                Self::Zstd(Box::new(decoder))
            }
        }))
    }

    /// Appends up to `bytes` decoded bytes to `out`; fewer only at the end of the body. Returns how many.
    ///
    /// # Errors
    /// `body_truncated` if the packed bytes end early, `body_undecodable` if they are not what their coding says or if
    /// something else stands behind them.
    pub(super) fn step(&mut self, bytes: usize, out: &mut Vec<u8>) -> Result<usize, Problem> {
        let begin = out.len();
        out.resize(begin + bytes, 0);
        let mut filled = 0;
        while filled < bytes {
            let read = self.read(&mut out[begin + filled..]);
            match read {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(problem(error)),
            }
        }
        out.truncate(begin + filled);
        let rest = match self {
            Self::Deflate(decoder) if filled < bytes => *decoder.get_ref(),
            _ => &[][..],
        };
        if !rest.is_empty() {
            return Err(Problem::new(
                Code::BodyUndecodable,
                "bytes stand behind the end of the compressed data",
            ));
        }
        Ok(filled)
    }

    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.read(out),
            Self::Deflate(decoder) => decoder.read(out),
            Self::Zstd(decoder) => decoder.read(out),
        }
    }
}

fn problem(error: io::Error) -> Problem {
    if error.kind() == ErrorKind::UnexpectedEof {
        Problem::new(Code::BodyTruncated, "the compressed data ends too early")
    } else {
        Problem::new(
            Code::BodyUndecodable,
            "the body is not what its Content-Encoding says",
        )
    }
}
