//! Payloads that mean harm: each has its one result, is counted, and takes nothing else with it.

use serde_json::{Value, json};

use crate::support::{
    api::{Api, Scripted},
    project::{ITEMS_CONTRACT, TestProject},
};

const STREAM: &str = "
      items:
        request: { path: /items }
        format: jsonl
        table: { keys: [id], sequence_by: [updated], apply_as_deletes: deleted = true }
";

/// Bytes of the longest record that is read, and some more.
const TOO_LARGE_BYTES: usize = (16 << 20) + 1;

/// Members of a record that nobody asked for.
const MEMBERS: usize = 1_000;

/// What must become of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is a row, nothing changed in it.
    Row,
    /// The same, with what nobody knows in `_rescued`.
    Rescued,
    /// It is set aside for this reason.
    Aside(&'static str),
}

impl Fate {
    fn word(self) -> &'static str {
        match self {
            Self::Row => "row",
            Self::Rescued => "rescued",
            Self::Aside(reason) => reason,
        }
    }
}

/// Records in the bytes of the wire, each with what must become of it. Its place is its id.
fn cases() -> Vec<(Vec<u8>, Fate)> {
    use Fate::{Aside, Rescued, Row};
    let named = |name: &[u8]| [br#""name":""#, name, br#"""#].concat();
    let members: Vec<String> = (0..MEMBERS).map(|at| format!(r#""m{at}":{at}"#)).collect();
    let with = |more: String| [br#""name":"x","#, more.as_bytes()].concat();
    vec![
        (named(b"plain"), Row),
        (named(br"a\u0000b"), Row),
        (named(br"\u001b[2J\u001b]0;owned\u0007"), Row),
        (named("\u{202e}txt.exe".as_bytes()), Row),
        (named(br"'; DROP TABLE items; --"), Row),
        (named(b"a\0b"), Aside("not_json")),
        (named(b"a\x01b"), Aside("not_json")),
        (named(b"a\tb"), Aside("not_json")),
        (named(b"a\xffb"), Aside("not_json")),
        (named(b"\xc0\xaf"), Aside("not_json")),
        (named(br"\ud800"), Aside("not_json")),
        (named(&vec![b'x'; TOO_LARGE_BYTES]), Aside("too_large")),
        (
            with(r#""__proto__":{"admin":true},"constructor":1"#.to_owned()),
            Rescued,
        ),
        (
            with(r#""":1,"\u0000":2,"a\nb":3,"_deleted":true,"_lf_batch":9"#.to_owned()),
            Rescued,
        ),
        (with(format!(r#""{}":1"#, "k".repeat(100_000))), Rescued),
        (with(members.join(",")), Rescued),
        (
            with(format!(r#""deep":{}{}"#, "[".repeat(200), "]".repeat(200))),
            Aside("too_deep"),
        ),
        (with(r#""name":"y""#.to_owned()), Aside("duplicate_key")),
        (with(r#""n\u0061me":"y""#.to_owned()), Aside("duplicate_key")),
        (
            with(r#""deleted":1e999999999"#.to_owned()),
            Aside("type_mismatch"),
        ),
        (with(format!(r#""extra":{}"#, "9".repeat(10_000))), Rescued),
    ]
}

#[test]
fn r119_every_hostile_payload_has_one_result_and_is_counted() {
    let cases = cases();
    let mut page = Vec::new();
    for (id, (members, _)) in cases.iter().enumerate() {
        page.extend(format!(r#"{{"id":{id},"updated":{id},"#).bytes());
        page.extend(members);
        page.extend(b"}\n");
    }
    let api = Api::start(Vec::new());
    api.script(Scripted {
        status: 200,
        headers: vec![("content-type", "application/x-ndjson".to_owned())],
        body: page,
    });
    // One record a line: what is no JSON is one record, not a page.
    let project = TestProject::new(&api.base_url, STREAM);
    project.write("contracts/shop.items.odcs.yaml", ITEMS_CONTRACT);
    let ran = project.ok(&["run"]);
    assert!(!ran.stderr.contains('\u{1b}'), "{:?}", ran.stderr);

    // By their places in raw: large bodies are landed as several pages.
    let place = |row: &Value| [&row["_lf_page"], &row["_lf_record"]].map(|number| number.as_i64().unwrap());
    let rows = "SELECT _lf_page, _lf_record, _deleted, _rescued IS NOT NULL AS rescued FROM shop.items";
    let mut fates: Vec<_> = project
        .sql(rows)
        .iter()
        .map(|row| {
            assert_ne!(row["_deleted"], true, "{row}");
            (
                place(row),
                if row["rescued"] == true { "rescued" } else { "row" }.to_owned(),
            )
        })
        .collect();
    let aside = project.sql("SELECT _lf_page, _lf_record, class FROM shop.items__quarantine");
    fates.extend(
        aside
            .iter()
            .map(|row| (place(row), row["class"].as_str().unwrap().to_owned())),
    );
    fates.sort();
    let fates: Vec<&str> = fates.iter().map(|(_, fate)| fate.as_str()).collect();
    let expected: Vec<&str> = cases.iter().map(|(_, fate)| fate.word()).collect();
    assert_eq!(fates, expected);

    // Counted, and counted up: what was read is what became of it.
    let count = |wanted: fn(&Fate) -> bool| cases.iter().filter(|(_, fate)| wanted(fate)).count();
    let quarantined = count(|fate| matches!(fate, Fate::Aside(_)));
    let loads = project.sql("SELECT records_read, merged, quarantined, rescued FROM landfall.loads");
    assert_eq!(
        loads,
        [json!({
            "records_read": cases.len(),
            "merged": cases.len() - quarantined,
            "quarantined": quarantined,
            "rescued": count(|fate| *fate == Fate::Rescued),
        })]
    );
    let drift = project.sql("SELECT sum(records) n FROM landfall.drift WHERE kind = 'unknown'");
    assert!(drift[0]["n"].as_i64() > Some(0), "{drift:?}");

    // Text is kept as it was sent, and shown so that it does nothing to a terminal.
    let names = project.sql("SELECT name FROM shop.items WHERE id IN (1, 2, 4) ORDER BY id");
    let names: Vec<&str> = names.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["a\0b", "\u{1b}[2J\u{1b}]0;owned\u{7}", "'; DROP TABLE items; --"]
    );
    for command in [
        &["sql", "SELECT id, name FROM shop.items"][..],
        &["quarantine", "list"],
        &["quarantine", "show", "shop.items", "0/0/5"],
        &["drift"],
        &["explain", "shop.items", "2"],
        &["status"],
    ] {
        let shown = project.ok(command);
        let odd = |letter: char| letter.is_control() && letter != '\n';
        assert!(!(shown.stdout + &shown.stderr).contains(odd), "{command:?}");
    }
    let html = project.path().join("drift.html");
    project.ok(&["drift", "--html", html.to_str().unwrap()]);
    let html = std::fs::read_to_string(html).unwrap();
    assert!(!html.contains('\u{1b}') && !html.contains('\0'));
    project.ok(&["verify"]);
}
