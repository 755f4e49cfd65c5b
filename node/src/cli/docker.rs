//! Reads what `docker save` writes and makes an OCI image of it. Layers that are bare tar archives are
//! compressed, because they will cross thin links; their digests before that are checked against the config.

use std::{
    io::{self, Read, Write},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, bail};
use serde::Deserialize;
use sha2::Digest as _;
use waystation_proto::Digest;

use super::{
    bundle::Place,
    bundle::{Blob, Bundle, Document, digest_reader},
    layout::Files,
};

/// One image in `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Whether the archive was written by `docker save`.
pub fn is_docker_archive(files: &Files) -> bool {
    matches!(read_list(files), Ok(list) if !list.is_empty())
}

/// The image called `name`, or the only one. Blocks for as long as compressing takes.
pub fn read_docker_archive(files: &Files, name: Option<&str>) -> anyhow::Result<Bundle> {
    let list = read_list(files)?;
    let saved = choose(&list, name)?;
    let config = files
        .read(Path::new(&saved.config))?
        .with_context(|| format!("the archive has no {}, which manifest.json names", saved.config))?;
    let diff_ids = diff_ids(&config)?;
    if diff_ids.len() != saved.layers.len() {
        bail!("the image's config lists {} layers, manifest.json {}", diff_ids.len(), saved.layers.len());
    }
    let mut bundle = Bundle::default();
    let config = Blob::memory(config);
    let mut layers = Vec::new();
    for (name, diff_id) in saved.layers.iter().zip(diff_ids) {
        let blob = layer(files, name, &diff_id)?;
        layers.push(serde_json::json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": blob.digest.to_string(),
            "size": blob.size,
        }));
        bundle.add(blob);
    }
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config.digest.to_string(),
            "size": config.size,
        },
        "layers": layers,
    });
    bundle.add(config);
    bundle.manifests.push(Document::new(MANIFEST_TYPE.into(), serde_json::to_vec(&manifest)?));
    Ok(bundle)
}

fn read_list(files: &Files) -> anyhow::Result<Vec<Saved>> {
    let bytes = files.read(Path::new("manifest.json"))?.context("there is no manifest.json")?;
    serde_json::from_slice(&bytes).context("manifest.json is not what docker save writes")
}

fn choose<'a>(list: &'a [Saved], name: Option<&str>) -> anyhow::Result<&'a Saved> {
    let has = |saved: &Saved, name: &str| saved.repo_tags.iter().flatten().any(|tag| tag == name);
    let names = || {
        let all: Vec<&str> =
            list.iter().flat_map(|saved| saved.repo_tags.iter().flatten()).map(String::as_str).collect();
        all.join(", ")
    };
    match (name, list) {
        (Some(name), _) => list
            .iter()
            .find(|saved| has(saved, name))
            .with_context(|| format!("nothing in the archive is called {name:?}; there are: {}", names())),
        (None, [only]) => Ok(only),
        (None, several) => {
            bail!("the archive has {} images; choose with --name one of: {}", several.len(), names())
        }
    }
}

fn diff_ids(config: &[u8]) -> anyhow::Result<Vec<Digest>> {
    let value: serde_json::Value =
        serde_json::from_slice(config).context("the image's config is not JSON")?;
    let listed = value["rootfs"]["diff_ids"].as_array().context("the image's config lists no layers")?;
    let parse = |id: &serde_json::Value| {
        let text = id.as_str().unwrap_or_default();
        text.parse().with_context(|| format!("the layer digest {text:?}"))
    };
    listed.iter().map(parse).collect()
}

fn layer(files: &Files, name: &str, diff_id: &Digest) -> anyhow::Result<Blob> {
    let (place, size) = files
        .find(Path::new(name))
        .with_context(|| format!("the archive has no {name}, which manifest.json names"))?;
    // Not known before it is read; opening needs place and size only.
    let mut blob = Blob { digest: *diff_id, size, place };
    let mut magic = Vec::new();
    blob.open()?.take(2).read_to_end(&mut magic)?;
    let found = if magic == GZIP {
        let (digest, _) = digest_reader(blob.open()?)?;
        blob.digest = digest;
        digest_reader(flate2::read::MultiGzDecoder::new(blob.open()?))?.0
    } else {
        let (compressed, found) = compress(blob.open()?)?;
        blob = compressed;
        found
    };
    if found != *diff_id {
        bail!("{name} has digest {found}, the image's config says {diff_id}; the archive is damaged");
    }
    Ok(blob)
}

/// Compresses into a temporary file; returns it and the digest of the plain bytes.
fn compress(mut from: impl Read) -> anyhow::Result<(Blob, Digest)> {
    let file = tempfile::NamedTempFile::new().context("no temporary file for a compressed layer")?;
    let (plain, written) = {
        let writer = Hashing { hasher: sha2::Sha256::new(), written: 0, inner: file.as_file() };
        // The header carries neither name nor time, so equal layers compress to equal bytes.
        let mut encoder = flate2::write::GzEncoder::new(writer, flate2::Compression::default());
        let mut plain = Hashing { hasher: sha2::Sha256::new(), written: 0, inner: &mut encoder };
        io::copy(&mut from, &mut plain).context("a layer could not be compressed")?;
        let plain = plain.hasher;
        (plain, encoder.finish().context("a layer could not be compressed")?)
    };
    let digest = Digest::Sha256(written.hasher.finalize().into());
    let size = written.written;
    let place = Place::Temporary(Arc::new(file.into_temp_path()));
    Ok((Blob { digest, size, place }, Digest::Sha256(plain.finalize().into())))
}

/// Hashes what passes through.
struct Hashing<W> {
    hasher: sha2::Sha256,
    written: u64,
    inner: W,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

const GZIP: [u8; 2] = [0x1f, 0x8b];
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::cli::{bundle::Named, local::digest_of};

    /// An archive as docker 20 writes it: two layers, the second one a link to the first one's file.
    fn archive(dir: &Path, diff_id: &Digest) -> Files {
        let path = dir.join("saved.tar");
        let mut tar = tar::Builder::new(File::create(&path).expect("created"));
        let mut add = |name: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, bytes).expect("appended");
        };
        let config = format!(r#"{{"rootfs":{{"type":"layers","diff_ids":["{diff_id}","{diff_id}"]}}}}"#);
        add("c.json", config.as_bytes());
        add("one/layer.tar", LAYER);
        add(
            "manifest.json",
            br#"[{"Config":"c.json","RepoTags":["app:v1"],"Layers":["one/layer.tar","two/layer.tar"]}]"#,
        );
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        tar.append_link(&mut link, "two/layer.tar", "../one/layer.tar").expect("appended");
        tar.finish().expect("finished");
        Files::archive(&path).expect("read").expect("a tar")
    }

    const LAYER: &[u8] = b"as good as a tar archive";

    #[test]
    fn becomes_an_oci_image() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = archive(dir.path(), &digest_of(LAYER));
        assert!(is_docker_archive(&files) && !files.is_layout());
        let bundle = read_docker_archive(&files, Some("app:v1")).expect("a bundle");
        let again = read_docker_archive(&files, None).expect("a bundle");
        assert_eq!(bundle.top().expect("one").digest, again.top().expect("one").digest);
        let Named::Manifest(manifest) = bundle.top().expect("one").named().expect("valid") else {
            panic!("no manifest")
        };
        assert_eq!(manifest.layers().len(), 2);
        assert_eq!(bundle.blobs.len(), 2, "the equal layers and the config");
        let mut plain = Vec::new();
        let layer = bundle.blobs[0].open().expect("opens");
        flate2::read::GzDecoder::new(layer).read_to_end(&mut plain).expect("gzip");
        assert_eq!(plain, LAYER);
        assert!(read_docker_archive(&files, Some("other")).is_err());
    }

    #[test]
    fn a_layer_that_is_not_what_the_config_says_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = archive(dir.path(), &digest_of(b"something else"));
        let error = read_docker_archive(&files, None).expect_err("damaged").to_string();
        assert!(error.contains("damaged"), "{error}");
    }
}
