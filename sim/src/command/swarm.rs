//! `waystation-sim swarm`: random runs until one breaks a promise, which is then made as small as can be. The only
//! code that looks at the wall clock: to know when to stop.

use std::{
    fs,
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use waystation_sim::{
    Case, Options, World,
    check::Violation,
    minimise::{Symptom, minimise},
};

/// Random runs with faults until a promise is broken; the run is made small then, printed and written to a file.
#[derive(Args)]
pub struct Swarm {
    /// For how long, in minutes of your own time.
    #[arg(long, default_value_t = 5)]
    minutes: u64,
    /// At most so many runs.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// At most how many nodes.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(2..=500))]
    nodes: u16,
    /// How long things go wrong in each run, in simulated minutes.
    #[arg(long, default_value_t = 5)]
    length: u64,
    /// Without power cuts, broken disks, set clocks, comings and goings, crowds and quotas.
    #[arg(long)]
    mild: bool,
    /// For how many minutes at most a run that broke a promise is made smaller.
    #[arg(long, default_value_t = 5)]
    shrink: u64,
    /// Where the smallest case goes; where none, `swarm-SEED.json` here.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Runs them.
///
/// # Errors
/// If the case that was found cannot be written.
pub fn run(args: &Swarm) -> anyhow::Result<ExitCode> {
    // A replica that panics is one more broken promise, and is told as such.
    panic::set_hook(Box::new(|_| {}));
    let start = now();
    let limit = Duration::from_secs(args.minutes.saturating_mul(60));
    let last = args.seeds.map_or(u64::MAX, |seeds| args.from.saturating_add(seeds - 1));
    let (mut runs, mut told) = (0, start);
    let mut seed = args.from;
    while seed <= last && start.elapsed() < limit {
        let nodes = 2 + (seed % u64::from(args.nodes - 1)) as usize;
        let options = if args.mild { Options::from_seed } else { Options::harsh };
        let case = Case::of(options(seed, nodes, args.length));
        let violations = violations(&case);
        runs += 1;
        if let Some(first) = violations.first() {
            println!("seed {seed}, {nodes} nodes: {first}");
            found(args, seed, nodes, case, first)?;
            return Ok(ExitCode::from(3));
        }
        if told.elapsed() >= TELL_EVERY {
            told = now();
            let rate = f64::from(runs) / start.elapsed().as_secs_f64();
            println!("seed {seed}: {runs} runs so far, {rate:.1} a second, no promise broken");
        }
        seed = seed.saturating_add(1);
    }
    let rate = f64::from(runs) / start.elapsed().as_secs_f64();
    println!("{runs} runs from seed {} on, {rate:.1} a second: every promise was kept", args.from);
    Ok(ExitCode::SUCCESS)
}

fn found(args: &Swarm, seed: u64, nodes: usize, case: Case, first: &Violation) -> anyhow::Result<()> {
    let mild = if args.mild { " --mild" } else { "" };
    let length = args.length;
    println!("all of it: waystation-sim replay --seed {seed} --nodes {nodes} --minutes {length}{mild}");
    let (start, limit) = (now(), Duration::from_secs(args.shrink.saturating_mul(60)));
    let symptom = Symptom::of(first);
    let (items, mut tries) = (case.items.len(), 0);
    let mut small = minimise(case, first.at, |case| {
        tries += 1;
        (start.elapsed() < limit).then(|| symptom.is_in(&violations(case)))
    });
    let left = violations(&small);
    let why = left.iter().find(|one| symptom.is_in(std::slice::from_ref(*one))).unwrap_or(first);
    small.about = format!("seed {seed}, {nodes} nodes, {length} minutes{mild}: {why}");
    let file = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("swarm-{seed}.json")));
    write(&file, &small.text()?).with_context(|| format!("cannot write {}", file.display()))?;
    let (now_items, now_nodes) = (small.items.len(), small.options.nodes);
    println!("after {tries} tries: {now_items} of {items} faults and steps, {now_nodes} of {nodes} nodes");
    small.items.iter().for_each(|item| println!("  at {:>7} ms: {:?}", item.at, item.what));
    println!("{why}");
    println!("the smallest: waystation-sim replay {}", file.display());
    Ok(())
}

/// What a run breaks; a panic is one.
fn violations(case: &Case) -> Vec<Violation> {
    let run = AssertUnwindSafe(|| World::of(case, None, &[]).run().violations);
    panic::catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let text = text.unwrap_or_else(|| "no words".into());
        vec![Violation { promise: "no panic", at: u64::MAX, host: 0, text }]
    })
}

#[allow(clippy::disallowed_methods, reason = "only the swarm stops by the wall clock")]
fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "what was found has to be kept")]
fn write(file: &PathBuf, text: &str) -> std::io::Result<()> {
    fs::write(file, text)
}

/// How often it is said how far it is.
const TELL_EVERY: Duration = Duration::from_secs(10);
