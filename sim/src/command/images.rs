//! `waystation-sim images`

use std::process::ExitCode;

use clap::Args;
use waystation_sim::{
    images::{fit, fitted_alpha},
    summary::aligned,
};

/// How many.
#[derive(Args)]
pub struct ImagesArgs {
    /// Images to draw.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: u32,
    /// What they are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Prints the figures of the source beside those of what is drawn.
pub fn images(args: ImagesArgs) -> anyhow::Result<ExitCode> {
    println!("Synthetic images: drawn, not recorded. Source: container-chonks (LLNL, 2024), Docker Hub.");
    let mut lines = vec![["figure", "", "source", "synthetic", "ratio"].map(str::to_owned).to_vec()];
    let number = |value: f64| if value < 1.0 { format!("{value:.4}") } else { format!("{value:.0}") };
    for fit in fit(args.count as usize, args.seed) {
        let ratio = format!("{:.2}", fit.generated / fit.source);
        lines.push(vec![fit.what.to_owned(), fit.figure, number(fit.source), number(fit.generated), ratio]);
    }
    for alpha in [0.6, 0.9, 1.2] {
        let fitted = fitted_alpha(alpha, 200, 400_000, args.seed);
        let cells = ["slope of popularity", "Zipf", &alpha.to_string(), &format!("{fitted:.3}")];
        let mut line = cells.map(str::to_owned).to_vec();
        line.push(format!("{:.2}", fitted / alpha));
        lines.push(line);
    }
    print!("{}", aligned(&lines));
    println!("Sharing is compared with the source's tags of all repositories; sizes with one image of each.");
    Ok(ExitCode::SUCCESS)
}
