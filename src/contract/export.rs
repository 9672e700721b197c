//! A contract in the words of others: JSON Schema for producers, Arrow and Delta schemas for readers of the table.

mod pattern;

use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field, TimeUnit};
use serde_json::{Map, Value, json};

use super::{Column, ColumnType, Contract, Rules, TimestampFormat, columns, example::example};

/// The dialect of [`json_schema`].
pub const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

const DATE: &str = "[0-9]{4}-[0-9]{2}-[0-9]{2}";
const TIME: &str = "[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]+)?";
const OFFSET: &str = "([Zz]|[+-][0-9]{2}:[0-9]{2})";

/// Seconds since 1970 of the first and the last second of the years 1 to 9999.
const SECONDS: [i64; 2] = [-62_135_596_800, 253_402_300_799];

/// The schema of one record, in JSON Schema 2020-12.
///
/// A record that is valid is accepted, and one that is accepted without coercion of text is valid, with these exceptions:
/// the days of a month, digits behind the point of a decimal, and whole numbers that no double holds are judged but not
/// described, because validators do not agree on them. So are patterns that not every validator reads, or not alike; they
/// stand in a `$comment`. In those that are described `\d` and `\w` are ASCII. Bounds are written as the nearest double.
/// Members that are not described are allowed; what becomes of them is up to the stream's `on_unknown`. Columns of the
/// primary key have to be there. What the contract classifies is marked by `x-classification`; the example is made up.
///
/// ```
/// use landfall::contract::{export::json_schema, infer::infer};
/// let contract = infer("orders", &["id".to_owned()], [&br#"{"id": "a"}"#[..]].into_iter()).unwrap();
/// let schema = json_schema(&contract);
/// assert_eq!(schema["properties"]["id"], serde_json::json!({"type": "string", "minLength": 1}));
/// assert_eq!(schema["required"], serde_json::json!(["id"]));
/// ```
pub fn json_schema(contract: &Contract) -> Value {
    let mut schema = Level::of(&contract.columns).to_json(false);
    if let Value::Object(members) = &mut schema {
        let id = format!("urn:landfall:contract:{}:{}", urn(&contract.id), contract.version);
        members.insert("$schema".to_owned(), DIALECT.into());
        members.insert("$id".to_owned(), id.into());
        members.insert("title".to_owned(), contract.id.clone().into());
        if contract.status == "deprecated" {
            members.insert("deprecated".to_owned(), true.into());
        }
        if let Some(example) = example(contract) {
            members.insert("examples".to_owned(), json!([example]));
        }
    }
    schema
}

/// The columns as an Arrow schema, in the JSON of Arrow's integration tests.
pub fn arrow_schema(contract: &Contract) -> Value {
    let fields: Vec<Value> = contract
        .columns
        .iter()
        .map(|column| arrow_field(&columns::field(column)))
        .collect();
    json!({ "fields": fields })
}

/// The columns as a Delta schema, in the JSON of Delta's protocol.
pub fn delta_schema(contract: &Contract) -> Value {
    let fields: Vec<Field> = contract.columns.iter().map(columns::field).collect();
    delta_struct(fields.iter())
}

/// What is on one level of a record: members by name, in which columns are, or objects on the way to columns.
#[derive(Default)]
struct Level<'c> {
    columns: BTreeMap<&'c str, &'c Column>,
    levels: BTreeMap<&'c str, Level<'c>>,
}

impl<'c> Level<'c> {
    fn of(columns: &'c [Column]) -> Self {
        let mut root = Self::default();
        for column in columns {
            let Some((name, way)) = column.path.split_last() else {
                continue;
            };
            let level = way
                .iter()
                .fold(&mut root, |level, name| level.levels.entry(name).or_default());
            level.columns.insert(name, column);
        }
        root
    }

    /// Whether something in it must be there.
    fn is_required(&self) -> bool {
        self.columns.values().any(|column| is_required(column)) || self.levels.values().any(Self::is_required)
    }

    fn to_json(&self, nullable: bool) -> Value {
        let mut properties = Map::new();
        let mut required: Vec<Value> = Vec::new();
        for (name, column) in &self.columns {
            properties.insert((*name).to_owned(), of_column(column));
            if is_required(column) {
                required.push((*name).into());
            }
        }
        for (name, level) in &self.levels {
            properties.insert((*name).to_owned(), level.to_json(!level.is_required()));
            if level.is_required() {
                required.push((*name).into());
            }
        }
        let mut schema = Map::new();
        schema.insert("type".to_owned(), types(&["object"], nullable));
        schema.insert("properties".to_owned(), properties.into());
        if !required.is_empty() {
            schema.insert("required".to_owned(), required.into());
        }
        schema.into()
    }
}

fn types(types: &[&str], nullable: bool) -> Value {
    match (types, nullable) {
        ([one], false) => (*one).into(),
        (types, nullable) => types.iter().copied().chain(nullable.then_some("null")).collect(),
    }
}

/// A key is judged as required, whatever the contract says.
fn is_required(column: &Column) -> bool {
    column.required || column.primary_key
}

fn of_column(column: &Column) -> Value {
    let nullable = !is_required(column);
    let mut schema = match &column.kind {
        ColumnType::Object(columns) => Level::of(columns).to_json(nullable),
        kind => of_kind(kind, nullable),
    };
    if let Value::Object(members) = &mut schema {
        let mut rules = column.rules.clone();
        if column.primary_key && column.kind == ColumnType::String {
            // A key that is empty text is no key.
            rules.length_min = Some(rules.length_min.map_or(1, |least| least.max(1)));
        }
        if let Some(pattern) = rules.pattern.take_if(|pattern| !pattern::is_common(pattern)) {
            let note = format!("not described here, but judged: text matches {pattern}");
            members.insert("$comment".to_owned(), note.into());
        }
        of_rules(&rules, &column.kind, nullable, members);
        if let Some(description) = &column.description {
            members.insert("description".to_owned(), description.clone().into());
        }
        if let Some(classification) = &column.classification {
            members.insert("x-classification".to_owned(), classification.clone().into());
        }
    }
    schema
}

fn of_kind(kind: &ColumnType, nullable: bool) -> Value {
    let text = |pattern: String, format: Option<&str>| {
        let mut schema = json!({ "type": types(&["string"], nullable), "pattern": pattern });
        if let Some(format) = format {
            schema["format"] = format.into();
        }
        schema
    };
    let whole = |least: Value, most: Value| json!({ "type": types(&["integer"], nullable), "minimum": least, "maximum": most });
    match kind {
        ColumnType::String => json!({ "type": types(&["string"], nullable) }),
        ColumnType::Integer => whole(i64::MIN.into(), i64::MAX.into()),
        ColumnType::Number => json!({ "type": types(&["number"], nullable) }),
        &ColumnType::Decimal { precision, scale } => {
            let word = if scale == 0 { "integer" } else { "number" };
            let limit = 10_f64.powi(i32::from(precision) - i32::from(scale));
            json!({
                "type": types(&[word], nullable),
                "exclusiveMinimum": -limit,
                "exclusiveMaximum": limit,
                "format": format!("decimal({precision},{scale})"),
            })
        }
        ColumnType::Boolean => json!({ "type": types(&["boolean"], nullable) }),
        ColumnType::Date => text(format!("^{DATE}$"), Some("date")),
        ColumnType::Timestamp(format) => match format {
            TimestampFormat::Rfc3339 => text(format!("^{DATE}{TIME}{OFFSET}$"), None),
            TimestampFormat::Naive { .. } => text(format!("^{DATE}({TIME}{OFFSET}?)?$"), None),
            TimestampFormat::EpochSeconds => whole(SECONDS[0].into(), SECONDS[1].into()),
            TimestampFormat::EpochMillis => {
                whole((SECONDS[0] * 1_000).into(), (SECONDS[1] * 1_000 + 999).into())
            }
        },
        ColumnType::Array(element) => {
            json!({ "type": types(&["array"], nullable), "items": of_column(element) })
        }
        ColumnType::Json if nullable => json!({}),
        ColumnType::Json | ColumnType::Object(_) => {
            json!({ "type": types(&["object", "array", "string", "number", "boolean"], false) })
        }
    }
}

fn of_rules(rules: &Rules, kind: &ColumnType, nullable: bool, schema: &mut Map<String, Value>) {
    let (least, most) = match kind {
        ColumnType::Array(_) => ("minItems", "maxItems"),
        _ => ("minLength", "maxLength"),
    };
    let read = |text: &String| serde_json::from_str::<Value>(text).ok();
    let known = [
        (least, rules.length_min.map(Value::from)),
        (most, rules.length_max.map(Value::from)),
        ("minimum", rules.minimum.as_ref().and_then(read)),
        ("maximum", rules.maximum.as_ref().and_then(read)),
        ("pattern", rules.pattern.clone().map(Value::from)),
    ];
    for (key, value) in known {
        if let Some(value) = value {
            // The narrower of a type's bounds and those of the contract.
            let kept = schema.get(key).and_then(Value::as_f64).zip(value.as_f64());
            let is_looser =
                kept.is_some_and(|(kept, new)| if key == "minimum" { new < kept } else { new > kept });
            if !is_looser {
                schema.insert(key.to_owned(), value);
            }
        }
    }
    if let Some(allowed) = &rules.allowed {
        let null = nullable.then_some(Value::Null);
        let values: Vec<Value> = allowed.iter().filter_map(read).chain(null).collect();
        schema.insert("enum".to_owned(), values.into());
    }
}

/// What may stand in a URN as it is; other bytes as `%` and two digits (RFC 8141).
fn urn(id: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    id.bytes().fold(String::new(), |mut text, byte| {
        if plain(byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    })
}

fn arrow_field(field: &Field) -> Value {
    let children: Vec<Value> = match field.data_type() {
        DataType::Struct(fields) => fields.iter().map(|field| arrow_field(field)).collect(),
        DataType::List(element) => vec![arrow_field(element)],
        _ => Vec::new(),
    };
    json!({
        "name": field.name(),
        "nullable": field.is_nullable(),
        "type": arrow_type(field.data_type()),
        "children": children,
    })
}

fn arrow_type(kind: &DataType) -> Value {
    match kind {
        DataType::Int64 => json!({ "name": "int", "bitWidth": 64, "isSigned": true }),
        DataType::Float64 => json!({ "name": "floatingpoint", "precision": "DOUBLE" }),
        DataType::Decimal128(precision, scale) => {
            json!({ "name": "decimal", "precision": precision, "scale": scale, "bitWidth": 128 })
        }
        DataType::Boolean => json!({ "name": "bool" }),
        DataType::Date32 => json!({ "name": "date", "unit": "DAY" }),
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            json!({ "name": "timestamp", "unit": "MICROSECOND", "timezone": zone.as_deref() })
        }
        DataType::Struct(_) => json!({ "name": "struct" }),
        DataType::List(_) => json!({ "name": "list" }),
        _ => json!({ "name": "utf8" }),
    }
}

fn delta_struct<'f>(fields: impl Iterator<Item = &'f Field>) -> Value {
    let fields: Vec<Value> = fields
        .map(|field| {
            json!({
                "name": field.name(),
                "type": delta_type(field.data_type()),
                "nullable": field.is_nullable(),
                "metadata": {},
            })
        })
        .collect();
    json!({ "type": "struct", "fields": fields })
}

fn delta_type(kind: &DataType) -> Value {
    match kind {
        DataType::Int64 => "long".into(),
        DataType::Float64 => "double".into(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})").into(),
        DataType::Boolean => "boolean".into(),
        DataType::Date32 => "date".into(),
        DataType::Timestamp(..) => "timestamp".into(),
        DataType::Struct(fields) => delta_struct(fields.iter().map(|field| &**field)),
        DataType::List(element) => json!({
            "type": "array",
            "elementType": delta_type(element.data_type()),
            "containsNull": element.is_nullable(),
        }),
        _ => "string".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::judge::tests::{contract, restrict};

    fn sample() -> Contract {
        let contract = contract(
            "id integer!; status string; total decimal; vip boolean! =in.vip; at moment; epoch epoch_ms; day naive; tags list:string; a address; j json; n number",
        );
        restrict(contract, "status", &[r#""open""#, r#""paid""#])
    }

    #[test]
    fn producers_see_what_is_judged() {
        insta::assert_snapshot!(format!("{:#}", json_schema(&sample())), @r#"
        {
          "$id": "urn:landfall:contract:test:1.0.0",
          "$schema": "https://json-schema.org/draft/2020-12/schema",
          "examples": [
            {
              "a": {
                "city": "example",
                "lines": [
                  {
                    "price": 1,
                    "sku": "example",
                    "tags": [
                      "example"
                    ]
                  }
                ],
                "postal": {
                  "code": "example"
                }
              },
              "at": "2025-01-31T12:00:00Z",
              "day": "2025-01-31T12:00:00",
              "epoch": 1738324800000,
              "id": 1,
              "in": {
                "vip": true
              },
              "j": {},
              "n": 1,
              "status": "open",
              "tags": [
                "example"
              ],
              "total": 1
            }
          ],
          "properties": {
            "a": {
              "properties": {
                "city": {
                  "type": "string"
                },
                "lines": {
                  "items": {
                    "properties": {
                      "price": {
                        "exclusiveMaximum": 100000000.0,
                        "exclusiveMinimum": -100000000.0,
                        "format": "decimal(10,2)",
                        "type": [
                          "number",
                          "null"
                        ]
                      },
                      "sku": {
                        "type": "string"
                      },
                      "tags": {
                        "items": {
                          "type": [
                            "string",
                            "null"
                          ]
                        },
                        "type": [
                          "array",
                          "null"
                        ]
                      }
                    },
                    "required": [
                      "sku"
                    ],
                    "type": [
                      "object",
                      "null"
                    ]
                  },
                  "type": [
                    "array",
                    "null"
                  ]
                },
                "postal": {
                  "properties": {
                    "code": {
                      "type": [
                        "string",
                        "null"
                      ]
                    }
                  },
                  "type": [
                    "object",
                    "null"
                  ]
                }
              },
              "required": [
                "city"
              ],
              "type": [
                "object",
                "null"
              ]
            },
            "at": {
              "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$",
              "type": [
                "string",
                "null"
              ]
            },
            "day": {
              "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})?)?$",
              "type": [
                "string",
                "null"
              ]
            },
            "epoch": {
              "maximum": 253402300799999,
              "minimum": -62135596800000,
              "type": [
                "integer",
                "null"
              ]
            },
            "id": {
              "maximum": 9223372036854775807,
              "minimum": -9223372036854775808,
              "type": "integer"
            },
            "in": {
              "properties": {
                "vip": {
                  "type": "boolean"
                }
              },
              "required": [
                "vip"
              ],
              "type": "object"
            },
            "j": {},
            "n": {
              "type": [
                "number",
                "null"
              ]
            },
            "status": {
              "enum": [
                "open",
                "paid",
                null
              ],
              "type": [
                "string",
                "null"
              ]
            },
            "tags": {
              "items": {
                "type": [
                  "string",
                  "null"
                ]
              },
              "type": [
                "array",
                "null"
              ]
            },
            "total": {
              "exclusiveMaximum": 100000000.0,
              "exclusiveMinimum": -100000000.0,
              "format": "decimal(10,2)",
              "type": [
                "number",
                "null"
              ]
            }
          },
          "required": [
            "id",
            "in"
          ],
          "title": "test",
          "type": "object"
        }
        "#);
    }

    #[test]
    fn producers_see_that_a_key_has_to_be_there() {
        let mut contract = contract("id string; name string; vip boolean =in.vip");
        let schema = json_schema(&contract);
        assert_eq!(schema["properties"]["id"], json!({"type": ["string", "null"]}));
        contract.columns[0].primary_key = true;
        contract.columns[2].primary_key = true;
        let schema = json_schema(&contract);
        assert_eq!(schema["required"], json!(["id", "in"]));
        assert_eq!(
            schema["properties"]["id"],
            json!({"type": "string", "minLength": 1})
        );
        assert_eq!(schema["properties"]["in"]["type"], "object");
        assert_eq!(schema["properties"]["in"]["required"], json!(["vip"]));
        contract.columns[0].rules.length_min = Some(3);
        assert_eq!(json_schema(&contract)["properties"]["id"]["minLength"], 3);
    }

    #[test]
    fn a_pattern_that_not_everybody_reads_alike_is_only_a_comment() {
        let mut contract = contract("a string; b string");
        contract.columns[0].rules.pattern = Some("(?i)^[a-z]+$".to_owned());
        contract.columns[1].rules.pattern = Some("^[a-z]+$".to_owned());
        let schema = json_schema(&contract);
        let (a, b) = (&schema["properties"]["a"], &schema["properties"]["b"]);
        assert_eq!(a.get("pattern"), None);
        assert_eq!(
            a["$comment"],
            "not described here, but judged: text matches (?i)^[a-z]+$"
        );
        assert_eq!(
            (b["pattern"].as_str(), b.get("$comment")),
            (Some("^[a-z]+$"), None)
        );
    }

    #[test]
    fn readers_see_the_columns() {
        insta::assert_snapshot!(format!("{}", delta_schema(&sample())), @r#"{"fields":[{"metadata":{},"name":"id","nullable":true,"type":"long"},{"metadata":{},"name":"status","nullable":true,"type":"string"},{"metadata":{},"name":"total","nullable":true,"type":"decimal(10,2)"},{"metadata":{},"name":"vip","nullable":true,"type":"boolean"},{"metadata":{},"name":"at","nullable":true,"type":"timestamp"},{"metadata":{},"name":"epoch","nullable":true,"type":"timestamp"},{"metadata":{},"name":"day","nullable":true,"type":"timestamp"},{"metadata":{},"name":"tags","nullable":true,"type":{"containsNull":true,"elementType":"string","type":"array"}},{"metadata":{},"name":"a","nullable":true,"type":{"fields":[{"metadata":{},"name":"city","nullable":true,"type":"string"},{"metadata":{},"name":"zip","nullable":true,"type":"string"},{"metadata":{},"name":"lines","nullable":true,"type":{"containsNull":true,"elementType":{"fields":[{"metadata":{},"name":"sku","nullable":true,"type":"string"},{"metadata":{},"name":"price","nullable":true,"type":"decimal(10,2)"},{"metadata":{},"name":"tags","nullable":true,"type":{"containsNull":true,"elementType":"string","type":"array"}}],"type":"struct"},"type":"array"}}],"type":"struct"}},{"metadata":{},"name":"j","nullable":true,"type":"string"},{"metadata":{},"name":"n","nullable":true,"type":"double"}],"type":"struct"}"#);
        insta::assert_snapshot!(format!("{}", arrow_schema(&contract("a address; d decimal; y date; m moment"))), @r#"{"fields":[{"children":[{"children":[],"name":"city","nullable":true,"type":{"name":"utf8"}},{"children":[],"name":"zip","nullable":true,"type":{"name":"utf8"}},{"children":[{"children":[{"children":[],"name":"sku","nullable":true,"type":{"name":"utf8"}},{"children":[],"name":"price","nullable":true,"type":{"bitWidth":128,"name":"decimal","precision":10,"scale":2}},{"children":[{"children":[],"name":"element","nullable":true,"type":{"name":"utf8"}}],"name":"tags","nullable":true,"type":{"name":"list"}}],"name":"element","nullable":true,"type":{"name":"struct"}}],"name":"lines","nullable":true,"type":{"name":"list"}}],"name":"a","nullable":true,"type":{"name":"struct"}},{"children":[],"name":"d","nullable":true,"type":{"bitWidth":128,"name":"decimal","precision":10,"scale":2}},{"children":[],"name":"y","nullable":true,"type":{"name":"date","unit":"DAY"}},{"children":[],"name":"m","nullable":true,"type":{"name":"timestamp","timezone":"UTC","unit":"MICROSECOND"}}]}"#);
    }
}
