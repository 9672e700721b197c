//! Export jobs: the settings.

use std::time::Duration;

use crate::{
    config::request::{Place, Request},
    json::JsonPath,
};

/// A stream whose pages come from an export job: asked for, waited for, downloaded, removed.
///
/// The stream's own request creates the job; `job.key` in its templates is the same however often it is sent for one
/// job. In the templates of the others, besides, `job.response` is the answer to it, `job.id`
/// what [`Job::id`] found there, `job.poll` the last answer about how it stands, and `job.target` what is downloaded now.
/// The lower and upper bound go into the request that creates the job, page tokens into [`Job::download`].
#[derive(Clone, Debug)]
pub struct Job {
    /// Where the answer to the request that creates the job holds its id; none if nothing needs one.
    pub id: Option<Place>,
    /// Asks how it stands.
    pub poll: Request,
    /// Where that answer holds the status; none takes the HTTP status. A value that is not there yet says that the job
    /// is running.
    pub status: Option<JsonPath>,
    /// Statuses of a job whose result is there.
    pub done: Vec<String>,
    /// Statuses of a job that will never have a result.
    pub failed: Vec<String>,
    /// Statuses of a job that ended well and has no result.
    pub empty: Vec<String>,
    /// Statuses of a job that the server has given up or forgotten: it is created again, once.
    pub expired: Vec<String>,
    /// Statuses of a job under way. Empty: all others; else one that is nowhere is an error.
    pub running: Vec<String>,
    /// Between two polls. Default 5 s, growing to a minute.
    pub every: Duration,
    /// A job that takes longer is given up. Default 1 h.
    pub timeout: Duration,
    /// How often in one run of a stream, or of a slice, another job takes the place of one that has failed. Default 0.
    pub retries: u32,
    /// Before that.
    pub retry_wait: Duration,
    /// Asks for the list of results, if the last poll does not have it.
    pub list: Option<Request>,
    /// Where that answer holds the results: URLs, or what [`Job::download`] makes of them.
    pub urls: Option<JsonPath>,
    /// Fetches a result; none: each one is a URL, of the source or of one of [`Job::hosts`].
    pub download: Option<Request>,
    /// Stops a job that takes too long; none removes it.
    pub abort: Option<Request>,
    /// Removes the job once everything is committed.
    pub delete: Option<Request>,
    /// Hosts that results may be downloaded from besides the source's own, without credentials.
    pub hosts: Vec<String>,
}

impl Job {
    /// Default of [`Job::every`].
    pub const EVERY_DEFAULT: Duration = Duration::from_secs(5);
    /// Default of [`Job::timeout`].
    pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(3600);

    /// Every request but the one that creates the job.
    pub fn requests(&self) -> impl Iterator<Item = &Request> {
        let more = [&self.list, &self.download, &self.abort, &self.delete];
        [&self.poll].into_iter().chain(more.into_iter().flatten())
    }
}
