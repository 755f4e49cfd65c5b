//! Messages between hosts: over sessions, from queue to queue, and gossip from mesh to mesh.

use std::rc::Rc;

use waystation_proto::{Input, Shared, wire::Message};

use super::{Occurrence, World, marks};
use crate::{
    gossip::Number,
    network::Load,
    parcel::{Kind, Parcel},
    words,
};

/// A message on its way over a session.
#[derive(Clone)]
pub(super) struct Delivery {
    from: u32,
    to: u32,
    connection: u64,
    what: What,
}

/// What is on its way.
#[derive(Clone)]
enum What {
    /// To one member.
    Direct(Rc<Parcel>),
    /// News.
    Gossip(Number),
    /// What there is to be asked for.
    Have(Rc<[Number]>),
    /// A request for some of it.
    Want(Rc<[Number]>),
    /// A mesh begins or ends.
    Graft,
}

impl World {
    /// Sends a message to a member, if there is a session.
    pub(super) fn send(&mut self, from: usize, to: usize, message: Message) {
        let checked = self.checks_this();
        if checked {
            let fits = crate::check::bounds::message(&message.encode(), false);
            self.note("bounds", from, fits);
        }
        match Parcel::direct(message, checked) {
            Ok(parcel) => {
                let load = self.load_of(&parcel);
                self.post(from, to, What::Direct(Rc::new(parcel)), load);
            }
            Err(error) => self.note("bounds", from, Err(format!("own message is refused: {error}"))),
        }
    }

    /// Publishes records by gossip.
    pub(super) fn announce(&mut self, host: usize, records: Vec<Shared>) {
        let message = Message::Records(records);
        let parcel = match Parcel::announced(&message) {
            Ok(parcel) => parcel,
            Err(error) => {
                self.note("bounds", host, Err(format!("own announcement is refused: {error}")));
                return;
            }
        };
        if parcel.bytes as usize > Message::MAX_ANNOUNCE_BYTES {
            self.note("bounds", host, Err(format!("an announcement of {} bytes", parcel.bytes)));
        }
        let number = self.gossip.number(self.now, parcel);
        // What was just heard is not published again.
        if !self.gossip.hears(host, self.now, number) {
            return;
        }
        self.beat_soon(host);
        let peers: Vec<usize> = if self.gossip.params.flood_publish {
            self.hosts[host].peers.who().to_vec()
        } else {
            self.gossip.mesh(host).to_vec()
        };
        for peer in peers {
            self.pass(host, peer, number);
        }
    }

    /// Passes news on to one session.
    fn pass(&mut self, from: usize, to: usize, number: Number) {
        let Some(parcel) = self.gossip.parcel(number).cloned() else { return };
        let load = self.load_of(&parcel);
        self.post(from, to, What::Gossip(number), load);
    }

    fn load_of(&self, parcel: &Parcel) -> Load {
        let weight = parcel.weight(self.gossip.params.header_bytes);
        Load { bytes: u64::from(parcel.bytes), weight, kind: parcel.kind }
    }

    fn heartbeat_load(&self, ids: usize) -> Load {
        let params = &self.gossip.params;
        let weight = u64::from(params.frame_bytes) + ids as u64 * u64::from(params.id_bytes);
        Load { bytes: weight, weight, kind: Kind::Heartbeat }
    }

    fn post(&mut self, from: usize, to: usize, what: What, load: Load) {
        let Some(connection) = self.hosts[from].peers.get(to) else { return };
        let far = self.network.is_far(from, to);
        // The copy counts, and takes its place on a line, and that is all.
        let idle = self.changes_nothing(to, &what);
        let arrivals = self.network.leave(self.now, from, to, load);
        if idle && !far {
            return;
        }
        for at in arrivals.into_iter().flatten() {
            if idle {
                self.network.enters_later(at.max(self.now), self.queue.reserve(), to, load);
                continue;
            }
            let delivery = Delivery { from: from as u32, to: to as u32, connection, what: what.clone() };
            let next = if far { Occurrence::Enters(delivery, load) } else { Occurrence::Arrives(delivery) };
            self.at(at, next);
        }
    }

    /// What is on its way and will change nothing takes its place on lines up to now.
    pub(super) fn settle_lines(&mut self) {
        self.occurrences += self.network.let_all_in((self.now, u64::MAX));
    }

    /// Whether the receiver would do nothing about a message: it has heard what it tells.
    fn changes_nothing(&self, to: usize, what: &What) -> bool {
        match what {
            What::Gossip(number) => self.gossip.has_heard(to, *number),
            What::Have(numbers) => numbers.iter().all(|number| self.gossip.has_heard(to, *number)),
            What::Graft => true,
            What::Direct(_) | What::Want(_) => false,
        }
    }

    pub(super) fn enter(&mut self, delivery: Delivery, load: Load) {
        let to = delivery.to as usize;
        let site = self.network.site(to);
        self.occurrences += self.network.let_in(site, (self.now, self.queue.current()));
        let Some(at) = self.network.enter(self.now, to, load) else { return };
        if !self.changes_nothing(to, &delivery.what) {
            self.at(at, Occurrence::Arrives(delivery));
        }
    }

    pub(super) fn arrive(&mut self, delivery: Delivery) {
        let (from, to) = (delivery.from as usize, delivery.to as usize);
        // Another copy of what was heard meanwhile, nearly always.
        if self.changes_nothing(to, &delivery.what) {
            return;
        }
        // A session that one end has given up carries nothing.
        if !self.hosts[to].is_up() || self.hosts[to].peers.get(from) != Some(delivery.connection) {
            return;
        }
        match delivery.what {
            What::Direct(parcel) => {
                self.receive(from, to, Rc::try_unwrap(parcel).unwrap_or_else(|parcel| (*parcel).clone()));
            }
            What::Gossip(number) => self.hear(from, to, number),
            What::Have(numbers) => {
                let missing = self.gossip.missing(to, &numbers);
                if !missing.is_empty() {
                    let load = self.heartbeat_load(missing.len());
                    self.post(to, from, What::Want(missing.into()), load);
                }
            }
            What::Want(numbers) => {
                for number in numbers.iter().copied() {
                    if self.gossip.remembers(to, number) {
                        self.pass(to, from, number);
                    }
                }
            }
            What::Graft => {}
        }
    }

    fn hear(&mut self, from: usize, to: usize, number: Number) {
        let Some(parcel) = self.gossip.parcel(number).cloned() else { return };
        if !self.gossip.hears(to, self.now, number) {
            return;
        }
        self.receive(from, to, Parcel::clone(&parcel));
        self.beat_soon(to);
        let params = self.gossip.params;
        if parcel.bytes > params.unwanted_above {
            let bytes = u64::from(params.unwanted_bytes);
            let load = Load { bytes, weight: bytes, kind: Kind::Heartbeat };
            for peer in self.gossip.mesh(to).iter().filter(|peer| **peer != from) {
                self.network.tally(to, *peer, load);
            }
        }
        let life = self.hosts[to].life;
        self.at(self.now + params.pass, Occurrence::Passes { host: to, life, from, number });
    }

    /// Passes on to the mesh what came from somebody a moment ago.
    pub(super) fn pass_on(&mut self, host: usize, from: usize, number: Number) {
        let mesh: Vec<usize> = self.gossip.mesh(host).iter().copied().filter(|peer| *peer != from).collect();
        for peer in mesh {
            self.pass(host, peer, number);
        }
    }

    fn receive(&mut self, from: usize, to: usize, parcel: Parcel) {
        let which = marks::of_hash(&parcel.hash).wrapping_add(from as u64);
        self.trace.mark(self.now, to, marks::RECEIVED, which);
        self.trace
            .say(self.now, to, || format!("hears from host {from}: {}", words::message(&parcel.message)));
        let from = self.hosts[from].id;
        self.hand(to, Input::Received { from, message: parcel.message });
    }

    /// Has a host's next heartbeat come, if there is something to do in it.
    pub(super) fn beat_soon(&mut self, host: usize) {
        if !self.hosts[host].is_up() {
            return;
        }
        if let Some(at) = self.gossip.next_beat(host, self.now, self.hosts[host].peers.len()) {
            let life = self.hosts[host].life;
            self.at(at, Occurrence::Beat { host, life });
        }
    }

    pub(super) fn beat(&mut self, host: usize) {
        let beat = self.gossip.beat(host, self.hosts[host].peers.who());
        for peer in beat.changed {
            let load = self.heartbeat_load(0);
            self.post(host, peer, What::Graft, load);
            self.beat_soon(peer);
        }
        let ids: Rc<[Number]> = beat.ids.into();
        for peer in beat.told {
            let load = self.heartbeat_load(ids.len());
            self.post(host, peer, What::Have(ids.clone()), load);
        }
        self.beat_soon(host);
    }
}
