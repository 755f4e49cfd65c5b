//! What happens next: requests whose first byte arrives, and sessions that have something to do. A session has
//! one entry that counts; where its time moves back, the entry stays and is put right when it comes up.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::setup::Nanos;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// The first byte of a request, by its slot.
    Arrival(u32),
    /// A request of a session is complete, or its window doubles.
    Session(u32),
}

/// In the order of time, then of what it is.
#[derive(Default)]
pub struct Queue {
    entries: BinaryHeap<Reverse<(Nanos, Event)>>,
    /// When the entry of a session that counts is, by the session.
    sessions: Vec<Nanos>,
}

impl Queue {
    /// A request arrives.
    pub fn arrival(&mut self, at: Nanos, slot: u32) {
        self.entries.push(Reverse((at, Event::Arrival(slot))));
    }

    /// A session is to be looked at no later than this.
    pub fn session(&mut self, due: Nanos, index: u32) {
        if self.sessions.len() <= index as usize {
            self.sessions.resize(index as usize + 1, Nanos::MAX);
        }
        if due < self.sessions[index as usize] {
            self.sessions[index as usize] = due;
            self.entries.push(Reverse((due, Event::Session(index))));
        }
    }

    /// When the next thing happens, asking sessions when they are truly due.
    pub fn next(&mut self, due: impl Fn(u32) -> Nanos) -> Option<Nanos> {
        while let Some(Reverse((at, event))) = self.entries.peek().copied() {
            let Event::Session(index) = event else { return Some(at) };
            let counts = self.sessions[index as usize] == at;
            let truly = due(index);
            if counts && truly <= at {
                return Some(at);
            }
            self.entries.pop();
            if counts {
                self.sessions[index as usize] = Nanos::MAX;
                if truly != Nanos::MAX {
                    self.session(truly, index);
                }
            }
        }
        None
    }

    /// Takes what [`Queue::next`] saw.
    pub fn pop(&mut self) -> Option<(Nanos, Event)> {
        let Reverse((at, event)) = self.entries.pop()?;
        if let Event::Session(index) = event {
            self.sessions[index as usize] = Nanos::MAX;
        }
        Some((at, event))
    }
}
