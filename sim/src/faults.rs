//! What goes wrong, and when: the whole schedule is drawn from the seed before the run begins.

use std::collections::BTreeSet;

use crate::{
    Options,
    network::Cut,
    random::{around, stream},
};

/// Something that goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A machine stops and starts again.
    Crash {
        /// Which.
        host: usize,
        /// How long it is down.
        down_ms: u64,
        /// Whether its peers find out by waiting only (power), or are told by its kernel (kill).
        silent: bool,
    },
    /// Links stop carrying.
    Cut {
        /// Which.
        cut: Cut,
        /// For how long.
        ms: u64,
    },
    /// A rogue member sends records that must not count.
    Garbage {
        /// The host at which it has its sessions.
        via: usize,
    },
    /// A newer version's member sends a record of a kind unknown here.
    Unknown {
        /// The host at which it has its sessions.
        via: usize,
    },
}

/// Everything that goes wrong in a run, in the order of time.
pub fn schedule(options: &Options) -> Vec<(u64, Fault)> {
    let mut all = Vec::new();
    let end = options.faults_ms;
    let mut rng = stream(options.seed, 0, "crashes");
    every(options.crash_every_ms, end, &mut rng, |at, rng| {
        let host = rng.usize(0..options.nodes);
        let fault = Fault::Crash { host, down_ms: around(rng, 10_000), silent: rng.bool() };
        all.push((at, fault));
    });
    let mut rng = stream(options.seed, 0, "cuts");
    every(options.cut_every_ms, end, &mut rng, |at, rng| {
        all.push((at, Fault::Cut { cut: cut(options, rng), ms: around(rng, 30_000) }));
    });
    let mut rng = stream(options.seed, 0, "garbage");
    every(options.garbage_every_ms, end, &mut rng, |at, rng| {
        all.push((at, Fault::Garbage { via: rng.usize(0..options.nodes) }));
    });
    let mut rng = stream(options.seed, 0, "unknown kinds");
    every(end / 3, end, &mut rng, |at, rng| {
        all.push((at, Fault::Unknown { via: rng.usize(0..options.nodes) }));
    });
    all.sort_by_key(|(at, _)| *at);
    all
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
