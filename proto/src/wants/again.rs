//! When a want has to be looked at again though nothing has happened: the moments at which time alone may change what
//! `plan` and `pieces` would do. Until the first of them, a want for which there was nothing to be done is passed over.
//! Each line here stands for one comparison with a time there, and a new one needs its line.

use super::{
    Flight,
    crowd::CROWD_AGAIN,
    esteem::Esteem,
    pieces::{IDLE, IDLE_SITE, Plan, STANDS_STILL, late_from},
    sharing::DISTRUST,
};
use crate::{
    event::FetchId,
    time::{Span, Time},
};

/// When to look again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Again {
    /// At the latest then.
    pub(super) at: Time,
    /// And where bytes arrive at this time or later.
    pub(super) progressed: Time,
}

impl Plan<'_> {
    /// When this plan, by which nothing is to be done, has to be made again.
    pub(super) fn look_again(&self, flights: &[(FetchId, &Flight)], esteem: &Esteem) -> Again {
        let want = self.want;
        // What a node of a large site brings goes by who of many seems to be at work, from moment to moment.
        if want.telling.crowd || want.crowd.is_some() {
            return Again { at: self.now + CROWD_AGAIN, progressed: Time::default() };
        }
        let progressed = want.sharers.left_behind(want.progressed);
        let settled = want.telling.settled.unwrap_or_default();
        let idle = want.idle_since.max(settled);
        let of_want = [
            want.not_before,
            settled,
            want.telling.settled_far,
            want.idle_since.max(want.progressed) + DISTRUST,
            idle + IDLE,
            idle + IDLE_SITE,
            self.got + STANDS_STILL,
        ];
        let of_holders = want.possible_holders().iter().map(|holder| esteem.until(&holder.node));
        let of_sharers = want.sharers.iter().map(|(node, _)| esteem.until(node));
        let of_flights = flights.iter().flat_map(|(_, flight)| {
            let silent = esteem.silent_from(&flight.from, flight.started);
            [Some(silent), late_from(flight, esteem), self.stuck_from(flight)].into_iter().flatten()
        });
        let all = of_want.into_iter().chain(of_holders).chain(of_sharers).chain(of_flights);
        let later = all.chain(want.sharers.silences()).filter(|at| *at > self.now);
        // Not for ever, whatever was not thought of here.
        let at = later.min().unwrap_or(Time(u64::MAX)).min(self.now + LOOKED_AT);
        Again { at, progressed }
    }
}

/// How often a want is looked at in any case.
const LOOKED_AT: Span = Span::secs(5);
