//! Admitted connections to other nodes. One is kept for each node and used from either end, whoever dialled;
//! it is closed when neither end has used it for a while, because an idle QUIC connection keeps talking.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use iroh::{
    Endpoint, EndpointAddr, TransportAddr,
    endpoint::{Connection, Incoming, IncomingAddr, VarInt},
};
use iroh_blobs::api::Store;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use waystation_proto::NodeId;

use super::{
    ALPN, DataEvent,
    admission::{self, NotAdmitted, Role},
    counters::Counting,
    serve::{self, HotBlobs, Rooms},
};
use crate::{
    budget::Budget,
    control::{CAME_UNPROVEN, DIALLED_UNPROVEN, Incoming as IncomingStreams, Refusals, is_relayed, resolve},
    identity,
};

/// All connections, and how new ones are made.
pub(super) struct Links {
    endpoint: Endpoint,
    me: NodeId,
    key: [u8; 32],
    means: Means,
    hot: Arc<HotBlobs>,
    events: mpsc::Sender<DataEvent>,
    table: Mutex<Table>,
    incoming: Arc<Semaphore>,
}

/// What everything that is moved goes by.
#[derive(Clone, Debug)]
pub(super) struct Means {
    /// What is served.
    pub(super) store: Store,
    /// What was moved.
    pub(super) counting: Counting,
    /// What may be moved.
    pub(super) budget: Budget,
}

/// One admitted connection.
#[derive(Debug)]
pub(super) struct Link {
    connection: Connection,
    peer: NodeId,
    role: Role,
    users: AtomicUsize,
    used: Mutex<Instant>,
}

/// Marks a link as in use.
pub(super) struct Active(Arc<Link>);

#[derive(Default)]
struct Table {
    links: BTreeMap<NodeId, Arc<Link>>,
    dialling: BTreeMap<NodeId, Dialling>,
    /// Nodes that could not be reached over UDP: when, and at which addresses.
    unreachable: BTreeMap<NodeId, (Instant, Vec<String>)>,
    refusals: Refusals,
}

/// What is known about reaching a node over QUIC.
pub(super) enum Outlook {
    /// There is a connection.
    Open(Arc<Link>),
    /// It was not tried.
    Unknown,
    /// It was tried in vain, so long ago or at such addresses that it should be tried again.
    Due,
    /// It was tried in vain.
    Unreachable,
}

/// A dial that everybody waits for who wants the same node.
pub(super) type Dialling = Shared<BoxFuture<'static, Result<Arc<Link>, String>>>;

impl Links {
    pub(super) fn new(
        endpoint: Endpoint,
        me: NodeId,
        key: [u8; 32],
        means: Means,
        events: mpsc::Sender<DataEvent>,
    ) -> Arc<Self> {
        Arc::new(Links {
            endpoint,
            me,
            key,
            means,
            hot: Arc::default(),
            events,
            table: Mutex::default(),
            incoming: Arc::new(Semaphore::new(INCOMING_MAX)),
        })
    }

    /// Takes connections until stopped.
    pub(super) async fn accept(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let incoming = tokio::select! {
                () = stop.cancelled() => return,
                incoming = self.endpoint.accept() => incoming,
            };
            let Some(incoming) = incoming else { return };
            match self.incoming.clone().try_acquire_owned() {
                Ok(permit) => {
                    tokio::spawn(self.clone().on_incoming(incoming, permit));
                }
                Err(_) => incoming.refuse(),
            }
        }
    }

    /// A connection to this node: the one that is there, or a new one. `why` is for people.
    pub(super) async fn to(
        self: &Arc<Self>,
        peer: NodeId,
        addresses: &[String],
    ) -> Result<Arc<Link>, String> {
        if let Some(link) = self.table().open_link(&peer) {
            return Ok(link);
        }
        self.dialling(peer, addresses).await
    }

    /// What is known about reaching this node at these addresses.
    pub(super) fn outlook(&self, peer: &NodeId, addresses: &[String]) -> Outlook {
        let table = self.table();
        match (table.open_link(peer), table.unreachable.get(peer)) {
            (Some(link), _) => Outlook::Open(link),
            (None, _) if addresses.is_empty() => Outlook::Unreachable,
            (None, Some((_, tried))) if tried != addresses => Outlook::Due,
            (None, Some((when, _))) if when.elapsed() >= UNREACHABLE_FOR => Outlook::Due,
            (None, Some(_)) => Outlook::Unreachable,
            (None, None) => Outlook::Unknown,
        }
    }

    /// The dial to this node that is under way, or a new one. It goes on when nobody waits for it.
    pub(super) fn dialling(self: &Arc<Self>, peer: NodeId, addresses: &[String]) -> Dialling {
        let mut table = self.table();
        if let Some(dialling) = table.dialling.get(&peer) {
            return dialling.clone();
        }
        let (links, addresses) = (self.clone(), addresses.to_vec());
        let dial = tokio::spawn(async move {
            let result = links.clone().dial(peer, addresses.clone()).await;
            links.dialled(peer, addresses, &result);
            result
        });
        let ended = |ended: Result<Result<Arc<Link>, String>, _>| {
            ended.unwrap_or_else(|_| Err("the dial was broken off".into()))
        };
        let dialling = dial.map(ended).boxed().shared();
        table.dialling.insert(peer, dialling.clone());
        dialling
    }

    fn dialled(&self, peer: NodeId, addresses: Vec<String>, result: &Result<Arc<Link>, String>) {
        let mut table = self.table();
        table.dialling.remove(&peer);
        match result {
            Ok(_) => drop(table.unreachable.remove(&peer)),
            Err(why) => {
                if table.unreachable.len() >= UNREACHABLE_MAX {
                    table.unreachable.pop_first();
                }
                tracing::info!(peer = %peer.short(), why, "a member is not reached over UDP; it is asked for blobs over TCP");
                table.unreachable.insert(peer, (Instant::now(), addresses));
            }
        }
    }

    async fn dial(self: Arc<Self>, peer: NodeId, addresses: Vec<String>) -> Result<Arc<Link>, String> {
        let id = identity::endpoint_id(&peer).ok_or("its node id is not a public key")?;
        if peer == self.me {
            return Err("it is this node itself".into());
        }
        let mut sockets = BTreeSet::new();
        let mut why = "it has no address".to_owned();
        for address in addresses.iter().filter(|address| !is_relayed(address)).take(ADDRESSES_MAX) {
            match resolve(address).await {
                Ok(found) => sockets.extend(found),
                Err(error) => why = format!("{address}: {error}"),
            }
        }
        let Some(first) = sockets.first().copied() else { return Err(why) };
        let address = EndpointAddr::from_parts(id, sockets.into_iter().map(TransportAddr::Ip));
        let connection = tokio::time::timeout(CONNECT_TIMEOUT, self.endpoint.connect(address, ALPN))
            .await
            .map_err(|_| format!("no answer within {CONNECT_TIMEOUT:?}"))?
            .map_err(|error| format!("could not connect: {error:#}"))?;
        self.admit(connection, Role::Dialler, Some(first), None).await
    }

    async fn on_incoming(self: Arc<Self>, incoming: Incoming, permit: OwnedSemaphorePermit) {
        let from = match incoming.remote_addr() {
            IncomingAddr::Ip(socket) => Some(socket),
            _ => None,
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, incoming).await {
            Ok(Ok(connection)) => {
                // A failure has been told of.
                let _ = self.admit(connection, Role::Accepter, from, Some(permit)).await;
            }
            Ok(Err(error)) => tracing::debug!(?from, %error, "data connection failed"),
            Err(_) => tracing::debug!(?from, "data connection was not set up in time"),
        }
    }

    /// Serves streams that members open, until there is no control plane any more.
    pub(super) async fn accept_streams(
        self: Arc<Self>,
        mut incoming: IncomingStreams,
        stop: CancellationToken,
    ) {
        let rooms = Rooms::default();
        loop {
            let next = tokio::select! {
                () = stop.cancelled() => return,
                next = incoming.recv() => next,
            };
            let Some((peer, stream)) = next else { return };
            // A stream that is dropped is reset: the other side asks elsewhere, or again.
            let Some(room) = rooms.enter(peer) else { continue };
            let (means, hot) = (self.means.clone(), self.hot.clone());
            let stop = stop.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = serve::serve_stream(peer, stream, means, hot) => {}
                }
                drop(room);
            });
        }
    }

    async fn admit(
        self: &Arc<Self>,
        connection: Connection,
        role: Role,
        address: Option<SocketAddr>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Arc<Link>, String> {
        let peer = identity::node_of_endpoint(&connection.remote_id());
        match admission::admit(&connection, &self.key, role, self.me, peer).await {
            Ok(()) => Ok(self.open(connection, peer, role, permit)),
            Err(NotAdmitted::Lost(why)) => Err(why),
            Err(NotAdmitted::Unproven) => Err(self.refused(role, address, role.unproven().to_owned())),
            Err(NotAdmitted::Version(version)) => {
                let why = format!("it proves admission in form {version}, which this version does not know");
                Err(self.refused(role, address, why))
            }
        }
    }

    fn open(
        self: &Arc<Self>,
        connection: Connection,
        peer: NodeId,
        role: Role,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Arc<Link> {
        if role == Role::Accepter {
            self.means.counting.came(peer);
        }
        let users = AtomicUsize::new(0);
        let link = Arc::new(Link { connection, peer, role, users, used: Mutex::new(Instant::now()) });
        {
            // Another connection to the same node, if there is one, is served until it is idle.
            let mut table = self.table();
            table.links.insert(peer, link.clone());
            table.unreachable.remove(&peer);
        }
        let (links, kept) = (self.clone(), link.clone());
        tokio::spawn(async move {
            let serve = serve::serve(kept.clone(), links.means.clone(), links.hot.clone());
            tokio::select! {
                () = serve => {}
                () = kept.close_when_idle() => {}
            }
            links.forget(&kept);
            drop(permit);
        });
        link
    }

    /// What may be moved.
    pub(super) fn budget(&self) -> &Budget {
        &self.means.budget
    }

    /// Does not offer a link again, because it is closed or of no use.
    pub(super) fn forget(&self, link: &Arc<Link>) {
        let mut table = self.table();
        if table.links.get(&link.peer).is_some_and(|known| Arc::ptr_eq(known, link)) {
            table.links.remove(&link.peer);
        }
    }

    /// Does not offer a node's link again, and tries anew what did not work.
    pub(super) fn forget_node(&self, node: &NodeId) {
        let mut table = self.table();
        table.links.remove(node);
        table.unreachable.remove(node);
    }

    fn refused(&self, role: Role, address: Option<SocketAddr>, why: String) -> String {
        self.means.counting.refused();
        let ip: Option<IpAddr> = address.map(|socket| socket.ip());
        let address = address.map_or_else(|| "unknown".to_owned(), |socket| socket.to_string());
        if self.table().refusals.should_tell(ip, Instant::now()) {
            let direction = if role == Role::Dialler { "to" } else { "from" };
            tracing::warn!(address, "data connection {direction} {address} refused: {why}");
        }
        // For information only: the driver need not be waited for.
        let _ = self.events.try_send(DataEvent::Refused { address, why: why.clone() });
        why
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn open_link(&self, peer: &NodeId) -> Option<Arc<Link>> {
        self.links.get(peer).filter(|link| link.is_open()).cloned()
    }
}

impl Link {
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn peer(&self) -> NodeId {
        self.peer
    }

    pub(super) fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Keeps the link from being closed as idle while the answer lives.
    pub(super) fn active(self: &Arc<Self>) -> Active {
        self.users.fetch_add(1, Relaxed);
        Active(self.clone())
    }

    /// Says that something came over it.
    pub(super) fn touch(&self) {
        *self.used() = Instant::now();
    }

    /// How long nothing has come over it.
    pub(super) fn quiet(&self) -> Duration {
        self.used().elapsed()
    }

    /// Ends once the connection is closed, which it is when nobody has used it for long enough.
    async fn close_when_idle(&self) {
        // The dialler goes first, so that the other end does not close under a request on its way.
        let patience = if self.role == Role::Dialler { IDLE } else { 3 * IDLE };
        loop {
            tokio::select! {
                _ = self.connection.closed() => return,
                () = tokio::time::sleep(IDLE / 4) => {}
            }
            if self.users.load(Relaxed) == 0 && self.quiet() >= patience {
                return self.connection.close(VarInt::from_u32(0), b"idle");
            }
        }
    }

    fn used(&self) -> MutexGuard<'_, Instant> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.touch();
        self.0.users.fetch_sub(1, Relaxed);
    }
}

impl Role {
    fn unproven(self) -> &'static str {
        match self {
            Role::Dialler => DIALLED_UNPROVEN,
            Role::Accepter => CAME_UNPROVEN,
        }
    }
}

/// A holder that does not answer within this is not waited for: there are others.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// iroh sends something every 5 s while a connection is open, so unused ones are not kept for long.
const IDLE: Duration = Duration::from_secs(20);

/// Connections that others opened.
const INCOMING_MAX: usize = 256;

/// Addresses of one node that are tried.
const ADDRESSES_MAX: usize = 8;

/// How long a node is not dialled again that could not be reached. What blocks UDP stays for long.
const UNREACHABLE_FOR: Duration = Duration::from_secs(10 * 60);

/// Such nodes that are remembered.
const UNREACHABLE_MAX: usize = 4096;
