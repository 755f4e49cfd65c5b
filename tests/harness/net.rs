//! A small internet in network namespaces: machines with an address of their own, and sites behind routers that
//! translate addresses, all with the same one inside. Nothing of it touches the machine's own network. Dropping
//! it removes it.

use std::{
    fs::{self, File},
    os::fd::AsFd as _,
    path::Path,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::clients::missing;

/// A switch, and the namespaces around it.
pub struct Net {
    name: String,
    spaces: Vec<String>,
}

/// A machine in it.
#[derive(Clone, Debug)]
pub struct Host(String);

impl Net {
    /// Nothing where this process may not make namespaces or filter in them, which is said loudly.
    pub fn new() -> Option<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        remove_orphans();
        // Named as the namespaces of other tests are, so that what a killed run leaves is removed by the next.
        let name = format!("ws{}-net{}", std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst));
        let mut net = Net { name, spaces: vec![] };
        let hub = net.space("hub")?;
        if let Err(why) = hub.run(&["iptables", "-t", "nat", "-L", "-n"]) {
            missing(&format!("iptables that works ({why})"));
            return None;
        }
        hub.ip(&["link", "add", "switch", "type", "bridge"]);
        hub.ip(&["link", "set", "switch", "up"]);
        Some(net)
    }

    /// A machine with the address 198.51.100.n, which everybody reaches.
    pub fn public(&mut self, n: u8) -> Host {
        let host = self.space(&format!("public{n}")).expect("more namespaces");
        self.plug(&host, n);
        host
    }

    /// A machine that is 10.0.0.2 at home and reaches others as 198.51.100.n, but which nobody reaches.
    pub fn private(&mut self, n: u8) -> Host {
        self.behind(n, &[])
    }

    /// The same behind a router that gives each connection another port, so that it can be met by nobody.
    pub fn hidden(&mut self, n: u8) -> Host {
        self.behind(n, &["--random-fully"])
    }

    fn behind(&mut self, n: u8, translation: &[&str]) -> Host {
        let router = self.space(&format!("router{n}")).expect("more namespaces");
        let host = self.space(&format!("private{n}")).expect("more namespaces");
        self.plug(&router, n);
        router.ip(&["link", "add", "inside", "type", "veth", "peer", "name", "eth0", "netns", &host.0]);
        router.ip(&["address", "add", "10.0.0.1/24", "dev", "inside"]);
        router.ip(&["link", "set", "inside", "up"]);
        router.expect(&["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"]);
        let masquerade = ["iptables", "-t", "nat", "-A", "POSTROUTING", "-o", "eth0", "-j", "MASQUERADE"];
        router.expect(&[&masquerade, translation].concat());
        // As routers do: what nobody inside asked for is dropped without a word.
        router.expect(&["iptables", "-A", "INPUT", "-i", "eth0", "-j", "DROP"]);
        host.ip(&["address", "add", "10.0.0.2/24", "dev", "eth0"]);
        host.ip(&["link", "set", "eth0", "multicast", "off", "up"]);
        host.ip(&["route", "add", "default", "via", "10.0.0.1"]);
        host
    }

    /// Joins a machine to the switch. Nothing is found by multicast, as between sites.
    fn plug(&self, host: &Host, n: u8) {
        let (hub, port) = (Host(self.spaces[0].clone()), format!("port{n}"));
        hub.ip(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &host.0]);
        hub.ip(&["link", "set", &port, "master", "switch", "up"]);
        host.ip(&["address", "add", &format!("{}/24", public_address(n)), "dev", "eth0"]);
        host.ip(&["link", "set", "eth0", "multicast", "off", "up"]);
    }

    fn space(&mut self, role: &str) -> Option<Host> {
        let space = format!("{}-{role}", self.name);
        if command(&["ip", "netns", "add", &space]).is_err() {
            missing("the right to make network namespaces (root)");
            return None;
        }
        self.spaces.push(space.clone());
        let host = Host(space);
        host.ip(&["link", "set", "lo", "up"]);
        Some(host)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // Interfaces go with their namespaces.
        for space in &self.spaces {
            let _ = command(&["ip", "netns", "delete", space]);
        }
    }
}

impl Host {
    /// The program and arguments that start a command there.
    pub fn wrapper(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.0].map(str::to_owned).to_vec()
    }

    /// Does something with the network as the machine sees it, also its loopback.
    pub fn on<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let space = File::open(Path::new("/run/netns").join(&self.0)).unwrap();
        let moved = thread::scope(|scope| {
            let there = scope.spawn(|| {
                // Of this thread only, which ends with the work.
                move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            });
            there.join()
        });
        moved.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Bytes that came and went over its link.
    pub fn crossed(&self) -> u64 {
        let table = self.on(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap());
        let link = table.lines().find_map(|line| line.trim().strip_prefix("eth0:")).unwrap();
        let figures: Vec<u64> = link.split_whitespace().map(|figure| figure.parse().unwrap()).collect();
        figures[0] + figures[8]
    }

    /// Drops all UDP that comes or goes, without a word.
    pub fn drop_udp(&self) {
        for chain in ["INPUT", "OUTPUT"] {
            self.expect(&["iptables", "-A", chain, "-p", "udp", "-j", "DROP"]);
        }
    }

    /// Gives the machine another public address instead of its own.
    pub fn renumber(&self, from: u8, to: u8) {
        self.ip(&["address", "del", &format!("{}/24", public_address(from)), "dev", "eth0"]);
        self.ip(&["address", "add", &format!("{}/24", public_address(to)), "dev", "eth0"]);
    }

    #[track_caller]
    fn ip(&self, arguments: &[&str]) {
        let mut words = vec!["ip", "-n", &self.0];
        words.extend(arguments);
        command(&words).unwrap_or_else(|why| panic!("{words:?}: {why}"));
    }

    #[track_caller]
    fn expect(&self, words: &[&str]) {
        self.run(words).unwrap_or_else(|why| panic!("{words:?}: {why}"));
    }

    fn run(&self, words: &[&str]) -> Result<(), String> {
        let inside: Vec<&str> =
            ["ip", "netns", "exec", &self.0].into_iter().chain(words.iter().copied()).collect();
        command(&inside)
    }
}

/// The address of a machine that everybody reaches.
pub fn public_address(n: u8) -> String {
    format!("198.51.100.{n}")
}

/// Removes what runs left that were killed before they could.
fn remove_orphans() {
    let Ok(spaces) = fs::read_dir("/run/netns") else { return };
    for name in spaces.filter_map(|space| space.ok()?.file_name().into_string().ok()) {
        let owner = name.strip_prefix("ws").and_then(|rest| rest.split_once('-')).map(|(owner, _)| owner);
        let is_gone = |owner: &str| owner.parse::<u32>().is_ok() && !Path::new("/proc").join(owner).exists();
        if owner.is_some_and(is_gone) {
            let _ = command(&["ip", "netns", "delete", &name]);
        }
    }
}

fn command(words: &[&str]) -> Result<(), String> {
    let output = Command::new(words[0]).args(&words[1..]).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}
