//! A live table held against one that was made from raw: rows, quarantine, and what explains the differences.

use std::collections::{HashMap, HashSet};

use arrow::{
    array::{Array as _, AsArray as _},
    datatypes::{DataType, Int64Type},
};
use datafusion::{
    dataframe::DataFrame,
    execution::context::SessionContext,
    logical_expr::{cast, lit},
    prelude::col,
};
use futures::TryStreamExt as _;

use super::{
    Comparison, Pairing, Place,
    cause::{Circumstances, LoadedBy},
    compare, context, frame, nothing, place, reading,
};
use crate::{
    config::{ScdType, Stream},
    contract::{Column, ColumnType, classified::is_classified, contracts::Contracts},
    error::{Error, ErrorKind, Result},
    ops::{
        Workspace,
        transform::target::{Target, loads_side},
    },
    raw::BatchNumber,
    table::{
        Table,
        align::Common,
        history,
        merge::POSITION,
        side::{SHARED_BY, Side},
    },
    transform::quarantine,
};

/// Kinds of difference to a quarantine are not shown row by row: the main table's rows tell what they mean.
const QUARANTINE_ROWS_SHOWN: usize = 0;

/// Two tables of one stream.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// The stream.
    pub stream: &'a Stream,
    /// Today's contracts.
    pub contracts: &'a Contracts,
    /// The live table, at the version that is compared.
    pub live: &'a Table,
    /// The newest raw batch in it.
    pub live_until: BatchNumber,
    /// The table made from raw.
    pub rebuilt: &'a Table,
    /// Where it and its quarantine are.
    pub target: &'a Target,
    /// The newest raw batch in it.
    pub rebuilt_until: BatchNumber,
}

/// What came of holding two tables against each other.
#[derive(Clone, Debug)]
pub struct Review {
    /// The rows.
    pub rows: Comparison,
    /// The records set aside, by their place in raw.
    pub quarantine: Comparison,
    /// What changed about the table and its contract since it was loaded, one sentence each.
    pub changes: Vec<String>,
    /// Whether the two tables have the same columns.
    pub same_columns: bool,
    /// Columns with personal data, whose values are not shown.
    pub classified: Vec<String>,
}

impl Review {
    /// Whether both tables have the same rows and columns, and set the same records aside.
    pub fn is_equal(&self) -> bool {
        self.rows.is_equal() && self.quarantine.is_equal() && self.same_columns
    }
}

/// Compares the tables of `pair`; of each kind of difference up to `limit` rows are shown, with their likely causes.
///
/// # Errors
/// Whatever reading the tables says.
pub async fn review(workspace: &Workspace, pair: Pair<'_>, limit: usize) -> Result<Review> {
    let context = context(workspace.project.memory_bytes_max)?;
    let common = Common::of(pair.live.schema()?.as_ref(), pair.rebuilt.schema()?.as_ref());
    let columns = Columns::of(&pair, &common)?;
    let (live, rebuilt) = (
        frame(&context, pair.live).await?,
        frame(&context, pair.rebuilt).await?,
    );
    let mut rows = compare(&context, live, rebuilt, &Pairing::of(pair.stream, common), limit).await?;

    let live_aside = aside(
        &context,
        workspace,
        &Target::live(&pair.stream.name).quarantine,
        pair.live_until,
    )
    .await?;
    let rebuilt_aside = aside(&context, workspace, &pair.target.quarantine, pair.rebuilt_until).await?;
    let pairing = Pairing {
        common: Common::of(&quarantine::schema(), &quarantine::schema()),
        identity: POSITION.map(str::to_owned).to_vec(),
        compared: Vec::new(),
    };
    let quarantine = compare(
        &context,
        live_aside.clone(),
        rebuilt_aside.clone(),
        &pairing,
        QUARANTINE_ROWS_SHOWN,
    )
    .await?;

    let loads = loads(&context, workspace, pair.stream, pair.live_until).await?;
    let settings = columns.settings(&pair).await?;
    let places: HashSet<Place> = rows
        .differences
        .iter()
        .flat_map(|difference| [&difference.live, &difference.rebuilt])
        .filter_map(|row| row.as_ref()?.place)
        .collect();
    let circumstances = Circumstances {
        contract: pair.contracts.main.version.clone(),
        until: pair.rebuilt_until.get(),
        aside_then: reasons(live_aside, &places).await?,
        aside_now: reasons(rebuilt_aside, &places).await?,
        columns: columns.names(),
        settings: (!settings.is_empty()).then(|| settings.join("; ")),
        loads,
    };
    for difference in &mut rows.differences {
        difference.cause = circumstances.cause(difference);
    }
    let mut changes = columns.sentences();
    changes.extend(settings);
    changes.extend(contracts(&circumstances));
    Ok(Review {
        rows,
        quarantine,
        changes,
        same_columns: columns.names().is_empty(),
        classified: pair
            .contracts
            .union
            .columns
            .iter()
            .filter(|column| classified(column))
            .map(|column| column.name.clone())
            .collect(),
    })
}

/// Whether a column, or anything in it, is classified as personal data.
fn classified(column: &Column) -> bool {
    let within = match &column.kind {
        ColumnType::Object(members) => members.iter().any(classified),
        ColumnType::Array(element) => classified(element),
        _ => false,
    };
    within || is_classified(column)
}

/// How the columns of two tables differ.
struct Columns {
    added: Vec<String>,
    gone: Vec<String>,
    retyped: Vec<String>,
}

impl Columns {
    fn of(pair: &Pair<'_>, common: &Common) -> Result<Self> {
        let (live, rebuilt) = (pair.live.schema()?, pair.rebuilt.schema()?);
        let mut columns = Self {
            added: Vec::new(),
            gone: Vec::new(),
            retyped: common.retyped().to_vec(),
        };
        for field in common.schema().fields() {
            let name = field.name();
            match (live.field_with_name(name), rebuilt.field_with_name(name)) {
                (Err(_), _) => columns.added.push(name.clone()),
                (_, Err(_)) => columns.gone.push(name.clone()),
                // Members of structs come and go too.
                (Ok(one), Ok(other))
                    if one.data_type() != other.data_type() && !columns.retyped.contains(name) =>
                {
                    columns.retyped.push(name.clone());
                }
                _ => {}
            }
        }
        Ok(columns)
    }

    fn names(&self) -> Vec<String> {
        [&self.added, &self.gone, &self.retyped]
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    fn sentences(&self) -> Vec<String> {
        let lists = [
            ("new columns", &self.added),
            ("columns that are no longer declared", &self.gone),
            ("columns of another type", &self.retyped),
        ];
        let told = lists.into_iter().filter(|(_, names)| !names.is_empty());
        told.map(|(what, names)| format!("{what}: {}", names.join(", ")))
            .collect()
    }

    /// Changes of the table's own settings, as far as the tables tell.
    async fn settings(&self, pair: &Pair<'_>) -> Result<Vec<String>> {
        let rules = &pair.stream.table;
        let mut changes = Vec::new();
        let history = |names: &[String]| names.iter().any(|name| name == history::VALID_FROM);
        if history(&self.added) {
            changes.push("the table keeps history now".to_owned());
        }
        if history(&self.gone) {
            changes.push("the table keeps no history any more".to_owned());
        }
        let keys = rules.keys.join(", ");
        if matches!(rules.scd_type, ScdType::Upsert | ScdType::History)
            && let Some(before) = pair.live.merged_by().await?
            && before != keys
        {
            changes.push(format!("keys were {before} and are {keys}"));
        }
        let partitions = pair.live.partition_by()?;
        if partitions != rules.partition_by {
            let list = |names: &[String]| match names {
                [] => "nothing".to_owned(),
                names => names.join(", "),
            };
            changes.push(format!(
                "partitioned by {} and now by {}",
                list(&partitions),
                list(&rules.partition_by)
            ));
        }
        Ok(changes)
    }
}

/// The contracts that the live table was loaded by, if others than today's are among them.
fn contracts(circumstances: &Circumstances) -> Option<String> {
    let mut others: Vec<&str> = Vec::new();
    for load in &circumstances.loads {
        if load.contract != circumstances.contract && !others.contains(&load.contract.as_str()) {
            others.push(&load.contract);
        }
    }
    (!others.is_empty()).then(|| {
        format!(
            "loaded by contract {}, today's is {}",
            others.join(", "),
            circumstances.contract
        )
    })
}

/// The records set aside by loads up to `until`.
async fn aside(
    context: &SessionContext,
    workspace: &Workspace,
    side: &Side,
    until: BatchNumber,
) -> Result<DataFrame> {
    match workspace.tables.open(&side.path).await? {
        Some(table) => {
            let rows = frame(context, &table).await?;
            rows.filter(col("batch_to").lt_eq(lit(until.get())))
                .map_err(reading)
        }
        None => nothing(context, &quarantine::schema()),
    }
}

/// Why the records at `places` are set aside.
async fn reasons(aside: DataFrame, places: &HashSet<Place>) -> Result<HashMap<Place, String>> {
    let mut reasons = HashMap::new();
    if places.is_empty() {
        return Ok(reasons);
    }
    let text = |name: &str| cast(col(name), DataType::Utf8).alias(name);
    let columns = POSITION.into_iter().map(col).chain([text("class"), text("path")]);
    let rows = aside.select(columns).map_err(reading)?;
    let mut batches = rows.execute_stream().await.map_err(reading)?;
    while let Some(batch) = batches.try_next().await.map_err(reading)? {
        let (classes, paths) = (
            batch["class"].as_string::<i32>(),
            batch["path"].as_string::<i32>(),
        );
        for row in 0..batch.num_rows() {
            let Some(place) = place(&batch, row).filter(|place| places.contains(place)) else {
                continue;
            };
            let reason = match paths.is_valid(row).then(|| paths.value(row)) {
                Some(path) if !path.is_empty() => format!("{} at {path}", classes.value(row)),
                _ => classes.value(row).to_owned(),
            };
            reasons.insert(place, reason);
        }
    }
    Ok(reasons)
}

/// The loads of `stream` up to `until`.
async fn loads(
    context: &SessionContext,
    workspace: &Workspace,
    stream: &Stream,
    until: BatchNumber,
) -> Result<Vec<LoadedBy>> {
    let Some(table) = workspace.tables.open(&loads_side().path).await? else {
        return Ok(Vec::new());
    };
    let own = col(SHARED_BY[0])
        .eq(lit(stream.name.source.as_str()))
        .and(col(SHARED_BY[1]).eq(lit(stream.name.stream.as_str())))
        .and(col("batch_to").lt_eq(lit(until.get())));
    let version = cast(col("contract_version"), DataType::Utf8).alias("contract_version");
    let rows = frame(context, &table)
        .await?
        .filter(own)
        .and_then(|rows| rows.select([col("batch_from"), col("batch_to"), version]))
        .map_err(reading)?;
    let mut loads = Vec::new();
    for batch in rows.collect().await.map_err(reading)? {
        let wrong = || Error::new(ErrorKind::Corrupt, "read load history");
        let number = |name: &str| batch[name].as_primitive_opt::<Int64Type>().ok_or_else(wrong);
        let (from, to) = (number("batch_from")?, number("batch_to")?);
        let versions = batch["contract_version"].as_string::<i32>();
        loads.extend((0..batch.num_rows()).map(|row| LoadedBy {
            from: from.value(row),
            to: to.value(row),
            contract: versions.value(row).to_owned(),
        }));
    }
    Ok(loads)
}
