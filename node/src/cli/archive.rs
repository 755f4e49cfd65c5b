//! Writes a tar archive whose members come one after another, each of a size known before.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    path::Path,
};

/// A tar archive that is being written.
#[derive(Debug)]
pub struct ArchiveWriter {
    file: File,
    at: u64,
}

impl ArchiveWriter {
    /// Begins an archive in an empty file.
    pub fn new(file: File) -> Self {
        ArchiveWriter { file, at: 0 }
    }

    /// Writes a member's header and says where its bytes belong, all of which the caller must write.
    pub fn reserve(&mut self, name: &Path, size: u64) -> io::Result<(File, u64)> {
        let mut header = tar::Header::new_gnu();
        header.set_path(name)?;
        header.set_size(size);
        header.set_mode(0o644);
        header.set_cksum();
        self.file.seek(SeekFrom::Start(self.at))?;
        self.file.write_all(header.as_bytes())?;
        let start = self.at + BLOCK;
        self.at = start + size.next_multiple_of(BLOCK);
        Ok((self.file.try_clone()?, start))
    }

    /// Writes a small member.
    pub fn add(&mut self, name: &Path, bytes: &[u8]) -> io::Result<()> {
        let (mut file, at) = self.reserve(name, bytes.len() as u64)?;
        file.seek(SeekFrom::Start(at))?;
        file.write_all(bytes)
    }

    /// Ends the archive: two blocks of zeros.
    pub fn finish(self) -> io::Result<()> {
        self.file.set_len(self.at + 2 * BLOCK)
    }
}

/// Everything in a tar archive starts at a multiple of this.
const BLOCK: u64 = 512;

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn tar_reads_what_was_written() {
        let path = tempfile::NamedTempFile::new().expect("a file");
        let mut archive = ArchiveWriter::new(path.reopen().expect("opens"));
        archive.add(Path::new("a"), b"one").expect("written");
        archive.add(Path::new("blobs/sha256/empty"), b"").expect("written");
        archive.add(Path::new("b"), &[7; 512]).expect("written");
        archive.finish().expect("written");
        let mut read = tar::Archive::new(path.reopen().expect("opens"));
        let found: Vec<(String, Vec<u8>)> = read
            .entries()
            .expect("entries")
            .map(|entry| {
                let mut entry = entry.expect("valid");
                let name = entry.path().expect("a name").display().to_string();
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).expect("bytes");
                (name, bytes)
            })
            .collect();
        assert_eq!(
            found,
            [
                ("a".to_owned(), b"one".to_vec()),
                ("blobs/sha256/empty".to_owned(), Vec::new()),
                ("b".to_owned(), vec![7; 512])
            ]
        );
    }
}
