//! Why somebody is turned away.

use std::{fmt, time::Duration};

use crate::config::{Name, producers::Scope};

/// How somebody proved who it is, or tried to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// Not at all.
    Nothing,
    /// A token of our own.
    Token,
    /// An access token of an issuer.
    Jwt,
    /// The certificate of the connection.
    Certificate,
    /// The signature of a webhook.
    Signature,
}

/// Why somebody is turned away: a closed list, fit for metrics and the audit log.
///
/// What a client is told is less: see [`Denial::told`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denial {
    /// There is neither a token nor a certificate.
    CredentialsMissing,
    /// The header `Authorization` is there twice, is not `Bearer`, or is no token at all.
    CredentialsMalformed,
    /// The token and the certificate stand for different producers.
    CredentialsDiffer,
    /// No token has this id: it was never there, or is taken back.
    TokenUnknown,
    /// The id is known, and the rest is wrong.
    TokenWrong,
    /// The token is right, and its time is over.
    TokenExpired,
    /// Not a signed JWT with the claims it needs.
    JwtMalformed,
    /// Signed in a way that is not taken, `none` and shared secrets among them.
    JwtAlgorithm,
    /// It brings its own key, or asks for what is not understood (`jwk`, `jku`, `x5u`, `x5c`, `crit`, another `typ`).
    JwtHeader,
    /// Issued by somebody else.
    JwtIssuer,
    /// The issuer has no such key.
    JwtKeyUnknown,
    /// The signature is not that of the key.
    JwtSignature,
    /// Its time is over.
    JwtExpired,
    /// Its time, or that of its issue, is still to come.
    JwtNotYet,
    /// It lives longer than allowed.
    JwtLifetime,
    /// It is for somebody else.
    JwtAudience,
    /// No producer has a name of this certificate.
    CertificateUnknown,
    /// Several producers have.
    CertificateAmbiguous,
    /// The signature of a webhook does not hold.
    SignatureInvalid,
    /// The keys of the issuer cannot be had, and none are kept.
    IssuerUnavailable,
    /// It is known who it is, and no producer is declared for it.
    ProducerUnknown,
    /// The producer does not have the scope.
    ScopeMissing,
    /// The producer may not use the stream.
    StreamForbidden,
}

/// What a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// 401: nothing valid was shown. Never what exactly is wrong with it.
    Unauthenticated,
    /// 401: what was shown was genuine once.
    Expired,
    /// 403: it is known who it is, and that one may not do this.
    Forbidden,
    /// 503: it cannot be found out now.
    Unavailable,
}

/// Somebody was turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Why.
    pub denial: Denial,
    /// How it tried to prove who it is.
    pub via: Via,
    /// Whom it proved to be, or whose token id it showed.
    pub producer: Option<Name>,
    /// Which of the credentials it was, without what proves it: the id of a token, the name of an issuer.
    pub credential: Option<String>,
    /// What it would have needed.
    pub scope: Option<Scope>,
    /// When it may be tried again, if that can help.
    pub retry_after: Option<Duration>,
}

impl Denied {
    /// Turned away for `denial` after an attempt by `via`.
    pub fn new(denial: Denial, via: Via) -> Self {
        Self {
            denial,
            via,
            producer: None,
            credential: None,
            scope: None,
            retry_after: None,
        }
    }

    /// The value of `WWW-Authenticate` (RFC 6750, section 3): with a 401 always, with a 403 for a scope; none with a 503.
    pub fn challenge(&self) -> Option<String> {
        const REALM: &str = "Bearer realm=\"landfall\"";
        match self.denial.told() {
            // Without credentials no error is named: section 3.1.
            _ if self.denial == Denial::CredentialsMissing => Some(REALM.to_owned()),
            Told::Unauthenticated => Some(format!("{REALM}, error=\"invalid_token\"")),
            Told::Expired => Some(format!(
                "{REALM}, error=\"invalid_token\", error_description=\"expired\""
            )),
            Told::Forbidden => {
                let scope = self.scope.map(|scope| format!(", scope=\"{}\"", scope.as_str()));
                Some(format!(
                    "{REALM}, error=\"insufficient_scope\"{}",
                    scope.unwrap_or_default()
                ))
            }
            Told::Unavailable => None,
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.denial.detail())
    }
}

impl Denial {
    /// Every one.
    pub const ALL: [Self; 23] = [
        Self::CredentialsMissing,
        Self::CredentialsMalformed,
        Self::CredentialsDiffer,
        Self::TokenUnknown,
        Self::TokenWrong,
        Self::TokenExpired,
        Self::JwtMalformed,
        Self::JwtAlgorithm,
        Self::JwtHeader,
        Self::JwtIssuer,
        Self::JwtKeyUnknown,
        Self::JwtSignature,
        Self::JwtExpired,
        Self::JwtNotYet,
        Self::JwtLifetime,
        Self::JwtAudience,
        Self::CertificateUnknown,
        Self::CertificateAmbiguous,
        Self::SignatureInvalid,
        Self::IssuerUnavailable,
        Self::ProducerUnknown,
        Self::ScopeMissing,
        Self::StreamForbidden,
    ];

    /// Its name in metrics and the audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CredentialsMissing => "credentials_missing",
            Self::CredentialsMalformed => "credentials_malformed",
            Self::CredentialsDiffer => "credentials_differ",
            Self::TokenUnknown => "token_unknown",
            Self::TokenWrong => "token_wrong",
            Self::TokenExpired => "token_expired",
            Self::JwtMalformed => "jwt_malformed",
            Self::JwtAlgorithm => "jwt_algorithm",
            Self::JwtHeader => "jwt_header",
            Self::JwtIssuer => "jwt_issuer",
            Self::JwtKeyUnknown => "jwt_key_unknown",
            Self::JwtSignature => "jwt_signature",
            Self::JwtExpired => "jwt_expired",
            Self::JwtNotYet => "jwt_not_yet",
            Self::JwtLifetime => "jwt_lifetime",
            Self::JwtAudience => "jwt_audience",
            Self::CertificateUnknown => "certificate_unknown",
            Self::CertificateAmbiguous => "certificate_ambiguous",
            Self::SignatureInvalid => "signature_invalid",
            Self::IssuerUnavailable => "issuer_unavailable",
            Self::ProducerUnknown => "producer_unknown",
            Self::ScopeMissing => "scope_missing",
            Self::StreamForbidden => "stream_forbidden",
        }
    }

    /// What the client is told. Whoever cannot show anything genuine learns only that.
    pub fn told(self) -> Told {
        match self {
            Self::TokenExpired | Self::JwtExpired => Told::Expired,
            Self::ProducerUnknown | Self::ScopeMissing | Self::StreamForbidden => Told::Forbidden,
            Self::IssuerUnavailable => Told::Unavailable,
            _ => Told::Unauthenticated,
        }
    }

    /// A sentence for the client, the same for all that it must not tell apart.
    pub fn detail(self) -> &'static str {
        match self.told() {
            _ if self == Self::CredentialsMissing => {
                "no credentials were sent: send `Authorization: Bearer TOKEN`, or a client certificate"
            }
            _ if self == Self::ScopeMissing => "the producer does not have the scope that this needs",
            // A stream that is not there is told in the same words, so that names cannot be tried.
            _ if self == Self::StreamForbidden => "there is no such stream, or the producer may not use it",
            _ if self == Self::ProducerUnknown => {
                "the credentials are good, and no producer is declared for them"
            }
            Told::Unauthenticated => "the credentials are not valid",
            Told::Expired => "the credentials have expired",
            Told::Forbidden => "the producer may not do this",
            Told::Unavailable => "the keys of the issuer cannot be had at the moment",
        }
    }
}

impl Told {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::Unauthenticated | Self::Expired => 401,
            Self::Forbidden => 403,
            Self::Unavailable => 503,
        }
    }
}

impl Via {
    /// Its name in metrics and the audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Token => "token",
            Self::Jwt => "jwt",
            Self::Certificate => "certificate",
            Self::Signature => "signature",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forger_learns_nothing_and_an_owner_learns_enough() {
        let mut names: Vec<&str> = Denial::ALL.iter().map(|denial| denial.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Denial::ALL.len());
        let told: Vec<_> = [
            Denial::TokenUnknown,
            Denial::TokenWrong,
            Denial::JwtSignature,
            Denial::JwtKeyUnknown,
        ]
        .iter()
        .map(|denial| (denial.told().status(), denial.detail()))
        .collect();
        assert!(
            told.iter()
                .all(|told| *told == (401, "the credentials are not valid")),
            "{told:?}"
        );
        for denial in Denial::ALL {
            let denied = Denied::new(denial, Via::Nothing);
            assert_eq!(
                denied.challenge().is_none(),
                denial.told().status() == 503,
                "{denial:?}"
            );
        }
        let mut denied = Denied::new(Denial::ScopeMissing, Via::Token);
        denied.scope = Some(Scope::Read);
        insta::assert_snapshot!(denied.challenge().unwrap(), @r#"Bearer realm="landfall", error="insufficient_scope", scope="read""#);
        insta::assert_snapshot!(Denied::new(Denial::CredentialsMissing, Via::Nothing).challenge().unwrap(), @r#"Bearer realm="landfall""#);
    }
}
