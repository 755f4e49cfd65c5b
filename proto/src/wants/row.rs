//! A few things by node, in a row: what is gone through for each decision lies together in memory. Who is in it and
//! how many there may be is the owner's.

use alloc::vec::Vec;

use crate::id::NodeId;

/// Things by node, ascending.
#[derive(Debug)]
pub(super) struct Row<V> {
    all: Vec<(NodeId, V)>,
}

impl<V> Default for Row<V> {
    fn default() -> Self {
        Row { all: Vec::new() }
    }
}

impl<V> Row<V> {
    fn place(&self, node: &NodeId) -> Result<usize, usize> {
        self.all.binary_search_by(|(other, _)| other.cmp(node))
    }

    pub(super) fn get(&self, node: &NodeId) -> Option<&V> {
        self.place(node).ok().map(|at| &self.all[at].1)
    }

    pub(super) fn get_mut(&mut self, node: &NodeId) -> Option<&mut V> {
        self.place(node).ok().map(|at| &mut self.all[at].1)
    }

    /// What is there for a node, put there first where nothing is.
    pub(super) fn get_or_insert_with(&mut self, node: NodeId, new: impl FnOnce() -> V) -> &mut V {
        let at = self.place(&node).unwrap_or_else(|at| {
            self.all.insert(at, (node, new()));
            at
        });
        &mut self.all[at].1
    }

    pub(super) fn remove(&mut self, node: &NodeId) -> Option<V> {
        self.place(node).ok().map(|at| self.all.remove(at).1)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&NodeId, &V)> {
        self.all.iter().map(|(node, one)| (node, one))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&NodeId, &mut V)> {
        self.all.iter_mut().map(|(node, one)| (&*node, one))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.all.iter().map(|(_, one)| one)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.all.iter_mut().map(|(_, one)| one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_found_in_order_until_it_is_taken_out() {
        let node = |n: u8| NodeId([n; 32]);
        let mut row = Row::default();
        for n in [7, 3, 9, 3] {
            *row.get_or_insert_with(node(n), || 0) += u32::from(n);
        }
        assert_eq!(
            row.iter().map(|(node, sum)| (node.0[0], *sum)).collect::<Vec<_>>(),
            [(3, 6), (7, 7), (9, 9)]
        );
        assert_eq!((row.remove(&node(7)), row.remove(&node(8)), row.len()), (Some(7), None, 2));
        row.values_mut().for_each(|sum| *sum += 1);
        assert_eq!((row.get(&node(9)), row.get(&node(7))), (Some(&10), None));
        assert!(
            row.get_mut(&node(3)).is_some() && row.values().sum::<u32>() == 17 && row.iter_mut().count() == 2
        );
    }
}
