//! Every key of a lake. Nothing else builds or reads one.

use chrono::{NaiveDate, Timelike as _};
use object_store::path::Path;

use crate::{
    clock::Timestamp,
    config::{Name, StreamName},
    raw::{BatchId, BatchNumber},
};

/// What a key stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// `raw/<source>/<stream>/_log/<20 digits>.json`, the commit point of one batch.
    Entry {
        /// The log's owner.
        stream: StreamName,
        /// The position in the log.
        number: BatchNumber,
    },
    /// `raw/<source>/<stream>/_log/_last`, where the newest entry was seen lately.
    Hint {
        /// The log's owner.
        stream: StreamName,
    },
    /// `raw/<source>/<stream>/dt=YYYY-MM-DD/hr=HH/<batch id>-<4 digits or more>.jsonl.zst`, page bodies.
    Object {
        /// The stream the pages belong to.
        stream: StreamName,
        /// The hour the pages were fetched in, UTC.
        hour: Timestamp,
        /// The batch the object was written for.
        batch_id: BatchId,
        /// Counted from 0 within the batch.
        index: u32,
    },
    /// `raw/<source>/<stream>/files/<2 digits>/<64 digits>`, a file that records point to.
    File {
        /// The stream of the records.
        stream: StreamName,
        /// The SHA-256 of its bytes, lowercase hex.
        sha256: String,
    },
    /// `raw/<source>/<stream>/files/_condemned/<64 digits>`, the word that such a file goes soon.
    Condemned {
        /// The stream of the records.
        stream: StreamName,
        /// The SHA-256 of the file's bytes, lowercase hex.
        sha256: String,
    },
    /// `raw/<source>/<stream>/_log/_expired/<20 digits>-<20 digits>.json`, the word that the objects of these batches are
    /// past their retention; the same with `.done` once they are deleted.
    Expired {
        /// The log's owner.
        stream: StreamName,
        /// The first of them.
        first: BatchNumber,
        /// The last of them.
        last: BatchNumber,
        /// Whether their objects are deleted.
        done: bool,
    },
    /// `tables/<source>/<stream>`, the main table.
    Table {
        /// The stream the table is made from.
        stream: StreamName,
    },
    /// `quarantine/<source>/<stream>`, the table of refused records.
    Quarantine {
        /// The stream the records came in.
        stream: StreamName,
    },
    /// `tombstones/<source>/<stream>`, deletions whose rows are gone.
    Tombstones {
        /// The stream of the rows.
        stream: StreamName,
    },
    /// `system/<name>`, a table about the lake itself.
    System {
        /// Which one.
        table: SystemTable,
    },
}

/// A table about the lake itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemTable {
    /// What the data did that the contracts did not say.
    Drift,
    /// The history of loads.
    Loads,
    /// The versions of every stream's contract.
    Contracts,
    /// What the records of each load were like.
    Profiles,
    /// Drift that somebody has seen and said so.
    Acknowledged,
}

impl SystemTable {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Drift,
        Self::Loads,
        Self::Contracts,
        Self::Profiles,
        Self::Acknowledged,
    ];

    /// Its name, under `system/` and in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drift => "drift",
            Self::Loads => "loads",
            Self::Contracts => "contracts",
            Self::Profiles => "profiles",
            Self::Acknowledged => "acknowledged",
        }
    }
}

impl Key {
    /// The key as text, relative to the lake.
    pub fn path(&self) -> Path {
        match self {
            Self::Entry { stream, number } => entry(stream, *number),
            Self::Hint { stream } => hint(stream),
            Self::Object {
                stream,
                hour,
                batch_id,
                index,
            } => object(stream, *hour, *batch_id, *index),
            Self::File { stream, sha256 } => file(stream, sha256),
            Self::Condemned { stream, sha256 } => condemned(stream, sha256),
            Self::Expired {
                stream,
                first,
                last,
                done,
            } => {
                let end = if *done { "done" } else { "json" };
                expired(stream).join(format!("{:020}-{:020}.{end}", first.get(), last.get()))
            }
            Self::Table { stream } => table(stream),
            Self::Quarantine { stream } => quarantine(stream),
            Self::Tombstones { stream } => tombstones(stream),
            Self::System { table } => system(*table),
        }
    }

    /// What `path` stands for, or `None` if [`Key::path`] writes no such key.
    ///
    /// ```
    /// use landfall::raw::layout::Key;
    /// let path = "raw/shop/orders/_log/00000000000000000042.json".into();
    /// let Some(Key::Entry { stream, number }) = Key::parse(&path) else { unreachable!() };
    /// assert_eq!((stream.to_string().as_str(), number.get()), ("shop.orders", 42));
    /// assert_eq!(Key::parse(&"raw/shop/orders/_log/42.json".into()), None);
    /// ```
    pub fn parse(path: &Path) -> Option<Self> {
        let parts: Vec<&str> = path.as_ref().split('/').collect();
        let key = match parts[..] {
            ["raw", source, stream, "_log", "_last"] => Self::Hint {
                stream: stream_name(source, stream)?,
            },
            ["raw", source, stream, "_log", file] => Self::Entry {
                stream: stream_name(source, stream)?,
                number: BatchNumber::new(file.strip_suffix(".json")?.parse().ok()?).ok()?,
            },
            ["raw", source, stream, "files", "_condemned", sha256] if is_sha256(sha256) => Self::Condemned {
                stream: stream_name(source, stream)?,
                sha256: sha256.to_owned(),
            },
            ["raw", source, stream, "files", _, sha256] if is_sha256(sha256) => Self::File {
                stream: stream_name(source, stream)?,
                sha256: sha256.to_owned(),
            },
            ["raw", source, stream, "_log", "_expired", file] => {
                let (range, end) = file.split_once('.')?;
                let (first, last) = range.split_once('-')?;
                Self::Expired {
                    stream: stream_name(source, stream)?,
                    first: BatchNumber::new(first.parse().ok()?).ok()?,
                    last: BatchNumber::new(last.parse().ok()?).ok()?,
                    done: end == "done",
                }
            }
            ["raw", source, stream, date, hour, file] => {
                let (batch_id, index) = file.strip_suffix(".jsonl.zst")?.rsplit_once('-')?;
                let date: NaiveDate = date.strip_prefix("dt=")?.parse().ok()?;
                let hour = date.and_hms_opt(hour.strip_prefix("hr=")?.parse().ok()?, 0, 0)?;
                Self::Object {
                    stream: stream_name(source, stream)?,
                    hour: hour.and_utc(),
                    batch_id: batch_id.parse().ok()?,
                    index: index.parse().ok()?,
                }
            }
            ["tables", source, stream] => Self::Table {
                stream: stream_name(source, stream)?,
            },
            ["tombstones", source, stream] => Self::Tombstones {
                stream: stream_name(source, stream)?,
            },
            ["quarantine", source, stream] => Self::Quarantine {
                stream: stream_name(source, stream)?,
            },
            ["system", name] => Self::System {
                table: SystemTable::ALL
                    .into_iter()
                    .find(|table| table.as_str() == name)?,
            },
            _ => return None,
        };
        // One key, one spelling: "+42.json" or "hr=1" parse as numbers but were never written by us.
        (key.path() == *path).then_some(key)
    }
}

/// The folder of everything landed for `stream`.
pub fn raw(stream: &StreamName) -> Path {
    under("raw", stream)
}

/// The folder of the log entries of `stream`.
pub fn log(stream: &StreamName) -> Path {
    raw(stream).join("_log")
}

/// The log entry of batch `number`.
pub fn entry(stream: &StreamName, number: BatchNumber) -> Path {
    raw(stream)
        .join("_log")
        .join(format!("{:020}.json", number.get()))
}

/// The best-effort pointer to the newest log entry.
pub fn hint(stream: &StreamName) -> Path {
    raw(stream).join("_log").join("_last")
}

/// The folder of the words that say which batches have expired; see [`expire`](crate::raw::expire).
pub fn expired(stream: &StreamName) -> Path {
    log(stream).join("_expired")
}

/// Objects that forbid, while one of them is there, that raw of `stream` expires: of the lake, the source, the stream.
pub fn holds(stream: &StreamName) -> [Path; 3] {
    let lake = Path::from("raw");
    let source = lake.clone().join(stream.source.as_str());
    [lake, source, raw(stream)].map(|folder| folder.join("_hold"))
}

/// The object number `index` of a batch, for pages fetched in the hour of `fetched_at`.
pub fn object(stream: &StreamName, fetched_at: Timestamp, batch_id: BatchId, index: u32) -> Path {
    raw(stream)
        .join(format!("dt={}", fetched_at.format("%Y-%m-%d")))
        .join(format!("hr={:02}", fetched_at.hour()))
        .join(format!("{batch_id}-{index:04}.jsonl.zst"))
}

/// The place of a file by its content; `sha256` in lowercase hex.
pub fn file(stream: &StreamName, sha256: &str) -> Path {
    // Stores and people alike are slow with a folder of a million files.
    let begins = sha256.get(..2).unwrap_or(sha256);
    files(stream).join(begins).join(sha256)
}

/// The folder of all files of `stream`.
pub fn files(stream: &StreamName) -> Path {
    raw(stream).join("files")
}

/// The word that a file goes soon; see [`orphans`](crate::raw::orphans).
pub fn condemned(stream: &StreamName, sha256: &str) -> Path {
    files(stream).join("_condemned").join(sha256)
}

fn is_sha256(text: &str) -> bool {
    let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.len() == 64 && text.bytes().all(digit)
}

/// The hour that `at` belongs to; pages of one object share it.
pub fn hour(at: Timestamp) -> Timestamp {
    let seconds = at.timestamp();
    Timestamp::from_timestamp(seconds - seconds.rem_euclid(3600), 0).unwrap_or(at)
}

/// The root of the main table of `stream`.
pub fn table(stream: &StreamName) -> Path {
    under("tables", stream)
}

/// The root of the child table `name` of `stream`.
pub fn child(stream: &StreamName, name: &str) -> Path {
    Path::from("tables")
        .join(stream.source.as_str())
        .join(format!("{}__{name}", stream.stream))
}

/// The root of the quarantine table of `stream`.
pub fn quarantine(stream: &StreamName) -> Path {
    under("quarantine", stream)
}

/// The root of the table of deletions whose rows are gone.
pub fn tombstones(stream: &StreamName) -> Path {
    under("tombstones", stream)
}

/// The folder of everything of `stream` that is made beside its live tables.
pub fn staged(stream: &StreamName) -> Path {
    under("staging", stream)
}

/// The folder of tables of `stream` that are made beside the live ones; `id` is one path segment.
pub fn staging(stream: &StreamName, id: &str) -> Path {
    under("staging", stream).join(id)
}

/// The root of a table about the lake itself.
pub fn system(table: SystemTable) -> Path {
    Path::from("system").join(table.as_str())
}

/// A key that only the start-up self test of a store uses. Not a table's name, so nothing can collide with it.
pub fn probe(id: BatchId) -> Path {
    probes().join(id.to_string())
}

/// The folder of what a start-up self test leaves behind if it is stopped.
pub fn probes() -> Path {
    Path::from("system").join("_probe")
}

fn under(zone: &'static str, stream: &StreamName) -> Path {
    Path::from(zone)
        .join(stream.source.as_str())
        .join(stream.stream.as_str())
}

fn stream_name(source: &str, stream: &str) -> Option<StreamName> {
    Some(StreamName {
        source: Name::new(source).ok()?,
        stream: Name::new(stream).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy as _, any, prop_assert_eq, prop_oneof, proptest};

    use super::*;

    fn keys() -> impl proptest::strategy::Strategy<Value = Key> {
        let name = || "[a-z0-9][a-z0-9_-]{0,62}".prop_map(|text| Name::new(&text).unwrap());
        let stream = move || (name(), name()).prop_map(|(source, stream)| StreamName { source, stream });
        prop_oneof![
            (stream(), 0..=i64::MAX).prop_map(|(stream, number)| Key::Entry {
                stream,
                number: BatchNumber::new(number).unwrap()
            }),
            stream().prop_map(|stream| Key::Hint { stream }),
            (stream(), 0..200_000_000_000_i64, any::<u32>()).prop_map(|(stream, seconds, index)| {
                let at = Timestamp::from_timestamp(seconds, 0).unwrap();
                let hour = hour(at);
                Key::Object {
                    stream,
                    hour,
                    batch_id: BatchId::new(at),
                    index,
                }
            }),
            (stream(), "[0-9a-f]{64}").prop_map(|(stream, sha256)| Key::File { stream, sha256 }),
            (stream(), "[0-9a-f]{64}").prop_map(|(stream, sha256)| Key::Condemned { stream, sha256 }),
            (stream(), 0..=i64::MAX, 0..=i64::MAX, any::<bool>()).prop_map(|(stream, first, last, done)| {
                let number = |number| BatchNumber::new(number).unwrap();
                Key::Expired {
                    stream,
                    first: number(first),
                    last: number(last),
                    done,
                }
            }),
            stream().prop_map(|stream| Key::Table { stream }),
            stream().prop_map(|stream| Key::Quarantine { stream }),
            stream().prop_map(|stream| Key::Tombstones { stream }),
            proptest::sample::select(SystemTable::ALL.to_vec()).prop_map(|table| Key::System { table }),
        ]
    }

    proptest! {
        #[test]
        fn r002_every_key_reads_back_as_what_it_was(key in keys()) {
            prop_assert_eq!(Key::parse(&key.path()), Some(key));
        }

        #[test]
        fn any_text_is_a_key_in_one_spelling_or_none(text in "(raw|tables|system)/[a-z]/[a-z]/(_log|dt=2026-11-22)/(hr=0?1/)?[-+0-9a-z_.]{0,30}") {
            let path = Path::from(text);
            if let Some(key) = Key::parse(&path) {
                prop_assert_eq!(key.path(), path);
            }
        }
    }

    #[test]
    fn r002_objects_are_kept_by_stream_and_hour() {
        let stream = StreamName::parse("shop.orders").unwrap();
        let at = Timestamp::from_timestamp(1_795_309_506, 0).unwrap();
        let id: BatchId = "019ab3c4-0000-7000-8000-000000000001".parse().unwrap();
        assert_eq!(
            object(&stream, at, id, 3).as_ref(),
            "raw/shop/orders/dt=2026-11-22/hr=01/019ab3c4-0000-7000-8000-000000000001-0003.jsonl.zst"
        );
    }

    #[test]
    fn f150_odd_keys_are_nobodys() {
        for text in [
            "raw/shop/orders/_log/+0000000000000000042.json",
            "raw/shop/orders/_log/99999999999999999999.json",
            "raw/SHOP/orders/_log/_last",
            "raw/shop/orders/dt=2026-11-22/hr=1/019ab3c4-0000-7000-8000-000000000001-0003.jsonl.zst",
            "raw/shop/orders/dt=2026-11-22/hr=01/019AB3C4-0000-7000-8000-000000000001-0003.jsonl.zst",
            "raw/shop/%2e%2e/_log/_last",
            "tables/shop",
            "system/_probe/x",
        ] {
            assert_eq!(Key::parse(&Path::from(text)), None, "{text}");
        }
    }
}
