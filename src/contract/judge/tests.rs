//! Each test is a table: records on the left, what the judge says on the right.

pub(in crate::contract) mod properties;
mod records;

use std::fmt::Write as _;

use arrow::{
    array::{Array, AsArray as _},
    datatypes::{Date32Type, Decimal128Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::contract::{
    Coercion, Column, ColumnType, Rules, TimestampFormat, observed::Kind, work::VIOLATIONS_MAX,
};

/// A contract in short: `name type`, separated by `;`. `!` behind the type: required. `=` and a path: where it is.
pub(in crate::contract) fn contract(short: &str) -> Contract {
    Contract {
        id: "test".to_owned(),
        version: "1.0.0".to_owned(),
        status: "active".to_owned(),
        columns: short
            .split(';')
            .map(str::trim)
            .filter(|column| !column.is_empty())
            .map(column)
            .collect(),
        quality: Vec::new(),
    }
}

/// The contract with a list of allowed values for one column.
pub(in crate::contract) fn restrict(mut contract: Contract, name: &str, allowed: &[&str]) -> Contract {
    let column = contract
        .columns
        .iter_mut()
        .find(|column| column.name == name)
        .unwrap();
    column.rules.allowed = Some(allowed.iter().map(|&value| value.to_owned()).collect());
    contract
}

fn column(short: &str) -> Column {
    let mut words = short.split_whitespace();
    let name = words.next().unwrap();
    let kind = words.next().unwrap();
    let path = words
        .next()
        .and_then(|path| path.strip_prefix('='))
        .unwrap_or(name);
    Column {
        name: name.to_owned(),
        path: path.split('.').map(str::to_owned).collect(),
        kind: kind_of(kind.trim_end_matches('!')),
        required: kind.ends_with('!'),
        primary_key: false,
        coercion: Coercion::Lossless,
        rules: Rules::default(),
        on_mismatch: None,
        on_unknown: None,
        classification: None,
        description: None,
    }
}

fn kind_of(short: &str) -> ColumnType {
    if let Some(element) = short.strip_prefix("list:") {
        return ColumnType::Array(Box::new(column(&format!("element {element}"))));
    }
    match short {
        "string" => ColumnType::String,
        "integer" => ColumnType::Integer,
        "number" => ColumnType::Number,
        "decimal" => ColumnType::Decimal {
            precision: 10,
            scale: 2,
        },
        "boolean" => ColumnType::Boolean,
        "date" => ColumnType::Date,
        "moment" => ColumnType::Timestamp(TimestampFormat::Rfc3339),
        "epoch_s" => ColumnType::Timestamp(TimestampFormat::EpochSeconds),
        "epoch_ms" => ColumnType::Timestamp(TimestampFormat::EpochMillis),
        "naive" => ColumnType::Timestamp(TimestampFormat::Naive { offset_seconds: 3600 }),
        "json" => ColumnType::Json,
        "line" => ColumnType::Object(contract("sku string!; price decimal; tags list:string").columns),
        "address" => {
            ColumnType::Object(contract("city string!; zip string =postal.code; lines list:line").columns)
        }
        other => panic!("no such type: {other}"),
    }
}

fn options() -> JudgeOptions {
    JudgeOptions {
        keys: Vec::new(),
        sequence_by: Vec::new(),
        on_unknown: OnUnknown::Rescue,
        on_mismatch: OnMismatch::Quarantine,
        record_bytes_max: 1 << 20,
    }
}

fn keyed(key: &str) -> JudgeOptions {
    JudgeOptions {
        keys: vec![key.to_owned()],
        ..options()
    }
}

fn judge_all<R: AsRef<[u8]>>(contract: &Contract, options: JudgeOptions, records: &[R]) -> Judged {
    let judge = Judge::new(contract, options).unwrap();
    let mut judging = judge.start();
    for record in records {
        judging.push(record.as_ref());
    }
    assert_eq!(judging.rows(), records.len());
    let judged = judging.finish().unwrap();
    assert_eq!(judged.batch.num_rows(), records.len());
    assert_eq!(judged.batch.schema(), judge.schema());
    judged
}

/// The row's values, or every violation of it.
fn verdict(judged: &Judged, row: usize) -> String {
    let violations: Vec<String> = judged
        .violations
        .iter()
        .filter(|found| found.row == row)
        .map(describe)
        .collect();
    if !violations.is_empty() {
        return violations.join("; ");
    }
    let values: Vec<String> = judged
        .batch
        .columns()
        .iter()
        .map(|column| show(column.as_ref(), row))
        .collect();
    let (rescued, values) = values.split_last().unwrap();
    let mut text = values.join(" ");
    if rescued != "null" {
        let _ = write!(
            text,
            " + {}",
            judged.batch.column(values.len()).as_string::<i32>().value(row)
        );
    }
    text
}

fn describe(found: &RowViolation) -> String {
    let Violation {
        class, path, found, ..
    } = &found.violation;
    format!("{class} at {path:?}: {found}")
}

fn show(array: &dyn Array, row: usize) -> String {
    if array.is_null(row) {
        return "null".to_owned();
    }
    match array.data_type() {
        DataType::Utf8 => format!("{:?}", array.as_string::<i32>().value(row)),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float64 => format!("{:?}", array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value_as_string(row),
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Date32 => format!("day {}", array.as_primitive::<Date32Type>().value(row)),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            format!(
                "{}us",
                array.as_primitive::<TimestampMicrosecondType>().value(row)
            )
        }
        DataType::Struct(_) => {
            let fields: Vec<String> = array
                .as_struct()
                .columns()
                .iter()
                .map(|column| show(column, row))
                .collect();
            format!("{{{}}}", fields.join(" "))
        }
        DataType::List(_) => {
            let elements = array.as_list::<i32>().value(row);
            let elements: Vec<String> = (0..elements.len())
                .map(|element| show(elements.as_ref(), element))
                .collect();
            format!("[{}]", elements.join(" "))
        }
        other => panic!("no such column: {other}"),
    }
}

/// Judges every record of the table at once, so that none may disturb another, and compares.
fn check(contract: &Contract, options: JudgeOptions, table: &[(&str, &str)]) {
    let records: Vec<&str> = table.iter().map(|(record, _)| *record).collect();
    let judged = judge_all(contract, options, &records);
    for (row, (record, expected)) in table.iter().enumerate() {
        assert_eq!(verdict(&judged, row), *expected, "{record}");
    }
}

fn check_values(kind: &str, table: &[(&str, &str)]) {
    let records: Vec<(String, &str)> = table
        .iter()
        .map(|(value, expected)| (format!(r#"{{"v": {value} }}"#), *expected))
        .collect();
    let records: Vec<(&str, &str)> = records
        .iter()
        .map(|(record, expected)| (record.as_str(), *expected))
        .collect();
    check(&contract(&format!("v {kind}")), options(), &records);
}

#[test]
fn r004_good_rows_are_typed_and_bad_ones_say_why() {
    check(
        &contract("id integer!; name string; total decimal; paid boolean; day date; at moment"),
        keyed("id"),
        &[
            (
                r#"{"id":1,"name":"caf\u00e9","total":12.5,"paid":true,"day":"1970-01-02","at":"1970-01-01T00:00:01Z"}"#,
                r#"1 "café" 12.50 true day 1 1000000us"#,
            ),
            (r#"{"at":null,"id":2}"#, "2 null null null null null"),
            (r#"{"name":"no id"}"#, r#"key_missing at "id": nothing"#),
            (
                r#"{"id":"x","name":7,"total":1.005}"#,
                r#"type_mismatch at "id": string "x"; type_mismatch at "name": integer 7; out_of_range at "total": number 1.005"#,
            ),
        ],
    );
}

#[test]
fn f120_tokens_that_are_not_json_and_numbers_without_a_double_are_quarantined() {
    check_values(
        "number",
        &[
            ("NaN", r#"not_json at "": not JSON at byte 6"#),
            ("Infinity", r#"not_json at "": not JSON at byte 6"#),
            ("1e999", r#"out_of_range at "v": number 1e999"#),
            ("-1E400", r#"out_of_range at "v": number -1E400"#),
            ("-0", "-0.0"),
            ("0.1", "0.1"),
            (r#""1e999""#, r#"out_of_range at "v": string "1e999""#),
            (r#""NaN""#, r#"type_mismatch at "v": string "NaN""#),
        ],
    );
}

#[test]
fn f121_big_numbers_are_exact_or_quarantined() {
    check_values(
        "integer",
        &[
            ("9007199254740993", "9007199254740993"),
            ("9223372036854775807", "9223372036854775807"),
            (
                "9223372036854775808",
                r#"out_of_range at "v": integer 9223372036854775808"#,
            ),
            (
                "18446744073709551617",
                r#"out_of_range at "v": integer 18446744073709551617"#,
            ),
        ],
    );
    check_values(
        "number",
        &[
            (
                "9007199254740993",
                r#"out_of_range at "v": integer 9007199254740993"#,
            ),
            ("9007199254740992", "9007199254740992.0"),
        ],
    );
    check_values(
        "decimal",
        &[
            ("99999999.99", "99999999.99"),
            ("99999999.9900", "99999999.99"),
            ("100000000", r#"out_of_range at "v": integer 100000000"#),
            ("0.001", r#"out_of_range at "v": number 0.001"#),
        ],
    );
}

#[test]
fn f122_a_member_named_twice_is_flagged_at_any_depth() {
    check(
        &contract("id integer; c string =in.c; a address; j json"),
        options(),
        &[
            (r#"{"id":1,"id":2}"#, r#"duplicate_key at "id": a second one"#),
            (
                r#"{"id":1,"i\u0064":1}"#,
                r#"duplicate_key at "id": a second one"#,
            ),
            (
                r#"{"in":{"c":"x"},"in":{}}"#,
                r#"duplicate_key at "in": a second one"#,
            ),
            (
                r#"{"in":{"c":"x","c":"y"}}"#,
                r#"duplicate_key at "in.c": a second one"#,
            ),
            (r#"{"x":1,"id":1,"x":2}"#, r#"duplicate_key at "x": a second one"#),
            (
                r#"{"x":[{"y":1},{"y":1,"z":2,"y":3}]}"#,
                r#"duplicate_key at "x[1].y": a second one"#,
            ),
            (
                r#"{"a":{"city":"B","lines":[{"sku":"s"},{"sku":"s","sku":"t"}]}}"#,
                r#"duplicate_key at "a.lines[1].sku": a second one"#,
            ),
            (
                r#"{"x":[{"y":1},{"y":1}],"j":{"y":1,"y":2}}"#,
                r#"null null null "{\"y\":1,\"y\":2}" + {"x":[{"y":1},{"y":1}]}"#,
            ),
        ],
    );
}

#[test]
fn f123_text_is_kept_as_it_is_or_the_record_is_quarantined() {
    check_values(
        "string",
        &[
            (r#""a\u0000b""#, r#""a\0b""#),
            ("\"\u{feff}\u{202e}\u{1f600}\"", r#""\u{feff}\u{202e}😀""#),
            (r#""\ud83d\ude00""#, r#""😀""#),
            (
                r#""\ud800""#,
                r#"not_json at "": half a surrogate pair at byte 7"#,
            ),
            (
                r#"1, "x": ["\ude00"]"#,
                r#"not_json at "": half a surrogate pair at byte 16"#,
            ),
        ],
    );
    let records: [&[u8]; 4] = [
        b"{\"v\":\"\xff\"}",
        b"{\"v\":\"\xc0\x80\"}",
        b"{\"v\":\"\xed\xa0\x80\"}",
        b"\xef\xbb\xbf{}",
    ];
    let judged = judge_all(&contract("v string"), options(), &records);
    for row in 0..3 {
        assert_eq!(verdict(&judged, row), r#"not_json at "": not UTF-8 at byte 6"#);
    }
    assert_eq!(verdict(&judged, 3), r#"not_json at "": not JSON at byte 0"#);
}

#[test]
fn f124_a_value_of_another_type_is_quarantined() {
    check_values(
        "integer",
        &[
            ("1.5", r#"type_mismatch at "v": number 1.5"#),
            ("true", r#"type_mismatch at "v": true"#),
            (r#"{"a":[1]}"#, r#"type_mismatch at "v": object"#),
            ("[1]", r#"type_mismatch at "v": array"#),
            (r#""1.5""#, r#"type_mismatch at "v": string "1.5""#),
            (r#""""#, r#"type_mismatch at "v": string """#),
            (r#"" 1""#, r#"type_mismatch at "v": string " 1""#),
            (r#""007""#, r#"type_mismatch at "v": string "007""#),
        ],
    );
    check_values(
        "string",
        &[
            ("12", r#"type_mismatch at "v": integer 12"#),
            ("false", r#"type_mismatch at "v": false"#),
        ],
    );
    check_values(
        "boolean",
        &[
            ("1", r#"type_mismatch at "v": integer 1"#),
            (r#""yes""#, r#"type_mismatch at "v": string "yes""#),
            (r#""True""#, r#"type_mismatch at "v": string "True""#),
        ],
    );
    check_values(
        "list:integer",
        &[
            ("1", r#"type_mismatch at "v": integer 1"#),
            (
                r#"[1,"x",[2]]"#,
                r#"type_mismatch at "v[1]": string "x"; type_mismatch at "v[2]": array"#,
            ),
        ],
    );
    check_values(
        "address",
        &[
            (r#""x""#, r#"type_mismatch at "v": string "x""#),
            ("[{}]", r#"type_mismatch at "v": array"#),
        ],
    );
}

#[test]
fn coercion_takes_text_that_is_exactly_a_value_and_counts_it() {
    let kinds = "i integer; n number; d decimal; b boolean; e epoch_ms; m moment; y date";
    let texts = r#"{"i":"12","n":"0.5","d":"1.50","b":"true","e":"1500","m":"1970-01-01T00:00:00Z","y":"1970-01-01"}"#;
    let judged = judge_all(
        &contract(kinds),
        options(),
        &[texts, r#"{"i":1.0,"e":"1970-01-01T00:00:01Z"}"#, r#"{"i":1e2}"#],
    );
    assert_eq!(verdict(&judged, 0), "12 0.5 1.50 true 1500000us 0us day 0");
    assert_eq!(verdict(&judged, 1), "1 null null null 1000000us null null");
    assert_eq!(verdict(&judged, 2), "100 null null null null null null");
    assert_eq!(judged.coerced, 8);
    assert_eq!(judged.observed.get("i").unwrap().coerced(), 3);
    assert_eq!(judged.observed.get("m").unwrap().coerced(), 0);

    let mut strict = contract(kinds);
    for column in &mut strict.columns {
        column.coercion = Coercion::None;
    }
    let judged = judge_all(&strict, options(), &[texts]);
    let refused: Vec<&str> = judged
        .violations
        .iter()
        .map(|found| found.violation.path.as_str())
        .collect();
    assert_eq!(refused, ["i", "n", "d", "b", "e"]);
}

#[test]
fn f125_f126_f135_one_bad_record_among_many_is_the_only_one_set_aside() {
    let records: Vec<String> = (0..1000)
        .map(|id| match id {
            500 => r#"{"id":500,"lines":[{"sku":"a","price":1},{"sku":"b","price":"#.to_owned(),
            501 => r#"{"lines":[{"sku":"a","tags":["x","y"],"price":"oops"}],"id":501}"#.to_owned(),
            _ => format!(r#"{{"id":{id},"lines":[{{"sku":"s{id}","tags":["t"]}}]}}"#),
        })
        .collect();
    let judged = judge_all(&contract("id integer!; lines list:line"), keyed("id"), &records);
    let bad: Vec<String> = judged
        .violations
        .iter()
        .map(|found| format!("{} {}", found.row, describe(found)))
        .collect();
    assert_eq!(
        bad,
        [
            r#"500 not_json at "": not JSON at byte 60"#,
            r#"501 type_mismatch at "lines[0].price": string "oops""#,
        ]
    );
    for row in (0..1000).filter(|row| ![500, 501].contains(row)) {
        assert_eq!(
            verdict(&judged, row),
            format!(r#"{row} [{{"s{row}" null ["t"]}}]"#)
        );
    }
}

#[test]
fn f127_a_key_that_is_missing_null_or_empty_is_never_a_key() {
    let options = JudgeOptions {
        keys: vec!["id".to_owned(), "region".to_owned()],
        ..options()
    };
    check(
        &contract("id string; region integer =at.region; x string"),
        options,
        &[
            (r#"{"id":"a","at":{"region":1}}"#, r#""a" 1 null"#),
            (
                r#"{"id":"","at":{"region":1}}"#,
                r#"key_missing at "id": empty text"#,
            ),
            (r#"{"id":null,"at":{"region":1}}"#, r#"key_missing at "id": null"#),
            (r#"{"at":{"region":1}}"#, r#"key_missing at "id": nothing"#),
            (r#"{"id":"a","at":{}}"#, r#"key_missing at "at.region": nothing"#),
            (
                r#"{"id":"a","at":null}"#,
                r#"key_missing at "at.region": nothing"#,
            ),
            (
                r#"{"id":null}"#,
                r#"key_missing at "id": null; key_missing at "at.region": nothing"#,
            ),
            (
                r#"{"id":5,"at":{"region":1}}"#,
                r#"type_mismatch at "id": integer 5"#,
            ),
        ],
    );
}

#[test]
fn f128_a_key_as_number_and_as_text_is_one_key_or_quarantined() {
    check(
        &contract("id integer"),
        keyed("id"),
        &[(r#"{"id":1}"#, "1"), (r#"{"id":"1"}"#, "1")],
    );
    check(
        &contract("id string"),
        keyed("id"),
        &[
            (r#"{"id":"1"}"#, r#""1""#),
            (r#"{"id":1}"#, r#"type_mismatch at "id": integer 1"#),
        ],
    );
}

#[test]
fn what_a_column_says_of_drift_goes_before_what_the_stream_says() {
    let mut contract = contract("id integer; a address; b address; n integer; m integer; r integer!");
    contract.columns[1].on_mismatch = Some(OnMismatch::Rescue);
    contract.columns[1].on_unknown = Some(OnUnknown::Ignore);
    contract.columns[2].on_unknown = Some(OnUnknown::Quarantine);
    contract.columns[4].on_mismatch = Some(OnMismatch::Rescue);
    contract.columns[5].on_mismatch = Some(OnMismatch::Rescue);
    let records = [
        r#"{"a":{"city":"x","lines":[{"sku":"y","price":"z","new":1}],"new":{"er":1}},"m":"M","r":1,"other":2}"#,
        r#"{"b":{"city":"x","new":1},"r":1}"#,
        r#"{"b":{"city":"x","lines":[{"sku":"y","new":1}]},"r":1}"#,
        r#"{"n":"N","r":1}"#,
        r#"{"r":"required is never rescued"}"#,
    ];
    let judged = judge_all(&contract, options(), &records);
    let rescued = judged.batch[RESCUED].as_string::<i32>();
    let rescued: Value = serde_json::from_str(rescued.value(0)).unwrap();
    assert_eq!(rescued, json!({"a.lines[0].price": "z", "m": "M", "other": 2}));
    let violations: Vec<String> = judged
        .violations
        .iter()
        .map(|found| format!("{} {}", found.row, found.violation.path))
        .collect();
    assert_eq!(violations, ["1 b.new", "2 b.lines[0].new", "3 n", "4 r"]);
}

#[test]
fn a_column_that_orders_versions_is_required() {
    let options = JudgeOptions {
        sequence_by: vec!["at".to_owned()],
        on_mismatch: OnMismatch::Rescue,
        ..options()
    };
    check(
        &contract("at moment; n integer"),
        options,
        &[
            (r#"{"n":1}"#, r#"required_missing at "at": nothing"#),
            (r#"{"at":null}"#, r#"null_in_required at "at": null"#),
            (
                r#"{"at":1700000000}"#,
                r#"type_mismatch at "at": integer 1700000000"#,
            ),
        ],
    );
}

#[test]
fn f131_times_are_taken_in_the_formats_of_the_contract_only() {
    let quarantined = |value: &str, class: &str| format!("{class} at \"v\": {value}");
    let cases = [
        ("moment", r#""2024-01-01T00:00:00Z""#, "1704067200000000us"),
        ("moment", r#""2024-01-01T05:45:00+05:45""#, "1704067200000000us"),
        ("moment", r#""2024-01-01T00:00:00-00:00""#, "1704067200000000us"),
        ("moment", r#""2024-01-01T00:00:00""#, "type_mismatch"),
        ("moment", r#""2024-01-01T24:00:00Z""#, "out_of_range"),
        ("moment", r#""2016-12-31T23:59:60Z""#, "out_of_range"),
        ("moment", r#""2024-01-01T00:00:00.0000001Z""#, "out_of_range"),
        ("moment", r#""2024-01-01""#, "type_mismatch"),
        (
            "moment",
            r#""2024-01-01T00:00:00 Europe/Berlin""#,
            "type_mismatch",
        ),
        ("moment", r#""10000-01-01T00:00:00Z""#, "out_of_range"),
        ("moment", r#""0001-01-01T00:00:00Z""#, "-62135596800000000us"),
        ("moment", "1700000000", "type_mismatch"),
        ("naive", r#""1970-01-01T01:00:00""#, "0us"),
        ("epoch_s", "1700000000", "1700000000000000us"),
        ("epoch_ms", "1700000000000", "1700000000000000us"),
        ("epoch_s", "1700000000000", "out_of_range"),
        ("epoch_s", "1700000000.5", "type_mismatch"),
        ("date", r#""2024-02-29""#, "day 19782"),
        ("date", r#""2023-02-29""#, "out_of_range"),
        ("date", r#""2024-02-29T00:00:00Z""#, "type_mismatch"),
        ("date", "19782", "type_mismatch"),
    ];
    for (kind, value, expected) in cases {
        let judged = judge_all(
            &contract(&format!("v {kind}")),
            options(),
            &[format!(r#"{{"v":{value}}}"#)],
        );
        let word = match value.as_bytes()[0] {
            b'"' => "string",
            _ if value.contains('.') => "number",
            _ => "integer",
        };
        let expected = match expected {
            class @ ("type_mismatch" | "out_of_range") => quarantined(&format!("{word} {value}"), class),
            value => value.to_owned(),
        };
        assert_eq!(verdict(&judged, 0), expected, "{kind} {value}");
    }
}

#[test]
fn r114_r120_required_members_are_told_apart_missing_or_null_and_counted() {
    let contract = contract("id integer!; a address; tags list:string");
    check(
        &contract,
        options(),
        &[
            (r#"{"id":1}"#, "1 null null"),
            ("{}", r#"required_missing at "id": nothing"#),
            (r#"{"id":null}"#, r#"null_in_required at "id": null"#),
            (r#"{"id":1,"a":{}}"#, r#"required_missing at "a.city": nothing"#),
            (
                r#"{"id":1,"a":{"city":null}}"#,
                r#"null_in_required at "a.city": null"#,
            ),
            (
                r#"{"id":1,"a":{"city":"B","lines":[{"sku":"x"},{},null]}}"#,
                r#"required_missing at "a.lines[1].sku": nothing"#,
            ),
        ],
    );
    let mut list = contract.clone();
    let ColumnType::Array(element) = &mut list.columns[2].kind else {
        panic!()
    };
    element.required = true;
    check(
        &list,
        options(),
        &[(
            r#"{"id":1,"tags":["a",null]}"#,
            r#"null_in_required at "tags[1]": null"#,
        )],
    );
}

#[test]
fn r115_members_the_contract_does_not_name_are_rescued_with_their_place() {
    check(
        &contract("id integer; zip string =in.zip; a address"),
        options(),
        &[
            (r#"{"id":1}"#, "1 null null"),
            (
                r#"{"new": {"x" : [1, 2]} ,"id":1}"#,
                r#"1 null null + {"new":{"x" : [1, 2]}}"#,
            ),
            (
                r#"{"in":{"zip":"1","vip":true},"z":null}"#,
                r#"null "1" null + {"in.vip":true,"z":null}"#,
            ),
            (
                r#"{"a":{"city":"B","lines":[{"sku":"s"},{"sku":"t","color":"re\"d"}]}}"#,
                r#"null null {"B" null [{"s" null null} {"t" null null}]} + {"a.lines[1].color":"re\"d"}"#,
            ),
            (
                r#"{"a.b":1,"":2,"q\"\n":3}"#,
                r#"null null null + {"[\"a.b\"]":1,"[\"\"]":2,"[\"q\\\"\\u000a\"]":3}"#,
            ),
        ],
    );
    check(
        &contract("id integer"),
        JudgeOptions {
            on_unknown: OnUnknown::Ignore,
            ..options()
        },
        &[(r#"{"id":1,"x":2}"#, "1")],
    );
    check(
        &contract("id integer"),
        JudgeOptions {
            on_unknown: OnUnknown::Quarantine,
            ..options()
        },
        &[
            (
                r#"{"id":1,"x":2,"y":{}}"#,
                r#"unknown_field at "x": integer 2; unknown_field at "y": object"#,
            ),
            (r#"{"id":1}"#, "1"),
        ],
    );
}

#[test]
fn a_rescued_mismatch_leaves_null_but_never_in_a_key_or_a_required_column() {
    let options = JudgeOptions {
        on_mismatch: OnMismatch::Rescue,
        ..keyed("id")
    };
    check(
        &contract("id integer; n integer =at.n; must integer!; a address; l list:integer"),
        options,
        &[
            (
                r#"{"id":1,"must":1,"at":[7]}"#,
                r#"1 null 1 null null + {"at":[7]}"#,
            ),
            (
                r#"{"id":1,"must":1,"at":{"n":"x"}}"#,
                r#"1 null 1 null null + {"at.n":"x"}"#,
            ),
            (
                r#"{"id":1,"must":1,"l":[1,"x",3],"a":7}"#,
                r#"1 null 1 null [1 null 3] + {"l[1]":"x","a":7}"#,
            ),
            (
                r#"{"id":1,"must":1,"a":{"city":"B","lines":[{"sku":"s","price":1e9}]}}"#,
                r#"1 null 1 {"B" null [{"s" null null}]} null + {"a.lines[0].price":1e9}"#,
            ),
            (
                r#"{"id":"x","must":"y"}"#,
                r#"type_mismatch at "id": string "x"; type_mismatch at "must": string "y""#,
            ),
        ],
    );
}

#[test]
fn r165_f153_a_violation_shows_nothing_that_is_in_something_classified() {
    let mut contract = contract("id integer; a address; vip string =in.vip");
    contract.columns[1].classification = Some("restricted".to_owned());
    contract.columns[2].classification = Some("restricted".to_owned());
    let options = JudgeOptions {
        keys: Vec::new(),
        sequence_by: Vec::new(),
        on_unknown: OnUnknown::Quarantine,
        on_mismatch: OnMismatch::Quarantine,
        record_bytes_max: 1 << 20,
    };
    let mut judging = Judge::new(&contract, options).unwrap().start();
    judging.push(br#"{"a":{"city":"c","nick":"Jane"},"x":"Jim","in":{"y":"Joe"}}"#);
    judging.push(br#"{"a":"Jane","in":"Jane"}"#);
    let found = judging.finish().unwrap().violations;
    let told: Vec<String> = found
        .iter()
        .map(|found| format!("{}: {}", found.violation.path, found.violation.found))
        .collect();
    assert_eq!(
        told,
        [
            "a.nick: string",
            "x: string \"Jim\"",
            "in.y: string \"Joe\"",
            "a: string",
            "in: string"
        ]
    );
}
