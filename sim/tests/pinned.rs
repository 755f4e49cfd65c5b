//! Runs that once broke a promise, each with what it found: they never do again. Bugs of the simulator are here too,
//! since a simulator that is wrong hides bugs of the product.

use waystation_sim::{Case, Options, World};

/// (seed, nodes, minutes, what it found)
const PINNED: &[(u64, usize, u64, &str)] =
    &[(1, 3, 5, "copies that free nothing were promised again and again; a blob just pushed was deleted")];

#[test]
fn what_was_found_once_stays_mended() {
    for (seed, nodes, minutes, found) in PINNED {
        let case = Case::of(Options::harsh(*seed, *nodes, *minutes));
        let report = World::of(&case, None, &[]).run();
        assert!(report.violations.is_empty(), "seed {seed} found that {found}, and again:\n{report}");
    }
}
