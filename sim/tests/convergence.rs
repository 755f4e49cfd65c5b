//! Whatever goes wrong, it comes right when it stops, and at a cost that grows with what is different.

use std::collections::BTreeSet;

use ed25519_dalek::SigningKey;
use waystation_proto::Shared;
use waystation_sim::{Options, World, network::Cut, rogue::unknown};

#[test]
fn every_promise_is_kept_under_every_fault() {
    for seed in 1..=24 {
        let nodes = 3 + seed as usize % 10;
        let options = Options {
            loss: 100,
            duplication: 100,
            reordering: 200,
            crash_every_ms: 40_000,
            cut_every_ms: 30_000,
            garbage_every_ms: 20_000,
            ..Options::from_seed(seed, nodes, 1)
        };
        let report = World::new(options.clone()).run();
        assert!(report.violations.is_empty(), "{options}\n{report}");
        assert!(report.healed_after.is_some() && report.tally.written > 0, "{options}\n{report}");
    }
}

#[test]
fn a_calm_mesh_of_many_nodes_knows_everything_soon() {
    let options = Options { sites: 3, ..Options::calm(9, 40) };
    let mut world = World::new(options);
    world.run_until(30_000);
    assert_eq!(world.converged(), Ok(()));
}

/// Bytes between members from the healing of a partition until both sides know the same, where both knew
/// `common` records and each side learned `different` while apart.
fn cost_of_healing(common: u64, different: u64) -> u64 {
    let options = Options { jitter_ms: 1, ..Options::calm(3, 4) };
    let mesh = World::new(options.clone()).trust().mesh;
    // Nobody may write very many.
    let record = |n: u64| unknown(&mesh, &SigningKey::from_bytes(&[n as u8 % 16; 32]), n);
    let records: Vec<Shared> = (0..common).map(record).collect();
    let mut world = World::with(options, false, &records);
    world.run_until(10_000);
    assert_eq!(world.converged(), Ok(()));
    let (left, right) = (BTreeSet::from([0, 1]), BTreeSet::from([2, 3]));
    let cut = world.network.cut(Cut { from: left, to: right, both: true });
    for n in 0..different {
        world.teach((n % 4) as usize, record(common + n));
    }
    world.run_until(100_000);
    assert!(world.converged().is_err(), "the sides are apart");
    let before = world.network.traffic().direct_bytes;
    world.network.mend(cut);
    let mut waited = 0;
    while world.converged().is_err() {
        waited += 100;
        assert!(waited < 120_000, "the sides do not come together");
        world.run_until(world.now() + 100);
    }
    assert_eq!(world.report(None).violations, []);
    world.network.traffic().direct_bytes - before
}

#[test]
fn healing_a_partition_costs_what_is_different_and_not_what_is_known() {
    let (small, large) = (cost_of_healing(300, 40), cost_of_healing(6_000, 40));
    assert!(large < 3 * small, "20 times the catalog made {small} bytes {large}");
    let (few, many) = (cost_of_healing(3_000, 20), cost_of_healing(3_000, 400));
    assert!(many > 3 * few && many < 40 * few, "20 times the difference made {few} bytes {many}");
}
