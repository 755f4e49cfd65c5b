//! `waystation-sim replay`: one run again, in words.

use std::{fs, io, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use waystation_sim::{Case, Options, World, trace::Reader};

/// A run again, told in words: one line for each thing that happens, with time (minutes:seconds) and host.
#[derive(Args)]
pub struct Replay {
    /// A case that `swarm` wrote.
    #[arg(conflicts_with_all = ["seed", "nodes", "minutes", "mild"])]
    file: Option<PathBuf>,
    /// What everything else is drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many nodes.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=500))]
    nodes: u16,
    /// How long things go wrong, in simulated minutes.
    #[arg(long, default_value_t = 5)]
    minutes: u64,
    /// Without power cuts, broken disks, set clocks, comings and goings, crowds and quotas.
    #[arg(long)]
    mild: bool,
    /// Stop after so many simulated seconds.
    #[arg(long, value_name = "SECONDS")]
    until: Option<u64>,
    /// Only what happens at this host.
    #[arg(long)]
    host: Option<usize>,
    /// Only how it went, and the hash of the trace.
    #[arg(long)]
    summary: bool,
}

/// Runs it.
///
/// # Errors
/// If the file cannot be read, or is no case.
pub fn run(args: &Replay) -> anyhow::Result<ExitCode> {
    let case = match &args.file {
        Some(file) => {
            let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            Case::parse(&text).with_context(|| format!("cannot use {}", file.display()))?
        }
        None => {
            let nodes = usize::from(args.nodes);
            let options = if args.mild { Options::from_seed } else { Options::harsh };
            Case::of(options(args.seed, nodes, args.minutes))
        }
    };
    let until = args.until.map_or(u64::MAX, |seconds| seconds.saturating_mul(1_000));
    let reader = Reader { host: args.host, until, to: Box::new(io::stdout()) };
    println!("{}", case.options);
    println!("{} faults and steps of clients", case.items.len());
    let mut world = World::of(&case, (!args.summary).then_some(reader), &[]);
    let report = if until < case.options.faults_ms {
        world.run_until(until);
        world.report(None)
    } else {
        world.run()
    };
    println!("{report}");
    // A broken promise is an exit code of its own, apart from wrong arguments (2) and panics (101).
    Ok(if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(3) })
}
