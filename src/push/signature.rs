//! Signatures over bodies as they are sent.

use std::fmt;

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
};

/// How bodies are signed, if they are.
#[derive(Clone)]
pub enum Signature {
    /// Standard Webhooks 1.0: `webhook-id`, `webhook-timestamp`, and `webhook-signature` in its version `v1`.
    StandardWebhooks {
        /// The bytes of the secret, out of its Base64.
        secret: Vec<u8>,
    },
    /// HMAC-SHA256 of the body, in hexadecimal digits.
    Hmac {
        /// The header, lowercase.
        header: String,
        /// What stands before the digits, as in `sha256=`.
        prefix: String,
        /// The secret.
        secret: Vec<u8>,
    },
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StandardWebhooks { .. } => "StandardWebhooks(****)",
            Self::Hmac { .. } => "Hmac(****)",
        })
    }
}

impl Signature {
    /// Standard Webhooks with `secret` as it is handed out: Base64, with `whsec_` before it or not.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it is not Base64.
    pub fn standard_webhooks(secret: &str) -> Result<Self> {
        let text = secret.strip_prefix("whsec_").unwrap_or(secret);
        match STANDARD.decode(text) {
            Ok(secret) if !secret.is_empty() => Ok(Self::StandardWebhooks { secret }),
            // The reason would quote the secret.
            _ => Err(Error::new(ErrorKind::Config, "read secret of webhook")
                .with("expected", "whsec_ and Base64 behind it")),
        }
    }

    /// The headers that sign `body` as the message `id` at `now`.
    pub(super) fn headers(&self, id: &str, now: Timestamp, body: &[u8]) -> Vec<(String, String)> {
        match self {
            Self::StandardWebhooks { secret } => {
                let at = now.timestamp().to_string();
                let mut context = hmac::Context::with_key(&hmac::Key::new(HMAC_SHA256, secret));
                for part in [id.as_bytes(), b".", at.as_bytes(), b".", body] {
                    context.update(part);
                }
                let signature = format!("v1,{}", STANDARD.encode(context.sign()));
                vec![
                    ("webhook-id".to_owned(), id.to_owned()),
                    ("webhook-timestamp".to_owned(), at),
                    ("webhook-signature".to_owned(), signature),
                ]
            }
            Self::Hmac {
                header,
                prefix,
                secret,
            } => {
                let tag = hmac::sign(&hmac::Key::new(HMAC_SHA256, secret), body);
                let digits: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
                vec![(header.clone(), format!("{prefix}{digits}"))]
            }
        }
    }
}
