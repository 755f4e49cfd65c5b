//! Networks as they are: firewalls that drop UDP, sites that can only dial out and all have the same address,
//! addresses that change, machines that sleep. Nodes exchange blobs all the same.

use std::{path::PathBuf, thread, time::Duration};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    cluster::export_mesh,
    image::Image,
    net::{Host, Net, public_address},
    node::{Node, Options, temp_dir},
    wait::until_true,
};

/// A mesh of machines in a network.
struct Machines {
    /// The first made the mesh and may publish; others join at it.
    nodes: Vec<(Node, Host)>,
    mesh_file: PathBuf,
    _folder: TempDir,
    // Removed after the nodes in it have ended.
    net: Net,
}

impl Machines {
    /// With a first machine that everybody reaches.
    fn start(extra: &[&str]) -> Option<Self> {
        let mut net = Net::new()?;
        let host = net.public(1);
        let folder = temp_dir("mesh");
        let first = Node::start(options(&host, "cloud", 4717, extra));
        let mesh_file = folder.path().join("mesh.toml");
        export_mesh(&first, &mesh_file);
        Some(Machines { nodes: vec![(first, host)], mesh_file, _folder: folder, net })
    }

    /// Another node of the mesh; its number.
    fn add(&mut self, host: Host, site: &str, port: u16) -> usize {
        let join = vec![format!("{}:4717", public_address(1))];
        let options = Options { join, ..options(&host, site, port, &[]).mesh(&self.mesh_file) };
        self.nodes.push((Node::start(options), host));
        self.nodes.len() - 1
    }

    /// Until these two have a session.
    #[track_caller]
    fn wait_for_session(&self, one: usize, other: usize) {
        let other = self.nodes[other].0.id();
        until_true("two have a session", || self.nodes[one].0.sessions().iter().any(|id| id == other));
    }

    #[track_caller]
    fn grant(&self, node: usize) {
        let id = self.nodes[node].0.id();
        self.nodes[0].0.cli(&["mesh", "grant", id, "--repositories", "**"]).expect(0);
        let (node, host) = &self.nodes[node];
        until_true("a granted node may publish", || {
            host.on(|| {
                node.registry().http.request("POST", "/v2/granted/blobs/uploads/").send().status == 202
            })
        });
    }

    #[track_caller]
    fn push(&self, node: usize, tag: &str, image: &Image) {
        let (node, host) = &self.nodes[node];
        host.on(|| node.registry().push("app", tag, image));
    }

    /// The tag comes to the node, and with it the right bytes.
    #[track_caller]
    fn pull(&self, node: usize, tag: &str, image: &Image) {
        let (node, host) = &self.nodes[node];
        host.on(|| {
            node.registry().wait_for_tag("app", tag, image);
            node.registry().assert_has("app", tag, image);
        });
    }
}

/// Clients connect over loopback; several nodes may be on one host.
fn options(host: &Host, site: &str, port: u16, extra: &[&str]) -> Options {
    let mut all = vec!["--mesh-listen".to_owned(), format!("0.0.0.0:{port}")];
    all.extend(extra.iter().map(ToString::to_string));
    Options { wrapper: host.wrapper(), extra: all, ..Options::site(site) }
}

#[test]
fn where_udp_is_dropped_blobs_come_over_tcp() {
    let Some(mut machines) = Machines::start(&[]) else { return };
    let host = machines.net.public(2);
    host.drop_udp();
    let walled = machines.add(host, "walled", 4717);
    machines.grant(walled);
    let (there, back) = (Image::random(1, &[3_000_000]), Image::random(2, &[3_000_000]));
    machines.push(0, "there", &there);
    machines.pull(walled, "there", &there);
    machines.push(walled, "back", &back);
    machines.pull(0, "back", &back);
    let counted = machines.nodes[0].0.bytes_received();
    assert!(counted >= 3_000_000, "{counted} bytes were counted");
}

#[test]
fn what_a_site_pushed_that_only_dials_out_is_pulled_elsewhere() {
    let Some(mut machines) = Machines::start(&[]) else { return };
    // Both are 10.0.0.2 at home; two nodes share one machine.
    let (here, there) = (machines.net.private(2), machines.net.private(3));
    let one = machines.add(here.clone(), "here", 4717);
    let beside = machines.add(here, "here", 4718);
    let far = machines.add(there, "there", 4717);
    machines.grant(one);
    machines.grant(far);
    let (image, other) = (Image::random(1, &[3_000_000]), Image::random(2, &[100_000]));
    machines.push(one, "v1", &image);
    machines.push(far, "v2", &other);
    for node in [0, beside, far] {
        machines.pull(node, "v1", &image);
    }
    for node in [0, one, beside] {
        machines.pull(node, "v2", &other);
    }
}

#[test]
fn two_sites_that_only_dial_out_exchange_through_a_relay() {
    let Some(mut machines) = Machines::start(&["--relay"]) else { return };
    let (here, there) = (machines.net.hidden(2), machines.net.hidden(3));
    let (one, other) = (machines.add(here, "here", 4717), machines.add(there, "there", 4717));
    machines.grant(one);
    machines.wait_for_session(one, other);
    machines.wait_for_session(other, one);
    let image = Image::random(1, &[3_000_000]);
    machines.push(one, "v1", &image);
    machines.pull(other, "v1", &image);
    // The relay passed it on, and has it not.
    let [relay, pushed, pulled] = [0, one, other].map(|node| &machines.nodes[node].0);
    assert_eq!(relay.bytes_received(), 0);
    assert!(pulled.bytes_received() >= 3_000_000);
    until_true("what was sent is counted", || pushed.bytes_sent() >= 3_000_000);
    let peers = relay.cli(&["peers", "--json"]).expect(0).stdout;
    assert!(peers.contains("/p2p-circuit"), "{peers}");
}

#[test]
fn two_sites_that_only_dial_out_meet_over_a_relay_and_exchange_without_it() {
    let Some(mut machines) = Machines::start(&["--relay"]) else { return };
    let (here, there) = (machines.net.private(2), machines.net.private(3));
    let (one, other) = (machines.add(here, "here", 4717), machines.add(there, "there", 4717));
    machines.grant(one);
    machines.wait_for_session(one, other);
    for node in [one, other] {
        until_true("they reach one another without the relay", || {
            machines.nodes[node].0.log().contains("a member met over a relay is reached without it")
        });
    }
    let before = machines.nodes[0].1.crossed();
    let image = Image::random(1, &[3_000_000]);
    machines.push(one, "v1", &image);
    machines.pull(other, "v1", &image);
    assert!(machines.nodes[other].0.bytes_received() >= 3_000_000);
    let crossed = machines.nodes[0].1.crossed() - before;
    assert!(crossed < 500_000, "{crossed} bytes went over the relay's link");
}

/// What the doctor finds of both planes: how bad, and why.
fn reached(node: &Node) -> [(String, String); 2] {
    let ended = node.cli(&["doctor", "--json", "--root", node.data_dir().to_str().unwrap()]);
    let found: Vec<Value> = serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {ended:?}"));
    ["reach-control", "reach-data"].map(|check| {
        let of = found.iter().find(|finding| finding["check"] == check);
        let of = of.unwrap_or_else(|| panic!("no {check} in {found:#?}"));
        let text = |key: &str| of[key].as_str().unwrap_or_default().to_owned();
        (text("level"), text("why"))
    })
}

#[test]
fn the_doctor_says_on_which_planes_others_reach_a_node() {
    let Some(mut machines) = Machines::start(&[]) else { return };
    let (open, walled) = (machines.net.public(2), machines.net.public(3));
    walled.drop_udp();
    let home = machines.net.private(4);
    let open = machines.add(open, "open", 4717);
    let walled = machines.add(walled, "walled", 4717);
    let home = machines.add(home, "home", 4717);
    let at = |host: u8| format!("{}:4717", public_address(host));
    for (number, address, expected) in [
        (open, at(2), ["ok", "ok"]),
        (walled, at(3), ["ok", "warn"]),
        (home, "10.0.0.2:4717".to_owned(), ["warn", "warn"]),
    ] {
        machines.wait_for_session(number, 0);
        let node = &machines.nodes[number].0;
        until_true("the first knows where it is", || {
            machines.nodes[0].0.cli(&["peers", "--json"]).expect(0).stdout.contains(&address)
        });
        let planes = reached(node);
        for ((level, why), expected) in planes.iter().zip(expected) {
            assert_eq!(level, expected, "{number}: {planes:?}");
            assert!(why.contains("just now"), "it was tried: {why}");
        }
    }
}

#[test]
fn a_node_whose_address_changes_goes_on() {
    let Some(mut machines) = Machines::start(&[]) else { return };
    let host = machines.net.public(2);
    let moving = machines.add(host.clone(), "moving", 4717);
    machines.grant(moving);
    let images: Vec<Image> = (0..4).map(|seed| Image::random(seed, &[500_000])).collect();
    machines.push(0, "0", &images[0]);
    machines.pull(moving, "0", &images[0]);
    machines.push(moving, "1", &images[1]);
    machines.pull(0, "1", &images[1]);
    host.renumber(2, 77);
    machines.push(0, "2", &images[2]);
    machines.pull(moving, "2", &images[2]);
    machines.push(moving, "3", &images[3]);
    machines.pull(0, "3", &images[3]);
    let address = format!("{}:4717", public_address(77));
    until_true("the new address is told", || {
        machines.nodes[0].0.cli(&["peers", "--json"]).expect(0).stdout.contains(&address)
    });
}

#[test]
fn a_machine_that_slept_catches_up() {
    let Some(mut machines) = Machines::start(&[]) else { return };
    let host = machines.net.public(2);
    let sleeper = machines.add(host, "sleeper", 4717);
    machines.grant(sleeper);
    machines.wait_for_session(0, sleeper);
    let images: Vec<Image> = (0..2).map(|seed| Image::random(seed, &[500_000])).collect();
    machines.nodes[sleeper].0.signal(Signal::STOP);
    machines.push(0, "0", &images[0]);
    thread::sleep(SLEEP);
    machines.nodes[sleeper].0.signal(Signal::CONT);
    machines.pull(sleeper, "0", &images[0]);
    machines.push(sleeper, "1", &images[1]);
    machines.pull(0, "1", &images[1]);
}

/// Longer than handshakes, transfers and dials wait.
const SLEEP: Duration = Duration::from_secs(21);
