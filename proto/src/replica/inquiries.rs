//! Finding a holder that this node has not heard of: it asks a few members, and those a few others. Owns who
//! was asked when and who waits for an answer. An answer is nothing but the records themselves, so nobody has
//! to be believed.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use super::{Replica, peers::HOLDERS_DIALLED};
use crate::{
    body::HoldingState,
    event::Output,
    id::{Digest, NodeId},
    record::{Key, Kind, holding_name},
    shared::Shared,
    time::{Now, Span, Time},
    wire::Message,
};

/// Questions under way.
#[derive(Debug, Default)]
pub(super) struct Inquiries {
    open: BTreeMap<Digest, Inquiry>,
    /// Questions of each member in the current second.
    asked_by: BTreeMap<NodeId, (Time, usize)>,
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
    /// Asks members for a holder of an artifact, if none is known and that was not just done.
    pub(super) fn inquire(&mut self, now: Now, manifest: Digest, out: &mut Vec<Output>) {
        if !self.holders_known(&manifest).is_empty() || !self.inquiries.open(now.time, manifest, None) {
            return;
        }
        self.ask_around(manifest, None, HOPS, out);
    }

    /// A member asks who has an artifact.
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
        let answer = self.holder_records(&manifest);
        if !answer.is_empty() {
            out.push(Output::Send { to: from, message: Message::Records(answer) });
        } else if hops > 1 && self.inquiries.open(now.time, manifest, Some(from)) {
            self.ask_around(manifest, Some(from), hops.min(HOPS) - 1, out);
        }
    }

    /// Records were taken in: some may be what others wait for, or a client of this node.
    pub(super) fn answer_inquiries(&mut self, now: Now, news: &[Shared], out: &mut Vec<Output>) {
        let holdings = news.iter().filter(|record| record.key.kind == Kind::HOLDING);
        let told: BTreeSet<Digest> = holdings
            .filter_map(|record| holding_name(&record.key.name))
            .map(|(manifest, _)| manifest)
            .collect();
        for manifest in told {
            // Nearly always: nobody has asked for it.
            if !self.inquiries.open.contains_key(&manifest) {
                continue;
            }
            let answer = self.holder_records(&manifest);
            if answer.is_empty() {
                continue;
            }
            let Some(inquiry) = self.inquiries.open.remove(&manifest) else { continue };
            for to in inquiry.askers.into_iter().filter(|to| self.membership.is_up(to)) {
                out.push(Output::Send { to, message: Message::Records(answer.clone()) });
            }
            if self.membership.presence.awaited(now.time).contains(&manifest) {
                self.dial_holders(now, &manifest, true, HOLDERS_DIALLED, out);
            }
        }
    }

    fn ask_around(&mut self, manifest: Digest, but: Option<NodeId>, hops: u8, out: &mut Vec<Output>) {
        let mut peers: Vec<NodeId> = self.membership.sessions().filter(|peer| Some(*peer) != but).collect();
        self.rng.shuffle(&mut peers);
        for to in peers.into_iter().take(ASKED_AT_ONCE) {
            out.push(Output::Send { to, message: Message::WhoHas { manifest, hops } });
        }
    }

    fn holders_known(&self, manifest: &Digest) -> Vec<NodeId> {
        let whole = self.catalog.holders(manifest).filter(|(_, state)| *state == HoldingState::Complete);
        whole.map(|(node, _)| node).take(HOLDERS_TOLD).collect()
    }

    /// What some holders say of themselves: that they hold it, and where they are.
    fn holder_records(&self, manifest: &Digest) -> Vec<Shared> {
        let keys = |node: NodeId| [Key::node(&node), Key::holding(manifest, &node)];
        let keys = self.holders_known(manifest).into_iter().flat_map(keys);
        keys.filter_map(|key| self.catalog.get(&key).cloned()).collect()
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
const ASKERS_MAX: usize = 16;
/// Of one member; more are not answered.
const QUESTIONS_A_SECOND: usize = 32;
