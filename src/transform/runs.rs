//! The records of one page as runs of Arrow rows.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{ArrayRef, BinaryViewBuilder},
    buffer::Buffer,
};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    format::{
        self, Defect, Piece, Recipe,
        additions::Additions,
        part::{self, Section},
        pushed,
    },
    json::Found,
    raw::{FileFact, PageFacts, read::RawPage},
};

/// Records in one run, at most.
const RUN_ROWS_MAX: usize = 4096;

/// Bytes written for a run after which it ends.
const RUN_BYTES_MAX: usize = 8 << 20;

/// Neighbouring records of a page.
pub(super) struct Run {
    /// Number of the first within its page.
    pub(super) first: usize,
    /// How many there are.
    pub(super) rows: usize,
    /// Their bytes, as they are judged.
    pub(super) bodies: ArrayRef,
}

/// Calls `emit` with the records of `page`, if all of it can be read.
///
/// Records that stand in the page are views into it: none is copied. Others are written as they are read. Of a page that
/// cannot be read to its end no record may be seen, so one whose records are too many to hold is read twice.
///
/// # Errors
/// `emit` was not called if the outer result is an error; the inner one is that of `emit`.
pub(super) fn runs<E>(
    recipe: &Recipe,
    page: &RawPage,
    emit: &mut dyn FnMut(Run) -> Result<(), E>,
) -> Result<Result<Found, E>, Defect> {
    let additions = additions(recipe, page.facts.as_ref());
    let mut places = Vec::new();
    let mut written = Written::new(&additions);
    let mut held = true;
    let found = read(
        recipe,
        page.facts.as_ref(),
        &page.body,
        &mut |piece| match piece {
            Piece::Range(place) if additions.is_empty() => places.push(place),
            piece if held && !written.is_full() => written.push(piece.bytes(&page.body)),
            _ => held = false,
        },
    )?;
    if written.rows == 0 {
        return Ok(views(&page.body, &places, emit).map(|()| found));
    }
    if held && places.is_empty() {
        return Ok(written.end().map_or(Ok(()), emit).map(|()| found));
    }
    drop((places, written));
    let mut emitted = Ok(());
    let mut again = Written::new(&additions);
    read(recipe, page.facts.as_ref(), &page.body, &mut |piece| {
        if emitted.is_err() {
            return;
        }
        if again.is_full() {
            emitted = again.end().map_or(Ok(()), &mut *emit);
        }
        again.push(piece.bytes(&page.body));
    })?;
    Ok(emitted
        .and_then(|()| again.end().map_or(Ok(()), emit))
        .map(|()| found))
}

/// Calls `visit` with every record of a page, which may be a part of a body.
///
/// # Errors
/// The first [`Defect`] of the page.
pub fn read(
    recipe: &Recipe,
    facts: Option<&PageFacts>,
    body: &Bytes,
    visit: &mut dyn FnMut(Piece<'_>),
) -> Result<Found, Defect> {
    if let Some(facts) = facts.filter(|facts| facts.is_pushed_records()) {
        return pushed::read(facts.header("content-type"), body, &recipe.limits, visit);
    }
    let paths = recipe.paths(facts.is_some_and(|facts| facts.hydrated));
    let Some(part) = facts.and_then(|facts| facts.part.as_ref()) else {
        return format::records(&recipe.format, paths, body, &recipe.limits, visit);
    };
    let section = Section {
        path: part.path.as_deref(),
        records: part.records.map(|(start, end)| start..end),
        first: part.index == 0,
    };
    part::section(&recipe.format, paths, body, &section, visit)
}

/// What is put into the records of a page: the values of its slice, and what became of their files.
fn additions(recipe: &Recipe, facts: Option<&PageFacts>) -> Additions {
    let slice = facts.and_then(|facts| facts.slice.as_ref());
    let mut additions = Additions::of(&recipe.include, slice);
    if let (Some(column), Some(facts)) = (&recipe.file_column, facts) {
        for file in &facts.files {
            additions.add(file.record, column, &told(file));
        }
    }
    additions
}

/// A file as its row has it: every member always, so that all rows are alike.
fn told(file: &FileFact) -> Value {
    json!({
        "path": file.path,
        "bytes": file.bytes,
        "sha256": file.sha256,
        "content_type": file.content_type,
        "content_encoding": file.content_encoding,
        "error": file.error,
    })
}

/// Emits records that are ranges of the body.
fn views<E>(
    body: &Bytes,
    places: &[Range<usize>],
    emit: &mut dyn FnMut(Run) -> Result<(), E>,
) -> Result<(), E> {
    for (index, chunk) in places.chunks(RUN_ROWS_MAX).enumerate() {
        let mut bodies = BinaryViewBuilder::with_capacity(chunk.len());
        // Arrow counts the bytes of a block in 32 bits.
        let block = u32::try_from(body.len())
            .is_ok()
            .then(|| bodies.append_block(Buffer::from(body.clone())));
        for place in chunk {
            let viewed =
                block.map(|block| bodies.try_append_view(block, place.start as u32, place.len() as u32));
            if !matches!(viewed, Some(Ok(()))) {
                bodies.append_value(&body[place.clone()]);
            }
        }
        emit(Run {
            first: index * RUN_ROWS_MAX,
            rows: chunk.len(),
            bodies: Arc::new(bodies.finish()),
        })?;
    }
    Ok(())
}

/// A run that is being written.
struct Written<'a> {
    additions: &'a Additions,
    first: usize,
    rows: usize,
    bytes: usize,
    bodies: BinaryViewBuilder,
    record: Vec<u8>,
}

impl<'a> Written<'a> {
    fn new(additions: &'a Additions) -> Self {
        Self {
            additions,
            first: 0,
            rows: 0,
            bytes: 0,
            bodies: BinaryViewBuilder::new(),
            record: Vec::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.rows >= RUN_ROWS_MAX || self.bytes >= RUN_BYTES_MAX
    }

    fn push(&mut self, record: &[u8]) {
        if self.additions.is_empty() {
            self.bodies.append_value(record);
            self.bytes += record.len();
        } else {
            self.record.clear();
            self.additions
                .write((self.first + self.rows) as u64, record, &mut self.record);
            self.bodies.append_value(&self.record);
            self.bytes += self.record.len();
        }
        self.rows += 1;
    }

    /// Ends the run and begins the next; `None` if there is nothing in it.
    fn end(&mut self) -> Option<Run> {
        let (first, rows) = (self.first, self.rows);
        self.first += rows;
        (self.rows, self.bytes) = (0, 0);
        (rows > 0).then(|| Run {
            first,
            rows,
            bodies: Arc::new(self.bodies.finish()),
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array as _, AsArray as _};

    use super::*;
    use crate::{
        config::format::{Container, Format, Syntax},
        format::Limits,
        json::JsonPath,
        raw::BatchNumber,
    };

    fn recipe(format: Format, include: &[&str]) -> Recipe {
        Recipe {
            format,
            records: JsonPath::parse("$[*]").unwrap().into(),
            hydrated: None,
            include: include.iter().map(|&name| name.to_owned()).collect(),
            file_column: None,
            limits: Limits::DEFAULT,
        }
    }

    fn page(body: impl Into<Bytes>, slice: &str) -> RawPage {
        let facts = format!(
            r#"{{"fetched_at":"2026-01-01T00:00:00Z","method":"GET","url":"http://a/","status":200,"attempts":1,"slice":{slice}}}"#
        );
        RawPage {
            batch: BatchNumber::FIRST,
            page: 0,
            body: body.into(),
            status: 200,
            facts: Some(serde_json::from_str(&facts).unwrap()),
        }
    }

    /// The records of each run, after the number of its first.
    fn read(recipe: &Recipe, page: &RawPage) -> Result<Vec<(usize, Vec<String>)>, Defect> {
        let mut found: Vec<(usize, Vec<String>)> = Vec::new();
        let read = runs::<()>(recipe, page, &mut |run| {
            let bodies = run.bodies.as_binary_view();
            assert_eq!(run.rows, bodies.len());
            let text = |body: Option<&[u8]>| String::from_utf8(body.unwrap().to_vec()).unwrap();
            found.push((run.first, bodies.iter().map(text).collect()));
            Ok(())
        })?;
        let count: usize = found.iter().map(|(_, run)| run.len()).sum();
        assert_eq!(read, Ok(Found::Values(count)));
        Ok(found)
    }

    #[test]
    fn records_of_json_are_views_and_those_of_slices_get_its_values() {
        let body =
            Bytes::from_static(br#"[{"id": 1, "name": "long enough for a view"}, {}, 7, {"order": 8}]"#);
        let own = page(body.clone(), r#"{"order": 7}"#);
        let mut data = Vec::new();
        runs::<()>(&recipe(Format::JSON, &[]), &own, &mut |run| {
            let bodies = run.bodies.as_binary_view();
            data.extend(bodies.data_buffers().iter().map(|block| block.as_ptr()));
            Ok(())
        })
        .unwrap()
        .unwrap();
        assert_eq!(data, [body.as_ptr()]);
        let found = read(&recipe(Format::JSON, &["order"]), &own).unwrap();
        let expected = [
            r#"{"order":7,"id": 1, "name": "long enough for a view"}"#,
            r#"{"order":7}"#,
            "7",
            r#"{"order": 8}"#,
        ];
        assert_eq!(found, [(0, expected.map(str::to_owned).to_vec())]);
    }

    #[test]
    fn written_records_come_in_runs_whatever_their_number() {
        let lines = |count: usize| {
            (0..count)
                .map(|id| format!("{{\"id\":{id}}}\n"))
                .collect::<String>()
        };
        let format = Format {
            container: Container::Zstd,
            syntax: Syntax::JsonLines,
            ..Format::JSON
        };
        for count in [1, RUN_ROWS_MAX, RUN_ROWS_MAX + 1, 3 * RUN_ROWS_MAX] {
            let body = zstd::encode_all(lines(count).as_bytes(), 1).unwrap();
            let found = read(
                &recipe(format.clone(), &["s"]),
                &page(body.clone(), r#"{"s":"x"}"#),
            )
            .unwrap();
            let firsts: Vec<usize> = found.iter().map(|(first, _)| *first).collect();
            assert_eq!(firsts, (0..count).step_by(RUN_ROWS_MAX).collect::<Vec<_>>());
            let last = found.last().unwrap().1.last().unwrap();
            assert_eq!(*last, format!("{{\"s\":\"x\",\"id\":{}}}", count - 1));
            // Cut, it has no record at all, however many could be read.
            let cut = page(body[..body.len() - 1].to_vec(), "{}");
            assert!(read(&recipe(format.clone(), &[]), &cut).is_err());
        }
    }

    #[test]
    fn large_records_do_not_share_a_run() {
        let line = format!("\"{}\"\n", "x".repeat(RUN_BYTES_MAX / 2));
        let format = Format {
            syntax: Syntax::Lines,
            ..Format::JSON
        };
        let found = read(&recipe(format, &[]), &page(line.repeat(5), "{}")).unwrap();
        assert_eq!(
            found
                .iter()
                .map(|(first, run)| (*first, run.len()))
                .collect::<Vec<_>>(),
            [(0, 2), (2, 2), (4, 1)]
        );
    }

    #[test]
    fn a_reader_that_left_ends_it() {
        let body = zstd::encode_all("{}\n".repeat(3 * RUN_ROWS_MAX).as_bytes(), 1).unwrap();
        let format = Format {
            container: Container::Zstd,
            syntax: Syntax::JsonLines,
            ..Format::JSON
        };
        let mut calls = 0;
        let left = runs(&recipe(format, &[]), &page(body, "{}"), &mut |_| {
            calls += 1;
            Err("closed")
        });
        assert_eq!((left, calls), (Ok(Err("closed")), 1));
    }
}
