//! `waystation push`: finds out what the source is, uploads the blobs that the node lacks, then the manifests.

use std::{collections::BTreeMap, io::SeekFrom, path::PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use futures_util::{StreamExt, TryStreamExt};
use reqwest::Body;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;
use waystation_proto::RepoName;

use super::{
    Failure, NodeArgs,
    bundle::{Blob, Bundle, Place},
    docker::{is_docker_archive, read_docker_archive},
    file::read_file,
    layout::{Files, read_layout},
    local::Client,
    print, print_json,
    progress::Progress,
    table::short,
};
use crate::reference::Reference;

/// `waystation push`
#[derive(Debug, Args)]
pub struct PushArgs {
    /// Name to publish under: `repository[:tag]`; the tag is `latest` unless given.
    #[arg(value_name = "REF")]
    reference: Reference,
    /// OCI layout directory, OCI archive, archive of `docker save`, or any file.
    source: PathBuf,
    /// What the source is, where its content would say something else.
    #[arg(long, value_enum)]
    format: Option<SourceFormat>,
    /// Which artifact of a layout or archive that has several.
    #[arg(long)]
    name: Option<String>,
    /// Publish the file as an artifact of this type (a media type).
    #[arg(long, value_name = "TYPE")]
    artifact_type: Option<String>,
    /// Note this on the file's manifest; repeat it for more.
    #[arg(long = "annotation", value_name = "KEY=VALUE", value_parser = parse_annotation)]
    annotations: Vec<(String, String)>,
    #[command(flatten)]
    node: NodeArgs,
    /// Print what was done as JSON.
    #[arg(long)]
    json: bool,
}

/// What a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SourceFormat {
    /// A directory with an OCI image layout.
    Oci,
    /// A tar archive of an OCI image layout.
    OciArchive,
    /// A tar archive written by `docker save`.
    DockerArchive,
    /// Any file, taken as it is.
    File,
}

/// What a push did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pushed {
    /// Under which name.
    pub reference: String,
    /// The manifest.
    pub digest: String,
    /// Blobs sent.
    pub uploaded: usize,
    /// Their bytes.
    pub bytes_uploaded: u64,
    /// Blobs that the node had.
    pub present: usize,
    /// Their bytes.
    pub bytes_present: u64,
}

/// Publishes at the local node.
pub async fn run(args: PushArgs) -> Result<(), Failure> {
    if args.reference.digest.is_some() && args.reference.tag.is_none() {
        return Err(Failure::Usage("give a tag to push to; the digest follows from the content".into()));
    }
    let client = Client::local(&args.node.data_dir()?)?;
    let reference = args.reference.clone();
    let (source, json) = (args.source.clone(), args.json);
    let bundle = tokio::task::spawn_blocking(move || args.bundle())
        .await
        .context("reading the source did not end well")?
        .with_context(|| source.display().to_string())?;
    let pushed = push(&client, &reference, &bundle, &Progress::new()).await?;
    if json {
        return print_json(&pushed);
    }
    print(&format!("{}@{}\n", pushed.reference, pushed.digest))
}

/// Publishes a bundle: blobs first, then children, then the artifact under its tag.
pub async fn push(
    client: &Client,
    reference: &Reference,
    bundle: &Bundle,
    progress: &Progress,
) -> Result<Pushed, Failure> {
    let top = bundle.top()?;
    if let Some(wanted) = reference.digest.filter(|wanted| *wanted != top.digest) {
        return Err(anyhow!("the source is {}, not {wanted}", top.digest).into());
    }
    let repository = &reference.repository;
    let sent: Vec<(bool, u64)> = futures_util::stream::iter(&bundle.blobs)
        .map(|blob| async move {
            Ok::<_, Failure>((push_blob(client, repository, blob, progress).await?, blob.size))
        })
        .buffer_unordered(UPLOADS)
        .try_collect()
        .await?;
    let children = bundle.manifests.iter().filter(|document| document.digest != top.digest);
    for document in children {
        let target = document.digest.to_string();
        client.put_manifest(repository, &target, &document.media_type, document.bytes.clone()).await?;
    }
    let tag = reference.tag_or_latest();
    client.put_manifest(repository, tag.as_str(), &top.media_type, top.bytes.clone()).await?;
    let sum = |new: bool| {
        let of: Vec<u64> = sent.iter().filter(|(was_sent, _)| *was_sent == new).map(|(_, n)| *n).collect();
        (of.len(), of.iter().sum())
    };
    let ((uploaded, bytes_uploaded), (present, bytes_present)) = (sum(true), sum(false));
    Ok(Pushed {
        reference: format!("{repository}:{tag}"),
        digest: top.digest.to_string(),
        uploaded,
        bytes_uploaded,
        present,
        bytes_present,
    })
}

impl PushArgs {
    /// What the source holds. Blocks for as long as it takes to read it.
    fn bundle(&self) -> anyhow::Result<Bundle> {
        let annotations: BTreeMap<_, _> = self.annotations.iter().cloned().collect();
        let (name, tag) = (self.name.as_deref(), self.reference.tag.as_ref().map(|tag| tag.as_str()));
        let as_file = || read_file(&self.source, self.artifact_type.as_deref(), &annotations);
        let about_a_file = self.artifact_type.is_some() || !annotations.is_empty();
        let format = match self.format {
            Some(format) => format,
            None if about_a_file => SourceFormat::File,
            None => detect(&self.source)?,
        };
        if format == SourceFormat::File {
            return as_file();
        }
        if format == SourceFormat::Oci {
            return read_layout(&Files::Directory(self.source.clone()), name, tag);
        }
        let files = Files::archive(&self.source)?.context(
            "is not a plain tar archive; if it is compressed, uncompress it first (gunzip, zstd -d)",
        )?;
        match format {
            SourceFormat::OciArchive => read_layout(&files, name, tag),
            _ => read_docker_archive(&files, name),
        }
    }
}

/// What the content says that a source is.
fn detect(source: &std::path::Path) -> anyhow::Result<SourceFormat> {
    let meta = std::fs::metadata(source).context("cannot be read")?;
    if meta.is_dir() {
        let files = Files::Directory(source.to_owned());
        anyhow::ensure!(
            files.is_layout(),
            "is a directory without an OCI layout (oci-layout, index.json); push a single file or an archive of it"
        );
        return Ok(SourceFormat::Oci);
    }
    // Something that only begins like an archive is a file like any other.
    Ok(match Files::archive(source) {
        // Newer docker versions write both; the layout needs no conversion.
        Ok(Some(files)) if files.is_layout() => SourceFormat::OciArchive,
        Ok(Some(files)) if is_docker_archive(&files) => SourceFormat::DockerArchive,
        _ => SourceFormat::File,
    })
}

/// True if it was sent, false if the repository had it.
async fn push_blob(
    client: &Client,
    repository: &RepoName,
    blob: &Blob,
    progress: &Progress,
) -> Result<bool, Failure> {
    let transfer = progress.start(short(&blob.digest.to_string()), blob.size);
    if client.has_blob(repository, &blob.digest).await? {
        transfer.done("already there");
        return Ok(false);
    }
    let path = match &blob.place {
        Place::Memory(bytes) => {
            client.upload(repository, &blob.digest, blob.size, bytes.clone().into()).await?;
            transfer.done("sent");
            return Ok(true);
        }
        Place::File(path, offset) => (path.to_path_buf(), *offset),
        Place::Temporary(path) => (path.to_path_buf(), 0),
    };
    let mut file = tokio::fs::File::open(&path.0).await.with_context(|| path.0.display().to_string())?;
    file.seek(SeekFrom::Start(path.1)).await.with_context(|| path.0.display().to_string())?;
    let counted = transfer.clone();
    let bytes = ReaderStream::with_capacity(file.take(blob.size), STEP).inspect_ok(move |bytes| {
        counted.advance(bytes.len() as u64);
    });
    client.upload(repository, &blob.digest, blob.size, Body::wrap_stream(bytes)).await?;
    transfer.done("sent");
    Ok(true)
}

fn parse_annotation(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as key=value".to_owned()),
    }
}

/// Blobs sent at a time: enough to hide the node's syncs behind one another.
const UPLOADS: usize = 3;
/// Read at a time.
const STEP: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{demo::image, layout::tests::archive_of};

    #[test]
    fn content_tells_the_format() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = dir.path().join("layout");
        let image = image::Image { layers: vec![image::Layer::files("a", &[("f", "text")])] };
        image.write(&layout, "v1").expect("written");
        let tar = dir.path().join("image.tar");
        archive_of(&layout, &tar);
        let other = dir.path().join("other.tar");
        let mut builder = tar::Builder::new(std::fs::File::create(&other).expect("created"));
        builder.append_path_with_name(&tar, "x").expect("appended");
        builder.finish().expect("finished");
        let small = dir.path().join("small");
        std::fs::write(&small, "x").expect("written");
        for (path, expected) in [
            (&layout, SourceFormat::Oci),
            (&tar, SourceFormat::OciArchive),
            (&other, SourceFormat::File),
            (&small, SourceFormat::File),
        ] {
            assert_eq!(detect(path).expect("readable"), expected, "{}", path.display());
        }
        assert!(detect(dir.path()).is_err());
        assert!(detect(&dir.path().join("nothing")).is_err());
    }

    #[test]
    fn annotations() {
        assert_eq!(parse_annotation("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(parse_annotation("=b").is_err() && parse_annotation("a").is_err());
    }
}
