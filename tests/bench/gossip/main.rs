//! Fits the simulator's gossip to real nodes: gossipsub as the node sets it up, many times in this process, over
//! libp2p's memory transport with delays. Prints what was measured beside what the model makes of the same
//! graphs. `--table` shows the committed fit without measuring. `--write` puts it into `sim/fit/gossip.toml`; `--quick` takes small graphs and few messages.
//!
//! Streams are reliable: a lost packet is a delay, so nothing is lost here. What breaks is sessions.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing measurement may panic")]

mod fitting;
mod line;
mod log;
mod nodes;
mod table;
mod tap;

use std::{fs, path::Path};

use waystation_sim::gossipsub::{
    fit::{Batch, Case, Fit, histogram},
    graph::Shape,
};

use crate::fitting::Sample;

/// Bytes of messages: a tag moves, a few records, half a batch, the largest batch but for its head.
const PAYLOADS: [u64; 4] = [200, 2_000, 20_000, 50_000];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--table") {
        return table::print(&Fit::committed().unwrap());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (mut cases, mut samples) = (cases(has("--quick")), Vec::new());
    for (number, case) in cases.iter_mut().enumerate() {
        eprintln!("{}: {} nodes", case.name, case.shape.sites * case.shape.nodes);
        let schedule = case.schedule(&PAYLOADS);
        let observed = runtime.block_on(nodes::observe(&schedule, 1_000_000 * (number as u64 + 1)));
        case.mesh = histogram(&observed.mesh);
        let (from, until) = schedule.idle;
        let idle = observed.trace.wire.iter().filter(|(at, _)| (from..until).contains(at));
        let idle: u64 = idle.map(|(_, bytes)| bytes).sum();
        case.idle = idle as f64 / schedule.graph.nodes as f64 / ((until - from) as f64 / 1e9);
        // What was published is on time, within what this process is late.
        let figures = |(from, until, payload): &(u64, u64, u64)| Batch {
            payload: *payload,
            measured: observed.trace.figures(*from, *until),
        };
        case.batch = schedule.batches.iter().map(figures).collect();
        samples.push(Sample { schedule, observed });
    }
    let mut fit = Fit { params: fitting::params(&samples), case: cases };
    // A mesh of nearly all sessions is hardly ever pruned. What that costs does not depend on its size, and was measured
    // with smaller ones.
    if fit.params.wire.prune == 0 {
        fit.params.wire.prune = Fit::committed().unwrap().params.wire.prune;
    }
    table::print(&fit);
    if has("--write") {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sim/fit/gossip.toml");
        fs::write(&path, format!("{HEAD}\n{}", toml::to_string(&fit).unwrap())).unwrap();
        eprintln!("written to {}", path.display());
    }
}

/// Delays are long, so that what counts is in which order messages arrive, and not how busy this machine is.
fn cases(quick: bool) -> Vec<Case> {
    let case = |name: &str, sites, nodes, near_ms, cut_permille, seed| Case {
        name: name.into(),
        shape: Shape { sites, nodes, near: 16, far: 8, near_ms, far_ms: [100, 400], seed },
        cut_permille,
        messages: if quick { 3 } else { 8 },
        mesh: Vec::new(),
        idle: 0.0,
        batch: Vec::new(),
    };
    if quick {
        return vec![
            case("one small site", 1, 16, [40, 120], 0, 1),
            case("small sites", 4, 4, [40, 120], 0, 3),
        ];
    }
    vec![
        case("one small site", 1, 16, [40, 120], 0, 1),
        case("one large site", 1, 60, [40, 120], 0, 2),
        case("eight sites", 8, 8, [40, 120], 0, 3),
        case("many nodes, far apart", 1, 100, [100, 400], 0, 4),
        case("sessions end", 1, 60, [40, 120], 50, 5),
    ]
}

const HEAD: &str = "\
# How announcements spread among real nodes, and the parameters with which the simulator does the same. Written by
#   cargo bench -p waystation --bench gossip_fit -- --write
# which runs real gossipsub behaviours, set up as the node does it, in one process. `sim/fit/README.md` has the table.
# Nothing here is set by hand: `rules` are read from the node's configuration of gossipsub, the rest is measured.
";
