//! `waystation watch`: what happens, as it happens.

use anyhow::Context;
use clap::Args;

use super::{Failure, NodeArgs, local::Client, table::short, tag::moment};
use crate::events::{Blob, Event, What};

/// `waystation watch`
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Begin after the event with this id; `start` for all that the node still has.
    #[arg(long, value_name = "ID")]
    since: Option<String>,
    /// Only these types of events, separated by commas.
    #[arg(long = "type", value_name = "TYPES")]
    types: Option<String>,
    /// Print each event as a line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// Prints events until the node ends or whoever reads goes away.
pub async fn run(args: WatchArgs) -> Result<(), Failure> {
    let query: Vec<(&str, &str)> = [("since", args.since.as_deref()), ("type", args.types.as_deref())]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
    let mut answer = Client::local(&args.node.data_dir()?)?.stream("events", &query).await?;
    let mut lines = Lines::default();
    while let Some(bytes) = answer.chunk().await.context("the node ended while it was watched")? {
        for data in lines.take(&bytes)? {
            let text = if args.json { data } else { line(&data) };
            if !super::print_line(&text)? {
                return Ok(());
            }
        }
    }
    eprintln!("The node has stopped.");
    Ok(())
}

/// Cuts a stream of server-sent events into the data of each; the node writes one line of data an event.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) -> Result<Vec<String>, anyhow::Error> {
        self.rest.extend_from_slice(bytes);
        anyhow::ensure!(self.rest.len() <= LINE_MAX, "the node sent an event that is too long");
        let mut found = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            if let Some(data) = line.strip_prefix(b"data:") {
                found.push(String::from_utf8_lossy(data).trim().to_owned());
            }
        }
        Ok(found)
    }
}

/// An event for people; one of a newer node as it came.
fn line(data: &str) -> String {
    match serde_json::from_str::<Event>(data) {
        Ok(event) => format!("{}  {:<14} {}", moment(event.time), event.what.name(), tell(&event.what)),
        Err(_) => data.to_owned(),
    }
}

fn tell(what: &What) -> String {
    let name = |repository: &str, tag: &Option<String>| match tag {
        Some(tag) => format!("{repository}:{tag}"),
        None => repository.to_owned(),
    };
    let at = |site: &Option<String>| site.as_ref().map(|site| format!(" at {site}")).unwrap_or_default();
    match what {
        What::Published { repository, tag, digest, author } => {
            let by = author.as_ref().map(|author| format!(" by node {}", short(author))).unwrap_or_default();
            format!("{} is {}{by}", name(repository, tag), short(digest))
        }
        What::Deleted { repository, tag, digest } => {
            let digest = digest.as_ref().map(|digest| format!("@{}", short(digest))).unwrap_or_default();
            format!("{}{digest}", name(repository, tag))
        }
        What::TagLost { repository, tag, digest, author } => {
            let digest = digest.as_ref().map_or("deleted".to_owned(), |digest| short(digest));
            format!("{repository}:{tag} as {digest} by node {} gave way to another write", short(author))
        }
        What::Status { repository, digest, status, reason } => {
            format!("{repository}@{} is {status}: {reason}", short(digest))
        }
        What::Held { digest } => format!("all of {} is here", short(digest)),
        What::SiteComplete { digest, site, nodes } => {
            format!("all of {} is at each of the {nodes} nodes in reach at {site}", short(digest))
        }
        What::FetchStarted { blob, from, site } => {
            format!("{} from {}{}", named(blob), short(from), at(site))
        }
        What::Fetched { blob, took_ms } => format!("{} in {took_ms} ms", named(blob)),
        What::FetchFailed { blob, from, fault, why } => {
            format!("{} from {}: {fault}: {why}", named(blob), short(from))
        }
        What::HolderLied { node, blob } => format!("node {} about {}", short(node), named(blob)),
        What::Evicted { blob } => format!("{} is not here any more", named(blob)),
        What::NodeUp { node, site } | What::NodeDown { node, site } => {
            format!("node {}{}", short(node), at(site))
        }
        What::UpstreamAway { upstream } | What::UpstreamBack { upstream } => upstream.clone(),
        What::Missed { count: Some(count) } => format!("{count} events came too fast or too long ago"),
        What::Missed { count: None } => "what happened before the node started again".into(),
    }
}

fn named(blob: &Blob) -> String {
    match (&blob.digest, &blob.hash) {
        (Some(digest), _) => short(digest),
        (None, Some(hash)) => format!("blob {}", short(hash)),
        (None, None) => "a blob".into(),
    }
}

/// Longest event in bytes, with what came of the next.
const LINE_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_cut_wherever_they_arrive() {
        let mut lines = Lines::default();
        let stream = b"id: 1-1\ndata: {\"a\":1}\n\n: keep-alive\n\ndata:{}\n\n";
        let found: Vec<String> = stream.chunks(3).flat_map(|part| lines.take(part).expect("short")).collect();
        assert_eq!(found, [r#"{"a":1}"#, "{}"]);
        assert!(lines.take(&vec![b'x'; LINE_MAX + 1]).is_err());
        let known = r#"{"id":"1-2","time":1800000000,"type":"held","digest":"sha256:00"}"#;
        assert_eq!(line(known), "2027-01-15T08:00:00Z  held           all of sha256:00 is here");
        assert_eq!(line(r#"{"type":"new"}"#), r#"{"type":"new"}"#);
    }
}
