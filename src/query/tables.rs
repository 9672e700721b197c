//! The tables of a lake, each opened when it is named.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::{SchemaProvider, TableProvider, memory::MemTable},
    common::ScalarValue,
    dataframe::DataFrame,
    error::DataFusionError,
    execution::context::SessionContext,
    logical_expr::{Expr, TableType, cast, col, lit, try_cast},
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{ObjectStore, path::Path};

use crate::{
    config::{Project, StreamName, explode::Explode},
    error::{Error, ErrorKind, Result},
    format::Recipe,
    query::raw::RawTable,
    raw::{
        BatchNumber,
        layout::{self, SystemTable},
        log::RawLog,
    },
    table::{AppId, Tables, acknowledged, contracts, profiles, side::SHARED_BY, system},
    transform::{quarantine, scan},
};

/// Tables opened at once.
const OPEN_AT_ONCE: usize = 16;

/// Names of the shared tables.
const SYSTEM_TABLES: [&str; 6] = [
    "acknowledged",
    "contracts",
    "drift",
    "loads",
    "profiles",
    "quarantine",
];

/// Behind the name of a stream the name of its quarantine.
pub(super) const QUARANTINE_SUFFIX: &str = "__quarantine";
const RAW_SUFFIX: &str = "__raw";

/// What every schema of one session shares.
pub(super) struct Lake {
    session: SessionContext,
    project: Arc<Project>,
    tables: Tables,
    store: Arc<dyn ObjectStore>,
    /// Tables that a query named before their first load. DataFusion only knows "not found".
    missing: Mutex<BTreeSet<String>>,
}

impl Lake {
    pub(super) fn new(
        session: SessionContext,
        project: Arc<Project>,
        tables: Tables,
        store: Arc<dyn ObjectStore>,
    ) -> Self {
        Self {
            session,
            project,
            tables,
            store,
            missing: Mutex::default(),
        }
    }

    /// Takes the tables that were named before their first load, and returns the first.
    pub(super) fn take_missing(&self) -> Option<String> {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *missing).pop_first()
    }

    /// The main table of `stream`, or `None` before its first load.
    pub(super) async fn main(&self, stream: &StreamName) -> Result<Option<Arc<dyn TableProvider>>> {
        match self.tables.open(&layout::table(stream)).await? {
            Some(table) => table.provider(&self.session).await.map(Some),
            None => Ok(None),
        }
    }

    /// A child table, or `None` before its main table had a row.
    async fn child(&self, stream: &StreamName, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        match self.tables.open(&layout::child(stream, name)).await? {
            Some(table) => table.provider(&self.session).await.map(Some),
            None => Ok(None),
        }
    }

    /// The child tables that the project declares for `stream`.
    fn children(&self, stream: &StreamName) -> Vec<String> {
        let settings = self
            .project
            .stream(stream)
            .map(|(_, stream)| &stream.table.explode);
        settings.into_iter().flatten().map(Explode::name).collect()
    }

    /// The quarantine of `stream` up to its watermark.
    pub(super) async fn quarantine(&self, stream: &StreamName) -> Result<Arc<dyn TableProvider>> {
        let watermark = self.watermark(stream).await?;
        match self.open(&layout::quarantine(stream)).await? {
            Some(rows) => {
                let visible = rows.filter(up_to(watermark));
                Ok(visible.map_err(planning)?.into_view())
            }
            None => empty(quarantine::schema()),
        }
    }

    /// The raw records of `stream`, oldest first within an object.
    fn raw(&self, stream: &StreamName) -> Result<Arc<dyn TableProvider>> {
        let (source, settings) = self.project.stream(stream)?;
        let log = RawLog {
            store: Arc::clone(&self.store),
            stream: stream.clone(),
        };
        let recipe = Recipe::of(source, settings);
        let schema = scan::schema();
        let columns = schema.fields().iter().enumerate().map(|(position, field)| {
            let column = col(field.name());
            // Bytes that are not text are null here; `landfall explain` shows them.
            if position == scan::column::BODY {
                try_cast(column, DataType::Utf8).alias(field.name())
            } else {
                column
            }
        });
        let rows = self
            .session
            .read_table(Arc::new(RawTable { log, recipe }))
            .and_then(|rows| rows.select(columns));
        Ok(rows.map_err(planning)?.into_view())
    }

    /// All rows of a table that all streams share: they belong to no load, so no watermark hides them.
    async fn whole(&self, table: SystemTable, schema: SchemaRef) -> Result<Arc<dyn TableProvider>> {
        match self.open(&layout::system(table)).await? {
            Some(rows) => {
                // A table of an older version of this program lacks columns that came later.
                let own = rows.schema().clone();
                let columns = schema.fields().iter().map(|field| {
                    let name = field.name();
                    if own.has_column_with_unqualified_name(name) {
                        col(name)
                    } else {
                        cast(lit(ScalarValue::Null), field.data_type().clone()).alias(name)
                    }
                });
                Ok(rows.select(columns).map_err(planning)?.into_view())
            }
            None => empty(schema),
        }
    }

    /// A table that all streams share, each stream's rows up to its watermark.
    async fn shared(&self, table: SystemTable, schema: SchemaRef) -> Result<Arc<dyn TableProvider>> {
        let Some(table) = self.tables.open(&layout::system(table)).await? else {
            return empty(schema);
        };
        let watermarks = self.watermarks(table.streams()?).await?;
        let visible = watermarks.into_iter().map(|(stream, watermark)| {
            col(SHARED_BY[0])
                .eq(lit(stream.source.as_str()))
                .and(col(SHARED_BY[1]).eq(lit(stream.stream.as_str())))
                .and(up_to(watermark))
        });
        let visible = visible.reduce(Expr::or).unwrap_or_else(|| lit(false));
        let rows = self.session.read_table(table.provider(&self.session).await?);
        let rows = rows.map_err(planning)?;
        Ok(rows.filter(visible).map_err(planning)?.into_view())
    }

    /// The quarantine of every stream, with the stream's name in front.
    async fn all_quarantine(&self) -> Result<Arc<dyn TableProvider>> {
        let streams: Vec<StreamName> = self
            .project
            .streams()
            .map(|(_, stream)| stream.name.clone())
            .collect();
        let opened = stream::iter(streams).map(|stream| async move {
            let provider = self.quarantine(&stream).await?;
            Ok::<_, Error>((stream, provider))
        });
        let opened: Vec<_> = opened.buffered(OPEN_AT_ONCE).try_collect().await?;
        let mut whole: Option<DataFrame> = None;
        for (stream, provider) in opened {
            let names = [
                lit(stream.source.as_str()).alias(SHARED_BY[0]),
                lit(stream.stream.as_str()).alias(SHARED_BY[1]),
            ];
            let schema = quarantine::schema();
            // Delta readers may give text another Arrow type than an empty table has.
            let own = schema
                .fields()
                .iter()
                .map(|field| cast(col(field.name()), field.data_type().clone()).alias(field.name()));
            let part = self
                .session
                .read_table(provider)
                .and_then(|rows| rows.select(names.into_iter().chain(own)))
                .map_err(planning)?;
            whole = Some(match whole {
                Some(before) => before.union(part).map_err(planning)?,
                None => part,
            });
        }
        match whole {
            Some(rows) => Ok(rows.into_view()),
            None => empty(quarantine::schema()),
        }
    }

    async fn open(&self, path: &Path) -> Result<Option<DataFrame>> {
        let Some(table) = self.tables.open(path).await? else {
            return Ok(None);
        };
        let provider = table.provider(&self.session).await?;
        self.session.read_table(provider).map(Some).map_err(planning)
    }

    async fn watermark(&self, stream: &StreamName) -> Result<Option<BatchNumber>> {
        let app = AppId::new(stream, AppId::GENERATION);
        self.tables.watermark(&layout::table(stream), &app).await
    }

    async fn watermarks(
        &self,
        streams: BTreeSet<StreamName>,
    ) -> Result<Vec<(StreamName, Option<BatchNumber>)>> {
        let watermarks = stream::iter(streams).map(|stream| async move {
            let watermark = self.watermark(&stream).await?;
            Ok((stream, watermark))
        });
        watermarks.buffered(OPEN_AT_ONCE).try_collect().await
    }
}

/// Rows beyond the watermark belong to a load that never became visible.
fn up_to(watermark: Option<BatchNumber>) -> Expr {
    match watermark {
        Some(batch) => col("batch_to").lt_eq(lit(batch.get())),
        None => lit(false),
    }
}

fn empty(schema: SchemaRef) -> Result<Arc<dyn TableProvider>> {
    let table = MemTable::try_new(schema, vec![Vec::new()]).map_err(planning)?;
    Ok(Arc::new(table))
}

pub(super) fn planning(source: DataFusionError) -> Error {
    Error::new(ErrorKind::Internal, "plan table").caused_by(source)
}

/// The names of one schema.
pub(super) struct Names {
    lake: Arc<Lake>,
    streams: Vec<StreamName>,
    system: bool,
}

impl Names {
    pub(super) fn new(lake: Arc<Lake>, streams: Vec<StreamName>, system: bool) -> Self {
        Self {
            lake,
            streams,
            system,
        }
    }

    async fn open(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let stream = |name: &str| self.streams.iter().find(|stream| stream.stream.as_str() == name);
        if self.system && SYSTEM_TABLES.contains(&name) {
            return match name {
                "contracts" => self
                    .lake
                    .whole(SystemTable::Contracts, contracts::schema()?)
                    .await
                    .map(Some),
                "drift" => self
                    .lake
                    .shared(SystemTable::Drift, system::drift_schema()?)
                    .await
                    .map(Some),
                "profiles" => self
                    .lake
                    .shared(SystemTable::Profiles, profiles::profiles_schema()?)
                    .await
                    .map(Some),
                "acknowledged" => self
                    .lake
                    .whole(SystemTable::Acknowledged, acknowledged::acknowledged_schema()?)
                    .await
                    .map(Some),
                "loads" => self
                    .lake
                    .shared(SystemTable::Loads, system::loads_schema()?)
                    .await
                    .map(Some),
                _ => self.lake.all_quarantine().await.map(Some),
            };
        }
        if let Some(stream) = stream(name) {
            let found = self.lake.main(stream).await?;
            if found.is_none() {
                let mut missing = self.lake.missing.lock().unwrap_or_else(PoisonError::into_inner);
                missing.insert(stream.to_string());
            }
            return Ok(found);
        }
        for stream in &self.streams {
            let child = name
                .strip_prefix(stream.stream.as_str())
                .and_then(|rest| rest.strip_prefix("__"));
            if let Some(child) =
                child.filter(|child| self.lake.children(stream).iter().any(|name| name == child))
            {
                return self.lake.child(stream, child).await;
            }
        }
        if let Some(stream) = name.strip_suffix(QUARANTINE_SUFFIX).and_then(stream) {
            return self.lake.quarantine(stream).await.map(Some);
        }
        if let Some(stream) = name.strip_suffix(RAW_SUFFIX).and_then(stream) {
            return self.lake.raw(stream).map(Some);
        }
        Ok(None)
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names")
            .field("streams", &self.streams)
            .field("system", &self.system)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl SchemaProvider for Names {
    fn table_names(&self) -> Vec<String> {
        let mut names = Vec::new();
        if self.system {
            names.extend(SYSTEM_TABLES.map(str::to_owned));
        }
        for stream in &self.streams {
            for suffix in ["", QUARANTINE_SUFFIX, RAW_SUFFIX] {
                names.push(format!("{}{suffix}", stream.stream));
            }
            let children = self.lake.children(stream);
            names.extend(children.iter().map(|child| format!("{}__{child}", stream.stream)));
        }
        names
    }

    async fn table(&self, name: &str) -> datafusion::error::Result<Option<Arc<dyn TableProvider>>> {
        self.open(name)
            .await
            .map_err(|error| DataFusionError::External(Box::new(error)))
    }

    /// Known without opening anything.
    async fn table_type(&self, name: &str) -> datafusion::error::Result<Option<TableType>> {
        let view = self.system || name.ends_with(QUARANTINE_SUFFIX) || name.ends_with(RAW_SUFFIX);
        Ok(self
            .table_exist(name)
            .then_some(if view { TableType::View } else { TableType::Base }))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.table_names().iter().any(|known| known == name)
    }
}
