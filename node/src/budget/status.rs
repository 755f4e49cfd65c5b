//! What a budget says of itself: to the operator, to scripts, to whoever explains why nothing happens.

use std::fmt;

use serde::{Deserialize, Serialize};
use waystation_proto::event::Class;

use super::{config::BudgetConfig, windows::Window};
use crate::units::Size;

/// Why a fetch from another site may not begin now. Shown as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// Everything is spent.
    Spent {
        /// Bytes.
        spent: u64,
        /// Bytes allowed in the month.
        cap: u64,
        /// Day on which the month began, where a clock was ever set.
        since: Option<String>,
    },
    /// What is left is the clients'.
    Reserved {
        /// Bytes.
        spent: u64,
        /// Bytes allowed in the month.
        cap: u64,
        /// Bytes of it that are the clients'.
        reserve: u64,
    },
    /// It is not the time of the day.
    Closed {
        /// When it is.
        windows: Vec<Window>,
    },
    /// There are times of the day, and no clock to tell them by.
    NoClock,
}

/// Answer to `budget`, and part of the answer to `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetStatus {
    /// What the node goes by now.
    pub limits: BudgetConfig,
    /// Whether that is other than what its configuration says, until it is restarted or reset.
    pub changed: bool,
    /// Live nodes of the site, this one included, as it knows.
    pub site_nodes: u64,
    /// What this node may move over links to other sites in the month, in bytes.
    pub monthly_bytes: Option<u64>,
    /// Day on which the month began; absent until a clock was set.
    pub since: Option<String>,
    /// Bytes from other sites in the month.
    pub spent_down: u64,
    /// Bytes to other sites in the month.
    pub spent_up: u64,
    /// What may not be fetched from other sites now.
    pub blocked: Vec<BlockedClass>,
}

/// A class that may not fetch from other sites now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedClass {
    /// `client` or `background`.
    pub class: String,
    /// A sentence.
    pub why: String,
}

/// Name of a class, as shown.
pub fn class_name(class: Class) -> &'static str {
    match class {
        Class::Client => "client",
        Class::Background => "background",
    }
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Blocked::Spent { spent, cap, since } => {
                let since = since.as_ref().map(|day| format!(" since {day}")).unwrap_or_default();
                write!(
                    f,
                    "the month's budget for links to other sites is spent ({} of {}{since}); it goes on with the next \
                     month, or with more: waystation budget set --monthly SIZE",
                    rough(*spent),
                    Size(*cap)
                )
            }
            Blocked::Reserved { spent, cap, reserve } => write!(
                f,
                "of the month's budget for links to other sites {} of {} is spent, and {} is kept for clients; it goes on \
                 with the next month, or with more: waystation budget set --monthly SIZE",
                rough(*spent),
                Size(*cap),
                Size(*reserve)
            ),
            Blocked::Closed { windows } => {
                let windows: Vec<_> = windows.iter().map(Window::to_string).collect();
                write!(f, "what nobody waits for comes from other sites only at {} UTC", windows.join(", "))
            }
            Blocked::NoClock => f.write_str(
                "what nobody waits for comes from other sites only at some times of the day, and the machine's clock \
                 was never set; set it",
            ),
        }
    }
}

/// Three digits are enough.
fn rough(bytes: u64) -> String {
    let unit = 1000_u64.pow(bytes.checked_ilog10().unwrap_or(0) / 3);
    Size(bytes / (unit / 1000).max(1) * (unit / 1000).max(1)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences() {
        let spent =
            Blocked::Spent { spent: 50_012_345_678, cap: 50_000_000_000, since: Some("2026-11-01".into()) };
        let text = spent.to_string();
        assert!(text.contains("(50.012 GB of 50 GB since 2026-11-01)"), "{text}");
        let text = Blocked::Closed { windows: vec!["22:00-06:00".parse().expect("a window")] }.to_string();
        assert!(text.ends_with("only at 22:00-06:00 UTC"), "{text}");
        assert_eq!(
            (rough(0), rough(999), rough(1_234_567)),
            ("0 B".into(), "999 B".into(), "1.234 MB".into())
        );
    }
}
