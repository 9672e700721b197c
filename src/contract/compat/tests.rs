use proptest::prelude::*;

use super::*;
use crate::{
    config::{OnMismatch, OnUnknown},
    contract::{
        Coercion, Column, ColumnType, Rules, TimestampFormat, ViolationClass,
        judge::{Judge, JudgeOptions, tests::contract},
        quality::{OnBroken, QualityRule},
    },
};

/// Choices that follow from one number, so that a failure can be repeated.
pub(in crate::contract) struct Dice(pub(in crate::contract) u64);

impl Dice {
    /// A number below `sides`.
    pub(in crate::contract) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % sides as u64) as usize
    }

    pub(in crate::contract) fn one_in(&mut self, sides: usize) -> bool {
        self.roll(sides) == 0
    }

    fn pick<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.roll(all.len())].clone()
    }
}

fn any_kind(dice: &mut Dice, depth: usize) -> ColumnType {
    let decimal = |precision, scale| ColumnType::Decimal { precision, scale };
    match dice.roll(if depth < 2 { 18 } else { 14 }) {
        0..=2 => ColumnType::Integer,
        3 => ColumnType::Number,
        4..=6 => dice.pick(&[
            decimal(21, 2),
            decimal(12, 2),
            decimal(5, 0),
            decimal(15, 3),
            decimal(38, 0),
        ]),
        7 | 8 => ColumnType::String,
        9 => ColumnType::Boolean,
        10 | 11 => ColumnType::Date,
        12 => ColumnType::Timestamp(dice.pick(&[
            TimestampFormat::Rfc3339,
            TimestampFormat::EpochSeconds,
            TimestampFormat::Naive {
                offset_seconds: 7_200,
            },
        ])),
        13 => ColumnType::Json,
        14 | 15 => ColumnType::Array(Box::new(Column {
            path: Vec::new(),
            ..any_column(dice, "element", depth + 1)
        })),
        _ => ColumnType::Object(any_columns(dice, depth + 1)),
    }
}

fn any_rules(dice: &mut Dice, kind: &ColumnType) -> Rules {
    let mut rules = Rules::default();
    let some = |dice: &mut Dice, all: &[&str]| dice.one_in(2).then(|| dice.pick(all).to_owned());
    match kind {
        ColumnType::String if dice.one_in(2) => {
            rules.length_min = dice.one_in(2).then(|| dice.roll(3) as u64);
            rules.length_max = dice.one_in(2).then(|| 2 + dice.roll(4) as u64);
            rules.pattern = some(dice, &["^[a-z]*$", "a"]);
            rules.allowed = dice.one_in(2).then(|| {
                let all = [r#""a""#, r#""ab""#, r#""abc""#, r#""""#];
                all[..1 + dice.roll(4)]
                    .iter()
                    .map(|&text| text.to_owned())
                    .collect()
            });
        }
        ColumnType::Integer | ColumnType::Number | ColumnType::Decimal { .. } if dice.one_in(2) => {
            rules.minimum = some(dice, &["-1", "0.5", "-12345678901234567890"]);
            rules.maximum = some(dice, &["100", "1.5", "9007199254740992"]);
            rules.allowed = dice.one_in(4).then(|| {
                ["1", "2", "7"][..1 + dice.roll(3)]
                    .iter()
                    .map(|&text| text.to_owned())
                    .collect()
            });
        }
        ColumnType::Array(_) if dice.one_in(2) => rules.length_max = Some(dice.roll(3) as u64),
        _ => {}
    }
    rules
}

fn any_column(dice: &mut Dice, name: &str, depth: usize) -> Column {
    let kind = any_kind(dice, depth);
    let rules = any_rules(dice, &kind);
    Column {
        path: match dice.roll(6) {
            0 => vec!["p".to_owned(), name.to_owned()],
            _ => vec![name.to_owned()],
        },
        name: name.to_owned(),
        kind,
        required: dice.one_in(3),
        primary_key: false,
        coercion: if dice.one_in(4) {
            Coercion::None
        } else {
            Coercion::Lossless
        },
        rules,
        on_mismatch: None,
        on_unknown: None,
        classification: None,
        description: None,
    }
}

fn any_columns(dice: &mut Dice, depth: usize) -> Vec<Column> {
    let count = 1 + dice.roll(4);
    ["a", "b", "c", "d"][..count]
        .iter()
        .map(|name| any_column(dice, name, depth))
        .collect()
}

pub(in crate::contract) fn any_contract(dice: &mut Dice) -> Contract {
    Contract {
        columns: any_columns(dice, 0),
        ..contract("")
    }
}

/// The same contract with some columns changed, at any depth.
fn mutate(columns: &mut Vec<Column>, dice: &mut Dice, depth: usize) {
    for column in columns.iter_mut() {
        match dice.roll(12) {
            0 => column.required = !column.required,
            1 => {
                column.kind = any_kind(dice, depth);
                column.rules = any_rules(dice, &column.kind);
            }
            2 => column.rules = any_rules(dice, &column.kind),
            3 => column.rules = Rules::default(),
            4 if !column.path.is_empty() => column.path = vec![format!("{}{}", column.name, dice.roll(2))],
            5 => column.coercion = Coercion::Lossless,
            6 => {
                let wider = match &column.kind {
                    ColumnType::Integer => ColumnType::Decimal {
                        precision: 21,
                        scale: 2,
                    },
                    ColumnType::Date => ColumnType::Timestamp(TimestampFormat::Naive { offset_seconds: 0 }),
                    ColumnType::Decimal { scale, .. } => ColumnType::Decimal {
                        precision: 38,
                        scale: *scale,
                    },
                    other => other.clone(),
                };
                column.kind = wider;
            }
            7 if column.kind == ColumnType::Integer => column.kind = ColumnType::Number,
            _ => {}
        }
        match &mut column.kind {
            ColumnType::Object(columns) => mutate(columns, dice, depth + 1),
            ColumnType::Array(element) => {
                let mut elements = vec![(**element).clone()];
                mutate(&mut elements, dice, depth + 1);
                if let Some(changed) = elements.into_iter().find(|column| column.name == "element") {
                    **element = Column {
                        path: Vec::new(),
                        ..changed
                    };
                }
            }
            _ => {}
        }
    }
    if dice.one_in(6) && columns.len() > 1 {
        columns.remove(dice.roll(columns.len()));
    }
    if dice.one_in(3) {
        columns.push(any_column(dice, "e", depth));
    }
}

/// A value that the column mostly accepts.
fn value(dice: &mut Dice, column: &Column) -> String {
    if let (Some(allowed), false) = (&column.rules.allowed, dice.one_in(5)) {
        return dice.pick(allowed);
    }
    if dice.one_in(20) {
        return dice.pick(&["null", "\"x\"", "1", "true", "[]", "{}"]).to_owned();
    }
    let whole = [
        "0",
        "1",
        "2",
        "-1",
        "7",
        "99",
        "1.0",
        "1e2",
        "\"12\"",
        "123456",
        "9007199254740993",
        "9223372036854775807",
        "-9223372036854775808",
        "1234567890123",
    ];
    match &column.kind {
        ColumnType::String => dice
            .pick(&[
                r#""a""#,
                r#""ab""#,
                r#""abc""#,
                r#""""#,
                r#""ab1""#,
                r#""aaaaaa""#,
            ])
            .to_owned(),
        ColumnType::Integer => dice.pick(&whole).to_owned(),
        ColumnType::Number => dice.pick(&["0.5", "1e300", "1", "2.25", "\"0.1\""]).to_owned(),
        ColumnType::Decimal { .. } => match dice.roll(3) {
            0 => dice
                .pick(&[
                    "0.5",
                    "1.25",
                    "0.125",
                    "99999",
                    "1234567890.12",
                    "99999999999999999999999999999999999999",
                ])
                .to_owned(),
            _ => dice.pick(&whole).to_owned(),
        },
        ColumnType::Boolean => dice.pick(&["true", "false", "\"true\""]).to_owned(),
        ColumnType::Date => dice
            .pick(&[r#""2024-02-29""#, r#""0001-01-02""#, r#""1969-12-31""#])
            .to_owned(),
        ColumnType::Timestamp(TimestampFormat::EpochSeconds) => {
            dice.pick(&["0", "1700000000", "\"1\""]).to_owned()
        }
        ColumnType::Timestamp(TimestampFormat::Rfc3339) => dice
            .pick(&[r#""2024-02-29T01:02:03Z""#, r#""2024-02-29 01:02:03.5+02:00""#])
            .to_owned(),
        ColumnType::Timestamp(_) => dice
            .pick(&[
                r#""2024-02-29T01:02:03""#,
                r#""2024-02-29""#,
                r#""2024-02-29T01:02:03Z""#,
            ])
            .to_owned(),
        ColumnType::Json => dice.pick(&["1", "[1, {}]", "\"x\"", "{\"a\": 1}"]).to_owned(),
        ColumnType::Object(columns) => object(dice, columns),
        ColumnType::Array(element) => {
            let count = dice.roll(3);
            let elements: Vec<String> = (0..count).map(|_| value(dice, element)).collect();
            format!("[{}]", elements.join(","))
        }
    }
}

fn object(dice: &mut Dice, columns: &[Column]) -> String {
    let mut inner: Vec<String> = Vec::new();
    let mut outer: Vec<String> = Vec::new();
    for column in columns {
        if !column.required && dice.one_in(3) {
            continue;
        }
        let written = value(dice, column);
        match column.path.as_slice() {
            [name] => outer.push(format!("\"{name}\":{written}")),
            [_, name] => inner.push(format!("\"{name}\":{written}")),
            _ => {}
        }
    }
    if !inner.is_empty() {
        outer.push(format!("\"p\":{{{}}}", inner.join(",")));
    }
    format!("{{{}}}", outer.join(","))
}

/// A record that the contract mostly accepts.
pub(in crate::contract) fn record(dice: &mut Dice, contract: &Contract) -> String {
    object(dice, &contract.columns)
}

pub(in crate::contract) fn judge(contract: &Contract, on_unknown: OnUnknown) -> Option<Judge> {
    let options = JudgeOptions {
        keys: Vec::new(),
        sequence_by: Vec::new(),
        on_unknown,
        on_mismatch: OnMismatch::Quarantine,
        record_bytes_max: 1 << 20,
    };
    Judge::new(contract, options).ok()
}

fn violations(judge: &Judge, record: &str) -> Vec<String> {
    let mut judging = judge.start();
    judging.push(record.as_bytes());
    let found = judging.finish().unwrap().violations;
    found
        .into_iter()
        .map(|found| format!("{:?}", found.violation))
        .collect()
}

fn refused_for_range_only(judge: &Judge, record: &str) -> bool {
    let mut judging = judge.start();
    judging.push(record.as_bytes());
    let found = judging.finish().unwrap().violations;
    found
        .iter()
        .all(|found| found.violation.class == ViolationClass::OutOfRange)
}

fn lines(differences: &[Difference]) -> String {
    differences
        .iter()
        .map(|difference| format!("{difference}\n"))
        .collect()
}

#[test]
fn r110_every_difference_is_found_at_any_depth_and_classified() {
    let old = contract(
        "id integer!; total integer; n integer; day date; name string; gone string; status string; a address; old string =o",
    );
    let mut new = contract(
        "id integer!; total decimal; n number; day naive; name string!; status string; a address; extra string; must date!; new string =o",
    );
    new.status = "deprecated".to_owned();
    let ColumnType::Object(address) = &mut new.columns[6].kind else {
        panic!()
    };
    address[0].required = false;
    let ColumnType::Array(lines_of) = &mut address[2].kind else {
        panic!()
    };
    let ColumnType::Object(line) = &mut lines_of.kind else {
        panic!()
    };
    line[1].kind = ColumnType::Decimal {
        precision: 12,
        scale: 3,
    };
    line[2].coercion = Coercion::None;
    let found = diff(&old, &new);
    insta::assert_snapshot!(lines(&found), @r#"
    status_changed: active → deprecated (compatible both ways)
    type_changed total: integer → decimal(10,2) (not compatible)
    type_changed n: integer → number (backward compatible, except whole numbers beyond 2^53 that no number of 64 bits holds)
    type_changed day: date → timestamp (naive:+01:00) (backward compatible)
    required_added name: optional → required (forward compatible only)
    column_removed gone: was optional string (not compatible)
    required_dropped a.city: required → optional (backward compatible)
    type_changed a.lines[].price: decimal(10,2) → decimal(12,3) (backward compatible)
    coercion_changed a.lines[].tags: lossless → none (forward compatible only)
    column_renamed old: old → new (not compatible)
    column_added extra: optional string (compatible both ways)
    column_added must: required date (forward compatible only)
    "#);
    assert_eq!(Bump::of(&found), Bump::Major);
    assert_eq!(diff(&new, &new), []);
}

#[test]
fn r110_sql_rules_are_compared_by_what_they_do_to_records() {
    let with = |rules: &[(&str, OnBroken, &str)]| {
        let rule = |&(name, on_broken, sql): &(&str, OnBroken, &str)| QualityRule {
            name: name.to_owned(),
            column: None,
            sql: sql.to_owned(),
            on_broken,
            description: None,
        };
        let quality = rules.iter().map(rule).collect();
        Contract {
            quality,
            ..contract("v integer")
        }
    };
    use OnBroken::{Fail, Quarantine, Warn};
    let old = with(&[
        ("gone", Quarantine, "v > 0"),
        ("other", Quarantine, "v > 0"),
        ("softer", Fail, "v > 0"),
        ("strict", Quarantine, "v > 0"),
        ("words", Warn, "v > 0"),
        ("same", Warn, "v > 0"),
    ]);
    let new = with(&[
        ("same", Warn, "v > 0"),
        ("other", Quarantine, "v > 1"),
        ("softer", Warn, "v > 0"),
        ("strict", Fail, "v > 0"),
        ("words", Warn, "v > 1"),
        ("new", Quarantine, "v < 9"),
        ("hint", Warn, "v < 9"),
    ]);
    insta::assert_snapshot!(lines(&diff(&old, &new)), @"
    rule_removed rule gone: was error: v > 0 (backward compatible)
    rule_changed rule other: error: v > 0 → error: v > 1 (not compatible)
    rule_changed rule softer: critical: v > 0 → warning: v > 0 (backward compatible)
    rule_changed rule strict: error: v > 0 → critical: v > 0 (compatible both ways)
    rule_changed rule words: warning: v > 0 → warning: v > 1 (compatible both ways)
    rule_added rule new: error: v < 9 (forward compatible only)
    rule_added rule hint: warning: v < 9 (compatible both ways)
    ");
    assert_eq!(
        Bump::of(&diff(&with(&[]), &with(&[("hint", Warn, "true")]))),
        Bump::Minor
    );
}

#[test]
fn r110_rules_that_grow_are_backward_compatible_and_rules_that_shrink_are_forward() {
    let with = |rules: Rules| {
        let mut contract = contract("v string; n number");
        contract.columns[0].rules = Rules {
            minimum: None,
            maximum: None,
            ..rules.clone()
        };
        contract.columns[1].rules = Rules {
            minimum: rules.minimum,
            maximum: rules.maximum,
            ..Rules::default()
        };
        contract
    };
    let texts = |all: &[&str]| Some(all.iter().map(|&text| text.to_owned()).collect());
    let narrow = with(Rules {
        allowed: texts(&[r#""a""#, r#""b""#]),
        pattern: Some("^[a-z]$".to_owned()),
        length_min: Some(1),
        length_max: Some(1),
        minimum: Some("0".to_owned()),
        maximum: Some("9.99".to_owned()),
        unique: false,
    });
    let wide = with(Rules {
        allowed: texts(&[r#""b""#, r#""a""#, r#""c""#]),
        pattern: None,
        length_min: None,
        length_max: Some(9),
        minimum: Some("-0.5".to_owned()),
        maximum: None,
        unique: true,
    });
    insta::assert_snapshot!(lines(&diff(&narrow, &wide)), @r#"
    enum_changed v: "a", "b" → "b", "a", "c" (backward compatible)
    pattern_changed v: was ^[a-z]$ (backward compatible)
    length_changed v: 1 to 1 → at most 9 (backward compatible)
    unique_changed v: not unique → unique (compatible both ways)
    range_changed n: 0 to 9.99 → at least -0.5 (backward compatible)
    "#);
    insta::assert_snapshot!(lines(&diff(&wide, &narrow)), @r#"
    enum_changed v: "b", "a", "c" → "a", "b" (forward compatible only)
    pattern_changed v: ^[a-z]$ (forward compatible only)
    length_changed v: at most 9 → 1 to 1 (forward compatible only)
    unique_changed v: unique → not unique (compatible both ways)
    range_changed n: at least -0.5 → 0 to 9.99 (forward compatible only)
    "#);
    assert_eq!(Bump::of(&diff(&narrow, &wide)), Bump::Minor);
    assert_eq!(Bump::of(&diff(&wide, &narrow)), Bump::Major);
}

#[test]
fn r110_r116_a_mode_says_which_versions_go_together() {
    let first = contract("id integer!");
    let second = contract("id integer!; note string");
    let third = contract("id integer!; note string; must string");
    let mut fourth = contract("id integer!; note string!");
    fourth.columns[1].required = true;
    let count = |mode: &str, before: &[&Contract], new: &Contract| {
        conflicts(mode.parse().unwrap(), before, new).len()
    };
    // New optional columns break nobody.
    for (name, _) in Mode::ALL {
        assert_eq!(count(name, &[&first], &second), 0, "{name}");
        assert_eq!(count(name, &[&first, &second], &third), 0, "{name}");
        assert_eq!(count(name, &[], &third), 0, "{name}");
    }
    // Required from now on: what is written now can still be read by the old version.
    assert_eq!(count("backward", &[&first, &second], &fourth), 1);
    assert_eq!(count("backward_transitive", &[&first, &second], &fourth), 2);
    assert_eq!(count("forward_transitive", &[&first, &second], &fourth), 0);
    assert_eq!(count("full", &[&second, &first], &fourth), 1);
    assert_eq!(count("none", &[&second], &fourth), 0);
    // A column that is gone again conflicts only with the version that had it.
    assert_eq!(count("backward", &[&second, &first], &first), 0);
    assert_eq!(count("backward_transitive", &[&second, &first], &first), 1);
    assert!("sideways".parse::<Mode>().is_err());
    assert_eq!(Mode::FULL.to_string(), "full");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn r110_what_is_called_compatible_is_accepted_by_the_judge(seed in any::<u64>()) {
        let mut dice = Dice(seed);
        let old = any_contract(&mut dice);
        let mut new = old.clone();
        mutate(&mut new.columns, &mut dice, 0);
        prop_assert_eq!(diff(&old, &old), []);
        let found = diff(&old, &new);
        for (is_compatible, writer, reader) in [
            (found.iter().all(|one| one.compatible.is_backward()), &old, &new),
            (found.iter().all(|one| one.compatible.is_forward()), &new, &old),
        ] {
            let (Some(closed), Some(open)) = (judge(writer, OnUnknown::Quarantine), judge(reader, OnUnknown::Rescue)) else {
                return Ok(());
            };
            let has_exceptions = found.iter().any(|one| one.unless.is_some());
            for _ in 0..8 {
                let record = record(&mut dice, writer);
                if !is_compatible || !violations(&closed, &record).is_empty() {
                    continue;
                }
                let refused = violations(&open, &record);
                prop_assert!(
                    refused.is_empty() || (has_exceptions && refused_for_range_only(&open, &record)),
                    "{record}\n{}{refused:?}", lines(&found)
                );
            }
        }
    }
}
