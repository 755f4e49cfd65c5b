//! What a run comes to: its pulls, what its lines carried, who sent bytes to whom. Whoever carries a setup out
//! tells this file what happens and gets the measurements written, so that all systems are counted alike.

use std::collections::{BTreeMap, BTreeSet};

use waystation_topology::{Place, Rate, Topology, Transfer};

use crate::{
    measure::{Measurement, RunId, Sink},
    setup::{Action, Layer, Nanos, SECOND, Setup},
};

/// The counters of a run.
pub struct Account {
    run: RunId,
    origin: usize,
    bucket: Nanos,
    /// When the bucket that is counted began.
    from: Nanos,
    /// What each site's line had carried when it began: out, in.
    lines: Vec<(u64, u64)>,
    between: BTreeMap<(usize, usize), u64>,
    pulls: Vec<Pull>,
}

/// A pull by its number in the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PullId(usize);

struct Pull {
    artifact: usize,
    at: Place,
    asked: Nanos,
    first_byte: Option<Nanos>,
    done: Option<Nanos>,
}

/// What a site's line has carried since the run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Bytes of blobs out of the site.
    pub up: u64,
    /// Bytes of blobs into it.
    pub down: u64,
    /// Bytes of the control plane in this bucket alone, both ways.
    pub control: u64,
}

impl Account {
    /// Begins a run: writes what it is and what bounds it.
    pub fn begin(setup: &Setup, run: RunId, source: &str, sink: &mut impl Sink) -> Self {
        sink.take(Measurement::Run {
            run: run.clone(),
            scenario: setup.name.clone(),
            source: source.to_owned(),
            nodes: setup.topology.places().count() as u64,
            sites: setup.topology.sites.iter().map(|site| site.name.clone()).collect(),
        });
        for (artifact, transfer) in transfers(setup) {
            let bound = transfer.least_time(&fastest(setup));
            sink.take(Measurement::Bound {
                run: run.clone(),
                artifact: artifact as u64,
                bytes: transfer.bytes,
                cut: bound.cut,
                seconds: bound.seconds,
            });
        }
        Account {
            run,
            origin: setup.topology.origin(),
            bucket: setup.bucket.max(1),
            from: 0,
            lines: vec![(0, 0); setup.topology.sites.len()],
            between: BTreeMap::new(),
            pulls: vec![],
        }
    }

    /// A client asks.
    pub fn asked(&mut self, now: Nanos, artifact: usize, at: Place) -> PullId {
        self.pulls.push(Pull { artifact, at, asked: now, first_byte: None, done: None });
        PullId(self.pulls.len() - 1)
    }

    /// The first byte could be handed out; what is told later does not count.
    pub fn first_byte(&mut self, now: Nanos, pull: PullId) {
        self.pulls[pull.0].first_byte.get_or_insert(now);
    }

    /// All of it is there.
    pub fn done(&mut self, now: Nanos, pull: PullId) {
        self.first_byte(now, pull);
        self.pulls[pull.0].done.get_or_insert(now);
    }

    /// Bytes of blobs went from one site to another, or within one; also those of a transfer that broke.
    pub fn moved(&mut self, from: usize, to: usize, bytes: u64) {
        if bytes > 0 {
            *self.between.entry((from, to)).or_default() += bytes;
        }
    }

    /// When the bucket that is counted is over, and [`Account::close_bucket`] is to be called.
    pub fn bucket_ends(&self) -> Nanos {
        self.from.saturating_add(self.bucket)
    }

    /// Ends a bucket. Lines that carried nothing are left out.
    pub fn close_bucket(&mut self, now: Nanos, carried: impl Fn(usize) -> Carried, sink: &mut impl Sink) {
        if now == self.from {
            return;
        }
        for (site, before) in self.lines.iter_mut().enumerate() {
            let Carried { up, down, control } = carried(site);
            let (new_up, new_down) = (up.saturating_sub(before.0), down.saturating_sub(before.1));
            *before = (up, down);
            if new_up + new_down + control > 0 {
                sink.take(Measurement::Line {
                    run: self.run.clone(),
                    site: site as u64,
                    from: seconds(self.from),
                    seconds: seconds(now - self.from),
                    up: new_up,
                    down: new_down,
                    control,
                });
            }
        }
        self.from = now;
    }

    /// Ends the run, after its last bucket: writes pulls, who sent to whom, and what the origin sent.
    pub fn end(self, setup: &Setup, sink: &mut impl Sink) {
        let run = self.run;
        for pull in &self.pulls {
            sink.take(Measurement::Pull {
                run: run.clone(),
                artifact: pull.artifact as u64,
                bytes: setup.artifacts[pull.artifact].bytes(),
                site: pull.at.site as u64,
                node: pull.at.node as u64,
                asked: seconds(pull.asked),
                first_byte: pull.first_byte.map(seconds),
                done: pull.done.map(seconds),
            });
        }
        for ((from, to), bytes) in &self.between {
            let (from, to) = (*from as u64, *to as u64);
            sink.take(Measurement::Between { run: run.clone(), from, to, bytes: *bytes });
        }
        let leaves = |((from, to), _): &(&(usize, usize), &u64)| *from == self.origin && to != from;
        let bytes = self.between.iter().filter(leaves).map(|(_, bytes)| bytes).sum();
        let pulled = self.pulls.iter().flat_map(|pull| &setup.artifacts[pull.artifact].layers);
        let content: BTreeSet<&Layer> = pulled.collect();
        let content = content.iter().map(|layer| layer.bytes).sum();
        sink.take(Measurement::Origin { run, bytes, content });
    }
}

/// What must move for each artifact that is pulled: its layers that are in no other artifact, from where it is
/// published to all who pull it and did not have it. Less may be bounded than moves, never more.
fn transfers(setup: &Setup) -> Vec<(usize, Transfer)> {
    let mut holders = vec![BTreeSet::new(); setup.artifacts.len()];
    let mut wanters = holders.clone();
    for (_, action) in &setup.actions {
        match action {
            Action::Publish { artifact, at } | Action::Seed { artifact, at } => {
                holders[*artifact].insert(*at)
            }
            Action::Pull { artifact, at } => wanters[*artifact].insert(*at),
            _ => continue,
        };
    }
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for artifact in &setup.artifacts {
        let contents: BTreeSet<&str> = artifact.layers.iter().map(|layer| layer.content.as_str()).collect();
        for content in contents {
            *times.entry(content).or_default() += 1;
        }
    }
    let of = |artifact: usize| {
        let layers: BTreeSet<&Layer> = setup.artifacts[artifact].layers.iter().collect();
        let own = layers.iter().filter(|layer| times.get(layer.content.as_str()) == Some(&1));
        Transfer {
            bytes: own.map(|layer| layer.bytes).sum(),
            holders: holders[artifact].iter().copied().collect(),
            wanters: wanters[artifact].difference(&holders[artifact]).copied().collect(),
            efficiency: f64::from(setup.network.efficiency) / 1e6,
        }
    };
    let moves = |(_, transfer): &(usize, Transfer)| {
        transfer.bytes > 0 && !transfer.holders.is_empty() && !transfer.wanters.is_empty()
    };
    (0..setup.artifacts.len()).map(|artifact| (artifact, of(artifact))).filter(moves).collect()
}

/// The network with each line as fast as it ever is, which no run can beat.
fn fastest(setup: &Setup) -> Topology {
    let mut topology = setup.topology.clone();
    for (_, action) in &setup.actions {
        if let Action::Line { site, up, down } = action {
            let line = &mut topology.sites[*site].uplink;
            line.up = line.up.max(Rate::from_bits(*up));
            line.down = line.down.max(Rate::from_bits(*down));
        }
    }
    topology
}

/// As measurements have it.
pub fn seconds(time: Nanos) -> f64 {
    time as f64 / SECOND as f64
}
