//! The blob store's own garbage collection, which is the only thing that deletes from it, as something that can be
//! asked for: it waits until it is given what is to live, runs once, and waits again.

use std::{
    collections::{BTreeSet, HashSet},
    io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use iroh_blobs::store::{GcConfig, ProtectCb, ProtectOutcome, fs::options::Options};
use tokio::sync::{Notify, watch};
use waystation_proto::Hash;

use super::blobs::{Blobs, theirs};

/// Hashes that are being fetched, asked for as late as can be.
type Fetched = Box<dyn Fn() -> Vec<Hash> + Send + Sync>;

/// Starts collections and hears of their ends.
#[derive(Default)]
pub(super) struct Collector {
    /// What is to live, for the next run.
    next: Mutex<Option<(HashSet<iroh_blobs::Hash>, Fetched)>>,
    wake: Notify,
    running: AtomicBool,
    /// How many have ended.
    ended: watch::Sender<u64>,
}

impl Collector {
    /// The store's options, with collections that this starts.
    pub fn options(self: &Arc<Self>, root: &Path) -> Options {
        let collector = self.clone();
        let add_protected: ProtectCb = Arc::new(move |live| {
            let collector = collector.clone();
            Box::pin(async move { collector.given(live).await })
        });
        let mut options = Options::new(root);
        options.gc = Some(GcConfig { interval: PAUSE, add_protected: Some(add_protected) });
        options
    }

    /// Waits until a collection is wanted. That this is called means that the last one has ended.
    async fn given(&self, live: &mut HashSet<iroh_blobs::Hash>) -> ProtectOutcome {
        if self.running.swap(false, SeqCst) {
            self.ended.send_modify(|count| *count = count.wrapping_add(1));
        }
        loop {
            let next = self.next.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some((hashes, fetched)) = next {
                *live = hashes;
                live.extend(fetched().into_iter().map(theirs));
                self.running.store(true, SeqCst);
                return ProtectOutcome::Continue;
            }
            self.wake.notified().await;
        }
    }

    /// Runs one collection.
    async fn run(&self, live: HashSet<iroh_blobs::Hash>, fetched: Fetched) -> io::Result<()> {
        let mut ended = self.ended.subscribe();
        ended.borrow_and_update();
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some((live, fetched));
        self.wake.notify_one();
        match tokio::time::timeout(PATIENCE, ended.changed()).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(io::Error::other("the blob store's collection of garbage has stopped")),
        }
    }
}

impl Blobs {
    /// Has the store drop these blobs, as far as they have no names and are not being fetched. One at a time: the
    /// caller sees to that.
    pub async fn collect(
        &self,
        going: &BTreeSet<Hash>,
        fetched: impl Fn() -> Vec<Hash> + Send + Sync + 'static,
    ) -> io::Result<()> {
        let known = self.hashes().await?;
        let live = known.into_iter().filter(|hash| !going.contains(hash)).map(theirs).collect();
        // The library ends its collections for good where one fails, and says so nowhere.
        self.collector.run(live, Box::new(fetched)).await.inspect_err(|_| self.stop())
    }
}

/// Between the end of one collection and the moment from which the next can begin.
const PAUSE: Duration = Duration::from_millis(1);
/// Some thousands of blobs take a second.
const PATIENCE: Duration = Duration::from_secs(120);
