//! Deleting blobs. What goes is decided elsewhere; here it leaves in the right order, and nothing else with it:
//! names, store, files. The store deletes by its own collection only, which is given everything but what is to go.
//!
//! While blobs leave nobody puts any in or looks whether they are here: such work holds the gate. A blob that was
//! opened or asked for after it was marked stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, RwLock, RwLockReadGuard, watch};
use waystation_proto::{Digest, Hash, RepoName};

use super::{
    Inner,
    blobs::{blocking, remove_file},
    ground::Ground,
};

/// What keeps blobs from leaving, and what is to leave.
pub(super) struct Sweep {
    gate: RwLock<()>,
    state: Mutex<State>,
    /// Blobs were found damaged.
    damage: Notify,
    /// Raised whenever damaged blobs have left.
    healed: watch::Sender<u64>,
    /// Held while damaged blobs leave; whether the store has been shut down.
    closed: tokio::sync::Mutex<bool>,
}

#[derive(Default)]
struct State {
    doomed: BTreeSet<Hash>,
    fetching: BTreeMap<Hash, usize>,
    damaged: BTreeSet<Hash>,
    /// Blobs that a client was told of and may now publish something with.
    claimed: BTreeMap<Hash, Instant>,
}

/// Everything in the store.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Complete blobs and their sizes in bytes.
    pub complete: BTreeMap<Hash, u64>,
    /// Blobs of which a part is here, and how many bytes of the disk it takes.
    pub partial: BTreeMap<Hash, u64>,
    /// Segments of records.
    pub segments: BTreeSet<Hash>,
    /// What clients can ask for.
    pub digests: BTreeMap<Digest, Hash>,
    /// What was pushed to, mounted into or pulled through a repository.
    pub links: Vec<(RepoName, Digest, Hash)>,
}

/// A blob is being fetched: it does not leave meanwhile, and its bytes count as used.
pub struct Fetching {
    inner: Arc<Inner>,
    hash: Hash,
    bytes: u64,
}

impl Sweep {
    pub fn new() -> Self {
        let (gate, state) = (RwLock::default(), Mutex::default());
        let closed = tokio::sync::Mutex::new(false);
        Sweep { gate, state, damage: Notify::new(), healed: watch::Sender::new(0), closed }
    }

    /// Nothing leaves any more by itself; waits for what is leaving.
    pub async fn close(&self) {
        *self.closed.lock().await = true;
    }

    /// Held while a blob is put in and named, or looked at for being here.
    pub async fn pass(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().await
    }

    /// A blob is in use: it does not leave.
    pub fn spare(&self, hash: &Hash) {
        self.state().doomed.remove(hash);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// See [`super::Store::inventory`].
    pub async fn inventory(&self) -> io::Result<Inventory> {
        let mut found = Inventory::default();
        let mut parts = Vec::new();
        // Before what is here, so that nothing which has just been named is taken for nameless.
        let known = self.blobs.list().await?;
        for named in self.blobs.names().await? {
            match named.ground {
                Ground::Blob { digest, .. } => {
                    found.digests.insert(digest, named.hash);
                }
                Ground::Link { repository, digest, .. } => found.links.push((repository, digest, named.hash)),
                Ground::Segment(_) => {
                    found.segments.insert(named.hash);
                }
                _ => {}
            }
        }
        for (hash, size) in known {
            match size.or_else(|| self.outboards.size(&hash)) {
                Some(size) => {
                    found.complete.insert(hash, size);
                }
                None => parts.push(hash),
            }
        }
        let dirs = self.dirs.clone();
        found.partial = blocking(move || {
            use std::os::unix::fs::MetadataExt;
            let taken = |hash: &Hash| fs::metadata(dirs.data(hash)).map_or(0, |data| data.blocks() * 512);
            Ok(parts.into_iter().map(|hash| (hash, taken(&hash))).collect())
        })
        .await?;
        Ok(found)
    }

    /// See [`super::Store::doom`].
    pub fn doom(&self, hashes: &BTreeSet<Hash>) {
        let mut state = self.sweep.state();
        state.claimed.retain(|_, since| since.elapsed() < CLAIMED_FOR);
        let unclaimed: Vec<Hash> =
            hashes.iter().filter(|hash| !state.claimed.contains_key(*hash)).copied().collect();
        state.doomed.extend(unclaimed);
    }

    /// See [`super::Store::claim`].
    pub async fn claim(&self, hashes: &[Hash]) {
        {
            let mut state = self.sweep.state();
            if state.claimed.len() >= CLAIMED_MAX {
                state.claimed.retain(|_, since| since.elapsed() < CLAIMED_FOR);
            }
            for hash in hashes {
                state.doomed.remove(hash);
                if state.claimed.len() < CLAIMED_MAX {
                    state.claimed.insert(*hash, Instant::now());
                }
            }
        }
        // What was leaving already is gone, and known to be, when this returns.
        drop(self.sweep.pass().await);
    }

    /// See [`super::Store::release`].
    pub fn release(&self, hashes: &[Hash]) {
        let mut state = self.sweep.state();
        hashes.iter().for_each(|hash| {
            state.claimed.remove(hash);
        });
    }

    /// See [`super::Store::remove`].
    pub async fn remove(&self, hashes: &BTreeSet<Hash>, keep_links: bool) -> io::Result<BTreeSet<Hash>> {
        let _alone = self.sweep.gate.write().await;
        let names = self.blobs.names().await?;
        let segments = names.iter().filter(|named| matches!(named.ground, Ground::Segment(_)));
        let segments: BTreeSet<Hash> = segments.map(|named| named.hash).collect();
        let going = self.going(hashes, &segments);
        let mut links = Vec::new();
        for named in names.into_iter().filter(|named| going.contains(&named.hash)) {
            match &named.ground {
                Ground::Blob { digest, .. } => self.index.forget(digest),
                Ground::Link { repository, digest, .. } if !keep_links => {
                    self.index.unlink_local(repository, digest);
                }
                _ => {}
            }
            self.blobs.unname(&named.ground).await?;
            if keep_links && matches!(named.ground, Ground::Link { .. }) {
                links.push(named);
            }
        }
        going.iter().for_each(|hash| self.reading.forget(hash));
        let swept = self.sweep_out(&going).await;
        // They say what may be seen, whatever has become of the bytes.
        for link in links {
            self.blobs.name(&link.ground, link.hash).await?;
        }
        self.blobs.sync().await?;
        swept?;
        Ok(hashes.difference(&going).copied().collect())
    }

    /// Has the store drop blobs that have no names, then removes our files of them.
    async fn sweep_out(&self, going: &BTreeSet<Hash>) -> io::Result<()> {
        if going.is_empty() {
            return Ok(());
        }
        self.blobs.sync().await?;
        let sweep = self.sweep.clone();
        self.blobs.collect(going, move || sweep.state().fetching.keys().copied().collect()).await?;
        let mut left = BTreeSet::new();
        for hash in going {
            if self.blobs.is_unknown(*hash).await? {
                left.insert(*hash);
            }
        }
        let dirs = self.dirs.clone();
        blocking(move || {
            for hash in &left {
                remove_file(&dirs.file(hash));
                // Of a download that a push overtook.
                dirs.of_store(hash).iter().for_each(|path| remove_file(path));
            }
            Ok(())
        })
        .await?;
        let mut state = self.sweep.state();
        going.iter().for_each(|hash| {
            state.doomed.remove(hash);
        });
        Ok(())
    }

    /// What of these is still to leave.
    fn going(&self, hashes: &BTreeSet<Hash>, segments: &BTreeSet<Hash>) -> BTreeSet<Hash> {
        let state = self.sweep.state();
        let stays = |hash: &Hash| {
            state.fetching.contains_key(hash)
                || segments.contains(hash)
                || self.outboards.size(hash).is_some()
                || *hash == Hash::of(&[])
        };
        hashes.iter().filter(|hash| state.doomed.contains(*hash) && !stays(hash)).copied().collect()
    }

    /// See [`super::Store::fetching`].
    pub fn fetching(self: &Arc<Self>, hash: Hash, bytes: u64) -> Fetching {
        *self.sweep.state().fetching.entry(hash).or_default() += 1;
        self.dirs.room.depart(bytes);
        Fetching { inner: self.clone(), hash, bytes }
    }

    /// A blob's bytes are not what they should be, and its names are gone: it is to leave, so that it can be
    /// fetched again.
    pub fn damaged(&self, hash: Hash) {
        self.sweep.state().damaged.insert(hash);
        self.sweep.damage.notify_one();
    }

    /// Waits until a blob that was found damaged has left.
    pub async fn healed(&self, hash: &Hash) {
        let mut healed = self.sweep.healed.subscribe();
        while self.sweep.state().damaged.contains(hash) {
            if healed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Lets damaged blobs leave, unless they were put in again.
    async fn heal(&self) {
        let damaged = self.sweep.state().damaged.clone();
        if damaged.is_empty() {
            return;
        }
        if let Err(error) = self.drop_damaged(&damaged).await {
            tracing::error!(%error, "damaged blobs could not be deleted; they are not fetched again before the next start");
        }
        self.sweep.state().damaged.retain(|hash| !damaged.contains(hash));
        self.sweep.healed.send_modify(|count| *count = count.wrapping_add(1));
    }

    async fn drop_damaged(&self, damaged: &BTreeSet<Hash>) -> io::Result<()> {
        let again: BTreeSet<Hash> = {
            let names = self.blobs.names().await?.into_iter();
            names
                .filter(|named| !matches!(named.ground, Ground::Link { .. }))
                .map(|named| named.hash)
                .collect()
        };
        let doomed: BTreeSet<Hash> = damaged.difference(&again).copied().collect();
        self.doom(&doomed);
        self.remove(&doomed, true).await.map(|_| ())
    }

    /// The task that has damaged blobs leave, for as long as the store is open.
    pub fn heal_always(self: &Arc<Self>) {
        let weak: Weak<Self> = Arc::downgrade(self);
        let sweep = self.sweep.clone();
        tokio::spawn(async move {
            loop {
                sweep.damage.notified().await;
                let closed = sweep.closed.lock().await;
                // Let go of before `closed` is, so that nobody who shut the store down finds it in use.
                match weak.upgrade().filter(|_| !*closed) {
                    Some(inner) => inner.heal().await,
                    None => return,
                }
            }
        });
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        let mut state = self.inner.sweep.state();
        if let Some(count) = state.fetching.get_mut(&self.hash) {
            *count -= 1;
            if *count == 0 {
                state.fetching.remove(&self.hash);
            }
        }
        drop(state);
        self.inner.dirs.room.land(self.bytes);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The task above ends.
        self.sweep.damage.notify_one();
    }
}

/// How long a client may take from hearing that a blob is here to publishing what needs it.
const CLAIMED_FOR: Duration = Duration::from_secs(600);
/// Most blobs that are kept for that.
const CLAIMED_MAX: usize = 65_536;
