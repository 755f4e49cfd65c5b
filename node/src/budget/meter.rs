//! One transfer as the budget sees it: it pays for what it moves before it moves more, and is stopped where the
//! budget for it is spent. [`crate::data`] wraps streams with it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use waystation_proto::event::Class;

use super::{Blocked, Budget, Way, pacer::Pacer};

/// Counts and paces one transfer in one direction.
#[derive(Debug)]
pub struct Meter {
    budget: Budget,
    pacer: Pacer,
    far: bool,
    way: Way,
    urgency: Urgency,
    /// Moved and not yet paid for, in bytes.
    owed: u64,
    begun: bool,
    pulse: Pulse,
}

/// Tells whether a transfer that brings nothing waits for the budget or for the other side. Clones tell of the
/// same transfer.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Mutex<Beat>>);

/// For whom a transfer is, which a client that comes to wait for it changes. Clones are of the same transfer.
#[derive(Clone, Debug)]
pub struct Urgency(Arc<AtomicBool>);

#[derive(Debug)]
pub(super) struct Beat {
    last: Instant,
    pub(super) waiting: bool,
    stopped: bool,
}

impl Meter {
    pub(super) fn new(budget: Budget, pacer: Pacer, far: bool, way: Way, urgency: Urgency) -> Self {
        let beat = Beat { last: Instant::now(), waiting: false, stopped: false };
        let pulse = Pulse(Arc::new(Mutex::new(beat)));
        Meter { budget, pacer, far, way, urgency, owed: REQUEST, begun: false, pulse }
    }

    /// Waits until more may be moved. An error: the budget does not allow any more of this transfer.
    pub async fn pay(&mut self) -> Result<(), Blocked> {
        self.check()?;
        if !self.pacer.is_limited() {
            self.owed = 0;
        } else if !self.begun || self.owed >= STEP {
            self.pulse.beat().waiting = true;
            self.pacer.take(self.urgency.class(), self.owed).await;
            (self.owed, self.begun) = (0, true);
            *self.pulse.beat() = Beat { last: Instant::now(), waiting: false, stopped: false };
            self.check()?;
        }
        Ok(())
    }

    /// Notes that so many bytes were moved.
    pub fn moved(&mut self, bytes: u64) {
        self.pulse.beat().last = Instant::now();
        self.owed += bytes + bytes / TRANSPORT;
        if self.far {
            self.budget.count(self.way, bytes);
        }
    }

    /// Whether what is moved is paced now, so that small steps are worth their cost.
    pub fn is_paced(&self) -> bool {
        self.pacer.is_limited()
    }

    /// Tells of this transfer while it runs and after.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    fn check(&self) -> Result<(), Blocked> {
        let stops = self.far && self.way == Way::Down && self.budget.is_blocked(self.urgency.class());
        match self.budget.blocks(self.urgency.class()).filter(|_| stops) {
            Some(blocked) => {
                self.pulse.beat().stopped = true;
                Err(blocked)
            }
            None => Ok(()),
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.begun {
            self.pacer.debit(self.urgency.class(), self.owed);
        }
    }
}

impl Urgency {
    /// The class that it is of now.
    pub fn class(&self) -> Class {
        if self.0.load(Relaxed) { Class::Client } else { Class::Background }
    }

    /// A client waits for it now.
    pub fn raise(&self) {
        self.0.store(true, Relaxed);
    }
}

impl From<Class> for Urgency {
    fn from(class: Class) -> Self {
        Urgency(Arc::new(AtomicBool::new(class == Class::Client)))
    }
}

impl Pulse {
    /// For how long the other side has sent or taken nothing; zero while the budget is what is waited for.
    pub fn quiet(&self) -> Duration {
        let beat = self.beat();
        if beat.waiting { Duration::ZERO } else { beat.last.elapsed() }
    }

    /// Whether the budget ended the transfer.
    pub fn is_stopped(&self) -> bool {
        self.beat().stopped
    }

    pub(super) fn beat(&self) -> MutexGuard<'_, Beat> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that are paid for at once: one verified group with what proves it comes to more.
const STEP: u64 = 8 * 1024;
/// What a request costs beside its answer, in bytes. Small blobs are paced by it too.
const REQUEST: u64 = 256;
/// One byte in so many is added to what is paced, for what the transport adds. QUIC, UDP and IP add 4 to 5 % on
/// usual paths; the middle between payload and that is what keeps both within 5 % of the limit.
const TRANSPORT: u64 = 32;
