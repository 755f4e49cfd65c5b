//! `waystation budget …`: shows and changes what may go over links to other sites, while the node runs. What the
//! values mean is [`crate::budget`]'s.

use clap::{Args, Subcommand, ValueEnum};

use super::{
    Failure, NodeArgs,
    local::Client,
    print, print_json,
    table::{facts, or_dash, size},
};
use crate::{
    api::BudgetReset,
    budget::{BudgetChange, BudgetStatus, Cap, Limit, Scope, windows::Window},
    units::Size,
};

/// `waystation budget`
#[derive(Debug, Subcommand)]
pub enum BudgetCommand {
    /// Say what may go over links to other sites, and what did this month.
    Show(ShowArgs),
    /// Change limits of the running node, until it is restarted. What is not named stays.
    Set(Box<SetArgs>),
    /// Go by the configuration again.
    Reset(ResetArgs),
}

/// `waystation budget show`
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// `waystation budget set`
#[derive(Debug, Args)]
pub struct SetArgs {
    /// Most that comes from other sites, such as 10Mbit/s or 1.25MB/s; `none` for no limit.
    #[arg(long, value_name = "RATE", value_parser = parse_limit)]
    down: Option<Limit>,
    /// Most that goes to other sites.
    #[arg(long, value_name = "RATE", value_parser = parse_limit)]
    up: Option<Limit>,
    /// --down is for what clients wait for, or for what nobody waits for [default: for both together].
    #[arg(long, value_name = "CLASS", requires = "down", conflicts_with_all = ["up", "lan"])]
    class: Option<ClassArg>,
    /// --down and --up are for links to nodes of this site.
    #[arg(long)]
    lan: bool,
    /// What clients get where both they and the background want more than the limit, in percent.
    #[arg(long, value_name = "PERCENT")]
    client_share: Option<u8>,
    /// When the background may fetch from other sites, such as 22:00-06:00, in UTC; repeat it for more, `always`
    /// for no windows.
    #[arg(long, value_name = "WINDOW")]
    window: Vec<String>,
    /// Most that may go over links to other sites in a month, such as 50GB; `none` for no cap.
    #[arg(long, value_name = "SIZE", value_parser = parse_cap)]
    monthly: Option<Cap>,
    /// How much of it is kept for clients.
    #[arg(long, value_name = "SIZE")]
    monthly_reserve: Option<Size>,
    /// Whether clients' fetches stop too where all is spent.
    #[arg(long, value_name = "true|false")]
    hard: Option<bool>,
    #[command(flatten)]
    node: NodeArgs,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// `waystation budget reset`
#[derive(Debug, Args)]
pub struct ResetArgs {
    /// Also forget what was spent this month.
    #[arg(long)]
    spent: bool,
    #[command(flatten)]
    node: NodeArgs,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ClassArg {
    /// What clients wait for.
    Client,
    /// What nobody waits for.
    Background,
}

/// Does one of them.
pub async fn run(command: BudgetCommand) -> Result<(), Failure> {
    let (status, json): (BudgetStatus, bool) = match command {
        BudgetCommand::Show(args) => {
            (Client::local(&args.node.data_dir()?)?.ask("budget", &[]).await?, args.json)
        }
        BudgetCommand::Set(args) => {
            let client = Client::local(&args.node.data_dir()?)?;
            (client.tell("budget", &args.change()?).await?, args.json)
        }
        BudgetCommand::Reset(args) => {
            let client = Client::local(&args.node.data_dir()?)?;
            (client.tell("budget/reset", &BudgetReset { spent: args.spent }).await?, args.json)
        }
    };
    if json { print_json(&status) } else { print(&facts(&lines(&status))) }
}

impl SetArgs {
    fn change(&self) -> Result<BudgetChange, Failure> {
        let mut change = BudgetChange {
            client_share: self.client_share,
            monthly: self.monthly,
            monthly_reserve: self.monthly_reserve,
            hard: self.hard,
            windows: windows(&self.window)?,
            ..BudgetChange::default()
        };
        match (self.class, self.lan) {
            (Some(ClassArg::Client), _) => change.client_down = self.down,
            (Some(ClassArg::Background), _) => change.background_down = self.down,
            (None, true) => (change.lan_down, change.lan_up) = (self.down, self.up),
            (None, false) => (change.down, change.up) = (self.down, self.up),
        }
        if change == BudgetChange::default() {
            return Err(Failure::Usage(
                "nothing to set was given; see: waystation budget set --help".to_owned(),
            ));
        }
        Ok(change)
    }
}

/// What the budget is and does, in one line.
pub fn short(status: &BudgetStatus) -> String {
    let limits = &status.limits;
    let mut parts = Vec::new();
    for (way, limit) in [("down", limits.down), ("up", limits.up)] {
        if let Some(rate) = limit.0 {
            parts.push(format!("{way} at most {rate}"));
        }
    }
    let spent = size(status.spent_down.saturating_add(status.spent_up));
    parts.push(match status.monthly_bytes {
        Some(cap) => format!("{spent} of {} spent this month", Size(cap)),
        None => format!("{spent} this month"),
    });
    parts.extend(status.blocked.iter().map(|blocked| format!("{} BLOCKED: {}", blocked.class, blocked.why)));
    parts.join(", ")
}

fn lines(status: &BudgetStatus) -> Vec<(&'static str, String)> {
    let limits = &status.limits;
    let rate = |limit: Limit| limit.0.map_or_else(|| "no limit".to_owned(), |rate| rate.to_string());
    let windows: Vec<_> = limits.windows.iter().map(Window::to_string).collect();
    let mut lines = vec![
        ("down", rate(limits.down)),
        ("up", rate(limits.up)),
        ("down for clients", rate(limits.client_down)),
        ("down in the background", rate(limits.background_down)),
        ("down within the site", rate(limits.lan_down)),
        ("up within the site", rate(limits.lan_up)),
        ("clients' share", format!("{} %", limits.client_share)),
        (
            "background",
            if windows.is_empty() { "always".to_owned() } else { format!("{} UTC", windows.join(", ")) },
        ),
        ("month", month(status)),
        ("spent down", size(status.spent_down)),
        ("spent up", size(status.spent_up)),
    ];
    if limits.scope == Scope::Site {
        lines.push(("divided among", format!("{} nodes of the site", status.site_nodes)));
    }
    lines.extend(status.blocked.iter().map(|blocked| {
        let name = if blocked.class == "client" { "clients BLOCKED" } else { "background BLOCKED" };
        (name, blocked.why.clone())
    }));
    if status.changed {
        lines.push(("changed", "until the node is restarted, or: waystation budget reset".to_owned()));
    }
    lines
}

fn month(status: &BudgetStatus) -> String {
    let since = or_dash(status.since.as_deref());
    match status.monthly_bytes {
        Some(cap) => {
            let kept = status.limits.monthly_reserve;
            let hard = if status.limits.hard { "" } else { ", clients may exceed it" };
            format!("{}, {kept} of it for clients, since {since}{hard}", Size(cap))
        }
        None => format!("no cap, since {since}"),
    }
}

fn windows(given: &[String]) -> Result<Option<Vec<Window>>, Failure> {
    if given == ["always"] {
        return Ok(Some(Vec::new()));
    }
    let windows: Result<Vec<Window>, _> = given.iter().map(|text| text.parse()).collect();
    let windows = windows.map_err(|e| Failure::Usage(e.to_string()))?;
    Ok(Some(windows).filter(|windows| !windows.is_empty()))
}

fn parse_limit(text: &str) -> Result<Limit, String> {
    let text = if text == "none" { "" } else { text };
    Limit::try_from(text.to_owned()).map_err(|e| e.to_string())
}

fn parse_cap(text: &str) -> Result<Cap, String> {
    let text = if text == "none" { "" } else { text };
    Cap::try_from(text.to_owned()).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: BudgetCommand,
    }

    fn change(arguments: &[&str]) -> Result<BudgetChange, String> {
        let line =
            Line::try_parse_from([&["budget", "set"], arguments].concat()).map_err(|e| e.to_string())?;
        let BudgetCommand::Set(args) = line.command else { panic!("it says set") };
        args.change().map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_set() {
        let rate = |text: &str| Some(parse_limit(text).expect("a limit"));
        let wanted = BudgetChange { background_down: rate("10 Mbit/s"), ..BudgetChange::default() };
        assert_eq!(change(&["--down", "10Mbit/s", "--class", "background"]), Ok(wanted));
        let wanted = BudgetChange { lan_up: rate("1 MB/s"), ..BudgetChange::default() };
        assert_eq!(change(&["--up", "1MB/s", "--lan"]), Ok(wanted));
        let wanted =
            BudgetChange { down: Some(Limit(None)), windows: Some(vec![]), ..BudgetChange::default() };
        assert_eq!(change(&["--down", "none", "--window", "always"]), Ok(wanted));
        for bad in [
            &[][..],
            &["--class", "client"],
            &["--up", "1MB/s", "--down", "1MB/s", "--class", "client"],
            &["--down", "1MB/s", "--class", "client", "--lan"],
            &["--down", "fast"],
            &["--window", "night"],
            &["--monthly", "50"],
        ] {
            assert!(change(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn one_line_and_many() {
        let mut status = BudgetStatus { spent_down: 2 << 20, ..BudgetStatus::default() };
        assert_eq!(short(&status), "2.00 MiB this month");
        status.limits.down = parse_limit("10Mbit/s").expect("a limit");
        status.monthly_bytes = Some(50_000_000_000);
        assert_eq!(short(&status), "down at most 10 Mbit/s, 2.00 MiB of 50 GB spent this month");
        assert!(lines(&status).contains(&("month", "50 GB, 0 B of it for clients, since -".to_owned())));
    }
}
