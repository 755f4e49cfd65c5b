//! What may be deleted here, in which order, and what must stay: a function of what is known, the only one that
//! decides it. How much is known, asking others for leases, and deleting are the driver's.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use crate::id::{Digest, Hash, NodeId, RepoName};

/// What goes or stays as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// By what it is called.
    pub name: Name,
    /// Why it is here.
    pub origin: Origin,
    /// Through which repositories clients see it.
    pub repositories: Vec<RepoName>,
    /// Every blob of it that is here, with its size in bytes. Blobs may be in several units.
    pub blobs: Vec<(Hash, u64)>,
    /// When it was last served, pushed or pulled, as a count of such moments: later ones are higher. Zero where
    /// nothing is known.
    pub last_use: u64,
}

/// The name of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// An artifact, by its manifest; or content of an upstream that no manifest which is here names.
    Content(Digest),
    /// Bytes that nothing refers to.
    Loose(Hash),
}

/// Why a unit is here. The first to be listed is the first to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nothing refers to it, and that has been so for long enough: pushes that were never finished, what was
    /// deleted from every repository, old segments of records.
    Loose,
    /// It came from an upstream that answers, and can come again.
    Pulled,
    /// Some repository of the mesh refers to it.
    Referenced,
}

/// What keeps units here.
#[derive(Clone, Copy)]
pub struct Keeps<'a> {
    /// By the operator.
    pub pinned: &'a BTreeSet<Digest>,
    /// Because others rely on this node.
    pub leased: &'a BTreeSet<Digest>,
    /// Because the mesh's policy wants it on this site.
    pub policy_held: &'a dyn Fn(&RepoName, &Digest) -> bool,
    /// Blobs that are on their way, or of artifacts that are.
    pub busy: &'a BTreeSet<Hash>,
    /// Artifacts that are on their way.
    pub coming: &'a BTreeSet<Digest>,
    /// Who has promised to keep an artifact for this node.
    pub granted: &'a BTreeMap<Digest, NodeId>,
    /// Artifacts that nobody could be found for to promise it.
    pub refused: &'a BTreeSet<Digest>,
}

/// What is to be deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// May be deleted now, in this order.
    pub go: Vec<Go>,
    /// Could be deleted, in this order, once another holder has granted a lease on each.
    pub ask: Vec<Go>,
    /// Bytes that `go` frees.
    pub frees: u64,
    /// Bytes that were needed and neither `go` nor `ask` would free.
    pub short: u64,
    /// Why the units stay that do, and how many bytes each reason keeps; blobs that are in several count once
    /// for each.
    pub stays: BTreeMap<Stay, u64>,
}

/// A unit that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Go {
    /// Which.
    pub name: Name,
    /// Why it was here.
    pub origin: Origin,
    /// What becomes free with it: its blobs that no unit needs which stays.
    pub frees: Vec<(Hash, u64)>,
}

/// Why a unit stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stay {
    /// The operator pinned it.
    Pinned,
    /// Another node relies on it.
    Leased,
    /// Policy wants it here.
    Policy,
    /// It is on its way, or is being sent for.
    Busy,
    /// It is referenced, and no other node that can be reached has promised to keep it.
    LastCopy,
    /// There is no need for its room.
    Room,
    /// It has no room of its own: others that stay need all of it.
    Shared,
}

/// Says what is to go so that `need` bytes become free. Loose units go whether or not there is need. Referenced
/// ones are in `go` only where another node has promised to keep them.
pub fn plan(units: &[Unit], keeps: &Keeps<'_>, need: u64) -> Plan {
    let mut order: Vec<(Origin, u64, Name, usize)> =
        units.iter().enumerate().map(|(at, unit)| (unit.origin, unit.last_use, unit.name, at)).collect();
    order.sort_unstable();
    let mut needed_by = uses(units);
    let mut plan = Plan::default();
    // Bytes that the units in `ask` would free, if all of them were granted.
    let mut asked = 0;
    for (origin, _, name, at) in order {
        let unit = &units[at];
        let wanted = origin == Origin::Loose || plan.frees.saturating_add(asked) < need;
        let stay = kept_by(unit, keeps).or((!wanted).then_some(Stay::Room));
        if let Some(stay) = stay {
            *plan.stays.entry(stay).or_default() += bytes(&unit.blobs);
            continue;
        }
        let promised = match name {
            Name::Content(digest) => keeps.granted.contains_key(&digest),
            Name::Loose(_) => false,
        };
        let free = origin != Origin::Referenced || promised;
        let frees = release(unit, keeps, &mut needed_by);
        let go = Go { name, origin, frees };
        if free {
            plan.frees += bytes(&go.frees);
            plan.go.push(go);
        } else {
            asked += bytes(&go.frees);
            plan.ask.push(go);
        }
    }
    drop_useless(&mut plan, units);
    settle(&mut plan, units, keeps);
    plan.short = need.saturating_sub(plan.frees.saturating_add(asked));
    plan
}

/// A referenced copy of which not one blob becomes free, since others that stay need all of them, stays too: nobody
/// has to be asked to promise anything for it, today or in every round after.
fn drop_useless(plan: &mut Plan, units: &[Unit]) {
    let leaving = plan.go.iter().chain(&plan.ask);
    let freed: BTreeSet<Hash> = leaving.flat_map(|go| &go.frees).map(|(hash, _)| *hash).collect();
    let units: BTreeMap<Name, &Unit> = units.iter().map(|unit| (unit.name, unit)).collect();
    let Plan { go, ask, stays, .. } = plan;
    for list in [go, ask] {
        list.retain(|go| {
            let blobs = units.get(&go.name).map_or(&[][..], |unit| &unit.blobs);
            let useful =
                go.origin != Origin::Referenced || blobs.iter().any(|(hash, _)| freed.contains(hash));
            if !useful {
                *stays.entry(Stay::Shared).or_default() += bytes(blobs);
            }
            useful
        });
    }
}

/// What in `go` counted a blob as free because a unit in `ask` was to go too: that blob stays until it has gone.
fn settle(plan: &mut Plan, units: &[Unit], keeps: &Keeps<'_>) {
    let gone: BTreeSet<Name> = plan.go.iter().map(|go| go.name).collect();
    let stay = units.iter().filter(|unit| !gone.contains(&unit.name));
    let kept: BTreeSet<Hash> =
        stay.flat_map(|unit| &unit.blobs).map(|(hash, _)| *hash).chain(keeps.busy.iter().copied()).collect();
    for go in &mut plan.go {
        go.frees.retain(|(hash, _)| !kept.contains(hash));
    }
    plan.frees = plan.go.iter().map(|go| bytes(&go.frees)).sum();
}

/// Why a unit may not go whatever the need.
fn kept_by(unit: &Unit, keeps: &Keeps<'_>) -> Option<Stay> {
    if let Name::Content(digest) = &unit.name {
        if keeps.pinned.contains(digest) {
            return Some(Stay::Pinned);
        }
        if keeps.leased.contains(digest) {
            return Some(Stay::Leased);
        }
        if unit.repositories.iter().any(|repository| (keeps.policy_held)(repository, digest)) {
            return Some(Stay::Policy);
        }
        if keeps.coming.contains(digest) {
            return Some(Stay::Busy);
        }
        let alone = keeps.refused.contains(digest) && !keeps.granted.contains_key(digest);
        if unit.origin == Origin::Referenced && alone {
            return Some(Stay::LastCopy);
        }
    }
    unit.blobs.iter().any(|(hash, _)| keeps.busy.contains(hash)).then_some(Stay::Busy)
}

/// By how many units each blob is needed.
fn uses(units: &[Unit]) -> BTreeMap<Hash, usize> {
    let mut uses = BTreeMap::new();
    for (hash, _) in units.iter().flat_map(distinct) {
        *uses.entry(hash).or_default() += 1;
    }
    uses
}

/// Takes a unit out, and says which blobs nobody needs after that.
fn release(unit: &Unit, keeps: &Keeps<'_>, needed_by: &mut BTreeMap<Hash, usize>) -> Vec<(Hash, u64)> {
    let mut free = Vec::new();
    for (hash, size) in distinct(unit) {
        if let Some(uses) = needed_by.get_mut(&hash) {
            *uses = uses.saturating_sub(1);
            if *uses == 0 && !keeps.busy.contains(&hash) {
                free.push((hash, size));
            }
        }
    }
    free
}

/// A manifest may name one blob twice.
fn distinct(unit: &Unit) -> BTreeMap<Hash, u64> {
    unit.blobs.iter().copied().collect()
}

fn bytes(blobs: &[(Hash, u64)]) -> u64 {
    blobs.iter().fold(0, |sum, (_, size)| sum.saturating_add(*size))
}
