//! What the planner sees of the rest of the replica: who holds an artifact and can be asked for it. Whoever
//! did not answer when a client waited is left out, see [`crate::presence`].

use alloc::{string::String, vec::Vec};

use crate::{
    body::HoldingState,
    catalog::Catalog,
    config::ReplicaConfig,
    event::Class,
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
        let mut holders = self.with_session(manifest);
        holders.retain(|holder| self.membership.is_live_now(&holder.node));
        holders
    }

    fn with_session(&self, manifest: &Digest) -> Vec<Holder> {
        let whole = self.catalog.holders(manifest).filter(|(_, state)| *state == HoldingState::Complete);
        let others = whole.filter(|(node, _)| *node != self.me);
        let mut holders: Vec<Holder> = others.filter_map(|(node, _)| self.member(&node)).collect();
        holders.sort();
        holders
    }

    fn member(&self, node: &NodeId) -> Option<Holder> {
        // Of hundreds of holders few have a session, which costs less to find out than what they say.
        if !self.membership.is_up(node) {
            return None;
        }
        let body = self.catalog.node(node)?;
        let far = body.site != self.config.site;
        let abroad = far && body.region != self.config.region;
        Some(Holder { far, abroad, node: *node })
    }

    fn addresses(&self, node: &NodeId) -> Vec<String> {
        self.catalog.node(node).map(|body| body.addresses.clone()).unwrap_or_default()
    }

    fn changes(&self) -> Option<u64> {
        let [holdings, nodes] = [self.catalog.holding_changes(), self.catalog.node_changes()];
        Some(self.membership.session_changes() + holdings + nodes)
    }

    fn me(&self) -> NodeId {
        self.me
    }

    fn sessions(&self) -> Vec<(NodeId, bool)> {
        let sessions = self.membership.sessions();
        sessions.filter_map(|node| Some((node, self.catalog.site_of(&node)? != self.config.site))).collect()
    }

    fn site(&self, node: &NodeId) -> u64 {
        let site = self.catalog.site_of(node).filter(|_| *node != self.me).unwrap_or(&self.config.site);
        let hash = blake3::hash(site.as_bytes());
        hash.as_bytes()[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    fn far_allowed(&self, class: Class) -> bool {
        self.membership.far_allowed(class)
    }
}
