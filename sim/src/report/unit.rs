//! Numbers as people read them: three digits and a unit.

/// What a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Of the world's clock.
    Seconds,
    /// Decimal multiples, as lines are sold.
    Bytes,
    /// Bits per second.
    Rate,
    /// Part of a whole, from 0 to 1.
    Share,
    /// How many.
    Count,
    /// How many times as much.
    Times,
}

impl Unit {
    /// As in "1.25 GB", "10.5 s", "50 Mbit/s".
    pub fn text(self, value: f64) -> String {
        if !value.is_finite() {
            return "–".to_owned();
        }
        match self {
            Unit::Seconds => seconds(value),
            Unit::Bytes => {
                scaled(value, &[(1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")], "B")
            }
            Unit::Rate => {
                scaled(value, &[(1e12, "Tbit/s"), (1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")], "bit/s")
            }
            Unit::Share => format!("{} %", digits(value * 100.0)),
            Unit::Count if value.abs() >= 1000.0 => grouped(value),
            Unit::Count => digits(value),
            Unit::Times => format!("{} ×", digits(value)),
        }
    }
}

/// A whole number with its thousands apart.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn grouped(value: f64) -> String {
    let sign = if value < 0.0 { "−" } else { "" };
    format!("{sign}{}", count(value.abs().round() as u64))
}

fn seconds(value: f64) -> String {
    let (factor, name) = match value.abs() {
        0.0 => (1.0, "s"),
        v if v < 1e-3 => (1e6, "µs"),
        v if v < 1.0 => (1e3, "ms"),
        v if v < 300.0 => (1.0, "s"),
        v if v < 3600.0 => (1.0 / 60.0, "min"),
        v if v < 4.0 * 86_400.0 => (1.0 / 3600.0, "h"),
        _ => (1.0 / 86_400.0, "d"),
    };
    format!("{} {name}", digits(value * factor))
}

fn scaled(value: f64, units: &[(f64, &str)], least: &str) -> String {
    // What would be rounded up to a thousand belongs to the next unit.
    match units.iter().find(|(factor, _)| value.abs() >= factor * 0.9995) {
        Some((factor, name)) => format!("{} {name}", digits(value / factor)),
        None => format!("{} {least}", digits(value)),
    }
}

/// Three significant digits, without zeros at the end; all that stand before the point.
fn digits(value: f64) -> String {
    let places = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        v if v >= 0.1 => 3,
        _ => 4,
    };
    let text = format!("{value:.places$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".to_owned() } else { text.replace('-', "−") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        for (unit, value, text) in [
            (Unit::Bytes, 1.25e9, "1.25 GB"),
            (Unit::Bytes, 999_900.0, "1 MB"),
            (Unit::Bytes, 12.0, "12 B"),
            (Unit::Bytes, 0.0, "0 B"),
            (Unit::Seconds, 10.5, "10.5 s"),
            (Unit::Seconds, 0.0123, "12.3 ms"),
            (Unit::Seconds, 0.0, "0 s"),
            (Unit::Seconds, 600.0, "10 min"),
            (Unit::Seconds, 72.0 * 3600.0, "72 h"),
            (Unit::Seconds, 10.0 * 86_400.0, "10 d"),
            (Unit::Rate, 50e6, "50 Mbit/s"),
            (Unit::Share, 0.0512, "5.12 %"),
            (Unit::Count, 2600.0, "2,600"),
            (Unit::Count, 0.25, "0.25"),
            (Unit::Times, 1.056, "1.06 ×"),
            (Unit::Times, f64::NAN, "–"),
        ] {
            assert_eq!(unit.text(value), text);
        }
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(100), "100");
    }
}
