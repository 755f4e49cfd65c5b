//! The form of topology files: `[[site]]` tables. Scenario files have the same tables inside.

use std::{collections::BTreeSet, path::Path};

use serde::Deserialize;
use toml::Spanned;

use crate::{
    Lan, Site, Size, Tier, Topology, Uplink,
    source::{self, FileError, Problem},
};

/// Sites of one network, generated ones counted.
pub const SITES_MAX: usize = 10_000;
/// Nodes of one network.
pub const NODES_MAX: usize = 100_000;

/// A file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    site: Vec<Group>,
}

/// One `[[site]]`: a site, or several that are alike.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// With a count: name and number.
    pub name: Spanned<String>,
    /// Of each.
    pub tier: Tier,
    /// Whether artifacts are published here.
    #[serde(default)]
    pub origin: bool,
    /// How many sites.
    #[serde(default = "one")]
    pub count: Spanned<usize>,
    /// At each.
    pub nodes: Spanned<usize>,
    /// Of each.
    pub lan: Lan,
    /// Of each.
    pub uplink: Uplink,
    /// Of each node.
    pub disk: Option<Size>,
}

impl Topology {
    /// Reads a file.
    pub fn load(file: &Path) -> Result<Self, FileError> {
        let text = source::text_of(file, HINT)?;
        Self::parse(file, &text)
    }

    /// Reads the text of a file; `file` is only named in errors.
    pub fn parse(file: &Path, text: &str) -> Result<Self, FileError> {
        let groups = groups(text).map_err(|problem| problem.in_file(file, text))?;
        spread(&groups).map_err(|problem| problem.in_file(file, text))
    }
}

/// The groups of a file's text.
pub fn groups(text: &str) -> Result<Vec<Group>, Problem> {
    source::read(text).map(|file: File| file.site)
}

/// Groups become sites; what only all of them together can get wrong is found here.
pub fn spread(groups: &[Group]) -> Result<Topology, Problem> {
    let (mut sites, mut names, mut nodes) = (vec![], BTreeSet::new(), 0_usize);
    let mut origin = None;
    for group in groups {
        let name_problem = |text: String| Problem::at(&group.name, text);
        check_name(group.name.get_ref()).map_err(name_problem)?;
        for (what, value) in [("count", &group.count), ("nodes", &group.nodes)] {
            if *value.get_ref() == 0 {
                return Err(Problem::at(value, format!("{what} is 0; a site that is not there is left out")));
            }
        }
        let count = *group.count.get_ref();
        if group.origin && (count > 1 || origin.replace(()).is_some()) {
            let text = "a second origin; artifacts are published at one site: leave origin out elsewhere";
            return Err(name_problem(text.to_owned()));
        }
        nodes = nodes.saturating_add(count.saturating_mul(*group.nodes.get_ref()));
        if nodes > NODES_MAX || sites.len().saturating_add(count) > SITES_MAX {
            let text = format!("too large; a network has at most {SITES_MAX} sites and {NODES_MAX} nodes");
            return Err(name_problem(text));
        }
        for number in 1..=count {
            let site = group.site(number);
            if !names.insert(site.name.clone()) {
                let text =
                    format!("there is a site named \"{}\" above; give this one another name", site.name);
                return Err(name_problem(text));
            }
            sites.push(site);
        }
    }
    if origin.is_none() {
        let text = "no site is the origin; write origin = true in the [[site]] where artifacts are published";
        return Err(Problem::whole(text));
    }
    Ok(Topology { sites })
}

impl Group {
    /// Its site of this number, from 1.
    fn site(&self, number: usize) -> Site {
        let name = self.name.get_ref();
        Site {
            name: if *self.count.get_ref() == 1 { name.clone() } else { format!("{name}-{number}") },
            tier: self.tier,
            origin: self.origin,
            nodes: *self.nodes.get_ref(),
            lan: self.lan,
            uplink: self.uplink,
            disk: self.disk,
        }
    }
}

/// Names become names of sites of a mesh.
fn check_name(name: &str) -> Result<(), String> {
    const LENGTH_MAX: usize = 48;
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > LENGTH_MAX || !name.chars().all(fits) {
        return Err(format!(
            "\"{name}\" is no name of a site; use 1 to {LENGTH_MAX} of a to z, 0 to 9 and \"-\", such as \"harbour\""
        ));
    }
    Ok(())
}

fn one() -> Spanned<usize> {
    Spanned::new(0..0, 1)
}

const HINT: &str = "give the path of a topology file, such as those in configs/topologies";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Delay, Rate};
    use std::fs;

    const GOOD: &str = r#"
[[site]]
name = "cloud"
tier = "cloud"
origin = true
nodes = 1
lan = { rate = "1 Gbit/s" }
uplink = { up = "20 Mbit/s", down = "30 Mbit/s", delay = "10 ms", loss = "0.1 %" }

[[site]]
name = "shop"
tier = "edge"
count = 3
nodes = 2
lan = { rate = "100 Mbit/s", delay = "0.2 ms" }
uplink = { up = "5 Mbit/s", down = "50 Mbit/s" }
disk = "3 GiB"
"#;

    fn parse(text: &str) -> Result<Topology, FileError> {
        Topology::parse(Path::new("x.toml"), text)
    }

    #[test]
    fn groups_are_spread_out() {
        let topology = parse(GOOD).unwrap();
        let names: Vec<_> = topology.sites.iter().map(|site| site.name.as_str()).collect();
        assert_eq!(names, ["cloud", "shop-1", "shop-2", "shop-3"]);
        assert_eq!(topology.origin(), 0);
        assert_eq!(topology.places().count(), 7);
        assert!(topology.has_delay_or_loss());
        let shop = &topology.sites[3];
        assert_eq!(shop.uplink.down, Rate::from_bits(50_000_000));
        assert_eq!(shop.lan.delay.micros(), 200);
        assert_eq!(shop.uplink.delay, Delay::default());
        assert_eq!(shop.disk.unwrap().bytes(), 3 << 30);
    }

    #[test]
    fn errors_name_file_line_and_fix() {
        let cases = [
            ("nodes = 2", "nodse = 2", "x.toml, line 14: unknown field `nodse`, expected one of `name`"),
            (
                "\"5 Mbit/s\"",
                "\"5 Mbit\"",
                "x.toml, line 16: \"5 Mbit\" is no rate; write a number and a unit",
            ),
            ("nodes = 2\n", "", "missing field `nodes`; add it to this table"),
            ("\"shop\"", "\"Shop 1\"", "x.toml, line 11: \"Shop 1\" is no name of a site; use 1 to 48"),
            ("nodes = 2", "nodes = 0", "x.toml, line 14: nodes is 0;"),
            ("nodes = 2", "nodes = 50_000", "x.toml, line 11: too large; a network has at most"),
            ("origin = true\n", "", "line 1: no site is the origin; write origin = true"),
            ("count = 3", "origin = true", "x.toml, line 11: a second origin;"),
            ("\"edge\"", "\"fog\"", "x.toml, line 12: unknown variant `fog`, expected one of `cloud`"),
            ("[[site]]", "[[siet]]", "line 2: unknown field `siet`, expected `site`"),
        ];
        for (from, to, expected) in cases {
            let error = parse(&GOOD.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(expected), "{to}: {error}");
        }
        let twice = GOOD.replacen("\"shop\"", "\"cloud\"", 1).replacen("count = 3\n", "", 1);
        let error = parse(&twice).unwrap_err().to_string();
        assert_eq!(
            error,
            "x.toml, line 11: there is a site named \"cloud\" above; give this one another name"
        );
        let error = Topology::load(Path::new("missing.toml")).unwrap_err().to_string();
        assert!(error.contains("missing.toml: cannot be read"), "{error}");
    }

    #[test]
    fn the_files_that_come_with_it_are_right() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/topologies");
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let files: Vec<_> = files.filter(|file| file.extension().is_some_and(|e| e == "toml")).collect();
        assert!(files.len() > 3, "{files:?}");
        for file in files {
            Topology::load(&file).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}
