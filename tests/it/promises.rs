//! How long answers and loads are waited for, beside what contracts promise.

use std::fs;

use serde_json::{Value, json};

use crate::support::{
    hooks::{answered, project},
    project::ITEMS_CONTRACT,
    serving::Server,
};

#[tokio::test(flavor = "multi_thread")]
async fn r097_acknowledgements_are_measured_and_what_a_contract_promises_about_time_is_told() {
    let streams = "      items: { push: {}, table: { keys: [id] } }\n      others: { push: {}, table: { keys: [id] } }\n";
    let (project, token) = project(streams);
    let promising = |freshness: &str, latency: &str| {
        let promises = format!(
            "slaProperties:\n- {{ property: freshness, value: {freshness}, unit: s }}\n- {{ property: latency, value: {latency}, unit: s }}\nschema:"
        );
        project.write(
            "contracts/shop.items.odcs.yaml",
            &ITEMS_CONTRACT.replace("schema:", &promises),
        );
    };
    // The value of a metric of a stream; none if it is not there.
    let figure = |text: &str, name: &str, stream: &str| {
        let prefix = format!("{name}{{stream=\"shop.{stream}\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&prefix));
        value.map(|value| value.parse::<f64>().unwrap())
    };
    let told = || {
        let file = project.path().join("metrics.txt");
        project.ok(&["status", "--metrics", file.to_str().unwrap()]);
        fs::read_to_string(file).unwrap()
    };
    let server = Server::start(&project);
    let client = reqwest::Client::new();
    for id in 0..3 {
        let request = client
            .post(format!("{}/v1/streams/shop/items/records", server.producers))
            .bearer_auth(&token)
            .header("content-type", "application/json")
            .body(json!({"id": id, "updated": 1, "name": "x"}).to_string());
        assert_eq!(answered(request).await.0, 202);
    }
    let metrics = client.get(format!("{}/metrics", server.admin));
    let metrics = metrics.send().await.unwrap().text().await.unwrap();
    assert_eq!(
        figure(&metrics, "landfall_acknowledge_seconds_count", "items"),
        Some(3.0)
    );
    assert_eq!(
        figure(&metrics, "landfall_acknowledge_seconds_count", "others"),
        Some(0.0)
    );
    let sum = figure(&metrics, "landfall_acknowledge_seconds_sum", "items").unwrap();
    assert!(sum > 0.0 && sum < 60.0, "{metrics}");
    assert!(metrics.contains("# TYPE landfall_acknowledge_seconds histogram"));
    let bucket = "landfall_acknowledge_seconds_bucket{stream=\"shop.items\",le=\"+Inf\"} 3";
    assert!(metrics.lines().any(|line| line == bucket), "{metrics}");
    server.stop();

    // It waits for its load.
    promising("86400", "0.000001");
    let text = told();
    assert_eq!(figure(&text, "landfall_stream_freshness_seconds", "items"), None);
    assert_eq!(figure(&text, "landfall_stream_promises_kept", "items"), Some(0.0));
    assert_eq!(
        figure(&text, "landfall_stream_freshness_promised_seconds", "items"),
        Some(86_400.0)
    );
    assert_eq!(figure(&text, "landfall_stream_promises_kept", "others"), None);
    let status = project.ok(&["status"]).stdout;
    assert!(status.contains("of 1d promised: kept"), "{status}");
    assert!(
        status.contains("sla     latency") && status.contains("promised: broken"),
        "{status}"
    );

    // Loaded, nothing waits, and the table is as old as its newest batch.
    project.ok(&["transform"]);
    let text = told();
    assert_eq!(figure(&text, "landfall_stream_promises_kept", "items"), Some(1.0));
    assert_eq!(
        figure(&text, "landfall_stream_latency_seconds", "items"),
        Some(0.0)
    );
    assert!(figure(&text, "landfall_stream_freshness_seconds", "items") < Some(3_600.0));
    promising("0.000001", "60");
    let rows = project.ok(&["status", "--format", "json"]).stdout;
    let rows: Vec<Value> = rows
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let items = rows.iter().find(|row| row["stream"] == "shop.items").unwrap();
    assert_eq!(items["promises_kept"], "false", "{items}");
    assert_eq!(items["waiting_s"], 0, "{items}");

    // A promise that cannot be measured is not passed over in silence.
    promising("soon", "60");
    let checked = project.run(&["check"]);
    assert!(
        (checked.stdout + &checked.stderr).contains("freshness is not measured"),
        "it is not said"
    );
}
