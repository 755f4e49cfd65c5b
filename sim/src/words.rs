//! What happens in a run, in words: one short line for each input, output and step, with hosts by their numbers and
//! names cut short. For people; nothing reads it again.

use waystation_proto::{
    DialTarget, Event, Hash, Input, NodeId, Output, Shared, Timer, record::Kind, wire::Message,
};

use crate::steps::Step;

/// What a host is told.
pub fn input(input: &Input, number: impl Fn(&NodeId) -> Option<usize>) -> String {
    let who = |node: &NodeId| name(number(node));
    match input {
        Input::Restore { records, held } => {
            format!("finds {} records and {} blobs on its disk", records.len(), held.len())
        }
        Input::Reachable { addresses } => format!("can be reached at {}", addresses.join(", ")),
        Input::Publish { repository, tags, index, .. } => {
            let tags: Vec<&str> = tags.iter().map(|tag| tag.as_str()).collect();
            format!("client publishes {} in {repository}, tags [{}]", short(&index.hash), tags.join(" "))
        }
        Input::Untag { repository, tag, .. } => format!("client deletes the tag {repository}:{tag}"),
        Input::Unpublish { repository, manifest, .. } => {
            format!("client takes {manifest:.19} out of {repository}")
        }
        Input::SetStatus { manifest, state, .. } => format!("client says that {manifest:.19} is {state:?}"),
        Input::AddGrant { grant, .. } => format!("operator adds a grant for {}", who(&grant.subject)),
        Input::WantArtifact { manifest, closure, .. } => {
            format!("client wants {manifest:.19}{}", if *closure { " and all of it" } else { "" })
        }
        Input::WantBlob { blob, .. } => {
            format!("client wants blob {} of {} bytes", short(&blob.hash), blob.size)
        }
        Input::Abandon { request } => format!("client gives up request {}", request.0),
        Input::Received { from, message: told } => format!("hears from {}: {}", who(from), message(told)),
        Input::PeerUp { peer, dialled } => {
            format!("session with {} {}", who(peer), if dialled.is_some() { "dialled" } else { "accepted" })
        }
        Input::PeerDown { peer } => format!("session with {} ended", who(peer)),
        Input::DialFailed { target } => format!("dial of {} failed", dialled(target, &who)),
        Input::Fetched { fetch } => format!("fetch {} is done", fetch.0),
        Input::FetchFailed { fetch, fault } => format!("fetch {} failed: {fault:?}", fetch.0),
        Input::Sealed { hash } => format!("blob {} is durable", short(hash)),
        Input::SealFailed { hash, why } => format!("blob {} could not be made durable: {why}", short(hash)),
        Input::Lost { hash, manifests } => {
            format!("blob {} is rotten; {} artifacts have it", short(hash), manifests.len())
        }
        Input::PersistFailed { write, why } => format!("write {} failed: {why}", write.0),
        Input::Persisted { write } => format!("write {} is durable", write.0),
        Input::AskLease { manifest, .. } => format!("wants to delete {manifest:.19} and asks who keeps it"),
        Input::LetGo { manifests, blobs, .. } => {
            format!("lets go of {} artifacts, {} blobs", manifests.len(), blobs.len())
        }
        Input::Pin { manifest, pinned, .. } => {
            format!("operator {} {manifest:.19}", if *pinned { "pins" } else { "unpins" })
        }
        Input::TimerFired(Timer::Dial | Timer::Reconcile | Timer::Policies) => String::new(),
        Input::TimerFired(timer) => format!("timer {timer:?}"),
        // Answers that only bring on what was asked.
        _ => String::new(),
    }
}

/// What a host does.
pub fn output(output: &Output, number: impl Fn(&NodeId) -> Option<usize>) -> String {
    let who = |node: &NodeId| name(number(node));
    match output {
        Output::Send { to, message: told } => format!("  tells {}: {}", who(to), message(told)),
        Output::Announce { records } => format!("  announces {}", kinds(records)),
        Output::Dial { target } => format!("  dials {}", dialled(target, &who)),
        Output::Persist { write, records, .. } => format!("  writes {} ({})", write.0, kinds(records)),
        Output::Fetch { fetch, from, hash, range, .. } => {
            let (from, hash) = (who(from), short(hash));
            format!("  fetch {}: bytes {}..{} of {hash} from {from}", fetch.0, range.start, range.end)
        }
        Output::CancelFetch { fetch } => format!("  cancels fetch {}", fetch.0),
        Output::Seal { hash, size, .. } => format!("  has all {size} bytes of {}", short(hash)),
        Output::Hangup { peer } => format!("  hangs up on {}", who(peer)),
        Output::Forget { keys } => format!("  forgets {} records", keys.len()),
        Output::Notify(event) => self::event(event, &who),
        _ => String::new(),
    }
}

/// What a client is about to do.
pub fn step(number: u64, step: &Step) -> String {
    format!("step {number}: {step:?}")
}

fn event(event: &Event, who: &impl Fn(&NodeId) -> String) -> String {
    match event {
        Event::Written { request } => format!("  answers request {}: written", request.0),
        Event::Refused { request, refusal } => format!("  refuses request {}: {refusal}", request.0),
        Event::WantDone { request, result: Ok(()) } => format!("  answers request {}: it is here", request.0),
        Event::WantDone { request, result: Err(why) } => format!("  fails request {}: {why}", request.0),
        Event::LeaseDone { result: Ok(node), .. } => format!("  is promised a copy by {}", who(node)),
        Event::LeaseDone { result: Err(why), .. } => format!("  is promised no copy: {why}"),
        Event::RecordsRefused { from, count, why } => {
            format!("  refuses {count} records of {}: {why}", who(from))
        }
        Event::HolderLied { node, hash } => format!("  was lied to by {} about {}", who(node), short(hash)),
        Event::ArtifactComplete { manifest } => format!("  has all of {manifest:.19}"),
        Event::Reconciled { peer } => format!("  knows the same as {}", who(peer)),
        Event::KeyShared { from } => format!("  hears from {} of a node with its own key", who(from)),
        Event::Shunned { peer } => format!("  keeps away from {}", who(peer)),
        Event::Arrived { .. } => String::new(),
    }
}

/// What a message says.
pub fn message(message: &Message) -> String {
    let bytes = message.encode().len();
    let what = match message {
        Message::Records(records) => kinds(records),
        Message::Reconcile { summaries, .. } => format!("comparison of {} parts", summaries.len()),
        Message::Request(ids) => format!("asks for {} records", ids.len()),
        Message::Ask { digests, .. } => format!("asks about {} contents", digests.len()),
        Message::Tell { answers, .. } => format!("answers about {} contents", answers.len()),
        Message::Probe { .. } => "are you there?".into(),
        Message::ProbeAnswer { .. } => "I am here".into(),
        Message::LetGo => "end this session if you can".into(),
        Message::WhoHas { manifest, .. } => format!("who has {manifest:.19}?"),
        Message::Progress(progress) => format!("how far {} blobs are", progress.len()),
        Message::Elsewhere(told) => format!("how far {} blobs are at other sites", told.len()),
        Message::LeaseAsk { manifest, .. } => format!("do you keep {manifest:.19}?"),
        Message::LeaseAnswer { manifest, granted } => {
            format!("{} {manifest:.19}", if *granted { "I keep" } else { "I do not promise to keep" })
        }
    };
    format!("{what} ({bytes} bytes)")
}

/// How many records of each kind, in the order of their numbers.
fn kinds(records: &[Shared]) -> String {
    let mut counts = std::collections::BTreeMap::<u16, usize>::new();
    records.iter().for_each(|record| *counts.entry(record.key.kind.0).or_default() += 1);
    let text = |(kind, count): (&u16, &usize)| format!("{count} {}", kind_name(Kind(*kind)));
    let texts: Vec<String> = counts.iter().map(text).collect();
    if texts.is_empty() { "no records".into() } else { texts.join(", ") }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::TAG => "tag",
        Kind::STATUS => "status",
        Kind::HOLDING => "holding",
        Kind::NODE => "node",
        Kind::GRANT => "grant",
        Kind::ARTIFACT => "artifact",
        Kind::LINK => "link",
        Kind::SIGHTING => "sighting",
        Kind::POLICY => "policy",
        Kind::LOCAL => "note",
        Kind::SUMMARY => "summary",
        _ => "unknown",
    }
}

fn dialled(target: &DialTarget, who: &impl Fn(&NodeId) -> String) -> String {
    match target {
        DialTarget::Address(address) => address.clone(),
        DialTarget::Node(node, _) => who(node),
    }
}

fn name(number: Option<usize>) -> String {
    number.map_or_else(|| "a stranger".into(), |number| format!("host {number}"))
}

fn short(hash: &Hash) -> String {
    hash.to_string().chars().take(10).collect()
}
