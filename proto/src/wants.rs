//! The planner: which ranges of which wanted blobs are fetched from whom, and what happens when that
//! fails. One [`Want`] a blob, however many ask. Which blobs an artifact needs is [`crate::artifacts`]'s
//! business; who holds an artifact is the catalog's.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};
use core::ops::Range;

use crate::{
    config::ReplicaConfig,
    event::{Class, Event, Fault, FetchId, Output, RequestId, WantFailure},
    id::{Digest, Hash, NodeId},
    ranges::Ranges,
    time::{Span, Time},
};

/// Every blob that is being fetched or waited for.
#[derive(Debug, Default)]
pub struct Wants {
    wants: BTreeMap<Hash, Want>,
    flights: BTreeMap<FetchId, Flight>,
    /// Transfers under way from each holder.
    busy: BTreeMap<NodeId, usize>,
    /// Holders that are not asked until then, and how often in a row they failed.
    avoided: BTreeMap<NodeId, Avoided>,
    last_fetch: u64,
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// Not on this node's site.
    pub far: bool,
    /// Who.
    pub node: NodeId,
    /// Where it can be reached.
    pub addresses: Vec<String>,
}

/// What the planner has to know of the world around it.
pub trait Holders {
    /// Members with a session that say to hold a whole artifact, best first.
    fn holders(&self, manifest: &Digest) -> Vec<Holder>;
    /// A member, if it has a session.
    fn member(&self, node: &NodeId) -> Option<Holder>;
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

#[derive(Debug)]
struct Want {
    size: u64,
    digest: Option<Digest>,
    manifests: BTreeSet<Digest>,
    /// Members that said themselves to have it.
    told_by: BTreeSet<NodeId>,
    waiters: BTreeSet<Waiter>,
    stage: Stage,
    /// Verified bytes in the store; unknown until probed.
    have: Ranges,
    since: Time,
    /// When bytes last arrived, or the last client came to wait.
    progressed: Time,
    /// When the last client came to wait.
    asked: Time,
    /// Failed transfers since the last that succeeded.
    failures: u32,
    /// Not fetched before then: this node could not store it.
    not_before: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Probing,
    Fetching,
    Sealing,
}

#[derive(Debug)]
struct Flight {
    hash: Hash,
    from: NodeId,
    range: Range<u64>,
}

#[derive(Debug)]
struct Avoided {
    until: Time,
    failures: u32,
    /// It sent wrong bytes: coming back does not make up for that.
    lied: bool,
}

impl Wants {
    /// Adds a waiter for a blob that is not held.
    pub fn want(&mut self, now: Time, order: Order, out: &mut Vec<Output>) {
        let want = self.wants.entry(order.hash).or_insert_with(|| {
            out.push(Output::Probe { hash: order.hash, size: order.size });
            Want {
                size: order.size,
                digest: None,
                manifests: BTreeSet::new(),
                told_by: BTreeSet::new(),
                waiters: BTreeSet::new(),
                stage: Stage::Probing,
                have: Ranges::new(),
                since: now,
                progressed: now,
                asked: now,
                failures: 0,
                not_before: now,
            }
        });
        want.digest = want.digest.or(order.digest);
        want.manifests.insert(order.manifest);
        want.told_by.extend(order.told_by);
        // One that is repeated starts no new wait.
        if want.waiters.insert(order.waiter) && order.waiter.is_client() {
            (want.asked, want.progressed, want.failures) = (now, now, 0);
            want.tell(order.hash, out);
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
            self.wants.remove(&hash);
            self.cancel_flights(&hash, out);
        }
    }

    /// What of a blob is here already.
    pub fn probed(&mut self, hash: Hash, have: Ranges, out: &mut Vec<Output>) {
        if let Some(want) = self.wants.get_mut(&hash).filter(|want| want.stage == Stage::Probing) {
            want.have = have;
            want.stage = Stage::Fetching;
            want.tell(hash, out);
        }
    }

    /// A range arrived.
    pub fn fetched(&mut self, now: Time, fetch: FetchId, out: &mut Vec<Output>) {
        let Some(flight) = self.land(fetch) else { return };
        self.avoided.remove(&flight.from);
        if let Some(want) = self.wants.get_mut(&flight.hash) {
            want.have.insert(flight.range);
            want.progressed = now;
            want.failures = 0;
            want.tell(flight.hash, out);
        }
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
        match fault {
            Fault::Peer => self.avoid(now, flight.from, RETRY_FIRST, false),
            Fault::Lied => {
                self.avoid(now, flight.from, RETRY_AFTER_LIE, true);
                out.push(Output::Notify(Event::HolderLied { node: flight.from, hash: flight.hash }));
            }
            Fault::Local => {}
        }
        let want = self.wants.get_mut(&flight.hash)?;
        want.failures += 1;
        let others = self.flights.values().any(|other| other.hash == flight.hash);
        // Probing while other ranges arrive would count those as missing and fetch them twice.
        if !others && want.stage == Stage::Fetching {
            want.stage = Stage::Probing;
            out.push(Output::Probe { hash: flight.hash, size: want.size });
        }
        if fault != Fault::Local {
            return None;
        }
        want.not_before = now + RETRY_STORE;
        self.end_requests(flight.hash, WantFailure::Storage("see the node's log".into()), out)
    }

    /// A blob is durable now, from whatever source.
    pub fn sealed(&mut self, hash: Hash, out: &mut Vec<Output>) -> Option<Ended> {
        let want = self.wants.remove(&hash)?;
        self.cancel_flights(&hash, out);
        Some(Ended { hash, waiters: want.waiters, result: Ok(()) })
    }

    /// A blob could not be stored. Closures try again later; clients are told.
    pub fn not_stored(&mut self, now: Time, hash: Hash, why: String, out: &mut Vec<Output>) -> Option<Ended> {
        let want = self.wants.get_mut(&hash)?;
        want.stage = Stage::Probing;
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
        self.avoid(now, node, RETRY_AFTER_LIE, true);
        out.push(Output::Notify(Event::HolderLied { node, hash }));
    }

    /// A peer is back: that it could not be reached before does not count against it.
    pub fn peer_up(&mut self, peer: &NodeId) {
        if self.avoided.get(peer).is_some_and(|avoided| !avoided.lied) {
            self.avoided.remove(peer);
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
        let mut hopeless = Vec::new();
        let urgent = self.wants.iter().filter(|(_, want)| want.is_urgent() && want.stage != Stage::Sealing);
        for (hash, want) in urgent {
            let mut holders = want.holders(world).into_iter();
            // A session may be up in name only for long after a link broke. Whoever has just failed twice is
            // as good as gone, unless bytes have come: then patience is the better answer.
            let begun = !want.have.is_empty() || self.flights.values().any(|flight| flight.hash == *hash);
            let nobody = holders.all(|holder| !begun && self.is_given_up(now, &holder.node));
            let stalled = now.since(want.progressed) >= config.want_patience;
            if nobody && now.since(want.asked) >= config.probe_patience {
                hopeless.push((*hash, WantFailure::NoHolder));
            } else if stalled || want.failures >= FAILURES_MAX {
                hopeless.push((*hash, WantFailure::Stalled));
            }
        }
        hopeless.into_iter().filter_map(|(hash, failure)| self.end_requests(hash, failure, out)).collect()
    }

    /// Starts every transfer that can be started now: clients' wants first, and in order.
    pub fn plan(&mut self, now: Time, config: &ReplicaConfig, world: &impl Holders, out: &mut Vec<Output>) {
        let mut order: Vec<(bool, Time, Hash)> = self
            .wants
            .iter()
            .filter(|(_, want)| want.stage == Stage::Fetching && want.not_before <= now)
            .map(|(hash, want)| (!want.is_urgent(), want.since, *hash))
            .collect();
        order.sort_unstable();
        for (_, _, hash) in order {
            self.plan_one(now, config, world, hash, out);
        }
    }

    /// How many blobs are wanted, and how many transfers are under way.
    pub fn counts(&self) -> (usize, usize) {
        (self.wants.len(), self.flights.len())
    }

    /// The blobs that are wanted.
    pub fn hashes(&self) -> impl Iterator<Item = Hash> + '_ {
        self.wants.keys().copied()
    }

    /// Whether a blob is wanted.
    pub fn contains(&self, hash: &Hash) -> bool {
        self.wants.contains_key(hash)
    }

    fn plan_one(
        &mut self,
        now: Time,
        config: &ReplicaConfig,
        world: &impl Holders,
        hash: Hash,
        out: &mut Vec<Output>,
    ) {
        let Some(want) = self.wants.get_mut(&hash) else { return };
        let mut missing = want.have.missing(want.size);
        if missing.is_empty() {
            want.stage = Stage::Sealing;
            out.push(Output::Seal { hash, size: want.size, digest: want.digest });
            return;
        }
        // Who could send is not looked up for thousands of wants that have to wait anyway.
        if self.flights.len() >= config.fetches_max {
            return;
        }
        let mut lanes: BTreeMap<NodeId, usize> = BTreeMap::new();
        for flight in self.flights.values().filter(|flight| flight.hash == hash) {
            missing.remove(flight.range.clone());
            *lanes.entry(flight.from).or_default() += 1;
        }
        let (size, mut holders) = (want.size, want.holders(world));
        let class = if want.is_urgent() { Class::Client } else { Class::Background };
        holders.retain(|holder| self.avoided.get(&holder.node).is_none_or(|avoided| avoided.until <= now));
        // A copy on this site costs no thin link: others are asked only where there is none.
        if holders.first().is_some_and(|best| !best.far) {
            holders.retain(|holder| !holder.far);
        }
        let piece = piece_size(size, holders.len() * config.lanes);
        while let Some(range) = missing.first() {
            if self.flights.len() >= config.fetches_max {
                return;
            }
            let free = |holder: &&Holder| {
                let of_want = lanes.get(&holder.node).copied().unwrap_or(0);
                let of_holder = self.busy.get(&holder.node).copied().unwrap_or(0);
                of_want < config.lanes && of_holder < HOLDER_TRANSFERS_MAX
            };
            let load = |holder: &&Holder| lanes.get(&holder.node).copied().unwrap_or(0);
            let Some(holder) = holders.iter().filter(free).min_by_key(load).cloned() else { return };
            let range = range.start..range.end.min(align(range.start.saturating_add(piece), size));
            missing.remove(range.clone());
            *lanes.entry(holder.node).or_default() += 1;
            self.launch(hash, size, range, class, holder, out);
        }
    }

    fn launch(
        &mut self,
        hash: Hash,
        size: u64,
        range: Range<u64>,
        class: Class,
        holder: Holder,
        out: &mut Vec<Output>,
    ) {
        self.last_fetch += 1;
        let fetch = FetchId(self.last_fetch);
        *self.busy.entry(holder.node).or_default() += 1;
        self.flights.insert(fetch, Flight { hash, from: holder.node, range: range.clone() });
        let (from, addresses) = (holder.node, holder.addresses);
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
        Some(flight)
    }

    fn cancel_flights(&mut self, hash: &Hash, out: &mut Vec<Output>) {
        let of_blob = self.flights.iter().filter(|(_, flight)| flight.hash == *hash);
        let fetches: Vec<FetchId> = of_blob.map(|(fetch, _)| *fetch).collect();
        for fetch in fetches {
            self.land(fetch);
            out.push(Output::CancelFetch { fetch });
        }
    }

    fn is_given_up(&self, now: Time, node: &NodeId) -> bool {
        self.avoided.get(node).is_some_and(|avoided| avoided.until > now && avoided.failures >= GIVE_UP_AFTER)
    }

    fn avoid(&mut self, now: Time, node: NodeId, first: Span, lied: bool) {
        let avoided = self.avoided.entry(node).or_insert(Avoided { until: now, failures: 0, lied });
        let span = (first.0 << avoided.failures.min(6)).min(RETRY_LAST.0);
        avoided.until = avoided.until.max(now + Span(span));
        avoided.failures += 1;
        avoided.lied |= lied;
    }

    fn end_requests(&mut self, hash: Hash, failure: WantFailure, out: &mut Vec<Output>) -> Option<Ended> {
        let want = self.wants.get_mut(&hash)?;
        let (requests, closures) =
            core::mem::take(&mut want.waiters).into_iter().partition(Waiter::is_client);
        want.waiters = closures;
        if want.waiters.is_empty() {
            self.wants.remove(&hash);
            self.cancel_flights(&hash, out);
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

impl Want {
    fn is_urgent(&self) -> bool {
        self.waiters.iter().any(Waiter::is_client)
    }

    /// Tells clients that read along how far it is.
    fn tell(&self, hash: Hash, out: &mut Vec<Output>) {
        if self.is_urgent() && !self.have.is_empty() {
            out.push(Output::Notify(Event::Arrived { hash, have: self.have.clone() }));
        }
    }

    /// Who could send it, best first.
    fn holders(&self, world: &impl Holders) -> Vec<Holder> {
        let of_artifacts = self.manifests.iter().flat_map(|manifest| world.holders(manifest));
        let told = self.told_by.iter().filter_map(|node| world.member(node));
        let mut holders: Vec<Holder> = of_artifacts.chain(told).collect();
        holders.sort();
        holders.dedup();
        holders
    }
}

/// Big enough that a piece's own cost does not show, small enough that every lane gets several.
fn piece_size(size: u64, lanes: usize) -> u64 {
    (size / (2 * lanes.max(1) as u64)).clamp(PIECE_MIN, PIECE_MAX)
}

/// The next boundary of a verified group at or after `end`, or the blob's end. Swallows a rest that is
/// too small to be worth a request.
fn align(end: u64, size: u64) -> u64 {
    let end = end.div_ceil(GROUP).saturating_mul(GROUP);
    if end.saturating_add(PIECE_MIN / 2) >= size { size } else { end }
}

/// BLAKE3 is verified in groups of this many bytes.
const GROUP: u64 = 16 * 1024;
const PIECE_MIN: u64 = 8 * 1024 * 1024;
const PIECE_MAX: u64 = 64 * 1024 * 1024;
/// Transfers at a time from one holder, over all blobs: many small blobs hide one another's round trips.
const HOLDER_TRANSFERS_MAX: usize = 8;
const RETRY_FIRST: Span = Span::millis(500);
const RETRY_LAST: Span = Span::secs(60);
/// After a blob was deleted while it was fetched.
const RETRY_GONE: Span = Span::millis(250);
/// After the disk refused something.
const RETRY_STORE: Span = Span::secs(30);
/// After this many failures in a row a holder does not count while it is avoided.
const GIVE_UP_AFTER: u32 = 2;
/// A client is told after this many failed transfers in a row: those who say to have it do not.
const FAILURES_MAX: u32 = 6;
const RETRY_AFTER_LIE: Span = Span::secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_absurd_sizes_end_where_the_blob_does() {
        for size in [0, 1, GROUP, PIECE_MIN, u64::MAX - 1, u64::MAX] {
            let start = size / GROUP * GROUP;
            assert_eq!(align(start.saturating_add(piece_size(size, 4)), size), size);
        }
        assert_eq!(align(PIECE_MAX - 1, u64::MAX), PIECE_MAX);
    }
}
