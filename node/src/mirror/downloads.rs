//! Downloads from upstreams: one for each content however many clients wait, over as many connections as it
//! takes. A client that leaves stops none. What an upstream sends is kept only if it is what it should be. Which
//! node of the mesh downloads is the protocol's to decide; who may read a download while it comes, the mirror's.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{Semaphore, watch};
use waystation_proto::{
    Hash,
    event::{PullFailure, Source},
};

use crate::{
    metrics::Metrics,
    store::{ByteStream, Growth, Incoming, IngestError, Store},
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
    /// Changes whenever one begins to come.
    begun: watch::Sender<u64>,
    /// How many may come at a time.
    slots: Semaphore,
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

impl Downloads {
    /// No downloads yet.
    pub fn new(store: Store, upstreams: Upstreams, metrics: Metrics) -> Self {
        let (begun, slots) = (watch::Sender::new(0), Semaphore::new(DOWNLOADS_MAX));
        let (active, on_behalf) = (Mutex::default(), Mutex::default());
        Downloads { inner: Arc::new(Inner { store, upstreams, metrics, active, on_behalf, begun, slots }) }
    }

    /// The download of this, if it has begun to come.
    pub fn find(&self, source: &Source) -> Option<Arc<Download>> {
        self.active().get(source).cloned()
    }

    /// Has a download ask the upstream on behalf of a client's request.
    pub fn on_behalf(&self, source: Source, upstream: Upstream) {
        let mut known = self.inner.on_behalf.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < ON_BEHALF_MAX {
            known.insert(source, upstream);
        }
    }

    /// Changes whenever a download begins to come.
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
        let _slot = self.inner.slots.acquire().await;
        // Another download may have ended after this one was ordered.
        let index = self.inner.store.index();
        let linked = index.link(&source.repository, &source.digest);
        if let Some(held) = linked.and_then(|_| index.held(&source.digest)) {
            return Ok((held.hash, held.size));
        }
        let result = if is_manifest {
            self.manifest(&upstream, &path, &source).await
        } else {
            self.blob(&upstream, &path, &source, size).await
        };
        let namespace = upstream.config().namespace.clone();
        match &result {
            Ok((_, size)) => self.inner.metrics.pulled(&namespace, *size),
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
        let manifest = upstream.manifest(path, &Target::Digest(source.digest)).await.map_err(failure)?;
        let (repository, bytes) = (Some(&source.repository), manifest.bytes);
        let held = self.inner.store.ingest_bytes(repository, source.digest, bytes).await.map_err(refused)?;
        Ok((held.hash, held.size))
    }

    async fn blob(
        &self,
        upstream: &Upstream,
        path: &str,
        source: &Source,
        expected: Option<u64>,
    ) -> Result<(Hash, u64), PullFailure> {
        let first = upstream.blob(path, &source.digest, 0).await.map_err(failure)?;
        if let (Some(expected), Some(size)) = (expected, first.size)
            && expected != size
        {
            let text = format!("the upstream has {size} bytes for a blob of {expected}");
            return Err(PullFailure::Wrong(text));
        }
        let size = expected.or(first.size);
        let mut incoming = self.inner.store.incoming(source.digest).await.map_err(refused)?;
        let end = watch::Sender::new(None);
        let download = Download { size, growth: incoming.growth(), end: end.subscribe() };
        let _listed = self.list(source.clone(), download);
        let received = self.receive(upstream, path, source, size, &mut incoming, first).await;
        let checked = match received {
            Ok(()) => incoming.check().await.map_err(refused),
            Err(failure) => Err(failure),
        };
        // Clients that read along have their last bytes before the disk has them.
        end.send_replace(Some(checked.clone().map_err(|failure| text(&failure))));
        checked?;
        let held = incoming.finish(&source.repository).await.map_err(refused)?;
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
        let mut fruitless = 0;
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
            fruitless = if incoming.length() >= before + LEAST { 0 } else { fruitless + 1 };
            if fruitless >= FRUITLESS_MAX {
                return Err(PullFailure::Away(cut));
            }
            tracing::debug!(digest = %source.digest, have = incoming.length(), why = cut,
                "a download was cut; going on where it ended");
            tokio::time::sleep(PAUSE * 2_u32.pow(fruitless)).await;
            next = upstream.blob(path, &source.digest, incoming.length()).await;
        }
    }

    /// Shows a download to clients for as long as what is returned lives.
    fn list(&self, source: Source, download: Download) -> Listed {
        self.active().insert(source.clone(), Arc::new(download));
        self.inner.begun.send_modify(|count| *count += 1);
        Listed { downloads: self.clone(), source }
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
        IngestError::Storage(why) => PullFailure::Storage(why),
        other => PullFailure::Wrong(format!("what the upstream sent is not what was asked for: {other}")),
    }
}

fn text(failure: &PullFailure) -> String {
    match failure {
        PullFailure::Unknown => "the upstream does not have it".to_owned(),
        PullFailure::Away(why) | PullFailure::Wrong(why) | PullFailure::Storage(why) => why.clone(),
    }
}

/// Downloads at a time; more wait.
const DOWNLOADS_MAX: usize = 16;
/// Requests on whose behalf something is about to be downloaded.
const ON_BEHALF_MAX: usize = 4096;
/// Largest blob whose size neither a manifest nor the upstream told, in bytes: an answer that never ends must not fill
/// the disk. Registries tell; behind proxies that do not, the client has read the manifest first.
const UNTOLD_MAX: u64 = 256 << 20;
/// Connections in a row that bring less than [`LEAST`] bytes before a download is given up.
const FRUITLESS_MAX: u32 = 5;
/// Before the next connection, doubled with each that brought nothing.
const PAUSE: Duration = Duration::from_millis(100);
