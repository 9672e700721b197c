//! The slices of a stream: values of the project file and records of parent streams, read from their raw logs.
//!
//! Reading parents from raw asks the API nothing twice, and gives every run of a pass the same slices in the same order.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::TryStreamExt as _;
use object_store::ObjectStore;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tracing::warn;

use crate::{
    config::{
        Source, Stream, StreamName,
        slice::{Combine, Parent, ParentRecords, SliceBy},
        text::{Text, Vars},
    },
    error::{Error, ErrorKind, Result},
    extract::{reading::section_of, request::Ask, sweep::Slices},
    format::{self, Defect, Piece, part, pushed},
    json::{self, Found, JsonPath},
    raw::{
        BatchNumber, Bookmark,
        expire::Expired,
        letter,
        log::{LogEntry, RawLog},
        read::{PageRead, RawPage, read_object},
    },
};

/// Values read ahead of the slices at work.
const AHEAD: usize = 64;

/// Most raw batches of a parent whose records are tried with patience that one pass reads: it ends, and marks them as
/// seen, however many there are.
const PATIENT_BATCHES_MAX: i64 = 1000;

/// Most values of a list, or of a parent that is multiplied with another: these are held in memory.
const INNER_MAX: usize = 100_000;

type Values = Map<String, Value>;

/// The slices of `stream` for the pass `bookmark` is in, or for a new one.
///
/// # Errors
/// [`ErrorKind::Refused`] if a parent has nothing landed yet; whatever the store says about its raw log.
pub async fn slices(
    store: &Arc<dyn ObjectStore>,
    source: &Source,
    stream: &Stream,
    bookmark: &Bookmark,
) -> Result<Slices> {
    let (by, combine) = match &stream.slices {
        Some(slicing) => (slicing.by.as_slice(), slicing.combine),
        None => (&[][..], Combine::Product),
    };
    let source = &source.seen_by(stream);
    let mut parents = BTreeMap::new();
    let mut reads = Vec::new();
    for by in by {
        reads.push(match by {
            SliceBy::List { name, values } => Read::List(listed(source, name, values)?),
            SliceBy::Parent(parent) => {
                let read = ParentRead::open(store, source, stream, parent, bookmark).await?;
                if let Some(range) = read.range {
                    parents.insert(parent.stream.to_string(), range);
                }
                Read::Parent(Box::new(read))
            }
        });
    }
    let (sender, values) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let produced = match combine {
            Combine::Product => multiplied(reads, &sender).await,
            Combine::Union => in_turn(reads, &sender).await,
        };
        if let Err(error) = produced {
            // The receiver may be gone; then nobody wants to know.
            let _ = sender.send(Err(error)).await;
        }
    });
    Ok(Slices { values, parents })
}

enum Read {
    List(Vec<Values>),
    Parent(Box<ParentRead>),
}

/// A parent's records in a range of its raw batches.
struct ParentRead {
    log: RawLog,
    stream: Stream,
    parent: Parent,
    config: Vars,
    /// First and last; the first may be the one behind the last.
    range: Option<(BatchNumber, BatchNumber)>,
    /// With patience.
    strict: Option<Arc<Strict>>,
}

/// How a parent is read whose records must not be passed over: one that lacks a value, and a page that cannot be had, are
/// named by their place.
struct Strict {
    /// The places that are named already, if the pass has slices that are done. Their numbers hold only as long as no
    /// other page turns out to be lost.
    named: Option<BTreeSet<String>>,
}

impl Strict {
    fn of(bookmark: &Bookmark) -> Self {
        let is_numbered = bookmark.pass.as_ref().is_some_and(|pass| !pass.done.is_empty());
        let place = |values: &Values| Some(values.get(letter::UNNAMED)?.as_str()?.to_owned());
        Self {
            named: is_numbered.then(|| bookmark.set_aside().filter_map(place).collect()),
        }
    }
}

fn listed(source: &Source, name: &str, values: &[Text]) -> Result<Vec<Values>> {
    let vars = Ask::default().vars(source);
    let mut all = Vec::new();
    for text in values {
        match text.render_json(&vars)? {
            // A template may name a whole list.
            Value::Array(items) => all.extend(items),
            value => all.push(value),
        }
    }
    let named = |value: Value| Map::from_iter([(name.to_owned(), value)]);
    Ok(all.into_iter().map(named).collect())
}

/// Sends the product of all reads; the first is never held whole.
async fn multiplied(reads: Vec<Read>, sender: &mpsc::Sender<Result<Values>>) -> Result<()> {
    let mut reads = reads.into_iter();
    let Some(outer) = reads.next() else {
        return Ok(());
    };
    let mut inner = vec![Map::new()];
    for read in reads {
        let values = match read {
            Read::List(values) => values,
            Read::Parent(parent) => parent.collect().await?,
        };
        if inner.len().saturating_mul(values.len()) > INNER_MAX {
            return Err(Error::new(ErrorKind::Limit, "multiply slices")
                .with("inner_max", INNER_MAX)
                .with("hint", "put the longest list or parent first under slices.by"));
        }
        inner = inner
            .iter()
            .flat_map(|one| values.iter().map(|other| joined(one, other)))
            .collect();
    }
    outer.send(&inner, sender).await
}

/// Sends the values of one read after those of another. A slice that comes twice is passed over later on.
async fn in_turn(reads: Vec<Read>, sender: &mpsc::Sender<Result<Values>>) -> Result<()> {
    for read in reads {
        read.send(&[Map::new()], sender).await?;
    }
    Ok(())
}

impl Read {
    /// Sends its values, each with every one of `inner`.
    async fn send(&self, inner: &[Values], sender: &mpsc::Sender<Result<Values>>) -> Result<()> {
        match self {
            Self::List(values) => {
                for value in values {
                    // The receiver may be gone; then nobody wants to know.
                    if send(value, inner, sender).await.is_err() {
                        break;
                    }
                }
                Ok(())
            }
            Self::Parent(parent) => parent.send(inner, sender).await,
        }
    }
}

/// The receiver is gone.
struct Closed;

async fn send(
    outer: &Values,
    inner: &[Values],
    sender: &mpsc::Sender<Result<Values>>,
) -> std::result::Result<(), Closed> {
    for values in inner {
        sender.send(Ok(joined(outer, values))).await.map_err(|_| Closed)?;
    }
    Ok(())
}

fn joined(one: &Values, other: &Values) -> Values {
    let pairs = one.iter().chain(other);
    pairs.map(|(name, value)| (name.clone(), value.clone())).collect()
}

impl ParentRead {
    async fn open(
        store: &Arc<dyn ObjectStore>,
        source: &Source,
        stream: &Stream,
        parent: &Parent,
        bookmark: &Bookmark,
    ) -> Result<Self> {
        let name = StreamName {
            source: source.name.clone(),
            stream: parent.stream.clone(),
        };
        let found = source.streams.iter().find(|known| known.name == name);
        let parent_stream = found.ok_or_else(|| {
            Error::new(ErrorKind::Config, "find parent stream")
                .with("stream", &stream.name)
                .with("parent", &name)
        })?;
        let log = RawLog {
            store: Arc::clone(store),
            stream: name.clone(),
        };
        let is_patient = stream
            .slices
            .as_ref()
            .is_some_and(|slices| slices.patience.is_some());
        let known = bookmark
            .pass
            .as_ref()
            .and_then(|pass| pass.parents.get(parent.stream.as_str()));
        let (mut first, mut last) = match known {
            Some(range) => *range,
            None => {
                let head = log.head().await?.ok_or_else(|| {
                    Error::new(ErrorKind::Refused, "read parent stream")
                        .with("stream", &stream.name)
                        .with("parent", &name)
                        .with("hint", "its records are the slices: extract it first")
                })?;
                let first = first_batch(&log, parent_stream, parent, &head, bookmark).await?;
                (first, head.number)
            }
        };
        let mut passed_over = false;
        if is_patient {
            if let Some(gone) = Expired::of(&log).await?.last_in(&(first..=last)) {
                warn!(stream = %stream.name, parent = %name, %first, last = %gone,
                    "batches have expired before they were read: what is in them is not asked for");
                (first, passed_over) = (gone.next(), true);
            }
            let most = BatchNumber::new(first.get().saturating_add(PATIENT_BATCHES_MAX - 1))?;
            last = last.min(most);
        }
        let range = (first <= last || passed_over || known.is_some()).then_some((first, last));
        Ok(Self {
            log,
            stream: parent_stream.clone(),
            parent: parent.clone(),
            config: Ask::default().vars(source),
            range,
            strict: is_patient.then(|| Arc::new(Strict::of(bookmark))),
        })
    }

    /// All of its values, for a parent that is multiplied with another.
    async fn collect(self) -> Result<Vec<Values>> {
        let (sender, mut receiver) = mpsc::channel(AHEAD);
        let read = async move { self.send(&[Map::new()], &sender).await };
        let collected = async {
            let mut all = Vec::new();
            // Ends with the parent's records, or at `INNER_MAX`.
            while let Some(values) = receiver.recv().await {
                all.push(values?);
                if all.len() > INNER_MAX {
                    return Err(
                        Error::new(ErrorKind::Limit, "read parent stream").with("inner_max", INNER_MAX)
                    );
                }
            }
            Ok(all)
        };
        let (read, all) = tokio::join!(read, collected);
        read.and(all)
    }

    /// Sends the values of every record, in raw order, each with every one of `inner`.
    async fn send(&self, inner: &[Values], sender: &mpsc::Sender<Result<Values>>) -> Result<()> {
        let Some((first, last)) = self.range.filter(|(first, last)| first <= last) else {
            return Ok(());
        };
        let expired = Expired::of(&self.log).await?;
        expired.refuse(&self.log, &(first..=last), "read parent stream")?;
        let mut group = Vec::new();
        let mut entries = self.log.entries(first..=last);
        while let Some(entry) = entries.try_next().await? {
            for object in 0..entry.objects.len() {
                let pages = read_object(self.log.store.as_ref(), &entry, object).await?;
                let (stream, parent, config) =
                    (self.stream.clone(), self.parent.clone(), self.config.clone());
                let strict = self.strict.clone();
                // Decompressing and scanning is work for a thread that may block.
                let read = tokio::task::spawn_blocking(move || {
                    let mut all = Vec::new();
                    for page in pages {
                        values_of(&stream, &parent, &config, page, strict.as_deref(), &mut all)?;
                    }
                    Ok::<_, Error>(all)
                });
                let read = read.await.map_err(|cause| {
                    Error::new(ErrorKind::Internal, "read parent stream").caused_by(cause)
                })?;
                for values in read.map_err(|error| error.with("parent", &self.stream.name))? {
                    group.push(values);
                    if group.len() >= self.parent.group.max(1) as usize
                        && send(&self.grouped(&mut group), inner, sender).await.is_err()
                    {
                        return Ok(());
                    }
                }
            }
        }
        if !group.is_empty() {
            // The receiver may be gone; then nobody wants to know.
            let _ = send(&self.grouped(&mut group), inner, sender).await;
        }
        Ok(())
    }

    /// One slice of the values collected so far.
    fn grouped(&self, group: &mut Vec<Values>) -> Values {
        if self.parent.group <= 1 {
            return group.pop().unwrap_or_default();
        }
        let of = |name: &str| {
            group
                .iter()
                .filter_map(|values| values.get(name))
                .cloned()
                .collect()
        };
        let slice = self
            .parent
            .names()
            .map(|name| (name.to_owned(), of(name)))
            .collect();
        group.clear();
        slice
    }
}

/// The first raw batch of a parent whose records are slices of a new pass.
async fn first_batch(
    log: &RawLog,
    stream: &Stream,
    parent: &Parent,
    head: &LogEntry,
    bookmark: &Bookmark,
) -> Result<BatchNumber> {
    match parent.records {
        ParentRecords::New => Ok(bookmark
            .parents
            .get(parent.stream.as_str())
            .map_or(BatchNumber::FIRST, |last| last.next())),
        ParentRecords::All if stream.incremental.is_some() => Ok(BatchNumber::FIRST),
        ParentRecords::All => Ok(log.last_pass(head).await?.unwrap_or(BatchNumber::FIRST)),
    }
}

/// Adds the values of every record of a page that has them all. Of those that do not, or of which nobody can tell whether
/// they are wanted, and of a page that cannot be read or had, it adds the place if it is to be `strict`.
fn values_of(
    stream: &Stream,
    parent: &Parent,
    config: &Vars,
    page: PageRead,
    strict: Option<&Strict>,
    all: &mut Vec<Values>,
) -> Result<()> {
    let unnamed = |place: String| Map::from_iter([(letter::UNNAMED.to_owned(), Value::String(place))]);
    let page = match page {
        PageRead::Page(page) => page,
        PageRead::Corrupt(lost) => {
            let place = letter::position(lost.batch, lost.pages.start, None);
            let counts = |strict: &Strict| strict.named.as_ref().is_none_or(|named| named.contains(&place));
            if strict.is_some_and(counts) {
                all.push(unnamed(place));
                return Ok(());
            }
            return Err(Error::new(ErrorKind::Corrupt, "read page of parent stream")
                .with("batch", lost.batch)
                .with("reason", lost.reason));
        }
    };
    let at = |record: Option<usize>| unnamed(letter::position(page.batch, page.page, record));
    let (mut failure, mut record, before) = (None, 0, all.len());
    let visit = &mut |piece: Piece<'_>| {
        match record_values(stream, parent, config, &page, piece.bytes(&page.body)) {
            Ok(Wanted::Values(values)) => all.push(values),
            Ok(Wanted::Lacking) if strict.is_some() => all.push(at(Some(record))),
            Ok(Wanted::Lacking | Wanted::Unwanted) => {}
            // A condition that fails on a record of an odd shape stands in nobody else's way.
            Err(_) if strict.is_some() => all.push(at(Some(record))),
            Err(error) => failure = Some(error),
        }
        record += 1;
    };
    // A page without readable records has no slices; the transform reports it.
    if !matches!(page_records(stream, &page, visit), Ok(Found::Values(_))) && strict.is_some() {
        all.truncate(before);
        all.push(at(None));
    }
    failure.map_or(Ok(()), Err)
}

/// Calls `visit` with the records of a page, however it came into the stream.
///
/// # Errors
/// The first [`Defect`] of the page.
pub fn page_records(
    stream: &Stream,
    page: &RawPage,
    visit: &mut dyn FnMut(Piece<'_>),
) -> std::result::Result<Found, Defect> {
    let limits = &format::Limits::DEFAULT;
    let facts = page.facts.as_ref();
    if let Some(facts) = facts.filter(|facts| facts.is_pushed_records()) {
        return pushed::read(facts.header("content-type"), &page.body, limits, visit);
    }
    let hydrate = stream
        .hydrate
        .as_ref()
        .filter(|_| facts.is_some_and(|facts| facts.hydrated));
    let paths = hydrate.map_or(&stream.records, |hydrate| &hydrate.records);
    match facts.and_then(|facts| facts.part.as_ref()) {
        None => format::records(&stream.format, paths, &page.body, limits, visit),
        Some(part) => part::section(&stream.format, paths, &page.body, &section_of(part), visit),
    }
}

/// What a record of a parent is to the slices.
enum Wanted {
    Values(Values),
    /// It has not all of the values.
    Lacking,
    /// It is not one of those that are asked about.
    Unwanted,
}

fn record_values(
    stream: &Stream,
    parent: &Parent,
    config: &Vars,
    page: &RawPage,
    record: &[u8],
) -> Result<Wanted> {
    if let Some(only) = &parent.only {
        let value: Value = serde_json::from_slice(record).unwrap_or_default();
        let vars = config.clone().with("parent", &value);
        if !only.is_true(&vars)? {
            return Ok(Wanted::Unwanted);
        }
    }
    let found = |path: &JsonPath| {
        let own = path.first(record).ok().flatten().and_then(value);
        own.or_else(|| included(stream, page, &path.to_string()))
    };
    let mut values = Map::new();
    for (name, path) in &parent.values {
        let Some(value) = found(path) else {
            return Ok(Wanted::Lacking);
        };
        values.insert(name.clone(), value);
    }
    for (name, path) in &parent.optional {
        values.insert(name.clone(), found(path).unwrap_or_default());
    }
    Ok(Wanted::Values(values))
}

/// A value the record has from the slice it was asked for.
fn included(stream: &Stream, page: &RawPage, path: &str) -> Option<Value> {
    let name = path.strip_prefix("$.")?;
    let include = &stream.slices.as_ref()?.include;
    include.iter().find(|known| *known == name)?;
    page.facts.as_ref()?.slice.as_ref()?.get(name).cloned()
}

/// A text, a number or a boolean; a number that would not come out as it went in is kept as text.
fn value(json: &[u8]) -> Option<Value> {
    match json.first()? {
        b'"' => json::text(json).map(|text| Value::String(text.into_owned())),
        b'-' | b'0'..=b'9' => {
            let text = std::str::from_utf8(json).ok()?;
            let number: Value = serde_json::from_str(text).ok()?;
            let written = number.to_string();
            Some(if written.as_str() == text {
                number
            } else {
                Value::String(text.to_owned())
            })
        }
        b't' => Some(Value::Bool(true)),
        b'f' => Some(Value::Bool(false)),
        _ => None,
    }
}
