//! Whether a file is what was announced, all of it, before a record of it is landed.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use sha2::{Digest as _, Sha256};

use crate::{
    config::push::Push,
    error::{Error, ErrorKind},
    receive::uploads::job::Job,
    serve::{
        check::{BYTE_ORDER_MARK, check_part},
        problem::code::Code,
        shutdown::Shutdown,
        uploads::{
            batches::{Batches, Cut},
            halt::Halt,
        },
    },
};

/// What is read of a file at a time.
const STEP_BYTES: usize = 256 << 10;

/// Reads all of `file` twice: for its checksum, and for its records.
///
/// # Errors
/// The end of the job, if it is not what was announced, or not what the stream takes; [`Halt::Broken`] if it cannot be read.
pub(super) fn verify(
    file: &Path,
    job: &Job,
    push: &Push,
    job_bytes_max: u64,
    stop: &Shutdown,
) -> Result<(), Halt> {
    checksum(file, job, stop)?;
    let cut = Cut::of(push);
    let mut batches = Batches::open(file, job, job_bytes_max, stop.clone())?;
    let (mut at, mut readable) = (0, 0);
    while let Some(batch) = batches.next(cut)? {
        if stop.is_stopping() {
            return Err(Halt::Stopped);
        }
        if at == 0 && batch.starts_with(BYTE_ORDER_MARK) {
            return Err(Halt::trouble(
                Code::BodyMalformed,
                "the file begins with a byte order mark",
            ));
        }
        at += batch.len();
        let checked = check_part(&batch, push);
        let checked = checked.map_err(|problem| {
            Halt::trouble(
                problem.code(),
                "a record is larger than the stream takes (record_bytes_max)",
            )
        })?;
        readable += checked.accepted;
    }
    if readable == 0 {
        let detail = "no line of the file can be read as a record";
        return Err(Halt::trouble(Code::BodyMalformed, detail));
    }
    Ok(())
}

/// Whether `file` has the size and the checksum that were announced.
fn checksum(file: &Path, job: &Job, stop: &Shutdown) -> Result<(), Halt> {
    let unread = |error: io::Error| {
        Halt::Broken(
            Error::new(ErrorKind::Unavailable, "read upload")
                .with("job", job.id)
                .caused_by(error),
        )
    };
    let mut file = File::open(file).map_err(unread)?;
    let bytes = file.metadata().map_err(unread)?.len();
    if bytes != job.bytes {
        let detail = format!("{} bytes were announced, and {bytes} are here", job.bytes);
        return Err(Halt::trouble(Code::SizeMismatch, detail));
    }
    let mut hasher = Sha256::new();
    let mut step = vec![0; STEP_BYTES];
    // Ends with the file.
    loop {
        if stop.is_stopping() {
            return Err(Halt::Stopped);
        }
        match file.read(&mut step) {
            Ok(0) => break,
            Ok(read) => hasher.update(&step[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unread(error)),
        }
    }
    let digits: String = hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if digits != job.sha256 {
        let detail = "the SHA-256 of the file is another than was announced";
        return Err(Halt::trouble(Code::ChecksumMismatch, detail));
    }
    Ok(())
}
