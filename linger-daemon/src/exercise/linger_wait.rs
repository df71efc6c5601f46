//! Closes that wait under `SO_LINGER`, and events meanwhile.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::pthread::{pthread_kill, pthread_self};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use socket2::Socket;

use super::state::{self, TcpState};
use super::tally::{End, Tally};
use super::tcp;

/// Closes the socket (IPv4), and runs `action` on another thread once the close waits for its FIN to be acknowledged.
/// Returns how long the close took.
pub fn close_while(
    tally: &mut Tally,
    socket: Socket,
    end: impl Into<End>,
    action: impl FnOnce() -> io::Result<()> + Send,
) -> io::Result<Duration> {
    let port = tcp::port(&socket)?;
    thread::scope(|scope| {
        let helper = scope.spawn(move || {
            state::wait_for_port_state(port, TcpState::FinWait1)?;
            action()
        });
        let blocked = tally.close(socket, end)?;
        helper
            .join()
            .map_err(|_| io::Error::other("the helping thread panicked"))??;
        Ok(blocked)
    })
}

/// Closes the socket (IPv4) and interrupts the close, once it waits, with a signal.
pub fn close_interrupted(
    tally: &mut Tally,
    socket: Socket,
    end: impl Into<End>,
) -> io::Result<Duration> {
    extern "C" fn ignore(_: nix::libc::c_int) {}
    let handler = SigAction::new(
        SigHandler::Handler(ignore),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: the handler does nothing, so it is safe at any point of the program.
    let before = unsafe { sigaction(Signal::SIGUSR1, &handler) }?;
    let closer = pthread_self();
    let returned = AtomicBool::new(false);
    let port = tcp::port(&socket)?;
    let blocked = thread::scope(|scope| {
        scope.spawn(|| {
            // Best effort: even without the state, signals are sent until the close is over.
            let _ = state::wait_for_port_state(port, TcpState::FinWait1);
            while !returned.load(Ordering::Acquire) {
                // The closing thread outlives this scope.
                let _ = pthread_kill(closer, Signal::SIGUSR1);
                thread::sleep(Duration::from_millis(20));
            }
        });
        let blocked = tally.close(socket, end);
        returned.store(true, Ordering::Release);
        blocked
    });
    // SAFETY: this puts back what was in place before.
    unsafe { sigaction(Signal::SIGUSR1, &before) }?;
    blocked
}
