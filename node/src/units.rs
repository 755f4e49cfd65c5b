//! Rates and sizes as people write them: `10 Mbit/s`, `1.25 MB/s`, `50 GB`, `64 MiB`. One strict parser, and
//! texts that it reads back to the same value. Decimal and binary units are told apart, bits and bytes too.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Bits per second, at least 8000 (one kilobyte a second).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate(u64);

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(pub u64);

/// Text that is no rate or size; a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a number with a unit.
    #[error("{0:?} is not a {1}; write a number and a unit, such as {2}")]
    Malformed(String, &'static str, &'static str),
    /// Too large to count.
    #[error("{0:?} is too large")]
    TooLarge(String),
    /// So slow that nothing would ever arrive.
    #[error("{0:?} is too slow to be of use; the least is 8 kbit/s")]
    TooSlow(String),
    /// A part of a bit or byte.
    #[error("{0:?} is not a whole number of {1}; write it with fewer digits after the point")]
    Broken(String, &'static str),
}

impl Rate {
    /// The least rate in bits per second.
    pub const LEAST: u64 = 8000;

    /// A rate of so many bits per second, raised to the least one.
    pub fn bits(per_second: u64) -> Self {
        Rate(per_second.max(Self::LEAST))
    }

    /// Bits per second.
    pub fn bits_per_second(self) -> u64 {
        self.0
    }

    /// Whole bytes per second.
    pub fn bytes_per_second(self) -> u64 {
        self.0 / 8
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let bits = read(text, RATES, ("rate", "\"10 Mbit/s\" or \"1.25 MB/s\"", "bits"))?;
        if bits < Self::LEAST { Err(UnitError::TooSlow(text.to_owned())) } else { Ok(Rate(bits)) }
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        read(text, SIZES, ("size", "\"50 GB\" or \"64 MiB\"", "bytes")).map(Size)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&write(self.0, &RATES[..4]))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&write(self.0, SIZES))
    }
}

impl TryFrom<String> for Rate {
    type Error = UnitError;
    fn try_from(text: String) -> Result<Self, UnitError> {
        text.parse()
    }
}

impl TryFrom<String> for Size {
    type Error = UnitError;
    fn try_from(text: String) -> Result<Self, UnitError> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> String {
        rate.to_string()
    }
}

impl From<Size> for String {
    fn from(size: Size) -> String {
        size.to_string()
    }
}

/// `<digits>[.<digits>][ ]<unit>`, exactly: no sign, no other space, units spelled as listed.
fn read(
    text: &str,
    units: &[(&str, u64)],
    (what, example, whole): (&'static str, &'static str, &'static str),
) -> Result<u64, UnitError> {
    let malformed = || UnitError::Malformed(text.to_owned(), what, example);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(malformed)?;
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let factor = units.iter().find(|(name, _)| *name == unit).ok_or_else(malformed)?.1;
    let (integer, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if integer.is_empty() || fraction.is_empty() || fraction.contains('.') || fraction.len() > DIGITS_MAX {
        return Err(malformed());
    }
    let too_large = || UnitError::TooLarge(text.to_owned());
    let integer: u128 = integer.parse::<u64>().map_err(|_| too_large())?.into();
    let scale = 10_u128.pow(fraction.len() as u32);
    let fraction: u128 = fraction.parse().map_err(|_| malformed())?;
    let scaled = (integer * scale + fraction) * u128::from(factor);
    if !scaled.is_multiple_of(scale) {
        return Err(UnitError::Broken(text.to_owned(), whole));
    }
    u64::try_from(scaled / scale).map_err(|_| too_large())
}

/// With the largest unit in which it has at most three digits after the point; the value stays exact.
fn write(value: u64, units: &[(&str, u64)]) -> String {
    let exact = |factor: u64| (u128::from(value) * 1000).is_multiple_of(u128::from(factor));
    let fits = units.iter().filter(|(_, factor)| value >= *factor && exact(*factor));
    let (name, factor) = fits.max_by_key(|(_, factor)| *factor).unwrap_or(&units[0]);
    let rest = u128::from(value % factor) * 1000 / u128::from(*factor);
    let fraction = format!("{rest:03}");
    match fraction.trim_end_matches('0') {
        "" => format!("{} {name}", value / factor),
        digits => format!("{}.{digits} {name}", value / factor),
    }
}

/// In bits per second; the first four are what is written.
const RATES: &[(&str, u64)] = &[
    ("bit/s", 1),
    ("kbit/s", 1000),
    ("Mbit/s", 1_000_000),
    ("Gbit/s", 1_000_000_000),
    ("B/s", 8),
    ("kB/s", 8000),
    ("MB/s", 8_000_000),
    ("GB/s", 8_000_000_000),
    ("KiB/s", 8 << 10),
    ("MiB/s", 8 << 20),
    ("GiB/s", 8 << 30),
];
/// In bytes.
const SIZES: &[(&str, u64)] = &[
    ("B", 1),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];
/// Digits after the point.
const DIGITS_MAX: usize = 9;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_and_sizes_as_people_write_them() {
        for (text, bits) in [
            ("10 Mbit/s", 10_000_000),
            ("10Mbit/s", 10_000_000),
            ("1.25 MB/s", 10_000_000),
            ("1 MiB/s", 8 << 20),
            ("0.5 Gbit/s", 500_000_000),
            ("8000 bit/s", 8000),
        ] {
            assert_eq!(text.parse::<Rate>().map(Rate::bits_per_second), Ok(bits), "{text}");
        }
        for (text, bytes) in [
            ("50 GB", 50_000_000_000),
            ("1.5GiB", 3 << 29),
            ("0 B", 0),
            ("64 MiB", 64 << 20),
            ("1 TB", 10_u64.pow(12)),
        ] {
            assert_eq!(text.parse::<Size>(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "10",
            "Mbit/s",
            "10 mbit/s",
            "10  Mbit/s",
            " 10 Mbit/s",
            "10 Mbit/s ",
            "-1 Mbit/s",
            "+1 Mbit/s",
            "1e3 kbit/s",
            "1. Mbit/s",
            ".5 Mbit/s",
            "1.2.3 Mbit/s",
            "10 Mbps",
            "10 MB",
            "7 kbit/s",
            "0 Mbit/s",
            "1.0000000001 Gbit/s",
            "99999999999999999999 Gbit/s",
            "0.5 bit/s",
            "10\tMbit/s",
        ] {
            assert!(bad.parse::<Rate>().is_err(), "{bad:?}");
        }
        for bad in ["", "50", "50 gb", "50 GB/s", "1.5 B", "99999999999 TiB", "0x10 B", "1,5 GB"] {
            assert!(bad.parse::<Size>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn written_short() {
        for text in ["10 Mbit/s", "2.5 Gbit/s", "64 kbit/s", "8.001 kbit/s"] {
            assert_eq!(text.parse::<Rate>().expect("a rate").to_string(), text);
        }
        for text in ["50 GB", "1.5 GiB", "0 B", "1 TB", "1.001 kB"] {
            assert_eq!(text.parse::<Size>().expect("a size").to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(bits in Rate::LEAST.., bytes: u64, text: String) {
            prop_assert_eq!(Rate(bits).to_string().parse(), Ok(Rate(bits)));
            prop_assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
            let _ = (text.parse::<Rate>(), text.parse::<Size>());
        }
    }
}
