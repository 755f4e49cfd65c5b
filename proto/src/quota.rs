//! How many records of kinds that need no grant one author may have in a catalog. Owns the rule by which some
//! of them go: those with the lowest counters, so that what stays does not depend on the order in which
//! records came. What a record is and which of two wins is [`crate::record`]'s.
//!
//! The rule must be the same at all nodes: catalogs of nodes with different quotas would never be equal.

use core::cmp::Ordering;

use crate::{
    id::{NodeId, first},
    reconcile::Position,
    record::Kind,
    shared::Shared,
    sorted::{Numbers, Sorted},
};

/// Most records of one author, by kind. Kinds that need a grant have no quota: the root chose who writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Holdings, those of artifacts that it has no more included.
    pub holdings: usize,
    /// Summaries, as well.
    pub summaries: usize,
    /// Sightings.
    pub sightings: usize,
    /// Records of all kinds unknown here together.
    pub unknown: usize,
}

impl Quota {
    /// What all nodes go by. A holding takes about 300 bytes, so 10 MB at most for a member that means harm.
    pub const MESH: Quota = Quota { holdings: 16_384, summaries: 16_384, sightings: 4_096, unknown: 1_024 };

    fn of(&self, group: Group) -> usize {
        match group {
            Group::Holdings => self.holdings,
            Group::Summaries => self.summaries,
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
    /// [`Kind::SUMMARY`]. Apart from holdings, which other sites do not have: all are to keep the same ones.
    Summaries,
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
            Kind::SUMMARY => Some(Group::Summaries),
            Kind::SIGHTING => Some(Group::Sightings),
            kind if !kind.is_known() => Some(Group::Unknown),
            _ => None,
        }
    }
}

/// What each author has of its quotas, in the order in which it would go.
#[derive(Clone, Debug, Default)]
pub struct Shares(Sorted<Shared>);

impl Shares {
    /// Whether a record would stay if it were taken in.
    pub fn has_room(&self, quota: &Quota, record: &Shared) -> bool {
        let Some(group) = Group::of(record.key.kind) else { return true };
        let most = quota.of(group);
        // All authors together have less: nothing to count.
        if self.0.len() < most {
            return true;
        }
        let of_share = |other: &Shared| share(other).cmp(&Some((record.author, group)));
        let lowest = || self.0.get(numbers(&record.author), of_share).filter(|_| most > 0);
        self.0.count(numbers(&record.author), of_share) < most
            || lowest().is_some_and(|lowest| rank(lowest) < rank(record))
    }

    /// Counts a record that was taken in.
    pub fn add(&mut self, record: &Shared) {
        if Group::of(record.key.kind).is_some() {
            self.0.insert(first(&record.author.0), record.clone(), order);
        }
    }

    /// Counts a record no more.
    pub fn remove(&mut self, record: &Shared) {
        if Group::of(record.key.kind).is_some() {
            self.0.remove(numbers(&record.author), |other| order(other, record));
        }
    }

    /// The record that has to go now, if an author has too many.
    pub fn surplus(&self, quota: &Quota, author: NodeId, kind: Kind) -> Option<&Shared> {
        let group = Group::of(kind)?;
        if self.0.len() <= quota.of(group) {
            return None;
        }
        let of_share = |other: &Shared| share(other).cmp(&Some((author, group)));
        self.0
            .get(numbers(&author), of_share)
            .filter(|_| self.0.count(numbers(&author), of_share) > quota.of(group))
    }

    /// The highest counter that an author has used in a group. Its next record there has to have a higher
    /// one, whatever the key: the quota keeps the highest.
    pub fn highest(&self, author: NodeId, kind: Kind) -> u64 {
        self.of(author, kind).next_back().map_or(0, |record| record.version)
    }

    /// The records of an author that are counted together with this kind, the one that would go first first.
    pub fn of(&self, author: NodeId, kind: Kind) -> impl DoubleEndedIterator<Item = &Shared> {
        let group = Group::of(kind);
        let of_share = move |other: &Shared| match group {
            Some(group) => share(other).cmp(&Some((author, group))),
            None => Ordering::Less,
        };
        self.0.range(numbers(&author), of_share)
    }
}

/// The numbers of what one author has.
fn numbers(author: &NodeId) -> Numbers {
    let number = first(&author.0);
    number..=number
}

fn share(record: &Shared) -> Option<(NodeId, Group)> {
    Some((record.author, Group::of(record.key.kind)?))
}

/// The lowest of a share goes first.
fn rank(record: &Shared) -> (u64, Position) {
    (record.version, record.position())
}

fn order(one: &Shared, other: &Shared) -> Ordering {
    share(one).cmp(&share(other)).then_with(|| rank(one).cmp(&rank(other)))
}
