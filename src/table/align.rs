//! Rows of two tables in one shape, so that they can be compared.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray, new_null_array},
    datatypes::{DataType, Field, Schema, SchemaRef},
    util::display::{ArrayFormatter, FormatOptions},
};
use deltalake::kernel::schema::cast_record_batch;

use super::{evolve, latest::arrow_error, lower};
use crate::error::Result;

/// The columns of two tables.
#[derive(Clone, Debug)]
pub struct Common {
    schema: SchemaRef,
    /// Columns that the two tables give different types: their values meet as text.
    texts: Vec<String>,
}

impl Common {
    /// The columns of `one`, then those that only `other` has.
    pub fn of(one: &Schema, other: &Schema) -> Self {
        let (mut fields, mut texts): (Vec<Arc<Field>>, _) = (Vec::new(), Vec::new());
        for field in one.fields() {
            let single = |field: &Arc<Field>| Schema::new(vec![field.as_ref().clone().with_nullable(true)]);
            let both = match other.fields().find(field.name()) {
                Some((_, theirs)) => evolve::union(&single(field), &single(theirs)),
                None => Ok(single(field)),
            };
            match both {
                Ok(both) => fields.extend(both.fields().iter().cloned()),
                Err(_) => {
                    texts.push(field.name().clone());
                    fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, true)));
                }
            }
        }
        for field in other.fields() {
            if one.fields().find(field.name()).is_none() {
                fields.push(Arc::new(field.as_ref().clone().with_nullable(true)));
            }
        }
        Self {
            schema: Arc::new(Schema::new(fields)),
            texts,
        }
    }

    /// The columns, in order.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The columns that have another type in each of the tables.
    pub fn retyped(&self) -> &[String] {
        &self.texts
    }

    /// Rows of one of the two tables in this shape; columns that it does not have are null.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for rows of a third table.
    pub fn align(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let columns = self.schema.fields().iter().map(|field| {
            let Some(column) = batch.column_by_name(field.name()) else {
                return Ok(new_null_array(field.data_type(), rows));
            };
            if self.texts.contains(field.name()) {
                return text(column);
            }
            let single = |field: Field| Arc::new(Schema::new(vec![field]));
            let own = Field::new(field.name(), column.data_type().clone(), true);
            let alone = RecordBatch::try_new(single(own), vec![Arc::clone(column)]).map_err(arrow_error)?;
            let cast = cast_record_batch(&alone, single(field.as_ref().clone()), false, true);
            cast.map(|cast| Arc::clone(cast.column(0)))
                .map_err(|source| lower(source, "align rows"))
        });
        let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options).map_err(arrow_error)
    }
}

fn text(column: &ArrayRef) -> Result<ArrayRef> {
    let options = FormatOptions::default();
    let values = ArrayFormatter::try_new(column.as_ref(), &options).map_err(arrow_error)?;
    let texts = (0..column.len()).map(|row| column.is_valid(row).then(|| values.value(row).to_string()));
    Ok(Arc::new(texts.collect::<StringArray>()))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array as _, AsArray as _, Int64Array};

    use super::*;

    #[test]
    fn rows_of_both_tables_get_the_columns_of_both_and_retyped_ones_as_text() {
        let schema = |columns: &[(&str, DataType)]| {
            let fields = columns
                .iter()
                .map(|(name, kind)| Field::new(*name, kind.clone(), true));
            Schema::new(fields.collect::<Vec<_>>())
        };
        let live = schema(&[
            ("id", DataType::Int64),
            ("total", DataType::Int64),
            ("gone", DataType::Int64),
        ]);
        let rebuilt = schema(&[
            ("id", DataType::Int64),
            ("total", DataType::Utf8),
            ("new", DataType::Int64),
        ]);
        let common = Common::of(&live, &rebuilt);
        assert_eq!(common.retyped(), ["total"]);
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), None]));
        let rows = RecordBatch::try_new(Arc::new(live), vec![numbers; 3]).unwrap();
        let aligned = common.align(&rows).unwrap();
        assert_eq!(aligned.schema().fields().len(), 4);
        let totals = aligned["total"].as_string::<i32>();
        assert_eq!((totals.value(0), totals.is_null(1)), ("7", true));
        assert_eq!(aligned["new"].null_count(), 2);
    }
}
