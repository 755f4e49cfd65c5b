//! What is promised, and whether it was kept. One file for each promise; those that are about one moment
//! are asked at that moment, those about the end when everything had time to come right.

pub mod bounds;
pub mod convergence;
pub mod durability;
pub mod holdings;
pub mod integrity;
pub mod liveness;
pub mod memory;
pub mod physics;
pub mod retention;
pub mod tags;

use std::fmt;

/// What was found wrong so far, and what the checkers remember.
#[derive(Default)]
pub struct Checks {
    violations: Vec<Violation>,
    /// Where tags pointed.
    pub tags: tags::Tags,
    /// What must stay.
    pub retention: retention::Retention,
}

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub promise: &'static str,
    /// When, in milliseconds since the world began.
    pub at: u64,
    /// By which host.
    pub host: usize,
    /// How.
    pub text: String,
}

impl Checks {
    /// Remembers what a checker found, if it found something.
    pub fn note(&mut self, promise: &'static str, at: u64, host: usize, result: Result<(), String>) {
        if let Err(text) = result
            && self.violations.len() < VIOLATIONS_MAX
        {
            self.violations.push(Violation { promise, at, host, text });
        }
    }

    /// What was found wrong, the first at most.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} broken at {} ms by host {}: {}", self.promise, self.at, self.host, self.text)
    }
}

const VIOLATIONS_MAX: usize = 50;
