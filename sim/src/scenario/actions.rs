//! What happens in a run, as it is collected from the parts of a file: actions with their times, and when things
//! that repeat happen.

use waystation_topology::{Pace, Problem, Time};

use crate::{
    images::exponential,
    random::stream,
    setup::{Action, Nanos},
};

/// Most actions of a run.
pub const ACTIONS_MAX: usize = 20_000_000;

/// Actions, in any order until [`Actions::sorted`].
#[derive(Debug)]
pub struct Actions {
    seed: u64,
    end: Nanos,
    streams: usize,
    all: Vec<(Nanos, Action)>,
}

impl Actions {
    /// None yet.
    pub fn new(seed: u64, end: Nanos) -> Self {
        Actions { seed, end, streams: 0, all: vec![] }
    }

    /// Chances for one table of the file: the next table has others, and the same file and seed the same.
    pub fn chances(&mut self, purpose: &str) -> fastrand::Rng {
        self.streams += 1;
        stream(self.seed, self.streams, purpose)
    }

    /// Something happens; what would be after the end does not.
    pub fn add(&mut self, at: Nanos, action: Action) -> Result<(), Problem> {
        if at >= self.end {
            return Ok(());
        }
        if self.all.len() >= ACTIONS_MAX {
            let text = format!("more than {ACTIONS_MAX} actions; write a shorter duration or lower paces");
            return Err(Problem::whole(text));
        }
        self.all.push((at, action));
        Ok(())
    }

    /// When a part that ends with the run at the latest is over.
    pub fn until(&self, until: Option<Time>) -> Nanos {
        until.map_or(self.end, |until| until.nanos().min(self.end))
    }

    /// Times at which something happens at random, at a pace.
    pub fn times(&self, rng: &mut fastrand::Rng, pace: Pace, from: Time, until: Option<Time>) -> Vec<Nanos> {
        let until = self.until(until);
        let mut times = vec![];
        let mut at = from.nanos() + exponential(rng, pace.interval());
        while at < until && times.len() < ACTIONS_MAX {
            times.push(at);
            at = at.saturating_add(exponential(rng, pace.interval()).max(1));
        }
        times
    }

    /// In the order of time, and of the file where times are equal.
    pub fn sorted(mut self) -> Vec<(Nanos, Action)> {
        self.all.sort_by_key(|(at, _)| *at);
        self.all
    }
}

/// A time within a spread from a time on.
pub fn spread_over(rng: &mut fastrand::Rng, time: Nanos, spread: Time) -> Nanos {
    time + if spread.nanos() == 0 { 0 } else { rng.u64(0..spread.nanos()) }
}
