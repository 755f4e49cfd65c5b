//! When one of the replica's timers was set to fire. Timers are never cancelled, so what is remembered here keeps one
//! from being set twice for the same thing. What it is set for is its owner's business.

use alloc::vec::Vec;

use crate::time::{Span, Time};

/// The times at which a timer will fire.
#[derive(Debug, Default)]
pub struct Alarm {
    /// The soonest last. Each was sooner than all before when it was set, so there are few.
    set: Vec<Time>,
}

impl Alarm {
    /// Something is due then. Whether the timer has to be set for it: not where it fires as soon or sooner, after
    /// which its owner looks again.
    pub fn set(&mut self, at: Time) -> bool {
        let needed = self.set.last().is_none_or(|soonest| *soonest > at);
        if needed {
            if self.set.len() >= SET_MAX {
                self.set.remove(0);
            }
            self.set.push(at);
        }
        needed
    }

    /// The timer fired.
    pub fn fired(&mut self, now: Time) {
        while self.set.pop_if(|at| *at <= now).is_some() {}
    }
}

/// Brings forward when something is due.
pub fn sooner(known: &mut Option<Time>, at: Time) {
    *known = Some(known.map_or(at, |known| known.min(at)));
}

/// The first moment after `now` and not before `at` that is a whole number of steps after `origin`: what is looked at
/// only then shares one look with what is due about the same time.
pub fn step_after(now: Time, at: Time, origin: Time, step: Span) -> Time {
    let step = step.0.max(1);
    let after = at.max(now + Span(1)).since(origin).0;
    origin + Span(after.div_ceil(step).saturating_mul(step))
}

/// Times that are remembered; one that is forgotten costs a look in vain.
const SET_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_set_only_for_what_is_sooner() {
        let mut alarm = Alarm::default();
        assert!(alarm.set(Time(30)) && !alarm.set(Time(30)) && !alarm.set(Time(40)));
        assert!(alarm.set(Time(10)) && !alarm.set(Time(20)));
        alarm.fired(Time(10));
        assert!(!alarm.set(Time(30)), "it is set still");
        assert!(alarm.set(Time(20)));
        alarm.fired(Time(35));
        assert!(alarm.set(Time(40)));
    }

    #[test]
    fn what_is_set_stays_bounded() {
        let mut alarm = Alarm::default();
        assert!((0..1_000).all(|n| alarm.set(Time(5_000 - n))));
        assert_eq!(alarm.set.len(), SET_MAX);
    }

    #[test]
    fn looks_are_a_whole_number_of_steps_apart_and_later_than_now() {
        let step = |now, at| step_after(Time(now), Time(at), Time(500), Span(1_000)).0;
        assert_eq!([step(500, 500), step(500, 1_500), step(500, 1_501)], [1_500, 1_500, 2_500]);
        assert_eq!([step(2_000, 0), step(2_500, 2_500)], [2_500, 3_500]);
    }
}
