//! The trace: everything that happens in a run, as a running hash, and as lines for whoever looks.

use std::{
    cell::RefCell,
    fmt,
    io::{self, Write},
};

use crate::setup::{MILLISECOND, Nanos};

/// What happened so far.
pub struct Trace {
    hasher: blake3::Hasher,
    /// What is still to be hashed: to hash a little at a time takes much longer.
    waiting: Vec<u8>,
    lines: u64,
    reader: Option<RefCell<Reader>>,
}

/// Somebody who reads along.
pub struct Reader {
    /// About this host only; all where none.
    pub host: Option<usize>,
    /// Nothing after this, in milliseconds.
    pub until: u64,
    /// Where the lines go.
    pub to: Box<dyn Write>,
}

impl Reader {
    /// Reads everything on standard output.
    pub fn of_all() -> Self {
        Reader { host: None, until: u64::MAX, to: Box::new(io::stdout()) }
    }
}

impl Trace {
    /// An empty trace.
    pub fn new(reader: Option<Reader>) -> Self {
        let reader = reader.map(RefCell::new);
        Trace { hasher: blake3::Hasher::new(), waiting: Vec::with_capacity(WAITING_MAX), lines: 0, reader }
    }

    /// Notes in words that something happened to a host.
    pub fn note(&mut self, at: Nanos, host: usize, what: fmt::Arguments<'_>) {
        let line = what.to_string();
        self.add(at, host, line.as_bytes());
    }

    /// Notes by number that something happened to a host. Numbers are hashed without being written out, so that
    /// a run of millions of occurrences does not spend its time on their text; see [`Trace::say`].
    pub fn mark(&mut self, at: Nanos, host: usize, what: u8, which: u64) {
        let mut bytes = [what; 9];
        bytes[1..].copy_from_slice(&which.to_le_bytes());
        self.add(at, host, &bytes);
    }

    /// Whether somebody reads along.
    pub fn is_told(&self) -> bool {
        self.reader.is_some()
    }

    /// A line for whoever reads along, which is not hashed. Empty ones are left out.
    pub fn say(&self, at: Nanos, host: usize, words: impl FnOnce() -> String) {
        let Some(reader) = &self.reader else { return };
        let mut reader = reader.borrow_mut();
        let ms = at / MILLISECOND;
        if ms > reader.until || reader.host.is_some_and(|only| only != host) {
            return;
        }
        let words = words();
        if words.is_empty() {
            return;
        }
        let (minutes, seconds, micros) = (ms / 60_000, ms / 1_000 % 60, at / 1_000 % 1_000_000);
        // Whoever does not read on does not stop the run.
        let _ = writeln!(reader.to, "{minutes:>3}:{seconds:02}.{micros:06}  {host:>3}  {words}");
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
