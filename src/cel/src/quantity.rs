//! Amounts of resources: `100m`, `1.5Gi`, `12e6`.
//!
//! Models apimachinery/pkg/api/resource `Quantity`: fixed point with nano precision, rounding up, one canonical form.
//! Kept as one 128-bit count of nanos, which holds everything upstream's capped form can.
use std::fmt;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

const NANO: i128 = 1_000_000_000;
/// 2^63-1, beyond which upstream's arbitrary-precision form is capped.
const WHOLE_MAX: i128 = i64::MAX as i128;

/// Which suffixes the canonical form uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub enum Format {
    /// `n`, `u`, `m`, none, `k`, `M`, `G`, `T`, `P`, `E`.
    #[default]
    DecimalSi,
    /// `Ki`, `Mi`, `Gi`, `Ti`, `Pi`, `Ei`.
    BinarySi,
    /// `e3`, `e6`, ...
    DecimalExponent,
}

/// A fixed-point number with the format it is printed in. Compared by amount alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is no quantity; worded as upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    FormatWrong,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::DecimalSi };

    pub fn parse(text: &str) -> Result<Quantity, QuantityError> {
        parse(text)
    }

    pub fn from_whole(value: i64, format: Format) -> Quantity {
        Quantity { nanos: i128::from(value) * NANO, format }
    }

    pub fn from_milli(value: i64, format: Format) -> Quantity {
        Quantity { nanos: i128::from(value) * (NANO / 1000), format }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.nanos.signum() as i32
    }

    /// The amount in whole units, rounded up (away from zero), capped to 64 bits.
    pub fn value(&self) -> i64 {
        clamp(round_up(self.nanos, NANO) / NANO)
    }

    /// The amount in thousandths, rounded up (away from zero), capped to 64 bits.
    pub fn milli_value(&self) -> i64 {
        clamp(round_up(self.nanos, NANO / 1000) / (NANO / 1000))
    }

    /// Whether the amount is a whole number.
    pub fn is_whole(&self) -> bool {
        self.nanos % NANO == 0
    }

    /// Whether the amount is a whole number of thousandths.
    pub fn is_whole_milli(&self) -> bool {
        self.nanos % (NANO / 1000) == 0
    }

    /// Rounded up (away from zero) to thousandths, as resource lists are on their way in.
    pub fn rounded_up_to_milli(&self) -> Quantity {
        Quantity { nanos: round_up(self.nanos, NANO / 1000), format: self.format }
    }

    /// The amount, if it is a whole number that fits; what was capped does not.
    pub fn as_whole(&self) -> Option<i64> {
        let fits = self.is_whole() && self.nanos / NANO < WHOLE_MAX;
        if fits { i64::try_from(self.nanos / NANO).ok() } else { None }
    }

    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / NANO as f64
    }

    pub fn is_multiple_of(&self, unit: i64) -> bool {
        unit != 0 && self.nanos % (i128::from(unit) * NANO) == 0
    }
}

fn clamp(value: i128) -> i64 {
    value.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

fn round_up(nanos: i128, unit: i128) -> i128 {
    match nanos % unit {
        0 => nanos,
        rest if nanos > 0 => nanos.saturating_add(unit - rest),
        rest => nanos.saturating_sub(unit + rest),
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// A zero takes the other side's format, as upstream's `Add` does.
fn sum_format(a: &Quantity, b: &Quantity) -> Format {
    if a.nanos == 0 { b.format } else { a.format }
}

impl Add for Quantity {
    type Output = Quantity;
    fn add(self, other: Quantity) -> Quantity {
        Quantity { nanos: self.nanos.saturating_add(other.nanos), format: sum_format(&self, &other) }
    }
}
impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Quantity) {
        *self = *self + other;
    }
}
impl Sub for Quantity {
    type Output = Quantity;
    fn sub(self, other: Quantity) -> Quantity {
        Quantity { nanos: self.nanos.saturating_sub(other.nanos), format: sum_format(&self, &other) }
    }
}
impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Quantity) {
        *self = *self - other;
    }
}
impl Neg for Quantity {
    type Output = Quantity;
    fn neg(self) -> Quantity {
        Quantity { nanos: -self.nanos, format: self.format }
    }
}
impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Quantity>>(items: I) -> Quantity {
        items.fold(Quantity::ZERO, |a, b| a + b)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text)
    }
}

fn parse(text: &str) -> Result<Quantity, QuantityError> {
    if text.is_empty() {
        return Err(QuantityError::FormatWrong);
    }
    let bytes = text.as_bytes();
    let mut at = 0;
    let negative = bytes[0] == b'-';
    if negative || bytes[0] == b'+' {
        at = 1;
    }
    let digits_end = |from: usize| from + bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let whole_end = digits_end(at);
    let whole = &bytes[at..whole_end];
    at = whole_end;
    let mut fraction: &[u8] = &[];
    if bytes.get(at) == Some(&b'.') {
        let end = digits_end(at + 1);
        fraction = &bytes[at + 1..end];
        at = end;
    }
    let suffix = &text[at.min(text.len())..];
    if !is_suffix_shaped(suffix.as_bytes()) {
        return Err(QuantityError::FormatWrong);
    }
    let (base_two, exponent, format) = interpret(suffix).ok_or(QuantityError::Suffix)?;
    let (nanos, rounded_tiny) = scale(whole, fraction, base_two, exponent);
    // A fraction of one has no binary form.
    let format = if format == Format::BinarySi && nanos < NANO && (nanos > 0 || rounded_tiny) { Format::DecimalSi } else { format };
    Ok(Quantity { nanos: if negative { -nanos } else { nanos }, format })
}

fn is_suffix_shaped(suffix: &[u8]) -> bool {
    let letters = suffix.iter().take_while(|b| b"eEinumkKMGTP".contains(b)).count();
    let rest = &suffix[letters..];
    let rest = match rest.first() {
        Some(b'+' | b'-') => &rest[1..],
        _ => rest,
    };
    // A letter sequence may end the text; a sign must be followed by nothing but digits.
    rest.iter().all(u8::is_ascii_digit)
}

fn interpret(suffix: &str) -> Option<(bool, i64, Format)> {
    let decimal = |exponent| Some((false, exponent, Format::DecimalSi));
    let binary = |exponent| Some((true, exponent, Format::BinarySi));
    match suffix {
        "" => decimal(0),
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            Some((false, exponent.parse().ok()?, Format::DecimalExponent))
        }
    }
}

/// `whole.fraction * base^exponent` in nanos, rounded up, capped; the flag says that a non-zero amount was below one nano.
fn scale(whole: &[u8], fraction: &[u8], base_two: bool, exponent: i64) -> (i128, bool) {
    let cap = WHOLE_MAX * NANO;
    let digits = whole.iter().chain(fraction).map(|b| i128::from(b - b'0'));
    let mut mantissa: i128 = 0;
    let mut inexact = false;
    let mut dropped = 0i64;
    for digit in digits {
        if dropped > 0 || mantissa > i128::MAX / 100 {
            // More digits than can matter: what is dropped only rounds up.
            dropped += 1;
            inexact |= digit != 0;
        } else {
            mantissa = mantissa * 10 + digit;
        }
    }
    if mantissa == 0 {
        return (0, false);
    }
    let mut power = dropped - fraction.len() as i64 + 9;
    if base_two {
        match mantissa.checked_mul(1i128 << exponent) {
            Some(product) => mantissa = product,
            // Too many digits for the exact product: shed decimals that lie far below a nano first.
            None => {
                while mantissa.checked_mul(1i128 << exponent).is_none() {
                    inexact |= mantissa % 10 != 0;
                    mantissa /= 10;
                    power += 1;
                }
                mantissa <<= exponent;
            }
        }
    } else {
        power = power.saturating_add(exponent);
    }
    while power > 0 {
        match mantissa.checked_mul(10) {
            Some(next) => mantissa = next,
            None => return (cap, false),
        }
        power -= 1;
    }
    while power < 0 {
        if mantissa == 0 {
            inexact = true;
            break;
        }
        inexact |= mantissa % 10 != 0;
        mantissa /= 10;
        power += 1;
    }
    let tiny = mantissa == 0;
    if inexact || tiny {
        mantissa += 1;
    }
    // Upstream caps only what does not fit its fast path of 18 digits and a scale.
    let short = whole.len() + fraction.len() <= 18 && !base_two;
    (if short { mantissa } else { mantissa.min(cap) }, tiny)
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANO;
        if self.format == Format::BinarySi && !small && self.is_whole() {
            let mut number = self.nanos / NANO;
            let mut power = 0;
            while number % 1024 == 0 && power < 6 {
                number /= 1024;
                power += 1;
            }
            return write!(f, "{number}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
        }
        let (mut number, mut exponent) = (self.nanos, -9);
        let exponent_max = if self.format == Format::DecimalExponent { 30 } else { 18 };
        while number % 1000 == 0 && exponent < exponent_max {
            number /= 1000;
            exponent += 3;
        }
        if self.format == Format::DecimalExponent {
            return if exponent == 0 { write!(f, "{number}") } else { write!(f, "{number}e{exponent}") };
        }
        let suffix = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][((exponent + 9) / 3) as usize];
        write!(f, "{number}{suffix}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        Quantity::parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).to_string()
    }

    #[test]
    fn every_amount_has_one_canonical_form() {
        for (text, expected) in [
            ("0", "0"),
            ("0Ki", "0"),
            ("1000", "1k"),
            ("100m", "100m"),
            ("0.1", "100m"),
            ("1000m", "1"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Mi", "512Ki"),
            ("0.1Ki", "102400m"),
            ("1023Ki", "1023Ki"),
            ("512", "512"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("12e6", "12e6"),
            ("100e-3", "100e-3"),
            ("-1.5Gi", "-1536Mi"),
            ("+5", "5"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("1500u", "1500u"),
            ("128974848", "128974848"),
            ("129M", "129M"),
            ("5E", "5E"),
            (".5", "500m"),
            ("1.", "1"),
            ("9223372036854775807", "9223372036854775807"),
            ("100000000000000000000", "9223372036854775807"),
            ("100E", "100E"),
            ("16Ei", "9223372036854775807"),
            ("0.000000000001Gi", "1073742n"),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    #[test]
    fn malformed_amounts_say_what_is_wrong() {
        for (text, expected) in [
            ("", QuantityError::FormatWrong),
            ("aoeu", QuantityError::FormatWrong),
            (" 1", QuantityError::FormatWrong),
            ("1 ", QuantityError::FormatWrong),
            ("1.1.M", QuantityError::FormatWrong),
            ("1+1.0M", QuantityError::FormatWrong),
            ("1i", QuantityError::Suffix),
            (".5i", QuantityError::Suffix),
            ("0.1mi", QuantityError::Suffix),
            ("1ki", QuantityError::Suffix),
            ("-3.01e-", QuantityError::Suffix),
            ("1K", QuantityError::Suffix),
        ] {
            assert_eq!(Quantity::parse(text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn values_round_up_away_from_zero() {
        let q = |s| Quantity::parse(s).unwrap();
        assert_eq!(q("1001m").value(), 2);
        assert_eq!(q("-1001m").value(), -2);
        assert_eq!(q("1n").milli_value(), 1);
        assert_eq!(q("2Gi").value(), 2 << 30);
        assert_eq!(q("-1.5m").rounded_up_to_milli().to_string(), "-2m");
        assert_eq!(q("1.5m").rounded_up_to_milli().to_string(), "2m");
        assert_eq!((q("100m") + q("1")).to_string(), "1100m");
        assert_eq!((q("0") + q("1Gi")).to_string(), "1Gi");
        assert!(q("1Gi") > q("1G"));
        assert_eq!(q("1000m"), q("1"));
    }
}
