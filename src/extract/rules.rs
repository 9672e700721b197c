//! What an answer means by the rules of the project file.

use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use regex::Regex;
use reqwest::header::HeaderMap;
use serde_json::{Map, Value};

use crate::{
    clock::Timestamp,
    config::{
        Source, Stream,
        errors::{Action, ErrorRule, Wait, WaitUnit},
        text::Vars,
    },
    error::{Error, ErrorKind, Result},
    extract::retry::server_time,
    format,
};

/// Larger bodies are not looked at by `body` and `when`: they are pages, not errors.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// An answer as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// HTTP status.
    pub status: u16,
    /// Every header.
    pub headers: &'a HeaderMap,
    /// The decoded body, or as much of it as was read.
    pub body: &'a [u8],
}

/// What a rule says about an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// What the answer means.
    pub action: Action,
    /// How long to wait before the next attempt; none leaves it to the server's own words and the backoff.
    pub wait: Option<Duration>,
    /// The rule's words for the user, secrets and all.
    pub message: Option<String>,
    /// Which rule, counted from 1: `errors.1 of the stream`.
    pub rule: String,
}

/// What the first rule that matches says, those of `stream` before those of `source`; `None` if none does.
///
/// `jitter` is in 0..1.
///
/// # Errors
/// [`ErrorKind::Config`] if an expression, a message or a pattern cannot be evaluated.
pub fn judge(
    source: &Source,
    stream: &Stream,
    seen: Seen<'_>,
    now: Timestamp,
    jitter: f64,
) -> Result<Option<Ruling>> {
    let mut vars = None;
    for (number, owner, rule) in rules(source, stream) {
        if !fits(rule, seen) {
            continue;
        }
        let place = || format!("errors.{number} of the {owner}");
        let asks = |wait: &Wait| matches!(wait, Wait::Value { .. });
        let speaks = rule.message.as_ref().is_some_and(|text| text.is_template());
        if rule.when.is_some() || speaks || rule.wait.iter().any(asks) {
            vars.get_or_insert_with(|| variables(source, stream, seen).with_now(now));
        }
        let known = vars.clone().unwrap_or_default();
        if let Some(when) = &rule.when
            && !when.holds(&known).map_err(|error| error.with("rule", place()))?
        {
            continue;
        }
        let message = rule.message.as_ref().map(|text| text.render(&known)).transpose();
        let mut wait = None;
        for from in &rule.wait {
            let said = length(from, seen.headers, &known, now, jitter);
            wait = wait.or(said.map_err(|error| error.with("rule", place()))?);
        }
        return Ok(Some(Ruling {
            action: rule.then,
            wait,
            message: message.map_err(|error| error.with("rule", place()))?,
            rule: place(),
        }));
    }
    Ok(None)
}

/// Whether an answer of `status` could be a page by some rule, so that its body is needed to its end.
pub fn may_accept(source: &Source, stream: &Stream, status: u16) -> bool {
    rules(source, stream).any(|(_, _, rule)| rule.then == Action::Accept && of_status(rule, status))
}

fn rules<'a>(
    source: &'a Source,
    stream: &'a Stream,
) -> impl Iterator<Item = (usize, &'static str, &'a ErrorRule)> {
    let numbered = |owner| move |(number, rule)| (number + 1, owner, rule);
    let ours = stream.errors.iter().enumerate().map(numbered("stream"));
    ours.chain(source.errors.iter().enumerate().map(numbered("source")))
}

fn of_status(rule: &ErrorRule, status: u16) -> bool {
    rule.status.is_empty()
        || rule
            .status
            .iter()
            .any(|(from, to)| (*from..=*to).contains(&status))
}

/// Everything but `when`.
fn fits(rule: &ErrorRule, seen: Seen<'_>) -> bool {
    let header = |(name, part): &(String, String)| {
        seen.headers.get_all(name).iter().any(|value| {
            let value = String::from_utf8_lossy(value.as_bytes()).to_lowercase();
            value.contains(&part.to_lowercase())
        })
    };
    let body = |part: &String| {
        seen.body.len() <= BODY_BYTES_MAX && String::from_utf8_lossy(seen.body).contains(part.as_str())
    };
    of_status(rule, seen.status)
        && rule.header.as_ref().is_none_or(header)
        && rule.body.as_ref().is_none_or(body)
}

fn variables(source: &Source, stream: &Stream, seen: Seen<'_>) -> Vars {
    let mut headers = Map::new();
    for (name, value) in seen.headers {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.entry(name.as_str()).or_insert(Value::String(text));
    }
    let config: Map<String, Value> = source.config.iter().cloned().collect();
    let vars = Vars::default()
        .with("status", &seen.status)
        .with("headers", &headers)
        .with("config", &config);
    if seen.body.len() > BODY_BYTES_MAX {
        return vars;
    }
    match document(stream, seen.body) {
        Some(response) => vars.with("response", &response),
        None => vars,
    }
}

/// A body as JSON: errors are often JSON whatever the pages are written in.
fn document(stream: &Stream, body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok().or_else(|| {
        let body = Bytes::copy_from_slice(body);
        let document = format::document(&stream.format, &body, &format::Limits::DEFAULT);
        serde_json::from_slice(&document.ok()??).ok()
    })
}

/// How long to wait by `wait`; `None` if it says nothing about this answer.
fn length(
    wait: &Wait,
    headers: &HeaderMap,
    vars: &Vars,
    now: Timestamp,
    jitter: f64,
) -> Result<Option<Duration>> {
    let (number, unit, least) = match wait {
        Wait::Constant { time, jitter: span } => {
            return Ok(Some(*time + span.mul_f64(jitter.clamp(0.0, 1.0))));
        }
        Wait::Header {
            name,
            unit,
            pattern,
            least,
        } => (in_header(headers, name, pattern.as_deref())?, *unit, *least),
        Wait::Value { value, unit, least } => {
            let number = match value.value_if_any(vars)? {
                Some(Value::Number(found)) => number(&found.to_string()),
                Some(Value::String(found)) => number(&found),
                _ => None,
            };
            (number, *unit, *least)
        }
    };
    let from = server_time(headers).unwrap_or(now);
    let asked = number.map(|number| counted(number, unit, from));
    Ok(match asked {
        Some(asked) => Some(asked.max(least)),
        None => Some(least).filter(|least| !least.is_zero()),
    })
}

/// The number in a header.
fn in_header(headers: &HeaderMap, name: &str, pattern: Option<&str>) -> Result<Option<f64>> {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    Ok(match (value, pattern) {
        (None, _) => None,
        (Some(value), None) => number(value),
        (Some(value), Some(pattern)) => {
            let regex = Regex::new(pattern)
                .map_err(|cause| Error::new(ErrorKind::Config, "read pattern of a wait").caused_by(cause))?;
            let found = regex.captures(value);
            let group = found
                .as_ref()
                .and_then(|found| found.get(1).or_else(|| found.get(0)));
            group.and_then(|group| number(group.as_str()))
        }
    })
}

fn number(text: &str) -> Option<f64> {
    let number: f64 = text.trim().parse().ok()?;
    Some(number).filter(|number| number.is_finite() && *number >= 0.0)
}

/// A number too large to count means longer than anybody waits, as [`Retry::retry_after_max`](crate::config::errors::Retry) says.
fn counted(number: f64, unit: WaitUnit, from: Timestamp) -> Duration {
    let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    let until = |millis: f64| {
        // Beyond the calendar is beyond any limit.
        let moment = DateTime::from_timestamp_millis(millis as i64);
        moment.map_or(Duration::MAX, |moment| {
            (moment - from).to_std().unwrap_or_default()
        })
    };
    match unit {
        WaitUnit::Seconds => seconds(number),
        WaitUnit::Millis => seconds(number / 1000.0),
        WaitUnit::UntilEpochSeconds => until(number * 1000.0),
        WaitUnit::UntilEpochMillis => until(number),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use url::Url;

    use super::*;
    use crate::{
        config::{
            format::{Syntax, Xml},
            paginate::Paginate,
            parse_timestamp,
            text::{Expr, Text},
        },
        extract::tests::server::source,
    };

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    fn rule(then: Action) -> ErrorRule {
        ErrorRule {
            status: Vec::new(),
            header: None,
            body: None,
            when: None,
            then,
            wait: Vec::new(),
            message: None,
        }
    }

    fn judged(
        ours: Vec<ErrorRule>,
        theirs: Vec<ErrorRule>,
        status: u16,
        body: &str,
    ) -> Result<Option<Ruling>> {
        let mut source = source(&Url::parse("https://a.example").unwrap(), Paginate::Single);
        source.config = vec![("site".to_owned(), Value::from("eu"))];
        source.errors = theirs;
        let mut stream = source.streams.remove(0);
        stream.errors = ours;
        let headers = headers(&[("x-error-code", "Quota-Exceeded"), ("retry-after", "7")]);
        let seen = Seen {
            status,
            headers: &headers,
            body: body.as_bytes(),
        };
        judge(&source, &stream, seen, Timestamp::UNIX_EPOCH, 0.0)
    }

    /// What one rule says, if it matches.
    fn one(rule: ErrorRule, status: u16, body: &str) -> Option<Ruling> {
        judged(vec![rule], Vec::new(), status, body).unwrap()
    }

    #[test]
    fn r037_everything_a_rule_names_must_match() {
        let when = |text| Some(Expr::parse(text).unwrap());
        let body = r#"{"error":{"code":17,"text":"No Such Thing"},"list":[]}"#;
        let status = |ranges: &[(u16, u16)]| ErrorRule {
            status: ranges.to_vec(),
            ..rule(Action::Fail)
        };
        let header = |name: &str, part: &str| ErrorRule {
            header: Some((name.to_owned(), part.to_owned())),
            ..rule(Action::Fail)
        };
        let text = |part: &str| ErrorRule {
            body: Some(part.to_owned()),
            ..rule(Action::Fail)
        };
        let expression = |text| ErrorRule {
            when: when(text),
            ..rule(Action::Fail)
        };
        let table = [
            (status(&[(404, 404)]), true),
            (status(&[(400, 403), (404, 499)]), true),
            (status(&[(500, 599)]), false),
            (header("x-error-code", "quota"), true),
            (header("x-error-code", ""), true),
            (header("x-error-code", "auth"), false),
            (header("x-other", ""), false),
            (text("No Such"), true),
            (text("no such"), false),
            (expression("status == 404"), true),
            (expression("response.error.code == 17"), true),
            (expression("response.error.code == 18"), false),
            (expression("headers['retry-after'] | int > 5"), true),
            (
                expression("config.site == 'eu' and response.list | length == 0"),
                true,
            ),
            // What is not there does not hold.
            (expression("response.fault.code == 17"), false),
            (expression("headers['x-none'] == 'a'"), false),
            (
                ErrorRule {
                    status: vec![(404, 404)],
                    body: Some("elsewhere".to_owned()),
                    ..rule(Action::Fail)
                },
                false,
            ),
        ];
        for (rule, expected) in table {
            let shown = format!("{rule:?}");
            assert_eq!(one(rule, 404, body).is_some(), expected, "{shown}");
        }
        // A body that is no JSON has no `response`.
        assert_eq!(one(expression("response.error"), 404, "<html>"), None);
    }

    #[test]
    fn r037_the_first_rule_decides_those_of_the_stream_before_those_of_the_source() {
        let of = |status, then| ErrorRule {
            status: vec![(status, status)],
            ..rule(then)
        };
        let ours = || {
            vec![
                of(410, Action::Reset),
                of(404, Action::Ignore),
                of(404, Action::Fail),
            ]
        };
        let theirs = || vec![of(404, Action::Retry), of(409, Action::Throttle)];
        let said = |status| {
            let ruling = judged(ours(), theirs(), status, "").unwrap();
            ruling.map(|ruling| (ruling.action, ruling.rule))
        };
        assert_eq!(
            said(404),
            Some((Action::Ignore, "errors.2 of the stream".to_owned()))
        );
        assert_eq!(
            said(409),
            Some((Action::Throttle, "errors.2 of the source".to_owned()))
        );
        assert_eq!(said(500), None);
    }

    #[test]
    fn r037_a_rule_speaks_in_its_own_words_and_a_broken_one_is_told() {
        let message = ErrorRule {
            message: Some(Text::parse("site {{ config.site }} has no {{ response.what }}").unwrap()),
            ..rule(Action::Fail)
        };
        let ruling = one(message.clone(), 404, r#"{"what":"orders"}"#).unwrap();
        assert_eq!(ruling.message.as_deref(), Some("site eu has no orders"));
        let error = judged(vec![message], Vec::new(), 404, "{}").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.chain().contains("rule: errors.1 of the stream"), "{error}");
        let broken = ErrorRule {
            when: Some(Expr::parse("['a'] - 1").unwrap()),
            ..rule(Action::Fail)
        };
        let error = judged(Vec::new(), vec![broken], 404, "").unwrap_err();
        assert!(
            error.chain().contains("errors.1 of the source"),
            "{}",
            error.chain()
        );
    }

    #[test]
    fn a_body_larger_than_an_error_is_not_searched() {
        let text = ErrorRule {
            body: Some("x".to_owned()),
            ..rule(Action::Fail)
        };
        assert!(one(text.clone(), 200, &"x".repeat(BODY_BYTES_MAX)).is_some());
        assert!(one(text, 200, &"x".repeat(BODY_BYTES_MAX + 1)).is_none());
        let fault = ErrorRule {
            when: Some(Expr::parse("response.x").unwrap()),
            ..rule(Action::Fail)
        };
        let large = format!(r#"{{"x":1,"y":"{}"}}"#, "y".repeat(BODY_BYTES_MAX));
        assert!(one(fault, 200, &large).is_none());
    }

    #[test]
    fn an_error_is_read_as_json_or_as_the_pages_are() {
        let mut stream = source(&Url::parse("https://a.example").unwrap(), Paginate::Single)
            .streams
            .remove(0);
        let xml = b"<error><code>17</code></error>";
        assert_eq!(document(&stream, xml), None);
        stream.format.syntax = Syntax::Xml(Xml { lists: Vec::new() });
        assert_eq!(document(&stream, xml), Some(json!({"error": {"code": "17"}})));
        assert_eq!(document(&stream, b"{\"code\":17}"), Some(json!({"code": 17})));
    }

    #[test]
    fn f030_every_form_of_wait_is_read() {
        let now = parse_timestamp("2024-05-01T00:00:00Z").unwrap();
        let header = |unit, pattern: Option<&str>, least_s| Wait::Header {
            name: "x-wait".to_owned(),
            unit,
            pattern: pattern.map(str::to_owned),
            least: Duration::from_secs(least_s),
        };
        let constant = Wait::Constant {
            time: Duration::from_secs(5),
            jitter: Duration::from_secs(4),
        };
        let table = [
            (constant.clone(), "", Some(5000)),
            (header(WaitUnit::Seconds, None, 0), "1.5", Some(1500)),
            (header(WaitUnit::Seconds, None, 10), "1.5", Some(10_000)),
            (header(WaitUnit::Seconds, None, 0), "soon", None),
            (header(WaitUnit::Seconds, None, 3), "soon", Some(3000)),
            (header(WaitUnit::Seconds, None, 0), "-1", None),
            (header(WaitUnit::Seconds, None, 0), "NaN", None),
            (header(WaitUnit::Millis, None, 0), "250", Some(250)),
            (
                header(WaitUnit::Seconds, Some(r"in (\d+) s"), 0),
                "retry in 12 s",
                Some(12_000),
            ),
            (
                header(WaitUnit::Seconds, Some(r"\d+"), 0),
                "retry in 12 s",
                Some(12_000),
            ),
            (
                header(WaitUnit::Seconds, Some(r"(\d+) h"), 0),
                "retry in 12 s",
                None,
            ),
            // 2024-05-01T00:00:00Z is 1714521600.
            (
                header(WaitUnit::UntilEpochSeconds, None, 0),
                "1714521630",
                Some(30_000),
            ),
            (
                header(WaitUnit::UntilEpochSeconds, None, 2),
                "1714521600",
                Some(2000),
            ),
            (
                header(WaitUnit::UntilEpochSeconds, None, 0),
                "1600000000",
                Some(0),
            ),
            (
                header(WaitUnit::UntilEpochMillis, None, 0),
                "1714521600500",
                Some(500),
            ),
        ];
        for (wait, value, expected) in table {
            let found = length(&wait, &headers(&[("x-wait", value)]), &Vars::default(), now, 0.0).unwrap();
            assert_eq!(found, expected.map(Duration::from_millis), "{wait:?} {value}");
        }
        let jittered = length(&constant, &headers(&[]), &Vars::default(), now, 0.5).unwrap();
        assert_eq!(jittered, Some(Duration::from_secs(7)));
        let far = length(
            &header(WaitUnit::Seconds, None, 0),
            &headers(&[("x-wait", "1e300")]),
            &Vars::default(),
            now,
            0.0,
        );
        assert_eq!(far.unwrap(), Some(Duration::MAX));
        // The server's clock counts, not ours.
        let skewed = [
            ("x-wait", "1714521630"),
            ("date", "Wed, 01 May 2024 00:00:20 GMT"),
        ];
        let found = length(
            &header(WaitUnit::UntilEpochSeconds, None, 0),
            &headers(&skewed),
            &Vars::default(),
            now,
            0.0,
        );
        assert_eq!(found.unwrap(), Some(Duration::from_secs(10)));
    }

    #[test]
    fn f030_the_first_place_that_says_how_long_decides() {
        let header = |name: &str| Wait::Header {
            name: name.to_owned(),
            unit: WaitUnit::Seconds,
            pattern: None,
            least: Duration::ZERO,
        };
        let constant = Wait::Constant {
            time: Duration::from_secs(60),
            jitter: Duration::ZERO,
        };
        let waits = |wait| ErrorRule {
            wait,
            ..rule(Action::Retry)
        };
        let wait = |rule| one(rule, 429, "").unwrap().wait.map(|wait| wait.as_secs());
        assert_eq!(
            wait(waits(vec![
                header("x-none"),
                header("retry-after"),
                constant.clone()
            ])),
            Some(7)
        );
        assert_eq!(wait(waits(vec![header("x-none"), constant])), Some(60));
        assert_eq!(wait(waits(vec![header("x-none")])), None);
    }

    #[test]
    fn f030_the_answer_itself_may_say_how_long() {
        let value = |text, unit, least_s| Wait::Value {
            value: Expr::parse(text).unwrap(),
            unit,
            least: Duration::from_secs(least_s),
        };
        let seconds = |text| value(text, WaitUnit::Seconds, 0);
        let body = r#"{"retry":{"in":"12","at":"1970-01-01T00:01:00Z","never":null}}"#;
        let table = [
            (seconds("response.retry.in"), Some(12_000)),
            (seconds("response.retry.in | int + status - 400"), Some(41_000)),
            (seconds("headers['retry-after'] | int * 2"), Some(14_000)),
            (
                seconds("timestamp(response.retry.at) - timestamp(now_utc())"),
                Some(60_000),
            ),
            (value("90", WaitUnit::UntilEpochSeconds, 0), Some(90_000)),
            (value("250", WaitUnit::Millis, 0), Some(250)),
            (value("250", WaitUnit::Millis, 1), Some(1000)),
            // What is not there, or is no wait, says nothing.
            (seconds("response.retry.never"), None),
            (seconds("response.other.in"), None),
            (seconds("response.retry"), None),
            (seconds("0 - 5"), None),
        ];
        for (wait, expected) in table {
            let shown = format!("{wait:?}");
            let rule = ErrorRule {
                wait: vec![wait],
                ..rule(Action::Retry)
            };
            let found = one(rule, 429, body).unwrap().wait;
            assert_eq!(found, expected.map(Duration::from_millis), "{shown}");
        }
        let broken = ErrorRule {
            wait: vec![seconds("['a'] - 1")],
            ..rule(Action::Retry)
        };
        let error = judged(vec![broken], Vec::new(), 429, body).unwrap_err();
        assert!(
            error.chain().contains("errors.1 of the stream"),
            "{}",
            error.chain()
        );
    }

    #[test]
    fn only_a_rule_that_may_accept_needs_a_body_whole() {
        let mut source = source(&Url::parse("https://a.example").unwrap(), Paginate::Single);
        source.errors = vec![
            ErrorRule {
                status: vec![(404, 404)],
                ..rule(Action::Accept)
            },
            ErrorRule {
                status: vec![(410, 410)],
                ..rule(Action::Ignore)
            },
        ];
        let stream = source.streams[0].clone();
        let accepted = [400, 404, 410].map(|status| may_accept(&source, &stream, status));
        assert_eq!(accepted, [false, true, false]);
    }

    proptest! {
        #[test]
        fn f032_no_header_makes_a_wait_panic(value in "[ -~]{0,30}", number: f64) {
            for text in [value, number.to_string()] {
                for unit in [WaitUnit::Seconds, WaitUnit::Millis, WaitUnit::UntilEpochSeconds, WaitUnit::UntilEpochMillis] {
                    let wait = Wait::Header { name: "x-wait".to_owned(), unit, pattern: None, least: Duration::ZERO };
                    let Ok(value) = text.parse() else { continue };
                    let headers = HeaderMap::from_iter([("x-wait".parse().unwrap(), value)]);
                    let _ = length(&wait, &headers, &Vars::default(), Timestamp::UNIX_EPOCH, 0.5).unwrap();
                }
            }
        }
    }
}
