//! One node of the demo: a child process of this program that ends when this process does, however that
//! comes about.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, anyhow};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::{
    api::Status,
    cli::{Failure, local::Client},
};

/// A running `waystation serve`.
#[derive(Debug)]
pub struct DemoNode {
    /// Its site, by which it is called.
    pub site: &'static str,
    data_dir: PathBuf,
    ready_file: PathBuf,
    log: PathBuf,
    child: Child,
}

impl DemoNode {
    /// Starts a node with everything below `dir` and on free ports of the loopback interface.
    pub fn start(dir: &Path, site: &'static str, tier: &str, mesh: Option<&Path>) -> anyhow::Result<Self> {
        let data_dir = dir.join(site);
        let ready_file = dir.join(format!("{site}.ready"));
        let log = dir.join(format!("{site}.log"));
        let output = std::fs::File::create(&log).context("the log of a node could not be made")?;
        let mut command = Command::new(std::env::current_exe().context("this program's own path")?);
        // Settings for the user's own node are not for these.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WAYSTATION_") {
                command.env_remove(name);
            }
        }
        command.arg("serve").arg("--exit-with-stdin");
        command.arg("--data-dir").arg(&data_dir).arg("--ready-file").arg(&ready_file);
        command.args(["--site", site, "--tier", tier]);
        for flag in ["--listen", "--admin-listen", "--mesh-listen"] {
            command.args([flag, "127.0.0.1:0"]);
        }
        if let Some(mesh) = mesh {
            command.arg("--mesh").arg(mesh);
        }
        let child = command
            // The other end of this pipe is ours alone: it closes when this process ends.
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            // Ctrl-C is for this process, which then stops the nodes in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("the node {site} could not be started"))?;
        Ok(DemoNode { site, data_dir, ready_file, log, child })
    }

    /// Where its socket is.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Waits for its ready file.
    pub async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let wait = async {
            let mut poll = tokio::time::interval(POLL);
            while !self.ready_file.exists() {
                if let Some(status) = self.child.try_wait()? {
                    return Err(anyhow!("the node {} ended at its start: {status}", self.site));
                }
                poll.tick().await;
            }
            Ok(())
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .map_err(|_| anyhow!("the node {} was not ready after {PATIENCE:?}", self.site))?
    }

    /// What it says about itself.
    pub async fn status(&self) -> Result<Status, Failure> {
        Client::local(&self.data_dir)?.ask("status", &[]).await
    }

    /// The end of its log, for when something went wrong.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
        format!("--- {}\n{}\n", self.site, last.join("\n"))
    }

    /// Stops it as a supervisor would, and by force if that takes too long.
    pub async fn stop(mut self) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself meanwhile.
            let _ = kill_process(pid, Signal::TERM);
        }
        if tokio::time::timeout(STOP_PATIENCE, self.child.wait()).await.is_err() {
            // Dropping it would do the same, but not wait until it is gone.
            let _ = self.child.kill().await;
        }
    }
}

/// Longest wait for a node to be ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks for the ready file.
const POLL: Duration = Duration::from_millis(20);
/// How long a node may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// Lines of a log that are shown when something went wrong.
const LOG_LINES: usize = 20;
