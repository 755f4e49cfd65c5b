//! Reads OCI image layouts, in a directory or in a tar archive (image-spec, image-layout.md). Owns the index
//! of a tar's members, which docker archives use too.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, anyhow, bail};
use oci_spec::image::{ANNOTATION_REF_NAME, Descriptor};
use waystation_proto::Digest;

use super::{
    bundle::{Blob, Bundle, Document, Named, Place, blob_path, digest, is_foreign, media_type_of},
    local::{MANIFEST_MAX, digest_of},
};

/// Named files, in a directory or in a tar archive.
#[derive(Debug)]
pub enum Files {
    /// Below this directory.
    Directory(PathBuf),
    /// Members of this archive: name → offset and size.
    Archive(Arc<Path>, BTreeMap<PathBuf, (u64, u64)>),
}

impl Files {
    /// Looks through an archive: headers only. `None` where it is no tar archive.
    pub fn archive(path: &Path) -> io::Result<Option<Self>> {
        let mut magic = [0; 5];
        let mut file = File::open(path)?;
        if file.metadata()?.len() < 512 {
            return Ok(None);
        }
        io::Seek::seek(&mut file, io::SeekFrom::Start(257))?;
        file.read_exact(&mut magic)?;
        if &magic != b"ustar" {
            return Ok(None);
        }
        io::Seek::rewind(&mut file)?;
        members(file).map(|members| Some(Files::Archive(path.into(), members)))
    }

    /// Where a file's bytes are, and how many; `None` if there is no such file.
    pub fn find(&self, name: &Path) -> Option<(Place, u64)> {
        match self {
            Files::Directory(dir) => {
                let path = dir.join(name);
                let meta = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
                Some((Place::File(path.into(), 0), meta.len()))
            }
            Files::Archive(path, members) => {
                let (offset, size) = members.get(name)?;
                Some((Place::File(path.clone(), *offset), *size))
            }
        }
    }

    /// A small file's bytes; `None` if there is no such file.
    pub fn read(&self, name: &Path) -> anyhow::Result<Option<Vec<u8>>> {
        let Some((place, size)) = self.find(name) else { return Ok(None) };
        if size > MANIFEST_MAX as u64 {
            bail!("{} has {size} bytes, more than a manifest may have", name.display());
        }
        let mut bytes = Vec::new();
        // The digest is not known yet and not needed to read.
        let blob = Blob { digest: digest_of(&[]), size, place };
        blob.open()
            .and_then(|mut from| from.read_to_end(&mut bytes))
            .with_context(|| format!("{} cannot be read", name.display()))?;
        Ok(Some(bytes))
    }

    /// Whether it is an OCI layout.
    pub fn is_layout(&self) -> bool {
        self.find(Path::new("oci-layout")).is_some() && self.find(Path::new("index.json")).is_some()
    }
}

/// The artifact of a layout that is called `name`, or the only one.
pub fn read_layout(files: &Files, name: Option<&str>, tag: Option<&str>) -> anyhow::Result<Bundle> {
    let bytes = files.read(Path::new("index.json"))?.context("there is no index.json")?;
    let document = Document::new(String::new(), bytes);
    let Named::Index(index) = document.named()? else { bail!("index.json is not an image index") };
    let root = choose(index.manifests(), name, tag)?;
    let mut bundle = Bundle::default();
    if !add(files, &mut bundle, &digest(root)?, Some(root.media_type().to_string()), 0)? {
        bail!("the layout has no blob {}, which index.json names", root.digest());
    }
    Ok(bundle)
}

fn choose<'a>(
    manifests: &'a [Descriptor],
    name: Option<&str>,
    tag: Option<&str>,
) -> anyhow::Result<&'a Descriptor> {
    let called = |descriptor: &Descriptor| {
        descriptor.annotations().as_ref().and_then(|all| all.get(ANNOTATION_REF_NAME)).cloned()
    };
    let find = |wanted: &str| manifests.iter().find(|one| called(one).as_deref() == Some(wanted));
    let names = || manifests.iter().filter_map(called).collect::<Vec<_>>().join(", ");
    match (name, manifests) {
        (Some(name), _) => find(name)
            .ok_or_else(|| anyhow!("nothing in the layout is called {name:?}; there are: {}", names())),
        (None, []) => bail!("the layout is empty"),
        (None, [only]) => Ok(only),
        (None, several) => tag.and_then(find).ok_or_else(|| {
            anyhow!("the layout has {} artifacts; choose with --name one of: {}", several.len(), names())
        }),
    }
}

/// Adds a manifest after all that it names. False where the layout does not have it.
fn add(
    files: &Files,
    bundle: &mut Bundle,
    wanted: &Digest,
    media_type: Option<String>,
    depth: usize,
) -> anyhow::Result<bool> {
    if depth > DEPTH_MAX || bundle.manifests.len() >= MANIFESTS_MAX {
        bail!("the layout nests more manifests than are taken ({DEPTH_MAX} deep, {MANIFESTS_MAX} in all)");
    }
    let Some(bytes) = files.read(&blob_path(wanted))? else { return Ok(false) };
    let mut document = Document::new(String::new(), bytes);
    if document.digest != *wanted && wanted.algorithm() == "sha256" {
        bail!("the layout's blob {wanted} has digest {}; the layout is damaged", document.digest);
    }
    document.digest = *wanted;
    let named = document.named()?;
    document.media_type = media_type.unwrap_or_else(|| media_type_of(&named));
    match &named {
        Named::Index(index) => {
            for child in index.manifests() {
                // A child may be absent: an index can be pushed without all of its platforms.
                add(files, bundle, &digest(child)?, Some(child.media_type().to_string()), depth + 1)?;
            }
        }
        Named::Manifest(manifest) => {
            for descriptor in std::iter::once(manifest.config()).chain(manifest.layers()) {
                if let Some(blob) = find_blob(files, descriptor)? {
                    bundle.add(blob);
                }
            }
        }
    }
    if !bundle.manifests.iter().any(|other| other.digest == document.digest) {
        bundle.manifests.push(document);
    }
    Ok(true)
}

fn find_blob(files: &Files, descriptor: &Descriptor) -> anyhow::Result<Option<Blob>> {
    let digest = digest(descriptor)?;
    match files.find(&blob_path(&digest)) {
        Some((place, size)) if size == descriptor.size() => Ok(Some(Blob { digest, size, place })),
        Some((_, size)) => bail!(
            "the layout's blob {digest} has {size} bytes instead of {}; the layout is damaged",
            descriptor.size()
        ),
        None if is_foreign(descriptor) => Ok(None),
        None => bail!("the layout has no blob {digest}, which a manifest names"),
    }
}

/// Offsets and sizes of an archive's files; links stand for what they lead to.
fn members(file: File) -> io::Result<BTreeMap<PathBuf, (u64, u64)>> {
    let mut archive = tar::Archive::new(file);
    let mut members = BTreeMap::new();
    let mut links = Vec::new();
    for (count, entry) in archive.entries_with_seek()?.enumerate() {
        if count >= MEMBERS_MAX {
            return Err(io::Error::other(format!("the archive has more than {MEMBERS_MAX} members")));
        }
        let entry = entry?;
        let name = normal(&entry.path()?);
        match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                members.insert(name, (entry.raw_file_position(), entry.size()));
            }
            tar::EntryType::Symlink => {
                if let Some(target) = entry.link_name()? {
                    let dir = name.parent().unwrap_or(Path::new(""));
                    links.push((name.clone(), normal(&dir.join(target))));
                }
            }
            tar::EntryType::Link => {
                if let Some(target) = entry.link_name()? {
                    links.push((name, normal(&target)));
                }
            }
            _ => {}
        }
    }
    for (name, target) in links {
        if let Some(place) = members.get(&target).copied() {
            members.insert(name, place);
        }
    }
    Ok(members)
}

/// Without `.` and with `..` resolved within the archive.
fn normal(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

/// Indexes in indexes: clients make two levels at most.
const DEPTH_MAX: usize = 4;
/// Manifests of one artifact.
const MANIFESTS_MAX: usize = 10_000;
/// Members of one archive.
const MEMBERS_MAX: usize = 100_000;

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::cli::demo::image::{Image, Layer};

    /// A tar archive of everything in a layout directory.
    pub fn archive_of(dir: &Path, to: &Path) {
        let mut builder = tar::Builder::new(File::create(to).expect("created"));
        builder.append_dir_all(".", dir).expect("appended");
        builder.finish().expect("finished");
    }

    #[test]
    fn a_directory_and_its_archive_are_the_same_artifact() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = dir.path().join("layout");
        let image = Image { layers: vec![Layer::noise("a", 1, 5000), Layer::files("b", &[("f", "text")])] };
        let digest = image.write(&layout, "v1").expect("written");
        let tar = dir.path().join("image.tar");
        archive_of(&layout, &tar);
        let archive = Files::archive(&tar).expect("read").expect("a tar");
        for files in [Files::Directory(layout.clone()), archive] {
            assert!(files.is_layout());
            let bundle = read_layout(&files, None, None).expect("a bundle");
            assert_eq!(bundle.top().expect("one").digest, digest);
            assert_eq!(bundle.blobs.len(), 3);
            for blob in &bundle.blobs {
                let found = super::super::bundle::digest_reader(blob.open().expect("opens")).expect("reads");
                assert_eq!(found, (blob.digest, blob.size));
            }
            assert!(read_layout(&files, Some("v1"), None).is_ok());
            let error = read_layout(&files, Some("v9"), None).expect_err("no such name");
            assert!(error.to_string().contains("v1"), "{error}");
        }
    }

    #[test]
    fn damage_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let image = Image { layers: vec![Layer::noise("a", 1, 5000)] };
        image.write(dir.path(), "v1").expect("written");
        let files = Files::Directory(dir.path().to_owned());
        let layer = read_layout(&files, None, None).expect("a bundle").blobs[1].digest;
        std::fs::write(dir.path().join(blob_path(&layer)), b"short").expect("written");
        let error = read_layout(&files, None, None).expect_err("damaged").to_string();
        assert!(error.contains("5 bytes instead of"), "{error}");
        std::fs::remove_file(dir.path().join(blob_path(&layer))).expect("removed");
        let error = read_layout(&files, None, None).expect_err("missing").to_string();
        assert!(error.contains("has no blob"), "{error}");
    }

    #[test]
    fn other_files_are_no_archives() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        std::fs::write(&path, vec![7; 4096]).expect("written");
        assert!(Files::archive(&path).expect("read").is_none());
    }
}
