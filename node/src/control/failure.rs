//! What libp2p's nested errors mean: one line for people, and whether a handshake failed because one side
//! did not have the mesh's admission secret.

use std::{error::Error, io::ErrorKind};

use libp2p::{
    connection_limits::Exceeded,
    noise,
    swarm::{ConnectionDenied, DialError},
};

use super::{address, behaviour::PER_PEER_MAX};

/// Whether a handshake ended the way it does when two sides have different admission secrets: the dialler
/// cannot decrypt the first answer and hangs up, the other side sees it hang up. A dialler that is hung up
/// on has met a full or stopping node, or a broken path.
pub(crate) fn is_unproven(error: &(dyn Error + 'static), dialled: bool) -> bool {
    chain(error).into_iter().any(|cause| match cause.downcast_ref::<noise::Error>() {
        Some(noise::Error::Noise(_)) => true,
        // What cannot be decrypted comes as invalid data, too.
        Some(noise::Error::Io(error)) => match error.kind() {
            ErrorKind::InvalidData => true,
            ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe => !dialled,
            _ => false,
        },
        _ => false,
    })
}

/// An error's causes, looking into `io::Error`, which hides what it wraps.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> Vec<&'a (dyn Error + 'static)> {
    let mut causes = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next.filter(|_| causes.len() < CAUSES_MAX) {
        causes.push(error);
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    causes
}

/// What is said of a peer that came to this node and did not get through the handshake. A node of another mesh
/// looks like that too, because it hangs up; only its own log can know.
pub(crate) fn unfinished(error: &(dyn Error + 'static)) -> String {
    let last = chain(error).last().map(ToString::to_string).unwrap_or_default();
    format!("{UNFINISHED} ({last}); if it should be a member, its own log says why")
}

/// Whether this node has as many connections, or handshakes under way, as it takes: not merely one too
/// many with one peer.
pub(crate) fn is_full(error: &ConnectionDenied) -> bool {
    error.downcast_ref::<Exceeded>().is_some_and(|exceeded| exceeded.limit() > PER_PEER_MAX)
}

/// libp2p's errors in one line.
pub(crate) fn reason(error: &(dyn Error + 'static)) -> String {
    match error.downcast_ref::<DialError>() {
        Some(DialError::Transport(attempts)) => {
            let each = attempts.iter().map(|(at, error)| {
                let last = chain(error).last().map(ToString::to_string).unwrap_or_default();
                format!("{}: {last}", address::text(at))
            });
            each.collect::<Vec<_>>().join("; ")
        }
        Some(DialError::WrongPeerId { address, .. }) => {
            format!("another node answers at {}", address::text(address))
        }
        _ => error.to_string(),
    }
}

/// How [`unfinished`] begins.
pub(crate) const UNFINISHED: &str =
    "it did not prove this mesh's admission secret before the connection ended";

/// An error's causes that are looked at.
const CAUSES_MAX: usize = 16;
