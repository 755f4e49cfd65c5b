//! `waystation doctor`: whether the node and its machine can do their work. Looks at the machine itself, and asks the
//! node where one runs.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, NodeArgs, exit, local::Client, print, print_json};
use crate::{
    api::Status,
    doctor::{
        Finding, Level,
        machine::{self, Machine},
    },
};

/// `waystation doctor`
#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Look for the files of container engines below this directory instead of /.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

/// Looks, tells, and ends with 0 where all is well, 1 where something needs attention, 2 where something does not
/// work.
pub async fn run(args: DoctorArgs) -> Result<(), Failure> {
    // A configuration that cannot be read is a finding of its own.
    let data_dir = args.node.data_dir().unwrap_or_else(|_| crate::config::default_data_dir());
    let client = Client::local(&data_dir)?;
    let mut found = Vec::new();
    let status: Option<Status> = match client.ask("status", &[]).await {
        Ok(status) => Some(status),
        Err(failure) => {
            found.push(not_running(&failure));
            None
        }
    };
    let listens = status.as_ref().map(|status| [status.listen, status.admin_listen, status.mesh_listen]);
    if let Some(status) = &status {
        found.push(Finding::ok("node", format!("node {} runs, version {}", status.node_id, status.version)));
    }
    found.extend(
        machine::examine(&Machine { config: args.node.config, data_dir, listens, root: args.root }).await,
    );
    if status.is_some() {
        match client.ask::<Vec<Finding>>("doctor", &[]).await {
            Ok(findings) => found.extend(findings),
            Err(failure) => found.push(Finding::fail("node", failure.to_string(), "see the node's log")),
        }
    }
    if args.json {
        print_json(&found)?
    } else {
        print(&describe(&found))?
    }
    match found.iter().map(|finding| finding.level).max() {
        Some(Level::Warn) => Err(Failure::Told(exit::FAILED)),
        Some(Level::Fail) => Err(Failure::Told(exit::USAGE)),
        _ => Ok(()),
    }
}

fn not_running(failure: &Failure) -> Finding {
    let todo = "start it: waystation serve; or name its data directory with --data-dir";
    match failure {
        Failure::NotRunning(dir) => {
            Finding::fail("node", format!("no node is running with data directory {}", dir.display()), todo)
                .because("what only a running node knows was not looked at")
        }
        other => {
            Finding::fail("node", format!("the node does not answer: {other}"), "see its log; restart it")
        }
    }
}

fn describe(found: &[Finding]) -> String {
    let mut text = String::new();
    for finding in found {
        let level = match finding.level {
            Level::Ok => "ok  ",
            Level::Warn => "WARN",
            Level::Fail => "FAIL",
        };
        text += &format!("{level}  {:<14} {}\n", finding.check, finding.what);
        text.extend(finding.why.iter().map(|why| format!("{:21}({why})\n", "")));
        text.extend(finding.todo.iter().map(|todo| format!("{:21}to do: {todo}\n", "")));
    }
    let count = |level| found.iter().filter(|finding| finding.level == level).count();
    let (fail, warn) = (count(Level::Fail), count(Level::Warn));
    text + &match (fail, warn) {
        (0, 0) => "All is well.\n".to_owned(),
        _ => format!("{fail} things do not work, {warn} need attention.\n"),
    }
}
