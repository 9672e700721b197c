//! Extraction through the real program: slices, passes, backfills, feeds and what is said about them.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::{
    answers::{Answer, Answers},
    project::TestProject,
};

/// Orders, and the lines of each order; a line does not say whose it is.
const ORDERS_AND_LINES: &str = r#"
      lines:
        request: { path: "/orders/{{ slice.order_id }}/lines" }
        records: $.data[*]
        slices:
          by: { parent: orders, values: { order_id: $.id }, records: new }
          include: [order_id]
        table: { keys: [order_id, line] }
      orders:
        request: { path: /orders }
        records: $.data[*]
        incremental: { cursor: $.updated, param: since, format: integer }
        table: { keys: [id], sequence_by: [updated] }
"#;

/// Records with `updated`, of which `since` and `until` ask for a part.
const CHANGES: &str = r"
      items:
        request: { path: /items }
        records: $.data[*]
        incremental: { cursor: $.updated, param: since, format: integer, until: { param: until } }
        table: { keys: [id], sequence_by: [updated] }
";

fn orders(ids: &[i64]) -> Value {
    let orders: Vec<Value> = ids.iter().map(|id| json!({"id": id, "updated": id})).collect();
    json!({"data": orders})
}

#[test]
fn children_follow_their_parents_and_know_whose_they_are() {
    let last = Arc::new(Mutex::new(vec![1, 2]));
    let known = Arc::clone(&last);
    let api = Answers::start(move |asked| match asked.path.as_str() {
        "/orders" => orders(&known.lock().unwrap()).into(),
        _ => json!({"data": [{"line": 1, "sku": asked.path}, {"line": 2, "sku": "x"}]}).into(),
    });
    let project = TestProject::new(&api.base_url, ORDERS_AND_LINES);
    project.ok(&["run"]);
    let rows = project.sql("SELECT order_id, line, sku FROM shop.lines ORDER BY 1, 2");
    assert_eq!(rows.len(), 4);
    assert_eq!(
        rows[2],
        json!({"order_id": 2, "line": 1, "sku": "/orders/2/lines"})
    );

    // Only what is new of the parent is asked for; the parent itself is asked once a run.
    *last.lock().unwrap() = vec![2, 3];
    api.take();
    project.ok(&["run"]);
    let mut paths: Vec<String> = api.take().into_iter().map(|asked| asked.path).collect();
    // Slices run at once.
    paths.sort();
    assert_eq!(paths, ["/orders", "/orders/2/lines", "/orders/3/lines"]);
    assert_eq!(
        project.sql("SELECT count(*) n FROM shop.lines"),
        [json!({"n": 6})]
    );
    let explained = project
        .ok(&["explain", "shop.lines", "order_id=3", "line=2"])
        .stdout;
    assert!(explained.contains("/orders/3/lines"), "{explained}");
}

#[test]
fn one_failing_slice_is_said_and_holds_no_other() {
    let api = Answers::start(|asked| match asked.path.as_str() {
        "/orders" => orders(&[1, 2, 3]).into(),
        "/orders/2/lines" => Answer::status(403),
        _ => json!({"data": [{"line": 1}]}).into(),
    });
    let project = TestProject::new(&api.base_url, ORDERS_AND_LINES);
    let ran = project.run(&["run"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("failed: 1, of: 3"), "{}", ran.stderr);
    assert_eq!(
        project.sql("SELECT count(*) n FROM shop.lines"),
        [json!({"n": 2})]
    );
    let gaps = project.run(&["gaps"]);
    assert_eq!(gaps.code, Some(1));
    assert!(
        gaps.stdout.contains("slice_failed") && gaps.stdout.contains(r#"{"order_id":2}"#),
        "{}",
        gaps.stdout
    );
    // The next run asks for it again, though no parent is new.
    api.take();
    project.run(&["extract", "shop.lines"]);
    let paths: Vec<String> = api.take().into_iter().map(|asked| asked.path).collect();
    assert_eq!(paths, ["/orders/2/lines"]);
}

/// Serves what is in the range asked for.
fn ranged(records: Vec<(i64, i64)>) -> Answers {
    Answers::start(move |asked| {
        let bound = |name: &str, default: i64| asked.param(name).parse().unwrap_or(default);
        let range = bound("since", i64::MIN)..=bound("until", i64::MAX);
        let data: Vec<Value> = records
            .iter()
            .filter(|(_, updated)| range.contains(updated))
            .map(|(id, updated)| json!({"id": id, "updated": updated}))
            .collect();
        json!({"data": data}).into()
    })
}

#[test]
fn r014_a_backfill_of_a_closed_range_moves_no_watermark() {
    let api = ranged((0..20).map(|id| (id, id * 10)).collect());
    let project = TestProject::new(&api.base_url, CHANGES);
    project.ok(&["run"]);
    let watermark = || project.sql("SELECT max(updated) n FROM shop.items");
    assert_eq!(watermark(), [json!({"n": 190})]);
    api.take();
    project.ok(&["run", "--from", "30", "--to", "60"]);
    let asked = &api.take()[0];
    assert_eq!((asked.param("since"), asked.param("until")), ("30", "60"));
    assert_eq!(
        project.sql("SELECT count(*) n FROM shop.items"),
        [json!({"n": 20})]
    );
    project.ok(&["extract"]);
    assert_eq!(api.take()[0].param("since"), "190");
    // A stream without a cursor has no range.
    let whole = TestProject::new(
        &api.base_url,
        &CHANGES.replace("        incremental:", "        #"),
    );
    let ran = whole.run(&["extract", "--from", "1", "--to", "2"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("not incremental"), "{}", ran.stderr);
}

#[test]
fn r066_f054_a_backdated_row_is_found_by_a_complete_pass() {
    let records = Arc::new(Mutex::new(vec![(1, 10), (2, 20)]));
    let known = Arc::clone(&records);
    let api = Answers::start(move |asked| {
        let since: i64 = asked.param("since").parse().unwrap_or(i64::MIN);
        let known = known.lock().unwrap();
        let data = known.iter().filter(|(_, updated)| *updated >= since);
        let data: Vec<Value> = data
            .map(|(id, updated)| json!({"id": id, "updated": updated}))
            .collect();
        json!({"data": data}).into()
    });
    let project = TestProject::new(&api.base_url, CHANGES);
    project.ok(&["run"]);
    records.lock().unwrap().push((3, 5));
    project.ok(&["run"]);
    assert_eq!(
        project.sql("SELECT count(*) n FROM shop.items"),
        [json!({"n": 2})]
    );
    project.ok(&["run", "--complete"]);
    assert_eq!(
        project.sql("SELECT count(*) n FROM shop.items"),
        [json!({"n": 3})]
    );
    api.take();
    project.ok(&["extract"]);
    assert_eq!(api.take()[0].param("since"), "20");
}

#[test]
fn r021_a_full_stream_that_becomes_incremental_goes_on_from_its_greatest_cursor() {
    let api = ranged(vec![(1, 10), (2, 40), (3, 30)]);
    let incremental = "        incremental: { cursor: $.updated, param: since, format: integer, until: { param: until } }\n";
    let project = TestProject::new(&api.base_url, &CHANGES.replace(incremental, ""));
    project.ok(&["run"]);
    let text = std::fs::read_to_string(project.path().join("landfall.yml")).unwrap();
    let text = text.replace(
        "        records: $.data[*]\n",
        &format!("        records: $.data[*]\n{incremental}"),
    );
    project.write("landfall.yml", &text);
    api.take();
    project.ok(&["run"]);
    assert_eq!(api.take()[0].param("since"), "40");
    assert_eq!(
        project.sql("SELECT count(*) n FROM shop.items"),
        [json!({"n": 3})]
    );
}

/// A feed of numbered events, three a page; it forgets those before `first`.
fn feed(first: i64, last: i64) -> Answers {
    Answers::start(move |asked| {
        let after: i64 = asked.param("after").parse().unwrap_or(0);
        if after < first - 1 && !asked.param("after").is_empty() {
            return Answer::status(410);
        }
        let from = after.max(first - 1) + 1;
        let to = (from + 2).min(last);
        let events: Vec<Value> = (from..=to)
            .map(|seq| json!({"seq": seq, "id": seq % 4, "value": seq}))
            .collect();
        json!({"events": events, "position": to.max(after).to_string(), "more": to < last}).into()
    })
}

const FEED: &str = r"
      items:
        request: { path: /changes }
        records: $.events[*]
        paginate: { type: cursor, from: $.position, param: after, stop: { more: $.more } }
        incremental: { cursor: $.position, param: after, format: feed }
        table: { keys: [id], sequence_by: [seq] }
        commit: { pages: 1 }
";

#[test]
fn r015_a_change_feed_is_replayed_from_where_it_was_left() {
    let api = feed(1, 10);
    let mut project = TestProject::new(&api.base_url, FEED);
    project.env("FAILPOINTS", "raw::after_commit=1*off->return");
    let killed = project.run(&["extract"]);
    assert_ne!(killed.code, Some(0), "killed after the second page");
    project.env("FAILPOINTS", "raw::after_commit=off");
    api.take();
    project.ok(&["run"]);
    let positions: Vec<String> = api
        .take()
        .iter()
        .map(|asked| asked.param("after").to_owned())
        .collect();
    assert_eq!(positions, ["6", "9"]);
    let rows = project.sql("SELECT id, value FROM shop.items ORDER BY id");
    let oracle: Vec<Value> = [8, 9, 10, 7]
        .map(|seq| json!({"id": seq % 4, "value": seq}))
        .to_vec();
    assert_eq!(rows, oracle);
    project.ok(&["extract"]);
    assert_eq!(api.take()[0].param("after"), "10");
}

#[test]
fn r016_a_position_out_of_retention_stops_loudly_or_begins_again() {
    let api = feed(1, 4);
    let project = TestProject::new(&api.base_url, FEED);
    project.ok(&["run"]);
    let later = feed(9, 12);
    let moved = |more: &str| {
        let text = std::fs::read_to_string(project.path().join("landfall.yml")).unwrap();
        let text = text.replace(&api.base_url, &later.base_url);
        project.write(
            "landfall.yml",
            &text.replace("format: feed", &format!("format: feed{more}")),
        );
    };
    moved("");
    let ran = project.run(&["run"]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("cursor_expired") && ran.stderr.contains("on_expired: resync"),
        "{}",
        ran.stderr
    );
    moved(", on_expired: resync");
    project.ok(&["run"]);
    let rows = project.sql("SELECT max(value) n FROM shop.items");
    assert_eq!(rows, [json!({"n": 12})]);
}

#[test]
fn a_dry_run_shows_the_requests_and_sends_none() {
    let api = ranged(vec![(1, 10)]);
    let streams = format!(
        "{CHANGES}{}",
        r#"
      shops:
        request: { path: "/shops/{{ slice.shop }}", params: { api_key: "${file:key}" } }
        slices: { by: [ { list: shop, values: [a, b/c] }, { list: lang, values: [de, fr] } ] }
        table: { keys: [id] }
"#
    );
    let project = TestProject::new(&api.base_url, &streams);
    project.write("key", "s3cr3t-key");
    let ran = project.ok(&["extract", "--dry-run", "--format", "json"]);
    assert_eq!(api.take().len(), 0);
    let rows: Vec<Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let urls: Vec<&str> = rows.iter().map(|row| row["url"].as_str().unwrap()).collect();
    assert_eq!(urls.len(), 5, "{urls:?}");
    assert!(urls[3].ends_with("/shops/b%2Fc?api_key=****"), "{urls:?}");
    assert_eq!(rows[4]["slice"], r#"{"lang":"fr","shop":"b/c"}"#);
    assert!(!ran.stdout.contains("s3cr3t"));
    assert!(project.files("lake").is_empty());
}

#[test]
fn the_quota_is_asked_for_before_a_run_and_shown_by_check_and_dry_run() {
    let api = Answers::start(|asked| match asked.path.as_str() {
        "/rate_limit" => json!({"rate": {"remaining": 41, "reset": 600}}).into(),
        _ => json!({"data": [{"id": 1}]}).into(),
    });
    let project = TestProject::new(
        &api.base_url,
        r"
      items:
        request: { path: /items }
        records: $.data[*]
        table: { keys: [id] }
      others:
        request: { path: /others }
        records: $.data[*]
        table: { keys: [id] }
",
    );
    let text = std::fs::read_to_string(project.path().join("landfall.yml")).unwrap();
    let limit = "    rate_limit:
      status:
        request: { path: /rate_limit, params: { api_key: '${file:key}' } }
        remaining: $.rate.remaining
        reset: $.rate.reset
    streams:";
    project.write("landfall.yml", &text.replace("    streams:", limit));
    project.write("key", "s3cr3t-key");
    let paths = || -> Vec<String> { api.take().into_iter().map(|asked| asked.path).collect() };

    let planned = project.ok(&["extract", "--dry-run", "--format", "csv"]).stdout;
    let urls: Vec<&str> = planned
        .lines()
        .filter_map(|line| line.split(',').nth(2))
        .collect();
    let tails: Vec<&str> = urls
        .iter()
        .filter_map(|url| url.strip_prefix(&*api.base_url))
        .collect();
    assert_eq!(
        tails,
        ["/rate_limit?api_key=****", "/items", "/others"],
        "{planned}"
    );
    assert_eq!(paths().len(), 0);

    let checked = project.ok(&["check", "--connect"]);
    let said = format!("{}{}", checked.stdout, checked.stderr);
    assert!(said.contains("quota: 41 requests left for 600s"), "{said}");
    assert!(said.contains("api_key: ${file:"), "{said}");
    assert!(!said.contains("s3cr3t"), "{said}");
    assert_eq!(paths(), ["/rate_limit", "/items", "/others"]);

    project.ok(&["extract"]);
    let asked = paths();
    assert_eq!((asked[0].as_str(), asked.len()), ("/rate_limit", 3), "{asked:?}");
    let explained = project.ok(&["check", "--explain"]).stdout;
    assert!(
        explained.contains(r#"GET "/rate_limit", $.rate.remaining, $.rate.reset"#),
        "{explained}"
    );
}

#[test]
fn streams_of_a_group_are_asked_one_after_the_other() {
    const PAGES: usize = 20;
    let api = Answers::start(|asked| {
        let page: usize = asked.param("page").parse().unwrap();
        let records: Vec<Value> = (page..=page.min(PAGES)).map(|id| json!({"id": id})).collect();
        json!({ "data": records }).into()
    });
    let stream = |name: &str, group: &str| {
        format!(
            "      {name}:
        request: {{ path: /{name} }}
        records: $.data[*]
        paginate: {{ type: page_number }}
        table: {{ keys: [id] }}
{group}"
        )
    };
    let group = "        group: session\n";
    let streams = stream("one", group) + &stream("free", "") + &stream("two", group);
    let project = TestProject::new(&api.base_url, &streams);
    project.ok(&["run"]);
    let mut paths: Vec<String> = api.take().into_iter().map(|asked| asked.path).collect();
    assert_eq!(paths.len(), 3 * (PAGES + 1));
    paths.retain(|path| path != "/free");
    paths.dedup();
    assert_eq!(
        paths.len(),
        2,
        "one of the group had to wait for the other: {paths:?}"
    );
    for table in ["shop.one", "shop.free", "shop.two"] {
        assert_eq!(project.rows(table).len(), PAGES);
    }
}

#[test]
fn f055_no_records_where_there_always_were_some_is_said() {
    let empty = Arc::new(Mutex::new(false));
    let now = Arc::clone(&empty);
    let api = Answers::start(move |_| {
        let data = if *now.lock().unwrap() {
            json!([])
        } else {
            json!([{"id": 1}])
        };
        json!({"data": data}).into()
    });
    let streams = "
      items:
        request: { path: /items }
        records: $.data[*]
        table: { keys: [id] }
";
    let project = TestProject::new(&api.base_url, streams);
    project.ok(&["run"]);
    assert_eq!(project.run(&["gaps"]).code, Some(0));
    *empty.lock().unwrap() = true;
    let ran = project.ok(&["run"]);
    assert!(ran.stderr.contains("note: zero_records"), "{}", ran.stderr);
    // Nothing is deleted for it.
    assert_eq!(
        project.sql("SELECT count(*) n FROM shop.items"),
        [json!({"n": 1})]
    );
    assert_eq!(project.run(&["gaps"]).code, Some(1));
}

/// The value of a metric in a file of them.
fn metric(file: &std::path::Path, name: &str) -> Option<i64> {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn r022_r045_a_source_that_is_down_shows_in_the_metrics_and_in_the_health() {
    let down = Arc::new(Mutex::new(true));
    let state = Arc::clone(&down);
    let api = Answers::start(move |_| {
        if *state.lock().unwrap() {
            Answer::status(503)
        } else {
            json!({"data": [{"id": 1}]}).into()
        }
    });
    let streams = r"
      items:
        request: { path: /items }
        records: $.data[*]
        table: { keys: [id] }
        fresh_within: 1h
        retry: { attempts_max: 2, backoff_start: 1ms, backoff_max: 2ms }
";
    let project = TestProject::new(&api.base_url, streams);
    let text = std::fs::read_to_string(project.path().join("landfall.yml")).unwrap();
    let text = text.replace(
        "    streams:",
        "    breaker: { failures: 2, open: 1ms }\n    streams:",
    );
    project.write("landfall.yml", &text);
    let file = project.path().join("metrics.prom");
    let args = ["run", "--metrics", file.to_str().unwrap()];
    assert_eq!(project.run(&args).code, Some(1));
    let circuit = |state: &str| {
        let host = api.base_url.trim_end_matches('/');
        metric(
            &file,
            &format!(r#"landfall_circuit_state{{source="shop",host="{host}",state="{state}"}}"#),
        )
    };
    assert_eq!((circuit("open"), circuit("closed")), (Some(1), Some(0)));
    let fresh = r#"landfall_stream_fresh{stream="shop.items"}"#;
    assert_eq!(metric(&file, fresh), Some(0));
    assert_eq!(project.run(&["gaps"]).code, Some(1));

    *down.lock().unwrap() = false;
    project.ok(&args);
    assert_eq!((circuit("open"), circuit("closed")), (Some(0), Some(1)));
    assert_eq!(metric(&file, fresh), Some(1));
    let last = metric(&file, "landfall_stream_last_success_timestamp_seconds").unwrap();
    assert!((0..60).contains(&(metric(&file, "landfall_written_timestamp_seconds").unwrap() - last)));
    let records = r#"landfall_stream_records{stream="shop.items",outcome="merged"}"#;
    assert_eq!(metric(&file, records), Some(1));
    project.ok(&["gaps"]);
}
