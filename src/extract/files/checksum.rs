//! Checksums as records declare them.

use std::fmt;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};

use crate::{
    error::{Error, ErrorKind, Result},
    raw::frame::hex,
};

/// A declared checksum, lowercase hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Checksum {
    Sha256(String),
    Md5(String),
}

impl Checksum {
    /// Reads a SHA-256 or an MD5 by its length, in hex or base64, with or without its name before it (`sha256:…`,
    /// `sha256-…`, `md5:…`) and quotes around it.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] for anything else: what cannot be checked must not count as checked.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let bare = text.trim_matches('"');
        let named = ["sha256:", "sha256-", "sha-256=", "md5:", "md5-"];
        let lower = bare.to_ascii_lowercase();
        let name = named.iter().find(|name| lower.starts_with(*name));
        let digits = &bare[name.map_or(0, |name| name.len())..];
        let bytes = unhex(digits)
            .or_else(|| STANDARD.decode(digits).ok())
            .or_else(|| URL_SAFE.decode(digits).ok());
        let fits = |kind: &str| name.is_none_or(|name| name.starts_with(kind));
        match bytes {
            Some(bytes) if bytes.len() == 32 && fits("sha") => Ok(Self::Sha256(hex(&bytes))),
            Some(bytes) if bytes.len() == 16 && fits("md5") => Ok(Self::Md5(hex(&bytes))),
            _ => Err(Error::new(ErrorKind::Refused, "read checksum of a file")
                .with("expected", "SHA-256 or MD5, in hex or base64")),
        }
    }

    /// Whether a file with these digests is the one that was declared.
    pub(super) fn holds(&self, sha256: &str, md5: &str) -> bool {
        match self {
            Self::Sha256(declared) => declared == sha256,
            Self::Md5(declared) => declared == md5,
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(hex) => write!(f, "sha256 {hex}"),
            Self::Md5(hex) => write!(f, "md5 {hex}"),
        }
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    // 22 or 43 digits of base64 may look like hex; no SHA-256 or MD5 in hex is that long.
    if !matches!(text.len(), 32 | 64) || !text.is_ascii() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_told_by_their_length() {
        const SHA: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        const MD5: &str = "900150983cd24fb0d6963f7d28e17f72";
        let sha = Some(Checksum::Sha256(SHA.to_owned()));
        let md5 = Some(Checksum::Md5(MD5.to_owned()));
        let table = [
            (SHA.to_owned(), &sha),
            (SHA.to_uppercase(), &sha),
            (format!("sha256:{SHA}"), &sha),
            ("ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=".to_owned(), &sha),
            (
                "sha256-ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0=".to_owned(),
                &sha,
            ),
            (MD5.to_owned(), &md5),
            (format!("\"{MD5}\""), &md5),
            (format!("MD5:{MD5}"), &md5),
            ("kAFQmDzST7DWlj99KOF/cg==".to_owned(), &md5),
            (format!("md5:{SHA}"), &None),
            (format!("{MD5}-3"), &None),
            ("abc".to_owned(), &None),
            (String::new(), &None),
            ("ä".repeat(16), &None),
        ];
        for (text, expected) in table {
            assert_eq!(Checksum::parse(&text).ok(), *expected, "{text}");
        }
    }
}
