//! The table side: files put together, logs shortened, what no version needs deleted.

use std::time::Duration;

use object_store::{ObjectMeta, path::Path};

use super::{Run, StepResult, Task, landed::span};
use crate::{
    clock::Timestamp,
    config::{Deletes, StreamName, WriteMode},
    error::Result,
    raw::layout::{self, SystemTable},
    table::{
        AppId, Standing, Table,
        maintain::{CompactOptions, Compacted, Marked, Settled},
        side::Side,
    },
};

/// Commits since the last checkpoint that are worth a new one.
const CHECKPOINT_COMMITS_MIN: u64 = 10;

/// One table of the lake.
struct Place {
    path: Path,
    /// Whose watermark it holds.
    app: Option<AppId>,
    kind: Kind,
}

enum Kind {
    /// A main table, or a child of one.
    Main,
    /// The side table of one stream.
    Own(StreamName),
    /// A side table of all streams.
    Shared(Side),
}

impl Run<'_> {
    /// Does `task` for the tables of `streams`, and for those that all share if they are `whole`.
    pub(super) async fn tables(&mut self, task: Task, streams: &[StreamName], whole: bool) {
        for place in self.places(streams, whole) {
            let result = self.table(task, &place).await;
            self.took(task, place.path, result);
        }
    }

    async fn table(&self, task: Task, place: &Place) -> Result<StepResult> {
        let Some(table) = self.workspace.tables.open(&place.path).await? else {
            return Ok(StepResult::NOTHING);
        };
        match task {
            Task::Compact => self.compact(table, place).await,
            Task::Checkpoint => self.checkpoint(&table, place).await,
            Task::Vacuum => self.vacuum(table, place).await,
            Task::Logs => self.logs(table, place).await,
            Task::Expire | Task::Sweep => Ok(StepResult::NOTHING),
        }
    }

    async fn compact(&self, mut table: Table, place: &Place) -> Result<StepResult> {
        let maintain = &self.workspace.project.maintain;
        let options = CompactOptions {
            target_bytes: maintain.file_bytes,
            before: self.before(maintain.compact_after)?,
            settled: self.settled(place).await?,
            marked: self.marked(place),
        };
        let done = if self.is_dry() {
            table.compactable(&options)?
        } else {
            table.compact(&options).await?
        };
        Ok(StepResult::Done {
            objects: done.files,
            bytes: done.bytes,
            note: said(&done),
        })
    }

    /// Of a stream that marks no rows any more, every file that still has some is written anew; of one with hard deletions too,
    /// because what is deleted is to be gone from the disk some day.
    fn marked(&self, place: &Place) -> Marked {
        let mut streams = self.workspace.project.streams();
        let marks = streams.any(|(_, stream)| {
            layout::table(&stream.name) == place.path
                && stream.table.write_mode == WriteMode::MergeOnRead
                && stream.table.deletes != Deletes::Hard
        });
        if marks { Marked::Much } else { Marked::All }
    }

    async fn settled(&self, place: &Place) -> Result<Settled> {
        let (side, streams) = match &place.kind {
            Kind::Main => return Ok(Settled::All),
            Kind::Own(stream) => {
                let side = Side {
                    path: place.path.clone(),
                    shared: false,
                };
                (side, vec![stream.clone()])
            }
            Kind::Shared(side) => {
                let streams = self.workspace.project.streams();
                (
                    side.clone(),
                    streams.map(|(_, stream)| stream.name.clone()).collect(),
                )
            }
        };
        let mut standings = Vec::with_capacity(streams.len());
        for stream in streams {
            let main = self.workspace.tables.open(&layout::table(&stream)).await?;
            let standing = match main {
                Some(main) => main.standing(&AppId::new(&stream, AppId::GENERATION)).await?,
                None => Standing::default(),
            };
            standings.push((stream, standing));
        }
        Ok(Settled::Before { side, standings })
    }

    async fn checkpoint(&self, table: &Table, place: &Place) -> Result<StepResult> {
        let commits = table.commits_since_checkpoint().await?;
        if commits < CHECKPOINT_COMMITS_MIN {
            return Ok(StepResult::NOTHING);
        }
        if !self.is_dry() {
            let tables = &self.workspace.tables;
            tables.checkpoint(&place.path, place.app.as_ref()).await?;
        }
        Ok(StepResult::Done {
            objects: 0,
            bytes: 0,
            note: Some(format!("{commits} commits summed up")),
        })
    }

    async fn vacuum(&self, mut table: Table, place: &Place) -> Result<StepResult> {
        let before = self.before(self.workspace.project.maintain.vacuum_after)?;
        let stale = table.stale_files(before).await?;
        self.remove_below(place, stale).await
    }

    async fn logs(&self, table: Table, place: &Place) -> Result<StepResult> {
        let before = self.before(self.workspace.project.maintain.log_after)?;
        let stale = table.stale_log(before).await?;
        self.remove_below(place, stale).await
    }

    /// Deletes what is relative to a table.
    async fn remove_below(&self, place: &Place, mut objects: Vec<ObjectMeta>) -> Result<StepResult> {
        if objects.is_empty() {
            return Ok(StepResult::NOTHING);
        }
        self.refuse_links(&place.path).await?;
        for object in &mut objects {
            object.location = place.path.parts().chain(object.location.parts()).collect();
        }
        self.remove(&objects).await?;
        Ok(StepResult::of(&objects))
    }

    fn places(&self, streams: &[StreamName], whole: bool) -> Vec<Place> {
        let project = &self.workspace.project;
        let mut places = Vec::new();
        for stream in streams {
            let children = project
                .stream(stream)
                .map(|(_, settings)| &settings.table.explode);
            let children = children.into_iter().flatten();
            places.extend(places_of(stream));
            places.extend(children.map(|list| Place {
                path: layout::child(stream, &list.name()),
                app: None,
                kind: Kind::Main,
            }));
        }
        if whole {
            places.extend(shared_places());
        }
        places
    }

    fn before(&self, age: Duration) -> Result<Timestamp> {
        let before = self.workspace.clock.now().checked_sub_signed(span(age)?);
        Ok(before.unwrap_or(Timestamp::UNIX_EPOCH))
    }
}

fn places_of(stream: &StreamName) -> Vec<Place> {
    let main = Place {
        path: layout::table(stream),
        app: Some(AppId::new(stream, AppId::GENERATION)),
        kind: Kind::Main,
    };
    let own = [layout::quarantine(stream), layout::tombstones(stream)].map(|path| Place {
        path,
        app: None,
        kind: Kind::Own(stream.clone()),
    });
    std::iter::once(main).chain(own).collect()
}

fn shared_places() -> impl Iterator<Item = Place> {
    SystemTable::ALL.into_iter().map(|table| {
        let path = layout::system(table);
        Place {
            path: path.clone(),
            app: None,
            kind: Kind::Shared(Side { path, shared: true }),
        }
    })
}

fn said(done: &Compacted) -> Option<String> {
    let mut notes = Vec::new();
    if done.files_after > 0 {
        notes.push(format!("into {} files", done.files_after));
    }
    if done.overtaken > 0 {
        notes.push(format!("{} stay: a load changed them meanwhile", done.overtaken));
    }
    (!notes.is_empty()).then(|| notes.join(", "))
}
