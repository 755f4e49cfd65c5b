//! Writing past the system's page cache, where the file system can: a large push then costs neither the copy into
//! the cache nor what was cached there, and little is left to flush when it ends. The bytes are as durable as any
//! others only after a sync.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
};

use rustix::fs::OFlags;

/// Collects bytes in memory that is aligned as such writing wants it. What does not fill whole blocks goes the
/// usual way. Used as a `Write` that must be flushed.
pub(super) struct DirectWriter {
    /// The same file, opened the usual way.
    file: Arc<File>,
    /// Absent where the file system cannot.
    direct: Option<File>,
    buffer: Vec<u8>,
    /// Where in the buffer aligned memory begins.
    start: usize,
    filled: usize,
    /// Where in the file the collected bytes belong.
    at: u64,
}

impl DirectWriter {
    /// A writer on the file at `path`, which `file` is.
    pub fn new(file: Arc<File>, path: &Path) -> Self {
        let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0);
        let direct = OpenOptions::new().write(true).custom_flags(flags).open(path).ok();
        DirectWriter { file, direct, buffer: Vec::new(), start: 0, filled: 0, at: 0 }
    }

    /// Up to where the file has what it was given.
    pub fn written(&self) -> u64 {
        self.at
    }

    /// The room for bytes, aligned, and made when it is first needed.
    fn room(&mut self) -> &mut [u8] {
        if self.buffer.is_empty() {
            self.buffer = vec![0; CAPACITY + BLOCK];
            self.start = self.buffer.as_ptr().align_offset(BLOCK).min(BLOCK);
        }
        &mut self.buffer[self.start..self.start + CAPACITY]
    }

    /// How many more bytes are collected at this place of the file: up to the next block where it is not at one.
    fn most(&self) -> usize {
        let into = (self.at % BLOCK as u64) as usize;
        if into == 0 { CAPACITY } else { BLOCK - into }
    }

    fn write_out(&mut self) -> io::Result<()> {
        let (at, filled) = (self.at, self.filled);
        let whole = if at.is_multiple_of(BLOCK as u64) { filled / BLOCK * BLOCK } else { 0 };
        let bytes = &self.buffer[self.start..self.start + filled];
        let mut done = 0;
        if let Some(direct) = self.direct.as_ref().filter(|_| whole > 0) {
            match direct.write_all_at(&bytes[..whole], at) {
                Ok(()) => done = whole,
                // Larger blocks, or a file system that only says so now.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.direct = None,
                Err(error) => return Err(error),
            }
        }
        self.file.write_all_at(&bytes[done..], at + done as u64)?;
        self.at += filled as u64;
        self.filled = 0;
        Ok(())
    }
}

impl Write for DirectWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (filled, most) = (self.filled, self.most());
        let taken = bytes.len().min(most - filled);
        self.room()[filled..filled + taken].copy_from_slice(&bytes[..taken]);
        self.filled += taken;
        if self.filled == most {
            self.write_out()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.filled > 0 { self.write_out() } else { Ok(()) }
    }
}

impl Seek for DirectWriter {
    /// Only to a place from the file's start.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let SeekFrom::Start(at) = to else { return Err(io::ErrorKind::Unsupported.into()) };
        if at != self.at + self.filled as u64 {
            self.flush()?;
            self.at = at;
        }
        Ok(at)
    }
}

/// What memory, lengths and places must be multiples of; some devices could do with less.
const BLOCK: usize = 4096;
/// How much is written at a time.
const CAPACITY: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sparse::SparseWriter;

    #[test]
    fn reads_back_as_written_whatever_the_steps() {
        let mut expected = vec![0; 3 * CAPACITY + 777];
        fastrand::Rng::with_seed(1).fill(&mut expected);
        expected[CAPACITY + 100..CAPACITY + 100_000].fill(0);
        for step in [1000, BLOCK, 100_000, CAPACITY, 3 * CAPACITY] {
            // Not below /tmp, which may be in memory.
            let folder =
                tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR").to_owned() + "/../target").expect("a folder");
            let path = folder.path().join("file");
            let file = File::options().read(true).write(true).create_new(true).open(&path).expect("made");
            let mut writer = DirectWriter::new(Arc::new(file), &path);
            let mut at = 0;
            for part in expected.chunks(step) {
                // Each step is on disk before the next one, as the lanes of a body have it.
                let mut sparse = SparseWriter::new(&mut writer, at).expect("seeks");
                sparse.write(part).expect("written");
                at = sparse.position();
                writer.flush().expect("written");
            }
            writer.file.set_len(expected.len() as u64).expect("set");
            assert!(std::fs::read(&path).expect("read") == expected, "steps of {step}");
        }
    }
}
