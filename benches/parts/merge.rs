//! Merging into a table of many rows, beside MERGE of delta-rs on the same rows.
//!
//! Each measurement is a process of its own on a fresh copy of the table, so that its peak memory is its own. Each side
//! merges into files that it wrote itself, sorted by key, a million rows an append. Ours are durable when the commit is.
//! `benches/scaling.py` draws how that follows the table, the batch and the number of files.

use std::{
    env, fmt, fs,
    num::NonZeroU64,
    path::{Path as FilePath, PathBuf},
    process::Command,
    str::FromStr,
    sync::Arc,
    time::Instant,
};

use arrow::{
    array::{
        ArrayRef, BooleanArray, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
        TimestampMicrosecondArray,
    },
    datatypes::{Field, Schema},
};
use datafusion::prelude::{SessionContext, col};
use deltalake::{DeltaTable, kernel::StructType, kernel::engine::arrow_conversion::TryIntoKernel as _};
use landfall::{
    config::{Deletes, ScdType, StreamName, WriteMode},
    raw::{BatchNumber, durable::DurableLocal},
    table::{AppId, CommitNote, RulesNote, Table, Tables, merge::MergeOptions},
};
use object_store::path::Path;
use url::Url;

/// Rows of one append to the table.
const APPEND_ROWS: i64 = 1_000_000;

/// Rows of one Arrow batch.
const BATCH_ROWS: i64 = 16 * 1024;

/// Measurements of each, of which the fastest counts.
const ROUNDS: usize = 3;

/// What changes of most rows of most sources: a status, when it did, and what says so.
const TOUCHED: [&str; 4] = ["sequence", "kind", "at", "_lf_batch"];

const WORDS: [&str; 10] = [
    "alpha", "beta", "gamma", "delta", "street", "north", "customer", "order", "paid", "shipped",
];

/// Which keys a batch has, of a table with the keys 0 to its number of rows.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    /// So many, evenly over the table.
    Spread(i64),
    /// The same rows, of which only some columns changed: [`TOUCHED`].
    Touched(i64),
    /// So many, the greatest.
    Newest(i64),
    /// So many that the table does not have.
    New(i64),
}

impl Shape {
    /// The rows of a load of this shape.
    fn batches(self, rows: i64) -> Vec<RecordBatch> {
        let (keys, touched) = (self.keys(rows), matches!(self, Self::Touched(_)));
        let batches = batches(&keys, 1)
            .into_iter()
            .zip(keys.chunks(BATCH_ROWS as usize));
        batches
            .map(|(new, keys)| {
                if touched {
                    touch(&self::rows(keys, 0), &new)
                } else {
                    new
                }
            })
            .collect()
    }

    fn keys(self, rows: i64) -> Vec<i64> {
        match self {
            Self::Spread(count) | Self::Touched(count) => (0..count)
                .map(|at| at * rows / count + rows / count / 2)
                .collect(),
            Self::Newest(count) => (rows - count.min(rows)..rows).collect(),
            Self::New(count) => (rows..rows + count).collect(),
        }
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("no shape of a batch: {text}");
        let (kind, count) = text.split_once(':').ok_or_else(unknown)?;
        let count = count.parse().map_err(|_| unknown())?;
        match kind {
            "spread" => Ok(Self::Spread(count)),
            "touched" => Ok(Self::Touched(count)),
            "newest" => Ok(Self::Newest(count)),
            "new" => Ok(Self::New(count)),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spread(count) => write!(f, "spread:{count}"),
            Self::Touched(count) => write!(f, "touched:{count}"),
            Self::Newest(count) => write!(f, "newest:{count}"),
            Self::New(count) => write!(f, "new:{count}"),
        }
    }
}

/// Runs `merge` and what follows it of the command line.
pub(crate) fn main(words: &[String]) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match words {
        [one, side, shape, dir, rows] if one == "one" => {
            let shape = shape.parse().unwrap();
            runtime.block_on(measure(side, shape, FilePath::new(dir), rows.parse().unwrap()));
        }
        [make, side, dir, rows, files] if make == "make" && side == "files" => {
            let (rows, files) = (rows.parse::<i64>().unwrap(), files.parse::<i64>().unwrap());
            runtime.block_on(make_files(FilePath::new(dir), rows, (rows + files - 1) / files));
        }
        [make, side, dir, rows, files] if make == "make" => {
            let (rows, files) = (rows.parse::<i64>().unwrap(), files.parse::<i64>().unwrap());
            runtime.block_on(make_table(
                side,
                FilePath::new(dir),
                rows,
                (rows + files - 1) / files,
            ));
        }
        rest => compare(rest.first().map_or(1_000_000, |rows| rows.parse().unwrap())),
    }
}

fn compare(rows: i64) {
    let dir = tempfile::tempdir().unwrap();
    let base = |side: &str| dir.path().join(format!("base-{side}"));
    for side in ["landfall", "delta-rs"] {
        let appends = (rows + APPEND_ROWS - 1) / APPEND_ROWS;
        let (rows, appends) = (rows.to_string(), appends.to_string());
        again(&["make", side, base(side).to_str().unwrap(), &rows, &appends]);
        println!(
            "{side}: {} files, {} MiB",
            files(&base(side)).0,
            files(&base(side)).1 >> 20
        );
    }
    println!("| {rows} rows | landfall | delta-rs | ratio | CPU | memory |\n|---|---|---|---|---|---|");
    let shapes = [
        (Shape::Spread(rows / 10), "a tenth of the rows, spread"),
        (Shape::Touched(rows / 10), "a tenth, 4 columns changed"),
        (Shape::Spread(20), "20 rows, spread"),
        (Shape::Newest(100_000), "the newest 100,000 rows"),
        (Shape::New(100_000), "100,000 new keys"),
    ];
    for (shape, name) in shapes {
        let mut best = Vec::new();
        let sides: &[&str] = if matches!(shape, Shape::New(_)) {
            &["landfall", "delta-rs", "landfall-append", "delta-rs-append"]
        } else {
            &["landfall", "delta-rs", "landfall-on-read"]
        };
        let mut rounds: Vec<Vec<(f64, f64, u64)>> = vec![Vec::new(); sides.len()];
        for _ in 0..ROUNDS {
            for (of_side, side) in rounds.iter_mut().zip(sides) {
                let copy = dir.path().join("copy");
                let from = base(side.trim_end_matches("-append").trim_end_matches("-on-read"));
                let linked = Command::new("cp")
                    .arg("-al")
                    .arg(&from)
                    .arg(&copy)
                    .status()
                    .unwrap();
                assert!(linked.success());
                let words = [
                    "one",
                    side,
                    &shape.to_string(),
                    copy.to_str().unwrap(),
                    &rows.to_string(),
                ]
                .map(str::to_owned);
                let told = again(&words.iter().map(String::as_str).collect::<Vec<_>>());
                let mut told = told.split_whitespace();
                let mut next = || told.next().unwrap().to_owned();
                of_side.push((
                    next().parse().unwrap(),
                    next().parse().unwrap(),
                    next().parse().unwrap(),
                ));
                fs::remove_dir_all(copy).unwrap();
            }
        }
        for of_side in &mut rounds {
            of_side.sort_by(|a, b| a.0.total_cmp(&b.0));
            best.push(of_side[0]);
        }
        let line = |name: &str, ours: (f64, f64, u64), theirs: (f64, f64, u64)| {
            println!(
                "| {name} | {:.2} s | {:.2} s | {:.1} × | {:.1} s, {:.1} s | {} MiB, {} MiB |",
                ours.0,
                theirs.0,
                theirs.0 / ours.0,
                ours.1,
                theirs.1,
                ours.2,
                theirs.2
            );
        };
        line(name, best[0], best[1]);
        if let [_, theirs, marked] = best[..] {
            line("the same, merge on read", marked, theirs);
        }
        if let [merged, _, appended, theirs] = best[..] {
            line("the same appended", appended, theirs);
            println!("merged in {:.2} × the time of appended", merged.0 / appended.0);
        }
    }
}

fn again(words: &[&str]) -> String {
    let done = Command::new(env::current_exe().unwrap())
        .arg("merge")
        .args(words)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

fn files(dir: &FilePath) -> (usize, u64) {
    let mut found = (0, 0);
    for entry in fs::read_dir(dir.join("orders")).unwrap() {
        let entry = entry.unwrap();
        if entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "parquet")
        {
            found = (found.0 + 1, found.1 + entry.metadata().unwrap().len());
        }
    }
    found
}

/// A number that looks random but is a function of `seed`.
fn mixed(seed: i64) -> u64 {
    let mut value = (seed as u64)
        .wrapping_add(0x9E37_79B9_7F4A_7C15)
        .wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value ^= value >> 27;
    value = value.wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

fn text(seed: i64, words: u64) -> String {
    let mut text = String::new();
    for at in 0..words {
        text.push_str(WORDS[(mixed(seed * 31 + at as i64) % 10) as usize]);
        text.push(' ');
    }
    text.push_str(&(mixed(seed) % 100_000).to_string());
    text
}

/// The rows of `ids`, in the version `sequence`.
pub(crate) fn rows(ids: &[i64], sequence: i64) -> RecordBatch {
    let seeds = || ids.iter().map(|id| id * 4 + sequence);
    let numbers = |salt: i64| {
        seeds()
            .map(move |seed| mixed(seed * 16 + salt))
            .collect::<Vec<_>>()
    };
    let moments = numbers(1)
        .into_iter()
        .map(|number| 1_700_000_000_000_000 + (number % 100_000_000_000) as i64);
    let count = ids.len();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(ids.to_vec()))),
        ("sequence", Arc::new(Int64Array::from_value(sequence, count))),
        (
            "name",
            Arc::new(StringArray::from_iter_values(seeds().map(|seed| text(seed, 2)))),
        ),
        (
            "note",
            Arc::new(StringArray::from_iter_values(seeds().map(|seed| text(seed, 10)))),
        ),
        (
            "kind",
            Arc::new(StringArray::from_iter_values(
                numbers(2).iter().map(|number| WORDS[(number % 10) as usize]),
            )),
        ),
        (
            "amount",
            Arc::new(Float64Array::from_iter_values(
                numbers(3)
                    .iter()
                    .map(|number| (number % 10_000_000) as f64 / 100.0),
            )),
        ),
        (
            "share",
            Arc::new(Float64Array::from_iter_values(
                numbers(4).iter().map(|number| *number as f64 / u64::MAX as f64),
            )),
        ),
        (
            "at",
            Arc::new(TimestampMicrosecondArray::from_iter_values(moments).with_timezone("UTC")),
        ),
        (
            "paid",
            Arc::new(BooleanArray::from_iter(
                numbers(5).iter().map(|number| Some(number % 2 == 0)),
            )),
        ),
        (
            "day",
            Arc::new(Date32Array::from_iter_values(
                numbers(6).iter().map(|number| 19_000 + (number % 1_000) as i32),
            )),
        ),
        ("_lf_batch", Arc::new(Int64Array::from_value(sequence, count))),
        (
            "_lf_page",
            Arc::new(Int32Array::from_iter_values(
                ids.iter().map(|id| (id / 1_000 % 10_000) as i32),
            )),
        ),
        (
            "_lf_record",
            Arc::new(Int32Array::from_iter_values(
                ids.iter().map(|id| (id % 1_000) as i32),
            )),
        ),
    ];
    let fields = columns
        .iter()
        .map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
    let schema = Schema::new(fields.collect::<Vec<_>>());
    RecordBatch::try_new(
        Arc::new(schema),
        columns.into_iter().map(|(_, column)| column).collect(),
    )
    .unwrap()
}

/// `old` with what an update changes of `new`.
fn touch(old: &RecordBatch, new: &RecordBatch) -> RecordBatch {
    let schema = old.schema();
    let columns = schema.fields().iter().map(|field| {
        let touched = TOUCHED.contains(&field.name().as_str());
        let rows = if touched { new } else { old };
        Arc::clone(rows.column_by_name(field.name()).unwrap())
    });
    RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap()
}

fn batches(ids: &[i64], sequence: i64) -> Vec<RecordBatch> {
    ids.chunks(BATCH_ROWS as usize)
        .map(|ids| rows(ids, sequence))
        .collect()
}

/// A table of `rows` rows, `each` of them with an append.
async fn make_table(side: &str, dir: &FilePath, rows: i64, each: i64) {
    fs::create_dir_all(dir.join("orders")).unwrap();
    let mut table = None;
    for (number, start) in (0..rows).step_by(each as usize).enumerate() {
        let ids: Vec<i64> = (start..rows.min(start + each)).collect();
        let batches = batches(&ids, 0);
        if side == "landfall" && table.is_none() {
            table = Some(open(dir, &batches).await);
        }
        match &mut table {
            Some(table) => load(table, batches, number as i64, APPEND).await,
            None => append(dir, batches).await,
        }
    }
}

/// A table of `rows` rows, `each` of them in a file of its own, all written with one commit of delta-rs.
pub(crate) async fn make_files(dir: &FilePath, rows: i64, each: i64) {
    fs::create_dir_all(dir.join("orders")).unwrap();
    let (ids, expected): (Vec<i64>, i64) = ((0..rows).collect(), (rows + each - 1) / each);
    let batches: Vec<RecordBatch> = ids.chunks(each as usize).map(|ids| self::rows(ids, 0)).collect();
    let table = created(dir, &batches).await;
    // It looks at the size of a file after so many rows.
    let each = usize::try_from(each).unwrap();
    let written = table.write(batches).with_write_batch_size(each);
    let written = written.with_target_file_size(Some(NonZeroU64::MIN));
    written.await.unwrap();
    assert_eq!(files(dir).0 as i64, expected);
}

async fn measure(side: &str, shape: Shape, dir: &FilePath, rows: i64) {
    // Later than any append of the table.
    let number = 1_000_000;
    let batches = shape.batches(rows);
    let (before, begun) = (cpu_seconds(), Instant::now());
    match side {
        "landfall" => {
            let how = (ScdType::Upsert, WriteMode::CopyOnWrite);
            load(&mut open(dir, &batches).await, batches, number, how).await
        }
        "landfall-on-read" => {
            let how = (ScdType::Upsert, WriteMode::MergeOnRead);
            load(&mut open(dir, &batches).await, batches, number, how).await
        }
        "landfall-append" => load(&mut open(dir, &batches).await, batches, number, APPEND).await,
        "delta-rs" => merge(dir, batches).await,
        _ => append(dir, batches).await,
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{seconds} {} {}", cpu_seconds() - before, peak_mib());
}

const APPEND: (ScdType, WriteMode) = (ScdType::Append, WriteMode::CopyOnWrite);

async fn open(dir: &FilePath, batches: &[RecordBatch]) -> Table {
    let tables = Tables::new(Arc::new(DurableLocal::new(dir).unwrap())).unwrap();
    let orders = Path::from("orders");
    tables
        .open_or_create(&orders, &batches[0].schema(), &[])
        .await
        .unwrap()
}

async fn load(
    table: &mut Table,
    batches: Vec<RecordBatch>,
    number: i64,
    (scd_type, write_mode): (ScdType, WriteMode),
) {
    let options = MergeOptions {
        keys: vec!["id".to_owned()],
        sequence_by: vec!["sequence".to_owned()],
        scd_type,
        deletes: Deletes::Soft,
        write_mode,
        tombstones: None,
    };
    let planned = table.plan_merge(batches, &options, None).await.unwrap();
    let batch = BatchNumber::new(number).unwrap();
    let note = CommitNote {
        app: AppId::new(&StreamName::parse("shop.orders").unwrap(), 0),
        from: batch,
        batch,
        load_id: format!("load-{number}"),
        rules: RulesNote::default(),
        traces: Vec::new(),
    };
    table.commit_merge(planned, &note).await.unwrap();
}

fn place(dir: &FilePath) -> Url {
    Url::from_directory_path(PathBuf::from(dir).join("orders")).unwrap()
}

/// The table of delta-rs, made if it is not there.
async fn created(dir: &FilePath, batches: &[RecordBatch]) -> DeltaTable {
    let table = DeltaTable::try_from_url(place(dir)).await.unwrap();
    if table.version().is_none() {
        let kernel: StructType = batches[0].schema().as_ref().try_into_kernel().unwrap();
        table
            .clone()
            .create()
            .with_columns(kernel.fields().cloned())
            .await
            .unwrap();
    }
    DeltaTable::try_from_url(place(dir)).await.unwrap()
}

async fn append(dir: &FilePath, batches: Vec<RecordBatch>) {
    created(dir, &batches).await.write(batches).await.unwrap();
}

async fn merge(dir: &FilePath, batches: Vec<RecordBatch>) {
    let table = deltalake::open_table(place(dir)).await.unwrap();
    let names: Vec<String> = batches[0]
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    let source = SessionContext::new().read_batches(batches).unwrap();
    let (updates, inserts) = (names.clone(), names);
    let of = |name: &str| col(format!("source.{name}"));
    table
        .merge(source, col("target.id").eq(col("source.id")))
        .with_source_alias("source")
        .with_target_alias("target")
        .when_matched_update(|update| {
            let update = update.predicate(col("source.sequence").gt(col("target.sequence")));
            updates
                .iter()
                .fold(update, |update, name| update.update(name.as_str(), of(name)))
        })
        .unwrap()
        .when_not_matched_insert(|insert| {
            inserts
                .iter()
                .fold(insert, |insert, name| insert.set(name.as_str(), of(name)))
        })
        .unwrap()
        .await
        .unwrap();
}

/// Seconds of processor time of this process.
fn cpu_seconds() -> f64 {
    // Clock ticks are hundredths of a second on Linux; the 14th and 15th words are user and system time.
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let words: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = words[11].parse::<u64>().unwrap() + words[12].parse::<u64>().unwrap();
    ticks as f64 / 100.0
}

/// Peak resident memory of this process.
fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}
