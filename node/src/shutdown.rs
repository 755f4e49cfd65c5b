//! When to stop: the first SIGTERM or SIGINT asks for it, the second ends the process at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

/// The signals that stop a node.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Starts to listen for them. Must be called within a tokio runtime.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the first.
    pub async fn first(&mut self) {
        let name = self.next().await;
        info!(
            signal = name,
            "stopping: finishing what is under way, at most 5 s; a second signal stops at once"
        );
    }

    /// Ends the process at the next, without another word to anybody.
    pub async fn second(&mut self) -> ! {
        let name = self.next().await;
        warn!(signal = name, "stopped at once; what was acknowledged is on disk");
        abandon()
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// The one place that ends the process without unwinding: an operator who asks twice means it.
#[allow(clippy::disallowed_methods, reason = "see above")]
fn abandon() -> ! {
    std::process::exit(1)
}
