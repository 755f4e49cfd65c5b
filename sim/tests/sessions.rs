//! Sessions that nobody uses end by and by, and what is left holds the mesh together.

use std::collections::BTreeSet;

use waystation_proto::ReplicaConfig;
use waystation_sim::{Options, World, check::liveness};

const MINUTE: u64 = 60_000;

/// Sessions between sites that each site pays for.
fn outside(world: &World, sites: usize) -> Vec<usize> {
    let mut counts = vec![0; sites];
    for host in &world.hosts {
        let far = host.peers.who().iter().filter(|peer| *peer % sites != host.number % sites);
        counts[host.number % sites] += far.count();
    }
    counts
}

#[test]
fn what_an_idle_site_pays_for_does_not_grow_with_its_nodes() {
    let (sites, far) = (6, ReplicaConfig::default().far_sessions);
    for nodes in [12, 30] {
        let mut world = World::new(Options { sites, ..Options::calm(5, nodes) });
        world.run_until(30 * MINUTE);
        let counts = outside(&world, sites);
        // The nodes at which all others join take part in more, until nobody needs them.
        assert!(counts.iter().all(|count| *count <= 2 * far), "{nodes} nodes: {counts:?}");
        assert!(counts.iter().sum::<usize>() <= sites * (far + 1), "{nodes} nodes: {counts:?}");
        assert_eq!(liveness::connected(&world.hosts), Ok(()));
        assert_eq!(world.converged(), Ok(()));
        let near = ReplicaConfig::default().site_whole;
        assert!(world.hosts.iter().all(|host| host.peers.len() <= near + 2 * far));
        // Nothing is dialled again that was just ended: a day of it would cost more than it saves.
        let before = world.connections();
        world.run_until(90 * MINUTE);
        let opened = world.connections() - before;
        assert!(opened <= nodes as u64, "{opened} sessions opened in an idle hour");
    }
}

#[test]
fn all_nodes_of_a_small_site_have_sessions_with_one_another() {
    let mut world = World::new(Options::calm(5, 20));
    world.run_until(2 * MINUTE);
    assert!(world.hosts.iter().all(|host| host.peers.len() == 19));
}

#[test]
fn a_hub_that_everybody_joins_at_is_left_by_those_who_can_do_without() {
    let mut world = World::new(Options { sites: 40, ..Options::calm(6, 40) });
    world.run_until(MINUTE);
    let sessions = |world: &World| world.hosts[0].peers.len();
    let before = sessions(&world);
    world.run_until(40 * MINUTE);
    assert!(before > 30 && sessions(&world) < before / 2, "from {before} to {}", sessions(&world));
    assert_eq!(liveness::connected(&world.hosts), Ok(()));
    let few = world.hosts.iter().filter(|host| host.peers.len() < 4).count();
    assert_eq!(few, 0, "everybody has several ways");
}

#[test]
fn others_take_over_when_the_nodes_with_sessions_outside_stop() {
    let sites = 3;
    let mut world = World::new(Options { sites, ..Options::calm(7, 15) });
    world.run_until(30 * MINUTE);
    let is_gateway = |world: &World, host: usize| {
        host % sites == 1 && world.hosts[host].peers.who().iter().any(|peer| peer % sites != 1)
    };
    let gateways: BTreeSet<usize> = (0..15).filter(|host| is_gateway(&world, *host)).collect();
    assert!(!gateways.is_empty() && gateways.len() < 5, "{gateways:?}");
    for host in &gateways {
        world.stop_for(*host, 60 * MINUTE);
    }
    world.run_until(world.now() + 5 * MINUTE);
    let others = (0..15).filter(|host| !gateways.contains(host) && is_gateway(&world, *host)).count();
    assert!(others > 0, "the site is cut off without those of {gateways:?}");
    assert_eq!(liveness::connected(&world.hosts), Ok(()));
}
