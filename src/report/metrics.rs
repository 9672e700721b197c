//! What a monitor wants to know, as OpenMetrics text: <https://prometheus.io/docs/specs/om/open_metrics_spec/>.

use std::{fmt::Write as _, time::Duration};

use crate::{clock::Timestamp, report::status::StreamStatus};

/// The state of the circuit to one host of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circuit {
    /// The source.
    pub source: String,
    /// Scheme, host and port.
    pub host: String,
    /// `closed`, `open` or `half_open`.
    pub state: &'static str,
}

/// Everything known about `streams` and `circuits`, ending with `# EOF`.
///
/// | metric | |
/// |---|---|
/// | `landfall_stream_last_success_timestamp_seconds` | when a pass over the stream last ended well; missing before the first |
/// | `landfall_stream_fresh` | 1 while that is not longer ago than `fresh_within`, else 0; missing without that setting |
/// | `landfall_stream_freshness_seconds` | age of what the table has: of its newest batch, or of the last pass that found nothing newer; missing before the first load |
/// | `landfall_stream_latency_seconds` | how long the oldest batch waits that is not in the table yet, else 0 |
/// | `landfall_stream_freshness_promised_seconds`, `landfall_stream_latency_promised_seconds` | what the contract promises of them (`slaProperties`); missing if it does not |
/// | `landfall_stream_promises_kept` | 1 while all of that holds, else 0; missing without a promise |
/// | `landfall_stream_batches_landed`, `landfall_stream_batches_behind` | raw batches, and those that are not in the table yet |
/// | `landfall_stream_records` | records of all loads, by `outcome`: merged, superseded, quarantined; what is released leaves the last |
/// | `landfall_stream_readable` | 0 if the stream's raw log or table cannot be read |
/// | `landfall_circuit_state` | 1 for the state that the circuit to a host is in, 0 for the others |
/// | `landfall_written_timestamp_seconds` | when this text was made: an old one means that nobody runs |
///
/// ```
/// use landfall::{clock::Timestamp, report::metrics::{Circuit, text}};
/// let circuit = Circuit { source: "shop".into(), host: "https://api.shop.example".into(), state: "open" };
/// let text = text(&[], &[circuit], Timestamp::UNIX_EPOCH);
/// assert!(text.contains(r#"landfall_circuit_state{source="shop",host="https://api.shop.example",state="open"} 1"#));
/// assert!(text.ends_with("# EOF\n"));
/// ```
pub fn text(streams: &[StreamStatus], circuits: &[Circuit], now: Timestamp) -> String {
    let mut families = Text::default();
    let by_stream = |value: &dyn Fn(&StreamStatus) -> Option<i64>| -> Vec<(String, i64)> {
        let label = |stream: &StreamStatus| labels(&[("stream", &stream.stream.to_string())]);
        streams
            .iter()
            .filter_map(|stream| Some((label(stream), value(stream)?)))
            .collect()
    };
    families.gauge(
        "landfall_stream_last_success_timestamp_seconds",
        "When a pass over the stream last ended well.",
        by_stream(&|stream| Some(stream.landed.as_ref()?.last_success_at?.timestamp())),
    );
    families.gauge(
        "landfall_stream_fresh",
        "Whether the last success is recent enough.",
        by_stream(&|stream| stream.fresh.map(i64::from)),
    );
    let whole = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    families.gauge(
        "landfall_stream_freshness_seconds",
        "Age of what the table has.",
        by_stream(&|stream| stream.times.freshness.map(whole)),
    );
    families.gauge(
        "landfall_stream_freshness_promised_seconds",
        "What the contract promises of it.",
        by_stream(&|stream| stream.times.freshness_max.map(whole)),
    );
    families.gauge(
        "landfall_stream_latency_seconds",
        "How long what is landed waits for the table.",
        by_stream(&|stream| {
            stream.landed.as_ref()?;
            Some(whole(stream.times.latency))
        }),
    );
    families.gauge(
        "landfall_stream_latency_promised_seconds",
        "What the contract promises of it.",
        by_stream(&|stream| stream.times.latency_max.map(whole)),
    );
    families.gauge(
        "landfall_stream_promises_kept",
        "Whether all holds that the contract promises about time.",
        by_stream(&|stream| stream.times.is_kept().map(i64::from)),
    );
    families.gauge(
        "landfall_stream_batches_landed",
        "Raw batches of the stream.",
        by_stream(&|stream| Some(stream.landed.as_ref().map_or(0, |landed| landed.batch + 1))),
    );
    families.gauge(
        "landfall_stream_batches_behind",
        "Raw batches that are not in the table yet.",
        by_stream(&|stream| stream.error.is_none().then(|| stream.lag())),
    );
    families.gauge(
        "landfall_stream_readable",
        "Whether the raw log and the table of the stream can be read.",
        by_stream(&|stream| Some(i64::from(stream.error.is_none()))),
    );
    let mut records = Vec::new();
    for stream in streams {
        let Some(loads) = &stream.loads else { continue };
        let outcomes = [
            ("merged", loads.merged),
            ("superseded", loads.superseded),
            ("quarantined", loads.quarantined),
        ];
        for (outcome, count) in outcomes {
            let labels = labels(&[("stream", &loads.stream), ("outcome", outcome)]);
            records.push((labels, i64::try_from(count).unwrap_or(i64::MAX)));
        }
    }
    families.gauge("landfall_stream_records", "Records of all loads.", records);
    let mut states = Vec::new();
    for circuit in circuits {
        for state in ["closed", "half_open", "open"] {
            let labels = labels(&[
                ("source", &circuit.source),
                ("host", &circuit.host),
                ("state", state),
            ]);
            states.push((labels, i64::from(circuit.state == state)));
        }
    }
    families.gauge(
        "landfall_circuit_state",
        "The state of the circuit to a host.",
        states,
    );
    families.gauge(
        "landfall_written_timestamp_seconds",
        "When this was written.",
        vec![(String::new(), now.timestamp())],
    );
    families.0.push_str("# EOF\n");
    families.0
}

/// Metric families, one after the other.
#[derive(Default)]
struct Text(String);

impl Text {
    fn gauge(&mut self, name: &str, help: &str, samples: Vec<(String, i64)>) {
        if samples.is_empty() {
            return;
        }
        // Writing to a text cannot fail.
        let _ = writeln!(self.0, "# TYPE {name} gauge\n# HELP {name} {help}");
        for (labels, value) in samples {
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }
}

fn labels(pairs: &[(&str, &str)]) -> String {
    let escaped = |value: &str| {
        value
            .replace('\\', r"\\")
            .replace('"', r#"\""#)
            .replace('\n', r"\n")
    };
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
        .collect();
    format!("{{{}}}", pairs.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::StreamName,
        report::status::{Landed, Times},
    };

    #[test]
    fn a_stream_that_was_never_extracted_has_no_last_success() {
        let stream = StreamStatus {
            stream: StreamName::parse("shop.orders").unwrap(),
            landed: None,
            loaded: None,
            loads: None,
            events: None,
            gap: None,
            fresh: Some(false),
            times: Times::default(),
            error: None,
        };
        insta::assert_snapshot!(text(&[stream], &[], Timestamp::UNIX_EPOCH), @r#"
        # TYPE landfall_stream_fresh gauge
        # HELP landfall_stream_fresh Whether the last success is recent enough.
        landfall_stream_fresh{stream="shop.orders"} 0
        # TYPE landfall_stream_batches_landed gauge
        # HELP landfall_stream_batches_landed Raw batches of the stream.
        landfall_stream_batches_landed{stream="shop.orders"} 0
        # TYPE landfall_stream_batches_behind gauge
        # HELP landfall_stream_batches_behind Raw batches that are not in the table yet.
        landfall_stream_batches_behind{stream="shop.orders"} 0
        # TYPE landfall_stream_readable gauge
        # HELP landfall_stream_readable Whether the raw log and the table of the stream can be read.
        landfall_stream_readable{stream="shop.orders"} 1
        # TYPE landfall_written_timestamp_seconds gauge
        # HELP landfall_written_timestamp_seconds When this was written.
        landfall_written_timestamp_seconds 0
        # EOF
        "#);
    }

    #[test]
    fn a_last_success_is_told_in_seconds() {
        let at = Timestamp::from_timestamp(1_795_309_506, 0).unwrap();
        let landed = Landed {
            batch: 4,
            at,
            cursor: None,
            pages_open: None,
            last_success_at: Some(at),
        };
        let stream = StreamStatus {
            stream: StreamName::parse("shop.orders").unwrap(),
            landed: Some(landed),
            loaded: Some(2),
            loads: None,
            events: None,
            gap: None,
            fresh: None,
            times: Times {
                freshness: Some(Duration::from_millis(90_500)),
                freshness_max: Some(Duration::from_secs(60)),
                latency: Duration::ZERO,
                latency_max: None,
            },
            error: None,
        };
        let text = text(&[stream], &[], at);
        for line in [
            r#"landfall_stream_last_success_timestamp_seconds{stream="shop.orders"} 1795309506"#,
            r#"landfall_stream_batches_behind{stream="shop.orders"} 2"#,
            r#"landfall_stream_freshness_seconds{stream="shop.orders"} 90"#,
            r#"landfall_stream_freshness_promised_seconds{stream="shop.orders"} 60"#,
            r#"landfall_stream_latency_seconds{stream="shop.orders"} 0"#,
            r#"landfall_stream_promises_kept{stream="shop.orders"} 0"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{text}");
        }
        assert!(!text.contains("latency_promised"), "{text}");
    }
}
