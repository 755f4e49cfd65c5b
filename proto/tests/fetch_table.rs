//! The planner of transfers as a table: what happens to a want, and what is asked of whom because of it.

mod harness;
#[path = "fetch_table/told.rs"]
mod told;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use harness::{digest, node};
use waystation_proto::{
    Digest, Event, FetchId, Hash, NodeId, Output, ReplicaConfig, RequestId, Time,
    event::{Fault, WantFailure},
    ranges::Ranges,
    wants::{Ended, Holder, Holders, Order, Waiter, Wants},
    wire::{Extent, Message, Progress},
};

const MIB: u64 = 1024 * 1024;

/// Who holds what: near and far members with a session; and those that are told what is wanted.
#[derive(Clone, Default)]
struct World(BTreeMap<Digest, Vec<Holder>>, Vec<(NodeId, bool)>);

impl Holders for World {
    fn holders(&self, manifest: &Digest) -> Vec<Holder> {
        let mut holders = self.0.get(manifest).cloned().unwrap_or_default();
        holders.sort();
        holders
    }

    fn member(&self, node: &NodeId) -> Option<Holder> {
        self.0.values().flatten().find(|holder| holder.node == *node).cloned()
    }

    fn addresses(&self, node: &NodeId) -> Vec<String> {
        vec![format!("{node}")]
    }

    fn me(&self) -> NodeId {
        node(1)
    }

    fn sessions(&self) -> Vec<(NodeId, bool)> {
        self.1.clone()
    }

    fn site(&self, node: &NodeId) -> u64 {
        u64::from(self.member(node).is_some_and(|holder| holder.far))
    }
}

/// A planner, its world, and what it asked for.
struct Bench {
    wants: Wants,
    world: World,
    config: ReplicaConfig,
    now: u64,
    flights: Vec<Flight>,
    cancelled: Vec<FetchId>,
    sealing: Vec<Hash>,
    probes: usize,
    lies: Vec<NodeId>,
    ended: Vec<Ended>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Flight {
    fetch: FetchId,
    from: NodeId,
    hash: Hash,
    range: Range<u64>,
}

fn hash(n: u8) -> Hash {
    Hash([n; 32])
}

fn holder(n: u8, far: bool) -> Holder {
    Holder { far, abroad: false, node: node(n) }
}

fn request(n: u64) -> Waiter {
    Waiter::Request(RequestId(n))
}

impl Bench {
    /// With these holders of the artifact that every blob here belongs to.
    fn new(holders: &[Holder]) -> Self {
        Bench {
            wants: Wants::default(),
            world: World([(digest(1), holders.to_vec())].into(), Vec::new()),
            config: ReplicaConfig::default(),
            now: 0,
            flights: Vec::new(),
            cancelled: Vec::new(),
            sealing: Vec::new(),
            probes: 0,
            lies: Vec::new(),
            ended: Vec::new(),
        }
    }

    fn holders(&mut self, holders: &[Holder]) {
        self.world.0.insert(digest(1), holders.to_vec());
    }

    fn want(&mut self, hash: Hash, size: u64, waiter: Waiter) {
        let order =
            Order { hash, size, digest: Some(digest(hash.0[0])), manifest: digest(1), told_by: None, waiter };
        self.act(|wants, now, out| wants.want(now, order, out));
    }

    /// Wants a blob of which nothing is here.
    fn want_new(&mut self, hash: Hash, size: u64, waiter: Waiter) {
        self.want(hash, size, waiter);
        self.probed(hash, Ranges::new());
    }

    fn probed(&mut self, hash: Hash, have: Ranges) {
        self.act(|wants, _, out| wants.probed(hash, &have, out));
    }

    fn fetched(&mut self, flight: &Flight) {
        self.flights.retain(|other| other != flight);
        self.act(|wants, now, out| wants.fetched(now, flight.fetch, out));
    }

    fn failed(&mut self, flight: &Flight, fault: Fault) {
        self.flights.retain(|other| other != flight);
        let mut ended = None;
        self.act(|wants, now, out| ended = wants.failed(now, flight.fetch, fault, out));
        self.ended.extend(ended);
    }

    fn abandon(&mut self, n: u64) {
        self.act(|wants, _, out| wants.abandon(RequestId(n), out));
    }

    fn sealed(&mut self, hash: Hash) {
        let mut ended = None;
        self.act(|wants, _, out| ended = wants.sealed(hash, out));
        self.ended.extend(ended);
    }

    /// Lets time pass, looking after wants every 250 ms as a replica does.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 250 {
            self.now += 250;
            let mut out = Vec::new();
            let ended = self.wants.tick(Time(self.now), &self.config, &self.world, &mut out);
            self.ended.extend(ended);
            self.take(out);
            self.act(|_, _, _| {});
        }
    }

    fn act(&mut self, action: impl FnOnce(&mut Wants, Time, &mut Vec<Output>)) {
        let mut out = Vec::new();
        action(&mut self.wants, Time(self.now), &mut out);
        self.wants.plan(Time(self.now), &self.config, &self.world, &mut out);
        self.take(out);
    }

    fn take(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Fetch { fetch, from, hash, range, .. } => {
                    self.flights.push(Flight { fetch, from, hash, range });
                }
                Output::CancelFetch { fetch } => {
                    self.flights.retain(|flight| flight.fetch != fetch);
                    self.cancelled.push(fetch);
                }
                Output::Seal { hash, .. } => self.sealing.push(hash),
                Output::Probe { .. } => self.probes += 1,
                Output::Send { message: Message::Progress(_), .. } => {}
                Output::Hasten { .. } => {}
                Output::Notify(Event::HolderLied { node, .. }) => self.lies.push(node),
                Output::Notify(Event::Arrived { have, .. }) => assert!(!have.is_empty()),
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    fn asked(&self) -> Vec<NodeId> {
        self.flights.iter().map(|flight| flight.from).collect()
    }

    fn failures(&self) -> Vec<&WantFailure> {
        self.ended.iter().filter_map(|ended| ended.result.as_ref().err()).collect()
    }
}

#[test]
fn one_fetch_serves_many_waiters() {
    let mut bench = Bench::new(&[holder(2, false)]);
    for n in 1..=5 {
        bench.want(hash(1), 1000, request(n));
    }
    bench.want(hash(1), 1000, Waiter::Closure(digest(1)));
    bench.probed(hash(1), Ranges::new());
    assert_eq!((bench.probes, bench.flights.len()), (1, 1));
    assert_eq!(bench.flights[0].range, 0..1000);
    bench.fetched(&bench.flights[0].clone());
    assert_eq!(bench.sealing, [hash(1)]);
    bench.sealed(hash(1));
    assert_eq!(bench.ended[0].waiters.len(), 6);
    assert_eq!(bench.wants.counts(), (0, 0));
}

#[test]
fn nothing_is_fetched_before_it_is_known_what_is_here() {
    let mut bench = Bench::new(&[holder(2, false)]);
    bench.want(hash(1), 1000, request(1));
    bench.pass(2_000);
    assert!(bench.flights.is_empty());
}

#[test]
fn only_what_is_missing_is_fetched() {
    let mut bench = Bench::new(&[holder(2, false)]);
    let mut have = Ranges::new();
    have.insert(0..4 * MIB);
    have.insert(6 * MIB..7 * MIB);
    bench.want(hash(1), 8 * MIB, request(1));
    bench.probed(hash(1), have);
    let mut fetched = Ranges::new();
    let mut bytes = 0;
    while let Some(flight) = bench.flights.first().cloned() {
        bytes += flight.range.end - flight.range.start;
        fetched.insert(flight.range.clone());
        bench.fetched(&flight);
    }
    assert_eq!(fetched.iter().collect::<Vec<_>>(), [4 * MIB..6 * MIB, 7 * MIB..8 * MIB]);
    assert_eq!(bytes, 3 * MIB);
}

#[test]
fn what_is_here_already_is_only_sealed() {
    for size in [0, 1000] {
        let mut bench = Bench::new(&[]);
        bench.want(hash(1), size, request(1));
        bench.probed(hash(1), Ranges::all(size));
        assert_eq!((bench.flights.len(), &bench.sealing[..]), (0, &[hash(1)][..]));
    }
}

#[test]
fn a_large_blob_comes_from_all_holders_at_once_and_each_byte_once() {
    let mut bench = Bench::new(&[holder(2, false), holder(3, false), holder(4, false)]);
    let size = 500 * MIB + 12_345;
    bench.want_new(hash(1), size, request(1));
    for n in 2..=4 {
        let lanes = bench.asked().iter().filter(|who| **who == node(n)).count();
        assert_eq!(lanes, bench.config.lanes, "lanes of holder {n}");
    }
    let mut seen = Ranges::new();
    let mut bytes = 0;
    while let Some(flight) = bench.flights.first().cloned() {
        assert!(flight.range.start % 16_384 == 0, "pieces begin where groups begin");
        bytes += flight.range.end - flight.range.start;
        seen.insert(flight.range.clone());
        bench.fetched(&flight);
    }
    assert_eq!((bytes, seen), (size, Ranges::all(size)));
    assert_eq!(bench.sealing, [hash(1)]);
}

#[test]
fn holders_on_this_site_are_preferred() {
    let mut bench = Bench::new(&[holder(2, true), holder(3, false), holder(4, true)]);
    bench.want_new(hash(1), 400 * MIB, request(1));
    assert!(bench.asked().iter().all(|who| *who == node(3)), "{:?}", bench.asked());
}

#[test]
fn another_holder_is_asked_where_one_fails() {
    // Preferred by site, so it is asked first.
    let mut bench = Bench::new(&[holder(2, false), holder(3, true)]);
    bench.want_new(hash(1), 1000, request(1));
    assert_eq!(bench.asked(), [node(2)]);
    bench.failed(&bench.flights[0].clone(), Fault::Peer);
    assert_eq!(bench.probes, 2, "what arrived before the break is found");
    bench.probed(hash(1), Ranges::new());
    assert_eq!(bench.asked(), [node(3)]);
    // And the first again when it has been left alone for a while.
    bench.failed(&bench.flights[0].clone(), Fault::Peer);
    bench.probed(hash(1), Ranges::new());
    assert!(bench.flights.is_empty());
    bench.pass(1_000);
    assert_eq!(bench.asked(), [node(2)]);
}

#[test]
fn a_failed_piece_does_not_disturb_the_others() {
    let mut bench = Bench::new(&[holder(2, false), holder(3, false)]);
    bench.want_new(hash(1), 64 * MIB, request(1));
    let before = bench.flights.clone();
    assert!(before.len() >= 4);
    let broken = before.iter().find(|flight| flight.from == node(2)).cloned().expect("asked");
    bench.failed(&broken, Fault::Peer);
    assert_eq!(bench.probes, 2, "some of it may be here");
    let doubtful = |flight: &Flight| broken.range.contains(&flight.range.start);
    assert!(!bench.flights.iter().any(doubtful), "not asked for again before that is known");
    bench.probed(hash(1), Ranges::new());
    let mut rounds = 0;
    while let Some(flight) = bench.flights.first().cloned() {
        rounds += 1;
        assert!(rounds < 100);
        bench.fetched(&flight);
    }
    bench.pass(1_000);
    while let Some(flight) = bench.flights.first().cloned() {
        bench.fetched(&flight);
    }
    assert_eq!(bench.sealing, [hash(1)]);
}

#[test]
fn a_liar_is_avoided_longer_also_when_it_comes_back() {
    let mut bench = Bench::new(&[holder(2, false), holder(3, true)]);
    bench.want_new(hash(1), 1000, Waiter::Closure(digest(1)));
    bench.failed(&bench.flights[0].clone(), Fault::Lied);
    assert_eq!(bench.lies, [node(2)]);
    bench.probed(hash(1), Ranges::new());
    assert_eq!(bench.asked(), [node(3)], "far, but honest");
    bench.wants.peer_up(&node(2));
    bench.want_new(hash(2), 1000, request(1));
    assert!(!bench.asked().contains(&node(2)), "a new session does not make up for a lie");
    bench.pass(61_000);
    bench.want_new(hash(3), 1000, request(2));
    assert!(bench.asked().contains(&node(2)), "but time does");
}

#[test]
fn a_failure_of_the_link_is_forgiven_when_the_peer_is_back() {
    let mut bench = Bench::new(&[holder(2, false)]);
    bench.want_new(hash(1), 1000, request(1));
    bench.failed(&bench.flights[0].clone(), Fault::Peer);
    bench.probed(hash(1), Ranges::new());
    assert!(bench.flights.is_empty());
    bench.act(|wants, _, _| wants.peer_up(&node(2)));
    assert_eq!(bench.asked(), [node(2)]);
}

#[test]
fn a_want_that_nobody_waits_for_is_dropped() {
    let mut bench = Bench::new(&[holder(2, false)]);
    bench.want_new(hash(1), 1000, request(1));
    bench.want(hash(1), 1000, request(2));
    bench.abandon(1);
    assert_eq!(bench.flights.len(), 1, "another waits");
    let fetch = bench.flights[0].fetch;
    bench.abandon(2);
    assert_eq!((&bench.cancelled[..], bench.wants.counts()), (&[fetch][..], (0, 0)));
    assert!(bench.ended.is_empty(), "who is gone is not told");
}

#[test]
fn a_closure_goes_on_when_clients_are_gone() {
    let mut bench = Bench::new(&[holder(2, false)]);
    bench.want_new(hash(1), 1000, request(1));
    bench.want(hash(1), 1000, Waiter::Closure(digest(1)));
    bench.abandon(1);
    assert_eq!((bench.flights.len(), bench.wants.counts().0), (1, 1));
}

#[test]
fn without_a_holder_clients_are_told_soon_and_closures_wait() {
    let mut bench = Bench::new(&[]);
    bench.want_new(hash(1), 1000, request(1));
    bench.want_new(hash(2), 1000, Waiter::Closure(digest(1)));
    bench.pass(250);
    assert!(bench.ended.is_empty());
    bench.pass(250);
    assert_eq!(bench.failures(), [&WantFailure::NoHolder]);
    bench.pass(600_000);
    assert_eq!((bench.ended.len(), bench.wants.counts().0), (1, 1));
    bench.holders(&[holder(2, true)]);
    bench.pass(250);
    assert_eq!(bench.asked(), [node(2)], "resumed when a holder is back");
}

#[test]
fn a_holder_within_the_patience_is_used() {
    let mut bench = Bench::new(&[]);
    bench.want_new(hash(1), 1000, request(1));
    bench.pass(250);
    bench.holders(&[holder(2, false)]);
    bench.pass(250);
    assert!(bench.ended.is_empty());
    assert_eq!(bench.asked(), [node(2)]);
}

#[test]
fn holders_that_never_send_are_given_up() {
    let mut bench = Bench::new(&[holder(2, false)]);
    bench.want_new(hash(1), 1000, request(1));
    bench.pass(59_000);
    assert!(bench.ended.is_empty());
    // Asking for the same again in between must not make the first wait longer.
    bench.want(hash(1), 1000, request(1));
    bench.pass(1_500);
    assert_eq!(bench.failures(), [&WantFailure::Stalled]);
    assert_eq!(bench.wants.counts(), (0, 0), "nobody is left to want it");
}

#[test]
fn holders_that_say_to_have_what_they_do_not_are_given_up() {
    let mut bench = Bench::new(&[holder(2, false)]);
    bench.want_new(hash(1), 1000, request(1));
    let mut failures = 0;
    while bench.ended.is_empty() {
        if let Some(flight) = bench.flights.first().cloned() {
            failures += 1;
            bench.failed(&flight, Fault::Peer);
            bench.probed(hash(1), Ranges::new());
        }
        bench.pass(250);
        assert!(failures < 20);
    }
    assert_eq!(bench.failures(), [&WantFailure::NoHolder]);
    assert_eq!(failures, 2, "once more, in case it was the link");
}

#[test]
fn holders_that_are_gone_without_a_word_cost_the_next_client_little() {
    let mut bench = Bench::new(&[holder(2, false)]);
    bench.want_new(hash(1), 1000, request(1));
    while bench.ended.is_empty() {
        if let Some(flight) = bench.flights.first().cloned() {
            bench.failed(&flight, Fault::Peer);
            bench.probed(hash(1), Ranges::new());
        }
        bench.pass(250);
    }
    bench.want_new(hash(2), 1000, request(2));
    assert!(bench.flights.is_empty(), "it has just failed twice");
    bench.pass(500);
    assert_eq!(bench.failures(), [&WantFailure::NoHolder; 2]);
    bench.pass(1_000);
    bench.want_new(hash(3), 1000, request(3));
    assert_eq!(bench.asked(), [node(2)], "tried again after a while");
}

#[test]
fn a_download_that_has_begun_is_not_given_up_as_soon() {
    let mut bench = Bench::new(&[holder(2, false)]);
    bench.want(hash(1), 64 * MIB, request(1));
    bench.probed(hash(1), Ranges::all(MIB));
    for _ in 0..3 {
        while let Some(flight) = bench.flights.first().cloned() {
            bench.failed(&flight, Fault::Peer);
        }
        bench.probed(hash(1), Ranges::all(MIB));
        bench.pass(250);
    }
    assert!(bench.ended.is_empty());
}

#[test]
fn a_disk_that_refuses_is_told_to_clients_and_left_alone_for_a_while() {
    let mut bench = Bench::new(&[holder(2, false)]);
    bench.want_new(hash(1), 1000, request(1));
    bench.want(hash(1), 1000, Waiter::Closure(digest(1)));
    bench.failed(&bench.flights[0].clone(), Fault::Local);
    assert!(matches!(bench.failures()[..], [WantFailure::Storage(_)]));
    bench.probed(hash(1), Ranges::new());
    bench.pass(29_000);
    assert!(bench.flights.is_empty());
    bench.pass(2_000);
    assert_eq!(bench.flights.len(), 1, "the closure tries again");
    bench.fetched(&bench.flights[0].clone());
    let mut ended = None;
    bench.act(|wants, now, out| ended = wants.not_stored(now, hash(1), "full".into(), out));
    assert!(ended.is_none(), "no client waits any more");
    assert_eq!(bench.wants.counts().0, 1);
}

#[test]
fn clients_come_before_closures() {
    let mut bench = Bench::new(&[]);
    let many = bench.config.fetches_max as u8 + 8;
    for n in 0..many {
        bench.want_new(hash(n), 1000, Waiter::Closure(digest(1)));
    }
    bench.now += 10;
    bench.want_new(hash(200), 1000, request(1));
    bench.holders(&[holder(2, false)]);
    bench.pass(250);
    assert_eq!(bench.flights[0].hash, hash(200));
}

#[test]
fn transfers_are_bounded_in_all_and_for_each_holder() {
    let holders: Vec<Holder> = (2..12).map(|n| holder(n, false)).collect();
    let mut bench = Bench::new(&holders[..1]);
    for n in 0..100 {
        bench.want_new(hash(n), 1000, request(u64::from(n)));
    }
    assert_eq!(bench.flights.len(), 8, "of one holder");
    bench.holders(&holders);
    bench.pass(250);
    assert_eq!(bench.flights.len(), bench.config.fetches_max);
    for other in &holders {
        assert!(bench.asked().iter().filter(|who| **who == other.node).count() <= 8);
    }
}

#[test]
fn late_and_unknown_answers_do_nothing() {
    let mut bench = Bench::new(&[holder(2, false)]);
    bench.want_new(hash(1), 1000, request(1));
    let flight = bench.flights[0].clone();
    bench.abandon(1);
    bench.fetched(&flight);
    bench.failed(&flight, Fault::Lied);
    bench.probed(hash(1), Ranges::all(1000));
    bench.sealed(hash(1));
    bench.abandon(77);
    assert!(bench.sealing.is_empty() && bench.ended.is_empty() && bench.lies.is_empty());
    assert_eq!(bench.wants.counts(), (0, 0));
}

#[test]
fn an_artifact_in_two_repositories_has_the_holders_of_both() {
    let mut bench = Bench::new(&[]);
    bench.world.0.insert(digest(2), vec![holder(3, false)]);
    bench.want(hash(1), 1000, request(1));
    let order = Order {
        hash: hash(1),
        size: 1000,
        digest: None,
        manifest: digest(2),
        told_by: None,
        waiter: request(2),
    };
    bench.act(|wants, now, out| wants.want(now, order, out));
    bench.probed(hash(1), Ranges::new());
    assert_eq!(bench.asked(), [node(3)]);
}

#[test]
fn a_holder_of_this_region_comes_before_others() {
    let abroad = |n| Holder { abroad: true, ..holder(n, true) };
    let mut bench = Bench::new(&[abroad(2), holder(3, true), abroad(4)]);
    bench.want_new(hash(1), 1000, request(1));
    assert_eq!(bench.asked(), [node(3)]);
}

#[test]
fn what_nobody_waits_for_leaves_room_for_clients() {
    let mut bench = Bench::new(&[holder(2, false)]);
    for n in 0..20 {
        bench.want_new(hash(n), 1000, Waiter::Closure(digest(1)));
    }
    assert_eq!(bench.flights.len(), 6);
    bench.want_new(hash(200), 1000, request(1));
    assert!(bench.flights.iter().any(|flight| flight.hash == hash(200)));
}

#[test]
fn where_a_liar_alone_has_it_clients_are_told_soon() {
    let mut bench = Bench::new(&[holder(2, false)]);
    bench.want(hash(1), 64 * MIB, request(1));
    bench.probed(hash(1), Ranges::all(MIB));
    bench.failed(&bench.flights[0].clone(), Fault::Lied);
    while let Some(flight) = bench.flights.first().cloned() {
        bench.failed(&flight, Fault::Peer);
    }
    bench.probed(hash(1), Ranges::all(MIB));
    bench.pass(1_000);
    assert_eq!(bench.failures(), [&WantFailure::NoHolder], "also though some has come");
}

#[test]
fn a_holder_that_falls_silent_is_asked_around_once() {
    let mut bench = Bench::new(&[holder(2, false), holder(3, false)]);
    bench.want_new(hash(1), 100_000, request(1));
    let silent = bench.flights[0].clone();
    bench.pass(1_500);
    assert_eq!(bench.flights.len(), 1, "it may be slow");
    bench.pass(10_000);
    assert_eq!(bench.flights.len(), 2, "and nobody is asked a third time");
    let second = bench.flights[1].clone();
    assert!(second.from != silent.from && second.range == silent.range);
    bench.fetched(&second);
    assert_eq!((&bench.cancelled[..], &bench.sealing[..]), (&[silent.fetch][..], &[hash(1)][..]));
}
