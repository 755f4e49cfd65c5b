//! Several nodes of one mesh: the first makes it, the others join with the file that it exports.

use std::{
    fs,
    ops::{Index, IndexMut},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{
    node::{Node, Options, temp_dir},
    wait::until_true,
};

/// A mesh on this machine. Only the first node may publish until others are granted it.
pub struct Cluster {
    nodes: Vec<Node>,
    mesh_file: PathBuf,
    _folder: TempDir,
}

impl Cluster {
    /// So many nodes, each at a site of its own, all connected.
    #[track_caller]
    pub fn start(nodes: usize) -> Self {
        let sites: Vec<_> = (0..nodes).map(|n| format!("site-{n}")).collect();
        Self::at_sites(&sites.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// A node at each of these sites, all connected.
    #[track_caller]
    pub fn at_sites(sites: &[&str]) -> Self {
        let first = Node::start(Options::site(sites[0]));
        let folder = temp_dir("mesh");
        let mesh_file = folder.path().join("mesh.toml");
        export_mesh(&first, &mesh_file);
        let mut cluster = Cluster { nodes: vec![first], mesh_file, _folder: folder };
        let mut joining: Vec<_> =
            sites[1..].iter().map(|site| Node::stopped(cluster.options(site))).collect();
        joining.iter_mut().for_each(Node::spawn);
        joining.iter_mut().for_each(Node::wait_until_ready);
        cluster.nodes.extend(joining);
        cluster.wait_until_connected();
        cluster
    }

    /// How another node of this mesh is started.
    pub fn options(&self, site: &str) -> Options {
        let join = vec![self.nodes[0].ready("join").to_owned()];
        Options { join, ..Options::site(site).mesh(&self.mesh_file) }
    }

    /// Lets a node publish in all repositories, and waits until it may.
    #[track_caller]
    pub fn grant(&self, node: usize) {
        let id = self.nodes[node].id();
        self.nodes[0].cli(&["mesh", "grant", id, "--repositories", "**"]).expect(0);
        let registry = self.nodes[node].registry();
        until_true("a granted node may publish", || {
            registry.http.request("POST", "/v2/granted/blobs/uploads/").send().status == 202
        });
    }

    /// Waits until every node has a session with every other.
    #[track_caller]
    pub fn wait_until_connected(&self) {
        for node in &self.nodes {
            until_true(&format!("node {} is connected to all others", node.id()), || {
                let sessions = node.sessions();
                self.nodes
                    .iter()
                    .all(|other| other.id() == node.id() || sessions.contains(&other.id().to_owned()))
            });
        }
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Node> {
        self.nodes.iter()
    }
}

impl Index<usize> for Cluster {
    type Output = Node;

    fn index(&self, n: usize) -> &Node {
        &self.nodes[n]
    }
}

impl IndexMut<usize> for Cluster {
    fn index_mut(&mut self, n: usize) -> &mut Node {
        &mut self.nodes[n]
    }
}

/// Writes the mesh file that others join with.
#[track_caller]
pub fn export_mesh(node: &Node, file: &Path) {
    let exported = node.cli(&["mesh", "export"]).expect(0);
    // It holds a secret; nodes warn where others may read it.
    fs::write(file, exported.stdout).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}
