//! Carrying out a setup: its actions at their times, and everything that is measured meanwhile.

use std::collections::BTreeSet;

use waystation_proto::{Input, RepoName, RequestId, Tag};

use super::{Occurrence, World, observe::Course, pulls::CLIENT_REQUESTS, upstream::Upstream};
use crate::{
    Options,
    account::Account,
    content::Content,
    faults::DiskAfter,
    gossip::Params,
    ground::Ground,
    measure::{RunId, Sink},
    network::Cut,
    setup::{Action, DiskState, MILLISECOND, Nanos, SECOND, Setup, Start},
    trace::Reader,
};

/// How a setup is carried out.
#[derive(Clone, Debug)]
pub struct How {
    /// In every measurement.
    pub run: RunId,
    /// Where the setup's numbers come from, for people.
    pub source: String,
    /// How gossip behaves.
    pub gossip: Params,
    /// Whether every occurrence goes to standard error.
    pub print: bool,
    /// Whether every occurrence is checked, and not one of 64; to check costs more than to simulate.
    pub thorough: bool,
}

/// How a setup went. All else is in its measurements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Hash over everything that happened.
    pub trace: String,
    /// How many things happened.
    pub occurrences: u64,
    /// Pulls that were asked for.
    pub asked: usize,
    /// Pulls that were done.
    pub done: usize,
    /// How often a client was told that something cannot be had now.
    pub refused: u32,
    /// Promises that were broken, as far as they were noted.
    pub violations: usize,
}

impl How {
    /// As a plain run is: warm, with gossip as the node sets it.
    pub fn plain(run: RunId) -> Self {
        let (source, gossip) = (String::new(), Params::default());
        How { run, source, gossip, print: false, thorough: false }
    }
}

impl World {
    /// Carries out a setup with the replicas that ship. All measurements of the run go to the sink, as they are
    /// made. `progress` hears now and then how far it is, in the setup's time, and how many things happened.
    pub fn carry_out(
        setup: &Setup,
        how: &How,
        sink: &mut dyn Sink,
        progress: &mut dyn FnMut(Nanos, u64),
    ) -> Summary {
        let mut world = World::of_setup(setup, how);
        let origin = world.course.origin;
        let account = Account::begin(setup, how.run.clone(), &how.source, &mut world.course.measured);
        world.course.account = Some(account);
        world.run_to(origin);
        world.begin_buckets();
        while world.now < world.course.end {
            let next = (world.now + PROGRESS_EVERY).min(world.course.end);
            world.run_to(next);
            world.course.measured.drain(..).for_each(|measurement| sink.take(measurement));
            progress(world.now - origin, world.occurrences);
        }
        world.conclude(setup);
        world.course.measured.drain(..).for_each(|measurement| sink.take(measurement));
        Summary {
            trace: world.trace.hash(),
            occurrences: world.occurrences,
            asked: world.course.pulls.len(),
            done: world.course.pulls.iter().filter(|pull| pull.done).count(),
            refused: world.course.pulls.iter().map(|pull| pull.refusals).sum(),
            violations: world.checks.violations().len(),
        }
    }

    /// A world in which a setup is about to be carried out.
    pub fn of_setup(setup: &Setup, how: &How) -> Self {
        let ground = Ground::of_setup(setup);
        let options = Options { granted: 0, ..Options::calm(setup.seed, ground.hosts()) };
        let mut world = World::on(ground, options, how.print.then(Reader::of_all));
        world.gossip.params = how.gossip;
        world.thorough = how.thorough;
        let warm = setup.start == Start::Warm;
        let origin = if warm { WARM_UP } else { 0 };
        world.course = Course {
            run: Some(how.run.clone()),
            actions: setup.actions.clone(),
            artifacts: contents(&mut world.content, setup),
            tags: setup.artifacts.iter().map(|artifact| artifact.tags.clone()).collect(),
            origin,
            end: origin + setup.end,
            bucket: setup.bucket.max(1),
            ..Course::default()
        };
        let joins = setup.actions.iter().filter_map(|(_, action)| match action {
            Action::Join { at } => world.ground.number(*at),
            _ => None,
        });
        world.upstream = Upstream::of(setup, |place| world.ground.number(place));
        let outside = (0..world.hosts.len()).filter(|host| world.upstream.is(*host));
        let later: BTreeSet<usize> = joins.chain(outside).collect();
        world.prepare(&setup.artifacts, &later, warm);
        for host in (0..world.hosts.len()).filter(|host| !later.contains(host)) {
            let at = if warm { world.rng.u64(0..SECOND) } else { 0 };
            world.at(at, Occurrence::Starts(host));
        }
        for (number, (at, _)) in setup.actions.iter().enumerate() {
            world.at(origin + at, Occurrence::Action(number));
        }
        world
    }

    pub(super) fn act(&mut self, number: usize) {
        let (_, action) = self.course.actions[number].clone();
        let place = match &action {
            Action::Publish { at, .. }
            | Action::Seed { at, .. }
            | Action::Pull { at, .. }
            | Action::Untag { at, .. }
            | Action::Crash { at, .. }
            | Action::Join { at }
            | Action::Lies { at, .. }
            | Action::Disk { at, .. }
            | Action::Rot { at, .. }
            | Action::Clock { at, .. }
            | Action::Remember { at }
            | Action::Stale { at, .. } => Some(*at),
            Action::PowerCut { .. } | Action::Partition { .. } | Action::Line { .. } => None,
        };
        let host = place.and_then(|place| self.ground.number(place));
        let Some(host) = host else {
            if place.is_none() {
                self.act_on_sites(action);
            }
            return;
        };
        self.trace.mark(self.now, host, ACTION, number as u64);
        self.trace.say(self.now, host, || format!("{action:?}"));
        let up = self.hosts[host].is_up();
        match action {
            Action::Publish { artifact, .. } if up => self.publish(artifact, host),
            Action::Pull { artifact, .. } if up => self.pull(artifact, host),
            Action::Untag { artifact, .. } if up => self.untag(artifact, host),
            Action::Crash { down, loses_disk, silent, .. } if up => {
                self.crash(host, down, silent);
                if loses_disk {
                    self.hosts[host].disk.wipe();
                    self.own_words.remove(&host);
                    self.completed.retain(|(who, _)| *who != host);
                }
            }
            Action::Join { .. } if !up => self.start(host),
            Action::Lies { every, .. } => {
                self.hosts[host].lies = true;
                self.hosts[host].lies_every = every.max(1);
            }
            Action::Disk { state, .. } => {
                self.hosts[host].disk.set_full(self.now, state == DiskState::Full);
                self.hosts[host].disk.set_slow(state == DiskState::Slow);
            }
            Action::Remember { .. } => self.put_aside(host),
            Action::Stale { down, .. } if up => {
                self.crash_with(host, down / MILLISECOND, true, DiskAfter::Old);
            }
            Action::Rot { artifact, .. } => self.rot(artifact, host),
            Action::Clock { seconds, .. } => self.hosts[host].set_clock(seconds),
            // Asked of a node that is down, or so from the start.
            _ => {}
        }
    }

    fn act_on_sites(&mut self, action: Action) {
        self.trace.note(self.now, 0, format_args!("{action:?}"));
        match action {
            Action::PowerCut { site, down } => {
                for host in 0..self.hosts.len() {
                    if self.ground.places[host].site == site {
                        self.crash(host, Some(down), true);
                    }
                }
            }
            Action::Partition { sites, both, lasts } => {
                let inside = |host: &usize| sites.contains(&self.ground.places[*host].site);
                let (from, to): (BTreeSet<usize>, BTreeSet<usize>) = (0..self.hosts.len()).partition(inside);
                self.cut(Cut { from, to, both }, lasts);
            }
            Action::Line { site, up, down } => {
                self.settle_lines();
                self.network.set_line(self.now, site, up, down);
                self.data.set_line(self.now, site, up, down);
                self.notice_severed();
            }
            _ => {}
        }
    }

    fn publish(&mut self, artifact: usize, host: usize) {
        let content = self.content.artifacts()[self.course.artifacts[artifact]].clone();
        for (hash, size) in content.blobs() {
            if !self.hosts[host].disk.holds(&hash) {
                self.hosts[host].disk.seal(hash, size);
                self.tell(host, Input::Sealed { hash });
            }
        }
        self.watch(artifact, host);
        let tags = tags_of(&self.course.tags[artifact]);
        let request = self.operator_request();
        self.tell(
            host,
            Input::Publish {
                request,
                repository: content.repository,
                tags,
                index: content.index,
                index_hash: content.index_hash,
                index_size: content.index_size,
            },
        );
    }

    fn untag(&mut self, artifact: usize, host: usize) {
        let repository = self.content.artifacts()[self.course.artifacts[artifact]].repository.clone();
        let Some(tag) = tags_of(&self.course.tags[artifact]).into_iter().next() else { return };
        let request = self.operator_request();
        self.tell(host, Input::Untag { request, repository, tag });
    }

    fn rot(&mut self, artifact: usize, host: usize) {
        let content = &self.content.artifacts()[self.course.artifacts[artifact]];
        let first = content.index.closure().map(|(_, hash)| hash).next();
        if let Some(hash) = first.filter(|hash| self.hosts[host].disk.holds(hash)) {
            self.data.rot(host, hash);
            self.scrub_later(host);
        }
    }

    fn operator_request(&mut self) -> RequestId {
        self.course.last_request += 1;
        RequestId(CLIENT_REQUESTS + self.course.last_request)
    }
}

/// Makes the artifacts of a setup exist; their numbers there.
fn contents(content: &mut Content, setup: &Setup) -> Vec<usize> {
    let artifacts = setup.artifacts.iter().map(|artifact| {
        let layers: Vec<_> =
            artifact.layers.iter().map(|layer| content.blob(&layer.content, layer.bytes)).collect();
        // What is no name of a repository cannot be published; it is one like any other here.
        let repository = artifact.repository.parse::<RepoName>();
        let repository = repository.unwrap_or_else(|_| "unnamed".parse().expect("a repository's name"));
        content.artifact(&repository, &layers)
    });
    artifacts.collect()
}

fn tags_of(names: &[String]) -> Vec<Tag> {
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

/// How long nodes that know one another have for their sessions before the setup's time begins.
const WARM_UP: Nanos = 30 * SECOND;
/// How often it is told how far it is.
const PROGRESS_EVERY: Nanos = SECOND;
/// In the trace: an action, by number.
const ACTION: u8 = 200;
