//! Staged tables take the place of the live ones.

use std::time::Duration;

use rand::RngExt as _;
use tracing::{info, warn};

use super::{
    End, broken_log,
    live::{Live, live},
    stage::{Begin, Staged, Wanted, stage},
};
use crate::{
    config::StreamName,
    error::{Error, ErrorKind, Result},
    failpoint,
    ops::{
        Workspace,
        transform::target::{Target, drift_side, loads_side, profiles_side},
    },
    raw::{BatchNumber, layout},
    table::{
        AppId, CommitNote, Committed, Table,
        promote::{Copies, SwapNote},
    },
};

/// Swaps tried before giving up; each fails only because a load of the live table was faster.
const ATTEMPTS_MAX: u32 = 10;

/// The longest random wait between two of them.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// Puts `staged` in the place of the live tables of its stream.
///
/// If the live table has moved on, the staged one is brought up to it first. Interrupted anywhere, it is put right by
/// doing it again: the side tables change before the main table, and change to the same once more.
///
/// # Errors
/// [`ErrorKind::Conflict`] if loads of the live table were faster every time; else whatever the store says.
pub(super) async fn promote(
    workspace: &Workspace,
    wanted: Wanted<'_>,
    mut staged: Staged,
    progress: &(dyn Fn(BatchNumber) + Sync),
) -> Result<End> {
    let name = &wanted.stream.name;
    let mut copies = Copies::default();
    for attempt in 1..=ATTEMPTS_MAX {
        let committed = match live(workspace, name).await? {
            Live::Loaded { table, until } => {
                if until > staged.until {
                    info!(stream = %name, staged = staged.until.get(), live = until.get(), "live table moved on, replaying what it loaded");
                    let wanted = Wanted {
                        until,
                        begin: Begin::Resume,
                        ..wanted
                    };
                    staged = stage(workspace, wanted, progress).await?;
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
            info!(stream = %name, version, until = staged.until.get(), "rebuilt table promoted");
            return Ok(End::Promoted { version });
        }
        let wait = WAIT_MAX.mul_f64(rand::rng().random::<f64>());
        warn!(stream = %name, attempt, ?wait, "live table changed meanwhile, trying again");
        tokio::time::sleep(wait).await;
    }
    Err(Error::new(ErrorKind::Conflict, "promote rebuilt table")
        .with("stream", name)
        .with("attempts_max", ATTEMPTS_MAX))
}

async fn swap(
    workspace: &Workspace,
    wanted: &Wanted<'_>,
    mut table: Table,
    staged: &Staged,
    copies: &mut Copies,
) -> Result<Committed> {
    let (name, tables) = (&wanted.stream.name, &workspace.tables);
    let app = AppId::new(name, AppId::GENERATION);
    let standing = table.standing(&app).await?;
    // Found before the fence: what a load writes after it is of a load that will commit.
    let mut void = Vec::new();
    for side in [drift_side(), profiles_side(), loads_side()] {
        let found = tables.void_files(&side, name, &standing).await?;
        void.push((side, found.files));
    }
    // The watermark stays where it is: batches that only the staged table has are in the table with the swap.
    let until = standing.watermark.unwrap_or(staged.until);
    if standing.watermark.is_some() {
        let fenced = table.begin_swap(&note(wanted, &app, until)).await?;
        if !matches!(fenced, Committed::Applied { .. }) {
            return Ok(fenced);
        }
        for (side, files) in &void {
            tables.remove_files(side, files).await?;
        }
    }
    failpoint::point("rebuild::after_fence");
    tables.copy_files(&staged.table, table.path(), copies).await?;
    failpoint::point("rebuild::after_copy");
    swap_sides(workspace, name, staged, copies).await?;
    failpoint::point("rebuild::before_swap");
    table
        .swap(&staged.table, copies, &note(wanted, &app, staged.until))
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
    let path = layout::table(name);
    let app = AppId::new(name, AppId::GENERATION);
    workspace.tables.copy_files(&staged.table, &path, copies).await?;
    swap_sides(workspace, name, staged, copies).await?;
    failpoint::point("rebuild::before_create");
    let note = note(wanted, &app, staged.until);
    workspace
        .tables
        .create_from(&path, &staged.table, copies, &note)
        .await
}

async fn swap_sides(
    workspace: &Workspace,
    name: &StreamName,
    staged: &Staged,
    copies: &mut Copies,
) -> Result<()> {
    let live = Target::live(name);
    let standing = staged
        .table
        .standing(&AppId::new(name, AppId::GENERATION))
        .await?;
    let sides = [
        (&live.quarantine, &staged.target.quarantine),
        (&live.tombstones, &staged.target.tombstones),
    ];
    for (live, side) in sides {
        let void = workspace.tables.void_files(side, name, &standing).await?;
        workspace
            .tables
            .swap_side(live, side, &void.files, staged.until, copies)
            .await?;
        failpoint::point("rebuild::after_side");
    }
    Ok(())
}

/// A commit whose load begins behind everything in the table: no row of an earlier one is taken for that of a load which lost.
fn note(wanted: &Wanted<'_>, app: &AppId, until: BatchNumber) -> SwapNote {
    SwapNote {
        commit: CommitNote {
            app: app.clone(),
            from: until.next(),
            batch: until,
            load_id: uuid::Uuid::now_v7().to_string(),
        },
        keys: wanted.stream.table.keys.join(", "),
    }
}
