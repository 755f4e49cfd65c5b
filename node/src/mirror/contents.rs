//! Manifests and blobs of upstreams as clients want them: from here, from a member, or from the upstream, and
//! visible only where a manifest of the same repository, or the upstream itself, says that they belong. Which of
//! the three it is, the protocol decides.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use serde_json::{Value, json};
use waystation_oci::manifest::{self, Parsed};
use waystation_proto::{
    Digest, NodeId, RepoName,
    body::HoldingState,
    event::{Source, WantFailure},
    index::EdgeKind,
};

use super::{
    downloads::{Download, Downloads},
    growing::HELD_BACK,
    names::Place,
};
use crate::{
    driver::handle::{PullOrder, ReplicaHandle},
    store::{Held, Store},
    upstream::UpstreamError,
};

/// The contents of upstreams that are here or can be had.
pub struct Contents {
    store: Store,
    replica: ReplicaHandle,
    node: NodeId,
    downloads: Downloads,
    named: Mutex<BTreeMap<(RepoName, Digest), Named>>,
    looked: Mutex<BTreeMap<Digest, Option<Referrer>>>,
}

/// A manifest of an upstream that is here.
pub struct Manifest {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: Bytes,
    /// What it says.
    pub parsed: Parsed,
}

/// A blob of an upstream.
pub enum Blob {
    /// It is here.
    Held(Held),
    /// It is coming; its size in bytes is known.
    Coming(Arc<Download>, u64),
}

/// Why something of an upstream cannot be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// The protocol says so.
    #[error(transparent)]
    Want(#[from] WantFailure),
    /// The upstream gave something that is no manifest.
    #[error("what the upstream has under this digest cannot be served: {0}")]
    NotManifest(String),
    /// The manifest is here, but what it needs is not to be had.
    #[error(
        "{missing} of its blobs are not here, no member has them, and the upstream does not give them now"
    )]
    Incomplete {
        /// How many.
        missing: usize,
    },
    /// The disk failed.
    #[error("could not be read: {0}")]
    Storage(String),
}

/// What a manifest refers to, and its descriptor.
type Referrer = (Digest, Value);

/// That a manifest of the repository names a blob.
#[derive(Clone, Copy)]
struct Named {
    manifest: Digest,
    size: u64,
}

impl Contents {
    /// What is in the store, and what can be brought there.
    pub fn new(store: Store, replica: ReplicaHandle, node: NodeId, downloads: Downloads) -> Self {
        Contents { store, replica, node, downloads, named: Mutex::default(), looked: Mutex::default() }
    }

    /// A manifest, with the promise that what it needs can be supplied too: whoever gets it asks for that next.
    /// An index needs nothing but itself: each of its manifests is asked for on its own.
    ///
    /// # Errors
    /// See [`ContentError`].
    pub async fn manifest(&self, place: &Place, digest: Digest) -> Result<Manifest, ContentError> {
        let held = match self.here(&place.repository, &digest) {
            Some(held) => held,
            None => {
                self.pull(place, digest, None, None, true).await?;
                let held = self.store.index().held(&digest);
                held.ok_or_else(|| ContentError::Storage("it is gone again".into()))?
            }
        };
        if held.size > MANIFEST_MAX {
            return Err(ContentError::NotManifest(format!("it has {} bytes", held.size)));
        }
        let bytes = self.store.read(held.hash, MANIFEST_MAX).await;
        let bytes = bytes.map_err(|error| ContentError::Storage(error.to_string()))?;
        let parsed =
            manifest::parse(&bytes, None).map_err(|error| ContentError::NotManifest(error.to_string()))?;
        self.note(&place.repository, &digest, &parsed);
        let mut missing = self.missing(&parsed);
        if let Some(first) = missing.next()
            && !self.is_elsewhere(&digest)
            && !self.is_given(place, first, digest).await
        {
            return Err(ContentError::Incomplete { missing: 1 + missing.count() });
        }
        drop(missing);
        Ok(Manifest { digest, bytes, parsed })
    }

    /// A blob: at once where it is here or has begun to come, otherwise when it is here.
    ///
    /// # Errors
    /// See [`ContentError`].
    pub async fn blob(&self, place: &Place, digest: Digest) -> Result<Blob, ContentError> {
        if let Some(held) = self.visible(place, &digest).await? {
            return Ok(Blob::Held(held));
        }
        let named = self.named(&place.repository, &digest);
        let (size, manifest) = (named.map(|named| named.size), named.map(|named| named.manifest));
        let source = Source { repository: place.repository.clone(), digest };
        let mut begun = self.downloads.begun();
        let pulling = self.pull(place, digest, size, manifest, false);
        let mut pulling = std::pin::pin!(pulling);
        loop {
            let coming = self.downloads.find(&source);
            let coming = coming.and_then(|download| download.size.map(|size| (download, size)));
            let mut end = match coming {
                Some((download, size)) if size > HELD_BACK || download.ended() == Some(true) => {
                    return Ok(Blob::Coming(download, size));
                }
                // Nothing of it can be handed out before its end, so that can be said first.
                Some((download, _)) if download.ended().is_none() => Some(download.end.clone()),
                _ => None,
            };
            tokio::select! {
                () = async { match &mut end {
                    Some(end) => drop(end.changed().await),
                    None => std::future::pending().await,
                } } => {}
                pulled = &mut pulling => {
                    pulled?;
                    let held = self.store.index().held(&digest);
                    return held.map(Blob::Held).ok_or(ContentError::Storage("it is gone again".into()));
                }
                changed = begun.changed() => if changed.is_err() {
                    return Err(ContentError::Storage("the node is stopping".into()));
                }
            }
        }
    }

    /// How large a blob is that could be given.
    ///
    /// # Errors
    /// See [`ContentError`].
    pub async fn blob_size(&self, place: &Place, digest: Digest) -> Result<u64, ContentError> {
        if let Some(held) = self.visible(place, &digest).await? {
            return Ok(held.size);
        }
        let source = Source { repository: place.repository.clone(), digest };
        if let Some(size) = self.downloads.find(&source).and_then(|download| download.size) {
            return Ok(size);
        }
        let named = self.named(&place.repository, &digest);
        if let Some(named) = named
            && (!place.upstream.is_away() || self.is_elsewhere(&named.manifest))
        {
            return Ok(named.size);
        }
        match place.upstream.blob_size(&place.path, &digest).await {
            Ok(Some(size)) => Ok(size),
            Ok(None) | Err(_) => Err(ContentError::Want(WantFailure::Unknown)),
        }
    }

    /// Brings everything here that a manifest needs, and tells the mesh when it is. What cannot be had now is
    /// left to those who ask for it.
    pub async fn complete(&self, place: &Place, manifest: &Manifest) {
        let missing: Vec<(Digest, u64)> = self.missing(&manifest.parsed).collect();
        for (digest, size) in missing {
            let pulled = self.pull(place, digest, Some(size), Some(manifest.digest), false).await;
            if let Err(error) = pulled {
                tracing::debug!(%digest, repository = %place.repository, %error, "not brought here");
                return;
            }
        }
        for (digest, _) in needed(&manifest.parsed) {
            if self.visible(place, &digest).await.is_err() {
                return;
            }
        }
        if self.store.index().holding(&manifest.digest, &self.node) != Some(HoldingState::Complete) {
            self.replica.keeping(manifest.digest, HoldingState::Complete).await;
        }
    }

    /// Whether everything that a manifest needs is here.
    pub fn is_complete(&self, manifest: &Manifest) -> bool {
        let told = self.store.index().holding(&manifest.digest, &self.node);
        told == Some(HoldingState::Complete) && self.missing(&manifest.parsed).next().is_none()
    }

    /// Descriptors of manifests of the repository that are here and refer to this one, and whether all that is here
    /// was looked at: what was not looked at before is read, of which one client has only so much done.
    pub async fn referrers(&self, repository: &RepoName, subject: &Digest) -> (Vec<Value>, bool) {
        let linked = self.store.index().linked(repository, REFERRER_MAX, REFERRERS_MAX + 1);
        let (mut found, mut complete, mut read) = (Vec::new(), linked.len() <= REFERRERS_MAX, 0);
        for held in linked.into_iter().take(REFERRERS_MAX) {
            let known = self.looked().get(&held.digest).cloned();
            let referrer = match known {
                Some(known) => known,
                None if read + held.size > READ_MAX => {
                    complete = false;
                    continue;
                }
                None => {
                    read += held.size;
                    self.look(&held).await
                }
            };
            found.extend(referrer.filter(|(of, _)| of == subject).map(|(_, descriptor)| descriptor));
        }
        (found, complete)
    }

    /// Whether a blob is a manifest that refers to another. It is so for good.
    async fn look(&self, held: &Held) -> Option<Referrer> {
        let bytes = self.store.read(held.hash, REFERRER_MAX).await.ok()?;
        let referrer = referrer(held, &bytes);
        let mut looked = self.looked();
        if looked.len() >= LOOKED_MAX {
            looked.pop_first();
        }
        looked.insert(held.digest, referrer.clone());
        referrer
    }

    /// A blob that is here and belongs to the repository; nothing where only the upstream can tell, by giving it.
    ///
    /// # Errors
    /// `Unknown` where it does not belong.
    async fn visible(&self, place: &Place, digest: &Digest) -> Result<Option<Held>, ContentError> {
        if let Some(held) = self.here(&place.repository, digest) {
            return Ok(Some(held));
        }
        let Some(held) = self.store.index().held(digest) else { return Ok(None) };
        // Its bytes came with another repository. It is shown in this one if it belongs here too.
        if self.named(&place.repository, digest).is_none_or(|named| named.size != held.size) {
            match place.upstream.blob_size(&place.path, digest).await {
                Ok(Some(size)) if size == held.size => {}
                Ok(Some(_)) | Err(_) => return Err(ContentError::Want(WantFailure::Unknown)),
                // It refuses to say, which may mean anything.
                Ok(None) => return Ok(None),
            }
        }
        let linked = self.store.link(&place.repository, &held).await;
        linked.map_err(|error| ContentError::Storage(error.to_string()))?;
        Ok(Some(held))
    }

    /// Whether a blob of a manifest can be had: of the upstream, which has just answered or is asked, or else of
    /// a member that has not told yet.
    async fn is_given(&self, place: &Place, (digest, size): (Digest, u64), manifest: Digest) -> bool {
        use UpstreamError::{NotFound, RateLimited, Unavailable};
        if !place.upstream.is_away() {
            if place.upstream.has_answered_within(RELIED_ON) {
                return true;
            }
            let answer = place.upstream.blob_size(&place.path, &digest).await;
            if !matches!(answer, Err(NotFound | Unavailable(_) | RateLimited { .. })) {
                return true;
            }
        }
        let order = self.order(place, digest, (Some(size), Some(manifest)), false);
        let found = self.replica.pull(PullOrder { away: true, ..order });
        // Whoever has none says so sooner: it is on its way.
        !matches!(tokio::time::timeout(LOOKED_FOR, found).await, Ok(Err(_)))
    }

    /// What is linked in the repository and held.
    fn here(&self, repository: &RepoName, digest: &Digest) -> Option<Held> {
        let index = self.store.index();
        index.link(repository, digest)?;
        index.held(digest)
    }

    async fn pull(
        &self,
        place: &Place,
        digest: Digest,
        size: Option<u64>,
        manifest: Option<Digest>,
        is_manifest: bool,
    ) -> Result<(), WantFailure> {
        self.replica.pull(self.order(place, digest, (size, manifest), is_manifest)).await
    }

    fn order(
        &self,
        place: &Place,
        digest: Digest,
        (size, manifest): (Option<u64>, Option<Digest>),
        is_manifest: bool,
    ) -> PullOrder {
        let source = Source { repository: place.repository.clone(), digest };
        self.downloads.on_behalf(source.clone(), place.upstream.clone());
        PullOrder { source, size, manifest, is_manifest, away: place.upstream.is_away() }
    }

    /// What a manifest needs and is not here.
    fn missing(&self, parsed: &Parsed) -> impl Iterator<Item = (Digest, u64)> {
        needed(parsed).filter(|(digest, _)| self.store.index().held(digest).is_none())
    }

    /// Whether another node says to have all of an artifact.
    fn is_elsewhere(&self, manifest: &Digest) -> bool {
        let holders = self.store.index().holders(manifest);
        holders.iter().any(|(node, state)| *node != self.node && *state == HoldingState::Complete)
    }

    /// Remembers what a manifest of the repository names.
    fn note(&self, repository: &RepoName, manifest: &Digest, parsed: &Parsed) {
        let mut named = self.names();
        if named.len() > NAMED_MAX {
            // Whoever asks for a blob has just asked for its manifest, so little of this is ever needed again.
            named.clear();
        }
        for (digest, size) in needed(parsed) {
            named.insert((repository.clone(), digest), Named { manifest: *manifest, size });
        }
    }

    fn named(&self, repository: &RepoName, digest: &Digest) -> Option<Named> {
        self.names().get(&(repository.clone(), *digest)).copied()
    }

    fn looked(&self) -> MutexGuard<'_, BTreeMap<Digest, Option<Referrer>>> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn names(&self) -> MutexGuard<'_, BTreeMap<(RepoName, Digest), Named>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a manifest refers to, and its descriptor (distribution-spec, "Listing Referrers").
fn referrer(held: &Held, bytes: &[u8]) -> Option<Referrer> {
    let parsed = manifest::parse(bytes, None).ok()?;
    let subject = parsed.subject()?;
    let mut descriptor = json!({
        "mediaType": parsed.media_type(), "digest": held.digest.to_string(), "size": held.size,
    });
    if let Some(artifact_type) = parsed.artifact_type() {
        descriptor["artifactType"] = artifact_type.into();
    }
    if let Ok(mut document) = serde_json::from_slice::<Value>(bytes)
        && document["annotations"].is_object()
    {
        descriptor["annotations"] = document["annotations"].take();
    }
    Some((subject, descriptor))
}

/// Config and layers, with their sizes.
fn needed(parsed: &Parsed) -> impl Iterator<Item = (Digest, u64)> {
    let edges = parsed.edges().iter();
    edges
        .filter(|edge| matches!(edge.kind, EdgeKind::Config | EdgeKind::Layer))
        .map(|edge| (edge.digest, edge.size))
}

/// How long after an answer of an upstream it is taken to be there.
const RELIED_ON: Duration = Duration::from_secs(5);
/// How long members are asked for a blob before it is taken to be coming.
const LOOKED_FOR: Duration = Duration::from_secs(2);
/// Longest manifest that is looked at as one that may refer to another, in bytes.
const REFERRER_MAX: u64 = 256 << 10;
/// How many are looked at.
const REFERRERS_MAX: usize = 1000;
/// Bytes that are read for one list.
const READ_MAX: u64 = 16 << 20;
/// Blobs of which it is remembered whether they refer to something. Each takes as much as its descriptor.
const LOOKED_MAX: usize = 4096;
/// Longest manifest that is read, in bytes.
const MANIFEST_MAX: u64 = 16 << 20;
/// Blobs that are remembered as named by a manifest.
const NAMED_MAX: usize = 100_000;
