//! The servers that are measured: this node and those that it is compared with, as processes of their own, and
//! what the system says of them. A peer that is not installed is named as not measured.

use std::{
    fs::{self, File},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use super::harness::{
    node::{Node, Options, temp_dir},
    wait::until_true,
};

/// A running server. Dropping it ends the process and removes its files.
pub struct Server {
    pub name: &'static str,
    pub address: String,
    process: Process,
}

enum Process {
    Node(Box<Node>),
    Peer { child: Child, folder: TempDir },
}

/// A registry that can be pushed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Waystation,
    DockerRegistry,
    Distribution3,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Waystation, Kind::DockerRegistry, Kind::Distribution3];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Waystation => "waystation",
            Kind::DockerRegistry => "docker-registry 2.8",
            Kind::Distribution3 => "distribution 3",
        }
    }

    /// Starts one, or says why it cannot be had here. `wrapper` is a program that starts it and then is it.
    pub fn start(self, wrapper: &[String]) -> Option<Server> {
        let program = match self {
            Kind::Waystation => {
                let node = Node::start(Options { wrapper: wrapper.to_vec(), ..Options::default() });
                let address = node.ready("listen").to_owned();
                return Some(Server { name: self.name(), address, process: Process::Node(Box::new(node)) });
            }
            Kind::DockerRegistry => in_path("docker-registry"),
            Kind::Distribution3 => distribution3(),
        };
        let Some(program) = program else {
            println!("{}: not installed, not measured", self.name());
            return None;
        };
        let folder = temp_dir("peer");
        let address = free_address();
        let text = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    \
             rootdirectory: {}\n  cache:\n    blobdescriptor: inmemory\n  delete:\n    enabled: true\nhttp:\n  \
             addr: {address}\n",
            folder.path().join("data").display()
        );
        let config = folder.path().join("config.yml");
        fs::write(&config, text).unwrap();
        let words: Vec<String> = wrapper.iter().cloned().chain([program.display().to_string()]).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("serve").arg(&config).env("OTEL_TRACES_EXPORTER", "none");
        Some(Server::spawn(self.name(), command, folder, address))
    }
}

impl Server {
    /// nginx with sendfile, on an empty folder: see [`Server::put`]. As many workers as cores, nothing logged,
    /// connections kept.
    pub fn nginx() -> Option<Self> {
        Self::nginx_at(&free_address(), &[])
    }

    /// The same at this address, started by a wrapper.
    pub fn nginx_at(address: &str, wrapper: &[String]) -> Option<Self> {
        let Some(program) = in_path("nginx") else {
            println!("nginx: not installed, not measured");
            return None;
        };
        let folder = temp_dir("nginx");
        let root = folder.path().display();
        let text = format!(
            "user root;\ndaemon off;\nworker_processes 2;\npid {root}/pid;\nerror_log {root}/errors;\n\
             worker_rlimit_nofile 8192;\nevents {{ worker_connections 4096; }}\n\
             http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; keepalive_timeout 600;\n\
             client_body_temp_path {root}/body; proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/fastcgi;\n\
             uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi; default_type application/octet-stream;\n\
             server {{ listen {address}; root {root}/www; location = /v2/ {{ return 200; }} }} }}\n"
        );
        let config = folder.path().join("nginx.conf");
        fs::write(&config, text).unwrap();
        fs::create_dir(folder.path().join("www")).unwrap();
        let words: Vec<String> = wrapper.iter().cloned().chain([program.display().to_string()]).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("-c").arg(&config).arg("-p").arg(folder.path());
        Some(Self::spawn("nginx", command, folder, address.to_owned()))
    }

    fn spawn(name: &'static str, mut command: Command, folder: TempDir, address: String) -> Self {
        let log = File::create(folder.path().join("log")).unwrap();
        let command = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        until_true(&format!("{name} listens"), || TcpStream::connect(&address).is_ok());
        Server { name, address, process: Process::Peer { child, folder } }
    }

    /// Puts a file where nginx serves it.
    pub fn put(&self, target: &str, bytes: &[u8]) {
        let path = self.folder().join("www").join(target.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Starts this node again, with what it has.
    pub fn start_again(&mut self) {
        if let Process::Node(node) = &mut self.process {
            node.stop();
            node.start_again();
            node.ready("listen").clone_into(&mut self.address);
        }
    }

    /// Takes what it has on disk out of the system's memory, so that it is read from the disk again.
    pub fn chill(&self) {
        chill(&self.folder());
    }

    /// Seconds of processor time that the server has used so far, with its workers.
    pub fn cpu(&self) -> f64 {
        self.pids().iter().map(|pid| cpu_of(*pid)).sum()
    }

    /// Waits until it does nothing any more, so that it does not disturb who comes next.
    pub fn rest(&self) {
        let (mut last, mut still) = (self.cpu(), 0);
        for _ in 0..200 {
            std::thread::sleep(Duration::from_millis(100));
            let now = self.cpu();
            still = if now - last < 0.02 { still + 1 } else { 0 };
            last = now;
            if still == 3 {
                break;
            }
        }
    }

    /// Its memory now, in MiB, with its workers; shared pages count each time.
    pub fn memory(&self) -> f64 {
        self.pids().iter().map(|pid| status_of(*pid, "VmRSS:")).sum::<f64>() / 1024.0
    }

    /// The most memory that it ever had, in MiB.
    pub fn peak(&self) -> f64 {
        self.pids().iter().map(|pid| status_of(*pid, "VmHWM:")).sum::<f64>() / 1024.0
    }

    fn folder(&self) -> PathBuf {
        match &self.process {
            Process::Node(node) => node.data_dir(),
            Process::Peer { folder, .. } => folder.path().to_owned(),
        }
    }

    /// The process and its children.
    fn pids(&self) -> Vec<u32> {
        let first = match &self.process {
            Process::Node(node) => node.pid(),
            Process::Peer { child, .. } => child.id(),
        };
        let children = fs::read_to_string(format!("/proc/{first}/task/{first}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        std::iter::once(first).chain(children).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Process::Peer { child, .. } = &mut self.process {
            // TERM, so that nginx ends its workers.
            let _ = rustix::process::kill_process(
                rustix::process::Pid::from_child(child),
                rustix::process::Signal::TERM,
            );
            let ended = (0..100).any(|_| {
                std::thread::sleep(Duration::from_millis(20));
                child.try_wait().is_ok_and(|status| status.is_some())
            });
            if !ended {
                let _ = child.kill();
            }
            let _ = child.wait();
        }
    }
}

/// A program of that name, where there is one.
pub fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/local/go/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Distribution 3, built from the pinned module beside this file if Go is there. The first time takes minutes.
fn distribution3() -> Option<PathBuf> {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-tools/registry");
    if !program.is_file() {
        println!("building distribution 3 with Go");
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/bench/distribution");
        let mut go = Command::new(in_path("go")?);
        fs::create_dir_all(program.parent()?).unwrap();
        go.current_dir(module).args(["build", "-o"]).arg(&program);
        let built = go.arg("github.com/distribution/distribution/v3/cmd/registry").status();
        if !built.is_ok_and(|status| status.success()) {
            return None;
        }
    }
    Some(program)
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn chill(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.filter_map(Result::ok) {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => chill(&entry.path()),
            Ok(metadata) if metadata.len() > 1 << 20 => {
                if let Ok(file) = File::open(entry.path()) {
                    // Only what is on the disk can be dropped.
                    let _ = file.sync_all();
                    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
                }
            }
            _ => {}
        }
    }
}

/// From `/proc/<pid>/stat`, user and system time, counted in hundredths of a second.
fn cpu_of(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn status_of(pid: u32, key: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or(0.0)
}
