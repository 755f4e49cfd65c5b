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

/// What names mean at one node.
pub struct Names<'a> {
    /// The registries that it pulls through.
    pub upstreams: &'a Upstreams,
    /// What the mesh itself is called by its clients; where nothing is said, whatever they call it.
    pub own: &'a [String],
}

impl Names<'_> {
    /// What a repository's name and `?ns=` mean. `is_local` says whether the mesh has something of its own there:
    /// such a name is never looked up elsewhere, unless it says itself that it is an upstream's.
    pub fn target(
        &self,
        repository: RepoName,
        namespace: Option<&str>,
        is_local: impl Fn(&RepoName) -> bool,
    ) -> Target {
        if let Some(namespace) = namespace.filter(|namespace| !namespace.is_empty()) {
            return self.named(repository, namespace, is_local);
        }
        let repository = match self.of_mesh(repository) {
            Target::Local(repository) => repository,
            target => return target,
        };
        // Asked last, since it reads the index: most nodes take no name for an upstream's that does not say so.
        let upstream = self.upstreams.unqualified().filter(|_| !is_local(&repository));
        let assumed = upstream.and_then(|upstream| self.place(upstream, repository.as_str(), true));
        assumed.map_or(Target::Local(repository), Target::Upstream)
    }

    fn named(&self, repository: RepoName, namespace: &str, is_local: impl Fn(&RepoName) -> bool) -> Target {
        if self.own.iter().any(|own| own == namespace) {
            return self.of_mesh(repository);
        }
        if let Some(upstream) = self.upstreams.for_namespace(namespace) {
            let place = self.place(upstream, repository.as_str(), false);
            return place.map_or_else(|| Target::Foreign(namespace.to_owned()), Target::Upstream);
        }
        let qualified = format!("{}/{repository}", namespace.replace(':', "_"));
        match qualified.parse() {
            Ok(qualified) if is_local(&qualified) => Target::Local(qualified),
            _ if self.own.is_empty() => self.of_mesh(repository),
            _ => Target::Foreign(namespace.to_owned()),
        }
    }

    /// Of the mesh's own, unless it says itself that it is an upstream's: what was pulled through is under that
    /// name, and whoever may have it is asked there.
    fn of_mesh(&self, repository: RepoName) -> Target {
        let named = self.upstreams.of_repository(&repository);
        let place = named.and_then(|(upstream, path)| self.place(upstream, &path, false));
        place.map_or(Target::Local(repository), Target::Upstream)
    }

    fn place(&self, upstream: Upstream, path: &str, unqualified: bool) -> Option<Place> {
        let repository = upstream.repository(path)?;
        let (_, path) = self.upstreams.of_repository(&repository)?;
        Some(Place { upstream, path, repository, unqualified })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::UpstreamConfig;

    fn meant(own: &[&str], name: &str, namespace: Option<&str>) -> String {
        let mut hub = UpstreamConfig::named("docker.io");
        hub.mirror_for_unqualified = true;
        let port = UpstreamConfig::named("r.example:5000");
        let upstreams = Upstreams::new(&[hub, port]).expect("two upstreams");
        let own: Vec<String> = own.iter().map(|own| (*own).to_owned()).collect();
        let names = Names { upstreams: &upstreams, own: &own };
        let is_local = |name: &RepoName| ["team/app", "quay.io/team/x"].contains(&name.as_str());
        match names.target(name.parse().expect("a name"), namespace, is_local) {
            Target::Local(name) => format!("here {name}"),
            Target::Upstream(place) => format!("there {} {}", place.repository, place.path),
            Target::Foreign(namespace) => format!("foreign {namespace}"),
        }
    }

    #[test]
    fn table() {
        let hub = "there docker.io/library/x library/x";
        for (name, namespace) in [
            ("docker.io/library/x", None),
            ("docker.io/x", None),
            ("library/x", None),
            ("x", None),
            ("x", Some("docker.io")),
            ("library/x", Some("registry-1.docker.io")),
            ("library/x", Some("")),
        ] {
            assert_eq!(meant(&[], name, namespace), hub, "{name} {namespace:?}");
        }
        assert_eq!(meant(&[], "a/b", Some("r.example:5000")), "there r.example_5000/a/b a/b");
        // The mesh's own names stay here.
        assert_eq!(meant(&[], "team/app", None), "here team/app");
        assert_eq!(meant(&["mesh.example"], "team/other", Some("mesh.example")), "here team/other");
        assert_eq!(meant(&[], "team/x", Some("quay.io")), "here quay.io/team/x");
        // No other word for the mesh makes an upstream's contents the mesh's own.
        assert_eq!(meant(&["mesh.example"], "docker.io/x", Some("mesh.example")), hub);
        assert_eq!(meant(&[], "docker.io/x", Some("quay.io")), hub);
        // What a name means elsewhere is not guessed where the operator said what the mesh is called.
        assert_eq!(meant(&[], "team/app", Some("mesh.example")), "here team/app");
        assert_eq!(meant(&["mesh.example"], "team/app", Some("quay.io")), "foreign quay.io");
    }
}
