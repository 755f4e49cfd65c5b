//! Keeps one host within its quota, as the node's own gc does: what goes is decided by the protocol's `retention`; a
//! copy that is referenced goes only after another node has promised to keep its own, and after the mesh was told.
//! Asks and says what is to be deleted; deleting is the world's.

use std::collections::{BTreeMap, BTreeSet};

use waystation_proto::{
    Digest, Event, Hash, Input, NodeId, RepoName, RequestId,
    body::HoldingState,
    event::LeaseRefusal,
    retention::{self, Go, Keeps, Name, Origin, Plan, Unit},
};

use crate::{content::Content, host::Host, setup::MILLISECOND};

/// Looks after one host's disk.
#[derive(Default)]
pub struct Evictor {
    /// When artifacts were last asked for here, as a count.
    uses: BTreeMap<Digest, u64>,
    used: u64,
    /// Since when nothing refers to a blob.
    loose: BTreeMap<Hash, u64>,
    /// Artifacts that nobody promised to keep, and when that was asked.
    refused: BTreeMap<Digest, u64>,
    asked: BTreeMap<RequestId, Digest>,
    granted: BTreeMap<Digest, NodeId>,
    going: BTreeMap<RequestId, Go>,
    /// Blobs that are about to be deleted.
    leaving: BTreeSet<Hash>,
    /// Blobs that a client has pushed and is publishing something with.
    claimed: BTreeMap<RequestId, Vec<Hash>>,
    requests: u64,
}

/// What comes of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Another node has promised to keep an artifact.
    Promised(Digest, NodeId),
    /// A copy has gone: `frees` of it are to be deleted now, and `spared` stay after all.
    Delete {
        /// What has gone.
        go: Go,
        /// Of what it frees, what was pushed meanwhile.
        spared: Vec<Hash>,
    },
    /// Nothing follows.
    Nothing,
}

impl Evictor {
    /// A client asked for an artifact, or pushed it.
    pub fn touch(&mut self, manifest: Digest) {
        self.used += 1;
        self.uses.insert(manifest, self.used);
    }

    /// A client pushed blobs and publishes something with them: until that is answered they do not go.
    pub fn claim(&mut self, request: RequestId, blobs: Vec<Hash>) {
        blobs.iter().for_each(|hash| self.spare(hash));
        self.claimed.insert(request, blobs);
    }

    /// A blob is put in anew: it does not go.
    pub fn spare(&mut self, hash: &Hash) {
        self.leaving.remove(hash);
    }

    /// The host stopped: what was asked is answered no more.
    pub fn crash(&mut self) {
        *self = Evictor { uses: std::mem::take(&mut self.uses), requests: self.requests, ..Self::default() };
        self.uses.clear();
    }

    /// Blobs that may be deleted any moment, so that nobody should count on this copy.
    pub fn doomed(&self, content: &Content) -> BTreeSet<Hash> {
        let going = self.going.values().flat_map(|go| &go.frees).map(|(hash, _)| *hash);
        let promised = content.artifacts().iter().filter(|artifact| {
            let manifest = &artifact.index.manifest;
            self.granted.contains_key(manifest) || self.asked.values().any(|asked| asked == manifest)
        });
        going.chain(promised.flat_map(|artifact| artifact.blobs()).map(|(hash, _)| hash)).collect()
    }

    /// Looks whether something is to go; what to ask the replica.
    pub fn round(&mut self, now: u64, host: &Host, content: &Content, quota: u64) -> Vec<Input> {
        let Some(replica) = host.replica() else { return Vec::new() };
        self.refused.retain(|_, at| *at + ASK_AGAIN_MS > now);
        let used = host.disk.used();
        let need = if used > quota / 100 * HIGH_PERCENT { used - quota / 100 * LOW_PERCENT } else { 0 };
        if !self.asked.is_empty() || !self.going.is_empty() {
            return Vec::new();
        }
        let pinned = replica.kept(host.clocks(now * MILLISECOND), &[]).pinned;
        let units = self.units(now, host, content, &pinned);
        let manifests: Vec<Digest> = units.iter().filter_map(named).collect();
        let kept = replica.kept(host.clocks(now * MILLISECOND), &manifests);
        let stale =
            stale(host, content).filter(|m| !pinned.contains(m) && !kept.leased.contains(m)).collect();
        let mut refused: BTreeSet<Digest> = self.refused.keys().copied().collect();
        refused.extend(manifests.iter().filter(|m| kept.holders.get(m).is_none_or(|count| *count == 0)));
        let policy_held = |_: &RepoName, manifest: &Digest| kept.policy.contains(manifest);
        let keeps = Keeps {
            pinned: &kept.pinned,
            leased: &kept.leased,
            policy_held: &policy_held,
            busy: &kept.wanted,
            coming: &kept.coming,
            granted: &self.granted,
            refused: &refused,
        };
        let plan = retention::plan(&units, &keeps, need);
        self.ask(&plan, &units, stale)
    }

    /// One goes at a time, since what the others need is then looked at anew; several promises are asked for.
    fn ask(&mut self, plan: &Plan, units: &[Unit], stale: Vec<Digest>) -> Vec<Input> {
        if let Some(go) = plan.go.first() {
            let request = self.request();
            let manifests: Vec<Digest> = match go.name {
                Name::Content(manifest) => vec![manifest],
                // Whatever this node said to hold of artifacts that are in no repository any more.
                Name::Loose(_) => stale,
            };
            let leased = if go.origin == Origin::Referenced { manifests.clone() } else { Vec::new() };
            let blobs: Vec<Hash> = go.frees.iter().map(|(hash, _)| *hash).collect();
            let claimed = |hash: &Hash| self.claimed.values().any(|blobs| blobs.contains(hash));
            self.leaving = blobs.iter().filter(|hash| !claimed(hash)).copied().collect();
            self.going.insert(request, go.clone());
            return vec![Input::LetGo { request, manifests, leased, blobs }];
        }
        let mut inputs = Vec::new();
        for go in plan.ask.iter().take(ASKED_AT_ONCE) {
            let Name::Content(manifest) = go.name else { continue };
            let Some(unit) = units.iter().find(|unit| unit.name == go.name) else { continue };
            let request = self.request();
            self.asked.insert(request, manifest);
            let blobs = unit.blobs.iter().map(|(hash, _)| *hash).collect();
            inputs.push(Input::AskLease { request, manifest, blobs });
        }
        inputs
    }

    /// An answer came; nothing where it is for somebody else.
    pub fn told(&mut self, now: u64, event: &Event) -> Option<Outcome> {
        match event {
            Event::LeaseDone { request, result } => {
                let manifest = self.asked.remove(request)?;
                match result {
                    Ok(node) => {
                        self.granted.insert(manifest, *node);
                        Some(Outcome::Promised(manifest, *node))
                    }
                    Err(LeaseRefusal::Nobody | LeaseRefusal::Busy | LeaseRefusal::Yielded) => {
                        self.refused.insert(manifest, now);
                        Some(Outcome::Nothing)
                    }
                }
            }
            Event::Written { request } => {
                self.claimed.remove(request);
                let mut go = self.going.remove(request)?;
                self.over(&go);
                let (frees, spared): (Vec<_>, Vec<_>) =
                    go.frees.into_iter().partition(|(hash, _)| self.leaving.remove(hash));
                go.frees = frees;
                let spared = spared.into_iter().map(|(hash, _)| hash).collect();
                Some(Outcome::Delete { go, spared })
            }
            Event::Refused { request, .. } => {
                self.claimed.remove(request);
                let go = self.going.remove(request)?;
                self.over(&go);
                Some(Outcome::Nothing)
            }
            _ => None,
        }
    }

    /// A promise is for one deletion.
    fn over(&mut self, go: &Go) {
        if let Name::Content(manifest) = go.name {
            self.granted.remove(&manifest);
        }
    }

    /// What is here, by artifact, and what nothing refers to for long enough. Indexes of artifacts stay.
    fn units(&mut self, now: u64, host: &Host, content: &Content, pinned: &BTreeSet<Digest>) -> Vec<Unit> {
        let (blobs, mut units, mut covered) = (host.disk.blobs(), Vec::new(), BTreeSet::new());
        let Some(catalog) = host.replica().map(|replica| replica.catalog()) else { return units };
        for artifact in content.artifacts() {
            let manifest = artifact.index.manifest;
            let repositories: Vec<RepoName> = catalog.repositories(&manifest).cloned().collect();
            if repositories.is_empty() && !pinned.contains(&manifest) {
                continue;
            }
            covered.insert(artifact.index_hash);
            let mut here: Vec<(Hash, u64)> = artifact.blobs();
            here.retain(|(hash, _)| *hash != artifact.index_hash && blobs.contains_key(hash));
            covered.extend(here.iter().map(|(hash, _)| *hash));
            if !here.is_empty() {
                let last_use = self.uses.get(&manifest).copied().unwrap_or(0);
                let (name, origin) = (Name::Content(manifest), Origin::Referenced);
                units.push(Unit { name, origin, repositories, blobs: here, last_use });
            }
        }
        self.loose.retain(|hash, _| blobs.contains_key(hash) && !covered.contains(hash));
        for (hash, size) in blobs.iter().filter(|(hash, _)| !covered.contains(*hash)) {
            let since = *self.loose.entry(*hash).or_insert(now);
            if since + LOOSE_AFTER_MS <= now {
                let (name, blobs) = (Name::Loose(*hash), vec![(*hash, *size)]);
                let unit = Unit { name, origin: Origin::Loose, repositories: vec![], blobs, last_use: 0 };
                units.push(unit);
            }
        }
        units
    }

    fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(REQUESTS + self.requests)
    }
}

/// Artifacts of which a host says to have something though they are in no repository any more.
fn stale<'a>(host: &'a Host, content: &'a Content) -> impl Iterator<Item = Digest> + 'a {
    let manifests = content.artifacts().iter().map(|artifact| artifact.index.manifest);
    let catalog = host.replica().map(|replica| replica.catalog());
    manifests.filter(move |manifest| {
        catalog.is_some_and(|catalog| {
            let says = |(node, state)| node == host.id && state != HoldingState::Gone;
            catalog.repositories(manifest).next().is_none() && catalog.holders(manifest).any(says)
        })
    })
}

fn named(unit: &Unit) -> Option<Digest> {
    match unit.name {
        Name::Content(digest) => Some(digest),
        Name::Loose(_) => None,
    }
}

/// How often a host looks.
pub const TICK_MS: u64 = 5_000;
/// Requests from here on are an evictor's.
pub const REQUESTS: u64 = 1 << 60;
/// Room is made when so much of the quota is used, down to so much.
const HIGH_PERCENT: u64 = 90;
const LOW_PERCENT: u64 = 80;
/// After a while somebody may promise who did not.
const ASK_AGAIN_MS: u64 = 10_000;
/// What nothing refers to stays so long.
const LOOSE_AFTER_MS: u64 = 60_000;
const ASKED_AT_ONCE: usize = 16;
