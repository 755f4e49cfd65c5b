//! One match over what the replica wants done. No decisions, no waiting: long work is a task that answers
//! with an input, and a queue that is full is an input too.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{sync::mpsc, task::JoinSet};
use tracing::{debug, error, info, trace, warn};
use waystation_proto::{
    Digest, Event, FetchId, Hash, Input, NodeId, Output, Replica, RepoName,
    event::{Change, Fault, Proof, PullFailure, Source},
    index::ArtifactIndex,
    ranges::Ranges,
    wire::{Answer, Standing},
};

use crate::{
    control::{Control, ControlCounters},
    data::{Data, FetchOrder},
    driver::{
        persister::{self, Job},
        timers::Timers,
        waiters::Waiters,
    },
    metrics::{Direction, KindLabels, Metrics, Plane, PlaneBytesLabels},
    mirror::{Downloads, Order},
    store::{Fetching, Held, IngestError, Store},
};

/// The means to perform outputs.
pub struct Effects {
    store: Store,
    control: Control,
    data: Data,
    downloads: Downloads,
    metrics: Metrics,
    /// Bytes of the planes that the metrics know of.
    counted: [u64; 4],
    /// Control messages that they know of.
    counted_messages: ControlCounters,
    answer: mpsc::Sender<Input>,
    /// Absent once nothing more is to be written.
    persist: Option<mpsc::Sender<Job>>,
    persister: Option<tokio::task::JoinHandle<()>>,
    tasks: JoinSet<()>,
    parking: Parking,
}

/// Fetches under way, and those that wait for room on the disk.
struct Parking {
    flying: BTreeMap<FetchId, Fetching>,
    parked: BTreeSet<FetchId>,
    unpark: mpsc::Sender<(FetchOrder, bool)>,
    unparked: mpsc::Receiver<(FetchOrder, bool)>,
}

impl Effects {
    /// `answer` is where tasks put their inputs.
    pub fn new(
        store: Store,
        control: Control,
        data: Data,
        downloads: Downloads,
        metrics: Metrics,
        answer: mpsc::Sender<Input>,
    ) -> Self {
        let (persist, jobs) = mpsc::channel(PERSISTS_MAX);
        let (unpark, unparked) = mpsc::channel(PARKED_MAX);
        let persister = tokio::spawn(persister::run(store.clone(), jobs, answer.clone()));
        Effects {
            store,
            control,
            data,
            downloads,
            metrics,
            counted: [0; 4],
            counted_messages: ControlCounters::default(),
            answer,
            persist: Some(persist),
            persister: Some(persister),
            tasks: JoinSet::new(),
            parking: Parking { flying: BTreeMap::new(), parked: BTreeSet::new(), unpark, unparked },
        }
    }

    /// Performs one output. What follows at once is returned as an input.
    pub fn perform(
        &mut self,
        output: Output,
        timers: &mut Timers,
        waiters: &mut Waiters,
        replica: &Replica,
    ) -> Option<Input> {
        while self.tasks.try_join_next().is_some() {}
        match output {
            Output::Send { to, message } => self.handed_over(self.control.send(to, message)),
            Output::Announce { records } => self.handed_over(self.control.announce(records)),
            Output::Dial { target } => {
                if !self.control.dial(target.clone()) {
                    return Some(Input::DialFailed { target });
                }
            }
            Output::SetTimer { at, timer } => timers.set(at, timer),
            Output::Persist { write, records, within } => {
                let job = Job { write, records, within: Duration::from_millis(within.0) };
                if self.persist.as_ref().is_none_or(|persist| persist.try_send(job).is_err()) {
                    let why = "too many writes are waiting for the disk; try again".to_owned();
                    return Some(Input::PersistFailed { write, why });
                }
            }
            Output::Probe { hash, size } => self.probe(hash, size),
            Output::Fetch { fetch, from, addresses, hash, size, range, class } => {
                return self.fetch(FetchOrder { fetch, from, addresses, hash, size, range, class });
            }
            Output::CancelFetch { fetch } => {
                trace!(fetch = fetch.0, "cancelled");
                self.parking.parked.remove(&fetch);
                self.landed(fetch);
                self.data.cancel(fetch);
            }
            Output::Hasten { fetch } => self.data.hasten(fetch),
            Output::Seal { hash, size, digest } => {
                let failed = Input::SealFailed { hash, why: PANICKED.to_owned() };
                self.task(failed, move |store| seal(store, hash, size, digest));
            }
            Output::Pull { source, size, is_manifest } => self.pull(Order { source, size, is_manifest }),
            Output::Prove { source, hash, size } => {
                let proof = Proof::Storage(PANICKED.to_owned());
                let failed = Input::Proved { source: source.clone(), hash, proof };
                self.task(failed, move |store| prove(store, source, hash, size));
            }
            Output::LookUp { to, repository, digests } => {
                let answers = digests.iter().map(|digest| self.look_up(&repository, digest)).collect();
                return Some(Input::LookedUp { to, repository, answers });
            }
            Output::ReadIndex { hash } => {
                let nothing = Input::IndexRead { hash, index: None };
                self.task(nothing, move |store| async move {
                    let bytes = store.read(hash, ArtifactIndex::MAX_BYTES as u64).await;
                    let index = bytes.ok().and_then(|bytes| ArtifactIndex::decode(&bytes).ok());
                    Input::IndexRead { hash, index }
                });
            }
            Output::Catalog(change) => self.change(&change),
            Output::Notify(event) => self.notify(event, waiters, replica),
            Output::Hangup { peer } => self.handed_over(self.control.hang_up(peer)),
            Output::Forget { keys } => self.store.forget(&keys),
        }
        None
    }

    /// Counts what the control plane did not take. Nothing else follows: any message may be lost.
    fn handed_over(&self, taken: bool) {
        if !taken {
            self.metrics.messages_dropped.inc();
        }
    }

    /// Starts a fetch, or has it wait for room to be made.
    fn fetch(&mut self, order: FetchOrder) -> Option<Input> {
        let bytes = order.range.end - order.range.start;
        if !self.store.has_room(bytes) {
            let (store, unparked) = (self.store.clone(), self.parking.unpark.clone());
            self.parking.parked.insert(order.fetch);
            self.tasks.spawn(async move {
                let room = store.wait_for_room(bytes).await;
                if let Err(why) = &room {
                    warn!(hash = %order.hash, %why, "there is no room for a blob that is wanted");
                }
                // The loop is gone only when the node stops.
                let _ = unparked.send((order, room.is_ok())).await;
            });
            return None;
        }
        self.launch(order)
    }

    fn launch(&mut self, order: FetchOrder) -> Option<Input> {
        let (fetch, hash, bytes) = (order.fetch, order.hash, order.range.end - order.range.start);
        let (from, range, class) = (order.from.short(), &order.range, order.class);
        trace!(fetch = fetch.0, %from, hash = %hash.short(), ?range, ?class, "fetching");
        if !self.data.fetch(order) {
            return Some(Input::FetchFailed { fetch, fault: Fault::Peer });
        }
        self.parking.flying.insert(fetch, self.store.fetching(hash, bytes));
        None
    }

    /// The next fetch whose wait for room has ended, and whether there is room.
    pub async fn unparked(&mut self) -> Option<(FetchOrder, bool)> {
        self.parking.unparked.recv().await
    }

    /// Goes on with a fetch that has waited for room, unless it was cancelled.
    pub fn unpark(&mut self, (order, room): (FetchOrder, bool)) -> Option<Input> {
        let fetch = order.fetch;
        if !self.parking.parked.remove(&fetch) {
            return None;
        }
        // Others that waited may have taken it.
        if room { self.fetch(order) } else { Some(Input::FetchFailed { fetch, fault: Fault::Local }) }
    }

    /// A fetch has ended.
    pub fn landed(&mut self, fetch: FetchId) {
        self.parking.flying.remove(&fetch);
    }

    /// Whether records can still be written.
    pub fn can_persist(&self) -> bool {
        self.persister.as_ref().is_some_and(|persister| !persister.is_finished())
    }

    /// The next fetch from this node opens a new connection.
    pub fn forget_link(&self, node: &NodeId) {
        self.data.forget(node);
    }

    /// Brings the metrics up to what the planes have counted. Returns how many bytes the control plane received
    /// and sent since the last time.
    pub fn count(&mut self) -> [u64; 2] {
        let (control, data) = (self.control.counters(), self.data.counters());
        let now = [
            (Plane::Control, Direction::In, control.received.bytes()),
            (Plane::Control, Direction::Out, control.sent.bytes()),
            (Plane::Data, Direction::In, data.bytes_in),
            (Plane::Data, Direction::Out, data.bytes_out),
        ];
        let mut news = [0; 4];
        for (n, (plane, direction, bytes)) in now.into_iter().enumerate() {
            let counter = self.metrics.plane_bytes.get_or_create(&PlaneBytesLabels { plane, direction });
            news[n] = bytes.saturating_sub(self.counted[n]);
            counter.inc_by(news[n]);
            self.counted[n] = bytes;
        }
        self.count_messages(&control);
        [news[0], news[1]]
    }

    fn count_messages(&mut self, control: &ControlCounters) {
        for (direction, now, before) in [
            (Direction::In, control.received, self.counted_messages.received),
            (Direction::Out, control.sent, self.counted_messages.sent),
        ] {
            for ((kind, now), (_, before)) in now.kinds().into_iter().zip(before.kinds()) {
                let labels = KindLabels { kind, direction };
                let (messages, bytes) = (&self.metrics.control_messages, &self.metrics.control_message_bytes);
                messages.get_or_create(&labels).inc_by(now.messages - before.messages);
                bytes.get_or_create(&labels).inc_by(now.bytes - before.bytes);
            }
        }
        self.counted_messages = *control;
    }

    /// Takes no more writes. Those under way have been answered when what this returns is done.
    pub fn stop_writing(&mut self) -> Option<tokio::task::JoinHandle<()>> {
        self.persist = None;
        self.persister.take()
    }

    /// Closes both planes.
    pub async fn shutdown(self) {
        let Effects { control, data, mut tasks, .. } = self;
        tasks.abort_all();
        tokio::join!(control.shutdown(), data.shutdown());
    }

    /// The index is what clients see: it changes before anybody is answered.
    fn change(&self, change: &Change) {
        self.store.index().apply(change);
    }

    fn notify(&self, event: Event, waiters: &mut Waiters, replica: &Replica) {
        match event {
            Event::Written { request } => waiters.written(request, Ok(())),
            Event::Refused { request, refusal } => waiters.written(request, Err(refusal)),
            Event::WantDone { request, result } => waiters.want_done(request, result),
            Event::Arrived { hash, have } => waiters.arrivals.arrived(&hash, &have),
            Event::LeaseDone { request, result } => waiters.lease_done(request, result),
            Event::RecordsRefused { from, count, why } => {
                self.metrics.records_refused.inc_by(count as u64);
                warn!(peer = %from.short(), count, %why, "dropped records that do not count");
            }
            Event::KeyShared { from } => {
                error!(
                    heard_from = %from.short(),
                    "another node has this node's key (a copied disk?): neither can be relied on; stop one of \
                     them and remove node.key from its data directory, so that it gets a key of its own"
                );
            }
            Event::Shunned { peer } => {
                warn!(
                    peer = %peer.short(),
                    "a member keeps sending records that nobody could have sent honestly; it is kept away from for ten minutes"
                );
            }
            Event::HolderLied { node, hash } => {
                self.metrics.holders_lied.inc();
                warn!(peer = %node.short(), %hash, "a holder sent wrong bytes; it is not asked for a while");
            }
            Event::ArtifactComplete { manifest } => {
                self.metrics.artifacts_completed.inc();
                self.store.uses().touch(&manifest);
                info!(manifest = %manifest, "artifact is complete here");
            }
            Event::Reconciled { peer } => {
                waiters.reconciled();
                debug!(peer = %peer.short(), records = replica.counts().records, "catalogs are equal");
            }
        }
    }

    fn pull(&mut self, order: Order) {
        let (source, downloads) = (order.source.clone(), self.downloads.clone());
        let why = PullFailure::Storage(PANICKED.to_owned());
        let failed = Input::Pulled { source: source.clone(), result: Err(why) };
        self.task(
            failed,
            move |_| async move { Input::Pulled { source, result: downloads.run(order).await } },
        );
    }

    fn probe(&mut self, hash: Hash, size: u64) {
        let nothing = Input::Probed { hash, have: Ranges::new() };
        self.task(nothing, move |store| async move {
            Input::Probed { hash, have: store.probe(hash, size).await }
        });
    }

    /// Whether content of an upstream is here and belongs to the repository.
    fn look_up(&self, repository: &RepoName, digest: &Digest) -> Answer {
        let index = self.store.index();
        let held = index.link(repository, digest).and_then(|_| index.held(digest));
        let state = held.map_or(Standing::Absent, |held| Standing::Held { hash: held.hash, size: held.size });
        Answer { digest: *digest, state }
    }

    /// Starts work that answers with an input; with `otherwise` where it panics, because the replica waits for
    /// an answer for ever.
    fn task<F: Future<Output = Input> + Send + 'static>(
        &mut self,
        otherwise: Input,
        work: impl FnOnce(Store) -> F,
    ) {
        let (answer, work) = (self.answer.clone(), work(self.store.clone()));
        self.tasks.spawn(answer_with(answer, work, otherwise));
    }
}

async fn seal(store: Store, hash: Hash, size: u64, digest: Option<Digest>) -> Input {
    match store.seal(hash, size, digest).await {
        Ok(()) => Input::Sealed { hash },
        Err(IngestError::Busy(why)) => {
            debug!(%hash, why, "a fetched blob is not all there; fetching it again");
            Input::Incomplete { hash }
        }
        Err(why) => {
            warn!(%hash, %why, "a fetched blob could not be made durable");
            Input::SealFailed { hash, why: why.to_string() }
        }
    }
}

async fn prove(store: Store, source: Source, hash: Hash, size: u64) -> Input {
    let held = Held { digest: source.digest, hash, size };
    let proof = match store.prove(&source.repository, held).await {
        Ok(Ok(())) => {
            store.uses().touch(&source.digest);
            Proof::Holds
        }
        Ok(Err(found)) => {
            warn!(%hash, said = %source.digest, %found, "a member's bytes have another digest than it said");
            Proof::Fails
        }
        Err(why) => Proof::Storage(why.to_string()),
    };
    Input::Proved { source, hash, proof }
}

async fn answer_with(answer: mpsc::Sender<Input>, work: impl Future<Output = Input>, otherwise: Input) {
    let input = AssertUnwindSafe(work).catch_unwind().await.unwrap_or(otherwise);
    // The loop is gone only when the node stops.
    let _ = answer.send(input).await;
}

const PANICKED: &str = "the store failed in a way that is a defect; see the node's log";
/// Fetches whose wait for room has ended and that wait for the loop: the protocol has no more under way.
const PARKED_MAX: usize = 64;
/// Writes that may wait for the disk.
const PERSISTS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_panics_is_answered() {
        let (answer, mut answers) = mpsc::channel(1);
        let hash = Hash([1; 32]);
        let work = async { panic!("a defect") };
        answer_with(answer, work, Input::SealFailed { hash, why: PANICKED.to_owned() }).await;
        assert!(matches!(answers.recv().await, Some(Input::SealFailed { hash: of, .. }) if of == hash));
    }
}
