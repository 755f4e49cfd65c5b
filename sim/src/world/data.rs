//! Blobs on their way between hosts: who fetches what from whom, over [`crate::flow`], and how it ends. What arrives
//! is verified in groups of 16 KiB as it comes, as BLAKE3 allows, so a transfer that breaks leaves a good beginning
//! and one from a liar leaves nothing. A holder serves whatever it has verified, whether or not that is all.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use waystation_proto::{
    Digest, FetchId, Hash, Input, NodeId,
    event::{Class, Fault},
};

use super::{Occurrence, World};
use crate::{
    flow::{self, Config, FlowId, Flows, plant::Plant},
    ground::Ground,
    setup::{MILLISECOND, Nanos, SECOND},
};

/// Everything that is on its way.
pub(super) struct Data {
    flows: Flows,
    plant: Plant,
    /// The plant's number of each host, and the other way round.
    node_of: Vec<usize>,
    host_of: Vec<usize>,
    fetches: BTreeMap<(usize, FetchId), Fetch>,
    /// The same, by who sends.
    sent_by: BTreeSet<(usize, usize, FetchId)>,
    by_flow: BTreeMap<FlowId, (usize, FetchId)>,
    /// What has gone bad and was not read since.
    rotten: BTreeSet<(usize, Hash)>,
    /// Bytes that arrived.
    pub(super) bytes: u64,
    /// The same, by the sites that they went from and to.
    between: BTreeMap<(usize, usize), u64>,
    /// The same, by who sent them.
    sent: BTreeMap<usize, u64>,
}

/// One range of one blob on its way.
struct Fetch {
    from: usize,
    hash: Hash,
    range: Range<u64>,
    flow: Option<FlowId>,
    /// What had arrived when that was last looked at, and when it last grew.
    moved: u64,
    grew: Nanos,
    /// Whether what comes is not what was asked for.
    truth: Truth,
}

/// How much of what comes is true.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Truth {
    All,
    /// All but the end.
    Beginning,
    Nothing,
}

impl Data {
    pub(super) fn new(ground: &Ground) -> Self {
        let mut flows = Flows::new(Config::default());
        let plant = Plant::build(&ground.topology, &ground.network, &mut flows);
        let node_of: Vec<usize> =
            ground.places.iter().map(|place| plant.number(*place).unwrap_or_default()).collect();
        let mut host_of = vec![0; plant.nodes()];
        node_of.iter().enumerate().for_each(|(host, node)| host_of[*node] = host);
        Data {
            flows,
            plant,
            node_of,
            host_of,
            fetches: BTreeMap::new(),
            sent_by: BTreeSet::new(),
            by_flow: BTreeMap::new(),
            rotten: BTreeSet::new(),
            bytes: 0,
            between: BTreeMap::new(),
            sent: BTreeMap::new(),
        }
    }

    /// When bytes next have to be looked at.
    pub(super) fn next(&mut self) -> Option<Nanos> {
        if self.fetches.is_empty() { None } else { self.flows.due() }
    }

    /// Bytes that a site's line has carried, out of it and into it.
    pub(super) fn carried(&self, now: Nanos, site: usize) -> (u64, u64) {
        self.plant.carried(now, &self.flows, site)
    }

    /// Bytes that arrived, by the sites that they went from and to; what is under way included.
    pub(super) fn all_between(
        &self,
        now: Nanos,
        site: impl Fn(usize) -> usize,
    ) -> BTreeMap<(usize, usize), u64> {
        let mut all = self.between.clone();
        for ((host, _), fetch) in &self.fetches {
            let moved = self.moved(now, fetch);
            if moved > 0 {
                *all.entry((site(fetch.from), site(*host))).or_default() += moved;
            }
        }
        all.retain(|_, bytes| *bytes > 0);
        all
    }

    /// Bytes that a host sent; what is under way included.
    pub(super) fn sent(&self, now: Nanos, host: usize) -> u64 {
        let under_way = self.fetches.values().filter(|fetch| fetch.from == host);
        let under_way: u64 = under_way.map(|fetch| self.moved(now, fetch)).sum();
        self.sent.get(&host).copied().unwrap_or(0) + under_way
    }

    fn moved(&self, now: Nanos, fetch: &Fetch) -> u64 {
        fetch.flow.map_or(fetch.moved, |flow| self.flows.moved(now, flow))
    }

    /// A site's line has other rates from now on, in bits a second.
    pub(super) fn set_line(&mut self, now: Nanos, site: usize, up: u64, down: u64) {
        self.plant.set_line(now, &mut self.flows, site, up, down);
    }

    /// A blob goes bad where it lies; noticed when it is read.
    pub(super) fn rot(&mut self, host: usize, hash: Hash) {
        self.rotten.insert((host, hash));
    }

    /// Blobs of a host that went bad and were not noticed; they are from now on.
    pub(super) fn rotten(&mut self, host: usize) -> Vec<Hash> {
        let of_host = |(who, hash): &(usize, Hash)| (*who == host).then_some(*hash);
        let rotten: Vec<Hash> = self.rotten.iter().filter_map(of_host).collect();
        self.rotten.retain(|(who, _)| *who != host);
        rotten
    }

    fn remove(&mut self, now: Nanos, host: usize, fetch: FetchId) -> Option<Fetch> {
        let mut removed = self.fetches.remove(&(host, fetch))?;
        self.sent_by.remove(&(removed.from, host, fetch));
        if let Some(flow) = removed.flow.take() {
            self.by_flow.remove(&flow);
            removed.moved = removed.moved.max(self.flows.cancel(now, flow));
        }
        Some(removed)
    }
}

impl World {
    pub(super) fn fetch(
        &mut self,
        host: usize,
        fetch: FetchId,
        from: &NodeId,
        (hash, range): (Hash, Range<u64>),
        class: Class,
    ) {
        let Some(from) = self.number(from) else { return };
        let life = self.hosts[host].life;
        let data = &mut self.data;
        let severed = self.network.is_severed(host, from);
        let mut route = data.plant.route(data.node_of[from], data.node_of[host]);
        route.round_trip = self.network.base_delay(host, from) + self.network.base_delay(from, host);
        let dead = severed || !(self.hosts[from].is_up() || self.upstream.is(from));
        route.cap = dead.then_some(0);
        let class = match class {
            Class::Client => flow::Class::Client,
            Class::Background => flow::Class::Background,
        };
        let flow = data.flows.start(self.now, &route, range.end - range.start, class);
        data.by_flow.insert(flow, (host, fetch));
        data.sent_by.insert((from, host, fetch));
        let started =
            Fetch { from, hash, range, flow: Some(flow), moved: 0, grew: self.now, truth: Truth::All };
        data.fetches.insert((host, fetch), started);
        if !severed {
            let there = self.network.base_delay(host, from);
            self.at(self.now + there, Occurrence::Asked { host, life, fetch });
        }
        self.at(self.now + TELL, Occurrence::Arriving { host, life, fetch });
    }

    /// A request comes to the holder, who gives what it has.
    pub(super) fn asked(&mut self, host: usize, fetch: FetchId) {
        let Some(asked) = self.data.fetches.get_mut(&(host, fetch)) else { return };
        let (from, hash) = (asked.from, asked.hash);
        let back = self.now + self.network.base_delay(from, host);
        let life = self.hosts[host].life;
        if self.data.rotten.remove(&(from, hash)) {
            self.lose(from, hash);
        }
        let serves = self.serves(from);
        let Some(asked) = self.data.fetches.get_mut(&(host, fetch)) else { return };
        let holder = &mut self.hosts[from];
        holder.requests += 1;
        if !serves || !holder.disk.has(&hash, &asked.range) {
            self.data.stop(self.now, host, fetch);
            self.at(back, Occurrence::Broken { host, life, fetch, fault: Fault::Peer });
        } else if holder.lies && holder.lies_every > 1 {
            let lies = holder.requests.is_multiple_of(u64::from(holder.lies_every));
            asked.truth = if lies { Truth::Beginning } else { Truth::All };
        } else if holder.lies {
            asked.truth = Truth::Nothing;
            self.at(back + MILLISECOND, Occurrence::Arriving { host, life, fetch });
        }
    }

    /// A host finds that a blob is not what it was.
    pub(super) fn lose(&mut self, host: usize, hash: Hash) {
        self.taken(host, &[hash]);
        if !self.hosts[host].disk.lose(&hash) {
            return;
        }
        let part_of =
            |artifact: &&crate::content::Artifact| artifact.blobs().into_iter().any(|(blob, _)| blob == hash);
        let artifacts = self.content.artifacts().iter().filter(part_of);
        let manifests: Vec<Digest> = artifacts.map(|artifact| artifact.index.manifest).collect();
        self.completed.retain(|(who, manifest)| *who != host || !manifests.contains(manifest));
        self.answer(host, Input::Lost { hash, manifests });
    }

    /// Looks whether bytes of a fetch came.
    pub(super) fn arriving(&mut self, host: usize, fetch: FetchId) {
        let (now, life) = (self.now, self.hosts[host].life);
        let data = &mut self.data;
        let Some(under_way) = data.fetches.get_mut(&(host, fetch)) else { return };
        let Some(flow) = under_way.flow else { return };
        let moved = data.flows.moved(now, flow);
        let grown = moved > under_way.moved;
        if grown {
            (under_way.moved, under_way.grew) = (moved, now);
        }
        if under_way.truth == Truth::Nothing && moved > 0 {
            self.broken(host, fetch, Fault::Lied);
        } else if now >= under_way.grew + STALL {
            self.broken(host, fetch, Fault::Peer);
        } else {
            let soon = if under_way.truth == Truth::Nothing { 50 * MILLISECOND } else { TELL };
            self.at(now + soon, Occurrence::Arriving { host, life, fetch });
            if grown {
                self.tell(host, Input::Arriving { fetch });
            }
        }
    }

    /// What links carried until now is there.
    pub(super) fn carry_bytes(&mut self) {
        for flow in self.data.flows.advance(self.now) {
            let Some((host, fetch)) = self.data.by_flow.remove(&flow) else { continue };
            let Some(under_way) = self.data.fetches.get_mut(&(host, fetch)) else { continue };
            under_way.flow = None;
            under_way.moved = under_way.range.end - under_way.range.start;
            let fails = if self.healed { 0 } else { self.options.disk_failures };
            if under_way.truth != Truth::All {
                self.broken(host, fetch, Fault::Lied);
            } else if self.hosts[host].disk.fails(fails) {
                self.broken(host, fetch, Fault::Local);
            } else {
                self.occurrences += 1;
                self.finish(host, fetch, true);
                if self.upstream.brings(host, fetch) {
                    self.downloaded(host, fetch);
                } else {
                    self.tell(host, Input::Fetched { fetch });
                }
            }
        }
    }

    /// A fetch ended early.
    pub(super) fn broken(&mut self, host: usize, fetch: FetchId, fault: Fault) {
        if self.data.fetches.contains_key(&(host, fetch)) {
            self.finish(host, fetch, fault != Fault::Local);
            if self.upstream.brings(host, fetch) {
                self.download_broke(host, fetch);
            } else {
                self.tell(host, Input::FetchFailed { fetch, fault });
            }
        }
    }

    /// Takes a fetch off the list. What arrived of it is kept, if it is any good, as far as it was verified.
    fn finish(&mut self, host: usize, fetch: FetchId, good: bool) {
        let Some(ended) = self.data.remove(self.now, host, fetch) else { return };
        let sites = (self.network.site(ended.from), self.network.site(host));
        self.data.bytes += ended.moved;
        *self.data.between.entry(sites).or_default() += ended.moved;
        *self.data.sent.entry(ended.from).or_default() += ended.moved;
        let arrived = ended.range.start + ended.moved;
        let verified = match ended.truth {
            Truth::All if arrived >= ended.range.end => ended.range.end,
            Truth::All => arrived / GROUP * GROUP,
            Truth::Beginning => arrived.saturating_sub(1) / GROUP * GROUP,
            Truth::Nothing => 0,
        };
        if good && verified > ended.range.start {
            self.hosts[host].disk.write(ended.hash, ended.range.start..verified);
        }
    }

    /// The replica does not want it any more.
    pub(super) fn cancel(&mut self, host: usize, fetch: FetchId) {
        self.finish(host, fetch, true);
    }

    /// A client waits for it now.
    pub(super) fn hasten(&mut self, host: usize, fetch: FetchId) {
        let flow = self.data.fetches.get(&(host, fetch)).and_then(|fetch| fetch.flow);
        if let Some(flow) = flow {
            self.data.flows.hasten(self.now, flow);
        }
    }

    /// A host stopped: what it fetched is nobody's business any more, and what others fetched from it ends; at
    /// once where its kernel says so, and otherwise when they have waited long enough.
    pub(super) fn drop_fetches(&mut self, host: usize, silent: bool) {
        self.upstream.stopped(host);
        let of_host = (host, FetchId(0))..=(host, FetchId(u64::MAX));
        let own: Vec<FetchId> = self.data.fetches.range(of_host).map(|((_, fetch), _)| *fetch).collect();
        for fetch in own {
            self.finish(host, fetch, true);
        }
        let from_host = (host, 0, FetchId(0))..=(host, usize::MAX, FetchId(u64::MAX));
        let others: Vec<(usize, FetchId)> =
            self.data.sent_by.range(from_host).map(|(_, to, fetch)| (*to, *fetch)).collect();
        for (to, fetch) in others {
            self.data.stop(self.now, to, fetch);
            let after = if silent { STALL } else { self.network.base_delay(host, to) };
            let life = self.hosts[to].life;
            self.at(self.now + after, Occurrence::Broken { host: to, life, fetch, fault: Fault::Peer });
        }
    }

    /// Some links carry nothing any more, or carry again.
    pub(super) fn links_changed(&mut self) {
        let Data { flows, host_of, .. } = &mut self.data;
        let (network, hosts, upstream) = (&self.network, &self.hosts, &self.upstream);
        flows.set_caps(self.now, |from, to| {
            let (from, to) = (host_of[from as usize], host_of[to as usize]);
            let serves = hosts[from].is_up() || upstream.is(from);
            (network.is_severed(from, to) || !serves).then_some(0)
        });
    }
}

impl Data {
    /// Nothing more comes of a fetch; that is noticed later.
    fn stop(&mut self, now: Nanos, host: usize, fetch: FetchId) {
        let Some(stopped) = self.fetches.get_mut(&(host, fetch)) else { return };
        if let Some(flow) = stopped.flow.take() {
            self.by_flow.remove(&flow);
            stopped.moved = stopped.moved.max(self.flows.cancel(now, flow));
        }
    }
}

/// BLAKE3 is verified in groups of this many bytes.
const GROUP: u64 = 16 * 1024;
/// How often it is told that bytes arrive.
const TELL: Nanos = 400 * MILLISECOND;
/// A transfer that brings nothing for this long is given up.
const STALL: Nanos = 10 * SECOND;
