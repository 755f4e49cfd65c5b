//! What comes along with an artifact that a policy or a pull wants here: the children of an index for the
//! platforms meant, what it depends on, what refers to it. Walks the edges of artifact indexes as far as those
//! are here, and says what to fetch next: the important first, a few at a time, and from outside the site only
//! when and where the policies allow it.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};

use super::{
    Hours,
    keeper::{Duty, Kept, Step, View},
    select,
};
use crate::{
    body::HoldingState,
    catalog::Catalog,
    id::{Digest, Hash, NodeId, RepoName},
    index::{ArtifactIndex, EdgeKind},
    time::{Span, Time},
};

/// Everything that is to be here, and what is known of how it hangs together.
#[derive(Debug, Default)]
pub(super) struct Closure {
    wanted: BTreeMap<Digest, Wanted>,
    edges: BTreeMap<Digest, Edges>,
    /// Indexes that are being read, or could not be.
    reading: BTreeMap<Hash, Digest>,
    /// What clients pulled of which the index was not read yet.
    pulled: BTreeMap<Digest, RepoName>,
    /// What clients pulled that has something to follow.
    pulls: BTreeMap<Digest, (RepoName, Time)>,
    /// Since when this node leaves it to another of its site to fetch from outside.
    leaving: BTreeMap<Digest, Time>,
    /// What is not here that is to be, the most important first.
    missing: Vec<(u16, Digest)>,
    /// Which policies' hours were open at the last walk, and when that was.
    walked: (BTreeSet<RepoName>, Time),
    /// Whether an index of something that is here was not read yet.
    unread: bool,
}

/// The edges of an artifact that lead to others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Edges {
    children: Vec<(Digest, Option<String>)>,
    depends: Vec<(Option<RepoName>, Digest)>,
}

/// That an artifact is to be here, whoever wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) repository: RepoName,
    pub(super) order: Orders,
    /// Of which artifact it is a part.
    pub(super) root: Digest,
}

/// On what terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Orders {
    /// Pulls go first.
    priority: u16,
    /// Whether it may be brought now.
    pub(super) open: bool,
    /// Whether a metered uplink may be used.
    pub(super) metered: bool,
    /// Who of the site is to fetch it from outside.
    pub(super) first: Option<NodeId>,
    /// Whether a policy is among those that want it.
    by_policy: bool,
    /// Platforms meant; all where empty.
    platforms: Vec<String>,
    referrers: bool,
    depends: bool,
}

impl Closure {
    pub(super) fn wants(&self, manifest: &Digest) -> bool {
        self.wanted.contains_key(manifest)
    }

    pub(super) fn wants_for_policy(&self, manifest: &Digest) -> bool {
        self.wanted.get(manifest).is_some_and(|wanted| wanted.order.by_policy)
    }

    pub(super) fn get(&self, manifest: &Digest) -> Option<&Wanted> {
        self.wanted.get(manifest)
    }

    /// What is to be here, with the artifact that it is a part of.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&Digest, &Wanted)> {
        self.wanted.iter()
    }

    /// Whether nothing can turn out to be wanted that is not known to be.
    pub(super) fn is_known(&self) -> bool {
        !self.unread
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.missing.is_empty() || !self.pulls.is_empty()
    }

    pub(super) fn pulled(&mut self, repository: &RepoName, manifest: Digest) {
        if self.pulled.len() >= PULLED_MAX {
            self.pulled.pop_first();
        }
        self.pulled.insert(manifest, repository.clone());
    }

    /// Returns whether that matters.
    pub(super) fn index_read(
        &mut self,
        now: Time,
        catalog: &Catalog,
        hash: Hash,
        index: Option<&ArtifactIndex>,
    ) -> bool {
        let asked = self.reading.remove(&hash);
        let Some(manifest) = index.map(|index| index.manifest).or(asked) else { return false };
        let edges = index.map(Edges::of).unwrap_or_default();
        let pulled = self.pulled.remove(&manifest);
        if let Some(repository) = pulled {
            let about_it = catalog.referrers(&repository, &manifest).next().is_some();
            if about_it || edges != Edges::default() {
                if self.pulls.len() >= PULLS_MAX {
                    self.pulls.pop_first();
                }
                self.pulls.insert(manifest, (repository, now));
                self.edges.insert(manifest, edges);
                return true;
            }
        }
        if asked.is_some() || self.wanted.contains_key(&manifest) {
            self.edges.insert(manifest, edges);
            return true;
        }
        false
    }

    /// The terms on which this node is to hold each artifact.
    pub(super) fn duties(
        &self,
        mine: &BTreeMap<Digest, Vec<Duty>>,
        policies: &BTreeMap<RepoName, Kept>,
        view: &View<'_>,
    ) -> Vec<(Digest, RepoName, Orders)> {
        let open = open(policies, view);
        let mut duties = Vec::new();
        for (root, duties_of) in mine {
            for duty in duties_of {
                let Some(Kept { policy, .. }) = policies.get(&duty.policy) else { continue };
                let order = Orders {
                    priority: u16::from(policy.priority),
                    open: open.contains(&duty.policy),
                    metered: policy.metered,
                    first: duty.first,
                    by_policy: true,
                    platforms: policy.platforms.clone(),
                    referrers: policy.referrers,
                    depends: policy.depends,
                };
                duties.push((*root, duty.repository.clone(), order));
            }
        }
        let platforms: Vec<String> =
            Some(view.config.platform.clone()).filter(|platform| !platform.is_empty()).into_iter().collect();
        for (root, (repository, _)) in &self.pulls {
            let order = Orders {
                priority: PULLS_FIRST,
                open: true,
                metered: true,
                first: None,
                by_policy: false,
                platforms: platforms.clone(),
                referrers: true,
                depends: true,
            };
            duties.push((*root, repository.clone(), order));
        }
        duties
    }

    /// Walks from each of these, and says what to do next.
    pub(super) fn walk(&mut self, view: &View<'_>, roots: Vec<(Digest, RepoName, Orders)>) -> Vec<Step> {
        self.wanted.clear();
        self.unread = false;
        let mut steps = Vec::new();
        for (root, repository, order) in roots {
            self.walk_one(view, root, repository, &order, &mut steps);
        }
        let wanted = &self.wanted;
        let pulls = &self.pulls;
        self.edges.retain(|manifest, _| wanted.contains_key(manifest) || pulls.contains_key(manifest));
        self.leaving.retain(|manifest, _| wanted.contains_key(manifest));
        let is_missing = |(manifest, wanted): (&Digest, &Wanted)| {
            let missing = !view.is_here(&wanted.repository, manifest);
            missing.then_some((u16::MAX - wanted.order.priority, *manifest))
        };
        self.missing = self.wanted.iter().filter_map(is_missing).collect();
        self.missing.sort_unstable();
        self.fetch(view, &mut steps);
        self.end_pulls(view);
        steps
    }

    /// Says what to do next about what was missing, where nothing is known to have changed but who is connected.
    /// Nothing where a walk is due: hours began or ended, a client waits, or the last one was long ago.
    pub(super) fn go_on(
        &mut self,
        view: &View<'_>,
        policies: &BTreeMap<RepoName, Kept>,
    ) -> Option<Vec<Step>> {
        let open = open(policies, view);
        let due = self.walked.0 != open || view.now.time.since(self.walked.1) >= WALK_EVERY;
        if due || !self.pulls.is_empty() {
            self.walked = (open, view.now.time);
            return None;
        }
        let mut steps = Vec::new();
        self.fetch(view, &mut steps);
        Some(steps)
    }

    fn walk_one(
        &mut self,
        view: &View<'_>,
        root: Digest,
        repository: RepoName,
        order: &Orders,
        steps: &mut Vec<Step>,
    ) {
        let mut seen = BTreeSet::new();
        let mut next = alloc::vec![(root, repository, 0)];
        while let Some((manifest, repository, depth)) = next.pop() {
            if depth > DEPTH_MAX || seen.len() >= PARTS_MAX || !seen.insert(manifest) {
                continue;
            }
            let Some(place) = view.catalog.artifact(&repository, &manifest) else { continue };
            match self.wanted.get_mut(&manifest) {
                Some(wanted) => wanted.order.join(order),
                None => {
                    let wanted = Wanted { repository: repository.clone(), order: order.clone(), root };
                    self.wanted.insert(manifest, wanted);
                }
            }
            if order.referrers {
                let about_it = view.catalog.referrers(&repository, &manifest).take(REFERRERS_MAX);
                next.extend(about_it.map(|referrer| (referrer, repository.clone(), depth + 1)));
            }
            let Some(edges) = self.edges.get(&manifest) else {
                let is_here = view.held.contains(&place.index);
                // What is not here yet is read when it is.
                self.unread |= is_here;
                let may = self.reading.len() < READING_MAX;
                if is_here && may && self.reading.insert(place.index, manifest).is_none() {
                    steps.push(Step::Read(place.index));
                }
                continue;
            };
            let meant = edges
                .children
                .iter()
                .filter(|(_, platform)| select::means_platform(&order.platforms, platform.as_deref()));
            next.extend(meant.map(|(child, _)| (*child, repository.clone(), depth + 1)));
            if order.depends {
                next.extend(edges.depends.iter().filter_map(|(within, target)| {
                    let named = within.clone().filter(|name| view.catalog.artifact(name, target).is_some());
                    let within = named.or_else(|| view.catalog.repositories(target).next().cloned())?;
                    Some((*target, within, depth + 1))
                }));
            }
        }
    }

    /// What of what is wanted is to be fetched now.
    fn fetch(&mut self, view: &View<'_>, steps: &mut Vec<Step>) {
        let missing = core::mem::take(&mut self.missing);
        let is_under_way = |(_, manifest): &&(u16, Digest)| {
            view.coming.contains(manifest) && view.has_holder(manifest) != Reach::Nobody
        };
        let mut room = AT_ONCE.saturating_sub(missing.iter().filter(is_under_way).count());
        let mut dials = DIALS_AT_ONCE;
        for (_, manifest) in &missing {
            if view.coming.contains(manifest) {
                continue;
            }
            match self.obstacle(view, manifest) {
                None if room > 0 => {
                    room -= 1;
                    self.leaving.remove(manifest);
                    let Some(wanted) = self.wanted.get(manifest) else { continue };
                    steps.push(Step::Bring(wanted.repository.clone(), *manifest));
                }
                Some(Obstacle::NoHolder) if dials > 0 => {
                    dials -= 1;
                    steps.push(Step::Dial(*manifest));
                }
                Some(Obstacle::Another(_)) => {
                    self.leaving.entry(*manifest).or_insert(view.now.time);
                }
                _ => {}
            }
        }
        self.missing = missing;
    }

    /// What keeps this node from fetching something that it is to hold.
    pub(super) fn obstacle(&self, view: &View<'_>, manifest: &Digest) -> Option<Obstacle> {
        let order = &self.wanted.get(manifest)?.order;
        if !order.open {
            return Some(Obstacle::Hours);
        }
        match view.has_holder(manifest) {
            Reach::Near => None,
            Reach::Nobody => Some(Obstacle::NoHolder),
            Reach::Far if view.config.metered && !order.metered => Some(Obstacle::Metered),
            Reach::Far => {
                let first = order.first.filter(|first| *first != view.me && view.membership.is_up(first))?;
                let since = self.leaving.get(manifest).copied().unwrap_or(view.now.time);
                (view.now.time.since(since) < PATIENCE).then_some(Obstacle::Another(first))
            }
        }
    }

    /// Pulls whose parts are all here are over; so are those that nobody could supply for long.
    fn end_pulls(&mut self, view: &View<'_>) {
        let missing: BTreeSet<Digest> = self
            .wanted
            .iter()
            .filter(|(manifest, wanted)| !view.is_here(&wanted.repository, manifest))
            .map(|(_, wanted)| wanted.root)
            .collect();
        let (unread, now) = (self.unread, view.now.time);
        self.pulls
            .retain(|root, (_, since)| (missing.contains(root) || unread) && now.since(*since) < PULLS_LAST);
    }
}

/// The policies whose hours are open.
fn open(policies: &BTreeMap<RepoName, Kept>, view: &View<'_>) -> BTreeSet<RepoName> {
    let is_open = |kept: &Kept| kept.policy.hours(view.now.wall) == Hours::Open;
    policies.iter().filter(|(_, kept)| is_open(kept)).map(|(name, _)| name.clone()).collect()
}

/// Why something is not fetched now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// The policy's hours.
    Hours,
    /// Nobody who has it is connected.
    NoHolder,
    /// Only other sites have it, and the uplink is metered.
    Metered,
    /// Another node of the site fetches it first.
    Another(NodeId),
}

/// The nearest connected node that has all of an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    Near,
    Far,
    Nobody,
}

impl View<'_> {
    pub(super) fn has_holder(&self, manifest: &Digest) -> Reach {
        let whole = self.catalog.holders(manifest).filter(|(_, state)| *state == HoldingState::Complete);
        let up = whole.filter(|(node, _)| *node != self.me && self.membership.is_up(node));
        let mut reach = Reach::Nobody;
        for (node, _) in up {
            if self.catalog.site_of(&node) == Some(self.config.site.as_str()) {
                return Reach::Near;
            }
            reach = Reach::Far;
        }
        reach
    }
}

impl Edges {
    fn of(index: &ArtifactIndex) -> Self {
        let mut edges = Edges::default();
        for edge in &index.edges {
            match &edge.kind {
                EdgeKind::Child => edges.children.push((edge.digest, edge.platform.clone())),
                EdgeKind::Depends { reference, .. } => {
                    edges.depends.push((repository_of(reference), edge.digest));
                }
                _ => {}
            }
        }
        edges
    }
}

impl Orders {
    /// Two want the same thing: the more generous terms count.
    fn join(&mut self, other: &Orders) {
        self.priority = self.priority.max(other.priority);
        self.first =
            if self.open && other.open { self.first.and(other.first) } else { self.first.or(other.first) };
        self.open |= other.open;
        self.metered |= other.metered;
        self.by_policy |= other.by_policy;
    }
}

/// The repository in `repository[:tag][@digest]`, as dependencies are written by the node.
fn repository_of(reference: &str) -> Option<RepoName> {
    let name = reference.split('@').next().unwrap_or_default();
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    name.parse().ok()
}

/// How often all that hangs together is walked while something is missing and nothing changes.
const WALK_EVERY: Span = Span::secs(30);
/// Artifacts that are brought at a time: priority decides among those that wait.
const AT_ONCE: usize = 8;
/// Artifacts whose holders are looked for in one evaluation.
const DIALS_AT_ONCE: usize = 3;
/// How deep edges are followed: chart, image index, image, signature, signature of that.
const DEPTH_MAX: usize = 8;
/// Parts of one artifact that come along.
const PARTS_MAX: usize = 10_000;
/// Referrers of one artifact that come along.
const REFERRERS_MAX: usize = 1000;
const READING_MAX: usize = 64;
const PULLED_MAX: usize = 1024;
const PULLS_MAX: usize = 256;
const PULLS_FIRST: u16 = 1000;
/// How long parts of what was pulled are looked for.
const PULLS_LAST: Span = Span::secs(3600);
/// How long another node of the site is left to fetch something first.
const PATIENCE: Span = Span::secs(300);
