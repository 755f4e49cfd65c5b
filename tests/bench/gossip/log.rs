//! What nodes receive from one another, when. Reads gossipsub's frames (`rpc.proto`) as far as needed.

use std::{
    collections::BTreeSet,
    sync::Mutex,
    time::{Duration, Instant},
};

use waystation_sim::{gossipsub::figures::Kind, setup::Nanos};

/// The name of a message on the wire.
pub type Name = Vec<u8>;

/// Written by all connections.
pub struct Log {
    began: Instant,
    entries: Mutex<Entries>,
}

#[derive(Default)]
pub struct Entries {
    pub frames: Vec<Frame>,
    /// When, from, to, which.
    pub copies: Vec<(Nanos, usize, usize, Name)>,
    /// When a copy began to be sent, from, to, which.
    pub sent: Vec<(Nanos, usize, usize, Name)>,
    /// Who asked whom for which.
    pub asked: BTreeSet<(usize, usize, Name)>,
    pub wire: Vec<(Nanos, u64)>,
}

/// A frame that was received.
pub struct Frame {
    pub at: Nanos,
    pub kind: Kind,
    /// With its length.
    pub bytes: u64,
    /// Messages named in it, or bytes of payload.
    pub content: u64,
}

impl Log {
    pub fn new() -> Self {
        Log { began: Instant::now(), entries: Mutex::default() }
    }

    /// Since the case began.
    pub fn now(&self) -> Nanos {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap()
    }

    pub async fn wait_until(&self, at: Nanos) {
        tokio::time::sleep_until((self.began + Duration::from_nanos(at)).into()).await;
    }

    pub fn take(&self) -> Entries {
        std::mem::take(&mut *self.entries.lock().unwrap())
    }

    pub fn wire(&self, bytes: usize) {
        let now = self.now();
        self.entries.lock().unwrap().wire.push((now, bytes as u64));
    }

    /// A frame that is sent.
    pub fn sent(&self, from: usize, to: usize, body: &[u8], at: Nanos) {
        if is_negotiation(body) {
            return;
        }
        for (_, part) in fields(body).filter(|(field, _)| *field == 2) {
            let name = name(part).1;
            self.entries.lock().unwrap().sent.push((at, from, to, name));
        }
    }

    /// A frame that was received, `whole` bytes long with its length.
    pub fn frame(&self, from: usize, to: usize, body: &[u8], whole: usize) {
        if is_negotiation(body) {
            return;
        }
        let at = self.now();
        let mut entries = self.entries.lock().unwrap();
        let (mut kind, mut content) = (Kind::Hello, 0);
        for (field, part) in fields(body) {
            match field {
                2 => {
                    let (length, name) = name(part);
                    kind = Kind::Publish;
                    content += length as u64;
                    entries.copies.push((at, from, to, name));
                }
                3 => (kind, content) = control(&mut entries, (from, to), part),
                _ => {}
            }
        }
        entries.frames.push(Frame { at, kind, bytes: whole as u64, content });
    }
}

/// Agreeing on the protocol looks the same from outside.
fn is_negotiation(body: &[u8]) -> bool {
    body.ends_with(b"\n") && (body.starts_with(b"/") || body == b"na\n")
}

/// The length of a message's payload, and its name: as the node has it.
fn name(message: &[u8]) -> (usize, Name) {
    let (_, data) = fields(message).find(|(field, _)| *field == 2).unwrap();
    (data.len(), blake3::hash(data).as_bytes()[..20].to_vec())
}

fn control(entries: &mut Entries, (from, to): (usize, usize), body: &[u8]) -> (Kind, u64) {
    let (mut kind, mut content) = (Kind::Hello, 0);
    for (field, part) in fields(body) {
        let names = |field: u64| fields(part).filter(move |(other, _)| *other == field);
        (kind, content) = match field {
            1 => (Kind::Have, names(2).count()),
            2 => {
                entries.asked.extend(names(1).map(|(_, name)| (from, to, name.to_vec())));
                (Kind::Want, names(1).count())
            }
            3 => (Kind::Graft, 0),
            4 => (Kind::Prune, 0),
            5 => (Kind::Unwanted, names(1).count()),
            _ => continue,
        };
    }
    (kind, content as u64)
}

/// Fields of a message of protobuf, those with a length; the others have an empty value.
fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    std::iter::from_fn(move || {
        let (key, rest) = number(bytes)?;
        let (value, rest) = number(rest)?;
        let length = if key & 7 == 2 { usize::try_from(value).unwrap() } else { 0 };
        let (part, rest) = rest.split_at_checked(length)?;
        bytes = rest;
        Some((key >> 3, part))
    })
}

/// A number of variable length, and what follows.
pub fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (place, byte) in bytes.iter().enumerate().take(9) {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[place + 1..]));
        }
    }
    None
}
