//! The trace: everything that happens in a run, as a running hash, and in words for whoever reads along.

use std::{
    fmt,
    io::{self, Write},
};

/// What happened so far.
pub struct Trace {
    hasher: blake3::Hasher,
    lines: u64,
    reader: Option<Reader>,
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
        Trace { hasher: blake3::Hasher::new(), lines: 0, reader }
    }

    /// Notes that something happened to a host.
    pub fn note(&mut self, at: u64, host: usize, what: fmt::Arguments<'_>) {
        let line = format!("{at:>9} {host:>3} {what}\n");
        self.hasher.update(line.as_bytes());
        self.lines += 1;
    }

    /// Tells it in words too, where somebody reads. Empty words are not told.
    pub fn say(&mut self, at: u64, host: usize, words: impl FnOnce() -> String) {
        let Some(reader) = &mut self.reader else { return };
        if at > reader.until || reader.host.is_some_and(|only| only != host) {
            return;
        }
        let words = words();
        if words.is_empty() {
            return;
        }
        let (minutes, ms) = (at / 60_000, at % 60_000);
        // Whoever does not read on does not stop the run.
        let _ = writeln!(reader.to, "{minutes:>3}:{:02}.{:03}  {host:>3}  {words}", ms / 1_000, ms % 1_000);
    }

    /// The hash over every line so far.
    pub fn hash(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }

    /// How many lines there are.
    pub fn lines(&self) -> u64 {
        self.lines
    }
}
