//! What landing is made of: pages into a lake on disk, frames of zstd, the head of a raw log; and the plan of a merge.
//!
//! The length of a frame is no time, so the word `frames` prints that.

use std::{convert::identity, io::Write as _, sync::Arc, time::Instant};

use divan::{Bencher, counter::BytesCount};
use landfall::{
    clock::{Clock, Timestamp},
    config::{Deletes, ScdType, StreamName, WriteMode},
    raw::{
        Bookmark, Page, PageFacts,
        durable::DurableLocal,
        frame::{Frame, decode},
        layout::Key,
        log::{BatchKind, RawLog},
        write::Landing,
    },
    table::{Table, Tables, merge::MergeOptions},
};
use object_store::{ObjectStore, ObjectStoreExt as _, memory::InMemory, path::Path};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use zstd::zstd_safe::CParameter;

use crate::{
    merge::{make_files, rows},
    orders::{Form, orders, page},
};

/// Records of a page.
const PAGE_RECORDS: usize = 1_000;

/// Orders of a batch: about 18 MB.
const ORDERS: u64 = 20_000;

/// Events of a batch: as many bytes as the orders, and fewer pages than a batch may have.
const EVENTS: u64 = 75_000;

/// Bytes of an event, which is a page.
const EVENT_BYTES: usize = 240;

/// Entries of a raw log, or data files of a table.
const SIZES: [i64; 3] = [10, 1_000, 10_000];

/// Rows of a data file: few, because only the list of files is measured.
const FILE_ROWS: i64 = 10;

/// Bytes from which on a frame takes no more pages; with 0 each is alone. Landing has the third, and at most 256 pages.
const FRAME_BYTES: [usize; 5] = [0, 16 << 10, 64 << 10, 256 << 10, 1 << 20];

/// Measurements of each line of `frames`, of which the fastest counts.
const ROUNDS: usize = 3;

/// What frames are compressed with.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Zstd {
    level: i32,
    /// Logarithms of the window in bytes and of the places remembered, where the level's own are not taken.
    logs: Option<(u32, u32)>,
}

/// `LEVEL`, `WINDOW_LOG` and `HASH_LOG` of `src/raw/frame.rs`, which are private; `frames` stops if they are others.
const RAW: Zstd = Zstd {
    level: 1,
    logs: Some((21, 17)),
};

const SETTINGS: [Zstd; 6] = [
    Zstd {
        level: -5,
        logs: None,
    },
    Zstd {
        level: -1,
        logs: None,
    },
    Zstd { level: 1, logs: None },
    RAW,
    Zstd { level: 3, logs: None },
    Zstd { level: 6, logs: None },
];

impl Zstd {
    /// The data frame of `pages`, made step by step as `src/raw/frame.rs` does.
    fn frame(self, pages: &[Page]) -> Vec<u8> {
        let length = length(pages);
        let mut frame = Vec::with_capacity(length / 4);
        let mut encoder = zstd::Encoder::new(&mut frame, self.level).unwrap();
        encoder.include_checksum(true).unwrap();
        if let Some((window, hash)) = self.logs {
            encoder.set_parameter(CParameter::WindowLog(window)).unwrap();
            encoder.set_parameter(CParameter::HashLog(hash)).unwrap();
        }
        encoder.set_pledged_src_size(Some(length as u64)).unwrap();
        for one in pages {
            encoder.write_all(&one.body).unwrap();
            encoder.write_all(b"\n").unwrap();
        }
        encoder.finish().unwrap();
        frame
    }
}

/// Bytes of all bodies.
fn bytes(pages: &[Page]) -> usize {
    pages.iter().map(|one| one.body.len()).sum()
}

/// Bytes of `pages` in a frame, with a newline behind each.
fn length(pages: &[Page]) -> usize {
    bytes(pages) + pages.len()
}

/// A page of an API.
fn pulled(records: &[Vec<u8>]) -> Page {
    let url = "https://shop.example/orders?page=1";
    Page {
        body: page(records).into(),
        facts: PageFacts::new(Timestamp::UNIX_EPOCH, "GET", url, 200),
    }
}

/// A page of a producer, with facts of its own as a server keeps them.
fn pushed(number: usize, body: Vec<u8>) -> Page {
    let at = Timestamp::UNIX_EPOCH;
    Page {
        body: body.into(),
        facts: PageFacts {
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            trace_id: Some(format!("{number:032x}")),
            receipt: Some(format!("00000000-0000-7000-8000-{number:012x}")),
            producer: Some("till".to_owned()),
            first_seen_at: Some(at),
            ..PageFacts::new(at, "POST", "/v1/streams/shop/orders/records", 202)
        },
    }
}

/// A page for each event: the head of an order, and as much of its note as there is room for.
fn events() -> Vec<Page> {
    let orders = orders(EVENTS, Form::Plain);
    let event = |(number, order): (usize, &Vec<u8>)| {
        let order: serde_json::Value = serde_json::from_slice(order).unwrap();
        let mut event = format!(
            r#"{{"id":{},"updated_at":{},"status":{},"total":{},"note":{}"#,
            order["id"], order["updated_at"], order["status"], order["total"], order["note"]
        );
        event.truncate(EVENT_BYTES - 2);
        event.push_str("\"}");
        pushed(number, event.into_bytes())
    };
    orders.iter().enumerate().map(event).collect()
}

fn stream() -> StreamName {
    StreamName::parse("shop.orders").unwrap()
}

fn landing(runtime: &Runtime, store: Arc<dyn ObjectStore>) -> Landing {
    // Time stands still, so that no batch is spread over two hours.
    let clock = Clock::from_fn(|| Timestamp::UNIX_EPOCH);
    let opened = Landing::open(store, stream(), clock, "bench".to_owned(), String::new());
    runtime.block_on(opened).unwrap()
}

/// Measures how `pages` become one batch, durable on disk, behind the batches of the measurements before.
fn measure(bencher: Bencher<'_, '_>, pages: &[Page], kind: BatchKind, shares: fn(Landing) -> Landing) {
    let dir = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let store = Arc::new(DurableLocal::new(dir.path()).unwrap());
    let mut landing = shares(landing(&runtime, store));
    bencher
        .counter(BytesCount::new(bytes(pages)))
        .with_inputs(|| pages.to_vec())
        .bench_local_values(|taken| {
            runtime.block_on(async {
                for one in taken {
                    landing.append(one).await.unwrap();
                }
                landing.commit(kind, Bookmark::default(), None).await.unwrap()
            })
        });
}

#[divan::bench(sample_count = 30, sample_size = 1)]
fn land(bencher: Bencher<'_, '_>) {
    let records = orders(ORDERS, Form::Plain);
    let pages: Vec<Page> = records.chunks(PAGE_RECORDS).map(pulled).collect();
    measure(bencher, &pages, BatchKind::Pull, identity);
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn land_events_in_shared_frames(bencher: Bencher<'_, '_>) {
    measure(bencher, &events(), BatchKind::Push, Landing::with_shared_frames);
}

#[divan::bench(args = SETTINGS)]
fn compress(bencher: Bencher<'_, '_>, setting: Zstd) {
    let pages = [pulled(&orders(PAGE_RECORDS as u64, Form::Plain))];
    let count = BytesCount::new(bytes(&pages));
    bencher.counter(count).bench_local(|| setting.frame(&pages));
}

/// Prints how small frames become and how fast they are written and read, on one core.
pub(crate) fn sizes() {
    println!("| a page | frames | bytes in | bytes out | ratio | with facts | compressed | decompressed |");
    println!("|---|---|---|---|---|---|---|---|");
    let records = orders(ORDERS, Form::Plain);
    let paged = |count: usize| -> Vec<Page> { records.chunks(count).map(pulled).collect() };
    let pages = paged(PAGE_RECORDS);
    for setting in SETTINGS {
        line(&format!("{PAGE_RECORDS} orders, {setting:?}"), setting, &pages, 0);
    }
    for count in [100, 10] {
        line(&format!("{count} orders"), RAW, &paged(count), 0);
    }
    for (name, pages) in [("1 order", paged(1)), ("1 event", events())] {
        for frame_bytes in FRAME_BYTES {
            let name = format!("{name}, frames from {} KiB", frame_bytes >> 10);
            line(&name, RAW, &pages, frame_bytes);
        }
    }
}

/// The pages of each frame, where one that has `frame_bytes` takes no more.
fn grouped(pages: &[Page], frame_bytes: usize) -> Vec<&[Page]> {
    let (mut groups, mut start, mut sum) = (Vec::new(), 0, 0);
    for (at, one) in pages.iter().enumerate() {
        sum += one.body.len();
        if sum >= frame_bytes {
            groups.push(&pages[start..=at]);
            (start, sum) = (at + 1, 0);
        }
    }
    if start < pages.len() {
        groups.push(&pages[start..]);
    }
    groups
}

fn line(name: &str, setting: Zstd, pages: &[Page], frame_bytes: usize) {
    let (whole, groups) = (bytes(pages), grouped(pages, frame_bytes));
    let (mut compressing, mut reading) = (f64::INFINITY, f64::INFINITY);
    let mut frames = Vec::new();
    for _ in 0..ROUNDS {
        let each = groups.iter().map(|group| setting.frame(group));
        frames = timed(&mut compressing, || each.collect::<Vec<_>>());
        let read: usize = timed(&mut reading, || {
            let read = |(frame, group): (&Vec<u8>, &&[Page])| decode(frame, length(group) as u64).unwrap();
            frames.iter().zip(&groups).map(|pair| read(pair).len()).sum()
        });
        assert_eq!(read, length(pages));
    }
    let made: Vec<u64> = frames.iter().map(|frame| frame.len() as u64).collect();
    let (mut object, mut landed) = (Vec::new(), Vec::new());
    for group in &groups {
        landed.push(Frame::of(group).unwrap().append_to(&mut object)[0].frame_bytes);
    }
    assert!(setting != RAW || made == landed, "src/raw/frame.rs has others");
    let out: u64 = made.iter().sum();
    let facts = object.len() as u64 - landed.iter().sum::<u64>();
    println!(
        "| {name} | {} | {whole} | {out} | {:.2} | {} | {:.0} MB/s | {:.0} MB/s |",
        groups.len(),
        whole as f64 / out as f64,
        out + facts,
        whole as f64 / compressing / 1e6,
        whole as f64 / reading / 1e6,
    );
}

/// What `work` makes; `least` becomes its time in seconds if that is less.
fn timed<T>(least: &mut f64, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let made = work();
    *least = least.min(begun.elapsed().as_secs_f64());
    made
}

/// Measures the way to the newest of so many entries; nothing is kept from one measurement to the next.
///
/// The log is in memory, where nobody waits for a disk to make it, `without` some of what is written.
fn probe(bencher: Bencher<'_, '_>, entries: i64, without: &[Key]) {
    let runtime = Runtime::new().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut landing = landing(&runtime, Arc::clone(&store));
    runtime.block_on(async {
        for number in 0..entries {
            let body = format!(r#"{{"id":{number}}}"#).into_bytes();
            landing.append(pushed(number as usize, body)).await.unwrap();
            landing.commit_push(None).await.unwrap();
        }
        for key in without {
            store.delete(&key.path()).await.unwrap();
        }
    });
    let stream = stream();
    let log = RawLog { store, stream };
    bencher.bench_local(|| {
        let head = runtime.block_on(log.head()).unwrap().unwrap();
        assert_eq!(head.number.get(), entries - 1);
        head
    });
}

#[divan::bench(args = SIZES)]
fn probe_log(bencher: Bencher<'_, '_>, entries: i64) {
    probe(bencher, entries, &[]);
}

#[divan::bench(args = SIZES)]
fn probe_log_without_hint(bencher: Bencher<'_, '_>, entries: i64) {
    probe(bencher, entries, &[Key::Hint { stream: stream() }]);
}

/// A lake with a table of so many data files, which lives as long as the folder.
fn lake(runtime: &Runtime, files: i64) -> (TempDir, Arc<dyn ObjectStore>) {
    let dir = tempfile::tempdir().unwrap();
    runtime.block_on(make_files(dir.path(), files * FILE_ROWS, FILE_ROWS));
    let store = Arc::new(DurableLocal::new(dir.path()).unwrap());
    (dir, store)
}

/// The table, read from its log: what one opener keeps is not there for the next.
async fn opened(store: &Arc<dyn ObjectStore>) -> Table {
    let tables = Tables::new(Arc::clone(store)).unwrap();
    tables.open(&Path::from("orders")).await.unwrap().unwrap()
}

#[divan::bench(args = SIZES, sample_count = 20, sample_size = 1)]
fn open_table(bencher: Bencher<'_, '_>, files: i64) {
    let runtime = Runtime::new().unwrap();
    let (_dir, store) = lake(&runtime, files);
    bencher.bench_local(|| runtime.block_on(opened(&store)));
}

/// With opening before it; the one file that the plan writes, and deletes again, is part of the time.
#[divan::bench(args = SIZES, sample_count = 20, sample_size = 1)]
fn plan(bencher: Bencher<'_, '_>, files: i64) {
    let runtime = Runtime::new().unwrap();
    let (_dir, store) = lake(&runtime, files);
    let newest = rows(&[files * FILE_ROWS - 1], 1);
    let options = MergeOptions {
        keys: vec!["id".to_owned()],
        sequence_by: vec!["sequence".to_owned()],
        scd_type: ScdType::Upsert,
        deletes: Deletes::Soft,
        write_mode: WriteMode::CopyOnWrite,
        tombstones: None,
    };
    bencher.bench_local(|| {
        runtime.block_on(async {
            let table = opened(&store).await;
            let rows = vec![newest.clone()];
            let planned = table.plan_merge(rows, &options, None).await.unwrap();
            let counts = &planned.counts;
            assert_eq!((counts.files, counts.files_probed), (files as u64, 1));
            table.abandon(planned).await.unwrap();
        });
    });
}
