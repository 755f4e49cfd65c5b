//! `client-config` on the command line: where it takes the address from, what it prints, how it ends. That
//! engines take what it writes is tested with each engine.

use std::fs;

use crate::harness::{
    node::{Node, Options, temp_dir, waystation},
    wait::PATIENCE,
};

#[test]
fn the_running_node_is_asked_for_its_address() {
    let mut node = Node::start(Options::default());
    let listen = node.ready("listen").to_owned();
    let printed = node.cli(&["client-config", "containerd"]).expect(0);
    assert!(printed.stdout.contains(&format!("[host.\"http://{listen}\"]")), "{printed:?}");
    assert!(printed.stdout.parse::<toml::Table>().is_ok(), "{printed:?}");
    assert!(printed.stderr.contains("restart"), "{printed:?}");
    let json = node.cli(&["client-config", "docker"]).expect(0).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["registry-mirrors"][0], format!("http://{listen}"));
    node.signal(rustix::process::Signal::TERM);
    node.wait_for_end(PATIENCE);
    let stopped = node.cli(&["client-config", "docker"]).expect(3).stderr;
    assert!(stopped.contains("no node is running"), "{stopped}");
    // Told where it is, nobody is asked.
    let told = node.cli(&["client-config", "podman", "--endpoint", "cache.lan:5000", "--for", "quay.io"]);
    let told = told.expect(0).stdout;
    assert!(told.contains("location = \"cache.lan:5000/quay.io\"\ninsecure = true"), "{told}");
}

#[test]
fn a_node_on_every_address_is_reached_on_loopback() {
    let listen = ["--listen", "0.0.0.0:0"].map(str::to_owned).to_vec();
    let node = Node::start(Options { extra: listen, ..Options::default() });
    let printed = node.cli(&["client-config", "k3s"]).expect(0).stdout;
    let port = node.ready("listen").rsplit(':').next().unwrap();
    assert!(printed.contains(&format!("- \"http://127.0.0.1:{port}\"")), "{printed}");
}

#[test]
fn what_cannot_be_done_says_why_and_changes_nothing() {
    let root = temp_dir("root");
    let certificate = root.path().join("ca.pem");
    fs::write(&certificate, "not PEM").unwrap();
    let (root_text, certificate) = (root.path().to_str().unwrap(), certificate.to_str().unwrap());
    let refused: [(&[&str], &str); 6] = [
        (&["docker", "--for", "quay.io"], "docker pull n:1/quay.io/"),
        (&["podman", "--ca", certificate], "no certificate in PEM form"),
        (&["podman", "--for", "https://quay.io"], "host:port"),
        (&["cri-o"], "possible values"),
        (&["podman", "--undo", "--write"], "cannot be used with"),
        (&["podman", "--endpoint", "http://n/path"], "no host:port"),
    ];
    for (arguments, why) in refused {
        let mut all = vec!["client-config"];
        all.extend(arguments);
        all.extend(["--root", root_text]);
        if !arguments.contains(&"--undo") {
            all.push("--write");
        }
        if !arguments.contains(&"--endpoint") {
            all.extend(["--endpoint", "http://n:1"]);
        }
        let said = waystation(&all, None).expect(2).stderr;
        assert!(said.contains(why), "{arguments:?}: {said}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "{arguments:?} wrote something");
    }

    let foreign = root.path().join("etc/rancher/k3s/registries.yaml");
    fs::create_dir_all(foreign.parent().unwrap()).unwrap();
    fs::write(&foreign, "mirrors: {}\n").unwrap();
    let all = ["client-config", "k3s", "--write", "--root", root_text, "--endpoint", "n:1"];
    let said = waystation(&all, None).expect(2).stderr;
    assert!(said.contains("cannot be merged") && said.contains("registries.yaml"), "{said}");
    assert_eq!(fs::read_to_string(&foreign).unwrap(), "mirrors: {}\n");
    let nothing = waystation(&["client-config", "k3s", "--undo", "--root", root_text], None).expect(0).stdout;
    assert!(nothing.contains("nothing"), "{nothing}");
}
