//! What the planner sees of the rest of the replica: who holds an artifact and can be asked for it. Whoever
//! did not answer when a client waited is left out, see [`crate::presence`].

use alloc::vec::Vec;

use crate::{
    body::HoldingState,
    catalog::Catalog,
    config::ReplicaConfig,
    id::{Digest, NodeId},
    membership::Membership,
    wants::{Holder, Holders},
};

/// What the planner sees of the catalog and the sessions.
pub(crate) struct World<'a> {
    config: &'a ReplicaConfig,
    catalog: &'a Catalog,
    membership: &'a Membership,
    me: NodeId,
}

impl<'a> World<'a> {
    /// This node's view.
    pub(crate) fn of(
        config: &'a ReplicaConfig,
        catalog: &'a Catalog,
        membership: &'a Membership,
        me: NodeId,
    ) -> Self {
        World { config, catalog, membership, me }
    }
}

impl Holders for World<'_> {
    fn holders(&self, manifest: &Digest) -> Vec<Holder> {
        let whole = self.catalog.holders(manifest).filter(|(_, state)| *state == HoldingState::Complete);
        let up = whole.filter(|(node, _)| *node != self.me && self.membership.is_live_now(node));
        let mut holders: Vec<Holder> = up.filter_map(|(node, _)| self.member(&node)).collect();
        holders.sort();
        holders
    }

    fn member(&self, node: &NodeId) -> Option<Holder> {
        let body = self.catalog.node(node).filter(|_| self.membership.is_live_now(node))?;
        Some(Holder { far: body.site != self.config.site, node: *node, addresses: body.addresses })
    }
}
