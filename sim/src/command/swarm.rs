//! `waystation-sim swarm`

use std::process::ExitCode;

use clap::Args;
use waystation_sim::{Options, World};

use super::BROKEN;

/// Which runs.
#[derive(Args)]
pub struct SwarmArgs {
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
}

/// Runs them, one after the other.
pub fn swarm(args: SwarmArgs) -> anyhow::Result<ExitCode> {
    let minutes = args.minutes;
    for seed in args.from..args.from.saturating_add(args.seeds) {
        let nodes = 2 + (seed % u64::from(args.nodes - 1)) as usize;
        let options = Options::from_seed(seed, nodes, minutes);
        let report = World::new(options.clone()).run();
        println!("seed {seed}, {nodes} nodes: trace {}", report.trace);
        if !report.violations.is_empty() {
            println!("{options}\n{report}");
            println!(
                "replay: waystation-sim replay --nodes {nodes} --seed {seed} --minutes {minutes} --trace"
            );
            return Ok(ExitCode::from(BROKEN));
        }
    }
    Ok(ExitCode::SUCCESS)
}
