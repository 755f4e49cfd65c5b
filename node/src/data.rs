//! The data plane: ranges of blobs between members, by the iroh-blobs protocol over iroh's QUIC or, where that
//! does not get through, over the control plane's TCP connections. Knows connections, fetches and bytes, and
//! decides nothing: what to fetch from whom is the protocol's. No discovery service: peers are reached at the
//! addresses they gave. A node that cannot prove the mesh's admission secret is not answered.

mod admission;
mod counters;
mod fetch;
mod links;
mod rate;
mod reached;
mod serve;
mod transport;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    ops::Range,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;
use iroh::{
    Endpoint, RelayMode,
    endpoint::{AckFrequencyConfig, NetReportConfig, PortmapperConfig, QuicTransportConfig, VarInt, presets},
};
use iroh_blobs::api::Store;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use waystation_proto::{
    FetchId, Hash, NodeId,
    event::{Class, Fault},
};

pub use self::counters::{Counting, DataCounters, PeerBytes};
pub(crate) use self::reached::answers_as;
use self::{
    fetch::FetchError,
    links::{Links, Means},
    transport::Transports,
};
use crate::{
    budget::{Budget, Urgency},
    control::{Incoming, Streams},
    identity::Identity,
    mesh::MeshFile,
};

/// Where to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataConfig {
    /// UDP address; port 0 takes any free one.
    pub listen: SocketAddr,
}

/// What to fetch from whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchOrder {
    /// Names the fetch in the answer.
    pub fetch: FetchId,
    /// The holder.
    pub from: NodeId,
    /// Where it is, `host:port` (UDP). Not needed while a connection to it is open.
    pub addresses: Vec<String>,
    /// The blob.
    pub hash: Hash,
    /// The blob's size in bytes.
    pub size: u64,
    /// Which bytes: starts at a multiple of 16 KiB and ends at one, or at the blob's end.
    pub range: Range<u64>,
    /// For whom.
    pub class: Class,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataEvent {
    /// The range is verified and in the store; not synced to disk.
    Fetched {
        /// Which fetch.
        fetch: FetchId,
    },
    /// Bytes of it are arriving: told at most twice a second, and not where nobody takes it.
    Arriving {
        /// Which fetch.
        fetch: FetchId,
    },
    /// The fetch ended early. What was verified until then is in the store.
    Failed {
        /// Which fetch.
        fetch: FetchId,
        /// Whose fault.
        fault: Fault,
        /// For people.
        why: String,
    },
    /// A connection was refused by one side because the other did not prove the admission secret. Told
    /// as long as somebody takes it; the counter is exact.
    Refused {
        /// Of the other side, `host:port`.
        address: String,
        /// Why.
        why: String,
    },
}

/// Why the data plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The address could not be bound.
    #[error("cannot listen on {address} (UDP): {why}; stop what uses it, or choose another address")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        why: String,
    },
}

/// The running data plane.
pub struct Data {
    endpoint: Endpoint,
    local_addr: SocketAddr,
    links: Arc<Links>,
    transports: Arc<Transports>,
    store: Store,
    counting: Counting,
    events: mpsc::Sender<DataEvent>,
    fetches: Mutex<Fetches>,
    stopping: CancellationToken,
    stop: DropGuard,
}

/// Fetches under way. Dropping it stops them all.
#[derive(Default)]
struct Fetches {
    tasks: JoinSet<()>,
    handles: BTreeMap<FetchId, (AbortHandle, Urgency)>,
}

impl Data {
    /// Binds, and serves what `store` holds. Fetches write into the same store. Both go by `budget`.
    pub async fn start(
        config: DataConfig,
        identity: &Identity,
        mesh: &MeshFile,
        store: Store,
        budget: Budget,
        events: mpsc::Sender<DataEvent>,
    ) -> Result<Data, DataError> {
        let endpoint = bind(config.listen, identity).await?;
        let local_addr = endpoint.bound_sockets().first().copied().unwrap_or(config.listen);
        let counting = Counting::default();
        let key = mesh.admission().derive("data plane");
        let me = identity.node_id();
        let means = Means { store: store.clone(), counting: counting.clone(), budget };
        let links = Links::new(endpoint.clone(), me, key, means, events.clone());
        let stop = CancellationToken::new();
        tokio::spawn(links.clone().accept(stop.clone()));
        let transports = Arc::new(Transports::new(links.clone()));
        let (fetches, stopping, stop) = (Mutex::default(), stop.clone(), stop.drop_guard());
        Ok(Data { endpoint, local_addr, links, transports, store, counting, events, fetches, stopping, stop })
    }

    /// From now on blobs also come and go on streams of the control plane, where QUIC does not get through.
    pub fn also_over(&self, streams: Streams, incoming: Incoming) {
        self.transports.add(streams);
        tokio::spawn(self.links.clone().accept_streams(incoming, self.stopping.clone()));
    }

    /// Where it listens, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Starts a fetch. Answered by one [`DataEvent::Fetched`] or [`DataEvent::Failed`], unless cancelled.
    /// False: [`Data::FETCHES_MAX`] are under way, or one of that id is; no answer comes.
    pub fn fetch(&self, order: FetchOrder) -> bool {
        let mut fetches = self.fetches();
        fetches.reap();
        if fetches.handles.len() >= Self::FETCHES_MAX || fetches.handles.contains_key(&order.fetch) {
            return false;
        }
        self.counting.fetch();
        let id = order.fetch;
        let urgency = Urgency::from(order.class);
        let class = urgency.clone();
        let (links, transports, store) = (self.links.clone(), self.transports.clone(), self.store.clone());
        let (counting, events) = (self.counting.clone(), self.events.clone());
        let handle = fetches.tasks.spawn(async move {
            let fetching =
                fetch::fetch(&links, &transports, &store, &counting, (&order, &class), &events);
            let fetching = AssertUnwindSafe(fetching).catch_unwind();
            let panicked = |_| Err(FetchError { fault: Fault::Local, why: "the fetch panicked".into() });
            let event = match fetching.await.unwrap_or_else(panicked) {
                Ok(()) => DataEvent::Fetched { fetch: order.fetch },
                Err(FetchError { fault, why }) => {
                    if fault != Fault::Budget {
                        counting.failed();
                    }
                    tracing::debug!(from = %order.from.short(), hash = %order.hash.short(), ?fault, why, "fetch failed");
                    DataEvent::Failed { fetch: order.fetch, fault, why }
                }
            };
            // Nobody listens any more only where the node is stopping.
            let _ = events.send(event).await;
        });
        fetches.handles.insert(id, (handle, urgency));
        true
    }

    /// Stops a fetch. Its answer may be on the way already.
    pub fn cancel(&self, fetch: FetchId) {
        if let Some((handle, _)) = self.fetches().handles.remove(&fetch) {
            handle.abort();
        }
    }

    /// Goes on with a fetch as one that a client waits for.
    pub fn hasten(&self, fetch: FetchId) {
        if let Some((_, urgency)) = self.fetches().handles.get(&fetch) {
            urgency.raise();
        }
    }

    /// Connects anew for the next fetch from a node, which may have crashed: QUIC would notice late. What is
    /// under way goes on.
    pub fn forget(&self, node: &NodeId) {
        self.links.forget_node(node);
    }

    /// What was counted since the start.
    pub fn counters(&self) -> DataCounters {
        self.counting.now()
    }

    /// A handle to what is counted, which outlives the plane.
    pub fn counting(&self) -> Counting {
        self.counting.clone()
    }

    /// Stops fetches, tells peers and closes, within two seconds.
    pub async fn shutdown(self) {
        drop(self.stop);
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner).tasks.abort_all();
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, self.endpoint.close()).await.is_err() {
            tracing::debug!("some peers did not acknowledge that this node is closing");
        }
    }

    /// Most fetches at a time.
    pub const FETCHES_MAX: usize = 64;

    fn fetches(&self) -> MutexGuard<'_, Fetches> {
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Data({})", self.local_addr)
    }
}

impl Fetches {
    /// Forgets fetches that have ended.
    fn reap(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        self.handles.retain(|_, (handle, _)| !handle.is_finished());
    }
}

/// The stream windows stay as iroh sets them: with larger ones a lossy path breaks the connection. iroh asks
/// the system for socket buffers of 7 MiB by itself; `net.core.rmem_max` limits what it gets.
async fn bind(address: SocketAddr, identity: &Identity) -> Result<Endpoint, DataError> {
    let failed = |why: String| DataError::Listen { address, why };
    Endpoint::builder(presets::Minimal)
        .transport_config(transport())
        .secret_key(identity.iroh_secret())
        .alpns(vec![ALPN.to_vec()])
        .relay_mode(RelayMode::Disabled)
        .clear_address_lookup()
        .portmapper_config(PortmapperConfig::Disabled)
        .net_report_config(NetReportConfig::minimal())
        .clear_ip_transports()
        .bind_addr(address)
        .map_err(|error| failed(format!("{error:#}")))?
        .bind()
        .await
        .map_err(|error| failed(format!("{error:#}")))
}

/// Asks the other end to acknowledge every eighth packet instead of every second (QUIC's extension
/// draft-ietf-quic-ack-frequency): where sites trade parts, acknowledgements share the line with what comes. Fewer
/// than the ten packets that a connection begins with (RFC 9002, section 7.2), so that no start waits for a timer.
fn transport() -> QuicTransportConfig {
    let mut frequency = AckFrequencyConfig::default();
    frequency.ack_eliciting_threshold(VarInt::from_u32(ACK_ELICITING_THRESHOLD));
    QuicTransportConfig::builder().ack_frequency_config(Some(frequency)).build()
}

/// Packets that may come without an answer.
const ACK_ELICITING_THRESHOLD: u32 = 7;

/// The protocol that is agreed on; its number changes when admission or requests do.
const ALPN: &[u8] = b"waystation/blobs/1";

const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
