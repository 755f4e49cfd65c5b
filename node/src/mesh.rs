//! The mesh file (what a machine needs to join) and the root key (what may issue grants). Owns their form
//! on disk and how keys for single purposes are derived from the admission secret. Who may do what with a
//! grant is the protocol's; proving the secret to a peer is each plane's.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use waystation_proto::{
    MeshId, NodeId, Wall,
    glob::Glob,
    grant::{Actions, Grant},
    record::Trust,
};

use crate::identity::{self, Existing, IdentityError};

/// What a machine needs to join a mesh. Whoever has it can read everything in the mesh and write nothing.
#[derive(Clone, Debug)]
pub struct MeshFile {
    trust: Trust,
    admission: AdmissionSecret,
    join: Vec<String>,
}

/// The secret that lets a node in on both planes.
#[derive(Clone, PartialEq, Eq)]
pub struct AdmissionSecret {
    mesh: MeshId,
    secret: [u8; 32],
}

/// The mesh's root: whoever has it decides who may publish.
#[derive(Clone)]
pub struct RootKey {
    key: SigningKey,
}

/// Why a mesh file or root key is of no use.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// It cannot be read.
    #[error(
        "cannot read the mesh file {path}: {source}; copy it from a node of the mesh, or run: waystation mesh new"
    )]
    Read {
        /// The mesh file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be written.
    #[error(
        "cannot write {path}: {source}; make its directory writable for the user that runs this, or free space"
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is of a version that this program does not know.
    #[error(
        "the mesh file is of version {found}, this program reads version {VERSION}; use a newer waystation"
    )]
    Version {
        /// What the file says.
        found: i64,
    },
    /// It is no mesh file.
    #[error("not a mesh file: {0}; copy it anew from a node of the mesh")]
    Malformed(String),
    /// The root key file is of no use.
    #[error(transparent)]
    RootKey(#[from] IdentityError),
    /// There is no root key.
    #[error("there is no root key at {0}; run this on the machine that created the mesh")]
    NoRootKey(PathBuf),
}

impl MeshFile {
    /// Longest mesh file in bytes.
    pub const MAX_BYTES: u64 = 64 * 1024;
    /// Most join addresses.
    pub const MAX_JOIN: usize = 64;

    /// A new mesh and its root key.
    pub fn create() -> (MeshFile, RootKey) {
        let root = RootKey { key: SigningKey::from_bytes(&identity::random_bytes()) };
        (MeshFile::of_root(&root), root)
    }

    /// The mesh of a root key that has no mesh file yet, with a new admission secret.
    pub fn of_root(root: &RootKey) -> MeshFile {
        let trust = Trust { mesh: root.mesh(), root: root.key.verifying_key() };
        let admission = AdmissionSecret { mesh: trust.mesh, secret: identity::random_bytes() };
        MeshFile { trust, admission, join: Vec::new() }
    }

    /// Reads and checks a mesh file.
    pub fn load(path: &Path) -> Result<Self, MeshError> {
        let text = identity::read_bounded(path, Self::MAX_BYTES)
            .map_err(|source| MeshError::Read { path: path.into(), source })?;
        identity::warn_if_others_can_read(path);
        Self::parse(&text)
    }

    /// Checks a mesh file's text.
    pub fn parse(text: &str) -> Result<Self, MeshError> {
        // The parser's own message quotes the line, which may be the secret's.
        let malformed = |error: toml::de::Error| MeshError::Malformed(error.message().into());
        let table: toml::Table = text.parse().map_err(malformed)?;
        // Before anything else: a later version may have other keys.
        match table.get("version").and_then(toml::Value::as_integer) {
            Some(VERSION) => {}
            Some(found) => return Err(MeshError::Version { found }),
            None => return Err(MeshError::Malformed("`version = 1` is missing".into())),
        }
        Document::deserialize(table).map_err(malformed)?.check()
    }

    /// The file's text. Holds the admission secret.
    pub fn to_toml(&self) -> String {
        let document = Document {
            version: VERSION,
            mesh: self.trust.mesh.to_string(),
            root: self.root().to_string(),
            admission: HEXLOWER.encode(&self.admission.secret),
            join: self.join.clone(),
        };
        let body = toml::to_string(&document).expect("strings and numbers always encode");
        format!("{HEADER}{body}")
    }

    /// Writes the file, readable for its owner only, in one step.
    pub fn save(&self, path: &Path) -> Result<(), MeshError> {
        identity::write_private(path, &self.to_toml(), Existing::Replace)
            .map_err(|source| MeshError::Write { path: path.into(), source })
    }

    /// Which mesh it is.
    pub fn mesh(&self) -> MeshId {
        self.trust.mesh
    }

    /// The root's public key.
    pub fn root(&self) -> NodeId {
        NodeId(self.trust.root.to_bytes())
    }

    /// Whose signatures count.
    pub fn trust(&self) -> Trust {
        self.trust.clone()
    }

    /// The secret that lets a node in.
    pub fn admission(&self) -> &AdmissionSecret {
        &self.admission
    }

    /// Where to find the mesh, `host:port`.
    pub fn join(&self) -> &[String] {
        &self.join
    }

    /// The same mesh with other join addresses.
    pub fn with_join(self, join: Vec<String>) -> Result<Self, MeshError> {
        check_join(&join)?;
        Ok(MeshFile { join, ..self })
    }
}

impl AdmissionSecret {
    /// A key for one purpose in this mesh. `purpose` is a fixed text that nothing else uses.
    pub fn derive(&self, purpose: &'static str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(&format!("waystation admission v1: {purpose}"));
        hasher.update(&self.secret).update(&self.mesh.0);
        *hasher.finalize().as_bytes()
    }
}

impl RootKey {
    /// Reads a root key file.
    pub fn load(path: &Path) -> Result<Self, MeshError> {
        let seed = identity::read_seed(path)?.ok_or_else(|| MeshError::NoRootKey(path.into()))?;
        Ok(RootKey { key: SigningKey::from_bytes(&seed) })
    }

    /// Writes the key, readable for its owner only. Never replaces another: whoever loses a root key can
    /// issue no grant any more.
    pub fn save(&self, path: &Path) -> Result<(), MeshError> {
        identity::write_private(path, &identity::seed_text(&self.key.to_bytes()), Existing::Keep)
            .map_err(|source| MeshError::Write { path: path.into(), source })
    }

    /// The mesh that it is the root of.
    pub fn mesh(&self) -> MeshId {
        MeshId::of_root(&self.public())
    }

    /// The public half.
    pub fn public(&self) -> NodeId {
        NodeId(self.key.verifying_key().to_bytes())
    }

    /// Gives `subject` leave to do `actions` in `repositories`. Of several grants to one node the one with
    /// the highest `serial` is used first.
    pub fn issue_grant(
        &self,
        subject: NodeId,
        repositories: Glob,
        actions: Actions,
        expires: Option<Wall>,
        serial: u64,
    ) -> Grant {
        Grant::issue(&self.mesh(), &self.key, subject, repositories, actions, expires, serial)
    }
}

impl fmt::Debug for AdmissionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdmissionSecret(…)")
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootKey(of mesh {})", self.mesh().short())
    }
}

/// The file as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: i64,
    mesh: String,
    root: String,
    admission: String,
    #[serde(default)]
    join: Vec<String>,
}

impl Document {
    fn check(self) -> Result<MeshFile, MeshError> {
        let named = |name: &str, why: &str| MeshError::Malformed(format!("`{name}`: {why}"));
        let mesh: MeshId = self.mesh.parse().map_err(|error| named("mesh", &format!("{error}")))?;
        let root: NodeId = self.root.parse().map_err(|error| named("root", &format!("{error}")))?;
        if mesh != MeshId::of_root(&root) {
            return Err(named("mesh", "is not the id of the mesh with this `root`"));
        }
        let root = VerifyingKey::from_bytes(&root.0).map_err(|_| named("root", "is not a public key"))?;
        let secret = identity::decode_secret(&self.admission)
            .ok_or_else(|| named("admission", "must be 64 lowercase hexadecimal digits"))?;
        check_join(&self.join)?;
        let admission = AdmissionSecret { mesh, secret };
        Ok(MeshFile { trust: Trust { mesh, root }, admission, join: self.join })
    }
}

fn check_join(join: &[String]) -> Result<(), MeshError> {
    if join.len() > MeshFile::MAX_JOIN {
        return Err(MeshError::Malformed(format!("`join` has more than {} addresses", MeshFile::MAX_JOIN)));
    }
    match join.iter().find(|address| !is_host_and_port(address)) {
        Some(address) => Err(MeshError::Malformed(format!("`join`: {address:?} is not host:port"))),
        None => Ok(()),
    }
}

/// Whether this could be dialled: a name or address, a colon, a port. IPv6 addresses stand in brackets.
fn is_host_and_port(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_fits = match bracketed {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
            !host.is_empty() && host.bytes().all(allowed)
        }
    };
    address.len() <= 255 && host_fits && port.parse::<u16>().is_ok_and(|port| port != 0)
}

const VERSION: i64 = 1;

const HEADER: &str =
    "# Lets a machine join this Waystation mesh and read what is in it. Keep it as a secret.\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_round_trips() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("mesh.toml");
        let (mesh, root) = MeshFile::create();
        let mesh = mesh.with_join(vec!["hub.example:4717".into(), "[::1]:4717".into()]).expect("valid");
        mesh.save(&path).expect("written");
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().expect("is there").permissions());
        assert_eq!(mode & 0o777, 0o600);
        let read = MeshFile::load(&path).expect("valid");
        assert_eq!(read.to_toml(), mesh.to_toml());
        assert_eq!((read.mesh(), read.root()), (root.mesh(), root.public()));
        assert_eq!(read.join(), mesh.join());
        assert_eq!(read.admission(), mesh.admission());
        assert!(matches!(MeshFile::load(dir.path()), Err(MeshError::Read { .. })));
    }

    #[test]
    fn every_bad_form_is_refused_and_no_secret_is_told() {
        let (mesh, _) = MeshFile::create();
        let good = mesh.to_toml();
        let secret = HEXLOWER.encode(&mesh.admission.secret);
        let id = mesh.mesh().to_string();
        let bad = [
            ("no version", good.replace("version = 1", "")),
            ("unknown key", format!("{good}colour = \"red\"\n")),
            ("mesh of another root", good.replace(&id, &"0".repeat(64))),
            ("short mesh", good.replace(&id, "00")),
            ("no root", good.replace("root =", "# root =")),
            ("root that is no key", good.replace(&mesh.root().to_string(), &"g".repeat(64))),
            ("short secret", good.replace(&secret, &secret[1..])),
            ("cut secret line", good.replace(&format!("{secret}\""), &secret)),
            ("join without port", good.replace("join = []", "join = [\"hub\"]")),
            ("join with a scheme", good.replace("join = []", "join = [\"http://hub:1\"]")),
            ("bare IPv6", good.replace("join = []", "join = [\"::1:4717\"]")),
            ("not TOML", "mesh".into()),
            ("empty", String::new()),
        ];
        for (what, text) in bad {
            assert_ne!(text, good, "{what}");
            let error = MeshFile::parse(&text).expect_err(what);
            assert!(matches!(error, MeshError::Malformed(_)), "{what}: {error}");
            assert!(!error.to_string().contains(&secret[1..]), "{what}");
        }
        let later = good.replace("version = 1", "version = 2\nnew = true");
        assert!(matches!(MeshFile::parse(&later), Err(MeshError::Version { found: 2 })));
        assert!(!format!("{mesh:?}").contains(&secret));
    }

    #[test]
    fn derived_keys_depend_on_purpose_secret_and_mesh() {
        let (one, _) = MeshFile::create();
        let (two, _) = MeshFile::create();
        let moved = AdmissionSecret { mesh: two.mesh(), ..one.admission.clone() };
        let keys = [
            one.admission().derive("a"),
            one.admission().derive("b"),
            two.admission().derive("a"),
            moved.derive("a"),
        ];
        for (n, key) in keys.iter().enumerate() {
            assert!(!keys[..n].contains(key));
        }
        assert_eq!(keys[0], one.admission().derive("a"));
    }

    #[test]
    fn root_key_issues_grants_and_is_never_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("root.key");
        assert!(matches!(RootKey::load(&path), Err(MeshError::NoRootKey(_))));
        let (mesh, root) = MeshFile::create();
        root.save(&path).expect("written");
        let loaded = RootKey::load(&path).expect("valid");
        let grant = loaded.issue_grant(NodeId([1; 32]), Glob::everything(), Actions::ALL, None, 1);
        assert!(grant.is_signed_by(&mesh.mesh(), &mesh.trust().root));
        let (_, other) = MeshFile::create();
        assert!(matches!(other.save(&path), Err(MeshError::Write { .. })));
        assert_eq!(RootKey::load(&path).expect("still there").public(), root.public());
    }
}
