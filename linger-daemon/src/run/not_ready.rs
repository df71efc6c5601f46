//! Answers while programs are being attached: until then, `/readyz` and `/metrics` say 503.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow};
use tokio::sync::oneshot;

use crate::http::{self, Limits, Listeners, State};
use crate::privileges;

/// A thread that answers. It has no capabilities, and ends with this.
pub(super) struct NotReady {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<()>>,
}

impl NotReady {
    /// Begins to answer on these sockets.
    pub(super) fn answer(listeners: Listeners, state: Arc<State>) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name("not-ready".to_owned());
        let thread = thread.spawn(move || {
            privileges::give_up().context("cannot drop capabilities")?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let stopped = async {
                // Its sender is gone.
                let _ = stopped.await;
            };
            runtime.block_on(http::serve(listeners, state, Limits::DEFAULT, stopped))?;
            // A password that is being checked is of no use any more.
            runtime.shutdown_background();
            Ok(())
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends it: from now on, another answers.
    pub(super) fn end(self) -> Result<()> {
        drop(self.stop);
        let ended = self.thread.join();
        ended.map_err(|_| anyhow!("a thread that answers has panicked"))?
    }
}
