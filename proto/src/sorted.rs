//! A sorted set that costs little more than what it holds: a catalog keeps the same records in several orders,
//! and a simulator keeps thousands of catalogs. Owns the layout; the order is the caller's, who gives it with
//! each call and always gives the same.
//!
//! Items lie in short sorted pieces. With items of eight bytes it takes about nine bytes an item; a
//! `BTreeMap` from a key of 32 bytes to them takes sixty. Clones share pieces until one of them changes a piece, so
//! thousands of catalogs that know the same take the room of one.

use alloc::{sync::Arc, vec::Vec};
use core::cmp::Ordering;

/// Items in an order.
#[derive(Clone, Debug)]
pub(crate) struct Sorted<T> {
    /// Each sorted, all before all of the next, none empty.
    pieces: Vec<Arc<Vec<T>>>,
    len: usize,
}

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
        self.pieces.iter().flat_map(|piece| piece.iter())
    }

    /// The one with so many before it.
    pub(crate) fn at(&self, mut before: usize) -> Option<&T> {
        for piece in &self.pieces {
            match piece.get(before) {
                Some(item) => return Some(item),
                None => before -= piece.len(),
            }
        }
        None
    }

    /// The first for which `place` says that it is at the place that is looked for.
    pub(crate) fn get(&self, place: impl Fn(&T) -> Ordering) -> Option<&T> {
        let (piece, at) = self.seek(|item| place(item) == Ordering::Less);
        self.pieces.get(piece)?.get(at).filter(|item| place(item) == Ordering::Equal)
    }

    /// All for which `place` says that they are at the places that are looked for, in order.
    pub(crate) fn range(&self, place: impl Fn(&T) -> Ordering) -> impl DoubleEndedIterator<Item = &T> {
        let (from, to) = self.bounds(place);
        let pieces = self.pieces.get(from.0..(to.0 + 1).min(self.pieces.len())).unwrap_or_default();
        let last = to.0 - from.0;
        pieces.iter().enumerate().flat_map(move |(n, piece)| {
            let start = if n == 0 { from.1 } else { 0 };
            let end = if n == last { to.1 } else { piece.len() };
            &piece[start..end]
        })
    }

    /// How many are at the places that are looked for, without looking at each.
    pub(crate) fn count(&self, place: impl Fn(&T) -> Ordering) -> usize {
        let (from, to) = self.bounds(place);
        let whole = self.pieces.get(from.0..to.0).unwrap_or_default();
        whole.iter().map(|piece| piece.len()).sum::<usize>() + to.1 - from.1
    }

    fn bounds(&self, place: impl Fn(&T) -> Ordering) -> ((usize, usize), (usize, usize)) {
        let from = self.seek(|item| place(item) == Ordering::Less);
        (from, self.seek(|item| place(item) != Ordering::Greater).max(from))
    }

    /// Piece and place of the first that is not before the place that is looked for.
    fn seek(&self, is_before: impl Fn(&T) -> bool) -> (usize, usize) {
        let piece = self.pieces.partition_point(|piece| piece.last().is_some_and(&is_before));
        let at = self.pieces.get(piece).map_or(0, |items| items.partition_point(is_before));
        (piece, at)
    }
}

impl<T: Clone> Sorted<T> {
    /// Puts an item in its place; returns the one that was there.
    pub(crate) fn insert(&mut self, item: T, order: impl Fn(&T, &T) -> Ordering) -> Option<T> {
        let (piece, at) = self.seek(|other| order(other, &item) == Ordering::Less);
        // Past the last piece is at the end of it.
        let (piece, at) = match self.pieces.len() {
            0 => {
                self.pieces.push(Arc::default());
                (0, 0)
            }
            count if piece == count => (count - 1, self.pieces[count - 1].len()),
            _ => (piece, at),
        };
        let items = own(&mut self.pieces[piece]);
        if let Some(there) = items.get_mut(at)
            && order(there, &item) == Ordering::Equal
        {
            return Some(core::mem::replace(there, item));
        }
        if items.len() == items.capacity() {
            items.reserve_exact(GROWTH);
        }
        items.insert(at, item);
        self.len += 1;
        if items.len() > PIECE {
            let mut second = Vec::with_capacity(PIECE / 2 + GROWTH);
            second.extend(items.drain(PIECE / 2..));
            items.shrink_to(PIECE / 2 + GROWTH);
            self.pieces.insert(piece + 1, Arc::new(second));
        }
        None
    }

    /// Takes the first out that is at the place that is looked for.
    pub(crate) fn remove(&mut self, place: impl Fn(&T) -> Ordering) -> Option<T> {
        let (piece, at) = self.seek(|item| place(item) == Ordering::Less);
        let items = self.pieces.get_mut(piece)?;
        if place(items.get(at)?) != Ordering::Equal {
            return None;
        }
        let items = own(items);
        let item = items.remove(at);
        self.len -= 1;
        let left = items.len();
        if left == 0 {
            self.pieces.remove(piece);
        } else if left < PIECE / 4
            && self.pieces.get(piece + 1).is_some_and(|next| next.len() + left <= PIECE / 2)
        {
            let next = self.pieces.remove(piece + 1);
            let next = Arc::try_unwrap(next).unwrap_or_else(|shared| shared.to_vec());
            own(&mut self.pieces[piece]).extend(next);
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

    proptest! {
        #[test]
        fn does_what_a_tree_does(steps in prop::collection::vec((any::<bool>(), 0u32..800), 0..3_000)) {
            let (mut sorted, mut tree) = (Sorted::default(), BTreeMap::new());
            for (step, (takes_out, key)) in steps.into_iter().enumerate() {
                // Runs of the one or the other, so that pieces split and join.
                if takes_out && step / 500 % 2 == 1 {
                    let removed = sorted.remove(|(other, _): &(u32, usize)| other.cmp(&key));
                    prop_assert_eq!(removed.map(|(_, step)| step), tree.remove(&key));
                } else {
                    let replaced = sorted.insert((key, step), |one, other| one.0.cmp(&other.0));
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
                let expected: Vec<usize> = tree.range(from..from + 150).map(|(_, step)| *step).collect();
                let found: Vec<usize> = sorted.range(within).map(|(_, step)| *step).collect();
                prop_assert_eq!(&found, &expected);
                prop_assert_eq!(sorted.count(within), expected.len());
                prop_assert_eq!(sorted.get(within).map(|(_, step)| *step), expected.first().copied());
                let last = sorted.range(within).next_back().map(|(_, step)| *step);
                prop_assert_eq!(last, expected.last().copied());
            }
        }
    }

    #[test]
    fn clones_share_what_neither_has_changed() {
        let mut sorted = Sorted::default();
        (0..1_000u32).for_each(|n| assert_eq!(sorted.insert(n * 2, u32::cmp), None));
        let mut other = sorted.clone();
        assert_eq!(other.insert(7, u32::cmp), None);
        assert_eq!(other.remove(|n| n.cmp(&1_500)), Some(1_500));
        assert!(sorted.iter().copied().eq((0..1_000).map(|n| n * 2)), "the first is as it was");
        assert_eq!(
            (other.len(), other.get(|n| n.cmp(&7)), other.get(|n| n.cmp(&1_500))),
            (1_000, Some(&7), None)
        );
        let shared = |piece: &&Arc<Vec<u32>>| Arc::strong_count(piece) == 2;
        let count = sorted.pieces.iter().filter(shared).count();
        assert_eq!(count, sorted.pieces.len() - 2);
    }

    #[test]
    fn wastes_little() {
        let mut sorted = Sorted::default();
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            sorted.insert(rng.u64(..), u64::cmp);
        }
        let room: usize = sorted.pieces.iter().map(|piece| piece.capacity()).sum();
        assert!(room < 20_000 * 5 / 4, "{room}");
    }
}
