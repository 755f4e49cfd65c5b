//! How fast flows are simulated: solutions and requests a second of real time, with nodes that each take pieces
//! from some others without end. Prints a table; asserts nothing. `cargo bench -p waystation-sim --bench flows`.
#![allow(clippy::disallowed_methods, reason = "a benchmark looks at the clock")]

use std::time::Instant;

use waystation_sim::{
    flow::{Class, Config, FlowId, Flows, Path, Resource, Route},
    random,
    setup::{MILLISECOND, SECOND},
};

const PIECE: u64 = 4 << 20;

/// Links up and down of each node, and of each site where there are several.
struct Net {
    flows: Flows,
    nodes: Vec<(Resource, Resource)>,
    sites: Vec<(Resource, Resource)>,
    nodes_per_site: usize,
}

impl Net {
    fn new(nodes: usize, nodes_per_site: usize, coalesce: u64) -> Self {
        let mut flows = Flows::new(Config { coalesce, ..Config::default() });
        let pair = |flows: &mut Flows, rate| (flows.resource(rate), flows.resource(rate));
        Net {
            nodes: (0..nodes).map(|_| pair(&mut flows, 300_000_000)).collect(),
            sites: (0..nodes / nodes_per_site).map(|_| pair(&mut flows, 125_000_000)).collect(),
            flows,
            nodes_per_site,
        }
    }

    fn route(&self, from: usize, to: usize) -> Route {
        let (here, there) = (from / self.nodes_per_site, to / self.nodes_per_site);
        let ends = [self.nodes[from].0, self.nodes[to].1];
        let far = [ends[0], self.sites[here].0, self.sites[there].1, ends[1]];
        Route {
            from: from as u32,
            to: to as u32,
            path: if here == there { Path::of(&ends) } else { Path::of(&far) },
            round_trip: if here == there { MILLISECOND / 2 } else { 30 * MILLISECOND },
            cap: None,
            weight: 1,
        }
    }
}

/// Each node has so many requests under way, now and then from another node.
fn run(name: &str, nodes: usize, nodes_per_site: usize, sources: usize, coalesce: u64, seconds: u64) {
    let mut net = Net::new(nodes, nodes_per_site, coalesce);
    let mut rng = random::stream(1, 0, "bench");
    let mut who: std::collections::BTreeMap<FlowId, (usize, usize)> = Default::default();
    let other = |rng: &mut fastrand::Rng, to: usize| {
        let site = to / nodes_per_site * nodes_per_site;
        let near = nodes_per_site > 1 && rng.u8(0..10) > 0;
        let from = if near { site + rng.usize(0..nodes_per_site) } else { rng.usize(0..nodes) };
        if from == to { (to + 1) % nodes } else { from }
    };
    for to in 0..nodes {
        for _ in 0..sources {
            let from = other(&mut rng, to);
            let flow = net.flows.start(0, &net.route(from, to), rng.u64(1..PIECE), Class::Background);
            who.insert(flow, (from, to));
        }
    }
    let (began, mut requests, mut most) = (Instant::now(), 0_u64, 0);
    while let Some(at) = net.flows.due().filter(|at| *at < seconds * SECOND) {
        for flow in net.flows.advance(at) {
            requests += 1;
            let (mut from, to) = who.remove(&flow).unwrap_or_default();
            if rng.u8(0..4) == 0 {
                from = other(&mut rng, to);
            }
            let flow = net.flows.start(at, &net.route(from, to), PIECE, Class::Background);
            who.insert(flow, (from, to));
        }
        if requests % 65_536 == 0 {
            most = most.max(net.flows.active());
        }
    }
    let real = began.elapsed().as_secs_f64();
    println!(
        "{name:32} {most:>8} sessions {:>8} solutions {requests:>9} requests in {real:>7.2} s: {:>8.0} solutions/s {:>9.0} requests/s",
        net.flows.solutions(),
        net.flows.solutions() as f64 / real,
        requests as f64 / real,
    );
}

fn main() {
    run("one LAN, 2,600 nodes, 10 ms", 2_600, 2_600, 8, 10 * MILLISECOND, 10);
    run("one LAN, 2,600 nodes, 2 ms", 2_600, 2_600, 8, 2 * MILLISECOND, 10);
    run("one LAN, 10,000 nodes, 10 ms", 10_000, 10_000, 8, 10 * MILLISECOND, 2);
    run("1,000 sites of 10 nodes, 10 ms", 10_000, 10, 8, 10 * MILLISECOND, 2);
}
