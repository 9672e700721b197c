//! The files in a body.

use std::{
    cell::{Cell, RefCell},
    io::{self, BufRead, BufReader, Cursor, Read},
};

use flate2::bufread::MultiGzDecoder;
use zip::{ZipArchive, read::ZipReadOptions};

use crate::{
    config::format::Container,
    format::{Defect, Limits, meter::Meter},
};

/// Decoded at a time.
const STEP_BYTES: usize = 64 * 1024;

/// Most entries of an archive, folders included.
const ENTRIES_MAX: usize = 100_000;

/// What a gzip member begins with, and no text does. Archives of exports hold such files.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Where macOS keeps the icons of what it archives: no data, but named like data.
const MAC_FOLDER: &str = "__MACOSX/";

/// How many bytes may still be read for the record in work. Renewed after each, so that one that never ends is noticed
/// before it fills the memory.
pub(super) struct Allowance {
    left: Cell<u64>,
    bytes_max: Cell<u64>,
}

impl Allowance {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            left: Cell::new(bytes_max),
            bytes_max: Cell::new(bytes_max),
        }
    }

    /// The next record begins.
    #[inline]
    pub(super) fn renew(&self) {
        self.left.set(self.bytes_max.get());
    }

    /// What follows may have `bytes_max`.
    pub(super) fn renew_to(&self, bytes_max: u64) {
        self.bytes_max.set(bytes_max);
        self.renew();
    }

    /// Most bytes of a record.
    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max.get()
    }

    fn take(&self, bytes: usize) -> Result<(), Defect> {
        match self.left.get().checked_sub(bytes as u64) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(Defect::RecordTooLarge {
                record_bytes_max: self.bytes_max.get(),
            }),
        }
    }
}

/// Calls `read` with every file of `body`, in the order of the container. Each is decoded as it is read.
///
/// # Errors
/// Those of `read`, and [`Defect`]s of the container, all to be read with [`defect_of`].
pub(super) fn each_file(
    container: Container,
    body: &[u8],
    limits: &Limits,
    allowance: &Allowance,
    read: &mut dyn FnMut(&mut dyn BufRead) -> io::Result<()>,
) -> io::Result<()> {
    let encoded = body.len() as u64;
    let fresh = || Meter::new(encoded, limits.decoded_bytes_max, limits.decode_ratio_max);
    // A file within an archive may be packed once more: either layer is held to the limits.
    let (meter, packed) = (RefCell::new(fresh()), RefCell::new(fresh()));
    let mut file = |decoder: &mut dyn Read| {
        allowance.renew();
        let mut guarded = BufReader::with_capacity(
            STEP_BYTES,
            Guarded {
                decoder,
                meter: (container != Container::Plain).then_some(&meter),
                allowance,
            },
        );
        read(&mut guarded)?;
        // What nobody wanted to read may still be damaged.
        loop {
            allowance.renew();
            let length = guarded.fill_buf()?.len();
            if length == 0 {
                return Ok(());
            }
            guarded.consume(length);
        }
    };
    match container {
        Container::Plain => file(&mut &*body),
        // No bytes are no member and no frame.
        Container::Gzip | Container::Zstd if body.is_empty() => Err(broken(container, "empty").into()),
        Container::Gzip => file(&mut MultiGzDecoder::new(body)),
        Container::Zstd => file(&mut zstd::stream::read::Decoder::with_buffer(body)?),
        Container::Zip => each_entry(body, &mut |entry| {
            let any = Allowance::new(u64::MAX);
            let guarded = Guarded {
                decoder: entry,
                meter: Some(&packed),
                allowance: &any,
            };
            let mut entry = BufReader::with_capacity(STEP_BYTES, guarded);
            match entry.fill_buf()?.starts_with(&GZIP) {
                true => file(&mut MultiGzDecoder::new(entry)),
                false => file(&mut entry),
            }
        }),
    }
}

fn each_entry(body: &[u8], file: &mut dyn FnMut(&mut dyn Read) -> io::Result<()>) -> io::Result<()> {
    let damaged = |problem| broken(Container::Zip, problem);
    let mut archive = ZipArchive::new(Cursor::new(body)).map_err(|_| damaged("no archive"))?;
    if archive.len() > ENTRIES_MAX {
        return Err(damaged("too many entries").into());
    }
    for index in 0..archive.len() {
        // Two entries of one name, or headers that contradict each other: readers differ in what they take.
        let options = ZipReadOptions::new().enforce_header_consistency(true);
        let mut entry = archive
            .by_index_with_options(index, options)
            .map_err(|_| damaged("an entry cannot be read, or is encrypted"))?;
        if entry.is_dir() || entry.name_raw().starts_with(MAC_FOLDER.as_bytes()) {
            continue;
        }
        file(&mut entry)?;
    }
    Ok(())
}

fn broken(container: Container, problem: &'static str) -> Defect {
    Defect::Container { container, problem }
}

/// What an error of reading a file means. A body in memory cannot fail to be read, so it is about its bytes.
pub(super) fn defect_of(error: &io::Error, container: Container) -> Defect {
    if let Some(defect) = error.get_ref().and_then(|inner| inner.downcast_ref::<Defect>()) {
        return *defect;
    }
    let problem = match error.kind() {
        io::ErrorKind::UnexpectedEof => "cut",
        _ => "damaged",
    };
    broken(container, problem)
}

/// A decoder under limits.
struct Guarded<'a> {
    decoder: &'a mut dyn Read,
    meter: Option<&'a RefCell<Meter>>,
    allowance: &'a Allowance,
}

impl Read for Guarded<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.decoder.read(out)?;
        if let Some(meter) = self.meter {
            meter.borrow_mut().take(count).map_err(Defect::Excess)?;
        }
        self.allowance.take(count)?;
        Ok(count)
    }
}
