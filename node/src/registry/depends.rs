//! What a pushed artifact depends on: the images of a Helm chart, as far as they are in the mesh when the chart is
//! pushed. Reads the chart; which images it names is [`waystation_oci::chart`]'s to say.

use std::{collections::BTreeMap, io::Read};

use bytes::Bytes;
use tracing::{debug, info};
use waystation_oci::{
    chart::{self, ImageName, Images},
    manifest::Parsed,
};
use waystation_proto::{
    Digest, RepoName,
    index::{Edge, EdgeKind},
};

use super::Registry;

impl Registry {
    /// The edges to what a manifest depends on. Nothing that is wrong with a chart keeps it from being pushed.
    pub(super) async fn dependencies(&self, repository: &RepoName, parsed: &Parsed) -> Vec<Edge> {
        let config = parsed.edges().iter().find(|edge| edge.kind == EdgeKind::Config);
        let Some(config) = config.filter(|config| config.media_type == chart::CONFIG_TYPE) else {
            return Vec::new();
        };
        let content = parsed.edges().iter().find(|edge| edge.media_type == chart::CONTENT_TYPE);
        let config = self.small(repository, config, chart::TEXT_MAX as u64).await.unwrap_or_default();
        let content = match content {
            Some(content) => self.small(repository, content, CHART_MAX).await.unwrap_or_default(),
            None => Bytes::new(),
        };
        let read = tokio::task::spawn_blocking(move || images(&config, &content)).await;
        let images = read.unwrap_or_default();
        let mut edges = Vec::new();
        for (name, hard) in images.found() {
            match self.find(name) {
                Some(found) => edges.push(found.into_edge(hard)),
                None if hard => {
                    info!(%repository, image = ?name, "a chart names an image that is not in the mesh; push it, then the chart again")
                }
                None => debug!(%repository, image = ?name, "a chart's values name what is not in the mesh"),
            }
        }
        edges
    }

    /// A small blob of the repository.
    async fn small(&self, repository: &RepoName, edge: &Edge, max: u64) -> Option<Bytes> {
        let index = self.inner.store.index();
        index.link(repository, &edge.digest)?;
        let held = index.held(&edge.digest).filter(|held| held.size <= max)?;
        self.inner.store.read(held.hash, max).await.ok()
    }

    /// Where in the mesh an image is.
    fn find(&self, name: &ImageName) -> Option<Found> {
        let index = self.inner.store.index();
        let tag = name.tag.as_ref();
        let found = name.repositories().into_iter().find_map(|repository| {
            let of_tag = || index.tag(&repository, tag?).and_then(|entry| entry.target);
            let digest = name.digest.or_else(of_tag)?;
            let entry = index.artifact(&repository, &digest)?;
            let (size, media_type) = (entry.place.manifest_size, entry.place.media_type);
            Some(Found { repository, tag: tag.map(ToString::to_string), digest, size, media_type })
        });
        // A digest stays right when the image comes later.
        found.or_else(|| {
            Some(Found {
                repository: name.repositories().into_iter().next_back()?,
                tag: tag.map(ToString::to_string),
                digest: name.digest?,
                size: 0,
                media_type: String::new(),
            })
        })
    }
}

/// An image that a chart names, in the mesh.
struct Found {
    repository: RepoName,
    tag: Option<String>,
    digest: Digest,
    size: u64,
    media_type: String,
}

impl Found {
    fn into_edge(self, hard: bool) -> Edge {
        let tag = self.tag.map(|tag| format!(":{tag}")).unwrap_or_default();
        let reference = format!("{}{tag}", self.repository);
        let (digest, size, media_type) = (self.digest, self.size, self.media_type);
        let kind = EdgeKind::Depends { reference, hard };
        Edge { kind, digest, hash: None, size, media_type, platform: None }
    }
}

/// The images that a chart names in its config and in the values within its archive.
fn images(config: &[u8], archive: &[u8]) -> Images {
    let mut images = Images::default();
    let own = images.read_config(config);
    for (folder, files) in texts(archive) {
        let version = files.chart.as_deref().and_then(chart::app_version);
        let version = version.or_else(|| own.clone().filter(|_| !folder.contains('/')));
        if let Some(values) = files.values {
            images.read_values(&values, version.as_deref());
        }
    }
    images
}

/// What of a chart's folder is read.
#[derive(Default)]
struct Texts {
    chart: Option<String>,
    values: Option<String>,
}

/// Chart.yaml and values.yaml of a chart and of the charts within it, by folder.
fn texts(archive: &[u8]) -> BTreeMap<String, Texts> {
    let mut found: BTreeMap<String, Texts> = BTreeMap::new();
    let unpacked = flate2::read::GzDecoder::new(archive).take(UNPACKED_MAX);
    let mut archive = tar::Archive::new(unpacked);
    let Ok(entries) = archive.entries() else { return found };
    for entry in entries.take(FILES_MAX) {
        let Ok(entry) = entry else { return found };
        let path = entry.path().ok().and_then(|path| path.to_str().map(str::to_owned)).unwrap_or_default();
        let Some((folder, name)) = path.rsplit_once('/') else { continue };
        let parts: Vec<&str> = folder.split('/').collect();
        let is_chart = matches!(parts.as_slice(), [_] | [_, "charts", _]);
        if !is_chart || !matches!(name, "Chart.yaml" | "values.yaml") {
            continue;
        }
        let is_values = name == "values.yaml";
        let mut text = String::new();
        if entry.take(chart::TEXT_MAX as u64 + 1).read_to_string(&mut text).is_ok() {
            let texts = found.entry(folder.to_owned()).or_default();
            *(if is_values { &mut texts.values } else { &mut texts.chart }) = Some(text);
        }
    }
    found
}

/// Largest archive of a chart that is looked into: Helm itself takes 5 MiB.
const CHART_MAX: u64 = 8 << 20;
/// How much of it is unpacked.
const UNPACKED_MAX: u64 = 64 << 20;
/// How many files of it are passed over.
const FILES_MAX: usize = 10_000;
