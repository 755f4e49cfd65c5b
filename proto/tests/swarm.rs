//! What the planner is for, with many planners at once: a blob enters a site once and leaves the origin about
//! once, in about the time that the links allow, also where nodes start at different times, die or are cut off.
//! Links here are pipes that carry one thing after another, so the figures are those of the plan alone.

#[path = "swarm/lies.rs"]
mod lies;

use std::{
    cell::RefCell,
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    ops::Range,
};

use waystation_proto::{
    Digest, FetchId, Hash, NodeId, Output, ReplicaConfig, RequestId, Time,
    cells::{Cells, Grid},
    event::Fault,
    ranges::Ranges,
    wants::{Holder, Holders, Order, Waiter, Wants},
    wire::{Elsewhere, Extent, Message, Progress},
};

const MIB: u64 = 1024 * 1024;
const BLOB: Hash = Hash([9; 32]);
/// How long a driver waits for bytes of a transfer, in milliseconds.
const GIVEN_UP: u64 = 10_000;

/// Node 0 is the origin, alone on site 0.
struct Swarm {
    nodes: Vec<Node>,
    /// What everybody wants.
    blob: Hash,
    /// Bytes a millisecond into and out of each site, and out of each node within it.
    wan: u64,
    origin: u64,
    lan: u64,
    /// A site whose line is thinner, and its rate.
    thin: Option<(u8, u64)>,
    size: u64,
    /// How long a message is under way within a site, and to another.
    delays: (u64, u64),
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, usize)>>,
    happenings: BTreeMap<u64, Happening>,
    next: u64,
    /// When each pipe is free again.
    pipes: BTreeMap<Pipe, u64>,
    /// Bytes that entered each site, and left the origin.
    entered: BTreeMap<u8, u64>,
    left_origin: u64,
    down: RefCell<BTreeSet<usize>>,
    /// Says this to all its neighbours, for ever, and sends nothing to anybody.
    liar: Option<(usize, Extent)>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Pipe {
    Up(u8),
    Down(u8),
    Node(usize),
}

struct Node {
    site: u8,
    sessions: BTreeSet<usize>,
    wants: Wants,
    have: Ranges,
    done: Option<u64>,
    flights: BTreeMap<FetchId, (usize, Range<u64>)>,
}

enum Happening {
    Start,
    Tick,
    Arrive(FetchId),
    Hear(usize, Vec<Progress>),
    HearOf(usize, Vec<Elsewhere>),
    Gone(usize),
    Lie,
    Fail(FetchId),
}

struct View<'a> {
    me: usize,
    sites: &'a [u8],
    /// With whom it has sessions; with all where that is empty.
    sessions: &'a BTreeSet<usize>,
    down: &'a RefCell<BTreeSet<usize>>,
}

fn name(n: usize) -> NodeId {
    NodeId(*blake3::hash(&[n as u8]).as_bytes())
}

impl View<'_> {
    fn has_session(&self, n: usize) -> bool {
        let known = self.sessions.is_empty() || n == 0 || self.me == 0 || self.sessions.contains(&n);
        known && !self.down.borrow().contains(&n)
    }

    fn number(&self, node: &NodeId) -> Option<usize> {
        (0..self.sites.len()).find(|n| name(*n) == *node && self.has_session(*n))
    }
}

impl Holders for View<'_> {
    fn holders(&self, _: &Digest) -> Vec<Holder> {
        self.member(&name(0)).into_iter().collect()
    }

    fn member(&self, node: &NodeId) -> Option<Holder> {
        let n = self.number(node)?;
        Some(Holder { far: self.sites[n] != self.sites[self.me], abroad: false, node: *node })
    }

    fn known(&self, node: &NodeId) -> Option<Holder> {
        let n = (0..self.sites.len()).find(|n| *n != self.me && name(*n) == *node)?;
        Some(Holder { far: self.sites[n] != self.sites[self.me], abroad: false, node: *node })
    }

    fn other_sites(&self, most: usize) -> usize {
        let others = self.sites.iter().filter(|site| **site != self.sites[self.me]);
        others.collect::<BTreeSet<_>>().len().min(most)
    }

    fn addresses(&self, _: &NodeId) -> Vec<String> {
        Vec::new()
    }

    fn me(&self) -> NodeId {
        name(self.me)
    }

    fn sessions(&self) -> Vec<(NodeId, bool)> {
        let up = (0..self.sites.len()).filter(|n| *n != self.me && self.has_session(*n));
        up.map(|n| (name(n), self.sites[n] != self.sites[self.me])).collect()
    }

    fn site_nodes(&self) -> Vec<NodeId> {
        (0..self.sites.len()).filter(|n| self.sites[*n] == self.sites[self.me]).map(name).collect()
    }

    fn site(&self, node: &NodeId) -> u64 {
        let n = (0..self.sites.len()).find(|n| name(*n) == *node);
        n.map_or(0, |n| u64::from(self.sites[n]) + 1)
    }
}

impl Swarm {
    /// `sites` of `each` nodes, with rates in Mbit/s.
    fn new(sites: u8, each: usize, size: u64, (origin, wan, lan): (u64, u64, u64)) -> Self {
        let node = |site| Node {
            site,
            sessions: BTreeSet::new(),
            wants: Wants::default(),
            have: Ranges::new(),
            done: None,
            flights: BTreeMap::new(),
        };
        let mut nodes = vec![node(0)];
        nodes[0].have = Ranges::all(size);
        nodes.extend((1..=sites).flat_map(|site| (0..each).map(move |_| node(site))));
        Swarm {
            nodes,
            blob: BLOB,
            wan: wan * 125,
            origin: origin * 125,
            lan: lan * 125,
            thin: None,
            size,
            delays: (1, 25),
            now: 0,
            events: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            next: 0,
            pipes: BTreeMap::new(),
            entered: BTreeMap::new(),
            left_origin: 0,
            down: RefCell::default(),
            liar: None,
        }
    }

    fn at(&mut self, at: u64, node: usize, happening: Happening) {
        self.next += 1;
        self.happenings.insert(self.next, happening);
        self.events.push(Reverse((at, self.next, node)));
    }

    /// Each node has sessions with so many others that it chose, and with those that chose it.
    fn mesh(&mut self, degree: usize) {
        let mut rng = fastrand::Rng::with_seed(7);
        for n in 1..self.nodes.len() {
            for _ in 0..degree / 2 {
                let other = rng.usize(1..self.nodes.len());
                if other != n {
                    self.nodes[n].sessions.insert(other);
                    self.nodes[other].sessions.insert(n);
                }
            }
        }
    }

    /// Nodes have sessions with all of their site, and the first two of each site with those of the others.
    fn gateways(&mut self) {
        let keeps = |nodes: &[Node], n: usize| {
            nodes[..n].iter().filter(|node| node.site == nodes[n].site).count() < 2
        };
        for n in 1..self.nodes.len() {
            let with = (1..self.nodes.len()).filter(|other| {
                let near = self.nodes[*other].site == self.nodes[n].site;
                *other != n && (near || (keeps(&self.nodes, n) && keeps(&self.nodes, *other)))
            });
            self.nodes[n].sessions = with.collect();
        }
    }

    /// Everybody wants the blob, each a little later than the one before.
    fn start(&mut self, apart: u64) {
        for node in 1..self.nodes.len() {
            self.at(self.now + (node as u64 - 1) * apart, node, Happening::Start);
        }
    }

    /// Until everybody that is up has it, at most `until`.
    fn run(&mut self, until: u64) {
        while let Some(Reverse((at, id, node))) = self.events.peek().copied() {
            let up = |n: &usize| !self.down.borrow().contains(n) && !self.is_liar(*n);
            if at > until || (1..self.nodes.len()).filter(up).all(|n| self.nodes[n].done.is_some()) {
                break;
            }
            self.events.pop();
            self.now = at;
            let happening = self.happenings.remove(&id).expect("kept");
            if !self.down.borrow().contains(&node) {
                self.happen(node, happening);
            }
        }
    }

    fn is_liar(&self, n: usize) -> bool {
        self.liar.as_ref().is_some_and(|(liar, _)| *liar == n)
    }

    /// A node that wants nothing and says this five times a second.
    fn lie(&mut self, liar: usize, extent: Extent, until: u64) {
        self.liar = Some((liar, extent));
        (self.now..until).step_by(200).for_each(|at| self.at(at, liar, Happening::Lie));
    }

    fn tell_lie(&mut self) {
        let Some((liar, extent)) = self.liar.clone() else { return };
        let known = |n: &usize| self.nodes[liar].sessions.is_empty() || self.nodes[liar].sessions.contains(n);
        for to in (1..self.nodes.len()).filter(|n| *n != liar).filter(known).collect::<Vec<_>>() {
            let progress = Progress { hash: self.blob, extent: extent.clone() };
            self.at(self.now + self.delays.0, to, Happening::Hear(liar, vec![progress]));
        }
    }

    fn happen(&mut self, n: usize, happening: Happening) {
        if self.is_liar(n) {
            if matches!(happening, Happening::Lie) {
                self.tell_lie();
            }
            return;
        }
        let liar = self.liar.as_ref().map(|(liar, _)| *liar);
        let sites: Vec<u8> = self.nodes.iter().map(|node| node.site).collect();
        let sessions = self.nodes[n].sessions.clone();
        let view = View { me: n, sites: &sites, sessions: &sessions, down: &self.down };
        let (now, config) = (Time(self.now), ReplicaConfig::default());
        let node = &mut self.nodes[n];
        let mut out = Vec::new();
        match happening {
            Happening::Start => {
                let order = Order {
                    hash: self.blob,
                    size: self.size,
                    digest: None,
                    manifest: Digest::Sha256([1; 32]),
                    told_by: None,
                    waiter: Waiter::Request(RequestId(1)),
                };
                node.wants.want(now, order, &mut out);
            }
            Happening::Tick => {
                let moving = node.flights.iter().filter(|(_, (from, _))| Some(*from) != liar);
                moving.for_each(|(fetch, _)| node.wants.arriving(now, *fetch));
                node.wants.tick(now, &config, &view, &mut out);
            }
            Happening::Arrive(fetch) => {
                if let Some((_, range)) = node.flights.remove(&fetch) {
                    node.have.insert(range);
                    node.wants.fetched(now, fetch, &mut out);
                }
            }
            Happening::HearOf(from, told) => node.wants.heard_of(now, &name(from), told, &view),
            Happening::Lie => {}
            Happening::Fail(fetch) => {
                if node.flights.remove(&fetch).is_some() {
                    node.wants.failed(now, fetch, Fault::Peer, &mut out);
                }
            }
            Happening::Gone(other) => node.wants.peer_down(now, &name(other), &mut out),
            Happening::Hear(from, progress) => {
                let whole = node.done.is_some() || n == 0;
                let held: BTreeSet<Hash> = whole.then_some(self.blob).into_iter().collect();
                node.wants.heard(now, name(from), progress, &held, &view, &mut out);
            }
        }
        node.wants.plan(now, &config, &view, &mut out);
        self.perform(n, out);
    }

    fn perform(&mut self, n: usize, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Probe { .. } => {
                    let have = self.nodes[n].have.clone();
                    let mut out = Vec::new();
                    self.nodes[n].wants.probed(self.blob, &have, &mut out);
                    self.at(self.now + 1, n, Happening::Tick);
                }
                Output::Fetch { fetch, from, range, .. } => {
                    let from = (0..self.nodes.len()).find(|m| name(*m) == from).expect("known");
                    if self.is_liar(from) {
                        // A session that is up, over which nothing comes until the driver gives it up.
                        self.at(self.now + GIVEN_UP, n, Happening::Fail(fetch));
                        self.nodes[n].flights.insert(fetch, (from, range));
                        continue;
                    }
                    assert!(
                        self.nodes[from].have.contains(&range),
                        "asked for what was never said to be there"
                    );
                    let takes = self.carry(from, n, range.end - range.start);
                    self.nodes[n].flights.insert(fetch, (from, range));
                    self.at(takes, n, Happening::Arrive(fetch));
                }
                Output::CancelFetch { fetch } => {
                    self.nodes[n].flights.remove(&fetch);
                }
                Output::Seal { .. } => {
                    assert_eq!(self.nodes[n].have, Ranges::all(self.size));
                    self.nodes[n].done = Some(self.now);
                    let mut out = Vec::new();
                    self.nodes[n].wants.sealed(self.blob, &mut out);
                    self.perform(n, out);
                }
                Output::Send { to, message: Message::Progress(progress) } => {
                    let to = (0..self.nodes.len()).find(|m| name(*m) == to).expect("known");
                    let (near, far) = self.delays;
                    let delay = if self.nodes[to].site == self.nodes[n].site { near } else { far };
                    self.at(self.now + delay, to, Happening::Hear(n, progress));
                }
                Output::Send { to, message: Message::Elsewhere(told) } => {
                    let to = (0..self.nodes.len()).find(|m| name(*m) == to).expect("known");
                    assert_eq!(self.nodes[to].site, self.nodes[n].site, "what others said is passed on far");
                    self.at(self.now + self.delays.0, to, Happening::HearOf(n, told));
                }
                _ => {}
            }
        }
    }

    /// When so many bytes have come from one node to another.
    fn carry(&mut self, from: usize, to: usize, bytes: u64) -> u64 {
        let (there, here) = (self.nodes[from].site, self.nodes[to].site);
        let at = self.now;
        if there == here {
            let free = self.pipes.entry(Pipe::Node(from)).or_default();
            *free = at.max(*free) + bytes / self.lan;
            return *free + 1;
        }
        *self.entered.entry(here).or_default() += bytes;
        if there == 0 {
            self.left_origin += bytes;
        }
        let up = if there == 0 { self.origin } else { self.wan };
        let thin = |site, rate| self.thin.filter(|(thin, _)| *thin == site).map_or(rate, |(_, rate)| rate);
        for (pipe, rate) in [(Pipe::Up(there), thin(there, up)), (Pipe::Down(here), thin(here, self.wan))] {
            let free = self.pipes.entry(pipe).or_default();
            *free = at.max(*free) + bytes / rate;
        }
        let ends = [Pipe::Up(there), Pipe::Down(here)].map(|pipe| self.pipes[&pipe]);
        ends[0].max(ends[1]) + 25
    }

    fn ticking(&mut self, until: u64) {
        for node in 1..self.nodes.len() {
            for at in (0..until).step_by(50) {
                self.at(at, node, Happening::Tick);
            }
        }
    }

    /// The node goes, and all others hear of it.
    fn kill(&mut self, n: usize) {
        self.down.borrow_mut().insert(n);
        for other in (0..self.nodes.len()).filter(|other| *other != n) {
            self.at(self.now + 1, other, Happening::Gone(n));
        }
    }

    fn last(&self) -> u64 {
        self.last_of(|_| true)
    }

    fn last_of(&self, is: impl Fn(u8) -> bool) -> u64 {
        let down = self.down.borrow();
        let nodes = self.nodes.iter().enumerate().skip(1).filter(|(_, node)| is(node.site));
        let up = nodes.filter(|(n, _)| !down.contains(n) && !self.is_liar(*n));
        up.map(|(n, node)| node.done.unwrap_or_else(|| panic!("node {n} never had it"))).max().expect("nodes")
    }

    /// Bytes that entered the site that most entered, in thousandths of the blob.
    fn entered(&self) -> u64 {
        self.entered.values().max().copied().unwrap_or(0) * 1000 / self.size
    }
}

/// How long so much takes at so many Mbit/s, in milliseconds.
fn at_rate(size: u64, mbit: u64) -> u64 {
    size / (mbit * 125)
}

#[test]
fn a_blob_enters_a_site_once_however_many_want_it() {
    for apart in [0, 7, 300] {
        let mut swarm = Swarm::new(1, 8, 40 * MIB, (1000, 50, 1000));
        swarm.ticking(120_000);
        swarm.start(apart);
        swarm.run(120_000);
        let least = at_rate(40 * MIB, 50);
        let (entered, took) = (swarm.entered(), swarm.last());
        assert!(entered <= 1030, "{entered} of 1000 with {apart} ms between starts");
        let last_start = 7 * apart;
        assert!(
            took <= (least * 115 / 100).max(last_start + 1_000),
            "{took} ms of {least}, {apart} ms between"
        );
    }
}

/// Small machines that all begin at once are busy: what they say comes late.
#[test]
fn neighbours_that_answer_late_are_waited_for() {
    let mut swarm = Swarm::new(1, 8, 20 * MIB, (1000, 50, 1000));
    swarm.delays = (120, 120);
    swarm.ticking(120_000);
    swarm.start(5);
    swarm.run(120_000);
    assert!(swarm.entered() <= 1010, "{} of 1000 entered the site", swarm.entered());
    assert!(swarm.last() <= at_rate(20 * MIB, 50) * 12 / 10, "{} ms", swarm.last());
}

/// In a large site a node has sessions with some of the others only, and comes first among these for what others
/// come first for among theirs.
#[test]
fn a_blob_enters_a_large_site_hardly_more_than_once() {
    let mut swarm = Swarm::new(1, 40, 20 * MIB, (1000, 50, 1000));
    swarm.mesh(18);
    swarm.ticking(60_000);
    swarm.start(3);
    swarm.run(60_000);
    let least = at_rate(20 * MIB, 50);
    assert!(swarm.entered() <= 1200, "{} of 1000 entered the site", swarm.entered());
    assert!(swarm.last() <= least * 13 / 10, "{} ms of {least}", swarm.last());
}

/// Where nodes are slower than the line into their site, what they send each other comes late.
#[test]
fn what_comes_late_within_a_large_site_does_not_enter_it_again() {
    let mut swarm = Swarm::new(1, 40, 40 * MIB, (1000, 1000, 50));
    swarm.mesh(18);
    swarm.ticking(15_000);
    swarm.start(0);
    swarm.run(15_000);
    assert!(swarm.nodes[1..].iter().all(|node| node.done.is_some()), "not all have it");
    assert!(swarm.entered() <= 1100, "{} of 1000 entered the site", swarm.entered());
}

#[test]
fn sites_share_what_a_thin_origin_sends() {
    for apart in [0, 50] {
        let mut swarm = Swarm::new(4, 3, 40 * MIB, (20, 50, 1000));
        swarm.ticking(300_000);
        swarm.start(apart);
        swarm.run(60_000);
        let least = at_rate(40 * MIB, 20);
        let (left, took) = (swarm.left_origin * 1000 / swarm.size, swarm.last());
        assert!(left <= 1200, "{left} of 1000 left the origin");
        assert!(took <= least * 125 / 100, "{took} ms of {least}");
        assert!(swarm.entered() <= 1030, "{} of 1000 entered a site", swarm.entered());
    }
}

/// Once a mesh has settled, most nodes hear of other sites from neighbours only.
#[test]
fn sites_share_where_few_of_their_nodes_hear_of_one_another() {
    for apart in [0, 50] {
        let mut swarm = Swarm::new(4, 3, 40 * MIB, (20, 50, 1000));
        swarm.gateways();
        swarm.ticking(300_000);
        swarm.start(apart);
        swarm.run(60_000);
        let least = at_rate(40 * MIB, 20);
        let (left, took) = (swarm.left_origin * 1000 / swarm.size, swarm.last());
        assert!(left <= 1150, "{left} of 1000 left the origin");
        assert!(took <= least * 120 / 100, "{took} ms of {least}");
        assert!(swarm.entered() <= 1030, "{} of 1000 entered a site", swarm.entered());
    }
}

#[test]
fn a_site_behind_a_thin_line_holds_no_other_up() {
    let mut swarm = Swarm::new(4, 3, 40 * MIB, (100, 100, 1000));
    swarm.thin = Some((4, 5 * 125));
    swarm.gateways();
    swarm.ticking(300_000);
    swarm.start(5);
    swarm.run(120_000);
    let least = at_rate(40 * MIB, 100);
    let took = swarm.last_of(|site| site != 4);
    // A third of what it takes at the thin line, of which four requests at a time are in the way of one another.
    assert!(took <= at_rate(40 * MIB, 5) / 3, "{took} ms of {least}");
    assert!(swarm.last() <= at_rate(40 * MIB, 5) * 12 / 10, "{} ms at the thin line", swarm.last());
    assert!(swarm.left_origin <= 2 * swarm.size, "{} bytes left the origin", swarm.left_origin);
}

#[test]
fn when_a_node_that_fetches_dies_the_others_go_on_from_where_it_was() {
    let mut swarm = Swarm::new(1, 8, 40 * MIB, (1000, 50, 1000));
    let least = at_rate(40 * MIB, 50);
    swarm.ticking(120_000);
    swarm.start(5);
    swarm.run(least / 2);
    let fetching =
        (1..=8).max_by_key(|n| swarm.nodes[*n].flights.values().filter(|(from, _)| *from == 0).count());
    swarm.kill(fetching.expect("nodes"));
    swarm.run(120_000);
    assert!(swarm.entered() <= 1060, "{} of 1000", swarm.entered());
    assert!(swarm.last() <= least * 11 / 10 + 2_000, "{} ms of {least}", swarm.last());
}
