//! Which endpoint a request's path means. Repository names contain slashes and may look like endpoints
//! themselves, so paths are read by hand and from the right. Nothing that leaves here is unchecked text.

use std::fmt;

use waystation_proto::{Digest, RepoName, Tag, id::InvalidName};

use crate::upload;

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

/// Why a path names nothing that could be here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It is not one of the API's.
    #[error("{0:?} is not a path of the OCI distribution API")]
    Elsewhere(String),
    /// It is longer than any that could be meant.
    #[error("the path is longer than {MAX_PATH} bytes")]
    TooLong,
    /// It does not decode to text.
    #[error("the path's percent-encoding is broken")]
    Encoding,
    /// There is no repository of such a name.
    #[error("{0:.300?}: {1}")]
    Repository(String, InvalidName),
    /// No manifest has such a tag.
    #[error("{0:.200?}: {1}")]
    Tag(String, InvalidName),
    /// Nothing has such a digest, or its algorithm is not served here.
    #[error("{0:.200?}: {1}")]
    Digest(String, InvalidName),
    /// No upload has such an id.
    #[error("no such upload")]
    Upload,
}

impl Route {
    /// Reads a raw path, percent-encoded as it came.
    ///
    /// # Errors
    /// For paths outside the API, and for names and digests that cannot exist.
    pub fn parse(raw: &str) -> Result<Self, PathError> {
        if raw.len() > MAX_PATH {
            return Err(PathError::TooLong);
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
            [ref name @ .., "blobs", "uploads", id] => {
                Ok(Route::Upload(repository(name)?, upload::id(id).ok_or(PathError::Upload)?))
            }
            [ref name @ .., "blobs", wanted] => Ok(Route::Blob(repository(name)?, digest(wanted)?)),
            [ref name @ .., "referrers", subject] => {
                Ok(Route::Referrers(repository(name)?, digest(subject)?))
            }
            _ => Err(elsewhere(&path)),
        }
    }
}

impl Route {
    /// The repository that is asked about.
    pub fn repository(&self) -> Option<&RepoName> {
        match self {
            Route::Base | Route::Catalog => None,
            Route::Tags(name)
            | Route::Manifest(name, _)
            | Route::Blob(name, _)
            | Route::Uploads(name)
            | Route::Upload(name, _)
            | Route::Referrers(name, _) => Some(name),
        }
    }

    /// The same of another repository.
    #[must_use]
    pub fn renamed(self, name: RepoName) -> Self {
        match self {
            Route::Base | Route::Catalog => self,
            Route::Tags(_) => Route::Tags(name),
            Route::Manifest(_, reference) => Route::Manifest(name, reference),
            Route::Blob(_, digest) => Route::Blob(name, digest),
            Route::Uploads(_) => Route::Uploads(name),
            Route::Upload(_, id) => Route::Upload(name, id),
            Route::Referrers(_, subject) => Route::Referrers(name, subject),
        }
    }
}

impl Reference {
    /// A tag, or a digest if there is a colon in it.
    ///
    /// # Errors
    /// [`PathError::Tag`] and [`PathError::Digest`].
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.contains(':') {
            return digest(text).map(Reference::Digest);
        }
        tag(text).map(Reference::Tag)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Tag(tag) => tag.fmt(f),
            Reference::Digest(digest) => digest.fmt(f),
        }
    }
}

/// A tag.
///
/// # Errors
/// [`PathError::Tag`].
pub fn tag(text: &str) -> Result<Tag, PathError> {
    text.parse().map_err(|wrong| PathError::Tag(text.to_owned(), wrong))
}

/// A digest of an algorithm that is served here.
///
/// # Errors
/// [`PathError::Digest`].
pub fn digest(text: &str) -> Result<Digest, PathError> {
    text.parse().map_err(|wrong| PathError::Digest(text.to_owned(), wrong))
}

fn repository(parts: &[&str]) -> Result<RepoName, PathError> {
    let name = parts.join("/");
    name.parse().map_err(|wrong| PathError::Repository(name, wrong))
}

fn elsewhere(path: &str) -> PathError {
    PathError::Elsewhere(path.to_owned())
}

/// Undoes percent-encoding, once. What it gives is checked as names, so that no escape is dangerous.
fn decode(raw: &str) -> Result<String, PathError> {
    let wrong = || PathError::Encoding;
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = after;
            continue;
        }
        let [high, low, after @ ..] = after else { return Err(wrong()) };
        let (high, low) = digit(high).zip(digit(low)).ok_or_else(wrong)?;
        // Two hexadecimal digits are a byte.
        bytes.push((high * 16 + low) as u8);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

/// Longest path in bytes: the longest name and a sha512 digest, every byte percent-encoded, stay below.
const MAX_PATH: usize = 2048;

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
            assert_eq!(Route::parse(&path), Ok(expected), "{path}");
        }
    }

    #[test]
    fn hostile_paths() {
        let long = format!("/v2/{}/tags/list", "a".repeat(241));
        let longer = format!("/v2/{}/tags/list", "a".repeat(4000));
        let table = [
            ("/v2/A/tags/list", "name"),
            ("/v2/../tags/list", "name"),
            ("/v2/a/../../b/tags/list", "name"),
            ("/v2/a%2f..%2fb/tags/list", "name"),
            ("/v2/%252e%252e/tags/list", "name"),
            ("/v2/a%00b/tags/list", "name"),
            ("/v2/a%/tags/list", "encoding"),
            ("/v2/a%zz/tags/list", "encoding"),
            ("/v2/%ff/tags/list", "encoding"),
            ("/v2//tags/list", "name"),
            ("/v2/tags/list", "name"),
            ("/v2//a/tags/list", "name"),
            (&long, "name"),
            (&longer, "long"),
            ("/v2/a/manifests/", "tag"),
            ("/v2/a/manifests/.x", "tag"),
            ("/v2/a/manifests/sha256:bad", "digest"),
            ("/v2/a/manifests/md5:d41d8cd98f00b204e9800998ecf8427e", "digest"),
            ("/v2/a/blobs/latest", "digest"),
            ("/v2/a/blobs/uploads/a%2e%2e", "upload"),
            ("/v2/a/referrers/x", "digest"),
            ("/v2x", "elsewhere"),
            ("/v1/search", "elsewhere"),
            ("/v2/a", "elsewhere"),
            ("/v2/a/tags/list/", "elsewhere"),
            ("/", "elsewhere"),
            ("", "elsewhere"),
        ];
        for (path, expected) in table {
            let found = match Route::parse(path).expect_err(path) {
                PathError::Elsewhere(_) => "elsewhere",
                PathError::TooLong => "long",
                PathError::Encoding => "encoding",
                PathError::Repository(..) => "name",
                PathError::Tag(..) => "tag",
                PathError::Digest(..) => "digest",
                PathError::Upload => "upload",
            };
            assert_eq!(found, expected, "{path}");
        }
    }
}
