//! Memory that the bytes for clients lie in until they have been sent, shared by all who read for them. A client that
//! takes nothing holds up nobody: long steps are taken of one part only, and the rest is kept for the shortest step
//! of whoever has nothing on its way.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A bounded amount of memory. Clones are the same.
#[derive(Clone)]
pub struct Memory {
    inner: Arc<Inner>,
}

struct Inner {
    /// In units.
    budget: Arc<Semaphore>,
    bounds: Bounds,
    shares: AtomicUsize,
}

/// What is given out at a time, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// All of the memory.
    pub all: usize,
    /// The longest step.
    pub longest: usize,
    /// The shortest, which all others are multiples of.
    pub unit: usize,
    /// What of all is for the shortest steps alone: as many of them as clients are served at a time.
    pub kept: usize,
}

/// One reader's part of it.
pub struct Share {
    memory: Memory,
    /// Steps that may be on their way at a time: one that its client takes, and one behind it.
    steps: Arc<Semaphore>,
}

/// Room for one step, until it is dropped.
#[derive(Debug)]
pub struct Room {
    /// How much, in bytes.
    pub bytes: usize,
    _step: OwnedSemaphorePermit,
    _budget: OwnedSemaphorePermit,
}

impl Memory {
    /// All of it free.
    pub fn new(bounds: Bounds) -> Self {
        let budget = Arc::new(Semaphore::new(bounds.all / bounds.unit));
        Memory { inner: Arc::new(Inner { budget, bounds, shares: AtomicUsize::new(0) }) }
    }

    /// A part of it for one more reader.
    pub fn share(&self) -> Share {
        self.inner.shares.fetch_add(1, Ordering::Relaxed);
        Share { memory: self.clone(), steps: Arc::new(Semaphore::new(STEPS)) }
    }

    /// Waits until nobody holds anything of it.
    #[cfg(test)]
    pub async fn idle(&self) {
        let all = self.inner.bounds.all / self.inner.bounds.unit;
        drop(self.inner.budget.acquire_many(u32::try_from(all).expect("few")).await);
    }

    /// Bytes of which long steps may be taken.
    fn spare(&self) -> usize {
        let Bounds { unit, kept, .. } = self.inner.bounds;
        (self.inner.budget.available_permits() * unit).saturating_sub(kept)
    }

    /// Bytes of a long step: as many as all readers can hold two of at a time, but never so much of what is left that
    /// a few slow clients leave nothing to others. In whole units; nothing where there is no room for such steps.
    fn step(&self) -> usize {
        let Bounds { all, longest, unit, kept } = self.inner.bounds;
        let (spare, shares) = (self.spare(), self.inner.shares.load(Ordering::Relaxed).max(1));
        let step = ((all - kept) / shares).min(spare / 8).clamp(unit, longest) / unit * unit;
        if step <= spare { step } else { 0 }
    }

    fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes / self.inner.bounds.unit).ok()?;
        self.inner.budget.clone().try_acquire_many_owned(units).ok()
    }
}

impl Share {
    /// Room for the next step, of at most `wanted` bytes, rounded up to whole units. Waits for the client to take some of
    /// what is on its way where that is as much as there may be, and all of it where memory is scarce.
    pub async fn room(&self, wanted: usize) -> Room {
        let step = acquired(&self.steps, 1).await;
        let step = match self.long(step, wanted) {
            Ok(room) => return room,
            Err(step) => step,
        };
        // Given back at once: the steps behind this one are of these.
        drop(acquired(&self.steps, STEPS - 1).await);
        let budget = acquired(&self.memory.inner.budget, 1).await;
        Room { bytes: self.memory.inner.bounds.unit, _step: step, _budget: budget }
    }

    /// As [`Self::room`], where that can be had at once without taking anything from others.
    pub fn more(&self, wanted: usize) -> Option<Room> {
        let step = self.steps.clone().try_acquire_owned().ok()?;
        self.long(step, wanted).ok()
    }

    fn long(&self, step: OwnedSemaphorePermit, wanted: usize) -> Result<Room, OwnedSemaphorePermit> {
        let unit = self.memory.inner.bounds.unit;
        let bytes = self.memory.step().min(wanted.div_ceil(unit).saturating_mul(unit));
        match self.memory.take(bytes) {
            Some(budget) if bytes > 0 => Ok(Room { bytes, _step: step, _budget: budget }),
            _ => Err(step),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.inner.shares.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn acquired(of: &Arc<Semaphore>, permits: usize) -> OwnedSemaphorePermit {
    let permits = u32::try_from(permits).unwrap_or(u32::MAX);
    of.clone().acquire_many_owned(permits).await.expect("it is never closed")
}

/// Steps of one reader at a time.
const STEPS: usize = 2;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const UNIT: usize = 16;
    const ALL: usize = 1024 * UNIT;

    fn memory() -> Memory {
        Memory::new(Bounds { all: ALL, longest: 64 * UNIT, unit: UNIT, kept: ALL / 2 })
    }

    #[test]
    fn whoever_has_nothing_on_its_way_gets_something() {
        let memory = memory();
        let mut held = Vec::new();
        for n in 0..512 {
            let share = memory.share();
            let first = share.room(ALL).now_or_never().unwrap_or_else(|| panic!("reader {n} waits"));
            let mut rooms = vec![first];
            // As greedy as it may be.
            while let Some(Some(room)) = (rooms.len() < 100).then(|| share.room(ALL).now_or_never()) {
                rooms.push(room);
            }
            assert!(rooms.len() <= STEPS, "{} steps", rooms.len());
            held.push((share, rooms));
        }
        // And again, in whatever order they get on.
        for (share, rooms) in held.iter_mut().rev() {
            rooms.clear();
            rooms.push(share.room(ALL).now_or_never().expect("there is room"));
        }
        drop(held);
        assert!(memory.idle().now_or_never().is_some());
    }

    #[test]
    fn one_reader_has_long_steps_and_no_more_than_it_wants() {
        let (memory, bytes) = (memory(), |room: Option<Room>| room.map(|room| room.bytes));
        let share = memory.share();
        assert_eq!(bytes(share.more(ALL)), Some(64 * UNIT));
        assert_eq!(bytes(share.more(UNIT + 1)), Some(2 * UNIT));
        assert_eq!(bytes(share.more(1)), Some(UNIT));
        let others: Vec<Share> = (0..255).map(|_| memory.share()).collect();
        assert_eq!(bytes(share.more(ALL)), Some(2 * UNIT));
        drop(others);
        assert_eq!(bytes(share.room(ALL).now_or_never()), Some(64 * UNIT));
    }

    #[test]
    fn a_reader_goes_on_when_its_client_has_taken_what_it_got() {
        let memory = memory();
        let share = memory.share();
        let room = || share.room(ALL).now_or_never();
        let (first, second) = (room().expect("free"), room().expect("free"));
        assert!(room().is_none(), "both steps are on their way");
        drop(first);
        let third = room().expect("one of two is free");
        // Others take all that long steps may be of, and again what comes free of it.
        let others: Vec<Share> = (0..550).map(|_| memory.share()).collect();
        let take = |others: &[Share]| -> Vec<Option<Room>> {
            others.iter().map(|other| other.room(ALL).now_or_never()).collect()
        };
        let mut taken = take(&others[..450]);
        drop(second);
        taken.extend(take(&others[450..]));
        assert_eq!((taken.iter().flatten().count(), memory.step()), (550, 0));
        assert!(room().is_none(), "one is still on its way, and others need what is left");
        drop(third);
        assert!(room().is_some());
        drop((taken, others));
        assert_eq!(room().map(|room| room.bytes), Some(64 * UNIT));
    }
}
