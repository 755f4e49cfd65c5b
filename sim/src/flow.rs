//! Bytes on their way: sessions between nodes that share what links, lines and disks carry, by max-min fairness.
//! A session is an ordered pair of nodes with any number of requests under way, as the streams of one QUIC
//! connection are. Knows neither blobs nor replicas: whoever starts a request decides what it means.
//!
//! How a session gets its rate. Each resource carries so many bytes a second. Rates are filled up together, by
//! weight, until a resource is full; the sessions over it keep what they have, the others go on (`solve`).
//! Sessions that are not connected with what changed are not looked at, and what was solved is not solved again for
//! a while: [`Config::coalesce`] for parts of 8,000 sessions and more, as much less as a part is smaller, so that
//! each part costs the same at most, and in most of them transfers last much longer than that. In between a session that starts takes what is free on its way, and what a
//! session leaves is free: sums never exceed a capacity, but shares can be unfair for so long.
//!
//! How a request goes. It travels a round trip before its first byte arrives, two or more if the connection must
//! be opened. Requests of one session share its rate equally, those of clients before all others. A session that
//! is new or was idle starts slowly: its rate is at most 10 segments of 1,460 bytes in the first round trip and
//! twice as much in each that follows, until that is no limit any more (RFC 9002 section 7.2 and 7.3.1, RFC 6928;
//! after being idle, RFC 5681 section 4.1). It is a limit that doubles and not a debt of bytes paid at once,
//! because what a debt costs depends on the share that the session would get, which changes while it is paid.
//! The limit is kept by each session itself, round by round; the shares take it into account where a round lasts
//! longer than `coalesce`.
//!
//! What is not modelled: loss and the window after slow start (give a [`Route::cap`] for either), retransmits.
//!
//! All arithmetic is of whole numbers: bytes in parts of 2^-40, times in nanoseconds, rounded down, so that
//! nothing is ever faster than its links and one history gives one result everywhere.

pub mod plant;
mod queue;
mod rate;
mod session;
mod solve;

use std::collections::BTreeMap;

use crate::setup::{MILLISECOND, Nanos, SECOND};
use queue::Queue;
use rate::Rate;
use session::{Request, Session};
use solve::Solver;

/// Resources on the way of a session, at most.
pub const PATH_MAX: usize = 8;
/// Sessions that are kept before those that were idle for long are forgotten.
const SESSIONS_KEPT: usize = 4_096;

/// How sessions behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The least time between two solutions of the same large part of the network.
    pub coalesce: Nanos,
    /// Bytes in the first round trip of a session that starts; 0 for no slow start.
    pub initial_window: u64,
    /// Round trips to open a connection.
    pub handshakes: u32,
    /// After how long without a request a connection is closed, so that the next one opens and starts slowly.
    pub idle: Nanos,
}

impl Default for Config {
    /// QUIC: one round trip to open, ten segments at first; the window is kept for a second, the least
    /// retransmission timeout of RFC 6298.
    fn default() -> Self {
        Config { coalesce: 5 * MILLISECOND, initial_window: 14_600, handshakes: 1, idle: SECOND }
    }
}

impl Config {
    /// Links alone: no slow start, no handshake.
    pub fn fluid(coalesce: Nanos) -> Self {
        Config { coalesce, initial_window: 0, handshakes: 0, idle: SECOND }
    }
}

/// Something with a capacity: a direction of a link, a line or a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource(u32);

/// Who waits for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A client: these go first within a session.
    Client,
    /// Nobody in particular.
    Background,
}

/// A request under way. Never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowId {
    slot: u32,
    life: u32,
}

/// The resources that a session goes over, each once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    resources: [Resource; PATH_MAX],
    length: u8,
}

impl Path {
    /// Over these. More than [`PATH_MAX`] is a mistake of the caller.
    pub fn of(resources: &[Resource]) -> Self {
        let mut path = Path::default();
        path.resources[..resources.len()].copy_from_slice(resources);
        path.length = resources.len() as u8;
        path
    }

    /// In the order given.
    pub fn resources(&self) -> &[Resource] {
        &self.resources[..usize::from(self.length)]
    }
}

/// Between which nodes, over what, and how. The route of a session is that of its latest request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The sender, by any number.
    pub from: u32,
    /// The receiver.
    pub to: u32,
    /// What they go over.
    pub path: Path,
    /// There and back.
    pub round_trip: Nanos,
    /// Bytes per second that the session never exceeds, such as window / round trip. 0 carries nothing.
    pub cap: Option<u64>,
    /// Its share beside that of others; at least 1.
    pub weight: u32,
}

/// All sessions, and what they go over.
pub struct Flows {
    config: Config,
    resources: Vec<Capacity>,
    sessions: Vec<Session>,
    /// Slots of forgotten sessions.
    vacant: Vec<u32>,
    pairs: BTreeMap<(u32, u32), u32>,
    /// How many pairs there may be before some are forgotten.
    sweep_at: usize,
    requests: Vec<Request>,
    free: Vec<u32>,
    queue: Queue,
    solver: Solver,
    finished: Vec<FlowId>,
}

/// A resource, and who uses it.
struct Capacity {
    capacity: Rate,
    /// The sum of what its sessions have.
    given: Rate,
    /// Bytes that it carried as far as its sessions were looked at.
    carried: u64,
    /// Sessions with bytes on the way, and which place this resource has in their path.
    users: Vec<(u32, u8)>,
    /// Until when it is not solved again.
    rests: Option<Nanos>,
    /// When it is to be solved again.
    dirty: Option<Nanos>,
    /// Of the solution that it was part of, and its place in that.
    mark: u32,
    place: u32,
}

impl Flows {
    /// Without resources or sessions.
    pub fn new(config: Config) -> Self {
        Flows {
            config,
            resources: vec![],
            sessions: vec![],
            vacant: vec![],
            pairs: BTreeMap::new(),
            sweep_at: SESSIONS_KEPT,
            requests: vec![],
            free: vec![],
            queue: Queue::default(),
            solver: Solver::default(),
            finished: vec![],
        }
    }

    /// A new resource that carries so many bytes a second.
    pub fn resource(&mut self, bytes_per_second: u64) -> Resource {
        self.resources.push(Capacity {
            capacity: rate::of(bytes_per_second),
            given: 0,
            carried: 0,
            users: vec![],
            rests: None,
            dirty: None,
            mark: 0,
            place: 0,
        });
        Resource(self.resources.len() as u32 - 1)
    }

    /// From now on a resource carries so many bytes a second; 0 carries nothing. [`Flows::due`] is now then, so that
    /// many that change at once are solved at once.
    pub fn set_capacity(&mut self, now: Nanos, resource: Resource, bytes_per_second: u64) {
        self.run(now, false);
        let here = &mut self.resources[resource.0 as usize];
        here.capacity = rate::of(bytes_per_second);
        // A smaller capacity must hold from now on, however lately its part was solved.
        self.mark_dirty(now, resource);
    }

    /// Sets the cap of every session there is, by its sender and receiver. What starts later has its route's.
    pub fn set_caps(&mut self, now: Nanos, cap: impl Fn(u32, u32) -> Option<u64>) {
        self.run(now, false);
        for ((from, to), index) in self.pairs.clone() {
            let cap = cap(from, to);
            let session = &mut self.sessions[index as usize];
            if session.route.cap != cap {
                session.route.cap = cap;
                self.recap(now, index);
            }
        }
    }

    /// Asks for bytes over a route. They are there when [`Flows::advance`] gives the id back.
    pub fn start(&mut self, now: Nanos, route: &Route, bytes: u64, class: Class) -> FlowId {
        self.run(now, false);
        let index = self.session(now, route);
        let config = self.config;
        let session = &mut self.sessions[index as usize];
        if session.is_closed(now, config.idle) {
            session.open(now, &config);
        }
        session.waiting += 1;
        let at = now.max(session.opened).saturating_add(route.round_trip);
        let capped_anew = session.route.cap != route.cap;
        session.route.cap = route.cap;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.requests.push(Request::default());
            self.requests.len() as u32 - 1
        });
        let request = &mut self.requests[slot as usize];
        *request = Request {
            session: index,
            bytes,
            class,
            arrives: Some(at),
            first_byte: at,
            ..request.next_life()
        };
        let life = request.life;
        self.queue.arrival(at, slot);
        if capped_anew {
            self.recap(now, index);
        }
        FlowId { slot, life }
    }

    /// Ends a request before its time; how many bytes arrived of it. 0 where there is no such request any more.
    pub fn cancel(&mut self, now: Nanos, flow: FlowId) -> u64 {
        self.run(now, false);
        let Some(request) = self.request(flow) else { return 0 };
        let (index, waiting) = (request.session, request.arrives.is_some());
        if waiting {
            self.sessions[index as usize].waiting -= 1;
            self.sessions[index as usize].idle_since = now;
        } else {
            self.settle(now, index);
            self.sessions[index as usize].remove(flow.slot);
        }
        let moved = self.requests[flow.slot as usize].moved;
        self.release(flow.slot);
        if !waiting {
            self.attend(now, index);
        }
        moved
    }

    /// A client waits for a request now, so that it goes before others of its session.
    pub fn hasten(&mut self, now: Nanos, flow: FlowId) {
        self.run(now, false);
        let Some(request) = self.request(flow).filter(|request| request.class != Class::Client) else {
            return;
        };
        let (index, waiting) = (request.session, request.arrives.is_some());
        if !waiting {
            self.settle(now, index);
            self.sessions[index as usize].remove(flow.slot);
        }
        let request = &mut self.requests[flow.slot as usize];
        request.class = Class::Client;
        if !waiting {
            self.sessions[index as usize].add(flow.slot, request);
            self.attend(now, index);
        }
    }

    /// How many bytes of a request have arrived. 0 where there is no such request any more.
    pub fn moved(&self, now: Nanos, flow: FlowId) -> u64 {
        let Some(request) = self.request(flow).filter(|request| request.arrives.is_none()) else { return 0 };
        self.sessions[request.session as usize].moved(now, request)
    }

    /// When the first byte of a request arrives, or did; nothing where there is no such request any more.
    pub fn first_byte(&self, flow: FlowId) -> Option<Nanos> {
        self.request(flow).map(|request| request.first_byte)
    }

    /// Bytes per second at which the requests between two nodes arrive now, together.
    pub fn rate(&self, from: u32, to: u32) -> u64 {
        let session = self.pairs.get(&(from, to)).map(|index| &self.sessions[*index as usize]);
        session.filter(|session| session.active).map_or(0, |session| rate::bytes(session.rate()))
    }

    /// When to call [`Flows::advance`]; nothing where it need not be called. May be past, which means at once, and
    /// may turn out to be for nothing.
    pub fn due(&mut self) -> Option<Nanos> {
        if !self.finished.is_empty() {
            return Some(0);
        }
        let sessions = &self.sessions;
        let event = self.queue.next(|index| sessions[index as usize].due());
        [event, self.solver.due()].into_iter().flatten().min()
    }

    /// Carries on until now; the requests that are complete, in the order in which they were.
    pub fn advance(&mut self, now: Nanos) -> Vec<FlowId> {
        self.run(now, true);
        std::mem::take(&mut self.finished)
    }

    /// Bytes that a resource has carried until now.
    pub fn carried(&self, now: Nanos, resource: Resource) -> u64 {
        let here = &self.resources[resource.0 as usize];
        let unseen = |(index, _): &(u32, u8)| self.sessions[*index as usize].unseen(now, &self.requests);
        here.carried + here.users.iter().map(unseen).sum::<u64>()
    }

    /// How many sessions have bytes on the way.
    pub fn active(&self) -> usize {
        self.pairs.values().filter(|index| self.sessions[**index as usize].active).count()
    }

    /// How often a part of the network was solved.
    pub fn solutions(&self) -> u64 {
        self.solver.solutions
    }

    /// Everything that happens before `now`, and at it where `through`.
    fn run(&mut self, now: Nanos, through: bool) {
        loop {
            let sessions = &self.sessions;
            let event = self.queue.next(|index| sessions[index as usize].due()).unwrap_or(Nanos::MAX);
            let solve = self.solver.due().unwrap_or(Nanos::MAX);
            let at = event.min(solve);
            if at > now || (at == now && !through) || at == Nanos::MAX {
                return;
            }
            if event <= solve {
                self.happen(at);
            } else {
                self.solve_due(at);
            }
        }
    }

    fn happen(&mut self, at: Nanos) {
        match self.queue.pop() {
            Some((_, queue::Event::Arrival(slot))) => self.arrive(at, slot),
            Some((_, queue::Event::Session(index))) => {
                self.settle(at, index);
                self.complete(index);
                if self.sessions[index as usize].step(at) {
                    self.mark_path(at, index);
                }
                self.attend(at, index);
            }
            None => {}
        }
    }

    /// The first byte of a request would be there now.
    fn arrive(&mut self, now: Nanos, slot: u32) {
        let request = &mut self.requests[slot as usize];
        // Another one, if the request was cancelled.
        if request.arrives != Some(now) {
            return;
        }
        request.arrives = None;
        let index = request.session;
        self.settle(now, index);
        let initial_window = self.config.initial_window;
        let session = &mut self.sessions[index as usize];
        session.waiting -= 1;
        session.add(slot, &mut self.requests[slot as usize]);
        if !session.active {
            session.begin(now, initial_window);
            self.activate(now, index);
        }
        self.complete(index);
        self.attend(now, index);
    }

    /// The session of a route, perhaps a new one.
    fn session(&mut self, now: Nanos, route: &Route) -> u32 {
        let pair = (route.from, route.to);
        if let Some(index) = self.pairs.get(&pair) {
            let session = &mut self.sessions[*index as usize];
            if !session.active {
                session.route = *route;
            }
            return *index;
        }
        if self.pairs.len() >= self.sweep_at {
            self.sweep(now);
        }
        let session = Session::new(*route);
        let index = match self.vacant.pop() {
            Some(index) => {
                self.sessions[index as usize] = session;
                index
            }
            None => {
                self.sessions.push(session);
                self.sessions.len() as u32 - 1
            }
        };
        self.pairs.insert(pair, index);
        index
    }

    /// Forgets sessions that were idle for so long that they would start anew anyway.
    fn sweep(&mut self, now: Nanos) {
        let (sessions, idle, vacant) = (&self.sessions, self.config.idle, &mut self.vacant);
        self.pairs.retain(|_, index| {
            let session = &sessions[*index as usize];
            let keep = session.waiting > 0 || session.active || !session.is_closed(now, idle);
            if !keep {
                vacant.push(*index);
            }
            keep
        });
        self.sweep_at = SESSIONS_KEPT.max(2 * self.pairs.len());
    }

    fn request(&self, flow: FlowId) -> Option<&Request> {
        let request = self.requests.get(flow.slot as usize)?;
        (request.life == flow.life && request.alive).then_some(request)
    }

    /// Counts what a session moved since it was last looked at.
    fn settle(&mut self, now: Nanos, index: u32) {
        let session = &mut self.sessions[index as usize];
        let bytes = session.settle(now, &mut self.requests);
        if bytes > 0 {
            for resource in session.route.path.resources() {
                self.resources[resource.0 as usize].carried += bytes;
            }
        }
    }

    /// Hands out the requests of a session that are complete.
    fn complete(&mut self, index: u32) {
        while let Some(slot) = self.sessions[index as usize].complete() {
            self.finished.push(FlowId { slot, life: self.requests[slot as usize].life });
            self.release(slot);
        }
    }

    fn release(&mut self, slot: u32) {
        let request = &mut self.requests[slot as usize];
        request.alive = false;
        request.arrives = None;
        self.free.push(slot);
    }

    /// After anything changed at a session that was settled: rests it or asks for its next time.
    fn attend(&mut self, now: Nanos, index: u32) {
        let session = &mut self.sessions[index as usize];
        if session.active && session.is_empty() {
            session.idle_since = now;
            self.deactivate(now, index);
        }
        self.queue.session(self.sessions[index as usize].due(), index);
    }

    fn activate(&mut self, now: Nanos, index: u32) {
        let session = &mut self.sessions[index as usize];
        session.active = true;
        let mut free = session.ceiling();
        for (place, resource) in session.route.path.resources().iter().enumerate() {
            let here = &mut self.resources[resource.0 as usize];
            free = free.min(here.capacity.saturating_sub(here.given));
            session.spots[place] = here.users.len() as u32;
            here.users.push((index, place as u8));
        }
        session.given = free;
        for resource in session.route.path.resources() {
            self.resources[resource.0 as usize].given += free;
        }
        self.mark_path(now, index);
    }

    fn deactivate(&mut self, now: Nanos, index: u32) {
        self.mark_path(now, index);
        let session = &mut self.sessions[index as usize];
        session.active = false;
        let (path, spots, given) = (session.route.path, session.spots, std::mem::take(&mut session.given));
        for (place, resource) in path.resources().iter().enumerate() {
            let here = &mut self.resources[resource.0 as usize];
            here.given -= given;
            let spot = spots[place] as usize;
            here.users.swap_remove(spot);
            if let Some((moved, moved_place)) = here.users.get(spot).copied() {
                self.sessions[moved as usize].spots[usize::from(moved_place)] = spot as u32;
            }
        }
    }

    /// The cap of a session changed.
    fn recap(&mut self, now: Nanos, index: u32) {
        if !self.sessions[index as usize].active {
            return;
        }
        self.settle(now, index);
        let session = &mut self.sessions[index as usize];
        let (before, ceiling) = (session.given, session.ceiling());
        // Without resources nothing else limits it, and nobody solves it.
        session.given = if session.route.path.resources().is_empty() { ceiling } else { before.min(ceiling) };
        let freed = before.saturating_sub(session.given);
        for resource in session.route.path.resources() {
            self.resources[resource.0 as usize].given -= freed;
        }
        self.mark_path(now, index);
        self.attend(now, index);
    }

    /// What a session goes over is to be solved: not before the part that rests longest, which it joins to others.
    fn mark_path(&mut self, now: Nanos, index: u32) {
        let path = self.sessions[index as usize].route.path;
        let rests = path.resources().iter().filter_map(|resource| self.resources[resource.0 as usize].rests);
        let due = rests.fold(now, Nanos::max);
        for resource in path.resources() {
            self.mark_dirty(due, *resource);
        }
    }

    fn mark_dirty(&mut self, due: Nanos, resource: Resource) {
        let here = &mut self.resources[resource.0 as usize];
        if here.dirty.is_none_or(|dirty| due < dirty) {
            if let Some(dirty) = here.dirty.replace(due) {
                self.solver.forget(dirty, resource);
            }
            self.solver.ask(due, resource);
        }
    }

    fn solve_due(&mut self, now: Nanos) {
        let mut solver = std::mem::take(&mut self.solver);
        solver.solve(now, self.config.coalesce, &mut self.resources, &mut self.sessions);
        for index in solver.changed() {
            self.settle(now, *index);
            let session = &mut self.sessions[*index as usize];
            session.accept();
            self.queue.session(session.due(), *index);
        }
        self.solver = solver;
    }
}

#[cfg(test)]
mod tests;
