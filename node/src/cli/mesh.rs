//! `waystation mesh …`: makes meshes, hands out what a machine needs to join, says who may publish. The form
//! of mesh files and keys is [`crate::mesh`]'s.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::{Args, Subcommand};
use waystation_proto::{NodeId, glob::Glob};

use super::{Failure, NodeArgs, local::Client, print, print_json};
use crate::{
    access::tls::self_made::outward,
    api::{GrantRequest, Granted, NodeText, Status},
    config::{Config, MESH_PORT, NodeConfig, parse_endpoint},
    control::is_relayed,
    mesh::{MeshError, MeshFile},
};

/// `waystation mesh`
#[derive(Debug, Subcommand)]
pub enum MeshCommand {
    /// Print the mesh file, which is what another machine needs to join. Keep it as secret as the artifacts.
    Export(ExportArgs),
    /// Make a mesh without a node: mesh.toml for all nodes, root.key for whoever grants.
    New(NewArgs),
    /// Let a node publish. Works where the mesh's root key is.
    Grant(GrantArgs),
}

/// `waystation mesh export`
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Write this host:port into it instead of this node's own addresses; repeat it for more.
    #[arg(long, value_name = "ADDR", value_parser = parse_endpoint)]
    advertise: Vec<String>,
    #[command(flatten)]
    node: NodeArgs,
}

/// `waystation mesh new`
#[derive(Debug, Args)]
pub struct NewArgs {
    /// Directory for the two files; neither may be there already.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// host:port of a node to find the mesh at; repeat it for more.
    #[arg(long, value_name = "ADDR", value_parser = parse_endpoint)]
    join: Vec<String>,
}

/// `waystation mesh grant`
#[derive(Debug, Args)]
pub struct GrantArgs {
    /// The node, as `waystation status` prints it there.
    #[arg(value_name = "NODE_ID")]
    subject: NodeId,
    /// Repositories that it may publish in: * within one part of a name, ** for any.
    #[arg(long, value_name = "GLOB")]
    repositories: Glob,
    /// How long from now, such as 90d; without end unless given.
    #[arg(long = "for", value_name = "SPAN", value_parser = humantime::parse_duration)]
    span: Option<Duration>,
    #[command(flatten)]
    node: NodeArgs,
    /// Print the grant as JSON.
    #[arg(long)]
    json: bool,
}

/// Does one of them.
pub async fn run(command: MeshCommand) -> Result<(), Failure> {
    match command {
        MeshCommand::Export(args) => {
            let config = args.node.config.as_deref().map(Config::read).transpose()?.unwrap_or_default();
            let advertise =
                if args.advertise.is_empty() { config.mesh.advertise.clone() } else { args.advertise };
            let data_dir = args.node.data_dir()?;
            let exported = export(&data_dir, advertise, config.mesh.listen).await?;
            if exported.restart {
                eprintln!(
                    "waystation: the node listens on loopback only, because its mesh was not shared until now; \
                     restart it to let others connect on port {MESH_PORT} (TCP and UDP)"
                );
            }
            print(&exported.text)
        }
        MeshCommand::New(args) => new(&args),
        MeshCommand::Grant(args) => grant(args).await,
    }
}

/// A mesh file for others.
#[derive(Debug)]
pub struct Exported {
    /// The file's text. Holds the admission secret.
    pub text: String,
    /// Whether the running node cannot be reached yet by those who get it.
    pub restart: bool,
}

/// The mesh file of the node with this data directory, with addresses that lead to it. Notes that the mesh
/// is shared now.
pub async fn export(
    data_dir: &Path,
    advertise: Vec<String>,
    listen: Option<SocketAddr>,
) -> Result<Exported, Failure> {
    let node = NodeConfig { data_dir: data_dir.to_owned(), ..NodeConfig::default() };
    let path = node.mesh_path();
    if !path.exists() {
        return Err(Failure::NotFound(format!(
            "{} belongs to no mesh yet; start its node once with: waystation serve --data-dir {}",
            data_dir.display(),
            data_dir.display()
        )));
    }
    let mesh = MeshFile::load(&path).map_err(usage)?;
    let status = settled_status(data_dir).await?;
    let restart = status.as_ref().is_some_and(|status| status.opens_when_shared);
    let own = match &status {
        _ if !advertise.is_empty() => advertise,
        // Where to join is dialled by whoever knows nobody yet, no relay either.
        Some(status) if !restart => {
            status.addresses.iter().filter(|address| !is_relayed(address)).cloned().collect()
        }
        _ => addresses(listen),
    };
    let mut join = own;
    for address in mesh.join() {
        if !join.contains(address) && join.len() < MeshFile::MAX_JOIN {
            join.push(address.clone());
        }
    }
    if join.is_empty() {
        return Err(Failure::Usage(
            "this machine has no address that others could use; say one with --advertise host:port".into(),
        ));
    }
    let text = mesh.with_join(join).map_err(usage)?.to_toml();
    let marker = node.shared_marker();
    std::fs::write(&marker, "").with_context(|| format!("{} cannot be written", marker.display()))?;
    Ok(Exported { text, restart })
}

fn new(args: &NewArgs) -> Result<(), Failure> {
    let out = NodeConfig { data_dir: args.out.clone(), ..NodeConfig::default() };
    let (mesh_path, root_path) = (out.mesh_path(), out.root_key_path());
    for path in [&mesh_path, &root_path] {
        if path.exists() {
            return Err(Failure::Usage(format!(
                "{} is there already; give another directory",
                path.display()
            )));
        }
    }
    std::fs::create_dir_all(&args.out).with_context(|| format!("{} cannot be made", args.out.display()))?;
    let (mesh, root) = MeshFile::create();
    let mesh = mesh.with_join(args.join.clone()).map_err(usage)?;
    root.save(&root_path).map_err(usage)?;
    mesh.save(&mesh_path).map_err(usage)?;
    print(&format!(
        "{mesh}  for every node: waystation serve --mesh {mesh}\n\
         {root}   keep it safe; a node with it in its data directory can grant\n",
        mesh = mesh_path.display(),
        root = root_path.display(),
    ))
}

async fn grant(args: GrantArgs) -> Result<(), Failure> {
    let client = Client::local(&args.node.data_dir()?)?;
    let request = GrantRequest {
        node: NodeText(args.subject),
        repositories: args.repositories,
        seconds: args.span.map(|span| span.as_secs()),
    };
    let granted: Granted = client.tell("mesh/grant", &request).await?;
    if args.json {
        return print_json(&granted);
    }
    let until = match granted.expires {
        Some(seconds) => {
            let end = std::time::UNIX_EPOCH + Duration::from_secs(seconds);
            format!("until {}", humantime::format_rfc3339_seconds(end))
        }
        None => "without end".to_owned(),
    };
    let actions = granted.actions.join(", ");
    print(&format!("{} may now {actions} in {} {until}\n", granted.node, granted.repositories))
}

fn usage(error: MeshError) -> Failure {
    Failure::Usage(error.to_string())
}

/// The status of the node, if it runs. One that has just started needs a moment to know its addresses.
async fn settled_status(data_dir: &Path) -> Result<Option<Status>, Failure> {
    let mut tries = 0;
    loop {
        let status: Status = match Client::local(data_dir)?.ask("status", &[]).await {
            Ok(status) => status,
            Err(Failure::NotRunning(_)) => return Ok(None),
            Err(other) => return Err(other),
        };
        tries += 1;
        if !status.addresses.is_empty() || status.opens_when_shared || tries >= STATUS_TRIES {
            return Ok(Some(status));
        }
        tokio::time::sleep(STATUS_INTERVAL).await;
    }
}

/// Where others will find a node on this machine: what it was told to listen on, or, where that is every
/// interface, the addresses that lead out of this machine.
fn addresses(listen: Option<SocketAddr>) -> Vec<String> {
    let port = listen.map_or(MESH_PORT, |listen| listen.port());
    match listen {
        Some(listen) if !listen.ip().is_unspecified() => vec![listen.to_string()],
        _ => outward().into_iter().map(|ip| SocketAddr::new(ip, port).to_string()).collect(),
    }
}

/// Addresses are known within half a second, and durable a moment later.
const STATUS_TRIES: u32 = 20;
const STATUS_INTERVAL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_mesh_is_never_written_over_another() {
        let dir = tempfile::tempdir().expect("a directory");
        let args = NewArgs { out: dir.path().join("m"), join: vec!["a.example:4717".into()] };
        new(&args).expect("made");
        let mesh = MeshFile::load(&args.out.join("mesh.toml")).expect("reads");
        assert_eq!(mesh.join(), ["a.example:4717"]);
        assert_eq!(new(&args).expect_err("there").code(), 2);
    }

    #[tokio::test]
    async fn export_names_what_leads_here_and_notes_it() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(export(dir.path(), vec![], None).await.expect_err("no mesh").code(), 4);
        let (mesh, _) = MeshFile::create();
        let mesh = mesh.with_join(vec!["old:1".into()]).expect("valid");
        mesh.save(&dir.path().join("mesh.toml")).expect("saved");
        let exported = export(dir.path(), vec!["new:2".into()], None).await.expect("exported");
        let again = MeshFile::parse(&exported.text).expect("valid");
        assert_eq!(again.join(), ["new:2", "old:1"]);
        assert_eq!(again.mesh(), mesh.mesh());
        let node = NodeConfig { data_dir: dir.path().to_owned(), ..NodeConfig::default() };
        assert!(node.shared_marker().exists());
    }
}
