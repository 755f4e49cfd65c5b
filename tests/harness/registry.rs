//! What an OCI client does, over [`Http`]: pushes by every form of upload, pulls and checks every byte.

use super::{
    http::{Http, Response},
    image::{Image, MANIFEST_TYPE, digest},
    wait::until_true,
};

/// A node's OCI endpoint.
#[derive(Clone, Debug)]
pub struct Registry {
    pub http: Http,
}

/// The ways to upload a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upload {
    /// POST with the digest and the bytes.
    Post,
    /// POST, then PUT with the bytes.
    Put,
    /// POST, PATCHes with Content-Range, PUT.
    Chunks,
    /// POST, one PATCH of unknown length, PUT.
    Stream,
}

/// What was pulled: every byte matched its digest.
pub struct Pulled {
    pub manifest: Vec<u8>,
    pub digest: String,
    /// Config, then layers.
    pub blobs: Vec<Vec<u8>>,
}

impl Upload {
    pub const ALL: [Upload; 4] = [Upload::Post, Upload::Put, Upload::Chunks, Upload::Stream];
}

impl Registry {
    pub fn new(address: &str) -> Self {
        Registry { http: Http::new(address) }
    }

    /// Pushes blobs and manifest, and a tag; panics unless all are accepted.
    #[track_caller]
    pub fn push(&self, repository: &str, tag: &str, image: &Image) {
        self.push_by(Upload::Put, repository, tag, image);
    }

    #[track_caller]
    pub fn push_by(&self, form: Upload, repository: &str, tag: &str, image: &Image) {
        for blob in image.blobs() {
            self.push_blob(form, repository, blob).expect(201);
        }
        let answer = self.push_manifest(repository, tag, &image.manifest).expect(201);
        assert_eq!(answer.header("docker-content-digest"), Some(&*image.digest()));
    }

    /// Uploads a blob; the answer is the last one.
    #[track_caller]
    pub fn push_blob(&self, form: Upload, repository: &str, bytes: &[u8]) -> Response {
        let target = format!("/v2/{repository}/blobs/uploads/");
        let digest = digest(bytes);
        if form == Upload::Post {
            let target = format!("{target}?digest={digest}");
            let octets = ("Content-Type", "application/octet-stream");
            return self.http.request("POST", &target).header(octets.0, octets.1).body(bytes).send();
        }
        let session = self.http.request("POST", &target).send().expect(202).location();
        let (session, rest) = match form {
            Upload::Put | Upload::Post => (session, bytes),
            Upload::Stream => {
                let answer = self.http.request("PATCH", &session).chunked(bytes).send().expect(202);
                (answer.location(), &[][..])
            }
            Upload::Chunks => (self.patch_in_chunks(session, bytes), &[][..]),
        };
        self.http.request("PUT", &with_query(&session, &format!("digest={digest}"))).body(rest).send()
    }

    /// PUTs a manifest under a tag or digest.
    #[track_caller]
    pub fn push_manifest(&self, repository: &str, reference: &str, manifest: &[u8]) -> Response {
        self.http
            .request("PUT", &format!("/v2/{repository}/manifests/{reference}"))
            .header("Content-Type", MANIFEST_TYPE)
            .body(manifest)
            .send()
    }

    /// Pulls manifest, config and layers; panics where a byte is not what its name says.
    #[track_caller]
    pub fn pull(&self, repository: &str, reference: &str) -> Pulled {
        let answer = self.manifest(repository, reference).expect(200);
        let actual = digest(&answer.body);
        assert_eq!(answer.header("docker-content-digest"), Some(&*actual), "{repository}:{reference}");
        assert_eq!(answer.header("content-type"), Some(MANIFEST_TYPE), "{repository}:{reference}");
        if reference.contains(':') {
            assert_eq!(actual, reference, "a manifest under a wrong digest");
        }
        let manifest = answer.json();
        let layers = manifest["layers"].as_array().unwrap().iter();
        let digests =
            std::iter::once(&manifest["config"]).chain(layers).map(|d| d["digest"].as_str().unwrap());
        let blobs = digests.map(|wanted| {
            let blob = self.http.get(&format!("/v2/{repository}/blobs/{wanted}")).send().expect(200).body;
            assert_eq!(digest(&blob), wanted, "a blob under a wrong digest");
            blob
        });
        let blobs = blobs.collect();
        Pulled { digest: actual, blobs, manifest: answer.body }
    }

    /// Pulls by tag and by digest, and checks that this image came.
    #[track_caller]
    pub fn assert_has(&self, repository: &str, tag: &str, image: &Image) {
        for reference in [tag, &image.digest()] {
            let pulled = self.pull(repository, reference);
            assert_eq!(pulled.digest, image.digest(), "{repository}:{reference}");
            assert_eq!(pulled.manifest, image.manifest, "{repository}:{reference}");
            assert!(pulled.blobs.iter().eq(image.blobs()), "{repository}:{reference}: other blobs");
        }
    }

    /// Waits until the tag points at this image here.
    #[track_caller]
    pub fn wait_for_tag(&self, repository: &str, tag: &str, image: &Image) {
        self.wait_for_digest(repository, tag, &image.digest());
    }

    /// Waits until the tag points at this digest here.
    #[track_caller]
    pub fn wait_for_digest(&self, repository: &str, tag: &str, digest: &str) {
        let target = format!("/v2/{repository}/manifests/{tag}");
        until_true(&format!("{repository}:{tag} is visible at {:?}", self.http), || {
            self.http.head(&target).header("Accept", ACCEPTED).try_send().is_ok_and(|answer| {
                answer.status == 200 && answer.header("docker-content-digest") == Some(digest)
            })
        });
    }

    pub fn manifest(&self, repository: &str, reference: &str) -> Response {
        let target = format!("/v2/{repository}/manifests/{reference}");
        self.http.get(&target).header("Accept", MANIFEST_TYPE).send()
    }

    pub fn head_blob(&self, repository: &str, digest: &str) -> Response {
        self.http.head(&format!("/v2/{repository}/blobs/{digest}")).send()
    }

    #[track_caller]
    pub fn tags(&self, repository: &str) -> Vec<String> {
        let list = self.http.get(&format!("/v2/{repository}/tags/list")).send().expect(200).json();
        list["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect()
    }

    #[track_caller]
    fn patch_in_chunks(&self, mut session: String, bytes: &[u8]) -> String {
        let size = bytes.len().div_ceil(3).max(1);
        let mut sent = 0;
        for chunk in bytes.chunks(size) {
            let last = sent + chunk.len() - 1;
            let answer = self
                .http
                .request("PATCH", &session)
                .header("Content-Range", &format!("{sent}-{last}"))
                .header("Content-Type", "application/octet-stream")
                .body(chunk)
                .send()
                .expect(202);
            assert_eq!(answer.header("range"), Some(&*format!("0-{last}")));
            session = answer.location();
            sent += chunk.len();
        }
        session
    }
}

pub fn with_query(target: &str, query: &str) -> String {
    let separator = if target.contains('?') { '&' } else { '?' };
    format!("{target}{separator}{query}")
}

/// Types of manifests that clients push.
const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                        application/vnd.docker.distribution.manifest.v2+json";
