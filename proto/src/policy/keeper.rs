//! What policies want at this node: keeps, from change to change, which artifacts they select and which of
//! those this node is to hold. Evaluates at most once a second, and only what a change touched. Which node is
//! chosen is [`crate::placement`]'s business, what comes along with an artifact [`super::closure`]'s, fetching
//! [`crate::artifacts`]'.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use super::{Policy, PolicyBody, closure::Closure, select};
use crate::{
    alarm::Alarm,
    body::HoldingState,
    catalog::Catalog,
    config::ReplicaConfig,
    event::{Change, Output, Timer},
    id::{Digest, Hash, NodeId, RepoName, Tag},
    index::ArtifactIndex,
    membership::Membership,
    placement::{self, Copies, Fleet, Silence},
    record::Kind,
    surplus::Share,
    time::{Now, Span, Time},
};

/// What policies and pulls want at this node.
#[derive(Debug, Default)]
pub struct Keeper {
    policies: BTreeMap<RepoName, Kept>,
    /// Tags of the repositories that a policy speaks of.
    tags: BTreeMap<RepoName, BTreeMap<Tag, select::Tagged>>,
    /// What each policy selects in each repository.
    selected: BTreeMap<Choice, BTreeSet<Digest>>,
    /// The same, by artifact.
    roots: BTreeMap<Digest, BTreeSet<Choice>>,
    /// What of it this node is to hold.
    pub(super) mine: BTreeMap<Digest, Vec<Duty>>,
    /// What comes along.
    pub(super) closure: Closure,
    news: News,
    /// When each node was last heard of: those of this site, and others with which there was a session.
    heard: BTreeMap<NodeId, Time>,
    /// Nodes with which a session ended.
    parted: BTreeSet<NodeId>,
    away: Silence,
    alarm: Alarm,
    evaluated: Option<Time>,
}

/// A policy, and a repository in which it selects.
pub(super) type Choice = (RepoName, RepoName);

/// A policy and the nodes that it means.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) policy: Policy,
    pub(super) fleet: Fleet,
}

/// That this node is to hold an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Duty {
    /// By which policy.
    pub(super) policy: RepoName,
    /// Where it was selected.
    pub(super) repository: RepoName,
    /// Who of this site is to fetch it from outside, so that it crosses the WAN once.
    pub(super) first: Option<NodeId>,
}

/// What changed since the last evaluation.
#[derive(Debug, Default)]
struct News {
    policies: bool,
    nodes: bool,
    repositories: BTreeSet<RepoName>,
    artifacts: BTreeSet<Digest>,
    closures: bool,
}

/// What the keeper sees of the rest of the replica.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The moment.
    pub now: Now,
    /// This node.
    pub me: NodeId,
    /// How it behaves.
    pub config: &'a ReplicaConfig,
    /// What is known.
    pub catalog: &'a Catalog,
    /// Who is connected.
    pub membership: &'a Membership,
    /// What is here.
    pub held: &'a BTreeSet<Hash>,
    /// What is being brought here.
    pub coming: &'a BTreeSet<Digest>,
}

/// What is to be done for policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read an artifact index that is held.
    Read(Hash),
    /// Bring an artifact here.
    Bring(RepoName, Digest),
    /// Look for somebody who has it.
    Dial(Digest),
}

impl View<'_> {
    /// Whether all of an artifact is here.
    pub(super) fn is_here(&self, repository: &RepoName, manifest: &Digest) -> bool {
        let whole = self.catalog.holding(manifest, &self.me) == Some(HoldingState::Complete);
        let place = self.catalog.artifact(repository, manifest);
        whole && place.is_some_and(|p| self.held.contains(&p.manifest) && self.held.contains(&p.index))
    }

    /// Who has an artifact.
    pub(super) fn copies(&self, manifest: &Digest, sites: bool) -> Copies {
        let mut copies = Copies { holders: self.catalog.holders(manifest).collect(), ..Copies::default() };
        for (node, state, number) in self.catalog.summaries(manifest).filter(|_| sites) {
            copies.told.insert(node, state);
            let site = self.catalog.site_of(&node).filter(|_| state == HoldingState::Complete);
            if let Some(site) = site {
                let most = copies.sites.entry(site.into()).or_default();
                *most = number.max(*most);
            }
        }
        copies
    }
}

impl Keeper {
    /// The catalog of a node of this site changed.
    pub fn note(&mut self, now: Time, change: &Change, site: &str) {
        match change {
            Change::Policy { .. } => self.news.policies = true,
            Change::Node { node, body } => {
                if body.site == site {
                    self.heard.entry(*node).or_insert(now);
                }
                self.news.nodes = true;
            }
            Change::Tag { repository, tag, body, version, .. } if self.speaks_of(repository) => {
                let tags = self.tags.entry(repository.clone()).or_default();
                match body.target {
                    Some(target) => {
                        let tagged = select::Tagged { tag: tag.clone(), target, counter: *version };
                        tags.insert(tag.clone(), tagged);
                    }
                    None => drop(tags.remove(tag)),
                }
                self.news.repositories.insert(repository.clone());
            }
            Change::Artifact { repository, .. } if self.tags.contains_key(repository) => {
                self.news.closures = true;
            }
            Change::Holding { manifest, .. } => {
                if self.roots.contains_key(manifest) {
                    self.news.artifacts.insert(*manifest);
                }
                self.news.closures |= self.closure.wants(manifest);
            }
            _ => {}
        }
    }

    /// Something that a node signed came in: it was there not long ago.
    pub fn hear(&mut self, now: Time, author: &NodeId) {
        if let Some(heard) = self.heard.get_mut(author) {
            *heard = now;
        }
    }

    /// A session with a member ended.
    pub fn parted(&mut self, now: Time, peer: NodeId) {
        self.heard.insert(peer, now);
        self.parted.insert(peer);
    }

    /// The node starts, with policies among what was restored, or not, and these other nodes of its site.
    pub fn restored(&mut self, now: Time, policies: bool, nodes: impl Iterator<Item = NodeId>) {
        self.heard.extend(nodes.map(|node| (node, now)));
        self.news.policies = policies;
    }

    /// A client pulls an artifact: what it lists, needs, and what is about it is to follow.
    pub fn pulled(&mut self, repository: &RepoName, manifest: Digest) {
        self.closure.pulled(repository, manifest);
    }

    /// An artifact index was read, or could not be.
    pub fn index_read(&mut self, now: Time, catalog: &Catalog, hash: Hash, index: Option<&ArtifactIndex>) {
        self.news.closures |= self.closure.index_read(now, catalog, hash, index);
    }

    /// The policies, by name.
    pub fn policies(&self) -> impl Iterator<Item = (&RepoName, &Policy)> {
        self.policies.iter().map(|(name, kept)| (name, &kept.policy))
    }

    /// Whether a policy wants an artifact at this node, as part of whatever. Unknown while something that could
    /// change the answer has not been looked at.
    pub fn wants(&self, manifest: &Digest) -> Option<bool> {
        let known = !self.has_work() && self.closure.is_known();
        let wanted = self.closure.wants_for_policy(manifest);
        (known || wanted).then_some(wanted)
    }

    /// The most copies in all that a policy counts of an artifact that it selects: so many of a site tell the mesh.
    pub(crate) fn counted(&self, manifest: &Digest) -> Option<usize> {
        let policies = self.roots.get(manifest)?.iter().filter_map(|(name, _)| self.policies.get(name));
        policies.filter_map(|kept| kept.policy.copies).max().map(usize::from)
    }

    /// Whether a policy that selects an artifact wants it at this node.
    pub(crate) fn is_chosen(&self, manifest: &Digest) -> bool {
        self.mine.contains_key(manifest)
    }

    /// Sets the timer, unless it runs, while there is anything to look after.
    pub fn arm(&mut self, now: Time, out: &mut Vec<Output>) {
        let needed = self.has_work() || self.closure.is_waiting() || !self.policies.is_empty();
        if !needed {
            return;
        }
        let at = match self.evaluated {
            Some(last) if !self.has_work() => (last + self.again()).max(now + Span(1)),
            _ => now + COALESCE,
        };
        if self.alarm.set(at) {
            out.push(Output::SetTimer { at, timer: Timer::Policies });
        }
    }

    /// The timer fired. Whether it is time to evaluate: when something changed, or has to be looked at again.
    pub fn is_due(&mut self, now: Time) -> bool {
        self.alarm.fired(now);
        let due = self.has_work() || self.evaluated.is_none_or(|last| now.since(last) >= self.again());
        if due {
            self.evaluated = Some(now);
        }
        due
    }

    /// How long after an evaluation there is another where nothing changed.
    fn again(&self) -> Span {
        if self.closure.is_waiting() { WAITING } else { IDLE }
    }

    /// Looks at what changed, and says what is to be done.
    pub fn evaluate(&mut self, view: &View<'_>) -> Vec<Step> {
        let news = core::mem::take(&mut self.news);
        let mut touched = news.artifacts;
        if news.policies {
            self.read_policies(view.catalog);
        }
        if news.nodes && !news.policies {
            for kept in self.policies.values_mut() {
                kept.fleet = Fleet::of(&kept.policy.places, view.catalog.nodes());
            }
        }
        for repository in &news.repositories {
            touched.extend(self.select(repository));
        }
        let away = self.silence(view);
        let moved = core::mem::replace(&mut self.away, away) != self.away;
        if news.policies || news.nodes || moved {
            touched.extend(self.roots.keys().chain(self.mine.keys()));
        }
        let touched_nothing = touched.is_empty() && !news.policies;
        for root in touched {
            self.assign(view, root);
        }
        // Hours matter for what is missing only.
        let idle = touched_nothing && !news.closures && !self.closure.is_waiting();
        if idle {
            return Vec::new();
        }
        if touched_nothing
            && !news.closures
            && let Some(steps) = self.closure.go_on(view, &self.policies)
        {
            return steps;
        }
        let duties = self.closure.duties(&self.mine, &self.policies, view);
        self.closure.walk(view, duties)
    }

    /// Everything that is known of the sites and nodes that are away.
    pub fn away(&self) -> &Silence {
        &self.away
    }

    pub(super) fn kept(&self) -> &BTreeMap<RepoName, Kept> {
        &self.policies
    }

    pub(super) fn tags_of(&self, repository: &RepoName) -> impl Iterator<Item = &select::Tagged> {
        self.tags.get(repository).into_iter().flat_map(BTreeMap::values)
    }

    pub(super) fn roots(&self) -> &BTreeMap<Digest, BTreeSet<Choice>> {
        &self.roots
    }

    fn has_work(&self) -> bool {
        let of_policies =
            self.news.nodes || !self.news.artifacts.is_empty() || !self.news.repositories.is_empty();
        self.news.policies || self.news.closures || (of_policies && !self.policies.is_empty())
    }

    fn speaks_of(&self, repository: &RepoName) -> bool {
        self.policies.values().any(|kept| select::means(&kept.policy, repository))
    }

    /// Reads the policies anew, and all tags of the repositories that they speak of.
    fn read_policies(&mut self, catalog: &Catalog) {
        let policies = catalog.policies().filter_map(|record| {
            let policy = record.read::<PolicyBody>().ok()?.policy?;
            let fleet = Fleet::of(&policy.places, catalog.nodes());
            Some((record.key.name.parse().ok()?, Kept { policy, fleet }))
        });
        self.policies = policies.collect();
        while self.policies.len() > Policy::POLICIES_MAX {
            self.policies.pop_last();
        }
        self.tags.clear();
        self.selected.clear();
        self.roots.clear();
        if self.policies.is_empty() {
            return;
        }
        for record in catalog.iter().filter(|record| record.key.kind == Kind::TAG) {
            let (Ok(repository), Ok(tag)) = (record.repository(), record.named_tag()) else { continue };
            let target = record.read::<crate::body::TagBody>().ok().and_then(|body| body.target);
            if let Some(target) = target
                && self.speaks_of(&repository)
            {
                let tagged = select::Tagged { tag: tag.clone(), target, counter: record.version };
                self.tags.entry(repository).or_default().insert(tag, tagged);
            }
        }
        for repository in self.tags.keys().cloned().collect::<Vec<_>>() {
            self.select(&repository);
        }
    }

    /// Selects anew in one repository. Returns what is selected now and was not before, and the reverse.
    fn select(&mut self, repository: &RepoName) -> BTreeSet<Digest> {
        let mut touched = BTreeSet::new();
        for (name, kept) in &self.policies {
            if !select::means(&kept.policy, repository) {
                continue;
            }
            let tags = self.tags.get(repository).into_iter().flat_map(BTreeMap::values);
            let now = select::targets(&kept.policy.tags, tags);
            let choice = (name.clone(), repository.clone());
            let before = self.selected.remove(&choice).unwrap_or_default();
            for manifest in before.difference(&now) {
                touched.insert(*manifest);
                if let Some(choices) = self.roots.get_mut(manifest) {
                    choices.remove(&choice);
                    if choices.is_empty() {
                        self.roots.remove(manifest);
                    }
                }
            }
            for manifest in now.difference(&before) {
                touched.insert(*manifest);
                self.roots.entry(*manifest).or_default().insert(choice.clone());
            }
            if !now.is_empty() {
                self.selected.insert(choice, now);
            }
        }
        touched
    }

    /// Decides whether this node is to hold an artifact.
    fn assign(&mut self, view: &View<'_>, root: Digest) {
        let site = view.config.site.as_str();
        let mut duties = Vec::new();
        for (name, repository) in self.roots.get(&root).into_iter().flatten() {
            let Some(Kept { policy, fleet }) = self.policies.get(name) else { continue };
            if !fleet.contains(site, &view.me) {
                continue;
            }
            let copies = view.copies(&root, policy.copies.is_some());
            let share = placement::share(policy, fleet, site, &root, &copies, &self.away);
            let chosen = placement::chosen(policy, fleet, site, share, &root, &copies, &self.away);
            if chosen.contains(&view.me) {
                let first = chosen.first().copied();
                duties.push(Duty { policy: name.clone(), repository: repository.clone(), first });
            }
        }
        if duties.is_empty() {
            self.mine.remove(&root);
        } else {
            self.mine.insert(root, duties);
        }
    }

    /// Who is away, in steps that a policy's grace can tell apart. Of a node of this site it is known, because
    /// members of a site keep sessions with one another while there is room for more; of another site only
    /// where there was a session, and there is room for one again.
    fn silence(&self, view: &View<'_>) -> Silence {
        let (mut near, mut far) = (0, 0);
        let mut present = BTreeSet::new();
        for peer in view.membership.sessions() {
            let site = view.catalog.site_of(&peer);
            let is_near = site.is_none_or(|site| site == view.config.site);
            *(if is_near { &mut near } else { &mut far }) += 1;
            present.extend(site);
        }
        let others = view.catalog.nodes_of(&view.config.site).filter(|(node, _)| **node != view.me).count();
        let near_most = Share::near(view.config, others).high;
        let mut silence = Silence::default();
        for (node, heard) in &self.heard {
            let Some(site) = view.catalog.site_of(node) else { continue };
            if *node == view.me || view.membership.is_up(node) {
                continue;
            }
            let span = self.past_grace(view.now.time.since(*heard));
            if site == view.config.site {
                if near < near_most {
                    silence.nodes.insert(*node, span);
                }
            } else if far < view.config.far_sessions && !present.contains(site) && self.parted.contains(node)
            {
                let least = silence.sites.entry(site.into()).or_insert(span);
                *least = span.min(*least);
            }
        }
        silence
    }

    /// The longest grace of any policy that a silence has outlasted: shorter steps change nothing.
    fn past_grace(&self, silent: Span) -> Span {
        let graces = self.policies.values().map(|kept| kept.policy.grace());
        graces.filter(|grace| *grace <= silent).max().unwrap_or_default()
    }
}

/// Changes come in bursts: this many are looked at together.
const COALESCE: Span = Span::secs(1);
/// How often what cannot be brought yet is looked at again.
const WAITING: Span = Span::secs(2);
/// How often is looked who is away.
const IDLE: Span = Span::secs(5);
