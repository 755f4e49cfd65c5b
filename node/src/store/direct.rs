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

use super::block::ALIGN;

/// Writes at one place of a file after the other. What lies in memory as it lies in the file, with respect to
/// [`ALIGN`], goes past the cache but for its ends; all else goes the usual way.
pub(super) struct DirectWriter {
    /// The same file, opened the usual way.
    file: Arc<File>,
    /// Absent where the file system cannot.
    direct: Option<File>,
    at: u64,
}

impl DirectWriter {
    /// A writer on the file at `path`, which `file` is.
    pub fn new(file: Arc<File>, path: &Path) -> Self {
        let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0);
        let direct = OpenOptions::new().write(true).custom_flags(flags).open(path).ok();
        DirectWriter { file, direct, at: 0 }
    }

    /// Bytes up to where both the file's place and memory are aligned; none where they never are.
    fn until_aligned(&self, bytes: &[u8]) -> Option<usize> {
        let missing = ALIGN - (self.at % ALIGN as u64) as usize;
        (bytes.as_ptr().align_offset(ALIGN) == missing % ALIGN).then_some(missing % ALIGN)
    }
}

impl Write for DirectWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let whole = bytes.len() / ALIGN * ALIGN;
        let most = match (&self.direct, self.until_aligned(bytes)) {
            (Some(direct), Some(0)) if whole > 0 => match direct.write_at(&bytes[..whole], self.at) {
                // Larger blocks, or a file system that only says so now.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    self.direct = None;
                    bytes.len()
                }
                written => return written.inspect(|n| self.at += *n as u64),
            },
            (Some(_), Some(missing)) if missing > 0 => missing.min(bytes.len()),
            _ => bytes.len(),
        };
        self.file.write_at(&bytes[..most], self.at).inspect(|n| self.at += *n as u64)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for DirectWriter {
    /// Only to a place from the file's start.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let SeekFrom::Start(at) = to else { return Err(io::ErrorKind::Unsupported.into()) };
        self.at = at;
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sparse::SparseWriter;

    const LONG: usize = 1024 * 1024;

    #[test]
    fn reads_back_as_written_whatever_the_steps() {
        let mut expected = vec![0; 3 * LONG + 777];
        fastrand::Rng::with_seed(1).fill(&mut expected);
        expected[LONG + 100..LONG + 100_000].fill(0);
        let mut memory = vec![0; expected.len() + 2 * ALIGN];
        for (step, apart) in
            [(1000, 0), (ALIGN, 0), (100_000, 0), (LONG, 0), (LONG, 5), (3 * LONG, 0), (3 * LONG, 8)]
        {
            // In memory as in the file, or a little apart.
            let start = memory.as_ptr().align_offset(ALIGN) + apart;
            memory[start..start + expected.len()].copy_from_slice(&expected);
            let aligned = &memory[start..start + expected.len()];
            // Not below /tmp, which may be in memory.
            let folder =
                tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR").to_owned() + "/../target").expect("a folder");
            let path = folder.path().join("file");
            let file = File::options().read(true).write(true).create_new(true).open(&path).expect("made");
            let mut writer = DirectWriter::new(Arc::new(file), &path);
            let mut at = 0;
            for part in aligned.chunks(step) {
                let mut sparse = SparseWriter::new(&mut writer, at).expect("seeks");
                sparse.write(part).expect("written");
                at = sparse.position();
            }
            writer.file.set_len(expected.len() as u64).expect("set");
            assert!(std::fs::read(&path).expect("read") == expected, "steps of {step}, {apart} apart");
        }
    }
}
