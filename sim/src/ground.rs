//! The ground that a world stands on: how many hosts, at which places of which network, and how its links behave.
//! Made from a setup, or from the options of a run of random faults.

use std::collections::BTreeMap;

use waystation_proto::time::Span;
use waystation_topology::{Delay, Lan, Place, Rate, Share, Site, Tier, Topology, Uplink};

use crate::{
    Options,
    setup::{MILLISECOND, Nanos, Network, Setup},
};

/// Where hosts are and what lies between them.
#[derive(Clone, Debug)]
pub struct Ground {
    /// What nodes draw their keys and chances from.
    pub seed: u64,
    /// Sites, nodes, lines.
    pub topology: Topology,
    /// What the file of a topology does not say.
    pub network: Network,
    /// The place of each host, by its number.
    pub places: Vec<Place>,
    /// How often catalogs are compared within a site, where it is not the node's own default.
    pub reconcile: Option<Span>,
    /// How often between sites.
    pub far_reconcile: Option<Span>,
    /// Where nodes find the mesh.
    pub join: Vec<usize>,
    numbers: BTreeMap<Place, usize>,
}

impl Ground {
    /// For a setup: hosts are numbered site by site, and join at the first nodes of the origin's site.
    pub fn of_setup(setup: &Setup) -> Self {
        let places: Vec<Place> = setup.topology.places().collect();
        let origin = setup.topology.origin();
        let at_origin = places.iter().enumerate().filter(|(_, place)| place.site == origin);
        let join = at_origin.map(|(number, _)| number).take(JOIN_MAX).collect();
        Ground::new(setup.seed, setup.topology.clone(), setup.network, places, join)
    }

    /// For a run of random faults: hosts are dealt out to the sites in turn, and join at the first two.
    pub fn of_options(options: &Options) -> Self {
        let places = |host: usize| Place { site: host % options.sites, node: host / options.sites };
        let places: Vec<Place> = (0..options.nodes).map(places).collect();
        let nodes_at = |site: usize| places.iter().filter(|place| place.site == site).count();
        let half = |permille: u64| Share::from_millionths(permille * 500);
        let site = |number: usize| Site {
            name: format!("site-{number}"),
            tier: if number == 0 { Tier::Cloud } else { Tier::Edge },
            origin: number == 0,
            nodes: nodes_at(number).max(1),
            lan: Lan {
                rate: Rate::from_bits(options.lan_rate * 8_000),
                delay: Delay::from_micros(options.lan_ms * 1_000),
            },
            uplink: Uplink {
                up: Rate::from_bits(options.wan_rate * 8_000),
                down: Rate::from_bits(options.wan_rate * 8_000),
                delay: Delay::from_micros(options.wan_ms * 500),
                // A message from site to site meets two lines.
                loss: half(options.loss),
            },
            disk: None,
        };
        let topology = Topology { sites: (0..options.sites).map(site).collect() };
        let millionths = |permille: u64| (permille * 1_000) as u32;
        let network = Network {
            jitter: options.jitter_ms * MILLISECOND,
            lan_loss: millionths(options.loss),
            duplication: millionths(options.duplication),
            reordering: millionths(options.reordering),
            ..Network::default()
        };
        let join = (0..options.nodes.min(2)).collect();
        let ground = Ground::new(options.seed, topology, network, places, join);
        Ground {
            reconcile: Some(Span(options.reconcile_ms)),
            far_reconcile: Some(Span(options.far_reconcile_ms)),
            ..ground
        }
    }

    fn new(seed: u64, topology: Topology, network: Network, places: Vec<Place>, join: Vec<usize>) -> Self {
        let numbers = places.iter().enumerate().map(|(number, place)| (*place, number)).collect();
        Ground { seed, topology, network, places, reconcile: None, far_reconcile: None, join, numbers }
    }

    /// How many hosts there are.
    pub fn hosts(&self) -> usize {
        self.places.len()
    }

    /// The number of the host at a place, if there is one.
    pub fn number(&self, place: Place) -> Option<usize> {
        self.numbers.get(&place).copied()
    }

    /// The site that a host is on.
    pub fn site(&self, host: usize) -> &Site {
        &self.topology.sites[self.places[host].site]
    }

    /// One way between two nodes of a site.
    pub fn lan_delay(&self, site: usize) -> Nanos {
        match self.topology.sites[site].lan.delay.micros() {
            0 => LAN_DELAY,
            micros => micros * 1_000,
        }
    }
}

/// More addresses in a mesh file help nobody, and everybody dials all of them.
const JOIN_MAX: usize = 3;
/// Within a site where its file says nothing.
const LAN_DELAY: Nanos = MILLISECOND / 10;
