//! What the stories of an artifact's blobs add up to: bytes by where they came from, and where the time went.

use super::{BlobPlan, Explanation, Place, Source, Timing};

/// Fills in the sums, and the outcome unless it is known already.
pub(super) fn sum_up(explanation: &mut Explanation) {
    let held = |blob: &&BlobPlan| blob.state == "held";
    explanation.size = explanation.blobs.iter().map(|blob| blob.size).sum();
    explanation.held = explanation.blobs.iter().filter(held).map(|blob| blob.size).sum();
    let mut sources: Vec<Source> = Vec::new();
    for blob in explanation.blobs.iter().filter(held) {
        for source in sources_of(blob) {
            match sources.iter_mut().find(|known| known.place == source.place) {
                Some(known) => {
                    known.bytes += source.bytes;
                    known.failures += source.failures;
                }
                None => sources.push(source),
            }
        }
    }
    sources.sort_by_key(|source| std::cmp::Reverse(source.bytes));
    explanation.sources = sources;
    explanation.timing = timing(&explanation.blobs);
    if !explanation.outcome.is_empty() {
        return;
    }
    let blocked = explanation.blobs.iter().any(|blob| !blob.blocks.is_empty());
    explanation.outcome = match () {
        () if blocked || !explanation.blocks.is_empty() => "blocked",
        () if explanation.blobs.iter().all(|blob| blob.state == "held") => "held",
        () => "available",
    }
    .to_owned();
}

fn sources_of(blob: &BlobPlan) -> Vec<Source> {
    let earlier = || Place { kind: "earlier".into(), name: String::new(), site: None, far: false };
    let told = blob.story.as_ref().map(|story| story.sources.clone()).unwrap_or_default();
    match &told[..] {
        [] => vec![Source { place: earlier(), bytes: blob.size, failures: 0 }],
        // Who pushes sends all of it.
        [only] if only.place.kind == "client" => vec![Source { bytes: blob.size, ..only.clone() }],
        _ => told,
    }
}

fn timing(blobs: &[BlobPlan]) -> Option<Timing> {
    let fetched = || blobs.iter().filter_map(|blob| Some((blob, blob.story.as_ref()?)));
    let fetched = || fetched().filter(|(_, story)| !story.parts.is_empty() && story.here);
    let end = |story: &super::Story| story.began_ms + story.waited_ms + story.moved_ms + story.settled_ms;
    let first = fetched().map(|(_, story)| story.began_ms).min()?;
    let (blob, last) = fetched().max_by_key(|(_, story)| end(story))?;
    Some(Timing {
        took_ms: end(last).saturating_sub(first),
        last: blob.digest.clone().or_else(|| blob.hash.clone()).unwrap_or_default(),
        waited_ms: last.waited_ms,
        moved_ms: last.moved_ms,
        settled_ms: last.settled_ms,
    })
}
