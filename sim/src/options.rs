//! Options of a run, all of them derived from its seed, so that the seed alone replays it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::random::stream;

/// Everything that shapes a run. Times in milliseconds, chances in thousandths, rates in bytes a
/// millisecond.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// What all else is drawn from.
    pub seed: u64,
    /// Nodes in the mesh.
    pub nodes: usize,
    /// Sites that they are spread over.
    pub sites: usize,
    /// Nodes that the root grants something: the first ones.
    pub granted: usize,
    /// Nodes that send wrong bytes: the last ones.
    pub liars: usize,
    /// Nodes whose clock says 1970.
    pub clockless: usize,
    /// How long the part with faults lasts.
    pub faults_ms: u64,
    /// Chance that a message is lost.
    pub loss: u64,
    /// Chance that a message arrives twice.
    pub duplication: u64,
    /// Chance that a message is held up for up to a second.
    pub reordering: u64,
    /// Chance that a write to disk fails.
    pub disk_failures: u64,
    /// One way within a site.
    pub lan_ms: u64,
    /// One way between sites.
    pub wan_ms: u64,
    /// Added to either, at most.
    pub jitter_ms: u64,
    /// Of one transfer within a site.
    pub lan_rate: u64,
    /// Of one transfer between sites.
    pub wan_rate: u64,
    /// Mean time between crashes; never where zero.
    pub crash_every_ms: u64,
    /// Mean time between partitions; never where zero.
    pub cut_every_ms: u64,
    /// Mean time between things that clients do; nothing where zero.
    pub work_every_ms: u64,
    /// Mean time between a rogue member's messages; never where zero.
    pub garbage_every_ms: u64,
    /// How often catalogs are compared within a site.
    pub reconcile_ms: u64,
    /// How often between sites.
    pub far_reconcile_ms: u64,
    /// Mean time between power cuts of whole sites; never where zero. Here and below: never, or none, where zero.
    pub power_every_ms: u64,
    /// Mean time between clocks that are set.
    pub clock_every_ms: u64,
    /// Mean time between what happens to disks: lost, old, full, slow, rotten.
    pub disk_every_ms: u64,
    /// Mean time between a rogue member's repetitions of what was said before.
    pub echo_every_ms: u64,
    /// Mean time between moments at which everybody wants the same.
    pub crowd_every_ms: u64,
    /// Nodes that come later.
    pub joiners: usize,
    /// Nodes that go and never come back.
    pub leavers: usize,
    /// Bytes of blobs that each node may store.
    pub quota: u64,
}

impl Options {
    /// The options that a seed stands for, with the number of nodes and the minutes of faults given.
    pub fn from_seed(seed: u64, nodes: usize, minutes: u64) -> Self {
        let mut rng = stream(seed, 0, "options");
        let mut sometimes = |chance: u8, range: std::ops::RangeInclusive<u64>| {
            let value = rng.u64(range);
            if rng.u8(0..100) < chance { value } else { 0 }
        };
        Options {
            seed,
            nodes,
            sites: 1 + sometimes(80, 0..=3) as usize,
            granted: nodes.min(2 + sometimes(50, 1..=1) as usize),
            liars: if nodes > 4 { sometimes(50, 1..=1) as usize } else { 0 },
            clockless: sometimes(50, 1..=3) as usize,
            faults_ms: minutes * 60_000,
            loss: sometimes(70, 1..=200),
            duplication: sometimes(70, 1..=200),
            reordering: sometimes(70, 1..=200),
            disk_failures: sometimes(30, 1..=30),
            lan_ms: 1,
            wan_ms: 5 + sometimes(90, 0..=95),
            jitter_ms: 1 + sometimes(70, 0..=40),
            lan_rate: 50_000,
            wan_rate: 1_000 + sometimes(70, 0..=9_000),
            crash_every_ms: sometimes(75, 10_000..=120_000),
            cut_every_ms: sometimes(75, 10_000..=120_000),
            work_every_ms: 500 + sometimes(70, 0..=5_000),
            garbage_every_ms: sometimes(75, 5_000..=60_000),
            reconcile_ms: 30_000,
            far_reconcile_ms: if sometimes(50, 1..=1) == 1 { 600_000 } else { 90_000 },
            power_every_ms: 0,
            clock_every_ms: 0,
            disk_every_ms: 0,
            echo_every_ms: 0,
            crowd_every_ms: 0,
            joiners: 0,
            leavers: 0,
            quota: 0,
        }
    }

    /// The same, with all sorts of faults that there are.
    pub fn harsh(seed: u64, nodes: usize, minutes: u64) -> Self {
        let mut rng = stream(seed, 0, "harsh options");
        let mut sometimes = |chance: u8, range: std::ops::RangeInclusive<u64>| {
            let value = rng.u64(range);
            if rng.u8(0..100) < chance { value } else { 0 }
        };
        let mild = Self::from_seed(seed, nodes, minutes);
        let quota = sometimes(40, 60_000_000..=160_000_000);
        Options {
            power_every_ms: sometimes(40, 30_000..=150_000),
            clock_every_ms: sometimes(50, 10_000..=60_000),
            disk_every_ms: sometimes(60, 5_000..=60_000),
            echo_every_ms: sometimes(50, 5_000..=40_000),
            crowd_every_ms: sometimes(40, 20_000..=90_000),
            joiners: sometimes(40, 1..=3) as usize,
            leavers: sometimes(40, 1..=2) as usize,
            quota,
            // A member that lies about what it keeps loses what others rely on it for: a limit of the trust in members.
            liars: if quota > 0 { 0 } else { mild.liars },
            ..mild
        }
    }

    /// A world in which nothing goes wrong and nobody does anything: tests switch on what they need.
    pub fn calm(seed: u64, nodes: usize) -> Self {
        Options {
            sites: 1,
            liars: 0,
            clockless: 0,
            faults_ms: 0,
            loss: 0,
            duplication: 0,
            reordering: 0,
            disk_failures: 0,
            crash_every_ms: 0,
            cut_every_ms: 0,
            work_every_ms: 0,
            garbage_every_ms: 0,
            ..Options::from_seed(seed, nodes, 0)
        }
    }

    /// How long the part without faults may last: for each of two hops the longest wait for a comparison
    /// of catalogs, and as much again as the longest wait before a redial or another attempt to store.
    pub fn patience_ms(&self) -> u64 {
        2 * (self.far_reconcile_ms.max(self.reconcile_ms) * 3 / 2) + 180_000
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:#?}")
    }
}
