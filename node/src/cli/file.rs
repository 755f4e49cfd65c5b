//! Makes an artifact of any one file: an image manifest with an empty config and the file as its only layer
//! (image-spec, manifest.md, "Guidelines for Artifact Usage").

use std::{collections::BTreeMap, fs::File, path::Path};

use anyhow::{Context, bail};
use oci_spec::image::{ANNOTATION_TITLE, Descriptor, MediaType};

use super::bundle::{Blob, Bundle, Document, Named, Place, digest_reader};

/// The artifact that a file makes. Reads the file once, in small steps, to know its digest.
pub fn read_file(
    path: &Path,
    artifact_type: Option<&str>,
    annotations: &BTreeMap<String, String>,
) -> anyhow::Result<Bundle> {
    let file = File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    if !file.metadata()?.is_file() {
        bail!("{} is neither a file nor an OCI layout", path.display());
    }
    let (digest, size) =
        digest_reader(&file).with_context(|| format!("{} cannot be read", path.display()))?;
    let title = path.file_name().context("the file has no name")?.to_string_lossy();
    let layer = Blob { digest, size, place: Place::File(path.into(), 0) };
    let config = Blob::memory(EMPTY);
    let mut manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": artifact_type.unwrap_or(UNKNOWN_TYPE),
        "config": { "mediaType": EMPTY_TYPE, "digest": config.digest.to_string(), "size": config.size },
        "layers": [{
            "mediaType": LAYER_TYPE,
            "digest": digest.to_string(),
            "size": size,
            "annotations": { ANNOTATION_TITLE: title },
        }],
    });
    if !annotations.is_empty() {
        manifest["annotations"] = serde_json::json!(annotations);
    }
    let mut bundle = Bundle::default();
    bundle.add(layer);
    bundle.add(config);
    bundle.manifests.push(Document::new(MANIFEST_TYPE.into(), serde_json::to_vec(&manifest)?));
    Ok(bundle)
}

/// The files of an artifact whose layers are files, with the names to give them; `None` for other artifacts.
pub fn files_of(named: &Named) -> Option<Vec<(String, &Descriptor)>> {
    let Named::Manifest(manifest) = named else { return None };
    if *manifest.config().media_type() != MediaType::EmptyJSON && manifest.artifact_type().is_none() {
        return None;
    }
    let titled: Vec<_> = manifest.layers().iter().filter_map(|layer| Some((title(layer)?, layer))).collect();
    (!titled.is_empty()).then_some(titled)
}

/// The last part of a layer's title: a publisher must not choose a directory on the machine that pulls.
fn title(layer: &Descriptor) -> Option<String> {
    let title = layer.annotations().as_ref()?.get(ANNOTATION_TITLE)?;
    Some(Path::new(title).file_name()?.to_str()?.to_owned())
}

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
const EMPTY: &[u8] = b"{}";
const LAYER_TYPE: &str = "application/octet-stream";
/// What other clients say where the publisher names no type.
const UNKNOWN_TYPE: &str = "application/vnd.unknown.artifact.v1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_an_artifact_and_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("disk.qcow2");
        std::fs::write(&path, b"bytes").expect("written");
        let annotations =
            BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
        let bundle = read_file(&path, Some("application/x-disk"), &annotations).expect("a bundle");
        let again = read_file(&path, Some("application/x-disk"), &annotations).expect("a bundle");
        let top = bundle.top().expect("one");
        assert_eq!(top.digest, again.top().expect("one").digest, "equal input, equal digest");
        let named = top.named().expect("valid");
        let files = files_of(&named).expect("files");
        assert_eq!(files.len(), 1);
        assert_eq!(files[0].0, "disk.qcow2");
        assert_eq!(files[0].1.size(), 5);
        assert_eq!(
            bundle.blobs[1].digest.to_string(),
            "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
    }

    #[test]
    fn titles_cannot_lead_elsewhere() {
        let layer = |title: &str| -> Descriptor {
            serde_json::from_value(serde_json::json!({
                "mediaType": "m", "size": 1, "digest": format!("sha256:{}", "ab".repeat(32)),
                "annotations": { ANNOTATION_TITLE: title },
            }))
            .expect("a descriptor")
        };
        assert_eq!(title(&layer("../../etc/passwd")).as_deref(), Some("passwd"));
        assert_eq!(title(&layer("/a/b")).as_deref(), Some("b"));
        assert_eq!(title(&layer("..")), None);
    }
}
