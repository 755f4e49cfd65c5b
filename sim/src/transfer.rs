//! Blob transfers: how long one takes and how it ends. What arrives is verified as it comes, as BLAKE3
//! allows, so a transfer that breaks leaves a good beginning and one from a liar leaves nothing.

use std::{collections::BTreeMap, ops::Range};

use waystation_proto::{FetchId, Hash, event::Fault};

/// Transfers under way, by who fetches.
#[derive(Default)]
pub struct Transfers {
    under_way: BTreeMap<(usize, FetchId), Transfer>,
    /// Bytes that arrived.
    pub bytes: u64,
}

/// One range of one blob on its way.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// The holder that is asked.
    pub from: usize,
    /// Which life of it: one that restarted has forgotten the transfer.
    pub life: u64,
    /// The blob.
    pub hash: Hash,
    /// Which bytes of it.
    pub range: Range<u64>,
}

/// What a transfer finds when it is over.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// Whether the holder runs, in the same life.
    pub alive: bool,
    /// Whether the link carries both ways.
    pub connected: bool,
    /// Whether the holder has the blob.
    pub held: bool,
    /// Whether the holder sends other bytes.
    pub lies: bool,
    /// How much of it arrived before a break, in thousandths.
    pub progress: u64,
}

impl Transfers {
    /// Begins a transfer.
    pub fn start(&mut self, host: usize, fetch: FetchId, transfer: Transfer) {
        self.under_way.insert((host, fetch), transfer);
    }

    /// Ends a transfer that is not wanted any more, or that is over.
    pub fn take(&mut self, host: usize, fetch: FetchId) -> Option<Transfer> {
        self.under_way.remove(&(host, fetch))
    }

    /// The fetching host stopped.
    pub fn crash(&mut self, host: usize) {
        self.under_way.retain(|(who, _), _| *who != host);
    }

    /// How many a host has under way.
    pub fn of(&self, host: usize) -> usize {
        self.under_way.range((host, FetchId(0))..=(host, FetchId(u64::MAX))).count()
    }
}

impl Transfer {
    /// Which bytes arrived, and whether that is not all.
    pub fn end(&self, ending: Ending) -> (Range<u64>, Option<Fault>) {
        let nothing = self.range.start..self.range.start;
        if ending.alive && ending.connected && ending.held {
            return if ending.lies { (nothing, Some(Fault::Lied)) } else { (self.range.clone(), None) };
        }
        if ending.held && !ending.lies {
            let length = (self.range.end - self.range.start) * ending.progress / 1000 / GROUP * GROUP;
            return (self.range.start..self.range.start + length, Some(Fault::Peer));
        }
        (nothing, Some(Fault::Peer))
    }
}

/// BLAKE3 is verified in groups of this many bytes.
const GROUP: u64 = 16 * 1024;
