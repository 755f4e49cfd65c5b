//! Who holds what: what nodes tell their site, kept beside what they tell the mesh. Which of the two counts follows from
//! what is in the index, in whatever order it came.

use std::collections::BTreeMap;

use waystation_proto::{
    Digest, NodeId,
    body::{HoldingState, NodeBody},
    event::Told,
};

use super::{Index, keys, put, rows::HolderRow, rows::decode};

impl Index {
    /// Artifacts that a node says to hold something of.
    pub fn held_by(&self, node: &NodeId) -> Vec<(Digest, HoldingState)> {
        let of_node = self.rows(self.holders.iter()).filter_map(|(key, value)| {
            let (manifest, rest) = keys::read_digest(&key)?;
            let (of, row) = (keys::read_holder(rest)?, decode(&value)?);
            (of == *node && self.is_at_home(node, &row)).then_some((manifest, row.state))
        });
        // What it tells its site comes first, and goes before what it tells the mesh.
        let mut held: Vec<(Digest, HoldingState)> = of_node.collect();
        held.dedup_by_key(|(manifest, _)| *manifest);
        held
    }

    /// What a node says to hold of it.
    pub fn holding(&self, manifest: &Digest, node: &NodeId) -> Option<HoldingState> {
        let told = [false, true].map(|mesh| keys::holder(manifest, node, mesh));
        let mut rows = told.iter().filter_map(|key| self.row::<HolderRow>(&self.holders, key));
        rows.find(|row| self.is_at_home(node, row)).map(|row| row.state)
    }

    /// Those who say to hold something of it, this node included: of its site all, of others those that tell the mesh.
    pub fn holders(&self, manifest: &Digest) -> Vec<(NodeId, HoldingState)> {
        let prefix = keys::digest(manifest);
        let said = self.rows(self.holders.scan_prefix(&prefix)).filter_map(|(key, value)| {
            let (node, row) = (keys::read_holder(&key[prefix.len()..])?, decode(&value)?);
            self.is_at_home(&node, &row).then_some((node, row.state))
        });
        let mut holders: Vec<(NodeId, HoldingState)> = said.collect();
        holders.dedup_by_key(|(node, _)| *node);
        holders
    }

    /// How many nodes say to have all of it: those of this node's site, and of each other site as many as it told.
    pub fn copies(&self, manifest: &Digest) -> u64 {
        let prefix = keys::digest(manifest);
        let (mut near, mut here, mut far) = (0, None, BTreeMap::<Option<String>, u64>::new());
        for (key, value) in self.rows(self.holders.scan_prefix(&prefix)) {
            let row = keys::read_holder(&key[prefix.len()..]).zip(decode::<HolderRow>(&value));
            let Some((node, HolderRow { state: HoldingState::Complete, site, copies })) = row else {
                continue;
            };
            let of: Option<String> = self.row::<NodeBody>(&self.nodes, &node.0).map(|body| body.site);
            match site {
                Some(site) if of.as_ref().is_none_or(|of| *of == site) => {
                    near += 1;
                    here = Some(site);
                }
                Some(_) => {}
                None => {
                    let most = far.entry(of).or_default();
                    *most = u64::from(copies).max(*most);
                }
            }
        }
        let others = far.iter().filter(|(site, _)| here.is_none() || **site != here);
        near + others.map(|(_, copies)| copies).sum::<u64>()
    }

    /// Whether what a node told a site counts: not where it says to be on another one by now.
    fn is_at_home(&self, node: &NodeId, row: &HolderRow) -> bool {
        let Some(site) = &row.site else { return true };
        let says: Option<NodeBody> = self.row(&self.nodes, &node.0);
        says.is_none_or(|says| says.site == *site)
    }

    /// A node said what it holds of an artifact.
    pub(super) fn say(
        &self,
        manifest: &Digest,
        node: &NodeId,
        state: HoldingState,
        told: &Told,
    ) -> sled::Result<()> {
        let key = keys::holder(manifest, node, matches!(told, Told::Mesh(_)));
        let (site, copies) = match told {
            Told::Site(site) => (Some(site.clone()), 0),
            Told::Mesh(copies) => (None, *copies),
        };
        match state {
            HoldingState::Gone => self.holders.remove(key).map(|_| ()),
            state => put(&self.holders, key, &HolderRow { state, site, copies }),
        }
    }
}
