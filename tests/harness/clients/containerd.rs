//! containerd with its own root and socket, spoken to by `ctr`, and by CRI as a kubelet does.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::{Client, daemon::Daemon, run};
use crate::harness::{node::temp_dir, wait::until_true};

/// A running containerd with its client. It shares no content between namespaces, so that a pull into a new
/// one fetches everything.
pub struct Containerd {
    // Before its folders, so that it is ended before they are removed.
    daemon: Daemon,
    ctr: Client,
    /// Names of sockets are short; where the rest is need not be.
    sockets: TempDir,
    _folder: TempDir,
}

impl Containerd {
    /// Starts it; `certs` is where it looks for each registry's `hosts.toml` when asked by CRI. Nothing
    /// where it is not installed.
    #[track_caller]
    pub fn start(certs: Option<&Path>) -> Option<Self> {
        let containerd = Client::find("containerd", &["--version"])?;
        let ctr = Client::find("ctr", &["--version"])?;
        let (folder, sockets) = (temp_dir("containerd"), tempfile::tempdir().unwrap());
        let config = folder.path().join("config.toml");
        fs::write(&config, configuration(folder.path(), sockets.path(), certs)).unwrap();
        let daemon = Daemon::start(&containerd, &["--config", config.to_str()?], folder.path());
        let mut started = Containerd { daemon, ctr, sockets, _folder: folder };
        started.wait_until_ready();
        Some(started)
    }

    /// Runs `ctr` in this namespace of containerd.
    #[track_caller]
    pub fn ctr(&self, namespace: &str, arguments: &[&str]) -> String {
        run(self.command().args(["--namespace", namespace]).args(arguments))
    }

    /// Pulls by what this tree of `hosts.toml` says; the digest that came.
    #[track_caller]
    pub fn pull(&self, namespace: &str, certs: &Path, image: &str) -> String {
        let certs = certs.to_str().expect("UTF-8");
        self.ctr(namespace, &["images", "pull", "--snapshotter", "native", "--hosts-dir", certs, image]);
        let listed = self.ctr(namespace, &["images", "list", &format!("name=={image}")]);
        super::digest_in(&listed)
    }

    /// Runs the image's own command in a container; what it says.
    #[track_caller]
    pub fn run_image(&self, namespace: &str, image: &str) -> String {
        self.ctr(namespace, &["run", "--rm", "--snapshotter", "native", image, "once"])
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.sockets.path().join(SOCKET)
    }

    /// A run of `ctr`.
    pub fn command(&self) -> Command {
        let mut command = self.ctr.command();
        command.arg("--address").arg(self.socket());
        command
    }

    #[track_caller]
    fn wait_until_ready(&mut self) {
        until_true("containerd answers", || {
            self.daemon.assert_runs();
            self.command().arg("version").output().is_ok_and(|output| output.status.success())
        });
    }
}

fn configuration(root: &Path, sockets: &Path, certs: Option<&Path>) -> String {
    let (root, sockets) = (root.display(), sockets.display());
    let base = format!(
        r#"version = 2
root = "{root}/root"
state = "{root}/state"
# Of no use here, and not everywhere possible.
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.tracing.processor.v1.otlp"{cri}]
[grpc]
  address = "{sockets}/{SOCKET}"
[plugins."io.containerd.metadata.v1.bolt"]
  content_sharing_policy = "isolated"
"#,
        cri = if certs.is_some() { "" } else { r#", "io.containerd.grpc.v1.cri""# },
    );
    let Some(certs) = certs else { return base };
    format!(
        r#"{base}[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{}"
"#,
        certs.display()
    )
}

const SOCKET: &str = "containerd.sock";
