//! Secrets are taken out of URLs and headers before those are written down.

use url::{Url, form_urlencoded};

use crate::{
    config::{Auth, Request, Source},
    error::Result,
};

/// What stands where a secret was.
pub const MASK: &str = "****";

/// Query parameters whose values are masked whatever they hold, lowercase.
pub const SUSPICIOUS_NAMES: [&str; 24] = [
    "access_key",
    "access_token",
    "accesstoken",
    "api-key",
    "api_key",
    "apikey",
    "auth",
    "auth_token",
    "authorization",
    "client_secret",
    "credential",
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
    "x-amz-security-token",
    "x-amz-signature",
];

/// Shortest secret that is also looked for inside longer text; a shorter one would be found by chance.
const SUBSTRING_BYTES_MIN: usize = 6;

/// The names and values that must not be written down for one request.
#[derive(Clone, Default)]
pub struct Masks {
    names: Vec<String>,
    values: Vec<String>,
}

impl Masks {
    /// Everything secret about a request: credentials, and parameters and headers given by reference.
    ///
    /// # Errors
    /// A reference that cannot be read.
    pub fn of(source: &Source, request: &Request) -> Result<Self> {
        let mut masks = Self::default();
        match &source.auth {
            Auth::None => {}
            Auth::ApiKeyHeader { value, .. } => masks.values.push(value.reveal()?),
            Auth::ApiKeyQuery { name, value } => {
                masks.names.push(name.clone());
                masks.values.push(value.reveal()?);
            }
            Auth::Basic { password, .. } => masks.values.push(password.reveal()?),
            Auth::Bearer { token, .. } => masks.values.push(token.reveal()?),
        }
        for (name, value) in request.params.iter().filter(|(_, value)| value.is_reference()) {
            masks.names.push(name.clone());
            masks.values.push(value.reveal()?);
        }
        for (_, value) in source
            .headers
            .iter()
            .chain(&request.headers)
            .filter(|(_, value)| value.is_reference())
        {
            masks.values.push(value.reveal()?);
        }
        masks.values.extend(source.base_url.password().map(str::to_owned));
        masks.values.retain(|value| !value.is_empty());
        Ok(masks)
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
        if let Some(query) = query {
            masked.push('?');
            masked.push_str(&self.query(query));
        }
        if let Some(fragment) = fragment {
            // Tokens travel in fragments too, and no server ever sees them.
            masked.push('#');
            masked.push_str(&self.query(fragment));
        }
        masked
    }

    /// `text` without the secret values that are long enough to be found in it.
    pub fn text(&self, text: &str) -> String {
        let mut masked = text.to_owned();
        for value in self
            .values
            .iter()
            .filter(|value| value.len() >= SUBSTRING_BYTES_MIN)
        {
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

    /// Removes the query parameters that hold a secret of ours, so that `url` can be stored and requested again.
    ///
    /// Servers echo the key they were called with in their next links. It is added again when the URL is used.
    pub fn strip(&self, url: &mut Url) {
        let Some(query) = url.query() else { return };
        let kept: Vec<&str> = query
            .split('&')
            .filter(|pair| {
                let Some((name, value)) = form_urlencoded::parse(pair.as_bytes()).next() else {
                    return true;
                };
                !self.names.iter().any(|known| *known == name)
                    && !self.values.iter().any(|known| *known == value)
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
        let named = SUSPICIOUS_NAMES
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known))
            || self.names.iter().any(|known| *known == name);
        let held = self.values.iter().any(|known| {
            *known == value || (known.len() >= SUBSTRING_BYTES_MIN && value.contains(known.as_str()))
        });
        match pair.split_once('=') {
            Some((written, value)) if (named && !value.is_empty()) || held => format!("{written}={MASK}"),
            _ => self.text(pair),
        }
    }
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

    fn masks() -> Masks {
        Masks {
            names: vec!["k".to_owned()],
            values: vec!["s3cr/et!".to_owned(), "abc".to_owned()],
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
            ("/o?x=abc&y=abcd", "/o?x=****&y=abcd"),
            ("?API_KEY=zz", "?API_KEY=****"),
            ("/o?sig=1#access_token=2", "/o?sig=****#access_token=****"),
            ("/o?q=a+b%20c&&flag&token=", "/o?q=a+b%20c&&flag&token="),
            ("/plain@path", "/plain@path"),
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
                "https://a.example/o?t=abc&cursor=x+y",
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
}
