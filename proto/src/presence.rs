//! Which sessions are up in name only. A link that breaks without a word leaves its sessions standing for
//! many minutes; a client must not wait for a holder behind one. Owns who was heard when, which members are
//! asked whether they are there ([`Message::Probe`]), and who did not answer in time. Sessions are
//! [`crate::membership`]'s.

use alloc::collections::BTreeMap;

use crate::{
    alarm::sooner,
    event::{FetchId, Input, Output},
    id::{Digest, NodeId},
    row::Row,
    time::{Span, Time},
    wire::Message,
};

/// Who is there, as far as is known.
#[derive(Debug, Default)]
pub struct Presence {
    members: Row<Member>,
    /// Transfers under way, from whom, and since when.
    flights: BTreeMap<FetchId, (NodeId, Time)>,
    /// Artifacts that a client has asked for not long ago.
    awaited: BTreeMap<Digest, Time>,
    last_nonce: u64,
    /// No member that has not answered has to be looked at before.
    next_question: Option<Time>,
}

#[derive(Debug)]
struct Member {
    heard: Time,
    /// Asked, and not heard since.
    probe: Option<Probe>,
    /// Sessions with other sites that it has, by its last answer, and when that came.
    outside: Option<(u16, Time)>,
    /// When that was last asked.
    asked: Option<Time>,
    /// When the session was last of use.
    used: Time,
    /// How long it has to answer: longer behind a satellite.
    patience: Span,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    first: Time,
    last: Time,
}

impl Presence {
    /// A session came up; opening it took so long, where this node did that: two round trips or more.
    pub fn up(&mut self, now: Time, peer: NodeId, took: Option<Span>) {
        let patience = patience(took.unwrap_or_default());
        let member = Member { heard: now, probe: None, outside: None, asked: None, used: now, patience };
        self.members.insert(peer, member);
    }

    /// The last session with a member ended.
    pub fn down(&mut self, peer: &NodeId) {
        self.members.remove(peer);
    }

    /// Something came from a member, by whatever way.
    pub fn heard(&mut self, now: Time, peer: &NodeId) {
        if let Some(member) = self.members.get_mut(peer) {
            if let Some(probe) = member.probe.filter(|probe| probe.first == probe.last) {
                member.patience = patience(Span(2 * now.since(probe.first).0));
            }
            (member.heard, member.probe) = (now, None);
        }
    }

    /// A member answered, and said how many sessions with other sites it has.
    /// True where it has now any and had none as far as was known, or the other way round.
    pub fn answered(&mut self, now: Time, peer: &NodeId, outside: u16) -> bool {
        let before = self.outside(now, peer).is_some_and(|outside| outside > 0);
        if let Some(member) = self.members.get_mut(peer) {
            member.outside = Some((outside, now));
        }
        before != (outside > 0)
    }

    /// Whether a member with a session counts as there: it was heard since it was last asked; or was heard so
    /// shortly before that it has time to answer; or was sending already when it was asked, so that its answer
    /// stands behind that. What nobody asked for is there, as far as anybody needs to know.
    pub fn is_live(&self, now: Time, peer: &NodeId) -> bool {
        let Some(member) = self.members.get(peer) else { return false };
        let Some(probe) = member.probe else { return true };
        let busy = self.flights.values().any(|(from, since)| from == peer && *since < probe.first);
        let trusted = probe.first.since(member.heard) < TRUSTED && now.since(probe.first) < member.patience;
        busy || trusted
    }

    /// Whether a member was asked so shortly before that its answer may still be on the way.
    pub fn may_answer(&self, now: Time, peer: &NodeId) -> bool {
        let probe = self.members.get(peer).and_then(|member| Some((member.probe?, member.patience)));
        probe.is_some_and(|(probe, patience)| now.since(probe.first) < patience)
    }

    /// Sessions with other sites that a member said not long ago to have.
    pub fn outside(&self, now: Time, peer: &NodeId) -> Option<u16> {
        let (outside, at) = self.members.get(peer)?.outside?;
        (now.since(at) < OUTSIDE_GOOD).then_some(outside)
    }

    /// Until when it is believed that a member has sessions with other sites.
    pub fn outside_until(&self, peer: &NodeId) -> Option<Time> {
        let (outside, at) = self.members.get(peer)?.outside?;
        (outside > 0).then_some(at + OUTSIDE_GOOD)
    }

    /// When one that has not answered is to be looked at, see [`Self::silent`]; it may have answered since.
    pub fn next_question(&self) -> Option<Time> {
        self.next_question
    }

    /// Those that have not answered were looked at, and some asked again.
    pub fn questions_asked(&mut self) {
        let open = self.members.values().filter_map(|member| member.probe);
        self.next_question = open.map(|probe| (probe.last + PROBE_AGAIN).min(probe.first + GONE)).min();
    }

    /// Asks a member whether it is there, unless it was heard within `fresh` or has just been asked.
    pub fn probe(&mut self, now: Time, peer: NodeId, fresh: Span) -> Option<Output> {
        let member = self.members.get_mut(&peer)?;
        let due = match member.probe {
            None => now.since(member.heard) >= fresh,
            Some(probe) => now.since(probe.last) >= PROBE_AGAIN,
        };
        if !due {
            return None;
        }
        let first = member.probe.map_or(now, |probe| probe.first);
        member.probe = Some(Probe { first, last: now });
        sooner(&mut self.next_question, now + PROBE_AGAIN);
        self.last_nonce += 1;
        Some(Output::Send { to: peer, message: Message::Probe { nonce: self.last_nonce } })
    }

    /// A client asked for an artifact; false where too many are being asked for to look after this one too.
    pub fn awaits(&mut self, now: Time, manifest: Digest) -> bool {
        self.awaited.retain(|_, since| now.since(*since) < AWAITED);
        let room = self.awaited.len() < AWAITED_MAX || self.awaited.contains_key(&manifest);
        if room {
            self.awaited.insert(manifest, now);
        }
        room
    }

    /// Artifacts that clients have asked for not long ago.
    pub fn awaited(&mut self, now: Time) -> alloc::vec::Vec<Digest> {
        self.awaited.retain(|_, since| now.since(*since) < AWAITED);
        self.awaited.keys().copied().collect()
    }

    /// Artifacts that clients asked for within so long.
    pub fn awaited_since(&self, now: Time, span: Span) -> alloc::vec::Vec<Digest> {
        let asked = self.awaited.iter().filter(|(_, since)| now.since(**since) < span);
        asked.map(|(manifest, _)| *manifest).collect()
    }

    /// Whether something came from a member within so long, and it leaves no question open for too long.
    pub fn showed_life(&self, now: Time, peer: &NodeId, within: Span) -> bool {
        self.members.get(peer).is_some_and(|member| now.since(member.heard) < within)
            && self.is_live(now, peer)
    }

    /// Members that have not answered yet, and whether that has lasted so long that their sessions are of no
    /// use: nothing but an answer brings one back, or a new session.
    pub fn silent(&self, now: Time) -> alloc::vec::Vec<(NodeId, bool)> {
        let asked = self.members.iter().filter_map(|(peer, member)| Some((*peer, member.probe?)));
        asked
            .map(|(peer, probe)| (peer, now.since(probe.first) >= GONE && !self.is_live(now, &peer)))
            .collect()
    }

    /// Asks a member how many sessions with other sites it has, unless that was done not long ago.
    pub fn ask_outside(&mut self, now: Time, peer: NodeId) -> Option<Output> {
        let member = self.members.get_mut(&peer)?;
        if member.asked.is_some_and(|asked| now.since(asked) < OUTSIDE_ASKED) {
            return None;
        }
        member.asked = Some(now);
        self.last_nonce += 1;
        Some(Output::Send { to: peer, message: Message::Probe { nonce: self.last_nonce } })
    }

    /// Something was done over a session that it is kept for.
    pub fn used(&mut self, now: Time, peer: &NodeId) {
        if let Some(member) = self.members.get_mut(peer) {
            member.used = now;
        }
    }

    /// Since when a session is of no use; nothing where bytes are on their way over it.
    pub fn idle_since(&self, peer: &NodeId) -> Option<Time> {
        let sending = self.flights.values().any(|(from, _)| from == peer);
        self.members.get(peer).filter(|_| !sending).map(|member| member.used)
    }

    /// Notes the end of a transfer, before the planner is told. One that succeeded is a sign of life.
    pub fn before(&mut self, now: Time, input: &Input) {
        match input {
            Input::Fetched { fetch } => {
                if let Some((from, _)) = self.flights.remove(fetch) {
                    self.heard(now, &from);
                    self.used(now, &from);
                }
            }
            Input::Arriving { fetch } => {
                if let Some((from, _)) = self.flights.get(fetch).copied() {
                    self.heard(now, &from);
                }
            }
            Input::FetchFailed { fetch, .. } => drop(self.flights.remove(fetch)),
            _ => {}
        }
    }

    /// Notes which transfers begin and end by what the planner has decided.
    pub fn after(&mut self, now: Time, outputs: &[Output]) {
        for output in outputs {
            match output {
                Output::Fetch { fetch, from, .. } => {
                    self.flights.insert(*fetch, (*from, now));
                    self.used(now, from);
                }
                Output::Send { to, message: Message::Ask { .. } | Message::Tell { .. } } => {
                    self.used(now, to)
                }
                Output::CancelFetch { fetch } => drop(self.flights.remove(fetch)),
                _ => {}
            }
        }
    }
}

fn patience(usual: Span) -> Span {
    usual.clamp(PROBE_PATIENCE, PROBE_PATIENCE_MAX)
}

/// How long a member has to answer: this, or twice as long as it took before, and no client waits longer than that.
const PROBE_PATIENCE: Span = Span::millis(500);
const PROBE_PATIENCE_MAX: Span = Span::secs(3);
/// One that was heard so shortly before it was asked is there while it has time to answer; any other only when
/// it has answered, so that no client is promised what stands behind a link that broke in the night.
const TRUSTED: Span = Span::secs(10);
/// A session without an answer for this long is ended: a new one may find another way.
const GONE: Span = Span::secs(60);
/// After this without an answer it is asked once more: a probe may be lost.
const PROBE_AGAIN: Span = Span::secs(5);
/// A member that was heard so recently is not asked when a client waits.
pub const FRESH: Span = Span::secs(3);
/// A member of another site that said nothing for so long is asked whether it is there, by one end of the session: with
/// what else passes between two sites a probe an hour. One of the same site is heard of every half minute.
pub const QUIET: Span = Span::secs(40 * 60);
/// And then by the other end of the session, where the first did not ask.
pub const QUIET_FOR_BOTH: Span = Span::secs(42 * 60);
/// How long after a client asked holders of the artifact are looked after; it is told within that.
const AWAITED: Span = Span::secs(60);
/// Artifacts that are looked after.
const AWAITED_MAX: usize = 256;
/// How often it is asked how many sessions with other sites a member has: it is looked at every half minute, so every one
/// and a half, twice before what was said is no longer believed.
const OUTSIDE_ASKED: Span = Span::secs(80);
/// How long it is believed how many sessions with other sites a member has.
const OUTSIDE_GOOD: Span = Span::secs(180);

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId([1; 32]);

    fn presence() -> Presence {
        let mut presence = Presence::default();
        presence.up(Time(0), PEER, None);
        presence
    }

    #[test]
    fn whoever_does_not_answer_in_time_is_not_there_until_heard() {
        let mut presence = presence();
        assert!(presence.probe(Time(2_999), PEER, FRESH).is_none(), "heard just now");
        assert!(presence.is_live(Time(1_000_000), &PEER), "nobody has asked");
        assert!(presence.probe(Time(9_000), PEER, FRESH).is_some());
        assert!(presence.probe(Time(9_001), PEER, FRESH).is_none(), "asked just now");
        assert!(presence.is_live(Time(9_499), &PEER) && !presence.is_live(Time(9_500), &PEER));
        assert!(presence.probe(Time(15_000), PEER, FRESH).is_some(), "once more");
        assert!(!presence.is_live(Time(15_000), &PEER), "which gives it no more time");
        assert_eq!(presence.silent(Time(68_999)), [(PEER, false)]);
        assert_eq!(presence.silent(Time(69_000)), [(PEER, true)]);
        presence.heard(Time(69_001), &PEER);
        assert!(presence.is_live(Time(900_000), &PEER) && presence.silent(Time(900_000)).is_empty());
        assert!(presence.probe(Time(900_000), PEER, FRESH).is_some());
        assert!(!presence.is_live(Time(900_000), &PEER), "after so long it has to answer first");
        presence.heard(Time(900_010), &PEER);
        assert!(presence.is_live(Time(900_010), &PEER));
        presence.down(&PEER);
        assert!(!presence.is_live(Time(900_000), &PEER));
        assert!(presence.probe(Time(900_000), PEER, FRESH).is_none());
    }

    #[test]
    fn whoever_is_far_away_has_longer_to_answer() {
        let mut presence = Presence::default();
        presence.up(Time(0), PEER, Some(Span(1_200)));
        let asks = |presence: &mut Presence, now| presence.probe(Time(now), PEER, FRESH).is_some();
        assert!(asks(&mut presence, 60_000) && presence.may_answer(Time(61_199), &PEER));
        assert!(!presence.is_live(Time(60_000), &PEER), "nothing is promised before");
        assert!(!presence.may_answer(Time(61_200), &PEER));
        presence.heard(Time(60_700), &PEER);
        assert!(asks(&mut presence, 65_000) && presence.is_live(Time(66_399), &PEER));
        assert!(!presence.is_live(Time(66_400), &PEER));
        // A late answer is no excuse for minutes.
        presence.heard(Time(95_000), &PEER);
        assert!(asks(&mut presence, 99_000) && presence.is_live(Time(101_999), &PEER));
        assert!(!presence.is_live(Time(102_000), &PEER));
    }

    #[test]
    fn an_answer_may_stand_behind_what_is_being_sent() {
        let fetch = |fetch| Output::Fetch {
            fetch: FetchId(fetch),
            from: PEER,
            addresses: alloc::vec![],
            hash: crate::id::Hash([0; 32]),
            size: 1,
            range: 0..1,
            class: crate::event::Class::Client,
        };
        let mut presence = presence();
        presence.after(Time(9_000), &[fetch(1)]);
        assert!(presence.probe(Time(10_000), PEER, FRESH).is_some());
        // One that begins only now is no sign of life.
        presence.after(Time(10_000), &[fetch(2)]);
        assert!(presence.is_live(Time(60_000), &PEER));
        presence.before(
            Time(60_000),
            &Input::FetchFailed { fetch: FetchId(1), fault: crate::event::Fault::Peer },
        );
        assert!(!presence.is_live(Time(60_000), &PEER));
        presence.before(Time(60_001), &Input::Fetched { fetch: FetchId(2) });
        assert!(presence.is_live(Time(60_001), &PEER));
    }

    #[test]
    fn what_is_remembered_of_clients_is_bounded() {
        let mut presence = presence();
        let digest = |n: usize| Digest::Sha256(*blake3::hash(&n.to_be_bytes()).as_bytes());
        assert_eq!((0..1_000).filter(|n| presence.awaits(Time(1), digest(*n))).count(), AWAITED_MAX);
        assert!(presence.awaits(Time(1) + AWAITED, digest(5_000)));
        assert_eq!(presence.awaited(Time(1) + AWAITED).len(), 1);
    }
}
