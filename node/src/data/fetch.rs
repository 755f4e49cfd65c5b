//! One fetch: a range of a blob, from one node, into the store. The library verifies every 16 KiB before they
//! are written; this file asks, watches the progress and says whose fault it was.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use iroh_blobs::{
    Hash,
    api::{Store, remote::GetProgressItem},
    get::{GetError, StreamPair, fsm::DecodeError},
    protocol::{ChunkRanges, ChunkRangesExt, GetRequest},
};
use tokio::sync::mpsc;
use waystation_proto::{FetchId, event::Fault};

use super::{
    DataEvent, FetchOrder,
    counters::Counting,
    links::{Link, Links},
    rate::Paced,
    transport::{Exchange, Transports},
};
use crate::budget::{Budget, Urgency, Way};

/// Why a fetch ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FetchError {
    pub(super) fault: Fault,
    pub(super) why: String,
}

/// Fetches what the order names.
pub(super) async fn fetch(
    links: &Arc<Links>,
    transports: &Transports,
    store: &Store,
    counting: &Counting,
    (order, urgency): (&FetchOrder, &Urgency),
    events: &mpsc::Sender<DataEvent>,
) -> Result<(), FetchError> {
    let budget = links.budget();
    // The planner has been told, but may not have heard yet.
    if let Some(blocked) = budget.blocks(urgency.class()).filter(|_| budget.is_far(&order.from)) {
        return Err(FetchError { fault: Fault::Budget, why: blocked.to_string() });
    }
    let mut arrival = Arrival { received: 0, told: Instant::now(), events };
    let mut exchange = open(transports, order).await?;
    let mut link = exchange.line.link().cloned();
    let mut result = transfer(exchange, store, (counting, budget), (order, urgency), &mut arrival).await;
    // The other end may have closed an idle connection just when this end took it up again.
    let was_stale = |link: &Arc<Link>| !link.is_open();
    let may_retry = matches!(&result, Err(error) if error.fault == Fault::Peer) && arrival.received == 0;
    if let Some(stale) = link.as_ref().filter(|link| may_retry && was_stale(link)) {
        links.forget(stale);
        exchange = open(transports, order).await?;
        link = exchange.line.link().cloned();
        result = transfer(exchange, store, (counting, budget), (order, urgency), &mut arrival).await;
    }
    if let Some(link) = link.filter(|link| result.is_err() && link.quiet() >= STALL) {
        // Nothing came over it at all: the path or the node is dead, and QUIC has yet to notice.
        links.forget(&link);
    }
    result
}

/// How much has come, and when that was last told.
struct Arrival<'a> {
    received: u64,
    told: Instant,
    events: &'a mpsc::Sender<DataEvent>,
}

impl Arrival<'_> {
    fn note(&mut self, bytes: u64, fetch: FetchId) {
        self.received = bytes.max(self.received);
        if self.told.elapsed() >= TELL {
            self.told = Instant::now();
            // One more is told soon.
            let _ = self.events.try_send(DataEvent::Arriving { fetch });
        }
    }
}

async fn open(transports: &Transports, order: &FetchOrder) -> Result<Exchange, FetchError> {
    transports.open(order.from, &order.addresses).await.map_err(of_peer)
}

async fn transfer(
    exchange: Exchange,
    store: &Store,
    (counting, budget): (&Counting, &Budget),
    (order, urgency): (&FetchOrder, &Urgency),
    arrival: &mut Arrival<'_>,
) -> Result<(), FetchError> {
    let Exchange { send, receive, line } = exchange;
    let meter = budget.meter(&order.from, Way::Down, urgency.clone());
    let pulse = meter.pulse();
    let pair = StreamPair::new(line.connection_id(), Paced::new(receive, meter), send);
    let progress = store.remote().execute_get(pair, request(order)).stream();
    tokio::pin!(progress);
    loop {
        let item = match tokio::time::timeout(STALL, progress.next()).await {
            Ok(item) => item,
            // It is this node that does not take more, or the other that sends little at a time.
            Err(_) if pulse.quiet() < STALL => {
                line.touch();
                continue;
            }
            Err(_) => return Err(of_peer(format!("sent nothing for {STALL:?}"))),
        };
        match item {
            Some(GetProgressItem::Progress(bytes)) => {
                line.touch();
                counting.received(order.from, bytes.saturating_sub(arrival.received));
                arrival.note(bytes, order.fetch);
            }
            Some(GetProgressItem::Done(_)) => return Ok(()),
            Some(GetProgressItem::Error(error)) if pulse.is_stopped() => {
                return Err(FetchError { fault: Fault::Budget, why: format!("{error:#}") });
            }
            Some(GetProgressItem::Error(error)) => return Err(judge(&error)),
            None => return Err(of_store("the transfer ended without a result")),
        }
    }
}

fn request(order: &FetchOrder) -> GetRequest {
    let hash = Hash::from_bytes(order.hash.0);
    if order.range.start == 0 && order.range.end >= order.size {
        GetRequest::blob(hash)
    } else {
        GetRequest::blob_ranges(hash, ChunkRanges::bytes(order.range.clone()))
    }
}

fn judge(error: &GetError) -> FetchError {
    let fault = match error {
        GetError::Decode {
            source: DecodeError::ParentHashMismatch { .. } | DecodeError::LeafHashMismatch { .. },
            ..
        } => Fault::Lied,
        GetError::Decode { source: DecodeError::Write { .. }, .. }
        | GetError::IrpcSend { .. }
        | GetError::LocalFailure { .. }
        | GetError::BadRequest { .. } => Fault::Local,
        _ => Fault::Peer,
    };
    FetchError { fault, why: format!("{error:#}") }
}

fn of_peer(why: String) -> FetchError {
    FetchError { fault: Fault::Peer, why }
}

fn of_store(why: &str) -> FetchError {
    FetchError { fault: Fault::Local, why: why.into() }
}

/// How often it is told that bytes arrive.
const TELL: Duration = Duration::from_millis(400);
/// A transfer that brings nothing for this long is given up.
const STALL: Duration = Duration::from_secs(10);
