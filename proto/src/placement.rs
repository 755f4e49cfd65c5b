//! Which nodes hold the copies that a policy asks for. A pure function of the policy, the nodes known, who
//! holds what and who is away: two nodes that know the same agree, and what is held already is preferred, so
//! that nothing moves for a policy that is met.
//!
//! Two steps. How many copies each *site* is to have is decided from what all nodes know alike (what is told the mesh), and
//! from sites that are away as a whole. *Which nodes* of a site hold them is decided by the site: its members
//! alone know which of them are away. A node counts as away once it was not heard of for the policy's grace;
//! one of which nothing is known counts as present.

use alloc::{
    collections::BTreeMap,
    string::{String, ToString},
    vec::Vec,
};

use crate::{
    body::{HoldingState, NodeBody},
    id::{Digest, NodeId},
    policy::{Places, Policy},
    time::Span,
};

/// The nodes that a policy means, by site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    sites: BTreeMap<String, Vec<NodeId>>,
}

/// Who was not heard of, and for how long. Whoever is not listed is there, as far as is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Silence {
    /// Nodes of this node's own site.
    pub nodes: BTreeMap<NodeId, Span>,
    /// Other sites, of which no node was heard.
    pub sites: BTreeMap<String, Span>,
}

/// Who has what of one artifact.
#[derive(Clone, Debug, Default)]
pub struct Copies {
    /// What each node says to have of it: of this site all, of others those that tell the mesh.
    pub holders: BTreeMap<NodeId, HoldingState>,
    /// What nodes of whatever site tell the mesh, which is known alike everywhere.
    pub told: BTreeMap<NodeId, HoldingState>,
    /// Sites with a node that has all of it, meant by the policy or not, by what is told the mesh, and how many such
    /// nodes there are: a copy there crosses no WAN.
    pub sites: BTreeMap<String, u16>,
}

impl Places {
    /// Whether a node is meant.
    pub fn mean(&self, node: &NodeId, body: &NodeBody) -> bool {
        let any = |patterns: &[crate::glob::Pattern], text: &str| {
            patterns.is_empty() || patterns.iter().any(|pattern| pattern.fits(text))
        };
        let id = node.to_string();
        any(&self.sites, &body.site)
            && any(&self.regions, &body.region)
            && (self.tiers.is_empty() || self.tiers.contains(&body.tier))
            && (self.nodes.is_empty() || self.nodes.iter().any(|start| id.starts_with(start.as_str())))
            && self
                .labels
                .iter()
                .all(|(key, pattern)| body.labels.get(key).is_some_and(|value| pattern.fits(value)))
    }
}

impl Fleet {
    /// The nodes that `places` mean.
    pub fn of<'a>(places: &Places, nodes: impl Iterator<Item = (&'a NodeId, &'a NodeBody)>) -> Self {
        let mut fleet = Fleet::default();
        for (node, body) in nodes.filter(|(node, body)| places.mean(node, body)) {
            fleet.sites.entry(body.site.clone()).or_default().push(*node);
        }
        fleet
    }

    /// The sites with nodes that are meant.
    pub fn sites(&self) -> impl Iterator<Item = &str> {
        self.sites.keys().map(String::as_str)
    }

    /// The nodes of a site that are meant.
    pub fn nodes(&self, site: &str) -> &[NodeId] {
        self.sites.get(site).map_or(&[], Vec::as_slice)
    }

    /// Whether a node of that site is meant.
    pub fn contains(&self, site: &str, node: &NodeId) -> bool {
        self.nodes(site).contains(node)
    }
}

/// How many copies of an artifact a site is to have.
pub fn share(
    policy: &Policy,
    fleet: &Fleet,
    site: &str,
    artifact: &Digest,
    copies: &Copies,
    away: &Silence,
) -> usize {
    match policy.copies {
        None => most(policy, fleet.nodes(site).len()),
        Some(_) => shares(policy, fleet, artifact, copies, away).remove(site).unwrap_or(0),
    }
}

/// How many copies of an artifact each site is to have.
pub fn shares<'a>(
    policy: &Policy,
    fleet: &'a Fleet,
    artifact: &Digest,
    copies: &Copies,
    away: &Silence,
) -> BTreeMap<&'a str, usize> {
    let Some(in_all) = policy.copies else {
        return fleet.sites.iter().map(|(site, nodes)| (site.as_str(), most(policy, nodes.len()))).collect();
    };
    let mut places = Vec::new();
    for (site, nodes) in &fleet.sites {
        if away.sites.get(site).is_some_and(|silent| *silent >= policy.grace()) {
            continue;
        }
        let with = |state| nodes.iter().filter(|node| copies.told.get(*node) == Some(&state)).count();
        let (whole, partial) = (with(HoldingState::Complete), with(HoldingState::Partial));
        let weight = weight(artifact, seed(site.as_bytes()));
        for n in 0..most(policy, nodes.len()) {
            let class = match n {
                n if n < whole => Preference::Holds,
                n if n < whole + partial => Preference::Gets,
                _ if copies.sites.contains_key(site) => Preference::Near,
                _ => Preference::Elsewhere,
            };
            places.push((class, n, weight, site.as_str()));
        }
    }
    places.sort_unstable();
    let mut shares = BTreeMap::new();
    for (_, _, _, site) in places.into_iter().take(usize::from(in_all)) {
        *shares.entry(site).or_insert(0) += 1;
    }
    shares
}

/// Which nodes of a site are to hold its share of an artifact, those that have it first. `away` is what a member
/// of that site knows; others can only guess.
pub fn chosen(
    policy: &Policy,
    fleet: &Fleet,
    site: &str,
    share: usize,
    artifact: &Digest,
    copies: &Copies,
    away: &Silence,
) -> Vec<NodeId> {
    let is_there = |node: &&NodeId| away.nodes.get(*node).is_none_or(|silent| *silent < policy.grace());
    let mut nodes: Vec<(Preference, u64, NodeId)> = fleet
        .nodes(site)
        .iter()
        .filter(is_there)
        .map(|node| {
            let class = match copies.holders.get(node) {
                Some(HoldingState::Complete) => Preference::Holds,
                Some(HoldingState::Partial) => Preference::Gets,
                _ => Preference::Elsewhere,
            };
            (class, weight(artifact, seed(&node.0)), *node)
        })
        .collect();
    nodes.sort_unstable();
    nodes.into_iter().take(share).map(|(_, _, node)| node).collect()
}

/// Best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Preference {
    Holds,
    Gets,
    Near,
    Elsewhere,
}

fn most(policy: &Policy, nodes: usize) -> usize {
    policy.copies_per_site.map_or(nodes, |most| nodes.min(usize::from(most)))
}

/// Rendezvous hashing: whoever has the lowest weight for an artifact is preferred, so artifacts spread, and one
/// node less or more moves only its own share. Not a cryptographic hash: members trust one another.
fn weight(artifact: &Digest, seed: u64) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&artifact.bytes()[..8]);
    mix(u64::from_le_bytes(first) ^ seed)
}

/// FNV-1a, mixed: names of sites differ in little.
fn seed(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// The last step of SplitMix64 (Steele, Lea, Flood 2014).
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
