//! Telling of refused connections, on either plane, once a minute for each address: a node with an old mesh
//! file tries again and again, and a log full of it helps nobody.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Which addresses were told of, and when.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    told: BTreeMap<Option<IpAddr>, Instant>,
}

impl Refusals {
    /// Whether a refusal of this address should be logged now.
    pub(crate) fn should_tell(&mut self, address: Option<IpAddr>, now: Instant) -> bool {
        self.told.retain(|_, at| now.duration_since(*at) < QUIET);
        if self.told.contains_key(&address) || self.told.len() >= ADDRESSES_MAX {
            return false;
        }
        self.told.insert(address, now);
        true
    }
}

/// What is said of a peer that came to this node. The dialling side uses its own words.
pub(crate) const CAME_UNPROVEN: &str = "it did not prove this mesh's admission secret, it hung up; most likely it belongs to another mesh or has an \
     old mesh file (its log says so then), or the path to it broke";

/// What is said of a peer that this node dialled.
pub(crate) const DIALLED_UNPROVEN: &str = "it does not know this node's admission secret; it belongs to another mesh, or one of the two has an old mesh file";

/// How long an address is not told of again.
const QUIET: Duration = Duration::from_secs(60);

/// Addresses remembered; beyond, refusals are only counted.
const ADDRESSES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_once_a_minute_and_of_a_bounded_number() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        let address = |n: u32| Some(IpAddr::from(std::net::Ipv4Addr::from_bits(n)));
        assert!(refusals.should_tell(address(1), now));
        assert!(!refusals.should_tell(address(1), now + QUIET / 2));
        assert!(refusals.should_tell(address(2), now + QUIET / 2));
        assert!(refusals.should_tell(address(1), now + QUIET));
        let later = now + 10 * QUIET;
        let told = (0..1000).filter(|n| refusals.should_tell(address(*n), later)).count();
        assert_eq!(told, ADDRESSES_MAX);
    }
}
