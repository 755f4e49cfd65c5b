//! When this node's catalog is compared with which member's: seldom when nothing happens, soon after news.
//! How catalogs are compared is [`crate::reconcile`]'s business.

use alloc::{collections::BTreeMap, vec::Vec};
use core::ops::RangeInclusive;

use crate::{
    config::ReplicaConfig,
    id::NodeId,
    time::{Span, Time},
};

/// When the next round with each member is due.
#[derive(Debug, Default)]
pub struct Rounds(BTreeMap<NodeId, Time>);

/// How often the replica looks which rounds are due.
pub const ROUNDS_TICK: Span = Span::secs(1);

impl Rounds {
    /// A session is new.
    pub fn start(&mut self, now: Time, peer: NodeId, rng: &mut fastrand::Rng) {
        self.0.insert(peer, now + Span(rng.u64(AFTER_NEWS_MS)));
    }

    /// A session ended.
    pub fn stop(&mut self, peer: &NodeId) {
        self.0.remove(peer);
    }

    /// This node wrote something. Its announcement may be lost, and certainly is where a session is so new
    /// that gossip does not use it yet.
    pub fn after_news(&mut self, now: Time, rng: &mut fastrand::Rng) {
        for at in self.0.values_mut() {
            *at = (*at).min(now + Span(rng.u64(AFTER_NEWS_MS)));
        }
    }

    /// The last round with a member did not fit into its messages.
    pub fn soon(&mut self, now: Time, peer: &NodeId) {
        if let Some(at) = self.0.get_mut(peer) {
            *at = (*at).min(now + ROUNDS_TICK);
        }
    }

    /// The members whose round is due; sets when their next one is.
    pub fn due(
        &mut self,
        now: Time,
        config: &ReplicaConfig,
        is_near: impl Fn(&NodeId) -> bool,
        rng: &mut fastrand::Rng,
    ) -> Vec<NodeId> {
        let mut due = Vec::new();
        for (peer, at) in self.0.iter_mut().filter(|(_, at)| **at <= now) {
            let interval =
                if is_near(peer) { config.reconcile_interval } else { config.far_reconcile_interval };
            *at = now + Span(interval.0 / 2 + rng.u64(0..=interval.0));
            due.push(*peer);
        }
        due
    }
}

/// Several changes in a row share one comparison.
const AFTER_NEWS_MS: RangeInclusive<u64> = 1_000..=3_000;

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
            rounds.due(Time(now), &config, |peer| *peer == near, &mut fastrand::Rng::with_seed(2))
        };
        assert_eq!(due(&mut rounds, 999), []);
        assert_eq!(due(&mut rounds, 3_000), [near, far]);
        assert_eq!(due(&mut rounds, 3_000 + 45_000), [near], "another site is asked less often");
        rounds.after_news(Time(60_000), &mut rng);
        assert_eq!(due(&mut rounds, 63_000), [near, far]);
        rounds.stop(&far);
        assert_eq!(due(&mut rounds, 10_000_000), [near]);
    }
}
