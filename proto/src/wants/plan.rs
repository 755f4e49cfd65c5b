//! Which bytes are asked of whom now. What a client waits for goes first and in order, the rest by how few have
//! it; a neighbour's copy before one of another site, a piece of one that is itself still fetching before the
//! origin's. How big a request is follows from how fast the holder was.

use alloc::{collections::BTreeMap, vec::Vec};
use core::{cmp::Reverse, ops::Range};

use super::{
    Flight, Holder, Holders, Wants,
    esteem::Esteem,
    sharing::{STRIPE, Shares, mix, number},
    telling::CROWD,
    want::{Stage, Want},
};
use crate::{
    cells::Cells,
    config::{ReplicaConfig, Sharing},
    event::{Class, FetchId, Output},
    id::{Hash, NodeId},
    ranges::Ranges,
    time::{Span, Time},
};

/// Somebody who has all of a blob, or these cells of it.
struct Source<'a> {
    holder: Holder,
    has: Option<&'a Cells>,
    /// Transfers of this blob under way from it, and how many more it may be asked for.
    lanes: usize,
    room: usize,
    rate: Option<u64>,
}

/// One blob's plan.
struct Plan<'a> {
    now: Time,
    want: &'a Want,
    sharing: Sharing,
    sources: Vec<Source<'a>>,
    shares: Shares,
    /// What neighbours have and what they are bringing in: not to be asked of other sites.
    near: Cells,
    /// What other sites that have not got all of it have, or are bringing there.
    elsewhere: Cells,
    /// Nobody has been asked for these bytes.
    open: Ranges,
    /// Transfers that may be started.
    free: usize,
    /// Whether other sites may be asked,
    far: bool,
    /// also for what another node of this site would fetch,
    for_others: bool,
    /// or another site.
    for_other_sites: bool,
    /// Whether more of this site want it than this node hears of.
    crowd: bool,
    /// Whether to ask for little where all of it is.
    carefully: bool,
}

/// A request to be made.
pub(super) struct Piece {
    pub(super) range: Range<u64>,
    pub(super) holder: Holder,
}

/// Transfers from other sites under way.
#[derive(Default)]
struct FarTraffic {
    clients: usize,
    background: usize,
}

impl Wants {
    /// Starts every transfer that can be started now: clients' wants first, and in order.
    pub fn plan(&mut self, now: Time, config: &ReplicaConfig, world: &impl Holders, out: &mut Vec<Output>) {
        self.announce(now, config, world, out);
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
        self.tell(now, config, out);
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
        if want.have.missing(want.size).is_empty() {
            want.stage = Stage::Sealing;
            out.push(Output::Seal { hash, size: want.size, digest: want.digest });
            return;
        }
        // Who could send is not looked up for thousands of wants that have to wait anyway.
        if self.flights.len() >= config.fetches_max {
            return;
        }
        let Some(want) = self.wants.get(&hash) else { return };
        let flights: Vec<(FetchId, Flight)> = self.of_blob(&hash);
        let mut plan = self.plan_for(now, config, world, (hash, want), &flights);
        let mut pieces = plan.pieces();
        if pieces.is_empty() && flights.is_empty() {
            pieces.extend(plan.others_work());
        }
        let slow = plan.slow(&flights, &self.esteem);
        for piece in pieces {
            self.launch(now, hash, piece, false, out);
        }
        for (fetch, piece) in slow {
            if let Some(flight) = self.flights.get_mut(&fetch) {
                flight.doubled = true;
                self.launch(now, hash, piece, true, out);
            }
        }
    }

    fn of_blob(&self, hash: &Hash) -> Vec<(FetchId, Flight)> {
        let of_blob = self.flights.iter().filter(|(_, flight)| flight.hash == *hash);
        of_blob.map(|(fetch, flight)| (*fetch, flight.clone())).collect()
    }

    fn plan_for<'a>(
        &'a self,
        now: Time,
        config: &ReplicaConfig,
        world: &impl Holders,
        (hash, want): (Hash, &'a Want),
        flights: &[(FetchId, Flight)],
    ) -> Plan<'a> {
        let mut lanes: BTreeMap<NodeId, usize> = BTreeMap::new();
        let mut open = want.missing();
        for (_, flight) in flights {
            open.remove(flight.range.clone());
            *lanes.entry(flight.from).or_default() += 1;
        }
        let shared = want.sharers.are_getting();
        let lanes_max = if shared { config.lanes.max(LANES_SHARED) } else { config.lanes };
        // Together a crowd asks for enough, and each part that is asked for is one that others may be asking for too.
        let crowd = want.telling.crowd;
        let begun = want.telling.settled.is_some_and(|at| now.since(at) >= GATHERING);
        let many = crowd && (!begun || want.sharers.neighbours(now) >= CROWD);
        let carefully = many || now < want.telling.settled_far;
        let lanes_first = if carefully { 1 } else { lanes_max };
        let me = world.me();
        // Slots that are full of what nobody waits for would make a client wait.
        let (of_holder, in_all) = match want.class() {
            Class::Client => (HOLDER_TRANSFERS_MAX, config.fetches_max),
            Class::Background => (HOLDER_TRANSFERS_MAX * 3 / 4, config.fetches_max * 3 / 4),
        };
        let sources = sources(want, config.sharing, world).into_iter().filter_map(|(holder, has)| {
            let node = holder.node;
            let busy = self.busy.get(&node).copied().unwrap_or(0);
            let lanes = lanes.get(&node).copied().unwrap_or(0);
            let lanes_max = if holder.far && has.is_none() { lanes_first } else { lanes_max };
            let room = lanes_max.saturating_sub(lanes).min(of_holder.saturating_sub(busy));
            let rate = self.esteem.rate(&node);
            self.esteem.may_be_asked(now, &node).then_some(Source { holder, has, lanes, room, rate })
        });
        let sources: Vec<Source<'_>> = sources.collect();
        let (near, elsewhere) = taken_care_of(now, want, &sources);
        Plan {
            now,
            want,
            sharing: config.sharing,
            shares: want.sharers.shares(now, &hash, &me, world.site(&me), want.progressed),
            near,
            elsewhere,
            sources,
            open,
            free: in_all.saturating_sub(self.flights.len()),
            far: self.may_ask_far(now, want, world),
            for_others: false,
            for_other_sites: false,
            crowd,
            carefully,
        }
    }

    /// What nobody waits for gets one transfer from other sites while something that a client waits for comes
    /// from there.
    fn may_ask_far(&self, now: Time, want: &Want, world: &impl Holders) -> bool {
        let class = want.class();
        let mut far = FarTraffic::default();
        for flight in self.flights.values().filter(|flight| flight.far) {
            *(if flight.class == Class::Client { &mut far.clients } else { &mut far.background }) += 1;
        }
        let gives_way = class == Class::Background && far.clients > 0 && far.background > 0;
        want.is_settled(now) && !gives_way && world.far_allowed(class)
    }
}

/// Everybody who has some of a blob.
fn sources<'a>(want: &'a Want, sharing: Sharing, world: &impl Holders) -> Vec<Having<'a>> {
    let holders = want.possible_holders(world);
    let whole: Vec<Having<'_>> = holders.into_iter().map(|holder| (holder, None)).collect();
    let told = want.sharers.iter().filter(|(_, sharer)| sharing == Sharing::Swarm || !sharer.is_getting());
    let members = told.filter_map(|(node, sharer)| Some((world.member(node)?, sharer.cells())));
    let members: Vec<Having<'_>> =
        members.filter(|(holder, _)| whole.iter().all(|(other, _)| other.node != holder.node)).collect();
    let mut all = whole;
    match sharing {
        Sharing::Origin if all.iter().any(|(holder, _)| holder.far) => {
            all.retain(|(holder, _)| holder.far);
        }
        Sharing::Origin => {}
        Sharing::Swarm | Sharing::SiteCache => all.extend(members),
    }
    all
}

/// What neighbours have or bring in, and what other sites that have not got all of it have or bring to theirs.
fn taken_care_of(now: Time, want: &Want, sources: &[Source<'_>]) -> (Cells, Cells) {
    let mut near = match now.since(want.idle_since.max(want.progressed)) < DISTRUST {
        true => want.sharers.coming(now, &want.grid),
        false => Cells::none(want.grid.count()),
    };
    let mut elsewhere = Cells::none(want.grid.count());
    for Source { holder, has, .. } in sources {
        match (holder.far, has) {
            (false, Some(has)) => near.join(has),
            (false, None) => near = Cells::all(want.grid.count()),
            (true, Some(has)) => elsewhere.join(has),
            (true, None) => {}
        }
        if let Some(brings) = want.sharers.brings(now, &holder.node).filter(|_| holder.far) {
            elsewhere.join(brings);
        }
    }
    (near, elsewhere)
}

/// Somebody, and which cells it has; all where that is nothing.
type Having<'a> = (Holder, Option<&'a Cells>);

impl Plan<'_> {
    /// What this node is to fetch.
    fn pieces(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if !self.has_room() {
            return pieces;
        }
        let open_bytes = self.open.len();
        let cells = self.order();
        if self.far && self.crowd {
            self.far = false;
            self.take(&cells, open_bytes, &mut pieces);
            self.far = true;
            self.take(&self.spread(&cells), open_bytes, &mut pieces);
        } else {
            self.take(&cells, open_bytes, &mut pieces);
        }
        pieces
    }

    fn take(&mut self, cells: &[usize], open_bytes: u64, pieces: &mut Vec<Piece>) {
        for cell in cells {
            while self.free > 0 {
                let Some(piece) = self.piece_at(*cell, open_bytes) else { break };
                pieces.push(piece);
            }
            if !self.has_room() {
                break;
            }
        }
    }

    /// The cells in the order in which a crowd asks other sites: nodes that do not hear of one another begin at
    /// different places, and have heard of what others brought when they come there. Of what is read in order only
    /// some is spread, so that readers do not wait for the end.
    fn spread(&self, cells: &[usize]) -> Vec<usize> {
        let mut cells = cells.to_vec();
        let window = if self.want.is_urgent() { cells.len().min(WINDOW) } else { cells.len() };
        let start = self.shares.start(window);
        if let Some(first) = cells.get_mut(..window) {
            first.rotate_left(start.min(window));
        }
        if !self.want.is_urgent() {
            cells.sort_by_key(|cell| self.want.sharers.copies(*cell));
        }
        cells
    }

    /// Whether anybody may be asked for anything more.
    fn has_room(&self) -> bool {
        self.free > 0 && self.sources.iter().any(|source| source.room > 0)
    }

    /// Something that is another's to fetch, because this node has nothing else to do.
    fn others_work(&mut self) -> Option<Piece> {
        let idle = self.now.since(self.want.idle_since.max(self.want.telling.settled?));
        self.for_others = idle >= IDLE && self.sharing == Sharing::Swarm;
        self.for_other_sites = idle >= IDLE_SITE && self.sharing == Sharing::Swarm;
        if !self.for_others || !self.has_room() {
            return None;
        }
        let count = self.want.grid.count();
        // Not where all others begin, also for what is read in order: somebody else is about to bring that.
        let start = self.shares.start(count);
        let cells = (start..count).chain(0..start);
        let open_bytes = self.open.len();
        cells.into_iter().find_map(|cell| self.piece_at(cell, open_bytes))
    }

    /// The cells in the order in which they are to come.
    fn order(&self) -> Vec<usize> {
        let touched = self.open.iter().flat_map(|range| self.want.grid.touched(&range));
        let mut cells: Vec<usize> = touched.collect();
        cells.dedup();
        if !self.want.is_urgent() && self.want.sharers.are_getting() {
            cells.sort_by_key(|cell| self.want.sharers.copies(*cell));
        }
        cells
    }

    /// A request that begins with what is open of a cell, if somebody may be asked for it.
    fn piece_at(&mut self, cell: usize, open_bytes: u64) -> Option<Piece> {
        let bytes = self.want.grid.bytes(cell..cell + 1);
        let mut range = self.open.within(&bytes)?;
        let at = self.best(cell)?;
        let piece = self.piece_bytes(&self.sources[at], open_bytes);
        let mut next = cell + 1;
        // As far as the same source may be asked for what follows.
        while range.end - range.start < piece && range.end == self.want.grid.bytes(0..next).end {
            let following = self.open.within(&self.want.grid.bytes(next..next + 1));
            let Some(more) = following.filter(|more| more.start == range.end) else { break };
            if !self.may_ask(&self.sources[at], next) {
                break;
            }
            range.end = more.end;
            next += 1;
        }
        self.open.remove(range.clone());
        self.free -= 1;
        let source = &mut self.sources[at];
        source.room -= 1;
        source.lanes += 1;
        Some(Piece { range, holder: source.holder.clone() })
    }

    /// Whom to ask for a cell: near before far, those who have a part before those who have all and are asked by
    /// everybody, this region before others, the least busy, the fastest.
    fn best(&self, cell: usize) -> Option<usize> {
        let sources = self.sources.iter().enumerate();
        let able = sources.filter(|(_, source)| source.room > 0 && self.may_ask(source, cell));
        let best = able.min_by_key(|(_, source)| {
            let spread = mix(number(&source.holder.node.0) ^ cell as u64);
            let whole_far = source.holder.far && source.has.is_none();
            let Holder { far, abroad, .. } = source.holder;
            (far, whole_far, abroad, source.lanes, Reverse(source.rate), spread)
        });
        best.map(|(at, _)| at)
    }

    /// Whether this source has a cell and this node is to fetch it from there.
    fn may_ask(&self, source: &Source<'_>, cell: usize) -> bool {
        if source.has.is_some_and(|has| !has.contains(cell)) {
            return false;
        }
        if self.sharing == Sharing::Origin || !source.holder.far {
            return self.far || !source.holder.far;
        }
        if !self.far || self.near.contains(cell) {
            return false;
        }
        // One cache a site: the same node for the whole blob.
        let of = if self.sharing == Sharing::SiteCache { 0 } else { cell };
        if !self.for_others && !self.shares.is_mine(of) {
            return false;
        }
        if self.sharing != Sharing::Swarm || source.has.is_some() || !self.is_scarce() {
            return true;
        }
        // It has left the origin, or is about to, and can be had there.
        if self.elsewhere.contains(cell) {
            return false;
        }
        self.for_other_sites || self.shares.is_my_sites(cell)
    }

    /// Whether fewer sites have all of it than want it, so that they had better share what they get.
    fn is_scarce(&self) -> bool {
        let whole = self.sources.iter().filter(|source| source.has.is_none() && source.holder.far);
        whole.count() < self.shares.sites()
    }

    /// How big a request to ask for.
    fn piece_bytes(&self, source: &Source<'_>, open_bytes: u64) -> u64 {
        let cell = self.want.grid.cell_bytes();
        let first = if source.holder.far { FIRST_FAR } else { FIRST_NEAR };
        let by_rate = source.rate.map_or(first, |rate| rate.saturating_mul(PIECE.0));
        let lanes: usize = self.sources.iter().map(|source| source.room + source.lanes).sum();
        // Towards the end pieces become small, so that all lanes end together.
        let fair = open_bytes / (2 * lanes.max(1) as u64);
        // What others wait for is to be theirs soon.
        let waited = source.holder.far && (self.shares.has_neighbours() || self.shares.sites() > 1);
        let most = match waited {
            _ if source.holder.far && self.carefully => cell,
            true => cell.saturating_mul(STRIPE as u64),
            false => PIECE_MAX,
        };
        by_rate.min(fair).clamp(cell, most.max(cell))
    }

    /// Transfers that take much longer than they should, and who else could be asked for the same.
    fn slow(&self, flights: &[(FetchId, Flight)], esteem: &Esteem) -> Vec<(FetchId, Piece)> {
        let mut slow = Vec::new();
        for (fetch, flight) in flights.iter().filter(|(_, flight)| !flight.doubled) {
            if slow.len() >= self.free {
                break;
            }
            let bytes = flight.range.end - flight.range.start;
            let is_dead = !esteem.is_sending(self.now, &flight.from, flight.started);
            // A second copy over a thin link costs more than it gains.
            let usual = esteem.rate(&flight.from).filter(|_| !flight.far).map(|rate| bytes / rate.max(1));
            let is_late = usual.is_some_and(|usual| {
                self.now.since(flight.started).0 > usual.saturating_mul(2).saturating_add(LATE.0)
            });
            if !is_dead && !is_late {
                continue;
            }
            let cells = self.want.grid.touched(&flight.range);
            let others = self.sources.iter().filter(|source| {
                let has_all = source.has.is_none_or(|has| cells.clone().all(|cell| has.contains(cell)));
                source.holder.node != flight.from
                    && source.room > 0
                    && has_all
                    && (self.far || !source.holder.far)
            });
            let best = others.min_by_key(|source| (source.holder.far, Reverse(source.rate)));
            if let Some(source) = best {
                let (range, holder) = (flight.range.clone(), source.holder.clone());
                slow.push((*fetch, Piece { range, holder }));
            }
        }
        slow
    }
}

/// How long a request is to take.
const PIECE: Span = Span::millis(500);
const PIECE_MAX: u64 = 64 * 1024 * 1024;
/// The first request to a holder whose speed is not known.
const FIRST_NEAR: u64 = 2 * 1024 * 1024;
const FIRST_FAR: u64 = 512 * 1024;
/// Transfers at a time from one holder of a blob that others get too: pieces are small then, and a round trip is
/// not to be waited for after each.
const LANES_SHARED: usize = 4;
/// Transfers at a time from one holder, over all blobs: many small blobs hide one another's round trips.
const HOLDER_TRANSFERS_MAX: usize = 8;
/// How long after a node of a large site began others may be about to begin with the same.
const GATHERING: Span = Span::millis(500);
/// Cells of what is read in order that a crowd asks other sites for in any order.
const WINDOW: usize = 128;
/// A node that has had nothing to do for this long takes over what is another's of its site,
const IDLE: Span = Span::millis(500);
/// or another site's.
const IDLE_SITE: Span = Span::millis(2_000);
/// A node to which nothing has come for this long does not believe any more that others are bringing it: a
/// neighbour that says so for ever must not keep a site from what it wants.
const DISTRUST: Span = Span::secs(20);
/// A neighbour's transfer is asked for again elsewhere after twice as long as it should take, and this.
const LATE: Span = Span::millis(300);
