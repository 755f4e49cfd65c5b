//! When this node's catalog is compared with which member's: seldom when nothing happens, soon after news,
//! and ever more seldom where it does not help. How catalogs are compared is [`crate::reconcile`]'s business.

use alloc::{collections::BTreeSet, vec::Vec};
use core::ops::RangeInclusive;

use crate::{
    alarm::sooner,
    config::ReplicaConfig,
    id::NodeId,
    record::RecordId,
    row::Row,
    time::{Span, Time},
};

/// When the next round with each member is due.
#[derive(Debug, Default)]
pub struct Rounds {
    of: Row<Round>,
    /// Nothing is due before.
    soonest: Option<Time>,
}

#[derive(Debug)]
struct Round {
    at: Time,
    /// The first record of each of the last differences that were found.
    found: BTreeSet<RecordId>,
    /// How often in a row a difference was found that had been found before: one side does not take what
    /// the other has, because it has no room for it or refuses it.
    fruitless: u32,
    /// When such a difference was last made good, or tried to be.
    supplied: Time,
}

/// How often the replica looks which rounds are due, at most.
pub const ROUNDS_TICK: Span = Span::secs(1);

impl Rounds {
    /// A session is new.
    pub fn start(&mut self, now: Time, peer: NodeId, rng: &mut fastrand::Rng) {
        let at = now + Span(rng.u64(AFTER_NEWS_MS));
        self.of.insert(peer, Round { at, found: BTreeSet::new(), fruitless: 0, supplied: Time(0) });
        sooner(&mut self.soonest, at);
    }

    /// A time before which no round is due; none where there is nobody to compare with.
    pub fn next(&self) -> Option<Time> {
        self.soonest
    }

    /// A session ended.
    pub fn stop(&mut self, peer: &NodeId) {
        self.of.remove(peer);
    }

    /// This node wrote something. Its announcement may be lost, and certainly is where a session is so new
    /// that gossip does not use it yet. `concerns` says with whom that makes a difference.
    pub fn after_news(&mut self, now: Time, concerns: impl Fn(&NodeId) -> bool, rng: &mut fastrand::Rng) {
        let concerned =
            self.of.iter_mut().filter(|(peer, round)| round.fruitless <= FORGIVEN && concerns(peer));
        for (_, round) in concerned {
            round.at = round.at.min(now + Span(rng.u64(AFTER_NEWS_MS)));
            sooner(&mut self.soonest, round.at);
        }
    }

    /// The catalogs were equal.
    pub fn equal(&mut self, peer: &NodeId) {
        if let Some(round) = self.of.get_mut(peer) {
            round.found.clear();
            round.fruitless = 0;
        }
    }

    /// A difference was found that begins with this record. Whether it should be made good: not where that
    /// was just done and is still on its way over a thin link.
    pub fn differs(&mut self, now: Time, peer: &NodeId, first: RecordId, is_near: bool) -> bool {
        let Some(round) = self.of.get_mut(peer) else { return true };
        if round.found.contains(&first) {
            if !is_near && now.since(round.supplied) < ON_ITS_WAY {
                return false;
            }
            round.fruitless = round.fruitless.saturating_add(1);
        } else {
            round.fruitless = 0;
            if round.found.len() >= FOUND_MAX {
                round.found.pop_first();
            }
            round.found.insert(first);
        }
        round.supplied = now;
        true
    }

    /// Not all that differs fitted into the last round's messages.
    pub fn soon(&mut self, now: Time, peer: &NodeId, is_near: bool) {
        if let Some(round) = self.of.get_mut(peer).filter(|round| round.fruitless == 0) {
            round.at = round.at.min(now + if is_near { ROUNDS_TICK } else { FAR_TRANSFER });
            sooner(&mut self.soonest, round.at);
        }
    }

    /// What a member has more was left to another to send: a little later hardly anything of it should be left.
    pub fn put_off(&mut self, now: Time, peer: &NodeId, rng: &mut fastrand::Rng) {
        if let Some(round) = self.of.get_mut(peer) {
            round.at = round.at.min(now + Span(rng.u64(PUT_OFF_MS)));
            sooner(&mut self.soonest, round.at);
        }
    }

    /// The members whose round is due; sets when their next one is. Both ends of a session compare the same,
    /// so one of them goes first and the other seldom has to.
    pub fn due(
        &mut self,
        now: Time,
        config: &ReplicaConfig,
        me: &NodeId,
        is_near: impl Fn(&NodeId) -> bool,
        rng: &mut fastrand::Rng,
    ) -> Vec<NodeId> {
        let mut due = Vec::new();
        if self.soonest.is_none_or(|at| at > now) {
            return due;
        }
        // In a site of many each pair needs it the more seldom: whoever has missed something hears it of any.
        let near = self.of.keys().filter(|peer| is_near(peer)).count() as u64;
        let near_interval = Span(config.reconcile_interval.0 * near.max(FEW) / FEW);
        for (peer, round) in self.of.iter_mut().filter(|(_, round)| round.at <= now) {
            let interval = if is_near(peer) { near_interval } else { config.far_reconcile_interval };
            let interval = if me < peer { interval } else { Span(interval.0 * 4) };
            let interval = Span(interval.0 << round.fruitless.saturating_sub(FORGIVEN).min(BACKOFF_MAX));
            round.at = now + Span(interval.0 / 2 + rng.u64(0..=interval.0));
            due.push(*peer);
        }
        self.soonest = self.of.values().map(|round| round.at).min();
        due
    }
}

/// Several changes in a row share one comparison.
const AFTER_NEWS_MS: RangeInclusive<u64> = 1_000..=3_000;

/// As long as another has to send something new, see [`crate::suppliers`].
const PUT_OFF_MS: RangeInclusive<u64> = 2_000..=4_000;
/// A member of a site compares its catalog with so many others, as often as with one.
const FEW: u64 = 3;
/// Differences that are remembered: one round finds a few.
const FOUND_MAX: usize = 16;
/// Repeated differences that are put down to lost messages.
const FORGIVEN: u32 = 2;
/// At most this many times is the interval doubled: to half an hour within a site.
const BACKOFF_MAX: u32 = 6;
/// What one round may bring takes a link of 1 Mbit/s this long.
const FAR_TRANSFER: Span = Span::secs(8);
/// And a link of 256 kbit/s this long.
const ON_ITS_WAY: Span = Span::secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_soon_after_news_and_seldom_otherwise() {
        let (config, mut rng) = (ReplicaConfig::default(), fastrand::Rng::with_seed(1));
        let (near, far) = (NodeId([1; 32]), NodeId([2; 32]));
        let mut rounds = Rounds::default();
        rounds.start(Time(0), near, &mut rng);
        rounds.start(Time(0), far, &mut rng);
        let due = |rounds: &mut Rounds, now: u64| {
            let mut rng = fastrand::Rng::with_seed(2);
            rounds.due(Time(now), &config, &NodeId([0; 32]), |peer| *peer == near, &mut rng)
        };
        assert_eq!(due(&mut rounds, 999), []);
        assert_eq!(due(&mut rounds, 3_000), [near, far]);
        assert_eq!(due(&mut rounds, 3_000 + 45_000), [near], "another site is asked less often");
        rounds.after_news(Time(60_000), |_| true, &mut rng);
        assert_eq!(due(&mut rounds, 63_000), [near, far]);
        rounds.stop(&far);
        assert_eq!(due(&mut rounds, 10_000_000), [near]);
    }

    #[test]
    fn a_node_of_a_large_site_compares_no_oftener_than_one_of_a_small_site() {
        let config = ReplicaConfig::default();
        let in_an_hour = |neighbours: u8| {
            let (mut rounds, mut rng) = (Rounds::default(), fastrand::Rng::with_seed(1));
            (1..=neighbours).for_each(|peer| rounds.start(Time(0), NodeId([peer; 32]), &mut rng));
            let due = |now| rounds.due(Time(now), &config, &NodeId([0; 32]), |_| true, &mut rng).len();
            (0..3_600_000).step_by(1_000).map(due).sum::<usize>()
        };
        let (one, few, many) = (in_an_hour(1), in_an_hour(3), in_an_hour(24));
        assert!((100..150).contains(&one), "{one}");
        assert!((few * 9 / 10..few * 12 / 10).contains(&many), "{many} and {few}");
    }

    #[test]
    fn what_is_never_taken_is_offered_ever_more_seldom() {
        let (config, mut rng) = (ReplicaConfig::default(), fastrand::Rng::with_seed(1));
        let (peer, mut rounds) = (NodeId([1; 32]), Rounds::default());
        rounds.start(Time(0), peer, &mut rng);
        let mut offered = |rounds: &mut Rounds, hours: RangeInclusive<u64>| {
            let mut count = 0;
            for now in (hours.start() * 3_600_000..hours.end() * 3_600_000).step_by(1_000) {
                rounds.after_news(Time(now), |_| true, &mut rng);
                for peer in rounds.due(Time(now), &config, &NodeId([0; 32]), |_| true, &mut rng) {
                    count += 1;
                    // Two parts of the catalog differ, always the same, and more than one message's worth.
                    for first in [7, 8] {
                        rounds.differs(Time(now), &peer, RecordId([first; 32]), true);
                        rounds.soon(Time(now), &peer, true);
                    }
                }
            }
            count
        };
        let first_day = offered(&mut rounds, 0..=24);
        assert!(first_day < 100, "{first_day}");
        rounds.equal(&peer);
        rounds.differs(Time(0), &peer, RecordId([9; 32]), true);
        assert!(offered(&mut rounds, 24..=25) > 3, "forgiven once something was taken");
    }

    #[test]
    fn what_is_on_its_way_over_a_thin_link_is_not_sent_again() {
        let (mut rng, peer) = (fastrand::Rng::with_seed(1), NodeId([1; 32]));
        let mut rounds = Rounds::default();
        rounds.start(Time(0), peer, &mut rng);
        let first = RecordId([7; 32]);
        assert!(rounds.differs(Time(0), &peer, first, false));
        assert!(!rounds.differs(Time(3_000), &peer, first, false));
        assert!(rounds.differs(Time(3_000), &peer, RecordId([8; 32]), false));
        assert!(rounds.differs(Time(60_000), &peer, first, false));
    }
}
