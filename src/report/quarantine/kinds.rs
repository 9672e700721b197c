//! The kinds of trouble in the quarantine of one stream, in the order in which they changed: for whoever asks again and
//! again what is new.

use std::collections::HashMap;

use datafusion::{dataframe::DataFrame, error::DataFusionError, prelude::col, scalar::ScalarValue};
use serde_json::{Map, Value};

use crate::{
    clock::Timestamp,
    config::{StreamName, parse_timestamp},
    error::{Error, ErrorKind, Result},
    query::{Session, sql_error},
    report::{rows, texts},
};

const KINDS: &str = include_str!("../../../sql/reports/quarantine_kinds.sql");
const SAMPLES: &str = include_str!("../../../sql/reports/quarantine_samples.sql");

/// Kinds that are looked at at once.
pub const KINDS_MAX: usize = 20_000;

/// Records that were set aside for one reason at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The reason's class.
    pub class: String,
    /// Where in the record, list positions left out; empty for the record itself.
    pub place: String,
    /// How many records.
    pub records: u64,
    /// Bytes of them together.
    pub bytes: u64,
    /// What the contract said, of the sample.
    pub expected: String,
    /// What was there, of the sample.
    pub found: String,
    /// When the load began that set the first of them aside.
    pub first_seen: Timestamp,
    /// When the load began that set the last of them aside.
    pub last_seen: Timestamp,
    /// The raw batch of the first.
    pub batch_first: i64,
    /// The raw batch of the last.
    pub batch_last: i64,
    /// The sample's place in raw, `batch/page/record`.
    pub sample: String,
    /// The sample's text, if it was asked for, as far as it is kept.
    pub record: Option<String>,
}

/// The kinds of trouble of `stream` that were seen at `since` or later, the last seen at the end; nothing is masked, and no
/// record is read. Should there be more than [`KINDS_MAX`], those that were seen last are missing.
///
/// # Errors
/// Those of the query; [`ErrorKind::Limit`] if more than [`KINDS_MAX`] were seen last at one moment.
pub async fn kinds(session: &Session, stream: &StreamName, since: Option<Timestamp>) -> Result<Vec<Kind>> {
    let frame = grouped(session, stream, since).await?;
    let last_seen = frame
        .drop_columns(&["record"])
        .and_then(|frame| frame.sort_by(vec![col("last_seen")]))
        .and_then(|frame| frame.limit(0, Some(KINDS_MAX + 1)));
    let rows = collected(last_seen).await?;
    whole(rows.iter().map(Kind::of).collect(), KINDS_MAX)
}

/// The kinds of trouble of `stream` that were seen at `since` or later, in any order.
pub(super) async fn grouped(
    session: &Session,
    stream: &StreamName,
    since: Option<Timestamp>,
) -> Result<DataFrame> {
    let since = since.unwrap_or(Timestamp::UNIX_EPOCH).timestamp_micros();
    let since = ScalarValue::TimestampMicrosecond(Some(since), Some("UTC".into()));
    session.of_quarantine(stream, KINDS, vec![("since", since)]).await
}

/// The rows of `frame`, if it could be planned.
pub(super) async fn collected(frame: Result<DataFrame, DataFusionError>) -> Result<Vec<Map<String, Value>>> {
    let rows = match frame {
        Ok(frame) => frame.collect().await,
        Err(error) => Err(error),
    };
    rows::objects(&rows.map_err(|source| sql_error("report quarantine", source))?)
}

/// Fills in the sample of each of `kinds`.
///
/// # Errors
/// Those of the query.
pub async fn read_samples(session: &Session, stream: &StreamName, kinds: &mut [Kind]) -> Result<()> {
    let params = vec![("samples", texts(kinds.iter().map(|kind| kind.sample.as_str())))];
    let rows = collected(Ok(session.of_quarantine(stream, SAMPLES, params).await?)).await?;
    let mut records: HashMap<String, String> = rows
        .iter()
        .filter_map(|row| Some((text(row, "sample")?, text(row, "record")?)))
        .collect();
    for kind in kinds {
        kind.record = records.remove(&kind.sample);
    }
    Ok(())
}

/// `kinds` without what is beyond `kinds_max`, and without a moment of which only some would be left: whoever goes on behind
/// it would miss the others.
fn whole(mut kinds: Vec<Kind>, kinds_max: usize) -> Result<Vec<Kind>> {
    if kinds.len() <= kinds_max {
        return Ok(kinds);
    }
    let cut = kinds.last().map(|kind| kind.last_seen);
    kinds.retain(|kind| Some(kind.last_seen) < cut);
    if kinds.is_empty() {
        return Err(Error::new(ErrorKind::Limit, "list kinds of trouble").with("kinds_max", kinds_max));
    }
    Ok(kinds)
}

impl Kind {
    fn of(row: &Map<String, Value>) -> Self {
        let moment = |name| {
            let at = text(row, name).and_then(|text| parse_timestamp(&text).ok());
            at.unwrap_or(Timestamp::UNIX_EPOCH)
        };
        let count = |name: &str| row.get(name).and_then(Value::as_u64).unwrap_or_default();
        let batch = |name: &str| row.get(name).and_then(Value::as_i64).unwrap_or_default();
        Self {
            class: text(row, "class").unwrap_or_default(),
            place: text(row, "place").unwrap_or_default(),
            records: count("records"),
            bytes: count("record_bytes"),
            expected: text(row, "expected").unwrap_or_default(),
            found: text(row, "found").unwrap_or_default(),
            first_seen: moment("first_seen"),
            last_seen: moment("last_seen"),
            batch_first: batch("batch_first"),
            batch_last: batch("batch_last"),
            sample: text(row, "sample").unwrap_or_default(),
            record: None,
        }
    }
}

fn text(row: &Map<String, Value>, name: &str) -> Option<String> {
    row.get(name).and_then(Value::as_str).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_listed_as_a_whole_or_not_at_all() {
        let kinds = |seconds: &[i64]| -> Vec<Kind> {
            let kind = |second: &i64| Kind {
                last_seen: Timestamp::from_timestamp(*second, 0).unwrap(),
                ..Kind::of(&Map::new())
            };
            seconds.iter().map(kind).collect()
        };
        assert_eq!(whole(kinds(&[1, 2, 2]), 3).unwrap().len(), 3);
        assert_eq!(whole(kinds(&[1, 2, 2]), 2).unwrap(), kinds(&[1]));
        assert_eq!(whole(kinds(&[1, 2, 3]), 2).unwrap(), kinds(&[1, 2]));
        assert_eq!(whole(kinds(&[2, 2, 2]), 2).unwrap_err().kind(), ErrorKind::Limit);
    }
}
