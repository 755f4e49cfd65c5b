//! Networks as files: sites, their nodes and their lines to the world. The simulator and the testbed read the
//! same files, so that a figure of one can stand beside the other's. This crate parses and computes; building a
//! network, simulated or real, is its readers'.
//!
//! Reading order: [`unit`](mod@unit), [`source`], [`file`](mod@file), [`generate`], [`bound`]. `configs/topologies/README.md` explains the form to
//! people who write such files.
#![forbid(unsafe_code)]

pub mod bound;
pub mod file;
pub mod generate;
pub mod source;
pub mod unit;

pub use bound::{Bound, CutBytes, Place, Transfer};
pub use generate::Fleet;
pub use source::{FileError, Problem};
pub use unit::{Delay, Pace, Part, Rate, Share, Size, Time};

use serde::Deserialize;

/// A network: sites joined by a core that is never the bottleneck. At least one site, of which exactly one is
/// the origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// In the order of the file; a generated group is spread out in its place.
    pub sites: Vec<Site>,
}

/// One site: nodes at a switch, and a line to the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Unique in the file.
    pub name: String,
    /// Its place in the continuum.
    pub tier: Tier,
    /// Whether artifacts are published here.
    pub origin: bool,
    /// How many nodes are here; at least one.
    pub nodes: usize,
    /// Between its nodes.
    pub lan: Lan,
    /// Between its switch and the core.
    pub uplink: Uplink,
    /// What each node may store; none is no limit.
    pub disk: Option<Size>,
}

/// Where a site is in the continuum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// A data centre.
    Cloud,
    /// A site's server.
    Edge,
    /// Small devices.
    Iot,
}

impl Tier {
    /// As files and nodes spell it.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Cloud => "cloud",
            Tier::Edge => "edge",
            Tier::Iot => "iot",
        }
    }
}

/// The network of a site. Its switch has no limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lan {
    /// Of each node's link, each way.
    pub rate: Rate,
    /// One way, between two nodes.
    #[serde(default)]
    pub delay: Delay,
}

/// A site's line to the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uplink {
    /// Out of the site.
    pub up: Rate,
    /// Into the site.
    pub down: Rate,
    /// One way. Two sites are apart by the sum of theirs.
    #[serde(default)]
    pub delay: Delay,
    /// Of the packets, each way.
    #[serde(default)]
    pub loss: Share,
}

impl Topology {
    /// The number of the site where artifacts are published.
    pub fn origin(&self) -> usize {
        // A file without exactly one is refused.
        self.sites.iter().position(|site| site.origin).unwrap_or_default()
    }

    /// Every node, site by site.
    pub fn places(&self) -> impl Iterator<Item = Place> + '_ {
        let sites = self.sites.iter().enumerate();
        sites.flat_map(|(site, here)| (0..here.nodes).map(move |node| Place { site, node }))
    }

    /// Whether a line needs more than a limit on its rate.
    pub fn has_delay_or_loss(&self) -> bool {
        let bent =
            |site: &Site| site.uplink.delay != Delay::default() || site.uplink.loss != Share::default();
        self.sites.iter().any(bent)
    }
}
