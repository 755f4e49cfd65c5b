//! Outboards of large blobs that were taken in. The blob store makes one by reading the whole file again, which
//! takes about as long as receiving did, and only other nodes need it. So a large blob is acknowledged when its
//! bytes and names are durable, and its outboard is made after that. Until then a named tag says that it is still
//! to be made: a start after a crash makes it (`recovery.rs`).

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use waystation_proto::Hash;

use super::{Inner, ground::Ground};

/// The blobs whose outboards are being made. To everyone but other nodes they are complete.
pub(super) struct Outboards {
    pending: Mutex<BTreeMap<Hash, Pending>>,
    turns: Arc<Semaphore>,
}

/// The making of one outboard.
pub(super) struct Making {
    outboards: Arc<Outboards>,
    hash: Hash,
    size: u64,
    _turn: OwnedSemaphorePermit,
}

struct Pending {
    size: u64,
    done: CancellationToken,
}

impl Outboards {
    pub fn new() -> Self {
        Outboards { pending: Mutex::default(), turns: Arc::new(Semaphore::new(MAX_PENDING)) }
    }

    /// The size of a blob whose outboard is being made.
    pub fn size(&self, hash: &Hash) -> Option<u64> {
        self.pending().get(hash).map(|pending| pending.size)
    }

    /// Waits until no more than a few others are being made.
    pub async fn turn(&self) -> io::Result<OwnedSemaphorePermit> {
        self.turns.clone().acquire_owned().await.map_err(io::Error::other)
    }

    /// From now on the blob counts as complete, until what is returned is dropped. Nothing where somebody else
    /// has begun already.
    pub fn begin(self: &Arc<Self>, hash: Hash, size: u64, turn: OwnedSemaphorePermit) -> Option<Making> {
        match self.pending().entry(hash) {
            Entry::Occupied(_) => None,
            Entry::Vacant(entry) => {
                entry.insert(Pending { size, done: CancellationToken::new() });
                Some(Making { outboards: self.clone(), hash, size, _turn: turn })
            }
        }
    }

    /// Waits until the blob's outboard has been made, if that is under way.
    pub async fn done(&self, hash: &Hash) {
        let done = self.pending().get(hash).map(|pending| pending.done.clone());
        if let Some(done) = done {
            done.cancelled().await;
        }
    }

    fn pending(&self) -> MutexGuard<'_, BTreeMap<Hash, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if let Some(pending) = self.outboards.pending().remove(&self.hash) {
            pending.done.cancel();
        }
    }
}

impl Inner {
    /// Has the store take in a file whose bytes and names are durable. What fails here is done again by the
    /// next start.
    pub fn make_outboard(self: &Arc<Self>, making: Making) {
        let inner = self.clone();
        tokio::spawn(async move {
            let Making { hash, size, .. } = making;
            let made = inner.import(hash, size).await;
            let made = match made {
                Ok(()) => inner.blobs.unname(&Ground::Outboard { hash, size }).await,
                failed => failed,
            };
            if let Err(error) = made {
                tracing::error!(%hash, %error, "other nodes cannot fetch a blob from here until the next start");
            }
            drop(making);
        });
    }
}

/// Blobs at a time whose outboards are being made; further pushes wait for one of them.
const MAX_PENDING: usize = 4;
/// From which size on, in bytes, an outboard is worth making later.
pub(super) const LATER: u64 = 8 * 1024 * 1024;
