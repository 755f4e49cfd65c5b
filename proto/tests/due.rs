//! A replica that looks at its wants when something is due for them does what one does that looks at all of them whenever
//! time has passed: the same outputs to any inputs.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use waystation_proto::{
    Digest, FetchId, Hash, NodeId, Output, ReplicaConfig, RequestId, Time,
    cells::{Cells, Grid},
    event::{Class, Fault},
    ranges::Ranges,
    wants::{Holder, Holders, Order, Waiter, Wants},
    wire::{Elsewhere, Extent, Progress},
};

const BLOBS: u8 = 6;
const KIB: u64 = 1024;

/// Node 0 is the one whose wants these are; those with numbers below `NEAR` are on its site.
const NODES: u8 = 9;
const NEAR: u8 = 5;

struct View {
    up: BTreeSet<u8>,
    holders: BTreeSet<u8>,
    far_allowed: bool,
    changes: u64,
}

fn name(n: u8) -> NodeId {
    NodeId(*blake3::hash(&[n]).as_bytes())
}

fn number(node: &NodeId) -> Option<u8> {
    (0..NODES).find(|n| name(*n) == *node)
}

fn holder(n: u8) -> Holder {
    Holder { far: n >= NEAR, abroad: n == NODES - 1, node: name(n) }
}

fn hash(blob: u8) -> Hash {
    Hash::of(&[7, blob])
}

/// From less than what others are told of to many cells.
fn size(blob: u8) -> u64 {
    [9 * KIB, 100 * KIB, 700 * KIB, 3_000 * KIB, 20_000 * KIB, 90_000 * KIB][usize::from(blob)]
}

impl Holders for View {
    fn holders(&self, _: &Digest) -> Vec<Holder> {
        let mut holders: Vec<Holder> = self.holders.intersection(&self.up).map(|n| holder(*n)).collect();
        holders.sort();
        holders
    }

    fn member(&self, node: &NodeId) -> Option<Holder> {
        number(node).filter(|n| self.up.contains(n)).map(holder)
    }

    fn known(&self, node: &NodeId) -> Option<Holder> {
        number(node).filter(|n| *n != 0).map(holder)
    }

    fn other_sites(&self, most: usize) -> usize {
        2.min(most)
    }

    fn addresses(&self, _: &NodeId) -> Vec<String> {
        Vec::new()
    }

    fn changes(&self) -> Option<u64> {
        Some(self.changes)
    }

    fn me(&self) -> NodeId {
        name(0)
    }

    fn sessions(&self) -> Vec<(NodeId, bool)> {
        self.up.iter().map(|n| (name(*n), *n >= NEAR)).collect()
    }

    fn site_nodes(&self) -> Vec<NodeId> {
        (0..NEAR).map(name).collect()
    }

    fn site(&self, node: &NodeId) -> u64 {
        number(node).map_or(0, |n| if n < NEAR { 1 } else { 2 + u64::from(n % 2) })
    }

    fn far_allowed(&self, _: Class) -> bool {
        self.far_allowed
    }
}

/// Both, and what their driver would know.
struct Pair {
    all: Wants,
    due: Wants,
    view: View,
    now: u64,
    flights: BTreeMap<FetchId, (Hash, std::ops::Range<u64>)>,
    probes: BTreeSet<Hash>,
    seals: BTreeSet<Hash>,
    have: BTreeMap<Hash, Ranges>,
    requests: u64,
    rng: fastrand::Rng,
    fetches: usize,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let view = View {
            up: (1..NODES - 2).collect(),
            holders: BTreeSet::from([NEAR, NODES - 1]),
            far_allowed: true,
            changes: 0,
        };
        Pair {
            all: Wants::default(),
            due: Wants::default(),
            view,
            now: 1_000,
            flights: BTreeMap::new(),
            probes: BTreeSet::new(),
            seals: BTreeSet::new(),
            have: BTreeMap::new(),
            requests: 0,
            rng: fastrand::Rng::with_seed(seed),
            fetches: 0,
        }
    }

    /// The same is done to both, and they do the same.
    fn both(&mut self, input: impl Fn(&mut Wants, Time, &View, &mut Vec<Output>)) {
        let (now, config) = (Time(self.now), ReplicaConfig::default());
        let answer = |wants: &mut Wants| {
            let mut out = Vec::new();
            input(wants, now, &self.view, &mut out);
            wants.plan(now, &config, &self.view, &mut out);
            out
        };
        let (all, due) = (answer(&mut self.all), answer(&mut self.due));
        assert_eq!(format!("{all:?}"), format!("{due:?}"), "at {} ms", self.now);
        self.perform(all);
    }

    fn perform(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Probe { hash, .. } => drop(self.probes.insert(hash)),
                Output::Fetch { fetch, hash, range, .. } => {
                    self.fetches += 1;
                    self.flights.insert(fetch, (hash, range));
                }
                Output::CancelFetch { fetch } => drop(self.flights.remove(&fetch)),
                Output::Seal { hash, .. } => drop(self.seals.insert(hash)),
                _ => {}
            }
        }
    }

    /// Time has passed, as the replica's timers tell.
    fn pass(&mut self) {
        self.all.stir();
        self.due.time_passed();
        if self.rng.u8(0..5) == 0 {
            self.both(|wants, now, view, out| drop(wants.tick(now, &ReplicaConfig::default(), view, out)));
        } else {
            self.both(|_, _, _, _| {});
        }
    }

    fn want(&mut self) {
        self.requests += 1;
        let (blob, id) = (self.rng.u8(0..BLOBS), RequestId(self.requests));
        let waiter = match self.rng.u8(0..3) {
            0 => Waiter::Closure(Digest::Sha256([1; 32])),
            _ => Waiter::Request(id),
        };
        let manifest = Digest::Sha256([1; 32]);
        let order =
            Order { hash: hash(blob), size: size(blob), digest: None, manifest, told_by: None, waiter };
        self.both(|wants, now, _, out| wants.want(now, order.clone(), out));
    }

    fn fetch_ends(&mut self) {
        let Some(fetch) = self.any_flight() else { return };
        let Some((hash, range)) = self.flights.remove(&fetch) else { return };
        match self.rng.u8(0..10) {
            0 => self.both(|wants, now, _, out| drop(wants.failed(now, fetch, Fault::Peer, out))),
            1 => self.both(|wants, now, _, out| drop(wants.failed(now, fetch, Fault::Budget, out))),
            _ => {
                self.have.entry(hash).or_default().insert(range);
                self.both(|wants, now, _, out| wants.fetched(now, fetch, out));
            }
        }
    }

    fn arrives(&mut self) {
        if let Some(fetch) = self.any_flight() {
            self.both(|wants, now, _, _| wants.arriving(now, fetch));
        }
    }

    fn any_flight(&mut self) -> Option<FetchId> {
        let count = self.flights.len();
        if count == 0 { None } else { self.flights.keys().nth(self.rng.usize(0..count)).copied() }
    }

    fn store_answers(&mut self) {
        if let Some(hash) = self.probes.pop_first() {
            let have = self.have.get(&hash).cloned().unwrap_or_default();
            self.both(|wants, _, _, out| wants.probed(hash, &have, out));
        } else if let Some(hash) = self.seals.pop_first() {
            self.have.remove(&hash);
            self.both(|wants, _, _, out| drop(wants.sealed(hash, out)));
        }
    }

    fn extent(&mut self, blob: u8) -> Extent {
        let grid = Grid::of(size(blob));
        let mut some = |most: usize| {
            let mut cells = Cells::none(grid.count());
            let from = self.rng.usize(0..=grid.count());
            cells.insert_all(from..from + self.rng.usize(0..=most));
            cells.to_bytes()
        };
        let (have, coming) = (some(grid.count()), some(4));
        match self.rng.u8(0..12) {
            0 => Extent::Dropped,
            1 => Extent::Whole,
            _ => Extent::Partial { have, coming },
        }
    }

    fn hears(&mut self) {
        let (from, blob) = (self.rng.u8(1..NODES), self.rng.u8(0..BLOBS));
        let progress = Progress { hash: hash(blob), extent: self.extent(blob) };
        if self.rng.u8(0..6) == 0 {
            let told = vec![Elsewhere { node: name(self.rng.u8(NEAR..NODES)), progress }];
            self.both(|wants, now, view, _| wants.heard_of(now, &name(from), told.clone(), view));
        } else {
            self.both(|wants, now, view, out| {
                wants.heard(now, name(from), vec![progress.clone()], &BTreeSet::new(), view, out);
            });
        }
    }

    fn members_change(&mut self) {
        self.view.changes += 1;
        let n = self.rng.u8(1..NODES);
        match self.rng.u8(0..4) {
            0 => drop(if self.view.holders.contains(&n) {
                self.view.holders.remove(&n)
            } else {
                self.view.holders.insert(n)
            }),
            _ if self.view.up.remove(&n) => {
                self.both(|wants, now, _, out| wants.peer_down(now, &name(n), out));
            }
            _ => {
                self.view.up.insert(n);
                self.both(|wants, _, _, _| wants.peer_up(&name(n)));
            }
        }
    }

    fn something_else(&mut self) {
        let request = RequestId(self.rng.u64(0..=self.requests));
        let blob = hash(self.rng.u8(0..BLOBS));
        match self.rng.u8(0..4) {
            0 => self.both(|wants, _, _, out| wants.abandon(request, out)),
            1 => self.both(|wants, now, _, out| {
                drop(wants.not_stored(now, blob, "the disk is full".into(), out));
            }),
            2 => self.both(|wants, now, _, out| wants.incomplete(now, blob, out)),
            _ => {
                self.view.far_allowed = !self.view.far_allowed;
                self.both(|wants, _, _, _| wants.stir());
            }
        }
    }

    fn step(&mut self) {
        self.now += match self.rng.u8(0..40) {
            0 => self.rng.u64(0..6_000),
            1 => self.rng.u64(0..700),
            _ => self.rng.u64(0..60),
        };
        match self.rng.u8(0..100) {
            0..50 => self.pass(),
            50..53 => self.want(),
            53..66 => self.fetch_ends(),
            66..74 => self.arrives(),
            74..82 => self.store_answers(),
            82..96 => self.hears(),
            96..98 => self.members_change(),
            _ => self.something_else(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whoever_looks_at_what_is_due_does_what_one_does_that_looks_at_everything(seed in any::<u64>()) {
        let mut pair = Pair::new(seed);
        for _ in 0..1_500 {
            pair.step();
        }
        prop_assert!(pair.fetches > 0, "nothing was fetched");
    }
}
