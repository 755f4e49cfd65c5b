//! A scenario file as it is written: every table and key, and nothing of what they mean.
//! `configs/scenarios/README.md` explains them to people who write such files.

use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;
use waystation_topology::{Delay, Fleet, Pace, Part, Rate, Share, Size, Time, file::Group};

use super::{expect::Expect, sweep::Sweep, who::Who};
use crate::setup::Start;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct File {
    pub name: Spanned<String>,
    pub source: String,
    #[serde(default)]
    pub like: Vec<String>,
    #[serde(default)]
    pub unlike: Vec<String>,
    pub topology: Option<Spanned<PathBuf>>,
    #[serde(default)]
    pub site: Vec<Group>,
    pub generate: Option<Spanned<Fleet>>,
    #[serde(default)]
    pub start: Start,
    pub upstream: Option<Spanned<String>>,
    pub duration: Option<Spanned<Time>>,
    pub bucket: Option<Time>,
    pub seeds: Option<Spanned<Vec<u64>>>,
    pub systems: Option<Spanned<Vec<String>>>,
    #[serde(default)]
    pub network: Network,
    #[serde(default)]
    pub sweep: Sweep,
    #[serde(default)]
    pub artifact: Vec<Artifact>,
    #[serde(default)]
    pub images: Vec<Images>,
    #[serde(default)]
    pub workload: Workload,
    #[serde(default)]
    pub fault: Faults,
    pub reconcile: Option<Reconcile>,
    #[serde(default)]
    pub expect: Vec<Expect>,
}

/// What topologies do not say.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Network {
    pub jitter: Option<Delay>,
    pub lan_loss: Option<Share>,
    pub duplication: Option<Share>,
    pub reordering: Option<Share>,
    pub queue: Option<Size>,
    pub efficiency: Option<Part>,
    pub disk: Option<Rate>,
}

/// One artifact, its layers given.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Artifact {
    pub name: Spanned<String>,
    pub repository: Option<String>,
    pub tags: Option<Vec<String>>,
    pub size: Option<Size>,
    pub split: Option<Spanned<usize>>,
    #[serde(default)]
    pub layers: Vec<Layer>,
}

/// One layer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Layer {
    pub size: Size,
    pub content: Option<String>,
}

/// Synthetic images.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Images {
    pub name: Spanned<String>,
    pub count: Spanned<usize>,
    pub fresh: Option<Part>,
    pub largest_layer: Option<Size>,
}

/// Everything that people and programs ask for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Workload {
    #[serde(default)]
    pub held: Vec<Held>,
    #[serde(default)]
    pub publish: Vec<Publish>,
    #[serde(default)]
    pub publishes: Vec<Publishes>,
    #[serde(default)]
    pub burst: Vec<Burst>,
    #[serde(default)]
    pub rolling: Vec<Rolling>,
    #[serde(default)]
    pub steady: Vec<Steady>,
    #[serde(default)]
    pub moves: Vec<Moves>,
    #[serde(default)]
    pub sleep: Vec<Sleep>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Held {
    pub artifact: Spanned<String>,
    pub at: Spanned<Who>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Publish {
    pub artifact: Spanned<String>,
    pub at: Option<Spanned<Who>>,
    #[serde(default)]
    pub time: Time,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Publishes {
    pub images: Spanned<String>,
    pub at: Option<Spanned<Who>>,
    pub pace: Pace,
    #[serde(default)]
    pub from: Time,
    pub until: Option<Time>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Burst {
    pub artifact: Spanned<String>,
    pub who: Spanned<Who>,
    #[serde(default)]
    pub time: Time,
    #[serde(default)]
    pub spread: Time,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rolling {
    pub artifact: Spanned<String>,
    pub who: Spanned<Who>,
    pub batch: Spanned<Part>,
    pub every: Time,
    #[serde(default)]
    pub time: Time,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Steady {
    pub artifact: Spanned<String>,
    pub who: Spanned<Who>,
    pub pace: Pace,
    pub zipf: Option<Spanned<f64>>,
    #[serde(default)]
    pub from: Time,
    pub until: Option<Time>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Moves {
    pub artifact: Spanned<String>,
    pub at: Option<Spanned<Who>>,
    pub pace: Pace,
    pub changes: Part,
    pub pulled_by: Option<Spanned<Who>>,
    #[serde(default)]
    pub spread: Time,
    #[serde(default)]
    pub from: Time,
    pub until: Option<Time>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Sleep {
    pub who: Spanned<Who>,
    pub awake: Spanned<Time>,
    pub asleep: Spanned<Time>,
    #[serde(default)]
    pub from: Time,
    pub until: Option<Time>,
}

/// Everything that goes wrong.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Faults {
    #[serde(default)]
    pub crash: Vec<Spanned<Crash>>,
    #[serde(default)]
    pub join: Vec<Spread>,
    #[serde(default)]
    pub leave: Vec<Spread>,
    #[serde(default)]
    pub away: Vec<Away>,
    #[serde(default)]
    pub partition: Vec<Spanned<Partition>>,
    #[serde(default)]
    pub power_cut: Vec<Spanned<PowerCut>>,
    #[serde(default)]
    pub outage: Vec<Outage>,
    #[serde(default)]
    pub clock: Vec<Spanned<Clock>>,
    #[serde(default)]
    pub lies: Vec<Spanned<Lies>>,
    #[serde(default)]
    pub disk_full: Vec<DiskFor>,
    #[serde(default)]
    pub disk_slow: Vec<DiskFor>,
    #[serde(default)]
    pub stale: Vec<Stale>,
    #[serde(default)]
    pub rot: Vec<Spanned<Rot>>,
    #[serde(default)]
    pub line: Vec<Line>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Crash {
    pub who: Spanned<Who>,
    pub time: Option<Time>,
    pub pace: Option<Pace>,
    #[serde(default)]
    pub from: Time,
    pub until: Option<Time>,
    pub down: Time,
    #[serde(default)]
    pub loses_disk: bool,
    #[serde(default)]
    pub silent: bool,
}

/// What each of some nodes does once.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Spread {
    pub who: Spanned<Who>,
    #[serde(default)]
    pub time: Time,
    #[serde(default)]
    pub spread: Time,
}

/// Nodes that are not there for a while, and come back over a while.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Away {
    pub who: Spanned<Who>,
    #[serde(default)]
    pub time: Time,
    pub lasts: Time,
    #[serde(default)]
    pub spread: Time,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Partition {
    pub sites: Spanned<Who>,
    pub time: Option<Time>,
    pub pace: Option<Pace>,
    #[serde(default)]
    pub from: Time,
    pub until: Option<Time>,
    pub lasts: Time,
    #[serde(default)]
    pub ways: Ways,
}

/// In which directions nothing gets through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ways {
    /// Neither out of the sites nor into them.
    #[default]
    Both,
    /// Out of them.
    Out,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PowerCut {
    pub sites: Spanned<Who>,
    pub time: Option<Time>,
    pub pace: Option<Pace>,
    #[serde(default)]
    pub from: Time,
    pub until: Option<Time>,
    pub lasts: Time,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Outage {
    pub time: Time,
    pub lasts: Time,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Clock {
    pub who: Spanned<Who>,
    #[serde(default)]
    pub time: Time,
    pub ahead: Option<Time>,
    pub behind: Option<Time>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Lies {
    pub who: Spanned<Who>,
    #[serde(default)]
    pub time: Time,
    pub every: Option<u32>,
}

/// What a disk had at a time is what it has again when that is over, after it was down.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Stale {
    pub who: Spanned<Who>,
    #[serde(default)]
    pub time: Time,
    pub lasts: Time,
    pub down: Time,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DiskFor {
    pub who: Spanned<Who>,
    pub time: Time,
    pub lasts: Option<Time>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rot {
    pub who: Spanned<Who>,
    pub artifact: Spanned<String>,
    pub time: Option<Time>,
    pub pace: Option<Pace>,
    #[serde(default)]
    pub from: Time,
    pub until: Option<Time>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Line {
    pub sites: Spanned<Who>,
    pub time: Time,
    pub up: Rate,
    pub down: Rate,
    pub lasts: Option<Time>,
}

/// Comparing catalogs, without a network.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Reconcile {
    pub records: Spanned<Vec<u64>>,
    pub differences: Spanned<Vec<u64>>,
}
