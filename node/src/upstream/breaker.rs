//! Whether a host is asked at all. Owns when a host that fails is left alone, for how long, and that one request
//! finds out whether it is back, so that a host that is down costs one time-out and not one per request.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The health of one host.
#[derive(Debug, Default)]
pub struct Breaker(Mutex<State>);

/// What happened to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered, in whatever way.
    Answered,
    /// Failed quickly: a broken or refused connection, 502 to 504.
    Failed(String),
    /// Cost a time-out.
    TimedOut(String),
}

/// What a request asks for. Hosts that count requests count those for manifests apart: when those are used up, blobs
/// still come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Manifests.
    Manifests,
    /// Everything else.
    Rest,
}

/// Why a request is not to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The host fails; tried again after this time.
    Away {
        /// What went wrong last.
        why: String,
        /// Until it is tried again; zero while that is under way.
        wait: Duration,
    },
    /// The host asked for it.
    Limited(Duration),
}

/// The right to make one request. What came of it is to be told; if not, it counts as a time-out where whoever
/// asked had waited long: clients that are less patient than this node must not pay again and again.
#[derive(Debug)]
pub struct Permit {
    breaker: Arc<Breaker>,
    probe: bool,
    since: Instant,
    told: bool,
}

#[derive(Debug, Default)]
struct State {
    /// In a row.
    failures: u32,
    /// Opened so often in a row without an answer in between.
    opened: u32,
    /// Open until then; half open after it.
    until: Option<Instant>,
    /// One request is finding out whether the host is back.
    probing: bool,
    limited: Limits,
    why: String,
    /// When it answered last.
    answered: Option<Instant>,
}

/// Until when the host asked to be left alone.
#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    manifests: Option<Instant>,
    rest: Option<Instant>,
}

impl Breaker {
    /// Asks to make a request.
    pub fn admit(self: &Arc<Self>, lane: Lane) -> Result<Permit, Closed> {
        let mut state = self.state();
        let now = Instant::now();
        let limited = match lane {
            Lane::Manifests => state.limited.manifests,
            Lane::Rest => state.limited.rest,
        };
        if let Some(until) = limited.filter(|until| *until > now) {
            return Err(Closed::Limited(until - now));
        }
        let probe = match state.until {
            None => false,
            Some(until) if until > now || state.probing => {
                let wait = until.saturating_duration_since(now);
                return Err(Closed::Away { why: state.why.clone(), wait });
            }
            Some(_) => true,
        };
        state.probing = probe;
        Ok(Permit { breaker: Arc::clone(self), probe, since: now, told: false })
    }

    /// Whether requests would be turned away because the host fails.
    pub fn is_open(&self) -> bool {
        let state = self.state();
        state.until.is_some_and(|until| until > Instant::now() || state.probing)
    }

    /// Whether it has answered not longer ago than that.
    pub fn has_answered_within(&self, span: Duration) -> bool {
        self.state().answered.is_some_and(|at| at.elapsed() <= span)
    }

    /// The host asked to be left alone for this long, when asked for this.
    pub fn limit(&self, lane: Lane, wait: Duration) {
        let until = Some(Instant::now() + wait.min(MAX_LIMITED));
        let limits = &mut self.state().limited;
        limits.manifests = limits.manifests.max(until);
        if lane == Lane::Rest {
            limits.rest = limits.rest.max(until);
        }
    }

    /// For how long the host asked to be left alone, at least with manifests.
    pub fn limited(&self) -> Option<Duration> {
        let until = self.state().limited.manifests?;
        Some(until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    /// What went wrong last, while it goes wrong.
    pub fn trouble(&self) -> Option<String> {
        let state = self.state();
        (state.failures > 0 || state.until.is_some()).then(|| state.why.clone())
    }

    /// A connection broke or stalled after its answer had begun. That is to be resumed at once, so it counts as one
    /// quick failure.
    pub fn broke(&self, why: String) {
        self.note(Outcome::Failed(why), false);
    }

    fn note(&self, outcome: Outcome, probe: bool) {
        let mut state = self.state();
        if probe {
            state.probing = false;
        }
        let (why, at_once) = match outcome {
            Outcome::Answered => {
                let answered = Some(Instant::now());
                if state.opened > 0 {
                    tracing::info!(was = state.why, "a registry to pull through answers again");
                }
                *state = State { limited: state.limited, answered, ..State::default() };
                return;
            }
            Outcome::Failed(why) => (why, probe),
            Outcome::TimedOut(why) => (why, true),
        };
        state.failures = state.failures.saturating_add(1);
        state.why = why;
        let open = state.until.is_some();
        // Requests that were under way when it opened say nothing new.
        if (probe || !open) && (at_once || state.failures >= FAILURES) {
            let wait = FIRST_WAIT.saturating_mul(1 << state.opened.min(16)).min(MAX_WAIT);
            if state.opened == 0 {
                tracing::warn!(
                    why = state.why,
                    "a registry to pull through is away; it is left alone for a while"
                );
            }
            state.opened = state.opened.saturating_add(1);
            state.until = Some(Instant::now() + wait);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Tells what came of the request.
    pub fn tell(mut self, outcome: Outcome) {
        self.breaker.note(outcome, self.probe);
        self.told = true;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.told {
            return;
        }
        let waited = self.since.elapsed();
        if waited >= GIVEN_UP_AFTER {
            let why = format!("no answer in {} s, when nobody waited for it any more", waited.as_secs());
            self.breaker.note(Outcome::TimedOut(why), self.probe);
        } else if self.probe {
            self.breaker.state().probing = false;
        }
    }
}

/// Quick failures in a row after which a host is left alone: more than one question's tries, since the fault may be
/// that question's. One time-out is enough.
const FAILURES: u32 = 5;
/// An answer that took longer, and then was not waited for, counts as none.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(5);
/// How long at first; doubled each time.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// How long at most: so late is it noticed that the host is back.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// The longest wait that a host may ask for: Docker Hub's window.
const MAX_LIMITED: Duration = Duration::from_secs(6 * 3600);

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn failed() -> Outcome {
        Outcome::Failed("x".into())
    }

    #[tokio::test(start_paused = true)]
    async fn opens_after_failures_in_a_row_and_waits_longer_each_time() {
        let breaker = Arc::new(Breaker::default());
        for _ in 0..5 {
            breaker.admit(Lane::Rest).expect("closed").tell(failed());
            breaker.admit(Lane::Rest).expect("closed").tell(failed());
            breaker.admit(Lane::Rest).expect("closed").tell(Outcome::Answered);
        }
        for _ in 0..FAILURES {
            assert!(!breaker.is_open());
            breaker.admit(Lane::Rest).expect("closed").tell(failed());
        }
        let mut wait = FIRST_WAIT;
        for _ in 0..8 {
            assert!(breaker.is_open());
            assert_eq!(breaker.admit(Lane::Rest).expect_err("open"), Closed::Away { why: "x".into(), wait });
            advance(wait - Duration::from_millis(1)).await;
            assert!(breaker.admit(Lane::Rest).is_err());
            advance(Duration::from_millis(1)).await;
            assert!(!breaker.is_open());
            let probe = breaker.admit(Lane::Rest).expect("half open");
            assert!(breaker.admit(Lane::Rest).is_err() && breaker.is_open(), "one at a time");
            probe.tell(failed());
            wait = (wait * 2).min(MAX_WAIT);
        }
        advance(MAX_WAIT).await;
        breaker.admit(Lane::Rest).expect("half open").tell(Outcome::Answered);
        assert!(!breaker.is_open() && breaker.trouble().is_none());
        breaker.admit(Lane::Rest).expect("closed").tell(failed());
        assert!(breaker.admit(Lane::Rest).is_ok(), "counts anew");
    }

    #[tokio::test(start_paused = true)]
    async fn one_time_out_is_enough_and_those_under_way_do_not_count() {
        let breaker = Arc::new(Breaker::default());
        let permits: Vec<Permit> = (0..4).map(|_| breaker.admit(Lane::Rest).expect("closed")).collect();
        for permit in permits {
            permit.tell(Outcome::TimedOut("slow".into()));
        }
        assert_eq!(
            breaker.admit(Lane::Rest).expect_err("open"),
            Closed::Away { why: "slow".into(), wait: FIRST_WAIT }
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_given_up_makes_room_for_the_next() {
        let breaker = Arc::new(Breaker::default());
        breaker.admit(Lane::Rest).expect("closed").tell(Outcome::TimedOut("slow".into()));
        advance(FIRST_WAIT).await;
        drop(breaker.admit(Lane::Rest).expect("half open"));
        assert!(breaker.admit(Lane::Rest).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_after_a_long_wait_has_seen_a_time_out() {
        let breaker = Arc::new(Breaker::default());
        let (quick, slow) = (breaker.admit(Lane::Rest), breaker.admit(Lane::Rest));
        drop(quick.expect("closed"));
        assert!(!breaker.is_open());
        advance(GIVEN_UP_AFTER).await;
        drop(slow.expect("closed"));
        assert!(breaker.is_open() && !breaker.has_answered_within(MAX_WAIT));
        advance(FIRST_WAIT).await;
        breaker.admit(Lane::Rest).expect("half open").tell(Outcome::Answered);
        assert!(breaker.has_answered_within(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_is_kept_and_ends() {
        let breaker = Arc::new(Breaker::default());
        breaker.limit(Lane::Rest, Duration::from_secs(30));
        breaker.limit(Lane::Rest, Duration::from_secs(10));
        assert_eq!(breaker.admit(Lane::Rest).expect_err("limited"), Closed::Limited(Duration::from_secs(30)));
        assert!(!breaker.is_open());
        advance(Duration::from_secs(30)).await;
        assert!(breaker.admit(Lane::Rest).is_ok() && breaker.limited().is_none());
        breaker.limit(Lane::Rest, Duration::MAX);
        assert_eq!(breaker.limited(), Some(MAX_LIMITED));

        let breaker = Arc::new(Breaker::default());
        breaker.limit(Lane::Manifests, Duration::from_secs(30));
        assert!(breaker.admit(Lane::Manifests).is_err() && breaker.admit(Lane::Rest).is_ok());
    }
}
