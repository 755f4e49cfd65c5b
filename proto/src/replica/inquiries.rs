//! Finding a holder that this node has not heard of: it asks a few members, and those a few others. Owns who
//! was asked when and who waits for an answer. An answer is nothing but the records themselves, so nobody has
//! to be believed; whoever has what the mesh was not told of tells all of it.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use super::{Replica, peers::HOLDERS_DIALLED};
use crate::{
    body::HoldingState,
    event::Output,
    id::{Digest, NodeId},
    record::Key,
    shared::{Said, Shared},
    time::{Now, Span, Time},
    wire::Message,
};

/// Questions under way.
#[derive(Debug, Default)]
pub(super) struct Inquiries {
    open: BTreeMap<Digest, Inquiry>,
    /// Questions of each member in the current second.
    asked_by: BTreeMap<NodeId, (Time, usize)>,
    /// When was last asked for what nobody waits for.
    idly: Option<Time>,
}

#[derive(Debug)]
struct Inquiry {
    since: Time,
    askers: BTreeSet<NodeId>,
}

impl Inquiries {
    /// Whether others should be asked now; notes who waits for the answer.
    fn open(&mut self, now: Time, manifest: Digest, asker: Option<NodeId>) -> bool {
        self.open.retain(|_, inquiry| now.since(inquiry.since) < OPEN);
        let is_new = !self.open.contains_key(&manifest);
        if is_new && self.open.len() >= OPEN_MAX {
            return false;
        }
        let inquiry = self.open.entry(manifest).or_insert(Inquiry { since: now, askers: BTreeSet::new() });
        if inquiry.askers.len() < ASKERS_MAX {
            inquiry.askers.extend(asker);
        }
        is_new
    }

    fn admits(&mut self, now: Time, peer: NodeId) -> bool {
        self.asked_by.retain(|_, (since, _)| now.since(*since) < Span::secs(1));
        let (_, count) = self.asked_by.entry(peer).or_insert((now, 0));
        *count += 1;
        *count <= QUESTIONS_A_SECOND
    }
}

impl Replica {
    /// Asks members for a holder of an artifact, if none is known that may be reached and that was not just done.
    pub(super) fn inquire(&mut self, now: Now, manifest: Digest, out: &mut Vec<Output>) {
        if self.has_hope(now.time, &manifest) || !self.inquiries.open(now.time, manifest, None) {
            return;
        }
        self.ask_around(manifest, None, HOPS, out);
    }

    /// The same for what is being brought here without anybody waiting: a few, and seldom.
    pub(super) fn inquire_idly(&mut self, now: Now, manifests: &[Digest], out: &mut Vec<Output>) {
        if self.inquiries.idly.is_some_and(|last| now.time.since(last) < IDLY) {
            return;
        }
        let mut hopeless: Vec<Digest> =
            manifests.iter().filter(|manifest| !self.has_hope(now.time, manifest)).copied().collect();
        self.rng.shuffle(&mut hopeless);
        for manifest in hopeless.into_iter().take(ASKED_IDLY) {
            self.inquiries.idly = Some(now.time);
            self.inquire(now, manifest, out);
        }
    }

    /// A member asks who has an artifact. A copy here that the mesh was not told of is told of now, and so are those
    /// of this site where nobody of it tells any more.
    pub(super) fn inquired(
        &mut self,
        now: Now,
        from: NodeId,
        manifest: Digest,
        hops: u8,
        out: &mut Vec<Output>,
    ) {
        if !self.inquiries.admits(now.time, from) {
            return;
        }
        let (me, whole) = (self.me(), HoldingState::Complete);
        let told: Vec<NodeId> = self.told_by(&manifest).take(HOLDERS_TOLD).collect();
        if self.catalog.holding(&manifest, &me) == Some(whole) && !told.contains(&me) {
            self.inquiries.open(now.time, manifest, Some(from));
            self.tell_now(now, &manifest, out);
            return;
        }
        let answer: Vec<Shared> =
            told.iter().flat_map(|node| self.said(node, Key::summary(&manifest, node))).collect();
        if !answer.is_empty() {
            out.push(Output::Send { to: from, message: Message::Records(answer) });
        }
        if told.iter().any(|node| *node == me || self.membership.is_live(now.time, node)) {
            return;
        }
        let mut untold: Vec<NodeId> = self
            .catalog
            .holders(&manifest)
            .filter(|(_, state)| *state == whole)
            .map(|(node, _)| node)
            .collect();
        untold.retain(|node| *node != from && self.membership.is_live(now.time, node));
        if !untold.is_empty() {
            if self.inquiries.open(now.time, manifest, Some(from)) {
                for to in untold.into_iter().take(ASKED_AT_ONCE) {
                    out.push(Output::Send { to, message: Message::WhoHas { manifest, hops: 1 } });
                }
            }
        } else if hops > 1 && self.inquiries.open(now.time, manifest, Some(from)) {
            self.ask_around(manifest, Some(from), hops.min(HOPS) - 1, out);
        }
    }

    /// Records were taken in, or written here: some may be what others wait for, or a client of this node.
    pub(super) fn answer_inquiries(&mut self, now: Now, news: &[Shared], out: &mut Vec<Output>) {
        for record in news {
            let Said::Holding { manifest, node, state: HoldingState::Complete, .. } = *record.said() else {
                continue;
            };
            // Nearly always: nobody has asked for it.
            if !self.inquiries.open.contains_key(&manifest) {
                continue;
            }
            let answer: Vec<Shared> = self.said(&node, record.key.clone()).collect();
            let Some(inquiry) = self.inquiries.open.remove(&manifest) else { continue };
            for to in inquiry.askers.into_iter().filter(|to| self.membership.is_up(to)) {
                out.push(Output::Send { to, message: Message::Records(answer.clone()) });
            }
            if self.membership.presence.awaited(now.time).contains(&manifest) {
                self.dial_holders(now, &manifest, true, HOLDERS_DIALLED, out);
            }
        }
    }

    /// Asks some members: those of the sites first that are said to have it.
    fn ask_around(&mut self, manifest: Digest, but: Option<NodeId>, hops: u8, out: &mut Vec<Output>) {
        let mut peers: Vec<NodeId> = self.membership.sessions().filter(|peer| Some(*peer) != but).collect();
        self.rng.shuffle(&mut peers);
        let sites = self.sites_with(&manifest);
        peers.sort_by_key(|peer| !self.catalog.site_of(peer).is_some_and(|site| sites.contains(site)));
        for to in peers.into_iter().take(ASKED_AT_ONCE) {
            out.push(Output::Send { to, message: Message::WhoHas { manifest, hops } });
        }
    }

    /// Sites of which some node tells to have an artifact.
    pub(super) fn sites_with(&self, manifest: &Digest) -> BTreeSet<&str> {
        self.told_by(manifest).filter_map(|node| self.catalog.site_of(&node)).collect()
    }

    /// Whether a holder is known that can be asked, or at least was not dialled in vain.
    pub(super) fn has_hope(&self, now: Time, manifest: &Digest) -> bool {
        let me = self.me();
        let whole = self.catalog.holders(manifest).filter(|(_, state)| *state == HoldingState::Complete);
        whole.map(|(node, _)| node).filter(|node| *node != me).any(|node| {
            let untried = !self.membership.is_up(&node) && self.membership.failures(&node) == 0;
            untried || self.membership.is_live(now, &node)
        })
    }

    fn told_by(&self, manifest: &Digest) -> impl Iterator<Item = NodeId> {
        let whole = self.catalog.summaries(manifest).filter(|(_, state, _)| *state == HoldingState::Complete);
        whole.map(|(node, ..)| node)
    }

    /// What a node says: where it is, and under this key.
    fn said(&self, node: &NodeId, key: Key) -> impl Iterator<Item = Shared> {
        [Key::node(node), key].into_iter().filter_map(|key| self.catalog.get(&key).cloned())
    }
}

/// How far a question goes: to members of members.
const HOPS: u8 = 2;
/// Members that are asked for one artifact.
const ASKED_AT_ONCE: usize = 4;
/// Holders that are told of.
const HOLDERS_TOLD: usize = 4;
/// How long an answer is waited for, and the same not asked again.
const OPEN: Span = Span::secs(10);
const OPEN_MAX: usize = 256;
/// Artifacts that are asked for at a time where nobody waits, and how often: a far link is paid by the byte.
const ASKED_IDLY: usize = 3;
const IDLY: Span = Span::secs(60);
const ASKERS_MAX: usize = 16;
/// Of one member; more are not answered.
const QUESTIONS_A_SECOND: usize = 32;
