//! Which nodes or sites a part of a scenario is about, as people write it: "all", "others", "origin", "tier iot",
//! "site shop", and of these "3 of …", "20 % of …" or "2 per site of …".

use std::str::FromStr;

use serde::Deserialize;
use waystation_topology::{Part, Place, Tier, Topology};

/// A choice of nodes. Which ones, where only some are meant, is drawn by whoever asks.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Who {
    amount: Amount,
    base: Base,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Amount {
    All,
    Part(Part),
    Count(usize),
    PerSite(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Base {
    All,
    Origin,
    Others,
    Tier(Tier),
    Site(String),
}

/// Why a text chooses nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" chooses nobody; write \"all\", \"origin\", \"others\" (all but the origin's), \"tier iot\" or \"site shop\", \
     or of these \"3 of …\", \"20 % of …\" or \"2 per site of …\""
)]
pub struct WhoError(String);

impl Who {
    /// The nodes of the origin.
    pub fn origin() -> Self {
        Who { amount: Amount::All, base: Base::Origin }
    }

    /// The nodes that are meant, in the order of the topology.
    pub fn nodes(&self, topology: &Topology, rng: &mut fastrand::Rng) -> Vec<Place> {
        let sites = self.base_sites(topology);
        let places = |most: usize| {
            let nodes = move |site: &usize| topology.sites[*site].nodes.min(most);
            sites.iter().flat_map(move |site| (0..nodes(site)).map(|node| Place { site: *site, node }))
        };
        match self.amount {
            Amount::PerSite(most) => places(most).collect(),
            Amount::All => places(usize::MAX).collect(),
            Amount::Count(count) => some(places(usize::MAX).collect(), count, rng),
            Amount::Part(part) => {
                let all: Vec<Place> = places(usize::MAX).collect();
                let count = part.of(all.len());
                some(all, count, rng)
            }
        }
    }

    /// The sites that are meant: here numbers and parts count sites.
    pub fn sites(&self, topology: &Topology, rng: &mut fastrand::Rng) -> Vec<usize> {
        let sites = self.base_sites(topology);
        match self.amount {
            Amount::All | Amount::PerSite(_) => sites,
            Amount::Count(count) => some(sites, count, rng),
            Amount::Part(part) => {
                let count = part.of(sites.len());
                some(sites, count, rng)
            }
        }
    }

    fn base_sites(&self, topology: &Topology) -> Vec<usize> {
        let meant = |site: &usize| {
            let here = &topology.sites[*site];
            match &self.base {
                Base::All => true,
                Base::Origin => here.origin,
                Base::Others => !here.origin,
                Base::Tier(tier) => here.tier == *tier,
                Base::Site(name) => is_of_group(&here.name, name),
            }
        };
        (0..topology.sites.len()).filter(meant).collect()
    }
}

/// Whether a site has a name or is one of a group that has it: `shop` means `shop` and `shop-12`.
fn is_of_group(site: &str, name: &str) -> bool {
    site.strip_prefix(name).is_some_and(|rest| {
        rest.is_empty() || rest.strip_prefix('-').is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// So many of them, in their order.
fn some<T: Ord>(mut all: Vec<T>, count: usize, rng: &mut fastrand::Rng) -> Vec<T> {
    rng.shuffle(&mut all);
    all.truncate(count);
    all.sort();
    all
}

impl FromStr for Who {
    type Err = WhoError;

    fn from_str(text: &str) -> Result<Self, WhoError> {
        let error = || WhoError(text.to_owned());
        let (amount, base) = match text.rsplit_once(" of ") {
            Some((amount, base)) => (amount_of(amount.trim()).ok_or_else(error)?, base),
            None => (Amount::All, text),
        };
        Ok(Who { amount, base: base_of(base.trim()).ok_or_else(error)? })
    }
}

fn amount_of(text: &str) -> Option<Amount> {
    if text.ends_with('%') {
        return text.parse().ok().map(Amount::Part);
    }
    if let Some(count) = text.strip_suffix("per site") {
        return count.trim().parse().ok().filter(|count| *count > 0).map(Amount::PerSite);
    }
    text.parse().ok().filter(|count| *count > 0).map(Amount::Count)
}

fn base_of(text: &str) -> Option<Base> {
    match text.split_once(' ') {
        None => match text {
            "all" => Some(Base::All),
            "origin" => Some(Base::Origin),
            "others" => Some(Base::Others),
            _ => None,
        },
        Some(("tier", name)) => {
            [Tier::Cloud, Tier::Edge, Tier::Iot].into_iter().find(|tier| tier.name() == name).map(Base::Tier)
        }
        Some(("site", name)) => Some(Base::Site(name.to_owned())),
        Some(_) => None,
    }
}

impl TryFrom<String> for Who {
    type Error = WhoError;

    fn try_from(text: String) -> Result<Self, WhoError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn chosen(text: &str) -> Vec<(usize, usize)> {
        let topology = "[[site]]\nname='hub'\ntier='cloud'\norigin=true\nnodes=2\nlan={rate='1 Gbit/s'}\n\
            uplink={up='1 Gbit/s',down='1 Gbit/s'}\n[[site]]\nname='shop'\ncount=2\ntier='edge'\nnodes=3\n\
            lan={rate='1 Gbit/s'}\nuplink={up='1 Gbit/s',down='1 Gbit/s'}";
        let topology = Topology::parse(Path::new("x"), topology).unwrap();
        let mut rng = fastrand::Rng::with_seed(1);
        let nodes = text.parse::<Who>().unwrap().nodes(&topology, &mut rng);
        nodes.into_iter().map(|place| (place.site, place.node)).collect()
    }

    #[test]
    fn nodes_are_chosen_as_it_is_written() {
        assert_eq!(chosen("all").len(), 8);
        assert_eq!(chosen("origin"), [(0, 0), (0, 1)]);
        assert_eq!(chosen("others").len(), 6);
        assert_eq!(chosen("tier edge"), chosen("others"));
        assert_eq!(chosen("site shop"), chosen("others"));
        assert_eq!(chosen("site shop-2"), [(2, 0), (2, 1), (2, 2)]);
        assert_eq!(chosen("1 per site of others"), [(1, 0), (2, 0)]);
        assert_eq!(chosen("50 % of others").len(), 3);
        assert_eq!(chosen("4 of all").len(), 4);
        assert_eq!(chosen("site sho").len(), 0);
    }

    #[test]
    fn what_chooses_nobody_is_refused() {
        for text in ["", "everyone", "0 of all", "half of all", "tier fog", "of all", "20% all"] {
            let error = text.parse::<Who>().unwrap_err().to_string();
            assert!(error.contains("write \"all\""), "{error}");
        }
    }
}
