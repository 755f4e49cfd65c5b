//! What nodes used and moved: processor time and memory from /proc, blob bytes by pair of nodes as the nodes
//! count them.

use std::{collections::BTreeMap, fs};

use serde_json::Value;

/// Of /proc, on every Linux that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process used since it started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time, in seconds.
    pub cpu: f64,
    /// The most that was resident, in bytes.
    pub rss: f64,
}

impl Usage {
    /// Nothing where the process has ended.
    pub fn of(pid: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name, in brackets, may have blanks.
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |n: usize| fields.get(n).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
        Usage { cpu: (ticks(11) + ticks(12)) / TICKS_PER_SECOND, rss: peak.unwrap_or(0.0) * 1024.0 }
    }
}

/// Blob bytes by sender and receiver (numbers of nodes), duplicates included.
#[derive(Clone, Debug, Default)]
pub struct Moved {
    sent: BTreeMap<(usize, usize), u64>,
    received: BTreeMap<(usize, usize), u64>,
}

impl Moved {
    /// Takes in what a node says in its `status`; `number_of` knows nodes by id.
    pub fn note(&mut self, node: usize, status: &Value, number_of: impl Fn(&str) -> usize) {
        for peer in status["data_plane"]["peers"].as_array().into_iter().flatten() {
            let Some(other) = peer["node"].as_str().map(&number_of) else { continue };
            let bytes = |key: &str| peer[key].as_u64().unwrap_or(0);
            self.sent.insert((node, other), bytes("bytes_sent"));
            self.received.insert((other, node), bytes("bytes_received"));
        }
    }

    /// What moved after `earlier`. Where both ends still count, the receiver's word is taken: a sender also counts
    /// what was lost on the way. What a node counted that was killed, its senders say.
    pub fn since(&self, earlier: &Moved) -> BTreeMap<(usize, usize), u64> {
        let pairs = self.received.keys().chain(self.sent.keys());
        let after = |pair: &(usize, usize)| {
            let told = |now: &Moved| now.received.get(pair).copied();
            let sent = |now: &Moved| now.sent.get(pair).copied().unwrap_or(0);
            let bytes = match told(self) {
                Some(bytes) => bytes.saturating_sub(told(earlier).unwrap_or(0)),
                None => sent(self).saturating_sub(sent(earlier)),
            };
            (*pair, bytes)
        };
        pairs.map(after).collect()
    }
}
