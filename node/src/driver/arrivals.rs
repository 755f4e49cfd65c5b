//! Who reads a blob along while it comes, and what of it is here. Answers of wants are told by
//! [`super::waiters`].

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::watch;
use waystation_proto::{Hash, RequestId, ranges::Ranges};

/// Those who read along, by request. Bounded: whoever finds no place is told nothing, and reads when all is here.
#[derive(Debug, Default)]
pub struct Arrivals {
    readers: BTreeMap<RequestId, (Hash, watch::Sender<Ranges>)>,
    of: BTreeMap<Hash, BTreeSet<RequestId>>,
}

impl Arrivals {
    /// Somebody reads a blob along.
    pub fn follow(&mut self, request: RequestId, hash: Hash, arrived: watch::Sender<Ranges>) {
        if self.readers.len() < READERS_MAX {
            self.readers.insert(request, (hash, arrived));
            self.of.entry(hash).or_default().insert(request);
        }
    }

    /// So much of a blob is verified and can be read.
    pub fn arrived(&self, hash: &Hash, have: &Ranges) {
        let requests = self.of.get(hash).into_iter().flatten();
        for (_, arrived) in requests.filter_map(|request| self.readers.get(request)) {
            arrived.send_replace(have.clone());
        }
    }

    /// The want ended, or whoever asked is gone.
    pub fn end(&mut self, request: RequestId) {
        let Some((hash, _)) = self.readers.remove(&request) else { return };
        if let Some(requests) = self.of.get_mut(&hash) {
            requests.remove(&request);
            if requests.is_empty() {
                self.of.remove(&hash);
            }
        }
    }
}

/// Requests that read along at a time: as many as a node takes by default.
const READERS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reader_hears_of_its_blob_until_its_want_ends() {
        let (one, other) = (Hash([1; 32]), Hash([2; 32]));
        let mut arrivals = Arrivals::default();
        let mut readers = [(1, one), (2, one), (3, other)].map(|(request, hash)| {
            let (arrived, reader) = watch::channel(Ranges::new());
            arrivals.follow(RequestId(request), hash, arrived);
            reader
        });
        arrivals.arrived(&one, &Ranges::all(5));
        assert_eq!(readers.each_mut().map(|reader| reader.borrow_and_update().len()), [5, 5, 0]);
        arrivals.end(RequestId(1));
        arrivals.arrived(&one, &Ranges::all(7));
        assert!(readers[0].has_changed().is_err(), "its channel is closed");
        assert_eq!(readers[1].borrow().len(), 7);
        for request in [1, 2, 3, 4] {
            arrivals.end(RequestId(request));
        }
        assert!(arrivals.readers.is_empty() && arrivals.of.is_empty());
    }

    #[test]
    fn readers_are_bounded() {
        let mut arrivals = Arrivals::default();
        let (spare, mut closed) = watch::channel(Ranges::new());
        for request in 0..READERS_MAX as u64 {
            arrivals.follow(RequestId(request), Hash([1; 32]), watch::Sender::new(Ranges::new()));
        }
        arrivals.follow(RequestId(u64::MAX), Hash([1; 32]), spare);
        assert!(closed.has_changed().is_err() && closed.borrow_and_update().is_empty());
        assert_eq!(arrivals.readers.len(), READERS_MAX);
    }
}
