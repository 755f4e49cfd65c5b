//! A registry outside the mesh: nodes pull through it once for their site, and go on without it where they have what
//! is asked for.

use waystation_sim::{
    measure::Measurement,
    setup::{Action, Nanos, SECOND, Setup},
};
use waystation_topology::Place;

use crate::{MIB, carry_out, into, setup, took, topology};

const HUB: usize = 1;

/// A cloud that has nothing, a registry behind a line of 40 Mbit/s, and a site of three nodes.
fn through(actions: Vec<(Nanos, Action)>) -> Setup {
    let topology = topology(
        r#"
[[site]]
name = "cloud"
tier = "cloud"
origin = true
nodes = 1
lan = { rate = "1 Gbit/s" }
uplink = { up = "1 Gbit/s", down = "1 Gbit/s", delay = "5 ms" }

[[site]]
name = "hub"
tier = "cloud"
nodes = 1
lan = { rate = "1 Gbit/s" }
uplink = { up = "40 Mbit/s", down = "40 Mbit/s", delay = "20 ms" }

[[site]]
name = "shop"
tier = "edge"
nodes = 3
lan = { rate = "1 Gbit/s" }
uplink = { up = "50 Mbit/s", down = "50 Mbit/s", delay = "10 ms" }
"#,
    );
    let mut setup = setup(topology, 20 * MIB, 180 * SECOND);
    setup.upstream = Some(HUB);
    setup.actions.push((0, Action::Seed { artifact: 0, at: Place { site: HUB, node: 0 } }));
    setup.actions.extend(actions);
    setup
}

fn pull(time: Nanos, node: usize) -> (Nanos, Action) {
    (time, Action::Pull { artifact: 0, at: Place { site: 2, node } })
}

fn away(time: Nanos, lasts: Nanos) -> (Nanos, Action) {
    (time, Action::Partition { sites: vec![HUB], both: true, lasts })
}

/// Bytes out of the registry, of the content's.
fn copies(measured: &[Measurement]) -> f64 {
    let lines = measured.iter().filter_map(|measurement| match measurement {
        Measurement::Line { site, up, .. } if *site == HUB as u64 => Some(*up),
        _ => None,
    });
    lines.sum::<u64>() as f64 / (20 * MIB) as f64
}

#[test]
fn one_node_of_a_site_downloads_and_the_others_have_it_from_it() {
    let (summary, measured) = carry_out(&through(vec![pull(SECOND, 0), pull(30 * SECOND, 1)]));
    assert_eq!((summary.asked, summary.done), (2, 2));
    let took = took(&measured);
    // 20 MiB at 4.7 MB/s, and then over the LAN.
    assert!((4.4..6.0).contains(&took[0]) && took[1] < 2.0, "{took:?}");
    let copies = copies(&measured);
    assert!((1.0..1.02).contains(&copies), "{copies} copies");
    assert!(into(&measured, 0) == 0, "the cloud has no part in it");
}

#[test]
fn nodes_that_ask_at_once_agree_who_downloads() {
    let (summary, measured) = carry_out(&through((0..3).map(|node| pull(SECOND, node)).collect()));
    assert_eq!((summary.asked, summary.done), (3, 3));
    let copies = copies(&measured);
    assert!((1.0..1.1).contains(&copies), "{copies} copies");
}

#[test]
fn what_nobody_has_waits_until_the_upstream_is_back() {
    let (summary, measured) = carry_out(&through(vec![away(0, 60 * SECOND), pull(SECOND, 0)]));
    assert_eq!((summary.asked, summary.done), (1, 1));
    assert!(took(&measured)[0] > 59.0, "{:?}", took(&measured));
}

#[test]
fn what_a_neighbour_has_is_had_while_the_upstream_is_away() {
    let actions = vec![pull(SECOND, 0), away(20 * SECOND, 150 * SECOND), pull(30 * SECOND, 1)];
    let (summary, measured) = carry_out(&through(actions));
    assert_eq!((summary.asked, summary.done), (2, 2));
    assert!(took(&measured)[1] < 5.0, "{:?}", took(&measured));
}

#[test]
fn a_download_that_breaks_is_begun_again() {
    let actions = vec![pull(SECOND, 0), away(3 * SECOND, 30 * SECOND)];
    let (summary, measured) = carry_out(&through(actions));
    assert_eq!(summary.done, 1);
    let (took, copies) = (took(&measured)[0], copies(&measured));
    assert!(took > 31.0 && copies > 1.05, "{took} s, {copies} copies");
}
