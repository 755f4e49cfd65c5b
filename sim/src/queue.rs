//! What is going to happen, in the order of time and, at one time, in the order in which it was decided.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::setup::Nanos;

/// Things that are due at times.
pub struct Queue<T> {
    /// When, in which turn, and which slot, as one number: what is compared and moved about all the time is small.
    heap: BinaryHeap<Reverse<u128>>,
    /// What is large lies still.
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    sequence: u64,
    /// The number of what was taken out last.
    current: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue { heap: BinaryHeap::new(), slots: Vec::new(), free: Vec::new(), sequence: 0, current: 0 }
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
        self.heap.push(Reverse(entry(at, self.sequence, slot)));
    }

    /// When the next thing is due.
    pub fn next(&self) -> Option<Nanos> {
        self.heap.peek().map(|Reverse(entry)| (entry >> TURN_BITS) as Nanos)
    }

    /// The next thing, if it is due by then, and when it is due.
    pub fn pop(&mut self, by: Nanos) -> Option<(Nanos, T)> {
        if self.next()? > by {
            return None;
        }
        let Reverse(entry) = self.heap.pop()?;
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
        self.heap.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

fn entry(at: Nanos, sequence: u64, slot: u32) -> u128 {
    u128::from(at) << TURN_BITS | u128::from(sequence << SLOT_BITS | u64::from(slot))
}

/// Of the turn and the slot together.
const TURN_BITS: u32 = 64;
/// Of the slot: 268 million things may wait, and 68,000 million may ever be added.
const SLOT_BITS: u32 = 28;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;

#[cfg(test)]
mod tests {
    use super::*;

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
