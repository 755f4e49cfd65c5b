//! What this node has come to think of holders: how fast they send, and which are left alone for a while
//! because they failed or lied. Only its own experience counts, and it fades.

use super::sharing::DISTRUST;
use crate::{
    id::NodeId,
    row::Row,
    time::{Span, Time},
};

/// What is thought of each holder that was asked.
#[derive(Debug, Default)]
pub(super) struct Esteem {
    holders: Row<Opinion>,
}

#[derive(Debug, Default)]
struct Opinion {
    /// Bytes a millisecond of one transfer, of late.
    rate: Option<u64>,
    /// When bytes last came from it.
    moved: Time,
    /// Not asked before then.
    until: Time,
    /// How often in a row it failed.
    failures: u32,
    /// It sent wrong bytes: coming back does not make up for that.
    lied: bool,
    /// When it was last found to say for long to bring what it did not.
    broke_word: Option<Time>,
    /// When it last said to be getting something.
    at_work: Option<Time>,
}

impl Esteem {
    /// It sent what it was asked for.
    pub(super) fn sent(&mut self, now: Time, node: NodeId, bytes: u64, took: Span) {
        self.took(node, bytes, took);
        let opinion = self.of(node);
        opinion.moved = now;
        // One good piece does not make up for a wrong one.
        if !opinion.lied {
            opinion.failures = 0;
            opinion.until = Time::default();
        }
    }

    /// So many bytes took it so long, or would have taken longer.
    pub(super) fn took(&mut self, node: NodeId, bytes: u64, took: Span) {
        let opinion = self.of(node);
        let rate = (bytes / took.0.max(1)).max(1);
        opinion.rate = Some(opinion.rate.map_or(rate, |before| (before * 3 + rate) / 4));
    }

    /// It is sending.
    pub(super) fn moved(&mut self, now: Time, node: NodeId) {
        self.of(node).moved = now;
    }

    /// It says to be getting something.
    pub(super) fn is_at_work(&mut self, now: Time, node: NodeId) {
        self.of(node).at_work = Some(now);
    }

    /// It said for long to be bringing something into this site, and got nothing.
    pub(super) fn broke_its_word(&mut self, now: Time, node: NodeId) {
        self.of(node).broke_word = Some(now);
    }

    /// It gets what it said.
    pub(super) fn kept_its_word(&mut self, node: &NodeId) {
        if let Some(opinion) = self.holders.get_mut(node) {
            opinion.broke_word = None;
        }
    }

    /// How long it is believed that it brings something, while others get more and it does not.
    pub(super) fn patience(&self, now: Time, node: &NodeId) -> Span {
        let broke = self.holders.get(node).and_then(|opinion| opinion.broke_word);
        if broke.is_some_and(|at| now.since(at) < WORD_REMEMBERED) { Span::default() } else { DISTRUST }
    }

    /// Whether it has just said to be getting something: whatever makes this node get something may be its reason too.
    pub(super) fn was_at_work(&self, now: Time, node: &NodeId) -> bool {
        let at_work = self.holders.get(node).and_then(|opinion| opinion.at_work);
        at_work.is_some_and(|at| now.since(at) < JUST)
    }

    /// Whether it sends, as far as a transfer that was started then can tell: a holder serves so many requests
    /// at a time, so one that waits for its turn is alive while others are served.
    pub(super) fn is_sending(&self, now: Time, node: &NodeId, started: Time) -> bool {
        now < self.silent_from(node, started)
    }

    /// When it counts as silent, or did, for a transfer that was started then.
    fn silent_from(&self, node: &NodeId, started: Time) -> Time {
        let moved = self.holders.get(node).map_or(started, |opinion| opinion.moved.max(started));
        moved + DEAD
    }

    /// It did not send, or is gone.
    pub(super) fn failed(&mut self, now: Time, node: NodeId, last: Span) {
        self.avoid(now, node, RETRY_FIRST, last);
    }

    /// It sent wrong bytes.
    pub(super) fn lied(&mut self, now: Time, node: NodeId) {
        self.avoid(now, node, RETRY_AFTER_LIE, RETRY_LAST);
        self.of(node).lied = true;
    }

    /// It is back: that it could not be reached before does not count against it.
    pub(super) fn is_back(&mut self, node: &NodeId) {
        if let Some(opinion) = self.holders.get_mut(node).filter(|opinion| !opinion.lied) {
            opinion.until = Time::default();
            opinion.failures = 0;
        }
    }

    /// How fast one transfer from it was of late, in bytes a millisecond, if it may be asked now.
    pub(super) fn asked(&self, now: Time, node: &NodeId) -> Option<Option<u64>> {
        match self.holders.get(node) {
            Some(opinion) => (opinion.until <= now).then_some(opinion.rate),
            None => Some(None),
        }
    }

    /// Whether it is left alone for something worse than one failure.
    pub(super) fn is_given_up(&self, now: Time, node: &NodeId) -> bool {
        self.holders
            .get(node)
            .is_some_and(|opinion| opinion.until > now && (opinion.lied || opinion.failures >= GIVE_UP_AFTER))
    }

    /// Whether it is left alone because it lied.
    pub(super) fn is_liar(&self, now: Time, node: &NodeId) -> bool {
        self.holders.get(node).is_some_and(|opinion| opinion.until > now && opinion.lied)
    }

    /// Who is not asked for how much longer.
    pub(super) fn avoided(&self, now: Time) -> impl Iterator<Item = (NodeId, Span)> + '_ {
        let avoided = self.holders.iter().filter(move |(_, opinion)| opinion.until > now);
        avoided.map(move |(node, opinion)| (*node, opinion.until.since(now)))
    }

    /// How fast one transfer from it was of late, in bytes a millisecond.
    pub(super) fn rate(&self, node: &NodeId) -> Option<u64> {
        self.holders.get(node).and_then(|opinion| opinion.rate)
    }

    fn avoid(&mut self, now: Time, node: NodeId, first: Span, last: Span) {
        let opinion = self.of(node);
        // A lie that has been paid for by waiting counts less than it did.
        if opinion.until <= now && opinion.lied {
            opinion.lied = false;
        }
        let span = (first.0 << opinion.failures.min(6)).min(last.0);
        opinion.until = opinion.until.max(now + Span(span));
        opinion.failures = opinion.failures.saturating_add(1);
    }

    fn of(&mut self, node: NodeId) -> &mut Opinion {
        if self.holders.len() >= HOLDERS_MAX && !self.holders.contains(&node) {
            self.holders.remove_first();
        }
        self.holders.get_or_insert_with(node, Opinion::default)
    }
}

/// Holders that are remembered.
const HOLDERS_MAX: usize = 4096;
const RETRY_FIRST: Span = Span::millis(500);
/// A holder that has sent nothing for this long is as good as dead.
const DEAD: Span = Span::secs(2);
/// What was said so long ago was said just now.
const JUST: Span = Span::secs(1);
const RETRY_AFTER_LIE: Span = Span::secs(60);
/// How long a node that broke its word is not believed, unless it is seen to get something.
const WORD_REMEMBERED: Span = Span::secs(600);
/// Longest time that a holder is left alone while nobody waits.
pub(super) const RETRY_LAST: Span = Span::secs(60);
/// And while a client waits: the link may be back any moment.
pub(super) const RETRY_LAST_WAITED: Span = Span::secs(1);
/// After this many failures in a row a holder does not count while it is avoided.
const GIVE_UP_AFTER: u32 = 2;
