//! Who a data directory belongs to: its node key, its mesh, and the mesh's root key where it was made
//! here. The formats are [`crate::identity`]'s and [`crate::mesh`]'s.

use std::path::{Path, PathBuf};

use waystation_proto::MeshId;

use crate::{
    config::NodeConfig,
    identity::{self, Existing, Identity, IdentityError},
    mesh::{MeshError, MeshFile, RootKey},
};

/// A data directory's keys and mesh.
pub struct Home {
    /// This node.
    pub identity: Identity,
    /// The mesh that it is in.
    pub mesh: MeshFile,
    /// The mesh's root key, on the node that made the mesh.
    pub root: Option<RootKey>,
    /// Whether other machines have reason to connect: the mesh file came from elsewhere or was exported.
    pub shared: bool,
}

/// Why a data directory has no usable identity.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The node key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The mesh file or the root key.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// The directory is of another mesh than the file given.
    #[error(
        "the data directory {data_dir} belongs to mesh {belongs}, not to mesh {given} of the mesh file given; \
         give another --data-dir, or leave --mesh out"
    )]
    OtherMesh {
        /// The directory.
        data_dir: PathBuf,
        /// Its mesh.
        belongs: String,
        /// The mesh of the file.
        given: String,
    },
    /// The marker could not be written.
    #[error(
        "{path} could not be written: {why}; make its directory writable for the user that runs the node, or free space"
    )]
    Unwritable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        why: std::io::Error,
    },
}

impl Home {
    /// Reads what is there and makes what is missing: a key, and a mesh where none is given and the
    /// directory has none. A mesh file given here is kept, so that it need not be given again. The caller
    /// has locked the directory.
    pub fn open(node: &NodeConfig, mesh_file: Option<&Path>) -> Result<Self, HomeError> {
        // Read first: a bad mesh file must not leave a half-made directory.
        let given = mesh_file.map(MeshFile::load).transpose()?;
        let identity = Identity::load_or_create(&node.data_dir.join(NODE_KEY))?;
        let (own, root_key) = (node.mesh_path(), node.root_key_path());
        let kept = if own.exists() { Some(MeshFile::load(&own)?) } else { None };
        let mesh = match (given, kept) {
            (Some(given), Some(kept)) if given.mesh() != kept.mesh() => {
                return Err(other_mesh(&node.data_dir, kept.mesh(), given.mesh()));
            }
            (Some(given), _) => {
                // First the marker: a node that kept the mesh without it would listen to itself only.
                mark_shared(node.shared_marker())?;
                given.save(&own)?;
                given
            }
            (None, Some(kept)) => kept,
            (None, None) => {
                let mesh = new_mesh(&root_key)?;
                mesh.save(&own)?;
                mesh
            }
        };
        let root = if root_key.exists() { Some(RootKey::load(&root_key)?) } else { None };
        let root = root.filter(|root| root.mesh() == mesh.mesh());
        Ok(Home { identity, mesh, root, shared: node.shared_marker().exists() })
    }
}

/// A mesh whose root key is on disk. The power may have failed between that key and the mesh file: then it is
/// the key of this mesh.
fn new_mesh(root_key: &Path) -> Result<MeshFile, HomeError> {
    if root_key.exists() {
        return Ok(MeshFile::of_root(&RootKey::load(root_key)?));
    }
    let (mesh, root) = MeshFile::create();
    root.save(root_key)?;
    Ok(mesh)
}

/// Notes, through a power cut, that other machines have reason to connect.
fn mark_shared(path: PathBuf) -> Result<(), HomeError> {
    identity::write_private(&path, "", Existing::Replace).map_err(|why| HomeError::Unwritable { path, why })
}

fn other_mesh(data_dir: &Path, belongs: MeshId, given: MeshId) -> HomeError {
    let (belongs, given) = (belongs.short(), given.short());
    HomeError::OtherMesh { data_dir: data_dir.to_owned(), belongs, given }
}

/// The node's secret key, in the data directory.
const NODE_KEY: &str = "node.key";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_directory_makes_a_mesh_and_keeps_it() {
        let dir = tempfile::tempdir().expect("tempdir");
        let node = NodeConfig { data_dir: dir.path().to_owned(), ..NodeConfig::default() };
        let first = Home::open(&node, None).expect("made");
        assert!(first.root.is_some() && !first.shared);
        let again = Home::open(&node, None).expect("read");
        assert_eq!(first.identity.node_id(), again.identity.node_id());
        assert_eq!(first.mesh.mesh(), again.mesh.mesh());
    }

    #[test]
    fn power_may_fail_while_a_mesh_is_made() {
        let dir = tempfile::tempdir().expect("tempdir");
        let node = NodeConfig { data_dir: dir.path().to_owned(), ..NodeConfig::default() };
        MeshFile::create().1.save(&node.root_key_path()).expect("saved");
        let home = Home::open(&node, None).expect("goes on from there");
        assert_eq!(home.root.map(|root| root.mesh()), Some(home.mesh.mesh()));
    }

    #[test]
    fn a_given_mesh_is_kept_and_another_is_refused() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (one, two) = (dir.path().join("one.toml"), dir.path().join("two.toml"));
        MeshFile::create().0.save(&one).expect("saved");
        MeshFile::create().0.save(&two).expect("saved");
        let data = NodeConfig { data_dir: dir.path().join("data"), ..NodeConfig::default() };
        std::fs::create_dir(&data.data_dir).expect("made");
        let joined = Home::open(&data, Some(&one)).expect("joined");
        assert!(joined.root.is_none() && joined.shared);
        assert!(Home::open(&data, None).is_ok_and(|home| home.mesh.mesh() == joined.mesh.mesh()));
        assert!(matches!(Home::open(&data, Some(&two)), Err(HomeError::OtherMesh { .. })));
    }
}
