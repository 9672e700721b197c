//! The steps of a window whose pages come from an export job.

use tokio::sync::oneshot;
use tracing::warn;

use crate::{
    error::{Error, Result},
    extract::{
        fetch::{Fetcher, Remedy, Unanswered},
        job::{Export, create::Created, wait::Ended},
        paginate::{
            Why,
            guard::{Guard, Seen},
        },
        pull::{Pull, REMEDIES_MAX, Start, Step},
        request::{PageRequest, START},
        window::Position,
    },
    raw::JobMark,
};

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
        let ask = self.ask(START);
        export.remove_stale(&ask).await;
        if self.doom.is_some() {
            // The bookmark loses the job first.
            return Ok(Some(self.kept(None)));
        }
        let Some(mark) = self.window.job.clone() else {
            return Ok(Some(self.intend(export)));
        };
        if mark.creating {
            return self.create(export, mark).await.map(Some);
        }
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
            Ended::Ignored => {
                export.remove(&ask, &mark).await;
                export.forget();
                Ok(Some(self.give_up()))
            }
            Ended::Expired(error) if export.may_begin_again() => {
                warn!(stream = %self.fetcher.stream.name, error = error.chain(),
                    "the server has forgotten the export job, another one is created");
                self.drop_job(export);
                Ok(Some(self.intend(export)))
            }
            Ended::Failed(error) => Ok(Some(match export.may_retry() {
                Some(wait) => {
                    warn!(stream = %self.fetcher.stream.name, error = error.chain(), wait_ms = wait.as_millis(),
                        "the export job has failed, another one is created");
                    self.fetcher.progress.add_waited(wait);
                    tokio::time::sleep(wait).await;
                    self.drop_job(export);
                    self.intend(export)
                }
                None => self.fail(export, error),
            })),
            Ended::Expired(error) | Ended::GivenUp(error) => Ok(Some(self.fail(export, error))),
        }
    }

    /// Means to create a job. That is committed before it happens, so that a run which ends in between, or another one
    /// beside this, knows of it.
    fn intend(&mut self, export: &mut Export) -> Step {
        self.window.job = Some(export.intend());
        self.keep_window();
        self.kept(Some(export.hold()))
    }

    /// Creates the job that `mark` means. Its mark is committed before anything else is asked for: a crash resumes the
    /// same job.
    async fn create(&mut self, export: &mut Export, mut mark: JobMark) -> Result<Step> {
        if !export.may_create(&mut mark) {
            return Ok(self.intend(export));
        }
        match export.create(&self.ask(START), &mark).await {
            Ok(Created::Empty) => Ok(self.over(export)),
            Ok(Created::Ignored) => {
                export.forget();
                Ok(self.give_up())
            }
            Ok(Created::Job(mark)) => {
                self.window.job = Some(mark);
                self.keep_window();
                Ok(self.kept(Some(export.hold())))
            }
            Err(lost) => {
                let refused = export.is_refused(lost.status);
                match self.remedy(*lost) {
                    // Something else is asked for, which is another job.
                    Ok(()) => Ok(self.intend(export)),
                    Err(error) if refused => Ok(self.fail(export, error)),
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// Takes the list of results. One that is not the list of the run before is read from its beginning.
    fn stand(&mut self, export: &mut Export, mut mark: JobMark) -> Option<Step> {
        let print = export.print();
        if mark.targets.is_some() && mark.targets != print {
            warn!(stream = %self.fetcher.stream.name,
                "the export job has other results than before, they are read from the first one");
            mark.done = 0;
            self.window.next = START.to_owned();
        }
        mark.targets = print;
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
        let position = self.close(Why::NoMore);
        Step {
            landed: None,
            records: 0,
            mark: self.standing(),
            position,
            hold: None,
        }
    }

    /// The slice ends with `error`. The bookmark loses the job first, so that the next run creates another one.
    fn fail(&mut self, export: &mut Export, error: Error) -> Step {
        self.drop_job(export);
        self.doom = Some(error);
        self.kept(None)
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
            _ => Ok((self.fetcher.clone(), self.request()?)),
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

    /// What is done about a page of a result that is not to be had, or the error to stop with. The job keeps its place:
    /// no position of the stream has expired, only one within the result.
    pub(super) async fn job_remedy(&mut self, lost: Unanswered) -> Result<()> {
        let Unanswered {
            status, error, then, ..
        } = lost;
        self.remedies += 1;
        if self.remedies > REMEDIES_MAX {
            return Err(error.with("remedies_max", REMEDIES_MAX));
        }
        match then {
            Some(Remedy::Split) => return self.split(error),
            Some(Remedy::SplitWindow) => {
                let mark = self.window.job.clone();
                self.split_window(error)?;
                self.remove_job(mark).await;
                return Ok(());
            }
            Some(Remedy::Reset) | None => {}
        }
        let expired = self.start == Start::Resumed && matches!(status, Some(400 | 404 | 410 | 422));
        if (expired || then == Some(Remedy::Reset)) && self.window.next != START {
            warn!(stream = %self.fetcher.stream.name, status, "page token has expired, the result is read again");
            self.window.next = START.to_owned();
            self.start = Start::Settled;
            self.guard = Guard::new(&self.fetcher.source.limits, Seen::default(), [START]);
            return Ok(());
        }
        if matches!(status, Some(400..=499)) && self.forget_late_job() {
            self.doom = Some(error);
            return Ok(());
        }
        Err(error)
    }

    /// Gives up a job that has had its time, because its results cannot be had: each run would ask for them again, for
    /// ever. False if it may still come to something.
    pub(super) fn forget_late_job(&mut self) -> bool {
        let (Some(mut export), Some(mark)) = (self.export.take(), self.window.job.clone()) else {
            return false;
        };
        let late = export.is_late(&mark);
        if late {
            self.drop_job(&mut export);
        }
        self.export = Some(export);
        late
    }

    /// Removes the job of a window that is given up, if it comes from one. Nothing of it is needed any more; should the
    /// run end before that is committed, the next one finds it gone and creates another.
    pub(super) async fn abandon_job(&mut self) {
        let mark = self.window.job.take();
        self.remove_job(mark).await;
    }

    async fn remove_job(&mut self, mark: Option<JobMark>) {
        let ask = self.ask(START);
        if let (Some(export), Some(mark)) = (&mut self.export, mark) {
            export.remove(&ask, &mark).await;
            export.forget();
        }
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
}
