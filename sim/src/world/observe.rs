//! What is measured while a setup is carried out: lines and messages by bucket, how publications spread, how far
//! catalogs are apart. Times are told from the moment at which the setup's own time begins.

use std::collections::{BTreeMap, BTreeSet};

use waystation_proto::{Change, Digest, RequestId, reconcile::Within};

use super::{Occurrence, World, pulls::Pull};
use crate::{
    account::{Account, Carried, seconds},
    gossip::Bits,
    measure::{Measurement, RunId},
    setup::{Action, Nanos, Setup},
};

/// A setup on its way, and what was measured of it.
#[derive(Default)]
pub(super) struct Course {
    /// Which run; none where no setup is carried out.
    pub(super) run: Option<RunId>,
    pub(super) actions: Vec<(Nanos, Action)>,
    /// The number of each of the setup's artifacts among what exists.
    pub(super) artifacts: Vec<usize>,
    /// The tags of each.
    pub(super) tags: Vec<Vec<String>>,
    /// When the setup's time begins.
    pub(super) origin: Nanos,
    pub(super) end: Nanos,
    pub(super) bucket: Nanos,
    pub(super) bucket_began: Nanos,
    pub(super) pulls: Vec<Pull>,
    /// Pulls of each host that are not over.
    pub(super) open: BTreeMap<usize, BTreeSet<usize>>,
    pub(super) requests: BTreeMap<RequestId, usize>,
    pub(super) last_request: u64,
    pub(super) spreads: Vec<Spread>,
    pub(super) spread_of: BTreeMap<Digest, usize>,
    /// What is counted for every system alike.
    pub(super) account: Option<Account>,
    /// Records that came to nodes that did not know them.
    pub(super) deliveries: u64,
    /// Measured, and not given to anybody yet.
    pub(super) measured: Vec<Measurement>,
}

/// How one publication gets about.
pub(super) struct Spread {
    artifact: usize,
    published: Nanos,
    /// Whoever could be reached when it was published.
    audience: Bits,
    /// When each of them knew, ascending.
    known: Vec<Nanos>,
    knows: Bits,
}

impl World {
    /// Seconds since the setup's time began.
    pub(super) fn seconds(&self, at: Nanos) -> f64 {
        seconds(at.saturating_sub(self.course.origin))
    }

    /// An artifact is published at a host: from now on it is watched who knows of it. Nobody is asked twice.
    pub(super) fn watch(&mut self, artifact: usize, host: usize) {
        let manifest = self.content.artifacts()[self.course.artifacts[artifact]].index.manifest;
        if self.course.spread_of.contains_key(&manifest) {
            return;
        }
        let mut audience = Bits::default();
        for other in &self.hosts {
            if other.is_up() && (other.number == host || !self.network.is_severed(host, other.number)) {
                audience.add(other.number);
            }
        }
        self.course.spread_of.insert(manifest, self.course.spreads.len());
        let (known, knows) = (Vec::new(), Bits::default());
        self.course.spreads.push(Spread { artifact, published: self.now, audience, known, knows });
    }

    /// A host's catalog changed.
    pub(super) fn learnt(&mut self, host: usize, change: &Change) {
        if self.course.run.is_none() {
            return;
        }
        self.course.deliveries += 1;
        let Change::Artifact { manifest, place: Some(_), .. } = change else { return };
        let Some(spread) = self.course.spread_of.get(manifest) else { return };
        let spread = &mut self.course.spreads[*spread];
        if spread.audience.has(host) && spread.knows.add(host) {
            spread.known.push(self.now);
        }
    }

    /// Counting begins here.
    pub(super) fn begin_buckets(&mut self) {
        self.network.ledger.take();
        self.network.ledger.total = 0;
        self.course.deliveries = 0;
        self.course.bucket_began = self.now;
        self.at(self.now + self.course.bucket, Occurrence::Bucket);
    }

    pub(super) fn end_bucket(&mut self) {
        self.count_bucket();
        if self.now < self.course.end {
            self.at(self.now + self.course.bucket, Occurrence::Bucket);
        }
    }

    /// Tells what lines and messages came to since the last time.
    pub(super) fn count_bucket(&mut self) {
        let Some(run) = self.course.run.clone() else { return };
        let (began, now) = (self.course.bucket_began, self.now);
        if now <= began {
            return;
        }
        let (from, lasts) = (self.seconds(began), seconds(now - began));
        self.settle_lines();
        let (kinds, lines) = self.network.ledger.take();
        for (kind, costs) in kinds.into_iter().filter(|(_, costs)| costs.messages + costs.dropped > 0) {
            self.course.measured.push(Measurement::Control {
                run: run.clone(),
                message: kind.name().into(),
                from,
                seconds: lasts,
                messages: costs.messages,
                bytes: costs.bytes,
                far: costs.far,
                dropped: costs.dropped,
            });
        }
        let Course { account, measured, origin, .. } = &mut self.course;
        if let Some(account) = account {
            let carried = |site: usize| {
                let (up, down) = self.data.carried(now, site);
                Carried { up, down, control: lines[site] }
            };
            account.close_bucket(now - *origin, carried, measured);
        }
        self.course.bucket_began = now;
        let staleness = self.staleness(run);
        self.course.measured.push(staleness);
    }

    /// How far catalogs are apart now.
    fn staleness(&self, run: RunId) -> Measurement {
        let catalogs =
            || self.hosts.iter().filter_map(|host| host.replica()).map(|replica| replica.catalog());
        let best = catalogs().max_by_key(|catalog| catalog.len());
        let everything = best.map(|catalog| catalog.sum(Within::Mesh, 0..=u128::MAX));
        let behind =
            catalogs().filter(|catalog| Some(catalog.sum(Within::Mesh, 0..=u128::MAX)) != everything);
        Measurement::Staleness {
            run,
            at: self.seconds(self.now),
            behind: behind.count() as u64,
            nodes: catalogs().count() as u64,
            records: best.map_or(0, |catalog| catalog.len() as u64),
        }
    }

    /// Tells all that is known only in the end.
    pub(super) fn conclude(&mut self, setup: &Setup) {
        let Some(run) = self.course.run.clone() else { return };
        self.count_bucket();
        let mut told: Vec<Measurement> =
            self.course.spreads.iter().map(|spread| self.spread_measured(spread, &run)).collect();
        let between = self.data.all_between(self.now, |host| self.network.site(host));
        if let Some(mut account) = self.course.account.take() {
            between.iter().for_each(|((from, to), bytes)| account.moved(*from, *to, *bytes));
            account.end(setup, &mut told);
        }
        let figure = |name: &str, value: f64| Measurement::Figure {
            run: run.clone(),
            name: name.into(),
            value: Some(value),
            text: None,
        };
        let asked = self.course.pulls.len();
        let done = self.course.pulls.iter().filter(|pull| pull.done).count();
        told.push(figure("occurrences", self.occurrences as f64));
        told.push(figure("availability", if asked == 0 { 1.0 } else { done as f64 / asked as f64 }));
        if self.course.deliveries > 0 {
            let bytes = self.network.ledger.total as f64 / self.course.deliveries as f64;
            told.push(figure("bytes per record", bytes));
        }
        told.push(figure("bytes sent by publishers", self.sent_by_publishers() as f64));
        let hash = Some(self.trace.hash());
        told.push(Measurement::Figure { run: run.clone(), name: "trace".into(), value: None, text: hash });
        told.extend(self.checks.violations().iter().map(|violation| Measurement::Violation {
            run: run.clone(),
            checker: violation.promise.into(),
            at: self.seconds(violation.at * crate::setup::MILLISECOND),
            text: format!("host {}: {}", violation.host, violation.text),
        }));
        self.course.measured.extend(told);
    }

    fn spread_measured(&self, spread: &Spread, run: &RunId) -> Measurement {
        let all = spread.audience.count();
        let until = |count: usize| {
            let at = spread.known.get(count.max(1) - 1)?;
            Some(seconds(at - spread.published))
        };
        let still = |host: &usize| self.hosts[*host].is_up() && spread.audience.has(*host);
        let missed = (0..self.hosts.len()).filter(still).filter(|host| !spread.knows.has(*host)).count();
        Measurement::Spread {
            run: run.clone(),
            artifact: spread.artifact as u64,
            published: self.seconds(spread.published),
            half: until(all.div_ceil(2)),
            most: until((all * 99).div_ceil(100)),
            all: until(all),
            missed: missed as u64,
        }
    }

    /// Bytes of blobs that nodes sent at which something was published or which had something from the start.
    fn sent_by_publishers(&self) -> u64 {
        let publishers = self.course.actions.iter().filter_map(|(_, action)| match action {
            Action::Publish { at, .. } | Action::Seed { at, .. } => self.ground.number(*at),
            _ => None,
        });
        let publishers: BTreeSet<usize> = publishers.collect();
        publishers.into_iter().map(|host| self.data.sent(self.now, host)).sum()
    }
}
