//! From whom this node is catching up, part of the catalog by part. A node that comes back compares with several
//! members at the same moment, and each of them has the same to send: one supplies a part at a time, the others are
//! compared with a little later, when hardly anything is left to send. How catalogs are compared is
//! [`crate::reconcile`]'s, and when [`crate::rounds`]'.

use alloc::vec::Vec;

use crate::{
    catalog::Catalog,
    id::NodeId,
    reconcile::{Content, Position, Summary, Within},
    time::{Span, Time},
};

/// Who is expected to send what this node lacks.
#[derive(Debug, Default)]
pub struct Suppliers(Vec<Supply>);

#[derive(Debug)]
struct Supply {
    peer: NodeId,
    within: Within,
    from: Position,
    to: Position,
    /// How many records the peer has there.
    count: u64,
    began: Time,
    /// When something new came last.
    came: Time,
    patience: Span,
}

impl Supply {
    fn goes_on(&self, now: Time) -> bool {
        now.since(self.came) < self.patience && now.since(self.began) < LONGEST
    }
}

impl Suppliers {
    /// Leaves out of what a member describes the parts of which it has more than this node, where another member
    /// is supplying them. True where something was left out: the member is to be compared with again.
    pub fn sift(
        &mut self,
        now: Time,
        (peer, is_near): (&NodeId, bool),
        (catalog, within): (&Catalog, Within),
        theirs: &mut Vec<Summary>,
    ) -> bool {
        self.0.retain(|supply| now.since(supply.began) < LONGEST);
        // Whoever has more than it was said to have at first supplied all of it.
        self.0.retain(|supply| catalog.sum(supply.within, supply.from..=supply.to).count() < supply.count);
        let before = theirs.len();
        theirs.retain(|summary| match &summary.content {
            Content::Fingerprint(_, count) if summary.from <= summary.to => {
                let lacking = catalog.sum(within, summary.from..=summary.to).count() < *count;
                !lacking || self.take(now, (peer, is_near), (within, summary), *count)
            }
            _ => true,
        });
        theirs.len() < before
    }

    /// Whether a member may supply a part.
    fn take(
        &mut self,
        now: Time,
        (peer, is_near): (&NodeId, bool),
        (within, part): (Within, &Summary),
        count: u64,
    ) -> bool {
        // Whoever supplies what the site has supplies what the mesh has too.
        let covers = |supply: &&Supply| {
            let includes = supply.within == Within::Site || within == Within::Mesh;
            includes && supply.from <= part.from && part.to <= supply.to
        };
        if self.0.iter().filter(covers).any(|supply| supply.peer != *peer && supply.goes_on(now)) {
            return false;
        }
        // One that was to supply it already and did not keeps nobody else from it.
        let again = self.0.iter().filter(covers).any(|supply| supply.peer == *peer);
        if !again && self.0.len() < PARTS_MAX {
            let patience = if is_near { PATIENCE } else { FAR_PATIENCE };
            let (from, to) = (part.from, part.to);
            self.0.push(Supply { peer: *peer, within, from, to, count, began: now, came: now, patience });
        }
        true
    }

    /// Something new came from a member.
    pub fn came(&mut self, now: Time, peer: &NodeId) {
        self.0.iter_mut().filter(|supply| supply.peer == *peer).for_each(|supply| supply.came = now);
    }

    /// A session ended.
    pub fn stop(&mut self, peer: &NodeId) {
        self.0.retain(|supply| supply.peer != *peer);
    }
}

/// Parts that are waited for.
const PARTS_MAX: usize = 64;
/// How long a member of the site has to send something new.
const PATIENCE: Span = Span::secs(2);
/// How long any other: a link of 256 kbit/s carries what fills one message in this time.
const FAR_PATIENCE: Span = Span::secs(5);
/// For how long one member supplies a part, and then keeps nobody from it for as long.
const LONGEST: Span = Span::secs(60);

#[cfg(test)]
mod tests {
    use alloc::{string::ToString, vec};

    use super::*;
    use crate::{
        catalog::Limits,
        record::{Key, Kind, Record},
        time::Wall,
    };

    const A: NodeId = NodeId([1; 32]);
    const B: NodeId = NodeId([2; 32]);

    fn learn(catalog: &mut Catalog, n: u32) {
        let key = Key { kind: Kind(999), scope: "".into(), name: n.to_string() };
        let (body, authored, author) = (vec![], Wall(0), NodeId([9; 32]));
        let record = Record { key, author, grant: None, version: 1, authored, body, signature: [0; 64] };
        catalog.apply(record, Limits::RESTORED);
    }

    fn offer(count: u64) -> Vec<Summary> {
        vec![Summary { from: 0, to: Position::MAX, content: Content::Fingerprint([0; 16], count) }]
    }

    #[test]
    fn one_member_supplies_a_part_at_a_time() {
        let (mut suppliers, mut catalog) = (Suppliers::default(), Catalog::default());
        let put_off = |suppliers: &mut Suppliers, catalog: &Catalog, now, peer, count| {
            suppliers.sift(Time(now), (peer, true), (catalog, Within::Mesh), &mut offer(count))
        };
        assert!(!put_off(&mut suppliers, &catalog, 0, &A, 2), "the first that has more");
        assert!(put_off(&mut suppliers, &catalog, 10, &B, 2), "the second");
        assert!(!put_off(&mut suppliers, &catalog, 10, &B, 0), "one that has less is supplied");
        let mut part = offer(1);
        (part[0].from, part[0].to) = (7, 9);
        assert!(suppliers.sift(Time(10), (&B, true), (&catalog, Within::Mesh), &mut part) && part.is_empty());
        learn(&mut catalog, 1);
        suppliers.came(Time(1_900), &A);
        assert!(put_off(&mut suppliers, &catalog, 3_800, &B, 2), "it goes on");
        learn(&mut catalog, 2);
        assert!(!put_off(&mut suppliers, &catalog, 3_801, &B, 3), "all has come");
    }

    #[test]
    fn one_that_does_not_supply_keeps_nobody_from_it() {
        let (mut suppliers, catalog) = (Suppliers::default(), Catalog::default());
        let mut put_off =
            |now, peer| suppliers.sift(Time(now), (peer, true), (&catalog, Within::Mesh), &mut offer(5));
        assert!(!put_off(0, &A) && put_off(1_999, &B));
        assert!(!put_off(2_000, &A), "it may try again");
        assert!(!put_off(2_001, &B) && put_off(2_002, &A), "but the other goes first now");
        suppliers.stop(&B);
        assert!(!suppliers.sift(Time(2_003), (&A, true), (&catalog, Within::Mesh), &mut offer(5)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut suppliers, catalog) = (Suppliers::default(), Catalog::default());
        let part = |n: Position| Summary { from: n, to: n, content: Content::Fingerprint([0; 16], 5) };
        suppliers.sift(Time(0), (&A, true), (&catalog, Within::Mesh), &mut (0..1_000).map(part).collect());
        assert_eq!(suppliers.0.len(), PARTS_MAX);
    }
}
