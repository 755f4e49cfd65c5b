//! A node with nothing to do is left alone: it is woken for what is due and for nothing else, and for that in time.

mod harness;

use std::collections::BTreeSet;

use harness::{Node, node};
use waystation_proto::{Input, ReplicaConfig, wire::Message};

fn rounds(here: &Node) -> usize {
    here.sent.iter().filter(|(_, message)| matches!(message, Message::Reconcile { .. })).count()
}

#[test]
fn an_idle_hour_wakes_a_node_seldom_and_catalogs_are_compared_as_often_as_ever() {
    let (first, second) = if node(1) < node(2) { (1, 2) } else { (2, 1) };
    // One end of a session goes first, the other seldom has to.
    idle_hour(first, second, 1);
    idle_hour(second, first, 4);
}

fn idle_hour(me: u8, neighbour: u8, seldom: usize) {
    let mut here = Node::new(me);
    here.tell(Input::Reachable { addresses: vec!["here:4717".into()] });
    here.meet(neighbour, "here");
    here.pass(60_000);
    here.sent.clear();
    let begin = here.now;
    let mut woken = BTreeSet::new();
    while here.now < begin + 3_600_000 {
        let next = here.timers.iter().map(|(at, _)| at.0).min().expect("it looks again some time");
        assert!(next > here.now, "a timer for what is over");
        woken.insert(next);
        here.pass(next - here.now);
        let all = here.timers.len();
        assert!(all < 20, "{all} timers are set");
    }
    let due = 3_600 / seldom / (ReplicaConfig::default().reconcile_interval.0 / 1_000) as usize;
    let compared = rounds(&here);
    assert!((due / 2..due * 2).contains(&compared), "{compared} comparisons where {due} are due");
    // Every 30 s it looks for sessions too many, and not always when it compares.
    assert!(woken.len() < compared + 2 * 3_600 / 30, "{} times", woken.len());
}

#[test]
fn what_is_new_is_compared_soon_though_nothing_was_due() {
    let mut here = Node::new(1);
    here.tell(Input::Reachable { addresses: vec!["here:4717".into()] });
    here.meet(2, "here");
    here.pass(600_000);
    here.sent.clear();
    here.tell(Input::Reachable { addresses: vec!["other:4717".into()] });
    here.pass(4_000);
    assert!(rounds(&here) > 0, "after news, within seconds");
}
