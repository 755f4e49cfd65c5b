//! What publishing an artifact would cost: bytes over each line, the least time, and who misses a deadline. By
//! formulas alone: no way of sharing beats the times, and the bytes are those of one copy over each line. What the
//! product makes of it is simulated (`waystation-sim plan --simulate`).

use std::fmt;

use waystation_topology::{Place, Topology, Transfer};

use crate::{
    setup::{Action, Artifact, Layer, Nanos, Network, Setup, Start},
    summary::{Unit, aligned, bytes},
};

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// Bytes that have to move, to a node that has nothing.
    pub bytes: u64,
    /// Sites that are to have it, by number; all but the origin where empty.
    pub sites: Vec<usize>,
    /// Copies at each of them; every node where none.
    pub copies: Option<usize>,
    /// By when, in seconds.
    pub deadline: Option<f64>,
    /// How much of a line's raw rate is content, from 0 to 1.
    pub efficiency: f64,
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Bytes of the artifact.
    pub bytes: u64,
    /// By when, in seconds.
    pub deadline: Option<f64>,
    /// Each site that gets it.
    pub sites: Vec<SitePlan>,
    /// Bytes that leave the origin at least.
    pub origin_bytes: u64,
    /// Bytes that would leave it if every node fetched from it.
    pub origin_bytes_direct: u64,
    /// Seconds until all have it, at least.
    pub all: f64,
    /// Which cut that is.
    pub cut: String,
    /// Seconds until all had it if every node fetched from the origin, at least.
    pub all_direct: f64,
    /// How many sites can have it by the deadline, as far as what can be sent in all goes.
    pub sendable: Option<usize>,
}

/// One site that gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct SitePlan {
    /// Number of the site.
    pub site: usize,
    /// Its name.
    pub name: String,
    /// Copies there.
    pub copies: usize,
    /// Bytes into it.
    pub into: u64,
    /// Bytes between its nodes.
    pub within: u64,
    /// Seconds until its copies are there, at least, by its own lines.
    pub seconds: f64,
    /// Whether that is after the deadline.
    pub late: bool,
    /// Raw bits per second that its line would have to have for the deadline.
    pub needed: Option<f64>,
}

/// Answers.
pub fn plan(topology: &Topology, question: &Question) -> Plan {
    let transfer = transfer(topology, question);
    let sites = sites(topology, question);
    let bound = transfer.least_time(topology);
    let origin = topology.origin();
    let nodes = transfer.wanters.len() as u64;
    let goodput = |rate: waystation_topology::Rate| rate.bytes() * question.efficiency;
    let out = goodput(topology.sites[origin].uplink.up);
    let bytes = question.bytes as f64;
    let direct = sites.iter().map(|site| {
        let own = transfer.wanters.iter().filter(|place| place.site == *site).count() as f64;
        own * bytes / goodput(topology.sites[*site].uplink.down)
    });
    let direct = direct.fold(nodes as f64 * bytes / out, f64::max);
    let site = |site: &usize| site_plan(topology, question, &transfer, *site);
    Plan {
        bytes: question.bytes,
        deadline: question.deadline,
        sites: sites.iter().map(site).collect(),
        origin_bytes: if sites.is_empty() { 0 } else { question.bytes },
        origin_bytes_direct: nodes * question.bytes,
        all: bound.seconds,
        cut: bound.cut,
        all_direct: direct,
        sendable: question.deadline.map(|deadline| {
            let others: f64 = sites.iter().map(|site| goodput(topology.sites[*site].uplink.up)).sum();
            let copies = deadline * (out + others) / bytes;
            // A relay needs a first copy before it can send anything: out of the origin that must fit.
            if deadline * out < bytes { 0 } else { (copies as usize).min(sites.len()) }
        }),
    }
}

fn site_plan(topology: &Topology, question: &Question, transfer: &Transfer, site: usize) -> SitePlan {
    let here = &topology.sites[site];
    let wanters: Vec<Place> = transfer.wanters.iter().filter(|place| place.site == site).copied().collect();
    let copies = wanters.len();
    let alone = Transfer { wanters, ..transfer.clone() };
    // Only what is about this site: what all send together is a bound for the last one.
    let of_site = format!(" site {}", here.name);
    let bounds = alone.bounds(topology).into_iter().filter(|bound| bound.cut.ends_with(&of_site));
    let seconds = bounds.map(|bound| bound.seconds).fold(0.0, f64::max);
    SitePlan {
        site,
        name: here.name.clone(),
        copies,
        into: question.bytes,
        within: question.bytes * copies.saturating_sub(1) as u64,
        seconds,
        late: question.deadline.is_some_and(|deadline| seconds > deadline),
        needed: question
            .deadline
            .map(|deadline| question.bytes as f64 * 8.0 / deadline / question.efficiency),
    }
}

fn sites(topology: &Topology, question: &Question) -> Vec<usize> {
    let origin = topology.origin();
    let all = (0..topology.sites.len()).filter(|site| *site != origin);
    all.filter(|site| question.sites.is_empty() || question.sites.contains(site)).collect()
}

/// The bytes from the origin's first node to the copies.
fn transfer(topology: &Topology, question: &Question) -> Transfer {
    let wanted = |site: usize| {
        let nodes = topology.sites[site].nodes;
        (0..question.copies.map_or(nodes, |copies| copies.min(nodes))).map(move |node| Place { site, node })
    };
    Transfer {
        bytes: question.bytes,
        holders: vec![Place { site: topology.origin(), node: 0 }],
        wanters: sites(topology, question).into_iter().flat_map(wanted).collect(),
        efficiency: question.efficiency,
    }
}

/// The same question for a world: the artifact is published, and every copy is pulled at once when its publisher
/// could have told everybody.
pub fn setup(topology: &Topology, question: &Question, end: Nanos, seed: u64) -> Setup {
    const SETTLE: Nanos = 30 * crate::setup::SECOND;
    let transfer = transfer(topology, question);
    let mut actions = vec![(0, Action::Seed { artifact: 0, at: transfer.holders[0] })];
    actions.extend(transfer.wanters.iter().map(|at| (SETTLE, Action::Pull { artifact: 0, at: *at })));
    Setup {
        name: "plan".to_owned(),
        seed,
        topology: topology.clone(),
        network: Network { efficiency: (question.efficiency * 1e6) as u32, ..Network::default() },
        artifacts: vec![Artifact {
            repository: "plan/artifact".to_owned(),
            tags: vec!["latest".to_owned()],
            layers: vec![Layer { content: "plan".to_owned(), bytes: question.bytes }],
        }],
        upstream: None,
        start: Start::Warm,
        actions,
        end: SETTLE.saturating_add(end),
        bucket: (end / 100).max(crate::setup::SECOND),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |value: f64| Unit::Seconds.show(value);
        let mut lines = vec![
            ["site", "copies", "into it", "between nodes", "at least", "deadline", "line needed"]
                .map(str::to_owned)
                .to_vec(),
        ];
        lines.extend(self.sites.iter().map(|site| {
            vec![
                site.name.clone(),
                site.copies.to_string(),
                bytes(site.into as f64),
                bytes(site.within as f64),
                seconds(site.seconds),
                match (self.deadline, site.late) {
                    (None, _) => "-".to_owned(),
                    (_, true) => "MISSED".to_owned(),
                    (_, false) => "kept".to_owned(),
                },
                site.needed.map_or_else(|| "-".to_owned(), |bits| format!("{:.2} Mbit/s", bits / 1e6)),
            ]
        }));
        f.write_str(&aligned(&lines))?;
        let origin = |bytes_out: u64, all: f64| {
            format!(
                "{} out of the origin, {} at least until all have it",
                bytes(bytes_out as f64),
                seconds(all)
            )
        };
        writeln!(f, "shared:   {} ({})", origin(self.origin_bytes, self.all), self.cut)?;
        writeln!(f, "unshared: {}", origin(self.origin_bytes_direct, self.all_direct))?;
        if let (Some(deadline), Some(sendable)) = (self.deadline, self.sendable) {
            let late = self.sites.iter().filter(|site| site.late).count();
            writeln!(
                f,
                "by {}: {late} of {} sites miss it by their own lines; all lines together can supply {sendable}",
                seconds(deadline),
                self.sites.len()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn topology() -> Topology {
        let site = |name: &str, count: u32, nodes: u32, origin: bool, up: &str, down: &str| {
            format!(
                "[[site]]\nname='{name}'\ntier='edge'\ncount={count}\nnodes={nodes}\norigin={origin}\n\
                 lan={{rate='1 Gbit/s'}}\nuplink={{up='{up}',down='{down}'}}\n"
            )
        };
        let text = site("hub", 1, 1, true, "100 Mbit/s", "100 Mbit/s")
            + &site("shop", 2, 4, false, "10 Mbit/s", "50 Mbit/s")
            + &site("hut", 1, 2, false, "1 Mbit/s", "8 Mbit/s");
        Topology::parse(Path::new("x"), &text).unwrap()
    }

    fn question() -> Question {
        Question { bytes: 100_000_000, sites: vec![], copies: None, deadline: Some(60.0), efficiency: 1.0 }
    }

    #[test]
    fn the_plan_is_what_one_computes_by_hand() {
        let plan = plan(&topology(), &question());
        // 800 Mbit over 50 Mbit/s, over 8 Mbit/s, and out of 100 Mbit/s once.
        let seconds: Vec<f64> = plan.sites.iter().map(|site| site.seconds).collect();
        assert_eq!(seconds, [16.0, 16.0, 100.0]);
        assert_eq!(plan.sites.iter().map(|site| site.late).collect::<Vec<_>>(), [false, false, true]);
        assert_eq!(plan.sites[0].within, 300_000_000);
        assert_eq!(plan.sites[2].copies, 2);
        assert!((plan.sites[0].needed.unwrap() - 800e6 / 60.0).abs() < 1e-3);
        assert_eq!((plan.origin_bytes, plan.origin_bytes_direct), (100_000_000, 1_000_000_000));
        assert_eq!((plan.all, plan.cut.as_str()), (100.0, "into site hut"));
        // 2 copies into the hut: 1600 Mbit over 8 Mbit/s; all 8000 Mbit over 100 would be 80 s.
        assert_eq!(plan.all_direct, 200.0);
        // 60 s of 100 + 10 + 10 + 1 Mbit/s are nine copies, and there are three sites.
        assert_eq!(plan.sendable, Some(3));
    }

    #[test]
    fn only_the_sites_and_copies_that_are_asked_for() {
        let question = Question { sites: vec![3], copies: Some(1), deadline: None, ..question() };
        let plan = plan(&topology(), &question);
        assert_eq!(plan.sites.len(), 1);
        assert_eq!((plan.sites[0].copies, plan.sites[0].within), (1, 0));
        assert_eq!(plan.origin_bytes_direct, 100_000_000);
        let setup = setup(&topology(), &question, 1, 1);
        assert_eq!(setup.actions.len(), 2);
    }
}
