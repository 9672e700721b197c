//! What a load's records were like next to the contract and next to earlier loads.

use super::{load::Loader, target::profiles_side};
use crate::{
    contract::drift::{
        self, Change, ChangeKind,
        jumps::{self, jumps},
        profile::Profile,
    },
    error::Result,
    raw::BatchNumber,
    transform::{repeated::repeated, split::Split},
};

impl Loader<'_> {
    /// The profile of a load that begins with batch `from`, and every change it shows.
    pub(super) async fn drift(&self, split: &Split, from: BatchNumber) -> Result<(Profile, Vec<Change>)> {
        let profile = Profile::of(&self.contract, &split.observed, split.responses.clone());
        let mut changes = self.changes(split);
        if self.target.told {
            let keys = &self.stream.table.keys;
            changes.extend(repeated(&self.contract, keys, &split.accepted)?);
            let tables = &self.workspace.tables;
            let before = tables
                .profiles(&profiles_side(), &self.stream.name, from, jumps::LOADS_MAX)
                .await?;
            changes.extend(jumps(&profile, &before));
        }
        Ok((profile, changes))
    }

    /// What the records of a load say against the contract.
    pub(super) fn changes(&self, split: &Split) -> Vec<Change> {
        let policy = &self.stream.drift;
        let mut changes = drift::changes(
            &self.contract,
            &split.observed,
            policy.on_unknown,
            policy.on_mismatch,
        );
        for change in &mut changes {
            if matches!(
                change.kind,
                ChangeKind::RequiredMissing | ChangeKind::NullInRequired
            ) && let Some(excused) = split.excused.get(&change.path)
            {
                change.count = change.count.saturating_sub(*excused);
            }
        }
        changes.retain(|change| change.count > 0);
        changes.extend(self.quality.changes(&split.breaks));
        changes
    }
}
