//! What a spool holds when it is opened again.

use std::{collections::HashMap, fmt, io, sync::Arc};

use crate::{
    clock::{Clock, Timestamp},
    error::{Error, ErrorKind, Result},
    receive::{
        Delivery,
        spool::{
            backlog::Sealed,
            folder::Folder,
            progress::{self, Marks},
            segment::{Ended, Head, Scan, SegmentName, Spooled, read, scan},
        },
    },
};

/// Is shown every delivery that is there, without its body, and how to read the whole of it.
pub type Visit<'a> = dyn FnMut(Spooled, &dyn Fn() -> Result<Delivery>) + 'a;

/// Behind the name of a segment that is damaged and whose readable deliveries are in the lake.
pub(crate) const CORRUPT: &str = ".corrupt";

/// Behind the name of a segment that is being written anew without what is in the lake.
pub(crate) const TRIMMED: &str = ".tmp";

/// What was found in a spool when it was opened.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Segments that wait to be shipped.
    pub segments: usize,
    /// Deliveries in them.
    pub deliveries: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Bytes at the end of the last segment that were never finished, and so never acknowledged. They are left out.
    pub torn_bytes: u64,
    /// Segments that are not what was written. What can be read of them is shipped; the file is kept then.
    pub damaged: Vec<Damaged>,
    /// Damaged segments of earlier runs that were kept and wait for somebody to look at them.
    pub kept_aside: usize,
}

/// A segment that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Its file in the folder of the spool; once its readable deliveries are in the lake, with `.corrupt` behind it.
    pub file: String,
    /// Deliveries that could be read.
    pub deliveries: u64,
    /// Bytes that could not.
    pub bytes: u64,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} bytes cannot be read, {} deliveries can",
            self.file, self.bytes, self.deliveries
        )
    }
}

/// What a spool begins with.
pub(crate) struct Start {
    pub(crate) sealed: Vec<Sealed>,
    /// The number of the next segment.
    pub(crate) next: u64,
    /// What its head has to tell.
    pub(crate) ended: Vec<Ended>,
    pub(crate) recovered: Recovered,
}

/// Reads everything in the folder, from front to back.
///
/// # Errors
/// [`ErrorKind::Refused`] if a newer program wrote a segment, before anything is changed; [`ErrorKind::Unavailable`] if
/// the folder cannot be read.
pub(crate) fn recover(folder: &Arc<dyn Folder>, clock: &Clock, visit: &mut Visit<'_>) -> Result<Start> {
    let unread = |source: io::Error| Error::new(ErrorKind::Unavailable, "read spool").caused_by(source);
    let names = folder.names().map_err(unread)?;
    let beside: Vec<(SegmentName, &str)> = names.iter().filter_map(|file| SegmentName::parse(file)).collect();
    let mut segments: Vec<SegmentName> = beside
        .iter()
        .filter(|(_, suffix)| suffix.is_empty())
        .map(|(name, _)| *name)
        .collect();
    segments.sort_unstable();
    let highest = beside.iter().map(|(name, _)| name.number).max();
    let mut start = Start {
        sealed: Vec::new(),
        next: highest.map_or(0, |number| number + 1),
        ended: Vec::new(),
        recovered: Recovered::default(),
    };
    let ends = known_ends(folder, &segments)?;
    for (index, name) in segments.iter().enumerate() {
        let is_last = index + 1 == segments.len();
        recover_segment(
            folder,
            clock,
            name,
            ends.get(&name.number).copied(),
            is_last,
            &mut start,
            visit,
        )?;
    }
    // Only now, because a spool of a newer format is left as it is.
    for (name, suffix) in &beside {
        let stray = match *suffix {
            progress::STAGED | TRIMMED => true,
            progress::SUFFIX => !segments.contains(name),
            CORRUPT => {
                start.recovered.kept_aside += 1;
                false
            }
            _ => false,
        };
        if stray && let Err(error) = folder.remove(&name.beside(suffix)) {
            tracing::warn!(%error, file = name.beside(suffix), "stray file of the spool not removed");
        }
    }
    Ok(start)
}

/// How many bytes count of the segments for which that is written somewhere.
fn known_ends(folder: &Arc<dyn Folder>, segments: &[SegmentName]) -> Result<HashMap<u64, u64>> {
    let (mut told, mut own) = (HashMap::new(), HashMap::new());
    for name in segments {
        let unread = |source| {
            Error::new(ErrorKind::Unavailable, "read spool")
                .with("segment", name.file())
                .caused_by(source)
        };
        let stored = folder.open(&name.file()).map_err(unread)?;
        if let Some(marks) = Marks::read(&**folder, name).map_err(unread)? {
            own.insert(name.number, marks.bytes);
        }
        let Some((head, head_bytes)) = Head::read(&*stored, name)? else {
            continue;
        };
        told.extend(head.ended.iter().map(|ended| (ended.number, ended.bytes)));
        if let Some(frames_bytes) = head.frames_bytes {
            own.insert(name.number, head_bytes.saturating_add(frames_bytes));
        }
    }
    told.extend(own);
    Ok(told)
}

fn recover_segment(
    folder: &Arc<dyn Folder>,
    clock: &Clock,
    name: &SegmentName,
    known_end: Option<u64>,
    is_last: bool,
    start: &mut Start,
    visit: &mut Visit<'_>,
) -> Result<()> {
    let unread = |source| {
        Error::new(ErrorKind::Unavailable, "read spool")
            .with("segment", name.file())
            .caused_by(source)
    };
    let stored = folder.open(&name.file()).map_err(unread)?;
    let bytes = known_end.unwrap_or(u64::MAX);
    let mut oldest: Option<Timestamp> = None;
    let scan = scan(&*stored, name, bytes, &mut |frame, spooled| {
        let fetched_at = spooled.facts.fetched_at;
        oldest = Some(oldest.map_or(fetched_at, |oldest| oldest.min(fetched_at)));
        visit(spooled, &|| read(&*stored, name, frame));
    })?;
    let recovered = &mut start.recovered;
    let damage = damage(&scan, known_end, is_last);
    if damage == 0 && known_end.is_none() {
        recovered.torn_bytes += scan.tail_bytes;
    }
    let sealed = Sealed {
        name: *name,
        bytes: if damage == 0 {
            scan.end
        } else {
            known_end.unwrap_or(0).max(scan.end + scan.tail_bytes)
        },
        since: oldest.unwrap_or_else(|| clock.now()).min(clock.now()),
    };
    if is_last {
        start.ended.push(sealed.ended());
    }
    if scan.frames == 0 && damage == 0 {
        // Given up, or begun and never used.
        if let Err(error) = folder.remove(&name.file()) {
            tracing::warn!(%error, segment = name.file(), "spool segment without deliveries not removed");
        }
        return Ok(());
    }
    if damage > 0 {
        let damaged = Damaged {
            file: name.file(),
            deliveries: scan.frames,
            bytes: damage,
        };
        tracing::error!(
            segment = damaged.file,
            bytes = damage,
            deliveries = scan.frames,
            "spool segment is damaged"
        );
        recovered.damaged.push(damaged);
    }
    recovered.segments += 1;
    recovered.deliveries += scan.frames;
    recovered.bytes += sealed.bytes;
    start.sealed.push(sealed);
    Ok(())
}

/// Bytes that were written and synced, and cannot be read.
///
/// What is unreadable at the end of the last segment was being written when the power went, or the process.
pub(crate) fn damage(scan: &Scan, known_end: Option<u64>, is_last: bool) -> u64 {
    let within: u64 = scan.damage.iter().map(|range| range.end - range.start).sum();
    let missing = known_end.map_or(0, |end| end.saturating_sub(scan.end));
    let behind = if known_end.is_none() && !is_last {
        scan.tail_bytes
    } else {
        0
    };
    within + missing.max(behind)
}
