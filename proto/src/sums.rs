//! Sums over the ids of a catalog's records, kept by the first byte of the id, so that to compare whole catalogs costs
//! 256 additions and to compare parts little more. Which records they are over is [`crate::catalog`]'s business.

use alloc::vec::Vec;
use core::ops::RangeInclusive;

use crate::{
    reconcile::{Position, Sum},
    record::RecordId,
};

/// Sums over some records.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sums {
    /// Of the ids that share their first byte, none before the first record.
    parts: Vec<Sum>,
    total: Sum,
}

/// A range of positions as whole first bytes and what is left at its ends.
pub(crate) struct Split {
    /// All of it: the total will do.
    pub(crate) everything: bool,
    /// First bytes all of whose positions are in it.
    pub(crate) whole: core::ops::Range<usize>,
    /// Parts at its ends.
    pub(crate) ends: [Option<RangeInclusive<Position>>; 2],
}

impl Sums {
    /// Adds an id.
    pub(crate) fn add(&mut self, id: &RecordId) {
        self.total.add(id);
        if self.parts.is_empty() {
            self.parts.resize(1 << 8, Sum::default());
        }
        self.parts[usize::from(id.0[0])].add(id);
    }

    /// Takes an id away that was added.
    pub(crate) fn remove(&mut self, id: &RecordId) {
        self.total.remove(id);
        if let Some(part) = self.parts.get_mut(usize::from(id.0[0])) {
            part.remove(id);
        }
    }

    /// The sum over what of a range needs no look at single records.
    pub(crate) fn of(&self, split: &Split) -> Sum {
        if split.everything {
            return self.total;
        }
        let mut sum = Sum::default();
        self.parts.get(split.whole.clone()).into_iter().flatten().for_each(|part| sum.add_sum(part));
        sum
    }
}

impl Split {
    /// Splits a range, which is not empty.
    pub(crate) fn of(range: RangeInclusive<Position>) -> Self {
        let (from, to) = range.into_inner();
        let (first, last) = ((from >> BYTE_SHIFT) as usize, (to >> BYTE_SHIFT) as usize);
        let (start, end) = ((first as Position) << BYTE_SHIFT, (last as Position) << BYTE_SHIFT | LOW_BITS);
        let (starts_whole, ends_whole) = (from == start, to == end);
        let everything = from == 0 && to == Position::MAX;
        if first == last && !(starts_whole && ends_whole) {
            return Split { everything, whole: 0..0, ends: [Some(from..=to), None] };
        }
        let whole = first + usize::from(!starts_whole)..last + usize::from(ends_whole);
        let head = (!starts_whole).then_some(from..=start | LOW_BITS);
        let tail = (!ends_whole).then_some(end & !LOW_BITS..=to);
        Split { everything, whole, ends: [head, tail] }
    }
}

const BYTE_SHIFT: u32 = 120;
const LOW_BITS: Position = (1 << BYTE_SHIFT) - 1;
