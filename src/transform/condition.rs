//! SQL conditions over judged rows, such as `apply_as_deletes`.

use std::sync::Arc;

use arrow::{
    array::{AsArray as _, BooleanArray, RecordBatch},
    datatypes::{DataType, Schema},
};
use datafusion::{
    common::DFSchema, error::DataFusionError, execution::context::SessionContext, physical_expr::PhysicalExpr,
};

use crate::{
    contract::{Violation, ViolationClass, judge::RowViolation},
    error::{Error, ErrorKind},
};

/// Longest excerpt of a failure that stands in the quarantine, in characters.
const FOUND_CHARS_MAX: usize = 80;

/// A compiled SQL condition.
#[derive(Clone, Debug)]
pub struct Condition {
    sql: String,
    expression: Arc<dyn PhysicalExpr>,
}

impl Condition {
    /// Compiles `sql` over the columns of `schema`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for SQL that does not parse, an unknown column or a result that is not boolean.
    pub fn new(sql: &str, schema: &Schema) -> crate::error::Result<Self> {
        let fail = |source: DataFusionError| {
            Error::new(ErrorKind::Config, "compile SQL condition")
                .with("sql", sql)
                .caused_by(source)
        };
        let session = SessionContext::new();
        let columns = DFSchema::try_from(schema.clone()).map_err(fail)?;
        let logical = session.parse_sql_expr(sql, &columns).map_err(fail)?;
        let physical = session.create_physical_expr(logical, &columns).map_err(fail)?;
        match physical.data_type(schema).map_err(fail)? {
            DataType::Boolean => Ok(Self {
                sql: sql.to_owned(),
                expression: physical,
            }),
            other => Err(Error::new(ErrorKind::Config, "compile SQL condition")
                .with("sql", sql)
                .with("must be", "boolean")
                .with("is", other)),
        }
    }

    /// For each row whether the condition is true, and the rows that make it fail; unknown and failed count as false.
    pub fn of(&self, rows: &RecordBatch) -> (BooleanArray, Vec<RowViolation>) {
        if let Ok(truth) = self.evaluate(rows) {
            return (truth, Vec::new());
        }
        // One value stops the whole batch, as in a cast or a division: find it, and let the others through.
        let mut failures = Vec::new();
        let truth = (0..rows.num_rows())
            .map(|row| match self.evaluate(&rows.slice(row, 1)) {
                Ok(truth) => Some(truth.value(0)),
                Err(error) => {
                    let violation = Violation {
                        class: ViolationClass::RuleFailed,
                        path: String::new(),
                        expected: self.sql.clone(),
                        found: error.strip_backtrace().chars().take(FOUND_CHARS_MAX).collect(),
                    };
                    failures.push(RowViolation { row, violation });
                    Some(false)
                }
            })
            .collect();
        (truth, failures)
    }

    fn evaluate(&self, rows: &RecordBatch) -> Result<BooleanArray, DataFusionError> {
        let value = self.expression.evaluate(rows)?.into_array(rows.num_rows())?;
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
            condition.of(&rows).0,
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

    #[test]
    fn a_row_that_makes_the_condition_fail_is_named_and_the_others_judged() {
        let condition = Condition::new("cast(status as int) = 1", &schema()).unwrap();
        let column = StringArray::from(vec!["1", "x", "2"]);
        let rows = RecordBatch::try_new(Arc::new(schema()), vec![Arc::new(column)]).unwrap();
        let (truth, failures) = condition.of(&rows);
        assert_eq!(truth, BooleanArray::from(vec![true, false, false]));
        assert_eq!(failures.len(), 1);
        assert_eq!(
            (failures[0].row, failures[0].violation.class),
            (1, ViolationClass::RuleFailed)
        );
    }
}
