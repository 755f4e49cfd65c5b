//! The world's gossip over a graph by itself: what [`crate::gossip`] decides, carried out as the world does it. It
//! leaves out much of what a [`super::router`] does, to be fast; this shows what that costs.

use std::{cmp::Reverse, collections::BinaryHeap};

use waystation_proto::wire::Message;

use super::{
    Params,
    figures::{Copy, Kind, Trace},
    graph::Graph,
    run::{Outcome, Plan},
};
use crate::{
    gossip::{self, Gossip, Number},
    parcel::Parcel,
    random::stream,
    setup::{MILLISECOND, Nanos},
};

impl From<&Params> for gossip::Params {
    /// What the world's gossip knows of them. Around a frame there is one segment's headers of TCP and IP.
    fn from(params: &Params) -> Self {
        let (rules, wire) = (&params.rules, &params.wire);
        let size = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        gossip::Params {
            degree: rules.mesh,
            degree_low: rules.mesh_low,
            degree_high: rules.mesh_high,
            lazy: rules.lazy,
            lazy_percent: rules.lazy_permille / 10,
            heartbeat: rules.heartbeat(),
            first_heartbeat: rules.first_heartbeat_ms * MILLISECOND,
            history: rules.history,
            history_told: rules.history_gossip,
            flood_publish: rules.flood_publish,
            remember: rules.seen_ms * MILLISECOND,
            header_bytes: size(wire.on_the_wire(wire.publish) + TCP_IP),
            frame_bytes: size(wire.on_the_wire(wire.have) + TCP_IP),
            id_bytes: size(wire.name),
            pass: params.work.pass(),
            unwanted_above: size(rules.unwanted_above),
            unwanted_bytes: size(wire.on_the_wire(wire.unwanted + wire.name) + TCP_IP),
        }
    }
}

/// Runs the world's gossip.
pub fn run(params: &Params, graph: &Graph, plan: &Plan, seed: u64) -> Outcome {
    let mut run = Run::new(params, graph, plan, seed);
    for (link, at) in plan.up.iter().enumerate() {
        run.at(*at, Happening::Up(link));
    }
    for (at, link) in &plan.cuts {
        run.at(*at, Happening::Cut(*link));
    }
    for (number, (at, _, _)) in plan.publications.iter().enumerate() {
        run.at(*at, Happening::Publish(number));
    }
    while let Some(Reverse((at, _, what))) = run.queue.pop().filter(|Reverse((at, ..))| *at <= plan.end) {
        run.now = at;
        run.happen(what);
    }
    let mesh = (0..graph.nodes).map(|node| run.gossip.mesh(node).len()).collect();
    Outcome { trace: run.trace, mesh }
}

struct Run<'a> {
    params: &'a Params,
    graph: &'a Graph,
    now: Nanos,
    sequence: u64,
    queue: BinaryHeap<Reverse<(Nanos, u64, Happening)>>,
    gossip: Gossip,
    /// Of each node: with whom, over which link.
    sessions: Vec<Vec<(usize, usize)>>,
    /// The world's number of each publication.
    numbers: Vec<Number>,
    trace: Trace,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Up(usize),
    Cut(usize),
    Publish(usize),
    Beat(usize),
    Copy { from: usize, to: usize, message: usize },
    Have { from: usize, to: usize, numbers: Vec<Number> },
    Want { from: usize, to: usize, numbers: Vec<Number> },
}

impl<'a> Run<'a> {
    fn new(params: &'a Params, graph: &'a Graph, plan: &Plan, seed: u64) -> Self {
        let mut gossip = Gossip::new(seed, graph.nodes, params.into());
        for node in 0..graph.nodes {
            gossip.start(node, stream(seed, node, "gossip phase").u64(0..params.rules.heartbeat()));
        }
        Run {
            params,
            graph,
            now: 0,
            sequence: 0,
            queue: BinaryHeap::new(),
            gossip,
            sessions: vec![Vec::new(); graph.nodes],
            numbers: vec![0; plan.publications.len()],
            trace: Trace { nodes: graph.nodes, published: plan.publications.clone(), ..Trace::default() },
        }
    }

    fn at(&mut self, at: Nanos, what: Happening) {
        self.sequence += 1;
        self.queue.push(Reverse((at, self.sequence, what)));
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Up(link) => {
                let (a, b) = self.ends(link);
                self.sessions[a].push((b, link));
                self.sessions[b].push((a, link));
                self.gossip.up(a, b);
                [a, b].into_iter().for_each(|node| self.beat_soon(node));
            }
            Happening::Cut(link) => {
                let (a, b) = self.ends(link);
                self.sessions[a].retain(|(_, other)| *other != link);
                self.sessions[b].retain(|(_, other)| *other != link);
                self.gossip.down(a, b);
                [a, b].into_iter().for_each(|node| self.beat_soon(node));
            }
            Happening::Publish(message) => {
                let author = self.trace.published[message].1;
                let Ok(parcel) = Parcel::announced(&Message::Probe { nonce: message as u64 }) else { return };
                self.numbers[message] = self.gossip.number(self.now, parcel);
                self.gossip.hears(author, self.now, self.numbers[message]);
                self.beat_soon(author);
                let peers: Vec<usize> = self.sessions[author].iter().map(|(peer, _)| *peer).collect();
                self.pass(author, peers, message, 0);
            }
            Happening::Copy { from, to, message } => {
                self.trace.copies.push(Copy { at: self.now, from, to, message });
                let (_, _, payload) = self.trace.published[message];
                self.note(Kind::Publish, self.params.wire.publish + payload);
                if self.gossip.hears(to, self.now, self.numbers[message]) {
                    self.beat_soon(to);
                    let others = self.gossip.mesh(to).iter().copied().filter(|peer| *peer != from);
                    let mesh: Vec<usize> = others.collect();
                    if payload > self.params.rules.unwanted_above {
                        let frame = self.params.wire.unwanted + self.params.wire.name;
                        mesh.iter().for_each(|_| self.note(Kind::Unwanted, frame));
                    }
                    self.pass(to, mesh, message, self.params.work.pass());
                }
            }
            Happening::Have { from, to, numbers } => {
                self.note(Kind::Have, self.params.wire.have + numbers.len() as u64 * self.params.wire.name);
                let numbers = self.gossip.missing(to, &numbers);
                if !numbers.is_empty() {
                    self.send(to, from, 0, Happening::Want { from: to, to: from, numbers });
                }
            }
            Happening::Want { from, to, numbers } => {
                self.note(Kind::Want, self.params.wire.want + numbers.len() as u64 * self.params.wire.name);
                for number in numbers {
                    if !self.gossip.remembers(to, number) {
                        continue;
                    }
                    let Some(message) = self.numbers.iter().position(|n| *n == number) else { continue };
                    self.trace.asked.insert((from, to, message));
                    self.pass(to, vec![from], message, 0);
                }
            }
            Happening::Beat(node) => self.beat(node),
        }
    }

    fn beat(&mut self, node: usize) {
        let mut peers: Vec<usize> = self.sessions[node].iter().map(|(peer, _)| *peer).collect();
        peers.sort_unstable();
        let beat = self.gossip.beat(node, &peers);
        for peer in beat.changed {
            self.note(Kind::Graft, self.params.wire.graft);
            self.beat_soon(peer);
        }
        for peer in beat.told {
            self.send(node, peer, 0, Happening::Have { from: node, to: peer, numbers: beat.ids.clone() });
        }
        self.beat_soon(node);
    }

    fn beat_soon(&mut self, node: usize) {
        if let Some(at) = self.gossip.next_beat(node, self.now, self.sessions[node].len()) {
            self.at(at, Happening::Beat(node));
        }
    }

    fn pass(&mut self, from: usize, peers: Vec<usize>, message: usize, after: Nanos) {
        let carry = after + self.params.work.carry(self.trace.published[message].2);
        for to in peers {
            self.send(from, to, carry, Happening::Copy { from, to, message });
        }
    }

    fn send(&mut self, from: usize, to: usize, carry: Nanos, what: Happening) {
        let session = self.sessions[from].iter().find(|(peer, _)| *peer == to);
        if let Some((_, link)) = session {
            self.at(self.now + self.graph.links[*link].delay + carry, what);
        }
    }

    fn note(&mut self, kind: Kind, frame: u64) {
        self.trace.frames.push((self.now, kind));
        self.trace.wire.push((self.now, self.params.wire.on_the_wire(frame)));
    }

    fn ends(&self, link: usize) -> (usize, usize) {
        (self.graph.links[link].dialler, self.graph.links[link].listener)
    }
}

/// Of a segment.
const TCP_IP: u64 = 52;
