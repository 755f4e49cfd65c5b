//! Shares by max-min fairness: all rates rise together, by weight, until a resource is full; the sessions over it
//! keep their rates and the others rise on (progressive filling, Bertsekas and Gallager, "Data Networks",
//! section 6.5.2). Solves what is connected with what changed, and nothing else; on a copy that lies together in
//! memory, because walking over all sessions is what a solution costs.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
};

use super::{Capacity, Resource, rate::Rate, session::Session};
use crate::setup::Nanos;

/// From how many sessions on a part is large.
const LARGE: u64 = 8_192;
/// Of a session whose rate still rises.
const OPEN: Rate = Rate::MAX;

/// What is to be solved, and when.
#[derive(Default)]
pub struct Solver {
    asked: BTreeSet<(Nanos, Resource)>,
    mark: u32,
    /// The solution that each session was part of: apart from the sessions, which are too large to look at twice.
    marks: Vec<u32>,
    /// How often something was solved.
    pub solutions: u64,
    changed: Vec<u32>,
    part: Part,
}

/// What is solved together. Resources and sessions go by their place in it.
#[derive(Default)]
struct Part {
    resources: Vec<u32>,
    sessions: Vec<u32>,
    /// The resources that each session goes over, one session after the other, and where each one's begin.
    ways: Vec<u32>,
    begins: Vec<u32>,
    weights: Vec<u64>,
    shares: Vec<Rate>,
    /// Whether slow start would be what stops it.
    windowed: Vec<bool>,
    /// What is left of each resource, and the weight of those who share it.
    left: Vec<Rate>,
    load: Vec<u64>,
    /// The sessions over each resource, one resource after the other, and where each one's begin.
    users: Vec<u32>,
    firsts: Vec<u32>,
    levels: BinaryHeap<Reverse<(Rate, Limit)>>,
}

/// What stops a rate from rising.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Limit {
    /// The session itself.
    Session(u32),
    /// A resource that is full.
    Resource(u32),
}

impl Solver {
    /// A resource is to be solved no later than this.
    pub fn ask(&mut self, due: Nanos, resource: Resource) {
        self.asked.insert((due, resource));
    }

    /// Not any more.
    pub fn forget(&mut self, due: Nanos, resource: Resource) {
        self.asked.remove(&(due, resource));
    }

    /// When to solve next.
    pub fn due(&self) -> Option<Nanos> {
        self.asked.first().map(|(due, _)| *due)
    }

    /// The sessions whose shares the last solution changed, with the new ones proposed to them.
    pub fn changed(&self) -> &[u32] {
        &self.changed
    }

    /// Solves what is due. `coalesce` is how long a large part is left alone then.
    pub fn solve(&mut self, now: Nanos, coalesce: Nanos, all: &mut [Capacity], sessions: &mut [Session]) {
        self.changed.clear();
        self.gather(now, coalesce, all, sessions);
        let part = &mut self.part;
        if part.resources.is_empty() {
            return;
        }
        self.solutions += 1;
        part.list_users(all);
        part.rise();
        let rest = coalesce.saturating_mul(part.sessions.len() as u64) / LARGE;
        let rests = Some(now.saturating_add(rest.min(coalesce)));
        for (index, left) in part.resources.iter().zip(&part.left) {
            let here = &mut all[*index as usize];
            here.given = here.capacity - left;
            here.rests = rests;
            if let Some(due) = here.dirty.take() {
                self.asked.remove(&(due, Resource(*index)));
            }
        }
        for (place, index) in part.sessions.iter().enumerate() {
            let session = &mut sessions[*index as usize];
            session.held_down = part.windowed[place];
            if session.propose(part.shares[place]) {
                self.changed.push(*index);
            }
        }
    }

    /// All resources and sessions that are connected with a resource that is due.
    fn gather(&mut self, now: Nanos, coalesce: Nanos, all: &mut [Capacity], sessions: &[Session]) {
        self.mark = self.mark.wrapping_add(1);
        self.marks.resize(sessions.len(), 0);
        let part = &mut self.part;
        part.clear();
        while let Some((due, resource)) = self.asked.first().copied().filter(|(due, _)| *due <= now) {
            self.asked.remove(&(due, resource));
            all[resource.0 as usize].dirty = None;
            part.add_resource(resource, self.mark, all);
        }
        let mut next = 0;
        while let Some(index) = part.resources.get(next).copied() {
            next += 1;
            for place in 0..all[index as usize].users.len() {
                let (user, _) = all[index as usize].users[place];
                let seen = &mut self.marks[user as usize];
                if *seen != self.mark {
                    *seen = self.mark;
                    let session = &sessions[user as usize];
                    part.add_session(user, session, session.window_after(now, coalesce), self.mark, all);
                }
            }
        }
    }
}

impl Part {
    fn clear(&mut self) {
        self.resources.clear();
        self.sessions.clear();
        self.ways.clear();
        self.begins.clear();
        self.begins.push(0);
        self.weights.clear();
        self.shares.clear();
        self.windowed.clear();
        self.left.clear();
        self.load.clear();
        let mut levels = std::mem::take(&mut self.levels).into_vec();
        levels.clear();
        self.levels = levels.into();
    }

    /// The place of a resource in this part.
    fn add_resource(&mut self, resource: Resource, mark: u32, all: &mut [Capacity]) -> u32 {
        let here = &mut all[resource.0 as usize];
        if here.mark != mark {
            here.mark = mark;
            here.place = self.resources.len() as u32;
            self.resources.push(resource.0);
            self.left.push(here.capacity);
            self.load.push(0);
        }
        here.place
    }

    fn add_session(&mut self, index: u32, session: &Session, window: Rate, mark: u32, all: &mut [Capacity]) {
        let weight = u64::from(session.route.weight.max(1));
        let mut narrowest = Rate::MAX;
        for resource in session.route.path.resources() {
            let place = self.add_resource(*resource, mark, all);
            self.ways.push(place);
            self.load[place as usize] += weight;
            narrowest = narrowest.min(self.left[place as usize]);
        }
        let (place, ceiling) = (self.sessions.len() as u32, session.ceiling());
        self.sessions.push(index);
        self.begins.push(self.ways.len() as u32);
        self.weights.push(weight);
        self.shares.push(OPEN);
        self.windowed.push(window < narrowest && window <= ceiling);
        let own = ceiling.min(window);
        if own < narrowest {
            self.levels.push(Reverse((own / weight, Limit::Session(place))));
        }
    }

    /// Turns the ways round. All users of a resource are in its part.
    fn list_users(&mut self, all: &[Capacity]) {
        self.firsts.clear();
        let mut first = 0;
        for index in &self.resources {
            self.firsts.push(first);
            first += all[*index as usize].users.len() as u32;
        }
        self.users.clear();
        self.users.resize(first as usize, 0);
        let mut next = self.firsts.clone();
        for session in 0..self.sessions.len() {
            for place in self.begins[session]..self.begins[session + 1] {
                let spot = &mut next[self.ways[place as usize] as usize];
                self.users[*spot as usize] = session as u32;
                *spot += 1;
            }
        }
        self.firsts.push(first);
    }

    /// Raises all rates until each is stopped.
    fn rise(&mut self) {
        for place in 0..self.resources.len() {
            if let Some(level) = self.left[place].checked_div(self.load[place]) {
                self.levels.push(Reverse((level, Limit::Resource(place as u32))));
            }
        }
        while let Some(Reverse((level, limit))) = self.levels.pop() {
            match limit {
                Limit::Session(session) if self.shares[session as usize] == OPEN => {
                    self.stop(session as usize, level);
                }
                Limit::Session(_) => {}
                Limit::Resource(place) => self.fill(place, level),
            }
        }
    }

    /// A resource may be full at this level.
    fn fill(&mut self, place: u32, level: Rate) {
        let Some(truly) = self.left[place as usize].checked_div(self.load[place as usize]) else { return };
        // Those who stopped at other limits left it some.
        if truly > level {
            self.levels.push(Reverse((truly, Limit::Resource(place))));
            return;
        }
        for spot in self.firsts[place as usize]..self.firsts[place as usize + 1] {
            let session = self.users[spot as usize] as usize;
            if self.shares[session] == OPEN {
                self.windowed[session] = false;
                self.stop(session, level);
            }
        }
    }

    /// A session's rate is found.
    fn stop(&mut self, session: usize, level: Rate) {
        let weight = self.weights[session];
        let rate = level * weight;
        self.shares[session] = rate;
        for place in self.begins[session]..self.begins[session + 1] {
            let resource = self.ways[place as usize] as usize;
            self.left[resource] -= rate;
            self.load[resource] -= weight;
        }
    }
}
