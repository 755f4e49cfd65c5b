//! Limits and intervals of the protocol, each with its reason. Which of them an operator may set is the
//! node's business.

use alloc::{collections::BTreeMap, string::String, vec::Vec};

use crate::{body::Tier, time::Span};

/// How a replica behaves.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// The LAN that this node is on.
    pub site: String,
    /// Its place in the continuum.
    pub tier: Tier,
    /// Name and version of what runs, shown to others.
    pub software: String,
    /// Addresses to find the mesh at, `host:port`.
    pub join: Vec<String>,
    /// Seed for every random choice.
    pub seed: u64,
    /// A node has sessions with all others of its site where they are no more than this: they then agree on who brings
    /// what, and a part crosses the site's line once.
    pub site_whole: usize,
    /// Sessions kept with nodes of the same site where there are more: enough for gossip to be robust (gossipsub's D_high
    /// is 12).
    pub site_sessions: usize,
    /// Sessions kept with other sites: each costs keep-alives on a thin link.
    pub far_sessions: usize,
    /// How often missing sessions are looked after.
    pub dial_interval: Span,
    /// How often the catalogs of two members of the site are compared: by one of them, by the other four times as
    /// seldom; the more seldom the more members there are, so that each compares about as often as one of four. Lost
    /// announcements are found by it.
    pub reconcile_interval: Span,
    /// How often with a member of another site: 860 bytes each with all that is around it, so 0.9 MB a month
    /// for each session at fifty minutes. Announcements, and rounds after news, bring what is new long before.
    pub far_reconcile_interval: Span,
    /// Transfers at a time from one holder.
    pub lanes: usize,
    /// Transfers at a time in all.
    pub fetches_max: usize,
    /// How nodes that want the same share what they get.
    pub sharing: Sharing,
    /// A want that nobody sent anything for is given up after this.
    pub want_patience: Span,
    /// How long a request waits for a session with a holder to come up (fast 404 beats a hanging client).
    pub probe_patience: Span,
    /// Records of kinds unknown here that are kept.
    pub unknown_records_max: usize,
    /// All records that are kept.
    pub records_max: usize,
    /// Where in the world this node is.
    pub region: String,
    /// What its operator says of it, for policies to choose by.
    pub labels: BTreeMap<String, String>,
    /// Whether the link to other sites is paid for by what it carries: policies may spare it.
    pub metered: bool,
    /// What a client's pull of an index brings beside it, as `os/architecture`; nothing where empty.
    pub platform: String,
}

/// How nodes that want the same blob share it. Anything but the first is for comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Nodes trade pieces while they fetch; each byte enters a site once.
    #[default]
    Swarm,
    /// One node of each site fetches; the others wait until it has all of a blob.
    SiteCache,
    /// Each node fetches from another site's holder, whoever else does.
    Origin,
}

impl Default for ReplicaConfig {
    fn default() -> Self {
        ReplicaConfig {
            site: "default".into(),
            tier: Tier::Edge,
            software: alloc::format!("waystation/{}", env!("CARGO_PKG_VERSION")),
            join: Vec::new(),
            seed: 0,
            site_whole: 24,
            site_sessions: 16,
            far_sessions: 8,
            dial_interval: Span::secs(2),
            reconcile_interval: Span::secs(30),
            far_reconcile_interval: Span::secs(3000),
            lanes: 2,
            fetches_max: 48,
            sharing: Sharing::Swarm,
            want_patience: Span::secs(60),
            probe_patience: Span::millis(500),
            unknown_records_max: 10_000,
            records_max: 1_000_000,
            region: String::new(),
            labels: BTreeMap::new(),
            metered: false,
            platform: String::new(),
        }
    }
}
