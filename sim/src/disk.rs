//! A disk: what is durable, what is merely written, and when the one becomes the other. A crash loses
//! every write that was under way, and some of the blobs that were not complete.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
};

use waystation_proto::{
    Hash, Shared,
    catalog::{Catalog, Limits},
    ranges::Ranges,
    reconcile::Position,
    record::Key,
};

use crate::{
    random::happens,
    setup::{MILLISECOND, Nanos},
};

/// Records that many disks have from the beginning, kept once for all of them, and what replicas know by them.
#[derive(Clone, Default)]
pub struct Common(Rc<Known>);

#[derive(Default)]
struct Known {
    records: Records,
    catalog: Catalog,
}

/// Records by position, of which there is one for each key: numbers are compared faster than keys.
type Records = BTreeMap<Position, Shared>;

impl Common {
    /// Of these records, the last of each key.
    pub fn new(records: impl IntoIterator<Item = Shared>) -> Self {
        let records: Records = records.into_iter().map(|record| (record.position(), record)).collect();
        let mut catalog = Catalog::default();
        for record in records.values() {
            catalog.apply(record, Limits::RESTORED);
        }
        Common(Rc::new(Known { records, catalog }))
    }
}

/// One node's disk.
pub struct Disk {
    common: Common,
    /// Where the common ones are that are not kept any more, or were replaced.
    gone: BTreeSet<Position>,
    records: Records,
    complete: BTreeMap<Hash, u64>,
    partial: BTreeMap<Hash, Ranges>,
    /// Records that are durable from a time on, which nobody looks at before then; by time.
    coming: VecDeque<(Nanos, Vec<Shared>)>,
    /// Records become durable in the order in which they were asked for, and so do blobs.
    records_until: Nanos,
    blobs_until: Nanos,
    /// Whether it takes no more.
    full: bool,
    /// Whether every write takes long.
    slow: bool,
    rng: fastrand::Rng,
}

/// What was on a disk at some time.
#[derive(Clone, Default)]
pub struct Image {
    records: Vec<Shared>,
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
        Disk {
            common: Common::default(),
            gone: BTreeSet::new(),
            records: BTreeMap::new(),
            complete: BTreeMap::new(),
            partial: BTreeMap::new(),
            coming: VecDeque::new(),
            records_until: 0,
            blobs_until: 0,
            full: false,
            slow: false,
            rng,
        }
    }

    /// Makes these durable before anything happens.
    pub fn begin_with(&mut self, common: Common) {
        self.common = common;
    }

    /// When records whose write is asked for now, and may wait `within` for others, are durable. Nothing else waits
    /// for them while they wait: that is done before they come to the disk.
    pub fn kept_at(&mut self, now: Nanos, within: Nanos) -> Nanos {
        let sync = self.sync();
        self.records_until = self.records_until.max(now + within) + sync;
        self.records_until
    }

    /// When a blob that is asked to be made durable now is.
    pub fn sealed_at(&mut self, now: Nanos) -> Nanos {
        let sync = self.sync();
        self.blobs_until = self.blobs_until.max(now) + sync;
        self.blobs_until
    }

    fn sync(&mut self) -> Nanos {
        self.rng.u64(SYNC) * if self.slow { SLOWNESS } else { 1 }
    }

    /// Whether the write that is due now fails.
    pub fn fails(&mut self, permille: u64) -> bool {
        self.full || self.breaks(permille)
    }

    /// Whether a write fails that has room.
    pub fn breaks(&mut self, permille: u64) -> bool {
        permille > 0 && happens(&mut self.rng, permille)
    }

    /// Whether it takes no more from now on.
    pub fn set_full(&mut self, now: Nanos, full: bool) {
        self.settle(now);
        self.full = full;
    }

    /// Whether every write takes long from now on.
    pub fn set_slow(&mut self, slow: bool) {
        self.slow = slow;
    }

    /// Every complete blob, with its size.
    pub fn blobs(&self) -> &BTreeMap<Hash, u64> {
        &self.complete
    }

    /// Bytes of blobs.
    pub fn used(&self) -> u64 {
        self.complete.values().sum::<u64>() + self.partial.values().map(Ranges::len).sum::<u64>()
    }

    /// What is durable now.
    pub fn image(&mut self, now: Nanos) -> Image {
        self.settle(now);
        Image { records: self.records(), complete: self.complete.clone() }
    }

    /// Has only what the image has.
    pub fn replace(&mut self, image: Image) {
        self.wipe();
        self.put(image.records);
        self.complete = image.complete;
    }

    /// Makes records durable: each replaces what was kept under its key.
    pub fn keep(&mut self, now: Nanos, records: Vec<Shared>) {
        self.settle(now);
        self.put(records);
    }

    /// Makes records durable at that time, see [`Disk::kept_at`], which nobody waits for: no moment of its own is needed.
    pub fn keep_later(&mut self, now: Nanos, at: Nanos, records: Vec<Shared>) {
        self.coming.push_back((at, records));
        if self.coming.len() >= COMING_MAX {
            self.settle(now);
        }
    }

    /// Makes durable what is so by now.
    pub fn settle(&mut self, now: Nanos) {
        while self.coming.front().is_some_and(|(at, _)| *at <= now)
            && let Some((_, records)) = self.coming.pop_front()
        {
            if !self.full {
                self.put(records);
            }
        }
    }

    fn put(&mut self, records: Vec<Shared>) {
        for record in records {
            self.leave(record.position());
            self.records.insert(record.position(), record);
        }
    }

    /// Drops what is kept under these keys.
    pub fn forget(&mut self, now: Nanos, keys: &[Key]) {
        self.settle(now);
        for key in keys {
            let position = Position::from_be_bytes(key.prefix());
            self.leave(position);
            self.records.remove(&position);
        }
    }

    fn leave(&mut self, position: Position) {
        if self.common.0.records.contains_key(&position) {
            self.gone.insert(position);
        }
    }

    /// How many records are kept, as far as was [settled](Disk::settle).
    pub fn count(&self) -> usize {
        self.common.0.records.len() - self.gone.len() + self.records.len()
    }

    /// Every record kept, as far as was [settled](Disk::settle), those that are common first, each by key.
    pub fn records(&self) -> Vec<Shared> {
        let common = self.common.0.records.iter().filter(|(position, _)| !self.gone.contains(position));
        let mut records = by_key(common.map(|(_, record)| record));
        records.extend(by_key(self.records.values()));
        records
    }

    /// The same in two parts: a catalog of the common ones, and the others. All are in the second where something
    /// of the catalog is not kept any more.
    pub fn known(&self) -> (Catalog, Vec<Shared>) {
        if self.gone.iter().all(|position| self.records.contains_key(position)) {
            (self.common.0.catalog.clone(), by_key(self.records.values()))
        } else {
            (Catalog::default(), self.records())
        }
    }

    /// Makes a blob complete and durable.
    pub fn seal(&mut self, hash: Hash, size: u64) {
        self.partial.remove(&hash);
        self.complete.insert(hash, size);
    }

    /// A blob is not what it was: nothing of it is any good.
    pub fn lose(&mut self, hash: &Hash) -> bool {
        self.partial.remove(hash);
        self.complete.remove(hash).is_some()
    }

    /// Adds verified bytes of a blob.
    pub fn write(&mut self, hash: Hash, range: std::ops::Range<u64>) {
        if !range.is_empty() && !self.complete.contains_key(&hash) {
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

    /// Whether these bytes of a blob are here and verified.
    pub fn has(&self, hash: &Hash, range: &std::ops::Range<u64>) -> bool {
        match self.complete.get(hash) {
            Some(size) => range.end <= *size,
            None => self.partial.get(hash).is_some_and(|have| have.contains(range)),
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
    pub fn crash(&mut self, now: Nanos) {
        self.settle(now);
        self.coming.clear();
        (self.records_until, self.blobs_until) = (0, 0);
        let rng = &mut self.rng;
        self.partial.retain(|_, _| rng.bool());
    }

    /// It is replaced by an empty one.
    pub fn wipe(&mut self) {
        self.common = Common::default();
        self.gone.clear();
        self.coming.clear();
        self.records.clear();
        self.complete.clear();
        self.partial.clear();
        self.full = false;
    }
}

fn by_key<'a>(records: impl Iterator<Item = &'a Shared>) -> Vec<Shared> {
    let mut records: Vec<Shared> = records.cloned().collect();
    records.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    records
}

/// Writes that become durable together, as far as they are: to touch a disk for each costs more than the writes.
const COMING_MAX: usize = 64;
/// How long making something durable takes.
const SYNC: std::ops::Range<Nanos> = MILLISECOND..20 * MILLISECOND;
/// How many times that while a disk is slow.
const SLOWNESS: u64 = 100;

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use waystation_proto::{MeshId, NodeId};

    use super::*;
    use crate::rogue;

    #[test]
    fn a_blob_does_not_wait_for_records_that_wait_for_company() {
        let mut disk = Disk::new(fastrand::Rng::with_seed(1));
        let (records, blob) = (disk.kept_at(0, 500 * MILLISECOND), disk.sealed_at(0));
        assert!(records >= 500 * MILLISECOND && blob < 20 * MILLISECOND, "{records}, {blob}");
        assert!(disk.kept_at(0, 0) > records && disk.sealed_at(0) > blob, "each in the order of asking");
    }

    #[test]
    fn what_nobody_waits_for_is_durable_when_it_would_have_been_otherwise() {
        let root = SigningKey::from_bytes(&[7; 32]);
        let mesh = MeshId::of_root(&NodeId(root.verifying_key().to_bytes()));
        let [first, second, third, fourth] = [1, 2, 3, 4].map(|number| rogue::unknown(&mesh, &root, number));
        let mut disk = Disk::new(fastrand::Rng::with_seed(1));
        disk.keep_later(0, 10, vec![first.clone()]);
        disk.forget(5, std::slice::from_ref(&first.key));
        assert_eq!(disk.count(), 0, "is on its way");
        disk.keep(20, vec![second]);
        assert_eq!(disk.count(), 2, "and came after what was forgotten");
        disk.keep_later(20, 30, vec![third.clone()]);
        disk.crash(29);
        disk.settle(30);
        assert_eq!(disk.count(), 2, "what is on its way is lost");
        disk.keep_later(30, 40, vec![third]);
        disk.set_full(41, true);
        disk.keep_later(41, 50, vec![fourth]);
        disk.settle(60);
        assert_eq!(disk.count(), 3, "a full disk takes nothing");
    }
}
