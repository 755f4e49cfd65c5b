//! How much clients may use at a time: connections and requests, in all and for one address. Counts are
//! given back when the permit is dropped.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};

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
}

#[derive(Default)]
struct Counts {
    connections: u32,
    requests: u32,
    /// Only addresses that have something open.
    by_address: HashMap<IpAddr, (u32, u32)>,
}

/// One connection or request. It counts until this is dropped.
pub struct Permit {
    inner: Arc<Inner>,
    address: IpAddr,
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Connection,
    Request,
}

impl Limits {
    /// Nothing in use.
    pub fn new(config: LimitsConfig, metrics: Metrics) -> Self {
        Limits { inner: Arc::new(Inner { config, counts: Mutex::default(), metrics }) }
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
        let in_all = match what {
            // How many connections there are in all is for the listener, which then accepts no more.
            What::Connection => false,
            What::Request => counts.requests >= config.requests,
        };
        let (connections, requests) = counts.by_address.get(&address).copied().unwrap_or_default();
        let here = !address.is_loopback()
            && match what {
                What::Connection => connections >= config.connections_per_address,
                What::Request => requests >= config.requests_per_address,
            };
        if in_all || here {
            let limit = match (what, in_all) {
                (What::Connection, _) => LimitLabel::ConnectionsPerAddress,
                (What::Request, true) => LimitLabel::Requests,
                (What::Request, false) => LimitLabel::RequestsPerAddress,
            };
            self.inner.metrics.limited.get_or_create(&LimitLabels { limit }).inc();
            return None;
        }
        counts.change(address, what, 1);
        Some(Permit { inner: self.inner.clone(), address, what })
    }
}

impl Inner {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
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
    /// The body, with this permit held until its end.
    pub fn hold(self, body: Body) -> Body {
        if body.is_end_stream() {
            return body;
        }
        Body::new(Held { body, _permit: self })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.inner.counts().change(self.address, self.what, -1);
    }
}

struct Held {
    body: Body,
    _permit: Permit,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
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

#[cfg(test)]
mod tests {
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
