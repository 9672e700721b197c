//! What holds for any record.

use super::*;

/// Every column type at once.
fn wide() -> Contract {
    contract(
        "s string; i integer; n number; d decimal; b boolean; y date; m moment; e epoch_s; j json; a address; \
         l list:line; ll list:list:integer; deep string =p.q.r",
    )
}

/// JSON values, mostly of the kinds the wide contract expects.
pub(in crate::contract) fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        proptest::num::f64::NORMAL.prop_map(|value| format!("{value:e}")),
        "[a-z\u{e9}\u{1f600}\"\\\\\n]{0,4}".prop_map(|text| serde_json::to_string(&text).unwrap()),
        Just(r#""2024-01-01""#.to_owned()),
        Just(r#""2024-01-01T00:00:00Z""#.to_owned()),
        Just(r#""12""#.to_owned()),
    ];
    let name = prop::sample::select(vec![
        "s", "i", "n", "d", "b", "y", "m", "e", "j", "a", "l", "ll", "p", "q", "r", "city", "lines", "sku",
        "price", "tags",
    ]);
    leaf.prop_recursive(4, 24, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|values| format!("[{}]", values.join(","))),
            prop::collection::vec((name.clone(), inner), 0..6).prop_map(|members| {
                let members: Vec<String> = members
                    .iter()
                    .map(|(name, value)| format!("\"{name}\": {value}"))
                    .collect();
                format!("{{ {} }}", members.join(" ,"))
            }),
        ]
    })
}

/// Writes a value as nobody does: white space wherever it may stand, and letters as escapes, as `oddities` come.
fn write_oddly(value: &Value, oddities: &mut impl Iterator<Item = u8>, out: &mut String) {
    let blank = |oddity: Option<u8>| ["", " ", "\n\t", "\r   ", ""][usize::from(oddity.unwrap_or(0)) % 5];
    let text = |text: &str, oddities: &mut dyn Iterator<Item = u8>, out: &mut String| {
        out.push('"');
        for letter in text.chars() {
            let must = matches!(letter, '"' | '\\' | '\0'..='\x1f');
            if must || oddities.next().is_some_and(|oddity| oddity % 3 == 0) {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04X}").unwrap();
                }
            } else {
                out.push(letter);
            }
        }
        out.push('"');
    };
    out.push_str(blank(oddities.next()));
    match value {
        Value::String(inner) => text(inner, oddities, out),
        Value::Array(elements) => {
            out.push('[');
            for (index, element) in elements.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                write_oddly(element, oddities, out);
            }
            out.push_str(blank(oddities.next()));
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (index, (name, member)) in members.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                out.push_str(blank(oddities.next()));
                text(name, oddities, out);
                out.push_str(blank(oddities.next()));
                out.push(':');
                write_oddly(member, oddities, out);
            }
            out.push_str(blank(oddities.next()));
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
    out.push_str(blank(oddities.next()));
}

/// What of an observation does not depend on how values are written.
fn counts(observed: &Observed) -> Vec<(String, Vec<u64>, Option<u64>)> {
    let mut all: Vec<_> = observed
        .paths()
        .map(|(path, counts)| {
            let mut numbers = Kind::ALL.map(|kind| counts.of(kind)).to_vec();
            numbers.extend([
                counts.coerced(),
                counts.mismatched(),
                counts.out_of_range(),
                counts.rule_broken(),
            ]);
            (path, numbers, counts.first())
        })
        .collect();
    all.sort();
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn how_values_are_written_changes_nothing(
        records in prop::collection::vec(any_json(), 1..90),
        oddities in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        // What is kept as it was written is left out.
        let mut contract = wide();
        contract.columns.retain(|column| column.name != "j");
        let options = JudgeOptions { on_unknown: OnUnknown::Ignore, ..options() };
        let records: Vec<Value> = records.iter().map(|record| serde_json::from_str(record).unwrap()).collect();
        let plain: Vec<String> = records.iter().map(Value::to_string).collect();
        let mut cycle = oddities.iter().copied().cycle();
        let odd: Vec<String> = records
            .iter()
            .map(|record| {
                let mut written = String::new();
                write_oddly(record, &mut cycle, &mut written);
                written
            })
            .collect();
        let (plain, odd) = (judge_all(&contract, options.clone(), &plain), judge_all(&contract, options, &odd));
        prop_assert_eq!(&plain.batch, &odd.batch);
        let place = |found: &RowViolation| (found.row, found.violation.class, found.violation.path.clone());
        let places = |judged: &Judged| judged.violations.iter().map(place).collect::<Vec<_>>();
        prop_assert_eq!(places(&plain), places(&odd));
        prop_assert_eq!(plain.coerced, odd.coerced);
        prop_assert_eq!(counts(&plain.observed), counts(&odd.observed));
    }

    #[test]
    fn a_batch_does_not_depend_on_the_one_before(
        first in prop::collection::vec(any_json(), 0..9),
        second in prop::collection::vec(any_json(), 0..9),
    ) {
        let judge = Judge::new(&wide(), options()).unwrap();
        let run = |records: &[String]| {
            let mut judging = judge.start();
            records.iter().for_each(|record| judging.push(record.as_bytes()));
            judging.finish().unwrap()
        };
        run(&first);
        let (after, alone) = (run(&second), judge_all(&wide(), options(), &second));
        prop_assert_eq!(after.batch, alone.batch);
        prop_assert_eq!(after.violations, alone.violations);
        prop_assert_eq!(counts(&after.observed), counts(&alone.observed));
    }

    #[test]
    fn any_bytes_become_one_row_each(records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..10)) {
        let judged = judge_all(&wide(), options(), &records);
        prop_assert!(judged.violations.is_sorted_by_key(|found| found.row));
    }

    #[test]
    fn mutated_records_become_one_row_each_and_leave_the_others_alone(
        mut records in prop::collection::vec(any_json().prop_map(String::into_bytes), 1..8),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..4),
        rescue in any::<bool>(),
    ) {
        for (record, at, byte) in changes {
            let record = record.get_mut(&mut records);
            let at = at.index(record.len());
            match byte % 3 {
                0 => record[at] = byte,
                1 => record.truncate(at.max(1)),
                _ => record.insert(at, byte),
            }
        }
        let on_mismatch = if rescue { OnMismatch::Rescue } else { OnMismatch::Quarantine };
        let options = JudgeOptions { on_mismatch, ..options() };
        let together = judge_all(&wide(), options.clone(), &records);
        for (row, record) in records.iter().enumerate() {
            let alone = judge_all(&wide(), options.clone(), &[record]);
            prop_assert_eq!(verdict(&together, row), verdict(&alone, 0));
            // Where serde_json says no, so do we; the depth and the range of numbers never differ here.
            let is_json = serde_json::from_slice::<&serde_json::value::RawValue>(record).is_ok();
            let class = alone.violations.first().map(|found| found.violation.class);
            prop_assert_eq!(class == Some(ViolationClass::NotJson), !is_json, "{:?}", String::from_utf8_lossy(record));
        }
    }

    #[test]
    fn no_value_is_ever_altered(
        text in any::<String>(),
        integer in any::<i64>(),
        number in proptest::num::f64::NORMAL | proptest::num::f64::ZERO,
        cents in -9_999_999_999_i64..=9_999_999_999,
        micros in -62_135_596_800_000_000_i64..=253_402_300_799_999_999,
        list in prop::collection::vec(prop::option::of(any::<i64>()), 0..5),
        other in any_json(),
    ) {
        let quoted = serde_json::to_string(&text).unwrap();
        let moment = chrono::DateTime::from_timestamp_micros(micros).unwrap();
        let sign = if cents < 0 { "-" } else { "" };
        let decimal = format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100);
        let record = format!(
            r#"{{"s":{quoted},"i":{integer},"n":{number:e},"d":{decimal},"m":"{}","y":"{}","ll":[{}],"j":{other},"p":{{"q":{{"r":{quoted}}}}}}}"#,
            moment.format("%Y-%m-%dT%H:%M:%S%.6fZ"),
            moment.format("%Y-%m-%d"),
            serde_json::to_string(&list).unwrap(),
        );
        let judged = judge_all(&wide(), options(), &[&record]);
        prop_assert_eq!(&judged.violations, &[]);
        let column = |name: &str| judged.batch.column_by_name(name).unwrap();
        prop_assert_eq!(column("s").as_string::<i32>().value(0), &text);
        prop_assert_eq!(column("deep").as_string::<i32>().value(0), &text);
        prop_assert_eq!(column("i").as_primitive::<Int64Type>().value(0), integer);
        prop_assert_eq!(column("n").as_primitive::<Float64Type>().value(0).to_bits(), number.to_bits());
        prop_assert_eq!(column("d").as_primitive::<Decimal128Type>().value(0), i128::from(cents));
        prop_assert_eq!(column("m").as_primitive::<TimestampMicrosecondType>().value(0), micros);
        prop_assert_eq!(i64::from(column("y").as_primitive::<Date32Type>().value(0)), micros.div_euclid(86_400_000_000));
        let inner = column("ll").as_list::<i32>().value(0).as_list::<i32>().value(0);
        prop_assert_eq!(inner.as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), list);
        if other == "null" {
            prop_assert!(column("j").is_null(0));
        } else {
            prop_assert_eq!(column("j").as_string::<i32>().value(0), &other);
        }
    }

    #[test]
    fn what_is_not_declared_is_rescued_byte_for_byte(value in any_json(), name in any::<String>()) {
        let quoted = serde_json::to_string(&name).unwrap();
        let record = format!(r#"{{"known":1, {quoted} : {value} }}"#);
        let judged = judge_all(&contract("known integer"), options(), &[&record]);
        prop_assume!(judged.violations.is_empty());
        let rescued = judged.batch.column(1).as_string::<i32>().value(0);
        let parsed: std::collections::HashMap<String, Box<serde_json::value::RawValue>> = serde_json::from_str(rescued).unwrap();
        let values: Vec<&str> = parsed.values().map(|value| value.get()).collect();
        prop_assert_eq!(values, [value]);
    }
}
