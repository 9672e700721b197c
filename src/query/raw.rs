//! The raw records of a stream as a table that is planned without reading its log.
//!
//! ```text
//! scan ─ head ─ numbers of batches ─ those that the filters leave ─┬─ few: entries read now, objects shared out by size
//!                                                                   └─ many: numbers shared out, entries read on the way
//! ```

use std::{fmt, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, Int64Array, UInt64Array},
    datatypes::SchemaRef,
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider, streaming::StreamingTable},
    common::{Column, DFSchema, pruning::PruningStatistics},
    error::{DataFusionError, Result as SqlResult},
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{Expr, TableProviderFilterPushDown, TableType, utils::conjunction},
    physical_optimizer::pruning::PruningPredicateBuilder,
    physical_plan::{ExecutionPlan, stream::RecordBatchStreamAdapter, streaming::PartitionStream},
    scalar::ScalarValue,
};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::{
    error::{Error, Result},
    format::Recipe,
    raw::{
        BatchNumber,
        expire::Expired,
        log::{LogEntry, RawLog},
    },
    transform::scan,
};

/// Batches whose entries are read for a plan; of more the plan knows the numbers only.
const ENTRIES_PLANNED_MAX: usize = 256;

/// The records of one raw log.
pub(super) struct RawTable {
    pub(super) log: RawLog,
    pub(super) recipe: Recipe,
}

impl RawTable {
    /// The numbers of the batches that may hold what `filters` ask for.
    async fn numbers(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<BatchNumber>> {
        let Some(head) = self.log.head().await? else {
            return Ok(Vec::new());
        };
        let expired = Expired::of(&self.log).await?;
        let numbers = (0..=head.number.get()).map(BatchNumber::new);
        let mut numbers: Vec<BatchNumber> = numbers.collect::<Result<_>>()?;
        numbers.retain(|number| !expired.contains(*number));
        Ok(match wanted(state, filters, &numbers) {
            Some(wanted) => {
                let kept = numbers.into_iter().zip(wanted);
                kept.filter_map(|(number, wanted)| wanted.then_some(number))
                    .collect()
            }
            None => numbers,
        })
    }

    /// The records of the batches `numbers`, shared out to at most `partitions`.
    async fn table(&self, numbers: Vec<BatchNumber>, partitions: usize) -> Result<StreamingTable> {
        if numbers.len() <= ENTRIES_PLANNED_MAX {
            let entries: Vec<LogEntry> = self.log.entries_of(numbers).try_collect().await?;
            return scan::table(&self.log.store, self.recipe.clone(), entries, partitions);
        }
        let share = numbers.len().div_ceil(partitions.max(1));
        let parts = numbers.chunks(share).map(|numbers| {
            Arc::new(LaterPartition {
                schema: scan::schema(),
                log: self.log.clone(),
                recipe: self.recipe.clone(),
                numbers: numbers.to_vec(),
            }) as Arc<dyn PartitionStream>
        });
        StreamingTable::try_new(scan::schema(), parts.collect()).map_err(super::tables::planning)
    }
}

impl fmt::Debug for RawTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawTable")
            .field("stream", &self.log.stream)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for RawTable {
    fn schema(&self) -> SchemaRef {
        scan::schema()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> SqlResult<Vec<TableProviderFilterPushDown>> {
        // They choose batches; which records of these are meant is still to be asked.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> SqlResult<Arc<dyn ExecutionPlan>> {
        let numbers = self.numbers(state, filters).await.map_err(external)?;
        let partitions = state.config().target_partitions();
        let table = self.table(numbers, partitions).await.map_err(external)?;
        table.scan(state, projection, &[], limit).await
    }
}

/// For each of `numbers` whether its batch may hold what `filters` ask for; `None` if they say nothing about batches.
fn wanted(state: &dyn Session, filters: &[Expr], numbers: &[BatchNumber]) -> Option<Vec<bool>> {
    let schema = scan::schema();
    let filter = conjunction(filters.to_vec())?;
    let of = DFSchema::try_from(Arc::clone(&schema)).ok()?;
    let filter = state.create_physical_expr(filter, &of).ok()?;
    let predicate = PruningPredicateBuilder::new()
        .with_file_schema(schema)
        .try_build(filter)
        .ok()?;
    predicate.prune(&Batches(numbers)).ok()
}

/// What is known of batches by their numbers.
struct Batches<'a>(&'a [BatchNumber]);

impl Batches<'_> {
    fn of(&self, column: &Column) -> Option<ArrayRef> {
        let is_number = column.name() == scan::schema().field(scan::column::BATCH).name();
        let numbers = || Int64Array::from_iter_values(self.0.iter().map(|number| number.get()));
        is_number.then(|| Arc::new(numbers()) as ArrayRef)
    }
}

impl PruningStatistics for Batches<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.of(column)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.of(column)
    }

    fn num_containers(&self) -> usize {
        self.0.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let none = UInt64Array::from_value(0, self.0.len());
        self.of(column).map(|_| Arc::new(none) as ArrayRef)
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    fn contained(
        &self,
        _column: &Column,
        _values: &std::collections::HashSet<ScalarValue>,
    ) -> Option<BooleanArray> {
        None
    }
}

/// Batches whose entries are read when it is their turn.
struct LaterPartition {
    schema: SchemaRef,
    log: RawLog,
    recipe: Recipe,
    numbers: Vec<BatchNumber>,
}

impl fmt::Debug for LaterPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaterPartition")
            .field("batches", &self.numbers.len())
            .finish_non_exhaustive()
    }
}

impl PartitionStream for LaterPartition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (store, recipe) = (Arc::clone(&self.log.store), self.recipe.clone());
        let entries = self.log.entries_of(self.numbers.clone()).map_err(external);
        let rows = entries
            .map(move |entry| {
                let part = scan::partition(&store, recipe.clone(), vec![entry?]);
                Ok::<_, DataFusionError>(part.execute(Arc::clone(&context)))
            })
            .try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(&self.schema),
            rows.boxed(),
        ))
    }
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
