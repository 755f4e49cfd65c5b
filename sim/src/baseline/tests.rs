//! Baselines against what can be computed by hand, and against the bound that nothing beats.

use proptest::prelude::*;
use waystation_topology::{Delay, Lan, Place, Rate, Site, Tier, Topology, Uplink};

use super::{Baseline, carry_out};
use crate::{
    measure::{Measurement, RunId},
    setup::{Action, Artifact, Layer, Nanos, Network, SECOND, Setup, Start},
};

const MB: u64 = 1_000_000;

/// (nodes, LAN, up, down) of each site in Mbit/s; the first one is the origin.
fn network(sites: &[(usize, u64, u64, u64)]) -> Topology {
    let rate = |mbits: u64| Rate::from_bits(mbits * 1_000_000);
    let site = |(number, (nodes, lan, up, down)): (usize, &(usize, u64, u64, u64))| Site {
        name: format!("s{number}"),
        tier: Tier::Edge,
        origin: number == 0,
        nodes: *nodes,
        lan: Lan { rate: rate(*lan), delay: Delay::default() },
        uplink: Uplink {
            up: rate(*up),
            down: rate(*down),
            delay: Delay::default(),
            loss: Default::default(),
        },
        disk: None,
    };
    Topology { sites: sites.iter().enumerate().map(site).collect() }
}

/// One image of these layers at the origin's first node, pulled by all others at once.
fn burst(topology: Topology, layers: &[u64]) -> Setup {
    let layer = |(number, bytes): (usize, &u64)| Layer { content: format!("l{number}"), bytes: *bytes };
    let artifact = Artifact {
        repository: "app".into(),
        tags: vec!["1".into()],
        layers: layers.iter().enumerate().map(layer).collect(),
    };
    let origin = Place { site: 0, node: 0 };
    let mut actions = vec![(0, Action::Seed { artifact: 0, at: origin })];
    let others = topology.places().filter(|place| *place != origin);
    actions.extend(others.map(|at| (0, Action::Pull { artifact: 0, at })));
    Setup {
        name: "burst".into(),
        seed: 1,
        topology,
        network: Network { efficiency: 1_000_000, ..Network::default() },
        artifacts: vec![artifact],
        upstream: None,
        start: Start::Warm,
        actions,
        end: 3_600 * SECOND,
        bucket: SECOND,
    }
}

fn measure(setup: &Setup, baseline: Baseline) -> Vec<Measurement> {
    let mut sink = vec![];
    let run = RunId { system: baseline.name().into(), seed: setup.seed, variant: String::new() };
    carry_out(setup, baseline, &run, "test", &mut sink, &mut |_, _| ());
    sink
}

/// From the first asking to the last end of all pulls, none of which may have failed.
#[track_caller]
fn took(measurements: &[Measurement]) -> f64 {
    let mut last: f64 = 0.0;
    for measurement in measurements {
        if let Measurement::Pull { done, .. } = measurement {
            last = last.max(done.expect("each pull ends"));
        }
    }
    last
}

fn origin_bytes(measurements: &[Measurement]) -> u64 {
    let bytes = |measurement: &Measurement| match measurement {
        Measurement::Origin { bytes, .. } => Some(*bytes),
        _ => None,
    };
    measurements.iter().find_map(bytes).unwrap()
}

fn bound(measurements: &[Measurement]) -> f64 {
    let seconds = |measurement: &Measurement| match measurement {
        Measurement::Bound { seconds, .. } => Some(*seconds),
        _ => None,
    };
    measurements.iter().find_map(seconds).unwrap_or(0.0)
}

/// Nothing is faster than its formula, and round trips and slow start take little on these networks.
#[track_caller]
fn close(found: f64, seconds: f64) {
    assert!(found >= seconds - 1e-6 && found <= seconds * 1.02, "{found} s and not {seconds} s");
}

#[test]
fn the_origin_sends_each_node_a_copy() {
    // N F / u = 8 x 25 MB / 12.5 MB/s = 16 s.
    let setup = burst(network(&[(1, 1000, 100, 100), (8, 1000, 1000, 1000)]), &[15 * MB, 10 * MB]);
    let found = measure(&setup, Baseline::Origin);
    close(took(&found), 16.0);
    assert_eq!(origin_bytes(&found), 8 * 25 * MB);
}

#[test]
fn a_cache_fetches_once_and_then_serves_its_site() {
    // F / line = 50 MB / 12.5 MB/s = 4 s, then 7 x 50 MB / 125 MB/s = 2.8 s from the cache's link.
    let setup = burst(network(&[(1, 1000, 1000, 1000), (8, 1000, 100, 100)]), &[50 * MB]);
    let found = measure(&setup, Baseline::SiteCache);
    close(took(&found), 6.8);
    assert_eq!(origin_bytes(&found), 50 * MB);
}

#[test]
fn nodes_go_to_the_origin_while_their_cache_is_down() {
    let mut setup = burst(network(&[(1, 1000, 1000, 1000), (3, 1000, 100, 100)]), &[50 * MB]);
    let cache = Place { site: 1, node: 0 };
    let crash = Action::Crash { at: cache, down: None, loses_disk: false, silent: false };
    setup.actions.push((2 * SECOND, crash));
    let found = measure(&setup, Baseline::SiteCache);
    let done = found.iter().filter(|it| matches!(it, Measurement::Pull { done: Some(_), .. })).count();
    assert_eq!(done, 2, "all but the cache itself");
    // Half a copy before, then two.
    assert!((124 * MB..=125 * MB).contains(&origin_bytes(&found)), "{}", origin_bytes(&found));
}

#[test]
fn whole_images_are_no_help_to_those_who_pull_at_once() {
    let setup = burst(network(&[(1, 1000, 100, 100), (8, 1000, 1000, 1000)]), &[15 * MB, 10 * MB]);
    let (peers, origin) = (measure(&setup, Baseline::WholeBlob), measure(&setup, Baseline::Origin));
    assert_eq!(took(&peers), took(&origin));
}

#[test]
fn who_pulls_later_finds_whole_images_at_peers() {
    let mut setup = burst(network(&[(1, 1000, 100, 100), (8, 1000, 1000, 1000)]), &[15 * MB, 10 * MB]);
    for (at, action) in &mut setup.actions {
        if let Action::Pull { at: Place { node, .. }, .. } = action {
            *at = *node as Nanos * 10 * SECOND;
        }
    }
    let found = measure(&setup, Baseline::WholeBlob);
    assert_eq!(origin_bytes(&found), 25 * MB);
    // The first one over the line, the last one over a link of 125 MB/s, with slow start.
    close(took(&found) - 70.0, 0.2);
}

#[test]
fn a_swarm_needs_few_copies_from_the_origin_and_comes_near_the_bound() {
    // 750 MB / 125 MB/s = 6 s for each link. With 179 pieces the first ones out of the one source and the endgame
    // count for more than with the thousands of a large image: up to twice the bound.
    let setup = burst(network(&[(41, 1000, 100, 100)]), &[750 * MB]);
    let found = measure(&setup, Baseline::Central);
    let (took, bound) = (took(&found), bound(&found));
    assert!((bound - 6.0).abs() < 1e-9 && took >= bound && took <= 2.0 * bound, "{took} s, bound {bound} s");
}

#[test]
fn a_swarm_waits_for_its_tracker() {
    // The origin is away when the pull begins, so that nobody tells the second node of the first.
    let topology = network(&[(1, 1000, 100, 100), (2, 1000, 100, 100)]);
    let mut setup = burst(topology, &[25 * MB]);
    let other = Place { site: 1, node: 1 };
    setup.actions.retain(|(_, action)| !matches!(action, Action::Pull { at, .. } if *at == other));
    setup.actions.push((10 * SECOND, Action::Partition { sites: vec![0], both: true, lasts: 20 * SECOND }));
    setup.actions.push((15 * SECOND, Action::Pull { artifact: 0, at: other }));
    let found = measure(&setup, Baseline::Central);
    assert!(took(&found) > 30.0, "{}", took(&found));
    let near =
        |measurement: &&Measurement| matches!(measurement, Measurement::Between { from: 1, to: 1, .. });
    assert!(found.iter().any(|measurement| near(&measurement)), "from its neighbour then");
}

#[test]
fn a_line_that_is_cut_holds_up_and_mends() {
    // 100 MB at 12.5 MB/s is 8 s; away from 4 s to 14 s, and up to a second until it is tried again.
    for what in [
        vec![
            (4, Action::Line { site: 1, up: 0, down: 0 }),
            (14, Action::Line { site: 1, up: 100 * MB, down: 100 * MB }),
        ],
        vec![(4, Action::Partition { sites: vec![1], both: false, lasts: 10 * SECOND })],
    ] {
        let mut setup = burst(network(&[(1, 1000, 1000, 1000), (1, 1000, 100, 100)]), &[100 * MB]);
        setup.actions.extend(what.into_iter().map(|(at, action)| (at * SECOND, action)));
        for baseline in [Baseline::Origin, Baseline::SiteCache, Baseline::WholeBlob] {
            let found = took(&measure(&setup, baseline));
            assert!((18.0..19.2).contains(&found), "{}: {found} s", baseline.name());
        }
        let found = took(&measure(&setup, Baseline::Central));
        assert!((18.0..22.0).contains(&found), "the tracker is asked every 3 s: {found} s");
    }
}

#[test]
fn lines_are_measured_in_buckets() {
    let setup = burst(network(&[(1, 1000, 1000, 1000), (1, 1000, 100, 100)]), &[50 * MB]);
    let found = measure(&setup, Baseline::Origin);
    let down = found.iter().filter_map(|measurement| match measurement {
        Measurement::Line { site: 1, from, down, up: 0, .. } => Some((*from, *down)),
        _ => None,
    });
    let down: Vec<_> = down.collect();
    assert_eq!(down.iter().map(|(_, bytes)| bytes).sum::<u64>(), 50 * MB);
    assert_eq!(down.len(), 5, "4 s and a little at the beginning: {down:?}");
    assert!((down[1].1.abs_diff(12_500_000)) < 10, "{down:?}");
}

/// Networks of some sites, images that may share a layer, and things that go wrong.
fn setups() -> impl Strategy<Value = Setup> {
    let site = (1..5_usize, 10..1000_u64, 1..200_u64, 1..200_u64);
    let fault = (0..60_u64, 0..4_usize, 0..4_usize, 0..20_u64, 0..4_u8);
    (
        prop::collection::vec(site, 1..4),
        prop::collection::vec(1..30 * MB, 1..4),
        prop::collection::vec(fault, 0..4),
        any::<u64>(),
        prop::option::of(1..100_u64),
    )
        .prop_map(|(sites, layers, faults, seed, disk)| {
            let mut setup = burst(network(&sites), &layers);
            setup.seed = seed;
            setup.network.disk_rate = disk.map(|rate| rate * MB);
            for (at, site, node, lasts, what) in faults {
                let site = site % sites.len();
                let (place, lasts) = (Place { site, node: node % sites[site].0 }, lasts * SECOND);
                let loses_disk = place != Place { site: 0, node: 0 };
                let action = match what {
                    0 => Action::Crash { at: place, down: Some(lasts), loses_disk, silent: false },
                    1 => Action::PowerCut { site, down: lasts },
                    2 => Action::Partition { sites: vec![site], both: true, lasts },
                    _ => Action::Line { site, up: lasts / 10, down: lasts / 20 + 1_000_000 },
                };
                setup.actions.push((at * SECOND, action));
            }
            setup.actions.sort_by_key(|(at, _)| *at);
            setup
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_beats_the_bound_and_one_seed_is_one_history(setup in setups()) {
        for baseline in Baseline::ALL {
            let found = measure(&setup, baseline);
            prop_assert_eq!(&found, &measure(&setup, baseline));
            let (mut last, mut all) = (0.0_f64, true);
            for measurement in &found {
                if let Measurement::Pull { done, first_byte, .. } = measurement {
                    all &= done.is_some();
                    last = last.max(done.unwrap_or(0.0));
                    prop_assert!(done.is_none() || first_byte <= done);
                }
            }
            prop_assert!(!all || last >= bound(&found) - 1e-6, "{}: {last} s", baseline.name());
        }
    }
}
