//! What decisions look up of the records of a catalog: holders of an artifact, what nodes say of themselves, where
//! artifacts are and what is about them. Keeps the records themselves in other orders, and copies nothing of them.
//! Which records count is [`crate::catalog`]'s.

use core::cmp::Ordering::{Equal, Less};

use crate::{
    body::{ArtifactPlace, HoldingState, NodeBody},
    id::{Digest, NodeId, RepoName, first},
    reconcile::number_of,
    record::Kind,
    shared::{Artifact, Said, Shared},
    sorted::{Numbers, Sorted},
};

/// Records by what they say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lookups {
    /// Holdings and summaries but those of what is gone, by artifact and node, holdings first.
    holders: Sorted<Shared>,
    /// How often one of these was added or taken out.
    holding_changes: u64,
    /// By author.
    nodes: Sorted<Shared>,
    /// How often one of these was added or taken out.
    changes: u64,
    /// The same, by site and the order of its nodes.
    sites: Sorted<Shared>,
    /// Artifacts that are in a repository, by manifest and repository.
    artifacts: Sorted<Shared>,
    /// Those of them that are about another one, by that one, repository and manifest.
    referrers: Sorted<Shared>,
    /// Policies, by position.
    policies: Sorted<Shared>,
}

impl Lookups {
    /// A record counts now.
    pub(crate) fn add(&mut self, record: &Shared) {
        if record.key.kind == Kind::POLICY {
            let number = number_of(record.position());
            self.policies.insert(number, record.clone(), |one, other| one.position().cmp(&other.position()));
        }
        match record.said() {
            Said::Holding { manifest, state, .. } if *state != HoldingState::Gone => {
                self.holding_changes += 1;
                self.holders.insert(manifest.number(), record.clone(), |one, other| {
                    holding(one).cmp(&holding(other))
                });
            }
            Said::Node { body, .. } => {
                self.changes += 1;
                let (site, node) = (number_of_site(&body.site), first(&record.author.0));
                self.sites.insert(site, record.clone(), |one, other| sited(one).cmp(&sited(other)));
                self.nodes.insert(node, record.clone(), |one, other| one.author.cmp(&other.author));
            }
            Said::Artifact(said) if said.place.is_some() => {
                let number = said.manifest.number();
                self.artifacts.insert(number, record.clone(), |one, other| placed(one).cmp(&placed(other)));
                if let Some(subject) = subject(said) {
                    let number = subject.number();
                    self.referrers.insert(number, record.clone(), |one, other| about(one).cmp(&about(other)));
                }
            }
            _ => {}
        }
    }

    /// A record that counted does not any more.
    pub(crate) fn remove(&mut self, record: &Shared) {
        if record.key.kind == Kind::POLICY {
            let number = number_of(record.position());
            self.policies.remove(number..=number, |other| other.position().cmp(&record.position()));
        }
        match record.said() {
            Said::Holding { manifest, .. } => {
                self.holding_changes += 1;
                self.holders.remove(of_digest(manifest), |other| holding(other).cmp(&holding(record)));
            }
            Said::Node { body, .. } => {
                self.changes += 1;
                let author = &record.author;
                self.sites.remove(of_site(&body.site), |other| sited(other).cmp(&sited(record)));
                self.nodes.remove(of_node(author), |other| other.author.cmp(author));
            }
            Said::Artifact(said) => {
                self.artifacts.remove(of_digest(&said.manifest), |other| placed(other).cmp(&placed(record)));
                if let Some(subject) = subject(said) {
                    self.referrers.remove(of_digest(subject), |other| about(other).cmp(&about(record)));
                }
            }
            _ => {}
        }
    }

    /// Who says to hold something of an artifact, by node.
    pub(crate) fn holders(
        &self,
        manifest: &Digest,
    ) -> impl Iterator<Item = (NodeId, HoldingState)> + use<'_> {
        let mut last = None;
        self.of_artifact(manifest).filter(|record| self.is_at_home(record)).filter_map(move |record| {
            let (node, state, _) = held(record)?;
            // What it tells its site comes first.
            (last.replace(node) != Some(node)).then_some((node, state))
        })
    }

    /// Who says so to the mesh.
    pub(crate) fn summaries(
        &self,
        manifest: &Digest,
    ) -> impl Iterator<Item = (NodeId, HoldingState, u16)> + use<'_> {
        self.of_artifact(manifest).filter_map(|record| {
            let (node, state, copies) = held(record)?;
            Some((node, state, copies?))
        })
    }

    /// What a node says to hold of an artifact.
    pub(crate) fn holding(&self, manifest: &Digest, node: &NodeId) -> Option<HoldingState> {
        let said_of_node = |record: &Shared| match holding(record) {
            Some((of, who, _)) => (of, who).cmp(&(manifest, node)),
            None => Less,
        };
        let mut said =
            self.holders.range(of_digest(manifest), said_of_node).filter(|record| self.is_at_home(record));
        said.next().and_then(held).map(|(_, state, _)| state)
    }

    fn of_artifact(&self, manifest: &Digest) -> impl Iterator<Item = &Shared> + use<'_> {
        let manifest = *manifest;
        self.holders.range(of_digest(&manifest), move |record| {
            holding(record).map_or(Less, |(of, ..)| of.cmp(&manifest))
        })
    }

    /// Whether what a node told a site counts: not where it says to be on another one by now. What it tells the
    /// mesh always does.
    fn is_at_home(&self, record: &Shared) -> bool {
        let says = || self.node(&record.author).map(|body| body.site.as_str());
        record.site().is_none_or(|site| says().is_none_or(|says| says == site))
    }

    /// What a node says about itself.
    pub(crate) fn node(&self, node: &NodeId) -> Option<&NodeBody> {
        body(self.record_of(node)?)
    }

    fn record_of(&self, node: &NodeId) -> Option<&Shared> {
        self.nodes.get(of_node(node), |record| record.author.cmp(node))
    }

    /// Where a node stands among those of the site that it says to be on, see [`crate::surplus::weight`].
    pub(crate) fn weight(&self, node: &NodeId) -> Option<[u8; 8]> {
        match self.record_of(node)?.said() {
            Said::Node { weight, .. } => Some(*weight),
            _ => None,
        }
    }

    /// The number of the site that a node says to be on.
    pub(crate) fn site_number(&self, node: &NodeId) -> Option<u64> {
        match self.record_of(node)?.said() {
            Said::Node { site, .. } => Some(*site),
            _ => None,
        }
    }

    /// How often a holding was added or taken out.
    pub(crate) fn holding_changes(&self) -> u64 {
        self.holding_changes
    }

    /// How often what any node says about itself has changed.
    pub(crate) fn node_changes(&self) -> u64 {
        self.changes
    }

    /// Every node that has said something about itself.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&NodeId, &NodeBody)> {
        self.nodes.iter().filter_map(|record| Some((&record.author, body(record)?)))
    }

    /// The nodes of a site, in the order in which they keep sessions with others.
    pub(crate) fn nodes_of(&self, site: &str) -> impl Iterator<Item = (&NodeId, &NodeBody)> {
        let is_of_site = |record: &Shared| site_of(record).cmp(&Some(site));
        self.sites.range(of_site(site), is_of_site).filter_map(|record| Some((&record.author, body(record)?)))
    }

    /// How many nodes have said something about themselves.
    pub(crate) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// The sites that nodes say to be on, by name.
    pub(crate) fn sites(&self) -> impl Iterator<Item = &str> {
        self.sites_up_from(self.sites.at(0))
    }

    /// The same, after the site of the node with so many before it, and then from the first on: without end.
    pub(crate) fn sites_from(&self, node: usize) -> impl Iterator<Item = &str> {
        let rest = self.sites_up_from(self.sites.at(node)).skip(1);
        rest.chain(core::iter::repeat_with(|| self.sites()).flatten())
    }

    fn sites_up_from<'a>(&'a self, first: Option<&'a Shared>) -> impl Iterator<Item = &'a str> {
        core::iter::successors(first.and_then(site_of), |last| {
            let later = |record: &Shared| if site_of(record) > Some(*last) { Equal } else { Less };
            self.sites.get(number_of_site(last)..=u64::MAX, later).and_then(site_of)
        })
    }

    /// An artifact's hashes in a repository.
    pub(crate) fn artifact(&self, repository: &RepoName, manifest: &Digest) -> Option<&ArtifactPlace> {
        let place = |record: &Shared| placed(record).cmp(&Some((manifest, repository)));
        match self.artifacts.get(of_digest(manifest), place)?.said() {
            Said::Artifact(said) => said.place.as_ref(),
            _ => None,
        }
    }

    /// The records of policies, by position.
    pub(crate) fn policies(&self) -> impl Iterator<Item = &Shared> {
        self.policies.iter()
    }

    /// In which repositories an artifact is.
    pub(crate) fn repositories(&self, manifest: &Digest) -> impl Iterator<Item = &RepoName> {
        let manifest = *manifest;
        let of_artifact = move |record: &Shared| placed(record).map_or(Less, |(of, _)| of.cmp(&manifest));
        self.artifacts.range(of_digest(&manifest), of_artifact).filter_map(|record| Some(placed(record)?.1))
    }

    /// The artifacts of a repository that say to be about this one.
    pub(crate) fn referrers(
        &self,
        repository: &RepoName,
        subject: &Digest,
    ) -> impl Iterator<Item = Digest> + '_ {
        let (repository, subject) = (repository.clone(), *subject);
        let of_subject = move |record: &Shared| {
            about(record).map_or(Less, |(of, within, _)| (of, within).cmp(&(&subject, &repository)))
        };
        self.referrers.range(of_digest(&subject), of_subject).filter_map(|record| Some(*about(record)?.2))
    }
}

fn of_digest(digest: &Digest) -> Numbers {
    let number = digest.number();
    number..=number
}

fn of_node(node: &NodeId) -> Numbers {
    let number = first(&node.0);
    number..=number
}

fn of_site(site: &str) -> Numbers {
    let number = number_of_site(site);
    number..=number
}

/// The beginning of its name: in its order sites are as far as it tells them apart.
fn number_of_site(site: &str) -> u64 {
    let mut beginning = [0; 8];
    beginning.iter_mut().zip(site.bytes()).for_each(|(place, byte)| *place = byte);
    u64::from_be_bytes(beginning)
}

fn holding(record: &Shared) -> Option<(&Digest, &NodeId, bool)> {
    match record.said() {
        Said::Holding { manifest, node, copies, .. } => Some((manifest, node, copies.is_some())),
        _ => None,
    }
}

fn held(record: &Shared) -> Option<(NodeId, HoldingState, Option<u16>)> {
    match record.said() {
        Said::Holding { node, state, copies, .. } => Some((*node, *state, *copies)),
        _ => None,
    }
}

fn body(record: &Shared) -> Option<&NodeBody> {
    match record.said() {
        Said::Node { body, .. } => Some(body),
        _ => None,
    }
}

fn site_of(record: &Shared) -> Option<&str> {
    body(record).map(|body| body.site.as_str())
}

fn sited(record: &Shared) -> Option<(&str, [u8; 8], &NodeId)> {
    match record.said() {
        Said::Node { body, weight, .. } => Some((&body.site, *weight, &record.author)),
        _ => None,
    }
}

fn placed(record: &Shared) -> Option<(&Digest, &RepoName)> {
    match record.said() {
        Said::Artifact(said) => Some((&said.manifest, &said.repository)),
        _ => None,
    }
}

fn about(record: &Shared) -> Option<(&Digest, &RepoName, &Digest)> {
    match record.said() {
        Said::Artifact(said) => Some((subject(said)?, &said.repository, &said.manifest)),
        _ => None,
    }
}

fn subject(said: &Artifact) -> Option<&Digest> {
    said.place.as_ref()?.subject.as_ref()
}
