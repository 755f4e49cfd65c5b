//! Records of kinds that nobody knows yet are kept, compared and passed on, and nothing follows from them.

use waystation_proto::record::Kind;
use waystation_sim::{Options, World};

#[test]
fn a_record_of_a_made_up_kind_reaches_everybody_and_does_nothing() {
    let mut world = World::new(Options { sites: 3, ..Options::calm(11, 9) });
    world.run_until(20_000);
    let before = world.report(None);
    let record = world.plant(0).expect("host 0 has a neighbour");
    assert_eq!(record.key.kind, Kind(4242));
    let knows = |world: &World, host: usize| {
        world.hosts[host].replica().is_some_and(|replica| replica.catalog().get(&record.key) == Some(&record))
    };
    let healed = world.settle(world.options.patience_ms());
    assert!(healed.is_some(), "{}", world.report(None));
    for host in 0..9 {
        assert!(knows(&world, host), "host {host}");
        assert!(world.hosts[host].disk.records().contains(&record), "durable at host {host} too");
    }
    let after = world.report(None);
    assert_eq!((after.changes, after.records), (before.changes, before.records + 1), "nothing followed");
    assert_eq!(after.violations, []);
}

#[test]
fn it_survives_the_restart_of_those_who_do_not_know_it() {
    let mut world =
        World::new(Options { reconcile_ms: 5_000, far_reconcile_ms: 5_000, ..Options::calm(12, 4) });
    world.run_until(20_000);
    let record = world.plant(1).expect("host 1 has a neighbour");
    assert!(world.settle(60_000).is_some());
    for host in 0..4 {
        world.stop(host);
    }
    world.run_until(world.now() + 30_000);
    for host in &world.hosts {
        let known = host.replica().and_then(|replica| replica.catalog().get(&record.key));
        assert_eq!(known, Some(&record), "host {}", host.number);
    }
}
