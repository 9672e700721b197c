//! One file per verb. The only place where the stations meet.
//!
//! ```text
//! extract: config → extract → raw          transform: raw → transform (contract) → table
//! ```

pub mod check;
pub mod children;
pub mod compare;
pub mod contract;
pub mod demo;
pub mod drift;
pub mod explain;
pub mod extract;
pub mod fate;
pub mod gaps;
pub mod heard;
pub mod init;
pub mod inspect;
pub mod landings;
pub mod lineage;
pub mod maintain;
pub mod metrics;
pub mod quarantine;
pub mod rebuild;
pub mod release;
pub mod schedule;
pub mod sql;
pub mod status;
pub mod token;
pub mod transform;
pub mod verify;

use std::sync::Arc;

use object_store::ObjectStore;

use crate::{
    clock::Clock,
    config::{Project, Stream},
    contract::contracts::Contracts,
    error::Result,
    format::Recipe,
    ops::lineage::Lineage,
    raw,
    table::{RulesNote, Tables},
};

/// A project with its lake opened.
#[derive(Clone)]
pub struct Workspace {
    /// The project as read.
    pub project: Arc<Project>,
    /// The lake, rooted at its URL.
    pub store: Arc<dyn ObjectStore>,
    /// The Delta tables in it.
    pub tables: Tables,
    /// The time.
    pub clock: Clock,
    /// Where extractions and transforms tell what they read and wrote, if that is wanted.
    pub lineage: Option<Lineage>,
}

impl Workspace {
    /// Opens the lake of `project`. Nothing is read or written yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::error::ErrorKind::Config) if the storage options make no store.
    pub fn open(project: Project, clock: Clock) -> Result<Self> {
        let store = raw::store::open(&project.lake)?;
        Self::over(project, store, clock)
    }

    /// As [`Workspace::open`], over a lake that is open.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) if no URL can be made for its tables.
    pub fn over(project: Project, store: Arc<dyn ObjectStore>, clock: Clock) -> Result<Self> {
        Ok(Self {
            project: Arc::new(project),
            tables: Tables::new(Arc::clone(&store))?,
            store,
            clock,
            lineage: None,
        })
    }

    /// How the records of `stream` are read out of its pages.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::error::ErrorKind::Config) if it is not a stream of this project.
    pub fn recipe(&self, stream: &Stream) -> Result<Recipe> {
        let (source, stream) = self.project.stream(&stream.name)?;
        Ok(Recipe::of(source, stream))
    }

    /// By what a load that `contracts` judge makes its rows.
    pub(in crate::ops) fn rules(&self, contracts: &Contracts) -> RulesNote {
        RulesNote {
            contract: contracts.versions(),
            config: self.project.config_hash.clone(),
        }
    }

    /// Proves that the store refuses to create what exists; to be called before anything is written.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::error::ErrorKind::Config) for a store on which two writers could both win, else whatever
    /// the store says.
    pub async fn prove_store(&self) -> Result<()> {
        raw::store::probe(self.store.as_ref(), &self.clock).await
    }
}
