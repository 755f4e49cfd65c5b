//! Who of the members with a session is of this node's site. It is asked for often and changes
//! seldom, so it is found out once for each change of the sessions or of what nodes say about themselves.

use alloc::vec::Vec;

use super::Replica;
use crate::{
    id::NodeId,
    membership::Connected,
    surplus::{Share, weight},
    time::{Now, Time},
};

/// The sessions, as far as sites go.
#[derive(Debug, Default)]
pub(super) struct Company {
    /// The state of the sessions and of the catalog that this was found out from.
    of: Option<(u64, u64)>,
    /// How many there are of each sort.
    connected: Connected,
    /// This node's place in the order of its site.
    mine: [u8; 8],
    /// Members known to be of this site, and their places.
    home: Vec<(NodeId, [u8; 8])>,
    /// Whether no other node is known to be of this site.
    whole: bool,
    /// Whether there are more than one node has sessions with.
    crowded: bool,
}

impl Replica {
    /// What there is now.
    fn company(&mut self) -> &Company {
        let of = (self.membership.session_changes(), self.catalog.node_changes());
        if self.company.of != Some(of) {
            self.company = Company { of: Some(of), ..self.find_company() };
        }
        &self.company
    }

    fn find_company(&self) -> Company {
        let (me, here) = (self.me(), &self.config.site);
        let (mut connected, mut home) = (Connected::default(), Vec::new());
        for peer in self.membership.sessions() {
            let site = self.catalog.site_of(&peer);
            *(if site.is_some_and(|site| site != here) {
                &mut connected.far
            } else {
                &mut connected.near
            }) += 1;
            if site.is_some_and(|site| site == here) {
                home.extend(self.catalog.weight(&peer).map(|weight| (peer, weight)));
            }
        }
        let whole = self.catalog.nodes_of(here).all(|(node, _)| *node == me || self.membership.is_up(node));
        connected.others = self.catalog.nodes_of(here).filter(|(node, _)| **node != me).count();
        let crowded = connected.others > self.config.site_whole;
        Company { of: None, connected, mine: self.weight_here(&me), home, whole, crowded }
    }

    /// Where a node stands, or would, among those of this site.
    pub(super) fn weight_here(&self, node: &NodeId) -> [u8; 8] {
        let here = &self.config.site;
        let known = self.catalog.weight(node).filter(|_| self.catalog.site_of(node) == Some(here.as_str()));
        known.unwrap_or_else(|| weight(here, node))
    }

    /// How many sessions there are.
    pub(super) fn connected(&mut self) -> Connected {
        self.company().connected
    }

    /// Whether every node that is known to be of this site has a session.
    pub(super) fn has_all_of_site(&mut self) -> bool {
        self.company().whole
    }

    /// Whether this node's site has more nodes than one has sessions with.
    pub(super) fn is_crowded(&mut self) -> bool {
        self.company().crowded
    }

    /// Members known to be of this site, in its order.
    pub(super) fn home_by_weight(&mut self) -> Vec<NodeId> {
        let mut home = self.company().home.clone();
        // Stable, as the sessions are by name.
        home.sort_by_key(|(_, weight)| *weight);
        home.into_iter().map(|(node, _)| node).collect()
    }

    /// When others of this site may not count any more as those who keep its sessions with other sites.
    pub(super) fn others_outside_until(&mut self, now: Time) -> Option<Time> {
        self.company();
        let presence = &self.membership.presence;
        let until = self.company.home.iter().filter_map(|(peer, _)| presence.outside_until(peer));
        until.filter(|until| *until > now).min()
    }

    /// How many sessions with other sites this node keeps.
    pub(super) fn far_share(&mut self, now: Now) -> Share {
        self.company();
        let Company { mine, home, .. } = &self.company;
        let presence = &self.membership.presence;
        let others = home.iter().map(|(peer, weight)| (*weight, presence.outside(now.time, peer)));
        Share::far(&self.config, *mine, others)
    }
}
