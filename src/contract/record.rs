//! One pass over one record: decodes it into columns, judges it, counts what it was like.
//!
//! Recursion follows the nesting of the record, which the scanner caps; nothing is allocated for a record that is accepted.

use std::{collections::HashMap, ops::Range};

use super::{
    ViolationClass,
    columns::{Value, Values},
    numbers,
    observed::{Kind, NEW_VALUES_MAX, NO_PATH, Note, PathId, ROOT, write_escaped, write_name},
    plan::{Hidden, Role, Slot, SlotKind, Target},
    sample::{self, Aspect},
    times,
    work::{Place, Work},
};
use crate::{
    config::OnUnknown,
    json::{
        self, Defect,
        digits::Fixed,
        scan::{Scanner, StringToken},
    },
};

/// Most characters of a value that a violation quotes.
const EXCERPT_CHARS_MAX: usize = 60;

/// Most bytes that one record may have in `_rescued`, where paths stand beside the values.
pub(crate) const RESCUED_BYTES_MAX: usize = 256 << 20;

/// Texts of one column whose format is looked at, of each batch.
const FORMAT_TEXTS_MAX: u64 = 64;

/// Reads one record.
pub(crate) struct Reader<'r> {
    pub(crate) text: &'r str,
    pub(crate) scanner: Scanner<'r>,
    pub(crate) work: &'r mut Work,
    pub(crate) on_unknown: OnUnknown,
    /// What objects say themselves of members that they do not name, and of those of objects in them.
    pub(crate) on_unknown_in: &'r HashMap<PathId, OnUnknown>,
    pub(crate) hidden: &'r Hidden,
    /// Whether something else than an object on the way to columns goes to `_rescued`.
    pub(crate) rescue_mismatch: bool,
    /// Whether formats of undeclared values are counted too.
    pub(crate) inspect: bool,
}

/// A member of an object, by its name.
#[derive(Clone, Copy)]
pub(super) enum Member {
    Known(PathId),
    /// Beyond the paths that are told apart.
    Further(StringToken),
}

impl<'r> Reader<'r> {
    /// The record that starts here with `{`.
    pub(crate) fn record(&mut self, slots: &[Slot], columns: &mut [Values]) -> Result<(), Defect> {
        let rows = self.work.rows;
        self.mark(ROOT, Kind::Object);
        self.object(ROOT, slots, columns, rows)?;
        self.scanner.end()
    }

    /// An object whose members go to `columns`; each of these is `rows + 1` long afterwards.
    fn object(
        &mut self,
        path: PathId,
        slots: &[Slot],
        columns: &mut [Values],
        rows: usize,
    ) -> Result<(), Defect> {
        let filled = self.members(path, slots, columns)?;
        if filled == slots.len() {
            return Ok(());
        }
        for (slot, column) in slots.iter().zip(columns) {
            if column.len() == rows {
                column.push_null();
                if slot.required {
                    let class = match slot.role {
                        Role::Key => ViolationClass::KeyMissing,
                        Role::Other => ViolationClass::RequiredMissing,
                    };
                    self.work.sample(slot.path, Aspect::Absent, String::new);
                    self.violate(class, slot.path, slot.expected.clone(), "nothing".to_owned());
                }
            }
        }
        Ok(())
    }

    /// The members of an object, and of objects within that are only passed through. Returns how many columns they filled.
    fn members(&mut self, path: PathId, slots: &[Slot], columns: &mut [Values]) -> Result<usize, Defect> {
        self.scanner.enter()?;
        self.work.serial += 1;
        let serial = self.work.serial;
        let (mut previous, mut is_first, mut filled) = (NO_PATH, true, 0);
        while let Some(met) = self.member(path, previous, is_first)? {
            is_first = false;
            let member = match met {
                Member::Known(member) => member,
                Member::Further(name) => {
                    self.further(path, serial, name)?;
                    continue;
                }
            };
            let place = &mut self.work.places[member as usize];
            previous = member;
            if place.serial == serial {
                self.duplicate(member)?;
                continue;
            }
            place.serial = serial;
            match place.target {
                Target::Undeclared => self.undeclared(member)?,
                Target::Within => filled += self.within(member, slots, columns)?,
                Target::Slot(slot) => {
                    let slot = slot as usize;
                    self.value(&slots[slot], &mut columns[slot])?;
                    filled += 1;
                }
            }
        }
        Ok(filled)
    }

    /// The next member of the object at `parent`, up to its value. It is usually the one that followed the last time.
    #[inline(always)]
    pub(super) fn member(
        &mut self,
        parent: PathId,
        previous: PathId,
        is_first: bool,
    ) -> Result<Option<Member>, Defect> {
        let guess = match self.work.places.get(previous as usize) {
            Some(place) => place.next,
            None => self.work.places[parent as usize].first,
        };
        if !self.scanner.reach_name(is_first)? {
            return Ok(None);
        }
        if self.is_next(guess)? {
            return Ok(Some(Member::Known(guess)));
        }
        self.other_member(parent, previous, guess).map(Some)
    }

    /// Whether the next member is the one with this path; then stops at its value.
    #[inline(always)]
    fn is_next(&mut self, path: PathId) -> Result<bool, Defect> {
        let Some(place) = self.work.places.get(path as usize) else {
            return Ok(false);
        };
        let name = || self.work.observed.name(path);
        self.scanner.expected_name(place.quoted, name)
    }

    /// The next member where `guess` was expected.
    #[inline(never)]
    fn other_member(&mut self, parent: PathId, previous: PathId, guess: PathId) -> Result<Member, Defect> {
        // Members are left out now and then.
        if let Some(&Place { next, .. }) = self.work.places.get(guess as usize)
            && self.is_next(next)?
        {
            return Ok(Member::Known(next));
        }
        let token = self.scanner.name()?;
        let found = self.identify(parent, previous, token);
        Ok(if found == NO_PATH {
            Member::Further(token)
        } else {
            Member::Known(found)
        })
    }

    /// The path of a member by its name, which is expected there from now on.
    fn identify(&mut self, parent: PathId, previous: PathId, token: StringToken) -> PathId {
        let written = &self.text[token.start..token.end];
        let decoded = std::mem::take(&mut self.work.decoded);
        let (name, decoded) = decode(written, token.escaped, decoded);
        let found = self
            .work
            .observed
            .member_or_add(parent, name.unwrap_or(&decoded), false);
        self.work.decoded = decoded;
        self.work.add_place(found);
        if found != NO_PATH {
            match self.work.places.get_mut(previous as usize) {
                Some(place) => place.next = found,
                None => self.work.places[parent as usize].first = found,
            }
        }
        found
    }

    pub(super) fn element_of(&mut self, path: PathId) -> PathId {
        let known = self.work.places[path as usize].element;
        if known != NO_PATH {
            return known;
        }
        let element = self.work.observed.element_or_add(path, false);
        self.work.add_place(element);
        self.work.places[path as usize].element = element;
        element
    }

    /// An object on the way to columns.
    fn within(&mut self, path: PathId, slots: &[Slot], columns: &mut [Values]) -> Result<usize, Defect> {
        match self.scanner.peek() {
            b'{' => {
                self.mark(path, Kind::Object);
                self.members(path, slots, columns)
            }
            b'n' => {
                self.mark(path, Kind::Null);
                self.scanner.literal(b"null").map(|()| 0)
            }
            _ => {
                let (kind, range) = self.observe(path)?;
                self.note(path, Note::Mismatched);
                self.take_sample(path, Aspect::Mismatched, range.clone());
                // A key or a required column behind it is missing now, and says so itself.
                if self.rescue_mismatch {
                    self.rescue(path, None, range);
                } else {
                    let hidden = self.hidden.around.contains(&path) || self.is_classified(path);
                    let found = self.found(kind, range, hidden);
                    self.violate(ViolationClass::TypeMismatch, path, "object".to_owned(), found);
                }
                Ok(0)
            }
        }
    }

    /// A value of a declared column. Appends exactly one entry.
    #[inline(always)]
    fn value(&mut self, slot: &Slot, column: &mut Values) -> Result<(), Defect> {
        if slot.is_free && self.plain_value(slot, column) {
            return Ok(());
        }
        self.any_value(slot, column)
    }

    /// Takes the value if it is as most are: of the column's type, and text without escapes. Otherwise does nothing.
    #[inline(always)]
    fn plain_value(&mut self, slot: &Slot, column: &mut Values) -> bool {
        match (&slot.kind, column) {
            (SlotKind::String, Values::Text(values)) => {
                if self.wants_format(slot.path) {
                    return false;
                }
                let Some(inner) = self.scanner.plain_string() else {
                    return false;
                };
                self.mark(slot.path, Kind::String);
                values.append_value(&self.text[inner]);
                true
            }
            (SlotKind::Integer, Values::Integer(values)) => {
                let Some(whole) = self.scanner.small_number() else {
                    return false;
                };
                self.mark(slot.path, Kind::Integer);
                values.append(whole.into());
                true
            }
            _ => false,
        }
    }

    fn any_value(&mut self, slot: &Slot, column: &mut Values) -> Result<(), Defect> {
        let start = self.scanner.at();
        let text = self.text;
        match self.scanner.peek() {
            b'"' => {
                let token = self.scanner.string()?;
                self.mark(slot.path, Kind::String);
                if let (true, &SlotKind::Moment { naive }, Values::Timestamp(values)) =
                    (slot.is_free, &slot.kind, &mut *column)
                    && let Ok(micros) = times::timestamp(&text[token.start..token.end], naive)
                {
                    values.append(micros);
                    return Ok(());
                }
                self.string(slot, column, token, start..self.scanner.at());
            }
            b'-' | b'0'..=b'9' => {
                let token = self.scanner.number()?;
                let kind = if token.plain { Kind::Integer } else { Kind::Number };
                self.mark(slot.path, kind);
                if let (Some(fixed), true) = (token.fixed, slot.is_free)
                    && plain_number(slot, column, fixed)
                {
                    return Ok(());
                }
                let read = slot.number(&text[token.start..token.end]);
                let coerced = !token.plain && slot.is_whole();
                self.judge(
                    slot,
                    column,
                    read.map(|value| (value, coerced)),
                    kind,
                    start..token.end,
                );
            }
            first @ (b't' | b'f') => {
                let (word, truth) = if first == b't' { ("true", 1) } else { ("false", 0) };
                self.scanner.literal(word.as_bytes())?;
                self.mark(slot.path, Kind::Boolean);
                let read = match slot.kind {
                    SlotKind::Boolean => Ok((Value::Whole(truth), false)),
                    SlotKind::Json => Ok((Value::Text(word), false)),
                    _ => Err(ViolationClass::TypeMismatch),
                };
                self.judge(slot, column, read, Kind::Boolean, start..self.scanner.at());
            }
            b'n' => {
                self.scanner.literal(b"null")?;
                self.mark(slot.path, Kind::Null);
                self.null(slot, column);
            }
            b'{' => match (&slot.kind, column) {
                (SlotKind::Object(slots), Values::Object { children, nulls, .. }) => {
                    self.mark(slot.path, Kind::Object);
                    self.object(slot.path, slots, children, nulls.len())?;
                    nulls.append_non_null();
                }
                (_, column) => self.composite(slot, column, Kind::Object)?,
            },
            b'[' => match (&slot.kind, &mut *column) {
                (SlotKind::Array(element_slot), Values::Array { element, .. }) => {
                    self.mark(slot.path, Kind::Array);
                    let count = self.elements(element_slot, element)?;
                    let broken = slot
                        .checks
                        .as_ref()
                        .and_then(|checks| checks.broken_by_elements(count));
                    match broken {
                        None => column.push_parts(),
                        Some(expected) => {
                            let range = start..self.scanner.at();
                            let found = format!("{count} elements");
                            self.unfit(slot, column, (ViolationClass::Length, expected, found), range);
                        }
                    }
                }
                (_, column) => self.composite(slot, column, Kind::Array)?,
            },
            _ => return self.scanner.defect(),
        }
        Ok(())
    }

    fn elements(&mut self, slot: &Slot, column: &mut Values) -> Result<usize, Defect> {
        self.scanner.enter()?;
        let depth = self.work.indices.len();
        let mut count = 0;
        self.work.indices.push(count);
        while self.scanner.next_element(count == 0)? {
            self.work.indices[depth] = count;
            self.value(slot, column)?;
            count += 1;
        }
        self.work.indices.truncate(depth);
        Ok(count)
    }

    fn string(&mut self, slot: &Slot, column: &mut Values, token: StringToken, range: Range<usize>) {
        if matches!(slot.kind, SlotKind::Json) {
            let raw = &self.text[range.clone()];
            return self.judge(slot, column, Ok((Value::Text(raw), false)), Kind::String, range);
        }
        let written = &self.text[token.start..token.end];
        let decoded = std::mem::take(&mut self.work.decoded);
        let (plain, decoded) = decode(written, token.escaped, decoded);
        let text = plain.unwrap_or(&decoded);
        if text.is_empty() && slot.role == Role::Key {
            column.push_null();
            self.violate(
                ViolationClass::KeyMissing,
                slot.path,
                slot.expected.clone(),
                "empty text".to_owned(),
            );
        } else {
            if matches!(slot.kind, SlotKind::String) {
                self.inspect_format(slot.path, text);
            }
            self.judge(slot, column, slot.text(text), Kind::String, range);
        }
        self.work.decoded = decoded;
    }

    fn null(&mut self, slot: &Slot, column: &mut Values) {
        column.push_null();
        if slot.required {
            let class = match slot.role {
                Role::Key => ViolationClass::KeyMissing,
                Role::Other => ViolationClass::NullInRequired,
            };
            self.work.sample(slot.path, Aspect::Null, || "null".to_owned());
            self.violate(class, slot.path, slot.expected.clone(), "null".to_owned());
        }
    }

    /// Appends a value that was read, if the rules allow it.
    #[inline]
    fn judge(
        &mut self,
        slot: &Slot,
        column: &mut Values,
        read: Result<(Value<'_>, bool), ViolationClass>,
        kind: Kind,
        range: Range<usize>,
    ) {
        let broken = match read {
            Ok((value, coerced)) => match slot.checks.as_ref().and_then(|checks| checks.broken_by(value)) {
                None => {
                    column.push(value);
                    if coerced {
                        self.work.coerced += 1;
                        self.note(slot.path, Note::Coerced);
                        self.take_sample(slot.path, Aspect::Coerced, range);
                    }
                    return;
                }
                Some(broken) => broken,
            },
            Err(class) => (class, slot.expected.clone()),
        };
        if broken.0 == ViolationClass::Enum {
            // Values of a classified column stay out of reports.
            let value = if slot.classified {
                "…".to_owned()
            } else {
                excerpt(&self.text[range.clone()], EXCERPT_CHARS_MAX)
            };
            if self.work.new_values.len() < NEW_VALUES_MAX {
                self.work.new_values.push((slot.path, value));
            }
        }
        let found = self.found(kind, range.clone(), slot.classified);
        self.unfit(slot, column, (broken.0, broken.1, found), range);
    }

    /// An object or an array where the column is neither.
    fn composite(&mut self, slot: &Slot, column: &mut Values, kind: Kind) -> Result<(), Defect> {
        if matches!(slot.kind, SlotKind::Json) {
            self.mark(slot.path, kind);
            let range = self.scanner.skip()?;
            column.push(Value::Text(&self.text[range]));
            return Ok(());
        }
        let (kind, range) = self.observe(slot.path)?;
        let broken = (
            ViolationClass::TypeMismatch,
            slot.expected.clone(),
            kind.as_str().to_owned(),
        );
        self.unfit(slot, column, broken, range);
        Ok(())
    }

    /// Appends null for a value that does not fit and keeps it in `_rescued`, or says so.
    fn unfit(
        &mut self,
        slot: &Slot,
        column: &mut Values,
        broken: (ViolationClass, String, String),
        range: Range<usize>,
    ) {
        let (class, expected, found) = broken;
        column.push_null();
        let (note, aspect) = match class {
            ViolationClass::TypeMismatch => (Note::Mismatched, Aspect::Mismatched),
            ViolationClass::OutOfRange => (Note::OutOfRange, Aspect::OutOfRange),
            ViolationClass::Enum => (Note::NotAllowed, Aspect::NotAllowed),
            _ => (Note::RuleBroken, Aspect::RuleBroken),
        };
        self.note(slot.path, note);
        self.take_sample(slot.path, aspect, range.clone());
        if slot.rescue {
            self.rescue(slot.path, None, range);
        } else {
            self.violate(class, slot.path, expected, found);
        }
    }

    #[inline]
    pub(super) fn mark(&mut self, path: PathId, kind: Kind) {
        self.work.mark(path, kind);
    }

    pub(super) fn note(&mut self, path: PathId, note: Note) {
        self.work.notes.push((path, note));
    }

    fn take_sample(&mut self, path: PathId, aspect: Aspect, range: Range<usize>) {
        let text = self.text;
        self.work.sample(path, aspect, || sample::cut(&text[range]));
    }

    #[inline]
    fn wants_format(&self, path: PathId) -> bool {
        self.work.kept(path, Kind::String) < FORMAT_TEXTS_MAX
    }

    /// Counts the formats of the first texts of a column, so that a change of them can be told.
    fn inspect_format(&mut self, path: PathId, text: &str) {
        if !self.wants_format(path) {
            return;
        }
        self.note(path, Note::Inspected);
        if times::timestamp(text, None).is_ok() {
            self.note(path, Note::Moment);
        } else if times::date(text).is_ok() {
            self.note(path, Note::Date);
        } else if sample::is_uuid(text) {
            self.note(path, Note::Uuid);
        } else if numbers::is_number(text) {
            self.note(path, Note::Numeric);
        }
    }

    pub(super) fn violate(&mut self, class: ViolationClass, path: PathId, expected: String, found: String) {
        let place = self.path(path);
        self.work.violate(class, place, expected, found);
    }

    /// Where the current value of a path is, with the numbers of elements.
    pub(super) fn path(&mut self, path: PathId) -> String {
        let mut text = String::new();
        let Work {
            observed,
            indices,
            steps,
            ..
        } = &mut *self.work;
        observed.write_path(path, indices, steps, &mut text);
        text
    }

    /// Adds a value to `_rescued` under its path, or under `name` below its path.
    pub(super) fn rescue(&mut self, path: PathId, name: Option<&str>, range: Range<usize>) {
        let work = &mut *self.work;
        work.decoded.clear();
        work.observed
            .write_path(path, &work.indices, &mut work.steps, &mut work.decoded);
        if let Some(name) = name {
            write_name(name, &mut work.decoded);
        }
        if work.rescued.len() + work.decoded.len() + range.len() > RESCUED_BYTES_MAX {
            work.rescued_overflows = true;
            return;
        }
        work.rescued
            .push_str(if work.rescued.is_empty() { "{\"" } else { ",\"" });
        write_escaped(&work.decoded, &mut work.rescued);
        work.rescued.push_str("\":");
        work.rescued.push_str(&self.text[range]);
    }

    /// Whether a path is in something classified.
    pub(super) fn is_classified(&self, path: PathId) -> bool {
        if self.hidden.inside.is_empty() {
            return false;
        }
        let mut at = path;
        while at != ROOT && at != NO_PATH {
            if self.hidden.inside.contains(&at) {
                return true;
            }
            at = self.work.observed.parent(at);
        }
        false
    }

    pub(super) fn found(&self, kind: Kind, range: Range<usize>, classified: bool) -> String {
        match kind {
            Kind::String | Kind::Integer | Kind::Number if !classified => {
                format!(
                    "{} {}",
                    kind.as_str(),
                    excerpt(&self.text[range], EXCERPT_CHARS_MAX)
                )
            }
            Kind::Boolean if !classified => self.text[range].to_owned(),
            _ => kind.as_str().to_owned(),
        }
    }
}

/// Appends a number where there are no rules, if it is what most numbers of the column are; else does nothing.
#[inline]
fn plain_number(slot: &Slot, column: &mut Values, number: Fixed) -> bool {
    fn append<T>(value: Option<T>, append: impl FnOnce(T)) -> bool {
        value.map(append).is_some()
    }
    match (&slot.kind, column) {
        (SlotKind::Integer, Values::Integer(values)) => {
            append(numbers::integer_of(number), |whole| values.append(whole))
        }
        (SlotKind::Number, Values::Number(values)) => {
            append(numbers::double_of(number), |double| values.append(double))
        }
        (&SlotKind::Decimal { precision, scale }, Values::Decimal(values)) => {
            let unscaled = numbers::decimal_of(number, precision, scale);
            append(unscaled, |unscaled| values.append(unscaled))
        }
        _ => false,
    }
}

pub(super) fn excerpt(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// The text a string stands for: as written, or decoded into `buffer`.
pub(super) fn decode(written: &str, escaped: bool, mut buffer: String) -> (Option<&str>, String) {
    if !escaped {
        return (Some(written), buffer);
    }
    buffer.clear();
    // Half a surrogate pair has no text; the record is refused once all of it was read.
    json::unescape(written, &mut buffer);
    (None, buffer)
}
