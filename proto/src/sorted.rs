//! A sorted set that costs little more than what it holds: a catalog keeps the same records in several orders,
//! and a simulator keeps thousands of catalogs. Owns the layout; the order is the caller's, who gives it with
//! each call and always gives the same.
//!
//! Items lie in short sorted pieces, each beside a number that sorts as the items do as far as it tells them apart:
//! items are pointers to records, and to follow a dozen of them for each search costs much more than to compare
//! numbers that lie together. With items of eight bytes it takes about eighteen bytes an item; a `BTreeMap` from a key
//! of 32 bytes to them takes sixty. Clones share pieces until one of them changes a piece, so thousands of catalogs
//! that know the same take the room of one.

use alloc::{sync::Arc, vec::Vec};
use core::{cmp::Ordering, ops::RangeInclusive};

/// Items in an order.
#[derive(Clone, Debug)]
pub(crate) struct Sorted<T> {
    /// Each sorted, all before all of the next, none empty.
    pieces: Vec<Piece<T>>,
    len: usize,
}

/// Items that lie together.
#[derive(Clone, Debug)]
struct Piece<T> {
    /// The number of the last of them.
    last: u64,
    items: Arc<Vec<(u64, T)>>,
}

/// The numbers of what is looked for: an item with a lower one is before it and one with a higher one after it,
/// whatever else the item is.
pub(crate) type Numbers = RangeInclusive<u64>;

impl<T> Default for Sorted<T> {
    fn default() -> Self {
        Sorted { pieces: Vec::new(), len: 0 }
    }
}

impl<T> Sorted<T> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.pieces.iter().flat_map(|piece| piece.items.iter().map(|(_, item)| item))
    }

    /// The one with so many before it.
    pub(crate) fn at(&self, mut before: usize) -> Option<&T> {
        for piece in &self.pieces {
            match piece.items.get(before) {
                Some((_, item)) => return Some(item),
                None => before -= piece.items.len(),
            }
        }
        None
    }

    /// The first of these numbers for which `place` says that it is at the place that is looked for.
    pub(crate) fn get(&self, numbers: Numbers, place: impl Fn(&T) -> Ordering) -> Option<&T> {
        let (piece, at) = self.first(&numbers, &place);
        let (number, item) = self.pieces.get(piece)?.items.get(at)?;
        (numbers.contains(number) && place(item) == Ordering::Equal).then_some(item)
    }

    /// All of these numbers for which `place` says that they are at the places that are looked for, in order.
    pub(crate) fn range(
        &self,
        numbers: Numbers,
        place: impl Fn(&T) -> Ordering,
    ) -> impl DoubleEndedIterator<Item = &T> {
        let (from, to) = self.bounds(&numbers, &place);
        let pieces = self.pieces.get(from.0..(to.0 + 1).min(self.pieces.len())).unwrap_or_default();
        let last = to.0 - from.0;
        pieces.iter().enumerate().flat_map(move |(n, piece)| {
            let start = if n == 0 { from.1 } else { 0 };
            let end = if n == last { to.1 } else { piece.items.len() };
            piece.items[start..end].iter().map(|(_, item)| item)
        })
    }

    /// How many are at the places that are looked for, without looking at each.
    pub(crate) fn count(&self, numbers: Numbers, place: impl Fn(&T) -> Ordering) -> usize {
        let (from, to) = self.bounds(&numbers, &place);
        let whole = self.pieces.get(from.0..to.0).unwrap_or_default();
        whole.iter().map(|piece| piece.items.len()).sum::<usize>() + to.1 - from.1
    }

    fn bounds(&self, numbers: &Numbers, place: &impl Fn(&T) -> Ordering) -> ((usize, usize), (usize, usize)) {
        let from = self.first(numbers, place);
        (from, self.seek(numbers, |item| place(item) != Ordering::Greater).max(from))
    }

    /// Piece and place of the first that is not before the place that is looked for.
    fn first(&self, numbers: &Numbers, place: &impl Fn(&T) -> Ordering) -> (usize, usize) {
        self.seek(numbers, |item| place(item) == Ordering::Less)
    }

    /// The same for whatever is before it by these numbers and, within them, by `is_before`.
    fn seek(&self, numbers: &Numbers, is_before: impl Fn(&T) -> bool) -> (usize, usize) {
        let (low, high) = (*numbers.start(), *numbers.end());
        let piece = self.pieces.partition_point(|piece| {
            let ends_before = || piece.items.last().is_some_and(|(_, item)| is_before(item));
            piece.last < low || (piece.last <= high && ends_before())
        });
        let is_before = |(number, item): &(u64, T)| *number < low || (*number <= high && is_before(item));
        (piece, self.pieces.get(piece).map_or(0, |piece| piece.items.partition_point(is_before)))
    }
}

impl<T: Clone> Sorted<T> {
    /// Puts an item in its place; returns the one that was there. Its number must sort as `order` does.
    pub(crate) fn insert(&mut self, number: u64, item: T, order: impl Fn(&T, &T) -> Ordering) -> Option<T> {
        let (piece, at) = self.first(&(number..=number), &|other: &T| order(other, &item));
        // Past the last piece is at the end of it.
        let (piece, at) = match self.pieces.len() {
            0 => {
                self.pieces.push(Piece { last: number, items: Arc::default() });
                (0, 0)
            }
            count if piece == count => (count - 1, self.pieces[count - 1].items.len()),
            _ => (piece, at),
        };
        let Piece { last, items } = &mut self.pieces[piece];
        let items = own(items);
        if let Some((known, there)) = items.get_mut(at)
            && *known == number
            && order(there, &item) == Ordering::Equal
        {
            return Some(core::mem::replace(there, item));
        }
        if items.len() == items.capacity() {
            items.reserve_exact(GROWTH);
        }
        items.insert(at, (number, item));
        self.len += 1;
        *last = (*last).max(number);
        if items.len() > PIECE {
            let mut second = Vec::with_capacity(PIECE / 2 + GROWTH);
            second.extend(items.drain(PIECE / 2..));
            items.shrink_to(PIECE / 2 + GROWTH);
            let end = core::mem::replace(last, items[PIECE / 2 - 1].0);
            self.pieces.insert(piece + 1, Piece { last: end, items: Arc::new(second) });
        }
        None
    }

    /// Takes the first of these numbers out that is at the place that is looked for.
    pub(crate) fn remove(&mut self, numbers: Numbers, place: impl Fn(&T) -> Ordering) -> Option<T> {
        let (piece, at) = self.first(&numbers, &place);
        let Piece { last, items } = self.pieces.get_mut(piece)?;
        let (number, there) = items.get(at)?;
        if !numbers.contains(number) || place(there) != Ordering::Equal {
            return None;
        }
        let items = own(items);
        let (_, item) = items.remove(at);
        self.len -= 1;
        let left = items.len();
        if let Some((end, _)) = items.last() {
            *last = *end;
        }
        if left == 0 {
            self.pieces.remove(piece);
        } else if left < PIECE / 4
            && self.pieces.get(piece + 1).is_some_and(|next| next.items.len() + left <= PIECE / 2)
        {
            let next = self.pieces.remove(piece + 1);
            let items = Arc::try_unwrap(next.items).unwrap_or_else(|shared| shared.to_vec());
            own(&mut self.pieces[piece].items).extend(items);
            self.pieces[piece].last = next.last;
        }
        Some(item)
    }
}

/// A piece to change: a copy of its own, with room for more, where others have it too.
fn own<T: Clone>(piece: &mut Arc<Vec<T>>) -> &mut Vec<T> {
    if Arc::get_mut(piece).is_none() {
        let mut copy = Vec::with_capacity(piece.len() + GROWTH);
        copy.extend_from_slice(piece);
        *piece = Arc::new(copy);
    }
    Arc::make_mut(piece)
}

/// Longest piece.
const PIECE: usize = 128;
/// By how many places a piece grows: to double it would waste a third of it.
const GROWTH: usize = 16;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Tells only some apart.
    fn number(key: u32) -> u64 {
        u64::from(key / 7)
    }

    /// Tells none apart.
    const ANY: Numbers = 0..=0;

    proptest! {
        #[test]
        fn does_what_a_tree_does(steps in prop::collection::vec((any::<bool>(), 0u32..800), 0..3_000)) {
            let (mut sorted, mut tree) = (Sorted::default(), BTreeMap::new());
            for (step, (takes_out, key)) in steps.into_iter().enumerate() {
                // Runs of the one or the other, so that pieces split and join.
                if takes_out && step / 500 % 2 == 1 {
                    let number = number(key);
                    let removed = sorted.remove(number..=number, |(other, _): &(u32, usize)| other.cmp(&key));
                    prop_assert_eq!(removed.map(|(_, step)| step), tree.remove(&key));
                } else {
                    let replaced = sorted.insert(number(key), (key, step), |one, other| one.0.cmp(&other.0));
                    prop_assert_eq!(replaced.map(|(_, step)| step), tree.insert(key, step));
                }
            }
            prop_assert_eq!((sorted.len(), sorted.is_empty()), (tree.len(), tree.is_empty()));
            prop_assert!(sorted.iter().copied().eq(tree.iter().map(|(key, step)| (*key, *step))));
            let found: Vec<Option<u32>> = (0..=tree.len()).map(|n| sorted.at(n).map(|item| item.0)).collect();
            let expected: Vec<Option<u32>> = tree.keys().copied().map(Some).chain([None]).collect();
            prop_assert_eq!(found, expected);
            for from in (0..800).step_by(37) {
                let within = |item: &(u32, usize)| match item.0 {
                    key if key < from => Ordering::Less,
                    key if key >= from + 150 => Ordering::Greater,
                    _ => Ordering::Equal,
                };
                let numbers = || number(from)..=number(from + 149);
                let expected: Vec<usize> = tree.range(from..from + 150).map(|(_, step)| *step).collect();
                let found: Vec<usize> = sorted.range(numbers(), within).map(|(_, step)| *step).collect();
                prop_assert_eq!(&found, &expected);
                prop_assert_eq!(sorted.count(numbers(), within), expected.len());
                prop_assert_eq!(sorted.get(numbers(), within).map(|(_, step)| *step), expected.first().copied());
                let last = sorted.range(numbers(), within).next_back().map(|(_, step)| *step);
                prop_assert_eq!(last, expected.last().copied());
            }
        }
    }

    #[test]
    fn clones_share_what_neither_has_changed() {
        let mut sorted = Sorted::default();
        (0..1_000u32).for_each(|n| assert_eq!(sorted.insert(0, n * 2, u32::cmp), None));
        let mut other = sorted.clone();
        assert_eq!(other.insert(0, 7, u32::cmp), None);
        assert_eq!(other.remove(ANY, |n| n.cmp(&1_500)), Some(1_500));
        assert!(sorted.iter().copied().eq((0..1_000).map(|n| n * 2)), "the first is as it was");
        assert_eq!(
            (other.len(), other.get(ANY, |n| n.cmp(&7)), other.get(ANY, |n| n.cmp(&1_500))),
            (1_000, Some(&7), None)
        );
        let shared = |piece: &&Piece<u32>| Arc::strong_count(&piece.items) == 2;
        let count = sorted.pieces.iter().filter(shared).count();
        assert_eq!(count, sorted.pieces.len() - 2);
    }

    #[test]
    fn wastes_little() {
        let mut sorted = Sorted::default();
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let item = rng.u64(..);
            sorted.insert(item, item, u64::cmp);
        }
        let room: usize = sorted.pieces.iter().map(|piece| piece.items.capacity()).sum();
        assert!(room < 20_000 * 5 / 4, "{room}");
    }
}
