//! SQL conditions over judged rows, such as `apply_as_deletes`.

use std::sync::Arc;

use arrow::{
    array::{AsArray as _, BooleanArray, RecordBatch},
    datatypes::{DataType, Schema},
};
use datafusion::{common::DFSchema, execution::context::SessionContext, physical_expr::PhysicalExpr};

use crate::error::{Error, ErrorKind, Result};

/// A compiled SQL condition.
#[derive(Clone, Debug)]
pub struct Condition(Arc<dyn PhysicalExpr>);

impl Condition {
    /// Compiles `sql` over the columns of `schema`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for SQL that does not parse, an unknown column or a result that is not boolean.
    pub fn new(sql: &str, schema: &Schema) -> Result<Self> {
        let fail = |source: datafusion::error::DataFusionError| {
            Error::new(ErrorKind::Config, "compile SQL condition")
                .with("sql", sql)
                .caused_by(source)
        };
        let session = SessionContext::new();
        let columns = DFSchema::try_from(schema.clone()).map_err(fail)?;
        let logical = session.parse_sql_expr(sql, &columns).map_err(fail)?;
        let physical = session.create_physical_expr(logical, &columns).map_err(fail)?;
        match physical.data_type(schema).map_err(fail)? {
            DataType::Boolean => Ok(Self(physical)),
            other => Err(Error::new(ErrorKind::Config, "compile SQL condition")
                .with("sql", sql)
                .with("must be", "boolean")
                .with("is", other)),
        }
    }

    /// For each row whether the condition is true; unknown counts as false.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if a value makes the expression fail.
    pub fn of(&self, rows: &RecordBatch) -> Result<BooleanArray> {
        let value = self
            .0
            .evaluate(rows)
            .and_then(|value| value.into_array(rows.num_rows()))
            .map_err(|source| Error::new(ErrorKind::Internal, "evaluate SQL condition").caused_by(source))?;
        Ok(value
            .as_boolean()
            .iter()
            .map(|truth| Some(truth == Some(true)))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use arrow::{array::StringArray, datatypes::Field};

    use super::*;

    fn schema() -> Schema {
        Schema::new(vec![Field::new("status", DataType::Utf8, true)])
    }

    #[test]
    fn unknown_counts_as_false() {
        let condition = Condition::new("status = 'gone'", &schema()).unwrap();
        let column = StringArray::from(vec![Some("gone"), None, Some("here")]);
        let rows = RecordBatch::try_new(Arc::new(schema()), vec![Arc::new(column)]).unwrap();
        assert_eq!(
            condition.of(&rows).unwrap(),
            BooleanArray::from(vec![true, false, false])
        );
    }

    #[test]
    fn a_condition_that_cannot_be_is_refused_before_any_row() {
        for sql in ["nope = 1", "status =", "status || 'x'"] {
            assert_eq!(
                Condition::new(sql, &schema()).unwrap_err().kind(),
                ErrorKind::Config,
                "{sql}"
            );
        }
    }
}
