//! Which endpoint a request's path means. Repository names contain slashes and may look like endpoints
//! themselves, so paths are read by hand and from the right. Nothing that leaves here is unchecked text.

use waystation_proto::{Digest, RepoName, Tag};

use super::error::{ApiError, Code};
use crate::metrics::RouteLabel;

/// An endpoint of the distribution spec, with its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/v2/`: whether this is a registry.
    Base,
    /// `/v2/_catalog`: the repositories.
    Catalog,
    /// `/v2/<name>/tags/list`.
    Tags(RepoName),
    /// `/v2/<name>/manifests/<tag or digest>`.
    Manifest(RepoName, Reference),
    /// `/v2/<name>/blobs/<digest>`.
    Blob(RepoName, Digest),
    /// `/v2/<name>/blobs/uploads/`.
    Uploads(RepoName),
    /// `/v2/<name>/blobs/uploads/<id>`.
    Upload(RepoName, String),
    /// `/v2/<name>/referrers/<digest>`.
    Referrers(RepoName, Digest),
}

/// What names a manifest in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// By name.
    Tag(Tag),
    /// By content.
    Digest(Digest),
}

impl Route {
    /// Reads a raw path, percent-encoded as it came.
    ///
    /// # Errors
    /// 404 for paths outside the API, 400 for names and digests that cannot exist.
    pub fn parse(raw: &str) -> Result<Self, ApiError> {
        if raw.len() > MAX_PATH {
            return Err(ApiError::bad(
                Code::NameInvalid,
                format!("the path is longer than {MAX_PATH} bytes"),
            ));
        }
        let path = decode(raw)?;
        let rest = match path.strip_prefix("/v2") {
            Some("" | "/") => return Ok(Route::Base),
            Some("/_catalog") => return Ok(Route::Catalog),
            Some(rest) => rest.strip_prefix('/'),
            None => None,
        };
        let parts: Vec<&str> = rest.ok_or_else(|| elsewhere(&path))?.split('/').collect();
        match *parts.as_slice() {
            [ref name @ .., "tags", "list"] => Ok(Route::Tags(repository(name)?)),
            [ref name @ .., "manifests", reference] => {
                Ok(Route::Manifest(repository(name)?, Reference::parse(reference)?))
            }
            [ref name @ .., "blobs", "uploads"] | [ref name @ .., "blobs", "uploads", ""] => {
                Ok(Route::Uploads(repository(name)?))
            }
            [ref name @ .., "blobs", "uploads", id] => Ok(Route::Upload(repository(name)?, upload(id)?)),
            [ref name @ .., "blobs", wanted] => Ok(Route::Blob(repository(name)?, digest(wanted)?)),
            [ref name @ .., "referrers", subject] => {
                Ok(Route::Referrers(repository(name)?, digest(subject)?))
            }
            _ => Err(elsewhere(&path)),
        }
    }

    /// How requests to it are counted.
    pub fn label(&self) -> RouteLabel {
        match self {
            Route::Base => RouteLabel::Base,
            Route::Catalog => RouteLabel::Catalog,
            Route::Tags(_) => RouteLabel::Tags,
            Route::Manifest(..) => RouteLabel::Manifest,
            Route::Blob(..) => RouteLabel::Blob,
            Route::Uploads(_) | Route::Upload(..) => RouteLabel::Upload,
            Route::Referrers(..) => RouteLabel::Referrers,
        }
    }
}

impl Reference {
    /// A tag, or a digest if there is a colon in it.
    ///
    /// # Errors
    /// 400 where it is neither.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        if text.contains(':') {
            return digest(text).map(Reference::Digest);
        }
        text.parse()
            .map(Reference::Tag)
            .map_err(|wrong| ApiError::bad(Code::ManifestInvalid, format!("{text:?}: {wrong}")))
    }
}

/// A digest of an algorithm that is served here.
///
/// # Errors
/// 400 DIGEST_INVALID.
pub fn digest(text: &str) -> Result<Digest, ApiError> {
    text.parse().map_err(|wrong| ApiError::bad(Code::DigestInvalid, format!("{text:.100?}: {wrong}")))
}

fn repository(parts: &[&str]) -> Result<RepoName, ApiError> {
    let name = parts.join("/");
    name.parse().map_err(|wrong| ApiError::bad(Code::NameInvalid, format!("{name:?}: {wrong}")))
}

fn upload(id: &str) -> Result<String, ApiError> {
    let plain = id.len() <= MAX_UPLOAD_ID && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !plain {
        return Err(ApiError::new(404, Code::BlobUploadUnknown, "no such upload"));
    }
    Ok(id.to_owned())
}

fn elsewhere(path: &str) -> ApiError {
    ApiError::new(404, Code::Unsupported, format!("{path:?} is not a path of the OCI distribution API"))
}

/// Undoes percent-encoding, once. What it gives is checked as names, so that no escape is dangerous.
fn decode(raw: &str) -> Result<String, ApiError> {
    let wrong = || ApiError::bad(Code::NameInvalid, "the path's percent-encoding is broken");
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = after;
            continue;
        }
        let (hex, after) = after.split_at_checked(2).ok_or_else(wrong)?;
        let decoded = data_encoding::HEXLOWER_PERMISSIVE.decode(hex).map_err(|_| wrong())?;
        bytes.extend(decoded);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

/// Longest path in bytes: the longest name and a sha512 digest, every byte percent-encoded, stay below.
const MAX_PATH: usize = 2048;
/// Longest upload id: a UUID has 36 bytes.
const MAX_UPLOAD_ID: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> RepoName {
        text.parse().expect("valid name")
    }

    #[test]
    fn endpoints() {
        let hex = "ab".repeat(32);
        let digest: Digest = format!("sha256:{hex}").parse().expect("valid digest");
        let long: Digest = format!("sha512:{hex}{hex}").parse().expect("valid digest");
        let tag = |text: &str| Reference::Tag(text.parse().expect("valid tag"));
        let table = [
            ("/v2".to_owned(), Route::Base),
            ("/v2/".to_owned(), Route::Base),
            ("/v2/_catalog".to_owned(), Route::Catalog),
            ("/v2/a/tags/list".to_owned(), Route::Tags(name("a"))),
            ("/v2/a/b/c/tags/list".to_owned(), Route::Tags(name("a/b/c"))),
            ("/v2/a/manifests/v1.2_x".to_owned(), Route::Manifest(name("a"), tag("v1.2_x"))),
            (format!("/v2/a/manifests/sha256:{hex}"), Route::Manifest(name("a"), Reference::Digest(digest))),
            (
                format!("/v2/a/manifests/sha256%3A{hex}"),
                Route::Manifest(name("a"), Reference::Digest(digest)),
            ),
            (format!("/v2/a%2fb/blobs/sha512:{hex}{hex}"), Route::Blob(name("a/b"), long)),
            ("/v2/a/blobs/uploads/".to_owned(), Route::Uploads(name("a"))),
            ("/v2/a/blobs/uploads".to_owned(), Route::Uploads(name("a"))),
            ("/v2/a/blobs/uploads/0-f".to_owned(), Route::Upload(name("a"), "0-f".to_owned())),
            (format!("/v2/a/referrers/sha256:{hex}"), Route::Referrers(name("a"), digest)),
            // Names made of the API's own words.
            ("/v2/blobs/uploads/tags/list".to_owned(), Route::Tags(name("blobs/uploads"))),
            (
                "/v2/a/blobs/uploads/manifests/x".to_owned(),
                Route::Manifest(name("a/blobs/uploads"), tag("x")),
            ),
            (
                "/v2/manifests/manifests/manifests".to_owned(),
                Route::Manifest(name("manifests"), tag("manifests")),
            ),
            ("/v2/a/blobs/blobs/uploads/".to_owned(), Route::Uploads(name("a/blobs"))),
            ("/v2/tags/list/tags/list".to_owned(), Route::Tags(name("tags/list"))),
        ];
        for (path, expected) in table {
            assert_eq!(Route::parse(&path).map_err(|error| error.code()), Ok(expected), "{path}");
        }
    }

    #[test]
    fn hostile_paths() {
        let long = format!("/v2/{}/tags/list", "a".repeat(241));
        let longer = format!("/v2/{}/tags/list", "a".repeat(4000));
        let table = [
            ("/v2/A/tags/list", 400, Code::NameInvalid),
            ("/v2/../tags/list", 400, Code::NameInvalid),
            ("/v2/a/../../b/tags/list", 400, Code::NameInvalid),
            ("/v2/a%2f..%2fb/tags/list", 400, Code::NameInvalid),
            ("/v2/%252e%252e/tags/list", 400, Code::NameInvalid),
            ("/v2/a%00b/tags/list", 400, Code::NameInvalid),
            ("/v2/a%/tags/list", 400, Code::NameInvalid),
            ("/v2/a%zz/tags/list", 400, Code::NameInvalid),
            ("/v2/%ff/tags/list", 400, Code::NameInvalid),
            ("/v2//tags/list", 400, Code::NameInvalid),
            ("/v2/tags/list", 400, Code::NameInvalid),
            ("/v2//a/tags/list", 400, Code::NameInvalid),
            (&long, 400, Code::NameInvalid),
            (&longer, 400, Code::NameInvalid),
            ("/v2/a/manifests/", 400, Code::ManifestInvalid),
            ("/v2/a/manifests/.x", 400, Code::ManifestInvalid),
            ("/v2/a/manifests/sha256:bad", 400, Code::DigestInvalid),
            ("/v2/a/manifests/md5:d41d8cd98f00b204e9800998ecf8427e", 400, Code::DigestInvalid),
            ("/v2/a/blobs/latest", 400, Code::DigestInvalid),
            ("/v2/a/blobs/uploads/a%2e%2e", 404, Code::BlobUploadUnknown),
            ("/v2/a/referrers/x", 400, Code::DigestInvalid),
            ("/v2x", 404, Code::Unsupported),
            ("/v1/search", 404, Code::Unsupported),
            ("/v2/a", 404, Code::Unsupported),
            ("/v2/a/tags/list/", 404, Code::Unsupported),
            ("/", 404, Code::Unsupported),
            ("", 404, Code::Unsupported),
        ];
        for (path, status, code) in table {
            let error = Route::parse(path).expect_err(path);
            assert_eq!((error.status(), error.code()), (status, code), "{path}");
        }
    }
}
