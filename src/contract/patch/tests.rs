use proptest::prelude::*;

use super::*;
use crate::{
    config::{OnMismatch, OnUnknown, flatten::Flatten},
    contract::{
        compat::tests::{Dice, any_contract, judge, record},
        drift::changes,
        infer,
        judge::tests::properties::any_json,
        odcs::write::write,
    },
};

const ORDERS: &str = include_str!("../../../fixtures/contracts/shop.orders.odcs.yaml");

fn observe(contract: &Contract, records: &[String]) -> Observed {
    let mut judging = judge(contract, OnUnknown::Rescue).unwrap().start();
    records.iter().for_each(|record| judging.push(record.as_bytes()));
    judging.finish().unwrap().observed
}

fn drift(contract: &Contract, records: &[String]) -> Vec<Change> {
    changes(
        contract,
        &observe(contract, records),
        OnUnknown::Rescue,
        OnMismatch::Quarantine,
    )
}

fn patched(text: &str, records: &[String], sample: bool, extent: Extent) -> Patch {
    let contract = odcs::parse(text, "c.yaml").unwrap();
    let drift = drift(&contract, records);
    let sampled = infer::draft("t", &[], &Flatten::None, records.iter().map(String::as_bytes));
    patch(Request {
        text,
        file: "c.yaml",
        changes: &drift,
        keys: &["id".to_owned()],
        sample: sampled.as_ref().filter(|_| sample).map(|(_, observed)| observed),
        extent,
        flatten: &Flatten::None,
    })
    .unwrap()
}

fn left(patch: &Patch) -> String {
    patch
        .left
        .iter()
        .map(|left| format!("{} {}: {}\n", left.path, left.kind, left.why))
        .collect()
}

#[test]
fn r009_a_patch_changes_only_the_lines_it_must() {
    let records: Vec<String> = [
        r#"{"id":1,"status":"lost","total":"n/a","weight":9007199254740993,"day":"2024-01-01","updated_at":"2024-01-01T00:00:00Z","lines":[{"sku":"a","color":"red"},{"prices":[1]}],"customer":{"contact":{"email":"x","phone":"1"}}}"#,
        r#"{"id":2,"status":"re, \"turned\" ×2","total":-1,"day":"2024-01-01T00:00:00Z","updated_at":null,"address":{"zip":"1","geo":{"lat":1.5,"tags":["a"]}},"when":"2024-01-01","note":null}"#,
        r#"{"id":null,"status":"open"}"#,
    ]
    .map(str::to_owned)
    .to_vec();
    let patch = patched(ORDERS, &records, true, Extent::Everything);
    insta::assert_snapshot!(patch.unified, @r#"
    --- a/c.yaml
    +++ b/c.yaml
    @@ -2,7 +2,7 @@
     kind: DataContract
     id: 53581432-6c55-4ba2-a65f-72344a91553a
     name: Orders of the shop
    -version: 1.2.0
    +version: 2.0.0
     status: active
     tenant: shop
     domain: sales
    @@ -50,25 +50,22 @@
               - type: library
                 metric: invalidValues
                 arguments:
    -              validValues: [open, paid, refunded]
    +              validValues: [open, paid, refunded, "lost", "re, \"turned\" ×2"]
                 mustBe: 0
           - name: total
    -        logicalType: number
    -        physicalType: decimal(12,2)
    -        logicalTypeOptions:
    -          minimum: 0.00
    +        logicalType: object
    +        physicalType: "json"
           - name: weight
    -        logicalType: number
    -        physicalType: DOUBLE
    +        logicalType: object
    +        physicalType: "json"
           - name: paid
             logicalType: boolean
           - name: day
    -        logicalType: date
    -        logicalTypeOptions:
    -          format: yyyy-MM-dd
    +        logicalType: timestamp
    +        customProperties: [{property: format, value: "naive:+00:00"}]
           - name: updated_at
             logicalType: timestamp
    -        required: true
    +        required: false
             logicalTypeOptions:
               timezone: true
           - name: created
    @@ -82,8 +79,6 @@
             logicalType: string
             classification: restricted
             logicalTypeOptions:
    -          pattern: ^[^@]+@[^@]+$
    -          maxLength: 320
               format: email
             customProperties:
               - property: path
    @@ -97,7 +92,15 @@
                 logicalType: string
               - name: zip
                 logicalType: string
    -            logicalTypeOptions: { minLength: 3 }
    +          - name: geo
    +            logicalType: object
    +            properties:
    +              - name: lat
    +                logicalType: number
    +              - name: tags
    +                logicalType: array
    +                items:
    +                  logicalType: string
           - name: lines
             logicalType: array
             logicalTypeOptions:
    @@ -107,11 +110,20 @@
               properties:
                 - name: sku
                   logicalType: string
    -              required: true
    +              required: false
                 - name: prices
                   logicalType: array
                   items:
                     logicalType: number
    +            - name: color
    +              logicalType: string
           - name: extra
             logicalType: object
             physicalType: json
    +      - name: when
    +        logicalType: date
    +      - name: phone
    +        logicalType: string
    +        customProperties:
    +          - property: path
    +            value: "customer.contact.phone"
    "#);
    insta::assert_snapshot!(left(&patch), @r#"
    id null_in_required: a key has to be there
    paid missing: nothing has it any more; remove it once that is meant
    created missing: nothing has it any more; remove it once that is meant
    extra missing: nothing has it any more; remove it once that is meant
    address.street missing: nothing has it any more; remove it once that is meant
    note unknown: it was never anything but null
    "#);
    assert_eq!(patch.contract.version, "2.0.0");
    assert_eq!(odcs::parse(&patch.text, "c.yaml").unwrap(), patch.contract);
}

#[test]
fn a_patch_takes_no_type_and_no_rule_away_unless_it_is_asked_to() {
    let text = "apiVersion: v3.1.0\nkind: DataContract\nid: x\nversion: 1.0.0\nstatus: active\nschema:\n- name: t\n  properties:\n  - {name: id, logicalType: integer, physicalType: BIGINT}\n  - {name: n, logicalType: integer}\n  - {name: d, logicalType: number, physicalType: 'decimal(5,2)'}\n  - name: s\n    logicalType: string\n    logicalTypeOptions:\n      maxLength: 1\n";
    let records = [r#"{"id":0.5,"n":"x","d":0.125,"s":"long"}"#.to_owned()];
    let patch = patched(text, &records, false, Extent::Lossless);
    insta::assert_snapshot!(patch.unified, @r#"
    --- a/c.yaml
    +++ b/c.yaml
    @@ -1,14 +1,14 @@
     apiVersion: v3.1.0
     kind: DataContract
     id: x
    -version: 1.0.0
    +version: 1.1.0
     status: active
     schema:
     - name: t
       properties:
       - {name: id, logicalType: integer, physicalType: BIGINT}
       - {name: n, logicalType: integer}
    -  - {name: d, logicalType: number, physicalType: 'decimal(5,2)'}
    +  - {name: d, logicalType: number, physicalType: "decimal(38,18)"}
       - name: s
         logicalType: string
         logicalTypeOptions:
    "#);
    insta::assert_snapshot!(left(&patch), @r#"
    id type_changed: it is a key; give it another type and rebuild the table
    n type_changed: no type holds both what it was and what came, but text or JSON
    s rule_broken: a rule says so
    "#);
}

#[test]
fn a_contract_without_drift_stays_as_it_is() {
    let patch = patched(ORDERS, &[], false, Extent::Everything);
    assert_eq!((patch.text.as_str(), patch.unified.as_str()), (ORDERS, ""));
    assert_eq!((patch.left, patch.differences), (Vec::new(), Vec::new()));
}

#[test]
fn a_file_in_flow_style_is_patched_too() {
    let text = "{apiVersion: v3.1.0, kind: DataContract, id: x, version: '1.0.0', status: active, schema: [{name: t, properties: [{name: id, logicalType: integer, required: true}, {name: s, logicalType: string, logicalTypeOptions: {maxLength: 1}, customProperties: [{property: enum, value: [a]}]}]}]} # end\n";
    let records = [
        r#"{"id":1,"s":"b","n":{"a":1}}"#,
        r#"{"s":"long"}"#,
        r#"{"id":"x"}"#,
    ]
    .map(str::to_owned);
    let patch = patched(text, &records, false, Extent::Everything);
    insta::assert_snapshot!(patch.text, @r#"{apiVersion: v3.1.0, kind: DataContract, id: x, version: '1.1.0', status: active, schema: [{name: t, properties: [{name: id, logicalType: integer, required: true}, {name: s, logicalType: string, customProperties: [{property: enum, value: [a, "b"]}]}, {"logicalType":"object","name":"n","properties":[{"logicalType":"integer","name":"a"}]}]}]} # end"#);
    insta::assert_snapshot!(left(&patch), @r#"
    id required_missing: a key has to be there
    id type_changed: it is a key; give it another type and rebuild the table
    "#);
}

#[test]
fn what_is_masked_or_cut_off_is_left_to_people() {
    let text = ORDERS.replace(
        "      - name: status\n",
        "      - name: status\n        classification: restricted\n",
    );
    let records = [r#"{"id":1,"status":"lost","updated_at":"2024-01-01T00:00:00Z"}"#.to_owned()];
    let masked = patched(&text, &records, false, Extent::Everything);
    let records = [format!(
        r#"{{"id":1,"status":"{}","updated_at":"2024-01-01T00:00:00Z"}}"#,
        "x".repeat(100)
    )];
    let cut = patched(ORDERS, &records, false, Extent::Everything);
    for patch in [masked, cut] {
        assert!(left(&patch).contains("status enum_grown: its new values are not all known, or masked\n"));
        assert_eq!(patch.unified, "");
    }
}

/// Drift that a patch is there for.
fn open(contract: &Contract, records: &[String], left: &[Left]) -> Vec<Change> {
    let is_left = |change: &Change| {
        left.iter()
            .any(|left| left.kind == change.kind && left.path == change.path)
    };
    drift(contract, records)
        .into_iter()
        .filter(|change| change.effect != Effect::Coerced && !is_left(change))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn r117_a_patch_makes_the_drift_it_came_from_disappear(
        seed in any::<u64>(),
        mut records in prop::collection::vec(any_json(), 0..4),
        sample in any::<bool>(),
    ) {
        let mut dice = Dice(seed);
        let (first, second) = (any_contract(&mut dice), any_contract(&mut dice));
        if judge(&first, OnUnknown::Rescue).is_none() || judge(&second, OnUnknown::Rescue).is_none() {
            return Ok(());
        }
        records.retain(|record| record.starts_with('{'));
        for contract in [&first, &second, &second] {
            records.push(record(&mut dice, contract));
        }
        let mut text = write(&first, "t");
        let mut rounds = Vec::new();
        // A type that was too narrow may be followed by one that is still too narrow for other values.
        for _ in 0..4 {
            let patch = patched(&text, &records, sample, Extent::Everything);
            let unedited: Vec<&Left> = patch.left.iter().filter(|left| left.why == UNEDITED).collect();
            prop_assert_eq!(unedited, Vec::<&Left>::new(), "{}", text);
            prop_assert_eq!(&odcs::parse(&patch.text, "c.yaml").unwrap(), &patch.contract);
            rounds.push(open(&patch.contract, &records, &patch.left));
            text = patch.text;
        }
        prop_assert_eq!(rounds.last().unwrap(), &Vec::new(), "{}\n{:#?}\n{}", records.join("\n"), rounds, text);
        // What is added, allowed or made optional is done at once.
        let before = drift(&first, &records);
        // A value that broke two rules is counted for the first; once that is gone it is counted for the second.
        let again = |change: &&Change| {
            let is_same = |other: &Change| {
                (other.kind, &other.path, &other.found) == (change.kind, &change.path, &change.found)
            };
            !matches!(change.kind, ChangeKind::TypeChanged | ChangeKind::OutOfRange) && before.iter().any(is_same)
        };
        prop_assert_eq!(rounds[0].iter().filter(again).collect::<Vec<_>>(), Vec::<&Change>::new(), "{}", text);
    }
}

#[test]
fn f134_a_record_with_members_without_end_makes_no_columns_without_end() {
    let members = |count: usize| -> String {
        let all: Vec<String> = (0..count).map(|number| format!(r#""m{number}":1"#)).collect();
        all.join(",")
    };
    let text = write(
        &infer::infer("t", &[], [&br#"{"id":1,"prices":{"d":1}}"#[..]].into_iter()).unwrap(),
        "t",
    );
    let (wide, map) = (
        members(infer::COLUMNS_MAX + 500),
        members(infer::MEMBERS_MAX + 50),
    );
    let records = [format!(r#"{{"id":1,{wide},"prices":{{"d":1,{map}}}}}"#)];
    let patch = patched(&text, &records, true, Extent::Lossless);
    assert_eq!(odcs::parse(&patch.text, "c.yaml").unwrap(), patch.contract);
    assert_eq!(patch.contract.columns.len(), infer::COLUMNS_MAX);
    let prices = patch
        .contract
        .columns
        .iter()
        .find(|column| column.name == "prices");
    match &prices.unwrap().kind {
        crate::contract::ColumnType::Object(members) => assert_eq!(members.len(), infer::MEMBERS_MAX),
        kind => panic!("{kind:?}"),
    }
    assert_eq!(patch.left.len(), 502 + 51);
    assert!(
        patch.left.iter().all(|left| left.why.contains("too many")),
        "{}",
        left(&patch)
    );
}

#[test]
fn one_new_column_that_cannot_be_written_keeps_no_other_away() {
    let text = write(
        &infer::infer("t", &[], [&br#"{"id":1}"#[..]].into_iter()).unwrap(),
        "t",
    );
    let old = odcs::parse(&text, "c.yaml").unwrap();
    let change = Change {
        path: "x".to_owned(),
        ..drift(&old, &[r#"{"id":1,"x":1}"#.to_owned()]).remove(0)
    };
    let column = |name: &str| Step {
        at: Vec::new(),
        what: propose::What::Add(Box::new(infer::column(
            name.to_owned(),
            crate::contract::ColumnType::Integer,
        ))),
    };
    let mut draft = Draft {
        file: "c.yaml",
        text,
        contract: old,
        left: Vec::new(),
        failed: 0,
    };
    // No table takes the third name.
    let steps = ["a", "b", "c d", "e", "f"].map(|name| (&change, column(name)));
    draft.settle(&steps);
    let names: Vec<&str> = draft
        .contract
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    assert_eq!(names, ["id", "a", "b", "e", "f"]);
    assert_eq!((draft.left.len(), draft.left[0].why), (1, UNEDITED));
    assert_eq!(odcs::parse(&draft.text, "c.yaml").unwrap(), draft.contract);
}

#[test]
fn no_rule_is_lost_with_a_wider_type_that_nobody_asked_for() {
    let text = "apiVersion: v3.1.0
kind: DataContract
id: t
version: 1.0.0
status: active
schema:
- name: t
  properties:
  - {name: id, logicalType: integer}
  - name: day
    logicalType: date
    customProperties:
    - {property: enum, value: ['2024-03-31', '2024-06-30']}
";
    let records = [r#"{"id":1,"day":"2024-03-31T00:00:00"}"#.to_owned()];
    for extent in [Extent::Lossless, Extent::Partly] {
        let patch = patched(text, &records, true, extent);
        assert_eq!(patch.differences, [], "{extent:?}");
        assert!(
            left(&patch).contains("day type_changed: a rule says so"),
            "{extent:?}: {}",
            left(&patch)
        );
    }
}
