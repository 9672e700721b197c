//! SQL conditions over judged rows, such as `apply_as_deletes`.

use std::sync::Arc;

use arrow::{
    array::{AsArray as _, BooleanArray, RecordBatch},
    datatypes::{DataType, Schema},
};
use datafusion::{
    common::{
        DFSchema, SchemaError,
        tree_node::{TreeNode as _, TreeNodeRecursion},
    },
    error::DataFusionError,
    execution::context::SessionContext,
    logical_expr::{Expr, ExprSchemable as _, Volatility},
    physical_expr::PhysicalExpr,
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
    /// The columns it looks at, by their place in the schema, in that order.
    columns: Vec<usize>,
}

/// Why SQL cannot be a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// What a condition is for each row.
#[derive(Debug)]
pub struct Truth {
    /// Whether it is true; unknown and failed count as false.
    pub holds: BooleanArray,
    /// The rows that make it fail, as a division by zero does, and how, in their order.
    pub failed: Vec<(usize, DataFusionError)>,
}

impl Condition {
    /// Compiles `sql` over the columns of `schema`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for SQL that does not parse, an unknown column, a result that is not boolean, or an answer
    /// that does not follow from the row alone: a replay has to come to the same one.
    pub fn new(sql: &str, schema: &Schema) -> crate::error::Result<Self> {
        Self::compile(sql, schema, |expression| expression).map_err(|unfit| {
            let error = Error::new(ErrorKind::Config, "compile SQL condition")
                .with("sql", sql)
                .with("problem", unfit.problem);
            match unfit.hint {
                Some(hint) => error.with("hint", hint),
                None => error,
            }
        })
    }

    /// Compiles the opposite of `sql`: what is true where `sql` is false, and not where it is unknown.
    ///
    /// # Errors
    /// Why `sql` cannot be a condition.
    pub fn not(sql: &str, schema: &Schema) -> Result<Self, Unfit> {
        Self::compile(sql, schema, |expression| Expr::Not(Box::new(expression)))
    }

    fn compile(sql: &str, schema: &Schema, wrap: fn(Expr) -> Expr) -> Result<Self, Unfit> {
        let session = SessionContext::new();
        let columns = DFSchema::try_from(schema.clone()).map_err(|error| unfit(&error))?;
        let logical = session
            .parse_sql_expr(sql, &columns)
            .map_err(|error| unfit(&error))?;
        refuse_unsteady(&logical)?;
        let mut used: Vec<usize> = logical
            .column_refs()
            .into_iter()
            .filter_map(|column| schema.index_of(column.name()).ok())
            .collect();
        used.sort_unstable();
        let kind = logical.get_type(&columns).map_err(|error| unfit(&error))?;
        if kind != DataType::Boolean {
            return Err(Unfit {
                problem: format!("it is {kind}, and must be boolean"),
                hint: None,
            });
        }
        let expression = session
            .create_physical_expr(wrap(logical), &columns)
            .map_err(|error| unfit(&error))?;
        Ok(Self {
            sql: sql.to_owned(),
            expression,
            columns: used,
        })
    }

    /// The columns it looks at, by their place in the schema, in that order.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// For each row whether the condition is true, and the rows that make it fail; unknown and failed count as false.
    pub fn of(&self, rows: &RecordBatch) -> (BooleanArray, Vec<RowViolation>) {
        let Truth { holds, failed } = self.truth(rows);
        let violation = |(row, error): (usize, DataFusionError)| RowViolation {
            row,
            violation: Violation {
                class: ViolationClass::RuleFailed,
                path: String::new(),
                expected: self.sql.clone(),
                found: error.strip_backtrace().chars().take(FOUND_CHARS_MAX).collect(),
            },
        };
        (holds, failed.into_iter().map(violation).collect())
    }

    /// As [`Condition::of`], for those who say themselves what a failure means.
    pub fn truth(&self, rows: &RecordBatch) -> Truth {
        let (mut holds, mut failed) = (Vec::with_capacity(rows.num_rows()), Vec::new());
        self.search(rows, &mut holds, &mut failed);
        Truth {
            holds: BooleanArray::from(holds),
            failed,
        }
    }

    /// One value stops its whole batch, as in a cast or a division: halves find it, and let the others through.
    fn search(&self, rows: &RecordBatch, holds: &mut Vec<bool>, failed: &mut Vec<(usize, DataFusionError)>) {
        match self.evaluate(rows) {
            Ok(found) => holds.extend(found.iter().map(|truth| truth == Some(true))),
            Err(error) if rows.num_rows() == 1 => {
                failed.push((holds.len(), error));
                holds.push(false);
            }
            Err(_) => {
                let half = rows.num_rows() / 2;
                for part in [rows.slice(0, half), rows.slice(half, rows.num_rows() - half)] {
                    if part.num_rows() > 0 {
                        self.search(&part, holds, failed);
                    }
                }
            }
        }
    }

    fn evaluate(&self, rows: &RecordBatch) -> Result<BooleanArray, DataFusionError> {
        let value = self.expression.evaluate(rows)?.into_array(rows.num_rows())?;
        Ok(value.as_boolean().clone())
    }
}

/// Refuses what looks beyond its row, or has another answer the next time.
fn refuse_unsteady(expression: &Expr) -> Result<(), Unfit> {
    let mut found = None;
    let visited = expression.apply(|part| {
        let (problem, hint) = match part {
            Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => (
                format!("{}() has another answer each time", call.func.name()),
                "a replay of raw has to come to the same verdict: compare columns with each other, or with constants",
            ),
            Expr::AggregateFunction(_) | Expr::WindowFunction(_) => (
                format!("{} looks at many rows", part.schema_name()),
                "the condition is asked of one row at a time",
            ),
            Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_) => (
                "a subquery looks at other rows".to_owned(),
                "the condition is asked of one row at a time",
            ),
            Expr::Placeholder(_) | Expr::ScalarVariable(..) => (
                format!("{} has no value here", part.schema_name()),
                "write the value itself",
            ),
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        found = Some(Unfit {
            problem,
            hint: Some(hint.to_owned()),
        });
        Ok(TreeNodeRecursion::Stop)
    });
    match (visited, found) {
        (_, Some(unfit)) => Err(unfit),
        (Err(error), None) => Err(unfit(&error)),
        (Ok(_), None) => Ok(()),
    }
}

/// What the planner says, in a line.
fn unfit(error: &DataFusionError) -> Unfit {
    if let DataFusionError::SchemaError(source, _) = error.find_root()
        && let SchemaError::FieldNotFound { field, valid_fields } = source.as_ref()
    {
        let wanted = field.name.to_lowercase();
        let near = valid_fields
            .iter()
            .find(|valid| valid.name.to_lowercase() == wanted);
        let names: Vec<&str> = valid_fields.iter().map(|valid| valid.name.as_str()).collect();
        return Unfit {
            problem: format!("there is no column {:?}", field.name),
            hint: Some(match near {
                Some(near) => format!("names with capitals stand in double quotes: {:?}", near.name),
                None => format!("columns: {}", names.join(", ")),
            }),
        };
    }
    let text = match error.find_root() {
        DataFusionError::SQL(source, _) => source.to_string().replace("sql parser error: ", ""),
        _ => error.strip_backtrace(),
    };
    let line = text.lines().next().unwrap_or_default();
    Unfit {
        problem: line.to_owned(),
        hint: None,
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
        let kind = |sql: &str| Condition::new(sql, &schema()).unwrap_err().kind();
        for sql in ["nope = 1", "status =", "status || 'x'"] {
            assert_eq!(kind(sql), ErrorKind::Config, "{sql}");
        }
        let said: Vec<String> = [
            "state = 'x'",
            "status || 'x'",
            "status = 'a') OR (true",
            "now() > status",
            "random() < 0.5",
            "current_date > '2024-01-01'",
            "count(status) > 1",
            "status IN (SELECT 'x')",
            "status = $1",
            "row_number() OVER () = 1",
            "nosuch(status)",
            "STATUS = 'x' AND Statu = 'x'",
            "true; DROP TABLE x",
        ]
        .into_iter()
        .map(|sql| {
            let Unfit { problem, hint } = Condition::not(sql, &schema()).unwrap_err();
            format!(
                "{sql}\n  {problem}\n  hint: {}",
                hint.as_deref().unwrap_or("none")
            )
        })
        .collect();
        insta::assert_snapshot!(said.join("\n"), @r#"
        state = 'x'
          there is no column "state"
          hint: columns: status
        status || 'x'
          it is Utf8, and must be boolean
          hint: none
        status = 'a') OR (true
          Expected: end of expression, found: ) at Line: 1, Column: 13
          hint: none
        now() > status
          now() has another answer each time
          hint: a replay of raw has to come to the same verdict: compare columns with each other, or with constants
        random() < 0.5
          random() has another answer each time
          hint: a replay of raw has to come to the same verdict: compare columns with each other, or with constants
        current_date > '2024-01-01'
          current_date() has another answer each time
          hint: a replay of raw has to come to the same verdict: compare columns with each other, or with constants
        count(status) > 1
          count(status) looks at many rows
          hint: the condition is asked of one row at a time
        status IN (SELECT 'x')
          a subquery looks at other rows
          hint: the condition is asked of one row at a time
        status = $1
          $1 has no value here
          hint: write the value itself
        row_number() OVER () = 1
          row_number() ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING looks at many rows
          hint: the condition is asked of one row at a time
        nosuch(status)
          Error during planning: Invalid function 'nosuch'.
          hint: none
        STATUS = 'x' AND Statu = 'x'
          there is no column "statu"
          hint: columns: status
        true; DROP TABLE x
          Expected: end of expression, found: ; at Line: 1, Column: 5
          hint: none
        "#);
    }

    #[test]
    fn names_with_capitals_are_told_to_need_quotes() {
        let schema = Schema::new(vec![Field::new("userId", DataType::Int64, true)]);
        let hint = Condition::not("userId > 0", &schema).unwrap_err().hint;
        assert_eq!(
            hint.unwrap(),
            r#"names with capitals stand in double quotes: "userId""#
        );
        assert!(Condition::not(r#""userId" > 0"#, &schema).is_ok());
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
