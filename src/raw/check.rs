//! Whether a stream's raw zone is what was landed: every entry there and whole, every object byte for byte.

use std::collections::BTreeSet;

use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{Error as StoreError, ObjectStoreExt as _, path::Path};
use sha2::{Digest as _, Sha256};

use crate::{
    error::{ErrorKind, Result},
    raw::{
        BatchNumber,
        expire::Expired,
        frame::hex,
        layout::{self, Key},
        log::{LogEntry, ObjectEntry, RawLog},
        store::lower,
    },
};

/// Objects read at once.
const OBJECTS_IN_FLIGHT_MAX: usize = 8;

/// Flaws that are told one by one; all are counted.
pub const FLAWS_KEPT_MAX: usize = 100;

/// What a look at everything landed for a stream found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Log entries read.
    pub entries: u64,
    /// Batches whose objects have expired, and are not looked for.
    pub expired: u64,
    /// Objects read.
    pub objects: u64,
    /// Their bytes as stored.
    pub bytes: u64,
    /// Entries and objects that are not what was landed.
    pub flawed: u64,
    /// Whether entries are missing or cannot be read: then the log cannot be replayed.
    pub has_holes: bool,
    /// What is wrong with them, the first [`FLAWS_KEPT_MAX`].
    pub flaws: Vec<Flaw>,
}

/// One file of the raw zone that is not what was landed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Its key, relative to the lake.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Checked {
    fn add(&mut self, key: impl ToString, reason: impl Into<String>) {
        self.flawed += 1;
        if self.flaws.len() < FLAWS_KEPT_MAX {
            self.flaws.push(Flaw {
                key: key.to_string(),
                reason: reason.into(),
            });
        }
    }
}

impl RawLog {
    /// Reads every entry and every object that one names, and holds them against their checksums.
    ///
    /// The numbers come from a listing, so that a gap does not pass for the end of the log. What was landed meanwhile may
    /// be seen or not.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the store does not answer, [`ErrorKind::Refused`] for entries of a newer format. What
    /// is damaged or gone is no error but a flaw.
    pub async fn check(&self) -> Result<Checked> {
        let mut checked = Checked::default();
        let expired = Expired::of(self).await?;
        let numbers = self.numbers().await?;
        let mut next = BatchNumber::FIRST.get();
        for number in numbers {
            let missing = (next..number.get()).take(FLAWS_KEPT_MAX);
            for number in missing.clone() {
                let key = layout::entry(&self.stream, BatchNumber::new(number)?);
                checked.add(key, "the log entry is missing");
            }
            checked.has_holes |= next < number.get();
            // One stray entry far ahead is a gap as long as it is far.
            checked.flawed += (number.get() - next) as u64 - missing.count() as u64;
            next = number.get() + 1;
            match self.entry(number).await {
                Ok(Some(entry)) => {
                    checked.entries += 1;
                    if expired.contains(number) {
                        checked.expired += 1;
                        continue;
                    }
                    self.check_objects(&entry, &mut checked).await?;
                }
                Ok(None) => {
                    checked.has_holes = true;
                    checked.add(layout::entry(&self.stream, number), "the log entry is missing");
                }
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    checked.has_holes = true;
                    checked.add(layout::entry(&self.stream, number), error.chain());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(checked)
    }

    /// The numbers of the entries there are, in order.
    async fn numbers(&self) -> Result<BTreeSet<BatchNumber>> {
        let raw = layout::raw(&self.stream);
        let log = layout::log(&self.stream);
        let mut listed = self.store.list(Some(&log));
        let mut numbers = BTreeSet::new();
        while let Some(meta) = listed
            .try_next()
            .await
            .map_err(|error| lower(error, "list log entries", &raw))?
        {
            if let Some(Key::Entry { number, .. }) = Key::parse(&meta.location) {
                numbers.insert(number);
            }
        }
        Ok(numbers)
    }

    async fn check_objects(&self, entry: &LogEntry, checked: &mut Checked) -> Result<()> {
        let mut objects = futures::stream::iter(entry.objects.clone())
            .map(|object| async move {
                let flaw = self.flaw_of(&object).await?;
                Ok::<_, crate::error::Error>((object, flaw))
            })
            .buffered(OBJECTS_IN_FLIGHT_MAX);
        while let Some((object, flaw)) = objects.try_next().await? {
            checked.objects += 1;
            checked.bytes += object.bytes;
            if let Some(reason) = flaw {
                checked.add(&object.path, reason);
            }
        }
        Ok(())
    }

    /// What is wrong with `object`, `None` if nothing is.
    async fn flaw_of(&self, object: &ObjectEntry) -> Result<Option<String>> {
        let key = Path::from(object.path.as_str());
        let got = match self.store.get(&key).await {
            Ok(got) => got,
            Err(StoreError::NotFound { .. }) => return Ok(Some("the object is gone".to_owned())),
            Err(error) => return Err(lower(error, "read raw object", &key)),
        };
        let size = got.meta.size;
        if size != object.bytes {
            let reason = format!("the object has {size} bytes instead of {}", object.bytes);
            return Ok(Some(reason));
        }
        let mut digest = Sha256::new();
        let mut pieces = got.into_stream();
        while let Some(piece) = pieces
            .try_next()
            .await
            .map_err(|error| lower(error, "read raw object", &key))?
        {
            digest.update(&piece);
        }
        let same = hex(&digest.finalize()) == object.sha256;
        Ok((!same).then(|| "the object is not what was written: its SHA-256 differs".to_owned()))
    }
}
