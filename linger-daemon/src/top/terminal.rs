//! The event loop on a terminal: keys, readings and signals.

use std::io;
use std::panic;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::Pid;
use ratatui::DefaultTerminal;
use ratatui::backend::Backend as _;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use ratatui::crossterm::execute;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::{MissedTickBehavior, interval};

use super::draw::{Picture, draw};
use super::features::Features;
use super::history::History;
use super::rows::rows;
use super::source::Source;
use super::state::{Action, ViewState};
use crate::live::Live;

/// An event for the view.
enum News {
    Key(KeyEvent),
    Resized,
    /// Keys can no longer be read.
    Closed(io::Error),
    Reading(Result<Box<Live>>),
    /// A request to suspend.
    Stop,
    /// The process continues after it was stopped.
    GoOn,
    /// A request to end.
    End,
}

/// Shows readings from this source until a key or a signal ends it. Then restores the terminal.
pub(super) async fn show(
    mut source: Source,
    every: Duration,
    mut state: ViewState,
    mut history: History,
) -> Result<()> {
    let name = source.name();
    let features = Features::from_environment();
    let (sender, mut news) = unbounded_channel();
    signals(&sender)?;
    let readings = sender.clone();
    tokio::spawn(async move {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let reading = source.read().await.map(Box::new);
            if readings.send(News::Reading(reading)).is_err() {
                return;
            }
        }
    });
    let mut terminal = Screen(ratatui::try_init()?);
    restore_after_panic();
    keys(sender);
    let mut failure: Option<String> = None;
    loop {
        terminal.0.draw(|frame| {
            let picture = Picture {
                history: &history,
                source: &name,
                interval: every,
                failure: failure.as_deref(),
                features,
            };
            draw(frame, &picture, &mut state);
        })?;
        match news.recv().await {
            Some(News::Key(key)) => {
                let rows = rows(&history, &state);
                let units: Vec<String> = rows.iter().map(|(name, _)| (*name).to_owned()).collect();
                let units: Vec<_> = units.iter().map(String::as_str).collect();
                match state.key(key, &units) {
                    Action::Draw => {}
                    Action::Quit => return Ok(()),
                    // The whole job, as the terminal does in cooked mode.
                    Action::Suspend => kill(Pid::from_raw(0), Signal::SIGTSTP)?,
                }
            }
            Some(News::Resized) => {}
            Some(News::Reading(Ok(live))) => {
                failure = None;
                if !state.paused {
                    history.add(*live);
                }
            }
            Some(News::Reading(Err(error))) => failure = Some(format!("{error:#}")),
            Some(News::Stop) => terminal.stop()?,
            Some(News::GoOn) => terminal.take_back()?,
            Some(News::Closed(error)) => return Err(error.into()),
            Some(News::End) | None => return Ok(()),
        }
    }
}

/// A terminal that is restored on drop.
struct Screen(DefaultTerminal);

impl Screen {
    /// Restores the terminal and stops the process until it is continued.
    fn stop(&mut self) -> io::Result<()> {
        restore()?;
        raise(Signal::SIGSTOP)?;
        self.take_back()
    }

    /// Takes the terminal back after another program used it.
    fn take_back(&mut self) -> io::Result<()> {
        restore()?;
        self.0 = ratatui::try_init()?;
        // Not with the terminal's own method, which queries the cursor position and reads the answer from
        // the keys.
        self.0.backend_mut().clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // If this fails, the terminal is gone.
        let _ = restore();
    }
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

/// Forwards signals as events.
fn signals(sender: &UnboundedSender<News>) -> io::Result<()> {
    const STOP: SignalKind = SignalKind::from_raw(Signal::SIGTSTP as i32);
    const GO_ON: SignalKind = SignalKind::from_raw(Signal::SIGCONT as i32);
    for kind in [
        STOP,
        GO_ON,
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
    ] {
        let mut signal = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while signal.recv().await.is_some() {
                let news = match kind {
                    STOP => News::Stop,
                    GO_ON => News::GoOn,
                    _ => News::End,
                };
                if sender.send(news).is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}

/// Forwards keys as events, from a thread that ends with the process.
fn keys(sender: UnboundedSender<News>) {
    thread::spawn(move || {
        loop {
            let news = match event::read() {
                Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => News::Key(key),
                Ok(Event::Resize(..)) => News::Resized,
                Ok(_) => continue,
                Err(error) => News::Closed(error),
            };
            let is_last = matches!(news, News::Closed(_));
            if sender.send(news).is_err() || is_last {
                return;
            }
        }
    });
}
