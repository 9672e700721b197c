//! Dates and moments read from their text: exactly, or not at all.
//!
//! | text | date | moment |
//! |---|---|---|
//! | `2024-02-29` | accepted | `type_mismatch`, unless the contract declares a zone: midnight there |
//! | `2024-02-30`, month 13 | `out_of_range` | `out_of_range` |
//! | `2024-01-01T10:00:00Z`, `t`, `z`, a blank for the `T` | `type_mismatch` | accepted |
//! | offset `+05:45`, `-00:00` | | accepted, kept as UTC |
//! | no offset | | `type_mismatch`, unless the contract declares one |
//! | offset `+0545`, `+24:00`, a zone name | | `type_mismatch` |
//! | `24:00:00`, `:60` (leap second) | | `out_of_range` |
//! | a fraction finer than microseconds, not zero | | `out_of_range` |
//! | no seconds | | `type_mismatch` |
//! | year 0000, year 10000, `-0001-…` | `out_of_range` | `out_of_range` |
//! | outside years 1 to 9999 once in UTC | | `out_of_range` |
//! | a number | `type_mismatch` | only with an epoch format; whole |

use super::ViolationClass;

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
/// 0001-01-01T00:00:00Z, the first moment that every reader of the tables can hold.
const MICROS_MIN: i64 = -62_135_596_800 * MICROS_PER_SECOND;
/// 9999-12-31T23:59:59.999999Z
const MICROS_MAX: i64 = 253_402_300_800 * MICROS_PER_SECOND - 1;

/// Days since 1970-01-01 of a `YYYY-MM-DD`.
pub(crate) fn date(text: &str) -> Result<i32, ViolationClass> {
    if has_long_year(text) {
        return Err(ViolationClass::OutOfRange);
    }
    let mut cursor = Cursor(text.as_bytes());
    let date = cursor
        .date()
        .filter(|_| cursor.0.is_empty())
        .ok_or(ViolationClass::TypeMismatch)?;
    days(date)
}

/// Microseconds since 1970 of an RFC 3339 date-time.
///
/// `naive` is the offset from UTC, in seconds, of a text without one; `None` refuses such a text. With it a date is
/// the beginning of that day.
pub(crate) fn timestamp(text: &str, naive: Option<i32>) -> Result<i64, ViolationClass> {
    let Some(fields) = Fields::read(text) else {
        if has_long_year(text) {
            return Err(ViolationClass::OutOfRange);
        }
        // A zone that is declared makes a date a moment as well: the beginning of the day there.
        let offset = naive.ok_or(ViolationClass::TypeMismatch)?;
        let seconds = i64::from(date(text)?) * SECONDS_PER_DAY - i64::from(offset);
        return in_range(seconds * MICROS_PER_SECOND);
    };
    let offset = fields.offset.or(naive).ok_or(ViolationClass::TypeMismatch)?;
    if fields.hour > 23 || fields.minute > 59 || fields.second > 59 || fields.finer {
        return Err(ViolationClass::OutOfRange);
    }
    let seconds = i64::from(days(fields.date)?) * SECONDS_PER_DAY
        + i64::from(fields.hour * 3600 + fields.minute * 60 + fields.second)
        - i64::from(offset);
    in_range(seconds * MICROS_PER_SECOND + i64::from(fields.micros))
}

/// Microseconds since 1970 of a whole number of units, each `unit_micros` long.
pub(crate) fn epoch(units: i64, unit_micros: i64) -> Result<i64, ViolationClass> {
    units
        .checked_mul(unit_micros)
        .ok_or(ViolationClass::OutOfRange)
        .and_then(in_range)
}

fn in_range(micros: i64) -> Result<i64, ViolationClass> {
    if (MICROS_MIN..=MICROS_MAX).contains(&micros) {
        Ok(micros)
    } else {
        Err(ViolationClass::OutOfRange)
    }
}

/// Whether a year of more than four digits, or a signed one, stands before month and day.
fn has_long_year(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']);
    let rest = unsigned.unwrap_or(text).as_bytes();
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (digits > 4 || (digits == 4 && unsigned.is_some())) && Cursor(&rest[digits..]).month_day().is_some()
}

#[derive(Clone, Copy)]
struct Date {
    year: u32,
    month: u32,
    day: u32,
}

fn days(date: Date) -> Result<i32, ViolationClass> {
    let leap =
        date.year.is_multiple_of(4) && (!date.year.is_multiple_of(100) || date.year.is_multiple_of(400));
    let length = match date.month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    if date.year == 0 || date.day == 0 || date.day > length {
        return Err(ViolationClass::OutOfRange);
    }
    // Years are counted from March, so that the leap day is the last one.
    let year = if date.month > 2 { date.year } else { date.year - 1 };
    let month = (date.month + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + date.day - 1;
    let since_march_of_year_0 = 365 * year + year / 4 - year / 100 + year / 400 + day_of_year;
    // At most 3,652,364, as the year has four digits.
    Ok(since_march_of_year_0 as i32 - 719_468)
}

struct Fields {
    date: Date,
    hour: u32,
    minute: u32,
    second: u32,
    micros: u32,
    /// Whether digits other than zero stand behind the microseconds.
    finer: bool,
    /// Seconds east of UTC; `None` if the text has no offset.
    offset: Option<i32>,
}

impl Fields {
    fn read(text: &str) -> Option<Self> {
        let (head, rest) = text.as_bytes().split_first_chunk()?;
        let (date, [hour, minute, second]) = date_time(head)?;
        let mut cursor = Cursor(rest);
        let (mut micros, mut finer) = (0, false);
        if cursor.one_of(b".").is_some() {
            let mut place = 100_000;
            micros = cursor.number(1)? * place;
            while let Some(digit) = cursor.number(1) {
                place /= 10;
                micros += digit * place;
                finer |= place == 0 && digit != 0;
            }
        }
        let offset = match cursor.one_of(b"Zz+-") {
            None => None,
            Some(b'Z' | b'z') => Some(0),
            Some(sign) => {
                let hours = cursor.number(2).filter(|&hours| hours < 24)?;
                cursor.one_of(b":")?;
                let minutes = cursor.number(2).filter(|&minutes| minutes < 60)?;
                let seconds = i32::try_from(hours * 3600 + minutes * 60).ok()?;
                Some(if sign == b'-' { -seconds } else { seconds })
            }
        };
        let fields = Self {
            date,
            hour,
            minute,
            second,
            micros,
            finer,
            offset,
        };
        cursor.0.is_empty().then_some(fields)
    }
}

/// What stands in every moment: a digit for `0`, one of `Tt ` for `T`, the others as they are.
const SHAPE: &[u8; 19] = b"0000-00-00T00:00:00";

/// The date, and the hour, minute and second, of what looks like [`SHAPE`].
fn date_time(text: &[u8; SHAPE.len()]) -> Option<(Date, [u32; 3])> {
    // Without a branch for each byte: nearly all texts pass.
    let fits = SHAPE.iter().zip(text).fold(true, |fits, (&shape, &byte)| {
        fits & match shape {
            b'0' => byte.is_ascii_digit(),
            b'T' => matches!(byte, b'T' | b't' | b' '),
            _ => byte == shape,
        }
    });
    if !fits {
        return None;
    }
    let pair = |at: usize| u32::from(text[at] - b'0') * 10 + u32::from(text[at + 1] - b'0');
    let date = Date {
        year: pair(0) * 100 + pair(2),
        month: pair(5),
        day: pair(8),
    };
    Some((date, [pair(11), pair(14), pair(17)]))
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn date(&mut self) -> Option<Date> {
        let year = self.number(4)?;
        let (month, day) = self.month_day()?;
        Some(Date { year, month, day })
    }

    fn month_day(&mut self) -> Option<(u32, u32)> {
        self.one_of(b"-")?;
        let month = self.number(2)?;
        self.one_of(b"-")?;
        Some((month, self.number(2)?))
    }

    /// Exactly so many digits.
    fn number(&mut self, digits: usize) -> Option<u32> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        let digit = |&byte: &u8| byte.is_ascii_digit().then(|| u32::from(byte - b'0'));
        let value = number
            .iter()
            .try_fold(0, |value, byte| Some(value * 10 + digit(byte)?))?;
        self.0 = rest;
        Some(value)
    }

    fn one_of(&mut self, allowed: &[u8]) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        if !allowed.contains(&byte) {
            return None;
        }
        self.0 = rest;
        Some(byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ViolationClass::{OutOfRange, TypeMismatch};

    #[test]
    fn f131_a_moment_is_exact_or_refused() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", Ok(0)),
            ("2024-02-29T23:59:59.999999Z", Ok(1_709_251_199_999_999)),
            ("2024-01-01T05:45:00+05:45", Ok(1_704_067_200_000_000)),
            ("2023-12-31T19:00:00-05:00", Ok(1_704_067_200_000_000)),
            ("2024-01-01T00:00:00-00:00", Ok(1_704_067_200_000_000)),
            ("2024-01-01t00:00:00z", Ok(1_704_067_200_000_000)),
            ("2024-01-01 00:00:00.5Z", Ok(1_704_067_200_500_000)),
            ("2024-01-01T00:00:00.123456000Z", Ok(1_704_067_200_123_456)),
            ("2024-01-01T00:00:00.1234567Z", Err(OutOfRange)),
            ("0001-01-01T00:00:00Z", Ok(MICROS_MIN)),
            ("9999-12-31T23:59:59.999999Z", Ok(MICROS_MAX)),
            ("0001-01-01T00:00:00+00:01", Err(OutOfRange)),
            ("9999-12-31T23:59:59-00:01", Err(OutOfRange)),
            ("0000-01-01T00:00:00Z", Err(OutOfRange)),
            ("10000-01-01T00:00:00Z", Err(OutOfRange)),
            ("+2024-01-01T00:00:00Z", Err(OutOfRange)),
            ("-0001-01-01T00:00:00Z", Err(OutOfRange)),
            ("2024-01-01T24:00:00Z", Err(OutOfRange)),
            ("2016-12-31T23:59:60Z", Err(OutOfRange)),
            ("2024-01-01T10:60:00Z", Err(OutOfRange)),
            ("2024-02-30T00:00:00Z", Err(OutOfRange)),
            ("2023-02-29T00:00:00Z", Err(OutOfRange)),
            ("1900-02-29T00:00:00Z", Err(OutOfRange)),
            ("2024-13-01T00:00:00Z", Err(OutOfRange)),
            ("2024-01-00T00:00:00Z", Err(OutOfRange)),
            ("2024-01-01T00:00:00", Err(TypeMismatch)),
            ("2024-01-01", Err(TypeMismatch)),
            ("2024-01-01T00:00Z", Err(TypeMismatch)),
            ("2024-01-01T00:00:00+0545", Err(TypeMismatch)),
            ("2024-01-01T00:00:00+24:00", Err(TypeMismatch)),
            ("2024-01-01T00:00:00[Europe/Berlin]", Err(TypeMismatch)),
            ("2024-01-01T00:00:00 CET", Err(TypeMismatch)),
            ("2024-01-01T00:00:00.Z", Err(TypeMismatch)),
            ("2024-01-01T00:00:00,5Z", Err(TypeMismatch)),
            (" 2024-01-01T00:00:00Z", Err(TypeMismatch)),
            ("2024-01-01T00:00:00Zx", Err(TypeMismatch)),
            ("1700000000", Err(TypeMismatch)),
            ("", Err(TypeMismatch)),
            ("２０２４-01-01T00:00:00Z", Err(TypeMismatch)),
        ] {
            assert_eq!(timestamp(text, None), micros, "{text}");
        }
    }

    #[test]
    fn f131_a_moment_without_offset_needs_a_declared_one() {
        assert_eq!(timestamp("1970-01-01T01:00:00", Some(3600)), Ok(0));
        assert_eq!(timestamp("1970-01-01T01:00:00Z", Some(3600)), Ok(3_600_000_000));
        assert_eq!(timestamp("1970-01-02", Some(3600)), Ok(82_800_000_000));
        assert_eq!(timestamp("1970-02-30", Some(3600)), Err(OutOfRange));
        assert_eq!(timestamp("0001-01-01", Some(3600)), Err(OutOfRange));
        assert_eq!(timestamp("1970-01-02", None), Err(TypeMismatch));
    }

    #[test]
    fn f131_epoch_numbers_keep_to_the_same_years() {
        assert_eq!(epoch(1_700_000_000, 1_000_000), Ok(1_700_000_000_000_000));
        assert_eq!(epoch(-1, 1_000), Ok(-1_000));
        assert_eq!(epoch(i64::MAX, 1_000_000), Err(OutOfRange));
        // Milliseconds taken for seconds.
        assert_eq!(epoch(1_700_000_000_000, 1_000_000), Err(OutOfRange));
    }

    #[test]
    fn f131_a_date_is_a_day_of_the_calendar() {
        for (text, days) in [
            ("1970-01-01", Ok(0)),
            ("1969-12-31", Ok(-1)),
            ("2000-03-01", Ok(11_017)),
            ("0001-01-01", Ok(-719_162)),
            ("9999-12-31", Ok(2_932_896)),
            ("0000-12-31", Err(OutOfRange)),
            ("10000-01-01", Err(OutOfRange)),
            ("2024-02-30", Err(OutOfRange)),
            ("2024-1-1", Err(TypeMismatch)),
            ("20240101", Err(TypeMismatch)),
            ("2024-01-01T00:00:00Z", Err(TypeMismatch)),
        ] {
            assert_eq!(date(text), days, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_moment_is_read_back(micros in MICROS_MIN..=MICROS_MAX) {
            let moment = chrono::DateTime::from_timestamp_micros(micros).unwrap();
            let text = moment.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
            proptest::prop_assert_eq!(timestamp(&text, None), Ok(micros), "{}", text);
            let day = i32::try_from(micros.div_euclid(MICROS_PER_SECOND * SECONDS_PER_DAY)).unwrap();
            proptest::prop_assert_eq!(date(&text[..10]), Ok(day));
        }
    }
}
