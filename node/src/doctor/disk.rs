//! The disk of the data directory: room, what kind of file system it is, and whether a file can be written and
//! synced.

use std::{io::Write as _, path::Path, time::Instant};

use super::Finding;

/// All of it.
pub(super) fn examine(dir: &Path) -> Vec<Finding> {
    [room(dir), kind(dir), write(dir)].into_iter().flatten().collect()
}

fn room(dir: &Path) -> Option<Finding> {
    let disk = rustix::fs::statvfs(dir).ok()?;
    let (free, all) =
        (disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize));
    let what = format!("{} of {} are free", indicatif::BinaryBytes(free), indicatif::BinaryBytes(all));
    Some(judge_room(free, all, what))
}

fn judge_room(free: u64, all: u64, what: String) -> Finding {
    let todo =
        "free space on that disk, or move the data directory to a larger one while the node is stopped";
    match free {
        _ if free < NONE.min(all / 16) => Finding::fail("disk-room", what, todo)
            .because("pushes are answered with 507 and nothing is fetched"),
        _ if free < LITTLE.min(all / 10) => Finding::warn("disk-room", what, todo),
        _ => Finding::ok("disk-room", what),
    }
}

fn kind(dir: &Path) -> Option<Finding> {
    let kind = rustix::fs::statfs(dir).ok()?.f_type;
    // Signed or not, and of what width, is the architecture's.
    let (_, name, lasts) = KINDS.iter().find(|(magic, ..)| *magic == kind as u32)?;
    let what = format!("the data directory is on {name}");
    Some(match lasts {
        Ok(()) => Finding::ok("disk-kind", what),
        Err(why) => Finding::warn("disk-kind", what, "use a disk of this machine").because(*why),
    })
}

/// Writes what a small record would be, and waits until the disk has it.
fn write(dir: &Path) -> Option<Finding> {
    let begun = Instant::now();
    let written = tempfile::Builder::new().prefix(".doctor-").tempfile_in(dir).and_then(|mut file| {
        file.write_all(&[0x57; 4096])?;
        file.as_file().sync_all()
    });
    let ms = begun.elapsed().as_millis();
    Some(match written {
        Err(why) => {
            let todo =
                "see whether the disk is full, read-only or failing (dmesg), and whose the directory is";
            Finding::fail("disk-write", format!("a file cannot be written and synced: {why}"), todo)
        }
        Ok(()) if ms > SLOW_MS => {
            let what = format!("writing and syncing a file of 4 KiB took {ms} ms");
            Finding::warn("disk-write", what, "use a faster disk, or see what else keeps it busy")
                .because("each push and each record waits for such a sync")
        }
        Ok(()) => Finding::ok("disk-write", format!("a file of 4 KiB is written and synced in {ms} ms")),
    })
}

/// File systems by their magic numbers (statfs(2)), and what is wrong with them.
const KINDS: &[(u32, &str, Result<(), &str>)] = &[
    (0xEF53, "ext4", Ok(())),
    (0x5846_5342, "xfs", Ok(())),
    (0x9123_683E, "btrfs", Ok(())),
    (0xF2F5_2010, "f2fs", Ok(())),
    (0x2FC1_2FC1, "zfs", Ok(())),
    (0x0102_1994, "tmpfs", Err("it is memory: a restart of the machine loses everything")),
    (0x8584_58F6, "ramfs", Err("it is memory: a restart of the machine loses everything")),
    (
        0x794C_7630,
        "overlayfs",
        Err("it is a container's own layer: removing the container loses everything; mount a volume"),
    ),
    (0x6969, "NFS", Err("locks and syncs of such a file system cannot be relied on")),
    (0xFF53_4D42, "CIFS", Err("locks and syncs of such a file system cannot be relied on")),
    (0xFE53_4D42, "SMB", Err("locks and syncs of such a file system cannot be relied on")),
    (0x4D44, "FAT", Err("it has no owners and is easily damaged by power cuts")),
];
/// What the node keeps free of bodies and downloads (`store/room.rs`).
const NONE: u64 = 64 << 20;
const LITTLE: u64 = 2 << 30;
const SLOW_MS: u128 = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn room_is_judged_by_the_size_of_the_disk() {
        let level = |free, all| judge_room(free, all, String::new()).level;
        assert_eq!(level(1 << 20, 100 << 30), Level::Fail);
        assert_eq!(level(1 << 30, 100 << 30), Level::Warn);
        assert_eq!(level(50 << 30, 100 << 30), Level::Ok);
        assert_eq!(level(900 << 20, 4 << 30), Level::Ok, "a small disk");
    }

    #[test]
    fn a_directory_that_is_not_there_cannot_be_written() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(write(dir.path()).expect("tried").level <= Level::Warn);
        assert_eq!(std::fs::read_dir(dir.path()).expect("read").count(), 0, "nothing stays");
        assert_eq!(write(&dir.path().join("none")).expect("tried").level, Level::Fail);
    }
}
