//! Some of a blob's bytes against its hash, by the tree that the blob store keeps beside each large file (its
//! outboard): BLAKE3's inner nodes down to groups of 16 KiB, each a pair of values, parents before children, left
//! before right. Nothing of it is believed: each pair that is used has to have the value that the one above it says,
//! and the first the blob's hash.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt};

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use waystation_proto::Hash;

use super::blobs::GROUP;

/// The tree of a blob of more than one group.
pub(super) struct Tree {
    outboard: File,
    hash: Hash,
    size: u64,
}

/// A part of the tree.
struct Node {
    /// Which groups are below it.
    first: u64,
    groups: u64,
    /// Where its pair is in the outboard, in pairs.
    at: u64,
    /// What its value must be. The root's is the hash.
    value: Option<ChainingValue>,
}

impl Tree {
    /// The tree in this file, unless the file is too short for one of a blob of this size.
    pub fn new(outboard: File, hash: Hash, size: u64) -> io::Result<Option<Self>> {
        let groups = size.div_ceil(GROUP);
        let is_long_enough =
            outboard.metadata()?.len() >= groups.saturating_sub(1).saturating_mul(PAIR as u64);
        Ok((groups > 1 && is_long_enough).then_some(Tree { outboard, hash, size }))
    }

    /// Whether these are the blob's bytes from `from` on. They are whole groups, but for the blob's last.
    /// A tree that is wrong itself says no. Blocks.
    ///
    /// # Errors
    /// Where the outboard cannot be read.
    pub fn fits(&self, bytes: &[u8], from: u64) -> io::Result<bool> {
        let end = from.saturating_add(bytes.len() as u64);
        let is_whole = from.is_multiple_of(GROUP) && (end == self.size || end.is_multiple_of(GROUP));
        if !is_whole || end > self.size {
            let text = format!("bytes {from} to {end} of {} are not whole groups", self.size);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let asked = from / GROUP..end.div_ceil(GROUP);
        let mut nodes = vec![Node { first: 0, groups: self.size.div_ceil(GROUP), at: 0, value: None }];
        // As deep as the tree, at most 64 of them.
        while let Some(node) = nodes.pop() {
            if node.first >= asked.end || node.first + node.groups <= asked.start {
                continue;
            }
            let is_inside = node.first >= asked.start && node.first + node.groups <= asked.end;
            match node.value {
                Some(value) if is_inside => {
                    let Some(below) = part(bytes, from, &self.below(&node)) else { return Ok(false) };
                    let mut hasher = blake3::Hasher::new();
                    hasher.set_input_offset(node.first * GROUP).update(below);
                    if hasher.finalize_non_root() != value {
                        return Ok(false);
                    }
                }
                // The bounds of what was asked for lie between groups, so this has two at least.
                _ => {
                    let Some((left, right)) = self.children(&node)? else { return Ok(false) };
                    nodes.extend([right, left]);
                }
            }
        }
        Ok(true)
    }

    /// Both halves of a node, unless its pair is wrong.
    fn children(&self, node: &Node) -> io::Result<Option<(Node, Node)>> {
        let mut pair = [0; PAIR];
        self.outboard.read_exact_at(&mut pair, node.at * PAIR as u64)?;
        let (mut left, mut right): (ChainingValue, ChainingValue) = ([0; 32], [0; 32]);
        left.copy_from_slice(&pair[..32]);
        right.copy_from_slice(&pair[32..]);
        let is_right = match node.value {
            Some(value) => merge_subtrees_non_root(&left, &right, Mode::Hash) == value,
            None => *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes() == self.hash.0,
        };
        // The largest power of two that leaves something for the right.
        let groups = node.groups.next_power_of_two() / 2;
        let left = Node { first: node.first, groups, at: node.at + 1, value: Some(left) };
        let right = Node {
            first: node.first + groups,
            groups: node.groups - groups,
            // After this pair and the left half's, which are one less than its groups.
            at: node.at + groups,
            value: Some(right),
        };
        Ok(is_right.then_some((left, right)))
    }

    /// The bytes below a node.
    fn below(&self, node: &Node) -> Range<u64> {
        node.first * GROUP..((node.first + node.groups) * GROUP).min(self.size)
    }
}

/// A part of bytes that begin at `from`.
fn part<'a>(bytes: &'a [u8], from: u64, range: &Range<u64>) -> Option<&'a [u8]> {
    let start = usize::try_from(range.start.checked_sub(from)?).ok()?;
    let end = usize::try_from(range.end.checked_sub(from)?).ok()?;
    bytes.get(start..end)
}

/// Bytes of a pair of values.
const PAIR: usize = 64;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// The pairs of a tree, by its definition.
    fn outboard(bytes: &[u8], from: u64, pairs: &mut Vec<u8>) -> ChainingValue {
        let groups = (bytes.len() as u64).div_ceil(GROUP);
        if groups <= 1 {
            return blake3::Hasher::new().set_input_offset(from).update(bytes).finalize_non_root();
        }
        let middle = (groups.next_power_of_two() / 2 * GROUP) as usize;
        let at = pairs.len();
        pairs.extend([0; PAIR]);
        let left = outboard(&bytes[..middle], from, pairs);
        let right = outboard(&bytes[middle..], from + middle as u64, pairs);
        pairs[at..at + PAIR].copy_from_slice(&[left, right].concat());
        merge_subtrees_non_root(&left, &right, Mode::Hash)
    }

    fn tree(pairs: &[u8], bytes: &[u8]) -> Tree {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(pairs).expect("written");
        Tree::new(file, Hash::of(bytes), bytes.len() as u64).expect("readable").expect("long enough")
    }

    #[test]
    fn says_of_any_groups_whether_they_are_right() {
        let group = GROUP as usize;
        for length in [group + 1, 2 * group, 3 * group, 5 * group + 7, 8 * group, 13 * group + 1024] {
            let mut bytes = vec![0; length];
            fastrand::Rng::with_seed(length as u64).fill(&mut bytes);
            let mut pairs = Vec::new();
            outboard(&bytes, 0, &mut pairs);
            let tree = tree(&pairs, &bytes);
            let bounds: Vec<usize> = (0..length).step_by(group).chain([length]).collect();
            for (n, &from) in bounds.iter().enumerate() {
                for &end in &bounds[n + 1..] {
                    let mut some = bytes[from..end].to_vec();
                    assert!(tree.fits(&some, from as u64).expect("read"), "{from}..{end} of {length}");
                    for place in [0, some.len() / 2, some.len().saturating_sub(1)] {
                        let Some(byte) = some.get_mut(place) else { continue };
                        *byte ^= 1;
                        assert!(!tree.fits(&some, from as u64).expect("read"), "{place} in {from}..{end}");
                        some[place] ^= 1;
                    }
                }
            }
            assert!(tree.fits(&bytes[..100], 0).is_err());
            assert!(tree.fits(&bytes[1..], 1).is_err());
        }
    }

    #[test]
    fn is_not_believed_itself() {
        let bytes = vec![7; 6 * GROUP as usize];
        let mut pairs = Vec::new();
        outboard(&bytes, 0, &mut pairs);
        for place in 0..pairs.len() {
            pairs[place] ^= 1;
            let tree = tree(&pairs, &bytes);
            let refuses = |group: usize| {
                let from = group * GROUP as usize;
                !tree.fits(&bytes[from..from + GROUP as usize], from as u64).expect("read")
            };
            assert!((0..6).any(refuses), "{place}");
            pairs[place] ^= 1;
        }
        let mut short = tempfile::tempfile().expect("a file");
        short.write_all(&pairs[1..]).expect("written");
        let short = Tree::new(short, Hash::of(&bytes), bytes.len() as u64);
        assert!(short.expect("readable").is_none());
    }
}
