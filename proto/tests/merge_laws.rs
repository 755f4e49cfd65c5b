//! Merging is a join: whatever the order, the grouping and the repetitions, the same records give the same
//! catalog; and whatever the interleaving, a tag only moves forward.

mod harness;

use std::collections::BTreeMap;

use harness::{Node, WALL, digest, grant, key, node, repository, tag, trust};
use proptest::prelude::*;
use waystation_proto::{
    Change, Digest, NodeId, Record, Shared,
    body::{HoldingBody, HoldingState, LinkBody, State, StatusBody, TagBody},
    catalog::{Applied, Catalog, Limits},
    quota::Quota,
    reconcile::Within,
    record::{Key, Kind},
};

const LIMITS: Limits = Limits { records: 10_000, unknown: 10_000, by_author: Quota::MESH };

/// What a record is made of: few keys, few versions, so that records compete, and often tie.
#[derive(Clone, Copy, Debug)]
struct Seed {
    kind: u8,
    name: u8,
    author: u8,
    version: u64,
    content: u8,
}

fn seeds() -> impl Strategy<Value = Vec<Seed>> {
    let seed = (0u8..5, 0u8..2, 1u8..4, 1u64..4, 0u8..3);
    let seed =
        seed.prop_map(|(kind, name, author, version, content)| Seed { kind, name, author, version, content });
    prop::collection::vec(seed, 1..24)
}

fn record(seed: Seed) -> Shared {
    let Seed { kind, name, author, version, content } = seed;
    let (mesh, author_key, app) = (trust().mesh, key(author), repository("team/app"));
    let write = Some(grant(author, 1));
    let record = match kind {
        0 => {
            let body = TagBody { target: (content > 0).then(|| digest(content)) };
            let key_of = Key::tag(&app, &tag(&format!("t{name}")));
            Record::author(&mesh, &author_key, write, key_of, version, WALL, &body)
        }
        1 => {
            let state = [State::Approved, State::Revoked, State::Validating][usize::from(content)];
            let body = StatusBody { state, reason: String::new() };
            Record::author(&mesh, &author_key, write, Key::status(&app, &digest(name)), version, WALL, &body)
        }
        2 => {
            let state =
                [HoldingState::Gone, HoldingState::Partial, HoldingState::Complete][usize::from(content)];
            let key_of = Key::holding("here", &digest(name), &node(author));
            Record::author(&mesh, &author_key, None, key_of, version, WALL, &HoldingBody { state })
        }
        3 => {
            let body = LinkBody { removed: content > 0 };
            Record::author(&mesh, &author_key, write, Key::link(&app, &digest(name)), version, WALL, &body)
        }
        _ => {
            let key_of = Key { kind: Kind(999), scope: String::new(), name: name.to_string() };
            Record::author(&mesh, &author_key, None, key_of, version, WALL, &content)
        }
    };
    record.into()
}

/// As it would be with a quota that is easily reached.
fn merged_few<'a>(records: impl IntoIterator<Item = &'a Shared>) -> Catalog {
    let by_author = Quota { holdings: 3, summaries: 3, sightings: 3, unknown: 2 };
    let mut catalog = Catalog::default();
    for record in records {
        catalog.apply(record.clone(), Limits { by_author, ..LIMITS });
    }
    catalog
}

/// Holdings as their author writes them: each above all before it.
fn holdings(said: &[(u8, u8, u8)]) -> Vec<Shared> {
    let state = |content| [HoldingState::Gone, HoldingState::Partial, HoldingState::Complete][content];
    let said = said.iter().zip(1..);
    said.map(|((author, name, content), version)| {
        let key_of = Key::holding("here", &digest(*name), &node(*author));
        let body = HoldingBody { state: state(usize::from(*content)) };
        Record::author(&trust().mesh, &key(*author), None, key_of, version, WALL, &body).into()
    })
    .collect()
}

fn merged<'a>(records: impl IntoIterator<Item = &'a Shared>) -> Catalog {
    let mut catalog = Catalog::default();
    for record in records {
        catalog.apply(record.clone(), LIMITS);
    }
    catalog
}

/// All of what a catalog knows, by every way of asking that decisions use.
fn content(catalog: &Catalog) -> impl PartialEq + std::fmt::Debug + use<> {
    let records: Vec<Shared> = catalog.iter().cloned().collect();
    let holders: Vec<Vec<(NodeId, HoldingState)>> =
        (0..2).map(|n| catalog.holders(&digest(n)).collect()).collect();
    let tags: Vec<Option<Digest>> =
        ["t0", "t1"].map(|name| catalog.tag(&repository("team/app"), &tag(name))).to_vec();
    let unlinked = [0, 1].map(|n| catalog.is_unlinked(&repository("team/app"), &digest(n)));
    let sums = [0..=u128::MAX, 0..=u128::MAX / 3].map(|range| catalog.sum(Within::Site, range));
    (records, holders, tags, unlinked, sums)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn order_does_not_matter(seeds in seeds(), shuffle in any::<u64>()) {
        let records: Vec<Shared> = seeds.into_iter().map(record).collect();
        let mut others: Vec<&Shared> = records.iter().collect();
        fastrand::Rng::with_seed(shuffle).shuffle(&mut others);
        prop_assert_eq!(content(&merged(&records)), content(&merged(others)));
    }

    #[test]
    fn repetition_does_not_matter(seeds in seeds(), shuffle in any::<u64>()) {
        let records: Vec<Shared> = seeds.into_iter().map(record).collect();
        let mut twice: Vec<&Shared> = records.iter().chain(&records).collect();
        fastrand::Rng::with_seed(shuffle).shuffle(&mut twice);
        prop_assert_eq!(content(&merged(&records)), content(&merged(twice)));
        let mut catalog = merged(&records);
        for record in &records {
            let again = catalog.apply(record.clone(), LIMITS);
            prop_assert!(matches!(again, Applied::Same | Applied::Stale));
        }
    }

    #[test]
    fn grouping_does_not_matter(a in seeds(), b in seeds(), c in seeds()) {
        let [a, b, c] = [a, b, c].map(|seeds| seeds.into_iter().map(record).collect::<Vec<_>>());
        // (a ∪ b) ∪ c and a ∪ (b ∪ c), each bracket merged by itself first.
        let (ab, bc) = (merged(a.iter().chain(&b)), merged(b.iter().chain(&c)));
        let left = merged(ab.iter().chain(&c));
        let right = merged(a.iter().chain(bc.iter()));
        prop_assert_eq!(content(&left), content(&right));
    }

    /// What an author with too many records keeps is the same everywhere, whatever came first, twice or late.
    #[test]
    fn quotas_keep_the_same_in_any_order(
        said in prop::collection::vec((1u8..3, 0u8..9, 0u8..3), 1..40),
        shuffle in any::<u64>(),
    ) {
        let records = holdings(&said);
        let mut others: Vec<&Shared> = records.iter().chain(&records).collect();
        fastrand::Rng::with_seed(shuffle).shuffle(&mut others);
        let (left, right) = (merged_few(&records), merged_few(others));
        prop_assert_eq!(content(&left), content(&right));
        for author in 1..3 {
            let count = left.iter().filter(|record| record.author == node(author)).count();
            let keys: std::collections::BTreeSet<u8> =
                said.iter().filter(|(by, _, _)| *by == author).map(|(_, name, _)| *name).collect();
            prop_assert_eq!(count, keys.len().min(3));
        }
        // What the one has merged and the other has refused, offered again, changes nothing.
        let again = merged_few(left.iter().chain(right.iter()).chain(&records));
        prop_assert_eq!(content(&again), content(&left));
    }

    #[test]
    fn of_any_two_records_under_one_key_exactly_one_wins(seeds in seeds()) {
        let records: Vec<Shared> = seeds.into_iter().map(record).collect();
        for a in &records {
            for b in records.iter().filter(|b| b.key == a.key) {
                prop_assert_eq!(a.beats(b) ^ b.beats(a), a != b);
            }
        }
    }

    /// Records in any order, own writes in between, durable sooner or later: what a replica tells its driver
    /// about a tag never goes back, and ends with the winner of all.
    #[test]
    fn a_tag_never_goes_backwards(seeds in seeds(), steps in prop::collection::vec(0u8..4, 0..40)) {
        let mut here = Node::granted(1);
        here.writes_are_quick = false;
        let mut arriving: Vec<Shared> =
            seeds.into_iter().map(|seed| record(Seed { kind: 0, author: seed.author + 1, ..seed })).collect();
        let mut request = 0;
        for step in steps {
            match step {
                0 | 1 => if let Some(record) = arriving.pop() { here.learn([record]) },
                2 => {
                    request += 1;
                    let index = harness::index(request, &[]);
                    here.tell(waystation_proto::Input::Publish {
                        request: waystation_proto::RequestId(u64::from(request)),
                        repository: repository("team/app"),
                        tags: vec![tag(&format!("t{}", request % 2))],
                        index_hash: harness::index_hash(&index),
                        index_size: index.encode().len() as u64,
                        index,
                    });
                }
                _ => if !here.writes.is_empty() { here.write_done() },
            }
        }
        while !here.writes.is_empty() {
            here.write_done();
        }
        let mut newest: BTreeMap<&waystation_proto::Tag, (u64, NodeId)> = BTreeMap::new();
        for change in &here.changes {
            let Change::Tag { tag, version, author, .. } = change else { continue };
            let before = newest.insert(tag, (*version, *author));
            prop_assert!(before <= Some((*version, *author)), "{tag} went back");
        }
        for (tag, newest) in newest {
            let key = Key::tag(&repository("team/app"), tag);
            let known = here.replica.catalog().get(&key).expect("known");
            prop_assert_eq!((known.version, known.author), newest);
            prop_assert_eq!(here.disk.get(&key), Some(known), "what is durable is what is known");
        }
    }
}

#[test]
fn a_full_catalog_takes_nothing_new_but_still_what_replaces() {
    let limits = Limits { records: 3, unknown: 1, by_author: Quota::MESH };
    let mut catalog = Catalog::default();
    let seed = Seed { kind: 4, name: 0, author: 1, version: 1, content: 0 };
    assert_eq!(catalog.apply(record(seed), limits), Applied::New);
    assert_eq!(catalog.apply(record(Seed { name: 1, ..seed }), limits), Applied::Full, "unknown kinds");
    assert_eq!(catalog.apply(record(Seed { version: 2, ..seed }), limits), Applied::New);
    assert_eq!(catalog.apply(record(Seed { kind: 0, ..seed }), limits), Applied::New);
    assert_eq!(catalog.apply(record(Seed { kind: 1, ..seed }), limits), Applied::New);
    assert_eq!(catalog.apply(record(Seed { kind: 2, ..seed }), limits), Applied::Full, "all kinds");
    assert_eq!(catalog.apply(record(Seed { kind: 0, version: 2, ..seed }), limits), Applied::New);
    assert_eq!(catalog.len(), 3);
}
