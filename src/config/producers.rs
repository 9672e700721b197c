//! Who may send: the settings.

use std::{fmt, net::IpAddr, time::Duration};

use crate::{
    clock::Timestamp,
    config::{Name, StreamName, secret::Secret},
    error::{Error, ErrorKind, Result},
};

/// Longest name in a certificate that is compared, in bytes: more than any name of RFC 5280 needs.
const SAN_BYTES_MAX: usize = 2048;

/// One that may send to streams, read them or administer, and how it proves who it is.
#[derive(Clone, Debug)]
pub struct Producer {
    /// Its name, in receipts, metrics and the audit log.
    pub name: Name,
    /// What it may do.
    pub scopes: Scopes,
    /// The streams it may do it with.
    pub streams: Vec<StreamPattern>,
    /// The tier whose rates hold for it.
    pub tier: Name,
    /// How fast it may send: its own rates, else those of its tier.
    pub rates: Rates,
    /// Tokens it may show, all of them valid at the same time.
    pub tokens: Vec<ProducerToken>,
    /// Names in certificates of clients that stand for it.
    pub certificates: Vec<San>,
}

/// A token of a producer.
#[derive(Clone, Debug)]
pub struct ProducerToken {
    /// Tells it from the others of the producer, in the audit log.
    pub name: Name,
    /// What it is compared with.
    pub proof: TokenProof,
    /// When it ends; never if not set.
    pub expires: Option<Timestamp>,
}

/// What a token is compared with.
#[derive(Clone, Debug)]
pub enum TokenProof {
    /// Its hash, which is not secret.
    Hash(TokenHash),
    /// The token itself, kept elsewhere, read again while the program runs.
    Reference(Secret),
}

/// The public part of a token, by which it is found: letters and digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(String);

/// The SHA-256 of a token, and the id under which it is found: `sha256:ID:HEX`.
///
/// A token holds 256 random bits, so that a plain hash cannot be searched for its origin; a slow one would only let
/// strangers spend our time.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenHash {
    /// The public part of the token.
    pub id: TokenId,
    /// SHA-256 of the whole token.
    pub sha256: [u8; 32],
}

/// What a producer may do. Each is granted by itself; none includes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Send records.
    Ingest,
    /// Ask what became of records: catalog, receipts, quarantine, drift.
    Read,
    /// Metrics, samples of records that others sent, and what changes the server.
    Admin,
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

/// The streams a producer may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamPattern {
    /// `*`
    All,
    /// `shop.*`
    Source(Name),
    /// `shop.orders`
    One(StreamName),
}

/// A name of the kind a certificate gives its subject in `subjectAltName` (RFC 5280, section 4.2.1.6).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum San {
    /// `dns:name`, in lowercase.
    Dns(String),
    /// `uri:…`, compared as it is; SPIFFE ids are such.
    Uri(String),
    /// `email:…`, compared as it is.
    Email(String),
    /// `ip:…`
    Ip(IpAddr),
}

/// How fast one producer may send.
#[derive(Clone, Debug, PartialEq)]
pub struct Rates {
    /// Requests per window; so many may also come at once.
    pub requests: u64,
    /// Bytes of bodies as they are sent, per window.
    pub bytes: u64,
    /// The window.
    pub per: Duration,
    /// Requests under way at the same time.
    pub at_once: u32,
    /// The part of all this that one stream may take, more than 0 to 1.
    pub stream_share: f64,
    /// How large its part of the server is when others want it too, against 1 of others.
    pub weight: u32,
}

impl Rates {
    /// Of the tier `standard`, unless the file says otherwise.
    pub const DEFAULT: Self = Self {
        requests: 100_000,
        bytes: 1 << 30,
        per: Duration::from_secs(10),
        at_once: 256,
        stream_share: 1.0,
        weight: 1,
    };

    /// The bytes per window that go to one stream.
    pub fn stream_bytes(&self) -> u64 {
        self.share_of(self.bytes)
    }

    /// The requests per window that go to one stream.
    pub fn stream_requests(&self) -> u64 {
        self.share_of(self.requests)
    }

    /// The requests under way at the same time that go to one stream.
    pub fn stream_at_once(&self) -> u32 {
        u32::try_from(self.share_of(u64::from(self.at_once))).unwrap_or(self.at_once)
    }

    /// At least 1, and never more than `whole`.
    fn share_of(&self, whole: u64) -> u64 {
        // Rates are far below 2^53, where a float still holds every whole number.
        ((whole as f64 * self.stream_share) as u64).clamp(1, whole.max(1))
    }
}

impl Producer {
    /// The tier of a producer that names none.
    pub const TIER_DEFAULT: &str = "standard";
}

impl TokenId {
    /// Letters and digits in an id.
    pub const BYTES: usize = 12;

    /// Checks and takes `text`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it is not [`TokenId::BYTES`] ASCII letters and digits.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() == Self::BYTES && text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::new(ErrorKind::Config, "read token id").with("must be letters and digits", Self::BYTES))
    }

    /// The id that `number` has; numbers of 71 bits have one each.
    pub(crate) fn from_number(number: u128) -> Self {
        Self(base62(number, Self::BYTES))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TokenHash {
    /// Reads `sha256:ID:HEX`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it is none.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || Error::new(ErrorKind::Config, "read token hash").with("expected", "sha256:ID:HEX");
        let (id, hex) = text
            .strip_prefix("sha256:")
            .and_then(|rest| rest.split_once(':'))
            .ok_or_else(bad)?;
        let mut sha256 = [0; 32];
        let digit = |byte: u8| {
            char::from(byte)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        };
        if hex.len() != 2 * sha256.len() || hex.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(bad());
        }
        for (place, pair) in sha256.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
                return Err(bad());
            };
            *place = high << 4 | low;
        }
        Ok(Self {
            id: TokenId::parse(id)?,
            sha256,
        })
    }
}

impl Scopes {
    /// These scopes.
    pub fn of(scopes: impl IntoIterator<Item = Scope>) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }

    /// Whether `scope` is one of them.
    pub fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those that are in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.has(*scope))
    }
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 3] = [Self::Ingest, Self::Read, Self::Admin];

    /// The word for it in files and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }

    fn bit(self) -> u8 {
        match self {
            Self::Ingest => 1,
            Self::Read => 2,
            Self::Admin => 4,
        }
    }
}

impl StreamPattern {
    /// Reads `*`, `source.*` or `source.stream`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it is none of them.
    ///
    /// ```
    /// use landfall::config::{StreamName, producers::StreamPattern};
    /// let pattern = StreamPattern::parse("shop.*")?;
    /// assert!(pattern.matches(&StreamName::parse("shop.orders")?));
    /// assert!(!pattern.matches(&StreamName::parse("shop2.orders")?));
    /// # Ok::<(), landfall::error::Error>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self> {
        match text.strip_suffix(".*") {
            _ if text == "*" => Ok(Self::All),
            Some(source) => Ok(Self::Source(Name::new(source)?)),
            None => Ok(Self::One(StreamName::parse(text)?)),
        }
    }

    /// Whether `stream` is meant.
    pub fn matches(&self, stream: &StreamName) -> bool {
        match self {
            Self::All => true,
            Self::Source(source) => *source == stream.source,
            Self::One(one) => one == stream,
        }
    }
}

impl San {
    /// Reads `dns:NAME`, `uri:URI`, `email:ADDRESS` or `ip:ADDRESS`. A name with `*` stands for no one.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it is none of them.
    ///
    /// ```
    /// use landfall::config::producers::San;
    /// assert_eq!(San::parse("dns:Shop.Example.")?, San::Dns("shop.example".to_owned()));
    /// assert!(San::parse("dns:*.example").is_err());
    /// # Ok::<(), landfall::error::Error>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || {
            Error::new(ErrorKind::Config, "read certificate name")
                .with("expected", "dns:NAME, uri:URI, email:ADDRESS or ip:ADDRESS")
        };
        let (kind, name) = text.split_once(':').ok_or_else(bad)?;
        let plain = !name.is_empty()
            && name.len() <= SAN_BYTES_MAX
            && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*');
        match kind {
            _ if !plain => Err(bad()),
            "dns" => {
                let name = name.strip_suffix('.').unwrap_or(name);
                Ok(Self::Dns(name.to_ascii_lowercase()))
            }
            "uri" => Ok(Self::Uri(name.to_owned())),
            "email" => Ok(Self::Email(name.to_owned())),
            "ip" => name.parse().map(Self::Ip).map_err(|_| bad()),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}:", self.id)?;
        self.sha256.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenHash({self})")
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.iter().map(Scope::as_str).collect();
        f.write_str(&words.join(", "))
    }
}

impl fmt::Display for StreamPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Source(source) => write!(f, "{source}.*"),
            Self::One(stream) => stream.fmt(f),
        }
    }
}

impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => write!(f, "dns:{name}"),
            Self::Uri(uri) => write!(f, "uri:{uri}"),
            Self::Email(address) => write!(f, "email:{address}"),
            Self::Ip(address) => write!(f, "ip:{address}"),
        }
    }
}

/// The last `digits` digits of `number` in base 62.
pub(crate) fn base62(number: u128, digits: usize) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut rest = number;
    let mut text = Vec::with_capacity(digits);
    for _ in 0..digits {
        text.push(char::from(DIGITS[usize::try_from(rest % 62).unwrap_or_default()]));
        rest /= 62;
    }
    text.into_iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_hash_reads_back_in_one_spelling_only() {
        let text = format!("sha256:k3V9x2M4q8R1:{}", "0f".repeat(32));
        let hash = TokenHash::parse(&text).unwrap();
        assert_eq!((hash.to_string(), hash.sha256), (text.clone(), [15; 32]));
        for other in [
            text.replace("0f", "0F"),
            text.replace("sha256", "sha1"),
            text.replace("k3V9", "k3V"),
            text.replace("k3V9", "k3_9"),
            text[..text.len() - 1].to_owned(),
            format!("{text}0"),
            text.replace("0f", "0g"),
            String::new(),
        ] {
            assert!(TokenHash::parse(&other).is_err(), "{other}");
        }
    }

    #[test]
    fn names_in_certificates_are_compared_whole() {
        for (text, shown) in [
            ("dns:Checkout.Shop.Example", "dns:checkout.shop.example"),
            ("uri:spiffe://shop/Checkout", "uri:spiffe://shop/Checkout"),
            ("ip:0:0::1", "ip:::1"),
        ] {
            assert_eq!(San::parse(text).unwrap().to_string(), shown);
        }
        for text in [
            "",
            "dns:",
            "dns:*.example",
            "ip:1.2.3",
            "cn:shop",
            "dns:a b",
            "checkout",
        ] {
            assert!(San::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn r156_no_scope_includes_another() {
        for scope in Scope::ALL {
            let only = Scopes::of([scope]);
            assert!(
                Scope::ALL
                    .into_iter()
                    .all(|other| only.has(other) == (other == scope))
            );
            assert!(only.and(Scopes::of(Scope::ALL)) == only && only.and(Scopes::default()).is_empty());
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text: String) {
            let _ = (TokenHash::parse(&text), San::parse(&text), StreamPattern::parse(&text), TokenId::parse(&text));
            let _ = (TokenHash::parse(&format!("sha256:{text}")), San::parse(&format!("dns:{text}")));
        }

        #[test]
        fn a_pattern_reads_back(text in "(\\*|[a-c]{1,2}\\.(\\*|[a-c]{1,2}))") {
            prop_assert_eq!(StreamPattern::parse(&text).unwrap().to_string(), text);
        }
    }
}
