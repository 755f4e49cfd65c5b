//! Values with their units, as people write them: "50 Mbit/s", "20 ms", "3 GiB", "0.1 %". Kept as whole numbers,
//! so that two readers of a file compute with the same value.

use serde::Deserialize;

/// Why a value cannot be read. The text says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// No number and unit.
    #[error("\"{text}\" is no {what}; write a number and a unit, such as \"{example}\" (units: {units})")]
    Form {
        /// What was read.
        text: String,
        /// What it should be.
        what: &'static str,
        /// How it could look.
        example: &'static str,
        /// All that may follow the number.
        units: String,
    },
    /// A number that makes no sense.
    #[error("\"{text}\" is out of range: a {what} is {range}")]
    Range {
        /// What was read.
        text: String,
        /// What it should be.
        what: &'static str,
        /// From where to where.
        range: &'static str,
    },
}

/// How fast a link is, in bits per second, counted as its frames are: with all headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Rate(u64);

/// How long something takes, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Delay(u64);

/// How large something is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Size(u64);

/// A part of something, in millionths; less than all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Share(u64);

impl Rate {
    /// So many bits per second.
    pub const fn from_bits(bits_per_second: u64) -> Self {
        Rate(bits_per_second)
    }

    /// Bits per second.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Bytes per second.
    pub fn bytes(self) -> f64 {
        self.0 as f64 / 8.0
    }
}

impl Delay {
    /// So many microseconds.
    pub const fn from_micros(micros: u64) -> Self {
        Delay(micros)
    }

    /// Microseconds.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// For timers.
    pub const fn duration(self) -> std::time::Duration {
        std::time::Duration::from_micros(self.0)
    }
}

impl Size {
    /// Bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl Share {
    /// So many millionths; all of it or more counts as all but one.
    pub const fn from_millionths(millionths: u64) -> Self {
        Share(if millionths < 1_000_000 { millionths } else { 999_999 })
    }

    /// Millionths.
    pub const fn millionths(self) -> u64 {
        self.0
    }

    /// From 0 to 1.
    pub fn ratio(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

/// One kind of value.
struct Kind {
    what: &'static str,
    example: &'static str,
    /// Name and factor.
    units: &'static [(&'static str, f64)],
    least: f64,
    most: f64,
    range: &'static str,
}

const RATE: Kind = Kind {
    what: "rate",
    example: "50 Mbit/s",
    units: &[
        ("bit/s", 1.0),
        ("kbit/s", 1e3),
        ("Mbit/s", 1e6),
        ("Gbit/s", 1e9),
        ("kB/s", 8e3),
        ("MB/s", 8e6),
        ("GB/s", 8e9),
    ],
    least: 1e3,
    most: 1e12,
    range: "1 kbit/s to 1000 Gbit/s",
};

const DELAY: Kind = Kind {
    what: "delay",
    example: "20 ms",
    units: &[("us", 1.0), ("ms", 1e3), ("s", 1e6)],
    least: 0.0,
    most: 1e7,
    range: "0 ms to 10 s",
};

const SIZE: Kind = Kind {
    what: "size",
    example: "3 GiB",
    units: &[
        ("B", 1.0),
        ("kB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("TB", 1e12),
        ("KiB", 1024.0),
        ("MiB", 1_048_576.0),
        ("GiB", 1_073_741_824.0),
        ("TiB", 1_099_511_627_776.0),
    ],
    least: 0.0,
    most: 1e15,
    range: "0 B to 1000 TB",
};

const SHARE: Kind = Kind {
    what: "share",
    example: "0.1 %",
    units: &[("%", 1e4)],
    least: 0.0,
    most: 999_999.0,
    range: "0 % or more and less than 100 %",
};

impl Kind {
    fn read(&self, text: &str) -> Result<u64, UnitError> {
        let form = || UnitError::Form {
            text: text.to_owned(),
            what: self.what,
            example: self.example,
            units: self.units.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "),
        };
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(form)?;
        let (number, unit) = (&text[..end], text[end..].trim());
        let number: f64 = number.parse().map_err(|_| form())?;
        let (_, factor) = self.units.iter().find(|(name, _)| *name == unit).ok_or_else(form)?;
        let value = (number * factor).round();
        if !(self.least..=self.most).contains(&value) {
            return Err(UnitError::Range { text: text.to_owned(), what: self.what, range: self.range });
        }
        // At most 1e15, so it fits, and whole.
        Ok(value as u64)
    }
}

/// Reads a value of one kind from text.
macro_rules! from_text {
    ($($name:ident: $kind:expr;)+) => {$(
        impl std::str::FromStr for $name {
            type Err = UnitError;

            fn from_str(text: &str) -> Result<Self, UnitError> {
                $kind.read(text).map($name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = UnitError;

            fn try_from(text: String) -> Result<Self, UnitError> {
                text.parse()
            }
        }
    )+};
}

from_text! {
    Rate: RATE;
    Delay: DELAY;
    Size: SIZE;
    Share: SHARE;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_with_their_units() {
        assert_eq!("50 Mbit/s".parse(), Ok(Rate(50_000_000)));
        assert_eq!("60MB/s".parse(), Ok(Rate(480_000_000)));
        assert_eq!("510.7 Mbit/s".parse(), Ok(Rate(510_700_000)));
        assert_eq!("20 ms".parse(), Ok(Delay(20_000)));
        assert_eq!("50 us".parse(), Ok(Delay(50)));
        assert_eq!("3 GiB".parse(), Ok(Size(3 << 30)));
        assert_eq!("1.5 kB".parse(), Ok(Size(1500)));
        assert_eq!("0.1 %".parse(), Ok(Share(1000)));
        assert_eq!(Rate(8).bytes(), 1.0);
    }

    #[test]
    fn what_is_no_value_is_refused_with_what_would_be_right() {
        for text in ["50", "50 Mbit", "Mbit/s", "-5 Mbit/s", "", "1.2.3 Mbit/s", "50 mbit/s", "50 Mbit/s x"] {
            let error = text.parse::<Rate>().unwrap_err().to_string();
            assert!(error.contains("50 Mbit/s") && error.contains("Gbit/s"), "{text}: {error}");
        }
        assert_eq!(
            "0 Mbit/s".parse::<Rate>().unwrap_err().to_string(),
            "\"0 Mbit/s\" is out of range: a rate is 1 kbit/s to 1000 Gbit/s"
        );
        assert!("100 %".parse::<Share>().is_err());
        assert!("11 s".parse::<Delay>().is_err());
    }
}
