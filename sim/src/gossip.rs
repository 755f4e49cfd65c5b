//! Gossip as the node's gossipsub spreads it: each host has a mesh of some of its sessions, passes news on to those
//! at once, and tells a few others every heartbeat what it has lately seen, who then ask for what they missed.
//! Owns meshes and who has heard what; sending is the world's.
//!
//! Not modelled: scores, back-offs after a prune, the exchange of peers. Meshes are symmetric: a graft is taken at
//! once or refused at once, where the real one takes a round trip. IDONTWANT costs what it costs and saves nothing:
//! a node passes a message on before its neighbours' words can be there.

use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    sync::OnceLock,
};

use waystation_proto::Hash;

use crate::{gossipsub::fit::Fit, parcel::Parcel, random::stream, setup::Nanos};

/// How gossip behaves. The default is what was read from the node and measured of it, `sim/fit/gossip.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Members of a mesh that is refilled or pruned.
    pub degree: usize,
    /// A mesh with fewer is refilled.
    pub degree_low: usize,
    /// A mesh with more is pruned.
    pub degree_high: usize,
    /// At least so many outside the mesh are told what there is, each heartbeat.
    pub lazy: usize,
    /// And at least this part of them, in per cent.
    pub lazy_percent: usize,
    /// Between heartbeats.
    pub heartbeat: Nanos,
    /// From the start to the first heartbeat.
    pub first_heartbeat: Nanos,
    /// For how many heartbeats a message can be asked for.
    pub history: usize,
    /// For how many heartbeats it is told of.
    pub history_told: usize,
    /// Whether a publisher sends to all its sessions, not only to its mesh.
    pub flood_publish: bool,
    /// How long a message is known again.
    pub remember: Nanos,
    /// Around each copy of a message: author, number, key, signature, framing, TCP and IP.
    pub header_bytes: u32,
    /// Around a heartbeat's message to one other.
    pub frame_bytes: u32,
    /// For each message named there.
    pub id_bytes: u32,
    /// From a message until copies of it leave.
    pub pass: Nanos,
    /// Whoever gets a message of more bytes tells its mesh not to send it.
    pub unwanted_above: u32,
    /// What that costs, for each of the mesh.
    pub unwanted_bytes: u32,
}

impl Default for Params {
    fn default() -> Self {
        static FITTED: OnceLock<Params> = OnceLock::new();
        *FITTED.get_or_init(|| {
            Params::from(&Fit::committed().expect("sim/fit/gossip.toml is read by tests").params)
        })
    }
}

/// A message that is spreading, by number.
pub type Number = u32;

/// Everybody's gossip.
pub struct Gossip {
    /// How it behaves.
    pub params: Params,
    members: Vec<Member>,
    /// By number, from the first that still spreads.
    live: VecDeque<Live>,
    first: Number,
    by_hash: BTreeMap<Hash, Number>,
}

/// One host's part.
struct Member {
    /// Ascending.
    mesh: Vec<usize>,
    /// What it heard, one entry for each heartbeat, the latest first.
    recent: VecDeque<Vec<Number>>,
    /// Its heartbeats are at this time and at whole intervals after it.
    phase: Nanos,
    beating: bool,
    rng: fastrand::Rng,
}

struct Live {
    parcel: Rc<Parcel>,
    heard: Bits,
    last_heard: Nanos,
}

/// A set of hosts.
#[derive(Clone, Debug, Default)]
pub struct Bits(Vec<u64>);

impl Bits {
    /// Whether a host is in it.
    pub fn has(&self, host: usize) -> bool {
        self.0.get(host / 64).is_some_and(|word| word >> (host % 64) & 1 == 1)
    }

    /// Adds a host; whether it is new.
    pub fn add(&mut self, host: usize) -> bool {
        let new = !self.has(host);
        if self.0.len() <= host / 64 {
            self.0.resize(host / 64 + 1, 0);
        }
        self.0[host / 64] |= 1 << (host % 64);
        new
    }

    /// Takes a host out.
    pub fn take(&mut self, host: usize) {
        if let Some(word) = self.0.get_mut(host / 64) {
            *word &= !(1 << (host % 64));
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }
}

/// What a heartbeat does.
#[derive(Debug, Default)]
pub struct Beat {
    /// With whom this host's mesh begins or ends: each costs a message.
    pub changed: Vec<usize>,
    /// Who is told what there is.
    pub told: Vec<usize>,
    /// What there is.
    pub ids: Vec<Number>,
}

impl Member {
    /// Whether it is new.
    fn join(&mut self, peer: usize) -> bool {
        let place = self.mesh.binary_search(&peer);
        if let Err(at) = place {
            self.mesh.insert(at, peer);
        }
        place.is_err()
    }

    fn part(&mut self, peer: usize) {
        if let Ok(at) = self.mesh.binary_search(&peer) {
            self.mesh.remove(at);
        }
    }

    /// Those of its sessions, ascending, that are not in its mesh.
    fn others(&self, peers: &[usize]) -> Vec<usize> {
        debug_assert!(peers.is_sorted(), "{peers:?}");
        let mut mesh = self.mesh.iter().peekable();
        let mut others = Vec::with_capacity(peers.len());
        for peer in peers {
            while mesh.next_if(|member| *member < peer).is_some() {}
            if mesh.peek() != Some(&peer) {
                others.push(*peer);
            }
        }
        others
    }
}

impl Gossip {
    /// For so many hosts.
    pub fn new(seed: u64, hosts: usize, params: Params) -> Self {
        let member = |host: usize| Member {
            mesh: Vec::new(),
            recent: VecDeque::new(),
            phase: 0,
            beating: false,
            rng: stream(seed, host, "gossip"),
        };
        let (live, by_hash) = (VecDeque::new(), BTreeMap::new());
        Gossip { params, members: (0..hosts).map(member).collect(), live, first: 1, by_hash }
    }

    /// A host starts.
    pub fn start(&mut self, host: usize, now: Nanos) {
        let member = &mut self.members[host];
        member.phase = now + self.params.first_heartbeat;
        member.beating = false;
    }

    /// A host stops: it forgets all it heard.
    pub fn stop(&mut self, host: usize) {
        let mesh = std::mem::take(&mut self.members[host].mesh);
        for peer in mesh {
            self.members[peer].part(host);
        }
        self.members[host].recent.clear();
        self.live.iter_mut().for_each(|live| live.heard.take(host));
    }

    /// A session begins: who has too few in its mesh takes the other into it. True where one did.
    pub fn up(&mut self, a: usize, b: usize) -> bool {
        let low = |host: usize| self.members[host].mesh.len() < self.params.degree_low;
        (low(a) || low(b)) && self.graft(a, b)
    }

    /// A session ended.
    pub fn down(&mut self, a: usize, b: usize) {
        self.members[a].part(b);
        self.members[b].part(a);
    }

    fn graft(&mut self, a: usize, b: usize) -> bool {
        let has_room = |host: usize| self.members[host].mesh.len() < self.params.degree_high;
        if !has_room(a) || !has_room(b) {
            return false;
        }
        self.members[b].join(a);
        self.members[a].join(b)
    }

    /// A message that begins to spread, or that does already: its number.
    pub fn number(&mut self, now: Nanos, parcel: Parcel) -> Number {
        while let Some(first) = self.live.front()
            && first.last_heard + self.params.remember <= now
        {
            self.by_hash.remove(&first.parcel.hash);
            self.live.pop_front();
            self.first += 1;
        }
        if let Some(number) = self.by_hash.get(&parcel.hash) {
            return *number;
        }
        let number = self.first + self.live.len() as Number;
        self.by_hash.insert(parcel.hash, number);
        self.live.push_back(Live { parcel: Rc::new(parcel), heard: Bits::default(), last_heard: now });
        number
    }

    fn live(&self, number: Number) -> Option<&Live> {
        self.live.get(number.checked_sub(self.first)? as usize)
    }

    /// A message that still spreads.
    pub fn parcel(&self, number: Number) -> Option<&Rc<Parcel>> {
        self.live(number).map(|live| &live.parcel)
    }

    /// A host hears a message, or makes it; whether it is news there.
    pub fn hears(&mut self, host: usize, now: Nanos, number: Number) -> bool {
        let at = number.checked_sub(self.first).map(|at| at as usize);
        let Some(live) = at.and_then(|at| self.live.get_mut(at)) else { return false };
        if !live.heard.add(host) {
            return false;
        }
        live.last_heard = now;
        let recent = &mut self.members[host].recent;
        match recent.front_mut() {
            Some(window) => window.push(number),
            None => recent.push_front(vec![number]),
        }
        true
    }

    /// Whether a host has heard a message already.
    pub fn has_heard(&self, host: usize, number: Number) -> bool {
        self.live(number).is_none_or(|live| live.heard.has(host))
    }

    /// Whom a host passes a message on to at once.
    pub fn mesh(&self, host: usize) -> &[usize] {
        &self.members[host].mesh
    }

    /// Which of these messages a host has not heard.
    pub fn missing(&self, host: usize, numbers: &[Number]) -> Vec<Number> {
        numbers.iter().copied().filter(|number| !self.has_heard(host, *number)).collect()
    }

    /// Whether a host can still send a message to one who asks for it.
    pub fn remembers(&self, host: usize, number: Number) -> bool {
        self.members[host].recent.iter().any(|window| window.contains(&number))
    }

    /// When a host's next heartbeat is, if there is something to do in it and it is not on its way already.
    pub fn next_beat(&mut self, host: usize, now: Nanos, sessions: usize) -> Option<Nanos> {
        let interval = self.params.heartbeat;
        let member = &mut self.members[host];
        let sparse = member.mesh.len() < self.params.degree_low && member.mesh.len() < sessions;
        let idle = member.recent.is_empty() && !sparse && member.mesh.len() <= self.params.degree_high;
        if member.beating || idle {
            return None;
        }
        member.beating = true;
        let beats = now.saturating_sub(member.phase) / interval + 1;
        Some(if now < member.phase { member.phase } else { member.phase + beats * interval })
    }

    /// A host's heartbeat. Its sessions are in ascending order.
    pub fn beat(&mut self, host: usize, peers: &[usize]) -> Beat {
        self.members[host].beating = false;
        let mut beat = Beat { changed: self.tend(host, peers), ..Beat::default() };
        let Params { lazy, lazy_percent, history, history_told, .. } = self.params;
        let member = &mut self.members[host];
        beat.ids = member.recent.iter().take(history_told).flatten().copied().collect();
        if !beat.ids.is_empty() {
            let mut others = member.others(peers);
            member.rng.shuffle(&mut others);
            others.truncate(lazy.max(others.len() * lazy_percent / 100));
            beat.told = others;
        }
        member.recent.push_front(Vec::new());
        member.recent.truncate(history);
        if member.recent.iter().all(Vec::is_empty) {
            member.recent.clear();
        }
        beat
    }

    /// Refills or prunes a mesh.
    fn tend(&mut self, host: usize, peers: &[usize]) -> Vec<usize> {
        let mut changed = Vec::new();
        let Params { degree, degree_low, degree_high, .. } = self.params;
        let size = self.members[host].mesh.len();
        if size < degree_low {
            let mut others = self.members[host].others(peers);
            self.members[host].rng.shuffle(&mut others);
            for peer in others {
                if self.members[host].mesh.len() >= degree {
                    break;
                }
                if self.graft(host, peer) {
                    changed.push(peer);
                }
            }
        } else if size > degree_high {
            let mut mesh = self.members[host].mesh.clone();
            self.members[host].rng.shuffle(&mut mesh);
            for peer in mesh.into_iter().skip(degree) {
                self.down(host, peer);
                changed.push(peer);
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use waystation_proto::wire::Message;

    use super::*;
    use crate::setup::SECOND;

    fn parcel(nonce: u64) -> Parcel {
        Parcel::announced(&Message::Probe { nonce }).expect("encodes")
    }

    /// Everybody has a session with everybody.
    fn meshes(hosts: usize) -> Gossip {
        let mut gossip = Gossip::new(1, hosts, Params::default());
        (0..hosts).for_each(|host| gossip.start(host, 0));
        for a in 0..hosts {
            for b in 0..a {
                gossip.up(a, b);
            }
        }
        gossip
    }

    #[test]
    fn meshes_stay_within_their_bounds_and_reach_everybody() {
        let mut gossip = meshes(50);
        for round in 0..5 {
            for host in 0..50 {
                let peers: Vec<usize> = (0..50).filter(|peer| *peer != host).collect();
                gossip.beat(host, &peers);
                assert!(gossip.mesh(host).len() >= gossip.params.degree_low, "round {round}");
            }
        }
        assert!((0..50).all(|host| gossip.mesh(host).len() <= gossip.params.degree_high));
        let number = gossip.number(0, parcel(1));
        let (mut next, mut reached) = (vec![0], 0);
        while let Some(host) = next.pop() {
            if gossip.hears(host, 0, number) {
                reached += 1;
                next.extend(gossip.mesh(host).iter().copied());
            }
        }
        assert_eq!(reached, 50);
    }

    #[test]
    fn what_was_heard_is_told_of_for_a_while_and_can_be_had_a_little_longer() {
        let mut gossip = meshes(20);
        let number = gossip.number(0, parcel(1));
        assert!(gossip.hears(3, 0, number) && !gossip.hears(3, 0, number));
        assert_eq!(gossip.missing(4, &[number]), [number]);
        let peers: Vec<usize> = (0..20).filter(|peer| *peer != 3).collect();
        let told: Vec<bool> = (0..6).map(|_| !gossip.beat(3, &peers).ids.is_empty()).collect();
        assert_eq!(told, [true, true, true, false, false, false]);
        assert!(!gossip.remembers(3, number));
        // Nobody heard it for a minute: it is a new one.
        let again = gossip.number(61 * SECOND, parcel(1));
        assert_ne!(again, number);
    }

    #[test]
    fn who_stops_forgets_and_is_in_nobodys_mesh() {
        let mut gossip = meshes(10);
        let number = gossip.number(0, parcel(1));
        gossip.hears(2, 0, number);
        gossip.stop(2);
        assert!(!gossip.has_heard(2, number));
        assert!((0..10).all(|host| !gossip.mesh(host).contains(&2)));
    }
}
