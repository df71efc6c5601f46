//! `lingerd top`: shows on a terminal who closes how, and at what cost.

mod column;
mod draw;
mod features;
mod history;
mod once;
mod options;
mod remote;
mod source;
mod state;
mod terminal;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use anyhow::{Result, bail};

use self::history::History;
pub use self::options::Top;
use self::source::Source;
use self::state::ViewState;
use crate::config::Config;

/// Time that trends cover.
const TREND: Duration = Duration::from_secs(300);

/// Shows readings until a key or a signal ends it, or prints one table.
pub fn top(options: &Top, config: &Config) -> Result<()> {
    if !(options.once || io::stdout().is_terminal() && io::stdin().is_terminal()) {
        bail!("top needs a terminal: use --once, or --once --json, to print one table instead");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        let source = Source::open(options, config).await?;
        let state = ViewState::new(options.sort);
        let history = History::new(window(options.interval));
        if options.once {
            once::print(source, options, history, &state).await
        } else {
            terminal::show(source, options.interval, state, history).await
        }
    });
    // Do not wait for a DNS lookup.
    runtime.shutdown_background();
    result
}

/// Number of readings that trends cover.
fn window(interval: Duration) -> usize {
    let readings = TREND.as_nanos() / interval.as_nanos().max(1);
    usize::try_from(readings).unwrap_or(600).clamp(30, 600)
}
