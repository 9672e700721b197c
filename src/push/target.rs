//! The stream that records are for.

use std::{fmt, str::FromStr};

use crate::error::{Error, ErrorKind, Result};

/// A stream by its name, `source.stream`.
///
/// ```
/// use landfall::push::target::Target;
/// let target: Target = "shop.orders".parse().unwrap();
/// assert_eq!(target.path(), "v1/streams/shop/orders");
/// assert!("shop/orders".parse::<Target>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    source: String,
    stream: String,
}

impl Target {
    /// Its path below the server's address.
    pub fn path(&self) -> String {
        format!("v1/streams/{}/{}", self.source, self.stream)
    }

    /// The path of its webhook.
    pub(super) fn webhook_path(&self) -> String {
        format!("v1/webhooks/{}/{}", self.source, self.stream)
    }
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let sound = |name: &str| {
            let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
            let begins = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            (1..=63).contains(&name.len())
                && name.bytes().all(plain)
                && name.as_bytes().first().is_some_and(begins)
        };
        match text.split_once('.') {
            Some((source, stream)) if sound(source) && sound(stream) => Ok(Self {
                source: source.to_owned(),
                stream: stream.to_owned(),
            }),
            _ => Err(Error::new(ErrorKind::Config, "read name of stream")
                .with("name", text)
                .with("expected", "source.stream, as in shop.orders")),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.source, self.stream)
    }
}
