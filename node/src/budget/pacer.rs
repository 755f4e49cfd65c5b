//! Lets tasks wait for their turn in [`Shares`]. While somebody waits, one task hands out turns; without a
//! limit nothing is locked and nobody waits.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, oneshot};
use waystation_proto::event::Class;

use super::shares::{Allowance, Next, Shares};

/// Paces what is moved on one kind of link in one direction. Clones pace together.
#[derive(Clone, Debug)]
pub struct Pacer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limited: AtomicBool,
    state: Mutex<State>,
    /// Limits changed while somebody waits.
    changed: Notify,
    began: Instant,
}

#[derive(Debug)]
struct State {
    shares: Shares<oneshot::Sender<()>>,
    /// Whether a task hands out turns.
    pumping: bool,
}

impl Pacer {
    /// Without any limit.
    pub fn unlimited() -> Self {
        let state = State { shares: Shares::unlimited(), pumping: false };
        Pacer(Arc::new(Inner {
            limited: AtomicBool::new(false),
            state: Mutex::new(state),
            changed: Notify::new(),
            began: Instant::now(),
        }))
    }

    /// Changes what is allowed, also for those who wait. `reserve` is the clients' share in percent.
    pub fn allow(&self, allowance: Allowance, reserve: u8) {
        self.state().shares.allow(self.now(), allowance, reserve);
        self.0.limited.store(allowance.is_limited(), Relaxed);
        self.0.changed.notify_one();
    }

    /// Whether anything is limited.
    pub fn is_limited(&self) -> bool {
        self.0.limited.load(Relaxed)
    }

    /// Waits until so many bytes may be moved. Whoever stops waiting has taken nothing.
    pub async fn take(&self, class: Class, bytes: u64) {
        if !self.is_limited() {
            return;
        }
        let turn = {
            let mut state = self.state();
            if state.shares.take_now(self.now(), class, bytes) {
                return;
            }
            let (waiter, turn) = oneshot::channel();
            state.shares.wait(class, bytes, waiter);
            if !std::mem::replace(&mut state.pumping, true) {
                tokio::spawn(self.clone().pump());
            }
            turn
        };
        // Fails only where the process is ending.
        let _ = turn.await;
    }

    /// Takes bytes that were moved already.
    pub fn debit(&self, class: Class, bytes: u64) {
        if bytes > 0 && self.is_limited() {
            self.state().shares.debit(self.now(), class, bytes);
        }
    }

    /// Hands out turns until nobody waits.
    async fn pump(self) {
        while let Some(wait) = self.hand_out() {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.0.changed.notified() => {}
            }
        }
    }

    /// Every turn that is due; how long until the next, or nothing where nobody waits.
    fn hand_out(&self) -> Option<Duration> {
        let mut state = self.state();
        loop {
            match state.shares.next(self.now()) {
                Next::Go(class, bytes, waiter) => {
                    if waiter.send(()).is_err() {
                        state.shares.refund(class, bytes);
                    }
                }
                Next::Wait(wait) => return Some(wait),
                Next::Idle => {
                    state.pumping = false;
                    return None;
                }
            }
        }
    }

    fn now(&self) -> Duration {
        self.0.began.elapsed()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn at(rate: u64) -> Allowance {
        Allowance { whole: Some(rate), ..Allowance::default() }
    }

    #[tokio::test]
    async fn whoever_waits_goes_on_when_the_limit_is_lifted() {
        let pacer = Pacer::unlimited();
        pacer.take(Class::Background, u64::MAX).await;
        pacer.allow(at(1000), 50);
        pacer.debit(Class::Background, 1 << 40);
        let waiting: Vec<_> = [Class::Client, Class::Background, Class::Background]
            .map(|class| {
                let pacer = pacer.clone();
                tokio::spawn(async move { pacer.take(class, 1000).await })
            })
            .into();
        while !pacer.state().pumping {
            tokio::task::yield_now().await;
        }
        pacer.allow(Allowance::default(), 50);
        for waiter in waiting {
            tokio::time::timeout(TIMEOUT, waiter).await.expect("goes on").expect("no panic");
        }
        // Nothing hands out turns any more, and the next who waits finds somebody who does.
        while pacer.state().pumping {
            tokio::task::yield_now().await;
        }
        pacer.allow(at(8_000_000), 50);
        for _ in 0..20 {
            tokio::time::timeout(TIMEOUT, pacer.take(Class::Client, 16 * 1024)).await.expect("in time");
        }
    }

    #[tokio::test]
    async fn whoever_stops_waiting_takes_nothing() {
        let pacer = Pacer::unlimited();
        pacer.allow(at(1_000_000), 50);
        pacer.debit(Class::Client, 100_000);
        let gone = tokio::spawn({
            let pacer = pacer.clone();
            async move { pacer.take(Class::Client, 1 << 50).await }
        });
        while !pacer.state().pumping {
            tokio::task::yield_now().await;
        }
        gone.abort();
        let _ = gone.await;
        tokio::time::timeout(TIMEOUT, pacer.take(Class::Background, 1000)).await.expect("its turn comes");
    }
}
