//! A blob that only an upstream has, behind a link of 200 Mbit/s (a token bucket on one end of a pair of virtual
//! interfaces, each in a network namespace of its own): fetched from the upstream itself, and through a node that
//! does not have it yet. How long until the first byte, and how fast in all.

use std::{
    fs::File,
    os::fd::AsFd as _,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{
    Sizes,
    harness::{
        image::{digest, random_bytes},
        node::{Node, Options, temp_dir},
    },
    load::Client,
    peers::Server,
    samples::{head, line, times},
};

pub fn measure(sizes: Sizes) {
    let Some(network) = Network::new() else {
        println!("not measured: this process may not make network namespaces");
        return;
    };
    let inside = File::open(format!("/run/netns/{}", network.near)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            // Of this thread only; what it starts inherits it.
            move_into_link_name_space(inside.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            compare(sizes, &network);
        });
    });
}

fn compare(sizes: Sizes, network: &Network) {
    let enter = ["ip", "netns", "exec", &network.far].map(str::to_owned);
    let Some(nginx) = Server::nginx_at(&format!("{UPSTREAM}:8080"), &enter) else { return };
    let folder = temp_dir("config");
    let config = folder.path().join("node.toml");
    let text =
        format!("[[upstream]]\nnamespace = \"up.example\"\nendpoints = [\"http://{}\"]\n", nginx.address);
    std::fs::write(&config, text).unwrap();
    let extra = vec!["--config".to_owned(), config.display().to_string()];
    let node = Node::start(Options { extra, ..Options::default() });
    println!("GET of {} MiB over {RATE}; goal: ≥ 0.95 × direct, first byte within 100 ms", sizes.blob >> 20);
    head(&["by", "MB/s", "of direct", "first byte, ms"]);
    for round in 0..ROUNDS {
        let blob = random_bytes(100 + round, sizes.blob);
        let name = digest(&blob);
        nginx.put(&format!("/v2/bench/blobs/{name}"), &blob);
        drop(blob);
        let direct = fetch(&nginx.address, &format!("/v2/bench/blobs/{name}"));
        let through = fetch(node.ready("listen"), &format!("/v2/up.example/bench/blobs/{name}"));
        assert_eq!(through.digest, name);
        let row = |by: &str, got: &Fetched| {
            let ratio = times(got.rate, direct.rate);
            line(&[by.to_owned(), format!("{:.2}", got.rate / 1e6), ratio, format!("{:.1}", got.first_ms)]);
        };
        row("the upstream itself", &direct);
        row("a node, cold", &through);
    }
}

struct Fetched {
    rate: f64,
    first_ms: f64,
    digest: String,
}

fn fetch(address: &str, target: &str) -> Fetched {
    use sha2::Digest as _;
    let (mut sha256, mut size, mut first) = (sha2::Sha256::new(), 0, None);
    // Connecting is not part of it: clients keep their connections.
    let mut client = Client::new(address);
    let start = Instant::now();
    let answer = client.send("GET", target, "", &[], |bytes| {
        first.get_or_insert_with(|| start.elapsed());
        size += bytes.len();
        sha256.update(bytes);
    });
    assert_eq!(answer.unwrap().status, 200, "{target}");
    let first: Duration = first.unwrap();
    let digest = format!("sha256:{}", data_encoding::HEXLOWER.encode(&sha256.finalize()));
    Fetched { rate: size as f64 / start.elapsed().as_secs_f64(), first_ms: first.as_secs_f64() * 1e3, digest }
}

/// Two namespaces with a link between them that is limited towards `near`.
struct Network {
    near: String,
    far: String,
}

impl Network {
    fn new() -> Option<Self> {
        let name = |end: &str| format!("ws{}-{end}", std::process::id());
        let network = Network { near: name("near"), far: name("far") };
        let Network { near, far } = &network;
        let commands = [
            format!("ip netns add {near}"),
            format!("ip netns add {far}"),
            format!("ip link add near0 netns {near} type veth peer name far0 netns {far}"),
            format!("ip -n {near} link set lo up"),
            format!("ip -n {far} link set lo up"),
            format!("ip -n {near} addr add 10.77.0.2/30 dev near0"),
            format!("ip -n {far} addr add {UPSTREAM}/30 dev far0"),
            format!("ip -n {near} link set near0 up"),
            format!("ip -n {far} link set far0 up"),
            format!(
                "ip netns exec {far} tc qdisc add dev far0 root tbf rate {RATE} burst 256kb latency 50ms"
            ),
        ];
        let run = |command: &String| {
            let mut words = command.split(' ');
            let program = words.next().unwrap_or_default();
            Command::new(program).args(words).status().is_ok_and(|status| status.success())
        };
        commands.iter().all(run).then_some(network)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in [&self.near, &self.far] {
            let _ = Command::new("ip").args(["netns", "delete", name]).output();
        }
    }
}

const RATE: &str = "200mbit";
const UPSTREAM: &str = "10.77.0.1";
const ROUNDS: u64 = 2;
