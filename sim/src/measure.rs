//! What is measured, as it is written: one line of JSON each. Reports, comparisons and tests read these lines and
//! nothing else, so whatever writes them can be shown. Times are seconds of the world's clock, sizes bytes.

use serde::{Deserialize, Serialize};

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Measurement {
    /// A run: the first line of each.
    Run {
        /// Which.
        run: RunId,
        /// Name of the scenario.
        scenario: String,
        /// Where its numbers come from, for people.
        source: String,
        /// Nodes.
        nodes: u64,
        /// Sites, by number.
        sites: Vec<String>,
    },
    /// What no system can beat for an artifact that is pulled everywhere at once.
    Bound {
        /// Which run.
        run: RunId,
        /// Number of the artifact.
        artifact: u64,
        /// Its bytes.
        bytes: u64,
        /// The tightest cut.
        cut: String,
        /// The least time over it.
        seconds: f64,
    },
    /// A pull, when it is over or the run is.
    Pull {
        /// Which run.
        run: RunId,
        /// Number of the artifact.
        artifact: u64,
        /// Its bytes.
        bytes: u64,
        /// Number of the site.
        site: u64,
        /// Number of the node there.
        node: u64,
        /// When it was asked for.
        asked: f64,
        /// When the first byte could be handed out.
        first_byte: Option<f64>,
        /// When all was there; nothing if it never was.
        done: Option<f64>,
    },
    /// What a site's line carried in a part of the run.
    Line {
        /// Which run.
        run: RunId,
        /// Number of the site.
        site: u64,
        /// From when.
        from: f64,
        /// How long.
        seconds: f64,
        /// Bytes of blobs out of the site.
        up: u64,
        /// Bytes of blobs into it.
        down: u64,
        /// Bytes of the control plane, both ways.
        control: u64,
    },
    /// Bytes of blobs from one site to another (or within one) in all of the run; pairs without any are left out.
    Between {
        /// Which run.
        run: RunId,
        /// Number of the site.
        from: u64,
        /// Number of the site.
        to: u64,
        /// How many.
        bytes: u64,
    },
    /// What the messages of one kind cost in a part of the run.
    Control {
        /// Which run.
        run: RunId,
        /// Which messages: `gossip`, `reconcile`, `progress` and so on.
        message: String,
        /// From when.
        from: f64,
        /// How long.
        seconds: f64,
        /// Messages sent.
        messages: u64,
        /// Bytes of them.
        bytes: u64,
        /// Of these, bytes from one site to another.
        far: u64,
        /// Messages that found a queue full.
        dropped: u64,
    },
    /// How long it took until so many of the nodes that could be reached knew of a publication.
    Spread {
        /// Which run.
        run: RunId,
        /// Number of the artifact.
        artifact: u64,
        /// When it was published.
        published: f64,
        /// Seconds until half of them knew.
        half: Option<f64>,
        /// Seconds until 99 % knew.
        most: Option<f64>,
        /// Seconds until all knew.
        all: Option<f64>,
        /// How many did not know in the end.
        missed: u64,
    },
    /// How far catalogs were apart at a time.
    Staleness {
        /// Which run.
        run: RunId,
        /// When.
        at: f64,
        /// Nodes that did not know all that counts.
        behind: u64,
        /// Nodes that ran.
        nodes: u64,
        /// Records that the best of them knew.
        records: u64,
    },
    /// What the origin sent, beside the content that there is.
    Origin {
        /// Which run.
        run: RunId,
        /// Bytes of blobs out of the origin's site.
        bytes: u64,
        /// Bytes of content that was pulled anywhere, each blob once.
        content: u64,
    },
    /// Any other figure of a run.
    Figure {
        /// Which run.
        run: RunId,
        /// What: `trace`, `occurrences`, `bytes per record`, `availability` and so on.
        name: String,
        /// How much, or nothing where it is a word.
        value: Option<f64>,
        /// In words, such as the hash of the trace.
        text: Option<String>,
    },
    /// A promise that was broken.
    Violation {
        /// Which run.
        run: RunId,
        /// Which checker.
        checker: String,
        /// When.
        at: f64,
        /// For people.
        text: String,
    },
}

/// Which run of a scenario.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunId {
    /// `waystation`, or the name of a baseline: `origin`, `site-cache`, `whole-blob`, `central`.
    pub system: String,
    /// The seed.
    pub seed: u64,
    /// What was varied, such as `nodes=500`; empty where nothing was.
    pub variant: String,
}

/// Where measurements go.
pub trait Sink {
    /// Takes one.
    fn take(&mut self, measurement: Measurement);
}

impl Sink for Vec<Measurement> {
    fn take(&mut self, measurement: Measurement) {
        self.push(measurement);
    }
}
