//! `[storage]`: how much of the disk a node may take, and what it does when that is taken.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::units::Size;

/// `[storage]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageConfig {
    /// What the data directory may take.
    pub quota: Amount,
    /// What of the disk is kept free, whoever takes the rest.
    pub reserve: Amount,
    /// Percent of the quota from which on copies are deleted.
    pub high_water: u8,
    /// Percent of the quota down to which they are.
    pub low_water: u8,
    /// After what time bytes go that nothing refers to.
    #[serde(with = "span")]
    pub loose_after: Duration,
}

/// Bytes, or a part of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Percent of the file system that the data directory is on.
    Percent(u8),
    /// Bytes.
    Bytes(u64),
}

impl StorageConfig {
    /// Says what cannot be meant.
    pub fn complain(&self, wrong: &mut Vec<String>) {
        if !(1..=100).contains(&self.high_water) || self.low_water >= self.high_water {
            wrong.push(format!(
                "storage.high_water, storage.low_water: {} and {} cannot be; give percents of the quota, the low one \
                 below the high one",
                self.high_water, self.low_water
            ));
        }
        if self.quota == Amount::Bytes(0) || self.quota == Amount::Percent(0) {
            wrong
                .push("storage.quota: nothing could be stored; give bytes, or a part of the disk".to_owned());
        }
    }
}

impl Default for StorageConfig {
    fn default() -> Self {
        StorageConfig {
            quota: Amount::Percent(80),
            reserve: Amount::Percent(5),
            high_water: 95,
            low_water: 85,
            loose_after: Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl Amount {
    /// In bytes, on a disk of this size.
    pub fn of(self, disk: u64) -> u64 {
        match self {
            Amount::Percent(percent) => percent_of(disk, percent),
            Amount::Bytes(bytes) => bytes,
        }
    }
}

/// So many percent of it.
pub(super) fn percent_of(all: u64, percent: u8) -> u64 {
    u64::try_from(u128::from(all) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no amount of storage; write such as \"80%\", \"20 GiB\" or \"500 MB\"");
        if let Some(percent) = text.strip_suffix('%') {
            let percent = percent.trim_end();
            let digits = percent.bytes().all(|byte| byte.is_ascii_digit());
            let number = percent.parse().ok().filter(|number| digits && *number <= 100);
            return number.map(Amount::Percent).ok_or_else(wrong);
        }
        text.parse::<Size>().map(|size| Amount::Bytes(size.0)).map_err(|_| wrong())
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Percent(percent) => write!(f, "{percent}%"),
            Amount::Bytes(bytes) => Size(*bytes).fmt(f),
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A span of time as people write it.
mod span {
    use super::{Deserialize, Deserializer, Duration, Serializer};

    pub fn serialize<S: Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&humantime::format_duration(*value))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(d)?;
        humantime::parse_duration(&text).map_err(|_| {
            serde::de::Error::custom(format!("{text:?} is no span of time; write such as \"24h\" or \"30m\""))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written() {
        for (text, amount, again) in [
            ("80%", Amount::Percent(80), "80%"),
            ("20 GiB", Amount::Bytes(20 << 30), "20 GiB"),
            ("500MB", Amount::Bytes(500_000_000), "500 MB"),
            ("1.5 GiB", Amount::Bytes(3 << 29), "1.5 GiB"),
            ("5 %", Amount::Percent(5), "5%"),
            ("0 B", Amount::Bytes(0), "0 B"),
        ] {
            assert_eq!(text.parse(), Ok(amount), "{text}");
            assert_eq!(amount.to_string(), again);
            assert_eq!(again.parse(), Ok(amount));
        }
        for text in ["", "%", "101%", "+5%", "-1", "1024", "20 GiBs", "99999999999 TiB"] {
            assert!(text.parse::<Amount>().is_err(), "{text}");
        }
        assert_eq!(Amount::Percent(80).of(1000), 800);
    }
}
