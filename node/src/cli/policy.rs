//! `waystation policy …`: says what is to be held where. The form of a file is [`crate::policy`]'s.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{
    Failure, NodeArgs,
    local::Client,
    print, print_json,
    table::{facts, or_dash, short, table},
};
use crate::{
    policy::{
        self, CoverageAnswer, Explained, Form, Policies,
        answer::{Deletion, Done},
    },
    reference::Reference,
};

/// `waystation policy`
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Declare the policies of a file; those with other names stay as they are.
    Apply(ApplyArgs),
    /// Print the policies of the mesh, in the form that apply reads.
    Get(GetArgs),
    /// Take a policy away. What it brought stays until the space is needed.
    Delete(DeleteArgs),
    /// Say why an artifact is, or is not, to be held at a node or site.
    Explain(ExplainArgs),
}

/// `waystation policy apply`
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The file: TOML, a [[policy]] for each; - for standard input.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    node: NodeArgs,
}

/// `waystation policy get`
#[derive(Debug, Args)]
pub struct GetArgs {
    /// Only this one.
    #[arg(value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    node: NodeArgs,
    /// Print them as JSON.
    #[arg(long)]
    json: bool,
}

/// `waystation policy delete`
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Which.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    node: NodeArgs,
}

/// `waystation policy explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// A site's name, or the id of a node, or the first 8 or more digits of it.
    #[arg(value_name = "NODE|SITE")]
    whom: String,
    /// The artifact: `repository[:tag][@digest]`.
    #[arg(value_name = "REF")]
    reference: Reference,
    #[command(flatten)]
    node: NodeArgs,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Does one of them.
pub async fn run(command: PolicyCommand) -> Result<(), Failure> {
    match command {
        PolicyCommand::Apply(args) => apply(args).await,
        PolicyCommand::Get(args) => get(args).await,
        PolicyCommand::Delete(args) => {
            let client = Client::local(&args.node.data_dir()?)?;
            let done: Done = client.tell("policies/delete", &Deletion { name: args.name }).await?;
            print(&format!("deleted {}\n", done.names.join(", ")))
        }
        PolicyCommand::Explain(args) => explain(args).await,
    }
}

async fn apply(args: ApplyArgs) -> Result<(), Failure> {
    let name = args.file.display().to_string();
    let text = if name == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(&args.file)
    };
    let text = text.map_err(|e| Failure::Usage(format!("the file {name} cannot be read: {e}")))?;
    let policies = policy::parse(&text, &name).map_err(|wrong| Failure::Usage(wrong.join("\n")))?;
    let policies = policies.iter().map(|(name, policy)| Form::of(name, policy)).collect();
    let client = Client::local(&args.node.data_dir()?)?;
    let done: Done = client.tell("policies", &Policies { policies }).await?;
    let lines: Vec<String> = done.names.iter().map(|name| format!("applied {name}\n")).collect();
    print(&lines.concat())
}

async fn get(args: GetArgs) -> Result<(), Failure> {
    let client = Client::local(&args.node.data_dir()?)?;
    let mut found: Policies = client.ask("policies", &[]).await?;
    if let Some(name) = &args.name {
        found.policies.retain(|form| form.name.as_ref().is_some_and(|own| own.as_str() == name));
        if found.policies.is_empty() {
            return Err(Failure::NotFound(format!("there is no policy {name}")));
        }
    }
    if args.json {
        return print_json(&found);
    }
    let policies: Result<Vec<_>, String> = found.policies.into_iter().map(Form::into_policy).collect();
    let policies = policies.map_err(|why| Failure::Failed(anyhow::anyhow!(why)))?;
    print(&policy::print(&policies))
}

async fn explain(args: ExplainArgs) -> Result<(), Failure> {
    let client = Client::local(&args.node.data_dir()?)?;
    let reference = args.reference.to_string();
    let query = [("whom", args.whom.as_str()), ("reference", reference.as_str())];
    let found: Explained = client.ask("explain", &query).await?;
    if args.json {
        return print_json(&found);
    }
    let mut text = facts(&[
        ("artifact", format!("{} ({})", found.reference, short(&found.digest))),
        ("at", found.whom.clone()),
        ("wanted", if found.wanted { "yes" } else { "no" }.to_owned()),
        ("now", found.state.clone()),
    ]);
    let rows: Vec<_> = found.reasons.into_iter().map(|reason| vec![reason.policy, reason.says]).collect();
    text.push('\n');
    if rows.is_empty() {
        text.push_str("There are no policies.\n");
    } else {
        text.push_str(&table(&["POLICY", "SAYS"], &[], &rows));
    }
    print(&text)
}

/// `waystation artifacts --coverage`
pub async fn coverage(client: &Client, repository: Option<&str>, json: bool) -> Result<(), Failure> {
    let query: Vec<(&str, &str)> = repository.into_iter().map(|name| ("repository", name)).collect();
    let found: CoverageAnswer = client.ask("coverage", &query).await?;
    if json {
        return print_json(&found);
    }
    let row = |row: &policy::CoverageRow| {
        vec![
            row.repository.clone(),
            or_dash(Some(&row.tags.join(","))),
            short(&row.digest),
            row.site.clone(),
            row.wanted.to_string(),
            row.held.to_string(),
            row.coming.to_string(),
            row.missing.to_string(),
            or_dash(Some(&row.why)),
        ]
    };
    let rows: Vec<_> = found.rows.iter().map(row).collect();
    let names = ["REPOSITORY", "TAGS", "DIGEST", "SITE", "WANTED", "HELD", "ON ITS WAY", "MISSING", "WHY"];
    print(&table(&names, &[4, 5, 6, 7], &rows))?;
    if found.truncated {
        eprintln!("There are more; give a repository to see its own.");
    }
    Ok(())
}
