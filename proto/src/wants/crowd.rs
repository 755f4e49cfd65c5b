//! Who brings what into a site that is so large that its nodes hear of some of the others only: a few dozen of its
//! nodes, by a rank that each works out from the names of all. How many of them take part at all is guessed from the
//! neighbours. Who shares a small site's work is `sharing`'s.

use alloc::vec::Vec;

use super::sharing::{STRIPE, Shares, mix};
use crate::{
    cells::Cells,
    time::{Span, Time},
};

/// Those of a large site that bring a blob in, as far as this node can tell.
#[derive(Debug)]
pub(super) struct Crowd {
    blob: u64,
    me: u64,
    /// The site's nodes, those first that come first for this blob.
    ranked: Vec<u64>,
    /// How often this node has run out of parts to bring in, and then been called for twice as many,
    rounds: u32,
    /// and since when it has been out of them again, with no news.
    unoccupied: Option<Time>,
    /// How many parts were known to be in the site or on their way.
    known: usize,
    /// When that was last looked at.
    looked: Time,
    /// How many of so many bringers come before this node for each stripe.
    before: Vec<u32>,
    among: usize,
}

/// How many neighbours were asked, and how many of them take part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turnout {
    pub(super) asked: usize,
    pub(super) taking: usize,
}

impl Crowd {
    /// Of a site of these `nodes`, this one among them.
    pub(super) fn of((blob, me): (u64, u64), nodes: impl Iterator<Item = u64>) -> Self {
        let mut ranked: Vec<(u64, u64)> = nodes.map(|node| (mix(blob ^ mix(node)), node)).collect();
        ranked.sort_unstable();
        // There may be thousands of nodes, and of wanted blobs.
        ranked.truncate(RANKED_MAX);
        let ranked = ranked.into_iter().map(|(_, node)| node).collect();
        Crowd {
            blob,
            me,
            ranked,
            rounds: 0,
            unoccupied: None,
            known: 0,
            looked: Time::default(),
            before: Vec::new(),
            among: 0,
        }
    }

    /// Finds out who comes before this node for each of so many cells, where so many take part.
    pub(super) fn rank(&mut self, turnout: Turnout, cells: usize) {
        let among = self.bringers(turnout).len();
        let stripes = cells.div_ceil(STRIPE);
        if (self.among, self.before.len()) == (among, stripes) {
            return;
        }
        self.among = among;
        self.before = (0..stripes).map(|stripe| self.before_me(&self.ranked[..among], stripe)).collect();
    }

    /// Those of these cells that this node is called to bring in: those for which it comes first among the bringers, and
    /// so on.
    pub(super) fn mine(&self, turnout: Turnout, of: &Cells, shares: &Shares) -> Cells {
        let bringers = self.bringers(turnout);
        // Where nobody else was found there may still be somebody, but nobody waits for that.
        let first = match turnout.taking {
            0 => usize::MAX,
            // Each begins with that for which it comes first, so what nobody does is soon another's.
            few if few * 4 < turnout.asked * 3 => turnout.to_have(3),
            _ => turnout.to_have(1),
        };
        let called = first.saturating_mul(1_usize.checked_shl(self.rounds).unwrap_or(usize::MAX));
        if first >= bringers.len() {
            return shares.mine(of);
        }
        if !bringers.contains(&self.me) {
            return Cells::none(of.count());
        }
        Shares::those(of, |cell| self.before(cell) < called)
    }

    /// How many come before this node for a cell: what it begins with is what others hardly do.
    pub(super) fn before(&self, cell: usize) -> usize {
        self.before.get(cell / STRIPE).map_or(0, |before| *before as usize)
    }

    fn bringers(&self, turnout: Turnout) -> &[u64] {
        &self.ranked[..turnout.to_have(BRINGERS).min(self.ranked.len())]
    }

    fn before_me(&self, bringers: &[u64], stripe: usize) -> u32 {
        let rank = |node: u64| mix(self.blob ^ mix(node ^ stripe as u64));
        let mine = rank(self.me);
        bringers.iter().map(|node| u32::from(rank(*node) > mine)).sum()
    }

    /// Whether this node has looked for parts to bring in just now, and there were none.
    pub(super) fn has_just_looked(&self, now: Time) -> bool {
        self.unoccupied.is_some() && now.since(self.looked) < CROWD_AGAIN
    }

    /// This node has parts to bring in, or none of those that nobody is known to have begun with; and so many are known
    /// to be in the site or on their way. Once that grows no more somebody may not be there: it is called for more.
    pub(super) fn note(&mut self, now: Time, occupied: bool, known: usize) {
        self.looked = now;
        let is_news = core::mem::replace(&mut self.known, known) != known;
        match self.unoccupied {
            _ if occupied => self.unoccupied = None,
            Some(since) if !is_news && now.since(since) >= PATIENCE => {
                self.rounds = self.rounds.saturating_add(1);
                self.unoccupied = Some(now);
            }
            Some(_) if !is_news => {}
            _ => self.unoccupied = Some(now),
        }
    }
}

impl Turnout {
    /// Of how many nodes about so many take part.
    fn to_have(self, wanted: usize) -> usize {
        (wanted * (self.asked + 1)).div_ceil(self.taking + 1)
    }
}

/// Nodes of a site that bring a blob in at a time: enough for any link, few enough that parts are complete soon.
const BRINGERS: usize = 32;
/// Nodes that are remembered for a blob: where one in thirty takes part there are enough among them.
const RANKED_MAX: usize = 1_024;
/// News take up to 50 ms from one node to the next, and three such steps reach thousands.
const PATIENCE: Span = Span::millis(250);
/// A node with nothing to bring in looks for something again after this.
const CROWD_AGAIN: Span = Span::millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: u64 = 500;

    /// How many of those that take part bring each cell, after so many rounds in which they had nothing to do.
    fn copies(takes: impl Fn(u64) -> bool, taking: usize, rounds: u64) -> Vec<usize> {
        let mut all = Cells::none(256);
        all.insert_all(0..256);
        let mut copies = alloc::vec![0; 256];
        for me in (1..=NODES).filter(|node| takes(*node)) {
            let mut crowd = Crowd::of((7, me), 1..=NODES);
            (0..=rounds).for_each(|round| crowd.note(Time(round * 250), false, 0));
            let turnout = Turnout { asked: 16, taking };
            crowd.rank(turnout, all.count());
            crowd.mine(turnout, &all, &Shares::of_one(7, me)).iter().for_each(|cell| copies[cell] += 1);
        }
        copies
    }

    #[test]
    fn where_all_take_part_each_part_is_one_nodes() {
        assert!(copies(|_| true, 16, 0).iter().all(|copies| *copies == 1));
    }

    #[test]
    fn where_few_do_few_feel_called() {
        let copies = copies(|node| node % 8 == 0, 1, 0);
        let (none, sum) = (copies.iter().filter(|n| **n == 0).count(), copies.iter().sum::<usize>());
        assert!(none < 32 && (256..1_024).contains(&sum), "{none} of nobody, {sum} in all");
    }

    #[test]
    fn those_that_are_there_do_the_work_of_those_that_are_not() {
        let ranked = Crowd::of((7, 1), 1..=NODES).ranked;
        let there = &ranked[3..5];
        assert!(copies(|node| there.contains(&node), 16, 0).contains(&0));
        assert!(copies(|node| there.contains(&node), 16, 5).iter().all(|copies| *copies == 2));
    }

    #[test]
    fn one_alone_waits_for_nobody() {
        assert!(copies(|node| node == 9, 0, 0).iter().all(|copies| *copies == 1));
    }
}
