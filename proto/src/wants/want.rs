//! One blob that is being fetched or waited for.

use alloc::{collections::BTreeSet, vec::Vec};

use super::{Holder, Holders, Order, Waiter, crowd::Crowd, sharing::Sharers, sharing::number};
use crate::{
    cells::Grid,
    event::{Class, Event, Output},
    id::{Digest, Hash, NodeId},
    ranges::Ranges,
    time::{Span, Time},
};

/// A wanted blob.
#[derive(Debug)]
pub(super) struct Want {
    pub(super) size: u64,
    pub(super) grid: Grid,
    pub(super) digest: Option<Digest>,
    manifests: BTreeSet<Digest>,
    /// Members that said themselves to have it.
    told_by: BTreeSet<NodeId>,
    /// Who has all of it, as of the last look.
    possible: Possible,
    pub(super) waiters: BTreeSet<Waiter>,
    pub(super) stage: Stage,
    /// Verified bytes in the store; unknown until probed.
    pub(super) have: Ranges,
    /// Parts of failed transfers, of which some may be here: not fetched before the store has been asked.
    pub(super) doubtful: Ranges,
    pub(super) since: Time,
    /// When bytes last arrived, or the last client came to wait.
    pub(super) progressed: Time,
    /// When the last client came to wait.
    pub(super) asked: Time,
    /// Failed transfers since the last that succeeded.
    pub(super) failures: u32,
    /// Not fetched before then: this node could not store it.
    pub(super) not_before: Time,
    /// When its last transfer ended.
    pub(super) idle_since: Time,
    /// When bytes last were on their way from where all of it is.
    pub(super) drew: Time,
    /// How many other sites come before this one for what it brings in from there: none at first, more where those
    /// that do are slow.
    pub(super) reach: usize,
    /// Transfers of it under way.
    pub(super) flying: usize,
    /// Others that are getting it.
    pub(super) sharers: Sharers,
    pub(super) telling: Telling,
    /// In a large site, once the neighbours have answered.
    pub(super) crowd: Option<Crowd>,
}

/// Who might send all of a blob, best first.
#[derive(Debug, Default)]
struct Possible {
    /// What was known of holders and members then; nothing where it has to be found out anew.
    of: Option<u64>,
    holders: Vec<Holder>,
    /// The same, by name.
    names: Vec<NodeId>,
}

/// What the others have been told of a want.
#[derive(Debug, Default)]
pub(super) struct Telling {
    /// Once members were told that it is wanted here: when those who want the same have had the time to say so.
    pub(super) settled: Option<Time>,
    /// And when those of other sites have.
    pub(super) settled_far: Time,
    /// Neighbours that have not said yet whether they want it too,
    pub(super) unanswered: BTreeSet<NodeId>,
    /// and members of other sites.
    pub(super) unanswered_far: BTreeSet<NodeId>,
    /// Whether there are so many neighbours that there are likely more in this site, of whom this node does not hear:
    /// another node may then come first for the same cells among its own neighbours.
    pub(super) crowd: bool,
    /// Neighbours that were asked.
    pub(super) asked: Vec<NodeId>,
    /// Whether something has changed since the neighbours were told,
    pub(super) news: bool,
    /// how many parts have come since then,
    pub(super) parts: u64,
    /// and since other sites were.
    pub(super) news_far: bool,
    pub(super) told: Time,
    pub(super) told_far: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Probing,
    Fetching,
    Sealing,
}

impl Telling {
    /// A member has said how it stands there, or is gone. Once all have, nobody is waited for.
    pub(super) fn answered(&mut self, now: Time, member: &NodeId) {
        if self.unanswered.remove(member) && self.unanswered.is_empty() {
            self.settled = self.settled.map(|at| at.min(now));
        }
        if self.unanswered_far.remove(member) && self.unanswered_far.is_empty() {
            self.settled_far = self.settled_far.min(now);
        }
    }
}

impl Want {
    pub(super) fn new(now: Time, size: u64) -> Self {
        Want {
            size,
            grid: Grid::of(size),
            digest: None,
            manifests: BTreeSet::new(),
            told_by: BTreeSet::new(),
            possible: Possible::default(),
            waiters: BTreeSet::new(),
            stage: Stage::Probing,
            have: Ranges::new(),
            doubtful: Ranges::new(),
            since: now,
            progressed: now,
            asked: now,
            failures: 0,
            not_before: now,
            idle_since: now,
            drew: now,
            reach: 0,
            flying: 0,
            sharers: Sharers::default(),
            telling: Telling::default(),
            crowd: None,
        }
    }

    /// Somebody more wants it. True where that is the first client.
    pub(super) fn add(&mut self, now: Time, order: &Order, out: &mut Vec<Output>) -> bool {
        let was_urgent = self.is_urgent();
        self.digest = self.digest.or(order.digest);
        self.manifests.insert(order.manifest);
        self.told_by.extend(order.told_by);
        self.possible.of = None;
        // One that is repeated starts no new wait.
        if self.waiters.insert(order.waiter) && order.waiter.is_client() {
            (self.asked, self.progressed, self.failures) = (now, now, 0);
            self.tell(order.hash, out);
        }
        !was_urgent && self.is_urgent()
    }

    /// Some of it is here.
    pub(super) fn arrived(&mut self, hash: Hash, have: &Ranges, out: &mut Vec<Output>) {
        have.iter().for_each(|range| self.have.insert(range));
        (self.telling.news, self.telling.news_far) = (true, true);
        self.tell(hash, out);
    }

    /// Whether it is got from and for others of a large site, and a client waits for it.
    pub(super) fn is_traded(&self) -> bool {
        self.crowd.is_some() && self.stage == Stage::Fetching && self.is_urgent()
    }

    /// What is not here, and not in doubt.
    pub(super) fn missing(&self) -> Ranges {
        let mut missing = self.have.missing(self.size);
        self.doubtful.iter().for_each(|range| missing.remove(range));
        missing
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.waiters.iter().any(Waiter::is_client)
    }

    pub(super) fn class(&self) -> Class {
        if self.is_urgent() { Class::Client } else { Class::Background }
    }

    /// Looks whether anything comes from where all of it is, of other sites. Where nothing did for a while, all that is
    /// this site's to bring is there, and what others have not begun with is taken over, little by little.
    ///
    /// `sends` says whether anything comes from a node.
    pub(super) fn draw(&mut self, now: Time, sends: impl Fn(&NodeId) -> bool) {
        let far = || self.possible_holders().iter().filter(|holder| holder.far);
        let any = far().next().is_some();
        if !self.is_settled(now) || far().any(|holder| sends(&holder.node)) {
            self.drew = now;
        } else if any && now.since(self.drew) >= IDLE_LINE {
            self.reach = (self.reach + 1).min(self.sharers.len());
            self.drew = now;
        }
    }

    /// Whether anybody is there who could send all of it and of whom that is true.
    pub(super) fn has_holder(&self, world: &impl Holders, is_good: impl Fn(Holder) -> bool) -> bool {
        self.told_by.iter().filter_map(|node| world.member(node)).any(&is_good)
            || self.manifests.iter().any(|manifest| world.holders(manifest).into_iter().any(&is_good))
    }

    /// Finds out who might, unless nothing has changed since the last time.
    pub(super) fn look_up(&mut self, world: &impl Holders) {
        let known = world.changes();
        if known.is_none() || known != self.possible.of {
            let of_artifacts = self.manifests.iter().flat_map(|manifest| world.with_session(manifest));
            let holders = self.of(world, of_artifacts);
            let mut names: Vec<NodeId> = holders.iter().map(|holder| holder.node).collect();
            names.sort_unstable();
            self.possible = Possible { of: known, holders, names };
        }
    }

    /// In a large site, finds out who brings it in, once the neighbours have said whether they want it too.
    pub(super) fn join_crowd(&mut self, now: Time, hash: &Hash, world: &impl Holders) {
        if self.crowd.is_none() && self.telling.crowd && self.is_settled(now) {
            let names = (number(&hash.0), number(&world.me().0));
            let nodes = world.site_nodes();
            // All of them are heard of.
            if nodes.len() <= self.telling.asked.len() + 1 {
                self.telling.crowd = false;
                return;
            }
            self.crowd = Some(Crowd::of(names, nodes.iter().map(|node| number(&node.0))));
        }
    }

    /// Who might have at the last look, best first.
    pub(super) fn possible_holders(&self) -> &[Holder] {
        &self.possible.holders
    }

    /// Whether that is one of them.
    pub(super) fn may_have(&self, node: &NodeId) -> bool {
        self.possible.names.binary_search(node).is_ok()
    }

    fn of(&self, world: &impl Holders, of_artifacts: impl Iterator<Item = Holder>) -> Vec<Holder> {
        let told = self.told_by.iter().filter_map(|node| world.member(node));
        let mut holders: Vec<Holder> = of_artifacts.chain(told).collect();
        holders.sort();
        holders.dedup();
        holders
    }

    /// Tells clients that read along how far it is.
    fn tell(&self, hash: Hash, out: &mut Vec<Output>) {
        if self.is_urgent() && !self.have.is_empty() {
            out.push(Output::Notify(Event::Arrived { hash, have: self.have.clone() }));
        }
    }
}

/// News from other sites are up to half a second old: after twice that it is known what they have begun with.
const IDLE_LINE: Span = Span::millis(1_000);
