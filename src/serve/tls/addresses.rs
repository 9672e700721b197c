//! The addresses among the names of a certificate, which the library that verifies it does not show.
//!
//! Read out of its DER (X.690) by lengths alone: whoever verified it has checked that they fit.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::identity::SubjectName;

/// `id-ce-subjectAltName`, 2.5.29.17 (RFC 5280, section 4.2.1.6), as its object identifier is written.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// `extensions` within `TBSCertificate` (RFC 5280, section 4.1).
const EXTENSIONS: u8 = 0xa3;

const OBJECT_IDENTIFIER: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;

/// `rfc822Name` and `iPAddress` within `GeneralName`.
const EMAIL: u8 = 0x81;
const IP: u8 = 0x87;

/// A value with its tag.
type Tagged<'a> = (u8, &'a [u8]);

/// The addresses of mail and of hosts that `certificate` vouches for, in its order; none of a certificate that cannot be
/// read.
pub(super) fn addresses(certificate: &[u8]) -> Vec<SubjectName> {
    let found = alternative_names(certificate).unwrap_or_default();
    parts(found).filter_map(address).collect()
}

/// The content of the extension.
fn alternative_names(certificate: &[u8]) -> Option<&[u8]> {
    let (_, certificate) = parts(certificate).next()?;
    let (_, signed) = parts(certificate).next()?;
    let (_, extensions) = parts(signed).find(|(tag, _)| *tag == EXTENSIONS)?;
    let (_, extensions) = parts(extensions).next()?;
    let (_, extension) = parts(extensions)
        .find(|(_, extension)| parts(extension).next() == Some((OBJECT_IDENTIFIER, SUBJECT_ALT_NAME)))?;
    // Between the two may stand whether it is critical.
    let (_, value) = parts(extension).find(|(tag, _)| *tag == OCTET_STRING)?;
    Some(parts(value).next()?.1)
}

fn address((tag, value): Tagged<'_>) -> Option<SubjectName> {
    match tag {
        EMAIL => {
            let text = str::from_utf8(value).ok()?;
            let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
            is_plain.then(|| SubjectName::Email(text.to_owned()))
        }
        IP => {
            let v4 = || Some(IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?)));
            let v6 = || Some(IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?)));
            Some(SubjectName::Ip(v4().or_else(v6)?))
        }
        _ => None,
    }
}

/// The values that follow each other in `der`, up to one that does not fit.
fn parts(mut der: &[u8]) -> impl Iterator<Item = Tagged<'_>> {
    std::iter::from_fn(move || {
        let (tag, rest) = der.split_first()?;
        let (first, rest) = rest.split_first()?;
        let (length, rest) = match usize::from(*first) {
            short @ 0..=0x7f => (short, rest),
            // No certificate needs more than four bytes for a length, and DER has no length that is not said.
            long @ 0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(long - 0x80)?;
                let length = bytes
                    .iter()
                    .fold(0, |length, byte| length << 8 | u64::from(*byte));
                (usize::try_from(length).ok()?, rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        der = rest;
        Some((*tag, value))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};

    use super::*;
    use crate::serve::tls::tests::pki;

    #[test]
    fn r157_addresses_are_read_and_names_of_other_kinds_are_not() {
        let read = |name: &str| {
            let certificate = CertificateDer::from_pem_file(pki().join(name)).unwrap();
            let names = addresses(&certificate);
            names.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(read("client.pem"), ["email:ops@example.com"]);
        assert_eq!(read("host.pem"), ["ip:192.0.2.7", "ip:2001:db8::7"]);
        assert_eq!(read("nameless.pem"), [""; 0]);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes: Vec<u8>, at in any::<prop::sample::Index>(), byte: u8) {
            addresses(&bytes);
            let mut certificate = CertificateDer::from_pem_file(pki().join("host.pem")).unwrap().to_vec();
            let at = at.index(certificate.len());
            certificate[at] = byte;
            addresses(&certificate);
            addresses(&certificate[..at]);
        }
    }
}
