//! The rows of a query, printed in any format.

use std::{io::Write, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, RecordBatch, StringBuilder},
    datatypes::Field,
    error::ArrowError,
    json::{
        EncoderOptions, WriterBuilder,
        writer::{LineDelimited, make_encoder},
    },
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion::{dataframe::DataFrame, execution::SendableRecordBatchStream};
use futures::TryStreamExt as _;

use crate::{
    error::{Error, ErrorKind, Result},
    query::sql_error,
    report::{
        Format,
        grid::{write_csv, write_table},
        write_error,
    },
};

/// Most rows of a printed table: all of them are needed to align its columns. json and csv have no limit.
pub const TABLE_ROWS_MAX: usize = 10_000;

/// A row: column names with texts, `None` for null.
pub type Values = Vec<(String, Option<String>)>;

/// What was printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Printed {
    /// Rows printed.
    pub rows: u64,
    /// Whether the query had more than a table shows.
    pub cut: bool,
}

/// Writes the rows of `stream` to `out` as `format`, as they come unless they have to be aligned.
///
/// # Errors
/// Those of the query and of `out`.
pub async fn write(
    mut stream: SendableRecordBatchStream,
    format: Format,
    out: &mut dyn Write,
) -> Result<Printed> {
    let schema = stream.schema();
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let mut printed = Printed::default();
    let mut table: Vec<Vec<String>> = Vec::new();
    if format == Format::Csv {
        write_csv(&mut names.iter().map(String::as_str), out)?;
    }
    while let Some(batch) = stream
        .try_next()
        .await
        .map_err(|source| sql_error("run SQL", source))?
    {
        match format {
            Format::Json => write_json(&batch, out)?,
            Format::Csv => {
                for row in texts(&batch, "")? {
                    write_csv(&mut row.iter().map(String::as_str), out)?;
                }
            }
            Format::Table => {
                let room = TABLE_ROWS_MAX - table.len();
                printed.cut = batch.num_rows() > room;
                table.extend(texts(&batch.slice(0, batch.num_rows().min(room)), "NULL")?);
            }
        }
        printed.rows += batch.num_rows() as u64;
        if printed.cut {
            break;
        }
    }
    if format == Format::Table {
        printed.rows = table.len() as u64;
        let right: Vec<bool> = schema
            .fields()
            .iter()
            .map(|field| field.data_type().is_numeric())
            .collect();
        write_table(&names, &right, table, out)?;
    }
    Ok(printed)
}

/// Runs a planned query and writes its rows.
///
/// # Errors
/// As [`write`].
pub async fn write_frame(frame: DataFrame, format: Format, out: &mut dyn Write) -> Result<Printed> {
    let stream = frame
        .execute_stream()
        .await
        .map_err(|source| sql_error("run SQL", source))?;
    write(stream, format, out).await
}

fn write_json(batch: &RecordBatch, out: &mut dyn Write) -> Result<()> {
    let mut text = Vec::new();
    let mut writer = WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, LineDelimited>(&mut text);
    writer
        .write(batch)
        .and_then(|()| writer.finish())
        .map_err(unprintable)?;
    out.write_all(&text).map_err(write_error)
}

/// Every value as text; nested ones as JSON.
fn texts(batch: &RecordBatch, null: &str) -> Result<Vec<Vec<String>>> {
    let options = FormatOptions::default().with_null(null);
    let plain = batch
        .columns()
        .iter()
        .zip(batch.schema().fields())
        .map(|(array, field)| {
            if array.data_type().is_nested() {
                json(array, field)
            } else {
                Ok(Arc::clone(array))
            }
        })
        .collect::<Result<Vec<ArrayRef>, ArrowError>>()
        .map_err(unprintable)?;
    let columns = plain
        .iter()
        .map(|array| ArrayFormatter::try_new(array.as_ref(), &options))
        .collect::<Result<Vec<_>, _>>()
        .map_err(unprintable)?;
    let row = |row: usize| {
        columns
            .iter()
            .map(|column| column.value(row).try_to_string())
            .collect::<Result<Vec<_>, _>>()
    };
    (0..batch.num_rows())
        .map(row)
        .collect::<Result<Vec<_>, _>>()
        .map_err(unprintable)
}

fn json(array: &ArrayRef, field: &Arc<Field>) -> Result<ArrayRef, ArrowError> {
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let mut encoder = make_encoder(field, array.as_ref(), &options)?;
    let mut texts = StringBuilder::new();
    let mut text = Vec::new();
    for row in 0..array.len() {
        if encoder.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        encoder.encode(row, &mut text);
        texts.append_value(String::from_utf8_lossy(&text));
    }
    Ok(Arc::new(texts.finish()))
}

/// The rows of `batches` as a JSON object each, text as it stands in the column.
///
/// # Errors
/// [`ErrorKind::Internal`] for a type that JSON cannot hold.
pub fn objects(batches: &[RecordBatch]) -> Result<Vec<serde_json::Map<String, serde_json::Value>>> {
    let mut text = Vec::new();
    for batch in batches {
        write_json(batch, &mut text)?;
    }
    let lines = serde_json::Deserializer::from_slice(&text).into_iter();
    lines
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| Error::new(ErrorKind::Internal, "read rows").caused_by(source))
}

/// The rows of `batch` as column names with texts, `None` for null; nested values as JSON.
///
/// # Errors
/// [`ErrorKind::Internal`] for a type that has no text.
pub fn named_texts(batch: &RecordBatch) -> Result<Vec<Values>> {
    let schema = batch.schema();
    let rows = texts(batch, "")?.into_iter().enumerate().map(|(row, texts)| {
        let names = schema.fields().iter().zip(batch.columns());
        let values = names
            .zip(texts)
            .map(|((field, array), text)| (field.name().clone(), array.is_valid(row).then_some(text)));
        values.collect()
    });
    Ok(rows.collect())
}

fn unprintable(source: ArrowError) -> Error {
    Error::new(ErrorKind::Internal, "print rows").caused_by(source)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal128Array, Int64Array, StructArray, TimestampMicrosecondArray};
    use arrow::datatypes::{DataType, Schema};
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

    use super::*;

    fn stream() -> SendableRecordBatchStream {
        let id: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), None]));
        let total: ArrayRef = Arc::new(
            Decimal128Array::from(vec![Some(1250), None])
                .with_precision_and_scale(12, 2)
                .unwrap(),
        );
        let at: ArrayRef =
            Arc::new(TimestampMicrosecondArray::from(vec![Some(1_000_000), None]).with_timezone("UTC"));
        let inner = Arc::new(Field::new("id", DataType::Int64, true));
        let to: ArrayRef = Arc::new(StructArray::from(vec![(inner, Arc::clone(&id))]));
        let columns = [("id", id), ("total", total), ("at", at), ("to", to)];
        let fields: Vec<Field> = columns
            .iter()
            .map(|(name, array)| Field::new(*name, array.data_type().clone(), true))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let arrays = columns.into_iter().map(|(_, array)| array).collect();
        let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).unwrap();
        Box::pin(RecordBatchStreamAdapter::new(
            schema,
            futures::stream::iter([Ok(batch)]),
        ))
    }

    async fn text(format: Format) -> String {
        let mut out = Vec::new();
        let printed = write(stream(), format, &mut out).await.unwrap();
        assert_eq!(printed, Printed { rows: 2, cut: false });
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn r008_rows_are_printed_for_people() {
        insta::assert_snapshot!(text(Format::Table).await, @r#"
          id  total  at                    to
        ────  ─────  ────────────────────  ───────────
           7  12.50  1970-01-01T00:00:01Z  {"id":7}
        NULL   NULL  NULL                  {"id":null}
        "#);
    }

    #[tokio::test]
    async fn r023_rows_are_printed_for_programs() {
        insta::assert_snapshot!(text(Format::Csv).await, @r#"
        id,total,at,to
        7,12.50,1970-01-01T00:00:01Z,"{""id"":7}"
        ,,,"{""id"":null}"
        "#);
        insta::assert_snapshot!(text(Format::Json).await, @r#"
        {"id":7,"total":12.50,"at":"1970-01-01T00:00:01Z","to":{"id":7}}
        {"id":null,"total":null,"at":null,"to":{"id":null}}
        "#);
    }
}
