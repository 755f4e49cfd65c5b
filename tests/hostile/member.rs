//! A peer on the control plane that says whatever a test wants: bytes instead of messages, gossip that is
//! none, other people's records. With the mesh file it is a member, without it a stranger.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder,
    futures::{AsyncReadExt as _, AsyncWriteExt as _},
    gossipsub, noise, ping,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use libp2p_stream::Control;
use tempfile::TempDir;
use tokio::{
    runtime::Runtime,
    sync::{
        Semaphore,
        mpsc::{Receiver, Sender, channel},
    },
};
use waystation::{identity::Identity, mesh::MeshFile};
use waystation_proto::{
    MeshId, NodeId, Shared, Wall,
    body::{NodeBody, Tier},
    reconcile::{Content, Summary},
    record::{Key, Record},
    wire::Message,
};

use crate::harness::{
    node::{Node, temp_dir},
    wait::until_true,
};

/// A node of the test's own, with a key of its own.
pub struct Member {
    pub identity: Identity,
    pub mesh: MeshId,
    seen: Arc<Mutex<Seen>>,
    orders: Sender<Order>,
    _runtime: Runtime,
    _folder: TempDir,
}

/// What came of it.
#[derive(Default)]
pub struct Seen {
    /// Live connections.
    pub connections: usize,
    /// Dials that failed.
    pub failed_dials: usize,
    /// Frames that were acknowledged.
    pub acknowledged: usize,
    /// Frames that came to nothing.
    pub unanswered: usize,
    /// Announcements that were handed on.
    pub gossiped: usize,
    /// Records that the other side sent.
    pub records: Vec<Shared>,
    /// Bytes of all direct messages that the other side sent.
    pub bytes: usize,
    /// Streams that the other side opened for them.
    pub streams: usize,
    /// Whether a stream is closed after its first message.
    pub closes_streams: bool,
}

enum Order {
    Dial(Multiaddr),
    /// Bytes of a stream, with or without a length in front.
    Frame(Vec<u8>),
    Gossip(Vec<u8>),
}

impl Member {
    /// A member with the mesh file.
    pub fn new(mesh_file: &Path) -> Self {
        let mesh = MeshFile::load(mesh_file).unwrap();
        Self::with_prologue(mesh.mesh(), mesh.admission().derive("control plane").to_vec())
    }

    /// Somebody who says this in front of the handshake.
    pub fn with_prologue(mesh: MeshId, prologue: Vec<u8>) -> Self {
        let folder = temp_dir("member");
        let identity = Identity::load_or_create(&folder.path().join("node.key")).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (orders, queue) = channel(ORDERS_MAX);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (keys, shared) = (identity.keypair(), seen.clone());
        runtime.spawn(async move { run(swarm(&keys, prologue), queue, shared).await });
        Member { identity, mesh, seen, orders, _runtime: runtime, _folder: folder }
    }

    pub fn id(&self) -> NodeId {
        self.identity.node_id()
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    pub fn dial(&self, node: &Node) {
        self.dial_at(node.ready("mesh_listen"));
    }

    fn dial_at(&self, address: &str) {
        let (ip, port) = address.rsplit_once(':').unwrap();
        self.order(Order::Dial(format!("/ip4/{ip}/tcp/{port}").parse().unwrap()));
    }

    /// Dials, and waits until the node counts it as a member.
    #[track_caller]
    pub fn join(&self, node: &Node) {
        self.join_at(node, node.ready("mesh_listen"));
    }

    /// As [`Member::join`], at an address by which the node is reached from here.
    #[track_caller]
    pub fn join_at(&self, node: &Node, address: &str) {
        self.dial_at(address);
        let id = self.id().to_string();
        until_true("the member has a session", || node.sessions().contains(&id));
    }

    /// Sends a direct message.
    pub fn say(&self, message: &Message) {
        self.say_bytes(&message.encode());
    }

    /// Sends this with its right length in front.
    pub fn say_bytes(&self, bytes: &[u8]) {
        let mut frame = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
        frame.extend(bytes);
        self.frame(frame);
    }

    /// Sends a stream of just these bytes.
    pub fn frame(&self, frame: Vec<u8>) {
        self.order(Order::Frame(frame));
    }

    /// Gossips, again and again until there is somebody to gossip to.
    #[track_caller]
    pub fn gossip(&self, bytes: &[u8]) {
        let before = self.seen().gossiped;
        let mut tries = 0;
        until_true("gossip is handed on", || {
            if tries % 10 == 0 {
                self.order(Order::Gossip(bytes.to_vec()));
            }
            tries += 1;
            self.seen().gossiped > before
        });
    }

    /// Waits until everything said was acknowledged or failed.
    #[track_caller]
    pub fn wait_until_said(&self, frames: usize) {
        until_true(&format!("{frames} frames are answered"), || {
            let seen = self.seen();
            seen.acknowledged + seen.unanswered >= frames
        });
    }

    /// Asks for the whole catalog, again and again, until a record comes that fits.
    #[track_caller]
    pub fn read_record(&self, fits: impl Fn(&Record) -> bool) -> Record {
        let content = Content::Fingerprint([0; 16], 0);
        let question =
            Message::Reconcile { site: None, summaries: vec![Summary { from: 0, to: u128::MAX, content }] };
        let (mut found, mut tries) = (None, 0);
        until_true("the record is told", || {
            if tries % 50 == 0 {
                self.say(&question);
            }
            tries += 1;
            found =
                self.seen().records.iter().find(|record| fits(record)).map(|record| Record::clone(record));
            found.is_some()
        });
        found.unwrap()
    }

    /// A record signed by this member.
    pub fn record<B: serde::Serialize>(&self, key: Key, version: u64, body: &B) -> Record {
        Record::author(
            &self.mesh,
            &self.identity.signing_key(),
            None,
            key,
            version,
            Wall(1_700_000_000),
            body,
        )
    }

    /// What it says about itself.
    pub fn node_record(&self, site: &str, address: &str) -> Record {
        let body = NodeBody {
            site: site.into(),
            tier: Tier::Edge,
            addresses: vec![address.into()],
            software: "hostile/1".into(),
            region: String::new(),
            labels: Default::default(),
        };
        self.record(Key::node(&self.id()), 1, &body)
    }

    fn order(&self, order: Order) {
        self.orders.blocking_send(order).unwrap_or_else(|_| panic!("the member's task has ended"));
    }
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    gossip: gossipsub::Behaviour,
    streams: libp2p_stream::Behaviour,
    /// Without it nodes end the session at once.
    ping: ping::Behaviour,
}

fn swarm(keys: &libp2p::identity::Keypair, prologue: Vec<u8>) -> Swarm<Behaviour> {
    let secure = |keys: &libp2p::identity::Keypair| {
        noise::Config::new(keys).map(|noise| noise.with_prologue(prologue))
    };
    let builder = SwarmBuilder::with_existing_identity(keys.clone()).with_tokio();
    let builder = builder.with_tcp(tcp::Config::new().nodelay(true), secure, yamux::Config::default).unwrap();
    let built = builder.with_behaviour(|keys| {
        let config =
            gossipsub::ConfigBuilder::default().flood_publish(true).max_transmit_size(1 << 20).build()?;
        let signed = gossipsub::MessageAuthenticity::Signed(keys.clone());
        let mut gossip = gossipsub::Behaviour::new(signed, config)?;
        gossip.subscribe(&topic())?;
        let streams = libp2p_stream::Behaviour::new();
        Ok(Behaviour { gossip, streams, ping: ping::Behaviour::default() })
    });
    let built = built.unwrap_or_else(|error| panic!("{error}"));
    built.with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600))).build()
}

async fn run(mut swarm: Swarm<Behaviour>, mut orders: Receiver<Order>, seen: Arc<Mutex<Seen>>) {
    let slots = Arc::new(Semaphore::new(STREAMS_MAX));
    let mut incoming = swarm.behaviour().streams.new_control().accept(PROTOCOL).unwrap();
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(order) => obey(&mut swarm, order, &seen, &slots),
                None => return,
            },
            Some((_, stream)) = incoming.next() => drop(tokio::spawn(read(stream, seen.clone()))),
            event = swarm.select_next_some() => note(&event, &seen),
        }
    }
}

fn obey(swarm: &mut Swarm<Behaviour>, order: Order, seen: &Arc<Mutex<Seen>>, slots: &Arc<Semaphore>) {
    match order {
        Order::Dial(address) => swarm.dial(address).unwrap(),
        Order::Frame(frame) => {
            let Some(peer) = swarm.connected_peers().next().copied() else {
                seen.lock().unwrap().unanswered += 1;
                return;
            };
            let (control, seen, slots) =
                (swarm.behaviour().streams.new_control(), seen.clone(), slots.clone());
            tokio::spawn(async move {
                let _slot = slots.acquire().await;
                let acknowledged = send(control, peer, frame).await;
                let mut seen = seen.lock().unwrap();
                *if acknowledged { &mut seen.acknowledged } else { &mut seen.unanswered } += 1;
            });
        }
        Order::Gossip(bytes) => {
            let published = swarm.behaviour_mut().gossip.publish(topic(), bytes).is_ok();
            seen.lock().unwrap().gossiped += usize::from(published);
        }
    }
}

fn note(event: &SwarmEvent<BehaviourEvent>, seen: &Mutex<Seen>) {
    let mut seen = seen.lock().unwrap();
    match event {
        SwarmEvent::ConnectionEstablished { .. } => seen.connections += 1,
        SwarmEvent::ConnectionClosed { .. } => seen.connections -= 1,
        SwarmEvent::OutgoingConnectionError { .. } => seen.failed_dials += 1,
        _ => {}
    }
}

fn topic() -> gossipsub::IdentTopic {
    gossipsub::IdentTopic::new("waystation/records/1")
}

/// Sends these bytes as a stream of their own. Whether they were acknowledged.
async fn send(mut control: Control, peer: PeerId, frame: Vec<u8>) -> bool {
    let sent = async {
        let mut stream = control.open_stream(peer, PROTOCOL).await.ok()?;
        stream.write_all(&frame).await.ok()?;
        stream.close().await.ok()?;
        stream.read_exact(&mut [0; 1]).await.ok()
    };
    tokio::time::timeout(ANSWERED_WITHIN, sent).await.is_ok_and(|sent| sent.is_some())
}

/// Reads what honest nodes send on a stream, and acknowledges each.
async fn read(mut stream: Stream, seen: Arc<Mutex<Seen>>) -> io::Result<()> {
    seen.lock().unwrap().streams += 1;
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length).await?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut frame).await?;
        let closes = {
            let mut seen = seen.lock().unwrap();
            seen.bytes += frame.len();
            if let Ok(Message::Records(records)) = Message::decode(&frame) {
                seen.records.extend(records);
            }
            seen.closes_streams
        };
        stream.write_all(&[0]).await?;
        stream.flush().await?;
        if closes {
            return stream.close().await;
        }
    }
}

/// More than any test gives at once.
const ORDERS_MAX: usize = 1024;

/// At a time.
const STREAMS_MAX: usize = 64;

const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

const PROTOCOL: StreamProtocol = StreamProtocol::new("/waystation/message/2");
