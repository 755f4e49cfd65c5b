//! How people name an artifact of a mesh: `repository[:tag][@digest]`, without a host, because a node holds
//! one catalog.

use std::{fmt, str::FromStr};

use waystation_proto::{Digest, RepoName, Tag};

/// A named artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The repository.
    pub repository: RepoName,
    /// A tag in it.
    pub tag: Option<Tag>,
    /// The manifest's digest; beats the tag when something is looked up.
    pub digest: Option<Digest>,
}

/// A text is not a reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} does not name an artifact as repository[:tag][@digest]: {why}")]
pub struct InvalidReference {
    text: String,
    why: String,
}

impl Reference {
    /// The tag, or `latest` where none was given.
    pub fn tag_or_latest(&self) -> Tag {
        self.tag.clone().unwrap_or_else(|| LATEST.parse().expect("a valid tag"))
    }

    /// The name that a client gives to what it got: the tag, `latest` where nothing was said, none where only
    /// a digest was.
    pub fn name(&self) -> Option<Tag> {
        (self.tag.is_some() || self.digest.is_none()).then(|| self.tag_or_latest())
    }

    /// What stands after `/manifests/` when this is pulled: the digest if there is one.
    pub fn target(&self) -> String {
        match self.digest {
            Some(digest) => digest.to_string(),
            None => self.tag_or_latest().to_string(),
        }
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let wrong = |why: String| InvalidReference { text: text.to_owned(), why };
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse().map_err(|e| wrong(format!("{e}")))?)),
            None => (text, None),
        };
        let (repository, tag) = match name.split_once(':') {
            Some((_, rest)) if rest.contains('/') => {
                return Err(wrong(
                    "leave out the host; the node with this data directory is asked".to_owned(),
                ));
            }
            Some((repository, tag)) => (repository, Some(tag.parse().map_err(|e| wrong(format!("{e}")))?)),
            None => (name, None),
        };
        let repository = repository.parse().map_err(|e| wrong(format!("{e}")))?;
        Ok(Reference { repository, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// What clients mean where they name no tag.
const LATEST: &str = "latest";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (text, tag, has_digest, target) in [
            ("app", None, false, "latest"),
            ("team/app:v1", Some("v1"), false, "v1"),
            (&format!("app@{digest}") as &str, None, true, digest.as_str()),
            (&format!("app:v1@{digest}"), Some("v1"), true, digest.as_str()),
        ] {
            let parsed: Reference = text.parse().expect(text);
            assert_eq!(parsed.tag.as_ref().map(Tag::as_str), tag, "{text}");
            assert_eq!(parsed.digest.is_some(), has_digest, "{text}");
            assert_eq!(parsed.target(), target, "{text}");
            assert_eq!(parsed.name().is_none(), tag.is_none() && has_digest, "{text}");
            assert_eq!(parsed.to_string(), text);
        }
    }

    #[test]
    fn refuses_others_with_a_reason() {
        for bad in ["", ":v1", "App", "app:", "app@", "app@sha256:00", "app:v/1", "a b"] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
        let error = "127.0.0.1:5000/app:v1".parse::<Reference>().expect_err("has a host");
        assert!(error.to_string().contains("leave out the host"), "{error}");
    }
}
