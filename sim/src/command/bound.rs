//! `waystation-sim bound`

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use waystation_sim::{
    scenario::Scenario,
    setup::Setup,
    summary::{Unit, aligned, bytes},
    system::bursts,
};

/// Of what.
#[derive(Args)]
pub struct BoundArgs {
    /// The scenario's file.
    scenario: PathBuf,
    /// How many cuts of each artifact, the tightest first.
    #[arg(long, default_value_t = 5)]
    cuts: usize,
    /// How many artifacts of each variant, the first ones.
    #[arg(long, default_value_t = 10)]
    artifacts: usize,
}

/// Prints the least time over the cuts, for every artifact that is pulled at one time.
pub fn bound(args: BoundArgs) -> anyhow::Result<ExitCode> {
    let scenario = Scenario::load(&args.scenario)?;
    let mut lines = vec![["variant", "cut", "least time", "artifact", "bytes"].map(str::to_owned).to_vec()];
    for (number, variant) in scenario.variants().enumerate() {
        let seed = scenario.seeds.first().copied().unwrap_or(1);
        let setup = scenario.setup(number, seed)?;
        lines.extend(rows(&setup, variant, &args));
    }
    if lines.len() == 1 {
        println!("{}: no artifact is pulled at one time only, so no least time is known", scenario.name);
        return Ok(ExitCode::SUCCESS);
    }
    print!("{}", aligned(&lines));
    println!("No way of sharing beats these times; disks and delays come on top of them.");
    Ok(ExitCode::SUCCESS)
}

fn rows(setup: &Setup, variant: &str, args: &BoundArgs) -> Vec<Vec<String>> {
    let mut rows = vec![];
    for (artifact, transfer) in bursts(setup).into_iter().take(args.artifacts) {
        let mut bounds = transfer.bounds(&setup.topology);
        bounds.sort_by(|a, b| b.seconds.total_cmp(&a.seconds).then_with(|| a.cut.cmp(&b.cut)));
        for bound in bounds.into_iter().take(args.cuts) {
            let variant = if variant.is_empty() { "-" } else { variant };
            rows.push(vec![
                variant.to_owned(),
                bound.cut,
                Unit::Seconds.show(bound.seconds),
                setup.artifacts[artifact].repository.clone(),
                bytes(transfer.bytes as f64),
            ]);
        }
    }
    rows
}
