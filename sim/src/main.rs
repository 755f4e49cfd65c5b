//! The simulator's command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use waystation_sim::{Options, Report, World, cost};

/// Runs a mesh of unchanged replicas in a simulated world.
#[derive(Parser)]
#[command(name = "waystation-sim", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One run: prints its options, what happened and the hash of the trace.
    Run {
        /// How many nodes.
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=500))]
        nodes: u16,
        /// What everything else is drawn from.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How long things go wrong, in simulated minutes.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// Print every occurrence to standard error.
        #[arg(long)]
        trace: bool,
    },
    /// Many runs with different seeds; stops at the first that breaks a promise.
    Swarm {
        /// How many seeds.
        #[arg(long, default_value_t = 20)]
        seeds: u64,
        /// The first of them.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// At most how many nodes.
        #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(2..=500))]
        nodes: u16,
        /// How long things go wrong in each, in simulated minutes.
        #[arg(long, default_value_t = 5)]
        minutes: u64,
    },
    /// What the control plane costs: an idle hour, and one with publications.
    Cost {
        /// How many nodes.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(2..=10_000))]
        nodes: u16,
        /// On how many sites.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
        sites: u16,
        /// Artifacts published in the second hour.
        #[arg(long, default_value_t = 1000)]
        publications: u64,
        /// What everything else is drawn from.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Run { nodes, seed, minutes, trace } => {
            let options = Options::from_seed(seed, usize::from(nodes), minutes);
            println!("{options}");
            let report = World::with(options, trace, &[]).run();
            println!("{report}");
            Ok(code(&report))
        }
        Command::Swarm { seeds, from, nodes, minutes } => {
            for seed in from..from.saturating_add(seeds) {
                let nodes = 2 + (seed % u64::from(nodes - 1)) as usize;
                let options = Options::from_seed(seed, nodes, minutes);
                let report = World::new(options.clone()).run();
                println!("seed {seed}, {nodes} nodes: trace {}", report.trace);
                if !report.violations.is_empty() {
                    println!("{options}\n{report}");
                    println!(
                        "replay: waystation-sim run --nodes {nodes} --seed {seed} --minutes {minutes} --trace"
                    );
                    return Ok(code(&report));
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Cost { nodes, sites, publications, seed } => {
            for cost in cost::measure(usize::from(nodes), usize::from(sites), publications, seed) {
                println!("{cost}");
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// A broken promise is an exit code of its own, apart from wrong arguments (2) and panics (101).
fn code(report: &Report) -> ExitCode {
    if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(3) }
}
