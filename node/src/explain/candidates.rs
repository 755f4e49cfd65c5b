//! Who could send a blob, in the order in which the planner would ask, and why. Repeats in words what
//! `proto/src/wants.rs` and `proto/src/pulls.rs` decide; decides nothing.

use std::collections::BTreeMap;

use waystation_proto::{
    Digest, NodeId,
    body::{HoldingState, NodeBody},
};

use super::{Candidate, Journal, Place};
use crate::{
    driver::handle::DriverStatus,
    upstream::{Upstream, UpstreamStatus},
};

/// What is known of the nodes of the mesh.
pub(super) struct World<'a> {
    pub me: NodeId,
    pub site: &'a str,
    pub nodes: BTreeMap<NodeId, NodeBody>,
    pub driver: DriverStatus,
    pub journal: &'a Journal,
}

impl World<'_> {
    /// The holders of an artifact.
    pub fn members(&self, holders: &[(NodeId, HoldingState)]) -> Vec<Candidate> {
        let whole =
            holders.iter().filter(|(node, state)| *state == HoldingState::Complete && *node != self.me);
        let mut found: Vec<(bool, bool, NodeId)> =
            whole.map(|(node, _)| (!self.is_up(node), self.is_far(node), *node)).collect();
        found.sort();
        let usable = |(down, _, node): &&(bool, bool, NodeId)| !down && self.avoided(node).is_none();
        let near_usable = found.iter().filter(usable).any(|(_, far, _)| !far);
        let any_usable = found.iter().any(|found| usable(&found));
        let candidate = |(down, far, node): &(bool, bool, NodeId)| {
            let (asked, why) = match (self.avoided(node), down, far) {
                (Some(ms), false, _) => {
                    (false, format!("it failed and is left alone for {} more ms", ms.max(1)))
                }
                (_, true, _) if any_usable => (false, "no session with it, and others can be asked".into()),
                (_, true, _) => (true, self.would_dial(node)),
                (_, false, true) if near_usable => {
                    (false, "a node of this site has it, which costs no thin link".into())
                }
                (_, false, true) => (true, "the nearest that has it; it is on another site".into()),
                (_, false, false) => (true, "it is on this site".into()),
            };
            let place = Place::member(node, self.nodes.get(node).map(|body| body.site.clone()), *far);
            Candidate { place, asked, why, trouble: self.journal.trouble(node) }
        };
        found.iter().map(candidate).collect()
    }

    /// Why nobody among them can send anything now.
    pub fn blocked(&self, members: &[Candidate], of: &Digest) -> Option<String> {
        let up =
            |candidate: &Candidate| candidate.place.name.parse().is_ok_and(|node: NodeId| self.is_up(&node));
        if members.is_empty() {
            let alone = if self.driver.sessions.is_empty() {
                "; this node has no session with any member, see: waystation doctor"
            } else {
                ""
            };
            return Some(format!("no other node is known to hold all of {of}{alone}"));
        }
        if !members.iter().any(up) {
            let names: Vec<_> = members.iter().map(|member| &member.place.name[..10]).collect();
            let names = names.join(", ");
            return Some(format!(
                "no session with a node that has it ({names}); a pull dials them and waits half a second"
            ));
        }
        if members.iter().all(|member| !member.asked) {
            return Some("every node that has it failed a moment ago and is left alone".into());
        }
        None
    }

    fn would_dial(&self, node: &NodeId) -> String {
        match self.nodes.get(node).map(|body| body.addresses.join(", ")) {
            Some(addresses) if !addresses.is_empty() => {
                format!("no session with it: it would be dialled at {addresses}")
            }
            _ => "no session with it, and its address is not known".into(),
        }
    }

    fn is_up(&self, node: &NodeId) -> bool {
        self.driver.sessions.contains(node)
    }

    fn is_far(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some_and(|body| body.site != self.site)
    }

    fn avoided(&self, node: &NodeId) -> Option<u64> {
        self.driver.avoided.iter().find(|(avoided, _)| avoided == node).map(|(_, ms)| *ms)
    }
}

/// An upstream, after the members.
pub(super) fn upstream(
    upstream: &Upstream,
    status: &[UpstreamStatus],
    journal: &Journal,
    of: &Digest,
) -> Candidate {
    let name = &upstream.config().namespace;
    let status = status.iter().find(|status| status.namespace == *name);
    let endpoints = status.map(|status| status.endpoints.as_slice()).unwrap_or_default();
    let state = |endpoint: &crate::upstream::EndpointStatus| {
        let (url, why) = (&endpoint.url, endpoint.trouble.as_deref().unwrap_or("it fails"));
        match (endpoint.away, endpoint.limited_for_s) {
            (true, _) => format!("{url} is away and left alone for a while: {why}"),
            (false, Some(seconds)) => format!("{url} wants to be left alone for {seconds} s"),
            (false, None) => format!("{url} is not known to fail"),
        }
    };
    let states: Vec<_> = endpoints.iter().map(state).collect();
    let place = Place::upstream(name);
    let why = match upstream.is_away() {
        true => states.join("; "),
        false => format!("asked when no member has it or is pulling it: {}", states.join("; ")),
    };
    Candidate { place, asked: !upstream.is_away(), why, trouble: journal.failed_pull(of) }
}
