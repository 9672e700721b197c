//! A JSON scanner that keeps byte positions and never alters a value.
//!
//! It checks syntax (RFC 8259) and UTF-8, and finds values by path; what a value means is up to the caller.
//!
//! ```text
//! page ─ JsonPath::select ─► byte ranges of records ─ Scanner (in the judge) ─► tokens
//! ```
//!
//! Nothing here recurses over the text and nothing is allocated per value, so hostile nesting costs neither stack nor heap.

pub mod canonical;
pub(crate) mod digits;
pub mod member;
pub(crate) mod quoted;
pub(crate) mod scan;
pub mod split;

use std::{borrow::Cow, fmt, ops::Range, str};

use scan::{Scanner, StringToken, backslash, hex4};

/// Deepest nesting of arrays and objects that is read.
pub const DEPTH_MAX: usize = 128;

/// Most segments of a path. A longer one could not match, because nothing is nested that deep.
const SEGMENTS_MAX: usize = DEPTH_MAX;

/// Why bytes are not one JSON text, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// Not RFC 8259 at this byte; the length of the text if it ends too soon.
    Syntax {
        /// Counted from the start of the text.
        offset: usize,
    },
    /// Not UTF-8 at this byte.
    NotUtf8 {
        /// Counted from the start of the text.
        offset: usize,
    },
    /// Nested deeper than [`DEPTH_MAX`] at this byte.
    TooDeep {
        /// Counted from the start of the text.
        offset: usize,
    },
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { offset } => write!(f, "not JSON at byte {offset}"),
            Self::NotUtf8 { offset } => write!(f, "not UTF-8 at byte {offset}"),
            Self::TooDeep { offset } => write!(f, "nested deeper than {DEPTH_MAX} at byte {offset}"),
        }
    }
}

/// What a path led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The part before the first `[*]` or `.*` leads nowhere, or to something that is not an array or not an object.
    Missing,
    /// This many values, 0 for an empty array or object.
    Values(usize),
}

/// A path to values in a JSON text: a subset of RFC 9535.
///
/// `$`, `.name`, `['name']`, `[3]`, `[*]` and `.*`; no filters, slices, unions or recursive descent.
/// `[*]` is every element of an array and `.*` every member of an object; RFC 9535 lets both mean either, and then a
/// page whose array became an object would go unnoticed. Of a member named twice the first is taken, by `.*` each.
///
/// ```
/// use landfall::json::{Found, JsonPath};
/// let path = JsonPath::parse("$.data[*].id").unwrap();
/// let mut ids = Vec::new();
/// let found = path.select(br#"{"data": [{"id": 1}, {}, {"id": 2}]}"#, &mut |range| ids.push(range.start));
/// assert_eq!(found, Ok(Found::Values(2)));
/// assert!(JsonPath::parse("$..id").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath {
    text: Cow<'static, str>,
    segments: Vec<Segment>,
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// `.name`
    Member(String),
    /// `.*`
    Members,
    /// `[3]`
    Index(usize),
    /// `[*]`
    Every,
}

impl JsonPath {
    /// `$`: the whole text.
    pub const ROOT: Self = Self {
        text: Cow::Borrowed("$"),
        segments: Vec::new(),
    };

    /// Reads a path.
    ///
    /// # Errors
    /// One sentence for the user that says what is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut segments = Vec::new();
        let Some(mut rest) = text.strip_prefix('$') else {
            return Err(format!("{text:?} is not a JSONPath: it must start with `$`"));
        };
        while !rest.is_empty() {
            let (segment, after) = parse_segment(rest).map_err(|what| format!("{text:?}: {what}"))?;
            segments.push(segment);
            if segments.len() > SEGMENTS_MAX {
                return Err(format!("{text:?} has more than {SEGMENTS_MAX} segments"));
            }
            rest = after;
        }
        Ok(Self {
            text: Cow::Owned(text.to_owned()),
            segments,
        })
    }

    /// Calls `visit` with the byte range of each selected value, in document order. The whole text is checked, also behind the last match.
    ///
    /// Of a selected value only the brackets, tokens and commas are checked here: its depth and its UTF-8 are
    /// the judge's business, so that one broken record does not take the others of its page with it.
    ///
    /// # Errors
    /// The first [`Defect`] of the text. Values visited before it was met count for nothing.
    pub fn select(&self, json: &[u8], visit: &mut dyn FnMut(Range<usize>)) -> Result<Found, Defect> {
        self.select_named(json, &mut |_, range| visit(range))
    }

    /// As [`JsonPath::select`]; before the range of the value comes that of the name, in its quotes, of the member that
    /// the last `.*` on the way to it stood for.
    ///
    /// # Errors
    /// The first [`Defect`] of the text.
    pub fn select_named(
        &self,
        json: &[u8],
        visit: &mut dyn FnMut(Option<Range<usize>>, Range<usize>),
    ) -> Result<Found, Defect> {
        let mut selection = Selection {
            scanner: Scanner::new(json),
            visit,
            name: None,
            utf8_until: 0,
            count: 0,
            reached: false,
        };
        selection.scanner.blank();
        selection.walk(&self.segments)?;
        selection.scanner.end()?;
        utf8_in(json, selection.utf8_until..json.len())?;
        Ok(if selection.reached {
            Found::Values(selection.count)
        } else {
            Found::Missing
        })
    }

    /// The bytes of the first selected value, or `None`.
    ///
    /// # Errors
    /// The first [`Defect`] of the text.
    pub fn first<'a>(&self, json: &'a [u8]) -> Result<Option<&'a [u8]>, Defect> {
        let mut first = None;
        self.select(json, &mut |range| {
            first.get_or_insert(range);
        })?;
        Ok(first.map(|range| &json[range]))
    }

    /// Whether the two part on the way, each into another member: then neither selects anything of what the other does.
    pub(crate) fn parts_from(&self, other: &Self) -> bool {
        let steps = self.segments.iter().zip(&other.segments);
        let mut parted = steps.map(|steps| match steps {
            (Segment::Member(mine), Segment::Member(theirs)) => (mine != theirs).then_some(true),
            _ => Some(false),
        });
        parted.find_map(|parted| parted).unwrap_or(false)
    }

    /// Whether all it selects are the elements of one array: members, then one `[*]`.
    pub(crate) fn is_one_array(&self) -> bool {
        let (last, members) = match self.segments.split_last() {
            Some((last, members)) => (last, members),
            None => return false,
        };
        *last == Segment::Every && members.iter().all(|step| matches!(step, Segment::Member(_)))
    }

    /// The steps of the path.
    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Calls `visit` with the byte range of each of the values that stand in `json` one behind the other with commas
/// between them, as the elements of an array do without its brackets. Returns how many there are.
///
/// What is checked of a value is what [`JsonPath::select`] checks of one it selects.
///
/// # Errors
/// The first [`Defect`]. Values visited before it was met count for nothing.
///
/// ```
/// let mut count = 0;
/// assert_eq!(landfall::json::elements(b"1 , {} ", &mut |_| count += 1), Ok(2));
/// assert!(landfall::json::elements(b"1,", &mut |_| {}).is_err());
/// ```
pub fn elements(json: &[u8], visit: &mut dyn FnMut(Range<usize>)) -> Result<usize, Defect> {
    let mut scanner = Scanner::new(json);
    scanner.blank();
    if scanner.at() == json.len() {
        return Ok(0);
    }
    let mut count = 0;
    // Every turn takes a value.
    loop {
        visit(scanner.skip_to(usize::MAX)?);
        count += 1;
        scanner.blank();
        if scanner.at() == json.len() {
            return Ok(count);
        }
        scanner.comma()?;
    }
}

/// The text of a JSON string given with its quotes, or `None` if the bytes are not a valid JSON string.
///
/// A lone surrogate escape (`"\ud800"`) has no text, so it gives `None` too.
///
/// ```
/// use landfall::json::text;
/// assert_eq!(text(br#""caf\u00e9""#).as_deref(), Some("café"));
/// assert_eq!(text(b"7"), None);
/// ```
pub fn text(value: &[u8]) -> Option<Cow<'_, str>> {
    if value.first() != Some(&b'"') {
        return None;
    }
    let mut scanner = Scanner::new(value);
    let token = scanner.string().ok()?;
    if scanner.at() != value.len() || scanner.lone_surrogate.is_some() {
        return None;
    }
    let inner = str::from_utf8(&value[token.start..token.end]).ok()?;
    if !token.escaped {
        return Some(Cow::Borrowed(inner));
    }
    let mut decoded = String::with_capacity(inner.len());
    unescape(inner, &mut decoded).then_some(Cow::Owned(decoded))
}

/// Appends the text that `inner` (the inside of a JSON string) stands for; false if it has none.
pub(crate) fn unescape(inner: &str, out: &mut String) -> bool {
    let mut rest = inner;
    while let Some(at) = backslash(rest.as_bytes()) {
        out.push_str(&rest[..at]);
        let escape = &rest.as_bytes()[at + 1..];
        let mut length = 2;
        let letter = match escape.first() {
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(&byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'u') => {
                let Some(unit) = hex4(&escape[1..]) else {
                    return false;
                };
                length = 6;
                let second = escape.get(5..7) == Some(b"\\u");
                let low = if second { hex4(&escape[7..]) } else { None };
                let code = match (unit, low) {
                    (0xD800..=0xDBFF, Some(low @ 0xDC00..=0xDFFF)) => {
                        length = 12;
                        0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
                    }
                    _ => unit,
                };
                let Some(letter) = char::from_u32(code) else {
                    return false;
                };
                letter
            }
            _ => return false,
        };
        out.push(letter);
        rest = &rest[at + length..];
    }
    out.push_str(rest);
    true
}

struct Selection<'a, 'v> {
    scanner: Scanner<'a>,
    visit: &'v mut dyn FnMut(Option<Range<usize>>, Range<usize>),
    /// The name that the last `.*` stands for at the moment.
    name: Option<Range<usize>>,
    /// Everything before this byte is UTF-8 or inside a selected value.
    utf8_until: usize,
    count: usize,
    /// Whether the first `[*]` met an array or the first `.*` an object, or the value was found if there is none.
    reached: bool,
}

impl Selection<'_, '_> {
    /// Recurses at most as deep as the path is long.
    fn walk(&mut self, path: &[Segment]) -> Result<(), Defect> {
        let Some((segment, rest)) = path.split_first() else {
            let range = self.scanner.skip_to(usize::MAX)?;
            utf8_in(self.scanner.bytes(), self.utf8_until..range.start)?;
            self.utf8_until = range.end;
            self.reached = true;
            self.count += 1;
            (self.visit)(self.name.clone(), range);
            return Ok(());
        };
        match (segment, self.scanner.peek()) {
            (Segment::Member(wanted), b'{') => self.member(wanted, rest),
            (Segment::Members, b'{') => self.members(rest),
            (Segment::Index(_) | Segment::Every, b'[') => self.elements(segment, rest),
            _ => self.scanner.skip().map(drop),
        }
    }

    fn member(&mut self, wanted: &str, rest: &[Segment]) -> Result<(), Defect> {
        self.scanner.enter()?;
        let (mut first, mut done) = (true, false);
        while let Some(name) = self.scanner.next_member(first)? {
            first = false;
            if !done && is_name(self.scanner.bytes(), name, wanted) {
                done = true;
                self.walk(rest)?;
            } else {
                self.scanner.skip()?;
            }
        }
        Ok(())
    }

    fn members(&mut self, rest: &[Segment]) -> Result<(), Defect> {
        self.scanner.enter()?;
        self.reached = true;
        let mut first = true;
        while let Some(name) = self.scanner.next_member(first)? {
            first = false;
            // The token is the inside of the quotes.
            self.name = Some(name.start - 1..name.end + 1);
            self.walk(rest)?;
        }
        Ok(())
    }

    fn elements(&mut self, segment: &Segment, rest: &[Segment]) -> Result<(), Defect> {
        self.scanner.enter()?;
        if *segment == Segment::Every {
            self.reached = true;
        }
        let mut index = 0;
        while self.scanner.next_element(index == 0)? {
            if *segment == Segment::Every || *segment == Segment::Index(index) {
                self.walk(rest)?;
            } else {
                self.scanner.skip()?;
            }
            index += 1;
        }
        Ok(())
    }
}

/// Whether a member's name as written stands for `wanted`.
fn is_name(bytes: &[u8], name: StringToken, wanted: &str) -> bool {
    let written = &bytes[name.start..name.end];
    if !name.escaped {
        return written == wanted.as_bytes();
    }
    let mut decoded = String::new();
    str::from_utf8(written).is_ok_and(|inner| unescape(inner, &mut decoded)) && decoded == wanted
}

/// The bytes as text.
///
/// # Errors
/// [`Defect::NotUtf8`].
#[inline]
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, Defect> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| Defect::NotUtf8 {
        offset: bytes.utf8_chunks().next().map_or(0, |chunk| chunk.valid().len()),
    })
}

/// Whether a part of a text is UTF-8.
fn utf8_in(bytes: &[u8], range: Range<usize>) -> Result<(), Defect> {
    let start = range.start;
    match utf8(&bytes[range]) {
        Ok(_) => Ok(()),
        Err(Defect::NotUtf8 { offset }) => Err(Defect::NotUtf8 {
            offset: start + offset,
        }),
        Err(defect) => Err(defect),
    }
}

/// The first segment of a path behind `$`, and what follows it.
fn parse_segment(rest: &str) -> Result<(Segment, &str), String> {
    if rest.starts_with("..") {
        return Err("recursive descent (`..`) is not supported".to_owned());
    }
    if let Some(after) = rest.strip_prefix(".*") {
        return Ok((Segment::Members, after));
    }
    if let Some(rest) = rest.strip_prefix('.') {
        let length = rest.find(|letter| !is_name_letter(letter)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(length);
        if name.is_empty() || name.starts_with(|letter: char| letter.is_ascii_digit()) {
            return Err(
                "a name is missing behind `.`; write `['…']` around names of other characters".to_owned(),
            );
        }
        return Ok((Segment::Member(name.to_owned()), after));
    }
    let Some(rest) = rest.strip_prefix('[') else {
        let hint = "write `.name`, `['name']`, `[3]`, `[*]` or `.*`";
        return Err(format!(
            "`{}` is not understood: {hint}",
            rest.chars().take(20).collect::<String>()
        ));
    };
    let rest = rest.trim_start();
    let (segment, after) = match rest.chars().next() {
        Some('*') => (Segment::Every, &rest[1..]),
        Some(quote @ ('\'' | '"')) => {
            let (name, after) = parse_quoted(&rest[1..], quote)?;
            (Segment::Member(name), after)
        }
        _ => {
            let (digits, after) = rest.split_at(
                rest.find(|letter: char| !letter.is_ascii_digit())
                    .unwrap_or(rest.len()),
            );
            let canonical = digits == "0" || !digits.starts_with('0');
            match digits.parse() {
                Ok(index) if canonical => (Segment::Index(index), after),
                _ => return Err("only `['name']`, `[3]` and `[*]` may stand in brackets".to_owned()),
            }
        }
    };
    match after.trim_start().strip_prefix(']') {
        Some(after) => Ok((segment, after)),
        None => Err("`]` is missing; unions, slices and filters are not supported".to_owned()),
    }
}

fn is_name_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_' || !letter.is_ascii()
}

/// The name in quotes whose opening quote was read, and what follows its closing quote.
fn parse_quoted(rest: &str, quote: char) -> Result<(String, &str), String> {
    let mut inner = String::new();
    let mut letters = rest.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            _ if letter == quote => {
                let mut name = String::new();
                if unescape(&inner, &mut name) {
                    return Ok((name, &rest[at + 1..]));
                }
                return Err(format!("{inner:?} holds an escape that is not JSON's"));
            }
            '\\' => match letters.next() {
                // Only the quote in use may be escaped; JSON itself has no `\'`.
                Some((_, '\'')) if quote == '\'' => inner.push('\''),
                Some((_, escaped)) => inner.extend(['\\', escaped]),
                None => break,
            },
            _ => inner.push(letter),
        }
    }
    Err(format!("the closing {quote} is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(path: &str, json: &str) -> (Vec<String>, Result<Found, Defect>) {
        let mut values = Vec::new();
        let found = JsonPath::parse(path)
            .unwrap()
            .select(json.as_bytes(), &mut |range| values.push(json[range].to_owned()));
        (values, found)
    }

    fn check(json: &[u8]) -> Result<(), Defect> {
        // A path that selects nothing has the whole text checked.
        JsonPath::parse("$['no such member']")
            .unwrap()
            .select(json, &mut |_| {})
            .map(drop)
    }

    #[test]
    fn paths_part_only_at_members_of_different_names() {
        let table = [
            ("$.next", "$.data[*]", true),
            ("$.page.next", "$.page.data[*]", true),
            ("$.data[0].next", "$.data[*]", false),
            ("$.data", "$.data[*]", false),
            ("$", "$.data[*]", false),
            ("$[0]", "$[*]", false),
            ("$.*.next", "$.data[*]", false),
            ("$.next", "$[*]", false),
        ];
        for (path, records, part) in table {
            let [path, records] = [path, records].map(|text| JsonPath::parse(text).unwrap());
            assert_eq!(path.parts_from(&records), part, "{path} and {records}");
        }
    }

    #[test]
    fn paths_lead_to_values_in_document_order() {
        let page = r#" {"a": null, "data": [ {"id": 1, "t": [1,2]}, {"t": []}, {"id": "x y", "t": [3]} ], "n": {"k'": [[5]]}} "#;
        let cases: [(&str, &[&str], Found); 18] = [
            (
                "$.data[*].*",
                &["1", "[1,2]", "[]", r#""x y""#, "[3]"],
                Found::Values(5),
            ),
            ("$.n.*[*]", &["[5]"], Found::Values(1)),
            ("$.data.*", &[], Found::Missing),
            ("$.none.*", &[], Found::Missing),
            ("$.data[*].id", &["1", r#""x y""#], Found::Values(2)),
            ("$.data[*].t[*]", &["1", "2", "3"], Found::Values(3)),
            ("$.data[1].t", &["[]"], Found::Values(1)),
            ("$.data[1].t[*]", &[], Found::Values(0)),
            ("$.data[9].t[*]", &[], Found::Missing),
            ("$.data[*].none[*]", &[], Found::Values(0)),
            ("$.none[*]", &[], Found::Missing),
            ("$.a[*]", &[], Found::Missing),
            ("$.n[*]", &[], Found::Missing),
            ("$.a", &["null"], Found::Values(1)),
            ("$.a.b", &[], Found::Missing),
            ("$.n['k\\''][0][0]", &["5"], Found::Values(1)),
            ("$[\"n\"][ \"k'\" ][*]", &["[5]"], Found::Values(1)),
            ("$[*]", &[], Found::Missing),
        ];
        for (path, values, found) in cases {
            let values: Vec<String> = values.iter().map(|&value| value.to_owned()).collect();
            assert_eq!(select(path, page), (values, Ok(found)), "{path}");
        }
        assert_eq!(select("$", " [1] ").0, ["[1]"]);
        assert_eq!(select("$[*]", "[1, {},\"]\"]").0, ["1", "{}", "\"]\""]);
    }

    #[test]
    fn of_a_member_named_twice_the_first_is_selected() {
        assert_eq!(
            select("$.a", r#"{"a":1,"a":2}"#),
            (vec!["1".to_owned()], Ok(Found::Values(1)))
        );
    }

    #[test]
    fn an_escaped_member_name_is_compared_by_what_it_stands_for() {
        assert_eq!(select("$.data", r#"{"d\u0061ta":7}"#).0, ["7"]);
        assert_eq!(select("$['\\u0061\\n']", r#"{"a\n":7}"#).0, ["7"]);
    }

    #[test]
    fn what_is_no_path_is_refused_with_a_reason() {
        for (path, reason) in [
            ("data", "must start with `$`"),
            ("$..a", "recursive descent"),
            ("$.", "name is missing"),
            ("$.*a", "`a` is not understood"),
            ("$.1a", "name is missing"),
            ("$.a-b", "`-b` is not understood"),
            ("$[?(@.a)]", "in brackets"),
            ("$[1:2]", "`]` is missing"),
            ("$['a','b']", "`]` is missing"),
            ("$[-1]", "in brackets"),
            ("$[01]", "in brackets"),
            ("$['a", "closing '"),
            ("$['\\q']", "escape"),
            ("$ .a", "is not understood"),
        ] {
            let error = JsonPath::parse(path).unwrap_err();
            assert!(error.contains(reason), "{path}: {error}");
        }
    }

    #[test]
    fn only_rfc_8259_is_accepted() {
        let good = [
            "0",
            "-0",
            "1.0",
            "1e9",
            "1E+9",
            "-1.5e-3",
            "\"\"",
            "\"\\u0000\\/\"",
            "true",
            "null",
            " [ ] ",
            "{}",
            "[1,2]",
            "{\"a\":{\"b\":[]}}",
            "\"\\ud83d\\ude00\"",
            "\"\\ud800\"",
            "\u{2028}",
            "\r\n\t 1",
        ];
        for json in good {
            let expected = if json == "\u{2028}" {
                Err(Defect::Syntax { offset: 0 })
            } else {
                Ok(())
            };
            assert_eq!(check(json.as_bytes()), expected, "{json:?}");
        }
        let bad: [(&str, usize); 30] = [
            ("", 0),
            (" ", 1),
            ("01", 1),
            ("-", 1),
            ("1.", 2),
            (".5", 0),
            ("+1", 0),
            ("1e", 2),
            ("1e+", 3),
            ("NaN", 0),
            ("Infinity", 0),
            ("-Infinity", 1),
            ("nul", 3),
            ("True", 0),
            ("'a'", 0),
            ("\"", 1),
            ("\"\\x\"", 2),
            ("\"\\u12\"", 5),
            ("\"\n\"", 1),
            ("[1,]", 3),
            ("[,1]", 1),
            ("{\"a\":1,}", 7),
            ("{a:1}", 1),
            ("{\"a\" 1}", 5),
            ("[1}", 2),
            ("{\"a\":1]", 6),
            ("1 2", 2),
            ("[1]]", 3),
            ("\u{feff}1", 0),
            ("/* */1", 0),
        ];
        for (json, offset) in bad {
            assert_eq!(check(json.as_bytes()), Err(Defect::Syntax { offset }), "{json:?}");
        }
    }

    #[test]
    fn f123_bytes_that_are_not_utf8_are_a_defect_outside_records_and_kept_inside() {
        for bytes in [
            &b"\"\xff\""[..],
            b"\"\xc0\x80\"",
            b"\"\xed\xa0\x80\"",
            b"\"\xe2\x82\"",
            b"\"\xf5\x80\x80\x80\"",
        ] {
            assert_eq!(check(bytes), Err(Defect::NotUtf8 { offset: 1 }), "{bytes:x?}");
            assert_eq!(text(bytes), None);
        }
        let page = b"{\"d\":[\"ok\",\"\xff\",\"ok\"]}";
        let mut count = 0;
        let path = JsonPath::parse("$.d[*]").unwrap();
        assert_eq!(path.select(page, &mut |_| count += 1), Ok(Found::Values(3)));
        assert_eq!(
            path.select(b"{\"d\":[1],\"\xff\":1}", &mut |_| {}),
            Err(Defect::NotUtf8 { offset: 10 })
        );
    }

    #[test]
    fn f099_nesting_is_capped_without_using_the_stack() {
        let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert_eq!(check(&nested(DEPTH_MAX)), Ok(()));
        assert_eq!(
            check(&nested(DEPTH_MAX + 1)),
            Err(Defect::TooDeep { offset: DEPTH_MAX })
        );
        let run = move || {
            let deep = nested(1_000_000);
            assert_eq!(check(&deep), Err(Defect::TooDeep { offset: DEPTH_MAX }));
            assert_eq!(
                check(&vec![b'['; 10_000_000]),
                Err(Defect::TooDeep { offset: DEPTH_MAX })
            );
            assert_eq!(
                check("{\"a\":".repeat(100_000).as_bytes()),
                Err(Defect::TooDeep {
                    offset: 5 * DEPTH_MAX
                })
            );
            // A record that is too deep is selected whole; the judge refuses it and no other.
            let page = [b"[1,".as_slice(), &deep, b",2]"].concat();
            let mut sizes = Vec::new();
            JsonPath::parse("$[*]")
                .unwrap()
                .select(&page, &mut |range| sizes.push(range.len()))
                .unwrap();
            assert_eq!(sizes, [1, 2_000_000, 1]);
        };
        std::thread::Builder::new()
            .stack_size(2 << 20)
            .spawn(run)
            .unwrap()
            .join()
            .unwrap();
    }

    #[test]
    fn f123_text_is_decoded_exactly_or_not_at_all() {
        for (value, decoded) in [
            (r#""a""#, Some("a")),
            (r#""""#, Some("")),
            (r#""\u0000\b\f\n\r\t\"\\\/""#, Some("\0\u{8}\u{c}\n\r\t\"\\/")),
            (r#""\ud83d\ude00!""#, Some("😀!")),
            (r#""\uFEFFx\u202E""#, Some("\u{feff}x\u{202e}")),
            (r#""\ud800""#, None),
            (r#""\ude00\ud83d""#, None),
            (r#""\ud83d\u0041""#, None),
            (r#""a"b""#, None),
            (r#" "a""#, None),
            ("null", None),
            ("", None),
        ] {
            assert_eq!(text(value.as_bytes()).as_deref(), decoded, "{value}");
        }
        assert!(matches!(text(b"\"plain\""), Some(Cow::Borrowed("plain"))));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]

        #[test]
        fn syntax_is_what_serde_json_says(json in "[\\[\\]{}\",:0-9eE.+\\-\\\\untrfalseé \u{1}]{0,12}") {
            let theirs = serde_json::from_str::<&serde_json::value::RawValue>(&json).is_ok();
            proptest::prop_assert_eq!(check(json.as_bytes()).is_ok(), theirs, "{}", json);
        }
    }
}
