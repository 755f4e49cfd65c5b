//! How much clients may use at a time: connections and requests, in all and for one address. Counts are
//! given back when the permit is dropped, and those of answers that their clients do not take when others need them: a
//! stream of HTTP/2 whose client opens no window stands still for as long as its connection answers pings.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use super::config::LimitsConfig;
use crate::metrics::{LimitLabel, LimitLabels, Metrics};

/// The counts of one listener. Clones share them.
#[derive(Clone)]
pub struct Limits {
    inner: Arc<Inner>,
}

struct Inner {
    config: LimitsConfig,
    counts: Mutex<Counts>,
    metrics: Metrics,
    /// What the clock of [`Taken`] counts from.
    begun: Instant,
}

#[derive(Default)]
struct Counts {
    connections: u32,
    requests: u32,
    /// Only addresses that have something open.
    by_address: HashMap<IpAddr, (u32, u32)>,
    /// Answers on their way that count, by number.
    answers: HashMap<u64, (IpAddr, Arc<Taken>)>,
    last_answer: u64,
}

/// When an answer's client last took something, in milliseconds; [`NOT_ITS_TURN`] while it waits for the node.
struct Taken(AtomicU64);

/// One connection or request. It counts until this is dropped.
pub struct Permit {
    inner: Arc<Inner>,
    address: IpAddr,
    what: What,
    /// Its number among the answers on their way, where it is one.
    answer: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Connection,
    Request,
}

impl Limits {
    /// Nothing in use.
    pub fn new(config: LimitsConfig, metrics: Metrics) -> Self {
        Limits { inner: Arc::new(Inner { config, counts: Mutex::default(), metrics, begun: Instant::now() }) }
    }

    /// Most connections of all clients.
    pub fn connections(&self) -> usize {
        self.inner.config.connections as usize
    }

    /// A connection from there, unless that address has too many.
    pub fn connection(&self, from: IpAddr) -> Option<Permit> {
        self.take(from, What::Connection)
    }

    /// A request from there, unless too many are under way.
    pub fn request(&self, from: IpAddr) -> Option<Permit> {
        self.take(from, What::Request)
    }

    fn take(&self, from: IpAddr, what: What) -> Option<Permit> {
        let (config, address) = (&self.inner.config, block(from));
        let mut counts = self.inner.counts();
        let mut full = counts.full(config, address, what);
        if full.is_some() && what == What::Request && counts.give_back_untaken(self.inner.clock()) {
            full = counts.full(config, address, what);
        }
        if let Some(limit) = full {
            self.inner.metrics.limited.get_or_create(&LimitLabels { limit }).inc();
            return None;
        }
        counts.change(address, what, 1);
        Some(Permit { inner: self.inner.clone(), address, what, answer: None })
    }
}

impl Inner {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clock(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(NOT_ITS_TURN - 1)
    }
}

impl Counts {
    /// Which limit leaves no room for one more.
    fn full(&self, config: &LimitsConfig, address: IpAddr, what: What) -> Option<LimitLabel> {
        let (connections, requests) = self.by_address.get(&address).copied().unwrap_or_default();
        let is_far = !address.is_loopback();
        match what {
            // How many connections there are in all is for the listener, which then accepts no more.
            What::Connection => (is_far && connections >= config.connections_per_address)
                .then_some(LimitLabel::ConnectionsPerAddress),
            What::Request if self.requests >= config.requests => Some(LimitLabel::Requests),
            What::Request => {
                (is_far && requests >= config.requests_per_address).then_some(LimitLabel::RequestsPerAddress)
            }
        }
    }

    /// Answers of which nothing was taken for long do not count any more. True where there were any.
    fn give_back_untaken(&mut self, now: u64) -> bool {
        let patience = PATIENCE.as_millis() as u64;
        let untaken = |taken: &Taken| now.saturating_sub(taken.0.load(Ordering::Relaxed)) >= patience;
        let given: Vec<IpAddr> = self
            .answers
            .extract_if(|_, (_, taken)| untaken(taken))
            .map(|(_, (address, _))| address)
            .collect();
        given.iter().for_each(|address| self.change(*address, What::Request, -1));
        !given.is_empty()
    }

    /// The number of one more answer on its way.
    fn answer(&mut self, address: IpAddr, taken: Arc<Taken>) -> u64 {
        self.last_answer += 1;
        self.answers.insert(self.last_answer, (address, taken));
        self.last_answer
    }

    fn change(&mut self, address: IpAddr, what: What, by: i32) {
        let own = self.by_address.entry(address).or_default();
        let (total, own_count) = match what {
            What::Connection => (&mut self.connections, &mut own.0),
            What::Request => (&mut self.requests, &mut own.1),
        };
        *total = total.saturating_add_signed(by);
        *own_count = own_count.saturating_add_signed(by);
        if *own == (0, 0) {
            self.by_address.remove(&address);
        }
    }
}

impl Permit {
    /// The body, with this permit held until its end, or until its client has taken nothing of it for long while others
    /// wait.
    pub fn hold(mut self, body: Body) -> Body {
        if body.is_end_stream() {
            return body;
        }
        let taken = Arc::new(Taken(AtomicU64::new(self.inner.clock())));
        self.answer = Some(self.inner.counts().answer(self.address, taken.clone()));
        Body::new(Held { body, taken, permit: self })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.inner.counts();
        if self.answer.is_none_or(|answer| counts.answers.remove(&answer).is_some()) {
            counts.change(self.address, self.what, -1);
        }
    }
}

struct Held {
    body: Body,
    taken: Arc<Taken>,
    permit: Permit,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        let taken = if frame.is_ready() { self.permit.inner.clock() } else { NOT_ITS_TURN };
        self.taken.0.store(taken, Ordering::Relaxed);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whose limits an address shares: IPv6 sites have a /64 each, and IPv4 may be written as IPv6.
pub fn block(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)))
        }
        other => other,
    }
}

/// An answer whose client took nothing of it for so long gives way to others.
const PATIENCE: Duration = Duration::from_secs(60);
/// No time at which something was taken.
const NOT_ITS_TURN: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};

    use super::*;

    fn limits() -> Limits {
        let config =
            LimitsConfig { connections: 9, connections_per_address: 2, requests: 4, requests_per_address: 2 };
        Limits::new(config, Metrics::new())
    }

    #[tokio::test]
    async fn counts_are_given_back_with_the_body() {
        let limits = limits();
        let here: IpAddr = [192, 0, 2, 1].into();
        let first = limits.request(here).expect("free");
        let second = limits.request(here).expect("free");
        assert!(limits.request(here).is_none());
        let body = first.hold(Body::from("x"));
        assert!(limits.request(here).is_none());
        drop(body);
        assert!(limits.request(here).is_some());
        // An answer without a body holds nothing.
        let empty = second.hold(Body::empty());
        let kept = (limits.request(here), limits.request(here));
        assert!(kept.0.is_some() && kept.1.is_some());
        drop((empty, kept));
        assert!(limits.inner.counts().by_address.is_empty());
    }

    /// As long as the test likes.
    fn endless() -> Body {
        Body::from_stream(stream::repeat("x").map(Ok::<_, std::convert::Infallible>))
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_nobody_takes_give_way_to_others() {
        let limits = limits();
        let here: IpAddr = [192, 0, 2, 1].into();
        let mut read = limits.request(here).expect("free").hold(endless()).into_data_stream();
        let untaken = limits.request(here).expect("free").hold(endless());
        for _ in 0..6 {
            assert!(limits.request(here).is_none());
            assert!(read.next().await.is_some());
            tokio::time::advance(PATIENCE / 6).await;
        }
        let next = limits.request(here).expect("one has waited long enough for its client");
        assert!(limits.request(here).is_none(), "the one that is read counts");
        drop(untaken);
        assert!(limits.request(here).is_none(), "it was given back before");
        drop((read, next));
        assert!(limits.inner.counts().by_address.is_empty() && limits.inner.counts().answers.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_wait_for_the_node_keep_their_place() {
        let limits = limits();
        let here: IpAddr = [192, 0, 2, 1].into();
        let body = || Body::from_stream(stream::pending::<Result<Bytes, std::convert::Infallible>>());
        let mut waiting: Vec<_> =
            (0..2).map(|_| limits.request(here).expect("free").hold(body()).into_data_stream()).collect();
        for stream in &mut waiting {
            assert!(futures_util::poll!(stream.next()).is_pending());
        }
        tokio::time::advance(2 * PATIENCE).await;
        assert!(limits.request(here).is_none());
    }

    #[test]
    fn loopback_counts_in_all_only() {
        let limits = limits();
        let home: IpAddr = [127, 0, 0, 1].into();
        let all: Vec<_> = (0..4).map(|_| limits.request(home).expect("free")).collect();
        assert!(limits.request(home).is_none() && limits.request([192, 0, 2, 1].into()).is_none());
        drop(all);
        let many: Vec<_> = (0..9).map(|_| limits.connection(home)).collect();
        assert!(many.iter().all(Option::is_some));
        let page = limits.inner.metrics.encode();
        assert!(page.contains("waystation_limited_total{limit=\"requests\"} 2"), "{page}");
    }

    #[test]
    fn an_ipv6_site_is_one_address() {
        let parse = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(block(parse("2001:db8::1")), block(parse("2001:db8::ffff:2")));
        assert_ne!(block(parse("2001:db8::1")), block(parse("2001:db8:0:1::1")));
        assert_eq!(block(parse("::ffff:192.0.2.1")), parse("192.0.2.1"));
        assert!(block(parse("::1")).is_loopback());
    }
}
