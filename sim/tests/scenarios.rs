//! Scenario files: what is read, what is refused and how it is said, and what becomes of them.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a failing test may panic; tests write files"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use waystation_sim::{
    measure::{Measurement, RunId},
    scenario::Scenario,
    setup::{Action, DiskState, SECOND},
    summary::Table,
};

const GOOD: &str = r#"
name = "x"
source = "ours"
duration = "10 min"
seeds = [1, 2]

[[site]]
name = "hub"
tier = "cloud"
origin = true
nodes = 1
lan = { rate = "1 Gbit/s" }
uplink = { up = "1 Gbit/s", down = "1 Gbit/s" }

[[site]]
name = "shop"
count = 2
tier = "edge"
nodes = 5
lan = { rate = "1 Gbit/s" }
uplink = { up = "5 Mbit/s", down = "50 Mbit/s" }

[[artifact]]
name = "image"
size = "100 MB"
split = 4

[[workload.held]]
artifact = "image"
at = "origin"

[[workload.burst]]
artifact = "image"
who = "others"
time = "5 s"
spread = "2 s"

[[expect]]
metric = "p99"
at-most = "20 s"
"#;

fn parse(text: &str) -> Result<Scenario, String> {
    Scenario::parse(Path::new("x.toml"), text.to_owned()).map_err(|error| error.to_string())
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/scenarios")
}

#[test]
fn a_file_becomes_setups() {
    let scenario = parse(GOOD).unwrap();
    assert_eq!(
        (scenario.seeds.as_slice(), scenario.systems.as_slice()),
        (&[1, 2][..], &["waystation".to_owned()][..])
    );
    let setup = scenario.setup(0, 1).unwrap();
    assert_eq!((setup.topology.sites.len(), setup.end), (3, 600 * SECOND));
    assert_eq!(
        setup.artifacts[0].layers.iter().map(|layer| layer.bytes).collect::<Vec<_>>(),
        [25_000_000; 4]
    );
    let pulls = setup.actions.iter().filter(|(_, action)| matches!(action, Action::Pull { .. }));
    let times: Vec<u64> = pulls.map(|(at, _)| *at).collect();
    assert_eq!(times.len(), 10);
    assert!(times.is_sorted() && times.iter().all(|at| (5 * SECOND..7 * SECOND).contains(at)), "{times:?}");
}

#[test]
fn what_starts_and_who_lies_is_checked() {
    refused(&[
        ("seeds = [1, 2]", "upstream = \"quay\"", "x.toml, line 5: no site has this name; write that of"),
        ("seeds = [1, 2]", "upstream = \"hub\"", "x.toml, line 5: is the origin, where nodes find the mesh"),
        (
            "seeds = [1, 2]",
            "start = \"hot\"",
            "x.toml, line 5: unknown variant `hot`, expected `warm` or `cold`",
        ),
        (
            "[[workload.burst]]",
            "[[fault.lies]]\nwho = \"all\"\nevery = 0\n[[workload.burst]]",
            "x.toml, line 32: every = 0; write 1 for every request",
        ),
    ]);
}

/// Each of these changes of a good file is an error that says so.
fn refused(cases: &[(&str, &str, &str)]) {
    for (from, to, expected) in cases {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD, "{from} is not in the file");
        let error = parse(&text).unwrap_err();
        assert!(error.contains(expected), "{to}:\n  {error}\n  {expected}");
    }
}

#[test]
fn an_error_names_file_line_and_fix() {
    let cases = [
        (
            "duration = \"10 min\"",
            "duration = \"10\"",
            "x.toml, line 4: \"10\" is no time; write a number and a unit",
        ),
        ("duration = \"10 min\"\n", "", "x.toml, line 1: no duration; write how long"),
        ("duration = ", "length = ", "x.toml, line 4: unknown field `length`, expected one of `name`"),
        ("split = 4", "splits = 4", "x.toml, line 26: unknown field `splits`"),
        ("split = 4", "split = 0", "x.toml, line 24: \"image\" is split into 0 layers"),
        ("size = \"100 MB\"", "size = \"100 Mbit\"", "x.toml, line 25: \"100 Mbit\" is no size"),
        ("size = \"100 MB\"\nsplit = 4", "", "x.toml, line 24: \"image\" has no bytes; write size ="),
        (
            "who = \"others\"",
            "who = \"everybody\"",
            "x.toml, line 34: \"everybody\" chooses nobody; write \"all\"",
        ),
        (
            "who = \"others\"",
            "who = \"site mill\"",
            "x.toml, line 34: chooses no node of this topology (its first sites: hub",
        ),
        (
            "artifact = \"image\"\nwho",
            "artifact = \"immage\"\nwho",
            "x.toml, line 33: no [[artifact]] or [[images]] is named \"immage\"",
        ),
        (
            "[[workload.held]]\nartifact = \"image\"\nat = \"origin\"\n",
            "",
            "x.toml, line 30: nobody has \"image\"; add a [[workload.publish]]",
        ),
        ("seeds = [1, 2]", "seeds = []", "x.toml, line 5: 0 seeds; write 1 to"),
        (
            "seeds = [1, 2]",
            "systems = [\"bittorrent\"]",
            "x.toml, line 5: there is no system \"bittorrent\"; write some of waystation,",
        ),
        (
            "seeds = [1, 2]",
            "topology = \"y.toml\"",
            "sites are given twice; write one of topology, [generate] and [[site]]",
        ),
        ("metric = \"p99\"", "metric = \"p101\"", "x.toml, line 39: there is no metric \"p101\"; write p50"),
        ("at-most = \"20 s\"", "at-most = 20", "x.toml, line 40: \"\" is no time"),
        ("at-most = \"20 s\"", "", "x.toml, line 39: nothing is expected of it; add at-most or at-least"),
        ("origin = true\n", "", "no site is the origin"),
        (
            "[[workload.burst]]",
            "[[fault.crash]]\nwho = \"all\"\ndown = \"1 s\"\n[[workload.burst]]",
            "x.toml, line 32: write one of time = \"1 h\" (once) and pace",
        ),
        ("[[workload.burst]]", "[[workload.bursts]]", "x.toml, line 32: unknown field `bursts`"),
        ("count = 2", "count = 0", "x.toml, line 17: count is 0"),
    ];
    refused(&cases);
    let missing = Scenario::load(Path::new("missing.toml")).unwrap_err().to_string();
    assert!(missing.contains("missing.toml: cannot be read") && missing.contains("first.toml"), "{missing}");
}

#[test]
fn a_topology_may_be_another_file_whose_errors_name_it() {
    let folder = tempfile::tempdir().unwrap();
    let sites = GOOD.find("[[site]]").unwrap()..GOOD.find("[[artifact]]").unwrap();
    let topology = &GOOD[sites.clone()];
    let text =
        GOOD.replacen(&GOOD[sites], "", 1).replacen("duration", "topology = \"net.toml\"\nduration", 1);
    let path = folder.path().join("scenario.toml");
    fs::write(&path, &text).unwrap();
    let error = Scenario::load(&path).unwrap_err().to_string();
    assert!(error.contains("scenario.toml, line 4") && error.contains("net.toml: cannot be read"), "{error}");
    fs::write(folder.path().join("net.toml"), topology).unwrap();
    let scenario = Scenario::load(&path).unwrap();
    assert_eq!(scenario.setup(0, 1).unwrap().topology, parse(GOOD).unwrap().setup(0, 1).unwrap().topology);
    fs::write(folder.path().join("net.toml"), topology.replacen("nodes = 5", "nodes = x", 1)).unwrap();
    let error = Scenario::load(&path).unwrap_err().to_string();
    assert!(error.contains("net.toml, line 13"), "{error}");
}

#[test]
fn a_sweep_is_every_combination() {
    let sweep = "[sweep]\nsites = [1, 4]\nnodes = [3, 7]\nuplink = [\"10 Mbit/s\"]\n[[site]]";
    let scenario = parse(&GOOD.replacen("[[site]]", sweep, 1)).unwrap();
    let names: Vec<&str> = scenario.variants().collect();
    assert_eq!(
        names,
        [
            "sites=1, nodes=3, uplink=10 Mbit/s",
            "sites=1, nodes=7, uplink=10 Mbit/s",
            "sites=4, nodes=3, uplink=10 Mbit/s",
            "sites=4, nodes=7, uplink=10 Mbit/s"
        ]
    );
    let setup = scenario.setup(3, 1).unwrap();
    assert_eq!((setup.topology.sites.len(), setup.topology.places().count()), (5, 29));
    assert_eq!(setup.topology.sites[1].uplink.up.bits(), 10_000_000);
    assert_eq!(setup.topology.sites[0].uplink.up.bits(), 1_000_000_000, "the origin's stays");

    let sweep = "[sweep]\nsize = [\"10 MB\"]\nsplit = [1, 2]\n[[site]]";
    let scenario = parse(&GOOD.replacen("[[site]]", sweep, 1)).unwrap();
    let layers = |variant| scenario.setup(variant, 1).unwrap().artifacts[0].layers.clone();
    assert_eq!((layers(0).len(), layers(1).len(), layers(1)[0].bytes), (1, 2, 5_000_000));
    let error = parse(&GOOD.replacen("[[site]]", "[sweep]\nnodes = []\n[[site]]", 1)).unwrap_err();
    assert!(error.contains("x.toml, line 8: an empty list"), "{error}");
}

/// Everything that a file can have, drawn from a seed.
const BUSY: &str = r#"
[[images]]
name = "apps"
count = 30
largest-layer = "10 MB"
[[workload.publishes]]
images = "apps"
pace = "6 per min"
[[workload.steady]]
artifact = "apps"
who = "others"
pace = "2 per min"
from = "1 min"
[[workload.rolling]]
artifact = "image"
who = "others"
batch = "20 %"
every = "30 s"
[[workload.moves]]
artifact = "image"
pace = "30 per hour"
changes = "20 %"
pulled-by = "2 of others"
[[workload.sleep]]
who = "1 per site of others"
awake = "2 min"
asleep = "30 s"
[[fault.crash]]
who = "others"
pace = "1 per min"
down = "10 s"
[[fault.partition]]
sites = "1 of others"
pace = "12 per hour"
lasts = "20 s"
ways = "out"
[[fault.power-cut]]
sites = "1 of others"
time = "3 min"
lasts = "20 s"
[[fault.outage]]
time = "4 min"
lasts = "1 min"
[[fault.join]]
who = "1 of others"
time = "2 min"
[[fault.leave]]
who = "1 of others"
time = "9 min"
[[fault.away]]
who = "1 of others"
time = "1 min"
lasts = "1 min"
[[fault.clock]]
who = "1 of others"
ahead = "1 h"
[[fault.lies]]
who = "1 of others"
every = 10
[[fault.disk-full]]
who = "1 of others"
time = "1 min"
lasts = "1 min"
[[fault.disk-slow]]
who = "1 of others"
time = "1 min"
[[fault.stale]]
who = "1 of others"
time = "1 min"
lasts = "2 min"
down = "10 s"
[[fault.rot]]
who = "others"
artifact = "apps"
pace = "1 per min"
[[fault.line]]
sites = "all"
time = "5 min"
up = "1 Mbit/s"
down = "1 Mbit/s"
lasts = "1 min"
"#;

#[test]
fn the_same_seed_is_the_same_setup() {
    let scenario = parse(&format!("{GOOD}{BUSY}")).unwrap();
    let setup = |seed| format!("{:?}", scenario.setup(0, seed).unwrap());
    assert_eq!(setup(5), setup(5));
    assert_ne!(setup(5), setup(6));
    let setup = scenario.setup(0, 5).unwrap();
    let has = |what: fn(&Action) -> bool| assert!(setup.actions.iter().any(|(_, action)| what(action)));
    has(|action| matches!(action, Action::Publish { .. }));
    has(|action| matches!(action, Action::Crash { down: None, .. }));
    has(|action| matches!(action, Action::Crash { silent: true, .. }));
    has(|action| matches!(action, Action::Partition { both: false, .. }));
    has(|action| matches!(action, Action::Partition { both: true, sites, .. } if *sites == [0]));
    has(|action| matches!(action, Action::PowerCut { .. }));
    has(|action| matches!(action, Action::Join { .. }));
    has(|action| matches!(action, Action::Clock { seconds: 3600, .. }));
    has(|action| matches!(action, Action::Lies { every: 10, .. }));
    has(|action| matches!(action, Action::Disk { state: DiskState::Slow, .. }));
    has(|action| matches!(action, Action::Stale { down: 10_000_000_000, .. }));
    has(|action| matches!(action, Action::Disk { state: DiskState::Works, .. }));
    has(|action| matches!(action, Action::Rot { .. }));
    has(|action| matches!(action, Action::Line { up: 5_000_000, .. }));
    assert!(setup.actions.iter().all(|(at, _)| *at < setup.end));
    assert!(setup.actions.is_sorted_by_key(|(at, _)| *at));
}

#[test]
fn nothing_is_pulled_before_somebody_has_it() {
    let scenario = parse(&format!("{GOOD}{BUSY}")).unwrap();
    let setup = scenario.setup(0, 3).unwrap();
    let mut there = vec![false; setup.artifacts.len()];
    for (at, action) in &setup.actions {
        match action {
            Action::Publish { artifact, .. } | Action::Seed { artifact, .. } => there[*artifact] = true,
            Action::Pull { artifact, .. } => assert!(there[*artifact], "artifact {artifact} at {at}"),
            _ => {}
        }
    }
    // A version keeps the first layers, and changes at least a fifth of the bytes.
    let versions: Vec<_> = setup.artifacts.iter().filter(|a| a.repository == "library/image").collect();
    assert!(versions.len() > 2);
    assert_eq!(versions[0].layers[..3], versions[1].layers[..3]);
    assert_ne!(versions[0].layers[3], versions[1].layers[3]);
}

#[test]
fn expectations_are_held_against_figures() {
    let goals = "[[expect]]\nmetric = \"done\"\nat-least = \"75 %\"\n[[expect]]\nmetric = \"figure:heat\"\nat-most = 3\n\
        [[expect]]\nmetric = \"p50\"\nat-most = \"1 s\"\nvariant = \"nodes=5\"\n";
    let scenario = parse(&format!("{GOOD}{goals}")).unwrap();
    let run = |variant: &str| RunId { system: "waystation".into(), seed: 1, variant: variant.into() };
    let pull = |variant: &str, node: u64, done: Option<f64>| Measurement::Pull {
        run: run(variant),
        artifact: 0,
        bytes: 1,
        site: 1,
        node,
        asked: 10.0,
        first_byte: None,
        done,
    };
    let heat = |variant: &str, value| Measurement::Figure {
        run: run(variant),
        name: "heat".into(),
        value: Some(value),
        text: None,
    };
    let measurements = [
        pull("nodes=50", 0, Some(12.0)),
        pull("nodes=50", 1, Some(13.0)),
        pull("nodes=50", 2, Some(14.0)),
        pull("nodes=50", 3, None),
        heat("nodes=50", 2.0),
        pull("nodes=5", 0, Some(12.0)),
        heat("nodes=5", 4.0),
    ];
    let table = Table::of(&measurements);
    let outcomes: Vec<_> = scenario.goals.iter().flat_map(|goal| goal.check(&table)).collect();
    let seen: Vec<_> = outcomes.iter().map(|o| (o.variant.as_str(), o.found.as_str(), o.kept)).collect();
    assert_eq!(
        seen,
        [
            ("nodes=5", "2.000 s", true),
            ("nodes=50", "never", false),
            ("nodes=5", "100.00 %", true),
            ("nodes=50", "75.00 %", true),
            ("nodes=5", "4", false),
            ("nodes=50", "2", true),
            ("nodes=5", "2.000 s", false),
        ]
    );
    assert_eq!(outcomes[0].goal, "waystation p99: at most 20.000 s");
}

#[test]
fn the_scenarios_that_come_with_it_are_right() {
    let mut names = vec![];
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let scenario = Scenario::load(&path).unwrap_or_else(|error| panic!("{error}"));
        assert!(!scenario.goals.is_empty() && !scenario.source.is_empty(), "{}", path.display());
        assert_eq!(path.file_stem().unwrap().to_str().unwrap(), scenario.name);
        names.push(scenario.name);
    }
    for name in [
        "kraken",
        "dragonfly",
        "spegel",
        "edge-sites",
        "gossip-10k",
        "return-storm",
        "reconcile",
        "fleet-10k",
        "outage",
    ] {
        assert!(names.iter().any(|known| known == name), "{name} is missing");
    }
}

/// Every block of TOML in the document, put behind what each file needs.
#[test]
fn every_documented_example_is_right() {
    let text = fs::read_to_string(folder().join("README.md")).unwrap();
    let blocks: Vec<&str> =
        text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 8, "{}", blocks.len());
    for block in blocks {
        let whole = if block.contains("source =") {
            block.to_owned()
        } else {
            // A part: it stands behind the smallest file, whose sites and artifacts it may replace.
            let base = if block.contains("[generate]") || block.contains("[[site]]") {
                let sites = GOOD.find("[[site]]").unwrap()..GOOD.find("[[artifact]]").unwrap();
                GOOD.replacen(&GOOD[sites], "", 1)
            } else {
                GOOD.to_owned()
            };
            let apps = "[[images]]\nname = \"apps\"\ncount = 3\n[[workload.held]]\nartifact = \"apps\"\nat = \"origin\"\n";
            format!("{base}\n{}{block}", if block.contains("[[images]]") { "" } else { apps })
        };
        parse(&whole).unwrap_or_else(|error| panic!("{error}\n{block}"));
    }
}
