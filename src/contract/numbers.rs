//! Numbers read from their JSON text: exactly, or not at all.

use super::ViolationClass;
use crate::json::digits::{Fixed, POWERS};

/// Most digits of a decimal; Arrow's limit for 128 bits.
pub(crate) const PRECISION_MAX: u8 = 38;

/// Whether text is a number in JSON's grammar: no spaces, no plus sign, no leading zeros.
pub(crate) fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text).as_bytes();
    let digits = |bytes: &[u8]| bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = digits(unsigned);
    if whole == 0 || (whole > 1 && unsigned[0] == b'0') {
        return false;
    }
    let mut rest = &unsigned[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = digits(fraction);
        if length == 0 {
            return false;
        }
        rest = &fraction[length..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = exponent
            .strip_prefix(b"+")
            .or(exponent.strip_prefix(b"-"))
            .unwrap_or(exponent);
        return !exponent.is_empty() && digits(exponent) == exponent.len();
    }
    rest.is_empty()
}

/// Whether a JSON number has neither fraction nor exponent.
pub(crate) fn is_plain(number: &str) -> bool {
    !number.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E'))
}

/// A 64-bit whole number. `1.0` and `1e2` are whole numbers; `1.5` is of another type.
pub(crate) fn integer(number: &str) -> Result<i64, ViolationClass> {
    if let Ok(value) = number.parse() {
        return Ok(value);
    }
    let value = decimal(number, PRECISION_MAX, 0).map_err(|unfit| match unfit {
        Unfit::Fraction => ViolationClass::TypeMismatch,
        Unfit::TooLarge => ViolationClass::OutOfRange,
    })?;
    i64::try_from(value).map_err(|_| ViolationClass::OutOfRange)
}

/// The nearest double. A number written as a whole one must be held exactly, and infinity is never given.
pub(crate) fn double(number: &str) -> Result<f64, ViolationClass> {
    /// Any whole number of so many digits is a double.
    const EXACT_DIGITS: usize = 15;
    let value: f64 = number.parse().map_err(|_| ViolationClass::TypeMismatch)?;
    let exact = number.len() <= EXACT_DIGITS
        || !is_plain(number)
        || match number.parse::<i128>() {
            // Beyond this the conversion could saturate and hide a difference.
            Ok(whole) if value.abs() < 1.7e38 => value as i128 == whole,
            _ => format!("{value:.0}") == number,
        };
    if value.is_finite() && exact {
        Ok(value)
    } else {
        Err(ViolationClass::OutOfRange)
    }
}

/// As [`integer`]; `None` where that has to look closer.
#[inline]
pub(crate) fn integer_of(number: Fixed) -> Option<i64> {
    let value = i64::try_from(number.value)
        .ok()
        .filter(|_| number.fraction == 0)?;
    Some(if number.negative { -value } else { value })
}

/// As [`double`]; `None` where that has to look closer.
#[inline]
pub(crate) fn double_of(number: Fixed) -> Option<f64> {
    /// Every whole number up to here is a double.
    const EXACT_MAX: u64 = 1 << f64::MANTISSA_DIGITS;
    let Fixed {
        negative,
        value,
        fraction,
    } = number;
    let power = *POWERS.get(fraction as usize)?;
    let size = match (value, fraction) {
        // So is every power of ten here, and a division rounds once.
        (..=EXACT_MAX, _) => value as f64 / power as f64,
        (_, 0) => return None,
        _ => quotient(value, power),
    };
    Some(if negative { -size } else { size })
}

/// The double nearest to `value / divisor`, neither of them 0.
#[inline]
fn quotient(value: u64, divisor: u64) -> f64 {
    let (up, by) = (value.leading_zeros(), divisor.leading_zeros());
    let (value, divisor) = (u128::from(value << up) << 63, u128::from(divisor << by));
    let whole = value / divisor;
    // At least 62 bits. More than a double has, so that whatever is left over only matters as being there at all.
    let sticky = u128::from(whole * divisor != value);
    let rounded = (whole | sticky) as u64 as f64;
    // No double here is so small that this would round again.
    let exponent = 1023 - 63 + u64::from(by) - u64::from(up);
    rounded * f64::from_bits(exponent << 52)
}

/// As [`decimal`]; `None` where that has to look closer.
#[inline]
pub(crate) fn decimal_of(number: Fixed, precision: u8, scale: i8) -> Option<i128> {
    let zeros = u32::try_from(scale).ok()?.checked_sub(number.fraction)?;
    let power = i128::from(*POWERS.get(zeros as usize)?);
    // At most 38 number.
    let value = i128::from(number.value) * power;
    let limit = 10_i128.pow(u32::from(precision.min(PRECISION_MAX)));
    (value < limit).then_some(if number.negative { -value } else { value })
}

/// Why a number is not a decimal of a given precision and scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// It has digits other than zero beyond the scale.
    Fraction,
    /// It has more digits than the precision.
    TooLarge,
}

/// The value times 10 to the power of `scale`, if that is a whole number of at most `precision` digits.
///
/// `number` must be a JSON number.
pub(crate) fn decimal(number: &str, precision: u8, scale: i8) -> Result<i128, Unfit> {
    let exact = Exact::new(number);
    if exact.digits == Digits::Zero {
        return Ok(0);
    }
    let shift = exact.exponent.saturating_add(i64::from(scale));
    if shift < 0 {
        return Err(Unfit::Fraction);
    }
    let unscaled = match (exact.digits, u32::try_from(shift)) {
        (Digits::Few(digits), Ok(shift @ 0..=38)) => 10_i128.pow(shift).checked_mul(digits),
        _ => None,
    };
    match unscaled {
        Some(value) if value < 10_i128.pow(u32::from(precision.min(PRECISION_MAX))) => {
            Ok(if exact.negative { -value } else { value })
        }
        _ => Err(Unfit::TooLarge),
    }
}

/// Where a bound lies on the grid of whole multiples of 10 to the power of `-scale`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rounding {
    /// The greatest multiple that is not above.
    Down,
    /// The least multiple that is not below.
    Up,
}

/// The multiple of 10 to the power of `-scale` next to a number. Saturates.
pub(crate) fn nearest(number: &str, scale: i8, rounding: Rounding) -> i128 {
    let exact = Exact::new(number);
    let shift = exact.exponent.saturating_add(i64::from(scale));
    let (down, is_exact) = match (exact.digits, shift) {
        (Digits::Zero, _) => (0, true),
        (Digits::Few(digits), 0..) => {
            let power = u32::try_from(shift)
                .ok()
                .and_then(|shift| 10_i128.checked_pow(shift));
            (
                power
                    .and_then(|power| power.checked_mul(digits))
                    .unwrap_or(i128::MAX),
                true,
            )
        }
        (Digits::Many, 0..) => (i128::MAX, true),
        (Digits::Few(digits), _) => {
            let power = u32::try_from(-shift)
                .ok()
                .and_then(|shift| 10_i128.checked_pow(shift));
            (power.map_or(0, |power| digits / power), false)
        }
        // Too many digits to be told apart from the limits of 128 bits by more than a fraction.
        (Digits::Many, _) => (i128::MAX, false),
    };
    match (rounding, exact.negative) {
        (Rounding::Down, false) => down,
        (Rounding::Up, false) => down.saturating_add(i128::from(!is_exact)),
        (Rounding::Down, true) => (-down).saturating_sub(i128::from(!is_exact)),
        (Rounding::Up, true) => -down,
    }
}

/// A number taken apart: sign, digits without zeros at the ends, and a power of ten.
struct Exact {
    negative: bool,
    digits: Digits,
    /// The power of ten the digits are multiplied with.
    exponent: i64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Digits {
    Zero,
    Few(i128),
    /// More than 38 of them between the first and the last that is not zero.
    Many,
}

impl Exact {
    fn new(number: &str) -> Self {
        let (mut digits, mut zeros, mut fraction) = (Digits::Zero, 0_u32, 0_i64);
        let mut point = false;
        let mut bytes = number.bytes();
        for byte in bytes.by_ref() {
            match byte {
                b'.' => point = true,
                b'0'..=b'9' => {
                    fraction += i64::from(point);
                    if byte == b'0' {
                        // Counted only if another digit follows.
                        zeros += u32::from(digits != Digits::Zero);
                        continue;
                    }
                    let longer = match digits {
                        Digits::Zero => Some(0),
                        Digits::Few(value) => 10_i128
                            .checked_pow(zeros + 1)
                            .and_then(|by| value.checked_mul(by)),
                        Digits::Many => None,
                    };
                    let longer = longer.and_then(|value| value.checked_add(i128::from(byte - b'0')));
                    digits = longer.map_or(Digits::Many, Digits::Few);
                    zeros = 0;
                }
                b'e' | b'E' => break,
                _ => {}
            }
        }
        Self {
            negative: number.starts_with('-'),
            digits,
            exponent: power(bytes)
                .saturating_sub(fraction)
                .saturating_add(i64::from(zeros)),
        }
    }
}

/// The number behind the `e`. Saturates.
fn power(bytes: impl Iterator<Item = u8>) -> i64 {
    let (mut value, mut negative) = (0_i64, false);
    for byte in bytes {
        match byte {
            b'-' => negative = true,
            b'0'..=b'9' => value = value.saturating_mul(10).saturating_add(i64::from(byte - b'0')),
            _ => {}
        }
    }
    if negative { -value } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ViolationClass::{OutOfRange, TypeMismatch};

    #[test]
    fn f121_an_integer_is_exact_or_refused() {
        for (number, value) in [
            ("0", Ok(0)),
            ("-0", Ok(0)),
            ("-0.0", Ok(0)),
            ("9223372036854775807", Ok(i64::MAX)),
            ("-9223372036854775808", Ok(i64::MIN)),
            ("9223372036854775808", Err(OutOfRange)),
            ("-9223372036854775809", Err(OutOfRange)),
            ("18446744073709551617", Err(OutOfRange)),
            ("1234567890123456789012345678901234567890", Err(OutOfRange)),
            ("1.0", Ok(1)),
            ("1e2", Ok(100)),
            ("120e-1", Ok(12)),
            ("9007199254740993.0", Ok(9_007_199_254_740_993)),
            ("1.5", Err(TypeMismatch)),
            ("1e-1", Err(TypeMismatch)),
            ("1e999", Err(OutOfRange)),
            ("1e-99999999999999999999", Err(TypeMismatch)),
            ("1e99999999999999999999", Err(OutOfRange)),
            ("0e99999999999999999999", Ok(0)),
        ] {
            assert_eq!(integer(number), value, "{number}");
        }
    }

    #[test]
    fn f121_a_whole_number_that_no_double_holds_is_refused() {
        for (number, value) in [
            ("9007199254740992", Ok(9_007_199_254_740_992.0)),
            ("9007199254740993", Err(OutOfRange)),
            ("-9007199254740993", Err(OutOfRange)),
            ("18446744073709551616", Ok(18_446_744_073_709_551_616.0)),
            ("18446744073709551617", Err(OutOfRange)),
            (
                "170141183460469231731687303715884105728",
                Ok(170_141_183_460_469_231_731_687_303_715_884_105_728.0),
            ),
            ("170141183460469231731687303715884105727", Err(OutOfRange)),
            (
                "-170141183460469231731687303715884105728",
                Ok(-170_141_183_460_469_231_731_687_303_715_884_105_728.0),
            ),
            ("0.1", Ok(0.1)),
            ("1e23", Ok(1e23)),
            ("1e999", Err(OutOfRange)),
            ("-1E400", Err(OutOfRange)),
            ("1e-400", Ok(0.0)),
            ("1.7976931348623157e308", Ok(f64::MAX)),
            ("1.7976931348623159e308", Err(OutOfRange)),
        ] {
            assert_eq!(double(number), value, "{number}");
        }
        assert!(double("-0").is_ok_and(|zero| zero.is_sign_negative()));
        let long = format!("1{}", "0".repeat(400));
        assert_eq!(double(&long), Err(OutOfRange));
    }

    #[test]
    fn f121_a_decimal_is_exact_or_refused() {
        for (number, value) in [
            ("1.23", Ok(123)),
            ("1.2", Ok(120)),
            ("-1.230000", Ok(-123)),
            ("1.234", Err(Unfit::Fraction)),
            ("1e1", Ok(1000)),
            ("123.4e-1", Ok(1234)),
            ("999.99", Ok(99_999)),
            ("1000", Err(Unfit::TooLarge)),
            ("1e30", Err(Unfit::TooLarge)),
            ("0.00000000000000000000000000000000000000000000", Ok(0)),
            ("1.00000000000000000000000000000000000000000000", Ok(100)),
            (
                "1.00000000000000000000000000000000000000000001",
                Err(Unfit::Fraction),
            ),
        ] {
            assert_eq!(decimal(number, 5, 2), value, "{number}");
        }
        let nines = "9".repeat(38);
        assert_eq!(decimal(&nines, 38, 0), Ok(10_i128.pow(38) - 1));
        assert_eq!(
            decimal(&format!("1{}", "0".repeat(38)), 38, 0),
            Err(Unfit::TooLarge)
        );
        assert_eq!(decimal(&"1".repeat(40), 38, 0), Err(Unfit::TooLarge));
    }

    #[test]
    fn only_the_grammar_of_json_is_a_number() {
        for good in ["0", "-0", "10", "1.50", "1e5", "1E+05", "-1.2e-3"] {
            assert!(is_number(good), "{good}");
        }
        for bad in [
            "", "-", "+1", "01", "007", ".5", "1.", "1e", "1e+", " 1", "1 ", "0x1", "NaN", "inf", "1_000",
            "１",
        ] {
            assert!(!is_number(bad), "{bad}");
        }
    }

    #[test]
    fn a_bound_between_two_steps_is_moved_inwards() {
        for (number, down, up) in [
            ("1.5", 1, 2),
            ("-1.5", -2, -1),
            ("2", 2, 2),
            ("0", 0, 0),
            ("1e-50", 0, 1),
            ("-1e-50", -1, 0),
            ("1e3", 1000, 1000),
            ("1e99", i128::MAX, i128::MAX),
        ] {
            assert_eq!(nearest(number, 0, Rounding::Down), down, "{number}");
            assert_eq!(nearest(number, 0, Rounding::Up), up, "{number}");
        }
    }

    proptest::proptest! {
        #[test]
        fn decimals_agree_with_whole_arithmetic(unscaled in -10_i128.pow(18)..10_i128.pow(18), scale in 0_u8..12) {
            let (sign, size) = (if unscaled < 0 { "-" } else { "" }, unscaled.abs());
            let by = 10_i128.pow(u32::from(scale));
            let text = format!("{sign}{}.{:0width$}", size / by, size % by, width = usize::from(scale).max(1));
            let scale = i8::try_from(scale.max(1)).unwrap();
            let expected = if by == 1 { unscaled * 10 } else { unscaled };
            proptest::prop_assert_eq!(decimal(&text, 38, scale), Ok(expected), "{}", text);
            proptest::prop_assert!(is_number(&text));
        }

        #[test]
        fn numbers_of_few_digits_are_what_a_closer_look_gives(
            value in proptest::prop_oneof![0..10_u64.pow(19), 0..1_000_u64, (1_u64 << 53) - 9..(1 << 53) + 9],
            sign in "-?", point in 0_usize..20, precision in 1_u8..=38, scale in 0_i8..=38,
        ) {
            let written = value.to_string();
            let point = point.min(written.len() - 1);
            let (whole, fraction) = written.split_at(written.len() - point);
            let dot = if point == 0 { "" } else { "." };
            let number = format!("{sign}{whole}{dot}{fraction}");
            let fixed = Fixed { negative: !sign.is_empty(), value, fraction: point as u32 };
            if let Some(double) = double_of(fixed) {
                proptest::prop_assert_eq!(double.to_bits(), number.parse::<f64>().unwrap().to_bits(), "{}", number);
                proptest::prop_assert_eq!(super::double(&number), Ok(double));
            }
            if let Some(whole) = integer_of(fixed) {
                proptest::prop_assert_eq!(integer(&number), Ok(whole));
            }
            if let Some(unscaled) = decimal_of(fixed, precision, scale) {
                proptest::prop_assert_eq!(decimal(&number, precision, scale), Ok(unscaled));
            }
        }

        #[test]
        fn a_double_is_the_nearest_one(value in proptest::num::f64::NORMAL) {
            proptest::prop_assert_eq!(double(&format!("{value:e}")), Ok(value));
        }
    }
}
