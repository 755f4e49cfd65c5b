//! One fetch: a range of a blob, from one node, into the store. The library verifies every 16 KiB before they
//! are written; this file asks, watches the progress and says whose fault it was.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use iroh_blobs::{
    Hash,
    api::{Store, remote::GetProgressItem},
    get::{GetError, StreamPair, fsm::DecodeError},
    protocol::{ChunkRanges, ChunkRangesExt, GetRequest},
};
use waystation_proto::event::Fault;

use super::{
    FetchOrder,
    counters::Counting,
    links::{Link, Links},
    transport::{Exchange, Transports},
};

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
    order: &FetchOrder,
) -> Result<(), FetchError> {
    let mut received = 0;
    let mut exchange = open(transports, order).await?;
    let mut link = exchange.line.link().cloned();
    let mut result = transfer(exchange, store, counting, order, &mut received).await;
    // The other end may have closed an idle connection just when this end took it up again.
    let was_stale = |link: &Arc<Link>| !link.is_open();
    let may_retry = matches!(&result, Err(error) if error.fault == Fault::Peer) && received == 0;
    if let Some(stale) = link.as_ref().filter(|link| may_retry && was_stale(link)) {
        links.forget(stale);
        exchange = open(transports, order).await?;
        link = exchange.line.link().cloned();
        result = transfer(exchange, store, counting, order, &mut received).await;
    }
    if let Some(link) = link.filter(|link| result.is_err() && link.quiet() >= STALL) {
        // Nothing came over it at all: the path or the node is dead, and QUIC has yet to notice.
        links.forget(&link);
    }
    result
}

async fn open(transports: &Transports, order: &FetchOrder) -> Result<Exchange, FetchError> {
    transports.open(order.from, &order.addresses).await.map_err(of_peer)
}

async fn transfer(
    exchange: Exchange,
    store: &Store,
    counting: &Counting,
    order: &FetchOrder,
    received: &mut u64,
) -> Result<(), FetchError> {
    let Exchange { send, receive, line } = exchange;
    let pair = StreamPair::new(line.connection_id(), receive, send);
    let progress = store.remote().execute_get(pair, request(order)).stream();
    tokio::pin!(progress);
    loop {
        let item = tokio::time::timeout(STALL, progress.next())
            .await
            .map_err(|_| of_peer(format!("sent nothing for {STALL:?}")))?;
        match item {
            Some(GetProgressItem::Progress(bytes)) => {
                line.touch();
                counting.received(order.from, bytes.saturating_sub(*received));
                *received = bytes.max(*received);
            }
            Some(GetProgressItem::Done(_)) => return Ok(()),
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

/// A transfer that brings nothing for this long is given up.
const STALL: Duration = Duration::from_secs(10);
