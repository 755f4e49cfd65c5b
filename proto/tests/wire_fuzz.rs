//! Whatever bytes come and whatever inputs in whatever order: no panic, no answer without bound, and
//! nothing known that does not count.

mod harness;

use std::{collections::BTreeSet, ops::Range};

use harness::{
    WALL, artifact_record, digest, grant, grant_record, holding_record, index, index_hash, key, node,
    node_record, repository, tag, tag_record, trust,
};
use proptest::prelude::*;
use waystation_proto::{
    FetchId, Hash, Input, Output, Record, RecordId, Replica, ReplicaConfig, RequestId, Shared, Timer,
    body::{HoldingState, State},
    event::{BlobRef, DialTarget, Fault, WriteId},
    ranges::Ranges,
    reconcile::{Content, Summary},
    time::{Now, Time},
    wire::Message,
};

/// Honest messages, to be broken.
fn samples() -> Vec<Message> {
    let app = repository("team/app");
    let index = index(9, &[("a", 10), ("b", 20 << 20)]);
    let records = vec![
        tag_record(2, "v1", 3, Some(digest(9))),
        node_record(2, "here"),
        holding_record(2, &digest(9), HoldingState::Complete, 1),
        artifact_record(2, &app, &index),
        grant_record(&grant(1, 1)),
        grant_record(&grant(3, 9)),
    ];
    let ids: Vec<RecordId> = records.iter().map(Record::id).collect();
    let parts = vec![
        Summary { from: 0, to: 1 << 120, content: Content::Fingerprint([1; 16], 70) },
        Summary { from: (1 << 120) + 1, to: u128::MAX, content: Content::Ids(ids.clone()) },
    ];
    vec![
        Message::Records(records.into_iter().map(Shared::new).collect()),
        Message::Reconcile { site: None, summaries: parts },
        Message::Request(ids),
    ]
}

/// A sample with some bytes overwritten, taken out or put in.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let edit = (any::<prop::sample::Index>(), any::<u8>(), 0u8..3);
    (0usize..3, prop::collection::vec(edit, 1..6)).prop_map(|(sample, edits)| {
        let mut bytes = samples()[sample].encode();
        for (at, byte, how) in edits {
            let at = at.index(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
            match how {
                0 if !bytes.is_empty() => bytes[at] = byte,
                1 if !bytes.is_empty() => {
                    bytes.remove(at);
                }
                _ => bytes.insert(at, byte),
            }
        }
        bytes
    })
}

fn record_id() -> impl Strategy<Value = RecordId> {
    let known: Vec<RecordId> = match &samples()[2] {
        Message::Request(ids) => ids.clone(),
        _ => Vec::new(),
    };
    prop_oneof![prop::sample::select(known), any::<[u8; 32]>().prop_map(RecordId)]
}

/// Summaries that are not in order, overlap, are empty, or turned around.
fn summary() -> impl Strategy<Value = Summary> {
    let position = prop_oneof![Just(0), Just(u128::MAX), any::<u128>()];
    let content = prop_oneof![
        (any::<[u8; 16]>(), prop_oneof![Just(0), Just(u64::MAX), 0u64..100])
            .prop_map(|(bytes, count)| Content::Fingerprint(bytes, count)),
        prop::collection::vec(record_id(), 0..20).prop_map(Content::Ids),
    ];
    (position.clone(), position, content).prop_map(|(from, to, content)| Summary { from, to, content })
}

fn message() -> impl Strategy<Value = Message> {
    let whole = (0usize..3).prop_map(|n| samples()[n].clone());
    let broken = mutated().prop_filter_map("does not decode", |bytes| Message::decode(&bytes).ok());
    let forged =
        (1u8..4, 1u64..5, any::<bool>(), any::<bool>()).prop_map(|(author, version, deletes, spoils)| {
            let mut record = tag_record(author, "v1", version, (!deletes).then(|| digest(9)));
            record.signature[0] ^= u8::from(spoils);
            Message::Records(vec![record.into()])
        });
    prop_oneof![
        2 => whole,
        2 => forged,
        1 => broken,
        2 => prop::collection::vec(summary(), 0..12).prop_map(|summaries| Message::Reconcile { site: None, summaries }),
        1 => prop::collection::vec(record_id(), 0..12).prop_map(Message::Request),
        1 => (8u8..10).prop_map(|n| Message::LeaseAsk { manifest: digest(n), blobs: hashes() }),
        1 => any::<bool>().prop_map(|granted| Message::LeaseAnswer { manifest: digest(9), granted }),
    ]
}

fn hashes() -> Vec<Hash> {
    let index = index(9, &[("a", 10), ("b", 20 << 20)]);
    vec![index.hash, index_hash(&index), Hash::of(b"a"), Hash::of(b"b"), Hash([4; 32])]
}

/// What a driver can say about work: with ids that are right, late or made up.
fn progress() -> impl Strategy<Value = Input> {
    let hash = prop::sample::select(hashes());
    let fault = prop_oneof![Just(Fault::Peer), Just(Fault::Lied), Just(Fault::Local), Just(Fault::Budget)];
    let range = (0u64..30 << 20, 0u64..30 << 20).prop_map(|(a, b)| Range { start: a.min(b), end: a.max(b) });
    prop_oneof![
        (hash.clone(), prop::collection::vec(range, 0..3)).prop_map(|(hash, ranges)| {
            let mut have = Ranges::new();
            ranges.into_iter().for_each(|range| have.insert(range));
            Input::Probed { hash, have }
        }),
        (0u64..20).prop_map(|n| Input::Fetched { fetch: FetchId(n) }),
        (0u64..20, fault).prop_map(|(n, fault)| Input::FetchFailed { fetch: FetchId(n), fault }),
        hash.clone().prop_map(|hash| Input::Sealed { hash }),
        hash.clone().prop_map(|hash| Input::Incomplete { hash }),
        hash.clone().prop_map(|hash| Input::SealFailed { hash, why: "full".into() }),
        hash.clone().prop_map(|hash| Input::Lost { hash, manifests: vec![digest(9)] }),
        (hash, any::<bool>()).prop_map(|(hash, found)| {
            let index = found.then(|| index(9, &[("a", 10), ("b", 20 << 20)]));
            Input::IndexRead { hash, index }
        }),
        (0u64..20).prop_map(|n| Input::Persisted { write: WriteId(n) }),
        (0u64..20).prop_map(|n| Input::PersistFailed { write: WriteId(n), why: "full".into() }),
    ]
}

fn clients() -> impl Strategy<Value = Input> {
    let app = || repository("team/app");
    let request = (1u64..1000).prop_map(RequestId);
    prop_oneof![
        (request.clone(), any::<bool>()).prop_map(move |(request, closure)| Input::WantArtifact {
            request,
            repository: app(),
            manifest: digest(9),
            closure
        }),
        (request.clone(), 0usize..5).prop_map(|(request, n)| {
            let blob = BlobRef { digest: digest(n as u8), hash: hashes()[n], size: 20 << 20 };
            Input::WantBlob { request, blob, manifest: digest(9) }
        }),
        request.clone().prop_map(|request| Input::Abandon { request }),
        (request.clone(), 1u8..4).prop_map(move |(request, n)| {
            let index = index(n, &[("a", 10)]);
            let (index_hash, index_size) = (index_hash(&index), index.encode().len() as u64);
            let tags = vec![tag("v1"), tag("v2"), tag("v1")];
            Input::Publish { request, repository: app(), tags, index, index_hash, index_size }
        }),
        request.clone().prop_map(move |request| Input::Untag { request, repository: app(), tag: tag("v1") }),
        (request.clone(), 1u8..10).prop_map(move |(request, n)| Input::Unpublish {
            request,
            repository: app(),
            manifest: digest(n)
        }),
        (request.clone(), 1u8..10, any::<bool>()).prop_map(move |(request, n, out)| {
            let (repository, blob) = (app(), digest(n));
            if out {
                Input::Unlink { request, repository, blob }
            } else {
                Input::Relink { request, repository, blob }
            }
        }),
        (request.clone(), 0usize..600).prop_map(move |(request, length)| Input::SetStatus {
            request,
            repository: app(),
            manifest: digest(9),
            state: State::Revoked,
            reason: "r".repeat(length)
        }),
        (request.clone(), 1u8..10, any::<bool>()).prop_map(|(request, n, pinned)| Input::Pin {
            request,
            manifest: digest(n),
            pinned
        }),
        request.clone().prop_map(|request| Input::AskLease { request, manifest: digest(9), blobs: hashes() }),
        (request.clone(), any::<bool>()).prop_map(|(request, leased)| {
            let leased = if leased { vec![digest(9)] } else { vec![] };
            Input::LetGo { request, manifests: vec![digest(9)], leased, blobs: hashes() }
        }),
        (request, 1u8..3).prop_map(|(request, n)| Input::AddGrant { request, grant: (*grant(n, 1)).clone() }),
    ]
}

fn peers() -> impl Strategy<Value = Input> {
    let address = (0u8..4).prop_map(|n| format!("node-{n}:4717"));
    prop_oneof![
        4 => (1u8..5, message()).prop_map(|(n, message)| Input::Received { from: node(n), message }),
        1 => (1u8..5, prop::option::of(address.clone())).prop_map(|(n, dialled)| Input::PeerUp { peer: node(n), dialled }),
        1 => (1u8..5).prop_map(|n| Input::PeerDown { peer: node(n) }),
        1 => address.clone().prop_map(|address| Input::Discovered { address }),
        1 => address.clone().prop_map(|address| Input::DialFailed { target: DialTarget::Address(address) }),
        1 => (1u8..5).prop_map(|n| Input::DialFailed { target: DialTarget::Node(node(n), vec![]) }),
        1 => address.prop_map(|address| Input::Reachable { addresses: vec![address] }),
    ]
}

/// An input, or nothing but a timer, and how much later.
fn steps() -> impl Strategy<Value = Vec<(Option<Input>, u64)>> {
    let input = prop_oneof![4 => peers(), 3 => progress(), 3 => clients()];
    prop::collection::vec((prop::option::weighted(0.8, input), 0u64..3_000), 0..60)
}

/// What a run of inputs leaves behind.
struct Run {
    replica: Replica,
    timers: Vec<(Time, Timer)>,
    outputs: usize,
}

impl Run {
    fn new() -> Self {
        let config =
            ReplicaConfig { site: "here".into(), join: vec!["node-2:4717".into()], ..Default::default() };
        let mut run = Run { replica: Replica::new(config, key(1), trust()), timers: Vec::new(), outputs: 0 };
        run.tell(0, Input::Restore { records: Vec::new(), held: Vec::new() });
        run.tell(0, Input::Reachable { addresses: vec!["node-1:4717".into()] });
        run
    }

    fn tell(&mut self, now: u64, input: Input) {
        let outputs = self.replica.handle(Now { time: Time(now), wall: WALL }, input);
        self.outputs = outputs.len();
        for output in outputs {
            match output {
                Output::Send { message, .. } => {
                    let bytes = message.encode();
                    assert!(bytes.len() <= Message::MAX_BYTES);
                    assert_eq!(Message::decode(&bytes), Ok(message), "others can read what is sent");
                }
                Output::Announce { records } => {
                    assert!(Message::Records(records).encode().len() <= Message::MAX_ANNOUNCE_BYTES);
                }
                Output::SetTimer { at, timer } => self.timers.push((at, timer)),
                Output::Fetch { size, range, .. } => assert!(range.start < range.end && range.end <= size),
                _ => {}
            }
        }
    }

    /// The timer that is due next fires, early or late.
    fn fire(&mut self, now: u64) {
        if !self.timers.is_empty() {
            let (_, timer) = self.timers.remove(0);
            self.tell(now, Input::TimerFired(timer));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        let _ = Message::decode(&bytes);
        let _ = Record::decode(&bytes);
        let _ = waystation_proto::index::ArtifactIndex::decode(&bytes);
    }

    #[test]
    fn broken_messages_are_errors_or_other_messages(bytes in mutated()) {
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn broken_records_are_never_taken(bytes in mutated()) {
        let Ok(Message::Records(records)) = Message::decode(&bytes) else { return Ok(()) };
        let Message::Records(honest) = samples().swap_remove(0) else { unreachable!("the first sample") };
        for record in records {
            prop_assert!(honest.contains(&record) || record.check(&trust()).is_err());
        }
    }

    #[test]
    fn no_sequence_of_inputs_panics_or_answers_without_bound(steps in steps()) {
        let mut run = Run::new();
        let mut now = 0;
        for (input, later) in steps {
            now += later;
            match input {
                Some(input) => run.tell(now, input),
                None => run.fire(now),
            }
            prop_assert!(run.outputs < 200, "{} outputs", run.outputs);
            // Each was sooner than those of its kind that were set before.
            let distinct: BTreeSet<_> = run.timers.iter().collect();
            prop_assert!(distinct.len() == run.timers.len() && distinct.len() <= 16, "{:?}", run.timers);
            let counts = run.replica.counts();
            prop_assert!(counts.fetches <= 32 && counts.wants <= 8, "{counts:?}");
        }
        for record in run.replica.catalog().iter() {
            prop_assert_eq!(record.check(&trust()), Ok(()), "{:?}", record.key);
        }
    }

    #[test]
    fn the_same_inputs_give_the_same_outputs(steps in steps()) {
        let mut runs = [Run::new(), Run::new()];
        let mut now = 0;
        for (input, later) in steps {
            now += later;
            let Some(input) = input else { continue };
            let clocks = Now { time: Time(now), wall: WALL };
            let [a, b] = runs.each_mut().map(|run| format!("{:?}", run.replica.handle(clocks, input.clone())));
            prop_assert_eq!(a, b);
        }
    }
}

/// The largest messages that the codec lets through, and what they make a replica with much to tell do.
#[test]
fn the_worst_messages_have_answers_within_bounds() {
    let mut run = Run::new();
    let writer = key(60);
    let records = |from: u64| -> Vec<Shared> {
        let one = |n: u64| {
            let key_of = waystation_proto::record::Key {
                kind: waystation_proto::record::Kind(4242),
                scope: String::new(),
                name: n.to_string(),
            };
            Record::author(&trust().mesh, &writer, None, key_of, 1, WALL, &vec![7u8; 16_000]).into()
        };
        (from..from + 60).map(one).collect()
    };
    for batch in 0..20 {
        let message = Message::Records(records(batch * 60));
        assert!(Message::decode(&message.encode()).is_ok());
        run.tell(0, Input::Received { from: node(2), message });
    }
    let all: Vec<RecordId> = run.replica.catalog().iter().map(Shared::id).collect();
    let everything = |content| Summary { from: 0, to: u128::MAX, content };
    let hostile = [
        Message::Reconcile {
            site: None,
            summaries: vec![everything(Content::Fingerprint([0; 16], 0)); 4096],
        },
        Message::Reconcile {
            site: None,
            summaries: vec![everything(Content::Fingerprint([0; 16], u64::MAX)); 4096],
        },
        Message::Reconcile { site: None, summaries: vec![everything(Content::Ids(vec![])); 2048] },
        Message::Reconcile {
            site: None,
            summaries: vec![everything(Content::Ids(vec![RecordId([9; 32]); 4000]))],
        },
        Message::Request(all.iter().copied().cycle().take(4096).collect()),
        Message::Request(vec![all[0]; 4096]),
    ];
    for message in hostile {
        let message = Message::decode(&message.encode()).expect("within what the codec allows");
        let replica = &mut run.replica;
        let clocks = Now { time: Time(10), wall: WALL };
        let outputs = replica.handle(clocks, Input::Received { from: node(3), message });
        let sent = |output: &Output| match output {
            Output::Send { message, .. } => message.encode().len(),
            _ => 0,
        };
        let bytes: usize = outputs.iter().map(sent).sum();
        assert!(outputs.len() < 64 && bytes < ANSWER_MAX, "{} outputs with {bytes} bytes", outputs.len());
    }
}

/// Most bytes that one message may make a replica send.
const ANSWER_MAX: usize = 9 * 1024 * 1024;
