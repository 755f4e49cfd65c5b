//! What only an upstream pairs with bytes: the mesh downloads it once, whoever asks in whatever order, and
//! whatever a member says about it is checked.

mod harness;

use std::collections::BTreeMap;

use harness::{Node, digest, node, repository};
use proptest::prelude::*;
use waystation_proto::{
    Event, Hash, Input, RequestId, Timer,
    event::{Fault, PullFailure, Source, WantFailure},
    wire::{Answer, Message, Standing},
};

const SIZE: u64 = 1000;

fn source() -> Source {
    Source { repository: repository("docker.io/library/x"), digest: digest(7) }
}

fn hash() -> Hash {
    Hash::of(b"layer")
}

/// Nodes of one site, all with sessions, and what is on its way between them, in order for each pair.
struct Mesh {
    nodes: BTreeMap<u8, Node>,
    links: BTreeMap<(u8, u8), Vec<Message>>,
    pulls: Vec<u8>,
}

impl Mesh {
    fn new(count: u8) -> Self {
        let mut nodes: BTreeMap<u8, Node> = (1..=count).map(|n| (n, Node::new(n))).collect();
        for (n, node) in &mut nodes {
            (1..=count).filter(|other| other != n).for_each(|other| node.meet(other, "here"));
            node.sent.clear();
        }
        Mesh { nodes, links: BTreeMap::new(), pulls: Vec::new() }
    }

    fn want(&mut self, n: u8) {
        let away = false;
        self.tell(
            n,
            Input::Pull {
                request: RequestId(1),
                source: source(),
                size: Some(SIZE),
                manifest: None,
                is_manifest: false,
                away,
            },
        );
    }

    fn tell(&mut self, n: u8, input: Input) {
        self.nodes.get_mut(&n).expect("a node").tell(input);
        self.collect(n);
    }

    fn collect(&mut self, n: u8) {
        let here = self.nodes.get_mut(&n).expect("a node");
        self.pulls.extend(here.pulls.drain(..).map(|_| n));
        for (to, message) in here.sent.drain(..) {
            let about_pulls = matches!(message, Message::Ask { .. } | Message::Tell { .. });
            let to = (1..=9).find(|other| node(*other) == to).filter(|_| about_pulls);
            self.links.entry((n, to.unwrap_or(0))).or_default().extend(to.map(|_| message));
        }
    }

    /// Delivers one message, of those that are first on their links the `pick`th. False if there is none.
    fn deliver(&mut self, pick: usize) -> bool {
        self.links.retain(|_, messages| !messages.is_empty());
        let Some((from, to)) = self.links.keys().nth(pick % self.links.len().max(1)).copied() else {
            return false;
        };
        let message = self.links.get_mut(&(from, to)).expect("there").remove(0);
        self.tell(to, Input::Received { from: node(from), message });
        true
    }

    fn settle(&mut self) {
        let mut rounds = 0;
        while self.deliver(0) {
            rounds += 1;
            assert!(rounds < 10_000, "does not come to rest");
        }
    }

    /// The download of this node ends well.
    fn pulled(&mut self, n: u8) {
        let here = self.nodes.get_mut(&n).expect("a node");
        here.held.insert(hash());
        here.linked.insert(source(), (hash(), SIZE));
        self.tell(n, Input::Pulled { source: source(), result: Ok((hash(), SIZE)) });
    }

    /// Everything that members were asked to send arrives.
    fn fetch_all(&mut self) {
        for node in self.nodes.values_mut() {
            node.deliver_all();
        }
    }

    fn is_answered(&self, n: u8) -> bool {
        let done = Event::WantDone { request: RequestId(1), result: Ok(()) };
        self.nodes[&n].answers(1) == [&done]
    }
}

#[test]
fn alone_a_node_pulls_at_once() {
    let mut mesh = Mesh::new(1);
    mesh.want(1);
    assert_eq!(mesh.pulls, [1]);
    mesh.want(1);
    mesh.pulled(1);
    let answers = mesh.nodes[&1].answers(1);
    assert_eq!((mesh.pulls.len(), answers.len()), (1, 1));
}

#[test]
fn what_a_member_has_is_not_pulled() {
    let mut mesh = Mesh::new(2);
    mesh.nodes.get_mut(&2).expect("a node").linked.insert(source(), (hash(), SIZE));
    mesh.want(1);
    mesh.settle();
    mesh.fetch_all();
    assert_eq!(mesh.pulls, []);
    assert!(mesh.is_answered(1));
    assert!(mesh.nodes[&1].linked.contains_key(&source()));
}

#[test]
fn a_silent_member_delays_a_download_but_shortly() {
    let mut mesh = Mesh::new(2);
    // One of this site is waited for, but not twice.
    for (round, patience) in [(1, 400), (2, 80)] {
        mesh.want(1);
        mesh.nodes.get_mut(&1).expect("a node").pass(patience - 1);
        mesh.collect(1);
        assert_eq!(mesh.pulls.len(), round - 1);
        mesh.nodes.get_mut(&1).expect("a node").pass(1);
        mesh.collect(1);
        assert_eq!(mesh.pulls.len(), round);
        mesh.tell(1, Input::Pulled { source: source(), result: Err(PullFailure::Wrong("cut".into())) });
    }
    // One that is far away is not.
    let mut mesh = Mesh::new(1);
    mesh.nodes.get_mut(&1).expect("a node").meet(2, "far");
    mesh.want(1);
    mesh.nodes.get_mut(&1).expect("a node").pass(80);
    mesh.collect(1);
    assert_eq!(mesh.pulls, [1]);
}

#[test]
fn where_the_one_that_pulls_is_lost_another_goes_on() {
    let mut mesh = Mesh::new(2);
    mesh.want(1);
    mesh.settle();
    mesh.want(2);
    mesh.settle();
    assert_eq!(mesh.pulls, [1]);
    // It says nothing any more.
    mesh.nodes.get_mut(&2).expect("a node").pass(2_000);
    mesh.collect(2);
    assert_eq!(mesh.pulls, [1, 2]);

    let mut mesh = Mesh::new(2);
    mesh.want(1);
    mesh.settle();
    mesh.want(2);
    mesh.settle();
    mesh.tell(2, Input::PeerDown { peer: node(1) });
    assert_eq!(mesh.pulls, [1, 2]);
}

#[test]
fn a_download_that_fails_is_tried_by_the_next() {
    let mut mesh = Mesh::new(2);
    mesh.want(1);
    mesh.settle();
    mesh.want(2);
    mesh.settle();
    mesh.tell(1, Input::Pulled { source: source(), result: Err(PullFailure::Wrong("cut".into())) });
    mesh.settle();
    assert_eq!(mesh.pulls, [1, 2]);
    let failed = Event::WantDone { request: RequestId(1), result: Err(WantFailure::Upstream("cut".into())) };
    assert_eq!(mesh.nodes[&1].answers(1), [&failed]);
}

#[test]
fn an_upstream_that_is_away_is_answered_soon() {
    let mut mesh = Mesh::new(3);
    let input = |away| Input::Pull {
        request: RequestId(1),
        source: source(),
        size: None,
        manifest: None,
        is_manifest: false,
        away,
    };
    mesh.tell(1, input(true));
    mesh.settle();
    assert!(mesh.nodes[&1].answers(1).is_empty(), "holders without a session are being dialled");
    mesh.nodes.get_mut(&1).expect("a node").pass(500);
    assert!(matches!(
        mesh.nodes[&1].answers(1)[..],
        [Event::WantDone { result: Err(WantFailure::Upstream(_)), .. }]
    ));
    assert_eq!(mesh.pulls, []);
}

#[test]
fn a_member_that_lies_about_content_is_passed_over() {
    let mut mesh = Mesh::new(2);
    mesh.nodes.get_mut(&2).expect("a node").linked.insert(source(), (hash(), SIZE));
    mesh.nodes.get_mut(&1).expect("a node").lies.insert(hash());
    mesh.want(1);
    mesh.settle();
    mesh.fetch_all();
    mesh.collect(1);
    assert_eq!(mesh.pulls, [1]);
    let lied = Event::HolderLied { node: node(2), hash: hash() };
    assert!(mesh.nodes[&1].events.contains(&lied));
    assert!(!mesh.nodes[&1].linked.contains_key(&source()));
}

#[test]
fn answers_that_nobody_asked_for_change_nothing() {
    let mut mesh = Mesh::new(2);
    let answers = vec![Answer { digest: digest(7), state: Standing::Held { hash: hash(), size: SIZE } }];
    let tell = Message::Tell { repository: source().repository, answers };
    mesh.tell(1, Input::Received { from: node(2), message: tell.clone() });
    mesh.want(1);
    mesh.settle();
    assert_eq!(mesh.pulls, [1]);
    mesh.tell(1, Input::Received { from: node(2), message: tell });
    assert!(mesh.nodes[&1].fetches.is_empty());
    // Of another size than the manifest says.
    let mut mesh = Mesh::new(2);
    mesh.nodes.get_mut(&2).expect("a node").linked.insert(source(), (hash(), SIZE + 1));
    mesh.want(1);
    mesh.settle();
    assert_eq!((mesh.pulls.len(), mesh.nodes[&1].fetches.len()), (1, 0));
}

#[test]
fn a_client_that_leaves_stops_no_download() {
    let mut mesh = Mesh::new(1);
    mesh.want(1);
    mesh.tell(1, Input::Abandon { request: RequestId(1) });
    mesh.want(1);
    assert_eq!(mesh.pulls, [1]);
    mesh.pulled(1);
    assert!(mesh.is_answered(1));
}

#[test]
fn the_timer_is_set_once() {
    let mut mesh = Mesh::new(2);
    mesh.want(1);
    let set = mesh.nodes[&1].timers.iter().filter(|(_, timer)| *timer == Timer::Pulls).count();
    assert_eq!(set, 1);
}

/// What a member says unasked or in answer.
fn said(state: Standing) -> Message {
    let answers = vec![Answer { digest: digest(7), state }];
    Message::Tell { repository: source().repository, answers }
}

#[test]
fn a_member_that_only_says_to_be_pulling_is_not_followed_for_ever() {
    let mut mesh = Mesh::new(2);
    mesh.want(1);
    for _ in 0..59 {
        mesh.tell(1, Input::Received { from: node(2), message: said(Standing::Pulling) });
        mesh.nodes.get_mut(&1).expect("a node").pass(500);
        mesh.collect(1);
    }
    assert_eq!(mesh.pulls, [], "it has half a minute for so little");
    mesh.tell(1, Input::Received { from: node(2), message: said(Standing::Pulling) });
    mesh.nodes.get_mut(&1).expect("a node").pass(1_000);
    mesh.collect(1);
    assert_eq!(mesh.pulls, [1]);
}

#[test]
fn who_has_it_goes_before_who_pulls_it() {
    let mut mesh = Mesh::new(3);
    mesh.nodes.get_mut(&3).expect("a node").linked.insert(source(), (hash(), SIZE));
    mesh.want(1);
    mesh.tell(1, Input::Received { from: node(2), message: said(Standing::Pulling) });
    mesh.settle();
    mesh.fetch_all();
    assert!(mesh.pulls.is_empty() && mesh.is_answered(1));
}

#[test]
fn an_absurd_claim_costs_no_client_its_pull() {
    let unsized_input = |is_manifest| Input::Pull {
        request: RequestId(1),
        source: source(),
        size: None,
        manifest: None,
        is_manifest,
        away: false,
    };
    let claim = |size| said(Standing::Held { hash: hash(), size });
    for (is_manifest, size) in [(true, (16 << 20) + 1), (false, u64::MAX), (false, (1 << 40) + 1)] {
        let mut mesh = Mesh::new(2);
        mesh.tell(1, unsized_input(is_manifest));
        mesh.tell(1, Input::Received { from: node(2), message: claim(size) });
        assert_eq!((mesh.pulls.len(), mesh.nodes[&1].fetches.len()), (1, 0), "{size}");
    }
    // More than the disk has room for.
    let mut mesh = Mesh::new(2);
    mesh.tell(1, unsized_input(false));
    mesh.tell(1, Input::Received { from: node(2), message: claim(1 << 39) });
    let fetch = mesh.nodes[&1].fetches[0].fetch;
    mesh.tell(1, Input::FetchFailed { fetch, fault: Fault::Local });
    mesh.settle();
    assert_eq!(mesh.pulls, [1]);
    assert!(mesh.nodes[&1].answers(1).is_empty());
    // It is not heard again.
    mesh.tell(1, Input::Received { from: node(2), message: claim(SIZE) });
    assert_eq!(mesh.nodes[&1].fetches.len(), 1);
}

proptest! {
    #[test]
    fn two_that_ask_in_any_order_download_once(starts in prop::collection::vec(any::<u8>(), 0..24)) {
        let mut mesh = Mesh::new(2);
        let mut waiting: Vec<u8> = vec![1, 2];
        for pick in starts {
            if pick % 3 == 0 && !waiting.is_empty() {
                let n = waiting.remove(usize::from(pick / 3) % waiting.len());
                mesh.want(n);
            } else {
                mesh.deliver(usize::from(pick));
            }
        }
        for n in waiting {
            mesh.want(n);
        }
        mesh.settle();
        prop_assert_eq!(mesh.pulls.len(), 1);
        let one = mesh.pulls[0];
        mesh.pulled(one);
        mesh.settle();
        mesh.fetch_all();
        prop_assert!(mesh.is_answered(1) && mesh.is_answered(2));
    }

    #[test]
    fn any_number_ends_with_all_answered(picks in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut mesh = Mesh::new(5);
        let mut waiting: Vec<u8> = (1..=5).collect();
        for pick in picks {
            if pick % 5 == 0 && !waiting.is_empty() {
                let n = waiting.remove(usize::from(pick) % waiting.len());
                mesh.want(n);
            } else {
                mesh.deliver(usize::from(pick));
            }
        }
        for n in waiting {
            mesh.want(n);
        }
        mesh.settle();
        let mut rounds = 0;
        while !(1..=5).all(|n| mesh.is_answered(n)) {
            rounds += 1;
            prop_assert!(rounds < 20, "{:?}", mesh.pulls);
            for n in std::mem::take(&mut mesh.pulls) {
                mesh.pulled(n);
            }
            mesh.settle();
            mesh.fetch_all();
            for n in 1..=5 {
                mesh.nodes.get_mut(&n).expect("a node").pass(700);
                mesh.collect(n);
            }
            mesh.settle();
        }
    }
}
