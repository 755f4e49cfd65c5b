//! Downloads from upstreams: one for each content however many clients wait, over as many connections as it
//! takes. A client that leaves stops none. What an upstream sends is kept only if it is what it should be. Which
//! node of the mesh downloads is the protocol's to decide; who may read a download while it comes, the mirror's.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{Semaphore, watch};
use waystation_proto::{
    Digest, Hash,
    event::{PullFailure, Source},
};

use crate::{
    metrics::Metrics,
    store::{ByteStream, Growth, Incoming, IngestError, Origin, Store},
    upstream::{BlobBody, LEAST, Target, Upstream, UpstreamError, Upstreams},
};

/// All downloads of this node. Clones are the same.
#[derive(Clone)]
pub struct Downloads {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    upstreams: Upstreams,
    metrics: Metrics,
    active: Mutex<BTreeMap<Source, Arc<Download>>>,
    /// Upstreams as they are to be asked for what is about to be downloaded.
    on_behalf: Mutex<BTreeMap<Source, Upstream>>,
    /// Changes whenever one begins to come, or ends.
    begun: watch::Sender<u64>,
    /// How many may come at a time from each upstream: a slow one keeps none waiting that come from another.
    slots: BTreeMap<String, Slots>,
    /// Of an upstream's blobs that are being downloaded, for which repository.
    leads: Mutex<BTreeMap<(String, Digest), Source>>,
}

/// Manifests are small, and do not wait for blobs.
struct Slots {
    manifests: Semaphore,
    blobs: Semaphore,
}

/// What is to be downloaded.
#[derive(Clone, Debug)]
pub struct Order {
    /// What.
    pub source: Source,
    /// Its size in bytes, where a manifest told.
    pub size: Option<u64>,
    /// Whether it is a manifest.
    pub is_manifest: bool,
}

/// A blob that is coming in.
pub struct Download {
    /// Its size in bytes, as the manifest or the upstream says.
    pub size: Option<u64>,
    /// What is here of it.
    pub growth: Growth,
    /// How it ended, or nothing yet. With success, every byte is in the file and has been checked.
    pub end: watch::Receiver<Option<Result<(), String>>>,
}

impl Download {
    /// Whether it ended, and then whether all of it is there and as it should be.
    pub fn ended(&self) -> Option<bool> {
        self.end.borrow().as_ref().map(Result::is_ok)
    }
}

impl Downloads {
    /// No downloads yet.
    pub fn new(store: Store, upstreams: Upstreams, metrics: Metrics) -> Self {
        let slot = || Semaphore::new(DOWNLOADS_MAX);
        let slots = || Slots { manifests: slot(), blobs: slot() };
        let slots = upstreams.iter().map(|upstream| (upstream.config().namespace.clone(), slots())).collect();
        let (begun, leads) = (watch::Sender::new(0), Mutex::default());
        let (active, on_behalf) = (Mutex::default(), Mutex::default());
        let inner = Inner { store, upstreams, metrics, active, on_behalf, begun, slots, leads };
        Downloads { inner: Arc::new(inner) }
    }

    /// The download of this, if it has begun to come.
    pub fn find(&self, source: &Source) -> Option<Arc<Download>> {
        self.active().get(source).cloned()
    }

    /// Has a download ask the upstream on behalf of a client's request.
    pub fn on_behalf(&self, source: Source, upstream: Upstream) {
        let mut known = self.inner.on_behalf.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of what came from a member instead stay behind.
        if known.len() >= ON_BEHALF_MAX {
            known.pop_first();
        }
        known.insert(source, upstream);
    }

    /// Changes whenever a download begins to come, or ends.
    pub fn begun(&self) -> watch::Receiver<u64> {
        self.inner.begun.subscribe()
    }

    /// How many are under way.
    pub fn count(&self) -> usize {
        self.active().len()
    }

    /// Downloads it. When this returns, it is durable, linked and has that hash and size, or nothing is kept.
    pub async fn run(&self, order: Order) -> Result<(Hash, u64), PullFailure> {
        let Order { source, size, is_manifest } = order;
        let (upstream, path) =
            self.inner.upstreams.of_repository(&source.repository).ok_or(PullFailure::Unknown)?;
        let asked_for = self.inner.on_behalf.lock().unwrap_or_else(PoisonError::into_inner).remove(&source);
        let upstream = asked_for.unwrap_or(upstream);
        let namespace = upstream.config().namespace.clone();
        let result = if is_manifest {
            self.manifest(&upstream, &path, &source).await
        } else {
            self.blob_once(&upstream, &path, &source, size).await
        };
        match &result {
            Ok((_, size)) => {
                self.inner.store.uses().touch(&source.digest);
                self.inner.metrics.pulled(&namespace, *size);
            }
            Err(PullFailure::Unknown) => {}
            Err(why) => {
                tracing::warn!(upstream = namespace, digest = %source.digest, repository = %source.repository,
                    ?why, "could not be pulled through");
            }
        }
        result
    }

    async fn manifest(
        &self,
        upstream: &Upstream,
        path: &str,
        source: &Source,
    ) -> Result<(Hash, u64), PullFailure> {
        let slots = self.inner.slots.get(&upstream.config().namespace);
        let _slot = slots.ok_or(PullFailure::Unknown)?.manifests.acquire().await;
        if let Some(here) = self.here(source) {
            return Ok(here);
        }
        let manifest = upstream.manifest(path, &Target::Digest(source.digest)).await.map_err(failure)?;
        let (repository, bytes) = (Some(&source.repository), manifest.bytes);
        let held = self.inner.store.ingest_bytes(repository, source.digest, bytes).await.map_err(refused)?;
        Ok((held.hash, held.size))
    }

    /// What was ordered, where another download has brought it after that.
    fn here(&self, source: &Source) -> Option<(Hash, u64)> {
        let index = self.inner.store.index();
        index.link(&source.repository, &source.digest)?;
        index.held(&source.digest).map(|held| (held.hash, held.size))
    }

    /// Downloads a blob, or waits for it where it is coming for another repository of the upstream.
    async fn blob_once(
        &self,
        upstream: &Upstream,
        path: &str,
        source: &Source,
        size: Option<u64>,
    ) -> Result<(Hash, u64), PullFailure> {
        let namespace = &upstream.config().namespace;
        let slots = self.inner.slots.get(namespace).ok_or(PullFailure::Unknown)?;
        loop {
            let _lead = match self.lead(namespace, source) {
                Ok(lead) => Some(lead),
                Err(leader) => match self.share(upstream, path, source, size, &leader).await {
                    Shared::Ended(result) => return result,
                    Shared::Again => continue,
                    Shared::Alone => None,
                },
            };
            let _slot = slots.blobs.acquire().await;
            if let Some(here) = self.here(source) {
                return Ok(here);
            }
            if let Some(linked) = self.brought_for_another(upstream, path, source).await {
                return linked;
            }
            return self.blob(upstream, path, source, size).await;
        }
    }

    /// Waits for a blob that is coming for another repository, if it is known to belong to this one too; it may
    /// be read here meanwhile.
    async fn share(
        &self,
        upstream: &Upstream,
        path: &str,
        source: &Source,
        size: Option<u64>,
        leader: &Source,
    ) -> Shared {
        let size = match size {
            // A manifest of this repository names it.
            Some(size) => size,
            None => match upstream.blob_size(path, &source.digest).await {
                Ok(Some(size)) => size,
                Err(error @ UpstreamError::NotFound) => return Shared::Ended(Err(failure(error))),
                Ok(None) | Err(_) => return Shared::Alone,
            },
        };
        let key = (upstream.config().namespace.clone(), source.digest);
        let (mut begun, mut listed) = (self.begun(), None);
        while self.leads().get(&key) == Some(leader) {
            if let Some(download) = self.find(leader).filter(|_| listed.is_none()) {
                if download.size.is_some_and(|other| other != size) {
                    return Shared::Alone;
                }
                listed = Some(self.list(source.clone(), download));
            }
            if begun.changed().await.is_err() {
                return Shared::Alone;
            }
        }
        let held = self.inner.store.index().held(&source.digest).filter(|held| held.size == size);
        let Some(held) = held else { return Shared::Again };
        let linked = self.inner.store.link(&source.repository, &held).await;
        Shared::Ended(linked.map(|()| (held.hash, held.size)).map_err(refused))
    }

    /// A blob that is here, but not in this repository: it belongs to it if the upstream says so.
    async fn brought_for_another(
        &self,
        upstream: &Upstream,
        path: &str,
        source: &Source,
    ) -> Option<Result<(Hash, u64), PullFailure>> {
        let held = self.inner.store.index().held(&source.digest)?;
        let size = upstream.blob_size(path, &source.digest).await.ok().flatten()?;
        if size != held.size {
            return None;
        }
        let linked = self.inner.store.link(&source.repository, &held).await;
        Some(linked.map(|()| (held.hash, held.size)).map_err(refused))
    }

    /// Makes a download the one of this blob, or says for which repository another is.
    fn lead(&self, namespace: &str, source: &Source) -> Result<Lead, Source> {
        let key = (namespace.to_owned(), source.digest);
        let mut leads = self.leads();
        if let Some(leader) = leads.get(&key) {
            return Err(leader.clone());
        }
        leads.insert(key.clone(), source.clone());
        Ok(Lead { downloads: self.clone(), key })
    }

    async fn blob(
        &self,
        upstream: &Upstream,
        path: &str,
        source: &Source,
        expected: Option<u64>,
    ) -> Result<(Hash, u64), PullFailure> {
        let mut incoming =
            self.inner.store.incoming(&source.repository, source.digest).await.map_err(refused)?;
        let first = begin(upstream, path, source, expected, &mut incoming).await?;
        let size = expected.or(first.size);
        incoming.comes_from(Origin { size, etag: first.etag.clone() });
        let end = watch::Sender::new(None);
        let download = Download { size, growth: incoming.growth(), end: end.subscribe() };
        let _listed = self.list(source.clone(), Arc::new(download));
        let received = self.receive(upstream, path, source, size, &mut incoming, first).await;
        let checked = match received {
            Ok(()) => incoming.check().await.map_err(refused),
            Err(failure) => {
                // Whoever sends nonsense once may have done so from the start.
                match failure {
                    PullFailure::Away(_) => incoming.leave().await,
                    _ => incoming.forget().await,
                }
                Err(failure)
            }
        };
        // Clients that read along have their last bytes before the disk has them.
        end.send_replace(Some(checked.clone().map_err(|failure| text(&failure))));
        checked?;
        let held = incoming.finish(&source.repository).await.map_err(refused)?;
        // Members are about to be told that it can be had here.
        self.inner.store.servable(held.hash).await;
        Ok((held.hash, held.size))
    }

    /// Receives all of a blob, over further connections where one breaks.
    async fn receive(
        &self,
        upstream: &Upstream,
        path: &str,
        source: &Source,
        size: Option<u64>,
        incoming: &mut Incoming,
        first: BlobBody,
    ) -> Result<(), PullFailure> {
        let limit = size.unwrap_or(UNTOLD_MAX);
        let mut next = Ok(first);
        let (mut fruitless, mut since) = (0, Instant::now());
        loop {
            let before = incoming.length();
            let cut = match next {
                Ok(body) => match continued(body, before) {
                    Some(body) => match incoming.append(body, limit).await {
                        Ok(()) if size.is_none_or(|size| incoming.length() == size) => return Ok(()),
                        Ok(()) => "the upstream ended the blob early".to_owned(),
                        Err(IngestError::Interrupted(why)) => why,
                        Err(error) => return Err(refused(error)),
                    },
                    None => return Err(PullFailure::Wrong("the upstream left out a part of it".into())),
                },
                Err(UpstreamError::Unavailable(why)) => why,
                Err(error) => return Err(failure(error)),
            };
            if incoming.length() >= before + LEAST {
                (fruitless, since) = (0, Instant::now());
            } else {
                fruitless += 1;
            }
            // Clients that read along are cut if this is given up, so a link that is down for a moment is waited for.
            let patience = if incoming.length() >= LEAST { PATIENCE } else { Duration::ZERO };
            if fruitless >= FRUITLESS_MAX && since.elapsed() >= patience {
                return Err(PullFailure::Away(cut));
            }
            tracing::debug!(digest = %source.digest, have = incoming.length(), why = cut,
                "a download was cut; going on where it ended");
            tokio::time::sleep(PAUSE * 2_u32.pow(fruitless.min(FRUITLESS_MAX))).await;
            next = upstream.blob(path, &source.digest, incoming.length()).await;
        }
    }

    /// Shows a download to clients for as long as what is returned lives.
    fn list(&self, source: Source, download: Arc<Download>) -> Listed {
        self.active().insert(source.clone(), download);
        self.inner.begun.send_modify(|count| *count += 1);
        Listed { downloads: self.clone(), source }
    }

    fn leads(&self) -> MutexGuard<'_, BTreeMap<(String, Digest), Source>> {
        self.inner.leads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn active(&self) -> MutexGuard<'_, BTreeMap<Source, Arc<Download>>> {
        self.inner.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A download that clients see.
struct Listed {
    downloads: Downloads,
    source: Source,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.downloads.active().remove(&self.source);
    }
}

/// What came of waiting for a blob that was coming for another repository.
enum Shared {
    /// It is here for this one too, or does not belong to it.
    Ended(Result<(Hash, u64), PullFailure>),
    /// It did not come.
    Again,
    /// Whether it belongs here too only a download of its own can tell.
    Alone,
}

/// The download of a blob for which others wait.
struct Lead {
    downloads: Downloads,
    key: (String, Digest),
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.downloads.leads().remove(&self.key);
        self.downloads.inner.begun.send_modify(|count| *count += 1);
    }
}

/// Asks for a blob, from where an earlier download of it ended if it is still the same; else what is here of it goes.
async fn begin(
    upstream: &Upstream,
    path: &str,
    source: &Source,
    expected: Option<u64>,
    incoming: &mut Incoming,
) -> Result<BlobBody, PullFailure> {
    let mut whole = None;
    if let Some(origin) = incoming.origin().cloned() {
        let have = incoming.length();
        match upstream.blob_if(path, &source.digest, have, origin.etag.as_deref()).await {
            Ok(body) if body.from == have && is_same(&origin, &body, expected) => {
                tracing::debug!(digest = %source.digest, have, "going on with an earlier download");
                return Ok(body);
            }
            Ok(body) => whole = Some(body).filter(|body| body.from == 0),
            // A range that it does not have, or contradicts itself about.
            Err(UpstreamError::Invalid(why)) => {
                tracing::debug!(digest = %source.digest, why, "an earlier download begins anew");
            }
            Err(error) => return Err(failure(error)),
        }
        incoming.begin_anew().await.map_err(refused)?;
    }
    let first = match whole {
        Some(body) => body,
        None => upstream.blob(path, &source.digest, 0).await.map_err(failure)?,
    };
    match (expected, first.size) {
        (Some(expected), Some(size)) if expected != size => {
            let text = format!("the upstream has {size} bytes for a blob of {expected}");
            Err(PullFailure::Wrong(text))
        }
        _ => Ok(first),
    }
}

/// Whether what comes goes on with what came from there.
fn is_same(origin: &Origin, body: &BlobBody, expected: Option<u64>) -> bool {
    let differ =
        |one: Option<u64>, other: Option<u64>| one.zip(other).is_some_and(|(one, other)| one != other);
    let etags = origin.etag.as_ref().zip(body.etag.as_ref());
    !differ(origin.size, body.size)
        && !differ(origin.size, expected)
        && !differ(expected, body.size)
        && etags.is_none_or(|(before, now)| before == now)
}

/// The body from `have` on, where it does not begin after that.
fn continued(body: BlobBody, have: u64) -> Option<ByteStream> {
    let mut skip = have.checked_sub(body.from)?;
    if skip == 0 {
        return Some(body.body);
    }
    let rest = body.body.filter_map(move |piece| {
        let rest = piece.map(|mut piece: Bytes| {
            let cut = usize::try_from(skip).map_or(piece.len(), |skip| skip.min(piece.len()));
            skip -= cut as u64;
            piece.split_off(cut)
        });
        std::future::ready(Some(rest).filter(|rest| rest.as_ref().map_or(true, |rest| !rest.is_empty())))
    });
    Some(rest.boxed())
}

fn failure(error: UpstreamError) -> PullFailure {
    let text = error.to_string();
    match error {
        UpstreamError::NotFound | UpstreamError::Denied(_) => PullFailure::Unknown,
        UpstreamError::RateLimited { .. } | UpstreamError::Unavailable(_) => PullFailure::Away(text),
        UpstreamError::Invalid(_) => PullFailure::Wrong(text),
    }
}

fn refused(error: IngestError) -> PullFailure {
    match error {
        IngestError::Storage(why) | IngestError::Full(why) => PullFailure::Storage(why),
        other => PullFailure::Wrong(format!("what the upstream sent is not what was asked for: {other}")),
    }
}

fn text(failure: &PullFailure) -> String {
    match failure {
        PullFailure::Unknown => "the upstream does not have it".to_owned(),
        PullFailure::Away(why) | PullFailure::Wrong(why) | PullFailure::Storage(why) => why.clone(),
    }
}

/// Downloads of manifests, and of blobs, at a time from one upstream; more wait.
const DOWNLOADS_MAX: usize = 16;
/// Requests on whose behalf something is about to be downloaded.
const ON_BEHALF_MAX: usize = 4096;
/// Largest blob whose size neither a manifest nor the upstream told, in bytes: an answer that never ends must not fill
/// the disk. Registries tell; behind proxies that do not, the client has read the manifest first.
const UNTOLD_MAX: u64 = 256 << 20;
/// Connections in a row that bring less than [`LEAST`] bytes before a download is given up,
const FRUITLESS_MAX: u32 = 5;
/// and how long nothing has come then, where it had begun.
const PATIENCE: Duration = Duration::from_secs(60);
/// Before the next connection, doubled with each that brought nothing.
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::UpstreamConfig;

    #[test]
    fn a_full_disk_is_no_fault_of_the_upstream() {
        let full = refused(IngestError::Full("no room".into()));
        assert_eq!(full, PullFailure::Storage("no room".into()));
    }

    #[test]
    fn what_is_of_another_size_or_tag_is_not_gone_on_with() {
        let goes_on = |origin: (Option<u64>, Option<&str>), now: (Option<u64>, Option<&str>), expected| {
            let tag = |tag: Option<&str>| tag.map(str::to_owned);
            let origin = Origin { size: origin.0, etag: tag(origin.1) };
            let body = futures_util::stream::empty().boxed();
            is_same(&origin, &BlobBody { size: now.0, from: 1, etag: tag(now.1), body }, expected)
        };
        let (ten, nine) = (Some(10), Some(9));
        assert!(goes_on((ten, Some("a")), (ten, Some("a")), ten));
        assert!(goes_on((None, None), (None, None), None));
        assert!(goes_on((ten, None), (None, Some("a")), None));
        assert!(!goes_on((ten, None), (nine, None), None));
        assert!(!goes_on((ten, None), (None, None), nine));
        assert!(!goes_on((None, None), (ten, None), nine));
        assert!(!goes_on((ten, Some("a")), (ten, Some("b")), ten));
    }

    #[tokio::test]
    async fn requests_that_no_download_came_of_keep_no_room_from_others() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).await.expect("opened").store;
        let upstreams = Upstreams::new(&[UpstreamConfig::named("docker.io")]).expect("one");
        let upstream = upstreams.for_namespace("docker.io").expect("known");
        let downloads = Downloads::new(store, upstreams, Metrics::default());
        let source = |n: usize| {
            let digest = Digest::Sha256(*blake3::hash(&n.to_le_bytes()).as_bytes());
            Source { repository: "docker.io/library/x".parse().expect("valid"), digest }
        };
        for n in 0..=ON_BEHALF_MAX {
            downloads.on_behalf(source(n), upstream.clone());
        }
        let known = downloads.inner.on_behalf.lock().expect("nobody panicked");
        assert!(known.len() == ON_BEHALF_MAX && known.contains_key(&source(ON_BEHALF_MAX)));
    }
}
