//! Hashing a whole file again: on as many threads as there are cores, since a client may be waiting for its first
//! byte. BLAKE3 is a tree, so that its parts can be hashed apart.

use std::{
    fs::File,
    io,
    num::NonZero,
    os::unix::fs::FileExt,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use rustix::fs::{Advice, fadvise};
use waystation_proto::Hash;

/// The hash of a file of `size` bytes. Blocks.
///
/// # Errors
/// What the disk says; `UnexpectedEof` where the file is shorter.
pub(super) fn hash_file(file: &File, size: u64) -> io::Result<Hash> {
    let parts = size.div_ceil(PART);
    if parts < 2 {
        let mut hasher = blake3::Hasher::new();
        take(file, 0, size, &mut hasher)?;
        return Ok(Hash(*hasher.finalize().as_bytes()));
    }
    let next = AtomicU64::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let part = next.fetch_add(1, Ordering::Relaxed);
            if part >= parts {
                return io::Result::Ok(done);
            }
            let from = part * PART;
            let mut hasher = blake3::Hasher::new();
            hasher.set_input_offset(from);
            take(file, from, (size - from).min(PART), &mut hasher)?;
            done.push((part, hasher.finalize_non_root()));
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS);
    let done = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut done = work()?;
        for other in others {
            done.extend(other.join().map_err(|_| io::Error::other("hashing panicked"))??);
        }
        io::Result::Ok(done)
    });
    let mut done = done?;
    done.sort_unstable_by_key(|(part, _)| *part);
    let values: Vec<_> = done.into_iter().map(|(_, value)| value).collect();
    let (left, right) = values.split_at(left_of(values.len()));
    Ok(Hash(*merge_subtrees_root(&merged(left), &merged(right), Mode::Hash).as_bytes()))
}

/// The value of the tree over these parts, of which there is at least one, and which are not all of the file.
fn merged(values: &[ChainingValue]) -> ChainingValue {
    match values {
        [one] => *one,
        _ => {
            let (left, right) = values.split_at(left_of(values.len()));
            merge_subtrees_non_root(&merged(left), &merged(right), Mode::Hash)
        }
    }
}

/// How many of the parts are on the left: the largest power of two that leaves something for the right.
fn left_of(parts: usize) -> usize {
    parts.next_power_of_two() / 2
}

/// Hashes a part of the file.
fn take(file: &File, mut from: u64, length: u64, hasher: &mut blake3::Hasher) -> io::Result<()> {
    // The system only reads ahead for one reader of a file by itself. Where it will not, reading is slower.
    let _ = fadvise(file, from, NonZero::new(length), Advice::WillNeed);
    let mut buffer = vec![0; READ];
    let end = from + length;
    while from < end {
        let most = usize::try_from(end - from).map_or(READ, |left| left.min(READ));
        file.read_exact_at(&mut buffer[..most], from)?;
        hasher.update(&buffer[..most]);
        from += most as u64;
    }
    Ok(())
}

/// Bytes that one thread takes at a time: a power of two, so that each is a subtree.
const PART: u64 = 8 * 1024 * 1024;
const READ: usize = 256 * 1024;
/// More would not be faster than memory.
const MAX_THREADS: usize = 4;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn is_the_hash_of_the_whole_file() {
        let mut bytes = vec![0; 5 * PART as usize + 12_345];
        fastrand::Rng::with_seed(1).fill(&mut bytes);
        for parts in [0, 1, 2, 3, 4, 5] {
            for more in [0, 1, 12_345] {
                let bytes = &bytes[..parts * PART as usize + more];
                let mut file = tempfile::tempfile().expect("a file");
                file.write_all(bytes).expect("written");
                let hash = hash_file(&file, bytes.len() as u64).expect("readable");
                assert_eq!(hash, Hash::of(bytes), "{parts} parts and {more} bytes");
                assert!(hash_file(&file, bytes.len() as u64 + 1).is_err());
            }
        }
    }
}
