//! Answers requests until the programs are attached, in a process of its own.
//!
//! A thread would not do: attaching takes a process with only one, and capabilities that nothing that parses requests
//! should have.

use std::io::{PipeReader, PipeWriter, pipe};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tracing::warn;

use crate::http::{self, Limits, Listeners, State};
use crate::privileges;
use crate::sys;

/// A process without capabilities that serves what needs no programs. It ends when this is dropped, and with the daemon.
pub(super) struct Starting {
    process: Pid,
    /// The process ends when this is closed.
    stop: Option<PipeWriter>,
}

impl Starting {
    /// Serves on these sockets. Call it before other threads are started.
    pub(super) fn begin(listeners: &Listeners, state: &Arc<State>) -> Result<Self> {
        let (stopped, stop) = pipe()?;
        // The new process has its own end of the pipe to close.
        let mut stop = Some(stop);
        let process = sys::fork(|| {
            stop = None;
            let served = serve(listeners, Arc::clone(state), stopped);
            if let Err(error) = &served {
                warn!("cannot answer before the programs are attached: {error:#}");
            }
            served.is_err().into()
        });
        let process = process.context("cannot start the process that answers meanwhile")?;
        Ok(Self { process, stop })
    }
}

impl Drop for Starting {
    /// Has it close its connections, and waits for that.
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = waitpid(self.process, None);
        if !matches!(ended, Ok(WaitStatus::Exited(..))) {
            warn!("the process that answered before the programs were attached: {ended:?}");
        }
    }
}

/// Serves until the other end of the pipe is closed.
fn serve(listeners: &Listeners, state: Arc<State>, stopped: PipeReader) -> Result<()> {
    privileges::drop_all(|| true).context("cannot drop capabilities")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut stopped = Receiver::from_owned_fd(stopped.into())?;
        let stop = async {
            // Nothing is written.
            let _ = stopped.read_u8().await;
        };
        http::serve(listeners.try_clone()?, state, Limits::DEFAULT, stop).await
    })?;
    Ok(())
}
