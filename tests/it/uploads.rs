//! Files that are larger than a request may be: announced, sent or fetched, and landed once by a server that is killed.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use object_store::ObjectStoreExt as _;
use reqwest::{Client, Method, Response, header::HeaderMap};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{project::TestProject, s3, serving::Server};

/// Longest anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A project with two producers, and small limits of what one request may have.
struct Shop {
    project: TestProject,
    token: String,
    other: String,
    client: Client,
}

/// What was answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Shop {
    fn new(lake: &str, uploads: &str) -> Self {
        let project = TestProject::new("http://127.0.0.1:9", "\n");
        let [(token, hash), (other, other_hash)] = [0, 1].map(|_| {
            let made = project.ok(&["token"]);
            let hash = made.stderr.trim().strip_prefix("hash: ").unwrap().to_owned();
            (made.stdout.trim().to_owned(), hash)
        });
        let text = format!(
            "{lake}
serve: {{ listen: '127.0.0.1:0', admin_listen: '127.0.0.1:0', uploads: {uploads} }}
producers:
  till: {{ scopes: [ingest], streams: [shop.items], tokens: {{ main: {{ hash: '{hash}' }} }} }}
  web: {{ scopes: [ingest], streams: ['shop.*'], tokens: {{ main: {{ hash: '{other_hash}' }} }} }}
sources:
  shop:
    streams:
      items: {{ push: {{ records_max: 50, bytes_max: 4KiB, record_bytes_max: 1KiB }}, table: {{ keys: [id] }} }}
"
        );
        project.write("landfall.yml", &text);
        Self {
            project,
            token,
            other,
            client: Client::builder().timeout(PATIENCE).build().unwrap(),
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        Answer::of(request.bearer_auth(&self.token).send().await.unwrap()).await
    }

    async fn announce(&self, server: &Server, key: Option<&str>, body: &Value) -> Answer {
        let request = self.client.post(at(server, "/v1/streams/shop/items/jobs"));
        let request = request
            .header("content-type", "application/json")
            .body(body.to_string());
        self.send(match key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        })
        .await
    }

    fn piece(
        &self,
        server: &Server,
        href: &str,
        offset: usize,
        bytes: &[u8],
        is_last: bool,
    ) -> reqwest::RequestBuilder {
        let request = self.client.patch(at(server, href));
        request
            .header("content-type", "application/partial-upload")
            .header("upload-offset", offset)
            .header("upload-complete", if is_last { "?1" } else { "?0" })
            .body(bytes.to_vec())
    }

    /// Where the next piece begins, and whether the file is complete.
    async fn offset(&self, server: &Server, href: &str) -> (usize, bool) {
        let answer = self
            .send(self.client.request(Method::HEAD, at(server, href)))
            .await;
        assert_eq!((answer.status, answer.header("cache-control")), (204, "no-store"));
        let offset = answer.header("upload-offset").parse().unwrap();
        (offset, answer.header("upload-complete") == "?1")
    }

    /// Sends what is missing of `file`, in pieces of `step` bytes.
    async fn upload(&self, server: &Server, href: &str, file: &[u8], step: usize) {
        let (mut at, mut is_complete) = self.offset(server, href).await;
        while !is_complete {
            let end = file.len().min(at + step);
            is_complete = end == file.len();
            let answer = self
                .send(self.piece(server, href, at, &file[at..end], is_complete))
                .await;
            assert_eq!(answer.status, if is_complete { 200 } else { 204 }, "{answer:?}");
            assert_eq!(
                answer.header("upload-complete"),
                if is_complete { "?1" } else { "?0" }
            );
            at = end;
        }
    }

    async fn job(&self, server: &Server, id: &str) -> Value {
        let answer = self
            .send(self.client.get(at(server, &format!("/v1/jobs/{id}"))))
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }

    /// The job when it has ended.
    async fn ended(&self, server: &Server, id: &str) -> Value {
        let began = Instant::now();
        loop {
            let job = self.job(server, id).await;
            if matches!(job["state"].as_str().unwrap(), "done" | "quarantined") {
                return job;
            }
            assert!(began.elapsed() < PATIENCE, "{job}");
            tokio::task::yield_now().await;
        }
    }

    /// The code of the problem that `body` ends with.
    async fn quarantined(&self, server: &Server, body: &Value) -> String {
        let made = self.announce(server, None, body).await;
        assert_eq!(made.status, 201, "{made:?}");
        let job = self.ended(server, made.id()).await;
        assert_eq!(job["state"], "quarantined", "{job}");
        assert_eq!((&job["records"], &job["receipts"]), (&json!(0), &json!([])));
        job["problem"]["code"].as_str().unwrap().to_owned()
    }

    /// The records in raw, in order of where they stand.
    fn raw(&self) -> Vec<String> {
        let rows = self
            .project
            .sql("SELECT record FROM shop.items__raw ORDER BY _lf_batch, _lf_page, _lf_record");
        rows.iter()
            .map(|row| row["record"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The files of uploads that are on the disk.
    fn kept(&self) -> Vec<PathBuf> {
        let files = self.project.files(".landfall/uploads");
        files
            .into_iter()
            .filter(|file| file.extension().is_some_and(|kind| kind == "bytes"))
            .collect()
    }

    /// Has the server die at these points from its next start on.
    fn arm(&mut self, failpoints: &str) {
        self.project.env("FAILPOINTS", failpoints);
    }
}

impl Answer {
    async fn of(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.unwrap();
        Self {
            status,
            headers,
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn id(&self) -> &str {
        self.body["id"].as_str().unwrap()
    }

    fn href(&self) -> &str {
        self.body["upload"]["href"].as_str().unwrap()
    }

    /// The status and the code of the problem.
    fn problem(&self) -> (u16, &str) {
        (self.status, self.body["code"].as_str().unwrap_or_default())
    }
}

fn at(server: &Server, path: &str) -> String {
    format!("{}{path}", server.producers)
}

fn lines(count: usize) -> Vec<String> {
    (0..count)
        .map(|id| json!({"id": id, "name": format!("item {id}")}).to_string())
        .collect()
}

fn text(lines: &[String]) -> Vec<u8> {
    format!("{}\n", lines.join("\n")).into_bytes()
}

fn announcement(file: &[u8]) -> Value {
    let sum: String = Sha256::digest(file)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    json!({"sha256": sum, "bytes": file.len()})
}

fn fetched(file: &[u8], url: &str) -> Value {
    let mut body = announcement(file);
    body["url"] = url.into();
    body
}

/// A server of the files of a folder that speaks as much HTTP as one needs: lengths, ETags, If-Match and ranges.
struct Files {
    address: String,
    dir: tempfile::TempDir,
    /// How many requests came.
    asked: Arc<AtomicUsize>,
    /// Done once, in the middle of the next file, which is then cut.
    cut: Arc<Cut>,
}

impl Files {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let dir = tempfile::tempdir().unwrap();
        let (asked, cut) = (Arc::<AtomicUsize>::default(), Arc::default());
        let files = Self {
            address,
            dir,
            asked: Arc::clone(&asked),
            cut: Arc::clone(&cut),
        };
        let root = files.dir.path().to_owned();
        // It ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                asked.fetch_add(1, Ordering::SeqCst);
                // Whoever hung up has its answer.
                let _ = answer(stream, &root, &cut);
            }
        });
        files
    }

    fn put(&self, name: &str, bytes: &[u8]) -> String {
        fs::write(self.dir.path().join(name), bytes).unwrap();
        format!("http://{}/{name}", self.address)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

type Cut = Mutex<Option<Box<dyn FnOnce() + Send>>>;

fn answer(mut stream: TcpStream, root: &Path, cut: &Cut) -> std::io::Result<()> {
    let mut head = BufReader::new(stream.try_clone()?).lines();
    let Some(first) = head.next() else {
        return Ok(());
    };
    let first = first?;
    let headers: Vec<String> = head
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .map(|line| line.to_ascii_lowercase())
        .collect();
    let header = |name: &str| headers.iter().find_map(|line| line.strip_prefix(name));
    let target = first.split(' ').nth(1).unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if query == "elsewhere" {
        return write!(
            stream,
            "HTTP/1.1 302 Found\r\nlocation: {path}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
    }
    let Ok(file) = fs::read(root.join(path.trim_start_matches('/'))) else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    };
    let etag = format!("\"{}\"", &announcement(&file)["sha256"].as_str().unwrap()[..16]);
    if header("if-match: ").is_some_and(|known| known != etag) {
        return stream.write_all(
            b"HTTP/1.1 412 Precondition Failed\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        );
    }
    let from = header("range: bytes=").map(|range| range.trim_end_matches('-').parse::<usize>().unwrap());
    let (status, begin) = match from {
        Some(from) => ("206 Partial Content", from),
        None => ("200 OK", 0),
    };
    let mut text = format!("HTTP/1.1 {status}\r\netag: {etag}\r\nconnection: close\r\n");
    if from.is_some() {
        text += &format!(
            "content-range: bytes {begin}-{}/{}\r\n",
            file.len() - 1,
            file.len()
        );
    }
    if query != "endless" {
        text += &format!("content-length: {}\r\n", file.len() - begin);
    }
    stream.write_all(format!("{text}\r\n").as_bytes())?;
    if let Some(cut) = cut.lock().unwrap().take() {
        stream.write_all(&file[begin..begin + (file.len() - begin) / 2])?;
        cut();
        return Ok(());
    }
    stream.write_all(&file[begin..])?;
    if query == "endless" {
        loop {
            stream.write_all(&file)?;
        }
    }
    // The other side closes when it has read all.
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read_to_end(&mut Vec::new()).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn r079_a_file_announced_again_is_one_job_and_lands_once_across_starts() {
    let shop = Shop::new("lake: ./lake", "{}");
    let server = Server::start(&shop.project);
    let (records, others) = (lines(120), lines(3));
    let (file, other) = (text(&records), text(&others));
    let made = shop.announce(&server, Some("\"a\""), &announcement(&file)).await;
    assert_eq!(
        (made.status, made.header("idempotency-replayed")),
        (201, ""),
        "{made:?}"
    );
    assert_eq!(made.header("location"), format!("/v1/jobs/{}", made.id()));
    assert_eq!(
        (&made.body["state"], &made.body["upload"]["chunk_bytes"]),
        (&json!("waiting_for_upload"), &json!(4096))
    );
    let again = shop.announce(&server, Some("a"), &announcement(&file)).await;
    assert_eq!(
        (again.status, again.header("idempotency-replayed")),
        (200, "true")
    );
    assert_eq!(again.id(), made.id());
    let reused = shop.announce(&server, Some("a"), &announcement(&other)).await;
    assert_eq!(reused.problem(), (422, "idempotency_key_reused"));
    // Without a key the file itself is one.
    let plain = shop.announce(&server, None, &announcement(&other)).await;
    let same = shop.announce(&server, None, &announcement(&other)).await;
    assert_eq!((plain.status, same.status), (201, 200));
    assert_eq!(plain.id(), same.id());
    assert_ne!(plain.id(), made.id());
    // A key is of one producer, and so is a job.
    let request = shop.client.post(at(&server, "/v1/streams/shop/items/jobs"));
    let request = request
        .header("content-type", "application/json")
        .header("idempotency-key", "a");
    let theirs = request
        .bearer_auth(&shop.other)
        .body(announcement(&file).to_string());
    let theirs = Answer::of(theirs.send().await.unwrap()).await;
    assert_eq!(theirs.status, 201);
    assert_ne!(theirs.id(), made.id());
    let hidden = shop
        .send(shop.client.get(at(&server, &format!("/v1/jobs/{}", theirs.id()))))
        .await;
    assert_eq!(hidden.problem(), (404, "job_not_found"));

    shop.upload(&server, made.href(), &file, 4096).await;
    let job = shop.ended(&server, made.id()).await;
    assert_eq!(
        (&job["state"], &job["records"], &job["refused"]),
        (&json!("done"), &json!(120), &json!(0)),
        "{job}"
    );
    // A batch has 50 records at most.
    assert_eq!(job["receipts"].as_array().unwrap().len(), 3);
    server.stop();
    let server = Server::start(&shop.project);
    let again = shop.announce(&server, Some("a"), &announcement(&file)).await;
    assert_eq!((again.status, &again.body["state"]), (200, &json!("done")));
    assert_eq!(again.id(), made.id());
    server.stop();
    assert_eq!(shop.raw(), records);
    shop.project.ok(&["run"]);
    let count = shop.project.sql("SELECT count(*) AS n FROM shop.items");
    assert_eq!(count, [json!({"n": 120})]);
}

#[tokio::test(flavor = "multi_thread")]
async fn r096_what_is_too_large_for_a_request_is_led_to_an_upload_and_lands_sent_or_fetched() {
    let s3 = s3::start().await;
    let files = Files::start();
    let allow = format!(
        "{{ allow: ['s3://{}/exports/', 'http://{}/'] }}",
        s3.bucket, files.address
    );
    let shop = Shop::new(&s3.lake("lake"), &allow);
    let server = Server::start(&shop.project);
    let all = lines(400);
    let [sent, stored, served] = [&all[..200], &all[200..300], &all[300..]].map(text);
    let request = shop.client.post(at(&server, "/v1/streams/shop/items/records"));
    let request = request
        .header("content-type", "application/x-ndjson")
        .body(sent.clone());
    let refused = shop.send(request).await;
    assert_eq!(refused.problem(), (413, "body_too_large"));
    let jobs = refused.body["upload"].as_str().unwrap();
    assert_eq!(refused.header("link"), format!("<{jobs}>; rel=\"related\""));
    assert_eq!(jobs, "/v1/streams/shop/items/jobs");

    let packed = zstd::encode_all(&sent[..], 3).unwrap();
    let mut body = announcement(&packed);
    body["content_encoding"] = "zstd".into();
    let made = shop.announce(&server, None, &body).await;
    let href = made.href().to_owned();
    let half = packed.len() / 2;
    let first = shop
        .send(shop.piece(&server, &href, 0, &packed[..half], false))
        .await;
    assert_eq!((first.status, first.header("upload-complete")), (204, "?0"));
    let wrong = shop
        .send(shop.piece(&server, &href, 0, &packed[..half], false))
        .await;
    assert_eq!(wrong.problem(), (409, "mismatching_upload_offset"));
    assert_eq!(
        (wrong.header("upload-offset"), wrong.header("upload-complete")),
        (half.to_string().as_str(), "?0")
    );
    assert_eq!(
        (
            &wrong.body["type"],
            &wrong.body["expected-offset"],
            &wrong.body["provided-offset"]
        ),
        (
            &json!("https://iana.org/assignments/http-problem-types#mismatching-upload-offset"),
            &json!(half),
            &json!(0)
        )
    );
    shop.upload(&server, &href, &packed, 4096).await;
    let job = shop.ended(&server, made.id()).await;
    assert_eq!(
        (&job["state"], &job["records"]),
        (&json!("done"), &json!(200)),
        "{job}"
    );
    let late = shop
        .send(shop.piece(&server, &href, packed.len(), b"", true))
        .await;
    assert_eq!(late.problem(), (400, "completed_upload"));
    assert_eq!(late.header("upload-complete"), "?1");

    let key = object_store::path::Path::from("exports/a b.jsonl");
    s3.client().put(&key, stored.clone().into()).await.unwrap();
    let url = format!("s3://{}/exports/a%20b.jsonl", s3.bucket);
    let by_store = shop.announce(&server, None, &fetched(&stored, &url)).await;
    assert_eq!(by_store.status, 201, "{by_store:?}");
    assert!(by_store.body["upload"].is_null());
    let url = format!("{}?signature=s3cr3t", files.put("b.jsonl", &served));
    let by_web = shop.announce(&server, None, &fetched(&served, &url)).await;
    for made in [&by_store, &by_web] {
        let job = shop.ended(&server, made.id()).await;
        assert_eq!(
            (&job["state"], &job["records"]),
            (&json!("done"), &json!(100)),
            "{job}"
        );
        assert!(!job.to_string().contains("s3cr3t"));
    }
    // Its checksum is looked at before anything of it is landed.
    let mut altered = served.clone();
    altered[10] ^= 1;
    let url = format!("s3://{}/exports/a%20b.jsonl", s3.bucket);
    let code = shop.quarantined(&server, &fetched(&altered, &url)).await;
    assert_eq!(code, "checksum_mismatch");
    assert_eq!(shop.kept(), [] as [PathBuf; 0]);
    let said = server.stop();
    assert!(!said.contains("s3cr3t"));
    let mut raw = shop.raw();
    let mut all = all;
    raw.sort();
    all.sort();
    assert_eq!(raw, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn f113_a_reference_that_is_not_what_it_should_be_is_quarantined_and_nothing_of_it_lands() {
    let files = Files::start();
    let port = files.address.rsplit(':').next().unwrap();
    let allow = format!(
        "{{ allow: ['http://{}/', 'http://localhost:{port}/'] }}",
        files.address
    );
    let shop = Shop::new("lake: ./lake", &allow);
    let server = Server::start(&shop.project);
    let good = text(&lines(100));
    let url = files.put("good.jsonl", &good);

    // What is not allowed is not even a job, and nobody is asked for it.
    for address in [
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1:1/x",
        "s3://other/x",
        "file:///etc/passwd",
        &url.replace("good", "%2e%2e/good"),
        &url.replace("http://", "http://user:pass@"),
    ] {
        let refused = shop.announce(&server, None, &fetched(&good, address)).await;
        assert_eq!(refused.problem(), (422, "url_not_allowed"), "{address}");
    }
    // A name that is allowed and leads to this machine.
    let private = url.replace("127.0.0.1", "localhost");
    let code = shop.quarantined(&server, &fetched(&good, &private)).await;
    assert_eq!(code, "url_not_allowed");
    assert_eq!(files.asked(), 0);

    let short = text(&lines(99));
    for (what, body, code) in [
        (
            "404",
            fetched(&good, &url.replace("good", "none")),
            "file_unavailable",
        ),
        ("size lie", fetched(&short, &url), "size_mismatch"),
        (
            "size lie, without a length",
            fetched(&short, &format!("{url}?endless")),
            "size_mismatch",
        ),
        (
            "a redirect",
            fetched(&good, &format!("{url}?elsewhere")),
            "url_not_allowed",
        ),
    ] {
        let mut body = body;
        // Each a job of its own.
        body["bytes"] = body["bytes"].clone();
        let key = format!("\"{what}\"").replace([' ', ','], "-");
        let made = shop.announce(&server, Some(&key), &body).await;
        let job = shop.ended(&server, made.id()).await;
        assert_eq!(job["problem"]["code"], code, "{what}: {job}");
        assert_eq!(job["receipts"], json!([]));
    }
    // Another file of the same size.
    let mut other = good.clone();
    other[3] ^= 1;
    let code = shop.quarantined(&server, &fetched(&other, &url)).await;
    assert_eq!(code, "checksum_mismatch");
    // It changes while it is fetched: the second half would be of another file.
    let changing = text(&lines(90));
    let url = files.put("changing.jsonl", &changing);
    let (path, after) = (files.dir.path().join("changing.jsonl"), {
        let mut after = changing.clone();
        after[3] ^= 1;
        after
    });
    *files.cut.lock().unwrap() = Some(Box::new(move || fs::write(path, after).unwrap()));
    let asked = files.asked();
    let code = shop.quarantined(&server, &fetched(&changing, &url)).await;
    assert_eq!(code, "file_changed");
    assert_eq!(files.asked() - asked, 2);
    assert_eq!(shop.kept(), [] as [PathBuf; 0]);

    // One that is only cut is fetched on from there; the same request as one that failed begins anew.
    files.put("changing.jsonl", &changing);
    *files.cut.lock().unwrap() = Some(Box::new(|| ()));
    let made = shop.announce(&server, None, &fetched(&changing, &url)).await;
    assert_eq!(made.status, 201);
    let job = shop.ended(&server, made.id()).await;
    assert_eq!(
        (&job["state"], &job["records"]),
        (&json!("done"), &json!(90)),
        "{job}"
    );
    server.stop();
    assert_eq!(shop.raw(), lines(90));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_between_and_within_pieces_says_where_to_go_on() {
    let mut shop = Shop::new("lake: ./lake", "{}");
    let records = lines(1000);
    let file = text(&records);
    let server = Server::start(&shop.project);
    let made = shop.announce(&server, None, &announcement(&file)).await;
    let href = made.href().to_owned();
    // Dies with the bytes of a piece on the disk, and nothing known of them.
    server.signal("KILL");
    server.end();
    shop.arm("uploads::after_bytes=3*off->return");
    let server = Server::start(&shop.project);
    let step = 1000;
    let mut told = 0;
    for piece in file.chunks(step).take(4) {
        let sent = shop.piece(&server, &href, told, piece, false);
        match sent.bearer_auth(&shop.token).send().await {
            Ok(answer) => {
                assert_eq!(answer.status(), 204);
                told += step;
            }
            Err(_) => break,
        }
    }
    assert_eq!(told, 3 * step);
    assert_eq!(server.end().0, None);
    shop.arm("");
    // Dies whenever it does, with a piece on its way.
    for _ in 0..6 {
        let server = Server::start(&shop.project);
        let (at, is_complete) = shop.offset(&server, &href).await;
        assert!(at >= told && at % step == 0 && !is_complete, "{at} {told}");
        told = at;
        let answer = shop
            .send(shop.piece(&server, &href, at, &file[at..at + step], false))
            .await;
        assert_eq!(answer.status, 204);
        told += step;
        let next = shop.piece(&server, &href, told, &file[told..told + step], false);
        let next = tokio::spawn(next.bearer_auth(&shop.token).send());
        server.signal("KILL");
        server.end();
        if next.await.unwrap().is_ok_and(|answer| answer.status() == 204) {
            told += step;
        }
    }
    let server = Server::start(&shop.project);
    shop.upload(&server, &href, &file, step).await;
    let job = shop.ended(&server, made.id()).await;
    assert_eq!(
        (&job["state"], &job["records"]),
        (&json!("done"), &json!(1000)),
        "{job}"
    );
    server.stop();
    assert_eq!(shop.raw(), records);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_while_it_lands_has_every_record_landed_once() {
    let files = Files::start();
    let allow = format!("{{ allow: ['http://{}/'] }}", files.address);
    let mut shop = Shop::new("lake: ./lake", &allow);
    let records = lines(2000);
    let file = text(&records);
    let body = fetched(&file, &files.put("a.jsonl", &file));
    // Dies with half of the file fetched, once its job is known.
    let (known, wait) = mpsc::channel();
    *files.cut.lock().unwrap() = Some(Box::new(move || wait.recv().unwrap()));
    shop.arm("uploads::after_fetched=return");
    let server = Server::start(&shop.project);
    let made = shop.announce(&server, Some("a"), &body).await;
    known.send(()).unwrap();
    assert_eq!(server.end().0, None);
    // With a batch in the spool of which nobody knows, twice; and with one of which the job knows.
    for point in [
        "uploads::after_append=4*off->return",
        "uploads::after_append=return",
        "uploads::after_batch=4*off->return",
    ] {
        shop.arm(point);
        let server = Server::start(&shop.project);
        let (code, said) = server.end();
        assert_eq!(code, None, "{point}: {said}");
    }
    shop.arm("");
    // Told to stop it ends behind a batch; killed it ends anywhere.
    for signal in ["TERM", "KILL", "TERM", "KILL"] {
        let server = Server::start(&shop.project);
        shop.job(&server, made.id()).await;
        server.signal(signal);
        let (code, said) = server.end();
        assert_eq!(code, (signal == "TERM").then_some(0), "{said}");
    }
    let server = Server::start(&shop.project);
    let job = shop.ended(&server, made.id()).await;
    assert_eq!(
        (&job["state"], &job["records"], &job["refused"]),
        (&json!("done"), &json!(2000), &json!(0)),
        "{job}"
    );
    assert!(job["receipts"].as_array().unwrap().len() >= 40);
    let again = shop.announce(&server, Some("a"), &body).await;
    assert_eq!((again.status, &again.body["state"]), (200, &json!("done")));
    // The rest was asked for, once; what was fetched was not asked for again.
    assert_eq!(files.asked(), 2);
    server.stop();
    assert_eq!(shop.raw(), records);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_beyond_a_limit_or_no_file_of_records_is_refused_and_says_why() {
    let shop = Shop::new("lake: ./lake", "{ size: 40KiB, job_size: 20KiB, jobs: 4 }");
    let server = Server::start(&shop.project);
    let sum = "0".repeat(64);
    let of = |bytes: usize| json!({"sha256": sum, "bytes": bytes});
    let large = shop.announce(&server, None, &of(20 * 1024 + 1)).await;
    assert_eq!(large.problem(), (413, "limit_reached"));
    let unfetched = shop
        .announce(
            &server,
            None,
            &json!({"sha256": sum, "bytes": 1, "url": "s3://b/x"}),
        )
        .await;
    assert_eq!(unfetched.problem(), (422, "url_not_allowed"));
    assert!(
        unfetched.body["detail"]
            .as_str()
            .unwrap()
            .contains("serve.uploads.allow")
    );
    let mut array = of(1);
    array["content_type"] = "application/json".into();
    assert_eq!(
        shop.announce(&server, None, &array).await.problem(),
        (415, "unsupported_media_type")
    );
    // One producer has three quarters of the bytes and of the jobs.
    let first = shop.announce(&server, None, &of(20 * 1024)).await;
    assert_eq!(first.status, 201);
    let full = shop.announce(&server, None, &of(11 * 1024)).await;
    assert_eq!(full.problem(), (507, "storage_full"));
    for bytes in [1, 2] {
        assert_eq!(shop.announce(&server, None, &of(bytes)).await.status, 201);
    }
    let many = shop.announce(&server, None, &of(3)).await;
    assert_eq!(many.problem(), (429, "concurrency_limited"));
    assert!(!many.header("retry-after").is_empty());

    let href = first.href();
    let oversized = shop
        .send(shop.piece(&server, href, 0, &[b'x'; 4097], false))
        .await;
    assert_eq!(oversized.problem(), (413, "body_too_large"));
    let wrong = shop.client.patch(at(&server, href)).body("x");
    let wrong = shop.send(wrong.header("content-type", "text/plain")).await;
    assert_eq!(wrong.problem(), (415, "unsupported_media_type"));
    let bare = shop.client.patch(at(&server, href)).body("x");
    let bare = shop
        .send(bare.header("content-type", "application/partial-upload"))
        .await;
    assert_eq!(bare.problem(), (400, "invalid_request"));
    let early = shop.send(shop.piece(&server, href, 0, b"x", true)).await;
    assert_eq!(early.problem(), (400, "inconsistent_upload_length"));
    let longer = shop
        .piece(&server, href, 0, b"x", false)
        .header("upload-length", 7);
    assert_eq!(
        shop.send(longer).await.problem(),
        (400, "inconsistent_upload_length")
    );
    assert_eq!(shop.offset(&server, href).await, (0, false));
    server.stop();

    let shop = Shop::new("lake: ./lake", "{ job_size: 64KiB }");
    let server = Server::start(&shop.project);
    let mut codes = Vec::new();
    let bomb = zstd::encode_all(&b"{}\n".repeat(1 << 20)[..], 1).unwrap();
    let long = format!("{{\"a\":\"{}\"}}\n", "x".repeat(1024)).into_bytes();
    for (file, packing) in [
        (b"no record\n[]\n".to_vec(), None),
        (b"{\"id\":1}\n".repeat(10), Some("gzip")),
        (bomb, Some("zstd")),
        (long, None),
        (b"\xEF\xBB\xBF{}\n".to_vec(), None),
        (b"\n \n".to_vec(), None),
    ] {
        let mut body = announcement(&file);
        if let Some(packing) = packing {
            body["content_encoding"] = packing.into();
        }
        let made = shop.announce(&server, None, &body).await;
        shop.upload(&server, made.href(), &file, 4096).await;
        let job = shop.ended(&server, made.id()).await;
        codes.push(job["problem"]["code"].as_str().unwrap().to_owned());
    }
    assert_eq!(
        codes,
        [
            "body_malformed",
            "body_undecodable",
            "body_expands_too_much",
            "record_too_large",
            "body_malformed",
            "body_malformed"
        ]
    );
    // Lines that are no records stand beside those that are, as in a batch with `mode=partial`.
    let mixed = b"{\"id\":1}\nno record\n{\"id\":2}\n".to_vec();
    let made = shop.announce(&server, None, &announcement(&mixed)).await;
    shop.upload(&server, made.href(), &mixed, 4096).await;
    let job = shop.ended(&server, made.id()).await;
    assert_eq!(
        (&job["state"], &job["records"], &job["refused"]),
        (&json!("done"), &json!(2), &json!(1)),
        "{job}"
    );
    server.stop();
    shop.project.ok(&["run"]);
    let rows = shop.project.sql("SELECT id FROM shop.items ORDER BY id");
    assert_eq!(rows, [json!({"id": 1}), json!({"id": 2})]);
}
