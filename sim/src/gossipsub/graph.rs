//! Who has a session with whom: random graphs of the degrees that nodes keep. All nodes of a small site know
//! one another, those of a large one some; two of each site have sessions with other sites.

use serde::{Deserialize, Serialize};
use waystation_proto::surplus::GATEWAYS;

use crate::{
    random::stream,
    setup::{MILLISECOND, Nanos},
};

/// What a graph is drawn from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Shape {
    /// How many sites.
    pub sites: usize,
    /// Nodes of each.
    pub nodes: usize,
    /// Sessions of a node within its site, at most.
    pub near: usize,
    /// Sessions of a site with others, at most.
    pub far: usize,
    /// Delay of a session within a site, from and to, one way.
    pub near_ms: [u64; 2],
    /// The same between sites.
    pub far_ms: [u64; 2],
    /// What chance is drawn from.
    pub seed: u64,
}

/// A set of nodes and their sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    /// How many nodes.
    pub nodes: usize,
    /// In the order in which they come up.
    pub links: Vec<Link>,
}

/// A session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Who dialled.
    pub dialler: usize,
    /// Whom.
    pub listener: usize,
    /// One way.
    pub delay: Nanos,
    /// Whether it joins two sites.
    pub far: bool,
}

impl Shape {
    /// Draws the graph. The same shape is the same graph.
    pub fn graph(&self) -> Graph {
        let mut rng = stream(self.seed, 0, "gossip graph");
        let mut links = Vec::new();
        for site in 0..self.sites {
            let members: Vec<usize> = (site * self.nodes..(site + 1) * self.nodes).collect();
            let enough = self.near.div_ceil(4) * 3;
            let pairs = pairs(&members, |_, _| true);
            self.draw(pairs, enough, self.near, &mut rng, |pair| self.link(pair, false), &mut links);
        }
        let gateways: Vec<usize> = (0..self.sites)
            .flat_map(|site| (0..GATEWAYS.min(self.nodes)).map(move |n| (site, n)))
            .map(|(site, n)| site * self.nodes + n)
            .collect();
        let each = self.far.div_ceil(GATEWAYS);
        let pairs = pairs(&gateways, |a, b| a / self.nodes != b / self.nodes);
        self.draw(pairs, each, each, &mut rng, |pair| self.link(pair, true), &mut links);
        for link in &mut links {
            let [from, to] = if link.far { self.far_ms } else { self.near_ms };
            link.delay = rng.u64(from * MILLISECOND..=to * MILLISECOND);
            if rng.bool() {
                (link.dialler, link.listener) = (link.listener, link.dialler);
            }
        }
        rng.shuffle(&mut links);
        Graph { nodes: self.sites * self.nodes, links }
    }

    fn link(&self, (dialler, listener): (usize, usize), far: bool) -> Link {
        Link { dialler, listener, delay: 0, far }
    }

    /// Takes pairs by chance until each node has enough, and none too many.
    fn draw(
        &self,
        mut pairs: Vec<(usize, usize)>,
        enough: usize,
        most: usize,
        rng: &mut fastrand::Rng,
        link: impl Fn((usize, usize)) -> Link,
        links: &mut Vec<Link>,
    ) {
        let mut degree = vec![0; self.sites * self.nodes];
        rng.shuffle(&mut pairs);
        for (a, b) in pairs {
            if degree[a].max(degree[b]) < most && degree[a].min(degree[b]) < enough {
                degree[a] += 1;
                degree[b] += 1;
                links.push(link((a, b)));
            }
        }
    }
}

fn pairs(nodes: &[usize], may: impl Fn(usize, usize) -> bool) -> Vec<(usize, usize)> {
    let all = nodes.iter().enumerate().flat_map(|(n, a)| nodes[n + 1..].iter().map(move |b| (*a, *b)));
    all.filter(|(a, b)| may(*a, *b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_the_sessions_that_the_protocol_keeps() {
        let shape =
            Shape { sites: 4, nodes: 30, near: 16, far: 8, near_ms: [1, 2], far_ms: [10, 20], seed: 7 };
        let graph = shape.graph();
        assert_eq!(graph, shape.graph());
        for node in 0..graph.nodes {
            let own = graph.links.iter().filter(|link| [link.dialler, link.listener].contains(&node));
            let (far, near): (Vec<&Link>, Vec<&Link>) = own.partition(|link| link.far);
            assert!((10..=16).contains(&near.len()), "node {node} has {}", near.len());
            assert_eq!(far.is_empty(), node % 30 >= GATEWAYS);
            assert!(far.len() <= 4 && far.iter().all(|link| link.delay >= 10 * MILLISECOND));
        }
    }
}
