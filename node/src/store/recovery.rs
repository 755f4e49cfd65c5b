//! Opening a data directory: what a crash left behind is swept, what is not whole any more is forgotten,
//! and the index is built again unless the last run left it complete.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use waystation_proto::{Hash, Shared, event::Change, index::ArtifactIndex};

use super::{
    Held, Index, Inner, OpenError, Opened, Store,
    blobs::{Blobs, DATABASE, INLINE, Named, blocking, remove_file},
    dirs::Dirs,
    ground::Ground,
    outboards::Outboards,
    partial::Partials,
    reading::Reading,
    room::Kind,
    segments::Segments,
    sweep::Sweep,
    uploads::Uploads,
    uses::Uses,
};

/// See [`Store::open`].
pub(super) async fn open(dir: &Path) -> Result<Opened, OpenError> {
    let at = dir.to_owned();
    let (dirs, moved) = tokio::task::spawn_blocking(move || Dirs::open(&at))
        .await
        .map_err(|error| unusable(dir, io::Error::other(error)))??;
    let dirs = Arc::new(dirs);
    recover(dirs, moved).await.map_err(|error| unusable(dir, error))
}

async fn recover(dirs: Arc<Dirs>, moved: bool) -> io::Result<Opened> {
    let swept = dirs.clone();
    let (uploads, partials) = blocking(move || {
        empty(swept.blobs_temp())?;
        empty(&swept.incoming())?;
        Ok((Uploads::recover(&swept)?, Partials::recover(&swept)?))
    })
    .await?;
    let at = dirs.clone();
    blocking(move || refuse_nameless(&at)).await?;
    let blobs = Blobs::open(dirs.clone()).await?;
    let mut known: BTreeMap<Hash, Option<u64>> = blobs.list().await?.into_iter().collect();
    let mut names = blobs.names().await?;
    let unmade = unmade_outboards(&names);
    let (at, hashes) = (dirs.clone(), known.clone());
    let files = blocking(move || sweep(&at, &hashes, &unmade)).await?;
    if moved {
        refer_again(&blobs, &dirs, &known).await?;
    }
    make_outboards(&blobs, &dirs, &mut names, &mut known, &files).await?;
    let last_run = names.iter().find_map(|named| match named.ground {
        Ground::Run(nonce) => Some(nonce),
        _ => None,
    });
    let forgotten = forget_broken(&blobs, &mut names, &known, &files).await?;
    let run = last_run.unwrap_or(0).wrapping_add(1);
    blobs.name_run(run).await?;
    let (index, stale) = open_index(&dirs, last_run.filter(|_| !forgotten)).await?;
    let uses = Uses::open(dirs.uses());
    let inner = Arc::new(Inner {
        dirs,
        blobs,
        index,
        run,
        uploads,
        partials,
        segments: Segments::default(),
        reading: Reading::default(),
        active: Arc::default(),
        outboards: Arc::new(Outboards::new()),
        sweep: Arc::new(Sweep::new()),
        uses,
    });
    inner.heal_always();
    inner.reading.recover(old_files(&known, &names));
    let records = inner.read_segments(&names).await?;
    if stale {
        rebuild(&inner, &names, &records).await;
    }
    let hashes: BTreeSet<Hash> = names
        .iter()
        .filter(|named| is_announced(&named.ground))
        .map(|named| named.hash)
        .filter(|hash| known.get(hash).is_some_and(Option::is_some))
        .collect();
    Ok(Opened { store: Store(inner), records, hashes: hashes.into_iter().collect() })
}

/// Without the store's database nothing says what the files are, and all of them would be swept.
fn refuse_nameless(dirs: &Dirs) -> io::Result<()> {
    if dirs.blobs().join(DATABASE).exists() {
        return Ok(());
    }
    let mut found = Vec::new();
    list_files(dirs.blobs_data(), &mut found)?;
    for dir in fs::read_dir(dirs.files())? {
        list_files(&dir?.path(), &mut found)?;
    }
    if found.is_empty() {
        return Ok(());
    }
    let text = format!(
        "blobs/{DATABASE} is gone, and with it the names of {} files; put it back from a backup, or remove \
         blobs/ and files/ to start anew and have the mesh send them again",
        found.len()
    );
    Err(io::Error::new(io::ErrorKind::NotFound, text))
}

/// Removes files that the store does not know, and says how long the others are.
fn sweep(
    dirs: &Dirs,
    known: &BTreeMap<Hash, Option<u64>>,
    unmade: &BTreeSet<Hash>,
) -> io::Result<BTreeMap<Hash, u64>> {
    let mut lengths = BTreeMap::new();
    let mut data = Vec::new();
    list_files(dirs.blobs_data(), &mut data)?;
    for path in data {
        let kind = path.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
        let Some(hash) = hash_of(&path).filter(|_| STORE_FILES.contains(&kind)) else { continue };
        if !known.contains_key(&hash) {
            remove_file(&path);
        } else if kind == "data" {
            lengths.insert(hash, fs::metadata(&path)?.len());
        }
    }
    for dir in fs::read_dir(dirs.files())? {
        let mut files = Vec::new();
        list_files(&dir?.path(), &mut files)?;
        for path in files {
            match hash_of(&path) {
                Some(hash) if matches!(known.get(&hash), Some(Some(_))) || unmade.contains(&hash) => {
                    lengths.insert(hash, fs::metadata(&path)?.len());
                }
                _ => remove_file(&path),
            }
        }
    }
    Ok(lengths)
}

/// Blobs that were acknowledged before their outboards were made.
fn unmade_outboards(names: &[Named]) -> BTreeSet<Hash> {
    let of = |wanted: fn(&Ground) -> bool| {
        names.iter().filter(move |named| wanted(&named.ground)).map(|named| named.hash)
    };
    let named: BTreeSet<Hash> = of(|ground| matches!(ground, Ground::Blob { .. })).collect();
    of(|ground| matches!(ground, Ground::Outboard { .. })).filter(|hash| named.contains(hash)).collect()
}

/// Makes the outboards that the last run was still to make. A file that is not what it was is left to
/// [`forget_broken`].
async fn make_outboards(
    blobs: &Blobs,
    dirs: &Dirs,
    names: &mut Vec<Named>,
    known: &mut BTreeMap<Hash, Option<u64>>,
    files: &BTreeMap<Hash, u64>,
) -> io::Result<()> {
    let unmade = unmade_outboards(names);
    for Named { ground, hash } in names.iter() {
        let Ground::Outboard { size, .. } = *ground else { continue };
        if unmade.contains(hash) && files.get(hash) == Some(&size) {
            dirs.room.check(Kind::Rows, size / OUTBOARD_PART)?;
            tracing::info!(%hash, size, "making the outboard that the last run did not come to");
            known.remove(hash);
            match blobs.add_file(dirs.file(hash)).await {
                Ok(added) if added == *hash => {
                    blobs.settle(*hash, size).await?;
                    known.insert(*hash, Some(size));
                }
                Ok(_) => tracing::error!(%hash, "a file is not what it was before the crash"),
                Err(error) => tracing::error!(%hash, %error, "a file cannot be read any more"),
            }
        }
        blobs.unname(ground).await?;
    }
    names.retain(|named| !matches!(named.ground, Ground::Outboard { .. }));
    Ok(())
}

/// Drops the names of blobs that are not whole. Links stay: they say what may be seen, not what is held.
async fn forget_broken(
    blobs: &Blobs,
    names: &mut Vec<Named>,
    known: &BTreeMap<Hash, Option<u64>>,
    files: &BTreeMap<Hash, u64>,
) -> io::Result<bool> {
    let is_whole = |hash: &Hash, size: u64| {
        let complete = known.get(hash) == Some(&Some(size)) || (size == 0 && *hash == Hash::of(&[]));
        complete && (size <= INLINE || files.get(hash) == Some(&size))
    };
    let is_broken = |named: &Named| match named.ground {
        Ground::Blob { size, .. } | Ground::Index { size, .. } | Ground::Nameless { size, .. } => {
            !is_whole(&named.hash, size)
        }
        _ => false,
    };
    let mut forgotten = false;
    for named in names.iter().filter(|named| is_broken(named)) {
        tracing::warn!(name = %named.ground, hash = %named.hash,
            "a blob is not whole any more; it will be fetched or pushed again");
        blobs.unname(&named.ground).await?;
        forgotten = true;
    }
    names.retain(|named| !is_broken(named));
    Ok(forgotten)
}

/// After the data directory was moved: has the store find our files where they are now.
async fn refer_again(blobs: &Blobs, dirs: &Arc<Dirs>, known: &BTreeMap<Hash, Option<u64>>) -> io::Result<()> {
    tracing::info!("the data directory has another path than before; going through its files once");
    for hash in known.keys() {
        let path = dirs.file(hash);
        if path.exists() {
            blobs.add_file(path).await?;
        }
    }
    blobs.sync().await?;
    let dirs = dirs.clone();
    blocking(move || dirs.write_version()).await
}

/// Opens the index; also says whether it has to be built again.
async fn open_index(dirs: &Dirs, last_run: Option<u64>) -> io::Result<(Index, bool)> {
    let path = dirs.index();
    if let Some(run) = last_run
        && path.is_dir()
    {
        let at = path.clone();
        // sled may panic on what it cannot read; that ends the thread's task only.
        match blocking(move || Index::open(&at)).await {
            Ok(index) if index.is_left_by(run) => return Ok((index, false)),
            Ok(index) => {
                tracing::info!("the index was not left complete by the last run; building it again");
                blocking(move || {
                    drop(index);
                    Ok(())
                })
                .await?;
            }
            Err(error) => tracing::warn!(%error, "the index cannot be opened; building it again"),
        }
    }
    blocking(move || {
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok((Index::open(&path)?, true))
    })
    .await
}

/// Builds the index from names, records and artifact indexes.
async fn rebuild(inner: &Inner, names: &[Named], records: &[Shared]) {
    for named in names {
        match &named.ground {
            Ground::Blob { digest, size } => {
                inner.index.hold(&Held { digest: *digest, hash: named.hash, size: *size });
            }
            Ground::Link { repository, digest, size } => {
                let held = Held { digest: *digest, hash: named.hash, size: *size };
                inner.index.link_local(repository, &held);
            }
            _ => {}
        }
    }
    for record in records {
        match record.change() {
            Ok(Some(change)) => inner.index.apply(&change),
            Ok(None) => {}
            Err(error) => tracing::warn!(key = ?record.key, %error, "a stored record says nothing"),
        }
    }
    remember_writes(inner, names).await;
    for (repository, manifest, artifact) in inner.index.artifacts(None) {
        let Ok(bytes) = inner.read(artifact.place.index, ArtifactIndex::MAX_BYTES as u64).await else {
            continue;
        };
        match ArtifactIndex::decode(&bytes) {
            Ok(index) if index.manifest == manifest => {
                inner.index.apply(&Change::Reachable { repository, index });
            }
            Ok(_) => tracing::warn!(%manifest, "a stored artifact index is of another artifact"),
            Err(error) => tracing::warn!(%manifest, %error, "a stored artifact index cannot be read"),
        }
    }
}

/// Writes of tags that others went before, as far as segments of records still have them: for tags' histories.
async fn remember_writes(inner: &Inner, names: &[Named]) {
    for named in names.iter().filter(|named| matches!(named.ground, Ground::Segment(_))) {
        // What cannot be read has been told of.
        for record in inner.read_segment(named.hash).await.unwrap_or_default() {
            if let Ok(Some(change @ Change::Tag { .. })) = record.change() {
                inner.index.apply(&change.lost());
            }
        }
    }
}

/// Complete blobs in files, and whether nothing names them.
fn old_files(known: &BTreeMap<Hash, Option<u64>>, names: &[Named]) -> BTreeMap<Hash, bool> {
    let named: BTreeSet<Hash> = names.iter().map(|named| named.hash).collect();
    let large = known.iter().filter(|(_, size)| size.is_some_and(|size| size > INLINE));
    large.map(|(hash, _)| (*hash, !named.contains(hash))).collect()
}

fn is_announced(ground: &Ground) -> bool {
    matches!(ground, Ground::Blob { .. } | Ground::Index { .. } | Ground::Nameless { .. })
}

fn empty(dir: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    list_files(dir, &mut files)?;
    files.iter().for_each(|path| remove_file(path));
    Ok(())
}

fn list_files(dir: &Path, into: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            into.push(entry.path());
        }
    }
    Ok(())
}

fn hash_of(path: &Path) -> Option<Hash> {
    path.file_stem()?.to_str()?.parse().ok()
}

fn unusable(dir: &Path, error: io::Error) -> OpenError {
    let advice = "check the disk and the rights on the directory, or give another --data-dir";
    OpenError::Unusable { path: dir.to_owned(), why: format!("{error}; {advice}") }
}

/// An outboard has less than one of so many bytes of its blob.
const OUTBOARD_PART: u64 = 128;
/// What the store calls its files, after the hash.
const STORE_FILES: [&str; 4] = ["data", "obao4", "sizes4", "bitfield"];
