//! The names of a session, and what they show.

use std::{fs, path::Path as FilePath};

use arrow::{
    array::{ArrayRef, Int32Array, Int64Array, RecordBatch},
    datatypes::{Field, Schema},
};
use object_store::memory::InMemory;

use super::*;
use crate::{
    clock::{Clock, Timestamp},
    config::{Deletes, ScdType, WriteMode, read},
    raw::{
        BatchNumber, Bookmark, Page, PageFacts,
        layout::{self, SystemTable},
        log::BatchKind,
        write::Landing,
    },
    table::{AppId, CommitNote, RulesNote, merge::MergeOptions, side::Side, system::LoadRow},
    transform::quarantine::{LoadFacts, Origin, Rows, Samples},
};

const PROJECT: &str = "
lake: ./lake
sources:
  shop:
    base_url: https://shop.example/v1/
    streams:
      orders:
        request: { path: /orders }
        records: $.data[*]
        paginate: { type: none }
        table: { keys: [id] }
      order-lines:
        request: { path: /lines }
        records: $.data[*]
        paginate: { type: none }
        table: { keys: [id] }
";

struct Lake {
    store: Arc<dyn ObjectStore>,
    tables: Tables,
    session: Session,
}

fn lake() -> Lake {
    let project = Arc::new(read::parse(PROJECT, FilePath::new("/srv")).unwrap().project);
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let tables = Tables::new(Arc::clone(&store)).unwrap();
    let session = Session::new(&project, &tables, &store).unwrap();
    Lake {
        store,
        tables,
        session,
    }
}

fn stream() -> StreamName {
    StreamName::parse("shop.orders").unwrap()
}

impl Lake {
    async fn text(&self, sql: &str) -> Result<String> {
        let batches = self
            .session
            .sql(sql)
            .await?
            .collect()
            .await
            .map_err(|source| sql_error("run SQL", source))?;
        Ok(arrow::util::pretty::pretty_format_batches(&batches)
            .unwrap()
            .to_string())
    }

    async fn count(&self, table: &str) -> i64 {
        let frame = self.session.sql(&format!("SELECT * FROM {table}")).await.unwrap();
        i64::try_from(frame.count().await.unwrap()).unwrap()
    }

    /// Loads `ids` as raw batch `batch`.
    async fn load(&self, batch: i64, ids: &[i64]) {
        let rows = |value: i32| -> ArrayRef { Arc::new(Int32Array::from_value(value, ids.len())) };
        let columns: [(&str, ArrayRef); 4] = [
            ("id", Arc::new(Int64Array::from(ids.to_vec()))),
            ("_lf_batch", Arc::new(Int64Array::from_value(batch, ids.len()))),
            ("_lf_page", rows(0)),
            ("_lf_record", rows(0)),
        ];
        let fields: Vec<Field> = columns
            .iter()
            .map(|(name, array)| Field::new(*name, array.data_type().clone(), true))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let rows = RecordBatch::try_new(
            Arc::clone(&schema),
            columns.into_iter().map(|(_, array)| array).collect(),
        );
        let mut table = self
            .tables
            .open_or_create(&layout::table(&stream()), &schema, &[])
            .await
            .unwrap();
        let options = MergeOptions {
            keys: vec!["id".to_owned()],
            sequence_by: Vec::new(),
            scd_type: ScdType::Upsert,
            deletes: Deletes::Soft,
            write_mode: WriteMode::CopyOnWrite,
            tombstones: None,
        };
        let planned = table
            .plan_merge(vec![rows.unwrap()], &options, None)
            .await
            .unwrap();
        let note = CommitNote {
            app: AppId::new(&stream(), AppId::GENERATION),
            from: BatchNumber::new(batch).unwrap(),
            batch: BatchNumber::new(batch).unwrap(),
            load_id: format!("load-{batch}"),
            rules: RulesNote::default(),
            traces: Vec::new(),
        };
        table.commit_merge(planned, &note).await.unwrap();
    }

    /// Writes a quarantined record and a load row for raw batch `batch`, as a load does before its commit.
    async fn write_sides(&self, batch: i64) {
        let facts = LoadFacts {
            load_id: format!("load-{batch}"),
            loaded_at: Timestamp::UNIX_EPOCH,
            batch_to: batch,
        };
        let mut rows = Rows::new(facts, "1.0.0");
        let origin = Origin {
            batch,
            page: 0,
            record: 0,
            object: "raw/x",
        };
        let reason = crate::contract::Violation {
            class: crate::contract::ViolationClass::Enum,
            path: "status".to_owned(),
            expected: "one of \"paid\"".to_owned(),
            found: "string \"lost\"".to_owned(),
        };
        rows.push(origin, Some(br#"{"id":1}"#), &[reason], &mut Samples::of_part(1));
        let side = Side {
            path: layout::quarantine(&stream()),
            shared: false,
        };
        self.tables
            .append_side(&side, &[rows.finish().unwrap()])
            .await
            .unwrap();
        let row = LoadRow {
            stream: stream(),
            load_id: format!("load-{batch}"),
            batch_from: batch,
            batch_to: batch,
            started_at: Timestamp::UNIX_EPOCH,
            finished_at: Timestamp::UNIX_EPOCH,
            contract_version: "1.0.0".to_owned(),
            read: 2,
            merged: 1,
            superseded: 0,
            quarantined: 1,
            released: 0,
            deleted: 0,
            rescued: 0,
            replaced: 0,
            files_rewritten: 0,
            absent: 0,
            absent_held: 0,
        };
        let side = Side {
            path: layout::system(SystemTable::Loads),
            shared: true,
        };
        self.tables
            .append_side(&side, &[row.to_batch().unwrap()])
            .await
            .unwrap();
    }

    async fn land(&self, body: &'static [u8]) {
        let clock = Clock::from_fn(|| Timestamp::UNIX_EPOCH);
        let mut landing = Landing::open(
            Arc::clone(&self.store),
            stream(),
            clock,
            "run".to_owned(),
            "hash".to_owned(),
        )
        .await
        .unwrap();
        let facts = PageFacts::new(
            Timestamp::UNIX_EPOCH,
            "GET",
            "https://shop.example/v1/orders",
            200,
        );
        landing
            .append(Page {
                body: body.into(),
                facts,
            })
            .await
            .unwrap();
        landing
            .commit(BatchKind::Complete, Bookmark::default(), None)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_table_before_its_first_load_is_told_from_a_wrong_name() {
    let lake = lake();
    let error = lake.text("SELECT * FROM shop.orders").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("no load of shop.orders yet"), "{error}");
    let error = lake.text("SELECT * FROM shop.oders").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.chain().contains("'lake.shop.oders' not found"),
        "{}",
        error.chain()
    );
    assert!(error.chain().contains("SHOW TABLES"), "{}", error.chain());
}

#[tokio::test]
async fn everything_else_is_empty_before_the_first_load() {
    let lake = lake();
    for table in [
        "shop.orders__raw",
        "shop.\"order-lines__quarantine\"",
        "landfall.drift",
        "landfall.loads",
        "landfall.quarantine",
        "loads",
    ] {
        assert_eq!(lake.count(table).await, 0, "{table}");
    }
    assert_eq!(
        lake.count("information_schema.columns WHERE table_name = 'loads'")
            .await,
        19
    );
}

#[tokio::test]
async fn r008_nothing_can_be_changed_by_a_query() {
    let lake = lake();
    lake.load(0, &[1]).await;
    for sql in [
        "CREATE TABLE x AS SELECT 1",
        "DROP TABLE shop.orders",
        "INSERT INTO shop.orders SELECT * FROM shop.orders",
        "DELETE FROM shop.orders",
        "COPY shop.orders TO '/tmp/x.csv'",
        "SET datafusion.execution.batch_size = 1",
        "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
        "SELECT * FROM '/etc/passwd'",
        "SELECT 1; SELECT 2",
    ] {
        let error = lake.text(sql).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{sql}: {error}");
    }
    assert_eq!(lake.count("shop.orders").await, 1);
}

#[tokio::test]
async fn r008_rows_of_side_tables_beyond_the_watermark_are_not_shown() {
    let lake = lake();
    lake.write_sides(0).await;
    for table in ["shop.orders__quarantine", "landfall.quarantine", "landfall.loads"] {
        assert_eq!(lake.count(table).await, 0, "{table}");
    }
    lake.load(0, &[1]).await;
    lake.write_sides(1).await;
    for table in ["shop.orders__quarantine", "landfall.quarantine", "landfall.loads"] {
        assert_eq!(lake.count(table).await, 1, "{table}");
    }
    lake.load(1, &[2]).await;
    for table in [
        "shop.orders__quarantine",
        "landfall.quarantine",
        "landfall.loads",
        "shop.orders",
    ] {
        assert_eq!(lake.count(table).await, 2, "{table}");
    }
}

#[tokio::test]
async fn r008_raw_records_are_rows_and_what_is_no_text_is_null() {
    let lake = lake();
    lake.land(b"{\"data\": [{\"id\": 1.50}, {\"id\": \"\xff\"}]}")
        .await;
    lake.land(b"<html>").await;
    let text = lake
        .text("SELECT _lf_batch, _lf_record, class, record FROM shop.orders__raw ORDER BY 1, 2")
        .await;
    insta::assert_snapshot!(text.unwrap(), @r#"
    +-----------+------------+----------+--------------+
    | _lf_batch | _lf_record | class    | record       |
    +-----------+------------+----------+--------------+
    | 0         | 0          |          | {"id": 1.50} |
    | 0         | 1          |          |              |
    | 1         | -1         | not_json | <html>       |
    +-----------+------------+----------+--------------+
    "#);
}

#[tokio::test]
async fn every_sql_file_has_its_header_and_can_be_planned() {
    let lake = lake();
    let mut folders = vec![FilePath::new(env!("CARGO_MANIFEST_DIR")).join("sql")];
    let mut planned = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let heads: Vec<&str> = text
                .lines()
                .take(4)
                .map(|line| line.split(':').next().unwrap())
                .collect();
            assert_eq!(
                heads,
                ["-- in", "-- out", "-- grain", "-- params"],
                "{}",
                path.display()
            );
            // As `Session::of_quarantine` does.
            let text = text.replace("stream_quarantine", "shop.orders__quarantine");
            lake.session
                .sql(&text)
                .await
                .unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
            planned += 1;
        }
    }
    assert!(planned >= 4, "{planned}");
}

#[tokio::test]
async fn a_parameter_is_a_value_and_never_sql() {
    let lake = lake();
    let text = ScalarValue::from("' OR 1 = 1 --");
    let frame = lake
        .session
        .with_params("SELECT $x = 'a' AS same", vec![("x", text)])
        .await
        .unwrap();
    let rows = frame.collect().await.unwrap();
    assert_eq!(
        rows[0].column(0).as_ref(),
        &arrow::array::BooleanArray::from(vec![false])
    );
}
