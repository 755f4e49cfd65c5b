//! The simulator's command line.

mod command;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use waystation_sim::cost;

/// Runs a mesh of unchanged replicas in a simulated world.
#[derive(Parser)]
#[command(name = "waystation-sim", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A run again, in words.
    Replay(command::replay::Replay),
    /// Random runs with faults until a promise is broken, and the smallest run that breaks it.
    Swarm(command::swarm::Swarm),
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
        Command::Replay(args) => command::replay::run(&args),
        Command::Swarm(args) => command::swarm::run(&args),
        Command::Cost { nodes, sites, publications, seed } => {
            for cost in cost::measure(usize::from(nodes), usize::from(sites), publications, seed) {
                println!("{cost}");
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}
