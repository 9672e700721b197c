//! Typed columns that grow by one value at a time, over Arrow's builders.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayBuilder as _, ArrayRef, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder,
        Int64Builder, ListArray, NullBufferBuilder, StringBuilder, StructArray, TimestampMicrosecondBuilder,
    },
    buffer::OffsetBuffer,
    datatypes::{DataType, Field, Fields, TimeUnit},
    error::ArrowError,
};

use super::{Column, ColumnType};

/// The Arrow field of a column. Always nullable: rows that are set aside stay in the batch as nulls.
pub fn field(column: &Column) -> Field {
    Field::new(&column.name, data_type(&column.kind), true)
}

/// The Arrow type of a column's values.
pub fn data_type(kind: &ColumnType) -> DataType {
    match kind {
        ColumnType::String | ColumnType::Json => DataType::Utf8,
        ColumnType::Integer => DataType::Int64,
        ColumnType::Number => DataType::Float64,
        ColumnType::Decimal { precision, scale } => DataType::Decimal128(*precision, *scale),
        ColumnType::Boolean => DataType::Boolean,
        ColumnType::Date => DataType::Date32,
        ColumnType::Timestamp(_) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        ColumnType::Object(columns) => DataType::Struct(columns.iter().map(field).collect()),
        ColumnType::Array(element) => {
            DataType::List(Arc::new(Field::new("element", data_type(&element.kind), true)))
        }
    }
}

/// A value that was judged and fits its column.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'v> {
    /// Integer, decimal (unscaled), boolean (0 or 1), date (days) or timestamp (microseconds).
    Whole(i128),
    Double(f64),
    Text(&'v str),
}

/// One growing column.
pub(crate) enum Values {
    Text(StringBuilder),
    Integer(Int64Builder),
    Number(Float64Builder),
    Decimal(Decimal128Builder),
    Boolean(BooleanBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    Object {
        fields: Fields,
        children: Vec<Values>,
        nulls: NullBufferBuilder,
    },
    Array {
        field: Arc<Field>,
        offsets: Vec<i32>,
        element: Box<Values>,
        nulls: NullBufferBuilder,
    },
}

impl Values {
    /// An empty column for values of `kind`.
    pub(crate) fn new(kind: &DataType) -> Self {
        match kind {
            DataType::Int64 => Self::Integer(Int64Builder::new()),
            DataType::Float64 => Self::Number(Float64Builder::new()),
            DataType::Decimal128(..) => Self::Decimal(Decimal128Builder::new().with_data_type(kind.clone())),
            DataType::Boolean => Self::Boolean(BooleanBuilder::new()),
            DataType::Date32 => Self::Date(Date32Builder::new()),
            DataType::Timestamp(..) => {
                Self::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(kind.clone()))
            }
            DataType::Struct(fields) => Self::Object {
                fields: fields.clone(),
                children: fields.iter().map(|field| Self::new(field.data_type())).collect(),
                nulls: NullBufferBuilder::new(0),
            },
            DataType::List(field) => Self::Array {
                field: Arc::clone(field),
                offsets: vec![0],
                element: Box::new(Self::new(field.data_type())),
                nulls: NullBufferBuilder::new(0),
            },
            _ => Self::Text(StringBuilder::new()),
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Text(values) => values.len(),
            Self::Integer(values) => values.len(),
            Self::Number(values) => values.len(),
            Self::Decimal(values) => values.len(),
            Self::Boolean(values) => values.len(),
            Self::Date(values) => values.len(),
            Self::Timestamp(values) => values.len(),
            Self::Object { nulls, .. } => nulls.len(),
            Self::Array { offsets, .. } => offsets.len() - 1,
        }
    }

    /// Appends a value, or null if it is not of this column's type.
    #[inline]
    pub(crate) fn push(&mut self, value: Value<'_>) {
        // No cast loses anything: the judge has checked the range of the type.
        match (&mut *self, value) {
            (Self::Text(values), Value::Text(text)) => values.append_value(text),
            (Self::Integer(values), Value::Whole(whole)) => values.append_value(whole as i64),
            (Self::Timestamp(values), Value::Whole(whole)) => values.append_value(whole as i64),
            (Self::Date(values), Value::Whole(whole)) => values.append_value(whole as i32),
            (Self::Decimal(values), Value::Whole(whole)) => values.append_value(whole),
            (Self::Boolean(values), Value::Whole(whole)) => values.append_value(whole != 0),
            (Self::Number(values), Value::Double(double)) => values.append_value(double),
            _ => self.push_null(),
        }
    }

    /// Ends the object or the array whose parts were appended to the columns below.
    #[inline]
    pub(crate) fn push_parts(&mut self) {
        match self {
            Self::Object { nulls, .. } => nulls.append_non_null(),
            Self::Array {
                offsets,
                element,
                nulls,
                ..
            } => {
                offsets.push(offset(element.len()));
                nulls.append_non_null();
            }
            _ => self.push_null(),
        }
    }

    /// Appends null. Parts of an unfinished object or array become invisible under it.
    pub(crate) fn push_null(&mut self) {
        match self {
            Self::Text(values) => values.append_null(),
            Self::Integer(values) => values.append_null(),
            Self::Number(values) => values.append_null(),
            Self::Decimal(values) => values.append_null(),
            Self::Boolean(values) => values.append_null(),
            Self::Date(values) => values.append_null(),
            Self::Timestamp(values) => values.append_null(),
            Self::Object { children, nulls, .. } => {
                nulls.append_null();
                for child in children {
                    child.pad(nulls.len());
                }
            }
            Self::Array {
                offsets,
                element,
                nulls,
                ..
            } => {
                offsets.push(offset(element.len()));
                nulls.append_null();
            }
        }
    }

    /// Appends nulls until the column is `rows` long.
    pub(crate) fn pad(&mut self, rows: usize) {
        while self.len() < rows {
            self.push_null();
        }
    }

    /// Makes the columns below agree again after a record broke off in the middle of a value, which becomes null.
    pub(crate) fn settle(&mut self) {
        let unfinished = match self {
            Self::Object { children, nulls, .. } => {
                children.iter_mut().for_each(Self::settle);
                children.iter().any(|child| child.len() > nulls.len())
            }
            Self::Array { offsets, element, .. } => {
                element.settle();
                offsets.last() != Some(&offset(element.len()))
            }
            _ => false,
        };
        if unfinished {
            self.push_null();
        }
    }

    pub(crate) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Self::Text(values) => Arc::new(values.finish()),
            Self::Integer(values) => Arc::new(values.finish()),
            Self::Number(values) => Arc::new(values.finish()),
            Self::Decimal(values) => Arc::new(values.finish()),
            Self::Boolean(values) => Arc::new(values.finish()),
            Self::Date(values) => Arc::new(values.finish()),
            Self::Timestamp(values) => Arc::new(values.finish()),
            Self::Object {
                fields,
                children,
                nulls,
            } => {
                let arrays = children
                    .iter_mut()
                    .map(Self::finish)
                    .collect::<Result<Vec<_>, _>>()?;
                Arc::new(StructArray::try_new(fields.clone(), arrays, nulls.finish())?)
            }
            Self::Array {
                field,
                offsets,
                element,
                nulls,
            } => {
                let offsets = OffsetBuffer::new(std::mem::replace(offsets, vec![0]).into());
                Arc::new(ListArray::try_new(
                    Arc::clone(field),
                    offsets,
                    element.finish()?,
                    nulls.finish(),
                )?)
            }
        })
    }
}

/// Arrow counts the elements of lists in 32 bits. The judge stops a batch long before, so nothing is cut here.
fn offset(elements: usize) -> i32 {
    i32::try_from(elements).unwrap_or(i32::MAX)
}
