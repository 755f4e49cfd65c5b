//! "Dial me": a member is asked over its session whether it can dial this node anew. Carries the question and the
//! answer, and bounds how many are under way; what is tried is [`crate::reach`]'s. [`answers_as`] is how a member
//! is dialled for it: as far as it has proved who it is, and no further, so that no session comes of it.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::future::BoxFuture;
use libp2p::{
    PeerId, StreamProtocol, Swarm, Transport,
    core::{
        Endpoint,
        transport::{DialOpts, PortUse},
        upgrade::{OutboundConnectionUpgrade, Version},
    },
    futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    identity::Keypair,
    noise,
    request_response::{
        self, InboundRequestId, Message, OutboundRequestId, ProtocolSupport, ResponseChannel,
    },
    tcp,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use waystation_proto::NodeId;

use super::{Command, address, behaviour::Behaviour};
use crate::{identity, mesh::AdmissionSecret};

/// Dials whoever asks, and says in bytes what came of it.
pub type Dialler = Arc<dyn Fn(NodeId) -> BoxFuture<'static, Vec<u8>> + Send + Sync>;

/// Asks members to dial this node, and has them dialled that ask. Clones are the same.
#[derive(Clone)]
pub struct DialBacks {
    commands: mpsc::Sender<Command>,
    dialler: Arc<OnceLock<Dialler>>,
}

impl std::fmt::Debug for DialBacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DialBacks")
    }
}

/// One question to a member, and who waits for the answer.
#[derive(Debug)]
pub(super) struct Question {
    to: NodeId,
    answer: oneshot::Sender<Result<Vec<u8>, String>>,
}

/// Questions and answers under way.
pub(super) struct Pending {
    dialler: Arc<OnceLock<Dialler>>,
    asked: BTreeMap<OutboundRequestId, oneshot::Sender<Result<Vec<u8>, String>>>,
    dialling: JoinSet<(ResponseChannel<Vec<u8>>, Vec<u8>)>,
}

/// How libp2p carries them.
pub(crate) type Exchange = request_response::Behaviour<Codec>;

/// An empty question, and an answer of at most [`ANSWER_MAX`] bytes that ends with its stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Codec;

impl DialBacks {
    pub(super) fn new(commands: mpsc::Sender<Command>, dialler: Arc<OnceLock<Dialler>>) -> Self {
        DialBacks { commands, dialler }
    }

    /// From now on members that ask are dialled by this. Only the first call counts.
    pub fn dial_with(&self, dialler: Dialler) {
        let _ = self.dialler.set(dialler);
    }

    /// Asks a member with a session to dial this node; its answer within [`ANSWERED_WITHIN`], or why there is none.
    ///
    /// # Errors
    /// A sentence for people.
    pub async fn ask(&self, to: NodeId) -> Result<Vec<u8>, String> {
        let (answer, answered) = oneshot::channel();
        let question = Command::AskDialBack(Question { to, answer });
        self.commands.try_send(question).map_err(|_| "the control plane is busy or has ended".to_owned())?;
        answered.await.unwrap_or_else(|_| Err("the session with it ended".into()))
    }
}

impl Pending {
    pub(super) fn new(dialler: Arc<OnceLock<Dialler>>) -> Self {
        Pending { dialler, asked: BTreeMap::new(), dialling: JoinSet::new() }
    }

    /// Whether members dial this node as it asked: these handshakes are not finished.
    pub(super) fn is_asking(&self) -> bool {
        !self.asked.is_empty()
    }

    pub(super) fn ask(&mut self, swarm: &mut Swarm<Behaviour>, Question { to, answer }: Question) {
        let connected = identity::peer_id(&to).filter(|peer| swarm.is_connected(peer));
        let refused = match connected {
            None => "there is no session with it",
            Some(_) if self.asked.len() >= ASKED_MAX => "too many are being asked",
            Some(peer) => {
                let request = swarm.behaviour_mut().dial_back.send_request(&peer, ());
                self.asked.insert(request, answer);
                return;
            }
        };
        // Whoever asked may have gone.
        let _ = answer.send(Err(refused.into()));
    }

    /// The next member that was dialled as it asked. Pending for ever where none is being.
    pub(super) async fn dialled(&mut self) -> (ResponseChannel<Vec<u8>>, Vec<u8>) {
        loop {
            match self.dialling.join_next().await {
                Some(Ok(dialled)) => return dialled,
                // Its channel is gone, which the member is told.
                Some(Err(error)) => tracing::error!(%error, "dialling a member back failed"),
                None => std::future::pending().await,
            }
        }
    }

    pub(super) fn on_event(&mut self, event: request_response::Event<(), Vec<u8>>) {
        match event {
            request_response::Event::Message { peer, message, .. } => self.on_message(&peer, message),
            request_response::Event::OutboundFailure { request_id, error, .. } => {
                if let Some(waiting) = self.asked.remove(&request_id) {
                    let _ = waiting.send(Err(format!("it gave no answer: {error}")));
                }
            }
            _ => {}
        }
    }

    fn on_message(&mut self, peer: &PeerId, message: Message<(), Vec<u8>>) {
        match message {
            Message::Request { channel, request_id, .. } => self.on_question(peer, channel, request_id),
            Message::Response { request_id, response } => {
                if let Some(waiting) = self.asked.remove(&request_id) {
                    let _ = waiting.send(Ok(response));
                }
            }
        }
    }

    /// A channel that is dropped tells the member that there will be no answer.
    fn on_question(&mut self, peer: &PeerId, channel: ResponseChannel<Vec<u8>>, id: InboundRequestId) {
        let (Some(node), Some(dialler)) = (identity::node_of_peer(peer), self.dialler.get()) else { return };
        if self.dialling.len() < DIALLING_MAX {
            tracing::debug!(peer = %node.short(), %id, "a member asks to be dialled");
            let dialling = dialler(node);
            self.dialling.spawn(async move { (channel, dialling.await) });
        }
    }
}

/// The behaviour, with its limits.
pub(super) fn exchange() -> Exchange {
    let config = request_response::Config::default()
        .with_request_timeout(ANSWERED_WITHIN)
        .with_max_concurrent_streams(DIALLING_MAX);
    Exchange::new([(PROTOCOL, ProtocolSupport::Full)], config)
}

/// Whether at this socket there is that node, of this mesh: it is dialled anew, by a key made for that, as far as
/// both know who the other is.
pub(crate) async fn answers_as(socket: SocketAddr, node: NodeId, admission: &AdmissionSecret) -> bool {
    let prologue = admission.derive("control plane").to_vec();
    let handshake = async {
        let mut transport = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true));
        let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        let stream = transport.dial(address::to_multiaddr(socket), options).ok()?.await.ok()?;
        let (name, stream) =
            multistream_select::dialer_select_proto(stream, [NOISE], Version::V1).await.ok()?;
        let noise = noise::Config::new(&Keypair::generate_ed25519()).ok()?.with_prologue(prologue);
        let (peer, _) = noise.upgrade_outbound(stream, name).await.ok()?;
        identity::node_of_peer(&peer)
    };
    matches!(tokio::time::timeout(HANDSHAKE, handshake).await, Ok(Some(found)) if found == node)
}

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = ();
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<()>
    where
        T: AsyncRead + Unpin + Send,
    {
        io.read_exact(&mut [0; 1]).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut answer = Vec::new();
        (&mut *io).take(ANSWER_MAX).read_to_end(&mut answer).await?;
        Ok(answer)
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, (): ()) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&[0]).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, answer: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&answer).await
    }
}

const PROTOCOL: StreamProtocol = StreamProtocol::new("/waystation/dial-back/1");

/// What libp2p calls its only handshake.
const NOISE: &str = "/noise";

/// Bytes of an answer that are read.
const ANSWER_MAX: u64 = 8 * 1024;
/// Members that are asked at a time.
const ASKED_MAX: usize = 8;
/// Members that are dialled at a time; others that ask get no answer.
const DIALLING_MAX: usize = 4;
/// Longer than whoever is asked takes to dial in vain.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);
/// A handshake over a satellite takes two seconds, and three where a packet is lost.
const HANDSHAKE: Duration = Duration::from_secs(4);
