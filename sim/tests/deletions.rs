//! What was deleted, moved or revoked stays so, however long a node with the old state was away.

use waystation_proto::{
    Digest, Input, RepoName, Tag,
    body::{State, StatusBody},
    record::Key,
};
use waystation_sim::{Options, World};

const DAY: u64 = 86_400_000;
const MINUTE: u64 = 60_000;

fn repository() -> RepoName {
    "team/app".parse().expect("a repository's name")
}

fn tag(name: &str) -> Tag {
    name.parse().expect("a tag")
}

fn manifest(world: &World, artifact: usize) -> Digest {
    world.content().artifacts()[artifact].index.manifest
}

/// Four nodes on two sites that know three artifacts: one to be deleted, one to be revoked, one that stays.
fn world(seed: u64) -> (World, [usize; 3]) {
    let mut world = World::new(Options { sites: 2, granted: 2, ..Options::calm(seed, 4) });
    world.run_until(10_000);
    let names = ["old", "bad", "latest"];
    let artifacts = names.map(|name| world.push(0, &repository(), &[tag(name)]));
    world.run_until(40_000);
    assert_eq!(world.converged(), Ok(()));
    (world, artifacts)
}

/// One artifact and its tag go, one is revoked, and `latest` moves on, twice; what it points at now.
fn change(world: &mut World, [old, bad, _]: [usize; 3]) -> usize {
    let (deleted, revoked) = (manifest(world, old), manifest(world, bad));
    world.operator(0, |request| Input::Unpublish { request, repository: repository(), manifest: deleted });
    world.operator(0, |request| Input::SetStatus {
        request,
        repository: repository(),
        manifest: revoked,
        state: State::Revoked,
        reason: "it leaks".into(),
    });
    world.push(1, &repository(), &[tag("latest")]);
    world.run_until(world.now() + 20_000);
    let newest = world.push(0, &repository(), &[tag("latest")]);
    world.run_until(world.now() + 40_000);
    newest
}

fn check(world: &World, [old, bad, _]: [usize; 3], newest: usize) {
    for host in &world.hosts {
        let catalog = host.replica().expect("runs").catalog();
        assert_eq!(catalog.artifact(&repository(), &manifest(world, old)), None, "host {}", host.number);
        assert_eq!(catalog.tag(&repository(), &tag("old")), None, "host {}", host.number);
        let latest = catalog.tag(&repository(), &tag("latest"));
        assert_eq!(latest, Some(manifest(world, newest)), "host {}", host.number);
        let status = catalog.get(&Key::status(&repository(), &manifest(world, bad)));
        let status = status.and_then(|record| record.read::<StatusBody>().ok()).map(|body| body.state);
        assert_eq!(status, Some(State::Revoked), "host {}", host.number);
    }
}

#[test]
fn a_node_that_was_away_for_a_month_brings_nothing_back() {
    for seed in 1..=4 {
        let (mut world, artifacts) = world(seed);
        let back = world.now() + 31 * DAY;
        world.stop_for(3, 31 * DAY);
        let newest = change(&mut world, artifacts);
        check_those_up(&world, artifacts, newest);
        // Whoever knows of it is off for most of that time too, and comes back before or after.
        for host in 0..3 {
            let after = if seed % 2 == 0 { MINUTE } else { 0 };
            let until = back + after - MINUTE / 2;
            world.stop_for(host, until - world.now());
        }
        world.run_until(back + MINUTE);
        assert!(world.settle(5 * MINUTE).is_some(), "{}", world.report(None));
        check(&world, artifacts, newest);
        assert_eq!(world.report(None).violations, [], "no tag went back at any moment either");
    }
}

fn check_those_up(world: &World, [old, ..]: [usize; 3], newest: usize) {
    for host in world.hosts.iter().filter_map(|host| host.replica()) {
        assert_eq!(host.catalog().artifact(&repository(), &manifest(world, old)), None);
        assert_eq!(host.catalog().tag(&repository(), &tag("latest")), Some(manifest(world, newest)));
    }
}

/// A publisher that has not heard of a month's work writes with an old counter: its write is history.
#[test]
fn a_stale_publisher_does_not_move_a_tag_back() {
    let (mut world, artifacts) = world(9);
    world.stop_for(1, DAY);
    let back = world.now() + DAY;
    for _ in 0..3 {
        world.push(0, &repository(), &[tag("latest")]);
        world.run_until(world.now() + 5_000);
    }
    let newest = world.push(0, &repository(), &[tag("latest")]);
    world.run_until(world.now() + 10_000);
    for host in [0, 2, 3] {
        world.stop_for(host, back + 10_000 - world.now());
    }
    world.run_until(back + 1_000);
    world.push(1, &repository(), &[tag("latest")]);
    world.run_until(back + MINUTE);
    assert!(world.settle(5 * MINUTE).is_some(), "{}", world.report(None));
    for host in &world.hosts {
        let catalog = host.replica().expect("runs").catalog();
        assert_eq!(catalog.tag(&repository(), &tag("latest")), Some(manifest(&world, newest)));
        let kept = catalog.artifact(&repository(), &manifest(&world, artifacts[0]));
        assert!(kept.is_some(), "host {}", host.number);
    }
    assert_eq!(world.report(None).violations, []);
}
