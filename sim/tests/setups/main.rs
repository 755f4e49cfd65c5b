//! Setups are carried out: everybody gets everything, within the bounds of physics, and the same in every process.

mod faults;
mod upstream;

use std::{path::Path, process::Command};

use waystation_sim::{
    World,
    measure::{Measurement, RunId},
    setup::{Action, Artifact, Layer, MILLISECOND, Nanos, Network, SECOND, Setup, Start},
    world::{How, Summary},
};
use waystation_topology::{Place, Topology};

const MIB: u64 = 1 << 20;

fn topology(text: &str) -> Topology {
    Topology::parse(Path::new("test.toml"), text).expect("a topology")
}

/// A cloud with one node, and sites with some nodes each behind lines of this rate.
fn sites(count: usize, nodes: usize, rate: &str) -> Topology {
    topology(&format!(
        r#"
[[site]]
name = "cloud"
tier = "cloud"
origin = true
nodes = 1
lan = {{ rate = "1 Gbit/s" }}
uplink = {{ up = "1 Gbit/s", down = "1 Gbit/s", delay = "5 ms" }}

[[site]]
name = "site"
tier = "edge"
count = {count}
nodes = {nodes}
lan = {{ rate = "1 Gbit/s" }}
uplink = {{ up = "{rate}", down = "{rate}", delay = "10 ms" }}
"#
    ))
}

fn setup(topology: Topology, bytes: u64, end: Nanos) -> Setup {
    let layer = |name: &str| Layer { content: name.into(), bytes: bytes / 2 };
    let artifact = Artifact {
        repository: "team/app".into(),
        tags: vec!["v1".into()],
        layers: vec![layer("one"), layer("two")],
    };
    Setup {
        name: "test".into(),
        seed: 1,
        topology,
        network: Network::default(),
        artifacts: vec![artifact],
        upstream: None,
        start: Start::Warm,
        actions: Vec::new(),
        end,
        bucket: 10 * SECOND,
    }
}

/// The cloud has it from the start, and all others ask at the same moment.
fn everybody_pulls(setup: &mut Setup) {
    let origin = Place { site: setup.topology.origin(), node: 0 };
    setup.actions.push((0, Action::Seed { artifact: 0, at: origin }));
    let others = setup.topology.places().filter(|place| *place != origin);
    setup.actions.extend(others.map(|at| (SECOND, Action::Pull { artifact: 0, at })));
}

fn carry_out(setup: &Setup) -> (Summary, Vec<Measurement>) {
    let run = RunId { system: "waystation".into(), seed: setup.seed, variant: String::new() };
    let how = How { thorough: true, ..How::plain(run) };
    let mut measured: Vec<Measurement> = Vec::new();
    let summary = World::carry_out(setup, &how, &mut measured, &mut |_, _| ());
    let broken: Vec<&Measurement> =
        measured.iter().filter(|measurement| matches!(measurement, Measurement::Violation { .. })).collect();
    assert!(broken.is_empty(), "{broken:?}");
    assert_eq!(waystation_sim::check::physics::possible(setup, &measured), Ok(()));
    (summary, measured)
}

/// How long each pull took.
fn took(measured: &[Measurement]) -> Vec<f64> {
    let pulls = measured.iter().filter_map(|measurement| match measurement {
        Measurement::Pull { asked, done: Some(done), .. } => Some(done - asked),
        _ => None,
    });
    pulls.collect()
}

/// Bytes of blobs into a site.
fn into(measured: &[Measurement], site: u64) -> u64 {
    let lines = measured.iter().filter_map(|measurement| match measurement {
        Measurement::Line { site: of, down, .. } if *of == site => Some(*down),
        _ => None,
    });
    lines.sum()
}

fn bound(measured: &[Measurement]) -> f64 {
    let bounds = measured.iter().filter_map(|measurement| match measurement {
        Measurement::Bound { seconds, .. } => Some(*seconds),
        _ => None,
    });
    bounds.fold(0.0, f64::max)
}

#[test]
fn a_site_behind_a_thin_line_gets_one_copy_and_no_sooner_than_it_can() {
    let mut setup = setup(sites(1, 8, "50 Mbit/s"), 20 * MIB, 120 * SECOND);
    everybody_pulls(&mut setup);
    let (summary, measured) = carry_out(&setup);
    assert_eq!((summary.asked, summary.done), (8, 8));
    let (least, took) = (bound(&measured), took(&measured));
    assert!(least > 3.0 && took.iter().all(|took| *took >= least), "{took:?} against {least}");
    assert!(took.iter().all(|took| *took < 1.3 * least), "{took:?} against {least}");
    let copies = into(&measured, 1) as f64 / (20 * MIB) as f64;
    assert!((1.0..=1.1).contains(&copies), "{copies} copies over the line");
}

#[test]
fn sites_get_about_one_copy_each() {
    let mut setup = setup(sites(4, 3, "50 Mbit/s"), 20 * MIB, 120 * SECOND);
    everybody_pulls(&mut setup);
    let (summary, measured) = carry_out(&setup);
    assert_eq!((summary.asked, summary.done), (12, 12));
    for site in 1..=4 {
        let copies = into(&measured, site) as f64 / (20 * MIB) as f64;
        assert!((1.0..=1.15).contains(&copies), "{copies} copies into site {site}");
    }
    let least = bound(&measured);
    assert!(took(&measured).iter().all(|took| *took >= least));
}

#[test]
fn who_crashes_while_fetching_goes_on_when_it_is_back() {
    let mut setup = setup(sites(1, 3, "50 Mbit/s"), 20 * MIB, 180 * SECOND);
    everybody_pulls(&mut setup);
    let at = Place { site: 1, node: 1 };
    let crash = Action::Crash { at, down: Some(10 * SECOND), loses_disk: false, silent: true };
    setup.actions.push((3 * SECOND, crash));
    let (summary, measured) = carry_out(&setup);
    assert_eq!((summary.asked, summary.done), (3, 3));
    assert!(took(&measured).iter().any(|took| *took > 9.0), "one had to wait");
}

/// Sessions lead to a few sites of many, and none of those has it: its holder has to be dialled, 150 ms away.
#[test]
fn nobody_is_refused_while_the_only_holder_is_dialled() {
    let mut topology = sites(40, 1, "20 Mbit/s");
    topology.sites.iter_mut().for_each(|site| site.uplink.delay = "75 ms".parse().expect("a delay"));
    let mut setup = setup(topology, MIB, 60 * SECOND);
    setup.actions.push((0, Action::Seed { artifact: 0, at: Place { site: 7, node: 0 } }));
    for site in (10..40).step_by(3) {
        let at = Place { site, node: 0 };
        setup.actions.push((site as u64 * SECOND, Action::Pull { artifact: 0, at }));
    }
    let (summary, _) = carry_out(&setup);
    assert_eq!((summary.asked, summary.done, summary.refused), (10, 10, 0));
}

#[test]
fn a_partition_stops_a_site_until_it_ends() {
    let mut setup = setup(sites(2, 2, "50 Mbit/s"), 20 * MIB, 300 * SECOND);
    everybody_pulls(&mut setup);
    let partition = Action::Partition { sites: vec![1], both: true, lasts: 60 * SECOND };
    setup.actions.push((2 * SECOND, partition));
    let (summary, measured) = carry_out(&setup);
    assert_eq!((summary.asked, summary.done), (4, 4));
    for measurement in &measured {
        if let Measurement::Pull { site, done: Some(done), .. } = measurement {
            assert_eq!(*site == 1, *done > 60.0, "{measurement:?}");
        }
    }
}

#[test]
fn a_publication_reaches_everybody_who_can_be_reached() {
    let mut setup = setup(sites(3, 4, "50 Mbit/s"), MIB, 60 * SECOND);
    let at = Place { site: 0, node: 0 };
    setup.network.jitter = 2 * MILLISECOND;
    setup.actions.push((SECOND, Action::Publish { artifact: 0, at }));
    let away = Action::Crash { at: Place { site: 2, node: 0 }, down: None, loses_disk: false, silent: false };
    setup.actions.insert(0, (0, away));
    let (_, measured) = carry_out(&setup);
    let spread = measured.iter().find_map(|measurement| match measurement {
        Measurement::Spread { half, all, missed, .. } => Some((*half, *all, *missed)),
        _ => None,
    });
    let (half, all, missed) = spread.expect("it is measured");
    assert_eq!(missed, 0);
    assert!(half.is_some_and(|half| half < 0.5) && all.is_some_and(|all| all < 2.0), "{half:?} {all:?}");
    let counts = |name: &str| {
        measured.iter().any(|measurement| {
            matches!(measurement, Measurement::Control { message, bytes, .. } if message == name && *bytes > 0)
        })
    };
    assert!(counts("gossip") && counts("reconcile"));
}

#[test]
fn a_cold_start_comes_to_the_same() {
    let mut setup = setup(sites(1, 4, "50 Mbit/s"), 2 * MIB, 120 * SECOND);
    everybody_pulls(&mut setup);
    let run = RunId { system: "waystation".into(), seed: 1, variant: String::new() };
    setup.start = Start::Cold;
    let how = How::plain(run);
    let mut measured: Vec<Measurement> = Vec::new();
    let summary = World::carry_out(&setup, &how, &mut measured, &mut |_, _| ());
    assert_eq!((summary.asked, summary.done), (4, 4));
}

fn one_history() -> Setup {
    let mut setup = setup(sites(2, 3, "20 Mbit/s"), 4 * MIB, 60 * SECOND);
    everybody_pulls(&mut setup);
    setup
}

#[test]
fn a_setup_is_one_history() {
    let mut setup = one_history();
    let ((one, first), (other, second)) = (carry_out(&setup), carry_out(&setup));
    assert_eq!((one.trace.clone(), first), (other.trace, second));
    setup.seed = 2;
    assert_ne!(carry_out(&setup).0.trace, one.trace);
}

#[test]
fn its_history_is_printed() {
    println!("trace {}", carry_out(&one_history()).0.trace);
}

#[test]
fn another_process_has_the_same_history() {
    let myself = std::env::current_exe().expect("this test's file");
    let output = Command::new(myself)
        .args(["--exact", "its_history_is_printed", "--nocapture"])
        .output()
        .expect("it runs again");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = format!("trace {}", carry_out(&one_history()).0.trace);
    assert!(text.contains(&expected), "{expected} is not in: {text}");
}
