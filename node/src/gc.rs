//! The only code that has anything deleted. What goes is decided by the protocol's `retention`, from what
//! `known` gathers; how it leaves the disk is the store's. A copy that is referenced goes only after another
//! node has promised to keep its own, and after the mesh was told that this one is going.

pub mod config;
mod known;
pub mod report;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use tokio::{sync::Mutex, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use waystation_proto::{
    Digest, Hash, NodeId, RepoName,
    retention::{self, Go, Keeps, Name, Origin, Plan, Unit},
};

pub use self::known::Unknown;
use self::{
    config::{StorageConfig, percent_of},
    known::{Known, Loose, Sources},
    report::{ArtifactUsage, Deleted, GcReport, GcRequest, SpaceReport, Usage},
};
use crate::{
    driver::handle::ReplicaHandle,
    metrics::Metrics,
    store::{Space, Store},
    upstream::Upstreams,
};

/// Keeps the node within its quota. Clones are the same.
#[derive(Clone)]
pub struct Gc {
    inner: Arc<Inner>,
}

struct Inner {
    sources: Sources,
    config: StorageConfig,
    metrics: Metrics,
    /// Held by a round: there is one at a time.
    turn: Mutex<Turn>,
}

/// What one round leaves to the next.
#[derive(Default)]
struct Turn {
    loose: Loose,
    /// Artifacts that nobody promised to keep, and when that was asked.
    refused: BTreeMap<Digest, Instant>,
    /// When loose bytes were last looked for.
    looked: Option<Instant>,
    saved: Option<Instant>,
    /// Whether it was said that room is short, so that it is said once.
    short: bool,
}

/// What a round came to.
#[derive(Default)]
struct Outcome {
    gone: Vec<Deleted>,
    freed: u64,
    last: Plan,
}

impl Gc {
    /// Sets the limits of the store.
    ///
    /// # Errors
    /// What the system says of the disk.
    pub fn new(
        store: Store,
        replica: ReplicaHandle,
        upstreams: Upstreams,
        node: NodeId,
        config: StorageConfig,
        metrics: Metrics,
    ) -> std::io::Result<Self> {
        let disk = store.space()?.disk;
        let (quota, reserve) = (config.quota.of(disk), config.reserve.of(disk));
        store.limit(quota, reserve);
        metrics.quota.set(i64::try_from(quota).unwrap_or(i64::MAX));
        let sources = Sources { store, replica, upstreams, node };
        let turn = Mutex::default();
        Ok(Gc { inner: Arc::new(Inner { sources, config, metrics, turn }) })
    }

    /// Looks after the quota until `stop`.
    pub fn start(&self, stop: CancellationToken) -> JoinHandle<()> {
        let gc = self.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(TICK);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                let pressed = tokio::select! {
                    () = stop.cancelled() => return,
                    () = gc.store().pressed() => true,
                    _ = ticks.tick() => false,
                };
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = gc.round(pressed) => {}
                }
            }
        })
    }

    /// Deletes what need not stay, and so many bytes more; or says only what that would be.
    ///
    /// # Errors
    /// See [`Unknown`].
    pub async fn run(&self, request: &GcRequest) -> Result<GcReport, Unknown> {
        let mut turn = self.inner.turn.lock().await;
        // Whoever asks by hand wants all to be tried again.
        turn.refused.clear();
        let space = self.store().measure().await?;
        let need = self.need(&space).max(request.free);
        let loose_after = Some(self.inner.config.loose_after);
        if request.dry_run {
            let known = self.inner.sources.gather(&mut turn.loose, loose_after).await?;
            let plan = plan(&known, &turn, &BTreeMap::new(), need);
            return Ok(report(&known.units, &plan, space.into()));
        }
        let outcome = self.free(&mut turn, need, loose_after).await;
        let space = self.store().measure().await?;
        self.store().round_done();
        let outcome = outcome?;
        let stays = outcome.last.stays.iter().map(|(stay, bytes)| (report::reason(*stay).to_owned(), *bytes));
        Ok(GcReport {
            dry_run: false,
            space: space.into(),
            deleted: outcome.gone,
            freed: outcome.freed,
            short: need.saturating_sub(outcome.freed),
            stays: stays.collect(),
        })
    }

    /// What takes the room.
    ///
    /// # Errors
    /// See [`Unknown`].
    pub async fn usage(&self) -> Result<Usage, Unknown> {
        let known = self.inner.sources.gather(&mut Loose::default(), None).await?;
        let mut uses: BTreeMap<Hash, (usize, u64)> = BTreeMap::new();
        for unit in &known.units {
            for (hash, size) in unit.blobs.iter().copied().collect::<BTreeMap<_, _>>() {
                uses.entry(hash).or_insert((0, size)).0 += 1;
            }
        }
        let shared = uses.values().filter(|(count, _)| *count > 1).map(|(_, size)| size).sum();
        let mut artifacts: Vec<ArtifactUsage> =
            known.units.iter().filter_map(|unit| usage_of(unit, &known, &uses)).collect();
        artifacts.sort_by_key(|artifact| std::cmp::Reverse(artifact.bytes));
        let space = self.store().measure().await?;
        Ok(Usage { space: space.into(), artifacts, loose: known.loose, shared })
    }

    /// How full disk and quota are, as far as that is known without measuring.
    pub fn space(&self) -> SpaceReport {
        self.store().space().map(SpaceReport::from).unwrap_or_default()
    }

    fn store(&self) -> &Store {
        &self.inner.sources.store
    }

    /// One look at whether something is to go. Never fails: what cannot be told deletes nothing.
    async fn round(&self, pressed: bool) {
        let mut turn = self.inner.turn.lock().await;
        self.save_uses(&mut turn).await;
        let looking = turn.looked.is_none_or(|at| at.elapsed() >= self.loose_interval());
        match self.look(&mut turn, pressed, looking).await {
            Ok(()) => {}
            Err(Unknown::Stopping) => debug!("the node is stopping; nothing more is deleted"),
            Err(why) => error!(%why, "room could not be made"),
        }
        self.store().round_done();
    }

    async fn look(&self, turn: &mut Turn, pressed: bool, looking: bool) -> Result<(), Unknown> {
        let mut space = self.store().space()?;
        if pressed || looking || self.is_high(&space) || space.used != self.measured() {
            space = self.store().measure().await?;
            self.inner.metrics.used.set(i64::try_from(space.used).unwrap_or(i64::MAX));
        }
        let need = if pressed || self.is_high(&space) { self.need(&space) } else { 0 };
        // What was never whole goes before anything that is.
        let freed = self.store().sweep_partials(need).await;
        if freed > 0 {
            self.store().measure().await?;
        }
        let need = need.saturating_sub(freed);
        if need == 0 && !looking {
            return Ok(());
        }
        turn.looked = Some(Instant::now());
        let outcome = self.free(turn, need, Some(self.inner.config.loose_after)).await?;
        let short = need.saturating_sub(outcome.freed);
        if short > 0 && !std::mem::replace(&mut turn.short, true) {
            let stays = outcome.last.stays.iter().map(|(stay, bytes)| (report::reason(*stay), *bytes));
            warn!(short, stays = ?stays.collect::<Vec<_>>(), "the quota is used up, and the rest has to stay");
        }
        turn.short &= short > 0;
        if outcome.freed > 0 {
            let space = self.store().measure().await?;
            self.inner.metrics.used.set(i64::try_from(space.used).unwrap_or(i64::MAX));
            info!(freed = outcome.freed, used = space.used, quota = space.quota, "made room");
        }
        Ok(())
    }

    /// Frees so many bytes, as far as that can be done.
    async fn free(
        &self,
        turn: &mut Turn,
        need: u64,
        loose_after: Option<Duration>,
    ) -> Result<Outcome, Unknown> {
        let mut outcome = Outcome::default();
        let mut granted = BTreeMap::new();
        turn.refused.retain(|_, at| at.elapsed() < ASK_AGAIN);
        for _ in 0..STEPS_MAX {
            let known = self.inner.sources.gather(&mut turn.loose, loose_after).await?;
            let left = need.saturating_sub(outcome.freed);
            let mut plan = plan(&known, turn, &granted, left);
            if !plan.ask.is_empty() {
                plan.ask.truncate(ASKED_AT_ONCE);
                self.ask(&known, &plan.ask, turn, &mut granted).await;
                plan = self::plan(&known, turn, &granted, left);
            }
            if plan.go.is_empty() {
                let again = !plan.ask.is_empty();
                outcome.last = plan;
                if again {
                    continue;
                }
                break;
            }
            let (gone, freed) = self.delete(&known, &plan.go, &mut granted).await?;
            outcome.freed += freed;
            outcome.last = plan;
            if gone.is_empty() {
                break;
            }
            let promised = |go: &Go| go.origin == Origin::Referenced;
            outcome.gone.extend(gone.iter().map(|go| deleted(&known.units, go, promised(go))));
            if outcome.freed >= need && outcome.last.ask.is_empty() {
                break;
            }
        }
        Ok(outcome)
    }

    /// Has other nodes promise to keep these.
    async fn ask(&self, known: &Known, ask: &[Go], turn: &mut Turn, granted: &mut BTreeMap<Digest, NodeId>) {
        let asking = ask.iter().filter_map(|go| {
            let Name::Content(manifest) = go.name else { return None };
            let unit = known.units.iter().find(|unit| unit.name == go.name)?;
            let blobs = unit.blobs.iter().map(|(hash, _)| *hash).collect();
            let replica = self.inner.sources.replica.clone();
            Some(async move { (manifest, replica.ask_lease(manifest, blobs).await) })
        });
        let mut answers = stream::iter(asking.collect::<Vec<_>>()).buffer_unordered(ASKED_AT_ONCE);
        while let Some((manifest, answer)) = answers.next().await {
            match answer {
                Ok(node) => {
                    granted.insert(manifest, node);
                }
                Err(why) => {
                    debug!(%manifest, %why, "a copy stays here");
                    turn.refused.insert(manifest, Instant::now());
                }
            }
        }
    }

    /// Deletes these. Says what went, and how many bytes that freed.
    async fn delete(
        &self,
        known: &Known,
        go: &[Go],
        granted: &mut BTreeMap<Digest, NodeId>,
    ) -> Result<(Vec<Go>, u64), Unknown> {
        let sizes: BTreeMap<Hash, u64> = go.iter().flat_map(|go| &go.frees).copied().collect();
        let mut hashes: BTreeSet<Hash> = sizes.keys().copied().collect();
        self.store().doom(&hashes);
        let told = stream::iter(go.iter().cloned().map(|go| self.let_go(known, go)));
        let told: Vec<(Go, bool)> = told.buffered(ASKED_AT_ONCE).collect().await;
        let (gone, stay): (Vec<_>, Vec<_>) = told.into_iter().partition(|(_, gone)| *gone);
        // A blob that was to go with the last of several artifacts stays where one of them does.
        let names: BTreeSet<Name> = stay.iter().map(|(go, _)| go.name).collect();
        let needed = known.units.iter().filter(|unit| names.contains(&unit.name));
        let needed: BTreeSet<Hash> = needed.flat_map(|unit| &unit.blobs).map(|(hash, _)| *hash).collect();
        let back: BTreeSet<Hash> = hashes.intersection(&needed).copied().collect();
        hashes.retain(|hash| !back.contains(hash));
        self.store().spare(&back);
        let keeping: BTreeSet<Hash> = gone
            .iter()
            .filter(|(go, _)| go.origin == Origin::Referenced)
            .flat_map(|(go, _)| &go.frees)
            .map(|(hash, _)| *hash)
            .filter(|hash| hashes.contains(hash))
            .collect();
        let dropping: BTreeSet<Hash> = hashes.difference(&keeping).copied().collect();
        let mut spared = back;
        spared.extend(self.store().remove(&keeping, true).await?);
        spared.extend(self.store().remove(&dropping, false).await?);
        for hash in &spared {
            self.inner.sources.replica.sealed(*hash).await;
        }
        let freed = hashes.difference(&spared).filter_map(|hash| sizes.get(hash)).sum();
        let gone: Vec<Go> = gone.into_iter().map(|(go, _)| go).collect();
        for go in &gone {
            if let Name::Content(digest) = &go.name {
                granted.remove(digest);
                self.store().uses().forget(digest);
            }
            info!(name = report::name(&go.name), kind = report::kind(go.origin), "deleted a copy");
        }
        self.inner.metrics.evicted.inc_by(gone.len() as u64);
        self.inner.metrics.evicted_bytes.inc_by(freed);
        Ok((gone, freed))
    }

    /// Tells the mesh that a copy goes; false where it has to stay after all.
    async fn let_go(&self, known: &Known, go: Go) -> (Go, bool) {
        let (mut manifests, mut leased) = (Vec::new(), Vec::new());
        match go.name {
            Name::Content(manifest) => manifests.push(manifest),
            // Whatever this node said to hold of artifacts that are in no repository any more.
            Name::Loose(_) => manifests.clone_from(&known.stale),
        }
        if go.origin == Origin::Referenced {
            leased.clone_from(&manifests);
        }
        let blobs = go.frees.iter().map(|(hash, _)| *hash).collect();
        let told = self.inner.sources.replica.let_go(manifests, leased, blobs).await;
        if let Err(why) = &told {
            debug!(name = report::name(&go.name), %why, "stays after all");
        }
        let gone = told.is_ok();
        (go, gone)
    }

    fn is_high(&self, space: &Space) -> bool {
        space.used > percent_of(space.quota, self.inner.config.high_water) || space.free < space.reserve
    }

    /// How many bytes are to be freed.
    fn need(&self, space: &Space) -> u64 {
        let low = percent_of(space.quota, self.inner.config.low_water);
        let over = if self.is_high(space) || space.asked > 0 { space.used.saturating_sub(low) } else { 0 };
        let asked = space.used.saturating_add(space.asked).saturating_sub(space.quota);
        let reserve = space.reserve.saturating_add(space.asked).saturating_sub(space.free);
        over.max(asked).max(reserve)
    }

    fn measured(&self) -> u64 {
        u64::try_from(self.inner.metrics.used.get()).unwrap_or(0)
    }

    /// How often loose bytes are looked for.
    fn loose_interval(&self) -> Duration {
        (self.inner.config.loose_after / 4).clamp(TICK, LOOSE_INTERVAL_MAX)
    }

    async fn save_uses(&self, turn: &mut Turn) {
        if turn.saved.is_some_and(|at| at.elapsed() < SAVE_INTERVAL) {
            return;
        }
        turn.saved = Some(Instant::now());
        let store = self.store().clone();
        let saved = tokio::task::spawn_blocking(move || store.uses().save()).await;
        if let Ok(Err(error)) = saved {
            debug!(%error, "when what is here was last used could not be written");
        }
    }
}

fn plan(known: &Known, turn: &Turn, granted: &BTreeMap<Digest, NodeId>, need: u64) -> Plan {
    let mut refused: BTreeSet<Digest> = turn.refused.keys().copied().collect();
    // Nobody has to be asked to know that nobody promises.
    refused.extend(known.units.iter().filter_map(|unit| match unit.name {
        Name::Content(digest) if known.kept.holders.get(&digest).is_none_or(|count| *count == 0) => {
            Some(digest)
        }
        _ => None,
    }));
    let policy_held = |_: &RepoName, manifest: &Digest| known.kept.policy.contains(manifest);
    let keeps = Keeps {
        pinned: &known.kept.pinned,
        leased: &known.kept.leased,
        policy_held: &policy_held,
        busy: &known.kept.wanted,
        coming: &known.kept.coming,
        granted,
        refused: &refused,
    };
    retention::plan(&known.units, &keeps, need)
}

fn report(units: &[Unit], plan: &Plan, space: SpaceReport) -> GcReport {
    let go = plan.go.iter().map(|go| deleted(units, go, false));
    let ask = plan.ask.iter().map(|go| deleted(units, go, true));
    let freed = plan.go.iter().chain(&plan.ask).flat_map(|go| &go.frees).map(|(_, size)| size).sum();
    let stays = plan.stays.iter().map(|(stay, bytes)| (report::reason(*stay).to_owned(), *bytes));
    GcReport {
        dry_run: true,
        space,
        deleted: go.chain(ask).collect(),
        freed,
        short: plan.short,
        stays: stays.collect(),
    }
}

fn deleted(units: &[Unit], go: &Go, needs_promise: bool) -> Deleted {
    let unit = units.iter().find(|unit| unit.name == go.name);
    let repositories = unit.map(|unit| unit.repositories.iter().map(RepoName::to_string).collect());
    Deleted {
        name: report::name(&go.name),
        repositories: repositories.unwrap_or_default(),
        kind: report::kind(go.origin).to_owned(),
        bytes: go.frees.iter().map(|(_, size)| size).sum(),
        needs_promise,
    }
}

fn usage_of(unit: &Unit, known: &Known, uses: &BTreeMap<Hash, (usize, u64)>) -> Option<ArtifactUsage> {
    let Name::Content(digest) = unit.name else { return None };
    let blobs: BTreeMap<Hash, u64> = unit.blobs.iter().copied().collect();
    let alone = |hash: &&Hash| uses.get(*hash).is_some_and(|(count, _)| *count == 1);
    let last = known.last_use.get(&digest).map(|used| used.wall).filter(|wall| *wall > 0);
    Some(ArtifactUsage {
        digest: digest.to_string(),
        repositories: unit.repositories.iter().map(RepoName::to_string).collect(),
        kind: report::kind(unit.origin).to_owned(),
        bytes: blobs.values().sum(),
        unshared: blobs.keys().filter(alone).filter_map(|hash| blobs.get(hash)).sum(),
        last_used: last,
        pinned: known.kept.pinned.contains(&digest),
        leased: known.kept.leased.contains(&digest),
        holders: known.kept.holders.get(&digest).copied().unwrap_or(0) as u64,
    })
}

/// How often it is looked whether the quota is nearly used.
const TICK: Duration = Duration::from_secs(5);
/// Loose bytes are looked for at least this often.
const LOOSE_INTERVAL_MAX: Duration = Duration::from_secs(15 * 60);
/// How often the last uses are written.
const SAVE_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// After a while somebody may promise who did not.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// Promises that are asked for, and copies that are let go of, at a time.
const ASKED_AT_ONCE: usize = 16;
/// Steps of one round: each frees something, or asks for other promises.
const STEPS_MAX: usize = 256;
