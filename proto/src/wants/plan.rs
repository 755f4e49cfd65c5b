//! Which bytes are asked of whom now. What a client waits for goes first and in order (in a large site a part of it is
//! asked for in order), the rest by how few have it; a neighbour's copy before one of another site, a piece of one that is
//! itself still fetching before the origin's. Here is gathered what that goes by, for those wants for which something changed; the choice is in
//! `pieces`.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::cell::OnceCell;

use super::{
    Flight, Holder, Holders, Wants,
    crowd::Turnout,
    pieces::{LATE, Plan, Source},
    sharing::Shares,
    telling::CROWD,
    want::{Stage, Want},
};
use crate::{
    cells::Cells,
    config::{ReplicaConfig, Sharing},
    event::{Class, FetchId, Output},
    id::Hash,
    ranges::Ranges,
    time::{Span, Time},
};

/// Transfers from other sites under way.
#[derive(Default)]
struct FarTraffic {
    clients: usize,
    background: usize,
}

/// Wants for which something has changed that may matter to what is asked of whom.
#[derive(Debug, Default)]
pub(super) struct Stirred {
    all: bool,
    blobs: BTreeSet<Hash>,
    /// What was known of holders and members when all were looked at.
    known: Option<u64>,
}

impl Stirred {
    /// Something about one of them.
    pub(super) fn one(&mut self, hash: Hash) {
        self.blobs.insert(hash);
    }

    /// Something that may matter to each.
    pub(super) fn all(&mut self) {
        self.all = true;
    }
}

impl Wants {
    /// Time has passed, or there is something new that may matter to every want.
    pub fn stir(&mut self) {
        self.stirred.all();
    }

    /// Starts every transfer that can be started now: clients' wants first, and in order. Only wants for which
    /// something changed since the last time are looked at.
    pub fn plan(&mut self, now: Time, config: &ReplicaConfig, world: &impl Holders, out: &mut Vec<Output>) {
        let stirred = self.stirred(world);
        if stirred.is_empty() {
            return;
        }
        self.announce(now, config, world, &stirred, out);
        let wants = stirred.iter().filter_map(|hash| Some((hash, self.wants.get(hash)?)));
        let mut order: Vec<(bool, Time, Hash)> = wants
            .filter(|(_, want)| want.stage == Stage::Fetching && want.not_before <= now)
            .map(|(hash, want)| (!want.is_urgent(), want.since, *hash))
            .collect();
        order.sort_unstable();
        for (_, _, hash) in order {
            self.plan_one(now, config, world, hash, out);
        }
        self.tell(now, config, &stirred, out);
    }

    /// The wants to look at, sorted.
    fn stirred(&mut self, world: &impl Holders) -> Vec<Hash> {
        let Stirred { all, blobs, known } = core::mem::take(&mut self.stirred);
        let now_known = world.changes();
        self.stirred.known = now_known;
        if all || now_known.is_none() || now_known != known {
            return self.wants.keys().copied().collect();
        }
        blobs.into_iter().collect()
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
        if want.have.contains(&(0..want.size)) {
            want.stage = Stage::Sealing;
            out.push(Output::Seal { hash, size: want.size, digest: want.digest });
            // Of those that are left in a large site each may do more.
            if want.crowd.is_some() {
                self.stirred.all();
            }
            return;
        }
        // Who could send is not looked up for thousands of wants that have to wait anyway.
        if self.flights.len() >= config.fetches_max {
            return;
        }
        want.look_up(world);
        want.join_crowd(now, &hash, world);
        want.draw(now, |node| self.busy.contains(node));
        let Some(want) = self.wants.get(&hash) else { return };
        let flights = flights_of(&self.flights, &hash, want);
        if self.is_nothing_to_do(now, want, &flights) {
            return;
        }
        let turnout = self.turnout(now, want);
        if let Some(want) = self.wants.get_mut(&hash)
            && let Some(crowd) = want.crowd.as_mut()
        {
            crowd.rank(turnout, want.grid.count());
        }
        let Some(want) = self.wants.get(&hash) else { return };
        let Some(mut plan) = self.plan_for(now, config, world, (hash, want), (&flights, turnout)) else {
            return;
        };
        let mut pieces = plan.pieces();
        if pieces.is_empty() && flights.is_empty() {
            pieces.extend(plan.others_work());
        }
        let slow = plan.slow(&flights, &self.esteem);
        let stuck = plan.stuck(&flights);
        let noted = plan.occupied.take();
        if let Some((occupied, known)) = noted
            && let Some(crowd) = self.wants.get_mut(&hash).and_then(|want| want.crowd.as_mut())
        {
            crowd.note(now, occupied, known);
        }
        for piece in pieces {
            self.launch(now, hash, piece, world, out);
        }
        self.leave(now, stuck, out);
        for piece in slow {
            self.launch(now, hash, piece, world, out);
        }
    }

    /// Ends transfers that are stuck; what has come of them is kept.
    fn leave(&mut self, now: Time, stuck: Vec<FetchId>, out: &mut Vec<Output>) {
        for fetch in stuck {
            if let Some(flight) = self.land(fetch) {
                let bytes = flight.range.end - flight.range.start;
                self.esteem.took(flight.from, bytes, now.since(flight.started));
                self.doubt(now, &flight, out);
                out.push(Output::CancelFetch { fetch });
            }
        }
    }

    /// Whether a node of a large site gets as much of a blob at a time as it may, has just found nothing to bring in,
    /// and none of that is late: looking at it would change nothing.
    fn is_nothing_to_do(&self, now: Time, want: &Want, flights: &[(FetchId, &Flight)]) -> bool {
        if !want.crowd.as_ref().is_some_and(|crowd| crowd.has_just_looked(now)) {
            return false;
        }
        let (_, free_near) = self.free(want, (self.is_among_many(now, want), true), flights);
        free_near == 0 && flights.iter().all(|(_, flight)| now.since(flight.started) < LATE)
    }

    /// Whether so many neighbours get it too that this node gets it from and for all of them.
    fn is_among_many(&self, now: Time, want: &Want) -> bool {
        let begun = want.telling.settled.is_some_and(|at| now.since(at) >= GATHERING);
        want.telling.crowd && (!begun || want.sharers.neighbours(now) >= CROWD)
    }

    /// What a choice goes by; nothing where there is none to be made: nobody has room for a request, and none is under
    /// way.
    fn plan_for<'a>(
        &'a self,
        now: Time,
        config: &ReplicaConfig,
        world: &impl Holders,
        (hash, want): (Hash, &'a Want),
        (flights, turnout): (&[(FetchId, &Flight)], Turnout),
    ) -> Option<Plan<'a>> {
        let (of_holder, in_all) = slots(want.class(), config);
        let free = in_all.saturating_sub(self.flights.len());
        if flights.is_empty() && free == 0 {
            return None;
        }
        let shared = want.sharers.are_getting();
        let many = self.is_among_many(now, want);
        let carefully = many || now < want.telling.settled_far;
        let (free_far, free_near) = self.free(want, (many, shared), flights);
        let lanes = Lanes {
            most: if shared { config.lanes.max(LANES_SHARED) } else { config.lanes },
            of_holder,
            shared,
            many,
            carefully,
        };
        let sources = self.sources(now, want, config.sharing, (flights, &lanes));
        let has_room = |source: &Source<'_>| {
            source.room > 0 && if source.holder.far { free_far > 0 } else { free_near > 0 }
        };
        let has_room = sources.iter().any(has_room);
        if flights.is_empty() && !has_room {
            return None;
        }
        let mut open = if has_room { want.missing() } else { Ranges::new() };
        flights.iter().for_each(|(_, flight)| open.remove(flight.range.clone()));
        // Where nobody may be asked for anything, nobody's share matters.
        let shares = match free > 0 && sources.iter().any(|source| source.room > 0) {
            true => want.sharers.shares(now, &hash, &world.me(), world.site(&world.me()), want.progressed),
            false => Shares::default(),
        };
        Some(Plan {
            now,
            want,
            sharing: config.sharing,
            sources,
            shares,
            open,
            got: self.got,
            free,
            far: self.may_ask_far(now, want, world),
            free_far,
            free_near,
            many,
            carefully,
            turnout,
            occupied: None,
            cared_for: OnceCell::new(),
        })
    }

    /// Those who may be asked, and for how much; nobody where none of them has room and nothing is under way.
    fn sources<'a>(
        &self,
        now: Time,
        want: &'a Want,
        sharing: Sharing,
        (flights, lanes): (&[(FetchId, &Flight)], &Lanes),
    ) -> Vec<Source<'a>> {
        let busy_with = |holder: &Holder| self.busy.get(&holder.node).copied().unwrap_or(0);
        let all = having(want, sharing);
        // Most of the time they are asked for as much as they may be.
        if flights.is_empty() && all.iter().all(|(holder, _)| busy_with(holder) >= lanes.of_holder) {
            return Vec::new();
        }
        let sources = all.into_iter().filter_map(|(holder, has)| {
            let asked = self.esteem.asked(now, &holder.node);
            // What some neighbour has is not brought in again because that one failed once.
            if asked.is_none() && (has.is_none() || holder.far || self.esteem.is_given_up(now, &holder.node))
            {
                return None;
            }
            let busy = busy_with(&holder);
            // Of whom nothing comes nothing of this comes, which is most of them.
            let begun = match busy {
                0 => 0,
                _ => flights.iter().filter(|(_, flight)| flight.from == holder.node).count(),
            };
            let most = lanes.most_of(want, &holder, has.is_none(), asked.flatten());
            let room = lanes.of_holder.saturating_sub(busy);
            let room = if asked.is_some() { most.saturating_sub(begun).min(room) } else { 0 };
            Some(Source { holder, has, lanes: begun, room, rate: asked.flatten() })
        });
        sources.collect()
    }

    /// Transfers of a blob that may be begun from other sites and from neighbours, beside those under way.
    fn free(
        &self,
        want: &Want,
        (many, shared): (bool, bool),
        flights: &[(FetchId, &Flight)],
    ) -> (usize, usize) {
        if many {
            let far = flights.iter().filter(|(_, flight)| flight.far).count();
            let near = flights.len() - far;
            // The first is to be here soon, so that others can have it.
            let bringing = if want.have.is_empty() { 1 } else { BRINGING };
            let others = self.wants.values().filter(|want| want.is_traded());
            let trading = TRADING.div_ceil(others.count().max(1)).max(TRADING_LEAST);
            return (bringing.saturating_sub(far), trading.saturating_sub(near));
        }
        let far_in_all = || self.flights.values().filter(|flight| flight.far).count();
        (if shared { self.window.size().saturating_sub(far_in_all()) } else { usize::MAX }, usize::MAX)
    }

    /// How many of this node's neighbours take part. Whoever has begun with anything else of late is likely to.
    fn turnout(&self, now: Time, want: &Want) -> Turnout {
        let asked = &want.telling.asked;
        let taking = asked
            .iter()
            .filter(|node| want.sharers.is_getting(now, node) || self.esteem.was_at_work(now, node));
        Turnout { asked: asked.len(), taking: taking.count() }
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

/// How many transfers there may be at a time.
struct Lanes {
    /// Of a blob from one holder, where nothing else is said.
    most: usize,
    /// From one holder, over all blobs.
    of_holder: usize,
    /// Whether others get the blob too,
    shared: bool,
    /// and many neighbours among them.
    many: bool,
    /// Whether to ask for little where all of it is.
    carefully: bool,
}

impl Lanes {
    /// Transfers of a blob at a time from a holder, who has all of it or not, and sends at this rate.
    fn most_of(&self, want: &Want, holder: &Holder, whole: bool, rate: Option<u64>) -> usize {
        match rate {
            _ if holder.far && whole && self.carefully => 1,
            _ if self.many && !holder.far => LANES_TRADED,
            Some(rate) if holder.far && self.shared => {
                lanes_over(want.grid.cell_bytes() / rate.max(1)).min(self.most)
            }
            _ => self.most,
        }
    }
}

/// Transfers at a time from one holder where a cell takes so many milliseconds: what is on its way over a thin line is
/// nobody else's to fetch.
fn lanes_over(took: u64) -> usize {
    match took {
        took if took >= CLAIMED.0 => 1,
        took if took >= CLAIMED.0 / 2 => 2,
        _ => usize::MAX,
    }
}

/// Transfers of one blob that are under way.
fn flights_of<'a>(
    all: &'a BTreeMap<FetchId, Flight>,
    hash: &Hash,
    want: &Want,
) -> Vec<(FetchId, &'a Flight)> {
    if want.flying == 0 {
        return Vec::new();
    }
    let of_blob = all.iter().filter(|(_, flight)| flight.hash == *hash);
    of_blob.map(|(fetch, flight)| (*fetch, flight)).collect()
}

/// How many transfers there may be from a holder, and in all. Slots that are full of what nobody waits for would make a
/// client wait.
fn slots(class: Class, config: &ReplicaConfig) -> (usize, usize) {
    match class {
        Class::Client => (HOLDER_TRANSFERS_MAX, config.fetches_max),
        Class::Background => (HOLDER_TRANSFERS_MAX * 3 / 4, config.fetches_max * 3 / 4),
    }
}

/// Everybody who has some of a blob.
fn having(want: &Want, sharing: Sharing) -> Vec<Having<'_>> {
    let mut all: Vec<Having<'_>> = want.possible_holders().iter().map(|holder| (*holder, None)).collect();
    let told = want.sharers.iter().filter(|(_, sharer)| sharing == Sharing::Swarm || !sharer.is_getting());
    let members = told.filter(|(node, _)| !want.may_have(node));
    match sharing {
        Sharing::Origin if all.iter().any(|(holder, _)| holder.far) => all.retain(|(holder, _)| holder.far),
        Sharing::Origin => {}
        Sharing::Swarm | Sharing::SiteCache => {
            all.extend(members.map(|(_, sharer)| (sharer.holder, sharer.cells())));
        }
    }
    all
}

/// Somebody, and which cells it has; all where that is nothing.
type Having<'a> = (Holder, Option<&'a Cells>);

/// Transfers at a time from one holder of a blob that others get too: pieces are small then, and a round trip is
/// not to be waited for after each.
const LANES_SHARED: usize = 4;
/// And where many neighbours trade: what few have is asked of those by all, and whoever waits for several parts from one
/// of them leaves others idle.
const LANES_TRADED: usize = 1;
/// A cell that takes this long from another site is asked for alone.
const CLAIMED: Span = Span::millis(1_000);
/// Transfers at a time from one holder, over all blobs: many small blobs hide one another's round trips.
const HOLDER_TRANSFERS_MAX: usize = 8;
/// How long after a node of a large site began others may be about to begin with the same.
const GATHERING: Span = Span::millis(500);
/// Transfers at a time from neighbours of a node that gets what many of these get too, over all blobs: more than it has
/// neighbours, so that each sends something. Then whoever serves as many as it asks has its line full both ways.
const TRADING: usize = 32;
/// And of one of several blobs at least.
const TRADING_LEAST: usize = 2;
/// Transfers of one blob at a time that a node of a large site brings in: there are others.
const BRINGING: usize = 2;
