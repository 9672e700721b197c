//! Questions to the lake: few at once, none for long, and none on the threads that take deliveries.

use std::{sync::Arc, time::Duration};

use object_store::ObjectStore;
use tokio::{
    runtime::{Builder, Runtime},
    sync::Semaphore,
    task::JoinHandle,
    time::timeout,
};

use crate::{
    clock::Clock,
    config::{Project, StreamName},
    error::{Error, ErrorKind, Result},
    ops::Workspace,
    serve::problem::{Problem, code::Code},
};

/// Questions that are answered at once. All of them share one thread, so that they take one core at most.
const AT_ONCE: usize = 4;

/// How long a question waits.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// For its turn, at most.
    turn: Duration,
    /// For its answer from then on, at most.
    answer: Duration,
}

impl Patience {
    const USUAL: Self = Self {
        turn: Duration::from_secs(2),
        answer: Duration::from_secs(10),
    };
}

/// Most memory that one question may take, in bytes.
const MEMORY_BYTES_MAX: u64 = 64 << 20;

/// When to ask again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The lake of the project, to be asked.
pub(crate) struct Lake {
    workspace: Arc<Workspace>,
    turns: Arc<Semaphore>,
    patience: Patience,
    /// Of its own, because planning and judging are work for a core. Always there but while it is dropped.
    runtime: Option<Runtime>,
}

impl Lake {
    /// The lake in `store`. Nothing is read yet.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if no thread can be had for it.
    pub(crate) fn new(project: &Project, store: Arc<dyn ObjectStore>, clock: Clock) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("lake")
            .enable_all()
            .build()
            .map_err(|source| Error::new(ErrorKind::Internal, "start thread").caused_by(source))?;
        let project = Project {
            memory_bytes_max: project.memory_bytes_max.min(MEMORY_BYTES_MAX),
            ..project.clone()
        };
        Ok(Self {
            workspace: Arc::new(Workspace::over(project, store, clock)?),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            patience: Patience::USUAL,
            runtime: Some(runtime),
        })
    }

    /// What `question` finds out about `stream`.
    ///
    /// # Errors
    /// `lake_busy` if it does not answer in time, `unavailable` if it does not answer at all; else whatever `question` says.
    pub(crate) async fn ask<T, Q>(
        &self,
        stream: &StreamName,
        question: impl FnOnce(Arc<Workspace>, StreamName) -> Q,
    ) -> Result<T, Problem>
    where
        T: Send + 'static,
        Q: Future<Output = Result<T>> + Send + 'static,
    {
        let busy = |detail: &'static str| Problem::new(Code::LakeBusy, detail).retry_after(RETRY_AFTER);
        let stopped = || Problem::new(Code::ShuttingDown, "the server is stopping");
        let turn = timeout(self.patience.turn, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| busy("as many questions are asked as are answered at once"))?;
        let turn = turn.map_err(|_| stopped())?;
        let runtime = self.runtime.as_ref().ok_or_else(stopped)?;
        let asked = question(Arc::clone(&self.workspace), stream.clone());
        let mut task = Asked(runtime.spawn(async move {
            let answer = asked.await;
            drop(turn);
            answer
        }));
        match timeout(self.patience.answer, &mut task.0).await {
            Err(_) => Err(busy("the lake takes too long to answer")),
            Ok(Err(_panic)) => Err(Problem::new(Code::Internal, "the log has the cause")),
            Ok(Ok(Ok(answer))) => Ok(answer),
            // A contract file that is being changed: what was checked at the start is not what is there now.
            Ok(Ok(Err(error))) if error.kind() == ErrorKind::Config => {
                tracing::warn!(%stream, error = error.chain(), "files of the project not read");
                let detail = "the files of the project cannot be read now";
                Err(Problem::new(Code::Unavailable, detail))
            }
            Ok(Ok(Err(error))) => Err(error.into()),
        }
    }
}

impl Drop for Lake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Nobody waits for an answer any more.
            runtime.shutdown_background();
        }
    }
}

/// A question that is given up when nobody waits for its answer.
struct Asked<T>(JoinHandle<T>);

impl<T> Drop for Asked<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures::future::join_all;
    use object_store::memory::InMemory;

    use super::*;
    use crate::config::read;

    fn lake() -> Lake {
        let text = "lake: ./lake\nsources:\n  shop:\n    streams:\n      orders: { push: {}, table: { keys: [id] } }\n";
        let dir = tempfile::tempdir().unwrap();
        let project = read::parse(text, dir.path()).unwrap().project;
        Lake::new(&project, Arc::new(InMemory::new()), Clock::system()).unwrap()
    }

    fn code<T>(answer: Result<T, Problem>) -> &'static str {
        answer
            .err()
            .map_or("answered", |problem| problem.code().row().name)
    }

    #[tokio::test]
    async fn questions_are_few_and_bounded_in_time_and_those_given_up_make_room() {
        let mut lake = lake();
        lake.patience = Patience {
            turn: Duration::from_millis(1),
            answer: Duration::from_millis(50),
        };
        let orders = StreamName::parse("shop.orders").unwrap();
        let hangs = || lake.ask(&orders, |_, _| pending::<Result<()>>());
        let answers = join_all((0..AT_ONCE + 3).map(|_| hangs())).await;
        let codes: Vec<_> = answers.into_iter().map(code).collect();
        assert_eq!(codes, ["lake_busy"; AT_ONCE + 3]);
        let all = u32::try_from(AT_ONCE).unwrap();
        assert!(lake.turns.acquire_many(all).await.is_ok());
    }

    #[tokio::test]
    async fn what_the_lake_says_is_told_in_the_words_of_problems() {
        let lake = lake();
        let orders = StreamName::parse("shop.orders").unwrap();
        let answer = lake.ask(&orders, async |_, name: StreamName| Ok(name.to_string()));
        assert_eq!(answer.await.unwrap(), "shop.orders");
        for (kind, expected) in [
            (ErrorKind::Unavailable, "unavailable"),
            (ErrorKind::Config, "unavailable"),
            (ErrorKind::Limit, "limit_reached"),
            (ErrorKind::Corrupt, "corrupt"),
        ] {
            let fails = lake.ask(&orders, async move |_, _| Err::<(), _>(Error::new(kind, "read")));
            assert_eq!(code(fails.await), expected);
        }
    }
}
