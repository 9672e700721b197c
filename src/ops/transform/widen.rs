//! Columns whose type grew, in the tables of a stream.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use tracing::info;

use super::load::{Loader, deleted_column};
use crate::{
    config::{ScdType, Stream},
    contract::{Contract, contracts::Contracts},
    error::{Error, ErrorKind, Result},
    failpoint,
    ops::contract,
    table::{Committed, history, widen::Wanted},
    transform::{judges::Judges, split::row_schema},
};

/// The columns of the main table that `stream` wants, by the contracts of `judges`.
pub(super) fn table_schema(stream: &Stream, judges: &Judges) -> Result<SchemaRef> {
    let schema = row_schema(
        &judges.schema(),
        deleted_column(stream),
        stream.table.is_by_content(),
    );
    match (stream.table.scd_type, stream.table.sequence_by.first()) {
        (ScdType::History, Some(sequence)) => history::schema(&schema, sequence),
        _ => Ok(schema),
    }
}

fn wanted<'a>(stream: &'a Stream, contracts: &'a Contracts, schema: &'a Schema) -> Wanted<'a> {
    Wanted {
        schema,
        columns: &contracts.union.columns,
        sequence: stream.table.sequence_by.first().map(String::as_str),
    }
}

/// Whether something in `old` has another type in `new`; what is only in `new` does not count.
fn is_retyped(old: &DataType, new: &DataType) -> bool {
    match (old, new) {
        (DataType::Struct(old), DataType::Struct(new)) => old.iter().any(|member| {
            let other = new.find(member.name());
            other.is_some_and(|(_, other)| is_retyped(member.data_type(), other.data_type()))
        }),
        (DataType::List(old), DataType::List(new)) => is_retyped(old.data_type(), new.data_type()),
        (old, new) => old != new,
    }
}

impl Loader<'_> {
    /// The columns of the table that `apply_as_deletes` and rules of the main contract ask. What others judge keeps its type
    /// until it is judged.
    fn asked_columns(&self) -> Vec<Arc<Field>> {
        let (all, main) = (self.judges.schema(), self.judges.main.judge.schema());
        let deletes = self.judges.deletes.iter();
        let deletes = deletes.flat_map(|condition| condition.columns().to_vec());
        let deletes = deletes.map(|index| Arc::clone(&all.fields()[index]));
        let rules = self.judges.main.quality.columns();
        let rules = rules.map(|index| Arc::clone(&main.fields()[index]));
        deletes.chain(rules).collect()
    }

    /// Gives columns of the tables the wider type that the contract has for them, before anything is planned.
    ///
    /// [`Committed::Conflicted`] if another writer was faster; then this must be done again.
    ///
    /// # Errors
    /// [`ErrorKind::Contract`] if the table holds a value that the type does not, else those of writing the lake.
    pub(in crate::ops) async fn widen(&mut self) -> Result<Committed> {
        let schema = table_schema(self.stream, &self.judges)?;
        let wanted = wanted(self.stream, &self.contracts, &schema);
        if !self.table.is_narrower(wanted)? {
            return Ok(Committed::AlreadyApplied);
        }
        // Deletions first: as long as the main table is narrow they are looked at again.
        if let Some(mut tombstones) = self.workspace.tables.open(&self.target.tombstones.path).await? {
            self.table.check_widening(wanted).await?;
            let rules = &self.stream.table;
            let kept = |name: &String| rules.keys.contains(name) || rules.sequence_by.contains(name);
            let fields = schema.fields().iter().filter(|field| kept(field.name()));
            let kept = Schema::new(fields.map(Arc::clone).collect::<Fields>());
            let wanted = Wanted {
                schema: &kept,
                ..wanted
            };
            if tombstones.widen(wanted).await? == Committed::Conflicted {
                return Ok(Committed::Conflicted);
            }
        }
        failpoint::point("transform::before_widening");
        let committed = self.table.widen(wanted).await?;
        failpoint::point("transform::after_widening");
        if let Committed::Applied { version } = committed {
            info!(stream = %self.stream.name, version, "table widened");
        }
        Ok(committed)
    }

    /// Whether the stream goes with `contract` and the values of its table with the types there.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] or [`ErrorKind::Contract`] if not, else those of reading the lake.
    pub(super) async fn check_contract(&self, contract: &Contract) -> Result<()> {
        let contracts = self.contracts.with_main(contract.clone())?;
        let judges = contract::judges(self.stream, &contracts)?;
        let new = judges.schema();
        // A condition may say something else of the same values in another type, as a division does.
        for field in self.asked_columns() {
            if let Ok(wanted) = new.field_with_name(field.name())
                && is_retyped(field.data_type(), wanted.data_type())
            {
                return Err(Error::new(ErrorKind::Contract, "widen column")
                    .with("column", field.name())
                    .with(
                        "problem",
                        "a rule or `apply_as_deletes` asks it, and may answer otherwise then",
                    )
                    .with("hint", "change its type in the contract, and look at the rule"));
            }
        }
        let schema = table_schema(self.stream, &judges)?;
        self.table
            .check_widening(wanted(self.stream, &contracts, &schema))
            .await
    }

    /// Refuses to look ahead while columns of the table are narrower than the contract says.
    pub(in crate::ops) fn refuse_narrower(&self, attempt: &'static str) -> Result<()> {
        let schema = table_schema(self.stream, &self.judges)?;
        if !self
            .table
            .is_narrower(wanted(self.stream, &self.contracts, &schema))?
        {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Refused, attempt)
            .with("stream", &self.stream.name)
            .with("problem", "columns of the table get a wider type first")
            .with(
                "hint",
                "run transform once; it rewrites the table with the same values",
            ))
    }
}
