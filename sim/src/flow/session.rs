//! One session: its requests and how far they are. Its share comes from the solver; here is what it makes of it,
//! by slow start and by how many requests there are.

use super::{
    Class, Config, PATH_MAX, Route,
    rate::{self, Amount, Rate},
};
use crate::setup::Nanos;

/// What a lane has served when its first request begins: more than any request has got before it came into it.
const AT_FIRST: Amount = 1 << 110;

/// A request, in a slot that others use after it.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub life: u32,
    pub alive: bool,
    pub session: u32,
    pub class: Class,
    pub bytes: u64,
    /// Bytes that were counted.
    pub moved: u64,
    /// When its first byte arrives, until then.
    pub arrives: Option<Nanos>,
    /// When its first byte arrives, or did.
    pub first_byte: Nanos,
    /// What each request of its lane had got when it began.
    pub began: Amount,
}

impl Default for Request {
    fn default() -> Self {
        Request {
            life: 0,
            alive: false,
            session: 0,
            class: Class::Background,
            bytes: 0,
            moved: 0,
            arrives: None,
            first_byte: 0,
            began: 0,
        }
    }
}

impl Request {
    /// An empty one for the same slot.
    pub fn next_life(&self) -> Request {
        Request { life: self.life.wrapping_add(1), alive: true, ..Request::default() }
    }

    fn moved_at(&self, served: Amount) -> u64 {
        rate::whole(served - self.began).min(self.bytes)
    }
}

/// The requests of a class.
#[derive(Default)]
struct Lane {
    /// What each request has got since there was one.
    served: Amount,
    /// (what `served` is when it is complete, slot), the first one last.
    requests: Vec<(Amount, u32)>,
}

/// What moves from one node to another.
pub struct Session {
    pub route: Route,
    /// Whether there are requests under way, so that it has a share.
    pub active: bool,
    /// Requests whose first byte is yet to arrive.
    pub waiting: u32,
    /// Since when there was none.
    pub idle_since: Nanos,
    /// When the connection is open.
    pub opened: Nanos,
    /// Its place in the list of each resource.
    pub spots: [u32; PATH_MAX],
    /// Its share.
    pub given: Rate,
    /// Its next share, until it is taken.
    proposed: Option<Rate>,
    /// Whether slow start kept its share down, so that more is to be asked for when the window grows.
    pub held_down: bool,
    lanes: [Lane; 2],
    /// Up to when the requests were counted.
    since: Nanos,
    /// Whether it ever was open.
    known: bool,
    /// Of slow start.
    window: Rate,
    /// When the window doubles next; never once slow start is over.
    grows: Nanos,
    /// Whether its share was solved since it began.
    solved: bool,
}

impl Session {
    /// Without requests.
    pub fn new(route: Route) -> Self {
        Session {
            route,
            active: false,
            waiting: 0,
            idle_since: 0,
            opened: 0,
            spots: [0; PATH_MAX],
            given: 0,
            proposed: None,
            held_down: false,
            lanes: Default::default(),
            since: 0,
            known: false,
            window: 0,
            grows: Nanos::MAX,
            solved: false,
        }
    }

    /// Whether the next request has to open a connection.
    pub fn is_closed(&self, now: Nanos, idle: Nanos) -> bool {
        let unused = self.waiting == 0 && !self.active;
        !self.known || (unused && now >= self.idle_since.saturating_add(idle))
    }

    /// Opens it: the first request goes out when it is open.
    pub fn open(&mut self, now: Nanos, config: &Config) {
        self.known = true;
        self.opened = now.saturating_add(self.route.round_trip.saturating_mul(config.handshakes.into()));
        self.window = 0;
        self.grows = Nanos::MAX;
    }

    /// Begins to send after there was nothing to send; slowly if it was opened for that.
    pub fn begin(&mut self, now: Nanos, initial_window: u64) {
        self.solved = false;
        self.held_down = false;
        if self.window == 0 {
            let slowly = initial_window > 0 && self.route.round_trip > 0;
            self.window =
                if slowly { rate::over(initial_window, self.route.round_trip) } else { rate::UNLIMITED };
        }
        if self.window < rate::UNLIMITED {
            self.grows = now.saturating_add(self.route.round_trip);
        }
    }

    /// The window doubles if it is time; whether a larger share is to be asked for.
    pub fn step(&mut self, now: Nanos) -> bool {
        if now < self.grows {
            return false;
        }
        self.window = self.window.saturating_mul(2).min(rate::UNLIMITED);
        self.grows = now.saturating_add(self.route.round_trip);
        // A window that is no limit any more is where loss ends slow start.
        if self.window >= rate::UNLIMITED || (self.solved && !self.held_down && self.window >= self.given) {
            self.window = rate::UNLIMITED;
            self.grows = Nanos::MAX;
        }
        self.held_down
    }

    /// The most that it could use.
    pub fn ceiling(&self) -> Rate {
        self.route.cap.map_or(rate::UNLIMITED, rate::of)
    }

    /// The window as it will be in a while.
    pub fn window_after(&self, now: Nanos, while_: Nanos) -> Rate {
        if self.grows == Nanos::MAX || now.saturating_add(while_) < self.grows {
            return self.window;
        }
        let rounds = 1 + (now + while_ - self.grows) / self.route.round_trip.max(1);
        if rounds >= u64::from(self.window.leading_zeros()) {
            return rate::UNLIMITED;
        }
        (self.window << rounds).min(rate::UNLIMITED)
    }

    /// A share was solved; whether it makes a difference.
    pub fn propose(&mut self, share: Rate) -> bool {
        let differs = !self.solved || share != self.given;
        self.proposed = differs.then_some(share);
        differs
    }

    /// Takes the share that was solved.
    pub fn accept(&mut self) {
        self.solved = true;
        if let Some(given) = self.proposed.take() {
            self.given = given;
        }
    }

    /// What moves now.
    pub fn rate(&self) -> Rate {
        self.given.min(self.window)
    }

    /// Whether no request is under way.
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.requests.is_empty())
    }

    /// A request's first byte is there, or it changes its class.
    pub fn add(&mut self, slot: u32, request: &mut Request) {
        let lane = &mut self.lanes[request.class as usize];
        if lane.requests.is_empty() {
            lane.served = AT_FIRST;
        }
        request.began = lane.served - rate::amount(request.moved);
        let end = (request.began + rate::amount(request.bytes), slot);
        let place = lane.requests.partition_point(|other| *other > end);
        lane.requests.insert(place, end);
    }

    /// Takes a request out.
    pub fn remove(&mut self, slot: u32) {
        for lane in &mut self.lanes {
            lane.requests.retain(|(_, other)| *other != slot);
        }
    }

    /// Counts until now; the bytes that were new. Nothing but the rate limited the time between.
    pub fn settle(&mut self, now: Nanos, requests: &mut [Request]) -> u64 {
        let time = now.saturating_sub(self.since);
        self.since = now;
        let rate = self.rate();
        let Some(lane) = self.busy_mut() else { return 0 };
        lane.served += rate::share(rate, time, lane.requests.len() as u64);
        let mut bytes = 0;
        for (_, slot) in &lane.requests {
            let request = &mut requests[*slot as usize];
            let moved = request.moved_at(lane.served);
            bytes += moved - request.moved;
            request.moved = moved;
        }
        bytes
    }

    /// What [`Session::settle`] would count.
    pub fn unseen(&self, now: Nanos, requests: &[Request]) -> u64 {
        let Some(lane) = self.busy() else { return 0 };
        let served = self.served_at(now, lane);
        let new = |(_, slot): &(Amount, u32)| {
            let request = &requests[*slot as usize];
            request.moved_at(served) - request.moved
        };
        lane.requests.iter().map(new).sum()
    }

    /// Bytes of one of its requests.
    pub fn moved(&self, now: Nanos, request: &Request) -> u64 {
        let lane = &self.lanes[request.class as usize];
        let waits = request.class == Class::Background && !self.lanes[0].requests.is_empty();
        request.moved_at(if waits { lane.served } else { self.served_at(now, lane) })
    }

    /// The next request that is complete, taken out.
    pub fn complete(&mut self) -> Option<u32> {
        let lane = self.busy_mut()?;
        let served = lane.served;
        let (_, slot) = lane.requests.pop_if(|(end, _)| *end <= served)?;
        Some(slot)
    }

    /// When something happens to it by itself.
    pub fn due(&self) -> Nanos {
        let Some(lane) = self.busy() else { return Nanos::MAX };
        let first = lane.requests.last().map_or(0, |(end, _)| *end);
        let time = rate::time(first.saturating_sub(lane.served), self.rate(), lane.requests.len() as u64);
        self.since.saturating_add(time).min(self.grows)
    }

    fn served_at(&self, now: Nanos, lane: &Lane) -> Amount {
        let time = now.saturating_sub(self.since);
        lane.served + rate::share(self.rate(), time, lane.requests.len() as u64)
    }

    /// The lane that is served.
    fn busy(&self) -> Option<&Lane> {
        self.lanes.iter().find(|lane| !lane.requests.is_empty())
    }

    fn busy_mut(&mut self) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| !lane.requests.is_empty())
    }
}
