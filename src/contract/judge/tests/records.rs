//! Whole records: nesting, rules, what is observed, and what costs too much.

use super::*;

#[test]
fn r118_nested_members_become_columns_structs_and_lists() {
    check(
        &contract("id integer =meta.id; by string =meta.author.name; a address; raw json"),
        options(),
        &[
            (
                r#"{"meta":{"author":{"name":"Ann"},"id":7},"a":{"city":"B","postal":{"code":"1"},"lines":[]},"raw": [1, {}] }"#,
                r#"7 "Ann" {"B" "1" []} "[1, {}]""#,
            ),
            (
                r#"{"a":{"lines":null,"city":"B"},"raw":null}"#,
                r#"null null {"B" null null} null"#,
            ),
            (r#"{"raw":"text","meta":null}"#, r#"null null null "\"text\"""#),
            (r#"{"raw":-1.50,"meta":{}}"#, r#"null null null "-1.50""#),
            (r#"{"meta":5}"#, r#"type_mismatch at "meta": integer 5"#),
        ],
    );
}

#[test]
fn rules_beyond_the_type_have_their_own_class() {
    let mut contract = contract("s string; n integer; d decimal; f number; l list:string; at moment");
    contract.columns[0].rules = Rules {
        allowed: Some(vec![
            r#""paid""#.to_owned(),
            r#""op\u0065n""#.to_owned(),
            r#""straße""#.to_owned(),
        ]),
        pattern: Some("^[a-zß]+$".to_owned()),
        length_min: Some(2),
        length_max: Some(6),
        ..Rules::default()
    };
    let between = |min: &str, max: &str| Rules {
        minimum: Some(min.to_owned()),
        maximum: Some(max.to_owned()),
        ..Rules::default()
    };
    contract.columns[1].rules = Rules {
        allowed: Some(vec!["1".to_owned(), "3.0".to_owned()]),
        ..Rules::default()
    };
    contract.columns[2].rules = between("0.001", "9.999");
    contract.columns[3].rules = between("-1", "1e3");
    contract.columns[4].rules = Rules {
        length_min: Some(1),
        length_max: Some(2),
        ..Rules::default()
    };
    contract.columns[5].rules = between("2000-01-01T00:00:00Z", "2100-01-01T00:00:00Z");
    check(
        &contract,
        options(),
        &[
            (
                r#"{"s":"paid","n":3,"d":9.99,"f":-1,"l":["a"],"at":"2000-01-01T00:00:00Z"}"#,
                r#""paid" 3 9.99 -1.0 ["a"] 946684800000000us"#,
            ),
            (r#"{"s":"straße"}"#, r#""straße" null null null null null"#),
            (r#"{"s":"refund"}"#, r#"enum at "s": string "refund""#),
            (r#"{"s":"PAID"}"#, r#"pattern at "s": string "PAID""#),
            (r#"{"s":"p"}"#, r#"length at "s": string "p""#),
            (r#"{"s":"paidpaid"}"#, r#"length at "s": string "paidpaid""#),
            (r#"{"n":2}"#, r#"enum at "n": integer 2"#),
            (r#"{"d":0}"#, r#"out_of_range at "d": integer 0"#),
            (r#"{"d":10}"#, r#"out_of_range at "d": integer 10"#),
            (r#"{"f":1000.5}"#, r#"out_of_range at "f": number 1000.5"#),
            (r#"{"l":[]}"#, r#"length at "l": 0 elements"#),
            (r#"{"l":["a","b","c"]}"#, r#"length at "l": 3 elements"#),
            (
                r#"{"at":"1999-12-31T23:59:59Z"}"#,
                r#"out_of_range at "at": string "1999-12-31T23:59:59Z""#,
            ),
        ],
    );
    let judged = judge_all(
        &contract,
        options(),
        &[r#"{"s":"refund"}"#, r#"{"d":0}"#, r#"{"l":[]}"#],
    );
    let expected: Vec<&str> = judged
        .violations
        .iter()
        .map(|found| found.violation.expected.as_str())
        .collect();
    assert_eq!(
        expected,
        [
            r#"one of "paid", "op\u0065n", "straße""#,
            "0.001 to 9.999",
            "1 to 2 elements"
        ]
    );
    assert_eq!(
        judged.observed.get("s").unwrap().new_values().collect::<Vec<_>>(),
        [(r#""refund""#, 1)]
    );
}

#[test]
fn values_of_a_classified_column_are_not_quoted() {
    let mut contract = contract("s string; n integer");
    contract.columns[0].rules.allowed = Some(vec![r#""a""#.to_owned()]);
    contract.columns[0].classification = Some("restricted".to_owned());
    contract.columns[1].classification = Some("restricted".to_owned());
    let judged = judge_all(&contract, options(), &[r#"{"s":"secret","n":"4111 1111"}"#]);
    assert_eq!(
        verdict(&judged, 0),
        r#"enum at "s": string; type_mismatch at "n": string"#
    );
    assert_eq!(
        judged.observed.get("s").unwrap().new_values().collect::<Vec<_>>(),
        [("…", 1)]
    );
}

#[test]
fn what_is_not_a_record_is_named() {
    let options = JudgeOptions {
        record_bytes_max: 40,
        ..options()
    };
    check(
        &contract("id integer!"),
        options,
        &[
            ("", r#"not_json at "": not JSON at byte 0"#),
            ("[1]", r#"not_an_object at "": array"#),
            (" null ", r#"not_an_object at "": null"#),
            ("\"x\"", r#"not_an_object at "": string"#),
            ("5", r#"not_an_object at "": number"#),
            ("5 5", r#"not_json at "": not JSON at byte 2"#),
            (r#"{"id":1}{"id":2}"#, r#"not_json at "": not JSON at byte 8"#),
            (r#"{"id":"x","new":1,"#, r#"not_json at "": not JSON at byte 18"#),
            (
                r#"{"id":1,"pad":"0123456789012345678901234"}"#,
                r#"too_large at "": 42 bytes"#,
            ),
            (r#" {"id":1} "#, "1"),
        ],
    );
}

#[test]
fn f099_a_record_nested_too_deep_is_quarantined_without_using_the_stack() {
    let run = || {
        let nested = |depth: usize| format!(r#"{{"id":1,"x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        let objects = format!(r#"{{"id":1,"x":{}1{}}}"#, r#"{"x":"#.repeat(127), "}".repeat(127));
        let json = format!(r#"{{"j":{}{}}}"#, "[".repeat(128), "]".repeat(128));
        let records = [
            nested(127),
            nested(128),
            objects,
            "[".repeat(10_000_000),
            nested(100_000),
            json,
        ];
        let judge = Judge::new(
            &contract("id integer; j json"),
            JudgeOptions {
                record_bytes_max: 1 << 30,
                ..options()
            },
        );
        let mut judging = judge.unwrap().start();
        for record in records {
            judging.push(record.as_bytes());
        }
        let judged = judging.finish().unwrap();
        let bad: Vec<(usize, ViolationClass)> = judged
            .violations
            .iter()
            .map(|found| (found.row, found.violation.class))
            .collect();
        assert_eq!(bad, [1, 3, 4, 5].map(|row| (row, ViolationClass::TooDeep)));
    };
    std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(run)
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn a_record_of_many_unknown_members_costs_what_its_length_says() {
    use crate::contract::observed::PATHS_MAX;

    let members = |prefix: &str, count: usize| {
        let members: Vec<String> = (0..count)
            .map(|member| format!(r#""{prefix}{member}":1"#))
            .collect();
        format!("{{{}}}", members.join(","))
    };
    let many = members("a", PATHS_MAX + 50_000);
    let twice = format!(
        r#"{{"id":1,{},"b7":2}}"#,
        &members("b", 1000)[1..].trim_end_matches('}')
    );
    let options = JudgeOptions {
        record_bytes_max: 1 << 30,
        ..options()
    };
    let judged = judge_all(
        &contract("id integer"),
        options,
        &[&many, &many, &twice, r#"{"id":1}"#],
    );
    let bad: Vec<(usize, ViolationClass)> = judged
        .violations
        .iter()
        .map(|found| (found.row, found.violation.class))
        .collect();
    assert_eq!(bad, [(2, ViolationClass::DuplicateKey)]);
    assert_eq!(judged.observed.paths().count(), PATHS_MAX + 1);
    assert_eq!(judged.observed.overflowed(), 2 * 50_000 + 1_001);
    let rescued = judged.batch.column(1).as_string::<i32>().value(0);
    let expected: serde_json::Value = serde_json::from_str(&many).unwrap();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(rescued).unwrap(),
        expected
    );
}

#[test]
fn violations_of_one_record_are_capped_for_each_class() {
    let lines = vec![r#"{"price":"x"}"#; 1_000].join(",");
    let record = format!(r#"{{"a":{{"lines":[{lines}]}}}}"#);
    let judged = judge_all(&contract("a address"), options(), &[&record, &record]);
    let count = |row, class| {
        judged
            .violations
            .iter()
            .filter(|found| found.row == row && found.violation.class == class)
            .count()
    };
    for row in 0..2 {
        assert_eq!(count(row, ViolationClass::TypeMismatch), VIOLATIONS_MAX);
        assert_eq!(count(row, ViolationClass::RequiredMissing), VIOLATIONS_MAX);
    }
    assert_eq!(
        judged.observed.get("a.lines[].price").unwrap().mismatched(),
        2_000
    );
}

#[test]
fn r117_every_path_is_counted_by_kind_at_any_depth() {
    let records = [
        r#"{"id":1,"a":{"city":"B","lines":[{"sku":"s","price":1},{"sku":"t","price":null,"x":true}]}}"#,
        r#"{"id":null,"a":null,"new":[{"k":1.5},{"k":"t"},3]}"#,
        r#"{"id":1,"new":[],"broken""#,
    ];
    let judged = judge_all(&contract("id integer; a address"), options(), &records);
    let mut text = String::new();
    for (path, counts) in judged.observed.paths() {
        let kinds: Vec<String> = Kind::ALL
            .iter()
            .filter(|&&kind| counts.of(kind) > 0)
            .map(|&kind| format!("{} {}", kind.as_str(), counts.of(kind)))
            .collect();
        writeln!(
            text,
            "{path}: {} from {}",
            kinds.join(", "),
            counts.first().unwrap()
        )
        .unwrap();
    }
    insta::assert_snapshot!(text, @r"
    id: null 1, integer 1 from 0
    a: null 1, object 1 from 0
    a.city: string 1 from 0
    a.lines: array 1 from 0
    a.lines[]: object 2 from 0
    a.lines[].sku: string 2 from 0
    a.lines[].price: null 1, integer 1 from 0
    a.lines[].x: boolean 1 from 0
    new: array 1 from 1
    new[]: integer 1, object 2 from 1
    new[].k: string 1, number 1 from 1
    ");
    assert_eq!((judged.observed.rows(), judged.observed.records()), (3, 2));
}

#[test]
fn observations_of_batches_add_up_to_those_of_one() {
    let records: Vec<String> = (0..40)
        .map(|id| match id % 4 {
            0 => format!(r#"{{"id":{id},"a{}":{{"b":[{id}]}}}}"#, id % 8),
            1 => format!(r#"{{"id":"{id}"}}"#),
            2 => format!(r#"{{"id":"x{id}","z":null}}"#),
            _ => "{".to_owned(),
        })
        .collect();
    let contract = contract("id integer");
    let whole = judge_all(&contract, options(), &records).observed;
    let mut parts = Observed::new();
    for part in records.chunks(7) {
        parts.merge(&judge_all(&contract, options(), part).observed);
    }
    let sorted = |observed: &Observed| {
        let mut paths: Vec<_> = observed
            .paths()
            .map(|(path, counts)| (path, counts.clone()))
            .collect();
        paths.sort_by(|left, right| left.0.cmp(&right.0));
        paths
    };
    assert_eq!(sorted(&parts), sorted(&whole));
    assert_eq!((parts.rows(), parts.records()), (whole.rows(), whole.records()));
}

#[test]
fn a_contract_that_cannot_be_judged_is_a_config_error() {
    let rules = |rules: Rules, kind: &str| {
        let mut contract = contract(&format!("v {kind}"));
        contract.columns[0].rules = rules;
        contract
    };
    let with_minimum = Rules {
        minimum: Some("1".to_owned()),
        ..Rules::default()
    };
    let with_pattern = Rules {
        pattern: Some("(".to_owned()),
        ..Rules::default()
    };
    let with_enum = Rules {
        allowed: Some(vec![r#""x""#.to_owned()]),
        ..Rules::default()
    };
    for (contract, options, reason) in [
        (contract("id integer"), keyed("nr"), "find key or sequence column"),
        (contract("id json"), keyed("id"), "compare key or sequence column"),
        (contract("id integer; ID string"), options(), "column name twice"),
        (contract("_rescued json"), options(), "reserved"),
        (contract("_LF_batch json"), options(), "reserved"),
        (
            contract("a string; b string =a"),
            options(),
            "two columns from one place",
        ),
        (
            contract("a json; b string =a.b"),
            options(),
            "two columns from one place",
        ),
        (
            contract("b string =a.b; a json"),
            options(),
            "two columns from one place",
        ),
        (rules(with_minimum, "string"), options(), "apply rule"),
        (rules(with_pattern, "string"), options(), "apply rule"),
        (rules(with_enum, "integer"), options(), "apply rule"),
    ] {
        let Err(error) = Judge::new(&contract, options) else {
            panic!("accepted: {reason}")
        };
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn the_schema_is_nullable_throughout() {
    let judge = Judge::new(&contract("id integer!; at moment; a address"), options()).unwrap();
    let schema: Vec<String> = judge
        .schema()
        .fields()
        .iter()
        .map(|field| format!("{} {} {}", field.name(), field.data_type(), field.is_nullable()))
        .collect();
    insta::assert_snapshot!(schema.join("\n"), @r#"
    id Int64 true
    at Timestamp(µs, "UTC") true
    a Struct("city": Utf8, "zip": Utf8, "lines": List(Struct("sku": Utf8, "price": Decimal128(10, 2), "tags": List(Utf8, field: 'element')), field: 'element')) true
    _rescued Utf8 true
    "#);
}
