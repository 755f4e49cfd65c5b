//! Daemons of container engines, started with folders of their own, ended and cleared away with the test.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::Client;

/// A running daemon. Dropping it ends the process and unmounts what it mounted below its folder.
pub struct Daemon {
    child: Child,
    folder: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// Starts it; it ends with this thread, also where that is killed.
    #[track_caller]
    pub fn start(client: &Client, arguments: &[&str], folder: &Path) -> Self {
        Self::start_by(&[], client, arguments, folder)
    }

    /// The same with these files laid over `/etc`, in a view of the file system of its own.
    #[track_caller]
    pub fn start_over_etc(client: &Client, arguments: &[&str], folder: &Path, etc: &Path) -> Self {
        let lower = format!("lowerdir={}:/etc", etc.display());
        let script = format!("mount -t overlay -o '{lower}' overlay /etc && exec \"$0\" \"$@\"");
        let view = ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script];
        Self::start_by(&view, client, arguments, folder)
    }

    #[track_caller]
    fn start_by(starter: &[&str], client: &Client, arguments: &[&str], folder: &Path) -> Self {
        let name = client.path().file_name().expect("a program").to_string_lossy().into_owned();
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--"])
            .args(starter)
            .arg(client.path())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Daemon { child, folder: folder.to_owned(), log }
    }

    /// Panics with its log where it has ended.
    #[track_caller]
    pub fn assert_runs(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("the daemon ended ({status}):\n{}", self.log());
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn end(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        }
        let start = Instant::now();
        while let Ok(None) = self.child.try_wait() {
            if start.elapsed() > PATIENCE {
                let _ = self.child.kill();
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
        if thread::panicking() {
            eprintln!("--- {}:\n{}---", self.log.display(), self.log());
        }
        unmount_below(&self.folder);
    }
}

/// Unmounts everything below a folder, the innermost first.
pub fn unmount_below(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let mut below: Vec<_> = points.filter(|point| Path::new(point).starts_with(folder)).collect();
    below.sort_unstable();
    for point in below.iter().rev() {
        let _ = Command::new("umount").args(["--lazy", point]).output();
    }
}

/// What a daemon may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(20);
