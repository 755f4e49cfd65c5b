//! What is asked for next of one blob, and of whom: in which order its parts come, which of them are this node's to
//! fetch, and how big a request is. What it goes by is gathered in `plan`.

use alloc::vec::Vec;
use core::{cell::OnceCell, cmp::Reverse, ops::Range};

use super::{
    Flight, Holder,
    crowd::Turnout,
    esteem::Esteem,
    sharing::{DISTRUST, STRIPE, Shares, mix, number},
    want::Want,
};
use crate::{
    cells::Cells,
    config::Sharing,
    event::FetchId,
    ranges::Ranges,
    time::{Span, Time},
};

/// Somebody who has all of a blob, or these cells of it.
pub(super) struct Source<'a> {
    pub(super) holder: Holder,
    pub(super) has: Option<&'a Cells>,
    /// Transfers of this blob under way from it, and how many more it may be asked for.
    pub(super) lanes: usize,
    pub(super) room: usize,
    pub(super) rate: Option<u64>,
}

/// One blob's plan.
pub(super) struct Plan<'a> {
    pub(super) now: Time,
    pub(super) want: &'a Want,
    pub(super) sharing: Sharing,
    pub(super) sources: Vec<Source<'a>>,
    pub(super) shares: Shares,
    /// Nobody has been asked for these bytes.
    pub(super) open: Ranges,
    /// When a transfer of anything last brought what it was to.
    pub(super) got: Time,
    /// Transfers that may be started.
    pub(super) free: usize,
    /// Whether other sites may be asked.
    pub(super) far: bool,
    /// And of those from other sites,
    pub(super) free_far: usize,
    /// and from neighbours.
    pub(super) free_near: usize,
    /// Whether many neighbours get it too.
    pub(super) many: bool,
    /// Whether to ask for little where all of it is.
    pub(super) carefully: bool,
    /// How many neighbours take part, in a large site.
    pub(super) turnout: Turnout,
    /// Whether there was something for it to bring in, once that was looked for, and how many cells are in the site or
    /// on their way.
    pub(super) occupied: Option<(bool, usize)>,
    /// What others have or bring, once that was looked for.
    pub(super) cared_for: OnceCell<(Cells, Cells)>,
}

/// A request to be made.
pub(super) struct Piece {
    pub(super) range: Range<u64>,
    pub(super) holder: Holder,
}

/// What may be asked for.
struct Reach {
    /// Of neighbours,
    near: Cells,
    /// of those of other sites that have some of it,
    far: Cells,
    /// and of those that have all of it.
    whole_far: Cells,
    /// Of these, what another site comes before this one for.
    taken_over: Cells,
}

/// Cells by how soon they are to come: found one by one, because few are taken at a time.
struct FirstFirst {
    places: Vec<(usize, usize)>,
    taken: usize,
}

/// Whose work this node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Own,
    /// Also what another node of this site would fetch,
    Neighbours,
    /// or another site.
    OtherSites,
}

impl Plan<'_> {
    /// What this node is to fetch.
    pub(super) fn pieces(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if !self.has_room() {
            return pieces;
        }
        let open_bytes = self.open.len();
        let mut reach = self.reach(Work::Own);
        if self.want.crowd.is_some() {
            self.bring(&mut reach, open_bytes, &mut pieces);
        }
        if self.many {
            self.trade(&reach, open_bytes, &mut pieces);
            return pieces;
        }
        let cells = self.in_order(&reach);
        self.take(&reach, cells.into_iter(), open_bytes, &mut pieces);
        pieces
    }

    /// In a crowd what others wait for comes before what they have.
    fn bring(&mut self, reach: &mut Reach, open_bytes: u64, pieces: &mut Vec<Piece>) {
        let none = self.no_cells();
        let [far, whole_far] =
            [&mut reach.far, &mut reach.whole_far].map(|cells| core::mem::replace(cells, none.clone()));
        let taken_over = reach.taken_over.clone();
        let outside = Reach { near: none, far, whole_far, taken_over };
        if self.far && self.free_far > 0 {
            let occupied = !(outside.far.is_empty() && outside.whole_far.is_empty());
            self.occupied = Some((occupied, self.cared_for().0.len()));
        }
        let first = |cell| self.want.crowd.as_ref().map_or(0, |crowd| crowd.before(cell));
        let cells = FirstFirst::of(self.able(&outside).iter().map(|cell| (first(cell), cell)));
        self.take(&outside, cells, open_bytes, pieces);
    }

    /// Where many neighbours get it too, each of them that sends nothing is asked for what fewest have of what it has.
    /// Whoever asked for the rarest first would ask those few who have it, as all others do, and leave the rest idle.
    fn trade(&mut self, reach: &Reach, open_bytes: u64, pieces: &mut Vec<Piece>) {
        let copies = self.want.sharers.copies_near(&self.want.grid);
        let turns = self.turns();
        let neighbours = self.want.telling.asked.len().max(1) as u64;
        let near = self.sources.iter().enumerate().filter(|(_, source)| !source.holder.far);
        let mut order: Vec<(u64, usize)> =
            near.map(|(at, source)| (self.shares.with(&source.holder.node), at)).collect();
        order.sort_unstable();
        for (place, (with, at)) in order.into_iter().enumerate() {
            let source = &self.sources[at];
            if self.free == 0 || !self.has_room_for(source) {
                continue;
            }
            let can_come = |cell: &usize| {
                reach.may_ask(source, *cell)
                    && self.open.within(&self.want.grid.bytes(*cell..*cell + 1)).is_some()
            };
            let is_its_turn = |cell: &usize| {
                let turn = mix(with ^ mix(*cell as u64)) % neighbours;
                turn < turns.saturating_mul(copies.of(*cell).max(1) as u64)
            };
            let in_order = self.want.is_urgent() && place % IN_ORDER == 0;
            let how_soon = |cell: &usize| {
                let first = if in_order { *cell } else { usize::MAX };
                (first, copies.of(*cell), self.shares.chance(*cell))
            };
            let cells = reach.near.iter().filter(|cell| can_come(cell) && is_its_turn(cell));
            let first = cells.min_by_key(how_soon);
            pieces.extend(first.and_then(|cell| self.piece_from(at, reach, cell, open_bytes)));
        }
    }

    /// How many of its neighbours ask whoever has a part for it at a time. At first that is all that it has for any of
    /// them: if all asked at once, nobody would have it until all have.
    fn turns(&self) -> u64 {
        let want = self.want;
        match want.have.len() < AT_FIRST * want.grid.cell_bytes() {
            true => TURNS + self.now.since(want.sharers.latest(want.progressed)).0 / TURN.0 * TURNS,
            false => u64::MAX,
        }
    }

    /// Something that is another's to fetch, because this node has nothing else to do.
    pub(super) fn others_work(&mut self) -> Option<Piece> {
        let idle = self.now.since(self.want.idle_since.max(self.want.telling.settled?));
        if idle < IDLE || self.sharing != Sharing::Swarm || !self.has_room() {
            return None;
        }
        let reach = self.reach(if idle < IDLE_SITE { Work::Neighbours } else { Work::OtherSites });
        let able = self.able(&reach);
        // Not where all others begin, also for what is read in order: somebody else is about to bring that.
        let start = self.shares.start(self.want.grid.count());
        let cell = able.iter().find(|cell| *cell >= start).or_else(|| able.iter().next())?;
        self.piece_at(&reach, cell, self.open.len())
    }

    fn take(
        &mut self,
        reach: &Reach,
        cells: impl Iterator<Item = usize>,
        open_bytes: u64,
        pieces: &mut Vec<Piece>,
    ) {
        for cell in cells {
            if !self.has_room() {
                break;
            }
            while self.free > 0 {
                let Some(piece) = self.piece_at(reach, cell, open_bytes) else { break };
                pieces.push(piece);
            }
        }
    }

    /// The cells that somebody may be asked for, in the order in which they are to come.
    fn in_order(&self, reach: &Reach) -> FirstFirst {
        let able = self.able(reach);
        let sharers = &self.want.sharers;
        if !self.want.is_urgent() && sharers.are_getting() {
            let copies = sharers.copies(&self.want.grid);
            FirstFirst::of(able.iter().map(|cell| (copies.of(cell), cell)))
        } else if !reach.taken_over.is_empty() {
            // From the other end than those that come before this site, so that both meet once.
            let turned = |cell| if reach.taken_over.contains(cell) { usize::MAX - cell } else { cell };
            FirstFirst::of(able.iter().map(|cell| (turned(cell), cell)))
        } else {
            FirstFirst::of(able.iter().map(|cell| (0, cell)))
        }
    }

    /// Whether anybody may be asked for anything more.
    fn has_room(&self) -> bool {
        self.free > 0 && self.sources.iter().any(|source| self.has_room_for(source))
    }

    fn has_room_for(&self, source: &Source<'_>) -> bool {
        source.room > 0 && if source.holder.far { self.free_far > 0 } else { self.free_near > 0 }
    }

    fn no_cells(&self) -> Cells {
        Cells::none(self.want.grid.count())
    }

    /// What may be asked for of whom.
    fn reach(&self, work: Work) -> Reach {
        let near = self.want.grid.touching(&self.open);
        let none = || self.no_cells();
        if !self.far || !self.sources.iter().any(|source| source.holder.far && self.has_room_for(source)) {
            return Reach { near, far: none(), whole_far: none(), taken_over: none() };
        }
        if self.sharing == Sharing::Origin {
            return Reach { far: near.clone(), whole_far: near.clone(), near, taken_over: none() };
        }
        let mut far = near.clone();
        let (here, elsewhere) = self.cared_for();
        far.remove_all(here);
        far = match (work, self.sharing) {
            (Work::Own, Sharing::Swarm) => match &self.want.crowd {
                Some(crowd) => crowd.mine(self.turnout, &far, &self.shares),
                None => self.shares.mine(&far),
            },
            // One cache a site: the same node for the whole blob.
            (Work::Own, _) if !self.shares.is_mine(0) => none(),
            _ => far,
        };
        let (mut whole_far, mut taken_over) = (far.clone(), none());
        if self.sharing == Sharing::Swarm && self.is_scarce() {
            // It has left the origin, or is about to, and can be had there.
            whole_far.remove_all(elsewhere);
            if work != Work::OtherSites {
                let others = whole_far.clone();
                whole_far = self.shares.my_sites(&others, 0);
                if self.want.reach > 0 {
                    taken_over = self.shares.my_sites(&others, self.want.reach);
                    taken_over.remove_all(&whole_far);
                    whole_far.join(&taken_over);
                }
            }
        }
        Reach { near, far, whole_far, taken_over }
    }

    /// What neighbours have or bring in, and what other sites that have not got all of it have or bring to theirs.
    fn cared_for(&self) -> &(Cells, Cells) {
        self.cared_for.get_or_init(|| self.find_cared_for())
    }

    fn find_cared_for(&self) -> (Cells, Cells) {
        let want = self.want;
        let mut near = match self.now.since(want.idle_since.max(want.progressed)) < DISTRUST {
            true => want.sharers.coming(self.now, &want.grid, want.progressed),
            false => self.no_cells(),
        };
        let mut elsewhere = self.no_cells();
        let origin = self.rate_of_whole();
        for source in self.sources.iter().filter(|source| !source.is_slow(origin)) {
            let Source { holder, has, .. } = source;
            match (holder.far, has) {
                (false, Some(has)) => near.join(has),
                (false, None) => near = Cells::all(want.grid.count()),
                (true, Some(has)) => elsewhere.join(has),
                (true, None) => {}
            }
            // Sites that get it from a slow one are no help to each other.
            let stands_still = want.reach >= self.shares.sites() && self.now.since(self.got) >= STANDS_STILL;
            let believed = holder.far && !stands_still;
            if let Some(brings) = want.sharers.brings(self.now, &holder.node).filter(|_| believed) {
                elsewhere.join(brings);
            }
        }
        (near, elsewhere)
    }

    /// Whether fewer sites have all of it than want it, so that they had better share what they get.
    fn is_scarce(&self) -> bool {
        let whole = self.sources.iter().filter(|source| source.has.is_none() && source.holder.far);
        whole.count() < self.shares.sites()
    }

    /// The cells that somebody may be asked for.
    fn able(&self, reach: &Reach) -> Cells {
        let mut able = self.no_cells();
        for source in self.sources.iter().filter(|source| self.has_room_for(source)) {
            match source.has {
                Some(has) => able.join_common(has, reach.of(source)),
                None => able.join(reach.of(source)),
            }
        }
        able
    }

    /// A request that begins with what is open of a cell, if somebody may be asked for it.
    fn piece_at(&mut self, reach: &Reach, cell: usize, open_bytes: u64) -> Option<Piece> {
        let at = self.best(reach, cell)?;
        self.piece_from(at, reach, cell, open_bytes)
    }

    /// The same of this source.
    fn piece_from(&mut self, at: usize, reach: &Reach, cell: usize, open_bytes: u64) -> Option<Piece> {
        let mut range = self.open.within(&self.want.grid.bytes(cell..cell + 1))?;
        let piece = self.piece_bytes(&self.sources[at], open_bytes);
        let mut next = cell + 1;
        // As far as the same source may be asked for what follows.
        while range.end - range.start < piece && range.end == self.want.grid.bytes(0..next).end {
            let following = self.open.within(&self.want.grid.bytes(next..next + 1));
            let Some(more) = following.filter(|more| more.start == range.end) else { break };
            if !reach.may_ask(&self.sources[at], next) {
                break;
            }
            range.end = more.end;
            next += 1;
        }
        self.open.remove(range.clone());
        self.free -= 1;
        let of_sort = if self.sources[at].holder.far { &mut self.free_far } else { &mut self.free_near };
        *of_sort = of_sort.saturating_sub(1);
        let source = &mut self.sources[at];
        source.room -= 1;
        source.lanes += 1;
        Some(Piece { range, holder: source.holder })
    }

    /// Whom to ask for a cell: near before far, those who have a part before those who have all and are asked by
    /// everybody, this region before others, the least busy, the fastest.
    fn best(&self, reach: &Reach, cell: usize) -> Option<usize> {
        let sources = self.sources.iter().enumerate();
        let able = sources.filter(|(_, source)| self.has_room_for(source) && reach.may_ask(source, cell));
        let origin = self.rate_of_whole();
        let best = able.min_by_key(|(_, source)| {
            let spread = mix(number(&source.holder.node.0) ^ cell as u64);
            let whole_far = source.holder.far && source.has.is_none();
            let Holder { far, abroad, .. } = source.holder;
            (far, source.is_slow(origin), whole_far, abroad, source.lanes, Reverse(source.rate), spread)
        });
        best.map(|(at, _)| at)
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
            _ if self.many || (source.holder.far && self.carefully) => cell,
            true => cell.saturating_mul(STRIPE as u64),
            false => PIECE_MAX,
        };
        by_rate.min(fair).clamp(cell, most.max(cell))
    }

    /// Transfers from sites that have some of it and take much longer than from where all of it is.
    pub(super) fn stuck(&self, flights: &[(FetchId, &Flight)]) -> Vec<FetchId> {
        let stuck = flights.iter().filter(|(_, flight)| flight.far && self.is_stuck(flight));
        stuck.map(|(fetch, _)| *fetch).collect()
    }

    fn is_stuck(&self, flight: &Flight) -> bool {
        self.stuck_from(flight).is_some_and(|at| self.now >= at)
    }

    /// When that is, for a transfer that may get stuck.
    pub(super) fn stuck_from(&self, flight: &Flight) -> Option<Time> {
        let is_of_part = self.whole_far().all(|source| source.holder.node != flight.from);
        self.rate_of_whole().filter(|_| flight.far && is_of_part).map(|rate| twice(flight, rate, STUCK))
    }

    /// Those of other sites that have all of it.
    fn whole_far(&self) -> impl Iterator<Item = &Source<'_>> {
        self.sources.iter().filter(|source| source.holder.far && source.has.is_none())
    }

    /// The rate of the fastest of them.
    fn rate_of_whole(&self) -> Option<u64> {
        self.whole_far().filter_map(|source| source.rate).max()
    }

    /// What of transfers that take much longer than they should is to be asked of somebody else too: of one other at a
    /// time, and of a third where that one, or the first, is gone.
    pub(super) fn slow(&self, flights: &[(FetchId, &Flight)], esteem: &Esteem) -> Vec<Piece> {
        let mut slow = Vec::new();
        let is_alone = |fetch: &FetchId, range: &Range<u64>| {
            let common = |other: &Range<u64>| other.start < range.end && range.start < other.end;
            !flights.iter().any(|(other, flight)| other != fetch && common(&flight.range))
        };
        for (fetch, flight) in flights {
            if slow.len() >= self.free {
                break;
            }
            let is_dead = !esteem.is_sending(self.now, &flight.from, flight.started);
            let is_late = late_from(flight, esteem).is_some_and(|at| self.now >= at);
            if !(is_dead || is_late) || !is_alone(fetch, &flight.range) {
                continue;
            }
            let cells = self.want.grid.touched(&flight.range);
            // What is late in a large site is there all the same: at worst its neighbours send it.
            let far_too = self.far && (is_dead || !self.many);
            let others = self.sources.iter().filter(|source| {
                let has_all = source.has.is_none_or(|has| cells.clone().all(|cell| has.contains(cell)));
                source.holder.node != flight.from
                    && source.room > 0
                    && has_all
                    && (far_too || !source.holder.far)
            });
            let best = others.min_by_key(|source| (source.holder.far, Reverse(source.rate)));
            if let Some(source) = best {
                let range = flight.range.clone();
                slow.push(Piece { range, holder: source.holder });
            }
        }
        slow
    }
}

/// When a transfer is late, if it can be: a second copy over a thin link costs more than it gains.
pub(super) fn late_from(flight: &Flight, esteem: &Esteem) -> Option<Time> {
    esteem.rate(&flight.from).filter(|_| !flight.far).map(|rate| twice(flight, rate, LATE))
}

/// The first moment at which a transfer has taken more than twice as long as at this rate, and `more`.
fn twice(flight: &Flight, rate: u64, more: Span) -> Time {
    let usual = (flight.range.end - flight.range.start) / rate.max(1);
    flight.started + Span(usual.saturating_mul(2).saturating_add(more.0).saturating_add(1))
}

impl FirstFirst {
    fn of(places: impl Iterator<Item = (usize, usize)>) -> Self {
        FirstFirst { places: places.collect(), taken: 0 }
    }
}

impl Iterator for FirstFirst {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.taken += 1;
        if self.taken == FEW {
            self.places.sort_unstable_by(|one, other| other.cmp(one));
        }
        if self.taken >= FEW {
            return self.places.pop().map(|place| place.1);
        }
        let first = self.places.iter().enumerate().min_by_key(|(_, place)| **place)?.0;
        Some(self.places.swap_remove(first).1)
    }
}

impl Source<'_> {
    /// Whether it has a part only, on another site, and is slow beside whoever has all of it.
    fn is_slow(&self, origin: Option<u64>) -> bool {
        let rates = self.rate.zip(origin).filter(|_| self.holder.far && self.has.is_some());
        rates.is_some_and(|(rate, origin)| rate.saturating_mul(MUCH) < origin)
    }
}

impl Reach {
    fn of(&self, source: &Source<'_>) -> &Cells {
        match (source.holder.far, source.has) {
            (false, _) => &self.near,
            (true, Some(_)) => &self.far,
            (true, None) => &self.whole_far,
        }
    }

    /// Whether this source has a cell and this node is to fetch it from there.
    fn may_ask(&self, source: &Source<'_>, cell: usize) -> bool {
        source.has.is_none_or(|has| has.contains(cell)) && self.of(source).contains(cell)
    }
}

/// From whom it would take this many times as long as from where all of it is, nobody waits for it.
const MUCH: u64 = 3;
/// How long a request is to take.
const PIECE: Span = Span::millis(500);
const PIECE_MAX: u64 = 64 * 1024 * 1024;
/// The first request to a holder whose speed is not known.
const FIRST_NEAR: u64 = 2 * 1024 * 1024;
const FIRST_FAR: u64 = 512 * 1024;
/// From so many on it is quicker to put all in order.
const FEW: usize = 8;
/// One in so many neighbours of a crowd is asked for what a client reads next, so that it gets something soon. Where all
/// ask for the same next, few have anything for others.
const IN_ORDER: usize = 4;
/// How many parts a node has that has got its first ones.
const AT_FIRST: u64 = 2;
/// Neighbours that ask for a part at a time before then,
const TURNS: u64 = 3;
/// and as many more each time that nothing has come to anybody for this long.
const TURN: Span = Span::millis(50);
/// A node that has had nothing to do for this long takes over what is another's of its site,
pub(super) const IDLE: Span = Span::millis(500);
/// or another site's.
pub(super) const IDLE_SITE: Span = Span::millis(2_000);
/// A node to which nothing more comes for this long does not wait for what other sites say to bring.
pub(super) const STANDS_STILL: Span = Span::secs(2);
/// One from another site that has a part of it after twice as long as from where all of it is, and this.
const STUCK: Span = Span::secs(2);
/// A neighbour's transfer is asked for again elsewhere after twice as long as it should take, and this.
pub(super) const LATE: Span = Span::millis(300);
