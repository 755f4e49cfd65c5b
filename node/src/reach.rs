//! Whether others can dial a node, by trying: a member that is asked dials whoever asks at the addresses that its own
//! record tells everybody, on both planes, and says what came of it. Owns what is tried, how often for whom, and what
//! the answer looks like. Nobody can have other addresses tried than those that all members dial anyway, and the
//! answer says only whether that very node is there: this is no scanner of ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use waystation_proto::NodeId;

use crate::{
    control::{self, DialBacks, is_relayed, resolve},
    data,
    mesh::AdmissionSecret,
    store::Store,
};

/// What came of dialling a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Why nothing was tried.
    pub refused: Option<String>,
    /// What was tried; of many addresses the first.
    pub tries: Vec<Tried>,
}

/// One address that was dialled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// As the node tells it.
    pub address: String,
    /// Whether the node was there for the control plane (TCP).
    pub control: bool,
    /// Whether it was for the data plane (UDP).
    pub data: bool,
}

/// Asks members.
#[derive(Clone)]
pub struct Asking(Option<DialBacks>);

struct Dialler {
    store: Store,
    admission: AdmissionSecret,
    /// When whom was dialled last.
    dialled: Mutex<BTreeMap<NodeId, Instant>>,
}

impl Asking {
    /// Nobody can be asked.
    pub fn nobody() -> Self {
        Asking(None)
    }

    /// Asks members of this control plane, and dials those that ask.
    pub fn over(back: DialBacks, store: &Store, admission: AdmissionSecret) -> Self {
        let dialler = Dialler { store: store.clone(), admission, dialled: Mutex::default() };
        let dialler = Arc::new(dialler);
        back.dial_with(Arc::new(move |node| {
            let dialler = dialler.clone();
            async move { dialler.answer(node).await }.boxed()
        }));
        Asking(Some(back))
    }

    /// Has a member dial this node.
    ///
    /// # Errors
    /// A sentence for people, where it did not.
    pub async fn ask(&self, member: NodeId) -> Result<Vec<Tried>, String> {
        let back = self.0.as_ref().ok_or("this node cannot ask")?;
        let answer = back.ask(member).await?;
        let reach: Reach = serde_json::from_slice(&answer).map_err(|_| "its answer makes no sense")?;
        match reach.refused {
            Some(why) => Err(why),
            None if reach.tries.is_empty() => Err("it has heard of no address of this node".into()),
            None => Ok(reach.tries),
        }
    }
}

impl Dialler {
    async fn answer(&self, node: NodeId) -> Vec<u8> {
        let reach = if self.may(node) {
            Reach { tries: self.dial(node).await, refused: None }
        } else {
            let refused = format!("it dials a node once in {} seconds", SELDOM.as_secs());
            Reach { refused: Some(refused), tries: Vec::new() }
        };
        // It always can be written.
        serde_json::to_vec(&reach).unwrap_or_default()
    }

    fn may(&self, node: NodeId) -> bool {
        let mut dialled = self.dialled.lock().unwrap_or_else(PoisonError::into_inner);
        dialled.retain(|_, when| when.elapsed() < SELDOM);
        let may = dialled.len() < DIALLED_MAX && !dialled.contains_key(&node);
        if may {
            dialled.insert(node, Instant::now());
        }
        may
    }

    /// All addresses at once, and both planes.
    async fn dial(&self, node: NodeId) -> Vec<Tried> {
        let nodes = self.store.index().nodes();
        let told = nodes.into_iter().find(|(known, _)| *known == node);
        let addresses = told.map(|(_, body)| body.addresses).unwrap_or_default();
        let direct = addresses.into_iter().filter(|address| !is_relayed(address)).take(ADDRESSES_MAX);
        futures_util::future::join_all(direct.map(|address| self.dial_address(node, address))).await
    }

    async fn dial_address(&self, node: NodeId, address: String) -> Tried {
        let sockets: BTreeSet<_> = resolve(&address).await.unwrap_or_default().into_iter().collect();
        let mut tried = Tried { address, control: false, data: false };
        for socket in sockets.into_iter().take(SOCKETS_MAX) {
            let (control, data) = futures_util::future::join(
                control::answers_as(socket, node, &self.admission),
                data::answers_as(socket, node),
            )
            .await;
            tried.control |= control;
            tried.data |= data;
        }
        tried
    }
}

/// How often one member is dialled as it asks.
const SELDOM: Duration = Duration::from_secs(10);
/// Members that are remembered for that; more are not dialled.
const DIALLED_MAX: usize = 256;
/// Addresses of a node that are tried,
const ADDRESSES_MAX: usize = 8;
/// and sockets of a name.
const SOCKETS_MAX: usize = 2;
