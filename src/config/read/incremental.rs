//! How only changed records are asked for.

use std::time::Duration;

use crate::{
    config::{
        advice::is_made,
        incremental::{CursorFormat, Filter, Incremental, OnExpired, Order, Reconcile},
        read::{
            cursor::{FORMAT, MOMENT, also, format, moments},
            slot::{AT_MOST_ONE, SLOT, slot},
            until::{UNTIL, until},
            values::{DURATION_MAX, duration, json_path},
        },
        request::{Method, TokenSlot},
    },
    json::JsonPath,
    yaml::{
        fields::Value,
        section::{
            Section,
            Takes::{self, Choice, Duration as Span, Either, List, Path},
            key,
        },
    },
};

/// `incremental`
pub(super) static INCREMENTAL: Section = Section::new(
    "incremental",
    "incremental",
    "How only changed records are asked for. One of `param`, `header`, `body_field` and `in` says where the lower bound \
     goes, unless the API has no filter (`filter: here`, `order: newest_first`).",
    &[
        key("cursor", Path)
            .required()
            .doc("The value within a record that grows with each change; for a feed, the position within the response.")
            .example("$.updated_at"),
        key("format", FORMAT)
            .default("rfc3339")
            .doc("How cursor values are written, and how the bounds are; a text with % is a strftime pattern.")
            .example("epoch_s")
            .more(&["epoch_us", "integer", "feed", "'%d/%m/%Y %H:%M:%S'"]),
        key("also", List(&FORMAT))
            .default("[]")
            .doc("Further formats of times in which cursor values occur, tried in order after `format`.")
            .example("[date, '%Y-%m-%d %H:%M:%S']"),
        key("start", MOMENT)
            .doc(
                "The first bound: a value of the format, or `30d ago`; of several the latest. Without it everything is \
                 asked for first.",
            )
            .example("2024-01-01T00:00:00Z")
            .more(&["730d ago", "[2024-01-01T00:00:00Z, 730d ago]"]),
        key("until", Takes::Section(&UNTIL))
            .doc("Upper bounds. Without it every window reaches up to the present.")
            .beside("{ start: '2024-01-01T00:00:00Z' }"),
        key("lookback", Span)
            .default("0s")
            .doc("How far before the watermark the next window begins. Times only.")
            .example("1h"),
        key(
            "order",
            Choice(&[
                ("any", "the watermark moves when a window is complete"),
                (
                    "newest_first",
                    "a page with nothing at or after the lower bound is the last",
                ),
                ("oldest_first", "as any, and checked"),
            ]),
        )
        .default("any")
        .doc("In which order the API sends records.")
        .example("newest_first"),
        key(
            "filter",
            Choice(&[
                ("api", "every page is landed"),
                (
                    "here",
                    "the API has no filter: a page with nothing at or after the lower bound is not landed",
                ),
            ]),
        )
        .default("api")
        .doc("Who leaves out what has not changed.")
        .example("here"),
        key("skew", Span)
            .default("5m")
            .doc("How far in the future a cursor may lie and still move the watermark.")
            .example("1h"),
        key(
            "on_expired",
            Choice(&[
                ("stop", "the stream fails and says what was missed"),
                ("resync", "everything is asked for again"),
            ]),
        )
        .default("stop")
        .doc("What to do when the API no longer knows the position (410).")
        .example("resync"),
        key("retained", Span)
            .doc("How long the API keeps changes. With an older watermark it is not asked for them, and `on_expired` says what to do. Times only.")
            .example("30d"),
    ],
)
.shared(&[&SLOT])
.rules(&[AT_MOST_ONE])
.example("{ cursor: $.updated_at, param: updated_since }");

/// `reconcile`
pub(super) static RECONCILE: Section = Section::new(
    "reconcile",
    "reconcile",
    "A complete pass from time to time over a stream that otherwise asks for changes only.",
    &[key(
        "every",
        Either(&[
            Span,
            Choice(&[
                ("@daily", "24 hours"),
                ("@weekly", "7 days"),
                ("@monthly", "30 days"),
            ]),
        ]),
    )
    .required()
    .doc("How much time passes between two of them.")
    .example("7d")
    .more(&["'@weekly'"])],
)
.example("{ every: 7d }");

/// Reads `incremental`.
pub(super) fn incremental(value: Value<'_>, method: Method) -> Option<Incremental> {
    let fields = value.fields(&INCREMENTAL)?;
    let cursor = fields.required("cursor", json_path);
    let format = match fields.value("format") {
        Some(value) => format(value),
        None => Some(CursorFormat::Rfc3339),
    };
    let order = fields
        .optional("order", |value| {
            let orders = [
                ("any", Order::Any),
                ("newest_first", Order::NewestFirst),
                ("oldest_first", Order::OldestFirst),
            ];
            value.choice(&orders, &[])
        })
        .unwrap_or(Order::Any);
    let filter = fields
        .optional("filter", |value| {
            value.choice(&[("api", Filter::Api), ("here", Filter::Here)], &[])
        })
        .unwrap_or(Filter::Api);
    // Where nothing is filtered, nothing has to be sent.
    let sent = filter == Filter::Api && order != Order::NewestFirst;
    let to = slot(&fields, method, (!sent).then_some(TokenSlot::Template));
    let start = fields
        .value("start")
        .map(|value| moments(value, format.as_ref()?));
    let until = fields
        .value("until")
        .map(|value| until(value, method, to.as_ref(), format.as_ref()?));
    let also = fields.optional("also", |value| also(value, format.as_ref()?));
    let lookback = fields.optional("lookback", |value| {
        let lookback = duration(value, Duration::ZERO..=DURATION_MAX)?;
        if !lookback.is_zero() && format.as_ref().is_some_and(|format| !format.is_time()) {
            return value.refuse("only times have a lookback", None);
        }
        Some(lookback)
    });
    let skew = fields.optional("skew", |value| duration(value, Duration::ZERO..=DURATION_MAX));
    let on_expired = fields.optional("on_expired", |value| {
        value.choice(&[("stop", OnExpired::Stop), ("resync", OnExpired::Resync)], &[])
    });
    let retained = fields.optional("retained", |value| {
        let retained = duration(value, Duration::from_secs(1)..=DURATION_MAX)?;
        match &format {
            Some(format) if !format.is_time() => value.refuse("only times have an age", None),
            _ => Some(retained),
        }
    });
    if let (Some(cursor), Some(value)) = (&cursor, fields.value("cursor")) {
        warn_of_made(value, cursor);
    }
    let (start, until) = (
        start.unwrap_or(Some(Vec::new()))?,
        until.map_or(Some(None), |until| until.map(Some))?,
    );
    if let (Some(until), [], Some(value)) = (&until, start.as_slice(), fields.value("until"))
        && (until.step.is_some() || until.align.is_some())
    {
        let hint = "add start: with the first bound".to_owned();
        return value.refuse("windows of a length need a beginning", Some(hint));
    }
    Some(Incremental {
        cursor: cursor?,
        to: to?,
        format: format?,
        also: also.unwrap_or_default(),
        start,
        lookback: lookback.unwrap_or(Duration::ZERO),
        until,
        order,
        filter,
        skew: skew.unwrap_or(Incremental::SKEW_DEFAULT),
        on_expired: on_expired.unwrap_or(OnExpired::Stop),
        retained,
    })
}

/// Reads `reconcile` of a stream that asks for changes only, or not.
pub(super) fn reconcile(value: Value<'_>, incremental: bool) -> Option<Reconcile> {
    const HOUR: Duration = Duration::from_secs(3600);
    let fields = value.fields(&RECONCILE)?;
    let every = fields.required("every", |value| match value.node.scalar_text() {
        Some("@daily") => Some(24 * HOUR),
        Some("@weekly") => Some(7 * 24 * HOUR),
        Some("@monthly") => Some(30 * 24 * HOUR),
        _ => duration(value, HOUR..=DURATION_MAX),
    });
    if !incremental {
        let hint = "every run is complete; remove reconcile, or add incremental".to_owned();
        return value.refuse("the stream does not ask for changes only", Some(hint));
    }
    Some(Reconcile { every: every? })
}

/// A time that never changes does not show changes.
fn warn_of_made(value: Value<'_>, cursor: &JsonPath) {
    if is_made(cursor) {
        value.problems.warn(
            value.node.place,
            format!(
                "{}: {cursor} says when a record was made: updates are missed",
                value.key
            ),
            Some("use the time of the last change, or add reconcile: { every: 7d }".to_owned()),
        );
    }
}
