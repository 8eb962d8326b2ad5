//! Kubernetes quantities (`10Gi`, `1.5G`, `1e9`) to bytes and back, exactly: no floating point.

use thiserror::Error;

/// Why a quantity is not a number of bytes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// It does not follow the grammar.
    #[error(
        "'{0}' is not a quantity: write a number with an optional suffix, such as 10Gi, 500M or 1073741824"
    )]
    Syntax(String),
    /// It is below zero.
    #[error("'{0}' is negative: a size is 0 or more bytes")]
    Negative(String),
    /// It is not a whole number of bytes.
    #[error("'{0}' is not a whole number of bytes")]
    Fraction(String),
    /// It is 2^63 or more.
    #[error("'{0}' is too large: a size is below 8Ei")]
    TooLarge(String),
}

/// The largest size that Kubernetes can express in bytes.
const BYTES_MAX: u128 = i64::MAX as u128;

/// The most digits that a number may have: more cannot be a size, and 10^38 still fits 128 bits.
const DIGITS_MAX: usize = 30;

/// Parses a quantity to a number of bytes; what is not a whole number of them is an error.
pub fn parse_bytes(text: &str) -> Result<u64, QuantityError> {
    let syntax = || QuantityError::Syntax(text.into());
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || fraction.contains('.') || digits.len() > DIGITS_MAX {
        return Err(syntax());
    }
    let (binary, exponent) = suffix_scale(suffix).ok_or_else(syntax)?;
    let mantissa: u128 = digits.parse().map_err(|_| syntax())?;
    if mantissa == 0 {
        return Ok(0);
    }
    if negative {
        return Err(QuantityError::Negative(text.into()));
    }
    let fraction_digits = i32::try_from(fraction.len()).map_err(|_| syntax())?;
    scale(mantissa, binary, exponent - fraction_digits, text)
}

/// `mantissa * binary * 10^exponent`, if it is a whole number in range.
fn scale(mantissa: u128, binary: u128, exponent: i32, text: &str) -> Result<u64, QuantityError> {
    let too_large = || QuantityError::TooLarge(text.into());
    let mut value = mantissa.checked_mul(binary).ok_or_else(too_large)?;
    let power = 10_u128.checked_pow(exponent.unsigned_abs());
    if exponent >= 0 {
        let power = power.ok_or_else(too_large)?;
        value = value.checked_mul(power).ok_or_else(too_large)?;
    } else {
        let power = power.ok_or_else(|| QuantityError::Fraction(text.into()))?;
        if !value.is_multiple_of(power) {
            return Err(QuantityError::Fraction(text.into()));
        }
        value /= power;
    }
    if value > BYTES_MAX {
        return Err(too_large());
    }
    u64::try_from(value).map_err(|_| too_large())
}

/// The factor that a suffix stands for: a power of two, and an exponent of ten.
fn suffix_scale(suffix: &str) -> Option<(u128, i32)> {
    Some(match suffix {
        "" => (1, 0),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let exponent: i32 = exponent.parse().ok()?;
            (1, exponent.clamp(-100, 100))
        }
    })
}

/// A number of bytes for people: three significant digits at most, rounded down, with a binary suffix.
pub fn for_people(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let mut unit = 0;
    while unit + 1 < UNITS.len() && bytes >> (10 * (unit + 1)) > 0 {
        unit += 1;
    }
    let whole = bytes >> (10 * unit);
    let rest = u128::from(bytes) - (u128::from(whole) << (10 * unit));
    let tenths = rest * 10 / (1_u128 << (10 * unit));
    if tenths == 0 || whole >= 100 {
        format!("{whole}{}", UNITS[unit])
    } else {
        format!("{whole}.{tenths}{}", UNITS[unit])
    }
}

/// The quantity that says exactly `bytes`, with the largest binary suffix that divides it.
pub fn exact(bytes: u64) -> String {
    for (shift, suffix) in [
        (60, "Ei"),
        (50, "Pi"),
        (40, "Ti"),
        (30, "Gi"),
        (20, "Mi"),
        (10, "Ki"),
    ] {
        if bytes > 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{suffix}", bytes >> shift);
        }
    }
    bytes.to_string()
}
