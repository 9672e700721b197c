//! What a body says about progress: how many records, how far their cursors reach.

use std::{fmt, ops::Range, sync::Arc};

use bytes::Bytes;

use crate::{
    clock::Timestamp,
    config::{Stream, format::Syntax, incremental::Incremental},
    extract::{
        cursor::{self, Rank},
        paginate::prints::Prints,
        spool::Spool,
    },
    format::{
        self, Defect, Piece,
        part::{self, Cut, Section},
    },
    json::{self, Found, JsonPath},
    raw::Part,
};

/// What extraction wants to know of a page. Nothing about the records is judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Records at the records path.
    pub records: u64,
    /// The last record as JSON text, as it stands in the body if that is JSON.
    pub last: Option<Bytes>,
    /// The greatest cursor that counts.
    pub cursor_max: Option<Rank>,
    /// The cursor of the last record that has one.
    pub cursor_last: Option<Rank>,
    /// Records without a readable cursor; they never move the watermark.
    pub cursors_missing: u64,
    /// Records whose cursor is further in the future than the stream's skew allows; they are kept and never move the
    /// watermark.
    pub cursors_future: u64,
    /// Records whose cursor is less than the lower bound of the window.
    pub cursors_before: u64,
    /// Records whose cursor is less than that of the record before.
    pub cursors_unsorted: u64,
    /// The body without its records, for paths elsewhere; none if they do not stand side by side in it.
    pub around: Option<Bytes>,
    /// What guards compare of the records of a body that is in a file.
    pub prints: Option<Arc<Prints>>,
}

/// Why a body cannot be taken for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// There is no body.
    Empty,
    /// It is not JSON, or not what else the stream's format says.
    NotJson(Defect),
    /// It is in a file that cannot be read back.
    Lost,
    /// It can be read, but the records path leads nowhere: not the same as no records.
    RecordsMissing,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty body"),
            Self::Lost => f.write_str("the file of the body cannot be read back"),
            Self::NotJson(defect) => defect.fmt(f),
            Self::RecordsMissing => f.write_str("records path missing"),
        }
    }
}

/// What the cursors of a page are compared with.
struct Cursors<'a> {
    incremental: &'a Incremental,
    horizon: Option<Rank>,
    bound: Option<Rank>,
}

/// A reading that is being made.
struct Reader<'a> {
    reading: Reading,
    cursors: Option<Cursors<'a>>,
    /// Where the first record begins, if the records stand in the body.
    first: Option<usize>,
    last: Last,
}

impl<'a> Reader<'a> {
    fn new(stream: &'a Stream, now: Timestamp, previous: Option<Rank>, bound: Option<Rank>) -> Self {
        let cursors = stream.incremental.as_ref().map(|incremental| Cursors {
            incremental,
            horizon: cursor::horizon(incremental, now),
            bound,
        });
        Self {
            reading: Reading {
                cursor_last: previous,
                ..Reading::default()
            },
            cursors,
            first: None,
            last: Last::None,
        }
    }

    fn take(&mut self, body: &Bytes, piece: Piece<'_>) {
        if let Some(cursors) = &self.cursors {
            self.reading.take(cursors, piece.bytes(body));
        }
        if let (None, Piece::Range(range)) = (self.first, &piece) {
            self.first = Some(range.start);
        }
        self.last.set(piece);
    }

    /// What of `body` is left without the records, if it is JSON with all of them in one array.
    fn around(&self, stream: &Stream, body: &Bytes) -> Option<Bytes> {
        let (Some(first), Last::Range(last)) = (self.first, &self.last) else {
            return None;
        };
        let is_json = stream.format.syntax == Syntax::Json;
        if !is_json || !stream.records.only().is_some_and(JsonPath::is_one_array) {
            return None;
        }
        let rest = [body.get(..first)?, body.get(last.end..)?].concat();
        let document = format::document(&stream.format, &rest.into(), &format::Limits::DEFAULT);
        document.ok().flatten()
    }

    /// Keeps the last record of `body`; if there is none, that of the part before.
    fn keep(&mut self, body: &Bytes) {
        let last = std::mem::replace(&mut self.last, Last::None);
        self.reading.last = last.into_bytes(body).or(self.reading.last.take());
    }
}

/// The last record seen: a place in the body, or what was written for it.
enum Last {
    None,
    Range(Range<usize>),
    Written(Vec<u8>),
}

/// Reads a body fetched at `now`; `previous` is the last cursor of the page before, `bound` the window's lower bound.
///
/// # Errors
/// [`Unreadable`] is a value about the body, to be decided upon.
pub fn read(
    stream: &Stream,
    body: &Bytes,
    now: Timestamp,
    previous: Option<Rank>,
    bound: Option<Rank>,
) -> Result<Reading, Unreadable> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Unreadable::Empty);
    }
    let limits = &format::Limits::DEFAULT;
    let mut reader = Reader::new(stream, now, previous, bound);
    let found = format::records(&stream.format, &stream.records, body, limits, &mut |piece| {
        reader.take(body, piece);
    });
    match found.map_err(Unreadable::NotJson)? {
        Found::Missing => Err(Unreadable::RecordsMissing),
        Found::Values(records) => {
            let around = reader.around(stream, body);
            reader.keep(body);
            Ok(Reading {
                records: records as u64,
                around,
                ..reader.reading
            })
        }
    }
}

/// As [`read`], for a body that is in a file. One part of it is held at a time.
///
/// # Errors
/// As in [`read`]; [`Unreadable::Lost`] if the file fails.
pub fn read_spool(
    stream: &Stream,
    spool: &Spool,
    now: Timestamp,
    previous: Option<Rank>,
    bound: Option<Rank>,
) -> Result<Reading, Unreadable> {
    if let Some(fault) = spool.fault {
        return Err(fault);
    }
    let mut reader = Reader::new(stream, now, previous, bound);
    let mut prints = Prints::default();
    for (number, cut) in spool.cuts.iter().enumerate() {
        let body = spool.part(cut).map_err(|_| Unreadable::Lost)?;
        let section = spool.section(number);
        let found = part::section(&stream.format, &stream.records, &body, &section, &mut |piece| {
            prints.add(piece.bytes(&body));
            reader.take(&body, piece);
        });
        match found.map_err(|defect| Unreadable::NotJson(moved(defect, cut, &section)))? {
            Found::Missing => return Err(Unreadable::RecordsMissing),
            Found::Values(records) => reader.reading.records += records as u64,
        }
        reader.keep(&body);
    }
    if reader.reading.records == 0 && spool.is_in_lines() {
        return Err(Unreadable::Empty);
    }
    reader.reading.prints = Some(Arc::new(prints));
    Ok(reader.reading)
}

/// As [`read`], for a page that may be a part of a body.
///
/// # Errors
/// As in [`read`].
pub fn read_page(
    stream: &Stream,
    body: &Bytes,
    part: Option<&Part>,
    now: Timestamp,
) -> Result<Reading, Unreadable> {
    let Some(part) = part else {
        return read(stream, body, now, None, None);
    };
    let mut reader = Reader::new(stream, now, None, None);
    let found = part::section(
        &stream.format,
        &stream.records,
        body,
        &section_of(part),
        &mut |piece| {
            reader.take(body, piece);
        },
    );
    match found.map_err(Unreadable::NotJson)? {
        Found::Missing => Err(Unreadable::RecordsMissing),
        Found::Values(records) => {
            reader.reading.records = records as u64;
            reader.keep(body);
            Ok(reader.reading)
        }
    }
}

/// What the facts of a part say to those who read its records.
pub(crate) fn section_of(part: &Part) -> Section<'_> {
    Section {
        path: part.path.as_deref(),
        records: part.records.map(|(start, end)| start..end),
        first: part.index == 0,
    }
}

/// The defect of a part, with its place in the whole body.
fn moved(defect: Defect, cut: &Cut, section: &Section<'_>) -> Defect {
    let start = section.records.as_ref().map_or(0, |records| records.start);
    let placed = |offset: usize| {
        usize::try_from(cut.offset + start)
            .unwrap_or(usize::MAX)
            .saturating_add(offset)
    };
    match defect {
        Defect::Json(json::Defect::Syntax { offset }) => Defect::Json(json::Defect::Syntax {
            offset: placed(offset),
        }),
        other => other,
    }
}

impl Last {
    fn set(&mut self, piece: Piece<'_>) {
        match (piece, self) {
            // One buffer for all records of the page.
            (Piece::Written(bytes), Self::Written(last)) => {
                last.clear();
                last.extend_from_slice(bytes);
            }
            (Piece::Written(bytes), last) => *last = Self::Written(bytes.to_vec()),
            (Piece::Range(range), last) => *last = Self::Range(range),
        }
    }

    fn into_bytes(self, body: &Bytes) -> Option<Bytes> {
        match self {
            Self::None => None,
            Self::Range(range) => Some(body.slice(range)),
            Self::Written(bytes) => Some(Bytes::from(bytes)),
        }
    }
}

impl Reading {
    /// Whether the page lies before the window: it has records, and each is less than the lower bound.
    ///
    /// Where the newest come first, no page after it has anything to say.
    pub fn is_behind(&self) -> bool {
        self.records > 0 && self.cursors_before == self.records
    }

    fn take(&mut self, cursors: &Cursors<'_>, record: &[u8]) {
        let incremental = cursors.incremental;
        // A record is checked with its page; a defect is reported there.
        let value = incremental.cursor.first(record).ok().flatten();
        let Some(rank) = value.and_then(|value| cursor::rank(incremental, value)) else {
            self.cursors_missing += 1;
            return;
        };
        if self.cursor_last.is_some_and(|last| rank < last) {
            self.cursors_unsorted += 1;
        }
        self.cursor_last = Some(rank);
        if cursors.horizon.is_some_and(|horizon| rank > horizon) {
            self.cursors_future += 1;
            return;
        }
        if cursor::is_behind(rank, cursors.bound) {
            self.cursors_before += 1;
        }
        self.cursor_max = self.cursor_max.max(Some(rank));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        config::{
            format::{Container, Csv, Format, Syntax},
            incremental::CursorFormat,
            paginate::Paginate,
            parse_timestamp,
        },
        extract::tests::server::{incremental, source},
        json::JsonPath,
    };

    /// A stream with the cursor `$.t`.
    fn stream(format: CursorFormat) -> Stream {
        let base = "http://127.0.0.1:1".parse().unwrap();
        let mut stream = source(&base, Paginate::Single).streams.remove(0);
        stream.records = JsonPath::parse("$[*]").unwrap().into();
        stream.incremental = Some(Incremental {
            format,
            ..incremental(Duration::ZERO)
        });
        stream
    }

    fn noon() -> Timestamp {
        parse_timestamp("2024-05-01T12:00:00Z").unwrap()
    }

    fn bound(text: &str) -> Option<Rank> {
        CursorFormat::Rfc3339.rank(text)
    }

    #[test]
    fn f053_f051_cursors_are_counted_for_what_they_are() {
        let body = Bytes::from_static(
            br#"[{"t":"2024-05-01T08:00:00Z"},{"t":"2024-05-01T07:59:59Z"},{"t":"2999-01-01T00:00:00Z"},{"t":"soon"},{}]"#,
        );
        let stream = stream(CursorFormat::Rfc3339);
        let reading = read(&stream, &body, noon(), None, bound("2024-05-01T08:00:00Z")).unwrap();
        let expected = Reading {
            records: 5,
            last: Some(Bytes::from_static(b"{}")),
            cursor_max: bound("2024-05-01T08:00:00Z"),
            cursor_last: bound("2999-01-01T00:00:00Z"),
            cursors_missing: 2,
            cursors_future: 1,
            cursors_before: 1,
            cursors_unsorted: 1,
            around: Some(Bytes::from_static(b"[]")),
            prints: None,
        };
        assert_eq!(reading, expected);
        assert!(!reading.is_behind());
    }

    #[test]
    fn what_stands_around_the_records_is_kept_where_it_is_a_text_of_its_own() {
        let table = [
            (
                "$.data[*]",
                r#"{"data":[ {"next":1}, 2 ],"next":"B"}"#,
                Some(r#"{"data":[  ],"next":"B"}"#),
            ),
            ("$.data[*]", r#"{"data":[],"next":"B"}"#, None),
            (
                "$.data[*].rows[*]",
                r#"{"data":[{"rows":[1]},{"rows":[2]}]}"#,
                None,
            ),
            ("$.data.*", r#"{"data":{"a":1}}"#, None),
            ("$.data[0]", r#"{"data":[1]}"#, None),
        ];
        for (path, body, around) in table {
            let mut stream = stream(CursorFormat::Rfc3339);
            stream.records = JsonPath::parse(path).unwrap().into();
            let reading = read(&stream, &Bytes::from(body), noon(), None, None).unwrap();
            assert_eq!(reading.around, around.map(Bytes::from), "{path} in {body}");
        }
    }

    #[test]
    fn a_page_is_behind_if_every_record_is() {
        let table = [
            (
                r#"[{"t":"2024-04-01T00:00:00Z"},{"t":"2024-03-01T00:00:00Z"}]"#,
                true,
            ),
            // At the bound others may follow that share it (F052).
            (
                r#"[{"t":"2024-05-01T00:00:00Z"},{"t":"2024-03-01T00:00:00Z"}]"#,
                false,
            ),
            (r#"[{"t":"2024-04-01T00:00:00Z"},{}]"#, false),
            (
                r#"[{"t":"2999-04-01T00:00:00Z"},{"t":"2024-04-01T00:00:00Z"}]"#,
                false,
            ),
            ("[]", false),
        ];
        let stream = stream(CursorFormat::Rfc3339);
        for (body, expected) in table {
            let body = Bytes::from_static(body.as_bytes());
            let reading = read(&stream, &body, noon(), None, bound("2024-05-01T00:00:00Z")).unwrap();
            assert_eq!(reading.is_behind(), expected, "{body:?}");
            assert!(!read(&stream, &body, noon(), None, None).unwrap().is_behind());
        }
    }

    #[test]
    fn records_are_read_in_the_format_of_the_stream() {
        let mut stream = stream(CursorFormat::Date);
        let csv = Csv {
            nulls: Vec::new(),
            delimiter: b',',
            quote: Some(b'"'),
            columns: None,
            skip_lines: 0,
        };
        let lines = b"{\"t\":\"2024-04-30\"}\n{\"t\":\"2024-04-29\"}\n";
        let gzip = {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut encoder, lines).unwrap();
            encoder.finish().unwrap()
        };
        let table = [
            (Container::Plain, Syntax::JsonLines, lines.to_vec()),
            (Container::Gzip, Syntax::JsonLines, gzip),
            (
                Container::Plain,
                Syntax::Csv(csv),
                b"t\n2024-04-30\n2024-04-29\n".to_vec(),
            ),
        ];
        for (container, syntax, body) in table {
            stream.format = Format {
                container,
                syntax,
                ..Format::JSON
            };
            let reading = read(&stream, &Bytes::from(body), noon(), None, None).unwrap();
            assert_eq!(reading.records, 2, "{:?}", stream.format);
            assert_eq!(reading.last.as_deref(), Some(&b"{\"t\":\"2024-04-29\"}"[..]));
            assert_eq!(reading.cursor_max, CursorFormat::Date.rank("2024-04-30"));
            assert_eq!(reading.cursors_unsorted, 1);
        }
        stream.format.container = Container::Gzip;
        let read = read(&stream, &Bytes::from_static(b"plain"), noon(), None, None);
        assert!(matches!(read, Err(Unreadable::NotJson(_))), "{read:?}");
    }
}
