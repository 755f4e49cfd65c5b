//! `waystation demo`: three nodes on this machine (a cloud and two edge sites), an image published at the
//! cloud, pulled from both edges, then a second version that shares layers. Owns what is shown and checked;
//! the nodes are ordinary `serve` processes, and everything is asked of them as an operator or client would.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use waystation_proto::Digest;

use super::{
    Failure,
    bundle::Bundle,
    layout::{Files, read_layout},
    local::Client,
    mesh::export,
    print,
    progress::Progress,
    pull::pull,
    push::push,
    table::{size, table},
};
use crate::{api::Status, reference::Reference};

pub mod image;
mod node;

use image::{Image, Layer};
use node::DemoNode;

/// `waystation demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// End after the report instead of leaving the nodes up to try.
    #[arg(long)]
    exit: bool,
}

/// One pull at one site.
#[derive(Debug)]
struct Arrival {
    site: &'static str,
    /// From the moment the push was acknowledged until the site's endpoint answered with the manifest.
    visible: Duration,
    /// Until every blob had been pulled and verified.
    complete: Duration,
    /// Blob bytes that came from other nodes meanwhile.
    crossed: u64,
    /// Blobs pulled over HTTP, all verified.
    verified: usize,
}

/// Runs it.
pub async fn run(args: DemoArgs) -> Result<(), Failure> {
    let dir = tempfile::Builder::new()
        .prefix("waystation-demo-")
        .tempdir()
        .context("no temporary directory for the demo")?;
    let mut nodes = Vec::new();
    let mut interrupt = Interrupt::listen()?;
    let shown = tokio::select! {
        result = show(dir.path(), &mut nodes, args.exit) => Some(result),
        () = interrupt.wait() => None,
    };
    let result = match shown {
        Some(Ok(())) if !args.exit => stay(&nodes, &mut interrupt).await,
        Some(other) => other,
        None => Err(anyhow!("interrupted before the demo was through").into()),
    };
    // Where nobody interrupted, the nodes' logs may say why it failed.
    let logs: String = match &result {
        Err(_) if !interrupt.came => nodes.iter().map(DemoNode::log_tail).collect(),
        _ => String::new(),
    };
    futures_util::future::join_all(nodes.into_iter().map(DemoNode::stop)).await;
    dir.close().context("the demo's temporary directory could not be removed")?;
    result.map_err(|failure| match logs.is_empty() {
        true => failure,
        false => Failure::Failed(anyhow!("the demo did not hold: {failure}\n{logs}")),
    })
}

/// Ctrl-C, or a supervisor's wish to end this.
struct Interrupt {
    int: Signal,
    term: Signal,
    came: bool,
}

impl Interrupt {
    fn listen() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("signals cannot be handled");
        Ok(Interrupt { int: on(SignalKind::interrupt())?, term: on(SignalKind::terminate())?, came: false })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.int.recv() => {}
            _ = self.term.recv() => {}
        }
        self.came = true;
    }
}

async fn show(dir: &Path, nodes: &mut Vec<DemoNode>, exit: bool) -> Result<(), Failure> {
    print("Starting three nodes on this machine: a cloud and two edge sites.\n")?;
    nodes.push(DemoNode::start(dir, "cloud", "cloud", None)?);
    nodes[0].wait_until_ready().await?;
    let mesh = dir.join("mesh.toml");
    let exported = export(nodes[0].data_dir(), Vec::new(), None).await?;
    std::fs::write(&mesh, exported.text).context("the mesh file could not be written")?;
    for site in EDGES {
        nodes.push(DemoNode::start(dir, site, "edge", Some(&mesh))?);
    }
    for node in &mut nodes[1..] {
        node.wait_until_ready().await?;
    }
    for node in nodes.iter() {
        print(&format!("  {:7}  OCI endpoint {}\n", node.site, node.status().await?.listen))?;
    }
    let [v1, v2] = versions(dir)?;
    let first = publish(dir, nodes, "v1", &v1).await?;
    report("v1", &v1, &first)?;
    let second = publish(dir, nodes, "v2", &v2).await?;
    report("v2", &v2, &second)?;
    summary(&v1, &v2, &second)?;
    if !exit {
        instructions(nodes).await?;
    }
    Ok(())
}

/// A version of the demo's image, read from its layout.
struct Version {
    digest: Digest,
    bundle: Bundle,
    /// Bytes of config and layers.
    content: u64,
}

/// Two versions that share all layers but the last.
fn versions(dir: &Path) -> Result<[Version; 2], Failure> {
    let noise = |name, seed, mib: usize| Layer::noise(name, seed, mib * 1024 * 1024);
    let base = [
        Layer::files("etc", &[("etc/demo/motd", "pulled from next door\n"), ("etc/demo/site", "any\n")]),
        noise("base", 1, 8),
        noise("runtime", 2, 4),
        noise("models", 3, 2),
    ];
    let version = |tag: &str, seed| -> Result<Version, Failure> {
        let image = Image { layers: base.iter().cloned().chain([noise("app", seed, 1)]).collect() };
        let layout = dir.join("images").join(tag);
        let digest = image.write(&layout, tag)?;
        let bundle = read_layout(&Files::Directory(layout), None, None)?;
        let content = bundle.blobs.iter().map(|blob| blob.size).sum();
        Ok(Version { digest, bundle, content })
    };
    Ok([version("v1", 11)?, version("v2", 12)?])
}

/// Pushes at the cloud, pulls at both edges at once.
async fn publish(
    dir: &Path,
    nodes: &[DemoNode],
    tag: &str,
    version: &Version,
) -> Result<Vec<Arrival>, Failure> {
    let reference: Reference = format!("{REPOSITORY}:{tag}").parse().map_err(|e| anyhow!("{e}"))?;
    let cloud = Client::local(nodes[0].data_dir())?;
    let pushed = push(&cloud, &reference, &version.bundle, &Progress::silent()).await?;
    let acknowledged = Instant::now();
    print(&format!(
        "\nPublished {} at the cloud: {} in {} new blobs, {} in {} already there.\n",
        pushed.reference,
        size(pushed.bytes_uploaded),
        pushed.uploaded,
        size(pushed.bytes_present),
        pushed.present
    ))?;
    let arrivals = nodes[1..].iter().map(|node| arrive(dir, node, &reference, version, acknowledged));
    futures_util::future::try_join_all(arrivals).await
}

/// Waits until a site's endpoint has the tag, and pulls it there over HTTP as any client would.
async fn arrive(
    dir: &Path,
    node: &DemoNode,
    reference: &Reference,
    version: &Version,
    acknowledged: Instant,
) -> Result<Arrival, Failure> {
    let before = node.status().await?.data_plane.bytes_received;
    let client = Client::tcp(&node.status().await?.listen.to_string())?;
    let deadline = acknowledged + PATIENCE;
    let visible = loop {
        match client.manifest(&reference.repository, &reference.target()).await {
            Ok(Some(manifest)) if manifest.digest == version.digest => break acknowledged.elapsed(),
            Ok(Some(manifest)) => {
                return Err(anyhow!("{} answers {reference} with {}", node.site, manifest.digest).into());
            }
            Ok(None) if Instant::now() < deadline => tokio::time::sleep(POLL).await,
            Ok(None) => {
                return Err(anyhow!("{} has not got {reference} after {PATIENCE:?}", node.site).into());
            }
            Err(e) => return Err(e),
        }
    };
    let dest = dir.join("pulled").join(node.site).join(reference.target());
    let pulled = pull(&client, reference, &dest, None, &Progress::silent()).await?;
    let complete = acknowledged.elapsed();
    if pulled.digest != version.digest.to_string() || pulled.fetched != version.bundle.blobs.len() {
        return Err(anyhow!("{} gave another image than was published", node.site).into());
    }
    let crossed = node.status().await?.data_plane.bytes_received - before;
    Ok(Arrival { site: node.site, visible, complete, crossed, verified: pulled.fetched + 1 })
}

fn report(tag: &str, version: &Version, arrivals: &[Arrival]) -> Result<(), Failure> {
    let ms = |span: Duration| format!("{} ms", span.as_millis());
    let row = |arrival: &Arrival| {
        vec![
            arrival.site.to_owned(),
            ms(arrival.visible),
            ms(arrival.complete),
            size(arrival.crossed),
            format!("{} of {}", arrival.verified, version.bundle.blobs.len() + 1),
        ]
    };
    let rows: Vec<_> = arrivals.iter().map(row).collect();
    let head = ["SITE", "VISIBLE AFTER", "PULLED AFTER", "FROM OTHER SITES", "DIGESTS VERIFIED"];
    print(&format!("{tag} is {} ({}).\n", size(version.content), version.digest))?;
    print(&table(&head, &[1, 2, 3, 4], &rows))
}

/// What v2 cost, and whether sharing held: a site must not fetch again what it has.
fn summary(v1: &Version, v2: &Version, arrivals: &[Arrival]) -> Result<(), Failure> {
    let has = |blob: &super::bundle::Blob| v1.bundle.blobs.iter().any(|other| other.digest == blob.digest);
    let shared: u64 = v2.bundle.blobs.iter().filter(|blob| has(blob)).map(|blob| blob.size).sum();
    let new = v2.content - shared;
    for arrival in arrivals {
        if arrival.crossed > new + OVERHEAD {
            return Err(anyhow!(
                "{} fetched {} for v2, of which only {} was new",
                arrival.site,
                size(arrival.crossed),
                size(new)
            )
            .into());
        }
    }
    print(&format!(
        "\nv2 shares {} with v1, so each site had to get {} instead of {}.\nEvery step held.\n",
        size(shared),
        size(new),
        size(v2.content)
    ))
}

async fn instructions(nodes: &[DemoNode]) -> Result<(), Failure> {
    let mut text = "\nThe nodes stay up. Try:\n".to_owned();
    let mut statuses: Vec<Status> = Vec::new();
    for node in nodes {
        statuses.push(node.status().await?);
    }
    let (cloud, edge) = (statuses[0].listen, statuses[1].listen);
    for (node, status) in nodes.iter().zip(&statuses) {
        text.push_str(&format!("  {:7}  http://{}/v2/\n", node.site, status.listen));
    }
    text.push_str(&format!(
        "\n  skopeo inspect --tls-verify=false docker://{edge}/{REPOSITORY}:v2\n\
         \x20 podman pull --tls-verify=false {edge}/{REPOSITORY}:v2\n\
         \x20 docker pull {edge}/{REPOSITORY}:v2\n\
         \x20 skopeo copy --dest-tls-verify=false docker-daemon:YOUR/IMAGE:TAG docker://{cloud}/your/image:tag\n\
         \x20 waystation status --data-dir {}\n\
         \nCtrl-C stops them and removes their data.\n",
        nodes[1].data_dir().display()
    ));
    print(&text)
}

/// Until Ctrl-C, or until a node ends by itself.
async fn stay(nodes: &[DemoNode], interrupt: &mut Interrupt) -> Result<(), Failure> {
    let mut watch = tokio::time::interval(WATCH);
    loop {
        tokio::select! {
            () = interrupt.wait() => return print("\nStopping.\n"),
            _ = watch.tick() => {
                for node in nodes {
                    node.status().await.map_err(|e| anyhow!("the node {} is gone: {e}", node.site))?;
                }
            }
        }
    }
}

const EDGES: [&str; 2] = ["edge-a", "edge-b"];
const REPOSITORY: &str = "demo/app";
/// Longest wait for a site to get a version: minutes on the slowest board.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two questions whether a site has a version.
const POLL: Duration = Duration::from_millis(20);
/// Between two looks whether the nodes are still there.
const WATCH: Duration = Duration::from_secs(5);
/// Manifests and artifact indexes, which cross beside config and layers.
const OVERHEAD: u64 = 64 * 1024;
