//! Child tables: the elements of lists as rows, following their main table.

use arrow::datatypes::Schema;
use datafusion::execution::context::SessionContext;
use object_store::path::Path;
use tracing::{info, warn};

use crate::{
    config::{Stream, explode::Explode},
    error::Result,
    failpoint,
    ops::{
        Workspace,
        compare::{self, Comparison, LOADED_AT, Pairing},
    },
    raw::layout,
    table::{
        Table,
        align::Common,
        children::{Follow, Followed},
        explode::Explosion,
    },
};

/// What came of holding a child table against the one that a replay gives.
#[derive(Clone, Debug)]
pub struct Child {
    /// Its name behind that of the stream.
    pub name: String,
    /// The rows.
    pub rows: Comparison,
    /// Whether it shows an older version of the main table.
    pub is_behind: bool,
}

impl Child {
    /// Whether it is what it should be.
    pub fn is_sound(&self) -> bool {
        self.rows.is_equal() && !self.is_behind
    }
}

/// Brings the child tables of `stream` to the newest version of its main table, if there is one.
///
/// # Errors
/// [`ErrorKind::Config`](crate::error::ErrorKind::Config) if a column to be exploded is no list; else those of reading and
/// writing the tables. The main table stays as it is.
pub async fn follow(workspace: &Workspace, stream: &Stream, how: Follow) -> Result<()> {
    if stream.table.explode.is_empty() {
        return Ok(());
    }
    let Some(main) = workspace.tables.open(&layout::table(&stream.name)).await? else {
        return Ok(());
    };
    failpoint::point("transform::before_children");
    for explode in &stream.table.explode {
        let Some(explosion) = explosion(stream, explode, main.schema()?.as_ref())? else {
            warn!(stream = %stream.name, column = explode.path.join("."), "no record had the list yet, so it has no table");
            continue;
        };
        let path = layout::child(&stream.name, &explode.name());
        match workspace.tables.follow(&main, &path, &explosion, how).await? {
            Followed::Already => {}
            followed => {
                info!(stream = %stream.name, table = %path, version = main.version(), ?followed, "child table follows")
            }
        }
    }
    Ok(())
}

/// Compares the child tables of `stream` with what `rebuilt`, a replay of its main table, gives. Tables for that are made
/// below `staging`. Of each kind of difference up to `limit` rows are shown.
///
/// # Errors
/// Those of reading and writing the tables.
pub async fn review(
    workspace: &Workspace,
    stream: &Stream,
    (live, rebuilt): (&Table, &Table),
    staging: &Path,
    limit: usize,
) -> Result<Vec<Child>> {
    let mut children = Vec::new();
    for explode in &stream.table.explode {
        let Some(explosion) = explosion(stream, explode, rebuilt.schema()?.as_ref())? else {
            continue;
        };
        let name = explode.name();
        let path = staging.clone().join(format!("child-{name}"));
        workspace
            .tables
            .follow(rebuilt, &path, &explosion, Follow::Anew)
            .await?;
        let wanted = workspace
            .tables
            .open_or_create(&path, explosion.schema(), &[])
            .await?;
        let found = workspace.tables.open(&layout::child(&stream.name, &name)).await?;
        let shown = match &found {
            Some(found) => found.shows(live).await?,
            None => None,
        };
        let is_behind = match shown {
            Some(shown) => shown < live.version() && !live.is_as_at(shown).await?,
            None => true,
        };
        let context = compare::context(workspace.project.memory_bytes_max)?;
        let rows = rows(&context, found.as_ref(), &wanted, &explosion, limit).await?;
        children.push(Child {
            name,
            rows,
            is_behind,
        });
    }
    Ok(children)
}

async fn rows(
    context: &SessionContext,
    found: Option<&Table>,
    wanted: &Table,
    explosion: &Explosion,
    limit: usize,
) -> Result<Comparison> {
    let rebuilt = compare::frame(context, wanted).await?;
    let (live, schema) = match found {
        Some(found) => (compare::frame(context, found).await?, found.schema()?),
        None => (
            compare::nothing(context, explosion.schema())?,
            explosion.schema().clone(),
        ),
    };
    let common = Common::of(schema.as_ref(), wanted.schema()?.as_ref());
    let identity = explosion.identity();
    let names = common.schema().fields().iter().map(|field| field.name());
    let compared = names
        .filter(|name| *name != LOADED_AT && !identity.contains(name))
        .cloned()
        .collect();
    let pairing = Pairing {
        common,
        identity,
        compared,
    };
    compare::compare(context, live, rebuilt, &pairing, limit).await
}

fn explosion(stream: &Stream, explode: &Explode, main: &Schema) -> Result<Option<Explosion>> {
    Explosion::new(&explode.path, &stream.table.keys, main)
        .map_err(|error| error.with("stream", &stream.name))
}
