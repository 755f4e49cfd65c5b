//! Whole data planes on loopback, with real stores.

use iroh::{EndpointAddr, endpoint::VarInt};
use iroh_blobs::{
    protocol::{GetRequest, ObserveRequest},
    store::fs::FsStore,
};
use tempfile::TempDir;

use super::*;

mod over_tcp;

struct Node {
    identity: Identity,
    data: Data,
    store: FsStore,
    events: mpsc::Receiver<DataEvent>,
    _dir: TempDir,
}

impl Node {
    async fn start(mesh: &MeshFile) -> Node {
        let dir = tempfile::tempdir().expect("a directory");
        let identity = Identity::load_or_create(&dir.path().join("node.key")).expect("created");
        let store = FsStore::load(dir.path().join("blobs")).await.expect("opens");
        let (sender, events) = mpsc::channel(64);
        let config = DataConfig { listen: "127.0.0.1:0".parse().expect("valid") };
        let data = Data::start(config, &identity, mesh, (*store).clone(), Budget::unlimited(), sender)
            .await
            .expect("starts");
        Node { identity, data, store, events, _dir: dir }
    }

    fn id(&self) -> NodeId {
        self.identity.node_id()
    }

    async fn add(&self, bytes: &[u8]) -> Hash {
        Hash(*self.store.add_slice(bytes).await.expect("added").hash.as_bytes())
    }

    fn order(&self, fetch: u64, hash: Hash, size: u64, range: Range<u64>) -> FetchOrder {
        let addresses = vec![self.data.local_addr().to_string()];
        FetchOrder {
            fetch: FetchId(fetch),
            from: self.id(),
            addresses,
            hash,
            size,
            range,
            class: Class::Client,
        }
    }

    async fn next(&mut self) -> DataEvent {
        loop {
            let event = tokio::time::timeout(Duration::from_secs(30), self.events.recv()).await;
            let event = event.expect("an event in time").expect("the plane runs");
            // A fetch that takes long says so.
            if !matches!(event, DataEvent::Arriving { .. }) {
                return event;
            }
        }
    }

    async fn failed(&mut self) -> (FetchId, Fault, String) {
        loop {
            match self.next().await {
                DataEvent::Failed { fetch, fault, why } => return (fetch, fault, why),
                DataEvent::Refused { .. } | DataEvent::Arriving { .. } => {}
                DataEvent::Fetched { fetch } => panic!("{fetch:?} should have failed"),
            }
        }
    }

    async fn stop(self) {
        self.data.shutdown().await;
        self.store.shutdown().await.expect("stops");
    }
}

fn mesh() -> MeshFile {
    MeshFile::create().0
}

fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(7).fill(&mut bytes);
    bytes
}

#[tokio::test]
async fn a_blob_comes_in_two_ranges_and_is_counted() {
    let mesh = mesh();
    let (mut a, b) = (Node::start(&mesh).await, Node::start(&mesh).await);
    let bytes = random(20 * 1024 * 1024 + 5);
    let size = bytes.len() as u64;
    let hash = b.add(&bytes).await;
    let middle = 8 * 1024 * 1024;
    assert!(a.data.fetch(b.order(1, hash, size, 0..middle)));
    assert!(a.data.fetch(b.order(2, hash, size, middle..size)));
    assert!(!a.data.fetch(b.order(2, hash, size, 0..size)), "the id is taken");
    let mut done = [a.next().await, a.next().await];
    done.sort_by_key(|event| format!("{event:?}"));
    assert_eq!(done, [1, 2].map(|fetch| DataEvent::Fetched { fetch: FetchId(fetch) }));
    assert_eq!(a.store.get_bytes(hash.0).await.expect("complete"), bytes);

    let counted = a.data.counters();
    assert_eq!((counted.bytes_in, counted.fetches, counted.failed), (size, 2, 0));
    assert_eq!(counted.peers[&b.id()].bytes_in, size);
    // One connection, and b sees who it was. It counts when its side of a request ends.
    while b.data.counters().bytes_out < size {
        tokio::task::yield_now().await;
    }
    assert_eq!(b.data.counters().peers[&a.id()], PeerBytes { bytes_in: 0, bytes_out: size });

    // A whole blob once more: duplicates are counted too. And b may ask on the connection that a dialled.
    assert!(a.data.fetch(b.order(3, hash, size, 0..size)));
    assert_eq!(a.next().await, DataEvent::Fetched { fetch: FetchId(3) });
    assert_eq!(a.data.counters().bytes_in, 2 * size);
    let small = a.add(b"only a has this").await;
    let mut b = b;
    let order = FetchOrder { addresses: vec![], ..a.order(9, small, 15, 0..15) };
    assert!(b.data.fetch(order));
    assert_eq!(b.next().await, DataEvent::Fetched { fetch: FetchId(9) });
    assert_eq!(b.store.get_bytes(small.0).await.expect("complete"), &b"only a has this"[..]);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn what_is_missing_or_unreachable_is_the_peers_fault() {
    let mesh = mesh();
    let (mut a, b) = (Node::start(&mesh).await, Node::start(&mesh).await);
    let missing = Hash::of(b"nobody has this");
    let good = b.order(1, missing, 15, 0..15);
    let nobody = {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
        socket.local_addr().expect("bound").to_string()
    };
    let stranger = NodeId(ed25519_dalek::SigningKey::from_bytes(&[1; 32]).verifying_key().to_bytes());
    let orders = [
        FetchOrder { addresses: vec![], ..good.clone() },
        FetchOrder { addresses: vec!["nonsense".into()], ..good.clone() },
        FetchOrder { addresses: vec![nobody], from: stranger, ..good.clone() },
        FetchOrder { from: stranger, ..good.clone() },
        FetchOrder { from: a.id(), ..good.clone() },
        good.clone(),
        FetchOrder { size: 20_000_000, range: 16_384..32_768, ..good },
    ];
    for (n, order) in orders.into_iter().enumerate() {
        let fetch = FetchId(n as u64 + 10);
        assert!(a.data.fetch(FetchOrder { fetch, ..order.clone() }));
        let (failed, fault, why) = a.failed().await;
        assert_eq!((failed, fault), (fetch, Fault::Peer), "{order:?}: {why}");
    }
    assert_eq!(a.data.counters().failed, 7);
    // The connection is still of use.
    let held = b.add(b"held").await;
    assert!(a.data.fetch(b.order(20, held, 4, 0..4)));
    assert_eq!(a.next().await, DataEvent::Fetched { fetch: FetchId(20) });
}

#[tokio::test]
async fn bytes_that_do_not_match_are_a_lie_and_are_not_kept() {
    let mesh = mesh();
    let (mut a, b) = (Node::start(&mesh).await, Node::start(&mesh).await);
    let bytes = random(256 * 1024);
    let hash = b.add(&bytes).await;
    // A holder whose disk rots notices itself and stops: no lie, but no bytes.
    let file = b._dir.path().join("blobs/data").join(format!("{hash}.data"));
    let mut rotten = bytes.clone();
    rotten[200_000] ^= 1;
    std::fs::write(&file, &rotten).expect("written");
    assert!(a.data.fetch(b.order(1, hash, bytes.len() as u64, 0..bytes.len() as u64)));
    let (_, fault, why) = a.failed().await;
    assert_eq!(fault, Fault::Peer, "{why}");
    assert!(a.data.counters().bytes_in < bytes.len() as u64);

    // One that answers on purpose with other bytes, which this plain stream does, is found out.
    let secret = Identity::load_or_create(&b._dir.path().join("liar.key")).expect("created");
    let liar = bind("127.0.0.1:0".parse().expect("valid"), &secret).await.expect("bound");
    let address = liar.bound_sockets()[0].to_string();
    let key = mesh.admission().derive("data plane");
    let (me, other) = (secret.node_id(), a.id());
    let lie = async {
        let connection = liar.accept().await.expect("open").await.expect("connected");
        let role = admission::Role::Accepter;
        admission::admit(&connection, &key, role, me, other).await.expect("admitted");
        let (mut send, mut receive) = connection.accept_bi().await.expect("a request");
        receive.read_to_end(1024).await.expect("a request");
        let mut answer = (16 * 1024_u64).to_le_bytes().to_vec();
        answer.extend(random(16 * 1024));
        send.write_all(&answer).await.expect("written");
        send.finish().expect("open");
        connection.closed().await
    };
    let fetch = FetchId(2);
    let order = FetchOrder {
        fetch,
        from: me,
        addresses: vec![address],
        hash: Hash::of(b"another"),
        size: 16_384,
        range: 0..16_384,
        class: Class::Client,
    };
    assert!(a.data.fetch(order));
    let failed = tokio::select! {
        failed = a.failed() => failed,
        end = lie => panic!("{end}"),
    };
    assert_eq!((failed.0, failed.1), (fetch, Fault::Lied), "{}", failed.2);
    liar.close().await;
}

#[tokio::test]
async fn another_mesh_is_refused_on_both_sides() {
    let (mut a, mut b) = (Node::start(&mesh()).await, Node::start(&mesh()).await);
    let hash = b.add(b"not for you").await;
    assert!(a.data.fetch(b.order(1, hash, 11, 0..11)));
    let refused = |event, why: &str| matches!(event, DataEvent::Refused { why: told, .. } if told == why);
    assert!(refused(a.next().await, crate::control::DIALLED_UNPROVEN));
    assert_eq!(a.failed().await.1, Fault::Peer);
    assert!(refused(b.next().await, crate::control::CAME_UNPROVEN));
    assert_eq!((a.data.counters().refused, b.data.counters().refused), (1, 1));
    assert_eq!(a.data.counters().bytes_in, 0);

    // Who proves nothing and asks at once is not answered either.
    let dir = tempfile::tempdir().expect("a directory");
    let stranger = Identity::load_or_create(&dir.path().join("node.key")).expect("created");
    let endpoint = bind("127.0.0.1:0".parse().expect("valid"), &stranger).await.expect("bound");
    let address = EndpointAddr::new(b.identity.iroh_secret().public()).with_ip_addr(b.data.local_addr());
    let connection = endpoint.connect(address, ALPN).await.expect("connected");
    let store = FsStore::load(dir.path().join("blobs")).await.expect("opens");
    let request = GetRequest::blob(iroh_blobs::Hash::from_bytes(hash.0));
    assert!(store.remote().execute_get(connection.clone(), request).await.is_err());
    connection.closed().await;
    assert!(matches!(b.next().await, DataEvent::Refused { .. }));
    assert_eq!(b.data.counters().bytes_out, 0);
    endpoint.close().await;
}

#[tokio::test]
async fn a_blob_that_everybody_wants_is_given_to_everybody() {
    let mesh = mesh();
    let b = Node::start(&mesh).await;
    let bytes = random(600 * 1024);
    let size = bytes.len() as u64;
    let hash = b.add(&bytes).await;
    let mut nodes = Vec::new();
    for _ in 0..4 {
        nodes.push(Node::start(&mesh).await);
    }
    for node in &nodes {
        for fetch in 0..50 {
            assert!(node.data.fetch(b.order(fetch, hash, size, 0..size)));
        }
    }
    for node in &mut nodes {
        for _ in 0..50 {
            let event = node.next().await;
            assert!(matches!(event, DataEvent::Fetched { .. }), "{event:?}");
        }
        assert_eq!(node.data.counters().bytes_in, 50 * size);
    }
}

#[tokio::test]
async fn only_blobs_may_be_asked_for() {
    let mesh = mesh();
    let (a, b) = (Node::start(&mesh).await, Node::start(&mesh).await);
    let hash = iroh_blobs::Hash::from_bytes(b.add(&random(64)).await.0);
    let link = a.data.links.to(b.id(), &[b.data.local_addr().to_string()]).await.expect("linked");
    let ask = |request| a.store.remote().execute_get(link.connection().clone(), request);
    assert!(ask(GetRequest::all(hash)).await.is_err());
    assert!(ask(GetRequest::blob(hash)).await.is_ok());
    let observed = a.store.remote().observe(link.connection().clone(), ObserveRequest::new(hash));
    let mut observed = std::pin::pin!(observed);
    let first = futures_util::StreamExt::next(&mut observed).await;
    assert!(!matches!(first, Some(Ok(_))));
    // A link that went away is made anew.
    link.connection().close(VarInt::from_u32(0), b"test");
    let again = a.data.links.to(b.id(), &[b.data.local_addr().to_string()]).await.expect("linked");
    assert!(!Arc::ptr_eq(&link, &again) && again.is_open());
}

#[tokio::test]
async fn fetches_are_bounded_and_can_be_cancelled() {
    let mesh = mesh();
    let mut a = Node::start(&mesh).await;
    // Takes datagrams and never answers.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
    let order = FetchOrder {
        addresses: vec![silent.local_addr().expect("bound").to_string()],
        from: NodeId(ed25519_dalek::SigningKey::from_bytes(&[1; 32]).verifying_key().to_bytes()),
        ..a.order(0, Hash::of(b""), 1, 0..1)
    };
    for fetch in 0..Data::FETCHES_MAX as u64 {
        assert!(a.data.fetch(FetchOrder { fetch: FetchId(fetch), ..order.clone() }));
    }
    let one_more = FetchOrder { fetch: FetchId(1000), ..order };
    assert!(!a.data.fetch(one_more.clone()));
    for fetch in 1..Data::FETCHES_MAX as u64 {
        a.data.cancel(FetchId(fetch));
    }
    assert!(a.data.fetch(one_more));
    let begun = std::time::Instant::now();
    let mut failed = [a.failed().await, a.failed().await].map(|(fetch, fault, _)| (fetch, fault));
    failed.sort_by_key(|(fetch, _)| *fetch);
    assert_eq!(failed, [(FetchId(0), Fault::Peer), (FetchId(1000), Fault::Peer)]);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let begun = std::time::Instant::now();
    a.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_taken_port_is_a_clear_error() {
    let mesh = mesh();
    let node = Node::start(&mesh).await;
    let (sender, _events) = mpsc::channel(4);
    let config = DataConfig { listen: node.data.local_addr() };
    let error =
        Data::start(config, &node.identity, &mesh, (*node.store).clone(), Budget::unlimited(), sender).await;
    let error = error.expect_err("taken");
    assert!(error.to_string().contains(&node.data.local_addr().to_string()), "{error}");
}
