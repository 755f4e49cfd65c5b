//! `waystation pull`: gets an artifact and everything it names into an OCI layout, an OCI archive or plain
//! files. Owns where things go; that bytes are what they should be is [`super::download`]'s.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use futures_util::{StreamExt, TryStreamExt};
use serde::Serialize;
use tempfile::NamedTempFile;
use waystation_proto::Digest;

use super::{
    Failure, NodeArgs,
    archive::ArchiveWriter,
    bundle::{Named, blob_path, digest, is_foreign, parse_manifest},
    download::{Download, download, is_there},
    file::files_of,
    local::{Client, Manifest},
    print, print_json,
    progress::Progress,
};
use crate::reference::Reference;

/// `waystation pull`
#[derive(Debug, Args)]
pub struct PullArgs {
    /// The artifact: `repository[:tag][@digest]`.
    #[arg(value_name = "REF")]
    reference: Reference,
    /// Directory for an OCI layout, NAME.tar for an OCI archive; for an artifact of files, the file or the
    /// directory to put them in.
    dest: PathBuf,
    /// What to write, where neither artifact nor destination say it.
    #[arg(long, value_enum)]
    format: Option<DestFormat>,
    #[command(flatten)]
    node: NodeArgs,
    /// Print what was done as JSON.
    #[arg(long)]
    json: bool,
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DestFormat {
    /// A directory with an OCI image layout.
    Oci,
    /// A tar archive of an OCI image layout.
    OciArchive,
    /// The layers as files.
    File,
}

/// What a pull did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pulled {
    /// What was asked for.
    pub reference: String,
    /// The manifest.
    pub digest: String,
    /// Blobs fetched and verified.
    pub fetched: usize,
    /// Their bytes.
    pub bytes_fetched: u64,
    /// Blobs that were at the destination, verified.
    pub present: usize,
    /// Where it is.
    pub paths: Vec<PathBuf>,
}

/// An artifact's manifests, and the blobs that they name.
#[derive(Debug)]
struct Closure {
    /// The artifact's own first.
    manifests: Vec<(Manifest, Named)>,
    blobs: Vec<(Digest, u64)>,
}

/// Gets an artifact from the local node.
pub async fn run(args: PullArgs) -> Result<(), Failure> {
    let client = Client::local(&args.node.data_dir()?)?;
    let pulled = pull(&client, &args.reference, &args.dest, args.format, &Progress::new()).await?;
    if args.json {
        return print_json(&pulled);
    }
    print(&format!("{}@{}\n", pulled.reference, pulled.digest))
}

/// Gets an artifact from any registry.
pub async fn pull(
    client: &Client,
    reference: &Reference,
    dest: &Path,
    format: Option<DestFormat>,
    progress: &Progress,
) -> Result<Pulled, Failure> {
    let found = client.manifest(&reference.repository, &reference.target()).await?;
    let top = found.ok_or_else(|| {
        Failure::NotFound(format!(
            "{reference} cannot be had now; what is known: waystation tags {}",
            reference.repository
        ))
    })?;
    let named = parse_manifest(&top.bytes).with_context(|| format!("manifest {}", top.digest))?;
    let digest = top.digest;
    let format = format.unwrap_or_else(|| guess(&named, dest));
    let (fetched, paths) = match format {
        DestFormat::File => to_files(client, reference, &named, dest, progress).await?,
        DestFormat::Oci => {
            let closure = closure(client, reference, top, named).await?;
            (to_layout(client, reference, &closure, dest, progress).await?, vec![dest.to_owned()])
        }
        DestFormat::OciArchive => {
            let closure = closure(client, reference, top, named).await?;
            (to_archive(client, reference, &closure, dest, progress).await?, vec![dest.to_owned()])
        }
    };
    let new: Vec<u64> = fetched.iter().filter_map(|size| *size).collect();
    Ok(Pulled {
        reference: match reference.name() {
            Some(tag) => format!("{}:{tag}", reference.repository),
            None => reference.repository.to_string(),
        },
        digest: digest.to_string(),
        fetched: new.len(),
        bytes_fetched: new.iter().sum(),
        present: fetched.len() - new.len(),
        paths,
    })
}

fn guess(named: &Named, dest: &Path) -> DestFormat {
    if files_of(named).is_some() {
        DestFormat::File
    } else if dest.extension().is_some_and(|extension| extension == "tar") && !dest.is_dir() {
        DestFormat::OciArchive
    } else {
        DestFormat::Oci
    }
}

/// Gets the manifests below one, and lists what they all name.
async fn closure(
    client: &Client,
    reference: &Reference,
    top: Manifest,
    named: Named,
) -> Result<Closure, Failure> {
    let mut manifests = vec![(top, named)];
    let mut blobs = BTreeMap::new();
    let mut next = 0;
    while next < manifests.len() {
        let mut children = Vec::new();
        match &manifests[next].1 {
            Named::Index(index) => {
                for child in index.manifests() {
                    children.push(digest(child)?);
                }
            }
            Named::Manifest(manifest) => {
                let own = manifest.layers().iter().filter(|layer| !is_foreign(layer));
                for descriptor in own.chain([manifest.config()]) {
                    blobs.insert(digest(descriptor)?, descriptor.size());
                }
            }
        }
        for child in children {
            if manifests.iter().any(|(manifest, _)| manifest.digest == child) {
                continue;
            }
            if manifests.len() >= MANIFESTS_MAX {
                return Err(anyhow!("the artifact has more than {MANIFESTS_MAX} manifests").into());
            }
            let found = client.manifest(&reference.repository, &child.to_string()).await?;
            let found = found.ok_or_else(|| {
                Failure::NotFound(format!("the manifest {child}, which {reference} lists, cannot be had now"))
            })?;
            let named = parse_manifest(&found.bytes).with_context(|| format!("manifest {child}"))?;
            manifests.push((found, named));
        }
        next += 1;
    }
    Ok(Closure { manifests, blobs: blobs.into_iter().collect() })
}

/// For each blob its size if it was fetched, nothing if it was there.
type Fetched = Vec<Option<u64>>;

async fn to_layout(
    client: &Client,
    reference: &Reference,
    closure: &Closure,
    dest: &Path,
    progress: &Progress,
) -> Result<Fetched, Failure> {
    let fetched = futures_util::stream::iter(&closure.blobs)
        .map(|(digest, size)| async move {
            let path = dest.join(blob_path(digest));
            if is_there(&path, *digest, *size).await? {
                progress.start(digest.short(), *size).done("already there");
                return Ok::<_, Failure>(None);
            }
            to_file(client, reference, *digest, *size, &path, progress).await?;
            Ok(Some(*size))
        })
        .buffer_unordered(DOWNLOADS)
        .try_collect()
        .await?;
    for (manifest, _) in &closure.manifests {
        write_whole(&dest.join(blob_path(&manifest.digest)), &manifest.bytes)?;
    }
    let index_path = dest.join("index.json");
    let old = match std::fs::read(&index_path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is not an image index", index_path.display()))?,
        Err(_) => serde_json::Value::Null,
    };
    write_whole(&dest.join("oci-layout"), LAYOUT)?;
    write_whole(&index_path, &index_json(old, &closure.manifests[0].0, &closure.manifests[0].1, reference)?)?;
    Ok(fetched)
}

async fn to_archive(
    client: &Client,
    reference: &Reference,
    closure: &Closure,
    dest: &Path,
    progress: &Progress,
) -> Result<Fetched, Failure> {
    let young = young_file(dest)?;
    let at = || dest.display().to_string();
    let mut archive = ArchiveWriter::new(young.reopen().with_context(at)?);
    archive.add(Path::new("oci-layout"), LAYOUT).with_context(at)?;
    let (top, named) = &closure.manifests[0];
    let index = index_json(serde_json::Value::Null, top, named, reference)?;
    archive.add(Path::new("index.json"), &index).with_context(at)?;
    for (manifest, _) in &closure.manifests {
        archive.add(&blob_path(&manifest.digest), &manifest.bytes).with_context(at)?;
    }
    let mut fetched = Vec::new();
    for (digest, size) in &closure.blobs {
        let (file, offset) = archive.reserve(&blob_path(digest), *size).with_context(at)?;
        let what = Download { repository: &reference.repository, digest: *digest, size: *size };
        download(client, what, file, offset, progress).await?;
        fetched.push(Some(*size));
    }
    archive.finish().with_context(at)?;
    young.persist(dest).with_context(at)?;
    Ok(fetched)
}

async fn to_files(
    client: &Client,
    reference: &Reference,
    named: &Named,
    dest: &Path,
    progress: &Progress,
) -> Result<(Fetched, Vec<PathBuf>), Failure> {
    let files = match (files_of(named), named) {
        (Some(files), _) => files,
        (None, Named::Manifest(manifest)) => {
            let plain = |layer| Ok((digest(layer)?.to_string().replace(':', "-"), layer));
            manifest.layers().iter().map(plain).collect::<anyhow::Result<_>>()?
        }
        (None, Named::Index(_)) => {
            return Err(Failure::Usage(format!(
                "{reference} is an index and has no files; use --format oci"
            )));
        }
    };
    let into_directory = dest.is_dir() || dest.as_os_str().to_string_lossy().ends_with('/');
    if !into_directory && files.len() != 1 {
        return Err(Failure::Usage(format!(
            "{reference} has {} files; give a directory that exists, or one that ends with /",
            files.len()
        )));
    }
    let mut fetched = Vec::new();
    let mut paths: Vec<PathBuf> = Vec::new();
    for (name, layer) in files {
        let path = if into_directory { dest.join(name) } else { dest.to_owned() };
        if paths.contains(&path) {
            return Err(anyhow!("{reference} has two files for {}", path.display()).into());
        }
        let (digest, size) = (digest(layer)?, layer.size());
        if is_there(&path, digest, size).await? {
            progress.start(digest.short(), size).done("already there");
            fetched.push(None);
        } else {
            to_file(client, reference, digest, size, &path, progress).await?;
            fetched.push(Some(size));
        }
        paths.push(path);
    }
    Ok((fetched, paths))
}

/// Downloads beside the place, verifies, moves.
async fn to_file(
    client: &Client,
    reference: &Reference,
    digest: Digest,
    size: u64,
    path: &Path,
    progress: &Progress,
) -> Result<(), Failure> {
    let young = young_file(path)?;
    let file = young.reopen().with_context(|| path.display().to_string())?;
    let what = Download { repository: &reference.repository, digest, size };
    download(client, what, file, 0, progress).await?;
    young.persist(path).map(|_| ()).map_err(|e| anyhow!("{}: {}", path.display(), e.error).into())
}

fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    use std::io::Write;
    let mut young = young_file(path)?;
    young.write_all(bytes).with_context(|| path.display().to_string())?;
    young.persist(path).map(|_| ()).map_err(|e| anyhow!("{}: {}", path.display(), e.error))
}

/// An empty file beside where it will be, gone if that does not come about.
fn young_file(path: &Path) -> anyhow::Result<NamedTempFile> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    if path.is_dir() {
        bail!("{} is a directory", path.display());
    }
    std::fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    tempfile::Builder::new()
        .prefix(".waystation-")
        // What the umask leaves of it, as for any file that a command writes.
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(dir)
        .with_context(|| format!("{} cannot be written to", dir.display()))
}

/// The layout's index with this artifact in it, in the place of what had its name.
fn index_json(
    old: serde_json::Value,
    top: &Manifest,
    named: &Named,
    reference: &Reference,
) -> anyhow::Result<Vec<u8>> {
    let media_type =
        if top.media_type.is_empty() { super::bundle::media_type_of(named) } else { top.media_type.clone() };
    let mut entry = serde_json::json!({
        "mediaType": media_type,
        "digest": top.digest.to_string(),
        "size": top.bytes.len(),
    });
    let mut manifests = old["manifests"].as_array().cloned().unwrap_or_default();
    if let Some(name) = reference.name() {
        manifests.retain(|one| one["annotations"][REF_NAME] != name.as_str());
        entry["annotations"] = serde_json::json!({ REF_NAME: name.as_str() });
    }
    if !manifests.contains(&entry) {
        manifests.push(entry);
    }
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    });
    Ok(serde_json::to_vec(&index)?)
}

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const REF_NAME: &str = oci_spec::image::ANNOTATION_REF_NAME;
/// Blobs fetched at a time.
const DOWNLOADS: usize = 3;
/// Manifests of one artifact.
const MANIFESTS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_keeps_its_other_artifacts() {
        let manifest = |text: &'static str| Manifest {
            bytes: text.into(),
            media_type: "m".into(),
            digest: super::super::local::digest_of(text.as_bytes()),
        };
        let named = parse_manifest(br#"{"schemaVersion":2,"manifests":[]}"#).expect("an index");
        let mut index = serde_json::Value::Null;
        let digest = manifest("b").digest;
        for (text, reference) in [
            ("a", "app:v1".to_owned()),
            ("b", "app:v2".to_owned()),
            ("c", "app:v1".to_owned()),
            ("b", format!("app@{digest}")),
            ("b", format!("app@{digest}")),
        ] {
            let reference = reference.parse().expect("valid");
            let bytes = index_json(index, &manifest(text), &named, &reference).expect("encodes");
            index = serde_json::from_slice(&bytes).expect("JSON");
        }
        let names: Vec<_> = index["manifests"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| one["annotations"][REF_NAME].as_str())
            .collect();
        assert_eq!(names, [Some("v2"), Some("v1"), None]);
    }

    #[test]
    fn artifact_and_destination_say_the_format() {
        let file = r#"{"schemaVersion":2,"artifactType":"x","config":{"mediaType":"application/vnd.oci.empty.v1+json",
            "digest":"sha256:D","size":2},"layers":[{"mediaType":"l","digest":"sha256:D","size":1,
            "annotations":{"org.opencontainers.image.title":"f"}}]}"#;
        let file = parse_manifest(file.replace('D', &"ab".repeat(32)).as_bytes()).expect("a manifest");
        let index = parse_manifest(br#"{"schemaVersion":2,"manifests":[]}"#).expect("an index");
        assert_eq!(guess(&file, Path::new("x.tar")), DestFormat::File);
        assert_eq!(guess(&index, Path::new("x.tar")), DestFormat::OciArchive);
        assert_eq!(guess(&index, Path::new("x")), DestFormat::Oci);
    }
}
