//! Answers requests until the programs are attached, in a process of its own.
//!
//! A thread would not do: attaching requires a single-threaded process, and capabilities that code that parses
//! requests should not have.

use std::io::{PipeReader, PipeWriter, pipe};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tracing::warn;

use crate::host;
use crate::http::{self, Limits, Listeners, State};
use crate::privileges;
use crate::sys;

/// A process without capabilities that answers until the programs are attached. It ends when this is dropped, and
/// with the daemon.
pub(super) struct StartupServer {
    process: Pid,
    /// Pipe whose closing ends the process.
    stop: Option<PipeWriter>,
}

impl StartupServer {
    /// Starts serving on these sockets. Call it before other threads are started.
    pub(super) fn begin(listeners: &Listeners, state: &Arc<State>) -> Result<Self> {
        let (stopped, stop) = pipe()?;
        // The new process has to close its own copy of this end of the pipe.
        let mut stop = Some(stop);
        let process = sys::fork(|| {
            stop = None;
            let served = serve(listeners, Arc::clone(state), stopped);
            if let Err(error) = &served {
                warn!("cannot answer before the programs are attached: {error:#}");
            }
            served.is_err().into()
        });
        let process = process
            .context("cannot start the process that answers until the programs are attached")?;
        Ok(Self { process, stop })
    }
}

impl Drop for StartupServer {
    /// Makes the process close its connections, and waits for its end.
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
    privileges::drop_all_but(&[], || true).context("cannot drop capabilities")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let served = runtime.block_on(async {
        let mut stopped = Receiver::from_owned_fd(stopped.into())?;
        let stop = async {
            // Completes when the pipe is closed: nothing is ever written to it.
            let _ = stopped.read_u8().await;
        };
        let limits = Limits::with_files(host::free_files());
        http::serve(listeners.try_clone()?, state, limits, stop).await
    });
    // Do not wait for a password that is still being checked.
    runtime.shutdown_background();
    served?;
    Ok(())
}
