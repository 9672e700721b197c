//! Word that the tables of a stream are being swapped.
//!
//! The side tables change before the main table. Whoever dies in between leaves side tables that do not belong to the main
//! table: deletions may be missing among them, and what is loaded then would bring deleted rows back. So nothing is loaded,
//! released or discarded until a rebuild has been promoted.

use object_store::{Error as StoreError, ObjectStoreExt as _, PutMode, path::Path};

use crate::{
    config::StreamName,
    error::{Error, ErrorKind, Result},
    ops::Workspace,
    raw::{layout, store::lower},
};

const WORD: &str = "swapping.json";

/// Says that a swap is under way; false if that was said before.
///
/// # Errors
/// Those of the store.
pub(super) async fn begin(workspace: &Workspace, stream: &StreamName) -> Result<bool> {
    let key = word(stream);
    let put = workspace
        .store
        .put_opts(&key, "{}".into(), PutMode::Create.into())
        .await;
    match put {
        Ok(_) => Ok(true),
        Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => Ok(false),
        Err(error) => Err(lower(error, "say that tables are swapped", &key)),
    }
}

/// Takes the word back.
///
/// # Errors
/// Those of the store.
pub(super) async fn end(workspace: &Workspace, stream: &StreamName) -> Result<()> {
    let key = word(stream);
    match workspace.store.delete(&key).await {
        Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
        Err(error) => Err(lower(error, "say that tables were swapped", &key)),
    }
}

/// Whether a swap is under way, or has died on the way.
///
/// # Errors
/// Those of the store.
pub(super) async fn is_under_way(workspace: &Workspace, stream: &StreamName) -> Result<bool> {
    let key = word(stream);
    match workspace.store.head(&key).await {
        Ok(_) => Ok(true),
        Err(StoreError::NotFound { .. }) => Ok(false),
        Err(error) => Err(lower(error, "ask whether tables are swapped", &key)),
    }
}

/// Fails if a swap is under way: `attempt` needs tables that belong together.
///
/// # Errors
/// [`ErrorKind::Conflict`]; else those of the store.
pub(in crate::ops) async fn refuse(
    workspace: &Workspace,
    stream: &StreamName,
    attempt: &'static str,
) -> Result<()> {
    if !is_under_way(workspace, stream).await? {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Conflict, attempt)
        .with("stream", stream)
        .with(
            "problem",
            "another process is putting a rebuilt table in place, or has died while it was",
        )
        .with(
            "hint",
            format!("if none is, `landfall rebuild {stream} --promote` finishes it"),
        ))
}

/// Whether `key` is that of such a word.
pub(in crate::ops) fn is_word(key: &Path) -> bool {
    key.filename() == Some(WORD)
}

fn word(stream: &StreamName) -> Path {
    layout::staged(stream).join(WORD)
}
