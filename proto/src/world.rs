//! What the planner sees of the rest of the replica: who holds an artifact and can be asked for it. Whoever
//! did not answer when a client waited is left out, see [`crate::presence`].

use alloc::{string::String, vec::Vec};

use crate::{
    body::{HoldingState, site_number},
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
    /// Whether members count that may be there in a moment, and of other sites too.
    coming: Option<Outside>,
}

/// Whether other sites seem to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outside {
    /// As far as is known.
    There,
    /// A dial to one is likely to come to nothing.
    Away,
}

impl<'a> World<'a> {
    /// This node's view.
    pub(crate) fn of(
        config: &'a ReplicaConfig,
        catalog: &'a Catalog,
        membership: &'a Membership,
        me: NodeId,
    ) -> Self {
        World { config, catalog, membership, me, coming: None }
    }

    /// The same, where holders count that are being dialled: nothing may be promised that only they have, nor is it
    /// known yet that it cannot be had.
    pub(crate) fn with_coming(self, outside: Outside) -> Self {
        World { coming: Some(outside), ..self }
    }

    /// Holders of an artifact that are being dialled, or were asked whether they are there, and may still answer.
    fn coming(&self, manifest: &Digest) -> impl Iterator<Item = Holder> + '_ {
        let whole = self.coming.map(|outside| (outside, self.catalog.holders(manifest)));
        whole.into_iter().flat_map(move |(outside, holders)| {
            let whole = holders.filter(|(node, state)| *state == HoldingState::Complete && *node != self.me);
            let now = self.membership.now();
            let far_too = outside == Outside::There;
            let may_answer = move |holder: &Holder| match self.membership.is_up(&holder.node) {
                true => self.membership.presence.may_answer(now, &holder.node),
                false => self.membership.may_come(now, &holder.node) && (far_too || !holder.far),
            };
            whole.filter_map(|(node, _)| self.described(&node)).filter(may_answer)
        })
    }

    /// Whether a holder of an artifact may be there in a moment.
    pub(crate) fn is_coming(&self, manifest: &Digest) -> bool {
        self.coming(manifest).next().is_some()
    }

    /// What a member says of itself, in a planner's terms.
    fn described(&self, node: &NodeId) -> Option<Holder> {
        let body = self.catalog.node(node)?;
        let far = body.site != self.config.site;
        let abroad = far && body.region != self.config.region;
        Some(Holder { far, abroad, node: *node })
    }
}

impl Holders for World<'_> {
    fn holders(&self, manifest: &Digest) -> Vec<Holder> {
        let mut holders = self.with_session(manifest);
        holders.retain(|holder| self.membership.is_live_now(&holder.node));
        // At most once: whoever has a session and may be asked is not one to wait for.
        let coming: Vec<Holder> = self.coming(manifest).filter(|holder| !holders.contains(holder)).collect();
        holders.extend(coming);
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
        self.membership.is_up(node).then(|| self.described(node)).flatten()
    }

    fn known(&self, node: &NodeId) -> Option<Holder> {
        self.described(node).filter(|_| *node != self.me)
    }

    fn other_sites(&self, most: usize) -> usize {
        self.catalog.sites().filter(|site| *site != self.config.site).take(most).count()
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

    fn site_nodes(&self) -> Vec<NodeId> {
        let others = self.catalog.nodes_of(&self.config.site).map(|(node, _)| *node);
        others.filter(|node| *node != self.me).chain([self.me]).collect()
    }

    fn site(&self, node: &NodeId) -> u64 {
        let here = &self.config.site;
        // What this node said of itself may be about where it was before.
        let said = *node != self.me || self.catalog.site_of(node).is_some_and(|site| site == here);
        said.then(|| self.catalog.site_number(node)).flatten().unwrap_or_else(|| site_number(here))
    }

    fn far_allowed(&self, class: Class) -> bool {
        self.membership.far_allowed(class)
    }
}
