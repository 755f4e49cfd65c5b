//! What libp2p's nested errors mean: one line for people, and whether a handshake failed because one side
//! did not have the mesh's admission secret.

use std::error::Error;

use libp2p::{noise, swarm::DialError};

use super::address;

/// Whether a handshake ended the way it does when two sides have different admission secrets: the dialler
/// cannot decrypt the first answer and hangs up, the other side sees it hang up.
pub(crate) fn is_unproven(error: &(dyn Error + 'static)) -> bool {
    chain(error).into_iter().any(|cause| match cause.downcast_ref::<noise::Error>() {
        Some(noise::Error::Noise(_)) => true,
        Some(noise::Error::Io(error)) => {
            use std::io::ErrorKind::{
                BrokenPipe, ConnectionAborted, ConnectionReset, InvalidData, UnexpectedEof,
            };
            matches!(
                error.kind(),
                InvalidData | UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe
            )
        }
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

/// An error's causes that are looked at.
const CAUSES_MAX: usize = 16;
