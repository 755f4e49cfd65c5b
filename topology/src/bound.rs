//! What no way of sharing can beat: the least time in which a transfer can end, cut by cut, and the least bytes
//! that cross each site's line.
//!
//! After Kumar and Ross ("Peer-assisted file distribution: the minimum distribution time"): with sources that can
//! send `u_S` in all, receivers that take `d_i` and can send `u_i`, F bytes are everywhere no sooner than
//! max(F / u_S, F / min d_i, N F / (u_S + Σ u_i)). Here that is taken twice: between the sites, whose lines to the
//! core are the links, and inside each site, where the rest of the world is one more source. Nodes that neither
//! have nor want the bytes take no part: nothing makes them relay.

use crate::Topology;

/// One node: the number of its site, and its own there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// As in [`Topology::sites`].
    pub site: usize,
    /// From 0.
    pub node: usize,
}

/// Some bytes that are to get somewhere.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// How many.
    pub bytes: u64,
    /// Who has all of them at the start.
    pub holders: Vec<Place>,
    /// Who is to have all of them, and has none yet.
    pub wanters: Vec<Place>,
    /// How much of a link's raw rate can be bytes of content, from 0 to 1: headers take the rest.
    pub efficiency: f64,
}

/// A cut of the network, and how soon a transfer can be over it.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// For people.
    pub cut: String,
    /// From the first byte to the last.
    pub seconds: f64,
}

/// The least that crosses a site's line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutBytes {
    /// Which site.
    pub site: usize,
    /// Bytes of content that must come in.
    pub into: u64,
    /// Bytes of content that must go out.
    pub out_of: u64,
}

impl Transfer {
    /// The time that no way of sharing can beat: the largest bound. Zero seconds where nothing has to move.
    pub fn least_time(&self, topology: &Topology) -> Bound {
        let nothing = Bound { cut: "nothing to move".to_owned(), seconds: 0.0 };
        self.bounds(topology).into_iter().fold(nothing, |a, b| if b.seconds > a.seconds { b } else { a })
    }

    /// Every cut that is looked at.
    pub fn bounds(&self, topology: &Topology) -> Vec<Bound> {
        let mut bounds = self.between_sites(topology);
        for site in 0..topology.sites.len() {
            bounds.extend(self.inside(topology, site));
        }
        bounds
    }

    /// For each site that anything must cross: one copy into each that has none, and one out of where all are.
    pub fn least_bytes(&self, topology: &Topology) -> Vec<CutBytes> {
        let into = |site| if self.needs(site) { self.bytes } else { 0 };
        let sources: Vec<_> = (0..topology.sites.len()).filter(|site| self.holders_at(*site) > 0).collect();
        let anybody_needs = (0..topology.sites.len()).any(|site| self.needs(site));
        let out_of = |site| if anybody_needs && sources == [site] { self.bytes } else { 0 };
        (0..topology.sites.len())
            .map(|site| CutBytes { site, into: into(site), out_of: out_of(site) })
            .filter(|cut| cut.into + cut.out_of > 0)
            .collect()
    }

    fn between_sites(&self, topology: &Topology) -> Vec<Bound> {
        let all = 0..topology.sites.len();
        let (needing, having): (Vec<_>, Vec<_>) = (
            all.clone().filter(|site| self.needs(*site)).collect(),
            all.filter(|site| self.holders_at(*site) > 0).collect(),
        );
        if needing.is_empty() || having.is_empty() {
            return vec![];
        }
        let up = |site: usize, nodes: usize| {
            let here = &topology.sites[site];
            self.goodput(here.uplink.up.bytes()).min(nodes as f64 * self.goodput(here.lan.rate.bytes()))
        };
        let sources: f64 = having.iter().map(|site| up(*site, self.holders_at(*site))).sum();
        let receivers: f64 = needing.iter().map(|site| up(*site, self.wanters_at(*site))).sum();
        let bytes = self.bytes as f64;
        let copies = needing.len() as f64;
        let mut bounds = vec![
            Bound { cut: "out of the sites that have it".to_owned(), seconds: bytes / sources },
            Bound {
                cut: "the lines of all sites".to_owned(),
                seconds: copies * bytes / (sources + receivers),
            },
        ];
        bounds.extend(needing.into_iter().map(|site| {
            let here = &topology.sites[site];
            let seconds = bytes / self.goodput(here.uplink.down.bytes());
            Bound { cut: format!("into site {}", here.name), seconds }
        }));
        bounds
    }

    fn inside(&self, topology: &Topology, site: usize) -> Vec<Bound> {
        let wanters = self.wanters_at(site) as f64;
        if wanters == 0.0 || self.holders.is_empty() {
            return vec![];
        }
        let here = &topology.sites[site];
        let (bytes, link) = (self.bytes as f64, self.goodput(here.lan.rate.bytes()));
        let elsewhere = self.holders.iter().any(|place| place.site != site);
        let line = if elsewhere { self.goodput(here.uplink.down.bytes()) } else { 0.0 };
        let sources = self.holders_at(site) as f64 * link + line;
        let bound = |what: &str, seconds| Bound { cut: format!("{what} of site {}", here.name), seconds };
        vec![
            bound("the link of each node", bytes / link),
            bound("out of the sources", bytes / sources),
            bound("the links of all nodes", wanters * bytes / (sources + wanters * link)),
        ]
    }

    fn goodput(&self, raw: f64) -> f64 {
        raw * self.efficiency
    }

    /// Whether bytes have to come to the site from elsewhere.
    fn needs(&self, site: usize) -> bool {
        self.wanters_at(site) > 0 && self.holders_at(site) == 0
    }

    fn holders_at(&self, site: usize) -> usize {
        self.holders.iter().filter(|place| place.site == site).count()
    }

    fn wanters_at(&self, site: usize) -> usize {
        self.wanters.iter().filter(|place| place.site == site).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Lan, Rate, Site, Tier, Uplink};

    /// (nodes, LAN, up, down) of each site in Mbit/s.
    fn network(sites: &[(usize, u64, u64, u64)]) -> Topology {
        let rate = |mbits: u64| Rate::from_bits(mbits * 1_000_000);
        let site = |(number, (nodes, lan, up, down)): (usize, &(usize, u64, u64, u64))| Site {
            name: format!("s{number}"),
            tier: Tier::Edge,
            origin: number == 0,
            nodes: *nodes,
            lan: Lan { rate: rate(*lan), delay: Default::default() },
            uplink: Uplink {
                up: rate(*up),
                down: rate(*down),
                delay: Default::default(),
                loss: Default::default(),
            },
            disk: None,
        };
        Topology { sites: sites.iter().enumerate().map(site).collect() }
    }

    /// From all of the first site's nodes to all of the others'.
    fn transfer(topology: &Topology, bytes: u64) -> Transfer {
        let (holders, wanters) = topology.places().partition(|place| place.site == 0);
        Transfer { bytes, holders, wanters, efficiency: 1.0 }
    }

    #[track_caller]
    fn least(topology: &Topology, transfer: &Transfer, cut: &str, seconds: f64) {
        let bound = transfer.least_time(topology);
        assert!(bound.cut.contains(cut) && (bound.seconds - seconds).abs() < 1e-9, "{bound:?}");
    }

    #[test]
    fn one_site_waits_for_its_line() {
        // 100 MB = 800 Mbit over 50 Mbit/s; inside, 8 x 800 / (50 + 8 x 1000) = 0.8 s.
        let topology = network(&[(1, 1000, 1000, 1000), (8, 1000, 50, 50)]);
        least(&topology, &transfer(&topology, 100_000_000), "into site s1", 16.0);
    }

    #[test]
    fn headers_take_their_part() {
        let topology = network(&[(1, 1000, 1000, 1000), (8, 1000, 50, 50)]);
        let with_headers = Transfer { efficiency: 0.94, ..transfer(&topology, 100_000_000) };
        least(&topology, &with_headers, "into site s1", 16.0 / 0.94);
    }

    #[test]
    fn a_thin_origin_is_the_limit_where_sites_share() {
        // Out of the origin 800 / 20 = 40 s; all lines 4 x 800 / (20 + 4 x 50) = 14.5 s; into a site 16 s.
        let topology = network(&[
            (1, 1000, 20, 20),
            (3, 1000, 50, 50),
            (3, 1000, 50, 50),
            (3, 1000, 50, 50),
            (3, 1000, 50, 50),
        ]);
        least(&topology, &transfer(&topology, 100_000_000), "out of the sites that have it", 40.0);
    }

    #[test]
    fn slow_lines_out_of_the_sites_are_a_cut_of_all() {
        // Out of the origin 800 / 100 = 8 s, into a site 800 / 500 = 1.6 s, all 4 x 800 / (100 + 4 x 10) = 22.857… s.
        let topology = network(&[
            (1, 1000, 100, 100),
            (1, 1000, 10, 500),
            (1, 1000, 10, 500),
            (1, 1000, 10, 500),
            (1, 1000, 10, 500),
        ]);
        least(&topology, &transfer(&topology, 100_000_000), "the lines of all sites", 3200.0 / 140.0);
    }

    #[test]
    fn several_holders_add_up() {
        // 800 Mbit from three lines of 480 Mbit/s.
        let topology = network(&[
            (1, 10_000, 480, 480),
            (1, 10_000, 480, 480),
            (1, 10_000, 480, 480),
            (1, 10_000, 10_000, 10_000),
        ]);
        let (wanters, holders) = topology.places().partition(|place| place.site == 3);
        let transfer = Transfer { bytes: 100_000_000, holders, wanters, efficiency: 1.0 };
        least(&topology, &transfer, "out of the sites that have it", 800.0 / 1440.0);
        assert_eq!(transfer.least_bytes(&topology), [CutBytes { site: 3, into: 100_000_000, out_of: 0 }]);
    }

    #[test]
    fn links_of_nodes_are_cuts() {
        // One holder of the site serves 4 others: 800 / 100 = 8 s for its link and for each of theirs;
        // 4 x 800 / (100 + 4 x 100) = 6.4 s for all.
        let topology = network(&[(5, 100, 1, 1)]);
        let (holders, wanters) = topology.places().partition(|place| place.node == 0);
        let transfer = Transfer { bytes: 100_000_000, holders, wanters, efficiency: 1.0 };
        least(&topology, &transfer, "of site s0", 8.0);
        assert_eq!(transfer.bounds(&topology).len(), 3, "nothing has to cross a line");
        assert_eq!(transfer.least_bytes(&topology), []);
    }

    #[test]
    fn one_copy_into_each_site_and_one_out_of_the_origin() {
        let topology = network(&[(1, 1000, 20, 20), (3, 1000, 50, 50), (2, 1000, 50, 50)]);
        let cuts = transfer(&topology, 7).least_bytes(&topology);
        let cut = |site, into, out_of| CutBytes { site, into, out_of };
        assert_eq!(cuts, [cut(0, 0, 7), cut(1, 7, 0), cut(2, 7, 0)]);
    }

    #[test]
    fn what_nobody_wants_takes_no_time() {
        let topology = network(&[(1, 1000, 20, 20)]);
        assert_eq!(transfer(&topology, 7).least_time(&topology).seconds, 0.0);
    }
}
