//! What a push moves: manifests in memory, blobs wherever their bytes lie. Owns what a manifest names and
//! how blobs are read; where a bundle comes from is [`super::layout`]'s, [`super::docker`]'s and
//! [`super::file`]'s.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use sha2::Digest as _;
use waystation_proto::Digest;

use super::local::digest_of;

/// An artifact ready to be pushed.
#[derive(Clone, Debug, Default)]
pub struct Bundle {
    /// What the manifests need, each digest once.
    pub blobs: Vec<Blob>,
    /// Children before the manifests that list them; the last one is the artifact.
    pub manifests: Vec<Document>,
}

/// A blob and where its bytes are.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Its digest, as the manifest gives it; the registry checks it.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Where it is.
    pub place: Place,
}

/// Where the bytes of a blob are.
#[derive(Clone, Debug)]
pub enum Place {
    /// In a file, from this byte on.
    File(Arc<Path>, u64),
    /// In a file that goes when the bundle does.
    Temporary(Arc<tempfile::TempPath>),
    /// Here.
    Memory(Bytes),
}

/// A manifest's bytes.
#[derive(Clone, Debug)]
pub struct Document {
    /// Computed over the bytes.
    pub digest: Digest,
    /// How it is to be announced.
    pub media_type: String,
    /// The bytes.
    pub bytes: Bytes,
}

/// What a manifest names.
#[derive(Clone, Debug)]
pub enum Named {
    /// The manifest of one artifact.
    Manifest(Box<ImageManifest>),
    /// A list of manifests.
    Index(Box<ImageIndex>),
}

impl Bundle {
    /// Adds a blob unless it is there already.
    pub fn add(&mut self, blob: Blob) {
        if !self.blobs.iter().any(|other| other.digest == blob.digest) {
            self.blobs.push(blob);
        }
    }

    /// The artifact itself.
    pub fn top(&self) -> anyhow::Result<&Document> {
        self.manifests.last().context("there is no manifest to push")
    }
}

impl Blob {
    /// A blob in memory.
    pub fn memory(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Blob { digest: digest_of(&bytes), size: bytes.len() as u64, place: Place::Memory(bytes) }
    }

    /// Reads the bytes from the start.
    pub fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        let at = |path: &Path, offset| -> io::Result<Box<dyn Read + Send>> {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(offset))?;
            Ok(Box::new(file.take(self.size)))
        };
        match &self.place {
            Place::File(path, offset) => at(path, *offset),
            Place::Temporary(path) => at(path, 0),
            Place::Memory(bytes) => Ok(Box::new(io::Cursor::new(bytes.clone()))),
        }
    }
}

impl Document {
    /// A manifest from its bytes.
    pub fn new(media_type: String, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Document { digest: digest_of(&bytes), media_type, bytes }
    }

    /// What it names.
    pub fn named(&self) -> anyhow::Result<Named> {
        parse_manifest(&self.bytes).with_context(|| format!("manifest {}", self.digest))
    }
}

/// Reads a manifest or an index, whichever it is: the media type inside is optional, so its members tell.
pub fn parse_manifest(bytes: &[u8]) -> anyhow::Result<Named> {
    let value: serde_json::Value = serde_json::from_slice(bytes).context("is not JSON")?;
    if value.get("manifests").is_some() {
        let index = serde_json::from_value(value).context("is not an image index")?;
        return Ok(Named::Index(Box::new(index)));
    }
    if value.get("config").is_none() {
        bail!("is neither an image manifest nor an index");
    }
    Ok(Named::Manifest(Box::new(serde_json::from_value(value).context("is not an image manifest")?)))
}

/// The media type of a manifest's bytes where nobody gave one.
pub fn media_type_of(named: &Named) -> String {
    let (stated, default) = match named {
        Named::Manifest(manifest) => (manifest.media_type(), MediaType::ImageManifest),
        Named::Index(index) => (index.media_type(), MediaType::ImageIndex),
    };
    stated.clone().unwrap_or(default).to_string()
}

/// A descriptor's digest as the rest of the program has it.
pub fn digest(descriptor: &Descriptor) -> anyhow::Result<Digest> {
    let text = descriptor.digest().to_string();
    text.parse().with_context(|| format!("the digest {text:?}"))
}

/// Whether a layer is to be had elsewhere, outside the artifact (image-spec, "non-distributable").
pub fn is_foreign(descriptor: &Descriptor) -> bool {
    let media_type = descriptor.media_type().to_string();
    media_type.contains(".nondistributable.") || media_type.contains(".foreign.")
}

/// The digest of what a reader gives, and how much that was.
pub fn digest_reader(mut from: impl Read) -> io::Result<(Digest, u64)> {
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; STEP];
    let mut size = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok((Digest::Sha256(hasher.finalize().into()), size)),
            Ok(n) => {
                hasher.update(&buffer[..n]);
                size += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// A path that an archive or layout gives for a digest.
pub fn blob_path(digest: &Digest) -> PathBuf {
    let text = digest.to_string();
    let hex = text.split_once(':').map_or("", |(_, hex)| hex);
    Path::new("blobs").join(digest.algorithm()).join(hex)
}

/// Read at a time.
const STEP: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_tell_manifest_from_index() {
        let index = br#"{"schemaVersion":2,"manifests":[]}"#;
        let Named::Index(_) = parse_manifest(index).expect("an index") else { panic!("no index") };
        assert!(parse_manifest(b"{}").is_err());
        assert!(parse_manifest(b"no").is_err());
    }

    #[test]
    fn reads_parts_of_files() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        std::fs::write(&path, b"..hello..").expect("written");
        let digest = digest_of(b"hello");
        let blob = Blob { digest, size: 5, place: Place::File(path.into(), 2) };
        assert_eq!(digest_reader(blob.open().expect("opens")).expect("reads"), (digest, 5));
    }
}
