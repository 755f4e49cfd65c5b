//! What HTTP and the CLI may ask of the replica. Cheap to clone; every answer comes from the driver's loop.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::sync::{mpsc, oneshot, watch};
use waystation_proto::{
    Digest, Hash, Input, NodeId, Now, Refusal, Replica, RepoName, RequestId, Tag, Wall,
    body::{HoldingState, State},
    event::{BlobRef, LeaseRefusal, Source, WantFailure},
    grant::{Action, Grant},
    index::ArtifactIndex,
    policy::Policy,
    ranges::Ranges,
    replica::space::Kept,
};

/// A request on its way into the driver's loop.
pub enum Command {
    /// Give the replica this input and keep the sender for the write's answer.
    Write(RequestId, Input, oneshot::Sender<Result<(), Refusal>>),
    /// Give the replica this input and keep the sender for the want's answer.
    Want(RequestId, Input, oneshot::Sender<Result<(), WantFailure>>),
    /// As `Want`, and tell what of the blob is here while it comes.
    Follow(RequestId, Input, oneshot::Sender<Result<(), WantFailure>>, Hash, watch::Sender<Ranges>),
    /// An input that nobody waits for.
    Tell(Input),
    /// Whether this node could do that there now.
    May(Action, RepoName, oneshot::Sender<Result<(), Refusal>>),
    /// Give the replica this input and keep the sender for the promise.
    Lease(RequestId, Input, oneshot::Sender<Result<NodeId, LeaseRefusal>>),
    /// What must stay, and how many others hold each of these artifacts.
    Kept(Vec<Digest>, oneshot::Sender<Kept>),
    /// Facts for `status`.
    Status(oneshot::Sender<DriverStatus>),
    /// Tell when the catalog has once been compared with a member's since the start.
    Reconciled(oneshot::Sender<()>),
    /// Look at the replica. Must not take long: nothing else happens meanwhile.
    Look(Look),
}

/// Something that is read off the replica.
pub type Look = Box<dyn FnOnce(&Replica, Now) + Send>;

/// Content of an upstream that is wanted here.
#[derive(Clone, Debug)]
pub struct PullOrder {
    /// What.
    pub source: Source,
    /// Its size in bytes, where a manifest told.
    pub size: Option<u64>,
    /// An artifact that it is part of.
    pub manifest: Option<Digest>,
    /// Whether it is a manifest itself.
    pub is_manifest: bool,
    /// Whether the upstream cannot be reached.
    pub away: bool,
}

/// A blob on its way here. The want lasts until it ends, or until the last of what this was cloned to is dropped.
#[derive(Clone)]
pub struct Coming {
    /// What of it can be read. Closed where nothing more is told before the end.
    pub arrived: watch::Receiver<Ranges>,
    /// How the want ended.
    pub end: Shared<BoxFuture<'static, Result<(), WantFailure>>>,
}

/// What the driver and the replica can say about themselves.
#[derive(Clone, Debug, Default)]
pub struct DriverStatus {
    /// Members with a live control session.
    pub sessions: Vec<NodeId>,
    /// Records known.
    pub records: usize,
    /// Blobs that are being fetched or waited for.
    pub wants: usize,
    /// Transfers under way.
    pub fetches: usize,
    /// Members that are not asked for blobs for so many more milliseconds, because they failed.
    pub avoided: Vec<(NodeId, u64)>,
    /// What the clocks of members with a session said when they last told of themselves.
    pub authored: Vec<(NodeId, Wall)>,
}

/// Asks the replica.
#[derive(Clone)]
pub struct ReplicaHandle {
    commands: mpsc::Sender<Command>,
    next: Arc<AtomicU64>,
}

impl ReplicaHandle {
    /// A handle that feeds this queue.
    pub fn new(commands: mpsc::Sender<Command>) -> Self {
        ReplicaHandle { commands, next: Arc::new(AtomicU64::new(1)) }
    }

    /// Publishes what was pushed: returns once it is durable and announced.
    pub async fn publish(
        &self,
        repository: RepoName,
        tags: Vec<Tag>,
        index: ArtifactIndex,
        index_hash: Hash,
        index_size: u64,
    ) -> Result<(), Refusal> {
        self.write(|request| Input::Publish { request, repository, tags, index, index_hash, index_size })
            .await
    }

    /// Takes a tag away.
    pub async fn untag(&self, repository: RepoName, tag: Tag) -> Result<(), Refusal> {
        self.write(|request| Input::Untag { request, repository, tag }).await
    }

    /// Takes an artifact out of a repository.
    pub async fn unpublish(&self, repository: RepoName, manifest: Digest) -> Result<(), Refusal> {
        self.write(|request| Input::Unpublish { request, repository, manifest }).await
    }

    /// Takes a blob out of a repository.
    pub async fn unlink(&self, repository: RepoName, blob: Digest) -> Result<(), Refusal> {
        self.write(|request| Input::Unlink { request, repository, blob }).await
    }

    /// Lets a blob that was taken out of a repository be linked there again.
    pub async fn relink(&self, repository: RepoName, blob: Digest) -> Result<(), Refusal> {
        self.write(|request| Input::Relink { request, repository, blob }).await
    }

    /// Says what state an artifact is in.
    pub async fn set_status(
        &self,
        repository: RepoName,
        manifest: Digest,
        state: State,
        reason: String,
    ) -> Result<(), Refusal> {
        self.write(|request| Input::SetStatus { request, repository, manifest, state, reason }).await
    }

    /// Makes a grant known to the mesh.
    pub async fn add_grant(&self, grant: Grant) -> Result<(), Refusal> {
        self.write(|request| Input::AddGrant { request, grant }).await
    }

    /// Declares a policy, or takes it away.
    pub async fn set_policy(&self, name: RepoName, policy: Option<Policy>) -> Result<(), Refusal> {
        self.write(|request| Input::SetPolicy { request, name, policy }).await
    }

    /// Whether a policy wants an artifact held at this node, as part of whatever. Unknown while something that
    /// could change the answer was not looked at, or where the node is stopping: nothing should be evicted then.
    pub async fn policy_held(&self, repository: RepoName, manifest: Digest) -> Option<bool> {
        self.look(move |replica, _| replica.policy_held(&repository, &manifest)).await.flatten()
    }

    /// What `question` reads off the replica; nothing where the node is stopping.
    pub async fn look<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Replica, Now) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let look: Look = Box::new(move |replica, now| {
            // Whoever asked may be gone; nothing depends on the answer then.
            let _ = answer.send(question(replica, now));
        });
        let _ = self.commands.send(Command::Look(look)).await;
        answered.await.ok()
    }

    /// Gets an artifact's manifest here, and with `closure` all it needs in the background. If the caller
    /// stops waiting, the want is abandoned unless others wait too.
    pub async fn want_artifact(
        &self,
        repository: RepoName,
        manifest: Digest,
        closure: bool,
    ) -> Result<(), WantFailure> {
        self.want(|request| Input::WantArtifact { request, repository, manifest, closure }).await
    }

    /// Gets a blob here, from the holders of an artifact that it is part of.
    pub async fn want_blob(&self, blob: BlobRef, manifest: Digest) -> Result<(), WantFailure> {
        self.want(|request| Input::WantBlob { request, blob, manifest }).await
    }

    /// As [`Self::want_blob`], for somebody who reads along. Only for a blob whose hash an authority pairs with
    /// its digest: its pieces are verified by the hash alone.
    pub async fn follow_blob(&self, blob: BlobRef, manifest: Digest) -> Coming {
        let (answer, answered) = oneshot::channel();
        let (sender, arrived) = watch::channel(Ranges::new());
        let (request, hash) = (self.request(), blob.hash);
        let guard = Abandon { request, commands: Some(self.commands.clone()) };
        let input = Input::WantBlob { request, blob, manifest };
        let _ = self.commands.send(Command::Follow(request, input, answer, hash, sender)).await;
        Coming { arrived, end: guard.outcome(answered).boxed().shared() }
    }

    /// Gets content of an upstream here, from a member or from the upstream. A download that has begun goes on
    /// when the caller stops waiting.
    pub async fn pull(&self, order: PullOrder) -> Result<(), WantFailure> {
        let PullOrder { source, size, manifest, is_manifest, away } = order;
        self.want(|request| Input::Pull { request, source, size, manifest, is_manifest, away }).await
    }

    /// Tells the mesh where an upstream's tag was seen to point.
    pub async fn sighted(&self, repository: RepoName, tag: Tag, manifest: Digest) {
        let _ = self.commands.send(Command::Tell(Input::Sighted { repository, tag, manifest })).await;
    }

    /// Tells the mesh how much of an upstream's artifact is here.
    pub async fn keeping(&self, manifest: Digest, state: HoldingState) {
        let _ = self.commands.send(Command::Tell(Input::Keeping { manifest, state })).await;
    }

    /// Tells the replica that a pushed blob is durable here.
    pub async fn sealed(&self, hash: Hash) {
        // A closed queue means that the node is stopping; the blob is found again at the next start.
        let _ = self.commands.send(Command::Tell(Input::Sealed { hash })).await;
    }

    /// Tells the replica that a held blob of these artifacts turned out damaged and is not held any more.
    pub async fn lost(&self, hash: Hash, manifests: Vec<Digest>) {
        let _ = self.commands.send(Command::Tell(Input::Lost { hash, manifests })).await;
    }

    /// Has another holder of an artifact promise to keep it, so that this node may delete its copy.
    pub async fn ask_lease(&self, manifest: Digest, blobs: Vec<Hash>) -> Result<NodeId, LeaseRefusal> {
        let (answer, answered) = oneshot::channel();
        let request = self.request();
        let input = Input::AskLease { request, manifest, blobs };
        let _ = self.commands.send(Command::Lease(request, input, answer)).await;
        answered.await.unwrap_or(Err(LeaseRefusal::Nobody))
    }

    /// Tells the mesh that these artifacts are not held here any more, and the replica that these blobs are not.
    pub async fn let_go(
        &self,
        manifests: Vec<Digest>,
        leased: Vec<Digest>,
        blobs: Vec<Hash>,
    ) -> Result<(), Refusal> {
        self.write(|request| Input::LetGo { request, manifests, leased, blobs }).await
    }

    /// Keeps an artifact here whatever happens, or not any more.
    pub async fn pin(&self, manifest: Digest, pinned: bool) -> Result<(), Refusal> {
        self.write(|request| Input::Pin { request, manifest, pinned }).await
    }

    /// What must stay; nothing where the node is stopping.
    pub async fn kept(&self, manifests: Vec<Digest>) -> Option<Kept> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Kept(manifests, answer)).await.ok()?;
        answered.await.ok()
    }

    /// Whether this node could do that there now: asked before a client sends its bytes.
    pub async fn may(&self, action: Action, repository: RepoName) -> Result<(), Refusal> {
        let (answer, answered) = oneshot::channel();
        let _ = self.commands.send(Command::May(action, repository, answer)).await;
        answered.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Facts for `status`.
    pub async fn status(&self) -> DriverStatus {
        let (answer, answered) = oneshot::channel();
        let _ = self.commands.send(Command::Status(answer)).await;
        answered.await.unwrap_or_default()
    }

    /// Waits until the catalog has once been compared with a member's since the start. For ever, if there is none.
    pub async fn reconciled(&self) {
        let (answer, answered) = oneshot::channel();
        let _ = self.commands.send(Command::Reconciled(answer)).await;
        // Nobody answers any more where the node is stopping.
        let _ = answered.await;
    }

    async fn write(&self, input: impl FnOnce(RequestId) -> Input) -> Result<(), Refusal> {
        let (answer, answered) = oneshot::channel();
        let request = self.request();
        let _ = self.commands.send(Command::Write(request, input(request), answer)).await;
        answered.await.unwrap_or_else(|_| Err(stopping()))
    }

    async fn want(&self, input: impl FnOnce(RequestId) -> Input) -> Result<(), WantFailure> {
        let (answer, answered) = oneshot::channel();
        let request = self.request();
        let guard = Abandon { request, commands: Some(self.commands.clone()) };
        let _ = self.commands.send(Command::Want(request, input(request), answer)).await;
        guard.outcome(answered).await
    }

    fn request(&self) -> RequestId {
        RequestId(self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// Tells the replica when a caller stops waiting before the answer.
struct Abandon {
    request: RequestId,
    commands: Option<mpsc::Sender<Command>>,
}

impl Abandon {
    /// The answer. Dropped before, it abandons the want.
    async fn outcome(
        mut self,
        answered: oneshot::Receiver<Result<(), WantFailure>>,
    ) -> Result<(), WantFailure> {
        let result = answered.await.unwrap_or(Err(WantFailure::NoHolder));
        self.commands = None;
        result
    }
}

impl Drop for Abandon {
    fn drop(&mut self) {
        if let Some(commands) = self.commands.take() {
            // A full queue loses this; the want then ends by itself when it is done or stalls.
            let _ = commands.try_send(Command::Tell(Input::Abandon { request: self.request }));
        }
    }
}

fn stopping() -> Refusal {
    Refusal::Storage("the node is stopping".into())
}
