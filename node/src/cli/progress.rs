//! Shows how transfers go: bars on a terminal, a line for each finished one elsewhere. Writes to stderr only.

use std::{io::IsTerminal, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::table::size;

/// All transfers of one command.
#[derive(Clone, Debug)]
pub struct Progress {
    bars: Option<MultiProgress>,
    silent: bool,
}

/// One transfer.
#[derive(Clone, Debug)]
pub struct Transfer {
    bar: Option<(MultiProgress, ProgressBar)>,
    label: String,
    size: u64,
    silent: bool,
}

impl Progress {
    /// Bars if stderr is a terminal.
    pub fn new() -> Self {
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        Progress { bars, silent: false }
    }

    /// Shows nothing.
    pub fn silent() -> Self {
        Progress { bars: None, silent: true }
    }

    /// A transfer begins.
    pub fn start(&self, label: String, size: u64) -> Transfer {
        let bar = self.bars.as_ref().map(|bars| {
            let style = ProgressStyle::with_template(BAR).expect("a valid template").progress_chars("=> ");
            let bar = ProgressBar::new(size).with_style(style).with_message(label.clone());
            bar.enable_steady_tick(TICK);
            (bars.clone(), bars.add(bar))
        });
        Transfer { bar, label, size, silent: self.silent }
    }
}

impl Transfer {
    /// So many bytes more.
    pub fn advance(&self, bytes: u64) {
        if let Some((_, bar)) = &self.bar {
            bar.inc(bytes);
        }
    }

    /// It ended, with this to say.
    pub fn done(self, what: &str) {
        let line = format!("{}  {:>10}  {what}", self.label, size(self.size));
        match self.bar {
            Some((bars, bar)) => {
                bar.finish_and_clear();
                // A terminal that went away takes the line with it.
                let _ = bars.println(line);
            }
            None if !self.silent => eprintln!("{line}"),
            None => {}
        }
    }
}

const BAR: &str =
    "{msg}  [{bar:30}] {binary_bytes:>10} / {binary_total_bytes}  {binary_bytes_per_sec}  {eta}";
const TICK: Duration = Duration::from_millis(200);
