//! The ledger's file: opened, or moved aside and begun anew; read and written in transactions.

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use redb::{Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase as _, StorageError};
use tracing::{error, warn};

use crate::{
    error::{Error, ErrorKind, Result},
    raw::files,
    receive::{
        ReceiptId,
        ledger::{
            answer::Scope,
            channel::Channel,
            event::EventRecord,
            receipt::{Cursor, Listed, Listing, Receipt},
            tables::{self, AnswerRecord, Tables, failed},
        },
    },
};

/// The file in the ledger's folder.
const FILE: &str = "ledger.redb";
/// What a file that could not be read is called afterwards. One is kept: the latest.
const ASIDE: &str = "ledger.redb.unreadable";
/// Pages of the file held in memory, in bytes.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// How the file was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// There was none.
    New,
    /// It was there and every page of it is as it was written.
    Found,
    /// It could not be read: it stands here now, and an empty one in its place. What the spool still holds is put back by
    /// [`Ledger::repair`](super::Ledger::repair); keys and event ids of what was shipped before are forgotten, so a repeat
    /// of those is landed once more (and still makes one row, by the table's key).
    MovedAside(PathBuf),
}

/// What is done with a file that redb does not open.
enum Unopened {
    /// Its contents are not a ledger of this program.
    Unreadable(Error),
    /// It may be a good one: somebody else has it, or the disk says no.
    Out(Error),
}

/// The file, or for a moment none: while it is opened again after a failed write.
pub(super) struct Store {
    folder: PathBuf,
    database: RwLock<Option<Database>>,
    bytes: AtomicU64,
    stamp: AtomicI64,
}

impl Store {
    /// Opens the file in `folder`, making both if they are missing. Every page is checked.
    pub(super) fn open(folder: &Path) -> Result<(Self, Opened)> {
        let store = Self {
            folder: folder.to_owned(),
            database: RwLock::new(None),
            bytes: AtomicU64::new(0),
            stamp: AtomicI64::new(i64::MIN),
        };
        let opened = store.reopen(|_| Ok(()))?;
        Ok((store, opened))
    }

    /// Opens the file again: after an error redb gives up on a database until then.
    ///
    /// It is as it was when it was last durable. `redo` puts back what came after, before anybody reads it.
    pub(super) fn reopen(&self, redo: impl FnOnce(&mut Tables<'_>) -> Result<()>) -> Result<Opened> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // Closed first: the file has one owner.
        drop(database.take());
        files::create_folder(&self.folder).map_err(|error| self.out("make ledger folder", error))?;
        let path = self.folder.join(FILE);
        let there = path.exists();
        let (found, opened) = match self.try_open(&path) {
            Ok(found) if there => (found, Opened::Found),
            Ok(found) => (found, Opened::New),
            Err(Unopened::Out(error)) => return Err(error),
            Err(Unopened::Unreadable(cause)) => {
                let aside = self.folder.join(ASIDE);
                fs::rename(&path, &aside).map_err(|error| self.out("move ledger aside", error))?;
                error!(
                    file = %path.display(),
                    moved_to = %aside.display(),
                    cause = %cause.chain(),
                    "the ledger cannot be read: begun anew, repeats of requests already shipped will be landed again"
                );
                match self.try_open(&path) {
                    Ok(found) => (found, Opened::MovedAside(aside)),
                    Err(Unopened::Out(error) | Unopened::Unreadable(error)) => return Err(error),
                }
            }
        };
        files::sync_folder(&self.folder).map_err(|error| self.out("make ledger durable", error))?;
        let (found, stamp) = found;
        let stamp = self.stamp.load(Ordering::Relaxed).max(stamp);
        let ((), bytes, stamp) = contained(|| transact(&found, true, stamp, redo))?;
        self.bytes.store(bytes, Ordering::Relaxed);
        self.stamp.store(stamp, Ordering::Relaxed);
        *database = Some(found);
        Ok(opened)
    }

    /// Closes the file: nothing is read or written any more.
    pub(super) fn close(&self) {
        drop(
            self.database
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }

    /// Room taken by all entries, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn answer(&self, scope: Scope) -> Result<Option<AnswerRecord>> {
        self.read(|read| tables::answer_in(&read.open_table(tables::ANSWERS).map_err(failed)?, &scope.0))
    }

    pub(super) fn event(&self, name: &[u8; 32]) -> Result<Option<EventRecord>> {
        self.read(|read| tables::event_in(&read.open_table(tables::EVENTS).map_err(failed)?, name))
    }

    pub(super) fn channel(&self, name: &[u8; 32]) -> Result<Option<Channel>> {
        self.read(|read| tables::channel_in(&read.open_table(tables::CHANNELS).map_err(failed)?, name))
    }

    pub(super) fn receipt(&self, id: ReceiptId) -> Result<Option<Receipt>> {
        self.read(|read| tables::receipt_in(&read.open_table(tables::RECEIPTS).map_err(failed)?, id))
    }

    pub(super) fn list(&self, listing: &Listing) -> Result<Listed> {
        let limit = listing.limit.clamp(1, Listing::LIMIT_MAX);
        let from = listing
            .updated_at_gte
            .map_or(i64::MIN, |at| at.timestamp_micros());
        self.read(|read| {
            let order = read.open_table(tables::ORDER).map_err(failed)?;
            let receipts = read.open_table(tables::RECEIPTS).map_err(failed)?;
            let first = listing.after.filter(|after| after.updated_at >= from);
            let first = first.map_or((from, Vec::new()), |after| {
                // The least name after this one: there is none between a name and itself with a zero behind.
                (after.updated_at, [after.id.as_slice(), &[0]].concat())
            });
            let end: &[u8] = &[];
            let places = order.range(
                (tables::OF_RECEIPTS, first.0, first.1.as_slice())..(tables::OF_RECEIPTS + 1, i64::MIN, end),
            );
            let mut listed = Listed {
                receipts: Vec::new(),
                next: None,
            };
            for (looked_at, place) in places.map_err(failed)?.enumerate() {
                if listed.receipts.len() == limit || looked_at == Listing::SCAN_MAX {
                    return Ok(listed);
                }
                let place = place.map_err(failed)?.0;
                let (_, updated_at, id) = place.value();
                let id =
                    <[u8; 16]>::try_from(id).map_err(|_| Error::new(ErrorKind::Corrupt, "list receipts"))?;
                listed.next = Some(Cursor { updated_at, id });
                let receipt = tables::receipt_in(&receipts, ReceiptId::from_bytes(id))?;
                listed
                    .receipts
                    .extend(receipt.filter(|receipt| listing.asks(receipt)));
            }
            listed.next = None;
            Ok(listed)
        })
    }

    /// Runs `work` in one transaction. Not `durable`, it is seen at once but on disk only with the next durable one.
    pub(super) fn write<T>(
        &self,
        durable: bool,
        work: impl FnOnce(&mut Tables<'_>) -> Result<T>,
    ) -> Result<T> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or_else(closed)?;
        let stamp = self.stamp.load(Ordering::Relaxed);
        let (done, bytes, stamp) = contained(|| transact(database, durable, stamp, work))?;
        self.bytes.store(bytes, Ordering::Relaxed);
        self.stamp.store(stamp, Ordering::Relaxed);
        Ok(done)
    }

    fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T>) -> Result<T> {
        // Opening the file again can take seconds: who asks meanwhile is told so and does not wait.
        let database = match self.database.try_read() {
            Ok(database) => database,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return Err(closed()),
        };
        let database = database.as_ref().ok_or_else(closed)?;
        contained(|| work(&database.begin_read().map_err(failed)?))
    }

    fn try_open(&self, path: &Path) -> Result<(Database, i64), Unopened> {
        let open = || {
            let mut builder = Database::builder();
            builder
                .set_cache_size(CACHE_BYTES)
                .set_check_integrity_on_open(true);
            builder.create(path)
        };
        let database = match catch_unwind(AssertUnwindSafe(open)) {
            Ok(Ok(database)) => database,
            Ok(Err(error)) => return Err(self.unopened(error)),
            Err(_) => return Err(Unopened::Unreadable(panicked())),
        };
        let first = |tables: &mut Tables<'_>| match tables.format().map_err(failed)? {
            Some(tables::FORMAT) => Ok(()),
            None => tables.set_format().map_err(failed),
            Some(format) => Err(Error::new(ErrorKind::Corrupt, "open ledger").with("format", format)),
        };
        let prepared = contained(|| {
            transact(&database, true, i64::MIN, first)?;
            last_stamp(&database)
        });
        match prepared {
            Ok(stamp) => Ok((database, stamp)),
            Err(error) if error.kind() == ErrorKind::Corrupt => Err(Unopened::Unreadable(error)),
            Err(error) => Err(Unopened::Out(error)),
        }
    }

    fn unopened(&self, error: DatabaseError) -> Unopened {
        let unreadable = match &error {
            DatabaseError::Storage(StorageError::Corrupted(_)) | DatabaseError::UpgradeRequired(_) => true,
            DatabaseError::Storage(StorageError::Io(error)) => {
                matches!(
                    error.kind(),
                    io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
                )
            }
            _ => false,
        };
        if unreadable {
            return Unopened::Unreadable(failed(error));
        }
        let taken = matches!(
            error,
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch
        );
        Unopened::Out(match taken {
            true => Error::new(ErrorKind::Conflict, "open ledger")
                .with("folder", self.folder.display())
                .with(
                    "hint",
                    "another process serves from this folder: stop it, or give each its own",
                ),
            false => Error::new(ErrorKind::Unavailable, "open ledger")
                .with("folder", self.folder.display())
                .caused_by(error),
        })
    }

    fn out(&self, attempt: &'static str, error: io::Error) -> Error {
        Error::new(ErrorKind::Unavailable, attempt)
            .with("folder", self.folder.display())
            .caused_by(error)
    }
}

/// Runs `work` on the file. redb panics on some contents that it never wrote itself: the process must outlive that.
fn contained<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(panicked()))
}

fn transact<T>(
    database: &Database,
    durable: bool,
    stamp: i64,
    work: impl FnOnce(&mut Tables<'_>) -> Result<T>,
) -> Result<(T, u64, i64)> {
    let mut write = database.begin_write().map_err(failed)?;
    let durability = if durable {
        Durability::Immediate
    } else {
        Durability::None
    };
    if let Err(error) = write.set_durability(durability) {
        // Only a savepoint forbids it, and none is ever made. The transaction is durable then.
        warn!(%error, "transaction of the ledger made durable");
    }
    let mut tables = Tables::open(&write, stamp).map_err(unopenable)?;
    let done = work(&mut tables)?;
    let (bytes, stamp) = tables.close().map_err(failed)?;
    write.commit().map_err(failed)?;
    Ok((done, bytes, stamp))
}

fn last_stamp(database: &Database) -> Result<i64> {
    let read = database.begin_read().map_err(failed)?;
    let order = read.open_table(tables::ORDER).map_err(failed)?;
    let none: &[u8] = &[];
    let mut places = order
        .range((tables::OF_RECEIPTS, i64::MIN, none)..(tables::OF_RECEIPTS + 1, i64::MIN, none))
        .map_err(failed)?;
    match places.next_back() {
        Some(place) => Ok(place.map_err(failed)?.0.value().1),
        None => Ok(i64::MIN),
    }
}

/// A table that is not of the expected types is of another program, which is as good as unreadable.
fn unopenable(error: redb::Error) -> Error {
    match error {
        redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TableIsNotMultimap(_) => {
            Error::new(ErrorKind::Corrupt, "open ledger").caused_by(error)
        }
        error => failed(error),
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "use ledger").with(
        "hint",
        "its file is being opened again after a failed write; the log says why",
    )
}

fn panicked() -> Error {
    Error::new(ErrorKind::Corrupt, "read ledger").with("cause", "its pages contradict each other")
}
