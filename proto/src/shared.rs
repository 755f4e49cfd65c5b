//! A record as it is kept and passed on: one body, however many places have it, and with it what follows from its
//! bytes alone (its id, its length, what it says), worked out once. Owns nothing of what a record means: that is
//! [`crate::record`]'s and [`crate::body`]'s.

use alloc::{boxed::Box, sync::Arc};
use core::{
    fmt,
    ops::Deref,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use serde::{Deserialize, Serialize};

use crate::{
    body::{
        ArtifactBody, ArtifactPlace, HoldingBody, HoldingState, NodeBody, SummaryBody, TagBody, site_number,
    },
    catalog::change_of,
    event::{Change, Told},
    grant::Grant,
    id::{Digest, MeshId, NodeId, RepoName},
    reconcile::{Position, position},
    record::{Kind, Record, RecordError, RecordId, Trust, holding_name},
    surplus::weight,
};

/// A record that cannot change any more. Clones share it.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

struct Inner {
    id: RecordId,
    /// Of the encoded record.
    size: usize,
    /// By which mesh's key it was found to count; 0 where it was not looked at yet.
    ///
    /// A plain word without any order to other memory will do: whether a record counts follows from its bytes and
    /// the mesh, neither of which can change, so whoever reads an old value only does the work once more.
    checked: AtomicUsize,
    said: Said,
    record: Record,
}

/// What a record says, of the kinds that decisions ask for all the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// [`Kind::HOLDING`] or [`Kind::SUMMARY`].
    Holding {
        /// The artifact.
        manifest: Digest,
        /// Who.
        node: NodeId,
        /// How much of it.
        state: HoldingState,
        /// Of a summary, how many nodes of the site have all of it.
        copies: Option<u16>,
    },
    /// [`Kind::NODE`].
    Node {
        /// What it says of itself.
        body: Arc<NodeBody>,
        /// Where it stands among the nodes of its site, see [`weight`].
        weight: [u8; 8],
        /// Its site, see [`site_number`].
        site: u64,
    },
    /// [`Kind::ARTIFACT`].
    Artifact(Box<Artifact>),
    /// [`Kind::TAG`]: where it points.
    Tag(Option<Digest>),
    /// [`Kind::GRANT`].
    Grant(Arc<Grant>),
    /// Another kind, or it is malformed.
    Other,
}

/// What a record of an artifact says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// In which repository.
    pub repository: RepoName,
    /// Its manifest.
    pub manifest: Digest,
    /// Hashes and sizes, or nothing where it was deleted.
    pub place: Option<ArtifactPlace>,
}

impl Shared {
    /// Makes a record one that can be shared.
    pub fn new(record: Record) -> Self {
        let bytes = record.encode();
        let (id, size) = (record.id_of(&bytes), bytes.len());
        let said = Said::of(&record).unwrap_or(Said::Other);
        Shared(Arc::new(Inner { id, size, checked: AtomicUsize::new(0), said, record }))
    }

    /// The record's name by content, see [`Record::id`].
    pub fn id(&self) -> RecordId {
        self.0.id
    }

    /// Where it stands in the order in which catalogs are compared.
    pub fn position(&self) -> Position {
        position(&self.0.id)
    }

    /// The number of bytes that [`Record::encode`] gives.
    pub fn size(&self) -> usize {
        self.0.size
    }

    /// What it says.
    pub fn said(&self) -> &Said {
        &self.0.said
    }

    /// What the record changes in what is looked up, see [`change_of`].
    ///
    /// # Errors
    ///
    /// Where the body does not fit the kind.
    pub fn change(&self) -> Result<Option<Change>, RecordError> {
        Ok(Some(match &self.0.said {
            Said::Holding { manifest, node, state, copies } => {
                let told = copies.map_or_else(|| Told::Site(self.key.scope.clone()), Told::Mesh);
                Change::Holding { manifest: *manifest, node: *node, state: *state, told }
            }
            Said::Node { body, .. } => Change::Node { node: self.author, body: body.clone() },
            Said::Artifact(artifact) => {
                let Artifact { repository, manifest, place } = (**artifact).clone();
                Change::Artifact { repository, manifest, place }
            }
            Said::Tag(_) | Said::Grant(_) | Said::Other => return change_of(self),
        }))
    }

    /// [`Record::check`], done once for all who share the record. A mesh is told from others by the first bytes
    /// of its id: no process knows so many that two of them begin alike.
    ///
    /// # Errors
    ///
    /// As [`Record::check`]; what does not count is looked at anew each time.
    pub fn check(&self, trust: &Trust) -> Result<(), RecordError> {
        let mesh = mark(&trust.mesh);
        if self.0.checked.load(Relaxed) != mesh {
            self.0.record.check(trust)?;
            self.0.checked.store(mesh, Relaxed);
        }
        Ok(())
    }

    /// [`Record::beats`], without hashing.
    pub fn beats(&self, other: &Shared) -> bool {
        self.0.record.order(other).then_with(|| self.0.id.cmp(&other.0.id)).is_gt()
    }

    /// Has it rest on an equal grant that others rest on already, so that memory has it once. Does nothing where
    /// the record is shared: then its grant is too.
    pub(crate) fn rest_on(&mut self, grant: &Arc<Grant>) {
        if let Some(inner) = Arc::get_mut(&mut self.0)
            && inner.record.grant.as_ref() == Some(grant)
        {
            inner.record.grant = Some(grant.clone());
        }
    }
}

impl Said {
    fn of(record: &Record) -> Result<Self, RecordError> {
        Ok(match record.key.kind {
            Kind::HOLDING | Kind::SUMMARY => {
                let name = holding_name(&record.key.name);
                let (manifest, node) = name.ok_or(RecordError::Malformed("holding's name"))?;
                let (state, copies) = if record.key.kind == Kind::HOLDING {
                    (record.read::<HoldingBody>()?.state, None)
                } else {
                    let SummaryBody { state, copies } = record.read()?;
                    (state, Some(copies))
                };
                Said::Holding { manifest, node, state, copies }
            }
            Kind::NODE => {
                let body: NodeBody = record.read()?;
                let (weight, site) = (weight(&body.site, &record.author), site_number(&body.site));
                Said::Node { body: Arc::new(body), weight, site }
            }
            Kind::ARTIFACT => {
                let (repository, manifest) = (record.repository()?, record.named_digest()?);
                let place = record.read::<ArtifactBody>()?.place;
                Said::Artifact(Box::new(Artifact { repository, manifest, place }))
            }
            Kind::TAG => Said::Tag(record.read::<TagBody>()?.target),
            Kind::GRANT => Said::Grant(Arc::new(record.read()?)),
            _ => Said::Other,
        })
    }
}

/// Never 0.
fn mark(mesh: &MeshId) -> usize {
    let mut first = [0; size_of::<usize>()];
    first.copy_from_slice(&mesh.0[..size_of::<usize>()]);
    usize::from_le_bytes(first) | 1
}

impl Deref for Shared {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.0.record
    }
}

impl From<Record> for Shared {
    fn from(record: Record) -> Self {
        Shared::new(record)
    }
}

impl From<&Record> for Shared {
    fn from(record: &Record) -> Self {
        Shared::new(record.clone())
    }
}

impl From<&Shared> for Shared {
    fn from(record: &Shared) -> Self {
        record.clone()
    }
}

impl PartialEq for Shared {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.0.id == other.0.id && self.0.record == other.0.record)
    }
}

impl Eq for Shared {}

impl PartialEq<Record> for Shared {
    fn eq(&self, other: &Record) -> bool {
        self.0.record == *other
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.record.fmt(f)
    }
}

impl Serialize for Shared {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.record.serialize(s)
    }
}

impl<'de> Deserialize<'de> for Shared {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Record::deserialize(d).map(Shared::new)
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::{record::Key, time::Wall};

    fn trust(n: u8) -> Trust {
        let root = SigningKey::from_bytes(&[n; 32]).verifying_key();
        Trust { mesh: MeshId::of_root(&NodeId(root.to_bytes())), root }
    }

    fn record(mesh: &MeshId, version: u64) -> Record {
        let key = SigningKey::from_bytes(&[3; 32]);
        let (manifest, node) = (Digest::Sha256([5; 32]), NodeId(key.verifying_key().to_bytes()));
        let body = HoldingBody { state: HoldingState::Complete };
        Record::author(mesh, &key, None, Key::holding("here", &manifest, &node), version, Wall(9), &body)
    }

    #[test]
    fn what_is_worked_out_once_is_what_the_record_gives() {
        let (one, two) = (record(&trust(1).mesh, 1), record(&trust(1).mesh, 2));
        let shared = Shared::new(one.clone());
        assert_eq!((shared.id(), shared.size()), (one.id(), one.encode().len()));
        assert_eq!(shared.change(), change_of(&one));
        assert_eq!(shared, one);
        assert_eq!(postcard::to_allocvec(&shared), postcard::to_allocvec(&one));
        for (a, b) in [(&one, &two), (&two, &one), (&one, &one)] {
            assert_eq!(Shared::from(a).beats(&Shared::from(b)), a.beats(b));
        }
        let malformed = Record { body: alloc::vec![77], ..one };
        assert_eq!(Shared::from(&malformed).change(), change_of(&malformed));
    }

    #[test]
    fn is_checked_once_for_each_mesh_and_for_no_other() {
        let (ours, others) = (trust(1), trust(2));
        let shared = Shared::new(record(&ours.mesh, 1));
        let counts = |trust: &Trust| shared.check(trust).is_ok();
        assert!(!counts(&others) && counts(&ours) && counts(&ours) && !counts(&others));
        assert_eq!(shared.0.checked.load(Relaxed), mark(&ours.mesh));
        let forged = Shared::new(Record { version: 2, ..Record::clone(&shared) });
        assert_eq!(forged.check(&ours), Err(RecordError::Signature));
        assert_eq!(forged.check(&ours), Err(RecordError::Signature));
    }
}
