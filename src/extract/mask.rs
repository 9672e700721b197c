//! Secrets are taken out of URLs and headers before those are written down.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use url::{Origin, Url, form_urlencoded};

use crate::{
    config::{
        Source,
        auth::Auth,
        request::{Request, TokenSlot},
        secret::Secret,
        text::percent_encoded,
    },
    error::Result,
};

/// What stands where a secret was.
pub const MASK: &str = "****";

/// Query parameters whose values are masked whatever they hold, lowercase.
pub const SUSPICIOUS_NAMES: [&str; 30] = [
    "access_key",
    "access_token",
    "accesstoken",
    "api-key",
    "api_key",
    "apikey",
    "auth",
    "auth_token",
    "authorization",
    "awsaccesskeyid",
    "client_secret",
    "credential",
    "googleaccessid",
    "key",
    "pass",
    "passwd",
    "password",
    "private_key",
    "refresh_token",
    "secret",
    "session",
    "sig",
    "signature",
    "token",
    "x-amz-credential",
    "x-amz-security-token",
    "x-amz-signature",
    "x-goog-credential",
    "x-goog-signature",
    "x-oss-signature",
];

/// Shortest secret that is looked for by its value; a shorter one would be found by chance.
const VALUE_BYTES_MIN: usize = 6;

/// Longest part of an answer shown in an error, in bytes.
pub const EXCERPT_BYTES_MAX: usize = 500;

/// The names and values that must not be written down for one request.
#[derive(Clone, Default)]
pub struct Masks {
    /// Query parameters that hold a secret of ours.
    names: Vec<String>,
    /// Values that prove who sends, wherever they stand.
    credentials: Vec<String>,
    /// The origins of the source. In a URL of any other one every parameter counts as secret: whoever has such a URL has
    /// what it leads to. None: no URL is judged by its origin.
    homes: Vec<Origin>,
    /// Every value of at least [`VALUE_BYTES_MIN`], the longest first: a secret may begin with another one.
    values: Vec<String>,
}

impl Masks {
    /// Everything secret about a request: credentials, and parameters and headers given by reference.
    ///
    /// # Errors
    /// A reference that cannot be read.
    pub fn of(source: &Source, request: &Request) -> Result<Self> {
        let homes = std::iter::once(&source.base_url).chain(&source.replicas);
        let mut masks = Self {
            homes: homes.map(Url::origin).collect(),
            ..Self::default()
        };
        masks.take(&source.auth)?;
        for (name, value) in request.params.iter().filter(|(_, value)| value.is_reference()) {
            masks.names.push(name.clone());
            masks.values.extend(values_of(value.secret())?);
        }
        for (_, value) in source.headers.iter().filter(|(_, value)| value.is_reference()) {
            masks.credentials.extend(values_of(value)?);
        }
        for (_, value) in request.headers.iter().filter(|(_, value)| value.is_reference()) {
            masks.credentials.extend(values_of(value.secret())?);
        }
        for text in [&request.path].into_iter().chain(request.body.texts()) {
            let references = text.reveal_references()?;
            let encoded = references.iter().map(|value| percent_encoded(value));
            masks.values.extend(encoded);
            masks.values.extend(references);
        }
        masks
            .credentials
            .extend(source.base_url.password().map(str::to_owned));
        masks.credentials.retain(|value| !value.is_empty());
        Ok(masks.settled())
    }

    /// The same, and `secrets`, credentials that were fetched or signed, are masked too.
    pub fn hide(&mut self, secrets: Vec<String>) {
        let news = secrets.into_iter().filter(|secret| !secret.is_empty());
        let mut news: Vec<String> = news.filter(|secret| !self.credentials.contains(secret)).collect();
        if !news.is_empty() {
            self.credentials.append(&mut news);
            *self = std::mem::take(self).settled();
        }
    }

    /// What is given to prove who sends.
    fn take(&mut self, auth: &Auth) -> Result<()> {
        match auth {
            Auth::None => {}
            Auth::ApiKeyHeader { value, .. }
            | Auth::ApiKeyBody { value, .. }
            | Auth::Bearer { token: value, .. } => self.credentials.extend(values_of(value)?),
            Auth::ApiKeyQuery { name, value } => {
                self.names.push(name.clone());
                self.credentials.extend(values_of(value)?);
            }
            Auth::Basic { username, password } => {
                self.credentials.extend(values_of(password)?);
                // Some APIs take the key for the user.
                if username.is_reference() || password.reveal()?.is_empty() {
                    self.credentials.extend(values_of(username)?);
                }
                // As it is sent.
                let pair = format!("{}:{}", username.reveal()?, password.reveal()?);
                self.credentials.push(STANDARD.encode(pair));
            }
            Auth::OAuth2(oauth) => {
                self.place(&oauth.send.to);
                if let Some(secret) = &oauth.client_secret {
                    self.credentials.extend(values_of(secret)?);
                }
            }
            Auth::Jwt { send, .. } => self.place(&send.to),
            Auth::Session(session) => {
                self.place(&session.send.to);
                self.take(&session.login_auth)?;
            }
            // The one that is not chosen may have a reference that leads nowhere.
            Auth::Select { among, .. } => among.iter().for_each(|(_, auth)| {
                let _ = self.take(auth);
            }),
            Auth::Pool(auths) => auths.iter().try_for_each(|auth| self.take(auth))?,
        }
        Ok(())
    }

    fn place(&mut self, slot: &TokenSlot) {
        if let TokenSlot::Query(name) = slot {
            self.names.push(name.clone());
        }
    }

    fn settled(mut self) -> Self {
        self.values.extend(self.credentials.iter().cloned());
        self.values.retain(|value| value.len() >= VALUE_BYTES_MIN);
        self.values
            .sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        self.values.dedup();
        self
    }

    /// `url`, absolute or relative, with its user part and secret query values masked. Other bytes stay as they are.
    ///
    /// ```
    /// use landfall::extract::mask::Masks;
    /// let masked = Masks::default().url("https://me:pw@a.example/o?page=2&api_key=1234");
    /// assert_eq!(masked, "https://****@a.example/o?page=2&api_key=****");
    /// ```
    pub fn url(&self, url: &str) -> String {
        let (front, fragment) = url
            .split_once('#')
            .map_or((url, None), |(front, back)| (front, Some(back)));
        let (place, query) = front
            .split_once('?')
            .map_or((front, None), |(place, query)| (place, Some(query)));
        let mut masked = self.text(&without_user(place));
        let away = self.is_away(place);
        let pairs = |query: &str| {
            if away {
                every_value(query)
            } else {
                self.query(query)
            }
        };
        if let Some(query) = query {
            masked.push('?');
            masked.push_str(&pairs(query));
        }
        if let Some(fragment) = fragment {
            // Tokens travel in fragments too, and no server ever sees them.
            masked.push('#');
            masked.push_str(&pairs(fragment));
        }
        masked
    }

    /// Whether a URL belongs to another origin than those of the source.
    fn is_away(&self, place: &str) -> bool {
        let origin = || Url::parse(place).ok().map(|url| url.origin());
        !self.homes.is_empty() && origin().is_some_and(|origin| !self.homes.contains(&origin))
    }

    /// `text` without the secret values that are long enough to be found in it.
    pub fn text(&self, text: &str) -> String {
        let mut masked = text.to_owned();
        for value in &self.values {
            if masked.contains(value.as_str()) {
                masked = masked.replace(value.as_str(), MASK);
            }
            let encoded: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
            if masked.contains(&encoded) {
                masked = masked.replace(&encoded, MASK);
            }
        }
        masked
    }

    /// `token` as it may be written down: a URL masked, anything else without secret values.
    pub fn token(&self, token: &str) -> String {
        if token.contains("://") || token.contains('?') {
            self.url(token)
        } else {
            self.text(token)
        }
    }

    /// What a failed answer says, on one line of at most [`EXCERPT_BYTES_MAX`]; `None` if it is no text.
    ///
    /// ```
    /// use landfall::extract::mask::Masks;
    /// let said = Masks::default().excerpt(br#"{"error": "no\nsuch thing", "access_token": "1234"}"#);
    /// assert_eq!(said.unwrap(), r#"{"access_token":"****","error":"no\nsuch thing"}"#);
    /// assert_eq!(Masks::default().excerpt(b"\x00\x01"), None);
    /// ```
    pub fn excerpt(&self, body: &[u8]) -> Option<String> {
        let text = match serde_json::from_slice::<Value>(body) {
            Ok(mut json) => {
                mask_members(&mut json);
                json.to_string()
            }
            Err(_) => {
                let valid = match std::str::from_utf8(body) {
                    Ok(text) => text,
                    // The cut of a long answer may go through a character.
                    Err(error) if error.error_len().is_none() => {
                        std::str::from_utf8(&body[..error.valid_up_to()]).ok()?
                    }
                    Err(_) => return None,
                };
                valid.split_whitespace().collect::<Vec<_>>().join(" ")
            }
        };
        if text.is_empty() || text.chars().any(char::is_control) {
            return None;
        }
        // Masked before it is cut: half a secret is not found.
        let mut masked = self.text(&text);
        masked.truncate(masked.floor_char_boundary(EXCERPT_BYTES_MAX));
        Some(masked)
    }

    /// Removes the query parameters that hold a secret of ours, so that `url` can be stored and requested again.
    ///
    /// Servers echo the key they were called with in their next links. It is added again when the URL is used. A
    /// value of ours that stands under another name goes only if it is a credential and not there by chance.
    pub fn strip(&self, url: &mut Url) {
        let Some(query) = url.query() else { return };
        let kept: Vec<&str> = query
            .split('&')
            .filter(|pair| {
                let Some((name, value)) = form_urlencoded::parse(pair.as_bytes()).next() else {
                    return true;
                };
                let by_chance = value.len() < VALUE_BYTES_MIN && !is_suspicious(&name);
                !self.names.iter().any(|known| *known == name)
                    && (by_chance || !self.credentials.iter().any(|known| *known == value))
            })
            .collect();
        let kept = kept.join("&");
        url.set_query(Some(kept.as_str()).filter(|kept| !kept.is_empty()));
    }

    fn query(&self, query: &str) -> String {
        let pairs: Vec<String> = query.split('&').map(|pair| self.pair(pair)).collect();
        pairs.join("&")
    }

    fn pair(&self, pair: &str) -> String {
        let Some((name, value)) = form_urlencoded::parse(pair.as_bytes()).next() else {
            return pair.to_owned();
        };
        let named = is_suspicious(&name) || self.names.iter().any(|known| *known == name);
        let held = self.values.iter().any(|known| value.contains(known.as_str()));
        match pair.split_once('=') {
            Some((written, value)) if (named && !value.is_empty()) || held => format!("{written}={MASK}"),
            _ => self.text(pair),
        }
    }
}

/// The value as a whole, and what comes from outside the project file: servers echo either.
fn values_of(secret: &Secret) -> Result<Vec<String>> {
    let mut values = secret.reveal_references()?;
    values.push(secret.reveal()?);
    Ok(values)
}

/// Masks what stands under a name that is as a rule one of a secret.
fn mask_members(json: &mut Value) {
    match json {
        Value::Object(members) => {
            for (name, value) in members {
                if is_suspicious(name) && !matches!(value, Value::Null | Value::Bool(_)) {
                    *value = Value::String(MASK.to_owned());
                } else {
                    mask_members(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask_members),
        _ => {}
    }
}

/// A query without its values.
fn every_value(query: &str) -> String {
    let masked = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, value)) if !value.is_empty() => format!("{name}={MASK}"),
        Some(_) => pair.to_owned(),
        // What has no name may be a token as a whole.
        None if pair.is_empty() => String::new(),
        None => MASK.to_owned(),
    });
    masked.collect::<Vec<String>>().join("&")
}

fn is_suspicious(name: &str) -> bool {
    SUSPICIOUS_NAMES
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}

fn without_user(place: &str) -> String {
    let Some((scheme, rest)) = place.split_once("//") else {
        return place.to_owned();
    };
    let authority_end = rest.find('/').unwrap_or(rest.len());
    match rest[..authority_end].rfind('@') {
        Some(at) => format!("{scheme}//{MASK}{}", &rest[at..]),
        None => place.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::request::Body;
    use crate::config::text::Text;
    use crate::{
        config::{paginate::Paginate, request::Method},
        extract::tests::server::{secret_file, source},
    };

    fn masks() -> Masks {
        Masks {
            names: vec!["k".to_owned()],
            credentials: vec!["s3cr/et!".to_owned(), "abc".to_owned()],
            homes: vec![Url::parse("https://a.example").unwrap().origin()],
            values: Vec::new(),
        }
        .settled()
    }

    fn of(auth: Auth, request: Request) -> Masks {
        let mut source = source(&Url::parse("https://a.example/v1").unwrap(), Paginate::Single);
        source.auth = auth;
        Masks::of(&source, &request).unwrap()
    }

    fn request() -> Request {
        Request {
            method: Method::Get,
            path: Text::literal("/o"),
            params: Vec::new(),
            headers: Vec::new(),
            body: Body::None,
        }
    }

    #[test]
    fn r050_secrets_are_masked_wherever_they_stand_in_a_url() {
        let table = [
            (
                "https://a.example/o?k=1&page=2",
                "https://a.example/o?k=****&page=2",
            ),
            ("https://u:p@a.example/o", "https://****@a.example/o"),
            ("//u@a.example", "//****@a.example"),
            ("https://a.example/s3cr/et!/o", "https://a.example/****/o"),
            ("/o?x=s3cr%2Fet%21", "/o?x=****"),
            ("/o?x=before-s3cr%2fet!-after", "/o?x=****"),
            ("/o?x=abc&key=abc", "/o?x=abc&key=****"),
            ("?API_KEY=zz", "?API_KEY=****"),
            ("/o?sig=1#access_token=2", "/o?sig=****#access_token=****"),
            ("/o?q=a+b%20c&&flag&token=", "/o?q=a+b%20c&&flag&token="),
            ("/plain@path", "/plain@path"),
            // Whoever has a URL that was signed for him needs nothing else.
            (
                "https://files.example/o.csv?X-Amz-Date=1&Expires=2&flag#x=3",
                "https://files.example/o.csv?X-Amz-Date=****&Expires=****&****#x=****",
            ),
        ];
        for (url, expected) in table {
            assert_eq!(masks().url(url), expected, "{url}");
        }
    }

    #[test]
    fn r050_stored_links_lose_our_key_and_nothing_else() {
        let table = [
            (
                "https://a.example/o?k=1&page=a%2Bb",
                "https://a.example/o?page=a%2Bb",
            ),
            (
                "https://a.example/o?token=abc&t=abc&cursor=x+y",
                "https://a.example/o?t=abc&cursor=x+y",
            ),
            (
                "https://a.example/o?t=s3cr%2Fet!&cursor=x+y",
                "https://a.example/o?cursor=x+y",
            ),
            ("https://a.example/o?k=1", "https://a.example/o"),
            (
                "https://a.example/o?token=page-two",
                "https://a.example/o?token=page-two",
            ),
        ];
        for (url, expected) in table {
            let mut stripped = Url::parse(url).unwrap();
            masks().strip(&mut stripped);
            assert_eq!(stripped.as_str(), expected);
        }
    }

    #[test]
    fn r050_a_parameter_given_by_reference_is_known_by_its_name() {
        let (_short, five) = secret_file("5");
        let (_long, tenant) = secret_file("tenant-key");
        let mut request = request();
        request.params = vec![
            ("limit".to_owned(), five.into()),
            ("tenant".to_owned(), tenant.into()),
        ];
        let masks = of(Auth::None, request);
        let mut url =
            Url::parse("https://a.example/o?page=5&limit=5&x=tenant-key&tenant=tenant-key").unwrap();
        masks.strip(&mut url);
        assert_eq!(url.as_str(), "https://a.example/o?page=5&x=tenant-key");
        assert_eq!(masks.url(url.as_str()), "https://a.example/o?page=5&x=****");
        assert_eq!(masks.text("5 tenant-key"), "5 ****");
    }

    #[test]
    fn r050_a_secret_within_a_longer_value_is_masked_alone_too() {
        let (file, _) = secret_file("s3cr3t-t0ken");
        let longer = Secret::parse(&format!("Token ${{file:{}}}", file.path().display())).unwrap();
        let mut request = request();
        request.headers = vec![("Authorization".to_owned(), longer.clone().into())];
        let (name, value) = ("X-Key".to_owned(), longer);
        for masks in [
            of(Auth::None, request),
            of(Auth::ApiKeyHeader { name, value }, self::request()),
        ] {
            assert_eq!(masks.text("echo s3cr3t-t0ken"), "echo ****");
            assert_eq!(masks.text("echo Token s3cr3t-t0ken"), "echo ****");
        }
    }

    #[test]
    fn r050_a_user_is_masked_if_it_is_the_key() {
        let (_file, reference) = secret_file("user-key");
        let table = [
            (reference, "password", "**** ****"),
            (Secret::literal("user-key"), "", "**** password"),
            (Secret::literal("user-key"), "password", "user-key ****"),
        ];
        for (username, password, expected) in table {
            let password = Secret::literal(password);
            let masks = of(Auth::Basic { username, password }, request());
            assert_eq!(masks.text("user-key password"), expected);
        }
    }

    #[test]
    fn r050_a_secret_that_begins_with_another_is_masked_whole() {
        let (_one, short) = secret_file("abcdef");
        let (_other, long) = secret_file("abcdef-ghi");
        let mut request = request();
        request.params = vec![("a".to_owned(), short.into()), ("b".to_owned(), long.into())];
        assert_eq!(of(Auth::None, request).text("abcdef-ghi"), "****");
    }
}
