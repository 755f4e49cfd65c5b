//! Events over HTTP: server-sent events (WHATWG HTML, 9.2), one JSON object in each. Owns the query, how many may
//! watch at a time, and that streams end when the node stops.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{
        IntoResponse, Response, Sse,
        sse::{self, KeepAlive},
    },
    routing::get,
};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{Event, Events, Subscription, What};

/// `GET` of a path: `?type=` names types, separated by commas; `?since=`, or the header `Last-Event-ID`, the
/// event after which to begin.
pub fn routes(path: &str, events: Events, stop: CancellationToken) -> Router {
    let watched = Watched { events, stop, readers: Arc::new(Semaphore::new(READERS_MAX)) };
    Router::new().route(path, get(watch)).with_state(watched)
}

#[derive(Clone)]
struct Watched {
    events: Events,
    stop: CancellationToken,
    readers: Arc<Semaphore>,
}

#[derive(Deserialize)]
struct Wish {
    r#type: Option<String>,
    since: Option<String>,
}

struct Reader {
    subscription: Subscription,
    wanted: Option<BTreeSet<String>>,
    stop: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

async fn watch(State(watched): State<Watched>, Query(wish): Query<Wish>, headers: HeaderMap) -> Response {
    let wanted = match wish.r#type.as_deref().map(types).transpose() {
        Ok(wanted) => wanted,
        Err(why) => return (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response(),
    };
    let Ok(permit) = watched.readers.try_acquire_owned() else {
        let why = format!("{READERS_MAX} readers watch already; try again when one has left\n");
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "10")], why).into_response();
    };
    // What a client's library sends by itself is newer than what is in its URL.
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let subscription = watched.events.subscribe(last.or(wish.since.as_deref()));
    let reader = Reader { subscription, wanted, stop: watched.stop, _permit: permit };
    let events = stream::unfold(reader, |mut reader| async move {
        let event = reader.next().await?;
        let line = sse::Event::default().id(&event.id).json_data(&*event).unwrap_or_default();
        Some((Ok::<_, Infallible>(line), reader))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

impl Reader {
    /// The next event that is wanted; nothing once the node stops.
    async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            let event = tokio::select! {
                () = self.stop.cancelled() => return None,
                event = self.subscription.next() => event,
            };
            // What is missing may have been of any type.
            let always = matches!(event.what, What::Missed { .. });
            if always || self.wanted.as_ref().is_none_or(|wanted| wanted.contains(event.what.name())) {
                return Some(event);
            }
        }
    }
}

fn types(text: &str) -> Result<BTreeSet<String>, String> {
    let one = |name: &str| match What::TYPES.contains(&name) {
        true => Ok(name.to_owned()),
        false => Err(format!("{name:?} is no type of event; there are: {}", What::TYPES.join(", "))),
    };
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(one).collect()
}

/// Who may watch at a time, on each of the two doors.
const READERS_MAX: usize = 32;
/// Between comments that show that the stream is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
