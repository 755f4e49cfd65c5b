//! Routers by themselves, over a graph: the simulator's half of the fit. The world has its own queue; this one
//! is for gossip alone.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{
    Params,
    figures::{Copy, Kind, Trace},
    graph::Graph,
    router::{Frame, Message, Router, Sent},
};
use crate::{random::stream, setup::Nanos};

/// What happens.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// When which link of the graph comes up.
    pub up: Vec<Nanos>,
    /// When which link ends.
    pub cuts: Vec<(Nanos, usize)>,
    /// When, where, and how many bytes are published.
    pub publications: Vec<(Nanos, usize, u64)>,
    /// When it is over.
    pub end: Nanos,
}

/// The outcome.
pub struct Outcome {
    /// What went over the links.
    pub trace: Trace,
    /// Neighbours in the mesh of each node, at the end.
    pub mesh: Vec<usize>,
}

/// Runs the model.
pub fn run(params: &Params, graph: &Graph, plan: &Plan, seed: u64) -> Outcome {
    let mut run = Run::new(params, graph, seed);
    for (link, at) in plan.up.iter().enumerate() {
        run.at(*at, Happening::Up(link));
    }
    for (at, link) in &plan.cuts {
        run.at(*at, Happening::Cut(*link));
    }
    for (number, (at, _, _)) in plan.publications.iter().enumerate() {
        run.at(*at, Happening::Publish(number));
    }
    run.trace.published = plan.publications.clone();
    while let Some(Reverse(next)) = run.queue.pop().filter(|Reverse(next)| next.at <= plan.end) {
        run.now = next.at;
        run.happen(next.what);
    }
    let mesh = run.routers.iter().map(|router| router.mesh().len()).collect();
    Outcome { trace: run.trace, mesh }
}

struct Run<'a> {
    params: &'a Params,
    graph: &'a Graph,
    now: Nanos,
    sequence: u64,
    queue: BinaryHeap<Reverse<Next>>,
    routers: Vec<Router>,
    rngs: Vec<fastrand::Rng>,
    /// Of each node: its neighbours, sorted, and over which link.
    links: Vec<Vec<(usize, usize)>>,
    is_up: Vec<bool>,
    /// When the last frame arrives over each link, from either end.
    last: Vec<Nanos>,
    trace: Trace,
}

#[derive(Debug, PartialEq, Eq)]
enum Happening {
    Up(usize),
    Cut(usize),
    Publish(usize),
    Arrives { link: usize, from: usize, to: usize, frame: Frame },
    Pass { node: usize, name: u64 },
    Heartbeat(usize),
}

#[derive(Debug, PartialEq, Eq)]
struct Next {
    at: Nanos,
    sequence: u64,
    what: Happening,
}

impl Ord for Next {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<'a> Run<'a> {
    fn new(params: &'a Params, graph: &'a Graph, seed: u64) -> Self {
        let mut links = vec![Vec::new(); graph.nodes];
        for (number, link) in graph.links.iter().enumerate() {
            links[link.dialler].push((link.listener, number));
            links[link.listener].push((link.dialler, number));
        }
        links.iter_mut().for_each(|links| links.sort_unstable());
        let mut run = Run {
            params,
            graph,
            now: 0,
            sequence: 0,
            queue: BinaryHeap::new(),
            routers: (0..graph.nodes).map(|_| Router::new(params.rules.clone())).collect(),
            rngs: (0..graph.nodes).map(|node| stream(seed, node, "gossip")).collect(),
            links,
            is_up: vec![false; graph.links.len()],
            last: vec![0; 2 * graph.links.len()],
            trace: Trace { nodes: graph.nodes, ..Trace::default() },
        };
        for node in 0..graph.nodes {
            let phase = run.rngs[node].u64(0..run.params.rules.heartbeat());
            run.at(phase, Happening::Heartbeat(node));
        }
        run
    }

    fn at(&mut self, at: Nanos, what: Happening) {
        self.sequence += 1;
        self.queue.push(Reverse(Next { at, sequence: self.sequence, what }));
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Up(link) => {
                self.is_up[link] = true;
                let ends = self.graph.links[link];
                for (node, peer, dialled) in
                    [(ends.dialler, ends.listener, true), (ends.listener, ends.dialler, false)]
                {
                    let sent = self.routers[node].connected(peer, dialled);
                    self.send(node, sent);
                }
            }
            Happening::Cut(link) => {
                self.is_up[link] = false;
                let ends = self.graph.links[link];
                self.routers[ends.dialler].disconnected(ends.listener);
                self.routers[ends.listener].disconnected(ends.dialler);
            }
            Happening::Publish(number) => {
                let (_, author, bytes) = self.trace.published[number];
                let message = Message { name: number as u64, author, bytes };
                let sent = self.routers[author].publish(self.now, message);
                self.send(author, sent);
            }
            Happening::Arrives { link, from, to, frame } if self.is_up[link] => {
                self.note(from, to, &frame);
                let (sent, new) = self.routers[to].receive(self.now, from, &frame);
                if let Some(message) = new {
                    let at = self.now + self.params.work.pass();
                    self.at(at, Happening::Pass { node: to, name: message.name });
                }
                self.send(to, sent);
            }
            Happening::Arrives { .. } => {}
            Happening::Pass { node, name } => {
                let sent = self.routers[node].pass(name);
                self.send(node, sent);
            }
            Happening::Heartbeat(node) => {
                let sent = self.routers[node].heartbeat(self.now, &mut self.rngs[node]);
                self.send(node, sent);
                self.at(self.now + self.params.rules.heartbeat(), Happening::Heartbeat(node));
            }
        }
    }

    fn send(&mut self, from: usize, sent: Vec<Sent>) {
        for (to, frame) in sent {
            let Ok(place) = self.links[from].binary_search_by_key(&to, |(peer, _)| *peer) else { continue };
            let link = self.links[from][place].1;
            let carry = match &frame {
                Frame::Publish(message) => self.params.work.carry(message.bytes),
                _ => 0,
            };
            let last = &mut self.last[2 * link + usize::from(self.graph.links[link].dialler == from)];
            // A stream keeps its order.
            *last = (*last).max(self.now + self.graph.links[link].delay + carry);
            let at = *last;
            self.at(at, Happening::Arrives { link, from, to, frame });
        }
    }

    fn note(&mut self, from: usize, to: usize, frame: &Frame) {
        let kind = match frame {
            Frame::Publish(message) => {
                let message = message.name as usize;
                self.trace.copies.push(Copy { at: self.now, from, to, message });
                Kind::Publish
            }
            Frame::Want(names) => {
                self.trace.asked.extend(names.iter().map(|name| (from, to, *name as usize)));
                Kind::Want
            }
            Frame::Hello => Kind::Hello,
            Frame::Have(_) => Kind::Have,
            Frame::Unwanted(_) => Kind::Unwanted,
            Frame::Graft => Kind::Graft,
            Frame::Prune => Kind::Prune,
        };
        let bytes = self.params.wire.on_the_wire(frame.bytes(&self.params.wire));
        self.trace.frames.push((self.now, kind));
        self.trace.wire.push((self.now, bytes));
    }
}
