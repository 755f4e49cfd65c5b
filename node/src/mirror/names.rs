//! Whose content a repository's name means: the mesh's own, or that of an upstream, which clients ask for in one
//! of three ways: by `?ns=` (containerd), by the upstream's name as the first part of the repository's (podman,
//! skopeo, CRI-O), or without any (Docker's `registry-mirrors`).

use waystation_proto::RepoName;

use crate::upstream::{Upstream, Upstreams};

/// A repository of an upstream.
#[derive(Clone)]
pub struct Place {
    /// The upstream.
    pub upstream: Upstream,
    /// The repository's name there.
    pub path: String,
    /// Its name here: the upstream's, and the name there.
    pub repository: RepoName,
    /// Whether it was named without saying of which registry.
    pub unqualified: bool,
}

/// What a client asks for.
pub enum Target {
    /// Of the mesh's own.
    Local(RepoName),
    /// Of an upstream.
    Upstream(Place),
    /// Of a registry that this node does not pull through from.
    Foreign(String),
}

/// What the repository's name and `?ns=` mean. `is_local` says whether the mesh has something of its own there:
/// such a name is never looked up elsewhere, unless it says itself that it is an upstream's.
pub fn target(
    upstreams: &Upstreams,
    repository: RepoName,
    namespace: Option<&str>,
    is_local: impl Fn(&RepoName) -> bool,
) -> Target {
    let place = |upstream: Upstream, path: &str, unqualified| {
        let repository = upstream.repository(path)?;
        let (_, path) = upstreams.of_repository(&repository)?;
        Some(Place { upstream, path, repository, unqualified })
    };
    if let Some(namespace) = namespace.filter(|namespace| !namespace.is_empty()) {
        let found = upstreams.for_namespace(namespace);
        return match found.and_then(|upstream| place(upstream, repository.as_str(), false)) {
            Some(place) => Target::Upstream(place),
            None => Target::Foreign(namespace.to_owned()),
        };
    }
    if let Some((upstream, path)) = upstreams.of_repository(&repository)
        && let Some(place) = place(upstream, &path, false)
    {
        return Target::Upstream(place);
    }
    if is_local(&repository) {
        return Target::Local(repository);
    }
    let assumed = upstreams.unqualified().and_then(|upstream| place(upstream, repository.as_str(), true));
    assumed.map_or(Target::Local(repository), Target::Upstream)
}
