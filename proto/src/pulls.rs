//! Content that only an upstream pairs with bytes: whether a member has it or is pulling it, and otherwise that
//! this node does, so that the mesh downloads it once. There is no leader: whoever wants something asks all
//! members with a session first; of two that ask one another at once, the one with the higher rank for that
//! content goes on. Downloading is the driver's, transfers between members are [`crate::wants`]' business.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};

use crate::{
    event::{Event, Output, Proof, PullFailure, RequestId, Source, Timer, WantFailure},
    id::{Digest, Hash, NodeId, RepoName},
    time::{Span, Time},
    wants::{Order, Waiter, Wants},
    wire::{Answer, Message, Standing},
};

/// Everything that is being pulled or looked for, one entry however many wait for it.
#[derive(Debug, Default)]
pub struct Pulls {
    pulls: BTreeMap<Source, Pull>,
    /// Members that did not answer in time when last asked: they are not waited for as long.
    slow: BTreeSet<NodeId>,
    /// When the timer will fire, if it is set.
    timer: Option<Time>,
}

/// What pulls need of the rest of the replica at each step.
pub struct Means<'a> {
    /// The moment.
    pub now: Time,
    /// This node.
    pub me: NodeId,
    /// Members with a session.
    pub sessions: Vec<NodeId>,
    /// Those of them on this node's site.
    pub near: BTreeSet<NodeId>,
    /// Hashes of complete, durable blobs.
    pub held: &'a BTreeSet<Hash>,
    /// Where blobs are ordered.
    pub wants: &'a mut Wants,
    /// Artifacts of which a holder without a session is being dialled and may answer.
    pub coming: Vec<Digest>,
}

/// What a client wants.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What.
    pub source: Source,
    /// Its size in bytes, where a manifest told.
    pub size: Option<u64>,
    /// An artifact that it is part of.
    pub manifest: Option<Digest>,
    /// Whether it is a manifest itself.
    pub is_manifest: bool,
    /// Whether the upstream cannot be reached.
    pub away: bool,
}

#[derive(Debug)]
struct Pull {
    size: Option<u64>,
    manifest: Option<Digest>,
    is_manifest: bool,
    /// Why the upstream is of no use now.
    away: Option<String>,
    waiters: BTreeSet<RequestId>,
    /// Members that are told how it ended.
    curious: BTreeSet<NodeId>,
    /// Members that are not asked any more: they lied, or nothing came of what they said.
    passed_over: BTreeSet<NodeId>,
    /// When members were first asked.
    since: Time,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Members have been asked; these have not answered.
    Asking { open: BTreeSet<NodeId>, until: Time },
    /// This member is pulling it, and has to say so again; at `end` it has had time enough.
    Following { whom: NodeId, ask: Time, until: Time, end: Time },
    /// It is fetched from members that say to have it under this hash.
    Fetching { hash: Hash, size: u64, from: BTreeSet<NodeId> },
    /// It is here, and its digest is computed.
    Proving { size: u64, from: BTreeSet<NodeId> },
    /// It is downloaded from the upstream.
    Pulling,
}

impl Pulls {
    /// Adds a waiter.
    pub fn want(&mut self, means: &mut Means<'_>, request: RequestId, wanted: Wanted, out: &mut Vec<Output>) {
        let Wanted { source, size, manifest, is_manifest, away } = wanted;
        let away = away.then(|| String::from("the upstream cannot be reached, and no member has it"));
        if let Some(pull) = self.pulls.get_mut(&source) {
            pull.waiters.insert(request);
            pull.away = away;
            return;
        }
        if self.pulls.len() >= PULLS_MAX {
            let full = WantFailure::Storage("too much is being pulled at once; try again later".into());
            out.push(done(request, Err(full)));
            return;
        }
        let pull = Pull {
            size,
            manifest,
            is_manifest,
            away,
            waiters: [request].into(),
            curious: BTreeSet::new(),
            passed_over: BTreeSet::new(),
            since: means.now,
            stage: Stage::Pulling,
        };
        self.pulls.insert(source.clone(), pull);
        self.begin(means, &source, out);
    }

    /// A client stopped waiting. What is on its way comes all the same.
    pub fn abandon(&mut self, request: RequestId) {
        self.pulls.retain(|_, pull| {
            let waited = pull.waiters.remove(&request);
            let begun = !matches!(pull.stage, Stage::Asking { .. } | Stage::Following { .. });
            !waited || begun || !pull.waiters.is_empty()
        });
    }

    /// A member asks. What this node is not itself about to pull, the driver looks up.
    pub fn asked(
        &mut self,
        me: NodeId,
        from: NodeId,
        repository: RepoName,
        digests: Vec<Digest>,
        out: &mut Vec<Output>,
    ) {
        let (mut answers, mut others) = (Vec::new(), Vec::new());
        for digest in digests {
            if self.goes_on(&me, &from, &repository, digest) {
                answers.push(Answer { digest, state: Standing::Pulling });
            } else {
                others.push(digest);
            }
        }
        tell(from, &repository, answers, out);
        if !others.is_empty() {
            out.push(Output::LookUp { to: from, repository, digests: others });
        }
    }

    /// What a member asked for was looked up. Meanwhile this node may have begun to pull it.
    pub fn looked_up(
        &mut self,
        me: NodeId,
        to: NodeId,
        repository: &RepoName,
        mut answers: Vec<Answer>,
        out: &mut Vec<Output>,
    ) {
        for answer in answers.iter_mut().filter(|answer| answer.state == Standing::Absent) {
            if self.goes_on(&me, &to, repository, answer.digest) {
                answer.state = Standing::Pulling;
            }
        }
        tell(to, repository, answers, out);
    }

    /// A member answered.
    pub fn told(
        &mut self,
        means: &mut Means<'_>,
        from: NodeId,
        repository: &RepoName,
        answers: Vec<Answer>,
        out: &mut Vec<Output>,
    ) {
        self.slow.remove(&from);
        for Answer { digest, state } in answers {
            self.told_one(means, from, Source { repository: repository.clone(), digest }, state, out);
        }
    }

    /// A session came up: whoever is looked for may be there.
    pub fn peer_up(&mut self, peer: NodeId, out: &mut Vec<Output>) {
        for (source, pull) in &mut self.pulls {
            if let Stage::Asking { open, .. } = &mut pull.stage
                && !pull.passed_over.contains(&peer)
                && open.insert(peer)
            {
                ask(peer, source, out);
            }
        }
    }

    /// A session ended.
    pub fn peer_down(&mut self, means: &mut Means<'_>, peer: &NodeId, out: &mut Vec<Output>) {
        self.slow.remove(peer);
        let sources: Vec<Source> = self.pulls.keys().cloned().collect();
        for source in sources {
            let Some(pull) = self.pulls.get_mut(&source) else { continue };
            let follows = matches!(&pull.stage, Stage::Following { whom, .. } if whom == peer);
            let last = match &mut pull.stage {
                Stage::Asking { open, .. } => open.remove(peer) && open.is_empty(),
                _ => false,
            };
            if last {
                self.nobody(means, &source, out);
            } else if follows {
                self.begin(means, &source, out);
            }
        }
    }

    /// The want of a blob that a member said to have ended.
    pub fn fetched(
        &mut self,
        means: &mut Means<'_>,
        digest: &Digest,
        ended: (Hash, &Result<(), WantFailure>),
        out: &mut Vec<Output>,
    ) {
        let of_blob = self.pulls.iter().filter(|(source, pull)| {
            source.digest == *digest && matches!(pull.stage, Stage::Fetching { hash, .. } if hash == ended.0)
        });
        let sources: Vec<Source> = of_blob.map(|(source, _)| source.clone()).collect();
        for source in sources {
            let Some(pull) = self.pulls.get_mut(&source) else { continue };
            let Stage::Fetching { hash, size, from } = &mut pull.stage else { continue };
            let (hash, size, from) = (*hash, *size, core::mem::take(from));
            match ended.1 {
                Ok(()) => {
                    pull.stage = Stage::Proving { size, from };
                    out.push(Output::Prove { source, hash, size });
                }
                // Also where the disk has no room: for what a member said, which need not be true.
                Err(_) => {
                    pull.passed_over.extend(from);
                    self.begin(means, &source, out);
                }
            }
        }
    }

    /// The digest of what was fetched has been computed.
    pub fn proved(
        &mut self,
        means: &mut Means<'_>,
        source: &Source,
        hash: Hash,
        proof: Proof,
        out: &mut Vec<Output>,
    ) {
        let Some(pull) = self.pulls.get_mut(source) else { return };
        let Stage::Proving { size, from } = &mut pull.stage else { return };
        let (size, from) = (*size, core::mem::take(from));
        match proof {
            Proof::Holds => self.end(source, Ok(Standing::Held { hash, size }), out),
            Proof::Storage(why) => self.end(source, Err(WantFailure::Storage(why)), out),
            Proof::Fails => {
                for node in &from {
                    means.wants.lied(means.now, *node, hash, out);
                }
                pull.passed_over.extend(from);
                self.begin(means, source, out);
            }
        }
    }

    /// A download ended.
    pub fn pulled(
        &mut self,
        means: &mut Means<'_>,
        source: &Source,
        result: Result<(Hash, u64), PullFailure>,
        out: &mut Vec<Output>,
    ) {
        let Some(pull) = self.pulls.get_mut(source) else { return };
        match result {
            Ok((hash, size)) => self.end(source, Ok(Standing::Held { hash, size }), out),
            Err(PullFailure::Unknown) => self.end(source, Err(WantFailure::Unknown), out),
            Err(PullFailure::Wrong(why)) => self.end(source, Err(WantFailure::Upstream(why)), out),
            Err(PullFailure::Storage(why)) => self.end(source, Err(WantFailure::Storage(why)), out),
            Err(PullFailure::Away(why)) => {
                // Somebody may have got it in the meantime, or may reach the upstream from elsewhere.
                pull.away = Some(why);
                pull.since = means.now;
                let curious = core::mem::take(&mut pull.curious);
                for member in curious {
                    let absent = Answer { digest: source.digest, state: Standing::Absent };
                    tell(member, &source.repository, alloc::vec![absent], out);
                }
                self.begin(means, source, out);
            }
        }
    }

    /// Goes on where members did not answer in time.
    pub fn tick(&mut self, means: &mut Means<'_>, out: &mut Vec<Output>) {
        self.timer = None;
        let sources: Vec<Source> = self.pulls.keys().cloned().collect();
        for source in sources {
            let Some(pull) = self.pulls.get_mut(&source) else { continue };
            let may_come = pull.may_come(&source, &means.coming);
            match &mut pull.stage {
                Stage::Asking { until, .. } if *until <= means.now && may_come => {
                    *until = means.now + COMING_AGAIN;
                }
                Stage::Asking { open, until } if *until <= means.now => {
                    self.slow.append(open);
                    match pull.away.clone() {
                        Some(why) => self.end(&source, Err(WantFailure::Upstream(why)), out),
                        None => self.pull(&source, out),
                    }
                }
                Stage::Following { whom, until, end, .. } if (*until).min(*end) <= means.now => {
                    pull.passed_over.insert(*whom);
                    self.begin(means, &source, out);
                }
                Stage::Following { whom, ask: again, .. } if *again <= means.now => {
                    *again = means.now + ASK_AGAIN;
                    ask(*whom, &source, out);
                }
                _ => {}
            }
        }
    }

    /// Sets the timer for what is next.
    pub fn arm(&mut self, out: &mut Vec<Output>) {
        let next = self.pulls.values().filter_map(|pull| match &pull.stage {
            Stage::Asking { until, .. } => Some(*until),
            Stage::Following { ask, until, end, .. } => Some(*ask.min(until).min(end)),
            _ => None,
        });
        let Some(next) = next.min() else { return };
        if self.timer.is_none_or(|at| next < at) {
            self.timer = Some(next);
            out.push(Output::SetTimer { at: next, timer: Timer::Pulls });
        }
    }

    /// How much is being pulled or looked for.
    pub fn len(&self) -> usize {
        self.pulls.len()
    }

    /// Whether some are looked for whose upstream cannot be reached.
    pub fn has_away(&self) -> bool {
        self.pulls.values().any(|pull| pull.away.is_some())
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.pulls.is_empty()
    }

    /// Whether this node pulls something, or will before a member that asks for it; that is told then how it
    /// ends. Where both ask one another at once, the rank decides; whoever had the other's answer before it was
    /// asked is first.
    fn goes_on(&mut self, me: &NodeId, other: &NodeId, repository: &RepoName, digest: Digest) -> bool {
        let source = Source { repository: repository.clone(), digest };
        let Some(pull) = self.pulls.get_mut(&source) else { return false };
        let goes_on = match &pull.stage {
            Stage::Pulling => true,
            Stage::Asking { open, .. } => {
                let first = !open.contains(other) || rank(&digest, me) > rank(&digest, other);
                pull.away.is_none() && first
            }
            _ => false,
        };
        if goes_on {
            pull.curious.insert(*other);
        }
        goes_on
    }

    /// Asks every member that is worth it.
    fn begin(&mut self, means: &mut Means<'_>, source: &Source, out: &mut Vec<Output>) {
        let Some(pull) = self.pulls.get_mut(source) else { return };
        let open: BTreeSet<NodeId> =
            means.sessions.iter().filter(|node| !pull.passed_over.contains(node)).copied().collect();
        for node in &open {
            ask(*node, source, out);
        }
        let quick = |node: &NodeId| means.near.contains(node) && !self.slow.contains(node);
        let patience = match pull.away {
            Some(_) => SEARCH_PATIENCE,
            None if open.iter().any(quick) => NEAR_PATIENCE,
            None => ASK_PATIENCE,
        };
        let alone = open.is_empty();
        pull.stage = Stage::Asking { open, until: means.now + patience };
        if alone {
            self.nobody(means, source, out);
        }
    }

    /// Everybody answered, and nobody has it.
    fn nobody(&mut self, means: &Means<'_>, source: &Source, out: &mut Vec<Output>) {
        let Some(pull) = self.pulls.get_mut(source) else { return };
        match pull.away.clone() {
            None => self.pull(source, out),
            // Holders without a session are being dialled.
            Some(_) if means.now.since(pull.since) < SEARCH_PATIENCE => {}
            Some(_) if pull.may_come(source, &means.coming) => {}
            Some(why) => self.end(source, Err(WantFailure::Upstream(why)), out),
        }
    }

    fn pull(&mut self, source: &Source, out: &mut Vec<Output>) {
        if let Some(pull) = self.pulls.get_mut(source) {
            pull.stage = Stage::Pulling;
            let (size, is_manifest) = (pull.size, pull.is_manifest);
            out.push(Output::Pull { source: source.clone(), size, is_manifest });
        }
    }

    fn told_one(
        &mut self,
        means: &mut Means<'_>,
        from: NodeId,
        source: Source,
        state: Standing,
        out: &mut Vec<Output>,
    ) {
        let Some(pull) = self.pulls.get_mut(&source) else { return };
        if pull.passed_over.contains(&from) {
            return;
        }
        if let Stage::Asking { open, until } = &mut pull.stage {
            if !open.remove(&from) {
                return;
            }
            // Who is left may be too far away to be worth a longer wait.
            let quick = |node: &NodeId| means.near.contains(node) && !self.slow.contains(node);
            if pull.away.is_none() && !open.iter().any(quick) {
                *until = (*until).min(means.now + ASK_PATIENCE);
            }
        }
        let (expected, most) = (pull.size, if pull.is_manifest { MANIFEST_MAX } else { BLOB_MAX });
        let fits = |size: u64| size <= most && expected.is_none_or(|expected| expected == size);
        match (&mut pull.stage, state) {
            (
                Stage::Fetching { hash, size, from: others },
                Standing::Held { hash: theirs, size: of_size },
            ) if *hash == theirs && *size == of_size => {
                others.insert(from);
                self.fetch(means, &source, from, theirs, of_size, out);
            }
            (Stage::Asking { .. } | Stage::Following { .. }, Standing::Held { hash, size }) if fits(size) => {
                pull.stage = Stage::Fetching { hash, size, from: [from].into() };
                self.fetch(means, &source, from, hash, size, out);
            }
            (Stage::Following { whom, .. }, _) if *whom != from => {}
            (Stage::Asking { .. }, Standing::Pulling) => {
                let (ask, until) = (means.now + ASK_AGAIN, means.now + FOLLOW_PATIENCE);
                let end = means.now + follow_for(pull.size, pull.is_manifest);
                pull.stage = Stage::Following { whom: from, ask, until, end };
            }
            (Stage::Following { until, .. }, Standing::Pulling) => *until = means.now + FOLLOW_PATIENCE,
            (Stage::Asking { open, .. }, _) if open.is_empty() => self.nobody(means, &source, out),
            (Stage::Following { .. }, _) => {
                pull.passed_over.insert(from);
                self.begin(means, &source, out);
            }
            _ => {}
        }
    }

    fn fetch(
        &mut self,
        means: &mut Means<'_>,
        source: &Source,
        from: NodeId,
        hash: Hash,
        size: u64,
        out: &mut Vec<Output>,
    ) {
        let Some(pull) = self.pulls.get_mut(source) else { return };
        if means.held.contains(&hash) {
            pull.stage = Stage::Proving { size, from: [from].into() };
            out.push(Output::Prove { source: source.clone(), hash, size });
            return;
        }
        let manifest = pull.manifest.unwrap_or(source.digest);
        let waiter = Waiter::Pull(source.digest);
        // Its digest is a claim until it was computed here.
        let order = Order { hash, size, digest: None, manifest, told_by: Some(from), waiter };
        means.wants.want(means.now, order, out);
    }

    fn end(&mut self, source: &Source, result: Result<Standing, WantFailure>, out: &mut Vec<Output>) {
        let Some(pull) = self.pulls.remove(source) else { return };
        let (state, result) = match result {
            Ok(state) => (state, Ok(())),
            Err(failure) => (Standing::Absent, Err(failure)),
        };
        out.extend(pull.waiters.into_iter().map(|request| done(request, result.clone())));
        for member in pull.curious {
            tell(member, &source.repository, alloc::vec![Answer { digest: source.digest, state }], out);
        }
    }
}

impl Pull {
    /// Whether nobody but members is of use, and a holder may soon be one to ask.
    fn may_come(&self, source: &Source, coming: &[Digest]) -> bool {
        self.away.is_some() && coming.contains(&self.manifest.unwrap_or(source.digest))
    }
}

fn ask(to: NodeId, source: &Source, out: &mut Vec<Output>) {
    let (repository, digests) = (source.repository.clone(), alloc::vec![source.digest]);
    out.push(Output::Send { to, message: Message::Ask { repository, digests } });
}

fn tell(to: NodeId, repository: &RepoName, answers: Vec<Answer>, out: &mut Vec<Output>) {
    if !answers.is_empty() {
        let repository = repository.clone();
        out.push(Output::Send { to, message: Message::Tell { repository, answers } });
    }
}

fn done(request: RequestId, result: Result<(), WantFailure>) -> Output {
    Output::Notify(Event::WantDone { request, result })
}

/// How long a member may be pulling something before this node does so itself.
fn follow_for(size: Option<u64>, is_manifest: bool) -> Span {
    let size = size.unwrap_or(if is_manifest { MANIFEST_USUAL } else { BLOB_USUAL }).min(BLOB_MAX);
    Span::secs(FOLLOW_AT_LEAST + size / FOLLOW_RATE)
}

/// Who goes on where two ask one another for one content at once: the same at both.
fn rank(digest: &Digest, node: &NodeId) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(alloc::format!("{digest}").as_bytes());
    hasher.update(&node.0);
    *hasher.finalize().as_bytes()
}

/// How long members may take to answer before the upstream is asked. A member that is further away than that
/// is no nearer than most upstreams.
const ASK_PATIENCE: Span = Span::millis(80);
/// The same for members of this site, which are quick unless they are busy: what they pull is worth a wait.
const NEAR_PATIENCE: Span = Span::millis(400);
/// The same where the upstream cannot be reached: holders without a session are dialled meanwhile.
const SEARCH_PATIENCE: Span = Span::millis(500);
/// How often it is looked whether a holder that is being dialled may still come.
const COMING_AGAIN: Span = Span::millis(100);
/// How often a member that is pulling something is asked how it stands.
const ASK_AGAIN: Span = Span::millis(700);
/// How long it may take to answer.
const FOLLOW_PATIENCE: Span = Span::secs(2);
/// Who pulls slower than so many bytes a second is of no use to others,
const FOLLOW_RATE: u64 = 64 * 1024;
/// after so many seconds at least.
const FOLLOW_AT_LEAST: u64 = 30;
/// Bytes of what nobody told the size of, for how long it may take.
const MANIFEST_USUAL: u64 = 64 * 1024;
const BLOB_USUAL: u64 = 64 << 20;
/// Largest manifest and blob that a member is believed to have, in bytes.
const MANIFEST_MAX: u64 = 16 << 20;
const BLOB_MAX: u64 = 1 << 40;
/// What can be pulled or looked for at a time.
const PULLS_MAX: usize = 4096;
