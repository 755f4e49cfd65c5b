//! Blocks: memory that a body's bytes are collected in on their way to hashes and disk. They are long, so that hashing
//! and writing have much in one piece, aligned as writing past the system's cache wants it, and used again and again:
//! new memory costs the system more than copying into memory that it has mapped already.

use std::{collections::VecDeque, sync::Arc};

/// The block of one body that is being filled, and those that others still work on.
pub(super) struct Blocks {
    filling: Option<Arc<Block>>,
    /// Handed out, in their order.
    out: VecDeque<Arc<Block>>,
    /// Where in the file the next byte belongs.
    at: u64,
    /// How much of the block that is being filled has been given out for hashing.
    hashed: usize,
}

/// Some of a file's bytes.
pub(super) struct Block {
    memory: Vec<u8>,
    /// Where in it aligned memory begins.
    start: usize,
    /// Bytes of that.
    size: usize,
    /// Where the bytes begin in it: as far behind a multiple of [`ALIGN`] as in the file.
    from: usize,
    end: usize,
}

impl Blocks {
    /// For bytes that belong into a file from `at` on.
    pub fn new(at: u64) -> Self {
        Blocks { filling: None, out: VecDeque::new(), at, hashed: 0 }
    }

    /// Whether [`Self::fill`] would take something: there is a block that nobody else works on, or there may be one
    /// more.
    pub fn has_room(&mut self, most: usize) -> bool {
        self.filling.is_some()
            || self.out.len() < most
            || self.out.front_mut().and_then(Arc::get_mut).is_some()
    }

    /// Takes what fits of these bytes and says how many those are; there may be `most` blocks of `size` bytes, a
    /// multiple of [`ALIGN`].
    pub fn fill(&mut self, bytes: &[u8], size: usize, most: usize) -> usize {
        if self.filling.is_none() && self.has_room(most) {
            self.filling = Some(self.empty(size, most));
        }
        let Some(block) = self.filling.as_mut().and_then(Arc::get_mut) else { return 0 };
        let taken = bytes.len().min(block.size - block.end);
        let to = block.start + block.end;
        block.memory[to..to + taken].copy_from_slice(&bytes[..taken]);
        block.end += taken;
        self.at += taken as u64;
        taken
    }

    /// Whether the block that is being filled has anything.
    pub fn has_some(&self) -> bool {
        self.filling.is_some()
    }

    /// What of that block was not given out by this before: whole trees, or `all` of it.
    pub fn unhashed(&mut self, all: bool) -> &[u8] {
        let Some(block) = &self.filling else { return &[] };
        let bytes = block.bytes();
        let until = if all { bytes.len() } else { bytes.len() / TREE * TREE };
        let from = self.hashed;
        self.hashed = until.max(from);
        &bytes[from..self.hashed]
    }

    /// Whether that block takes no more.
    pub fn is_full(&self) -> bool {
        self.filling.as_ref().is_some_and(|block| block.end == block.size)
    }

    /// Hands out that block, full or not. It is used again once nobody has it any more.
    pub fn hand_out(&mut self) -> Option<Arc<Block>> {
        let block = self.filling.take()?;
        self.hashed = 0;
        self.out.push_back(block.clone());
        Some(block)
    }

    fn empty(&mut self, size: usize, most: usize) -> Arc<Block> {
        // Where the body's share has shrunk, what is too much goes.
        while self.out.len() > most && self.out.front_mut().and_then(Arc::get_mut).is_some() {
            self.out.pop_front();
        }
        let from = (self.at % size as u64) as usize;
        if let Some(block) = self.out.front_mut().and_then(Arc::get_mut)
            && block.size == size
        {
            (block.from, block.end) = (from, from);
            if let Some(block) = self.out.pop_front() {
                return block;
            }
        }
        if self.out.len() >= most {
            self.out.pop_front();
        }
        let memory = vec![0; size + ALIGN];
        let start = memory.as_ptr().align_offset(ALIGN).min(ALIGN);
        Arc::new(Block { memory, start, size, from, end: from })
    }
}

impl Block {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start + self.from..self.start + self.end]
    }
}

/// What memory, lengths and places must be multiples of where the system's cache is passed by; some devices could do
/// with less.
pub(super) const ALIGN: usize = 4096;
/// BLAKE3 is fastest on whole trees of some length; these are short enough to be hashed where nobody may wait long.
const TREE: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills as far as possible.
    fn fill(blocks: &mut Blocks, bytes: &[u8], most: usize) -> usize {
        blocks.fill(bytes, 2 * ALIGN, most)
    }

    #[test]
    fn are_aligned_to_the_file_and_used_again() {
        let mut blocks = Blocks::new(100);
        let bytes: Vec<u8> = (0..3 * ALIGN).map(|n| (n / 7) as u8).collect();
        assert_eq!(fill(&mut blocks, &bytes, 2), 2 * ALIGN - 100);
        assert!(blocks.is_full());
        let first = blocks.hand_out().expect("filled");
        assert_eq!(first.bytes(), &bytes[..2 * ALIGN - 100]);
        assert_eq!(first.bytes().as_ptr().align_offset(ALIGN), ALIGN - 100);
        assert_eq!(fill(&mut blocks, &bytes, 2), 2 * ALIGN);
        let second = blocks.hand_out().expect("filled");
        assert_eq!(second.bytes().as_ptr().align_offset(ALIGN), 0);
        // Both are with others.
        assert!(!blocks.has_room(2));
        assert_eq!(fill(&mut blocks, &bytes, 2), 0);
        let memory = first.bytes().as_ptr();
        drop(first);
        assert!(blocks.has_room(2));
        assert_eq!(fill(&mut blocks, &bytes[..10], 2), 10);
        assert_eq!(blocks.unhashed(false).len(), 0);
        assert_eq!(blocks.unhashed(true), &bytes[..10]);
        assert_eq!(blocks.unhashed(true).len(), 0);
        let third = blocks.hand_out().expect("begun");
        assert_eq!(third.bytes().as_ptr().addr() + 100, memory.addr());
        assert_eq!(second.bytes(), &bytes[..2 * ALIGN]);
        drop((second, third));
        // The share has shrunk, also of each block.
        assert_eq!(blocks.fill(&bytes, ALIGN, 1), ALIGN - 10);
        assert_eq!(blocks.out.len(), 0);
    }
}
