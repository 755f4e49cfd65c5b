//! Sessions between hosts, what goes over them, and what ends them: silence, crashes, partitions.

use waystation_proto::{DialTarget, Input, NodeId};

use super::{Occurrence, World};
use crate::{
    check::durability,
    host::number_at,
    network::{Cut, Load},
    parcel::{Kind, SESSION_BYTES},
    setup::{MILLISECOND, Nanos, SECOND},
};

impl World {
    pub(super) fn dial(&mut self, host: usize, target: DialTarget) {
        let life = self.hosts[host].life;
        let address = match &target {
            DialTarget::Address(address) => Some(address),
            DialTarget::Node(_, addresses) => addresses.first(),
        };
        let to = address.and_then(|address| number_at(address)).filter(|to| *to < self.hosts.len());
        let takes = match to {
            Some(to) if !self.network.is_severed(host, to) => {
                let half = Load { bytes: 0, weight: SESSION_BYTES / 2, kind: Kind::Session };
                self.network.tally(host, to, half);
                self.network.tally(to, host, half);
                let round_trip = self.network.base_delay(host, to) + self.network.base_delay(to, host);
                HANDSHAKE_TRIPS * round_trip + self.network.jitter(host)
            }
            _ => DIAL_PATIENCE,
        };
        self.at(self.now + takes, Occurrence::Dialled { host, life, target: Box::new(target), to });
    }

    pub(super) fn dialled(&mut self, host: usize, target: DialTarget, to: Option<usize>) {
        let meant = |to: &usize| match &target {
            DialTarget::Address(_) => true,
            DialTarget::Node(node, _) => self.hosts[*to].id == *node,
        };
        let reached = to
            .filter(|to| *to != host && self.hosts[*to].is_up() && !self.network.is_severed(host, *to))
            .filter(meant)
            .filter(|to| self.hosts[*to].peers.has(host) || self.hosts[*to].peers.len() < SESSIONS_MAX);
        let Some(peer) = reached else {
            self.tell(host, Input::DialFailed { target });
            return;
        };
        let address = self.hosts[peer].address.clone();
        let connected = self.hosts[host].peers.get(peer);
        if connected.is_none() || connected != self.hosts[peer].peers.get(host) {
            self.connections += 1;
            self.hosts[host].peers.insert(peer, self.connections);
            self.hosts[peer].peers.insert(host, self.connections);
            self.gossip.up(host, peer);
            self.beat_soon(host);
            self.beat_soon(peer);
        }
        let (here, there) = (self.hosts[host].id, self.hosts[peer].id);
        self.tell(peer, Input::PeerUp { peer: here, dialled: None });
        self.tell(host, Input::PeerUp { peer: there, dialled: Some(address) });
    }

    /// Begins a partition. Sessions over it notice by and by, unless it ends first.
    pub(super) fn cut(&mut self, cut: Cut, lasts: Nanos) {
        let number = self.network.cut(cut);
        self.at(self.now + lasts, Occurrence::Mends(number));
        self.notice_severed();
    }

    /// Ends a partition.
    pub(super) fn mend(&mut self, cut: u64) {
        self.network.mend(cut);
        self.links_changed();
    }

    /// Sessions over links that carry nothing now notice by and by; transfers do not.
    pub(super) fn notice_severed(&mut self) {
        self.links_changed();
        let all: Vec<(usize, usize, u64)> = self
            .hosts
            .iter()
            .flat_map(|host| host.peers.iter().map(|(peer, connection)| (host.number, peer, connection)))
            .collect();
        for (a, b, connection) in all {
            if a < b && self.network.is_severed(a, b) {
                let at = self.now + SILENCE + self.rng.u64(0..SILENCE);
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
        if self.hosts[host].peers.get(peer) == Some(connection) {
            self.hosts[host].peers.remove(peer);
            self.gossip.down(host, peer);
            self.beat_soon(host);
            let peer = self.hosts[peer].id;
            self.tell(host, Input::PeerDown { peer });
        }
    }

    /// A host ends its session with another, which hears of it a little later.
    pub(super) fn hang_up(&mut self, host: usize, peer: &NodeId) {
        let Some(peer) = self.number(peer) else { return };
        let Some(connection) = self.hosts[host].peers.get(peer) else { return };
        let delay = self.network.delay(host, peer);
        self.at(self.now, Occurrence::Ended { host, peer, connection });
        self.at(self.now + delay, Occurrence::Ended { host: peer, peer: host, connection });
    }

    /// A machine stops; starts again after so long, if ever.
    pub(super) fn crash(&mut self, host: usize, down: Option<Nanos>, silent: bool) {
        if !self.hosts[host].is_up() {
            return;
        }
        let peers: Vec<(usize, u64)> = self.hosts[host].peers.iter().collect();
        let own = self.hosts[host].crash(self.now);
        self.own_words.insert(host, own);
        self.gossip.stop(host);
        self.drop_fetches(host, silent);
        self.workload.crash(host);
        self.evictors[host].crash();
        self.trace.say(self.now, host, || "stops".into());
        self.pulls_cut_off(host);
        self.checks.tags.crash(host);
        for (peer, connection) in peers {
            let after =
                if silent { SILENCE + self.rng.u64(0..SILENCE) } else { self.rng.u64(1..50) * MILLISECOND };
            self.at(self.now + after, Occurrence::Ended { host: peer, peer: host, connection });
        }
        if let Some(down) = down {
            self.at(self.now + down, Occurrence::Starts(host));
        }
    }

    pub(super) fn start(&mut self, host: usize) {
        self.trace.note(self.now, host, format_args!("starts"));
        self.trace.say(self.now, host, || "starts".into());
        self.room_soon(host);
        let outputs = self.hosts[host].start(self.now, self.ground.seed);
        self.gossip.start(host, self.now);
        let before = self.own_words.remove(&host).unwrap_or_default();
        let kept = durability::own_words(&self.hosts[host], &before);
        if !self.trouble.relearning.contains(&host) {
            self.note("durability", host, kept);
        }
        self.perform_all(host, outputs);
        self.pulls_resumed(host);
        if host == 0 && self.hosts[0].life == 1 {
            (0..self.options.granted).for_each(|subject| self.grant(subject));
        }
    }
}

/// How long a session may be silent before it counts as gone: between this and twice as long.
const SILENCE: Nanos = 10 * SECOND;
/// How long a dial waits for an answer.
const DIAL_PATIENCE: Nanos = 8 * SECOND;
/// Round trips until TCP and noise are through; yamux and the protocols' introductions wait for nothing.
const HANDSHAKE_TRIPS: Nanos = 2;
/// Sessions that a node takes at most.
const SESSIONS_MAX: usize = 256;
