//! Pulling through: the contents of upstreams, served as if they were here. Owns what an upstream's name means,
//! where its tags point, and how its contents come; who may have them is for `registry.rs`, how upstreams are
//! talked to for `upstream.rs`, and who of the mesh downloads what for the protocol.

mod contents;
mod downloads;
mod entitlement;
mod growing;
mod kept;
mod names;
mod own;
mod tags;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{StreamExt, stream};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use waystation_proto::{Digest, NodeId, RepoName, Tag, index::EdgeKind};

use self::{contents::Contents, entitlement::Entitlements, kept::Kept, own::Own, tags::Tags};
pub use self::{
    contents::{Blob, ContentError, Manifest},
    downloads::{Downloads, Order},
    entitlement::Entitled,
    growing::GrowingReaders,
    names::{Names, Place, Target},
    own::Wanted,
    tags::Resolved,
};
use crate::{
    access::{Authority, Entitlement},
    driver::handle::ReplicaHandle,
    secret::Secret,
    store::Store,
    upstream::{Access, UpstreamError, Upstreams},
};

/// The upstreams' contents as this node serves them. Clones are the same.
#[derive(Clone)]
pub struct Mirror {
    inner: Arc<Inner>,
}

struct Inner {
    upstreams: Upstreams,
    /// What clients call the mesh.
    names: Vec<String>,
    own: Own,
    store: Store,
    tags: Tags,
    contents: Contents,
    entitlements: Entitlements,
    background: mpsc::Sender<Errand>,
    /// Manifests that are being completed, or wait for it.
    errands: Mutex<BTreeSet<(RepoName, Digest)>>,
}

/// What a mirror has to know of its node.
#[derive(Clone, Debug, Default)]
pub struct MirrorConfig {
    /// What clients call the mesh.
    pub names: Vec<String>,
    /// Whether there may be members that know more of the mesh than this node when it starts.
    pub others: bool,
    /// File in which it is kept whom upstreams call entitled; absent: nowhere.
    pub entitled: Option<PathBuf>,
}

/// Something to be brought here that nobody waits for.
struct Errand {
    place: Place,
    manifest: Digest,
}

impl Mirror {
    /// Serves these upstreams. The errands that nobody waits for run until `stop`.
    pub fn start(
        upstreams: Upstreams,
        config: MirrorConfig,
        store: Store,
        replica: ReplicaHandle,
        node: NodeId,
        downloads: Downloads,
        stop: CancellationToken,
    ) -> (Self, JoinHandle<()>) {
        let (background, errands) = mpsc::channel(ERRANDS_MAX);
        let MirrorConfig { names, others, entitled } = config;
        let own = Own::new(store.clone(), replica.clone(), others);
        let tags = Tags::new(store.clone(), replica.clone(), node);
        let contents = Contents::new(store.clone(), replica, node, downloads);
        let (entitlements, waiting) = (Entitlements::new(Kept::open(entitled)), Mutex::default());
        let inner = Inner {
            upstreams,
            names,
            own,
            store,
            tags,
            contents,
            entitlements,
            background,
            errands: waiting,
        };
        let mirror = Mirror { inner: Arc::new(inner) };
        let running = tokio::spawn(mirror.clone().run(errands, stop));
        (mirror, running)
    }

    /// What a repository's name and `?ns=` mean.
    pub async fn target(&self, repository: RepoName, namespace: Option<&str>) -> Target {
        let own = &self.inner.own;
        let names = Names { upstreams: &self.inner.upstreams, own: &self.inner.names };
        let target = names.target(repository.clone(), namespace, |name| own.uses(name));
        if own.is_settled() || !matches!(&target, Target::Upstream(place) if place.unqualified) {
            return target;
        }
        own.settle().await;
        names.target(repository, namespace, |name| own.uses(name))
    }

    /// Whether the mesh itself has this under an upstream's name.
    pub fn has_own(&self, repository: &RepoName, wanted: &Wanted) -> bool {
        self.inner.own.has(repository, wanted)
    }

    /// The upstreams.
    pub fn upstreams(&self) -> &Upstreams {
        &self.inner.upstreams
    }

    /// Whether these credentials may have what is in an upstream's repository.
    pub async fn entitled(&self, place: &Place, user: &str, password: &Secret) -> Entitled {
        self.inner.entitlements.check(place, user, password).await
    }

    /// Where a tag points.
    ///
    /// # Errors
    /// What the upstream answered, where nothing is known that may be given instead.
    pub async fn resolve(&self, place: &Place, tag: &Tag) -> Result<Resolved, UpstreamError> {
        self.inner.tags.resolve(place, tag).await
    }

    /// A manifest. With `use_it` somebody is going to want what it needs too.
    ///
    /// # Errors
    /// See [`ContentError`].
    pub async fn manifest(
        &self,
        place: &Place,
        digest: Digest,
        use_it: bool,
    ) -> Result<Manifest, ContentError> {
        let manifest = self.inner.contents.manifest(place, digest).await?;
        if use_it {
            self.bring(place, &manifest);
        }
        Ok(manifest)
    }

    /// A blob.
    ///
    /// # Errors
    /// See [`ContentError`].
    pub async fn blob(&self, place: &Place, digest: Digest) -> Result<Blob, ContentError> {
        self.inner.contents.blob(place, digest).await
    }

    /// How large a blob is that could be given.
    ///
    /// # Errors
    /// See [`ContentError`].
    pub async fn blob_size(&self, place: &Place, digest: Digest) -> Result<u64, ContentError> {
        self.inner.contents.blob_size(place, digest).await
    }

    /// Tags that were seen, in lexical order after `last`, at most `limit`: for when the upstream is away.
    pub fn known_tags(&self, place: &Place, last: Option<&str>, limit: usize) -> Vec<Tag> {
        self.inner.store.index().sighted_tags(&place.repository, last, limit)
    }

    /// Descriptors of the manifests here that refer to one, and whether those are all: for when the upstream is away.
    pub async fn known_referrers(&self, place: &Place, subject: &Digest) -> (Vec<serde_json::Value>, bool) {
        self.inner.contents.referrers(&place.repository, subject).await
    }

    /// Has the rest of an artifact come, and the platforms of an index that the operator wants.
    fn bring(&self, place: &Place, manifest: &Manifest) {
        if manifest.parsed.is_list() {
            let platforms = &place.upstream.config().platforms;
            let wanted = manifest.parsed.edges().iter().filter(|edge| edge.kind == EdgeKind::Child);
            let meant = |found: &String| platforms.iter().any(|wanted| is_meant(wanted, found));
            let wanted = wanted.filter(|edge| edge.platform.as_ref().is_some_and(meant));
            for edge in wanted {
                self.send(place, edge.digest);
            }
        } else if !self.inner.contents.is_complete(manifest) {
            self.send(place, manifest.digest);
        }
    }

    fn send(&self, place: &Place, manifest: Digest) {
        let key = (place.repository.clone(), manifest);
        let mut errands = self.inner.errands.lock().unwrap_or_else(PoisonError::into_inner);
        if errands.contains(&key) {
            return;
        }
        // Where there are too many already, whoever pulls brings the rest here blob by blob.
        let sent = self.inner.background.try_send(Errand { place: place.clone(), manifest });
        if sent.is_ok() {
            errands.insert(key);
        }
    }

    async fn run(self, errands: mpsc::Receiver<Errand>, stop: CancellationToken) {
        let next = |mut errands: mpsc::Receiver<Errand>| async move {
            let errand = errands.recv().await?;
            Some((errand, errands))
        };
        // Several, so that one that hangs keeps only itself waiting.
        let all = stream::unfold(errands, next).for_each_concurrent(ERRANDS_AT_A_TIME, |errand| {
            let mirror = self.clone();
            async move {
                mirror.do_errand(&errand).await;
                let key = (errand.place.repository.clone(), errand.manifest);
                mirror.inner.errands.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            }
        });
        tokio::select! {
            () = stop.cancelled() => {}
            () = all => {}
        }
    }

    async fn do_errand(&self, errand: &Errand) {
        match self.inner.contents.manifest(&errand.place, errand.manifest).await {
            Ok(manifest) => self.inner.contents.complete(&errand.place, &manifest).await,
            Err(error) => {
                tracing::debug!(manifest = %errand.manifest, %error, "not brought here");
            }
        }
    }
}

impl Entitlement for Mirror {
    fn authority(&self, repository: &RepoName) -> Authority {
        let upstream = self.inner.upstreams.of_repository(repository);
        let left = upstream.is_some_and(|(upstream, _)| upstream.config().access() == Access::VerifyUpstream);
        if left { Authority::Upstream } else { Authority::Local }
    }

    fn leaves_any(&self) -> bool {
        self.inner.upstreams.iter().any(|upstream| upstream.config().access() == Access::VerifyUpstream)
    }

    fn meanings(&self, name: &RepoName) -> Vec<RepoName> {
        self.inner.upstreams.iter().filter_map(|upstream| upstream.repository(name.as_str())).collect()
    }
}

/// Whether a platform is one that the operator named, perhaps without the variant.
fn is_meant(wanted: &str, found: &str) -> bool {
    found.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Errands at a time.
const ERRANDS_AT_A_TIME: usize = 8;
/// Manifests that may wait for the rest of their artifact to be brought here.
const ERRANDS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_without_its_variant_means_all_of_them() {
        for (wanted, found, meant) in [
            ("linux/arm64", "linux/arm64", true),
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/arm", "linux/arm64", false),
            ("linux/arm/v7", "linux/arm/v6", false),
            ("linux/arm/v7", "linux/arm", false),
        ] {
            assert_eq!(is_meant(wanted, found), meant, "{wanted} {found}");
        }
    }
}
