//! A few things by node, in a row: what is gone through for each decision lies together in memory, and so do the
//! numbers by which one of them is found. Who is in it and how many there may be is the owner's.

use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::id::{NodeId, first};

/// Things by node, ascending.
#[derive(Debug)]
pub(crate) struct Row<V> {
    /// The first bytes of each node's name, which sort as names do as far as they tell them apart: they are compared
    /// faster, and more of them are read from memory at once.
    numbers: Vec<u64>,
    all: Vec<(NodeId, V)>,
}

impl<V> Default for Row<V> {
    fn default() -> Self {
        Row { numbers: Vec::new(), all: Vec::new() }
    }
}

impl<V> Row<V> {
    fn place(&self, node: &NodeId) -> Result<usize, usize> {
        let number = first(&node.0);
        let mut at = self.numbers.partition_point(|other| *other < number);
        while self.numbers.get(at) == Some(&number) {
            match self.all[at].0.cmp(node) {
                Ordering::Less => at += 1,
                Ordering::Equal => return Ok(at),
                Ordering::Greater => break,
            }
        }
        Err(at)
    }

    fn put(&mut self, at: usize, node: NodeId, one: V) {
        self.numbers.insert(at, first(&node.0));
        self.all.insert(at, (node, one));
    }

    pub(crate) fn contains(&self, node: &NodeId) -> bool {
        self.place(node).is_ok()
    }

    pub(crate) fn get(&self, node: &NodeId) -> Option<&V> {
        self.place(node).ok().map(|at| &self.all[at].1)
    }

    pub(crate) fn get_mut(&mut self, node: &NodeId) -> Option<&mut V> {
        self.place(node).ok().map(|at| &mut self.all[at].1)
    }

    /// What is there for a node, put there first where nothing is.
    pub(crate) fn get_or_insert_with(&mut self, node: NodeId, new: impl FnOnce() -> V) -> &mut V {
        let at = self.place(&node).unwrap_or_else(|at| {
            self.put(at, node, new());
            at
        });
        &mut self.all[at].1
    }

    /// Puts something there for a node; returns what was there.
    pub(crate) fn insert(&mut self, node: NodeId, one: V) -> Option<V> {
        match self.place(&node) {
            Ok(at) => Some(core::mem::replace(&mut self.all[at].1, one)),
            Err(at) => {
                self.put(at, node, one);
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, node: &NodeId) -> Option<V> {
        let at = self.place(node).ok()?;
        self.numbers.remove(at);
        Some(self.all.remove(at).1)
    }

    pub(crate) fn remove_first(&mut self) {
        if !self.is_empty() {
            self.numbers.remove(0);
            self.all.remove(0);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &NodeId> {
        self.all.iter().map(|(node, _)| node)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&NodeId, &V)> {
        self.all.iter().map(|(node, one)| (node, one))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&NodeId, &mut V)> {
        self.all.iter_mut().map(|(node, one)| (&*node, one))
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.all.iter().map(|(_, one)| one)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.all.iter_mut().map(|(_, one)| one)
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Names that differ in their last byte only are told apart, and sorted, as others are.
        #[test]
        fn a_row_is_a_map(steps in prop::collection::vec((0_u8..5, 0_u8..3, 0_u8..3, any::<u32>()), 0..60)) {
            let (mut row, mut map) = (Row::default(), BTreeMap::new());
            for (step, begin, end, value) in steps {
                let mut name = [7; 32];
                (name[0], name[31]) = (begin, end);
                let node = NodeId(name);
                match step {
                    0 => prop_assert_eq!(row.insert(node, value), map.insert(node, value)),
                    1 => prop_assert_eq!(row.remove(&node), map.remove(&node)),
                    2 => prop_assert_eq!(
                        row.get_or_insert_with(node, || value),
                        map.entry(node).or_insert(value)
                    ),
                    3 => {
                        row.remove_first();
                        map.pop_first();
                    }
                    _ => row.values_mut().chain(map.values_mut()).for_each(|one| *one = one.wrapping_add(1)),
                }
                prop_assert!(row.iter().eq(map.iter()) && row.iter_mut().eq(map.iter_mut()));
                prop_assert!(row.keys().eq(map.keys()) && row.values().eq(map.values()));
                prop_assert_eq!((row.len(), row.is_empty()), (map.len(), map.is_empty()));
                prop_assert_eq!((row.get(&node), row.contains(&node)), (map.get(&node), map.contains_key(&node)));
                prop_assert_eq!(row.get_mut(&node), map.get_mut(&node));
            }
        }
    }
}
