//! Rows as a key and a hash of their values, sorted by both.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BinaryBuilder, RecordBatch},
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
    row::{RowConverter, SortField},
};
use datafusion::{
    catalog::streaming::StreamingTable,
    dataframe::DataFrame,
    error::DataFusionError,
    execution::{SendableRecordBatchStream, TaskContext, context::SessionContext},
    physical_plan::{
        ExecutionPlan, ExecutionPlanProperties as _, stream::RecordBatchStreamAdapter,
        streaming::PartitionStream,
    },
    prelude::col,
};
use futures::{StreamExt as _, stream};
use sha2::{Digest as _, Sha256};

use super::{Pairing, reading};
use crate::{
    error::{Error, ErrorKind, Result},
    table::align::Common,
};

/// Bytes kept of a row's SHA-256: two different rows of one key are taken for equal once in 2^128.
const HASH_BYTES: usize = 16;

/// How rows become keys and hashes.
#[derive(Debug)]
pub(super) struct Keying {
    common: Common,
    keys: Columns,
    values: Columns,
    schema: SchemaRef,
}

/// Some columns of the common shape as comparable bytes.
#[derive(Debug)]
struct Columns {
    places: Vec<usize>,
    rows: RowConverter,
}

impl Columns {
    fn of(names: &[String], common: &Common) -> Result<Self> {
        let (mut places, mut fields) = (Vec::new(), Vec::new());
        for name in names {
            let place = common.schema().index_of(name).map_err(|source| {
                Error::new(ErrorKind::Config, "find column to compare by")
                    .with("column", name)
                    .caused_by(source)
            })?;
            places.push(place);
            fields.push(SortField::new(common.schema().field(place).data_type().clone()));
        }
        let rows = RowConverter::new(fields).map_err(hashing)?;
        Ok(Self { places, rows })
    }

    fn of_batch(&self, batch: &RecordBatch) -> Vec<ArrayRef> {
        self.places
            .iter()
            .map(|place| Arc::clone(batch.column(*place)))
            .collect()
    }
}

impl Keying {
    pub(super) fn of(pairing: &Pairing) -> Result<Self> {
        let schema = Schema::new(vec![
            Field::new("key", DataType::Binary, false),
            Field::new("hash", DataType::Binary, false),
        ]);
        Ok(Self {
            common: pairing.common.clone(),
            keys: Columns::of(&pairing.identity, &pairing.common)?,
            values: Columns::of(&pairing.compared, &pairing.common)?,
            schema: Arc::new(schema),
        })
    }

    pub(super) fn align(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        self.common.align(batch)
    }

    /// The key and the hash of each row of `batch`.
    pub(super) fn keyed(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let aligned = self.align(batch)?;
        let rows = aligned.num_rows();
        let keys = self
            .keys
            .rows
            .convert_columns(&self.keys.of_batch(&aligned))
            .map_err(hashing)?;
        let mut key = BinaryBuilder::new();
        let mut hash = BinaryBuilder::with_capacity(rows, rows * HASH_BYTES);
        keys.iter().for_each(|row| key.append_value(row.data()));
        if self.values.places.is_empty() {
            (0..rows).for_each(|_| hash.append_value([]));
        } else {
            let values = self.values.of_batch(&aligned);
            let values = self.values.rows.convert_columns(&values).map_err(hashing)?;
            for row in &values {
                hash.append_value(&Sha256::digest(row.data())[..HASH_BYTES]);
            }
        }
        let columns: Vec<ArrayRef> = vec![Arc::new(key.finish()), Arc::new(hash.finish())];
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(hashing)
    }
}

/// The keys and hashes of `rows`, in order.
pub(super) async fn sorted(
    context: &SessionContext,
    rows: DataFrame,
    keying: &Arc<Keying>,
) -> Result<SendableRecordBatchStream> {
    let plan = rows.create_physical_plan().await.map_err(reading)?;
    let count = plan.output_partitioning().partition_count();
    let parts = (0..count).map(|number| {
        let part = Part {
            plan: Arc::clone(&plan),
            number,
            keying: Arc::clone(keying),
        };
        Arc::new(part) as Arc<dyn PartitionStream>
    });
    let table = StreamingTable::try_new(Arc::clone(&keying.schema), parts.collect()).map_err(reading)?;
    let order = ["key", "hash"].map(|name| col(name).sort(true, true)).to_vec();
    let sorted = context
        .read_table(Arc::new(table))
        .and_then(|rows| rows.sort(order));
    sorted.map_err(reading)?.execute_stream().await.map_err(reading)
}

/// One partition of a plan, as keys and hashes.
#[derive(Debug)]
struct Part {
    plan: Arc<dyn ExecutionPlan>,
    number: usize,
    keying: Arc<Keying>,
}

impl PartitionStream for Part {
    fn schema(&self) -> &SchemaRef {
        &self.keying.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let keying = Arc::clone(&self.keying);
        let keyed = match self.plan.execute(self.number, context) {
            Ok(rows) => rows
                .map(move |batch| {
                    let keyed = keying.keyed(&batch?);
                    keyed.map_err(|error| DataFusionError::External(Box::new(error)))
                })
                .boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        };
        Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(&self.keying.schema),
            keyed,
        ))
    }
}

fn hashing(source: ArrowError) -> Error {
    Error::new(ErrorKind::Internal, "hash rows").caused_by(source)
}
