//! Bodies that are too large to be held, cut between their records.
//!
//! ```text
//! {"data":[ {…},{…}   ,{…},{…}   ,{…} ],"next":"B"}
//! └────── part 0 ───┘└─ part 1 ┘└────── part 2 ───┘     envelope: {"data":[],"next":"B"}
//! ```
//!
//! One behind the other the parts are the body, byte for byte. What counts as a record of a body is the same whether it is
//! read as a whole by [`records`](super::records) or part by part by [`section`].

use std::{mem, ops::Range};

use bytes::Bytes;

use crate::{
    config::{
        format::{Container, Encoding, Format, Syntax},
        records::RecordPaths,
    },
    format::{Defect, Piece, as_it_stands, lines},
    json::{
        self, Found, JsonPath,
        split::{Envelope, Splitter},
    },
};

/// How the records of a stream stand in its bodies, if these can be cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Streamed {
    /// As the elements of the array at this path.
    Elements(JsonPath),
    /// A line each.
    Lines,
}

impl Streamed {
    /// `None` for a format whose bodies have to be held as a whole.
    ///
    /// ```
    /// use landfall::{config::format::Format, format::part::Streamed, json::JsonPath};
    /// let of = |path: &str| Streamed::of(&Format::JSON, &JsonPath::parse(path).unwrap().into());
    /// assert!(of("$.data[*]").is_some());
    /// assert!(of("$.data[*].item").is_none());
    /// ```
    pub fn of(format: &Format, paths: &RecordPaths) -> Option<Self> {
        if format.container != Container::Plain || format.encoding != Encoding::Utf8 {
            return None;
        }
        match format.syntax {
            Syntax::Json => {
                let path = paths.only()?;
                Splitter::new(path).map(|_| Self::Elements(path.clone()))
            }
            Syntax::JsonLines => Some(Self::Lines),
            Syntax::Lines | Syntax::Csv(_) | Syntax::Xml(_) => None,
        }
    }

    /// The path to the records; lines need none.
    pub fn path(&self) -> Option<&JsonPath> {
        match self {
            Self::Elements(path) => Some(path),
            Self::Lines => None,
        }
    }

    fn format(&self) -> Format {
        match self {
            Self::Elements(_) => Format::JSON,
            Self::Lines => Format {
                syntax: Syntax::JsonLines,
                ..Format::JSON
            },
        }
    }
}

/// One part of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Where it begins in the body.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
    /// Where its records stand, counted from its beginning; `None` in a body that cannot be cut at records.
    pub records: Option<Range<u64>>,
}

/// What a body has been cut into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cuts {
    /// The parts in order; together they are the body.
    pub parts: Vec<Cut>,
    /// What stands around the records, or why they cannot be found. Lines have nothing around them.
    pub around: Result<Around, Defect>,
}

/// What stands around the records of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Around {
    /// A JSON text.
    Envelope(Envelope),
    /// A JSON text, and the path to the records leads nowhere in it.
    Missing,
    /// Nothing.
    Nothing,
}

/// How large parts become, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartBytes {
    /// A part ends with the first record that ends behind this length.
    pub least: u64,
    /// A body with a longer part cannot be cut at records: one of its records is too large.
    pub most: u64,
}

/// Cuts one body that comes in chunks.
#[derive(Debug)]
pub struct Cutter {
    streamed: Streamed,
    text: Text,
    size: PartBytes,
    /// Length of the byte order mark.
    mark: u64,
    /// Bytes taken, the mark included.
    taken: u64,
    parts: Parts,
    defect: Option<Defect>,
}

/// Where in the text the cutter is.
#[derive(Debug)]
enum Text {
    Elements(Box<Splitter>),
    /// In a line; whether anything but white space stood in it.
    Lines {
        blank: bool,
    },
}

/// The parts that are complete, and the open one.
#[derive(Debug, Default)]
struct Parts {
    done: Vec<Cut>,
    /// Where the open one begins.
    offset: u64,
    /// From the first record in it to the end of the last.
    records: Option<Range<u64>>,
}

impl Cutter {
    /// A cutter for a body that begins with `prefix`, which is not taken yet; `None` if its byte order mark says that it is
    /// of another encoding than UTF-8.
    pub fn new(streamed: &Streamed, prefix: &[u8], size: PartBytes) -> Option<Self> {
        let mark = as_it_stands(&streamed.format(), prefix)? as u64;
        let text = match streamed {
            Streamed::Elements(path) => Text::Elements(Box::new(Splitter::new(path)?)),
            Streamed::Lines => Text::Lines { blank: true },
        };
        Some(Self {
            streamed: streamed.clone(),
            text,
            size,
            mark,
            taken: 0,
            parts: Parts::default(),
            defect: None,
        })
    }

    /// Takes the next bytes of the body; the first chunk holds at least the byte order mark, if there is one.
    pub fn take(&mut self, chunk: &[u8]) {
        let mark = usize::try_from(self.mark.saturating_sub(self.taken)).unwrap_or(usize::MAX);
        let start = self.taken.max(self.mark);
        self.taken += chunk.len() as u64;
        if self.defect.is_some() {
            return;
        }
        let chunk = &chunk[mark.min(chunk.len())..];
        let (parts, least) = (&mut self.parts, self.size.least);
        match &mut self.text {
            Text::Elements(splitter) => {
                let shift = self.mark;
                let fed = splitter.feed(chunk, &mut |range| {
                    parts.record(range.start + shift..range.end + shift, least);
                });
                self.defect = fed.err().map(Defect::Json);
            }
            Text::Lines { blank } => {
                let mut at = start;
                for line in chunk.split_inclusive(|&byte| byte == b'\n') {
                    *blank &= line.iter().all(u8::is_ascii_whitespace);
                    at += line.len() as u64;
                    if line.ends_with(b"\n") {
                        *blank = true;
                        parts.record(parts.offset.max(self.mark)..at, least);
                    }
                }
            }
        }
        if self.defect.is_none() && self.taken - self.parts.offset > self.size.most {
            let record_bytes_max = self.size.most;
            self.defect = Some(Defect::RecordTooLarge { record_bytes_max });
        }
    }

    /// The parts, after the last chunk.
    pub fn finish(mut self) -> Cuts {
        let around = match (self.defect.take(), self.text) {
            (Some(defect), _) => Err(defect),
            (None, Text::Elements(splitter)) => envelope(&self.streamed, *splitter, self.taken - self.mark),
            (None, Text::Lines { .. }) => {
                if self.taken > self.parts.offset {
                    let start = self.parts.offset.max(self.mark);
                    self.parts.record(start..self.taken, u64::MAX);
                }
                Ok(Around::Nothing)
            }
        };
        let parts = match around {
            Ok(Around::Envelope(_) | Around::Nothing) => self.parts.end(self.taken),
            Ok(Around::Missing) | Err(_) => anywhere(self.taken, self.size.least),
        };
        Cuts { parts, around }
    }
}

impl Parts {
    /// Adds a record; the part ends with it if it is long enough.
    fn record(&mut self, record: Range<u64>, least: u64) {
        let start = self
            .records
            .as_ref()
            .map_or(record.start, |records| records.start);
        self.records = Some(start..record.end);
        if record.end - self.offset >= least {
            self.cut(record.end);
        }
    }

    fn cut(&mut self, end: u64) {
        let offset = mem::replace(&mut self.offset, end);
        let records = self.records.take().unwrap_or(offset..offset);
        self.done.push(Cut {
            offset,
            bytes: end - offset,
            records: Some(records.start - offset..records.end - offset),
        });
    }

    fn end(mut self, taken: u64) -> Vec<Cut> {
        if taken > self.offset || self.done.is_empty() {
            self.cut(taken);
        }
        self.done
    }
}

/// Parts of a body whose records cannot be found.
fn anywhere(taken: u64, bytes: u64) -> Vec<Cut> {
    let bytes = bytes.max(1);
    let offsets = (0..taken.div_ceil(bytes).max(1)).map(|number| number * bytes);
    let cut = |offset| Cut {
        offset,
        bytes: bytes.min(taken - offset),
        records: None,
    };
    offsets.map(cut).collect()
}

/// The envelope, if it is JSON; `taken` bytes were split.
fn envelope(streamed: &Streamed, splitter: Splitter, taken: u64) -> Result<Around, Defect> {
    let Some(envelope) = splitter.finish().map_err(Defect::Json)? else {
        return Ok(Around::Missing);
    };
    let Some(path) = streamed.path() else {
        return Ok(Around::Nothing);
    };
    let left_out = usize::try_from(taken).unwrap_or(usize::MAX) - envelope.text.len();
    let placed = |offset: usize| match offset {
        offset if offset > envelope.records_at => offset.saturating_add(left_out),
        offset => offset,
    };
    match path.select(&envelope.text, &mut |_| {}) {
        Ok(Found::Missing) => Ok(Around::Missing),
        Ok(Found::Values(_)) => Ok(Around::Envelope(envelope)),
        Err(defect) => Err(Defect::Json(match defect {
            json::Defect::Syntax { offset } => json::Defect::Syntax {
                offset: placed(offset),
            },
            json::Defect::NotUtf8 { offset } => json::Defect::NotUtf8 {
                offset: placed(offset),
            },
            json::Defect::TooDeep { offset } => json::Defect::TooDeep {
                offset: placed(offset),
            },
        })),
    }
}

/// What is known about a part whose records are to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// The path whose records the body was cut between; `None` for lines.
    pub path: Option<&'a str>,
    /// Where in the part its records stand; `None` in a body that could not be read.
    pub records: Option<Range<u64>>,
    /// Whether it is the first part: it speaks for a body that could not be read.
    pub first: bool,
}

/// Calls `visit` with every record of one part of a body, in order.
///
/// If the stream is read in another way by now than when the body was cut, there is [nothing](Found::Missing) to be read.
///
/// # Errors
/// [`Defect::Body`] for the first part of a body that could not be read, whose other parts have no records; else the first
/// [`Defect`] of the part.
pub fn section(
    format: &Format,
    paths: &RecordPaths,
    body: &Bytes,
    section: &Section<'_>,
    visit: &mut dyn FnMut(Piece<'_>),
) -> Result<Found, Defect> {
    let Some(records) = &section.records else {
        return if section.first {
            Err(Defect::Body)
        } else {
            Ok(Found::Values(0))
        };
    };
    let bound = |bound: u64| usize::try_from(bound).unwrap_or(usize::MAX).min(body.len());
    let (start, end) = (bound(records.start).min(bound(records.end)), bound(records.end));
    let known = section.path.map(JsonPath::parse).transpose().ok().flatten();
    match (Streamed::of(format, paths), known) {
        (Some(Streamed::Lines), None) => Ok(Found::Values(lines::ranges(&body[..end], start, visit))),
        (Some(Streamed::Elements(path)), Some(known)) if path.segments() == known.segments() => {
            let found = json::elements(&body[start..end], &mut |range| {
                visit(Piece::Range(range.start + start..range.end + start));
            });
            found.map(Found::Values).map_err(Defect::Json)
        }
        _ => Ok(Found::Missing),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::{Limits, records};

    const ANY_SIZE: u64 = u64::MAX;

    /// The parts of `body` when it comes in chunks of `chunk` bytes.
    fn cuts(streamed: &Streamed, body: &[u8], least: u64, most: u64, chunk: usize) -> Cuts {
        let size = PartBytes { least, most };
        let mut cutter = Cutter::new(streamed, body, size).unwrap();
        for chunk in body.chunks(chunk.max(3)) {
            cutter.take(chunk);
        }
        cutter.finish()
    }

    /// The records of all parts as text, or the first defect.
    fn read(
        streamed: &Streamed,
        path: &RecordPaths,
        body: &[u8],
        cuts: &Cuts,
    ) -> Result<Vec<String>, Defect> {
        let mut texts = Vec::new();
        for (number, cut) in cuts.parts.iter().enumerate() {
            let start = usize::try_from(cut.offset).unwrap();
            let part = Bytes::copy_from_slice(&body[start..start + usize::try_from(cut.bytes).unwrap()]);
            let known = streamed.path().map(ToString::to_string);
            let about = Section {
                path: known.as_deref(),
                records: cut.records.clone(),
                first: number == 0,
            };
            section(&streamed.format(), path, &part, &about, &mut |piece| {
                texts.push(String::from_utf8_lossy(piece.bytes(&part)).into_owned());
            })?;
        }
        Ok(texts)
    }

    fn elements(path: &str) -> (Streamed, RecordPaths) {
        let path = RecordPaths::from(JsonPath::parse(path).unwrap());
        (Streamed::of(&Format::JSON, &path).unwrap(), path)
    }

    fn lines() -> (Streamed, RecordPaths) {
        (Streamed::Lines, JsonPath::ROOT.into())
    }

    #[test]
    fn parts_end_with_records_and_are_the_body() {
        let (streamed, path) = elements("$.d[*]");
        let body = br#"{"d":[ 1 , 22 ,333],"next":"B"}"#;
        let cuts = cuts(&streamed, body, 4, ANY_SIZE, 3);
        let texts: Vec<(&str, Option<Range<u64>>)> = cuts
            .parts
            .iter()
            .map(|cut| {
                let range = cut.offset as usize..(cut.offset + cut.bytes) as usize;
                (std::str::from_utf8(&body[range]).unwrap(), cut.records.clone())
            })
            .collect();
        assert_eq!(
            texts,
            [
                (r#"{"d":[ 1"#, Some(7..8)),
                (" , 22", Some(3..5)),
                (" ,333", Some(2..5)),
                (r#"],"next":"B"}"#, Some(0..0)),
            ]
        );
        assert_eq!(read(&streamed, &path, body, &cuts).unwrap(), ["1", "22", "333"]);
        let Ok(Around::Envelope(envelope)) = cuts.around else {
            panic!("{:?}", cuts.around);
        };
        assert_eq!(envelope.text, br#"{"d":[],"next":"B"}"#);
    }

    #[test]
    fn a_body_that_cannot_be_read_is_cut_anywhere() {
        let (streamed, path) = elements("$.d[*]");
        for body in [&br#"{"d":[1,2"#[..], br#"{"e":[1,2]}"#, br#"{"d":[1,2],"e":tru}"#] {
            let cuts = cuts(&streamed, body, 4, ANY_SIZE, 5);
            assert!(cuts.parts.iter().all(|cut| cut.records.is_none()), "{cuts:?}");
            assert_eq!(
                cuts.parts.iter().map(|cut| cut.bytes).sum::<u64>(),
                body.len() as u64
            );
            assert_eq!(read(&streamed, &path, body, &cuts), Err(Defect::Body));
        }
    }

    #[test]
    fn a_defect_is_told_where_it_stands_in_the_body() {
        let (streamed, path) = elements("$.d[*]");
        for body in [
            &br#"{"a":tru ,"d":[1,2]}"#[..],
            br#"{"d":[1,2],"e":tru}"#,
            b"{\"d\":[1,2],\"e\":\"\xff\"}",
        ] {
            let whole = path.only().unwrap().select(body, &mut |_| {}).unwrap_err();
            assert_eq!(
                cuts(&streamed, body, 4, ANY_SIZE, 5).around,
                Err(Defect::Json(whole))
            );
        }
    }

    #[test]
    fn f039_a_record_longer_than_may_be_held_is_a_defect() {
        let defect = Err(Defect::RecordTooLarge { record_bytes_max: 64 });
        let long = "x".repeat(100);
        for (streamed, body) in [
            (elements("$[*]").0, format!("[1,\"{long}\"]")),
            (elements("$[*]").0, format!("[1,{}2]", " ".repeat(100))),
            (Streamed::Lines, format!("1\n\"{long}\"\n")),
        ] {
            assert_eq!(
                cuts(&streamed, body.as_bytes(), 8, 64, 7).around,
                defect,
                "{body}"
            );
            assert!(
                cuts(&streamed, body.as_bytes(), 8, 200, 7).around.is_ok(),
                "{body}"
            );
        }
    }

    #[test]
    fn parts_mean_nothing_to_a_stream_that_is_read_in_another_way() {
        let body = Bytes::from_static(b"1,2");
        let about = |path| Section {
            path,
            records: Some(0..3),
            first: true,
        };
        let path = |text: &str| RecordPaths::from(JsonPath::parse(text).unwrap());
        let lines = Streamed::Lines.format();
        let table = [
            (&Format::JSON, "$.d[*]", Some("$['d'][*]"), Found::Values(2)),
            (&Format::JSON, "$.e[*]", Some("$.d[*]"), Found::Missing),
            (&Format::JSON, "$.d[*].x", Some("$.d[*]"), Found::Missing),
            (&Format::JSON, "$.d[*]", None, Found::Missing),
            (&lines, "$", None, Found::Values(1)),
            (&lines, "$", Some("$.d[*]"), Found::Missing),
        ];
        for (format, now, then, expected) in table {
            let found = section(format, &path(now), &body, &about(then), &mut |_| {});
            assert_eq!(found, Ok(expected), "{now} {then:?}");
        }
        // Facts that lie about their page are no reason to panic.
        let lie = Section {
            path: Some("$[*]"),
            records: Some(Range { start: 9, end: 2 }),
            first: true,
        };
        assert!(section(&Format::JSON, &path("$[*]"), &body, &lie, &mut |_| {}).is_ok());
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_text() {
        let (streamed, path) = elements("$[*]");
        let body = b"\xef\xbb\xbf[1,2,3]";
        let parts = cuts(&streamed, body, 2, ANY_SIZE, 4);
        assert_eq!(read(&streamed, &path, body, &parts).unwrap(), ["1", "2", "3"]);
        let body = b"\xef\xbb\xbf1\n2\n3";
        let parts = cuts(&Streamed::Lines, body, 2, ANY_SIZE, 4);
        assert_eq!(
            read(&Streamed::Lines, &JsonPath::ROOT.into(), body, &parts).unwrap(),
            ["1", "2", "3"]
        );
        let size = PartBytes { least: 1, most: 9 };
        assert!(Cutter::new(&streamed, b"\xff\xfe[\0]\0", size).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn parts_of_any_size_hold_the_records_of_the_whole(
            json in "[ \\n]?(\\{\"n\":\\{\"x\":1\\},\"d\": )?\\[((([0-9]|\"[a\\]\\\\\\[,]{0,3}\"|\\{\"d\":\\[1,2\\]\\}) ?, ){0,6}7 ?)?\\](,\"e\":[0-9]\\})?\\n?",
            path in prop_oneof![Just("$[*]"), Just("$.d[*]")],
            least in 1u64..40,
            chunk in 3usize..20,
        ) {
            let (streamed, path) = elements(path);
            let body = Bytes::from(json.clone());
            let mut whole = Vec::new();
            let found = records(&Format::JSON, &path, &body, &Limits::DEFAULT, &mut |piece| {
                whole.push(String::from_utf8_lossy(piece.bytes(&body)).into_owned());
            });
            let cuts = cuts(&streamed, &body, least, ANY_SIZE, chunk);
            let joined: Vec<u8> = cuts.parts.iter().flat_map(|cut| {
                body[cut.offset as usize..(cut.offset + cut.bytes) as usize].to_vec()
            }).collect();
            prop_assert_eq!(&joined, &body);
            let parted = read(&streamed, &path, &body, &cuts);
            match (found, &cuts.around) {
                (Ok(Found::Values(_)), Ok(Around::Envelope(_))) => prop_assert_eq!(parted, Ok(whole)),
                (Ok(Found::Missing), Ok(Around::Missing)) => prop_assert_eq!(parted, Err(Defect::Body)),
                (Err(_), _) => prop_assert!(parted.is_err(), "{} {:?}", json, parted),
                other => prop_assert!(false, "{} {:?}", json, other),
            }
        }

        #[test]
        fn parts_of_lines_hold_the_lines_of_the_whole(
            text in "(\u{feff})?([0-9a-z ]{0,5}\r?\n?){0,12}",
            least in 1u64..20,
            chunk in 3usize..20,
        ) {
            let (streamed, path) = lines();
            let body = Bytes::from(text);
            let mut whole = Vec::new();
            let found = records(&streamed.format(), &path, &body, &Limits::DEFAULT, &mut |piece| {
                whole.push(String::from_utf8_lossy(piece.bytes(&body)).into_owned());
            });
            prop_assert!(found.is_ok());
            let cuts = cuts(&streamed, &body, least, ANY_SIZE, chunk);
            prop_assert_eq!(cuts.parts.iter().map(|cut| cut.bytes).sum::<u64>(), body.len() as u64);
            prop_assert_eq!(read(&streamed, &path, &body, &cuts), Ok(whole));
        }
    }
}
