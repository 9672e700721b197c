//! When what producers push is taken to have a gap.

use std::time::Duration;

use crate::{
    config::{
        gaps::Gaps,
        hydrate::Hydrate,
        push::Feed,
        read::values::{duration, json_path},
    },
    yaml::{
        fields::{Fields, Value},
        section::{
            Rule, Section,
            Takes::{self, Path},
            key,
        },
    },
};

/// Bounds of both times.
const TIMES: std::ops::RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(366 * 24 * 3600);

/// `gaps`
pub(super) static GAPS: Section = Section::new(
    "gaps",
    "gaps",
    "What tells that something was pushed and never came, for a stream that is asked for too, or for the events of its \
     `hydrate`. Webhooks cannot be asked again, so the stream is: at the next `run`, and at once under `run --watch`. \
     `landfall gaps` and `landfall status` say so until then.",
    &[
        key("sequence", Path)
            .doc("A whole number within each record that is one more with every record sent, in any order of arrival.")
            .example("$.sequence"),
        key("heartbeat", Takes::Duration)
            .doc("The longest time without anything pushed.")
            .example("15m"),
        key("grace", Takes::Duration)
            .default("1m")
            .doc("How long a number may be missing that comes late.")
            .example("10s")
            .beside("{ sequence: $.sequence }"),
    ],
)
.rules(&[Rule::AtLeastOne(&["sequence", "heartbeat"])])
.example("{ sequence: $.sequence }");

/// Reads `gaps`.
pub(super) fn gaps(value: Value<'_>) -> Option<Gaps> {
    let fields = value.fields(&GAPS)?;
    let gaps = Gaps {
        sequence: fields.optional("sequence", json_path),
        heartbeat: fields.optional("heartbeat", |value| duration(value, TIMES)),
        grace: fields
            .optional("grace", |value| duration(value, TIMES))
            .unwrap_or(Gaps::GRACE_DEFAULT),
    };
    if fields.value("sequence").is_none() && fields.value("heartbeat").is_none() {
        return value.refuse("needs sequence or heartbeat", None);
    }
    Some(gaps)
}

/// A gap is in what is pushed, and what is missing has to be asked for.
pub(super) fn check_gaps(fields: &Fields<'_>, feed: Option<&Feed>, hydrate: Option<&Hydrate>) {
    let (Some(value), Some(feed)) = (fields.value("gaps"), feed) else {
        return;
    };
    if feed.push().is_none() && hydrate.is_none() {
        let hint = "add push or webhook to the stream, or remove gaps".to_owned();
        value.refuse::<()>("nothing is pushed to the stream", Some(hint));
    } else if fields.value("request").is_none() {
        let hint = "add a request to the stream, or remove gaps".to_owned();
        value.refuse::<()>("what is missing cannot be asked for", Some(hint));
    }
}
