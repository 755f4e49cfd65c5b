//! `waystation-sim replay`

use std::process::ExitCode;

use clap::Args;
use waystation_sim::{Options, World};

use super::BROKEN;

/// Which run.
#[derive(Args)]
pub struct ReplayArgs {
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
}

/// Runs it.
pub fn replay(args: ReplayArgs) -> anyhow::Result<ExitCode> {
    let options = Options::from_seed(args.seed, usize::from(args.nodes), args.minutes);
    println!("{options}");
    let report = World::with(options, args.trace, &[]).run();
    println!("{report}");
    Ok(if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(BROKEN) })
}
