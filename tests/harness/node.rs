//! One node: the real binary as a process of its own with a data directory of its own, started, asked,
//! paused, killed. Its log is kept and shown when a test fails.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    http::Http,
    registry::Registry,
    wait::{PATIENCE, until, until_within},
};

/// How a node is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub site: Option<String>,
    pub mesh_file: Option<PathBuf>,
    pub join: Vec<String>,
    /// More arguments of `serve`.
    pub extra: Vec<String>,
    /// Variables of the process.
    pub variables: Vec<(String, String)>,
    /// A program that starts the node and then is it (`strace -D`), with its arguments.
    pub wrapper: Vec<String>,
    /// Whether to leave the admin address to the node.
    pub usual_admin_port: bool,
}

/// A running or stopped node. Dropping it kills the process.
pub struct Node {
    options: Options,
    folder: TempDir,
    child: Option<Child>,
    ready: Value,
}

/// How a command of the binary ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Options {
    pub fn site(name: &str) -> Self {
        Options { site: Some(name.to_owned()), ..Options::default() }
    }

    #[must_use]
    pub fn mesh(mut self, file: &Path) -> Self {
        self.mesh_file = Some(file.to_owned());
        self
    }
}

impl Node {
    /// Starts a node and waits until it serves.
    #[track_caller]
    pub fn start(options: Options) -> Self {
        let mut node = Self::stopped(options);
        node.start_again();
        node
    }

    /// A node that was not started yet.
    pub fn stopped(options: Options) -> Self {
        Node { options, folder: temp_dir("node"), child: None, ready: Value::Null }
    }

    /// Changes how a node is started, for when it is started again.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut Options)) {
        change(&mut self.options);
    }

    /// Starts a node that was stopped: the same data, the same addresses.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.spawn();
        self.wait_until_ready();
    }

    /// Starts the process, without waiting for it to serve.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "the node runs already");
        let _ = fs::remove_file(self.ready_file());
        let log = File::options().create(true).append(true).open(self.log_file()).unwrap();
        let mut words = self.options.wrapper.clone();
        words.push(BINARY.to_owned());
        let child = clean(Command::new(&words[0]), self.folder.path())
            .envs(self.options.variables.iter().cloned())
            .args(&words[1..])
            .arg("serve")
            .args(self.serve_arguments())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    #[track_caller]
    pub fn wait_until_ready(&mut self) {
        let (ready_file, log) = (self.ready_file(), self.log_file());
        let child = self.child.as_mut().expect("was spawned");
        self.ready = until("a node serves", || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the node ended at once ({status}):\n{}", tail(&log));
            }
            serde_json::from_str(&fs::read_to_string(&ready_file).ok()?).ok()
        });
    }

    /// A field of the ready file.
    #[track_caller]
    pub fn ready(&self, key: &str) -> &str {
        self.ready[key].as_str().unwrap_or_else(|| panic!("the ready file has no {key}: {}", self.ready))
    }

    pub fn id(&self) -> &str {
        self.ready("node_id")
    }

    /// Its OCI endpoint.
    pub fn registry(&self) -> Registry {
        Registry::new(self.ready("listen"))
    }

    /// Its admin endpoint.
    pub fn admin(&self) -> Http {
        Http::new(self.ready("admin_listen"))
    }

    #[allow(dead_code, reason = "for measurements only")]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("runs").id()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    /// Runs a command against this node's data directory.
    pub fn cli(&self, arguments: &[&str]) -> Ended {
        waystation(arguments, Some(&self.data_dir()))
    }

    /// The JSON that a command prints; panics where it fails.
    #[track_caller]
    pub fn cli_json(&self, arguments: &[&str]) -> Value {
        let ended = self.cli(arguments).expect(0);
        serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {}", ended.stdout))
    }

    #[track_caller]
    pub fn status(&self) -> Value {
        self.cli_json(&["status", "--json"])
    }

    /// Nodes with a live session.
    #[track_caller]
    pub fn sessions(&self) -> Vec<String> {
        let status = self.status();
        let sessions = status["sessions"].as_array().expect("a list").iter();
        sessions.map(|node| node.as_str().expect("an id").to_owned()).collect()
    }

    /// Blob bytes from other nodes since the start, duplicates included.
    #[track_caller]
    pub fn bytes_received(&self) -> u64 {
        self.status()["data_plane"]["bytes_received"].as_u64().expect("a number")
    }

    /// Blob bytes to other nodes since the start.
    #[track_caller]
    pub fn bytes_sent(&self) -> u64 {
        self.status()["data_plane"]["bytes_sent"].as_u64().expect("a number")
    }

    /// Sum of all series of the metric.
    #[track_caller]
    pub fn metric(&self, name: &str) -> f64 {
        let text = String::from_utf8(self.admin().get("/metrics").send().expect(200).body).unwrap();
        let series = text
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
        let values: Vec<f64> = series.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
        values.iter().sum()
    }

    /// SIGKILL: what a crash is to the process.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let mut child = self.child.take().expect("runs");
        child.wait().unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().expect("runs")), signal).unwrap();
    }

    /// Waits for the process to end by itself.
    #[track_caller]
    pub fn wait_for_end(&mut self, patience: Duration) -> ExitStatus {
        let child = self.child.as_mut().expect("runs");
        let status = until_within(patience, "the node ends", || child.try_wait().unwrap());
        self.child = None;
        status
    }

    /// SIGTERM, and waits for the end.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_for_end(PATIENCE)
    }

    /// Arguments of `serve` for this node; the addresses of its last run, so that others find it again.
    fn serve_arguments(&self) -> Vec<String> {
        let mut arguments = vec![];
        let mut flag = |name: &str, value: &str| arguments.extend([name.to_owned(), value.to_owned()]);
        flag("--data-dir", path_text(&self.data_dir()));
        flag("--ready-file", path_text(&self.ready_file()));
        for (name, key) in
            [("--listen", "listen"), ("--mesh-listen", "mesh_listen"), ("--admin-listen", "admin_listen")]
        {
            let usual = self.options.usual_admin_port && key == "admin_listen";
            if !usual && !self.options.extra.iter().any(|argument| argument == name) {
                flag(name, self.ready[key].as_str().unwrap_or("127.0.0.1:0"));
            }
        }
        if let Some(site) = &self.options.site {
            flag("--site", site);
        }
        if let Some(file) = &self.options.mesh_file {
            flag("--mesh", path_text(file));
        }
        for address in &self.options.join {
            flag("--join", address);
        }
        arguments.extend(self.options.extra.iter().cloned());
        arguments
    }

    fn ready_file(&self) -> PathBuf {
        self.folder.path().join("ready.json")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of node {}:\n{}---", self.ready["node_id"], tail(&self.log_file()));
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Ended {
    /// The outcome itself, once its exit code is what it should be.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ended {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// Runs the binary, with `--data-dir` where one is given.
pub fn waystation(arguments: &[&str], data_dir: Option<&Path>) -> Ended {
    let home = temp_dir("home");
    let mut command = clean(Command::new(BINARY), home.path());
    command.args(arguments).stdin(Stdio::null());
    if let Some(dir) = data_dir {
        command.arg("--data-dir").arg(dir);
    }
    command.output().unwrap().into()
}

/// A directory below Cargo's, so that it is on a real disk, removed when dropped.
pub fn temp_dir(name: &str) -> TempDir {
    tempfile::Builder::new().prefix(name).tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Whether something accepts connections there.
pub fn listens(address: &str) -> bool {
    let address: SocketAddr = address.parse().unwrap();
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

/// Bytes on disk below a folder.
pub fn disk_usage(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let sizes = entries.filter_map(Result::ok).map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_usage(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

/// No configuration but what the test gives: no variables, no home.
fn clean(mut command: Command, home: &Path) -> Command {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("WAYSTATION_") || text.to_ascii_lowercase().ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    command.env("HOME", home).env_remove("RUST_BACKTRACE").env_remove("RUST_LOG");
    command
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn tail(log: &Path) -> String {
    const LINES: usize = 200;
    let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].iter().fold(String::new(), |all, line| all + line + "\n")
}

pub const BINARY: &str = env!("CARGO_BIN_EXE_waystation");
