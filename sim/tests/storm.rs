//! A fleet that comes back at once, as after a power cut, costs what it has missed.

use ed25519_dalek::SigningKey;
use waystation_proto::Shared;
use waystation_sim::{Options, World, rogue::unknown};

const NODES: usize = 101;

/// What came of it.
struct Cost {
    bytes: u64,
    /// Bytes of the records that were missed.
    missed: u64,
    /// Most bytes within one second.
    peak: u64,
    sessions: u64,
}

/// Of all members but one the power goes and comes back at the same moment. Everybody knew `common` records,
/// the one that stayed up has learned `different` since.
fn return_of_all(common: u64, different: u64) -> Cost {
    let options = Options { sites: 20, ..Options::calm(21, NODES) };
    let mesh = World::new(Options { nodes: 2, ..options.clone() }).trust().mesh;
    let record = |n: u64| unknown(&mesh, &SigningKey::from_bytes(&[n as u8 % 16; 32]), n);
    let records: Vec<Shared> = (0..common).map(record).collect();
    let mut world = World::with(options, false, &records);
    world.run_until(20_000);
    assert_eq!(world.converged(), Ok(()));
    for host in 1..NODES {
        world.stop_for(host, 40_000);
    }
    for n in 0..different {
        world.teach(0, record(common + n));
    }
    world.run_until(59_000);
    let total = |world: &World| {
        let traffic = world.network.traffic();
        traffic.direct_bytes + traffic.gossip_bytes
    };
    let (before, sessions) = (total(&world), world.connections());
    let (mut last, mut peak) = (before, 0);
    for second in 60..180 {
        world.run_until(second * 1_000);
        peak = peak.max(total(&world) - last);
        last = total(&world);
        if second > 62 && world.converged().is_ok() {
            break;
        }
    }
    assert_eq!(world.converged(), Ok(()));
    assert_eq!(world.report(None).violations, []);
    let missed = (common..common + different).map(|n| record(n).encode().len() as u64).sum();
    Cost { bytes: total(&world) - before, missed, peak, sessions: world.connections() - sessions }
}

#[test]
fn a_hundred_nodes_that_come_back_at_once_cost_what_they_missed() {
    let (few, large) = (return_of_all(100, 10), return_of_all(400, 10));
    assert!(large.bytes < 2 * few.bytes, "4 times the catalog made {} bytes {}", few.bytes, large.bytes);
    let many = return_of_all(100, 100);
    // Each compares with several members at a time; one of them sends what it lacks.
    for cost in [&few, &large, &many] {
        let most = NODES as u64 * (2 * cost.missed + 50_000);
        assert!(cost.bytes < most, "{} bytes for {} that were missed", cost.bytes, cost.missed);
    }
    // Each node keeps a handful of sessions, and opens hardly more than those.
    assert!(few.sessions < NODES as u64 * 12, "{} sessions", few.sessions);
    let share = few.peak / NODES as u64;
    assert!(share < 40_000, "{share} bytes a node within one second");
}
