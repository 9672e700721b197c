//! What a load's records were like next to the contract and next to earlier loads.

use super::{load::Loader, target::profiles_side};
use crate::{
    contract::{
        Contract,
        drift::{
            self, Change, ChangeKind, Effect,
            jumps::{self, jumps},
            profile::{Profile, Responses},
        },
    },
    error::Result,
    raw::BatchNumber,
    transform::{
        judges::Bench,
        repeated::repeated,
        split::{Split, Told},
    },
};

impl Loader<'_> {
    /// The profile of a load that begins with batch `from`, and every change it shows.
    pub(super) async fn drift(&self, split: &Split, from: BatchNumber) -> Result<(Profile, Vec<Change>)> {
        let mut profile = Profile::of(
            &self.contracts.main,
            &split.main.observed,
            split.responses.clone(),
        );
        for (older, told) in self.contracts.older.iter().zip(&split.older) {
            profile.add(Profile::of(&older.contract, &told.observed, Responses::default()));
        }
        let mut changes = self.changes(split);
        let is_told = |own: &Change| {
            changes
                .iter()
                .any(|change| change.kind == own.kind && change.path == own.path)
        };
        let unlisted = self.judges.unlisted(&split.unlisted, split.counts.read);
        let unlisted = unlisted.filter(|change| !is_told(change));
        changes.extend(unlisted);
        if self.target.told {
            let keys = &self.stream.table.keys;
            changes.extend(repeated(&self.contracts.union, keys, &split.accepted)?);
            let tables = &self.workspace.tables;
            let before = tables
                .profiles(&profiles_side(), &self.stream.name, from, jumps::LOADS_MAX)
                .await?;
            changes.extend(jumps(&profile, &before));
        }
        Ok((profile, changes))
    }

    /// What the records of a load say against the main contract.
    pub(super) fn changes(&self, split: &Split) -> Vec<Change> {
        self.changes_of(&self.contracts.main, &self.judges.main, &split.main)
    }

    /// What the records of other versions say against their contracts, by the versions of these.
    pub(super) fn older_changes(&self, split: &Split) -> Vec<(String, Vec<Change>)> {
        let older = self.contracts.older.iter().zip(&self.judges.older);
        older
            .zip(&split.older)
            .map(|((older, bench), told)| {
                let changes = self.changes_of(&older.contract, bench, told);
                (older.contract.version.clone(), changes)
            })
            .collect()
    }

    fn changes_of(&self, contract: &Contract, bench: &Bench, told: &Told) -> Vec<Change> {
        let policy = &self.stream.drift;
        let mut changes = drift::changes(contract, &told.observed, policy.on_unknown, policy.on_mismatch);
        for change in &mut changes {
            if matches!(
                change.kind,
                ChangeKind::RequiredMissing | ChangeKind::NullInRequired
            ) && let Some(excused) = told.excused.get(&change.path)
            {
                change.count = change.count.saturating_sub(*excused);
            }
        }
        changes.retain(|change| change.count > 0);
        changes.extend(bench.quality.changes(&told.breaks));
        let unheld = told.unheld.iter().map(|((path, expected), count)| Change {
            kind: ChangeKind::OutOfRange,
            path: path.clone(),
            expected: expected.clone(),
            found: format!("values that the column of the table does not hold ×{count}"),
            count: *count,
            records: told.observed.records(),
            first_record: None,
            effect: Effect::Quarantined,
            samples: Vec::new(),
            nature: Vec::new(),
        });
        changes.extend(unheld);
        changes
    }
}
