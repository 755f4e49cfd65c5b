//! Every checker finds what it is there for: each promise is broken here on purpose. A checker that cannot fail
//! checks nothing.

use std::collections::BTreeSet;

use ed25519_dalek::SigningKey;
use waystation_proto::{
    Change, Digest, Event, Hash, Input, NodeId, Output, RepoName, RequestId, Shared, Tag,
    body::{HoldingState, TagBody},
    event::WriteId,
    time::{Span, Wall},
};
use waystation_sim::{
    Options, World,
    check::{
        bounds, convergence, durability, holdings, integrity, liveness,
        memory::{self, Known},
        retention::Retention,
        tags::Tags,
    },
    rogue::unknown,
    workload::Workload,
};

/// Four nodes on two sites, one artifact at the first of them, everybody told.
fn world() -> (World, usize) {
    let mut world = World::new(Options { sites: 2, granted: 2, ..Options::calm(5, 4) });
    world.run_until(10_000);
    let artifact = world.push(0, &repository(), &["latest".parse().expect("a tag")]);
    world.run_until(40_000);
    assert_eq!(world.converged(), Ok(()));
    (world, artifact)
}

fn repository() -> RepoName {
    "team/app".parse().expect("a repository's name")
}

fn manifest(world: &World, artifact: usize) -> Digest {
    world.content().artifacts()[artifact].index.manifest
}

#[test]
fn convergence_finds_a_record_that_one_node_does_not_know() {
    let (mut world, _) = world();
    let record = unknown(&world.trust().mesh, &SigningKey::from_bytes(&[7; 32]), 1);
    let nowhere = convergence::equal(&world.hosts, std::slice::from_ref(&record));
    assert!(nowhere.is_err_and(|text| text.contains("known nowhere")));
    world.hosts[1].handle(0, Input::Received { from: NodeId([9; 32]), message: records(record) });
    assert!(world.converged().is_err_and(|text| text.contains("lacks 1 of kind 4242")));
    // What has left for good need not know it.
    for host in [0, 2, 3] {
        world.hosts[host].left = true;
    }
    assert_eq!(world.converged(), Ok(()));
}

fn records(record: Shared) -> waystation_proto::wire::Message {
    waystation_proto::wire::Message::Records(vec![record])
}

#[test]
fn durability_finds_a_word_that_was_forgotten() {
    let (world, _) = world();
    let host = &world.hosts[0];
    let own: Vec<Shared> = host
        .replica()
        .expect("runs")
        .catalog()
        .iter()
        .filter(|record| record.author == host.id)
        .cloned()
        .collect();
    assert!(!own.is_empty());
    assert_eq!(durability::own_words(host, &own), Ok(()));
    let mut newer = (*own[0]).clone();
    newer.version += 1;
    assert!(durability::own_words(host, &[newer.into()]).is_err());
}

#[test]
fn tags_finds_one_that_goes_back() {
    let mut tags = Tags::default();
    let tag: Tag = "latest".parse().expect("a tag");
    let write = |version: u64| Change::Tag {
        repository: repository(),
        tag: tag.clone(),
        body: TagBody { target: None },
        version,
        author: NodeId([1; 32]),
        authored: Wall(0),
    };
    assert_eq!(tags.changed(0, &write(2)), Ok(()));
    assert_eq!(tags.changed(1, &write(1)), Ok(()), "another host may be behind");
    assert!(tags.changed(0, &write(1)).is_err());
}

#[test]
fn integrity_finds_wrong_bytes_and_records_that_do_not_count() {
    let (world, artifact) = world();
    let (host, content) = (&world.hosts[0], world.content());
    let (hash, size) = (content.artifacts()[artifact].index.hash, content.artifacts()[artifact].index.size);
    let digest = manifest(&world, artifact);
    assert_eq!(integrity::seal(host, content, &hash, size, Some(digest)), Ok(()));
    assert!(integrity::seal(host, content, &hash, size + 1, Some(digest)).is_err(), "another size");
    assert!(integrity::seal(host, content, &hash, size, Some(Digest::Sha256([0; 32]))).is_err());
    assert!(integrity::seal(host, content, &Hash([0; 32]), size, None).is_err(), "no such blob");
    assert!(integrity::seal(&world.hosts[3], content, &hash, size, Some(digest)).is_err(), "not all here");
    let known = host.replica().and_then(|replica| replica.catalog().iter().next()).expect("a record").id();
    assert!(integrity::clean(host, &[known]).is_err());
}

#[test]
fn holdings_finds_who_says_to_hold_what_it_lacks_and_who_does_not_say_what_it_holds() {
    let (mut world, artifact) = world();
    let (manifest, hash) = (manifest(&world, artifact), world.content().artifacts()[artifact].index.hash);
    assert_eq!(holdings::told(&world.hosts[0], world.content(), &BTreeSet::new()), Ok(()));
    let silent = holdings::told(&world.hosts[3], world.content(), &BTreeSet::from([(3, manifest)]));
    assert_eq!(silent, Ok(()), "it has not got it");
    world.hosts[0].disk.lose(&hash);
    let wrong = holdings::told(&world.hosts[0], world.content(), &BTreeSet::new());
    assert!(wrong.is_err_and(|text| text.contains("but lacks")));
    for (hash, size) in world.content().artifacts()[artifact].blobs() {
        world.hosts[3].disk.seal(hash, size);
    }
    let silent = holdings::told(&world.hosts[3], world.content(), &BTreeSet::from([(3, manifest)]));
    assert!(silent.is_err_and(|text| text.contains("does not say")));
}

#[test]
fn holdings_finds_a_site_whose_copy_others_do_not_know_of() {
    let (mut world, artifact) = world();
    let manifest = manifest(&world, artifact);
    assert_eq!(holdings::found(&world.hosts, world.content()), Ok(()));
    // It is the first of its site, and what it says goes nowhere.
    let keeping = Input::Keeping { manifest, state: HoldingState::Complete };
    let outputs = world.hosts[3].handle(0, keeping);
    let write = outputs.iter().find_map(|output| match output {
        Output::Persist { write, .. } => Some(*write),
        _ => None,
    });
    world.hosts[3].handle(0, Input::Persisted { write: write.expect("a record is written") });
    let lost = holdings::found(&world.hosts, world.content());
    assert!(lost.is_err_and(|text| text.contains("knows no holder")));
}

#[test]
fn liveness_finds_who_waits_and_who_is_alone() {
    let (mut world, artifact) = world();
    assert_eq!(liveness::connected(&world.hosts), Ok(()));
    let workload = Workload::new(&world.options);
    assert_eq!(liveness::done(&world.hosts, world.content(), &workload), Ok(()));
    let input = Input::WantArtifact {
        request: RequestId(1 << 39),
        repository: repository(),
        manifest: manifest(&world, artifact),
        closure: true,
    };
    // Whatever it does about that never happens.
    let now = world.now() * waystation_sim::setup::MILLISECOND;
    world.hosts[3].handle(now, input);
    assert!(
        liveness::done(&world.hosts, world.content(), &workload).is_err_and(|text| text.contains("wants"))
    );
    world.hosts[3].peers.clear();
    assert!(liveness::connected(&world.hosts).is_err());
}

#[test]
fn bounds_finds_messages_and_answers_that_are_too_large() {
    let (world, _) = world();
    let persist = Output::Persist { write: WriteId(1), records: vec![], within: Span::default() };
    assert_eq!(bounds::after(&world.hosts[0], std::slice::from_ref(&persist)), Ok(()));
    assert!(bounds::after(&world.hosts[0], &vec![persist; 3_000]).is_err());
    assert!(bounds::message(&[0xff; 10], false).is_err(), "does not decode");
    let most = waystation_proto::wire::Message::MAX_BYTES;
    assert!(bounds::message(&vec![0; most + 1], false).is_err_and(|text| text.contains("are allowed")));
}

#[test]
fn memory_finds_a_catalog_that_grows_with_nothing_to_know() {
    let (world, _) = world();
    let known = Known { nodes: 4, artifacts: 1, tags: 1, planted: 0 };
    assert_eq!(memory::within(&world.hosts[0], known), Ok(()));
    let nothing = Known { nodes: 1, artifacts: 0, tags: 0, planted: 0 };
    assert!(memory::within(&world.hosts[0], nothing).is_err());
}

#[test]
fn retention_finds_what_was_pinned_not_promised_or_the_last_copy() {
    let (mut world, number) = world();
    let manifest = manifest(&world, number);
    let artifact = world.content().artifacts()[number].clone();
    let frees = artifact.blobs();
    let mut retention = Retention::default();
    let unpromised = retention.deletes(&world.hosts, 0, &artifact, &frees);
    assert!(unpromised.is_err_and(|text| text.contains("nobody promised")));
    retention.promised(0, manifest, 1);
    let last = retention.deletes(&world.hosts, 0, &artifact, &frees);
    assert!(last.is_err_and(|text| text.contains("last copy")));
    retention.promised(0, manifest, 1);
    retention.pinned(0, manifest, true);
    let pinned = retention.deletes(&world.hosts, 0, &artifact, &frees);
    assert!(pinned.is_err_and(|text| text.contains("pinned")));
    retention.pinned(0, manifest, false);
    for (hash, size) in &frees {
        world.hosts[1].disk.seal(*hash, *size);
    }
    assert_eq!(retention.deletes(&world.hosts, 0, &artifact, &frees), Ok(()));
    // And what is nowhere in the end was lost, unless a fault took the last copy.
    let hash = frees[1].0;
    assert_eq!(retention.nothing_lost(&world.hosts, world.content(), &[number]), Ok(()));
    world.hosts[0].disk.lose(&hash);
    retention.takes(&world.hosts, 0, &[hash], &[]);
    world.hosts[1].disk.lose(&hash);
    assert!(retention.nothing_lost(&world.hosts, world.content(), &[number]).is_err());
    retention.takes(&world.hosts, 1, &[hash], &[]);
    assert_eq!(retention.nothing_lost(&world.hosts, world.content(), &[number]), Ok(()));
}

#[test]
fn answers_finds_one_that_was_never_asked_for() {
    let mut workload = Workload::new(&Options::calm(5, 4));
    let answer = Event::Written { request: RequestId(1) };
    assert!(workload.answered(&answer, |_| true).is_err_and(|text| text.contains("never asked")));
}
