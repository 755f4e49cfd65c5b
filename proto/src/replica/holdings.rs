//! Telling others what this node holds. Its own site hears of everything, at once and from node to node; the mesh hears
//! in summary, from a few of each site that have an artifact. Owns who those are. What a node tells its site and what
//! it tells the mesh are two records, each right by itself and changed together.
//!
//! Nobody is elected. Whoever completes an artifact first tells; once a site's holdings have settled, the first in the
//! site's order who does not tell makes up for who is missing, and all agree who that is as soon as they know the same.
//! Where they do not, one too many tells, which costs a record. Words are taken back only with the copy.
//!
//! That a node has begun with an artifact it notes for itself, and tells only if that lasts: who wants the same hears
//! of it from [`crate::wants`], and when many nodes pull at once, each tells once and not twice.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};

use super::{PERSIST_WITHIN, Replica, peers};
use crate::{
    alarm::sooner,
    body::{HoldingState, SummaryBody},
    event::{Change, Output},
    id::{Digest, NodeId},
    record::{Key, Kind},
    shared::{Said, Shared},
    time::{Now, Span, Time},
    wire::{Message, batches},
    writes::{Origin, Pending},
};

/// What has to be looked at again, and who of the site is not there.
#[derive(Debug, Default)]
pub(super) struct Tellers {
    /// Artifacts of which others of the site hold, or tell, something else than before.
    due: BTreeMap<Digest, Due>,
    lost: BTreeMap<NodeId, Lost>,
    looked: Time,
    /// Artifacts that this node has begun to bring and has not told of, and when: the oldest first.
    begun: VecDeque<(Time, Digest)>,
    /// Nothing is due before.
    soonest: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
struct Due {
    since: Time,
    at: Time,
}

/// A node of the site without a session.
#[derive(Clone, Copy, Debug)]
struct Lost {
    since: Time,
    /// The longest absence that was made up for.
    made_up: Span,
}

impl Tellers {
    /// A session came up.
    pub(super) fn up(&mut self, peer: &NodeId) {
        self.lost.remove(peer);
    }

    /// A node of the site has no session, or not any more.
    pub(super) fn down(&mut self, now: Time, node: NodeId) {
        self.lost.entry(node).or_insert(Lost { since: now, made_up: Span::default() });
    }

    fn is_due(&mut self, now: Time, manifest: Digest, after: Span) {
        let due = self.due.entry(manifest).or_insert(Due { since: now, at: now });
        due.at = (now + after).min(due.since + SETTLES_WITHIN);
        sooner(&mut self.soonest, due.at);
    }

    /// When there is something to look at.
    pub(super) fn next(&self) -> Option<Time> {
        let away = (!self.lost.is_empty()).then_some(self.looked + LOOK_EVERY);
        let lasting = self.begun.front().map(|(since, _)| *since + LASTS);
        self.soonest.into_iter().chain(away).chain(lasting).min()
    }

    /// The same where nobody of the site tells: more news do not put it off.
    fn is_due_soon(&mut self, now: Time, manifest: Digest) {
        let due = self.due.entry(manifest).or_insert(Due { since: now, at: now + SOON });
        due.at = due.at.min(now + SOON);
        sooner(&mut self.soonest, due.at);
    }

    /// What has been on its way here for so long that it is time to tell of it.
    fn take_lasting(&mut self, now: Time) -> Vec<Digest> {
        let lasting = self.begun.iter().take_while(|(since, _)| now.since(*since) >= LASTS);
        let count = lasting.take(AT_ONCE).count();
        self.begun.drain(..count).map(|(_, manifest)| manifest).collect()
    }

    /// What it is time to look at.
    fn take(&mut self, now: Time) -> Vec<Digest> {
        if self.soonest.is_none_or(|at| at > now) {
            return Vec::new();
        }
        let ready = self.due.iter().filter(|(_, due)| due.at <= now).map(|(manifest, _)| *manifest);
        let ready: Vec<Digest> = ready.take(AT_ONCE).collect();
        for manifest in &ready {
            self.due.remove(manifest);
        }
        self.soonest = self.due.values().map(|due| due.at).min();
        ready
    }
}

impl Replica {
    // ---- what is said ----

    /// The records that say how much of an artifact this node has, as far as that is not known already.
    pub(super) fn says(&self, now: Now, manifest: &Digest, state: HoldingState) -> Vec<Shared> {
        let told = self.writes.summarised(&self.catalog, manifest).state;
        let for_policy = self.keeper.counted(manifest).is_some() && self.keeper.is_chosen(manifest);
        let tells = match state {
            HoldingState::Gone => false,
            HoldingState::Partial => for_policy,
            HoldingState::Complete => {
                for_policy || told != HoldingState::Gone || self.is_first(now.time, manifest)
            }
        };
        self.words(now, manifest, state, if tells { state } else { HoldingState::Gone })
    }

    /// The same of what is published here, which the mesh is to know in any case.
    pub(super) fn publishes(&self, now: Now, manifest: &Digest, state: HoldingState) -> Vec<Shared> {
        self.words(now, manifest, state, state)
    }

    fn words(&self, now: Now, manifest: &Digest, here: HoldingState, told: HoldingState) -> Vec<Shared> {
        let (catalog, wall, site) = (&self.catalog, now.wall, &self.config.site);
        let holding = self.writes.holding(catalog, wall, site, manifest, here);
        let known = self.writes.summarised(catalog, manifest);
        let copies = self.complete_here(manifest).into_iter().filter(|node| *node != self.me()).count();
        let body = match told {
            HoldingState::Gone => SummaryBody { state: told, copies: 0 },
            HoldingState::Partial => SummaryBody { state: told, copies: number(copies) },
            HoldingState::Complete => SummaryBody { state: told, copies: number(copies + 1) },
        };
        let news = known.state != told;
        let summary = news.then(|| self.writes.summary(catalog, wall, manifest, body)).flatten();
        holding.into_iter().chain(summary).collect()
    }

    /// Tells the mesh of a copy that somebody looks for; nothing where it was told, or is not here.
    pub(super) fn tell_now(&mut self, now: Now, manifest: &Digest, out: &mut Vec<Output>) {
        if self.catalog.holding(manifest, &self.me()) == Some(HoldingState::Complete) {
            let records = self.publishes(now, manifest, HoldingState::Complete);
            self.persist_own(records, None, None, out);
        }
    }

    /// Whether this node is to tell the mesh of an artifact at once: nobody of the site does, and of those who may be
    /// about to this one comes first. Who that is, is not known: all of the site, as they may all have begun.
    fn is_first(&self, now: Time, manifest: &Digest) -> bool {
        let (me, site) = (self.me(), &self.config.site);
        let is_there = |node: &NodeId| self.is_near_node(node) && !self.is_away(now, node, SHORT);
        let mut tellers = self.catalog.summaries(manifest);
        if tellers.any(|(node, state, _)| state == HoldingState::Complete && node != me && is_there(&node)) {
            return false;
        }
        let mut others = self.catalog.nodes_of(site).map(|(node, _)| node);
        let mine = self.weight_here(&me);
        others.all(|node| *node == me || !is_there(node) || mine < self.weight_here(node))
    }

    /// The nodes of the site that say to have all of an artifact.
    fn complete_here(&self, manifest: &Digest) -> BTreeSet<NodeId> {
        let whole = self.catalog.holders(manifest).filter(|(_, state)| *state == HoldingState::Complete);
        whole.map(|(node, _)| node).filter(|node| self.is_near_node(node)).collect()
    }

    fn is_near_node(&self, node: &NodeId) -> bool {
        *node == self.me() || self.catalog.site_of(node) == Some(self.config.site.as_str())
    }

    /// Whether a node of the site has not been there for so long, as far as this one has tried to reach it.
    fn is_away(&self, now: Time, node: &NodeId, span: Span) -> bool {
        let lost = self.tellers.lost.get(node);
        lost.is_some_and(|lost| now.since(lost.since) >= span)
            && self.membership.failures(node) > 0
            && !self.membership.is_up(node)
    }

    // ---- what has only begun ----

    /// So that a restart knows what is on its way. Says nothing where all of it is here already, and others hear of it
    /// only if it lasts, except where a policy counts copies: who is to have them is decided from these words.
    pub(super) fn note_it_comes(&mut self, now: Now, manifest: &Digest, out: &mut Vec<Output>) {
        if self.catalog.holding(manifest, &self.me()).is_some() {
            return;
        }
        let records = self.says(now, manifest, HoldingState::Partial);
        if self.keeper.counted(manifest).is_some() {
            self.persist_own(records, None, None, out);
        } else if !records.is_empty() {
            let pending =
                Pending { records: records.clone(), request: None, origin: Origin::Aside, then: None };
            let write = self.writes.start(pending);
            out.push(Output::Persist { write, records, within: PERSIST_WITHIN });
        }
    }

    /// What [`Self::note_it_comes`] wrote is durable.
    pub(super) fn put_aside(&mut self, now: Now, records: Vec<Shared>) {
        for record in records {
            let Said::Holding { manifest, .. } = *record.said() else { continue };
            if self.writes.put_aside(&self.catalog, record) {
                self.tellers.begun.push_back((now.time, manifest));
            }
        }
    }

    /// Tells of what is here in part, and was not completed in a while.
    fn tell_what_lasts(&mut self, now: Now, out: &mut Vec<Output>) {
        let (site, me) = (self.config.site.clone(), self.me());
        let lasting = self.tellers.take_lasting(now.time);
        let records = lasting.iter().filter_map(|manifest| {
            let key = Key::holding(&site, manifest, &me);
            self.writes.take_aside(&key)
        });
        let records: Vec<Shared> = records.collect();
        if !records.is_empty() {
            self.say_durable(now, records, out);
        }
    }

    // ---- who tells the mesh ----

    /// Somebody said something about what nodes hold, or are.
    pub(super) fn note_told(&mut self, now: Time, change: &Change, site_before: Option<&str>) {
        let here = self.config.site.as_str();
        match change {
            Change::Holding { manifest, node, .. } if self.is_near_node(node) => self.touch(now, *manifest),
            Change::Node { node, body } if site_before == Some(here) && body.site != here => {
                self.look_at_words_of(now, node);
            }
            _ => {}
        }
    }

    fn touch(&mut self, now: Time, manifest: Digest) {
        if self.catalog.holding(&manifest, &self.me()).is_some() {
            match self.is_told(now, &manifest) {
                true => self.tellers.is_due(now, manifest, SETTLE),
                false => self.tellers.is_due_soon(now, manifest),
            }
        }
    }

    /// Whether some node of the site that is there tells the mesh of an artifact.
    fn is_told(&self, now: Time, manifest: &Digest) -> bool {
        let mut whole =
            self.catalog.summaries(manifest).filter(|(_, state, _)| *state == HoldingState::Complete);
        whole.any(|(node, ..)| self.is_near_node(&node) && !self.is_away(now, &node, SHORT))
    }

    fn look_at_words_of(&mut self, now: Time, node: &NodeId) {
        let told: Vec<Digest> = self.catalog.held_by(node, Kind::SUMMARY).map(|(of, _)| of).collect();
        for manifest in told {
            if self.catalog.holding(&manifest, &self.me()).is_some() {
                self.tellers.is_due(now, manifest, Span::default());
            }
        }
    }

    /// At the start: others may have come and gone meanwhile.
    pub(super) fn look_at_all_words(&mut self, now: Time) {
        let me = self.me();
        let others = self.catalog.nodes_of(&self.config.site).map(|(node, _)| *node);
        others.filter(|node| *node != me).for_each(|node| self.tellers.down(now, node));
        for (manifest, _) in self.catalog.held_by(&me, Kind::HOLDING) {
            self.tellers.is_due(now, manifest, SETTLE);
        }
    }

    /// Called when something is due, and now and then without.
    pub(super) fn look_after_summaries(&mut self, now: Now, out: &mut Vec<Output>) {
        if now.time.since(self.tellers.looked) >= LOOK_EVERY {
            self.tellers.looked = now.time;
            self.look_for_lost(now.time);
        }
        self.tell_what_lasts(now, out);
        let mut records = Vec::new();
        for manifest in self.tellers.take(now.time) {
            match self.summary_due(now.time, &manifest) {
                Some(body) => {
                    records.extend(self.writes.summary(&self.catalog, now.wall, &manifest, body));
                }
                // Whoever comes first may be gone before it tells.
                None => {
                    let mine = self.catalog.holding(&manifest, &self.me());
                    if mine == Some(HoldingState::Complete) && !self.is_told(now.time, &manifest) {
                        self.tellers.is_due(now.time, manifest, SETTLE);
                    }
                }
            }
        }
        if !records.is_empty() {
            self.persist_own(records, None, None, out);
        }
    }

    fn look_for_lost(&mut self, now: Time) {
        if self.catalog.held_by(&self.me(), Kind::HOLDING).next().is_none() {
            return;
        }
        let mut gone = Vec::new();
        for (node, lost) in &mut self.tellers.lost {
            let away = now.since(lost.since);
            let past = [LONG, SHORT].into_iter().find(|span| *span <= away).unwrap_or_default();
            if past > lost.made_up && self.membership.failures(node) > 0 {
                lost.made_up = past;
                gone.push(*node);
            }
        }
        for node in gone {
            self.look_at_words_of(now, &node);
        }
    }

    /// What this node is to tell the mesh of an artifact now, if that is anything new.
    fn summary_due(&self, now: Time, manifest: &Digest) -> Option<SummaryBody> {
        let me = self.me();
        let here = self.complete_here(manifest);
        if self.catalog.holding(manifest, &me) != Some(HoldingState::Complete) {
            return None;
        }
        let whole = self.catalog.summaries(manifest).filter(|(_, state, _)| *state == HoldingState::Complete);
        let mut told: BTreeMap<NodeId, u16> =
            whole.filter(|(node, ..)| here.contains(node)).map(|(node, _, copies)| (node, copies)).collect();
        // Perhaps it is on its way to disk.
        let own = self.writes.summarised(&self.catalog, manifest);
        if own.state == HoldingState::Complete {
            told.insert(me, own.copies);
        }
        let body = SummaryBody { state: HoldingState::Complete, copies: number(here.len()) };
        if let Some(mine) = told.get(&me) {
            let own = self.weight_here(&me);
            let first = told.keys().all(|node| own <= self.weight_here(node));
            let most = told.values().max();
            let fewer = first && most.is_some_and(|most| *most < body.copies);
            return (*mine > body.copies || fewer).then_some(body);
        }
        let there = |span| told.keys().filter(|node| !self.is_away(now, node, span)).count();
        let wanted = self.keeper.counted(manifest).unwrap_or_default().max(TELLERS);
        let missing = wanted.saturating_sub(there(LONG)).max(usize::from(there(SHORT) == 0));
        let others = here.iter().filter(|node| !told.contains_key(*node) && !self.is_away(now, node, SHORT));
        let own = self.weight_here(&me);
        let before = others.filter(|node| self.weight_here(node) < own).count();
        (before < missing).then_some(body)
    }

    // ---- telling the site ----

    /// Tells others what this node wrote, which is durable: its site of what is the site's, directly, the mesh of the
    /// rest.
    pub(super) fn tell(&mut self, now: Now, records: Vec<Shared>, out: &mut Vec<Output>) {
        let (near, all): (Vec<Shared>, Vec<Shared>) =
            records.into_iter().partition(|record| record.site().is_some());
        let for_all = !all.is_empty();
        peers::announce(all, out);
        if !near.is_empty() {
            let home = self.home_by_weight();
            send(&near, home.into_iter(), out);
        }
        let (catalog, here) = (&self.catalog, self.config.site.as_str());
        let concerns = |peer: &NodeId| for_all || catalog.site_of(peer).is_none_or(|site| site == here);
        self.rounds.after_news(now.time, concerns, &mut self.rng);
    }

    /// In a site that is so large that nobody has sessions with all, news go on from node to node. A long list comes
    /// from a comparison, and those who lack it compare too.
    pub(super) fn pass_on(&mut self, from: NodeId, news: &[Shared], out: &mut Vec<Output>) {
        let near: Vec<Shared> = news.iter().filter(|record| record.site().is_some()).cloned().collect();
        if near.is_empty() || near.len() > PASSED_ON_MAX || !self.is_crowded() {
            return;
        }
        let mut home: Vec<NodeId> = self.home_by_weight().into_iter().filter(|peer| *peer != from).collect();
        self.rng.shuffle(&mut home);
        send(&near, home.into_iter().take(PASSED_ON_TO), out);
    }

    // ---- where a node is ----

    /// At the start, records of a site that this node is not on any more: what it holds it says again where it is now,
    /// and forgets the rest. Returns what it had begun to bring.
    pub(super) fn moved(&mut self, now: Now, records: &[Shared], out: &mut Vec<Output>) -> Vec<Digest> {
        let (me, mut again, mut forgotten, mut coming) = (self.me(), Vec::new(), Vec::new(), Vec::new());
        for record in records {
            let Ok(Some(Change::Holding { manifest, node, state, told })) = record.change() else { continue };
            if node == me && state != HoldingState::Gone && self.catalog.holding(&manifest, &me).is_none() {
                let site = &self.config.site;
                again.extend(self.writes.holding(&self.catalog, now.wall, site, &manifest, state));
                coming.extend((state == HoldingState::Partial).then_some(manifest));
                // Its own words are forgotten at the next start, when the new ones are surely there.
                continue;
            }
            if node != me {
                let state = HoldingState::Gone;
                out.push(Output::Catalog(Change::Holding { manifest, node, state, told }));
            }
            forgotten.push(record.key.clone());
        }
        if !forgotten.is_empty() {
            out.push(Output::Forget { keys: forgotten });
        }
        if !again.is_empty() {
            self.persist_own(again, None, None, out);
        }
        coming
    }
}

fn send(records: &[Shared], to: impl Iterator<Item = NodeId>, out: &mut Vec<Output>) {
    let batches = batches(records.iter().cloned(), Message::MAX_ANNOUNCE_BYTES);
    for to in to {
        let messages =
            batches.iter().cloned().map(|records| Output::Send { to, message: Message::Records(records) });
        out.extend(messages);
    }
}

fn number(copies: usize) -> u16 {
    u16::try_from(copies).unwrap_or(u16::MAX)
}

/// Nodes of a site that tell the mesh of an artifact: while one is away the other can be found.
const TELLERS: usize = 2;
/// After this the word of one that is away does not count where it is the only one. Machines restart in less.
const SHORT: Span = Span::secs(60);
/// And after this it does not count beside others: a node that was away tells no less when it comes back, and to
/// replace all of its words costs the mesh a record for each.
const LONG: Span = Span::secs(6 * 60 * 60);
/// How long a site's holdings of an artifact must not have changed before one more tells, or tells another number.
const SETTLE: Span = Span::secs(30);
/// The same where nobody of the site tells.
const SOON: Span = Span::secs(2);
/// How long an artifact must have been on its way here before that is told: most are here sooner.
const LASTS: Span = Span::secs(30);
/// At most this long is waited.
const SETTLES_WITHIN: Span = Span::secs(300);
/// How often is looked who of the site is away.
const LOOK_EVERY: Span = Span::secs(30);
/// Artifacts that are looked at in one second.
const AT_ONCE: usize = 256;
/// Members that news of the site are passed on to: with each telling four others, all but two in a hundred hear; these
/// find it when they compare.
const PASSED_ON_TO: usize = 4;
const PASSED_ON_MAX: usize = 16;
