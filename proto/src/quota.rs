//! How many records of kinds that need no grant one author may have in a catalog. Owns the rule by which some
//! of them go: those with the lowest counters, so that what stays does not depend on the order in which
//! records came. What a record is and which of two wins is [`crate::record`]'s.
//!
//! The rule must be the same at all nodes: catalogs of nodes with different quotas would never be equal.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::{
    id::NodeId,
    reconcile::Position,
    record::{Kind, Record},
};

/// Most records of one author, by kind. Kinds that need a grant have no quota: the root chose who writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Holdings, those of artifacts that it has no more included.
    pub holdings: usize,
    /// Sightings.
    pub sightings: usize,
    /// Records of all kinds unknown here together.
    pub unknown: usize,
}

impl Quota {
    /// What all nodes go by. A holding takes about 300 bytes, so 5 MB at most for a member that means harm.
    pub const MESH: Quota = Quota { holdings: 16_384, sightings: 4_096, unknown: 1_024 };

    fn of(&self, group: Group) -> usize {
        match group {
            Group::Holdings => self.holdings,
            Group::Sightings => self.sightings,
            Group::Unknown => self.unknown,
        }
    }
}

/// Kinds that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// [`Kind::HOLDING`].
    Holdings,
    /// [`Kind::SIGHTING`].
    Sightings,
    /// Kinds unknown here.
    Unknown,
}

impl Group {
    /// The group that a kind is counted in, if it is counted. There is one node record of each author.
    pub fn of(kind: Kind) -> Option<Group> {
        match kind {
            Kind::HOLDING => Some(Group::Holdings),
            Kind::SIGHTING => Some(Group::Sightings),
            kind if !kind.is_known() => Some(Group::Unknown),
            _ => None,
        }
    }
}

/// What each author has of its quotas, in the order in which it would go.
#[derive(Debug, Default)]
pub struct Shares(BTreeMap<(NodeId, Group), BTreeSet<(u64, Position)>>);

impl Shares {
    /// Whether a record would stay if it were taken in.
    pub fn has_room(&self, quota: &Quota, record: &Record, at: Position) -> bool {
        let Some(group) = Group::of(record.key.kind) else { return true };
        let Some(share) = self.0.get(&(record.author, group)) else { return quota.of(group) > 0 };
        let lowest = share.first();
        share.len() < quota.of(group) || lowest.is_some_and(|lowest| *lowest < (record.version, at))
    }

    /// Counts a record that was taken in.
    pub fn add(&mut self, record: &Record, at: Position) {
        if let Some(group) = Group::of(record.key.kind) {
            self.0.entry((record.author, group)).or_default().insert((record.version, at));
        }
    }

    /// Counts a record no more.
    pub fn remove(&mut self, record: &Record, at: Position) {
        let Some(group) = Group::of(record.key.kind) else { return };
        let of_author = (record.author, group);
        if let Some(share) = self.0.get_mut(&of_author) {
            share.remove(&(record.version, at));
            if share.is_empty() {
                self.0.remove(&of_author);
            }
        }
    }

    /// Where the record stands that has to go now, if an author has too many.
    pub fn surplus(&self, quota: &Quota, author: NodeId, kind: Kind) -> Option<Position> {
        let group = Group::of(kind)?;
        let share = self.0.get(&(author, group)).filter(|share| share.len() > quota.of(group))?;
        share.first().map(|(_, at)| *at)
    }

    /// The highest counter that an author has used in a group. Its next record there has to have a higher
    /// one, whatever the key: the quota keeps the highest.
    pub fn highest(&self, author: NodeId, kind: Kind) -> u64 {
        let share = Group::of(kind).and_then(|group| self.0.get(&(author, group)));
        share.and_then(BTreeSet::last).map_or(0, |(version, _)| *version)
    }
}
