//! Staged tables take the place of the live ones.

use std::time::Duration;

use object_store::path::Path;
use rand::RngExt as _;
use tracing::{info, warn};

use super::{
    broken_log, contracts_of,
    live::{Live, live},
    pair,
    stage::{self, Begin, Staged, Wanted, stage},
    swapping,
};
use crate::{
    error::{Error, ErrorKind, Result},
    failpoint,
    ops::{
        Workspace,
        compare::review::{Review, review},
        transform::target::{Target, drift_side, loads_side, profiles_side},
    },
    raw::{BatchNumber, layout},
    table::{
        AppId, CommitNote, Committed, Table,
        promote::{Copies, SwapNote},
        side::Side,
    },
};

/// Swaps tried before giving up; each fails only because a load of the live table was faster.
const ATTEMPTS_MAX: u32 = 10;

/// The longest random wait between two of them.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// What took the place of the live table.
pub(super) struct Promoted {
    /// The Delta version that it became.
    pub(super) version: u64,
    /// The last raw batch in it.
    pub(super) until: BatchNumber,
    /// How it differed from the live table, if more was staged after the two were compared.
    pub(super) review: Option<Review>,
}

/// Puts `staged` in the place of the live tables of its stream.
///
/// If the live table has moved on, the staged one is brought up to it first, and compared with it again: of each kind of
/// difference up to `limit` rows are shown. Interrupted anywhere, it is put right by
/// doing it again: the side tables change before the main table, and change to the same once more. Until then nothing is
/// loaded.
///
/// # Errors
/// [`ErrorKind::Conflict`] if loads of the live table were faster every time, or if the contract is not the one any more by
/// which the rows were staged; else whatever the store says.
pub(super) async fn promote(
    workspace: &Workspace,
    wanted: Wanted<'_>,
    mut staged: Staged,
    limit: usize,
    progress: &(dyn Fn(BatchNumber) + Sync),
) -> Result<Promoted> {
    let name = &wanted.stream.name;
    let mut copies = Copies::default();
    let mut reviewed = None;
    for attempt in 1..=ATTEMPTS_MAX {
        let found = live(workspace, name).await?;
        // After the look at the table: a load that is in it has changed the file before.
        refuse_changed(&wanted)?;
        let committed = match found {
            Live::Loaded { table, until } => {
                if until > staged.until {
                    info!(stream = %name, staged = staged.until.get(), live = until.get(), "live table moved on, replaying what it loaded");
                    let wanted = Wanted {
                        until,
                        begin: Begin::Resume,
                        ..wanted
                    };
                    staged = stage(workspace, wanted, progress).await?;
                    let pair = pair(wanted.stream, wanted.contracts, (&table, until), &staged);
                    reviewed = Some(review(workspace, pair, limit).await?);
                }
                swap(workspace, &wanted, table, &staged, &mut copies).await?
            }
            Live::Unloaded { .. } => match workspace.tables.open(&layout::table(name)).await? {
                Some(table) => swap(workspace, &wanted, table, &staged, &mut copies).await?,
                None => create(workspace, &wanted, &staged, &mut copies).await?,
            },
            Live::Unreadable { error } => {
                let aside = broken_log(name);
                warn!(stream = %name, error = error.chain(), kept = %aside, "the table's log cannot be read and is set aside");
                workspace
                    .tables
                    .set_log_aside(&layout::table(name), &aside)
                    .await?;
                failpoint::point("rebuild::log_aside");
                Committed::Conflicted
            }
        };
        if let Committed::Applied { version } = committed {
            swapping::end(workspace, name).await?;
            info!(stream = %name, version, until = staged.until.get(), "rebuilt table promoted");
            return Ok(Promoted {
                version,
                until: staged.until,
                review: reviewed,
            });
        }
        let wait = WAIT_MAX.mul_f64(rand::rng().random::<f64>());
        warn!(stream = %name, attempt, ?wait, "live table changed meanwhile, trying again");
        tokio::time::sleep(wait).await;
    }
    Err(Error::new(ErrorKind::Conflict, "promote rebuilt table")
        .with("stream", name)
        .with("attempts_max", ATTEMPTS_MAX))
}

/// Fails if the contract is not the one by which the rows were staged: columns that a load of the live table has added
/// meanwhile would be gone.
fn refuse_changed(wanted: &Wanted<'_>) -> Result<()> {
    let now = contracts_of(wanted.stream)?;
    if now == *wanted.contracts {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Conflict, "promote rebuilt table")
        .with("stream", &wanted.stream.name)
        .with("staged by contract", wanted.contracts.versions())
        .with("contract now", now.versions())
        .with(
            "hint",
            "the contract has changed since; run rebuild again, it begins by the new one",
        ))
}

/// A side table to be swapped, as it was when everything staged was still there.
struct StagedSide {
    live: Side,
    staged: Side,
    table: Option<Table>,
    /// Files of it that do not count.
    void: Vec<Path>,
}

async fn swap(
    workspace: &Workspace,
    wanted: &Wanted<'_>,
    mut table: Table,
    staged: &Staged,
    copies: &mut Copies,
) -> Result<Committed> {
    let app = AppId::new(&wanted.stream.name, AppId::GENERATION);
    let Some(sides) = begin(workspace, wanted, Some(&mut table), staged, copies).await? else {
        return Ok(Committed::Conflicted);
    };
    swap_sides(workspace, &sides, staged, copies).await?;
    failpoint::point("rebuild::before_swap");
    table
        .swap(
            &staged.table,
            copies,
            &note(workspace, wanted, &app, staged.until),
        )
        .await
}

/// Makes a table where there is none.
async fn create(
    workspace: &Workspace,
    wanted: &Wanted<'_>,
    staged: &Staged,
    copies: &mut Copies,
) -> Result<Committed> {
    let name = &wanted.stream.name;
    let Some(sides) = begin(workspace, wanted, None, staged, copies).await? else {
        return Ok(Committed::Conflicted);
    };
    swap_sides(workspace, &sides, staged, copies).await?;
    failpoint::point("rebuild::before_create");
    let note = note(
        workspace,
        wanted,
        &AppId::new(name, AppId::GENERATION),
        staged.until,
    );
    workspace
        .tables
        .create_from(&layout::table(name), &staged.table, copies, &note)
        .await
}

/// Makes everything ready for a swap, and says that it begins; `None` if somebody else was faster.
async fn begin(
    workspace: &Workspace,
    wanted: &Wanted<'_>,
    table: Option<&mut Table>,
    staged: &Staged,
    copies: &mut Copies,
) -> Result<Option<Vec<StagedSide>>> {
    let name = &wanted.stream.name;
    // It may take long, and nothing has to wait for it.
    let sides = copy(workspace, wanted, staged, copies).await?;
    failpoint::point("rebuild::after_copy");
    // Before the fence: a load that has not heard of it is made to plan again by that.
    let begun = swapping::begin(workspace, name).await?;
    let fenced = match table {
        Some(table) => fence(workspace, wanted, table).await,
        None => Ok(true),
    };
    if begun && !matches!(fenced, Ok(true)) {
        // Nothing has been swapped yet.
        swapping::end(workspace, name).await?;
    }
    failpoint::point("rebuild::after_fence");
    Ok(fenced?.then_some(sides))
}

/// Copies what is to take the place of the live tables.
async fn copy(
    workspace: &Workspace,
    wanted: &Wanted<'_>,
    staged: &Staged,
    copies: &mut Copies,
) -> Result<Vec<StagedSide>> {
    let (name, tables) = (&wanted.stream.name, &workspace.tables);
    let live = Target::live(name);
    tables.copy_files(&staged.table, &live.table, copies).await?;
    let app = AppId::new(name, AppId::GENERATION);
    let standing = staged.table.standing(&app).await?;
    let mut sides = Vec::new();
    for (live, side) in [
        (live.quarantine, &staged.target.quarantine),
        (live.tombstones, &staged.target.tombstones),
    ] {
        let table = tables.open(&side.path).await?;
        if let Some(table) = &table {
            tables.copy_files(table, &live.path, copies).await?;
        }
        sides.push(StagedSide {
            live,
            table,
            void: tables.void_files(side, name, &standing).await?.files,
            staged: side.clone(),
        });
    }
    // Asked afterwards: a side table that is not there has no rows only as long as nobody removes what is staged.
    if stage::stands(workspace, wanted, staged).await? {
        Ok(sides)
    } else {
        Err(stage::removed(name, wanted.id))
    }
}

/// Makes every load under way plan again, and removes what unfinished ones left; false if somebody else was faster.
async fn fence(workspace: &Workspace, wanted: &Wanted<'_>, table: &mut Table) -> Result<bool> {
    let (name, tables) = (&wanted.stream.name, &workspace.tables);
    let app = AppId::new(name, AppId::GENERATION);
    let standing = table.standing(&app).await?;
    // The watermark stays where it is: batches that only the staged table has are in the table with the swap.
    let Some(until) = standing.watermark else {
        return Ok(true);
    };
    // Found before the fence: what a load writes after it is of a load that will commit.
    let mut void = Vec::new();
    for side in [drift_side(), profiles_side(), loads_side()] {
        let found = tables.void_files(&side, name, &standing).await?;
        void.push((side, found.files));
    }
    let fenced = table.begin_swap(&note(workspace, wanted, &app, until)).await?;
    if !matches!(fenced, Committed::Applied { .. }) {
        return Ok(false);
    }
    for (side, files) in &void {
        tables.remove_files(side, files).await?;
    }
    Ok(true)
}

async fn swap_sides(
    workspace: &Workspace,
    sides: &[StagedSide],
    staged: &Staged,
    copies: &mut Copies,
) -> Result<()> {
    for side in sides {
        let from = side.table.as_ref();
        workspace
            .tables
            .swap_side(&side.live, (&side.staged, from), &side.void, staged.until, copies)
            .await?;
        failpoint::point("rebuild::after_side");
    }
    Ok(())
}

/// A commit whose load begins behind everything in the table: no row of an earlier one is taken for that of a load which lost.
fn note(workspace: &Workspace, wanted: &Wanted<'_>, app: &AppId, until: BatchNumber) -> SwapNote {
    SwapNote {
        commit: CommitNote {
            app: app.clone(),
            from: until.next(),
            batch: until,
            load_id: uuid::Uuid::now_v7().to_string(),
            rules: workspace.rules(wanted.contracts),
            traces: Vec::new(),
        },
        keys: wanted.stream.table.keys.join(", "),
    }
}
