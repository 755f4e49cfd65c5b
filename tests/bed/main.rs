//! The testbed: real nodes in network namespaces with limited links, described by the topology files that the
//! simulator reads. Measures what replication costs in time, bytes, processor and memory beside what physics
//! allows, and prints and keeps it. `./tests/testbed --help` says how it is run; needs root.
#![allow(clippy::unwrap_used, reason = "a failing measurement may panic")]

#[path = "../harness/mod.rs"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod harness;

#[path = "../hostile/holder.rs"]
#[allow(dead_code, reason = "shared with the hostile tests, which use more of it")]
mod holder;
#[path = "../hostile/member.rs"]
#[allow(dead_code, reason = "shared with the hostile tests, which use more of it")]
mod member;

mod acts;
mod case;
mod client;
mod fleet;
mod network;
mod report;
mod shape;
mod spaces;
mod usage;
mod wire;

use std::{path::PathBuf, process::ExitCode, thread, time::Duration};

use clap::Parser;
use waystation_topology::Topology;

use case::{CASES, Case, Scene, Sharing, topology_file};
use harness::node::waystation;
use report::Report;

/// Measures real nodes in network namespaces: times beside the least possible, bytes over each line.
#[derive(Debug, Parser)]
#[command(name = "testbed")]
struct Options {
    /// Only these cases.
    cases: Vec<String>,
    /// MiB of the artifact.
    #[arg(long, default_value_t = 200)]
    size: usize,
    /// MiB of the artifact where sharing is not the product's own, which takes longer.
    #[arg(long, default_value_t = 20)]
    baseline_size: usize,
    /// The median of so many runs counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Short waits: a cut of 15 s, an idle minute, 500 artifacts.
    #[arg(long)]
    quick: bool,
    /// Minutes for which idle nodes are watched. Sessions with other sites are looked after every 20 and 50 minutes, all at
    /// about the same time: ten minutes see all of it or nothing.
    #[arg(long, default_value_t = 10)]
    idle: u64,
    /// Three cases of 20 MiB once, that they work: fails where bytes are wrong or lines carry less than they must.
    #[arg(long)]
    short: bool,
    /// Prints the names of the cases.
    #[arg(long)]
    list: bool,
    /// Where the table and the JSON file are written.
    #[arg(long, default_value = concat!(env!("CARGO_TARGET_TMPDIR"), "/testbed"))]
    out: PathBuf,
    /// What they are named, after the day.
    #[arg(long, default_value = "testbed")]
    name: String,
    /// Cargo's own.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        CASES.iter().for_each(|case| println!("{:<16} {}", case.name, case.about));
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = options.cases.iter().find(|name| CASES.iter().all(|case| case.name != **name)) {
        eprintln!("there is no case {unknown:?}; --list prints them");
        return ExitCode::from(2);
    }
    spaces::remove_orphans();
    clean_up_on_signals();
    let chosen = |case: &&Case| {
        let named = options.cases.is_empty() || options.cases.iter().any(|name| name == case.name);
        named && (case.short || !options.short)
    };
    let mut report = Report::new();
    for case in CASES.iter().filter(chosen) {
        measure(case, &options, &mut report);
    }
    match report.save(&options.out, &options.name) {
        Ok(file) => println!("\nwritten: {}", file.display()),
        Err(error) => {
            eprintln!("results cannot be written to {}: {error}", options.out.display());
            return ExitCode::FAILURE;
        }
    }
    let missed = report.missed();
    missed.iter().for_each(|line| println!("goal missed: {line}"));
    println!("{} goals missed", missed.len());
    ExitCode::SUCCESS
}

/// One case, as often as it takes, and what it is compared with.
fn measure(case: &Case, options: &Options, report: &mut Report) {
    let sizes = if options.short { (20, 20) } else { (options.size, options.baseline_size) };
    let runs = if case.once || options.short { 1 } else { options.runs.max(1) };
    let others =
        if case.baselines && !options.short { &[Sharing::SiteCache, Sharing::Origin][..] } else { &[] };
    // The same bytes for all that are compared.
    let own = std::iter::once((Sharing::Swarm, sizes.0, runs));
    let compared = (!others.is_empty() && sizes.0 != sizes.1).then_some((Sharing::Swarm, sizes.1, 1));
    let others = others.iter().map(|sharing| (*sharing, sizes.1, 1));
    for (sharing, mebibytes, runs) in own.chain(compared).chain(others) {
        let bytes = if case.layers.is_empty() { 0 } else { mebibytes << 20 };
        if sharing != Sharing::Swarm && !knows_sharing() {
            let why = "this binary has no `replication.sharing`".to_owned();
            report.add(case, sharing, bytes, Err(why));
            continue;
        }
        let outcomes: Result<Vec<_>, String> = (0..runs)
            .map(|run| {
                let topology = Topology::load(&topology_file(case.topology)).map_err(|e| e.to_string())?;
                let (seed, layers, quick) = (1 + run as u64, case.layers, options.quick);
                eprintln!("{} ({}), {mebibytes} MiB, run {} of {runs}", case.name, sharing.name(), run + 1);
                let idle = Duration::from_secs(60 * if quick { 1 } else { options.idle });
                let scene = Scene { topology, sharing, bytes, layers, quick, idle, seed };
                let outcome = (case.act)(&scene).map_err(|skipped| skipped.0).inspect_err(|why| {
                    eprintln!("\n!!! NOT TESTED: {}: {why} !!!\n", case.name);
                })?;
                if options.short {
                    check(case, &outcome);
                }
                Ok(outcome)
            })
            .collect();
        report.add(case, sharing, bytes, outcomes);
    }
}

/// What holds however slow the machine is: no line carried less than one copy, and the nodes' count of bytes is
/// not more than what the kernel saw.
fn check(case: &Case, outcome: &case::Outcome) {
    let value = |name: &str| outcome.value(name).unwrap_or_else(|| panic!("{}: no {name}", case.name));
    let copies = value("WAN blob bytes / content");
    assert!(copies >= 1.0, "{}: fewer bytes came than there are: {copies}", case.name);
    let frames = value("WAN interface / blob bytes");
    assert!((1.0..1.5).contains(&frames), "{}: frames / blob bytes is {frames}", case.name);
}

/// Whether other ways of sharing can be asked for.
fn knows_sharing() -> bool {
    waystation(&["serve", "--help"], None).stdout.contains("WAYSTATION_REPLICATION_SHARING")
}

/// Ctrl-C and SIGTERM end the nodes and remove the namespaces; nothing is dropped then.
fn clean_up_on_signals() {
    use tokio::signal::unix::{SignalKind, signal};
    thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate()).unwrap();
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        });
        spaces::remove_own();
        eprintln!("stopped; the namespaces are removed");
        #[allow(clippy::disallowed_methods, reason = "everything that matters was just cleaned up")]
        std::process::exit(130);
    });
}
