//! Values that no column takes: counted at every depth, searched for duplicate members, rescued or refused.

use std::ops::Range;

use super::{
    ViolationClass, numbers,
    observed::{Kind, NO_PATH, Note, PathId, ROOT, write_name},
    plan::Target,
    record::{Member, Reader, decode},
    sample::{self, Aspect},
    times,
    work::Place,
};
use crate::{
    config::OnUnknown,
    json::{Defect, scan::StringToken},
};

impl Reader<'_> {
    /// A member that the contract does not name.
    pub(super) fn undeclared(&mut self, path: PathId) -> Result<(), Defect> {
        let (_, range) = self.observe(path)?;
        self.leftover(path, None, range);
        Ok(())
    }

    /// A member beyond the paths that are told apart. What is in it is not counted.
    pub(super) fn further(&mut self, parent: PathId, serial: u64, token: StringToken) -> Result<(), Defect> {
        if let Some((name, range)) = self.observe_further(parent, serial, token)? {
            self.leftover(parent, Some(&name), range);
        }
        Ok(())
    }

    /// Does with an undeclared value what the stream's policy says.
    fn leftover(&mut self, path: PathId, name: Option<&str>, range: Range<usize>) {
        // A member without a path of its own comes with the path of its object.
        let within = match name {
            Some(_) => path,
            None => self.work.observed.parent(path),
        };
        match self.unknown_in(within) {
            OnUnknown::Rescue | OnUnknown::Evolve => self.rescue(path, name, range),
            OnUnknown::Ignore => {}
            OnUnknown::Quarantine => {
                let mut place = self.path(path);
                if let Some(name) = name {
                    write_name(name, &mut place);
                }
                let hidden = self.is_classified(path);
                let found = self.found(kind_of(&self.text[range.clone()]), range, hidden);
                self.work.violate(
                    ViolationClass::UnknownField,
                    place,
                    "no such member".to_owned(),
                    found,
                );
            }
        }
    }

    /// The policy for members that the object at `path` does not name: that of the nearest object around that has one.
    fn unknown_in(&self, path: PathId) -> OnUnknown {
        if self.on_unknown_in.is_empty() {
            return self.on_unknown;
        }
        let mut at = path;
        while at != ROOT && at != NO_PATH {
            if let Some(&policy) = self.on_unknown_in.get(&at) {
                return policy;
            }
            at = self.work.observed.parent(at);
        }
        self.on_unknown
    }

    pub(super) fn duplicate(&mut self, path: PathId) -> Result<(), Defect> {
        self.scanner.skip()?;
        self.violate(
            ViolationClass::DuplicateKey,
            path,
            "each member once".to_owned(),
            "a second one".to_owned(),
        );
        Ok(())
    }

    /// Counts a value and all that is in it.
    pub(super) fn observe(&mut self, path: PathId) -> Result<(Kind, Range<usize>), Defect> {
        let start = self.scanner.at();
        let kind = match self.scanner.peek() {
            b'"' => {
                let token = self.scanner.string()?;
                if self.inspect {
                    self.inspect_text(path, token);
                }
                Kind::String
            }
            b'-' | b'0'..=b'9' => {
                let token = self.scanner.number()?;
                if self.inspect {
                    self.inspect_number(path, token.plain, token.start..token.end);
                }
                if token.plain { Kind::Integer } else { Kind::Number }
            }
            b't' => self.scanner.literal(b"true").map(|()| Kind::Boolean)?,
            b'f' => self.scanner.literal(b"false").map(|()| Kind::Boolean)?,
            b'n' => self.scanner.literal(b"null").map(|()| Kind::Null)?,
            b'{' => self.observe_object(path).map(|()| Kind::Object)?,
            b'[' => self.observe_array(path).map(|()| Kind::Array)?,
            _ => return self.scanner.defect(),
        };
        self.mark(path, kind);
        let range = start..self.scanner.at();
        let is_undeclared = |place: &Place| place.target == Target::Undeclared;
        if self.work.places.get(path as usize).is_some_and(is_undeclared) {
            let text = self.text;
            self.work
                .sample(path, Aspect::Unknown, || sample::cut(&text[range.clone()]));
        }
        Ok((kind, range))
    }

    fn observe_object(&mut self, path: PathId) -> Result<(), Defect> {
        self.scanner.enter()?;
        self.work.serial += 1;
        let serial = self.work.serial;
        let (mut previous, mut is_first) = (NO_PATH, true);
        while let Some(met) = self.member(path, previous, is_first)? {
            is_first = false;
            let member = match met {
                Member::Known(member) => member,
                Member::Further(name) => {
                    self.observe_further(path, serial, name)?;
                    continue;
                }
            };
            let place = &mut self.work.places[member as usize];
            if place.serial == serial {
                self.duplicate(member)?;
                continue;
            }
            place.serial = serial;
            previous = member;
            self.observe(member)?;
        }
        Ok(())
    }

    /// The name and the value of a member beyond the paths that are told apart, unless it is a duplicate.
    fn observe_further(
        &mut self,
        parent: PathId,
        serial: u64,
        token: StringToken,
    ) -> Result<Option<(String, Range<usize>)>, Defect> {
        let range = self.scanner.skip()?;
        self.work.overflowed += 1;
        let written = &self.text[token.start..token.end];
        let (plain, decoded) = decode(written, token.escaped, String::new());
        let name = plain.map_or(decoded, str::to_owned);
        if self.work.further.insert(serial, &name) {
            return Ok(Some((name, range)));
        }
        let mut place = self.path(parent);
        write_name(&name, &mut place);
        let expected = "each member once".to_owned();
        self.work.violate(
            ViolationClass::DuplicateKey,
            place,
            expected,
            "a second one".to_owned(),
        );
        Ok(None)
    }

    fn observe_array(&mut self, path: PathId) -> Result<(), Defect> {
        self.scanner.enter()?;
        let element = self.element_of(path);
        let depth = self.work.indices.len();
        let mut count = 0;
        self.work.indices.push(count);
        while self.scanner.next_element(count == 0)? {
            self.work.indices[depth] = count;
            if element == NO_PATH {
                self.scanner.skip()?;
                self.work.overflowed += 1;
            } else {
                self.observe(element)?;
            }
            count += 1;
        }
        self.work.indices.truncate(depth);
        Ok(())
    }

    fn inspect_text(&mut self, path: PathId, token: StringToken) {
        // Dates and times have no character that must be escaped.
        let written = &self.text[token.start..token.end];
        if times::timestamp(written, None).is_ok() {
            self.note(path, Note::Moment);
        } else if times::date(written).is_ok() {
            self.note(path, Note::Date);
        }
    }

    fn inspect_number(&mut self, path: PathId, plain: bool, range: Range<usize>) {
        let number = &self.text[range];
        if numbers::double(number).is_err() {
            self.note(path, Note::NoDouble);
        }
        if plain && numbers::integer(number).is_err() {
            self.note(path, Note::Big);
            if numbers::decimal(number, numbers::PRECISION_MAX, 0).is_err() {
                self.note(path, Note::NoDecimal);
            }
        }
    }
}

/// The kind of a well-formed value, by its text.
fn kind_of(value: &str) -> Kind {
    match value.as_bytes().first() {
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::Array,
        Some(b'"') => Kind::String,
        Some(b't' | b'f') => Kind::Boolean,
        Some(b'n') | None => Kind::Null,
        Some(_) if numbers::is_plain(value) => Kind::Integer,
        Some(_) => Kind::Number,
    }
}
