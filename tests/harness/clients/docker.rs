//! The Docker daemon with its own root, socket and containerd, and the `docker` command.

use std::{fs, path::Path, process::Command};

use tempfile::TempDir;

use super::{Client, containerd::Containerd, daemon::Daemon, run};
use crate::harness::{node::temp_dir, wait::until_true};

/// A running Docker daemon with its client.
pub struct Docker {
    // Before its folders and what it uses, so that it is ended before they are.
    daemon: Daemon,
    docker: Client,
    sockets: TempDir,
    folder: TempDir,
    _containerd: Containerd,
}

impl Docker {
    /// Starts it with this `daemon.json`. Nothing where it is not installed.
    #[track_caller]
    pub fn start(daemon_json: &Path) -> Option<Self> {
        Self::start_with(daemon_json, None)
    }

    /// The same with these files laid over the machine's `/etc`, as only the daemon sees it: it looks nowhere
    /// but in `/etc/docker/certs.d` for the authorities of registries.
    #[track_caller]
    pub fn start_with(daemon_json: &Path, etc: Option<&Path>) -> Option<Self> {
        let dockerd = Client::find("dockerd", &["--version"])?;
        let docker = Client::find("docker", &["--version"])?;
        let containerd = Containerd::start(None)?;
        let (folder, sockets) = (temp_dir("docker"), tempfile::tempdir().unwrap());
        let place = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
        let host = format!("unix://{}", sockets.path().join(SOCKET).display());
        let (root, exec, pid) = (place("root"), place("exec"), place("pid"));
        let containerd_socket = containerd.socket();
        fs::create_dir(place("client")).unwrap();
        let arguments = [
            "--config-file",
            daemon_json.to_str()?,
            "--data-root",
            &root,
            "--exec-root",
            &exec,
            "--pidfile",
            &pid,
            "--host",
            &host,
            "--containerd",
            containerd_socket.to_str()?,
            "--iptables=false",
            "--ip6tables=false",
            "--bridge=none",
            "--storage-driver=vfs",
        ];
        let daemon = match etc {
            None => Daemon::start(&dockerd, &arguments, folder.path()),
            Some(etc) => Daemon::start_over_etc(&dockerd, &arguments, folder.path(), etc),
        };
        let mut started = Docker { daemon, docker, sockets, folder, _containerd: containerd };
        started.wait_until_ready();
        Some(started)
    }

    /// Runs `docker`.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        run(self.command().args(arguments))
    }

    /// A run of `docker`, with the logins of this daemon's own client.
    pub fn command(&self) -> Command {
        let mut command = self.docker.command();
        command
            .env("DOCKER_HOST", format!("unix://{}", self.sockets.path().join(SOCKET).display()))
            .env("DOCKER_CONFIG", self.folder.path().join("client"));
        command
    }

    #[track_caller]
    fn wait_until_ready(&mut self) {
        until_true("the Docker daemon answers", || {
            self.daemon.assert_runs();
            self.command().arg("info").output().is_ok_and(|output| output.status.success())
        });
    }
}

const SOCKET: &str = "docker.sock";
