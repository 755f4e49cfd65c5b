//! A holder that lies, breaks off or says nothing harms nobody: clients get the right bytes from an honest
//! holder, wrong ones are neither served nor kept, and the liar is counted, told of and left alone.

use std::{
    collections::BTreeSet,
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use iroh_blobs::{
    Hash,
    protocol::{ChunkRanges, GetRequest},
};
use waystation_proto::{
    Digest, RepoName,
    body::{ArtifactBody, HoldingState, SummaryBody},
    record::Key,
    wire::Message,
};

use crate::{
    harness::{
        cluster::Cluster,
        image::{Image, digest, random_bytes},
        node::Node,
        wait::until_true,
    },
    holder::{Data, Lie, encoded},
    member::Member,
    watch::{MIB, Watch, assert_no_panic},
};

const LIED: &str = "waystation_holders_lied_total";

/// A member on both planes.
struct Liar {
    member: Member,
    data: Data,
}

/// What a lie is about.
#[derive(Clone, Copy, Debug)]
enum About {
    Index,
    Manifest,
    Layers,
}

impl Liar {
    /// Joins at `node`, whom no client has asked for the artifact yet, gets it from the first node, says to
    /// hold it, at the same site, and from then on lies about a part of it.
    #[track_caller]
    fn join(cluster: &Cluster, node: usize, image: &Image, tag: &str, (lie, about): (Lie, About)) -> Self {
        let mesh_file = cluster.options("x").mesh_file.unwrap();
        let site = format!("site-{node}");
        let (source, node) = (&cluster[0], &cluster[node]);
        let member = Member::new(&mesh_file);
        member.join(node);
        let (repository, manifest): (RepoName, Digest) =
            ("app".parse().unwrap(), image.digest().parse().unwrap());
        let key = Key::artifact(&repository, &manifest);
        let place =
            member.read_record(|record| record.key == key).read::<ArtifactBody>().unwrap().place.unwrap();
        let data = Data::member(&member.identity, &mesh_file);
        let index = Hash::from_bytes(place.index.0);
        data.fetch(source.ready("mesh_listen"), source.id(), index);
        let manifest_hash = data.add(&image.manifest);
        let blobs: BTreeSet<Hash> = image.blobs().map(|blob| data.add(blob)).collect();
        let about = match about {
            About::Index => BTreeSet::from([index]),
            About::Manifest => BTreeSet::from([manifest_hash]),
            About::Layers => blobs,
        };
        data.serve(lie, about);
        let held = SummaryBody { state: HoldingState::Complete, copies: 1 };
        let holding = member.record(Key::summary(&manifest, &member.id()), 1, &held);
        let address = data.address().to_string();
        member.say(&Message::Records(vec![member.node_record(&site, &address).into(), holding.into()]));
        let id = member.id().to_string();
        until_true("the node counts it as a holder", || {
            let told = node.cli(&["inspect", &format!("app:{tag}"), "--json"]);
            told.code == 0 && told.stdout.contains(&id)
        });
        Liar { member, data }
    }

    fn lies(&self) -> usize {
        self.data.lies.load(SeqCst)
    }
}

#[track_caller]
fn wait_until_complete(node: &Node, tag: &str) {
    until_true(&format!("{tag} is complete here"), || {
        node.cli_json(&["inspect", &format!("app:{tag}"), "--json"])["artifact"]["here"] == "complete"
    });
}

#[test]
fn wrong_bytes_are_seen_through_and_nothing_of_them_stays() {
    let mut cluster = Cluster::start(2);
    let mut published = vec![];
    let mut seed = 0;
    for lie in Lie::WRONG_BYTES {
        for about in [About::Index, About::Manifest, About::Layers] {
            seed += 1;
            let (tag, image) = (format!("v{seed}"), Image::random(seed, &[5_000, 400_000]));
            cluster[0].registry().push("app", &tag, &image);
            let liar = Liar::join(&cluster, 1, &image, &tag, (lie, about));
            let before = cluster[1].metric(LIED);
            let start = Instant::now();
            cluster[1].registry().assert_has("app", &tag, &image);
            println!("{lie:?} about {about:?}: right bytes after {:?}", start.elapsed());
            assert!(liar.lies() > 0, "{lie:?} about {about:?}: the liar was not asked");
            let told = cluster[1].metric(LIED) - before;
            assert!(told >= 1.0, "{lie:?} about {about:?}: not counted");
            assert!(told <= 16.0, "{lie:?} about {about:?}: asked again and again: {told}");
            let warned = format!("peer={}", liar.member.id().short());
            let log = cluster[1].log();
            assert!(
                log.lines().any(|line| line.contains("wrong bytes") && line.contains(&warned)),
                "{lie:?}"
            );
            wait_until_complete(&cluster[1], &tag);
            published.push((tag, image));
        }
    }
    assert_no_panic(&cluster[1]);
    // What is on disk is right: served by this node alone, after a start in which it is checked.
    cluster[0].kill();
    cluster[1].stop();
    cluster[1].start_again();
    for (tag, image) in &published {
        cluster[1].registry().assert_has("app", tag, image);
    }
}

#[test]
fn a_holder_that_breaks_off_costs_little_time() {
    let cluster = Cluster::start(2);
    for (n, lie) in Lie::NO_BYTES.into_iter().enumerate() {
        for about in [About::Index, About::Layers] {
            let (tag, image) = (
                format!("v{n}-{about:?}"),
                Image::random(50 + n as u64, &[400_000, 30_000 + about as usize]),
            );
            cluster[0].registry().push("app", &tag, &image);
            let liar = Liar::join(&cluster, 1, &image, &tag, (lie, about));
            let start = Instant::now();
            cluster[1].registry().assert_has("app", &tag, &image);
            let took = start.elapsed();
            println!("{lie:?} about {about:?}: right bytes after {took:?}");
            assert!(liar.lies() > 0, "{lie:?} about {about:?}: the liar was not asked");
            assert!(took < Duration::from_secs(20), "{lie:?} about {about:?}: took {took:?}");
        }
    }
    assert_no_panic(&cluster[1]);
}

#[test]
fn a_holder_that_stalls_holds_a_pull_up_and_does_not_stop_it() {
    let cluster = Cluster::start(2);
    let image = Image::random(70, &[400_000, 20_000]);
    cluster[0].registry().push("app", "v1", &image);
    let liar = Liar::join(&cluster, 1, &image, "v1", (Lie::Stall, About::Layers));
    let start = Instant::now();
    cluster[1].registry().assert_has("app", "v1", &image);
    println!(
        "a holder that stalls: right bytes after {:?}, {} requests stalled",
        start.elapsed(),
        liar.lies()
    );
    assert!(liar.lies() > 0, "the liar was not asked");
    assert_no_panic(&cluster[1]);
}

#[test]
fn what_only_a_liar_has_is_not_served() {
    let mut cluster = Cluster::start(2);
    for (n, lie) in [Lie::OneBit, Lie::Nothing].into_iter().enumerate() {
        let (tag, image) = (format!("v{n}"), Image::random(80 + n as u64, &[400_000]));
        cluster[0].registry().push("app", &tag, &image);
        let liar = Liar::join(&cluster, 1, &image, &tag, (lie, About::Layers));
        cluster[0].kill();
        let registry = cluster[1].registry();
        until_true("the publisher is known to be gone", || {
            !cluster[1].sessions().contains(&cluster[0].id().to_owned())
        });
        assert_eq!(registry.manifest("app", &tag).expect(200).body, image.manifest, "the manifest is right");
        let start = Instant::now();
        let layer = format!("/v2/app/blobs/{}", digest(&image.layers[0]));
        let answer = registry.http.get(&layer).try_send();
        println!(
            "{lie:?} by the only holder: {:?} after {:?}",
            answer.as_ref().map(|a| a.status),
            start.elapsed()
        );
        match answer {
            Ok(answer) => {
                assert!([404, 504].contains(&answer.status), "{lie:?}: answered with {}", answer.status)
            }
            // What came before the lie was verified and has been streamed; the rest never is.
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{lie:?}: {error}"),
        }
        assert!(liar.lies() > 0, "{lie:?}: the liar was not asked");
        // As long as the protocol waits for a want without progress.
        assert!(start.elapsed() < Duration::from_secs(75), "{lie:?}: took {:?}", start.elapsed());
        cluster[0].start_again();
        until_true("the publisher is back", || cluster[1].sessions().contains(&cluster[0].id().to_owned()));
        registry.assert_has("app", &tag, &image);
    }
    assert_no_panic(&cluster[1]);
}

#[test]
fn a_client_on_the_data_plane_gets_blobs_and_nothing_else() {
    let cluster = Cluster::start(1);
    let image = Image::random(90, &[400_000]);
    cluster[0].registry().push("app", "v1", &image);
    let watch = Watch::over(&cluster[0], &image);
    let mesh_file = cluster.options("x").mesh_file.unwrap();
    let member = Member::new(&mesh_file);
    let data = Data::member(&member.identity, &mesh_file);
    let (address, id) = (cluster[0].ready("mesh_listen").to_owned(), cluster[0].id().to_owned());
    let ask = |request: &[u8]| data.ask_bytes(&address, &id, request);
    let layer = Hash::new(&image.layers[0]);
    assert!(ask(&encoded(&GetRequest::blob(layer))).len() > image.layers[0].len(), "an honest request");

    let own = random_bytes(91, 100_000);
    let unknown = Hash::new(&own);
    let get = |hash: Hash| postcard::to_allocvec(&GetRequest::blob(hash)).unwrap();
    let mut push = vec![8];
    push.extend(postcard::to_allocvec(&get(unknown)).unwrap());
    push.extend(own.len().to_le_bytes());
    push.extend(&own);
    let mut past_the_end = vec![0];
    let ranges = ChunkRanges::from(bao_tree::ChunkNum(1 << 50)..);
    past_the_end.extend(postcard::to_allocvec(&GetRequest::blob_ranges(unknown, ranges)).unwrap());
    let hostile: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("garbage", random_bytes(92, 10_000)),
        ("a long request", [&[0][..], &vec![0xff; 200_000]].concat()),
        ("an unknown blob", encoded(&GetRequest::blob(unknown))),
        ("its end", past_the_end),
        ("a hash sequence", encoded(&GetRequest::all(layer))),
        ("several blobs", [&[9][..], &random_bytes(93, 100)].concat()),
        ("a watch", [&[1][..], &get(layer)].concat()),
        ("a push", push),
    ];
    for (what, request) in hostile {
        let answer = ask(&request);
        println!("{what}: {} bytes", answer.len());
        assert!(answer.len() <= 16, "{what}: answered with {} bytes", answer.len());
    }
    assert_eq!(ask(&encoded(&GetRequest::blob(unknown))).len(), 0, "a push was taken");
    watch.unchanged(64 * MIB);
}
