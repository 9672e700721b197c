//! Records out of bodies: JSON, JSON Lines, CSV and XML, also out of gzip, zstd and zip.
//!
//! ```text
//! body ─ container ─► files ─ text ─► UTF-8 ─┬─ json         ranges of the body where it can be
//!        (meter)                             ├─ lines        a record a line
//!                                            ├─ delimited    a record a row
//!                                            └─ xml          a record an element
//!                                                  └─► Piece ─ additions ─► what is judged
//! ```
//!
//! Every record is handed over as JSON text, so that whatever follows knows one language only. Nothing is judged and
//! nothing guessed: texts stay texts, and of what type they are is up to the contract. A line or a row that cannot be a
//! record is handed over all the same; the judge sets it aside with its bytes.
//!
//! Memory is that of one record, about [`Limits::record_bytes_max`] at most. Only JSON that stands in a container, or
//! in another encoding than UTF-8, is held as a whole, up to [`Limits::held_bytes_max`].

pub mod additions;
mod container;
mod delimited;
mod lines;
pub mod meter;
pub mod part;
pub mod pushed;
mod text;
mod write;
mod xml;

use std::{fmt, io, ops::Range};

use bytes::Bytes;

use crate::{
    config::{
        self, Stream,
        format::{Container, Encoding, Format, Syntax},
        records::RecordPaths,
    },
    format::{
        container::Allowance,
        meter::Excess,
        part::Section,
        text::{Utf8, mark},
    },
    json::{self, Found, JsonPath},
};

/// Bounds on what a body may make this module do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most decoded bytes of one container, all its files together.
    pub decoded_bytes_max: u64,
    /// Most decoded bytes per encoded byte of a container, judged beyond the first MiB.
    pub decode_ratio_max: u64,
    /// Most decoded bytes of a JSON text that has to be held as a whole.
    pub held_bytes_max: u64,
    /// Most bytes of one line, row or element. A longer line is cut here, which is beyond what the judge accepts; a
    /// longer row or element is a [`Defect::RecordTooLarge`].
    pub record_bytes_max: u64,
}

impl Limits {
    /// 16 GiB decoded, 200 to one, 256 MiB held, 32 MiB for one record.
    pub const DEFAULT: Self = Self {
        decoded_bytes_max: 16 << 30,
        decode_ratio_max: 200,
        held_bytes_max: 256 << 20,
        record_bytes_max: 32 << 20,
    };

    /// The ratio is that of the source; every other bound is the default.
    pub fn of(limits: &config::Limits) -> Self {
        Self {
            decode_ratio_max: limits.decode_ratio_max,
            ..Self::DEFAULT
        }
    }
}

/// Why no records can be read out of a body. A value about the body: such a page has no readable records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// Not JSON.
    Json(json::Defect),
    /// Not XML that is well-formed, in UTF-8 and without entities of its own.
    Xml {
        /// About where, counted in bytes of UTF-8 from the start of the text.
        offset: u64,
        /// What is wrong there.
        problem: &'static str,
    },
    /// Elements nested deeper than [`json::DEPTH_MAX`].
    TooDeep {
        /// As in [`Defect::Xml`].
        offset: u64,
    },
    /// The container is cut, damaged or not what it should be.
    Container {
        /// What it should be.
        container: Container,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// More decoded bytes than a bound of [`Limits`] allows, or more per encoded byte.
    Excess(Excess),
    /// One row or element is larger than [`Limits::record_bytes_max`]; a quote or a tag that is never closed is too.
    RecordTooLarge {
        /// The bound, in bytes.
        record_bytes_max: u64,
    },
    /// It is a part of a body that could not be read as a whole.
    Body,
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(defect) => defect.fmt(f),
            Self::Xml { offset, problem } => write!(f, "not XML at byte {offset}: {problem}"),
            Self::TooDeep { offset } => write!(f, "nested deeper than {} at byte {offset}", json::DEPTH_MAX),
            Self::Container { container, problem } => write!(f, "not {}: {problem}", container.as_str()),
            Self::Excess(excess) => excess.fmt(f),
            Self::RecordTooLarge { record_bytes_max } => {
                write!(f, "a record of more than {record_bytes_max} bytes")
            }
            Self::Body => f.write_str("a part of a body that cannot be read as a whole"),
        }
    }
}

impl std::error::Error for Defect {}

/// Travels through readers that know only I/O errors.
impl From<Defect> for io::Error {
    fn from(defect: Defect) -> Self {
        Self::other(defect)
    }
}

/// One record, as JSON text; or as bytes that are not JSON, which the judge sets aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// These bytes of the body.
    Range(Range<usize>),
    /// Written for the occasion.
    Written(&'a [u8]),
}

impl Piece<'_> {
    /// The record. `body` is what the records are read out of.
    pub fn bytes<'b>(&'b self, body: &'b [u8]) -> &'b [u8] {
        match self {
            Self::Range(range) => &body[range.clone()],
            Self::Written(bytes) => bytes,
        }
    }

    /// The record to keep: a view of the body, or a copy.
    pub fn to_bytes(&self, body: &Bytes) -> Bytes {
        match self {
            Self::Range(range) => body.slice(range.clone()),
            Self::Written(bytes) => Bytes::copy_from_slice(bytes),
        }
    }
}

/// How the records of a stream are read out of its pages.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// What bodies are written in.
    pub format: Format,
    /// Where the records are.
    pub records: RecordPaths,
    /// Where the record is in a page that was fetched because an event named it; none if no such pages are expected.
    pub hydrated: Option<RecordPaths>,
    /// Slice values put into every record.
    pub include: Vec<String>,
    /// The member that a record gets for the file it points to; none if none gets one.
    pub file_column: Option<String>,
    /// Bounds.
    pub limits: Limits,
}

impl Recipe {
    /// The recipe of `stream`.
    pub fn of(source: &config::Source, stream: &Stream) -> Self {
        let include = stream.slices.as_ref().map(|slices| slices.include.clone());
        Self {
            format: stream.format.clone(),
            records: stream.records.clone(),
            hydrated: stream.hydrate.as_ref().map(|hydrate| hydrate.records.clone()),
            include: include.unwrap_or_default(),
            file_column: stream.files.as_ref().map(|files| files.column.clone()),
            limits: Limits::of(&source.limits),
        }
    }

    /// Where the records are in a page that was fetched for an event, or was not.
    pub fn paths(&self, hydrated: bool) -> &RecordPaths {
        let own = self.hydrated.as_ref().filter(|_| hydrated);
        own.unwrap_or(&self.records)
    }

    /// As [`records`].
    ///
    /// # Errors
    /// The first [`Defect`] of the body.
    pub fn read(&self, body: &Bytes, visit: &mut dyn FnMut(Piece<'_>)) -> Result<Found, Defect> {
        records(&self.format, &self.records, body, &self.limits, visit)
    }

    /// As [`part::section`].
    ///
    /// # Errors
    /// See there.
    pub fn read_section(
        &self,
        body: &Bytes,
        section: &Section<'_>,
        visit: &mut dyn FnMut(Piece<'_>),
    ) -> Result<Found, Defect> {
        part::section(&self.format, &self.records, body, section, visit)
    }
}

/// Calls `visit` with every record of `body`, in order.
///
/// Records of plain JSON and plain JSON Lines are ranges of the body; nothing is copied. Several paths are several ways
/// through the body, one after the other. `paths` mean nothing to syntaxes whose records need none: JSON Lines, lines and CSV. In XML every step stands for all elements of its name:
/// `$.rss.channel.item[*]` and `$.rss.channel.item` find the same, be there one item or many.
///
/// # Errors
/// The first [`Defect`] of the body. Records visited before it was met count for nothing.
///
/// ```
/// use landfall::{config::format::{Format, Syntax}, format, json::{Found, JsonPath}};
/// let lines = Format { syntax: Syntax::JsonLines, ..Format::JSON };
/// let path = JsonPath::parse("$").unwrap().into();
/// let body = bytes::Bytes::from_static(b"{\"id\":1}\n{\"id\":2}\n");
/// let mut records = Vec::new();
/// let found = format::records(&lines, &path, &body, &format::Limits::DEFAULT, &mut |piece| {
///     records.push(piece.to_bytes(&body));
/// });
/// assert_eq!(found, Ok(Found::Values(2)));
/// assert_eq!(records[1], "{\"id\":2}");
/// ```
pub fn records(
    format: &Format,
    paths: &RecordPaths,
    body: &Bytes,
    limits: &Limits,
    visit: &mut dyn FnMut(Piece<'_>),
) -> Result<Found, Defect> {
    paths.each(|path| records_at(format, path, body, limits, visit))
}

/// As [`records`], of one path.
fn records_at(
    format: &Format,
    path: &JsonPath,
    body: &Bytes,
    limits: &Limits,
    visit: &mut dyn FnMut(Piece<'_>),
) -> Result<Found, Defect> {
    if let Some(start) = as_it_stands(format, body) {
        match format.syntax {
            Syntax::Json => return ranges(format, path, body, start, visit),
            Syntax::JsonLines => return Ok(Found::Values(lines::ranges(body, start, visit))),
            _ => {}
        }
    }
    let allowance = Allowance::new(limits.record_bytes_max);
    let mut whole = Sum::default();
    container::each_file(format.container, body, limits, &allowance, &mut |file| {
        let found = match &format.syntax {
            Syntax::Json => {
                let held = hold(file, format.encoding, &allowance, limits)?;
                let mut copy = |piece: Piece<'_>| visit(Piece::Written(piece.bytes(&held)));
                ranges(format, path, &held, 0, &mut copy).map_err(io::Error::from)
            }
            Syntax::JsonLines => {
                let mut text = Utf8::new(file, format.encoding)?;
                lines::each(&mut text, &allowance, &mut |line| visit(Piece::Written(line)))
            }
            Syntax::Lines => {
                let mut text = Utf8::new(file, format.encoding)?;
                lines::texts(&mut text, &allowance, &mut |record| visit(Piece::Written(record)))
            }
            Syntax::Csv(csv) => {
                let text = Utf8::new(file, format.encoding)?;
                delimited::rows(csv, text, &allowance, &mut |row| visit(Piece::Written(row)))
            }
            Syntax::Xml(xml) => {
                let options = xml::Options {
                    path,
                    lists: &xml.lists,
                    key_as: format.key_as.as_deref(),
                };
                let encoding = xml::encoding(file, format.encoding)?;
                let text = Utf8::new(file, encoding)?;
                xml::elements(&options, text, &allowance, &mut |element| {
                    visit(Piece::Written(element))
                })
            }
        };
        whole.add(found?);
        Ok(())
    })
    .map_err(|error| container::defect_of(&error, format.container))?;
    Ok(whole.found())
}

/// The whole of `body` as one JSON text, for paths that lead elsewhere than to records: page tokens, totals, errors.
/// `None` if its syntax has no whole.
///
/// Plain JSON stays as it stands, without a byte order mark; XML is written as JSON in the way [`Syntax::Xml`] says. Of
/// an archive the first file counts.
///
/// # Errors
/// The first [`Defect`] of the container, or of XML. That JSON is JSON is not checked here.
pub fn document(format: &Format, body: &Bytes, limits: &Limits) -> Result<Option<Bytes>, Defect> {
    if matches!(format.syntax, Syntax::JsonLines | Syntax::Lines | Syntax::Csv(_)) {
        return Ok(None);
    }
    if format.syntax == Syntax::Json
        && let Some(start) = as_it_stands(format, body)
    {
        return Ok(Some(body.slice(start..)));
    }
    let allowance = Allowance::new(limits.held_bytes_max);
    let mut document = None;
    container::each_file(format.container, body, limits, &allowance, &mut |file| {
        if document.is_some() {
            return Ok(());
        }
        document = match &format.syntax {
            Syntax::Xml(xml) => {
                let options = xml::Options {
                    path: &JsonPath::ROOT,
                    lists: &xml.lists,
                    key_as: None,
                };
                let encoding = xml::encoding(file, format.encoding)?;
                let text = Utf8::new(file, encoding)?;
                let mut whole = Vec::new();
                xml::elements(&options, text, &allowance, &mut |root| {
                    whole.extend_from_slice(root)
                })?;
                Some(Bytes::from(whole))
            }
            _ => Some(hold(file, format.encoding, &allowance, limits)?),
        };
        Ok(())
    })
    .map_err(|error| container::defect_of(&error, format.container))?;
    Ok(document)
}

/// Where the text of a body begins that needs neither unpacking nor another encoding; `None` for any other body.
fn as_it_stands(format: &Format, body: &[u8]) -> Option<usize> {
    let (encoding, length) = mark(body).unwrap_or((format.encoding, 0));
    (format.container == Container::Plain && encoding == Encoding::Utf8).then_some(length)
}

/// The records of one JSON text that begins at `start`.
fn ranges(
    format: &Format,
    path: &JsonPath,
    body: &[u8],
    start: usize,
    visit: &mut dyn FnMut(Piece<'_>),
) -> Result<Found, Defect> {
    let json = &body[start..];
    let found = match &format.key_as {
        None => path.select(json, &mut |range| {
            visit(Piece::Range(range.start + start..range.end + start));
        }),
        Some(key_as) => {
            let mut written = Vec::new();
            path.select_named(json, &mut |name, range| {
                let Some(name) = name else {
                    return visit(Piece::Range(range.start + start..range.end + start));
                };
                written.clear();
                let member = (key_as.as_str(), &json[name]);
                additions::inject([member].into_iter(), &json[range], &mut written);
                visit(Piece::Written(&written));
            })
        }
    };
    found.map_err(Defect::Json)
}

/// A whole file as UTF-8.
fn hold(
    file: &mut dyn io::BufRead,
    encoding: Encoding,
    allowance: &Allowance,
    limits: &Limits,
) -> io::Result<Bytes> {
    let mut held = Vec::new();
    allowance.renew_to(limits.held_bytes_max);
    io::copy(&mut Utf8::new(file, encoding)?, &mut held)?;
    Ok(Bytes::from(held))
}

/// What the files of a container have together.
#[derive(Default)]
struct Sum {
    reached: bool,
    values: usize,
}

impl Sum {
    fn add(&mut self, found: Found) {
        if let Found::Values(values) = found {
            self.reached = true;
            self.values += values;
        }
    }

    fn found(&self) -> Found {
        if self.reached {
            Found::Values(self.values)
        } else {
            Found::Missing
        }
    }
}

#[cfg(test)]
mod tests;
