//! Every queue and message has a limit.

use waystation_proto::{Output, ReplicaConfig, wire::Message};

use crate::host::Host;

/// Whether an answer to one input, and what the replica has under way after it, is within bounds.
pub fn after(host: &Host, outputs: &[Output]) -> Result<(), String> {
    if outputs.len() > OUTPUTS_MAX {
        return Err(format!("{} outputs to one input", outputs.len()));
    }
    let counts = host.replica().map(|replica| replica.counts()).unwrap_or_default();
    let limits = ReplicaConfig::default();
    if counts.fetches > limits.fetches_max {
        return Err(format!("{} transfers at a time", counts.fetches));
    }
    if counts.records > limits.records_max {
        return Err(format!("{} records", counts.records));
    }
    Ok(())
}

/// Whether a message, given by its bytes, is one that others take.
pub fn message(bytes: &[u8], announced: bool) -> Result<(), String> {
    let limit = if announced { Message::MAX_ANNOUNCE_BYTES } else { Message::MAX_BYTES };
    if bytes.len() > limit {
        return Err(format!("a message of {} bytes, {limit} are allowed", bytes.len()));
    }
    match Message::decode(bytes) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("own message is refused: {error}")),
    }
}

/// No input has cause to make a replica do more than this.
const OUTPUTS_MAX: usize = 2_000;
