//! Whether the container engines of this machine ask the node. Looks for the node's address in the files that
//! `waystation client-config` writes; what belongs there is that command's business.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::Finding;

/// An engine, what shows that it is here, and where it would name the node.
struct Engine {
    name: &'static str,
    signs: &'static [&'static str],
    files: &'static [&'static str],
}

/// What there is to be said of each engine that is here.
pub(super) fn examine(root: &Path, node: SocketAddr) -> Vec<Finding> {
    let here = |engine: &&Engine| engine.signs.iter().any(|sign| below(root, sign).exists());
    let found: Vec<Finding> = ENGINES.iter().filter(here).map(|engine| judge(root, engine, node)).collect();
    if found.is_empty() {
        return vec![Finding::ok("clients", "no container engine that is known was found on this machine")];
    }
    found
}

fn judge(root: &Path, engine: &Engine, node: SocketAddr) -> Finding {
    let name = engine.name;
    let names_node = |text: &str| names(node).iter().any(|name| text.contains(name.as_str()));
    let texts = texts(root, engine);
    let write = format!("waystation client-config {name} --write");
    let journal = below(root, "/etc/waystation/client-config").join(format!("{name}.json"));
    match texts.iter().find(|(_, text)| names_node(text)) {
        Some((file, _)) if name == "containerd" && !has_config_path(root) => Finding::warn(
            "clients",
            format!("{} names the node, but containerd is not told to read it", file.display()),
            "put config_path = \"/etc/containerd/certs.d\" into /etc/containerd/config.toml and restart containerd",
        ),
        Some((file, _)) => Finding::ok("clients", format!("{name} asks this node ({})", file.display())),
        None if journal.exists() => Finding::warn(
            "clients",
            format!("{name} was set up to ask a node, but not at {node}"),
            format!("{write} (the node's address may have changed)"),
        ),
        None => Finding::ok("clients", format!("{name} is here and does not ask this node"))
            .because(format!("to let it: {write}")),
    }
}

/// How files may call the node: on loopback also by name.
fn names(node: SocketAddr) -> Vec<String> {
    let port = node.port();
    let mut names = vec![node.to_string()];
    if node.ip().is_loopback() || node.ip().is_unspecified() {
        names.extend([format!("127.0.0.1:{port}"), format!("localhost:{port}"), format!("[::1]:{port}")]);
    }
    names
}

/// The files of an engine; one whose name is a folder's is every file in it, one folder deep.
fn texts(root: &Path, engine: &Engine) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for path in engine.files.iter().map(|file| below(root, file)) {
        let entries = |dir: &Path| {
            let read = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
            read.map(|entry| entry.path()).take(FILES_MAX).collect::<Vec<_>>()
        };
        if path.is_dir() {
            for inner in entries(&path) {
                if inner.is_dir() { files.extend(entries(&inner)) } else { files.push(inner) }
            }
        } else {
            files.push(path);
        }
    }
    let small =
        |file: &PathBuf| fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.len() <= BYTES_MAX);
    files
        .into_iter()
        .filter(small)
        .filter_map(|file| Some((file.clone(), fs::read_to_string(file).ok()?)))
        .collect()
}

fn has_config_path(root: &Path) -> bool {
    let config = fs::read_to_string(below(root, "/etc/containerd/config.toml")).unwrap_or_default();
    config.lines().any(|line| line.trim_start().starts_with("config_path"))
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

const ENGINES: &[Engine] = &[
    Engine {
        name: "containerd",
        signs: &["/usr/bin/containerd", "/usr/local/bin/containerd", "/etc/containerd"],
        files: &["/etc/containerd/certs.d"],
    },
    Engine {
        name: "docker",
        signs: &["/usr/bin/dockerd", "/usr/local/bin/dockerd", "/etc/docker"],
        files: &["/etc/docker/daemon.json"],
    },
    Engine {
        name: "podman",
        signs: &["/usr/bin/podman", "/usr/bin/crio", "/etc/containers"],
        files: &["/etc/containers/registries.conf", "/etc/containers/registries.conf.d"],
    },
    Engine {
        name: "k3s",
        signs: &["/usr/local/bin/k3s", "/etc/rancher/k3s"],
        files: &["/etc/rancher/k3s/registries.yaml"],
    },
];
const FILES_MAX: usize = 1000;
const BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn engines_are_found_and_what_they_ask() {
        let root = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = below(root.path(), path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        };
        let node: SocketAddr = "127.0.0.1:5000".parse().expect("valid");
        let look = || examine(root.path(), node);
        assert!(look()[0].what.contains("no container engine"));
        write("/etc/docker/daemon.json", "{}");
        assert!(
            look()[0].level == Level::Ok
                && look()[0].why.as_ref().expect("told").contains("client-config docker")
        );
        write("/etc/docker/daemon.json", r#"{"registry-mirrors": ["http://localhost:5000"]}"#);
        assert!(look()[0].what.contains("docker asks this node"));
        write("/etc/waystation/client-config/docker.json", "{}");
        write("/etc/docker/daemon.json", r#"{"registry-mirrors": ["http://localhost:5999"]}"#);
        assert_eq!(look()[0].level, Level::Warn);
        write("/etc/containerd/certs.d/docker.io/hosts.toml", "[host.\"http://127.0.0.1:5000\"]");
        assert!(look()[0].todo.as_ref().expect("told").contains("config_path"));
        write("/etc/containerd/config.toml", "  config_path = \"/etc/containerd/certs.d\"\n");
        assert!(look()[0].what.contains("containerd asks this node"));
    }
}
