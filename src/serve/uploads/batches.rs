//! A file of lines as batches that a stream takes: unpacked as it is read, and cut behind records.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read},
    path::Path,
};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;

use crate::{
    config::push::Push,
    error::{Error, ErrorKind},
    receive::uploads::job::{Job, Packed},
    serve::{
        body::{BodyLimits, coding::ZSTD_WINDOW_LOG_MAX},
        problem::code::Code,
        shutdown::Shutdown,
        uploads::halt::Halt,
    },
};

/// Most bytes of a batch: more gain nothing, and are held in memory.
const BATCH_BYTES_MAX: u64 = 8 << 20;

/// Most that a file may be unpacked, as a multiple of what one may have as it is sent.
const UNPACKED_TIMES_MAX: u64 = 10;

/// Memory for what is read ahead, in bytes.
const READ_BYTES: usize = 64 << 10;

/// Memory that unpacking needs beside a batch, in bytes: the largest window and what is read ahead on both sides of it.
const WINDOW_BYTES: usize = (1 << ZSTD_WINDOW_LOG_MAX) + (1 << 20);

/// How much of a file goes into one batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    bytes_max: usize,
    records_max: u64,
    record_bytes_max: usize,
}

/// The batches of a file, in order.
pub(super) struct Batches {
    reader: BufReader<Unpacked>,
    /// The line that did not fit into the last batch.
    carried: Vec<u8>,
    /// Whether bytes that are no good can only come from the disk.
    is_plain: bool,
    stop: Shutdown,
}

/// A file as it was before it was packed, as far as that is within its limits.
struct Unpacked {
    from: Box<dyn Read + Send>,
    left: u64,
    stop: Shutdown,
}

/// Bytes on the disk, until the server stops: what is packed may be much and unpack to nothing.
struct Until {
    from: File,
    stop: Shutdown,
}

/// Said when the server stops.
const STOPPED: &str = "the server stops";

/// Said when a file unpacks to more than it may.
const TOO_MUCH: &str = "the file expands too much";

impl Cut {
    /// What a request to a stream with these settings may have, or less.
    pub(super) fn of(push: &Push) -> Self {
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX / 4);
        Self {
            bytes_max: bytes(push.bytes_max.min(BATCH_BYTES_MAX)),
            records_max: push.records_max.max(1),
            record_bytes_max: bytes(push.record_bytes_max),
        }
    }

    /// The same of a file whose records were found to be within the limits of the stream: those may have changed since.
    pub(super) fn verified(self) -> Self {
        Self {
            record_bytes_max: usize::MAX / 4,
            ..self
        }
    }

    /// Memory that the work on one file takes, in bytes: a batch, the line behind it, and what unpacking needs.
    pub(super) fn memory(self, packed: Packed) -> usize {
        let window = if packed == Packed::Not {
            READ_BYTES
        } else {
            WINDOW_BYTES
        };
        self.bytes_max + 2 * self.record_bytes_max + window
    }
}

impl Batches {
    /// The batches of `job`, whose bytes are in `file`; one file may have `job_bytes_max` as it is sent.
    ///
    /// # Errors
    /// [`Halt::Broken`] if it cannot be read.
    pub(super) fn open(file: &Path, job: &Job, job_bytes_max: u64, stop: Shutdown) -> Result<Self, Halt> {
        let opened = Until {
            from: File::open(file).map_err(|error| broken(error, job))?,
            stop: stop.clone(),
        };
        let limits = BodyLimits::BATCH;
        let by_ratio = job.bytes.saturating_mul(limits.ratio_max as u64);
        let most = by_ratio
            .max(limits.ratio_free_bytes as u64)
            .min(job_bytes_max.saturating_mul(UNPACKED_TIMES_MAX));
        let from: Box<dyn Read + Send> = match job.packed {
            Packed::Not => Box::new(opened),
            Packed::Gzip => Box::new(MultiGzDecoder::new(BufReader::with_capacity(READ_BYTES, opened))),
            Packed::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::new(opened).map_err(|error| broken(error, job))?;
                let limited = decoder.window_log_max(ZSTD_WINDOW_LOG_MAX);
                limited.map_err(|error| broken(error, job))?;
                Box::new(decoder)
            }
        };
        Ok(Self {
            reader: BufReader::with_capacity(
                READ_BYTES,
                Unpacked {
                    from,
                    left: if job.packed == Packed::Not { u64::MAX } else { most },
                    stop: stop.clone(),
                },
            ),
            carried: Vec::new(),
            is_plain: job.packed == Packed::Not,
            stop,
        })
    }

    /// Passes over the first `bytes`, before anything else is read.
    ///
    /// # Errors
    /// As [`Batches::next`]; `corrupt` if there are not so many.
    pub(super) fn skip(&mut self, bytes: u64) -> Result<(), Halt> {
        let passed = io::copy(&mut (&mut self.reader).take(bytes), &mut io::sink());
        let passed = passed.map_err(|error| self.unread(error))?;
        if passed < bytes {
            return Err(Halt::trouble(Code::Corrupt, "the file is shorter than it was"));
        }
        Ok(())
    }

    /// The next batch, with the ends of its lines; none at the end of the file.
    ///
    /// # Errors
    /// [`Halt::Stopped`] in the middle of it; the job's end with `record_too_large`, `body_truncated`, `body_undecodable`, `body_expands_too_much`;
    /// [`Halt::Broken`] if the disk does not give it.
    pub(super) fn next(&mut self, cut: Cut) -> Result<Option<Bytes>, Halt> {
        let mut batch = std::mem::take(&mut self.carried);
        let mut records = u64::from(!is_blank(&batch));
        // Ends with the file, or with the first line that does not fit.
        loop {
            let begin = batch.len();
            // One that is too long is read no further than that.
            let line_max = cut.record_bytes_max as u64 + 3;
            let line = (&mut self.reader).take(line_max).read_until(b'\n', &mut batch);
            if line.map_err(|error| self.unread(error))? == 0 {
                break;
            }
            let line = &batch[begin..];
            if record(line).len() > cut.record_bytes_max {
                let detail = format!(
                    "a record of this stream may have {} bytes (record_bytes_max)",
                    cut.record_bytes_max
                );
                return Err(Halt::trouble(Code::RecordTooLarge, detail));
            }
            let is_record = !is_blank(line);
            if begin > 0 && (batch.len() > cut.bytes_max || is_record && records == cut.records_max) {
                self.carried = batch.split_off(begin);
                break;
            }
            records += u64::from(is_record);
        }
        Ok((!batch.is_empty()).then(|| Bytes::from(batch)))
    }

    fn unread(&self, error: io::Error) -> Halt {
        if self.stop.is_stopping() {
            return Halt::Stopped;
        }
        if self.is_plain || error.raw_os_error().is_some() {
            return Halt::Broken(Error::new(ErrorKind::Unavailable, "read upload").caused_by(error));
        }
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Halt::trouble(Code::BodyTruncated, "the compressed data ends too early");
        }
        if error
            .get_ref()
            .is_some_and(|source| source.to_string() == TOO_MUCH)
        {
            return Halt::trouble(Code::BodyExpandsTooMuch, TOO_MUCH);
        }
        Halt::trouble(
            Code::BodyUndecodable,
            "the file is not what its content_encoding says",
        )
    }
}

impl Read for Until {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_stopping() {
            return Err(io::Error::other(STOPPED));
        }
        self.from.read(out)
    }
}

impl Read for Unpacked {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_stopping() {
            return Err(io::Error::other(STOPPED));
        }
        let read = self.from.read(out)?;
        let Some(left) = self.left.checked_sub(read as u64) else {
            return Err(io::Error::other(TOO_MUCH));
        };
        self.left = left;
        Ok(read)
    }
}

fn broken(error: io::Error, job: &Job) -> Halt {
    Halt::Broken(
        Error::new(ErrorKind::Unavailable, "open upload")
            .with("job", job.id)
            .caused_by(error),
    )
}

/// A line without its end.
fn record(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        clock::Timestamp,
        config::StreamName,
        receive::uploads::job::{Announced, JobId},
    };

    fn job(bytes: usize, packed: Packed) -> Job {
        let announced = Announced {
            id: JobId::of(&["a"]),
            stream: StreamName::parse("shop.orders").unwrap(),
            producer: None,
            request: String::new(),
            sha256: String::new(),
            bytes: bytes as u64,
            packed,
            url: None,
            trace_id: String::new(),
        };
        Job::new(announced, Timestamp::UNIX_EPOCH)
    }

    fn pack(text: &[u8], packed: Packed) -> Vec<u8> {
        match packed {
            Packed::Not => text.to_vec(),
            Packed::Zstd => zstd::encode_all(text, 1).unwrap(),
            Packed::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
                encoder.write_all(text).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    /// The batches of a file with these bytes, from `skip` on, or why there are none.
    fn read(bytes: &[u8], packed: Packed, cut: Cut, skip: u64) -> Result<Vec<Bytes>, Halt> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, bytes).unwrap();
        let mut batches = Batches::open(&file, &job(bytes.len(), packed), 1 << 30, Shutdown::new())?;
        batches.skip(skip)?;
        let mut all = Vec::new();
        while let Some(batch) = batches.next(cut)? {
            all.push(batch);
        }
        Ok(all)
    }

    fn code(found: Result<Vec<Bytes>, Halt>) -> String {
        match found {
            Err(Halt::Trouble(trouble)) => trouble.code,
            other => panic!("{other:?}"),
        }
    }

    const CUT: Cut = Cut {
        bytes_max: 20,
        records_max: 3,
        record_bytes_max: 16,
    };

    #[test]
    fn batches_end_behind_records_within_the_limits_of_the_stream() {
        let found = read(
            b"{}\n{}\r\n\n{}\n{}\n0123456789abcdef\n0123\n5",
            Packed::Not,
            CUT,
            0,
        )
        .unwrap();
        let expected: [&[u8]; 4] = [b"{}\n{}\r\n\n{}\n", b"{}\n0123456789abcdef\n", b"0123\n5", b""];
        assert_eq!(found, expected[..3]);
        assert_eq!(
            code(read(b"{}\n0123456789abcdefg\n", Packed::Not, CUT, 0)),
            "record_too_large"
        );
        assert_eq!(code(read(&[b'x'; 1000], Packed::Not, CUT, 0)), "record_too_large");
        assert_eq!(read(b"", Packed::Not, CUT, 0).unwrap(), [] as [&[u8]; 0]);
    }

    #[test]
    fn what_is_packed_wrongly_or_expands_too_much_is_told_apart() {
        let text = b"{\"id\":1}\n".repeat(2000);
        for packed in [Packed::Gzip, Packed::Zstd] {
            let whole = pack(&text, packed);
            let wide = Cut {
                bytes_max: 1 << 20,
                records_max: 10_000,
                ..CUT
            };
            assert_eq!(read(&whole, packed, wide, 0).unwrap().concat(), text);
            assert_eq!(
                code(read(&whole[..whole.len() - 5], packed, wide, 0)),
                "body_truncated"
            );
            assert_eq!(code(read(&text, packed, wide, 0)), "body_undecodable");
            let behind = [whole, b"garbage behind".to_vec()].concat();
            assert_eq!(code(read(&behind, packed, wide, 0)), "body_undecodable");
            let bomb = pack(&b"{}\n".repeat(2 << 20), packed);
            assert_eq!(code(read(&bomb, packed, wide, 0)), "body_expands_too_much");
        }
    }

    #[test]
    fn what_unpacks_to_much_or_to_nothing_is_left_when_the_server_stops() {
        let dir = tempfile::tempdir().unwrap();
        let empty = pack(b"", Packed::Zstd).repeat(1 << 16);
        for (bytes, packed) in [
            (pack(&b"{}\n".repeat(1 << 16), Packed::Gzip), Packed::Gzip),
            (b"{}\n".repeat(1 << 16), Packed::Not),
            (empty, Packed::Zstd),
        ] {
            let (file, stop) = (dir.path().join("f"), Shutdown::new());
            fs::write(&file, &bytes).unwrap();
            let mut batches = Batches::open(&file, &job(bytes.len(), packed), 1 << 30, stop.clone()).unwrap();
            stop.stop();
            assert!(matches!(batches.skip(1 << 20), Err(Halt::Stopped)));
            // Also within one read of what unpacks.
            let mut within = batches.reader.into_inner().from;
            // What was read ahead with the header of a gzip file may still come.
            assert!(packed == Packed::Gzip || within.read(&mut [0; 1 << 10]).is_err());
        }
    }

    proptest! {
        #[test]
        fn whatever_is_cut_is_the_file_again_from_any_end_of_a_batch(
            lines in prop::collection::vec("[a-z0-9 ]{0,16}", 0..40),
            ends in prop_oneof![Just("\n"), Just("\r\n")],
            packed in prop_oneof![Just(Packed::Not), Just(Packed::Gzip), Just(Packed::Zstd)],
        ) {
            let text = lines.join(ends).into_bytes();
            let bytes = pack(&text, packed);
            let found = read(&bytes, packed, CUT, 0).unwrap();
            prop_assert_eq!(found.concat(), text.clone());
            let mut at = 0;
            for (number, batch) in found.iter().enumerate() {
                prop_assert!(batch.len() <= CUT.bytes_max || batch.iter().filter(|byte| **byte == b'\n').count() <= 1);
                let rest = read(&bytes, packed, CUT, at).unwrap();
                prop_assert_eq!(rest, &found[number..]);
                at += batch.len() as u64;
            }
        }
    }
}
