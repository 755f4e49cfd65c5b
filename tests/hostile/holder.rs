//! A peer on the data plane: a holder that serves what it has, or lies about it, and a client that asks
//! what it may not. Writes and reads the admission's bytes itself, so that their form is tested too.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use iroh::{
    Endpoint, EndpointAddr, RelayMode, TransportAddr,
    endpoint::{Connection, NetReportConfig, PortmapperConfig, RecvStream, SendStream, VarInt, presets},
};
use iroh_blobs::{
    Hash,
    protocol::{ChunkRanges, GetRequest, Request},
    provider::{StreamPair, events::EventSender},
    store::mem::MemStore,
};
use tokio::runtime::Runtime;
use waystation::{identity::Identity, mesh::MeshFile};

use crate::harness::node::temp_dir;

/// An endpoint of the test's own.
pub struct Data {
    identity: Identity,
    key: Option<[u8; 32]>,
    endpoint: Endpoint,
    store: MemStore,
    /// Requests that were answered with a lie.
    pub lies: Arc<AtomicUsize>,
    runtime: Runtime,
}

/// How a holder answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// The right size, then random bytes.
    Garbage,
    /// Everything right but one bit near the end.
    OneBit,
    /// Another blob of the same size, consistent in itself.
    OtherBlob,
    /// A size that no disk has, then random bytes.
    HugeSize,
    /// Half of what was asked for, then the end.
    HalfAnswer,
    /// Says that it does not have it.
    Nothing,
    /// Breaks the stream off.
    Reset,
    /// Breaks the connection off.
    HangUp,
    /// Takes the request and says nothing.
    Stall,
    /// One bit wrong in every tenth answer, the others right.
    TenthPiece,
}

impl Lie {
    pub const WRONG_BYTES: [Lie; 3] = [Lie::Garbage, Lie::OneBit, Lie::OtherBlob];
    pub const NO_BYTES: [Lie; 5] = [Lie::HugeSize, Lie::HalfAnswer, Lie::Nothing, Lie::Reset, Lie::HangUp];
}

impl Data {
    /// A member with this key.
    pub fn member(identity: &Identity, mesh_file: &Path) -> Self {
        Self::member_at(identity, mesh_file, LOOPBACK)
    }

    /// A member with this key at an address of this network.
    pub fn member_at(identity: &Identity, mesh_file: &Path, address: SocketAddr) -> Self {
        let key = MeshFile::load(mesh_file).unwrap().admission().derive("data plane");
        Self::open(identity.clone(), Some(key), address)
    }

    /// Somebody without a mesh file.
    pub fn stranger() -> Self {
        let folder = temp_dir("stranger");
        Self::open(Identity::load_or_create(&folder.path().join("node.key")).unwrap(), None, LOOPBACK)
    }

    fn open(identity: Identity, key: Option<[u8; 32]>, address: SocketAddr) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (endpoint, store) = runtime.block_on(async {
            let endpoint = Endpoint::builder(presets::Minimal)
                .secret_key(identity.iroh_secret())
                .alpns(vec![ALPN.to_vec()])
                .relay_mode(RelayMode::Disabled)
                .clear_address_lookup()
                .portmapper_config(PortmapperConfig::Disabled)
                .net_report_config(NetReportConfig::minimal())
                .clear_ip_transports()
                .bind_addr(address)
                .unwrap()
                .bind()
                .await
                .unwrap();
            (endpoint, MemStore::new())
        });
        Data { identity, key, endpoint, store, lies: Arc::default(), runtime }
    }

    pub fn address(&self) -> SocketAddr {
        self.endpoint.bound_sockets()[0]
    }

    /// Takes a blob into what it serves truthfully.
    pub fn add(&self, bytes: &[u8]) -> Hash {
        self.runtime.block_on(async { self.store.add_slice(bytes).await.unwrap().hash })
    }

    /// Answers requests from now on: with `lie` for blobs in `about`, truthfully for all others.
    pub fn serve(&self, lie: Lie, about: BTreeSet<Hash>) {
        let (endpoint, store, lies) = (self.endpoint.clone(), self.store.clone(), self.lies.clone());
        let (key, me) = (self.key.expect("a member"), self.identity.node_id().0);
        let (about, asked) = (Arc::new(about), Arc::new(AtomicUsize::new(0)));
        self.runtime.spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let (store, lies, about) = (store.clone(), lies.clone(), about.clone());
                let asked = asked.clone();
                tokio::spawn(async move {
                    let Ok(connection) = incoming.await else { return };
                    let (mut send, mut receive) = connection.accept_bi().await.unwrap();
                    let mut claim = [0; 33];
                    receive.read_exact(&mut claim).await.unwrap();
                    let other = *connection.remote_id().as_bytes();
                    assert_eq!(claim, proof(&connection, &key, 1, &other, &me), "the dialler's proof");
                    send.write_all(&proof(&connection, &key, 2, &other, &me)).await.unwrap();
                    answer(connection, store, lie, about, (lies, asked)).await;
                });
            }
        });
    }

    /// Fetches a blob from a node, as a member.
    pub fn fetch(&self, address: &str, node: &str, hash: Hash) -> Vec<u8> {
        self.within(async {
            let connection = self.admitted(address, node).await;
            self.store.remote().fetch(connection, hash).await.unwrap();
            self.store.get_bytes(hash).await.unwrap().to_vec()
        })
    }

    /// As a member, writes this on a stream of its own and reads the answer, if there is any.
    pub fn ask_bytes(&self, address: &str, node: &str, request: &[u8]) -> Vec<u8> {
        self.within(async {
            let connection = self.admitted(address, node).await;
            let (mut send, mut receive) = connection.open_bi().await.unwrap();
            let _ = send.write_all(request).await;
            let _ = send.finish();
            let answer = receive.read_to_end(1 << 20).await.unwrap_or_default();
            connection.close(VarInt::from_u32(0), b"");
            answer
        })
    }

    /// Connects with this for a proof (none: no stream for it at all), asks for a blob, and reads all that
    /// comes until the node closes the connection.
    pub fn ask_unproven(
        &self,
        address: &str,
        node: &str,
        hash: blake3::Hash,
        proof: Option<&[u8]>,
    ) -> Vec<u8> {
        self.within(async {
            let connection = self.connect(address, node).await;
            let mut streams = vec![];
            if let Some(proof) = proof {
                let (mut send, receive) = connection.open_bi().await.unwrap();
                let _ = send.write_all(proof).await;
                let _ = send.finish();
                streams.push((send, receive));
            }
            if proof.is_none_or(|proof| !proof.is_empty()) {
                let (mut send, receive) = connection.open_bi().await.unwrap();
                let request = GetRequest::blob(Hash::from_bytes(*hash.as_bytes()));
                let _ = send.write_all(&encoded(&request)).await;
                let _ = send.finish();
                streams.push((send, receive));
            }
            let mut answer = vec![];
            for (_, receive) in &mut streams {
                answer.extend(receive.read_to_end(1 << 20).await.unwrap_or_default());
            }
            connection.closed().await;
            answer
        })
    }

    async fn connect(&self, address: &str, node: &str) -> Connection {
        let id = node.parse::<waystation_proto::NodeId>().unwrap();
        let id = waystation::identity::endpoint_id(&id).unwrap();
        let at = [TransportAddr::Ip(address.parse().unwrap())];
        self.endpoint.connect(EndpointAddr::from_parts(id, at), ALPN).await.unwrap()
    }

    async fn admitted(&self, address: &str, node: &str) -> Connection {
        let connection = self.connect(address, node).await;
        let (key, me) = (self.key.expect("a member"), self.identity.node_id().0);
        let other = *connection.remote_id().as_bytes();
        let (mut send, mut receive): (SendStream, RecvStream) = connection.open_bi().await.unwrap();
        send.write_all(&proof(&connection, &key, 1, &me, &other)).await.unwrap();
        let mut answer = [0; 33];
        receive.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, proof(&connection, &key, 2, &me, &other), "the accepter's proof");
        connection
    }

    #[track_caller]
    fn within<T>(&self, work: impl Future<Output = T>) -> T {
        let limited = async { tokio::time::timeout(Duration::from_secs(60), work).await };
        self.runtime.block_on(limited).expect("the node answers or closes within a minute")
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        self.runtime.block_on(async {
            let _ = tokio::time::timeout(Duration::from_secs(2), self.endpoint.close()).await;
        });
    }
}

/// Requests as they are written on a stream.
pub fn encoded(request: &GetRequest) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend(postcard::to_allocvec(request).unwrap());
    bytes
}

async fn answer(
    connection: Connection,
    store: MemStore,
    lie: Lie,
    about: Arc<BTreeSet<Hash>>,
    (lies, asked): (Arc<AtomicUsize>, Arc<AtomicUsize>),
) {
    // Streams that are left hanging must not be dropped: that would reset them.
    let hanging = Arc::new(Mutex::new(vec![]));
    while let Ok(mut pair) = StreamPair::accept(&connection, EventSender::DEFAULT).await {
        let (connection, store, about) = (connection.clone(), store.clone(), about.clone());
        let (lies, asked, hanging) = (lies.clone(), asked.clone(), hanging.clone());
        tokio::spawn(async move {
            let Ok(Request::Get(request)) = pair.read_request().await else { return };
            let tracker = pair.get_request(|| request.clone()).await.unwrap();
            let mut stream = pair.into_writer(tracker).await.unwrap().inner;
            let ranges = request.ranges.iter_infinite().next().cloned().unwrap_or_else(ChunkRanges::all);
            let truth = store.export_bao(request.hash, ranges).bao_to_vec().await.unwrap_or_default();
            if !about.contains(&request.hash) {
                let _ = stream.write_all(&truth).await;
                let _ = stream.finish();
                return;
            }
            if lie == Lie::TenthPiece && asked.fetch_add(1, SeqCst) % 10 != 9 {
                let _ = stream.write_all(&truth).await;
                let _ = stream.finish();
                return;
            }
            lies.fetch_add(1, SeqCst);
            match told(lie, &truth) {
                Some(bytes) => {
                    // The other side hangs up as soon as it sees through it.
                    let _ = stream.write_all(&bytes).await;
                    let _ = stream.finish();
                }
                None if lie == Lie::Reset => drop(stream.reset(VarInt::from_u32(3))),
                None if lie == Lie::HangUp => connection.close(VarInt::from_u32(9), b"no"),
                None => hanging.lock().unwrap().push(stream),
            }
        });
    }
}

/// What is sent instead of the truth; nothing where nothing is.
fn told(lie: Lie, truth: &[u8]) -> Option<Vec<u8>> {
    let random = |length| crate::harness::image::random_bytes(42, length);
    let (size, content) = truth.split_at_checked(8)?;
    Some(match lie {
        Lie::Garbage => [size, &random(content.len())].concat(),
        Lie::OneBit | Lie::TenthPiece => {
            let mut bytes = truth.to_vec();
            let last = bytes.len() - 100;
            bytes[last] ^= 1;
            bytes
        }
        Lie::OtherBlob => other_blob(u64::from_le_bytes(size.try_into().unwrap())),
        Lie::HugeSize => [&(u64::MAX - 5).to_le_bytes()[..], &random(100_000)].concat(),
        Lie::HalfAnswer => truth[..truth.len() / 2].to_vec(),
        Lie::Nothing => vec![],
        Lie::Reset | Lie::HangUp | Lie::Stall => return None,
    })
}

/// A whole blob of this size, with the tree that belongs to it.
fn other_blob(size: u64) -> Vec<u8> {
    use bao_tree::{BlockSize, io::outboard::PreOrderMemOutboard};
    let bytes = crate::harness::image::random_bytes(43, usize::try_from(size).unwrap());
    let outboard = PreOrderMemOutboard::create(&bytes, BlockSize::from_chunk_log(4));
    let mut encoded = size.to_le_bytes().to_vec();
    bao_tree::io::sync::encode_ranges_validated(&bytes[..], &outboard, &ChunkRanges::all(), &mut encoded)
        .unwrap();
    encoded
}

/// Version, then a MAC over the connection's keying material, the role and both ids.
fn proof(
    connection: &Connection,
    key: &[u8; 32],
    role: u8,
    dialler: &[u8; 32],
    accepter: &[u8; 32],
) -> [u8; 33] {
    let mut binding = [0; 32];
    connection.export_keying_material(&mut binding, b"EXPORTER waystation admission v1", b"").unwrap();
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&[role]).update(&binding).update(dialler).update(accepter);
    let mut proof = [1; 33];
    proof[1..].copy_from_slice(hasher.finalize().as_bytes());
    proof
}

/// Any port of it.
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

const ALPN: &[u8] = b"waystation/blobs/1";
