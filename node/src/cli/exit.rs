//! How a command ends: every exit code, and what is said with it.

use std::{path::PathBuf, process::ExitCode};

use crate::config::ConfigError;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The operation itself failed.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
    /// It was asked in a way that cannot be done: arguments, configuration, data directory, ports.
    #[error("{0}")]
    Usage(String),
    /// Nobody answers on the local socket.
    #[error(
        "no node is running with data directory {}; start one with: waystation serve --data-dir {}",
        .0.display(), .0.display()
    )]
    NotRunning(PathBuf),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The answer, which was printed, says what is wrong; this is the exit code.
    #[error("")]
    Told(u8),
}

impl Failure {
    /// The exit code for it.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Failed(_) => FAILED,
            Failure::Usage(_) => USAGE,
            Failure::NotRunning(_) => NOT_RUNNING,
            Failure::NotFound(_) => NOT_FOUND,
            Failure::Told(code) => *code,
        }
    }

    /// Says it on stderr and gives the process's exit code.
    pub fn report(&self) -> ExitCode {
        for line in self.to_string().lines() {
            eprintln!("waystation: {line}");
        }
        ExitCode::from(self.code())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Failure::Usage(error.to_string())
    }
}

/// Done.
pub const OK: u8 = 0;
/// The operation failed.
pub const FAILED: u8 = 1;
/// Usage or configuration; clap ends with the same code.
pub const USAGE: u8 = 2;
/// No node is running with that data directory.
pub const NOT_RUNNING: u8 = 3;
/// The thing asked for is not there.
pub const NOT_FOUND: u8 = 4;

/// For `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the operation failed
  2  wrong usage or configuration (also: data directory unusable, port taken, no grant)
  3  no node is running with that data directory
  4  what was asked for is not there";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_fixed() {
        let cases = [
            (Failure::Failed(anyhow::anyhow!("x")), 1),
            (Failure::Usage("x".into()), 2),
            (Failure::NotRunning("/d".into()), 3),
            (Failure::NotFound("x".into()), 4),
        ];
        assert!(cases.iter().all(|(failure, code)| failure.code() == *code));
        assert_eq!(
            Failure::NotRunning("/d".into()).to_string(),
            "no node is running with data directory /d; start one with: waystation serve --data-dir /d"
        );
    }
}
