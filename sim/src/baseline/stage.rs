//! What all baselines stand on: who runs and holds what, which pulls wait for which blobs, and the bytes on their
//! way. A policy says from whom; this file carries it out and tells the account.

use std::collections::{BTreeMap, BTreeSet};

use waystation_topology::Place;

use crate::{
    account::{Account, Carried, PullId},
    flow::{Class, Config, FlowId, Flows, plant::Plant},
    measure::Sink,
    setup::{Action, Nanos, SECOND, Setup},
};

/// Layers of an image that are fetched at once: `max_concurrent_downloads` of containerd.
const LAYERS_AT_ONCE: usize = 3;
/// After how long what broke is tried again.
pub const RETRY: Nanos = SECOND;

/// From whom blobs are taken. Nodes and blobs go by their numbers.
pub trait Policy {
    /// A node is to get a blob that it does not have. It is asked once, until the node restarts.
    fn want(&mut self, stage: &mut Stage<'_>, node: usize, blob: usize);
    /// What was asked for is there.
    fn arrived(&mut self, stage: &mut Stage<'_>, flow: FlowId, transfer: Transfer);
    /// What was asked for will not come: an end of it stopped, or a line. The bytes that came count.
    fn broke(&mut self, stage: &mut Stage<'_>, flow: FlowId, transfer: Transfer);
    /// A time that the policy asked for.
    fn rings(&mut self, stage: &mut Stage<'_>, node: usize, blob: usize);
    /// A node stopped, perhaps with its disk lost. Its transfers have broken already.
    fn stopped(&mut self, stage: &mut Stage<'_>, node: usize, loses_disk: bool);
}

/// Bytes on their way.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// Who sends.
    pub from: usize,
    /// Who receives.
    pub to: usize,
    /// Of which blob.
    pub blob: usize,
    /// Which piece of it, where a policy has pieces.
    pub piece: Option<usize>,
    /// How many.
    pub bytes: u64,
}

/// Everything but the policy.
pub struct Stage<'a> {
    /// The world's clock.
    pub now: Nanos,
    /// What is carried out.
    pub setup: &'a Setup,
    /// The links.
    pub plant: Plant,
    flows: Flows,
    account: Account,
    /// Bytes of each blob.
    sizes: Vec<u64>,
    /// The blobs of each artifact, each once.
    artifacts: Vec<Vec<usize>>,
    /// Whether a node has a blob.
    held: Vec<Vec<bool>>,
    /// Where each blob was published.
    sources: Vec<Vec<usize>>,
    down: Vec<bool>,
    /// Sites whose lines carry nothing.
    dark: Vec<bool>,
    transfers: BTreeMap<FlowId, Transfer>,
    /// Transfers that ended.
    happened: u64,
    timers: BTreeSet<(Nanos, usize, usize)>,
    /// What happens, beside what the setup says: nodes that start again, partitions that end.
    later: BTreeMap<(Nanos, usize), Later>,
    pulls: Vec<Pull>,
    /// Pulls that wait for a blob at a node.
    waiting: BTreeMap<(usize, usize), Vec<usize>>,
    /// Bytes of a blob that came before its transfer broke.
    begun: BTreeMap<(usize, usize), u64>,
}

enum Later {
    Start(usize),
    Mend(Vec<usize>),
}

struct Pull {
    id: PullId,
    artifact: usize,
    node: usize,
    /// Blobs that are yet to be asked for, the next one last.
    next: Vec<usize>,
    /// How many were asked for and are not there.
    open: usize,
}

impl Pull {
    fn is_open(&self) -> bool {
        self.open > 0 || !self.next.is_empty()
    }
}

impl<'a> Stage<'a> {
    /// Before anything happened.
    pub fn new(setup: &'a Setup, account: Account) -> Self {
        let mut flows = Flows::new(Config::default());
        let plant = Plant::of(setup, &mut flows);
        let (sizes, artifacts) = blobs(setup);
        let mut stage = Stage {
            now: 0,
            setup,
            flows,
            account,
            held: vec![vec![false; sizes.len()]; plant.nodes()],
            sources: vec![vec![]; sizes.len()],
            down: vec![false; plant.nodes()],
            dark: vec![false; plant.sites()],
            plant,
            sizes,
            artifacts,
            transfers: BTreeMap::new(),
            happened: 0,
            timers: BTreeSet::new(),
            later: BTreeMap::new(),
            pulls: vec![],
            waiting: BTreeMap::new(),
            begun: BTreeMap::new(),
        };
        for (_, action) in &setup.actions {
            match action {
                Action::Seed { artifact, at } => stage.publish(*artifact, *at),
                Action::Join { at } => stage.each(*at, |stage, node| stage.down[node] = true),
                _ => {}
            }
        }
        stage
    }

    /// Bytes of a blob.
    pub fn bytes(&self, blob: usize) -> u64 {
        self.sizes[blob]
    }

    /// How many blobs there are.
    pub fn blobs(&self) -> usize {
        self.sizes.len()
    }

    /// The blobs of an artifact.
    pub fn artifact(&self, artifact: usize) -> &[usize] {
        &self.artifacts[artifact]
    }

    /// Whether a node has all of a blob.
    pub fn has(&self, node: usize, blob: usize) -> bool {
        self.held[node][blob]
    }

    /// Whether a node waits for a blob.
    pub fn wants(&self, node: usize, blob: usize) -> bool {
        self.waiting.contains_key(&(node, blob))
    }

    /// Whether a node runs.
    pub fn runs(&self, node: usize) -> bool {
        !self.down[node]
    }

    /// Whether two nodes run and can talk.
    pub fn reaches(&self, from: usize, to: usize) -> bool {
        let (here, there) = (self.plant.site(from), self.plant.site(to));
        let lit = here == there || (!self.dark[here] && !self.dark[there]);
        lit && self.runs(from) && self.runs(to) && self.plant.is_open(from, to)
    }

    /// Where a blob was published.
    pub fn sources(&self, blob: usize) -> &[usize] {
        &self.sources[blob]
    }

    /// The node that a node takes a blob from at the origin: one that it reaches, of its own site if there is one;
    /// several share the work.
    pub fn source(&self, node: usize, blob: usize) -> Option<usize> {
        let usable = |source: &usize| *source != node && self.reaches(*source, node);
        let all: Vec<usize> = self.sources[blob].iter().copied().filter(usable).collect();
        let near: Vec<usize> =
            all.iter().copied().filter(|source| self.plant.site(*source) == self.plant.site(node)).collect();
        let these = if near.is_empty() { all } else { near };
        (!these.is_empty()).then(|| these[node % these.len()])
    }

    /// Asks for the rest of a blob.
    pub fn fetch(&mut self, from: usize, to: usize, blob: usize) {
        let rest = self.bytes(blob) - self.begun.get(&(to, blob)).copied().unwrap_or(0);
        let flow = self.ask(Transfer { from, to, blob, piece: None, bytes: rest }, false);
        let first = self.flows.first_byte(flow).unwrap_or(self.now);
        for pull in self.waiting.get(&(to, blob)).into_iter().flatten() {
            self.account.first_byte(first, self.pulls[*pull].id);
        }
    }

    /// Asks for some bytes; `pipelined` if the request was sent ahead of what came before it.
    pub fn ask(&mut self, transfer: Transfer, pipelined: bool) -> FlowId {
        let mut route = self.plant.route(transfer.from, transfer.to);
        if pipelined {
            route.round_trip = 0;
        }
        let flow = self.flows.start(self.now, &route, transfer.bytes, Class::Client);
        self.transfers.insert(flow, transfer);
        flow
    }

    /// Ends a transfer before its time.
    pub fn cancel(&mut self, flow: FlowId) {
        if let Some(transfer) = self.transfers.remove(&flow) {
            let moved = self.flows.cancel(self.now, flow);
            self.count(&transfer, moved);
        }
    }

    /// Calls [`Policy::rings`] after a while.
    pub fn ring(&mut self, after: Nanos, node: usize, blob: usize) {
        self.timers.insert((self.now + after, node, blob));
    }

    /// A node asks for a blob for others. As if a pull of nobody's waited for it.
    pub fn want_for_others(&mut self, node: usize, blob: usize) {
        self.waiting.entry((node, blob)).or_default();
    }

    /// A node has all of a blob: pulls go on.
    pub fn complete(&mut self, policy: &mut dyn Policy, node: usize, blob: usize) {
        self.held[node][blob] = true;
        self.begun.remove(&(node, blob));
        for pull in self.waiting.remove(&(node, blob)).unwrap_or_default() {
            self.account.first_byte(self.now, self.pulls[pull].id);
            self.pulls[pull].open -= 1;
            self.go_on(policy, pull);
        }
    }

    /// Until the end, or until nothing can happen any more.
    pub fn carry_out(
        &mut self,
        policy: &mut dyn Policy,
        sink: &mut dyn Sink,
        progress: &mut dyn FnMut(Nanos, u64),
    ) {
        let setup = self.setup;
        let mut actions = setup.actions.iter().peekable();
        loop {
            let times = [
                self.flows.due(),
                self.timers.first().map(|(at, ..)| *at),
                self.later.first_key_value().map(|((at, _), _)| *at),
                actions.peek().map(|(at, _)| *at),
            ];
            let next = times.into_iter().flatten().min();
            let at = next.unwrap_or(Nanos::MAX).max(self.now).min(self.account.bucket_ends()).min(setup.end);
            self.now = at;
            progress(at, self.happened);
            while let Some((_, action)) = actions.next_if(|(time, _)| *time <= at) {
                self.act(policy, action);
            }
            while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= at) {
                match entry.remove() {
                    Later::Start(node) => self.start(policy, node),
                    Later::Mend(sites) => self.plant.mend(at, &mut self.flows, &sites),
                }
            }
            while let Some((_, node, blob)) = self.timers.first().copied().filter(|(time, ..)| *time <= at) {
                self.timers.pop_first();
                policy.rings(self, node, blob);
            }
            for flow in self.flows.advance(at) {
                self.happened += 1;
                self.arrive(policy, flow);
            }
            let ends = at >= setup.end;
            if ends || at >= self.account.bucket_ends() {
                let (plant, flows) = (&self.plant, &self.flows);
                let carried = |site| {
                    let (up, down) = plant.carried(at, flows, site);
                    Carried { up, down, control: 0 }
                };
                self.account.close_bucket(at, carried, sink);
                if ends || next.is_none() {
                    return;
                }
            }
        }
    }

    /// Counts what is still on its way and ends the account.
    pub fn end(mut self, sink: &mut dyn Sink) {
        for flow in self.transfers.keys().copied().collect::<Vec<_>>() {
            self.cancel(flow);
        }
        self.account.end(self.setup, sink);
    }

    fn arrive(&mut self, policy: &mut dyn Policy, flow: FlowId) {
        // Not there if it was cancelled at this very time.
        let Some(transfer) = self.transfers.remove(&flow) else { return };
        self.count(&transfer, transfer.bytes);
        policy.arrived(self, flow, transfer);
    }

    fn count(&mut self, transfer: &Transfer, bytes: u64) {
        let (from, to) = (self.plant.site(transfer.from), self.plant.site(transfer.to));
        self.account.moved(from, to, bytes);
    }

    fn act(&mut self, policy: &mut dyn Policy, action: &Action) {
        match action {
            Action::Publish { artifact, at } => self.publish(*artifact, *at),
            Action::Pull { artifact, at } => self.pull(policy, *artifact, *at),
            Action::Crash { at, down, loses_disk, silent: _ } => {
                self.each(*at, |stage, node| stage.stop(policy, node, *down, *loses_disk));
            }
            Action::Join { at } => self.each(*at, |stage, node| stage.start(policy, node)),
            Action::PowerCut { site, down } => {
                for node in self.plant.at(*site) {
                    self.stop(policy, node, Some(*down), false);
                }
            }
            Action::Partition { sites, both: _, lasts } => {
                self.plant.cut(self.now, &mut self.flows, sites);
                self.add_later(*lasts, Later::Mend(sites.clone()));
                self.sever(policy);
            }
            Action::Line { site, up, down } => {
                self.plant.set_line(self.now, &mut self.flows, *site, *up, *down);
                self.dark[*site] = *up == 0 || *down == 0;
                self.sever(policy);
            }
            Action::Seed { .. }
            | Action::Untag { .. }
            | Action::Lies { .. }
            | Action::Disk { .. }
            | Action::Rot { .. }
            | Action::Clock { .. }
            | Action::Remember { .. }
            | Action::Stale { .. } => {}
        }
    }

    /// Does something with a node, if there is such a place.
    fn each(&mut self, at: Place, act: impl FnOnce(&mut Self, usize)) {
        if let Some(node) = self.plant.number(at) {
            act(self, node);
        }
    }

    fn publish(&mut self, artifact: usize, at: Place) {
        self.each(at, |stage, node| {
            for blob in stage.artifacts[artifact].clone() {
                stage.held[node][blob] = true;
                if !stage.sources[blob].contains(&node) {
                    stage.sources[blob].push(node);
                }
            }
        });
    }

    fn pull(&mut self, policy: &mut dyn Policy, artifact: usize, at: Place) {
        let Some(node) = self.plant.number(at).filter(|node| self.runs(*node)) else { return };
        let id = self.account.asked(self.now, artifact, at);
        let next = self.artifacts[artifact].iter().rev().copied().collect();
        self.pulls.push(Pull { id, artifact, node, next, open: 0 });
        self.go_on(policy, self.pulls.len() - 1);
    }

    /// Asks for the next layers of a pull, or ends it.
    fn go_on(&mut self, policy: &mut dyn Policy, pull: usize) {
        let node = self.pulls[pull].node;
        while self.pulls[pull].open < LAYERS_AT_ONCE {
            let Some(blob) = self.pulls[pull].next.pop() else { break };
            if self.has(node, blob) {
                self.account.first_byte(self.now, self.pulls[pull].id);
                continue;
            }
            self.pulls[pull].open += 1;
            let asked = self.wants(node, blob);
            self.waiting.entry((node, blob)).or_default().push(pull);
            if !asked {
                policy.want(self, node, blob);
            }
        }
        if !self.pulls[pull].is_open() {
            self.account.done(self.now, self.pulls[pull].id);
        }
    }

    fn stop(&mut self, policy: &mut dyn Policy, node: usize, down: Option<Nanos>, loses_disk: bool) {
        if self.down[node] {
            return;
        }
        self.down[node] = true;
        self.sever(policy);
        if loses_disk {
            self.held[node].fill(false);
            for sources in &mut self.sources {
                sources.retain(|source| *source != node);
            }
            self.begun.retain(|(other, _), _| *other != node);
            self.begin_again(node);
        }
        self.timers.retain(|(_, other, _)| *other != node);
        policy.stopped(self, node, loses_disk);
        if let Some(down) = down {
            self.add_later(down, Later::Start(node));
        }
    }

    /// A node runs again, and its clients ask again for what they did not get.
    fn start(&mut self, policy: &mut dyn Policy, node: usize) {
        self.down[node] = false;
        let wants = self.waiting.range((node, 0)..(node + 1, 0)).map(|((_, blob), _)| *blob);
        for blob in wants.collect::<Vec<_>>() {
            policy.want(self, node, blob);
        }
        for pull in 0..self.pulls.len() {
            if self.pulls[pull].node == node && self.pulls[pull].open == 0 {
                self.go_on(policy, pull);
            }
        }
    }

    /// Pulls at a node whose disk was lost have nothing any more.
    fn begin_again(&mut self, node: usize) {
        self.waiting.retain(|(other, _), _| *other != node);
        for pull in self.pulls.iter_mut().filter(|pull| pull.node == node && pull.is_open()) {
            pull.next = self.artifacts[pull.artifact].iter().rev().copied().collect();
            pull.open = 0;
        }
    }

    /// Breaks what cannot go on.
    fn sever(&mut self, policy: &mut dyn Policy) {
        let broken = self.transfers.iter().filter(|(_, it)| !self.reaches(it.from, it.to));
        for (flow, transfer) in broken.map(|(flow, it)| (*flow, *it)).collect::<Vec<_>>() {
            // Another one's breaking may have ended it.
            if self.transfers.remove(&flow).is_none() {
                continue;
            }
            let moved = self.flows.cancel(self.now, flow);
            self.count(&transfer, moved);
            if transfer.piece.is_none() {
                *self.begun.entry((transfer.to, transfer.blob)).or_default() += moved;
            }
            policy.broke(self, flow, transfer);
        }
    }

    fn add_later(&mut self, after: Nanos, what: Later) {
        let at = self.now.saturating_add(after);
        let number = self.later.range((at, 0)..=(at, usize::MAX)).count();
        self.later.insert((at, number), what);
    }
}

/// The size of each blob, and the blobs of each artifact by number. Equal names are one blob.
fn blobs(setup: &Setup) -> (Vec<u64>, Vec<Vec<usize>>) {
    let (mut sizes, mut numbers) = (vec![], BTreeMap::new());
    let mut artifacts = vec![];
    for artifact in &setup.artifacts {
        let mut blobs = vec![];
        for layer in &artifact.layers {
            let number = *numbers.entry(layer.content.as_str()).or_insert_with(|| {
                sizes.push(layer.bytes);
                sizes.len() - 1
            });
            if !blobs.contains(&number) {
                blobs.push(number);
            }
        }
        artifacts.push(blobs);
    }
    (sizes, artifacts)
}
