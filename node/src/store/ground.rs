//! Names of the store's named tags, which are the ground truth of what this node keeps:
//!
//! | name | points to | meaning |
//! | --- | --- | --- |
//! | `b/<digest>/<size>` | blob | bytes of this digest are held |
//! | `l/<repository>@<digest>/<size>` | blob | pushed to, or mounted into, the repository |
//! | `a/<manifest digest>/<size>` | artifact index | the index of an artifact that was published here |
//! | `h/<hash>/<size>` | blob | a fetched blob without a digest (an artifact index) |
//! | `o/<hash>/<size>` | blob | its outboard is still to be made, or to be made durable |
//! | `r/<sequence>` | segment | signed records |
//! | `g/<nonce>` | nothing | the run of the node that may write the index |

use std::{fmt, str::FromStr};

use waystation_proto::{Digest, Hash, RepoName};

/// One named tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ground {
    Blob { digest: Digest, size: u64 },
    Link { repository: RepoName, digest: Digest, size: u64 },
    Index { manifest: Digest, size: u64 },
    Nameless { hash: Hash, size: u64 },
    Outboard { hash: Hash, size: u64 },
    Segment(u64),
    Run(u64),
}

impl Ground {
    /// Where all names of the runs lie.
    pub const RUNS: &'static str = "g/";
}

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ground::Blob { digest, size } => write!(f, "b/{digest}/{size}"),
            Ground::Link { repository, digest, size } => write!(f, "l/{repository}@{digest}/{size}"),
            Ground::Index { manifest, size } => write!(f, "a/{manifest}/{size}"),
            Ground::Nameless { hash, size } => write!(f, "h/{hash}/{size}"),
            Ground::Outboard { hash, size } => write!(f, "o/{hash}/{size}"),
            Ground::Segment(sequence) => write!(f, "r/{sequence:016x}"),
            Ground::Run(nonce) => write!(f, "g/{nonce:016x}"),
        }
    }
}

impl FromStr for Ground {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let (kind, rest) = name.split_once('/').ok_or(())?;
        let number = |text: &str| u64::from_str_radix(text, 16).map_err(|_| ());
        match kind {
            "r" => return Ok(Ground::Segment(number(rest)?)),
            "g" => return Ok(Ground::Run(number(rest)?)),
            _ => {}
        }
        let (what, size) = rest.rsplit_once('/').ok_or(())?;
        let size = size.parse().map_err(|_| ())?;
        let digest = |text: &str| text.parse::<Digest>().map_err(|_| ());
        match kind {
            "b" => Ok(Ground::Blob { digest: digest(what)?, size }),
            "a" => Ok(Ground::Index { manifest: digest(what)?, size }),
            "h" => Ok(Ground::Nameless { hash: what.parse().map_err(|_| ())?, size }),
            "o" => Ok(Ground::Outboard { hash: what.parse().map_err(|_| ())?, size }),
            "l" => {
                let (repository, text) = what.split_once('@').ok_or(())?;
                let repository = repository.parse().map_err(|_| ())?;
                Ok(Ground::Link { repository, digest: digest(text)?, size })
            }
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let digest = Digest::Sha512([7; 64]);
        let repository: RepoName = "a/b-c".parse().expect("valid");
        let all = [
            Ground::Blob { digest, size: 0 },
            Ground::Link { repository, digest: Digest::Sha256([1; 32]), size: u64::MAX },
            Ground::Index { manifest: digest, size: 3 },
            Ground::Nameless { hash: Hash([9; 32]), size: 4 },
            Ground::Outboard { hash: Hash([8; 32]), size: 5 },
            Ground::Segment(0x10),
            Ground::Run(u64::MAX),
        ];
        for ground in all {
            assert_eq!(ground.to_string().parse(), Ok(ground));
        }
        for other in ["", "b/", "b/x/1", "auto-2026", "x/y/1", "l/A@sha256:00/1"] {
            assert_eq!(other.parse::<Ground>(), Err(()), "{other}");
        }
    }
}
