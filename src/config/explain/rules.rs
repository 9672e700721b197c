//! Budgets, and what failed answers mean.

use crate::config::{
    errors::{Action, ErrorRule, Retry, Wait, WaitUnit},
    explain::lines::{Lines, show_text},
    rate::{Bucket, Choose, QuotaHeaders, QuotaStatus, Rate, RateLimit, RequestPattern, Share, WindowKind},
    read::values::show_duration,
};

/// Adds `rate_limit`.
pub(super) fn explain_rate_limit(lines: &mut Lines, limit: Option<&RateLimit>) {
    let Some(limit) = limit else {
        return lines.choose("rate_limit", "none", true);
    };
    let buckets: Vec<String> = limit.buckets.iter().map(show_bucket).collect();
    lines.set("rate_limit", buckets.join("; "));
    lines.within("rate_limit", |lines| {
        let share = match &limit.share {
            Share::Process => "this process only".to_owned(),
            Share::File { path, key } => format!("file {}, key {key}", path.display()),
            Share::Redis { url, key } => format!("redis {url}, key {key}"),
        };
        lines.choose("share", share, matches!(limit.share, Share::Process));
        lines.value("processes", limit.processes, RateLimit::PROCESSES_DEFAULT);
        let choose = match limit.choose {
            Choose::All => "all",
            Choose::First => "first",
        };
        lines.choose("choose", choose, limit.choose == Choose::All);
        let status = &limit.status;
        let QuotaHeaders {
            limit,
            remaining,
            reset,
        } = &limit.headers;
        let named: Vec<&str> = [limit, remaining, reset]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        let named = if named.is_empty() {
            "none".to_owned()
        } else {
            named.join(", ")
        };
        lines.choose("headers", &named, named == "none");
        let status = status.as_deref().map_or("none".to_owned(), show_status);
        lines.choose("status", &status, status == "none");
    });
}

fn show_status(status: &QuotaStatus) -> String {
    let QuotaStatus {
        request,
        remaining,
        reset,
        limit,
    } = status;
    let method = request.method.as_str();
    let path = show_text(&request.path);
    let mut text = format!("{method} {path}, {remaining}, {reset}");
    if let Some(limit) = limit {
        text.push_str(&format!(", {limit}"));
    }
    text
}

fn show_bucket(bucket: &Bucket) -> String {
    let rate = |rate: &Rate| format!("{} per {}", rate.requests, show_duration(rate.per));
    let mut text = match bucket.rates.as_slice() {
        [] => "no limit".to_owned(),
        rates => rates.iter().map(rate).collect::<Vec<_>>().join(" and "),
    };
    if bucket.window == WindowKind::Fixed {
        text.push_str(", fixed windows");
    }
    let patterns: Vec<String> = bucket.matches.iter().map(show_pattern).collect();
    if !patterns.is_empty() {
        text.push_str(&format!(", for {}", patterns.join(" or ")));
    }
    text
}

fn show_pattern(pattern: &RequestPattern) -> String {
    let mut text = pattern.method.clone().unwrap_or_else(|| "any method".to_owned());
    let path = pattern.path.as_ref().map_or("any path", |path| path.as_str());
    text.push_str(&format!(" {path}"));
    for (name, value) in pattern.params.iter().chain(&pattern.headers) {
        text.push_str(&format!(" with {name}={value}"));
    }
    if pattern.weight > 1 {
        text.push_str(&format!(" counted {} times", pattern.weight));
    }
    text
}

/// Adds `errors`, a line for each rule.
pub(super) fn explain_errors(lines: &mut Lines, rules: &[ErrorRule]) {
    if rules.is_empty() {
        lines.choose("errors", "none", true);
    }
    for (number, rule) in (1..).zip(rules) {
        lines.set(&format!("errors.{number}"), show_rule(rule));
    }
}

fn show_rule(rule: &ErrorRule) -> String {
    let mut when = Vec::new();
    let status = |(first, last): &(u16, u16)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    };
    if !rule.status.is_empty() {
        let statuses: Vec<String> = rule.status.iter().map(status).collect();
        when.push(format!("status {}", statuses.join(", ")));
    }
    if let Some((name, part)) = &rule.header {
        when.push(format!("header {name} with {part:?}"));
    }
    if let Some(part) = &rule.body {
        when.push(format!("body with {part:?}"));
    }
    if let Some(condition) = &rule.when {
        when.push(condition.as_str().to_owned());
    }
    let then = match rule.then {
        Action::Accept => "accept",
        Action::Ignore => "ignore",
        Action::Fail => "fail",
        Action::Retry => "retry",
        Action::Throttle => "throttle",
        Action::Renew => "renew",
        Action::Reset => "reset",
        Action::Split => "split",
        Action::SplitWindow => "split_window",
    };
    let mut text = format!("{}: {then}", when.join(" and "));
    if !rule.wait.is_empty() {
        let waits: Vec<String> = rule.wait.iter().map(show_wait).collect();
        text.push_str(&format!(" after {}", waits.join(", else ")));
    }
    if rule.message.is_some() {
        text.push_str(", with a message");
    }
    text
}

fn show_wait(wait: &Wait) -> String {
    match wait {
        Wait::Constant { time, jitter } if jitter.is_zero() => show_duration(*time),
        Wait::Constant { time, jitter } => {
            format!("{} to {}", show_duration(*time), show_duration(*time + *jitter))
        }
        Wait::Header {
            name,
            unit,
            pattern,
            least,
        } => {
            let mut text = format!("header {name} ({})", show_unit(*unit));
            if let Some(pattern) = pattern {
                text.push_str(&format!(" by {pattern:?}"));
            }
            text.push_str(&format!(", at least {}", show_duration(*least)));
            text
        }
        Wait::Value { value, unit, least } => {
            let (unit, least) = (show_unit(*unit), show_duration(*least));
            format!("{} ({unit}), at least {least}", value.as_str())
        }
    }
}

fn show_unit(unit: WaitUnit) -> &'static str {
    match unit {
        WaitUnit::Seconds => "seconds",
        WaitUnit::Millis => "milliseconds",
        WaitUnit::UntilEpochSeconds => "second since 1970",
        WaitUnit::UntilEpochMillis => "millisecond since 1970",
    }
}

/// Adds the keys of `retry`.
pub(super) fn explain_retry(lines: &mut Lines, retry: Retry, usual: Retry) {
    lines.value("attempts_max", retry.attempts_max, usual.attempts_max);
    lines.wait("backoff_start", retry.backoff_start, usual.backoff_start);
    lines.wait("backoff_max", retry.backoff_max, usual.backoff_max);
    lines.wait("retry_after_max", retry.retry_after_max, usual.retry_after_max);
}
