//! The one task that drives libp2p. It turns libp2p's events into [`ControlEvent`]s and commands into
//! libp2p's calls. Where the driver is slow, events wait here and peers are not read: nothing about sessions
//! is ever dropped, and memory stays bounded.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::ConnectedPoint,
    gossipsub::{self, MessageAcceptance},
    identify, mdns, ping,
    swarm::{ConnectionId, DialError, ListenError, SwarmEvent},
};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_util::sync::CancellationToken;
use waystation_proto::{DialTarget, NodeId, Shared, record::Trust, wire::Message};

use super::{
    CAME_UNPROVEN, Command, ControlConfig, ControlError, ControlEvent, DIALLED_UNPROVEN, Refusals, address,
    behaviour::{self, Behaviour, BehaviourEvent},
    counters::{Counting, Way},
    dial::{Dial, Dials, Failed},
    dial_back::Pending,
    failure::{UNFINISHED, is_full, is_unproven, reason, unfinished},
    messages::{self, Frame},
    origins::Origins,
    peer::{Connection, Peer},
    relaying::{Slots, punched},
};
use crate::identity;

/// Everything the task owns.
pub(super) struct Session {
    swarm: Swarm<Behaviour>,
    me: NodeId,
    /// Whose records may be passed on.
    trust: Trust,
    peers: BTreeMap<PeerId, Peer>,
    dials: Dials,
    listening: BTreeSet<SocketAddr>,
    /// When a change of that is told: a machine's interfaces come and go together.
    tell_listening_at: Option<tokio::time::Instant>,
    told_listening: bool,
    /// Whether the listener has ended: peers could not reach this node any more.
    deaf: bool,
    refusals: Refusals,
    origins: Origins,
    slots: Slots,
    /// Where others find this node if it relays, as said by the operator. Absent: it does not relay.
    relays_at: Option<Vec<Multiaddr>>,
    /// Second connections to one peer, closed once they are not new any more.
    spare: Vec<(Instant, ConnectionId)>,
    events: mpsc::Sender<ControlEvent>,
    /// What the driver has not taken yet.
    waiting: VecDeque<ControlEvent>,
    counting: Counting,
    dial_backs: Pending,
}

impl Session {
    pub(super) fn new(
        swarm: Swarm<Behaviour>,
        me: NodeId,
        (trust, config): (Trust, &ControlConfig),
        events: mpsc::Sender<ControlEvent>,
        counting: Counting,
        dial_backs: Pending,
    ) -> Self {
        Session {
            swarm,
            me,
            trust,
            peers: BTreeMap::new(),
            dials: Dials::default(),
            listening: BTreeSet::new(),
            tell_listening_at: None,
            told_listening: false,
            deaf: false,
            refusals: Refusals::default(),
            origins: Origins::default(),
            slots: Slots::new(config.reachable),
            relays_at: config
                .relay
                .then(|| config.advertise.iter().filter_map(|at| address::endpoint(at)).collect()),
            spare: Vec::new(),
            events,
            waiting: VecDeque::new(),
            counting,
            dial_backs,
        }
    }

    /// Listens, and waits until it is known on which port.
    pub(super) async fn listen(&mut self, address: SocketAddr) -> Result<SocketAddr, ControlError> {
        let failed = |why: String| ControlError::Listen { address, why };
        // libp2p would share a taken port (SO_REUSEPORT) and lose connections to the other process.
        let free = std::net::TcpListener::bind(address).map_err(|error| failed(error.to_string()))?;
        drop(free);
        self.swarm.listen_on(address::to_multiaddr(address)).map_err(|error| failed(error.to_string()))?;
        let deadline = tokio::time::Instant::now() + LISTEN_TIMEOUT;
        loop {
            if let Some(socket) = self.listening.first() {
                return Ok(SocketAddr::new(address.ip(), socket.port()));
            }
            let event = tokio::time::timeout_at(deadline, self.swarm.select_next_some()).await;
            match event.map_err(|_| failed("the system gave no address in time".into()))? {
                SwarmEvent::ListenerClosed { reason: Err(error), .. } => {
                    return Err(failed(error.to_string()));
                }
                event => self.on_swarm_event(event),
            }
        }
    }

    /// Works until told to stop or until nobody takes events any more.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>, stop: CancellationToken) {
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        let events = self.events.clone();
        while !self.deaf {
            let may_work = self.waiting.len() < WAITING_MAX;
            let tell_at = self.tell_listening_at;
            tokio::select! {
                () = stop.cancelled() => return,
                permit = events.reserve(), if !self.waiting.is_empty() => {
                    let Ok(permit) = permit else { return };
                    if let Some(event) = self.waiting.pop_front() {
                        permit.send(event);
                    }
                }
                event = self.swarm.select_next_some(), if may_work => self.on_swarm_event(event),
                dial = self.dials.next(), if may_work => self.on_resolved(dial),
                (channel, answer) = self.dial_backs.dialled() => {
                    // Fails where the connection has gone; then nobody waits for it either.
                    let _ = self.swarm.behaviour_mut().dial_back.send_response(channel, answer);
                }
                command = commands.recv(), if may_work => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                _ = housekeeping.tick() => {
                    self.close_spare_connections();
                    self.slots.fill(&mut self.swarm, Instant::now());
                }
                () = tokio::time::sleep_until(tell_at.unwrap_or_else(tokio::time::Instant::now)), if tell_at.is_some() => {
                    self.tell_listening();
                }
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Send(to, message) => self.send(to, &message),
            Command::Announce(records) => self.announce(records),
            Command::Dial(target) => self.dial(target),
            Command::AskDialBack(question) => self.dial_backs.ask(&mut self.swarm, question),
            Command::HangUp(node) => {
                // Without a session there is nothing to end.
                let _ = identity::peer_id(&node).map(|peer| self.swarm.disconnect_peer_id(peer));
            }
        }
    }

    fn send(&mut self, to: NodeId, message: &Message) {
        let Some((peer, state)) =
            identity::peer_id(&to).and_then(|peer| Some((peer, self.peers.get_mut(&peer)?)))
        else {
            return self.counting.dropped();
        };
        let frame = message.encode();
        if frame.len() > Message::MAX_BYTES {
            tracing::error!(peer = %to.short(), bytes = frame.len(), "message is over the limit and was dropped");
            return self.counting.dropped();
        }
        if !state.has_room(frame.len()) {
            self.counting.dropped();
            return self.emit(ControlEvent::PeerSlow { peer: to });
        }
        self.counting.sent(Way::Direct, message, frame.len());
        let bytes = frame.len();
        let id = self.swarm.behaviour_mut().direct.send(&peer, frame);
        state.sent(id, bytes);
    }

    fn announce(&mut self, records: Vec<Shared>) {
        let message = Message::Records(records);
        let frame = message.encode();
        let bytes = frame.len();
        if bytes > Message::MAX_ANNOUNCE_BYTES {
            tracing::error!(bytes, "announcement is over the limit and was dropped");
            return self.counting.dropped();
        }
        match self.swarm.behaviour_mut().gossip.publish(behaviour::topic(), frame) {
            Ok(_) => self.counting.sent(Way::Gossip, &message, bytes),
            // Nobody is there, or it was just said: reconciliation is for the rest.
            Err(error) => {
                tracing::debug!(%error, "announcement was not gossiped");
                self.counting.dropped();
            }
        }
    }

    fn dial(&mut self, target: DialTarget) {
        let refused = match &target {
            DialTarget::Node(node, _) if *node == self.me => Some("it is this node itself".to_owned()),
            DialTarget::Node(node, _) if self.is_up(node) => {
                Some("a session with it is up already".to_owned())
            }
            DialTarget::Node(node, _) if identity::peer_id(node).is_none() => {
                Some("its node id is not a public key".to_owned())
            }
            _ => None,
        };
        if let Some(why) = refused {
            return self.on_dial_failed(Failed { target, why });
        }
        if let Err(failed) = self.dials.start(target) {
            self.on_dial_failed(failed);
        }
    }

    fn on_resolved(&mut self, dial: Result<Dial, Failed>) {
        match dial {
            Ok(dial) => self.connect(dial, "no address of it can be dialled".into()),
            Err(failed) => self.on_dial_failed(failed),
        }
    }

    /// Tries the dial's next address; without one, `why` is the answer.
    fn connect(&mut self, mut dial: Dial, mut why: String) {
        while let Some(options) = dial.next() {
            let connection = options.connection_id();
            match self.swarm.dial(options) {
                Ok(()) => return self.dials.connecting(connection, dial),
                Err(error) => why = reason(&error),
            }
        }
        self.on_dial_failed(dial.failed(why));
    }

    fn on_dial_failed(&mut self, Failed { target, why }: Failed) {
        tracing::debug!(?target, why, "dial failed");
        self.emit(ControlEvent::DialFailed { target, why });
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_connected(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                tracing::debug!(peer = %peer_id, cause = ?cause, "connection closed");
                self.on_disconnected(peer_id, connection_id);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                self.on_incoming_failed(&send_back_addr, &error);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.on_outgoing_failed(connection_id, &error);
            }
            SwarmEvent::NewListenAddr { listener_id, address } => {
                if self.slots.gain(listener_id, &address) {
                    tracing::debug!(%address, "reachable through a relay");
                } else if let Some(socket) = address::to_socket(&address) {
                    self.listening.insert(socket);
                    self.origins.gain(socket.ip());
                }
                self.listening_changed();
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                if let Some(socket) = address::to_socket(&address) {
                    self.listening.remove(&socket);
                    self.origins.lose(socket.ip());
                }
                self.listening_changed();
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "control plane listener"),
            SwarmEvent::ListenerClosed { listener_id, reason, .. } if self.slots.closed(listener_id) => {
                tracing::info!(?reason, "a relay through which this node could be reached is gone");
                self.listening_changed();
            }
            SwarmEvent::ListenerClosed { reason, .. } => {
                tracing::error!(?reason, "the control plane does not listen any more");
                self.deaf = true;
            }
            _ => {}
        }
    }

    fn on_connected(&mut self, id: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let dial = self.dials.take(connection);
        let Some(node) = identity::node_of_peer(&id) else {
            // Its key is not ed25519, so it is none of ours whatever it proved.
            self.swarm.close_connection(connection);
            if let Some(dial) = dial {
                self.on_dial_failed(dial.failed("its key is not ed25519".into()));
            }
            return;
        };
        let first = !self.peers.contains_key(&id);
        let now = Instant::now();
        let peer = self.peers.entry(id).or_insert_with(|| Peer::new(node, now));
        let from = address::to_socket(endpoint.get_remote_address()).map(|socket| socket.ip());
        if !endpoint.is_dialer() && peer.has_started_anew(from, now) {
            tracing::info!(peer = %node.short(), "a member has started anew or moved; its old session ends");
            // Also the new connection: what protocols say once a session, they would not say to it again.
            // The other side dials anew.
            let _ = self.swarm.disconnect_peer_id(id);
        }
        let (is_mine, is_relayed) = (endpoint.is_dialer(), endpoint.is_relayed());
        peer.connected(Connection { id: connection, is_mine, is_relayed }, from, now);
        self.origins.connected(connection, endpoint);
        self.slots.connected(connection, endpoint);
        let dialled = dial.map(|dial| dial.name_of(endpoint.get_remote_address()));
        if !first {
            let spare = peer.spare_connection(&self.me);
            self.spare.extend(spare.map(|spare| (now, spare)));
        }
        // Told again where this node dialled: the address is then known to lead to this member.
        if first || dialled.is_some() {
            tracing::debug!(peer = %node.short(), ?dialled, first, "connected");
            self.emit(ControlEvent::Up { peer: node, dialled });
        }
    }

    fn on_disconnected(&mut self, id: PeerId, connection: ConnectionId) {
        self.origins.disconnected(connection);
        self.slots.disconnected(&id, connection);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.disconnected(connection) {
            let node = peer.node;
            self.peers.remove(&id);
            tracing::debug!(peer = %node.short(), "session down");
            self.emit(ControlEvent::Down { peer: node });
        }
    }

    /// Two nodes that dial one another at once get two connections, and pay for two. Waits until both
    /// sides have said over either what they say on connecting.
    fn close_spare_connections(&mut self) {
        let now = Instant::now();
        let (old, new) =
            self.spare.drain(..).partition(|(since, _)| now.duration_since(*since) >= SPARE_AFTER);
        self.spare = new;
        let old: Vec<(Instant, ConnectionId)> = old;
        for (_, connection) in old {
            if self.peers.values().any(|peer| peer.can_spare(connection)) {
                self.swarm.close_connection(connection);
            }
        }
    }

    fn on_incoming_failed(&mut self, from: &Multiaddr, error: &ListenError) {
        let from = address::text(from);
        match error {
            ListenError::Transport(transport) if is_unproven(transport, false) => {
                self.refused(from, CAME_UNPROVEN.into(), "from");
            }
            ListenError::Transport(_) if self.dial_backs.is_asking() => {}
            ListenError::Transport(transport) => self.refused(from, unfinished(transport), "from"),
            ListenError::Denied { cause } if is_full(cause) => {
                self.refused(from, format!("this node is busy: {cause}"), "from");
            }
            error => tracing::debug!(address = from, error = reason(error), "connection failed"),
        }
    }

    fn on_outgoing_failed(&mut self, connection: ConnectionId, error: &DialError) {
        let mut why = reason(error);
        match error {
            DialError::LocalPeerId { .. } => why = "it is this node itself".into(),
            DialError::Transport(attempts) => {
                for (address, _) in attempts.iter().filter(|(_, error)| is_unproven(error, true)) {
                    why = DIALLED_UNPROVEN.into();
                    self.refused(address::text(address), DIALLED_UNPROVEN.into(), "to");
                }
            }
            _ => {}
        }
        if let Some(dial) = self.dials.take(connection) {
            self.connect(dial, why);
        }
    }

    fn refused(&mut self, address: String, why: String, direction: &'static str) {
        self.counting.refused();
        let ip = address.parse::<SocketAddr>().ok().map(|socket| socket.ip());
        if self.refusals.should_tell(ip, Instant::now()) {
            // Port scans and health checks are no reason to worry; an old mesh file and a full node are.
            if why.starts_with(UNFINISHED) {
                tracing::info!(address, "connection {direction} {address} refused: {why}");
            } else {
                tracing::warn!(address, "connection {direction} {address} refused: {why}");
            }
        }
        self.emit(ControlEvent::Refused { address, why });
    }

    fn listening_changed(&mut self) {
        // At the start all are found at once, and others wait to hear.
        let settles = if self.told_listening { LISTENING_SETTLES } else { LISTENING_SETTLES / 10 };
        self.tell_listening_at = Some(tokio::time::Instant::now() + settles);
    }

    /// The address that leads outside first: of many only some are told on.
    fn tell_listening(&mut self) {
        (self.tell_listening_at, self.told_listening) = (None, true);
        for connection in self.origins.dead() {
            self.swarm.close_connection(connection);
        }
        let outside: Vec<&SocketAddr> = self.listening.iter().filter(|s| !s.ip().is_loopback()).collect();
        let mut shown = if outside.is_empty() { self.listening.iter().collect() } else { outside };
        let outward = address::outward();
        shown.sort_by_key(|socket| Some(socket.ip()) != outward);
        if let Some(said) = &self.relays_at {
            // Who has a slot here is told to be found at these.
            let here = shown.iter().map(|socket| address::to_multiaddr(**socket));
            let mut here: Vec<Multiaddr> = if said.is_empty() { here.collect() } else { said.clone() };
            here.truncate(RELAY_ADDRESSES_MAX);
            let known: Vec<Multiaddr> = self.swarm.external_addresses().cloned().collect();
            here.iter().for_each(|at| self.swarm.add_external_address(at.clone()));
            let old = known.iter().filter(|at| !here.contains(at));
            old.for_each(|at| self.swarm.remove_external_address(at));
        }
        let addresses = shown.into_iter().map(ToString::to_string).collect();
        self.emit(ControlEvent::Listening { addresses, relayed: self.slots.addresses() });
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Direct(event) => self.on_direct(event),
            BehaviourEvent::DialBack(event) => self.dial_backs.on_event(event),
            BehaviourEvent::Gossip(gossipsub::Event::Message { propagation_source, message_id, message }) => {
                let acceptance = self.on_gossip(propagation_source, &message.data);
                let gossip = &mut self.swarm.behaviour_mut().gossip;
                gossip.report_message_validation_result(&message_id, &propagation_source, acceptance);
            }
            BehaviourEvent::Gossip(gossipsub::Event::SlowPeer { peer_id, .. }) => self.slow(peer_id),
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                for (peer, address) in found {
                    let socket = address::to_socket(&address).filter(|_| !self.peers.contains_key(&peer));
                    if let Some(socket) = socket {
                        self.emit(ControlEvent::Discovered { address: socket.to_string() });
                    }
                }
            }
            BehaviourEvent::Identify(identify::Event::Received { peer_id, connection_id, info }) => {
                self.slots.identified(peer_id, connection_id, &info, &self.listening);
                self.slots.fill(&mut self.swarm, Instant::now());
            }
            BehaviourEvent::Punch(event) => punched(&event),
            BehaviourEvent::Ping(ping::Event { peer, connection, result: Err(failure) }) => {
                tracing::info!(%peer, %failure, "peer does not answer, closing the connection");
                self.swarm.close_connection(connection);
            }
            _ => {}
        }
    }

    fn on_gossip(&mut self, from: PeerId, frame: &[u8]) -> MessageAcceptance {
        match Message::decode(frame) {
            Ok(Message::Records(records)) => {
                // The replica checks them too, which costs 50 us a record once more: it is what keeps a bad
                // record at the neighbour of whoever made it.
                let bad = records.iter().find_map(|record| record.check(&self.trust).err());
                let message = Message::Records(records);
                self.counting.received(Way::Gossip, &message, frame.len());
                self.deliver(from, message);
                match bad {
                    None => MessageAcceptance::Accept,
                    Some(error) if error.is_hostile() => MessageAcceptance::Reject,
                    Some(_) => MessageAcceptance::Ignore,
                }
            }
            Ok(_) => {
                self.garbage(from, "gossip of other than records".into());
                MessageAcceptance::Reject
            }
            Err(error) => {
                self.garbage(from, error.to_string());
                MessageAcceptance::Reject
            }
        }
    }

    fn on_direct(&mut self, event: messages::Event) {
        match event {
            messages::Event::Received { from, frame } => self.on_frame(from, frame),
            messages::Event::Arrived { peer, message } => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.answered(message);
                }
            }
            messages::Event::Failed { peer, message, failure } => {
                tracing::debug!(%peer, %failure, "direct message may not have arrived");
                self.counting.dropped();
                let timed_out = failure == messages::Failure::TimedOut;
                let Some(state) = self.peers.get_mut(&peer) else { return };
                if state.failed(message, timed_out) {
                    tracing::info!(%peer, "peer leaves messages unanswered, closing the session");
                    let _ = self.swarm.disconnect_peer_id(peer);
                }
                if timed_out {
                    self.slow(peer);
                }
            }
        }
    }

    fn on_frame(&mut self, from: PeerId, frame: Frame) {
        let decoded = match &frame {
            Frame::Whole(bytes) => Message::decode(bytes)
                .map(|message| (message, bytes.len()))
                .map_err(|error| error.to_string()),
            Frame::Broken(why) => Err(why.clone()),
        };
        match decoded {
            Ok((message, bytes)) => {
                self.counting.received(Way::Direct, &message, bytes);
                self.deliver(from, message);
            }
            Err(why) => self.garbage(from, why),
        }
    }

    fn deliver(&mut self, from: PeerId, message: Message) {
        if let Some(peer) = self.peers.get(&from) {
            let from = peer.node;
            self.emit(ControlEvent::Message { from, message });
        }
    }

    fn slow(&mut self, peer: PeerId) {
        if let Some(peer) = self.peers.get(&peer) {
            let peer = peer.node;
            self.emit(ControlEvent::PeerSlow { peer });
        }
    }

    fn garbage(&mut self, from: PeerId, why: String) {
        self.counting.garbage();
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let node = peer.node;
        if peer.sent_garbage(Instant::now()) {
            tracing::warn!(peer = %node.short(), why, "peer keeps sending nonsense, closing the session");
            let _ = self.swarm.disconnect_peer_id(from);
        }
        self.emit(ControlEvent::Garbage { from: node, why });
    }

    fn is_up(&self, node: &NodeId) -> bool {
        identity::peer_id(node).is_some_and(|peer| self.peers.contains_key(&peer))
    }

    fn emit(&mut self, event: ControlEvent) {
        if !self.waiting.is_empty() {
            return self.waiting.push_back(event);
        }
        match self.events.try_send(event) {
            // Closed is noticed by the loop, which then ends.
            Ok(()) => {}
            Err(TrySendError::Full(event) | TrySendError::Closed(event)) => self.waiting.push_back(event),
        }
    }
}

/// Events that wait for the driver before peers are not read any more.
const WAITING_MAX: usize = 256;

/// Without a change for this long, the addresses listened on are told.
const LISTENING_SETTLES: Duration = Duration::from_millis(250);

const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// Age at which a second connection is closed.
const SPARE_AFTER: Duration = Duration::from_secs(5);

/// Binding is local and immediate.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses of a relay that are told to whoever has a slot there.
const RELAY_ADDRESSES_MAX: usize = 4;
