//! Typed columns that grow by one value at a time, over Arrow's builders.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayBuilder as _, ArrayRef, ArrowPrimitiveType, BooleanBuilder, ListArray, NullBufferBuilder,
        PrimitiveArray, StringBuilder, StructArray,
    },
    buffer::OffsetBuffer,
    datatypes::{
        DataType, Date32Type, Decimal128Type, Field, Fields, Float64Type, Int64Type, TimeUnit,
        TimestampMicrosecondType,
    },
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
    Integer(Primitive<Int64Type>),
    Number(Primitive<Float64Type>),
    Decimal(Primitive<Decimal128Type>),
    Boolean(BooleanBuilder),
    Date(Primitive<Date32Type>),
    Timestamp(Primitive<TimestampMicrosecondType>),
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

/// How large the columns of a batch were, so that there is room at once in those of the next.
///
/// In the order in which columns are made, the outer before the inner: how many values, and of text how many bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sizes(Vec<usize>);

impl Sizes {
    pub(crate) fn of(columns: &[Values]) -> Self {
        let mut sizes = Vec::new();
        columns.iter().for_each(|column| column.add_sizes(&mut sizes));
        Self(sizes)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().copied()
    }
}

/// Values of a fixed size.
pub(crate) struct Primitive<T: ArrowPrimitiveType> {
    kind: DataType,
    values: Vec<T::Native>,
    nulls: NullBufferBuilder,
}

impl<T: ArrowPrimitiveType> Primitive<T> {
    fn new(kind: &DataType, size: usize) -> Self {
        Self {
            kind: kind.clone(),
            values: Vec::with_capacity(size),
            nulls: NullBufferBuilder::new(size),
        }
    }

    #[inline]
    pub(crate) fn append(&mut self, value: T::Native) {
        self.values.push(value);
        self.nulls.append_non_null();
    }

    fn append_null(&mut self) {
        self.values.push(T::Native::default());
        self.nulls.append_null();
    }

    fn finish(&mut self) -> Result<PrimitiveArray<T>, ArrowError> {
        let values = std::mem::take(&mut self.values).into();
        let array = PrimitiveArray::try_new(values, self.nulls.finish())?;
        Ok(array.with_data_type(self.kind.clone()))
    }
}

impl Values {
    /// An empty column for values of `kind`, with room for as many as the next of `sizes` says; none if there is no next.
    pub(crate) fn new(kind: &DataType, sizes: &mut dyn Iterator<Item = usize>) -> Self {
        let size = sizes.next().unwrap_or(0);
        match kind {
            DataType::Int64 => Self::Integer(Primitive::new(kind, size)),
            DataType::Float64 => Self::Number(Primitive::new(kind, size)),
            DataType::Decimal128(..) => Self::Decimal(Primitive::new(kind, size)),
            DataType::Boolean => Self::Boolean(BooleanBuilder::with_capacity(size)),
            DataType::Date32 => Self::Date(Primitive::new(kind, size)),
            DataType::Timestamp(..) => Self::Timestamp(Primitive::new(kind, size)),
            DataType::Struct(fields) => Self::Object {
                fields: fields.clone(),
                children: fields
                    .iter()
                    .map(|field| Self::new(field.data_type(), sizes))
                    .collect(),
                nulls: NullBufferBuilder::new(size),
            },
            DataType::List(field) => {
                let mut offsets = Vec::with_capacity(size + 1);
                offsets.push(0);
                Self::Array {
                    field: Arc::clone(field),
                    offsets,
                    element: Box::new(Self::new(field.data_type(), sizes)),
                    nulls: NullBufferBuilder::new(size),
                }
            }
            _ => Self::Text(StringBuilder::with_capacity(size, sizes.next().unwrap_or(0))),
        }
    }

    fn add_sizes(&self, sizes: &mut Vec<usize>) {
        sizes.push(self.len());
        match self {
            Self::Text(values) => sizes.push(values.values_slice().len()),
            Self::Object { children, .. } => children.iter().for_each(|child| child.add_sizes(sizes)),
            Self::Array { element, .. } => element.add_sizes(sizes),
            _ => {}
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Text(values) => values.len(),
            Self::Integer(values) => values.nulls.len(),
            Self::Number(values) => values.nulls.len(),
            Self::Decimal(values) => values.nulls.len(),
            Self::Boolean(values) => values.len(),
            Self::Date(values) => values.nulls.len(),
            Self::Timestamp(values) => values.nulls.len(),
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
            (Self::Integer(values), Value::Whole(whole)) => values.append(whole as i64),
            (Self::Timestamp(values), Value::Whole(whole)) => values.append(whole as i64),
            (Self::Date(values), Value::Whole(whole)) => values.append(whole as i32),
            (Self::Decimal(values), Value::Whole(whole)) => values.append(whole),
            (Self::Boolean(values), Value::Whole(whole)) => values.append_value(whole != 0),
            (Self::Number(values), Value::Double(double)) => values.append(double),
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
            Self::Integer(values) => Arc::new(values.finish()?),
            Self::Number(values) => Arc::new(values.finish()?),
            Self::Decimal(values) => Arc::new(values.finish()?),
            Self::Boolean(values) => Arc::new(values.finish()),
            Self::Date(values) => Arc::new(values.finish()?),
            Self::Timestamp(values) => Arc::new(values.finish()?),
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
