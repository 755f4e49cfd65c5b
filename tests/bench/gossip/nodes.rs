//! Real gossipsub behaviours, each with a swarm of its own, over the links of a graph.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use libp2p::{
    Multiaddr, PeerId, Swarm, Transport,
    core::{
        ConnectedPoint,
        muxing::StreamMuxerBox,
        transport::{Boxed, MemoryTransport},
        upgrade::Version,
    },
    futures::StreamExt,
    gossipsub,
    identity::Keypair,
    multiaddr::Protocol,
    noise,
    swarm::{self, SwarmEvent},
    yamux,
};
use tokio::sync::{mpsc, oneshot};
use waystation::control;
use waystation_sim::{
    gossipsub::{
        figures::{Copy, Trace},
        fit::Schedule,
        graph::Graph,
    },
    setup::Nanos,
};

use crate::{
    line::Line,
    log::{Entries, Log, Name},
    tap::Tapped,
};

/// What a node is told.
enum Command {
    Dial(Multiaddr),
    Publish(Vec<u8>),
    HangUp(PeerId),
    Mesh(oneshot::Sender<usize>),
}

/// What happened.
pub struct Observed {
    pub trace: Trace,
    pub entries: Entries,
    /// Messages by name.
    pub names: BTreeMap<Name, usize>,
    /// Neighbours in the mesh of each node, at the end.
    pub mesh: Vec<usize>,
}

/// Carries out a schedule with real nodes.
pub async fn observe(schedule: &Schedule, port: u64) -> Observed {
    let (graph, plan) = (&schedule.graph, &schedule.plan);
    let keys: Vec<Keypair> = (0..graph.nodes).map(|_| Keypair::generate_ed25519()).collect();
    let ids: Vec<PeerId> = keys.iter().map(|keys| keys.public().to_peer_id()).collect();
    let log = Arc::new(Log::new());
    let mut nodes = Vec::new();
    for (node, keys) in keys.into_iter().enumerate() {
        // Heartbeats of real nodes do not coincide.
        log.wait_until(1_000_000_000 * node as u64 / graph.nodes as u64).await;
        let mut swarm = swarm(node, &keys, &ids, graph, port, &log);
        for link in (0..graph.links.len()).filter(|link| graph.links[*link].listener == node) {
            swarm.listen_on(address(port, link)).unwrap();
        }
        let (commands, inbox) = mpsc::channel(64);
        nodes.push((commands, tokio::spawn(live(swarm, inbox))));
    }
    let mut todo: Vec<(Nanos, usize, Command)> = Vec::new();
    for (link, at) in plan.up.iter().enumerate() {
        todo.push((*at, graph.links[link].dialler, Command::Dial(address(port, link))));
    }
    for (at, link) in &plan.cuts {
        let ends = graph.links[*link];
        todo.push((*at, ends.dialler, Command::HangUp(ids[ends.listener])));
    }
    let mut names: BTreeMap<Name, usize> = BTreeMap::new();
    let mut rng = fastrand::Rng::with_seed(port);
    for (number, (at, author, bytes)) in plan.publications.iter().enumerate() {
        let payload: Vec<u8> = (0..*bytes).map(|_| rng.u8(..)).collect();
        names.insert(blake3::hash(&payload).as_bytes()[..20].to_vec(), number);
        todo.push((*at, *author, Command::Publish(payload)));
    }
    todo.sort_by_key(|(at, ..)| *at);
    let mut published = Vec::new();
    for (at, node, command) in todo {
        log.wait_until(at).await;
        if matches!(command, Command::Publish(_)) {
            published.push(log.now());
        }
        nodes[node].0.send(command).await.unwrap();
    }
    log.wait_until(plan.end).await;
    let mut mesh = Vec::new();
    for (commands, _) in &nodes {
        let (answer, size) = oneshot::channel();
        commands.send(Command::Mesh(answer)).await.unwrap();
        mesh.push(size.await.unwrap());
    }
    let entries = log.take();
    for (commands, task) in nodes {
        drop(commands);
        task.await.unwrap();
    }
    let mut trace = trace(schedule, &entries, &names);
    for (publication, at) in trace.published.iter_mut().zip(published) {
        publication.0 = at;
    }
    Observed { trace, entries, names, mesh }
}

fn trace(schedule: &Schedule, entries: &Entries, names: &BTreeMap<Name, usize>) -> Trace {
    let copies = entries.copies.iter().map(|(at, from, to, name)| Copy {
        at: *at,
        from: *from,
        to: *to,
        message: names[name],
    });
    Trace {
        nodes: schedule.graph.nodes,
        published: schedule.plan.publications.clone(),
        copies: copies.collect(),
        asked: entries.asked.iter().map(|(who, whom, name)| (*who, *whom, names[name])).collect(),
        frames: entries.frames.iter().map(|frame| (frame.at, frame.kind)).collect(),
        wire: entries.wire.clone(),
    }
}

/// One node, until nobody commands it any more.
async fn live(mut swarm: Swarm<gossipsub::Behaviour>, mut inbox: mpsc::Receiver<Command>) {
    loop {
        tokio::select! {
            command = inbox.recv() => match command {
                None => return,
                Some(Command::Dial(address)) => swarm.dial(address).unwrap(),
                Some(Command::Publish(payload)) => {
                    swarm.behaviour_mut().publish(control::topic(), payload).unwrap();
                }
                Some(Command::HangUp(peer)) => swarm.disconnect_peer_id(peer).unwrap(),
                Some(Command::Mesh(answer)) => {
                    let topic = control::topic().hash();
                    answer.send(swarm.behaviour().mesh_peers(&topic).count()).unwrap();
                }
            },
            event = swarm.select_next_some() => match event {
                SwarmEvent::Behaviour(gossipsub::Event::Message { propagation_source, message_id, .. }) => {
                    let good = gossipsub::MessageAcceptance::Accept;
                    let gossip = swarm.behaviour_mut();
                    gossip.report_message_validation_result(&message_id, &propagation_source, good);
                }
                SwarmEvent::OutgoingConnectionError { error, .. } => panic!("a dial failed: {error}"),
                SwarmEvent::IncomingConnectionError { error, .. } => panic!("a handshake failed: {error}"),
                _ => {}
            },
        }
    }
}

fn swarm(
    node: usize,
    keys: &Keypair,
    ids: &[PeerId],
    graph: &Graph,
    port: u64,
    log: &Arc<Log>,
) -> Swarm<gossipsub::Behaviour> {
    let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(NEVER);
    let transport = transport(node, keys, ids, graph, port, log);
    Swarm::new(transport, control::gossip(keys).unwrap(), ids[node], config)
}

/// As the node's, but over memory: with noise and yamux, whose bytes count.
fn transport(
    node: usize,
    keys: &Keypair,
    ids: &[PeerId],
    graph: &Graph,
    port: u64,
    log: &Arc<Log>,
) -> Boxed<(PeerId, StreamMuxerBox)> {
    let delays: Vec<Duration> = graph.links.iter().map(|link| Duration::from_nanos(link.delay)).collect();
    let numbers: BTreeMap<PeerId, usize> = ids.iter().enumerate().map(|(node, id)| (*id, node)).collect();
    let (below, above) = (log.clone(), log.clone());
    MemoryTransport::default()
        .map(move |socket, endpoint| {
            let at = match &endpoint {
                ConnectedPoint::Dialer { address, .. } => address,
                ConnectedPoint::Listener { local_addr, .. } => local_addr,
            };
            Line::new(socket, delays[link(port, at)], below.clone())
        })
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(keys).unwrap())
        .multiplex(yamux::Config::default())
        .map(move |(peer, inner), _| {
            let inner = StreamMuxerBox::new(inner);
            let tapped = Tapped { inner, from: numbers[&peer], to: node, log: above.clone() };
            (peer, StreamMuxerBox::new(tapped))
        })
        .boxed()
}

/// Each link has an address to itself, so that both ends know its delay.
fn address(port: u64, link: usize) -> Multiaddr {
    Multiaddr::empty().with(Protocol::Memory(port + 1 + link as u64))
}

fn link(port: u64, address: &Multiaddr) -> usize {
    let Some(Protocol::Memory(at)) = address.iter().next() else { panic!("{address} is not in memory") };
    usize::try_from(at - port - 1).unwrap()
}

/// As the node's.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
