//! Names of things: nodes, meshes, blobs (by digest and by hash), repositories, tags. Each can only be
//! made from valid input, so that nothing further in has to check again.

use alloc::{
    borrow::ToOwned,
    format,
    string::{String, ToString},
};
use core::{cmp::Ordering, fmt, str::FromStr};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

/// A string is not the name that it is used as. The text says what is expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidName(pub String);

macro_rules! bytes32 {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 32]);

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                order(&self.0, &other.0)
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl $name {
            /// The first ten hexadecimal digits, for people and logs.
            pub fn short(&self) -> String {
                HEXLOWER.encode(&self.0[..5])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let wrong = || InvalidName(format!("{} must be 64 lowercase hexadecimal digits", $what));
                let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| wrong())?;
                Ok($name(bytes.try_into().map_err(|_| wrong())?))
            }
        }
    };
}

bytes32!(
    /// A node: its ed25519 public key, which is also its libp2p PeerId and its iroh EndpointId.
    NodeId,
    "a node id"
);
bytes32!(
    /// BLAKE3 of a blob's bytes: what peers transfer and verify by.
    Hash,
    "a BLAKE3 hash"
);
bytes32!(
    /// A mesh: BLAKE3 of its root public key, see [`MeshId::of_root`].
    MeshId,
    "a mesh id"
);

impl Hash {
    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Hash(*blake3::hash(bytes).as_bytes())
    }
}

impl MeshId {
    /// The id of the mesh whose root key this is.
    pub fn of_root(root: &NodeId) -> Self {
        MeshId(blake3::derive_key("waystation mesh id v1", &root.0))
    }
}

/// The order of bytes. Hashes and keys nearly always differ in the first eight, which are compared without a call.
fn order(one: &[u8; 32], other: &[u8; 32]) -> Ordering {
    first(one).cmp(&first(other)).then_with(|| one.cmp(other))
}

/// The first eight bytes, in whose order names are as far as these differ.
pub(crate) fn first(name: &[u8; 32]) -> u64 {
    u64::from_be_bytes([name[0], name[1], name[2], name[3], name[4], name[5], name[6], name[7]])
}

/// What OCI clients name content by: `sha256:…` or `sha512:…` (image-spec, descriptor.md, "Digests").
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Digest {
    /// SHA-256 of the bytes.
    Sha256([u8; 32]),
    /// SHA-512 of the bytes.
    Sha512([u8; 64]),
}

impl Ord for Digest {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Digest::Sha256(one), Digest::Sha256(other)) => order(one, other),
            (Digest::Sha512(one), Digest::Sha512(other)) => one.cmp(other),
            (Digest::Sha256(_), Digest::Sha512(_)) => Ordering::Less,
            (Digest::Sha512(_), Digest::Sha256(_)) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Digest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Digest {
    /// A number in whose order digests are as far as it tells them apart.
    pub(crate) fn number(&self) -> u64 {
        match self {
            Digest::Sha256(bytes) => first(bytes) >> 1,
            // The others are all before these.
            Digest::Sha512(bytes) => 1 << 63 | u64::from(bytes[0]) << 48,
        }
    }

    /// `sha256` or `sha512`.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Digest::Sha256(_) => "sha256",
            Digest::Sha512(_) => "sha512",
        }
    }

    /// The raw digest.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Digest::Sha256(b) => b,
            Digest::Sha512(b) => b,
        }
    }

    /// Algorithm and the first twelve hexadecimal digits, for people.
    pub fn short(&self) -> String {
        format!("{}:{}", self.algorithm(), HEXLOWER.encode(&self.bytes()[..6]))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), HEXLOWER.encode(self.bytes()))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

impl FromStr for Digest {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let wrong = || {
            InvalidName(
                "a digest must be sha256: and 64, or sha512: and 128, lowercase hexadecimal digits"
                    .to_owned(),
            )
        };
        let (algorithm, hex) = text.split_once(':').ok_or_else(wrong)?;
        let bytes = HEXLOWER.decode(hex.as_bytes()).map_err(|_| wrong())?;
        match algorithm {
            "sha256" => Ok(Digest::Sha256(bytes.try_into().map_err(|_| wrong())?)),
            "sha512" => Ok(Digest::Sha512(bytes.try_into().map_err(|_| wrong())?)),
            _ => Err(wrong()),
        }
    }
}

/// On the wire and on disk: one byte for the algorithm (1 sha256, 2 sha512) and the raw digest.
impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let algorithm: u8 = match self {
            Digest::Sha256(_) => 1,
            Digest::Sha512(_) => 2,
        };
        (algorithm, self.bytes()).serialize(s)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let (algorithm, bytes) = <(u8, alloc::vec::Vec<u8>)>::deserialize(d)?;
        let wrong = |_| D::Error::custom("digest of the wrong length");
        match algorithm {
            1 => Ok(Digest::Sha256(bytes.try_into().map_err(wrong)?)),
            2 => Ok(Digest::Sha512(bytes.try_into().map_err(wrong)?)),
            _ => Err(D::Error::custom("unknown digest algorithm")),
        }
    }
}

/// A repository's name (distribution-spec, "Pulling manifests", `<name>`), at most [`RepoName::MAX`] bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepoName(String);

impl RepoName {
    /// Longest name in bytes. Clients limit host and name together to 255.
    pub const MAX: usize = 240;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether one path component fits `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_repository_component(part: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    if !bytes.first().copied().is_some_and(alnum) || !bytes.last().copied().is_some_and(alnum) {
        return false;
    }
    part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .filter(|separator| !separator.is_empty())
        .all(|separator| matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

impl FromStr for RepoName {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text.len() > Self::MAX || text.is_empty() || !text.split('/').all(is_repository_component) {
            return Err(InvalidName(format!(
                "a repository name must be lowercase letters and digits, joined by one of . _ __ - and split by /, \
                 at most {} characters",
                Self::MAX
            )));
        }
        Ok(RepoName(text.to_owned()))
    }
}

/// A tag (distribution-spec, `<reference>`): `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(String);

impl Tag {
    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let bytes = text.as_bytes();
        let ok = bytes.first().copied().is_some_and(word)
            && bytes.len() <= 128
            && bytes.iter().all(|&b| word(b) || b == b'.' || b == b'-');
        if !ok {
            return Err(InvalidName(
                "a tag must be 1 to 128 of A-Z a-z 0-9 _ . - and not start with . or -".to_owned(),
            ));
        }
        Ok(Tag(text.to_owned()))
    }
}

macro_rules! text_name {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.to_string()
            }
        }
    };
}
text_name!(RepoName);
text_name!(Tag);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_names() {
        for good in ["a", "library/nginx", "a.b/c_d/e__f/g---h", "0/1"] {
            assert_eq!(good.parse::<RepoName>().map(|n| n.to_string()), Ok(good.to_owned()));
        }
        let long = "a".repeat(RepoName::MAX + 1);
        for bad in [
            "", "A", "a/", "/a", "a//b", "../a", "a/..", "a..b", "a_-b", "a___b", "-a", "a.", "ä", "a b",
            &long,
        ] {
            assert!(bad.parse::<RepoName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn tags() {
        for good in ["latest", "v1.2-rc_3", "_x", "A"] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        let long = "a".repeat(129);
        for bad in ["", ".a", "-a", "a/b", "a:b", "ü", &long] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
    }

    #[test]
    fn digests() {
        let hex = "ab".repeat(32);
        let digest: Digest = format!("sha256:{hex}").parse().expect("valid");
        assert_eq!(digest.to_string(), format!("sha256:{hex}"));
        for bad in [
            "sha256:",
            "sha256:zz",
            "md5:00",
            &hex,
            &format!("sha256:{}", hex.to_uppercase()),
            &format!("sha512:{hex}"),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        let bytes = postcard::to_allocvec(&digest).expect("encodes");
        assert_eq!(bytes.len(), 34);
        assert_eq!(postcard::from_bytes::<Digest>(&bytes), Ok(digest));
    }
}
