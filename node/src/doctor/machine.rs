//! What can be seen of a node's machine without the node, for when it does not run, or does not run well: its
//! configuration, data directory, disk, mesh file, clock and ports, and whether container engines ask it.

use std::{
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use waystation_proto::Wall;

use super::{Finding, clients, disk, now, ports};
use crate::{config::Config, identity::Identity, mesh::MeshFile};

/// What is looked at.
pub struct Machine {
    /// The configuration file, where one was named.
    pub config: Option<PathBuf>,
    /// The data directory.
    pub data_dir: PathBuf,
    /// Where the node listens, where it runs: registry, admin, mesh.
    pub listens: Option<[SocketAddr; 3]>,
    /// Below which the files of container engines are.
    pub root: PathBuf,
}

/// All of it.
pub async fn examine(machine: &Machine) -> Vec<Finding> {
    let (mut found, config) = configuration(machine.config.as_deref());
    found.push(clock(now()));
    found.push(data_dir(&machine.data_dir));
    if machine.data_dir.is_dir() {
        found.extend(disk::examine(&machine.data_dir));
        found.extend(mesh(&machine.data_dir));
    }
    match &machine.listens {
        Some(listens) => found.extend(ports::answering(listens).await),
        None => found.extend(ports::free(&config, &machine.data_dir)),
    }
    let registry = machine.listens.map_or(config.registry.listen, |listens| listens[0]);
    found.extend(clients::examine(&machine.root, registry));
    found
}

fn configuration(path: Option<&Path>) -> (Vec<Finding>, Config) {
    let Some(path) = path else { return (vec![], Config::default()) };
    let todo = "configs/node.toml of the source lists every key; waystation serve --help the flags";
    let fail = |line: &str| Finding::fail("config", line, todo);
    match Config::read(path).and_then(|config| config.check().map(|()| config)) {
        Ok(config) => (vec![Finding::ok("config", format!("{} can be used", path.display()))], config),
        Err(error) => (error.to_string().lines().map(fail).collect(), Config::default()),
    }
}

fn clock(now: Wall) -> Finding {
    if now.is_plausible() {
        return Finding::ok("clock", "this machine's clock has been set");
    }
    Finding::warn(
        "clock",
        "this machine's clock was never set (it is about 1970 here)",
        "set it: chrony, ntpd, or date -s",
    )
    .because("the node works; ages, ends of grants and certificates cannot be judged")
}

/// That it is there, whose it is, and who else may write to it.
fn data_dir(dir: &Path) -> Finding {
    let name = dir.display();
    let meta = match std::fs::metadata(dir) {
        Ok(meta) => meta,
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => {
            let todo = "nothing, if the node was never started with it; otherwise name the right one with --data-dir";
            return Finding::warn("data-dir", format!("{name} is not there"), todo);
        }
        Err(why) => {
            let todo = "run this as the user that runs the node";
            return Finding::fail("data-dir", format!("{name} cannot be looked at: {why}"), todo);
        }
    };
    let uid = rustix::process::geteuid().as_raw();
    if !meta.is_dir() {
        return Finding::fail(
            "data-dir",
            format!("{name} is not a directory"),
            "name another with --data-dir",
        );
    }
    if meta.uid() != uid {
        let todo = "run the node, and this, as the user that owns it; or change its owner";
        let what = format!("{name} belongs to user {}, and this runs as user {uid}", meta.uid());
        return if uid == 0 {
            Finding::warn("data-dir", what, todo)
        } else {
            Finding::fail("data-dir", what, todo)
        };
    }
    if meta.mode() & 0o022 != 0 {
        let todo = format!("chmod go-w {name}");
        return Finding::warn("data-dir", format!("others can write to {name}"), todo)
            .because("they could put a socket or files of their own in the place of the node's");
    }
    Finding::ok("data-dir", format!("{name} belongs to this user"))
}

/// The node's key, the mesh file and the root key, as they are on disk.
fn mesh(dir: &Path) -> Vec<Finding> {
    let mut found = Vec::new();
    let (key, file, root) = (dir.join("node.key"), dir.join("mesh.toml"), dir.join("root.key"));
    if !key.exists() && !file.exists() {
        found.push(Finding::ok("mesh", "no key and no mesh yet: the first start makes them"));
        return found;
    }
    // It is there, so nothing is made.
    if key.exists() {
        found.push(match Identity::load_or_create(&key) {
            Ok(identity) => Finding::ok("key", format!("this is node {}", identity.node_id())),
            Err(why) => Finding::fail("key", why.to_string(), "as it says"),
        });
    }
    found.push(match MeshFile::load(&file) {
        Ok(mesh) => {
            let join = mesh.join().len();
            Finding::ok(
                "mesh",
                format!("the mesh file is of mesh {}, with {join} addresses to join at", mesh.mesh().short()),
            )
        }
        Err(why) => Finding::fail(
            "mesh",
            why.to_string(),
            "copy the mesh file anew: waystation mesh export on a node of the mesh",
        ),
    });
    for secret in [&key, &file, &root] {
        let open = std::fs::metadata(secret).is_ok_and(|meta| meta.mode() & 0o077 != 0);
        if open {
            let (name, todo) = (secret.display(), format!("chmod 600 {}", secret.display()));
            found.push(Finding::warn("secrets", format!("others can read {name}"), todo));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::doctor::Level;

    #[test]
    fn a_broken_configuration_is_told_line_by_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("node.toml");
        fs::write(&file, "[node]\nsight = 1\ntier = \"fog\"\n").expect("written");
        let (found, _) = configuration(Some(&file));
        assert_eq!(found.iter().filter(|finding| finding.level == Level::Fail).count(), 2, "{found:?}");
        fs::write(&file, "[node]\nsite = \"a\"\n").expect("written");
        assert_eq!(configuration(Some(&file)).0[0].level, Level::Ok);
        assert!(configuration(None).0.is_empty());
    }

    #[test]
    fn clocks_and_directories() {
        assert_eq!((clock(Wall(100)).level, clock(Wall(1_800_000_000)).level), (Level::Warn, Level::Ok));
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("data");
        assert_eq!(data_dir(&data).level, Level::Warn);
        fs::write(&data, "").expect("written");
        assert_eq!(data_dir(&data).level, Level::Fail);
        assert_eq!(data_dir(dir.path()).level, Level::Ok);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).expect("set");
        assert!(data_dir(dir.path()).todo.expect("told").contains("chmod go-w"));
    }

    #[test]
    fn what_is_wrong_with_keys_and_mesh_files_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(mesh(dir.path()).iter().map(|finding| finding.level).max(), Some(Level::Ok));
        fs::write(dir.path().join("mesh.toml"), "version = 9\n").expect("written");
        fs::write(dir.path().join("node.key"), "junk").expect("written");
        let found = mesh(dir.path());
        let of = |check: &str| found.iter().find(|finding| finding.check == check).expect("told").level;
        assert_eq!((of("key"), of("mesh"), of("secrets")), (Level::Fail, Level::Fail, Level::Warn));
    }
}
