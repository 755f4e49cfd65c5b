//! Sessions of one host, by whom they are with: looked up for each message, so they lie in two short rows.

/// With whom, and over which connection.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    who: Vec<usize>,
    over: Vec<u64>,
}

impl Peers {
    /// The connection with a host.
    pub fn get(&self, peer: usize) -> Option<u64> {
        let at = self.who.binary_search(&peer).ok()?;
        self.over.get(at).copied()
    }

    /// Whether there is one.
    pub fn has(&self, peer: usize) -> bool {
        self.who.binary_search(&peer).is_ok()
    }

    /// A session begins, or goes on over another connection.
    pub fn insert(&mut self, peer: usize, connection: u64) {
        match self.who.binary_search(&peer) {
            Ok(at) => self.over[at] = connection,
            Err(at) => {
                self.who.insert(at, peer);
                self.over.insert(at, connection);
            }
        }
    }

    /// A session ends.
    pub fn remove(&mut self, peer: usize) {
        if let Ok(at) = self.who.binary_search(&peer) {
            self.who.remove(at);
            self.over.remove(at);
        }
    }

    /// All end.
    pub fn clear(&mut self) {
        self.who.clear();
        self.over.clear();
    }

    /// With whom, ascending.
    pub fn who(&self) -> &[usize] {
        &self.who
    }

    /// With whom, and over which connection.
    pub fn iter(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.who.iter().copied().zip(self.over.iter().copied())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.who.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.who.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_found_while_they_last() {
        let mut peers = Peers::default();
        [(7, 1), (3, 2), (5, 3), (7, 4)].into_iter().for_each(|(peer, over)| peers.insert(peer, over));
        assert_eq!((peers.who(), peers.get(7), peers.get(4)), (&[3, 5, 7][..], Some(4), None));
        peers.remove(5);
        peers.remove(6);
        assert!(peers.iter().eq([(3, 2), (7, 4)]) && peers.has(3) && !peers.has(5));
        peers.clear();
        assert_eq!((peers.is_empty(), peers.len()), (true, 0));
    }
}
