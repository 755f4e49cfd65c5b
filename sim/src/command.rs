//! The command line: what can be asked of the simulator. Each command is a file; this one owns their list, the exit
//! codes and what they share. 0: done and as expected. 2: wrong input. 3: a promise or an expectation was broken.

mod bound;
mod compare;
mod cost;
mod images;
mod plan;
mod replay;
mod run;
mod swarm;
mod topology;
mod validate;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs a mesh of unchanged replicas in a simulated world, and says what physics allows.
#[derive(Parser)]
#[command(name = "waystation-sim", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a scenario: measurements, a table, and whether it went as expected.
    Run(run::RunArgs),
    /// What nothing can beat in a scenario: the least time over every cut.
    Bound(bound::BoundArgs),
    /// Compare the results of two runs, seed by seed.
    Compare(compare::CompareArgs),
    /// What publishing an artifact would cost: bytes and time for each line, and who misses a deadline.
    Plan(plan::PlanArgs),
    /// Print the topology file of a fleet.
    Topology(topology::TopologyArgs),
    /// Show how well synthetic images and popularity fit the published figures.
    Images(images::ImagesArgs),
    /// A random run with faults again, in words.
    Replay(replay::Replay),
    /// Random runs with faults until a promise is broken, and the smallest run that breaks it.
    Swarm(swarm::Swarm),
    /// What the control plane costs: an idle hour, and one with publications.
    Cost(cost::CostArgs),
    /// Set the simulator beside what was measured with real nodes.
    Validate(validate::ValidateArgs),
}

/// Does what the arguments of the process say.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run::run(args),
        Command::Bound(args) => bound::bound(args),
        Command::Compare(args) => compare::compare(args),
        Command::Plan(args) => plan::plan(args),
        Command::Topology(args) => topology::topology(args),
        Command::Images(args) => images::images(args),
        Command::Replay(args) => replay::run(&args),
        Command::Swarm(args) => swarm::run(&args),
        Command::Cost(args) => cost::cost(args),
        Command::Validate(args) => validate::validate(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(WRONG_INPUT)
    })
}

/// As clap's own for wrong arguments.
const WRONG_INPUT: u8 = 2;
/// A promise or an expectation was broken.
pub const BROKEN: u8 = 3;
