//! What was moved over links to other sites this month, kept over restarts and clock jumps. A month begins only
//! once the clock has stood in it for a while, and never ends by a clock that goes back: a jump neither
//! forgets what was spent nor counts it twice.

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use waystation_proto::Wall;

use crate::identity::{Existing, write_private};

/// The counters of one month.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spending {
    /// Of this form; another is from newer software.
    version: u8,
    /// The month in which it began: year times twelve, plus the month from zero. Absent until a clock was set.
    month: Option<u32>,
    /// The latest time of the day known, in seconds since 1970.
    seen: u64,
    /// Bytes from other sites.
    pub down: u64,
    /// Bytes to other sites.
    pub up: u64,
    /// Since when the clock has stood in a later month.
    #[serde(skip)]
    later: Option<Duration>,
}

/// Why what was spent is not known.
#[derive(Debug, thiserror::Error)]
pub enum SpendingError {
    /// The system's error.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Not what was written.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// Of another version.
    #[error("it is of version {0}, which this version of the software does not know")]
    Version(u64),
}

impl Spending {
    /// What the file says; nothing spent where there is none.
    pub fn load(path: &Path) -> Result<Self, SpendingError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Self::new()),
            Err(why) => return Err(why.into()),
        };
        let damaged = |why: serde_json::Error| SpendingError::Damaged(why.to_string());
        let value: serde_json::Value = serde_json::from_str(&text).map_err(damaged)?;
        match value["version"].as_u64() {
            Some(version) if version == u64::from(VERSION) => serde_json::from_value(value).map_err(damaged),
            Some(version) => Err(SpendingError::Version(version)),
            None => Err(SpendingError::Damaged("it says no version".to_owned())),
        }
    }

    /// Nothing spent.
    pub fn new() -> Self {
        Spending { version: VERSION, ..Spending::default() }
    }

    /// Writes the file, whole or not at all.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        write_private(path, &serde_json::to_string(self)?, Existing::Replace)
    }

    /// Both ways together.
    pub fn total(&self) -> u64 {
        self.down.saturating_add(self.up)
    }

    /// Looks at the clock. `mono` never jumps; `day` is the day on which months begin. True where a new month
    /// began, with nothing spent.
    pub fn look(&mut self, mono: Duration, wall: Wall, day: u8) -> bool {
        // A clock that was never set, or that went back, says nothing.
        if !wall.is_plausible() || wall.0 < self.seen {
            self.later = None;
            return false;
        }
        let Some(now) = month_of(wall, day) else { return false };
        match self.month {
            // What was spent before the clock was set belongs to the month in which it was.
            None => (self.month, self.seen) = (Some(now), wall.0),
            Some(month) if now > month => {
                let since = *self.later.get_or_insert(mono);
                if mono.saturating_sub(since) < SETTLED {
                    return false;
                }
                *self = Spending { month: Some(now), seen: wall.0, ..Self::new() };
                return true;
            }
            Some(_) => (self.later, self.seen) = (None, wall.0),
        }
        false
    }

    /// Forgets what was spent, and goes by the clock as it is.
    pub fn forget(&mut self, wall: Wall, day: u8) {
        *self = Spending::new();
        self.look(Duration::ZERO, wall, day);
    }

    /// The first day of the month, such as `2026-11-01`.
    pub fn since(&self, day: u8) -> Option<String> {
        self.month.map(|month| format!("{:04}-{:02}-{day:02}", month / 12, month % 12 + 1))
    }
}

/// The month in which the period began that holds this time.
fn month_of(wall: Wall, day: u8) -> Option<u32> {
    let date = OffsetDateTime::from_unix_timestamp(i64::try_from(wall.0).ok()?).ok()?;
    let month = u32::try_from(date.year()).ok()? * 12 + u32::from(u8::from(date.month())) - 1;
    Some(if date.day() < day { month.saturating_sub(1) } else { month })
}

/// What the machine's clock says.
pub fn wall() -> Wall {
    Wall(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

const VERSION: u8 = 1;

/// A clock that jumped is usually set right within minutes.
const SETTLED: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: u64 = 60;
    const DAY: u64 = 86_400;
    /// 2026-11-01 00:00 UTC.
    const NOVEMBER: u64 = 1_793_491_200;
    const DECEMBER: u64 = NOVEMBER + 30 * DAY;

    /// A clock of which minutes pass.
    struct Clock(u64);

    impl Clock {
        fn pass(&mut self, spending: &mut Spending, minutes: u64, wall: u64) -> bool {
            let mut began = false;
            for minute in 0..=minutes {
                self.0 += MINUTE;
                began |= spending.look(Duration::from_secs(self.0), Wall(wall + minute * MINUTE), 1);
            }
            began
        }
    }

    #[test]
    fn months_begin_on_their_day() {
        let of = |wall, day| month_of(Wall(wall), day).expect("a date");
        assert_eq!(of(NOVEMBER, 1), 2026 * 12 + 10);
        assert_eq!(of(NOVEMBER - 1, 1), 2026 * 12 + 9);
        assert_eq!(of(NOVEMBER + 13 * DAY, 15), 2026 * 12 + 9);
        assert_eq!(of(NOVEMBER + 14 * DAY, 15), 2026 * 12 + 10);
        assert_eq!(of(NOVEMBER + 61 * DAY, 15), 2026 * 12 + 11);
        let mut spending = Spending::new();
        assert_eq!(spending.since(1), None);
        spending.look(Duration::ZERO, Wall(NOVEMBER + DAY), 15);
        assert_eq!(spending.since(15).as_deref(), Some("2026-10-15"));
    }

    #[test]
    fn a_month_that_goes_by_is_forgotten_once() {
        let (mut spending, mut clock) = (Spending::new(), Clock(0));
        assert!(!clock.pass(&mut spending, 5, DECEMBER - 5 * MINUTE - 1));
        (spending.down, spending.up) = (5, 7);
        assert!(!clock.pass(&mut spending, 8, DECEMBER));
        assert_eq!(spending.total(), 12, "not yet settled");
        assert!(clock.pass(&mut spending, 8, DECEMBER + 9 * MINUTE));
        assert_eq!((spending.total(), spending.since(1).as_deref()), (0, Some("2026-12-01")));
        spending.down = 3;
        assert!(!clock.pass(&mut spending, 60, DECEMBER + 20 * MINUTE));
        assert_eq!(spending.total(), 3);
    }

    #[test]
    fn a_jump_there_and_back_changes_nothing() {
        let (mut spending, mut clock) = (Spending::new(), Clock(0));
        clock.pass(&mut spending, 5, NOVEMBER + DAY);
        spending.down = 100;
        let before = spending.clone();
        for wall in [0, 1_000_000_000, NOVEMBER - DAY, NOVEMBER + 5000 * DAY, DECEMBER + DAY, u64::MAX - DAY]
        {
            assert!(!clock.pass(&mut spending, 9, wall), "{wall}");
            assert!(!clock.pass(&mut spending, 1, NOVEMBER + DAY + 6 * MINUTE));
            assert_eq!((spending.down, spending.month), (100, before.month), "{wall}");
        }
        // A board without a clock goes on in the month that it knows.
        let mut rebooted = Spending { later: None, ..spending.clone() };
        assert!(!Clock(0).pass(&mut rebooted, 100, 0));
        assert_eq!(rebooted, Spending { later: None, ..spending });
    }

    #[test]
    fn kept_on_disk_and_other_files_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("spent");
        let mut spending = Spending::load(&path).expect("none yet");
        spending.look(Duration::ZERO, Wall(NOVEMBER), 1);
        (spending.down, spending.up) = (u64::MAX, 2);
        spending.save(&path).expect("saved");
        assert_eq!(
            fs::read_to_string(&path).expect("there"),
            r#"{"version":1,"month":24322,"seen":1793491200,"down":18446744073709551615,"up":2}"#
        );
        assert_eq!(Spending::load(&path).expect("read"), spending);
        assert_eq!(spending.total(), u64::MAX);
        for (text, version) in
            [("", false), ("{}", false), (r#"{"version":2}"#, true), (r#"{"version":1,"x":1}"#, false)]
        {
            fs::write(&path, text).expect("written");
            let error = Spending::load(&path).expect_err("refused");
            assert_eq!(matches!(error, SpendingError::Version(2)), version, "{text}: {error}");
        }
    }

    proptest! {
        /// Whatever the clock does for less than the time to settle, and wherever the node restarts, what was
        /// spent stays; and no clock that is behind what was seen begins a month.
        #[test]
        fn short_jumps_and_restarts_keep_what_was_spent(
            jumps in proptest::collection::vec((any::<u64>(), 0_u64..9, any::<bool>()), 1..20),
        ) {
            let (mut spending, mut clock) = (Spending::new(), Clock(0));
            clock.pass(&mut spending, 1, NOVEMBER + DAY);
            let mut spent = 0;
            for (wall, minutes, restart) in jumps {
                let wall = wall % (2 * DECEMBER);
                clock.pass(&mut spending, minutes, wall);
                let month = month_of(Wall(wall), 1);
                spending.down += 10;
                spent += 10;
                if restart {
                    spending.later = None;
                }
                // Back to what is right; a jump within the month may have been believed.
                clock.pass(&mut spending, 1, NOVEMBER + DAY + 5 * MINUTE);
                spending.later = None;
                prop_assert_eq!(spending.down, spent, "{:?}", month);
            }
        }
    }
}
