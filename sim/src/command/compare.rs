//! `waystation-sim compare`

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Args;
use waystation_sim::{
    compare::compare as differences,
    measure::Measurement,
    summary::{Metric, Table},
};

/// What to compare.
#[derive(Args)]
pub struct CompareArgs {
    /// A directory that `run --out` wrote; `DIR:SYSTEM` for one of its systems.
    a: String,
    /// Another, or the same with another system.
    b: String,
    /// Figures to compare.
    #[arg(long, value_delimiter = ',', default_value = "p50,p99,max,origin-copies,control-per-node-hour")]
    metrics: Vec<Metric>,
}

/// Prints the differences.
pub fn compare(args: CompareArgs) -> anyhow::Result<ExitCode> {
    let (a, b) = (read(&args.a)?, read(&args.b)?);
    let differences = differences(&a, &b, &args.metrics);
    if differences.is_empty() {
        bail!(
            "{} and {} have no run of the same variant and seed; run the same scenario with the same seeds",
            args.a,
            args.b
        );
    }
    print!("{}", waystation_sim::compare::text(&differences));
    println!(
        "Difference: B - A, mean over seeds, and where it lies with 95 % confidence (bootstrap over pairs)."
    );
    Ok(ExitCode::SUCCESS)
}

/// The runs of a directory, those of one system under no system's name.
fn read(text: &str) -> anyhow::Result<(Table, Option<String>)> {
    let (directory, system) = match text.rsplit_once(':') {
        Some((directory, system)) if !Path::new(text).exists() => (directory, Some(system.to_owned())),
        _ => (text, None),
    };
    let table = table(Path::new(directory))?;
    if let Some(system) = &system
        && !table.runs().any(|row| row.system == *system)
    {
        bail!("{directory} has no run of a system \"{system}\"");
    }
    Ok((table, system))
}

/// The table of the measurements in a directory.
pub fn table(directory: &Path) -> anyhow::Result<Table> {
    let path = directory.join("measurements.jsonl");
    let what = || format!("{}: give a directory that `waystation-sim run --out` wrote", path.display());
    let file = File::open(&path).with_context(what)?;
    let mut measurements: Vec<Measurement> = vec![];
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.with_context(what)?;
        let measurement = serde_json::from_str(&line)
            .with_context(|| format!("{}, line {}", path.display(), number + 1))?;
        measurements.push(measurement);
    }
    Ok(Table::of(&measurements))
}
