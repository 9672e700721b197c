//! The ways APIs differ, on servers that nobody here wrote: the table equals the server in the end, or the run says why not.

use std::{fs, sync::Arc};

use serde_json::{Value, json};

use crate::{
    servers::{assert_same, at_server, in_table, note, notes_project, notes_streams},
    support::{
        between::Between,
        project::TestProject,
        python::node_modules,
        servers::{self, Node},
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn r027_rows_of_kinto_edited_between_two_pages_are_there_in_the_end() {
    // The greatest cursor of a pass says nothing about what the pass has missed; when it began does.
    for sort in ["last_modified", "-last_modified", "title"] {
        let kinto = Arc::new(servers::kinto().await);
        let notes: Vec<Value> = (0..40).map(|id| note(id, &format!("note {id:03}"))).collect();
        kinto.put(&notes).await;
        let edited = Arc::clone(&kinto);
        let between = Between::start(&kinto.base_url, move |number| {
            let kinto = Arc::clone(&edited);
            async move {
                if number != 3 {
                    return;
                }
                // In each order something moves from where the pass has yet to come to where it has been.
                kinto
                    .put(&[note(2, "note 002 again"), note(38, "a first note")])
                    .await;
                kinto.delete("note-010").await;
                // What is newest comes late in the order of titles.
                kinto
                    .put(&[note(25, "note 025 again"), note(50, "note 050")])
                    .await;
            }
        })
        .await;
        let streams = notes_streams(&kinto, sort, "epoch_ms");
        let project = notes_project(&kinto, &between.base_url, &streams, "lake: ./lake");
        project.ok(&["run"]);
        assert_ne!(
            in_table(&project),
            at_server(&kinto).await,
            "{sort}: nothing was missed"
        );
        let ran = project.ok(&["run"]);
        assert_eq!(
            in_table(&project),
            at_server(&kinto).await,
            "{sort}: {}",
            ran.stderr
        );
        assert!(project.sql("SELECT * FROM shop.notes__quarantine").is_empty());
    }
}

/// A project for one recorded scenario of GitHub's API.
fn github_project(github: &Node, scenario: &str, streams: &str) -> TestProject {
    let loaded = github.ask("/fixtures", Some(&json!({"scenario": scenario})));
    let mut project = TestProject::new(loaded["url"].as_str().unwrap(), streams);
    let text = fs::read_to_string(project.path().join("landfall.yml")).unwrap();
    let source = "    auth: { type: bearer, scheme: token, token: '${env:GITHUB_TOKEN}' }\n    headers: { Accept: application/vnd.github.v3+json }\n    rate_limit: { requests: 5000, per: 1h }\n    streams:";
    project.write("landfall.yml", &text.replace("    streams:", source));
    // The token of the recordings.
    project.env("GITHUB_TOKEN", "0000000000000000000000000000000000000001");
    project
}

/// The recorded answers of a scenario.
fn recorded(scenario: &str) -> Vec<Value> {
    let scenarios = "@octokit/fixtures/scenarios/api.github.com";
    let file = node_modules(servers::FIXTURES_SERVER)
        .join(format!("{scenarios}/{scenario}/normalized-fixture.json"));
    let exchanges: Vec<Value> = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    exchanges
        .into_iter()
        .map(|mut exchange| exchange["response"].take())
        .collect()
}

/// What tells one issue from another, by `id`.
fn issues(rows: &[Value]) -> Vec<Value> {
    let mut issues: Vec<Value> = rows
        .iter()
        .map(|row| json!([row["id"], row["number"], row["title"], row["state"]]))
        .collect();
    issues.sort_by_key(|issue| issue[0].as_i64());
    issues
}

#[test]
fn r031_the_issues_of_github_by_link_header_with_the_quota_in_the_facts() {
    let github = servers::github();
    let streams = r"
      issues:
        request: { path: /repos/octokit-fixture-org/paginate-issues/issues, params: { per_page: 3 } }
        paginate: { type: link_header }
        table: { keys: [id] }
";
    let project = github_project(&github, "paginate-issues", streams);
    let ran = project.ok(&["run"]);
    // A window of the quota that ended years ago holds up nobody.
    assert!(ran.stderr.contains("13 records in 5 pages"), "{}", ran.stderr);
    let truth: Vec<Value> = recorded("paginate-issues")
        .iter()
        .flat_map(|page| page.as_array().unwrap().clone())
        .collect();
    assert_eq!(truth.len(), 13);
    assert_eq!(issues(&project.rows("shop.issues")), issues(&truth));
    let id = format!("id={}", truth[12]["id"]);
    let explained = project.ok(&["explain", "shop.issues", &id]).stdout;
    for fact in ["x-ratelimit-limit: 5000", "x-ratelimit-remaining: 4999", "page=5"] {
        assert!(explained.contains(fact), "{fact}: {explained}");
    }
    // Each answer was recorded once.
    project.fails(&["run"], &["404", "not found"]);
    assert_eq!(project.rows("shop.issues").len(), 13);
}

#[test]
fn r011_a_search_of_github_is_one_page_with_a_total() {
    let github = servers::github();
    let streams = r"
      found:
        request: { path: /search/issues, params: { q: 'sesame repo:octokit-fixture-org/search-issues' } }
        records: $.items[*]
        paginate: { type: auto, total: $.total_count }
        table: { keys: [id] }
";
    let project = github_project(&github, "search-issues", streams);
    project.ok(&["run"]);
    let truth = recorded("search-issues").remove(0);
    let found = project.rows("shop.found");
    assert_eq!(Some(found.len() as u64), truth["total_count"].as_u64());
    assert_eq!(issues(&found), issues(truth["items"].as_array().unwrap()));
}

/// 23 posts, of which each has as many comments as its id says modulo 4.
fn blog() -> Value {
    let post = |id: i64| json!({"id": id, "title": format!("post {id}"), "updated": 1000 + id});
    let comment = |post: i64, number: i64| json!({"id": 100 * post + number, "body": format!("{number}"), "postId": post});
    let posts: Vec<Value> = (1..=23).map(post).collect();
    let comments: Vec<Value> = (1..=23)
        .flat_map(|post| (0..post % 4).map(move |number| comment(post, number)))
        .collect();
    json!({"posts": posts, "comments": comments})
}

/// What the server has now, by `id` as the table sorts it.
fn at_node(server: &Node, path: &str) -> Vec<Value> {
    let mut records = server.ask(path, None).as_array().unwrap().clone();
    records.sort_by_key(|record| match &record["id"] {
        Value::String(text) => (0, text.clone()),
        number => (number.as_i64().unwrap(), String::new()),
    });
    records
}

const COMMENTS: &str = r#"
      comments:
        request: { path: /comments, params: { postId: "{{ slice.post }}" } }
        slices: { by: { parent: pages, values: { post: $.id }, records: new } }
        table: { keys: [id] }
"#;

#[test]
fn r031_json_server_with_arrays_by_page_offset_key_and_link() {
    let server = servers::json_server("0.17.4", &blog());
    let streams = format!(
        r"
      pages:
        request: {{ path: /posts }}
        paginate: {{ type: page_number, param: _page, size: {{ records: 5, param: _limit }}, total: header:X-Total-Count }}
        incremental: {{ cursor: $.updated, param: updated_gte, format: integer }}
        table: {{ keys: [id], sequence_by: [updated] }}
      offsets:
        request: {{ path: /posts }}
        paginate: {{ type: offset, param: _start, size: {{ records: 5, param: _limit }}, total: header:X-Total-Count }}
        table: {{ keys: [id] }}
      by_id:
        request: {{ path: /posts, params: {{ _sort: id }} }}
        paginate: {{ type: keyset, key: $.id, param: id_gte, size: {{ records: 5, param: _limit }} }}
        table: {{ keys: [id] }}
      links:
        request: {{ path: /posts, params: {{ _page: 1, _limit: 5 }} }}
        paginate: {{ type: link_header }}
        table: {{ keys: [id] }}
      found:
        request: {{ path: /posts, params: {{ _page: 1, _limit: 5 }} }}
        paginate: {{ type: auto }}
        table: {{ keys: [id] }}
{COMMENTS}"
    );
    let project = TestProject::new(&server.base_url, &streams);
    let said = project.ok(&["run"]).stderr;
    assert!(
        said.contains("paginate auto: the relation next of the Link header"),
        "{said}"
    );
    let whole = |tables: &[&str]| {
        for table in tables {
            assert_same(
                &project.rows(&format!("shop.{table}")),
                &at_node(&server, "/posts"),
            );
        }
        assert_same(&project.rows("shop.comments"), &at_node(&server, "/comments"));
    };
    whole(&["pages", "offsets", "by_id", "links", "found"]);

    server.ask(
        "/posts",
        Some(&json!({"id": 24, "title": "post 24", "updated": 2000})),
    );
    server.ask("/comments", Some(&json!({"id": 2400, "body": "0", "postId": 24})));
    let before = server.ask("/log", None).as_array().unwrap().len();
    project.ok(&["run", "shop.pages", "shop.comments"]);
    whole(&["pages"]);
    // The newest post of the last run and the new one, the page behind them, and the comments of both.
    let log = server.ask("/log", None);
    assert_eq!(log.as_array().unwrap().len() - before - 2, 4, "{log}");
}

#[test]
fn r031_json_server_with_objects_by_page_token_and_offset() {
    let server = servers::json_server("1.0.0-beta.3", &blog());
    let paged = "records: $.data[*]\n        table: { keys: [id] }\n        request: { path: /posts, params: { _page: 1, _per_page: 5 } }";
    let streams = format!(
        r"
      pages:
        request: {{ path: /posts }}
        records: $.data[*]
        paginate:
          type: page_number
          param: _page
          size: {{ records: 5, param: _per_page }}
          stop: {{ pages: $.pages }}
          total: $.items
        table: {{ keys: [id] }}
      tokens:
        {paged}
        paginate: {{ type: cursor, from: $.next, param: _page }}
      found:
        {paged}
        paginate: {{ type: auto }}
      offsets:
        request: {{ path: /posts }}
        paginate: {{ type: offset, param: _start, size: {{ records: 5, param: _limit }} }}
        table: {{ keys: [id] }}
{COMMENTS}"
    );
    let project = TestProject::new(&server.base_url, &streams);
    let said = project.ok(&["run"]).stderr;
    assert!(
        said.contains("paginate auto: a token at $.next, sent back as parameter _page"),
        "{said}"
    );
    for table in ["pages", "tokens", "found", "offsets"] {
        assert_same(
            &project.rows(&format!("shop.{table}")),
            &at_node(&server, "/posts"),
        );
    }
    assert_same(&project.rows("shop.comments"), &at_node(&server, "/comments"));
}

#[test]
fn f045_a_server_that_repeats_its_last_page_for_ever_is_told_and_loses_nothing() {
    let server = servers::json_server("1.0.0-beta.3", &blog());
    let streams = r"
      posts:
        request: { path: /posts }
        records: $.data[*]
        paginate: { type: page_number, param: _page, size: { records: 5, param: _per_page } }
        table: { keys: [id] }
";
    let project = TestProject::new(&server.base_url, streams);
    project.fails(&["run"], &["pages that repeat"]);
    assert_same(&project.rows("shop.posts"), &at_node(&server, "/posts"));
    let short = streams.replace("_per_page }", "_per_page }, stop: { on_short_page: true }");
    let project = TestProject::new(&server.base_url, &short);
    project.ok(&["run"]);
    assert_same(&project.rows("shop.posts"), &at_node(&server, "/posts"));
}
