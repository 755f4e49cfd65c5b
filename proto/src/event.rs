//! The whole contract between the protocol and a driver. Every variant says who makes it and what the
//! receiver does with it. The driver performs outputs in the order given and never decides anything itself.

mod told;

use alloc::{string::String, vec::Vec};
use core::ops::Range;

pub use self::told::{Change, Event, LeaseRefusal, Refusal, Told, WantFailure};
use crate::{
    body::{HoldingState, State},
    grant::Grant,
    id::{Digest, Hash, NodeId, RepoName, Tag},
    index::ArtifactIndex,
    policy::Policy,
    ranges::Ranges,
    record::Key,
    shared::Shared,
    time::{Span, Time},
    wire::{Answer, Message},
};

/// Chosen by whoever asks (HTTP, CLI), carried back in the answer. Never reused while the node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// One transfer of one range from one node; chosen by the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FetchId(pub u64);

/// What happened in the driver's world.
#[derive(Clone, Debug)]
pub enum Input {
    /// Once, first: what survived on disk. The records are the node's own and were checked before they
    /// were written; `held` are the hashes of all complete, durable blobs.
    Restore {
        /// Every record kept, in any order.
        records: Vec<Shared>,
        /// Every blob kept.
        held: Vec<Hash>,
    },
    /// Once, after `Restore`, and again when addresses change: how this node can be reached. Makes the
    /// replica tell the mesh and start to dial.
    Reachable {
        /// `host:port`, TCP for control and UDP for data, best first: only so many are told.
        addresses: Vec<String>,
    },
    /// A client pushed a manifest; its bytes, its index and all that must be present are durable and were
    /// hashed here. Answered by [`Event::Written`] or [`Event::Refused`].
    Publish {
        /// Whom to answer.
        request: RequestId,
        /// Into which repository.
        repository: RepoName,
        /// To be pointed at it; may be none.
        tags: Vec<Tag>,
        /// What was pushed.
        index: ArtifactIndex,
        /// Hash of the encoded index, which is in the store.
        index_hash: Hash,
        /// Size of the encoded index.
        index_size: u64,
    },
    /// Take tags away. Answered like `Publish`.
    Untag {
        /// Whom to answer.
        request: RequestId,
        /// Of which repository.
        repository: RepoName,
        /// Which.
        tag: Tag,
    },
    /// Take an artifact out of a repository, with every tag of it there. Answered like `Publish`.
    Unpublish {
        /// Whom to answer.
        request: RequestId,
        /// Of which repository.
        repository: RepoName,
        /// Which.
        manifest: Digest,
    },
    /// Take a blob out of a repository, whatever links it there. Answered like `Publish`.
    Unlink {
        /// Whom to answer.
        request: RequestId,
        /// Of which repository.
        repository: RepoName,
        /// Which.
        blob: Digest,
    },
    /// A blob that may have been taken out of a repository was pushed or mounted there again. Answered like
    /// `Publish`.
    Relink {
        /// Whom to answer.
        request: RequestId,
        /// Of which repository.
        repository: RepoName,
        /// Which.
        blob: Digest,
    },
    /// Say what state an artifact is in. Answered like `Publish`.
    SetStatus {
        /// Whom to answer.
        request: RequestId,
        /// In which repository.
        repository: RepoName,
        /// Which artifact.
        manifest: Digest,
        /// Its state.
        state: State,
        /// Why.
        reason: String,
    },
    /// A grant that the operator issued here with the root key. Answered like `Publish`.
    AddGrant {
        /// Whom to answer.
        request: RequestId,
        /// Signed by the root.
        grant: Grant,
    },
    /// The operator declares a policy here. Answered like `Publish`.
    SetPolicy {
        /// Whom to answer.
        request: RequestId,
        /// Its name.
        name: RepoName,
        /// What it says, or nothing to take it away.
        policy: Option<Policy>,
    },
    /// A client or policy wants an artifact's manifest here, and the rest of its closure in the
    /// background if `closure`. Answered by [`Event::WantDone`] once the manifest is durable.
    WantArtifact {
        /// Whom to answer.
        request: RequestId,
        /// The repository through which it was asked for.
        repository: RepoName,
        /// The manifest.
        manifest: Digest,
        /// Whether to fetch config and layers too.
        closure: bool,
    },
    /// A client wants one blob here. Answered by [`Event::WantDone`] once it is durable.
    WantBlob {
        /// Whom to answer.
        request: RequestId,
        /// The blob.
        blob: BlobRef,
        /// An artifact whose closure it is in: its holders are asked.
        manifest: Digest,
    },
    /// A client wants content that only an upstream pairs with bytes. Answered by [`Event::WantDone`] once it
    /// is durable and linked here, from a member that has it or by an [`Output::Pull`] of this node's own.
    Pull {
        /// Whom to answer.
        request: RequestId,
        /// What.
        source: Source,
        /// Its size in bytes, where a manifest told.
        size: Option<u64>,
        /// An artifact that it is part of: whoever holds that is asked too.
        manifest: Option<Digest>,
        /// Whether it is a manifest, which upstreams answer elsewhere than blobs.
        is_manifest: bool,
        /// Whether the upstream cannot be reached, so that only members are of use.
        away: bool,
    },
    /// Answer to [`Output::Pull`].
    Pulled {
        /// What.
        source: Source,
        /// Its hash and size; it is durable and linked.
        result: Result<(Hash, u64), PullFailure>,
    },
    /// Answer to [`Output::Prove`].
    Proved {
        /// What.
        source: Source,
        /// By which hash it was fetched.
        hash: Hash,
        /// Whether the bytes have the digest; they are linked then.
        proof: Proof,
    },
    /// Answer to [`Output::LookUp`].
    LookedUp {
        /// Who asked.
        to: NodeId,
        /// In which repository.
        repository: RepoName,
        /// What is here.
        answers: Vec<Answer>,
    },
    /// An upstream's tag was seen to point there. Nobody waits for it.
    Sighted {
        /// In which repository.
        repository: RepoName,
        /// Which tag.
        tag: Tag,
        /// Where to.
        manifest: Digest,
    },
    /// How much of an upstream's artifact is here. Nobody waits for it.
    Keeping {
        /// The artifact.
        manifest: Digest,
        /// How much.
        state: HoldingState,
    },
    /// Whoever asked is gone; a want that nobody else waits for and no closure needs is dropped.
    Abandon {
        /// The request that is no longer waited for.
        request: RequestId,
    },
    /// A message from a member, already decoded and within bounds.
    Received {
        /// Who sent it: authenticated by the transport.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// A control session with a member came up; may be told again for a session that is up already.
    PeerUp {
        /// Who.
        peer: NodeId,
        /// The address that this node dialled, if it was the one to dial.
        dialled: Option<String>,
    },
    /// The last control session with a member ended.
    PeerDown {
        /// Who.
        peer: NodeId,
    },
    /// The local network told of a node (mDNS).
    Discovered {
        /// `host:port`.
        address: String,
    },
    /// A dial came to nothing.
    DialFailed {
        /// What was dialled.
        target: DialTarget,
    },
    /// Answer to [`Output::Probe`].
    Probed {
        /// Which blob.
        hash: Hash,
        /// What of it is here and verified.
        have: Ranges,
    },
    /// Bytes of a fetch arrived. Told now and then while they do, so that a slow one is not taken for a dead one.
    Arriving {
        /// Which fetch.
        fetch: FetchId,
    },
    /// A range was fetched, verified and handed to the store.
    Fetched {
        /// Which fetch.
        fetch: FetchId,
    },
    /// A fetch ended early. What was verified until then is kept.
    FetchFailed {
        /// Which fetch.
        fetch: FetchId,
        /// Whose fault.
        fault: Fault,
    },
    /// A blob is complete and durable: from a fetch ([`Output::Seal`]) or from a client's push.
    Sealed {
        /// Which.
        hash: Hash,
    },
    /// [`Output::Seal`] could not be done; the text is for people.
    SealFailed {
        /// Which.
        hash: Hash,
        /// Why.
        why: String,
    },
    /// Answer to [`Output::Seal`] where some of the blob is not here after all: it was just being deleted. What is
    /// missing is fetched again, and whoever waits goes on waiting.
    Incomplete {
        /// Which.
        hash: Hash,
    },
    /// A blob that was held is not any more: it rotted. What the artifacts lack is fetched again, where
    /// somebody has it.
    Lost {
        /// Which.
        hash: Hash,
        /// Artifacts that it is part of.
        manifests: Vec<Digest>,
    },
    /// Answer to [`Output::ReadIndex`].
    IndexRead {
        /// Hash of the encoded index.
        hash: Hash,
        /// The index, or nothing where the bytes were not one.
        index: Option<ArtifactIndex>,
    },
    /// Answer to [`Output::Persist`]: the records will survive a power cut.
    Persisted {
        /// Which write.
        write: WriteId,
    },
    /// Answer to [`Output::Persist`]: they could not be written; the text is for people.
    PersistFailed {
        /// Which write.
        write: WriteId,
        /// Why.
        why: String,
    },
    /// This node wants to delete its copy of an artifact: have another holder promise to keep its own. Answered
    /// by [`Event::LeaseDone`].
    AskLease {
        /// Whom to answer.
        request: RequestId,
        /// Which artifact.
        manifest: Digest,
        /// All that it consists of.
        blobs: Vec<Hash>,
    },
    /// These blobs are about to be deleted, and with them what this node holds of these artifacts. Answered by
    /// [`Event::Written`] when it has been said durably; or by [`Event::Refused`], and they must stay then.
    LetGo {
        /// Whom to answer.
        request: RequestId,
        /// Artifacts that are not held any more.
        manifests: Vec<Digest>,
        /// Those among them for which a promise was given.
        leased: Vec<Digest>,
        /// Blobs that are not held any more.
        blobs: Vec<Hash>,
    },
    /// An artifact is to be kept here whatever happens, or not any more. Answered like `Publish`.
    Pin {
        /// Whom to answer.
        request: RequestId,
        /// Which.
        manifest: Digest,
        /// Whether it is to be kept.
        pinned: bool,
    },
    /// The time of an [`Output::SetTimer`] has come.
    TimerFired(Timer),
    /// Whether fetches from other sites may begin now, as far as this node's budget for those links goes. Both
    /// may until this is told.
    Budget {
        /// What nobody waits for.
        far_background: bool,
        /// What a client waits for.
        far_client: bool,
    },
}

/// What the driver is to do.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send to one member. May be lost.
    Send {
        /// To whom; has a session.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Tell the mesh by gossip. May be lost.
    Announce {
        /// New records, durable where they are this node's own.
        records: Vec<Shared>,
    },
    /// Open a control session. Answered by `PeerUp` or `DialFailed`.
    Dial {
        /// Where or to whom.
        target: DialTarget,
    },
    /// Fire `timer` at `at`. Never cancelled: one that comes late does no harm.
    SetTimer {
        /// When.
        at: Time,
        /// What to give back.
        timer: Timer,
    },
    /// Make records durable. Answered by `Persisted` or `PersistFailed`; those of [`WriteId::UNANSWERED`] need not be.
    Persist {
        /// Which write.
        write: WriteId,
        /// To be kept; each replaces what is kept under its key.
        records: Vec<Shared>,
        /// How long others may be waited for, to share one sync. Zero where somebody waits.
        within: Span,
    },
    /// Say which verified bytes of a blob are here. Answered by `Probed`.
    Probe {
        /// Which.
        hash: Hash,
        /// Its size in bytes.
        size: u64,
    },
    /// Fetch a range of a blob from a member into the store. Answered by `Fetched` or `FetchFailed`.
    Fetch {
        /// Which fetch.
        fetch: FetchId,
        /// From whom.
        from: NodeId,
        /// Where it can be reached, as it said itself.
        addresses: Vec<String>,
        /// Which blob.
        hash: Hash,
        /// The blob's size in bytes.
        size: u64,
        /// Which bytes of it.
        range: Range<u64>,
        /// For whom.
        class: Class,
    },
    /// Stop a fetch; no answer needed.
    CancelFetch {
        /// Which.
        fetch: FetchId,
    },
    /// A client waits now for what a fetch brings: it goes on as [`Class::Client`]; no answer needed.
    Hasten {
        /// Which.
        fetch: FetchId,
    },
    /// Every byte is here and matches the hash: make the blob durable and findable by digest. Answered by
    /// `Sealed` or `SealFailed`.
    Seal {
        /// Hash and size.
        hash: Hash,
        /// Its size in bytes.
        size: u64,
        /// The digest that an authority pairs with the hash, for blobs that clients name.
        digest: Option<Digest>,
    },
    /// Download from the upstream of the repository into the store. Answered by `Pulled`.
    Pull {
        /// What.
        source: Source,
        /// Its size in bytes, where a manifest told.
        size: Option<u64>,
        /// Whether it is a manifest.
        is_manifest: bool,
    },
    /// Read all of a sealed blob and, if it has the digest, name it so and link it into the repository.
    /// Answered by `Proved`.
    Prove {
        /// What it is said to be.
        source: Source,
        /// The blob.
        hash: Hash,
        /// Its size in bytes.
        size: u64,
    },
    /// Say which of these are linked in the repository and held. Answered by `LookedUp`.
    LookUp {
        /// Who asked.
        to: NodeId,
        /// In which repository.
        repository: RepoName,
        /// What is asked for.
        digests: Vec<Digest>,
    },
    /// Read and decode an artifact index that is held. Answered by `IndexRead`.
    ReadIndex {
        /// Its hash.
        hash: Hash,
    },
    /// The catalog changed: update what is looked up.
    Catalog(Change),
    /// Tell whoever cares.
    Notify(Event),
    /// End all sessions with a member. Answered by `PeerDown`.
    Hangup {
        /// With whom.
        peer: NodeId,
    },
    /// What is kept on disk under these keys may go: the catalog has no room for it.
    Forget {
        /// Of which records.
        keys: Vec<Key>,
    },
}

/// A write of records; chosen by the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

impl WriteId {
    /// Writes of which nothing follows, whether they become durable or not: an answer is not needed, and changes nothing.
    /// Any number of them have this name.
    pub const UNANSWERED: WriteId = WriteId(0);
}

/// Content of an upstream: a manifest or a blob, by the repository through which clients see it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// `<namespace>/<path at the upstream>`.
    pub repository: RepoName,
    /// What.
    pub digest: Digest,
}

/// What came of reading a blob that a member said to have some digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It has.
    Holds,
    /// It has another one.
    Fails,
    /// The disk failed; the text is for people.
    Storage(String),
}

/// Why a download from an upstream came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullFailure {
    /// The upstream does not have it, or does not give it to this node.
    Unknown,
    /// The upstream cannot be reached, or wants to be left alone for a while; the text is for people.
    Away(String),
    /// The upstream sent something else; the text is for people.
    Wrong(String),
    /// The disk failed; the text is for people.
    Storage(String),
}

/// A blob as an artifact index names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobRef {
    /// What clients name it by.
    pub digest: Digest,
    /// What peers transfer and verify by.
    pub hash: Hash,
    /// Its size in bytes.
    pub size: u64,
}

/// Where to open a session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DialTarget {
    /// Whoever is there (a join address, mDNS).
    Address(String),
    /// This node, at any of these addresses.
    Node(NodeId, Vec<String>),
}

/// For whom bytes are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A client waits for them.
    Client,
    /// Nobody waits: a closure, a policy, a repair.
    Background,
}

/// Why a fetch ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The holder does not have it, is gone or is too slow.
    Peer,
    /// The holder sent bytes that do not match the hash.
    Lied,
    /// This node could not store it.
    Local,
    /// This node may not fetch it from another site now. [`Input::Budget`] has said so before.
    Budget,
}

/// Moments that the replica asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Look whom to dial.
    Dial,
    /// Start a reconciliation with some member.
    Reconcile,
    /// Look after wants that stand still.
    Wants,
    /// Look after what is asked of members before an upstream is.
    Pulls,
    /// Tell those who want the same how far it is.
    Sharing,
    /// Look what policies want here.
    Policies,
}
