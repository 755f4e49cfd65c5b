//! The trace: everything that happens in a run, as a running hash, and as lines for whoever looks.

use std::fmt;

use crate::setup::{MILLISECOND, Nanos};

/// What happened so far.
pub struct Trace {
    hasher: blake3::Hasher,
    /// What is still to be hashed: to hash a little at a time takes much longer.
    waiting: Vec<u8>,
    lines: u64,
    print: bool,
}

impl Trace {
    /// An empty trace, whose lines go to standard error too if `print`.
    pub fn new(print: bool) -> Self {
        Trace { hasher: blake3::Hasher::new(), waiting: Vec::with_capacity(WAITING_MAX), lines: 0, print }
    }

    /// Notes in words that something happened to a host.
    pub fn note(&mut self, at: Nanos, host: usize, what: fmt::Arguments<'_>) {
        let line = what.to_string();
        self.add(at, host, line.as_bytes());
        self.tell(at, host, what);
    }

    /// Notes by number that something happened to a host. Numbers are hashed without being written out, so that
    /// a run of millions of occurrences does not spend its time on their text; see [`Trace::tell`].
    pub fn mark(&mut self, at: Nanos, host: usize, what: u8, which: u64) {
        let mut bytes = [what; 9];
        bytes[1..].copy_from_slice(&which.to_le_bytes());
        self.add(at, host, &bytes);
    }

    /// Whether somebody reads along.
    pub fn is_told(&self) -> bool {
        self.print
    }

    /// A line for whoever reads along, which is not hashed.
    pub fn tell(&self, at: Nanos, host: usize, what: fmt::Arguments<'_>) {
        if self.print {
            eprintln!("{:>9}.{:06} {host:>3} {what}", at / MILLISECOND, at % MILLISECOND);
        }
    }

    /// The hash over everything so far.
    pub fn hash(&self) -> String {
        let mut hasher = self.hasher.clone();
        hasher.update(&self.waiting);
        hasher.finalize().to_hex().to_string()
    }

    /// How many things happened.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    fn add(&mut self, at: Nanos, host: usize, what: &[u8]) {
        self.waiting.extend_from_slice(&at.to_le_bytes());
        self.waiting.extend_from_slice(&(host as u32).to_le_bytes());
        self.waiting.extend_from_slice(&(what.len() as u32).to_le_bytes());
        self.waiting.extend_from_slice(what);
        self.lines += 1;
        if self.waiting.len() >= WAITING_MAX {
            self.hasher.update(&self.waiting);
            self.waiting.clear();
        }
    }
}

const WAITING_MAX: usize = 64 * 1024;
