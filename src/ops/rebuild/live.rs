//! What there is of a live table.

use arrow::{array::AsArray as _, datatypes::Int64Type};
use datafusion::{
    execution::context::SessionContext, functions_aggregate::expr_fn::max, logical_expr::lit, prelude::col,
};
use tracing::warn;

use crate::{
    config::StreamName,
    error::{Error, ErrorKind, Result},
    ops::{Workspace, transform::target::loads_side},
    query::sql_error,
    raw::{BatchNumber, layout},
    table::{AppId, Table, side::SHARED_BY},
};

/// A live table as it is found.
#[derive(Debug)]
pub enum Live {
    /// It can be read and holds raw batches.
    Loaded {
        /// Its newest version.
        table: Table,
        /// The newest raw batch in it.
        until: BatchNumber,
    },
    /// It is not there, or holds no batch.
    Unloaded {
        /// The last batch that the load history tells of: the table was there once.
        told: Option<BatchNumber>,
    },
    /// Its log cannot be read.
    Unreadable {
        /// Why.
        error: Error,
    },
}

/// Looks for the live table of `stream`.
///
/// # Errors
/// [`ErrorKind::Unavailable`] if the store does not answer; a damaged table is no error.
pub async fn live(workspace: &Workspace, stream: &StreamName) -> Result<Live> {
    let mut found = loaded(workspace, stream).await;
    if matches!(&found, Err(error) if error.kind() == ErrorKind::Corrupt) {
        // Somebody may go and remove what is damaged, so it must be so twice.
        found = loaded(workspace, stream).await;
    }
    match found {
        Ok(Some((table, until))) => Ok(Live::Loaded { table, until }),
        Ok(None) => Ok(Live::Unloaded {
            told: told(workspace, stream).await,
        }),
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(Live::Unreadable { error }),
        Err(error) => Err(error),
    }
}

/// The live table and the newest raw batch in it, if there is one.
async fn loaded(workspace: &Workspace, stream: &StreamName) -> Result<Option<(Table, BatchNumber)>> {
    let Some(table) = workspace.tables.open(&layout::table(stream)).await? else {
        return Ok(None);
    };
    let until = table.watermark(&AppId::new(stream, AppId::GENERATION)).await?;
    Ok(until.map(|until| (table, until)))
}

/// The last raw batch that the load history tells of, whatever the watermark of the table.
pub(super) async fn told(workspace: &Workspace, stream: &StreamName) -> Option<BatchNumber> {
    match last_load(workspace, stream).await {
        Ok(last) => last,
        Err(error) => {
            warn!(stream = %stream, error = error.chain(), "load history cannot be read");
            None
        }
    }
}

async fn last_load(workspace: &Workspace, stream: &StreamName) -> Result<Option<BatchNumber>> {
    let Some(table) = workspace.tables.open(&loads_side().path).await? else {
        return Ok(None);
    };
    let context = SessionContext::new();
    let failed = |source| sql_error("read load history", source);
    let own = col(SHARED_BY[0])
        .eq(lit(stream.source.as_str()))
        .and(col(SHARED_BY[1]).eq(lit(stream.stream.as_str())));
    let rows = context
        .read_table(table.provider(&context).await?)
        .and_then(|rows| rows.filter(own))
        .and_then(|rows| rows.aggregate(Vec::new(), vec![max(col("batch_to"))]))
        .map_err(failed)?;
    let batches = rows.collect().await.map_err(failed)?;
    let numbers = batches.first().map(|batch| batch.column(0));
    let number = numbers
        .and_then(|numbers| numbers.as_primitive_opt::<Int64Type>())
        .and_then(|numbers| numbers.iter().next().flatten());
    number.map(BatchNumber::new).transpose()
}
