//! Tokens from a login request.

use std::sync::Arc;

use reqwest::header::{COOKIE, HeaderMap, SET_COOKIE};
use sha2::{Digest as _, Sha256};

use crate::{
    clock::Clock,
    config::{
        Source,
        auth::{Session, SessionToken},
        request::TokenSlot,
    },
    error::Result,
    extract::{
        auth::{
            config_of, digest,
            endpoint::{Answer, Endpoint},
            oauth::text_at,
            place::{self, given, place},
            tokens::{Issued, Times},
        },
        request::{PageRequest, Prepared},
    },
};

/// Logs in for one credential.
pub(super) struct SessionIssuer {
    session: Session,
    source: Arc<Source>,
    endpoint: Endpoint,
}

impl SessionIssuer {
    /// # Errors
    /// Those of [`Endpoint::new`]; [`ErrorKind::Config`](crate::error::ErrorKind::Config) if the login itself needs a
    /// credential that has to be fetched.
    pub(super) fn new(source: &Source, session: &Session, clock: Clock) -> Result<Self> {
        let endpoint = Endpoint::new(source, &source.base_url, clock)?;
        Ok(Self {
            session: session.clone(),
            source: Arc::new(source.clone()),
            endpoint,
        })
    }

    /// Logs in.
    ///
    /// # Errors
    /// Those of [`Authorizer::apply`](super::Authorizer::apply).
    pub(super) async fn issue(&self) -> Result<Issued> {
        self.endpoint.admit(&self.login()?).await?;
        let answer = self.endpoint.ask(|| self.login()).await?;
        let Some(text) = self.token(&answer) else {
            let error = self.endpoint.refused(answer.status, &answer.body);
            return Err(error.with(
                "problem",
                "the answer of the login holds no token where it should",
            ));
        };
        let cookie = match &self.session.token {
            // As a cookie it goes back under its name.
            SessionToken::Cookie(name) if is_cookie(&self.session.send.to) => Some(format!("{name}={text}")),
            SessionToken::Body(_) | SessionToken::Header(_) | SessionToken::Cookie(_) => None,
        };
        let times = self.session.lifetime.map(|lifetime| Times {
            lifetime,
            used: lifetime,
        });
        Ok(Issued {
            text: cookie.unwrap_or_else(|| text.clone()),
            times,
            secrets: vec![text],
        })
    }

    /// The digest of the login request with everything in it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::error::ErrorKind::Config) if a secret cannot be read.
    pub(super) fn inputs(&self) -> Result<[u8; 32]> {
        let login = self.login()?;
        let mut inputs = Sha256::new();
        inputs.update(digest(login.url.as_str()));
        for value in login.headers.values() {
            inputs.update(Sha256::digest(value.as_bytes()));
        }
        inputs.update(login.body.to_bytes().unwrap_or_default());
        Ok(inputs.finalize().into())
    }

    pub(super) fn endpoint(&mut self) -> &mut Endpoint {
        &mut self.endpoint
    }

    pub(super) fn forget(&self) {
        place::forget(&self.session.login_auth);
    }

    fn login(&self) -> Result<Prepared> {
        let Session {
            login, login_auth, ..
        } = &self.session;
        let request = PageRequest::of(&self.source, login, config_of(&self.source))?;
        let mut prepared = request.prepare(&self.source, login)?;
        if let Some((slot, text)) = given(login_auth)? {
            place(&mut prepared, &slot, &text)?;
        }
        Ok(prepared)
    }

    fn token(&self, answer: &Answer) -> Option<String> {
        let text = match &self.session.token {
            SessionToken::Body(path) => text_at(path, &answer.body)?,
            SessionToken::Header(name) => answer.headers.get(name)?.to_str().ok()?.to_owned(),
            SessionToken::Cookie(name) => cookie(&answer.headers, name)?,
        };
        (!text.is_empty()).then_some(text)
    }
}

fn is_cookie(slot: &TokenSlot) -> bool {
    matches!(slot, TokenSlot::Header(name) if name.eq_ignore_ascii_case(COOKIE.as_str()))
}

/// The last value that `Set-Cookie` gives the cookie `name` (RFC 6265 section 5.2).
fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let cookies = headers.get_all(SET_COOKIE).iter().rev();
    cookies.filter_map(|value| value.to_str().ok()).find_map(|line| {
        let pair = line.split(';').next()?;
        let (known, value) = pair.split_once('=')?;
        (known.trim() == name).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    use super::*;
    use crate::fields::near::{each_long, near};

    proptest! {
        #[test]
        fn r051_a_cookie_is_what_stands_between_its_name_and_its_attributes(
            line in near(&["sid=n=w; HttpOnly", "sid = \"a b\" ; Path=/; Expires=Sun, 22 Nov 2026 01:05:06 GMT", "a=1; sid=2"]),
        ) {
            let Ok(value) = HeaderValue::from_bytes(&line) else { return Ok(()) };
            let headers = HeaderMap::from_iter([(SET_COOKIE, value)]);
            let grammar = regex::bytes::Regex::new("^[ \t]*sid[ \t]*=([^;]*)(;|$)").unwrap();
            let is_text = line.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
            let expected = grammar.captures(&line).filter(|_| is_text);
            let expected = expected.map(|found| String::from_utf8_lossy(&found[1]).trim().to_owned());
            prop_assert_eq!(cookie(&headers, "sid"), expected);
        }
    }

    #[test]
    fn a_cookie_of_64_kib_is_read_in_one_pass() {
        each_long(&["sid=", ";", "=", " ", "a"], |line| {
            let value = HeaderValue::from_bytes(&line).unwrap();
            cookie(&HeaderMap::from_iter([(SET_COOKIE, value)]), "sid");
        });
    }

    #[test]
    fn r051_a_cookie_is_found_by_its_name() {
        let mut headers = HeaderMap::new();
        for line in ["a=1; Path=/", "sid=old", "sid = n=w; HttpOnly; Secure", "flag"] {
            headers.append(SET_COOKIE, HeaderValue::from_static(line));
        }
        assert_eq!(cookie(&headers, "sid").as_deref(), Some("n=w"));
        assert_eq!(cookie(&headers, "a").as_deref(), Some("1"));
        assert_eq!(cookie(&headers, "flag"), None);
        assert_eq!(cookie(&headers, "SID"), None);
    }
}
