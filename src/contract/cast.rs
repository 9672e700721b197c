//! Values of a column as values of a wider type: the same ones, or none.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, ArrowPrimitiveType, AsArray as _, Decimal128Array, PrimitiveArray,
        TimestampMicrosecondArray,
    },
    datatypes::{
        DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType,
    },
};

use super::{Column, ColumnType, TimestampFormat};

const DAY_MICROS: i64 = 86_400 * 1_000_000;

/// How the values of one scalar type become those of a wider one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cast {
    /// Whole numbers and decimals, as doubles.
    Double,
    /// Whole numbers and decimals, as decimals.
    Decimal,
    /// Decimals without digits behind the point, as whole numbers of 64 bits.
    Whole,
    /// Dates, as the moment at which the day begins so many seconds east of UTC.
    DayStart {
        /// Seconds east of UTC.
        offset_seconds: i32,
    },
}

/// Values in another type.
#[derive(Clone, Debug)]
pub struct Held {
    /// The values, null where the type does not hold one exactly.
    pub values: ArrayRef,
    /// The rows of those, in order.
    pub unheld: Vec<usize>,
}

impl Cast {
    /// How values of `old` become values of `new`, the type of `column`; `None` if they do not, or are of it already.
    pub fn of(old: &DataType, new: &DataType, column: Option<&Column>) -> Option<Self> {
        use DataType::{Date32, Decimal128, Float64, Int64, Timestamp};
        match (old, new) {
            (Int64 | Decimal128(..), Float64) => Some(Self::Double),
            (Int64, Decimal128(..)) => Some(Self::Decimal),
            (Decimal128(_, scale), Decimal128(_, wanted)) if old != new && wanted >= scale => {
                Some(Self::Decimal)
            }
            (Decimal128(_, 0), Int64) => Some(Self::Whole),
            (Date32, Timestamp(TimeUnit::Microsecond, Some(_))) => match column?.kind {
                ColumnType::Timestamp(TimestampFormat::Naive { offset_seconds }) => {
                    Some(Self::DayStart { offset_seconds })
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// The values of `column`, which are of the type this was made for, in the type `to`; `None` for other types.
    pub fn apply(&self, column: &dyn Array, to: &DataType) -> Option<Held> {
        match (self, to) {
            (Self::Double, _) => match column.data_type() {
                DataType::Int64 => {
                    let wholes = column.as_primitive_opt::<Int64Type>()?;
                    Some(held::<_, Float64Type>(wholes, double))
                }
                _ => doubles_of_decimals(column.as_primitive_opt()?),
            },
            (Self::Decimal, &DataType::Decimal128(precision, scale)) => match column.data_type() {
                DataType::Decimal128(_, before) => {
                    let more = u32::try_from(scale - before).ok()?;
                    let wider = scaled(more, precision)?;
                    let decimals = column.as_primitive_opt::<Decimal128Type>()?;
                    typed(held::<_, Decimal128Type>(decimals, wider), to)
                }
                _ => {
                    let wider = scaled(u32::try_from(scale).ok()?, precision)?;
                    let wholes = column.as_primitive_opt::<Int64Type>()?;
                    typed(held::<_, Decimal128Type>(wholes, |whole| wider(whole.into())), to)
                }
            },
            (Self::Whole, _) => {
                let decimals = column.as_primitive_opt::<Decimal128Type>()?;
                Some(held::<_, Int64Type>(decimals, |value| value.try_into().ok()))
            }
            (&Self::DayStart { offset_seconds }, DataType::Timestamp(_, zone)) => {
                let offset = i64::from(offset_seconds) * 1_000_000;
                let begins = |day: i32| (i64::from(day) * DAY_MICROS).checked_sub(offset);
                let days = column.as_primitive_opt::<Date32Type>()?;
                let Held { values, unheld } = held::<_, TimestampMicrosecondType>(days, begins);
                let moments: TimestampMicrosecondArray = values.as_primitive_opt()?.clone();
                let values = Arc::new(moments.with_timezone_opt(zone.clone()));
                Some(Held { values, unheld })
            }
            _ => None,
        }
    }
}

/// Each value of `column` as `to` makes it.
fn held<A: ArrowPrimitiveType, B: ArrowPrimitiveType>(
    column: &PrimitiveArray<A>,
    to: impl Fn(A::Native) -> Option<B::Native>,
) -> Held {
    let mut unheld = Vec::new();
    let values: PrimitiveArray<B> = column
        .iter()
        .enumerate()
        .map(|(row, value)| {
            let wider = to(value?);
            if wider.is_none() {
                unheld.push(row);
            }
            wider
        })
        .collect();
    Held {
        values: Arc::new(values),
        unheld,
    }
}

/// Decimals with their precision and scale.
fn typed(held: Held, to: &DataType) -> Option<Held> {
    let decimals: Decimal128Array = held.values.as_primitive_opt()?.clone();
    let values = Arc::new(decimals.with_data_type(to.clone()));
    Some(Held { values, ..held })
}

/// The double of a whole number, if there is one.
#[expect(clippy::cast_precision_loss, reason = "compared afterwards")]
#[expect(clippy::cast_possible_truncation, reason = "a whole number of at most 2^63")]
fn double(whole: i64) -> Option<f64> {
    let double = whole as f64;
    (double as i128 == i128::from(whole)).then_some(double)
}

/// The doubles next to decimals, if each leads back to its decimal.
fn doubles_of_decimals(decimals: &Decimal128Array) -> Option<Held> {
    let scale = usize::try_from(decimals.scale()).ok()?;
    let double = |row: usize| {
        let text = decimals.value_as_string(row);
        let double: f64 = text.parse().ok()?;
        (format!("{double:.scale$}") == text).then_some(double)
    };
    let mut unheld = Vec::new();
    let values: PrimitiveArray<Float64Type> = (0..decimals.len())
        .map(|row| {
            if decimals.is_null(row) {
                return None;
            }
            let double = double(row);
            if double.is_none() {
                unheld.push(row);
            }
            double
        })
        .collect();
    Some(Held {
        values: Arc::new(values),
        unheld,
    })
}

/// Makes unscaled decimals of `more` digits behind the point, and at most `precision` in all.
fn scaled(more: u32, precision: u8) -> Option<impl Fn(i128) -> Option<i128>> {
    let factor = 10_i128.checked_pow(more)?;
    let limit = 10_i128.checked_pow(u32::from(precision))?.unsigned_abs();
    Some(move |value: i128| {
        let value = value.checked_mul(factor)?;
        (value.unsigned_abs() < limit).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, Int64Array};

    use super::*;

    #[test]
    fn a_value_that_the_wider_type_does_not_hold_is_named_and_null() {
        let wholes = Int64Array::from(vec![Some(7), None, Some((1 << 53) + 1), Some(i64::MIN)]);
        let to = DataType::Float64;
        let cast = Cast::of(wholes.data_type(), &to, None).unwrap();
        let held = cast.apply(&wholes, &to).unwrap();
        assert_eq!(held.unheld, [2]);
        let expected = Float64Array::from(vec![Some(7.0), None, None, Some(-9_223_372_036_854_775_808.0)]);
        assert_eq!(held.values.as_primitive::<Float64Type>(), &expected);

        let to = DataType::Decimal128(3, 1);
        let cast = Cast::of(wholes.data_type(), &to, None).unwrap();
        let held = cast.apply(&wholes, &to).unwrap();
        assert_eq!(held.unheld, [2, 3]);
        assert_eq!(held.values.data_type(), &to);
        assert_eq!(held.values.as_primitive::<Decimal128Type>().value(0), 70);
    }
}
