//! One blob from a registry into a file: verified before it counts, zeros written as holes, a fixed amount
//! of memory whatever the size.

use std::{fs::File, io, path::Path};

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use sha2::Digest as _;
use tokio::sync::mpsc;
use waystation_proto::{Digest, RepoName};

use super::{Failure, local::Client, progress::Progress};
use crate::sparse::SparseWriter;

/// What is to be fetched.
#[derive(Clone, Copy, Debug)]
pub struct Download<'a> {
    /// The repository through which it is asked for.
    pub repository: &'a RepoName,
    /// What its bytes must have.
    pub digest: Digest,
    /// How many they are.
    pub size: u64,
}

/// Fetches a blob into `file` from byte `at` on, where nothing has been written yet. On error the file's
/// content is worth nothing.
pub async fn download(
    client: &Client,
    what: Download<'_>,
    file: File,
    at: u64,
    progress: &Progress,
) -> Result<(), Failure> {
    let Download { repository, digest, size } = what;
    let transfer = progress.start(digest.short(), size);
    let mut answer = client.blob(repository, &digest).await?;
    let (chunks, received) = mpsc::channel(QUEUE);
    let writing = tokio::task::spawn_blocking(move || write(received, file, at, digest, size));
    let cut = loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => {
                transfer.advance(chunk.len() as u64);
                // A writer that ended early says why below.
                if chunks.send(chunk).await.is_err() {
                    break None;
                }
            }
            Ok(None) => break None,
            Err(e) => break Some(e),
        }
    };
    drop(chunks);
    let written = writing.await.context("writing did not end well")?;
    if let Some(e) = cut {
        return Err(anyhow::Error::new(e).context(format!("blob {digest} ended early; try again")).into());
    }
    written.map_err(|e| e.context(format!("blob {digest}")))?;
    transfer.done("verified");
    Ok(())
}

/// Whether a file is this blob already: size first, then every byte.
pub async fn is_there(path: &Path, digest: Digest, size: u64) -> Result<bool, Failure> {
    let path = path.to_owned();
    let check = move || -> io::Result<bool> {
        let file = match File::open(&path) {
            Ok(file) if file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() == size) => file,
            _ => return Ok(false),
        };
        let mut hasher = Hasher::like(&digest);
        io::copy(&mut io::BufReader::with_capacity(STEP, file), &mut hasher)?;
        Ok(hasher.is(&digest))
    };
    let checked = tokio::task::spawn_blocking(check).await.context("reading did not end well")?;
    Ok(checked.unwrap_or(false))
}

fn write(
    mut chunks: mpsc::Receiver<Bytes>,
    file: File,
    at: u64,
    digest: Digest,
    size: u64,
) -> anyhow::Result<()> {
    let mut hasher = Hasher::like(&digest);
    let mut writer = SparseWriter::new(file, at)?;
    while let Some(chunk) = chunks.blocking_recv() {
        if writer.position() + chunk.len() as u64 > at + size {
            bail!("more came than the {size} bytes that the manifest says");
        }
        io::Write::write_all(&mut hasher, &chunk)?;
        writer.write(&chunk)?;
    }
    let written = writer.position() - at;
    if written != size {
        bail!("{written} bytes came instead of {size}");
    }
    if !hasher.is(&digest) {
        return Err(anyhow!("the bytes that came have another digest"));
    }
    writer.into_inner().set_len(at + size)?;
    Ok(())
}

/// Either algorithm that a digest may have.
enum Hasher {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    fn like(digest: &Digest) -> Self {
        match digest {
            Digest::Sha256(_) => Hasher::Sha256(sha2::Sha256::new()),
            Digest::Sha512(_) => Hasher::Sha512(sha2::Sha512::new()),
        }
    }

    fn is(self, digest: &Digest) -> bool {
        match self {
            Hasher::Sha256(hasher) => hasher.finalize().as_slice() == digest.bytes(),
            Hasher::Sha512(hasher) => hasher.finalize().as_slice() == digest.bytes(),
        }
    }
}

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Chunks between the socket and the disk.
const QUEUE: usize = 16;
/// Read at a time.
const STEP: usize = 256 * 1024;
