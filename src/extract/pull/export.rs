//! The steps of a window whose pages come from an export job.

use std::time::Duration;

use tokio::sync::oneshot;
use tracing::warn;

use crate::{
    error::{ErrorKind, Result},
    extract::{
        fetch::Fetcher,
        job::{Ended, Export},
        paginate::{
            Why,
            guard::{Guard, Seen},
        },
        pull::{Pull, Step},
        request::{PageRequest, START},
        window::Position,
    },
    raw::JobMark,
};

/// A probe waits no longer for a job.
const PROBE_WAIT: Duration = Duration::from_secs(60);

impl Pull {
    /// Whatever has to happen before the page can be fetched that the window stands at: none if it can be.
    pub(super) async fn before_page(&mut self) -> Result<Option<Step>> {
        let Some(mut export) = self.export.take() else {
            return Ok(None);
        };
        let step = self.prepare(&mut export).await;
        self.export = Some(export);
        step
    }

    async fn prepare(&mut self, export: &mut Export) -> Result<Option<Step>> {
        export.committed().await;
        let Some(mark) = self.window.job.clone() else {
            return self.create(export).await.map(Some);
        };
        let ask = self.ask(START);
        if mark.complete {
            export.remove(&ask, &mark).await;
            return Ok(Some(self.over(export)));
        }
        if export.count().is_some() {
            return Ok(None);
        }
        match export.wait(&ask, &mark).await.map_err(|lost| lost.error)? {
            Ended::Done => Ok(self.stand(export, mark)),
            Ended::Empty => Ok(Some(self.complete(export, mark))),
            Ended::Expired(error) if export.may_begin_again() => {
                warn!(stream = %self.fetcher.stream.name, job = mark.id, error = error.chain(),
                    "the server has forgotten the export job, another one is created");
                self.drop_job(export);
                self.create(export).await.map(Some)
            }
            Ended::Expired(error) | Ended::Failed(error) => {
                // The bookmark loses the job first, so that the next run creates another one.
                self.drop_job(export);
                self.doom = Some(error);
                Ok(Some(self.kept(None)))
            }
        }
    }

    /// Creates a job. Its mark is committed before anything else is asked for: a crash resumes the same job.
    async fn create(&mut self, export: &mut Export) -> Result<Step> {
        export.forget();
        // Ends with the remedies, of which there is a bounded number.
        loop {
            let ask = self.ask(START);
            match export.create(&ask).await {
                Ok(None) => return Ok(self.over(export)),
                Ok(mark @ Some(_)) => {
                    self.window.job = mark;
                    self.keep_window();
                    return Ok(self.kept(Some(export.hold())));
                }
                Err(lost) => self.remedy(*lost)?,
            }
        }
    }

    /// Takes the list of results. One that is not the list of the run before is read from its beginning.
    fn stand(&mut self, export: &mut Export, mut mark: JobMark) -> Option<Step> {
        let print = export.print();
        if mark.targets.as_ref().is_some_and(|known| *known != print) {
            warn!(stream = %self.fetcher.stream.name, job = mark.id,
                "the export job has other results than before, they are read from the first one");
            mark.done = 0;
            self.window.next = START.to_owned();
        }
        mark.targets = Some(print);
        let read = export.count().is_some_and(|count| mark.done >= count);
        if read {
            return Some(self.complete(export, mark));
        }
        self.window.job = Some(mark);
        self.keep_window();
        None
    }

    /// Nothing is left of the job but itself.
    fn complete(&mut self, export: &mut Export, mark: JobMark) -> Step {
        if !export.is_removed() {
            return self.over(export);
        }
        self.mark.tally.ignored += export.take_ignored();
        self.window.job = Some(JobMark {
            complete: true,
            ..mark
        });
        self.keep_window();
        self.kept(Some(export.hold()))
    }

    /// The window is over, and the job with it.
    fn over(&mut self, export: &mut Export) -> Step {
        export.forget();
        self.window.job = None;
        self.mark.tally.ignored += export.take_ignored();
        let position = self.close(Why::NoMore);
        Step {
            landed: None,
            records: 0,
            mark: self.standing(),
            position,
            hold: None,
        }
    }

    fn drop_job(&mut self, export: &mut Export) {
        export.forget();
        self.window.job = None;
        self.window.next = START.to_owned();
        self.keep_window();
    }

    /// A place in the bookmark that is worth a commit of its own.
    fn kept(&mut self, hold: Option<oneshot::Sender<()>>) -> Step {
        Step {
            landed: None,
            records: 0,
            mark: self.standing(),
            position: Position::Kept,
            hold,
        }
    }

    /// The request for the page the window stands at, and what sends it.
    pub(super) fn page_request(&self) -> Result<(Fetcher, PageRequest)> {
        match (&self.export, &self.window.job) {
            (Some(export), Some(mark)) => export.page(&self.fetcher, &self.ask(&self.window.next), mark),
            (Some(export), None) => Ok((self.fetcher.clone(), export.creation(&self.ask(START))?)),
            (None, _) => Ok((self.fetcher.clone(), self.request()?)),
        }
    }

    /// Whether an answer of this status says that the job, or the URLs of its results, are gone, and something can be
    /// done about it.
    pub(super) fn is_lost(&mut self, status: Option<u16>) -> bool {
        let Some(mut export) = self.export.take() else {
            return false;
        };
        let lost = if export.refresh(status) {
            true
        } else if export.is_forgotten(status) && export.may_begin_again() {
            self.drop_job(&mut export);
            true
        } else {
            false
        };
        self.export = Some(export);
        lost
    }

    /// The pages end here: those of the window, or of one result of its job.
    pub(super) fn end_pages(&mut self, why: Why) -> (Position, Option<oneshot::Sender<()>>) {
        let count = self.export.as_ref().and_then(Export::count);
        let (Some(mut export), Some(mark), Some(count)) = (self.export.take(), self.window.job.take(), count)
        else {
            return (self.close(why), None);
        };
        export.passed();
        let done = mark.done + 1;
        let last = done >= count;
        let ended = if last && !export.is_removed() {
            export.forget();
            (self.close(why), None)
        } else {
            self.look_back(why);
            self.guard = Guard::new(&self.fetcher.source.limits, Seen::default(), [START]);
            self.window.next = START.to_owned();
            self.window.job = Some(JobMark {
                done,
                complete: last,
                ..mark
            });
            self.keep_window();
            match last {
                // It is removed once the bookmark knows that nothing of it is needed any more.
                true => (Position::Kept, Some(export.hold())),
                false => (Position::Middle, None),
            }
        };
        self.export = Some(export);
        ended
    }

    /// Goes as far as the first page, for a probe. The job is removed at its end; see [`Self::after_probe`].
    pub(super) async fn before_probe(&mut self) -> Result<()> {
        if let Some(export) = &mut self.export {
            export.limit(PROBE_WAIT);
        }
        // Ends with the steps before a page, of which there are a few.
        while let Some(step) = self.before_page().await? {
            if let Some(error) = self.doom.take() {
                return Err(error);
            }
            if step.position == Position::Last {
                let problem = "the export has no results, so there is nothing to look at";
                return Err(self
                    .error(ErrorKind::Refused, "read page")
                    .with("problem", problem));
            }
        }
        Ok(())
    }

    /// Removes the job of a probe.
    pub(super) async fn after_probe(&self) {
        if let (Some(export), Some(mark)) = (&self.export, &self.window.job) {
            export.remove(&self.ask(START), mark).await;
        }
    }
}
