//! What a run of gossip comes to, of real nodes and of the model alike: how many copies, how far, how late.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::setup::{Nanos, SECOND};

/// What went over sessions, in the order in which it arrived.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// How many nodes there are.
    pub nodes: usize,
    /// Messages that were written: when, where, payload bytes.
    pub published: Vec<(Nanos, usize, u64)>,
    /// Copies that arrived.
    pub copies: Vec<Copy>,
    /// (who, whom, message): requests that arrived.
    pub asked: BTreeSet<(usize, usize, usize)>,
    /// Frames that arrived.
    pub frames: Vec<(Nanos, Kind)>,
    /// Bytes that arrived, with all but TCP.
    pub wire: Vec<(Nanos, u64)>,
}

/// A copy of a message that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// When.
    pub at: Nanos,
    /// From whom.
    pub from: usize,
    /// At whom.
    pub to: usize,
    /// Which: its place among the published.
    pub message: usize,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// First words.
    Hello,
    /// A message.
    Publish,
    /// What there is.
    Have,
    /// A request.
    Want,
    /// What is not wanted.
    Unwanted,
    /// Into the mesh.
    Graft,
    /// Out of it.
    Prune,
}

/// Means over the messages of one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Figures {
    /// Messages.
    pub messages: usize,
    /// Nodes that a message never reached, of all messages together.
    pub missed: usize,
    /// Copies for each node that a message reached; 1 is none too many.
    pub copies: f64,
    /// Sessions that a message went over until half of the nodes had it.
    pub hops_half: f64,
    /// Until 99 % had it.
    pub hops_most: f64,
    /// Until all had it.
    pub hops_all: f64,
    /// Seconds until half had it.
    pub seconds_half: f64,
    /// Seconds until 99 % had it.
    pub seconds_most: f64,
    /// Share of the nodes that had to ask for it.
    pub asked: f64,
    /// Seconds from the publication to those that asked; 0 where none did.
    pub asked_seconds: f64,
    /// Frames beside copies, for each node that a message reached.
    pub control_frames: f64,
    /// Bytes on the wire for each byte of payload and node reached.
    pub bytes: f64,
}

impl Trace {
    /// The figures of the messages that are chosen by their payload, and were published from then until then;
    /// frames are counted until three seconds more.
    pub fn figures(&self, from: Nanos, until: Nanos) -> Figures {
        let chosen: Vec<usize> = (0..self.published.len())
            .filter(|message| (from..until).contains(&self.published[*message].0))
            .collect();
        let mut first = vec![BTreeMap::new(); self.published.len()];
        let mut copies = 0;
        for copy in &self.copies {
            if (from..until).contains(&self.published[copy.message].0) {
                copies += 1;
                self.arrived(&mut first[copy.message], copy);
            }
        }
        let mut sum = Figures { messages: chosen.len(), ..Figures::default() };
        let (mut reached, mut asked, mut payload) = (0, 0, 0);
        for message in &chosen {
            let (published, _, bytes) = self.published[*message];
            let mut hops: Vec<usize> =
                first[*message].values().map(|arrival: &Arrival| arrival.hops).collect();
            let mut times: Vec<Nanos> = first[*message].values().map(|a| a.at - published).collect();
            hops.sort_unstable();
            times.sort_unstable();
            sum.missed += self.nodes - 1 - hops.len();
            reached += hops.len();
            payload += bytes * hops.len() as u64;
            sum.hops_half += at(&hops, 0.5) as f64;
            sum.hops_most += at(&hops, 0.99) as f64;
            sum.hops_all += at(&hops, 1.0) as f64;
            sum.seconds_half += seconds(at(&times, 0.5));
            sum.seconds_most += seconds(at(&times, 0.99));
            for late in first[*message].values().filter(|arrival| arrival.asked) {
                asked += 1;
                sum.asked_seconds += seconds(late.at - published);
            }
        }
        let settled = until + 3 * SECOND;
        let counts = |at: &Nanos| (from..settled).contains(at);
        let control = self.frames.iter().filter(|(at, kind)| counts(at) && *kind != Kind::Publish).count();
        let bytes: u64 = self.wire.iter().filter(|(at, _)| counts(at)).map(|(_, bytes)| bytes).sum();
        let (messages, reached) = (chosen.len().max(1) as f64, reached.max(1) as f64);
        Figures {
            copies: f64::from(copies) / reached,
            hops_half: sum.hops_half / messages,
            hops_most: sum.hops_most / messages,
            hops_all: sum.hops_all / messages,
            seconds_half: sum.seconds_half / messages,
            seconds_most: sum.seconds_most / messages,
            asked: f64::from(asked) / reached,
            asked_seconds: sum.asked_seconds / f64::from(asked.max(1)),
            control_frames: control as f64 / reached,
            bytes: bytes as f64 / payload.max(1) as f64,
            ..sum
        }
    }

    /// The first copies of a message: at whom, from whom, when, over how many sessions.
    pub fn first(&self, message: usize) -> BTreeMap<usize, Arrival> {
        let mut first = BTreeMap::new();
        for copy in self.copies.iter().filter(|copy| copy.message == message) {
            self.arrived(&mut first, copy);
        }
        first
    }

    fn arrived(&self, first: &mut BTreeMap<usize, Arrival>, copy: &Copy) {
        let author = self.published[copy.message].1;
        let before = if copy.from == author { Some(0) } else { first.get(&copy.from).map(|a| a.hops) };
        // An author is not sent its own words; and whoever sends has received.
        let (Some(before), false) = (before, copy.to == author) else { return };
        let asked = self.asked.contains(&(copy.to, copy.from, copy.message));
        let arrival = Arrival { at: copy.at, from: copy.from, hops: before + 1, asked };
        first.entry(copy.to).or_insert(arrival);
    }
}

/// How a message came to a node first.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// When.
    pub at: Nanos,
    /// From whom.
    pub from: usize,
    /// Over how many sessions.
    pub hops: usize,
    /// Whether it was asked for.
    pub asked: bool,
}

impl Figures {
    /// The means of several runs.
    pub fn mean(runs: &[Figures]) -> Figures {
        let mean = |of: fn(&Figures) -> f64| runs.iter().map(of).sum::<f64>() / runs.len().max(1) as f64;
        Figures {
            messages: runs.iter().map(|run| run.messages).sum(),
            missed: runs.iter().map(|run| run.missed).sum(),
            copies: mean(|f| f.copies),
            hops_half: mean(|f| f.hops_half),
            hops_most: mean(|f| f.hops_most),
            hops_all: mean(|f| f.hops_all),
            seconds_half: mean(|f| f.seconds_half),
            seconds_most: mean(|f| f.seconds_most),
            asked: mean(|f| f.asked),
            asked_seconds: mean(|f| f.asked_seconds),
            control_frames: mean(|f| f.control_frames),
            bytes: mean(|f| f.bytes),
        }
    }
}

/// The value that a share of a sorted list does not exceed.
fn at<T: Default + std::marker::Copy>(sorted: &[T], share: f64) -> T {
    let rank = libm::ceil(share * sorted.len() as f64) as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

fn seconds(time: Nanos) -> f64 {
    time as f64 / 1e9
}
