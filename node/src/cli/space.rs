//! The verbs about room on the disk: `gc`, `du`, `pin`, `unpin`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;

use super::{
    Failure, NodeArgs,
    local::Client,
    print, print_json,
    table::{short, size, span, table},
};
use crate::{
    gc::report::{ArtifactUsage, Deleted, GcReport, GcRequest, PinRequest, Pinned, SpaceReport, Usage},
    reference::Reference,
    units::Size,
};

/// `waystation gc`
#[derive(Debug, Args)]
pub struct GcArgs {
    /// Only say what would be deleted.
    #[arg(long)]
    dry_run: bool,
    /// Free this much, such as 5GiB, also where the quota has room: what was used least recently goes first.
    #[arg(long, value_name = "SIZE")]
    free: Option<Size>,
    #[command(flatten)]
    node: NodeArgs,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// `waystation du`
#[derive(Debug, Args)]
pub struct DuArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// `waystation pin`, `waystation unpin`
#[derive(Debug, Args)]
pub struct PinArgs {
    /// The artifact: `repository[:tag][@digest]`.
    #[arg(value_name = "REF")]
    reference: Reference,
    #[command(flatten)]
    node: NodeArgs,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Deletes what need not stay.
pub async fn gc(args: GcArgs) -> Result<(), Failure> {
    let free = args.free.unwrap_or_default().0;
    let request = GcRequest { dry_run: args.dry_run, free };
    let report: GcReport = Client::local(&args.node.data_dir()?)?.tell("gc", &request).await?;
    if args.json {
        return print_json(&report);
    }
    let rows: Vec<Vec<String>> = report.deleted.iter().map(row).collect();
    if !rows.is_empty() {
        print(&table(&["WHAT", "REPOSITORIES", "KIND", "FREES", ""], &[3], &rows))?;
    }
    let verb = if report.dry_run { "would be freed" } else { "freed" };
    print(&format!("{} {verb}; {}\n", size(report.freed), line(&report.space)))?;
    if report.short > 0 {
        let stays: Vec<String> =
            report.stays.iter().map(|(why, bytes)| format!("{} ({why})", size(*bytes))).collect();
        print(&format!("{} short; what stays: {}\n", size(report.short), stays.join(", ")))?;
    }
    Ok(())
}

/// What takes the room.
pub async fn du(args: DuArgs) -> Result<(), Failure> {
    let usage: Usage = Client::local(&args.node.data_dir()?)?.ask("du", &[]).await?;
    if args.json {
        return print_json(&usage);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let row = |artifact: &ArtifactUsage| {
        let ago = |at: u64| now.saturating_sub(Duration::from_secs(at));
        let used = artifact.last_used.map_or_else(|| "-".to_owned(), |at| format!("{} ago", span(ago(at))));
        let mut notes = vec![];
        notes.extend(artifact.pinned.then_some("pinned"));
        notes.extend(artifact.leased.then_some("relied on"));
        vec![
            short(&artifact.digest),
            artifact.repositories.join(", "),
            size(artifact.bytes),
            size(artifact.unshared),
            used,
            artifact.holders.to_string(),
            notes.join(", "),
        ]
    };
    let rows: Vec<Vec<String>> = usage.artifacts.iter().map(row).collect();
    if !rows.is_empty() {
        let head = ["ARTIFACT", "REPOSITORIES", "SIZE", "UNSHARED", "LAST USED", "OTHER HOLDERS", ""];
        print(&table(&head, &[2, 3, 5], &rows))?;
    }
    print(&format!(
        "{}; {} shared, {} that nothing refers to\n",
        line(&usage.space),
        size(usage.shared),
        size(usage.loose)
    ))
}

/// Pins or unpins.
pub async fn pin(args: PinArgs, pinned: bool) -> Result<(), Failure> {
    let request = PinRequest { reference: args.reference.to_string(), pinned };
    let done: Pinned = Client::local(&args.node.data_dir()?)?.tell("pin", &request).await?;
    if args.json {
        return print_json(&done);
    }
    let state = if done.pinned { "is kept here whatever happens" } else { "goes when its room is needed" };
    print(&format!("{} {state}\n", done.digest))
}

fn row(deleted: &Deleted) -> Vec<String> {
    let note = if deleted.needs_promise { "once another node promises to keep it" } else { "" };
    vec![
        short(&deleted.name),
        deleted.repositories.join(", "),
        deleted.kind.clone(),
        size(deleted.bytes),
        note.to_owned(),
    ]
}

fn line(space: &SpaceReport) -> String {
    format!("{} of {} used, {} free on the disk", size(space.used), size(space.quota), size(space.free))
}
