//! Writes zeros as holes, so that a disk image takes the room of its data.

use std::io::{self, Seek, SeekFrom, Write};

/// Writes from one position on into a file in which everything from there is still unwritten.
#[derive(Debug)]
pub struct SparseWriter<W> {
    out: W,
    /// Where the next byte belongs.
    at: u64,
    /// Where the file's own cursor is.
    cursor: u64,
}

impl<W: Write + Seek> SparseWriter<W> {
    /// Writes into `out` from byte `at` on.
    pub fn new(mut out: W, at: u64) -> io::Result<Self> {
        out.seek(SeekFrom::Start(at))?;
        Ok(SparseWriter { out, at, cursor: at })
    }

    /// Writes all of it; blocks that are zero are left out. The file's length is the caller's to set.
    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let zeros = self.run(bytes, true);
            self.at += zeros as u64;
            bytes = &bytes[zeros..];
            let data = self.run(bytes, false);
            if data > 0 {
                if self.cursor != self.at {
                    self.out.seek(SeekFrom::Start(self.at))?;
                }
                self.out.write_all(&bytes[..data])?;
                self.at += data as u64;
                self.cursor = self.at;
                bytes = &bytes[data..];
            }
        }
        Ok(())
    }

    /// Where the next byte belongs.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Whether the last of it was left out, so that the file does not reach there yet.
    pub fn ends_in_hole(&self) -> bool {
        self.at != self.cursor
    }

    /// The file.
    pub fn into_inner(self) -> W {
        self.out
    }

    /// How many of the next bytes lie in blocks of the file that are all zero, or all not.
    fn run(&self, bytes: &[u8], zero: bool) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            let into = ((self.at + taken as u64) % BLOCK as u64) as usize;
            let part = &bytes[taken..bytes.len().min(taken + BLOCK - into)];
            if (*part == ZEROS[..part.len()]) != zero {
                break;
            }
            taken += part.len();
        }
        taken
    }
}

/// File systems allocate by this much.
const BLOCK: usize = 4096;
static ZEROS: [u8; BLOCK] = [0; BLOCK];

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::MetadataExt};

    use super::*;

    #[test]
    fn reads_back_as_written_whatever_the_steps() {
        let mut expected = vec![0; 100_000];
        let mut random = fastrand::Rng::with_seed(1);
        for start in [0, 5000, 40_000, 99_990] {
            for byte in &mut expected[start..(start + 3000).min(100_000)] {
                *byte = random.u8(..);
            }
        }
        for (offset, step) in [(0, 100_000), (0, 4096), (7, 1000), (512, 1), (4096, 65_536)] {
            let path = tempfile::NamedTempFile::new().expect("a file");
            let file = File::options().write(true).open(path.path()).expect("opens");
            let mut writer = SparseWriter::new(file, offset).expect("seeks");
            for part in expected.chunks(step) {
                writer.write(part).expect("written");
            }
            assert_eq!(writer.position(), offset + 100_000);
            writer.into_inner().set_len(offset + 100_000).expect("set");
            let found = std::fs::read(path.path()).expect("read");
            assert!(found[offset as usize..] == expected, "offset {offset}, step {step}");
        }
    }

    #[test]
    fn zeros_take_no_room() {
        let path = tempfile::NamedTempFile::new().expect("a file");
        let file = File::options().write(true).open(path.path()).expect("opens");
        let mut writer = SparseWriter::new(file, 0).expect("seeks");
        // Steps as a socket gives them: not aligned to blocks.
        for _ in 0..1000 {
            writer.write(&[0; 16_300]).expect("written");
        }
        writer.write(b"end").expect("written");
        let size = writer.position();
        writer.into_inner().set_len(size).expect("set");
        let meta = std::fs::metadata(path.path()).expect("there");
        assert_eq!(meta.len(), 16_300_003);
        assert!(meta.blocks() * 512 < 1024 * 1024, "{} blocks", meta.blocks());
    }
}
