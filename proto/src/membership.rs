//! Who is connected and whom to dial: bounded sessions, within the site first. Opening and closing
//! connections is the driver's; admission is proved below both planes and not decided here.

use alloc::{collections::BTreeMap, string::String, vec::Vec};

use crate::{
    alarm::sooner,
    body::NodeBody,
    config::ReplicaConfig,
    event::{Class, DialTarget, Output},
    id::NodeId,
    presence::Presence,
    row::Row,
    surplus::{Share, Surplus},
    time::{Span, Time},
};

/// Sessions, and the addresses that may lead to more.
#[derive(Debug, Default)]
pub struct Membership {
    /// Since when each is up.
    sessions: Row<Time>,
    /// How often one began or ended.
    changes: u64,
    /// Join addresses and what the local network told of.
    places: BTreeMap<String, Place>,
    /// How it went with nodes that were dialled.
    dialled: BTreeMap<NodeId, Attempt>,
    /// How it went with other sites altogether. Most of a fleet's sites may take no connections, and to try
    /// a thousand of them, each as seldom as it may be, would still fill a thin link.
    outside: Attempt,
    /// Whether no other site was connected when that was last looked at.
    cut_off: bool,
    /// Whether there was no session at all, and none has lasted since.
    was_alone: bool,
    /// Classes that may not be fetched over links to other sites now: this node's budget for them.
    no_far_background: bool,
    no_far_client: bool,
    /// Which sessions are up in more than name.
    pub presence: Presence,
    /// Which sessions were too many.
    pub surplus: Surplus,
    /// When the last input came.
    now: Time,
}

/// A node that could be dialled.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Who.
    pub node: NodeId,
    /// Where.
    pub addresses: &'a [String],
    /// Whether it is on another site.
    pub far: bool,
}

impl<'a> Candidate<'a> {
    /// A node by what it says of itself, for a node of the site `here`.
    pub fn of(node: NodeId, body: &'a NodeBody, here: &str) -> Self {
        Candidate { node, addresses: &body.addresses, far: body.site != here }
    }
}

#[derive(Debug, Default)]
struct Place {
    /// Who was found there last.
    node: Option<NodeId>,
    attempt: Attempt,
    /// Told by the local network and forgotten when it fails, unlike a join address.
    fleeting: bool,
}

/// Which nodes there is room for sessions with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sorts {
    /// Those of this site.
    pub near: bool,
    /// Those of other sites.
    pub far: bool,
}

/// Sessions that there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connected {
    /// With nodes of this site, and with nodes not known yet.
    pub near: usize,
    /// With nodes of other sites.
    pub far: usize,
    /// Other nodes known to be of this site, whether there or not.
    pub others: usize,
    /// How many sessions with other sites this node keeps, where not all that its site may.
    pub share: Option<Share>,
}

#[derive(Debug, Default)]
struct Attempt {
    not_before: Time,
    failures: u32,
    far: bool,
    /// When the dial under way began, if one is.
    since: Option<Time>,
    /// Whether the last dial came to nothing: a session that ended soon is no sign of that.
    unreached: bool,
}

impl Membership {
    /// With the addresses to join at.
    pub fn new(join: &[String]) -> Self {
        let places = join.iter().map(|address| (address.clone(), Place::default())).collect();
        Membership { places, ..Membership::default() }
    }

    /// Takes note of what may be fetched over links to other sites.
    pub fn set_far_allowed(&mut self, background: bool, client: bool) {
        (self.no_far_background, self.no_far_client) = (!background, !client);
    }

    /// Whether fetches of this class over links to other sites may begin.
    pub fn far_allowed(&self, class: Class) -> bool {
        match class {
            Class::Client => !self.no_far_client,
            Class::Background => !self.no_far_background,
        }
    }

    /// Members with a session.
    pub fn sessions(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.sessions.keys().copied()
    }

    /// How often a session began or ended: what was found out about them is good until then.
    pub fn session_changes(&self) -> u64 {
        self.changes
    }

    /// Whether a member has a session.
    pub fn is_up(&self, node: &NodeId) -> bool {
        self.sessions.contains(node)
    }

    /// Whether a member can be asked for something at that time: it has a session, and answered if somebody
    /// asked whether it is there.
    pub fn is_live(&self, now: Time, node: &NodeId) -> bool {
        self.is_up(node) && self.presence.is_live(now, node)
    }

    /// The same, at the time of the last input.
    pub fn is_live_now(&self, node: &NodeId) -> bool {
        self.is_live(self.now, node)
    }

    /// The time of the last input.
    pub fn now(&self) -> Time {
        self.now
    }

    /// An input came.
    pub fn note_time(&mut self, now: Time) {
        self.now = now;
    }

    /// A session came up.
    pub fn up(&mut self, now: Time, node: NodeId, dialled: Option<String>) {
        let took = self.dialled.get(&node).and_then(|attempt| attempt.since).map(|since| now.since(since));
        if self.sessions.insert(node, self.sessions.get(&node).copied().unwrap_or(now)).is_none() {
            self.changes += 1;
            self.presence.up(now, node, took);
        }
        if let Some(attempt) = self.dialled.get_mut(&node) {
            (attempt.since, attempt.unreached) = (None, false);
            if attempt.far {
                self.outside = Attempt::default();
            }
        }
        if let Some(place) = dialled.and_then(|address| self.places.get_mut(&address)) {
            place.node = Some(node);
        }
    }

    /// The last session with a node ended. After one that lasted it may be dialled again at once. One that did
    /// not counts as a failed dial: a node that has no room closes what it has just accepted.
    pub fn down(&mut self, now: Time, node: &NodeId, rng: &mut fastrand::Rng) {
        let since = self.sessions.remove(node);
        self.changes += u64::from(since.is_some());
        self.presence.down(node);
        let lasted = since.is_some_and(|since| now.since(since) >= SETTLED);
        let of_node = self.places.values_mut().filter(|place| place.node == Some(*node));
        for attempt in of_node.map(|place| &mut place.attempt).chain([attempt_of(&mut self.dialled, node)]) {
            if lasted {
                *attempt = Attempt { far: attempt.far, ..Attempt::default() };
            } else {
                // It can be reached, so nothing speaks for trying it often; a handshake costs 3 KB.
                attempt.fail(now, RETRY_LAST_CONNECTED, rng);
            }
        }
    }

    /// Whether a dial to a node is under way that may yet succeed: it is young, and the one before did not fail.
    pub fn may_come(&self, now: Time, node: &NodeId) -> bool {
        let attempt = self.dialled.get(node).filter(|attempt| !attempt.unreached && !self.is_up(node));
        attempt.and_then(|attempt| attempt.since).is_some_and(|since| now.since(since) < DIAL_YOUNG)
    }

    /// Whether no dial to another site has failed since one of them was connected, nor waits for an answer for
    /// longer than dials take.
    pub fn outside_seems_there(&self, now: Time) -> bool {
        let pending = self.outside.since.is_some_and(|since| now.since(since) >= DIAL_YOUNG);
        self.outside.failures == 0 && !pending
    }

    /// How often in a row a node could not be reached.
    pub fn failures(&self, node: &NodeId) -> u32 {
        self.dialled.get(node).map_or(0, |attempt| attempt.failures)
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
        let last = self.retry_last();
        match target {
            DialTarget::Node(node, _) => {
                let attempt = attempt_of(&mut self.dialled, node);
                attempt.fail(now, last, rng);
                attempt.unreached = true;
                if attempt.far {
                    self.outside.fail(now, last, rng);
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

    /// Whom to dial now, of the places known and the nodes that `find` gives. It is asked for those of this site,
    /// of others, or of both, and not at all where there is room for none: most of the time. A target is not
    /// dialled again before its dial was answered, or a good while passed. Returns when to look again.
    pub fn dial<'a>(
        &mut self,
        now: Time,
        config: &ReplicaConfig,
        connected: Connected,
        find: impl FnOnce(&Self, Sorts, &mut fastrand::Rng) -> Vec<Candidate<'a>>,
        rng: &mut fastrand::Rng,
        out: &mut Vec<Output>,
    ) -> Option<Time> {
        // One that leaves other sites to others of its own is not cut off.
        let keeps_some = Share::far_of(config, connected.share).high > 0;
        self.note_cut(now, connected.far == 0 && keeps_some);
        self.note_company(now);
        let mut room = Room::of(config, connected, &self.outside, now);
        let mut next = self.company_lasts().into_iter().chain(room.far_from).min();
        for (address, place) in &mut self.places {
            let known = |is: &dyn Fn(&NodeId) -> bool| place.node.as_ref().is_some_and(is);
            let connected = known(&|node| self.sessions.contains(node));
            let apart = known(&|node| self.surplus.is_apart(now, node));
            let wanted = !connected && !apart && (!place.fleeting || room.site > 0);
            if wanted && place.attempt.start(now) {
                out.push(Output::Dial { target: DialTarget::Address(address.clone()) });
            }
            if wanted {
                sooner(&mut next, place.attempt.not_before);
            }
        }
        let sorts = Sorts { near: room.site > 0, far: room.far > 0 };
        if !sorts.near && !sorts.far {
            return next;
        }
        let mut candidates = find(self, sorts, rng);
        // Of other sites it is given some, and next time others.
        if candidates.iter().any(|candidate| candidate.far) {
            sooner(&mut next, now);
        }
        candidates.retain(|candidate| {
            let parted = self.surplus.is_apart(now, &candidate.node);
            !self.is_up(&candidate.node) && !parted && !candidate.addresses.is_empty()
        });
        rng.shuffle(&mut candidates);
        for candidate in candidates {
            if !room.has(candidate.far) {
                sooner(&mut next, now);
                continue;
            }
            let attempt = attempt_of(&mut self.dialled, &candidate.node);
            attempt.far = candidate.far;
            let due = attempt.start(now);
            sooner(&mut next, attempt.not_before);
            if due {
                room.take(candidate.far);
                if candidate.far {
                    self.outside.since.get_or_insert(now);
                }
                let target = DialTarget::Node(candidate.node, candidate.addresses.to_vec());
                out.push(Output::Dial { target });
            }
        }
        next
    }

    /// Dials a node that is needed, whatever the bounds on sessions say, unless that was just tried. Where
    /// nobody waits for it, other sites are not tried more often than otherwise. True where it did.
    pub fn dial_needed(
        &mut self,
        now: Time,
        candidate: Candidate<'_>,
        somebody_waits: bool,
        out: &mut Vec<Output>,
    ) -> bool {
        if self.is_up(&candidate.node) || candidate.addresses.is_empty() {
            return false;
        }
        let spares = candidate.far && !somebody_waits && self.outside.failures > 0;
        if spares && self.outside.not_before > now {
            return false;
        }
        let attempt = attempt_of(&mut self.dialled, &candidate.node);
        attempt.far = candidate.far;
        let due = attempt.start(now);
        if due {
            if spares {
                self.outside.start(now);
            }
            if attempt.far {
                self.outside.since.get_or_insert(now);
            }
            let target = DialTarget::Node(candidate.node, candidate.addresses.to_vec());
            out.push(Output::Dial { target });
        }
        due
    }

    /// A site that has lost all others must not wait as long for the next attempt as one that has some.
    fn note_cut(&mut self, now: Time, cut_off: bool) {
        if cut_off && !self.cut_off {
            self.surplus.forget();
            let places = self.places.values_mut().map(|place| &mut place.attempt);
            for attempt in places.chain(self.dialled.values_mut()).chain([&mut self.outside]) {
                attempt.not_before = attempt.not_before.min(now + RETRY_LAST);
            }
        }
        self.cut_off = cut_off;
    }

    /// What a node could not reach while it was alone says nothing about now. A session must last a little
    /// before that: two nodes that hang up at once would have each other's failures forgotten for ever.
    fn note_company(&mut self, now: Time) {
        let lasting = self.sessions.values().any(|since| now.since(*since) >= COMPANY);
        if self.was_alone && lasting {
            self.dialled.clear();
            self.places.values_mut().for_each(|place| place.attempt = Attempt::default());
            self.outside = Attempt::default();
        }
        self.was_alone = !lasting && (self.was_alone || self.sessions.is_empty());
    }

    /// When a session of one that was alone has lasted.
    fn company_lasts(&self) -> Option<Time> {
        self.sessions.values().min().filter(|_| self.was_alone).map(|since| *since + COMPANY)
    }

    /// A node that is alone looks for others more often: nothing else can be done with the link.
    fn retry_last(&self) -> Span {
        match (self.sessions.is_empty(), self.cut_off) {
            (true, _) => RETRY_ALONE,
            (false, true) => RETRY_LAST,
            (false, false) => RETRY_LAST_CONNECTED,
        }
    }
}

/// What is remembered of a node's dials, in a bounded map.
fn attempt_of<'a>(dialled: &'a mut BTreeMap<NodeId, Attempt>, node: &NodeId) -> &'a mut Attempt {
    if dialled.len() >= DIALLED_MAX && !dialled.contains_key(node) {
        dialled.pop_first();
    }
    dialled.entry(*node).or_default()
}

/// How many more dials a round may make.
struct Room {
    site: usize,
    far: usize,
    /// When there is room for other sites, where there is none only because dials failed.
    far_from: Option<Time>,
}

impl Room {
    fn of(config: &ReplicaConfig, connected: Connected, outside: &Attempt, now: Time) -> Self {
        let far_at_once = match (outside.not_before <= now, outside.failures) {
            (false, _) => 0,
            (true, 0) => DIALS_AT_ONCE,
            (true, _) => 1,
        };
        let (near, far) = (Share::near(config, connected.others), Share::far_of(config, connected.share));
        let far_missing = far.low.saturating_sub(connected.far);
        Room {
            site: near.low.saturating_sub(connected.near).min(DIALS_AT_ONCE),
            far: far_missing.min(far_at_once),
            far_from: (far_missing > 0 && outside.not_before > now).then_some(outside.not_before),
        }
    }

    fn has(&self, far: bool) -> bool {
        if far { self.far > 0 } else { self.site > 0 }
    }

    fn take(&mut self, far: bool) {
        let room = if far { &mut self.far } else { &mut self.site };
        *room = room.saturating_sub(1);
    }
}

impl Attempt {
    /// Whether it may be tried now; if so, notes that it is being tried.
    fn start(&mut self, now: Time) -> bool {
        let due = self.not_before <= now;
        if due {
            self.not_before = now + DIAL_UNANSWERED;
            self.since = Some(now);
        }
        due
    }

    fn fail(&mut self, now: Time, last: Span, rng: &mut fastrand::Rng) {
        let span = (RETRY_FIRST.0 << self.failures.min(10)).min(last.0);
        self.not_before = now + Span(span / 2 + rng.u64(0..=span / 2));
        self.failures = self.failures.saturating_add(1);
        self.since = None;
    }
}

/// Addresses kept from the local network.
const DISCOVERED_MAX: usize = 256;
/// Nodes whose failed dials are remembered.
const DIALLED_MAX: usize = 4096;
const DIALS_AT_ONCE: usize = 4;
const DIAL_UNANSWERED: Span = Span::secs(20);
/// While it is this young, a dial may still be answered by whoever is there: a lost packet costs a second, and
/// handshakes over a satellite take two.
const DIAL_YOUNG: Span = Span::secs(3);
const RETRY_FIRST: Span = Span::millis(500);
/// Longest time between attempts while nobody is connected.
const RETRY_ALONE: Span = Span::secs(10);
/// A session of this age is company.
const COMPANY: Span = Span::secs(5);
/// Longest time between attempts while no other site is connected.
const RETRY_LAST: Span = Span::secs(60);
/// And while some are: a dial that is not answered costs about 300 bytes, so 2.5 MB a month at five minutes.
const RETRY_LAST_CONNECTED: Span = Span::secs(300);
/// A session that ends sooner was none.
const SETTLED: Span = Span::secs(60);

#[cfg(test)]
mod tests {
    use alloc::{string::ToString, vec};

    use super::*;

    fn dials_of(
        membership: &mut Membership,
        now: u64,
        connected: Connected,
        candidates: Vec<Candidate<'_>>,
    ) -> Vec<DialTarget> {
        let mut out = Vec::new();
        let mut rng = fastrand::Rng::with_seed(1);
        let find = |_: &Membership, _, _: &mut fastrand::Rng| candidates;
        membership.dial(Time(now), &ReplicaConfig::default(), connected, find, &mut rng, &mut out);
        out.into_iter()
            .map(|output| if let Output::Dial { target } = output { target } else { panic!() })
            .collect()
    }

    fn dials(membership: &mut Membership, now: u64, candidates: Vec<Candidate<'_>>) -> Vec<DialTarget> {
        dials_of(membership, now, Connected::default(), candidates)
    }

    fn candidates(far: bool, count: u16) -> Vec<Candidate<'static>> {
        let addresses: &[String] = vec!["x:1".to_string()].leak();
        let one = |n: u16| Candidate { node: named(n), addresses, far };
        (0..count).map(one).collect()
    }

    fn named(n: u16) -> NodeId {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&n.to_be_bytes());
        NodeId(id)
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
        membership.up(Time(2_000), NodeId([1; 32]), Some(address));
        assert_eq!(dials(&mut membership, 100_000, vec![]), []);
        membership.down(Time(100_000), &NodeId([1; 32]), &mut rng);
        assert_eq!(dials(&mut membership, 100_000, vec![]), [target], "at once, after one that lasted");
    }

    #[test]
    fn sessions_are_bounded() {
        let mut membership = Membership::default();
        assert_eq!(dials(&mut membership, 0, candidates(false, 100)).len(), DIALS_AT_ONCE);
        let full = Connected { near: 16, far: 8, others: 100, share: None };
        assert_eq!(dials_of(&mut membership, 90_000, full, candidates(true, 100)), []);
        assert_eq!(dials_of(&mut membership, 90_000, full, candidates(false, 100)), []);
        membership.discovered("b:1".to_string());
        assert_eq!(dials_of(&mut membership, 90_000, full, vec![]), []);
    }

    #[test]
    fn a_node_that_hangs_up_at_once_is_not_dialled_without_end() {
        let address = "hub:1".to_string();
        let mut membership = Membership::new(core::slice::from_ref(&address));
        let (hub, mut rng) = (named(1), fastrand::Rng::with_seed(1));
        let mut count = 0;
        for now in (0..3_600_000).step_by(100) {
            let addresses = core::slice::from_ref(&address);
            let hub_only = vec![Candidate { node: hub, addresses, far: true }];
            for _ in dials(&mut membership, now, hub_only) {
                count += 1;
                membership.up(Time(now), hub, Some(address.clone()));
                membership.down(Time(now + 50), &hub, &mut rng);
            }
        }
        assert!(count < 150, "{count} dials in an hour");
    }

    #[test]
    fn a_node_that_was_alone_forgets_what_it_could_not_reach() {
        let mut rng = fastrand::Rng::with_seed(1);
        let target = DialTarget::Node(named(0), vec!["x:1".to_string()]);
        let mut membership = Membership::default();
        assert_eq!(dials(&mut membership, 0, candidates(false, 1)), core::slice::from_ref(&target));
        for _ in 0..10 {
            membership.dial_failed(Time(0), &target, &mut rng);
        }
        assert_eq!(dials(&mut membership, 1_000, candidates(false, 1)), []);
        membership.up(Time(1_000), named(2), None);
        assert_eq!(dials(&mut membership, 1_001, candidates(false, 1)), [], "it may hang up at once");
        let lasting = Time(1_000) + COMPANY;
        assert_eq!(dials(&mut membership, lasting.0, candidates(false, 1)), [target]);
    }

    /// As when the node that all join at comes back: they must not all dial in the same second.
    #[test]
    fn a_fleet_that_waits_for_one_node_does_not_dial_it_in_step() {
        let hub = "hub:1".to_string();
        let target = DialTarget::Address(hub.clone());
        let first_after = |seed: u64| {
            let mut membership = Membership::new(core::slice::from_ref(&hub));
            let mut rng = fastrand::Rng::with_seed(seed);
            // All have found it away equally often.
            (0..8).for_each(|_| membership.dial_failed(Time(0), &target, &mut rng));
            (0..60).find(|second| !dials(&mut membership, second * 1_000, vec![]).is_empty())
        };
        let mut by_second = BTreeMap::<u64, usize>::new();
        for seed in 0..100 {
            *by_second.entry(first_after(seed).expect("within a minute")).or_default() += 1;
        }
        assert!(by_second.values().all(|count| *count < 50) && by_second.len() >= 5, "{by_second:?}");
    }

    #[test]
    fn a_thousand_unreachable_sites_do_not_fill_a_thin_link() {
        let (mut membership, mut rng) = (Membership::default(), fastrand::Rng::with_seed(1));
        let hub = Connected { far: 1, ..Connected::default() };
        membership.up(Time(0), NodeId([9; 32]), None);
        let mut count = 0;
        for now in (0..14_400_000).step_by(2_000) {
            for target in dials_of(&mut membership, now, hub, candidates(true, 1000)) {
                count += 1;
                membership.dial_failed(Time(now), &target, &mut rng);
            }
        }
        assert!(count < 100, "{count} dials in four hours");
        // Cut off, the next attempt is not far away.
        membership.down(Time(14_400_000), &NodeId([9; 32]), &mut rng);
        let soon = (14_400_000..14_400_000 + 61_000).step_by(1_000);
        let again = soon.map(|now| dials(&mut membership, now, candidates(true, 1000)).len()).sum::<usize>();
        assert!(again > 0);
    }
}
