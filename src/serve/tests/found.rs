//! What can be found out: health, streams, receipts, ends.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn r125_readiness_falls_when_the_lake_is_away_and_when_it_stops() {
    let mut place = Place::new();
    let store = Arc::new(super::limits::Gate::new());
    place.store = Arc::clone(&store) as Arc<dyn ObjectStore>;
    let server = place.start(OPEN).await;
    for path in ["/livez", "/readyz", "/startupz"] {
        assert_eq!(server.admin(path).await.status, 200, "{path}");
        // Not for producers.
        assert_eq!(
            server.send(server.get(path)).await.problem(),
            expected(404, "not_found")
        );
    }
    store.fail();
    place.ahead.store(120, Ordering::Relaxed);
    let answer = server.admin("/readyz").await;
    assert_eq!(answer.status, 503);
    let checks = answer.json()["checks"].clone();
    let failed: Vec<_> = checks
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["ok"] == false)
        .collect();
    assert_eq!(failed.len(), 1, "{checks}");
    assert_eq!(failed[0]["name"], "lake");
    assert_eq!(server.admin("/livez").await.status, 200);
    // What comes is taken all the same.
    assert_eq!(
        server.send(server.records("application/json", "{}")).await.status,
        202
    );
    store.open();
    assert_eq!(server.admin("/readyz").await.status, 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r126_r127_streams_are_found_with_their_limits() {
    let place = Place::new();
    let text = OPEN.replacen(
        "push: {}",
        "push: { records_max: 3, delivery: Settled by five. }",
        1,
    );
    let server = place.start(&text).await;
    let catalog = server.send(server.get("/.well-known/api-catalog")).await;
    assert!(
        catalog
            .header("content-type")
            .unwrap()
            .starts_with("application/linkset+json")
    );
    let item = catalog.json()["linkset"][0]["item"][0]["href"]
        .as_str()
        .unwrap()
        .to_owned();
    let streams = server.send(server.get(&item)).await.json();
    let names: Vec<_> = streams["streams"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stream| stream["stream"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["shop.orders", "shop.items"]);
    let href = streams["streams"][0]["href"].as_str().unwrap().to_owned();
    let stream = server.send(server.get(&href)).await.json();
    assert_eq!(stream["limits"]["records_max"], 3);
    assert_eq!(stream["limits"]["bytes_max"], 16 << 20);
    assert_eq!(stream["delivery"]["semantics"], "Settled by five.");
    assert_eq!(stream["records"]["content_types"][1], "application/x-ndjson");
    let href = stream["records"]["href"].as_str().unwrap();
    assert_eq!(
        server
            .send(
                server
                    .post(href)
                    .header("content-type", "application/json")
                    .body("{}")
            )
            .await
            .status,
        202
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f110_r131_unknown_streams_lead_to_the_catalog_and_ended_ones_are_gone() {
    let place = Place::new();
    let text = OPEN.replacen(
        "push: {}",
        "push: { deprecated: 2026-01-01, sunset: 2999-01-01 }",
        1,
    );
    let server = place.start(&text).await;
    for path in [
        "/v1/streams/shop/nothing/records",
        "/v1/streams/Shop/x%20y/records",
    ] {
        let request = server
            .post(path)
            .header("content-type", "application/json")
            .body("{}");
        let answer = server.send(request).await;
        assert_eq!(answer.problem(), expected(404, "stream_not_found"));
        assert!(
            answer
                .header("link")
                .unwrap()
                .contains("</.well-known/api-catalog>; rel=\"api-catalog\"")
        );
    }
    let answer = server.send(server.get("/v2/anything")).await;
    assert_eq!(answer.problem(), expected(404, "not_found"));
    assert!(answer.header("link").is_some());
    let method = server.send(server.get("/v1/streams/shop/orders/records")).await;
    assert_eq!(method.problem(), expected(405, "method_not_allowed"));
    assert_eq!(method.header("allow"), Some("POST"));

    let answer = server
        .send(server.records("application/json", "{\"id\":1}"))
        .await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.header("deprecation"), Some("@1767225600"));
    assert_eq!(answer.header("sunset"), Some("Tue, 01 Jan 2999 00:00:00 GMT"));
    let links: Vec<_> = answer.headers.get_all("link").iter().collect();
    assert_eq!(links[0], "</v1/streams/shop/orders>; rel=\"deprecation\"");
    server.stop().await;

    let ended = text.replace("2999-01-01", "2026-02-01");
    let server = place.start(&ended).await;
    let answer = server
        .send(server.records("application/json", "{\"id\":2}"))
        .await;
    assert_eq!(answer.problem(), expected(410, "stream_gone"));
    assert!(answer.header("sunset").is_some() && answer.header("deprecation").is_some());
    let other = server.records_to("items", "", "application/json", "{}");
    assert_eq!(server.send(other).await.header("sunset"), None);
    server.stop().await;
    assert_eq!(place.landed("shop.orders").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn r098_receipts_say_where_a_delivery_is_and_are_listed_by_their_last_change() {
    let place = Place::new();
    let [till, web] = super::repeats::tokens(&place);
    let text = super::repeats::KEYED.replace("idempotency: required", "");
    let text = text.replace(
        "scopes: [ingest], streams: [shop.orders]",
        "scopes: [ingest, read], streams: [shop.items]",
    );
    let server = place.start(&text).await;
    let mut given = Vec::new();
    for (stream, token) in [("orders", &till), ("items", &web), ("orders", &till)] {
        let request = server
            .records_to(stream, "", "application/json", "{}")
            .bearer_auth(token);
        given.push(
            server.send(request).await.json()["receipt"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    let get = async |token: &str, path: &str| server.send(server.get(path).bearer_auth(token)).await;
    let path = format!("/v1/receipts/{}", given[0]);
    // In the lake after a while.
    let landed = loop {
        let receipt = get(&till, &path).await.json();
        if receipt["stage"] == "landed" {
            break receipt;
        }
        assert_eq!(receipt["stage"], "spooled");
        tokio::task::yield_now().await;
    };
    assert_eq!(
        (&landed["stream"], &landed["producer"]),
        (&"shop.orders".into(), &"till".into())
    );
    assert!(landed["batch"].is_i64() && landed["page"].is_u64());
    // Of a stream that one may not see nothing is known.
    assert_eq!(
        get(&web, &path).await.problem(),
        expected(404, "receipt_not_found")
    );
    assert_eq!(
        get(&till, "/v1/receipts/none").await.problem(),
        expected(404, "receipt_not_found")
    );

    let mut seen = Vec::new();
    let mut next = "/v1/receipts?limit=1".to_owned();
    for _ in 0..100 {
        let page = get(&till, &next).await;
        assert!(page.header("ratelimit").is_some());
        let page = page.json();
        seen.extend(page["receipts"].as_array().unwrap().clone());
        let Some(cursor) = page["next"].as_str() else {
            break;
        };
        next = format!("/v1/receipts?limit=1&cursor={cursor}");
    }
    let mut ids: Vec<_> = seen
        .iter()
        .map(|receipt| receipt["receipt"].as_str().unwrap())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3);
    let since = "/v1/receipts?updated_at_gte=2999-01-01T00:00:00Z";
    assert_eq!(get(&till, since).await.json()["receipts"], serde_json::json!([]));
    let theirs = get(&web, "/v1/receipts").await.json();
    let of_others = theirs["receipts"]
        .as_array()
        .unwrap()
        .iter()
        .any(|receipt| receipt["stream"] != "shop.items");
    assert!(!of_others);
    for path in ["?limit=0", "?cursor=x", "?updated_at_gte=now", "?limit=1&limit=2"] {
        let answer = get(&till, &format!("/v1/receipts{path}")).await;
        assert_eq!(answer.problem(), expected(400, "invalid_request"), "{path}");
    }
    server.stop().await;
}

/// Every `$ref` below `node`.
fn references(node: &Value, found: &mut Vec<String>) {
    match node {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get("$ref") {
                found.push(reference.clone());
            }
            members.values().for_each(|member| references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_is_that_of_the_router_and_its_parts_are_there() {
    let place = Place::new();
    let server = place.start(OPEN).await;
    let document = server.send(server.get("/openapi.json")).await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 50, "{found:?}");
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    let mut ids = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            ids.push(operation["operationId"].as_str().unwrap().to_owned());
            let url = path.replace("{source}", "shop").replace("{stream}", "orders");
            let url = url
                .replace("{id}", "019ab3c4-0000-7000-8000-000000000001")
                .replace("{version}", "1.0.0")
                .replace("{channel}", "till-1");
            let request = match method.as_str() {
                "get" => server.get(&url),
                "put" => server.put(&url),
                "head" | "patch" => {
                    let method = method.to_uppercase().parse().unwrap();
                    server
                        .client
                        .request(method, format!("http://{}{url}", server.address))
                }
                _ => server
                    .post(&url)
                    .header("content-type", "application/json")
                    .body("{}"),
            };
            let answer = server.send(request).await;
            let described = &operation["responses"][answer.status.to_string()];
            let media = answer.header("content-type").unwrap().split(';').next().unwrap();
            // An answer to HEAD has no body.
            assert!(
                described["content"][media].is_object() || method == "head" && described.is_object(),
                "{method} {path}: {answer:?}"
            );
        }
    }
    let routes: Vec<_> = crate::serve::routes::ROUTES
        .iter()
        .map(|route| route.name)
        .collect();
    assert!(routes.iter().all(|name| ids.contains(&(*name).to_owned())) && ids.len() == routes.len());
    server.stop().await;
}
