//! Tools that ask a node for what another registry has, by the registry's name in the path: what came once comes
//! again while that registry is away. Engines with mirrors of their own configuration are in [`super::mirror`].

use std::{fs, path::Path};

use tempfile::TempDir;

use super::image;
use crate::harness::{
    clients::{Client, digest_in, outcome, podman::Podman, run},
    image::{Image, digest, random_bytes, to_bytes},
    node::{Node, Options, temp_dir},
    upstream::Upstream,
};

/// A node in front of a registry that has one image as `library/app:v1`.
struct Front {
    upstream: Upstream,
    node: Node,
    folder: TempDir,
}

impl Front {
    #[track_caller]
    fn of(image: &Image) -> Self {
        let (upstream, folder) = (Upstream::start(), temp_dir("front"));
        upstream.add("library/app", "v1", image);
        let node = behind(folder.path(), &upstream.config("docker.io", ""));
        Front { upstream, node, folder }
    }

    fn name(&self) -> String {
        format!("{}/docker.io/library/app:v1", self.node.ready("listen"))
    }

    /// Does it while the registry is there and again while it is not.
    fn twice(&self, pull: impl Fn(usize)) {
        pull(0);
        self.upstream.set(|faults| faults.down = true);
        pull(1);
    }

    #[track_caller]
    fn assert_downloaded_once(&self, image: &Image) {
        for layer in &image.layers {
            assert_eq!(self.upstream.count("GET", &digest(layer)), 1, "a layer is downloaded once");
        }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

/// A node with this configuration.
#[track_caller]
fn behind(folder: &Path, config: &str) -> Node {
    let file = folder.join("node.toml");
    fs::write(&file, config).unwrap();
    let extra = vec!["--config".to_owned(), file.display().to_string()];
    Node::start(Options { extra, ..Options::site("edge") })
}

#[test]
fn skopeo_copies_through() {
    let Some(skopeo) = Client::find("skopeo", &["--version"]) else { return };
    let image = image();
    let front = Front::of(&image);
    let from = format!("docker://{}", front.name());
    front.twice(|n| {
        let out = front.file(&format!("out-{n}"));
        let copy = ["--insecure-policy", "copy", "--src-tls-verify=false", &from, &format!("dir:{out}")];
        skopeo.run(&copy);
        assert_eq!(fs::read(format!("{out}/manifest.json")).unwrap(), image.manifest);
        for blob in image.blobs() {
            let copied = fs::read(format!("{out}/{}", digest(blob).trim_start_matches("sha256:"))).unwrap();
            assert!(copied == *blob, "other bytes came");
        }
        let inspected = skopeo.run(&["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &from]);
        assert_eq!(inspected.trim(), image.digest());
    });
    front.assert_downloaded_once(&image);
}

#[test]
fn buildah_builds_on_what_came_through() {
    let image = image();
    let front = Front::of(&image);
    let from = format!("docker://{}", front.name());
    front.twice(|_| {
        // A store of its own each time, so that everything is asked for.
        let Some(buildah) = Podman::new("buildah", "vfs") else { return };
        let container = buildah.run(&["from", "--tls-verify=false", &from]);
        let base = ["inspect", "--format", "{{.FromImageDigest}}", container.trim()];
        assert_eq!(buildah.run(&base).trim(), image.digest());
    });
}

#[test]
fn crane_pulls_through() {
    let Some(crane) = Client::find("crane", &["version"]) else { return };
    let image = image();
    let front = Front::of(&image);
    front.twice(|n| {
        let name = front.name();
        assert_eq!(crane.run(&["digest", "--insecure", &name]).trim(), image.digest());
        crane.run(&["pull", "--insecure", &name, &front.file(&format!("image-{n}.tar"))]);
        let tags = crane.run(&["ls", "--insecure", name.trim_end_matches(":v1")]);
        assert_eq!(tags.trim(), "v1");
    });
    front.assert_downloaded_once(&image);
}

#[test]
fn regctl_pulls_through() {
    let Some(regctl) = Client::find("regctl", &["version", "--format", "{{.VCSTag}}"]) else { return };
    let image = image();
    let front = Front::of(&image);
    let act = |arguments: &[&str]| {
        let mut command = regctl.command();
        command.env("REGCTL_CONFIG", front.file("regctl.json")).env("DOCKER_CONFIG", front.folder.path());
        run(command.args(arguments)).trim().to_owned()
    };
    act(&["registry", "set", "--tls", "disabled", "--skip-check", front.node.ready("listen")]);
    front.twice(|n| {
        let layout = format!("ocidir://{}:v1", front.file(&format!("layout-{n}")));
        act(&["image", "copy", &front.name(), &layout]);
        assert_eq!(act(&["image", "digest", &layout]), image.digest());
    });
    front.assert_downloaded_once(&image);
}

#[test]
fn oras_pulls_through() {
    let Some(oras) = Client::find("oras", &["version"]) else { return };
    let content = random_bytes(21, 1 << 20);
    let mut artifact = Image::of(vec![content.clone()]);
    let mut manifest: serde_json::Value = serde_json::from_slice(&artifact.manifest).unwrap();
    manifest["layers"][0]["annotations"] = serde_json::json!({"org.opencontainers.image.title": "model.bin"});
    artifact.manifest = to_bytes(&manifest);
    let front = Front::of(&artifact);
    fs::write(front.file("config.json"), "{}").unwrap();
    front.twice(|n| {
        let out = front.file(&format!("out-{n}"));
        let act = |arguments: &[&str]| {
            let mut command = oras.command();
            command.args(arguments).args(["--plain-http", &front.name()]);
            run(command.env("DOCKER_CONFIG", front.folder.path()))
        };
        assert_eq!(act(&["resolve"]).trim(), artifact.digest());
        act(&["pull", "--no-tty", "--output", &out]);
        assert!(fs::read(format!("{out}/model.bin")).unwrap() == content, "other bytes came");
    });
    front.assert_downloaded_once(&artifact);
}

#[test]
fn helm_pulls_through_from_another_mesh() {
    let Some(helm) = Client::find("helm", &["version", "--short"]) else { return };
    let folder = temp_dir("helm");
    let chart = folder.path().join("beacon");
    fs::create_dir(&chart).unwrap();
    fs::write(chart.join("Chart.yaml"), "apiVersion: v2\nname: beacon\nversion: 1.2.0+edge\n").unwrap();
    let act = |arguments: &[&str]| {
        let homes = ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"];
        let mut command = helm.command();
        command.envs(homes.map(|name| (name, folder.path().join(name)))).current_dir(folder.path());
        outcome(command.args(arguments)).unwrap()
    };
    act(&["package", "beacon"]);
    let mut far = Node::start(Options::site("far"));
    let there = far.ready("listen").to_owned();
    let charts = format!("oci://{there}/charts");
    let pushed = digest_in(&act(&["push", "--plain-http", "beacon-1.2.0+edge.tgz", &charts]));
    let config = format!("[[upstream]]\nnamespace = \"charts.example\"\nendpoints = [\"http://{there}\"]\n");
    let near = behind(folder.path(), &config);
    let chart = format!("oci://{}/charts.example/charts/beacon", near.ready("listen"));
    let pull = |out: &str| {
        fs::create_dir(folder.path().join(out)).unwrap();
        // Named, and the newest of the list.
        for more in [&["--version", "1.2.0+edge"][..], &[]] {
            let mut arguments = vec!["pull", "--plain-http", "--destination", out, &chart];
            arguments.extend(more);
            assert_eq!(digest_in(&act(&arguments)), pushed, "{more:?}");
        }
        let pulled = fs::read(folder.path().join(out).join("beacon-1.2.0+edge.tgz")).unwrap();
        assert!(pulled == fs::read(folder.path().join("beacon-1.2.0+edge.tgz")).unwrap());
    };
    pull("first");
    far.stop();
    pull("second");
}
