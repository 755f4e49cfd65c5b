//! Time as the protocol sees it: [`Time`] for deciding, [`Wall`] for showing. Reading clocks is the driver's.

use core::ops::Add;

use serde::{Deserialize, Serialize};

/// Milliseconds since the driver's own start. Never goes back, says nothing about the calendar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

/// A length of time in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub u64);

/// Seconds since 1970-01-01 UTC, as far as this machine knows. Boards without a clock say 0 or worse,
/// so it is shown to people and compared with expiry dates, and never orders writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Wall(pub u64);

/// What the driver's clocks say at the moment of an input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The clock that decides.
    pub time: Time,
    /// The clock that is shown.
    pub wall: Wall,
}

impl Span {
    /// A span of whole seconds.
    pub const fn secs(secs: u64) -> Self {
        Span(secs * 1000)
    }
    /// A span of milliseconds.
    pub const fn millis(ms: u64) -> Self {
        Span(ms)
    }
}

impl Wall {
    /// Whether the machine's clock has plausibly been set: no release of this software is older.
    pub fn is_plausible(self) -> bool {
        self.0 >= 1_750_000_000
    }
}

impl Add<Span> for Time {
    type Output = Time;
    fn add(self, span: Span) -> Time {
        Time(self.0.saturating_add(span.0))
    }
}

impl Time {
    /// The span from `earlier` to `self`, zero if `earlier` is later.
    pub fn since(self, earlier: Time) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}
