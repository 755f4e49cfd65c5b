//! What faults do to the world. What they are, and when they come, is drawn elsewhere (`faults`).

use std::collections::{BTreeMap, BTreeSet};

use waystation_proto::{Hash, Input, Shared, wire::Message};

use super::{Occurrence, World};
use crate::{
    disk::Image,
    faults::{DiskAfter, Fault},
    random::stream,
    setup::{MILLISECOND, Nanos, SECOND},
};

/// What faults leave for later ones.
#[derive(Default)]
pub(super) struct Trouble {
    images: BTreeMap<usize, Image>,
    heard: Vec<Shared>,
    /// Hosts that lost what was on their disks: others tell them their own words of before, which nobody promised to
    /// keep.
    pub(super) relearning: BTreeSet<usize>,
}

impl World {
    pub(super) fn go_wrong(&mut self, number: u64, fault: Fault) {
        self.trace.note(self.now, 0, format_args!("{fault:?}"));
        self.trace.say(self.now, 0, || format!("fault {number}: {fault:?}"));
        let mut rng = stream(self.options.seed, number as usize, "fault");
        match fault {
            Fault::Crash { host, down_ms, silent, disk } => self.crash_with(host, down_ms, silent, disk),
            Fault::Image { host } => self.put_aside(host),
            Fault::Power { site, down_ms } => {
                for host in 0..self.hosts.len() {
                    if self.network.site(host) == site {
                        self.crash(host, Some(down_ms * MILLISECOND), true);
                    }
                }
            }
            Fault::Leave { host } => self.leave(host),
            Fault::Join { host } => self.at(self.now, Occurrence::Starts(host)),
            Fault::Cut { cut, ms } => self.cut(cut, ms * MILLISECOND),
            Fault::Clock { host, seconds } => self.hosts[host].set_clock(seconds),
            Fault::Full { host, ms } => {
                self.hosts[host].disk.set_full(self.now, true);
                self.at(self.now + ms * MILLISECOND, Occurrence::Eases(host));
            }
            Fault::Slow { host, ms } => {
                self.hosts[host].disk.set_slow(true);
                self.at(self.now + ms * MILLISECOND, Occurrence::Eases(host));
            }
            Fault::Rot { host, pick } => self.rot_one(host, pick),
            Fault::Garbage { via } => {
                let victim = &self.hosts[0];
                let all = victim.replica().into_iter().flat_map(|replica| replica.catalog().iter());
                let grant =
                    all.filter(|record| record.author == victim.id).find_map(|record| record.grant.clone());
                let records = self.rogue.garbage(victim.id, grant);
                self.spread(via, records, &mut rng);
            }
            Fault::Echo { via } => self.echo(via, &mut rng),
            Fault::Unknown { via } => {
                self.plant_by(via, &mut rng);
            }
        }
    }

    /// A neighbour of a host sends another a record of a kind unknown to all; nothing where it has none.
    pub fn plant(&mut self, via: usize) -> Option<Shared> {
        let mut rng = stream(self.options.seed, via, "plant");
        self.plant_by(via, &mut rng)
    }

    fn plant_by(&mut self, via: usize, rng: &mut fastrand::Rng) -> Option<Shared> {
        let record = self.rogue.of_unknown_kind();
        let sent = self.spread(via, vec![record.clone()], rng);
        sent.then(|| self.planted.push(record.clone()))?;
        Some(record)
    }

    /// Hands records to one neighbour of a host, over a link that loses nothing; whether there is one.
    fn spread(&mut self, via: usize, records: Vec<Shared>, rng: &mut fastrand::Rng) -> bool {
        let peers: Vec<usize> = self.hosts[via].peers.who().to_vec();
        let to = rng.choice(&peers).copied().filter(|to| self.hosts[*to].is_up());
        let Some(to) = to else { return false };
        let from = self.hosts[via].id;
        self.tell(to, Input::Received { from, message: Message::Records(records) });
        true
    }

    /// A copy of a disk is put aside.
    pub(super) fn put_aside(&mut self, host: usize) {
        self.trouble.images.insert(host, self.hosts[host].disk.image(self.now));
    }

    pub(super) fn crash_with(&mut self, host: usize, down_ms: u64, silent: bool, disk: DiskAfter) {
        if !self.hosts[host].is_up() {
            return;
        }
        let image = match disk {
            DiskAfter::Kept => None,
            DiskAfter::Lost => Some(Image::default()),
            DiskAfter::Old => Some(self.trouble.images.get(&host).cloned().unwrap_or_default()),
        };
        self.crash(host, Some(down_ms * MILLISECOND), silent);
        let Some(image) = image else { return };
        self.trouble.relearning.insert(host);
        let blobs: Vec<Hash> = self.hosts[host].disk.complete();
        let gone: Vec<Hash> = blobs.into_iter().filter(|hash| !image.holds(hash)).collect();
        self.taken(host, &gone);
        self.checks.retention.forgets(host);
        self.completed.retain(|(who, _)| *who != host);
        self.data.rotten(host);
        self.hosts[host].disk.replace(image);
    }

    fn leave(&mut self, host: usize) {
        if self.hosts[host].left {
            return;
        }
        self.crash(host, None, true);
        let blobs = self.hosts[host].disk.complete();
        self.taken(host, &blobs);
        self.hosts[host].left = true;
    }

    fn rot_one(&mut self, host: usize, pick: u64) {
        let blobs = self.hosts[host].disk.blobs();
        let Some(hash) = blobs.keys().nth(pick as usize % blobs.len().max(1)).copied() else { return };
        self.data.rot(host, hash);
        self.scrub_later(host);
    }

    pub(super) fn scrub_later(&mut self, host: usize) {
        self.at(self.now + FOUND, Occurrence::Scrubs(host));
    }

    /// A host looks through its disk: what is rotten is put away, and the replica told.
    pub(super) fn scrub(&mut self, host: usize) {
        if self.hosts[host].left {
            return;
        }
        if !self.hosts[host].is_up() {
            self.at(self.now + FOUND, Occurrence::Scrubs(host));
            return;
        }
        for hash in self.data.rotten(host) {
            self.lose(host, hash);
        }
    }

    /// A disk is as it should be again.
    pub(super) fn ease(&mut self, host: usize) {
        self.hosts[host].disk.set_full(self.now, false);
        self.hosts[host].disk.set_slow(false);
    }

    /// A fault takes blobs from a host.
    pub(super) fn taken(&mut self, host: usize, blobs: &[Hash]) {
        let doomed: Vec<_> = self.evictors.iter().map(|evictor| evictor.doomed(&self.content)).collect();
        self.checks.retention.takes(&self.hosts, host, blobs, &doomed);
    }

    /// What was true once is said again: old versions of records, by a member that was there.
    fn echo(&mut self, via: usize, rng: &mut fastrand::Rng) {
        let heard = std::mem::take(&mut self.trouble.heard);
        for records in heard.chunks(ECHO_RECORDS) {
            self.spread(via, records.to_vec(), rng);
        }
        let catalog = self.hosts[via].replica().into_iter().flat_map(|replica| replica.catalog().iter());
        let mut heard: Vec<Shared> = catalog.cloned().collect();
        rng.shuffle(&mut heard);
        heard.truncate(ECHO_MAX);
        self.trouble.heard = heard;
    }
}

/// How long rot is not noticed.
const FOUND: Nanos = 30 * SECOND;
/// Records of one message of an echo, and of all.
const ECHO_RECORDS: usize = 20;
const ECHO_MAX: usize = 200;
