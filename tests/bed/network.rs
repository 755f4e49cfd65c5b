//! A topology as real network namespaces: each node in one of its own at its site's switch, each site's switch in
//! a router, the routers around a core. Links of nodes and lines of sites are limited by the kernel.

use std::fs;

use waystation_topology::{Place, Topology, Uplink};

use crate::{
    shape::{self, Queue},
    spaces::{Names, Space},
    wire::Wire,
};

/// Addresses have one byte for the site and one for the node.
const SITES_MAX: usize = 200;
const NODES_MAX: usize = 200;

/// A built network. Dropping it removes everything.
pub struct Network {
    pub topology: Topology,
    sites: Vec<Site>,
    core: Space,
    /// Ended before the namespaces are removed.
    wires: Vec<Wire>,
}

struct Site {
    nodes: Vec<Space>,
    router: Space,
    /// Its line's interface in the core.
    port: String,
    /// Between router and core, where the kernel delays or loses packets; kept until the network goes.
    line: Option<Space>,
}

/// Bytes that crossed a line, as frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct Crossed {
    /// Out of the site.
    pub up: u64,
    /// Into the site.
    pub down: u64,
}

impl Crossed {
    /// What crossed after `earlier`.
    pub fn since(self, earlier: Crossed) -> Crossed {
        Crossed { up: self.up - earlier.up, down: self.down - earlier.down }
    }
}

impl Network {
    /// Builds it. The error says what this machine cannot do.
    pub fn build(topology: Topology) -> Result<Self, String> {
        let fits = topology.sites.len() <= SITES_MAX && topology.sites.iter().all(|s| s.nodes <= NODES_MAX);
        if !fits {
            return Err(format!("the testbed takes at most {SITES_MAX} sites of {NODES_MAX} nodes"));
        }
        let names = Names::new();
        let core = Space::new(&names, "core").map_err(|why| {
            format!("network namespaces cannot be made here ({why}); run as root, with iproute2 installed")
        })?;
        core.forward(true);
        let mut network = Network { topology, sites: vec![], core, wires: vec![] };
        for site in 0..network.topology.sites.len() {
            network.add_site(&names, site)?;
        }
        Ok(network)
    }

    /// Whether delay or loss come from this process, not from the kernel.
    pub fn has_own_wires(&self) -> bool {
        !self.wires.is_empty()
    }

    /// Packets that the testbed itself could not carry.
    pub fn overflowed(&self) -> u64 {
        self.wires.iter().map(|wire| wire.overflowed.load(std::sync::atomic::Ordering::Relaxed)).sum()
    }

    pub fn space(&self, place: Place) -> &Space {
        &self.sites[place.site].nodes[place.node]
    }

    /// Bytes that crossed the site's line since the network was built.
    pub fn crossed(&self, site: usize) -> Crossed {
        let here = &self.sites[site];
        Crossed { up: shape::passed(&here.router, "wan"), down: shape::passed(&self.core, &here.port) }
    }

    /// Bytes in and out of a node since the network was built.
    pub fn node_bytes(&self, place: Place) -> u64 {
        self.space(place).on(|| interface_bytes("eth0"))
    }

    /// From now on the site's line drops everything, and nobody sees that.
    pub fn cut(&self, site: usize) {
        self.sites[site].router.forward(false);
    }

    pub fn mend(&self, site: usize) {
        self.sites[site].router.forward(true);
    }

    fn add_site(&mut self, names: &Names, number: usize) -> Result<(), String> {
        let router = Space::new(names, &format!("r{number}"))?;
        router.forward(true);
        router.ip(&["link", "add", "lan", "type", "bridge"]);
        router.ip(&["address", "add", &format!("{}/24", gateway(number)), "dev", "lan"]);
        router.ip(&["link", "set", "lan", "up"]);
        let mut site = Site { nodes: vec![], router, port: format!("s{number}"), line: None };
        for node in 0..self.topology.sites[number].nodes {
            let place = Place { site: number, node };
            let space = Space::new(names, &format!("{number}-{node}"))?;
            self.plug_in(&site.router, &space, place);
            site.nodes.push(space);
        }
        self.connect(names, &mut site, number)?;
        self.sites.push(site);
        Ok(())
    }

    /// A node's link to the switch.
    fn plug_in(&self, router: &Space, node: &Space, place: Place) {
        let port = format!("p{}", place.node);
        router.ip(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", node.name()]);
        router.ip(&["link", "set", &port, "master", "lan", "up"]);
        node.ip(&["address", "add", &format!("{}/24", address(place)), "dev", "eth0"]);
        node.ip(&["link", "set", "eth0", "up"]);
        node.ip(&["route", "add", "default", "via", &gateway(place.site)]);
        let rate = self.topology.sites[place.site].lan.rate;
        shape::limit(node, "eth0", rate, Queue::Lan);
        shape::limit(router, &port, rate, Queue::Lan);
    }

    /// The site's line to the core.
    fn connect(&mut self, names: &Names, site: &mut Site, number: usize) -> Result<(), String> {
        let uplink = self.topology.sites[number].uplink;
        let bent = uplink.delay.micros() > 0 || uplink.loss.millionths() > 0;
        let (near, far) = (format!("10.48.{number}.1"), format!("10.48.{number}.2"));
        if bent && !shape::has_netem() {
            let ends = [(&site.router, "wan"), (&self.core, site.port.as_str())];
            let wire = Wire::new(ends, uplink, number as u64)
                .map_err(|error| format!("no TUN device can be made here: {error}"))?;
            self.wires.push(wire);
        } else if bent {
            site.line = Some(self.bent_line(names, site, uplink)?);
        } else {
            join([(&site.router, "wan"), (&self.core, &site.port)]);
        }
        for (space, device, own) in [(&site.router, "wan", &near), (&self.core, &*site.port, &far)] {
            space.ip(&["address", "add", &format!("{own}/30"), "dev", device]);
            space.ip(&["link", "set", device, "up"]);
        }
        site.router.ip(&["route", "add", "default", "via", &far]);
        self.core.ip(&["route", "add", &format!("10.47.{number}.0/24"), "via", &near]);
        shape::limit(&site.router, "wan", uplink.up, Queue::Line);
        shape::limit(&self.core, &site.port, uplink.down, Queue::Line);
        Ok(())
    }

    /// A line that the kernel delays: two more interfaces between router and core, joined.
    fn bent_line(&self, names: &Names, site: &Site, uplink: Uplink) -> Result<Space, String> {
        let line = Space::new(names, &format!("l{}", &site.port[1..]))?;
        line.ip(&["link", "add", "line", "type", "bridge"]);
        line.ip(&["link", "set", "line", "up"]);
        join([(&site.router, "wan"), (&line, "near")]);
        join([(&self.core, &site.port), (&line, "far")]);
        for device in ["near", "far"] {
            line.ip(&["link", "set", device, "master", "line", "up"]);
            shape::bend(&line, device, uplink);
        }
        Ok(line)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.wires.clear();
    }
}

/// A node's address.
pub fn address(place: Place) -> String {
    format!("10.47.{}.{}", place.site, place.node + 1)
}

fn gateway(site: usize) -> String {
    format!("10.47.{site}.254")
}

fn join([(near, near_name), (far, far_name)]: [(&Space, &str); 2]) {
    near.ip(&["link", "add", near_name, "type", "veth", "peer", "name", far_name, "netns", far.name()]);
}

/// In and out, of an interface of the network that this thread is in.
fn interface_bytes(name: &str) -> u64 {
    let told = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = told.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(':'));
    let fields: Vec<u64> = line.unwrap().split_whitespace().map(|field| field.parse().unwrap()).collect();
    fields[0] + fields[8]
}
