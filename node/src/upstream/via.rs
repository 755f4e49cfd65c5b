//! `Via` (RFC 9110, 7.6.3): through which nodes a request has come. Owns how a node is called there, so that nodes
//! that pull through one another notice a circle; to refuse such a request is the registry's.

use std::fmt::Write as _;

use reqwest::header::{HeaderMap, HeaderValue, VIA};
use waystation_proto::{Hash, NodeId};

/// How one node is called in `Via`: not by its key, which is nobody's business outside the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via(String);

impl Via {
    /// The name of a node.
    pub fn of(node: &NodeId) -> Self {
        let hash = Hash::of(&[b"waystation via v1".as_slice(), &node.0].concat());
        let mut name = "waystation-".to_owned();
        for byte in &hash.0[..8] {
            let _ = write!(name, "{byte:02x}");
        }
        Via(name)
    }

    /// Whether a request with these headers has been at this node before, or at more nodes than make sense: it must
    /// not be passed on.
    pub fn is_circle(&self, headers: &HeaderMap) -> bool {
        let stations: Vec<&str> = stations(headers).collect();
        stations.len() >= MAX_STATIONS || stations.contains(&self.0.as_str())
    }

    /// The header for a request upstream, after those of the request that it is made for.
    pub(super) fn header(&self, before: Option<&HeaderMap>) -> HeaderValue {
        let mut text = String::new();
        for station in before.into_iter().flat_map(stations).take(MAX_STATIONS) {
            let _ = write!(text, "1.1 {station}, ");
        }
        let _ = write!(text, "1.1 {}", self.0);
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("1.1 waystation"))
    }
}

impl Default for Via {
    fn default() -> Self {
        Via("waystation".to_owned())
    }
}

/// The Waystation nodes among those that a request came through.
fn stations(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(VIA)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|item| item.split_whitespace().nth(1))
        .filter(|name| name.starts_with("waystation-") && name.len() <= MAX_NAME)
}

/// Nodes behind one another; each doubles what can go wrong.
const MAX_STATIONS: usize = 8;
const MAX_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_knows_its_own() {
        let (one, two) = (Via::of(&NodeId([1; 32])), Via::of(&NodeId([2; 32])));
        let mut headers = HeaderMap::new();
        assert!(!one.is_circle(&headers));
        headers.insert(VIA, one.header(None));
        headers.append(VIA, HeaderValue::from_static("1.1 proxy.example (squid), HTTP/2 cdn"));
        assert!(one.is_circle(&headers) && !two.is_circle(&headers));
        let mut further = HeaderMap::new();
        further.insert(VIA, two.header(Some(&headers)));
        assert!(one.is_circle(&further) && two.is_circle(&further));
        assert!(!Via::of(&NodeId([3; 32])).is_circle(&further));
    }

    #[test]
    fn long_ways_end() {
        let mut headers = HeaderMap::new();
        for n in 0..MAX_STATIONS {
            let via = Via::of(&NodeId([n as u8; 32]));
            assert!(!via.is_circle(&headers), "{n}");
            headers.insert(VIA, via.header(Some(&headers.clone())));
        }
        assert!(Via::of(&NodeId([99; 32])).is_circle(&headers));
        assert!(headers[VIA].len() < 1024);
    }
}
