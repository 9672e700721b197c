//! What the shipper does with a whole segment: read what is in it, write it anew without what has landed, remove it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, IoSlice},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    config::StreamName,
    error::{Error, ErrorKind, Result},
    failpoint,
    receive::spool::{
        backlog::Sealed,
        folder::{Folder, Growing, Stored},
        progress::{self, Progress},
        recovery::{CORRUPT, TRIMMED, damage},
        segment::{Frame, Head, SegmentName, scan},
    },
};

/// Copied at once.
const COPY_BYTES: usize = 256 << 10;

/// Where the deliveries of a segment are, by stream, and how far it has come.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Those whose part is not known to stand in the lake.
    pub(crate) parts: BTreeMap<StreamName, Arc<Vec<Frame>>>,
    pub(crate) progress: Arc<Mutex<Progress>>,
    /// Bytes that cannot be read.
    pub(crate) damage: u64,
}

/// Reads where everything is in a segment; none if it is gone, because an earlier call came that far.
pub(crate) fn load(
    folder: &Arc<dyn Folder>,
    sealed: &Sealed,
    progress: Option<Arc<Mutex<Progress>>>,
) -> Result<Option<Loaded>> {
    let name = &sealed.name;
    let stored = match folder.open(&name.file()) {
        Ok(stored) => stored,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed("read spool segment", name, source)),
    };
    let mut parts: BTreeMap<StreamName, Vec<Frame>> = BTreeMap::new();
    let bytes = bytes_of(&*stored, sealed)?;
    let scan = scan(&*stored, name, bytes, &mut |frame, spooled| {
        parts.entry(spooled.stream).or_default().push(frame);
    })?;
    let progress = match progress {
        Some(progress) => progress,
        None => {
            let progress = Progress::open(Arc::clone(folder), *name, sealed.bytes)
                .map_err(|source| failed("note spool progress", name, source))?;
            Arc::new(Mutex::new(progress))
        }
    };
    {
        let progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
        parts.retain(|stream, _| !progress.marks().has_landed(stream));
    }
    Ok(Some(Loaded {
        parts: parts
            .into_iter()
            .map(|(stream, frames)| (stream, Arc::new(frames)))
            .collect(),
        progress,
        damage: damage(&scan, Some(bytes), false),
    }))
}

/// How many bytes count: the segment may have been written anew by a call that nobody waited for.
fn bytes_of(stored: &dyn Stored, sealed: &Sealed) -> Result<u64> {
    let own = Head::read(stored, &sealed.name)?
        .and_then(|(head, head_bytes)| Some(head_bytes + head.frames_bytes?));
    Ok(own.unwrap_or(sealed.bytes))
}

/// Writes a segment anew with nothing but the parts of the streams `left`, under the same name, and returns its new length.
///
/// What has been noted about its streams goes on to hold.
pub(crate) fn trim(folder: &Arc<dyn Folder>, sealed: &Sealed, left: &BTreeSet<StreamName>) -> Result<u64> {
    let name = &sealed.name;
    let error = |source| failed("trim spool segment", name, source);
    let staged = name.beside(TRIMMED);
    match folder.remove(&staged) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(error(source)),
        _ => {}
    }
    let stored = folder.open(&name.file()).map_err(error)?;
    let bytes = bytes_of(&*stored, sealed)?;
    let mut frames = Vec::new();
    let scan = scan(&*stored, name, bytes, &mut |frame, spooled| {
        if left.contains(&spooled.stream) {
            frames.push(frame);
        }
    })?;
    let is_damaged = damage(&scan, Some(bytes), false) > 0;
    let Some(head) = scan.head.filter(|_| !is_damaged) else {
        // All of it is kept for somebody to look at.
        return Err(Error::new(ErrorKind::Corrupt, "trim spool segment").with("segment", name.file()));
    };
    let frames_bytes = frames.iter().map(Frame::bytes).sum();
    let mut file = folder.create(&staged).map_err(error)?;
    // What it tells of other segments goes on to hold. From the rename on this is its length, whatever others tell.
    let head = Head {
        frames_bytes: Some(frames_bytes),
        ..head
    };
    let head = head.to_bytes()?;
    file.write(&mut [IoSlice::new(&head)]).map_err(error)?;
    for frame in &frames {
        copy(&*stored, &mut *file, frame.offset, frame.bytes()).map_err(error)?;
    }
    file.sync().map_err(error)?;
    folder.rename(&staged, &name.file()).map_err(error)?;
    folder.sync().map_err(error)?;
    Ok(head.len() as u64 + frames_bytes)
}

fn copy(stored: &dyn Stored, file: &mut dyn Growing, from: u64, length: u64) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES.min(usize::try_from(length).unwrap_or(COPY_BYTES))];
    let mut copied = 0;
    while copied < length {
        let piece = buffer
            .len()
            .min(usize::try_from(length - copied).unwrap_or(COPY_BYTES));
        let read = stored.read_at(&mut buffer[..piece], from + copied)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.write(&mut [IoSlice::new(&buffer[..read])])?;
        copied += read as u64;
    }
    Ok(())
}

/// Removes a segment that stands in the lake, or keeps it aside if it is damaged, and then what was noted about it.
///
/// In that order: a segment that came back after a power cut without its progress would be landed again.
pub(crate) fn finish(folder: &Arc<dyn Folder>, name: &SegmentName, is_damaged: bool) -> Result<()> {
    let error = |source| failed("remove spool segment", name, source);
    let gone = if is_damaged {
        folder.rename(&name.file(), &name.beside(CORRUPT))
    } else {
        folder.remove(&name.file())
    };
    match gone {
        // An earlier attempt came this far.
        Err(source) if source.kind() == io::ErrorKind::NotFound => {}
        gone => gone.map_err(error)?,
    }
    folder.sync().map_err(error)?;
    failpoint::point("spool::after_remove");
    match folder.remove(&name.beside(progress::SUFFIX)) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(error(source)),
        _ => Ok(()),
    }
}

fn failed(attempt: &'static str, name: &SegmentName, source: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, attempt)
        .with("segment", name.file())
        .caused_by(source)
}
