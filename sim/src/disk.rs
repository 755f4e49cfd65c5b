//! A disk: what is durable, what is merely written, and when the one becomes the other. A crash loses
//! every write that was under way, and some of the blobs that were not complete.

use std::collections::BTreeMap;

use waystation_proto::{Hash, Record, ranges::Ranges, record::Key};

use crate::random::happens;

/// One node's disk.
pub struct Disk {
    records: BTreeMap<Key, Record>,
    complete: BTreeMap<Hash, u64>,
    partial: BTreeMap<Hash, Ranges>,
    /// Writes become durable in the order in which they were asked for.
    busy_until: u64,
    /// Blobs that rotted, which nobody has noticed yet.
    rotten: BTreeMap<Hash, u64>,
    /// Whether it takes nothing more.
    pub full: bool,
    /// Whether every write takes long.
    pub slow: bool,
    rng: fastrand::Rng,
}

/// What was on a disk at some time.
#[derive(Clone, Default)]
pub struct Image {
    records: BTreeMap<Key, Record>,
    complete: BTreeMap<Hash, u64>,
}

impl Image {
    /// Whether a blob is on it.
    pub fn holds(&self, hash: &Hash) -> bool {
        self.complete.contains_key(hash)
    }
}

impl Disk {
    /// An empty disk.
    pub fn new(rng: fastrand::Rng) -> Self {
        let (records, complete, partial) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let rotten = BTreeMap::new();
        Disk { records, complete, partial, busy_until: 0, rotten, full: false, slow: false, rng }
    }

    /// When a write asked for now, that may wait `within` for others, is durable.
    pub fn durable_at(&mut self, now: u64, within: u64) -> u64 {
        let sync = self.rng.u64(SYNC_MS) * if self.slow { SLOWNESS } else { 1 };
        self.busy_until = self.busy_until.max(now + within) + sync;
        self.busy_until
    }

    /// Whether the write that is due now fails.
    pub fn fails(&mut self, permille: u64) -> bool {
        happens(&mut self.rng, permille) || self.full
    }

    /// Makes records durable: each replaces what was kept under its key.
    pub fn keep(&mut self, records: Vec<Record>) {
        self.records.extend(records.into_iter().map(|record| (record.key.clone(), record)));
    }

    /// Drops what is kept under these keys.
    pub fn forget(&mut self, keys: &[Key]) {
        keys.iter().for_each(|key| drop(self.records.remove(key)));
    }

    /// Every record kept.
    pub fn records(&self) -> Vec<Record> {
        self.records.values().cloned().collect()
    }

    /// Makes a blob complete and durable.
    pub fn seal(&mut self, hash: Hash, size: u64) {
        self.partial.remove(&hash);
        self.rotten.remove(&hash);
        self.complete.insert(hash, size);
    }

    /// Adds verified bytes of a blob.
    pub fn write(&mut self, hash: Hash, range: std::ops::Range<u64>) {
        if !self.complete.contains_key(&hash) {
            self.partial.entry(hash).or_default().insert(range);
        }
    }

    /// Which verified bytes of a blob are here.
    pub fn have(&self, hash: &Hash) -> Ranges {
        match self.complete.get(hash) {
            Some(size) => Ranges::all(*size),
            None => self.partial.get(hash).cloned().unwrap_or_default(),
        }
    }

    /// Whether a blob is complete and durable.
    pub fn holds(&self, hash: &Hash) -> bool {
        self.complete.contains_key(hash)
    }

    /// Every blob that looks complete.
    pub fn complete(&self) -> Vec<Hash> {
        self.complete.keys().chain(self.rotten.keys()).copied().collect()
    }

    /// Every complete blob, with its size.
    pub fn blobs(&self) -> &BTreeMap<Hash, u64> {
        &self.complete
    }

    /// Bytes of blobs.
    pub fn used(&self) -> u64 {
        self.complete.values().sum::<u64>() + self.partial.values().map(Ranges::len).sum::<u64>()
    }

    /// Deletes a blob.
    pub fn remove(&mut self, hash: &Hash) {
        self.complete.remove(hash);
        self.partial.remove(hash);
        self.rotten.remove(hash);
    }

    /// A blob has other bytes than it should from now on.
    pub fn rot(&mut self, hash: Hash) {
        if let Some(size) = self.complete.remove(&hash) {
            self.rotten.insert(hash, size);
        }
    }

    /// Finds that a blob is rotten, if it is: it is not here any more.
    pub fn find_rotten(&mut self, hash: &Hash) -> bool {
        self.rotten.remove(hash).is_some()
    }

    /// Blobs that are rotten.
    pub fn rotten(&self) -> Vec<Hash> {
        self.rotten.keys().copied().collect()
    }

    /// What is durable now.
    pub fn image(&self) -> Image {
        Image { records: self.records.clone(), complete: self.complete.clone() }
    }

    /// Has only what the image has.
    pub fn replace(&mut self, image: Image) {
        self.records = image.records;
        self.complete = image.complete;
        self.partial.clear();
        self.rotten.clear();
    }

    /// The machine stops: what was under way is gone, and half of the incomplete blobs.
    pub fn crash(&mut self) {
        self.busy_until = 0;
        let rng = &mut self.rng;
        self.partial.retain(|_, _| rng.bool());
    }
}

/// How long making something durable takes.
const SYNC_MS: std::ops::Range<u64> = 1..20;
/// How many times that while a disk is slow.
const SLOWNESS: u64 = 100;
