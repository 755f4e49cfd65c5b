//! Gathers what a deletion has to know: what is here, and which artifacts and repositories it belongs to. If that
//! cannot be told for certain, nothing is deleted.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use waystation_oci::manifest;
use waystation_proto::{
    Digest, Hash, NodeId, RepoName,
    index::EdgeKind,
    replica::space::Kept,
    retention::{Name, Origin, Unit},
};

use crate::{
    driver::handle::ReplicaHandle,
    store::{Held, Inventory, Store, Use},
    upstream::Upstreams,
};

/// Who is asked for what is known.
#[derive(Clone)]
pub(super) struct Sources {
    pub store: Store,
    pub replica: ReplicaHandle,
    pub upstreams: Upstreams,
    pub node: NodeId,
}

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub units: Vec<Unit>,
    pub kept: Kept,
    /// Artifacts of which this node says to have something, and to which nothing refers any more.
    pub stale: Vec<Digest>,
    /// Bytes that nothing refers to, for whatever time.
    pub loose: u64,
    /// Of each artifact.
    pub last_use: BTreeMap<Digest, Use>,
}

/// Why nothing can be deleted.
#[derive(Debug, thiserror::Error)]
pub enum Unknown {
    /// The store does not say what is here.
    #[error("what is here cannot be told, so nothing is deleted: {0}")]
    Store(#[from] std::io::Error),
    /// The index is damaged.
    #[error("the index is damaged, so nothing is deleted; restart the node to build it again")]
    Index,
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// Since when bytes have been here that nothing refers to.
#[derive(Debug, Default)]
pub(super) struct Loose(BTreeMap<Hash, Instant>);

/// An artifact while it is put together.
#[derive(Default)]
struct Draft {
    repositories: BTreeSet<RepoName>,
    parts: BTreeMap<Digest, (Hash, u64)>,
    referenced: bool,
}

impl Sources {
    /// Gathers it. `loose` remembers from one time to the next; without a span nothing counts as loose.
    pub async fn gather(&self, loose: &mut Loose, loose_after: Option<Duration>) -> Result<Known, Unknown> {
        let here = self.store.inventory().await?;
        let mut heads = BTreeSet::new();
        let (mut drafts, blind) = self.of_mesh(&here, &mut heads).await;
        let stale = self.of_holdings(&here, &mut drafts).await;
        let manifests: Vec<Digest> = drafts.keys().copied().collect();
        let kept = self.replica.kept(manifests).await.ok_or(Unknown::Stopping)?;
        for pinned in
            kept.pinned.iter().filter(|pinned| !drafts.contains_key(*pinned)).copied().collect::<Vec<_>>()
        {
            if let Some(mut draft) = self.read(&here, &pinned).await {
                draft.referenced = true;
                drafts.insert(pinned, draft);
            }
        }
        let mut known = Known { kept, stale, ..Known::default() };
        let Kept { pinned, leased, .. } = &known.kept;
        known.stale.retain(|manifest| !pinned.contains(manifest) && !leased.contains(manifest));
        self.units(&here, drafts, &mut known);
        self.pulled(&here, &mut known);
        let covered: BTreeSet<Hash> =
            known.units.iter().flat_map(|unit| &unit.blobs).map(|(hash, _)| *hash).chain(heads).collect();
        let after = loose_after.filter(|_| !blind);
        loose.add(&here, &covered, after, &mut known);
        if self.store.index().is_broken() { Err(Unknown::Index) } else { Ok(known) }
    }

    /// Artifacts that the mesh knows, and whether the closure of one of which something is here is not known.
    async fn of_mesh(&self, here: &Inventory, heads: &mut BTreeSet<Hash>) -> (BTreeMap<Digest, Draft>, bool) {
        let (index, mut drafts, mut blind) = (self.store.index(), BTreeMap::new(), false);
        for (repository, manifest, entry) in index.artifacts(None) {
            heads.insert(entry.place.index);
            let mut parts = index.closure(&repository, &manifest);
            if parts.is_empty() {
                let read = self.read(here, &manifest).await;
                blind |= read.is_none() && index.holding(&manifest, &self.node).is_some();
                parts = read.into_iter().flat_map(|draft| draft.held()).collect();
                let (hash, size) = (entry.place.manifest, entry.place.manifest_size);
                parts.push(Held { digest: manifest, hash, size });
            }
            let draft: &mut Draft = drafts.entry(manifest).or_default();
            draft.referenced = true;
            draft.repositories.insert(repository);
            draft.parts.extend(parts.iter().map(|part| (part.digest, (part.hash, part.size))));
        }
        (drafts, blind)
    }

    /// Artifacts of which this node says to have something, beside those: of upstreams, and such as are in no
    /// repository any more, which are returned.
    async fn of_holdings(&self, here: &Inventory, drafts: &mut BTreeMap<Digest, Draft>) -> Vec<Digest> {
        let mut stale = Vec::new();
        for (manifest, _) in self.store.index().held_by(&self.node) {
            if drafts.contains_key(&manifest) {
                continue;
            }
            let linked = here.links.iter().filter(|(_, digest, _)| *digest == manifest);
            let repositories: BTreeSet<RepoName> = linked
                .map(|(repository, ..)| repository)
                .filter(|name| self.is_upstreams(name))
                .cloned()
                .collect();
            match self.read(here, &manifest).await {
                Some(draft) if !repositories.is_empty() => {
                    let referenced = !repositories.iter().any(|name| self.comes_again(name));
                    drafts.insert(manifest, Draft { repositories, referenced, ..draft });
                }
                _ => stale.push(manifest),
            }
        }
        stale
    }

    /// What a manifest that is here names, as far as that is here.
    async fn read(&self, here: &Inventory, manifest: &Digest) -> Option<Draft> {
        let hash = here.digests.get(manifest)?;
        let bytes = self.store.read(*hash, MANIFEST_MAX).await.ok()?;
        let parsed = manifest::parse(&bytes, None).ok()?;
        let edges = parsed.edges().iter();
        let needed = edges.filter(|edge| matches!(edge.kind, EdgeKind::Config | EdgeKind::Layer));
        let mut parts: BTreeMap<Digest, (Hash, u64)> = needed
            .filter_map(|edge| Some((edge.digest, (*here.digests.get(&edge.digest)?, edge.size))))
            .collect();
        parts.insert(*manifest, (*hash, bytes.len() as u64));
        Some(Draft { parts, ..Draft::default() })
    }

    fn units(&self, here: &Inventory, drafts: BTreeMap<Digest, Draft>, known: &mut Known) {
        for (manifest, draft) in drafts {
            let found = |(hash, _): &(Hash, u64)| Some((*hash, size_of(here, hash)?));
            let blobs: Vec<(Hash, u64)> = draft.parts.values().filter_map(found).collect();
            if blobs.is_empty() {
                continue;
            }
            let uses = self.store.uses();
            let last = draft.parts.keys().chain([&manifest]).map(|digest| uses.last(digest)).max();
            let last = last.unwrap_or_default();
            known.last_use.insert(manifest, last);
            known.units.push(Unit {
                name: Name::Content(manifest),
                origin: if draft.referenced { Origin::Referenced } else { Origin::Pulled },
                repositories: draft.repositories.into_iter().collect(),
                blobs,
                last_use: last.count,
            });
        }
    }

    /// What came from upstreams and no manifest names of which this node says to have all.
    fn pulled(&self, here: &Inventory, known: &mut Known) {
        let covered: BTreeSet<Hash> =
            known.units.iter().flat_map(|unit| &unit.blobs).map(|(hash, _)| *hash).collect();
        let mut alone: BTreeMap<Digest, Unit> = BTreeMap::new();
        for (repository, digest, hash) in &here.links {
            let Some(size) = size_of(here, hash).filter(|_| !covered.contains(hash)) else { continue };
            if !self.is_upstreams(repository) {
                continue;
            }
            let again = self.comes_again(repository);
            let last = self.store.uses().last(digest);
            let unit = alone.entry(*digest).or_insert_with(|| {
                known.last_use.insert(*digest, last);
                Unit {
                    name: Name::Content(*digest),
                    origin: Origin::Referenced,
                    repositories: Vec::new(),
                    blobs: vec![(*hash, size)],
                    last_use: last.count,
                }
            });
            unit.repositories.push(repository.clone());
            if again {
                unit.origin = Origin::Pulled;
            }
        }
        known.units.extend(alone.into_values());
    }

    fn is_upstreams(&self, repository: &RepoName) -> bool {
        self.upstreams.of_repository(repository).is_some()
    }

    /// Whether what belongs to a repository can be had again.
    fn comes_again(&self, repository: &RepoName) -> bool {
        self.upstreams.of_repository(repository).is_some_and(|(upstream, _)| !upstream.is_away())
    }
}

impl Draft {
    fn held(self) -> impl Iterator<Item = Held> {
        self.parts.into_iter().map(|(digest, (hash, size))| Held { digest, hash, size })
    }
}

impl Loose {
    /// Adds what is here and nothing covers, for long enough.
    fn add(
        &mut self,
        here: &Inventory,
        covered: &BTreeSet<Hash>,
        after: Option<Duration>,
        known: &mut Known,
    ) {
        let all = here.complete.iter().chain(&here.partial);
        let loose: BTreeMap<Hash, u64> = all
            .filter(|(hash, _)| !covered.contains(*hash) && !here.segments.contains(*hash))
            .filter(|(hash, _)| !known.kept.wanted.contains(*hash) && **hash != Hash::of(&[]))
            .map(|(hash, size)| (*hash, *size))
            .collect();
        known.loose = loose.values().sum();
        self.0.retain(|hash, _| loose.contains_key(hash));
        let Some(after) = after else { return };
        for (hash, size) in loose {
            let since = self.0.entry(hash).or_insert_with(Instant::now);
            if since.elapsed() >= after {
                let (name, blobs) = (Name::Loose(hash), vec![(hash, size)]);
                let unit = Unit { name, origin: Origin::Loose, repositories: Vec::new(), blobs, last_use: 0 };
                known.units.push(unit);
            }
        }
    }
}

fn size_of(here: &Inventory, hash: &Hash) -> Option<u64> {
    here.complete.get(hash).or_else(|| here.partial.get(hash)).copied()
}

/// Longest manifest that is read, in bytes.
const MANIFEST_MAX: u64 = 16 << 20;
