use arrow::array::{BinaryViewArray, Int32Array, Int64Array, StringArray, new_null_array};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{
    clock::Timestamp,
    config::{OnMismatch, OnUnknown, versions::Versions},
    contract::{
        Contract,
        contracts::{Contracts, Older},
        judge::{Judge, JudgeOptions},
        odcs,
    },
    json::JsonPath,
    transform::{judges::Bench, quality::Quality, scan, verdicts::Verdicts},
};

fn contract(version: &str, columns: &str) -> Contract {
    let head = "apiVersion: v3.1.0\nkind: DataContract\nid: a\nstatus: active\nschema:\n- name: a\n  logicalType: object\n  \
                properties:\n  - { name: id, logicalType: integer, required: true }\n";
    odcs::parse(&format!("version: {version}\n{head}{columns}"), "a.yaml").unwrap()
}

fn contracts() -> Contracts {
    let main = contract(
        "2.0.0",
        "  - { name: amount, logicalType: number, required: true }\n  - name: lines\n    logicalType: array\n    items: \
         { logicalType: object, properties: [{ name: price, logicalType: number }, { name: sku, logicalType: string }] }\n",
    );
    let first = contract(
        "1.0.0",
        "  - { name: amount, logicalType: integer }\n  - { name: note, logicalType: string }\n  - name: lines\n    \
         logicalType: array\n    items: { logicalType: object, properties: [{ name: price, logicalType: integer }] }\n",
    );
    let older = Older {
        values: vec!["1".to_owned()],
        contract: first,
        file: "one.yaml".into(),
    };
    Contracts::new(main, "two.yaml".into(), vec![older]).unwrap()
}

fn judge(contract: &Contract) -> Judge {
    let options = JudgeOptions {
        keys: vec!["id".to_owned()],
        sequence_by: Vec::new(),
        on_unknown: OnUnknown::Rescue,
        on_mismatch: OnMismatch::Quarantine,
        record_bytes_max: 1 << 20,
    };
    Judge::new(contract, options).unwrap()
}

/// The records, judged; each scan batch has the next of `cuts` of them.
fn judged(contracts: &Contracts, versions: Option<&Versions>, records: &[String], cuts: &[usize]) -> Split {
    let bench = |contract: &Contract| {
        let judge = judge(contract);
        let quality = Quality::new(contract, &judge.schema()).unwrap();
        Bench::new(contract.version.clone(), judge, quality)
    };
    let older = contracts
        .older
        .iter()
        .map(|older| bench(&older.contract))
        .collect();
    let judges = Judges::new(bench(&contracts.main), older, contracts, versions, None).unwrap();
    judged_by(Arc::new(judges), &[], records, cuts)
}

/// The same by `judges`.
fn judged_by(judges: Arc<Judges>, sequence_by: &[String], records: &[String], cuts: &[usize]) -> Split {
    let options = SplitOptions {
        judges,
        sequence_by: sequence_by.to_vec(),
        keys_aside: Vec::new(),
        deleted_column: false,
        content_column: true,
        facts: LoadFacts {
            load_id: String::new(),
            loaded_at: Timestamp::UNIX_EPOCH,
            batch_to: 0,
        },
        accepted: Some(Spill::never()),
        quarantined: Spill::never(),
    };
    let mut partition = Partition::new(&options, Samples::of_part(1));
    let (mut at, mut cuts) = (0, cuts.iter().cycle());
    while at < records.len() {
        let end = (at + cuts.next().unwrap()).min(records.len());
        partition.take(scanned(at, &records[at..end])).unwrap();
        at = end;
    }
    partition.finish().unwrap()
}

fn scanned(first: usize, records: &[String]) -> RecordBatch {
    let rows = records.len();
    let numbers = Int32Array::from_iter_values((first..first + rows).map(|number| number as i32));
    let schema = scan::schema();
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "_lf_batch" => Arc::new(Int64Array::from_value(0, rows)),
            "_lf_page" => Arc::new(Int32Array::from_value(0, rows)),
            "_lf_record" => Arc::new(numbers.clone()),
            "object" => Arc::new(StringArray::from_iter_values(std::iter::repeat_n("x", rows))),
            "record" => Arc::new(BinaryViewArray::from_iter_values(records)),
            _ => new_null_array(field.data_type(), rows),
        }
    });
    RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap()
}

/// Rows as JSON with their nulls left out, in their order.
fn rows(batches: &[RecordBatch]) -> Vec<Value> {
    let mut writer = arrow::json::ArrayWriter::new(Vec::new());
    writer.write_batches(&batches.iter().collect::<Vec<_>>()).unwrap();
    writer.finish().unwrap();
    let bytes = writer.into_inner();
    serde_json::from_slice(if bytes.is_empty() { b"[]" } else { &bytes }).unwrap()
}

fn versions() -> Versions {
    Versions {
        field: JsonPath::parse("$.v").unwrap(),
        contracts: vec![("1".to_owned(), "one.yaml".into())],
    }
}

fn a_record() -> impl Strategy<Value = (bool, String)> {
    let amount = prop_oneof![
        (-9_i64..99).prop_map(|whole| whole.to_string()),
        Just("2.5".to_owned()),
        Just("null".to_owned()),
        Just("9007199254740993".to_owned()),
        Just("\"x\"".to_owned()),
    ];
    let price = prop_oneof![Just("7"), Just("1.5"), Just("9007199254740993"), Just("null")];
    let lines = prop::collection::vec(price, 0..3);
    let more = prop_oneof![Just(""), Just(r#","note":"n""#), Just(r#","color":"red""#)];
    (any::<bool>(), 0..50_i64, amount, lines, more).prop_map(|(is_first, id, amount, lines, more)| {
        let version = if is_first { r#","v":1"# } else { r#","v":"2.0.0""# };
        let lines: Vec<String> = lines
            .iter()
            .map(|price| format!(r#"{{"price":{price}}}"#))
            .collect();
        let lines = lines.join(",");
        let record = format!(r#"{{"id":{id},"amount":{amount},"lines":[{lines}]{more}{version}}}"#);
        (is_first, record)
    })
}

proptest! {
    #[test]
    fn r111_a_mix_of_versions_gives_what_each_gives_by_itself(
        records in prop::collection::vec(a_record(), 0..60),
        cuts in prop::collection::vec(1_usize..9, 1..4),
    ) {
        let all = contracts();
        let texts: Vec<String> = records.iter().map(|(_, record)| record.clone()).collect();
        let mixed = judged(&all, Some(&versions()), &texts, &cuts);
        prop_assert_eq!(mixed.counts.read, mixed.counts.accepted + mixed.counts.quarantined);
        prop_assert_eq!(mixed.main.observed.rows() + mixed.older[0].observed.rows(), mixed.counts.read);

        // Each contract alone, over its own records.
        let mut apart = Vec::new();
        let mut counts = SplitCounts { read: 0, ..mixed.counts };
        for (contract, is_first) in [(&all.main, false), (&all.older[0].contract, true)] {
            let alone = Contracts::new(contract.clone(), "alone.yaml".into(), Vec::new()).unwrap();
            let own: Vec<usize> = (0..records.len()).filter(|&at| records[at].0 == is_first).collect();
            let texts: Vec<String> = own.iter().map(|&at| records[at].1.clone()).collect();
            let split = judged(&alone, None, &texts, &[7]);
            counts.read += split.counts.read;
            for mut row in rows(split.accepted.held().unwrap()) {
                // Beyond the numbers that a double holds the wider column has no such row.
                if is_first && row.to_string().contains("9007199254740993") {
                    continue;
                }
                let at = own[row["_lf_record"].as_u64().unwrap() as usize];
                row["_lf_record"] = at.into();
                apart.push((at, row));
            }
        }
        prop_assert_eq!(counts.read, mixed.counts.read);
        apart.sort_by_key(|(at, _)| *at);
        let as_doubles = |row: &Value| row.to_string().replace(".0", "");
        let apart: Vec<String> = apart.iter().map(|(_, row)| as_doubles(row)).collect();
        let mixed: Vec<String> = rows(mixed.accepted.held().unwrap()).iter().map(as_doubles).collect();
        prop_assert_eq!(mixed, apart);
    }
}

/// Two contracts with a rule, and deletions that may do without what is required.
fn judges_with_all(sequence_by: &[String]) -> Arc<Judges> {
    let columns = "  - { name: amount, logicalType: number, required: true }\n  - { name: updated, logicalType: integer }\n  \
                   - { name: deleted, logicalType: boolean }\n  - name: lines\n    logicalType: array\n    items: \
                   { logicalType: object, properties: [{ name: price, logicalType: number, required: true }] }\n";
    let rules = "quality:\n  - { type: custom, engine: landfall, name: ratio, implementation: \"amount / updated < 40\" }\n  \
                 - { type: custom, engine: landfall, name: mild, severity: warning, implementation: amount > 0 }\n  ";
    let with_rules = |version: &str, columns: &str| {
        let text = "apiVersion: v3.1.0\nkind: DataContract\nid: a\nstatus: active\nschema:\n- name: a\n  logicalType: object\n  ";
        let id = "properties:\n  - { name: id, logicalType: integer, required: true }\n";
        odcs::parse(
            &format!("version: {version}\n{text}{rules}{id}{columns}"),
            "a.yaml",
        )
        .unwrap()
    };
    let older = Older {
        values: vec!["1".to_owned()],
        contract: with_rules("1.0.0", &columns.replacen("number", "integer", 1)),
        file: "one.yaml".into(),
    };
    let all = Contracts::new(with_rules("2.0.0", columns), "two.yaml".into(), vec![older]).unwrap();
    let bench = |contract: &Contract| {
        let options = JudgeOptions {
            keys: vec!["id".to_owned()],
            sequence_by: sequence_by.to_vec(),
            on_unknown: OnUnknown::Rescue,
            on_mismatch: OnMismatch::Quarantine,
            record_bytes_max: 200,
        };
        let judge = Judge::new(contract, options).unwrap();
        let quality = Quality::new(contract, &judge.schema()).unwrap();
        Bench::new(contract.version.clone(), judge, quality)
    };
    let older = vec![bench(&all.older[0].contract)];
    let deletes = Some("deleted = true AND 1 / (id - 7) < 5");
    Arc::new(Judges::new(bench(&all.main), older, &all, Some(&versions()), deletes).unwrap())
}

/// Records, and what is none.
fn anything() -> impl Strategy<Value = String> {
    let value = |more: &'static [&'static str]| {
        prop_oneof![
            (-9_i64..99).prop_map(|whole| whole.to_string()),
            prop::sample::select(more).prop_map(str::to_owned),
        ]
    };
    let number = value(&["2.5", "null", "\"x\"", "1e999", "9007199254740993", "0"]);
    let members = (
        value(&["7", "null", "\"1\"", "1.5"]),
        prop::option::of(number),
        prop::option::of(value(&["null", "0", "[]"])),
        prop::option::of(prop::sample::select(vec!["true", "false", "null", "1"])),
        prop::option::of(prop::sample::select(vec![
            "[]",
            "[{\"price\":1}]",
            "[{}]",
            "[null]",
            "{}",
        ])),
        prop::sample::select(vec![
            "",
            r#","v":1"#,
            r#","v":"2.0.0""#,
            r#","v":{}"#,
            r#","id":1"#,
            r#","x":{"y":[1]}"#,
        ]),
    );
    let record = members.prop_map(|(id, amount, updated, deleted, lines, more)| {
        let member = |name: &str, value: Option<String>| {
            value.map_or(String::new(), |value| format!(r#","{name}":{value}"#))
        };
        let (amount, updated) = (member("amount", amount), member("updated", updated));
        let owned = |value: Option<&str>| value.map(str::to_owned);
        let (deleted, lines) = (member("deleted", owned(deleted)), member("lines", owned(lines)));
        format!("{{\"id\":{id}{amount}{updated}{deleted}{lines}{more}}}")
    });
    let long = Just(format!(
        "{{\"id\":1,\"amount\":1,\"long\":\"{}\"}}",
        "x".repeat(200)
    ));
    let junk = prop_oneof![
        Just("[1]".to_owned()),
        Just("\"\\ud800\"".to_owned()),
        "\\PC{0,12}",
        long
    ];
    prop_oneof![9 => record, 1 => junk]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn r113_before_it_lands_a_record_is_judged_as_it_is_afterwards(
        records in prop::collection::vec(anything(), 0..60),
        cuts in prop::collection::vec(1_usize..9, 1..4),
        is_ordered in any::<bool>(),
    ) {
        let sequence_by: Vec<String> = if is_ordered { vec!["updated".to_owned()] } else { Vec::new() };
        let judges = judges_with_all(&sequence_by);
        let split = judged_by(Arc::clone(&judges), &sequence_by, &records, &cuts);
        let mut afterwards: Vec<(u64, String, String)> = rows(split.quarantined.held().unwrap())
            .iter()
            .map(|row| {
                let text = |name: &str| row[name].as_str().unwrap().to_owned();
                (row["_lf_record"].as_u64().unwrap(), text("class"), text("path"))
            })
            .collect();
        afterwards.sort();

        let mut before = Vec::new();
        let tell = &mut |number, reasons: Vec<Violation>| {
            before.push((number, reasons[0].class.to_string(), reasons[0].path.clone()));
        };
        let mut verdicts = Verdicts::new(&judges, &sequence_by);
        for record in &records {
            verdicts.push(record.as_bytes(), tell).unwrap();
        }
        prop_assert_eq!(verdicts.end(tell).unwrap(), records.len() as u64);
        prop_assert_eq!(before, afterwards);
    }
}

#[test]
fn many_records_are_told_in_their_order_and_only_the_unfit() {
    let judges = judges_with_all(&[]);
    let record = |id: u64| match id % 3 {
        0 => format!(r#"{{"id":{id},"amount":1,"v":1}}"#),
        1 => format!(r#"{{"id":{id},"v":1}}"#),
        _ => format!(r#"{{"id":{id}}}"#),
    };
    let mut told = Vec::new();
    let tell = &mut |number, _: Vec<Violation>| told.push(number);
    let mut verdicts = Verdicts::new(&judges, &[]);
    for id in 0..5_000 {
        verdicts.push(record(id).as_bytes(), tell).unwrap();
    }
    assert_eq!(verdicts.end(tell).unwrap(), 5_000);
    // The older contract asks for an amount too.
    let expected: Vec<u64> = (0..5_000).filter(|id| id % 3 != 0).collect();
    assert_eq!(told, expected);
}

#[test]
fn records_of_versions_that_are_not_listed_are_told_and_judged_by_the_main_contract() {
    let record = |id: i64, version: &str| format!(r#"{{"id":{id},"amount":{id},"v":{version}}}"#);
    let records = [
        record(1, "1"),
        record(2, r#""3""#),
        record(3, "true"),
        record(4, "null"),
        record(5, r#""2.0.0""#),
        record(6, "{}"),
        record(7, r#""3""#),
    ];
    let split = judged(&contracts(), Some(&versions()), &records, &[100]);
    assert_eq!(split.counts.accepted, 7);
    assert_eq!(split.older[0].observed.rows(), 1);
    assert_eq!(split.main.observed.rows(), 6);
    let bench = |contract: &Contract| {
        Bench::new(
            contract.version.clone(),
            judge(contract),
            Quality::new(contract, &judge(contract).schema()).unwrap(),
        )
    };
    let all = contracts();
    let judges = Judges::new(
        bench(&all.main),
        vec![bench(&all.older[0].contract)],
        &all,
        Some(&versions()),
        None,
    );
    let change = judges
        .unwrap()
        .unlisted(&split.unlisted, split.counts.read)
        .unwrap();
    let samples: Vec<String> = change
        .samples
        .iter()
        .map(|sample| sample.at.unwrap().to_string())
        .collect();
    insta::assert_snapshot!(
        format!("{} {} at {}: expected {}, found {}; {} of {}", change.kind, change.effect, change.path,
            change.expected, change.found, change.count, change.records),
        @r#"enum_grown accepted at v: expected a version that is listed: "1", "2.0.0", found "3" ×2, "true" ×1, "…" ×1; 4 of 7"#
    );
    assert_eq!(samples, ["0/0/1", "0/0/2", "0/0/5"]);
}
