//! What each output of a replica does to the world.

use waystation_proto::{
    Event, Input, NodeId, Output, Shared,
    event::{PullFailure, Refusal, WriteId},
};

use super::{GRANT_REQUESTS, Occurrence, Operating, World};
use crate::{
    check::integrity,
    setup::{MILLISECOND, Nanos, SECOND},
    words,
};

impl World {
    pub(super) fn perform(&mut self, host: usize, output: Output) {
        let life = self.hosts[host].life;
        self.trace.say(self.now, host, || words::output(&output, |node| self.number(node)));
        match output {
            Output::Send { to, message } => {
                if let Some(to) = self.number(&to) {
                    self.send(host, to, message);
                }
            }
            Output::Announce { records } => self.announce(host, records),
            Output::Dial { target } => self.dial(host, target),
            Output::SetTimer { at, timer } => {
                let at = self.hosts[host].world_time(at);
                self.at(at, Occurrence::Timer { host, life, timer });
            }
            Output::Persist { write, records, within } => {
                self.persist(host, (write, records), within.0 * MILLISECOND);
            }
            Output::Seal { hash, size, digest } => {
                let good = integrity::seal(&self.hosts[host], &self.content, &hash, size, digest);
                self.note("integrity", host, good);
                self.on_disk(host, 0, Operating::Seal(hash, size));
            }
            Output::Probe { hash, .. } => {
                let operation = Box::new(Operating::Probe(hash));
                self.at(self.now + MILLISECOND, Occurrence::Disk { host, life, operation });
            }
            Output::ReadIndex { hash } => {
                let operation = Box::new(Operating::ReadIndex(hash));
                self.at(self.now + MILLISECOND, Occurrence::Disk { host, life, operation });
            }
            Output::Pull { source, .. } => self.download(host, source),
            Output::Prove { source, hash, .. } => self.prove(host, source, hash),
            Output::LookUp { to, repository, digests } => self.look_up(host, to, repository, digests),
            Output::Fetch { fetch, from, hash, range, class, .. } => {
                self.fetch(host, fetch, &from, (hash, range), class);
            }
            Output::CancelFetch { fetch } => self.cancel(host, fetch),
            Output::Hasten { fetch } => self.hasten(host, fetch),
            Output::Catalog(change) => {
                self.changes += 1;
                self.learnt(host, &change);
                let forward = self.checks.tags.changed(host, &change);
                self.note("tags", host, forward);
            }
            Output::Notify(event) => self.notify(host, event),
            Output::Hangup { peer } => self.hang_up(host, &peer),
            Output::Forget { keys } => self.hosts[host].disk.forget(self.now, &keys),
        }
    }

    pub(super) fn number(&self, node: &NodeId) -> Option<usize> {
        self.numbers.get(node).copied()
    }

    fn persist(&mut self, host: usize, (write, records): (WriteId, Vec<Shared>), within: Nanos) {
        if write != WriteId::UNANSWERED {
            self.on_disk(host, within, Operating::Persist(write, records));
            return;
        }
        let failures = if self.healed { 0 } else { self.options.disk_failures };
        let disk = &mut self.hosts[host].disk;
        let at = disk.kept_at(self.now, within);
        // Nobody hears whether it came to something.
        if !disk.breaks(failures) {
            disk.keep_later(self.now, at, records);
        }
    }

    pub(super) fn on_disk(&mut self, host: usize, within: Nanos, operation: Operating) {
        let life = self.hosts[host].life;
        let disk = &mut self.hosts[host].disk;
        let at = match &operation {
            Operating::Persist(..) => disk.kept_at(self.now, within),
            _ => disk.sealed_at(self.now),
        };
        self.at(at, Occurrence::Disk { host, life, operation: Box::new(operation) });
    }

    pub(super) fn disk_done(&mut self, host: usize, operation: Operating) {
        let failures = if self.healed { 0 } else { self.options.disk_failures };
        let disk = &mut self.hosts[host].disk;
        let why = || String::from("the disk is full");
        let input = match operation {
            Operating::Persist(write, _) if disk.fails(failures) => {
                Input::PersistFailed { write, why: why() }
            }
            Operating::Persist(write, records) => {
                disk.keep(self.now, records);
                Input::Persisted { write }
            }
            Operating::Seal(hash, _) if disk.fails(failures) => Input::SealFailed { hash, why: why() },
            Operating::Seal(hash, size) => {
                disk.seal(hash, size);
                self.evictors[host].spare(&hash);
                self.sealed(host, &hash);
                Input::Sealed { hash }
            }
            Operating::Ingest(source, ..) if disk.fails(failures) => {
                Input::Pulled { source, result: Err(PullFailure::Storage(why())) }
            }
            Operating::Ingest(source, hash, size) => {
                disk.seal(hash, size);
                self.evictors[host].spare(&hash);
                self.sealed(host, &hash);
                Input::Pulled { source, result: Ok((hash, size)) }
            }
            Operating::Probe(hash) => Input::Probed { hash, have: disk.have(&hash) },
            Operating::ReadIndex(hash) => {
                let index = self.content.index(&hash).filter(|_| disk.holds(&hash)).cloned();
                Input::IndexRead { hash, index }
            }
        };
        self.tell(host, input);
    }

    fn notify(&mut self, host: usize, event: Event) {
        if self.thorough || self.trace.is_told() {
            self.trace.note(self.now, host, format_args!("{event:?}"));
        }
        if let Some((host, manifest, true)) = self.workload.pinned(&event) {
            self.checks.retention.pinned(host, manifest, true);
        }
        if self.for_evictor(host, &event) || self.told_client(host, &event) {
            return;
        }
        match &event {
            Event::Written { request } if request.0 >= GRANT_REQUESTS => return,
            // The operator tries again what was refused, and nothing else: to repeat all of them for each one
            // that was refused would make ever more of them. A disk that fails now and then is the only
            // reason that there may be.
            Event::Refused { request, refusal } if request.0 >= GRANT_REQUESTS => {
                let good = match refusal {
                    Refusal::Storage(_) => Ok(()),
                    other => Err(format!("an operator was refused: {other}")),
                };
                let subject = (request.0 - GRANT_REQUESTS) as usize;
                if good.is_ok() && subject < self.options.granted {
                    self.at(self.now + SECOND, Occurrence::Grants(subject));
                }
                self.note("answers", host, good);
                return;
            }
            Event::ArtifactComplete { manifest } => {
                self.completed.insert((host, *manifest));
            }
            _ => {}
        }
        let disk = &self.hosts[host].disk;
        let answered = self.workload.answered(&event, |hash| disk.holds(hash));
        self.note("answers", host, answered);
    }
}
