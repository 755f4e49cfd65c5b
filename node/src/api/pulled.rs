//! What of upstreams is here, for `artifacts`. It has no records of its own: it is known by the manifests that are
//! linked under an upstream's name and held, and by the tags under which they were seen.

use std::collections::BTreeMap;

use waystation_oci::manifest;
use waystation_proto::{Digest, RepoName, body::HoldingState};

use super::{
    Artifact,
    answer::{Api, holding_name},
};

impl Api {
    /// Artifacts of upstreams of which at least the manifest is here, of one repository or of all, at most `limit`.
    pub(super) async fn pulled(&self, repository: Option<&RepoName>, limit: usize) -> Vec<Artifact> {
        let repositories: Vec<RepoName> = match repository {
            Some(repository) => vec![repository.clone()],
            None => self.store.index().listed(None).map(|(name, _)| name).collect(),
        };
        let mut found = Vec::new();
        for repository in repositories {
            let Some((upstream, _)) = self.facts.upstreams.of_repository(&repository) else { continue };
            if found.len() >= limit {
                break;
            }
            let namespace = upstream.config().namespace.clone();
            found.extend(self.pulled_into(&repository, &namespace).await);
        }
        found.truncate(limit);
        found
    }

    async fn pulled_into(&self, repository: &RepoName, namespace: &str) -> Vec<Artifact> {
        let index = self.store.index();
        let mut tags: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
        for tag in index.sighted_tags(repository, None, TAGS_MAX) {
            for sighting in index.sightings(repository, &tag) {
                let names = tags.entry(sighting.manifest).or_default();
                if names.last().is_none_or(|last| last != tag.as_str()) {
                    names.push(tag.to_string());
                }
            }
        }
        let mut found = Vec::new();
        for held in index.linked(repository, MANIFEST_MAX, LINKED_MAX) {
            let holders = index.holders(&held.digest);
            let is_own = index.artifact(repository, &held.digest).is_some();
            // Configs are linked too; nobody says to hold one, and no tag points there.
            if is_own || (holders.is_empty() && !tags.contains_key(&held.digest)) {
                continue;
            }
            let Ok(bytes) = self.store.read(held.hash, MANIFEST_MAX).await else { continue };
            let Ok(parsed) = manifest::parse(&bytes, None) else { continue };
            let own = holders.iter().find(|(node, _)| *node == self.facts.node).map(|(_, state)| *state);
            found.push(Artifact {
                repository: repository.to_string(),
                digest: held.digest.to_string(),
                tags: tags.remove(&held.digest).unwrap_or_default(),
                media_type: parsed.media_type().to_owned(),
                manifest_size: held.size,
                status: None,
                // Its manifest is here, whatever else is.
                here: holding_name(own.unwrap_or(HoldingState::Partial)).to_owned(),
                holders: index.copies(&held.digest),
                upstream: Some(namespace.to_owned()),
            });
        }
        found
    }
}

/// Longest manifest that is looked at, in bytes.
const MANIFEST_MAX: u64 = 4 << 20;
/// Blobs of a repository that are looked at.
const LINKED_MAX: usize = 10_000;
/// Tags of a repository that are looked at.
const TAGS_MAX: usize = 10_000;
