//! Whoever has no mesh file gets nothing, learns nothing and breaks nothing, whatever it sends.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use waystation_proto::{MeshId, wire::Message};

use crate::{
    harness::{
        cluster::{Cluster, export_mesh},
        image::{Image, random_bytes},
        node::{Node, Options, temp_dir},
        wait::until_true,
    },
    holder::Data,
    member::Member,
    watch::{MIB, Watch, wait_for_log},
};

const CONTROL_REFUSED: &str = "waystation_refused_total{plane=\"control\"}";
const DATA_REFUSED: &str = "waystation_refused_total{plane=\"data\"}";

/// What a listener may say before it knows whom it speaks to: the name of its protocol negotiation, and
/// that it does not know what was proposed.
const GREETING_MAX: usize = 64;

/// What an attack may cost for good: a debug build's allocator keeps what it was given for a while.
const GROWTH: u64 = 48 * MIB;

fn node_with_image(image: &Image) -> Node {
    let node = Node::start(Options::site("ours"));
    node.registry().push("app", "v1", image);
    node
}

#[test]
fn garbage_is_refused_and_answered_with_nothing() {
    let image = Image::random(1, &[300_000]);
    let node = node_with_image(&image);
    let watch = Watch::over(&node, &image);
    let multistream = b"\x13/multistream/1.0.0\n";
    let noise = [&multistream[..], b"\x07/noise\n"].concat();
    let garbage: Vec<Vec<u8>> = vec![
        random_bytes(1, 5_000),
        vec![0; 5_000],
        vec![0xff; 70_000],
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        [&multistream[..], &random_bytes(2, 5_000)].concat(),
        [&multistream[..], b"\x0b/plaintext\n"].concat(),
        // As far as a stranger gets: a handshake that is none.
        [&noise[..], &[0, 32], &random_bytes(3, 32)].concat(),
        [&noise[..], &[0xff, 0xff], &random_bytes(4, 70_000)].concat(),
        [&noise[..], &[0, 0]].concat(),
    ];
    for bytes in &garbage {
        let answer = send_and_read(node.ready("mesh_listen"), bytes);
        // After the first part of the handshake comes the node's own, which holds its key and is of a
        // fixed size; a record or an address would be more.
        let allowed = if bytes.starts_with(&noise) { 300 } else { GREETING_MAX };
        assert!(answer.len() <= allowed, "{} bytes were told a stranger: {answer:?}", answer.len());
    }
    until_true("all of it is counted", || node.metric(CONTROL_REFUSED) >= garbage.len() as f64);
    wait_for_log(&node, &["connection from 127.0.0.1", "refused"]);
    watch.unchanged(GROWTH);
}

#[test]
fn connections_that_say_nothing_are_closed_and_keep_nobody_out() {
    let image = Image::random(2, &[300_000]);
    let node = node_with_image(&image);
    let folder = temp_dir("mesh");
    let mesh_file = folder.path().join("mesh.toml");
    export_mesh(&node, &mesh_file);
    let watch = Watch::over(&node, &image);
    let address = node.ready("mesh_listen").to_owned();
    let silent: Vec<_> = (0..200).filter_map(|_| TcpStream::connect(&address).ok()).collect();
    assert!(silent.len() >= 150, "only {} connections were made", silent.len());
    watch.serves();

    let join = vec![node.ready("join").to_owned()];
    let start = Instant::now();
    let member = Node::start(Options { join, ..Options::site("theirs") }.mesh(&mesh_file));
    until_true("a member gets in", || !member.sessions().is_empty());
    println!("a member got in after {:?} beside {} silent connections", start.elapsed(), silent.len());

    for stream in &silent {
        assert_closed_by_peer(stream, start);
    }
    println!("all silent connections were closed after {:?}", start.elapsed());
    watch.unharmed(GROWTH);
    until_true("silence is counted", || node.metric(CONTROL_REFUSED) >= silent.len() as f64);
    wait_for_log(&node, &["connection from 127.0.0.1", "refused"]);
}

#[test]
fn a_handshake_without_the_secret_leads_nowhere() {
    let image = Image::random(3, &[300_000]);
    let node = node_with_image(&image);
    let watch = Watch::over(&node, &image);
    for prologue in [vec![], vec![7; 32]] {
        let before = node.metric(CONTROL_REFUSED);
        let stranger = Member::with_prologue(MeshId([1; 32]), prologue);
        stranger.dial(&node);
        until_true("the dial fails", || stranger.seen().failed_dials == 1);
        stranger.say(&Message::Records(vec![]));
        stranger.wait_until_said(1);
        let seen = stranger.seen();
        assert_eq!((seen.connections, seen.acknowledged, seen.bytes), (0, 0, 0));
        drop(seen);
        until_true("the refusal is counted", || node.metric(CONTROL_REFUSED) > before);
    }
    wait_for_log(&node, &["refused", "did not prove this mesh's admission secret"]);
    assert_eq!(node.sessions(), Vec::<String>::new());
    watch.unchanged(GROWTH);
}

#[test]
fn datagrams_and_connections_without_admission_get_nothing() {
    let image = Image::random(4, &[300_000]);
    let node = node_with_image(&image);
    let watch = Watch::over(&node, &image);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..5_000u64 {
        let mut datagram = random_bytes(n, 1 + (n as usize * 37) % 1_400);
        // Half of them look like the start of a QUIC connection.
        datagram[0] |= if n % 2 == 0 { 0xc0 } else { 0 };
        socket.send_to(&datagram, node.ready("mesh_listen")).unwrap();
    }
    watch.serves();

    let hash = blake3::hash(&image.layers[0]);
    // It proves with another secret; asks at once; proves with a proof of another length; says nothing.
    for proof in [Some(vec![1; 33]), None, Some(vec![9; 33]), Some(vec![1; 3]), Some(vec![])] {
        let before = node.metric(DATA_REFUSED);
        let stranger = Data::stranger();
        let answer = stranger.ask_unproven(node.ready("mesh_listen"), node.id(), hash, proof.as_deref());
        assert_eq!(answer, Vec::<u8>::new(), "a stranger was told something");
        until_true("the refusal is counted", || node.metric(DATA_REFUSED) > before);
    }
    wait_for_log(&node, &["data connection from", "refused", "did not prove this mesh's admission secret"]);
    assert_eq!(node.bytes_sent(), 0);
    watch.unchanged(GROWTH);
}

#[test]
fn many_strangers_at_once_do_not_keep_members_from_working() {
    let cluster = Cluster::start(2);
    let image = Image::random(5, &[300_000]);
    cluster[0].registry().push("app", "v1", &image);
    cluster[1].registry().wait_for_tag("app", "v1", &image);
    let watch = Watch::over(&cluster[0], &image);
    let address = cluster[0].ready("mesh_listen").to_owned();
    let attack = |seed: u64| {
        for n in 0..100 {
            send_and_read(&address, &random_bytes(seed + n, 2_000));
        }
    };
    thread::scope(|scope| {
        for seed in [1_000, 2_000, 3_000, 4_000] {
            scope.spawn(move || attack(seed));
        }
        cluster[1].registry().assert_has("app", "v1", &image);
        for n in 0..5 {
            let image = Image::random(100 + n, &[50_000]);
            cluster[0].registry().push("app", &format!("during-{n}"), &image);
            cluster[1].registry().wait_for_tag("app", &format!("during-{n}"), &image);
            cluster[1].registry().assert_has("app", &format!("during-{n}"), &image);
        }
    });
    watch.unharmed(GROWTH);
    assert_eq!(cluster[0].sessions().len(), 1);
    assert!(log_lines(&cluster[0], "refused") < 20, "a flood of refusals floods the log");
}

fn log_lines(node: &Node, part: &str) -> usize {
    node.log().lines().filter(|line| line.contains(part)).count()
}

/// Sends, says that nothing more comes, and reads to the end.
fn send_and_read(address: &str, bytes: &[u8]) -> Vec<u8> {
    let Ok(mut stream) = TcpStream::connect(address) else { return vec![] };
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
    // The other side may have hung up already.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = vec![];
    let _ = stream.take(1 << 20).read_to_end(&mut answer);
    answer
}

/// Waits until the other side has closed the connection, at most a minute after `start`.
#[track_caller]
fn assert_closed_by_peer(mut stream: &TcpStream, start: Instant) {
    let left = Duration::from_secs(60).saturating_sub(start.elapsed()).max(Duration::from_secs(1));
    stream.set_read_timeout(Some(left)).unwrap();
    let mut answer = vec![];
    match stream.read_to_end(&mut answer) {
        Ok(_) => assert!(answer.len() <= GREETING_MAX, "{answer:?}"),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the node keeps a silent connection open: {error}"),
    }
}
