//! Whether a body can be read as records: syntax and limits alone. What a record means is judged after it has landed.

use std::{fmt, ops::Range};

use bytes::Bytes;

use crate::{
    config::{format::Format, push::Push, records::RecordPaths},
    fields::{pair, parts},
    format::{self, Limits, pushed},
    json::{Defect, JsonPath, scan::Scanner},
    serve::{
        call::HEADER_KEPT_BYTES_MAX,
        problem::{Fault, Problem, code::Code},
    },
};

/// Most records that are reported one by one; the answer says how many more there are.
pub(crate) const RESULTS_MAX: usize = 400;

/// Marks UTF-8. JSON texts must not begin with it (RFC 8259, section 8.1).
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Names of UTF-8, and of what is part of it.
const CHARSETS: [&str; 3] = ["utf-8", "utf8", "us-ascii"];

/// What a body of records is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One JSON text: an object, or an array of objects.
    Json,
    /// One JSON text a line.
    Lines,
}

/// What a body was found to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checked {
    /// Records that can be read.
    pub(crate) accepted: u64,
    /// Records that cannot.
    pub(crate) rejected: u64,
    /// The first of those, in order.
    pub(crate) bad: Vec<Bad>,
}

/// A record that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bad {
    /// Its place among the records of the body, from 0.
    pub(crate) index: u64,
    /// Why.
    pub(crate) fault: Unreadable,
}

/// Why a record cannot be read. The words are those that its quarantined record will have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Not RFC 8259, or not UTF-8.
    NotJson {
        /// Byte of the record.
        offset: usize,
    },
    /// Nested too deeply.
    TooDeep,
    /// A number, a text, an array, or nothing.
    NotAnObject,
}

impl Form {
    /// The form that a media type names; parameters other than `charset=utf-8` have no meaning for it.
    ///
    /// # Errors
    /// `unsupported_media_type`.
    pub(crate) fn of(content_type: Option<&str>) -> Result<Self, Problem> {
        let unsupported = |detail: &'static str| Problem::new(Code::UnsupportedMediaType, detail);
        let Some(text) = content_type else {
            return Err(unsupported("the Content-Type header stands not once"));
        };
        if text.len() > HEADER_KEPT_BYTES_MAX {
            // It is kept with the body: by it the records are read later.
            return Err(unsupported("the Content-Type header is too long"));
        }
        let (media, parameters) = text.split_once(';').unwrap_or((text, ""));
        for parameter in parts(parameters, b';') {
            let name = parameter.split('=').next().unwrap_or_default();
            let is_known = |value: &str| CHARSETS.iter().any(|known| value.eq_ignore_ascii_case(known));
            if name.trim().eq_ignore_ascii_case("charset")
                && !pair(parameter).is_some_and(|(_, value)| is_known(&value))
            {
                return Err(unsupported("the body must be UTF-8"));
            }
        }
        match media.trim().to_ascii_lowercase().as_str() {
            "application/json" => Ok(Self::Json),
            lines if pushed::is_lines(lines) => Ok(Self::Lines),
            _ => Err(unsupported(
                "records are application/json or application/x-ndjson",
            )),
        }
    }
}

/// Reads `body` as records within the limits of `push`.
///
/// An array that is not JSON to its end is no array at all; of a record in it that is, only depth, UTF-8 and kind are
/// left to be wrong. That is how it will be read after it has landed.
///
/// # Errors
/// `body_malformed`, `body_too_deep` if nothing of it can be read; `too_many_records`, `record_too_large`.
pub(crate) fn check(form: Form, body: &[u8], push: &Push) -> Result<Checked, Problem> {
    if body.starts_with(BYTE_ORDER_MARK) {
        return Err(malformed("#", "the body begins with a byte order mark"));
    }
    let mut tally = Tally {
        push,
        checked: Checked::default(),
        count: 0,
        refused: None,
    };
    match form {
        Form::Lines => lines(body, &mut |line| tally.take(&body[line])),
        Form::Json => {
            let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
            match first {
                None => return Err(malformed("#", "the body is empty")),
                Some(b'[') => array(body, &mut tally)?,
                Some(_) => tally.take(body.trim_ascii()),
            }
        }
    }
    if let Some(refused) = tally.refused {
        return Err(refused);
    }
    let checked = tally.checked;
    match checked.bad.first() {
        Some(bad) if checked.accepted == 0 => Err(unreadable(form, bad)),
        None if checked.accepted == 0 && form == Form::Lines => {
            Err(malformed("#", "the body has no records"))
        }
        _ => Ok(checked),
    }
}

/// Reads the lines of `part` as records within the limits of `push`, also if none of them is one: part of something larger.
///
/// # Errors
/// `record_too_large`, `too_many_records`.
pub(crate) fn check_part(part: &[u8], push: &Push) -> Result<Checked, Problem> {
    let mut tally = Tally {
        push,
        checked: Checked::default(),
        count: 0,
        refused: None,
    };
    lines(part, &mut |line| tally.take(&part[line]));
    match tally.refused {
        Some(refused) => Err(refused),
        None => Ok(tally.checked),
    }
}

/// Whether the records that a webhook's body will be read as, by the settings of its stream, are within the limits of
/// `push`. A body that cannot be read is: it is landed, and judged later.
///
/// # Errors
/// `too_many_records`, `record_too_large`.
pub(crate) fn within(
    format: &Format,
    records: &RecordPaths,
    body: &Bytes,
    push: &Push,
) -> Result<(), Problem> {
    // What is packed within the body is of no more use than what it is packed in.
    let limits = Limits {
        decoded_bytes_max: push.bytes_max,
        held_bytes_max: push.bytes_max,
        record_bytes_max: push.record_bytes_max,
        ..Limits::DEFAULT
    };
    let (mut count, mut refused) = (0, None);
    let found = format::records(format, records, body, &limits, &mut |piece| {
        if refused.is_none() {
            refused = over(push, count, piece.bytes(body).len() as u64);
            count += 1;
        }
    });
    match (refused, found) {
        (Some(problem), _) => Err(problem),
        (None, Err(format::Defect::RecordTooLarge { .. })) => over(push, count, u64::MAX).map_or(Ok(()), Err),
        (None, _) => Ok(()),
    }
}

/// Why the record at `index`, from 0, with so many bytes is not within the limits of `push`.
fn over(push: &Push, index: u64, bytes: u64) -> Option<Problem> {
    if index >= push.records_max {
        let detail = format!(
            "a request to this stream may have {} records (records_max)",
            push.records_max
        );
        return Some(Problem::new(Code::TooManyRecords, detail));
    }
    if bytes <= push.record_bytes_max {
        return None;
    }
    let detail = format!(
        "a record of this stream may have {} bytes (record_bytes_max)",
        push.record_bytes_max
    );
    let fault = Fault {
        pointer: format!("#/{index}"),
        detail: "the record is larger".to_owned(),
        code: Some("too_large".to_owned()),
    };
    Some(Problem::new(Code::RecordTooLarge, detail).at(fault))
}

/// The problem of a body of which no record can be read.
fn unreadable(form: Form, bad: &Bad) -> Problem {
    let code = match bad.fault {
        Unreadable::TooDeep => Code::BodyTooDeep,
        _ => Code::BodyMalformed,
    };
    let detail = match form {
        Form::Json => "nothing in the body can be read as a record",
        Form::Lines => "no line of the body can be read as a record",
    };
    Problem::new(code, detail).at(bad.to_fault())
}

fn malformed(pointer: &str, detail: &str) -> Problem {
    let fault = Fault {
        pointer: pointer.to_owned(),
        detail: detail.to_owned(),
        code: Some("not_json".to_owned()),
    };
    Problem::new(Code::BodyMalformed, "the body cannot be parsed").at(fault)
}

fn array(body: &[u8], tally: &mut Tally<'_>) -> Result<(), Problem> {
    let every = JsonPath::parse("$[*]").map_err(|_| Problem::new(Code::Internal, "the log has the cause"))?;
    let found = every.select(body, &mut |range| tally.take(&body[range]));
    match found {
        Ok(_) => Ok(()),
        Err(Defect::TooDeep { .. }) => Err(Problem::new(Code::BodyTooDeep, "the body is nested too deeply")),
        Err(defect) => Err(malformed("#", &defect.to_string())),
    }
}

/// Shows every line that is not blank, without its end.
fn lines(body: &[u8], visit: &mut dyn FnMut(Range<usize>)) {
    let mut from = 0;
    while from < body.len() {
        let length = body[from..].iter().position(|byte| *byte == b'\n');
        let end = length.map_or(body.len(), |length| from + length);
        let line = &body[from..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !line.iter().all(u8::is_ascii_whitespace) {
            visit(from..from + line.len());
        }
        from = end + 1;
    }
}

struct Tally<'a> {
    push: &'a Push,
    checked: Checked,
    count: u64,
    /// Why the whole body is refused.
    refused: Option<Problem>,
}

impl Tally<'_> {
    fn take(&mut self, record: &[u8]) {
        if self.refused.is_some() {
            return;
        }
        let index = self.count;
        self.count += 1;
        self.refused = over(self.push, index, record.len() as u64);
        if self.refused.is_some() {
            return;
        }
        match read(record) {
            Ok(()) => self.checked.accepted += 1,
            Err(fault) => {
                self.checked.rejected += 1;
                if self.checked.bad.len() < RESULTS_MAX {
                    self.checked.bad.push(Bad { index, fault });
                }
            }
        }
    }
}

fn read(record: &[u8]) -> Result<(), Unreadable> {
    let mut scanner = Scanner::new(record);
    scanner.blank();
    let is_object = scanner.peek() == b'{';
    let read = scanner.skip().and_then(|_| scanner.end());
    read.map_err(|defect| match defect {
        Defect::TooDeep { .. } => Unreadable::TooDeep,
        Defect::Syntax { offset } | Defect::NotUtf8 { offset } => Unreadable::NotJson { offset },
    })?;
    if let Err(error) = str::from_utf8(record) {
        return Err(Unreadable::NotJson {
            offset: error.valid_up_to(),
        });
    }
    if is_object {
        Ok(())
    } else {
        Err(Unreadable::NotAnObject)
    }
}

impl Bad {
    /// The place in the body and what is wrong there.
    pub(crate) fn to_fault(self) -> Fault {
        Fault {
            pointer: format!("#/{}", self.index),
            detail: self.fault.to_string(),
            code: Some(self.fault.code().to_owned()),
        }
    }
}

impl Unreadable {
    /// The name by which programs know it.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::NotJson { .. } => "not_json",
            Self::TooDeep => "too_deep",
            Self::NotAnObject => "not_an_object",
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson { offset } => write!(f, "not JSON at byte {offset} of the record"),
            Self::TooDeep => f.write_str("nested too deeply"),
            Self::NotAnObject => f.write_str("not an object"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many records can be read, and which cannot and why; or the code of the problem.
    type Found = Result<(u64, Vec<(u64, &'static str)>), &'static str>;

    fn found(form: Form, body: &[u8]) -> Found {
        let checked = check(form, body, &Push::DEFAULT).map_err(|problem| problem.code().row().name)?;
        let bad = checked.bad.iter().map(|bad| (bad.index, bad.fault.code()));
        Ok((checked.accepted, bad.collect()))
    }

    #[test]
    fn f099_nesting_costs_neither_stack_nor_more_than_its_record() {
        let deep = |levels: usize| format!("{}{}", "{\"a\":".repeat(levels), "0").into_bytes();
        let closed = |levels: usize| [deep(levels), b"}".repeat(levels)].concat();
        assert_eq!(found(Form::Json, &closed(128)), Ok((1, vec![])));
        assert_eq!(found(Form::Json, &closed(129)), Err("body_too_deep"));
        assert_eq!(found(Form::Json, &closed(100_000)), Err("body_too_deep"));
        let lines = [closed(100_000), b"\n{}".to_vec()].concat();
        assert_eq!(found(Form::Lines, &lines), Ok((1, vec![(0, "too_deep")])));
        let array = [b"[{},".to_vec(), closed(1000), b"]".to_vec()].concat();
        assert_eq!(found(Form::Json, &array), Ok((1, vec![(1, "too_deep")])));
        assert_eq!(found(Form::Json, &b"[".repeat(10_000_000)), Err("body_malformed"));
    }

    #[test]
    fn media_types_are_read_without_regard_to_case_and_only_utf8_is_taken() {
        for (text, form) in [
            ("application/json", Some(Form::Json)),
            ("Application/JSON;charset=\"UTF-8\"", Some(Form::Json)),
            ("application/json; profile=x", Some(Form::Json)),
            ("application/x-ndjson", Some(Form::Lines)),
            ("application/jsonl ; charset=utf8", Some(Form::Lines)),
            ("application/json; charset=utf-16", None),
            ("text/plain", None),
            ("application/json, application/json", None),
            ("", None),
        ] {
            assert_eq!(Form::of(Some(text)).ok(), form, "{text}");
        }
        assert!(Form::of(None).is_err());
    }

    proptest! {
        #[test]
        fn every_line_counts_once_and_nothing_panics(
            lines in prop::collection::vec("\\{\"a\":[0-9]{1,3}\\}|\\[\\]|\\{|[0-9]{1,2}|[^\n]{0,6}", 0..20),
            ends in prop_oneof![Just("\n"), Just("\r\n")],
        ) {
            let body = lines.join(ends);
            prop_assume!(!body.as_bytes().starts_with(BYTE_ORDER_MARK));
            let count = body.split('\n').filter(|line| !line.bytes().all(|byte| byte.is_ascii_whitespace())).count();
            if let Ok(checked) = check(Form::Lines, body.as_bytes(), &Push::DEFAULT) {
                prop_assert_eq!(checked.accepted + checked.rejected, count as u64);
                prop_assert_eq!(checked.rejected, checked.bad.len() as u64);
            }
        }

        #[test]
        fn any_bytes_are_counted_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (found(Form::Json, &body), found(Form::Lines, &body));
        }

        #[test]
        fn what_is_accepted_is_json(body in "[\\[\\]{}\",:0-9a \\\\\n]{0,16}") {
            if found(Form::Json, body.as_bytes()).is_ok_and(|(_, bad)| bad.is_empty()) {
                prop_assert!(serde_json::from_str::<&serde_json::value::RawValue>(&body).is_ok());
            }
        }
    }
}
