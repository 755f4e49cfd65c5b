//! Builds the process in the order of dependencies. (to be written)

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

/// Runs a node until it is told to stop.
pub async fn run(_: crate::config::Config) -> Result<(), StartError> {
    Ok(())
}
