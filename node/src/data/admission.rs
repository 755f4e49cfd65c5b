//! How two nodes prove to one another, on a fresh data connection, that both have the mesh's admission
//! secret. Each sends a MAC over the connection's own keying material (RFC 5705, so that nothing can be
//! replayed or relayed), its role and both node ids. Nothing else is answered before.

use std::time::Duration;

use iroh::endpoint::{Connection, ConnectionError, ReadError, ReadExactError, VarInt};
use waystation_proto::NodeId;

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Dialler,
    Accepter,
}

/// Why a connection is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotAdmitted {
    /// The other side has another secret, or none.
    Unproven,
    /// The other side proves in a way that this version does not know.
    Version(u8),
    /// The connection ended before.
    Lost(String),
}

/// Proves the secret and has it proven, within [`TIMEOUT`]. On failure the connection is closed.
pub(super) async fn admit(
    connection: &Connection,
    key: &[u8; 32],
    role: Role,
    me: NodeId,
    other: NodeId,
) -> Result<(), NotAdmitted> {
    let result = match tokio::time::timeout(TIMEOUT, exchange(connection, key, role, me, other)).await {
        Ok(result) => result,
        // It is not let in, but nothing is known of its mesh: links are slow, and break.
        Err(_) => Err(NotAdmitted::Lost(format!("no proof of admission within {TIMEOUT:?}"))),
    };
    if result.is_err() {
        connection.close(REFUSED, b"admission not proven");
    }
    result
}

async fn exchange(
    connection: &Connection,
    key: &[u8; 32],
    role: Role,
    me: NodeId,
    other: NodeId,
) -> Result<(), NotAdmitted> {
    let mut binding = [0; 32];
    connection
        .export_keying_material(&mut binding, b"EXPORTER waystation admission v1", b"")
        .map_err(|error| NotAdmitted::Lost(format!("no keying material: {error:?}")))?;
    let (dialler, accepter) = if role == Role::Dialler { (me, other) } else { (other, me) };
    let proof = |role| mac(key, role, &binding, &dialler, &accepter);
    match role {
        Role::Dialler => {
            let (mut send, mut receive) = connection.open_bi().await.map_err(lost)?;
            send.write_all(&frame(&proof(Role::Dialler)))
                .await
                .map_err(|error| unwritten(connection, &error))?;
            let mut answer = [0; FRAME];
            receive.read_exact(&mut answer).await.map_err(unread)?;
            check(&answer, &proof(Role::Accepter))
        }
        Role::Accepter => {
            let (mut send, mut receive) = connection.accept_bi().await.map_err(lost)?;
            let mut claim = [0; FRAME];
            receive.read_exact(&mut claim).await.map_err(unread)?;
            check(&claim, &proof(Role::Dialler))?;
            send.write_all(&frame(&proof(Role::Accepter)))
                .await
                .map_err(|error| unwritten(connection, &error))
        }
    }
}

fn mac(key: &[u8; 32], role: Role, binding: &[u8; 32], dialler: &NodeId, accepter: &NodeId) -> blake3::Hash {
    let role: u8 = match role {
        Role::Dialler => 1,
        Role::Accepter => 2,
    };
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&[role]).update(binding).update(&dialler.0).update(&accepter.0);
    hasher.finalize()
}

fn frame(proof: &blake3::Hash) -> [u8; FRAME] {
    let mut frame = [VERSION; FRAME];
    frame[1..].copy_from_slice(proof.as_bytes());
    frame
}

fn check(frame: &[u8; FRAME], wanted: &blake3::Hash) -> Result<(), NotAdmitted> {
    let [version, proof @ ..] = frame;
    if *version != VERSION {
        return Err(NotAdmitted::Version(*version));
    }
    // Compared in constant time by this type.
    if blake3::Hash::from(*proof) == *wanted { Ok(()) } else { Err(NotAdmitted::Unproven) }
}

fn lost(error: ConnectionError) -> NotAdmitted {
    match error {
        ConnectionError::ApplicationClosed(close) if close.error_code == REFUSED => NotAdmitted::Unproven,
        error => NotAdmitted::Lost(error.to_string()),
    }
}

fn unread(error: ReadExactError) -> NotAdmitted {
    match error {
        ReadExactError::ReadError(ReadError::ConnectionLost(error)) => lost(error),
        ReadExactError::FinishedEarly(_) => NotAdmitted::Unproven,
        error => NotAdmitted::Lost(error.to_string()),
    }
}

fn unwritten(connection: &Connection, error: &impl std::fmt::Display) -> NotAdmitted {
    connection.close_reason().map_or_else(|| NotAdmitted::Lost(error.to_string()), lost)
}

/// One byte of version and a MAC.
const FRAME: usize = 33;

const VERSION: u8 = 1;

/// Two round trips are enough.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The code that a connection is closed with where admission was not proven.
const REFUSED: VarInt = VarInt::from_u32(0x57);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_fits_one_role_one_connection_and_two_nodes() {
        let (a, b) = (NodeId([1; 32]), NodeId([2; 32]));
        let proof = mac(&[0; 32], Role::Dialler, &[9; 32], &a, &b);
        let others = [
            mac(&[1; 32], Role::Dialler, &[9; 32], &a, &b),
            mac(&[0; 32], Role::Accepter, &[9; 32], &a, &b),
            mac(&[0; 32], Role::Dialler, &[8; 32], &a, &b),
            mac(&[0; 32], Role::Dialler, &[9; 32], &b, &a),
        ];
        assert_eq!(check(&frame(&proof), &proof), Ok(()));
        for other in others {
            assert_eq!(check(&frame(&other), &proof), Err(NotAdmitted::Unproven));
        }
        let mut later = frame(&proof);
        later[0] = 2;
        assert_eq!(check(&later, &proof), Err(NotAdmitted::Version(2)));
    }
}
