//! Segments: blobs of signed records, so that what was published outlives a restart. Each batch becomes a
//! segment of its own; when there are many small ones, or most of their bytes are of superseded records,
//! the living records are written together and the old segments' names dropped afterwards. A crash in
//! between leaves records twice, which is harmless: of two with one key the better one counts.
//!
//! A segment is `WSRS`, a version byte, and records, each after its length (32 bits, little endian).

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use waystation_proto::{Hash, Record, Shared, record::Key};

use super::{IngestError, Inner, blobs::Named, draft::storage, ground::Ground};

/// Which segments there are, and how much of each still counts.
#[derive(Default)]
pub(super) struct Segments {
    state: Mutex<State>,
    /// Held while segments are being rewritten.
    rewriting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    next: u64,
    segments: BTreeMap<u64, Segment>,
    /// Where the latest record of each key is, and its length: to know what is superseded.
    latest: HashMap<[u8; 16], (u64, u32)>,
    /// Keys whose records are left out when segments are written together. A restart forgets them, and the
    /// catalog then says again which it has no room for.
    forgotten: HashSet<[u8; 16]>,
}

#[derive(Clone, Copy)]
struct Segment {
    hash: Hash,
    living: usize,
    superseded: usize,
}

/// A segment is not one, or not of this version.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum SegmentError {
    #[error("is not a segment of version {VERSION}")]
    Version,
    #[error("is cut or garbled after {0} records")]
    Malformed(usize),
}

impl Segments {
    /// Waits for a rewrite that is under way, and prevents another.
    pub async fn stop(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.rewriting.lock().await
    }

    #[cfg(test)]
    pub fn is_due(&self) -> bool {
        !self.state().due().is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, sequence: u64, hash: Hash, records: &[Shared]) {
        self.segments.insert(sequence, Segment { hash, living: 0, superseded: 0 });
        for record in records {
            let length = record.size();
            let place = (sequence, u32::try_from(length).unwrap_or(u32::MAX));
            if let Some((old, length)) = self.latest.insert(record.key.prefix(), place)
                && let Some(segment) = self.segments.get_mut(&old)
            {
                segment.living = segment.living.saturating_sub(length as usize);
                segment.superseded += length as usize;
            }
            if let Some(segment) = self.segments.get_mut(&sequence) {
                segment.living += length;
            }
        }
    }

    /// The latest record of a key does not count any more.
    fn forget(&mut self, key: &Key) {
        if let Some((sequence, length)) = self.latest.remove(&key.prefix())
            && let Some(segment) = self.segments.get_mut(&sequence)
        {
            segment.living = segment.living.saturating_sub(length as usize);
            segment.superseded += length as usize;
        }
        if self.forgotten.len() < FORGOTTEN_MAX {
            self.forgotten.insert(key.prefix());
        }
    }

    /// The segments that are worth rewriting, if any.
    fn due(&self) -> Vec<(u64, Hash)> {
        let sum = |part: fn(&Segment) -> usize| self.segments.values().map(part).sum::<usize>();
        let (living, superseded) = (sum(|segment| segment.living), sum(|segment| segment.superseded));
        let all = superseded > living && superseded > MAX_BYTES;
        let chosen: Vec<_> = self
            .segments
            .iter()
            .filter(|(_, segment)| all || segment.living < SMALL_BYTES)
            .map(|(sequence, segment)| (*sequence, segment.hash))
            .collect();
        if all || chosen.len() > MAX_SMALL { chosen } else { Vec::new() }
    }
}

impl Inner {
    /// See [`super::Store::persist`].
    pub async fn persist(self: &Arc<Self>, records: Vec<Shared>) -> Result<(), IngestError> {
        if records.is_empty() {
            return Ok(());
        }
        self.write_segments(records).await.map_err(|error| storage("records", error))?;
        if !self.segments.state().due().is_empty() {
            let inner = self.clone();
            tokio::spawn(async move {
                if let Err(error) = inner.rewrite_segments().await {
                    tracing::error!(%error, "records could not be written together; they stay as they are");
                }
            });
        }
        Ok(())
    }

    /// See [`super::Store::forget`].
    pub fn forget_records(&self, keys: &[Key]) {
        let mut state = self.segments.state();
        keys.iter().for_each(|key| state.forget(key));
    }

    /// Reads all segments: the living records. What cannot be read is told, kept and left out.
    pub async fn read_segments(&self, names: &[Named]) -> io::Result<Vec<Shared>> {
        let mut living = BTreeMap::new();
        for named in names {
            let Ground::Segment(sequence) = named.ground else { continue };
            self.segments.state().next_after(sequence);
            match self.read_segment(named.hash).await {
                Ok(records) => {
                    self.segments.state().add(sequence, named.hash, &records);
                    records.into_iter().for_each(|record| keep_better(&mut living, record));
                }
                Err(error) => {
                    tracing::error!(sequence, hash = %named.hash, %error,
                        "a segment of records cannot be read; it is kept, and its records are missing until \
                         other nodes send them again");
                }
            }
        }
        Ok(living.into_values().collect())
    }

    /// The records of one segment, living or not.
    pub async fn read_segment(&self, hash: Hash) -> io::Result<Vec<Shared>> {
        let bytes = self.read(hash, SEGMENT_LIMIT).await?;
        decode(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Writes records as new segments, durably.
    async fn write_segments(&self, records: Vec<Shared>) -> io::Result<()> {
        let mut written = Vec::new();
        for part in parts(records) {
            let bytes = encode(&part);
            let hash = Hash::of(&bytes);
            // Until it has its name.
            let _pass = self.sweep.pass().await;
            self.keep_bytes(hash, bytes).await?;
            let sequence = self.segments.state().next();
            self.blobs.name(&Ground::Segment(sequence), hash).await?;
            written.push((sequence, hash, part));
        }
        self.blobs.sync().await?;
        let mut state = self.segments.state();
        for (sequence, hash, part) in written {
            for record in &part {
                state.forgotten.remove(&record.key.prefix());
            }
            state.add(sequence, hash, &part);
        }
        Ok(())
    }

    /// Writes the living records of many segments into few, then drops the old ones' names.
    async fn rewrite_segments(&self) -> io::Result<()> {
        let Ok(_turn) = self.segments.rewriting.try_lock() else { return Ok(()) };
        let due = self.segments.state().due();
        if due.is_empty() {
            return Ok(());
        }
        let mut living = BTreeMap::new();
        for (_, hash) in &due {
            self.read_segment(*hash).await?.into_iter().for_each(|record| keep_better(&mut living, record));
        }
        {
            let state = self.segments.state();
            living.retain(|key, _| !state.forgotten.contains(key));
        }
        self.write_segments(living.into_values().collect()).await?;
        for (sequence, _) in &due {
            self.blobs.unname(&Ground::Segment(*sequence)).await?;
            self.segments.state().segments.remove(sequence);
        }
        self.blobs.sync().await
    }
}

impl State {
    fn next(&mut self) -> u64 {
        let next = self.next;
        self.next += 1;
        next
    }

    fn next_after(&mut self, sequence: u64) {
        self.next = self.next.max(sequence.saturating_add(1));
    }
}

fn keep_better(living: &mut BTreeMap<[u8; 16], Shared>, record: Shared) {
    let key = record.key.prefix();
    if living.get(&key).is_none_or(|old| record.beats(old)) {
        living.insert(key, record);
    }
}

/// Cuts records into parts that fit a segment each.
fn parts(records: Vec<Shared>) -> Vec<Vec<Shared>> {
    let mut parts = Vec::new();
    let mut part = Vec::new();
    let mut bytes = HEADER;
    for record in records {
        let more = PREFIX + record.size();
        if bytes + more > MAX_BYTES && !part.is_empty() {
            parts.push(std::mem::take(&mut part));
            bytes = HEADER;
        }
        bytes += more;
        part.push(record);
    }
    parts.push(part);
    parts
}

fn encode(records: &[Shared]) -> Bytes {
    let mut bytes = MAGIC.to_vec();
    bytes.push(VERSION);
    for record in records {
        let record = record.encode();
        bytes.extend((record.len() as u32).to_le_bytes());
        bytes.extend(record);
    }
    bytes.into()
}

fn decode(bytes: &[u8]) -> Result<Vec<Shared>, SegmentError> {
    let mut rest = bytes.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(&[VERSION]));
    let rest = rest.as_mut().ok_or(SegmentError::Version)?;
    let mut records = Vec::new();
    while !rest.is_empty() {
        let malformed = SegmentError::Malformed(records.len());
        let Some((length, after)) = rest.split_first_chunk::<PREFIX>() else { return Err(malformed) };
        let length = u32::from_le_bytes(*length) as usize;
        let record = after.get(..length).and_then(|record| Record::decode(record).ok());
        records.push(Shared::new(record.ok_or(malformed)?));
        *rest = &after[length..];
    }
    Ok(records)
}

const MAGIC: &[u8; 4] = b"WSRS";
const VERSION: u8 = 1;
const HEADER: usize = MAGIC.len() + 1;
const PREFIX: usize = 4;
/// Most bytes of a segment. A record is far smaller.
const MAX_BYTES: usize = 1024 * 1024;
/// What is read at most: a segment of one record that is larger than [`MAX_BYTES`] could be written.
const SEGMENT_LIMIT: u64 = 2 * MAX_BYTES as u64;
/// Segments with fewer living bytes count as small.
const SMALL_BYTES: usize = MAX_BYTES / 2;
/// Most small segments before they are written together.
const MAX_SMALL: usize = 64;
/// Keys that are remembered as forgotten; records under more of them stay on disk until a restart.
const FORGOTTEN_MAX: usize = 65_536;
