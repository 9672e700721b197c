//! One member of a record, found by reading only as far as it stands.

use super::{JsonPath, Segment, is_name, scan::Scanner, text};

/// What a member of a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// Nothing: it is not there, or null, or the record is no JSON up to there.
    Nothing,
    /// Text without its quotes, or a number, `true` or `false` as written.
    Value(std::borrow::Cow<'a, str>),
    /// An object, an array, or text that is none.
    Other,
}

impl JsonPath {
    /// Whether every step is a member of an object, and there is one.
    pub fn is_member(&self) -> bool {
        let is_member = |segment: &Segment| matches!(segment, Segment::Member(_));
        !self.segments.is_empty() && self.segments.iter().all(is_member)
    }

    /// The names of the members on the way, as far as the path [`JsonPath::is_member`].
    pub fn members(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Member(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// What the record `json` says at a path that [`JsonPath::is_member`], a member named twice by its first value.
    ///
    /// What stands behind the value is not looked at, so the record may be broken there.
    ///
    /// ```
    /// use landfall::json::{JsonPath, member::Said};
    /// let version = JsonPath::parse("$.meta.version").unwrap();
    /// let said = |record: &'static str| version.said(record.as_bytes());
    /// assert_eq!(said(r#"{"id": [1], "meta": {"version": "2\u002e0"}}"#), Said::Value("2.0".into()));
    /// assert_eq!(said(r#"{"meta": {"version": 2.50}, "#), Said::Value("2.50".into()));
    /// assert_eq!(said(r#"{"meta": {"version": null}}"#), Said::Nothing);
    /// assert_eq!(said(r#"{"meta": {"version": []}}"#), Said::Other);
    /// assert_eq!(said(r#"{"meta": 2}"#), Said::Nothing);
    /// ```
    pub fn said<'a>(&self, json: &'a [u8]) -> Said<'a> {
        let Some(value) = self.member(json) else {
            return Said::Nothing;
        };
        match value.first() {
            Some(b'n') | None => Said::Nothing,
            Some(b'"') => text(value).map_or(Said::Other, Said::Value),
            Some(b'{' | b'[') => Said::Other,
            _ => str::from_utf8(value).map_or(Said::Other, |value| Said::Value(value.into())),
        }
    }

    fn member<'a>(&self, json: &'a [u8]) -> Option<&'a [u8]> {
        let mut scanner = Scanner::new(json);
        scanner.blank();
        for segment in &self.segments {
            let Segment::Member(wanted) = segment else {
                return None;
            };
            if scanner.peek() != b'{' {
                return None;
            }
            scanner.enter().ok()?;
            let mut first = true;
            loop {
                let name = scanner.next_member(first).ok()??;
                first = false;
                if is_name(json, name, wanted) {
                    break;
                }
                scanner.skip().ok()?;
            }
        }
        let value = scanner.skip().ok()?;
        json.get(value)
    }
}
