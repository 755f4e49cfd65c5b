//! Room on the disk of the data directory. Some of it is kept free, since a full disk must be an answer: the
//! blob store's database stops for good, reads included, when one of its commits finds no room. Bodies and
//! downloads end first, so that names and records still fit when they do.

use std::{io, path::PathBuf};

/// Knows how full the disk is.
pub(super) struct Room {
    dir: PathBuf,
    /// What tests pretend to be free.
    #[cfg(test)]
    pub pretended: std::sync::Mutex<Option<u64>>,
}

/// What is about to be written.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Of any length, from a client or a member.
    Bulk,
    /// Into the database: names, records, small blobs.
    Rows,
}

impl Room {
    /// Of the disk that `dir` is on.
    pub fn new(dir: PathBuf) -> Self {
        Room {
            dir,
            #[cfg(test)]
            pretended: std::sync::Mutex::default(),
        }
    }

    /// Whether that many bytes leave free what has to be. Asks the system, which takes about a microsecond.
    pub fn check(&self, kind: Kind, bytes: u64) -> io::Result<()> {
        let disk = rustix::fs::statvfs(&self.dir)?;
        let free = self.pretend(disk.f_bavail.saturating_mul(disk.f_frsize));
        let keep = match kind {
            Kind::Bulk => KEEP_BULK.min(disk.f_blocks.saturating_mul(disk.f_frsize) / 16),
            Kind::Rows => KEEP_ROWS.min(disk.f_blocks.saturating_mul(disk.f_frsize) / 64),
        };
        if free >= keep.saturating_add(bytes) {
            return Ok(());
        }
        let text = format!(
            "{} has {} MiB free, of which {} MiB are kept for the node's own work",
            self.dir.display(),
            free >> 20,
            keep >> 20
        );
        Err(io::Error::new(io::ErrorKind::StorageFull, text))
    }

    #[cfg(test)]
    fn pretend(&self, free: u64) -> u64 {
        self.pretended.lock().expect("no panic").unwrap_or(free)
    }

    #[cfg(not(test))]
    fn pretend(&self, free: u64) -> u64 {
        free
    }
}

/// Kept free of bodies and downloads, in bytes, or a sixteenth of a small disk.
const KEEP_BULK: u64 = 64 << 20;
/// Kept free of everything, in bytes, or a sixty-fourth of a small disk.
const KEEP_ROWS: u64 = 16 << 20;
