//! Who guards the listener that clients connect to: access rules and TLS, what is to be said of them at the
//! start, and the look at their files while the node runs.

use std::{sync::Arc, time::Duration};

use rustix::process::{Resource, getrlimit};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::{ServeError, wall};
use crate::{
    access::{
        Access,
        config::LimitsConfig,
        tls::{Tls, days},
    },
    api::AccessStatus,
    config::Config,
    metrics::Metrics,
};

/// Who guards the listener that clients connect to.
pub struct Guard {
    /// Who may do what, and how much at a time.
    pub access: Access,
    /// Nothing where clients are spoken to without.
    pub tls: Option<Tls>,
}

impl Guard {
    /// What the configuration says; warns of what an operator would not want.
    pub fn open(config: &Config, metrics: &Metrics) -> Result<Self, ServeError> {
        let data_dir = &config.node.data_dir;
        let limits = affordable(config.limits);
        let access = Access::open(&config.auth, limits, config.anonymous(), data_dir, metrics)?;
        let names = config.names();
        let tls = Tls::open(&config.tls, data_dir, Box::new(move || names.clone()), metrics)?;
        let guard = Guard { access, tls };
        guard.warn(config);
        Ok(guard)
    }

    /// For `waystation status`.
    pub fn status(&self, metrics: &Metrics) -> Arc<dyn Fn() -> AccessStatus + Send + Sync> {
        let (tls, metrics) = (self.tls.clone(), metrics.clone());
        Arc::new(move || AccessStatus {
            tls: tls.is_some(),
            certificate_days: tls.as_ref().map(|tls| days(tls.ends(), wall().0)),
            logins_failed: metrics.logins_failed.get(),
            requests_limited: metrics.limited_in_all(),
        })
    }

    fn warn(&self, config: &Config) {
        let listen = config.registry.listen;
        if config.auth.htpasswd.is_some() && self.tls.is_none() && !listen.ip().is_loopback() {
            warn!(%listen, "clients log in without TLS, so their passwords can be read on the network; set tls.certificate and tls.key, or tls.self_made");
        }
    }

    /// Looks at the files until the node stops.
    pub async fn watch(self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(LOOK_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let look = async {
            loop {
                tick.tick().await;
                let (access, tls) = (self.access.clone(), self.tls.clone());
                // Files may lie on a network; whoever serves must not wait for them.
                let looked = tokio::task::spawn_blocking(move || {
                    access.refresh();
                    if let Some(tls) = tls {
                        tls.refresh();
                    }
                });
                if looked.await.is_err() {
                    error!("looking for new certificates and users failed; they stay as they are");
                }
            }
        };
        if self.tls.is_some() || self.access.offers_logins() {
            stop.run_until_cancelled(look).await;
        }
    }
}

/// As many connections as there may be files, with room for everything else.
fn affordable(mut limits: LimitsConfig) -> LimitsConfig {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = u32::try_from(files / 2).unwrap_or(u32::MAX).max(64);
    if limits.connections > room {
        debug!(connections = room, files, "fewer connections than configured: files are limited");
        limits.connections = room;
    }
    limits
}

/// How often certificates and users are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
