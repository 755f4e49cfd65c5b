//! The report of a simulation: one HTML file that a planner can send on. It needs no network and runs no script;
//! the same measurements give the same bytes. Reads measurements ([`crate::measure`]) and nothing else, so it
//! knows neither the world nor the systems that ran in it.
//!
//! Reading order: [`gather`](self) reads the file twice (outline, then groups), `sections` say what of it is shown,
//! `chart`, `heat` and `bars` draw, `page` puts it together.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

mod axis;
mod bars;
mod bins;
mod chart;
mod gather;
mod group;
mod heat;
mod lines;
mod matrix;
mod outline;
mod page;
mod quantiles;
mod sections;
mod unit;

/// What is read, in the folder of a run.
pub const MEASUREMENTS: &str = "measurements.jsonl";
/// What is written there.
pub const REPORT: &str = "report.html";

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The measurements cannot be read.
    #[error("cannot read {}: {source}; run a scenario with --out to have it written", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is no measurement.
    #[error("{}, line {line}: no measurement: {source}; write the file anew with this version", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// Why.
        source: serde_json::Error,
    },
    /// A line is too long.
    #[error("{}, line {line}: longer than {most} bytes, which no measurement is; write the file anew", path.display())]
    Long {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// The most.
        most: u64,
    },
    /// There are more runs than one report shows.
    #[error("more than {most} runs in one file of measurements; make a report of fewer seeds or variants")]
    TooMany {
        /// The most.
        most: usize,
    },
    /// There is no run.
    #[error("{} has no measurements; run the scenario first", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// The report cannot be written.
    #[error("cannot write {}: {source}; make room there, or let it be written", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Makes `report.html` of the `measurements.jsonl` in a folder, and says where it is. What was there before is
/// replaced.
#[allow(clippy::disallowed_methods, reason = "a report is a file; what a run does depends on none")]
pub fn write(folder: &Path) -> Result<PathBuf, ReportError> {
    let gathered = gather::Gathered::read(&folder.join(MEASUREMENTS))?;
    let path = folder.join(REPORT);
    match fs::write(&path, page::page(&gathered).into_string()) {
        Ok(()) => Ok(path),
        Err(source) => Err(ReportError::Write { path, source }),
    }
}
