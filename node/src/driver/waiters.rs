//! Who waits for which answer of the replica.

use std::collections::BTreeMap;

use tokio::sync::oneshot;
use waystation_proto::{
    NodeId, Refusal, RequestId,
    event::{LeaseRefusal, WantFailure},
};

use super::arrivals::Arrivals;

/// Requests of HTTP and the CLI that have not been answered.
#[derive(Debug)]
pub struct Waiters {
    writes: BTreeMap<RequestId, oneshot::Sender<Result<(), Refusal>>>,
    wants: BTreeMap<RequestId, oneshot::Sender<Result<(), WantFailure>>>,
    /// Those who want to know that the catalog has been compared with a member's; none after it was.
    unsettled: Option<Vec<oneshot::Sender<()>>>,
    /// Those of the wants that are read along.
    pub arrivals: Arrivals,
    leases: BTreeMap<RequestId, oneshot::Sender<Result<NodeId, LeaseRefusal>>>,
}

impl Waiters {
    /// Somebody waits for a write.
    pub fn write(&mut self, request: RequestId, answer: oneshot::Sender<Result<(), Refusal>>) {
        self.writes.insert(request, answer);
    }

    /// Somebody waits for a want.
    pub fn want(&mut self, request: RequestId, answer: oneshot::Sender<Result<(), WantFailure>>) {
        self.wants.insert(request, answer);
    }

    /// A write was done or refused. Whoever asked may be gone.
    pub fn written(&mut self, request: RequestId, result: Result<(), Refusal>) {
        if let Some(answer) = self.writes.remove(&request) {
            let _ = answer.send(result);
        }
    }

    /// A want ended. Whoever asked may be gone.
    pub fn want_done(&mut self, request: RequestId, result: Result<(), WantFailure>) {
        if let Some(answer) = self.wants.remove(&request) {
            let _ = answer.send(result);
        }
        self.arrivals.end(request);
    }

    /// Somebody waits for the first time that the catalog equals a member's.
    pub fn until_reconciled(&mut self, answer: oneshot::Sender<()>) {
        match &mut self.unsettled {
            Some(waiting) => {
                waiting.retain(|waiting| !waiting.is_closed());
                waiting.push(answer);
            }
            None => {
                let _ = answer.send(());
            }
        }
    }

    /// The catalog equals a member's.
    pub fn reconciled(&mut self) {
        for answer in self.unsettled.take().into_iter().flatten() {
            let _ = answer.send(());
        }
    }

    /// Somebody waits for another node's promise.
    pub fn lease(&mut self, request: RequestId, answer: oneshot::Sender<Result<NodeId, LeaseRefusal>>) {
        self.leases.insert(request, answer);
    }

    /// Another node promised, or none did. Whoever asked may be gone.
    pub fn lease_done(&mut self, request: RequestId, result: Result<NodeId, LeaseRefusal>) {
        if let Some(answer) = self.leases.remove(&request) {
            let _ = answer.send(result);
        }
    }

    /// Whoever waited for this want is gone.
    pub fn abandoned(&mut self, request: RequestId) {
        self.wants.remove(&request);
        self.arrivals.end(request);
    }
}

impl Default for Waiters {
    fn default() -> Self {
        Waiters {
            writes: BTreeMap::new(),
            wants: BTreeMap::new(),
            leases: BTreeMap::new(),
            unsettled: Some(Vec::new()),
            arrivals: Arrivals::default(),
        }
    }
}
