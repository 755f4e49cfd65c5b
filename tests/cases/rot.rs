//! A disk that changes bytes: of a large blob every part is served that is still right, none that is not, and the
//! whole comes again from where it is right.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
};

use crate::harness::{
    cluster::Cluster,
    image::{Image, digest},
    wait::until,
};

#[test]
fn a_download_that_meets_rot_is_cut_short_and_the_next_is_whole() {
    let mut cluster = Cluster::start(2);
    let image = Image::random(1, &[BLOB]);
    let layer = &image.layers[0];
    cluster[0].registry().push("app", "v1", &image);
    cluster[1].registry().wait_for_tag("app", "v1", &image);
    cluster[1].registry().assert_has("app", "v1", &image);
    cluster[1].stop();
    rot(&cluster[1].data_dir());
    cluster[1].start_again();
    cluster.wait_until_connected();

    let registry = cluster[1].registry();
    let target = format!("/v2/app/blobs/{}", digest(layer));
    for (from, end) in [(0, PART), (ROTTEN - PART, ROTTEN - PART / 2), (BLOB - PART, BLOB)] {
        let range = format!("bytes={from}-{}", end - 1);
        let answer = registry.http.get(&target).header("Range", &range).send().expect(206);
        assert!(answer.body == layer[from..end], "other bytes in {range}");
    }
    // Begun with bytes that are right, and ended before those that are not.
    let range = format!("bytes={}-{}", ROTTEN - 3 * PART, ROTTEN + PART);
    assert!(registry.http.get(&target).header("Range", &range).try_send().is_err(), "as if it were complete");
    let answer = until("it comes again", || {
        let answer = registry.http.get(&target).try_send().ok()?;
        (answer.status == 200).then_some(answer)
    });
    assert!(answer.body == *layer, "other bytes");
}

/// Changes a byte of the one large file below a folder.
fn rot(folder: &Path) {
    let mut folders = vec![folder.to_owned()];
    let mut changed = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let (path, meta) = entry.map(|entry| (entry.path(), entry.metadata().unwrap())).unwrap();
            if meta.is_dir() {
                folders.push(path);
            } else if meta.len() == BLOB as u64 {
                let file = File::options().read(true).write(true).open(path).unwrap();
                let mut byte = [0];
                file.read_exact_at(&mut byte, ROTTEN as u64).unwrap();
                file.write_all_at(&[!byte[0]], ROTTEN as u64).unwrap();
                changed += 1;
            }
        }
    }
    assert_eq!(changed, 1, "the blob's file");
}

const BLOB: usize = 24 << 20;
const ROTTEN: usize = 13_000_000;
const PART: usize = 1 << 20;
