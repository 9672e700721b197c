//! What the `errors` of a GraphQL answer mean. Status 200 says nothing there.
//!
//! The form is that of the GraphQL specification, section 7 (Response); the codes are those of Shopify (`extensions.code`)
//! and GitHub (`type`).

use std::time::Duration;

use crate::json::{self, Found, JsonPath};

/// Codes that say the budget is spent.
const THROTTLED: [&str; 6] = [
    "RATE_LIMIT",
    "RATE_LIMITED",
    "RATE_LIMIT_EXCEEDED",
    "THROTTLED",
    "TOO_MANY_REQUESTS",
    "RATE-LIMITED",
];

/// Codes that say one query asks for more than any budget allows.
const TOO_MUCH: [&str; 8] = [
    "EXCESSIVE_PAGINATION",
    "MAX_COMPLEXITY_EXCEEDED",
    "MAX_COST_EXCEEDED",
    "MAX_NODE_LIMIT_EXCEEDED",
    "NODE_LIMIT_EXCEEDED",
    "QUERY_COST_EXCEEDED",
    "QUERY_TOO_COMPLEX",
    "RESOURCE_LIMITS_EXCEEDED",
];

/// The same in the words of servers that send no code, lowercase.
const TOO_MUCH_WORDS: [&str; 7] = [
    "first too large",
    "`first` limit",
    "max cost limit",
    "max complexity",
    "maximum cost",
    "node limit",
    "possible nodes",
];

/// What a body with `errors` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The budget is spent.
    Throttled {
        /// Until enough of it is back; zero if the body does not say.
        wait: Duration,
    },
    /// A smaller page may be served.
    TooMuch,
    /// There is no data.
    Failed,
    /// There are data, and some of them are missing.
    Partial,
}

/// What the errors of `body` mean; `None` if it has none or is not JSON.
///
/// ```
/// use landfall::extract::graphql::{Problem, problem};
/// assert_eq!(problem(br#"{"data":{"a":1}}"#), None);
/// assert_eq!(problem(br#"{"data":{"a":1},"errors":[{"message":"b"}]}"#), Some(Problem::Partial));
/// assert_eq!(problem(br#"{"data":null,"errors":[{"message":"b"}]}"#), Some(Problem::Failed));
/// ```
pub fn problem(body: &[u8]) -> Option<Problem> {
    let errors = JsonPath::parse("$.errors[*]").ok()?;
    match errors.select(body, &mut |_| {}) {
        Ok(Found::Values(count)) if count > 0 => {}
        _ => return None,
    }
    let mut codes = texts(body, "$.errors[*].type");
    codes.extend(texts(body, "$.errors[*].extensions.code"));
    let is_code = |known: &[&str]| {
        codes
            .iter()
            .any(|code| known.contains(&code.to_uppercase().as_str()))
    };
    if is_code(&THROTTLED) {
        return Some(Problem::Throttled { wait: restored(body) });
    }
    let messages = texts(body, "$.errors[*].message");
    let in_words = |message: &String| {
        let message = message.to_lowercase();
        TOO_MUCH_WORDS.iter().any(|words| message.contains(words))
    };
    if is_code(&TOO_MUCH) || messages.iter().any(in_words) {
        return Some(Problem::TooMuch);
    }
    match first(body, "$.data") {
        None | Some(b"null") => Some(Problem::Failed),
        Some(_) => Some(Problem::Partial),
    }
}

/// The errors of `body` as they stand there, without the data; `None` if there are none.
pub fn errors(body: &[u8]) -> Option<&[u8]> {
    first(body, "$.errors")
}

/// What the query's cost lacks, at the rate the budget is restored; zero if the body does not say.
fn restored(body: &[u8]) -> Duration {
    let number = |path| -> Option<f64> { std::str::from_utf8(first(body, path)?).ok()?.parse().ok() };
    let wait = || {
        let cost = number("$.extensions.cost.requestedQueryCost")?;
        let available = number("$.extensions.cost.throttleStatus.currentlyAvailable")?;
        let restored_per_second = number("$.extensions.cost.throttleStatus.restoreRate")?;
        Duration::try_from_secs_f64((cost - available) / restored_per_second).ok()
    };
    wait().unwrap_or_default()
}

fn first<'a>(body: &'a [u8], path: &str) -> Option<&'a [u8]> {
    JsonPath::parse(path).ok()?.first(body).ok()?
}

fn texts(body: &[u8], path: &str) -> Vec<String> {
    let mut found = Vec::new();
    if let Ok(path) = JsonPath::parse(path) {
        // The body was read as JSON a moment ago.
        let _ = path.select(body, &mut |range| {
            found.extend(json::text(&body[range]).map(std::borrow::Cow::into_owned));
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f034_f071_f072_every_kind_of_graphql_error_has_a_meaning() {
        let shopify = r#"{"errors":[{"message":"Throttled","extensions":{"code":"THROTTLED"}}],"extensions":{"cost":
            {"requestedQueryCost":202,"throttleStatus":{"maximumAvailable":1000.0,"currentlyAvailable":118,"restoreRate":50.0}}}}"#;
        let throttled = |millis| {
            Some(Problem::Throttled {
                wait: Duration::from_millis(millis),
            })
        };
        let table = [
            (shopify, throttled(1680)),
            (
                r#"{"data":null,"errors":[{"type":"NOT_FOUND"},{"type":"RATE_LIMITED"}]}"#,
                throttled(0),
            ),
            (
                r#"{"data":{"a":1},"errors":[{"extensions":{"code":"rate_limited"}}]}"#,
                throttled(0),
            ),
            (
                r#"{"errors":[{"message":"Query cost is 1234","extensions":{"code":"MAX_COST_EXCEEDED"}}]}"#,
                Some(Problem::TooMuch),
            ),
            (
                r#"{"errors":[{"type":"EXCESSIVE_PAGINATION","message":"x"}]}"#,
                Some(Problem::TooMuch),
            ),
            (
                r#"{"errors":[{"message":"This query requests up to 505,000 possible nodes"}]}"#,
                Some(Problem::TooMuch),
            ),
            (r#"{"errors":[{"message":"no"}]}"#, Some(Problem::Failed)),
            (r#"{"data":null,"errors":[{}]}"#, Some(Problem::Failed)),
            (r#"{"data":{"a":null},"errors":[{}]}"#, Some(Problem::Partial)),
            (r#"{"data":{"a":1},"errors":[]}"#, None),
            (r#"{"errors":"THROTTLED"}"#, None),
            (r#"{"errors":[{"type":"RATE_LIMITED"}"#, None),
            ("null", None),
            ("<html>", None),
        ];
        for (body, expected) in table {
            assert_eq!(problem(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn f034_no_number_of_a_throttle_makes_it_panic() {
        for (cost, available, rate) in [
            ("1e300", "0", "0"),
            ("0", "1e300", "1"),
            ("5", "0", "-1"),
            ("null", "1", "1"),
        ] {
            let body = format!(
                r#"{{"errors":[{{"type":"THROTTLED"}}],"extensions":{{"cost":{{"requestedQueryCost":{cost},
                "throttleStatus":{{"currentlyAvailable":{available},"restoreRate":{rate}}}}}}}}}"#
            );
            assert_eq!(
                problem(body.as_bytes()),
                Some(Problem::Throttled { wait: Duration::ZERO })
            );
        }
    }
}
