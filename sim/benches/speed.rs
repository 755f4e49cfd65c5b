//! How fast the simulator is at what it is used for: a busy hour of 1,000 nodes, 10,000 nodes that spread news, a hundred
//! seeds of 200 nodes with faults, an hour of the fleet of `fleet-10k`. Each in a process of its own, on one core. Prints
//! a table; asserts nothing. `cargo bench -p waystation-sim --bench speed`, with `-- --quick` for a twelfth of it, with
//! the name of a part for that part alone.
#![allow(clippy::disallowed_methods, reason = "a benchmark looks at the clock, and at the kernel's counters")]

use std::{env, fs, path::Path, process::Command};

use waystation_sim::{
    Options, World,
    case::Case,
    measure::{Measurement, RunId},
    scenario::Scenario,
    setup::{Nanos, SECOND, Setup},
    system,
};

/// As the simulator's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Name, and the goal.
const PARTS: [(&str, &str); 4] = [
    ("busy-1k", "1,000 nodes, a busy hour: 10 s"),
    ("seeds", "100 seeds of 200 nodes with faults, 2 min each: 5 min"),
    ("gossip-10k", "10,000 nodes, 20 min: 5 min, 8 GiB"),
    ("fleet-10k", "10,000 nodes, the first hour of a day"),
];

const HOUR: Nanos = 3_600 * SECOND;
/// What is left of each in a quick run.
const QUICK: u64 = 12;

fn main() {
    let args: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with("--bench")).collect();
    let quick = args.iter().any(|arg| arg == "--quick");
    if let Some(part) = args.iter().find_map(|arg| arg.strip_prefix("--part=")) {
        measure(part, quick);
        return;
    }
    let chosen = |name: &str| args.iter().all(|arg| arg.starts_with("--") || name.contains(arg.as_str()));
    println!("part          seconds     events    events/s   peak MiB   what, and the goal for all of it");
    for (name, goal) in PARTS.into_iter().filter(|(name, _)| chosen(name)) {
        let program = env::current_exe().expect("this program has a place");
        let mut part = Command::new(program);
        part.arg(format!("--part={name}")).args(quick.then_some("--quick"));
        let output = part.output().expect("this program starts once more");
        print!("{name:12} {}", String::from_utf8_lossy(&output.stdout).trim_end());
        println!("   {goal}{}", if quick { "; a twelfth" } else { "" });
        if !output.status.success() {
            println!("{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// Runs one part and prints what it took.
fn measure(part: &str, quick: bool) {
    let share = if quick { QUICK } else { 1 };
    let events = match part {
        "seeds" => seeds(100 / share),
        "busy-1k" => carried("sim/benches/busy-1k.toml", HOUR / share),
        "gossip-10k" => carried("configs/scenarios/gossip-10k.toml", HOUR / 3 / share),
        "fleet-10k" => carried("configs/scenarios/fleet-10k.toml", HOUR / share),
        other => panic!("there is no part named {other}"),
    };
    let (seconds, peak) = (seconds(), peak());
    println!("{seconds:>8.1} {events:>10} {:>11.0} {peak:>10}", events as f64 / seconds);
}

/// So many runs with random faults, each of two minutes.
fn seeds(count: u64) -> u64 {
    let runs = (1..=count).map(|seed| {
        let report = World::of(&Case::of(Options::harsh(seed, 200, 2)), None, &[]).run();
        report.occurrences
    });
    runs.sum()
}

/// The beginning of a scenario, up to a time.
fn carried(scenario: &str, end: Nanos) -> u64 {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let scenario = Scenario::load(&root.join(scenario)).expect("the scenario is read");
    let mut setup: Setup = scenario.setup(0, 1).expect("the scenario has a setup");
    setup.end = end;
    setup.actions.retain(|(at, _)| *at < end);
    let run = RunId { system: "waystation".into(), seed: 1, variant: String::new() };
    let (mut measured, mut events): (Vec<Measurement>, u64) = (Vec::new(), 0);
    system::carry_out(&setup, "", &run, &mut measured, &mut |_, count| events = count)
        .expect("the system is known");
    events
}

/// Seconds that this process has had of a processor.
fn seconds() -> f64 {
    let text = fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|field| field.parse::<u64>().ok());
    nanos.map_or(f64::NAN, |nanos| nanos as f64 / 1e9)
}

/// Most MiB that this process ever had in memory.
fn peak() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}
