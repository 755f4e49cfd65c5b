//! Holders that a client may have to wait for a moment longer: a session with them is being opened. Owns whether that
//! wait has a prospect; the dials themselves are [`crate::membership`]'s.

use alloc::vec::Vec;

use super::Replica;
use crate::{
    event::{DialTarget, Output},
    id::{Digest, NodeId},
    presence::FRESH,
    time::{Now, Span},
    world::{Outside, World},
};

impl Replica {
    /// Whether a dial to another site is likely to be answered: where there are sessions with other sites, one of
    /// them must have shown life since; where there is none, no dial may have failed.
    pub(super) fn outside(&mut self, now: Now) -> Outside {
        let there = if self.connected().far == 0 {
            self.membership.outside_seems_there(now.time)
        } else {
            let presence = &self.membership.presence;
            let mut lively = self.membership.sessions();
            lively.any(|peer| presence.showed_life(now.time, &peer, SIGN_OF_LIFE) && !self.is_near(&peer))
        };
        if there { Outside::There } else { Outside::Away }
    }

    /// The artifacts that clients wait for, of which a holder is being dialled and may answer.
    pub(super) fn awaited_and_coming(&mut self, now: Now) -> Vec<Digest> {
        let mut awaited = self.membership.presence.awaited(now.time);
        let outside = self.outside(now);
        let world = World::of(&self.config, &self.catalog, &self.membership, self.me());
        let world = world.with_coming(outside);
        awaited.retain(|manifest| world.is_coming(manifest));
        awaited
    }

    /// A holder at another site is being dialled for a client: whether other sites are there at all is known sooner
    /// than the dial fails.
    pub(super) fn probe_outside(&mut self, now: Now, manifest: &Digest, out: &mut Vec<Output>) {
        let world = World::of(&self.config, &self.catalog, &self.membership, self.me());
        if !world.with_coming(Outside::There).is_coming(manifest) {
            return;
        }
        let far = self.membership.sessions().filter(|peer| !self.is_near(peer));
        let asked: Vec<NodeId> = far.take(OUTSIDE_PROBED).collect();
        for peer in asked {
            out.extend(self.membership.presence.probe(now.time, peer, FRESH));
        }
    }

    /// A dial came to nothing: where a client has just asked for what that node holds, the next holder is tried.
    pub(super) fn dial_failed(&mut self, now: Now, target: &DialTarget, out: &mut Vec<Output>) {
        self.membership.dial_failed(now.time, target, &mut self.rng);
        self.alarms.dial_soon(now.time);
        let DialTarget::Node(node, _) = target else { return };
        let just_asked = self.membership.presence.awaited_since(now.time, ASKED_JUST_NOW);
        for manifest in just_asked {
            if self.catalog.holding(&manifest, node).is_some() {
                self.dial_holders(now, &manifest, true, 1, out);
            }
        }
    }
}

/// A session with another site over which something came so recently is a sign that the way out is there.
const SIGN_OF_LIFE: Span = Span::secs(6);
/// Sessions with other sites that are asked.
const OUTSIDE_PROBED: usize = 2;
/// How long after a client asked further holders are tried.
const ASKED_JUST_NOW: Span = Span::secs(3);
