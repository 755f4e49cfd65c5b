//! Nodes of one mesh in a network: started at their places, asked, killed, and made to pull all at once.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tempfile::TempDir;
use waystation_topology::{Place, Topology};

use crate::{
    client::{self, Pulled},
    harness::{
        cluster::export_mesh,
        image::Image,
        node::{Node, Options, temp_dir},
        wait::until_within,
    },
    network::{Crossed, Network},
    usage::{Moved, Usage},
};

/// Where clients of a node's own namespace find it.
pub const REGISTRY: &str = "127.0.0.1:5000";
pub const REPOSITORY: &str = "bed/app";
/// News may wait for a round of reconciliation, and 21 nodes for their turn on two cores.
const NEWS_PATIENCE: Duration = Duration::from_secs(300);

/// The nodes. Dropping it ends them and removes their network.
pub struct Fleet {
    members: Vec<Member>,
    pub network: Network,
    pub mesh_file: PathBuf,
    _folder: TempDir,
}

/// One node at its place.
pub struct Member {
    pub place: Place,
    pub node: Node,
    killed: AtomicBool,
}

/// What a pull by many nodes came to.
pub struct Race {
    /// Of those that were not killed.
    pub pulled: Vec<Pulled>,
    /// Of all nodes.
    pub cpu: f64,
    /// The largest of a node.
    pub rss: f64,
    /// Blob bytes by sender and receiver.
    pub moved: BTreeMap<(usize, usize), u64>,
    /// Bytes over each site's line.
    pub crossed: Vec<Crossed>,
}

impl Fleet {
    /// Builds the network and starts a node at every place of it but those in `without`.
    pub fn start(
        topology: Topology,
        variables: &[(String, String)],
        without: &[Place],
    ) -> Result<Self, String> {
        let network = Network::build(topology)?;
        let folder = temp_dir("bed");
        let mesh_file = folder.path().join("mesh.toml");
        let mut members: Vec<Member> = vec![];
        let first = Place { site: network.topology.origin(), node: 0 };
        let options = |place: Place| {
            let site = &network.topology.sites[place.site];
            let extra = ["--listen", REGISTRY, "--mesh-listen", "0.0.0.0:4717", "--tier", site.tier.name()];
            let wrapper = network.space(place).wrapper();
            let variables = variables.to_vec();
            Options {
                wrapper,
                variables,
                extra: extra.map(str::to_owned).to_vec(),
                ..Options::site(&site.name)
            }
        };
        let member = |place, node| Member { place, node, killed: AtomicBool::new(false) };
        members.push(member(first, Node::start(options(first))));
        export_mesh(&members[0].node, &mesh_file);
        let others = network.topology.places().filter(|place| *place != first && !without.contains(place));
        for place in others {
            let node = Node::stopped(options(place).mesh(&mesh_file));
            members.push(member(place, node));
        }
        members[1..].iter_mut().for_each(|member| member.node.spawn());
        members[1..].iter_mut().for_each(|member| member.node.wait_until_ready());
        Ok(Fleet { members, network, mesh_file, _folder: folder })
    }

    /// The node at the origin that made the mesh is the first.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Numbers of the nodes that are not at the origin.
    pub fn away(&self) -> Vec<usize> {
        let origin = self.network.topology.origin();
        (0..self.members.len()).filter(|n| self.members[*n].place.site != origin).collect()
    }

    /// Does something in the network of a node.
    pub fn on<T: Send>(&self, number: usize, work: impl FnOnce() -> T + Send) -> T {
        self.network.space(self.members[number].place).on(work)
    }

    /// Publishes at the origin, and waits until all have heard of it.
    pub fn publish(&self, tag: &str, image: &Image) {
        self.on(0, || self.members[0].node.registry().push(REPOSITORY, tag, image));
        for number in 1..self.members.len() {
            self.on(number, || {
                let registry = self.members[number].node.registry();
                until_within(NEWS_PATIENCE, "a node has heard of the artifact", || {
                    let answer = registry.http.get(&format!("/v2/{REPOSITORY}/tags/list")).try_send().ok()?;
                    let tags = (answer.status == 200).then(|| answer.json())?;
                    tags["tags"].as_array()?.iter().any(|known| known == tag).then_some(())
                });
            });
        }
    }

    /// Clients at all these nodes pull at once; `meanwhile` runs beside them.
    pub fn pull(
        &self,
        numbers: &[usize],
        tag: &str,
        image: &Image,
        patience: Duration,
        meanwhile: impl FnOnce(&Fleet),
    ) -> Race {
        let before = (self.moved(), self.crossed(), self.usage());
        let deadline = Instant::now() + patience;
        let pulled = thread::scope(|scope| {
            let clients: Vec<_> = numbers
                .iter()
                .map(|number| {
                    let given_up = &self.members[*number].killed;
                    let pull = move || client::pull(REGISTRY, (REPOSITORY, tag), image, deadline, given_up);
                    scope.spawn(move || self.on(*number, pull))
                })
                .collect();
            meanwhile(self);
            clients.into_iter().filter_map(|client| client.join().unwrap()).collect()
        });
        let after = self.usage();
        let crossed = self.crossed().into_iter().zip(before.1).map(|(now, then)| now.since(then));
        Race {
            pulled,
            cpu: after.iter().zip(&before.2).map(|(a, b)| (a.cpu - b.cpu).max(0.0)).sum(),
            rss: after.iter().map(|usage| usage.rss).fold(0.0, f64::max),
            moved: self.moved().since(&before.0),
            crossed: crossed.collect(),
        }
    }

    /// SIGKILL, and its clients give up.
    pub fn kill(&self, number: usize) {
        self.members[number].killed.store(true, Ordering::SeqCst);
        self.members[number].node.signal(Signal::KILL);
    }

    /// What the living nodes say that they moved.
    pub fn moved(&self) -> Moved {
        let mut moved = Moved::default();
        for (number, member) in self.members.iter().enumerate() {
            if !member.killed.load(Ordering::SeqCst) {
                moved.note(number, &member.node.status(), |id| self.number_of(id));
            }
        }
        moved
    }

    /// Bytes over each site's line so far.
    pub fn crossed(&self) -> Vec<Crossed> {
        (0..self.network.topology.sites.len()).map(|site| self.network.crossed(site)).collect()
    }

    fn usage(&self) -> Vec<Usage> {
        self.members.iter().map(|member| Usage::of(member.node.pid())).collect()
    }

    /// A number that is no node's stands for all peers that are not of the fleet: those that lie.
    fn number_of(&self, id: &str) -> usize {
        self.members.iter().position(|member| member.node.id() == id).unwrap_or(self.members.len())
    }

    /// Whether a node is at the site.
    pub fn is_at(&self, number: usize, site: usize) -> bool {
        self.members.get(number).is_some_and(|member| member.place.site == site)
    }
}

impl Race {
    /// Blob bytes that came to a site from others.
    pub fn bytes_into(&self, fleet: &Fleet, site: usize) -> u64 {
        self.sum(|from, to| !fleet.is_at(from, site) && fleet.is_at(to, site))
    }

    /// Blob bytes that left a site for others.
    pub fn bytes_out_of(&self, fleet: &Fleet, site: usize) -> u64 {
        self.sum(|from, to| fleet.is_at(from, site) && !fleet.is_at(to, site))
    }

    /// How long each pull took, in seconds, the shortest first.
    pub fn seconds(&self) -> Vec<f64> {
        let mut seconds: Vec<_> = self.pulled.iter().map(|pulled| pulled.took.as_secs_f64()).collect();
        seconds.sort_by(f64::total_cmp);
        seconds
    }

    fn sum(&self, counts: impl Fn(usize, usize) -> bool) -> u64 {
        self.moved.iter().filter(|((from, to), _)| counts(*from, *to)).map(|(_, bytes)| bytes).sum()
    }
}
