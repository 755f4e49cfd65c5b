//! Cases whose result can be computed by hand.

use super::*;

const MB: u64 = 1_000_000;

fn fluid() -> Flows {
    Flows::new(Config::fluid(MILLISECOND))
}

fn route(from: u32, to: u32, path: &[Resource]) -> Route {
    Route { from, to, path: Path::of(path), round_trip: 0, cap: None, weight: 1 }
}

/// Runs until nothing happens any more; what ended when.
fn finish(flows: &mut Flows) -> Vec<(FlowId, Nanos)> {
    let mut ended = vec![];
    let mut now = 0;
    for _ in 0..1_000_000 {
        let Some(at) = flows.due() else { return ended };
        now = now.max(at);
        ended.extend(flows.advance(now).into_iter().map(|flow| (flow, now)));
    }
    panic!("never at rest");
}

#[track_caller]
fn close(found: Nanos, seconds: f64) {
    let found = found as f64 / SECOND as f64;
    assert!((found - seconds).abs() <= 1e-6 + seconds * 1e-6, "{found} s and not {seconds} s");
}

/// Rounded down, so a byte may still be on its way.
#[track_caller]
fn almost(found: u64, bytes: u64) {
    assert!(found == bytes || found + 1 == bytes, "{found} bytes and not {bytes}");
}

#[test]
fn flows_over_one_link_share_it() {
    let mut flows = fluid();
    let link = flows.resource(10 * MB);
    for number in 0..5 {
        flows.start(0, &route(0, 1 + number, &[link]), 10 * MB, Class::Background);
    }
    let ended = finish(&mut flows);
    assert_eq!(ended.len(), 5);
    for (_, at) in ended {
        close(at, 5.0);
    }
    assert_eq!(flows.carried(10 * SECOND, link), 50 * MB);
    assert_eq!(flows.active(), 0);
}

#[test]
fn what_one_does_not_use_the_other_gets() {
    // Over the wide link of 10 both; the first goes on over one of 2, so the second gets 8.
    let mut flows = fluid();
    let (wide, thin) = (flows.resource(10 * MB), flows.resource(2 * MB));
    let first = flows.start(0, &route(0, 1, &[wide, thin]), 4 * MB, Class::Background);
    let second = flows.start(0, &route(0, 2, &[wide]), 8 * MB, Class::Background);
    flows.advance(0);
    assert_eq!((flows.rate(0, 1), flows.rate(0, 2)), (2 * MB, 8 * MB));
    let ended = finish(&mut flows);
    assert_eq!(ended.iter().map(|(flow, _)| *flow).collect::<Vec<_>>(), [second, first]);
    close(ended[0].1, 1.0);
    close(ended[1].1, 2.0);
}

#[test]
fn the_last_of_two_gets_all() {
    // Both at 5 until the short one's 5 are there at 1 s; then 10: 15 MB after 1 + 10 / 10 s.
    let mut flows = fluid();
    let link = flows.resource(10 * MB);
    flows.start(0, &route(0, 1, &[link]), 5 * MB, Class::Background);
    flows.start(0, &route(0, 2, &[link]), 15 * MB, Class::Background);
    let ended = finish(&mut flows);
    close(ended[0].1, 1.0);
    close(ended[1].1, 2.0);
}

#[test]
fn a_chain_is_as_fast_as_its_narrowest_link() {
    let mut flows = fluid();
    let links: Vec<_> = [9, 4, 7].iter().map(|rate| flows.resource(rate * MB)).collect();
    flows.start(0, &route(0, 1, &links), 8 * MB, Class::Background);
    close(finish(&mut flows)[0].1, 2.0);
}

#[test]
fn in_a_parking_lot_the_long_way_gets_its_fair_share() {
    // Three links of 1, 2 and 3 in a row, a long flow over all and a short one over each: 0.5; 0.5, 1.5, 2.5.
    let mut flows = fluid();
    let links: Vec<_> = [1, 2, 3].iter().map(|rate| flows.resource(rate * MB)).collect();
    flows.start(0, &route(0, 1, &links), MB, Class::Background);
    for (number, link) in links.iter().enumerate() {
        flows.start(0, &route(10, number as u32, &[*link]), MB, Class::Background);
    }
    flows.advance(0);
    let rates: Vec<_> = (0..3).map(|number| flows.rate(10, number)).collect();
    assert_eq!((flows.rate(0, 1), rates), (MB / 2, vec![MB / 2, 3 * MB / 2, 5 * MB / 2]));
}

#[test]
fn a_server_serves_its_clients_one_after_another_or_all_at_once_in_the_same_time() {
    // N F / u.
    let mut flows = fluid();
    let up = flows.resource(20 * MB);
    for client in 0..10 {
        let down = flows.resource(100 * MB);
        flows.start(0, &route(0, 1 + client, &[up, down]), 30 * MB, Class::Background);
    }
    for (_, at) in finish(&mut flows) {
        close(at, 15.0);
    }
}

#[test]
fn peers_that_relay_reach_the_bound_of_kumar_and_ross() {
    // A source of 10, two peers with 5 up each: N F / (u_S + sum u_i) = 2 x 20 / 20 = 2 s. The source sends each
    // half of the file, and the peers exchange halves: 10 MB at 5 each, all in the same two seconds.
    let mut flows = fluid();
    let (source, one, two) = (flows.resource(10 * MB), flows.resource(5 * MB), flows.resource(5 * MB));
    flows.start(0, &route(0, 1, &[source]), 10 * MB, Class::Background);
    flows.start(0, &route(0, 2, &[source]), 10 * MB, Class::Background);
    flows.start(0, &route(1, 2, &[one]), 10 * MB, Class::Background);
    flows.start(0, &route(2, 1, &[two]), 10 * MB, Class::Background);
    for (_, at) in finish(&mut flows) {
        close(at, 2.0);
    }
}

#[test]
fn a_capacity_that_changes_counts_at_once() {
    // 10 MB/s for 1 s, nothing for 2 s, then 5 MB/s for the other 10 MB.
    let mut flows = fluid();
    let link = flows.resource(10 * MB);
    let flow = flows.start(0, &route(0, 1, &[link]), 20 * MB, Class::Background);
    flows.advance(SECOND);
    flows.set_capacity(SECOND, link, 0);
    almost(flows.moved(3 * SECOND, flow), 10 * MB);
    assert_eq!(flows.due(), None, "nothing moves");
    flows.set_capacity(3 * SECOND, link, 5 * MB);
    almost(flows.moved(4 * SECOND, flow), 15 * MB);
    let ended = finish(&mut flows);
    close(ended[0].1, 5.0);
    assert_eq!(flows.carried(9 * SECOND, link), 20 * MB);
}

#[test]
fn a_cap_holds_one_and_leaves_the_rest_to_others() {
    let mut flows = fluid();
    let link = flows.resource(10 * MB);
    let capped = Route { cap: Some(MB), ..route(0, 1, &[link]) };
    flows.start(0, &capped, MB, Class::Background);
    flows.start(0, &route(0, 2, &[link]), 9 * MB, Class::Background);
    for (_, at) in finish(&mut flows) {
        close(at, 1.0);
    }
}

#[test]
fn weights_are_shares() {
    let mut flows = fluid();
    let link = flows.resource(9 * MB);
    flows.start(0, &Route { weight: 2, ..route(0, 1, &[link]) }, 6 * MB, Class::Background);
    flows.start(0, &route(0, 2, &[link]), 3 * MB, Class::Background);
    for (_, at) in finish(&mut flows) {
        close(at, 1.0);
    }
}

#[test]
fn a_session_that_is_cut_goes_on_when_it_is_mended() {
    let mut flows = fluid();
    let link = flows.resource(10 * MB);
    let cut = flows.start(0, &route(0, 1, &[link]), 10 * MB, Class::Background);
    flows.start(0, &route(0, 2, &[link]), 20 * MB, Class::Background);
    flows.advance(SECOND);
    flows.set_caps(SECOND, |_, to| (to == 1).then_some(0));
    almost(flows.moved(2 * SECOND, cut), 5 * MB);
    assert_eq!(flows.rate(0, 2), 10 * MB);
    flows.advance(2 * SECOND);
    flows.set_caps(2 * SECOND, |_, _| None);
    let ended = finish(&mut flows);
    close(ended[0].1, 3.0);
    close(ended[1].1, 3.0);
}

#[test]
fn requests_of_one_session_share_its_rate() {
    let mut flows = fluid();
    let link = flows.resource(10 * MB);
    // 5 each, until the short one has its 5 at 1 s; the other's last 10 at 10.
    flows.start(0, &route(0, 1, &[link]), 5 * MB, Class::Background);
    flows.start(0, &route(0, 1, &[link]), 15 * MB, Class::Background);
    flows.advance(0);
    assert_eq!(flows.solutions(), 1);
    let ended = finish(&mut flows);
    close(ended[0].1, 1.0);
    close(ended[1].1, 2.0);
}

#[test]
fn another_request_of_a_session_needs_no_solution() {
    let mut flows = fluid();
    let link = flows.resource(10 * MB);
    flows.start(0, &route(0, 1, &[link]), 50 * MB, Class::Background);
    flows.advance(0);
    for number in 1..20 {
        flows.start(number * SECOND / 10, &route(0, 1, &[link]), MB, Class::Background);
        flows.advance(number * SECOND / 10);
    }
    assert_eq!(flows.solutions(), 1);
}

#[test]
fn clients_go_first_within_a_session() {
    let mut flows = fluid();
    let link = flows.resource(10 * MB);
    let first = flows.start(0, &route(0, 1, &[link]), 20 * MB, Class::Background);
    flows.advance(SECOND);
    let client = flows.start(SECOND, &route(0, 1, &[link]), 10 * MB, Class::Client);
    let ended = finish(&mut flows);
    assert_eq!((ended[0].0, ended[1].0), (client, first));
    close(ended[0].1, 2.0);
    close(ended[1].1, 3.0);
}

#[test]
fn what_is_cancelled_says_how_far_it_was() {
    let mut flows = fluid();
    let link = flows.resource(10 * MB);
    let flow = flows.start(0, &route(0, 1, &[link]), 20 * MB, Class::Background);
    let other = flows.start(0, &route(0, 2, &[link]), 15 * MB, Class::Background);
    flows.advance(SECOND);
    almost(flows.cancel(SECOND, flow), 5 * MB);
    assert_eq!(flows.cancel(SECOND, flow), 0);
    let ended = finish(&mut flows);
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].0, other);
    close(ended[0].1, 2.0);
    almost(flows.carried(3 * SECOND, link), 20 * MB);
}

#[test]
fn an_id_is_not_used_again() {
    let mut flows = fluid();
    let link = flows.resource(MB);
    let first = flows.start(0, &route(0, 1, &[link]), MB, Class::Background);
    flows.cancel(0, first);
    let second = flows.start(0, &route(0, 1, &[link]), MB, Class::Background);
    assert_ne!(first, second);
    assert_eq!(flows.cancel(0, first), 0);
    let ended = finish(&mut flows);
    assert_eq!(ended[0].0, second);
    close(ended[0].1, 1.0);
}

#[test]
fn the_first_byte_takes_a_round_trip_and_opening_another() {
    let mut flows = Flows::new(Config { initial_window: 0, ..Config::default() });
    let link = flows.resource(10 * MB);
    let far = Route { round_trip: 100 * MILLISECOND, ..route(0, 1, &[link]) };
    flows.start(0, &far, 10 * MB, Class::Background);
    close(finish(&mut flows)[0].1, 1.2);
    // Open already.
    let at = 12 * SECOND / 10;
    flows.start(at, &far, 10 * MB, Class::Background);
    close(finish(&mut flows)[0].1, 1.2 + 1.1);
    // Idle for long.
    let at = 10 * SECOND;
    flows.start(at, &far, 10 * MB, Class::Background);
    close(finish(&mut flows)[0].1, 11.2);
}

/// Seconds that bytes take over a link that is theirs alone, by slow start: rounds of a doubling window until the
/// window is what the link carries in a round, then as fast as the link.
fn slow_start(bytes: f64, rate: f64, round: f64) -> f64 {
    let (mut left, mut window, mut seconds) = (bytes, 14_600.0, 0.0);
    while window < rate * round {
        if left <= window {
            return seconds + left * round / window;
        }
        left -= window;
        seconds += round;
        window *= 2.0;
    }
    seconds + left / rate
}

#[test]
fn a_session_starts_slowly() {
    for (bytes, rate, round) in [
        (10_000, 10 * MB, 100 * MILLISECOND),
        (100_000, 10 * MB, 100 * MILLISECOND),
        (MB, 10 * MB, 100 * MILLISECOND),
        (50 * MB, 10 * MB, 100 * MILLISECOND),
        (4 * MB, 100 * MB, 500_000),
        (MB, MB, 10 * MILLISECOND),
    ] {
        let mut flows = Flows::new(Config { handshakes: 0, ..Config::default() });
        let link = flows.resource(rate);
        let far = Route { round_trip: round, ..route(0, 1, &[link]) };
        flows.start(0, &far, bytes, Class::Background);
        let seconds = round as f64 / 1e9;
        close(finish(&mut flows)[0].1, seconds + slow_start(bytes as f64, rate as f64, seconds));
        // As many round trips as doublings: log2(F / IW).
        let rounds = (bytes as f64 / 14_600.0 + 1.0).log2().ceil();
        assert!(slow_start(bytes as f64, 1e12, seconds) <= rounds * seconds + 1e-9);
    }
}

#[test]
fn what_a_slow_start_leaves_others_use() {
    // A round of 100 ms: the newcomer has 146 kB/s in it, the other all else.
    let mut flows = Flows::new(Config { handshakes: 0, ..Config::default() });
    let link = flows.resource(10 * MB);
    flows.start(0, &route(0, 1, &[link]), 100 * MB, Class::Background);
    flows.advance(0);
    let far = Route { round_trip: 100 * MILLISECOND, ..route(0, 2, &[link]) };
    flows.start(0, &far, 100 * MB, Class::Background);
    flows.advance(120 * MILLISECOND);
    assert_eq!((flows.rate(0, 2), flows.rate(0, 1)), (146_000, 10 * MB - 146_000));
    flows.advance(2 * SECOND);
    assert_eq!((flows.rate(0, 2), flows.rate(0, 1)), (5 * MB, 5 * MB));
}

#[test]
fn parts_that_share_nothing_are_not_solved_again() {
    let mut flows = fluid();
    let links: Vec<_> = (0..10).map(|_| flows.resource(MB)).collect();
    for link in &links {
        flows.start(0, &route(link.0, 100, &[*link]), 10 * MB, Class::Background);
    }
    flows.advance(0);
    let before: Vec<_> = flows.resources.iter().map(|resource| resource.solved).collect();
    flows.start(SECOND, &route(0, 101, &links[..1]), MB, Class::Background);
    flows.advance(SECOND);
    let solved: Vec<_> = flows.resources.iter().map(|resource| resource.solved).collect();
    assert_eq!(solved[0], Some(SECOND));
    assert_eq!(solved[1..], before[1..]);
}

#[test]
fn sessions_that_were_idle_for_long_are_forgotten() {
    let mut flows = fluid();
    let link = flows.resource(1_000 * MB);
    for number in 0..3 * SESSIONS_KEPT as u64 {
        let at = number * SECOND;
        flows.start(at, &route(0, number as u32, &[link]), 1, Class::Background);
        flows.advance(at + SECOND / 2);
    }
    assert!(flows.pairs.len() <= SESSIONS_KEPT && flows.sessions.len() <= SESSIONS_KEPT);
}
