//! Links between hosts: how long a message is under way, whether it arrives, and how often. A site's nodes are
//! joined by its switch, and by two queues, one each way, to everybody else: what they send waits there for its
//! turn at the line's rate, and is dropped when too much waits. Owns the partitions, also those that let messages
//! through in one direction, and counts the traffic. Sessions over these links are the world's.
//!
//! Blobs are carried by [`crate::flow`] and do not wait in these queues, nor messages for blobs.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

use crate::{
    gossip::Bits,
    ground::Ground,
    ledger::Ledger,
    parcel::Kind,
    random::{happens_in_million, stream},
    setup::{MILLISECOND, Nanos, SECOND},
};

/// Every link.
pub struct Network {
    rules: crate::setup::Network,
    sites: Vec<SiteLinks>,
    /// The site of each host.
    site_of: Vec<u32>,
    /// Whether links lose, repeat and hold up messages now.
    faulty: bool,
    cuts: BTreeMap<u64, Sides>,
    last_cut: u64,
    /// One stream for each sender.
    rngs: Vec<fastrand::Rng>,
    traffic: Traffic,
    /// Bytes by message, of the part of the run that is being counted.
    pub ledger: Ledger,
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

/// A cut as it is asked for all the time.
struct Sides {
    from: Bits,
    to: Bits,
    both: bool,
}

/// A moment, and which of the things that happen then.
pub type Turn = (Nanos, u64);

/// A message as links see it.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Bytes of the message itself.
    pub bytes: u64,
    /// With all that is around it.
    pub weight: u64,
    /// What it is counted among.
    pub kind: Kind,
}

/// When each copy of a message arrives: at its receiver, or at the line into the receiver's site.
pub type Arrivals = [Option<Nanos>; 2];

/// A site's switch and line.
struct SiteLinks {
    lan_delay: Nanos,
    /// Bytes a second of one node's link.
    lan_rate: u64,
    up: Lane,
    down: Lane,
    delay: Nanos,
    /// In millionths.
    loss: u32,
    /// What comes to the line into it and changes nothing at its receivers: a place on the line is all it takes, so it
    /// is given that place when the next message that matters comes.
    idle: BinaryHeap<Reverse<(Turn, u64, Kind)>>,
}

/// One direction of a line.
struct Lane {
    /// Bits a second; 0 carries nothing.
    rate: u64,
    free_at: Nanos,
}

impl Lane {
    /// When so many bytes that come now are through; nothing if too many wait, or ever will.
    fn pass(&mut self, now: Nanos, bytes: u64, queue: u64) -> Option<Nanos> {
        if self.rate == 0 {
            return None;
        }
        let backlog = u128::from(self.free_at.saturating_sub(now));
        let waiting = backlog * u128::from(self.rate) / 8 / u128::from(SECOND);
        // One message is taken by an empty queue, however long it is.
        if waiting > 0 && waiting + u128::from(bytes) > u128::from(queue) {
            return None;
        }
        let takes = u128::from(bytes) * 8 * u128::from(SECOND) / u128::from(self.rate);
        self.free_at = self.free_at.max(now) + takes as u64;
        Some(self.free_at)
    }
}

impl Network {
    /// The links of a run.
    pub fn new(ground: &Ground) -> Self {
        let site = |number: usize| {
            let site = &ground.topology.sites[number];
            SiteLinks {
                lan_delay: ground.lan_delay(number),
                lan_rate: site.lan.rate.bits() / 8,
                up: Lane { rate: site.uplink.up.bits(), free_at: 0 },
                down: Lane { rate: site.uplink.down.bits(), free_at: 0 },
                delay: site.uplink.delay.micros() * 1_000,
                loss: site.uplink.loss.millionths() as u32,
                idle: BinaryHeap::new(),
            }
        };
        let sites = ground.topology.sites.len();
        Network {
            rules: ground.network,
            sites: (0..sites).map(site).collect(),
            site_of: ground.places.iter().map(|place| place.site as u32).collect(),
            faulty: true,
            cuts: BTreeMap::new(),
            last_cut: 0,
            rngs: (0..ground.hosts()).map(|node| stream(ground.seed, node, "network")).collect(),
            traffic: Traffic::default(),
            ledger: Ledger::new(sites),
        }
    }

    /// The site that a host is on.
    pub fn site(&self, host: usize) -> usize {
        self.site_of[host] as usize
    }

    /// Whether two hosts are on different sites.
    pub fn is_far(&self, from: usize, to: usize) -> bool {
        self.site_of[from] != self.site_of[to]
    }

    /// A message leaves a host. Tells when each copy of it arrives: at the receiver, or between sites at the line
    /// into the receiver's site, which [`Network::enter`] takes it over. No copy arrives if it is lost.
    pub fn leave(&mut self, now: Nanos, from: usize, to: usize, load: Load) -> Arrivals {
        let far = self.is_far(from, to);
        self.count(from, to, load);
        let lost = self.faulty && {
            let line = |host: usize| self.sites[self.site(host)].loss;
            let (first, second) = if far { (line(from), line(to)) } else { (self.rules.lan_loss, 0) };
            let rng = &mut self.rngs[from];
            happens_in_million(rng, first) || happens_in_million(rng, second)
        };
        if self.is_blocked(from, to) || lost {
            return [None, None];
        }
        let again = self.faulty && happens_in_million(&mut self.rngs[from], self.rules.duplication);
        let first = self.depart(now, from, to, load);
        [first, if again { self.depart(now, from, to, load) } else { None }]
    }

    fn depart(&mut self, now: Nanos, from: usize, to: usize, load: Load) -> Option<Nanos> {
        let extra = self.extra(from);
        let far = self.is_far(from, to);
        let site = self.site_of[from] as usize;
        let links = &mut self.sites[site];
        if !far {
            let takes = load.weight * SECOND / links.lan_rate.max(1);
            return Some(now + links.lan_delay + takes + extra);
        }
        match links.up.pass(now, load.weight, self.rules.queue) {
            Some(through) => Some(through + links.delay + extra),
            None => {
                self.ledger.drop(load.kind);
                None
            }
        }
    }

    /// A message from another site comes to the line into a host's site. When it arrives; nothing if it is
    /// dropped.
    pub fn enter(&mut self, now: Nanos, to: usize, load: Load) -> Option<Nanos> {
        let site = self.site_of[to] as usize;
        self.pass_down(now, site, load.weight, load.kind)
    }

    fn pass_down(&mut self, now: Nanos, site: usize, weight: u64, kind: Kind) -> Option<Nanos> {
        let links = &mut self.sites[site];
        let through = links.down.pass(now, weight, self.rules.queue);
        if through.is_none() {
            self.ledger.drop(kind);
        }
        through.map(|through| through + links.delay)
    }

    /// A message that changes nothing at its receiver will come to the line into its site, at its turn.
    pub fn enters_later(&mut self, at: Nanos, number: u64, to: usize, load: Load) {
        let site = self.site_of[to] as usize;
        self.sites[site].idle.push(Reverse(((at, number), load.weight, load.kind)));
    }

    /// Lets what changes nothing into a site, as far as it came before this turn. How many there were.
    pub fn let_in(&mut self, site: usize, turn: Turn) -> u64 {
        let mut count = 0;
        while let Some(Reverse((due, weight, kind))) = self.sites[site].idle.peek().copied()
            && due < turn
        {
            self.sites[site].idle.pop();
            self.pass_down(due.0, site, weight, kind);
            count += 1;
        }
        count
    }

    /// The same for all sites.
    pub fn let_all_in(&mut self, turn: Turn) -> u64 {
        (0..self.sites.len()).map(|site| self.let_in(site, turn)).sum()
    }

    /// Jitter, and whatever holds a message up.
    fn extra(&mut self, from: usize) -> Nanos {
        let jitter = self.jitter(from);
        let rng = &mut self.rngs[from];
        let held_up = self.faulty && happens_in_million(rng, self.rules.reordering);
        jitter + if held_up { rng.u64(0..1_000) * MILLISECOND } else { 0 }
    }

    /// Counts something that links are not simulated for.
    pub fn tally(&mut self, from: usize, to: usize, load: Load) {
        let sites = (self.site(from), self.site(to));
        self.ledger.count(load.kind, load.weight, self.is_far(from, to).then_some(sites));
    }

    fn count(&mut self, from: usize, to: usize, load: Load) {
        self.traffic.messages += 1;
        let gossip = matches!(load.kind, Kind::Gossip | Kind::Heartbeat);
        let counter = if gossip { &mut self.traffic.gossip_bytes } else { &mut self.traffic.direct_bytes };
        *counter += load.bytes;
        let far = self.is_far(from, to);
        if far {
            self.traffic.far_bytes += load.bytes;
        }
        let sites = (self.site(from), self.site(to));
        self.ledger.count(load.kind, load.weight, far.then_some(sites));
    }

    /// How long something short is under way from one host to another that waits in no queue.
    pub fn delay(&mut self, from: usize, to: usize) -> Nanos {
        self.base_delay(from, to) + self.jitter(from)
    }

    /// What chance adds to the delay of something that a host sends.
    pub fn jitter(&mut self, from: usize) -> Nanos {
        let jitter = self.rules.jitter;
        if jitter > 0 { self.rngs[from].u64(0..=jitter) } else { 0 }
    }

    /// [`Network::delay`] without chance.
    pub fn base_delay(&self, from: usize, to: usize) -> Nanos {
        let (one, other) = (self.site(from), self.site(to));
        if one == other { self.sites[one].lan_delay } else { self.sites[one].delay + self.sites[other].delay }
    }

    /// Whether nothing gets from one host to another.
    pub fn is_blocked(&self, from: usize, to: usize) -> bool {
        let dead = self.is_far(from, to)
            && (self.sites[self.site(from)].up.rate == 0 || self.sites[self.site(to)].down.rate == 0);
        dead || self.cuts.values().any(|cut| cut.blocks(from, to))
    }

    /// Whether a conversation between two hosts is impossible.
    pub fn is_severed(&self, a: usize, b: usize) -> bool {
        self.is_blocked(a, b) || self.is_blocked(b, a)
    }

    /// Begins a partition; what to end it by.
    pub fn cut(&mut self, cut: Cut) -> u64 {
        self.last_cut += 1;
        self.cuts.insert(self.last_cut, Sides::of(&cut));
        self.last_cut
    }

    /// Ends a partition.
    pub fn mend(&mut self, cut: u64) {
        self.cuts.remove(&cut);
    }

    /// A site's line has other rates from now on, in bits a second.
    pub fn set_line(&mut self, now: Nanos, site: usize, up: u64, down: u64) {
        let links = &mut self.sites[site];
        for (lane, rate) in [(&mut links.up, up), (&mut links.down, down)] {
            // What waits goes on at the new rate: what is left of it takes so much longer, or shorter.
            let left = lane.free_at.saturating_sub(now);
            let scaled = u128::from(left) * u128::from(lane.rate) / u128::from(rate.max(1));
            lane.free_at = now + if rate == 0 { 0 } else { scaled as u64 };
            lane.rate = rate;
        }
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

impl Sides {
    fn of(cut: &Cut) -> Self {
        let bits = |hosts: &BTreeSet<usize>| {
            let mut bits = Bits::default();
            for host in hosts {
                bits.add(*host);
            }
            bits
        };
        Sides { from: bits(&cut.from), to: bits(&cut.to), both: cut.both }
    }

    fn blocks(&self, from: usize, to: usize) -> bool {
        let one_way = self.from.has(from) && self.to.has(to);
        one_way || (self.both && self.from.has(to) && self.to.has(from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_queue_with_a_rate_and_an_end() {
        let mut lane = Lane { rate: 8_000, free_at: 0 };
        assert_eq!(lane.pass(0, 1_000, 2_000), Some(SECOND));
        assert_eq!(lane.pass(0, 1_000, 2_000), Some(2 * SECOND), "waits for the first");
        assert_eq!(lane.pass(0, 1_000, 2_000), None, "two wait already");
        assert_eq!(lane.pass(SECOND, 1_000, 2_000), Some(3 * SECOND), "there is room again");
        assert_eq!(lane.pass(9 * SECOND, 5_000, 2_000), Some(14 * SECOND), "an empty one takes any");
        lane.rate = 0;
        assert_eq!(lane.pass(99 * SECOND, 1, 2_000), None);
    }
}
