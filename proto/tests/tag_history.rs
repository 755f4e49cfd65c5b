//! Writes of one tag that did not know of one another: the driver hears of both, in any order, and members that
//! come later are told of the one that gave way.

mod harness;

use harness::{Node, digest, node, tag_record};
use waystation_proto::{Change, Input, NodeId, Shared, wire::Message};

/// (author, whether it lost) of every write that the driver was told of.
fn told(node: &Node) -> Vec<(NodeId, bool)> {
    let of = |change: &Change| match change {
        Change::Tag { author, .. } => Some((*author, false)),
        Change::TagLost { author, .. } => Some((*author, true)),
        _ => None,
    };
    node.changes.iter().filter_map(of).collect()
}

#[test]
fn both_are_told_of_in_any_order_and_to_whoever_comes_later() {
    let mut writes = [tag_record(2, "v1", 1, Some(digest(2))), tag_record(3, "v1", 1, Some(digest(3)))];
    writes.sort_by_key(|record| record.author);
    let [loser, winner] = writes.map(Shared::new);
    for order in [[&loser, &winner], [&winner, &loser]] {
        let mut here = Node::new(1);
        here.meet(5, "here");
        here.learn(order.map(Shared::clone));
        let winner_last = order[1] == &winner;
        let expected = match winner_last {
            true => vec![(loser.author, false), (winner.author, false)],
            false => vec![(winner.author, false), (loser.author, true)],
        };
        assert_eq!(told(&here), expected);
        let carries = |message: &Message| matches!(message, Message::Records(r) if r.contains(&loser));
        let to = |here: &Node, n| here.sent.iter().any(|(to, message)| *to == node(n) && carries(message));
        assert_eq!(to(&here, 5), winner_last, "who had the one that gave way tells of it at once");
        here.tell(Input::PeerUp { peer: node(6), dialled: None });
        assert!(to(&here, 6), "and whoever comes later");
        let told_before = told(&here).len();
        here.learn([loser.clone()]);
        assert!(told(&here).len() <= told_before + usize::from(winner_last), "told once");
    }
}

#[test]
fn an_older_write_is_history_and_a_forged_one_is_not() {
    let mut here = Node::new(1);
    here.learn([tag_record(2, "v1", 3, Some(digest(3)))]);
    here.learn([tag_record(3, "v1", 1, Some(digest(1)))]);
    let mut forged = tag_record(3, "v1", 2, Some(digest(2)));
    forged.signature = [1; 64];
    here.learn([forged]);
    assert_eq!(told(&here), [(node(2), false), (node(3), true)]);
}
