//! Who may send what, and how fast.
//!
//! ```text
//!             ┌ token ─ tokens ────────────────┐
//! Credentials ┼ jwt ─ issuer ─ keys ─ fetch ───┼─► Caller ─ may(scope, stream) ─► limit ─► Permit
//!             └ names of the certificate ──────┘      │                            │
//!                                                  Denied 401/403/503           Refusal 429/503
//! ```
//!
//! Nothing here grows with what clients send: everything is counted by the producers that are declared.

pub mod audit;
pub mod bucket;
pub mod denial;
pub mod fetch;
pub mod issuer;
pub mod jwt;
pub mod keys;
pub mod limit;
pub mod quota;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_headers;
pub mod token;
pub mod tokens;

use std::{collections::HashMap, fmt, sync::Arc};

use crate::{
    clock::Clock,
    config::{
        Name, Project, StreamName,
        producers::{Producer, San, Scope, Scopes},
    },
    error::Result,
    receive::producer::{
        denial::{Denial, Denied, Via},
        fetch::Fetcher,
        issuer::Trusted,
        jwt::{Unverified, named},
        token::{PREFIX, Token},
        tokens::Tokens,
    },
};

/// Longest value of `Authorization` that is looked at, in bytes.
const AUTHORIZATION_BYTES_MAX: usize = jwt::JWT_BYTES_MAX + 64;

/// What a request shows to prove who sent it.
#[derive(Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// Every value of the header `Authorization`.
    pub authorization: &'a [&'a [u8]],
    /// The names in the certificate of the connection, if there is one and it is good.
    pub certificate: Option<&'a [San]>,
}

/// A producer that has proved who it is.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who it is.
    pub producer: Arc<Producer>,
    /// What it may do with these credentials: never more than the producer may.
    pub scopes: Scopes,
    /// How it proved it.
    pub via: Via,
    /// Which of its credentials it was: the name of a token or of an issuer, or a name in a certificate.
    pub credential: String,
}

/// Every producer, and all that proves to be one of them.
pub struct Producers {
    producers: Vec<Arc<Producer>>,
    by_name: HashMap<Name, usize>,
    by_certificate: HashMap<San, usize>,
    tokens: Tokens,
    issuers: HashMap<String, Arc<Trusted>>,
}

impl Producers {
    /// The producers of `project`. Nothing is asked of issuers yet.
    ///
    /// # Errors
    /// [`Config`](crate::error::ErrorKind::Config) if a token cannot be read,
    /// [`Unavailable`](crate::error::ErrorKind::Unavailable) if the machine has no certificates to trust.
    pub fn new(project: &Project, clock: &Clock) -> Result<Self> {
        let issuers = project.serve.as_ref().map_or(&[][..], |serve| &serve.issuers);
        let trusted = match issuers {
            [] => HashMap::new(),
            issuers => {
                let fetcher = Fetcher::new(issuers)?;
                let trusted = issuers.iter().map(|issuer| {
                    let trusted = Trusted::new(issuer.clone(), fetcher.clone(), clock.clone());
                    (issuer.issuer_text.clone(), Arc::new(trusted))
                });
                trusted.collect()
            }
        };
        let numbered = || project.producers.iter().enumerate();
        let certificates = numbered().flat_map(|(number, producer)| {
            producer
                .certificates
                .iter()
                .map(move |name| (name.clone(), number))
        });
        Ok(Self {
            by_name: numbered()
                .map(|(number, producer)| (producer.name.clone(), number))
                .collect(),
            by_certificate: certificates.collect(),
            tokens: Tokens::new(&project.producers, clock.clone())?,
            issuers: trusted,
            producers: project.producers.iter().cloned().map(Arc::new).collect(),
        })
    }

    /// Who shows `credentials`. A token counts before a certificate; where both name a producer it must be the same one.
    ///
    /// # Errors
    /// Why that is nobody.
    pub async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Caller, Denied> {
        let certificate = credentials.certificate.filter(|names| !names.is_empty());
        let shown = match bearer(credentials.authorization)? {
            Some(text) if text.starts_with(PREFIX) => self.by_token(text).await?,
            Some(text) => self.by_jwt(text).await?,
            None => {
                let Some(names) = certificate else {
                    return Err(Denied::new(Denial::CredentialsMissing, Via::Nothing));
                };
                let (number, name) = self.holder(names)?;
                return Ok(self.caller(number, None, Via::Certificate, name.to_string()));
            }
        };
        match certificate.map(|names| self.holder(names)) {
            Some(Ok((number, _))) if self.producers[number].name != shown.producer.name => Err(Denied {
                producer: Some(shown.producer.name.clone()),
                credential: Some(shown.credential),
                ..Denied::new(Denial::CredentialsDiffer, shown.via)
            }),
            _ => Ok(shown),
        }
    }

    async fn by_token(&self, text: &str) -> Result<Caller, Denied> {
        let token = Token::parse(text).ok_or(Denied::new(Denial::CredentialsMalformed, Via::Token))?;
        let known = self.tokens.find(&token).await?;
        Ok(self.caller(known.producer, None, Via::Token, known.name.to_string()))
    }

    async fn by_jwt(&self, text: &str) -> Result<Caller, Denied> {
        let denied = |denial| Denied::new(denial, Via::Jwt);
        let token = Unverified::read(text).map_err(denied)?;
        let trusted = self.issuers.get(&token.issuer).ok_or(denied(Denial::JwtIssuer))?;
        let proven = trusted.verify(&token).await?;
        let issuer = &trusted.issuer;
        let number = named(issuer, &trusted.table, &proven.subject).and_then(|name| self.by_name.get(&name));
        match number {
            Some(number) => Ok(self.caller(*number, proven.scopes, Via::Jwt, issuer.name.to_string())),
            None => Err(Denied {
                credential: Some(issuer.name.to_string()),
                ..denied(Denial::ProducerUnknown)
            }),
        }
    }

    /// The one producer that names of a certificate stand for.
    fn holder<'n>(&self, names: &'n [San]) -> Result<(usize, &'n San), Denied> {
        let mut held = names
            .iter()
            .filter_map(|name| Some((*self.by_certificate.get(name)?, name)));
        let Some(first) = held.next() else {
            return Err(Denied::new(Denial::CertificateUnknown, Via::Certificate));
        };
        if held.any(|(number, _)| number != first.0) {
            return Err(Denied::new(Denial::CertificateAmbiguous, Via::Certificate));
        }
        Ok(first)
    }

    fn caller(&self, number: usize, granted: Option<Scopes>, via: Via, credential: String) -> Caller {
        let producer = Arc::clone(&self.producers[number]);
        Caller {
            scopes: granted.map_or(producer.scopes, |granted| granted.and(producer.scopes)),
            producer,
            via,
            credential,
        }
    }
}

impl Caller {
    /// Whether it may do what `scope` names, with `stream` if one is meant.
    ///
    /// To be asked before the stream is looked for: whoever may not use a stream must not learn whether it is there.
    ///
    /// # Errors
    /// [`Denial::ScopeMissing`] or [`Denial::StreamForbidden`].
    pub fn may(&self, scope: Scope, stream: Option<&StreamName>) -> Result<(), Denied> {
        let allowed = |stream: &StreamName| {
            self.producer
                .streams
                .iter()
                .any(|pattern| pattern.matches(stream))
        };
        let denial = match stream {
            _ if !self.scopes.has(scope) => Denial::ScopeMissing,
            Some(stream) if !allowed(stream) => Denial::StreamForbidden,
            _ => return Ok(()),
        };
        Err(Denied {
            producer: Some(self.producer.name.clone()),
            credential: Some(self.credential.clone()),
            scope: Some(scope),
            ..Denied::new(denial, self.via)
        })
    }
}

impl fmt::Debug for Credentials<'_> {
    /// What is shown is secret; how much of it is not.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            authorization,
            certificate,
        } = self;
        write!(f, "Credentials({} values, {certificate:?})", authorization.len())
    }
}

/// The token of `Authorization: Bearer TOKEN` (RFC 6750, section 2.1); none if the header is not there.
fn bearer<'a>(authorization: &[&'a [u8]]) -> Result<Option<&'a str>, Denied> {
    let malformed = || Denied::new(Denial::CredentialsMalformed, Via::Nothing);
    let value = match authorization {
        [] => return Ok(None),
        [value] if value.len() <= AUTHORIZATION_BYTES_MAX => value,
        _ => return Err(malformed()),
    };
    let text = str::from_utf8(value).map_err(|_| malformed())?;
    let (scheme, token) = text
        .trim_matches([' ', '\t'])
        .split_once(' ')
        .ok_or_else(malformed)?;
    let token = token.trim_start_matches(' ');
    let token68 = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    let solid = token.trim_end_matches('=');
    if scheme.eq_ignore_ascii_case("bearer") && !solid.is_empty() && solid.bytes().all(token68) {
        Ok(Some(token))
    } else {
        Err(malformed())
    }
}
