//! Which nodes there are to choose from when more sessions are wanted: those of this site, and of other sites those
//! that keep their sessions. Of a large mesh some sites are looked at and not all: nearly any choice of a handful is
//! as good. Whether and when one is dialled is [`crate::membership`]'s.

use alloc::vec::Vec;

use crate::{
    body::NodeBody,
    catalog::Catalog,
    id::NodeId,
    membership::{Candidate, Membership, Sorts},
    surplus::GATEWAYS,
};

/// Nodes to choose from.
pub(super) struct Candidates<'a, F> {
    /// What is known.
    pub(super) catalog: &'a Catalog,
    /// The site of the node that looks.
    pub(super) here: &'a str,
    /// Whether a node may be dialled at all.
    pub(super) is_wanted: F,
}

impl<'a, F: Fn(&NodeId) -> bool> Candidates<'a, F> {
    /// Nodes of the own site by name, and of other sites those first that keep their sessions with others, as far as
    /// they can be reached: any other would part again.
    pub(super) fn of(
        &self,
        membership: &Membership,
        sorts: Sorts,
        rng: &mut fastrand::Rng,
    ) -> Vec<Candidate<'a>> {
        let mut chosen: Vec<(&NodeId, &NodeBody)> = Vec::new();
        if sorts.near {
            chosen.extend(self.of_site(self.here));
            chosen.sort_unstable_by_key(|(node, _)| **node);
        }
        if sorts.far {
            let (near, nodes) = (chosen.len(), self.catalog.node_count());
            for _ in 0..if nodes > MANY_NODES { STARTS } else { 0 } {
                for site in self.catalog.sites_from(rng.usize(0..nodes)).take(SITES_EACH) {
                    self.gateways(membership, site, &mut chosen);
                }
            }
            if chosen.len() == near {
                self.catalog.sites().for_each(|site| self.gateways(membership, site, &mut chosen));
            }
        }
        chosen.into_iter().map(|(node, body)| Candidate::of(*node, body, self.here)).collect()
    }

    fn of_site(&self, site: &str) -> impl Iterator<Item = (&'a NodeId, &'a NodeBody)> {
        self.catalog.nodes_of(site).filter(|(node, _)| (self.is_wanted)(node))
    }

    /// Those of another site that keep its sessions.
    fn gateways(&self, membership: &Membership, site: &str, chosen: &mut Vec<(&'a NodeId, &'a NodeBody)>) {
        if site == self.here {
            return;
        }
        let (mut first, mut failed) = (0, Vec::new());
        for (node, body) in self.of_site(site) {
            match membership.failures(node) / 2 {
                0 => {
                    first += 1;
                    chosen.push((node, body));
                }
                failures => failed.push((failures, node, body)),
            }
            if first == GATEWAYS {
                break;
            }
        }
        // Stable, so that those that failed as often stay in the order of the site.
        failed.sort_by_key(|(failures, ..)| *failures);
        let failed = failed.into_iter().map(|(_, node, body)| (node, body));
        chosen.extend(failed.take(GATEWAYS - first));
    }
}

/// With more nodes than this, not all sites are looked at.
const MANY_NODES: usize = 512;
/// From so many places in the order of sites, because sites with names alike may share a fate.
const STARTS: usize = 4;
/// So many sites.
const SITES_EACH: usize = 8;
