//! What the control plane costs: bytes of messages in an idle mesh, and with publications. Overhead of the
//! transport is not in it, and every session passes gossip on, which real gossip does to some of them only.

use std::fmt;

use waystation_proto::{Input, RepoName};

use crate::{Options, World, network::Traffic};

/// Bytes of one part of a run.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Nodes of the mesh.
    pub nodes: usize,
    /// Sites that they are on.
    pub sites: usize,
    /// How long it lasted, in milliseconds.
    pub ms: u64,
    /// What was sent in that time.
    pub traffic: Traffic,
    /// Records that each node knows in the end.
    pub records: usize,
}

/// An hour in which nothing happens, from half an hour after the start on, and then an hour in which so many
/// artifacts are published, at even distances, and each is pulled by so many other nodes. Each holder tells of
/// what it holds.
pub fn measure(nodes: usize, sites: usize, publications: u64, holders: usize, seed: u64) -> [Cost; 2] {
    let mut world = World::new(Options { sites, ..Options::calm(seed, nodes) });
    world.run_until(HOUR / 2);
    let idle = part(&mut world, nodes, sites, (0, 0));
    [idle, part(&mut world, nodes, sites, (publications, holders))]
}

fn part(world: &mut World, nodes: usize, sites: usize, (publications, holders): (u64, usize)) -> Cost {
    let (from, before) = (world.now(), world.network.traffic());
    let repository: RepoName = "team/app".parse().expect("a repository's name");
    for n in 0..publications {
        world.run_until(from + HOUR * n / publications);
        let tag = format!("v{n}").parse().expect("a tag");
        let artifact = world.push(0, &repository, &[tag]);
        let manifest = world.content().artifacts()[artifact].index.manifest;
        world.run_until(world.now() + HEARD_AFTER);
        for puller in (1..nodes).take(holders) {
            let repository = repository.clone();
            let pull = |request| Input::WantArtifact { request, repository, manifest, closure: true };
            world.operator(puller, pull);
        }
    }
    world.run_until(from + HOUR);
    let traffic = world.network.traffic().since(before);
    let records = world.report(None).records;
    Cost { nodes, sites, ms: HOUR, traffic, records }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Traffic { messages, direct_bytes, gossip_bytes, far_bytes } = self.traffic;
        write!(
            f,
            "{} nodes on {} sites, {} min: {messages} messages; per node {} bytes direct and {} of gossip; \
             per site {} bytes between sites; {} records",
            self.nodes,
            self.sites,
            self.ms / 60_000,
            direct_bytes / self.nodes as u64,
            gossip_bytes / self.nodes as u64,
            far_bytes / self.sites as u64,
            self.records
        )
    }
}

const HOUR: u64 = 3_600_000;
/// When everybody has heard of a publication, in milliseconds.
const HEARD_AFTER: u64 = 3_000;
