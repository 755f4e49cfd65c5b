//! Records: small signed facts that are gossiped. This file owns the envelope, its bytes, what makes a
//! record count ([`Record::check`]) and which of two wins ([`Record::beats`]). What is known is the
//! catalog's.

use alloc::{string::String, sync::Arc, vec::Vec};
use core::cmp::Ordering;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    body::{
        ArtifactBody, ArtifactPlace, HoldingBody, LinkBody, NodeBody, SightingBody, StatusBody, SummaryBody,
        TagBody,
    },
    grant::{Action, Grant, signature_bytes},
    id::{Digest, MeshId, NodeId, RepoName, Tag},
    index::ArtifactIndex,
    policy::{self, PolicyBody},
    time::Wall,
};

/// What a record is about. Kinds that this version does not know are stored, reconciled and forwarded,
/// and never acted on, so that a fleet can be upgraded node by node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Kind(pub u16);

impl Kind {
    /// [`TagBody`].
    pub const TAG: Kind = Kind(1);
    /// [`StatusBody`].
    pub const STATUS: Kind = Kind(2);
    /// [`HoldingBody`].
    pub const HOLDING: Kind = Kind(3);
    /// [`NodeBody`].
    pub const NODE: Kind = Kind(4);
    /// A [`Grant`] itself, for the node that it is given to.
    pub const GRANT: Kind = Kind(5);
    /// [`ArtifactBody`].
    pub const ARTIFACT: Kind = Kind(6);
    /// [`LinkBody`].
    pub const LINK: Kind = Kind(7);
    /// [`SightingBody`].
    pub const SIGHTING: Kind = Kind(8);
    /// [`PolicyBody`].
    pub const POLICY: Kind = Kind(9);
    /// [`crate::body::LeaseBody`] or [`crate::body::PinBody`]: what a node notes for itself and never sends.
    pub const LOCAL: Kind = Kind(10);
    /// [`SummaryBody`].
    pub const SUMMARY: Kind = Kind(11);

    /// Whether this version knows what it means.
    pub fn is_known(self) -> bool {
        (1..=11).contains(&self.0)
    }
}

/// What a record is about, exactly: of two records with one key, one replaces the other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// The kind.
    pub kind: Kind,
    /// A repository, or a site, or empty for the whole mesh.
    pub scope: String,
    /// The name within kind and scope.
    pub name: String,
}

/// A signed fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is about.
    pub key: Key,
    /// Who signed it.
    pub author: NodeId,
    /// By what right, where the kind needs one.
    pub grant: Option<Arc<Grant>>,
    /// One more than the highest that the author had seen under this key; of a grant's record the grant's
    /// serial, so that nobody but the root decides which of two grants is the newer.
    pub version: u64,
    /// What the author's clock said: shown, and compared with the grant's end.
    pub authored: Wall,
    /// The kind's body, encoded.
    pub body: Vec<u8>,
    /// The author's, over all of the above and the mesh id.
    pub signature: [u8; 64],
}

/// Names one record's exact content: 16 bytes of hash of its key, then 16 of hash of everything. Records
/// that compete for one key lie side by side in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecordId(pub [u8; 32]);

/// Whose signatures count in a mesh.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The mesh.
    pub mesh: MeshId,
    /// Its root's public key.
    pub root: VerifyingKey,
}

/// Why a record does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not signed by its author for this mesh.
    #[error("signature does not fit the author and this mesh")]
    Signature,
    /// No grant, not by the root, not for the author, or not for what the record does.
    #[error("author has no valid grant for it")]
    Grant,
    /// Scope, name or body do not fit the kind.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// A counter that no honest author reaches.
    #[error("version {0} is absurd")]
    Version(u64),
    /// Over a size limit.
    #[error("larger than a record may be")]
    TooLarge,
    /// There is nothing wrong with it, but this node keeps no more.
    #[error("this node's catalog is full")]
    Full,
}

impl RecordError {
    /// Whether no honest member could have sent it, of whatever version: every node checks a record before
    /// it keeps or passes it on. What a kind demands may grow with versions.
    pub fn is_hostile(&self) -> bool {
        matches!(self, Self::Signature | Self::Grant | Self::Version(_) | Self::TooLarge)
    }
}

/// The record as it travels: version of the format first.
#[derive(Deserialize)]
struct Envelope {
    format: u8,
    key: Key,
    author: NodeId,
    grant: Option<Grant>,
    version: u64,
    authored: Wall,
    body: Vec<u8>,
    #[serde(with = "signature_bytes")]
    signature: [u8; 64],
}

/// The same bytes, from a record that stays where it is.
#[derive(Serialize)]
struct Unowned<'a> {
    format: u8,
    key: &'a Key,
    author: &'a NodeId,
    grant: Option<&'a Grant>,
    version: u64,
    authored: Wall,
    body: &'a [u8],
    #[serde(with = "signature_bytes")]
    signature: [u8; 64],
}

const FORMAT: u8 = 1;

impl Record {
    /// Longest body in bytes.
    pub const MAX_BODY: usize = 16 * 1024;
    /// Longest name in bytes: two digests of the longest kind and a separator fit.
    pub const MAX_NAME: usize = 320;
    /// Versions from here on are refused. At a thousand writes a second it takes 8,900 years.
    pub const MAX_VERSION: u64 = 1 << 48;

    /// Makes and signs a record.
    pub fn author<B: Serialize>(
        mesh: &MeshId,
        author: &SigningKey,
        grant: Option<Arc<Grant>>,
        key: Key,
        version: u64,
        authored: Wall,
        body: &B,
    ) -> Self {
        let body = Self::encode_body(body);
        let id = NodeId(author.verifying_key().to_bytes());
        let mut record = Record { key, author: id, grant, version, authored, body, signature: [0; 64] };
        record.signature = author.sign(&record.signed_bytes(mesh)).to_bytes();
        record
    }

    /// Whether it counts in this mesh: a function of the record's own bytes and the root key, so that all
    /// nodes agree whatever they heard in which order.
    pub fn check(&self, trust: &Trust) -> Result<(), RecordError> {
        self.check_bounds()?;
        let author = VerifyingKey::from_bytes(&self.author.0).map_err(|_| RecordError::Signature)?;
        self.check_meaning(trust)?;
        // Of any kind, also one that needs none or is unknown here: catalogs learn grants from records.
        if self.grant.as_ref().is_some_and(|grant| !grant.is_signed_by(&trust.mesh, &trust.root)) {
            return Err(RecordError::Grant);
        }
        author
            .verify_strict(&self.signed_bytes(&trust.mesh), &Signature::from_bytes(&self.signature))
            .map_err(|_| RecordError::Signature)
    }

    /// Which of two records with one key wins: the higher counter, then the higher author key, then the
    /// higher content hash. Total, and the same everywhere. Of two grants with one serial, both of the root's
    /// making, the author of a record that passes one on has no say: their bytes decide first.
    pub fn beats(&self, other: &Record) -> bool {
        self.order(other).then_with(|| self.id().cmp(&other.id())).is_gt()
    }

    /// The order in which one of two records with one key wins, as far as that can be told without hashing.
    pub(crate) fn order(&self, other: &Record) -> Ordering {
        let of_grants = self.key.kind == Kind::GRANT && other.key.kind == Kind::GRANT;
        let bodies = || if of_grants { self.body.cmp(&other.body) } else { Ordering::Equal };
        let order = self.version.cmp(&other.version).then_with(bodies);
        order.then_with(|| self.author.cmp(&other.author))
    }

    /// The record's name by content.
    pub fn id(&self) -> RecordId {
        self.id_of(&self.encode())
    }

    /// The same, of a record that was encoded to these bytes.
    pub(crate) fn id_of(&self, bytes: &[u8]) -> RecordId {
        let mut id = [0; 32];
        id[..16].copy_from_slice(&self.key.prefix());
        id[16..].copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
        RecordId(id)
    }

    /// The body, if it is one of this type in canonical form.
    pub fn read<B: DeserializeOwned + Serialize>(&self) -> Result<B, RecordError> {
        let body: B = postcard::from_bytes(&self.body).map_err(|_| RecordError::Malformed("body"))?;
        match postcard::to_allocvec(&body) {
            Ok(again) if again == self.body => Ok(body),
            _ => Err(RecordError::Malformed("body is not in canonical form")),
        }
    }

    /// A body's bytes within a record.
    pub fn encode_body<B: Serialize>(body: &B) -> Vec<u8> {
        postcard::to_allocvec(body).expect("plain data always encodes")
    }

    /// The bytes that are sent, stored and hashed.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("plain data always encodes")
    }

    /// Reads what [`Self::encode`] wrote, and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let record: Record = postcard::from_bytes(bytes).map_err(|_| RecordError::Malformed("record"))?;
        if record.encode() != bytes {
            return Err(RecordError::Malformed("record is not in canonical form"));
        }
        Ok(record)
    }

    /// The repository that the key names.
    pub fn repository(&self) -> Result<RepoName, RecordError> {
        self.key.scope.parse().map_err(|_| RecordError::Malformed("scope is not a repository"))
    }

    /// The site within which it is kept, compared and sent, where that is not the whole mesh.
    pub fn site(&self) -> Option<&str> {
        (self.key.kind == Kind::HOLDING).then_some(self.key.scope.as_str())
    }

    /// The digest that the key names.
    pub fn named_digest(&self) -> Result<Digest, RecordError> {
        self.key.name.parse().map_err(|_| RecordError::Malformed("name is not a digest"))
    }

    /// The tag that the key names.
    pub fn named_tag(&self) -> Result<Tag, RecordError> {
        self.key.name.parse().map_err(|_| RecordError::Malformed("name is not a tag"))
    }

    fn check_bounds(&self) -> Result<(), RecordError> {
        let too_long = self.body.len() > Self::MAX_BODY
            || self.key.name.len() > Self::MAX_NAME
            || self.key.scope.len() > RepoName::MAX;
        if too_long {
            return Err(RecordError::TooLarge);
        }
        if self.version == 0 || self.version >= Self::MAX_VERSION {
            return Err(RecordError::Version(self.version));
        }
        Ok(())
    }

    /// What each kind demands of scope, name, body and grant.
    fn check_meaning(&self, trust: &Trust) -> Result<(), RecordError> {
        match self.key.kind {
            Kind::TAG => {
                self.named_tag()?;
                let body: TagBody = self.read()?;
                let action = if body.target.is_some() { Action::Publish } else { Action::Delete };
                self.check_grant(action)
            }
            Kind::STATUS => {
                self.named_digest()?;
                let body: StatusBody = self.read()?;
                bounded(&body.reason, StatusBody::REASON_MAX)?;
                self.check_grant(Action::Status)
            }
            Kind::ARTIFACT => {
                self.named_digest()?;
                let body: ArtifactBody = self.read()?;
                let action = if body.place.is_some() { Action::Publish } else { Action::Delete };
                body.place.map_or(Ok(()), |place| check_place(&place))?;
                self.check_grant(action)
            }
            Kind::LINK => {
                self.named_digest()?;
                let body: LinkBody = self.read()?;
                self.check_grant(if body.removed { Action::Delete } else { Action::Publish })
            }
            Kind::HOLDING => {
                let _: HoldingBody = self.read()?;
                bounded(&self.key.scope, NodeBody::SITE_MAX)?;
                self.check_holder()
            }
            Kind::SUMMARY => {
                let _: SummaryBody = self.read()?;
                if !self.key.scope.is_empty() {
                    return Err(RecordError::Malformed("summary with a scope"));
                }
                self.check_holder()
            }
            Kind::NODE => {
                let body: NodeBody = self.read()?;
                check_node(&body)?;
                let own = self.key.name.parse() == Ok(self.author) && self.key.scope.is_empty();
                let many = body.addresses.len() > NodeBody::ADDRESSES_MAX
                    || body.labels.len() > NodeBody::LABELS_MAX;
                if !own || many {
                    return Err(RecordError::Malformed("node record of another node"));
                }
                Ok(())
            }
            Kind::SIGHTING => {
                let _: SightingBody = self.read()?;
                self.repository()?;
                let own = sighting_name(&self.key.name).is_some_and(|(_, node)| node == self.author);
                if !own {
                    return Err(RecordError::Malformed("sighting of another node"));
                }
                self.grant.as_ref().map_or(Ok(()), |_| self.check_grant(Action::Publish))
            }
            Kind::GRANT => self.check_grant_record(trust),
            Kind::POLICY => self.check_policy(),
            Kind::LOCAL => Err(RecordError::Malformed("a node's own notes are of no use to others")),
            _ => Ok(()),
        }
    }

    /// Of what it holds each node speaks for itself.
    fn check_holder(&self) -> Result<(), RecordError> {
        let own = holding_name(&self.key.name).is_some_and(|(_, node)| node == self.author);
        if own { Ok(()) } else { Err(RecordError::Malformed("holding of another node")) }
    }

    fn check_grant_record(&self, trust: &Trust) -> Result<(), RecordError> {
        let grant: Grant = self.read()?;
        if self.key.name != grant.name() || !self.key.scope.is_empty() {
            return Err(RecordError::Malformed("grant under another name"));
        }
        if self.version != grant.serial {
            return Err(RecordError::Malformed("grant under another version than its serial"));
        }
        if !grant.is_signed_by(&trust.mesh, &trust.root) {
            return Err(RecordError::Grant);
        }
        Ok(())
    }

    fn check_policy(&self) -> Result<(), RecordError> {
        let body: PolicyBody = self.read()?;
        let name: Result<RepoName, _> = self.key.name.parse();
        if name.is_err() || !self.key.scope.is_empty() {
            return Err(RecordError::Malformed("policy's name"));
        }
        body.policy.as_ref().map_or(Ok(()), |policy| policy.check().map_err(RecordError::Malformed))?;
        let grant = self.grant.as_deref().ok_or(RecordError::Grant)?;
        let covered = policy::covers(grant, &self.key.name, body.policy.as_ref(), self.authored);
        if grant.subject == self.author && covered { Ok(()) } else { Err(RecordError::Grant) }
    }

    /// Whether the grant covers what the record does. That the root signed it is checked for all kinds.
    fn check_grant(&self, action: Action) -> Result<(), RecordError> {
        let repository = self.repository()?;
        let grant = self.grant.as_deref().ok_or(RecordError::Grant)?;
        let fits = grant.subject == self.author && grant.allows(action, repository.as_str(), self.authored);
        if fits { Ok(()) } else { Err(RecordError::Grant) }
    }

    fn signed_bytes(&self, mesh: &MeshId) -> Vec<u8> {
        let unsigned = Unowned { signature: [0; 64], ..self.envelope() };
        let mut bytes = b"waystation record v1\0".to_vec();
        bytes.extend(mesh.0);
        bytes.extend(postcard::to_allocvec(&unsigned).expect("plain data always encodes"));
        bytes
    }

    fn envelope(&self) -> Unowned<'_> {
        Unowned {
            format: FORMAT,
            key: &self.key,
            author: &self.author,
            grant: self.grant.as_deref(),
            version: self.version,
            authored: self.authored,
            body: &self.body,
            signature: self.signature,
        }
    }
}

impl Key {
    /// The key of a tag.
    pub fn tag(repository: &RepoName, tag: &Tag) -> Self {
        Key { kind: Kind::TAG, scope: repository.as_str().into(), name: tag.as_str().into() }
    }

    /// The key of an artifact in a repository.
    pub fn artifact(repository: &RepoName, manifest: &Digest) -> Self {
        Key { kind: Kind::ARTIFACT, scope: repository.as_str().into(), name: alloc::format!("{manifest}") }
    }

    /// The key of a blob that was taken out of a repository.
    pub fn link(repository: &RepoName, blob: &Digest) -> Self {
        Key { kind: Kind::LINK, scope: repository.as_str().into(), name: alloc::format!("{blob}") }
    }

    /// The key of an artifact's status.
    pub fn status(repository: &RepoName, manifest: &Digest) -> Self {
        Key { kind: Kind::STATUS, scope: repository.as_str().into(), name: alloc::format!("{manifest}") }
    }

    /// The key of what a node of a site holds of an artifact.
    pub fn holding(site: &str, manifest: &Digest, node: &NodeId) -> Self {
        Key { kind: Kind::HOLDING, scope: site.into(), name: alloc::format!("{manifest}/{node}") }
    }

    /// The key of what a node tells other sites of an artifact.
    pub fn summary(manifest: &Digest, node: &NodeId) -> Self {
        Key { kind: Kind::SUMMARY, scope: String::new(), name: alloc::format!("{manifest}/{node}") }
    }

    /// The key of what a node saw an upstream's tag point at.
    pub fn sighting(repository: &RepoName, tag: &Tag, node: &NodeId) -> Self {
        let name = alloc::format!("{tag}/{node}");
        Key { kind: Kind::SIGHTING, scope: repository.as_str().into(), name }
    }

    /// The key of a node.
    pub fn node(node: &NodeId) -> Self {
        Key { kind: Kind::NODE, scope: String::new(), name: alloc::format!("{node}") }
    }

    /// The key of a grant.
    pub fn grant(grant: &Grant) -> Self {
        Key { kind: Kind::GRANT, scope: String::new(), name: grant.name() }
    }

    /// The key of a policy.
    pub fn policy(name: &RepoName) -> Self {
        Key { kind: Kind::POLICY, scope: String::new(), name: name.as_str().into() }
    }

    /// The first half of the ids of all records with this key.
    pub fn prefix(&self) -> [u8; 16] {
        let bytes = postcard::to_allocvec(self).expect("plain data always encodes");
        let mut prefix = [0; 16];
        prefix.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..16]);
        prefix
    }
}

/// The artifact and the node that a holding's or a summary's name speaks of.
pub fn holding_name(name: &str) -> Option<(Digest, NodeId)> {
    let (digest, node) = name.split_once('/')?;
    Some((digest.parse().ok()?, node.parse().ok()?))
}

/// The tag and the node that a sighting's name speaks of.
pub fn sighting_name(name: &str) -> Option<(Tag, NodeId)> {
    let (tag, node) = name.split_once('/')?;
    Some((tag.parse().ok()?, node.parse().ok()?))
}

fn bounded(text: &str, max: usize) -> Result<(), RecordError> {
    if text.len() > max { Err(RecordError::TooLarge) } else { Ok(()) }
}

/// That a node says no more of itself than fits.
fn check_node(body: &NodeBody) -> Result<(), RecordError> {
    bounded(&body.site, NodeBody::SITE_MAX)?;
    bounded(&body.software, 64)?;
    bounded(&body.region, 63)?;
    body.addresses.iter().try_for_each(|address| bounded(address, 255))?;
    let mut labels = body.labels.iter().flat_map(|(key, value)| [key, value]);
    labels.try_for_each(|text| bounded(text, 63))
}

/// Nobody should be made to fetch what no node could have pushed.
fn check_place(place: &ArtifactPlace) -> Result<(), RecordError> {
    bounded(&place.media_type, 255)?;
    let too_large = place.manifest_size > ArtifactPlace::MANIFEST_MAX
        || place.index_size > ArtifactIndex::MAX_BYTES as u64;
    if too_large { Err(RecordError::TooLarge) } else { Ok(()) }
}

impl Serialize for Record {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.envelope().serialize(s)
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let Envelope { format, key, author, grant, version, authored, body, signature } =
            Envelope::deserialize(d)?;
        if format != FORMAT {
            return Err(serde::de::Error::custom("record of an unknown format"));
        }
        Ok(Record { key, author, grant: grant.map(Arc::new), version, authored, body, signature })
    }
}
