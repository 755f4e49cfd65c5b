//! The simulator beside the testbed: measured figures of real nodes (`sim/validation.toml`), what the same cases come
//! to in simulation (kept in `sim/validation.json`), how far they are apart, and the table and plot that show it.
//! Running a case is [`Case::simulate`]; when it is run, and where files are written, is the command line's.

mod plot;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use self::plot::plot;
use crate::{
    measure::{Measurement, RunId},
    scenario::Scenario,
    summary::quantile,
    system,
};

/// The cases, as the file has them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Cases {
    /// How good it is to be.
    pub goal: Goal,
    /// What is compared.
    pub case: Vec<Case>,
}

/// How far simulated times may be from measured ones, of the measured ones.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goal {
    /// In the middle of all cases.
    pub median: f64,
    /// In 95 of 100 cases, and in each that the tests run again.
    pub most: f64,
}

/// One case of the testbed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Case {
    /// Of the testbed.
    pub name: String,
    /// What it is, in a few words.
    pub about: String,
    /// Its scenario, in configs/scenarios.
    pub scenario: String,
    /// It is simulated with the seeds from 1 to this.
    pub seeds: u64,
    /// Whether the tests run it again.
    #[serde(default)]
    pub quick: bool,
    /// Copies are of this part of the artifact.
    #[serde(default = "whole")]
    pub part: f64,
    /// What was measured; the first counts.
    pub measured: Vec<Measured>,
}

/// One run of real nodes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Measured {
    /// Its file in tests/results.
    pub run: String,
    /// Until the last node had it all.
    pub seconds: f64,
    /// Bytes out of the origin, of the content's.
    pub copies: f64,
    /// Whether other programs ran beside it.
    #[serde(default)]
    pub disturbed: bool,
}

/// What the simulator makes of a case, one number for each seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Simulated {
    /// Of the case.
    pub name: String,
    /// Until the last node had it all.
    pub seconds: Vec<f64>,
    /// Bytes out of the origin, of the content's.
    pub copies: Vec<f64>,
}

/// Why there is nothing to compare.
#[derive(Debug, thiserror::Error)]
pub enum ValidationError {
    /// A file cannot be read.
    #[error("{}: {source}; give the directory that has validation.toml", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not in the form.
    #[error("{}: {why}", path.display())]
    Form {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A scenario cannot be run.
    #[error(transparent)]
    Scenario(#[from] waystation_topology::FileError),
    /// Nobody had it all in the end.
    #[error("{0}: nobody had it all in the end; look at the scenario with `waystation-sim run`")]
    Nobody(String),
}

impl Cases {
    /// Reads `validation.toml` in a directory.
    pub fn load(directory: &Path) -> Result<Self, ValidationError> {
        let path = directory.join("validation.toml");
        let text = text_of(&path)?;
        toml::from_str(&text).map_err(|error| ValidationError::Form { path, why: error.to_string() })
    }
}

impl Simulated {
    /// Reads `validation.json` in a directory.
    pub fn load(directory: &Path) -> Result<Vec<Self>, ValidationError> {
        let path = directory.join("validation.json");
        let text = text_of(&path)?;
        serde_json::from_str(&text).map_err(|error| ValidationError::Form { path, why: error.to_string() })
    }

    /// The time in the middle of all seeds.
    pub fn typical_seconds(&self) -> f64 {
        typical(&self.seconds)
    }
}

impl Case {
    /// Runs its scenario, which is in this directory, with each seed.
    pub fn simulate(&self, scenarios: &Path) -> Result<Simulated, ValidationError> {
        let scenario = Scenario::load(&scenarios.join(&self.scenario))?;
        let mut simulated = Simulated { name: self.name.clone(), seconds: vec![], copies: vec![] };
        for seed in 1..=self.seeds {
            let setup = scenario.setup(0, seed)?;
            let run = RunId { system: system::SYSTEMS[0].to_owned(), seed, variant: String::new() };
            let mut measured: Vec<Measurement> = vec![];
            // The first system exists.
            let _ = system::carry_out(&setup, &scenario.source, &run, &mut measured, &mut |_, _| ());
            let last = took(&measured).fold(0.0, f64::max);
            if last <= 0.0 {
                return Err(ValidationError::Nobody(self.scenario.clone()));
            }
            let table = crate::summary::Table::of(&measured);
            let copies = table.runs().find_map(|row| table.get(row, &"origin-copies".parse().ok()?));
            simulated.seconds.push(round(last));
            simulated.copies.push(round(copies.unwrap_or(f64::NAN) / self.part));
        }
        Ok(simulated)
    }

    /// How far the simulated time is from the measured one, of the measured one; below 0 where it is less.
    pub fn error(&self, simulated: &Simulated) -> f64 {
        self.measured
            .first()
            .map_or(f64::NAN, |measured| simulated.typical_seconds() / measured.seconds - 1.0)
    }
}

/// All cases with what they came to, in the order of the file.
pub fn pairs<'a>(cases: &'a Cases, all: &'a [Simulated]) -> Vec<(&'a Case, &'a Simulated)> {
    let of = |case: &Case| all.iter().find(|simulated| simulated.name == case.name);
    cases.case.iter().filter_map(|case| Some((case, of(case)?))).collect()
}

/// The median and the 95 % quantile of the errors, without their signs.
pub fn spread(pairs: &[(&Case, &Simulated)]) -> (f64, f64) {
    let mut errors: Vec<f64> = pairs.iter().map(|(case, simulated)| case.error(simulated).abs()).collect();
    errors.sort_by(f64::total_cmp);
    (quantile(&errors, 0.5), quantile(&errors, 0.95))
}

/// The comparison as Markdown.
pub fn table(pairs: &[(&Case, &Simulated)]) -> String {
    let mut text = String::from(
        "| case | measured | simulated (least to most of the seeds) | error | copies measured | copies simulated |\n\
         | --- | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for (case, simulated) in pairs {
        let (least, most) = ends(&simulated.seconds);
        for (number, measured) in case.measured.iter().enumerate() {
            let error = 100.0 * (simulated.typical_seconds() / measured.seconds - 1.0);
            let mark = if measured.disturbed { ", disturbed" } else { "" };
            text += &match number {
                0 => format!(
                    "| {}: {} | {:.2} s | {:.2} s ({least:.2} to {most:.2}) | {error:+.1} % | {:.3} | {:.3} |\n",
                    case.name,
                    case.about,
                    measured.seconds,
                    simulated.typical_seconds(),
                    measured.copies,
                    typical(&simulated.copies),
                ),
                _ => format!(
                    "| the same, {}{mark} | {:.2} s | | {error:+.1} % | {:.3} | |\n",
                    measured.run, measured.seconds, measured.copies,
                ),
            };
        }
    }
    let (median, most) = spread(pairs);
    text + &format!(
        "\nError of the {} cases: median {:.1} %, 95 of 100 within {:.1} %.\n",
        pairs.len(),
        100.0 * median,
        100.0 * most
    )
}

/// How long each pull took that ended.
fn took(measured: &[Measurement]) -> impl Iterator<Item = f64> {
    measured.iter().filter_map(|measurement| match measurement {
        Measurement::Pull { asked, done: Some(done), .. } => Some(done - asked),
        _ => None,
    })
}

fn typical(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, 0.5)
}

/// The least and the most.
fn ends(values: &[f64]) -> (f64, f64) {
    (values.iter().copied().fold(f64::INFINITY, f64::min), values.iter().copied().fold(0.0, f64::max))
}

fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

fn whole() -> f64 {
    1.0
}

fn text_of(path: &Path) -> Result<String, ValidationError> {
    fs::read_to_string(path).map_err(|source| ValidationError::File { path: path.to_owned(), source })
}
