//! The command line: what can be said, and how a command ends. Each verb is a file of its own; all but
//! `serve`, `demo` and `mesh new` talk to a running node through its local socket.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::Config;

mod archive;
mod bundle;
mod client_config;
mod demo;
mod docker;
mod doctor;
mod download;
mod exit;
mod explain;
mod file;
mod layout;
mod limits;
mod local;
mod mark;
mod mesh;
mod policy;
mod progress;
mod pull;
mod push;
mod serve;
mod show;
mod space;
mod table;
mod tag;
mod tls;
mod watch;

pub use exit::Failure;

/// Peer-to-peer replicating edge artifact cache: publish once, pull from next door.
#[derive(Debug, Parser)]
#[command(name = "waystation", version, after_help = exit::EXIT_CODES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node: an OCI registry endpoint that shares with the other nodes of its mesh.
    Serve(Box<serve::ServeArgs>),
    /// Say what the running node is and does.
    Status(show::StatusArgs),
    /// List the nodes of the mesh.
    Peers(show::PeersArgs),
    /// List the artifacts that the mesh knows.
    Artifacts(show::ArtifactsArgs),
    /// List the tags of a repository.
    Tags(show::TagsArgs),
    /// Show an artifact: its manifest, its blobs, and which nodes hold it.
    Inspect(show::InspectArgs),
    /// Publish an image (OCI layout, OCI archive, docker archive) or any file.
    Push(push::PushArgs),
    /// Delete what need not stay here, or say what that would be.
    Gc(space::GcArgs),
    /// Say what takes the room on the disk.
    Du(space::DuArgs),
    /// Keep an artifact here whatever happens.
    Pin(space::PinArgs),
    /// Let an artifact that was pinned go when room is needed.
    Unpin(space::PinArgs),
    /// Say that an artifact is being checked, put aside, good, bad or taken back: all nodes act on it.
    Mark(mark::MarkArgs),
    /// Get an artifact out of the mesh into a directory, an archive or a file.
    Pull(pull::PullArgs),
    /// Make meshes, let machines join, say who may publish.
    #[command(subcommand)]
    Mesh(mesh::MeshCommand),
    /// Say which sites and nodes keep what, how often and when.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Say or write what lets a container engine of this machine pull from a node.
    ClientConfig(client_config::ClientConfigArgs),
    /// Look whether this node and its machine can do their work, and say what to do. Ends with 0 where all is
    /// well, 1 where something needs attention, 2 where something does not work.
    Doctor(doctor::DoctorArgs),
    /// Say why a pull goes as it goes.
    #[command(subcommand)]
    Explain(explain::ExplainCommand),
    /// Show what happens, as it happens: published, held, fetched, failed, gone.
    Watch(watch::WatchArgs),
    /// Tell what became of a tag.
    #[command(subcommand)]
    Tag(tag::TagCommand),
    /// Trust a node that made its own certificate.
    #[command(subcommand)]
    Tls(tls::TlsCommand),
    /// Show it: three nodes on this machine, an image published at one, pulled from the others.
    Demo(demo::DemoArgs),
    /// Show or change what may go over links to other sites.
    #[command(subcommand, visible_alias = "limits")]
    Budget(limits::BudgetCommand),
}

/// Which node is meant: the one with this data directory.
#[derive(Clone, Debug, Default, Args)]
pub struct NodeArgs {
    /// Data directory of the node.
    #[arg(long, value_name = "DIR", env = "WAYSTATION_DATA_DIR")]
    pub data_dir: Option<std::path::PathBuf>,
    /// Configuration file of the node, for its data directory.
    #[arg(long, value_name = "FILE", env = "WAYSTATION_CONFIG")]
    pub config: Option<std::path::PathBuf>,
}

impl NodeArgs {
    /// The data directory: flag, environment, file, default.
    pub fn data_dir(&self) -> Result<std::path::PathBuf, Failure> {
        match (&self.data_dir, &self.config) {
            (Some(dir), _) => Ok(dir.clone()),
            (None, Some(file)) => Ok(Config::read(file)?.node.data_dir),
            (None, None) => Ok(crate::config::default_data_dir()),
        }
    }
}

/// Reads the process's arguments, does what they say, tells how it went.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // clap prints help on stdout and complaints on stderr; nothing is left to do if that fails.
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { exit::USAGE } else { exit::OK });
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return Failure::Failed(anyhow::anyhow!("the runtime could not start: {e}")).report(),
    };
    let result = runtime.block_on(dispatch(cli.command));
    // A thread that waits for standard input would keep the process.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::from(exit::OK),
        Err(failure) => failure.report(),
    }
}

async fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(args) => serve::run(*args).await,
        Command::Status(args) => show::status(args).await,
        Command::Peers(args) => show::peers(args).await,
        Command::Artifacts(args) => show::artifacts(args).await,
        Command::Tags(args) => show::tags(args).await,
        Command::Inspect(args) => show::inspect(args).await,
        Command::Push(args) => push::run(args).await,
        Command::Pull(args) => pull::run(args).await,
        Command::Gc(args) => space::gc(args).await,
        Command::Du(args) => space::du(args).await,
        Command::Mark(args) => mark::run(args).await,
        Command::Pin(args) => space::pin(args, true).await,
        Command::Unpin(args) => space::pin(args, false).await,
        Command::Mesh(command) => mesh::run(command).await,
        Command::Policy(command) => policy::run(command).await,
        Command::ClientConfig(args) => client_config::run(args).await,
        Command::Doctor(args) => doctor::run(args).await,
        Command::Explain(command) => explain::run(command).await,
        Command::Watch(args) => watch::run(args).await,
        Command::Tag(command) => tag::run(command).await,
        Command::Tls(command) => tls::run(&command),
        Command::Demo(args) => demo::run(args).await,
        Command::Budget(command) => limits::run(command).await,
    }
}

/// Prints to stdout. A reader that went away (`| head`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|e| Failure::Failed(anyhow::anyhow!("could not write the answer: {e}"))),
    }
}

/// Prints a line at once, also into a pipe. False where nobody reads any more.
fn print_line(text: &str) -> Result<bool, Failure> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(Failure::Failed(anyhow::anyhow!("could not write the answer: {e}"))),
        Ok(()) => Ok(true),
    }
}

/// Prints a value as JSON for scripts.
fn print_json<T: serde::Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::Failed(e.into()))?;
    print(&format!("{text}\n"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_names_the_exit_codes() {
        let help = Cli::command().render_long_help().to_string();
        for code in ["0", "1", "2", "3", "4"] {
            assert!(help.lines().any(|line| line.trim_start().starts_with(code)), "{code} in:\n{help}");
        }
    }

    #[test]
    fn every_serve_flag_is_a_variable_too() {
        let command = Cli::command();
        let serve = command.find_subcommand("serve").expect("there");
        for arg in serve.get_arguments().filter(|arg| !arg.is_hide_set() && arg.get_id() != "help") {
            let expected =
                format!("WAYSTATION_{}", arg.get_long().expect("long").to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env().and_then(|env| env.to_str()), Some(expected.as_str()));
            assert!(arg.get_help().is_some(), "{expected}");
        }
    }
}
