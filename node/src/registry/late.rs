//! Artifacts that the mesh has told of, but whose index is not here yet: what they link and what they are about
//! is not known before it is. Gets a bounded number in a bounded time when somebody asks.

use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use waystation_proto::{Digest, RepoName};

use super::Registry;
use crate::store::LinkEntry;

impl Registry {
    /// The link of a blob that belongs to an artifact whose index is not here yet: gets the missing indexes
    /// of the repository until one of them links it.
    pub(super) async fn late_link(
        &self,
        repository: &RepoName,
        digest: &Digest,
        patience: Duration,
    ) -> Option<LinkEntry> {
        let index = self.inner.store.index();
        let artifacts = index.artifacts(Some(repository)).into_iter().map(|(_, manifest, _)| manifest);
        let lacking = artifacts.filter(|manifest| !index.is_reached(repository, manifest)).take(LINK_WANTS);
        let lacking = lacking.collect();
        let mut wants = std::pin::pin!(self.bring_indexes(repository, lacking));
        let search = async {
            while let Some((_, came)) = wants.next().await {
                let link = came.then(|| index.link(repository, digest)).flatten();
                if link.is_some() {
                    return link;
                }
            }
            None
        };
        tokio::time::timeout(patience, search).await.unwrap_or(None)
    }

    /// Gets these artifacts' indexes and manifests. Returns how many did not come: gives up after
    /// [`PATIENCE`], and sooner where the mesh does not answer.
    pub(super) async fn bring_late(&self, repository: &RepoName, lacking: Vec<Digest>) -> usize {
        let (mut missing, mut failures) = (lacking.len(), 0);
        let mut wants = std::pin::pin!(self.bring_indexes(repository, lacking));
        let bring = async {
            while let Some((_, came)) = wants.next().await {
                if came {
                    missing -= 1;
                    continue;
                }
                failures += 1;
                if failures == FAILURES_MAX {
                    break;
                }
            }
        };
        // What came before the time was over counts.
        let _ = tokio::time::timeout(PATIENCE, bring).await;
        missing
    }

    /// Gets these artifacts' indexes and manifests, some at a time; says of each whether it came.
    fn bring_indexes(
        &self,
        repository: &RepoName,
        manifests: Vec<Digest>,
    ) -> impl Stream<Item = (Digest, bool)> {
        let wants = manifests.into_iter().map(move |manifest| {
            let (replica, repository) = (self.inner.replica.clone(), repository.clone());
            async move { (manifest, replica.want_artifact(repository, manifest, false).await.is_ok()) }
        });
        stream::iter(wants).buffer_unordered(AT_ONCE)
    }
}

/// How many missing indexes are fetched for one unlinked blob.
const LINK_WANTS: usize = 32;
/// How many are fetched at a time.
const AT_ONCE: usize = 8;
/// How long somebody who asks for a list waits for them in all.
const PATIENCE: Duration = Duration::from_secs(3);
/// After how many that do not come the others are not asked for.
const FAILURES_MAX: usize = 16;
