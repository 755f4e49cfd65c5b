//! Values with their units, as people write them: "50 Mbit/s", "20 ms", "3 GiB", "0.1 %". Kept as whole numbers,
//! so that two readers of a file compute with the same value.

use std::fmt;

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

/// A part of something or all of it, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Part(u64);

/// When something happens or how long it lasts, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Time(u64);

/// How often something happens: times in a thousand hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Pace(u64);

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

impl Size {
    /// So many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Size(bytes)
    }
}

impl Part {
    /// All of it.
    pub const ALL: Part = Part(1_000_000);

    /// Millionths.
    pub const fn millionths(self) -> u64 {
        self.0
    }

    /// From 0 to 1.
    pub fn ratio(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// So much of a number, rounded up.
    pub const fn of(self, whole: usize) -> usize {
        (whole as u128 * self.0 as u128).div_ceil(1_000_000) as usize
    }
}

impl Time {
    /// So many microseconds.
    pub const fn from_micros(micros: u64) -> Self {
        Time(micros)
    }

    /// Nanoseconds.
    pub const fn nanos(self) -> u64 {
        self.0 * 1000
    }

    /// Seconds.
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

impl Pace {
    /// Nanoseconds from one to the next, on average.
    pub const fn interval(self) -> u64 {
        3_600_000_000_000_000 / self.0
    }
}

/// Values as people write them: the largest unit in which at most six digits after the point say all.
macro_rules! shown {
    ($($name:ident: $units:expr;)+) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let units: &[(&str, f64)] = $units;
                let fits = |(_, factor): &&(&str, f64)| {
                    let millionths = self.0 as f64 * 1e6 / factor;
                    self.0 as f64 >= *factor && millionths == millionths.round()
                };
                let (unit, factor) = units.iter().rev().find(fits).unwrap_or(&units[0]);
                let number = format!("{:.6}", self.0 as f64 / factor);
                write!(f, "{} {unit}", number.trim_end_matches('0').trim_end_matches('.'))
            }
        }
    )+};
}

shown! {
    Rate: &[("bit/s", 1.0), ("kbit/s", 1e3), ("Mbit/s", 1e6), ("Gbit/s", 1e9)];
    Delay: &[("us", 1.0), ("ms", 1e3), ("s", 1e6)];
    Size: &[("B", 1.0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12)];
    Share: &[("%", 1e4)];
    Part: &[("%", 1e4)];
    Time: &[("us", 1.0), ("ms", 1e3), ("s", 1e6), ("min", 6e7), ("h", 3.6e9), ("d", 8.64e10)];
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

const PART: Kind = Kind {
    what: "part",
    example: "20 %",
    units: &[("%", 1e4)],
    least: 0.0,
    most: 1e6,
    range: "0 % to 100 %",
};

const TIME: Kind = Kind {
    what: "time",
    example: "90 s",
    units: &[("us", 1.0), ("ms", 1e3), ("s", 1e6), ("min", 6e7), ("h", 3.6e9), ("d", 8.64e10)],
    least: 0.0,
    most: 3.1536e13,
    range: "0 s to 365 d",
};

const PACE: Kind = Kind {
    what: "pace",
    example: "6 per hour",
    units: &[("per s", 3.6e6), ("per min", 6e4), ("per hour", 1e3), ("per day", 1000.0 / 24.0)],
    least: 1.0,
    most: 3.6e12,
    range: "1 per 1000 hours to 1000000 per s",
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
    Part: PART;
    Time: TIME;
    Pace: PACE;
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
    fn times_parts_and_paces_too() {
        assert_eq!("2 h".parse(), Ok(Time(7_200_000_000)));
        assert_eq!("1.5 d".parse::<Time>().unwrap().seconds(), 129_600.0);
        assert_eq!("20 ms".parse::<Time>().unwrap().nanos(), 20_000_000);
        assert_eq!("100 %".parse(), Ok(Part::ALL));
        assert_eq!("20 %".parse::<Part>().unwrap().of(51), 11);
        assert_eq!("6 per hour".parse::<Pace>().unwrap().interval(), 600_000_000_000);
        assert_eq!("2 per s".parse::<Pace>().unwrap().interval(), 500_000_000);
        assert!("101 %".parse::<Part>().is_err() && "0 per s".parse::<Pace>().is_err());
        assert!("6 /h".parse::<Pace>().unwrap_err().to_string().contains("\"6 per hour\""));
    }

    #[test]
    fn what_is_shown_is_read_again() {
        for text in ["50 Mbit/s", "1.5 Gbit/s", "512 bit/s"] {
            let shown = Rate::from_bits(match text {
                "512 bit/s" => 512,
                text => text.parse::<Rate>().unwrap().bits(),
            });
            assert_eq!(shown.to_string(), text);
        }
        assert_eq!("25 ms".parse::<Delay>().unwrap().to_string(), "25 ms");
        assert_eq!("3 GB".parse::<Size>().unwrap().to_string(), "3 GB");
        assert_eq!("0.5 %".parse::<Share>().unwrap().to_string(), "0.5 %");
        assert_eq!("90 s".parse::<Time>().unwrap().to_string(), "1.5 min");
        assert_eq!("0 ms".parse::<Delay>().unwrap().to_string(), "0 us");
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
