//! What is measured: the list of cases with their goals, and the figures that a run of one comes to.

use std::{path::PathBuf, time::Duration};

use waystation_topology::{Bound, Place, Topology, Transfer};

use crate::{
    acts,
    fleet::{Fleet, Race},
    harness::image::Image,
};

/// Of a link's raw rate, what can be content; DESIGN's number.
pub const EFFICIENCY: f64 = 0.94;

/// One case, as the table lists it.
pub struct Case {
    pub name: &'static str,
    pub about: &'static str,
    /// File in configs/topologies.
    pub topology: &'static str,
    /// Parts of the artifact's bytes that its layers are, in hundredths.
    pub layers: &'static [usize],
    /// What is done.
    pub act: fn(&Scene) -> Result<Outcome, Skipped>,
    /// By name of the figure.
    pub goals: &'static [(&'static str, Goal)],
    /// Whether the other ways of sharing are measured, too.
    pub baselines: bool,
    /// Whether it is one of the few that `--short` runs.
    pub short: bool,
    /// Once is enough, whatever `--runs` says.
    pub once: bool,
}

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
    Between(f64, f64),
}

/// A measured number.
#[derive(Clone, Debug)]
pub struct Figure {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub figures: Vec<Figure>,
    /// What a reader must know about them.
    pub marks: Vec<String>,
}

/// Why a case was not run.
#[derive(Clone, Debug)]
pub struct Skipped(pub String);

/// How nodes share; the key is the node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    Swarm,
    SiteCache,
    Origin,
}

/// One run of a case.
pub struct Scene {
    pub topology: Topology,
    pub sharing: Sharing,
    /// Of the artifact.
    pub bytes: usize,
    pub layers: &'static [usize],
    pub quick: bool,
    /// How long idle nodes are watched.
    pub idle: Duration,
    /// Differs between runs.
    pub seed: u64,
}

/// The cases, in the order of the table.
pub const CASES: &[Case] = &[
    Case {
        name: "links",
        about: "the testbed itself: TCP over the lines, round trips and loss of the far line",
        topology: "one-site.toml",
        layers: &[],
        act: acts::links::act,
        goals: acts::links::GOALS,
        baselines: false,
        short: false,
        once: true,
    },
    Case {
        name: "one-site",
        about: "8 nodes of one site pull at once, WAN 50 Mbit/s, LAN 1 Gbit/s",
        topology: "one-site.toml",
        layers: LAYERS,
        act: acts::together::act,
        goals: &[("WAN blob bytes / content", Goal::AtMost(1.03)), ("time / T_min", Goal::AtMost(1.15))],
        baselines: true,
        short: true,
        once: false,
    },
    Case {
        name: "far-site",
        about: "the same, 20 ms away and 0.1 % of packets lost",
        topology: "far-site.toml",
        layers: LAYERS,
        act: acts::together::act,
        goals: &[("WAN blob bytes / content", Goal::AtMost(1.03))],
        baselines: false,
        short: false,
        once: false,
    },
    Case {
        name: "four-sites",
        about: "4 sites of 3 nodes, cloud uplink 20 Mbit/s, site links 50 Mbit/s",
        topology: "four-sites.toml",
        layers: LAYERS,
        act: acts::together::act,
        goals: &[("time / T_min", Goal::AtMost(1.25)), ("origin egress / content", Goal::AtMost(1.2))],
        baselines: true,
        short: true,
        once: false,
    },
    Case {
        name: "three-holders",
        about: "1 node from 3 holders limited to 60 MB/s each",
        topology: "three-holders.toml",
        layers: LAYERS,
        act: acts::holders::act,
        goals: &[("rate", Goal::AtLeast(0.95 * 180.0))],
        baselines: false,
        short: true,
        once: false,
    },
    Case {
        name: "fetcher-killed",
        about: "the fetching node of a site is killed at 50 %",
        topology: "one-site.toml",
        layers: LAYERS,
        act: acts::killed::act,
        goals: &[
            ("time over 1.1 x undisturbed", Goal::AtMost(2.0)),
            ("WAN blob bytes / content", Goal::AtMost(1.06)),
        ],
        baselines: false,
        short: false,
        once: false,
    },
    Case {
        name: "wan-cut",
        about: "the WAN is cut at 50 % for 60 s",
        topology: "one-site.toml",
        layers: LAYERS,
        act: acts::cut::act,
        goals: &[("after the cut, over the link's time", Goal::AtMost(3.0))],
        baselines: false,
        short: false,
        once: false,
    },
    Case {
        name: "liar",
        about: "one of 3 holders flips bits in every 10th piece",
        topology: "three-holders.toml",
        layers: LAYERS,
        act: acts::liar::act,
        goals: &[("time / honest", Goal::AtMost(1.25)), ("holder named", Goal::AtLeast(1.0))],
        baselines: false,
        short: false,
        once: false,
    },
    Case {
        name: "update",
        about: "a new version that shares 90 % of its layer bytes, 8 nodes of one site",
        topology: "one-site.toml",
        layers: &[10; 10],
        act: acts::update::act,
        goals: &[("WAN blob bytes / new content", Goal::AtMost(1.03))],
        baselines: false,
        short: false,
        once: false,
    },
    Case {
        name: "budget",
        about: "10 Mbit/s set while a fetch runs at full speed",
        topology: "one-site.toml",
        layers: LAYERS,
        act: acts::budget::act,
        // By default a client may have half of what is left where the background wants more.
        goals: &[
            ("from 2 s after / limit", Goal::AtMost(1.05)),
            ("a client's rate meanwhile", Goal::AtLeast(4.5)),
        ],
        baselines: false,
        short: false,
        once: false,
    },
    Case {
        name: "idle",
        about: "4 sites of 5 nodes with 5,000 artifacts known, watched for 10 minutes unless said otherwise (quick: 1)",
        topology: "idle.toml",
        layers: &[],
        act: acts::idle::act,
        goals: &[
            ("WAN of a site in 30 days", Goal::AtMost(20.0)),
            ("LAN of a node", Goal::AtMost(2.0)),
            ("CPU of a node", Goal::AtMost(0.5)),
        ],
        baselines: false,
        short: false,
        once: true,
    },
];

/// Of every pull: frames on the line to blob bytes over it.
pub const EVERYWHERE: &[(&str, Goal)] = &[("WAN interface / blob bytes", Goal::AtMost(1.08))];

/// An artifact of several blobs of different sizes.
const LAYERS: &[usize] = &[40, 30, 15, 10, 5];

impl Goal {
    pub fn holds(self, value: f64) -> bool {
        match self {
            Goal::AtMost(most) => value <= most,
            Goal::AtLeast(least) => value >= least,
            Goal::Between(least, most) => (least..=most).contains(&value),
        }
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Goal::AtMost(most) => write!(f, "≤ {most}"),
            Goal::AtLeast(least) => write!(f, "≥ {least}"),
            Goal::Between(least, most) => write!(f, "{least} to {most}"),
        }
    }
}

impl Sharing {
    pub fn name(self) -> &'static str {
        match self {
            Sharing::Swarm => "swarm",
            Sharing::SiteCache => "site-cache",
            Sharing::Origin => "origin",
        }
    }
}

impl Outcome {
    pub fn add(&mut self, name: &str, value: f64, unit: &'static str) {
        self.figures.push(Figure { name: name.to_owned(), value, unit });
    }

    pub fn value(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }
}

impl Scene {
    /// The nodes of the topology, but for those in `without`.
    pub fn fleet(&self, without: &[Place]) -> Result<Fleet, Skipped> {
        let sharing = match self.sharing {
            Sharing::Swarm => vec![],
            other => vec![("WAYSTATION_REPLICATION_SHARING".to_owned(), other.name().to_owned())],
        };
        Fleet::start(self.topology.clone(), &sharing, without).map_err(Skipped)
    }

    /// An artifact of this run's own.
    pub fn image(&self) -> Image {
        let sizes: Vec<_> = self.layers.iter().map(|part| self.bytes * part / 100).collect();
        Image::random(self.seed, &sizes)
    }

    /// The least time in which these bytes can be at all these nodes.
    pub fn least_time(&self, fleet: &Fleet, holders: &[usize], wanters: &[usize], bytes: u64) -> Bound {
        let places = |numbers: &[usize]| numbers.iter().map(|n| fleet.members()[*n].place).collect();
        let (holders, wanters) = (places(holders), places(wanters));
        Transfer { bytes, holders, wanters, efficiency: EFFICIENCY }.least_time(&self.topology)
    }

    /// How long to wait for a pull that is this bad at most: everybody by itself, and slowly.
    pub fn patience(&self, least: &Bound, pullers: usize) -> Duration {
        Duration::from_secs_f64(120.0 + 3.0 * pullers as f64 * least.seconds)
    }

    /// The figures that every pull has.
    pub fn outcome(&self, fleet: &Fleet, race: &Race, least: &Bound, content: u64) -> Outcome {
        let mut outcome = Outcome::default();
        let (content, seconds) = (content as f64, race.seconds());
        let last = seconds.last().copied().unwrap_or(f64::NAN);
        outcome.add("time p50", quantile(&seconds, 0.5), "s");
        outcome.add("time p99", quantile(&seconds, 0.99), "s");
        outcome.add("time max", last, "s");
        outcome.add("T_min", least.seconds, "s");
        outcome.add("time / T_min", last / least.seconds, "");
        let origin = self.topology.origin();
        let sites = (0..self.topology.sites.len()).filter(|site| *site != origin);
        let into = |site: usize| race.bytes_into(fleet, site) as f64;
        if let Some(worst) = sites.max_by(|a, b| into(*a).total_cmp(&into(*b))) {
            outcome.add("WAN blob bytes / content", into(worst) / content, "");
            outcome.add("WAN interface / blob bytes", race.crossed[worst].down as f64 / into(worst), "");
        }
        let egress = race.bytes_out_of(fleet, origin) as f64;
        outcome.add("origin egress / content", egress / content, "");
        outcome.add("origin interface / content", race.crossed[origin].up as f64 / content, "");
        outcome.add("CPU of all nodes", race.cpu, "s");
        outcome.add("RSS of a node, peak", race.rss / 1_048_576.0, "MiB");
        let retries: usize = race.pulled.iter().map(|pulled| pulled.retries).sum();
        outcome.add("requests tried again", retries as f64, "");
        outcome.marks.push(format!("T_min is {}", least.cut));
        self.mark(fleet, &mut outcome);
        outcome
    }

    /// Says where the network was not all the kernel's.
    pub fn mark(&self, fleet: &Fleet, outcome: &mut Outcome) {
        if fleet.network.has_own_wires() {
            outcome.marks.push("delay and loss by the testbed, not by netem".to_owned());
        }
        if fleet.network.overflowed() > 0 {
            outcome.marks.push(format!("NOT VALID: the testbed lost {} packets", fleet.network.overflowed()));
        }
    }
}

/// Of sorted values; the nearest one.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

/// Where the topologies are.
pub fn topology_file(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "configs", "topologies", name].iter().collect()
}
