//! Figures that are kept beside a scenario (`NAME.baseline.json`), so that a change of the code that changes them is
//! seen. Owns their form and what counts as a change; when they are written and read is the command line's.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::summary::{Metric, Row, Table};

/// The figures of some runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// One for each run.
    pub runs: Vec<KeptRun>,
}

/// The figures of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptRun {
    /// What ran.
    pub system: String,
    /// What was varied.
    pub variant: String,
    /// The seed.
    pub seed: u64,
    /// By name of the metric; seconds, bytes or numbers. What never ended is left out.
    pub figures: BTreeMap<String, f64>,
}

/// Why kept figures cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// They cannot be read or written.
    #[error("{}: {source}; kept figures are written with `waystation-sim run --keep`", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// They are not in the form.
    #[error("{}: no kept figures ({source}); write them anew with `waystation-sim run --keep`", path.display())]
    Form {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// What is kept of each run.
const KEPT: &[&str] = &[
    "p50",
    "p99",
    "max",
    "done",
    "origin-copies",
    "site-copies",
    "control-per-node",
    "spread-99",
    "missed",
    "violations",
    "figure:bytes",
    "figure:finding",
];
/// How far a figure may be from the kept one, of the kept one.
pub const TOLERANCE: f64 = 0.02;

impl Kept {
    /// The file of a scenario.
    pub fn beside(scenario: &Path) -> PathBuf {
        scenario.with_extension("baseline.json")
    }

    /// What is to be kept of a table.
    pub fn of(table: &Table) -> Self {
        let metrics: Vec<Metric> = KEPT.iter().filter_map(|name| name.parse().ok()).collect();
        let run = |row: &Row| KeptRun {
            system: row.system.clone(),
            variant: row.variant.clone(),
            seed: row.seed.unwrap_or_default(),
            figures: metrics
                .iter()
                .filter_map(|metric| Some((metric.to_string(), table.get(row, metric)?)))
                .filter(|(_, value)| value.is_finite())
                .collect(),
        };
        Kept { runs: table.runs().map(run).collect() }
    }

    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, KeptError> {
        let text =
            fs::read_to_string(path).map_err(|source| KeptError::File { path: path.to_owned(), source })?;
        serde_json::from_str(&text).map_err(|source| KeptError::Form { path: path.to_owned(), source })
    }

    /// Writes it.
    #[allow(clippy::disallowed_methods, reason = "kept figures are a file; what a run does depends on none")]
    pub fn write(&self, path: &Path) -> Result<(), KeptError> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|source| KeptError::Form { path: path.to_owned(), source })?;
        fs::write(path, text + "\n").map_err(|source| KeptError::File { path: path.to_owned(), source })
    }

    /// What is otherwise in a table, in sentences. Only runs that both have are looked at; none at all is a sentence.
    pub fn changes(&self, table: &Table) -> Vec<String> {
        let (new, mut common, mut changes) = (Kept::of(table), 0, vec![]);
        for run in &new.runs {
            let same = |old: &&KeptRun| {
                (&old.system, &old.variant, old.seed) == (&run.system, &run.variant, run.seed)
            };
            let Some(old) = self.runs.iter().find(same) else { continue };
            common += 1;
            for name in old.figures.keys().chain(run.figures.keys().filter(|n| !old.figures.contains_key(*n)))
            {
                let (before, now) = (old.figures.get(name), run.figures.get(name));
                let near = |a: f64, b: f64| (a - b).abs() <= TOLERANCE * a.abs();
                if !before.zip(now).is_some_and(|(before, now)| near(*before, *now)) {
                    let text =
                        |value: Option<&f64>| value.map_or_else(|| "nothing".to_owned(), f64::to_string);
                    changes.push(format!(
                        "{} {} seed {}: {name} was {}, is {}",
                        run.system,
                        run.variant,
                        run.seed,
                        text(before),
                        text(now)
                    ));
                }
            }
        }
        if common == 0 {
            changes.push("no run is among those that are kept".to_owned());
        }
        changes
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests write files")]
mod tests {
    use super::*;
    use crate::measure::{Measurement, RunId};

    fn table(bytes: f64) -> Table {
        let run = RunId { system: "waystation".into(), seed: 1, variant: String::new() };
        Table::of(&[Measurement::Figure { run, name: "bytes".into(), value: Some(bytes), text: None }])
    }

    #[test]
    fn changes_beyond_the_tolerance_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = Kept::beside(&folder.path().join("x.toml"));
        Kept::of(&table(100.0)).write(&path).unwrap();
        assert!(path.ends_with("x.baseline.json"));
        let kept = Kept::read(&path).unwrap();
        assert_eq!(kept, Kept::of(&table(100.0)));
        assert_eq!(kept.changes(&table(101.9)), Vec::<String>::new());
        assert_eq!(kept.changes(&table(103.0)), ["waystation  seed 1: figure:bytes was 100, is 103"]);
        assert_eq!(kept.changes(&Table::default()), ["no run is among those that are kept"]);
        fs::write(&path, "{}").unwrap();
        assert!(Kept::read(&path).unwrap_err().to_string().contains("write them anew"));
    }
}
