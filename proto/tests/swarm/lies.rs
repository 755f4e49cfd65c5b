//! Many planners at once, one of whose nodes says what is not so.

use super::*;

/// What a member may say of a blob of which it has nothing.
fn lies(size: u64) -> [(&'static str, Extent); 4] {
    let count = Grid::of(size).count();
    let (all, none) = (Cells::all(count).to_bytes(), Cells::none(count).to_bytes());
    let (have, coming, beyond, farther) = (none.clone(), all.clone(), all.clone(), all.clone());
    [
        ("that it brings all", Extent::Partial { have: none.clone(), coming: all.clone() }),
        ("that it and its neighbours bring all", Extent::InCrowd { have, coming, beyond, farther }),
        ("that it has all but does not say whole", Extent::Partial { have: all, coming: none }),
        ("that it has the whole", Extent::Whole),
    ]
}

const SIZE: u64 = 4 * MIB;

/// Everybody else has it all the same, and from those who have it: within so many milliseconds, and another blob after it
/// within so many; and so many thousandths of it enter the site.
fn lied_to(
    each: usize,
    degree: usize,
    (what, lie): &(&str, Extent),
    (within, again): (u64, u64),
    entered: u64,
) {
    let mut swarm = Swarm::new(1, each, SIZE, (1000, 50, 1000));
    if degree > 0 {
        swarm.mesh(degree);
    }
    for (blob, within) in [(BLOB, within), (Hash([8; 32]), again)] {
        swarm.blob = blob;
        swarm.nodes[1..].iter_mut().for_each(|node| (node.have, node.done) = (Ranges::new(), None));
        let (now, until) = (swarm.now, swarm.now + within);
        for (node, at) in (1..=each).flat_map(|node| (now..until).step_by(250).map(move |at| (node, at))) {
            swarm.at(at + node as u64 % 250, node, Happening::Tick);
        }
        swarm.entered.clear();
        swarm.lie(3, lie.clone(), until);
        swarm.start(5);
        swarm.run(until);
        let lacking = (1..=each).filter(|n| !swarm.is_liar(*n) && swarm.nodes[*n].done.is_none()).count();
        assert_eq!(lacking, 0, "of {each} nodes, where one says {what}, after {within} ms");
        assert!(
            swarm.entered() <= entered,
            "{} of 1000 entered a site where one says {what}",
            swarm.entered()
        );
    }
}

/// A request that is not answered is given up after ten seconds, and what is read in order is asked for elsewhere after
/// two.
#[test]
fn a_member_that_says_to_have_a_blob_and_gives_nothing_costs_little() {
    for lie in &lies(SIZE)[2..] {
        lied_to(5, 0, lie, (4_000, 4_000), 1_200);
        lied_to(60, 18, lie, (13_000, 13_000), 1_700);
    }
}

/// Nodes to which nothing comes for twenty seconds do not believe that it is coming; and once something came to anybody,
/// not whoever got nothing in that time. Then they remember: of the next blob it is not believed at all.
#[test]
fn a_member_that_says_to_bring_a_blob_for_ever_is_believed_once() {
    for lie in &lies(SIZE)[..2] {
        lied_to(5, 0, lie, (23_000, 2_000), 1_200);
        lied_to(60, 18, lie, (25_000, 4_000), 3_900);
    }
}
