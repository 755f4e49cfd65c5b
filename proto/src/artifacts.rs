//! Artifacts that are being brought here: first the index and the manifest, then, where asked for, the
//! rest of the closure. Fetching each blob is [`crate::wants`]' business.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use crate::body::ArtifactPlace;
use crate::{
    event::{BlobRef, Event, Output, RequestId, WantFailure},
    id::{Digest, Hash},
    index::ArtifactIndex,
    time::{Span, Time},
    wants::{Ended, Holders, Order, Waiter, Wants},
};

/// Every artifact that is being brought here.
#[derive(Debug, Default)]
pub struct Artifacts {
    artifacts: BTreeMap<Digest, Artifact>,
}

/// What the artifacts need of the rest of the replica at each step.
pub struct Means<'a, W> {
    /// The moment.
    pub now: Time,
    /// Hashes of complete, durable blobs.
    pub held: &'a BTreeSet<Hash>,
    /// Where blobs are ordered.
    pub wants: &'a mut Wants,
    /// Who holds what.
    pub world: &'a W,
}

#[derive(Debug)]
struct Artifact {
    place: ArtifactPlace,
    index: Index,
    /// Whether config and layers are to come too.
    closure: bool,
    /// Who waits for the manifest, and since when.
    waiters: BTreeMap<RequestId, Time>,
}

#[derive(Debug)]
enum Index {
    Missing,
    Reading,
    /// What the closure needs beside the manifest.
    Read(Vec<BlobRef>),
}

impl Artifacts {
    /// Adds a waiter, if any, for an artifact that is at `place`.
    pub fn want<W: Holders>(
        &mut self,
        means: &mut Means<'_, W>,
        request: Option<RequestId>,
        manifest: Digest,
        place: ArtifactPlace,
        closure: bool,
        out: &mut Vec<Output>,
    ) {
        let artifact = self.artifacts.entry(manifest).or_insert_with(|| Artifact {
            place,
            index: Index::Missing,
            closure,
            waiters: BTreeMap::new(),
        });
        artifact.closure |= closure;
        artifact.waiters.extend(request.map(|request| (request, means.now)));
        self.advance(means, &manifest, out);
    }

    /// An index was read from the store.
    pub fn index_read<W: Holders>(
        &mut self,
        means: &mut Means<'_, W>,
        hash: Hash,
        index: Option<&ArtifactIndex>,
        out: &mut Vec<Output>,
    ) {
        let of_hash = self.artifacts.iter().filter(|(_, artifact)| artifact.place.index == hash);
        let manifests: Vec<Digest> = of_hash.map(|(manifest, _)| *manifest).collect();
        for manifest in manifests {
            let Some(artifact) = self.artifacts.get_mut(&manifest) else { continue };
            let fitting =
                index.filter(|index| index.manifest == manifest && index.hash == artifact.place.manifest);
            let Some(index) = fitting else {
                let failure = WantFailure::Storage(
                    "its artifact index cannot be read; it may be newer than this version".into(),
                );
                let waiters = core::mem::take(&mut artifact.waiters);
                self.artifacts.remove(&manifest);
                for request in waiters.into_keys() {
                    out.push(done(request, Err(failure.clone())));
                    means.wants.abandon(request, out);
                }
                continue;
            };
            let blob = |(edge, hash): (&crate::index::Edge, Hash)| BlobRef {
                digest: edge.digest,
                hash,
                size: edge.size,
            };
            artifact.index = Index::Read(index.closure().map(blob).collect());
            self.advance(means, &manifest, out);
        }
    }

    /// A want ended. Returns the requests among its waiters that were for just this blob.
    pub fn ended<W: Holders>(
        &mut self,
        means: &mut Means<'_, W>,
        ended: &Ended,
        out: &mut Vec<Output>,
    ) -> Vec<RequestId> {
        let mut others = Vec::new();
        let mut touched = BTreeSet::new();
        for waiter in &ended.waiters {
            match waiter {
                Waiter::Request(request) => others.push(*request),
                // The pull is told by the replica.
                Waiter::Pull(_) => {}
                Waiter::Closure(manifest) => {
                    touched.insert(*manifest);
                }
                Waiter::Head(request) => {
                    // The other half of the head may have ended it before.
                    let Some(manifest) = self.waited_by(request) else { continue };
                    if ended.result.is_ok() {
                        touched.insert(manifest);
                        continue;
                    }
                    self.abandon(*request);
                    means.wants.abandon(*request, out);
                    out.push(done(*request, ended.result.clone()));
                }
            }
        }
        for manifest in touched {
            self.advance(means, &manifest, out);
        }
        others
    }

    /// A client stopped waiting.
    pub fn abandon(&mut self, request: RequestId) {
        if let Some(manifest) = self.waited_by(&request) {
            self.artifacts.get_mut(&manifest).map(|artifact| artifact.waiters.remove(&request));
            self.drop_idle(&manifest);
        }
    }

    /// Artifacts that are being brought here, for whomever.
    pub fn manifests(&self) -> impl Iterator<Item = Digest> + '_ {
        self.artifacts.keys().copied()
    }

    /// Artifacts whose closure is being brought here.
    pub fn closures(&self) -> impl Iterator<Item = Digest> + '_ {
        self.artifacts.iter().filter(|(_, artifact)| artifact.closure).map(|(manifest, _)| *manifest)
    }

    /// Whether somebody waits for a manifest.
    pub fn is_waited_for(&self) -> bool {
        self.artifacts.values().any(|artifact| !artifact.waiters.is_empty())
    }

    /// Looks after waits for manifests that are here but whose closure nobody could supply: ends them where
    /// that lasts, and no holder is about to come.
    pub fn tick<W: Holders>(
        &mut self,
        means: &mut Means<'_, W>,
        patience: Span,
        is_coming: impl Fn(&Digest) -> bool,
        out: &mut Vec<Output>,
    ) {
        let waited_for = self.artifacts.iter().filter(|(_, artifact)| !artifact.waiters.is_empty());
        let manifests: Vec<Digest> = waited_for.map(|(manifest, _)| *manifest).collect();
        for manifest in manifests {
            if !means.world.holders(&manifest).is_empty() {
                self.advance(means, &manifest, out);
                continue;
            }
            if is_coming(&manifest) {
                continue;
            }
            let Some(artifact) = self.artifacts.get(&manifest) else { continue };
            let over = |since: &Time| means.now.since(*since) >= patience;
            let ended: Vec<RequestId> = artifact
                .waiters
                .iter()
                .filter(|(_, since)| over(since))
                .map(|(request, _)| *request)
                .collect();
            for request in ended {
                self.abandon(request);
                means.wants.abandon(request, out);
                out.push(done(request, Err(WantFailure::NoHolder)));
            }
        }
    }

    /// Does whatever can be done next for one artifact.
    fn advance<W: Holders>(&mut self, means: &mut Means<'_, W>, manifest: &Digest, out: &mut Vec<Output>) {
        let Some(artifact) = self.artifacts.get_mut(manifest) else { return };
        let place = artifact.place.clone();
        let head =
            [(place.index, place.index_size, None), (place.manifest, place.manifest_size, Some(*manifest))];
        for (hash, size, digest) in head {
            if !means.held.contains(&hash) {
                let requests = artifact.waiters.keys().map(|request| Waiter::Head(*request));
                let closure = artifact.closure.then_some(Waiter::Closure(*manifest));
                for waiter in requests.chain(closure) {
                    let (manifest, told_by) = (*manifest, None);
                    let order = Order { hash, size, digest, manifest, told_by, waiter };
                    means.wants.want(means.now, order, out);
                }
            }
        }
        if matches!(artifact.index, Index::Missing) && means.held.contains(&place.index) {
            artifact.index = Index::Reading;
            out.push(Output::ReadIndex { hash: place.index });
        }
        let Index::Read(blobs) = &artifact.index else { return };
        if !means.held.contains(&place.manifest) {
            return;
        }
        let missing: Vec<BlobRef> = blobs.iter().filter(|b| !means.held.contains(&b.hash)).copied().collect();
        if missing.is_empty() || !means.world.holders(manifest).is_empty() {
            let waiters = core::mem::take(&mut artifact.waiters);
            out.extend(waiters.into_keys().map(|request| done(request, Ok(()))));
        }
        if missing.is_empty() {
            out.push(Output::Notify(Event::ArtifactComplete { manifest: *manifest }));
            self.artifacts.remove(manifest);
        } else if artifact.closure {
            for blob in missing {
                let BlobRef { digest, hash, size } = blob;
                let waiter = Waiter::Closure(*manifest);
                let (digest, told_by) = (Some(digest), None);
                let order = Order { hash, size, digest, manifest: *manifest, told_by, waiter };
                means.wants.want(means.now, order, out);
            }
        } else {
            self.drop_idle(manifest);
        }
    }

    fn waited_by(&self, request: &RequestId) -> Option<Digest> {
        let mut all = self.artifacts.iter();
        all.find(|(_, artifact)| artifact.waiters.contains_key(request)).map(|(manifest, _)| *manifest)
    }

    fn drop_idle(&mut self, manifest: &Digest) {
        if self.artifacts.get(manifest).is_some_and(|a| !a.closure && a.waiters.is_empty()) {
            self.artifacts.remove(manifest);
        }
    }
}

fn done(request: RequestId, result: Result<(), WantFailure>) -> Output {
    Output::Notify(Event::WantDone { request, result })
}
