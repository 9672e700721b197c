//! What is counted, in the text format of Prometheus (version 0.0.4). No series is named by anything a client sends.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::http::StatusCode;
use chrono::TimeDelta;

use crate::{config::StreamName, receive::producer::audit::AuditEvent, serve::app::App};

/// The media type of the text.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of what durations are sorted into, in microseconds.
const BOUNDS_US: [u64; 12] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000, 30_000_000,
];

/// Everything that is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    streams: HashMap<StreamName, OfStream>,
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    answered: Mutex<BTreeMap<&'static str, Durations>>,
    denied: Mutex<BTreeMap<[String; 4], u64>>,
    refused: Mutex<BTreeMap<&'static str, u64>>,
    unusual: Mutex<BTreeMap<&'static str, u64>>,
    kept: Mutex<Durations>,
    landed: Mutex<Durations>,
}

#[derive(Debug, Default)]
struct OfStream {
    deliveries: AtomicU64,
    bytes: AtomicU64,
    accepted: AtomicU64,
    rejected: AtomicU64,
    tagged: AtomicU64,
    repeated: AtomicU64,
    acknowledged: Mutex<Durations>,
}

#[derive(Clone, Debug, Default)]
struct Durations {
    counts: [u64; BOUNDS_US.len()],
    count: u64,
    total: Duration,
}

impl Metrics {
    /// Nothing was counted yet of `streams`.
    pub(crate) fn new(streams: impl Iterator<Item = StreamName>) -> Self {
        Self {
            streams: streams.map(|stream| (stream, OfStream::default())).collect(),
            requests: Mutex::default(),
            answered: Mutex::default(),
            denied: Mutex::default(),
            refused: Mutex::default(),
            unusual: Mutex::default(),
            kept: Mutex::default(),
            landed: Mutex::default(),
        }
    }

    /// A request to `route` was answered.
    pub(crate) fn answered(&self, route: &'static str, status: StatusCode, elapsed: Duration) {
        *lock(&self.requests).entry((route, status.as_u16())).or_default() += 1;
        lock(&self.answered).entry(route).or_default().add(elapsed);
    }

    /// Somebody was turned away.
    pub(crate) fn denied(&self, event: &AuditEvent) {
        let labels = event.labels().map(|(_, value)| value.to_owned());
        *lock(&self.denied).entry(labels).or_default() += 1;
    }

    /// A request was refused for `reason`, one of a closed list.
    pub(crate) fn refused(&self, reason: &'static str) {
        *lock(&self.refused).entry(reason).or_default() += 1;
    }

    /// Something of this class, one of a closed list, was not as before.
    pub(crate) fn unusual(&self, class: &'static str) {
        *lock(&self.unusual).entry(class).or_default() += 1;
    }

    /// Bodies came to stand in the lake, each so long after it was complete.
    pub(crate) fn landed(&self, ages: impl Iterator<Item = Duration>) {
        let mut landed = lock(&self.landed);
        ages.for_each(|age| landed.add(age));
    }

    /// A body of `stream` was made durable.
    pub(crate) fn kept(&self, stream: &StreamName, bytes: u64, elapsed: Duration) {
        if let Some(of) = self.streams.get(stream) {
            of.deliveries.fetch_add(1, Ordering::Relaxed);
            of.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        lock(&self.kept).add(elapsed);
    }

    /// A body of `stream` was durable so long after it was complete.
    pub(crate) fn acknowledged(&self, stream: &StreamName, elapsed: TimeDelta) {
        if let Some(of) = self.streams.get(stream) {
            // Somebody may have set the clock back.
            lock(&of.acknowledged).add(elapsed.to_std().unwrap_or_default());
        }
    }

    /// Records of `stream` were accepted and rejected.
    pub(crate) fn records(&self, stream: &StreamName, accepted: u64, rejected: u64) {
        if let Some(of) = self.streams.get(stream) {
            of.accepted.fetch_add(accepted, Ordering::Relaxed);
            of.rejected.fetch_add(rejected, Ordering::Relaxed);
        }
    }

    /// Records of `stream` were kept although they do not fit its contract.
    pub(crate) fn tagged(&self, stream: &StreamName, count: u64) {
        if let Some(of) = self.streams.get(stream) {
            of.tagged.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Records of `stream` that were rejected and tagged so far.
    pub(crate) fn judged(&self, stream: &StreamName) -> (u64, u64) {
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let of = self.streams.get(stream);
        of.map_or((0, 0), |of| (count(&of.rejected), count(&of.tagged)))
    }

    /// What was sent to `stream` had been kept before.
    pub(crate) fn repeated(&self, stream: &StreamName) {
        if let Some(of) = self.streams.get(stream) {
            of.repeated.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All of it, with how `app` stands.
    pub(crate) fn text(&self, app: &App) -> String {
        let mut text = String::with_capacity(8 << 10);
        self.write_requests(&mut text);
        self.write_streams(&mut text);
        write_gauges(&mut text, app);
        text
    }

    fn write_requests(&self, text: &mut String) {
        let counter = |text: &mut String, name: &str, help: &str| head(text, name, help, "counter");
        counter(text, "landfall_requests_total", "Requests by route and status.");
        for ((route, status), count) in &*lock(&self.requests) {
            let _ = writeln!(
                text,
                "landfall_requests_total{{route=\"{route}\",status=\"{status}\"}} {count}"
            );
        }
        let name = "landfall_request_seconds";
        head(
            text,
            name,
            "From the head of a request to that of its answer.",
            "histogram",
        );
        for (route, durations) in &*lock(&self.answered) {
            durations.write(text, name, &format!("route=\"{route}\""));
        }
        let name = "landfall_keep_seconds";
        head(text, name, "Until a body was durable.", "histogram");
        lock(&self.kept).write(text, name, "");
        let name = "landfall_land_seconds";
        let help = "From when a body was complete until it was in the lake.";
        head(text, name, help, "histogram");
        lock(&self.landed).write(text, name, "");
        counter(text, "landfall_denied_total", "Who was turned away, and why.");
        for ([outcome, class, via, producer], count) in &*lock(&self.denied) {
            let _ = writeln!(
                text,
                "landfall_denied_total{{outcome=\"{outcome}\",class=\"{class}\",via=\"{via}\",producer=\"{producer}\"}} {count}"
            );
        }
        counter(
            text,
            "landfall_refused_total",
            "What was refused for now, and why.",
        );
        for (reason, count) in &*lock(&self.refused) {
            let _ = writeln!(text, "landfall_refused_total{{reason=\"{reason}\"}} {count}");
        }
        counter(text, "landfall_unusual_total", "What was not as before.");
        for (class, count) in &*lock(&self.unusual) {
            let _ = writeln!(text, "landfall_unusual_total{{class=\"{class}\"}} {count}");
        }
    }

    fn write_streams(&self, text: &mut String) {
        let mut streams: Vec<_> = self.streams.iter().collect();
        streams.sort_by_key(|(stream, _)| stream.to_string());
        type Count = fn(&OfStream) -> &AtomicU64;
        let counts: [(&str, &str, Count); 6] = [
            (
                "landfall_deliveries_total",
                "Bodies that were made durable.",
                |of| &of.deliveries,
            ),
            ("landfall_delivered_bytes_total", "Bytes of them.", |of| &of.bytes),
            (
                "landfall_records_accepted_total",
                "Records that were accepted.",
                |of| &of.accepted,
            ),
            (
                "landfall_records_rejected_total",
                "Records that cannot be read, or that their contract rejects.",
                |of| &of.rejected,
            ),
            (
                "landfall_records_tagged_total",
                "Records that were accepted although they do not fit their contract.",
                |of| &of.tagged,
            ),
            (
                "landfall_repeats_total",
                "Requests whose body had been kept before.",
                |of| &of.repeated,
            ),
        ];
        for (name, help, count) in counts {
            head(text, name, help, "counter");
            for (stream, of) in &streams {
                let value = count(of).load(Ordering::Relaxed);
                let _ = writeln!(text, "{name}{{stream=\"{stream}\"}} {value}");
            }
        }
        let name = "landfall_acknowledge_seconds";
        let help = "From when a body was complete until it was durable, which its answer waits for.";
        head(text, name, help, "histogram");
        for (stream, of) in &streams {
            lock(&of.acknowledged).write(text, name, &format!("stream=\"{stream}\""));
        }
    }
}

impl Durations {
    fn add(&mut self, elapsed: Duration) {
        let microseconds = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        for (count, bound) in self.counts.iter_mut().zip(BOUNDS_US) {
            *count += u64::from(microseconds <= bound);
        }
        self.count += 1;
        self.total += elapsed;
    }

    fn write(&self, text: &mut String, name: &str, label: &str) {
        let comma = if label.is_empty() { "" } else { "," };
        for (count, bound) in self.counts.iter().zip(BOUNDS_US) {
            let seconds = bound as f64 / 1e6;
            let _ = writeln!(text, "{name}_bucket{{{label}{comma}le=\"{seconds}\"}} {count}");
        }
        let _ = writeln!(text, "{name}_bucket{{{label}{comma}le=\"+Inf\"}} {}", self.count);
        let labels = if label.is_empty() {
            String::new()
        } else {
            format!("{{{label}}}")
        };
        let _ = writeln!(text, "{name}_sum{labels} {}", self.total.as_secs_f64());
        let _ = writeln!(text, "{name}_count{labels} {}", self.count);
    }
}

fn write_gauges(text: &mut String, app: &App) {
    let level = app.acknowledger.level();
    let ledger = app.ledger.gauges();
    let age = level.age.unwrap_or_default().as_secs_f64();
    let lake = app.health.lake.age().map_or(-1.0, |age| age.as_secs_f64());
    let gauges = [
        (
            "landfall_spool_bytes",
            "Bytes that wait for the lake.",
            level.bytes as f64,
        ),
        (
            "landfall_spool_bytes_max",
            "The most there may be.",
            level.bytes_max as f64,
        ),
        (
            "landfall_spool_age_seconds",
            "How long the oldest of them waits.",
            age,
        ),
        (
            "landfall_spool_segments",
            "Segments that wait for the lake.",
            level.segments as f64,
        ),
        (
            "landfall_ledger_bytes",
            "Bytes of the ledger's entries.",
            ledger.bytes as f64,
        ),
        (
            "landfall_ledger_bytes_max",
            "The most there may be.",
            ledger.bytes_max as f64,
        ),
        (
            "landfall_ledger_in_flight",
            "Keys and event ids in memory.",
            ledger.in_flight as f64,
        ),
        (
            "landfall_body_bytes_free",
            "Bytes left for bodies in memory.",
            app.budget.bytes_free() as f64,
        ),
        (
            "landfall_audit_lost",
            "Lines of the audit log that were not written because too many waited.",
            app.audit.lost() as f64,
        ),
        (
            "landfall_lake_seen_seconds",
            "Since the lake last answered; -1 before it did.",
            lake,
        ),
    ];
    for (name, help, value) in gauges {
        head(text, name, help, "gauge");
        let _ = writeln!(text, "{name} {value}");
    }
}

fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn lock<T>(counts: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}
