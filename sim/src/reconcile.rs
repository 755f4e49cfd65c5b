//! What making two catalogs equal costs: the product's own reconciliation and codec between two catalogs in memory,
//! without a network. Bytes are counted both ways, each message as it is sent.

use std::collections::VecDeque;

use waystation_proto::{
    catalog::{Catalog, Limits},
    id::NodeId,
    quota::Quota,
    reconcile::{Within, opening, step},
    record::{Key, Kind, Record},
    time::Wall,
    wire::{self, Message},
};

/// What it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Messages, both ways.
    pub messages: u64,
    /// Bytes of all messages.
    pub bytes: u64,
    /// Of them, bytes of messages that carry records: these have to move whatever finds them.
    pub records: u64,
    /// Differences that there were.
    pub differences: u64,
    /// Whether both were equal in the end.
    pub equal: bool,
}

impl Cost {
    /// Bytes that it took to find out what differs.
    pub fn finding(&self) -> u64 {
        self.bytes - self.records
    }

    /// What naming the differences takes at least: 32 bytes each.
    pub fn line(&self) -> u64 {
        32 * self.differences
    }
}

/// Two catalogs of `records` records, of which every so many are lacking on one side or the other, in turn, so that
/// there are `differences` of them.
pub fn measure(records: u64, differences: u64, seed: u64) -> Cost {
    let differences = differences.min(records);
    let mut sides = [Catalog::default(), Catalog::default()];
    for number in 0..records {
        // Spread evenly over all of them.
        let before = number * differences / records;
        let lacking = (number + 1) * differences / records > before;
        for (side, catalog) in sides.iter_mut().enumerate() {
            if !(lacking && before % 2 == side as u64) {
                catalog.apply(record(number, seed), LIMITS);
            }
        }
    }
    let mut cost = reconcile(&mut sides);
    cost.differences = differences;
    cost.equal = sides[0].len() as u64 == records && sides[0].iter().eq(sides[1].iter());
    cost
}

/// Rounds until nothing is left to say and both sides found themselves equal.
fn reconcile(sides: &mut [Catalog; 2]) -> Cost {
    let mut cost = Cost::default();
    for _ in 0..ROUNDS_MAX {
        let before = (sides[0].len(), sides[1].len());
        round(sides, &mut cost);
        // Nothing came, or nothing is left to come. (As many on both sides are not the same on both.)
        let after = (sides[0].len(), sides[1].len());
        if before == after || (after.0 == after.1 && sides[0].iter().eq(sides[1].iter())) {
            break;
        }
    }
    cost
}

/// One round: side 0 begins, and each answers what it gets.
fn round(sides: &mut [Catalog; 2], cost: &mut Cost) {
    let mut queue = VecDeque::from([(1, opening(&sides[0], None))]);
    while let Some((to, message)) = queue.pop_front() {
        let encoded = message.encode();
        cost.messages += 1;
        cost.bytes += encoded.len() as u64;
        match message {
            Message::Reconcile { summaries, .. } => {
                let step = step(&sides[to], Within::Mesh, &summaries);
                let found = |id| sides[to].by_id(id).cloned();
                let pushed = step.push.iter().filter_map(found);
                queue.extend(
                    wire::batches(pushed, BATCH_BYTES).into_iter().map(|r| (1 - to, Message::Records(r))),
                );
                if !step.summaries.is_empty() {
                    let summaries = step.summaries;
                    queue.push_back((1 - to, Message::Reconcile { site: None, summaries }));
                }
                if !step.request.is_empty() {
                    queue.push_back((1 - to, Message::Request(step.request)));
                }
            }
            Message::Request(ids) => {
                let found = ids.iter().filter_map(|id| sides[to].by_id(id).cloned());
                let batches = wire::batches(found, BATCH_BYTES);
                queue.extend(batches.into_iter().map(|records| (1 - to, Message::Records(records))));
            }
            Message::Records(records) => {
                cost.records += encoded.len() as u64;
                for record in records {
                    sides[to].apply(record, LIMITS);
                }
            }
            // Reconciliation has no other messages.
            _ => {}
        }
    }
}

/// A record as small as a tag's: what is found out does not depend on what is in it.
fn record(number: u64, seed: u64) -> Record {
    let bytes = crate::random::bytes(seed, number as usize, "record");
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&bytes);
    Record {
        key: Key { kind: Kind(999), scope: "team/app".into(), name: format!("v{number}") },
        // A few authors, as in a mesh.
        author: NodeId([(number % 8) as u8; 32]),
        grant: None,
        version: 1,
        authored: Wall(0),
        body: bytes.to_vec(),
        signature,
    }
}

const BATCH_BYTES: usize = 512 * 1024;
/// A round brings at most some thousands of differences.
const ROUNDS_MAX: usize = 1000;
const EVERYTHING: usize = 20_000_000;
const LIMITS: Limits = Limits {
    records: EVERYTHING,
    unknown: EVERYTHING,
    by_author: Quota {
        holdings: EVERYTHING,
        summaries: EVERYTHING,
        sightings: EVERYTHING,
        unknown: EVERYTHING,
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_catalogs_cost_one_small_message() {
        for records in [1, 1000, 5000] {
            let cost = measure(records, 0, 1);
            assert!(cost.equal && cost.messages == 1 && cost.bytes <= 350, "{cost:?}");
        }
    }

    #[test]
    fn differences_are_found_and_paid_for() {
        let (few, many) = (measure(5000, 10, 1), measure(5000, 1000, 1));
        assert!(few.equal && many.equal, "{few:?} {many:?}");
        assert!(few.finding() > few.line() && few.finding() < 60_000, "{few:?}");
        assert!(many.records > 1000 * 100 && many.finding() < 16 * many.line(), "{many:?}");
        assert_eq!(measure(5000, 10, 1), few);
    }

    #[test]
    fn more_differences_than_a_round_brings_take_several() {
        // After the second one's first round both have as many, but not the same.
        for (records, differences) in [(12_000, 10_000), (50_000, 10_000)] {
            let cost = measure(records, differences, 1);
            assert!(cost.equal, "{cost:?}");
        }
    }
}
