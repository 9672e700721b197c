//! `spool`: where deliveries are kept until they are in the lake.

use std::{ops::RangeInclusive, path::Path, time::Duration};

use crate::{
    config::{
        read::{
            auth,
            values::{absolute, duration, size},
        },
        spool::{Ack, Spool},
    },
    yaml::{
        fields::Value,
        section::{
            Section,
            Takes::{self, Choice, File, Size},
            key,
        },
    },
};

/// Less would be full before anybody could slow down.
const SIZE: RangeInclusive<u64> = (16 << 20)..=(16 << 40);

/// The largest segment, and one delivery more, is held on the disk twice for a moment.
const SEGMENT_SIZE: RangeInclusive<u64> = (1 << 20)..=(1 << 30);

/// Shorter ages would make a raw batch of every delivery, longer ones leave the lake behind what was acknowledged.
const SEGMENT_AGE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(600);

/// `spool`
pub(super) static SPOOL: Section = Section::new(
    "spool",
    "a spool",
    "Where deliveries are kept until they are in the lake.",
    &[
        key(
            "ack",
            Choice(&[
                ("spool", "when it is safe on the local disk; it is in the lake soon after"),
                (
                    "lake",
                    "when it is in the lake: for a machine without a disk that outlasts it. Slower, and what cannot be \
                     put there within a minute is refused; if the lake took it all the same and only its answers were \
                     lost so long, what is sent again stands twice, under one key",
                ),
            ]),
        )
        .default("spool")
        .doc("When a delivery counts as received.")
        .example("lake"),
        key("dir", File)
            .default(".landfall/deliveries")
            .doc(
                "The folder deliveries are kept in, for one server alone. It belongs onto a disk that is neither shared \
                 over a network nor lost with the container.",
            )
            .example("/var/lib/landfall/deliveries"),
        key("size", Size)
            .default("4GiB")
            .doc(
                "Most bytes in the folder; at least 16MiB. From half of it on senders are asked to slow down, from 85 % on \
                 requests are refused for now, and what does not fit is refused.",
            )
            .example("64GiB"),
        key("segment_size", Size)
            .default("32MiB")
            .doc("Deliveries are taken to the lake when they are so many bytes; 1MiB to 1GiB, at most a quarter of size.")
            .example("128MiB"),
        key("segment_age", Takes::Duration)
            .default("3s")
            .doc(
                "Or when the first of them is so old; 100ms to 10m. While the lake is away they are gathered for up to \
                 twelve times as long.",
            )
            .example("10s"),
    ],
)
.example("{ dir: /var/lib/landfall/deliveries, size: 64GiB }");

/// Reads `spool`; `dir` is the project's folder.
pub(super) fn spool(value: Value<'_>, dir: &Path) -> Option<Spool> {
    let fields = value.fields(&SPOOL)?;
    let usual = Spool::usual(dir);
    let ack = fields.optional("ack", |value| {
        value.choice(&[("spool", Ack::Spool), ("lake", Ack::Lake)], &[])
    });
    let folder = match fields.value("dir") {
        Some(value) => auth::tls::path(value, dir),
        None => absolute(dir, Spool::DIR_DEFAULT),
    };
    let bytes_max = fields.optional("size", |value| size(value, SIZE));
    let segment_bytes = fields.optional("segment_size", |value| size(value, SEGMENT_SIZE));
    let segment_age = fields.optional("segment_age", |value| duration(value, SEGMENT_AGE));
    let spool = Spool {
        ack: ack.unwrap_or(usual.ack),
        dir: folder?,
        bytes_max: bytes_max.unwrap_or(usual.bytes_max),
        segment_bytes: segment_bytes.unwrap_or(usual.segment_bytes),
        segment_age: segment_age.unwrap_or(usual.segment_age),
    };
    if spool.segment_bytes > spool.bytes_max / SEGMENTS_MIN {
        // What is not set gives way to what is.
        match fields.value("segment_size") {
            None => {
                return Some(Spool {
                    segment_bytes: spool.bytes_max / SEGMENTS_MIN,
                    ..spool
                });
            }
            Some(value) => {
                return value.refuse(
                    "a segment is at most a quarter of the spool",
                    Some("give the spool more room, or set a smaller segment_size".to_owned()),
                );
            }
        }
    }
    Some(spool)
}

/// A spool has room for so many segments: one is written while others are on their way.
const SEGMENTS_MIN: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::{Problems, parse::parse};

    fn read(text: &str) -> Result<Spool, String> {
        let problems = Problems::new("f.yml");
        let dir = Path::new("/srv/shop");
        let spool = parse(text, &problems).and_then(|node| spool(Value::root(&problems, &node), dir));
        match problems.finish(spool) {
            Ok((spool, _)) => Ok(spool),
            Err(found) => Err(found.iter().map(|one| format!("{one}\n")).collect()),
        }
    }

    #[test]
    fn what_is_not_set_is_safe() {
        let spool = read("{}").unwrap();
        assert_eq!(spool, Spool::usual(Path::new("/srv/shop")));
        assert_eq!(spool.dir, Path::new("/srv/shop/.landfall/deliveries"));
        assert_eq!(
            (spool.ack, spool.bytes_max, spool.segment_bytes),
            (Ack::Spool, 4 << 30, 32 << 20)
        );
        assert_eq!(spool.segment_age, Duration::from_secs(3));
    }

    #[test]
    fn every_key_is_read() {
        let text = "{ ack: lake, dir: /data/d, size: 64MiB, segment_size: 2MiB, segment_age: 500ms }";
        let spool = Spool {
            ack: Ack::Lake,
            dir: "/data/d".into(),
            bytes_max: 64 << 20,
            segment_bytes: 2 << 20,
            segment_age: Duration::from_millis(500),
        };
        assert_eq!(read(text).unwrap(), spool);
        assert_eq!(read("{ size: 16MiB }").unwrap().segment_bytes, 4 << 20);
    }

    #[test]
    fn bounds_that_would_lose_something_are_refused() {
        for (text, word) in [
            ("{ size: 1MiB }", "size"),
            (
                "{ size: 16MiB, segment_size: 5MiB }",
                "a segment is at most a quarter",
            ),
            ("{ segment_age: 10ms }", "segment_age"),
            ("{ ack: memory }", "ack"),
        ] {
            let problems = read(text).unwrap_err();
            assert!(problems.contains(word), "{problems}");
        }
    }
}
