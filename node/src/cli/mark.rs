//! `waystation mark`: what state an artifact is in, for the whole mesh.

use clap::Args;

use super::{Failure, NodeArgs, local::Client, print, print_json};
use crate::{
    api::{Mark, MarkRequest, Marked},
    reference::Reference,
};

/// `waystation mark`
#[derive(Debug, Args)]
pub struct MarkArgs {
    /// The artifact: `repository[:tag][@digest]`. The mark stays with the artifact, not with the tag.
    #[arg(value_name = "REF")]
    reference: Reference,
    /// Its state.
    state: Mark,
    /// Why, for people: clients that are refused are told.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    node: NodeArgs,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Marks it.
pub async fn run(args: MarkArgs) -> Result<(), Failure> {
    let MarkArgs { reference, state, reason, node, json } = args;
    let request = MarkRequest { reference: reference.to_string(), state, reason };
    let marked: Marked = Client::local(&node.data_dir()?)?.tell("mark", &request).await?;
    if json {
        return print_json(&marked);
    }
    let Marked { repository, digest, state } = marked;
    print(&format!("{repository}@{digest} is {state}; nodes hear of it as they hear of a push\n"))
}
