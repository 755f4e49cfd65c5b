//! Network namespaces with names of the testbed's own, removed with everything in them: at the end, after a
//! panic, after ctrl-c, and those of an earlier run that was killed at the next start.

use std::{
    fs::{self, File},
    os::fd::AsFd as _,
    path::Path,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use rustix::{
    process::{Pid, Signal, kill_process},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

/// Before the process id of the testbed that made them.
const PREFIX: &str = "wsbed";

/// A namespace. Dropping it removes it; nothing of the testbed may run in it any more.
pub struct Space {
    name: String,
}

/// The names of one network's namespaces.
#[derive(Clone, Debug)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// Names that nobody else has.
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        Names { prefix: format!("{PREFIX}{}-{number}", std::process::id()) }
    }
}

impl Space {
    /// A new one, with its loopback up.
    pub fn new(names: &Names, name: &str) -> Result<Self, String> {
        let space = Space { name: format!("{}-{name}", names.prefix) };
        try_run("ip", &["netns", "add", &space.name])?;
        space.ip(&["link", "set", "lo", "up"]);
        Ok(space)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The program and arguments that start a command in it.
    pub fn wrapper(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.name].map(str::to_owned).to_vec()
    }

    /// `ip` in it.
    #[track_caller]
    pub fn ip(&self, arguments: &[&str]) {
        run("ip", &[&["-n", &self.name], arguments].concat());
    }

    /// `tc` in it.
    #[track_caller]
    pub fn tc(&self, arguments: &[&str]) -> String {
        run("tc", &[&["-n", &self.name], arguments].concat())
    }

    /// `tc` in it, where it may fail.
    pub fn try_tc(&self, arguments: &[&str]) -> Result<String, String> {
        try_run("tc", &[&["-n", &self.name], arguments].concat())
    }

    /// Does something with the network as it is seen from there, on a thread that ends with the work. Threads
    /// that the work starts are there, too.
    pub fn on<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let space = File::open(Path::new("/run/netns").join(&self.name)).unwrap();
        let moved = thread::scope(|scope| {
            let there = scope.spawn(|| {
                move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            });
            there.join()
        });
        moved.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Whether packets that come in are passed on, or dropped without a word.
    pub fn forward(&self, forward: bool) {
        self.on(|| fs::write("/proc/sys/net/ipv4/ip_forward", if forward { "1" } else { "0" }).unwrap());
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // Interfaces go with it.
        let _ = try_run("ip", &["netns", "delete", &self.name]);
    }
}

/// Removes what runs left that are gone.
pub fn remove_orphans() {
    remove(|owner| !Path::new("/proc").join(owner.to_string()).exists());
}

/// Ends what runs in this run's namespaces and removes them: for ctrl-c, where nothing is dropped.
pub fn remove_own() {
    remove(|owner| owner == std::process::id());
}

fn remove(chosen: impl Fn(u32) -> bool) {
    let Ok(spaces) = fs::read_dir("/run/netns") else { return };
    for name in spaces.filter_map(|space| space.ok()?.file_name().into_string().ok()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
        let owner = owner.and_then(|(owner, _)| owner.parse().ok());
        if !owner.is_some_and(&chosen) {
            continue;
        }
        // Nodes outlive a testbed that was killed.
        for pid in try_run("ip", &["netns", "pids", &name]).unwrap_or_default().lines() {
            let pid = pid.parse().ok().filter(|pid| *pid != std::process::id().cast_signed());
            if let Some(pid) = pid.and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = try_run("ip", &["netns", "delete", &name]);
    }
}

#[track_caller]
fn run(program: &str, arguments: &[&str]) -> String {
    try_run(program, arguments).unwrap_or_else(|why| panic!("{program} {arguments:?}: {why}"))
}

fn try_run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}
