//! Finding the records of a page, and judging and decoding them, beside arrow-json and serde_json on the same bytes.

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, Schema},
    json::{ReaderBuilder, reader::Decoder},
};
use divan::{Bencher, counter::BytesCount};
use landfall::{
    config::{OnMismatch, OnUnknown},
    contract::{
        Coercion, Column, ColumnType, Contract, Rules, TimestampFormat,
        judge::{Judge, JudgeOptions},
    },
    json::JsonPath,
};

use crate::orders::{Form, orders, page};

/// Records of one measurement: as many as a transform judges before it closes their columns.
const RECORDS: u64 = 8_192;

/// Rows in one batch of arrow-json; the table shows which size is its fastest.
const BATCH_ROWS: [usize; 3] = [256, 1_024, 8_192];

const FORMS: [Form; 3] = [Form::Plain, Form::Pretty, Form::Odd];

fn column(name: &str, kind: ColumnType) -> Column {
    Column {
        name: name.to_owned(),
        path: vec![name.to_owned()],
        kind,
        required: false,
        primary_key: name == "id",
        coercion: Coercion::Lossless,
        rules: Rules::default(),
        on_mismatch: None,
        on_unknown: None,
        classification: None,
        description: None,
    }
}

/// What a first transform would draft from the records.
fn contract() -> Contract {
    use ColumnType::{Array, Boolean, Integer, Number, Object, String, Timestamp};
    let address = ["street", "city", "zip"].map(|name| column(name, String));
    let customer = vec![
        column("id", Integer),
        column("name", String),
        column("email", String),
        column("address", Object(address.to_vec())),
    ];
    let line = vec![
        column("sku", String),
        column("quantity", Integer),
        column("price", Number),
    ];
    let columns = vec![
        column("id", Integer),
        column("updated_at", Timestamp(TimestampFormat::Rfc3339)),
        column("version", Integer),
        column("status", String),
        column("total", String),
        column("paid", Boolean),
        column("score", Number),
        column("customer", Object(customer)),
        column("lines", Array(Box::new(column("element", Object(line))))),
        column("tags", Array(Box::new(column("element", String)))),
        column("note", String),
    ];
    Contract {
        id: "orders".to_owned(),
        version: "1.0.0".to_owned(),
        status: "active".to_owned(),
        columns,
        quality: Vec::new(),
    }
}

/// Records with a judge.
struct Set {
    records: Vec<Vec<u8>>,
    judge: Judge,
}

impl Set {
    fn new(form: Form) -> Self {
        let records = orders(RECORDS, form);
        let options = JudgeOptions {
            keys: vec!["id".to_owned()],
            sequence_by: vec!["version".to_owned()],
            on_unknown: OnUnknown::Rescue,
            on_mismatch: OnMismatch::Quarantine,
            record_bytes_max: 1 << 20,
        };
        let judge = Judge::new(&contract(), options).unwrap();
        Self { records, judge }
    }

    fn bytes(&self) -> BytesCount {
        BytesCount::new(self.records.iter().map(Vec::len).sum::<usize>())
    }

    fn judged(&self) -> RecordBatch {
        let mut judging = self.judge.start();
        for record in &self.records {
            judging.push(record);
        }
        let judged = judging.finish().unwrap();
        assert!(judged.violations.is_empty());
        judged.batch
    }

    /// The columns of the contract for arrow-json, which knows no named zones.
    fn decoder(&self, rows: usize) -> Decoder {
        let schema = self.judge.schema();
        let columns = &schema.fields()[..schema.fields().len() - 1];
        let fields: Vec<Arc<Field>> = columns
            .iter()
            .map(|field| match field.data_type() {
                DataType::Timestamp(unit, Some(_)) => {
                    let utc = DataType::Timestamp(*unit, Some("+00:00".into()));
                    Arc::new(field.as_ref().clone().with_data_type(utc))
                }
                _ => Arc::clone(field),
            })
            .collect();
        ReaderBuilder::new(Arc::new(Schema::new(fields)))
            .with_batch_size(rows)
            .with_strict_mode(false)
            .build_decoder()
            .unwrap()
    }
}

#[divan::bench(args = FORMS)]
fn landfall(bencher: Bencher<'_, '_>, form: Form) {
    let set = Set::new(form);
    // The second batch has room in its columns from the start, as all but the first of a load.
    divan::black_box_drop(set.judged());
    bencher.counter(set.bytes()).bench_local(|| set.judged());
}

#[divan::bench(args = FORMS, consts = BATCH_ROWS)]
fn arrow_json<const ROWS: usize>(bencher: Bencher<'_, '_>, form: Form) {
    let set = Set::new(form);
    let mut lines = set.records.join(&b'\n');
    if form == Form::Pretty {
        lines.push(b'\n');
    }
    let mut decoder = set.decoder(ROWS);
    bencher.counter(set.bytes()).bench_local(|| {
        let (mut rest, mut batches) = (&lines[..], Vec::new());
        while !rest.is_empty() {
            let used = decoder.decode(rest).unwrap();
            rest = &rest[used..];
            batches.extend(decoder.flush().unwrap());
        }
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows, set.records.len());
        batches
    });
}

#[divan::bench(args = FORMS)]
fn serde_json_values(bencher: Bencher<'_, '_>, form: Form) {
    let set = Set::new(form);
    bencher.counter(set.bytes()).bench_local(|| {
        for record in &set.records {
            divan::black_box_drop(serde_json::from_slice::<serde_json::Value>(record).unwrap());
        }
    });
}

#[divan::bench(args = FORMS)]
fn landfall_records_of_a_page(bencher: Bencher<'_, '_>, form: Form) {
    let records = orders(1_000, form);
    let page = page(&records);
    let path = JsonPath::parse("$.data[*]").unwrap();
    bencher.counter(BytesCount::new(page.len())).bench_local(|| {
        let mut places = Vec::with_capacity(records.len());
        path.select(&page, &mut |place| places.push(place)).unwrap();
        assert_eq!(places.len(), records.len());
        places
    });
}
