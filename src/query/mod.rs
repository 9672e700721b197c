//! Read-only SQL over everything in the lake.
//!
//! ```text
//! shop.orders              ─ Delta table
//! shop.orders__quarantine  ─ side table, rows up to the stream's watermark
//! shop.orders__raw         ─ raw log ─ scan ─ one row per record, `record` as text; only batches that the filters leave
//! landfall.drift, .loads   ─ side tables, rows up to each stream's watermark
//! landfall.quarantine      ─ the quarantine of every stream
//! ```
//!
//! A table is opened when a query names it, and not before.

mod raw;
mod tables;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use datafusion::{
    catalog::{CatalogProvider as _, MemoryCatalogProvider, SchemaProvider},
    common::ParamValues,
    dataframe::DataFrame,
    error::DataFusionError,
    execution::{
        context::{SQLOptions, SessionConfig, SessionContext},
        memory_pool::{FairSpillPool, MemoryPool},
        runtime_env::RuntimeEnvBuilder,
    },
    scalar::ScalarValue,
};
use object_store::ObjectStore;

use crate::{
    config::{Project, StreamName},
    error::{Error, ErrorKind, Result},
    query::tables::{Lake, Names, QUARANTINE_SUFFIX},
    table::Tables,
};

/// The catalog of every table.
const CATALOG: &str = "lake";

/// The schema of the tables that all streams share; also the one of names without a schema.
pub const SYSTEM: &str = "landfall";

/// SQL over one project's lake. Reads only.
pub struct Session {
    context: SessionContext,
    lake: Arc<Lake>,
}

impl Session {
    /// A session over the streams of `project`. Nothing is opened or read yet.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if DataFusion cannot be set up.
    pub fn new(project: &Arc<Project>, tables: &Tables, store: &Arc<dyn ObjectStore>) -> Result<Self> {
        let pool: Arc<dyn MemoryPool> = Arc::new(FairSpillPool::new(
            usize::try_from(project.memory_bytes_max).unwrap_or(usize::MAX),
        ));
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(pool)
            .build_arc()
            .map_err(|source| Error::new(ErrorKind::Internal, "set up SQL").caused_by(source))?;
        let config = SessionConfig::new()
            .with_create_default_catalog_and_schema(false)
            .with_default_catalog_and_schema(CATALOG, SYSTEM)
            .with_information_schema(true);
        // Tables are planned in a context of their own: one that is in the catalog would own itself.
        let inner = SessionContext::new_with_config_rt(SessionConfig::new(), Arc::clone(&runtime));
        let lake = Arc::new(Lake::new(
            inner,
            Arc::clone(project),
            tables.clone(),
            Arc::clone(store),
        ));
        let context = SessionContext::new_with_config_rt(config, runtime);
        let mut schemas: BTreeMap<&str, Vec<StreamName>> = BTreeMap::from([(SYSTEM, Vec::new())]);
        for source in &project.sources {
            let names = source.streams.iter().map(|stream| stream.name.clone());
            schemas.entry(source.name.as_str()).or_default().extend(names);
        }
        let catalog = MemoryCatalogProvider::new();
        for (schema, streams) in schemas {
            let names = Names::new(Arc::clone(&lake), streams, schema == SYSTEM);
            let provider: Arc<dyn SchemaProvider> = Arc::new(names);
            catalog
                .register_schema(schema, provider)
                .map_err(|source| Error::new(ErrorKind::Internal, "set up SQL").caused_by(source))?;
        }
        context.register_catalog(CATALOG, Arc::new(catalog));
        Ok(Self { context, lake })
    }

    /// Plans one statement that reads.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for SQL that is wrong, changes something, or names a table that does not exist (yet);
    /// else whatever opening the tables it names says.
    pub async fn sql(&self, sql: &str) -> Result<DataFrame> {
        let options = SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false);
        // What an earlier statement named is of no interest.
        let _ = self.lake.take_missing();
        self.context
            .sql_with_options(sql, options)
            .await
            .map_err(|source| self.plan_error(source))
    }

    /// Plans a statement of ours with values for its `$parameters`.
    ///
    /// # Errors
    /// As [`Session::sql`].
    pub async fn with_params(&self, sql: &str, params: Vec<(&str, ScalarValue)>) -> Result<DataFrame> {
        let frame = self.sql(sql).await?;
        let params: ParamValues = params.into();
        frame
            .with_param_values(params)
            .map_err(|source| self.plan_error(source))
    }

    /// The main table of `stream`, or `None` before its first load.
    ///
    /// # Errors
    /// Whatever opening the table says.
    pub async fn rows_of(&self, stream: &StreamName) -> Result<Option<DataFrame>> {
        let Some(provider) = self.lake.main(stream).await? else {
            return Ok(None);
        };
        self.context
            .read_table(provider)
            .map(Some)
            .map_err(|source| self.plan_error(source))
    }

    /// The quarantine of `stream`, empty if nothing was ever set aside.
    ///
    /// # Errors
    /// Whatever opening the table says.
    pub async fn quarantine_of(&self, stream: &StreamName) -> Result<DataFrame> {
        let provider = self.lake.quarantine(stream).await?;
        self.context
            .read_table(provider)
            .map_err(|source| self.plan_error(source))
    }

    /// As [`Session::with_params`], for a statement that reads the quarantine of `stream` as `stream_quarantine`. That of no
    /// other stream is opened.
    ///
    /// # Errors
    /// As [`Session::sql`].
    pub async fn of_quarantine(
        &self,
        stream: &StreamName,
        sql: &str,
        params: Vec<(&str, ScalarValue)>,
    ) -> Result<DataFrame> {
        let name = format!("\"{}\".\"{}{QUARANTINE_SUFFIX}\"", stream.source, stream.stream);
        self.with_params(&sql.replace("stream_quarantine", &name), params)
            .await
    }

    fn plan_error(&self, source: DataFusionError) -> Error {
        if let Some(name) = self.lake.take_missing() {
            return Error::new(ErrorKind::Config, format!("no load of {name} yet"))
                .with("hint", format!("`landfall run {name}` makes one"));
        }
        sql_error("plan SQL", source)
    }
}

/// Lowers DataFusion's error to ours: wrong SQL is the user's, the rest keeps the kind it began with.
pub fn sql_error(attempt: &'static str, source: DataFusionError) -> Error {
    let kind = match source.find_root() {
        DataFusionError::External(inner) => inner
            .downcast_ref::<Error>()
            .map_or(ErrorKind::Internal, Error::kind),
        DataFusionError::SQL(..)
        | DataFusionError::Plan(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::NotImplemented(_) => ErrorKind::Config,
        DataFusionError::ResourcesExhausted(_) => ErrorKind::Limit,
        DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) => ErrorKind::Unavailable,
        DataFusionError::ParquetError(_) => ErrorKind::Corrupt,
        // A value no expression can take, such as a text that is no number: what was asked for cannot be.
        DataFusionError::Execution(_) | DataFusionError::ArrowError(..) => ErrorKind::Refused,
        _ => ErrorKind::Internal,
    };
    let error = Error::new(kind, attempt);
    // What DataFusion wraps around its own words says nothing to the user.
    let words = match source.find_root() {
        DataFusionError::External(_) => return error.caused_by(source),
        DataFusionError::SQL(parser, _) => parser.to_string(),
        root => root.message().into_owned(),
    };
    match words.contains("' not found") {
        true => error
            .with("hint", "`landfall sql \"SHOW TABLES\"` lists the tables")
            .caused_by(words),
        false => error.caused_by(words),
    }
}
