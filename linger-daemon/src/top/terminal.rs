//! The event loop on a terminal: keys, readings and signals.

use std::io;
use std::panic;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ratatui::backend::{Backend as _, CrosstermBackend};
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, enable_raw_mode};
use ratatui::{DefaultTerminal, Terminal};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{MissedTickBehavior, interval};

use super::draw::{Picture, draw};
use super::features::Features;
use super::history::History;
use super::source::Source;
use super::state::{Action, ViewState};
use crate::live::Live;
use crate::sys;

/// Shows readings from this source until a key or a signal ends it, then restores the terminal.
pub(super) async fn show(
    source: Source,
    every: Duration,
    mut state: ViewState,
    mut history: History,
) -> Result<()> {
    let name = source.name();
    let features = Features::from_environment();
    let listen = |kind: Signal| signal(SignalKind::from_raw(kind as i32));
    let (mut stopped, mut continued) = (listen(Signal::SIGTSTP)?, listen(Signal::SIGCONT)?);
    let (mut terminate, mut interrupt) = (listen(Signal::SIGTERM)?, listen(Signal::SIGINT)?);
    let mut hangup = listen(Signal::SIGHUP)?;
    let mut readings = readings(source, every);
    restore_after_panic();
    let mut terminal = RestoringTerminal(take()?);
    let mut events = events();
    let mut failure: Option<String> = None;
    loop {
        terminal.0.draw(|frame| {
            let picture = Picture {
                history: &history,
                rows: history.rows(&state),
                source: &name,
                interval: every,
                failure: failure.as_deref(),
                features,
            };
            draw(frame, &picture, &mut state);
        })?;
        tokio::select! {
            Some(event) = events.recv() => {
                if let Event::Key(key) = event?
                    && key.kind != KeyEventKind::Release
                {
                    let rows = history.rows(&state).into_iter();
                    let units: Vec<_> = rows.map(|(name, _)| name).collect();
                    match state.key(key, &units) {
                        Action::Draw => {}
                        Action::Quit => return Ok(()),
                        // Stop the whole job, as the terminal does in cooked mode.
                        Action::Suspend => kill(Pid::from_raw(0), Signal::SIGTSTP)?,
                    }
                }
            }
            Some(reading) = readings.recv() => match reading {
                Ok(live) => {
                    failure = None;
                    if !state.paused {
                        history.add(live);
                    }
                }
                Err(error) => failure = Some(format!("{error:#}")),
            },
            _ = stopped.recv() => terminal.stop()?,
            _ = continued.recv() => terminal.take_back()?,
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
        }
    }
}

/// A terminal that is restored on drop.
struct RestoringTerminal(DefaultTerminal);

impl RestoringTerminal {
    /// Restores the terminal and stops the process until it is continued, if a shell can do that.
    fn stop(&mut self) -> io::Result<()> {
        restore()?;
        sys::stop_as_by_terminal()?;
        self.take_back()
    }

    /// Takes the terminal back after another program used it.
    fn take_back(&mut self) -> io::Result<()> {
        restore()?;
        self.0 = take()?;
        // Do not use the terminal's own method, which queries the cursor position and reads the reply from the keys.
        self.0.backend_mut().clear()
    }
}

impl Drop for RestoringTerminal {
    fn drop(&mut self) {
        // If this fails, the terminal is gone.
        let _ = restore();
    }
}

/// Takes the terminal. Unlike ratatui's own function, it sets no hook for panics, of which each call would leave one.
fn take() -> io::Result<DefaultTerminal> {
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen)?;
    Terminal::new(CrosstermBackend::new(io::stdout()))
}

/// Restores the terminal and its cursor.
fn restore() -> io::Result<()> {
    execute!(io::stdout(), Show)?;
    ratatui::try_restore()
}

/// Makes a panic restore the terminal before it prints its message.
fn restore_after_panic() {
    let others = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let _ = restore();
        others(info);
    }));
}

/// Returns readings, taken by a task in the background.
fn readings(mut source: Source, every: Duration) -> UnboundedReceiver<Result<Live>> {
    let (sender, readings) = unbounded_channel();
    tokio::spawn(async move {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if sender.send(source.read().await).is_err() {
                return;
            }
        }
    });
    readings
}

/// Returns keys and changes of the size, read by a thread that ends with the process.
fn events() -> UnboundedReceiver<io::Result<Event>> {
    let (sender, events) = unbounded_channel();
    thread::spawn(move || {
        loop {
            let event = event::read();
            let is_last = event.is_err();
            if sender.send(event).is_err() || is_last {
                return;
            }
        }
    });
    events
}
