//! Serving on an admitted connection: whole blobs and ranges of them, nothing else. Counts what is sent, and
//! keeps a blob that everybody wants from overrunning the store.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use iroh_blobs::{
    Hash,
    provider::{
        self, StreamPair,
        events::{
            AbortReason, ConnectMode, EventMask, EventSender, ObserveMode, ProviderMessage, RequestMode,
            RequestUpdate, ThrottleMode,
        },
    },
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use waystation_proto::event::Class;

use super::{
    links::{Link, Means},
    rate::Paced,
};
use crate::budget::Way;

/// Answers requests until the connection ends.
pub(super) async fn serve(link: Arc<Link>, means: Means, hot: Arc<HotBlobs>) {
    let (events, received) = EventSender::channel(EVENTS_MAX, MASK);
    tokio::join!(accept(link.clone(), means.clone(), events), judge(link, received, hot, means));
}

/// Takes requests. For whom the other node fetches, a request does not say: all that is sent is one class.
async fn accept(link: Arc<Link>, means: Means, events: EventSender) {
    let connection = link.connection();
    while let Ok((send, receive)) = connection.accept_bi().await {
        let send = Paced::new(send, means.budget.meter(&link.peer(), Way::Up, Class::Client));
        let pair = StreamPair::new(connection.stable_id() as u64, receive, send, events.clone());
        // As many as the peer may have streams open. A failure is told as an event.
        tokio::spawn(provider::handle_stream(pair, means.store.clone()));
    }
}

/// Lets requests for one blob in, a bounded number at a time: the store queues 32 operations for each blob
/// and fails the rest, and reads by this node itself count too.
#[derive(Debug, Default)]
pub(super) struct HotBlobs(Mutex<BTreeMap<Hash, Arc<Semaphore>>>);

/// Leave to read a blob.
struct Entry {
    hash: Hash,
    permit: Option<OwnedSemaphorePermit>,
    hot: Arc<HotBlobs>,
}

impl HotBlobs {
    async fn enter(self: &Arc<Self>, hash: Hash) -> Option<Entry> {
        let turnstile =
            self.table().entry(hash).or_insert_with(|| Arc::new(Semaphore::new(PER_BLOB_MAX))).clone();
        // Fails only if it were closed, which nobody does.
        let permit = turnstile.acquire_owned().await.ok()?;
        Some(Entry { hash, permit: Some(permit), hot: self.clone() })
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<Hash, Arc<Semaphore>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.permit = None;
        let mut table = self.hot.table();
        // Whoever waits or reads holds another reference.
        if table.get(&self.hash).is_some_and(|turnstile| Arc::strong_count(turnstile) == 1) {
            table.remove(&self.hash);
        }
    }
}

async fn judge(
    link: Arc<Link>,
    mut received: mpsc::Receiver<ProviderMessage>,
    hot: Arc<HotBlobs>,
    means: Means,
) {
    while let Some(message) = received.recv().await {
        match message {
            ProviderMessage::GetRequestReceived(request) => {
                let (link, hot, means) = (link.clone(), hot.clone(), means.clone());
                // As many as the peer may have streams open.
                tokio::spawn(async move {
                    let _active = link.active();
                    let hash = request.inner.request.hash;
                    let entry = match request.inner.request.ranges.is_blob() {
                        true => hot.enter(hash).await,
                        false => None,
                    };
                    let answer = match &entry {
                        Some(_) if means.budget.refuses(&link.peer()) => Err(AbortReason::RateLimited),
                        Some(_) => Ok(()),
                        None => Err(AbortReason::Permission),
                    };
                    // Fails where the peer is gone; the updates end then too.
                    let _ = request.tx.send(answer).await;
                    let mut updates = request.rx;
                    while let Ok(Some(update)) = updates.recv().await {
                        let stats = match update {
                            RequestUpdate::Completed(end) => end.stats,
                            RequestUpdate::Aborted(end) => end.stats,
                            RequestUpdate::Started(_) | RequestUpdate::Progress(_) => continue,
                        };
                        means.counting.sent(link.peer(), stats.payload_bytes_sent);
                    }
                });
            }
            ProviderMessage::ObserveRequestReceived(request) => {
                let _ = request.tx.send(Err(AbortReason::Permission)).await;
            }
            // Nothing else is asked for by the mask.
            _ => {}
        }
    }
}

/// Requests that wait to be judged; each is handed on at once.
const EVENTS_MAX: usize = 32;

/// Requests for one blob at a time.
const PER_BLOB_MAX: usize = 16;

const MASK: EventMask = EventMask {
    connected: ConnectMode::None,
    get: RequestMode::InterceptLog,
    get_many: RequestMode::Disabled,
    push: RequestMode::Disabled,
    observe: ObserveMode::Intercept,
    throttle: ThrottleMode::None,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_blob_is_entered_by_so_many_and_forgotten_when_left() {
        let hot = Arc::new(HotBlobs::default());
        let mut inside = Vec::new();
        for _ in 0..PER_BLOB_MAX {
            inside.push(hot.enter(Hash::EMPTY).await.expect("open"));
        }
        let mut waiting = Box::pin(hot.enter(Hash::EMPTY));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert!(hot.enter(Hash::new("another")).await.is_some());
        inside.pop();
        inside.push(waiting.await.expect("open"));
        drop(inside);
        assert!(hot.table().is_empty());
    }
}
