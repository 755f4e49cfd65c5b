//! Three machines on one network, in namespaces: they find one another by the addresses that they tell, a
//! cut holds nobody up, and what was cut off catches up.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use waystation::mesh::MeshFile;

use crate::{
    harness::{
        cluster::export_mesh,
        image::Image,
        node::{Node, Options, temp_dir},
        wait::{until_true, until_within},
    },
    lan::{Lan, address},
    watch::assert_no_panic,
};

/// Nodes on a network of their own, all with the default listener.
struct Machines {
    nodes: Vec<Node>,
    // Removed after the nodes in it have ended.
    lan: Lan,
    mesh_file: PathBuf,
    _folder: TempDir,
}

impl Machines {
    /// A first node that made the mesh, each at a site of its own or all at one.
    fn start(lan: Lan, site: &str) -> Self {
        let folder = temp_dir("mesh");
        let first = Node::start(options(&lan, 0, site));
        let mesh_file = folder.path().join("mesh.toml");
        export_mesh(&first, &mesh_file);
        Machines { nodes: vec![first], lan, mesh_file, _folder: folder }
    }

    fn add(&mut self, site: &str) {
        let host = self.nodes.len();
        self.nodes.push(Node::start(options(&self.lan, host, site).mesh(&self.mesh_file)));
    }

    #[track_caller]
    fn wait_until_connected(&self) {
        for node in &self.nodes {
            until_true("all have sessions", || node.sessions().len() == self.nodes.len() - 1);
        }
    }

    fn push(&self, host: usize, tag: &str, image: &Image) {
        self.lan.on(host, || self.nodes[host].registry().push("app", tag, image));
    }

    /// The tag comes to the host, and with it the right bytes.
    fn pull(&self, host: usize, tag: &str, image: &Image) {
        self.lan.on(host, || {
            self.nodes[host].registry().wait_for_tag("app", tag, image);
            self.nodes[host].registry().assert_has("app", tag, image);
        });
    }

    /// The status that a manifest is answered with, none where the client's patience ends before, and how
    /// long that took.
    fn status_of(&self, host: usize, reference: &str) -> (Option<u16>, Duration) {
        let (start, target) = (Instant::now(), format!("/v2/app/manifests/{reference}"));
        let answer = self.lan.on(host, || self.nodes[host].registry().http.get(&target).try_send());
        (answer.ok().map(|answer| answer.status), start.elapsed())
    }

    /// Whether the host has heard of a tag, without asking for its content.
    fn knows(&self, host: usize, tag: &str) -> bool {
        self.lan
            .on(host, || self.nodes[host].registry().http.get("/v2/app/tags/list").send())
            .expect(200)
            .json()["tags"]
            .as_array()
            .is_some_and(|tags| tags.iter().any(|known| known == tag))
    }
}

fn options(lan: &Lan, host: usize, site: &str) -> Options {
    let extra = ["--mesh-listen", "0.0.0.0:4717", "--listen", "127.0.0.1:5000"].map(str::to_owned).to_vec();
    Options { wrapper: lan.wrapper(host), extra, ..Options::site(site) }
}

#[test]
fn nodes_tell_one_another_where_they_are() {
    let Some(lan) = Lan::new(3) else { return };
    let mut machines = Machines::start(lan, "site-0");
    let joins = MeshFile::load(&machines.mesh_file).unwrap().join().to_vec();
    assert_eq!(joins, [format!("{}:4717", address(0))], "the mesh file says where the first node is");
    machines.add("site-1");
    machines.add("site-2");
    machines.wait_until_connected();
    for node in &machines.nodes {
        let others = || (0..3).filter(|host| node.id() != machines.nodes[*host].id());
        let mut peers = String::new();
        until_true("everybody's address is told", || {
            peers = node.cli(&["peers", "--json"]).expect(0).stdout;
            others().all(|host| peers.contains(&format!("{}:4717", address(host))))
        });
        assert!(!peers.contains("127.0.0.1") && !peers.contains("0.0.0.0"), "{peers}");
    }
    let image = Image::random(1, &[2_000_000]);
    machines.push(0, "v1", &image);
    machines.pull(1, "v1", &image);
    machines.pull(2, "v1", &image);
}

#[test]
fn nodes_of_one_network_find_one_another_without_an_address() {
    let Some(lan) = Lan::new(2) else { return };
    let mut machines = Machines::start(lan, "here");
    let mesh = MeshFile::load(&machines.mesh_file).unwrap().with_join(vec![]).unwrap();
    mesh.save(&machines.mesh_file).unwrap();
    let start = Instant::now();
    machines.add("here");
    machines.wait_until_connected();
    println!("found by multicast after {:?}", start.elapsed());
}

#[test]
fn an_unplugged_node_works_alone_and_catches_up() {
    let Some(lan) = Lan::new(3) else { return };
    work_through_a_cut(lan.without_multicast(), Lan::unplug, Lan::plug);
}

#[test]
fn a_node_behind_a_line_that_was_cut_works_alone_and_catches_up() {
    let Some(lan) = Lan::new(3) else { return };
    work_through_a_cut(lan.without_multicast(), Lan::cut, Lan::mend);
}

fn work_through_a_cut(lan: Lan, cut: fn(&Lan, usize), mend: fn(&Lan, usize)) {
    let mut machines = Machines::start(lan, "site-0");
    machines.add("site-1");
    machines.add("site-2");
    machines.wait_until_connected();
    let (held, known) = (Image::random(1, &[500_000]), Image::random(2, &[500_000]));
    machines.push(0, "held", &held);
    (0..3).for_each(|host| machines.pull(host, "held", &held));
    machines.push(0, "known", &known);
    until_true("the third node has heard of it", || machines.knows(2, "known"));

    cut(&machines.lan, 2);
    let start = Instant::now();
    machines.pull(2, "held", &held);
    for reference in ["unknown", &Image::random(3, &[1]).digest()] {
        let (status, took) = machines.status_of(2, reference);
        assert_eq!(status, Some(404));
        assert!(took < Duration::from_secs(2), "{reference} took {took:?}");
    }
    let (status, took) = machines.status_of(2, "known");
    println!("known elsewhere and not held: {status:?} after {took:?}");
    assert!([Some(404), Some(504)].contains(&status), "{status:?}");
    assert!(took < FAST, "what cannot be had took {took:?}");
    // The others go on, for as long as it takes.
    let mut during = vec![];
    while during.len() < 5 || start.elapsed() < CUT {
        let image = Image::random(10 + during.len() as u64, &[100_000]);
        let tag = format!("during-{}", during.len());
        let started = Instant::now();
        machines.push(0, &tag, &image);
        machines.pull(1, &tag, &image);
        assert!(started.elapsed() < FAST, "the others were held up: {:?}", started.elapsed());
        during.push((tag, image));
    }
    machines.pull(2, "held", &held);

    println!("cut for {:?}", start.elapsed());
    mend(&machines.lan, 2);
    let mended = Instant::now();
    let (tag, image) = during.last().unwrap();
    until_within(CATCH_UP, "the third node has heard of everything", || machines.knows(2, tag).then_some(()));
    println!("caught up after {:?}", mended.elapsed());
    machines.pull(2, tag, image);
    println!("pulled after {:?}", mended.elapsed());
    for (tag, image) in &during {
        machines.pull(2, tag, image);
    }
    machines.pull(2, "known", &known);
    machines.nodes.iter().for_each(assert_no_panic);
}

/// A client that waits longer than this goes away.
const FAST: Duration = Duration::from_secs(30);

/// How long a cut lasts at least: longer than dials and fetches wait.
const CUT: Duration = Duration::from_secs(12);

/// What a node may take to notice that the way is open again.
const CATCH_UP: Duration = Duration::from_secs(60);
