//! Goes the way of a pull, from a name to the last layer, and writes down what it finds.

use std::collections::BTreeMap;

use waystation_oci::manifest;
use waystation_proto::{
    Digest, Hash, NodeId, RepoName,
    index::{ArtifactIndex, Edge, EdgeKind},
    verdict::{Facts, Purpose, Requester, Verdict, verdict},
};

use super::{
    BlobPlan, Candidate, Explanation, Wanted,
    candidates::{self, World},
    sum::sum_up,
};
use crate::{
    api::NodeFacts,
    driver::handle::DriverStatus,
    mirror::{Names, Place as UpstreamPlace, Target},
    platform::this_platform,
    reference::Reference,
    store::Store,
};

/// Explains a pull of this platform, or of this machine's.
pub async fn explain(
    store: &Store,
    facts: &NodeFacts,
    driver: DriverStatus,
    reference: &Reference,
    platform: Option<String>,
) -> Explanation {
    let nodes: BTreeMap<NodeId, _> = store.index().nodes().into_iter().collect();
    let journal = &facts.insight.journal;
    let world = World { me: facts.node, site: &facts.site, nodes, driver, journal };
    let found = Explanation {
        reference: reference.to_string(),
        platform: platform.unwrap_or_else(this_platform),
        ..Explanation::default()
    };
    let names = Names { upstreams: &facts.upstreams, own: &facts.insight.names };
    let is_published = |name: &RepoName| store.index().was_published(name);
    let target = names.target(reference.repository.clone(), None, is_published);
    let mut walk = Walk { store, facts, world, found };
    match target {
        Target::Local(repository) => walk.local(repository, reference).await,
        Target::Upstream(place) => walk.upstream(&place, reference).await,
        Target::Foreign(name) => {
            walk.unknown(format!("{name} is no upstream of this node; add it as [[upstream]]"));
        }
    }
    sum_up(&mut walk.found);
    walk.found
}

struct Walk<'a> {
    store: &'a Store,
    facts: &'a NodeFacts,
    world: World<'a>,
    found: Explanation,
}

/// Who could send the blobs of an artifact, and why nobody could.
struct Senders {
    candidates: Vec<Candidate>,
    blocked: Option<String>,
}

impl Walk<'_> {
    fn unknown(&mut self, why: String) {
        self.found.outcome = "unknown".into();
        self.found.blocks.push(why);
    }

    // ---- of the mesh's own ----

    async fn local(&mut self, repository: RepoName, reference: &Reference) {
        self.found.repository = repository.to_string();
        let Some(mut digest) = self.local_digest(&repository, reference) else { return };
        self.found.digest = Some(digest.to_string());
        // An index, the manifest of a platform in it, and no deeper than anybody nests them.
        for _ in 0..DEPTH_MAX {
            let Some(index) = self.local_artifact(&repository, &digest).await else { return };
            match self.child(&index.edges) {
                Some(child) => digest = child,
                None => return,
            }
        }
    }

    fn local_digest(&mut self, repository: &RepoName, reference: &Reference) -> Option<Digest> {
        if let Some(digest) = reference.digest {
            self.found.resolved.push("named by digest, so no tag is asked".into());
            return Some(digest);
        }
        let tag = reference.tag_or_latest();
        let entry = self.store.index().tag(repository, &tag);
        let Some((digest, entry)) = entry.and_then(|entry| Some((entry.target?, entry))) else {
            let alone = match self.world.driver.sessions.is_empty() {
                true => "; it has no session with any member, see: waystation doctor",
                false => "",
            };
            self.unknown(format!("this node knows of no tag {tag} in {repository}{alone}"));
            return None;
        };
        let (author, version) = (entry.author.short(), entry.version);
        self.found.resolved.push(format!("{tag} points there since write {version}, by node {author}"));
        Some(digest)
    }

    /// Manifest, artifact index, and what it names; the index, where it is here.
    async fn local_artifact(&mut self, repository: &RepoName, digest: &Digest) -> Option<ArtifactIndex> {
        let Some(entry) = self.store.index().artifact(repository, digest) else {
            let why = format!(
                "{digest} is not known to be in {repository}: nobody with a grant published it there, or word of it has not come"
            );
            if self.found.blobs.is_empty() {
                self.unknown(why);
            } else {
                self.found.blocks.push(why);
            }
            return None;
        };
        let facts = Facts { status: entry.status.clone() };
        match verdict(&facts, Requester::Client, Purpose::Use) {
            Verdict::Serve => {}
            Verdict::Warn(why) => self.found.notes.push(format!("clients are warned: {why}")),
            Verdict::Hide => {
                self.found.blocks.push("quarantined: clients are answered as if it were not there".into())
            }
            Verdict::Deny(why) => self.found.blocks.push(format!("clients are refused: {why}")),
        }
        let senders = self.senders(digest);
        let place = &entry.place;
        let bytes = self.store.read(place.index, ArtifactIndex::MAX_BYTES as u64).await.ok();
        let index = bytes.and_then(|bytes| ArtifactIndex::decode(&bytes).ok());
        let is_list =
            index.as_ref().is_some_and(|index| index.edges.iter().any(|e| e.kind == EdgeKind::Child));
        let manifest = (if is_list { "index" } else { "manifest" }, Some(*digest), Some(place.manifest));
        self.blob(manifest, place.manifest_size, None, &senders);
        let own = ("artifact index", None, Some(place.index));
        self.blob(own, place.index_size, Some(index.is_some()), &senders);
        let Some(index) = index else {
            self.found.notes.push("what else it needs is known once the artifact index is here".into());
            return None;
        };
        self.edges(&index.edges, &senders, true);
        Some(index)
    }

    fn senders(&self, manifest: &Digest) -> Senders {
        let candidates = self.world.members(&self.store.index().holders(manifest));
        let blocked = self.world.blocked(&candidates, manifest);
        Senders { candidates, blocked }
    }

    // ---- of an upstream ----

    async fn upstream(&mut self, place: &UpstreamPlace, reference: &Reference) {
        self.found.repository = place.repository.to_string();
        let name = &place.upstream.config().namespace;
        self.found.resolved.push(format!("pulled through from {name}, where it is {}", place.path));
        let Some(mut digest) = self.upstream_digest(place, reference) else { return };
        self.found.digest = Some(digest.to_string());
        for _ in 0..DEPTH_MAX {
            let Some(parsed) = self.upstream_manifest(place, &digest).await else { return };
            match self.child(&parsed) {
                Some(child) => digest = child,
                None => return,
            }
        }
    }

    fn upstream_digest(&mut self, place: &UpstreamPlace, reference: &Reference) -> Option<Digest> {
        if let Some(digest) = reference.digest {
            self.found.resolved.push("named by digest, so no tag is asked".into());
            return Some(digest);
        }
        let (tag, name) = (reference.tag_or_latest(), &place.upstream.config().namespace);
        let mut seen = self.store.index().sightings(&place.repository, &tag);
        seen.retain(|entry| entry.granted || entry.node == self.facts.node);
        let last = seen.into_iter().max_by_key(|entry| entry.seen);
        match (last, place.upstream.is_away()) {
            (None, true) => {
                self.unknown(format!(
                    "{name} is away, and this node has not seen where its tag {tag} points"
                ));
                None
            }
            (None, false) => {
                self.unknown(format!("a pull asks {name} where {tag} points; this node has not seen it yet and does not ask now"));
                None
            }
            (Some(last), away) => {
                let by = if last.node == self.facts.node { "this node".into() } else { last.node.short() };
                self.found.resolved.push(match away {
                    true => format!("{name} is away, so {tag} is where {by} saw it last"),
                    false => format!("{tag} is where {by} saw it last; a pull asks {name} anew unless that was a moment ago"),
                });
                Some(last.manifest)
            }
        }
    }

    /// A manifest and what it names, where it is here.
    async fn upstream_manifest(&mut self, place: &UpstreamPlace, digest: &Digest) -> Option<Vec<Edge>> {
        let mut candidates = self.world.members(&self.store.index().holders(digest));
        let status = self.facts.upstreams.status();
        let nobody = place.upstream.is_away() && !candidates.iter().any(|candidate| candidate.asked);
        let name = &place.upstream.config().namespace;
        let blocked = nobody.then(|| format!("{name} is away, and no member in reach is known to have it"));
        candidates.push(candidates::upstream(&place.upstream, &status, self.world.journal, digest));
        let senders = Senders { candidates, blocked };
        let index = self.store.index();
        let held = index.link(&place.repository, digest).and_then(|_| index.held(digest));
        let bytes = match held {
            Some(held) => self.store.read(held.hash, MANIFEST_MAX).await.ok(),
            None => None,
        };
        let parsed = bytes.as_ref().and_then(|bytes| manifest::parse(bytes, None).ok());
        let role = if parsed.as_ref().is_some_and(manifest::Parsed::is_list) { "index" } else { "manifest" };
        let size = held.map_or(0, |held| held.size);
        self.blob((role, Some(*digest), held.map(|held| held.hash)), size, Some(bytes.is_some()), &senders);
        let Some(parsed) = parsed else {
            self.found
                .notes
                .push("its size, and what else it needs, is known once the manifest is here".into());
            return None;
        };
        let edges = parsed.edges().to_vec();
        self.edges(&edges, &senders, false);
        Some(edges)
    }

    // ---- both ----

    /// The manifest of the platform, where these are of an index.
    fn child(&mut self, edges: &[Edge]) -> Option<Digest> {
        let mut children = edges.iter().filter(|edge| edge.kind == EdgeKind::Child).peekable();
        children.peek()?;
        let wanted = self.found.platform.clone();
        let fits = |found: &str| {
            found == wanted || found.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.starts_with('/'))
        };
        let child = children.find(|edge| edge.platform.as_deref().is_some_and(fits));
        if child.is_none() {
            let has: Vec<_> = edges.iter().filter_map(|edge| edge.platform.as_deref()).collect();
            self.found.blocks.push(format!("it has no manifest for {wanted}; it has: {}", has.join(", ")));
        }
        child.map(|edge| edge.digest)
    }

    fn edges(&mut self, edges: &[Edge], senders: &Senders, indexed: bool) {
        for edge in edges {
            let role = match edge.kind {
                EdgeKind::Config => "config",
                EdgeKind::Layer => "layer",
                EdgeKind::Foreign => {
                    self.found.notes.push(format!(
                        "{} comes from where its manifest says, not from this node",
                        edge.digest
                    ));
                    continue;
                }
                _ => continue,
            };
            let size = edge.size;
            if indexed && edge.hash.is_none() && self.store.index().held(&edge.digest).is_none() {
                // The publisher left it out (a sparse image).
                let nobody =
                    Senders { candidates: vec![], blocked: Some("its publisher did not push it".into()) };
                self.blob((role, Some(edge.digest), None), size, Some(false), &nobody);
            } else {
                self.blob((role, Some(edge.digest), edge.hash), size, None, senders);
            }
        }
    }

    /// One blob; `held` where that is known otherwise than by its digest.
    fn blob(
        &mut self,
        (role, digest, hash): (&str, Option<Digest>, Option<Hash>),
        size: u64,
        held: Option<bool>,
        senders: &Senders,
    ) {
        let known = digest.and_then(|digest| self.store.index().held(&digest));
        let hash = known.map(|held| held.hash).or(hash);
        let journal = self.world.journal;
        let story = hash.and_then(|hash| journal.story(&hash));
        let is_held = held.unwrap_or(known.is_some());
        let is_coming = story.as_ref().is_some_and(|story| !story.here && !story.parts.is_empty())
            || digest.is_some_and(|digest| journal.is_pulling(&digest));
        let mut plan = BlobPlan {
            role: role.into(),
            digest: digest.map(|digest| digest.to_string()),
            hash: hash.map(|hash| hash.to_string()),
            size,
            state: if is_held {
                "held"
            } else if is_coming {
                "coming"
            } else {
                "missing"
            }
            .into(),
            story,
            ..BlobPlan::default()
        };
        if !is_held {
            plan.candidates = senders.candidates.clone();
            plan.blocks.extend(senders.blocked.clone());
            self.ask_blockers(&mut plan);
        }
        self.found.blobs.push(plan);
    }

    /// What else may stand in the way: of the blob, or of each who could send it.
    fn ask_blockers(&self, plan: &mut BlobPlan) {
        let blockers = &self.facts.insight.blockers;
        let asked = |from| {
            let wanted = Wanted { size: plan.size, from };
            blockers.iter().filter_map(|blocker| blocker.blocks(&wanted)).collect::<Vec<_>>()
        };
        let of_blob = asked(None);
        let of_each: Vec<_> = plan.candidates.iter().map(|candidate| asked(Some(&candidate.place))).collect();
        for (candidate, why) in plan.candidates.iter_mut().zip(of_each) {
            // What holds for all of them is said once.
            if let Some(why) = why.into_iter().find(|why| !of_blob.contains(why)) {
                (candidate.asked, candidate.why) = (false, why);
            }
        }
        plan.blocks.extend(of_blob);
        let none_asked = !plan.candidates.is_empty() && !plan.candidates.iter().any(|c| c.asked);
        if none_asked && plan.blocks.is_empty() {
            plan.blocks.push("none of those who have it may be asked now".into());
        }
    }
}

/// Indexes within indexes.
const DEPTH_MAX: usize = 4;
/// Longest manifest that is read, in bytes.
const MANIFEST_MAX: u64 = 16 << 20;
