//! Shares by max-min fairness: all rates rise together, by weight, until a resource is full; the sessions over it
//! keep their rates and the others rise on (progressive filling, Bertsekas and Gallager, "Data Networks",
//! section 6.5.2). Solves what is connected with what changed, and nothing else.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
};

use super::{Capacity, Resource, rate::Rate, session::Session};
use crate::setup::Nanos;

/// What is to be solved, and when.
#[derive(Default)]
pub struct Solver {
    asked: BTreeSet<(Nanos, Resource)>,
    mark: u32,
    /// How often something was solved.
    pub solutions: u64,
    // Kept from one solution to the next for their memory.
    resources: Vec<u32>,
    sessions: Vec<u32>,
    changed: Vec<u32>,
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

    /// The sessions that were solved last, with the shares proposed to them.
    pub fn changed(&self) -> &[u32] {
        &self.changed
    }

    /// Solves what is due. `ahead` is for how long the solution is to hold at least.
    pub fn solve(&mut self, now: Nanos, ahead: Nanos, all: &mut [Capacity], sessions: &mut [Session]) {
        self.changed.clear();
        self.gather(now, all, sessions);
        if self.resources.is_empty() {
            return;
        }
        self.solutions += 1;
        self.prepare(now, ahead, all, sessions);
        while let Some(Reverse((level, limit))) = self.levels.pop() {
            match limit {
                Limit::Session(index) => {
                    if sessions[index as usize].proposed.is_none() {
                        fix(index, level, all, sessions);
                    }
                }
                Limit::Resource(index) => self.fill(index, level, all, sessions),
            }
        }
        for index in &self.resources {
            let here = &mut all[*index as usize];
            here.given = here.capacity - here.left;
        }
        let other = |index: &u32| sessions[*index as usize].is_another_share();
        self.changed.extend(self.sessions.iter().copied().filter(other));
    }

    /// All resources and sessions that are connected with a resource that is due.
    fn gather(&mut self, now: Nanos, all: &mut [Capacity], sessions: &mut [Session]) {
        self.mark = self.mark.wrapping_add(1);
        self.resources.clear();
        self.sessions.clear();
        while let Some((due, resource)) = self.asked.first().copied().filter(|(due, _)| *due <= now) {
            self.asked.remove(&(due, resource));
            let here = &mut all[resource.0 as usize];
            here.dirty = None;
            if here.mark != self.mark {
                here.mark = self.mark;
                self.resources.push(resource.0);
            }
        }
        let mut next = 0;
        while let Some(index) = self.resources.get(next).copied() {
            next += 1;
            for place in 0..all[index as usize].users.len() {
                let (user, _) = all[index as usize].users[place];
                let session = &mut sessions[user as usize];
                if session.mark == self.mark {
                    continue;
                }
                session.mark = self.mark;
                self.sessions.push(user);
                for resource in session.route.path.resources() {
                    let here = &mut all[resource.0 as usize];
                    if here.mark != self.mark {
                        here.mark = self.mark;
                        self.resources.push(resource.0);
                    }
                }
            }
        }
        for index in &self.resources {
            let here = &mut all[*index as usize];
            here.solved = Some(now);
            if let Some(due) = here.dirty.take() {
                self.asked.remove(&(due, Resource(*index)));
            }
        }
    }

    /// Everybody at nothing, and the levels at which each limit would stop them.
    fn prepare(&mut self, now: Nanos, ahead: Nanos, all: &mut [Capacity], sessions: &mut [Session]) {
        let mut levels = std::mem::take(&mut self.levels).into_vec();
        levels.clear();
        for index in &self.resources {
            let here = &mut all[*index as usize];
            here.left = here.capacity;
            here.weight = 0;
        }
        for index in &self.sessions {
            let session = &mut sessions[*index as usize];
            session.proposed = None;
            let weight = u64::from(session.route.weight.max(1));
            let mut narrowest = Rate::MAX;
            for resource in session.route.path.resources() {
                let here = &mut all[resource.0 as usize];
                here.weight += weight;
                narrowest = narrowest.min(here.capacity);
            }
            let window = session.window_after(now, ahead);
            let own = session.ceiling().min(window);
            session.held_down = window < narrowest && window <= session.ceiling();
            if own < narrowest {
                levels.push(Reverse((own / weight, Limit::Session(*index))));
            }
        }
        for index in &self.resources {
            let here = &all[*index as usize];
            if let Some(level) = here.left.checked_div(here.weight) {
                levels.push(Reverse((level, Limit::Resource(*index))));
            }
        }
        self.levels = levels.into();
    }

    /// A resource may be full at this level.
    fn fill(&mut self, index: u32, level: Rate, all: &mut [Capacity], sessions: &mut [Session]) {
        let here = &all[index as usize];
        if here.weight == 0 {
            return;
        }
        // Those who stopped at other limits left it some.
        let truly = here.left / here.weight;
        if truly > level {
            self.levels.push(Reverse((truly, Limit::Resource(index))));
            return;
        }
        for place in 0..all[index as usize].users.len() {
            let (user, _) = all[index as usize].users[place];
            if sessions[user as usize].proposed.is_none() {
                sessions[user as usize].held_down = false;
                fix(user, level, all, sessions);
            }
        }
    }
}

/// A session's rate is found.
fn fix(index: u32, level: Rate, all: &mut [Capacity], sessions: &mut [Session]) {
    let session = &mut sessions[index as usize];
    let weight = u64::from(session.route.weight.max(1));
    let rate = level * weight;
    session.proposed = Some(rate);
    for resource in session.route.path.resources() {
        let here = &mut all[resource.0 as usize];
        here.left -= rate;
        here.weight -= weight;
    }
}
