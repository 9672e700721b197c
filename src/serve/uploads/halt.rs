//! Why the work on a job does not go on.

use crate::{
    error::Error,
    receive::uploads::job::Trouble,
    serve::problem::code::{Code, Retry},
};

/// Why the work on a job does not go on.
#[derive(Debug)]
pub(super) enum Halt {
    /// The server stops; it goes on from here at the next start.
    Stopped,
    /// The job cannot have a good end: it is quarantined.
    Trouble(Trouble),
    /// There is no room for it, or nothing to judge it by, for some time: its place is kept, and it comes again.
    Waits(Code),
    /// Something here is broken, or there is no room: it is tried again.
    Broken(Error),
}

impl Halt {
    /// The end of a job with this problem.
    pub(super) fn trouble(code: Code, detail: impl Into<String>) -> Self {
        let row = code.row();
        Self::Trouble(Trouble {
            code: row.name.to_owned(),
            detail: detail.into(),
            retryable: row.retry != Retry::Never,
        })
    }
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}
