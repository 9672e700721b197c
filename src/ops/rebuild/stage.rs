//! A table made from raw beside the live one.

use chrono::TimeDelta;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{Error as StoreError, ObjectStoreExt as _, PutMode, path::Path};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tracing::{info, warn};

use crate::{
    clock::Timestamp,
    config::{ScdType, Stream, StreamName},
    contract::contracts::Contracts,
    error::{Error, ErrorKind, Result},
    ops::{
        Workspace,
        transform::{self, target::Target},
    },
    raw::{BatchNumber, layout, store::lower},
    table::{AppId, Table},
};

/// The newest format of what stands beside a staged table.
const FORMAT: u32 = 1;

/// Times a replay goes on after another process staged the same batches first.
const ATTEMPTS_MAX: u32 = 5;

/// No replay of one table takes this long.
const LEFT_OVER_AFTER: TimeDelta = TimeDelta::days(7);

/// How a replay begins where one was begun before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// It goes on, if it was begun by the same rules.
    Resume,
    /// It starts over.
    Anew,
}

/// What is staged.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The stream.
    pub stream: &'a Stream,
    /// The contracts that judge.
    pub contracts: &'a Contracts,
    /// The name of the staged tables, one path segment.
    pub id: &'a str,
    /// The last raw batch that goes into them.
    pub until: BatchNumber,
    /// What to do with what is there already.
    pub begin: Begin,
}

/// Tables made from raw beside the live ones.
#[derive(Clone, Debug)]
pub struct Staged {
    /// Their name.
    pub id: String,
    /// Where they are.
    pub target: Target,
    /// The main table among them.
    pub table: Table,
    /// The last raw batch in it.
    pub until: BatchNumber,
}

/// What a staged table was begun with, and where. Kept beside it: rows made by two rules do not go together.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Beginning {
    format: u32,
    /// The folder of the tables. Each beginning has one of its own, so that nobody writes into what another removes.
    folder: String,
    /// SHA-256 of everything that decides what becomes of a record, lowercase hex.
    rules: String,
    contract_version: String,
    begun_at: Timestamp,
}

/// Replays raw from its first batch to `wanted.until` into tables beside the live ones, and says so batch by batch.
///
/// A replay that was interrupted goes on where it stopped. One by other rules, and one that is already further, starts over.
/// A table that complete passes replace ends with the last one of them.
///
/// # Errors
/// [`ErrorKind::Refused`] if no pass has ended yet; else as a load of the live table.
pub async fn stage(
    workspace: &Workspace,
    wanted: Wanted<'_>,
    progress: &(dyn Fn(BatchNumber) + Sync),
) -> Result<Staged> {
    let name = &wanted.stream.name;
    let folder = begin(workspace, &wanted).await?;
    let target = Target::staged(name, &folder);
    let mut attempt = 1;
    // Each round that fails was overtaken by another process that stages the same.
    loop {
        let loaded = transform::load_until(
            workspace,
            wanted.stream,
            wanted.contracts,
            &target,
            wanted.until,
            progress,
        )
        .await;
        match loaded {
            Ok(done) => {
                info!(stream = %name, id = wanted.id, read = done.read, until = wanted.until.get(), "raw replayed");
                break;
            }
            Err(error) if error.kind() == ErrorKind::Conflict && attempt < ATTEMPTS_MAX => attempt += 1,
            Err(error) => return Err(error),
        }
    }
    // Batches of a pass that has not ended are not loaded.
    let replaces = wanted.stream.table.scd_type == ScdType::Replace;
    match find(workspace, name, wanted.id).await? {
        Some(staged) if staged.target.table == target.table && (replaces || staged.until >= wanted.until) => {
            Ok(staged)
        }
        None if replaces && stands_at(workspace, &wanted, &target).await? => {
            discard(workspace, name, wanted.id).await?;
            Err(Error::new(ErrorKind::Refused, "rebuild table")
                .with("stream", name)
                .with("until batch", wanted.until)
                .with(
                    "problem",
                    "no complete pass has ended yet, and only those fill a replaced table",
                ))
        }
        _ => Err(removed(name, wanted.id)),
    }
}

/// The staged tables of `stream` named `id`, if a replay has come so far.
///
/// # Errors
/// Whatever opening the table says.
pub async fn find(workspace: &Workspace, stream: &StreamName, id: &str) -> Result<Option<Staged>> {
    let Some(beginning) = read(workspace, stream, id).await? else {
        return Ok(None);
    };
    let target = Target::staged(stream, &beginning.folder);
    let Some(table) = workspace.tables.open(&target.table).await? else {
        return Ok(None);
    };
    let watermark = table.watermark(&AppId::new(stream, AppId::GENERATION)).await?;
    Ok(watermark.map(|until| Staged {
        id: id.to_owned(),
        target,
        table,
        until,
    }))
}

/// Whether `staged` is still what is staged under its name.
///
/// # Errors
/// Whatever the store says.
pub async fn stands(workspace: &Workspace, wanted: &Wanted<'_>, staged: &Staged) -> Result<bool> {
    stands_at(workspace, wanted, &staged.target).await
}

async fn stands_at(workspace: &Workspace, wanted: &Wanted<'_>, target: &Target) -> Result<bool> {
    let name = &wanted.stream.name;
    let beginning = read(workspace, name, wanted.id).await?;
    Ok(beginning.is_some_and(|beginning| Target::staged(name, &beginning.folder).table == target.table))
}

/// What was staged was removed by another process, which therefore was done with it.
pub fn removed(stream: &StreamName, id: &str) -> Error {
    Error::new(ErrorKind::Conflict, "rebuild table")
        .with("stream", stream)
        .with("staged as", id)
        .with(
            "reason",
            "another rebuild has promoted or removed what was staged",
        )
}

/// Removes the staged tables of `stream` named `id`, should there be any.
///
/// # Errors
/// Whatever the store says.
pub async fn discard(workspace: &Workspace, stream: &StreamName, id: &str) -> Result<()> {
    // First, so that what is half removed is not gone on with.
    let pointer = layout::staging(stream, id);
    remove(workspace, &pointer).await?;
    for folder in folders(workspace, stream).await? {
        if begun_as(&folder).is_some_and(|(own, _)| own == id) {
            remove(workspace, &layout::staging(stream, &folder)).await?;
        }
    }
    Ok(())
}

/// Removes staged tables whose name begins with `prefix` and that were begun long ago: what made them has died.
///
/// # Errors
/// Whatever the store says.
pub async fn sweep(workspace: &Workspace, stream: &StreamName, prefix: &str) -> Result<()> {
    let now = workspace.clock.now();
    for folder in folders(workspace, stream).await? {
        let Some((id, begun)) = begun_as(&folder) else {
            continue;
        };
        if id.starts_with(prefix) && now - begun > LEFT_OVER_AFTER {
            discard(workspace, stream, id).await?;
        }
    }
    Ok(())
}

/// The folder to stage into: that of an earlier beginning by the same rules, or a new one.
async fn begin(workspace: &Workspace, wanted: &Wanted<'_>) -> Result<String> {
    let name = &wanted.stream.name;
    let rules = rules(workspace, wanted.stream, wanted.contracts)?;
    for attempt in 0..ATTEMPTS_MAX {
        let anew = attempt == 0 && wanted.begin == Begin::Anew;
        let found = read(workspace, name, wanted.id).await?;
        if let Some(found) = found
            && !anew
            && goes_on(workspace, wanted, &found, &rules).await?
        {
            return Ok(found.folder);
        }
        discard(workspace, name, wanted.id).await?;
        let beginning = Beginning {
            format: FORMAT,
            folder: format!("{}-{}", wanted.id, uuid::Uuid::now_v7().simple()),
            rules: rules.clone(),
            contract_version: wanted.contracts.versions(),
            begun_at: workspace.clock.now(),
        };
        if write(workspace, name, wanted.id, &beginning).await? {
            return Ok(beginning.folder);
        }
    }
    Err(removed(name, wanted.id))
}

/// Whether what is staged was begun by the same rules and is not beyond what is wanted.
async fn goes_on(workspace: &Workspace, wanted: &Wanted<'_>, found: &Beginning, rules: &str) -> Result<bool> {
    let name = &wanted.stream.name;
    if (found.format, found.rules.as_str()) != (FORMAT, rules) {
        warn!(stream = %name, id = wanted.id, contract_then = found.contract_version,
            contract_now = wanted.contracts.versions(), "staged table was begun by other rules, starting over");
        return Ok(false);
    }
    match find(workspace, name, wanted.id).await {
        Ok(Some(staged)) if staged.until > wanted.until => {
            info!(stream = %name, id = wanted.id, staged = staged.until.get(), wanted = wanted.until.get(),
                "staged table is further than wanted, starting over");
            Ok(false)
        }
        Ok(_) => Ok(true),
        // It may be the work of hours, so nothing else is a reason to throw it away.
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            warn!(stream = %name, id = wanted.id, error = error.chain(), "staged table cannot be read, starting over");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

async fn read(workspace: &Workspace, stream: &StreamName, id: &str) -> Result<Option<Beginning>> {
    let key = pointer(stream, id);
    let failed = |error| lower(error, "read what a staged table was begun with", &key);
    let bytes = match workspace.store.get(&key).await {
        Ok(got) => got.bytes().await.map_err(failed)?,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    // What cannot be read is not ours to go on with.
    Ok(serde_json::from_slice(&bytes).ok())
}

/// Writes down a beginning, unless somebody else has begun meanwhile.
async fn write(workspace: &Workspace, stream: &StreamName, id: &str, beginning: &Beginning) -> Result<bool> {
    let key = pointer(stream, id);
    let bytes = serde_json::to_vec(beginning)
        .map_err(|source| Error::new(ErrorKind::Internal, "begin staged table").caused_by(source))?;
    match workspace
        .store
        .put_opts(&key, bytes.into(), PutMode::Create.into())
        .await
    {
        Ok(_) => Ok(true),
        Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => Ok(false),
        Err(error) => Err(lower(error, "begin staged table", &key)),
    }
}

/// Names of the folders beside the live tables of `stream`.
async fn folders(workspace: &Workspace, stream: &StreamName) -> Result<Vec<String>> {
    let root = layout::staged(stream);
    let listed = workspace.store.list_with_delimiter(Some(&root)).await;
    let listed = listed.map_err(|error| lower(error, "list staged tables", &root))?;
    Ok(listed
        .common_prefixes
        .iter()
        .filter_map(Path::filename)
        .map(str::to_owned)
        .collect())
}

/// The name under which `folder` was begun, and when; `None` for a folder of something else.
fn begun_as(folder: &str) -> Option<(&str, Timestamp)> {
    const UUID_CHARS: usize = 32;
    let (id, unique) = folder.split_at_checked(folder.len().checked_sub(UUID_CHARS)?)?;
    let (seconds, nanos) = uuid::Uuid::try_parse(unique).ok()?.get_timestamp()?.to_unix();
    let begun = Timestamp::from_timestamp(i64::try_from(seconds).ok()?, nanos)?;
    Some((id.strip_suffix('-')?, begun))
}

async fn remove(workspace: &Workspace, root: &Path) -> Result<()> {
    let store = &workspace.store;
    let found = store.list(Some(root)).map_ok(|meta| meta.location).boxed();
    let mut removed = store.delete_stream(found);
    // Ends with the listing.
    loop {
        match removed.try_next().await {
            Ok(Some(_)) | Err(StoreError::NotFound { .. }) => {}
            Ok(None) => return Ok(()),
            Err(error) => return Err(lower(error, "remove staged table", root)),
        }
    }
}

fn pointer(stream: &StreamName, id: &str) -> Path {
    layout::staging(stream, id).join("begun.json")
}

/// SHA-256 over everything that decides what becomes of a record, this program among it.
fn rules(workspace: &Workspace, stream: &Stream, contracts: &Contracts) -> Result<String> {
    let recipe = workspace.recipe(stream)?;
    let rules = format!(
        "{} {:?} {:?} {:?} {:?} {recipe:?}",
        env!("CARGO_PKG_VERSION"),
        contracts.all().collect::<Vec<_>>(),
        stream.versions,
        stream.table,
        stream.drift
    );
    Ok(Sha256::digest(rules)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_tells_its_name_and_when_it_was_begun() {
        let now = uuid::Uuid::now_v7();
        let folder = format!("at-12-{}", now.simple());
        let (id, begun) = begun_as(&folder).unwrap();
        assert_eq!(id, "at-12");
        let (seconds, _) = now.get_timestamp().unwrap().to_unix();
        assert_eq!(begun.timestamp() as u64, seconds);
        for other in ["next", "at-12", "broken-log-x", ""] {
            assert_eq!(begun_as(other), None, "{other}");
        }
    }
}
