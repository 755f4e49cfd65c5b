//! How many sessions a node keeps, and which it offers to end. Sessions cost traffic also when nothing
//! happens, and over a thin link that is paid by the site: so of the nodes of a site two keep sessions with
//! other sites, the others have them only while they use them. A session ends when one end offers to and the
//! other can do without it ([`crate::wire::Message::LetGo`]): nobody is left with fewer than it needs. Whom to
//! dial is [`crate::membership`]'s.

use alloc::{collections::BTreeMap, vec::Vec};

use crate::{
    config::ReplicaConfig,
    id::NodeId,
    time::{Span, Time},
};

/// How many sessions a node keeps with one sort of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// With fewer it dials.
    pub low: usize,
    /// With more it offers to end some.
    pub high: usize,
}

impl Share {
    /// With nodes of its own site, where so many others are known to be of it: all of them where they are few.
    pub fn near(config: &ReplicaConfig, others: usize) -> Share {
        match others <= config.site_whole {
            true => Share { low: config.site_whole, high: config.site_whole },
            false => Share { low: config.site_sessions.div_ceil(4) * 3, high: config.site_sessions },
        }
    }

    /// With nodes of other sites. `mine` is this node's [`weight`]; `others` are those of the nodes of this site
    /// with a session, and how many sessions with other sites each has said to have.
    pub fn far(
        config: &ReplicaConfig,
        mine: [u8; 8],
        others: impl Iterator<Item = ([u8; 8], Option<u16>)>,
    ) -> Share {
        let (mut better, mut alone) = (0, true);
        for (weight, outside) in others {
            alone = false;
            // One that has no way out is no gateway, whatever its name.
            better += usize::from(outside.is_some_and(|n| n > 0) && weight < mine);
        }
        let high = match (better >= GATEWAYS, alone) {
            (true, _) => 0,
            (false, true) => config.far_sessions,
            (false, false) => config.far_sessions.div_ceil(GATEWAYS),
        };
        Share::up_to(high)
    }

    /// What is known of it, or all that a site may have.
    pub fn far_of(config: &ReplicaConfig, known: Option<Share>) -> Share {
        known.unwrap_or(Share::up_to(config.far_sessions))
    }

    fn up_to(high: usize) -> Share {
        // News takes fewer steps the more there are.
        Share { low: (high * 3).div_ceil(4), high }
    }
}

/// Whom this node has parted with, and when it last looked.
#[derive(Debug, Default)]
pub struct Surplus {
    apart: BTreeMap<NodeId, Time>,
    looked: Time,
}

/// A session that might end.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    /// With whom.
    pub peer: NodeId,
    /// Since when nothing was done over it but comparing catalogs.
    pub idle_since: Time,
}

impl Surplus {
    /// Whether it is time to look for sessions too many.
    pub fn is_due(&mut self, now: Time) -> bool {
        let due = now.since(self.looked) >= LOOK_EVERY;
        if due {
            self.looked = now;
        }
        due
    }

    /// When it is time next.
    pub fn next(&self) -> Time {
        self.looked + LOOK_EVERY
    }

    /// The sessions to offer to end: a few of the idle ones, those first that both ends rank lowest.
    pub fn offers(&mut self, now: Time, me: &NodeId, share: Share, sessions: &[Session]) -> Vec<NodeId> {
        let surplus = sessions.len().saturating_sub(share.high).min(OFFERS_AT_ONCE);
        if surplus == 0 {
            return Vec::new();
        }
        let idle = sessions.iter().filter(|session| now.since(session.idle_since) >= IDLE);
        let mut idle: Vec<NodeId> =
            idle.map(|session| session.peer).filter(|peer| !self.is_apart(now, peer)).collect();
        idle.sort_by_cached_key(|peer| pair(me, peer));
        idle.truncate(surplus);
        idle.iter().for_each(|peer| self.part(now, *peer));
        idle
    }

    /// Whether this node can do without a session that the other end offers to end.
    pub fn can_spare(now: Time, share: Share, count: usize, session: Session) -> bool {
        count > share.low && now.since(session.idle_since) >= IDLE
    }

    /// A session was offered to end, or ends: it is not opened again soon for its own sake.
    pub fn part(&mut self, now: Time, peer: NodeId) {
        if self.apart.len() >= APART_MAX {
            self.apart.retain(|_, since| now.since(*since) < APART);
        }
        if self.apart.len() < APART_MAX {
            self.apart.insert(peer, now);
        }
    }

    /// Whether this node has parted with a member not long ago.
    pub fn is_apart(&self, now: Time, peer: &NodeId) -> bool {
        self.apart.get(peer).is_some_and(|since| now.since(*since) < APART)
    }

    /// Sessions are needed again: whoever there was a session with will do.
    pub fn forget(&mut self) {
        self.apart.clear();
    }
}

/// The order in which the nodes of a site keep sessions with others, the same for all who look.
pub fn weight(site: &str, node: &NodeId) -> [u8; 8] {
    first_bytes(
        blake3::Hasher::new_derive_key("waystation gateway v1").update(site.as_bytes()).update(&node.0),
    )
}

/// The order of sessions, the same at both ends.
fn pair(a: &NodeId, b: &NodeId) -> [u8; 8] {
    let (low, high) = (a.min(b), a.max(b));
    first_bytes(blake3::Hasher::new_derive_key("waystation session v1").update(&low.0).update(&high.0))
}

fn first_bytes(hasher: &blake3::Hasher) -> [u8; 8] {
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    first
}

/// Nodes of a site that keep sessions with other sites: one may stop at any time.
pub const GATEWAYS: usize = 2;
/// A session without use for this long is idle. A handshake costs as much as six hours of keeping one.
const IDLE: Span = Span::secs(300);
const LOOK_EVERY: Span = Span::secs(30);
/// Sessions offered to end each time, so that a hub with a thousand of them comes to rest within two hours.
const OFFERS_AT_ONCE: usize = 4;
/// How long those who parted do not dial one another for the session's sake. Once in that time they do: it is
/// what joins two halves of a mesh that have enough sessions each.
const APART: Span = Span::secs(6 * 3600);
/// Members that are remembered so.
const APART_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    #[test]
    fn a_node_of_a_small_site_misses_whomever_it_has_no_session_with() {
        let config = ReplicaConfig::default();
        for others in [1, 19, config.site_whole] {
            assert!(Share::near(&config, others).low >= others, "{others}");
        }
        let large = Share::near(&config, config.site_whole + 1);
        assert_eq!((large.low, large.high), (12, config.site_sessions));
    }

    #[test]
    fn two_nodes_of_a_site_keep_sessions_with_others() {
        let config = ReplicaConfig::default();
        let shares = |outside: fn(u8) -> Option<u16>| -> Vec<usize> {
            let ranked = |n: u8| weight(&config.site, &node(n));
            let others = |me: u8| (0..10).filter(move |n| *n != me).map(move |n| (ranked(n), outside(n)));
            (0..10).map(|me| Share::far(&config, ranked(me), others(me)).high).collect()
        };
        let with_way_out = shares(|_| Some(3));
        assert_eq!(with_way_out.iter().filter(|high| **high > 0).count(), GATEWAYS);
        assert_eq!(with_way_out.iter().sum::<usize>(), config.far_sessions, "bounded by site");
        // Where nobody has said to have a way out, or those have none, everybody tries.
        assert!(shares(|_| None).iter().chain(&shares(|_| Some(0))).all(|high| *high == 4));
        let alone = Share::far(&config, weight(&config.site, &node(1)), core::iter::empty());
        assert_eq!(alone, Share { low: 6, high: 8 });
    }

    #[test]
    fn only_idle_sessions_beyond_the_share_are_offered_and_each_once() {
        let (me, share) = (node(0), Share { low: 2, high: 4 });
        let session = |n: u8, idle_since| Session { peer: node(n), idle_since: Time(idle_since) };
        let mut surplus = Surplus::default();
        let now = Time(0) + IDLE;
        let busy: Vec<Session> = (1..9).map(|n| session(n, 1)).collect();
        assert_eq!(surplus.offers(now, &me, share, &busy), []);
        let idle: Vec<Session> = (1..9).map(|n| session(n, 0)).collect();
        assert_eq!(surplus.offers(now, &me, share, &idle[..4]), []);
        let first = surplus.offers(now, &me, share, &idle);
        assert_eq!(first.len(), 4);
        let second = surplus.offers(now, &me, share, &idle);
        assert!(second.len() == 4 && second.iter().all(|peer| !first.contains(peer)), "not asked again");
        assert!(surplus.offers(now, &me, share, &idle).is_empty());
        assert_eq!(surplus.offers(now + APART, &me, share, &idle), first, "in the same order");
    }

    #[test]
    fn who_needs_a_session_or_uses_it_keeps_it() {
        let share = Share { low: 2, high: 4 };
        let session = Session { peer: node(1), idle_since: Time(0) };
        let now = Time(0) + IDLE;
        assert!(Surplus::can_spare(now, share, 3, session));
        assert!(!Surplus::can_spare(now, share, 2, session));
        assert!(!Surplus::can_spare(Time(now.0 - 1), share, 3, session));
    }
}
