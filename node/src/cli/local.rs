//! Talks to a registry as a client: over a node's local socket, or over TCP. Owns requests and what their
//! answers mean; which blobs to move is push's and pull's.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use reqwest::{Body, Method, Response, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};
use sha2::Digest as _;
use waystation_proto::{Digest, RepoName};

use super::Failure;
use crate::{api::ApiProblem, socket};

/// A client of one registry.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    /// Whose local socket this is; absent over TCP.
    data_dir: Option<PathBuf>,
}

/// A manifest as a registry gave it, with the digest that its bytes have.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The bytes.
    pub bytes: bytes::Bytes,
    /// As answered, else as the bytes say.
    pub media_type: String,
    /// Computed here.
    pub digest: Digest,
}

impl Client {
    /// A client of the node with this data directory, over its local socket.
    pub fn local(data_dir: &Path) -> Result<Self, Failure> {
        let http = build(reqwest::Client::builder().unix_socket(socket::locate(data_dir)))?;
        Ok(Client { http, base: "http://localhost".into(), data_dir: Some(data_dir.to_owned()) })
    }

    /// A client of an endpoint `host:port`, over plain HTTP.
    pub fn tcp(endpoint: &str) -> Result<Self, Failure> {
        let http = build(reqwest::Client::builder())?;
        Ok(Client { http, base: format!("http://{endpoint}"), data_dir: None })
    }

    /// `GET /api/v1/<path>` of the local API.
    pub async fn ask<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T, Failure> {
        let mut url = self.url(&format!("/api/v1/{path}"))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        read_answer(self.send(self.http.get(url)).await?).await
    }

    /// `GET /api/v1/<path>` of the local API, for an answer that comes bit by bit.
    pub async fn stream(&self, path: &str, query: &[(&str, &str)]) -> Result<Response, Failure> {
        let mut url = self.url(&format!("/api/v1/{path}"))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let answer = self.send(self.http.get(url)).await?;
        match answer.status() {
            status if status.is_success() => Ok(answer),
            status => {
                let said = bounded(answer, ERROR_MAX).await.unwrap_or_default();
                let said =
                    format!("the node answered {status}: {}", String::from_utf8_lossy(&said).trim_end());
                Err(if status == StatusCode::BAD_REQUEST {
                    Failure::Usage(said)
                } else {
                    Failure::Failed(anyhow!(said))
                })
            }
        }
    }

    /// `POST /api/v1/<path>` of the local API.
    pub async fn tell<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, Failure> {
        let url = self.url(&format!("/api/v1/{path}"))?;
        read_answer(self.send(self.http.post(url).json(body)).await?).await
    }

    /// The manifest behind a tag or digest, with the digest of what came; `None` where there is none.
    pub async fn manifest(&self, repository: &RepoName, target: &str) -> Result<Option<Manifest>, Failure> {
        let url = self.url(&format!("/v2/{repository}/manifests/{target}"))?;
        let answer = self.send(self.http.get(url).header(header::ACCEPT, ACCEPTED)).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = success(answer, &format!("the manifest {repository} {target}")).await?;
        let media_type = answer
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let bytes = bounded(answer, MANIFEST_MAX).await?;
        let digest = match target.parse() {
            Ok(named @ Digest::Sha512(_)) if digest_like(&named, &bytes) == named => named,
            _ => digest_of(&bytes),
        };
        if target.parse::<Digest>().is_ok_and(|named| named != digest) {
            return Err(anyhow!("the answer for manifest {target} has digest {digest}").into());
        }
        Ok(Some(Manifest { bytes, media_type, digest }))
    }

    /// Whether the repository has this blob.
    pub async fn has_blob(&self, repository: &RepoName, digest: &Digest) -> Result<bool, Failure> {
        let url = self.url(&format!("/v2/{repository}/blobs/{digest}"))?;
        let answer = self.send(self.http.request(Method::HEAD, url)).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(false),
            _ => success(answer, &format!("blob {digest}")).await.map(|_| true),
        }
    }

    /// The bytes of a blob, not verified yet.
    pub async fn blob(&self, repository: &RepoName, digest: &Digest) -> Result<Response, Failure> {
        let url = self.url(&format!("/v2/{repository}/blobs/{digest}"))?;
        let answer = self.send(self.http.get(url)).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Err(Failure::NotFound(format!("{repository} has no blob {digest} that can be had now")));
        }
        success(answer, &format!("blob {digest}")).await
    }

    /// Uploads a blob: one session, one body.
    pub async fn upload(
        &self,
        repository: &RepoName,
        digest: &Digest,
        size: u64,
        body: Body,
    ) -> Result<(), Failure> {
        let start = self.url(&format!("/v2/{repository}/blobs/uploads/"))?;
        let answer = self.send(self.http.post(start.clone()).header(header::CONTENT_LENGTH, 0)).await?;
        let answer = success(answer, &format!("an upload into {repository}")).await?;
        let location = answer
            .headers()
            .get(header::LOCATION)
            .and_then(|value| value.to_str().ok())
            .context("the registry opened an upload without saying where")?;
        // It may name another host than the socket's; only path and query count.
        let mut put = start.join(location).context("the registry named a place that is no URL")?;
        put.query_pairs_mut().append_pair("digest", &digest.to_string());
        let path = match put.query() {
            Some(query) => format!("{}?{query}", put.path()),
            None => put.path().to_owned(),
        };
        let request = self
            .http
            .put(self.url(&path)?)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_LENGTH, size)
            .body(body);
        success(self.send(request).await?, &format!("blob {digest}")).await.map(|_| ())
    }

    /// Puts a manifest under a tag or its digest.
    pub async fn put_manifest(
        &self,
        repository: &RepoName,
        target: &str,
        media_type: &str,
        bytes: bytes::Bytes,
    ) -> Result<(), Failure> {
        let url = self.url(&format!("/v2/{repository}/manifests/{target}"))?;
        let request = self.http.put(url).header(header::CONTENT_TYPE, media_type).body(bytes);
        success(self.send(request).await?, &format!("{repository}:{target}")).await.map(|_| ())
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, Failure> {
        request.send().await.map_err(|e| match &self.data_dir {
            Some(dir) if e.is_connect() => Failure::NotRunning(dir.clone()),
            _ => Failure::Failed(anyhow::Error::new(e).context(format!("{} did not answer", self.base))),
        })
    }

    fn url(&self, path: &str) -> Result<reqwest::Url, Failure> {
        format!("{}{path}", self.base)
            .parse()
            .map_err(|e| Failure::Usage(format!("{}{path} is not a URL: {e}", self.base)))
    }
}

/// No proxy: everything that is asked is on this machine or named by its address.
fn build(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, Failure> {
    // Nothing here speaks TLS, but reqwest is built with it and makes no client without a provider. It
    // stays if another part was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    builder.no_proxy().build().map_err(|e| Failure::Failed(e.into()))
}

/// The sha256 digest of these bytes.
pub fn digest_of(bytes: &[u8]) -> Digest {
    Digest::Sha256(sha2::Sha256::digest(bytes).into())
}

fn digest_like(named: &Digest, bytes: &[u8]) -> Digest {
    match named {
        Digest::Sha256(_) => digest_of(bytes),
        Digest::Sha512(_) => Digest::Sha512(sha2::Sha512::digest(bytes).into()),
    }
}

async fn read_answer<T: DeserializeOwned>(answer: Response) -> Result<T, Failure> {
    let status = answer.status();
    let body = bounded(answer, ANSWER_MAX).await?;
    if status.is_success() {
        return serde_json::from_slice(&body)
            .context("the node's answer is not understood; is it of another version than this command?")
            .map_err(Failure::Failed);
    }
    let problem = serde_json::from_slice::<ApiProblem>(&body)
        .map_or_else(|_| format!("the node answered {status}"), |problem| problem.error);
    Err(match status {
        StatusCode::NOT_FOUND => Failure::NotFound(problem),
        StatusCode::BAD_REQUEST => Failure::Usage(problem),
        _ => Failure::Failed(anyhow!(problem)),
    })
}

/// The answer if it is a success, else what the registry says is wrong (distribution-spec, "Error Codes").
async fn success(answer: Response, what: &str) -> Result<Response, Failure> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body = bounded(answer, ERROR_MAX).await.unwrap_or_default();
    let errors: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let first = &errors["errors"][0];
    let said = match (first["message"].as_str(), first["detail"].as_str()) {
        (Some(message), Some(detail)) => format!("{message}: {detail}"),
        (Some(message), None) => message.to_owned(),
        _ => status.to_string(),
    };
    let said = format!("{what} was refused: {said}");
    // No grant, or one that has ended: somebody has to set that right before it can work.
    Err(if status == StatusCode::FORBIDDEN { Failure::Usage(said) } else { Failure::Failed(anyhow!(said)) })
}

async fn bounded(mut answer: Response, max: usize) -> Result<bytes::Bytes, anyhow::Error> {
    let mut body = bytes::BytesMut::new();
    while let Some(chunk) = answer.chunk().await.context("the answer ended early")? {
        if body.len() + chunk.len() > max {
            bail!("the answer is larger than {max} bytes");
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Every type of manifest that is understood here.
const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                        application/vnd.docker.distribution.manifest.v2+json, \
                        application/vnd.docker.distribution.manifest.list.v2+json";
/// The largest manifest that registries must take (distribution-spec, "Pushing Manifests").
pub const MANIFEST_MAX: usize = 4 * 1024 * 1024;
/// An answer of the local API.
const ANSWER_MAX: usize = 64 * 1024 * 1024;
/// An error in words.
const ERROR_MAX: usize = 64 * 1024;
