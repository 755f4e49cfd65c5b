//! The catalog: every record that counts, one for each key, in the order in which catalogs are compared.
//! Owns which record replaces which and the lookups that decisions need. What a driver looks up for its
//! clients is the driver's index, fed by [`change_of`].

use alloc::{sync::Arc, vec::Vec};
use core::{cmp::Ordering, ops::RangeInclusive};

use crate::{
    body::{
        ArtifactBody, ArtifactPlace, HoldingBody, HoldingState, LinkBody, NodeBody, StatusBody, SummaryBody,
    },
    event::{Change, Told},
    grant::{Action, Grant},
    id::{Digest, NodeId, RepoName, Tag, first},
    lookups::Lookups,
    policy::PolicyBody,
    quota::{Quota, Shares},
    reconcile::{Position, Sum, Within, number_of, position},
    record::{Key, Kind, Record, RecordError, RecordId, holding_name, sighting_name},
    shared::{Said, Shared},
    sorted::{Numbers, Sorted},
    sums::{Split, Sums},
    time::Wall,
};

/// Every record that counts. A clone takes hardly any room until one of the two changes.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// By position.
    records: Sorted<Shared>,
    /// Over records of the whole mesh.
    mesh: Sums,
    /// Over those of the node's site.
    site: Sums,
    unknown: usize,
    /// What authors have of their quotas.
    shares: Shares,
    /// Records that had to go since that was last asked.
    evicted: Vec<Shared>,
    /// Grants seen, by subject, serial and signature, so that records that rest on one share it in memory.
    grants: Sorted<Arc<Grant>>,
    lookups: Lookups,
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

impl Limits {
    /// For what was taken in already and comes from a node's own disk.
    pub const RESTORED: Limits = Limits { records: usize::MAX, unknown: usize::MAX, by_author: Quota::MESH };
}

impl Catalog {
    /// Takes a record in, which the caller has checked.
    pub fn apply(&mut self, record: impl Into<Shared>, limits: Limits) -> Applied {
        let mut record = record.into();
        let known = self.at(record.position());
        let replaces = known.is_some();
        match known {
            Some(known) if known.id() == record.id() => return Applied::Same,
            Some(known) if known.key != record.key || !record.beats(known) => {
                return Applied::Stale;
            }
            _ if !self.has_room(&record, limits) => return Applied::Full,
            _ => {}
        }
        if replaces {
            self.take_out(&record);
        }
        self.share_grant(&mut record);
        self.learn_grants(&record);
        let id = record.id();
        self.lookups.add(&record);
        self.shares.add(&record);
        self.unknown += usize::from(!record.key.kind.is_known());
        self.sums_of(&record).add(&id);
        let (author, kind) = (record.author, record.key.kind);
        let number = number_of(record.position());
        self.records.insert(number, record, |one, other| one.position().cmp(&other.position()));
        if let Some(surplus) = self.shares.surplus(&limits.by_author, author, kind).cloned()
            && let Some(record) = self.take_out(&surplus)
        {
            self.evicted.push(record);
        }
        Applied::New
    }

    /// Has a record rest on the grant that others in here rest on, if it is the same and nobody else has the
    /// record yet: memory has it once then.
    pub fn share_grant(&self, record: &mut Shared) {
        let known = record.grant.as_ref().and_then(|grant| {
            let place = |other: &Arc<Grant>| name_of(other).cmp(&name_of(grant));
            self.grants.get(only(grant), place).filter(|known| !Arc::ptr_eq(known, grant)).cloned()
        });
        if let Some(known) = known {
            record.rest_on(&known);
        }
    }

    /// Whether a record would be taken in if it is newer than what is known.
    pub fn has_room(&self, record: &Shared, limits: Limits) -> bool {
        let unknown = !record.key.kind.is_known();
        let full = self.records.len() >= limits.records || (unknown && self.unknown >= limits.unknown);
        let within_quota = self.shares.has_room(&limits.by_author, record);
        if within_quota && !full {
            return true;
        }
        let known = self.same_key(record);
        let replaces_own = known.is_some_and(|known| known.author == record.author);
        (!full || known.is_some()) && (replaces_own || within_quota)
    }

    /// Records that had to go for others of the same author since this was last asked.
    pub fn take_evicted(&mut self) -> Vec<Shared> {
        core::mem::take(&mut self.evicted)
    }

    /// The highest counter that an author has used for records that are counted together with this kind.
    pub fn highest(&self, author: NodeId, kind: Kind) -> u64 {
        self.shares.highest(author, kind)
    }

    /// The artifacts of which a node says to have something: by [`Kind::HOLDING`] to its site, by [`Kind::SUMMARY`] to
    /// the mesh.
    pub fn held_by(&self, node: &NodeId, kind: Kind) -> impl Iterator<Item = (Digest, HoldingState)> {
        self.shares.of(*node, kind).filter_map(|record| match record.said() {
            Said::Holding { manifest, state, .. } if *state != HoldingState::Gone => {
                Some((*manifest, *state))
            }
            _ => None,
        })
    }

    /// The artifacts of which a node says to have a part, and more on its way.
    pub(crate) fn partial_at(&self, node: &NodeId) -> impl Iterator<Item = Digest> + '_ {
        self.shares.of(*node, Kind::HOLDING).filter_map(|record| match record.said() {
            Said::Holding { manifest, state: HoldingState::Partial, .. } => Some(*manifest),
            _ => None,
        })
    }

    /// The records of policies, by position.
    pub fn policies(&self) -> impl Iterator<Item = &Shared> {
        self.lookups.policies()
    }

    /// Takes out what stands where this record does.
    fn take_out(&mut self, record: &Shared) -> Option<Shared> {
        let (position, number) = (record.position(), number_of(record.position()));
        let record = self.records.remove(number..=number, |other| other.position().cmp(&position))?;
        let id = record.id();
        self.sums_of(&record).remove(&id);
        self.shares.remove(&record);
        self.lookups.remove(&record);
        self.unknown -= usize::from(!record.key.kind.is_known());
        Some(record)
    }

    fn sums_of(&mut self, record: &Record) -> &mut Sums {
        if record.site().is_some() { &mut self.site } else { &mut self.mesh }
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
    pub fn get(&self, key: &Key) -> Option<&Shared> {
        self.at(Position::from_be_bytes(key.prefix())).filter(|record| record.key == *key)
    }

    /// The record under the key of this one, which costs less to find.
    pub fn same_key(&self, record: &Shared) -> Option<&Shared> {
        self.at(record.position()).filter(|known| known.key == record.key)
    }

    fn at(&self, position: Position) -> Option<&Shared> {
        let number = number_of(position);
        self.records.get(number..=number, |record| record.position().cmp(&position))
    }

    /// The record with an id, if it is still the one that counts.
    pub fn by_id(&self, id: &RecordId) -> Option<&Shared> {
        self.at(position(id)).filter(|record| record.id() == *id)
    }

    /// Every record, by position.
    pub fn iter(&self) -> impl Iterator<Item = &Shared> {
        self.records.iter()
    }

    /// The ids in a part of the catalog, ascending.
    pub fn ids(
        &self,
        within: Within,
        range: RangeInclusive<Position>,
    ) -> impl Iterator<Item = RecordId> + '_ {
        let (from, to) = range.into_inner();
        let place = move |record: &Shared| match record.position() {
            position if position < from => Ordering::Less,
            position if position > to => Ordering::Greater,
            _ => Ordering::Equal,
        };
        let counts = move |record: &&Shared| within == Within::Site || record.site().is_none();
        self.records.range(number_of(from)..=number_of(to), place).filter(counts).map(Shared::id)
    }

    /// The sum over a part of the catalog.
    pub fn sum(&self, within: Within, range: RangeInclusive<Position>) -> Sum {
        let split = Split::of(range);
        let mut sum = self.mesh.of(&split);
        if within == Within::Site {
            sum.add_sum(&self.site.of(&split));
        }
        if !split.everything {
            split
                .ends
                .into_iter()
                .flatten()
                .for_each(|end| self.ids(within, end).for_each(|id| sum.add(&id)));
        }
        sum
    }

    /// Where a tag points; nowhere if it was deleted or never was.
    pub fn tag(&self, repository: &RepoName, tag: &Tag) -> Option<Digest> {
        match self.get(&Key::tag(repository, tag))?.said() {
            Said::Tag(target) => *target,
            _ => None,
        }
    }

    /// An artifact's hashes in a repository.
    pub fn artifact(&self, repository: &RepoName, manifest: &Digest) -> Option<ArtifactPlace> {
        self.lookups.artifact(repository, manifest).cloned()
    }

    /// Whether a blob was taken out of a repository.
    pub fn is_unlinked(&self, repository: &RepoName, blob: &Digest) -> bool {
        let body = self.get(&Key::link(repository, blob)).and_then(|record| record.read::<LinkBody>().ok());
        body.is_some_and(|body| body.removed)
    }

    /// In which repositories an artifact is.
    pub fn repositories(&self, manifest: &Digest) -> impl Iterator<Item = &RepoName> {
        self.lookups.repositories(manifest)
    }

    /// The artifacts of a repository that say to be about this one.
    pub fn referrers(&self, repository: &RepoName, subject: &Digest) -> impl Iterator<Item = Digest> {
        self.lookups.referrers(repository, subject)
    }

    /// The grants of a node, the newest first.
    pub fn grants_of(&self, node: &NodeId) -> impl Iterator<Item = &Arc<Grant>> {
        let number = first(&node.0);
        self.grants.range(number..=number, |grant| grant.subject.cmp(node)).rev()
    }

    /// Who says to hold something of an artifact: the nodes of this node's site by what they tell the site, others by
    /// what they tell the mesh.
    pub fn holders(&self, manifest: &Digest) -> impl Iterator<Item = (NodeId, HoldingState)> + '_ {
        self.lookups.holders(manifest)
    }

    /// What a node says to hold of an artifact, if that is anything.
    pub fn holding(&self, manifest: &Digest, node: &NodeId) -> Option<HoldingState> {
        self.lookups.holding(manifest, node)
    }

    /// Who tells the mesh to hold something of an artifact, and how many nodes of its site have all of it.
    pub fn summaries(&self, manifest: &Digest) -> impl Iterator<Item = (NodeId, HoldingState, u16)> {
        self.lookups.summaries(manifest)
    }

    /// What a node says about itself.
    pub fn node(&self, node: &NodeId) -> Option<&NodeBody> {
        self.lookups.node(node)
    }

    /// The site that a node says to be on.
    pub fn site_of(&self, node: &NodeId) -> Option<&str> {
        self.node(node).map(|body| body.site.as_str())
    }

    /// Where it stands among the nodes of that site, see [`weight`](crate::surplus::weight).
    pub(crate) fn weight(&self, node: &NodeId) -> Option<[u8; 8]> {
        self.lookups.weight(node)
    }

    /// The number of that site, see [`site_number`](crate::body::site_number).
    pub(crate) fn site_number(&self, node: &NodeId) -> Option<u64> {
        self.lookups.site_number(node)
    }

    /// How often a holding was added or taken out.
    pub(crate) fn holding_changes(&self) -> u64 {
        self.lookups.holding_changes()
    }

    /// How often what any node says about itself has changed: what was found out of it is good until then.
    pub(crate) fn node_changes(&self) -> u64 {
        self.lookups.node_changes()
    }

    /// Every node that has said something about itself.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeId, &NodeBody)> {
        self.lookups.nodes()
    }

    /// The nodes that say to be on a site, those first that keep its sessions with others.
    pub fn nodes_of(&self, site: &str) -> impl Iterator<Item = (&NodeId, &NodeBody)> {
        self.lookups.nodes_of(site)
    }

    /// How many nodes have said something about themselves.
    pub(crate) fn node_count(&self) -> usize {
        self.lookups.node_count()
    }

    /// The sites after that of the node with so many before it, and then from the first on: without end where
    /// there is any node.
    pub(crate) fn sites_from(&self, node: usize) -> impl Iterator<Item = &str> {
        self.lookups.sites_from(node)
    }

    /// The sites that nodes say to be on, by name.
    pub fn sites(&self) -> impl Iterator<Item = &str> {
        self.lookups.sites()
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
        for grant in self.grants_of(node) {
            if grant.allows(action, repository.as_str(), at) {
                return (Some(grant.clone()), false);
            }
            expired |= grant.actions.allows(action)
                && grant.repositories.matches(repository.as_str())
                && grant.has_expired(at);
        }
        (None, expired)
    }

    fn learn_grants(&mut self, record: &Shared) {
        let own = match record.said() {
            Said::Grant(grant) => Some(grant),
            _ => None,
        };
        for grant in own.into_iter().chain(&record.grant) {
            let place = |other: &Arc<Grant>| name_of(other).cmp(&name_of(grant));
            if self.grants.get(only(grant), place).is_none() {
                let number = first(&grant.subject.0);
                self.grants.insert(number, grant.clone(), |one, other| name_of(one).cmp(&name_of(other)));
            }
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
        Kind::HOLDING | Kind::SUMMARY => {
            let (manifest, node) =
                holding_name(&record.key.name).ok_or(RecordError::Malformed("holding's name"))?;
            let (state, told) = if record.key.kind == Kind::HOLDING {
                (record.read::<HoldingBody>()?.state, Told::Site(record.key.scope.clone()))
            } else {
                let SummaryBody { state, copies } = record.read()?;
                (state, Told::Mesh(copies))
            };
            Change::Holding { manifest, node, state, told }
        }
        Kind::SIGHTING => {
            let (tag, node) =
                sighting_name(&record.key.name).ok_or(RecordError::Malformed("sighting's name"))?;
            let (repository, granted) = (record.repository()?, record.grant.is_some());
            Change::Sighting { repository, tag, node, body: record.read()?, granted }
        }
        Kind::NODE => Change::Node { node: record.author, body: Arc::new(record.read()?) },
        Kind::GRANT => Change::Grant(record.read::<Grant>()?),
        Kind::POLICY => {
            let name =
                record.key.name.parse().map_err(|_| RecordError::Malformed("name is not a policy's"))?;
            Change::Policy { name, policy: record.read::<PolicyBody>()?.policy }
        }
        _ => return Ok(None),
    }))
}

/// The numbers by which a grant is found.
fn only(grant: &Grant) -> Numbers {
    let number = first(&grant.subject.0);
    number..=number
}

/// Two grants of one serial are two grants.
fn name_of(grant: &Grant) -> (&NodeId, u64, &[u8; 64]) {
    (&grant.subject, grant.serial, &grant.signature)
}
