//! What policies promise: copies where they are wanted and nowhere else, the same everywhere, nothing moved for
//! a policy that is met, and a holder that is lost replaced once its grace is over.

mod harness;

use std::collections::{BTreeMap, BTreeSet};

use harness::{Node, digest, index, index_hash, node, repository, tag};
use proptest::prelude::*;
use waystation_proto::{
    Digest, Event, Hash, Input, NodeId, ReplicaConfig, RequestId,
    body::{HoldingState, NodeBody, Tier},
    index::{ArtifactIndex, Edge, EdgeKind},
    placement::{self, Copies, Fleet, Silence},
    policy::{Places, Policy, TagRule, Window, report::Whom},
    time::{Now, Span, Time, Wall},
};

const APP: &str = "team/app";

fn policy() -> Policy {
    Policy {
        repositories: vec!["team/**".parse().expect("a glob")],
        tags: TagRule::default(),
        places: Places::default(),
        platforms: vec![],
        copies_per_site: Some(1),
        copies: None,
        priority: 0,
        windows: vec![],
        utc_offset: 0,
        metered: true,
        grace: 60,
        referrers: true,
        depends: true,
    }
}

fn at_sites(patterns: &[&str]) -> Places {
    let sites = patterns.iter().map(|text| text.parse().expect("a pattern")).collect();
    Places { sites, ..Places::default() }
}

/// Nodes that hear one another at once and whose transfers end at once. Node 1 may write.
struct Mesh {
    nodes: BTreeMap<u8, Node>,
    /// Transfers that there were, as (to, from, blob).
    moved: Vec<(u8, NodeId, Hash)>,
    requests: u64,
}

impl Mesh {
    fn of(sites: &[&str]) -> Self {
        let config = |site: &&str| ReplicaConfig { site: (*site).into(), ..ReplicaConfig::default() };
        Self::configured(sites.iter().map(config).collect())
    }

    fn configured(configs: Vec<ReplicaConfig>) -> Self {
        let nodes = (1..).zip(configs).map(|(n, config)| (n, Node::configured(n, config, vec![], vec![])));
        let mut mesh = Mesh { nodes: nodes.collect(), moved: vec![], requests: 0 };
        let all: Vec<u8> = mesh.nodes.keys().copied().collect();
        for n in &all {
            for peer in all.iter().filter(|peer| *peer != n) {
                mesh.nodes
                    .get_mut(n)
                    .expect("there")
                    .tell(Input::PeerUp { peer: node(*peer), dialled: None });
            }
        }
        mesh.node(1).learn([harness::grant_record(&harness::grant(1, 1))]);
        mesh.pass(3_000);
        mesh
    }

    fn node(&mut self, n: u8) -> &mut Node {
        self.nodes.get_mut(&n).expect("there")
    }

    /// Lets time pass for all, a quarter of a second at a time.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(250) {
            let mut news = Vec::new();
            for (n, node) in &mut self.nodes {
                node.pass(250);
                for fetch in node.fetches.clone() {
                    self.moved.push((*n, fetch.from, fetch.hash));
                    node.deliver(&fetch);
                }
                news.extend(node.announced.drain(..).map(|record| (*n, record)));
            }
            for (n, node) in &mut self.nodes {
                let heard: Vec<_> =
                    news.iter().filter(|(from, _)| from != n).map(|(_, record)| record.clone()).collect();
                if !heard.is_empty() {
                    node.learn(heard);
                }
            }
        }
    }

    /// A node pushes an artifact, all of which it has.
    fn publish(&mut self, repository_name: &str, index: &ArtifactIndex, tags: &[&str]) {
        for node in self.nodes.values_mut() {
            node.indexes.insert(index_hash(index), index.clone());
        }
        self.requests += 1;
        let request = RequestId(self.requests);
        let here = self.node(1);
        let blobs = index.edges.iter().filter_map(|edge| edge.hash);
        for hash in blobs.chain([index.hash, index_hash(index)]) {
            here.tell(Input::Sealed { hash });
        }
        here.tell(Input::Publish {
            request,
            repository: repository(repository_name),
            tags: tags.iter().map(|name| tag(name)).collect(),
            index: index.clone(),
            index_hash: index_hash(index),
            index_size: index.encode().len() as u64,
        });
    }

    fn apply(&mut self, name: &str, policy: Option<Policy>) {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.node(1).tell(Input::SetPolicy { request, name: repository(name), policy });
        let answers = self.nodes[&1].answers(request.0);
        assert_eq!(answers, [&Event::Written { request }]);
    }

    /// The nodes that have all of it.
    fn holders(&self, manifest: Digest) -> Vec<u8> {
        let has = |n: &u8| {
            let holders: BTreeMap<_, _> = self.nodes[n].replica.catalog().holders(&manifest).collect();
            holders.get(&node(*n)) == Some(&HoldingState::Complete)
        };
        self.nodes.keys().copied().filter(has).collect()
    }

    /// A node is gone without a word.
    fn lose(&mut self, n: u8) {
        self.nodes.remove(&n);
        for other in self.nodes.values_mut() {
            other.tell(Input::PeerDown { peer: node(n) });
        }
    }
}

#[test]
fn copies_appear_where_they_are_wanted_and_nowhere_else() {
    let mut mesh = Mesh::of(&["hub", "shop-a", "shop-a", "shop-b", "shop-b", "lab"]);
    mesh.publish(APP, &index(9, &[("a", 10)]), &["v1"]);
    mesh.publish("other/app", &index(8, &[("b", 10)]), &["v1"]);
    mesh.apply("base", Some(Policy { places: at_sites(&["shop-*"]), ..policy() }));
    mesh.pass(10_000);
    let holders = mesh.holders(digest(9));
    assert_eq!(holders.len(), 3, "{holders:?}");
    assert!(holders.iter().filter(|n| [2, 3].contains(*n)).count() == 1);
    assert!(holders.iter().filter(|n| [4, 5].contains(*n)).count() == 1);
    assert_eq!(mesh.holders(digest(8)), [1]);
    // All agree on who is to hold it, and say so when asked.
    for (n, here) in &mesh.nodes {
        let wanted = here.replica.policy_held(&repository(APP), &digest(9));
        assert_eq!(wanted, Some(*n != 1 && holders.contains(n)), "node {n}");
        let now = Now { time: Time(here.now), wall: harness::WALL };
        for other in mesh.nodes.keys() {
            let whom = Whom::Node(node(*other));
            let said = here.replica.explain(now, &whom, &repository(APP), &digest(9));
            assert_eq!(said.wanted, *other != 1 && holders.contains(other), "{n} about {other}: {said:?}");
        }
    }
}

#[test]
fn nothing_moves_for_a_policy_that_is_met() {
    let mut mesh = Mesh::of(&["hub", "shop", "shop", "shop"]);
    mesh.publish(APP, &index(9, &[("a", 10)]), &["v1"]);
    mesh.apply("base", Some(Policy { places: at_sites(&["shop"]), ..policy() }));
    mesh.pass(10_000);
    let (holders, moved) = (mesh.holders(digest(9)), mesh.moved.len());
    assert_eq!(holders.len(), 2);
    // A node that knows nothing of it, by whatever name, does not take it over.
    for n in 50..70 {
        let record = harness::node_record(n, "shop");
        mesh.nodes.values_mut().for_each(|here| here.learn([record.clone()]));
    }
    mesh.apply("again", Some(Policy { places: at_sites(&["shop"]), priority: 9, ..policy() }));
    mesh.pass(50_000);
    assert_eq!((mesh.holders(digest(9)), mesh.moved.len()), (holders, moved));
    mesh.apply("again", None);
    mesh.apply("base", None);
    mesh.pass(10_000);
    assert_eq!(mesh.moved.len(), moved);
    assert!(mesh.nodes.values().all(|n| n.replica.policy_held(&repository(APP), &digest(9)) == Some(false)));
}

#[test]
fn a_lost_holder_is_replaced_after_its_grace_and_not_before() {
    let mut mesh = Mesh::of(&["hub", "shop", "shop", "shop"]);
    mesh.publish(APP, &index(9, &[("a", 10)]), &["v1"]);
    mesh.apply("base", Some(Policy { places: at_sites(&["shop"]), ..policy() }));
    mesh.pass(10_000);
    let lost = *mesh.holders(digest(9)).last().expect("a holder");
    mesh.lose(lost);
    mesh.pass(55_000);
    assert_eq!(mesh.holders(digest(9)), [1]);
    mesh.pass(15_000);
    assert_eq!(mesh.holders(digest(9)).len(), 2, "one of the site has it again");
}

#[test]
fn a_lost_site_is_replaced_where_copies_in_all_are_wanted() {
    let mut mesh = Mesh::of(&["hub", "a", "b", "c"]);
    mesh.publish(APP, &index(9, &[("a", 10)]), &["v1"]);
    let places = at_sites(&["a", "b", "c"]);
    mesh.apply("base", Some(Policy { places, copies: Some(2), ..policy() }));
    mesh.pass(10_000);
    let holders = mesh.holders(digest(9));
    assert_eq!(holders.len(), 3, "two, and the publisher: {holders:?}");
    mesh.lose(holders[1]);
    mesh.pass(55_000);
    assert_eq!(mesh.holders(digest(9)).len(), 2);
    mesh.pass(15_000);
    assert_eq!(mesh.holders(digest(9)).len(), 3);
}

#[test]
fn what_two_of_a_site_are_to_hold_crosses_the_wan_once() {
    let mut mesh = Mesh::of(&["hub", "shop", "shop"]);
    mesh.publish(APP, &index(9, &[("a", 10)]), &["v1"]);
    mesh.apply("base", Some(Policy { places: at_sites(&["shop"]), copies_per_site: None, ..policy() }));
    mesh.pass(20_000);
    assert_eq!(mesh.holders(digest(9)), [1, 2, 3]);
    let layer = Hash::of(b"a");
    let from_outside = mesh.moved.iter().filter(|(_, from, hash)| *from == node(1) && *hash == layer).count();
    assert_eq!(from_outside, 1, "{:?}", mesh.moved);
}

#[test]
fn tags_select_and_newer_ones_take_over() {
    let mut mesh = Mesh::of(&["hub", "shop"]);
    for (n, version) in [(1, "v1.0.0"), (2, "v1.10.0"), (3, "v1.9.0"), (4, "v2.0.0")] {
        mesh.publish(APP, &index(n, &[(version, 10)]), &[version]);
    }
    let tags = TagRule { patterns: vec![], versions: Some("1".into()), newest: Some(2) };
    mesh.apply("base", Some(Policy { places: at_sites(&["shop"]), tags, ..policy() }));
    mesh.pass(10_000);
    let held = |mesh: &Mesh| (1..=5).filter(|n| mesh.holders(digest(*n)).contains(&2)).collect::<Vec<u8>>();
    assert_eq!(held(&mesh), [2, 3]);
    mesh.publish(APP, &index(5, &[("new", 10)]), &["v1.11.0"]);
    mesh.pass(10_000);
    assert_eq!(held(&mesh), [2, 3, 5], "what is not wanted any more is left to eviction");
    let wanted = |n: u8| mesh.nodes[&2].replica.policy_held(&repository(APP), &digest(n));
    assert_eq!((wanted(3), wanted(5)), (Some(false), Some(true)));
}

fn edge(kind: EdgeKind, n: u8, platform: Option<&str>) -> Edge {
    let (digest, platform) = (digest(n), platform.map(str::to_owned));
    Edge { kind, digest, hash: None, size: 100, media_type: "manifest".into(), platform }
}

#[test]
fn an_artifact_brings_its_children_its_referrers_and_what_it_depends_on() {
    let mut mesh = Mesh::of(&["hub", "shop", "lab"]);
    let mut list = index(10, &[]);
    list.edges.push(edge(EdgeKind::Child, 11, Some("linux/amd64")));
    list.edges.push(edge(EdgeKind::Child, 12, Some("linux/arm64/v8")));
    let mut signature = index(13, &[("signature", 10)]);
    signature.edges.push(edge(EdgeKind::Subject, 10, None));
    let mut chart = index(14, &[("chart", 10)]);
    let depends = EdgeKind::Depends { reference: "team/image:v1".into(), hard: true };
    chart.edges.push(edge(depends, 10, None));
    mesh.publish("team/image", &index(11, &[("amd64", 10)]), &[]);
    mesh.publish("team/image", &index(12, &[("arm64", 10)]), &[]);
    mesh.publish("team/image", &list, &["v1"]);
    mesh.publish("team/image", &signature, &[]);
    mesh.publish("charts/app", &chart, &["1.0.0"]);
    let charts = || vec!["charts/*".parse().expect("a glob")];
    let platforms = || vec!["linux/arm64".to_owned()];
    mesh.apply(
        "charts",
        Some(Policy {
            repositories: charts(),
            places: at_sites(&["shop"]),
            platforms: platforms(),
            ..policy()
        }),
    );
    let bare = Policy { repositories: charts(), places: at_sites(&["lab"]), ..policy() };
    mesh.apply("bare", Some(Policy { referrers: false, depends: false, ..bare }));
    mesh.pass(20_000);
    let held = |n: u8| (10..=14).filter(|part| mesh.holders(digest(*part)).contains(&n)).collect::<Vec<u8>>();
    assert_eq!(held(2), [10, 12, 13, 14]);
    assert_eq!(held(3), [14]);
    let wanted = |n: u8| mesh.nodes[&2].replica.policy_held(&repository("team/image"), &digest(n));
    assert_eq!((wanted(12), wanted(11)), (Some(true), Some(false)));
}

#[test]
fn a_pull_brings_what_it_depends_on_too() {
    let mut mesh = Mesh::of(&["hub", "shop"]);
    let mut chart = index(14, &[("chart", 10)]);
    let depends = EdgeKind::Depends { reference: "team/image:v1".into(), hard: false };
    chart.edges.push(edge(depends, 11, None));
    mesh.publish("team/image", &index(11, &[("image", 10)]), &["v1"]);
    mesh.publish("charts/app", &chart, &["1.0.0"]);
    mesh.pass(1_000);
    mesh.node(2).want_artifact(1, &repository("charts/app"), digest(14), true);
    mesh.pass(20_000);
    assert_eq!(mesh.holders(digest(11)), [1, 2]);
    assert_eq!(mesh.nodes[&2].replica.policy_held(&repository("team/image"), &digest(11)), Some(false));
}

#[test]
fn hours_are_kept_and_a_clock_that_was_never_set_opens_none() {
    let mut mesh = Mesh::of(&["hub", "shop"]);
    mesh.publish(APP, &index(9, &[("a", 10)]), &["v1"]);
    // The clock of the tests shows 08:00 on a Friday.
    let windows = vec![Window { days: 0x7f, from: 9 * 60, to: 10 * 60 }];
    mesh.apply("base", Some(Policy { windows, places: at_sites(&["shop"]), ..policy() }));
    mesh.pass(10_000);
    assert_eq!(mesh.holders(digest(9)), [1]);
    mesh.node(2).wall = Wall(3600 * 9 + 60);
    mesh.pass(10_000);
    assert_eq!(mesh.holders(digest(9)), [1], "nine o'clock in 1970");
    mesh.node(2).wall = Wall(harness::WALL.0 + 3600);
    mesh.pass(10_000);
    assert_eq!(mesh.holders(digest(9)), [1, 2]);
}

#[test]
fn a_metered_uplink_is_spared_and_a_neighbours_copy_is_not() {
    let metered = |site: &str| ReplicaConfig { site: site.into(), metered: true, ..ReplicaConfig::default() };
    let hub = ReplicaConfig { site: "hub".into(), ..ReplicaConfig::default() };
    let mut mesh = Mesh::configured(vec![hub, metered("shop"), metered("shop")]);
    mesh.publish(APP, &index(9, &[("a", 10)]), &["v1"]);
    let places = at_sites(&["shop"]);
    mesh.apply("base", Some(Policy { places, metered: false, copies_per_site: None, ..policy() }));
    mesh.pass(10_000);
    assert_eq!(mesh.holders(digest(9)), [1]);
    let now = Now { time: Time(mesh.nodes[&2].now), wall: harness::WALL };
    let coverage = mesh.nodes[&2].replica.coverage(now, None);
    assert_eq!((coverage.rows[0].wanted, coverage.rows[0].missing), (2, 2));
    assert!(coverage.rows[0].why.contains("metered"), "{coverage:?}");
    mesh.node(2).want_artifact(1, &repository(APP), digest(9), true);
    mesh.pass(10_000);
    assert_eq!(mesh.holders(digest(9)), [1, 2, 3], "from its neighbour");
}

#[test]
fn a_node_that_starts_again_brings_on_what_policies_want() {
    let mut mesh = Mesh::of(&["hub", "shop"]);
    mesh.apply("base", Some(Policy { places: at_sites(&["shop"]), ..policy() }));
    mesh.pass(5_000);
    let records: Vec<_> = mesh.nodes[&2].disk.values().cloned().collect();
    let config = ReplicaConfig { site: "shop".into(), ..ReplicaConfig::default() };
    let again = Node::configured(2, config, records, vec![]);
    mesh.nodes.insert(2, again);
    assert_eq!(mesh.nodes[&2].replica.policy_held(&repository(APP), &digest(9)), None, "not looked at yet");
    mesh.node(2).tell(Input::PeerUp { peer: node(1), dialled: None });
    mesh.publish(APP, &index(9, &[("a", 10)]), &["v1"]);
    mesh.pass(10_000);
    assert_eq!(mesh.holders(digest(9)), [1, 2]);
}

// ---- placement, as a function ----

#[derive(Clone, Debug)]
struct World {
    nodes: BTreeMap<NodeId, NodeBody>,
    copies: Copies,
    away: Silence,
    policy: Policy,
    artifact: Digest,
}

fn worlds() -> impl Strategy<Value = World> {
    let node = (any::<[u8; 32]>(), 0..5u8, 0..6u8, 0..8u8);
    let nodes = proptest::collection::vec(node, 1..40);
    let counts = (proptest::option::of(1..4u16), proptest::option::of(1..9u16));
    (nodes, counts, any::<[u8; 32]>()).prop_map(|(all, (copies_per_site, copies), artifact)| {
        let mut nodes = BTreeMap::new();
        let (mut held, mut away) = (Copies::default(), Silence::default());
        for (id, site, state, silent) in all {
            let (id, site) = (NodeId(id), format!("site-{site}"));
            let state = [HoldingState::Complete, HoldingState::Partial].get(usize::from(state)).copied();
            held.holders.extend(state.map(|state| (id, state)));
            if state == Some(HoldingState::Complete) {
                held.sites.insert(site.clone(), 1);
            }
            if silent == 0 {
                away.nodes.insert(id, Span::secs(1000));
            }
            let body = NodeBody {
                site,
                tier: Tier::Edge,
                addresses: vec![],
                software: String::new(),
                region: String::new(),
                labels: BTreeMap::new(),
            };
            nodes.insert(id, body);
        }
        // Of what a policy counts, all that a policy brought is told.
        held.told = held.holders.clone();
        let policy = Policy { copies_per_site, copies, ..policy() };
        World { nodes, copies: held, away, policy, artifact: Digest::Sha256(artifact) }
    })
}

impl World {
    fn shares(&self, fleet: &Fleet) -> BTreeMap<String, usize> {
        let shares = placement::shares(&self.policy, fleet, &self.artifact, &self.copies, &self.away);
        shares.into_iter().map(|(site, share)| (site.to_owned(), share)).collect()
    }

    fn chosen(&self, fleet: &Fleet) -> BTreeSet<NodeId> {
        let of_site = |(site, share): (String, usize)| {
            placement::chosen(&self.policy, fleet, &site, share, &self.artifact, &self.copies, &self.away)
        };
        self.shares(fleet).into_iter().flat_map(of_site).collect()
    }
}

proptest! {
    #[test]
    fn copies_stay_within_their_bounds(world in worlds()) {
        let fleet = Fleet::of(&Places::default(), world.nodes.iter());
        let shares = world.shares(&fleet);
        for (site, share) in &shares {
            let most = world.policy.copies_per_site.map_or(usize::MAX, usize::from);
            prop_assert!(*share <= most.min(fleet.nodes(site).len()));
            let alone =
                placement::share(&world.policy, &fleet, site, &world.artifact, &world.copies, &world.away);
            prop_assert_eq!(alone, *share);
        }
        let total: usize = shares.values().sum();
        prop_assert!(total <= world.policy.copies.map_or(usize::MAX, usize::from));
        let chosen = world.chosen(&fleet);
        prop_assert!(chosen.len() <= total);
        prop_assert!(chosen.iter().all(|node| !world.away.nodes.contains_key(node)));
    }

    #[test]
    fn whoever_knows_the_same_chooses_the_same(world in worlds()) {
        let forth = Fleet::of(&Places::default(), world.nodes.iter());
        let back = Fleet::of(&Places::default(), world.nodes.iter().rev());
        prop_assert_eq!(world.chosen(&forth), world.chosen(&back));
    }

    /// Once those chosen have it, the same are chosen, whoever else comes or starts to get it.
    #[test]
    fn what_is_met_stays_as_it_is(world in worlds(), newcomer in any::<[u8; 32]>()) {
        let fleet = Fleet::of(&Places::default(), world.nodes.iter());
        let chosen = world.chosen(&fleet);
        let mut later = world.clone();
        later.copies.holders.retain(|_, state| *state == HoldingState::Complete);
        for node in &chosen {
            later.copies.holders.insert(*node, HoldingState::Complete);
            later.copies.sites.insert(later.nodes[node].site.clone(), 1);
        }
        later.copies.told = later.copies.holders.clone();
        let (_, body) = world.nodes.first_key_value().expect("a node");
        // A site that has fewer nodes than it is to have copies has room for more.
        let full = |most: u16| fleet.nodes(&body.site).len() >= usize::from(most);
        if world.policy.copies_per_site.is_some_and(full) {
            later.nodes.insert(NodeId(newcomer), body.clone());
        }
        let fleet = Fleet::of(&Places::default(), later.nodes.iter());
        let again = later.chosen(&fleet);
        let holds = |node: &NodeId| later.copies.holders.get(node) == Some(&HoldingState::Complete);
        // Where nodes are away, others may be able to do what they could not.
        if later.away.nodes.is_empty() {
            prop_assert!(again.iter().all(holds), "{:?} of {:?}", again, later.copies.holders);
        }
    }
}
