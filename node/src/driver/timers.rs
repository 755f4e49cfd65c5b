//! When which timer of the replica is due. Timers are never cancelled.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use waystation_proto::{Time, Timer};

/// Timers that were set and have not fired.
#[derive(Debug, Default)]
pub struct Timers(BTreeSet<(Time, Timer)>);

impl Timers {
    /// Sets one.
    pub fn set(&mut self, at: Time, timer: Timer) {
        self.0.insert((at, timer));
    }

    /// When the next is due, for a clock that started at `started`.
    pub fn next(&self, started: Instant) -> Option<Instant> {
        self.0.first().map(|(at, _)| started + Duration::from_millis(at.0))
    }

    /// Takes those that are due.
    pub fn due(&mut self, now: Time) -> Vec<Timer> {
        let mut due = Vec::new();
        while let Some((at, timer)) = self.0.pop_first() {
            if at > now {
                self.0.insert((at, timer));
                break;
            }
            due.push(timer);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_timers_are_taken_in_order_and_once() {
        let mut timers = Timers::default();
        timers.set(Time(20), Timer::Wants);
        timers.set(Time(10), Timer::Dial);
        timers.set(Time(30), Timer::Reconcile);
        assert_eq!(timers.due(Time(5)), []);
        assert_eq!(timers.due(Time(20)), [Timer::Dial, Timer::Wants]);
        assert_eq!(timers.due(Time(20)), []);
        assert!(timers.next(Instant::now()).is_some());
    }
}
