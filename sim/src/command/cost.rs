//! `waystation-sim cost`

use std::process::ExitCode;

use clap::Args;
use waystation_sim::cost;

/// Which mesh.
#[derive(Args)]
pub struct CostArgs {
    /// How many nodes.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(2..=10_000))]
    nodes: u16,
    /// On how many sites.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    sites: u16,
    /// Artifacts published in the second hour.
    #[arg(long, default_value_t = 1000)]
    publications: u64,
    /// How many other nodes pull each of them.
    #[arg(long, default_value_t = 0)]
    holders: u16,
    /// What everything else is drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Prints a line for each hour.
pub fn cost(args: CostArgs) -> anyhow::Result<ExitCode> {
    let CostArgs { nodes, sites, publications, holders, seed } = args;
    for cost in cost::measure(nodes.into(), sites.into(), publications, holders.into(), seed) {
        println!("{cost}");
    }
    Ok(ExitCode::SUCCESS)
}
