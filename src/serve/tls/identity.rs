//! Who a client certificate speaks for.

use std::{fmt, net::IpAddr};

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use webpki::EndEntityCert;

use super::addresses::addresses;

/// A name a certificate authority vouches for, out of the subject alternative names (RFC 5280 section 4.2.1.6).
///
/// The common name is not one: it has not been an identity since RFC 6125.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SubjectName {
    /// A host name, lowercase. A wildcard stands for itself: compare whole, never as a pattern.
    Dns(String),
    /// A URI such as a SPIFFE id, as written.
    Uri(String),
    /// An address of mail, as written.
    Email(String),
    /// An address of a host.
    Ip(IpAddr),
}

impl fmt::Display for SubjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => write!(f, "dns:{name}"),
            Self::Uri(name) => write!(f, "uri:{name}"),
            Self::Email(name) => write!(f, "email:{name}"),
            Self::Ip(address) => write!(f, "ip:{address}"),
        }
    }
}

/// The holder of a client certificate that was verified in the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Every name of the certificate of these kinds, in its order: DNS first, then URIs, then addresses. Empty if it has
    /// none.
    pub names: Vec<SubjectName>,
    /// SHA-256 of the certificate (DER), lowercase hexadecimal: which certificate it was, for the audit log.
    pub fingerprint: String,
}

impl Identity {
    /// The identity in `certificate`, which must have been verified before.
    ///
    /// None if it cannot be parsed, which a verified certificate always can.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let parsed = EndEntityCert::try_from(certificate).ok()?;
        let dns = parsed
            .valid_dns_names()
            .map(|name| SubjectName::Dns(name.to_ascii_lowercase()));
        let uris = parsed
            .valid_uri_names()
            .map(|name| SubjectName::Uri(name.to_owned()));
        let digest = Sha256::digest(certificate);
        Some(Self {
            names: dns.chain(uris).chain(addresses(certificate)).collect(),
            fingerprint: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }
}
