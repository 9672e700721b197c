//! What failed answers mean, and when a request is sent again.

use std::{ops::RangeInclusive, path::Path, time::Duration};

use regex::Regex;

use crate::{
    config::{
        errors::{Action, ErrorRule, Retry, Wait, WaitUnit},
        read::values::{duration, expr, header_name, show_duration, text},
    },
    yaml::{
        Kind,
        fields::{Fields, Value},
        quoted,
        section::{
            Key, Rule, Section,
            Takes::{self, AnyText, Choice, Either, Expression, Integer, List, Matching, Template, Text},
            key,
        },
    },
};

/// Statuses are within these.
const STATUSES: RangeInclusive<u16> = 100..=599;

const MILLISECOND: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What expressions and messages of a rule may name.
const KNOWN: [&str; 4] = ["status", "headers", "response", "config"];

const MATCHES: &[&str] = &["status", "header", "body", "when"];

const STATUS: Takes = Either(&[
    Integer(100, 599),
    Matching(
        "^([1-5]xx|[1-5][0-9][0-9]-[1-5][0-9][0-9])$",
        "a range or class of statuses",
    ),
]);

const ONE_WAIT: Takes = Either(&[
    Takes::Duration,
    Takes::Section(&WAIT),
    Takes::Section(&WAIT_HEADER),
    Takes::Section(&WAIT_VALUE),
]);

/// `errors`
pub(super) const ERRORS: Takes = List(&Takes::Section(&ERROR));

static ERROR: Section = Section::new(
    "error",
    "an error rule",
    "What an answer means. The first rule that matches decides, those of the stream before those of the source; a rule \
     matches if everything it names does.",
    &[
        key("status", Either(&[STATUS, List(&STATUS)]))
            .doc("Statuses: one, a range, a class, or a list of these.")
            .example("404")
            .more(&["5xx", "500-599", "[404, 409, 5xx]"]),
        key("header", Takes::Section(&HEADER)).doc("A response header."),
        key("body", Text)
            .doc("Text that the body contains, as written. Bodies beyond 1 MiB are not searched.")
            .example("quota exceeded"),
        key("when", Expression)
            .doc(
                "Holds over `status`, `headers`, `response` (the body as JSON: nothing of one beyond 1 MiB, and of one \
                 beyond 16 MiB whose records are streamed what stands around them) and `config`. What is not there does \
                 not hold.",
            )
            .example("\"response.error.code == 'BUSY'\""),
        key(
            "then",
            Choice(&[
                (
                    "accept",
                    "a good page, whatever its status; without a body or records, a page of none",
                ),
                ("ignore", "no page: the slice ends here without an error, and the watermark stays"),
                ("fail", "an error that no second attempt changes"),
                ("retry", "an error that may pass"),
                ("throttle", "the budget is spent: every worker of the credential waits"),
                (
                    "renew",
                    "the credential has expired: it is renewed and the request sent again, once",
                ),
                (
                    "reset",
                    "the page token no longer holds: the window begins again from the greatest cursor seen",
                ),
                (
                    "split",
                    "the page is too much for the server: half the records are asked for",
                ),
                (
                    "split_window",
                    "the window is too much for the server: each half of it is asked for",
                ),
            ]),
        )
        .required()
        .doc("What it means.")
        .example("ignore"),
        key("wait", Either(&[ONE_WAIT, List(&ONE_WAIT)]))
            .doc(
                "How long to wait before the next attempt, in place of the backoff; of several the first that says. \
                 Only with `then: retry` and `then: throttle`.",
            )
            .example("5s")
            .more(&[
                "{ header: x-retry-in, unit: ms }",
                "{ value: response.error.retry_in }",
                "[{ header: x-retry-in }, 30s]",
            ])
            .beside("{ status: 420, then: retry }"),
        key("message", Template)
            .doc("Said to the user besides our own words; over the variables of `when`.")
            .example("'the site {{ config.site }} has no such report'")
            .beside("{ status: 404, then: fail }"),
    ],
)
.rules(&[Rule::AtLeastOne(MATCHES)])
.example("{ status: 404, then: ignore }");

static HEADER: Section = Section::new(
    "error_header",
    "a header to look for",
    "A response header that an error rule looks for.",
    &[
        key("name", Text)
            .required()
            .doc("The header.")
            .example("X-Error-Code"),
        key("contains", AnyText)
            .default("\"\"")
            .doc("What its value contains, in upper or lower case. Without it the header only has to be there.")
            .example("quota"),
    ],
)
.example("{ name: X-Error-Code, contains: quota }");

static WAIT: Section = Section::new(
    "error_wait",
    "a wait",
    "A wait that is always the same.",
    &[
        key("time", Takes::Duration)
            .required()
            .doc("Always this long.")
            .example("5s"),
        key("jitter", Takes::Duration)
            .default("0s")
            .doc("A random part of this is added, so that not all workers return at once.")
            .example("2s"),
    ],
)
.example("{ time: 5s }");

static WAIT_HEADER: Section = Section::new(
    "error_wait_header",
    "a wait",
    "A wait whose length stands in a response header.",
    &[
        key("header", Text)
            .required()
            .doc("A response header with a number.")
            .example("X-Retry-In"),
        key("pattern", Text)
            .doc(
                "A regular expression whose first group, or else whole match, is the number. Without it the whole \
                 value is.",
            )
            .example("'in ([0-9]+) seconds'"),
    ],
)
.shared(&[&COUNTED])
.example("{ header: X-Retry-In }");

static WAIT_VALUE: Section = Section::new(
    "error_wait_value",
    "a wait",
    "A wait whose length an expression takes out of the answer.",
    &[key("value", Expression)
        .required()
        .doc(
            "Gives a number, over the variables of `when` and `now`. What is not there, or no number, says nothing.",
        )
        .example("response.error.retry_in")
        .more(&["timestamp(response.reset_at) - timestamp(now_utc())"])],
)
.shared(&[&COUNTED])
.example("{ value: response.error.retry_in }");

/// Of a wait with a number.
static COUNTED: [Key; 2] = [
    key(
        "unit",
        Choice(&[
            ("s", "seconds from now"),
            ("ms", "milliseconds from now"),
            ("epoch_s", "the second since 1970 at which to go on"),
            ("epoch_ms", "the millisecond since 1970 at which to go on"),
        ]),
    )
    .default("s")
    .doc("What the number counts.")
    .example("ms"),
    key("least", Takes::Duration)
        .default("0s")
        .doc("Least wait, whatever the answer says.")
        .example("1s"),
];

/// `retry`
pub(super) static RETRY: Section = Section::new(
    "retry",
    "retry settings",
    "When and how often a failed request is sent again. What a stream does not set is as its source has it.",
    &[
        key("attempts_max", Integer(1, 100))
            .default("6")
            .doc("Requests sent for one page, the first included.")
            .example("3"),
        key("backoff_start", Takes::Duration)
            .default("1s")
            .doc("The cap of the first wait; doubles with each attempt.")
            .example("200ms"),
        key("backoff_max", Takes::Duration)
            .default("60s")
            .doc("No backoff is longer.")
            .example("10s"),
        key("retry_after_max", Takes::Duration)
            .default("5m")
            .doc("The longest wait a server may ask for; beyond it the stream fails at once.")
            .example("1h"),
    ],
)
.example("{ attempts_max: 3 }");

/// Reads `errors`.
pub(super) fn errors(value: Value<'_>, dir: &Path) -> Option<Vec<ErrorRule>> {
    let rules: Vec<Option<ErrorRule>> = value.items()?.map(|item| rule(item, dir)).collect();
    rules.into_iter().collect()
}

fn rule(value: Value<'_>, dir: &Path) -> Option<ErrorRule> {
    let fields = value.fields(&ERROR)?;
    let named = MATCHES.iter().any(|name| fields.value(name).is_some());
    if !named {
        fields.missing("\"status\", \"header\", \"body\" or \"when\"");
    }
    let status = read_or(fields.value("status"), Vec::new(), statuses);
    let header = read_or(fields.value("header"), None, |value| header(value).map(Some));
    let body = read_or(fields.value("body"), None, |value| {
        value.text().map(str::to_owned).map(Some)
    });
    let when = read_or(fields.value("when"), None, |value| expr(value, &KNOWN).map(Some));
    let then = fields.required("then", action);
    let wait = read_or(fields.value("wait"), Vec::new(), waits);
    let waiting = matches!(then, None | Some(Action::Retry | Action::Throttle));
    if let (Some(value), false) = (fields.value("wait"), waiting) {
        let hint = "add then: retry, or remove the wait".to_owned();
        value.refuse::<()>("nothing is sent again, so nothing waits", Some(hint));
    }
    let message = read_or(fields.value("message"), None, |value| {
        text(value, dir, &KNOWN).map(Some)
    });
    let rule = ErrorRule {
        status: status?,
        header: header?,
        body: body?,
        when: when?,
        then: then?,
        wait: wait?,
        message: message?,
    };
    named.then_some(rule)
}

fn action(value: Value<'_>) -> Option<Action> {
    let words = [
        ("accept", Action::Accept),
        ("ignore", Action::Ignore),
        ("fail", Action::Fail),
        ("retry", Action::Retry),
        ("throttle", Action::Throttle),
        ("renew", Action::Renew),
        ("reset", Action::Reset),
        ("split", Action::Split),
        ("split_window", Action::SplitWindow),
    ];
    value.choice(&words, &[])
}

/// What `read` makes of a value that is there, else `absent`; `None` if it is wrong.
fn read_or<'a, T>(
    value: Option<Value<'a>>,
    absent: T,
    read: impl FnOnce(Value<'a>) -> Option<T>,
) -> Option<T> {
    match value {
        Some(value) => read(value),
        None => Some(absent),
    }
}

/// One value or a list of them.
fn one_or_more<'a, T>(value: Value<'a>, read: fn(Value<'a>) -> Option<T>) -> Option<Vec<T>> {
    if let Kind::Seq(_) = &value.node.kind {
        let items: Vec<Option<T>> = value.items()?.map(read).collect();
        return items.into_iter().collect();
    }
    Some(vec![read(value)?])
}

fn statuses(value: Value<'_>) -> Option<Vec<(u16, u16)>> {
    one_or_more(value, status)
}

/// `404`, `500-599` or `5xx`.
fn status(value: Value<'_>) -> Option<(u16, u16)> {
    let text = value.scalar()?;
    let class = text
        .strip_suffix("xx")
        .and_then(|class| class.parse::<u16>().ok());
    let range = match (class, text.split_once('-')) {
        (Some(class @ 1..=5), _) => Some((class * 100, class * 100 + 99)),
        (_, Some((from, to))) => from.parse().ok().zip(to.parse().ok()),
        _ => text.parse().ok().map(|status| (status, status)),
    };
    match range {
        Some((from, to)) if STATUSES.contains(&from) && STATUSES.contains(&to) && from <= to => {
            Some((from, to))
        }
        _ => value.refuse(
            format!("{} is not a status", quoted(text)),
            Some("write 404, 500-599 or 5xx".to_owned()),
        ),
    }
}

fn header(value: Value<'_>) -> Option<(String, String)> {
    let fields = value.fields(&HEADER)?;
    let name = fields.required("name", |value| header_name(value, value.text()?));
    let contains = read_or(fields.value("contains"), "", Value::any_text);
    Some((name?, contains?.to_owned()))
}

fn waits(value: Value<'_>) -> Option<Vec<Wait>> {
    one_or_more(value, wait)
}

fn wait(value: Value<'_>) -> Option<Wait> {
    let Kind::Map(entries) = &value.node.kind else {
        return Some(Wait::Constant {
            time: span(value)?,
            jitter: Duration::ZERO,
        });
    };
    let has = |key: &str| entries.iter().any(|entry| entry.key == key);
    if has("value") {
        let fields = value.fields(&WAIT_VALUE)?;
        let known: Vec<&str> = KNOWN.into_iter().chain(["now"]).collect();
        let number = fields.required("value", |value| expr(value, &known));
        let (unit, least) = counted(&fields);
        return Some(Wait::Value {
            value: number?,
            unit: unit?,
            least: least?,
        });
    }
    if !has("header") {
        let fields = value.fields(&WAIT)?;
        let time = fields.required("time", span);
        let jitter = read_or(fields.value("jitter"), Duration::ZERO, span);
        return Some(Wait::Constant {
            time: time?,
            jitter: jitter?,
        });
    }
    let fields = value.fields(&WAIT_HEADER)?;
    let name = fields.required("header", |value| header_name(value, value.text()?));
    let pattern = read_or(fields.value("pattern"), None, |value| pattern(value).map(Some));
    let (unit, least) = counted(&fields);
    Some(Wait::Header {
        name: name?,
        unit: unit?,
        pattern: pattern?,
        least: least?,
    })
}

fn span(value: Value<'_>) -> Option<Duration> {
    duration(value, Duration::ZERO..=DAY)
}

/// The keys of [`COUNTED`].
fn counted(fields: &Fields<'_>) -> (Option<WaitUnit>, Option<Duration>) {
    let unit = read_or(fields.value("unit"), WaitUnit::Seconds, unit);
    (unit, read_or(fields.value("least"), Duration::ZERO, span))
}

fn unit(value: Value<'_>) -> Option<WaitUnit> {
    let words = [
        ("s", WaitUnit::Seconds),
        ("ms", WaitUnit::Millis),
        ("epoch_s", WaitUnit::UntilEpochSeconds),
        ("epoch_ms", WaitUnit::UntilEpochMillis),
    ];
    value.choice(&words, &[])
}

fn pattern(value: Value<'_>) -> Option<String> {
    let text = value.text()?;
    match Regex::new(text) {
        Ok(_) => Some(text.to_owned()),
        Err(_) => value.refuse(
            format!("{} is not a regular expression", quoted(text)),
            Some("write one such as 'in ([0-9]+) seconds'".to_owned()),
        ),
    }
}

/// Reads `retry`; what is not set is as in `usual`.
pub(super) fn retry(value: Value<'_>, usual: Retry) -> Option<Retry> {
    let fields = value.fields(&RETRY)?;
    let wait = |value: Value<'_>| duration(value, MILLISECOND..=DAY);
    let retry = Retry {
        attempts_max: fields
            .optional("attempts_max", |value| value.integer_u32(1..=100))
            .unwrap_or(usual.attempts_max),
        backoff_start: fields
            .optional("backoff_start", wait)
            .unwrap_or(usual.backoff_start),
        backoff_max: fields.optional("backoff_max", wait).unwrap_or(usual.backoff_max),
        retry_after_max: fields
            .optional("retry_after_max", |value| duration(value, Duration::ZERO..=DAY))
            .unwrap_or(usual.retry_after_max),
    };
    if retry.backoff_start > retry.backoff_max {
        let (start, max) = (
            show_duration(retry.backoff_start),
            show_duration(retry.backoff_max),
        );
        return value.refuse(
            format!("backoff_start {start} is longer than backoff_max {max}"),
            None,
        );
    }
    Some(retry)
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::config::{Source, read::parse};

    fn file(source: &str, stream: &str) -> String {
        format!(
            "lake: ./lake\nsources:\n  shop:\n    base_url: https://a.example\n    {source}\n    streams:\n      orders:\n        \
             request: {{ path: /o }}\n        table: {{ keys: [id] }}\n        {stream}\n"
        )
    }

    fn read(source: &str, stream: &str) -> Source {
        let mut loaded = parse(&file(source, stream), Path::new("/srv/shop")).unwrap();
        loaded.project.sources.remove(0)
    }

    fn problems(source: &str, stream: &str) -> String {
        let problems = parse(&file(source, stream), Path::new("/srv/shop")).unwrap_err();
        problems.iter().map(|problem| format!("{problem}\n")).collect()
    }

    #[test]
    fn r037_every_setting_of_a_rule_is_read() {
        let source = read(
            "errors: [{ status: [404, 409, 5xx, 300-302], then: ignore }]",
            "errors: [{ header: { name: X-Error, contains: quota }, body: slow down, when: \"response.code == 1\", \
             then: throttle, message: 'at {{ config.site }}', wait: [{ header: X-In, unit: epoch_ms, pattern: '([0-9]+)', least: 2s }, \
             { time: 5s, jitter: 1s }, 30s, { value: response.in, unit: ms, least: 1s }] }]",
        );
        let rule = &source.errors[0];
        assert_eq!(rule.status, [(404, 404), (409, 409), (500, 599), (300, 302)]);
        assert_eq!((rule.then, rule.wait.len()), (Action::Ignore, 0));
        let rule = &source.streams[0].errors[0];
        assert_eq!(rule.header, Some(("x-error".to_owned(), "quota".to_owned())));
        assert_eq!(rule.body.as_deref(), Some("slow down"));
        assert_eq!(rule.when.as_ref().unwrap().as_str(), "response.code == 1");
        assert_eq!(rule.then, Action::Throttle);
        assert!(rule.message.as_ref().unwrap().is_template());
        let seconds = Duration::from_secs;
        let expected = [
            Wait::Header {
                name: "x-in".to_owned(),
                unit: WaitUnit::UntilEpochMillis,
                pattern: Some("([0-9]+)".to_owned()),
                least: seconds(2),
            },
            Wait::Constant {
                time: seconds(5),
                jitter: seconds(1),
            },
            Wait::Constant {
                time: seconds(30),
                jitter: Duration::ZERO,
            },
            Wait::Value {
                value: crate::config::text::Expr::parse("response.in").unwrap(),
                unit: WaitUnit::Millis,
                least: seconds(1),
            },
        ];
        assert_eq!(rule.wait, expected);
    }

    #[test]
    fn r037_a_stream_inherits_the_retries_it_does_not_set() {
        let source = read(
            "retry: { attempts_max: 9, backoff_max: 20s }",
            "retry: { attempts_max: 2 }",
        );
        assert_eq!(source.retry.attempts_max, 9);
        let retry = source.streams[0].retry;
        assert_eq!(
            (retry.attempts_max, retry.backoff_max),
            (2, Duration::from_secs(20))
        );
        assert_eq!(retry.retry_after_max, Retry::DEFAULT.retry_after_max);
        let source = read("retry: { attempts_max: 9 }", "");
        assert_eq!(source.streams[0].retry, source.retry);
    }

    #[test]
    fn r048_replicas_are_read() {
        let source = read("replicas: ['https://b.example/v1', 'http://c.example']", "");
        let replicas: Vec<&str> = source.replicas.iter().map(|url| url.as_str()).collect();
        assert_eq!(replicas, ["https://b.example/v1", "http://c.example/"]);
        assert!(read("", "").replicas.is_empty());
    }

    #[test]
    fn r020_every_problem_of_the_rules_is_told_with_its_place() {
        assert_snapshot!(problems(
            "errors: [{ status: 700, then: explode }, { then: fail }, { status: 600-500, then: fail, wait: 5s }, 404]",
            "errors: [{ status: 4xy, when: 'slice.a', then: retry, wait: { time: 5s, unit: ms } }, { status: 429, then: retry, wait: [{ header: x, jitter: 1s, pattern: '(' }, {}, fast, { value: slice.a, jitter: 1s }] }]",
        ), @r#"
        landfall.yml:5:24: status: "700" is not a status
          hint: write 404, 500-599 or 5xx
        landfall.yml:5:35: then: "explode" is not allowed
          hint: allowed: accept, ignore, fail, retry, throttle, renew, reset, split, split_window
        landfall.yml:5:46: missing key "status", "header", "body" or "when" in "errors"
        landfall.yml:5:72: status: "600-500" is not a status
          hint: write 404, 500-599 or 5xx
        landfall.yml:5:99: wait: nothing is sent again, so nothing waits
          hint: add then: retry, or remove the wait
        landfall.yml:5:105: errors: expected a map (an error rule), found a whole number
        landfall.yml:10:28: status: "4xy" is not a status
          hint: write 404, 500-599 or 5xx
        landfall.yml:10:39: when: "slice" is not a variable known here
          hint: known here: status, headers, response, config
        landfall.yml:10:81: unknown key "unit"
          hint: known keys: time, jitter
        landfall.yml:10:143: unknown key "jitter"
          hint: known keys: header, pattern, unit, least
        landfall.yml:10:164: pattern: "(" is not a regular expression
          hint: write one such as 'in ([0-9]+) seconds'
        landfall.yml:10:171: missing key "time" in "wait"
        landfall.yml:10:175: wait: "fast" is not a duration
          hint: write a whole number and one of ms, s, m, h, d: 30s
        landfall.yml:10:190: value: "slice" is not a variable known here
          hint: known here: status, headers, response, config, now
        landfall.yml:10:199: unknown key "jitter"
          hint: known keys: value, unit, least
        "#);
        assert_snapshot!(problems(
            "replicas: ['ftp://b.example', 'https://c.example?x=1']",
            "retry: { backoff_start: 2m }",
        ), @r#"
        landfall.yml:5:16: replicas: only http and https are spoken
        landfall.yml:5:35: replicas: a base URL has no ? and no #
          hint: query parameters go into request.params
        landfall.yml:10:16: retry: backoff_start 2m is longer than backoff_max 1m
        "#);
    }
}
