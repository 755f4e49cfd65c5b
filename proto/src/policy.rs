//! Policies: which artifacts are to be held where, how often and when, as declared by whoever has a grant for
//! it. This file owns what a policy says, its bounds and its hours. Which artifacts it means is [`select`]'s,
//! which nodes [`crate::placement`]'s, carrying it out [`keeper`]'s.

mod closure;
pub mod keeper;
pub mod report;
pub mod select;

use alloc::{collections::BTreeMap, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{
    body::Tier,
    glob::{Glob, Pattern},
    grant::{Action, Grant},
    time::{Span, Wall},
};

/// Kind 9, scope: mesh, name: the policy's. Wire type; its bytes are fixed by `tests/wire_golden.rs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyBody {
    /// What it says, or nothing where it was deleted.
    pub policy: Option<Policy>,
}

/// What is to be held where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Repositories meant. At least one, at most [`Policy::LIST_MAX`].
    pub repositories: Vec<Glob>,
    /// Tags meant, of each of them.
    pub tags: TagRule,
    /// Nodes meant.
    pub places: Places,
    /// Of an index that lists platforms, those meant, as `os/architecture[/variant]`; all where empty.
    pub platforms: Vec<String>,
    /// Copies on each site; on every node meant where absent.
    pub copies_per_site: Option<u16>,
    /// Copies in all; as many as the sites ask for where absent.
    pub copies: Option<u16>,
    /// Higher ones are brought first.
    pub priority: u8,
    /// Hours in which copies may be brought; at once where empty.
    pub windows: Vec<Window>,
    /// Minutes east of UTC of the clock that the windows speak of.
    pub utc_offset: i16,
    /// Whether nodes with a metered uplink may fetch for it from other sites.
    pub metered: bool,
    /// Seconds after which a holder that is not heard of counts as lost.
    pub grace: u32,
    /// Whether what refers to an artifact (signatures, SBOMs) comes with it.
    pub referrers: bool,
    /// Whether what an artifact depends on (a chart's images) comes with it.
    pub depends: bool,
}

/// Which tags of a repository are meant: those that pass every test that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRule {
    /// One of these patterns fits; any tag where empty.
    pub patterns: Vec<Pattern>,
    /// It is a version in this range, as Cargo writes them.
    pub versions: Option<String>,
    /// It is among so many newest of those that pass the others.
    pub newest: Option<u16>,
}

/// Which nodes are meant: those that pass every test that is given. An empty list lets all pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// One of these patterns fits the name of its site.
    pub sites: Vec<Pattern>,
    /// One of these patterns fits its region.
    pub regions: Vec<Pattern>,
    /// One of these is its id, or the start of it.
    pub nodes: Vec<String>,
    /// It is of one of these tiers.
    pub tiers: Vec<Tier>,
    /// It has each of these labels, with a value that the pattern fits.
    pub labels: BTreeMap<String, Pattern>,
}

/// Hours of some days of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Bit 0 is Monday. Of a window that passes midnight, the day on which it opens.
    pub days: u8,
    /// Minute of the day at which it opens.
    pub from: u16,
    /// Minute of the day at which it closes; of the next day unless later than `from`.
    pub to: u16,
}

/// Whether copies may be brought now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hours {
    /// They may.
    Open,
    /// Not before so many seconds from now.
    ClosedFor(u64),
    /// This node's clock was never set, so it cannot know.
    NoClock,
}

impl Policy {
    /// Longest list in a policy.
    pub const LIST_MAX: usize = 32;
    /// Most policies of a mesh that are acted on; the first by name.
    pub const POLICIES_MAX: usize = 256;
    /// Seconds of grace where nothing else is said.
    pub const GRACE: u32 = 600;

    /// Whether everything is within bounds. The error names what is not.
    pub fn check(&self) -> Result<(), &'static str> {
        let lists = [
            self.repositories.len(),
            self.tags.patterns.len(),
            self.places.sites.len(),
            self.places.regions.len(),
            self.places.nodes.len(),
            self.places.tiers.len(),
            self.places.labels.len(),
            self.platforms.len(),
            self.windows.len(),
        ];
        if self.repositories.is_empty() {
            return Err("a policy names no repositories");
        }
        if lists.into_iter().any(|len| len > Self::LIST_MAX) {
            return Err("a policy's list is too long");
        }
        let ids = self.places.nodes.iter().all(|id| {
            (8..=64).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        });
        if !ids || self.places.labels.keys().any(|key| key.is_empty() || key.len() > 63) {
            return Err("a policy's nodes or labels");
        }
        let platform = |text: &String| {
            text.len() <= 64
                && (2..=3).contains(&text.split('/').count())
                && text.split('/').all(|part| !part.is_empty())
                && text.bytes().all(|b| b.is_ascii_graphic())
        };
        if !self.platforms.iter().all(platform) {
            return Err("a policy's platforms");
        }
        let counts = [self.copies, self.copies_per_site, self.tags.newest];
        if counts.contains(&Some(0)) {
            return Err("a policy that wants none");
        }
        if self.tags.versions.as_ref().is_some_and(|range| !select::is_range(range)) {
            return Err("a policy's range of versions");
        }
        if !self.windows.iter().all(Window::is_sound) || self.utc_offset.unsigned_abs() > 14 * 60 {
            return Err("a policy's hours");
        }
        Ok(())
    }

    /// Whether copies may be brought at `wall`.
    pub fn hours(&self, wall: Wall) -> Hours {
        if self.windows.is_empty() {
            return Hours::Open;
        }
        if !wall.is_plausible() {
            return Hours::NoClock;
        }
        let offset = i64::from(self.utc_offset) * 60;
        let local = wall.0.saturating_add_signed(offset);
        let waits = self.windows.iter().map(|window| window.opens_in(local));
        match waits.min() {
            Some(0) | None => Hours::Open,
            Some(seconds) => Hours::ClosedFor(seconds),
        }
    }

    /// The grace as a span.
    pub fn grace(&self) -> Span {
        Span::secs(u64::from(self.grace))
    }
}

/// Whether `grant` lets its subject write the policy of this name at the time `at`: it must cover the name, so
/// that nobody replaces the policies of others, and every repository that the policy speaks of.
pub fn covers(grant: &Grant, name: &str, policy: Option<&Policy>, at: Wall) -> bool {
    let repositories = policy.into_iter().flat_map(|policy| &policy.repositories);
    grant.allows(Action::Policy, name, at)
        && repositories.into_iter().all(|glob| grant.repositories.covers(glob))
}

impl Window {
    fn is_sound(&self) -> bool {
        (1..1 << 7).contains(&self.days) && self.from < DAY_MINUTES && self.to <= DAY_MINUTES
    }

    /// Seconds from `local`, seconds since 1970 by its own clock, until it is open; 0 where it is.
    fn opens_in(&self, local: u64) -> u64 {
        let minutes = u64::from(self.to).checked_sub(u64::from(self.from)).filter(|minutes| *minutes > 0);
        let lasts = minutes.unwrap_or_else(|| u64::from(DAY_MINUTES + self.to - self.from)) * 60;
        let today = local / DAY;
        // The window of yesterday may still be open; in a week at the latest one opens.
        let starts = (today.saturating_sub(1)..=today + 7).filter(|day| {
            // 1970-01-01 was a Thursday.
            let weekday = (day + 3) % 7;
            self.days & (1 << weekday) != 0
        });
        let mut starts = starts.map(|day| day * DAY + u64::from(self.from) * 60);
        let next = starts.find(|start| start + lasts > local);
        next.map_or(u64::MAX, |start| start.saturating_sub(local))
    }
}

const DAY_MINUTES: u16 = 24 * 60;
const DAY: u64 = 24 * 60 * 60;

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn policy(windows: Vec<Window>) -> Policy {
        Policy {
            repositories: vec![Glob::everything()],
            tags: TagRule::default(),
            places: Places::default(),
            platforms: vec![],
            copies_per_site: Some(1),
            copies: None,
            priority: 0,
            windows,
            utc_offset: 0,
            metered: true,
            grace: Policy::GRACE,
            referrers: true,
            depends: true,
        }
    }

    /// 2026-11-22 is a Sunday.
    const SUNDAY: u64 = 1_795_305_600;

    #[test]
    fn hours_open_and_close() {
        let night = Window { days: 0x7f, from: 22 * 60, to: 6 * 60 };
        let at = |hour: u64, minute: u64| Wall(SUNDAY + hour * 3600 + minute * 60);
        let nightly = policy(vec![night]);
        assert_eq!(nightly.check(), Ok(()));
        assert_eq!(nightly.hours(at(23, 0)), Hours::Open);
        assert_eq!(nightly.hours(at(5, 59)), Hours::Open);
        assert_eq!(nightly.hours(at(6, 0)), Hours::ClosedFor(16 * 3600));
        assert_eq!(nightly.hours(at(21, 59)), Hours::ClosedFor(60));
        let east = Policy { utc_offset: 120, ..nightly };
        assert_eq!(east.hours(at(21, 59)), Hours::Open);
        assert_eq!(east.hours(at(5, 59)), Hours::ClosedFor(14 * 3600 + 60));
    }

    #[test]
    fn hours_of_some_days_only() {
        let saturdays = policy(vec![Window { days: 1 << 5, from: 0, to: 24 * 60 }]);
        assert_eq!(saturdays.hours(Wall(SUNDAY - 1)), Hours::Open);
        assert_eq!(saturdays.hours(Wall(SUNDAY)), Hours::ClosedFor(6 * DAY));
        let night = policy(vec![Window { days: 1 << 5, from: 23 * 60, to: 60 }]);
        assert_eq!(night.hours(Wall(SUNDAY + 59 * 60)), Hours::Open);
        assert!(matches!(night.hours(Wall(SUNDAY + 60 * 60)), Hours::ClosedFor(_)));
    }

    #[test]
    fn a_clock_that_was_never_set_opens_no_window() {
        let nightly = policy(vec![Window { days: 0x7f, from: 0, to: 24 * 60 }]);
        assert_eq!(nightly.hours(Wall(5)), Hours::NoClock);
        assert_eq!(policy(vec![]).hours(Wall(5)), Hours::Open);
    }

    #[test]
    fn refuses_what_is_out_of_bounds() {
        let good = policy(vec![]);
        let wrong = [
            Policy { repositories: vec![], ..good.clone() },
            Policy { repositories: vec![Glob::everything(); 33], ..good.clone() },
            Policy { copies: Some(0), ..good.clone() },
            Policy { platforms: vec!["linux".into()], ..good.clone() },
            Policy { windows: vec![Window { days: 0, from: 0, to: 1 }], ..good.clone() },
            Policy { windows: vec![Window { days: 1, from: 1440, to: 1 }], ..good.clone() },
            Policy { utc_offset: 1000, ..good.clone() },
            Policy { places: Places { nodes: vec!["abc".into()], ..Places::default() }, ..good.clone() },
            Policy { tags: TagRule { versions: Some("nonsense".into()), ..TagRule::default() }, ..good },
        ];
        assert!(wrong.iter().all(|policy| policy.check().is_err()));
    }
}
