//! Helm: charts as OCI artifacts.

use std::fs;

use super::{at, two_sites};
use crate::harness::{
    clients::{Client, digest_in},
    node::temp_dir,
};

#[test]
fn helm_pushes_a_chart_and_pulls_it_at_the_other_site() {
    let Some(helm) = Client::find("helm", &["version", "--short"]) else { return };
    let cluster = two_sites();
    let folder = temp_dir("helm");
    let chart = folder.path().join("beacon");
    fs::create_dir_all(chart.join("templates")).unwrap();
    // A version with build metadata, which no tag can have as it is.
    fs::write(chart.join("Chart.yaml"), "apiVersion: v2\nname: beacon\nversion: 1.2.0+edge\n").unwrap();
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: beacon\ndata:\n  light: \"on\"\n";
    fs::write(chart.join("templates/map.yaml"), template).unwrap();
    let in_folder = |arguments: &[&str]| {
        let homes = ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"];
        let mut command = helm.command();
        command.envs(homes.map(|name| (name, folder.path().join(name)))).current_dir(folder.path());
        let output = command.args(arguments).output().unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "helm {arguments:?}: {said}");
        said
    };
    in_folder(&["package", "beacon"]);
    let charts = |node| format!("oci://{}", at(&cluster, node, "charts"));
    let pushed = digest_in(&in_folder(&["push", "beacon-1.2.0+edge.tgz", &charts(0), "--plain-http"]));
    cluster[1].registry().wait_for_digest("charts/beacon", "1.2.0_edge", &pushed);

    // Without a version: helm picks the newest from the list of tags.
    let chart = format!("{}/beacon", charts(1));
    fs::create_dir(folder.path().join("out")).unwrap();
    for more in [&["--version", "1.2.0+edge"][..], &[]] {
        let mut arguments = vec!["pull", &chart, "--plain-http", "--destination", "out"];
        arguments.extend(more);
        assert_eq!(digest_in(&in_folder(&arguments)), pushed, "{more:?}");
        let pulled = fs::read(folder.path().join("out/beacon-1.2.0+edge.tgz")).unwrap();
        assert!(pulled == fs::read(folder.path().join("beacon-1.2.0+edge.tgz")).unwrap());
        fs::remove_file(folder.path().join("out/beacon-1.2.0+edge.tgz")).unwrap();
    }
    let rendered = in_folder(&["template", "release", &chart, "--plain-http", "--version", "1.2.0+edge"]);
    assert!(rendered.contains("light: \"on\""), "{rendered}");
}
