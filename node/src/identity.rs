//! Who this node is: its ed25519 key on disk, and the three names that one key has ([`NodeId`] in the
//! protocol, `PeerId` in libp2p, `EndpointId` in iroh). Nothing else in the node knows that there are
//! three. Also how any secret is written to a file that only its owner may read.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use iroh::EndpointId;
use libp2p::{PeerId, identity::Keypair};
use waystation_proto::NodeId;

/// The node's key pair.
#[derive(Clone)]
pub struct Identity {
    seed: [u8; 32],
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file is there but cannot be read.
    #[error("cannot read the key {path}: {source}; make it readable for the user that runs the node")]
    Read {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is there but is not a key.
    #[error(
        "{path} is not a key: it must hold 64 lowercase hexadecimal digits; restore it from a backup, or move it away to \
         start as a new node"
    )]
    Malformed {
        /// The key file.
        path: PathBuf,
    },
    /// A new key could not be written.
    #[error(
        "cannot write the new key {path}: {source}; make its directory writable for the user that runs the node"
    )]
    Write {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Identity {
    /// Reads the key at `path`, or makes one there that only its owner may read. Of two nodes that start
    /// at once in one directory, both get the same key.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        if let Some(seed) = read_seed(path)? {
            return Ok(Identity { seed });
        }
        let seed = random_bytes();
        match write_private(path, &seed_text(&seed), Existing::Keep) {
            Ok(()) => Ok(Identity { seed }),
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
                let seed =
                    read_seed(path)?.ok_or_else(|| IdentityError::Write { path: path.into(), source })?;
                Ok(Identity { seed })
            }
            Err(source) => Err(IdentityError::Write { path: path.into(), source }),
        }
    }

    /// The public half: this node's name.
    pub fn node_id(&self) -> NodeId {
        NodeId(self.signing_key().verifying_key().to_bytes())
    }

    /// The pair as the protocol signs records with it.
    pub fn signing_key(&self) -> SigningKey {
        SigningKey::from_bytes(&self.seed)
    }

    /// The pair as libp2p uses it.
    pub fn keypair(&self) -> Keypair {
        // The call zeroes what it is given.
        let mut seed = self.seed;
        Keypair::ed25519_from_bytes(&mut seed).expect("any 32 bytes are an ed25519 seed")
    }

    /// The pair as iroh uses it.
    pub fn iroh_secret(&self) -> iroh::SecretKey {
        iroh::SecretKey::from_bytes(&self.seed)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.node_id().short())
    }
}

/// libp2p's name for a node; nothing where the id is not a public key.
pub fn peer_id(node: &NodeId) -> Option<PeerId> {
    let key = libp2p::identity::ed25519::PublicKey::try_from_bytes(&node.0).ok()?;
    Some(libp2p::identity::PublicKey::from(key).to_peer_id())
}

/// The node that libp2p names; nothing where its key is not ed25519.
pub fn node_of_peer(peer: &PeerId) -> Option<NodeId> {
    let multihash: &libp2p::multihash::Multihash<64> = peer.as_ref();
    if multihash.code() != IDENTITY_MULTIHASH {
        return None;
    }
    let key = libp2p::identity::PublicKey::try_decode_protobuf(multihash.digest()).ok()?;
    Some(NodeId(key.try_into_ed25519().ok()?.to_bytes()))
}

/// iroh's name for a node; nothing where the id is not a public key.
pub fn endpoint_id(node: &NodeId) -> Option<EndpointId> {
    EndpointId::from_bytes(&node.0).ok()
}

/// The node that iroh names.
pub fn node_of_endpoint(endpoint: &EndpointId) -> NodeId {
    NodeId(*endpoint.as_bytes())
}

/// What to do where the file to be written is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Leave it and fail with `AlreadyExists`.
    Keep,
    /// Replace it in one step.
    Replace,
}

/// Writes a file that only its owner may read, whole or not at all, and through a power cut.
pub(crate) fn write_private(path: &Path, text: &str, existing: Existing) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    match existing {
        Existing::Keep => file.persist_noclobber(path)?,
        Existing::Replace => file.persist(path)?,
    };
    File::open(directory)?.sync_all()
}

/// Reads a key file; nothing where there is none.
pub(crate) fn read_seed(path: &Path) -> Result<Option<[u8; 32]>, IdentityError> {
    let text = match read_bounded(path, KEY_FILE_MAX) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(IdentityError::Malformed { path: path.into() });
        }
        Err(source) => return Err(IdentityError::Read { path: path.into(), source }),
    };
    let seed =
        decode_secret(text.trim_end()).ok_or_else(|| IdentityError::Malformed { path: path.into() })?;
    warn_if_others_can_read(path);
    Ok(Some(seed))
}

/// What [`read_seed`] reads.
pub(crate) fn seed_text(seed: &[u8; 32]) -> String {
    format!("{}\n", HEXLOWER.encode(seed))
}

/// 32 bytes from 64 lowercase hexadecimal digits.
pub(crate) fn decode_secret(text: &str) -> Option<[u8; 32]> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// 32 bytes that nobody can guess.
pub(crate) fn random_bytes() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// Reads a text file of at most `max` bytes; more, or other than UTF-8, is `InvalidData`.
pub(crate) fn read_bounded(path: &Path, max: u64) -> io::Result<String> {
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(File::open(path)?, max + 1), &mut text)?;
    if text.len() as u64 > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("larger than {max} bytes")));
    }
    Ok(text)
}

/// Secrets mounted into containers are often readable for a group, so this is no error.
pub(crate) fn warn_if_others_can_read(path: &Path) {
    let mode = fs::metadata(path).map(|meta| meta.permissions().mode()).unwrap_or(0);
    if mode & 0o077 != 0 {
        let path = path.display();
        tracing::warn!(%path, "others can read this secret; run: chmod 600 {path}");
    }
}

/// The multihash code of a key that is carried whole.
const IDENTITY_MULTIHASH: u64 = 0;

/// A key file is 65 bytes; what is much longer is some other file.
const KEY_FILE_MAX: u64 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_has_three_names_both_ways() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["a", "b"] {
            let identity = Identity::load_or_create(&dir.path().join(name)).expect("created");
            let node = identity.node_id();
            let peer = identity.keypair().public().to_peer_id();
            let endpoint = identity.iroh_secret().public();
            assert_eq!(peer_id(&node), Some(peer));
            assert_eq!(node_of_peer(&peer), Some(node));
            assert_eq!(endpoint_id(&node), Some(endpoint));
            assert_eq!(node_of_endpoint(&endpoint), node);
        }
        assert_eq!(node_of_peer(&PeerId::random()), None);
        let not_a_key = (0..=255u8).map(|byte| NodeId([byte; 32])).find(|id| endpoint_id(id).is_none());
        assert!(not_a_key.is_some_and(|id| peer_id(&id).is_none()));
    }

    #[test]
    fn key_is_kept_private_and_survives() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("node.key");
        let first = Identity::load_or_create(&path).expect("created");
        let mode = fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&path).expect("text").len(), 65);
        let again = Identity::load_or_create(&path).expect("read");
        assert_eq!(first.node_id(), again.node_id());
        assert!(!format!("{first:?}").contains(&HEXLOWER.encode(&first.seed)));
    }

    #[test]
    fn a_broken_key_is_an_error_and_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("node.key");
        for bad in ["", "abc\n", &"g".repeat(64), &"A".repeat(64), &"0".repeat(1000)] {
            fs::write(&path, bad).expect("written");
            let error = Identity::load_or_create(&path).expect_err("not a key");
            assert!(matches!(error, IdentityError::Malformed { .. }), "{error}");
            assert_eq!(fs::read_to_string(&path).expect("text"), *bad);
        }
        let nowhere = dir.path().join("none").join("node.key");
        assert!(matches!(Identity::load_or_create(&nowhere), Err(IdentityError::Write { .. })));
    }
}
