//! Two nodes with a session, whose blobs take its TCP connection.

use libp2p::futures::{AsyncReadExt, AsyncWriteExt};
use waystation_proto::DialTarget;

use super::*;
use crate::control::{Control, ControlConfig, ControlEvent};

/// A node with both planes. No data address of it is told, as if UDP did not pass.
struct Both {
    node: Node,
    control: Control,
    sessions: mpsc::Receiver<ControlEvent>,
    /// Where the data plane does not take them itself.
    incoming: Option<Incoming>,
}

impl Both {
    async fn start(mesh: &MeshFile) -> Both {
        let mut both = Both::without_serving(mesh).await;
        let incoming = both.incoming.take().expect("was not taken");
        tokio::spawn(both.node.data.links.clone().accept_streams(incoming, both.node.data.stopping.clone()));
        both
    }

    async fn without_serving(mesh: &MeshFile) -> Both {
        let node = Node::start(mesh).await;
        let (sender, sessions) = mpsc::channel(64);
        let config = ControlConfig::new("127.0.0.1:0".parse().expect("valid"), false);
        let mut control = Control::start(config, &node.identity, mesh, sender).await.expect("starts");
        let (streams, incoming) = control.take_streams().expect("was not taken");
        node.data.transports.add(streams);
        Both { node, control, sessions, incoming: Some(incoming) }
    }

    async fn join(&mut self, other: &Both) {
        assert!(self.control.dial(DialTarget::Address(other.control.local_addr().to_string())));
        while !matches!(self.sessions.recv().await.expect("runs"), ControlEvent::Up { .. }) {}
    }

    /// An order that only TCP can carry out.
    fn order(&self, fetch: u64, hash: Hash, size: u64, range: Range<u64>) -> FetchOrder {
        FetchOrder { addresses: vec![], ..self.node.order(fetch, hash, size, range) }
    }
}

#[tokio::test]
async fn either_end_of_a_session_fetches_over_it_and_all_is_counted() {
    let mesh = mesh();
    let (mut a, mut b) = (Both::start(&mesh).await, Both::start(&mesh).await);
    a.join(&b).await;
    let bytes = random(9 * 1024 * 1024 + 5);
    let size = bytes.len() as u64;
    let hash = b.node.add(&bytes).await;
    let middle = 4 * 1024 * 1024;
    assert!(a.node.data.fetch(b.order(1, hash, size, 0..middle)));
    assert!(a.node.data.fetch(b.order(2, hash, size, middle..size)));
    for _ in 0..2 {
        let event = a.node.next().await;
        assert!(matches!(event, DataEvent::Fetched { .. }), "{event:?}");
    }
    assert_eq!(a.node.store.get_bytes(hash.0).await.expect("complete"), bytes);
    let counted = a.node.data.counters();
    assert_eq!((counted.bytes_in, counted.fetches, counted.failed), (size, 2, 0));
    while b.node.data.counters().bytes_out < size {
        tokio::task::yield_now().await;
    }
    assert_eq!(b.node.data.counters().peers[&a.node.id()], PeerBytes { bytes_in: 0, bytes_out: size });
    // The one that was dialled asks back.
    let small = a.node.add(b"only a has this").await;
    assert!(b.node.data.fetch(a.order(3, small, 15, 0..15)));
    assert_eq!(b.node.next().await, DataEvent::Fetched { fetch: FetchId(3) });
}

#[tokio::test]
async fn udp_that_does_not_pass_is_not_waited_for_twice() {
    let mesh = mesh();
    let (mut a, b) = (Both::start(&mesh).await, Both::start(&mesh).await);
    a.join(&b).await;
    // Takes datagrams and never answers.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
    let addresses = vec![silent.local_addr().expect("bound").to_string()];
    let links = a.node.data.links.clone();
    for fetch in 0..3 {
        let bytes = random(100 + fetch as usize);
        let (hash, size) = (b.node.add(&bytes).await, bytes.len() as u64);
        let order = FetchOrder { addresses: addresses.clone(), ..b.order(fetch, hash, size, 0..size) };
        assert!(a.node.data.fetch(order));
        assert_eq!(a.node.next().await, DataEvent::Fetched { fetch: FetchId(fetch) });
        if fetch == 0 {
            assert!(links.dialling(b.node.id(), &addresses).await.is_err());
        }
        let outlook = links.outlook(&b.node.id(), &addresses);
        assert!(matches!(outlook, links::Outlook::Unreachable));
    }
    // Elsewhere it is tried again, in the background; and the next fetch finds the connection.
    let moved = vec![b.node.data.local_addr().to_string()];
    assert!(matches!(links.outlook(&b.node.id(), &moved), links::Outlook::Due));
    assert!(a.node.data.transports.open(b.node.id(), &moved).await.is_ok());
    assert!(links.to(b.node.id(), &moved).await.is_ok());
    let line = a.node.data.transports.open(b.node.id(), &moved).await.map(|exchange| exchange.line);
    assert!(matches!(line, Ok(transport::Line::Quic(..))));
}

#[tokio::test]
async fn faults_are_whose_they_are() {
    let mesh = mesh();
    let mut a = Both::start(&mesh).await;
    let (b, mut liar) = (Both::start(&mesh).await, Both::without_serving(&mesh).await);
    let hash = Hash::of(b"nobody has this");
    assert!(a.node.data.fetch(b.order(1, hash, 15, 0..15)));
    assert_eq!(a.node.failed().await.1, Fault::Peer, "there is no session");
    a.join(&b).await;
    a.join(&liar).await;
    assert!(a.node.data.fetch(b.order(2, hash, 15, 0..15)));
    assert_eq!(a.node.failed().await.1, Fault::Peer, "it is not there");

    let mut incoming = liar.incoming.take().expect("was not taken");
    assert!(a.node.data.fetch(liar.order(3, Hash::of(b"another"), 16_384, 0..16_384)));
    let (from, mut stream) = incoming.recv().await.expect("a stream");
    assert_eq!(from, a.node.id());
    let mut request = Vec::new();
    stream.read_to_end(&mut request).await.expect("a request");
    let mut answer = (16 * 1024_u64).to_le_bytes().to_vec();
    answer.extend(random(16 * 1024));
    stream.write_all(&answer).await.expect("written");
    stream.close().await.expect("written");
    let (fetch, fault, why) = a.node.failed().await;
    assert_eq!((fetch, fault), (FetchId(3), Fault::Lied), "{why}");

    // One that ends early, with its connection.
    assert!(a.node.data.fetch(liar.order(4, Hash::of(b"another"), 16_384, 0..16_384)));
    let (_, stream) = incoming.recv().await.expect("a stream");
    liar.control.shutdown().await;
    drop(stream);
    assert_eq!(a.node.failed().await.1, Fault::Peer);
}

#[tokio::test]
async fn only_blobs_may_be_asked_for_on_streams_too() {
    let mesh = mesh();
    let (mut a, b) = (Both::start(&mesh).await, Both::start(&mesh).await);
    a.join(&b).await;
    let hash = iroh_blobs::Hash::from_bytes(b.node.add(&random(64)).await.0);
    let ask = async |request| {
        let exchange = a.node.data.transports.open(b.node.id(), &[]).await.expect("opened");
        let pair = iroh_blobs::get::StreamPair::new(0, exchange.receive, exchange.send);
        a.node.store.remote().execute_get(pair, request).await
    };
    assert!(ask(GetRequest::all(hash)).await.is_err());
    assert!(ask(GetRequest::blob(hash)).await.is_ok());
}

#[tokio::test]
async fn a_blob_that_everybody_wants_at_once_and_both_ways_is_given() {
    let mesh = mesh();
    let (mut a, mut b) = (Both::start(&mesh).await, Both::start(&mesh).await);
    a.join(&b).await;
    let bytes = random(2 * 1024 * 1024);
    let size = bytes.len() as u64;
    let of_b = b.node.add(&bytes).await;
    let of_a = a.node.add(&bytes[1..]).await;
    const FETCHES: u64 = 40;
    for fetch in 0..FETCHES {
        assert!(a.node.data.fetch(b.order(fetch, of_b, size, 0..size)));
        assert!(b.node.data.fetch(a.order(fetch, of_a, size - 1, 0..size - 1)));
    }
    for node in [&mut a.node, &mut b.node] {
        for _ in 0..FETCHES {
            let event = node.next().await;
            assert!(matches!(event, DataEvent::Fetched { .. }), "{event:?}");
        }
    }
}
