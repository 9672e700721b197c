//! A small table of values, printed in any format.

use std::io::Write;

use serde_json::Value;

use crate::{
    error::Result,
    report::{Format, write_error},
};

/// Longest cell of a printed table, in characters; json and csv have the whole value.
pub const CELL_CHARS_MAX: usize = 60;

/// Rows under named columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grid {
    /// Column names.
    pub columns: Vec<String>,
    /// Rows, each with a value for every column.
    pub rows: Vec<Vec<Value>>,
}

impl Grid {
    /// A grid without rows.
    pub fn new(columns: &[&str]) -> Self {
        Self {
            columns: columns.iter().map(|&name| name.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Writes the grid to `out` as `format`.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, format: Format, out: &mut dyn Write) -> Result<()> {
        match format {
            Format::Table => {
                let rows = self
                    .rows
                    .iter()
                    .map(|row| row.iter().map(cell).collect())
                    .collect();
                write_table(&self.columns, &self.right_aligned(), rows, out)
            }
            Format::Json => self.rows.iter().try_for_each(|row| {
                let members: Vec<String> = self
                    .columns
                    .iter()
                    .zip(row)
                    .map(|(name, value)| format!("{}:{value}", Value::from(name.as_str())))
                    .collect();
                writeln!(out, "{{{}}}", members.join(",")).map_err(write_error)
            }),
            Format::Csv => {
                write_csv(&mut self.columns.iter().map(String::as_str), out)?;
                self.rows.iter().try_for_each(|row| {
                    let cells: Vec<String> = row
                        .iter()
                        .map(|value| {
                            if value.is_null() {
                                String::new()
                            } else {
                                cell(value)
                            }
                        })
                        .collect();
                    write_csv(&mut cells.iter().map(String::as_str), out)
                })
            }
        }
    }

    fn right_aligned(&self) -> Vec<bool> {
        let numeric = |column: usize| {
            let mut values = self
                .rows
                .iter()
                .map(|row| &row[column])
                .filter(|value| !value.is_null())
                .peekable();
            values.peek().is_some() && values.all(Value::is_number)
        };
        (0..self.columns.len()).map(numeric).collect()
    }
}

/// A value without the quotes of JSON text.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Writes aligned columns under a header; control characters are shown, not sent to the terminal.
///
/// # Errors
/// Those of `out`.
pub fn write_table(
    columns: &[String],
    right_aligned: &[bool],
    rows: Vec<Vec<String>>,
    out: &mut dyn Write,
) -> Result<()> {
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|row| row.iter().map(|text| shown(text, CELL_CHARS_MAX)).collect())
        .collect();
    let header: Vec<String> = columns.iter().map(|name| shown(name, CELL_CHARS_MAX)).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let rule: Vec<String> = widths.iter().map(|&width| "─".repeat(width)).collect();
    for line in [&header, &rule].into_iter().chain(&rows) {
        let mut text = String::new();
        for ((cell, &width), &right) in line.iter().zip(&widths).zip(right_aligned) {
            let padding = " ".repeat(width - cell.chars().count());
            let (before, after) = if right {
                (padding.as_str(), "")
            } else {
                ("", padding.as_str())
            };
            text.push_str(before);
            text.push_str(cell);
            text.push_str(after);
            text.push_str("  ");
        }
        writeln!(out, "{}", text.trim_end()).map_err(write_error)?;
    }
    Ok(())
}

/// `text` on one line, safe for a terminal and at most `chars_max` characters long.
pub fn shown(text: &str, chars_max: usize) -> String {
    let mut line = String::with_capacity(text.len().min(4 * chars_max));
    for (count, character) in text.chars().enumerate() {
        if count == chars_max {
            line.pop();
            line.push('…');
            break;
        }
        match character {
            '\n' => line.push('⏎'),
            '\t' => line.push(' '),
            _ if character.is_control() => line.push('\u{fffd}'),
            _ => line.push(character),
        }
    }
    line
}

/// Writes one CSV record.
///
/// # Errors
/// Those of `out`.
pub fn write_csv(cells: &mut dyn Iterator<Item = &str>, out: &mut dyn Write) -> Result<()> {
    let quoted: Vec<String> = cells
        .map(|cell| {
            let plain = !cell.contains([',', '"', '\n', '\r']);
            if plain {
                cell.to_owned()
            } else {
                format!("\"{}\"", cell.replace('"', "\"\""))
            }
        })
        .collect();
    writeln!(out, "{}", quoted.join(",")).map_err(write_error)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn grid() -> Grid {
        Grid {
            columns: vec!["stream".to_owned(), "rows".to_owned()],
            rows: vec![
                vec![json!("shop.orders"), json!(1200)],
                vec![json!("a,\"b\"\u{1b}[2J"), json!(null)],
            ],
        }
    }

    fn text(format: Format) -> String {
        let mut out = Vec::new();
        grid().write(format, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_table_is_aligned_and_cannot_command_the_terminal() {
        insta::assert_snapshot!(text(Format::Table), @r#"
        stream       rows
        ───────────  ────
        shop.orders  1200
        a,"b"�[2J
        "#);
    }

    #[test]
    fn r023_json_has_one_object_a_line_in_column_order() {
        assert_eq!(
            text(Format::Json),
            "{\"stream\":\"shop.orders\",\"rows\":1200}\n{\"stream\":\"a,\\\"b\\\"\\u001b[2J\",\"rows\":null}\n"
        );
    }

    #[test]
    fn csv_quotes_what_must_be_quoted() {
        assert_eq!(
            text(Format::Csv),
            "stream,rows\nshop.orders,1200\n\"a,\"\"b\"\"\u{1b}[2J\",\n"
        );
    }

    #[test]
    fn a_long_value_is_cut_at_its_limit() {
        assert_eq!(shown("abcdef", 4), "abc…");
        assert_eq!(shown("abcd", 4), "abcd");
    }
}
