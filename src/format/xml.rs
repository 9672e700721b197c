//! Elements of XML as JSON records, one at a time.

mod element;

use std::io::{self, BufRead};

use quick_xml::{Reader, errors::Error as XmlError, events::Event};

use self::element::Element;
use crate::{
    config::format::Encoding,
    format::{Defect, container::Allowance, text::Utf8, write},
    json::{DEPTH_MAX, Found, JsonPath, Segment},
};

/// How far into a text its encoding is looked for.
const DECLARATION_BYTES_MAX: usize = 256;

/// How the records are found and written.
pub(super) struct Options<'a> {
    /// Where they are.
    pub(super) path: &'a JsonPath,
    /// Names of elements that are lists, even of one.
    pub(super) lists: &'a [String],
    /// The member that gets the name of the element that the last `.*` stands for.
    pub(super) key_as: Option<&'a str>,
}

/// The encoding of a text, as its XML declaration has it; `given` if it has none or another was given.
pub(super) fn encoding(text: &mut dyn BufRead, given: Encoding) -> io::Result<Encoding> {
    if given != Encoding::Utf8 {
        return Ok(given);
    }
    let start = text.fill_buf()?;
    // UTF-16 without a byte order mark.
    if start.starts_with(b"<\0?\0") {
        return Ok(Encoding::Utf16);
    }
    let start = &start[..start.len().min(DECLARATION_BYTES_MAX)];
    if !start.starts_with(b"<?xml") {
        return Ok(given);
    }
    let declaration = String::from_utf8_lossy(start);
    let declaration = declaration.split("?>").next().unwrap_or_default();
    let Some((_, behind)) = declaration.split_once("encoding") else {
        return Ok(given);
    };
    let named = behind.trim_start_matches(|letter: char| letter.is_whitespace() || letter == '=');
    let named = named.split(['"', '\'']).nth(1).unwrap_or_default();
    match named.to_ascii_lowercase().as_str() {
        // A text in UTF-16 could not be read so far as to say that it is.
        "utf-8" | "utf8" | "us-ascii" | "ascii" | "utf-16" => Ok(Encoding::Utf8),
        "iso-8859-1" | "latin1" => Ok(Encoding::Latin1),
        "windows-1252" | "cp1252" => Ok(Encoding::Windows1252),
        _ => Err(defect(0, "its encoding is not known here").into()),
    }
}

/// Calls `visit` with every element at the path, as a JSON object.
pub(super) fn elements(
    options: &Options<'_>,
    text: Utf8<'_>,
    allowance: &Allowance,
    visit: &mut dyn FnMut(&[u8]),
) -> io::Result<Found> {
    let Some(steps) = steps(options.path) else {
        return Ok(Found::Missing);
    };
    let mut reader = Reader::from_reader(text);
    reader.config_mut().expand_empty_elements = true;
    let mut walk = Walk {
        options,
        visit,
        matched: 0,
        seen: vec![0; steps.len() + 1],
        keys: vec![None; steps.len()],
        steps,
        open: 0,
        rooted: false,
        record: Vec::new(),
        written: Vec::new(),
        reached: false,
        count: 0,
    };
    let mut buffer = Vec::new();
    // Ends at the end of the text at the latest.
    loop {
        buffer.clear();
        if walk.record.is_empty() {
            allowance.renew();
        }
        let event = reader.read_event_into(&mut buffer);
        let done = match event {
            Ok(event) => walk
                .take(event)
                .map_err(|broken| broken.at(reader.buffer_position()))?,
            Err(XmlError::Io(error)) => return Err(copy_of(&error)),
            Err(_) => return Err(defect(reader.error_position(), "it is not well-formed").into()),
        };
        if done {
            return Ok(if walk.reached {
                Found::Values(walk.count)
            } else {
                Found::Missing
            });
        }
    }
}

/// The reader shares its errors; this one is our own.
fn copy_of(error: &io::Error) -> io::Error {
    let defect = error.get_ref().and_then(|inner| inner.downcast_ref::<Defect>());
    defect.map_or_else(|| io::Error::from(error.kind()), |defect| (*defect).into())
}

fn defect(offset: u64, problem: &'static str) -> Defect {
    Defect::Xml { offset, problem }
}

/// What is wrong with an event.
enum Broken {
    Not(&'static str),
    TooDeep,
}

impl Broken {
    fn at(&self, offset: u64) -> Defect {
        match self {
            Self::Not(problem) => defect(offset, problem),
            Self::TooDeep => Defect::TooDeep { offset },
        }
    }
}

/// One step of a path: elements of a name, or of any; all of them, or the one of a number.
struct Step {
    name: Option<String>,
    index: Option<usize>,
}

/// The steps of a path that can lead to elements.
fn steps(path: &JsonPath) -> Option<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    let mut numbered = true;
    for segment in path.segments() {
        let index = match segment {
            Segment::Member(_) | Segment::Members => {
                let name = match segment {
                    Segment::Member(name) => Some(name.clone()),
                    _ => None,
                };
                steps.push(Step { name, index: None });
                numbered = false;
                continue;
            }
            Segment::Every => None,
            Segment::Index(index) => Some(*index),
        };
        // Elements are no lists of lists.
        if numbered {
            return None;
        }
        numbered = true;
        steps.last_mut()?.index = index;
    }
    Some(steps)
}

struct Walk<'a, 'v> {
    options: &'a Options<'a>,
    visit: &'v mut dyn FnMut(&[u8]),
    steps: Vec<Step>,
    /// How many of the open elements, from the root on, are those of the path.
    matched: usize,
    /// How many elements that a step names were met, in the element that is open for the step before.
    seen: Vec<usize>,
    /// The name of the element that is open for each step that has none.
    keys: Vec<Option<String>>,
    /// Open elements outside a record.
    open: usize,
    /// Whether there was a root.
    rooted: bool,
    /// The open elements of the record in work.
    record: Vec<Element>,
    written: Vec<u8>,
    reached: bool,
    count: usize,
}

impl Walk<'_, '_> {
    /// Takes the next event; true at the end of the text.
    fn take(&mut self, event: Event<'_>) -> Result<bool, Broken> {
        match event {
            Event::Start(tag) => {
                if self.open + self.record.len() == DEPTH_MAX {
                    return Err(Broken::TooDeep);
                }
                let name = element::name(tag.name().as_ref())?;
                if !self.record.is_empty() || self.is_record(&name)? {
                    self.record.push(Element::open(name, &tag)?);
                } else {
                    self.open += 1;
                }
            }
            Event::End(_) => match self.record.pop() {
                Some(element) => match self.record.last_mut() {
                    Some(parent) => parent.children.push(element),
                    None => self.finish(&element),
                },
                None => {
                    self.open = self.open.saturating_sub(1);
                    self.matched = self.matched.min(self.open);
                }
            },
            Event::Text(text) => {
                let text = text.xml10_content().map_err(|_| Broken::Not("it is not UTF-8"))?;
                match self.record.last_mut() {
                    Some(element) => element.push(&text, false),
                    None if self.open == 0 && !text.trim().is_empty() => {
                        return Err(Broken::Not("text stands outside the root element"));
                    }
                    None => {}
                }
            }
            Event::CData(text) => {
                let text = text.xml10_content().map_err(|_| Broken::Not("it is not UTF-8"))?;
                match self.record.last_mut() {
                    Some(element) => element.push(&text, true),
                    None if self.open == 0 => {
                        return Err(Broken::Not("text stands outside the root element"));
                    }
                    None => {}
                }
            }
            Event::GeneralRef(reference) => {
                let mut letter = [0; 4];
                let text = element::referred(&reference, &mut letter)?;
                if let Some(element) = self.record.last_mut() {
                    element.push(text, true);
                }
            }
            // A document type may declare entities; none of them is ever expanded, so it is harmless.
            Event::DocType(_) | Event::Decl(_) | Event::PI(_) | Event::Comment(_) | Event::Empty(_) => {}
            Event::Eof if self.open > 0 || !self.record.is_empty() => {
                return Err(Broken::Not("it ends too soon"));
            }
            Event::Eof if !self.rooted => return Err(Broken::Not("there is no element")),
            Event::Eof => return Ok(true),
        }
        Ok(false)
    }

    /// Whether the element that opens now is a record; else it is counted as part of the way there, if it is.
    fn is_record(&mut self, name: &str) -> Result<bool, Broken> {
        if self.open == 0 {
            if self.rooted {
                return Err(Broken::Not("there is a second root element"));
            }
            self.rooted = true;
            if self.steps.is_empty() {
                return Ok(true);
            }
        }
        if self.matched < self.open {
            return Ok(false);
        }
        let Some(step) = self.steps.get(self.matched) else {
            return Ok(false);
        };
        if step.name.as_deref().is_some_and(|wanted| wanted != name) {
            return Ok(false);
        }
        let number = self.seen[self.matched];
        self.seen[self.matched] += 1;
        if step.index.is_some_and(|wanted| wanted != number) {
            return Ok(false);
        }
        if step.name.is_none() {
            self.keys[self.matched] = Some(name.to_owned());
        }
        if self.matched + 1 == self.steps.len() {
            return Ok(true);
        }
        self.matched += 1;
        self.seen[self.matched] = 0;
        // An element without any of the wanted ones is an empty list.
        self.reached |= self.matched + 1 == self.steps.len();
        Ok(false)
    }

    fn finish(&mut self, element: &Element) {
        self.reached = true;
        self.count += 1;
        self.written.clear();
        let lists = self.options.lists;
        if self.steps.is_empty() {
            self.written.push(b'{');
            write::string(element.name.as_bytes(), &mut self.written);
            self.written.push(b':');
            element.write(lists, &mut self.written);
            self.written.push(b'}');
        } else {
            let last = self.steps.iter().rposition(|step| step.name.is_none());
            let key = last.and_then(|step| self.keys[step].as_deref());
            element.write_record(lists, self.options.key_as.zip(key), &mut self.written);
        }
        (self.visit)(&self.written);
    }
}
