//! What clients do in a run, step by step: drawn from the seed before the run begins, each step from a stream of
//! its own, so that one can be left out and the others stay as they are. Carrying steps out is the workload's.

use serde::{Deserialize, Serialize};
use waystation_proto::{RepoName, Tag, body::State};

use crate::{
    Options,
    random::{around, stream},
};

/// Something that a client does. `of` is the number of the step that made the artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// Pushes a new artifact.
    Publish {
        /// At which host.
        host: usize,
        /// Into which repository.
        repository: String,
        /// To be pointed at it.
        tags: Vec<String>,
        /// Its layers, by number; equal numbers are equal bytes.
        layers: Vec<u64>,
    },
    /// Pushes an artifact that was pushed before.
    Again {
        /// At which host.
        host: usize,
        /// Which.
        of: u64,
        /// To be pointed at it.
        tags: Vec<String>,
    },
    /// Deletes a tag.
    Untag {
        /// At which host.
        host: usize,
        /// Of which repository.
        repository: String,
        /// Which.
        tag: String,
    },
    /// Takes an artifact out of its repository.
    Unpublish {
        /// At which host.
        host: usize,
        /// Which.
        of: u64,
    },
    /// Says what state an artifact is in.
    Status {
        /// At which host.
        host: usize,
        /// Which.
        of: u64,
        /// Its state.
        state: StepState,
    },
    /// Asks for an artifact.
    Pull {
        /// At which host.
        host: usize,
        /// Which.
        of: u64,
        /// Whether its layers are to come too.
        closure: bool,
    },
    /// Asks for one layer of an artifact.
    PullBlob {
        /// At which host.
        host: usize,
        /// Which.
        of: u64,
        /// Which layer, counted around.
        layer: u64,
    },
    /// Does not wait any more for what was asked in a step.
    Abandon {
        /// Which step.
        of: u64,
    },
    /// Pins an artifact, or does not keep it pinned.
    Pin {
        /// At which host.
        host: usize,
        /// Which.
        of: u64,
        /// Whether it is to stay.
        pinned: bool,
    },
}

/// The states that steps give artifacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// See [`State::Validating`].
    Validating,
    /// See [`State::Approved`].
    Approved,
    /// See [`State::Revoked`].
    Revoked,
}

impl From<StepState> for State {
    fn from(state: StepState) -> State {
        match state {
            StepState::Validating => State::Validating,
            StepState::Approved => State::Approved,
            StepState::Revoked => State::Revoked,
        }
    }
}

impl Step {
    /// The host at which it is done; none for one that only gives up waiting.
    pub fn host(&self) -> Option<usize> {
        match self {
            Step::Abandon { .. } => None,
            Step::Publish { host, .. }
            | Step::Again { host, .. }
            | Step::Untag { host, .. }
            | Step::Unpublish { host, .. }
            | Step::Status { host, .. }
            | Step::Pull { host, .. }
            | Step::PullBlob { host, .. }
            | Step::Pin { host, .. } => Some(*host),
        }
    }

    /// Whether repositories and tags in it have names that may be.
    pub fn is_named_well(&self) -> bool {
        let repository = |name: &str| name.parse::<RepoName>().is_ok();
        let all = |tags: &[String]| tags.iter().all(|name| name.parse::<Tag>().is_ok());
        match self {
            Step::Publish { repository: name, tags, .. } => repository(name) && all(tags),
            Step::Again { tags, .. } => all(tags),
            Step::Untag { repository: name, tag, .. } => repository(name) && all(std::slice::from_ref(tag)),
            _ => true,
        }
    }
}

/// What clients do in a run, with its time and number, in the order of time; numbers begin at `first`.
pub fn schedule(options: &Options, first: u64) -> Vec<(u64, u64, Step)> {
    let mut drawn = Drawn { options, next: first, made: Vec::new(), asked: Vec::new(), steps: Vec::new() };
    if options.work_every_ms > 0 {
        let mut rng = stream(options.seed, 0, "steps");
        let mut at = GRANTED_MS;
        while at < options.faults_ms {
            drawn.moment(at, &mut stream(options.seed, drawn.next as usize, "step"));
            at += around(&mut rng, options.work_every_ms);
        }
    }
    if options.crowd_every_ms > 0 {
        drawn.crowds();
    }
    drawn.steps.sort_by_key(|(at, number, _)| (*at, *number));
    drawn.steps
}

struct Drawn<'a> {
    options: &'a Options,
    next: u64,
    /// When and by which step artifacts were made.
    made: Vec<(u64, u64)>,
    /// Steps that ask for blobs.
    asked: Vec<u64>,
    steps: Vec<(u64, u64, Step)>,
}

impl Drawn<'_> {
    /// What happens at one time: mostly one step, sometimes several at once that meet in the mesh.
    fn moment(&mut self, at: u64, rng: &mut fastrand::Rng) {
        let (nodes, granted) = (self.options.nodes, self.options.granted);
        let anywhere = rng.usize(0..nodes);
        let writer = if rng.u8(0..20) == 0 { anywhere } else { rng.usize(0..granted.clamp(1, nodes)) };
        let of = rng.choice(&self.made).map(|(_, number)| *number);
        let quota = self.options.quota > 0;
        match (rng.u8(0..100), of) {
            (25..40, _) => {
                let tag = tag(rng);
                (0..granted).for_each(|host| self.publish(at, host, vec![tag.clone()], rng));
            }
            (40..48, _) => {
                self.add(at, Step::Untag { host: writer, repository: repository(rng), tag: tag(rng) })
            }
            (48..52, Some(of)) => self.add(at, Step::Unpublish { host: writer, of }),
            (52..60, Some(of)) if quota && rng.bool() => {
                self.add(at, Step::Pin { host: anywhere, of, pinned: rng.u8(0..3) > 0 });
            }
            (52..60, Some(of)) => {
                let states = [StepState::Validating, StepState::Approved, StepState::Revoked];
                let state = states[rng.usize(0..3)];
                self.add(at, Step::Status { host: writer, of, state });
            }
            (60..82, Some(of)) => self.ask(at, Step::Pull { host: anywhere, of, closure: rng.bool() }),
            (82..94, Some(of)) => self.ask(at, Step::PullBlob { host: anywhere, of, layer: rng.u64(0..3) }),
            (94.., _) => {
                if let Some(of) = rng.choice(self.asked.iter().rev().take(8)).copied() {
                    self.add(at, Step::Abandon { of });
                }
            }
            _ => {
                let tags = (0..rng.usize(0..3)).map(|_| tag(rng)).collect();
                self.publish(at, writer, tags, rng);
            }
        }
    }

    fn publish(&mut self, at: u64, host: usize, tags: Vec<String>, rng: &mut fastrand::Rng) {
        let old = rng.choice(&self.made).map(|(_, number)| *number).filter(|_| rng.u8(0..3) == 0);
        if let Some(of) = old {
            self.add(at, Step::Again { host, of, tags });
            return;
        }
        self.made.push((at, self.next));
        let layers = (0..rng.usize(1..4)).map(|_| rng.u64(0..LAYERS)).collect();
        self.add(at, Step::Publish { host, repository: repository(rng), tags, layers });
    }

    /// Everybody wants the same, within a second.
    fn crowds(&mut self) {
        let mut rng = stream(self.options.seed, 0, "crowds");
        let mut at = GRANTED_MS + around(&mut rng, self.options.crowd_every_ms);
        while at < self.options.faults_ms {
            let there: Vec<u64> =
                self.made.iter().filter(|(made, _)| *made < at).map(|(_, number)| *number).collect();
            if let Some(of) = rng.choice(there.iter().rev().take(4)).copied() {
                for host in 0..self.options.nodes {
                    self.ask(at + rng.u64(0..1_000), Step::Pull { host, of, closure: true });
                }
            }
            at += around(&mut rng, self.options.crowd_every_ms);
        }
    }

    fn ask(&mut self, at: u64, step: Step) {
        self.asked.push(self.next);
        self.add(at, step);
    }

    fn add(&mut self, at: u64, step: Step) {
        self.steps.push((at, self.next, step));
        self.next += 1;
    }
}

/// One of the repositories that clients use.
pub fn repository(rng: &mut fastrand::Rng) -> String {
    ["team/app", "team/tools", "base/os"][rng.usize(0..3)].to_owned()
}

/// One of the tags that clients use.
pub fn tag(rng: &mut fastrand::Rng) -> String {
    ["latest", "stable", "v1", "v2"][rng.usize(0..4)].to_owned()
}

/// How large a layer is that is known by its number, in bytes.
pub fn layer_size(number: u64) -> u64 {
    if number.is_multiple_of(8) { 50_000_000 } else { 1 + number * 3_000 }
}

/// Different layers that artifacts are made of: few, so that they share some.
pub const LAYERS: u64 = 40;
/// Until when the grants have been given out, and clients begin.
const GRANTED_MS: u64 = 3_000;
