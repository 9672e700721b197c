//! How far every stream is.

use std::time::Duration;

use serde_json::Value;

use crate::{
    clock::Timestamp,
    config::{StreamName, read::values::show_duration},
    error::Result,
    query::{Session, sql_error},
    report::{ago, count, grid::Grid, moment, rows, seconds},
};

const LOADS: &str = include_str!("../../sql/reports/loads.sql");

/// How far one stream is.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamStatus {
    /// The stream.
    pub stream: StreamName,
    /// What is landed; `None` before the first extraction.
    pub landed: Option<Landed>,
    /// The newest raw batch in the table.
    pub loaded: Option<i64>,
    /// What its loads did; `None` before the first.
    pub loads: Option<Loads>,
    /// Whether the last success is not longer ago than `fresh_within`; `None` without that setting.
    pub fresh: Option<bool>,
    /// How old the table is, and how old it may be.
    pub times: Times,
    /// How far the records are fetched that events name; `None` for a stream without `hydrate`.
    pub events: Option<Events>,
    /// What was pushed and never came, as far as that can be told.
    pub gap: Option<String>,
    /// Why more is not known.
    pub error: Option<String>,
}

/// The end of a stream's raw log.
#[derive(Clone, Debug, PartialEq)]
pub struct Landed {
    /// Number of the newest raw batch.
    pub batch: i64,
    /// When it was committed.
    pub at: Timestamp,
    /// The greatest cursor value of all complete windows.
    pub cursor: Option<String>,
    /// Pages of a window that is still open.
    pub pages_open: Option<u64>,
    /// When a pass over the stream last ended well.
    pub last_success_at: Option<Timestamp>,
}

/// How old the table is and how long what is landed waits for it, beside what the contract of the stream promises.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Since the newest batch of the table was landed, or since the last pass that found nothing newer; none before the
    /// first load.
    pub freshness: Option<Duration>,
    /// What is promised of that.
    pub freshness_max: Option<Duration>,
    /// How long the oldest batch that is not in the table waits for it.
    pub latency: Duration,
    /// What is promised of that.
    pub latency_max: Option<Duration>,
}

impl Times {
    /// Whether everything holds that is promised; none if nothing is.
    pub fn is_kept(&self) -> Option<bool> {
        let promised = self.freshness_max.is_some() || self.latency_max.is_some();
        promised.then(|| self.promises().iter().all(|promise| promise.is_kept()))
    }

    /// What is promised.
    fn promises(&self) -> Vec<Promise> {
        let promise = |name, is, within: Option<Duration>| within.map(|within| Promise { name, is, within });
        let all = [
            // Before the first load nothing is old; that it is not there yet is latency.
            promise(
                "freshness",
                self.freshness.unwrap_or_default(),
                self.freshness_max,
            ),
            promise("latency", self.latency, self.latency_max),
        ];
        all.into_iter().flatten().collect()
    }
}

/// Something that shall not take longer than it says.
struct Promise {
    name: &'static str,
    is: Duration,
    within: Duration,
}

impl Promise {
    fn is_kept(&self) -> bool {
        self.is <= self.within
    }

    fn words(&self) -> String {
        let verdict = if self.is_kept() { "kept" } else { "broken" };
        let whole = |time: Duration| Duration::from_secs(time.as_secs());
        format!(
            "{} {} of {} promised: {verdict}",
            self.name,
            show_duration(whole(self.is)),
            show_duration(self.within)
        )
    }
}

/// Events of another stream that name records of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Events {
    /// Raw batches of them that are not read yet.
    pub batches_behind: i64,
    /// Those that could not be answered and are tried again.
    pub waiting: usize,
    /// Those that were given up.
    pub dead_letters: usize,
}

/// Sums over all loads of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Loads {
    /// The stream, `source.stream`.
    pub stream: String,
    /// Loads.
    pub loads: u64,
    /// Records read.
    pub read: u64,
    /// Records that went into the table.
    pub merged: u64,
    /// Records that lost against a newer version.
    pub superseded: u64,
    /// Records set aside.
    pub quarantined: u64,
    /// When the newest ended, RFC 3339.
    pub last_at: String,
    /// The contract it judged by.
    pub contract_version: String,
}

impl StreamStatus {
    /// Raw batches that are not in the table yet.
    pub fn lag(&self) -> i64 {
        let landed = self.landed.as_ref().map_or(-1, |landed| landed.batch);
        landed - self.loaded.unwrap_or(-1)
    }
}

/// What the loads of every stream did.
///
/// # Errors
/// Those of the query.
pub async fn loads(session: &Session) -> Result<Vec<Loads>> {
    let frame = session.with_params(LOADS, Vec::new()).await?;
    let batches = frame
        .collect()
        .await
        .map_err(|source| sql_error("sum up loads", source))?;
    let rows = rows::objects(&batches)?;
    let loads = rows.iter().map(|row| {
        let text = |name: &str| {
            row.get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let number = |name: &str| row.get(name).and_then(Value::as_u64).unwrap_or_default();
        Loads {
            stream: text("stream"),
            loads: number("loads"),
            read: number("records_read"),
            merged: number("merged"),
            superseded: number("superseded"),
            quarantined: number("quarantined"),
            last_at: text("last_finished_at"),
            contract_version: text("contract_version"),
        }
    });
    Ok(loads.collect())
}

/// One row per stream.
pub fn grid(streams: &[StreamStatus]) -> Grid {
    let mut grid = Grid::new(&[
        "stream",
        "landed",
        "landed_at",
        "cursor",
        "pages_open",
        "loaded",
        "lag",
        "loaded_at",
        "loads",
        "read",
        "merged",
        "superseded",
        "quarantined",
        "contract",
        "fresh_s",
        "waiting_s",
        "promises_kept",
        "events_waiting",
        "dead_letters",
        "error",
    ]);
    for status in streams {
        let (landed, loads) = (status.landed.as_ref(), status.loads.as_ref());
        grid.rows.push(vec![
            status.stream.to_string().into(),
            landed.map(|landed| landed.batch).into(),
            landed.map(|landed| moment(landed.at)).into(),
            landed.and_then(|landed| landed.cursor.clone()).into(),
            landed.and_then(|landed| landed.pages_open).into(),
            status.loaded.into(),
            status.lag().into(),
            loads.map(|loads| loads.last_at.clone()).into(),
            loads.map(|loads| loads.loads).into(),
            loads.map(|loads| loads.read).into(),
            loads.map(|loads| loads.merged).into(),
            loads.map(|loads| loads.superseded).into(),
            loads.map(|loads| loads.quarantined).into(),
            loads.map(|loads| loads.contract_version.clone()).into(),
            status.times.freshness.map(|age| age.as_secs()).into(),
            landed.map(|_| status.times.latency.as_secs()).into(),
            status.times.is_kept().map(|kept| kept.to_string()).into(),
            status.events.map(|events| events.waiting as u64).into(),
            status.events.map(|events| events.dead_letters as u64).into(),
            status.error.clone().into(),
        ]);
    }
    grid
}

/// A paragraph per stream, for people.
pub fn text(streams: &[StreamStatus], now: Timestamp) -> String {
    let mut lines = Vec::new();
    for status in streams {
        lines.push(status.stream.to_string());
        match &status.landed {
            None => lines.push("  raw     nothing landed yet: run `landfall extract`".to_owned()),
            Some(landed) => {
                let ago = ago(now, landed.at);
                let cursor = landed
                    .cursor
                    .as_ref()
                    .map_or(String::new(), |cursor| format!(", up to {cursor}"));
                lines.push(format!("  raw     batch {}, landed {ago}{cursor}", landed.batch));
                if let Some(pages) = landed.pages_open {
                    lines.push(format!(
                        "          a window is open after {pages} pages: the next extract goes on there"
                    ));
                }
            }
        }
        match (status.loaded, status.lag()) {
            (None, 0) => {}
            (None, lag) => lines.push(format!(
                "  table   not loaded yet, {lag} behind: run `landfall transform`"
            )),
            (Some(batch), 0) => lines.push(format!("  table   batch {batch}, up to date")),
            (Some(batch), lag) => lines.push(format!(
                "  table   batch {batch}, {lag} behind: run `landfall transform`"
            )),
        }
        if let Some(loads) = &status.loads {
            lines.push(format!(
                "  loads   {}, last {}: {} read = {} merged + {} superseded + {} quarantined (contract {})",
                count(loads.loads),
                seconds(&loads.last_at),
                count(loads.read),
                count(loads.merged),
                count(loads.superseded),
                count(loads.quarantined),
                loads.contract_version
            ));
        }
        for promise in status.times.promises() {
            lines.push(format!("  sla     {}", promise.words()));
        }
        if let Some(events) = &status.events {
            lines.extend(events_lines(events));
        }
        if let Some(gap) = &status.gap {
            lines.push(format!("  gap     {gap}: `landfall run` asks for it"));
        }
        if let Some(error) = &status.error {
            lines.push(format!("  error   {error}"));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

fn events_lines(events: &Events) -> Vec<String> {
    let mut said = Vec::new();
    if events.batches_behind > 0 {
        said.push(format!(
            "{} raw {} not read yet",
            events.batches_behind,
            if events.batches_behind == 1 {
                "batch"
            } else {
                "batches"
            }
        ));
    }
    if events.waiting > 0 {
        said.push(format!("{} waiting for another attempt", events.waiting));
    }
    if events.dead_letters > 0 {
        said.push(format!("{} given up", events.dead_letters));
    }
    if said.is_empty() {
        return vec!["  events  every record they name is landed".to_owned()];
    }
    let mut lines = vec![format!("  events  {}", said.join(", "))];
    if events.dead_letters > 0 {
        lines.push(
            "          dead letters: see `landfall gaps`, then `landfall run` with --retry-dead-letters or --discard-dead-letters"
                .to_owned(),
        );
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statuses() -> Vec<StreamStatus> {
        let stream = |name: &str| StreamName::parse(name).unwrap();
        vec![
            StreamStatus {
                stream: stream("shop.orders"),
                landed: Some(Landed {
                    batch: 4,
                    at: Timestamp::UNIX_EPOCH,
                    cursor: Some("2026-01-02T00:00:00Z".to_owned()),
                    pages_open: Some(12),
                    last_success_at: None,
                }),
                loaded: Some(2),
                loads: Some(Loads {
                    stream: "shop.orders".to_owned(),
                    loads: 2,
                    read: 100,
                    merged: 90,
                    superseded: 7,
                    quarantined: 3,
                    last_at: "1970-01-01T00:00:09Z".to_owned(),
                    contract_version: "1.0.0".to_owned(),
                }),
                fresh: None,
                times: Times {
                    freshness: Some(Duration::from_millis(7_260_500)),
                    freshness_max: Some(Duration::from_secs(3_600)),
                    latency: Duration::from_secs(59),
                    latency_max: Some(Duration::from_secs(60)),
                },
                events: Some(Events {
                    batches_behind: 1,
                    waiting: 2,
                    dead_letters: 3,
                }),
                gap: Some("number 7 was never pushed".to_owned()),
                error: None,
            },
            StreamStatus {
                stream: stream("shop.customers"),
                landed: None,
                loaded: None,
                loads: None,
                fresh: None,
                times: Times::default(),
                events: None,
                gap: None,
                error: None,
            },
        ]
    }

    #[test]
    fn status_says_how_far_each_stream_is() {
        let now = Timestamp::UNIX_EPOCH + std::time::Duration::from_secs(7_260);
        insta::assert_snapshot!(text(&statuses(), now), @r"
        shop.orders
          raw     batch 4, landed 2 h ago, up to 2026-01-02T00:00:00Z
                  a window is open after 12 pages: the next extract goes on there
          table   batch 2, 2 behind: run `landfall transform`
          loads   2, last 1970-01-01T00:00:09Z: 100 read = 90 merged + 7 superseded + 3 quarantined (contract 1.0.0)
          sla     freshness 121m of 1h promised: broken
          sla     latency 59s of 1m promised: kept
          events  1 raw batch not read yet, 2 waiting for another attempt, 3 given up
                  dead letters: see `landfall gaps`, then `landfall run` with --retry-dead-letters or --discard-dead-letters
          gap     number 7 was never pushed: `landfall run` asks for it
        shop.customers
          raw     nothing landed yet: run `landfall extract`
        ");
    }

    #[test]
    fn r023_status_has_a_row_per_stream_for_programs() {
        let mut out = Vec::new();
        grid(&statuses())
            .write(crate::report::Format::Csv, &mut out)
            .unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r"
        stream,landed,landed_at,cursor,pages_open,loaded,lag,loaded_at,loads,read,merged,superseded,quarantined,contract,fresh_s,waiting_s,promises_kept,events_waiting,dead_letters,error
        shop.orders,4,1970-01-01T00:00:00Z,2026-01-02T00:00:00Z,12,2,2,1970-01-01T00:00:09Z,2,100,90,7,3,1.0.0,7260,59,false,2,3,
        shop.customers,,,,,,0,,,,,,,,,,,,,
        ");
    }
}
