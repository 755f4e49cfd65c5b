//! A tracker and pieces. Nodes ask the tracker beside the origin for peers, at once and then every few seconds
//! until they have the blob; it answers with some random ones. They connect to a limited number of them and take
//! pieces, the rarest among their neighbours first. A node that has all of a blob goes on serving it.
//!
//! The numbers are Kraken's defaults (`announce_limit` 50, `announce_interval` 3 s, `max_open_conn` 10,
//! `pipeline_limit` 3 and an endgame of as many pieces, `piece_lengths` 4 MB, `piece_request_policy`
//! `rarest_first`). In its favour: a node opens at most half of its connections itself, so that the first ones
//! cannot fill each other up and shut the others out; connections over which nothing can go are closed when the
//! tracker is asked again; in the endgame what comes second is cancelled; what peers have is known without delay.

use std::collections::BTreeMap;

use super::stage::{Policy, Stage, Transfer};
use crate::{
    flow::FlowId,
    random,
    setup::{Nanos, SECOND, Setup},
};

const PIECE: u64 = 4 << 20;
const PEERS_TOLD: usize = 50;
const INTERVAL: Nanos = 3 * SECOND;
const CONNECTIONS: usize = 10;
const OPENED: usize = CONNECTIONS / 2;
const PIPELINE: usize = 3;
const ENDGAME: usize = PIPELINE;

/// The policy.
pub struct Central {
    rng: fastrand::Rng,
    /// The part that each node takes in the swarm of each blob.
    members: BTreeMap<(usize, usize), Member>,
    /// Who is in the swarm of a blob, as the tracker knows.
    swarms: BTreeMap<usize, Vec<usize>>,
}

/// A node in the swarm of a blob.
struct Member {
    have: Vec<bool>,
    /// How many pieces are missing.
    missing: usize,
    /// How often each piece was asked for and is not there.
    asked: Vec<u8>,
    /// How many neighbours have each piece.
    copies: Vec<u16>,
    peers: Vec<Peer>,
}

/// A connection, as one of its ends sees it.
struct Peer {
    node: usize,
    opened_here: bool,
    /// Pieces that were asked for, the one on its way first.
    queue: Vec<usize>,
    flow: Option<FlowId>,
}

impl Member {
    fn new(pieces: usize, all: bool) -> Self {
        Member {
            have: vec![all; pieces],
            missing: if all { 0 } else { pieces },
            asked: vec![0; pieces],
            copies: vec![0; pieces],
            peers: vec![],
        }
    }

    fn peer(&self, node: usize) -> Option<usize> {
        self.peers.iter().position(|peer| peer.node == node)
    }

    /// The piece to ask a peer for: the rarest of those that it has; in the endgame also one that others were
    /// asked for. Which of equals is random.
    fn choose(&self, rng: &mut fastrand::Rng, peer: usize, theirs: &[bool]) -> Option<usize> {
        let pieces = self.have.len();
        let start = rng.usize(0..pieces.max(1));
        let endgame = self.missing <= ENDGAME;
        let mine = &self.peers[peer].queue;
        let open = |piece: &usize| {
            let free = self.asked[*piece] == 0 || (endgame && !mine.contains(piece));
            theirs[*piece] && !self.have[*piece] && free
        };
        (start..pieces)
            .chain(0..start)
            .filter(open)
            .min_by_key(|piece| (self.asked[*piece], self.copies[*piece]))
    }
}

impl Central {
    /// Nobody has asked yet.
    pub fn new(setup: &Setup) -> Self {
        Central {
            rng: random::stream(setup.seed, 0, "central"),
            members: BTreeMap::new(),
            swarms: BTreeMap::new(),
        }
    }

    /// Takes part in a swarm, with what is there.
    fn join(&mut self, stage: &Stage<'_>, node: usize, blob: usize) {
        let pieces = stage.bytes(blob).div_ceil(PIECE).max(1) as usize;
        self.members.entry((node, blob)).or_insert_with(|| Member::new(pieces, stage.has(node, blob)));
        let swarm = self.swarms.entry(blob).or_default();
        if !swarm.contains(&node) {
            swarm.push(node);
        }
    }

    /// The tracker's answer is there: connects to some of those that it names.
    fn meet(&mut self, stage: &mut Stage<'_>, node: usize, blob: usize) {
        self.close_useless(node, blob);
        for source in stage.sources(blob).to_vec() {
            self.join(stage, source, blob);
        }
        let swarm = &self.swarms[&blob];
        let mut told: Vec<usize> = if swarm.len() <= PEERS_TOLD {
            swarm.clone()
        } else {
            (0..PEERS_TOLD).map(|_| swarm[self.rng.usize(0..swarm.len())]).collect()
        };
        self.rng.shuffle(&mut told);
        for other in told {
            let Some(here) = self.members.get(&(node, blob)) else { return };
            let opened = here.peers.iter().filter(|peer| peer.opened_here).count();
            if here.peers.len() >= CONNECTIONS || opened >= OPENED {
                return;
            }
            let Some(there) = self.members.get(&(other, blob)) else { continue };
            let room = there.peers.len() < CONNECTIONS && here.peer(other).is_none();
            if other != node && room && stage.reaches(node, other) && stage.reaches(other, node) {
                self.connect(stage, node, other, blob);
            }
        }
    }

    fn connect(&mut self, stage: &mut Stage<'_>, node: usize, other: usize, blob: usize) {
        for (here, there, opened_here) in [(node, other, true), (other, node, false)] {
            let theirs = self.members.get(&(there, blob)).map(|member| member.have.clone());
            let (Some(theirs), Some(member)) = (theirs, self.members.get_mut(&(here, blob))) else { return };
            for (copies, has) in member.copies.iter_mut().zip(theirs) {
                *copies += u16::from(has);
            }
            member.peers.push(Peer { node: there, opened_here, queue: vec![], flow: None });
        }
        self.request(stage, node, other, blob);
        self.request(stage, other, node, blob);
    }

    /// Closes a connection at one end.
    fn drop_peer(&mut self, stage: &mut Stage<'_>, node: usize, other: usize, blob: usize) {
        let theirs = self.members.get(&(other, blob)).map(|member| member.have.clone());
        let Some(member) = self.members.get_mut(&(node, blob)) else { return };
        let Some(place) = member.peer(other) else { return };
        let peer = member.peers.swap_remove(place);
        for piece in peer.queue {
            member.asked[piece] -= 1;
        }
        for (copies, has) in member.copies.iter_mut().zip(theirs.into_iter().flatten()) {
            *copies -= u16::from(has);
        }
        if let Some(flow) = peer.flow {
            stage.cancel(flow);
        }
    }

    fn disconnect(&mut self, stage: &mut Stage<'_>, node: usize, other: usize, blob: usize) {
        self.drop_peer(stage, node, other, blob);
        self.drop_peer(stage, other, node, blob);
    }

    /// Asks a peer for as many pieces as may wait there.
    fn request(&mut self, stage: &mut Stage<'_>, node: usize, from: usize, blob: usize) {
        if !stage.wants(node, blob) {
            return;
        }
        let (Some(here), Some(there)) = (self.members.get(&(node, blob)), self.members.get(&(from, blob)))
        else {
            return;
        };
        let Some(place) = here.peer(from) else { return };
        let mut chosen = vec![];
        // Few enough that looking again for each costs little.
        let room = PIPELINE.saturating_sub(here.peers[place].queue.len());
        if room > 0 {
            chosen.extend(here.choose(&mut self.rng, place, &there.have));
        }
        let more = room > 1 && !chosen.is_empty();
        let Some(here) = self.members.get_mut(&(node, blob)) else { return };
        for piece in chosen {
            here.asked[piece] += 1;
            here.peers[place].queue.push(piece);
        }
        self.send(stage, node, from, blob, false);
        if more {
            self.request(stage, node, from, blob);
        }
    }

    /// The next piece of a connection goes on its way, if none is.
    fn send(&mut self, stage: &mut Stage<'_>, node: usize, from: usize, blob: usize, pipelined: bool) {
        let Some(here) = self.members.get_mut(&(node, blob)) else { return };
        let Some(place) = here.peer(from) else { return };
        let peer = &mut here.peers[place];
        let Some(piece) = peer.queue.first().copied().filter(|_| peer.flow.is_none()) else { return };
        let bytes = PIECE.min(stage.bytes(blob) - piece as u64 * PIECE);
        let transfer = Transfer { from, to: node, blob, piece: Some(piece), bytes };
        peer.flow = Some(stage.ask(transfer, pipelined));
    }

    /// A piece is not to come from a peer any more, or has come.
    fn take_off(&mut self, node: usize, from: usize, blob: usize, piece: usize) -> Option<FlowId> {
        let here = self.members.get_mut(&(node, blob))?;
        let place = here.peer(from)?;
        let spot = here.peers[place].queue.iter().position(|other| *other == piece)?;
        here.peers[place].queue.remove(spot);
        here.asked[piece] -= 1;
        if spot == 0 { here.peers[place].flow.take() } else { None }
    }

    /// A node has a piece: its neighbours know, and others stop sending it.
    fn piece_came(&mut self, stage: &mut Stage<'_>, node: usize, blob: usize, piece: usize) {
        let Some(here) = self.members.get_mut(&(node, blob)) else { return };
        here.have[piece] = true;
        here.missing -= 1;
        let again = here.asked[piece] > 0;
        let neighbours: Vec<usize> = here.peers.iter().map(|peer| peer.node).collect();
        for other in neighbours {
            if again
                && self.members[&(node, blob)]
                    .peers
                    .iter()
                    .any(|p| p.node == other && p.queue.contains(&piece))
            {
                if let Some(flow) = self.take_off(node, other, blob, piece) {
                    stage.cancel(flow);
                }
                self.send(stage, node, other, blob, true);
            }
            if let Some(there) = self.members.get_mut(&(other, blob)) {
                there.copies[piece] += 1;
            }
            self.request(stage, other, node, blob);
        }
    }

    /// Closes connections over which nothing goes and nothing could: to make room for others.
    fn close_useless(&mut self, node: usize, blob: usize) {
        let Some(here) = self.members.get(&(node, blob)) else { return };
        let needs = |one: &Member, other: &Member| one.have.iter().zip(&other.have).any(|(a, b)| !a && *b);
        let useless = |peer: &&Peer| {
            self.members
                .get(&(peer.node, blob))
                .is_none_or(|there| !needs(here, there) && !needs(there, here))
        };
        let others: Vec<usize> = here.peers.iter().filter(useless).map(|peer| peer.node).collect();
        for other in others {
            for (one, its) in [(node, other), (other, node)] {
                let theirs = self.members.get(&(its, blob)).map(|member| member.have.clone());
                if let Some(member) = self.members.get_mut(&(one, blob)) {
                    member.peers.retain(|peer| peer.node != its);
                    for (copies, has) in member.copies.iter_mut().zip(theirs.into_iter().flatten()) {
                        *copies -= u16::from(has);
                    }
                }
            }
        }
    }

    /// The tracker is a node of the origin's site.
    fn tracker(&self, stage: &Stage<'_>) -> usize {
        stage.plant.at(stage.setup.topology.origin()).start
    }
}

impl Policy for Central {
    fn want(&mut self, stage: &mut Stage<'_>, node: usize, blob: usize) {
        self.join(stage, node, blob);
        // There and back. Who asks at the same time is answered in any order.
        let wait = 2 * stage.plant.delay(node, self.tracker(stage)) + self.rng.u64(0..1_000_000);
        stage.ring(wait, node, blob);
    }

    fn arrived(&mut self, stage: &mut Stage<'_>, _flow: FlowId, transfer: Transfer) {
        let Transfer { from, to, blob, piece: Some(piece), .. } = transfer else { return };
        self.take_off(to, from, blob, piece);
        // What was asked for ahead comes without a pause.
        self.send(stage, to, from, blob, true);
        if self.members.get(&(to, blob)).is_some_and(|member| !member.have[piece]) {
            self.piece_came(stage, to, blob, piece);
        }
        let done = self.members.get(&(to, blob)).is_some_and(|member| member.missing == 0);
        if done && stage.wants(to, blob) {
            stage.complete(self, to, blob);
            let peers = self.members[&(to, blob)].peers.iter().map(|peer| peer.node);
            let full =
                |other: &usize| self.members.get(&(*other, blob)).is_none_or(|there| there.missing == 0);
            for other in peers.filter(full).collect::<Vec<_>>() {
                self.disconnect(stage, to, other, blob);
            }
        } else {
            self.request(stage, to, from, blob);
        }
    }

    fn broke(&mut self, stage: &mut Stage<'_>, _flow: FlowId, transfer: Transfer) {
        self.disconnect(stage, transfer.to, transfer.from, transfer.blob);
    }

    fn rings(&mut self, stage: &mut Stage<'_>, node: usize, blob: usize) {
        if !stage.runs(node) || !stage.wants(node, blob) {
            return;
        }
        let tracker = self.tracker(stage);
        if node == tracker || (stage.reaches(node, tracker) && stage.reaches(tracker, node)) {
            self.meet(stage, node, blob);
        }
        stage.ring(INTERVAL, node, blob);
    }

    fn stopped(&mut self, stage: &mut Stage<'_>, node: usize, loses_disk: bool) {
        let parts: Vec<(usize, Vec<usize>)> = self
            .members
            .range((node, 0)..(node + 1, 0))
            .map(|((_, blob), member)| (*blob, member.peers.iter().map(|peer| peer.node).collect()))
            .collect();
        for (blob, peers) in parts {
            for other in peers {
                self.disconnect(stage, node, other, blob);
            }
            if loses_disk {
                self.members.remove(&(node, blob));
                if let Some(swarm) = self.swarms.get_mut(&blob) {
                    swarm.retain(|other| *other != node);
                }
            }
        }
    }
}
