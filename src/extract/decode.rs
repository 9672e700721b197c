//! Content codings, decoded here and under limits.
//!
//! The HTTP client decodes nothing: it would read only the first member of a gzip body and know no bound.

use std::{
    fmt,
    io::{self, BufRead, Read},
};

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;

use crate::{
    config::Limits,
    error::Error,
    format::meter::{Excess, Meter},
};

/// What requests say they understand.
pub const ACCEPT_ENCODING: &str = "gzip, zstd";

/// Decoded at a time.
const STEP_BYTES: usize = 64 * 1024;

/// How a body was encoded for the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Not at all.
    Identity,
    /// RFC 1952, one or more members.
    Gzip,
    /// RFC 8878, one or more frames.
    Zstd,
}

/// Why a body could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undecoded {
    /// A coding that was not asked for, or more than one.
    Unknown {
        /// Its name, cut to 40 characters.
        coding: String,
    },
    /// The body ends too soon or its bytes are not of its coding. Another attempt may get them whole.
    Broken {
        /// In the decoder's words.
        problem: String,
    },
    /// More decoded bytes than [`Limits::page_bytes_max`].
    TooLarge {
        /// The limit, in bytes.
        page_bytes_max: u64,
    },
    /// More decoded bytes per encoded byte than [`Limits::decode_ratio_max`].
    TooDense {
        /// The limit, in decoded bytes per encoded byte.
        decode_ratio_max: u64,
    },
}

impl fmt::Display for Undecoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { coding } => write!(f, "unknown content encoding {coding:?}"),
            Self::Broken { problem } => write!(f, "broken content encoding: {problem}"),
            Self::TooLarge { page_bytes_max } => {
                write!(f, "decoded_too_large: more than {page_bytes_max} bytes")
            }
            Self::TooDense { decode_ratio_max } => {
                write!(
                    f,
                    "decoded_too_large: more than {decode_ratio_max} bytes per encoded byte"
                )
            }
        }
    }
}

impl std::error::Error for Undecoded {}

/// Why a body was not copied.
#[derive(Debug)]
pub enum Uncopied {
    /// It could not be decoded.
    Undecoded(Undecoded),
    /// Whoever took it could not take all of it.
    Untaken(Error),
}

impl Coding {
    /// Reads the values of the `Content-Encoding` fields of a response.
    ///
    /// # Errors
    /// [`Undecoded::Unknown`] for anything but one of ours; `identity` may stand beside it.
    ///
    /// ```
    /// use landfall::extract::decode::Coding;
    /// assert_eq!(Coding::of(["X-GZIP"]), Ok(Coding::Gzip));
    /// assert!(Coding::of(["gzip, gzip"]).is_err());
    /// ```
    pub fn of<'a>(values: impl IntoIterator<Item = &'a str>) -> Result<Self, Undecoded> {
        let mut found = Self::Identity;
        let names = values
            .into_iter()
            .flat_map(|value| value.split(','))
            .map(str::trim);
        for name in names.filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity")) {
            let coding = match name.to_ascii_lowercase().as_str() {
                "gzip" | "x-gzip" => Self::Gzip,
                "zstd" => Self::Zstd,
                _ => {
                    return Err(Undecoded::Unknown {
                        coding: name.chars().take(40).collect(),
                    });
                }
            };
            if found != Self::Identity {
                return Err(Undecoded::Unknown {
                    coding: "more than one".to_owned(),
                });
            }
            found = coding;
        }
        Ok(found)
    }
}

/// The body as it was before it was encoded.
///
/// # Errors
/// See [`Undecoded`]; nothing is returned of a body that is not whole.
pub fn decode(coding: Coding, body: Bytes, limits: &Limits) -> Result<Bytes, Undecoded> {
    let encoded = body.len() as u64;
    match coding {
        Coding::Identity if encoded > limits.page_bytes_max => Err(Undecoded::TooLarge {
            page_bytes_max: limits.page_bytes_max,
        }),
        Coding::Identity => Ok(body),
        // No bytes are no member and no frame, and so an encoded body that was cut.
        _ if body.is_empty() => Err(Undecoded::Broken {
            problem: "empty".to_owned(),
        }),
        Coding::Gzip | Coding::Zstd => {
            let mut decoded = Vec::new();
            let copied = copy(coding, &body[..], limits, &|| encoded, &mut |bytes| {
                decoded.extend_from_slice(bytes);
                Ok(())
            });
            match copied {
                Ok(()) => Ok(Bytes::from(decoded)),
                Err(Uncopied::Undecoded(cause)) => Err(cause),
                // Memory takes all.
                Err(Uncopied::Untaken(error)) => Err(Undecoded::Broken {
                    problem: error.to_string(),
                }),
            }
        }
    }
}

/// Hands the body as it was before it was encoded to `take`, as it is decoded.
///
/// `encoded` says how long the encoded body is, as far as is known by now.
///
/// # Errors
/// As in [`decode()`], except that no bytes are no body; what was handed over before an error counts for nothing.
pub fn copy(
    coding: Coding,
    body: impl BufRead,
    limits: &Limits,
    encoded: &dyn Fn() -> u64,
    take: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Uncopied> {
    match coding {
        Coding::Identity => {
            let unmeasured = Limits {
                decode_ratio_max: u64::MAX,
                ..*limits
            };
            read_capped(body, &unmeasured, encoded, take)
        }
        Coding::Gzip => read_capped(MultiGzDecoder::new(body), limits, encoded, take),
        Coding::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(body);
            let decoder = decoder.map_err(|error| Uncopied::Undecoded(broken(error)))?;
            read_capped(decoder, limits, encoded, take)
        }
    }
}

fn read_capped(
    mut decoder: impl Read,
    limits: &Limits,
    encoded: &dyn Fn() -> u64,
    take: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Uncopied> {
    let mut meter = Meter::new(encoded(), limits.page_bytes_max, limits.decode_ratio_max);
    let mut step = vec![0; STEP_BYTES];
    // Ends at `page_bytes_max` at the latest.
    loop {
        let count = match decoder.read(&mut step) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Uncopied::Undecoded(broken(error))),
        };
        meter.expect(encoded());
        meter.take(count).map_err(|excess| {
            Uncopied::Undecoded(match excess {
                Excess::Bytes(page_bytes_max) => Undecoded::TooLarge { page_bytes_max },
                Excess::Ratio(decode_ratio_max) => Undecoded::TooDense { decode_ratio_max },
            })
        })?;
        take(&step[..count]).map_err(Uncopied::Untaken)?;
    }
}

fn broken(error: io::Error) -> Undecoded {
    Undecoded::Broken {
        problem: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        page_bytes_max: 4 * 1024 * 1024,
        held_bytes_max: u64::MAX,
        part_bytes: u64::MAX,
        decode_ratio_max: 200,
        pages_max: 10,
        empty_pages_max: 1,
    };

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn decoded(coding: Coding, body: impl Into<Bytes>) -> Result<Bytes, Undecoded> {
        decode(coding, body.into(), &LIMITS)
    }

    #[test]
    fn f038_multi_member_gzip_is_read_whole() {
        let body = [gz(b"{\"data\":["), gz(b"{\"id\":1}"), gz(b"]}")].concat();
        assert_eq!(decoded(Coding::Gzip, body).unwrap(), "{\"data\":[{\"id\":1}]}");
    }

    #[test]
    fn f038_several_zstd_frames_are_read_whole() {
        let body = [
            zstd::encode_all(&b"[1,"[..], 1).unwrap(),
            zstd::encode_all(&b"2]"[..], 1).unwrap(),
        ]
        .concat();
        assert_eq!(decoded(Coding::Zstd, body).unwrap(), "[1,2]");
    }

    #[test]
    fn f035_an_encoded_body_cut_anywhere_is_broken() {
        let text = b"{\"data\":[{\"id\":1},{\"id\":2},{\"id\":3}]}";
        for (coding, whole) in [
            (Coding::Gzip, gz(text)),
            (Coding::Zstd, zstd::encode_all(&text[..], 1).unwrap()),
        ] {
            assert_eq!(decoded(coding, whole.clone()).unwrap(), &text[..]);
            for end in 0..whole.len() {
                let found = decoded(coding, whole[..end].to_vec());
                assert!(
                    matches!(found, Err(Undecoded::Broken { .. })),
                    "{coding:?} cut at {end}: {found:?}"
                );
            }
        }
    }

    #[test]
    fn f035_garbage_behind_a_gzip_member_is_broken() {
        let body = [gz(b"[]"), b"<html>".to_vec()].concat();
        assert!(matches!(
            decoded(Coding::Gzip, body),
            Err(Undecoded::Broken { .. })
        ));
    }

    #[test]
    fn f039_a_bomb_meets_the_size_or_the_ratio() {
        let zeros = vec![b' '; 8 * 1024 * 1024];
        let ratio = Err(Undecoded::TooDense {
            decode_ratio_max: 200,
        });
        assert_eq!(decoded(Coding::Gzip, gz(&zeros)), ratio);
        assert_eq!(
            decoded(Coding::Zstd, zstd::encode_all(&zeros[..], 1).unwrap()),
            ratio
        );
        let size = Err(Undecoded::TooLarge {
            page_bytes_max: LIMITS.page_bytes_max,
        });
        assert_eq!(decoded(Coding::Identity, zeros.clone()), size);
        let loose = Limits {
            decode_ratio_max: u64::MAX,
            ..LIMITS
        };
        assert_eq!(decode(Coding::Gzip, gz(&zeros).into(), &loose), size);
        // Within the first MiB no ratio is too much.
        assert_eq!(
            decoded(Coding::Gzip, gz(&zeros[..1024 * 1024])).unwrap().len(),
            1024 * 1024
        );
    }

    #[test]
    fn f038_only_codings_that_were_asked_for_are_known() {
        assert_eq!(Coding::of([]), Ok(Coding::Identity));
        assert_eq!(Coding::of(["identity", "zstd"]), Ok(Coding::Zstd));
        for values in [&["br"][..], &["gzip, gzip"], &["gzip", "zstd"], &["deflate"]] {
            assert!(
                matches!(Coding::of(values.iter().copied()), Err(Undecoded::Unknown { .. })),
                "{values:?}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn f038_members_of_any_cut_decode_to_the_whole(
            bytes in proptest::collection::vec(any::<u8>(), 0..2000),
            cut in 0usize..2000,
        ) {
            let cut = cut.min(bytes.len());
            let body = [gz(&bytes[..cut]), gz(&bytes[cut..])].concat();
            prop_assert_eq!(decoded(Coding::Gzip, body).unwrap(), bytes);
        }

        #[test]
        fn f035_decoding_garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decoded(Coding::Gzip, bytes.clone());
            let _ = decoded(Coding::Zstd, bytes);
        }
    }
}
