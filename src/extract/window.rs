//! A window: one pass over a stream, from its first page to its last, across as many runs as it takes.

use std::sync::Arc;

use bytes::Bytes;
use tokio::{sync::mpsc, task::AbortHandle};

use crate::{
    clock::Clock,
    config::{Source, Stream},
    error::{Error, ErrorKind, Result},
    extract::{client::Client, fetch::Fetcher, limit::Limiter, progress::Progress, pull::Pull},
    raw::{Bookmark, Page},
};

/// Pages fetched ahead of the one the caller holds.
const LOOKAHEAD_PAGES: usize = 1;

/// The pages of one stream in order, from where a bookmark stands to the end of the window.
///
/// A bookmark with an open window resumes at its next page; one without opens a window at its watermark less the
/// lookback. Memory: the caller's page, [`LOOKAHEAD_PAGES`] more, and the encoded form of the one being read.
/// Dropping it stops the fetch under way.
pub struct Extraction {
    pages: Pages,
    progress: Arc<Progress>,
}

enum Pages {
    Ready(Box<Pull>),
    Running {
        receiver: mpsc::Receiver<Result<Fetched>>,
        task: AbortHandle,
    },
    Done,
    Failed,
}

/// A page with what it means for the extraction.
#[derive(Debug)]
pub struct Fetched {
    /// The page to land.
    pub page: Page,
    /// Records in it.
    pub records: u64,
    /// Where extraction stands once this page is committed.
    pub bookmark: Bookmark,
    /// Whether it ends the window.
    pub position: Position,
}

/// What a page is to its window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// More pages follow.
    Middle,
    /// The window is complete.
    Last,
    /// Not a page: landed to show what was answered, for this reason. The next call fails; the bookmark has not moved.
    Evidence(String),
}

/// What one request showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The URL with secrets masked.
    pub url: String,
    /// HTTP status.
    pub status: u16,
    /// Bytes of the decoded body.
    pub bytes: u64,
    /// Requests it took.
    pub attempts: u32,
    /// Records found.
    pub records: u64,
    /// Records whose cursor could not be read; `None` for a stream without a cursor.
    pub cursors_missing: Option<u64>,
    /// The token of the next page, masked.
    pub next: Option<String>,
    /// The whole body, for those who want to look at the records.
    pub body: Bytes,
    /// The first record, cut to 4 KiB.
    pub first_record: Option<Bytes>,
}

impl Extraction {
    /// Begins or resumes the extraction of `stream`. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the bookmark's watermark is not of the stream's cursor or not written in its format.
    pub fn new(
        source: &Source,
        stream: &Stream,
        client: Arc<Client>,
        limiter: Arc<Limiter>,
        clock: Clock,
        bookmark: Bookmark,
    ) -> Result<Self> {
        let progress = Arc::new(Progress::default());
        let fetcher = Fetcher {
            source: Arc::new(source.clone()),
            stream: Arc::new(stream.clone()),
            client,
            limiter,
            clock,
            progress: Arc::clone(&progress),
        };
        Ok(Self {
            pages: Pages::Ready(Box::new(Pull::new(fetcher, bookmark)?)),
            progress,
        })
    }

    /// The counters, readable while pages are fetched.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// The next page, or `None` after the last one. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The first error ends the extraction. Pages handed out before it are good: commit them with the bookmark of
    /// the last one, and the next run resumes there.
    pub async fn next(&mut self) -> Result<Option<Fetched>> {
        if let Pages::Ready(_) = &self.pages
            && let Pages::Ready(pull) = std::mem::replace(&mut self.pages, Pages::Failed)
        {
            let (sender, receiver) = mpsc::channel(LOOKAHEAD_PAGES);
            let task = tokio::spawn(pull.run(sender)).abort_handle();
            self.pages = Pages::Running { receiver, task };
        }
        let received = match &mut self.pages {
            Pages::Done => return Ok(None),
            Pages::Running { receiver, .. } => receiver.recv().await,
            Pages::Ready(_) | Pages::Failed => None,
        };
        match received {
            Some(Ok(fetched)) => {
                if fetched.position == Position::Last {
                    self.pages = Pages::Done;
                }
                Ok(Some(fetched))
            }
            Some(Err(error)) => {
                self.pages = Pages::Failed;
                Err(error)
            }
            None => Err(Error::new(ErrorKind::Internal, "fetch pages after a failure")),
        }
    }

    /// Fetches the first page of a new window and says what is in it. Moves nothing; needs an extraction not yet begun.
    ///
    /// # Errors
    /// Those of a page that cannot be fetched or read.
    pub async fn probe(&mut self) -> Result<Probe> {
        match &mut self.pages {
            Pages::Ready(pull) => pull.probe().await,
            _ => Err(Error::new(ErrorKind::Internal, "probe an extraction under way")),
        }
    }
}

impl Drop for Extraction {
    fn drop(&mut self) {
        if let Pages::Running { task, .. } = &self.pages {
            task.abort();
        }
    }
}
