//! What each output of a replica does to the world.

use std::rc::Rc;

use waystation_proto::{
    Event, FetchId, Hash, Input, NodeId, Output,
    event::{Fault, Proof, PullFailure, Refusal},
    wire::{Answer, Message, Standing},
};

use super::{GRANT_REQUESTS, Occurrence, Operating, World};
use crate::{
    check::{bounds, integrity},
    transfer::{Ending, Transfer},
    words,
};

impl World {
    pub(super) fn perform(&mut self, host: usize, output: Output) {
        let life = self.hosts[host].life;
        self.trace.say(self.now, host, || words::output(&output, |node| self.numbers.get(node).copied()));
        match output {
            Output::Send { to, message } => {
                let bytes: Rc<[u8]> = message.encode().into();
                self.checks.note("bounds", self.now, host, bounds::message(&bytes, false));
                if let Some(to) = self.number(&to) {
                    self.send(host, to, &bytes, false);
                }
            }
            Output::Announce { records } => {
                let bytes: Rc<[u8]> = Message::Records(records).encode().into();
                self.checks.note("bounds", self.now, host, bounds::message(&bytes, true));
                self.hosts[host].hears(self.now, Hash::of(&bytes));
                self.flood(host, None, &bytes);
            }
            Output::Dial { target } => self.dial(host, target),
            Output::SetTimer { at, timer } => {
                let at = self.hosts[host].world_time(at);
                self.at(at, Occurrence::Timer { host, life, timer });
            }
            Output::Persist { write, records, within } => {
                self.on_disk(host, within.0, Operating::Persist(write, records));
            }
            Output::Seal { hash, size, digest } => {
                let good = integrity::seal(&self.hosts[host], &self.content, &hash, size, digest);
                self.checks.note("integrity", self.now, host, good);
                self.on_disk(host, 0, Operating::Seal(hash, size));
            }
            Output::Probe { hash, .. } => {
                self.at(self.now + 1, Occurrence::Disk { host, life, operation: Operating::Probe(hash) });
            }
            Output::ReadIndex { hash } => {
                self.at(self.now + 1, Occurrence::Disk { host, life, operation: Operating::ReadIndex(hash) });
            }
            // No upstream is simulated.
            Output::Pull { source, .. } => {
                let result = Err(PullFailure::Away("there are no upstreams here".into()));
                self.at(
                    self.now + 1,
                    Occurrence::Told { host, life, input: Box::new(Input::Pulled { source, result }) },
                );
            }
            Output::Prove { source, hash, .. } => {
                let input = Input::Proved { source, hash, proof: Proof::Fails };
                self.at(self.now + 1, Occurrence::Told { host, life, input: Box::new(input) });
            }
            Output::LookUp { to, repository, digests } => {
                let absent = |digest| Answer { digest, state: Standing::Absent };
                let answers = digests.into_iter().map(absent).collect();
                let input = Input::LookedUp { to, repository, answers };
                self.at(self.now + 1, Occurrence::Told { host, life, input: Box::new(input) });
            }
            Output::Fetch { fetch, from, hash, range, .. } => self.fetch(host, fetch, &from, hash, range),
            Output::CancelFetch { fetch } => {
                self.transfers.take(host, fetch);
            }
            // Transfers of both classes share a link alike here.
            Output::Hasten { .. } => {}
            Output::Catalog(change) => {
                self.changes += 1;
                let forward = self.checks.tags.changed(host, &change);
                self.checks.note("tags", self.now, host, forward);
            }
            Output::Notify(event) => self.notify(host, event),
            Output::Hangup { peer } => self.hang_up(host, &peer),
            Output::Forget { keys } => self.hosts[host].disk.forget(&keys),
        }
    }

    pub(super) fn number(&self, node: &NodeId) -> Option<usize> {
        self.numbers.get(node).copied()
    }

    fn on_disk(&mut self, host: usize, within: u64, operation: Operating) {
        let life = self.hosts[host].life;
        let at = self.hosts[host].disk.durable_at(self.now, within);
        self.at(at, Occurrence::Disk { host, life, operation });
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
                disk.keep(records);
                Input::Persisted { write }
            }
            Operating::Seal(hash, _) if disk.fails(failures) => Input::SealFailed { hash, why: why() },
            Operating::Seal(hash, size) => {
                disk.seal(hash, size);
                self.evictors[host].spare(&hash);
                Input::Sealed { hash }
            }
            Operating::Probe(hash) => Input::Probed { hash, have: disk.have(&hash) },
            Operating::ReadIndex(hash) => {
                let index = self.content.index(&hash).filter(|_| disk.holds(&hash)).cloned();
                Input::IndexRead { hash, index }
            }
        };
        self.tell(host, input);
    }

    fn fetch(&mut self, host: usize, fetch: FetchId, from: &NodeId, hash: Hash, range: std::ops::Range<u64>) {
        let life = self.hosts[host].life;
        let Some(from) = self.number(from) else { return };
        let round_trip = self.network.delay(host, from) + self.network.delay(from, host);
        let reached = self.hosts[from].is_up() && !self.network.is_severed(host, from);
        let flow = (range.end - range.start) / self.network.rate(host, from);
        let takes = if reached { round_trip + flow } else { UNREACHED_MS };
        let transfer = Transfer { from, life: self.hosts[from].life, hash, range };
        self.transfers.start(host, fetch, transfer);
        self.at(self.now + takes, Occurrence::Transferred { host, life, fetch });
    }

    pub(super) fn transferred(&mut self, host: usize, fetch: FetchId) {
        let Some(transfer) = self.transfers.take(host, fetch) else { return };
        let holder = &self.hosts[transfer.from];
        let ending = Ending {
            alive: holder.is_up() && holder.life == transfer.life,
            connected: !self.network.is_severed(host, transfer.from),
            held: holder.disk.have(&transfer.hash).contains(&transfer.range),
            lies: holder.lies,
            progress: self.rng.u64(0..1000),
        };
        let (arrived, mut fault) = transfer.end(ending);
        if !self.healed && self.hosts[host].disk.fails(self.options.disk_failures) {
            fault = fault.or(Some(Fault::Local));
        }
        self.transfers.bytes += arrived.end - arrived.start;
        self.hosts[host].disk.write(transfer.hash, arrived);
        self.tell(
            host,
            match fault {
                None => Input::Fetched { fetch },
                Some(fault) => Input::FetchFailed { fetch, fault },
            },
        );
    }

    fn notify(&mut self, host: usize, event: Event) {
        self.trace.note(self.now, host, format_args!("{event:?}"));
        if let Some((host, manifest, true)) = self.workload.pinned(&event) {
            self.checks.retention.pinned(host, manifest, true);
        }
        if self.for_evictor(host, &event) {
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
                    self.at(self.now + 1_000, Occurrence::Grants(subject));
                }
                self.checks.note("answers", self.now, host, good);
                return;
            }
            Event::ArtifactComplete { manifest } => {
                self.completed.insert((host, *manifest));
            }
            _ => {}
        }
        let disk = &self.hosts[host].disk;
        let answered = self.workload.answered(&event, |hash| disk.holds(hash));
        self.checks.note("answers", self.now, host, answered);
    }
}

/// After this a transfer from a holder that cannot be reached is given up.
const UNREACHED_MS: u64 = 10_000;
