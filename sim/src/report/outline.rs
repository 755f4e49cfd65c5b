//! What has to be known of all measurements before they are put together: which runs there are, how long they
//! lasted, which sites were busy, what no system can beat. The first of two readings of the file.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use super::ReportError;
use crate::measure::{Measurement, RunId};

/// Runs in one report.
const RUNS_MAX: usize = 10_000;
/// Bounds that are kept of a run; those of later artifacts are not compared with.
const BOUNDS_MAX: usize = 10_000;

/// What no system can beat for an artifact.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// Of the artifact.
    pub bytes: u64,
    /// The tightest cut.
    pub cut: String,
    /// The least time over it.
    pub seconds: f64,
}

/// A run.
#[derive(Clone, Debug, Default)]
pub struct RunOutline {
    /// How many; 0 where the file does not say.
    pub nodes: u64,
    /// Names of the sites.
    pub sites: Vec<String>,
    /// By artifact.
    pub bounds: BTreeMap<u64, Bound>,
    /// When the last thing was measured.
    pub end: f64,
    /// When the last byte of a blob crossed a line.
    pub busy_until: f64,
    /// By site: bytes of blobs out of it and into it.
    pub lines: BTreeMap<u64, (u64, u64)>,
    /// Bytes of blobs that left the origin's site.
    pub origin_sent: Option<u64>,
    /// When the cloud went away, where the run tells.
    pub outage_from: Option<f64>,
    /// The hash of its trace.
    pub trace: Option<String>,
    /// The number of the origin's site, where the run tells.
    origin: Option<u64>,
}

/// All runs.
#[derive(Clone, Debug, Default)]
pub struct Outline {
    /// Names of the scenarios: one, unless files were joined.
    pub scenarios: BTreeSet<String>,
    /// Where their numbers come from.
    pub sources: BTreeSet<String>,
    /// Each run.
    pub runs: BTreeMap<RunId, RunOutline>,
}

impl Outline {
    /// Takes a measurement in.
    pub fn take(&mut self, measurement: Measurement) -> Result<(), ReportError> {
        match measurement {
            Measurement::Run { run, scenario, source, nodes, sites } => {
                self.scenarios.insert(scenario);
                self.sources.insert(source);
                let known = self.run(run)?;
                (known.nodes, known.sites) = (nodes, sites);
            }
            Measurement::Bound { run, artifact, bytes, cut, seconds } => {
                let known = self.run(run)?;
                if known.bounds.len() < BOUNDS_MAX {
                    known.bounds.insert(artifact, Bound { bytes, cut, seconds });
                }
            }
            Measurement::Line { run, site, from, seconds, up, down, .. } => {
                let known = self.run(run)?;
                known.lasted(from + seconds);
                if up.max(down) > 0 {
                    known.busy_until = known.busy_until.max(from + seconds);
                }
                let line = known.lines.entry(site).or_default();
                (line.0, line.1) = (line.0.saturating_add(up), line.1.saturating_add(down));
            }
            Measurement::Pull { run, asked, done, .. } => self.run(run)?.lasted(done.unwrap_or(asked)),
            Measurement::Control { run, from, seconds, .. } => self.run(run)?.lasted(from + seconds),
            Measurement::Staleness { run, at, .. } | Measurement::Violation { run, at, .. } => {
                self.run(run)?.lasted(at);
            }
            Measurement::Origin { run, bytes, .. } => self.run(run)?.origin_sent = Some(bytes),
            Measurement::Figure { run, name, value, text } => {
                let known = self.run(run)?;
                match name.as_str() {
                    "trace" => known.trace = text,
                    "origin" => known.origin = value.map(|site| site as u64),
                    "outage-from" | "outage from" => known.outage_from = value,
                    "end" => known.lasted(value.unwrap_or_default()),
                    _ => {}
                }
            }
            Measurement::Between { run, .. } | Measurement::Spread { run, .. } => {
                self.run(run)?;
            }
        }
        Ok(())
    }

    fn run(&mut self, run: RunId) -> Result<&mut RunOutline, ReportError> {
        if self.runs.len() >= RUNS_MAX && !self.runs.contains_key(&run) {
            return Err(ReportError::TooMany { most: RUNS_MAX });
        }
        Ok(self.runs.entry(run).or_default())
    }
}

impl RunOutline {
    /// The number of the origin's site: as the run tells, or else the site whose line sent what the origin sent.
    pub fn origin(&self) -> Option<u64> {
        let sent = self.origin_sent.unwrap_or_default();
        let nearest =
            || self.lines.iter().min_by_key(|(_, line)| line.0.abs_diff(sent)).map(|(site, _)| *site);
        self.origin.or_else(|| self.origin_sent.and_then(|_| nearest()))
    }

    /// The busiest sites but the origin, by bytes over their lines.
    pub fn busiest(&self, most: usize) -> Vec<u64> {
        let origin = self.origin();
        let mut sites: Vec<_> = self
            .lines
            .iter()
            .filter(|(site, (up, down))| Some(**site) != origin && up.saturating_add(*down) > 0)
            .map(|(site, (up, down))| (up.saturating_add(*down), *site))
            .collect();
        sites.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        sites.into_iter().take(most).map(|(_, site)| site).collect()
    }

    /// The name of a site.
    pub fn site(&self, site: u64) -> String {
        let name = usize::try_from(site).ok().and_then(|site| self.sites.get(site));
        name.cloned().unwrap_or_else(|| format!("site {site}"))
    }

    fn lasted(&mut self, until: f64) {
        if until.is_finite() {
            self.end = self.end.max(until);
        }
    }
}

/// Order in which variants and sites are shown: numbers by value, so that 50 is before 500.
pub fn natural(a: &str, b: &str) -> Ordering {
    let (left, right) = (parts(a), parts(b));
    left.cmp(&right).then_with(|| a.cmp(b))
}

/// Runs of digits as numbers, all else as text; a number is before text.
fn parts(text: &str) -> Vec<(u64, String)> {
    let mut parts: Vec<(u64, String)> = vec![];
    let mut in_number = false;
    for letter in text.chars() {
        match (letter.to_digit(10), parts.last_mut()) {
            (Some(digit), Some((number, _))) if in_number => {
                *number = number.saturating_mul(10).saturating_add(u64::from(digit));
            }
            (Some(digit), _) => parts.push((u64::from(digit), String::new())),
            (None, Some((_, word))) if !in_number => word.push(letter),
            (None, _) => parts.push((0, letter.to_string())),
        }
        in_number = letter.is_ascii_digit();
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ordered_by_value() {
        let mut names = ["nodes=500", "nodes=50", "", "nodes=200", "rate=0.5", "edge-2", "edge-10"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["", "edge-2", "edge-10", "nodes=50", "nodes=200", "nodes=500", "rate=0.5"]);
    }

    #[test]
    fn the_origin_is_the_site_that_sent_what_the_origin_sent() {
        let mut run = RunOutline {
            lines: [(0, (900, 0)), (1, (100, 50)), (2, (300, 1))].into(),
            ..RunOutline::default()
        };
        assert_eq!(run.origin(), None);
        run.origin_sent = Some(100);
        assert_eq!(run.origin(), Some(1));
        assert_eq!(run.busiest(2), [0, 2]);
        run.origin = Some(2);
        assert_eq!(run.origin(), Some(2));
        assert_eq!(run.site(7), "site 7");
    }
}
