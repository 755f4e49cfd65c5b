//! Writes of one tag that did not know of one another: every node decides alike, and says what lost.

use serde_json::Value;

use crate::harness::{cluster::Cluster, image::Image, node::Node, wait::until_true};

fn history(node: &Node) -> Vec<Value> {
    let ended = node.cli(&["tag", "history", "app:v1", "--json"]);
    if ended.code != 0 {
        return vec![];
    }
    let found: Value = serde_json::from_str(&ended.stdout).unwrap();
    found["writes"].as_array().unwrap().clone()
}

fn outcomes(node: &Node) -> Vec<(String, u64, String)> {
    let text = |write: &Value, key: &str| write[key].as_str().unwrap_or("deleted").to_owned();
    let of = |w: &Value| (text(w, "digest"), w["version"].as_u64().unwrap(), text(w, "outcome"));
    history(node).iter().map(of).collect()
}

#[test]
fn two_writes_at_once_resolve_alike_everywhere_and_both_are_told_of() {
    let mut cluster = Cluster::start(3);
    cluster.grant(1);
    let images: Vec<Image> = (1..5).map(|seed| Image::random(seed, &[1000])).collect();
    cluster[0].registry().push("app", "v1", &images[0]);
    for node in cluster.iter() {
        node.registry().wait_for_tag("app", "v1", &images[0]);
    }
    // Each of the two publishers runs while the other, which it could hear of, does not.
    cluster[2].stop();
    cluster[1].stop();
    cluster[0].registry().push("app", "v1", &images[1]);
    cluster[0].stop();
    cluster[1].start_again();
    cluster[1].registry().push("app", "v1", &images[2]);
    cluster[0].start_again();
    cluster[2].start_again();
    cluster.wait_until_connected();

    let digests = [images[1].digest(), images[2].digest()];
    for node in cluster.iter() {
        until_true("the history has both writes", || {
            let found = outcomes(node);
            found.len() == 3 && found[0].2 == "current" && found[1].2 == "lost"
        });
    }
    let told = outcomes(&cluster[0]);
    assert!(digests.contains(&told[0].0) && digests.contains(&told[1].0), "{told:?}");
    assert_eq!((told[0].1, told[1].1), (2, 2));
    assert_eq!(told[2], (images[0].digest(), 1, "replaced".to_owned()));
    for node in cluster.iter() {
        assert_eq!(outcomes(node), told, "every node decides alike");
    }

    // A restart loses none of it, and a later write is no longer one of two.
    cluster[1].stop();
    cluster[1].start_again();
    assert_eq!(outcomes(&cluster[1]), told);
    cluster.wait_until_connected();
    cluster[1].registry().push("app", "v1", &images[3]);
    cluster[2].registry().wait_for_tag("app", "v1", &images[3]);
    let after: Vec<String> = outcomes(&cluster[2]).into_iter().map(|(_, _, outcome)| outcome).collect();
    assert_eq!(after, ["current", "replaced", "lost", "replaced"]);

    let ended = cluster[0].cli(&["tag", "history", "app:v1"]).expect(0);
    assert!(ended.stdout.contains("decides alike"), "{}", ended.stdout);
    let absent = cluster[0].cli(&["tag", "history", "app:absent"]).expect(4);
    assert!(absent.stderr.contains("waystation tags app"), "{}", absent.stderr);
}
