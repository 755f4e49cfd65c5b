//! What a running node can say of itself: who reaches it, its clock beside those of others, what it may do, how its
//! upstreams do.

use std::time::Duration;

use waystation_proto::{NodeId, Wall, body::NodeBody};

use super::{Finding, now, reached};
use crate::{api::NodeFacts, driver::handle::DriverStatus, store::Store, upstream::Pinged};

/// All of it. Asks each upstream once.
pub async fn examine(store: &Store, facts: &NodeFacts, driver: &DriverStatus) -> Vec<Finding> {
    let nodes = store.index().nodes();
    let mut found = vec![sessions(facts, driver, &nodes)];
    found.push(addresses(facts, &nodes));
    found.extend(reached::reached(facts, driver, &nodes).await);
    found.extend(clock(now(), &driver.authored));
    found.extend(grants(store, facts));
    let mut asked = Vec::new();
    for upstream in facts.upstreams.iter() {
        asked.extend(upstream.ping().await);
    }
    found.extend(asked.iter().map(upstream));
    found.extend(asked.iter().filter_map(|pinged| clock_of_upstream(now(), pinged)));
    found
}

fn sessions(facts: &NodeFacts, driver: &DriverStatus, nodes: &[(NodeId, NodeBody)]) -> Finding {
    let others = nodes.iter().filter(|(node, _)| *node != facts.node).count();
    match (driver.sessions.len(), others) {
        (0, 0) => Finding::ok("sessions", "no other node is known: this mesh is this node alone").because(
            "to let another machine in: waystation mesh export here, serve --mesh there",
        ),
        (0, others) => Finding::fail(
            "sessions",
            format!("no session with any of the {others} other nodes that are known"),
            "see whether their addresses (waystation peers) can be reached from here on TCP and UDP, and the log for what they answer",
        )
        .because("this node hears of nothing new, and can fetch only from upstreams"),
        (up, others) => Finding::ok("sessions", format!("{up} sessions, {others} other nodes known")),
    }
}

/// Where others are told to connect.
fn addresses(facts: &NodeFacts, nodes: &[(NodeId, NodeBody)]) -> Finding {
    let own = nodes.iter().find(|(node, _)| *node == facts.node);
    let told = own.map(|(_, body)| body.addresses.clone()).unwrap_or_default();
    let local = |address: &String| address.starts_with("127.") || address.starts_with("[::1]");
    if facts.opens_when_shared {
        return Finding::ok("addresses", format!("listens for other nodes on {} only", facts.mesh_listen))
            .because(
                "the mesh was not shared; after waystation mesh export and a restart it listens for others",
            );
    }
    if told.is_empty() {
        let todo = "give host:port that leads here with --advertise";
        return Finding::warn("addresses", "tells others no address to connect to", todo);
    }
    let what = format!("tells others to connect to {}", told.join(", "));
    let far = nodes.iter().any(|(_, body)| body.addresses.iter().any(|address| !local(address)));
    if told.iter().all(local) && far {
        let todo = "give host:port that leads here with --advertise, and an address that others reach with --mesh-listen";
        return Finding::warn("addresses", what, todo)
            .because("those are addresses of this machine for itself");
    }
    Finding::ok("addresses", what)
}

/// This machine's clock beside what other nodes wrote.
fn clock(now: Wall, authored: &[(NodeId, Wall)]) -> Option<Finding> {
    if !now.is_plausible() {
        // Told by the machine's own check.
        return None;
    }
    let plausible: Vec<_> = authored.iter().filter(|(_, wall)| wall.is_plausible()).collect();
    let ahead: Vec<_> = plausible.iter().filter(|(_, wall)| wall.0 > now.0 + SKEW_S).collect();
    let Some((node, wall)) = ahead.iter().max_by_key(|(_, wall)| wall.0) else {
        let what =
            format!("nothing that {} members wrote is of later than this machine's now", plausible.len());
        return (!plausible.is_empty()).then(|| Finding::ok("clock-mesh", what));
    };
    let by = humantime::format_duration(Duration::from_secs(wall.0 - now.0));
    let what =
        format!("{} of {} members wrote something in this machine's future", ahead.len(), plausible.len());
    Some(
        Finding::warn("clock-mesh", what, "set this machine's clock, or that node's (chrony, ntpd)")
            .because(format!("node {} by {by}: this clock is behind, or that one ahead", node.short())),
    )
}

fn grants(store: &Store, facts: &NodeFacts) -> Vec<Finding> {
    let now = now();
    let mut own = store.index().grants();
    own.retain(|grant| grant.subject == facts.node);
    let ask = format!("where the root key is: waystation mesh grant {} --repositories 'GLOB'", facts.node);
    if own.is_empty() {
        return vec![
            Finding::ok("grants", "this node has no grant: it serves and replicates, and cannot publish")
                .because(ask),
        ];
    }
    // Of several for the same repositories the one that lasts longest counts.
    own.sort_by_key(|grant| {
        (grant.repositories.to_string(), std::cmp::Reverse(grant.expires.map_or(u64::MAX, |e| e.0)))
    });
    own.dedup_by_key(|grant| grant.repositories.to_string());
    own.iter()
        .map(|grant| {
            let name = format!("{} in {}", grant.actions.names().join(", "), grant.repositories);
            match grant.expires {
                None => Finding::ok("grants", format!("may {name}, without end")),
                Some(end) if now.is_plausible() && end < now => {
                    Finding::warn("grants", format!("the grant to {name} has ended"), ask.clone())
                }
                Some(end) => {
                    let left = Duration::from_secs(end.0.saturating_sub(now.0));
                    let what = format!("may {name}, for {} more", humantime::format_duration(left));
                    if left < SOON && now.is_plausible() {
                        Finding::warn("grants", what, ask.clone())
                    } else {
                        Finding::ok("grants", what)
                    }
                }
            }
        })
        .collect()
}

fn upstream(pinged: &Pinged) -> Finding {
    match &pinged.result {
        Ok(answer) => {
            let ms = answer.took.as_millis();
            Finding::ok("upstream", format!("{} answers at {} in {ms} ms", pinged.namespace, pinged.url))
                .because(format!("GET of its API was answered with {}", answer.status))
        }
        Err(why) => Finding::warn(
            "upstream",
            format!("{} does not answer at {}", pinged.namespace, pinged.url),
            "see whether this machine reaches it: DNS, firewall, proxy variables, ca-file; what is held here is served meanwhile",
        )
        .because(why.clone()),
    }
}

/// A registry's clock is mostly right.
fn clock_of_upstream(now: Wall, pinged: &Pinged) -> Option<Finding> {
    let theirs = pinged.result.as_ref().ok()?.date?;
    let off = theirs.abs_diff(now.0);
    let name = &pinged.namespace;
    if off <= SKEW_S {
        return Some(Finding::ok("clock-upstream", format!("this machine's clock agrees with {name}'s")));
    }
    let by = humantime::format_duration(Duration::from_secs(off));
    let way = if theirs > now.0 { "behind" } else { "ahead of" };
    let what = format!("this machine's clock is {by} {way} {name}'s");
    Some(
        Finding::warn("clock-upstream", what, "set the clock (chrony, ntpd)")
            .because("certificates, ends of grants and ages of tags are judged by it"),
    )
}

/// How many seconds clocks may differ.
const SKEW_S: u64 = 300;
/// A grant that ends sooner needs somebody's attention.
const SOON: Duration = Duration::from_secs(14 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{doctor::Level, upstream::Answered};

    #[test]
    fn clocks_are_compared_as_far_as_they_tell() {
        let (now, node) = (Wall(1_800_000_000), NodeId([1; 32]));
        let level = |authored: &[(NodeId, Wall)]| clock(now, authored).map(|finding| finding.level);
        assert_eq!(level(&[]), None);
        assert_eq!(level(&[(node, Wall(0))]), None, "a board without a clock says nothing");
        assert_eq!(level(&[(node, Wall(now.0 + 200))]), Some(Level::Ok));
        assert_eq!(level(&[(node, Wall(now.0 + 4000))]), Some(Level::Warn));
        assert_eq!(clock(Wall(5), &[(node, now)]), None);
        let pinged = |date| Pinged {
            namespace: "docker.io".into(),
            url: "u".into(),
            result: Ok(Answered { took: Duration::ZERO, status: 401, date }),
        };
        let told = |date| clock_of_upstream(now, &pinged(date)).map(|finding| finding.what);
        assert_eq!(told(None), None);
        assert!(told(Some(now.0 - 10)).expect("told").contains("agrees"));
        assert!(told(Some(now.0 + 86_400)).expect("told").contains("1day behind docker.io"));
        assert_eq!(upstream(&Pinged { result: Err("x".into()), ..pinged(None) }).level, Level::Warn);
    }
}
