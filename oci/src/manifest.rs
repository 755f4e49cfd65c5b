//! OCI and Docker manifests as artifact indexes: reads a manifest's JSON, says what it names and in which
//! role, and checks that what must be present is. Storing and publishing is the caller's.

use std::collections::BTreeMap;

use oci_spec::image::MediaType;
use serde::Deserialize;
use waystation_proto::{
    Digest, Hash,
    index::{ArtifactIndex, Edge, EdgeKind},
};

/// A manifest that was understood; what it names has not been looked up yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    media_type: String,
    artifact_type: Option<String>,
    annotations: BTreeMap<String, String>,
    size: u64,
    edges: Vec<Edge>,
}

/// Why bytes are not a manifest that can be published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The bytes do not parse.
    #[error("the manifest is not JSON of the expected form: {0}")]
    Json(String),
    /// JSON, but of something else.
    #[error("not a manifest: {0}")]
    NotManifest(&'static str),
    /// Schema 1 or something from the future.
    #[error("schemaVersion must be 2; push an OCI or a Docker schema 2 manifest")]
    SchemaVersion,
    /// Media types that are malformed, or that contradict each other.
    #[error("{0}")]
    MediaType(String),
    /// A descriptor has no usable digest.
    #[error("a descriptor's digest is wrong: {0}")]
    Descriptor(String),
    /// More descriptors than an artifact index may have.
    #[error("the manifest names more than {} things", ArtifactIndex::MAX_EDGES)]
    TooManyEdges,
    /// A config or layer is not in the repository.
    #[error("{digest} is not in this repository; push it first, then the manifest")]
    UnknownBlob {
        /// Which.
        digest: Digest,
    },
    /// A descriptor's size is not that of the blob.
    #[error("the manifest gives {digest} a size of {declared} bytes, but it has {actual}")]
    Size {
        /// Which blob.
        digest: Digest,
        /// As the manifest says.
        declared: u64,
        /// As it is.
        actual: u64,
    },
}

/// Reads a manifest. `content_type` is what the client called it, parameters and all; generic types such
/// as `application/json` count as not given.
///
/// # Errors
/// All but [`ManifestError::UnknownBlob`] and [`ManifestError::Size`].
pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Parsed, ManifestError> {
    let document: Document =
        serde_json::from_slice(bytes).map_err(|error| ManifestError::Json(briefly(&error.to_string())))?;
    document.check_form()?;
    let media_type = document.media_type(content_type)?;
    let artifact_type = document.artifact_type()?;
    let annotations = document.annotations.as_ref().map(chosen).unwrap_or_default();
    let edges = document.edges()?;
    Ok(Parsed { media_type, artifact_type, annotations, size: bytes.len() as u64, edges })
}

impl Parsed {
    /// The manifest's media type, without parameters.
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// What it names, in its order.
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// Whether it names other manifests: an image index, or Docker's manifest list.
    pub fn is_list(&self) -> bool {
        self.media_type == DOCKER_LIST || MediaType::from(self.media_type.as_str()) == MediaType::ImageIndex
    }

    /// What the manifest calls the kind of artifact that it is, or its config's media type.
    pub fn artifact_type(&self) -> Option<&str> {
        self.artifact_type.as_deref()
    }

    /// The manifest that this one is about.
    pub fn subject(&self) -> Option<Digest> {
        self.edges.iter().find(|edge| edge.kind == EdgeKind::Subject).map(|edge| edge.digest)
    }

    /// Adds what it depends on, as far as an artifact index has room.
    pub fn depend_on(&mut self, edges: impl IntoIterator<Item = Edge>) {
        let room = ArtifactIndex::MAX_EDGES - self.edges.len();
        self.edges.extend(edges.into_iter().take(room));
    }

    /// The artifact index. `resolve` gives hash and size of a blob that the repository has. With `sparse`, configs
    /// and layers may be missing: their edges carry no hash then, and they are in no closure.
    ///
    /// # Errors
    /// [`ManifestError::UnknownBlob`], unless `sparse`, and [`ManifestError::Size`] for the first config or layer that does
    /// not fit.
    pub fn into_index(
        mut self,
        digest: Digest,
        hash: Hash,
        sparse: bool,
        resolve: impl Fn(&Digest) -> Option<(Hash, u64)>,
    ) -> Result<ArtifactIndex, ManifestError> {
        for edge in &mut self.edges {
            if !matches!(edge.kind, EdgeKind::Config | EdgeKind::Layer) {
                continue;
            }
            let (found, actual) = match resolve(&edge.digest) {
                Some(found) => found,
                None if sparse => continue,
                None => return Err(ManifestError::UnknownBlob { digest: edge.digest }),
            };
            if actual != edge.size {
                return Err(ManifestError::Size { digest: edge.digest, declared: edge.size, actual });
            }
            edge.hash = Some(found);
        }
        Ok(ArtifactIndex {
            manifest: digest,
            hash,
            size: self.size,
            media_type: self.media_type,
            artifact_type: self.artifact_type,
            annotations: self.annotations,
            edges: self.edges,
        })
    }
}

/// What is read of a manifest, of any kind. Not the `oci-spec` types: those refuse digests, platforms and
/// absent lists that registries have to take.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    blobs: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: Option<String>,
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

impl Document {
    /// That it is one kind of manifest and not two at a time: clients that disagree on what a document is
    /// would run different things under one digest (GHSA-qq97-vm5h-rrhg).
    fn check_form(&self) -> Result<(), ManifestError> {
        let image = self.config.is_some() || self.layers.is_some();
        let artifact = self.media_type.as_deref() == Some(MediaType::ArtifactManifest.as_ref());
        if self.manifests.is_some() && (image || self.blobs.is_some()) {
            return Err(ManifestError::NotManifest("it has both manifests and config, layers or blobs"));
        }
        if self.schema_version.unwrap_or(if artifact { 2 } else { 0 }) != 2 {
            return Err(ManifestError::SchemaVersion);
        }
        if self.manifests.is_none() && !image && !artifact {
            return Err(ManifestError::NotManifest("it has neither config nor manifests"));
        }
        if self.blobs.is_some() && !artifact {
            return Err(ManifestError::NotManifest("only the old artifact manifest has blobs"));
        }
        if image && self.config.is_none() {
            return Err(ManifestError::NotManifest("it has layers but no config"));
        }
        Ok(())
    }

    /// What it is called: by itself, else by the client, else by its form.
    fn media_type(&self, content_type: Option<&str>) -> Result<String, ManifestError> {
        let given = content_type
            .map(|given| given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
            .filter(|given| !given.is_empty() && !GENERIC_TYPES.contains(&given.as_str()));
        let is_list = self.manifests.is_some();
        let own = self.media_type.as_deref().filter(|own| !own.is_empty());
        let media_type = match (own, given) {
            (Some(own), Some(given)) if !own.eq_ignore_ascii_case(&given) => {
                return Err(ManifestError::MediaType(format!(
                    "the Content-Type is {given}, but the manifest calls itself {own}"
                )));
            }
            (Some(own), _) => own.to_owned(),
            (None, Some(given)) => given,
            (None, None) if is_list => MediaType::ImageIndex.to_string(),
            (None, None) => MediaType::ImageManifest.to_string(),
        };
        let expects_list = match media_type.as_str() {
            DOCKER_LIST => Some(true),
            DOCKER_MANIFEST => Some(false),
            other => match MediaType::from(other) {
                MediaType::ImageIndex => Some(true),
                MediaType::ImageManifest | MediaType::ArtifactManifest => Some(false),
                _ => None,
            },
        };
        if expects_list.is_some_and(|expected| expected != is_list) {
            return Err(ManifestError::MediaType(format!(
                "the manifest's content is not that of {media_type}"
            )));
        }
        checked_type(&media_type)
    }

    fn artifact_type(&self) -> Result<Option<String>, ManifestError> {
        let own = self.artifact_type.as_ref().filter(|text| !text.is_empty());
        let config = self.config.as_ref().and_then(|config| config.media_type.as_ref());
        own.or(config).filter(|text| !text.is_empty()).map(|text| checked_type(text)).transpose()
    }

    fn edges(self) -> Result<Vec<Edge>, ManifestError> {
        let layers = self.layers.into_iter().chain(self.blobs).flatten().map(|layer| {
            let foreign = layer.media_type.as_deref().is_some_and(is_foreign);
            (if foreign { EdgeKind::Foreign } else { EdgeKind::Layer }, layer)
        });
        let config = self.config.map(|config| (EdgeKind::Config, config));
        let children = self.manifests.into_iter().flatten().map(|child| (EdgeKind::Child, child));
        let subject = self.subject.map(|subject| (EdgeKind::Subject, subject));
        let all = config.into_iter().chain(layers).chain(children).chain(subject);
        let edges = all
            .take(ArtifactIndex::MAX_EDGES + 1)
            .map(|(kind, descriptor)| descriptor.into_edge(kind))
            .collect::<Result<Vec<_>, _>>()?;
        if edges.len() > ArtifactIndex::MAX_EDGES {
            return Err(ManifestError::TooManyEdges);
        }
        Ok(edges)
    }
}

impl Descriptor {
    fn into_edge(self, kind: EdgeKind) -> Result<Edge, ManifestError> {
        let digest = self
            .digest
            .parse()
            .map_err(|wrong| ManifestError::Descriptor(format!("{:.80}: {wrong}", self.digest)))?;
        let media_type = self.media_type.unwrap_or_default();
        if !media_type.is_empty() {
            checked_type(&media_type)?;
        }
        let platform = self.platform.and_then(Platform::into_text);
        Ok(Edge { kind, digest, hash: None, size: self.size, media_type, platform })
    }
}

impl Platform {
    /// `os/architecture[/variant]`, if it is usable as such.
    fn into_text(self) -> Option<String> {
        let plain = |part: &str| part.len() <= 64 && part.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
        let parts = [&self.os, &self.architecture, &self.variant];
        if self.os.is_empty() || self.architecture.is_empty() || !parts.iter().all(|part| plain(part)) {
            return None;
        }
        let end = if self.variant.is_empty() { 2 } else { 3 };
        Some(parts[..end].iter().map(|part| part.as_str()).collect::<Vec<_>>().join("/"))
    }
}

/// Whether a layer of this type is to be had elsewhere and not from registries.
fn is_foreign(media_type: &str) -> bool {
    media_type == DOCKER_FOREIGN_LAYER
        || matches!(
            MediaType::from(media_type),
            MediaType::ImageLayerNonDistributable
                | MediaType::ImageLayerNonDistributableGzip
                | MediaType::ImageLayerNonDistributableZstd
        )
}

/// A parser repeats what it met, which may be most of the manifest: the beginning says what was wrong and the end where.
fn briefly(text: &str) -> String {
    let count = text.chars().count();
    if count <= TEXT_MAX {
        return text.to_owned();
    }
    let beginning: String = text.chars().take(TEXT_MAX / 2).collect();
    let end: String = text.chars().skip(count - TEXT_MAX / 2).collect();
    format!("{beginning} … {end}")
}

/// Characters of an error that a parser gives.
const TEXT_MAX: usize = 400;

/// A media type that fits records and headers.
fn checked_type(media_type: &str) -> Result<String, ManifestError> {
    if media_type.len() > MAX_TYPE || !media_type.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        return Err(ManifestError::MediaType(format!(
            "a media type must be at most {MAX_TYPE} plain characters, not {media_type:.80?}"
        )));
    }
    Ok(media_type.to_owned())
}

/// The annotations that help people choose, cut to what an index keeps.
fn chosen(all: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    CHOSEN_ANNOTATIONS
        .iter()
        .map(|name| format!("org.opencontainers.image.{name}"))
        .filter_map(|key| all.get(&key).map(|value| (key, cut(value).to_owned())))
        .collect()
}

/// The start of a text, up to [`MAX_ANNOTATION`] bytes.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_ANNOTATION);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_FOREIGN_LAYER: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
/// What tools send as Content-Type when nobody told them one.
const GENERIC_TYPES: [&str; 4] =
    ["application/json", "application/octet-stream", "application/x-www-form-urlencoded", "text/plain"];
/// Keys under `org.opencontainers.image.` that an artifact index keeps; at most 16.
const CHOSEN_ANNOTATIONS: [&str; 7] =
    ["title", "version", "description", "created", "source", "revision", "ref.name"];
/// Longest annotation value kept, in bytes.
const MAX_ANNOTATION: usize = 256;
/// Longest media type in bytes, as records allow.
const MAX_TYPE: usize = 255;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    fn digest(n: u8) -> String {
        Digest::Sha256([n; 32]).to_string()
    }

    fn descriptor(media_type: &str, n: u8) -> Value {
        json!({"mediaType": media_type, "digest": digest(n), "size": n})
    }

    fn image() -> Value {
        json!({"schemaVersion": 2, "mediaType": IMAGE, "config": descriptor(CONFIG, 1), "layers": [descriptor(LAYER, 2)]})
    }

    fn with(mut document: Value, key: &str, value: Value) -> Value {
        document[key] = value;
        document
    }

    fn read(document: &Value, content_type: Option<&str>) -> Result<ArtifactIndex, ManifestError> {
        let bytes = document.to_string();
        let known = |digest: &Digest| Some((Hash([digest.bytes()[0]; 32]), u64::from(digest.bytes()[0])));
        parse(bytes.as_bytes(), content_type)?.into_index(
            Digest::Sha256([9; 32]),
            Hash([9; 32]),
            false,
            known,
        )
    }

    fn kinds(index: &ArtifactIndex) -> Vec<(EdgeKind, bool)> {
        index.edges.iter().map(|edge| (edge.kind.clone(), edge.hash.is_some())).collect()
    }

    #[test]
    fn image_manifest() {
        let document = with(
            image(),
            "annotations",
            json!({"org.opencontainers.image.title": "ü".repeat(200), "org.opencontainers.image.other": "x",
                   "org.opencontainers.image.ref.name": "v1"}),
        );
        let index = read(&document, Some(IMAGE)).expect("an image");
        assert_eq!(kinds(&index), [(EdgeKind::Config, true), (EdgeKind::Layer, true)]);
        assert_eq!(index.edges[1].hash, Some(Hash([2; 32])));
        assert_eq!(index.size, document.to_string().len() as u64);
        assert_eq!(index.media_type, IMAGE);
        assert_eq!(index.artifact_type.as_deref(), Some(CONFIG));
        assert_eq!(index.annotations.len(), 2);
        assert_eq!(index.annotations["org.opencontainers.image.title"], "ü".repeat(128));
    }

    #[test]
    fn index_with_platforms() {
        let mut child = descriptor(IMAGE, 3);
        child["platform"] = json!({"os": "linux", "architecture": "arm", "variant": "v7"});
        let mut odd = descriptor(IMAGE, 4);
        odd["platform"] = json!({"os": "linux", "architecture": "", "features": 1});
        let document = json!({"schemaVersion": 2, "manifests": [child, odd]});
        let index = read(&document, None).expect("an index");
        assert_eq!(kinds(&index), [(EdgeKind::Child, false), (EdgeKind::Child, false)]);
        assert_eq!(index.edges[0].platform.as_deref(), Some("linux/arm/v7"));
        assert_eq!(index.edges[1].platform, None);
        assert_eq!(index.media_type, INDEX);
        assert_eq!(index.artifact_type, None);
        let empty = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []});
        assert!(read(&empty, Some("application/json; charset=utf-8")).is_ok());
    }

    #[test]
    fn docker_types() {
        let document = json!({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [descriptor(DOCKER_MANIFEST, 3)]});
        assert_eq!(read(&document, Some(DOCKER_LIST)).expect("a list").media_type, DOCKER_LIST);
        let foreign = json!({"mediaType": DOCKER_FOREIGN_LAYER, "digest": digest(200), "size": 1, "urls": ["http://a.test"]});
        let document = json!({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST,
            "config": descriptor("application/vnd.docker.container.image.v1+json", 1), "layers": [foreign]});
        let index = read(&document, None).expect("an image");
        assert_eq!(kinds(&index), [(EdgeKind::Config, true), (EdgeKind::Foreign, false)]);
    }

    #[test]
    fn artifact_with_subject() {
        let document = with(image(), "subject", descriptor(IMAGE, 250));
        let document = with(document, "artifactType", json!("application/spdx+json"));
        let bytes = document.to_string();
        let parsed = parse(bytes.as_bytes(), None).expect("an artifact");
        assert_eq!(parsed.subject(), Some(Digest::Sha256([250; 32])));
        let index = read(&document, None).expect("an artifact");
        assert_eq!(index.artifact_type.as_deref(), Some("application/spdx+json"));
        assert_eq!(index.edges.last().map(|edge| (&edge.kind, edge.hash)), Some((&EdgeKind::Subject, None)));
        let no_layers = with(image(), "layers", Value::Null);
        assert_eq!(read(&no_layers, None).expect("no layers").edges.len(), 1);
    }

    #[test]
    fn old_artifact_manifest() {
        let media_type = MediaType::ArtifactManifest.to_string();
        let document =
            json!({"mediaType": media_type, "artifactType": "a/b", "blobs": [descriptor("c/d", 2)]});
        assert_eq!(kinds(&read(&document, None).expect("an artifact")), [(EdgeKind::Layer, true)]);
    }

    #[test]
    fn hostile_documents() {
        let is = |document: Value, content_type: Option<&str>, fits: fn(&ManifestError) -> bool| {
            let error = read(&document, content_type).expect_err("must be refused");
            assert!(fits(&error), "{document}: {error:?}");
        };
        is(json!([]), None, |e| matches!(e, ManifestError::Json(_)));
        is(json!({}), None, |e| matches!(e, ManifestError::SchemaVersion));
        is(json!({"schemaVersion": 2}), None, |e| matches!(e, ManifestError::NotManifest(_)));
        is(json!({"schemaVersion": 2, "layers": []}), None, |e| matches!(e, ManifestError::NotManifest(_)));
        is(with(image(), "schemaVersion", json!(1)), None, |e| matches!(e, ManifestError::SchemaVersion));
        is(with(image(), "manifests", json!([])), None, |e| matches!(e, ManifestError::NotManifest(_)));
        is(image(), Some(INDEX), |e| matches!(e, ManifestError::MediaType(_)));
        is(with(image(), "mediaType", json!(INDEX)), None, |e| matches!(e, ManifestError::MediaType(_)));
        is(with(image(), "mediaType", json!("a\r\nb")), None, |e| matches!(e, ManifestError::MediaType(_)));
        is(with(image(), "mediaType", json!("a".repeat(256))), None, |e| {
            matches!(e, ManifestError::MediaType(_))
        });
        is(with(image(), "annotations", json!({"a": 1})), None, |e| matches!(e, ManifestError::Json(_)));
        let layer = json!([{"mediaType": LAYER, "digest": "sha256:../../etc/passwd", "size": 1}]);
        is(with(image(), "layers", layer), None, |e| matches!(e, ManifestError::Descriptor(_)));
        let layer = json!([{"mediaType": LAYER, "digest": digest(1), "size": -1}]);
        is(with(image(), "layers", layer), None, |e| matches!(e, ManifestError::Json(_)));
        let layer = json!([{"mediaType": LAYER, "digest": digest(2), "size": 3}]);
        is(with(image(), "layers", layer), None, |e| matches!(e, ManifestError::Size { actual: 2, .. }));
        let many =
            json!({"schemaVersion": 2, "manifests": vec![descriptor("", 1); ArtifactIndex::MAX_EDGES + 1]});
        is(many, None, |e| *e == ManifestError::TooManyEdges);
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(matches!(parse(deep.as_bytes(), None), Err(ManifestError::Json(_))));
        assert!(matches!(parse(b"\xff\xfe", None), Err(ManifestError::Json(_))));
    }

    #[test]
    fn names_the_blob_that_is_missing() {
        let bytes = image().to_string();
        let parsed = parse(bytes.as_bytes(), None).expect("an image");
        let missing = Digest::Sha256([2; 32]);
        let resolve = |digest: &Digest| (*digest != missing).then_some((Hash([1; 32]), 1));
        let sparse = parsed.clone().into_index(Digest::Sha256([9; 32]), Hash([9; 32]), true, resolve);
        assert_eq!(sparse.map(|index| index.closure().count()), Ok(1));
        let result = parsed.into_index(Digest::Sha256([9; 32]), Hash([9; 32]), false, resolve);
        assert_eq!(result, Err(ManifestError::UnknownBlob { digest: missing }));
    }
}
