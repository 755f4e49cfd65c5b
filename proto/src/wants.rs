//! Wanted blobs: one [`want::Want`] each, however many ask, from the first question to the end. What is fetched
//! from whom is decided in `plan` and `pieces`, with whom it is shared in `sharing`, `crowd` and `telling`, how much at a
//! time in `window`, and what is thought of holders in `esteem`. Which blobs an artifact needs is [`crate::artifacts`]'s
//! business; who holds an artifact is the catalog's.

mod counts;
mod crowd;
mod esteem;
mod pieces;
mod plan;
mod sharing;
mod telling;
mod want;
mod window;

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};
use core::ops::Range;

use self::{
    esteem::{Esteem, RETRY_LAST, RETRY_LAST_WAITED},
    pieces::Piece,
    plan::Stirred,
    telling::Rounds,
    want::{Stage, Want},
    window::Window,
};
use crate::{
    config::ReplicaConfig,
    event::{Class, Event, Fault, FetchId, Output, RequestId, WantFailure},
    id::{Digest, Hash, NodeId},
    ranges::Ranges,
    row::Row,
    time::{Span, Time},
    wire::Extent,
};

/// Every blob that is being fetched or waited for.
#[derive(Debug, Default)]
pub struct Wants {
    wants: BTreeMap<Hash, Want>,
    flights: BTreeMap<FetchId, Flight>,
    /// Transfers under way from each holder.
    busy: Row<usize>,
    esteem: Esteem,
    window: Window,
    rounds: Rounds,
    /// When a transfer last brought what it was to.
    got: Time,
    last_fetch: u64,
    stirred: Stirred,
}

/// A blob to be wanted.
#[derive(Clone, Debug)]
pub struct Order {
    /// The blob.
    pub hash: Hash,
    /// Its size in bytes.
    pub size: u64,
    /// What clients name it by, where an authority pairs the two.
    pub digest: Option<Digest>,
    /// The artifact whose holders are asked.
    pub manifest: Digest,
    /// A member that said itself to have it.
    pub told_by: Option<NodeId>,
    /// Who is waiting: a client, or an artifact's closure.
    pub waiter: Waiter,
}

/// Who wants a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Waiter {
    /// A client's request for this blob: fetched first, and given up after a while without a sender.
    Request(RequestId),
    /// A client's request for an artifact, of whose head (index and manifest) this blob is one.
    Head(RequestId),
    /// A pull, of content with this digest, that found it at a member.
    Pull(Digest),
    /// A closure in the background: never given up, resumed when a holder comes back.
    Closure(Digest),
}

/// A holder as the planner sees it, best first in the order of the fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// Not on this node's site.
    pub far: bool,
    /// Not in this node's region either.
    pub abroad: bool,
    /// Who.
    pub node: NodeId,
}

/// What the planner has to know of the world around it.
pub trait Holders {
    /// Members that say to hold a whole artifact and are there, as far as is known, best first: what a client
    /// may be promised.
    fn holders(&self, manifest: &Digest) -> Vec<Holder>;
    /// Those with a session, also where it may be up in name only: whom to ask all the same.
    fn with_session(&self, manifest: &Digest) -> Vec<Holder> {
        self.holders(manifest)
    }
    /// A member, if it has a session.
    fn member(&self, node: &NodeId) -> Option<Holder>;
    /// A member, whether it has a session or not; never this node.
    fn known(&self, node: &NodeId) -> Option<Holder> {
        self.member(node)
    }
    /// How many other sites there are, counted up to so many.
    fn other_sites(&self, _most: usize) -> usize {
        0
    }
    /// Where a member can be reached.
    fn addresses(&self, node: &NodeId) -> Vec<String>;
    /// Where this can tell: a number that changes when holders of anything or members do. What was found out about them
    /// is good until then.
    fn changes(&self) -> Option<u64> {
        None
    }
    /// This node.
    fn me(&self) -> NodeId;
    /// Members with a session, and whether they are on another site.
    fn sessions(&self) -> Vec<(NodeId, bool)>;
    /// The nodes of this node's site, itself among them, whether there or not.
    fn site_nodes(&self) -> Vec<NodeId>;
    /// A number that all nodes of a node's site share, and those of others hardly.
    fn site(&self, node: &NodeId) -> u64;
    /// Whether a transfer of this class from another site may be started now.
    fn far_allowed(&self, _class: Class) -> bool {
        true
    }
}

/// How a want ended.
#[derive(Debug)]
pub struct Ended {
    /// Which blob.
    pub hash: Hash,
    /// Who waited.
    pub waiters: BTreeSet<Waiter>,
    /// Whether it is here.
    pub result: Result<(), WantFailure>,
}

/// One transfer of one range.
#[derive(Clone, Debug)]
struct Flight {
    hash: Hash,
    from: NodeId,
    far: bool,
    class: Class,
    range: Range<u64>,
    started: Time,
}

impl Wants {
    /// Adds a waiter for a blob that is not held.
    pub fn want(&mut self, now: Time, order: Order, out: &mut Vec<Output>) {
        let want = self.wants.entry(order.hash).or_insert_with(|| {
            out.push(Output::Probe { hash: order.hash, size: order.size });
            Want::new(now, order.size)
        });
        self.stirred.all();
        if want.add(now, &order, out) {
            // What the background began is the client's now.
            let begun = self.flights.iter_mut().filter(|(_, flight)| flight.hash == order.hash);
            for (fetch, flight) in begun {
                flight.class = Class::Client;
                out.push(Output::Hasten { fetch: *fetch });
            }
        }
    }

    /// A client stopped waiting. Its want goes with it unless others wait.
    pub fn abandon(&mut self, request: RequestId, out: &mut Vec<Output>) {
        self.wants.values_mut().for_each(|want| {
            want.waiters.remove(&Waiter::Request(request));
            want.waiters.remove(&Waiter::Head(request));
        });
        let idle = |want: &Want| want.waiters.is_empty() && want.stage != Stage::Sealing;
        let dropped: Vec<Hash> =
            self.wants.iter().filter(|(_, want)| idle(want)).map(|(hash, _)| *hash).collect();
        for hash in dropped {
            self.drop_want(&hash, &Extent::Dropped, out);
        }
    }

    /// What of a blob is here already.
    pub fn probed(&mut self, hash: Hash, have: &Ranges, out: &mut Vec<Output>) {
        let Some(want) = self.wants.get_mut(&hash).filter(|want| want.stage != Stage::Sealing) else {
            return;
        };
        self.stirred.one(hash);
        want.doubtful = Ranges::new();
        want.stage = Stage::Fetching;
        want.arrived(hash, have, out);
    }

    /// Some of a range arrived.
    pub fn arriving(&mut self, now: Time, fetch: FetchId) {
        let Some(flight) = self.flights.get(&fetch) else { return };
        self.esteem.moved(now, flight.from);
        if let Some(want) = self.wants.get_mut(&flight.hash) {
            want.progressed = now;
        }
    }

    /// A range arrived.
    pub fn fetched(&mut self, now: Time, fetch: FetchId, out: &mut Vec<Output>) {
        let Some(flight) = self.land(fetch) else { return };
        let bytes = flight.range.end - flight.range.start;
        self.esteem.sent(now, flight.from, bytes, now.since(flight.started));
        self.got = now;
        if flight.far {
            self.window.ended(now, flight.started);
        }
        let Some(want) = self.wants.get_mut(&flight.hash) else { return };
        (want.progressed, want.idle_since, want.failures) = (now, now, 0);
        let mut arrived = Ranges::new();
        arrived.insert(flight.range);
        want.arrived(flight.hash, &arrived, out);
        self.rounds.came(want);
        self.cancel_overtaken(now, (flight.hash, flight.started), out);
    }

    /// A range did not arrive whole. What did arrive is found by probing again.
    pub fn failed(
        &mut self,
        now: Time,
        fetch: FetchId,
        fault: Fault,
        out: &mut Vec<Output>,
    ) -> Option<Ended> {
        let flight = self.land(fetch)?;
        let waited_for = self.wants.get(&flight.hash).is_some_and(Want::is_urgent);
        match fault {
            Fault::Peer => {
                let last = if waited_for { RETRY_LAST_WAITED } else { RETRY_LAST };
                self.esteem.failed(now, flight.from, last);
            }
            Fault::Lied => self.lied(now, flight.from, flight.hash, out),
            Fault::Local | Fault::Budget => {}
        }
        let want = self.wants.get_mut(&flight.hash)?;
        match fault {
            // Nobody's failure; a while, so that nothing goes round in circles.
            Fault::Budget => want.not_before = now + RETRY_BUDGET,
            _ => want.failures += 1,
        }
        self.doubt(now, &flight, out);
        if fault != Fault::Local {
            return None;
        }
        let want = self.wants.get_mut(&flight.hash)?;
        want.not_before = now + RETRY_STORE;
        self.end_requests(flight.hash, WantFailure::Storage("see the node's log".into()), out)
    }

    /// A blob is durable now, from whatever source.
    pub fn sealed(&mut self, hash: Hash, out: &mut Vec<Output>) -> Option<Ended> {
        let want = self.drop_want(&hash, &Extent::Whole, out)?;
        Some(Ended { hash, waiters: want.waiters, result: Ok(()) })
    }

    /// A blob could not be stored. Closures try again later; clients are told.
    pub fn not_stored(&mut self, now: Time, hash: Hash, why: String, out: &mut Vec<Output>) -> Option<Ended> {
        self.stirred.one(hash);
        let want = self.wants.get_mut(&hash)?;
        // What was thought to be here may not be.
        want.stage = Stage::Probing;
        want.have = Ranges::new();
        want.not_before = now + RETRY_STORE;
        out.push(Output::Probe { hash, size: want.size });
        self.end_requests(hash, WantFailure::Storage(why), out)
    }

    /// Some of a blob is gone again: it is fetched anew, soon, and not for ever.
    pub fn incomplete(&mut self, now: Time, hash: Hash, out: &mut Vec<Output>) {
        if let Some(want) = self.wants.get_mut(&hash).filter(|want| want.stage == Stage::Sealing) {
            want.failures = want.failures.saturating_add(1);
            want.stage = Stage::Probing;
            want.have = Ranges::new();
            want.not_before = now + Span(RETRY_GONE.0 * u64::from(want.failures.min(FAILURES_MAX)));
            out.push(Output::Probe { hash, size: want.size });
        }
    }

    /// A member said to have content with some digest, and its bytes had another.
    pub fn lied(&mut self, now: Time, node: NodeId, hash: Hash, out: &mut Vec<Output>) {
        self.esteem.lied(now, node);
        self.stirred.all();
        out.push(Output::Notify(Event::HolderLied { node, hash }));
    }

    /// A peer is back: that it could not be reached before does not count against it.
    pub fn peer_up(&mut self, peer: &NodeId) {
        self.esteem.is_back(peer);
        self.stirred.all();
    }

    /// A peer is gone: what it was sending is asked of others at once.
    pub fn peer_down(&mut self, now: Time, peer: &NodeId, out: &mut Vec<Output>) {
        self.stirred.all();
        for want in self.wants.values_mut() {
            want.sharers.forget(peer);
            want.telling.answered(now, peer);
        }
        let of_peer = self.flights.iter().filter(|(_, flight)| flight.from == *peer);
        let fetches: Vec<FetchId> = of_peer.map(|(fetch, _)| *fetch).collect();
        for fetch in fetches {
            out.push(Output::CancelFetch { fetch });
            if let Some(flight) = self.land(fetch) {
                self.doubt(now, &flight, out);
            }
        }
    }

    /// Ends clients' waits that have no prospect.
    pub fn tick(
        &mut self,
        now: Time,
        config: &ReplicaConfig,
        world: &impl Holders,
        out: &mut Vec<Output>,
    ) -> Vec<Ended> {
        self.stirred.all();
        let mut hopeless = Vec::new();
        let urgent = self.wants.iter().filter(|(_, want)| want.is_urgent() && want.stage != Stage::Sealing);
        for (hash, want) in urgent {
            // A session may be up in name only for long after a link broke. Whoever has just failed twice is
            // as good as gone, unless bytes have come: then patience is the better answer. A liar is gone.
            let begun = !want.have.is_empty() || want.flying > 0;
            let is_gone = |node: &NodeId| {
                self.esteem.is_liar(now, node) || (!begun && self.esteem.is_given_up(now, node))
            };
            let there = |node: &NodeId| world.member(node).is_some();
            let barred = !world.far_allowed(Class::Client);
            let may_send = |holder: Holder| !(is_gone(&holder.node) || holder.far && barred);
            // To find out who has all of it takes longest, so that comes last.
            let nobody = || {
                let mut sharers =
                    want.sharers.iter().filter(|(node, sharer)| sharer.is_hearsay || there(node));
                !sharers.any(|(_, sharer)| may_send(sharer.holder)) && !want.has_holder(world, may_send)
            };
            let stalled = now.since(want.progressed) >= config.want_patience;
            if now.since(want.asked) >= config.probe_patience && nobody() {
                hopeless.push((*hash, WantFailure::NoHolder));
            } else if stalled || (want.failures >= FAILURES_MAX && !begun) {
                hopeless.push((*hash, WantFailure::Stalled));
            }
        }
        hopeless.into_iter().filter_map(|(hash, failure)| self.end_requests(hash, failure, out)).collect()
    }

    /// How many blobs are wanted, and how many transfers are under way.
    pub fn counts(&self) -> (usize, usize) {
        (self.wants.len(), self.flights.len())
    }

    /// Who is not asked for how much longer, because it failed.
    pub fn avoided(&self, now: Time) -> impl Iterator<Item = (NodeId, Span)> + '_ {
        self.esteem.avoided(now)
    }

    /// The blobs that are wanted.
    pub fn hashes(&self) -> impl Iterator<Item = Hash> + '_ {
        self.wants.keys().copied()
    }

    /// Whether a blob is wanted.
    pub fn contains(&self, hash: &Hash) -> bool {
        self.wants.contains_key(hash)
    }

    fn launch(&mut self, now: Time, hash: Hash, piece: Piece, world: &impl Holders, out: &mut Vec<Output>) {
        let Some(want) = self.wants.get_mut(&hash) else { return };
        self.last_fetch += 1;
        let (fetch, size, class) = (FetchId(self.last_fetch), want.size, want.class());
        let Piece { range, holder: Holder { far, node: from, .. } } = piece;
        want.telling.news |= far;
        want.telling.news_far |= far;
        want.flying += 1;
        *self.busy.get_or_insert_with(from, || 0) += 1;
        let flight = Flight { hash, from, far, class, range: range.clone(), started: now };
        self.flights.insert(fetch, flight);
        let addresses = world.addresses(&from);
        out.push(Output::Fetch { fetch, from, addresses, hash, size, range, class });
    }

    fn land(&mut self, fetch: FetchId) -> Option<Flight> {
        let flight = self.flights.remove(&fetch)?;
        if let Some(busy) = self.busy.get_mut(&flight.from) {
            *busy -= 1;
            if *busy == 0 {
                self.busy.remove(&flight.from);
            }
        }
        if let Some(want) = self.wants.get_mut(&flight.hash) {
            want.flying = want.flying.saturating_sub(1);
        }
        self.stirred.all();
        Some(flight)
    }

    /// A transfer broke: what of it is here has to be asked of the store.
    fn doubt(&mut self, now: Time, flight: &Flight, out: &mut Vec<Output>) {
        let Some(want) = self.wants.get_mut(&flight.hash) else { return };
        want.idle_since = now;
        if want.stage == Stage::Fetching {
            if want.doubtful.is_empty() {
                out.push(Output::Probe { hash: flight.hash, size: want.size });
            }
            want.doubtful.insert(flight.range.clone());
        }
    }

    /// Stops transfers of what came from elsewhere in the meantime, by one that was begun then. Whoever began
    /// earlier was slow.
    fn cancel_overtaken(&mut self, now: Time, (hash, begun): (Hash, Time), out: &mut Vec<Output>) {
        let Some(want) = self.wants.get(&hash) else { return };
        let of_blob = self.flights.iter().filter(|(_, flight)| flight.hash == hash);
        let overtaken = of_blob.filter(|(_, flight)| want.have.contains(&flight.range));
        let fetches: Vec<FetchId> = overtaken.map(|(fetch, _)| *fetch).collect();
        for fetch in fetches {
            if let Some(flight) = self.land(fetch).filter(|flight| flight.started < begun) {
                self.esteem.failed(now, flight.from, RETRY_LAST_WAITED);
            }
            out.push(Output::CancelFetch { fetch });
        }
    }

    /// Takes a want out, with all that is under way for it.
    fn drop_want(&mut self, hash: &Hash, extent: &Extent, out: &mut Vec<Output>) -> Option<Want> {
        let want = self.wants.remove(hash)?;
        self.stirred.all();
        let of_blob = self.flights.iter().filter(|(_, flight)| flight.hash == *hash);
        let fetches: Vec<FetchId> = of_blob.map(|(fetch, _)| *fetch).collect();
        for fetch in fetches {
            self.land(fetch);
            out.push(Output::CancelFetch { fetch });
        }
        Wants::part(*hash, &want, extent, out);
        Some(want)
    }

    fn end_requests(&mut self, hash: Hash, failure: WantFailure, out: &mut Vec<Output>) -> Option<Ended> {
        let want = self.wants.get_mut(&hash)?;
        let (requests, closures) =
            core::mem::take(&mut want.waiters).into_iter().partition(Waiter::is_client);
        want.waiters = closures;
        if want.waiters.is_empty() {
            self.drop_want(&hash, &Extent::Dropped, out);
        }
        let requests: BTreeSet<Waiter> = requests;
        (!requests.is_empty()).then_some(Ended { hash, waiters: requests, result: Err(failure) })
    }
}

impl Waiter {
    fn is_client(&self) -> bool {
        !matches!(self, Waiter::Closure(_))
    }
}

/// After a blob was deleted while it was fetched.
const RETRY_GONE: Span = Span::millis(250);
/// After this node's budget ended a fetch.
const RETRY_BUDGET: Span = Span::secs(1);
/// After the disk refused something.
const RETRY_STORE: Span = Span::secs(30);
/// A client is told after this many failed transfers in a row, if nothing ever came: those who say to have it do
/// not.
const FAILURES_MAX: u32 = 6;
