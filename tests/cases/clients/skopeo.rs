//! skopeo.

use std::fs;

use super::{at, image, write_dir};
use crate::harness::{clients::Client, cluster::Cluster, image::digest, node::temp_dir};

#[test]
fn skopeo_copies_in_at_one_node_and_out_at_others() {
    let Some(skopeo) = Client::find("skopeo", &["--version"]) else { return };
    let cluster = Cluster::start(3);
    let folder = temp_dir("skopeo");
    let image = image();
    write_dir(&folder.path().join("in"), &image);
    let from = format!("dir:{}/in", folder.path().display());
    let to = |node| format!("docker://{}", at(&cluster, node, "library/app:v1"));
    const COPY: [&str; 2] = ["--insecure-policy", "copy"];
    skopeo.run(&[COPY[0], COPY[1], "--preserve-digests", "--dest-tls-verify=false", &from, &to(0)]);
    for node in 1..3 {
        cluster[node].registry().wait_for_tag("library/app", "v1", &image);
        let out = folder.path().join(format!("out-{node}"));
        let target = format!("dir:{}", out.display());
        skopeo.run(&[COPY[0], COPY[1], "--src-tls-verify=false", &to(node), &target]);
        assert_eq!(fs::read(out.join("manifest.json")).unwrap(), image.manifest);
        for blob in image.blobs() {
            let name = digest(blob);
            assert_eq!(fs::read(out.join(name.trim_start_matches("sha256:"))).unwrap(), *blob);
        }
        let repository = format!("docker://{}", at(&cluster, node, "library/app"));
        assert!(skopeo.run(&["list-tags", "--tls-verify=false", &repository]).contains("\"v1\""));
        let inspected = skopeo.run(&["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &to(node)]);
        assert_eq!(inspected.trim(), image.digest());
    }
}
