//! A network of its own: namespaces joined by a bridge in another namespace, so that nothing of it touches
//! the machine's network. Links can be taken down or cut silently. Needs the right to make namespaces.

use std::{
    fs::{self, File},
    os::fd::AsFd as _,
    path::Path,
    process::Command,
    sync::atomic::AtomicUsize,
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// So many hosts, each in a namespace of its own, at one switch. Dropping it removes them all.
pub struct Lan {
    name: String,
    hosts: usize,
}

impl Lan {
    /// Nothing where this process may not make namespaces, which is said loudly.
    pub fn new(hosts: usize) -> Option<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        remove_orphans();
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let lan = Lan { name: format!("ws{}-{number}", std::process::id()), hosts };
        if let Err(why) = try_ip(&["netns", "add", &lan.hub()]) {
            eprintln!("\n!!! NOT TESTED: network namespaces cannot be made here ({why}); run as root !!!\n");
            return None;
        }
        ip(&["-n", &lan.hub(), "link", "add", "switch", "type", "bridge"]);
        ip(&["-n", &lan.hub(), "link", "set", "switch", "up"]);
        for host in 0..hosts {
            let (space, port) = (lan.host(host), format!("port{host}"));
            ip(&["netns", "add", &space]);
            ip(&[
                "-n",
                &lan.hub(),
                "link",
                "add",
                &port,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                &space,
            ]);
            ip(&["-n", &lan.hub(), "link", "set", &port, "master", "switch", "up"]);
            ip(&["-n", &space, "address", "add", &format!("{}/24", address(host)), "dev", "eth0"]);
            ip(&["-n", &space, "link", "set", "lo", "up"]);
            ip(&["-n", &space, "link", "set", "eth0", "up"]);
        }
        Some(lan)
    }

    /// The program and arguments that start a command on a host.
    pub fn wrapper(&self, host: usize) -> Vec<String> {
        ["ip", "netns", "exec", &self.host(host)].map(str::to_owned).to_vec()
    }

    /// From now on nothing is found by multicast, as between sites.
    pub fn without_multicast(self) -> Self {
        for host in 0..self.hosts {
            ip(&["-n", &self.host(host), "link", "set", "eth0", "multicast", "off"]);
        }
        self
    }

    /// Does something with the network as the host sees it, also its loopback.
    pub fn on<T: Send>(&self, host: usize, work: impl FnOnce() -> T + Send) -> T {
        let space = File::open(format!("/run/netns/{}", self.host(host))).unwrap();
        let moved = thread::scope(|scope| {
            let on_host = scope.spawn(|| {
                // Of this thread only, which ends with the work.
                move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            });
            on_host.join()
        });
        moved.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Takes the host's own interface down: the host sees it, and its routes go.
    pub fn unplug(&self, host: usize) {
        ip(&["-n", &self.host(host), "link", "set", "eth0", "down"]);
    }

    /// Brings it up again.
    pub fn plug(&self, host: usize) {
        ip(&["-n", &self.host(host), "link", "set", "eth0", "up"]);
    }

    /// Cuts the line behind the switch: nobody sees anything, packets are lost.
    pub fn cut(&self, host: usize) {
        ip(&["-n", &self.hub(), "link", "set", &format!("port{host}"), "nomaster"]);
    }

    /// Mends it.
    pub fn mend(&self, host: usize) {
        ip(&["-n", &self.hub(), "link", "set", &format!("port{host}"), "master", "switch"]);
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.name)
    }

    fn host(&self, host: usize) -> String {
        assert!(host < self.hosts);
        format!("{}-{host}", self.name)
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        // Interfaces go with their namespaces.
        let hosts = (0..self.hosts).map(|host| self.host(host));
        for space in hosts.chain([self.hub()]) {
            let _ = try_ip(&["netns", "delete", &space]);
        }
    }
}

/// Removes what runs left that were killed before they could.
fn remove_orphans() {
    let Ok(spaces) = fs::read_dir("/run/netns") else { return };
    let names = spaces.filter_map(|space| space.ok()?.file_name().into_string().ok());
    for name in names {
        let owner = name.strip_prefix("ws").and_then(|rest| rest.split_once('-')).map(|(owner, _)| owner);
        let orphaned = owner
            .is_some_and(|owner| owner.parse::<u32>().is_ok() && !Path::new("/proc").join(owner).exists());
        if orphaned {
            let _ = try_ip(&["netns", "delete", &name]);
        }
    }
}

/// A host's address.
pub fn address(host: usize) -> String {
    format!("10.47.17.{}", host + 1)
}

#[track_caller]
fn ip(arguments: &[&str]) {
    try_ip(arguments).unwrap_or_else(|why| panic!("ip {arguments:?}: {why}"));
}

fn try_ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}
