//! The tokens of one JSON text, with their positions.

use std::ops::Range;

use wide::u8x16;

use super::{
    DEPTH_MAX, Defect,
    digits::{Fixed, POWERS, digit_values, leading_digits, number_of, small},
    quoted::Quoted,
};

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
    /// Its value, if it has no exponent and at most [`Fixed::MAX`] digits.
    pub(crate) fixed: Option<Fixed>,
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
        // Nothing but white space is so low in a sound text.
        if self.peek() <= b' ' {
            self.blanks();
        }
    }

    fn blanks(&mut self) {
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
        if self.reach_name(first)? {
            self.name().map(Some)
        } else {
            Ok(None)
        }
    }

    /// Whether the object entered last has one more member; stops where its name must be. Leaves the object at its end.
    #[inline]
    pub(crate) fn reach_name(&mut self, first: bool) -> Result<bool, Defect> {
        if !first && self.peek() == b',' {
            self.at += 1;
            self.blank();
            return Ok(true);
        }
        self.blank();
        if self.peek() == b'}' {
            self.leave();
            return Ok(false);
        }
        if !first {
            self.comma()?;
        }
        Ok(true)
    }

    /// Passes over the expected name, written as usual, and its colon; false if it does not stand here.
    #[inline(always)]
    pub(crate) fn expected_name<'n>(
        &mut self,
        quoted: Quoted,
        name: impl FnOnce() -> Option<&'n str>,
    ) -> Result<bool, Defect> {
        if !quoted.begins(&self.bytes[self.at..], name) {
            return Ok(false);
        }
        self.at += quoted.length();
        self.colon()?;
        Ok(true)
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
    pub(crate) fn name(&mut self) -> Result<StringToken, Defect> {
        if self.peek() != b'"' {
            return self.defect();
        }
        let name = self.string()?;
        self.colon()?;
        Ok(name)
    }

    #[inline]
    fn colon(&mut self) -> Result<(), Defect> {
        if self.peek() != b':' {
            self.blank();
            if self.peek() != b':' {
                return self.defect();
            }
        }
        self.at += 1;
        self.blank();
        Ok(())
    }

    /// The string that starts with the quote here.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<StringToken, Defect> {
        self.at += 1;
        let start = self.at;
        self.at += plain_bytes(&self.bytes[start..]);
        let mut escaped = false;
        if self.peek() != b'"' {
            self.escapes()?;
            escaped = true;
        }
        let end = self.at;
        self.at += 1;
        Ok(StringToken { start, end, escaped })
    }

    /// Passes over the string here, if there is one without escapes; gives the inside. Otherwise does nothing.
    #[inline(always)]
    pub(crate) fn plain_string(&mut self) -> Option<Range<usize>> {
        if self.peek() != b'"' {
            return None;
        }
        let start = self.at + 1;
        let end = start + plain_bytes(&self.bytes[start..]);
        if self.bytes.get(end) != Some(&b'"') {
            return None;
        }
        self.at = end + 1;
        Some(start..end)
    }

    /// Passes over the number here, if it is a whole one of at most seven digits without a sign. Otherwise does nothing.
    #[inline(always)]
    pub(crate) fn small_number(&mut self) -> Option<u32> {
        let (value, length) = small(&self.bytes[self.at..])?;
        self.at += length;
        Some(value)
    }

    /// Passes over the rest of a string from its first backslash; stops at the closing quote.
    fn escapes(&mut self) -> Result<(), Defect> {
        loop {
            match self.peek() {
                b'"' => return Ok(()),
                b'\\' => self.escape()?,
                _ => return self.defect(),
            }
            self.at += plain_bytes(&self.bytes[self.at..]);
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
        if let Some((value, length)) = small(&self.bytes[start..]) {
            self.at += length;
            return Ok(NumberToken {
                start,
                end: self.at,
                plain: true,
                fixed: Some(Fixed {
                    negative: false,
                    value: value.into(),
                    fraction: 0,
                }),
            });
        }
        self.long_number()
    }

    fn long_number(&mut self) -> Result<NumberToken, Defect> {
        let start = self.at;
        let negative = self.peek() == b'-';
        self.at += usize::from(negative);
        let (mut value, mut count) = (0_u64, 1);
        match self.peek() {
            b'0' => self.at += 1,
            b'1'..=b'9' => count = self.digits(&mut value)?,
            _ => return self.defect(),
        }
        let (mut plain, mut fraction, mut few) = (true, 0, true);
        if self.peek() == b'.' {
            plain = false;
            self.at += 1;
            fraction = self.digits(&mut value)?;
        }
        if matches!(self.peek(), b'e' | b'E') {
            (plain, few) = (false, false);
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits(&mut value)?;
        }
        few &= count + fraction <= Fixed::MAX;
        Ok(NumberToken {
            start,
            end: self.at,
            plain,
            fixed: few.then_some(Fixed {
                negative,
                value,
                fraction: fraction as u32,
            }),
        })
    }

    /// Passes over one digit or more and appends them to those of `value`, which wraps. Returns how many there are.
    #[inline]
    fn digits(&mut self, value: &mut u64) -> Result<usize, Defect> {
        let start = self.at;
        while let Some(chunk) = self.bytes[self.at..].first_chunk() {
            let values = digit_values(*chunk);
            let count = leading_digits(values);
            if count > 0 {
                let scaled = value.wrapping_mul(POWERS[count]);
                *value = scaled.wrapping_add(number_of(values, count));
                self.at += count;
            }
            if count < 8 {
                break;
            }
        }
        while let digit @ b'0'..=b'9' = self.peek() {
            *value = value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        if self.at == start {
            self.defect()
        } else {
            Ok(self.at - start)
        }
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
    until(bytes, |chunk| {
        let control = chunk.min(u8x16::splat(0x1f)).simd_eq(chunk);
        control | is(chunk, b'"') | is(chunk, b'\\')
    })
}

/// How many bytes at the start are neither quote nor backslash.
#[inline]
pub(super) fn until_quote(bytes: &[u8]) -> usize {
    until(bytes, |chunk| is(chunk, b'"') | is(chunk, b'\\'))
}

/// How many bytes at the start are neither quote nor bracket, square or curly.
#[inline]
pub(super) fn until_bracket(bytes: &[u8]) -> usize {
    // One bit is all that makes a curly bracket of a square one.
    let curly = |chunk| chunk | u8x16::splat(b'{' ^ b'[');
    until(bytes, |chunk| {
        is(chunk, b'"') | is(curly(chunk), b'{') | is(curly(chunk), b'}')
    })
}

#[inline]
fn is(chunk: u8x16, byte: u8) -> u8x16 {
    chunk.simd_eq(u8x16::splat(byte))
}

/// How many bytes stand in front of the first of those that `special` has all bits set for.
#[inline(always)]
fn until(bytes: &[u8], special: impl Fn(u8x16) -> u8x16) -> usize {
    let mut rest = bytes;
    while let Some((&chunk, behind)) = rest.split_first_chunk() {
        let found = special(u8x16::new(chunk)).to_bitmask();
        if found != 0 {
            return bytes.len() - rest.len() + found.trailing_zeros() as usize;
        }
        rest = behind;
    }
    // The last few, with others behind them that no longer count.
    let mut chunk = [0; 16];
    chunk[..rest.len()].copy_from_slice(rest);
    let found = special(u8x16::new(chunk)).to_bitmask();
    bytes.len() - rest.len() + rest.len().min(found.trailing_zeros() as usize)
}

/// Where the first backslash is.
pub(super) fn backslash(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += plain_bytes(&bytes[at..]);
        match bytes.get(at)? {
            b'\\' => return Some(at),
            _ => at += 1,
        }
    }
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
                assert_eq!(plain_bytes(&bytes), length);
                bytes.extend_from_slice(b"\x7f!#[]\xff\"\"\"\"");
                bytes.extend_from_slice(&[b'x'; 40]);
                assert_eq!(plain_bytes(&bytes), length);
            }
        }
    }

    #[test]
    fn quotes_and_brackets_are_found_wherever_they_stand() {
        for length in 0..40 {
            for byte in 0..=u8::MAX {
                let mut bytes = vec![b'x'; length];
                bytes.push(byte);
                let at = |found: bool| if found { length } else { length + 1 };
                assert_eq!(until_quote(&bytes), at(matches!(byte, b'"' | b'\\')));
                let brackets = matches!(byte, b'"' | b'{' | b'}' | b'[' | b']');
                assert_eq!(until_bracket(&bytes), at(brackets));
                assert_eq!(backslash(&bytes), (byte == b'\\').then_some(length));
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn a_number_is_read_as_by_a_plain_reading(
            sign in "-?", whole in "0|[1-9][0-9]{0,19}", fraction in "(\\.[0-9]{1,20})?", exponent in "([eE][+-]?[0-9]{1,9})?",
            behind in "|[,\\] }x:/-]{0,12}",
        ) {
            let number = format!("{sign}{whole}{fraction}{exponent}");
            let text = format!("{number}{behind}");
            let mut scanner = Scanner::new(text.as_bytes());
            let token = scanner.number().unwrap();
            proptest::prop_assert_eq!(&text[token.start..token.end], &number);
            proptest::prop_assert_eq!(token.plain, fraction.is_empty() && exponent.is_empty());
            let digits = whole.len() + fraction.len().saturating_sub(1);
            let few = digits <= Fixed::MAX && exponent.is_empty();
            let expected = few.then(|| Fixed {
                negative: !sign.is_empty(),
                value: format!("{whole}{}", fraction.trim_start_matches('.')).parse().unwrap(),
                fraction: fraction.len().saturating_sub(1) as u32,
            });
            proptest::prop_assert_eq!(token.fixed, expected);
        }

        #[test]
        fn what_is_no_number_is_a_defect_where_it_ends(text in "[-+.eE0-9 ]{1,12}") {
            let numbers = text.bytes().take_while(|byte| !matches!(byte, b' ')).count();
            let is_json = serde_json::from_str::<serde_json::Value>(&text[..numbers]).is_ok();
            let mut scanner = Scanner::new(text.as_bytes());
            let whole = scanner.number().is_ok() && scanner.at() == numbers;
            // Only the range of numbers can differ.
            proptest::prop_assert!(whole == is_json || text.contains(['e', 'E']), "{}", text);
        }
    }
}
