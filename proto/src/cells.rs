//! A blob cut into equal cells: the grain in which nodes tell one another what of it they have, and agree who
//! fetches what. The cut follows from the blob's size alone, so that it is the same everywhere. Requests may be
//! of several cells.

use alloc::vec::Vec;
use core::ops::Range;

use crate::ranges::Ranges;

/// How a blob is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    size: u64,
    cell: u64,
}

/// A set of a blob's cells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cells {
    words: Vec<u64>,
    count: usize,
}

impl Grid {
    /// The cut of a blob of so many bytes: some hundreds of cells where that makes them neither tiny nor huge,
    /// and never more than [`Grid::CELLS_MAX`].
    pub fn of(size: u64) -> Self {
        let wanted = (size / CELLS_WANTED).next_power_of_two().clamp(CELL_MIN, CELL_MAX);
        let least = size.div_ceil(Grid::CELLS_MAX as u64).next_power_of_two();
        Grid { size, cell: wanted.max(least) }
    }

    /// Most cells of any blob.
    pub const CELLS_MAX: usize = 16_384;

    /// How many cells there are.
    pub fn count(&self) -> usize {
        usize::try_from(self.size.div_ceil(self.cell)).unwrap_or(Grid::CELLS_MAX)
    }

    /// Bytes of each cell but the last.
    pub fn cell_bytes(&self) -> u64 {
        self.cell
    }

    /// The bytes of these cells.
    pub fn bytes(&self, cells: Range<usize>) -> Range<u64> {
        let at = |cell: usize| (cell as u64).saturating_mul(self.cell).min(self.size);
        at(cells.start)..at(cells.end)
    }

    /// The cells that a range of bytes touches.
    pub fn touched(&self, range: &Range<u64>) -> Range<usize> {
        let at = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX).min(self.count());
        at(range.start / self.cell)..at(range.end.div_ceil(self.cell))
    }

    /// The cells of which any byte is in a set.
    pub fn touching(&self, bytes: &Ranges) -> Cells {
        let mut cells = Cells::none(self.count());
        bytes.iter().for_each(|range| cells.insert_all(self.touched(&range)));
        cells
    }

    /// The cells of which every byte is in `have`.
    pub fn whole(&self, have: &Ranges) -> Cells {
        let mut cells = Cells::none(self.count());
        for range in have.iter() {
            let first = usize::try_from(range.start.div_ceil(self.cell)).unwrap_or(usize::MAX);
            let end = if range.end >= self.size {
                self.count()
            } else {
                usize::try_from(range.end / self.cell).unwrap_or(usize::MAX)
            };
            cells.insert_all(first..end);
        }
        cells
    }
}

impl Cells {
    /// None of `count`.
    pub fn none(count: usize) -> Self {
        Cells { words: alloc::vec![0; count.div_ceil(64)], count }
    }

    /// All of `count`.
    pub fn all(count: usize) -> Self {
        let mut cells = Cells::none(count);
        cells.insert_all(0..count);
        cells
    }

    /// Adds a cell. One that the blob does not have is not added.
    pub fn insert(&mut self, cell: usize) {
        if cell < self.count {
            self.words[cell / 64] |= 1 << (cell % 64);
        }
    }

    /// Adds cells in a row, as far as the blob has them.
    pub fn insert_all(&mut self, cells: Range<usize>) {
        let end = cells.end.min(self.count);
        let mut at = cells.start;
        while at < end {
            let upto = end.min((at / 64 + 1) * 64);
            self.words[at / 64] |= (u64::MAX >> (64 - (upto - at))) << (at % 64);
            at = upto;
        }
    }

    /// Takes out all that are in another set of the same blob.
    pub fn remove_all(&mut self, other: &Cells) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, less)| *word &= !less);
    }

    /// Adds what two other sets of the same blob share.
    pub fn join_common(&mut self, one: &Cells, other: &Cells) {
        let common = one.words.iter().zip(&other.words).map(|(one, other)| one & other);
        self.words.iter_mut().zip(common).for_each(|(word, more)| *word |= more);
    }

    /// The cells in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(at, word)| {
            let rest = |word: &u64| Some(word & (word - 1)).filter(|word| *word != 0);
            let words = core::iter::successors(Some(*word).filter(|word| *word != 0), rest);
            words.map(move |word| at * 64 + word.trailing_zeros() as usize)
        })
    }

    /// Adds all that are in another set of the same blob.
    pub fn join(&mut self, other: &Cells) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, more)| *word |= more);
    }

    /// Adds those of another set of the same blob that are not in this one and takes out those that are; which were.
    pub fn toggle_all(&mut self, other: &Cells) -> Cells {
        let words = self.words.iter_mut().zip(&other.words).map(|(word, other)| {
            let both = *word & other;
            *word ^= other;
            both
        });
        Cells { words: words.collect(), count: self.count }
    }

    /// Whether a cell is in the set.
    pub fn contains(&self, cell: usize) -> bool {
        cell < self.count && self.words[cell / 64] >> (cell % 64) & 1 == 1
    }

    /// How many cells the blob has.
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many cells are in the set.
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// The set as it travels: a bit a cell, the lowest first, without zeros at the end.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(end);
        bytes
    }

    /// Reads what [`Cells::to_bytes`] wrote, for a blob of `count` cells; nothing if it is not that.
    pub fn from_bytes(bytes: &[u8], count: usize) -> Option<Self> {
        let mut cells = Cells::none(count);
        for (at, byte) in bytes.iter().enumerate() {
            for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
                if at * 8 + bit >= count {
                    return None;
                }
                cells.insert(at * 8 + bit);
            }
        }
        Some(cells)
    }
}

/// How many cells a blob has if that makes none smaller or larger than these.
const CELLS_WANTED: u64 = 512;
/// 20 ms at 50 Mbit/s; what is smaller costs more in requests than it gains in time.
const CELL_MIN: u64 = 128 * 1024;
const CELL_MAX: u64 = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_grid_covers_any_blob_without_gaps(size in prop_oneof![0..1u64 << 24, any::<u64>()]) {
            let grid = Grid::of(size);
            prop_assert!(grid.count() <= Grid::CELLS_MAX && grid.cell_bytes().is_multiple_of(16_384));
            prop_assert_eq!(grid.bytes(0..grid.count()), 0..size);
            let middle = grid.count() / 2;
            prop_assert_eq!(grid.bytes(0..middle).end, grid.bytes(middle..grid.count()).start);
        }

        #[test]
        fn whole_cells_are_those_without_a_missing_byte(
            size in 1..4 * CELL_MIN + 7,
            a in 0..5 * CELL_MIN,
            b in 0..5 * CELL_MIN,
        ) {
            let (grid, mut have) = (Grid::of(size), Ranges::new());
            have.insert(a.min(b).min(size)..a.max(b).min(size));
            let whole = grid.whole(&have);
            for cell in 0..grid.count() {
                let mut missing = Ranges::new();
                missing.insert(grid.bytes(cell..cell + 1));
                have.iter().for_each(|range| missing.remove(range));
                prop_assert_eq!(whole.contains(cell), missing.is_empty());
            }
        }

        #[test]
        fn sets_survive_the_journey(count in 1usize..300, some in prop::collection::vec(0usize..300, 0..40)) {
            let mut cells = Cells::none(count);
            some.iter().for_each(|cell| cells.insert(*cell));
            prop_assert_eq!(Cells::from_bytes(&cells.to_bytes(), count), Some(cells));
        }

        /// Against sets of numbers.
        #[test]
        fn like_sets(count in 1usize..300, a in 0usize..320, b in 0usize..320, some in prop::collection::btree_set(0usize..300, 0..40)) {
            let set = |cells: &Cells| cells.iter().collect::<BTreeSet<usize>>();
            let (mut row, mut others) = (Cells::none(count), Cells::none(count));
            row.insert_all(a..b);
            some.iter().for_each(|cell| others.insert(*cell));
            let (in_row, in_others) = (set(&row), set(&others));
            prop_assert_eq!(&in_row, &(a..b).filter(|cell| *cell < count).collect());
            prop_assert_eq!(&in_others, &some.into_iter().filter(|cell| *cell < count).collect());
            let mut common = Cells::none(count);
            common.join_common(&row, &others);
            prop_assert_eq!(set(&common), &in_row & &in_others);
            let mut less = row.clone();
            less.remove_all(&others);
            prop_assert_eq!(set(&less), &in_row - &in_others);
            row.join(&others);
            prop_assert_eq!(set(&row), &in_row | &in_others);
        }

        #[test]
        fn any_bytes_are_a_set_or_nothing(bytes in prop::collection::vec(any::<u8>(), 0..64), count in 0usize..300) {
            if let Some(cells) = Cells::from_bytes(&bytes, count) {
                prop_assert!(cells.len() <= count);
            }
        }
    }
}
