//! What goes wrong, and when: the whole schedule is drawn from the seed before the run begins, each sort of fault
//! from a stream of its own. Making it happen is the world's (`world/trouble.rs`).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    Options,
    network::Cut,
    random::{around, stream},
};

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// A machine stops and starts again.
    Crash {
        /// Which.
        host: usize,
        /// How long it is down.
        down_ms: u64,
        /// Whether its peers find out by waiting only (power), or are told by its kernel (kill).
        silent: bool,
        /// What it starts again with.
        disk: DiskAfter,
    },
    /// A copy of a disk is put aside, see [`DiskAfter::Old`].
    Image {
        /// Whose.
        host: usize,
    },
    /// All machines of a site stop without a word, and start again.
    Power {
        /// Which site.
        site: usize,
        /// How long it is dark.
        down_ms: u64,
    },
    /// A machine stops and never starts again.
    Leave {
        /// Which.
        host: usize,
    },
    /// A machine starts that was not there before.
    Join {
        /// Which.
        host: usize,
    },
    /// Links stop carrying.
    Cut {
        /// Which.
        cut: Cut,
        /// For how long.
        ms: u64,
    },
    /// A calendar is set.
    Clock {
        /// Whose.
        host: usize,
        /// Forward, or back where negative.
        seconds: i64,
    },
    /// A disk takes nothing more for a while.
    Full {
        /// Whose.
        host: usize,
        /// For how long.
        ms: u64,
    },
    /// A disk takes up to a second and more for each write for a while.
    Slow {
        /// Whose.
        host: usize,
        /// For how long.
        ms: u64,
    },
    /// A blob that a host holds rots. It is found half a minute later, or when the host is next up after that.
    Rot {
        /// Whose.
        host: usize,
        /// Which of its blobs, counted around.
        pick: u64,
    },
    /// A rogue member sends records that must not count.
    Garbage {
        /// The host at which it has its sessions.
        via: usize,
    },
    /// A rogue member sends again what it heard when it did so last, and listens anew.
    Echo {
        /// The host at which it has its sessions.
        via: usize,
    },
    /// A newer version's member sends a record of a kind unknown here.
    Unknown {
        /// The host at which it has its sessions.
        via: usize,
    },
}

/// What a machine that stopped starts again with. Its key it always has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskAfter {
    /// What was durable when it stopped.
    Kept,
    /// Nothing.
    Lost,
    /// What was put aside last, or nothing.
    Old,
}

/// Everything that goes wrong in a run, in the order of time.
pub fn schedule(options: &Options) -> Vec<(u64, Fault)> {
    let mut all = Vec::new();
    crashes(options, &mut all);
    links_and_clocks(options, &mut all);
    disks(options, &mut all);
    members(options, &mut all);
    all.sort_by_key(|(at, _)| *at);
    all
}

fn crashes(options: &Options, all: &mut Vec<(u64, Fault)>) {
    let end = options.faults_ms;
    let mut rng = stream(options.seed, 0, "crashes");
    every(options.crash_every_ms, end, &mut rng, |at, rng| {
        let host = rng.usize(0..options.nodes);
        let (down_ms, silent) = (around(rng, 10_000), rng.bool());
        all.push((at, Fault::Crash { host, down_ms, silent, disk: DiskAfter::Kept }));
    });
    let mut rng = stream(options.seed, 0, "power");
    every(options.power_every_ms, end, &mut rng, |at, rng| {
        let site = rng.usize(0..options.sites);
        all.push((at, Fault::Power { site, down_ms: around(rng, 20_000) }));
    });
}

fn links_and_clocks(options: &Options, all: &mut Vec<(u64, Fault)>) {
    let end = options.faults_ms;
    let mut rng = stream(options.seed, 0, "cuts");
    every(options.cut_every_ms, end, &mut rng, |at, rng| {
        all.push((at, Fault::Cut { cut: cut(options, rng), ms: around(rng, 30_000) }));
    });
    let mut rng = stream(options.seed, 0, "clocks");
    every(options.clock_every_ms, end, &mut rng, |at, rng| {
        let host = rng.usize(0..options.nodes);
        // A second, a day, a year, ten years; back to 1970 at most.
        let seconds = [1, 86_400, 31_536_000, 315_360_000][rng.usize(0..4)];
        let seconds = if rng.bool() { seconds } else { -seconds };
        all.push((at, Fault::Clock { host, seconds }));
    });
}

/// The first host is spared what it could not be told again by others: it gives out the grants.
fn disks(options: &Options, all: &mut Vec<(u64, Fault)>) {
    if options.nodes < 3 {
        return;
    }
    let mut rng = stream(options.seed, 0, "disks");
    every(options.disk_every_ms, options.faults_ms, &mut rng, |at, rng| {
        let host = rng.usize(1..options.nodes);
        let down_ms = around(rng, 10_000);
        let back = |disk, rng: &mut fastrand::Rng| Fault::Crash { host, down_ms, silent: rng.bool(), disk };
        let fault = match rng.u8(0..7) {
            0 | 1 => Fault::Image { host },
            2 => back(DiskAfter::Lost, rng),
            3 => back(DiskAfter::Old, rng),
            4 => Fault::Full { host, ms: around(rng, 30_000) },
            5 => Fault::Slow { host, ms: around(rng, 30_000) },
            _ => Fault::Rot { host, pick: rng.u64(0..1_000) },
        };
        all.push((at, fault));
    });
}

fn members(options: &Options, all: &mut Vec<(u64, Fault)>) {
    let end = options.faults_ms;
    let mut rng = stream(options.seed, 0, "garbage");
    every(options.garbage_every_ms, end, &mut rng, |at, rng| {
        all.push((at, Fault::Garbage { via: rng.usize(0..options.nodes) }));
    });
    let mut rng = stream(options.seed, 0, "unknown kinds");
    every(end / 3, end, &mut rng, |at, rng| {
        all.push((at, Fault::Unknown { via: rng.usize(0..options.nodes) }));
    });
    let mut rng = stream(options.seed, 0, "echoes");
    every(options.echo_every_ms, end, &mut rng, |at, rng| {
        all.push((at, Fault::Echo { via: rng.usize(0..options.nodes) }));
    });
    // Those that come and go are neither whom the others join at nor whom the root grants something.
    let mut others: Vec<usize> =
        (options.granted.max(2)..options.nodes.saturating_sub(options.liars)).collect();
    let mut rng = stream(options.seed, 0, "comings and goings");
    rng.shuffle(&mut others);
    let mut others = others.into_iter();
    for host in others.by_ref().take(options.joiners) {
        all.push((rng.u64(0..end.max(1)), Fault::Join { host }));
    }
    for host in others.take(options.leavers) {
        all.push((rng.u64(0..end.max(1)), Fault::Leave { host }));
    }
}

fn every(mean: u64, end: u64, rng: &mut fastrand::Rng, mut fault: impl FnMut(u64, &mut fastrand::Rng)) {
    if mean == 0 {
        return;
    }
    let mut at = around(rng, mean);
    while at < end {
        fault(at, rng);
        at += around(rng, mean);
    }
}

/// A whole site, or any part of the hosts, from the rest; sometimes in one direction only.
fn cut(options: &Options, rng: &mut fastrand::Rng) -> Cut {
    let by_site = options.sites > 1 && rng.bool();
    let site = rng.usize(0..options.sites);
    let side = |host: &usize| if by_site { host % options.sites == site } else { rng.bool() };
    let (from, to): (BTreeSet<usize>, BTreeSet<usize>) = (0..options.nodes).partition(side);
    Cut { from, to, both: rng.u8(0..3) > 0 }
}

impl Fault {
    /// Whether every host and site that it names is there.
    pub fn fits(&self, nodes: usize, sites: usize) -> bool {
        match self {
            Fault::Crash { host, .. }
            | Fault::Image { host }
            | Fault::Leave { host }
            | Fault::Join { host }
            | Fault::Clock { host, .. }
            | Fault::Full { host, .. }
            | Fault::Slow { host, .. }
            | Fault::Rot { host, .. } => *host < nodes,
            Fault::Garbage { via } | Fault::Echo { via } | Fault::Unknown { via } => *via < nodes,
            Fault::Power { site, .. } => *site < sites,
            // Hosts that are not there are cut off in vain.
            Fault::Cut { .. } => true,
        }
    }
}
