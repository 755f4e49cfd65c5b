//! Measures the real binary on this machine and prints a table. Every number that depends on the machine
//! stands beside a reference taken in the same run. `--quick` uses small sizes, to see that it works.
#![allow(clippy::unwrap_used, reason = "a failing measurement may panic")]

#[path = "../harness/mod.rs"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod harness;

mod bare;
mod idle;
mod push;
mod replicate;
mod start;
mod table;
mod tags;

use table::Row;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// Bytes of the large blob.
    blob: usize,
    /// Tags published.
    tags: usize,
    /// Blobs held when a node is started again.
    held: usize,
    /// The best of so many runs counts.
    runs: usize,
}

type Measurement = fn(Sizes) -> Vec<Row>;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Cargo adds `--bench`; anything else that is no flag chooses a measurement.
    let chosen: Vec<_> = arguments.iter().filter(|a| !a.starts_with("--")).collect();
    let sizes = if arguments.iter().any(|a| a == "--quick") {
        Sizes { blob: 64 << 20, tags: 20, held: 1000, runs: 1 }
    } else {
        Sizes { blob: 1 << 30, tags: 200, held: 10_000, runs: 3 }
    };
    println!("{sizes:?}\n");
    let measurements: [(&str, Measurement); 5] = [
        ("replicate", replicate::measure),
        ("push", push::measure),
        ("tags", tags::measure),
        ("idle", idle::measure),
        ("start", start::measure),
    ];
    table::print_head();
    for (name, measure) in measurements {
        if chosen.is_empty() || chosen.iter().any(|c| *c == name) {
            measure(sizes).iter().for_each(table::print);
        }
    }
}
