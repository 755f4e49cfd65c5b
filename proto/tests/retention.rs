//! Laws of deletion: nothing that must stay goes, whatever is known and however great the need; what goes frees
//! enough, or it is said why not; and the same knowledge gives the same plan in any order.

mod harness;

use std::collections::{BTreeMap, BTreeSet};

use harness::{digest, node, repository};
use proptest::prelude::*;
use waystation_proto::{
    Digest, Hash, NodeId, RepoName,
    retention::{Keeps, Name, Origin, Plan, Stay, Unit, plan},
};

/// Everything that a plan is made from.
#[derive(Clone, Debug)]
struct World {
    units: Vec<Unit>,
    pinned: BTreeSet<Digest>,
    leased: BTreeSet<Digest>,
    policy: BTreeSet<Digest>,
    busy: BTreeSet<Hash>,
    coming: BTreeSet<Digest>,
    granted: BTreeMap<Digest, NodeId>,
    refused: BTreeSet<Digest>,
    need: u64,
}

impl World {
    fn plan(&self) -> Plan {
        let policy_held = |_: &RepoName, manifest: &Digest| self.policy.contains(manifest);
        let keeps = Keeps {
            pinned: &self.pinned,
            leased: &self.leased,
            policy_held: &policy_held,
            busy: &self.busy,
            coming: &self.coming,
            granted: &self.granted,
            refused: &self.refused,
        };
        plan(&self.units, &keeps, self.need)
    }

    fn unit(&self, name: Name) -> &Unit {
        self.units.iter().find(|unit| unit.name == name).expect("of the world")
    }
}

fn unit(n: u8, origin: Origin, blobs: Vec<u8>, last_use: u64) -> Unit {
    let name = match origin {
        Origin::Loose => Name::Loose(Hash([n; 32])),
        _ => Name::Content(digest(n)),
    };
    let repositories = if origin == Origin::Loose { vec![] } else { vec![repository("a/b")] };
    // The size follows from the blob.
    let blobs = blobs.into_iter().map(|b| (Hash([b; 32]), 10 + u64::from(b))).collect();
    Unit { name, origin, repositories, blobs, last_use }
}

fn world() -> impl Strategy<Value = World> {
    let origin = prop::sample::select(vec![Origin::Loose, Origin::Pulled, Origin::Referenced]);
    let units = prop::collection::vec((origin, prop::collection::vec(0u8..20, 0..5), 0u64..10), 0..14);
    let units = units.prop_map(|units| {
        let numbered = units.into_iter().zip(0u8..);
        numbered.map(|((origin, blobs, last), n)| unit(n, origin, blobs, last)).collect::<Vec<_>>()
    });
    let some = || prop::collection::btree_set(0u8..14, 0..4);
    let digests = |set: BTreeSet<u8>| set.into_iter().map(digest).collect::<BTreeSet<_>>();
    let rest = (some(), some(), some(), some(), some(), prop::collection::btree_set(0u8..14, 0..14), some());
    (units, rest, 0u64..400).prop_map(move |(units, rest, need)| {
        let (pinned, leased, policy, busy, coming, granted, refused) = rest;
        World {
            units,
            pinned: digests(pinned),
            leased: digests(leased),
            policy: digests(policy),
            busy: busy.into_iter().map(|n| Hash([n; 32])).collect(),
            coming: digests(coming),
            granted: granted.into_iter().map(|n| (digest(n), node(n))).collect(),
            refused: digests(refused),
            need,
        }
    })
}

proptest! {
    #[test]
    fn what_must_stay_stays(world in world()) {
        let plan = world.plan();
        for go in plan.go.iter().chain(&plan.ask) {
            let unit = world.unit(go.name);
            if let Name::Content(manifest) = go.name {
                prop_assert!(!world.pinned.contains(&manifest), "pinned");
                prop_assert!(!world.leased.contains(&manifest), "leased");
                prop_assert!(!world.policy.contains(&manifest), "held by policy");
                prop_assert!(!world.coming.contains(&manifest), "on its way");
            }
            prop_assert!(unit.blobs.iter().all(|(hash, _)| !world.busy.contains(hash)), "on its way");
        }
    }

    #[test]
    fn no_referenced_copy_goes_without_a_promise(world in world()) {
        for go in &world.plan().go {
            if let (Origin::Referenced, Name::Content(manifest)) = (world.unit(go.name).origin, go.name) {
                prop_assert!(world.granted.contains_key(&manifest));
            }
        }
    }

    #[test]
    fn a_freed_blob_is_needed_by_nothing_that_stays(world in world()) {
        let plan = world.plan();
        let gone: BTreeSet<Name> = plan.go.iter().map(|go| go.name).collect();
        let freed: Vec<Hash> = plan.go.iter().flat_map(|go| &go.frees).map(|(hash, _)| *hash).collect();
        let distinct: BTreeSet<Hash> = freed.iter().copied().collect();
        prop_assert_eq!(freed.len(), distinct.len(), "freed twice");
        for unit in world.units.iter().filter(|unit| !gone.contains(&unit.name)) {
            prop_assert!(unit.blobs.iter().all(|(hash, _)| !distinct.contains(hash)));
        }
    }

    #[test]
    fn it_frees_enough_or_says_why_not(world in world()) {
        let plan = world.plan();
        let counted: u64 = plan.go.iter().flat_map(|go| &go.frees).map(|(_, size)| *size).sum();
        prop_assert_eq!(plan.frees, counted);
        let asked: u64 = plan.ask.iter().flat_map(|go| &go.frees).map(|(_, size)| *size).sum();
        prop_assert!(plan.frees + asked + plan.short >= world.need);
        if plan.short > 0 && plan.ask.is_empty() {
            // Whatever stays has a reason of its own.
            prop_assert!(!plan.stays.contains_key(&Stay::Room));
        }
    }

    #[test]
    fn the_order_in_which_things_are_known_does_not_matter(world in world(), seed in any::<u64>()) {
        let mut other = world.clone();
        fastrand::Rng::with_seed(seed).shuffle(&mut other.units);
        prop_assert_eq!(world.plan(), other.plan());
    }

    /// Beyond the need, the least recently used go and the others stay.
    #[test]
    fn the_least_recently_used_go_first(uses in prop::collection::vec(0u64..1000, 1..20), need in 1u64..400) {
        let units: Vec<Unit> =
            uses.iter().zip(0u8..).map(|(last, n)| unit(n, Origin::Pulled, vec![n], *last)).collect();
        let none = BTreeSet::new();
        let world = World {
            units, pinned: none.clone(), leased: none.clone(), policy: none.clone(), busy: BTreeSet::new(),
            coming: none.clone(), granted: BTreeMap::new(), refused: none, need,
        };
        let plan = world.plan();
        let gone: BTreeSet<Name> = plan.go.iter().map(|go| go.name).collect();
        let newest = world.units.iter().filter(|unit| gone.contains(&unit.name)).map(|unit| unit.last_use).max();
        let oldest = world.units.iter().filter(|unit| !gone.contains(&unit.name)).map(|unit| unit.last_use).min();
        if let (Some(newest), Some(oldest)) = (newest, oldest) {
            prop_assert!(newest <= oldest);
        }
        // The last to go was still needed.
        if let Some(last) = plan.go.last() {
            let last: u64 = last.frees.iter().map(|(_, size)| *size).sum();
            prop_assert!(plan.frees - last < need);
        }
    }
}

fn alone(units: Vec<Unit>, need: u64) -> World {
    World {
        units,
        pinned: BTreeSet::new(),
        leased: BTreeSet::new(),
        policy: BTreeSet::new(),
        busy: BTreeSet::new(),
        coming: BTreeSet::new(),
        granted: BTreeMap::new(),
        refused: BTreeSet::new(),
        need,
    }
}

#[test]
fn without_need_only_what_is_loose_goes() {
    let units = vec![
        unit(1, Origin::Loose, vec![1], 9),
        unit(2, Origin::Pulled, vec![2], 0),
        unit(3, Origin::Referenced, vec![3], 0),
    ];
    let plan = alone(units, 0).plan();
    assert_eq!(plan.go.iter().map(|go| go.name).collect::<Vec<_>>(), [Name::Loose(Hash([1; 32]))]);
    assert!(plan.ask.is_empty());
}

#[test]
fn what_can_come_again_goes_before_what_others_must_promise_to_keep() {
    let units = vec![unit(1, Origin::Referenced, vec![1], 0), unit(2, Origin::Pulled, vec![2], 9)];
    let plan = alone(units.clone(), 12).plan();
    assert_eq!(plan.go.len(), 1);
    assert_eq!(plan.go[0].name, Name::Content(digest(2)));
    let mut more = alone(units, 20);
    let plan = more.plan();
    assert_eq!((plan.go.len(), plan.ask.len(), plan.short), (1, 1, 0));
    more.refused.insert(digest(1));
    let plan = more.plan();
    assert_eq!((plan.ask.len(), plan.short), (0, 20 - plan.frees));
    assert_eq!(plan.stays.get(&Stay::LastCopy), Some(&11), "the last known copy");
}

/// What is left of a copy that went is what others here need: to ask for a promise for it again and again frees
/// nothing.
#[test]
fn what_frees_nothing_is_not_asked_for() {
    let mut world =
        alone(vec![unit(1, Origin::Referenced, vec![7], 1), unit(2, Origin::Referenced, vec![7, 8], 2)], 50);
    world.pinned.insert(digest(2));
    let plan = world.plan();
    assert!(plan.ask.is_empty() && plan.go.is_empty(), "{plan:?}");
    assert_eq!(plan.short, 50);
    world.granted.insert(digest(1), node(9));
    assert!(world.plan().go.is_empty(), "not with a promise either");
    // Where the other may go too, both do, and the last one frees what they share.
    world.pinned.clear();
    let plan = world.plan();
    let ways: Vec<Name> = plan.go.iter().chain(&plan.ask).map(|go| go.name).collect();
    assert_eq!(ways, [Name::Content(digest(1)), Name::Content(digest(2))]);
}
