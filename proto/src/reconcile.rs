//! Making two catalogs equal at a cost that grows with their difference: range-based set reconciliation
//! (A. Meyer, "Range-Based Set Reconciliation", SRDS 2023; the idea of negentropy). Both sides are
//! stateless: every message can be answered from the catalog alone, so any of them may be lost.
//!
//! Positions are hashes, hence spread evenly, so ranges are split in equal parts of the space and not of
//! the content. Which member to compare with and when is [`crate::replica`]'s business.

use alloc::vec::Vec;
use core::ops::RangeInclusive;

use blake3::hazmat::{ContextKey, HasherExt};
use serde::{Deserialize, Serialize};

use crate::{catalog::Catalog, record::RecordId, wire::Message};

/// Where a record stands in the order of comparison: the first half of its id, read as a number.
pub type Position = u128;

/// Where an id stands.
pub fn position(id: &RecordId) -> Position {
    let (prefix, _) = id.0.split_at(16);
    Position::from_be_bytes(prefix.try_into().expect("16 bytes"))
}

/// The first half of a position, in whose order positions are as far as it tells them apart.
pub(crate) fn number_of(position: Position) -> u64 {
    (position >> 64) as u64
}

/// Which records are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Within {
    /// Those of the whole mesh.
    Mesh,
    /// Those, and those of the site that both are on.
    Site,
}

/// What the sender has in one part of the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// First position of the part.
    pub from: Position,
    /// Last position of the part.
    pub to: Position,
    /// What is there.
    pub content: Content,
}

/// How a part is described.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// By a hash over all ids, and their number.
    Fingerprint([u8; 16], u64),
    /// By every id, ascending.
    Ids(Vec<RecordId>),
}

impl Summary {
    /// What counts towards [`Message::MAX_ITEMS`].
    pub fn items(&self) -> usize {
        match &self.content {
            Content::Fingerprint(..) => 1,
            Content::Ids(ids) => 1 + ids.len(),
        }
    }
}

/// A sum over ids, from which fingerprints are made: ids can be added and taken away in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    high: u128,
    low: u128,
    count: u64,
}

impl Sum {
    /// Adds an id.
    pub fn add(&mut self, id: &RecordId) {
        let (high, low) = halves(id);
        self.high = self.high.wrapping_add(high);
        self.low = self.low.wrapping_add(low);
        self.count += 1;
    }

    /// Takes an id away that was added.
    pub fn remove(&mut self, id: &RecordId) {
        let (high, low) = halves(id);
        self.high = self.high.wrapping_sub(high);
        self.low = self.low.wrapping_sub(low);
        self.count -= 1;
    }

    /// Adds all that another sum has.
    pub fn add_sum(&mut self, other: &Sum) {
        self.high = self.high.wrapping_add(other.high);
        self.low = self.low.wrapping_add(other.low);
        self.count += other.count;
    }

    /// How many ids there are in it.
    pub fn count(&self) -> u64 {
        self.count
    }

    fn fingerprint(&self) -> Content {
        let mut hasher = blake3::Hasher::new_from_context_key(&FINGERPRINT);
        hasher.update(&self.high.to_be_bytes());
        hasher.update(&self.low.to_be_bytes());
        hasher.update(&self.count.to_be_bytes());
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Content::Fingerprint(fingerprint, self.count)
    }
}

/// What a step of a reconciliation asks for.
#[derive(Debug, Default)]
pub struct Step {
    /// To be answered: parts that differ, more closely described.
    pub summaries: Vec<Summary>,
    /// What the other side has and this one does not.
    pub request: Vec<RecordId>,
    /// What this side has and the other does not.
    pub push: Vec<RecordId>,
    /// Whether the whole catalogs were compared and are equal.
    pub equal: bool,
    /// Whether something had to be left out to stay within the limits: another round is due soon.
    pub truncated: bool,
}

/// The message that starts a round with a member of the same site, which is named, or of another: the fingerprint
/// of everything.
pub fn opening(catalog: &Catalog, site: Option<&str>) -> Message {
    let within = if site.is_some() { Within::Site } else { Within::Mesh };
    let summaries = alloc::vec![summarise(catalog, within, EVERYTHING)];
    Message::Reconcile { site: site.map(Into::into), summaries }
}

/// Answers one message of a round.
pub fn step(catalog: &Catalog, within: Within, theirs: &[Summary]) -> Step {
    let mut step = Step::default();
    // Honest parts lie one after the other. Others could make this node list its whole catalog thousands
    // of times in answer to one message.
    let mut next = Some(0);
    for summary in theirs {
        if summary.from > summary.to || next.is_none_or(|next| summary.from < next) {
            continue;
        }
        next = summary.to.checked_add(1);
        let range = summary.from..=summary.to;
        match &summary.content {
            Content::Fingerprint(fingerprint, count) => {
                step.compare(catalog, (within, range), fingerprint, *count);
            }
            Content::Ids(ids) => step.difference(catalog, (within, range), ids),
        }
    }
    step.bound();
    step
}

impl Step {
    /// A record that one of the two sides has to take, if there is any.
    pub fn first_difference(&self) -> Option<RecordId> {
        self.push.first().or_else(|| self.request.first()).copied()
    }

    fn compare(
        &mut self,
        catalog: &Catalog,
        (within, range): (Within, RangeInclusive<Position>),
        theirs: &[u8; 16],
        their_count: u64,
    ) {
        let sum = catalog.sum(within, range.clone());
        if sum.fingerprint() == Content::Fingerprint(*theirs, their_count) {
            self.equal |= range == EVERYTHING;
        } else if their_count == 0 {
            self.push.extend(catalog.ids(within, range).take(PUSH_MAX + 1 - self.push.len().min(PUSH_MAX)));
        } else if sum.count.saturating_add(their_count) <= IDS_AT_ONCE
            || sum.count == 0
            || range.start() == range.end()
        {
            let content =
                Content::Ids(catalog.ids(within, range.clone()).take(Message::MAX_ITEMS / 2).collect());
            self.summaries.push(Summary { from: *range.start(), to: *range.end(), content });
        } else {
            self.summaries.extend(parts(range).map(|part| summarise(catalog, within, part)));
        }
    }

    fn difference(
        &mut self,
        catalog: &Catalog,
        (within, range): (Within, RangeInclusive<Position>),
        theirs: &[RecordId],
    ) {
        // Not trusted to be sorted: the cost of sorting is bounded by the message.
        let mut theirs: Vec<RecordId> = theirs.to_vec();
        theirs.sort_unstable();
        let lacking = catalog.ids(within, range).filter(|id| theirs.binary_search(id).is_err());
        self.push.extend(lacking.take(PUSH_MAX + 1 - self.push.len().min(PUSH_MAX)));
        self.request.extend(theirs.into_iter().filter(|id| catalog.by_id(id).is_none()));
    }

    fn bound(&mut self) {
        let mut items = 0;
        let before = self.summaries.len();
        self.summaries.retain(|summary| {
            items += summary.items();
            items <= Message::MAX_ITEMS
        });
        self.truncated |= self.summaries.len() < before
            || self.request.len() > Message::MAX_ITEMS
            || self.push.len() > PUSH_MAX;
        self.request.truncate(Message::MAX_ITEMS);
        self.push.truncate(PUSH_MAX);
    }
}

fn summarise(catalog: &Catalog, within: Within, range: RangeInclusive<Position>) -> Summary {
    let content = catalog.sum(within, range.clone()).fingerprint();
    Summary { from: *range.start(), to: *range.end(), content }
}

/// Sixteen parts of nearly equal width, or fewer where the range is narrower.
fn parts(range: RangeInclusive<Position>) -> impl Iterator<Item = RangeInclusive<Position>> {
    let (from, to) = range.into_inner();
    let width = ((to - from) / PARTS).max(1);
    (0..PARTS).filter_map(move |part| {
        let start = from.checked_add(width.checked_mul(part)?)?;
        if start > to {
            return None;
        }
        let last = part == PARTS - 1;
        let end = if last { to } else { start.saturating_add(width - 1).min(to) };
        Some(start..=end)
    })
}

fn halves(id: &RecordId) -> (u128, u128) {
    let (high, low) = id.0.split_at(16);
    let number = |half: &[u8]| u128::from_be_bytes(half.try_into().expect("16 bytes"));
    (number(high), number(low))
}

/// The key that `waystation catalog fingerprint v1` gives: to work it out takes as long as what it is for.
const FINGERPRINT: ContextKey = [
    235, 87, 104, 165, 37, 86, 64, 236, 172, 52, 90, 253, 34, 144, 189, 156, 232, 81, 67, 137, 80, 205, 148,
    109, 42, 235, 8, 184, 178, 205, 38, 129,
];
const EVERYTHING: RangeInclusive<Position> = 0..=Position::MAX;
/// Into how many parts a differing range is split: 16 parts find one difference among 100,000 records in
/// four exchanges of about 800 bytes.
const PARTS: u128 = 16;
/// Up to how many ids on both sides together are listed instead of split further.
const IDS_AT_ONCE: u64 = 32;
/// Most records pushed in one step; how many bytes they may have is [`crate::replica`]'s business.
const PUSH_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use alloc::{string::ToString, sync::Arc};
    use std::collections::BTreeSet;

    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        catalog::Limits,
        id::MeshId,
        quota::Quota,
        record::{Key, Kind, Record},
        shared::Shared,
        time::Wall,
    };

    const BY_AUTHOR: Quota = Quota { unknown: 100_000, ..Quota::MESH };
    const LIMITS: Limits = Limits { records: 100_000, unknown: 100_000, by_author: BY_AUTHOR };

    fn record(n: u32, version: u64) -> Record {
        let key = Key { kind: Kind(999), scope: "".into(), name: n.to_string() };
        // Signatures do not matter here: catalogs take what was checked before.
        Record {
            key,
            author: crate::id::NodeId([1; 32]),
            grant: None,
            version,
            authored: Wall(0),
            body: alloc::vec![],
            signature: [0; 64],
        }
    }

    fn catalog(content: &BTreeSet<(u32, u64)>) -> Catalog {
        let mut catalog = Catalog::default();
        for (n, version) in content {
            catalog.apply(record(*n, *version), LIMITS);
        }
        catalog
    }

    #[test]
    fn fingerprints_are_made_with_the_key_of_their_context() {
        let key = blake3::hazmat::hash_derive_key_context("waystation catalog fingerprint v1");
        assert_eq!(FINGERPRINT, key);
    }

    /// Runs rounds until both sides have nothing to say; returns messages and bytes that it took.
    fn run(a: &mut Catalog, b: &mut Catalog) -> (usize, usize) {
        let (mut messages, mut bytes) = (0, 0);
        let mut queue = alloc::vec![(false, opening(a, None))];
        while let Some((to_a, message)) = queue.pop() {
            messages += 1;
            bytes += message.encode().len();
            assert!(messages < 10_000, "does not end");
            let Ok(message) = Message::decode(&message.encode()) else {
                panic!("own message does not decode")
            };
            let (here, there) = if to_a { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
            match message {
                Message::Ask { .. }
                | Message::Tell { .. }
                | Message::Probe { .. }
                | Message::ProbeAnswer { .. }
                | Message::LetGo
                | Message::WhoHas { .. }
                | Message::Progress(_)
                | Message::Elsewhere(_)
                | Message::LeaseAsk { .. }
                | Message::LeaseAnswer { .. } => panic!("not of a reconciliation"),
                Message::Records(records) => {
                    for record in records {
                        here.apply(record, LIMITS);
                    }
                }
                Message::Request(ids) => {
                    let records = ids.iter().filter_map(|id| here.by_id(id)).cloned().collect();
                    queue.push((!to_a, Message::Records(records)));
                }
                Message::Reconcile { summaries, .. } => {
                    let step = step(here, Within::Mesh, &summaries);
                    let pushed: Vec<Shared> =
                        step.push.iter().filter_map(|id| here.by_id(id)).cloned().collect();
                    for record in pushed {
                        there.apply(record, LIMITS);
                    }
                    if !step.summaries.is_empty() {
                        let summaries = step.summaries;
                        queue.push((!to_a, Message::Reconcile { site: None, summaries }));
                    }
                    if !step.request.is_empty() {
                        queue.push((!to_a, Message::Request(step.request)));
                    }
                }
            }
        }
        (messages, bytes)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn any_two_catalogs_become_equal(
            a in prop::collection::btree_set((0u32..400, 1u64..3), 0..200),
            b in prop::collection::btree_set((0u32..400, 1u64..3), 0..200),
        ) {
            let (mut left, mut right) = (catalog(&a), catalog(&b));
            run(&mut left, &mut right);
            prop_assert!(left.iter().eq(right.iter()));
            let mut all = catalog(&a);
            b.iter().for_each(|(n, v)| { all.apply(record(*n, *v), LIMITS); });
            prop_assert!(left.iter().eq(all.iter()));
        }

        #[test]
        fn sums_of_parts_are_what_iterating_gives(
            content in prop::collection::btree_set((0u32..5000, 1u64..2), 0..300),
            a in any::<u128>(), b in any::<u128>(),
        ) {
            let catalog = catalog(&content);
            for range in [a.min(b)..=a.max(b), 0..=a, a..=u128::MAX, (1 << 120)..=(3 << 120) - 1, 0..=u128::MAX] {
                let mut plain = Sum::default();
                catalog.ids(Within::Mesh, range.clone()).for_each(|id| plain.add(&id));
                prop_assert_eq!(plain, catalog.sum(Within::Mesh, range));
            }
        }
    }

    #[test]
    fn cost_grows_with_the_difference_and_not_with_the_catalog() {
        let cost = |size: u32, different: u32| {
            let all: BTreeSet<_> = (0..size).map(|n| (n, 1)).collect();
            let fewer: BTreeSet<_> = all.iter().copied().filter(|(n, _)| *n >= different).collect();
            run(&mut catalog(&all), &mut catalog(&fewer)).1
        };
        assert!(
            cost(1_000, 0) < 100 && cost(20_000, 0) < 100,
            "equal catalogs cost the same whatever their size"
        );
        // One difference costs a path down the tree: logarithmic in the size.
        assert!(cost(20_000, 1) < 6_000, "{}", cost(20_000, 1));
        assert!(cost(20_000, 10) < 12 * cost(20_000, 1));
    }

    #[test]
    fn hostile_summaries_are_harmless() {
        let catalog = catalog(&(0..100).map(|n| (n, 1)).collect());
        let summary = |from, to, content| Summary { from, to, content };
        let step = step(
            &catalog,
            Within::Mesh,
            &[
                summary(5, 1, Content::Fingerprint([0; 16], 3)),
                summary(7, 7, Content::Fingerprint([0; 16], u64::MAX / 2)),
                summary(0, u128::MAX, Content::Ids(alloc::vec![RecordId([7; 32]); 2000])),
            ],
        );
        assert!(step.push.len() <= PUSH_MAX && step.request.len() <= Message::MAX_ITEMS);
    }

    #[test]
    fn overlapping_parts_are_answered_once() {
        let catalog = catalog(&(0..100).map(|n| (n, 1)).collect());
        let everything = |content| Summary { from: 0, to: u128::MAX, content };
        for content in [Content::Fingerprint([0; 16], 0), Content::Ids(alloc::vec![])] {
            let step = step(&catalog, Within::Mesh, &alloc::vec![everything(content); 1000]);
            assert_eq!(step.push.len(), 100);
        }
        let step =
            step(&catalog, Within::Mesh, &alloc::vec![everything(Content::Fingerprint([0; 16], 1000)); 1000]);
        assert_eq!(step.summaries.len(), PARTS as usize);
    }

    #[test]
    fn authored_records_survive_the_trip() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let mesh = MeshId([0; 32]);
        let name = Key { kind: Kind(999), scope: "s".into(), name: "n".into() };
        let record = Record::author(&mesh, &key, None, name, 1, Wall(5), &Arc::new(7u8));
        let message = Message::Records(alloc::vec![record.into()]);
        assert_eq!(Message::decode(&message.encode()), Ok(message));
    }
}
