//! Closes by other means than a single close(2): a socket ends with its last descriptor.

use std::io::{self, BufRead as _, BufReader, PipeReader, PipeWriter, Write as _};
use std::mem::ManuallyDrop;
use std::net::Shutdown;
use std::os::fd::{AsRawFd as _, IntoRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use linger_daemon::exercise::state::{self, Queues, TcpState};
use linger_daemon::exercise::tcp::{self, Loopback, Pair};
use linger_daemon::exercise::{self, End, MESSAGE};
use linger_ebpf::{Cause, Outcome};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, dup2, fork, gettid, pause};
use socket2::Socket;

use crate::scenario::Scenario;
use crate::truth::Truth;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::connections("exit_graceful", exit_graceful),
    Scenario::connections("exit_with_linger0", exit_with_linger0),
    Scenario::connections("exit_with_unread_data", exit_with_unread_data),
    Scenario::connections("sigkill_with_linger0", sigkill_with_linger0),
    Scenario::connections("dup_closed_once", dup_closed_once),
    Scenario::connections("dup2_over_the_socket", dup2_over_the_socket),
    Scenario::connections("dup2_with_linger", dup2_with_linger),
    Scenario::connections("dup2_with_linger2_negative", dup2_with_linger2_negative),
    Scenario::connections(
        "dup2_with_linger_in_fin_wait2",
        dup2_with_linger_in_fin_wait2,
    ),
    Scenario::connections("fork_closed_once", fork_closed_once),
    Scenario::connections("close_while_thread_receives", close_while_thread_receives),
];

/// A forked process with a connected client socket, which waits to be ended.
pub(crate) struct Forked {
    pid: Pid,
    queues: Queues,
    /// The forked process exits when this is closed.
    leash: PipeWriter,
}

impl Forked {
    /// Forks a process that connects, and prepares the socket with `prepare`.
    pub(crate) fn start(
        loopback: &Loopback,
        prepare: impl FnOnce(&Socket) -> io::Result<()>,
    ) -> io::Result<Self> {
        Self::run(|leash, mut reports| {
            let client = ManuallyDrop::new(loopback.connect()?);
            prepare(&client)?;
            let Queues {
                unsent,
                unacked,
                unread,
            } = state::queues(&client)?;
            writeln!(reports, "{unsent} {unacked} {unread}")?;
            wait_for_end(leash);
            Ok(())
        })
    }

    /// Forks a process that runs `work`, then exits without closing anything.
    fn run(work: impl FnOnce(PipeReader, PipeWriter) -> io::Result<()>) -> io::Result<Self> {
        let (leash_reader, leash) = io::pipe()?;
        let (reports_reader, reports) = io::pipe()?;
        // SAFETY: a scenario's process has one thread when it forks.
        match unsafe { fork() }? {
            ForkResult::Child => {
                drop(leash);
                let result = work(leash_reader, reports);
                let code = i32::from(result.is_err());
                // SAFETY: exits the process, which alone closes its descriptors.
                unsafe { libc::_exit(code) }
            }
            ForkResult::Parent { child } => {
                drop((leash_reader, reports));
                let queues = read_queues(reports_reader)?;
                Ok(Self {
                    pid: child,
                    queues,
                    leash,
                })
            }
        }
    }

    /// Lets the process exit, which closes its socket. Returns the time that took.
    pub(crate) fn exit(self, truth: &mut Truth, outcome: Outcome) -> io::Result<Duration> {
        let Self { pid, queues, leash } = self;
        let start = Instant::now();
        drop(leash);
        waitpid(pid, None)?;
        Ok(Self::count(truth, outcome, queues, start))
    }

    /// Kills the process, which closes its socket. Returns the time that took.
    pub(crate) fn kill(self, truth: &mut Truth, outcome: Outcome) -> io::Result<Duration> {
        let start = Instant::now();
        kill(self.pid, Signal::SIGKILL)?;
        waitpid(self.pid, None)?;
        Ok(Self::count(truth, outcome, self.queues, start))
    }

    fn count(truth: &mut Truth, outcome: Outcome, queues: Queues, start: Instant) -> Duration {
        let took = start.elapsed();
        truth.tally.count(outcome, queues, took);
        took
    }
}

/// Waits until the parent closes its end, or a signal kills the process.
fn wait_for_end(leash: PipeReader) {
    let mut line = String::new();
    if BufReader::new(leash).read_line(&mut line).is_err() {
        pause();
    }
}

fn read_queues(reports: PipeReader) -> io::Result<Queues> {
    let mut line = String::new();
    BufReader::new(reports).read_line(&mut line)?;
    let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
    let mut next = || numbers.next().and_then(Result::ok);
    let queues = (|| {
        Some(Queues {
            unsent: next()?,
            unacked: next()?,
            unread: next()?,
        })
    })();
    queues.ok_or_else(|| io::Error::other("the forked process failed"))
}

fn exit_graceful(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let forked = Forked::start(loopback, |_| Ok(()))?;
    let server = loopback.accept()?;
    forked.exit(truth, Outcome::Graceful)?;
    exercise::close_after_fin(&mut truth.tally, server)
}

/// Sets a linger time of zero with data outstanding.
fn prepare_abort(client: &Socket) -> io::Result<()> {
    tcp::send(client, MESSAGE)?;
    client.set_linger(Some(Duration::ZERO))
}

fn exit_with_linger0(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    tcp::drop_data(loopback.listener())?;
    let forked = Forked::start(loopback, prepare_abort)?;
    let server = loopback.accept()?;
    forked.exit(truth, Outcome::LingerAborted)?;
    exercise::close_reset(&mut truth.tally, server)
}

fn sigkill_with_linger0(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    tcp::drop_data(loopback.listener())?;
    let forked = Forked::start(loopback, prepare_abort)?;
    let server = loopback.accept()?;
    forked.kill(truth, Outcome::LingerAborted)?;
    exercise::close_reset(&mut truth.tally, server)
}

fn exit_with_unread_data(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let mut forked = Forked::start(loopback, |_| Ok(()))?;
    let server = loopback.accept()?;
    tcp::send(&server, MESSAGE)?;
    state::wait_for("the acknowledgement", || {
        Ok(state::queues(&server)?.unacked == 0)
    })?;
    forked.queues.unread = MESSAGE as u64;
    forked.exit(truth, Outcome::UnreadAborted)?;
    exercise::close_reset(&mut truth.tally, server)
}

/// Fails if the connection's peer was reset or received a FIN.
fn expect_open(peer: &Socket) -> io::Result<()> {
    let state = state::state(peer)?;
    if state == TcpState::Established {
        Ok(())
    } else {
        Err(io::Error::other(format!("closed too early: {state:?}")))
    }
}

fn dup_closed_once(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = loopback.pair()?;
    let copy = client.try_clone()?;
    drop(client);
    expect_open(&server)?;
    truth.tally.close(copy, Outcome::Graceful)?;
    exercise::close_after_fin(&mut truth.tally, server)
}

/// Closes the last descriptor of a socket by duplicating another file over it. Returns how long that took.
pub(crate) fn close_by_dup2(socket: Socket) -> io::Result<Duration> {
    let mut descriptor = OwnedFd::from(socket);
    let start = Instant::now();
    dup2(io::stderr(), &mut descriptor)?;
    Ok(start.elapsed())
}

fn dup2_over_the_socket(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = loopback.pair()?;
    let queues = state::queues(&client)?;
    let blocked = close_by_dup2(client)?;
    truth.tally.count(Outcome::Graceful, queues, blocked);
    exercise::close_after_fin(&mut truth.tally, server)
}

/// Waits although it is not in close(2). The data is accepted meanwhile.
fn dup2_with_linger(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = exercise::pair_with_unacked(loopback)?;
    let (queues, blocked) = wait_in_dup2(client, &server)?;
    truth.tally.count(Outcome::Lingered, queues, blocked);
    truth.waited_not_by_close += 1;
    exercise::close_after_fin(&mut truth.tally, server)
}

/// As [`dup2_with_linger`], but aborts by `TCP_LINGER2` after the wait.
fn dup2_with_linger2_negative(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = exercise::pair_with_unacked(loopback)?;
    tcp::set_linger2(&client, -1)?;
    let end = End {
        outcome: Outcome::Linger2Aborted,
        reset: Some(Cause::Linger2Aborted),
    };
    let (queues, blocked) = wait_in_dup2(client, &server)?;
    // All has arrived by then.
    let queues = Queues {
        unacked: 0,
        ..queues
    };
    truth.tally.count(end, queues, blocked);
    state::wait_for_state(&server, TcpState::Close)?;
    truth.tally.close(server, Outcome::AlreadyClosed)?;
    Ok(())
}

/// Closes a client with data outstanding, which is accepted once the close waits. Returns its queues
/// before that, and how long it took.
fn wait_in_dup2(client: Socket, server: &Socket) -> io::Result<(Queues, Duration)> {
    client.set_linger(Some(Duration::from_secs(60)))?;
    let queues = state::queues(&client)?;
    let port = tcp::port(&client)?;
    let blocked = thread::scope(|scope| {
        let helper = scope.spawn(|| {
            state::wait_for_port_state(port, TcpState::FinWait1)?;
            tcp::accept_data(server)
        });
        let blocked = close_by_dup2(client)?;
        helper
            .join()
            .map_err(|_| io::Error::other("the helping thread panicked"))??;
        io::Result::Ok(blocked)
    })?;
    Ok((queues, blocked))
}

/// Does not wait, because even the FIN is acknowledged.
fn dup2_with_linger_in_fin_wait2(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = loopback.pair()?;
    client.set_linger(Some(Duration::from_secs(60)))?;
    client.shutdown(Shutdown::Write)?;
    state::wait_for_state(&client, TcpState::FinWait2)?;
    let queues = state::queues(&client)?;
    let blocked = close_by_dup2(client)?;
    truth.tally.count(Outcome::Lingered, queues, blocked);
    truth.waited_for_nothing += 1;
    exercise::close_after_fin(&mut truth.tally, server)
}

fn fork_closed_once(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = loopback.pair()?;
    // The forked process inherits the server as well, which must end here: it closes its copy first.
    let shared = server.as_raw_fd();
    let forked = Forked::run(|leash, mut reports| {
        // SAFETY: the forked process exits without running the destructor of this copy.
        unsafe { libc::close(shared) };
        writeln!(reports, "0 0 0")?;
        wait_for_end(leash);
        Ok(())
    })?;
    drop(client);
    expect_open(&server)?;
    forked.exit(truth, Outcome::Graceful)?;
    exercise::close_after_fin(&mut truth.tally, server)
}

/// Returns whether a thread of this process sleeps; no thread has the ID 0.
fn is_asleep(thread_id: i32) -> io::Result<bool> {
    if thread_id == 0 {
        return Ok(false);
    }
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread_id}/stat"))?;
    Ok(stat.contains(") S "))
}

/// The thread in recv holds the socket, which is released when recv returns, in that thread.
fn close_while_thread_receives(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = loopback.pair()?;
    let descriptor = client.into_raw_fd();
    let thread_id = &AtomicI32::new(0);
    let mut start = Instant::now();
    let received = thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let mut byte = 0_u8;
            thread_id.store(gettid().as_raw(), Ordering::Release);
            // SAFETY: `byte` is the one byte that recv may write; the descriptor is open when recv begins.
            unsafe { libc::recv(descriptor, (&raw mut byte).cast(), 1, 0) }
        });
        state::wait_for("the thread to block", || {
            is_asleep(thread_id.load(Ordering::Acquire))
        })?;
        // SAFETY: nothing owns the descriptor any more, and recv holds the socket itself.
        unsafe { libc::close(descriptor) };
        expect_open(&server)?;
        start = Instant::now();
        tcp::send(&server, 1)?;
        let received = thread.join();
        received.map_err(|_| io::Error::other("the receiving thread panicked"))
    })?;
    if received != 1 {
        return Err(io::Error::other(format!("recv returned {received}")));
    }
    // The return of recv closed the socket, so its FIN comes.
    let queues = Queues::default();
    truth
        .tally
        .count(Outcome::Graceful, queues, start.elapsed());
    exercise::close_after_fin(&mut truth.tally, server)
}
