//! What goes wrong in a setup goes wrong: each test fails if its action did nothing.

use waystation_proto::{RepoName, Tag};
use waystation_sim::{
    World,
    measure::{Measurement, RunId},
    setup::{Action, DiskState, MILLISECOND, Nanos, SECOND, Setup},
    world::How,
};
use waystation_topology::Place;

use crate::{MIB, carry_out, everybody_pulls, setup, sites, took};

const CLOUD: Place = Place { site: 0, node: 0 };

fn at(site: usize, node: usize) -> Place {
    Place { site, node }
}

/// The cloud has 20 MiB, which take 3.6 s over a site's line.
fn with(count: usize, nodes: usize, end: Nanos, actions: Vec<(Nanos, Action)>) -> Setup {
    let mut setup = setup(sites(count, nodes, "50 Mbit/s"), 20 * MIB, end);
    setup.actions.push((0, Action::Seed { artifact: 0, at: CLOUD }));
    setup.actions.extend(actions);
    setup
}

fn pull(time: Nanos, at: Place) -> (Nanos, Action) {
    (time, Action::Pull { artifact: 0, at })
}

/// When each pull was done, by site and node.
fn done(measured: &[Measurement]) -> Vec<(u64, f64)> {
    let pulls = measured.iter().filter_map(|measurement| match measurement {
        Measurement::Pull { site, done: Some(done), .. } => Some((*site, *done)),
        _ => None,
    });
    pulls.collect()
}

/// The world of a setup at a time of the setup's own; it begins half a minute after the world.
fn world_at(setup: &Setup, time: Nanos) -> World {
    let run = RunId { system: "waystation".into(), seed: setup.seed, variant: String::new() };
    let mut world = World::of_setup(setup, &How::plain(run));
    world.run_until(30_000 + time / MILLISECOND);
    world
}

#[test]
fn a_power_cut_stops_a_site_and_no_other() {
    let mut setup = with(2, 2, 180 * SECOND, vec![]);
    everybody_pulls(&mut setup);
    setup.actions.push((2 * SECOND, Action::PowerCut { site: 1, down: 20 * SECOND }));
    let (summary, measured) = carry_out(&setup);
    assert_eq!((summary.asked, summary.done), (4, 4));
    for (site, done) in done(&measured) {
        assert_eq!(site == 1, done > 22.0, "site {site} at {done} s");
    }
}

#[test]
fn a_line_that_is_slower_is_slower_from_then_on() {
    let slow = (2 * SECOND, Action::Line { site: 1, up: 10_000_000, down: 5_000_000 });
    let setup = with(1, 1, 180 * SECOND, vec![pull(SECOND, at(1, 0)), slow]);
    let took = took(&carry_out(&setup).1)[0];
    // Some 5 of 21 MB in the first second, and the rest at 0.59 MB/s.
    assert!((25.0..32.0).contains(&took), "{took} s");
}

#[test]
fn a_line_of_no_rate_carries_nothing_until_it_has_one() {
    let line = |rate| Action::Line { site: 1, up: rate, down: rate };
    let actions = vec![pull(SECOND, at(1, 0)), (2 * SECOND, line(0)), (60 * SECOND, line(50_000_000))];
    let (summary, measured) = carry_out(&with(1, 1, 180 * SECOND, actions));
    assert_eq!(summary.done, 1);
    assert!(took(&measured)[0] > 59.0, "{:?}", took(&measured));
}

#[test]
fn nothing_comes_of_somebody_who_always_lies() {
    let lies = |every| vec![(0, Action::Lies { at: CLOUD, every }), pull(SECOND, at(1, 0))];
    let (summary, _) = carry_out(&with(1, 1, 120 * SECOND, lies(1)));
    assert_eq!((summary.asked, summary.done), (1, 0));
}

#[test]
fn a_liar_is_left_alone_where_there_is_another() {
    let mut actions = vec![(0, Action::Seed { artifact: 0, at: at(1, 0) }), pull(SECOND, at(2, 0))];
    let honest = took(&carry_out(&with(2, 1, 120 * SECOND, actions.clone())).1)[0];
    actions.push((0, Action::Lies { at: CLOUD, every: 4 }));
    let (summary, measured) = carry_out(&with(2, 1, 120 * SECOND, actions));
    assert_eq!((summary.asked, summary.done), (1, 1));
    assert!(took(&measured)[0] > honest, "{:?} s, and {honest} s where nobody lies", took(&measured));
}

#[test]
fn a_full_disk_takes_nothing_until_there_is_room() {
    let disk = |state| Action::Disk { at: at(1, 0), state };
    let mut actions = vec![(0, disk(DiskState::Full)), pull(SECOND, at(1, 0))];
    let (summary, _) = carry_out(&with(1, 1, 180 * SECOND, actions.clone()));
    assert_eq!((summary.asked, summary.done), (1, 0));
    actions.push((60 * SECOND, disk(DiskState::Works)));
    let (summary, measured) = carry_out(&with(1, 1, 180 * SECOND, actions));
    assert_eq!(summary.done, 1);
    assert!(took(&measured)[0] > 59.0);
}

#[test]
fn a_slow_disk_is_waited_for() {
    let actions = vec![pull(SECOND, at(1, 0))];
    let usual = took(&carry_out(&with(1, 1, 180 * SECOND, actions.clone())).1)[0];
    let slow = (0, Action::Disk { at: at(1, 0), state: DiskState::Slow });
    let (_, measured) = carry_out(&with(1, 1, 180 * SECOND, [vec![slow], actions].concat()));
    assert!(took(&measured)[0] > usual + 1.0, "{:?} s, usually {usual} s", took(&measured));
}

#[test]
fn what_is_rotten_is_not_served_and_comes_back_from_others() {
    let rot = (2 * SECOND, Action::Rot { at: CLOUD, artifact: 0 });
    let (summary, _) = carry_out(&with(1, 1, 120 * SECOND, vec![rot.clone(), pull(3 * SECOND, at(1, 0))]));
    assert_eq!((summary.asked, summary.done), (1, 0), "nobody else has it");
    let other = (0, Action::Seed { artifact: 0, at: at(2, 0) });
    let setup = with(2, 1, 180 * SECOND, vec![other, rot, pull(90 * SECOND, at(1, 0))]);
    let held = |time| {
        let world = world_at(&setup, time);
        let first = world.content().artifacts()[0].index.closure().next().and_then(|(_, hash)| hash.into());
        world.hosts[0].disk.holds(&first.expect("a layer"))
    };
    assert!(held(SECOND) && !held(33 * SECOND), "found within half a minute");
    let (summary, _) = carry_out(&setup);
    assert_eq!(summary.done, 1);
}

#[test]
fn a_calendar_that_is_set_shows_and_decides_nothing() {
    let year = 365 * 86_400;
    let publish = |time, artifact| (time, Action::Publish { artifact, at: CLOUD });
    let clock = (5 * SECOND, Action::Clock { at: CLOUD, seconds: -year });
    let mut setup = with(1, 2, 60 * SECOND, vec![publish(SECOND, 0), clock, publish(10 * SECOND, 1)]);
    setup.artifacts.push(setup.artifacts[0].clone());
    let wall = |time: Nanos| world_at(&setup, time).hosts[0].clocks(time).wall.0 as i64;
    assert!((wall(6 * SECOND) - wall(4 * SECOND) + year).abs() < 10, "a year back");
    let world = world_at(&setup, 30 * SECOND);
    let (repository, tag): (RepoName, Tag) = ("team/app".parse().unwrap(), "v1".parse().unwrap());
    let second = world.content().artifacts()[1].index.manifest;
    for host in &world.hosts {
        let catalog = host.replica().expect("up").catalog();
        assert_eq!(catalog.tag(&repository, &tag), Some(second), "host {}", host.number);
    }
}

#[test]
fn who_joins_late_is_not_there_before() {
    let join = (30 * SECOND, Action::Join { at: at(1, 1) });
    let pulls = [pull(5 * SECOND, at(1, 1)), pull(60 * SECOND, at(1, 1))];
    let setup = with(1, 2, 120 * SECOND, [vec![join], pulls.to_vec()].concat());
    let up = |time| world_at(&setup, time).hosts[2].is_up();
    assert!(!up(29 * SECOND) && up(31 * SECOND));
    let (summary, measured) = carry_out(&setup);
    assert_eq!((summary.asked, summary.done), (1, 1), "{measured:?}");
}

#[test]
fn a_deleted_tag_is_gone_everywhere() {
    let untag = (10 * SECOND, Action::Untag { artifact: 0, at: CLOUD });
    let setup = with(2, 2, 60 * SECOND, vec![untag]);
    let (repository, tag): (RepoName, Tag) = ("team/app".parse().unwrap(), "v1".parse().unwrap());
    let knows = |time| {
        let world = world_at(&setup, time);
        let knows = |host: &waystation_sim::host::Host| {
            host.replica().is_some_and(|replica| replica.catalog().tag(&repository, &tag).is_some())
        };
        world.hosts.iter().filter(|host| knows(host)).count()
    };
    assert_eq!((knows(9 * SECOND), knows(20 * SECOND)), (5, 0));
}

#[test]
fn a_stale_node_has_and_says_what_it_did_before() {
    let stale = [
        (2 * SECOND, Action::Remember { at: at(1, 0) }),
        (30 * SECOND, Action::Stale { at: at(1, 0), down: 10 * SECOND }),
    ];
    let publish = (20 * SECOND, Action::Publish { artifact: 1, at: CLOUD });
    let pulls = [pull(5 * SECOND, at(1, 0)), pull(60 * SECOND, at(1, 0))];
    let mut setup = with(1, 1, 120 * SECOND, [vec![publish], pulls.to_vec(), stale.to_vec()].concat());
    setup.artifacts.push(setup.artifacts[0].clone());
    let (summary, measured) = carry_out(&setup);
    assert_eq!((summary.asked, summary.done), (2, 2));
    assert!(took(&measured).iter().all(|took| *took > 1.0), "it has to fetch again: {:?}", took(&measured));
    // Its old words do not take the tag back, for others or for itself.
    let world = world_at(&setup, 100 * SECOND);
    let (repository, tag): (RepoName, Tag) = ("team/app".parse().unwrap(), "v1".parse().unwrap());
    let second = world.content().artifacts()[1].index.manifest;
    let tags = world.hosts.iter().map(|host| host.replica().expect("up").catalog().tag(&repository, &tag));
    assert!(tags.into_iter().all(|target| target == Some(second)));
}
