//! What a node's budget for links to other sites means to the planner: nothing is asked of other sites that may
//! not be, the own site is asked as ever, and what waited goes on when it may.

mod harness;

use harness::{digest, node};
use waystation_proto::{
    Digest, FetchId, Hash, NodeId, Output, ReplicaConfig, RequestId, Time,
    event::{Class, Fault, WantFailure},
    ranges::Ranges,
    wants::{Ended, Holder, Holders, Order, Waiter, Wants},
};

/// One holder, near or far, and what may be fetched from other sites.
struct World {
    far: bool,
    background: bool,
    client: bool,
}

impl Holders for World {
    fn holders(&self, _: &Digest) -> Vec<Holder> {
        vec![Holder { far: self.far, abroad: false, node: node(2) }]
    }

    fn member(&self, _: &NodeId) -> Option<Holder> {
        None
    }

    fn addresses(&self, _: &NodeId) -> Vec<String> {
        Vec::new()
    }

    fn me(&self) -> NodeId {
        node(1)
    }

    fn sessions(&self) -> Vec<(NodeId, bool)> {
        Vec::new()
    }

    fn site(&self, node: &NodeId) -> u64 {
        u64::from(*node != self.me())
    }

    fn far_allowed(&self, class: Class) -> bool {
        match class {
            Class::Client => self.client,
            Class::Background => self.background,
        }
    }
}

const CLOSURE: Waiter = Waiter::Closure(Digest::Sha256([1; 32]));
const CLIENT: Waiter = Waiter::Request(RequestId(1));

fn want(wants: &mut Wants, now: u64, waiter: Waiter) -> Vec<Output> {
    let mut out = Vec::new();
    let order =
        Order { hash: Hash([7; 32]), size: 1000, digest: None, manifest: digest(1), told_by: None, waiter };
    wants.want(Time(now), order, &mut out);
    wants.probed(Hash([7; 32]), &Ranges::new(), &mut out);
    out
}

/// The classes of what is fetched next.
fn plan(wants: &mut Wants, now: u64, world: &World) -> Vec<(FetchId, Class)> {
    let mut out = Vec::new();
    wants.plan(Time(now), &ReplicaConfig::default(), world, &mut out);
    let fetch = |output| match output {
        Output::Fetch { fetch, class, .. } => Some((fetch, class)),
        _ => None,
    };
    out.into_iter().filter_map(fetch).collect()
}

fn tick(wants: &mut Wants, now: u64, world: &World) -> Vec<Ended> {
    wants.tick(Time(now), &ReplicaConfig::default(), world, &mut Vec::new())
}

#[test]
fn the_background_waits_and_goes_on() {
    let mut wants = Wants::default();
    want(&mut wants, 0, CLOSURE);
    let mut world = World { far: true, background: false, client: true };
    assert_eq!(plan(&mut wants, 0, &world), []);
    world.far = false;
    assert_eq!(plan(&mut Wants::default(), 0, &world), []);
    let mut near = Wants::default();
    want(&mut near, 0, CLOSURE);
    assert_eq!(plan(&mut near, 0, &world), [(FetchId(1), Class::Background)]);
    let world = World { far: true, background: true, client: true };
    assert_eq!(plan(&mut wants, 1_000_000, &world), [(FetchId(1), Class::Background)]);
}

#[test]
fn a_client_is_let_through_and_told_soon_where_it_is_not() {
    let world = World { far: true, background: false, client: true };
    let mut wants = Wants::default();
    want(&mut wants, 0, CLOSURE);
    want(&mut wants, 0, CLIENT);
    assert_eq!(plan(&mut wants, 0, &world), [(FetchId(1), Class::Client)]);

    let world = World { far: true, background: false, client: false };
    let mut wants = Wants::default();
    want(&mut wants, 0, CLIENT);
    assert_eq!(plan(&mut wants, 0, &world), []);
    let ended = tick(&mut wants, 1000, &world);
    assert!(matches!(ended[..], [Ended { result: Err(WantFailure::NoHolder), .. }]), "{ended:?}");
}

#[test]
fn a_fetch_that_the_budget_ended_is_nobodys_fault_and_does_not_go_round_in_circles() {
    let world = World { far: true, background: true, client: true };
    let mut wants = Wants::default();
    want(&mut wants, 0, CLOSURE);
    for (n, now) in [0, 1000, 2000, 3000, 4000, 5000, 6000, 7000].into_iter().enumerate() {
        let fetch = FetchId(n as u64 + 1);
        assert_eq!(plan(&mut wants, now, &world), [(fetch, Class::Background)]);
        assert!(wants.failed(Time(now), fetch, Fault::Budget, &mut Vec::new()).is_none());
        wants.probed(Hash([7; 32]), &Ranges::new(), &mut Vec::new());
        assert_eq!(plan(&mut wants, now + 1, &world), [], "not at once");
    }
}

#[test]
fn what_the_background_began_is_hastened_once_for_clients() {
    let world = World { far: true, background: true, client: true };
    let mut wants = Wants::default();
    want(&mut wants, 0, CLOSURE);
    assert_eq!(plan(&mut wants, 0, &world), [(FetchId(1), Class::Background)]);
    let hastened = |out: Vec<Output>| {
        out.iter().filter(|output| matches!(output, Output::Hasten { fetch: FetchId(1) })).count()
    };
    assert_eq!(hastened(want(&mut wants, 1, CLIENT)), 1);
    assert_eq!(hastened(want(&mut wants, 2, Waiter::Request(RequestId(2)))), 0);
}
