use std::path::Path;

use super::parse;
use crate::config::{Project, explain::explain};

const STREAMS: &str = "
lake: ./lake
sources:
  shop:
    base_url: https://a.example
    streams:
      order_events:
        webhook: { scheme: github, secrets: { main: '${env:HOOK_SECRET}' } }
        records: $
        table: { keys: [id] }
      orders:
        hydrate: { from: order_events, values: { id: $.order.id }, request: { path: '/orders/{{ slice.id }}' } }
        table: { keys: [id] }
";

fn read(text: &str) -> Result<Project, String> {
    let shown =
        |problems: &[crate::yaml::Problem]| problems.iter().map(|problem| format!("{problem}\n")).collect();
    match parse(text, Path::new("/srv/shop")) {
        Ok(loaded) => Ok(loaded.project),
        Err(problems) => Err(shown(&problems)),
    }
}

#[test]
fn a_stream_may_be_what_events_name_alone_or_also() {
    let project = read(STREAMS).unwrap();
    let stream = &project.sources[0].streams[1];
    assert!(stream.is_pulled() && !stream.is_polled());
    let explained = explain(&project);
    assert!(
        explained.contains("hydrate.request.path") && explained.contains("/orders/"),
        "{explained}"
    );
    let also = STREAMS.replace(
        "        hydrate:",
        "        request: { path: /orders }\n        hydrate:",
    );
    assert!(read(&also).unwrap().sources[0].streams[1].is_polled());
}

#[test]
fn what_makes_no_sense_beside_hydrate_is_refused() {
    let with = |from: &str, to: &str| {
        assert!(STREAMS.contains(from), "{from}");
        read(&STREAMS.replace(from, to)).err().unwrap_or_default()
    };
    let events = "from: order_events";
    for (from, to, problem) in [
        (
            "        hydrate:",
            "        paginate: { type: none }\n        hydrate:",
            "paginate: the stream has no request of its own",
        ),
        (events, "from: nothing", "\"nothing\" is no stream of the source"),
        (events, "from: orders", "the stream waits for itself"),
        ("{ id: $.order.id }", "{}", "at least one value is needed"),
        (
            "'/orders/{{ slice.id }}' } }\n        table: { keys: [id]",
            "'/orders/{{ slice.id }}' } }\n        table: { keys: [id], delete_absent: true",
            "events do not bring every row",
        ),
        (
            events,
            "backoff_start: 2h, backoff_max: 1h, from: order_events",
            "is longer than backoff_max",
        ),
        (
            "        hydrate:",
            "        gaps: { heartbeat: 1h }\n        hydrate:",
            "what is missing cannot be asked for",
        ),
        (
            "        records: $\n",
            "        records: $\n        gaps: { grace: 1h }\n",
            "needs sequence or heartbeat",
        ),
    ] {
        let found = with(from, to);
        assert!(found.contains(problem), "{to}\n{found}");
    }
}
