//! Who is connected and whom to dial: bounded sessions, within the site first. Opening and closing
//! connections is the driver's; admission is proved below both planes and not decided here.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};

use crate::{
    config::ReplicaConfig,
    event::{DialTarget, Output},
    id::NodeId,
    time::{Span, Time},
};

/// Sessions, and the addresses that may lead to more.
#[derive(Debug, Default)]
pub struct Membership {
    sessions: BTreeSet<NodeId>,
    /// Join addresses and what the local network told of.
    places: BTreeMap<String, Place>,
    /// Nodes that were dialled and have no session yet.
    dialled: BTreeMap<NodeId, Attempt>,
}

/// A node that could be dialled.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Who.
    pub node: NodeId,
    /// Where.
    pub addresses: Vec<String>,
    /// Whether it is on another site.
    pub far: bool,
}

#[derive(Debug, Default)]
struct Place {
    /// Who was found there last.
    node: Option<NodeId>,
    attempt: Attempt,
    /// Told by the local network and forgotten when it fails, unlike a join address.
    fleeting: bool,
}

#[derive(Debug, Default)]
struct Attempt {
    not_before: Time,
    failures: u32,
}

impl Membership {
    /// With the addresses to join at.
    pub fn new(join: &[String]) -> Self {
        let places = join.iter().map(|address| (address.clone(), Place::default())).collect();
        Membership { places, ..Membership::default() }
    }

    /// Members with a session.
    pub fn sessions(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.sessions.iter().copied()
    }

    /// Whether a member has a session.
    pub fn is_up(&self, node: &NodeId) -> bool {
        self.sessions.contains(node)
    }

    /// A session came up.
    pub fn up(&mut self, node: NodeId, dialled: Option<String>) {
        if self.sessions.is_empty() {
            // This node was alone: what it could not reach then says nothing about now.
            self.dialled.clear();
            self.places.values_mut().for_each(|place| place.attempt = Attempt::default());
        }
        self.sessions.insert(node);
        self.dialled.remove(&node);
        if let Some(place) = dialled.and_then(|address| self.places.get_mut(&address)) {
            place.node = Some(node);
            place.attempt = Attempt::default();
        }
    }

    /// The last session with a node ended. It may be dialled again at once.
    pub fn down(&mut self, node: &NodeId) {
        self.sessions.remove(node);
    }

    /// The local network told of an address.
    pub fn discovered(&mut self, address: String) {
        let fleeting = self.places.values().filter(|place| place.fleeting).count();
        if fleeting < DISCOVERED_MAX {
            self.places.entry(address).or_insert(Place { fleeting: true, ..Place::default() });
        }
    }

    /// A dial came to nothing.
    pub fn dial_failed(&mut self, now: Time, target: &DialTarget, rng: &mut fastrand::Rng) {
        // A node that is alone looks for others more often: nothing else can be done with the link.
        let last = if self.sessions.is_empty() { RETRY_ALONE } else { RETRY_LAST };
        match target {
            DialTarget::Node(node, _) => {
                let attempt = self.dialled.entry(*node).or_default();
                attempt.fail(now, last, rng);
                if self.dialled.len() > DIALLED_MAX {
                    self.dialled.pop_first();
                }
            }
            DialTarget::Address(address) => {
                let forget = self.places.get_mut(address).is_some_and(|place| {
                    place.attempt.fail(now, last, rng);
                    place.fleeting && place.attempt.failures >= 3
                });
                if forget {
                    self.places.remove(address);
                }
            }
        }
    }

    /// Whom to dial now, of these nodes and the places known. A target is not dialled again before its
    /// dial was answered, or a good while passed.
    pub fn dial(
        &mut self,
        now: Time,
        config: &ReplicaConfig,
        mut candidates: Vec<Candidate>,
        rng: &mut fastrand::Rng,
        out: &mut Vec<Output>,
    ) {
        let far = candidates.iter().filter(|c| c.far && self.is_up(&c.node)).count();
        for (address, place) in &mut self.places {
            let connected = place.node.is_some_and(|node| self.sessions.contains(&node));
            if !connected && place.attempt.start(now) {
                out.push(Output::Dial { target: DialTarget::Address(address.clone()) });
            }
        }
        candidates.retain(|candidate| !self.is_up(&candidate.node) && !candidate.addresses.is_empty());
        rng.shuffle(&mut candidates);
        let mut room = Room::of(config, self.sessions.len() - far, far);
        for candidate in candidates {
            let due = self.dialled.get(&candidate.node).is_none_or(|attempt| attempt.not_before <= now);
            if due && room.take(candidate.far) {
                self.dialled.entry(candidate.node).or_default().start(now);
                let target = DialTarget::Node(candidate.node, candidate.addresses);
                out.push(Output::Dial { target });
            }
        }
    }

    /// Dials a node that is needed now, whatever the bounds say, unless that was just tried.
    pub fn dial_needed(&mut self, now: Time, candidate: Candidate, out: &mut Vec<Output>) {
        let due = !self.is_up(&candidate.node) && !candidate.addresses.is_empty();
        if due && self.dialled.entry(candidate.node).or_default().start(now) {
            out.push(Output::Dial { target: DialTarget::Node(candidate.node, candidate.addresses) });
        }
    }
}

/// How many more dials a round may make.
struct Room {
    site: usize,
    far: usize,
}

impl Room {
    /// `near` sessions are with nodes of the site, or with nodes whose site is not known yet.
    fn of(config: &ReplicaConfig, near: usize, far: usize) -> Self {
        Room {
            site: config.site_sessions.saturating_sub(near).min(DIALS_AT_ONCE),
            far: config.far_sessions.saturating_sub(far).min(DIALS_AT_ONCE),
        }
    }

    fn take(&mut self, far: bool) -> bool {
        let room = if far { &mut self.far } else { &mut self.site };
        let any = *room > 0;
        *room = room.saturating_sub(1);
        any
    }
}

impl Attempt {
    /// Whether it may be tried now; if so, notes that it is being tried.
    fn start(&mut self, now: Time) -> bool {
        let due = self.not_before <= now;
        if due {
            self.not_before = now + DIAL_UNANSWERED;
        }
        due
    }

    fn fail(&mut self, now: Time, last: Span, rng: &mut fastrand::Rng) {
        let span = (RETRY_FIRST.0 << self.failures.min(8)).min(last.0);
        self.not_before = now + Span(span / 2 + rng.u64(0..=span / 2));
        self.failures = self.failures.saturating_add(1);
    }
}

/// Addresses kept from the local network.
const DISCOVERED_MAX: usize = 256;
/// Nodes whose failed dials are remembered.
const DIALLED_MAX: usize = 4096;
const DIALS_AT_ONCE: usize = 4;
const DIAL_UNANSWERED: Span = Span::secs(20);
const RETRY_FIRST: Span = Span::millis(500);
const RETRY_LAST: Span = Span::secs(60);
const RETRY_ALONE: Span = Span::secs(10);

#[cfg(test)]
mod tests {
    use alloc::{string::ToString, vec};

    use super::*;

    fn dials(membership: &mut Membership, now: u64, candidates: Vec<Candidate>) -> Vec<DialTarget> {
        let mut out = Vec::new();
        let mut rng = fastrand::Rng::with_seed(1);
        membership.dial(Time(now), &ReplicaConfig::default(), candidates, &mut rng, &mut out);
        out.into_iter()
            .map(|output| if let Output::Dial { target } = output { target } else { panic!() })
            .collect()
    }

    #[test]
    fn join_addresses_are_dialled_until_connected_and_again_when_lost() {
        let address = "a:1".to_string();
        let mut membership = Membership::new(core::slice::from_ref(&address));
        let target = DialTarget::Address(address.clone());
        assert_eq!(dials(&mut membership, 0, vec![]), core::slice::from_ref(&target));
        assert_eq!(dials(&mut membership, 1, vec![]), [], "a dial under way is not repeated");
        let mut rng = fastrand::Rng::with_seed(1);
        membership.dial_failed(Time(1), &target, &mut rng);
        assert_eq!(dials(&mut membership, 2_000, vec![]), core::slice::from_ref(&target));
        membership.up(NodeId([1; 32]), Some(address));
        assert_eq!(dials(&mut membership, 100_000, vec![]), []);
        membership.down(&NodeId([1; 32]));
        assert_eq!(dials(&mut membership, 200_000, vec![]), [target]);
    }

    #[test]
    fn sessions_are_bounded() {
        let candidates = |far| {
            let one = move |n| Candidate { node: NodeId([n; 32]), addresses: vec!["x:1".to_string()], far };
            (0..100).map(one).collect::<Vec<_>>()
        };
        let mut membership = Membership::default();
        assert_eq!(dials(&mut membership, 0, candidates(false)).len(), DIALS_AT_ONCE);
        (0..8).for_each(|n| membership.up(NodeId([n; 32]), None));
        assert_eq!(dials(&mut membership, 90_000, candidates(true)), [], "eight with other sites are enough");
        assert_eq!(dials(&mut membership, 180_000, candidates(false)).len(), DIALS_AT_ONCE);
        (8..16).for_each(|n| membership.up(NodeId([n; 32]), None));
        assert_eq!(dials(&mut membership, 270_000, candidates(false)), [], "so are sixteen within the site");
    }

    #[test]
    fn a_node_that_was_alone_forgets_what_it_could_not_reach() {
        let mut rng = fastrand::Rng::with_seed(1);
        let other = || Candidate { node: NodeId([1; 32]), addresses: vec!["x:1".to_string()], far: false };
        let target = DialTarget::Node(NodeId([1; 32]), vec!["x:1".to_string()]);
        let mut membership = Membership::default();
        for _ in 0..10 {
            membership.dial_failed(Time(0), &target, &mut rng);
        }
        assert_eq!(dials(&mut membership, 1_000, vec![other()]), []);
        membership.up(NodeId([2; 32]), None);
        assert_eq!(dials(&mut membership, 1_001, vec![other()]), [target]);
    }
}
