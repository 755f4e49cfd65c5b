//! The state of a live mesh as a topology: sites and nodes from what its nodes print, lines as the caller says,
//! since no node knows them. Reads the output of `waystation peers --json` (all that one node knows of) and of
//! `waystation status --json` (one node), any number of them in one file.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;
use waystation_topology::{Lan, Site, Tier, Topology, Uplink};

/// Why there is no topology in a file.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It is no such output.
    #[error(
        "{}: {problem}; give what `waystation peers --json` prints at one node, or `waystation status --json` at each", file.display()
    )]
    Form {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// No site has the name of the publisher's.
    #[error("there is no site \"{0}\" in the mesh; give one of {1} with --from")]
    Origin(String, String),
}

/// What is said of the lines.
#[derive(Clone, Debug)]
pub struct Lines {
    /// Of every site but the publisher's and those below.
    pub line: Uplink,
    /// Of the publisher's.
    pub origin: Uplink,
    /// Of sites by name.
    pub of_site: BTreeMap<String, Uplink>,
    /// Of every site.
    pub lan: Lan,
}

/// One answer: of `peers`, a list, or of `status`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Peers(Vec<Peer>),
    Status { node_id: String, site: String, tier: Tier },
}

#[derive(Deserialize)]
struct Peer {
    node: String,
    #[serde(default)]
    this: bool,
    site: Option<String>,
    tier: Option<Tier>,
}

/// Reads a file's text. The publisher's site is `from`, or that of the node that answered.
pub fn read(
    file: &std::path::Path,
    text: &str,
    from: Option<&str>,
    lines: &Lines,
) -> Result<Topology, StateError> {
    let form = |problem: String| StateError::Form { file: file.to_owned(), problem };
    let mut nodes: BTreeMap<String, (String, Tier)> = BTreeMap::new();
    let mut here = None;
    for answer in serde_json::Deserializer::from_str(text).into_iter::<Answer>() {
        match answer.map_err(|error| form(format!("is no state of a mesh ({error})")))? {
            Answer::Status { node_id, site, tier } => {
                here.get_or_insert(site.clone());
                nodes.insert(node_id, (site, tier));
            }
            Answer::Peers(peers) => {
                for Peer { node, this, site, tier } in peers {
                    // A node whose record did not come yet is on no site that anybody knows.
                    let Some(site) = site else { continue };
                    if this {
                        here.get_or_insert(site.clone());
                    }
                    nodes.insert(node, (site, tier.unwrap_or(Tier::Edge)));
                }
            }
        }
    }
    let mut sites: BTreeMap<&str, (usize, Tier)> = BTreeMap::new();
    for (site, tier) in nodes.values() {
        sites.entry(site).or_insert((0, *tier)).0 += 1;
    }
    let Some(origin) = from.or(here.as_deref()).or(sites.keys().next().copied()) else {
        return Err(form("has no node with a site".to_owned()));
    };
    if !sites.contains_key(origin) {
        let names: Vec<_> = sites.keys().copied().collect();
        return Err(StateError::Origin(origin.to_owned(), names.join(", ")));
    }
    let site = |(name, (nodes, tier)): (&&str, &(usize, Tier))| Site {
        name: (*name).to_owned(),
        tier: *tier,
        origin: *name == origin,
        nodes: *nodes,
        lan: lines.lan,
        uplink: match lines.of_site.get(*name) {
            Some(line) => *line,
            None if *name == origin => lines.origin,
            None => lines.line,
        },
        disk: None,
    };
    Ok(Topology { sites: sites.iter().map(site).collect() })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn lines() -> Lines {
        let line = |up: &str| Uplink {
            up: up.parse().unwrap(),
            down: "50 Mbit/s".parse().unwrap(),
            delay: Default::default(),
            loss: Default::default(),
        };
        Lines {
            line: line("5 Mbit/s"),
            origin: line("100 Mbit/s"),
            of_site: [("far".to_owned(), line("1 Mbit/s"))].into(),
            lan: Lan { rate: "1 Gbit/s".parse().unwrap(), delay: Default::default() },
        }
    }

    const PEERS: &str = r#"[
        {"node": "aa", "this": true, "connected": true, "site": "hub", "tier": "cloud", "addresses": [], "bytes_received": 0},
        {"node": "bb", "this": false, "connected": true, "site": "far", "tier": "iot"},
        {"node": "cc", "this": false, "connected": false, "site": "far", "tier": "iot"},
        {"node": "dd", "this": false, "connected": true, "site": null, "tier": null}
    ]"#;

    #[test]
    fn what_nodes_print_becomes_sites() {
        let more = r#"{"node_id": "ee", "site": "shop", "tier": "edge", "uptime_seconds": 3}"#;
        let topology = read(Path::new("x"), &format!("{PEERS}\n{more}"), None, &lines()).unwrap();
        let seen: Vec<_> = topology
            .sites
            .iter()
            .map(|site| {
                (site.name.as_str(), site.nodes, site.tier, site.origin, site.uplink.up.bits() / 1_000_000)
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("far", 2, Tier::Iot, false, 1),
                ("hub", 1, Tier::Cloud, true, 100),
                ("shop", 1, Tier::Edge, false, 5)
            ]
        );
        assert_eq!(read(Path::new("x"), PEERS, Some("far"), &lines()).unwrap().origin(), 0);
    }

    #[test]
    fn what_is_no_state_is_refused_with_what_to_give() {
        for (text, from, expected) in [
            ("{}", None, "x: is no state of a mesh"),
            ("[]", None, "x: has no node with a site; give what `waystation peers --json` prints"),
            (PEERS, Some("moon"), "no site \"moon\" in the mesh; give one of far, hub with --from"),
        ] {
            let error = read(Path::new("x"), text, from, &lines()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
