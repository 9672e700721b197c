//! `--lineage FILE`: what was read and written, run by run, for a catalogue of lineage.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use object_store::path::Path as Key;
use tracing::warn;

use crate::{
    clock::Clock,
    config::{Stream, StreamName, text::Vars},
    contract::Contract,
    error::{Error, ErrorKind, Result},
    ops::{Workspace, contract, extract::Extracted, transform::Transformed},
    raw::{layout, log::RawLog},
    report::lineage::{Dataset, Run, Turn, line},
    table::AppId,
};

/// A file that events of OpenLineage are added to, one a line.
#[derive(Clone, Debug)]
pub struct Lineage {
    file: Arc<File>,
    /// Whether a line may have been written in part.
    broken: Arc<AtomicBool>,
}

impl Lineage {
    /// Opens `file`, or makes it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it cannot be written to.
    pub fn open(file: &Path) -> Result<Self> {
        if fs::metadata(file).is_ok_and(|found| !found.is_file()) {
            // A pipe that nobody reads would hold the run.
            return Err(Error::new(ErrorKind::Config, "open lineage file")
                .with("file", file.display())
                .with("problem", "it is no regular file"));
        }
        let opened = OpenOptions::new().create(true).append(true).open(file);
        let opened = opened.map_err(|source| {
            Error::new(ErrorKind::Config, "open lineage file")
                .with("file", file.display())
                .with(
                    "hint",
                    "--lineage needs a file in a folder that can be written to",
                )
                .caused_by(source)
        })?;
        Ok(Self {
            file: Arc::new(opened),
            broken: Arc::default(),
        })
    }

    /// Adds one line. Data come first: what cannot be told any more is a warning.
    fn add(&self, line: &str) {
        // In one piece, so that lines of processes that share the file do not mix.
        let begin = if self.broken.swap(false, Ordering::Relaxed) {
            "\n"
        } else {
            ""
        };
        if let Err(error) = (&*self.file).write_all(format!("{begin}{line}").as_bytes()) {
            self.broken.store(true, Ordering::Relaxed);
            warn!(%error, "lineage not written");
        }
    }
}

/// A run that was begun. If it is dropped before it has ended, somebody stopped it, and that is told.
struct Open<'a> {
    lineage: &'a Lineage,
    run: &'a Run,
    sets: (&'a [Dataset], &'a [Dataset]),
    clock: &'a Clock,
    has_ended: bool,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            let (inputs, outputs) = self.sets;
            let line = line(self.run, &Turn::Abort, self.clock.now(), inputs, outputs);
            self.lineage.add(&line);
        }
    }
}

/// What a run has done, as far as lineage tells it.
pub(super) trait Figures {
    /// What kind of job it is, in the words of the standard, and the end of its name.
    const JOB: (&'static str, &'static str);
    /// What it read.
    fn read(&self) -> u64;
    /// What it wrote to its first output, and in bytes if they were counted.
    fn written(&self) -> (u64, Option<u64>);
    /// What it set aside.
    fn aside(&self) -> Option<u64>;
}

impl Figures for Extracted {
    const JOB: (&'static str, &'static str) = ("EXTRACT", "extract");

    fn read(&self) -> u64 {
        self.counts.records
    }

    fn written(&self) -> (u64, Option<u64>) {
        (self.counts.records, Some(self.counts.bytes))
    }

    fn aside(&self) -> Option<u64> {
        None
    }
}

impl Figures for Transformed {
    const JOB: (&'static str, &'static str) = ("TRANSFORM", "transform");

    fn read(&self) -> u64 {
        self.read
    }

    fn written(&self) -> (u64, Option<u64>) {
        (self.merged, None)
    }

    fn aside(&self) -> Option<u64> {
        Some(self.quarantined)
    }
}

/// Does `work` of the stream `name`, and tells its beginning and its end if lineage is wanted.
pub(super) async fn told<T: Figures>(
    workspace: &Workspace,
    name: &StreamName,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let Some(lineage) = &workspace.lineage else {
        return work.await;
    };
    let Ok((_, stream)) = workspace.project.stream(name) else {
        return work.await;
    };
    let mut run = Run {
        id: uuid::Uuid::now_v7().to_string(),
        namespace: workspace.project.lake.url.to_string(),
        job: format!("{name}.{}", T::JOB.1),
        job_type: T::JOB.0,
        tags: vec![("config", workspace.project.config_hash.clone())],
    };
    let (inputs, outputs) = datasets::<T>(workspace, stream);
    let now = || workspace.clock.now();
    lineage.add(&line(&run, &Turn::Start, now(), &inputs, &outputs));
    let result = {
        let mut open = Open {
            lineage,
            run: &run,
            sets: (&inputs, &outputs),
            clock: &workspace.clock,
            has_ended: false,
        };
        let result = work.await;
        open.has_ended = true;
        result
    };
    let turn = match &result {
        Ok(_) => Turn::Complete,
        Err(error) => Turn::Fail(error.chain()),
    };
    // Read afterwards: a load may have drafted it, or made a new version of it.
    let contracts = contract::read_all(stream).ok().flatten();
    run.tags.extend(
        contracts
            .iter()
            .map(|contracts| ("contract", contracts.versions())),
    );
    let union = contracts.as_ref().map(|contracts| &contracts.union);
    let found = found(workspace, stream, union, (inputs, outputs), &result).await;
    let (inputs, outputs) = found;
    lineage.add(&line(&run, &turn, now(), &inputs, &outputs));
    result
}

/// What the job reads and writes, by name.
fn datasets<T: Figures>(workspace: &Workspace, stream: &Stream) -> (Vec<Dataset>, Vec<Dataset>) {
    let stored = |key: Key| stored(workspace, &key);
    let raw = stored(layout::raw(&stream.name));
    if T::JOB.0 == Extracted::JOB.0 {
        return (vec![api(workspace, stream)], vec![raw]);
    }
    let name = &stream.name;
    let mut outputs = vec![stored(layout::table(name)), stored(layout::quarantine(name))];
    let lists = &stream.table.explode;
    outputs.extend(lists.iter().map(|list| stored(layout::child(name, &list.name()))));
    (vec![raw], outputs)
}

/// The same with what the run did, and with what they are now.
async fn found<T: Figures>(
    workspace: &Workspace,
    stream: &Stream,
    contract: Option<&Contract>,
    (mut inputs, mut outputs): (Vec<Dataset>, Vec<Dataset>),
    result: &Result<T>,
) -> (Vec<Dataset>, Vec<Dataset>) {
    if let Ok(done) = result {
        inputs.iter_mut().for_each(|input| input.rows = Some(done.read()));
        let (rows, bytes) = done.written();
        if let Some(first) = outputs.first_mut() {
            (first.rows, first.bytes) = (Some(rows), bytes);
        }
        if let Some(aside) = outputs.get_mut(1) {
            aside.rows = done.aside();
        }
    }
    // What cannot be read is left out: the run itself has its own words for that.
    if T::JOB.0 == Extracted::JOB.0 {
        let log = RawLog {
            store: Arc::clone(&workspace.store),
            stream: stream.name.clone(),
        };
        let head = log.head().await.ok().flatten();
        outputs
            .iter_mut()
            .for_each(|raw| raw.version = head.as_ref().map(|head| head.number.to_string()));
        return (inputs, outputs);
    }
    let table = workspace.tables.open(&layout::table(&stream.name)).await;
    if let (Ok(Some(table)), Some(main)) = (table, outputs.first_mut()) {
        main.version = Some(table.version().to_string());
        main.schema = table.schema().ok();
        main.from = contract.map(places).unwrap_or_default();
        let app = AppId::new(&stream.name, AppId::GENERATION);
        let watermark = table.watermark(&app).await.ok().flatten();
        inputs
            .iter_mut()
            .for_each(|raw| raw.version = watermark.map(|batch| batch.to_string()));
    }
    (inputs, outputs)
}

/// Where in a record each column comes from.
fn places(contract: &Contract) -> Vec<(String, String)> {
    contract
        .columns
        .iter()
        .map(|column| (column.name.clone(), column.path.join(".")))
        .collect()
}

/// A place of the API, without what its user may have written in front of the host.
fn api(workspace: &Workspace, stream: &Stream) -> Dataset {
    let source = workspace.project.stream(&stream.name).map(|(source, _)| source);
    let base = source.as_ref().map(|source| &source.base_url).ok();
    // A path with references or templates in it is another one each time, or not for others to know.
    let path = Some(&stream.request.path).filter(|path| !path.is_template() && !path.is_reference());
    let path = path.and_then(|path| path.render(&Vars::default()).ok());
    let path = path.unwrap_or_else(|| stream.name.stream.to_string());
    let folder = base.map_or("", |base| base.path().trim_end_matches('/'));
    Dataset {
        namespace: base.map_or_else(String::new, |base| base.origin().ascii_serialization()),
        name: format!("{folder}/{}", path.trim_start_matches('/')),
        ..Dataset::default()
    }
}

/// A place of the lake, named as the standard names files and objects.
fn stored(workspace: &Workspace, key: &Key) -> Dataset {
    let url = &workspace.project.lake.url;
    let root = url.path().trim_end_matches('/');
    let (namespace, name) = match url.host_str() {
        Some(host) => {
            let root = root.trim_start_matches('/');
            let prefix = if root.is_empty() {
                String::new()
            } else {
                format!("{root}/")
            };
            (format!("{}://{host}", url.scheme()), format!("{prefix}{key}"))
        }
        None => (url.scheme().to_owned(), format!("{root}/{key}")),
    };
    Dataset {
        namespace,
        name,
        ..Dataset::default()
    }
}
