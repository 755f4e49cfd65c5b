//! Serving on an admitted connection: whole blobs and ranges of them, nothing else. Counts what is sent, and
//! keeps a blob that everybody wants from overrunning the store.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use iroh_blobs::{
    Hash,
    protocol::Request,
    provider::{
        self, StreamPair,
        events::{
            AbortReason, ConnectMode, EventMask, EventSender, ObserveMode, ProviderMessage, RequestMode,
            RequestUpdate, ThrottleMode,
        },
    },
};
use libp2p::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use waystation_proto::{NodeId, event::Class};

use super::{
    links::{Link, Means},
    rate::Paced,
    transport,
};
use crate::budget::Way;

/// Answers requests until the connection ends.
pub(super) async fn serve(link: Arc<Link>, means: Means, hot: Arc<HotBlobs>) {
    let (events, received) = EventSender::channel(EVENTS_MAX, MASK);
    tokio::join!(
        accept(link.clone(), means.clone(), events),
        judge(link.peer(), Some(link), received, hot, means)
    );
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

/// Answers the one request of a stream, by the same rules.
pub(super) async fn serve_stream(peer: NodeId, stream: Stream, means: Means, hot: Arc<HotBlobs>) {
    let (events, received) = EventSender::channel(EVENTS_MAX, MASK);
    let (send, receive) = transport::halves(stream);
    let send = Paced::new(send, means.budget.meter(&peer, Way::Up, Class::Client));
    let store = means.store.clone();
    let mut pair = StreamPair::new(0, receive, send, events);
    let answer = async {
        let result = match tokio::time::timeout(REQUEST_TIMEOUT, pair.read_request()).await {
            Ok(Ok(Request::Get(request))) => provider::handle_get(pair, store, request).await,
            // Nothing else is answered; the stream is reset.
            Ok(Ok(_)) | Err(_) => return,
            Ok(Err(error)) => Err(error),
        };
        if let Err(error) = result {
            tracing::debug!(peer = %peer.short(), %error, "a request was not answered");
        }
    };
    tokio::join!(answer, judge(peer, None, received, hot, means));
}

/// How many streams each member has open here: as many as QUIC would give it.
#[derive(Clone, Debug, Default)]
pub(super) struct Rooms(Arc<Mutex<BTreeMap<NodeId, usize>>>);

/// Leave to have a stream.
pub(super) struct Room {
    peer: NodeId,
    rooms: Rooms,
}

impl Rooms {
    /// Nothing where the member, or all members together, have as many as they may.
    pub(super) fn enter(&self, peer: NodeId) -> Option<Room> {
        let mut table = self.table();
        let (all, of_peer) = (table.values().sum::<usize>(), table.get(&peer).copied().unwrap_or(0));
        if all >= STREAMS_MAX || of_peer >= STREAMS_PER_PEER_MAX {
            return None;
        }
        table.insert(peer, of_peer + 1);
        Some(Room { peer, rooms: self.clone() })
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<NodeId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut table = self.rooms.table();
        match table.get_mut(&self.peer) {
            Some(streams) if *streams > 1 => *streams -= 1,
            _ => drop(table.remove(&self.peer)),
        }
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

/// `link` is kept from being closed as idle while requests of it are answered.
async fn judge(
    peer: NodeId,
    link: Option<Arc<Link>>,
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
                    let _active = link.as_ref().map(Link::active);
                    let hash = request.inner.request.hash;
                    let entry = match request.inner.request.ranges.is_blob() {
                        true => hot.enter(hash).await,
                        false => None,
                    };
                    let answer = match &entry {
                        Some(_) if means.budget.refuses(&peer) => Err(AbortReason::RateLimited),
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
                        means.counting.sent(peer, stats.payload_bytes_sent);
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

/// A stream is opened with its request at hand, which is small.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Streams over TCP that are served at a time: to all members, and to one.
const STREAMS_MAX: usize = 1024;
const STREAMS_PER_PEER_MAX: usize = 100;

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

    #[test]
    fn a_member_has_so_many_streams_and_leaves_room_for_others() {
        let rooms = Rooms::default();
        let (greedy, other) = (NodeId([1; 32]), NodeId([2; 32]));
        let mut taken: Vec<Room> = (0..STREAMS_PER_PEER_MAX).map_while(|_| rooms.enter(greedy)).collect();
        assert_eq!(taken.len(), STREAMS_PER_PEER_MAX);
        assert!(rooms.enter(greedy).is_none());
        assert!(rooms.enter(other).is_some());
        taken.pop();
        taken.extend(rooms.enter(greedy));
        assert_eq!(taken.len(), STREAMS_PER_PEER_MAX);
        drop(taken);
        assert!(rooms.table().is_empty());
    }

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
