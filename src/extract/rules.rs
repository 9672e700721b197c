//! What an answer means by the rules of the project file.

use std::{error::Error as StdError, time::Duration};

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
        if rule.when.is_some() || rule.message.as_ref().is_some_and(|text| text.is_template()) {
            vars.get_or_insert_with(|| variables(source, seen));
        }
        let known = vars.clone().unwrap_or_default();
        if let Some(when) = &rule.when
            && !holds(when.is_true(&known)).map_err(|error| error.with("rule", place()))?
        {
            continue;
        }
        let message = rule.message.as_ref().map(|text| text.render(&known)).transpose();
        let mut wait = None;
        for place in &rule.wait {
            wait = wait.or(length(place, seen.headers, now, jitter)?);
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

fn variables(source: &Source, seen: Seen<'_>) -> Vars {
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
    match serde_json::from_slice::<Value>(seen.body) {
        Ok(response) => vars.with("response", &response),
        Err(_) => vars,
    }
}

/// What is not there does not hold; anything else that keeps an expression from its value is a mistake in it.
fn holds(found: Result<bool>) -> Result<bool> {
    let error = match found {
        Ok(holds) => return Ok(holds),
        Err(error) => error,
    };
    let cause = StdError::source(&error).and_then(|cause| cause.downcast_ref::<minijinja::Error>());
    match cause.map(minijinja::Error::kind) {
        Some(minijinja::ErrorKind::UndefinedError) => Ok(false),
        _ => Err(error),
    }
}

/// How long to wait by `wait`; `None` if it says nothing about this answer.
fn length(wait: &Wait, headers: &HeaderMap, now: Timestamp, jitter: f64) -> Result<Option<Duration>> {
    let (name, unit, pattern, least) = match wait {
        Wait::Constant { time, jitter: span } => {
            return Ok(Some(*time + span.mul_f64(jitter.clamp(0.0, 1.0))));
        }
        Wait::Header {
            name,
            unit,
            pattern,
            least,
        } => (name, *unit, pattern, *least),
    };
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    let number = match (value, pattern) {
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
    };
    let from = server_time(headers).unwrap_or(now);
    let asked = number.map(|number| counted(number, unit, from));
    Ok(match asked {
        Some(asked) => Some(asked.max(least)),
        None => Some(least).filter(|least| !least.is_zero()),
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
