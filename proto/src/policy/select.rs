//! Which tags of a repository a policy means.
//!
//! A tag is a version where it reads as one of SemVer 2 after a leading `v` was dropped and `_` replaced by `+`
//! (as Helm writes build metadata into tags). "Newest" is by version first: every version is newer than every
//! tag that is none. Tags that are none are ordered by their counter (how often they were written), then by
//! name, the last in the alphabet being the newest, so that dates work.

use alloc::{collections::BTreeSet, vec::Vec};
use core::cmp::Reverse;

use semver::{Version, VersionReq};

use super::{Policy, TagRule};
use crate::id::{Digest, RepoName, Tag};

/// A tag as it is chosen by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagged {
    /// The tag.
    pub tag: Tag,
    /// Where it points.
    pub target: Digest,
    /// How often it was written.
    pub counter: u64,
}

/// Whether a policy speaks of this repository.
pub fn means(policy: &Policy, repository: &RepoName) -> bool {
    policy.repositories.iter().any(|glob| glob.matches(repository.as_str()))
}

/// The tags meant, newest first.
pub fn chosen<'a>(rule: &TagRule, tags: impl IntoIterator<Item = &'a Tagged>) -> Vec<&'a Tagged> {
    let range = rule.versions.as_deref().map(VersionReq::parse);
    let mut chosen: Vec<(Option<Version>, &Tagged)> = Vec::new();
    for tagged in tags {
        let text = tagged.tag.as_str();
        if !rule.patterns.is_empty() && !rule.patterns.iter().any(|pattern| pattern.fits(text)) {
            continue;
        }
        let version = version(text);
        let fits = match &range {
            None => true,
            Some(Ok(range)) => version.as_ref().is_some_and(|version| range.matches(version)),
            Some(Err(_)) => false,
        };
        if fits {
            chosen.push((version, tagged));
        }
    }
    // Absent sorts before present, so the reverse order has versions first.
    chosen.sort_by(|(a_version, a), (b_version, b)| {
        let key = |tagged: &'a Tagged| (Reverse(tagged.counter), Reverse(tagged.tag.as_str()));
        b_version.cmp(a_version).then_with(|| key(a).cmp(&key(b)))
    });
    let newest = rule.newest.map_or(usize::MAX, usize::from);
    chosen.into_iter().map(|(_, tagged)| tagged).take(newest).collect()
}

/// What the tags meant point at.
pub fn targets<'a>(rule: &TagRule, tags: impl IntoIterator<Item = &'a Tagged>) -> BTreeSet<Digest> {
    chosen(rule, tags).into_iter().map(|tagged| tagged.target).collect()
}

/// Whether a text is a range of versions.
pub fn is_range(text: &str) -> bool {
    text.len() <= 128 && VersionReq::parse(text).is_ok()
}

/// Whether a child for `platform` is among those meant: `linux/arm64` also means its variants.
pub fn means_platform(platforms: &[alloc::string::String], platform: Option<&str>) -> bool {
    let Some(platform) = platform else { return true };
    let is_meant = |meant: &str| {
        platform.strip_prefix(meant).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    platforms.is_empty() || platforms.iter().any(|meant| is_meant(meant))
}

fn version(tag: &str) -> Option<Version> {
    let text = tag.strip_prefix('v').unwrap_or(tag);
    Version::parse(&text.replace('_', "+")).ok()
}

#[cfg(test)]
mod tests {
    use alloc::{string::ToString, vec};

    use super::*;

    fn tags(names: &[(&str, u64)]) -> Vec<Tagged> {
        let one = |(n, (name, counter)): (usize, &(&str, u64))| Tagged {
            tag: name.parse().expect("a tag"),
            target: Digest::Sha256([n as u8; 32]),
            counter: *counter,
        };
        names.iter().enumerate().map(one).collect()
    }

    fn names(rule: &TagRule, tags: &[Tagged]) -> Vec<alloc::string::String> {
        chosen(rule, tags).into_iter().map(|tagged| tagged.tag.to_string()).collect()
    }

    #[test]
    fn by_pattern_version_and_age() {
        let all = tags(&[("v1.2.0", 1), ("1.10.0", 1), ("v2.0.0-rc.1", 1), ("latest", 9), ("2026-11-01", 1)]);
        let any = TagRule::default();
        assert_eq!(names(&any, &all), ["v2.0.0-rc.1", "1.10.0", "v1.2.0", "latest", "2026-11-01"]);
        let patterns = vec!["v*".parse().expect("a pattern"), "latest".parse().expect("a pattern")];
        let by_pattern = TagRule { patterns, ..TagRule::default() };
        assert_eq!(names(&by_pattern, &all), ["v2.0.0-rc.1", "v1.2.0", "latest"]);
        let by_version = TagRule { versions: Some(">=1, <2".into()), ..TagRule::default() };
        assert_eq!(names(&by_version, &all), ["1.10.0", "v1.2.0"]);
        let newest = TagRule { newest: Some(1), ..by_version };
        assert_eq!(names(&newest, &all), ["1.10.0"]);
    }

    #[test]
    fn what_is_no_version_is_ordered_by_counter_then_name() {
        let all = tags(&[("2026-10", 1), ("2026-11", 1), ("stable", 2)]);
        let newest = TagRule { newest: Some(2), ..TagRule::default() };
        assert_eq!(names(&newest, &all), ["stable", "2026-11"]);
    }

    #[test]
    fn build_metadata_as_helm_writes_it() {
        let all = tags(&[("1.0.0_b1", 1), ("1.0.0_b2", 1)]);
        let newest = TagRule { newest: Some(1), versions: Some("1".into()), ..TagRule::default() };
        assert_eq!(names(&newest, &all), ["1.0.0_b2"]);
    }

    #[test]
    fn platforms_mean_their_variants() {
        let arm = ["linux/arm64".to_string()];
        for (platform, meant) in [
            (Some("linux/arm64/v8"), true),
            (Some("linux/arm64"), true),
            (Some("linux/arm"), false),
            (None, true),
        ] {
            assert_eq!(means_platform(&arm, platform), meant, "{platform:?}");
        }
        assert!(means_platform(&[], Some("linux/s390x")));
    }
}
