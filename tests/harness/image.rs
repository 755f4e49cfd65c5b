//! Content to push: random blobs from a seed, images made of them, and images whose layers are real archives.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image: a manifest, its config and its layers.
#[derive(Clone, Debug)]
pub struct Image {
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
}

impl Image {
    /// Layers of random bytes of these sizes.
    pub fn random(seed: u64, layer_sizes: &[usize]) -> Self {
        let layers = layer_sizes.iter().enumerate();
        Self::of(layers.map(|(n, size)| random_bytes(seed.wrapping_mul(1000) + n as u64, *size)).collect())
    }

    /// One layer that is an archive of these files: what container engines can unpack.
    pub fn with_files(files: &[(&str, &[u8])]) -> Self {
        Self::of(vec![archive(files, 0o644)])
    }

    /// One layer with this static busybox: containers of it say the greeting and end.
    pub fn saying(greeting: &str, busybox: &[u8]) -> Self {
        let layer = archive(&[("bin/busybox", busybox)], 0o755);
        Self::running(&["/bin/busybox", "echo", greeting], vec![layer])
    }

    /// These layers.
    pub fn of(layers: Vec<Vec<u8>>) -> Self {
        Self::running(&["/hello"], layers)
    }

    fn running(command: &[&str], layers: Vec<Vec<u8>>) -> Self {
        let diff_ids: Vec<_> = layers.iter().map(|layer| digest(layer)).collect();
        let config = to_bytes(&json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {"Cmd": command},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }));
        let layer_descriptors: Vec<_> = layers.iter().map(|layer| descriptor(LAYER_TYPE, layer)).collect();
        let manifest = to_bytes(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": descriptor(CONFIG_TYPE, &config),
            "layers": layer_descriptors,
        }));
        Image { manifest, config, layers }
    }

    /// Digest of the manifest.
    pub fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// Config and layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Vec<u8>> {
        std::iter::once(&self.config).chain(&self.layers)
    }

    /// Bytes of config and layers.
    pub fn blob_bytes(&self) -> u64 {
        self.blobs().map(|blob| blob.len() as u64).sum()
    }
}

/// A tar archive of these files, all with this mode.
pub fn archive(files: &[(&str, &[u8])], mode: u32) -> Vec<u8> {
    let mut archive = tar::Builder::new(vec![]);
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(mode);
        archive.append_data(&mut header, path, *bytes).unwrap();
    }
    archive.into_inner().unwrap()
}

/// The same bytes for the same seed, in every process.
pub fn random_bytes(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// `sha256:…` of these bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", data_encoding::HEXLOWER.encode(&Sha256::digest(bytes)))
}

/// An OCI descriptor of these bytes.
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

/// This machine's, as OCI (as Go) names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub fn to_bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}
