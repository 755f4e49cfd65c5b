//! The command line as people use it: the binary, its output, its files and its exit codes.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a failing test may panic; tests write files"
)]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

const SMALL: &str = r#"
name = "small"
source = "ours"
duration = "12 s"
systems = ["waystation", "origin"]
seeds = [1, 2]

[[site]]
name = "hub"
tier = "cloud"
origin = true
nodes = 1
lan = { rate = "1 Gbit/s" }
uplink = { up = "100 Mbit/s", down = "100 Mbit/s" }

[[site]]
name = "shop"
tier = "edge"
nodes = 2
lan = { rate = "1 Gbit/s" }
uplink = { up = "10 Mbit/s", down = "40 Mbit/s" }

[[artifact]]
name = "image"
size = "5 MB"

[[workload.held]]
artifact = "image"
at = "origin"

[[workload.burst]]
artifact = "image"
who = "others"
time = "2 s"

[[expect]]
metric = "done"
at-least = "100 %"
"#;

fn sim(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_waystation-sim"))
        .current_dir(folder)
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn run_and_compare() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("small.toml"), SMALL).unwrap();
    let (code, out, err) = sim(folder.path(), &["run", "small.toml", "--out", "a"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("waystation done: at least 100.00 %") && out.contains(" ok"), "{out}");
    for file in ["measurements.jsonl", "summary.txt", "report.html"] {
        assert!(fs::metadata(folder.path().join("a").join(file)).unwrap().len() > 100, "{file}");
    }
    let measured = fs::read_to_string(folder.path().join("a/measurements.jsonl")).unwrap();
    assert!(measured.starts_with("{\"kind\":\"run\""), "{measured}");

    // Two nodes behind a line that carries the image in a second: sharing saves about half of the time.
    let (code, out, err) = sim(folder.path(), &["compare", "a:origin", "a:waystation", "--metrics", "max"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("origin : waystation") && out.contains("less"), "{out}");

    // The same seeds give the same figures.
    let (_, _, err) = sim(folder.path(), &["run", "small.toml", "--seeds", "2", "--out", "b"]);
    assert_eq!(fs::read_to_string(folder.path().join("b/measurements.jsonl")).unwrap(), measured, "{err}");
    let (code, _, err) = sim(folder.path(), &["compare", "a", "nowhere"]);
    assert_eq!(code, 2);
    assert!(err.contains("give a directory that `waystation-sim run --out` wrote"), "{err}");
}

#[test]
fn what_is_not_as_expected_ends_with_three() {
    let folder = tempfile::tempdir().unwrap();
    let goal = "[[expect]]\nmetric = \"max\"\nsystem = \"origin\"\nat-most = \"10 ms\"\n";
    fs::write(folder.path().join("small.toml"), format!("{SMALL}{goal}")).unwrap();
    let (code, out, _) = sim(folder.path(), &["run", "small.toml", "--seed", "1", "--system", "origin"]);
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("origin max: at most 10.0 ms") && out.contains("NOT KEPT"), "{out}");
    assert!(!out.contains("waystation done"), "what is not run is not expected: {out}");
}

#[test]
fn wrong_input_ends_with_two_and_says_what_to_write() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bad.toml"), SMALL.replacen("5 MB", "5 MByte", 1)).unwrap();
    fs::write(folder.path().join("small.toml"), SMALL).unwrap();
    for (arguments, expected) in [
        (
            &["run", "bad.toml"][..],
            "error: bad.toml, line 25: \"5 MByte\" is no size; write a number and a unit",
        ),
        (&["run", "none.toml"], "error: none.toml: cannot be read"),
        (
            &["run", "small.toml", "--system", "torrent"],
            "there is no system \"torrent\"; write some of waystation",
        ),
        (&["run", "small.toml", "--variant", "x=1"], "no variant has the settings \"x=1\""),
        (&["bound", "bad.toml"], "bad.toml, line 25"),
        (&["plan", "--size", "1 GB"], "--topology"),
        (&["topology", "--sites", "20000"], "too large; a network has at most 10000 sites"),
        (
            &["topology", "--sites", "2", "--line", "5 Mbit/s"],
            "write out, in, and if there are any delay and loss",
        ),
    ] {
        let (code, _, err) = sim(folder.path(), arguments);
        assert_eq!(code, 2, "{arguments:?}: {err}");
        assert!(err.contains(expected), "{arguments:?}: {err}");
    }
}

#[test]
fn bounds_are_those_of_the_lines() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("small.toml"), SMALL).unwrap();
    let (code, out, err) = sim(folder.path(), &["bound", "small.toml", "--cuts", "1"]);
    assert_eq!(code, 0, "{err}");
    // 40 Mbit over 0.94 of 40 Mbit/s.
    assert!(out.contains("into site shop") && out.contains("1.064 s"), "{out}");
}

#[test]
fn a_topology_can_be_printed_and_planned_with() {
    let folder = tempfile::tempdir().unwrap();
    let line = "5 Mbit/s, 20 Mbit/s, 25 ms, 0.5 %";
    let (code, text, _) = sim(folder.path(), &["topology", "--sites", "3", "--nodes", "2", "--line", line]);
    assert_eq!(code, 0);
    fs::write(folder.path().join("net.toml"), text).unwrap();
    let plan = ["plan", "--topology", "net.toml", "--size", "100 MB", "--efficiency", "100 %", "--deadline"];
    let (code, out, err) = sim(folder.path(), &[&plan[..], &["1 min"]].concat());
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("site-3") && out.contains("40.000 s") && out.contains("kept"), "{out}");
    assert!(out.contains("100 MB out of the origin") && out.contains("600 MB out of the origin"), "{out}");
    let (code, out, _) = sim(folder.path(), &[&plan[..], &["30 s", "--to", "site-2"]].concat());
    assert!(code == 3 && out.contains("MISSED") && !out.contains("site-1"), "{out}");
    let (code, _, err) = sim(folder.path(), &[&plan[..], &["30 s", "--to", "mill"]].concat());
    assert!(code == 2 && err.contains("there is no site \"mill\"; name one such as cloud, site-1"), "{err}");
}

#[test]
fn a_live_mesh_can_be_planned_for() {
    let folder = tempfile::tempdir().unwrap();
    let peers = r#"[{"node": "a", "this": true, "site": "hub", "tier": "cloud"},
        {"node": "b", "this": false, "site": "shop", "tier": "edge"}]"#;
    fs::write(folder.path().join("peers.json"), peers).unwrap();
    let plan = ["plan", "--mesh-status", "peers.json", "--size", "10 MB", "--efficiency", "100 %"];
    let (code, out, err) =
        sim(folder.path(), &[&plan[..], &["--site-line", "shop=1 Mbit/s, 8 Mbit/s"]].concat());
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("shop") && out.contains("10.000 s"), "{out}");
    let (code, _, err) = sim(folder.path(), &[&plan[..], &["--from", "moon"]].concat());
    assert!(code == 2 && err.contains("no site \"moon\" in the mesh; give one of hub, shop"), "{err}");
}

/// What a change of the code changes is kept anew on purpose (`run --keep`), and not by accident.
#[test]
fn the_first_scenario_gives_the_figures_that_are_kept() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/scenarios");
    let (code, out, err) = sim(&folder, &["run", "first.toml", "--check"]);
    assert_eq!(code, 0, "{out}{err}");
}
