//! `waystation explain …`: why a pull goes as it goes.

use clap::{Args, Subcommand};

use super::{
    Failure, NodeArgs,
    local::Client,
    print, print_json,
    table::{short, size},
    tag::moment,
};
use crate::{
    explain::{BlobPlan, Candidate, Explanation, Place, Source, Story},
    reference::Reference,
};

/// `waystation explain`
#[derive(Debug, Subcommand)]
pub enum ExplainCommand {
    /// Say what a pull would fetch from where, and why, and what stands in its way; of what is here, where each
    /// byte came from and where the time went. Ends with 1 where something is in the way, 4 for an unknown name.
    Pull(PullArgs),
}

/// `waystation explain pull`
#[derive(Debug, Args)]
pub struct PullArgs {
    /// The artifact: `repository[:tag][@digest]`; of an upstream, its name comes first (`docker.io/library/x`).
    #[arg(value_name = "REF")]
    reference: Reference,
    /// The platform, as `os/architecture[/variant]` [default: Linux on this machine].
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    #[command(flatten)]
    node: NodeArgs,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Explains it.
pub async fn run(command: ExplainCommand) -> Result<(), Failure> {
    let ExplainCommand::Pull(args) = command;
    let reference = args.reference.to_string();
    let mut query = vec![("reference", reference.as_str())];
    query.extend(args.platform.as_deref().map(|platform| ("platform", platform)));
    let found: Explanation = Client::local(&args.node.data_dir()?)?.ask("explain/pull", &query).await?;
    if args.json {
        print_json(&found)?
    } else {
        print(&describe(&found))?
    }
    match found.outcome.as_str() {
        "blocked" => Err(Failure::Told(super::exit::FAILED)),
        "unknown" => Err(Failure::Told(super::exit::NOT_FOUND)),
        _ => Ok(()),
    }
}

fn describe(found: &Explanation) -> String {
    let mut text = format!("{}: {}\n", found.reference, outcome(found));
    if let Some(digest) = &found.digest {
        text += &format!("  is {digest} in {}\n", found.repository);
    }
    for line in found.resolved.iter().chain(&found.notes) {
        text += &format!("  {line}\n");
    }
    for line in &found.blocks {
        text += &format!("  IN THE WAY: {line}\n");
    }
    for (n, blob) in found.blobs.iter().enumerate() {
        text += &describe_blob(blob);
        // Mostly one answer holds for all: it is said once.
        let before = n.checked_sub(1).map(|n| &found.blobs[n]);
        let same = before.is_some_and(|b| b.candidates == blob.candidates && b.blocks == blob.blocks);
        if same && !blob.candidates.is_empty() {
            text += "    as above\n";
        } else {
            for (n, candidate) in blob.candidates.iter().enumerate() {
                text += &format!("    {}. {}\n", n + 1, describe_candidate(candidate));
            }
            for line in &blob.blocks {
                text += &format!("    IN THE WAY: {line}\n");
            }
        }
    }
    if !found.sources.is_empty() {
        let from: Vec<_> = found.sources.iter().map(|s| format!("{} {}", size(s.bytes), origin(s))).collect();
        text += &format!("here: {} of {}: {}\n", size(found.held), size(found.size), from.join(", "));
    }
    if let Some(timing) = &found.timing {
        text += &format!(
            "time: {} ms until all was here; {} was last: {} ms waiting, {} ms moving, {} ms to be durable\n",
            timing.took_ms,
            short(&timing.last),
            timing.waited_ms,
            timing.moved_ms,
            timing.settled_ms
        );
    }
    text
}

fn outcome(found: &Explanation) -> &'static str {
    match found.outcome.as_str() {
        "held" => "all of it is here",
        "available" => "what is missing can be had",
        "unknown" => "where this leads is not known here",
        _ => "a pull would not get all of it now",
    }
}

fn describe_blob(blob: &BlobPlan) -> String {
    let name = blob.digest.as_deref().or(blob.hash.as_deref()).unwrap_or("-");
    let state = match (blob.state.as_str(), &blob.story) {
        ("held", Some(story)) => format!("here, {}", told(story, blob.size)),
        ("held", None) => "here, since before this run or for longer than is remembered".into(),
        ("coming", Some(story)) => format!("coming, {}", told(story, blob.size)),
        ("coming", None) => "coming".into(),
        _ => "to be fetched".into(),
    };
    format!("{:<14} {:<22} {:>11}  {state}\n", blob.role, short(name), size(blob.size))
}

fn told(story: &Story, bytes: u64) -> String {
    let since = moment(story.began);
    let from: Vec<String> = story.sources.iter().map(origin).collect();
    if let [only] = &story.sources[..]
        && only.place.kind == "client"
    {
        return format!("pushed by a client at {since}");
    }
    let times = format!(
        "{} ms waiting, {} moving, {} to be durable",
        story.waited_ms, story.moved_ms, story.settled_ms
    );
    let failures: u64 = story.sources.iter().map(|source| source.failures).sum();
    let failed = if failures > 0 { format!(", {failures} transfers failed") } else { String::new() };
    match story.here {
        true => format!("{} (wanted at {since}; {times}{failed})", from.join(" and ")),
        false => {
            let have: u64 = story.sources.iter().map(|source| source.bytes).sum();
            format!("{} of {} so far (wanted at {since}{failed})", size(have), size(bytes))
        }
    }
}

fn origin(source: &Source) -> String {
    match source.place.kind.as_str() {
        "client" => "from clients".into(),
        "earlier" => "from before this run".into(),
        _ => format!("from {}", place(&source.place)),
    }
}

fn place(place: &Place) -> String {
    match (place.kind.as_str(), &place.site, place.far) {
        ("member", Some(site), true) => format!("node {} at {site}", short(&place.name)),
        ("member", _, false) => format!("node {} of this site", short(&place.name)),
        ("member", ..) => format!("node {}", short(&place.name)),
        _ => place.name.clone(),
    }
}

fn describe_candidate(candidate: &Candidate) -> String {
    let asked = if candidate.asked { "asked" } else { "not asked" };
    let trouble = candidate.trouble.as_ref().map(|trouble| {
        format!(" (failed {} times, last at {}: {})", trouble.times, moment(trouble.at), trouble.why)
    });
    format!("{}: {asked}: {}{}", place(&candidate.place), candidate.why, trouble.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_and_why() {
        let place = Place { kind: "member".into(), name: "ab".repeat(32), site: Some("s".into()), far: true };
        let candidate = Candidate { place: place.clone(), asked: true, why: "nearest".into(), trouble: None };
        let layer = BlobPlan {
            role: "layer".into(),
            state: "missing".into(),
            size: 2048,
            candidates: vec![candidate],
            ..BlobPlan::default()
        };
        let source = Source { place, bytes: 2048, failures: 0 };
        let found = Explanation {
            reference: "a:b".into(),
            outcome: "available".into(),
            blobs: vec![layer.clone(), layer],
            sources: vec![source],
            size: 4096,
            ..Explanation::default()
        };
        let text = describe(&found);
        for part in
            ["can be had", "1. node ababababab at s: asked: nearest", "as above", "2.00 KiB from node"]
        {
            assert!(text.contains(part), "{part} in:\n{text}");
        }
    }
}
