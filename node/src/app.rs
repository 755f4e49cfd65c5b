//! The composition root: builds the process in the order of dependencies, runs it, and takes it down in
//! the reverse order. Each part is given the parts that it needs and never the whole.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use serde::Serialize;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use waystation_proto::{
    Hash, Record, Replica, ReplicaConfig, Wall,
    glob::Glob,
    grant::{Action, Actions},
};

use crate::{
    admin::{self, Readiness},
    api::{Api, DataPlane, GrantRequest, Granter, NodeFacts, PeerTraffic},
    config::Config,
    control::{Control, ControlConfig, ControlError},
    data::{Data, DataConfig, DataError},
    driver::{Driver, Parts, Sources, handle::ReplicaHandle},
    home::{Home, HomeError},
    mesh::RootKey,
    metrics::Metrics,
    registry::{self, Origin, Registry, RegistryConfig},
    shutdown::Signals,
    socket::{LocalSocket, SocketError},
    store::{OpenError, Opened, Store},
};

/// Why a node could not start. The texts say what to do.
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
    /// The local socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// An HTTP listener.
    #[error("cannot listen on {address} for {what}: {why}; stop what uses it, or choose another address with {flag}")]
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
    /// Anything else of the system's.
    #[error("{what}: {why}")]
    System {
        /// What was to be done.
        what: String,
        /// What the system said.
        why: std::io::Error,
    },
}

/// Runs a node until it is told to stop.
pub async fn run(config: Config) -> Result<(), StartError> {
    let mut signals = Signals::listen().map_err(|why| system("signals cannot be handled", why))?;
    let node = Node::start(config).await?;
    tokio::select! {
        () = signals.first() => {}
        () = node.stop.cancelled() => warn!("a part of the node ended by itself; stopping"),
    }
    tokio::select! {
        () = node.drain() => Ok(()),
        _ = signals.second() => Ok(()),
    }
}

/// A running node.
struct Node {
    store: Store,
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
        let home = Home::open(&config.node.data_dir, config.mesh.file.as_deref())?;
        let doors = Doors::open(&config).await?;
        let metrics = Metrics::new();
        let planes = Planes::open(&config, &home, &store).await?;
        let mesh_listen = planes.listen;
        let (counters, addresses) = (planes.data.counters_handle(), planes.addresses(&config));
        let held = Arc::new(std::sync::atomic::AtomicU64::new(hashes.len() as u64));
        let (replica, handle, sources) = assemble(&config, &home, planes.events);
        let parts = Parts {
            replica,
            store: store.clone(),
            control: planes.control,
            data: planes.data,
            metrics: metrics.clone(),
            advertise: addresses.clone(),
        };
        let stop = CancellationToken::new();
        let driving = CancellationToken::new();
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
            blobs: Arc::new(move || held.load(std::sync::atomic::Ordering::Relaxed)),
            granter: home.root.map(granter),
        };
        let ready = Ready::of(&facts);
        let serving = CancellationToken::new();
        let readiness = Readiness::new();
        let registry = Registry::new(
            store.clone(),
            handle.clone(),
            facts.node,
            RegistryConfig { anonymous: config.anonymous(), ..RegistryConfig::default() },
            metrics.clone(),
        );
        announce_start(&facts, started);
        if let Some(path) = &config.node.ready_file {
            write_ready(path, &ready)?;
        }
        let api = Api::new(store.clone(), handle, facts.clone());
        let listeners = doors.serve(&registry, api, &metrics, &readiness, &serving);
        readiness.ready();
        let ready_file = config.node.ready_file;
        Ok(Node { store, readiness, ready_file, serving, listeners, driving, driver, stop })
    }

    /// Stops accepting, finishes what is under way, closes the planes, closes the store.
    async fn drain(self) {
        self.readiness.draining();
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
            self.store.shutdown().await;
        };
        if tokio::time::timeout(DRAIN, finish).await.is_err() {
            warn!("stopped before everything was finished; what was acknowledged is on disk");
        } else {
            info!("stopped");
        }
    }
}
