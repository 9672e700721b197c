//! Text in any of the encodings we know, read as UTF-8.

use std::io::{self, BufRead, Read};

use crate::config::format::Encoding;

/// Letters that Windows-1252 has where ISO 8859-1 has control characters, from 0x80 on.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}',
    '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// Stands for half a surrogate pair or half a unit, which have no text: no UTF-8 either, so that the record with it is
/// set aside instead of altered.
const NO_TEXT: u8 = 0xFF;

/// Which way the units of UTF-16 are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Units {
    Little,
    Big,
}

/// The encoding that a byte order mark at the start of `text` speaks of, and its length. It is right whatever else is
/// said: no text of another encoding begins like this.
pub(super) fn mark(text: &[u8]) -> Option<(Encoding, usize)> {
    match text {
        [0xEF, 0xBB, 0xBF, ..] => Some((Encoding::Utf8, 3)),
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => Some((Encoding::Utf16, 2)),
        _ => None,
    }
}

/// A text as UTF-8, without its byte order mark. What is not text in its encoding is not UTF-8 here either.
pub(super) struct Utf8<'a> {
    inner: &'a mut dyn BufRead,
    encoding: Encoding,
    units: Units,
    /// First byte of a unit whose second is still to come.
    half: Option<u8>,
    /// First unit of a pair whose second is still to come.
    high: Option<u16>,
    /// Converted and not yet read, from `at` on.
    converted: Vec<u8>,
    at: usize,
}

impl<'a> Utf8<'a> {
    pub(super) fn new(inner: &'a mut dyn BufRead, encoding: Encoding) -> io::Result<Self> {
        let start = inner.fill_buf()?;
        let units = if start.starts_with(&[0xFE, 0xFF]) {
            Units::Big
        } else {
            Units::Little
        };
        let (encoding, length) = mark(start).unwrap_or((encoding, 0));
        inner.consume(length);
        Ok(Self {
            inner,
            encoding,
            units,
            half: None,
            high: None,
            converted: Vec::new(),
            at: 0,
        })
    }

    /// Converts the next bytes; false at the end.
    fn convert(&mut self) -> io::Result<bool> {
        self.converted.clear();
        self.at = 0;
        // Ends at the end of the text at the latest; a few bytes may be no letter yet.
        while self.converted.is_empty() {
            let bytes = self.inner.fill_buf()?;
            let length = bytes.len();
            if length == 0 {
                let left_over = self.half.take().is_some() | self.high.take().is_some();
                if left_over {
                    self.converted.push(NO_TEXT);
                }
                return Ok(left_over);
            }
            let mut letter = [0; 4];
            let out = &mut self.converted;
            match self.encoding {
                Encoding::Utf8 => out.extend_from_slice(bytes),
                Encoding::Latin1 => {
                    for &byte in bytes {
                        out.extend_from_slice(char::from(byte).encode_utf8(&mut letter).as_bytes());
                    }
                }
                Encoding::Windows1252 => {
                    for &byte in bytes {
                        let character = match byte {
                            0x80..=0x9F => WINDOWS_1252[usize::from(byte - 0x80)],
                            _ => char::from(byte),
                        };
                        out.extend_from_slice(character.encode_utf8(&mut letter).as_bytes());
                    }
                }
                Encoding::Utf16 => {
                    for &byte in bytes {
                        let Some(first) = self.half.take() else {
                            self.half = Some(byte);
                            continue;
                        };
                        let unit = match self.units {
                            Units::Little => u16::from_le_bytes([first, byte]),
                            Units::Big => u16::from_be_bytes([first, byte]),
                        };
                        push_unit(&mut self.high, unit, out);
                    }
                }
            }
            self.inner.consume(length);
        }
        Ok(true)
    }
}

/// Appends what `unit` completes.
fn push_unit(high: &mut Option<u16>, unit: u16, out: &mut Vec<u8>) {
    let mut letter = [0; 4];
    let before = high.take();
    let low = (0xDC00..=0xDFFF).contains(&unit);
    if let (Some(first), true) = (before, low) {
        let code = 0x1_0000 + ((u32::from(first) - 0xD800) << 10) + (u32::from(unit) - 0xDC00);
        if let Some(character) = char::from_u32(code) {
            out.extend_from_slice(character.encode_utf8(&mut letter).as_bytes());
        }
        return;
    }
    if before.is_some() {
        out.push(NO_TEXT);
    }
    match char::from_u32(u32::from(unit)) {
        Some(character) => out.extend_from_slice(character.encode_utf8(&mut letter).as_bytes()),
        None if low => out.push(NO_TEXT),
        None => *high = Some(unit),
    }
}

impl BufRead for Utf8<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.encoding == Encoding::Utf8 {
            return self.inner.fill_buf();
        }
        if self.at == self.converted.len() && !self.convert()? {
            return Ok(&[]);
        }
        Ok(&self.converted[self.at..])
    }

    fn consume(&mut self, count: usize) {
        if self.encoding == Encoding::Utf8 {
            self.inner.consume(count);
        } else {
            self.at = self.converted.len().min(self.at + count);
        }
    }
}

impl Read for Utf8<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(out.len());
        out[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}
