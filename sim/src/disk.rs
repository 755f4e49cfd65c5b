//! A disk: what is durable, what is merely written, and when the one becomes the other. A crash loses
//! every write that was under way, and some of the blobs that were not complete.

use std::collections::BTreeMap;

use waystation_proto::{Hash, Shared, ranges::Ranges, record::Key};

use crate::random::happens;

/// One node's disk.
pub struct Disk {
    records: BTreeMap<Key, Shared>,
    complete: BTreeMap<Hash, u64>,
    partial: BTreeMap<Hash, Ranges>,
    /// Writes become durable in the order in which they were asked for.
    busy_until: u64,
    rng: fastrand::Rng,
}

impl Disk {
    /// An empty disk.
    pub fn new(rng: fastrand::Rng) -> Self {
        let (records, complete, partial) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Disk { records, complete, partial, busy_until: 0, rng }
    }

    /// When a write asked for now, that may wait `within` for others, is durable.
    pub fn durable_at(&mut self, now: u64, within: u64) -> u64 {
        let sync = self.rng.u64(SYNC_MS);
        self.busy_until = self.busy_until.max(now + within) + sync;
        self.busy_until
    }

    /// Whether the write that is due now fails.
    pub fn fails(&mut self, permille: u64) -> bool {
        happens(&mut self.rng, permille)
    }

    /// Makes records durable: each replaces what was kept under its key.
    pub fn keep(&mut self, records: Vec<Shared>) {
        self.records.extend(records.into_iter().map(|record| (record.key.clone(), record)));
    }

    /// Drops what is kept under these keys.
    pub fn forget(&mut self, keys: &[Key]) {
        keys.iter().for_each(|key| drop(self.records.remove(key)));
    }

    /// Every record kept.
    pub fn records(&self) -> Vec<Shared> {
        self.records.values().cloned().collect()
    }

    /// Makes a blob complete and durable.
    pub fn seal(&mut self, hash: Hash, size: u64) {
        self.partial.remove(&hash);
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

    /// Every complete blob.
    pub fn complete(&self) -> Vec<Hash> {
        self.complete.keys().copied().collect()
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
