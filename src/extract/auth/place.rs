//! Where a credential stands in a request.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::header::{CONTENT_TYPE, COOKIE, HeaderValue};
use serde_json::Value;

use crate::{
    config::{auth::Auth, request::TokenSlot},
    error::{Error, ErrorKind, Result},
    extract::{
        auth::{header_name, sensitive},
        request::{PageBody, Prepared, set_query},
    },
};

/// The place and the whole text of a credential that is given, not fetched; none for no credential.
///
/// # Errors
/// [`ErrorKind::Config`] if a secret cannot be read, or if the credential is not of such a kind.
pub(super) fn given(auth: &Auth) -> Result<Option<(TokenSlot, String)>> {
    let authorization = || TokenSlot::Header("authorization".to_owned());
    Ok(Some(match auth {
        Auth::None => return Ok(None),
        Auth::ApiKeyHeader { name, value } => (TokenSlot::Header(name.clone()), value.reveal()?),
        Auth::ApiKeyQuery { name, value } => (TokenSlot::Query(name.clone()), value.reveal()?),
        Auth::ApiKeyBody { field, value } => (TokenSlot::BodyField(field.clone()), value.reveal()?),
        Auth::Basic { username, password } => {
            let pair = format!("{}:{}", username.reveal()?, password.reveal()?);
            (authorization(), format!("Basic {}", STANDARD.encode(pair)))
        }
        Auth::Bearer { scheme, token } => (authorization(), with_scheme(scheme, &token.reveal()?)),
        Auth::OAuth2(_) | Auth::Jwt { .. } | Auth::Session(_) | Auth::Select { .. } | Auth::Pool(_) => {
            return Err(Error::new(ErrorKind::Config, "use credential").with(
                "problem",
                "only none, api_key, basic and bearer need no token of their own",
            ));
        }
    }))
}

/// Lets the secrets of a given credential be read anew, also those kept for a short time.
pub(super) fn forget(auth: &Auth) {
    match auth {
        Auth::ApiKeyHeader { value, .. }
        | Auth::ApiKeyQuery { value, .. }
        | Auth::ApiKeyBody { value, .. } => value.forget(),
        Auth::Basic { username, password } => {
            username.forget();
            password.forget();
        }
        Auth::Bearer { token, .. } => token.forget(),
        Auth::None
        | Auth::OAuth2(_)
        | Auth::Jwt { .. }
        | Auth::Session(_)
        | Auth::Select { .. }
        | Auth::Pool(_) => {}
    }
}

/// `scheme token`, or the token alone if there is no scheme.
pub(super) fn with_scheme(scheme: &str, token: &str) -> String {
    if scheme.is_empty() {
        token.to_owned()
    } else {
        format!("{scheme} {token}")
    }
}

/// Puts `text` into its place. A cookie joins those that are there; anything else replaces what was there.
///
/// # Errors
/// [`ErrorKind::Config`] if the text does not fit into a header, or the body has no fields.
pub(super) fn place(prepared: &mut Prepared, slot: &TokenSlot, text: &str) -> Result<()> {
    match slot {
        TokenSlot::Query(name) => set_query(&mut prepared.url, name, text),
        TokenSlot::Header(name) => {
            let known = header_name(name)?;
            let cookies = prepared.headers.get(COOKIE).and_then(|value| value.to_str().ok());
            let value = match cookies {
                Some(cookies) if known == COOKIE => sensitive(name, &format!("{cookies}; {text}"))?,
                _ => sensitive(name, text)?,
            };
            prepared.headers.insert(known, value);
        }
        TokenSlot::BodyField(path) => {
            if let PageBody::Text(_) = prepared.body {
                return Err(Error::new(ErrorKind::Config, "place credential")
                    .with("problem", "the body is a text and has no fields")
                    .with(
                        "hint",
                        "send the credential in a header, or give the body as json or form",
                    ));
            }
            if prepared.body == PageBody::None {
                let json = HeaderValue::from_static("application/json");
                prepared.headers.entry(CONTENT_TYPE).or_insert(json);
            }
            prepared.body.set(path, text, Value::String(text.to_owned()));
        }
        TokenSlot::Template => {
            return Err(Error::new(ErrorKind::Config, "place credential").with(
                "problem",
                "a credential goes into a header, the query or the body",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderMap;
    use serde_json::json;
    use url::Url;

    use super::*;
    use crate::config::{request::Method, secret::Secret};

    fn prepared(body: PageBody) -> Prepared {
        Prepared {
            method: Method::Post,
            url: Url::parse("https://a.example/o?limit=5&key=old").unwrap(),
            headers: HeaderMap::new(),
            body,
        }
    }

    fn applied(auth: &Auth) -> Prepared {
        let mut prepared = prepared(PageBody::None);
        let (slot, text) = given(auth).unwrap().unwrap();
        place(&mut prepared, &slot, &text).unwrap();
        prepared
    }

    #[test]
    fn r050_each_kind_of_credential_is_placed() {
        let header = Auth::ApiKeyHeader {
            name: "X-Api-Key".to_owned(),
            value: Secret::literal("k1"),
        };
        assert_eq!(applied(&header).headers["x-api-key"], "k1");
        let query = Auth::ApiKeyQuery {
            name: "key".to_owned(),
            value: Secret::literal("k&2"),
        };
        assert_eq!(
            applied(&query).url.as_str(),
            "https://a.example/o?limit=5&key=k%262"
        );
        let basic = Auth::Basic {
            username: Secret::literal("Aladdin"),
            password: Secret::literal("open sesame"),
        };
        assert_eq!(
            applied(&basic).headers["authorization"],
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        );
        let bearer = Auth::Bearer {
            scheme: "Token".to_owned(),
            token: Secret::literal("t"),
        };
        let prepared = applied(&bearer);
        assert_eq!(prepared.headers["authorization"], "Token t");
        assert_eq!(prepared.url.as_str(), "https://a.example/o?limit=5&key=old");
        assert!(!format!("{:?}", prepared.headers).contains("Token"));
        assert!(given(&Auth::None).unwrap().is_none());
        assert_eq!(with_scheme("", "t"), "t");
    }

    #[test]
    fn r050_a_key_goes_into_a_json_or_form_body_and_no_other() {
        let slot = TokenSlot::BodyField(vec!["auth".to_owned(), "key".to_owned()]);
        let mut json = prepared(PageBody::Json(json!({"auth": {"user": 7}})));
        place(&mut json, &slot, "k").unwrap();
        assert_eq!(
            json.body,
            PageBody::Json(json!({"auth": {"user": 7, "key": "k"}}))
        );
        let mut form = prepared(PageBody::Form(vec![("a".to_owned(), "1".to_owned())]));
        place(&mut form, &slot, "k").unwrap();
        assert_eq!(form.body.to_bytes().unwrap(), b"a=1&auth.key=k");
        let mut none = prepared(PageBody::None);
        place(&mut none, &slot, "k").unwrap();
        assert_eq!(none.body, PageBody::Json(json!({"auth": {"key": "k"}})));
        assert_eq!(none.headers[CONTENT_TYPE], "application/json");
        let mut text = prepared(PageBody::Text("SELECT 1".to_owned()));
        let error = place(&mut text, &slot, "k").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_eq!(text.body.to_bytes().unwrap(), b"SELECT 1");
    }

    #[test]
    fn r051_a_session_cookie_joins_the_others() {
        let mut prepared = prepared(PageBody::None);
        prepared
            .headers
            .insert(COOKIE, HeaderValue::from_static("lang=en"));
        let slot = TokenSlot::Header("Cookie".to_owned());
        place(&mut prepared, &slot, "sid=1").unwrap();
        assert_eq!(prepared.headers[COOKIE], "lang=en; sid=1");
    }

    #[test]
    fn r050_a_secret_with_a_line_end_is_refused_unseen() {
        let slot = TokenSlot::Header("authorization".to_owned());
        let error = place(&mut prepared(PageBody::None), &slot, "Bearer hunter2\nx: y").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!error.chain().contains("hunter2"));
    }
}
