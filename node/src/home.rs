//! Who a data directory belongs to: its node key, its mesh, and the mesh's root key where it was made
//! here. The formats are [`crate::identity`]'s and [`crate::mesh`]'s.

use std::path::{Path, PathBuf};

use waystation_proto::MeshId;

use crate::{
    identity::{Identity, IdentityError},
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
    #[error("{path} could not be written: {why}")]
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
    pub fn open(data_dir: &Path, mesh_file: Option<&Path>) -> Result<Self, HomeError> {
        // Read first: a bad mesh file must not leave a half-made directory.
        let given = mesh_file.map(MeshFile::load).transpose()?;
        let identity = Identity::load_or_create(&data_dir.join(NODE_KEY))?;
        let own = data_dir.join(MESH_FILE);
        let kept = if own.exists() { Some(MeshFile::load(&own)?) } else { None };
        let root_key = data_dir.join(ROOT_KEY);
        let mesh = match (given, kept) {
            (Some(given), Some(kept)) if given.mesh() != kept.mesh() => {
                return Err(other_mesh(data_dir, kept.mesh(), given.mesh()));
            }
            (Some(given), _) => {
                given.save(&own)?;
                mark_shared(data_dir)?;
                given
            }
            (None, Some(kept)) => kept,
            (None, None) => {
                let (mesh, root) = MeshFile::create();
                root.save(&root_key)?;
                mesh.save(&own)?;
                mesh
            }
        };
        let root = if root_key.exists() { Some(RootKey::load(&root_key)?) } else { None };
        let root = root.filter(|root| root.mesh() == mesh.mesh());
        let shared = data_dir.join(SHARED).exists();
        Ok(Home { identity, mesh, root, shared })
    }
}

/// Notes that other machines have reason to connect, from the next start on.
pub fn mark_shared(data_dir: &Path) -> Result<(), HomeError> {
    let path = data_dir.join(SHARED);
    std::fs::write(&path, "This mesh is shared: the node listens for others.\n")
        .map_err(|why| HomeError::Unwritable { path, why })
}

fn other_mesh(data_dir: &Path, belongs: MeshId, given: MeshId) -> HomeError {
    let (belongs, given) = (belongs.short(), given.short());
    HomeError::OtherMesh { data_dir: data_dir.to_owned(), belongs, given }
}

/// The node's secret key.
pub const NODE_KEY: &str = "node.key";
/// The mesh file.
pub const MESH_FILE: &str = "mesh.toml";
/// The mesh's root key.
pub const ROOT_KEY: &str = "root.key";
/// Present once the mesh is shared.
pub const SHARED: &str = "mesh.shared";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_directory_makes_a_mesh_and_keeps_it() {
        let dir = tempfile::tempdir().expect("tempdir");
        let first = Home::open(dir.path(), None).expect("made");
        assert!(first.root.is_some() && !first.shared);
        let again = Home::open(dir.path(), None).expect("read");
        assert_eq!(first.identity.node_id(), again.identity.node_id());
        assert_eq!(first.mesh.mesh(), again.mesh.mesh());
    }

    #[test]
    fn a_given_mesh_is_kept_and_another_is_refused() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (one, two) = (dir.path().join("one.toml"), dir.path().join("two.toml"));
        MeshFile::create().0.save(&one).expect("saved");
        MeshFile::create().0.save(&two).expect("saved");
        let data = dir.path().join("data");
        std::fs::create_dir(&data).expect("made");
        let joined = Home::open(&data, Some(&one)).expect("joined");
        assert!(joined.root.is_none() && joined.shared);
        assert!(Home::open(&data, None).is_ok_and(|home| home.mesh.mesh() == joined.mesh.mesh()));
        assert!(matches!(Home::open(&data, Some(&two)), Err(HomeError::OtherMesh { .. })));
    }
}
