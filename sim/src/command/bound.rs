//! `waystation-sim bound`

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use waystation_sim::{
    account::{fastest, transfers},
    scenario::Scenario,
    setup::Setup,
    summary::{Unit, aligned, bytes},
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

/// Prints the least time over the cuts for every artifact: until all who pull it have it, from the first pull on.
pub fn bound(args: BoundArgs) -> anyhow::Result<ExitCode> {
    let scenario = Scenario::load(&args.scenario)?;
    let mut lines = vec![["variant", "cut", "least time", "artifact", "bytes"].map(str::to_owned).to_vec()];
    for (number, variant) in scenario.variants().enumerate() {
        let seed = scenario.seeds.first().copied().unwrap_or(1);
        let setup = scenario.setup(number, seed)?;
        lines.extend(rows(&setup, variant, &args));
    }
    if lines.len() == 1 {
        println!("{}: nothing is pulled that somebody has, so there is no least time", scenario.name);
        return Ok(ExitCode::SUCCESS);
    }
    print!("{}", aligned(&lines));
    println!("No way of sharing beats these times; disks and delays come on top of them.");
    Ok(ExitCode::SUCCESS)
}

fn rows(setup: &Setup, variant: &str, args: &BoundArgs) -> Vec<Vec<String>> {
    let (network, mut rows) = (fastest(setup), vec![]);
    for (artifact, transfer) in transfers(setup).into_iter().take(args.artifacts) {
        let mut bounds = transfer.bounds(&network);
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
