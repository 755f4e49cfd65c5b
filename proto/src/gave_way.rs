//! Writes to tags that gave way to others at the same time: remembered for a while, so that members which never had
//! them can show them. Nothing is decided by these records; what counts is the catalog's.

use alloc::collections::VecDeque;

use crate::{shared::Shared, wire::Message};

/// The last few of them.
#[derive(Debug, Default)]
pub struct GaveWay {
    records: VecDeque<Shared>,
}

impl GaveWay {
    /// Most that are remembered.
    pub const MAX: usize = 32;

    /// Remembers a record that was checked. False where it is remembered already.
    pub fn note(&mut self, record: &Shared) -> bool {
        if self.records.contains(record) {
            return false;
        }
        if self.records.len() >= Self::MAX {
            self.records.pop_front();
        }
        self.records.push_back(record.clone());
        true
    }

    /// What a member that has just come is told; nothing where there is none.
    pub fn message(&self) -> Option<Message> {
        (!self.records.is_empty()).then(|| Message::Records(self.records.iter().cloned().collect()))
    }
}
