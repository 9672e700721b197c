//! Files that records point to, against a scripted server: stored by content, checked, and never a reason to lose a
//! record.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use object_store::{ObjectStore, ObjectStoreExt as _, memory::InMemory, path::Path};

use super::server::{Reply, Server, extraction, json, path, source, status, wire};
use crate::{
    config::{
        Source,
        auth::Auth,
        files::Files,
        format::{Format, Syntax},
        paginate::Paginate,
        request::{Body, Method, Request, Tree},
        secret::Secret,
        text::{Expr, Text},
    },
    extract::window::Extraction,
    raw::{Bookmark, FileFact},
};

const SHA_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const MD5_ABC: &str = "kAFQmDzST7DWlj99KOF/cg==";

fn pointing(server: &Server) -> Source {
    let mut source = source(&server.url, Paginate::Single);
    source.streams[0].files = Some(Files {
        url: path("$.file_url"),
        request: None,
        target: None,
        checksum: Some(path("$.sum")),
        only: None,
        bytes_max: 1000,
        column: "_file".to_owned(),
        hosts: Vec::new(),
        at_once: 3,
    });
    source
}

fn settings(source: &mut Source) -> &mut Files {
    source.streams[0].files.as_mut().unwrap()
}

/// Records at `/orders`, and files: `/files/abc`, `/files/other`, `/files/twice` fails once.
async fn serving(records: impl Fn(&str) -> String + Send + Sync + 'static) -> Server {
    let (url, failed) = (OnceLock::new(), AtomicBool::new(false));
    Server::start(move |_, received| {
        let host = received.header("host").unwrap();
        let url = url.get_or_init(|| format!("http://{host}/v1"));
        let text = "content-type: text/plain\r\n";
        match received.target.strip_prefix("/v1").unwrap() {
            "/orders" => json(&format!(r#"{{"data":[{}]}}"#, records(url))),
            "/files/abc" => status(200, text, b"abc"),
            "/files/other" => status(200, "", b"other"),
            "/files/gzip" => status(200, "content-encoding: gzip\r\n", b"\x1f\x8bnot really"),
            "/files/large" => status(200, text, &[7; 1001]),
            "/files/part" => status(206, text, b"ab"),
            "/files/later" => status(202, text, b"come back later"),
            "/files/nothing" => status(204, "", b""),
            "/files/empty" => status(200, text, b""),
            "/files/endless" => wire("HTTP/1.0 200 OK\n\n", b"abc"),
            "/files/twice" if !failed.swap(true, Relaxed) => status(503, "", b""),
            "/files/twice" => status(200, text, b"abc"),
            _ => Reply::Close(b"HTTP/1.1 404 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec()),
        }
    })
    .await
}

/// The facts of every file of the first page, and the store.
async fn filed(source: &Source) -> (Vec<FileFact>, Arc<dyn ObjectStore>) {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    (first(run(source, &store)).await, store)
}

fn run(source: &Source, store: &Arc<dyn ObjectStore>) -> Extraction {
    extraction(source, Bookmark::default()).with_store(store)
}

async fn first(mut run: Extraction) -> Vec<FileFact> {
    run.next().await.unwrap().unwrap().page.unwrap().facts.files
}

fn place(sha256: &str) -> String {
    format!("raw/shop/orders/files/{}/{sha256}", &sha256[..2])
}

#[tokio::test]
async fn r096_files_are_stored_by_their_content_and_told_with_their_record() {
    let server = serving(|url| {
        format!(
            r#"{{"id":1,"file_url":"{url}/files/abc","sum":"{SHA_ABC}"}},{{"id":2}},
            {{"id":3,"file_url":"/v1/files/twice","sum":"{MD5_ABC}"}},{{"id":4,"file_url":"{url}/files/abc","sum":"{SHA_ABC}"}},
            {{"id":5,"file_url":"{url}/files/gzip"}}"#
        )
    })
    .await;
    let (files, store) = filed(&pointing(&server)).await;
    let abc = FileFact {
        record: 0,
        path: Some(place(SHA_ABC)),
        bytes: Some(3),
        sha256: Some(SHA_ABC.to_owned()),
        content_type: Some("text/plain".to_owned()),
        content_encoding: None,
        error: None,
    };
    let of = |record| FileFact {
        record,
        ..abc.clone()
    };
    assert_eq!(files[..3], [of(0), of(2), of(3)]);
    // What the server encoded is kept as it came: the checksum is of these bytes.
    assert_eq!(files[3].content_encoding.as_deref(), Some("gzip"));
    assert_eq!(files[3].bytes, Some(12));
    let stored = store.get(&Path::from(place(SHA_ABC))).await.unwrap();
    assert_eq!(stored.bytes().await.unwrap(), "abc");
    // The same URL with the same checksum is asked for once, and one that failed once more.
    let asked = |path: &str| {
        server
            .received()
            .iter()
            .filter(|received| received.target.ends_with(path))
            .count()
    };
    assert_eq!((asked("/abc"), asked("/twice"), asked("/gzip")), (1, 2, 1));
}

#[tokio::test]
async fn r096_a_file_that_is_there_by_its_checksum_is_not_fetched_again() {
    let server =
        serving(|url| format!(r#"{{"id":1,"file_url":"{url}/files/abc","sum":"sha256:{SHA_ABC}"}}"#)).await;
    let source = pointing(&server);
    let (_, store) = filed(&source).await;
    let again = first(run(&source, &store)).await;
    assert_eq!(again[0].path, Some(place(SHA_ABC)));
    assert_eq!(again[0].bytes, Some(3));
    let asked = server
        .received()
        .iter()
        .filter(|received| received.target.contains("/files/"))
        .count();
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn r096_a_file_that_cannot_be_had_does_not_lose_its_record() {
    let server = serving(|url| {
        format!(
            r#"{{"id":0,"file_url":"{url}/files/other","sum":"{MD5_ABC}"}},{{"id":1,"file_url":"{url}/files/large"}},
            {{"id":2,"file_url":"{url}/files/none?token=s3cr3t"}},{{"id":3,"file_url":"http://127.0.0.1:9/x?sig=s3cr3t"}},
            {{"id":4,"file_url":"{url}/files/abc","sum":"crc32:1"}},{{"id":5,"file_url":"{url}/files/endless"}},
            {{"id":6,"file_url":"http://"}},{{"id":7,"file_url":"file:///etc/passwd"}},
            {{"id":8,"file_url":"{url}/files/endless","sum":"{MD5_ABC}"}}"#
        )
    })
    .await;
    let source = pointing(&server);
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut run = run(&source, &store);
    let fetched = run.next().await.unwrap().unwrap();
    assert_eq!(fetched.records, 9);
    let files = fetched.page.unwrap().facts.files;
    let expected = [
        "verify file",
        "bytes_max",
        "status: 404",
        "off origin",
        "read checksum of a file",
        "tells no length",
        "read URL of a file",
        "off origin",
    ];
    assert_eq!(files.len(), 9);
    for (file, expected) in files.iter().zip(expected) {
        let error = file.error.as_deref().unwrap();
        assert!(error.contains(expected) && !error.contains("s3cr3t"), "{error}");
        assert_eq!((&file.path, &file.sha256), (&None, &None));
    }
    // Its checksum says that it is whole.
    assert_eq!(files[8].path, Some(place(SHA_ABC)));
    let notes = run.progress().notes();
    assert!(
        notes
            .iter()
            .any(|note| note.contains("the error is in the column _file")),
        "{notes:?}"
    );
    let listed = store
        .list_with_delimiter(Some(&Path::from("raw/shop/orders/files")))
        .await
        .unwrap();
    assert_eq!(listed.common_prefixes.len(), 1);
}

#[tokio::test]
async fn r096_other_hosts_are_asked_only_if_listed_and_never_with_credentials() {
    let away = Server::start(|_, received| {
        assert!(received.header("authorization").is_none());
        status(200, "", b"abc")
    })
    .await;
    let url = away.url.clone();
    let server = serving(move |_| format!(r#"{{"id":1,"file_url":"{url}/abc?sig=s3cr3t"}}"#)).await;
    let mut source = pointing(&server);
    source.auth = Auth::Bearer {
        scheme: "Bearer".to_owned(),
        token: Secret::literal("s3cr3t-token"),
    };
    let (files, _) = filed(&source).await;
    assert!(files[0].error.as_ref().unwrap().contains("off origin"));
    assert!(away.received().is_empty());
    settings(&mut source).hosts = vec![format!("127.0.0.1:{}", away.url.port().unwrap())];
    let (files, _) = filed(&source).await;
    assert_eq!(files[0].path, Some(place(SHA_ABC)), "{files:?}");
    assert_eq!(away.received().len(), 1);
    assert!(server.received()[0].header("authorization").is_some());
}

#[tokio::test]
async fn r096_records_of_every_format_may_point_to_files() {
    let server = Server::start(|_, received| match received.target.as_str() {
        "/v1/orders" => status(
            200,
            "",
            b"{\"file_url\":\"/v1/files/abc\"}\nbroken\n{\"file_url\":\"/v1/files/abc\"}\n",
        ),
        _ => status(200, "", b"abc"),
    })
    .await;
    let mut source = pointing(&server);
    source.streams[0].format = Format {
        syntax: Syntax::JsonLines,
        ..Format::JSON
    };
    let (files, _) = filed(&source).await;
    let records: Vec<u64> = files.iter().map(|file| file.record).collect();
    assert_eq!(records, [0, 2]);
}

#[tokio::test]
async fn r096_what_is_not_a_whole_file_is_not_kept_as_one() {
    let server = serving(|_| {
        let names = ["part", "later", "nothing", "empty"];
        let records = names.map(|name| format!(r#"{{"file_url":"/v1/files/{name}"}}"#));
        records.join(",")
    })
    .await;
    let (files, _) = filed(&pointing(&server)).await;
    for (file, status) in files.iter().zip(["206", "202", "204"]) {
        let error = file.error.as_deref().unwrap();
        assert!(error.contains(status) && file.path.is_none(), "{error}");
    }
    assert_eq!((files[3].bytes, &files[3].error), (Some(0), &None));
}

#[tokio::test]
async fn r096_a_record_that_only_cannot_be_asked_about_does_not_stop_its_page() {
    let server = serving(|url| {
        format!(
            r#"{{"name":7,"file_url":"{url}/files/abc"}},{{"name":"seven","file_url":"{url}/files/abc"}}"#
        )
    })
    .await;
    let mut source = pointing(&server);
    let only = Expr::parse("record.name | length == 5").unwrap();
    settings(&mut source).only = Some(only);
    let (files, _) = filed(&source).await;
    assert_eq!(files.len(), 2, "{files:?}");
    assert!(files[0].error.is_some() && files[0].path.is_none());
    assert_eq!(files[1].path, Some(place(SHA_ABC)));
}

/// Says where a file is, or has its content.
fn asking(server: &Server, path_of_request: &str) -> Source {
    let mut source = pointing(server);
    let text = |text: &str| Text::parse(text).unwrap();
    settings(&mut source).request = Some(Request {
        method: Method::Post,
        path: text(path_of_request),
        params: vec![("v".to_owned(), text("2"))],
        headers: vec![("x-kind".to_owned(), text("{{ config.kind }}"))],
        body: Body::Json(Tree::Object(vec![(
            "id".to_owned(),
            Tree::Text(text("{{ file.url }}")),
        )])),
    });
    source.config = vec![("kind".to_owned(), "raw".into())];
    source
}

async fn answering() -> Server {
    Server::start(|_, received| {
        let target = received.target.strip_prefix("/v1").unwrap();
        match (target, received.header("x-kind")) {
            ("/orders", _) => json(r#"{"data":[{"id":1,"file_url":7},{"id":2,"file_url":"a/b"},{"id":3}]}"#),
            ("/content/7?v=2", Some("raw")) => status(200, "", b"abc"),
            ("/where?v=2", Some("raw")) if received.body == r#"{"id":"7"}"# => {
                json(r#"{"at":"/v1/files/abc"}"#)
            }
            ("/where?v=2", Some("raw")) => json(r#"{"at":null}"#),
            ("/files/abc", None) => status(200, "", b"abc"),
            _ => status(404, "", b""),
        }
    })
    .await
}

#[tokio::test]
async fn r096_a_file_may_be_the_answer_to_a_request() {
    let server = answering().await;
    let (files, _) = filed(&asking(&server, "/content/{{ file.url }}")).await;
    assert_eq!(files.len(), 2);
    assert_eq!((files[0].record, files[0].sha256.as_deref()), (0, Some(SHA_ABC)));
    // The template keeps what it gives within its segment, and there is no such file.
    assert!(files[1].error.as_deref().unwrap().contains("404"), "{files:?}");
}

#[tokio::test]
async fn r096_a_request_may_answer_where_the_file_is() {
    let server = answering().await;
    let mut source = asking(&server, "/where");
    settings(&mut source).target = Some(path("$.at"));
    let (files, _) = filed(&source).await;
    assert_eq!((files[0].record, files[0].sha256.as_deref()), (0, Some(SHA_ABC)));
    let reason = files[1].error.as_deref().unwrap();
    assert!(reason.contains("find URL of a file"), "{reason}");
}
