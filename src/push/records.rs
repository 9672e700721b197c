//! The records of a file, one after the other, in memory for one of them.
//!
//! A file whose first character is `[` is one JSON array; every other is JSON Lines. Of a record in an array only brackets and
//! strings are looked at to find its end.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use crate::{
    error::{Error, ErrorKind, Result},
    json::{Defect, scan::Scanner},
    push::batch::Form,
};

/// Bytes looked at in one go.
const CHUNK_BYTES: usize = 256 << 10;

/// Marks UTF-8 in files of some editors. It is passed over.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Bytes of the digest that a position is known by.
const DIGEST_BYTES: usize = 16;

/// A record as it stands in the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its bytes, or as many as are kept of one that is too large.
    pub bytes: &'a [u8],
    /// Where it begins, in bytes of the unpacked file.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
    /// Why it is not sent, if it is not.
    pub fault: Option<Fault>,
}

/// Why a record cannot be sent. The words are those of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not RFC 8259, or not UTF-8.
    NotJson,
    /// Nested too deeply.
    TooDeep,
    /// A number, a text, an array.
    NotAnObject,
    /// Longer than a record may be.
    TooLarge,
}

impl Fault {
    /// Its name for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::TooDeep => "too_deep",
            Self::NotAnObject => "not_an_object",
            Self::TooLarge => "too_large",
        }
    }

    /// The same in words.
    pub fn detail(self) -> &'static str {
        match self {
            Self::NotJson => "not JSON; it was not sent",
            Self::TooDeep => "nested too deeply; it was not sent",
            Self::NotAnObject => "not an object; it was not sent",
            Self::TooLarge => "larger than a record of the stream may be; it was not sent",
        }
    }
}

/// Reads records and knows the digest of everything before the end of the last one.
pub struct Records<R> {
    source: R,
    chunk: Vec<u8>,
    at: usize,
    /// Where the chunk begins.
    offset: u64,
    ended: bool,
    form: Option<Form>,
    /// Whether the array's last bracket was seen.
    closed: bool,
    /// Whether a comma must stand before the next record of the array.
    needs_comma: bool,
    record: Vec<u8>,
    record_bytes_max: usize,
    digest: Sha256,
    /// Up to where `digest` reaches: to the end of a record, when one was given.
    digested: u64,
    /// What stands behind there and is consumed: blanks, line ends, commas.
    between: Vec<u8>,
    may_grow: bool,
    unfinished: Option<u64>,
}

/// A place between two records, and all that stands before it. By default the beginning.
#[derive(Clone, Debug, Default)]
pub struct Position {
    /// How many bytes that is.
    pub end: u64,
    digest: Sha256,
}

/// Where in an array's record the next byte stands.
#[derive(Clone, Copy, Default)]
struct Inside {
    depth: u64,
    in_string: bool,
    escaped: bool,
}

impl<R: Read> Records<R> {
    /// The records that `source` holds.
    pub fn new(source: R, record_bytes_max: usize) -> Self {
        Self {
            source,
            chunk: Vec::new(),
            at: 0,
            offset: 0,
            ended: false,
            form: None,
            closed: false,
            needs_comma: false,
            record: Vec::new(),
            record_bytes_max,
            digest: Sha256::new(),
            digested: 0,
            between: Vec::new(),
            may_grow: false,
            unfinished: None,
        }
    }

    /// Records of a file that somebody may still write: a last line without its end that is no JSON yet is none of them.
    #[must_use]
    pub fn may_grow(mut self) -> Self {
        self.may_grow = true;
        self
    }

    /// Where the last line begins, when the end was reached and it was no record yet.
    pub fn unfinished(&self) -> Option<u64> {
        self.unfinished
    }

    /// How the records stand in the file.
    ///
    /// # Errors
    /// As [`Records::next_record`].
    pub fn form(&mut self) -> Result<Form> {
        if let Some(form) = self.form {
            return Ok(form);
        }
        self.peek()?;
        while self.chunk.len() < BYTE_ORDER_MARK.len() && !self.ended {
            self.more()?;
        }
        if self.chunk.starts_with(BYTE_ORDER_MARK) {
            self.at = BYTE_ORDER_MARK.len();
            self.between.extend_from_slice(BYTE_ORDER_MARK);
        }
        self.skip_blanks()?;
        let form = if self.peek()? == Some(b'[') {
            self.pass()?;
            Form::Array
        } else {
            Form::Lines
        };
        self.form = Some(form);
        Ok(form)
    }

    /// The next record; none at the end.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the file cannot be read, [`ErrorKind::Corrupt`] if it is an array that is not JSON from
    /// some place on: what stood before is sound.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>> {
        let form = self.form()?;
        self.record.clear();
        let found = match form {
            Form::Lines => self.line()?,
            Form::Array => self.element()?,
        };
        let Some((start, length)) = found else {
            return Ok(None);
        };
        let end = start + length;
        let fault = if length > self.record_bytes_max as u64 {
            Some(Fault::TooLarge)
        } else {
            readable(&self.record).err()
        };
        // A line that was read up to its end stands before that end.
        let is_whole = form == Form::Array || self.at < self.chunk.len();
        if self.may_grow && !is_whole && fault == Some(Fault::NotJson) {
            self.unfinished = Some(start);
            return Ok(None);
        }
        Ok(Some(Record {
            bytes: &self.record,
            start,
            end,
            fault,
        }))
    }

    /// Where the last record ends.
    pub fn position(&self) -> Position {
        Position {
            end: self.digested,
            digest: self.digest.clone(),
        }
    }

    /// A line that is not blank: where it begins and how long it is.
    fn line(&mut self) -> Result<Option<(u64, u64)>> {
        self.skip_blanks()?;
        if self.peek()?.is_none() {
            return Ok(None);
        }
        let start = self.offset + self.at as u64;
        self.settle();
        let mut length = 0;
        // White space that may be the end of the line, or inside it.
        let mut held = Vec::new();
        while self.peek()?.is_some() {
            let rest = &self.chunk[self.at..];
            let end = rest.iter().position(|byte| *byte == b'\n');
            let part = &rest[..end.unwrap_or(rest.len())];
            let solid = part.trim_ascii_end().len();
            if solid > 0 {
                length += (held.len() + solid) as u64;
                for piece in [&held[..], &part[..solid]] {
                    keep(&mut self.record, self.record_bytes_max, piece);
                    self.digest.update(piece);
                }
                held.clear();
            }
            held.extend_from_slice(&part[solid..]);
            self.at += part.len();
            if end.is_some() {
                break;
            }
            if held.len() > CHUNK_BYTES {
                // Nobody writes so many blanks on purpose: they count as part of the record.
                length += held.len() as u64;
                keep(&mut self.record, self.record_bytes_max, &held);
                self.digest.update(&held);
                held.clear();
            }
        }
        self.digested = start + length;
        self.between.append(&mut held);
        Ok(Some((start, length)))
    }

    /// An element of the array: where it begins and how long it is.
    fn element(&mut self) -> Result<Option<(u64, u64)>> {
        self.skip_blanks()?;
        if self.closed {
            return match self.peek()? {
                None => Ok(None),
                Some(_) => Err(self.broken("something stands behind the array")),
            };
        }
        if self.needs_comma {
            match self.peek()? {
                Some(b',') => self.pass()?,
                Some(b']') => return self.close(),
                Some(_) => return Err(self.broken("neither a comma nor the end of the array")),
                None => return Err(self.broken("the array does not end")),
            }
            self.skip_blanks()?;
        } else if self.peek()? == Some(b']') {
            return self.close();
        }
        if matches!(self.peek()?, None | Some(b',' | b']')) {
            return Err(self.broken("an element of the array is missing"));
        }
        let start = self.offset + self.at as u64;
        self.settle();
        let mut length = 0_u64;
        let mut inside = Inside::default();
        let mut whole = false;
        while !whole {
            if self.peek()?.is_none() {
                return Err(self.broken("the array does not end"));
            }
            let rest = &self.chunk[self.at..];
            let taken = rest.iter().position(|byte| inside.ends_before(*byte));
            whole = taken.is_some();
            let part = &rest[..taken.unwrap_or(rest.len())];
            keep(&mut self.record, self.record_bytes_max, part);
            self.digest.update(part);
            length += part.len() as u64;
            self.at += part.len();
        }
        self.digested = start + length;
        self.needs_comma = true;
        Ok(Some((start, length)))
    }

    fn close(&mut self) -> Result<Option<(u64, u64)>> {
        self.pass()?;
        self.closed = true;
        self.element()
    }

    /// Brings the digest up to the next byte.
    fn settle(&mut self) {
        self.digest.update(&self.between);
        self.digested += self.between.len() as u64;
        self.between.clear();
    }

    fn skip_blanks(&mut self) -> Result<()> {
        while matches!(self.peek()?, Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.pass()?;
        }
        Ok(())
    }

    /// Passes over one byte that is part of no record.
    fn pass(&mut self) -> Result<()> {
        if let Some(byte) = self.peek()? {
            self.between.push(byte);
            self.at += 1;
        }
        if self.between.len() > CHUNK_BYTES {
            self.settle();
        }
        Ok(())
    }

    fn peek(&mut self) -> Result<Option<u8>> {
        if self.at == self.chunk.len() && !self.ended {
            self.offset += self.chunk.len() as u64;
            self.at = 0;
            self.chunk.clear();
            self.more()?;
        }
        Ok(self.chunk.get(self.at).copied())
    }

    /// Adds to the chunk what there is, at least a byte unless the file ends.
    fn more(&mut self) -> Result<()> {
        let start = self.chunk.len();
        self.chunk.resize(start + CHUNK_BYTES, 0);
        let read = read(&mut self.source, &mut self.chunk[start..]);
        self.chunk
            .truncate(start + read.as_ref().map_or(0, |count| *count));
        let count =
            read.map_err(|source| Error::new(ErrorKind::Unavailable, "read file").caused_by(source))?;
        self.ended = count == 0;
        Ok(())
    }

    fn broken(&self, problem: &'static str) -> Error {
        Error::new(ErrorKind::Corrupt, "read JSON array")
            .with("byte", self.offset + self.at as u64)
            .with("problem", problem)
    }
}

impl Position {
    /// The first half of the SHA-256 of everything before, in hexadecimal digits.
    pub fn digest(&self) -> String {
        let whole = self.digest.clone().finalize();
        let half = whole.iter().take(DIGEST_BYTES);
        half.map(|byte| format!("{byte:02x}")).collect()
    }
}

fn read(source: &mut impl Read, chunk: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

impl Inside {
    /// Whether the element ended before `byte`.
    fn ends_before(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' if self.depth > 0 => self.depth -= 1,
            b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t' => return self.depth == 0,
            _ => {}
        }
        false
    }
}

/// Adds `part` to what is kept of a record: no more than shows that it is too long.
fn keep(record: &mut Vec<u8>, record_bytes_max: usize, part: &[u8]) {
    let room = (record_bytes_max + 1).saturating_sub(record.len());
    record.extend_from_slice(&part[..part.len().min(room)]);
}

/// As the server looks at it.
fn readable(record: &[u8]) -> Result<(), Fault> {
    let mut scanner = Scanner::new(record);
    let is_object = scanner.peek() == b'{';
    let read = scanner.skip().and_then(|_| scanner.end());
    read.map_err(|defect| match defect {
        Defect::TooDeep { .. } => Fault::TooDeep,
        Defect::Syntax { .. } | Defect::NotUtf8 { .. } => Fault::NotJson,
    })?;
    str::from_utf8(record).map_err(|_| Fault::NotJson)?;
    if is_object {
        Ok(())
    } else {
        Err(Fault::NotAnObject)
    }
}
