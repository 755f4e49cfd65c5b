//! Links between hosts: how long a message is under way, whether it arrives, and how often. Owns the
//! partitions, also those that let messages through in one direction, and counts the traffic. Sessions
//! over these links are the world's.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Options,
    random::{happens, stream},
};

/// Every link.
pub struct Network {
    options: Options,
    /// Whether links lose, repeat and hold up messages now.
    faulty: bool,
    cuts: BTreeMap<u64, Cut>,
    last_cut: u64,
    /// One stream for each sender.
    rngs: Vec<fastrand::Rng>,
    traffic: Traffic,
}

/// What went over links, lost messages included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages that were sent.
    pub messages: u64,
    /// Bytes of messages between two members.
    pub direct_bytes: u64,
    /// Bytes of gossip, each copy counted.
    pub gossip_bytes: u64,
    /// Of both, what went from one site to another.
    pub far_bytes: u64,
}

impl Traffic {
    /// What was sent since then.
    pub fn since(self, before: Traffic) -> Traffic {
        Traffic {
            messages: self.messages - before.messages,
            direct_bytes: self.direct_bytes - before.direct_bytes,
            gossip_bytes: self.gossip_bytes - before.gossip_bytes,
            far_bytes: self.far_bytes - before.far_bytes,
        }
    }
}

/// Nothing that one of `from` sends to one of `to` arrives.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cut {
    /// Senders.
    pub from: BTreeSet<usize>,
    /// Receivers.
    pub to: BTreeSet<usize>,
    /// Whether nothing arrives in the other direction either.
    pub both: bool,
}

impl Network {
    /// The links of a run.
    pub fn new(options: &Options) -> Self {
        Network {
            options: options.clone(),
            faulty: true,
            cuts: BTreeMap::new(),
            last_cut: 0,
            rngs: (0..options.nodes).map(|node| stream(options.seed, node, "network")).collect(),
            traffic: Traffic::default(),
        }
    }

    /// The site that a host is on.
    pub fn site(&self, host: usize) -> usize {
        host % self.options.sites
    }

    /// After which delays a message from one host to another arrives: none if it is lost, several if it is
    /// repeated.
    pub fn send(&mut self, from: usize, to: usize, bytes: usize, gossip: bool) -> Vec<u64> {
        self.traffic.messages += 1;
        let counter = if gossip { &mut self.traffic.gossip_bytes } else { &mut self.traffic.direct_bytes };
        *counter += bytes as u64;
        if self.site(from) != self.site(to) {
            self.traffic.far_bytes += bytes as u64;
        }
        let (loss, duplication) =
            if self.faulty { (self.options.loss, self.options.duplication) } else { (0, 0) };
        if self.is_blocked(from, to) || happens(&mut self.rngs[from], loss) {
            return Vec::new();
        }
        let copies = 1 + usize::from(happens(&mut self.rngs[from], duplication));
        (0..copies).map(|_| self.delay(from, to)).collect()
    }

    /// How long a message is under way from one host to another.
    pub fn delay(&mut self, from: usize, to: usize) -> u64 {
        let near = self.site(from) == self.site(to);
        let base = if near { self.options.lan_ms } else { self.options.wan_ms };
        let rng = &mut self.rngs[from];
        let held_up = self.faulty && happens(rng, self.options.reordering);
        base + rng.u64(0..=self.options.jitter_ms) + if held_up { rng.u64(0..1000) } else { 0 }
    }

    /// Bytes a millisecond of one transfer between two hosts.
    pub fn rate(&self, from: usize, to: usize) -> u64 {
        let near = self.site(from) == self.site(to);
        if near { self.options.lan_rate } else { self.options.wan_rate }
    }

    /// Whether nothing gets from one host to another.
    pub fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.cuts.values().any(|cut| cut.blocks(from, to))
    }

    /// Whether a conversation between two hosts is impossible.
    pub fn is_severed(&self, a: usize, b: usize) -> bool {
        self.is_blocked(a, b) || self.is_blocked(b, a)
    }

    /// Begins a partition; what to end it by.
    pub fn cut(&mut self, cut: Cut) -> u64 {
        self.last_cut += 1;
        self.cuts.insert(self.last_cut, cut);
        self.last_cut
    }

    /// Ends a partition.
    pub fn mend(&mut self, cut: u64) {
        self.cuts.remove(&cut);
    }

    /// Ends every fault: links deliver everything once from now on.
    pub fn heal(&mut self) {
        self.cuts.clear();
        self.faulty = false;
    }

    /// What was sent so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }
}

impl Cut {
    fn blocks(&self, from: usize, to: usize) -> bool {
        let one_way = self.from.contains(&from) && self.to.contains(&to);
        one_way || (self.both && self.from.contains(&to) && self.to.contains(&from))
    }
}
