//! Fleets from a few parameters: a data centre, servers of regions, and many sites that are alike but for their
//! lines. Owns the groups that come of it; what they mean is [`crate::file`]'s.

use std::fmt::Write as _;

use serde::Deserialize;
use toml::Spanned;

use crate::{Delay, Lan, Rate, Share, Size, Tier, Uplink, file::Group};

/// What a fleet is made from: `[generate]` of a scenario, and the flags of `waystation-sim topology`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Fleet {
    /// Sites beside the origin and the regions.
    pub sites: Spanned<usize>,
    /// Nodes at each of them.
    #[serde(default = "one_node")]
    pub nodes: Spanned<usize>,
    /// Their tier.
    #[serde(default = "edge")]
    pub tier: Tier,
    /// Their lines: with several, each gets as many sites as the others, one more for the first ones.
    pub lines: Vec<Uplink>,
    /// Their networks.
    #[serde(default = "gigabit")]
    pub lan: Lan,
    /// What each of their nodes may store.
    pub disk: Option<Size>,
    /// Sites with regional servers.
    #[serde(default)]
    pub regions: usize,
    /// Nodes at each region.
    #[serde(default = "four")]
    pub region_nodes: usize,
    /// The line of each region.
    #[serde(default = "hundreds")]
    pub region_line: Uplink,
    /// Nodes at the origin.
    #[serde(default = "one")]
    pub origin_nodes: usize,
    /// The origin's line.
    #[serde(default = "ten_gigabit")]
    pub origin_line: Uplink,
}

impl Fleet {
    /// A fleet of so many sites with so many nodes, all with the same line.
    pub fn new(sites: usize, nodes: usize, line: Uplink) -> Self {
        Fleet {
            sites: Spanned::new(0..0, sites),
            nodes: Spanned::new(0..0, nodes),
            tier: edge(),
            lines: vec![line],
            lan: gigabit(),
            disk: None,
            regions: 0,
            region_nodes: four(),
            region_line: hundreds(),
            origin_nodes: one(),
            origin_line: ten_gigabit(),
        }
    }

    /// As a file would have it. Kinds of lines that get no site are left out.
    pub fn groups(&self) -> Vec<Group> {
        let mut groups = vec![Group {
            origin: true,
            ..group("cloud", Tier::Cloud, 1, self.origin_nodes, LAN_OF_SERVERS, self.origin_line)
        }];
        if self.regions > 0 {
            let region =
                group("region", Tier::Edge, self.regions, self.region_nodes, gigabit(), self.region_line);
            groups.push(region);
        }
        let kinds = self.lines.len().max(1);
        for (number, line) in self.lines.iter().enumerate() {
            let count = (self.sites.get_ref() + kinds - 1 - number) / kinds;
            if count == 0 && number > 0 {
                continue;
            }
            let name = if kinds == 1 { "site".to_owned() } else { format!("site-{}", letter(number)) };
            let mut sites = group(&name, self.tier, count, *self.nodes.get_ref(), self.lan, *line);
            // Errors name the line of what was written.
            sites.count = Spanned::new(self.sites.span(), count);
            sites.nodes = self.nodes.clone();
            sites.disk = self.disk;
            groups.push(sites);
        }
        groups
    }
}

fn letter(number: usize) -> String {
    let (letter, round) = (char::from(b'a' + (number % 26) as u8), number / 26);
    if round == 0 { letter.to_string() } else { format!("{letter}{round}") }
}

fn group(name: &str, tier: Tier, count: usize, nodes: usize, lan: Lan, uplink: Uplink) -> Group {
    Group {
        name: Spanned::new(0..0, name.to_owned()),
        tier,
        origin: false,
        count: Spanned::new(0..0, count),
        nodes: Spanned::new(0..0, nodes),
        lan,
        uplink,
        disk: None,
    }
}

/// The text of a file with these groups.
pub fn text(groups: &[Group]) -> String {
    let mut text = String::new();
    for group in groups {
        let _ =
            writeln!(text, "[[site]]\nname = \"{}\"\ntier = \"{}\"", group.name.get_ref(), group.tier.name());
        if group.origin {
            text += "origin = true\n";
        }
        if *group.count.get_ref() != 1 {
            let _ = writeln!(text, "count = {}", group.count.get_ref());
        }
        let (lan, line) = (&group.lan, &group.uplink);
        let _ = writeln!(text, "nodes = {}", group.nodes.get_ref());
        let _ = writeln!(text, "lan = {{ rate = \"{}\", delay = \"{}\" }}", lan.rate, lan.delay);
        let _ = writeln!(
            text,
            "uplink = {{ up = \"{}\", down = \"{}\", delay = \"{}\", loss = \"{}\" }}",
            line.up, line.down, line.delay, line.loss
        );
        if let Some(disk) = group.disk {
            let _ = writeln!(text, "disk = \"{disk}\"");
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

const fn rate(mbits: u64) -> Rate {
    Rate::from_bits(mbits * 1_000_000)
}

const LAN_OF_SERVERS: Lan = Lan { rate: rate(10_000), delay: Delay::from_micros(100) };

fn gigabit() -> Lan {
    Lan { rate: rate(1000), delay: Delay::from_micros(200) }
}

fn ten_gigabit() -> Uplink {
    Uplink { up: rate(10_000), down: rate(10_000), delay: Delay::from_micros(2000), loss: Share::default() }
}

fn hundreds() -> Uplink {
    Uplink { up: rate(100), down: rate(200), delay: Delay::from_micros(10_000), loss: Share::default() }
}

fn edge() -> Tier {
    Tier::Edge
}

fn one() -> usize {
    1
}

fn one_node() -> Spanned<usize> {
    Spanned::new(0..0, 1)
}

fn four() -> usize {
    4
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{Topology, file::spread};

    fn line(up: u64, down: u64) -> Uplink {
        Uplink {
            up: rate(up),
            down: rate(down),
            delay: Delay::from_micros(25_000),
            loss: "0.5 %".parse().unwrap(),
        }
    }

    #[test]
    fn what_is_generated_can_be_written_and_read_again() {
        let fleet =
            Fleet { regions: 8, disk: Some("3 GiB".parse().unwrap()), ..Fleet::new(200, 5, line(5, 20)) };
        let topology = spread(&fleet.groups()).unwrap();
        assert_eq!((topology.sites.len(), topology.places().count()), (209, 1 + 32 + 1000));
        assert!(Topology::parse(Path::new("x"), &text(&fleet.groups())).unwrap() == topology);
    }

    #[test]
    fn lines_share_the_sites() {
        let fleet = Fleet { lines: vec![line(1, 2), line(3, 4), line(5, 6)], ..Fleet::new(8, 2, line(1, 1)) };
        let names: Vec<_> =
            spread(&fleet.groups()).unwrap().sites.iter().map(|site| site.name.clone()).collect();
        let expected = [
            "cloud", "site-a-1", "site-a-2", "site-a-3", "site-b-1", "site-b-2", "site-b-3", "site-c-1",
            "site-c-2",
        ];
        assert_eq!(names, expected);
    }
}
