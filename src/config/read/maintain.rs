//! How long things are kept, and how the lake is kept small.

use std::time::Duration;

use crate::{
    config::{
        Maintain, Retention,
        read::values::{DURATION_MAX, duration, size},
    },
    yaml::{
        fields::Value,
        section::{
            Section,
            Takes::{self, Boolean, Size},
            key,
        },
    },
};

/// A table with larger files is read by few at once, and one with smaller ones is nothing but files.
const FILE_BYTES: std::ops::RangeInclusive<u64> = (1 << 20)..=(4 << 30);

/// The log of a table is cut at this age whenever a commit writes a checkpoint, whatever is set.
const LOG_AFTER_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Nobody takes longer from storing an object to committing it.
const SWEEP_AFTER_MIN: Duration = Duration::from_secs(60 * 60);

const SHORTEST: Duration = Duration::from_millis(1);

/// `maintain`
pub(super) static MAINTAIN: Section = Section::new(
    "maintain",
    "maintain",
    "How `landfall maintain` keeps the lake small. Nothing of it happens by itself, except that loads put together the \
     small files of what they write beside a table: quarantine, drift and load history.",
    &[
        key("file_size", Size)
            .default("128MiB")
            .doc("Small data files are put together up to this size; 1MiB to 4GiB.")
            .example("256MiB"),
        key("compact_after", Takes::Duration)
            .default("1h")
            .doc("How old a data file is before it is put together with others.")
            .example("10m"),
        key("vacuum_after", Takes::Duration)
            .default("7d")
            .doc(
                "How long data files stay that no version of their table needs any more. Longer than any query or load \
                 takes; at most as long as log_after.",
            )
            .example("14d"),
        key("log_after", Takes::Duration)
            .default("30d")
            .doc("How long the log of a table tells its former versions; at most 30d.")
            .example("14d"),
        key("sweep_after", Takes::Duration)
            .default("1d")
            .doc(
                "How old something is that nobody refers to before it counts as left behind by a process that died; at \
                 least 1h. Longer than any run takes from storing a page to committing it.",
            )
            .example("2d"),
    ],
)
.example("{ vacuum_after: 14d }");

/// `retention`
pub(super) static RETENTION: Section = Section::new(
    "retention",
    "retention",
    "How long raw of the stream is kept. What has expired can be neither rebuilt nor verified nor explained any more.",
    &[
        key("raw", Takes::Duration)
            .doc(
                "How long raw objects stay, from the moment they were committed; without it for ever. Only \
                 `landfall maintain` deletes them, and only what is loaded, what no pass and no slice needs any more, and \
                 what no quarantined record came from. Files that records point to stay.",
            )
            .example("365d"),
        key("legal_hold", Boolean)
            .default("false")
            .doc("Whether no raw of the stream is deleted, whatever else is set. A hold file in the lake does the same.")
            .example("true"),
    ],
)
.example("{ raw: 365d }");

/// Reads `maintain`.
pub(super) fn maintain(value: Value<'_>) -> Option<Maintain> {
    let fields = value.fields(&MAINTAIN)?;
    let usual = Maintain::DEFAULT;
    let age = |key, bounds: std::ops::RangeInclusive<Duration>, usual| {
        fields
            .optional(key, |value| duration(value, bounds.clone()))
            .unwrap_or(usual)
    };
    let maintain = Maintain {
        file_bytes: fields
            .optional("file_size", |value| size(value, FILE_BYTES))
            .unwrap_or(usual.file_bytes),
        compact_after: age("compact_after", SHORTEST..=DURATION_MAX, usual.compact_after),
        vacuum_after: age("vacuum_after", SHORTEST..=LOG_AFTER_MAX, usual.vacuum_after),
        log_after: age("log_after", SHORTEST..=LOG_AFTER_MAX, usual.log_after),
        sweep_after: age("sweep_after", SWEEP_AFTER_MIN..=DURATION_MAX, usual.sweep_after),
    };
    if maintain.vacuum_after > maintain.log_after {
        let given = fields.value("log_after").or_else(|| fields.value("vacuum_after"));
        return given?.refuse(
            "the log is kept for less time than the files it tells of",
            Some("vacuum_after is at most as long as log_after".to_owned()),
        );
    }
    Some(maintain)
}

/// Reads `retention`.
pub(super) fn retention(value: Value<'_>) -> Option<Retention> {
    let fields = value.fields(&RETENTION)?;
    Some(Retention {
        raw: fields.optional("raw", |value| duration(value, SHORTEST..=DURATION_MAX)),
        legal_hold: fields
            .optional("legal_hold", |value| value.boolean())
            .unwrap_or(false),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::read::parse;

    fn read(maintain: &str, retention: &str) -> Result<(Maintain, Retention), String> {
        let text = format!(
            "
lake: ./lake
maintain: {maintain}
sources:
  shop:
    base_url: https://a.example
    streams:
      items: {{ request: {{ path: /i }}, table: {{ keys: [id] }}, retention: {retention} }}
"
        );
        match parse(&text, Path::new("/srv/shop")) {
            Ok(loaded) => Ok((
                loaded.project.maintain,
                loaded.project.sources[0].streams[0].retention,
            )),
            Err(problems) => Err(problems.iter().map(|problem| format!("{problem}\n")).collect()),
        }
    }

    #[test]
    fn r091_what_is_not_set_is_as_before_and_nothing_expires() {
        assert_eq!(
            read("{}", "{}").unwrap(),
            (Maintain::DEFAULT, Retention::default())
        );
        assert_eq!(Retention::default().raw, None);
        let (maintain, retention) = read(
            "{ file_size: 64MiB, compact_after: 2h, vacuum_after: 3d, log_after: 4d, sweep_after: 5d }",
            "{ raw: 90d, legal_hold: true }",
        )
        .unwrap();
        let days = |days: u64| Duration::from_secs(days * 86_400);
        assert_eq!(maintain.file_bytes, 64 << 20);
        assert_eq!(maintain.compact_after, Duration::from_secs(7200));
        assert_eq!((maintain.vacuum_after, maintain.log_after), (days(3), days(4)));
        assert_eq!(maintain.sweep_after, days(5));
        assert_eq!((retention.raw, retention.legal_hold), (Some(days(90)), true));
    }

    #[test]
    fn bounds_that_would_lose_something_are_refused() {
        for (maintain, word) in [
            (
                "{ vacuum_after: 8d, log_after: 7d }",
                "vacuum_after is at most as long as log_after",
            ),
            ("{ log_after: 31d }", "log_after"),
            ("{ sweep_after: 59m }", "sweep_after"),
            ("{ file_size: 1KiB }", "file_size"),
        ] {
            let problems = read(maintain, "{}").unwrap_err();
            assert!(problems.contains(word), "{problems}");
        }
    }
}
