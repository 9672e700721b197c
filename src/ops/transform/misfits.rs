//! Records that stop a load.

use std::collections::HashMap;

use arrow::array::{Array as _, AsArray as _};

use super::load::Loader;
use crate::{
    config::OnMismatch,
    contract::{
        drift::Effect,
        policy::{self, Policy},
    },
    error::Result,
    transform::split::Split,
};

impl Loader<'_> {
    /// How many records, or values of them, stop the load; `None` if none does.
    ///
    /// What a column says goes before what the stream says. A record with several faults is counted by the first, and
    /// stops the load if any of its values does.
    pub(super) fn stopping(&self, split: &Split) -> Result<Option<u64>> {
        let stream_fails = self.stream.drift.on_mismatch == OnMismatch::Fail;
        if !self
            .contracts
            .all()
            .any(|contract| policy::is_own(&contract.columns))
        {
            return Ok(Some(split.counts.quarantined).filter(|&records| stream_fails && records > 0));
        }
        let older = self.older_changes(split).into_iter();
        let older = older.flat_map(|(_, changes)| changes);
        let failed = self.changes(split).into_iter().chain(older);
        let failed = failed.filter(|change| change.effect == Effect::Failed);
        let values: u64 = failed.map(|change| change.count).sum();
        // What no column is to blame for has no drift to be counted by.
        let records = if stream_fails {
            self.left_to_stream(split)?
        } else {
            0
        };
        Ok(Some(values.max(records)).filter(|&count| count > 0))
    }

    /// Quarantined records whose first fault is at a place that says nothing itself.
    fn left_to_stream(&self, split: &Split) -> Result<u64> {
        let mut own: HashMap<(String, String), bool> = HashMap::new();
        let mut records = 0;
        for batch in split.quarantined.batches() {
            let batch = batch?;
            let paths = batch["path"].as_string::<i32>();
            // All rows of a batch were judged by one contract.
            let versions = batch["contract_version"].as_string::<i32>();
            let version = versions.iter().flatten().next().unwrap_or_default();
            for row in 0..paths.len() {
                let path = if paths.is_valid(row) { paths.value(row) } else { "" };
                let is_own = own
                    .entry((version.to_owned(), path.to_owned()))
                    .or_insert_with(|| {
                        let contract = self.contracts.of_version(version);
                        Policy::at(contract, path).on_mismatch.is_some()
                    });
                records += u64::from(!*is_own);
            }
        }
        Ok(records)
    }
}
