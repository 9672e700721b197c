use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::config::read;

const PROJECT: &str = "
lake: ./lake
sources:
  shop:
    streams:
      orders:
        push: { on_violation: reject }
        records: $.data[*]
        table: { keys: [id], sequence_by: [updated] }
";

/// With a rule, a place and a list.
pub(crate) const CONTRACT: &str = "apiVersion: v3.1.0
kind: DataContract
id: shop.orders
version: 1.2.0
status: active
schema:
- name: orders
  logicalType: object
  quality:
  - { type: custom, engine: landfall, name: positive, implementation: total > 0 }
  properties:
  - { name: id, logicalType: integer }
  - { name: updated, logicalType: integer }
  - { name: total, logicalType: number, required: true, description: What is paid. }
  - { name: email, logicalType: string, classification: restricted, logicalTypeOptions: { pattern: '@' } }
  - name: state
    logicalType: string
    customProperties: [{ property: path, value: meta.state }]
    quality: [{ type: library, metric: invalidValues, arguments: { validValues: [open, paid] }, mustBe: 0 }]
  - name: lines
    logicalType: array
    items:
      logicalType: object
      properties:
      - { name: sku, logicalType: string, required: true }
";

fn project(contract: Option<&str>) -> (TempDir, Project) {
    let dir = tempfile::tempdir().unwrap();
    let project = read::parse(PROJECT, dir.path()).unwrap().project;
    if let Some(contract) = contract {
        let (_, stream) = project.streams().next().unwrap();
        std::fs::create_dir_all(stream.contract.parent().unwrap()).unwrap();
        std::fs::write(&stream.contract, contract).unwrap();
    }
    (dir, project)
}

fn open(project: &Project) -> Result<Option<Inspector>> {
    let name = StreamName::parse("shop.orders").unwrap();
    Inspector::open(project, &name)
}

fn inspector(contract: &str) -> Inspector {
    let (_dir, project) = project(Some(contract));
    open(&project).unwrap().unwrap()
}

/// Every reason of every record that does not fit.
fn told(inspected: &Inspected) -> String {
    let mut text = String::new();
    for misfit in &inspected.told {
        for reason in &misfit.reasons {
            let index = misfit.index.map_or("body".to_owned(), |index| index.to_string());
            text += &format!(
                "{index} {} at {:?}: {}\n",
                reason.code, reason.pointer, reason.detail
            );
        }
    }
    text
}

#[test]
fn r113_r085_every_reason_has_its_code_and_place_and_shows_no_value() {
    let inspector = inspector(CONTRACT);
    let records = [
        r#"{"id":1,"updated":1,"total":5,"email":"ann@shop.example","meta":{"state":"open"}}"#,
        r#"{"id":null,"updated":"SECRET","total":-5,"email":"SECRET"}"#,
        r#"{"id":2,"updated":1,"total":-5}"#,
        r#"{"id":3,"updated":1,"total":5,"meta":{"state":"SECRET"},"lines":[{"sku":"a"},{"no/sku":"SECRET"}]}"#,
        r#"["SECRET"]"#,
        "SECRET",
        r#"{"id":4,"updated":1,"total":5,"total":6}"#,
        r#"{"id":"5","updated":1,"total":"5","extra":"SECRET"}"#,
    ];
    let body = Bytes::from(records.join("\n"));
    let inspected = inspector
        .inspect(Sent::Records("application/x-ndjson"), &body)
        .unwrap();
    insta::assert_snapshot!(told(&inspected), @r#"
    1 key_missing at "/id": expected integer
    1 type_mismatch at "/updated": expected integer
    1 pattern at "/email": expected text matching @
    2 rule_failed at "": breaks rule positive: total > 0
    3 enum at "/meta/state": expected one of "open", "paid"
    3 required_missing at "/lines/1/sku": expected string
    4 not_an_object at "": expected object
    5 not_json at "": expected JSON (RFC 8259)
    6 duplicate_key at "/total": expected each member once
    "#);
    assert!(!format!("{inspected:?}").contains("SECRET"));
    assert_eq!(
        inspected.fits,
        [true, false, false, false, false, false, false, true]
    );
    assert_eq!(inspected.misfits, 6);
    assert_eq!(inspected.codes.values().sum::<u64>(), 6);
}

#[test]
fn a_webhook_is_read_as_its_stream_says() {
    let inspector = inspector(CONTRACT);
    let inspect = |body: &'static str| {
        let inspected = inspector
            .inspect(Sent::Event, &Bytes::from_static(body.as_bytes()))
            .unwrap();
        (inspected.fits.clone(), told(&inspected))
    };
    let good = r#"{"data":[{"id":1,"updated":1,"total":1},{"id":2,"updated":1,"total":1}]}"#;
    assert_eq!(inspect(good), (vec![true, true], String::new()));
    assert_eq!(inspect(r#"{"data":[]}"#), (vec![], String::new()));
    insta::assert_snapshot!(inspect(r#"{"id":1}"#).1, @r#"body records_path_missing at "": expected records at $.data[*]"#);
    // Of a body that is cut no record counts.
    assert!(inspect(r#"{"data":[{"id":1}"#).1.starts_with("body not_json at "));
    assert_eq!(inspect("{").0, [false]);
}

#[test]
fn what_is_told_is_bounded() {
    let inspector = inspector(CONTRACT);
    let lines = format!("{{\"lines\":[{}]}}\n", ["{}"; 50].join(",")).repeat(1_000);
    let inspected = inspector
        .inspect(Sent::Records("application/x-ndjson"), &Bytes::from(lines))
        .unwrap();
    assert_eq!((inspected.misfits, inspected.fits.len()), (1_000, 1_000));
    assert_eq!(inspected.told.len(), MISFITS_MAX);
    assert!(
        inspected
            .told
            .iter()
            .all(|misfit| misfit.reasons.len() == REASONS_MAX)
    );
}

#[test]
fn a_stream_without_a_contract_has_no_inspector_and_a_broken_one_is_an_error() {
    let (_dir, absent) = project(None);
    assert!(open(&absent).unwrap().is_none());
    for broken in ["schema: [", &CONTRACT.replace("name: updated", "name: other")] {
        let (_dir, project) = project(Some(broken));
        assert_eq!(
            open(&project).err().unwrap().kind(),
            crate::error::ErrorKind::Config
        );
    }
    let (_dir, project) = project(Some(CONTRACT));
    let (_, stream) = project.streams().next().unwrap();
    let before = state(stream);
    assert_eq!(state(stream), before);
    std::fs::write(&stream.contract, CONTRACT.replace("1.2.0", "1.3.0")).unwrap();
    let after = state(stream);
    std::fs::remove_file(&stream.contract).unwrap();
    assert!(before != after && state(stream) != after && state(stream) != before);
}

#[test]
fn r112_the_schema_asks_for_what_the_stream_asks_for_and_its_example_fits() {
    let schema = inspector(CONTRACT).schema();
    assert_eq!(schema["required"], json!(["id", "total", "updated"]));
    assert_eq!(schema["properties"]["total"]["description"], "What is paid.");
    assert_eq!(schema["properties"]["email"]["x-classification"], "restricted");
    assert_eq!(schema["x-contract-version"], "1.2.0");
    assert_eq!((schema.get("$id"), schema.get("$schema")), (None, None));
    let example = &schema["examples"][0];
    assert!(inspector(CONTRACT).takes(example), "{example}");
    // An example that a rule refuses would teach what is wrong.
    let strict = CONTRACT.replace("total > 0", "total > 1000");
    assert_eq!(inspector(&strict).schema().get("examples"), None);
}

/// What may stand in a line, and whether it may stand in an array.
fn a_record() -> impl Strategy<Value = (String, bool)> {
    let json = prop_oneof![
        (0..9_i64, -2..3_i64)
            .prop_map(|(id, total)| format!(r#"{{"id": {id},"updated":1,"total":{total} }}"#)),
        prop::sample::select(vec![
            r#"{"id":1,"updated":1,"total":"x"}"#,
            "{}",
            "[1]",
            "7",
            "null",
            r#""\ud800""#,
            r#"{"id":1,"updated":1,"total":1,"a":"],["}"#,
            r#"{"id":1,"id":2,"updated":1,"total":1}"#,
        ])
        .prop_map(str::to_owned),
    ];
    prop_oneof![4 => json.prop_map(|text| (text, true)), 1 => "[a-z{}\\[\",:]{1,9}".prop_map(|text| (text, false))]
}

proptest! {
    #[test]
    fn r113_what_is_left_fits_and_is_there_byte_for_byte(
        records in prop::collection::vec(a_record(), 1..20),
        is_array in any::<bool>(),
        between in prop::sample::select(vec!["", " ", "\r"]),
    ) {
        let inspector = inspector(CONTRACT);
        let texts: Vec<&str> = records
            .iter()
            .filter(|(_, is_json)| *is_json || !is_array)
            .map(|(text, _)| text.as_str())
            .collect();
        let (media, body) = if is_array {
            ("application/json", format!("{between}[{}]", texts.join(&format!("{between},"))))
        } else {
            ("application/x-ndjson; charset=utf-8", texts.join(&format!("{between}\n")))
        };
        let body = Bytes::from(body);
        let inspected = inspector.inspect(Sent::Records(media), &body).unwrap();
        prop_assert_eq!(inspected.fits.len(), texts.len());
        prop_assert_eq!(inspected.misfits, inspected.fits.iter().filter(|fits| !**fits).count() as u64);

        let rest = without_misfits(media, &body, &inspected.fits);
        let mut left = Vec::new();
        pushed::read(Some(media), &rest, &Limits::DEFAULT, &mut |piece| {
            left.push(String::from_utf8(piece.bytes(&rest).to_vec()).unwrap());
        })
        .unwrap();
        let kept = texts.iter().zip(&inspected.fits).filter(|(_, fits)| **fits);
        let kept: Vec<&str> = kept.map(|(text, _)| *text).collect();
        let trimmed: Vec<&str> = left.iter().map(|text| text.trim_end()).collect();
        prop_assert_eq!(trimmed, kept);
        let again = inspector.inspect(Sent::Records(media), &rest).unwrap();
        prop_assert_eq!(again.misfits, 0);
    }
}
