//! How a producer stands, as answers tell it: `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10).

use std::{fmt::Write as _, time::Duration};

/// The largest integer of a structured field (RFC 9651, section 3.3.1).
const INTEGER_MAX: u64 = 999_999_999_999_999;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Requests per window: `requests`, which goes without saying.
    Requests,
    /// Bytes of bodies per window: `content-bytes`.
    Bytes,
    /// Requests under way: `concurrent-requests`.
    AtOnce,
}

/// One quota, and what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// What it is called in both headers: of a closed list.
    pub policy: &'static str,
    /// What is counted.
    pub unit: Unit,
    /// What is granted: per window, if there is one.
    pub granted: u64,
    /// The window; none for what is under way.
    pub window: Option<Duration>,
    /// What is left now. Less than is in the bucket while there is pressure.
    pub left: u64,
    /// When all of it will be there again, if nothing is sent.
    pub reset: Option<Duration>,
}

/// How a producer stands after a request was admitted or refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing(pub Vec<Quota>);

impl Standing {
    /// The value of `RateLimit-Policy`: what is granted.
    pub fn policy(&self) -> String {
        self.list(|text, quota| {
            let _ = write!(text, ";q={}", quota.granted.min(INTEGER_MAX));
            match quota.unit {
                Unit::Requests => {}
                Unit::Bytes => text.push_str(";qu=\"content-bytes\""),
                Unit::AtOnce => text.push_str(";qu=\"concurrent-requests\""),
            }
            if let Some(window) = quota.window {
                let _ = write!(text, ";w={}", seconds(window).max(1));
            }
        })
    }

    /// The value of `RateLimit`: what is left of it.
    pub fn limit(&self) -> String {
        self.list(|text, quota| {
            let _ = write!(text, ";r={}", quota.left.min(INTEGER_MAX));
            if let Some(reset) = quota.reset {
                let _ = write!(text, ";t={}", seconds(reset));
            }
        })
    }

    /// A list of strings with parameters (RFC 9651, section 3.1).
    fn list(&self, parameters: impl Fn(&mut String, &Quota)) -> String {
        let mut text = String::with_capacity(32 * self.0.len());
        for quota in &self.0 {
            if !text.is_empty() {
                text.push_str(", ");
            }
            let _ = write!(text, "\"{}\"", quota.policy);
            parameters(&mut text, quota);
        }
        text
    }
}

/// Whole seconds, rounded up: who waits so long waits long enough.
pub fn seconds(duration: Duration) -> u64 {
    let whole = duration.as_secs();
    let more = u64::from(duration.subsec_nanos() > 0);
    whole.saturating_add(more).min(INTEGER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r088_both_headers_are_structured_fields_of_the_draft() {
        let standing = Standing(vec![
            Quota {
                policy: "producer",
                unit: Unit::Requests,
                granted: 100,
                window: Some(Duration::from_secs(10)),
                left: 42,
                reset: Some(Duration::from_millis(5_001)),
            },
            Quota {
                policy: "producer-bytes",
                unit: Unit::Bytes,
                granted: u64::MAX,
                window: Some(Duration::from_millis(200)),
                left: 0,
                reset: None,
            },
            Quota {
                policy: "producer-at-once",
                unit: Unit::AtOnce,
                granted: 8,
                window: None,
                left: 7,
                reset: None,
            },
        ]);
        assert_eq!(
            standing.policy(),
            "\"producer\";q=100;w=10, \"producer-bytes\";q=999999999999999;qu=\"content-bytes\";w=1, \
             \"producer-at-once\";q=8;qu=\"concurrent-requests\""
        );
        assert_eq!(
            standing.limit(),
            "\"producer\";r=42;t=6, \"producer-bytes\";r=0, \"producer-at-once\";r=7"
        );
        assert_eq!(
            (Standing::default().policy(), Standing::default().limit()),
            (String::new(), String::new())
        );
    }
}
