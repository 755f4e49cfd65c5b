//! Who waits for which answer of the replica.

use std::collections::BTreeMap;

use tokio::sync::oneshot;
use waystation_proto::{
    NodeId, Refusal, RequestId,
    event::{LeaseRefusal, WantFailure},
};

/// Requests of HTTP and the CLI that have not been answered.
#[derive(Debug, Default)]
pub struct Waiters {
    writes: BTreeMap<RequestId, oneshot::Sender<Result<(), Refusal>>>,
    wants: BTreeMap<RequestId, oneshot::Sender<Result<(), WantFailure>>>,
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
    }
}
