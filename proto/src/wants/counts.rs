//! How many of several sets each cell is in, counted for 64 cells at a time.

use crate::cells::Cells;

/// The digits of the sums, the lowest first: [`DIGITS`] of them.
#[derive(Debug, Default)]
pub(super) struct Counts {
    digits: [Cells; DIGITS],
    /// Added to each.
    in_all: usize,
}

impl Counts {
    /// Of none, of so many cells.
    pub(super) fn none(cells: usize) -> Self {
        Counts { digits: core::array::from_fn(|_| Cells::none(cells)), in_all: 0 }
    }

    /// One more set; a sum that [`DIGITS`] cannot hold stays at the most that they can.
    pub(super) fn add(&mut self, set: &Cells) {
        let mut carried = set.clone();
        for digit in &mut self.digits {
            if carried.is_empty() {
                return;
            }
            carried = digit.toggle_all(&carried);
        }
        self.digits.iter_mut().for_each(|digit| digit.join(&carried));
    }

    /// One more set of all cells.
    pub(super) fn add_all(&mut self) {
        self.in_all += 1;
    }

    /// Of how many a cell is part.
    pub(super) fn of(&self, cell: usize) -> usize {
        let digits = self.digits.iter().enumerate();
        self.in_all + digits.map(|(place, digit)| usize::from(digit.contains(cell)) << place).sum::<usize>()
    }

    /// The highest sum.
    #[cfg(test)]
    const MOST: usize = (1 << DIGITS) - 1;
}

const DIGITS: usize = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cell_is_counted_as_often_as_it_was_added() {
        let mut counts = Counts::none(200);
        for at in 0..200 {
            let mut set = Cells::none(200);
            set.insert_all(0..at);
            counts.add(&set);
        }
        counts.add_all();
        for cell in 0..200 {
            assert_eq!(counts.of(cell), 1 + (199 - cell).min(Counts::MOST), "{cell}");
        }
    }
}
