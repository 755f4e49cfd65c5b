//! Which repositories a grant or policy speaks of. The meaning is part of what a root key signs, so it is
//! defined here and never changes: `*` stands for any run of characters within one path component, a
//! component that is exactly `**` for any number of components, everything else for itself.

use alloc::{borrow::ToOwned, format, string::String, vec::Vec};
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::id::InvalidName;

/// A pattern over repository names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Glob(String);

impl Glob {
    /// Longest pattern in bytes.
    pub const MAX: usize = 255;

    /// The pattern for every repository.
    pub fn everything() -> Self {
        Glob("**".to_owned())
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether every repository that `other` means is meant by this. May say no where that is so, never yes
    /// where it is not: the stars of `other` must meet stars of this.
    pub fn covers(&self, other: &Glob) -> bool {
        let pattern: Vec<&str> = self.0.split('/').collect();
        let other: Vec<&str> = other.0.split('/').collect();
        components_match(&pattern, &other)
    }

    /// Whether `name` is one of the repositories meant.
    pub fn matches(&self, name: &str) -> bool {
        let pattern: Vec<&str> = self.0.split('/').collect();
        let name: Vec<&str> = name.split('/').collect();
        components_match(&pattern, &name)
    }
}

/// Whether a pattern's components match a name's. Row by row, so the cost is their product.
fn components_match(pattern: &[&str], name: &[&str]) -> bool {
    // reachable[n]: the pattern so far can match the first n components.
    let mut reachable = alloc::vec![false; name.len() + 1];
    reachable[0] = true;
    for part in pattern {
        let mut next = alloc::vec![false; name.len() + 1];
        if *part == "**" {
            let mut seen = false;
            for (n, from) in reachable.iter().enumerate() {
                seen |= *from;
                next[n] = seen;
            }
        } else {
            for n in 0..name.len() {
                // No name has stars; of a pattern, `**` may be many components.
                let one = name[n] != "**";
                next[n + 1] = reachable[n] && one && component_matches(part.as_bytes(), name[n].as_bytes());
            }
        }
        reachable = next;
    }
    reachable[name.len()]
}

/// `*` within one component, by remembering the last star only: linear space, quadratic time at worst.
fn component_matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            p += 1;
            t += 1;
        } else if let Some((star_p, star_t)) = star {
            star = Some((star_p, star_t + 1));
            p = star_p + 1;
            t = star_t + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

/// A pattern over tags, sites and labels: `*` stands for any run of characters, everything else for itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(String);

impl Pattern {
    /// Longest pattern in bytes.
    pub const MAX: usize = 128;

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a text is meant.
    pub fn fits(&self, text: &str) -> bool {
        component_matches(self.0.as_bytes(), text.as_bytes())
    }
}

impl core::str::FromStr for Pattern {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() || text.len() > Self::MAX || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(InvalidName(format!(
                "a pattern must be 1 to {} letters, digits and signs (* for any run of them)",
                Self::MAX
            )));
        }
        Ok(Pattern(text.to_owned()))
    }
}

impl TryFrom<String> for Pattern {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> String {
        pattern.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::str::FromStr for Glob {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-/*".contains(&b);
        if text.is_empty() || text.len() > Self::MAX || !text.bytes().all(allowed) {
            return Err(InvalidName(format!(
                "a repository pattern must be made of a-z 0-9 . _ - / * (** for any depth), at most {} characters",
                Self::MAX
            )));
        }
        Ok(Glob(text.to_owned()))
    }
}

impl TryFrom<String> for Glob {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Glob> for String {
    fn from(glob: Glob) -> String {
        glob.0
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let check = |pattern: &str, name: &str, expected: bool| {
            let glob: Glob = pattern.parse().expect("valid pattern");
            assert_eq!(glob.matches(name), expected, "{pattern} on {name}");
        };
        check("**", "a", true);
        check("**", "a/b/c", true);
        check("*", "a", true);
        check("*", "a/b", false);
        check("team/*", "team/app", true);
        check("team/*", "team/app/x", false);
        check("team/**", "team/app/x", true);
        check("team/**", "team", true);
        check("**/x", "a/b/x", true);
        check("**/x", "x", true);
        check("a*c", "abbc", true);
        check("a*c", "abcb", false);
        check("a*b*c", "aXbYbZc", true);
        check("team", "teams", false);
    }

    #[test]
    fn covering() {
        let check = |outer: &str, inner: &str, expected: bool| {
            let (outer, inner): (Glob, Glob) = (outer.parse().expect("valid"), inner.parse().expect("valid"));
            assert_eq!(outer.covers(&inner), expected, "{outer} over {inner}");
        };
        check("**", "**", true);
        check("**", "team/*", true);
        check("team/**", "team/**", true);
        check("team/**", "team/a*b", true);
        check("team/*", "team/a", true);
        check("team/*", "team/*", true);
        check("team/*", "team/**", false);
        check("team/a*", "team/*", false);
        check("team/**", "**", false);
        check("team/**", "*/app", false);
        check("*", "**", false);
    }

    #[test]
    fn refuses_other_characters() {
        for bad in ["", "A", "a b", "a?"] {
            assert!(bad.parse::<Glob>().is_err(), "{bad}");
        }
    }
}
