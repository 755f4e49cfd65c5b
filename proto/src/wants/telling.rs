//! Saying what of wanted blobs is here and on its way, and hearing the same from others. To whom: to all
//! neighbours and some beyond once, and from then on to those who want the same.

use alloc::{collections::BTreeMap, collections::BTreeSet, vec, vec::Vec};

use super::{
    Flight, Holders, Wants,
    sharing::DISTRUST,
    want::{Stage, Telling, Want},
};
use crate::{
    cells::Cells,
    config::{ReplicaConfig, Sharing},
    event::{FetchId, Output},
    id::{Hash, NodeId},
    time::{Span, Time},
    wire::{Elsewhere, Extent, Message, Progress},
};

/// What is to be sent to whom.
#[derive(Default)]
struct Letters {
    progress: BTreeMap<NodeId, Vec<Progress>>,
    elsewhere: BTreeMap<NodeId, Vec<Elsewhere>>,
}

impl Wants {
    /// A member says how far it is with some blobs.
    pub fn heard(
        &mut self,
        now: Time,
        from: NodeId,
        progress: Vec<Progress>,
        held: &BTreeSet<Hash>,
        world: &impl Holders,
        out: &mut Vec<Output>,
    ) {
        let Some(member) = world.member(&from) else { return };
        let is_getting =
            |one: &Progress| matches!(one.extent, Extent::Partial { .. } | Extent::InCrowd { .. });
        if !member.far && progress.iter().any(is_getting) {
            self.esteem.is_at_work(now, from);
        }
        let mut letters = Letters::default();
        let site = world.site(&from);
        for Progress { hash, extent } in progress {
            if let Some(want) = self.wants.get_mut(&hash) {
                self.stirred.one(hash);
                want.telling.answered(now, &from);
                let patience = self.esteem.patience(now, &from);
                if want.sharers.told(now, (member, site), &want.grid, &extent, patience) {
                    if want.sharers.goes_on(now, &from) {
                        self.esteem.kept_its_word(&from);
                    } else if want.sharers.breaks_its_word(&from, want.progressed) {
                        self.esteem.broke_its_word(now, from);
                    }
                    self.give_way(now, &hash, &from, world, out);
                }
            } else if !matches!(extent, Extent::Whole | Extent::Dropped) {
                // Who has just begun with it waits for an answer.
                letters.add(from, hash, if held.contains(&hash) { Extent::Whole } else { Extent::Dropped });
            }
        }
        letters.send(out);
    }

    /// A neighbour says how far members of other sites are with some blobs.
    pub fn heard_of(&mut self, now: Time, from: &NodeId, told: Vec<Elsewhere>, world: &impl Holders) {
        if world.member(from).is_none_or(|member| member.far) {
            return;
        }
        for Elsewhere { node, progress: Progress { hash, extent } } in told {
            let (Some(want), Some(member)) = (self.wants.get_mut(&hash), world.known(&node)) else {
                continue;
            };
            if member.far && want.sharers.told_of(now, (member, world.site(&node)), &want.grid, &extent) {
                self.stirred.one(hash);
            }
        }
    }

    /// Whether others have to be told something now and then.
    pub fn is_sharing(&self, now: Time) -> bool {
        self.wants
            .values()
            .any(|want| want.sharers.are_getting() || want.telling.settled.is_some_and(|at| at > now))
    }

    /// Tells members what is newly wanted here.
    pub(super) fn announce(
        &mut self,
        now: Time,
        config: &ReplicaConfig,
        world: &impl Holders,
        stirred: &[Hash],
        out: &mut Vec<Output>,
    ) {
        let mut letters = Letters::default();
        let mut sessions = None;
        for hash in stirred {
            let Some(want) = self.wants.get_mut(hash) else { continue };
            if want.telling.settled.is_some() || want.stage != Stage::Fetching {
                continue;
            }
            let members = sessions.get_or_insert_with(|| world.sessions());
            let near = members.iter().filter(|(_, far)| !far).count();
            let crowd = config.sharing == Sharing::Swarm
                && near >= CROWD
                && world.site_nodes().len() > config.site_whole + 1;
            let shared = config.sharing != Sharing::Origin && (want.size >= SHARED_MIN || crowd);
            want.look_up(world);
            let holders = want.possible_holders();
            let has_it = |node: &NodeId| holders.iter().any(|holder| holder.node == *node);
            let could_want = members.iter().any(|(node, far)| *far && !has_it(node));
            let far_too = want.size >= SHARED_FAR_MIN;
            let extent = want.extent(config, &Cells::none(want.grid.count()));
            // Who has no session with other sites hears of them from neighbours, if there are any to hear of.
            let at: BTreeSet<u64> = holders.iter().filter(|h| h.far).map(|h| world.site(&h.node)).collect();
            let through_neighbours = far_too && near > 0 && world.other_sites(at.len() + 1) > at.len();
            let telling = &mut want.telling;
            for (node, far) in members.iter().filter(|(_, far)| shared && (!far || far_too)) {
                letters.add(*node, *hash, extent.clone());
                match far {
                    true if could_want => drop(telling.unanswered_far.insert(*node)),
                    true => {}
                    false => drop(telling.unanswered.insert(*node)),
                }
            }
            telling.crowd = crowd && want.size >= SHARED_MIN;
            if telling.crowd {
                telling.asked = telling.unanswered.iter().copied().collect();
            } else if want.size < SHARED_MIN {
                // Said only so that they know that this node has begun.
                (telling.unanswered, telling.unanswered_far) = Default::default();
            }
            // Nobody has to be waited for where there is nobody.
            let wait = |whom: &BTreeSet<NodeId>, span| if whom.is_empty() { now } else { now + span };
            telling.settled = Some(wait(&telling.unanswered, SETTLE));
            telling.settled_far = match through_neighbours {
                true if telling.unanswered_far.is_empty() => now + SETTLE_FAR,
                _ => wait(&telling.unanswered_far, SETTLE_FAR),
            };
            (want.telling.told, want.telling.told_far) = (now, now);
        }
        letters.send(out);
    }

    /// A member with a new session is told what is wanted here: it may have begun with the same meanwhile.
    pub fn welcome(
        &self,
        config: &ReplicaConfig,
        member: &NodeId,
        world: &impl Holders,
        out: &mut Vec<Output>,
    ) {
        let Some(holder) = world.member(member).filter(|_| config.sharing != Sharing::Origin) else { return };
        let least = if holder.far { SHARED_FAR_MIN } else { SHARED_MIN };
        let mut letters = Letters::default();
        let told = self.wants.iter().filter(|(_, want)| want.telling.settled.is_some() && want.size >= least);
        for (hash, want) in told {
            let coming = coming(want, self.flights.values().filter(|flight| flight.hash == *hash));
            letters.add(*member, *hash, want.extent(config, &coming));
        }
        letters.send(out);
    }

    /// Tells those who want the same what has changed. `stirred` is sorted.
    pub(super) fn tell(
        &mut self,
        now: Time,
        config: &ReplicaConfig,
        stirred: &[Hash],
        out: &mut Vec<Output>,
    ) {
        let mut letters = Letters::default();
        let round = Round::at(now, &self.rounds);
        // All that is new goes in one message to each.
        let is_other = |hash: &Hash| stirred.binary_search(hash).is_err();
        let others = self.wants.iter().filter(|(hash, want)| round.takes(want) && is_other(hash));
        let others: Vec<Hash> = others.map(|(hash, _)| *hash).collect();
        for hash in stirred.iter().chain(&others) {
            let Some(want) = self.wants.get_mut(hash) else { continue };
            if !want.sharers.are_getting() || config.sharing == Sharing::Origin {
                continue;
            }
            let telling = &mut want.telling;
            let near = round.is_due(now, telling, false);
            let far = round.is_due(now, telling, true);
            if near {
                (telling.told, telling.news, telling.parts) = (now, false, 0);
            }
            if far {
                (telling.told_far, telling.news_far) = (now, false);
            }
            let mut told = Vec::new();
            let listening =
                want.sharers.iter_mut().filter(|(_, sharer)| sharer.is_getting() && !sharer.is_hearsay);
            for (node, sharer) in listening {
                let is_new = core::mem::take(&mut sharer.is_new);
                if is_new || if sharer.holder.far { far } else { near } {
                    told.push((*node, sharer.holder.far, is_new));
                }
            }
            if told.is_empty() {
                continue;
            }
            let alive = |flight: &&Flight| {
                flight.hash == *hash && self.esteem.is_sending(now, &flight.from, flight.started)
            };
            let mut coming = coming(want, self.flights.values().filter(alive));
            let extent = want.extent(config, &coming);
            let to_near = want.with_what_is_around(now, &extent);
            // Other sites hear of this site from some of its nodes.
            coming.join(&want.sharers.coming(now, &want.grid, want.progressed));
            coming.join(&want.sharers.around(now, &want.grid, want.progressed));
            let to_far = want.extent(config, &coming);
            let (all, news) = (want.sharers.news(true), want.sharers.news(false));
            if near {
                want.sharers.passed_on();
            }
            for (node, far, is_new) in told {
                self.rounds.told(&round, now, far);
                letters.add(node, *hash, if far { to_far.clone() } else { to_near.clone() });
                if !far {
                    letters.pass_on(node, *hash, if is_new { &all } else { &news });
                }
            }
        }
        letters.send(out);
    }

    /// Tells those who are still getting it how it ended here.
    pub(super) fn part(hash: Hash, want: &Want, extent: &Extent, out: &mut Vec<Output>) {
        let mut letters = Letters::default();
        let told = want.sharers.iter().filter(|(_, sharer)| sharer.is_getting() && !sharer.is_hearsay);
        for (node, _) in told {
            letters.add(*node, hash, extent.clone());
        }
        letters.send(out);
    }

    /// Two nodes of a site may have begun the same at once: the one that does not come first for it stops.
    fn give_way(&mut self, now: Time, hash: &Hash, to: &NodeId, world: &impl Holders, out: &mut Vec<Output>) {
        let Some(want) = self.wants.get(hash) else { return };
        let Some((_, sharer)) = want.sharers.iter().find(|(node, _)| *node == to) else { return };
        if sharer.holder.far || !sharer.is_getting() {
            return;
        }
        let stuck = now.since(want.idle_since.max(want.progressed)) >= DISTRUST;
        if stuck || !want.sharers.believes(to, want.progressed) {
            return;
        }
        let me = world.me();
        let shares = want.sharers.shares(now, hash, &me, world.site(&me), want.progressed);
        let begun = self.flights.iter().filter(|(_, flight)| {
            flight.hash == *hash && flight.far && now.since(flight.started) < JUST_BEGUN
        });
        let loses = |flight: &Flight| {
            let mut cells = want.grid.touched(&flight.range);
            cells.all(|cell| sharer.is_bringing(cell) && shares.is_before_me(to, cell))
        };
        let given_up: Vec<FetchId> =
            begun.filter(|(_, flight)| loses(flight)).map(|(fetch, _)| *fetch).collect();
        for fetch in given_up {
            self.land(fetch);
            out.push(Output::CancelFetch { fetch });
        }
    }
}

impl Want {
    /// Whether neighbours that want the same have had the time to say so.
    pub(super) fn is_settled(&self, now: Time) -> bool {
        self.telling.settled.is_some_and(|at| at <= now)
    }

    fn extent(&self, config: &ReplicaConfig, coming: &Cells) -> Extent {
        let have = self.grid.whole(&self.have).to_bytes();
        match config.sharing {
            Sharing::Swarm => Extent::Partial { have, coming: coming.to_bytes() },
            Sharing::SiteCache | Sharing::Origin => Extent::Partial { have: vec![], coming: vec![] },
        }
    }

    /// In a crowd the same with what neighbours have and bring, so that also those who do not hear of them know.
    fn with_what_is_around(&self, now: Time, extent: &Extent) -> Extent {
        match extent {
            Extent::Partial { have, coming } if self.telling.crowd => {
                let beyond = self.sharers.around(now, &self.grid, self.progressed).to_bytes();
                let farther = self.sharers.beyond(now, &self.grid, self.progressed).to_bytes();
                Extent::InCrowd { have: have.clone(), coming: coming.clone(), beyond, farther }
            }
            other => other.clone(),
        }
    }
}

/// Cells that are on their way from other sites.
fn coming<'a>(want: &Want, flights: impl Iterator<Item = &'a Flight>) -> Cells {
    let mut cells = Cells::none(want.grid.count());
    for flight in flights.filter(|flight| flight.far) {
        want.grid.touched(&flight.range).for_each(|cell| cells.insert(cell));
    }
    cells
}

/// When members were last told of anything.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    near: Time,
    /// Whether much has come since then.
    much: bool,
    far: Time,
}

/// Who may be told of news now.
struct Round {
    near: bool,
    far: bool,
}

impl Rounds {
    /// A part of a wanted blob has come. All wait for the first ones, and on fast lines much comes between two rounds.
    pub(super) fn came(&mut self, want: &mut Want) {
        want.telling.parts += 1;
        let told = (want.have.len() / want.grid.cell_bytes()).saturating_sub(want.telling.parts);
        self.much |= want.telling.parts >= MUCH || want.telling.parts * MUCH_OF > told;
    }

    fn told(&mut self, round: &Round, now: Time, far: bool) {
        match far {
            false if round.near => (self.near, self.much) = (now, false),
            true if round.far => self.far = now,
            _ => {}
        }
    }
}

impl Round {
    fn at(now: Time, last: &Rounds) -> Self {
        let near = if last.much { TELL_SOON } else { TELL_NEAR };
        Round { near: now.since(last.near) >= near, far: now.since(last.far) >= TELL_FAR }
    }

    /// Whether there is something new of this one, and somebody who is told.
    fn takes(&self, want: &Want) -> bool {
        let Telling { news, news_far, .. } = want.telling;
        ((self.near && news) || (self.far && news_far)) && want.sharers.are_getting()
    }

    /// Whether neighbours, or other sites, are told of this one now.
    fn is_due(&self, now: Time, telling: &Telling, far: bool) -> bool {
        match far {
            false => (self.near && telling.news) || now.since(telling.told) >= REPEAT_NEAR,
            true => (self.far && telling.news_far) || now.since(telling.told_far) >= REPEAT_FAR,
        }
    }
}

impl Letters {
    fn add(&mut self, to: NodeId, hash: Hash, extent: Extent) {
        self.progress.entry(to).or_default().push(Progress { hash, extent });
    }

    fn pass_on(&mut self, to: NodeId, hash: Hash, said: &[(NodeId, Extent)]) {
        let told = said.iter().filter(|(node, _)| *node != to);
        let told = told.map(|(node, extent)| (*node, Progress { hash, extent: extent.clone() }));
        let told: Vec<Elsewhere> = told.map(|(node, progress)| Elsewhere { node, progress }).collect();
        if !told.is_empty() {
            self.elsewhere.entry(to).or_default().extend(told);
        }
    }

    fn send(self, out: &mut Vec<Output>) {
        for (to, progress) in self.progress {
            send_in_parts(to, progress, Message::Progress, out);
        }
        for (to, told) in self.elsewhere {
            send_in_parts(to, told, Message::Elsewhere, out);
        }
    }
}

fn send_in_parts<T>(to: NodeId, mut all: Vec<T>, message: fn(Vec<T>) -> Message, out: &mut Vec<Output>) {
    while !all.is_empty() {
        let rest = all.split_off(all.len().min(Message::MAX_PROGRESS));
        out.push(Output::Send { to, message: message(all) });
        all = rest;
    }
}

/// Smaller blobs are fetched by each node for itself: agreeing would cost as much,
const SHARED_MIN: u64 = 16 * 1024;
/// and of these other sites are not told.
const SHARED_FAR_MIN: u64 = 128 * 1024;
/// How long neighbours are given to say whether they want the same, before it is fetched from another site. Those
/// that are there and not busy have answered after a few milliseconds, and then nobody is waited for.
const SETTLE: Span = Span::millis(250);
/// How long other sites are given; until then little is asked of where all of it is.
const SETTLE_FAR: Span = Span::millis(400);
/// A node has some 16 sessions within a large site.
pub(super) const CROWD: usize = 12;
/// A transfer of this age has brought little yet.
const JUST_BEGUN: Span = Span::millis(500);
/// How soon something new is told, of all wants at once, and how often of each that there is nothing new: to
/// neighbours,
const TELL_NEAR: Span = Span::millis(50);
const REPEAT_NEAR: Span = Span::millis(500);
/// and to other sites.
const TELL_FAR: Span = Span::millis(500);
const REPEAT_FAR: Span = Span::secs(4);
/// How soon neighbours are told of much that is new:
const TELL_SOON: Span = Span::millis(10);
/// so many parts of a blob,
const MUCH: u64 = 16;
/// or one for so many of which they know.
const MUCH_OF: u64 = 8;
