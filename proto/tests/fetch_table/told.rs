//! The planner's table, where members say how far they are with a blob.

use super::*;

/// A member says how far it is with the first blob.
fn says(bench: &mut Bench, from: NodeId, extent: Extent) {
    let progress = vec![Progress { hash: hash(1), extent }];
    let world = bench.world.clone();
    bench.act(|wants, now, out| wants.heard(now, from, progress, &BTreeSet::new(), &world, out));
}

#[test]
fn what_a_neighbour_says_to_bring_and_never_does_is_fetched_after_a_while() {
    let mut bench = Bench::new(&[holder(2, true)]);
    // Known as a member, not as a holder of this.
    bench.world.0.insert(digest(9), vec![holder(3, false)]);
    bench.want(hash(1), 4 * MIB, request(1));
    let all = || Extent::Partial { have: vec![], coming: vec![255; 4] };
    says(&mut bench, node(3), all());
    bench.probed(hash(1), Ranges::new());
    for _ in 0..15 {
        bench.pass(1_000);
        says(&mut bench, node(3), all());
        assert!(bench.flights.is_empty(), "it is on its way");
    }
    for _ in 0..8 {
        bench.pass(1_000);
        says(&mut bench, node(3), all());
    }
    assert!(!bench.flights.is_empty() && bench.ended.is_empty());
}

#[test]
fn who_comes_later_is_told_what_is_wanted() {
    let mut bench = Bench::new(&[holder(2, true)]);
    bench.world.0.insert(digest(9), vec![holder(3, false)]);
    bench.want_new(hash(1), 4 * MIB, request(1));
    let (world, config, mut out) = (bench.world.clone(), ReplicaConfig::default(), Vec::new());
    bench.wants.welcome(&config, &node(3), &world, &mut out);
    let told = matches!(&out[..], [Output::Send { to, message: Message::Progress(progress) }]
        if *to == node(3) && progress.len() == 1 && progress[0].hash == hash(1));
    assert!(told, "{out:?}");
}

#[test]
fn a_transfer_that_goes_on_is_not_taken_for_dead() {
    let mut bench = Bench::new(&[holder(2, true), holder(3, true)]);
    bench.want_new(hash(1), 100_000, request(1));
    for _ in 0..20 {
        bench.pass(1_000);
        bench.act(|wants, now, _| wants.arriving(now, FetchId(1)));
    }
    assert_eq!(bench.flights.len(), 1);
    bench.pass(50_000);
    assert!(bench.ended.is_empty(), "bytes have come, so it is waited for");
}

/// Members with a session, near or not, beside the far holder 2 of the blob.
fn among(members: &[(u8, bool)]) -> Bench {
    let mut bench = Bench::new(&[holder(2, true)]);
    bench.world.0.insert(digest(9), members.iter().map(|(n, far)| holder(*n, *far)).collect());
    bench.world.1 = members.iter().map(|(n, far)| (node(*n), *far)).collect();
    bench
}

#[test]
fn nobody_is_waited_for_once_all_neighbours_have_answered() {
    let mut bench = among(&[(3, false), (4, false)]);
    bench.want_new(hash(1), 4 * MIB, request(1));
    says(&mut bench, node(3), Extent::Dropped);
    assert!(bench.flights.is_empty(), "one may want it too");
    says(&mut bench, node(4), Extent::Dropped);
    assert!(!bench.flights.is_empty());
}

#[test]
fn a_neighbour_that_does_not_answer_is_waited_for_a_moment() {
    let mut bench = among(&[(3, false), (4, false)]);
    bench.want_new(hash(1), 4 * MIB, request(1));
    says(&mut bench, node(3), Extent::Dropped);
    bench.now += 200;
    bench.act(|_, _, _| {});
    assert!(bench.flights.is_empty());
    bench.pass(250);
    assert!(!bench.flights.is_empty());

    let mut bench = among(&[(3, false)]);
    bench.want_new(hash(1), 4 * MIB, request(1));
    bench.act(|wants, now, out| wants.peer_down(now, &node(3), out));
    assert!(!bench.flights.is_empty(), "it is gone");
}

#[test]
fn who_asks_is_answered_also_where_it_is_not_wanted() {
    let mut bench = among(&[(3, false)]);
    let mut answer = |held: &[Hash], extent: Extent| {
        let mut out = Vec::new();
        let (held, progress) = (held.iter().copied().collect(), vec![Progress { hash: hash(1), extent }]);
        bench.wants.heard(Time(0), node(3), progress, &held, &bench.world, &mut out);
        match &out[..] {
            [] => None,
            [Output::Send { to, message: Message::Progress(told) }] if *to == node(3) && told.len() == 1 => {
                Some(told[0].extent.clone())
            }
            other => panic!("{other:?}"),
        }
    };
    let nothing = Extent::Partial { have: vec![], coming: vec![] };
    assert_eq!(answer(&[], nothing.clone()), Some(Extent::Dropped));
    assert_eq!(answer(&[hash(1)], nothing), Some(Extent::Whole));
    assert_eq!((answer(&[], Extent::Dropped), answer(&[], Extent::Whole)), (None, None), "answers end there");
}
