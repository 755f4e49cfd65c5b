//! Sessions between hosts, what goes over them, and what ends them: silence, crashes, partitions.

use std::rc::Rc;

use waystation_proto::{DialTarget, Hash, Input, NodeId, wire::Message};

use super::{Occurrence, World};
use crate::{check::durability, evictor, host::number_at, network::Cut};

impl World {
    /// Sends bytes over the session with a host, if there is one.
    pub(super) fn send(&mut self, from: usize, to: usize, bytes: &Rc<[u8]>, gossip: bool) {
        let Some(connection) = self.hosts[from].peers.get(&to).copied() else { return };
        for delay in self.network.send(from, to, bytes.len(), gossip) {
            let bytes = bytes.clone();
            self.at(self.now + delay, Occurrence::Arrives { from, to, connection, bytes, gossip });
        }
    }

    /// Passes gossip on to everybody but whom it came from.
    pub(super) fn flood(&mut self, host: usize, but: Option<usize>, bytes: &Rc<[u8]>) {
        let peers: Vec<usize> = self.hosts[host].peers.keys().copied().collect();
        for peer in peers.into_iter().filter(|peer| Some(*peer) != but) {
            self.send(host, peer, bytes, true);
        }
    }

    pub(super) fn arrive(&mut self, from: usize, to: usize, connection: u64, bytes: Rc<[u8]>, gossip: bool) {
        // A session that one end has given up carries nothing.
        if !self.hosts[to].is_up() || self.hosts[to].peers.get(&from) != Some(&connection) {
            return;
        }
        if gossip && !self.hosts[to].hears(self.now, Hash::of(&bytes)) {
            return;
        }
        let from_id = self.hosts[from].id;
        match Message::decode(&bytes) {
            Ok(message) => self.tell(to, Input::Received { from: from_id, message }),
            Err(error) => {
                let text = Err(format!("a message from host {from} does not decode: {error}"));
                self.checks.note("bounds", self.now, to, text);
            }
        }
        if gossip {
            self.flood(to, Some(from), &bytes);
        }
    }

    pub(super) fn dial(&mut self, host: usize, target: DialTarget) {
        let life = self.hosts[host].life;
        let address = match &target {
            DialTarget::Address(address) => Some(address),
            DialTarget::Node(_, addresses) => addresses.first(),
        };
        let to = address.and_then(|address| number_at(address)).filter(|to| *to < self.hosts.len());
        let takes = match to {
            Some(to) if !self.network.is_severed(host, to) => {
                self.network.delay(host, to) + self.network.delay(to, host)
            }
            _ => DIAL_PATIENCE_MS,
        };
        self.at(self.now + takes, Occurrence::Dialled { host, life, target, to });
    }

    pub(super) fn dialled(&mut self, host: usize, target: DialTarget, to: Option<usize>) {
        let meant = |to: &usize| match &target {
            DialTarget::Address(_) => true,
            DialTarget::Node(node, _) => self.hosts[*to].id == *node,
        };
        let reached = to
            .filter(|to| *to != host && self.hosts[*to].is_up() && !self.network.is_severed(host, *to))
            .filter(meant);
        let Some(peer) = reached else {
            self.tell(host, Input::DialFailed { target });
            return;
        };
        let address = self.hosts[peer].address.clone();
        let connected = self.hosts[host].peers.get(&peer);
        if connected.is_none() || connected != self.hosts[peer].peers.get(&host) {
            self.connections += 1;
            self.hosts[host].peers.insert(peer, self.connections);
            self.hosts[peer].peers.insert(host, self.connections);
        }
        let (here, there) = (self.hosts[host].id, self.hosts[peer].id);
        self.tell(peer, Input::PeerUp { peer: here, dialled: None });
        self.tell(host, Input::PeerUp { peer: there, dialled: Some(address) });
    }

    /// Begins a partition. Sessions over it notice by and by, unless it ends first.
    pub(super) fn cut(&mut self, cut: Cut, ms: u64) {
        let number = self.network.cut(cut);
        self.at(self.now + ms, Occurrence::Mends(number));
        let all: Vec<(usize, usize, u64)> = self
            .hosts
            .iter()
            .flat_map(|host| host.peers.iter().map(|(peer, connection)| (host.number, *peer, *connection)))
            .collect();
        for (a, b, connection) in all {
            if a < b && self.network.is_severed(a, b) {
                let at = self.now + SILENCE_MS + self.rng.u64(0..SILENCE_MS);
                self.at(at, Occurrence::Silent { a, b, connection });
            }
        }
    }

    pub(super) fn silent(&mut self, a: usize, b: usize, connection: u64) {
        if self.network.is_severed(a, b) {
            self.ended(a, b, connection);
            self.ended(b, a, connection);
        }
    }

    pub(super) fn ended(&mut self, host: usize, peer: usize, connection: u64) {
        if self.hosts[host].peers.get(&peer) == Some(&connection) {
            self.hosts[host].peers.remove(&peer);
            let peer = self.hosts[peer].id;
            self.tell(host, Input::PeerDown { peer });
        }
    }

    /// A host ends its session with another, which hears of it a little later.
    pub(super) fn hang_up(&mut self, host: usize, peer: &NodeId) {
        let Some(peer) = self.number(peer) else { return };
        let Some(connection) = self.hosts[host].peers.get(&peer).copied() else { return };
        let delay = self.network.delay(host, peer);
        self.at(self.now, Occurrence::Ended { host, peer, connection });
        self.at(self.now + delay, Occurrence::Ended { host: peer, peer: host, connection });
    }

    pub(super) fn crash(&mut self, host: usize, down_ms: u64, silent: bool) {
        if !self.hosts[host].is_up() {
            return;
        }
        let peers: Vec<(usize, u64)> = self.hosts[host].peers.iter().map(|(peer, c)| (*peer, *c)).collect();
        let own = self.hosts[host].crash();
        self.own_words.insert(host, own);
        self.transfers.crash(host);
        self.workload.crash(host);
        self.evictors[host].crash();
        self.checks.tags.crash(host);
        for (peer, connection) in peers {
            let after = if silent { SILENCE_MS + self.rng.u64(0..SILENCE_MS) } else { self.rng.u64(1..50) };
            self.at(self.now + after, Occurrence::Ended { host: peer, peer: host, connection });
        }
        self.at(self.now + down_ms, Occurrence::Starts(host));
    }

    pub(super) fn start(&mut self, host: usize) {
        self.trace.note(self.now, host, format_args!("starts"));
        self.trace.say(self.now, host, || "starts".into());
        let outputs = self.hosts[host].start(self.now, self.options.seed);
        let before = self.own_words.remove(&host).unwrap_or_default();
        let kept = durability::own_words(&self.hosts[host], &before);
        self.checks.note("durability", self.now, host, kept);
        self.perform_all(host, outputs);
        if self.options.quota > 0 {
            let life = self.hosts[host].life;
            self.at(self.now + evictor::TICK_MS, Occurrence::MakesRoom { host, life });
        }
        if host == 0 && self.hosts[0].life == 1 {
            (0..self.options.granted).for_each(|subject| self.grant(subject));
        }
    }
}

/// How long a session may be silent before it counts as gone: between this and twice as long.
const SILENCE_MS: u64 = 10_000;
/// How long a dial waits for an answer.
const DIAL_PATIENCE_MS: u64 = 10_000;
