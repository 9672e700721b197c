//! The tokens of one JSON text, with their positions.

use std::ops::Range;

use super::{DEPTH_MAX, Defect};

/// The inside of a JSON string: between the quotes, as written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StringToken {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Whether there is a backslash inside.
    pub(crate) escaped: bool,
}

/// A JSON number, as written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NumberToken {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Whether it has neither fraction nor exponent.
    pub(crate) plain: bool,
}

/// Reads one JSON text token by token.
///
/// UTF-8 is not checked here: bytes from 0x80 on are accepted inside strings and nowhere else.
pub(crate) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    /// Where the first `\u` escape of half a surrogate pair stands. The grammar allows it, but it has no text.
    pub(crate) lone_surrogate: Option<usize>,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            depth: 0,
            lone_surrogate: None,
        }
    }

    /// The whole text.
    #[inline]
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The position of the next byte.
    #[inline]
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The next byte, 0 at the end. 0 is never allowed outside a string, so no caller confuses the two.
    #[inline]
    pub(crate) fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    /// Passes over white space.
    #[inline]
    pub(crate) fn blank(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    #[inline]
    pub(crate) fn defect<T>(&self) -> Result<T, Defect> {
        Err(Defect::Syntax { offset: self.at })
    }

    /// Nothing but white space may follow.
    pub(crate) fn end(&mut self) -> Result<(), Defect> {
        self.blank();
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            self.defect()
        }
    }

    /// Passes over the `{` or `[` that stands here.
    #[inline]
    pub(crate) fn enter(&mut self) -> Result<(), Defect> {
        if self.depth == DEPTH_MAX {
            return Err(Defect::TooDeep { offset: self.at });
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    #[inline]
    fn leave(&mut self) {
        self.depth -= 1;
        self.at += 1;
    }

    /// The next member's name in the object entered last; stops at its value. Leaves the object at its end.
    #[inline]
    pub(crate) fn next_member(&mut self, first: bool) -> Result<Option<StringToken>, Defect> {
        self.blank();
        if self.peek() == b'}' {
            self.leave();
            return Ok(None);
        }
        if !first {
            self.comma()?;
        }
        self.name().map(Some)
    }

    /// Whether the array entered last has one more element; stops at it. Leaves the array at its end.
    #[inline]
    pub(crate) fn next_element(&mut self, first: bool) -> Result<bool, Defect> {
        self.blank();
        if self.peek() == b']' {
            self.leave();
            return Ok(false);
        }
        if !first {
            self.comma()?;
        }
        Ok(true)
    }

    /// Passes over the comma that stands here and white space behind it.
    #[inline]
    pub(super) fn comma(&mut self) -> Result<(), Defect> {
        if self.peek() != b',' {
            return self.defect();
        }
        self.at += 1;
        self.blank();
        Ok(())
    }

    /// A member's name and the colon after it; stops at the value.
    #[inline]
    fn name(&mut self) -> Result<StringToken, Defect> {
        if self.peek() != b'"' {
            return self.defect();
        }
        let name = self.string()?;
        self.blank();
        if self.peek() != b':' {
            return self.defect();
        }
        self.at += 1;
        self.blank();
        Ok(name)
    }

    /// The string that starts with the quote here.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<StringToken, Defect> {
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += plain_bytes(&self.bytes[self.at..]);
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    let token = StringToken {
                        start,
                        end: self.at,
                        escaped,
                    };
                    self.at += 1;
                    return Ok(token);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return self.defect(),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Defect> {
        let start = self.at;
        self.at += 1;
        match self.peek() {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
            b'u' => {
                let unit = self.unit()?;
                if (0xD800..=0xDBFF).contains(&unit) && self.bytes[self.at..].starts_with(b"\\u") {
                    let before = self.at;
                    self.at += 1;
                    if (0xDC00..=0xDFFF).contains(&self.unit()?) {
                        return Ok(());
                    }
                    // Not its other half: it is read again, by itself.
                    self.at = before;
                }
                if (0xD800..=0xDFFF).contains(&unit) {
                    self.lone_surrogate.get_or_insert(start);
                }
            }
            _ => return self.defect(),
        }
        Ok(())
    }

    fn unit(&mut self) -> Result<u32, Defect> {
        let Some(unit) = hex4(&self.bytes[self.at + 1..]) else {
            let digits = self.bytes[self.at + 1..]
                .iter()
                .take_while(|byte| byte.is_ascii_hexdigit())
                .count();
            self.at += 1 + digits;
            return self.defect();
        };
        self.at += 5;
        Ok(unit)
    }

    /// The number that starts here.
    #[inline]
    pub(crate) fn number(&mut self) -> Result<NumberToken, Defect> {
        let start = self.at;
        if self.peek() == b'-' {
            self.at += 1;
        }
        match self.peek() {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits()?,
            _ => return self.defect(),
        }
        let mut plain = true;
        if self.peek() == b'.' {
            plain = false;
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), b'e' | b'E') {
            plain = false;
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(NumberToken {
            start,
            end: self.at,
            plain,
        })
    }

    #[inline]
    fn digits(&mut self) -> Result<(), Defect> {
        let start = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        if self.at == start { self.defect() } else { Ok(()) }
    }

    /// `true`, `false` or `null`, whichever is given.
    #[inline]
    pub(crate) fn literal(&mut self, word: &[u8]) -> Result<(), Defect> {
        for &byte in word {
            if self.peek() != byte {
                return self.defect();
            }
            self.at += 1;
        }
        Ok(())
    }

    fn scalar(&mut self) -> Result<(), Defect> {
        match self.peek() {
            b'"' => self.string().map(drop),
            b'-' | b'0'..=b'9' => self.number().map(drop),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => self.defect(),
        }
    }

    /// Passes over the value that starts here, at most [`DEPTH_MAX`] deep.
    pub(crate) fn skip(&mut self) -> Result<Range<usize>, Defect> {
        self.skip_to(DEPTH_MAX)
    }

    /// Passes over the value that starts here. One bit of memory for each level.
    pub(super) fn skip_to(&mut self, depth_max: usize) -> Result<Range<usize>, Defect> {
        let start = self.at;
        let mut nesting = Nesting::new();
        loop {
            // At the start of a value.
            match self.peek() {
                opening @ (b'{' | b'[') => {
                    if self.depth + nesting.depth == depth_max {
                        return Err(Defect::TooDeep { offset: self.at });
                    }
                    self.at += 1;
                    self.blank();
                    let object = opening == b'{';
                    let closing = if object { b'}' } else { b']' };
                    if self.peek() == closing {
                        self.at += 1;
                    } else {
                        nesting.push(object);
                        if object {
                            self.name()?;
                        }
                        continue;
                    }
                }
                _ => self.scalar()?,
            }
            // Behind a value: close what ends here, or go on to the next value.
            loop {
                if nesting.depth == 0 {
                    return Ok(start..self.at);
                }
                self.blank();
                let object = nesting.top();
                match self.peek() {
                    b'}' if object => nesting.pop(),
                    b']' if !object => nesting.pop(),
                    b',' => {
                        self.comma()?;
                        if object {
                            self.name()?;
                        }
                        break;
                    }
                    _ => return self.defect(),
                }
                self.at += 1;
            }
        }
    }
}

/// Which of the open brackets are objects, one bit each.
struct Nesting {
    depth: usize,
    /// The innermost levels, the last in the lowest bit.
    last: u128,
    /// Full words of outer levels.
    outer: Vec<u128>,
}

impl Nesting {
    fn new() -> Self {
        Self {
            depth: 0,
            last: 0,
            outer: Vec::new(),
        }
    }

    #[inline]
    fn push(&mut self, object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(128) {
            self.outer.push(self.last);
        }
        self.last = self.last << 1 | u128::from(object);
        self.depth += 1;
    }

    #[inline]
    fn pop(&mut self) {
        self.depth -= 1;
        self.last >>= 1;
        if self.depth.is_multiple_of(128) {
            self.last = self.outer.pop().unwrap_or(0);
        }
    }

    #[inline]
    fn top(&self) -> bool {
        self.last & 1 == 1
    }
}

/// How many bytes at the start are neither quote, backslash nor control character.
#[inline]
fn plain_bytes(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    // The high bit of every byte of `word` that is below `limit`, which must not exceed 128. Exact for the lowest one.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGH;
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
        let special = below(word, 0x20) | quote | backslash;
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    at + bytes[at..]
        .iter()
        .position(is_special)
        .unwrap_or(bytes.len() - at)
}

/// The value of the four hexadecimal digits at the start.
pub(super) fn hex4(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.first_chunk::<4>()?;
    digits.iter().try_fold(0, |value, &byte| {
        Some(value * 16 + char::from(byte).to_digit(16)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_of_a_special_byte_in_a_string_is_found() {
        for length in 0..40 {
            for special in [b'"', b'\\', 0, 0x1f] {
                let mut bytes = vec![0x80 | b'"'; length];
                bytes.push(special);
                bytes.extend_from_slice(b"\x7f!#[]\xff\"\"\"\"");
                assert_eq!(plain_bytes(&bytes), length);
            }
        }
    }
}
