//! `waystation-sim validate`
#![allow(
    clippy::disallowed_methods,
    reason = "what is kept is files; what a run does does not depend on them"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Args;
use waystation_sim::validation::{Cases, Simulated, pairs, plot, spread, table};

use super::BROKEN;

/// Which cases, and whether what they come to is kept.
#[derive(Args)]
pub struct ValidateArgs {
    /// The directory with validation.toml.
    #[arg(long, value_name = "DIR", default_value = "sim")]
    directory: PathBuf,
    /// The directory with the scenarios.
    #[arg(long, value_name = "DIR", default_value = "configs/scenarios")]
    scenarios: PathBuf,
    /// Run these cases alone.
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Write validation.json, validation.svg and the table in VALIDATION.md anew.
    #[arg(long, conflicts_with = "cases")]
    keep: bool,
}

/// Runs the cases and prints how far they are from what was measured.
pub fn validate(args: &ValidateArgs) -> anyhow::Result<ExitCode> {
    let mut cases = Cases::load(&args.directory)?;
    if let Some(unknown) = args.cases.iter().find(|name| cases.case.iter().all(|case| case.name != **name)) {
        let names: Vec<&str> = cases.case.iter().map(|case| case.name.as_str()).collect();
        bail!("there is no case \"{unknown}\"; write some of {}", names.join(", "));
    }
    if !args.cases.is_empty() {
        cases.case.retain(|case| args.cases.contains(&case.name));
    }
    let mut all: Vec<Simulated> = vec![];
    for case in &cases.case {
        all.push(case.simulate(&args.scenarios)?);
    }
    let pairs = pairs(&cases, &all);
    let text = table(&pairs);
    print!("{text}");
    if args.keep {
        let json = serde_json::to_string_pretty(&all).context("figures cannot be written")? + "\n";
        write(&args.directory, "validation.json", &json)?;
        write(&args.directory, "validation.svg", &plot(&pairs))?;
        let document = args.directory.join("VALIDATION.md");
        let old = fs::read_to_string(&document).with_context(|| document.display().to_string())?;
        let Some((before, rest)) = old.split_once(BEGIN) else {
            bail!("{}: has no line {BEGIN}", document.display())
        };
        let Some((_, after)) = rest.split_once(END) else {
            bail!("{}: has no line {END}", document.display())
        };
        write(&args.directory, "VALIDATION.md", &format!("{before}{BEGIN}\n{text}{END}{after}"))?;
    }
    let (median, most) = spread(&pairs);
    let kept = median <= cases.goal.median && most <= cases.goal.most;
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::from(BROKEN) })
}

fn write(directory: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = directory.join(name);
    fs::write(&path, text).with_context(|| format!("{}: cannot be written", path.display()))
}

/// Between these the document has the table.
const BEGIN: &str = "<!-- table -->";
const END: &str = "<!-- end of table -->";
