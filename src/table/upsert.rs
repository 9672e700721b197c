//! `scd_type: 1`: one row per key, the latest.

use std::sync::Arc;

use arrow::array::RecordBatch;

use super::{
    Table,
    absent::Absence,
    change::Changed,
    edit::{Edits, Patches},
    file::DataFile,
    latest::{GATHER_ROWS, Latest, columns},
    merge::{MergeCounts, MergeOptions, Planned, Shape, merge_operation},
    probe::Probed,
    slices::{Keep, LoadSlices, Slice},
};
use crate::{config::Deletes, error::Result, failpoint, spill::gathered::Gathered};

/// What the slices of a load do to the rows of a table, as far as they are looked at.
struct Upsert {
    edits: Vec<Edits>,
    /// Rows of each file that stay although the load has their keys.
    met: Vec<Vec<u64>>,
    /// Whether a file can hold keys of the load.
    probed: Vec<bool>,
    counts: MergeCounts,
    /// Deletions whose rows are not in the table afterwards.
    buried: Gathered,
    /// Rows that come and are no deletions.
    written: u64,
}

impl Table {
    pub(super) async fn plan_upsert(
        &self,
        rows: Gathered,
        shape: Shape,
        options: &MergeOptions,
        absence: Option<Absence<'_>>,
    ) -> Result<Planned> {
        let files = self.files()?;
        let mut upsert = Upsert::new(files.len(), rows.beside());
        let slices = LoadSlices::new(rows, &shape, &options.keys(), &options.order(), Keep::Latest)?;
        let mut writer = self
            .writer(Arc::clone(&shape.schema))?
            .with_filters(&options.keys);
        let mut patches = Patches::deleted();
        let mut new = Vec::new();
        for number in 0..slices.count() {
            let slice = slices.read(number).await?;
            new = self.meet(&slice, &files, options, &mut upsert).await?;
            let latest = slice.latest;
            if slices.count() > 1 {
                // The slice is gone when the files are rewritten.
                new.extend(upsert.displace());
                latest.write(&new, |_, rows| Ok(rows), &mut writer).await?;
                failpoint::point("table::after_slice");
            } else {
                patches.latest = Some(latest);
            }
        }
        let Upsert {
            mut edits,
            met,
            probed,
            mut counts,
            mut buried,
            written,
        } = upsert;
        counts.files = files.len() as u64;
        counts.files_probed = probed.iter().filter(|probed| **probed).count() as u64;
        if let Some(absence) = absence {
            let probe: Vec<&str> = options.keys().into_iter().chain(options.order()).collect();
            let absent = self
                .find_absent(
                    &files,
                    &columns(&shape.schema, &probe)?,
                    options,
                    absence,
                    (&edits, &met),
                    written,
                )
                .await?;
            counts.absent = absent.counts;
            counts.files_probed = files.len() as u64;
            absent.edit(options.deletes == Deletes::Hard, &mut edits);
            for rows in absent.tombstones {
                buried.push(rows)?;
            }
        }
        let edited = files
            .into_iter()
            .zip(edits)
            .filter(|(_, edits)| !edits.is_empty());
        let edited = edited.collect();
        let Changed {
            mut actions,
            unwritten,
        } = self
            .change(edited, &patches, options, &mut writer, &mut counts)
            .await?;
        new.extend(unwritten);
        if let Some(latest) = &patches.latest {
            latest.write(&new, |_, rows| Ok(rows), &mut writer).await?;
        }
        actions.extend(writer.close().await?);
        Ok(Planned {
            counts,
            tombstones: buried,
            actions,
            schema: shape.changed,
            operation: merge_operation(options),
        })
    }

    /// Finds out what the winners of `slice` do to the rows of `files`, and returns those of them that are new.
    async fn meet(
        &self,
        slice: &Slice,
        files: &[DataFile],
        options: &MergeOptions,
        upsert: &mut Upsert,
    ) -> Result<Vec<usize>> {
        let latest = &slice.latest;
        let candidates = self.candidates(files, &options.keys, latest);
        let probed = self.probe_all(files, &candidates, latest).await?;
        let counts = &mut upsert.counts;
        counts.groups += probed.groups;
        counts.groups_probed += probed.groups_read;
        // A winner is written once, also where its key stands in several rows because the keys of the table were others before.
        let mut settled = vec![false; latest.winners.len()];
        let mut present = vec![false; latest.winners.len()];
        let mut meet = |hits: &Probed| {
            for hit in hits.matches.iter().flatten() {
                settled[hit.winner] |= !hit.newer;
                present[hit.winner] |= hit.same;
            }
        };
        meet(&probed);
        if let Some((tombstones, standing)) = &options.tombstones {
            let mut files = tombstones.files()?;
            files.retain(|file| standing.counts(file));
            let candidates = tombstones.candidates(&files, &options.keys, latest);
            meet(&tombstones.probe_all(&files, &candidates, latest).await?);
        }
        counts.superseded += slice.superseded();
        // Counted for themselves, not as what is left over: the caller checks that the two add up to what it gave.
        counts.superseded += settled.iter().filter(|stale| **stale).count() as u64;
        counts.present += present.iter().filter(|same| **same).count() as u64;
        let hard = options.deletes == Deletes::Hard;
        let marks = latest.deletions();
        // A winner takes the place of the row that it replaces: then the file keeps its order and its bounds.
        let mut buried: Vec<usize> = Vec::new();
        for (file, hits) in candidates.files.iter().zip(&probed.matches) {
            upsert.probed[*file] = true;
            let edits = &mut upsert.edits[*file];
            for hit in hits {
                if !hit.newer {
                    upsert.met[*file].push(hit.row);
                    continue;
                }
                counts.replaced += 1;
                counts.changed += u64::from(hit.changed);
                let first = !std::mem::replace(&mut settled[hit.winner], true);
                counts.merged += u64::from(first);
                let gone = hard && marks[hit.winner];
                if first && !gone {
                    edits.replacements.push((hit.row, hit.winner));
                    upsert.written += u64::from(!marks[hit.winner]);
                    continue;
                }
                edits.drops.push(hit.row);
                if first {
                    buried.push(hit.winner);
                }
            }
        }
        let mut new: Vec<usize> = (0..settled.len()).filter(|winner| !settled[*winner]).collect();
        counts.merged += new.len() as u64;
        upsert.written += new.iter().filter(|winner| !marks[**winner]).count() as u64;
        if hard {
            buried.extend(new.extract_if(.., |winner| marks[*winner]));
        }
        upsert.bury(latest, &buried)?;
        Ok(new)
    }
}

impl Upsert {
    fn new(files: usize, buried: Gathered) -> Self {
        Self {
            edits: vec![Edits::default(); files],
            met: vec![Vec::new(); files],
            probed: vec![false; files],
            counts: MergeCounts::default(),
            buried,
            written: 0,
        }
    }

    /// Keeps what identifies and orders the rows of `winners`.
    fn bury(&mut self, latest: &Latest, winners: &[usize]) -> Result<()> {
        for winners in winners.chunks(GATHER_ROWS) {
            let rows: RecordBatch = latest.gather(winners)?;
            self.buried.push(latest.probed_columns(&rows)?)?;
        }
        Ok(())
    }

    /// Has the rows go that winners would take the place of, and returns those winners.
    fn displace(&mut self) -> Vec<usize> {
        let mut winners = Vec::new();
        for edits in &mut self.edits {
            for (row, winner) in edits.replacements.drain(..) {
                edits.drops.push(row);
                winners.push(winner);
            }
        }
        winners
    }
}
