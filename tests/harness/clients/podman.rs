//! podman and buildah with storage of their own, and a `registries.conf` of their own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::{Client, daemon::unmount_below, run};
use crate::harness::node::temp_dir;

/// A client of containers/storage with its store.
pub struct Podman {
    client: Client,
    registries: PathBuf,
    folder: TempDir,
}

impl Podman {
    /// `podman` or `buildah`, with the storage driver `vfs`, which works everywhere, or `overlay`.
    pub fn new(name: &str, driver: &str) -> Option<Self> {
        let client = Client::find(name, &["--version"])?;
        let folder = temp_dir(name);
        let place = |name: &str| folder.path().join(name);
        // It speaks of partial pulls, which newer ones do by themselves.
        let storage = format!(
            "[storage]\ndriver = \"{driver}\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n\n[storage.options]\n\
             pull_options = {{enable_partial_images = \"true\", use_hard_links = \"false\", ostree_repos = \"\"}}\n",
            place("root").display(),
            place("run").display(),
        );
        fs::write(place("storage.conf"), storage).unwrap();
        fs::write(place("registries.conf"), "").unwrap();
        Some(Podman { client, registries: place("registries.conf"), folder })
    }

    /// Lets it read this file instead of the machine's.
    pub fn with_registries(mut self, file: &Path) -> Self {
        self.registries = file.to_owned();
        self
    }

    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        run(self.command().args(arguments))
    }

    /// Runs an image's own command in a container without a network; what it says.
    #[track_caller]
    pub fn run_image(&self, image: &str) -> String {
        // Without limits of its own, podman asks for some that a restricted root may not set.
        const LIMITS: [&str; 4] = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
        let mut command = self.command();
        command.args(["--cgroup-manager", "cgroupfs", "--runtime", "runc", "run", "--rm", "--network=none"]);
        run(command.args(LIMITS).arg(image))
    }

    /// A run of it with its own store.
    pub fn command(&self) -> Command {
        let mut command = self.client.command();
        command
            .env("CONTAINERS_STORAGE_CONF", self.folder.path().join("storage.conf"))
            .env("CONTAINERS_REGISTRIES_CONF", &self.registries)
            .env("HOME", self.folder.path());
        command
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        unmount_below(self.folder.path());
    }
}
