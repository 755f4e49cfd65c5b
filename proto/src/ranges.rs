//! A set of byte positions as sorted, disjoint, half-open ranges: which part of a blob is here.

use alloc::vec::Vec;
use core::ops::Range;

/// Byte ranges that neither overlap nor touch, in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<Range<u64>>);

impl Ranges {
    /// No bytes.
    pub const fn new() -> Self {
        Ranges(Vec::new())
    }

    /// The first `size` bytes.
    pub fn all(size: u64) -> Self {
        let mut all = Ranges::new();
        all.insert(0..size);
        all
    }

    /// Adds a range.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let from = self.0.partition_point(|have| have.end < range.start);
        let to = self.0.partition_point(|have| have.start <= range.end);
        let merged =
            self.0[from..to].iter().fold(range, |sum, have| sum.start.min(have.start)..sum.end.max(have.end));
        self.0.splice(from..to, [merged]);
    }

    /// Takes a range out.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let from = self.0.partition_point(|have| have.end <= range.start);
        let to = self.0.partition_point(|have| have.start < range.end);
        let Some((first, last)) = self.0.get(from..to).and_then(|cut| Some((cut.first()?, cut.last()?))) else {
            return;
        };
        let rest = [first.start..range.start, range.end..last.end];
        self.0.splice(from..to, rest.into_iter().filter(|part| !part.is_empty()));
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().cloned()
    }

    /// The lowest range.
    pub fn first(&self) -> Option<Range<u64>> {
        self.0.first().cloned()
    }

    /// The lowest part of the set within a range.
    pub fn within(&self, range: &Range<u64>) -> Option<Range<u64>> {
        let from = self.0.partition_point(|have| have.end <= range.start);
        let first = self.0.get(from)?;
        let part = first.start.max(range.start)..first.end.min(range.end);
        (!part.is_empty()).then_some(part)
    }

    /// Whether every byte of a range is in the set.
    pub fn contains(&self, range: &Range<u64>) -> bool {
        range.is_empty() || self.within(range).as_ref() == Some(range)
    }

    /// How many bytes.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What of `0..size` is not in the set.
    pub fn missing(&self, size: u64) -> Ranges {
        let mut missing = Vec::with_capacity(self.0.len() + 1);
        let mut end = 0;
        for range in &self.0 {
            missing.push(end..range.start.min(size));
            end = range.end;
        }
        missing.push(end..size);
        missing.retain(|range| !range.is_empty());
        Ranges(missing)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against the plainest model there is: one flag a byte.
        #[test]
        fn like_a_bitmap(edits in prop::collection::vec((any::<bool>(), 0u64..64, 0u64..64), 0..24)) {
            let mut model = [false; 64];
            let mut ranges = Ranges::new();
            for (add, a, b) in edits {
                let range = a.min(b)..a.max(b);
                for position in range.clone() {
                    model[position as usize] = add;
                }
                if add { ranges.insert(range) } else { ranges.remove(range) }
            }
            let mut seen = [false; 64];
            let mut end = None;
            for range in ranges.iter() {
                prop_assert!(range.start < range.end && end.is_none_or(|end| end < range.start));
                end = Some(range.end);
                seen[range.start as usize..range.end as usize].fill(true);
            }
            prop_assert_eq!(seen, model);
            prop_assert_eq!(ranges.len(), model.iter().filter(|b| **b).count() as u64);
            prop_assert_eq!(ranges.missing(64).len(), 64 - ranges.len());
            for (a, b) in [(0, 64), (10, 20), (33, 34), (40, 40)] {
                let all = model[a..b].iter().all(|have| *have);
                prop_assert_eq!(ranges.contains(&(a as u64..b as u64)), all);
                let first = (a..b).find(|at| model[*at]);
                let part = first.map(|from| from as u64..(from..b).find(|at| !model[*at]).unwrap_or(b) as u64);
                prop_assert_eq!(ranges.within(&(a as u64..b as u64)), part);
            }
        }
    }
}
