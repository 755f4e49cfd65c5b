//! What the runs of one system with one variant gave, all seeds together. The second reading of the file adds it
//! up; what is kept does not grow with the length of the file.

use std::collections::{BTreeMap, BTreeSet};

use super::{bins::Bins, matrix::Matrix, outline::RunOutline, quantiles::Quantiles};
use crate::measure::{Measurement, RunId};

/// Pairs of site and artifact that are remembered, to tell how much the sites had to get.
const NEEDED_MAX: usize = 1_000_000;
/// Names of other figures, and of kinds of messages.
const NAMES_MAX: usize = 200;
/// Words of a figure that are kept.
const WORDS_MAX: usize = 3;
/// Parts of a run that curves over time have.
const PARTS: usize = 120;
/// Lines of sites that are shown over time, beside the origin's.
const BUSY_MAX: usize = 3;

/// A system with a variant.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// As in [`RunId`].
    pub system: String,
    /// As in [`RunId`].
    pub variant: String,
    /// Nodes of its largest run.
    pub nodes: u64,
    /// All of them.
    pub seeds: BTreeSet<u64>,
    /// Of the first seed.
    pub first: RunOutline,
    /// Pulls that ended.
    pub completion: Quantiles,
    /// The same, each over the least time for its artifact.
    pub ratio: Quantiles,
    /// Until the first byte could be handed out.
    pub first_byte: Quantiles,
    /// Pulls that did not end.
    pub failed: u64,
    /// Bytes out of the origin's site in all runs, and of the content that was pulled.
    pub origin: Option<(u64, u64)>,
    /// Bytes into sites from others in all runs.
    pub entered: u64,
    /// Bytes of what the sites pulled, each artifact once a site.
    pub needed: u64,
    /// Nodes times hours of all runs.
    pub node_hours: f64,
    /// By kind of message.
    pub control: BTreeMap<String, Control>,
    /// Until half, 99 % and all knew of a publication.
    pub spread: [Quantiles; 3],
    /// Publications that were measured.
    pub published: u64,
    /// Nodes that had not heard of one in the end.
    pub missed: u64,
    /// Any other figure.
    pub figures: BTreeMap<String, Figure>,
    /// What is only kept of groups that are shown in detail.
    pub detail: Option<Detail>,
    seen: BTreeSet<(u64, u64, u64)>,
}

/// Curves over time and matrices.
#[derive(Clone, Debug)]
pub struct Detail {
    /// By site: bits per second out and in, of the first seed.
    pub traffic: BTreeMap<u64, (Bins, Bins)>,
    /// Bytes from site to site, of the first seed.
    pub matrix: Matrix,
    /// Share of the nodes that did not know all, the worst of all seeds.
    pub behind: Bins,
    /// Since the cloud went away: pulls that ended and that did not.
    pub served: (Bins, Bins),
    /// Whether the hours count from an outage or from the begin of the run.
    pub outage_known: bool,
}

/// What the messages of a kind cost, in all runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Control {
    /// Sent.
    pub messages: u64,
    /// Of these.
    pub bytes: u64,
    /// Of these, from one site to another.
    pub far: u64,
    /// Found a queue full.
    pub dropped: u64,
}

/// A figure over the seeds.
#[derive(Clone, Debug, Default)]
pub struct Figure {
    /// Of what has a number.
    pub values: Quantiles,
    /// Their sum; quantiles know none below zero.
    pub sum: f64,
    /// How many are in the sum.
    pub count: u64,
    /// Some of the words.
    pub words: BTreeSet<String>,
}

impl Group {
    /// A run of it is there.
    pub fn join(&mut self, run: &RunId, outline: &RunOutline) {
        if self.seeds.is_empty() {
            (self.system, self.variant) = (run.system.clone(), run.variant.clone());
            self.first = outline.clone();
        }
        self.seeds.insert(run.seed);
        self.nodes = self.nodes.max(outline.nodes);
        self.node_hours += outline.nodes as f64 * outline.end / 3600.0;
    }

    /// Curves and matrices are wanted of it.
    pub fn keep_detail(&mut self) {
        let first = &self.first;
        let sites = first.origin().into_iter().chain(first.busiest(BUSY_MAX));
        let over = |end: f64| Bins::new(0.0, end, PARTS);
        let outage = first.outage_from.unwrap_or(0.0);
        let hours = Bins::rounded(outage, first.end);
        self.detail = Some(Detail {
            traffic: sites.map(|site| (site, (over(first.busy_until), over(first.busy_until)))).collect(),
            matrix: Matrix::new(&first.sites, first.origin()),
            behind: over(first.end),
            served: (hours.clone(), hours),
            outage_known: first.outage_from.is_some(),
        });
    }

    /// Takes a measurement of one of its runs in.
    pub fn take(&mut self, outline: &RunOutline, measurement: &Measurement) {
        match measurement {
            Measurement::Pull { .. } => self.pull(outline, measurement),
            Measurement::Line { run, site, from, seconds, up, down, .. } => {
                let first = Some(&run.seed) == self.seeds.first();
                let lines = self.detail.as_mut().filter(|_| first);
                if let Some((out, into)) = lines.and_then(|detail| detail.traffic.get_mut(site)) {
                    out.spread(*from, *seconds, *up as f64);
                    into.spread(*from, *seconds, *down as f64);
                }
            }
            Measurement::Between { run, from, to, bytes } => {
                if from != to && Some(*to) != outline.origin() {
                    self.entered = self.entered.saturating_add(*bytes);
                }
                if Some(&run.seed) == self.seeds.first()
                    && let Some(detail) = &mut self.detail
                {
                    detail.matrix.add(*from, *to, *bytes);
                }
            }
            Measurement::Control { message, messages, bytes, far, dropped, .. } => {
                let known = self.control.len() < NAMES_MAX || self.control.contains_key(message);
                let kind = if known { message.as_str() } else { "other" };
                let cost = self.control.entry(kind.to_owned()).or_default();
                cost.messages = cost.messages.saturating_add(*messages);
                cost.bytes = cost.bytes.saturating_add(*bytes);
                cost.far = cost.far.saturating_add(*far);
                cost.dropped = cost.dropped.saturating_add(*dropped);
            }
            Measurement::Spread { half, most, all, missed, .. } => {
                for (quantiles, value) in self.spread.iter_mut().zip([half, most, all]) {
                    value.iter().for_each(|value| quantiles.add(*value));
                }
                self.published += 1;
                self.missed = self.missed.saturating_add(*missed);
            }
            Measurement::Staleness { at, behind, nodes, .. } => {
                if let Some(detail) = self.detail.as_mut().filter(|_| *nodes > 0) {
                    detail.behind.raise(*at, *behind as f64 / *nodes as f64);
                }
            }
            Measurement::Origin { bytes, content, .. } => {
                let (sent, all) = self.origin.unwrap_or_default();
                self.origin = Some((sent.saturating_add(*bytes), all.saturating_add(*content)));
            }
            Measurement::Figure { name, value, text, .. } => self.figure(name, *value, text.as_deref()),
            Measurement::Run { .. } | Measurement::Bound { .. } | Measurement::Violation { .. } => {}
        }
    }

    fn pull(&mut self, outline: &RunOutline, pull: &Measurement) {
        let Measurement::Pull { run, artifact, bytes, site, asked, first_byte, done, .. } = pull else {
            return;
        };
        if let Some(first_byte) = first_byte {
            self.first_byte.add(first_byte - asked);
        }
        if let Some(done) = done {
            self.completion.add(done - asked);
            if let Some(bound) = outline.bounds.get(artifact).filter(|bound| bound.seconds > 0.0) {
                self.ratio.add((done - asked) / bound.seconds);
            }
        } else {
            self.failed += 1;
        }
        if let Some(detail) = &mut self.detail {
            let bins = if done.is_some() { &mut detail.served.0 } else { &mut detail.served.1 };
            bins.put(*asked, 1.0);
        }
        if Some(*site) != outline.origin()
            && self.seen.len() <= NEEDED_MAX
            && self.seen.insert((run.seed, *site, *artifact))
        {
            self.needed = self.needed.saturating_add(*bytes);
        }
    }

    fn figure(&mut self, name: &str, value: Option<f64>, text: Option<&str>) {
        if self.figures.len() >= NAMES_MAX && !self.figures.contains_key(name) {
            return;
        }
        let figure = self.figures.entry(name.to_owned()).or_default();
        if let Some(value) = value.filter(|value| value.is_finite()) {
            figure.values.add(value);
            figure.sum += value;
            figure.count += 1;
        }
        if let Some(text) = text.filter(|_| figure.words.len() < WORDS_MAX) {
            figure.words.insert(text.to_owned());
        }
    }

    /// How often the content left the origin's site.
    pub fn origin_copies(&self) -> Option<f64> {
        self.origin.filter(|(_, content)| *content > 0).map(|(sent, content)| sent as f64 / content as f64)
    }

    /// Bytes out of the origin's site in a run.
    pub fn origin_bytes(&self) -> Option<f64> {
        self.origin.map(|(sent, _)| sent as f64 / self.seeds.len().max(1) as f64)
    }

    /// How often what a site pulled came into it, where that could be told.
    pub fn site_copies(&self) -> Option<f64> {
        let all_seen = self.seen.len() <= NEEDED_MAX;
        (all_seen && self.needed > 0).then(|| self.entered as f64 / self.needed as f64)
    }

    /// Bytes of the control plane for each node and hour.
    pub fn control_rate(&self) -> Option<f64> {
        let bytes: f64 = self.control.values().map(|cost| cost.bytes as f64).sum();
        (!self.control.is_empty() && self.node_hours > 0.0).then(|| bytes / self.node_hours)
    }

    /// The artifact whose least time is the longest.
    pub fn bound(&self) -> Option<&super::outline::Bound> {
        self.first.bounds.values().max_by(|a, b| a.seconds.total_cmp(&b.seconds))
    }

    /// For people: system, and variant where there is one.
    pub fn name(&self) -> String {
        if self.variant.is_empty() {
            self.system.clone()
        } else {
            format!("{}, {}", self.system, self.variant)
        }
    }
}
