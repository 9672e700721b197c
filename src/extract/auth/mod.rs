//! How a request proves who sends it.
//!
//! ```text
//! config::Auth ─ members ─► Authorizer ─┬─ given   read from its reference each time it is used
//!                                       └─ tokens  one flight at a time ─► oauth │ session │ sign
//!                                                                            │
//!                                                          kept: a rotated refresh token, durable before use
//! ```
//!
//! | | fetched by | renewed |
//! |---|---|---|
//! | API key, basic, bearer | nobody: read anew for each request | by whoever changes the secret |
//! | OAuth 2 | a token request | before it expires, and when the server refuses it |
//! | session | a login request | after its lifetime, and when the server refuses it |
//! | JWT | nobody: signed here | before it expires, when its key changes, and when the server refuses it |

mod endpoint;
pub(super) mod gate;
mod kept;
mod lifetime;
mod oauth;
mod place;
mod session;
mod sign;
pub mod tls;
mod tokens;

use std::path::Path;

use reqwest::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use url::Origin;

use crate::{
    clock::Clock,
    config::{
        Source,
        auth::{Auth, Credential},
        text::Vars,
    },
    error::{Error, ErrorKind, Result},
    extract::{
        auth::{
            gate::Gate,
            oauth::OAuthIssuer,
            place::{given, place, with_scheme},
            session::SessionIssuer,
            sign::SignIssuer,
            tokens::{Issuer, Tokens},
        },
        request::Prepared,
    },
};

/// One credential at work: knows its token and renews it. Shared by everything that sends with the credential.
///
/// ```
/// use landfall::{
///     clock::Clock,
///     config::read,
///     extract::auth::{Authorizer, members},
/// };
/// let text = "
/// lake: ./lake
/// sources:
///   shop:
///     base_url: https://shop.example
///     auth: {type: bearer, token: '${env:SHOP_TOKEN}'}
///     streams:
///       orders: {request: {path: /orders}, records: '$[*]', paginate: {type: none}, table: {keys: [id]}}
/// ";
/// let project = read::parse(text, "/srv/shop".as_ref()).unwrap().project;
/// let source = &project.sources[0];
/// for auth in members(source)? {
///     Authorizer::new(source, &auth, Clock::system(), &project.credentials_dir, "shop")?;
/// }
/// # Ok::<(), landfall::error::Error>(())
/// ```
pub struct Authorizer(Kind);

enum Kind {
    /// Read from its references each time.
    Given(Auth),
    /// Fetched or signed.
    Tokens { tokens: Tokens, send: Credential },
}

/// What a request was sent with: enough to tell whether there is something newer, and no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied(Mark);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    None,
    /// The digest of a given credential.
    Digest([u8; 32]),
    /// The number of a token.
    Token(u64),
}

/// What can be done after the server refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// A new token is here: send the request again.
    Renewed,
    /// The credential had already changed since the request was built: send it again.
    Newer,
    /// There is nothing newer to send: the refusal stands.
    Impossible,
}

impl Renewal {
    /// Whether the request may have another answer now.
    pub fn send_again(self) -> bool {
        self != Self::Impossible
    }
}

impl Authorizer {
    /// A credential of `source`, one of its [`members`].
    ///
    /// `name` is unique within the project: a rotated refresh token is kept as `NAME.json` in `credentials_dir`.
    /// Nothing is fetched or read yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a choice or a pool, or if a setting cannot be used; [`ErrorKind::Unavailable`] if the
    /// machine has no certificates to trust and the token endpoint needs them.
    pub fn new(
        source: &Source,
        auth: &Auth,
        clock: Clock,
        credentials_dir: &Path,
        name: &str,
    ) -> Result<Self> {
        Self::guarded(source, auth, clock, credentials_dir, name, &mut |_| None)
    }

    /// As [`Self::new`]; token requests to an origin pass the gate that `gate` has for it.
    pub(super) fn guarded(
        source: &Source,
        auth: &Auth,
        clock: Clock,
        credentials_dir: &Path,
        name: &str,
        gate: &mut dyn FnMut(&Origin) -> Option<Gate>,
    ) -> Result<Self> {
        let (mut issuer, send) = match auth {
            Auth::OAuth2(oauth) => {
                let issuer = OAuthIssuer::new(source, oauth, clock.clone(), credentials_dir, name)?;
                (Issuer::OAuth(Box::new(issuer)), &oauth.send)
            }
            Auth::Session(session) => {
                let issuer = SessionIssuer::new(source, session, clock.clone())?;
                (Issuer::Session(Box::new(issuer)), &session.send)
            }
            Auth::Jwt { jwt, send } => {
                let issuer = SignIssuer::new(jwt, config_of(source))?;
                (Issuer::Sign(Box::new(issuer)), send)
            }
            Auth::None
            | Auth::ApiKeyHeader { .. }
            | Auth::ApiKeyQuery { .. }
            | Auth::ApiKeyBody { .. }
            | Auth::Basic { .. }
            | Auth::Bearer { .. } => return Ok(Self(Kind::Given(auth.clone()))),
            Auth::Select { .. } | Auth::Pool(_) => {
                return Err(Error::new(ErrorKind::Config, "use credential")
                    .with("credential", name)
                    .with("problem", "several credentials where one is needed"));
            }
        };
        if let Some(endpoint) = issuer.endpoint()
            && let Some(gate) = gate(endpoint.origin())
        {
            endpoint.guard(gate);
        }
        Ok(Self(Kind::Tokens {
            tokens: Tokens::new(issuer, clock, name),
            send: send.clone(),
        }))
    }

    /// Fetches or renews the token if that is due, so that [`Self::apply`] need not wait for it.
    ///
    /// # Errors
    /// Those of [`Self::apply`].
    pub(super) async fn ready(&self) -> Result<()> {
        match &self.0 {
            Kind::Given(_) => Ok(()),
            Kind::Tokens { tokens, .. } => tokens.get().await.map(|_| ()),
        }
    }

    /// Puts the credential into a request; a token is fetched or renewed first if that is due.
    ///
    /// However many requests wait for a token, one token request is under way. What can be tried again was tried
    /// again here.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if a secret cannot be read or does not fit its place; [`ErrorKind::Refused`] if the
    /// token endpoint says no, at once for everybody until the secrets change; [`ErrorKind::Unavailable`] if it does
    /// not answer; [`ErrorKind::Conflict`] if another process holds the refresh token; [`ErrorKind::Corrupt`] if a
    /// kept refresh token cannot be read.
    pub async fn apply(&self, prepared: &mut Prepared) -> Result<Applied> {
        match &self.0 {
            Kind::Given(auth) => {
                let Some((slot, text)) = given(auth)? else {
                    return Ok(Applied(Mark::None));
                };
                place(prepared, &slot, &text)?;
                Ok(Applied(Mark::Digest(digest(&text))))
            }
            Kind::Tokens { tokens, send } => {
                let (token, number) = tokens.get().await?;
                place(prepared, &send.to, &with_scheme(&send.scheme, &token))?;
                Ok(Applied(Mark::Token(number)))
            }
        }
    }

    /// After the server refused a request sent with `applied`: looks for something newer, or fetches it.
    ///
    /// Twenty requests refused with the same token cause one token request; nineteen are told [`Renewal::Newer`].
    /// A secret is read anew, so that one that was rotated meanwhile counts. A server that refuses token after fresh
    /// token ends in [`Renewal::Impossible`].
    ///
    /// # Errors
    /// Those of [`Self::apply`].
    pub async fn renew(&self, applied: Applied) -> Result<Renewal> {
        match (&self.0, applied.0) {
            (Kind::Given(auth), Mark::Digest(sent)) => {
                place::forget(auth);
                let changed = given(auth)?.is_some_and(|(_, text)| digest(&text) != sent);
                Ok(if changed {
                    Renewal::Newer
                } else {
                    Renewal::Impossible
                })
            }
            (Kind::Tokens { tokens, .. }, Mark::Token(number)) => tokens.renew(number).await,
            (Kind::Given(_) | Kind::Tokens { .. }, _) => Ok(Renewal::Impossible),
        }
    }

    /// Tokens fetched, signed or rotated lately: values that must not be written down.
    pub fn secrets(&self) -> Vec<String> {
        match &self.0 {
            Kind::Given(_) => Vec::new(),
            Kind::Tokens { tokens, .. } => tokens.secrets(),
        }
    }
}

/// The credentials of a source: of a choice the one that `config` names, of a pool each; else the one there is.
///
/// # Errors
/// [`ErrorKind::Config`] if a choice renders to no name that is there, or a pool is empty.
pub fn members(source: &Source) -> Result<Vec<Auth>> {
    let mut found = Vec::new();
    gather(&source.auth, &config_of(source), &mut found)?;
    if found.is_empty() {
        return Err(Error::new(ErrorKind::Config, "choose credential")
            .with("source", &source.name)
            .with("problem", "the pool is empty"));
    }
    Ok(found)
}

fn gather(auth: &Auth, vars: &Vars, found: &mut Vec<Auth>) -> Result<()> {
    match auth {
        Auth::Select { by, among } => {
            let name = by.render(vars)?;
            let Some((_, chosen)) = among.iter().find(|(known, _)| *known == name) else {
                let known: Vec<&str> = among.iter().map(|(known, _)| known.as_str()).collect();
                return Err(Error::new(ErrorKind::Config, "choose credential")
                    .with("by", by)
                    .with("known", known.join(", "))
                    .with(
                        "hint",
                        "set the value of config that `by` reads to one of the names",
                    ));
            };
            gather(chosen, vars, found)
        }
        Auth::Pool(auths) => {
            for auth in auths {
                gather(auth, vars, found)?;
            }
            Ok(())
        }
        one => {
            found.push(one.clone());
            Ok(())
        }
    }
}

/// The variables of a credential's templates: `config` and nothing else.
fn config_of(source: &Source) -> Vars {
    let config: Map<String, Value> = source.config.iter().cloned().collect();
    Vars::default().with("config", &config)
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// A header name from the project file.
///
/// # Errors
/// [`ErrorKind::Config`] if it is not a token of RFC 9110.
pub fn header_name(name: &str) -> Result<HeaderName> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|source| {
        Error::new(ErrorKind::Config, "read header name")
            .with("header", format!("{name:?}"))
            .caused_by(source)
    })
}

/// A header value that no log prints.
///
/// # Errors
/// [`ErrorKind::Config`] if it holds a line end or another control character.
pub fn sensitive(name: &str, value: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(value).map_err(|_| {
        Error::new(ErrorKind::Config, "write header")
            .with("header", name)
            .with("problem", "the value holds a character that headers may not")
    })?;
    value.set_sensitive(true);
    Ok(value)
}
