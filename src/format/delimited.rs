//! Rows of fields: CSV and its relatives.

use std::{collections::HashSet, io};

use ::csv::{ByteRecord, ErrorKind, ReaderBuilder};

use crate::{
    config::format::Csv,
    format::{container::Allowance, lines, text::Utf8, write},
    json::Found,
};

/// Calls `visit` with every row as an object of texts, or, if it has another number of fields than there are columns, as
/// an array of them: no field can be shifted into another's place, and the judge sets the row aside with all of them.
///
/// Blank lines are passed over. A text without a line that names the columns has its records missing.
pub(super) fn rows(
    settings: &Csv,
    mut text: Utf8<'_>,
    allowance: &Allowance,
    visit: &mut dyn FnMut(&[u8]),
) -> io::Result<Found> {
    lines::skip(&mut text, allowance, settings.skip_lines)?;
    allowance.renew();
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(settings.delimiter)
        .quote(settings.quote.unwrap_or(b'"'))
        .quoting(settings.quote.is_some())
        .from_reader(text);
    let mut row = ByteRecord::new();
    let columns = match &settings.columns {
        Some(columns) => columns.iter().map(|name| name.clone().into_bytes()).collect(),
        None if reader.read_byte_record(&mut row).map_err(io_error)? => {
            // An answer in JSON or HTML is no table, however well it reads as one line of names.
            let first = row.get(0).unwrap_or_default().trim_ascii_start();
            if matches!(first.first(), Some(b'{' | b'[' | b'<')) {
                return Ok(Found::Missing);
            }
            names(&row)
        }
        None => return Ok(Found::Missing),
    };
    let columns: Vec<Vec<u8>> = columns.iter().enumerate().map(member).collect();
    let mut count = 0;
    let mut record = Vec::new();
    allowance.renew();
    while reader.read_byte_record(&mut row).map_err(io_error)? {
        allowance.renew();
        count += 1;
        record.clear();
        if row.len() == columns.len() {
            for (column, field) in columns.iter().zip(&row) {
                record.extend_from_slice(column);
                value(settings, field, &mut record);
            }
            record.push(b'}');
        } else {
            for (index, field) in row.iter().enumerate() {
                record.push(if index == 0 { b'[' } else { b',' });
                write::string(field, &mut record);
            }
            record.push(b']');
        }
        visit(&record);
    }
    Ok(Found::Values(count))
}

fn value(settings: &Csv, field: &[u8], out: &mut Vec<u8>) {
    if settings.nulls.iter().any(|null| null.as_bytes() == field) {
        out.extend_from_slice(b"null");
    } else {
        write::string(field, out);
    }
}

/// What stands before the value of a column, from the brace or comma to the colon.
fn member((index, name): (usize, &Vec<u8>)) -> Vec<u8> {
    let mut member = vec![if index == 0 { b'{' } else { b',' }];
    write::string(name, &mut member);
    member.push(b':');
    member
}

/// The names of the columns: trimmed; `column_3` for the third if it has none; `name_2` for a second `name`.
fn names(header: &ByteRecord) -> Vec<Vec<u8>> {
    let written: Vec<Vec<u8>> = header
        .iter()
        .enumerate()
        .map(|(index, name)| match name.trim_ascii() {
            b"" => format!("column_{}", index + 1).into_bytes(),
            name => name.to_vec(),
        })
        .collect();
    let mut taken: HashSet<Vec<u8>> = HashSet::with_capacity(written.len());
    let mut names = Vec::with_capacity(written.len());
    for (index, name) in written.iter().enumerate() {
        let mut own = name.clone();
        let mut number = 2;
        // A later column of exactly this name keeps it. Ends, because no more names are taken than there are columns.
        while taken.contains(&own) || (number > 2 && written[index + 1..].contains(&own)) {
            own = name.clone();
            own.extend_from_slice(format!("_{number}").as_bytes());
            number += 1;
        }
        taken.insert(own.clone());
        names.push(own);
    }
    names
}

/// Rows of bytes of any length can fail only where bytes come from.
fn io_error(error: ::csv::Error) -> io::Error {
    match error.into_kind() {
        ErrorKind::Io(error) => error,
        _ => io::Error::from(io::ErrorKind::InvalidData),
    }
}
