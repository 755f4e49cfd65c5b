//! `waystation tag …`: what became of one tag.

use clap::{Args, Subcommand};

use super::{
    Failure, NodeArgs,
    local::Client,
    print, print_json,
    table::{or_dash, short, table},
};
use crate::{api::TagHistory, reference::Reference};

/// `waystation tag`
#[derive(Debug, Subcommand)]
pub enum TagCommand {
    /// Show the last writes of a tag: who, when, where to, and which gave way to a write at the same time.
    History(HistoryArgs),
}

/// `waystation tag history`
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// The tag: `repository[:tag]`.
    #[arg(value_name = "REF")]
    reference: Reference,
    #[command(flatten)]
    node: NodeArgs,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Shows it.
pub async fn run(command: TagCommand) -> Result<(), Failure> {
    let TagCommand::History(args) = command;
    let reference = args.reference.to_string();
    let client = Client::local(&args.node.data_dir()?)?;
    let found: TagHistory = client.ask("tag/history", &[("reference", &reference)]).await?;
    if args.json { print_json(&found) } else { print(&describe(&found)) }
}

fn describe(found: &TagHistory) -> String {
    let rows: Vec<_> = found
        .writes
        .iter()
        .map(|write| {
            vec![
                write.version.to_string(),
                write.digest.clone().unwrap_or_else(|| "deleted".into()),
                write.outcome.clone(),
                short(&write.author),
                or_dash(write.site.as_deref()),
                moment(write.authored),
            ]
        })
        .collect();
    let mut text = table(&["WRITE", "DIGEST", "OUTCOME", "BY", "SITE", "BY ITS CLOCK"], &[0], &rows);
    if found.writes.len() as u64 == found.kept {
        text += &format!("Older writes are not kept: {} is the most.\n", found.kept);
    }
    if found.writes.iter().any(|write| write.outcome == "lost") {
        text += "A lost write was made without knowing of the one above it; every node decides alike between them.\n";
    }
    text
}

/// A time as people write it, or that the clock was never set.
pub(super) fn moment(seconds: u64) -> String {
    if !waystation_proto::Wall(seconds).is_plausible() {
        return "clock not set".to_owned();
    }
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::TagWrite;

    #[test]
    fn a_history_says_what_lost() {
        let write = |version, digest: Option<&str>, outcome: &str, authored| TagWrite {
            digest: digest.map(str::to_owned),
            version,
            author: "ab".repeat(32),
            site: None,
            authored,
            outcome: outcome.into(),
        };
        let writes = vec![
            write(2, Some("sha256:00"), "current", 1_800_000_000),
            write(2, Some("sha256:11"), "lost", 12),
            write(1, None, "replaced", 1_800_000_000),
        ];
        let text = describe(&TagHistory { repository: "a".into(), tag: "t".into(), writes, kept: 3 });
        for part in ["lost", "clock not set", "2027-01-15T08:00:00Z", "deleted", "not kept", "decides alike"]
        {
            assert!(text.contains(part), "{part} in:\n{text}");
        }
    }
}
