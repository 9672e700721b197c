//! How a request proves who sends it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use url::Url;

use crate::{
    config::auth::Auth,
    error::{Error, ErrorKind, Result},
    extract::request::set_query,
};

/// Adds the credentials to a request about to be sent. Their header values are marked sensitive.
///
/// # Errors
/// [`ErrorKind::Config`] if a secret cannot be read or does not fit into a header.
pub fn apply(auth: &Auth, url: &mut Url, headers: &mut HeaderMap) -> Result<()> {
    match auth {
        Auth::None => {}
        Auth::ApiKeyHeader { name, value } => {
            headers.insert(header_name(name)?, sensitive(name, &value.reveal()?)?);
        }
        Auth::ApiKeyQuery { name, value } => set_query(url, name, &value.reveal()?),
        Auth::Basic { username, password } => {
            let pair = format!("{}:{}", username.reveal()?, password.reveal()?);
            headers.insert(
                AUTHORIZATION,
                sensitive("authorization", &format!("Basic {}", STANDARD.encode(pair)))?,
            );
        }
        Auth::Bearer { scheme, token } => {
            headers.insert(
                AUTHORIZATION,
                sensitive("authorization", &format!("{scheme} {}", token.reveal()?))?,
            );
        }
        Auth::ApiKeyBody { .. }
        | Auth::OAuth2(_)
        | Auth::Jwt { .. }
        | Auth::Session(_)
        | Auth::Select { .. }
        | Auth::Pool(_) => {
            return Err(
                Error::new(ErrorKind::Config, "apply credential").with("problem", "not available yet")
            );
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::Secret;

    fn applied(auth: &Auth) -> (String, HeaderMap) {
        let mut url = Url::parse("https://a.example/o?limit=5&key=old").unwrap();
        let mut headers = HeaderMap::new();
        apply(auth, &mut url, &mut headers).unwrap();
        (url.to_string(), headers)
    }

    #[test]
    fn r050_each_kind_of_credential_is_placed() {
        let header = Auth::ApiKeyHeader {
            name: "X-Api-Key".to_owned(),
            value: Secret::literal("k1"),
        };
        assert_eq!(applied(&header).1["x-api-key"], "k1");
        let query = Auth::ApiKeyQuery {
            name: "key".to_owned(),
            value: Secret::literal("k&2"),
        };
        assert_eq!(applied(&query).0, "https://a.example/o?limit=5&key=k%262");
        let basic = Auth::Basic {
            username: Secret::literal("Aladdin"),
            password: Secret::literal("open sesame"),
        };
        assert_eq!(
            applied(&basic).1["authorization"],
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        );
        let bearer = Auth::Bearer {
            scheme: "Token".to_owned(),
            token: Secret::literal("t"),
        };
        let (url, headers) = applied(&bearer);
        assert_eq!(headers["authorization"], "Token t");
        assert_eq!(url, "https://a.example/o?limit=5&key=old");
        assert!(!format!("{headers:?}").contains("Token"));
    }

    #[test]
    fn r050_a_secret_with_a_line_end_is_refused_unseen() {
        let auth = Auth::Bearer {
            scheme: "Bearer".to_owned(),
            token: Secret::literal("hunter2\nx: y"),
        };
        let mut url = Url::parse("https://a.example").unwrap();
        let error = apply(&auth, &mut url, &mut HeaderMap::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!error.chain().contains("hunter2"));
    }
}
