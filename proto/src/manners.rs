//! Members that send records which no honest member sends: they are hung up on and kept away from for a
//! while, so that checking signatures cannot be made this node's only work. Owns who that is, and for how
//! long.

use alloc::collections::BTreeMap;

use crate::{
    id::NodeId,
    time::{Span, Time},
};

/// Who sent how much that is wrong, and who is kept away from.
#[derive(Debug, Default)]
pub struct Manners {
    /// Records that were wrong in the current minute.
    wrong: BTreeMap<NodeId, (Time, usize)>,
    shunned: BTreeMap<NodeId, Time>,
}

impl Manners {
    /// A member sent records that no honest member sends. True where that was too much: it is to be hung up on.
    pub fn wrong(&mut self, now: Time, peer: NodeId, records: usize) -> bool {
        let (since, count) = self.wrong.entry(peer).or_insert((now, 0));
        if now.since(*since) >= MINUTE {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(records);
        if *count <= WRONG_MAX {
            return false;
        }
        self.wrong.remove(&peer);
        self.shunned.retain(|_, until| *until > now);
        if self.shunned.len() >= SHUNNED_MAX {
            self.shunned.pop_first();
        }
        self.shunned.insert(peer, now + SHUNNED);
        true
    }

    /// A session ended: what is counted of it is not remembered.
    pub fn forget(&mut self, peer: &NodeId) {
        self.wrong.remove(peer);
    }

    /// Whether a member is kept away from now.
    pub fn is_shunned(&self, now: Time, peer: &NodeId) -> bool {
        self.shunned.get(peer).is_some_and(|until| *until > now)
    }
}

/// Wrong records in a minute that are put up with: to find out costs about 13 ms.
const WRONG_MAX: usize = 256;
const MINUTE: Span = Span::secs(60);
/// How long a member is kept away from: long enough to make it cheap, short enough for one that was mended.
const SHUNNED: Span = Span::secs(600);
/// Members that are kept away from at a time.
const SHUNNED_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_wrong_records_are_put_up_with_and_many_are_not() {
        let (peer, mut manners) = (NodeId([1; 32]), Manners::default());
        for minute in 0..100 {
            assert!(!manners.wrong(Time(minute * 60_000), peer, WRONG_MAX));
        }
        let now = Time(6_000_000);
        assert!(!manners.wrong(now, peer, WRONG_MAX) && !manners.is_shunned(now, &peer));
        assert!(manners.wrong(now, peer, 1) && manners.is_shunned(now, &peer));
        assert!(!manners.is_shunned(now, &NodeId([2; 32])));
        assert!(!manners.is_shunned(now + SHUNNED, &peer));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut manners = Manners::default();
        for n in 0..5_000_u16 {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&n.to_be_bytes());
            assert!(manners.wrong(Time(1), NodeId(id), WRONG_MAX + 1));
        }
        assert_eq!((manners.shunned.len(), manners.wrong.len()), (SHUNNED_MAX, 0));
    }
}
