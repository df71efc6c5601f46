//! Writes lines to stdout in a thread, so that a slow reader holds up nothing else.

use std::collections::VecDeque;
use std::io;

use tokio::io::{AsyncWriteExt as _, Stdout, stdout};

/// Buffered lines for stdout.
pub(super) struct Output {
    stdout: Stdout,
    /// Bytes not written yet.
    pub(super) lines: VecDeque<u8>,
    /// True once the thread has written everything it was given.
    is_flushed: bool,
}

impl Output {
    pub(super) fn new() -> Self {
        Self {
            stdout: stdout(),
            lines: VecDeque::new(),
            is_flushed: true,
        }
    }

    pub(super) fn is_written(&self) -> bool {
        self.lines.is_empty() && self.is_flushed
    }

    /// Writes all lines. May be cancelled and called again.
    pub(super) async fn write(&mut self) -> io::Result<()> {
        self.is_flushed = false;
        self.stdout.write_all_buf(&mut self.lines).await?;
        self.stdout.flush().await?;
        self.is_flushed = true;
        Ok(())
    }
}
