//! GraphQL of a server that nobody here wrote: Datasette's plugin, which answers errors with status 500 and what data it has.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use crate::{
    servers::assert_same,
    support::{
        project::TestProject,
        servers::{self, OrdersGraphQl},
    },
};

/// Orders with all they have but lines, and the lines of each order in pages of their own.
const ORDERS_AND_LINES: &str = r#"
      orders:
        request:
          path: /graphql/shop
          graphql:
            query: "query($after: String, $first: Int, $since: Int) { orders(first: $first, after: $after, sort: updated,
              filter: {updated: {gte: $since}}) { totalCount pageInfo { hasNextPage endCursor }
              nodes { id customer total updated } } }"
        records: $.data.orders.nodes[*]
        paginate:
          type: relay
          connection: $.data.orders
          size: { records: 10, body_field: variables.first }
          total: $.data.orders.totalCount
        incremental: { cursor: $.updated, body_field: variables.since, format: integer, start: 0 }
        table: { keys: [id], sequence_by: [updated] }
      lines:
        request:
          path: /graphql/shop
          graphql:
            query: "query($order: Int, $after: String, $first: Int) { orders_row(id: $order) {
              lines_list(first: $first, after: $after) { pageInfo { hasNextPage endCursor } nodes { id sku quantity } } } }"
            variables: { order: "{{ slice.order_id }}" }
        records: $.data.orders_row.lines_list.nodes[*]
        paginate:
          type: relay
          connection: $.data.orders_row.lines_list
          size: { records: 4, body_field: variables.first }
        slices: { by: { parent: orders, values: { order_id: $.id }, records: new }, include: [order_id] }
        table: { keys: [id] }
"#;

#[test]
fn r012_relay_connections_are_read_to_their_end_and_so_are_those_within() {
    let server = servers::orders_graphql(23, 100);
    let project = TestProject::new(&server.base_url, ORDERS_AND_LINES);
    project.ok(&["run"]);
    assert_eq!(server.rows("lines").len(), 108);
    for table in ["orders", "lines"] {
        assert_same(&project.rows(&format!("shop.{table}")), &server.rows(table));
    }
    server.execute("UPDATE orders SET total = 99.5, updated = 2000 WHERE id = 7");
    server.execute("INSERT INTO lines (order_id, sku, quantity) VALUES (7, 'new', 1)");
    // Nobody is told of this one: its order is as it was.
    server.execute("UPDATE lines SET quantity = 100 WHERE order_id = 6");
    project.ok(&["run"]);
    assert_same(&project.rows("shop.orders"), &server.rows("orders"));
    let unseen = |row: &Value| row["order_id"] != 6;
    let filtered = |rows: Vec<Value>| rows.into_iter().filter(unseen).collect::<Vec<_>>();
    assert_same(
        &filtered(project.rows("shop.lines")),
        &filtered(server.rows("lines")),
    );
}

/// Orders with their lines in one document: a query of the server for each order, and one more.
fn nested(server: &OrdersGraphQl, orders: u32, more: &str) -> TestProject {
    let project = TestProject::new(&server.base_url, "");
    ask_nested(&project, server, orders, more);
    project
}

fn ask_nested(project: &TestProject, server: &OrdersGraphQl, orders: u32, more: &str) {
    let text = format!(
        r#"lake: ./lake
sources:
  shop:
    base_url: {url}
    retry: {{ attempts_max: 2, backoff_start: 1ms, backoff_max: 5ms }}
    streams:
      orders:
        request:
          path: /graphql/shop
          graphql:
            query: "query($after: String, $first: Int, $since: Int) {{ orders(first: $first, after: $after, sort: updated,
              filter: {{updated: {{gte: $since}}}}) {{ pageInfo {{ hasNextPage endCursor }}
              nodes {{ id updated lines_list(first: 9) {{ nodes {{ id sku }} }} }} }} }}"
        records: $.data.orders.nodes[*]
        paginate: {{ type: relay, connection: $.data.orders, size: {{ records: {orders}, body_field: variables.first }} }}
        incremental: {{ cursor: $.updated, body_field: variables.since, format: integer, start: 0 }}
        table: {{ keys: [id], sequence_by: [updated] }}
        {more}
"#,
        url = server.base_url
    );
    project.write("landfall.yml", &text);
}

/// Lines of each order in the table, and whether the watermark is beyond all orders.
fn lines_of(project: &TestProject) -> Vec<Value> {
    project.sql("SELECT id, updated, lines_list FROM shop.orders ORDER BY id")
}

fn lines_at(server: &OrdersGraphQl) -> Vec<Value> {
    let lines = server.rows("lines");
    let of = |order: &Value| -> Vec<Value> {
        let own = lines.iter().filter(|line| line["order_id"] == order["id"]);
        own.map(|line| json!({"id": line["id"], "sku": line["sku"]}))
            .collect()
    };
    let orders = server.rows("orders");
    let row = |order: &Value| {
        let list = json!({"nodes": of(order)});
        json!({"id": order["id"], "updated": order["updated"], "lines_list": list})
    };
    orders.iter().map(row).collect()
}

/// With JSON in text read.
fn assert_lines(project: &TestProject, server: &OrdersGraphQl) {
    let mut rows = lines_of(project);
    for row in &mut rows {
        if let Some(text) = row["lines_list"].as_str() {
            row["lines_list"] = serde_json::from_str(text).unwrap();
        }
    }
    assert_eq!(rows, lines_at(server));
}

/// How many pages of the lake are marked as partial: their facts are not compressed.
fn partial_pages(project: &TestProject) -> usize {
    const MARK: &[u8] = br#""partial":true"#;
    let marks = |file: PathBuf| {
        let bytes = fs::read(file).unwrap();
        bytes.windows(MARK.len()).filter(|window| *window == MARK).count()
    };
    project.files("lake/raw").into_iter().map(marks).sum()
}

#[test]
fn f071_partial_data_of_datasette_are_landed_flagged_and_asked_for_again() {
    let server = servers::orders_graphql(12, 9);
    let project = nested(&server, 5, "");
    project.ok(&["run"]);
    assert_lines(&project, &server);
    assert_eq!(partial_pages(&project), 0);
    let standing = project.ok(&["status"]).stdout;
    assert!(standing.contains("1012"), "{standing}");

    server.execute("UPDATE orders SET updated = updated + 100");
    server.execute("UPDATE lines SET sku = sku || ' changed'");
    ask_nested(&project, &server, 12, "");
    for times in 1..=2 {
        project.fails(&["extract"], &["a part of it is missing", "Query limit exceeded"]);
        assert_eq!(partial_pages(&project), times);
        let standing = project.ok(&["status"]).stdout;
        assert!(
            standing.contains("1012") && !standing.contains("1112"),
            "{standing}"
        );
    }
    // What is there is taken, and what was missing is asked for again.
    project.ok(&["transform"]);
    ask_nested(&project, &server, 5, "");
    project.ok(&["run"]);
    assert_lines(&project, &server);
}

#[test]
fn f072_a_page_too_much_for_datasette_is_asked_for_in_halves_by_a_rule() {
    let server = servers::orders_graphql(12, 9);
    let rule = "errors: [{ status: 500, body: Query limit exceeded, then: split }]";
    let project = nested(&server, 12, rule);
    project.ok(&["run"]);
    assert_lines(&project, &server);
    assert_eq!(partial_pages(&project), 0);
}

#[test]
fn r012_errors_without_data_fail_the_run_with_the_words_of_the_server() {
    let server = servers::orders_graphql(3, 9);
    let streams = r#"
      orders:
        request: { path: /graphql/shop, graphql: "{ orders { nodes { id nope } } }" }
        records: $.data.orders.nodes[*]
        table: { keys: [id] }
"#;
    let project = TestProject::new(&server.base_url, streams);
    project.fails(&["run"], &["500", "Cannot query field 'nope'"]);
    assert_ne!(project.run(&["sql", "SELECT * FROM shop.orders"]).code, Some(0));
}
