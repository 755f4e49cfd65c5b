//! regctl, of regclient.

use std::fs;

use super::{at, two_sites};
use crate::harness::{clients::Client, image::random_bytes, node::temp_dir};

#[test]
fn regctl_copies_between_a_layout_and_both_sites() {
    let Some(regctl) = Client::find("regctl", &["version", "--format", "{{.VCSTag}}"]) else { return };
    let cluster = two_sites();
    let folder = temp_dir("regctl");
    let config = folder.path().join("config.json");
    // Plain HTTP, as its users write it for their registries.
    let hosts: Vec<_> =
        cluster.iter().map(|node| format!("{:?}: {{\"tls\": \"disabled\"}}", node.ready("listen"))).collect();
    fs::write(&config, format!("{{\"hosts\": {{{}}}}}", hosts.join(", "))).unwrap();
    let act = |arguments: &[&str]| {
        let mut command = regctl.command();
        command.env("REGCTL_CONFIG", &config).env("DOCKER_CONFIG", folder.path()).current_dir(folder.path());
        crate::harness::clients::run(command.args(arguments)).trim().to_owned()
    };
    let file = folder.path().join("data.bin");
    let content = random_bytes(11, 3 << 20);
    fs::write(&file, &content).unwrap();
    let name = |node| at(&cluster, node, "team/data:v1");
    act(&[
        "artifact",
        "put",
        "--artifact-type",
        "application/vnd.example.data",
        "--file",
        "data.bin",
        "--file-title",
        &name(0),
    ]);
    let digest = act(&["manifest", "head", "--format", "{{.GetDescriptor.Digest}}", &name(0)]);
    cluster[1].registry().wait_for_digest("team/data", "v1", &digest);

    act(&["image", "copy", &name(1), "ocidir://layout:v1"]);
    assert_eq!(act(&["image", "digest", "ocidir://layout:v1"]), digest);
    assert_eq!(act(&["tag", "list", &at(&cluster, 1, "team/data")]), "v1");
    fs::create_dir(folder.path().join("out")).unwrap();
    act(&["artifact", "get", "--output", "out", &name(1)]);
    assert!(fs::read(folder.path().join("out/data.bin")).unwrap() == content, "other bytes came back");

    act(&["image", "copy", "ocidir://layout:v1", &at(&cluster, 0, "team/copied:v1")]);
    cluster[1].registry().wait_for_digest("team/copied", "v1", &digest);
}
