//! Builds small but real OCI images: gzip layers, a config with matching diff ids, an image layout.

use std::{io::Write, path::Path};

use anyhow::Context;
use waystation_proto::Digest;

use crate::cli::{
    bundle::{Blob, blob_path},
    local::digest_of,
};
use crate::platform::architecture;

/// An image that is to be built.
#[derive(Clone, Debug)]
pub struct Image {
    /// The base layer first.
    pub layers: Vec<Layer>,
}

/// One layer, built.
#[derive(Clone, Debug)]
pub struct Layer {
    /// For the image's history.
    pub title: String,
    /// Digest of the tar archive.
    pub diff_id: Digest,
    /// The compressed archive.
    pub bytes: Vec<u8>,
}

impl Layer {
    /// A layer with one file of `size` bytes that do not compress; equal seeds make equal layers.
    pub fn noise(name: &str, seed: u64, size: usize) -> Self {
        let mut content = vec![0; size];
        fastrand::Rng::with_seed(seed).fill(&mut content);
        Self::build(format!("{name} ({size} bytes of noise)"), &[(&format!("opt/demo/{name}.bin"), &content)])
    }

    /// A layer with these text files.
    pub fn files(name: &str, files: &[(&str, &str)]) -> Self {
        let files: Vec<(&str, &[u8])> = files.iter().map(|(path, text)| (*path, text.as_bytes())).collect();
        Self::build(name.to_owned(), &files)
    }

    fn build(title: String, files: &[(&str, &[u8])]) -> Self {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, *content).expect("memory takes it");
        }
        let plain = tar.into_inner().expect("memory takes it");
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).expect("memory takes it");
        Layer { title, diff_id: digest_of(&plain), bytes: gzip.finish().expect("memory takes it") }
    }
}

impl Image {
    /// Writes an OCI layout in which the image is called `name`; returns the manifest's digest.
    pub fn write(&self, dir: &Path, name: &str) -> anyhow::Result<Digest> {
        let put = |bytes: &[u8]| -> anyhow::Result<serde_json::Value> {
            let blob = Blob::memory(bytes.to_vec());
            let path = dir.join(blob_path(&blob.digest));
            std::fs::create_dir_all(path.parent().unwrap_or(dir))?;
            std::fs::write(&path, bytes).with_context(|| path.display().to_string())?;
            Ok(serde_json::json!({ "digest": blob.digest.to_string(), "size": blob.size }))
        };
        let typed = |mut descriptor: serde_json::Value, media_type: &str| {
            descriptor["mediaType"] = media_type.into();
            descriptor
        };
        let config = serde_json::json!({
            "architecture": architecture(),
            "os": "linux",
            "config": { "Cmd": ["/bin/demo"] },
            "rootfs": {
                "type": "layers",
                "diff_ids": self.layers.iter().map(|layer| layer.diff_id.to_string()).collect::<Vec<_>>(),
            },
            "history": self
                .layers
                .iter()
                .map(|layer| serde_json::json!({ "created_by": format!("waystation demo: {}", layer.title) }))
                .collect::<Vec<_>>(),
        });
        let config = typed(put(&serde_json::to_vec(&config)?)?, "application/vnd.oci.image.config.v1+json");
        let mut layers = Vec::new();
        for layer in &self.layers {
            layers.push(typed(put(&layer.bytes)?, "application/vnd.oci.image.layer.v1.tar+gzip"));
        }
        let manifest = serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": config,
            "layers": layers,
        }))?;
        let mut descriptor = typed(put(&manifest)?, MANIFEST_TYPE);
        descriptor["annotations"] = serde_json::json!({ oci_spec::image::ANNOTATION_REF_NAME: name });
        let index = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [descriptor],
        });
        std::fs::write(dir.join("index.json"), serde_json::to_vec(&index)?)?;
        std::fs::write(dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(digest_of(&manifest))
    }
}

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

#[cfg(test)]
mod tests {
    use std::io::Read;

    use oci_spec::image::ImageConfiguration;

    use super::*;
    use crate::cli::{
        bundle::{Named, digest_reader},
        layout::{Files, read_layout},
    };

    #[test]
    fn an_image_is_consistent_and_always_the_same() {
        let dir = tempfile::tempdir().expect("a directory");
        let image =
            || Image { layers: vec![Layer::files("a", &[("etc/f", "x")]), Layer::noise("n", 7, 9000)] };
        let digest = image().write(&dir.path().join("1"), "v1").expect("written");
        assert_eq!(image().write(&dir.path().join("2"), "v1").expect("written"), digest);
        let bundle = read_layout(&Files::Directory(dir.path().join("1")), None, None).expect("reads");
        let Named::Manifest(manifest) = bundle.top().expect("one").named().expect("valid") else {
            panic!("no manifest")
        };
        let mut config = String::new();
        let blob = |digest: &str| bundle.blobs.iter().find(|blob| blob.digest.to_string() == digest);
        let config_blob = blob(manifest.config().digest().as_ref()).expect("there");
        config_blob.open().expect("opens").read_to_string(&mut config).expect("text");
        let config: ImageConfiguration = serde_json::from_str(&config).expect("a valid config");
        assert_eq!(config.rootfs().diff_ids().len(), 2);
        for (layer, diff_id) in manifest.layers().iter().zip(config.rootfs().diff_ids()) {
            let bytes = blob(layer.digest().as_ref()).expect("there").open().expect("opens");
            let plain = digest_reader(flate2::read::GzDecoder::new(bytes)).expect("gzip").0;
            assert_eq!(plain.to_string(), *diff_id);
        }
    }
}
