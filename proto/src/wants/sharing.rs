//! Who else is getting a blob, what they have of it, and who fetches which part from outside, so that it enters
//! each site once and leaves the origin about once. There is no leader: everybody ranks the same nodes by the
//! same numbers, and says what is on its way. Where two know different things, a part comes twice, and nothing
//! worse happens. What is fetched from whom is `plan`'s.

use super::{Holder, counts::Counts};
use crate::{
    cells::{Cells, Grid},
    id::{Hash, NodeId},
    row::Row,
    time::{Span, Time},
    wire::Extent,
};

/// The others that are getting one blob, or have said to have it.
#[derive(Debug, Default)]
pub(super) struct Sharers {
    sharers: Row<Sharer>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Sharer {
    pub(super) holder: Holder,
    /// Its site, as a number.
    site: u64,
    /// What it has; all of it where that is nothing.
    have: Option<Cells>,
    /// What it is fetching from another site.
    coming: Cells,
    /// What its own neighbours have or fetch,
    beyond: Cells,
    /// and what theirs do.
    farther: Cells,
    heard: Time,
    /// When it last said to have more.
    changed: Time,
    /// How long others may get more while it gets nothing, before what it brings is not believed.
    patience: Span,
    /// How long it took between such moments, of late.
    gap: Option<Span>,
    /// Has not been told yet what is here.
    pub(super) is_new: bool,
    /// Is heard of through neighbours only.
    pub(super) is_hearsay: bool,
    /// Neighbours have not been told yet what it said last.
    pub(super) is_news: bool,
}

/// Who shares in a blob, as it takes to agree on who fetches what from outside.
#[derive(Default)]
pub(super) struct Shares {
    blob: u64,
    me: u64,
    site: u64,
    /// Nodes of this site, this one among them.
    nodes: alloc::vec::Vec<u64>,
    sites: alloc::vec::Vec<u64>,
}

impl Sharers {
    /// What a member said. False where it makes no sense.
    pub(super) fn told(
        &mut self,
        now: Time,
        (holder, site): (Holder, u64),
        grid: &Grid,
        extent: &Extent,
        patience: Span,
    ) -> bool {
        let none = || Cells::none(grid.count());
        let read = |bytes| Cells::from_bytes(bytes, grid.count());
        let (have, coming, beyond, farther) = match extent {
            Extent::Dropped => {
                self.sharers.remove(&holder.node);
                return true;
            }
            Extent::Whole => (None, none(), none(), none()),
            Extent::Partial { have, coming } => {
                let (Some(have), Some(coming)) = (read(have), read(coming)) else { return false };
                (Some(have), coming, none(), none())
            }
            Extent::InCrowd { have, coming, beyond, farther } => {
                let sets = (read(have), read(coming), read(beyond), read(farther));
                let (Some(have), Some(coming), Some(beyond), Some(farther)) = sets else { return false };
                (Some(have), coming, beyond, farther)
            }
        };
        if self.sharers.get(&holder.node).is_none() && !self.has_room_for(&holder) {
            return true;
        }
        let sharer = self.sharers.get_or_insert_with(holder.node, || Sharer {
            holder,
            site,
            have: Some(none()),
            coming: none(),
            beyond: none(),
            farther: none(),
            heard: now,
            changed: now,
            patience,
            gap: None,
            is_new: true,
            is_hearsay: false,
            is_news: false,
        });
        if sharer.have != have {
            let gap = now.since(sharer.changed);
            sharer.gap = Some(sharer.gap.map_or(gap, |before| Span((before.0 * 3 + gap.0) / 4)));
            sharer.changed = now;
        }
        (sharer.have, sharer.coming, sharer.beyond, sharer.farther) = (have, coming, beyond, farther);
        (sharer.holder, sharer.heard, sharer.patience) = (holder, now, patience);
        (sharer.is_hearsay, sharer.is_news) = (false, true);
        true
    }

    /// However many other sites there are, neighbours are not to be missing.
    fn has_room_for(&self, holder: &Holder) -> bool {
        self.sharers.values().filter(|sharer| sharer.holder.far == holder.far).count() < SHARERS_MAX
    }

    /// What a neighbour says that a member of another site said. False where it makes no sense.
    pub(super) fn told_of(&mut self, now: Time, whom: (Holder, u64), grid: &Grid, extent: &Extent) -> bool {
        let node = whom.0.node;
        // What it says itself is worth more.
        if self.sharers.get(&node).is_some_and(|sharer| !sharer.is_hearsay) {
            return true;
        }
        let makes_sense = self.told(now, whom, grid, extent, DISTRUST);
        if let Some(sharer) = self.sharers.get_mut(&node) {
            (sharer.is_hearsay, sharer.is_news, sharer.is_new) = (true, false, false);
        }
        makes_sense
    }

    /// What members of other sites said themselves and neighbours do not know yet, or all of it.
    pub(super) fn news(&self, all: bool) -> alloc::vec::Vec<(NodeId, Extent)> {
        let said = self.sharers.iter().filter(|(_, sharer)| sharer.holder.far && !sharer.is_hearsay);
        let news = said.filter(|(_, sharer)| all || sharer.is_news);
        news.take(PASSED_ON_MAX).map(|(node, sharer)| (*node, sharer.extent())).collect()
    }

    /// Neighbours were told.
    pub(super) fn passed_on(&mut self) {
        self.sharers.values_mut().for_each(|sharer| sharer.is_news = false);
    }

    /// How many they are.
    pub(super) fn len(&self) -> usize {
        self.sharers.len()
    }

    /// A member's last session ended.
    pub(super) fn forget(&mut self, node: &NodeId) -> bool {
        self.sharers.remove(node).is_some()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&NodeId, &Sharer)> {
        self.sharers.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&NodeId, &mut Sharer)> {
        self.sharers.iter_mut()
    }

    /// Whether any of them is still getting it.
    pub(super) fn are_getting(&self) -> bool {
        self.sharers.values().any(|sharer| sharer.have.is_some())
    }

    /// What nodes of this site are bringing in, and what their neighbours and those of these have or bring.
    pub(super) fn coming(&self, now: Time, grid: &Grid, mine: Time) -> Cells {
        let mut coming = Cells::none(grid.count());
        let latest = self.latest(mine);
        for sharer in self.near(now).filter(|sharer| sharer.is_believed(latest)) {
            coming.join(&sharer.coming);
            coming.join(&sharer.beyond);
            coming.join(&sharer.farther);
        }
        coming
    }

    /// What neighbours that are getting it have or bring in themselves.
    pub(super) fn around(&self, now: Time, grid: &Grid, mine: Time) -> Cells {
        let mut around = Cells::none(grid.count());
        let latest = self.latest(mine);
        for sharer in self.near(now).filter(|sharer| sharer.is_getting() && sharer.is_believed(latest)) {
            around.join(&sharer.coming);
            sharer.have.iter().for_each(|have| around.join(have));
        }
        around
    }

    /// What the neighbours of those have or bring in.
    pub(super) fn beyond(&self, now: Time, grid: &Grid, mine: Time) -> Cells {
        let mut beyond = Cells::none(grid.count());
        let latest = self.latest(mine);
        let near = self.near(now).filter(|sharer| sharer.is_getting() && sharer.is_believed(latest));
        near.for_each(|sharer| beyond.join(&sharer.beyond));
        beyond
    }

    /// Whether what a node says to be on its way is believed, where this one last got more at `mine`.
    pub(super) fn believes(&self, node: &NodeId, mine: Time) -> bool {
        let latest = self.latest(mine);
        self.sharers.get(node).is_some_and(|sharer| sharer.is_believed(latest))
    }

    /// Whether a node says to be bringing something and is not believed.
    pub(super) fn breaks_its_word(&self, node: &NodeId, mine: Time) -> bool {
        let latest = self.latest(mine);
        self.sharers.get(node).is_some_and(|sharer| !sharer.coming.is_empty() && !sharer.is_believed(latest))
    }

    /// Whether a node has just got more, not for the first time.
    pub(super) fn goes_on(&self, now: Time, node: &NodeId) -> bool {
        let goes_on = |sharer: &Sharer| sharer.changed == now && sharer.gap.is_some_and(|gap| gap.0 > 0);
        self.sharers.get(node).is_some_and(goes_on)
    }

    /// When anybody last got more, this node at `mine`.
    pub(super) fn latest(&self, mine: Time) -> Time {
        self.sharers.values().map(|sharer| sharer.changed).fold(mine, Time::max)
    }

    /// Whether a neighbour is.
    pub(super) fn is_getting(&self, now: Time, node: &NodeId) -> bool {
        self.sharers.get(node).is_some_and(|sharer| sharer.is_heard(now) && sharer.is_getting())
    }

    /// How many neighbours are getting it.
    pub(super) fn neighbours(&self, now: Time) -> usize {
        self.near(now).filter(|sharer| sharer.is_getting()).count()
    }

    /// Neighbours, as far as they were heard of lately.
    fn near(&self, now: Time) -> impl Iterator<Item = &Sharer> {
        self.sharers.values().filter(move |sharer| !sharer.holder.far && sharer.is_heard(now))
    }

    /// What a node is bringing into its site.
    pub(super) fn brings(&self, now: Time, node: &NodeId) -> Option<&Cells> {
        self.sharers.get(node).filter(|sharer| sharer.is_heard(now)).map(|sharer| &sharer.coming)
    }

    /// How many have each cell.
    pub(super) fn copies(&self, grid: &Grid) -> Counts {
        Sharers::counts(self.sharers.values(), grid)
    }

    /// How many neighbours do.
    pub(super) fn copies_near(&self, grid: &Grid) -> Counts {
        Sharers::counts(self.sharers.values().filter(|sharer| !sharer.holder.far), grid)
    }

    fn counts<'a>(sharers: impl Iterator<Item = &'a Sharer>, grid: &Grid) -> Counts {
        let mut copies = Counts::none(grid.count());
        for sharer in sharers {
            match &sharer.have {
                Some(have) => copies.add(have),
                None => copies.add_all(),
            }
        }
        copies
    }

    /// Those who share the work, this node among them.
    pub(super) fn shares(&self, now: Time, hash: &Hash, me: &NodeId, site: u64, mine: Time) -> Shares {
        // Where nobody gets more, it is the link, and nobody's share is taken away.
        let latest = self.latest(mine);
        let at_work = || {
            let sharers = self.sharers.iter().filter(|(_, sharer)| sharer.is_getting());
            sharers.filter(move |(_, sharer)| sharer.is_heard(now) && sharer.keeps_up(latest))
        };
        let near = at_work().filter(|(_, sharer)| !sharer.holder.far).map(|(node, _)| number(&node.0));
        let mut sites: alloc::vec::Vec<u64> =
            at_work().filter(|(_, sharer)| sharer.holder.far).map(|(_, sharer)| sharer.site).collect();
        sites.push(site);
        sites.sort_unstable();
        sites.dedup();
        let me = number(&me.0);
        let nodes = near.chain([me]).collect();
        Shares { blob: number(&hash.0), me, site, nodes, sites }
    }
}

impl Sharer {
    /// Whether it is still getting the blob.
    pub(super) fn is_getting(&self) -> bool {
        self.have.is_some()
    }

    /// Whether it says to be bringing a cell into its site.
    pub(super) fn is_bringing(&self, cell: usize) -> bool {
        self.coming.contains(cell)
    }

    fn extent(&self) -> Extent {
        match &self.have {
            Some(have) => Extent::Partial { have: have.to_bytes(), coming: self.coming.to_bytes() },
            None => Extent::Whole,
        }
    }

    /// What it has; all of it where that is nothing.
    pub(super) fn cells(&self) -> Option<&Cells> {
        self.have.as_ref()
    }

    fn is_heard(&self, now: Time) -> bool {
        now < self.silent_from()
    }

    fn silent_from(&self) -> Time {
        self.heard + if self.holder.far { SILENCE_FAR } else { SILENCE_NEAR }
    }

    /// Whether what it says to be on its way is believed: not of one to which nothing came while others got more. Where
    /// nobody gets more, it is the link.
    fn is_believed(&self, latest: Time) -> bool {
        latest.since(self.changed) < self.patience
    }

    /// Whether it had got more not long before `moment`, measured by how long that usually takes it.
    fn keeps_up(&self, moment: Time) -> bool {
        moment.since(self.changed) < self.usual()
    }

    fn usual(&self) -> Span {
        self.gap.map_or(STUCK_FIRST, |gap| Span(gap.0.saturating_mul(4).max(STUCK.0)))
    }
}

impl Shares {
    /// Whether this node fetches a cell for its site.
    pub(super) fn is_mine(&self, cell: usize) -> bool {
        self.nodes.len() == 1 || self.best(&self.nodes, cell) == Some(self.me)
    }

    /// As if there were this node alone.
    #[cfg(test)]
    pub(super) fn of_one(blob: u64, me: u64) -> Self {
        Shares { blob, me, site: 1, nodes: alloc::vec![me], sites: alloc::vec![1] }
    }

    /// Those of these cells that this node fetches for its site.
    pub(super) fn mine(&self, of: &Cells) -> Cells {
        Shares::those(of, |cell| self.is_mine(cell))
    }

    /// Those of these cells that this site fetches from where all of the blob is, for the others.
    ///
    /// `reach` other sites may come before it.
    pub(super) fn my_sites(&self, of: &Cells, reach: usize) -> Cells {
        Shares::those(of, |cell| self.is_my_sites(cell, reach))
    }

    fn is_my_sites(&self, cell: usize, reach: usize) -> bool {
        let mine = self.rank(self.site, cell);
        self.sites.iter().filter(|site| self.rank(**site, cell) > mine).count() <= reach
    }

    /// Asks once for each stripe that any of the cells is in.
    pub(super) fn those(of: &Cells, is: impl Fn(usize) -> bool) -> Cells {
        let mut those = Cells::none(of.count());
        let mut known = None;
        for cell in of.iter() {
            let stripe = cell / STRIPE;
            let kept = match known {
                Some((at, kept)) if at == stripe => kept,
                _ => is(cell),
            };
            known = Some((stripe, kept));
            if kept {
                those.insert(cell);
            }
        }
        those
    }

    /// Whether a node comes before this one for a cell.
    pub(super) fn is_before_me(&self, node: &NodeId, cell: usize) -> bool {
        self.rank(number(&node.0), cell) > self.rank(self.me, cell)
    }

    /// How many sites there are.
    pub(super) fn sites(&self) -> usize {
        self.sites.len()
    }

    /// Whether others of this site take part.
    pub(super) fn has_neighbours(&self) -> bool {
        self.nodes.len() > 1
    }

    /// Where this node begins to look for work that was another's: not where all others do.
    pub(super) fn start(&self, cells: usize) -> usize {
        usize::try_from(mix(self.blob ^ self.me) % cells.max(1) as u64).unwrap_or_default()
    }

    /// A number for this node and another, the same at both: where each begins with those for whom it is lowest, those
    /// who are asked by many ask many.
    pub(super) fn with(&self, other: &NodeId) -> u64 {
        mix(self.blob ^ self.me ^ number(&other.0))
    }

    /// A number for a cell that is another at each node.
    pub(super) fn chance(&self, cell: usize) -> u64 {
        mix(self.blob ^ self.me ^ cell as u64)
    }

    fn best(&self, among: &[u64], cell: usize) -> Option<u64> {
        among.iter().copied().max_by_key(|one| self.rank(*one, cell))
    }

    /// Highest random weight (Thaler and Ravishankar 1998), by stripes of cells so that requests can be of
    /// several.
    fn rank(&self, one: u64, cell: usize) -> (u64, u64) {
        (mix(self.blob ^ mix(one ^ (cell / STRIPE) as u64)), one)
    }
}

/// A name as a number: names are keys and hashes, so their first bytes are as good as any.
pub(super) fn number(name: &[u8; 32]) -> u64 {
    u64::from_le_bytes([name[0], name[1], name[2], name[3], name[4], name[5], name[6], name[7]])
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood 2014).
pub(super) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Cells in a row that are one node's to fetch.
pub(super) const STRIPE: usize = 4;
/// Nodes of this site that share in one blob, as far as this node minds, and nodes of others.
const SHARERS_MAX: usize = 64;
/// Members of other sites of which neighbours are told at a time.
const PASSED_ON_MAX: usize = 16;
/// A node of this site that was not heard of for this long is not relied on: it says something twice a second.
const SILENCE_NEAR: Span = Span::millis(1_500);
const SILENCE_FAR: Span = Span::secs(12);
/// One that has not got more for four times as long as that takes it, but at least this, neither.
const STUCK: Span = Span::secs(2);
/// A node to which nothing has come for this long does not believe any more that others are bringing it, nor, while
/// others get more, whoever has got no more for this long: a neighbour that says so for ever must not keep a site from
/// what it wants.
pub(super) const DISTRUST: Span = Span::secs(20);
/// Where it is not known yet how long that takes.
const STUCK_FIRST: Span = Span::secs(5);

#[cfg(test)]
mod tests {
    use alloc::{collections::BTreeMap, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId([n.wrapping_mul(37).wrapping_add(11); 32])
    }

    fn holder(n: u8, far: bool) -> Holder {
        Holder { far, abroad: false, node: node(n) }
    }

    fn nothing() -> Extent {
        Extent::Partial { have: Vec::new(), coming: Vec::new() }
    }

    /// What node `me` of `site` thinks, when all others have said that they are getting it.
    fn shares(me: u8, all: &[(u8, u64)], site: u64) -> Shares {
        let mut sharers = Sharers::default();
        for (n, other) in all.iter().filter(|(n, _)| *n != me) {
            assert!(sharers.told(
                Time(0),
                (holder(*n, *other != site), *other),
                &Grid::of(1 << 26),
                &nothing(),
                DISTRUST
            ));
        }
        sharers.shares(Time(0), &Hash([7; 32]), &node(me), site, Time(0))
    }

    #[test]
    fn other_sites_leave_room_for_neighbours() {
        let mut sharers = Sharers::default();
        let mut tell = |n: u8, far| {
            let whom = (holder(n, far), u64::from(far));
            sharers.told(Time(0), whom, &Grid::of(1 << 26), &nothing(), DISTRUST)
        };
        assert!((0..200).all(|n| tell(n, true)) && (200..220).all(|n| tell(n, false)));
        assert_eq!((sharers.len(), sharers.neighbours(Time(0))), (SHARERS_MAX + 20, 20));
    }

    proptest! {
        /// The promise that each byte crosses a thin link once rests on this.
        #[test]
        fn each_cell_is_one_sites_and_in_each_site_one_nodes(sites in prop::collection::vec(1u64..5, 1..20)) {
            let all: Vec<(u8, u64)> = (0..).zip(sites).collect();
            let views: Vec<(u64, Shares)> = all.iter().map(|(n, site)| (*site, shares(*n, &all, *site))).collect();
            let mut work = BTreeMap::<usize, usize>::new();
            for cell in 0..512 {
                let mut fetching = Vec::new();
                for (at, (site, view)) in views.iter().enumerate() {
                    if view.is_mine(cell) {
                        prop_assert!(!fetching.contains(site), "two nodes of one site");
                        fetching.push(*site);
                        *work.entry(at).or_default() += usize::from(view.is_my_sites(cell, 0));
                    }
                }
                let owners = views.iter().filter(|(_, view)| view.is_mine(cell) && view.is_my_sites(cell, 0));
                prop_assert_eq!(owners.count(), 1, "of the origin");
            }
            prop_assert_eq!(work.values().sum::<usize>(), 512);
        }
    }

    #[test]
    fn what_a_member_says_itself_is_worth_more_than_what_neighbours_say_of_it() {
        let grid = Grid::of(1 << 26);
        let having = |cell| {
            let mut have = Cells::none(grid.count());
            have.insert(cell);
            Extent::Partial { have: have.to_bytes(), coming: Vec::new() }
        };
        let mut sharers = Sharers::default();
        let far = (holder(1, true), 2);
        assert!(sharers.told_of(Time(0), far, &grid, &having(3)));
        assert_eq!(
            (sharers.copies(&grid).of(3), sharers.news(true).len()),
            (1, 0),
            "it is believed, and not passed on"
        );
        assert!(!sharers.told_of(
            Time(0),
            far,
            &grid,
            &Extent::Partial { have: [255; 99].into(), coming: Vec::new() }
        ));
        assert!(sharers.told(Time(1), far, &grid, &having(4), DISTRUST));
        assert!(sharers.told_of(Time(2), far, &grid, &having(5)));
        assert_eq!([3, 4, 5].map(|cell| sharers.copies(&grid).of(cell)), [0, 1, 0]);
        assert_eq!(sharers.news(false), [(node(1), having(4))]);
        sharers.passed_on();
        assert_eq!((sharers.news(false).len(), sharers.news(true).len()), (0, 1));
    }

    #[test]
    fn one_that_falls_silent_or_stands_still_is_not_relied_on() {
        let grid = Grid::of(1 << 26);
        let mut coming = Cells::none(grid.count());
        coming.insert(3);
        let extent = Extent::Partial { have: Vec::new(), coming: coming.to_bytes() };
        let mut sharers = Sharers::default();
        assert!(sharers.told(Time(0), (holder(1, false), 1), &grid, &extent, DISTRUST));
        let coming = |now| sharers.coming(Time(now), &grid, Time(0));
        assert!(coming(1_000).contains(3) && !coming(1_000).contains(4));
        assert!(coming(1_600).is_empty(), "silent");
        // It says the same for ever; where nobody gets more it is the link, and otherwise it is that node.
        for now in (0..10_000).step_by(500) {
            assert!(sharers.told(Time(now), (holder(1, false), 1), &grid, &extent, DISTRUST));
        }
        let nodes = |mine| sharers.shares(Time(9_600), &Hash([7; 32]), &node(2), 1, Time(mine)).nodes.len();
        assert_eq!((nodes(0), nodes(9_000)), (2, 1));
    }

    #[test]
    fn what_does_not_fit_the_blob_is_not_believed() {
        let grid = Grid::of(1 << 20);
        let extent = Extent::Partial { have: alloc::vec![255; 40], coming: Vec::new() };
        assert!(!Sharers::default().told(Time(0), (holder(1, false), 1), &grid, &extent, DISTRUST));
    }
}
