//! What messages cost, by kind and by line, in the part of a run that is being counted. Whoever takes the
//! numbers begins the next part.

use crate::parcel::Kind;

/// Counters of one part of a run.
pub struct Ledger {
    kinds: [Costs; Kind::ALL.len()],
    /// Bytes over each site's line, both ways.
    lines: Vec<u64>,
    /// Bytes of everything since the beginning.
    pub total: u64,
}

/// What the messages of a kind cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// Messages.
    pub messages: u64,
    /// Bytes of them, with all that is around them.
    pub bytes: u64,
    /// Of these, bytes from one site to another.
    pub far: u64,
    /// Messages that found a queue full.
    pub dropped: u64,
}

impl Ledger {
    /// Nothing counted yet.
    pub fn new(sites: usize) -> Self {
        Ledger { kinds: Default::default(), lines: vec![0; sites], total: 0 }
    }

    /// A message was sent; between these sites, if they are two.
    pub fn count(&mut self, kind: Kind, bytes: u64, far: Option<(usize, usize)>) {
        let costs = &mut self.kinds[kind as usize];
        costs.messages += 1;
        costs.bytes += bytes;
        self.total += bytes;
        if let Some((from, to)) = far {
            costs.far += bytes;
            self.lines[from] += bytes;
            self.lines[to] += bytes;
        }
    }

    /// A message found a queue full.
    pub fn drop(&mut self, kind: Kind) {
        self.kinds[kind as usize].dropped += 1;
    }

    /// What each kind cost and each line carried in the part that ends now.
    pub fn take(&mut self) -> (Vec<(Kind, Costs)>, Vec<u64>) {
        let kinds = std::mem::take(&mut self.kinds);
        let sites = self.lines.len();
        let lines = std::mem::replace(&mut self.lines, vec![0; sites]);
        (Kind::ALL.into_iter().zip(kinds).collect(), lines)
    }
}
