//! What was read and what was written, as events of [OpenLineage](https://openlineage.io) 2-0-2.
//!
//! ```text
//! a stream's extraction: API ─► raw log          its transform: raw log ─► table, quarantine
//!        START … COMPLETE or FAIL                       START … COMPLETE or FAIL
//! ```

use arrow::datatypes::{DataType, Fields, SchemaRef};
use chrono::SecondsFormat;
use serde_json::{Map, Value, json};

use crate::clock::Timestamp;

/// Who says it, as the standard wants it: a URI.
const PRODUCER: &str = concat!("urn:landfall:", env!("CARGO_PKG_VERSION"));

const SPEC: &str = "https://openlineage.io/spec";

/// One run of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// A UUID of its own.
    pub id: String,
    /// Where jobs have their names: the lake.
    pub namespace: String,
    /// The job, such as `shop.orders.transform`.
    pub job: String,
    /// What kind of job it is: `EXTRACT` or `TRANSFORM`.
    pub job_type: &'static str,
    /// What was in force, by name: the contract's version, the hash of the project file.
    pub tags: Vec<(&'static str, String)>,
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It began.
    Start,
    /// It did all it had to.
    Complete,
    /// It stopped for this reason. What it had committed before stays.
    Fail(String),
    /// Somebody stopped it. What it had committed before stays.
    Abort,
}

/// What a run reads or writes. What is not known is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dataset {
    /// Where it has its name: `file`, `s3://bucket`, the origin of an API.
    pub namespace: String,
    /// The path there.
    pub name: String,
    /// The Delta version of a table, the last raw batch of a raw log.
    pub version: Option<String>,
    /// Rows or records that this run read from it or wrote to it.
    pub rows: Option<u64>,
    /// Bytes of them.
    pub bytes: Option<u64>,
    /// Its columns.
    pub schema: Option<SchemaRef>,
    /// Columns with the place in the first input that they come from, such as `customer.email`.
    pub from: Vec<(String, String)>,
}

/// One event as one line of JSON, its line end included.
///
/// ```
/// use landfall::{clock::Timestamp, report::lineage::{Dataset, Run, Turn, line}};
/// let run = Run {
///     id: "01939c5e-0000-7000-8000-000000000000".into(),
///     namespace: "file:///lake".into(),
///     job: "shop.orders.transform".into(),
///     job_type: "TRANSFORM",
///     tags: Vec::new(),
/// };
/// let raw = Dataset { namespace: "file".into(), name: "/lake/raw/shop/orders".into(), ..Dataset::default() };
/// let line = line(&run, &Turn::Start, Timestamp::UNIX_EPOCH, &[raw], &[]);
/// assert!(line.contains(r#""eventType":"START""#) && line.ends_with("}\n"));
/// ```
pub fn line(run: &Run, turn: &Turn, at: Timestamp, inputs: &[Dataset], outputs: &[Dataset]) -> String {
    let name = match turn {
        Turn::Start => "START",
        Turn::Complete => "COMPLETE",
        Turn::Fail(_) => "FAIL",
        Turn::Abort => "ABORT",
    };
    let source = inputs.first();
    let event = json!({
        "eventType": name,
        "eventTime": at.to_rfc3339_opts(SecondsFormat::Micros, true),
        "producer": PRODUCER,
        "schemaURL": format!("{SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"),
        "run": { "runId": run.id, "facets": run_facets(run, turn) },
        "job": { "namespace": run.namespace, "name": run.job, "facets": {
            "jobType": facet("2-0-4/JobTypeJobFacet", json!({
                "processingType": "BATCH",
                "integration": "LANDFALL",
                "jobType": run.job_type,
            })),
        }},
        "inputs": inputs.iter().map(input).collect::<Vec<_>>(),
        "outputs": outputs.iter().map(|output| written(output, source)).collect::<Vec<_>>(),
    });
    format!("{event}\n")
}

fn run_facets(run: &Run, turn: &Turn) -> Value {
    let tag = |(key, value): &(&str, String)| json!({ "key": key, "value": value, "source": "LANDFALL" });
    let mut facets = Map::new();
    let engine = json!({ "name": "Landfall", "version": env!("CARGO_PKG_VERSION") });
    facets.insert(
        "processing_engine".to_owned(),
        facet("1-1-1/ProcessingEngineRunFacet", engine),
    );
    let tags: Vec<Value> = run.tags.iter().map(tag).collect();
    facets.insert(
        "tags".to_owned(),
        facet("1-0-0/TagsRunFacet", json!({ "tags": tags })),
    );
    if let Turn::Fail(reason) = turn {
        let message = json!({ "message": reason, "programmingLanguage": "RUST" });
        facets.insert(
            "errorMessage".to_owned(),
            facet("1-0-1/ErrorMessageRunFacet", message),
        );
    }
    Value::Object(facets)
}

fn input(dataset: &Dataset) -> Value {
    let mut of_run = Map::new();
    if let Some(statistics) = statistics(dataset) {
        of_run.insert(
            "inputStatistics".to_owned(),
            facet("1-0-0/InputStatisticsInputDatasetFacet", statistics),
        );
    }
    json!({
        "namespace": dataset.namespace,
        "name": dataset.name,
        "facets": dataset_facets(dataset),
        "inputFacets": of_run,
    })
}

fn written(dataset: &Dataset, source: Option<&Dataset>) -> Value {
    let mut facets = dataset_facets(dataset);
    if let (Some(source), false) = (source, dataset.from.is_empty()) {
        let fields: Map<String, Value> = dataset
            .from
            .iter()
            .map(|(column, place)| (column.clone(), comes_from(source, place)))
            .collect();
        facets.insert(
            "columnLineage".to_owned(),
            facet("1-2-0/ColumnLineageDatasetFacet", json!({ "fields": fields })),
        );
    }
    let mut of_run = Map::new();
    if let Some(statistics) = statistics(dataset) {
        of_run.insert(
            "outputStatistics".to_owned(),
            facet("1-0-2/OutputStatisticsOutputDatasetFacet", statistics),
        );
    }
    json!({
        "namespace": dataset.namespace,
        "name": dataset.name,
        "facets": facets,
        "outputFacets": of_run,
    })
}

fn comes_from(source: &Dataset, place: &str) -> Value {
    json!({ "inputFields": [{
        "namespace": source.namespace,
        "name": source.name,
        "field": place,
        "transformations": [{ "type": "DIRECT", "subtype": "IDENTITY" }],
    }]})
}

fn dataset_facets(dataset: &Dataset) -> Map<String, Value> {
    let mut facets = Map::new();
    if let Some(version) = &dataset.version {
        let version = json!({ "datasetVersion": version });
        facets.insert(
            "version".to_owned(),
            facet("1-0-1/DatasetVersionDatasetFacet", version),
        );
    }
    if let Some(schema) = &dataset.schema {
        let fields = json!({ "fields": fields(schema.fields()) });
        facets.insert("schema".to_owned(), facet("1-2-0/SchemaDatasetFacet", fields));
    }
    facets
}

fn statistics(dataset: &Dataset) -> Option<Value> {
    let mut counts = Map::new();
    let named = [("rowCount", dataset.rows), ("size", dataset.bytes)];
    for (name, count) in named {
        count.map(|count| counts.insert(name.to_owned(), count.into()));
    }
    (!counts.is_empty()).then_some(Value::Object(counts))
}

/// Columns with those within them; those of a list have one field, `_element`.
fn fields(columns: &Fields) -> Vec<Value> {
    columns
        .iter()
        .map(|column| field(column.name(), column.data_type()))
        .collect()
}

fn field(name: &str, data_type: &DataType) -> Value {
    match data_type {
        DataType::Struct(within) => json!({ "name": name, "type": "struct", "fields": fields(within) }),
        DataType::List(element) => {
            json!({ "name": name, "type": "array", "fields": [field("_element", element.data_type())] })
        }
        other => json!({ "name": name, "type": other.to_string() }),
    }
}

/// `members` as the facet that the standard calls `name`: its version and its schema.
fn facet(name: &str, members: Value) -> Value {
    let (_, schema) = name.split_once('/').unwrap_or_default();
    let mut facet = json!({
        "_producer": PRODUCER,
        "_schemaURL": format!("{SPEC}/facets/{name}.json#/$defs/{schema}"),
    });
    if let (Value::Object(facet), Value::Object(members)) = (&mut facet, members) {
        facet.extend(members);
    }
    facet
}
