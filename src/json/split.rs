//! Finds the records of a JSON text that comes in chunks and is never held whole.
//!
//! ```text
//! chunk ─ Splitter::feed ─► ranges of records, counted from the start of the text
//!                        └► envelope: the text with its records left out, for page tokens and totals
//! ```
//!
//! An envelope longer than [`ENVELOPE_BYTES_MAX`] is let go; whether there was an array is known all the same.
//!
//! Of a record only brackets and strings are looked at: what is inside is the judge's business. The envelope is a JSON
//! text of its own and is checked as one by whoever reads it.

use std::ops::Range;

use super::{
    Defect, JsonPath, Segment,
    scan::{until_bracket, until_quote},
    text,
};

/// Longest envelope kept, in bytes.
pub const ENVELOPE_BYTES_MAX: usize = 8 << 20;

/// Splits one JSON text at the elements of one array.
///
/// ```
/// use landfall::json::{JsonPath, split::Splitter};
/// let mut splitter = Splitter::new(&JsonPath::parse("$.data[*]").unwrap()).unwrap();
/// let mut ranges = Vec::new();
/// for chunk in [&br#"{"data":[{"id""#[..], br#":1},2],"next":"B"}"#] {
///     splitter.feed(chunk, &mut |range| ranges.push(range)).unwrap();
/// }
/// assert_eq!(ranges, [9..17, 18..19]);
/// let envelope = splitter.finish().unwrap().unwrap();
/// assert_eq!(envelope.text, br#"{"data":[],"next":"B"}"#);
/// assert_eq!(envelope.records_at, 9);
/// ```
#[derive(Debug)]
pub struct Splitter {
    /// Members from the root to the array.
    names: Vec<String>,
    /// Objects entered on the way to the array.
    level: usize,
    at: At,
    /// The name being read or just read, with its quotes.
    key: Vec<u8>,
    offset: u64,
    envelope: Vec<u8>,
    /// Whether the envelope was let go.
    lost: bool,
    /// Where in the envelope the records stood.
    found: Option<usize>,
    skipped: bool,
}

/// A text without the records that were split off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// What is left, with an empty array where the records were.
    pub text: Vec<u8>,
    /// Where they were: behind the opening bracket, in this text as in the one that was split.
    pub records_at: usize,
}

/// What the next byte is part of.
#[derive(Clone, Copy, Debug)]
enum At {
    /// In front of a value that may lead to the array.
    Value,
    /// In front of a name or the end of an object on the way.
    Name,
    /// In a name.
    InName { escaped: bool },
    /// In front of the colon behind a name.
    Colon,
    /// In a value that does not lead there.
    Other(Inside),
    /// Behind a value of an object on the way.
    After,
    /// In front of a record or the end of the array.
    Record { first: bool },
    /// In a record that began there.
    InRecord { start: u64, inside: Inside },
    /// Behind a record.
    AfterRecord,
    /// Behind the whole text.
    End,
}

/// How far inside a value.
#[derive(Clone, Copy, Debug, Default)]
struct Inside {
    depth: usize,
    text: bool,
    escaped: bool,
}

/// What a byte did to the value it belongs to.
enum Step {
    Within,
    /// The value ends with this byte.
    Last,
    /// The value ended before this byte.
    Before,
}

impl Splitter {
    /// A splitter at the elements `path` selects; `None` if the path is not members and then one `[*]`.
    pub fn new(path: &JsonPath) -> Option<Self> {
        let (last, members) = path.segments.split_last()?;
        let names = members.iter().map(|segment| match segment {
            Segment::Member(name) => Some(name.clone()),
            _ => None,
        });
        let names = names.collect::<Option<Vec<String>>>()?;
        (*last == Segment::Every).then(|| Self {
            names,
            level: 0,
            at: At::Value,
            key: Vec::new(),
            offset: 0,
            envelope: Vec::new(),
            lost: false,
            found: None,
            skipped: false,
        })
    }

    /// Takes the next bytes of the text; `visit` gets the range of every record that ends in them.
    ///
    /// # Errors
    /// The first [`Defect`] met; what follows it means nothing.
    pub fn feed(&mut self, chunk: &[u8], visit: &mut dyn FnMut(Range<u64>)) -> Result<(), Defect> {
        let mut index = 0;
        // Every turn takes a byte or changes to a state that does.
        while index < chunk.len() {
            if let At::InRecord { inside, .. } | At::Other(inside) = &mut self.at {
                let within = inside.pass(&chunk[index..]);
                if matches!(self.at, At::Other(_)) {
                    self.envelope.extend_from_slice(&chunk[index..index + within]);
                }
                self.offset += within as u64;
                index += within;
                if index == chunk.len() {
                    break;
                }
            }
            if self.byte(chunk[index], visit)? {
                index += 1;
                self.offset += 1;
            }
        }
        if self.lost || self.envelope.len() > ENVELOPE_BYTES_MAX {
            self.lost = true;
            self.envelope = Vec::new();
        }
        Ok(())
    }

    /// The envelope; `None` if the path led to no array.
    ///
    /// # Errors
    /// [`Defect::Syntax`] if the text has not ended; [`Defect::TooDeep`] if there was an array and the envelope is longer
    /// than [`ENVELOPE_BYTES_MAX`].
    pub fn finish(mut self) -> Result<Option<Envelope>, Defect> {
        if let At::Other(inside) = self.at
            && self.level == 0
            && inside.depth == 0
            && !inside.text
        {
            // A number alone ends with the text.
            self.at = At::End;
        }
        match self.at {
            At::End if self.lost && self.found.is_some() => Err(Defect::TooDeep { offset: self.place() }),
            At::End => Ok(self.found.map(|records_at| Envelope {
                text: self.envelope,
                records_at,
            })),
            _ => Err(Defect::Syntax { offset: self.place() }),
        }
    }

    /// Takes `byte`, or changes the state and returns false.
    fn byte(&mut self, byte: u8, visit: &mut dyn FnMut(Range<u64>)) -> Result<bool, Defect> {
        let blank = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        match self.at {
            At::InRecord { start, mut inside } => {
                let end = match inside.take(byte) {
                    Step::Within => {
                        self.at = At::InRecord { start, inside };
                        return Ok(true);
                    }
                    Step::Last => self.offset + 1,
                    Step::Before => self.offset,
                };
                visit(start..end);
                self.at = At::AfterRecord;
                return Ok(end > self.offset);
            }
            At::Record { first } => match byte {
                _ if blank => return Ok(true),
                b']' if first => self.leave(),
                b',' | b']' | b'}' | b':' => return self.defect(),
                _ => {
                    self.at = At::InRecord {
                        start: self.offset,
                        inside: Inside::default(),
                    };
                    return Ok(false);
                }
            },
            At::AfterRecord => match byte {
                _ if blank => return Ok(true),
                b',' => {
                    self.at = At::Record { first: false };
                    return Ok(true);
                }
                b']' => self.leave(),
                _ => return self.defect(),
            },
            At::Other(mut inside) => {
                self.at = match inside.take(byte) {
                    Step::Within => At::Other(inside),
                    Step::Last => self.behind(),
                    Step::Before => {
                        self.at = self.behind();
                        return Ok(false);
                    }
                };
            }
            _ if blank && !matches!(self.at, At::InName { .. }) => {}
            At::Value => return self.value(byte),
            At::Name => match byte {
                b'"' => {
                    self.key.clear();
                    self.key.push(byte);
                    self.at = At::InName { escaped: false };
                }
                b'}' => self.leave(),
                _ => return self.defect(),
            },
            At::InName { escaped } => {
                self.key.push(byte);
                self.at = match byte {
                    b'"' if !escaped => At::Colon,
                    _ => At::InName {
                        escaped: byte == b'\\' && !escaped,
                    },
                };
            }
            At::Colon if byte == b':' => self.at = At::Value,
            At::After => match byte {
                b',' => self.at = At::Name,
                b'}' => self.leave(),
                _ => return self.defect(),
            },
            At::Colon | At::End => return self.defect(),
        }
        self.envelope.push(byte);
        Ok(true)
    }

    /// The first byte of a value that may lead to the array.
    fn value(&mut self, byte: u8) -> Result<bool, Defect> {
        let wanted = match self.level.checked_sub(1) {
            None => true,
            Some(index) => !self.skipped && text(&self.key).is_some_and(|name| name == self.names[index]),
        };
        let last = self.level == self.names.len();
        match byte {
            b'[' if wanted && last && self.found.is_none() => {
                self.found = Some(self.envelope.len() + 1);
                self.at = At::Record { first: true };
            }
            b'{' if wanted && !last && self.found.is_none() => {
                self.level += 1;
                self.at = At::Name;
            }
            _ => {
                // Of a member named twice the first is taken, even if it leads nowhere.
                self.skipped |= wanted && self.level > 0;
                self.at = At::Other(Inside::default());
                return Ok(false);
            }
        }
        self.envelope.push(byte);
        Ok(true)
    }

    /// Behind the array, or behind an object on the way.
    fn leave(&mut self) {
        let array = matches!(self.at, At::Record { .. } | At::AfterRecord);
        if !array {
            self.level -= 1;
            // What was passed over on a deeper level is passed over here too: its object was the one wanted.
            self.skipped |= self.level > 0;
        }
        self.at = self.behind();
    }

    fn behind(&self) -> At {
        if self.level == 0 { At::End } else { At::After }
    }

    fn defect<T>(&self) -> Result<T, Defect> {
        Err(Defect::Syntax { offset: self.place() })
    }

    fn place(&self) -> usize {
        usize::try_from(self.offset).unwrap_or(usize::MAX)
    }
}

impl Inside {
    /// Takes the next bytes up to the one that ends the value; how many that are.
    fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        // Every turn takes a byte.
        loop {
            at += self.plain(&bytes[at..]);
            let Some(&byte) = bytes.get(at) else {
                return at;
            };
            let mut next = *self;
            if !matches!(next.take(byte), Step::Within) {
                return at;
            }
            *self = next;
            at += 1;
        }
    }

    /// How many of the next bytes change nothing.
    #[inline]
    fn plain(&self, bytes: &[u8]) -> usize {
        if self.escaped || (self.depth == 0 && !self.text) {
            0
        } else if self.text {
            until_quote(bytes)
        } else {
            until_bracket(bytes)
        }
    }

    fn take(&mut self, byte: u8) -> Step {
        if self.text {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    self.text = false;
                    if self.depth == 0 {
                        return Step::Last;
                    }
                }
                _ => {}
            }
            return Step::Within;
        }
        match byte {
            b'"' => self.text = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' if self.depth == 0 => return Step::Before,
            b'}' | b']' => {
                self.depth -= 1;
                if self.depth == 0 {
                    return Step::Last;
                }
            }
            b',' | b' ' | b'\t' | b'\n' | b'\r' if self.depth == 0 => return Step::Before,
            _ => {}
        }
        Step::Within
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json::Found;

    fn split(path: &str, json: &[u8], cuts: &[usize]) -> Result<(Vec<Range<u64>>, Option<Envelope>), Defect> {
        let mut splitter = Splitter::new(&JsonPath::parse(path).unwrap()).unwrap();
        let mut ranges = Vec::new();
        let mut rest = json;
        for cut in cuts {
            let (chunk, after) = rest.split_at((*cut).min(rest.len()));
            splitter.feed(chunk, &mut |range| ranges.push(range))?;
            rest = after;
        }
        splitter.feed(rest, &mut |range| ranges.push(range))?;
        Ok((ranges, splitter.finish()?))
    }

    #[test]
    fn only_paths_of_members_and_one_star_can_be_split() {
        for path in ["$[*]", "$.a[*]", "$['a b'].c[*]"] {
            assert!(Splitter::new(&JsonPath::parse(path).unwrap()).is_some(), "{path}");
        }
        for path in ["$", "$.a", "$.a[0][*]", "$.a[*].b", "$[*][*]"] {
            assert!(Splitter::new(&JsonPath::parse(path).unwrap()).is_none(), "{path}");
        }
    }

    #[test]
    fn a_text_that_ends_too_soon_or_goes_on_is_a_defect() {
        for json in [
            "",
            "{",
            r#"{"d":[1"#,
            r#"{"d":[1]"#,
            r#"{"d":[1]}}"#,
            r#"{"d":[1,]}"#,
            r#"{"d":[,1]}"#,
            r#"{"d" [1]}"#,
        ] {
            assert!(split("$.d[*]", json.as_bytes(), &[]).is_err(), "{json}");
        }
        assert_eq!(split("$.d[*]", b"7", &[]), Ok((Vec::new(), None)));
    }

    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<i32>().prop_map(|number| number.to_string()),
            "[a-z\\\\\"\\[\\]{},: ]{0,6}".prop_map(|text| serde_json::to_string(&text).unwrap()),
        ];
        leaf.prop_recursive(5, 40, 5, |inner| {
            let name = prop_oneof![Just("d"), Just("e"), Just("\\u0064")];
            let blank = prop_oneof![Just(""), Just(" "), Just("\n")];
            prop_oneof![
                proptest::collection::vec((inner.clone(), blank.clone()), 0..5).prop_map(|items| {
                    let items: Vec<String> = items
                        .iter()
                        .map(|(item, blank)| format!("{blank}{item}{blank}"))
                        .collect();
                    format!("[{}]", items.join(","))
                }),
                proptest::collection::vec((name, inner, blank), 0..5).prop_map(|members| {
                    let members: Vec<String> = members
                        .iter()
                        .map(|(name, value, blank)| format!("{blank}\"{name}\"{blank}:{blank}{value}"))
                        .collect();
                    format!("{{{}}}", members.join(","))
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn chunks_of_any_size_give_what_the_whole_text_gives(
            json in json(),
            path in prop_oneof![Just("$[*]"), Just("$.d[*]"), Just("$.d.e[*]")],
            cuts in proptest::collection::vec(0usize..9, 0..12),
        ) {
            let mut whole = Vec::new();
            let found = JsonPath::parse(path).unwrap().select(json.as_bytes(), &mut |range| {
                whole.push(range.start as u64..range.end as u64);
            });
            let (ranges, envelope) = split(path, json.as_bytes(), &cuts).unwrap();
            match found.unwrap() {
                Found::Missing => prop_assert_eq!(envelope, None),
                Found::Values(_) => {
                    prop_assert_eq!(&ranges, &whole);
                    let Envelope { text: envelope, records_at } = envelope.unwrap();
                    prop_assert_eq!(&envelope[..records_at], &json.as_bytes()[..records_at]);
                    prop_assert_eq!(envelope[records_at], b']');
                    let found = JsonPath::parse(path).unwrap().select(&envelope, &mut |_| {});
                    prop_assert_eq!(found, Ok(Found::Values(0)), "{}", String::from_utf8_lossy(&envelope));
                }
            }
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = split("$.d[*]", &bytes, &[7, 7]);
        }
    }
}
