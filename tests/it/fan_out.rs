//! One webhook whose events go to several streams, each with a raw log of its own.

use serde_json::{Value, json};

use crate::{hydration::Serving, support::project::TestProject};

/// A webhook `hooks` with routes to `orders`, `audit` and `customers`; `serve` and `customers` have these keys besides.
fn project(serve: &str, customers: &str) -> TestProject {
    let mut project = TestProject::new("http://127.0.0.1:9", "\n");
    let text = format!(
        r"lake: ./lake
serve: {{ listen: '127.0.0.1:0', admin_listen: '127.0.0.1:0'{serve} }}
sources:
  shop:
    streams:
      hooks:
        webhook:
          scheme: shared_secret
          header: X-Secret
          secrets: {{ main: '${{env:HOOK_SECRET}}' }}
          event_id: $.id
          event_type: $.type
          routes: {{ 'order.*': [orders, audit], 'customer.*': [customers, audit], '*.lost': [customers] }}
        records: $
        table: {{ keys: [id] }}
      orders: {{ push: {{}}, records: $, table: {{ keys: [id] }} }}
      audit: {{ push: {{}}, records: $, table: {{ keys: [id], scd_type: append }} }}
      customers: {{ push: {{ {customers} }}, records: $, table: {{ keys: [id] }} }}
"
    );
    project.write("landfall.yml", &text);
    project.env("HOOK_SECRET", "correct horse");
    project
}

fn event(id: &str, kind: &str) -> Value {
    json!({"id": id, "type": kind})
}

fn ids(project: &TestProject, stream: &str) -> Vec<String> {
    let rows = project.rows(&format!("shop.{stream}"));
    let ids = rows.iter().map(|row| row["id"].as_str().unwrap().to_owned());
    ids.collect()
}

/// What of an answer says where an event is: each stream, and whether it had it before.
fn told(answer: &Value) -> Vec<(String, bool)> {
    let routes = answer["routes"].as_array().unwrap();
    let one = |taken: &Value| {
        (
            taken["stream"].as_str().unwrap().to_owned(),
            taken["duplicate"].as_bool().unwrap(),
        )
    };
    routes.iter().map(one).collect()
}

fn stream(name: &str, duplicate: bool) -> (String, bool) {
    (format!("shop.{name}"), duplicate)
}

#[test]
fn r107_events_go_by_type_to_their_streams_and_a_closed_one_blocks_none() {
    let project = project("", "sunset: '2020-01-01'");
    project.ok(&["check"]);
    let server = Serving::start(&project);
    let (status, answer) = server.hook("shop/hooks", &event("1", "order.paid"));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(told(&answer), [stream("orders", false), stream("audit", false)]);
    // No route: it stays where it came to. And one without a type.
    let (status, answer) = server.hook("shop/hooks", &event("2", "invoice.paid"));
    assert_eq!(
        (status, &answer["stream"]),
        (200, &json!("shop.hooks")),
        "{answer}"
    );
    let (status, answer) = server.hook("shop/hooks", &json!({"id": "3"}));
    assert_eq!(
        (status, &answer["stream"]),
        (200, &json!("shop.hooks")),
        "{answer}"
    );
    // Customers are withdrawn: the others have the event, and nothing of it is lost.
    let (status, answer) = server.hook("shop/hooks", &event("4", "customer.new"));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(told(&answer), [stream("audit", false), stream("hooks", false)]);
    assert_eq!(answer["passed_over"][0]["stream"], "shop.customers", "{answer}");
    // A repeat is known in each stream.
    let (status, answer) = server.hook("shop/hooks", &event("1", "order.paid"));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(told(&answer), [stream("orders", true), stream("audit", true)]);
    assert_eq!(answer["duplicate"], true);
    server.stop();
    project.ok(&["run"]);
    assert_eq!(ids(&project, "orders"), ["1"]);
    assert_eq!(ids(&project, "audit"), ["1", "4"]);
    assert_eq!(ids(&project, "hooks"), ["2", "3", "4"]);
}

#[test]
fn r107_an_event_that_is_not_durable_everywhere_is_sent_again_and_is_one_row_in_each() {
    let project = project(", spool: { ack: lake }", "");
    let server = Serving::start(&project);
    // Nothing can be landed for the customers.
    project.write("lake/raw/shop/customers", "not a folder");
    let both = event("5", "customer.new");
    let (status, answer) = server.hook("shop/hooks", &both);
    assert_eq!(status, 503, "{answer}");
    assert_eq!(answer["errors"][0]["pointer"], "shop.customers", "{answer}");
    // Events of other types flow.
    let (status, answer) = server.hook("shop/hooks", &event("6", "order.paid"));
    assert_eq!(status, 200, "{answer}");
    std::fs::remove_file(project.path().join("lake/raw/shop/customers")).unwrap();
    let (status, answer) = server.hook("shop/hooks", &both);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(told(&answer), [stream("customers", false), stream("audit", true)]);
    server.stop();
    project.ok(&["run"]);
    assert_eq!(ids(&project, "customers"), ["5"]);
    assert_eq!(ids(&project, "audit"), ["5", "6"]);
    assert_eq!(ids(&project, "orders"), ["6"]);
}

#[test]
fn routes_that_lead_nowhere_are_refused() {
    let project = project("", "");
    let text = std::fs::read_to_string(project.path().join("landfall.yml")).unwrap();
    project.write(
        "landfall.yml",
        &text.replace("'*.lost': [customers]", "lost: nobody"),
    );
    let ran = project.run(&["check"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("nobody is no stream of the source"),
        "{}",
        ran.stderr
    );
}
