//! The verbs that only look: `status`, `peers`, `artifacts`, `tags`, `inspect`. They ask the local API and
//! show the answer as a table, or as it came with `--json`.

use clap::Args;

use super::{
    Failure, NodeArgs, limits,
    local::Client,
    print, print_json,
    table::{facts, or_dash, short, size, span, table},
};
use crate::{
    api::{Artifacts, Inspection, Peer, Status, Tags},
    reference::Reference,
    upstream::UpstreamStatus,
};

/// What all of these take.
#[derive(Debug, Args)]
struct ShowArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// `waystation status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    show: ShowArgs,
}

/// `waystation peers`
#[derive(Debug, Args)]
pub struct PeersArgs {
    #[command(flatten)]
    show: ShowArgs,
}

/// `waystation artifacts`
#[derive(Debug, Args)]
pub struct ArtifactsArgs {
    /// Only those of this repository.
    repository: Option<String>,
    /// Show what policies want at each site, what is there, what is missing, and why.
    #[arg(long)]
    coverage: bool,
    #[command(flatten)]
    show: ShowArgs,
}

/// `waystation tags`
#[derive(Debug, Args)]
pub struct TagsArgs {
    /// The repository.
    #[arg(value_name = "REPO")]
    repository: String,
    #[command(flatten)]
    show: ShowArgs,
}

/// `waystation inspect`
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The artifact: `repository[:tag][@digest]`.
    #[arg(value_name = "REF")]
    reference: Reference,
    #[command(flatten)]
    show: ShowArgs,
}

impl ShowArgs {
    fn client(&self) -> Result<Client, Failure> {
        Client::local(&self.node.data_dir()?)
    }
}

/// What the node is and does.
pub async fn status(args: StatusArgs) -> Result<(), Failure> {
    let status: Status = args.show.client()?.ask("status", &[]).await?;
    if args.show.json {
        return print_json(&status);
    }
    let moved = &status.data_plane;
    print(&facts(&[
        ("node", status.node_id.clone()),
        ("site", format!("{} ({})", status.site, tier(Some(status.tier)))),
        ("mesh", status.mesh.clone()),
        ("root key", if status.holds_root_key { "held here".into() } else { "not here".into() }),
        ("version", status.version.clone()),
        ("up", span(status.uptime())),
        ("OCI endpoint", endpoint(&status)),
        ("mesh listener", status.mesh_listen.to_string()),
        ("told to others", or_dash(Some(&status.addresses.join(", ")))),
        ("admin endpoint", status.admin_listen.to_string()),
        ("sessions", status.sessions.len().to_string()),
        ("records", status.records.to_string()),
        ("blobs held", status.blobs.to_string()),
        ("disk", format!("{} of {} used", size(status.space.used), size(status.space.quota))),
        ("wants", format!("{} ({} transfers under way)", status.wants, status.fetches)),
        (
            "between nodes",
            format!("{} received, {} sent", size(moved.bytes_received), size(moved.bytes_sent)),
        ),
        ("upstreams", or_dash(Some(&upstreams(&status)))),
        ("other sites", limits::short(&status.budget)),
    ]))
}

/// The registries that are pulled through, and what is wrong with them.
fn upstreams(status: &Status) -> String {
    let state = |upstream: &UpstreamStatus| {
        let away = upstream.endpoints.iter().filter(|endpoint| endpoint.away).count();
        let trouble = upstream.endpoints.iter().find_map(|endpoint| endpoint.trouble.as_deref());
        let limited = upstream.endpoints.iter().find_map(|endpoint| endpoint.limited_for_s);
        match (away, limited, trouble) {
            (0, None, _) => upstream.namespace.clone(),
            (0, Some(seconds), _) => {
                format!("{} (wants to be left alone for {seconds} s)", upstream.namespace)
            }
            (_, _, why) => format!("{} (AWAY: {})", upstream.namespace, why.unwrap_or("it fails")),
        }
    };
    status.upstreams.iter().map(state).collect::<Vec<_>>().join(", ")
}

/// Where clients find the node, and what of it needs somebody's attention.
fn endpoint(status: &Status) -> String {
    let access = &status.access;
    let mut text = status.listen.to_string();
    match access.certificate_days {
        Some(days) if days < 0 => text += " (TLS, certificate has ended)",
        Some(days) => text += &format!(" (TLS, certificate ends in {days} days)"),
        None => {}
    }
    if access.logins_failed > 0 {
        text += &format!(", {} logins failed", access.logins_failed);
    }
    if access.requests_limited > 0 {
        text += &format!(", {} requests refused by limits", access.requests_limited);
    }
    text
}

/// The nodes of the mesh.
pub async fn peers(args: PeersArgs) -> Result<(), Failure> {
    let peers: Vec<Peer> = args.show.client()?.ask("peers", &[]).await?;
    if args.show.json {
        return print_json(&peers);
    }
    let row = |peer: &Peer| {
        let session = if peer.this {
            "this node"
        } else if peer.connected {
            "up"
        } else {
            "-"
        };
        vec![
            short(&peer.node),
            or_dash(peer.site.as_deref()),
            tier(peer.tier).to_owned(),
            session.to_owned(),
            size(peer.bytes_received),
            size(peer.bytes_sent),
            or_dash(Some(&peer.addresses.join(","))),
        ]
    };
    let rows: Vec<_> = peers.iter().map(row).collect();
    print(&table(&["NODE", "SITE", "TIER", "SESSION", "RECEIVED", "SENT", "ADDRESSES"], &[4, 5], &rows))
}

/// The artifacts that the mesh knows.
pub async fn artifacts(args: ArtifactsArgs) -> Result<(), Failure> {
    let client = args.show.client()?;
    if args.coverage {
        return super::policy::coverage(&client, args.repository.as_deref(), args.show.json).await;
    }
    let query: Vec<(&str, &str)> = args.repository.iter().map(|name| ("repository", name.as_str())).collect();
    let found: Artifacts = client.ask("artifacts", &query).await?;
    if args.show.json {
        return print_json(&found);
    }
    let rows: Vec<_> = found
        .artifacts
        .iter()
        .map(|artifact| {
            vec![
                artifact.repository.clone(),
                or_dash(Some(&artifact.tags.join(","))),
                short(&artifact.digest),
                artifact.here.clone(),
                artifact.holders.to_string(),
                or_dash(artifact.status.as_deref()),
                or_dash(artifact.upstream.as_deref()),
            ]
        })
        .collect();
    print(&table(&["REPOSITORY", "TAGS", "DIGEST", "HERE", "HOLDERS", "STATUS", "FROM"], &[4], &rows))?;
    if found.truncated {
        eprintln!("There are more; give a repository to see its own.");
    }
    Ok(())
}

/// The tags of a repository.
pub async fn tags(args: TagsArgs) -> Result<(), Failure> {
    let found: Tags = args.show.client()?.ask("tags", &[("repository", &args.repository)]).await?;
    if args.show.json {
        return print_json(&found);
    }
    let rows: Vec<_> = found
        .tags
        .iter()
        .map(|tag| vec![tag.tag.clone(), tag.digest.clone(), tag.version.to_string(), short(&tag.author)])
        .collect();
    print(&table(&["TAG", "DIGEST", "WRITES", "LAST BY"], &[2], &rows))?;
    if found.truncated {
        eprintln!("There are more than one answer carries.");
    }
    Ok(())
}

/// Everything about one artifact.
pub async fn inspect(args: InspectArgs) -> Result<(), Failure> {
    let reference = args.reference.to_string();
    let found: Inspection = args.show.client()?.ask("inspect", &[("reference", &reference)]).await?;
    if args.show.json {
        return print_json(&found);
    }
    print(&describe(&found))
}

fn describe(found: &Inspection) -> String {
    let artifact = &found.artifact;
    let mut lines = vec![
        ("repository", artifact.repository.clone()),
        ("digest", artifact.digest.clone()),
        ("tags", or_dash(Some(&artifact.tags.join(", ")))),
        ("media type", artifact.media_type.clone()),
        ("artifact type", or_dash(found.artifact_type.as_deref())),
        ("manifest", size(artifact.manifest_size)),
        ("here", artifact.here.clone()),
        ("content", found.total_size.map_or("not known here yet".to_owned(), size)),
    ];
    if let Some(status) = &artifact.status {
        let reason = found.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        lines.push(("status", format!("{status}{reason}")));
    }
    let mut text = facts(&lines);
    for (name, value) in &found.annotations {
        text.push_str(&format!("  {name} = {value}\n"));
    }
    let blobs: Vec<_> = found
        .blobs
        .iter()
        .flatten()
        .map(|blob| {
            vec![
                blob.kind.clone(),
                blob.digest.clone(),
                size(blob.size),
                if blob.held { "held" } else { "-" }.to_owned(),
                or_dash(blob.platform.as_deref()),
                blob.media_type.clone(),
            ]
        })
        .collect();
    if !blobs.is_empty() {
        text.push('\n');
        text.push_str(&table(&["KIND", "DIGEST", "SIZE", "HERE", "PLATFORM", "MEDIA TYPE"], &[2], &blobs));
    }
    let holders: Vec<_> = found
        .holders
        .iter()
        .map(|holder| vec![short(&holder.node), or_dash(holder.site.as_deref()), holder.state.clone()])
        .collect();
    text.push('\n');
    text.push_str(&table(&["HOLDER", "SITE", "HAS"], &[], &holders));
    text
}

fn tier(tier: Option<waystation_proto::body::Tier>) -> &'static str {
    use waystation_proto::body::Tier;
    match tier {
        Some(Tier::Cloud) => "cloud",
        Some(Tier::Edge) => "edge",
        Some(Tier::Iot) => "iot",
        None => "-",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Artifact, BlobInfo, Holder};

    #[test]
    fn an_inspection_says_what_and_where() {
        let found = Inspection {
            artifact: Artifact {
                repository: "app".into(),
                digest: "sha256:00".into(),
                tags: vec!["v1".into()],
                media_type: "m".into(),
                manifest_size: 7,
                status: Some("revoked".into()),
                here: "partial".into(),
                holders: 1,
                upstream: None,
            },
            reason: Some("bad".into()),
            artifact_type: None,
            annotations: [("k".to_owned(), "v".to_owned())].into(),
            blobs: Some(vec![BlobInfo {
                kind: "layer".into(),
                digest: "sha256:11".into(),
                hash: None,
                size: 2048,
                media_type: "l".into(),
                platform: None,
                held: true,
            }]),
            total_size: Some(2048),
            holders: vec![Holder { node: "abc".into(), site: Some("s".into()), state: "complete".into() }],
            manifest: None,
        };
        let text = describe(&found);
        for part in ["status:        revoked: bad", "k = v", "2.00 KiB", "layer", "held", "complete"] {
            assert!(text.contains(part), "{part} in:\n{text}");
        }
    }
}
