//! A network with nothing in it but its own loopback, as a machine has it whose lines are all cut. What is
//! started in it reaches nobody else, and any port is free.

use std::{
    fs::File,
    os::fd::AsFd as _,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::clients::missing;

/// Does the work there: it and all that it starts. Nothing is done where this process may not make network
/// namespaces, which is said loudly.
pub fn sealed(work: impl FnOnce() + Send) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    // Named as the namespaces of other tests are, so that what a killed run leaves is removed by the next.
    let number = NEXT.fetch_add(1, Ordering::SeqCst);
    let space = Namespace(format!("ws{}-sealed{number}", std::process::id()));
    if !ip(&["netns", "add", &space.0]) || !ip(&["-n", &space.0, "link", "set", "lo", "up"]) {
        missing("the right to make network namespaces (root)");
        return;
    }
    let file = File::open(format!("/run/netns/{}", space.0)).unwrap();
    let done = thread::scope(|scope| {
        let inside = scope.spawn(|| {
            // Of this thread only, which ends with the work; what it starts inherits it. (`ip netns exec`
            // would hide the control groups, which engines need.)
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work();
        });
        inside.join()
    });
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Gives the network that the calling thread is sealed in an address that is not loopback's. Only whoever is in
/// there has it.
#[track_caller]
pub fn add_address(address: &str) {
    // The test's main thread never is in one.
    let network_of = |thread: &str| std::fs::read_link(format!("/proc/{thread}/ns/net")).unwrap();
    assert_ne!(network_of("thread-self"), network_of("self"), "not in a sealed network");
    assert!(ip(&["addr", "add", &format!("{address}/32"), "dev", "lo"]), "{address} cannot be added");
}

struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&["netns", "delete", &self.0]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).output().is_ok_and(|output| output.status.success())
}
