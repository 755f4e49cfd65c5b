//! The network of a setup as resources: each node's link and disk both ways, each site's line both ways. Tells over
//! which of them two nodes reach each other. The core between the lines and the switches have no limits.

use std::collections::BTreeSet;

use waystation_topology::{Delay, Place, Topology};

use super::{Flows, Path, Resource, Route};
use crate::setup::{MILLISECOND, Nanos, Network, Setup};

/// One way within a site whose file says nothing.
const LAN_DELAY: Nanos = MILLISECOND / 10;

/// The resources of a setup.
pub struct Plant {
    sites: Vec<Site>,
    nodes: Vec<Node>,
    efficiency: u32,
    /// Sites that are cut from all others, for each partition that holds.
    cuts: Vec<BTreeSet<usize>>,
}

struct Site {
    /// Number of its first node.
    first: usize,
    nodes: usize,
    up: Resource,
    down: Resource,
    /// One way, within the site and to the core.
    lan: Nanos,
    line: Nanos,
}

struct Node {
    site: usize,
    up: Resource,
    down: Resource,
    disk: Option<Disk>,
}

struct Disk {
    read: Resource,
    write: Resource,
}

impl Plant {
    /// Makes the resources of a setup. Links carry what [`Network::efficiency`] leaves of their rates.
    pub fn of(setup: &Setup, flows: &mut Flows) -> Self {
        Plant::build(&setup.topology, &setup.network, flows)
    }

    /// As [`Plant::of`].
    pub fn build(topology: &Topology, network: &Network, flows: &mut Flows) -> Self {
        let efficiency = network.efficiency;
        let mut plant = Plant { sites: vec![], nodes: vec![], efficiency, cuts: vec![] };
        for (number, site) in topology.sites.iter().enumerate() {
            plant.sites.push(Site {
                first: plant.nodes.len(),
                nodes: site.nodes,
                up: flows.resource(goodput(site.uplink.up.bits(), efficiency)),
                down: flows.resource(goodput(site.uplink.down.bits(), efficiency)),
                lan: match nanos(site.lan.delay) {
                    0 => LAN_DELAY,
                    delay => delay,
                },
                line: nanos(site.uplink.delay),
            });
            let link = goodput(site.lan.rate.bits(), efficiency);
            plant.nodes.extend((0..site.nodes).map(|_| {
                Node {
                    site: number,
                    up: flows.resource(link),
                    down: flows.resource(link),
                    disk: network
                        .disk_rate
                        .map(|rate| Disk { read: flows.resource(rate), write: flows.resource(rate) }),
                }
            }));
        }
        plant
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// How many sites there are.
    pub fn sites(&self) -> usize {
        self.sites.len()
    }

    /// The number of a node among all: as [`Topology::places`] counts. Nothing where there is no such node.
    pub fn number(&self, place: Place) -> Option<usize> {
        let site = self.sites.get(place.site)?;
        (place.node < site.nodes).then_some(site.first + place.node)
    }

    /// The place of a node by its number.
    pub fn place(&self, node: usize) -> Place {
        let site = self.nodes[node].site;
        Place { site, node: node - self.sites[site].first }
    }

    /// The site of a node.
    pub fn site(&self, node: usize) -> usize {
        self.nodes[node].site
    }

    /// The numbers of a site's nodes.
    pub fn at(&self, site: usize) -> std::ops::Range<usize> {
        let site = &self.sites[site];
        site.first..site.first + site.nodes
    }

    /// How bytes go from one node to another. Within a site over the two links; between sites over both lines as
    /// well. A node reaches itself over its disk alone. Where sites are cut from each other nothing goes.
    pub fn route(&self, from: usize, to: usize) -> Route {
        let (sender, receiver) = (&self.nodes[from], &self.nodes[to]);
        let mut over = [Resource::default(); 6];
        let mut length = 0;
        let mut add = |resource: Option<Resource>| {
            if let Some(resource) = resource {
                over[length] = resource;
                length += 1;
            }
        };
        let (here, there) = (&self.sites[sender.site], &self.sites[receiver.site]);
        add(sender.disk.as_ref().map(|disk| disk.read));
        if from != to {
            add(Some(sender.up));
            if sender.site != receiver.site {
                add(Some(here.up));
                add(Some(there.down));
            }
            add(Some(receiver.down));
        }
        add(receiver.disk.as_ref().map(|disk| disk.write));
        Route {
            from: from as u32,
            to: to as u32,
            path: Path::of(&over[..length]),
            round_trip: 2 * self.delay(from, to),
            cap: self.cap(from, to),
            weight: 1,
        }
    }

    /// One way from one node to another: the LAN's delay within a site, the sum of both lines' between sites.
    pub fn delay(&self, from: usize, to: usize) -> Nanos {
        let (here, there) = (self.nodes[from].site, self.nodes[to].site);
        match () {
            () if from == to => 0,
            () if here == there => self.sites[here].lan,
            () => self.sites[here].line + self.sites[there].line,
        }
    }

    /// A site's line has other raw rates from now on, in bits per second.
    pub fn set_line(&self, now: Nanos, flows: &mut Flows, site: usize, up: u64, down: u64) {
        let line = &self.sites[site];
        flows.set_capacity(now, line.up, goodput(up, self.efficiency));
        flows.set_capacity(now, line.down, goodput(down, self.efficiency));
    }

    /// From now on nothing goes between these sites and the others. One way or both is the same here: whoever sends
    /// needs to hear what arrived.
    pub fn cut(&mut self, now: Nanos, flows: &mut Flows, sites: &[usize]) {
        self.cuts.push(sites.iter().copied().collect());
        flows.set_caps(now, |from, to| self.cap(from as usize, to as usize));
    }

    /// Ends one [`Plant::cut`] of these sites.
    pub fn mend(&mut self, now: Nanos, flows: &mut Flows, sites: &[usize]) {
        let sites: BTreeSet<usize> = sites.iter().copied().collect();
        if let Some(place) = self.cuts.iter().position(|cut| *cut == sites) {
            self.cuts.remove(place);
            flows.set_caps(now, |from, to| self.cap(from as usize, to as usize));
        }
    }

    /// Whether no cut lies between two nodes.
    pub fn is_open(&self, from: usize, to: usize) -> bool {
        let (here, there) = (self.nodes[from].site, self.nodes[to].site);
        !self.cuts.iter().any(|cut| cut.contains(&here) != cut.contains(&there))
    }

    /// Bytes that a site's line has carried, out of it and into it.
    pub fn carried(&self, now: Nanos, flows: &Flows, site: usize) -> (u64, u64) {
        let line = &self.sites[site];
        (flows.carried(now, line.up), flows.carried(now, line.down))
    }

    fn cap(&self, from: usize, to: usize) -> Option<u64> {
        (!self.is_open(from, to)).then_some(0)
    }
}

/// Bytes of content a second over a link of so many bits a second.
fn goodput(bits: u64, efficiency: u32) -> u64 {
    let bytes = u128::from(bits) * u128::from(efficiency) / 8 / 1_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn nanos(delay: Delay) -> Nanos {
    delay.micros().saturating_mul(1_000)
}
