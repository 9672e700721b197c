//! Whether every value that a column took is taken, as the same value, after its type has changed.

use super::{
    Column, ColumnType, Rules, TimestampFormat,
    numbers::{self, Rounding},
};

/// Greatest whole number below which a double holds every one.
const DOUBLE_WHOLE_MAX: i128 = 1 << 53;

/// Whole digits that a double always holds.
const DOUBLE_DIGITS: i16 = 15;

/// Whether a type has room for the values of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// For all of them.
    Yes,
    /// For all but a few, named here. They are refused, never altered.
    Unless(&'static str),
    /// Not for all, or not as the same values.
    No,
}

/// Whether `to` has room for the values of `from`, looking at the type and not at what is in objects and arrays.
///
/// | from | to | room |
/// |---|---|---|
/// | integer | number | unless beyond 2^53, where doubles have gaps |
/// | integer | decimal | if 19 digits stand before the point, or bounds keep values below |
/// | decimal | decimal | if as many digits stand before and behind the point |
/// | decimal without scale | integer | up to 18 digits |
/// | decimal | number | unless of more than 15 digits |
/// | date | timestamp with a declared zone | yes: the beginning of the day there |
/// | timestamp with offset | timestamp with a declared zone | yes |
pub(crate) fn room(from: &Column, to: &Column) -> Room {
    use ColumnType::{Date, Decimal, Integer, Number, Timestamp};
    use TimestampFormat::{Naive, Rfc3339};
    const GAPS: &str = "whole numbers beyond 2^53 that no number of 64 bits holds";
    let bounded = |least: i128| stays_below(&from.rules, least);
    match (&from.kind, &to.kind) {
        (ColumnType::Object(_), ColumnType::Object(_)) | (ColumnType::Array(_), ColumnType::Array(_)) => {
            Room::Yes
        }
        (from, to) if from == to => Room::Yes,
        (Integer, Number) if bounded(DOUBLE_WHOLE_MAX) => Room::Yes,
        (Integer, Number) => Room::Unless(GAPS),
        (Integer, &Decimal { precision, scale }) => {
            let digits = whole_digits(precision, scale);
            let fits = digits >= 19 || power_of_ten(digits).is_some_and(|limit| bounded(limit - 1));
            if fits { Room::Yes } else { Room::No }
        }
        (
            &Decimal { precision, scale },
            &Decimal {
                precision: precision_to,
                scale: scale_to,
            },
        ) if scale_to >= scale && whole_digits(precision_to, scale_to) >= whole_digits(precision, scale) => {
            Room::Yes
        }
        (&Decimal { precision, scale: 0 }, Integer) if precision <= 18 => Room::Yes,
        (&Decimal { precision, .. }, Number) if i16::from(precision) <= DOUBLE_DIGITS => Room::Yes,
        (Decimal { .. }, Number) => Room::Unless("numbers of more than 15 digits"),
        (Date, Timestamp(Naive { .. })) | (Timestamp(Rfc3339), Timestamp(Naive { .. })) => Room::Yes,
        _ => Room::No,
    }
}

fn whole_digits(precision: u8, scale: i8) -> i16 {
    i16::from(precision) - i16::from(scale)
}

fn power_of_ten(digits: i16) -> Option<i128> {
    10_i128.checked_pow(u32::try_from(digits).ok()?)
}

/// Whether the bounds of a column keep whole numbers between `-limit` and `limit`.
fn stays_below(rules: &Rules, limit: i128) -> bool {
    let (Some(min), Some(max)) = (&rules.minimum, &rules.maximum) else {
        return false;
    };
    let is_number = |bound: &String| numbers::is_number(bound);
    is_number(min)
        && is_number(max)
        && numbers::nearest(min, 0, Rounding::Up) >= -limit
        && numbers::nearest(max, 0, Rounding::Down) <= limit
}
