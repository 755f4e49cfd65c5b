//! When the replica looks again whom to dial and what to compare: not before there may be something to do. Most of the
//! time there is not, and a machine that sleeps, or a mesh of ten thousand nodes in one process, is not woken for it.

use alloc::vec::Vec;

use super::Replica;
use crate::{
    alarm::{Alarm, sooner, step_after},
    event::{Output, Timer},
    rounds::ROUNDS_TICK,
    time::{Now, Time},
};

/// Both timers, and what is due by the first of them.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    /// When they were started, if they were.
    started: Option<Time>,
    dial: Alarm,
    reconcile: Alarm,
    /// When there may be somebody to dial.
    next_dial: Option<Time>,
}

impl Alarms {
    /// Whom to dial is to be looked at again at this time, and no sooner.
    pub(super) fn dial_again(&mut self, at: Option<Time>) {
        self.next_dial = at;
    }

    /// Something that matters for whom to dial changed.
    pub(super) fn dial_soon(&mut self, now: Time) {
        sooner(&mut self.next_dial, now);
    }

    /// A timer fired.
    pub(super) fn fired(&mut self, now: Time, timer: Timer) {
        match timer {
            Timer::Dial => self.dial.fired(now),
            Timer::Reconcile => self.reconcile.fired(now),
            _ => {}
        }
    }
}

impl Replica {
    /// The node knows how it is reached: from now on it looks around.
    pub(super) fn start_timers(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.alarms.started.is_none() {
            self.alarms.started = Some(now.time);
            self.timer(now, Timer::Dial, out);
            self.timer(now, Timer::Reconcile, out);
        }
    }

    /// Sets the timers for what is due next.
    pub(super) fn arm(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(started) = self.alarms.started else { return };
        if let Some(due) = self.dial_due(now.time) {
            let at = step_after(now.time, due, started, self.config.dial_interval);
            if self.alarms.dial.set(at) {
                out.push(Output::SetTimer { at, timer: Timer::Dial });
            }
        }
        if let Some(due) = self.reconcile_due(now.time) {
            let at = step_after(now.time, due, started, ROUNDS_TICK);
            if self.alarms.reconcile.set(at) {
                out.push(Output::SetTimer { at, timer: Timer::Reconcile });
            }
        }
    }

    fn dial_due(&self, now: Time) -> Option<Time> {
        let bringing = self.artifacts.manifests().next().map(|_| now);
        // A node that is alone has nothing else to do.
        // Their number is known without looking for the first, which is done at each input.
        let look = match self.membership.sessions().size_hint() {
            (0, _) => now,
            _ => self.membership.surplus.next(),
        };
        let dues = [self.alarms.next_dial, bringing, self.membership.presence.next_question(), Some(look)];
        dues.into_iter().flatten().min()
    }

    fn reconcile_due(&self, now: Time) -> Option<Time> {
        let unsaid = self.writes.has_unsaid().then_some(now);
        let dues = [self.rounds.next(), self.tellers.next(), self.leases.next(), unsaid];
        dues.into_iter().flatten().min()
    }
}
