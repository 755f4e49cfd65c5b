//! `waystation client-config …`: what to write where, so that a container engine of this machine pulls from
//! a node first. What each engine wants is [`snippet`]'s, changing files and changing them back
//! [`install`]'s.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;
use serde::Deserialize;

use super::{Failure, NodeArgs, local::Client, print};

mod endpoint;
mod install;
mod snippet;

use endpoint::{Endpoint, Upstream};
use install::{Change, Installation};
use snippet::{Content, Engine, Wish};

/// `waystation client-config`
#[derive(Debug, Args)]
pub struct ClientConfigArgs {
    /// Whose configuration.
    #[arg(value_name = "ENGINE")]
    engine: Engine,
    /// A registry whose images are to come from the node; repeat it for more. docker.io unless given.
    #[arg(long = "for", value_name = "HOST")]
    upstreams: Vec<Upstream>,
    /// Where the node is, as http://host:port or https://host:port. The running node is asked unless given.
    #[arg(long, value_name = "URL")]
    endpoint: Option<Endpoint>,
    /// Certificate of the authority that vouches for an https endpoint, PEM, where engines do not trust it yet.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Install it: what is there is kept beside it, and merged with or left alone.
    #[arg(long, conflicts_with = "undo")]
    write: bool,
    /// Put back exactly what was there before --write.
    #[arg(long)]
    undo: bool,
    /// Work below this directory instead of /, as for an image that is being built.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    #[command(flatten)]
    node: NodeArgs,
}

/// What is asked of the node: the part of its status that says how clients reach it.
#[derive(Debug, Deserialize)]
struct Reached {
    listen: SocketAddr,
    #[serde(default)]
    access: Access,
}

#[derive(Debug, Default, Deserialize)]
struct Access {
    /// Whether the endpoint speaks TLS.
    #[serde(default)]
    tls: bool,
}

/// Prints it, installs it or takes it back.
pub async fn run(args: ClientConfigArgs) -> Result<(), Failure> {
    let installation = Installation::new(&args.root, args.engine.name());
    if args.undo {
        let undone = installation.undo().map_err(install::Refusal::into_failure)?;
        return print(&told_after_undo(&undone, args.engine));
    }
    let wish = wish(&args).await?;
    let files = wish.files();
    if !args.write {
        eprint!("{}", wish.advice(&args.root));
        return print(&printed(&files, args.ca.as_deref()));
    }
    let changes = installation.write(&files).map_err(install::Refusal::into_failure)?;
    print(&format!("{}{}", told_after_write(&changes), wish.advice(&args.root)))
}

async fn wish(args: &ClientConfigArgs) -> Result<Wish, Failure> {
    let endpoint = match &args.endpoint {
        Some(endpoint) => endpoint.clone(),
        None => {
            let reached: Reached = Client::local(&args.node.data_dir()?)?.ask("status", &[]).await?;
            Endpoint::of_node(reachable(reached.listen), reached.access.tls)
        }
    };
    let ca = args.ca.as_deref().map(read_certificate).transpose()?;
    let mut upstreams = args.upstreams.clone();
    if upstreams.is_empty() {
        upstreams.push(Upstream::docker_hub());
    }
    Wish::new(args.engine, endpoint, upstreams, ca)
}

/// A listener on every address is reached from this machine on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn read_certificate(file: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    if !bytes.windows(PEM.len()).any(|window| window == PEM) {
        return Err(Failure::Usage(format!("{} holds no certificate in PEM form", file.display())));
    }
    Ok(bytes)
}

/// The snippet itself; where there are several files, each under its name.
fn printed(files: &[snippet::File], ca: Option<&Path>) -> String {
    let texts: Vec<_> =
        files.iter().filter(|file| !matches!(file.content, Content::Certificate(_))).collect();
    let mut out = String::new();
    for file in &texts {
        if texts.len() > 1 {
            out += &format!("# {}\n", file.path);
        }
        out += &String::from_utf8_lossy(&file.content.alone());
        if texts.len() > 1 {
            out.push('\n');
        }
    }
    let certificates = files.iter().filter(|file| matches!(file.content, Content::Certificate(_)));
    if let Some(ca) = ca {
        for file in certificates {
            eprintln!("copy {} to {}", ca.display(), file.path);
        }
    }
    out
}

fn told_after_write(changes: &[Change]) -> String {
    if changes.iter().all(|change| matches!(change, Change::Nothing(_))) {
        return "everything is there already; nothing was changed\n".into();
    }
    let tell = |change: &Change| match change {
        Change::Nothing(path) => format!("unchanged {}\n", path.display()),
        Change::Made(path) => format!("wrote {}\n", path.display()),
        Change::Replaced { path, kept } => {
            format!("wrote {}; what was there is kept as {}\n", path.display(), kept.display())
        }
    };
    changes.iter().map(tell).collect()
}

fn told_after_undo(undone: &[PathBuf], engine: Engine) -> String {
    if undone.is_empty() {
        return format!("nothing was written for {}, so nothing is to be undone\n", engine.name());
    }
    let put_back: String = undone.iter().map(|path| format!("put back {}\n", path.display())).collect();
    format!("{put_back}{}\n", engine.restart())
}

const PEM: &[u8] = b"-----BEGIN CERTIFICATE-----";
