//! What a run came to: figures from measurements. Tables, comparisons, expectations and reports all take their
//! figures from here, so that they agree. Reads [`crate::measure`] and nothing else.

pub mod metric;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

pub use self::metric::{Metric, MetricError, Quantile, Unit, bytes};
use crate::measure::{Measurement, RunId};

/// The value at a part (0 to 1) of sorted values: the smallest that so many are not above. Nothing of nothing is 0.
pub fn quantile(sorted: &[f64], part: f64) -> f64 {
    let rank = libm::ceil(part * sorted.len() as f64) as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
}

/// Mean; nothing of nothing is 0.
pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// Between which values the mean of what such values are drawn from lies with 95 % confidence: the 2.5th and 97.5th
/// percentile of the means of samples drawn from the values themselves (bootstrap), from a fixed seed.
pub fn bootstrap(values: &[f64]) -> (f64, f64) {
    const SAMPLES: usize = 10_000;
    if values.is_empty() {
        return (0.0, 0.0);
    }
    let mut rng = crate::random::stream(1, values.len(), "bootstrap");
    let mut means: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            (0..values.len()).map(|_| values[rng.usize(0..values.len())]).sum::<f64>() / values.len() as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    (quantile(&means, 0.025), quantile(&means, 0.975))
}

/// Which runs: of one system and variant, whatever their seeds, or of one seed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// What was varied.
    pub variant: String,
    /// What was run.
    pub system: String,
    /// With which seed; nothing for all together.
    pub seed: Option<u64>,
}

/// What some runs came to together. Times in seconds.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Name of the scenario.
    pub scenario: String,
    /// How many runs.
    pub runs: u64,
    /// Nodes of one of them.
    pub nodes: u64,
    /// Sites of one of them.
    pub sites: u64,
    /// How long each pull took, sorted; infinitely long where it never ended.
    pub completions: Vec<f64>,
    /// The same over the least time, for artifacts that were pulled at one time only.
    pub ratios: Vec<f64>,
    /// Until the first byte of each pull, sorted; infinitely long where there never was one.
    pub first_bytes: Vec<f64>,
    /// Nodes that pulled at a site, for each artifact and site.
    pub pullers: Vec<f64>,
    /// Bytes that the origin sent.
    pub origin_bytes: u64,
    /// Bytes of content that was pulled, each blob once.
    pub content: u64,
    /// Bytes into each site over the bytes of the artifacts pulled there, sorted.
    pub site_copies: Vec<f64>,
    /// Bytes of the control plane.
    pub control: u64,
    /// Of them, from one site to another.
    pub control_far: u64,
    /// Nodes times hours in which these bytes were counted.
    pub node_hours: f64,
    /// Messages that found a queue full.
    pub dropped: u64,
    /// When some node last knew less than others, of each run with such figures.
    pub behind_until: Vec<f64>,
    /// Until half of the nodes knew of a publication, sorted; infinitely long where they never did.
    pub half: Vec<f64>,
    /// Until 99 % knew.
    pub most: Vec<f64>,
    /// Until all knew.
    pub all: Vec<f64>,
    /// Nodes that did not know in the end, over all publications.
    pub missed: u64,
    /// Promises that were broken, for people.
    pub violations: Vec<String>,
    /// Other figures, one of each run.
    pub figures: BTreeMap<String, Vec<f64>>,
}

/// The summaries of all runs.
#[derive(Clone, Debug, Default)]
pub struct Table {
    summaries: BTreeMap<Row, Summary>,
}

impl Summary {
    /// A figure, where these runs have it and it needs no others.
    pub fn get(&self, metric: &Metric) -> Option<f64> {
        let of = |values: &[f64], part: Quantile| (!values.is_empty()).then(|| quantile(values, part.0));
        let last = |values: &[f64]| values.last().copied();
        match metric {
            Metric::Completion(part) => of(&self.completions, *part),
            Metric::Ratio(part) => of(&self.ratios, *part),
            Metric::FirstByte(part) => of(&self.first_bytes, *part),
            Metric::Mean => (!self.completions.is_empty()).then(|| mean(&self.completions)),
            Metric::ControlPerNode => {
                let nodes = self.nodes * self.runs;
                (self.node_hours > 0.0 && nodes > 0).then(|| self.control as f64 / nodes as f64)
            }
            Metric::BehindUntil => last(&self.behind_until),
            Metric::Done => {
                let done = self.completions.iter().filter(|seconds| seconds.is_finite()).count();
                (!self.completions.is_empty()).then(|| done as f64 / self.completions.len() as f64)
            }
            Metric::OriginCopies => {
                (self.content > 0).then(|| self.origin_bytes as f64 / self.content as f64)
            }
            Metric::SiteCopies => last(&self.site_copies),
            Metric::Control => (self.node_hours > 0.0).then(|| self.control as f64 / self.node_hours),
            Metric::SpreadHalf => last(&self.half),
            Metric::SpreadMost => last(&self.most),
            Metric::SpreadAll => last(&self.all),
            Metric::Missed => (!self.all.is_empty()).then_some(self.missed as f64),
            Metric::Violations => Some(self.violations.len() as f64),
            Metric::Figure(name) => self.figures.get(name)?.iter().copied().max_by(f64::total_cmp),
            Metric::SavingOfIdeal => None,
        }
    }

    fn merge(&mut self, other: &Summary) {
        self.scenario.clone_from(&other.scenario);
        (self.nodes, self.sites) = (other.nodes, other.sites);
        self.runs += other.runs;
        for (all, more) in [
            (&mut self.completions, &other.completions),
            (&mut self.ratios, &other.ratios),
            (&mut self.first_bytes, &other.first_bytes),
            (&mut self.pullers, &other.pullers),
            (&mut self.site_copies, &other.site_copies),
            (&mut self.behind_until, &other.behind_until),
            (&mut self.half, &other.half),
            (&mut self.most, &other.most),
            (&mut self.all, &other.all),
        ] {
            all.extend(more);
            all.sort_by(f64::total_cmp);
        }
        self.origin_bytes += other.origin_bytes;
        self.content += other.content;
        self.control += other.control;
        self.control_far += other.control_far;
        self.node_hours += other.node_hours;
        self.dropped += other.dropped;
        self.missed += other.missed;
        self.violations.extend(other.violations.iter().cloned());
        for (name, values) in &other.figures {
            self.figures.entry(name.clone()).or_default().extend(values);
        }
    }
}

impl Table {
    /// From the measurements of any runs, in any order.
    pub fn of<'a>(measurements: impl IntoIterator<Item = &'a Measurement>) -> Self {
        let mut table = Table::default();
        table.add(measurements);
        table
    }

    /// Adds all measurements of some runs.
    pub fn add<'a>(&mut self, measurements: impl IntoIterator<Item = &'a Measurement>) {
        let mut collected: BTreeMap<&RunId, Collected<'a>> = BTreeMap::new();
        for measurement in measurements {
            collected.entry(run_of(measurement)).or_default().take(measurement);
        }
        for (run, collected) in collected {
            let summary = collected.summary();
            let row = |seed| Row { variant: run.variant.clone(), system: run.system.clone(), seed };
            self.summaries.entry(row(None)).or_default().merge(&summary);
            self.summaries.entry(row(Some(run.seed))).or_default().merge(&summary);
        }
    }

    /// System and variant, all seeds together.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.summaries.keys().filter(|row| row.seed.is_none())
    }

    /// Each run by itself.
    pub fn runs(&self) -> impl Iterator<Item = &Row> {
        self.summaries.keys().filter(|row| row.seed.is_some())
    }

    /// What the runs of a row came to.
    pub fn summary(&self, row: &Row) -> Option<&Summary> {
        self.summaries.get(row)
    }

    /// A figure of a row.
    pub fn get(&self, row: &Row, metric: &Metric) -> Option<f64> {
        let summary = self.summary(row)?;
        if *metric != Metric::SavingOfIdeal {
            return summary.get(metric);
        }
        let origin = self.summary(&Row { system: "origin".to_owned(), ..row.clone() })?;
        let (with, without) = (mean(&summary.completions), mean(&origin.completions));
        let ideal = 1.0 - 1.0 / mean(&summary.pullers);
        (without > 0.0 && without.is_finite() && ideal > 0.0).then(|| (1.0 - with / without) / ideal)
    }
}

/// Which run a measurement is of.
pub fn run_of(measurement: &Measurement) -> &RunId {
    match measurement {
        Measurement::Run { run, .. }
        | Measurement::Bound { run, .. }
        | Measurement::Pull { run, .. }
        | Measurement::Line { run, .. }
        | Measurement::Between { run, .. }
        | Measurement::Control { run, .. }
        | Measurement::Spread { run, .. }
        | Measurement::Staleness { run, .. }
        | Measurement::Origin { run, .. }
        | Measurement::Figure { run, .. }
        | Measurement::Violation { run, .. } => run,
    }
}

/// The measurements of one run.
#[derive(Default)]
struct Collected<'a> {
    all: Vec<&'a Measurement>,
    bounds: BTreeMap<u64, f64>,
    into: BTreeMap<u64, u64>,
    pulled: BTreeMap<u64, BTreeMap<u64, u64>>,
    pullers: BTreeMap<(u64, u64), BTreeSet<u64>>,
    /// When each artifact was asked for first and last.
    asked: BTreeMap<u64, (f64, f64)>,
    until: f64,
    /// When somebody was behind last, as far as was looked.
    behind_until: Option<f64>,
}

impl<'a> Collected<'a> {
    fn take(&mut self, measurement: &'a Measurement) {
        match measurement {
            Measurement::Bound { artifact, seconds, .. } => {
                self.bounds.insert(*artifact, *seconds);
            }
            Measurement::Between { from, to, bytes, .. } if from != to => {
                *self.into.entry(*to).or_default() += bytes;
            }
            Measurement::Pull { artifact, bytes, site, node, asked, .. } => {
                let (first, last) = self.asked.entry(*artifact).or_insert((*asked, *asked));
                (*first, *last) = (first.min(*asked), last.max(*asked));
                self.pulled.entry(*site).or_default().insert(*artifact, *bytes);
                self.pullers.entry((*artifact, *site)).or_default().insert(*node);
            }
            Measurement::Staleness { at, behind, .. } => {
                let until = self.behind_until.get_or_insert(0.0);
                *until = if *behind > 0 { until.max(*at) } else { *until };
            }
            Measurement::Control { from, seconds, .. } => self.until = self.until.max(from + seconds),
            _ => {}
        }
        self.all.push(measurement);
    }

    fn summary(&self) -> Summary {
        let mut one = Summary { runs: 1, ..Summary::default() };
        self.all.iter().for_each(|measurement| self.add(&mut one, measurement));
        one.pullers = self.pullers.values().map(|nodes| nodes.len() as f64).collect();
        one.behind_until.extend(self.behind_until);
        one.node_hours = one.nodes as f64 * self.until / 3600.0;
        one.site_copies = self
            .pulled
            .iter()
            .map(|(site, artifacts)| {
                let content: u64 = artifacts.values().sum();
                self.into.get(site).copied().unwrap_or(0) as f64 / content.max(1) as f64
            })
            .collect();
        let mut sorted = Summary::default();
        sorted.merge(&one);
        sorted
    }

    fn add(&self, summary: &mut Summary, measurement: &Measurement) {
        let or_never = |time: Option<f64>| time.unwrap_or(f64::INFINITY);
        match measurement {
            Measurement::Run { scenario, nodes, sites, .. } => {
                summary.scenario.clone_from(scenario);
                (summary.nodes, summary.sites) = (*nodes, sites.len() as u64);
            }
            Measurement::Pull { artifact, asked, first_byte, done, .. } => {
                let seconds = or_never(*done) - asked;
                summary.completions.push(seconds);
                summary.first_bytes.push(or_never(*first_byte) - asked);
                let at_once = self.asked.get(artifact).is_some_and(|(first, last)| first == last);
                if let Some(bound) = self.bounds.get(artifact).filter(|bound| at_once && **bound > 0.0) {
                    summary.ratios.push(seconds / bound);
                }
            }
            Measurement::Control { bytes, far, dropped, .. } => {
                summary.control += bytes;
                summary.control_far += far;
                summary.dropped += dropped;
            }
            Measurement::Spread { half, most, all, missed, .. } => {
                summary.half.push(or_never(*half));
                summary.most.push(or_never(*most));
                summary.all.push(or_never(*all));
                summary.missed += missed;
            }
            Measurement::Origin { bytes, content, .. } => {
                summary.origin_bytes += bytes;
                summary.content += content;
            }
            Measurement::Figure { name, value: Some(value), .. } => {
                summary.figures.entry(name.clone()).or_default().push(*value);
            }
            Measurement::Violation { checker, at, text, run } => {
                summary.violations.push(format!("seed {}, {at:.3} s, {checker}: {text}", run.seed));
            }
            _ => {}
        }
    }
}

/// What is shown of each row.
const COLUMNS: &[(&str, &str)] = &[
    ("p50", "p50"),
    ("p90", "p90"),
    ("p99", "p99"),
    ("p99.9", "p99.9"),
    ("max", "max"),
    ("x bound", "ratio-max"),
    ("done", "done"),
    ("origin copies", "origin-copies"),
    ("site copies", "site-copies"),
    ("control/node/h", "control-per-node-hour"),
    ("spread half", "spread-half"),
    ("99 %", "spread-99"),
    ("all", "spread-all"),
    ("broken", "violations"),
];

impl fmt::Display for Table {
    /// As text, one line for each row; columns without any figure are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metrics: Vec<(&str, Metric)> =
            COLUMNS.iter().filter_map(|(head, name)| Some((*head, name.parse().ok()?))).collect();
        let has = |metric: &Metric| self.rows().any(|row| self.get(row, metric).is_some());
        let shown: Vec<_> = metrics.into_iter().filter(|(_, metric)| has(metric)).collect();
        let mut lines = vec![["variant", "system", "runs"].map(str::to_owned).to_vec()];
        lines[0].extend(shown.iter().map(|(head, _)| (*head).to_owned()));
        for row in self.rows() {
            let runs = self.summary(row).map_or(0, |summary| summary.runs);
            let variant = if row.variant.is_empty() { "-" } else { &row.variant };
            let mut line = vec![variant.to_owned(), row.system.clone(), runs.to_string()];
            let figure = |metric: &Metric| {
                self.get(row, metric).map_or_else(|| "-".to_owned(), |value| metric.unit().show(value))
            };
            line.extend(shown.iter().map(|(_, metric)| figure(metric)));
            lines.push(line);
        }
        f.write_str(&aligned(&lines))
    }
}

/// Lines of cells as text: the first two columns to the left, the others to the right.
pub fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|line: &Vec<String>| line.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        let mut out = String::new();
        for (column, cell) in line.iter().enumerate() {
            let pad = " ".repeat(widths[column] - cell.chars().count());
            if column > 0 {
                out += "  ";
            }
            out += &if column < 2 { format!("{cell}{pad}") } else { format!("{pad}{cell}") };
        }
        text += out.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_are_there() {
        let values: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert_eq!(
            [0.0, 0.5, 0.99, 0.999, 1.0].map(|part| quantile(&values, part)),
            [1.0, 500.0, 990.0, 999.0, 1000.0]
        );
        assert_eq!((quantile(&[7.0], 0.5), quantile(&[], 0.5)), (7.0, 0.0));
    }

    #[test]
    fn the_interval_of_known_values_is_known() {
        assert_eq!(bootstrap(&[3.0; 5]), (3.0, 3.0));
        // Half zeros and half ones: the mean of 100 of them deviates by 0.05, and 1.96 of that is 0.098.
        let coins: Vec<f64> = (0..100).map(|n| f64::from(n % 2)).collect();
        let (from, to) = bootstrap(&coins);
        assert!((from - 0.402).abs() < 0.012 && (to - 0.598).abs() < 0.012, "{from} {to}");
        assert_eq!(bootstrap(&coins), (from, to));
    }

    #[test]
    fn figures_are_what_one_counts_by_hand() {
        let run = |system: &str| RunId { system: system.into(), seed: 1, variant: String::new() };
        let pull = |system: &str, node: u64, seconds: f64| Measurement::Pull {
            run: run(system),
            artifact: 0,
            bytes: 100,
            site: 1,
            node,
            asked: 1.0,
            first_byte: Some(1.5),
            done: Some(1.0 + seconds),
        };
        let sites = vec!["a".to_owned(), "b".to_owned()];
        let all = |system: &str, slow: f64| {
            vec![
                Measurement::Run {
                    run: run(system),
                    scenario: "x".into(),
                    source: String::new(),
                    nodes: 5,
                    sites: sites.clone(),
                },
                Measurement::Bound {
                    run: run(system),
                    artifact: 0,
                    bytes: 100,
                    cut: "c".into(),
                    seconds: 2.0,
                },
                pull(system, 0, slow),
                pull(system, 1, slow),
                pull(system, 2, slow + 1.0),
                pull(system, 3, slow + 1.0),
                Measurement::Between { run: run(system), from: 0, to: 1, bytes: 110 },
                Measurement::Between { run: run(system), from: 1, to: 1, bytes: 300 },
                Measurement::Origin { run: run(system), bytes: 110, content: 100 },
                Measurement::Control {
                    run: run(system),
                    message: "gossip".into(),
                    from: 0.0,
                    seconds: 1800.0,
                    messages: 3,
                    bytes: 5000,
                    far: 10,
                    dropped: 0,
                },
                Measurement::Staleness { run: run(system), at: 4.0, behind: 2, nodes: 5, records: 9 },
                Measurement::Staleness { run: run(system), at: 8.0, behind: 0, nodes: 5, records: 9 },
            ]
        };
        let mut measurements = all("waystation", 3.0);
        measurements.extend(all("origin", 9.5));
        let table = Table::of(&measurements);
        let row = Row { variant: String::new(), system: "waystation".into(), seed: None };
        let figure = |name: &str| table.get(&row, &name.parse().unwrap());
        assert_eq!(["p50", "max", "mean"].map(figure), [Some(3.0), Some(4.0), Some(3.5)]);
        assert_eq!(figure("ratio-max"), Some(2.0));
        assert_eq!(figure("first-byte-p99"), Some(0.5));
        assert_eq!(["origin-copies", "site-copies"].map(figure), [Some(1.1), Some(1.1)]);
        assert_eq!(figure("control-per-node-hour"), Some(2000.0));
        assert_eq!(figure("control-per-node"), Some(1000.0));
        assert_eq!(figure("behind-until"), Some(4.0));
        assert_eq!(figure("missed"), None);
        assert_eq!(figure("violations"), Some(0.0));
        // 1 - 3.5 / 10 of 1 - 1/4.
        assert!((figure("saving-of-ideal").unwrap() - 0.65 / 0.75).abs() < 1e-12);
        let text = table.to_string();
        assert!(text.contains("origin copies") && !text.contains("spread"), "{text}");
    }

    #[test]
    fn names_of_metrics_are_read_as_they_are_shown() {
        for name in
            ["p50", "p99.9", "max", "ratio-p99", "first-byte-max", "done", "spread-99", "figure:availability"]
        {
            assert_eq!(name.parse::<Metric>().unwrap().to_string(), name);
        }
        for name in ["p101", "pp", "ratio", "first-p50", "speed"] {
            assert!(name.parse::<Metric>().is_err(), "{name}");
        }
    }
}
