//! The composition root: builds the process in the order of dependencies, runs it, and takes it down in
//! the reverse order. Each part is given the parts that it needs and never the whole.

mod blockers;
mod guard;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use rustix::process::{Resource, getrlimit, setrlimit};
use serde::Serialize;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use waystation_proto::{
    NodeId, Replica, ReplicaConfig, Wall,
    glob::Glob,
    grant::{Action, Actions},
};

use self::guard::Guard;
use crate::{
    access::{AccessError, tls::TlsError},
    admin::{self, Readiness},
    api::{Api, DataPlane, NodeFacts, PeerTraffic, granter},
    budget::Budget,
    config::Config,
    control::{Control, ControlConfig, ControlError},
    data::{Data, DataConfig, DataError},
    driver::{Driver, Parts, Sources, handle::ReplicaHandle, witness::Witness},
    explain::Insight,
    gc::Gc,
    home::{Home, HomeError},
    mesh::RootKey,
    metrics::Metrics,
    mirror::{Downloads, Mirror, MirrorConfig},
    platform::this_platform,
    reach::Asking,
    registry::{self, Origin, Registry, RegistryConfig},
    shutdown::Signals,
    socket::{LocalSocket, SocketError},
    store::{OpenError, Opened, Store},
    upstream::{UpstreamConfigError, Upstreams},
};

/// Why a node could not start, or did not go on. The texts say what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// Keys or mesh.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The control plane.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The data plane.
    #[error(transparent)]
    Data(#[from] DataError),
    /// What serving clients needs.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// An HTTP listener.
    #[error(
        "cannot listen on {address} for {what}: {why}; stop what uses it, or choose another address with {flag}"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// For whom.
        what: &'static str,
        /// What the system said.
        why: std::io::Error,
        /// How to choose another.
        flag: &'static str,
    },
    /// A part that the node cannot do without ended while it ran.
    #[error("a part of the node ended by itself, see the log above for which; start the node again")]
    Ended,
    /// Anything else of the system's.
    #[error("{what}: {why}")]
    System {
        /// What was to be done.
        what: String,
        /// What the system said.
        why: std::io::Error,
    },
}

/// Why clients or the operator could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Users, rules, tokens.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Certificate and key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The local socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// What an upstream needs.
    #[error(transparent)]
    Upstream(#[from] UpstreamConfigError),
}

/// Runs a node until it is told to stop.
pub async fn run(config: Config) -> Result<(), StartError> {
    raise_file_limit();
    let mut signals = Signals::listen().map_err(|why| system("signals cannot be handled", why))?;
    let node = Node::start(config).await?;
    let asked = tokio::select! {
        () = signals.first() => true,
        () = node.stop.cancelled() => false,
        () = node.store.stopped() => {
            error!("the disk failed under the blob store");
            false
        }
    };
    if !asked {
        error!("a part of the node ended by itself; stopping, to be started anew");
    }
    tokio::select! {
        () = node.drain() => {}
        _ = signals.second() => {}
    }
    // A supervisor starts again what failed, and leaves what was stopped.
    if asked { Ok(()) } else { Err(StartError::Ended) }
}

/// A running node.
struct Node {
    store: Store,
    budget: Budget,
    readiness: Readiness,
    ready_file: Option<PathBuf>,
    /// Ends the listeners.
    serving: CancellationToken,
    listeners: Vec<JoinHandle<()>>,
    /// Ends the driver, and with it both planes.
    driving: CancellationToken,
    driver: JoinHandle<()>,
    /// Cancelled when a part ends by itself.
    stop: CancellationToken,
}

/// Listeners that clients, operators and their tools connect to.
struct Doors {
    registry: TcpListener,
    admin: TcpListener,
    socket: LocalSocket,
}

/// What `--ready-file` says.
#[derive(Serialize)]
struct Ready<'a> {
    node_id: String,
    site: &'a str,
    listen: SocketAddr,
    mesh_listen: SocketAddr,
    admin_listen: SocketAddr,
    join: String,
    pid: u32,
}

impl Node {
    async fn start(config: Config) -> Result<Self, StartError> {
        let started = Instant::now();
        let Opened { store, records, hashes } = Store::open(&config.node.data_dir).await?;
        let home = Home::open(&config.node, config.mesh.file.as_deref())?;
        let doors = Doors::open(&config).await?;
        let metrics = Metrics::new();
        let guard = Guard::open(&config, &metrics)?;
        let budget = budget(&config, &store);
        let planes = Planes::open(&config, &home, &store, &budget).await?;
        let mesh_listen = planes.listen;
        let (counters, addresses) = (planes.data.counting(), planes.addresses(&config));
        let blobs = store.clone();
        let upstreams = upstreams(&config, &home)?;
        let downloads = Downloads::new(store.clone(), upstreams.clone(), metrics.clone());
        let mirror = mirror_config(&config, &home);
        let (replica, handle, sources) = assemble(&config, &home, planes.events);
        let asking = Asking::over(planes.control.dial_backs(), &store, home.mesh.admission().clone());
        let insight = Insight { asking, ..blockers::insight(&config, &store, &budget, &counters) };
        let parts = Parts {
            witness: Witness::new(&insight, upstreams.clone(), config.node.site.clone()),
            replica,
            store: store.clone(),
            control: planes.control,
            data: planes.data,
            downloads: downloads.clone(),
            metrics: metrics.clone(),
            budget: budget.clone(),
            advertise: addresses.clone(),
        };
        let [stop, driving, serving] = std::array::from_fn(|_| CancellationToken::new());
        let driver = drive(Driver::new(parts, records, hashes), sources, driving.clone(), stop.clone());
        if let Some(root) = &home.root {
            first_grant(&handle, &home, root).await;
        }
        let facts = NodeFacts {
            node: home.identity.node_id(),
            site: config.node.site.clone(),
            tier: config.node.tier,
            mesh: home.mesh.mesh(),
            listen: local(&doors.registry)?,
            mesh_listen,
            admin_listen: local(&doors.admin)?,
            addresses,
            started,
            data_plane: Arc::new(move || traffic(&counters)),
            opens_when_shared: config.mesh.listen.is_none() && !home.shared,
            blobs: Arc::new(move || blobs.index().held_count() as u64),
            granter: home.root.map(granter),
            access: guard.status(&metrics),
            upstreams: upstreams.clone(),
            budget: budget.clone(),
            insight,
        };
        let readiness = Readiness::starting();
        let (registry, errands) =
            endpoint(&config, (&guard, &metrics), &store, &handle, &facts, (downloads, mirror), &serving);
        let gc = collector(&config, &store, &handle, &facts, &metrics)?;
        let api = Api::new(store.clone(), handle, facts.clone(), gc.clone());
        let mut listeners = doors.serve(&registry, guard, api, &metrics, &readiness, (&serving, &stop));
        let keeping = tokio::spawn(budget.clone().keep(serving.clone()));
        listeners.extend([errands, keeping, gc.start(serving.clone())]);
        readiness.ready();
        // Whoever waits for one of these finds a node that is ready.
        announce_start(&facts, started);
        if let Some(path) = &config.node.ready_file {
            write_ready(path, &Ready::of(&facts))?;
        }
        let ready_file = config.node.ready_file;
        Ok(Node { store, budget, readiness, ready_file, serving, listeners, driving, driver, stop })
    }

    /// Stops accepting, finishes what is under way, closes the planes, closes the store.
    async fn drain(self) {
        self.readiness.not_ready("the node is stopping");
        if let Some(path) = &self.ready_file {
            // Whoever reads it later must not take a stopped node for a running one.
            let _ = std::fs::remove_file(path);
        }
        self.serving.cancel();
        let finish = async {
            for listener in self.listeners {
                let _ = listener.await;
            }
            self.driving.cancel();
            let _ = self.driver.await;
            let budget = self.budget;
            let _ = tokio::task::spawn_blocking(move || budget.save()).await;
            self.store.shutdown().await;
        };
        if tokio::time::timeout(DRAIN, finish).await.is_err() {
            warn!("stopped before everything was finished; what was acknowledged is on disk");
        } else {
            info!("stopped");
        }
    }
}

impl Doors {
    async fn open(config: &Config) -> Result<Self, StartError> {
        let socket = LocalSocket::bind(&config.node.data_dir).map_err(ServeError::from)?;
        let registry = listen(config.registry.listen, "clients", "--listen").await?;
        let (address, any_port) = config.admin_listen();
        let admin = match listen(address, "health checks and metrics", "--admin-listen").await {
            Err(StartError::Listen { why, .. })
                if any_port && why.kind() == std::io::ErrorKind::AddrInUse =>
            {
                let free = SocketAddr::new(address.ip(), 0);
                let admin = listen(free, "health checks and metrics", "--admin-listen").await?;
                info!(taken = %address, listen = %local(&admin)?, "the usual admin port is taken; using a free one");
                admin
            }
            other => other?,
        };
        Ok(Doors { registry, admin, socket })
    }

    fn serve(
        self,
        registry: &Registry,
        guard: Guard,
        api: Api,
        metrics: &Metrics,
        readiness: &Readiness,
        (serving, ended): (&CancellationToken, &CancellationToken),
    ) -> Vec<JoinHandle<()>> {
        let Doors { registry: clients, admin, socket } = self;
        // A node that does not listen to its clients any more is of no use: a supervisor starts it anew.
        let ending = ended.clone().drop_guard();
        let (limits, tls) = (guard.access.limits().clone(), guard.tls.clone());
        let router = registry.router(Origin::Network);
        let clients = registry::serve_clients(clients, router, limits, tls, serving.clone());
        let network = async move {
            let _ending = ending;
            clients.await;
        };
        let watching = guard.watch(serving.clone());
        let operator = registry.router(Origin::Socket);
        let events = api.events();
        let stop = serving.clone();
        let local = async move {
            if let Err(error) = socket.serve(operator, api, stop).await {
                warn!(%error, "the local socket failed; restart the node to use the command line again");
            }
        };
        let admin = admin::serve(admin, metrics.clone(), readiness.clone(), events, serving.clone());
        vec![tokio::spawn(network), tokio::spawn(local), tokio::spawn(admin), tokio::spawn(watching)]
    }
}

/// Both planes on one port, and what they will tell the driver.
struct Planes {
    control: Control,
    data: Data,
    listen: SocketAddr,
    events: Events,
}

/// The receiving ends of both planes.
struct Events {
    control: mpsc::Receiver<crate::control::ControlEvent>,
    data: mpsc::Receiver<crate::data::DataEvent>,
}

impl Planes {
    /// Opens UDP and TCP on the same port, so that one address is all that others need. With port 0 a port
    /// that is free on UDP may be taken on TCP: then another is tried.
    async fn open(config: &Config, home: &Home, store: &Store, budget: &Budget) -> Result<Self, StartError> {
        let wanted = config.mesh_listen(home.shared);
        let mut tries = if wanted.port() == 0 { PORT_TRIES } else { 1 };
        loop {
            tries -= 1;
            let (to_data, from_data) = mpsc::channel(EVENTS_MAX);
            let data = Data::start(
                DataConfig { listen: wanted },
                &home.identity,
                &home.mesh,
                store.blobs(),
                budget.clone(),
                to_data,
            )
            .await?;
            let listen = SocketAddr::new(wanted.ip(), data.local_addr().port());
            let (to_control, from_control) = mpsc::channel(EVENTS_MAX);
            // Nodes on loopback are told where the others are; multicast is for real networks.
            let mdns = !wanted.ip().is_loopback();
            let control = ControlConfig {
                listen,
                mdns,
                relay: config.mesh.relay,
                reachable: config.mesh.reachable(),
                advertise: config.mesh.advertise.clone(),
            };
            let started = Control::start(control, &home.identity, &home.mesh, to_control).await;
            match started {
                Ok(mut control) => {
                    if let Some((streams, incoming)) = control.take_streams() {
                        data.also_over(streams, incoming);
                    }
                    let events = Events { control: from_control, data: from_data };
                    return Ok(Planes { control, data, listen, events });
                }
                Err(ControlError::Listen { .. }) if tries > 0 => data.shutdown().await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What others are told: what the operator says, else the one address that this node is bound to.
    /// Empty where it listens everywhere; the control plane then finds out where that is.
    fn addresses(&self, config: &Config) -> Vec<String> {
        let bound = (!self.listen.ip().is_unspecified()).then(|| self.listen.to_string());
        if config.mesh.advertise.is_empty() {
            bound.into_iter().collect()
        } else {
            config.mesh.advertise.clone()
        }
    }
}

impl Ready<'_> {
    fn of(facts: &NodeFacts) -> Ready<'_> {
        let join = facts.addresses.first().cloned();
        Ready {
            node_id: facts.node.to_string(),
            site: &facts.site,
            listen: facts.listen,
            mesh_listen: facts.mesh_listen,
            admin_listen: facts.admin_listen,
            join: join.unwrap_or_else(|| reachable(facts.mesh_listen).to_string()),
            pid: std::process::id(),
        }
    }
}

fn upstreams(config: &Config, home: &Home) -> Result<Upstreams, ServeError> {
    Ok(Upstreams::new(&config.upstream)?.of_node(&home.identity.node_id()))
}

fn mirror_config(config: &Config, home: &Home) -> MirrorConfig {
    MirrorConfig {
        names: config.registry.names.clone(),
        others: home.shared || !config.mesh.join.is_empty(),
        entitled: Some(config.node.data_dir.join("entitled.json")),
    }
}

/// What clients connect to, and what brings here what nobody waits for.
fn endpoint(
    config: &Config,
    (guard, metrics): (&Guard, &Metrics),
    store: &Store,
    handle: &ReplicaHandle,
    facts: &NodeFacts,
    pulling: (Downloads, MirrorConfig),
    serving: &CancellationToken,
) -> (Registry, JoinHandle<()>) {
    let (downloads, taken) = pulling;
    let (mirror, errands) = Mirror::start(
        facts.upstreams.clone(),
        taken,
        store.clone(),
        handle.clone(),
        facts.node,
        downloads,
        serving.clone(),
    );
    let access = guard.access.clone().with_entitlement(Arc::new(mirror.clone()));
    let (anonymous, sparse) = (config.anonymous(), config.registry.sparse);
    let taken = RegistryConfig { anonymous, sparse, ..RegistryConfig::default() };
    let registry = Registry::new(store.clone(), handle.clone(), facts.node, mirror, taken, metrics.clone());
    (registry.with_access(access), errands)
}

/// What keeps the node within its quota.
fn collector(
    config: &Config,
    store: &Store,
    handle: &ReplicaHandle,
    facts: &NodeFacts,
    metrics: &Metrics,
) -> Result<Gc, StartError> {
    let (storage, upstreams) = (config.storage.clone(), facts.upstreams.clone());
    Gc::new(store.clone(), handle.clone(), upstreams, facts.node, storage, metrics.clone())
        .map_err(|why| system("the disk of the data directory cannot be looked at", why))
}

/// The replica, the handle to it, and the queues that will feed it.
fn assemble(config: &Config, home: &Home, events: Events) -> (Replica, ReplicaHandle, Sources) {
    let mut join = config.mesh.join.clone();
    join.extend(home.mesh.join().iter().cloned());
    join.dedup();
    let protocol = ReplicaConfig {
        site: config.node.site.clone(),
        tier: config.node.tier,
        join,
        seed: rand_seed(),
        sharing: config.replication.sharing.into(),
        region: config.node.region.clone(),
        labels: config.node.labels.clone(),
        metered: config.node.metered,
        platform: this_platform(),
        ..ReplicaConfig::default()
    };
    let replica = Replica::new(protocol, home.identity.signing_key(), home.mesh.trust());
    let (commands, queue) = mpsc::channel(COMMANDS_MAX);
    let sources = Sources { commands: queue, control: events.control, data: events.data };
    (replica, ReplicaHandle::new(commands), sources)
}

/// What may go over links to other sites. Where nodes are, their own records say.
fn budget(config: &Config, store: &Store) -> Budget {
    let nodes = store.clone();
    let site_of = Arc::new(move |node: &NodeId| nodes.index().node(node).map(|body| body.site));
    Budget::open(config.budget.clone(), &config.node.data_dir, &config.node.site, site_of)
}

fn drive(
    driver: Driver,
    sources: Sources,
    driving: CancellationToken,
    stop: CancellationToken,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        // Whatever ends the driver, also a panic in it, ends the node: a supervisor then starts it anew.
        let _guard = stop.drop_guard();
        driver.run(sources, driving).await;
    })
}

/// The node that made the mesh may publish from the start.
async fn first_grant(replica: &ReplicaHandle, home: &Home, root: &RootKey) {
    let node = home.identity.node_id();
    let anywhere: waystation_proto::RepoName = "a".parse().expect("a valid name");
    if replica.may(Action::Publish, anywhere).await.is_ok() {
        return;
    }
    let grant = root.issue_grant(node, Glob::everything(), Actions::ALL, None, wall().0);
    match replica.add_grant(grant).await {
        Ok(()) => info!(mesh = %home.mesh.mesh().short(), "made a mesh; this node may publish in it"),
        Err(why) => warn!(%why, "this node could not be granted to publish in its own mesh"),
    }
}

fn traffic(counted: &crate::data::Counting) -> DataPlane {
    let now = counted.now();
    let peer = |(node, bytes): (&NodeId, &crate::data::PeerBytes)| PeerTraffic {
        node: node.to_string(),
        bytes_received: bytes.bytes_in,
        bytes_sent: bytes.bytes_out,
    };
    DataPlane {
        bytes_received: now.bytes_in,
        bytes_sent: now.bytes_out,
        peers: now.peers.iter().map(peer).collect(),
    }
}

fn announce_start(facts: &NodeFacts, started: Instant) {
    let took_ms = started.elapsed().as_millis();
    info!(node = %facts.node, site = facts.site, mesh = %facts.mesh.short(), "Waystation {}", env!("CARGO_PKG_VERSION"));
    info!(listen = %facts.listen, mesh_listen = %facts.mesh_listen, admin_listen = %facts.admin_listen, took_ms, "serving");
}

/// Connections, uploads and downloads are files too: more than the 1024 that most systems start with.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum {
        limit.current = limit.maximum;
        if let Err(why) = setrlimit(Resource::Nofile, limit) {
            debug!(%why, "the limit of open files stays as it is");
        }
    }
}

/// Written aside and renamed, so that whoever waits for the file reads all of it.
fn write_ready(path: &Path, ready: &Ready<'_>) -> Result<(), StartError> {
    let unwritten = |why| system(&format!("the ready file {} cannot be written", path.display()), why);
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(unwritten)?;
    serde_json::to_writer_pretty(&mut file, ready).map_err(|error| unwritten(error.into()))?;
    file.persist(path).map(|_| ()).map_err(|error| unwritten(error.error))
}

async fn listen(
    address: SocketAddr,
    what: &'static str,
    flag: &'static str,
) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|why| StartError::Listen { address, what, why, flag })
}

fn local(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|why| system("a listener has no address", why))
}

/// Where this machine reaches what listens on `bound`.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = if bound.ip().is_unspecified() { std::net::Ipv4Addr::LOCALHOST.into() } else { bound.ip() };
    SocketAddr::new(ip, bound.port())
}

fn wall() -> Wall {
    // A clock before 1970 says nothing: zero is what boards without one report.
    Wall(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

fn rand_seed() -> u64 {
    let mut seed = [0; 8];
    // Without entropy the seed is zero: jitter is then the same at each start, and nothing else.
    let _ = getrandom::fill(&mut seed);
    u64::from_le_bytes(seed)
}

fn system(what: &str, why: std::io::Error) -> StartError {
    StartError::System { what: what.to_owned(), why }
}

/// Ports tried where any will do.
const PORT_TRIES: u32 = 16;
/// Events of a plane that may wait for the driver.
const EVENTS_MAX: usize = 1024;
/// Requests that may wait for the driver.
const COMMANDS_MAX: usize = 1024;
/// From the first signal to the end.
const DRAIN: Duration = Duration::from_millis(4800);
