//! Whole control planes on loopback, and a bare libp2p peer that misbehaves.

use std::time::Instant;

use futures_util::StreamExt;
use libp2p::swarm::{SwarmEvent, dial_opts::DialOpts};
use waystation_proto::{
    Wall,
    record::{Key, Kind, Record, RecordId},
};

use super::{address, behaviour, *};

mod relayed;

struct Node {
    identity: Identity,
    control: Control,
    events: mpsc::Receiver<ControlEvent>,
}

impl Node {
    async fn start(mesh: &MeshFile) -> Node {
        Node::with(mesh, config()).await
    }

    async fn with(mesh: &MeshFile, config: ControlConfig) -> Node {
        let identity = identity();
        let (sender, events) = mpsc::channel(64);
        let control = Control::start(config, &identity, mesh, sender).await.expect("starts");
        Node { identity, control, events }
    }

    fn id(&self) -> NodeId {
        self.identity.node_id()
    }

    fn address(&self) -> String {
        self.control.local_addr().to_string()
    }

    fn dial(&self, other: &Node) {
        assert!(self.control.dial(DialTarget::Address(other.address())));
    }

    /// The next event that `wanted` accepts, past others.
    async fn until<T>(&mut self, mut wanted: impl FnMut(ControlEvent) -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let event = tokio::time::timeout_at(deadline, self.events.recv()).await;
            let event = event.expect("an event in time").expect("the plane runs");
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    }

    async fn until_up(&mut self, other: NodeId) -> Option<String> {
        self.until(|event| match event {
            ControlEvent::Up { peer, dialled } if peer == other => Some(dialled),
            _ => None,
        })
        .await
    }

    async fn until_down(&mut self, other: NodeId) {
        self.until(|event| (event == ControlEvent::Down { peer: other }).then_some(())).await;
    }

    async fn until_message(&mut self, other: NodeId) -> Message {
        self.until(|event| match event {
            ControlEvent::Message { from, message } if from == other => Some(message),
            _ => None,
        })
        .await
    }

    async fn until_dial_failed(&mut self) -> (DialTarget, String) {
        self.until(|event| match event {
            ControlEvent::DialFailed { target, why } => Some((target, why)),
            _ => None,
        })
        .await
    }

    async fn until_refused(&mut self) -> String {
        self.until(|event| match event {
            ControlEvent::Refused { why, .. } => Some(why),
            _ => None,
        })
        .await
    }
}

fn config() -> ControlConfig {
    ControlConfig::new("127.0.0.1:0".parse().expect("valid"), false)
}

fn identity() -> Identity {
    let dir = tempfile::tempdir().expect("a directory");
    Identity::load_or_create(&dir.path().join("node.key")).expect("created")
}

fn mesh() -> MeshFile {
    MeshFile::create().0
}

fn request(byte: u8) -> Message {
    Message::Request(vec![RecordId([byte; 32])])
}

fn record(mesh: &MeshFile, author: &Identity, version: u64) -> Shared {
    let key_of = Key { kind: Kind(4242), scope: String::new(), name: "x".into() };
    Record::author(&mesh.mesh(), &author.signing_key(), None, key_of, version, Wall(0), &version).into()
}

#[tokio::test]
async fn direct_messages_go_both_ways() {
    let mesh = mesh();
    let (mut a, mut b) = (Node::start(&mesh).await, Node::start(&mesh).await);
    assert!(!a.control.local_addr().ip().is_unspecified() && a.control.local_addr().port() != 0);
    a.dial(&b);
    assert_eq!(a.until_up(b.id()).await, Some(b.address()));
    assert_eq!(b.until_up(a.id()).await, None);
    assert!(a.control.send(b.id(), request(1)));
    assert_eq!(b.until_message(a.id()).await, request(1));
    assert!(b.control.send(a.id(), request(2)));
    assert_eq!(a.until_message(b.id()).await, request(2));
    let counted = b.control.counters();
    assert_eq!((counted.received.request.messages, counted.sent.request.messages), (1, 1));
    assert_eq!(counted.received.request.bytes, request(1).encode().len() as u64);

    // As large as a message may be, several at once.
    let large = Message::Request(vec![RecordId([7; 32]); Message::MAX_ITEMS]);
    for _ in 0..4 {
        assert!(a.control.send(b.id(), large.clone()));
    }
    for _ in 0..4 {
        assert_eq!(b.until_message(a.id()).await, large);
    }
    let a_id = a.id();
    a.control.shutdown().await;
    b.until_down(a_id).await;
    b.control.shutdown().await;
}

#[tokio::test]
async fn gossip_reaches_those_who_are_not_neighbours() {
    let mesh = mesh();
    let (mut a, mut b, mut c) =
        (Node::start(&mesh).await, Node::start(&mesh).await, Node::start(&mesh).await);
    a.dial(&b);
    c.dial(&b);
    a.until_up(b.id()).await;
    c.until_up(b.id()).await;
    // Until subscriptions have been exchanged an announcement may reach nobody, so it is repeated, as new.
    let mut again = tokio::time::interval(Duration::from_millis(50));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let (a_id, b_id) = (a.id(), b.id());
    let mut version = 0;
    let mut reached = [false, false];
    while reached != [true, true] {
        tokio::select! {
            _ = again.tick() => {
                version += 1;
                assert!(a.control.announce(vec![record(&mesh, &a.identity, version)]));
            }
            message = b.until_message(a_id) => {
                assert!(matches!(message, Message::Records(records) if records[0].author == a_id));
                reached[0] = true;
            }
            // What came is from b, who forwarded it; who wrote it is in the record.
            message = c.until_message(b_id) => {
                assert!(matches!(message, Message::Records(records) if records[0].author == a_id));
                reached[1] = true;
            }
            () = tokio::time::sleep_until(deadline) => panic!("not reached: {reached:?}"),
        }
    }

    // And then it is pushed on at once, and does not wait for gossipsub's heartbeat of a second. How quick it
    // is beyond that is for a benchmark: unoptimised, three nodes on one thread use 24 ms of CPU for each.
    let mut took = Vec::new();
    for version in 1000..1020 {
        let record = record(&mesh, &a.identity, version);
        let begun = Instant::now();
        assert!(a.control.announce(vec![record.clone()]));
        let is_it = |event| match event {
            ControlEvent::Message { message: Message::Records(records), .. } => {
                (records == [record.clone()]).then_some(())
            }
            _ => None,
        };
        b.until(is_it).await;
        c.until(is_it).await;
        took.push(begun.elapsed());
    }
    took.sort();
    assert!(took[took.len() / 2] < Duration::from_millis(500), "{took:?}");
    assert!(a.control.counters().sent.gossip.messages >= 20);
}

#[tokio::test]
async fn a_record_that_its_author_did_not_sign_is_not_passed_on() {
    let mesh = mesh();
    let (mut a, mut b, mut c) =
        (Node::start(&mesh).await, Node::start(&mesh).await, Node::start(&mesh).await);
    a.dial(&b);
    c.dial(&b);
    a.until_up(b.id()).await;
    c.until_up(b.id()).await;
    let forged = |version| {
        Shared::new(Record { version: version + 1, ..Record::clone(&record(&mesh, &a.identity, version)) })
    };
    let mut again = tokio::time::interval(Duration::from_millis(50));
    let (a_id, b_id) = (a.id(), b.id());
    let (mut version, mut arrived) = (0, 0);
    // Good ones in between, which show that gossip flows from one end to the other.
    while arrived < 3 {
        tokio::select! {
            _ = again.tick() => {
                version += 2;
                assert!(a.control.announce(vec![forged(version)]));
                assert!(a.control.announce(vec![record(&mesh, &a.identity, version)]));
                assert!(version < 2 * 400, "nothing arrives");
            }
            _ = b.until_message(a_id) => {}
            message = c.until_message(b_id) => {
                let Message::Records(records) = message else { panic!("other than records") };
                assert!(records.iter().all(|record| record.check(&mesh.trust()).is_ok()));
                arrived += 1;
            }
        }
    }
}

#[tokio::test]
async fn hanging_up_ends_the_session_on_both_sides() {
    let mesh = mesh();
    let (mut a, mut b) = (Node::start(&mesh).await, Node::start(&mesh).await);
    a.dial(&b);
    a.until_up(b.id()).await;
    b.until_up(a.id()).await;
    assert!(a.control.hang_up(b.id()));
    a.until_down(b.id()).await;
    b.until_down(a.id()).await;
}

#[tokio::test]
async fn another_mesh_is_refused() {
    let (mut a, mut b) = (Node::start(&mesh()).await, Node::start(&mesh()).await);
    let target = DialTarget::Address(b.address());
    assert!(a.control.dial(target.clone()));
    assert_eq!(a.until_refused().await, DIALLED_UNPROVEN);
    assert_eq!(a.until_dial_failed().await, (target, DIALLED_UNPROVEN.into()));
    // The other side only sees that somebody hung up: it counts that, and says what most likely is behind it.
    assert_eq!(b.until_refused().await, CAME_UNPROVEN);
    assert_eq!((a.control.counters().refused, b.control.counters().refused), (1, 1));
    // Nothing of the stranger came in.
    assert!(a.control.dial(DialTarget::Node(b.id(), vec![b.address()])));
    a.until_dial_failed().await;
    let mut events = std::iter::from_fn(|| b.events.try_recv().ok());
    assert!(
        events.all(|event| matches!(event, ControlEvent::Listening { .. } | ControlEvent::Refused { .. }))
    );
}

#[tokio::test]
async fn every_dial_has_one_answer() {
    let mesh = mesh();
    let (mut a, mut b) = (Node::start(&mesh).await, Node::start(&mesh).await);
    let nobody = {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        socket.local_addr().expect("bound").to_string()
    };
    let stranger = identity().node_id();
    let failing = [
        DialTarget::Address(nobody.clone()),
        DialTarget::Address("no port".into()),
        DialTarget::Address(a.address()),
        DialTarget::Node(a.id(), vec![a.address()]),
        DialTarget::Node(b.id(), vec![nobody.clone()]),
        DialTarget::Node(b.id(), vec![]),
        DialTarget::Node(stranger, vec![b.address()]),
    ];
    for target in failing {
        assert!(a.control.dial(target.clone()));
        let (failed, why) = a.until_dial_failed().await;
        assert_eq!(failed, target);
        assert!(!why.is_empty());
    }
    // One good address among bad ones is enough, and is told by its name.
    let name = format!("localhost:{}", b.control.local_addr().port());
    assert!(a.control.dial(DialTarget::Node(b.id(), vec![nobody, name.clone()])));
    assert_eq!(a.until_up(b.id()).await, Some(name));
    b.until_up(a.id()).await;
    assert!(a.control.dial(DialTarget::Address(b.address())));
    assert_eq!(a.until_up(b.id()).await, Some(b.address()), "told again, by the address dialled");
    assert!(a.control.send(b.id(), request(1)));
    assert_eq!(b.until_message(a.id()).await, request(1));
}

#[tokio::test]
async fn two_that_dial_one_another_are_up_once_and_stay_up() {
    let mesh = mesh();
    let (mut a, mut b) = (Node::start(&mesh).await, Node::start(&mesh).await);
    a.dial(&b);
    b.dial(&a);
    a.until_up(b.id()).await;
    b.until_up(a.id()).await;
    let until = tokio::time::Instant::now() + Duration::from_secs(12);
    loop {
        let event = tokio::select! {
            event = a.events.recv() => event,
            event = b.events.recv() => event,
            () = tokio::time::sleep_until(until) => break,
        };
        assert!(
            matches!(event, Some(ControlEvent::Listening { .. } | ControlEvent::DialFailed { .. })),
            "{event:?}"
        );
    }
    assert!(a.control.send(b.id(), request(1)));
    assert_eq!(b.until_message(a.id()).await, request(1));
}

#[tokio::test]
async fn a_slow_driver_loses_no_session_event() {
    let mesh = mesh();
    let identity = identity();
    let (sender, events) = mpsc::channel(1);
    let control = Control::start(config(), &identity, &mesh, sender).await.expect("starts");
    let mut slow = Node { identity, control, events };
    let mut others = Vec::new();
    for _ in 0..8 {
        let mut other = Node::start(&mesh).await;
        other.dial(&slow);
        other.until_up(slow.id()).await;
        for byte in 0..40 {
            assert!(other.control.send(slow.id(), request(byte)));
        }
        others.push(other);
    }
    let mut ids: Vec<NodeId> = others.iter().map(Node::id).collect();
    for other in others {
        other.control.shutdown().await;
    }
    let (mut up, mut down) = (Vec::new(), Vec::new());
    while down.len() < ids.len() {
        slow.until(|event| match event {
            ControlEvent::Up { peer, .. } => {
                up.push(peer);
                Some(())
            }
            ControlEvent::Down { peer } => {
                assert!(up.contains(&peer));
                down.push(peer);
                Some(())
            }
            _ => None,
        })
        .await;
    }
    ids.sort();
    up.sort();
    down.sort();
    assert_eq!((&up, &down), (&ids, &ids));
}

#[tokio::test]
async fn garbage_is_counted_and_ends_the_session() {
    let mesh = mesh();
    let mut node = Node::start(&mesh).await;
    let raw = identity();
    let mut swarm = behaviour::swarm(&raw, mesh.admission(), &config(), streams::streams().0).expect("built");
    swarm
        .dial(DialOpts::unknown_peer_id().address(address::to_multiaddr(node.control.local_addr())).build())
        .expect("dialled");
    let peer = crate::identity::peer_id(&node.id()).expect("a key");
    let mut sent = 0_u32;
    let mut subscribed = false;
    let mut garbage = Vec::new();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        tokio::select! {
            event = swarm.select_next_some() => match event {
                SwarmEvent::ConnectionEstablished { .. } => {
                    swarm.behaviour_mut().direct.send(&peer, vec![0xff; 10]);
                    swarm.behaviour_mut().direct.send(&peer, vec![1; Message::MAX_BYTES + 1]);
                }
                SwarmEvent::Behaviour(behaviour::BehaviourEvent::Gossip(
                    libp2p::gossipsub::Event::Subscribed { .. },
                )) => subscribed = true,
                _ => {}
            },
            event = node.events.recv() => match event.expect("the plane runs") {
                ControlEvent::Garbage { from, why } => {
                    assert_eq!(from, raw.node_id());
                    garbage.push(why);
                }
                ControlEvent::Down { peer } if peer == raw.node_id() => break,
                ControlEvent::Message { .. } => panic!("garbage became a message"),
                _ => {}
            },
            () = tokio::time::sleep_until(deadline) => panic!("still up after {garbage:?}"),
        }
        if subscribed && garbage.len() >= 2 && sent < 40 {
            sent += 1;
            let junk = if sent.is_multiple_of(2) { request(1).encode() } else { vec![sent as u8; 100] };
            let junk = [junk, vec![sent as u8]].concat();
            let _ = swarm.behaviour_mut().gossip.publish(topic(), junk.clone());
            swarm.behaviour_mut().direct.send(&peer, junk);
        }
    }
    assert!(garbage.len() > 20, "{garbage:?}");
    assert!(garbage.iter().any(|why| why.contains("over the limit")), "{garbage:?}");
    assert_eq!(node.control.counters().garbage, garbage.len() as u64);
    // The node itself is well.
    let mut other = Node::start(&mesh).await;
    other.dial(&node);
    other.until_up(node.id()).await;
    node.until_up(other.id()).await;
}

#[tokio::test]
async fn mdns_finds_a_node_of_the_local_network() {
    let mesh = mesh();
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let identity = identity();
        let (sender, events) = mpsc::channel(64);
        let config = ControlConfig { mdns: true, ..config() };
        let control = Control::start(config, &identity, &mesh, sender).await.expect("starts with mDNS on");
        nodes.push(Node { identity, control, events });
    }
    // Whether multicast works here is the machine's business; that both run with it on is ours.
    let (a, mut b) = (nodes.remove(0), nodes.remove(0));
    a.dial(&b);
    b.until_up(a.id()).await;
}

#[tokio::test]
async fn a_taken_port_is_a_clear_error() {
    let mesh = mesh();
    let node = Node::start(&mesh).await;
    let config = ControlConfig::new(node.control.local_addr(), false);
    let (sender, _events) = mpsc::channel(4);
    let error = Control::start(config, &identity(), &mesh, sender).await.expect_err("taken");
    assert!(matches!(error, ControlError::Listen { .. }), "{error}");
    assert!(error.to_string().contains(&node.address()));
}

#[tokio::test]
async fn interfaces_are_told_of_once_and_not_one_by_one() {
    let mesh = mesh();
    let (sender, mut events) = mpsc::channel(64);
    let everywhere = ControlConfig::new("0.0.0.0:0".parse().expect("valid"), false);
    let control = Control::start(everywhere, &identity(), &mesh, sender).await.expect("starts");
    let first = tokio::time::timeout(Duration::from_secs(20), events.recv()).await;
    let Ok(Some(ControlEvent::Listening { addresses, .. })) = first else { panic!("{first:?}") };
    assert!(!addresses.is_empty());
    if let Some(outward) = address::outward().filter(|ip| !ip.is_loopback()) {
        assert!(addresses[0].starts_with(&outward.to_string()), "{addresses:?}, outward is {outward}");
    }
    assert!(tokio::time::timeout(Duration::from_secs(1), events.recv()).await.is_err());
    control.shutdown().await;
}
