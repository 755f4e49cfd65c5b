//! `waystation-sim run`
#![allow(
    clippy::disallowed_methods,
    reason = "results are files, and the bar shows real time; what a run does depends on neither"
)]

use std::{
    fs,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use waystation_sim::{
    account::seconds,
    check::physics,
    kept::Kept,
    measure::{Measurement, RunId},
    reconcile,
    scenario::{
        SEEDS_MAX, Scenario,
        expect::{Outcome, fits},
    },
    setup::Setup,
    summary::{Table, aligned},
    system,
};

use super::BROKEN;

/// What to run.
#[derive(Args)]
pub struct RunArgs {
    /// The scenario's file.
    scenario: PathBuf,
    /// Run with this seed alone.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Run with the seeds from 1 to this.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=SEEDS_MAX as u64))]
    seeds: Option<u64>,
    /// Run these systems instead of the scenario's.
    #[arg(long = "system", value_name = "NAME", value_delimiter = ',')]
    systems: Vec<String>,
    /// Run only variants with all of these settings, such as "sites=4, nodes=5".
    #[arg(long, value_name = "SETTINGS")]
    variant: Option<String>,
    /// Write measurements.jsonl, summary.txt and report.html into this directory; it is made.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Keep the figures beside the scenario, as NAME.baseline.json.
    #[arg(long)]
    keep: bool,
    /// Compare the figures with those that are kept; a change is like an expectation that is not kept.
    #[arg(long, conflicts_with = "keep")]
    check: bool,
}

/// Runs everything, prints the table and what came of the expectations.
pub fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let mut scenario = Scenario::load(&args.scenario)?;
    if let Some(seed) = args.seed {
        scenario.seeds = vec![seed];
    }
    if let Some(seeds) = args.seeds {
        scenario.seeds = (1..=seeds).collect();
    }
    if !args.systems.is_empty() {
        system::check(&args.systems)?;
        scenario.systems.clone_from(&args.systems);
    }
    let mut results = Results::new(args.out.as_deref())?;
    describe(&scenario);
    match scenario.reconcile.clone() {
        Some((records, differences)) => {
            compare_catalogs(&scenario, &records, &differences, args.variant.as_deref(), &mut results)?;
        }
        None => run_all(&scenario, args.variant.as_deref(), &mut results)?,
    }
    let changed = kept(&args, &results.table)?;
    let code = finish(&scenario, args.variant.as_deref(), results)?;
    Ok(if changed { ExitCode::from(BROKEN) } else { code })
}

/// Writes figures to be kept, or says how they changed.
fn kept(args: &RunArgs, table: &Table) -> anyhow::Result<bool> {
    let path = Kept::beside(&args.scenario);
    if args.keep {
        Kept::of(table).write(&path)?;
        println!("kept in {}", path.display());
    }
    let changes = if args.check { Kept::read(&path)?.changes(table) } else { vec![] };
    for change in &changes {
        println!("CHANGED {change}");
    }
    Ok(!changes.is_empty())
}

/// Where measurements go: into the table, and into a file where there is a directory.
struct Results {
    table: Table,
    directory: Option<PathBuf>,
    file: Option<BufWriter<fs::File>>,
}

impl Results {
    fn new(directory: Option<&Path>) -> anyhow::Result<Self> {
        let mut file = None;
        if let Some(directory) = directory {
            let what =
                || format!("{}: cannot be written; give another directory to --out", directory.display());
            fs::create_dir_all(directory).with_context(what)?;
            file = Some(BufWriter::new(
                fs::File::create(directory.join("measurements.jsonl")).with_context(what)?,
            ));
        }
        Ok(Results { table: Table::default(), directory: directory.map(Path::to_owned), file })
    }

    fn take(&mut self, measurements: &[Measurement]) -> anyhow::Result<()> {
        self.table.add(measurements);
        if let Some(file) = &mut self.file {
            for measurement in measurements {
                serde_json::to_writer(&mut *file, measurement).context("measurements cannot be written")?;
                file.write_all(b"\n").context("measurements cannot be written")?;
            }
        }
        Ok(())
    }
}

fn describe(scenario: &Scenario) {
    println!("{}\nsource: {}", scenario.name, scenario.source);
    for line in &scenario.like {
        println!("like for like: {line}");
    }
    for line in &scenario.unlike {
        println!("not like it:   {line}");
    }
    println!();
}

fn run_all(scenario: &Scenario, only: Option<&str>, results: &mut Results) -> anyhow::Result<()> {
    let chosen = |(_, name): &(usize, &str)| only.is_none_or(|only| fits(name, only));
    let variants: Vec<(usize, &str)> = scenario.variants().enumerate().filter(chosen).collect();
    if variants.is_empty() {
        bail!(
            "no variant has the settings \"{}\"; `waystation-sim bound` lists variants",
            only.unwrap_or_default()
        );
    }
    let runs = variants.len() * scenario.seeds.len() * scenario.systems.len();
    let bar = Bar::new(runs as u64);
    for (number, name) in variants {
        for seed in &scenario.seeds {
            let setup = scenario.setup(number, *seed)?;
            for system in &scenario.systems {
                let run = RunId { system: system.clone(), seed: *seed, variant: name.to_owned() };
                let measurements = one(&setup, &scenario.source, &run, &bar)?;
                results.take(&measurements)?;
            }
        }
    }
    bar.0.finish_and_clear();
    Ok(())
}

/// One run, all its measurements.
fn one(setup: &Setup, source: &str, run: &RunId, bar: &Bar) -> anyhow::Result<Vec<Measurement>> {
    let mut measurements = vec![];
    let began = Instant::now();
    system::carry_out(setup, source, run, &mut measurements, &mut |now, events| {
        bar.show(setup, run, began, now, events);
    })?;
    measurements.push(Measurement::Figure {
        run: run.clone(),
        name: "control share of a line".to_owned(),
        value: Some(system::control_share(setup, &measurements)),
        text: None,
    });
    if let Err(text) = physics::possible(setup, &measurements) {
        let at = seconds(setup.end);
        let checker = "physics".to_owned();
        measurements.push(Measurement::Violation { run: run.clone(), checker, at, text });
    }
    bar.0.inc(1);
    Ok(measurements)
}

/// Runs the product once and prints the table.
pub fn show_one(setup: &Setup) -> anyhow::Result<()> {
    let run = RunId { system: "waystation".to_owned(), seed: setup.seed, variant: String::new() };
    let bar = Bar::new(1);
    let measurements = one(setup, "plan", &run, &bar)?;
    bar.0.finish_and_clear();
    print!("{}", Table::of(&measurements));
    Ok(())
}

/// Runs done, and of the one under way virtual time, events in a second, and how long it may take still.
struct Bar(ProgressBar);

impl Bar {
    fn new(runs: u64) -> Self {
        let bar = ProgressBar::new(runs);
        if let Ok(style) = ProgressStyle::with_template("{bar:20} {pos}/{len} runs  {msg}") {
            bar.set_style(style);
        }
        Bar(bar)
    }

    fn show(&self, setup: &Setup, run: &RunId, began: Instant, now: u64, events: u64) {
        let (real, part) = (began.elapsed().as_secs_f64(), now as f64 / setup.end as f64);
        let left = if part > 0.0 { real * (1.0 - part).max(0.0) / part } else { 0.0 };
        self.0.set_message(format!(
            "{} {} seed {}: {:.1} of {:.1} s, {:.0} events/s, {left:.0} s left",
            run.system,
            run.variant,
            run.seed,
            now as f64 / 1e9,
            setup.end as f64 / 1e9,
            events as f64 / real.max(1e-3),
        ));
    }
}

/// Each size with each number of differences, as variants.
fn compare_catalogs(
    scenario: &Scenario,
    records: &[u64],
    differences: &[u64],
    only: Option<&str>,
    results: &mut Results,
) -> anyhow::Result<()> {
    let mut lines = vec![
        ["records", "different", "bytes", "to find them", "32 bytes each", "messages"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for records in records {
        for differences in differences.iter().filter(|differences| *differences <= records) {
            let variant = format!("records={records}, differences={differences}");
            if only.is_some_and(|only| !fits(&variant, only)) {
                continue;
            }
            for seed in &scenario.seeds {
                let cost = reconcile::measure(*records, *differences, *seed);
                let run = RunId { system: "waystation".to_owned(), seed: *seed, variant: variant.clone() };
                let cells =
                    [*records, cost.differences, cost.bytes, cost.finding(), cost.line(), cost.messages];
                lines.push(cells.map(|number| number.to_string()).to_vec());
                results.take(&catalog_figures(scenario, &run, cost))?;
            }
        }
    }
    println!("{}", aligned(&lines));
    Ok(())
}

fn catalog_figures(scenario: &Scenario, run: &RunId, cost: reconcile::Cost) -> Vec<Measurement> {
    let figure = |name: &str, value: u64| Measurement::Figure {
        run: run.clone(),
        name: name.to_owned(),
        value: Some(value as f64),
        text: None,
    };
    let mut all = vec![
        Measurement::Run {
            run: run.clone(),
            scenario: scenario.name.clone(),
            source: scenario.source.clone(),
            nodes: 2,
            sites: vec![],
        },
        figure("bytes", cost.bytes),
        figure("finding", cost.finding()),
        figure("line", cost.line()),
        figure("messages", cost.messages),
    ];
    if cost.differences > 0 {
        all.push(Measurement::Figure {
            run: run.clone(),
            name: "finding over line".to_owned(),
            value: Some(cost.finding() as f64 / cost.line() as f64),
            text: None,
        });
    }
    if !cost.equal {
        all.push(Measurement::Violation {
            run: run.clone(),
            checker: "convergence".to_owned(),
            at: 0.0,
            text: "the catalogs are not equal after all rounds".to_owned(),
        });
    }
    all
}

/// The table, broken promises, expectations; files where there is a directory.
fn finish(scenario: &Scenario, only: Option<&str>, results: Results) -> anyhow::Result<ExitCode> {
    let Results { table, directory, file } = results;
    if let Some(mut file) = file {
        file.flush().context("measurements cannot be written")?;
    }
    let outcomes: Vec<Outcome> = scenario
        .goals
        .iter()
        .filter(|goal| scenario.systems.contains(&goal.system))
        .flat_map(|goal| goal.check(&table))
        // What was left out with --variant is not missing.
        .filter(|outcome| only.is_none() || outcome.found != "no run")
        .collect();
    let text = format!("{table}{}", judgement(&table, &outcomes));
    print!("{text}");
    if let Some(directory) = directory {
        fs::write(directory.join("summary.txt"), &text)
            .with_context(|| format!("{}: cannot be written", directory.display()))?;
        let report = waystation_sim::report::write(&directory)?;
        println!("\nwritten to {}; the report is {}", directory.display(), report.display());
    }
    let broken = table.rows().any(|row| table.summary(row).is_some_and(|s| !s.violations.is_empty()));
    let kept = outcomes.iter().all(|outcome| outcome.kept);
    Ok(if kept && !broken { ExitCode::SUCCESS } else { ExitCode::from(BROKEN) })
}

/// Most broken promises that are printed.
const SHOWN_MAX: usize = 20;

fn judgement(table: &Table, outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for row in table.rows() {
        for violation in table.summary(row).iter().flat_map(|summary| &summary.violations).take(SHOWN_MAX) {
            text += &format!("BROKEN {} {}: {violation}\n", row.system, row.variant);
        }
    }
    if !outcomes.is_empty() {
        text += "\nexpected\n";
        let line = |outcome: &Outcome| {
            let variant = if outcome.variant.is_empty() { "-" } else { &outcome.variant };
            let word = if outcome.kept { "ok" } else { "NOT KEPT" };
            vec![outcome.goal.clone(), variant.to_owned(), outcome.found.clone(), word.to_owned()]
        };
        text += &aligned(&outcomes.iter().map(line).collect::<Vec<_>>());
    }
    text
}
