//! What others do, on the same network: policies that are implemented anew from what their documents say, over the
//! same flows and counted by the same account as unchanged replicas are. They are not those systems: what they
//! need of a control plane costs nothing here, nothing of theirs crashes by itself, and their lookups know at once
//! who has what. So a figure of theirs is what the policy allows on these links, not what was measured of them.
//!
//! - `origin`: every node takes each blob whole from where it was published. Docker and containerd without a cache.
//! - `site-cache`: one pull-through cache per site, at its first node; it fetches a blob once and serves it from
//!   when it has all of it, as CNCF Distribution's proxy does for others who ask meanwhile. Where it is down nodes
//!   go to the origin.
//! - `whole-blob`: as Spegel (its documents, v0.0.27): whole blobs from a random node of the site that has the
//!   whole image, because "layers are not advertised until the whole image has been pulled"; else from the origin.
//! - `central`: as Uber's Kraken (README and default configuration): a tracker beside the origin hands out up to 50
//!   random peers every 3 s; 10 connections a blob and node, pieces of 4 MB, 3 requests waiting on each connection,
//!   rarest first among the neighbours. Dragonfly's scheduler is central alike, but gives each node a few parents
//!   and prefers near ones; that is not a policy of its own here.
//!
//! Alike in all, and as with replicas: links, lines, disks, round trips, handshakes, slow start, when a session is
//! solved again; three layers of an image at once (containerd's default); transfers go on where they broke. Not
//! alike: manifests, lookups and announcements of pieces take no bytes, and a node that stops is noticed at once.
//! Actions that are carried out: publish, seed, pull, line, partition, crash (silent ones are noticed, too), power
//! cut, join. Untag, lies, disk, rot and clock are not: there are no catalogs here, nobody is checked, disks have
//! room.
//!
//! Reading order: here, [`stage`], then one file for each policy.

mod central;
mod origin;
mod site_cache;
pub mod stage;
mod whole_blob;

use crate::{
    account::Account,
    measure::{RunId, Sink},
    setup::{Nanos, Setup},
};
use stage::{Policy, Stage};

/// A system to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Baseline {
    /// Everybody straight from the origin.
    Origin,
    /// One cache for each site.
    SiteCache,
    /// Peers that hand out whole blobs.
    WholeBlob,
    /// A tracker, peers and pieces.
    Central,
}

impl Baseline {
    /// All of them.
    pub const ALL: [Baseline; 4] =
        [Baseline::Origin, Baseline::SiteCache, Baseline::WholeBlob, Baseline::Central];

    /// As measurements and scenarios spell it.
    pub fn name(self) -> &'static str {
        match self {
            Baseline::Origin => "origin",
            Baseline::SiteCache => "site-cache",
            Baseline::WholeBlob => "whole-blob",
            Baseline::Central => "central",
        }
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<Baseline> {
        Baseline::ALL.into_iter().find(|baseline| baseline.name() == name)
    }
}

/// Carries a setup out and writes all its measurements. `run` should name the baseline; `source` says where the
/// scenario's numbers come from. `progress` hears the time and how many transfers ended.
pub fn carry_out(
    setup: &Setup,
    baseline: Baseline,
    run: &RunId,
    source: &str,
    sink: &mut dyn Sink,
    progress: &mut dyn FnMut(Nanos, u64),
) {
    let account = Account::begin(setup, run.clone(), source, sink);
    let mut stage = Stage::new(setup, account);
    let mut policy: Box<dyn Policy> = match baseline {
        Baseline::Origin => Box::new(origin::Origin),
        Baseline::SiteCache => Box::new(site_cache::SiteCache::new(&stage)),
        Baseline::WholeBlob => Box::new(whole_blob::WholeBlob::new(setup)),
        Baseline::Central => Box::new(central::Central::new(setup)),
    };
    stage.carry_out(&mut *policy, sink, progress);
    stage.end(sink);
}

#[cfg(test)]
mod tests;
