//! Access tokens from a token endpoint: the grants of RFC 6749, and the JWT bearer grant of RFC 7523.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use url::form_urlencoded::byte_serialize;

use crate::{
    clock::Clock,
    config::{
        Source,
        auth::{ClientAuth, Grant, OAuth2, TokenEncoding},
        request::Method,
        secret::Secret,
    },
    error::{ErrorKind, Result},
    extract::{
        auth::{
            config_of,
            endpoint::{Answer, Endpoint},
            header_name,
            kept::{Kept, Locked},
            lifetime::{lifetime, use_for},
            sensitive,
            sign::SignIssuer,
            tokens::{Issued, Times},
        },
        request::{PageBody, Prepared},
    },
    failpoint,
    json::JsonPath,
};

/// The grant type of RFC 7523 section 2.1.
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Asks for the tokens of one credential.
pub(super) struct OAuthIssuer {
    oauth: OAuth2,
    endpoint: Endpoint,
    clock: Clock,
    /// Where a rotated refresh token is kept.
    kept: Kept,
    /// Signs the assertions of a JWT bearer grant.
    signer: Option<SignIssuer>,
}

impl OAuthIssuer {
    /// # Errors
    /// Those of [`Endpoint::new`] and [`SignIssuer::new`].
    pub(super) fn new(
        source: &Source,
        oauth: &OAuth2,
        clock: Clock,
        credentials_dir: &Path,
        name: &str,
    ) -> Result<Self> {
        let signer = match &oauth.grant {
            Grant::JwtBearer(jwt) => Some(SignIssuer::new(jwt, config_of(source))?),
            Grant::ClientCredentials | Grant::RefreshToken(_) | Grant::Password { .. } => None,
        };
        Ok(Self {
            endpoint: Endpoint::new(source, &oauth.token_url, clock.clone())?,
            oauth: oauth.clone(),
            clock,
            kept: Kept::new(credentials_dir, name),
            signer,
        })
    }

    /// A new access token. A refresh token that came with it is kept before this returns.
    ///
    /// # Errors
    /// Those of [`Authorizer::apply`](super::Authorizer::apply).
    pub(super) async fn issue(&self) -> Result<Issued> {
        let Grant::RefreshToken(configured) = &self.oauth.grant else {
            self.endpoint.admit(&self.request(None)?).await?;
            let answer = self.endpoint.ask(|| self.request(None)).await?;
            return self.read(&answer);
        };
        let configured = configured.reveal()?;
        // Before the lock: others would wait for it meanwhile.
        self.endpoint.admit(&self.request(Some(&configured))?).await?;
        // Held until the new token is kept, so that no other process sends the same one: a server that sees a
        // refresh token twice takes it for stolen.
        let locked = self.kept.lock().await?;
        let sent = locked.read(&configured)?.unwrap_or_else(|| configured.clone());
        let answer = self.endpoint.ask(|| self.request(Some(&sent))).await?;
        self.keep(&locked, &configured, &sent, &answer)?;
        let mut issued = self.read(&answer)?;
        issued.secrets.push(sent);
        Ok(issued)
    }

    /// The digest of every secret in a token request.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if a secret cannot be read.
    pub(super) fn inputs(&self) -> Result<[u8; 32]> {
        let mut digest = Sha256::new();
        for secret in self.secrets() {
            digest.update(secret.reveal()?);
            digest.update([0]);
        }
        if let Some(signer) = &self.signer {
            digest.update(signer.inputs()?);
        }
        Ok(digest.finalize().into())
    }

    pub(super) fn endpoint(&mut self) -> &mut Endpoint {
        &mut self.endpoint
    }

    pub(super) fn forget(&self) {
        self.secrets().into_iter().for_each(Secret::forget);
        if let Some(signer) = &self.signer {
            signer.forget();
        }
    }

    fn secrets(&self) -> Vec<&Secret> {
        let oauth = &self.oauth;
        let mut secrets: Vec<&Secret> = oauth.client_id.iter().chain(&oauth.client_secret).collect();
        match &oauth.grant {
            Grant::ClientCredentials | Grant::JwtBearer(_) => {}
            Grant::RefreshToken(token) => secrets.push(token),
            Grant::Password { username, password } => secrets.extend([username, password]),
        }
        secrets.extend(oauth.params.iter().chain(&oauth.headers).map(|(_, value)| value));
        secrets
    }

    /// Keeps a refresh token that replaces the one that was `sent`.
    fn keep(&self, locked: &Locked<'_>, configured: &str, sent: &str, answer: &Answer) -> Result<()> {
        match text_at(&self.oauth.refresh_token, &answer.body) {
            Some(new) if new != sent => {
                locked.write(configured, &new)?;
                failpoint::point("extract::token_rotated");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn read(&self, answer: &Answer) -> Result<Issued> {
        let (oauth, body) = (&self.oauth, &answer.body);
        if answer.status >= 300 {
            return Err(self.endpoint.refused(answer.status, body));
        }
        if serde_json::from_slice::<Value>(body).is_err() {
            return Err(self
                .endpoint
                .error(ErrorKind::Unavailable)
                .with("status", answer.status)
                .with("problem", "the answer is not JSON")
                .with(
                    "hint",
                    "check token_url: this looks like the page of another server",
                ));
        }
        let Some(text) = text_at(&oauth.access_token, body) else {
            let error = self.endpoint.refused(answer.status, body);
            return Err(error.with("problem", format!("no access token at {}", oauth.access_token)));
        };
        let said = value_at(&oauth.expires, body);
        let lifetime = lifetime(said.as_ref(), self.clock.now()).unwrap_or(oauth.lifetime_default);
        Ok(Issued {
            text,
            times: Some(Times {
                lifetime,
                used: use_for(lifetime, oauth.refresh_early),
            }),
            secrets: text_at(&oauth.refresh_token, body).into_iter().collect(),
        })
    }

    /// The token request; `refresh` is the refresh token to send.
    fn request(&self, refresh: Option<&str>) -> Result<Prepared> {
        let oauth = &self.oauth;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let ClientAuth::Basic = oauth.client_auth {
            headers.insert(AUTHORIZATION, sensitive("authorization", &self.basic()?)?);
        }
        for (name, value) in &oauth.headers {
            headers.insert(header_name(name)?, sensitive(name, &value.reveal()?)?);
        }
        let fields = self.fields(refresh)?;
        let mut url = oauth.token_url.clone();
        let (kind, body) = match oauth.encoding {
            TokenEncoding::Form => (Some("application/x-www-form-urlencoded"), PageBody::Form(fields)),
            TokenEncoding::Json => {
                let fields = fields.into_iter().map(|(name, text)| (name, Value::String(text)));
                let fields: Map<String, Value> = fields.collect();
                (Some("application/json"), PageBody::Json(Value::Object(fields)))
            }
            TokenEncoding::Query => {
                url.query_pairs_mut().extend_pairs(fields);
                (None, PageBody::None)
            }
        };
        if let Some(kind) = kind {
            headers
                .entry(CONTENT_TYPE)
                .or_insert(HeaderValue::from_static(kind));
        }
        Ok(Prepared {
            method: Method::Post,
            url,
            headers,
            body,
        })
    }

    /// The fields of the token request under the names the server knows. One of the user's own replaces ours.
    fn fields(&self, refresh: Option<&str>) -> Result<Vec<(String, String)>> {
        let oauth = &self.oauth;
        let mut fields: Vec<(&str, String)> = match (&oauth.grant, &self.signer) {
            (Grant::RefreshToken(_), _) => vec![
                ("grant_type", "refresh_token".to_owned()),
                ("refresh_token", refresh.unwrap_or_default().to_owned()),
            ],
            (Grant::Password { username, password }, _) => vec![
                ("grant_type", "password".to_owned()),
                ("username", username.reveal()?),
                ("password", password.reveal()?),
            ],
            (Grant::JwtBearer(_), Some(signer)) => vec![
                ("grant_type", JWT_BEARER.to_owned()),
                ("assertion", signer.sign(self.clock.now())?),
            ],
            (Grant::ClientCredentials | Grant::JwtBearer(_), _) => {
                vec![("grant_type", "client_credentials".to_owned())]
            }
        };
        if !oauth.scopes.is_empty() {
            fields.push(("scope", oauth.scopes.join(" ")));
        }
        if let ClientAuth::Body = oauth.client_auth {
            for (name, secret) in [
                ("client_id", &oauth.client_id),
                ("client_secret", &oauth.client_secret),
            ] {
                if let Some(secret) = secret {
                    fields.push((name, secret.reveal()?));
                }
            }
        }
        let mut named: Vec<(String, String)> = fields
            .into_iter()
            .map(|(name, text)| (self.name(name).to_owned(), text))
            .collect();
        for (name, value) in &oauth.params {
            named.retain(|(known, _)| known != name);
            named.push((name.clone(), value.reveal()?));
        }
        Ok(named)
    }

    fn name<'a>(&'a self, standard: &'a str) -> &'a str {
        let renamed = self.oauth.names.iter().find(|(known, _)| known == standard);
        renamed.map_or(standard, |(_, name)| name)
    }

    /// RFC 6749 section 2.3.1 has both parts form-encoded first.
    fn basic(&self) -> Result<String> {
        let encoded = |secret: &Option<Secret>| -> Result<String> {
            let text = secret
                .as_ref()
                .map(Secret::reveal)
                .transpose()?
                .unwrap_or_default();
            Ok(byte_serialize(text.as_bytes()).collect())
        };
        let (id, secret) = (
            encoded(&self.oauth.client_id)?,
            encoded(&self.oauth.client_secret)?,
        );
        Ok(format!("Basic {}", STANDARD.encode(format!("{id}:{secret}"))))
    }
}

/// The value at `path` of a JSON text, if there is one.
pub(super) fn value_at(path: &JsonPath, body: &[u8]) -> Option<Value> {
    serde_json::from_slice(path.first(body).ok()??).ok()
}

/// The text at `path`, or the number there as text; none if it is empty.
pub(super) fn text_at(path: &JsonPath, body: &[u8]) -> Option<String> {
    let text = match value_at(path, body)? {
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    (!text.is_empty()).then_some(text)
}
