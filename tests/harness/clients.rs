//! Clients that people use, found where they are installed, run to their end within bounds. A missing one
//! is a failure where CI runs, and said loudly elsewhere. Daemons are files of their own.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

pub mod containerd;
pub mod daemon;
pub mod docker;
pub mod podman;

/// A program that is installed here.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// The program of that name: built for the tests, or on the PATH. Says its version, which these
    /// arguments print.
    pub fn find(name: &str, version: &[&str]) -> Option<Self> {
        let client = Client::silent(name)?;
        let said = client.run(version);
        let line = said.lines().map(str::trim).find(|line| line.contains(|c: char| c.is_ascii_digit()));
        say(&format!("client: {name}: {}", line.unwrap_or("of a version that it does not say")));
        Some(client)
    }

    /// The same of one that cannot be asked for its version.
    pub fn silent(name: &str) -> Option<Self> {
        let built = std::env::var_os("WAYSTATION_TEST_TOOLS")
            .map_or_else(|| target().join("tools/bin"), PathBuf::from);
        let path = std::env::var_os("PATH").unwrap_or_default();
        // Daemons are there, which is not on every user's PATH.
        let places = [built].into_iter().chain(std::env::split_paths(&path)).chain(["/usr/sbin".into()]);
        let Some(path) = places.map(|folder| folder.join(name)).find(|file| file.is_file()) else {
            missing(name);
            return None;
        };
        Some(Client { path })
    }

    /// A run of it that ends after two minutes at the latest.
    pub fn command(&self) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", "120"]).arg(&self.path);
        command
    }

    /// Runs it to its end; panics with all it said where it fails.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        run(self.command().args(arguments))
    }

    /// For what starts it in its own way.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The Python of the tests' own environment, where it has this module.
pub fn python_with(module: &str) -> Option<Client> {
    let venv = std::env::var_os("WAYSTATION_TEST_VENV").map_or_else(|| target().join("venv"), PathBuf::from);
    let python = Client { path: venv.join("bin/python") };
    let version = format!("import {module}; print({module}.__version__)");
    match python.command().args(["-c", &version]).output() {
        Ok(output) if output.status.success() => {
            let version = String::from_utf8_lossy(&output.stdout).into_owned();
            say(&format!("client: {module} (Python): {}", version.trim()));
            Some(python)
        }
        _ => {
            missing(&format!("{module} (Python)"));
            None
        }
    }
}

/// Runs a client to its end; panics with all it said where it fails.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", output.status);
    stdout
}

/// Runs a client to its end; all it said, as an error where it fails.
pub fn outcome(command: &mut Command) -> Result<String, String> {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let said = said.concat();
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// Says that something which a test needs is missing.
#[track_caller]
pub fn missing(what: &str) {
    assert!(std::env::var_os("CI").is_none(), "{what} is missing: `tests/run tools` installs it");
    say(&format!("!!! NOT TESTED: {what} is missing; `tests/run tools` installs it !!!"));
}

/// A static busybox, which runs by itself in an image.
pub fn busybox() -> Option<Vec<u8>> {
    let client = Client::find("busybox", &["--help"])?;
    let bytes = fs::read(client.path()).unwrap();
    if names_a_loader(&bytes) {
        missing("a static busybox");
        return None;
    }
    Some(bytes)
}

/// Whether a 64-bit little-endian ELF file has a program header of type PT_INTERP, which static ones have
/// not.
fn names_a_loader(elf: &[u8]) -> bool {
    const INTERPRETER: u32 = 3;
    let number = |at: usize| u16::from_le_bytes([elf[at], elf[at + 1]]) as usize;
    let table = u64::from_le_bytes(elf[32..40].try_into().expect("8 bytes")) as usize;
    let (size, count) = (number(54), number(56));
    (0..count).map(|n| table + n * size).any(|at| elf[at..at + 4] == INTERPRETER.to_le_bytes())
}

/// The first digest that a client printed.
#[track_caller]
pub fn digest_in(said: &str) -> String {
    let start = said.find("sha256:").unwrap_or_else(|| panic!("no digest in: {said}"));
    let digest: String = said[start..].chars().take("sha256:".len() + 64).collect();
    assert!(digest[7..].chars().all(|c| c.is_ascii_hexdigit()) && digest.len() == 71, "no digest: {said}");
    digest
}

/// Past the capture of what tests print, which nobody sees while all is well.
fn say(line: &str) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned()
}
