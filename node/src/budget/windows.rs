//! Times of the day in which something is allowed: `22:00-06:00`, in UTC.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use waystation_proto::Wall;

/// Minutes of the day, from one to the other; over midnight where the second is the smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Window {
    from: u16,
    to: u16,
}

/// Text that is no window; a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time window; write two different times of the day in UTC, such as \"22:00-06:00\"")]
pub struct WindowError(String);

impl Window {
    /// Whether it is open at that time.
    pub fn is_open(self, wall: Wall) -> bool {
        let minute = (wall.0 % DAY / 60) as u16;
        if self.from < self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        let wrong = || WindowError(text.to_owned());
        let (from, to) = text.split_once('-').ok_or_else(wrong)?;
        let (from, to) = (minute(from).ok_or_else(wrong)?, minute(to).ok_or_else(wrong)?);
        // 24:00 is an end, never a beginning.
        if from == to || from == MINUTES || (from == 0 && to == MINUTES) {
            return Err(wrong());
        }
        Ok(Window { from, to })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Window { from, to } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

impl TryFrom<String> for Window {
    type Error = WindowError;
    fn try_from(text: String) -> Result<Self, WindowError> {
        text.parse()
    }
}

impl From<Window> for String {
    fn from(window: Window) -> String {
        window.to_string()
    }
}

/// `HH:MM` to minutes of the day.
fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| -> Option<u16> {
        (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (minutes < 60 && hours * 60 + minutes <= MINUTES).then_some(hours * 60 + minutes)
}

/// Seconds and minutes of a day.
const DAY: u64 = 24 * 60 * 60;
const MINUTES: u16 = 24 * 60;

#[cfg(test)]
mod tests {
    use super::*;

    fn window(text: &str) -> Window {
        text.parse().expect("a window")
    }

    fn at(hour: u64, minute: u64) -> Wall {
        Wall(1_760_000_000 / DAY * DAY + hour * 3600 + minute * 60)
    }

    #[test]
    fn open_from_the_first_minute_to_before_the_last() {
        let night = window("22:00-06:00");
        for (hour, minute, open) in
            [(22, 0, true), (23, 59, true), (0, 0, true), (5, 59, true), (6, 0, false), (21, 59, false)]
        {
            assert_eq!(night.is_open(at(hour, minute)), open, "{hour}:{minute}");
        }
        let noon = window("11:30-12:30");
        assert!(noon.is_open(at(12, 0)) && !noon.is_open(at(12, 30)) && !noon.is_open(at(0, 0)));
        assert!(window("20:00-24:00").is_open(at(23, 59)));
    }

    #[test]
    fn texts() {
        for good in ["22:00-06:00", "00:00-00:01", "20:00-24:00"] {
            assert_eq!(window(good).to_string(), good);
        }
        for bad in [
            "",
            "22-06",
            "22:00",
            "22:00-22:00",
            "24:00-06:00",
            "00:00-24:00",
            "1:00-2:00",
            "22:60-23:00",
            "22:00 - 06:00",
            "25:00-01:00",
        ] {
            assert!(bad.parse::<Window>().is_err(), "{bad:?}");
        }
    }
}
