//! Records that are judged before they are kept.

use std::sync::LazyLock;

use serde_json::json;

use super::*;
use crate::ops::inspect;

const TAGGED: &str = "
lake: ./lake
serve: {}
sources:
  shop:
    streams:
      orders: { push: { on_violation: tag }, webhook: { scheme: none }, table: { keys: [id] } }
      items: { push: {}, table: { keys: [id] } }
";

/// That of those who judge for the server, without its rule in SQL.
static CONTRACT: LazyLock<String> = LazyLock::new(|| {
    let (before, rest) = inspect::tests::CONTRACT.split_once("  quality:\n").unwrap();
    let (_rule, behind) = rest.split_once('\n').unwrap();
    format!("{before}{behind}")
});

/// Ten lines of which 3 and 7 do not fit and 5 cannot be read.
const LINES: &str = "{\"id\":0,\"total\":1}
{\"id\":1,\"total\":1}
{\"id\":2,\"total\":1}
{\"id\":3,\"total\":\"SECRET\"}
{\"id\":4,\"total\":1}
{\"id\":5,
{\"id\":6,\"total\":1}
{\"id\":7}
{\"id\":8,\"total\":1}
{\"id\":9,\"total\":1}
";

fn rejecting() -> String {
    TAGGED.replace("tag }", "reject }")
}

impl Place {
    fn contract(&self, text: &str) {
        std::fs::create_dir_all(self.path("contracts")).unwrap();
        for stream in ["orders", "tags"] {
            std::fs::write(self.path(&format!("contracts/shop.{stream}.odcs.yaml")), text).unwrap();
        }
    }

    /// Lets so much time pass that contracts are looked at again.
    fn later(&self) {
        self.ahead.fetch_add(6, Ordering::Relaxed);
    }
}

impl Server {
    /// The value of a metric of `shop.orders`.
    async fn metric(&self, name: &str) -> u64 {
        let text = self.admin("/metrics").await.body;
        let text = String::from_utf8(text.to_vec()).unwrap();
        let prefix = format!("{name}{{stream=\"shop.orders\"}} ");
        let mut values = text.lines().filter_map(|line| line.strip_prefix(&prefix));
        values.next().unwrap().parse().unwrap()
    }
}

/// Index, code, pointer and whether it is kept, of each result.
fn results(document: &Value) -> Vec<(u64, &str, &str, bool)> {
    let results = document["results"].as_array().unwrap().iter();
    let told = results.map(|told| {
        assert_eq!(told["retryable"], false);
        let text = |name: &str| told[name].as_str().unwrap();
        (
            told["index"].as_u64().unwrap(),
            text("code"),
            text("pointer"),
            told["landed"].as_bool().unwrap(),
        )
    });
    told.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn r113_what_does_not_fit_lands_with_a_tag_and_is_named() {
    let place = Place::new();
    place.contract(&CONTRACT);
    let server = place.start(TAGGED).await;
    let answer = server.send(server.records("application/x-ndjson", LINES)).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let document = answer.json();
    assert_eq!(
        document["records"],
        json!({ "accepted": 9, "rejected": 1, "tagged": 2 })
    );
    assert_eq!(document["contract"], "1.2.0");
    assert_eq!(
        results(&document),
        [
            (3, "type_mismatch", "#/3/total", true),
            (5, "not_json", "#/5", true),
            (7, "required_missing", "#/7/total", true),
        ]
    );
    assert!(!document.to_string().contains("SECRET"));
    let fitting = server
        .send(server.records("application/json", "{\"id\":1,\"total\":1}"))
        .await
        .json();
    assert_eq!(fitting["records"], json!({ "accepted": 1, "rejected": 0 }));
    assert_eq!(
        (&fitting["contract"], fitting.get("note")),
        (&json!("1.2.0"), None)
    );
    // An event is tagged as well.
    let event = server.post("/v1/webhooks/shop/orders").body("{\"id\":1}");
    let event = server.send(event).await.json();
    assert_eq!(
        (&event["contract"], &event["tagged"]),
        (&json!("1.2.0"), &json!(1))
    );
    // The mode is about records that cannot be read.
    let atomic = server.records_to("orders", "?mode=atomic", "application/x-ndjson", LINES);
    assert_eq!(
        server.send(atomic).await.problem(),
        expected(422, "batch_rejected")
    );
    let unfit = server.records_to("orders", "?mode=atomic", "application/json", "[{\"id\":1}]");
    assert_eq!(server.send(unfit).await.json()["records"]["tagged"], 1);

    assert_eq!(server.metric("landfall_records_tagged_total").await, 4);
    assert_eq!(server.metric("landfall_records_rejected_total").await, 2);
    let stream = server.send(server.get("/v1/streams/shop/orders")).await.json();
    assert_eq!(
        stream["contract"],
        json!({
            "on_violation": "tag", "version": "1.2.0", "status": "active", "readable": true, "rejected": 2, "tagged": 4,
        })
    );
    server.stop().await;

    let landed = place.landed("shop.orders").await;
    assert_eq!(landed.len(), 4);
    let page = landed.iter().find(|(_, body)| body == LINES.as_bytes()).unwrap();
    let tag = serde_json::to_value(page.0.judged.as_ref().unwrap()).unwrap();
    assert_eq!(
        tag,
        json!({
            "contract": "1.2.0", "misfits": 3, "codes": { "type_mismatch": 1, "not_json": 1, "required_missing": 1 },
            "named": [[3, "type_mismatch"], [5, "not_json"], [7, "required_missing"]],
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn r113_r085_what_does_not_fit_is_left_out_and_named() {
    let place = Place::new();
    place.contract(&CONTRACT);
    let server = place.start(&rejecting()).await;
    let answer = server.send(server.records("application/x-ndjson", LINES)).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let document = answer.json();
    assert_eq!(document["records"], json!({ "accepted": 7, "rejected": 3 }));
    assert_eq!(
        results(&document),
        [
            (3, "type_mismatch", "#/3/total", false),
            (5, "not_json", "#/5", false),
            (7, "required_missing", "#/7/total", false),
        ]
    );
    assert!(document["note"].as_str().unwrap().contains("not kept"));
    // Only the mended ones need to come again.
    let mended = "[ {\"id\":3,\"total\":1} , {\"id\":7,\"total\":7}]";
    let answer = server.send(server.records("application/json", mended)).await;
    assert_eq!(answer.json()["records"], json!({ "accepted": 2, "rejected": 0 }));
    let array = "[{\"id\":1,\"total\":1.50},{\"id\":2} , {\"id\":3,  \"total\":2}, 7]";
    let answer = server.send(server.records("application/json", array)).await;
    assert_eq!(answer.json()["records"], json!({ "accepted": 2, "rejected": 2 }));
    // A large one is judged where it holds up nobody, and gives its memory back.
    let large = "{\"id\":1,\"total\":1}\n{\"id\":2}\n".repeat(4_000);
    let answer = server.send(server.records("application/x-ndjson", large)).await;
    let document = answer.json();
    assert_eq!(document["records"], json!({ "accepted": 4000, "rejected": 4000 }));
    let told = document["results"].as_array().unwrap().len() as u64;
    assert!(told >= 200 && answer.body.len() < 64 << 10);
    assert_eq!(document["results_omitted"], 4_000 - told);
    let metrics = String::from_utf8(server.admin("/metrics").await.body.to_vec()).unwrap();
    assert!(
        metrics.contains("landfall_body_bytes_free 268435456\n"),
        "{metrics}"
    );

    assert_eq!(server.metric("landfall_records_accepted_total").await, 4_011);
    assert_eq!(server.metric("landfall_records_rejected_total").await, 4_005);
    server.stop().await;
    let landed = place.landed("shop.orders").await;
    assert_eq!(landed.len(), 4);
    let kept: String = LINES
        .split_inclusive('\n')
        .enumerate()
        .filter(|(index, _)| ![3, 5, 7].contains(index))
        .map(|(_, line)| line)
        .collect();
    let find = |body: &str| landed.iter().find(|(_, landed)| landed == body.as_bytes());
    let (facts, _) = find(&kept).unwrap();
    let tag = facts.judged.as_ref().unwrap();
    assert_eq!((tag.misfits, tag.sent.as_ref().map(String::len)), (3, Some(64)));
    let (facts, _) = find(mended).unwrap();
    let tag = facts.judged.as_ref().unwrap();
    assert_eq!(
        (tag.contract.as_str(), tag.misfits, &tag.sent),
        ("1.2.0", 0, &None)
    );
    assert!(find("[{\"id\":1,\"total\":1.50},{\"id\":3,  \"total\":2}]").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn r113_f102_a_batch_is_refused_as_a_whole_and_so_is_one_of_which_nothing_fits() {
    let place = Place::new();
    place.contract(&CONTRACT);
    let server = place.start(&rejecting()).await;
    let faults = |answer: &Answer| {
        let document = answer.json();
        assert_eq!(
            (&document["retryable"], &document["class"]),
            (&json!(false), &json!("contract"))
        );
        let faults = document["errors"].as_array().unwrap().iter();
        let told = faults.map(|fault| format!("{} {}", fault["pointer"], fault["code"]).replace('"', ""));
        told.collect::<Vec<_>>()
    };
    let atomic = server.records_to("orders", "?mode=atomic", "application/x-ndjson", LINES);
    let answer = server.send(atomic).await;
    assert_eq!(answer.problem(), expected(422, "batch_rejected"));
    assert_eq!(
        faults(&answer),
        [
            "#/3/total type_mismatch",
            "#/5 not_json",
            "#/7/total required_missing"
        ]
    );
    // One record is no list.
    let single = server
        .send(server.records("application/json", "{\"id\":\"x y\"}"))
        .await;
    assert_eq!(single.problem(), expected(422, "contract_violation"));
    let mut told = faults(&single);
    told.sort();
    assert_eq!(told, ["#/id type_mismatch", "#/total required_missing"]);
    let none = server.send(server.records("application/json", "[{},{}]")).await;
    assert_eq!(none.problem(), expected(422, "contract_violation"));
    assert_eq!(faults(&none)[0], "#/0/id key_missing");
    // A key is not spent by it.
    let keyed = |body: &'static str| {
        let request = server.records_to("orders", "?mode=atomic", "application/json", body);
        request.header("idempotency-key", "order-1")
    };
    assert_eq!(server.send(keyed("[{}]")).await.status, 422);
    assert_eq!(server.send(keyed("[{\"id\":1,\"total\":1}]")).await.status, 202);
    let event = server.post("/v1/webhooks/shop/orders").body("{\"id\":1}");
    let answer = server.send(event).await;
    assert_eq!(answer.problem(), expected(422, "contract_violation"));
    assert_eq!(faults(&answer), ["#/total required_missing"]);
    assert_eq!(
        server.metric("landfall_records_rejected_total").await,
        3 + 1 + 2 + 1 + 1
    );
    server.stop().await;
    assert_eq!(place.landed("shop.orders").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn r113_a_contract_that_changes_counts_without_a_restart() {
    let place = Place::new();
    let text = rejecting().replace(
        "      items:",
        "      tags: { push: { on_violation: tag }, table: { keys: [id] } }\n      items:",
    );
    let server = place.start(&text).await;
    let push = async |stream: &str| {
        let request = server.records_to(
            stream,
            "",
            "application/json",
            "[{\"id\":1,\"total\":1},{\"id\":2}]",
        );
        server.send(request).await
    };
    // There is none yet: all is taken, and that is said.
    for stream in ["orders", "tags"] {
        let document = push(stream).await.json();
        assert_eq!(
            (&document["records"]["accepted"], &document["contract"]),
            (&json!(2), &json!(null))
        );
        assert!(document.as_object().unwrap().contains_key("contract"));
        assert!(document["note"].as_str().unwrap().contains("no contract yet"));
    }
    // Where nobody asks nothing is said.
    let unasked = push("items").await.json();
    assert_eq!((unasked.get("contract"), unasked.get("note")), (None, None));

    place.contract(&CONTRACT);
    place.later();
    assert_eq!(
        push("orders").await.json()["records"],
        json!({ "accepted": 1, "rejected": 1 })
    );
    place.contract(&CONTRACT.replace("1.2.0", "1.3.0").replace(
        "name: total, logicalType: number, required: true",
        "name: total, logicalType: number",
    ));
    // Still the old one, for some seconds.
    assert_eq!(push("orders").await.json()["contract"], "1.2.0");
    place.later();
    let document = push("orders").await.json();
    assert_eq!(
        (&document["contract"], &document["records"]["accepted"]),
        (&json!("1.3.0"), &json!(2))
    );

    place.contract("schema: [");
    place.later();
    let answer = push("orders").await;
    assert_eq!(answer.problem(), expected(503, "unavailable"));
    assert_eq!(answer.header("retry-after"), Some("5"));
    let document = push("tags").await.json();
    assert_eq!(
        (&document["records"]["accepted"], &document["contract"]),
        (&json!(2), &json!(null))
    );
    assert!(document["note"].as_str().unwrap().contains("cannot be read"));
    let stream = server.send(server.get("/v1/streams/shop/orders")).await.json();
    assert_eq!(
        (&stream["contract"]["readable"], &stream["contract"]["version"]),
        (&json!(false), &json!(null))
    );

    place.contract(&CONTRACT);
    place.later();
    assert_eq!(push("orders").await.json()["contract"], "1.2.0");
    server.stop().await;
    assert_eq!(place.landed("shop.orders").await.len(), 5);
    let tags = place.landed("shop.tags").await;
    assert!(tags.len() == 2 && tags.iter().all(|(facts, _)| facts.judged.is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn r083_a_repeat_gets_the_answer_of_its_time_whatever_the_contract_has_become() {
    let mut place = Place::new();
    // Nothing leaves the spool.
    place.spool.segment_age = Duration::from_secs(600);
    place.pace.drain = Duration::from_millis(50);
    let store = Arc::new(super::limits::Gate::new());
    place.store = Arc::clone(&store) as Arc<dyn ObjectStore>;
    place.contract(&CONTRACT);
    let server = place.start(&rejecting()).await;
    store.close();
    let keyed = |server: &Server| {
        let request = server.records("application/x-ndjson", LINES);
        request.header("idempotency-key", "order-1")
    };
    let first = server.send(keyed(&server)).await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (202, None));
    // By this one nothing of it fits.
    place.contract(&CONTRACT.replace(
        "name: total, logicalType: number",
        "name: total, logicalType: boolean",
    ));
    place.later();
    let again = server.send(keyed(&server)).await;
    assert_eq!((again.status, &again.body), (202, &first.body));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    server.abort().await;

    // Made again of what is kept beside the body: the same records, by number and code.
    std::fs::remove_dir_all(place.path("ledger")).unwrap();
    let server = place.start(&rejecting()).await;
    let again = server.send(keyed(&server)).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    let (first, again) = (first.json(), again.json());
    for member in ["receipt", "records", "contract", "note"] {
        assert_eq!(first[member], again[member], "{member}");
    }
    let short = |document: &Value| {
        let results = results(document).into_iter();
        results
            .map(|(index, code, _, landed)| (index, code.to_owned(), landed))
            .collect::<Vec<_>>()
    };
    assert_eq!(short(&first), short(&again));
    let other = server
        .records("application/x-ndjson", "{\"id\":1,\"total\":true}")
        .header("idempotency-key", "order-1");
    assert_eq!(
        server.send(other).await.problem(),
        expected(422, "idempotency_key_reused")
    );
    store.open();
    server.stop().await;
    assert_eq!(place.landed("shop.orders").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn r112_the_description_says_what_fits_to_those_who_may_read_the_stream() {
    let place = Place::new();
    place.contract(&CONTRACT);
    let [till, web] = super::repeats::tokens(&place);
    let text = super::repeats::KEYED.replace(
        "push: { idempotency: required }",
        "push: { on_violation: reject }",
    );
    let server = place.start(&text).await;
    let describe = async |token: &str| {
        let request = server.get("/openapi.json");
        let request = if token.is_empty() {
            request
        } else {
            request.bearer_auth(token)
        };
        server.send(request).await
    };
    // A data model is nobody else's business, and who sends need not read.
    for token in ["", &web] {
        let answer = describe(token).await;
        assert_eq!(answer.status, 200);
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(
            !text.contains("What is paid.") && !text.contains("push_records.shop.orders"),
            "{token}"
        );
    }
    assert_eq!(describe("lfp_wrong").await.status, 401);

    let document = describe(&till).await.json();
    let operation = &document["paths"]["/v1/streams/shop/orders/records"]["post"];
    assert_eq!(operation["operationId"], "push_records.shop.orders");
    assert!(
        operation["description"]
            .as_str()
            .unwrap()
            .contains("version 1.2.0 of the contract is rejected")
    );
    let content = &operation["requestBody"]["content"];
    let reference = content["application/json"]["schema"]["oneOf"][0]["$ref"]
        .as_str()
        .unwrap();
    let schema = document.pointer(&reference[1..]).unwrap();
    assert_eq!(schema["required"], json!(["id", "total"]));
    assert_eq!(schema["properties"]["total"]["description"], "What is paid.");
    assert_eq!(schema["properties"]["email"]["x-classification"], "restricted");
    // What has no contract is as it was.
    assert!(document["paths"].get("/v1/streams/shop/items/records").is_none());
    for (media, example) in [
        (
            "application/json",
            &content["application/json"]["examples"]["one"]["value"],
        ),
        (
            "application/json",
            &content["application/json"]["examples"]["batch"]["value"],
        ),
        (
            "application/x-ndjson",
            &content["application/x-ndjson"]["examples"]["lines"]["value"],
        ),
    ] {
        let body = example
            .as_str()
            .map_or_else(|| example.to_string(), str::to_owned);
        let answer = server.send(server.records(media, body).bearer_auth(&till)).await;
        assert_eq!(
            (answer.status, &answer.json()["records"]["rejected"]),
            (202, &json!(0)),
            "{example}"
        );
    }
    server.stop().await;
}
