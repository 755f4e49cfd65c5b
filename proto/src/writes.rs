//! This node's own writes: which records a request needs, by what grant, and that nothing of them is told
//! before it is durable.

use alloc::{collections::BTreeMap, string::ToString, sync::Arc, vec::Vec};

use ed25519_dalek::SigningKey;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    body::{
        ArtifactBody, ArtifactPlace, HoldingBody, HoldingState, LinkBody, NodeBody, SightingBody, State,
        StatusBody, SummaryBody, TagBody,
    },
    catalog::Catalog,
    event::{Change, Refusal, RequestId, WriteId},
    grant::{Action, Grant},
    id::{Digest, NodeId, RepoName, Tag},
    leases::Sign,
    policy::{self, Policy, PolicyBody},
    quota::Group,
    record::{Key, Kind, Record, Trust},
    shared::Shared,
    time::Wall,
};

/// Authors records and keeps them until they are durable.
#[derive(Debug)]
pub struct Writes {
    key: SigningKey,
    trust: Trust,
    me: NodeId,
    pending: BTreeMap<WriteId, Pending>,
    /// Words about this node itself that the disk refused.
    unsaid: BTreeMap<Key, Shared>,
    /// Words about this node itself that are durable and told nobody yet.
    aside: BTreeMap<Key, Shared>,
    /// The highest version that was ever among these.
    highest_aside: u64,
    /// How often another copy of this node's key was seen to say otherwise.
    contradicted: BTreeMap<Key, u32>,
    last: u64,
}

/// A write that is on its way to disk.
#[derive(Debug)]
pub struct Pending {
    /// What is written.
    pub records: Vec<Shared>,
    /// Who waits for it.
    pub request: Option<RequestId>,
    /// Whose words these are, and so what follows when they are durable.
    pub origin: Origin,
    /// What follows in the driver's index, beside what the records say.
    pub then: Option<Change>,
}

/// Whose words a write keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This node's own: applied and announced when durable.
    Own,
    /// Others', on which this node may act as soon as it knows them (grants): applied when durable.
    Relied,
    /// Notes of this node's for itself: neither applied nor told.
    Local,
    /// This node's own, of use after a restart: put aside when durable, and told only if they stay true.
    Aside,
}

impl Writes {
    /// For the node with this key.
    pub fn new(key: SigningKey, trust: Trust) -> Self {
        let me = NodeId(key.verifying_key().to_bytes());
        let (pending, unsaid, aside) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let contradicted = BTreeMap::new();
        Writes { key, trust, me, pending, unsaid, aside, highest_aside: 0, contradicted, last: 0 }
    }

    /// This node.
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// Whose signatures count.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// What signing needs.
    pub fn sign(&self, wall: Wall) -> Sign<'_> {
        Sign { me: self.me, key: &self.key, mesh: &self.trust.mesh, wall }
    }

    /// Remembers a write until it is durable.
    pub fn start(&mut self, pending: Pending) -> WriteId {
        self.last += 1;
        self.pending.insert(WriteId(self.last), pending);
        WriteId(self.last)
    }

    /// A write is durable, or has failed: it is not remembered any more.
    pub fn finish(&mut self, write: WriteId) -> Option<Pending> {
        self.pending.remove(&write)
    }

    /// The disk refused what nobody waits for, so nobody else would write it again.
    pub fn put_off(&mut self, records: Vec<Shared>) {
        self.unsaid.extend(records.into_iter().map(|record| (record.key.clone(), record)));
    }

    /// A record that is about to be taken in may be this node's own, and later than all that this node
    /// remembers: it was restored from a backup, or another node has its key. What this one knows about
    /// itself is then said again, a few times. True where that has just become too often.
    pub fn set_right(&mut self, catalog: &Catalog, record: &Shared) -> bool {
        if !is_about_itself(record) || record.author != self.me || self.highest_pending(&record.key) > 0 {
            return false;
        }
        let said = self.unsaid.get(&record.key).or_else(|| catalog.get(&record.key));
        let nothing = match record.key.kind {
            Kind::HOLDING => Some(Record::encode_body(&HoldingBody { state: HoldingState::Gone })),
            Kind::SUMMARY => Some(Record::encode_body(&SummaryBody { state: HoldingState::Gone, copies: 0 })),
            _ => None,
        };
        let said = said.map(|said| said.body.clone());
        let Some(body) = said.or(nothing) else { return false };
        if body == record.body {
            return false;
        }
        let times = self.contradicted.entry(record.key.clone()).or_default();
        *times = times.saturating_add(1);
        if *times > CONTRADICTIONS_MAX {
            return *times == CONTRADICTIONS_MAX + 1;
        }
        self.put_off(alloc::vec![Record { body, ..Record::clone(record) }.into()]);
        false
    }

    /// A write of this node's lost to something later. Where it is about this node itself, it is said again.
    pub fn lost(&mut self, catalog: &Catalog, record: &Shared) {
        let known = catalog.get(&record.key);
        if is_about_itself(record) && known.is_some_and(|known| known.body != record.body) {
            self.put_off(alloc::vec![record.clone()]);
        }
    }

    /// Something under a key became durable: what was put off, or put aside, is out of date.
    pub fn said(&mut self, key: &Key) {
        self.unsaid.remove(key);
        self.aside.remove(key);
    }

    /// Something became durable that is not told yet. False where something newer is known, or on its way.
    pub fn put_aside(&mut self, catalog: &Catalog, record: Shared) -> bool {
        let known = catalog.get(&record.key).map_or(0, |known| known.version);
        if known.max(self.highest_pending(&record.key)) >= record.version {
            return false;
        }
        self.highest_aside = self.highest_aside.max(record.version);
        self.aside.insert(record.key.clone(), record);
        true
    }

    /// What was put aside under a key, if it is still this node's last word.
    pub fn take_aside(&mut self, key: &Key) -> Option<Shared> {
        let record = self.aside.remove(key)?;
        let is_last = self.highest_pending(key) == 0 && !self.unsaid.contains_key(key);
        is_last.then_some(record)
    }

    /// Whether something was put off.
    pub fn has_unsaid(&self) -> bool {
        !self.unsaid.is_empty()
    }

    /// What was put off, written anew unless something newer is on its way.
    pub fn again(&mut self, catalog: &Catalog, wall: Wall) -> Vec<Shared> {
        let unsaid = core::mem::take(&mut self.unsaid).into_values();
        let due = unsaid.filter(|record| self.highest_pending(&record.key) == 0);
        due.filter_map(|record| {
            let key = record.key.clone();
            Some(match key.kind {
                Kind::HOLDING => self.author(catalog, wall, key, None, &record.read::<HoldingBody>().ok()?),
                Kind::SUMMARY => self.author(catalog, wall, key, None, &record.read::<SummaryBody>().ok()?),
                Kind::NODE => self.author(catalog, wall, key, None, &record.read::<NodeBody>().ok()?),
                _ => return None,
            })
        })
        .collect()
    }

    /// Whether something on its way to disk, and not applied yet, wins over a record or is that record. To
    /// take that record in would put it on disk after, hence over, the winner.
    pub fn outdo(&self, record: &Shared) -> bool {
        let mut records = self.pending.values().flat_map(|pending| &pending.records);
        records.any(|known| known.key == record.key && !record.beats(known))
    }

    /// Whether this node may do `action` in the repository now, and by what grant.
    pub fn grant(
        &self,
        catalog: &Catalog,
        action: Action,
        repository: &RepoName,
        wall: Wall,
    ) -> Result<Arc<Grant>, Refusal> {
        let node = self.me;
        match catalog.grant_for(&node, action, repository, wall) {
            (Some(grant), _) => Ok(grant),
            (None, true) => Err(Refusal::Expired { repository: repository.clone(), node }),
            (None, false) => {
                let action = match action {
                    Action::Publish => "publish",
                    Action::Delete => "delete",
                    Action::Status => "set the status of artifacts",
                    Action::Policy => "write policies",
                };
                Err(Refusal::NoGrant { action, repository: repository.clone(), node })
            }
        }
    }

    /// The records of a publication. Tags that point there already are not written again.
    pub fn publication(
        &self,
        catalog: &Catalog,
        wall: Wall,
        repository: &RepoName,
        tags: &[Tag],
        (manifest, place): (Digest, ArtifactPlace),
    ) -> Result<Vec<Shared>, Refusal> {
        let grant = self.grant(catalog, Action::Publish, repository, wall)?;
        let mut records = Vec::new();
        let key = Key::artifact(repository, &manifest);
        // What is known may be about to change: a deletion under way is outdone too.
        let pending = self.highest_pending(&key) > 0;
        if catalog.artifact(repository, &manifest).as_ref() != Some(&place) || pending {
            let body = ArtifactBody { place: Some(place) };
            records.push(self.author(catalog, wall, key, Some(grant.clone()), &body));
        }
        for tag in tags {
            let pending = self.highest_pending(&Key::tag(repository, tag)) > 0;
            if catalog.tag(repository, tag) != Some(manifest) || pending {
                let body = TagBody { target: Some(manifest) };
                records.push(self.author(
                    catalog,
                    wall,
                    Key::tag(repository, tag),
                    Some(grant.clone()),
                    &body,
                ));
            }
        }
        Ok(records)
    }

    /// The record that takes a tag away.
    pub fn untag(
        &self,
        catalog: &Catalog,
        wall: Wall,
        repository: &RepoName,
        tag: &Tag,
    ) -> Result<Shared, Refusal> {
        let grant = self.grant(catalog, Action::Delete, repository, wall)?;
        if catalog.tag(repository, tag).is_none() {
            return Err(Refusal::Unknown(alloc::format!("tag {repository}:{tag}")));
        }
        Ok(self.author(catalog, wall, Key::tag(repository, tag), Some(grant), &TagBody { target: None }))
    }

    /// The records that take an artifact and its tags out of a repository.
    pub fn unpublication(
        &self,
        catalog: &Catalog,
        wall: Wall,
        repository: &RepoName,
        manifest: &Digest,
    ) -> Result<Vec<Shared>, Refusal> {
        let grant = self.grant(catalog, Action::Delete, repository, wall)?;
        if catalog.artifact(repository, manifest).is_none() {
            return Err(Refusal::Unknown(alloc::format!("{repository}@{manifest}")));
        }
        let points_there = |record: &&Shared| {
            record.key.kind == Kind::TAG
                && record.key.scope == repository.as_str()
                && record.read::<TagBody>().is_ok_and(|body| body.target == Some(*manifest))
        };
        let body = TagBody { target: None };
        let untag =
            |record: &Shared| self.author(catalog, wall, record.key.clone(), Some(grant.clone()), &body);
        let mut records: Vec<Shared> = catalog.iter().filter(points_there).map(untag).collect();
        let key = Key::artifact(repository, manifest);
        records.push(self.author(catalog, wall, key, Some(grant.clone()), &ArtifactBody { place: None }));
        Ok(records)
    }

    /// The record that takes a blob out of a repository. Whether it was in is the caller's to know: pushes
    /// alone leave no record.
    pub fn unlinking(
        &self,
        catalog: &Catalog,
        wall: Wall,
        repository: &RepoName,
        blob: &Digest,
    ) -> Result<Shared, Refusal> {
        let grant = self.grant(catalog, Action::Delete, repository, wall)?;
        let body = LinkBody { removed: true };
        Ok(self.author(catalog, wall, Key::link(repository, blob), Some(grant), &body))
    }

    /// The record that lets a blob be linked again, unless it may be.
    pub fn relinking(
        &self,
        catalog: &Catalog,
        wall: Wall,
        repository: &RepoName,
        blob: &Digest,
    ) -> Result<Option<Shared>, Refusal> {
        let key = Key::link(repository, blob);
        if !catalog.is_unlinked(repository, blob) && self.highest_pending(&key) == 0 {
            return Ok(None);
        }
        let grant = self.grant(catalog, Action::Publish, repository, wall)?;
        Ok(Some(self.author(catalog, wall, key, Some(grant), &LinkBody { removed: false })))
    }

    /// The record that says what state an artifact is in.
    pub fn status(
        &self,
        catalog: &Catalog,
        wall: Wall,
        (repository, manifest): (&RepoName, &Digest),
        state: State,
        reason: &str,
    ) -> Result<Shared, Refusal> {
        let grant = self.grant(catalog, Action::Status, repository, wall)?;
        if reason.len() > 512 {
            return Err(Refusal::Invalid("the reason is longer than 512 bytes".into()));
        }
        let body = StatusBody { state, reason: reason.to_string() };
        Ok(self.author(catalog, wall, Key::status(repository, manifest), Some(grant), &body))
    }

    /// The record that declares a policy, or takes it away. None where it says that already.
    pub fn policy(
        &self,
        catalog: &Catalog,
        wall: Wall,
        name: &RepoName,
        policy: Option<&Policy>,
    ) -> Result<Option<Shared>, Refusal> {
        if let Some(Err(why)) = policy.map(Policy::check) {
            return Err(Refusal::Invalid(alloc::format!("policy {name}: {why}")));
        }
        let key = Key::policy(name);
        let known = catalog.get(&key).and_then(|record| record.read::<PolicyBody>().ok()?.policy);
        if policy.is_none() && known.is_none() && self.highest_pending(&key) == 0 {
            return Err(Refusal::Unknown(alloc::format!("policy {name}")));
        }
        let covers = |grant: &&Arc<Grant>| policy::covers(grant, name.as_str(), policy, wall);
        let grant = catalog.grants_of(&self.me).find(covers).cloned().ok_or_else(|| {
            let node = self.me;
            Refusal::Invalid(alloc::format!(
                "this node has no grant that covers policy {name} and every repository in it; where the root key is, \
                 run: waystation mesh grant {node} --repositories '**', or give a pattern that covers its name too"
            ))
        })?;
        if known.as_ref() == policy && self.highest_pending(&key) == 0 {
            return Ok(None);
        }
        let body = PolicyBody { policy: policy.cloned() };
        if Record::encode_body(&body).len() > Record::MAX_BODY {
            let max = Record::MAX_BODY;
            return Err(Refusal::Invalid(alloc::format!(
                "policy {name} is longer than {max} bytes; split it"
            )));
        }
        Ok(Some(self.author(catalog, wall, key, Some(grant), &body)))
    }

    /// The record that carries a grant to its subject, unless the mesh knows that grant. Its version is the
    /// grant's serial, which the root signed.
    pub fn granting(&self, catalog: &Catalog, wall: Wall, grant: &Grant) -> Result<Option<Shared>, Refusal> {
        if !grant.is_signed_by(&self.trust.mesh, &self.trust.root) {
            return Err(Refusal::Invalid("the grant is not signed by this mesh's root key".into()));
        }
        let key = Key::grant(grant);
        if let Some(known) = catalog.get(&key).filter(|known| known.version >= grant.serial) {
            if known.read::<Grant>().as_ref() == Ok(grant) {
                return Ok(None);
            }
            return Err(Refusal::Invalid(alloc::format!(
                "a grant for {} that is as new or newer is known; if the clock of the machine with the root key is behind, set it and grant again",
                key.name
            )));
        }
        // The same grant twice at once is one record: what is on disk last must be what counts.
        let mut pending = self.own_pending().filter(|record| record.key == key);
        if let Some(under_way) = pending.find(|record| record.read::<Grant>().as_ref() == Ok(grant)) {
            return Ok(Some(under_way.clone()));
        }
        Ok(Some(Record::author(&self.trust.mesh, &self.key, None, key, grant.serial, wall, grant).into()))
    }

    /// The record that tells this node's site how much of an artifact it has, unless that is known already.
    pub fn holding(
        &self,
        catalog: &Catalog,
        wall: Wall,
        site: &str,
        manifest: &Digest,
        state: HoldingState,
    ) -> Option<Shared> {
        let key = Key::holding(site, manifest, &self.me);
        let said = self.own_word(catalog, &key).map_or(HoldingState::Gone, |body: HoldingBody| body.state);
        (said != state).then(|| self.author(catalog, wall, key, None, &HoldingBody { state }))
    }

    /// The record that tells the mesh of it, unless that is known already.
    pub fn summary(
        &self,
        catalog: &Catalog,
        wall: Wall,
        manifest: &Digest,
        body: SummaryBody,
    ) -> Option<Shared> {
        let news = self.summarised(catalog, manifest) != body;
        news.then(|| self.author(catalog, wall, Key::summary(manifest, &self.me), None, &body))
    }

    /// What this node last told the mesh of an artifact.
    pub fn summarised(&self, catalog: &Catalog, manifest: &Digest) -> SummaryBody {
        let nothing = SummaryBody { state: HoldingState::Gone, copies: 0 };
        self.own_word(catalog, &Key::summary(manifest, &self.me)).unwrap_or(nothing)
    }

    /// The record that says where an upstream's tag was seen to point, unless that was said not long ago.
    pub fn sighting(
        &self,
        catalog: &Catalog,
        wall: Wall,
        repository: &RepoName,
        tag: &Tag,
        manifest: Digest,
    ) -> Option<Shared> {
        let key = Key::sighting(repository, tag, &self.me);
        let said: Option<SightingBody> = self.own_word(catalog, &key);
        let age = |said: SightingBody| wall.0.checked_sub(said.seen.0);
        let fresh = said.is_some_and(|said| {
            said.manifest == manifest && age(said).is_some_and(|age| age < SIGHTING_RENEWED)
        });
        let grant = || catalog.grant_for(&self.me, Action::Publish, repository, wall).0;
        let body = SightingBody { manifest, seen: wall };
        (!fresh).then(|| self.author(catalog, wall, key, grant(), &body))
    }

    /// The record that says who this node is, unless that is known already.
    pub fn node(&self, catalog: &Catalog, wall: Wall, body: &NodeBody) -> Option<Shared> {
        let key = Key::node(&self.me);
        let news = self.own_word(catalog, &key).as_ref() != Some(body);
        news.then(|| self.author(catalog, wall, key, None, body))
    }

    /// What this node last said under a key that is its own. What is on its way to disk, or waits for the
    /// disk to work again, will replace what is known.
    fn own_word<B: Serialize + DeserializeOwned>(&self, catalog: &Catalog, key: &Key) -> Option<B> {
        let pending = self.own_pending().filter(|record| record.key == *key);
        let unwritten = pending.max_by_key(|record| record.version).or_else(|| self.unsaid.get(key));
        unwritten.or_else(|| self.aside.get(key)).or_else(|| catalog.get(key))?.read().ok()
    }

    fn author<B: Serialize>(
        &self,
        catalog: &Catalog,
        wall: Wall,
        key: Key,
        grant: Option<Arc<Grant>>,
        body: &B,
    ) -> Shared {
        let known = catalog.get(&key).map_or(0, |record| record.version);
        // Of what is counted by author, the highest counters stay: a new word must be above all before it.
        let group = Group::of(key.kind);
        let counted =
            self.own_pending().filter(|record| group.is_some() && Group::of(record.key.kind) == group);
        let counted = counted.map(|record| record.version).max().unwrap_or(0);
        let aside = if group.is_some() { self.highest_aside } else { 0 };
        let counted = counted.max(aside).max(catalog.highest(self.me, key.kind));
        let version = known.max(self.highest_pending(&key)).max(counted) + 1;
        Record::author(&self.trust.mesh, &self.key, grant, key, version, wall, body).into()
    }

    /// The highest version under a key that is on its way to disk.
    fn highest_pending(&self, key: &Key) -> u64 {
        let under_key = self.own_pending().filter(|record| record.key == *key);
        under_key.map(|record| record.version).max().unwrap_or(0)
    }

    fn own_pending(&self) -> impl Iterator<Item = &Shared> {
        self.pending
            .values()
            .filter(|pending| matches!(pending.origin, Origin::Own | Origin::Aside))
            .flat_map(|pending| &pending.records)
    }
}

/// Whether a record says something of its author, who knows best.
fn is_about_itself(record: &Record) -> bool {
    matches!(record.key.kind, Kind::HOLDING | Kind::SUMMARY | Kind::NODE)
}

/// After how many seconds a tag that has not moved is told of again.
const SIGHTING_RENEWED: u64 = 6 * 60 * 60;
/// Contradictions in one matter that are answered: two nodes with one key would never stop.
const CONTRADICTIONS_MAX: u32 = 3;
