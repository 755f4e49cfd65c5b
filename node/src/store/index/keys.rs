//! Keys of the index's trees: parts that cannot run into one another, so that a prefix finds all rows of a
//! repository, an artifact or a digest. A repository ends with a zero byte, which no name contains; a
//! digest says its algorithm, and so its length, in its first byte.

use waystation_proto::{Digest, NodeId, RepoName, Tag};

/// The start of all rows of a repository.
pub(super) fn repository(name: &RepoName) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.as_str().len() + 1 + 2 * 65 + 1);
    key.extend_from_slice(name.as_str().as_bytes());
    key.push(0);
    key
}

/// A repository, and a name or part of a name in it.
pub(super) fn named(name: &RepoName, rest: &str) -> Vec<u8> {
    let mut key = repository(name);
    key.extend_from_slice(rest.as_bytes());
    key
}

/// A digest.
pub(super) fn digest(digest: &Digest) -> Vec<u8> {
    let mut key = Vec::with_capacity(65 + 32);
    push_digest(&mut key, digest);
    key
}

/// A repository and a digest in it.
pub(super) fn in_repository(name: &RepoName, digest: &Digest) -> Vec<u8> {
    let mut key = repository(name);
    push_digest(&mut key, digest);
    key
}

/// A link that an artifact makes, before that of a push or mount.
pub(super) fn link(name: &RepoName, digest: &Digest, manifest: Option<&Digest>) -> Vec<u8> {
    let mut key = in_repository(name, digest);
    match manifest {
        Some(manifest) => {
            key.push(REACHED);
            push_digest(&mut key, manifest);
        }
        None => key.push(LOCAL),
    }
    key
}

/// What an artifact reaches, the other way round.
pub(super) fn reach(name: &RepoName, manifest: &Digest, digest: &Digest) -> Vec<u8> {
    let mut key = in_repository(name, manifest);
    push_digest(&mut key, digest);
    key
}

/// What a node tells the mesh, or before that its site, to hold of an artifact.
pub(super) fn holder(manifest: &Digest, node: &NodeId, mesh: bool) -> Vec<u8> {
    let mut key = digest(manifest);
    key.extend_from_slice(&node.0);
    key.push(u8::from(mesh));
    key
}

/// The node of such a key, from what follows the artifact.
pub(super) fn read_holder(rest: &[u8]) -> Option<NodeId> {
    let (_, node) = rest.split_last()?;
    Some(NodeId(node.try_into().ok()?))
}

/// The start of what nodes saw of a tag.
pub(super) fn sightings(name: &RepoName, tag: &Tag) -> Vec<u8> {
    let mut key = named(name, tag.as_str());
    key.push(0);
    key
}

/// What a node saw of a tag.
pub(super) fn sighting(name: &RepoName, tag: &Tag, node: &NodeId) -> Vec<u8> {
    let mut key = sightings(name, tag);
    key.extend_from_slice(&node.0);
    key
}

/// One write of a tag, after [`sightings`]' start of all of a tag: in the order in which writes count.
pub(super) fn write(name: &RepoName, tag: &Tag, version: u64, author: &NodeId) -> Vec<u8> {
    let mut key = sightings(name, tag);
    key.extend_from_slice(&version.to_be_bytes());
    key.extend_from_slice(&author.0);
    key
}

/// Reads what a key of [`write()`] has after its start: the counter and who wrote it.
pub(super) fn read_write(rest: &[u8]) -> Option<(u64, NodeId)> {
    let (version, author) = rest.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*version), NodeId(author.try_into().ok()?)))
}

/// Reads a key of [`in_repository`], or the start of one of [`link`] or [`reach`], and what is after it.
pub(super) fn read_in_repository(key: &[u8]) -> Option<(RepoName, Digest, &[u8])> {
    let (name, rest) = read_repository(key)?;
    let (digest, rest) = read_digest(rest)?;
    Some((name, digest, rest))
}

/// Reads the repository that a key starts with.
pub(super) fn read_repository(key: &[u8]) -> Option<(RepoName, &[u8])> {
    let end = key.iter().position(|byte| *byte == 0)?;
    let name = std::str::from_utf8(&key[..end]).ok()?.parse().ok()?;
    Some((name, &key[end + 1..]))
}

/// Reads the digest that a key starts with.
pub(super) fn read_digest(key: &[u8]) -> Option<(Digest, &[u8])> {
    match key.split_first()? {
        (&SHA256, rest) => {
            let (bytes, rest) = rest.split_first_chunk::<32>()?;
            Some((Digest::Sha256(*bytes), rest))
        }
        (&SHA512, rest) => {
            let (bytes, rest) = rest.split_first_chunk::<64>()?;
            Some((Digest::Sha512(*bytes), rest))
        }
        _ => None,
    }
}

/// Whether the rest of a link's key says that an artifact reaches it, and which.
pub(super) fn read_link_maker(rest: &[u8]) -> Option<Digest> {
    let (&kind, rest) = rest.split_first()?;
    if kind == REACHED { read_digest(rest).map(|(manifest, _)| manifest) } else { None }
}

fn push_digest(key: &mut Vec<u8>, digest: &Digest) {
    key.push(match digest {
        Digest::Sha256(_) => SHA256,
        Digest::Sha512(_) => SHA512,
    });
    key.extend_from_slice(digest.bytes());
}

const SHA256: u8 = 1;
const SHA512: u8 = 2;
/// Sorts before [`LOCAL`]: the first link found names an artifact if there is one.
const REACHED: u8 = 0;
const LOCAL: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back() {
        let name: RepoName = "a/b".parse().expect("valid");
        let (one, two) = (Digest::Sha256([1; 32]), Digest::Sha512([2; 64]));
        assert_eq!(read_in_repository(&in_repository(&name, &two)), Some((name.clone(), two, &[][..])));
        let key = link(&name, &one, Some(&two));
        let (_, digest, rest) = read_in_repository(&key).expect("a link's key");
        assert_eq!((digest, read_link_maker(rest)), (one, Some(two)));
        assert!(key < link(&name, &one, None));
        let tag: Tag = "v1".parse().expect("valid");
        let written = write(&name, &tag, 7, &NodeId([9; 32]));
        assert_eq!(read_write(&written[sightings(&name, &tag).len()..]), Some((7, NodeId([9; 32]))));
        assert!(written < write(&name, &tag, 256, &NodeId([1; 32])));
        assert_eq!(read_in_repository(b"a/b"), None);
        assert_eq!(read_in_repository(b"a/b\0\x01abc"), None);
    }
}
