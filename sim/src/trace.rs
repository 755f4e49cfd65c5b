//! The trace: everything that happens in a run, as a running hash, and as lines for whoever looks.

use std::fmt;

/// What happened so far.
pub struct Trace {
    hasher: blake3::Hasher,
    lines: u64,
    print: bool,
}

impl Trace {
    /// An empty trace, whose lines go to standard error too if `print`.
    pub fn new(print: bool) -> Self {
        Trace { hasher: blake3::Hasher::new(), lines: 0, print }
    }

    /// Notes that something happened to a host.
    pub fn note(&mut self, at: u64, host: usize, what: fmt::Arguments<'_>) {
        let line = format!("{at:>9} {host:>3} {what}\n");
        self.hasher.update(line.as_bytes());
        self.lines += 1;
        if self.print {
            eprint!("{line}");
        }
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
