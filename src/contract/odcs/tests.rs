use proptest::prelude::*;

use super::{write::write, *};
use crate::{
    config::OnMismatch,
    contract::{
        Coercion, Column, ColumnType, Rules, TimestampFormat,
        quality::{OnBroken, QualityRule},
    },
};

const GOOD: &str = include_str!("../../../fixtures/contracts/shop.orders.odcs.yaml");
const BAD: &str = include_str!("../../../fixtures/contracts/bad.odcs.yaml");
const FILE: &str = "c.yaml";

fn shown(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

/// The problems of a contract with one property.
fn property(text: &str) -> String {
    let file = format!(
        "apiVersion: v3.1.0\nkind: DataContract\nid: x\nversion: 1.0.0\nstatus: active\nschema:\n- name: t\n  properties:\n  - {{name: a, {text}}}\n"
    );
    match parse(&file, FILE) {
        Ok(contract) => format!("{:?}", contract.columns[0]),
        Err(problems) => shown(&problems),
    }
}

#[test]
fn a_contract_of_the_standard_is_read_with_keys_that_mean_nothing_here() {
    let contract = parse(GOOD, FILE).map_err(|problems| shown(&problems)).unwrap();
    assert_eq!(
        (contract.version.as_str(), contract.status.as_str()),
        ("1.2.0", "active")
    );
    let columns: String = contract
        .columns
        .iter()
        .map(|column| format!("{} {:?} {:?}\n", column.name, column.path, column.kind))
        .collect();
    insta::assert_snapshot!(columns, @r#"
    id ["id"] Integer
    status ["status"] String
    total ["total"] Decimal { precision: 12, scale: 2 }
    weight ["weight"] Number
    paid ["paid"] Boolean
    day ["day"] Date
    updated_at ["updated_at"] Timestamp(Rfc3339)
    created ["created"] Timestamp(EpochMillis)
    email ["customer", "contact", "email"] String
    address ["address"] Object([Column { name: "street", path: ["street"], kind: String, required: false, primary_key: false, coercion: Lossless, rules: Rules { allowed: None, pattern: None, length_min: None, length_max: None, minimum: None, maximum: None, unique: false }, on_mismatch: None, on_unknown: None, classification: None, description: None }, Column { name: "zip", path: ["zip"], kind: String, required: false, primary_key: false, coercion: Lossless, rules: Rules { allowed: None, pattern: None, length_min: Some(3), length_max: None, minimum: None, maximum: None, unique: false }, on_mismatch: None, on_unknown: None, classification: None, description: None }])
    lines ["lines"] Array(Column { name: "element", path: [], kind: Object([Column { name: "sku", path: ["sku"], kind: String, required: true, primary_key: false, coercion: Lossless, rules: Rules { allowed: None, pattern: None, length_min: None, length_max: None, minimum: None, maximum: None, unique: false }, on_mismatch: None, on_unknown: None, classification: None, description: None }, Column { name: "prices", path: ["prices"], kind: Array(Column { name: "element", path: [], kind: Number, required: false, primary_key: false, coercion: Lossless, rules: Rules { allowed: None, pattern: None, length_min: None, length_max: None, minimum: None, maximum: None, unique: false }, on_mismatch: None, on_unknown: None, classification: None, description: None }), required: false, primary_key: false, coercion: Lossless, rules: Rules { allowed: None, pattern: None, length_min: None, length_max: None, minimum: None, maximum: None, unique: false }, on_mismatch: None, on_unknown: None, classification: None, description: None }]), required: false, primary_key: false, coercion: Lossless, rules: Rules { allowed: None, pattern: None, length_min: None, length_max: None, minimum: None, maximum: None, unique: false }, on_mismatch: None, on_unknown: None, classification: None, description: None })
    extra ["extra"] Json
    "#);
    let rules = |name: &str| {
        contract
            .columns
            .iter()
            .find(|column| column.name == name)
            .unwrap()
            .rules
            .clone()
    };
    assert_eq!(
        rules("status").allowed.unwrap(),
        [r#""open""#, r#""paid""#, r#""refunded""#]
    );
    assert_eq!(rules("total").minimum.as_deref(), Some("0.00"));
    assert_eq!(rules("email").pattern.as_deref(), Some("^[^@]+@[^@]+$"));
    assert_eq!(rules("lines").length_max, Some(500));
    assert!(contract.columns[0].primary_key && contract.columns[0].required);
    assert_eq!(parse(&write(&contract, "shop.orders"), FILE).unwrap(), contract);
}

#[test]
fn r020_every_problem_of_a_contract_is_reported_at_once_with_its_place() {
    insta::assert_snapshot!(shown(&parse(BAD, FILE).unwrap_err()), @r#"
    c.yaml:1:1: missing key "id"
    c.yaml:1:13: apiVersion: "v2.2.2" is not a version of the standard that is read
      hint: write v3.1.0
    c.yaml:2:7: kind: "Contract" is not allowed
      hint: did you mean DataContract? allowed: DataContract
    c.yaml:3:10: version: expected text, found a number
      hint: put it in quotes
    c.yaml:5:1: unknown key "teem"
      hint: did you mean "team"?
    c.yaml:10:22: logicalType: "integr" is not allowed
      hint: did you mean integer? allowed: string, integer, number, boolean, date, timestamp, object, array
    c.yaml:13:23: physicalType: precision is 1 to 38 and scale 0 to precision
    c.yaml:16:9: "total" and "TOTAL" are one name
      hint: upper and lower case are the same here
    c.yaml:18:15: name: "_lf_page" is a column of the program itself
      hint: choose another name and say where the value is in the custom property path
    c.yaml:20:15: name: "unit price" has a space, a control character or one of , ; { } ( ) =
      hint: choose another name and say where the value is in the custom property path
    c.yaml:24:40: pattern: "(" cannot be read: unclosed group
    c.yaml:24:45: unknown key "maxLenght"
      hint: did you mean "maxLength"?
    c.yaml:25:9: "mail" has the same path as "email"
    c.yaml:30:9: missing key "name" in "properties"
    c.yaml:36:67: primaryKey: a primary key is made of columns of the table itself
    c.yaml:37:5: schema: a stream has one object; give each stream its own contract
    "#);
}

#[test]
fn types_come_from_logical_and_physical_type() {
    for (text, kind) in [
        (
            "logicalType: number, physicalType: 'DECIMAL(12, 2)'",
            "kind: Decimal { precision: 12, scale: 2 }",
        ),
        (
            "logicalType: integer, physicalType: numeric(38)",
            "kind: Decimal { precision: 38, scale: 0 }",
        ),
        ("logicalType: number, physicalType: DOUBLE", "kind: Number"),
        ("logicalType: string, physicalType: json", "kind: Json"),
        ("logicalType: object", "kind: Json"),
        ("logicalType: string, physicalType: VARCHAR(2)", "kind: String"),
        (
            "logicalType: timestamp, customProperties: [{property: format, value: 'naive:-09:30'}]",
            "kind: Timestamp(Naive { offset_seconds: -34200 })",
        ),
        (
            "logicalType: date, logicalTypeOptions: {format: yyyy-MM-dd}",
            "kind: Date",
        ),
        (
            "logicalType: string, customProperties: [{property: path, value: b.c}]",
            r#"path: ["b", "c"]"#,
        ),
        (
            "logicalType: string, customProperties: [{property: path, value: [a, b.c]}]",
            r#"path: ["a", "b.c"]"#,
        ),
        (
            "logicalType: string, customProperties: [{property: path, value: ['']}]",
            r#"path: [""]"#,
        ),
        (
            "logicalType: integer, customProperties: [{property: enum, value: [1, 2]}]",
            r#"allowed: Some(["1", "2"])"#,
        ),
        (
            "logicalType: string, customProperties: [{property: owner, value: me}]",
            "kind: String",
        ),
        (
            "logicalType: string, description: ~, tags: [x], unique: true",
            "description: None",
        ),
    ] {
        let read = property(text);
        assert!(read.contains(kind), "{text}\n{read}");
    }
}

#[test]
fn what_cannot_be_held_or_enforced_is_one_problem() {
    for text in [
        "logicalType: time",
        "logicalType: strnig",
        "physicalType: json",
        "logicalType: number, physicalType: 'decimal(39,2)'",
        "logicalType: number, physicalType: 'decimal(5,6)'",
        "logicalType: number, physicalType: decimal",
        "logicalType: integer, physicalType: 'decimal(5,1)'",
        "logicalType: boolean, physicalType: json",
        "logicalType: array",
        "logicalType: object, properties: []",
        "logicalType: string, items: {logicalType: string}",
        "logicalType: string, required: yes",
        "logicalType: string, requierd: true",
        "logicalType: string, logicalTypeOptions: {minimum: 1}",
        "logicalType: string, logicalTypeOptions: {pattern: '(?=a)b'}",
        "logicalType: string, logicalTypeOptions: {pattern: '(?:\\w{1000}){1000}'}",
        "logicalType: string, logicalTypeOptions: {minLength: 5, maxLength: 4}",
        "logicalType: string, logicalTypeOptions: {minLength: -1}",
        "logicalType: number, logicalTypeOptions: {minimum: 2, maximum: 1.5}",
        "logicalType: number, logicalTypeOptions: {minimum: 1e3}",
        "logicalType: number, logicalTypeOptions: {minimum: '1'}",
        "logicalType: number, logicalTypeOptions: {exclusiveMinimum: 1}",
        "logicalType: date, logicalTypeOptions: {format: dd.MM.yyyy}",
        "logicalType: timestamp, logicalTypeOptions: {timezone: false}",
        "logicalType: timestamp, customProperties: [{property: format, value: 'naive:+25:00'}]",
        "logicalType: timestamp, customProperties: [{property: format, value: epoch}]",
        "logicalType: string, customProperties: [{property: format, value: epoch_s}]",
        "logicalType: string, customProperties: [{property: coersion, value: none}]",
        "logicalType: string, customProperties: [{property: coercion, value: strict}]",
        "logicalType: string, customProperties: [{property: path, value: a..b}]",
        "logicalType: string, customProperties: [{property: path, value: a}, {property: path, value: b}]",
        "logicalType: string, customProperties: [{property: enum, value: [1]}]",
        "logicalType: string, customProperties: [{property: enum, value: [a, a]}]",
        "logicalType: string, customProperties: [{property: enum, value: []}]",
    ] {
        let read = property(text);
        assert_eq!(read.matches("c.yaml:").count(), 1, "{text}\n{read}");
    }
}

#[test]
fn r110_a_mode_of_compatibility_is_one_that_is_known() {
    let with = |mode: &str| {
        GOOD.replace(
            "tags: [sales]\n",
            &format!("tags: [sales]\ncustomProperties: [{{property: compatibility, value: {mode}}}]\n"),
        )
    };
    assert_eq!(
        compatibility(&with("forward_transitive")),
        Some("forward_transitive".parse().unwrap())
    );
    assert_eq!(compatibility(GOOD), None);
    assert!(parse(&with("full"), FILE).is_ok());
    insta::assert_snapshot!(shown(&parse(&with("ful"), FILE).unwrap_err()), @r#"
    c.yaml:11:53: compatibility: "ful" is not allowed
      hint: did you mean full? allowed: none, backward, backward_transitive, forward, forward_transitive, full, full_transitive
    "#);
}

#[test]
fn columns_nest_to_a_limit() {
    let nested = |levels: usize| {
        let open = "logicalType: array, items: {".repeat(levels - 1);
        property(&format!("{open}logicalType: string{}", "}".repeat(levels - 1)))
    };
    assert!(nested(COLUMN_DEPTH_MAX).starts_with("Column"));
    insta::assert_snapshot!(nested(COLUMN_DEPTH_MAX + 1), @"c.yaml:9:910: items: columns nest deeper than 32");
    // The deepest contract that is allowed can also be written and read.
    let mut kind = ColumnType::String;
    for _ in 1..COLUMN_DEPTH_MAX {
        kind = ColumnType::Object(vec![column("a", kind)]);
    }
    let contract = contract_of(vec![column("a", kind)]);
    assert_eq!(parse(&write(&contract, "s"), FILE).unwrap(), contract);
}

const RULES: &str = "apiVersion: v3.1.0
kind: DataContract
id: x
version: 1.0.0
status: active
schema:
- name: t
  quality:
  - type: text
    description: For people.
  - {type: sql, query: SELECT COUNT(*) FROM t, mustBe: 0}
  - type: custom
    engine: landfall
    name: total_is_sum
    description: What is paid is what it costs.
    severity: critical
    dimension: accuracy
    implementation: |
      total = net + tax
  properties:
  - {name: net, logicalType: number}
  - {name: tax, logicalType: number, unique: true}
  - name: total
    logicalType: number
    unique: true
    quality:
    - {type: custom, engine: soda, implementation: {checks: 1}}
    - {metric: nullValues, mustBe: 0}
    - {type: custom, engine: landfall, name: not_negative, severity: warning, implementation: total >= 0}
  - {name: tags, logicalType: array, unique: true, items: {logicalType: string}}
";

#[test]
fn rules_in_sql_are_read_and_checks_of_others_are_told_to_be_theirs() {
    let (contract, warnings) = read(RULES, FILE).map_err(|problems| shown(&problems)).unwrap();
    insta::assert_debug_snapshot!(contract.quality, @r#"
    [
        QualityRule {
            name: "total_is_sum",
            column: None,
            sql: "total = net + tax",
            on_broken: Fail,
            description: Some(
                "What is paid is what it costs.",
            ),
        },
        QualityRule {
            name: "not_negative",
            column: Some(
                "total",
            ),
            sql: "total >= 0",
            on_broken: Warn,
            description: None,
        },
    ]
    "#);
    insta::assert_snapshot!(shown(&warnings), @r#"
    c.yaml:11:5: quality: the check "sql" is not run
      hint: run are lists of valid values (metric: invalidValues, mustBe: 0) and rules over one row (type: custom, engine: landfall)
    c.yaml:27:7: quality: the check "custom" is not run
      hint: run are lists of valid values (metric: invalidValues, mustBe: 0) and rules over one row (type: custom, engine: landfall)
    c.yaml:28:7: quality: the check "nullValues" is not run
      hint: run are lists of valid values (metric: invalidValues, mustBe: 0) and rules over one row (type: custom, engine: landfall)
    c.yaml:30:38: whether its values are unique is not watched
      hint: watched are columns of the table itself that hold one value
    "#);
    let unique: Vec<bool> = contract
        .columns
        .iter()
        .map(|column| column.rules.unique)
        .collect();
    assert_eq!(unique, [false, true, true, true]);
    assert_eq!(parse(&write(&contract, "t"), FILE).unwrap(), contract);
    let place = rule_place(RULES, "not_negative");
    assert_eq!((place.line, place.column), (29, 95));
    assert_eq!(rule_place(RULES, "nosuch"), Place::START);
}

#[test]
fn a_rule_that_could_not_be_told_apart_or_asked_is_a_problem() {
    let rule =
        "type: custom, engine: landfall, name: not_negative, severity: warning, implementation: total >= 0";
    let mut told = String::new();
    for other in [
        "type: custom, engine: landfall, implementation: total >= 0",
        "type: custom, engine: landfall, name: total_is_sum, implementation: total >= 0",
        "type: sql, engine: landfall, name: a, query: total >= 0",
        "type: custom, engine: landfall, name: a, implementation: {sql: total >= 0}",
        "type: custom, engine: landfall, name: a, severity: info, implementation: total >= 0",
        "type: custom, engine: landfall, name: a, implementation: 1, implementaton: 2",
        "type: custom, engine: landfall, name: \"a\\nb\", implementation: 'true'",
    ] {
        let text = RULES.replace(rule, other);
        assert_ne!(text, RULES);
        told += &shown(&parse(&text, FILE).unwrap_err());
    }
    let nested =
        "{logicalType: string, quality: [{type: custom, engine: landfall, name: a, implementation: 'true'}]}";
    told += &shown(
        &parse(
            &RULES.replace("items: {logicalType: string}", &format!("items: {nested}")),
            FILE,
        )
        .unwrap_err(),
    );
    insta::assert_snapshot!(told, @r#"
    c.yaml:29:7: missing key "name" in "quality"
    c.yaml:7:3: two rules are called "total_is_sum"
    c.yaml:29:7: missing key "implementation" in "quality"
    c.yaml:29:14: type: "sql" is not allowed
      hint: allowed: custom
    c.yaml:29:46: unknown key "query"
      hint: known keys: name, type, engine, implementation, severity, description, authoritativeDefinitions, businessImpact, customProperties, dimension, id, method, schedule, scheduler, tags, unit
    c.yaml:29:65: implementation: expected a boolean SQL expression, found a map
    c.yaml:29:59: severity: "info" is not allowed
      hint: allowed: warning, error, critical
    c.yaml:29:65: implementation: expected text, found a whole number
      hint: put it in quotes
    c.yaml:29:68: unknown key "implementaton"
      hint: did you mean "implementation"?
    c.yaml:29:46: name: a name has at most 100 characters, and none of control
    c.yaml:30:91: quality: a rule stands at the table or at one of its columns
      hint: put it under the table's quality; its SQL can say customer['name']
    "#);
}

fn column(name: &str, kind: ColumnType) -> Column {
    Column {
        name: name.to_owned(),
        path: vec![name.to_owned()],
        kind,
        required: false,
        primary_key: false,
        coercion: Coercion::Lossless,
        rules: Rules::default(),
        on_mismatch: None,
        on_unknown: None,
        classification: None,
        description: None,
    }
}

fn contract_of(columns: Vec<Column>) -> Contract {
    Contract {
        id: "s".to_owned(),
        version: "0.1.0".to_owned(),
        status: "draft".to_owned(),
        columns,
        quality: Vec::new(),
    }
}

/// Any text, with a liking for what YAML readers stumble over.
fn any_text() -> impl Strategy<Value = String> {
    let odd = [
        "yes", "~", "null", "- a", "a: b", " a ", "#", "1", "1.0", "\n", "'", "\"", "\\", "", "\u{85}",
        "\u{2028}",
    ];
    prop_oneof![
        "[a-z]{1,8}",
        any::<String>(),
        prop::sample::select(odd.to_vec()).prop_map(str::to_owned),
    ]
}

fn any_name() -> impl Strategy<Value = String> {
    any_text().prop_filter("a name", |name| name_problem(name, true).is_none())
}

fn any_leaf() -> impl Strategy<Value = (ColumnType, Rules)> {
    let none = Rules::default;
    let lengths = (prop::option::of(0u64..9), prop::option::of(9u64..=u64::MAX));
    let patterns = prop::option::of(prop::sample::select(vec!["^a.*\\d$", "\"'\\\\", "[\\x00-\\x1f]"]));
    let numbers = prop_oneof![
        Just(ColumnType::Integer),
        Just(ColumnType::Number),
        (1u8..=38)
            .prop_flat_map(|precision| (Just(precision), 0..=i8::try_from(precision).unwrap()))
            .prop_map(|(precision, scale)| ColumnType::Decimal { precision, scale }),
    ];
    let formats = prop_oneof![
        Just(TimestampFormat::Rfc3339),
        Just(TimestampFormat::EpochSeconds),
        Just(TimestampFormat::EpochMillis),
        (-86_399i32..86_400).prop_map(|offset_seconds| TimestampFormat::Naive { offset_seconds }),
    ];
    let words = prop::option::of(prop::collection::btree_set(any_text(), 1..4));
    let whole = prop::option::of(prop::collection::btree_set(any::<i64>(), 1..4));
    prop_oneof![
        (lengths.clone(), patterns, words).prop_map(|((least, most), pattern, words)| {
            let allowed = words.map(|words| {
                words
                    .iter()
                    .map(|word| serde_json::Value::from(word.as_str()).to_string())
                    .collect()
            });
            let rules = Rules {
                allowed,
                pattern: pattern.map(str::to_owned),
                length_min: least,
                length_max: most,
                ..Rules::default()
            };
            (ColumnType::String, rules)
        }),
        (
            numbers,
            prop::option::of("-[1-9][0-9]{0,40}"),
            prop::option::of("0\\.[0-9]{1,30}"),
            whole
        )
            .prop_map(|(kind, minimum, maximum, whole)| {
                let allowed = whole.map(|whole| whole.iter().map(ToString::to_string).collect());
                (
                    kind,
                    Rules {
                        allowed,
                        minimum,
                        maximum,
                        ..Rules::default()
                    },
                )
            }),
        formats.prop_map(move |format| (ColumnType::Timestamp(format), none())),
        prop::sample::select(vec![ColumnType::Boolean, ColumnType::Date, ColumnType::Json])
            .prop_map(move |kind| (kind, none())),
    ]
}

fn any_column(kind: impl Strategy<Value = (ColumnType, Rules)>) -> impl Strategy<Value = Column> {
    let path = prop::option::of(prop::collection::vec(any_text(), 1..4));
    let texts = (prop::option::of(any_text()), prop::option::of(any_text()));
    (any_name(), path, kind, any::<[bool; 3]>(), texts).prop_map(
        |(name, path, (kind, rules), [required, strict, unique], (classification, description))| Column {
            path: path.unwrap_or_else(|| vec![name.clone()]),
            name,
            kind,
            required,
            primary_key: false,
            coercion: if strict {
                Coercion::None
            } else {
                Coercion::Lossless
            },
            rules: Rules { unique, ..rules },
            on_mismatch: strict.then_some(OnMismatch::Rescue),
            on_unknown: None,
            classification,
            description,
        },
    )
}

/// A rule of the table and one of its first column, in words that the column has.
fn rules_of(column: &Column) -> Vec<QualityRule> {
    let Some(words) = column
        .description
        .as_deref()
        .filter(|words| !words.trim().is_empty())
    else {
        return Vec::new();
    };
    let rule = |name: &str, column: Option<&str>, on_broken| QualityRule {
        name: name.to_owned(),
        column: column.map(str::to_owned),
        sql: words.trim().to_owned(),
        on_broken,
        description: column.map(|_| words.to_owned()),
    };
    vec![
        rule("yes", None, OnBroken::Fail),
        rule("of column", Some(&column.name), OnBroken::Quarantine),
    ]
}

fn distinct(columns: Vec<Column>) -> Vec<Column> {
    let mut kept: Vec<Column> = Vec::new();
    for column in columns {
        let same = |other: &Column| {
            other.name.to_lowercase() == column.name.to_lowercase() || other.path == column.path
        };
        if !kept.iter().any(same) {
            kept.push(column);
        }
    }
    kept
}

fn any_contract() -> impl Strategy<Value = Contract> {
    let kind = any_leaf().prop_recursive(3, 12, 3, |inner| {
        let lengths = (prop::option::of(0u64..9), prop::option::of(9u64..99));
        prop_oneof![
            prop::collection::vec(any_column(inner.clone()), 1..3)
                .prop_map(|columns| (ColumnType::Object(distinct(columns)), Rules::default())),
            (any_column(inner), lengths).prop_map(|(element, (length_min, length_max))| {
                let element = Column {
                    name: "element".to_owned(),
                    path: Vec::new(),
                    ..element
                };
                (
                    ColumnType::Array(Box::new(element)),
                    Rules {
                        length_min,
                        length_max,
                        ..Rules::default()
                    },
                )
            }),
        ]
    });
    let columns = prop::collection::vec((any_column(kind), any::<bool>()), 1..5);
    let text = || any_text().prop_filter("not empty", |text| !text.is_empty());
    (text(), text(), columns).prop_map(|(id, status, columns)| {
        let columns: Vec<Column> = columns
            .into_iter()
            .map(|(column, primary_key)| Column {
                primary_key,
                ..column
            })
            .collect();
        Contract {
            id,
            version: "1.20.3".to_owned(),
            status,
            quality: columns.first().map(rules_of).unwrap_or_default(),
            columns: distinct(columns),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_reads_back_the_same(contract in any_contract()) {
        let text = write(&contract, "shop.orders");
        match parse(&text, FILE) {
            Ok(read) => prop_assert_eq!(read, contract, "{}", text),
            Err(problems) => prop_assert!(false, "{}\n{}", shown(&problems), text),
        }
    }
}
