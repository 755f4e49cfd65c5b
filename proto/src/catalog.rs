//! The catalog: every record that counts, one for each key, in the order in which catalogs are compared.
//! Owns which record replaces which and the lookups that decisions need. What a driver looks up for its
//! clients is the driver's index, fed by [`change_of`].

use alloc::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    vec::Vec,
};
use core::ops::RangeInclusive;

use crate::{
    body::{ArtifactBody, ArtifactPlace, HoldingBody, HoldingState, LinkBody, NodeBody, StatusBody, TagBody},
    event::Change,
    grant::{Action, Grant},
    id::{Digest, NodeId, RepoName, Tag},
    policy::PolicyBody,
    quota::{Quota, Shares},
    reconcile::{Position, Sum, position},
    record::{Key, Kind, Record, RecordError, RecordId, holding_name, sighting_name},
    time::Wall,
};

/// Every record that counts.
#[derive(Debug, Default)]
pub struct Catalog {
    records: BTreeMap<Position, Entry>,
    /// Sums of the ids that share their first byte: comparing whole catalogs costs 256 additions.
    sums: BTreeMap<u8, Sum>,
    total: Sum,
    unknown: usize,
    /// What authors have of their quotas.
    shares: Shares,
    /// Records that had to go since that was last asked.
    evicted: Vec<Record>,
    /// Grants seen, so that records that rest on one share it in memory.
    grants: BTreeMap<GrantName, Arc<Grant>>,
    holders: BTreeMap<Digest, BTreeMap<NodeId, HoldingState>>,
    /// What nodes say about themselves.
    nodes: BTreeMap<NodeId, NodeBody>,
    /// In which repositories an artifact is.
    repositories: BTreeMap<Digest, BTreeSet<RepoName>>,
    /// What is about an artifact, and in which repository.
    referrers: BTreeMap<Digest, BTreeSet<(RepoName, Digest)>>,
}

/// Subject, serial and signature: two grants of one serial are two grants.
type GrantName = (NodeId, u64, [u8; 64]);

#[derive(Debug)]
struct Entry {
    record: Record,
    id: RecordId,
}

/// What became of a record that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is new, or replaced what was known.
    New,
    /// It is what was known already.
    Same,
    /// Something newer is known.
    Stale,
    /// The catalog has reached a limit; it is not taken.
    Full,
}

/// How much a catalog takes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records in all.
    pub records: usize,
    /// Records of kinds unknown here.
    pub unknown: usize,
    /// Records of one author.
    pub by_author: Quota,
}

impl Catalog {
    /// Takes a record in, which the caller has checked.
    pub fn apply(&mut self, mut record: Record, limits: Limits) -> Applied {
        let id = record.id();
        let at = position(&id);
        match self.records.get(&at) {
            Some(known) if known.id == id => return Applied::Same,
            Some(known) if known.record.key != record.key || !record.beats(&known.record) => {
                return Applied::Stale;
            }
            _ if !self.has_room(&record, limits) => return Applied::Full,
            _ => {}
        }
        self.take_out(at);
        self.share_grant(&mut record);
        self.note(&record);
        self.shares.add(&record, at);
        self.unknown += usize::from(!record.key.kind.is_known());
        let (author, kind) = (record.author, record.key.kind);
        self.records.insert(at, Entry { record, id });
        self.total.add(&id);
        self.sums.entry(id.0[0]).or_default().add(&id);
        if let Some(surplus) = self.shares.surplus(&limits.by_author, author, kind)
            && let Some(record) = self.take_out(surplus)
        {
            self.forget(&record);
            self.evicted.push(record);
        }
        Applied::New
    }

    /// Whether a record would be taken in if it is newer than what is known.
    pub fn has_room(&self, record: &Record, limits: Limits) -> bool {
        let known = self.get(&record.key);
        let unknown = !record.key.kind.is_known();
        let full = self.records.len() >= limits.records || (unknown && self.unknown >= limits.unknown);
        let replaces_own = known.is_some_and(|known| known.author == record.author);
        let at = Position::from_be_bytes(record.key.prefix());
        (!full || known.is_some()) && (replaces_own || self.shares.has_room(&limits.by_author, record, at))
    }

    /// Records that had to go for others of the same author since this was last asked.
    pub fn take_evicted(&mut self) -> Vec<Record> {
        core::mem::take(&mut self.evicted)
    }

    /// The highest counter that an author has used for records that are counted together with this kind.
    pub fn highest(&self, author: NodeId, kind: Kind) -> u64 {
        self.shares.highest(author, kind)
    }

    /// Of how many artifacts a node has something, as far as is known.
    pub fn held_by(&self, node: &NodeId) -> usize {
        self.holders.values().filter(|holders| holders.contains_key(node)).count()
    }

    fn take_out(&mut self, at: Position) -> Option<Record> {
        let Entry { record, id } = self.records.remove(&at)?;
        self.total.remove(&id);
        self.sums.entry(id.0[0]).or_default().remove(&id);
        self.shares.remove(&record, at);
        self.unknown -= usize::from(!record.key.kind.is_known());
        Some(record)
    }

    /// Undoes the lookups of a record that had to go.
    fn forget(&mut self, record: &Record) {
        if let Ok(Some(Change::Holding { manifest, node, .. })) = change_of(record)
            && let Some(holders) = self.holders.get_mut(&manifest)
        {
            holders.remove(&node);
            if holders.is_empty() {
                self.holders.remove(&manifest);
            }
        }
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The record under a key.
    pub fn get(&self, key: &Key) -> Option<&Record> {
        let entry = self.records.get(&Position::from_be_bytes(key.prefix()))?;
        (entry.record.key == *key).then_some(&entry.record)
    }

    /// The record with an id, if it is still the one that counts.
    pub fn by_id(&self, id: &RecordId) -> Option<&Record> {
        self.records.get(&position(id)).filter(|entry| entry.id == *id).map(|entry| &entry.record)
    }

    /// Every record.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.records.values().map(|entry| &entry.record)
    }

    /// The ids in a part of the catalog, ascending.
    pub fn ids(&self, range: RangeInclusive<Position>) -> impl Iterator<Item = RecordId> + '_ {
        self.records.range(range).map(|(_, entry)| entry.id)
    }

    /// The sum over a part of the catalog, from the sums of whole first bytes where they fit.
    pub fn sum(&self, range: RangeInclusive<Position>) -> Sum {
        if range == (0..=Position::MAX) {
            return self.total;
        }
        let (from, to) = range.into_inner();
        let (first, last) = ((from >> BYTE_SHIFT) as u8, (to >> BYTE_SHIFT) as u8);
        let starts_whole = from == Position::from(first) << BYTE_SHIFT;
        let ends_whole = to == (Position::from(last) << BYTE_SHIFT | LOW_BITS);
        let mut sum = Sum::default();
        if first == last && !(starts_whole && ends_whole) {
            self.ids(from..=to).for_each(|id| sum.add(&id));
            return sum;
        }
        let whole_from = u16::from(first) + u16::from(!starts_whole);
        let whole_to = u16::from(last) + u16::from(ends_whole);
        for byte in whole_from..whole_to {
            if let Some(part) = self.sums.get(&(byte as u8)) {
                sum.add_sum(part);
            }
        }
        if !starts_whole {
            self.ids(from..=(Position::from(first) << BYTE_SHIFT | LOW_BITS)).for_each(|id| sum.add(&id));
        }
        if !ends_whole {
            self.ids(Position::from(last) << BYTE_SHIFT..=to).for_each(|id| sum.add(&id));
        }
        sum
    }

    /// Where a tag points; nowhere if it was deleted or never was.
    pub fn tag(&self, repository: &RepoName, tag: &Tag) -> Option<Digest> {
        self.get(&Key::tag(repository, tag))?.read::<TagBody>().ok()?.target
    }

    /// An artifact's hashes in a repository.
    pub fn artifact(&self, repository: &RepoName, manifest: &Digest) -> Option<ArtifactPlace> {
        self.get(&Key::artifact(repository, manifest))?.read::<ArtifactBody>().ok()?.place
    }

    /// Whether a blob was taken out of a repository.
    pub fn is_unlinked(&self, repository: &RepoName, blob: &Digest) -> bool {
        let body = self.get(&Key::link(repository, blob)).and_then(|record| record.read::<LinkBody>().ok());
        body.is_some_and(|body| body.removed)
    }

    /// In which repositories an artifact is.
    pub fn repositories(&self, manifest: &Digest) -> impl Iterator<Item = &RepoName> {
        self.repositories.get(manifest).into_iter().flatten()
    }

    /// The artifacts of a repository that say to be about this one.
    pub fn referrers(&self, repository: &RepoName, subject: &Digest) -> impl Iterator<Item = Digest> {
        let all = self.referrers.get(subject).into_iter().flatten();
        all.filter(move |(within, _)| within == repository).map(|(_, manifest)| *manifest)
    }

    /// The grants of a node, the newest first.
    pub fn grants_of(&self, node: &NodeId) -> impl Iterator<Item = &Arc<Grant>> {
        let of_node = self.grants.range((*node, 0, [0; 64])..=(*node, u64::MAX, [0xff; 64]));
        of_node.rev().map(|(_, grant)| grant)
    }

    /// Who says to hold something of an artifact.
    pub fn holders(&self, manifest: &Digest) -> impl Iterator<Item = (NodeId, HoldingState)> + '_ {
        self.holders.get(manifest).into_iter().flatten().map(|(node, state)| (*node, *state))
    }

    /// What a node says about itself.
    pub fn node(&self, node: &NodeId) -> Option<NodeBody> {
        self.nodes.get(node).cloned()
    }

    /// The site that a node says to be on.
    pub fn site_of(&self, node: &NodeId) -> Option<&str> {
        self.nodes.get(node).map(|body| body.site.as_str())
    }

    /// Every node that has said something about itself.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeId, &NodeBody)> {
        self.nodes.iter()
    }

    /// The newest grant of `node` that covers `action` in the repository at `at`, and whether there is
    /// one that would but for its end.
    pub fn grant_for(
        &self,
        node: &NodeId,
        action: Action,
        repository: &RepoName,
        at: Wall,
    ) -> (Option<Arc<Grant>>, bool) {
        let mut expired = false;
        let of_node = self.grants.range((*node, 0, [0; 64])..=(*node, u64::MAX, [0xff; 64])).rev();
        for (_, grant) in of_node {
            if grant.allows(action, repository.as_str(), at) {
                return (Some(grant.clone()), false);
            }
            expired |= grant.actions.allows(action)
                && grant.repositories.matches(repository.as_str())
                && grant.has_expired(at);
        }
        (None, expired)
    }

    fn share_grant(&mut self, record: &mut Record) {
        if record.key.kind == Kind::GRANT
            && let Ok(grant) = record.read::<Grant>()
        {
            self.grants.entry(name_of(&grant)).or_insert_with(|| Arc::new(grant));
        }
        let Some(grant) = &record.grant else { return };
        let known = self.grants.entry(name_of(grant)).or_insert_with(|| grant.clone());
        if known == grant {
            record.grant = Some(known.clone());
        }
    }

    /// Keeps the lookups beside the records.
    fn note(&mut self, record: &Record) {
        match change_of(record) {
            Ok(Some(Change::Holding { manifest, node, state })) => {
                let holders = self.holders.entry(manifest).or_default();
                if state == HoldingState::Gone {
                    holders.remove(&node);
                } else {
                    holders.insert(node, state);
                }
                if holders.is_empty() {
                    self.holders.remove(&manifest);
                }
            }
            Ok(Some(Change::Artifact { repository, manifest, place })) => {
                self.note_subject(&repository, manifest, place.as_ref());
                let repositories = self.repositories.entry(manifest).or_default();
                if place.is_some() {
                    repositories.insert(repository);
                } else {
                    repositories.remove(&repository);
                }
                if repositories.is_empty() {
                    self.repositories.remove(&manifest);
                }
            }
            Ok(Some(Change::Node { node, body })) => {
                self.nodes.insert(node, body);
            }
            _ => {}
        }
    }

    /// Called before the record is replaced: the old one tells which entry goes.
    fn note_subject(&mut self, repository: &RepoName, manifest: Digest, place: Option<&ArtifactPlace>) {
        let old = self.artifact(repository, &manifest).and_then(|place| place.subject);
        let new = place.and_then(|place| place.subject);
        if old == new {
            return;
        }
        let entry = (repository.clone(), manifest);
        if let Some(subject) = old
            && let Some(all) = self.referrers.get_mut(&subject)
        {
            all.remove(&entry);
            if all.is_empty() {
                self.referrers.remove(&subject);
            }
        }
        if let Some(subject) = new {
            self.referrers.entry(subject).or_default().insert(entry);
        }
    }
}

/// What a record of a known kind changes in what is looked up; nothing for kinds unknown here.
/// A function of the record alone, so that a driver's index can be rebuilt from stored records.
pub fn change_of(record: &Record) -> Result<Option<Change>, RecordError> {
    Ok(Some(match record.key.kind {
        Kind::TAG => Change::Tag {
            repository: record.repository()?,
            tag: record.named_tag()?,
            body: record.read()?,
            version: record.version,
            author: record.author,
            authored: record.authored,
        },
        Kind::STATUS => {
            let body: StatusBody = record.read()?;
            Change::Status {
                repository: record.repository()?,
                manifest: record.named_digest()?,
                state: body.state,
                reason: body.reason,
            }
        }
        Kind::ARTIFACT => {
            let body: ArtifactBody = record.read()?;
            Change::Artifact {
                repository: record.repository()?,
                manifest: record.named_digest()?,
                place: body.place,
            }
        }
        Kind::LINK => Change::Link {
            repository: record.repository()?,
            blob: record.named_digest()?,
            removed: record.read::<LinkBody>()?.removed,
        },
        Kind::HOLDING => {
            let (manifest, node) =
                holding_name(&record.key.name).ok_or(RecordError::Malformed("holding's name"))?;
            let body: HoldingBody = record.read()?;
            Change::Holding { manifest, node, state: body.state }
        }
        Kind::SIGHTING => {
            let (tag, node) =
                sighting_name(&record.key.name).ok_or(RecordError::Malformed("sighting's name"))?;
            let (repository, granted) = (record.repository()?, record.grant.is_some());
            Change::Sighting { repository, tag, node, body: record.read()?, granted }
        }
        Kind::NODE => Change::Node { node: record.author, body: record.read()? },
        Kind::GRANT => Change::Grant(record.read::<Grant>()?),
        Kind::POLICY => {
            let name =
                record.key.name.parse().map_err(|_| RecordError::Malformed("name is not a policy's"))?;
            Change::Policy { name, policy: record.read::<PolicyBody>()?.policy }
        }
        _ => return Ok(None),
    }))
}

fn name_of(grant: &Grant) -> GrantName {
    (grant.subject, grant.serial, grant.signature)
}

const BYTE_SHIFT: u32 = 120;
const LOW_BITS: Position = (1 << BYTE_SHIFT) - 1;
