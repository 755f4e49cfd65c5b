//! What one member can make of others: no more than its quotas, and not for long where it sends nonsense.

mod harness;

use harness::{Node, WALL, digest, key, node, node_record, trust};
use waystation_proto::{
    Change, Digest, Event, Input, Record, Shared, Timer,
    body::{HoldingBody, HoldingState},
    event::{DialTarget, Told},
    quota::Quota,
    record::{Key, Kind, RecordError},
    wire::Message,
};

fn numbered(n: u32) -> Digest {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    Digest::Sha256(bytes)
}

fn holding(author: u8, n: u32, version: u64) -> Record {
    let body = HoldingBody { state: HoldingState::Complete };
    let key_of = Key::holding("here", &numbered(n), &node(author));
    Record::author(&trust().mesh, &key(author), None, key_of, version, WALL, &body)
}

/// As many as there may be, and a hundred more. Signed by nobody: what is restored was checked before.
fn too_many(author: u8) -> Vec<Record> {
    let one = holding(author, 0, 1);
    let count = Quota::MESH.holdings as u32 + 100;
    let record = |n: u32| Record {
        key: Key::holding("here", &numbered(n), &node(author)),
        version: u64::from(n) + 1,
        ..one.clone()
    };
    (0..count).map(record).collect()
}

fn shared(records: Vec<Record>) -> Vec<Shared> {
    records.into_iter().map(Shared::new).collect()
}

#[test]
fn one_member_cannot_fill_a_catalog() {
    let mut here = Node::restored(1, shared(too_many(2)), vec![]);
    let of_two = |here: &Node| here.replica.catalog().iter().filter(|r| r.author == node(2)).count();
    assert_eq!(of_two(&here), Quota::MESH.holdings);
    assert_eq!(here.replica.catalog().holders(&numbered(99)).count(), 0, "the oldest went");
    assert_eq!(here.replica.catalog().holders(&numbered(100)).count(), 1);
    assert_eq!(here.disk.len(), Quota::MESH.holdings + 1, "not kept on disk either");
    // An old one is refused unread; a new one takes the place of the oldest.
    here.events.clear();
    here.learn([Record { signature: [0; 64], ..holding(2, 5, 6) }]);
    let full = Event::RecordsRefused { from: node(200), count: 1, why: RecordError::Full };
    assert_eq!(here.events, [full]);
    here.learn([holding(2, 900_000, 900_000)]);
    assert_eq!(of_two(&here), Quota::MESH.holdings);
    let (manifest, told) = (numbered(100), Told::Site("here".into()));
    let gone = Change::Holding { manifest, node: node(2), state: HoldingState::Gone, told };
    assert!(here.changes.contains(&gone));
    assert_eq!(here.replica.catalog().holders(&numbered(900_000)).count(), 1);
    // Others have as much room as ever.
    here.learn([holding(3, 1, 1)]);
    assert_eq!(here.replica.catalog().holders(&numbered(1)).count(), 1);
}

#[test]
fn unknown_kinds_have_a_quota_too() {
    let made_up = |author: u8, n: u32| {
        let key_of = Key { kind: Kind(4242), scope: String::new(), name: n.to_string() };
        Record::author(&trust().mesh, &key(author), None, key_of, 1, WALL, &n)
    };
    let mut here = Node::new(1);
    here.learn((0..Quota::MESH.unknown as u32 + 50).map(|n| made_up(2, n)));
    here.learn([made_up(3, 1_000_000)]);
    let unknown = here.replica.catalog().iter().filter(|record| !record.key.kind.is_known()).count();
    assert_eq!(unknown, Quota::MESH.unknown + 1);
}

/// A cache that sees far more artifacts than its quota in the course of time still says what it has.
#[test]
fn what_is_still_so_is_said_again_when_it_had_to_go() {
    let gone = Record::encode_body(&HoldingBody { state: HoldingState::Gone });
    let mut mine = too_many(1);
    mine.iter_mut().skip(100).for_each(|record| record.body = gone.clone());
    let mut here = Node::restored(1, shared(mine), vec![]);
    here.pass(2_000);
    assert_eq!(here.replica.catalog().held_by(&node(1), Kind::HOLDING).count(), 100);
    let total = here.replica.catalog().iter().filter(|record| record.key.kind == Kind::HOLDING).count();
    assert_eq!(total, Quota::MESH.holdings);
}

#[test]
fn whoever_sends_what_nobody_honest_could_is_hung_up_on_for_a_while() {
    let mut here = Node::new(1);
    here.meet(2, "here");
    here.meet(3, "here");
    let forged = |n: u32| Record { signature: [7; 64], ..holding(4, n, 1) };
    let from_two = |here: &mut Node, records: Vec<Record>| {
        here.tell(Input::Received { from: node(2), message: Message::Records(shared(records)) });
    };
    from_two(&mut here, (0..256).map(forged).collect());
    assert_eq!(here.hung_up, [], "a few are put up with");
    from_two(&mut here, (0..256).map(|n| holding(5, n, u64::from(n) + 1)).collect());
    assert_eq!(
        here.replica.catalog().held_by(&node(5), Kind::HOLDING).count(),
        256,
        "and the good ones count"
    );
    from_two(&mut here, vec![forged(1)]);
    assert_eq!(here.hung_up, [node(2)]);
    assert!(here.events.contains(&Event::Shunned { peer: node(2) }));
    assert_eq!(here.replica.sessions().collect::<Vec<_>>(), [node(3)]);
    // Nothing of it is looked at, it is not dialled, and hung up on when it comes.
    from_two(&mut here, vec![holding(6, 1, 1)]);
    assert_eq!(here.replica.catalog().held_by(&node(6), Kind::HOLDING).count(), 0);
    here.dialled.clear();
    here.pass(300_000);
    let dials = |here: &Node| {
        here.dialled.iter().any(|target| matches!(target, DialTarget::Node(to, _) if *to == node(2)))
    };
    assert!(!dials(&here));
    here.tell(Input::PeerUp { peer: node(2), dialled: None });
    assert_eq!(here.hung_up, [node(2), node(2)]);
    // It may have been mended.
    here.now += 600_000;
    here.timers.clear();
    here.tell(Input::TimerFired(Timer::Dial));
    assert!(dials(&here));
    here.tell(Input::PeerUp { peer: node(2), dialled: None });
    here.learn([node_record(2, "here")]);
    assert_eq!(here.hung_up.len(), 2);
}

/// What a newer version refuses, an older one may still hand out in good faith.
#[test]
fn what_may_be_a_matter_of_versions_is_no_reason_to_hang_up() {
    let mut here = Node::new(1);
    here.meet(2, "here");
    let strange = |n: u32| {
        let key_of = Key::holding("here", &digest(n as u8), &node(4));
        Record::author(&trust().mesh, &key(4), None, key_of, 1, WALL, &(n, "what is this")).into()
    };
    let records = (0..1_000).map(strange).collect();
    here.tell(Input::Received { from: node(2), message: Message::Records(records) });
    assert_eq!(here.hung_up, []);
}
