//! Every metric that the node shows, in one place. Others set them; the admin endpoint prints them.

use std::{fmt::Write as _, sync::Arc};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// An enum whose variants are values of one label.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $(#[doc = concat!("Shown as `", $text, "`.")] $variant,)+
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
                encoder.write_str(match self { $($name::$variant => $text,)+ })
            }
        }
    };
}

/// The node's metrics. Clones share their values.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// Requests answered by the registry endpoint.
    pub requests: Family<RequestLabels, Counter>,
    /// How long the registry endpoint took until its answer began.
    pub request_seconds: Histogram,
    /// Bytes of bodies sent to clients of the registry endpoint.
    pub bytes_served: Counter,
    /// Blobs and manifests that clients pushed.
    pub blobs_ingested: Counter,
    /// Their bytes.
    pub bytes_ingested: Counter,
    /// Bytes downloaded from upstreams.
    pub upstream_bytes: Family<UpstreamLabels, Counter>,
    /// Logins that let nobody in.
    pub logins_failed: Counter,
    /// Requests and connections refused because too much was under way.
    pub limited: Family<LimitLabels, Counter>,
    /// When the certificate of the registry's listener ends, in seconds since 1970; 0 without TLS.
    pub certificate_end: Gauge,
    /// Records in the catalog.
    pub records: Gauge,
    /// Members with a live control session.
    pub sessions: Gauge,
    /// Blobs that are being fetched or waited for.
    pub wants: Gauge,
    /// Transfers under way.
    pub fetches: Gauge,
    /// Fetches that ended early.
    pub fetches_failed: Counter,
    /// Sessions and connections of nodes that did not prove to be members.
    pub refused: Family<PlaneLabels, Counter>,
    /// Control messages that could not be decoded.
    pub garbage_frames: Counter,
    /// Records that do not count, dropped.
    pub records_refused: Counter,
    /// Bytes received from and sent to other nodes.
    pub plane_bytes: Family<PlaneBytesLabels, Counter>,
    /// Control messages received and sent.
    pub control_messages: Family<KindLabels, Counter>,
    /// Their encoded bytes, without what the transport adds.
    pub control_message_bytes: Family<KindLabels, Counter>,
    /// Holders whose bytes did not match the hash.
    pub holders_lied: Counter,
    /// Messages to members that were dropped because a queue was full.
    pub messages_dropped: Counter,
    /// Artifacts of which every blob came to be here by replication.
    pub artifacts_completed: Counter,
    /// Bytes over links to other sites in the month of the budget.
    pub budget_spent: Family<DirectionLabels, Gauge>,
    /// Bytes a second that may go over links to other sites; no series without a limit.
    pub budget_rate: Family<DirectionLabels, Gauge>,
    /// Bytes that may go over them in the month, both ways together; 0 without a cap.
    pub budget_cap: Gauge,
    /// Whether the budget lets nothing of the class be fetched from other sites now.
    pub budget_blocked: Family<ClassLabels, Gauge>,
    /// Bytes that the data directory takes.
    pub used: Gauge,
    /// Bytes that it may take.
    pub quota: Gauge,
    /// Copies that were deleted to make room, or because nothing referred to them.
    pub evicted: Counter,
    /// Their bytes.
    pub evicted_bytes: Counter,
}

/// How a request is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// Which endpoint.
    pub route: RouteLabel,
    /// Which method; unusual ones count as `other`, so that clients cannot make up series.
    pub method: MethodLabel,
    /// The answer's status code.
    pub status: u16,
}

labels!(
    /// Endpoints of the registry.
    RouteLabel {
        Base = "base",
        Catalog = "catalog",
        Tags = "tags",
        Manifest = "manifest",
        Blob = "blob",
        Upload = "upload",
        Referrers = "referrers",
        Token = "token",
        Unknown = "unknown",
    }
);

labels!(
    /// Methods of requests.
    MethodLabel {
        Get = "get",
        Head = "head",
        Post = "post",
        Put = "put",
        Patch = "patch",
        Delete = "delete",
        Other = "other",
    }
);

/// One of the upstreams that are configured.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct UpstreamLabels {
    /// Its name.
    pub upstream: String,
}

/// A limit of the registry's listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LimitLabels {
    /// Which.
    pub limit: LimitLabel,
}

labels!(
    /// Limits of the registry's listener.
    LimitLabel {
        ConnectionsPerAddress = "connections_per_address",
        Requests = "requests",
        RequestsPerAddress = "requests_per_address",
    }
);

/// One of the planes between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PlaneLabels {
    /// Which.
    pub plane: Plane,
}

/// Bytes of one plane in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PlaneBytesLabels {
    /// Which plane.
    pub plane: Plane,
    /// Which way.
    pub direction: Direction,
}

/// Control messages of one kind, one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabels {
    /// What they are for.
    pub kind: Kind,
    /// Which way.
    pub direction: Direction,
}

labels!(
    /// What control messages are for.
    Kind {
        Gossip = "gossip",
        Records = "records",
        Reconcile = "reconcile",
        Request = "request",
        Pulls = "pulls",
        Progress = "progress",
    }
);

/// One way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DirectionLabels {
    /// Which.
    pub direction: Direction,
}

/// For whom bytes are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ClassLabels {
    /// For whom.
    pub class: ClassLabel,
}

labels!(
    /// Classes of fetches: a client waits, or nobody does.
    ClassLabel {
        Client = "client",
        Background = "background",
    }
);

labels!(
    /// The planes between nodes: records and messages, or blobs.
    Plane {
        Control = "control",
        Data = "data",
    }
);

labels!(
    /// Received or sent, as this node sees it.
    Direction {
        In = "in",
        Out = "out",
    }
);

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Self {
        let mut metrics = Metrics {
            registry: Arc::default(),
            requests: Family::default(),
            request_seconds: Histogram::new(exponential_buckets(0.000_25, 4.0, 10)),
            bytes_served: Counter::default(),
            blobs_ingested: Counter::default(),
            bytes_ingested: Counter::default(),
            upstream_bytes: Family::default(),
            logins_failed: Counter::default(),
            limited: Family::default(),
            certificate_end: Gauge::default(),
            records: Gauge::default(),
            sessions: Gauge::default(),
            wants: Gauge::default(),
            fetches: Gauge::default(),
            fetches_failed: Counter::default(),
            refused: Family::default(),
            garbage_frames: Counter::default(),
            records_refused: Counter::default(),
            plane_bytes: Family::default(),
            control_messages: Family::default(),
            control_message_bytes: Family::default(),
            holders_lied: Counter::default(),
            messages_dropped: Counter::default(),
            artifacts_completed: Counter::default(),
            budget_spent: Family::default(),
            budget_rate: Family::default(),
            budget_cap: Gauge::default(),
            budget_blocked: Family::default(),
            used: Gauge::default(),
            quota: Gauge::default(),
            evicted: Counter::default(),
            evicted_bytes: Counter::default(),
        };
        metrics.registry = Arc::new(metrics.register());
        metrics
    }

    /// All values, in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut page = String::new();
        if let Err(error) = text::encode(&mut page, &self.registry) {
            // Only a broken formatter can fail here; say so where it will be seen.
            let _ = write!(page, "# could not encode: {error}");
        }
        page
    }

    /// Something was downloaded from an upstream.
    pub fn pulled(&self, upstream: &str, bytes: u64) {
        let labels = UpstreamLabels { upstream: upstream.to_owned() };
        self.upstream_bytes.get_or_create(&labels).inc_by(bytes);
    }

    /// Requests and connections refused by any limit.
    pub fn limited_in_all(&self) -> u64 {
        use LimitLabel::{ConnectionsPerAddress, Requests, RequestsPerAddress};
        let of = |limit| self.limited.get_or_create(&LimitLabels { limit }).get();
        [ConnectionsPerAddress, Requests, RequestsPerAddress].into_iter().map(of).sum()
    }

    fn register(&self) -> Registry {
        let mut all = Registry::with_prefix("waystation");
        all.register("http_requests", "Requests answered by the registry", self.requests.clone());
        all.register_with_unit(
            "http_request",
            "Time until the registry's answer began",
            Unit::Seconds,
            self.request_seconds.clone(),
        );
        all.register("http_sent_bytes", "Bytes of bodies sent to clients", self.bytes_served.clone());
        all.register("ingested_blobs", "Blobs and manifests pushed by clients", self.blobs_ingested.clone());
        all.register("ingested_bytes", "Bytes pushed by clients", self.bytes_ingested.clone());
        all.register("upstream_bytes", "Bytes downloaded from upstreams", self.upstream_bytes.clone());
        all.register("logins_failed", "Logins that let nobody in", self.logins_failed.clone());
        all.register(
            "limited",
            "Requests and connections refused, too much was under way",
            self.limited.clone(),
        );
        all.register(
            "tls_certificate_end_seconds",
            "When the certificate of the registry's listener ends, since 1970",
            self.certificate_end.clone(),
        );
        all.register("catalog_records", "Records in the catalog", self.records.clone());
        all.register("control_sessions", "Members with a live control session", self.sessions.clone());
        all.register("wants", "Blobs being fetched or waited for", self.wants.clone());
        all.register("fetches", "Transfers under way", self.fetches.clone());
        all.register("fetches_failed", "Fetches that ended early", self.fetches_failed.clone());
        all.register("refused", "Connections of nodes that are not members", self.refused.clone());
        all.register("garbage_frames", "Control messages not decoded", self.garbage_frames.clone());
        all.register(
            "records_refused",
            "Records dropped because they do not count",
            self.records_refused.clone(),
        );
        all.register("plane_bytes", "Bytes exchanged with other nodes", self.plane_bytes.clone());
        all.register(
            "control_messages",
            "Messages exchanged with other nodes",
            self.control_messages.clone(),
        );
        all.register(
            "control_message_bytes",
            "Their bytes, without what the transport adds",
            self.control_message_bytes.clone(),
        );
        all.register(
            "messages_dropped",
            "Messages to members dropped, a queue was full",
            self.messages_dropped.clone(),
        );
        all.register(
            "artifacts_completed",
            "Artifacts made complete by replication",
            self.artifacts_completed.clone(),
        );
        all.register("holders_lied", "Holders whose bytes did not match", self.holders_lied.clone());
        self.register_budget(&mut all);
        all.register("storage_used_bytes", "Bytes that the data directory takes", self.used.clone());
        all.register("storage_quota_bytes", "Bytes that it may take", self.quota.clone());
        all.register(
            "evicted_copies",
            "Copies deleted to make room, or as nothing needs them",
            self.evicted.clone(),
        );
        all.register("evicted_bytes", "Bytes of copies deleted", self.evicted_bytes.clone());
        all
    }

    fn register_budget(&self, all: &mut Registry) {
        let (spent, rate) = (self.budget_spent.clone(), self.budget_rate.clone());
        all.register("budget_spent_bytes", "Bytes over links to other sites this month", spent);
        all.register("budget_rate_bytes", "Bytes a second allowed over links to other sites", rate);
        let (cap, blocked) = (self.budget_cap.clone(), self.budget_blocked.clone());
        all.register("budget_cap_bytes", "Bytes allowed over links to other sites in a month", cap);
        all.register("budget_blocked", "Whether nothing may be fetched from other sites now", blocked);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_has_names_and_labels() {
        let metrics = Metrics::new();
        let labels = RequestLabels { route: RouteLabel::Blob, method: MethodLabel::Get, status: 206 };
        metrics.requests.get_or_create(&labels).inc();
        metrics.clone().records.set(7);
        let data_in = PlaneBytesLabels { plane: Plane::Data, direction: Direction::In };
        metrics.plane_bytes.get_or_create(&data_in).inc_by(5);
        let page = metrics.encode();
        for line in [
            "waystation_http_requests_total{route=\"blob\",method=\"get\",status=\"206\"} 1",
            "waystation_catalog_records 7",
            "waystation_plane_bytes_total{plane=\"data\",direction=\"in\"} 5",
            "# EOF",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
        }
    }
}
