//! Whether others reach this node on both planes: members are asked to dial it, and where none can be asked it is told
//! from who has connected.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use waystation_proto::{NodeId, body::NodeBody};

use super::Finding;
use crate::{api::NodeFacts, driver::handle::DriverStatus, reach::Tried};

/// One for each plane. Asks a few members, which dial this node anew.
pub(super) async fn reached(
    facts: &NodeFacts,
    driver: &DriverStatus,
    nodes: &[(NodeId, NodeBody)],
) -> Vec<Finding> {
    let member = |id: &NodeId| nodes.iter().find(|(node, _)| node == id);
    let (far, near): (Vec<_>, Vec<_>) =
        driver.sessions.iter().filter_map(member).partition(|(_, body)| body.site != facts.site);
    let asked = far.into_iter().take(FAR_ASKED).chain(near.into_iter().take(NEAR_ASKED));
    let answers = join_all(asked.map(|(node, body)| async {
        Answer { node: *node, site: body.site.clone(), result: facts.insight.asking.ask(*node).await }
    }))
    .await;
    let control: BTreeSet<NodeId> = facts.insight.reached.nodes().into_iter().collect();
    let planes = [
        Plane { name: "control", protocol: "TCP", came: control, is_reached: |tried| tried.control },
        Plane { name: "data", protocol: "UDP", came: (facts.insight.came)(), is_reached: |tried| tried.data },
    ];
    planes.iter().map(|plane| plane.judge(facts, nodes, &answers)).collect()
}

/// What a member said.
struct Answer {
    node: NodeId,
    site: String,
    result: Result<Vec<Tried>, String>,
}

struct Plane {
    name: &'static str,
    protocol: &'static str,
    /// Who has connected since the start.
    came: BTreeSet<NodeId>,
    is_reached: fn(&Tried) -> bool,
}

impl Plane {
    /// What members of other sites say counts first; of this site, where no other is known.
    fn judge(&self, facts: &NodeFacts, nodes: &[(NodeId, NodeBody)], answers: &[Answer]) -> Finding {
        let Plane { name, protocol, .. } = self;
        let check = format!("reach-{name}");
        let is_other = |(node, _): &&(NodeId, NodeBody)| *node != facts.node;
        let far_known = nodes.iter().filter(is_other).any(|(_, body)| body.site != facts.site);
        let mut of_interest = answers.iter().filter(|answer| !far_known || answer.site != facts.site);
        if let Some((answer, address)) = of_interest.clone().find_map(|answer| self.reached_at(answer)) {
            let what = format!("others reach the {name} plane ({protocol})");
            let why = format!("node {} of {} dialled {address} just now", answer.node.short(), answer.site);
            return Finding::ok(&check, what).because(why);
        }
        match of_interest.find_map(|answer| Some((answer, answer.result.as_ref().ok()?))) {
            Some((answer, tried)) => self.not_reached(facts, answer, tried),
            None => self.seen(facts, nodes, answers),
        }
    }

    fn reached_at<'a>(&self, answer: &'a Answer) -> Option<(&'a Answer, &'a str)> {
        let reached = answer.result.iter().flatten().find(|tried| (self.is_reached)(tried));
        reached.map(|tried| (answer, tried.address.as_str()))
    }

    fn todo(&self, facts: &NodeFacts) -> String {
        format!(
            "see that {} to port {} of the addresses above is let through (firewall, NAT), or give with --advertise \
             one that leads here; a node that only dials out works, and others fetch from it while it has sessions",
            self.protocol,
            facts.mesh_listen.port()
        )
    }

    fn not_reached(&self, facts: &NodeFacts, answer: &Answer, tried: &[Tried]) -> Finding {
        let addresses: Vec<&str> = tried.iter().map(|tried| tried.address.as_str()).collect();
        let why = format!(
            "node {} of {} dialled just now: this node does not answer it at {}",
            answer.node.short(),
            answer.site,
            addresses.join(", ")
        );
        let what = format!("others do not reach the {} plane ({})", self.name, self.protocol);
        let instead = if self.name == "data" { "; blobs go over TCP sessions instead" } else { "" };
        Finding::warn(&format!("reach-{}", self.name), what, self.todo(facts)).because(why + instead)
    }

    /// Nobody could be asked: whether others have connected. Nothing proves that nobody could.
    fn seen(&self, facts: &NodeFacts, nodes: &[(NodeId, NodeBody)], answers: &[Answer]) -> Finding {
        let Plane { name, protocol, came, .. } = self;
        let check = format!("reach-{name}");
        let of = |node: &NodeId| nodes.iter().find(|(known, _)| known == node);
        let sites: BTreeSet<&str> = came.iter().filter_map(of).map(|(_, body)| body.site.as_str()).collect();
        let outside: Vec<&str> = sites.into_iter().filter(|site| *site != facts.site).collect();
        if !outside.is_empty() {
            let what = format!("nodes of other sites have connected on the {name} plane ({protocol})");
            return Finding::ok(&check, what)
                .because(format!("from {}, since the start", outside.join(", ")));
        }
        let others: Vec<_> = nodes.iter().filter(|(node, _)| *node != facts.node).collect();
        if others.is_empty() {
            let what = format!("nobody is there who could connect on the {name} plane ({protocol})");
            return Finding::ok(&check, what);
        }
        if !came.is_empty() && others.iter().all(|(_, body)| body.site == facts.site) {
            let what = format!("nodes of this site have connected on the {name} plane ({protocol})");
            return Finding::ok(&check, what);
        }
        let whence = if came.is_empty() { "no other node has" } else { "only nodes of this site have" };
        let what =
            format!("not proven that others reach the {name} plane ({protocol}): {whence} connected to it");
        let failed = answers.iter().find_map(|answer| Some((answer, answer.result.as_ref().err()?)));
        let why = failed.map_or_else(
            || "no member that could dial it has a session; seen since the start".to_owned(),
            |(answer, why)| format!("node {} of {} did not dial it: {why}", answer.node.short(), answer.site),
        );
        Finding::warn(&check, what, self.todo(facts)).because(why)
    }
}

/// Members that are asked, of other sites
const FAR_ASKED: usize = 2;
/// and of this one.
const NEAR_ASKED: usize = 1;
