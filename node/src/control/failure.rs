//! What libp2p's nested errors mean: one line for people, and whether a handshake failed because the two
//! sides do not have the same admission secret.

use std::error::Error;

use libp2p::{noise, swarm::DialError};

use super::address;

/// Whether a handshake failed because what the other side sent could not be decrypted: it has another
/// admission secret. Only the dialler sees that; the other side sees it hang up, as it also does when a link
/// breaks or a node stops, and must not draw conclusions.
pub(crate) fn is_unproven(error: &(dyn Error + 'static)) -> bool {
    chain(error).into_iter().any(|cause| match cause.downcast_ref::<noise::Error>() {
        Some(noise::Error::Noise(_)) => true,
        Some(noise::Error::Io(error)) => error.kind() == std::io::ErrorKind::InvalidData,
        _ => false,
    })
}

/// Whether a connection ended in the handshake that proves the admission secret, for whatever reason.
pub(crate) fn is_in_handshake(error: &(dyn Error + 'static)) -> bool {
    chain(error).into_iter().any(|cause| cause.is::<noise::Error>())
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

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn only_what_cannot_be_decrypted_is_of_another_mesh() {
        let in_handshake = |kind: ErrorKind| noise::Error::Io(kind.into());
        assert!(is_unproven(&in_handshake(ErrorKind::InvalidData)));
        let broken = [
            ErrorKind::UnexpectedEof,
            ErrorKind::ConnectionReset,
            ErrorKind::ConnectionAborted,
            ErrorKind::BrokenPipe,
            ErrorKind::TimedOut,
        ];
        for kind in broken {
            assert!(!is_unproven(&in_handshake(kind)), "{kind}");
            assert!(is_in_handshake(&in_handshake(kind)), "{kind}");
            assert!(!is_in_handshake(&std::io::Error::from(kind)), "{kind}");
        }
    }
}
