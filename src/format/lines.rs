//! One record a line.

use std::io::{self, BufRead};

use crate::{
    format::{Piece, container::Allowance, write},
    json::Found,
};

/// The lines of a body that needs no decoding, from `start` on. Returns how many there are.
pub(super) fn ranges(body: &[u8], start: usize, visit: &mut dyn FnMut(Piece<'_>)) -> usize {
    let mut count = 0;
    let mut from = start;
    while from < body.len() {
        let length = body[from..].iter().position(|&byte| byte == b'\n');
        let end = length.map_or(body.len(), |length| from + length);
        let line = without_return(&body[from..end]);
        if !is_blank(line) {
            count += 1;
            visit(Piece::Range(from..from + line.len()));
        }
        from = end + 1;
    }
    count
}

/// Calls `visit` with every line that is not blank, without its end. A longer one than is allowed is cut there.
pub(super) fn each(
    text: &mut dyn BufRead,
    allowance: &Allowance,
    visit: &mut dyn FnMut(&[u8]),
) -> io::Result<Found> {
    let mut count = 0;
    let mut line = Vec::new();
    while next(text, allowance, &mut line)? {
        let line = without_return(&line);
        if !is_blank(line) {
            count += 1;
            visit(line);
        }
    }
    Ok(Found::Values(count))
}

/// Calls `visit` with `{"record": "…"}` for every line that is not blank.
pub(super) fn texts(
    text: &mut dyn BufRead,
    allowance: &Allowance,
    visit: &mut dyn FnMut(&[u8]),
) -> io::Result<Found> {
    let mut record = Vec::new();
    each(text, allowance, &mut |line| {
        record.clear();
        record.extend_from_slice(b"{\"record\":");
        write::string(line, &mut record);
        record.push(b'}');
        visit(&record);
    })
}

/// Passes over `count` lines, or as many as there are.
pub(super) fn skip(text: &mut dyn BufRead, allowance: &Allowance, count: u32) -> io::Result<()> {
    let mut line = Vec::new();
    for _ in 0..count {
        if !next(text, allowance, &mut line)? {
            break;
        }
    }
    Ok(())
}

/// Reads the next line without its `\n`; false at the end.
fn next(text: &mut dyn BufRead, allowance: &Allowance, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut any = false;
    // Ends at the end of the text at the latest.
    loop {
        // What is cut off a long line is read all the same, and counts for nothing.
        allowance.renew();
        let bytes = text.fill_buf()?;
        if bytes.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let length = end.unwrap_or(bytes.len());
        let room = usize::try_from(allowance.bytes_max())
            .unwrap_or(usize::MAX)
            .saturating_sub(line.len());
        line.extend_from_slice(&bytes[..length.min(room)]);
        text.consume(length + usize::from(end.is_some()));
        if end.is_some() {
            return Ok(true);
        }
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}
