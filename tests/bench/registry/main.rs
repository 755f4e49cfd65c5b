//! Measures the registry endpoint beside others that serve or take the same bytes: nginx with sendfile, Debian's
//! docker-registry 2.8, Distribution 3. All on loopback, in turns, in one run; medians, and ratios to each peer.
//! `cargo bench -p waystation --bench registry -- [get] [manifests] [parallel] [push] [layers] [pull-through]
//! [--quick]`
#![allow(clippy::unwrap_used, reason = "a failing measurement may panic")]

#[path = "../../harness/mod.rs"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod harness;

mod get;
mod layers;
mod load;
mod manifests;
mod parallel;
mod peers;
mod pull_through;
mod push;
mod samples;

use std::{fs, time::Duration};

/// How much of everything.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// Bytes of the large blob.
    blob: usize,
    /// Times that everyone has its turn.
    rounds: usize,
    /// Length of a turn in asking for a manifest.
    turn: Duration,
    /// Blobs that are fetched at the same time.
    parallel: usize,
    /// Bytes of each of them.
    part: usize,
    /// Connections that are open beside them and say nothing.
    idle: usize,
    /// Layers of the image with many of them.
    layers: usize,
}

type Measurement = fn(Sizes);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Cargo adds `--bench`; anything else that is no flag chooses a measurement.
    let chosen: Vec<_> = arguments.iter().filter(|a| !a.starts_with("--")).collect();
    let sizes = if arguments.iter().any(|a| a == "--quick") { QUICK } else { FULL };
    println!("{sizes:?}\nload average {}", load_average());
    let sections: [(&str, Measurement); 6] = [
        ("get", get::measure),
        ("manifests", manifests::measure),
        ("parallel", parallel::measure),
        ("push", push::measure),
        ("layers", layers::measure),
        ("pull-through", pull_through::measure),
    ];
    for (name, measure) in sections {
        if chosen.is_empty() || chosen.iter().any(|c| *c == name) {
            println!("\n## {name}");
            measure(sizes);
            println!("load average {}", load_average());
        }
    }
}

/// The last minute's: others on the machine disturb.
fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}

const FULL: Sizes = Sizes {
    blob: 1 << 30,
    rounds: 5,
    turn: Duration::from_secs(3),
    parallel: 64,
    part: 64 << 20,
    idle: 1000,
    layers: 100,
};
const QUICK: Sizes = Sizes {
    blob: 64 << 20,
    rounds: 2,
    turn: Duration::from_millis(500),
    parallel: 16,
    part: 4 << 20,
    idle: 100,
    layers: 20,
};
