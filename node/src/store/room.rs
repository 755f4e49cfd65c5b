//! Room on the disk of the data directory: the quota, what of the disk is always kept free, and waiting for room.
//! A full disk must be an answer: the blob store's database stops for good, reads included, when one of its commits
//! finds no room. Bodies and downloads end first, so that names and records still fit when they do. What is deleted
//! to make room is decided elsewhere.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::sync::{Notify, watch};

/// Knows how full the disk is, and how much of it is this node's.
pub(super) struct Room {
    dir: PathBuf,
    quota: AtomicU64,
    /// Kept free of bodies and downloads, in bytes.
    reserve: AtomicU64,
    /// What the data directory took when that was last measured.
    used: AtomicU64,
    /// What was written since.
    since: AtomicU64,
    /// What is being fetched.
    flying: AtomicU64,
    /// The most that found no room since the last round.
    asked: AtomicU64,
    /// Whether somebody makes room.
    made: AtomicBool,
    pressed: Notify,
    rounds: watch::Sender<u64>,
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

/// How full disk and quota are, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// What this node may take.
    pub quota: u64,
    /// What it takes, and what is being fetched.
    pub used: u64,
    /// What is free on the disk.
    pub free: u64,
    /// What of that is kept free.
    pub reserve: u64,
    /// The whole disk.
    pub disk: u64,
    /// What has found no room and is waited for.
    pub asked: u64,
}

impl Room {
    /// Of the disk that `dir` is on, without a quota.
    pub fn new(dir: PathBuf) -> Self {
        Room {
            dir,
            quota: AtomicU64::new(u64::MAX),
            reserve: AtomicU64::new(0),
            used: AtomicU64::new(0),
            since: AtomicU64::new(0),
            flying: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            made: AtomicBool::new(false),
            pressed: Notify::new(),
            rounds: watch::Sender::new(0),
            #[cfg(test)]
            pretended: std::sync::Mutex::default(),
        }
    }

    /// Sets the quota and the reserve, in bytes. Who does so makes room from now on when it is asked to.
    pub fn limit(&self, quota: u64, reserve: u64) {
        self.quota.store(quota, Relaxed);
        self.reserve.store(reserve, Relaxed);
        self.made.store(true, Relaxed);
    }

    /// Whether that many bytes leave free what has to be. Asks the system, which takes about a microsecond.
    pub fn check(&self, kind: Kind, bytes: u64) -> io::Result<()> {
        self.check_disk(kind, bytes)?;
        let (quota, used) = (self.quota.load(Relaxed), self.used());
        if matches!(kind, Kind::Rows) || used.saturating_add(bytes) <= quota {
            return Ok(());
        }
        let text = format!(
            "this node uses {} MiB of its quota of {} MiB (storage.quota), and nothing more of it can be deleted \
             now",
            used >> 20,
            quota >> 20
        );
        Err(io::Error::new(io::ErrorKind::QuotaExceeded, text))
    }

    fn check_disk(&self, kind: Kind, bytes: u64) -> io::Result<()> {
        let disk = rustix::fs::statvfs(&self.dir)?;
        let free = self.pretend(disk.f_bavail.saturating_mul(disk.f_frsize));
        let all = disk.f_blocks.saturating_mul(disk.f_frsize);
        let keep = match kind {
            Kind::Bulk => KEEP_BULK.min(all / 16).max(self.reserve.load(Relaxed)),
            Kind::Rows => KEEP_ROWS.min(all / 64),
        };
        if free < keep.saturating_add(bytes) {
            let text = format!(
                "{} has {} MiB free, of which {} MiB are kept for the node's own work",
                self.dir.display(),
                free >> 20,
                keep >> 20
            );
            return Err(io::Error::new(io::ErrorKind::StorageFull, text));
        }
        Ok(())
    }

    /// Counts what has been in memory as written, if there is room for it on the disk: manifests and records are
    /// not held up by the quota, since they are what making room needs.
    pub fn take_small(&self, kind: Kind, bytes: u64) -> io::Result<()> {
        self.check_disk(kind, bytes)?;
        self.since.fetch_add(bytes, Relaxed);
        Ok(())
    }

    /// As [`Self::check`], and counts the bytes as written.
    fn take(&self, kind: Kind, bytes: u64) -> io::Result<()> {
        self.check(kind, bytes)?;
        self.since.fetch_add(bytes, Relaxed);
        Ok(())
    }

    /// As [`Self::take`], and waits for room to be made where there is none.
    pub async fn wait(&self, bytes: u64) -> io::Result<()> {
        self.wait_until(bytes, || self.take(Kind::Bulk, bytes)).await
    }

    /// As [`Self::check`], and waits for room to be made where there is none.
    pub async fn wait_for(&self, bytes: u64) -> io::Result<()> {
        self.wait_until(bytes, || self.check(Kind::Bulk, bytes)).await
    }

    async fn wait_until(&self, bytes: u64, fits: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let mut full = match fits() {
            Err(error) if self.made.load(Relaxed) => error,
            other => return other,
        };
        let mut rounds = self.rounds.subscribe();
        for _ in 0..ROUNDS {
            rounds.borrow_and_update();
            self.asked.fetch_max(bytes, Relaxed);
            self.pressed.notify_one();
            let round = tokio::time::timeout(PATIENCE, rounds.changed()).await;
            match fits() {
                Ok(()) => return Ok(()),
                Err(error) => full = error,
            }
            if !matches!(round, Ok(Ok(()))) {
                break;
            }
        }
        Err(full)
    }

    /// Returns when somebody waits for room.
    pub async fn pressed(&self) {
        self.pressed.notified().await;
    }

    /// Room was made, or could not be.
    pub fn round_done(&self) {
        self.asked.store(0, Relaxed);
        self.rounds.send_modify(|round| *round = round.wrapping_add(1));
    }

    /// Bytes are about to be fetched.
    pub fn depart(&self, bytes: u64) {
        self.flying.fetch_add(bytes, Relaxed);
    }

    /// They were fetched, or will not be.
    pub fn land(&self, bytes: u64) {
        self.since.fetch_add(bytes, Relaxed);
        self.flying.fetch_sub(bytes, Relaxed);
    }

    /// How full everything is.
    pub fn space(&self) -> io::Result<Space> {
        let disk = rustix::fs::statvfs(&self.dir)?;
        Ok(Space {
            quota: self.quota.load(Relaxed),
            used: self.used(),
            free: self.pretend(disk.f_bavail.saturating_mul(disk.f_frsize)),
            reserve: self.reserve.load(Relaxed),
            disk: disk.f_blocks.saturating_mul(disk.f_frsize),
            asked: self.asked.load(Relaxed),
        })
    }

    /// Measures what the data directory takes. Blocks; about 2 microseconds a file.
    pub fn measure(&self) {
        let before = self.since.load(Relaxed);
        let used = allocated(&self.dir);
        self.used.store(used, Relaxed);
        self.since.fetch_sub(before, Relaxed);
    }

    /// What this node may take, in bytes.
    pub fn quota(&self) -> u64 {
        self.quota.load(Relaxed)
    }

    fn used(&self) -> u64 {
        self.used
            .load(Relaxed)
            .saturating_add(self.since.load(Relaxed))
            .saturating_add(self.flying.load(Relaxed))
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

/// Bytes that the files below a directory take on disk. What vanishes meanwhile counts as nothing.
fn allocated(dir: &Path) -> u64 {
    let (mut sum, mut dirs) = (0, vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = fs::read_dir(dir) else { continue };
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => dirs.push(entry.path()),
                // A second link to a file takes nothing more; which of the two counts does not matter.
                Ok(metadata) => sum += metadata.blocks() * 512 / metadata.nlink().max(1),
                Err(_) => {}
            }
        }
    }
    sum
}

/// Kept free of bodies and downloads, in bytes, or a sixteenth of a small disk.
const KEEP_BULK: u64 = 64 << 20;
/// Kept free of everything, in bytes, or a sixty-fourth of a small disk.
const KEEP_ROWS: u64 = 16 << 20;
/// Rounds that whoever waits for room waits for: the first may have begun before it was asked for.
const ROUNDS: usize = 3;
/// How long one may take: other nodes are asked in it.
const PATIENCE: Duration = Duration::from_secs(20);
