//! Export jobs and files by reference through the real program: from the API to rows.

use std::{
    io::{Cursor, Write as _},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::support::{
    answers::{Answer, Answers},
    project::TestProject,
};

/// An API whose answers are a function of what is asked, `POST /exports`, and of how often that was asked before.
struct Scripted {
    answers: Answers,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    fn start(answer: impl Fn(&str, usize) -> (u16, Vec<u8>) + Send + Sync + 'static) -> Self {
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&asked);
        let answers = Answers::start(move |asked| {
            let what = format!("{} {}", asked.method, asked.path);
            let mut log = log.lock().unwrap();
            let before = log.iter().filter(|known| **known == what).count();
            let (status, body) = answer(&what, before);
            log.push(what);
            Answer {
                body,
                ..Answer::status(status)
            }
        });
        Self { answers, asked }
    }

    fn base_url(&self) -> &str {
        &self.answers.base_url
    }

    fn count(&self, what: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|known| known.starts_with(what)).count()
    }
}

fn archive(name: &str, text: &str) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.start_file(name, SimpleFileOptions::default()).unwrap();
    writer.write_all(text.as_bytes()).unwrap();
    writer.finish().unwrap().into_inner()
}

const EXPORT: &str = "      orders:
        request: { method: POST, path: /exports, json: { report: orders } }
        format: { type: csv, container: zip }
        job:
          id: $.id
          poll: { path: '/exports/{{ job.id }}' }
          status: $.status
          done: [completed]
          failed: [failed]
          every: 5ms
          urls: $.files[*].url
          delete: { path: '/exports/{{ job.id }}' }
        table: { keys: [id] }
";

/// An export that is ready at the third poll, in two archives.
fn export(what: &str, before: usize) -> (u16, Vec<u8>) {
    match what {
        "POST /exports" => (202, format!(r#"{{"id":"e{before}"}}"#).into_bytes()),
        "GET /files/a.zip" => (200, archive("a.csv", "id,name\n1,Ann\n2,Bob\n")),
        "GET /files/b.zip" => (200, archive("b.csv", "name,id\nEve,3\n")),
        poll if poll.starts_with("GET /exports/") => match before {
            0 | 1 => (200, br#"{"status":"running"}"#.to_vec()),
            _ => (
                200,
                br#"{"status":"completed","files":[{"url":"/files/a.zip"},{"url":"/files/b.zip"}]}"#.to_vec(),
            ),
        },
        delete if delete.starts_with("DELETE /exports/") => (204, Vec::new()),
        _ => (404, Vec::new()),
    }
}

fn names(project: &TestProject) -> Vec<Value> {
    project.sql("SELECT name FROM shop.orders ORDER BY name")
}

#[test]
fn an_export_of_zipped_csv_becomes_rows() {
    let api = Scripted::start(export);
    let project = TestProject::new(api.base_url(), EXPORT);
    let ran = project.ok(&["run"]);
    assert!(ran.stderr.contains("3 merged"), "{}", ran.stderr);
    let expected = ["Ann", "Bob", "Eve"].map(|name| json!({ "name": name }));
    assert_eq!(names(&project), expected);
    assert_eq!(
        (api.count("POST"), api.count("GET /files"), api.count("DELETE")),
        (1, 2, 1)
    );
    // The next run creates another job.
    project.ok(&["run"]);
    assert_eq!(names(&project), expected);
    assert_eq!((api.count("POST"), api.count("DELETE /exports/e1")), (2, 1));
}

#[test]
fn a_process_that_dies_goes_on_with_the_same_job() {
    // Before anything of it is landed, and once everything is.
    for (point, files) in [
        ("extract::page_appended=return", 3),
        ("raw::after_commit=2*off->return", 2),
    ] {
        let api = Scripted::start(export);
        let project = TestProject::new(api.base_url(), EXPORT);
        let died = project.run_armed(&["extract"], point);
        assert_eq!(died.code, None, "{point}: {}", died.stderr);
        assert_eq!((api.count("POST"), api.count("DELETE")), (1, 0), "{point}");
        project.ok(&["run"]);
        assert_eq!(names(&project).len(), 3, "{point}");
        assert_eq!((api.count("POST"), api.count("DELETE")), (1, 1), "{point}");
        assert!(
            api.count("GET /files") >= files,
            "{point}: {}",
            api.count("GET /files")
        );
    }
}

#[test]
fn a_process_that_dies_between_the_answer_and_the_commit_makes_no_second_job() {
    let keyed = EXPORT.replace(
        "json: { report: orders }",
        "headers: { Idempotency-Key: '{{ job.key }}' }, json: { report: orders }",
    );
    // A server that knows a repeated request by its key says the same job again.
    let api = Scripted::start(|what, before| match what {
        "POST /exports" => (202, br#"{"id":"e0"}"#.to_vec()),
        _ => export(what, before),
    });
    let project = TestProject::new(api.base_url(), &keyed);
    let died = project.run_armed(&["extract"], "raw::before_commit=1*off->return");
    assert_eq!(died.code, None, "{}", died.stderr);
    assert_eq!((api.count("POST"), api.count("GET")), (1, 0));
    let ran = project.ok(&["run"]);
    assert!(!ran.stderr.contains("may be left"), "{}", ran.stderr);
    assert_eq!((api.count("POST"), api.count("DELETE /exports/e0")), (2, 1));
    assert_eq!(names(&project).len(), 3);
    // Where no key is sent, it is said.
    let api = Scripted::start(export);
    let project = TestProject::new(api.base_url(), EXPORT);
    project.run_armed(&["extract"], "raw::before_commit=1*off->return");
    let ran = project.ok(&["run"]);
    assert!(
        ran.stderr.contains("one may be left at the server"),
        "{}",
        ran.stderr
    );
    assert_eq!(names(&project).len(), 3);
}

#[test]
fn a_check_creates_no_job() {
    let api = Scripted::start(export);
    let project = TestProject::new(api.base_url(), EXPORT);
    let checked = project.ok(&["check", "--connect"]);
    let said = format!("{}{}", checked.stdout, checked.stderr);
    assert!(
        said.contains("not tried: POST") && said.contains("would create a job"),
        "{said}"
    );
    project.ok(&["extract", "--dry-run"]);
    assert_eq!(
        (api.count("POST"), api.count("GET"), api.count("DELETE")),
        (0, 0, 0)
    );
}

#[test]
fn a_failed_export_is_said_and_the_next_run_creates_another() {
    let api = Scripted::start(|what, before| match what {
        "GET /exports/e0" => (200, br#"{"status":"failed","error":"report too large"}"#.to_vec()),
        _ => export(what, before),
    });
    let project = TestProject::new(api.base_url(), EXPORT);
    project.fails(&["run"], &["wait for export job", "report too large"]);
    project.ok(&["run"]);
    assert_eq!(names(&project).len(), 3);
    assert_eq!((api.count("POST"), api.count("DELETE /exports/e1")), (2, 1));
}

#[test]
fn r096_a_row_points_to_the_stored_bytes_of_its_file() {
    const BODY: &[u8] = b"%PDF-1.7 not really";
    let sum: String = Sha256::digest(BODY)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let declared = sum.clone();
    let api = Scripted::start(move |what, _| match what {
        "GET /invoices" => {
            let records = json!([
                {"id": 1, "pdf": "/files/1.pdf", "sum": declared},
                {"id": 2, "pdf": "/files/2.pdf", "sum": "0".repeat(64)},
                {"id": 3},
            ]);
            (200, records.to_string().into_bytes())
        }
        "GET /files/1.pdf" | "GET /files/2.pdf" => (200, BODY.to_vec()),
        _ => (404, Vec::new()),
    });
    let streams = "      invoices:
        request: { path: /invoices }
        files: { url: $.pdf, checksum: $.sum, column: document }
        table: { keys: [id] }
";
    let project = TestProject::new(api.base_url(), streams);
    project.ok(&["run"]);
    let rows = project.sql("SELECT id, document FROM shop.invoices ORDER BY id");
    assert_eq!(rows.len(), 3, "{rows:?}");
    let file = &rows[0]["document"];
    assert_eq!(file["sha256"], json!(sum), "{rows:?}");
    assert_eq!(file["bytes"], json!(BODY.len()));
    assert_eq!(file["error"], Value::Null);
    let path = file["path"].as_str().unwrap();
    assert_eq!(path, format!("raw/shop/invoices/files/{}/{sum}", &sum[..2]));
    assert_eq!(
        std::fs::read(project.path().join("lake").join(path)).unwrap(),
        BODY
    );
    assert!(
        rows[1]["document"]["error"]
            .as_str()
            .unwrap()
            .contains("verify file"),
        "{rows:?}"
    );
    assert_eq!(rows[1]["document"]["path"], Value::Null);
    assert_eq!(rows[2]["document"], Value::Null);
    let explained = project.ok(&["explain", "shop.invoices", "1"]).stdout;
    assert!(explained.contains(path), "{explained}");
    // The same content once more is neither fetched again nor stored again.
    project.ok(&["run"]);
    assert_eq!(
        (api.count("GET /files/1.pdf"), api.count("GET /files/2.pdf")),
        (1, 2)
    );
}
