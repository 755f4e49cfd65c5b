//! What is going to happen, in the order of time and, at one time, in the order in which it was decided.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::setup::Nanos;

/// Things that are due at times.
pub struct Queue<T> {
    /// When, in which turn, and which slot, as one number: what is compared and moved about all the time is small.
    /// All of the stretches of time up to one: few, so that they are soon in order. Empty only where all is.
    near: BinaryHeap<Reverse<u128>>,
    /// The last of those stretches.
    reached: u64,
    /// Those of the stretches that follow, each in no order, from the first on over and over.
    soon: Vec<Vec<Reverse<u128>>>,
    /// How many there are in these.
    soon_count: usize,
    /// What was too far off for these when it was added.
    far: BinaryHeap<Reverse<u128>>,
    /// What is large lies still.
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    sequence: u64,
    /// The number of what was taken out last.
    current: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue {
            near: BinaryHeap::new(),
            reached: 0,
            soon: (0..STRETCHES).map(|_| Vec::new()).collect(),
            soon_count: 0,
            far: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            sequence: 0,
            current: 0,
        }
    }
}

impl<T> Queue<T> {
    /// Adds something that is due then.
    pub fn push(&mut self, at: Nanos, what: T) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        self.slots[slot as usize] = Some(what);
        self.sequence += 1;
        self.put(Reverse(entry(at, self.sequence, slot)));
        if self.near.is_empty() {
            self.reach_on();
        }
    }

    fn put(&mut self, entry: Reverse<u128>) {
        let stretch = stretch_of(&entry);
        match stretch.checked_sub(self.reached) {
            None | Some(0) => self.near.push(entry),
            Some(ahead) if ahead < STRETCHES => {
                self.soon[(stretch % STRETCHES) as usize].push(entry);
                self.soon_count += 1;
            }
            _ => self.far.push(entry),
        }
    }

    /// Goes on to the next stretch in which there is anything, if there is one.
    fn reach_on(&mut self) {
        let far = self.far.peek().map(stretch_of);
        let mut ahead = self.reached + 1..self.reached + STRETCHES;
        let soon = match self.soon_count {
            0 => None,
            _ => ahead.find(|stretch| !self.soon[(stretch % STRETCHES) as usize].is_empty()),
        };
        let Some(next) = far.into_iter().chain(soon).min() else { return };
        self.reached = next;
        let entries = &mut self.soon[(next % STRETCHES) as usize];
        self.soon_count -= entries.len();
        self.near.extend(entries.drain(..));
        while self.far.peek().is_some_and(|entry| stretch_of(entry) <= next) {
            self.near.extend(self.far.pop());
        }
    }

    /// When the next thing is due.
    pub fn next(&self) -> Option<Nanos> {
        self.near.peek().map(|Reverse(entry)| (entry >> TURN_BITS) as Nanos)
    }

    /// The next thing, if it is due by then, and when it is due.
    pub fn pop(&mut self, by: Nanos) -> Option<(Nanos, T)> {
        if self.next()? > by {
            return None;
        }
        let Reverse(entry) = self.near.pop()?;
        if self.near.is_empty() {
            self.reach_on();
        }
        let (at, turn) = ((entry >> TURN_BITS) as Nanos, entry as u64);
        let (sequence, slot) = (turn >> SLOT_BITS, (turn & SLOT_MASK) as u32);
        self.current = sequence;
        self.free.push(slot);
        self.slots[slot as usize].take().map(|what| (at, what))
    }

    /// The number that something would have that was added now, for what is kept elsewhere and has its turn among the
    /// things in here.
    pub fn reserve(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// The number of what was taken out last.
    pub fn current(&self) -> u64 {
        self.current
    }

    /// How many things wait.
    pub fn len(&self) -> usize {
        self.near.len() + self.soon_count + self.far.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.near.is_empty()
    }
}

fn entry(at: Nanos, sequence: u64, slot: u32) -> u128 {
    u128::from(at) << TURN_BITS | u128::from(sequence << SLOT_BITS | u64::from(slot))
}

fn stretch_of(Reverse(entry): &Reverse<u128>) -> u64 {
    (entry >> TURN_BITS) as u64 >> STRETCH_BITS
}

/// A stretch is 17 ms long,
const STRETCH_BITS: u32 = 24;
/// and of the next 69 s each has a place of its own.
const STRETCHES: u64 = 4096;
/// Of the turn and the slot together.
const TURN_BITS: u32 = 64;
/// Of the slot: 268 million things may wait, and 68,000 million may ever be added.
const SLOT_BITS: u32 = 28;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is added when, also what is due before what was looked at last, comes by time and turn.
        #[test]
        fn a_queue_is_a_sorted_row(steps in prop::collection::vec((0_u8..3, 0_u64..1 << 40, 0_u32..40), 0..200)) {
            let (mut queue, mut row) = (Queue::default(), Vec::new());
            for (number, (step, at, shift)) in steps.into_iter().enumerate() {
                let at = at >> shift;
                if step > 0 {
                    queue.push(at, number);
                    row.push((at, number));
                    row.sort_unstable();
                } else {
                    let due = (row.first().is_some_and(|(due, _)| *due <= at)).then(|| row.remove(0));
                    prop_assert_eq!(queue.pop(at), due);
                }
                prop_assert_eq!(queue.next(), row.first().map(|(at, _)| *at));
                prop_assert_eq!((queue.len(), queue.is_empty()), (row.len(), row.is_empty()));
            }
            let rest: Vec<(Nanos, usize)> = std::iter::from_fn(|| queue.pop(Nanos::MAX)).collect();
            prop_assert_eq!(rest, row);
        }
    }

    #[test]
    fn the_earliest_comes_first_and_of_one_time_the_first_that_was_added() {
        let mut queue = Queue::default();
        for (at, what) in [(5, 'c'), (3, 'a'), (5, 'd'), (3, 'b')] {
            queue.push(at, what);
        }
        let mut order: Vec<char> = Vec::new();
        order.extend(queue.pop(3).map(|(_, what)| what));
        queue.push(4, 'x');
        while let Some((_, what)) = queue.pop(5) {
            order.push(what);
        }
        assert_eq!(order, ['a', 'b', 'x', 'c', 'd']);
        assert!(queue.is_empty() && queue.slots.len() == 4);
    }
}
