//! The data sets: blobs and manifests of every kind that registries have to take.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};

use crate::harness::image::{random_bytes, to_bytes};

pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const PLAIN_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const FOREIGN_LAYER: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// By what blobs and manifests are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Sha256,
    Sha512,
}

/// What is pushed together.
pub struct Set {
    pub name: &'static str,
    pub algorithm: Algorithm,
    /// In any order.
    pub blobs: Vec<Vec<u8>>,
    /// Blobs that manifests name and that are pushed after them, if ever.
    pub absent: Vec<Vec<u8>>,
    /// In the order in which they have to be pushed.
    pub manifests: Vec<Manifest>,
}

/// One manifest.
#[derive(Clone)]
pub struct Manifest {
    pub bytes: Vec<u8>,
    pub media_type: &'static str,
    /// Pushed by these tags; by digest only where there are none.
    pub tags: Vec<String>,
    /// Whether it is pushed by digest, with its tags as parameters.
    pub by_parameter: bool,
    pub subject: Option<String>,
    /// What a list of referrers has to say of it.
    pub artifact_type: Option<String>,
    pub annotations: Value,
}

impl Algorithm {
    pub const ALL: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    pub fn digest(self, bytes: &[u8]) -> String {
        let hex = match self {
            Algorithm::Sha256 => data_encoding::HEXLOWER.encode(&Sha256::digest(bytes)),
            Algorithm::Sha512 => data_encoding::HEXLOWER.encode(&Sha512::digest(bytes)),
        };
        format!("{}:{hex}", self.name())
    }
}

impl Manifest {
    fn new(document: &Value, tags: &[&str]) -> Self {
        let is_index = document["mediaType"] == INDEX;
        let of_config = (!is_index).then(|| document["config"]["mediaType"].clone());
        let artifact_type = match &document["artifactType"] {
            Value::Null => of_config.unwrap_or_default(),
            own => own.clone(),
        };
        Manifest {
            bytes: to_bytes(document),
            media_type: if is_index { INDEX } else { IMAGE },
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            by_parameter: false,
            subject: document["subject"]["digest"].as_str().map(str::to_owned),
            artifact_type: artifact_type.as_str().map(str::to_owned),
            annotations: document["annotations"].clone(),
        }
    }

    /// Its digest where the set is named by `algorithm`: pushes by tag make SHA-256 of it.
    pub fn digest(&self, algorithm: Algorithm) -> String {
        let by_tag = !self.tags.is_empty() && !self.by_parameter;
        if by_tag { Algorithm::Sha256 } else { algorithm }.digest(&self.bytes)
    }
}

/// A set that is being put together.
struct Builder {
    name: &'static str,
    algorithm: Algorithm,
    blobs: Vec<Vec<u8>>,
    seed: u64,
}

impl Builder {
    fn new(name: &'static str, algorithm: Algorithm) -> Self {
        let seed = name.bytes().fold(7, |seed, byte| (seed * 31 + u64::from(byte)) % 1_000_003);
        Builder { name, algorithm, blobs: vec![], seed }
    }

    fn blob(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let descriptor = describe(self.algorithm, media_type, &bytes);
        if !self.blobs.contains(&bytes) {
            self.blobs.push(bytes);
        }
        descriptor
    }

    fn random(&mut self, media_type: &str, size: usize) -> Value {
        self.seed += 1;
        self.blob(media_type, random_bytes(self.seed, size))
    }

    fn image(&mut self, layer_type: &str) -> Value {
        let config =
            json!({"architecture": "amd64", "os": "linux", "set": self.name, "rootfs": {"type": "layers"}});
        let config = self.blob(CONFIG, to_bytes(&config));
        let layers: Vec<_> = [2048, 300].iter().map(|size| self.random(layer_type, *size)).collect();
        json!({"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": layers})
    }

    fn artifact(&mut self, artifact_type: &str) -> Value {
        let config = self.blob(EMPTY, b"{}".to_vec());
        let layers = [self.random("application/vnd.example.content", 100)];
        json!({"schemaVersion": 2, "mediaType": IMAGE, "artifactType": artifact_type, "config": config, "layers": layers})
    }

    fn done(self, manifests: Vec<Manifest>) -> Set {
        Set { name: self.name, algorithm: self.algorithm, blobs: self.blobs, absent: vec![], manifests }
    }

    fn describe(&self, document: &Value) -> Value {
        let media_type = document["mediaType"].as_str().expect("has one");
        describe(self.algorithm, media_type, &to_bytes(document))
    }
}

/// All data sets, and those of them that can be named by SHA-512 once more so.
pub fn sets() -> Vec<Set> {
    use Algorithm::{Sha256, Sha512};
    let mut all = vec![
        image("image", Sha256, |set| set.image(LAYER)),
        image("image-uncompressed", Sha256, |set| set.image(PLAIN_LAYER)),
        image("large-manifest", Sha256, large),
        index("index", Sha256),
        nested(),
        image("empty-index", Sha256, |_| json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []})),
        image("artifact", Sha256, |set| set.artifact("application/vnd.example.artifact")),
        artifact_index(),
        image("artifact-without-layers", Sha256, without_layers),
        subjects("artifacts-with-subject", Sha256, false),
        subjects("index-with-subject", Sha256, true),
        missing_subject(),
        image("data-field", Sha256, data_field),
        image("non-distributable-layers", Sha256, foreign),
        image("custom-fields", Sha256, custom),
        image("no-layers", Sha256, no_layers),
        sparse(),
        index("index-sha512", Sha512),
        subjects("artifacts-with-subject-sha512", Sha512, false),
    ];
    all.extend([Sha256, Sha512].map(by_parameter));
    all
}

fn image(name: &'static str, algorithm: Algorithm, make: impl FnOnce(&mut Builder) -> Value) -> Set {
    let mut set = Builder::new(name, algorithm);
    let document = make(&mut set);
    set.done(vec![Manifest::new(&document, &[name])])
}

fn large(set: &mut Builder) -> Value {
    let mut document = set.image(LAYER);
    let filler = "x".repeat(10_000);
    let annotations = (0..390).map(|n| (format!("org.example.{n}"), Value::from(filler.clone())));
    document["annotations"] = Value::Object(annotations.collect());
    document
}

fn without_layers(set: &mut Builder) -> Value {
    let mut document = set.artifact("application/vnd.example.bare");
    document["layers"] = json!([set.blob(EMPTY, b"{}".to_vec())]);
    set.blobs.truncate(1);
    document
}

fn data_field(set: &mut Builder) -> Value {
    let mut document = set.image(LAYER);
    let mut inline = set.blob("application/vnd.example.data", b"hello".to_vec());
    inline["data"] = "aGVsbG8=".into();
    document["layers"][1] = inline;
    set.blobs.remove(2);
    document
}

fn foreign(set: &mut Builder) -> Value {
    let mut document = set.image(LAYER);
    let mut elsewhere = describe(Algorithm::Sha256, FOREIGN_LAYER, b"is not here");
    elsewhere["urls"] = json!(["https://layers.example.test/1"]);
    document["layers"].as_array_mut().expect("a list").push(elsewhere);
    document
}

fn custom(set: &mut Builder) -> Value {
    let mut document = set.image(LAYER);
    document["org.example.custom"] = json!({"nested": [1, 2.5, null]});
    document["config"]["org.example.custom"] = json!("x");
    document["layers"][0]["platform"] = json!({"os": 1.to_string(), "architecture": ""});
    document
}

fn no_layers(set: &mut Builder) -> Value {
    let mut document = set.image(LAYER);
    document["layers"] = json!([]);
    set.blobs.truncate(1);
    document
}

fn index(name: &'static str, algorithm: Algorithm) -> Set {
    let mut set = Builder::new(name, algorithm);
    let (mut children, mut manifests) = (vec![], vec![]);
    for architecture in ["amd64", "arm64"] {
        let image = set.image(LAYER);
        let mut child = set.describe(&image);
        child["platform"] = json!({"os": "linux", "architecture": architecture});
        children.push(child);
        manifests.push(Manifest::new(&image, &[]));
    }
    let top = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children});
    manifests.push(Manifest::new(&top, &[name]));
    set.done(manifests)
}

fn nested() -> Set {
    let mut set = Builder::new("nested-index", Algorithm::Sha256);
    let image = set.image(LAYER);
    let inner = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [set.describe(&image)]});
    let top = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [set.describe(&inner)]});
    let manifests = vec![
        Manifest::new(&image, &[]),
        Manifest::new(&inner, &[]),
        Manifest::new(&top, &["nested", "nested-2"]),
    ];
    set.done(manifests)
}

fn artifact_index() -> Set {
    let mut set = Builder::new("artifact-index", Algorithm::Sha256);
    let artifact = set.artifact("application/vnd.example.part");
    let top = json!({"schemaVersion": 2, "mediaType": INDEX, "artifactType": "application/vnd.example.list",
        "manifests": [set.describe(&artifact)]});
    set.done(vec![Manifest::new(&artifact, &[]), Manifest::new(&top, &["artifact-index"])])
}

/// A subject with several referrers.
fn subjects(name: &'static str, algorithm: Algorithm, is_index: bool) -> Set {
    let mut set = Builder::new(name, algorithm);
    let image = set.image(LAYER);
    let mut manifests = vec![Manifest::new(&image, &[])];
    for (n, artifact_type) in
        ["application/vnd.example.sbom", "application/vnd.example.sig"].iter().enumerate()
    {
        let mut referrer = set.artifact(artifact_type);
        referrer["subject"] = set.describe(&image);
        referrer["annotations"] = json!({"org.example.n": n.to_string(), "org.example.of": name});
        manifests.push(Manifest::new(&referrer, &[]));
    }
    if is_index {
        let mut list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [set.describe(&image)]});
        list["subject"] = set.describe(&image);
        manifests.push(Manifest::new(&list, &[name]));
    } else {
        // Without a type of its own: that of its config counts.
        let mut untyped = set.image(LAYER);
        untyped["subject"] = set.describe(&image);
        manifests.push(Manifest::new(&untyped, &[name]));
    }
    set.done(manifests)
}

fn missing_subject() -> Set {
    image("missing-subject", Algorithm::Sha256, |set| {
        let mut document = set.artifact("application/vnd.example.orphan");
        document["subject"] = describe(Algorithm::Sha256, IMAGE, b"was never pushed");
        document
    })
}

/// An index of which only one child is there.
fn sparse() -> Set {
    let mut set = Builder::new("sparse", Algorithm::Sha256);
    let image = set.image(LAYER);
    let absent = describe(Algorithm::Sha256, IMAGE, b"is not here");
    let top = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [absent, set.describe(&image)]});
    set.done(vec![Manifest::new(&image, &[]), Manifest::new(&top, &["sparse"])])
}

/// Images of which layers are not there, or nothing is: what registries that take sparse images have to take.
pub fn sparse_images() -> Vec<Set> {
    use Algorithm::{Sha256, Sha512};
    let mut all = vec![];
    for (name, algorithm, kept) in
        [("sparse-image", Sha256, 2), ("bare-image", Sha256, 0), ("sparse-image-sha512", Sha512, 1)]
    {
        let mut set = Builder::new(name, algorithm);
        let image = set.image(LAYER);
        let mut referrer = set.artifact("application/vnd.example.of-sparse");
        referrer["subject"] = set.describe(&image);
        // What is kept of the image, and all of what refers to it.
        let absent: Vec<_> = set.blobs.drain(kept..3).collect();
        let manifests = vec![Manifest::new(&image, &[name]), Manifest::new(&referrer, &[])];
        all.push(Set { absent, ..set.done(manifests) });
    }
    all
}

fn by_parameter(algorithm: Algorithm) -> Set {
    let name = if algorithm == Algorithm::Sha256 { "tag-param-sha256" } else { "tag-param-sha512" };
    let mut set = image(name, algorithm, |set| set.image(LAYER));
    set.manifests[0].tags = (0..10).map(|n| format!("{name}-{n}")).collect();
    set.manifests[0].by_parameter = true;
    set
}

fn describe(algorithm: Algorithm, media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": algorithm.digest(bytes), "size": bytes.len()})
}
