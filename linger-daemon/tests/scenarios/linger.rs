//! Closes under `SO_LINGER` with a positive time.

use std::fs;
use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use linger_daemon::exercise::state::{self, TcpState};
use linger_daemon::exercise::tcp::{self, Loopback, Pair};
use linger_daemon::exercise::{self, Kind, LINGER, Tally, close_window, linger_wait};
use linger_ebpf::{Cause, Outcome, Slot};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::gettid;
use socket2::Socket;

use crate::ends::Forked;
use crate::graceful::expect_bytes;
use crate::left::UNACKED_MESSAGE;
use crate::scenario::{self, Scenario, Settings};
use crate::truth::{TICK, Truth};

/// A linger time that no close waits for to the end.
const LONG_LINGER: Duration = Duration::from_secs(60);

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::kind("linger_completes", Kind::Lingered),
    Scenario::connections("linger_completes_without_wait", completes_without_wait),
    Scenario::connections("linger_completes_in_close_wait", completes_in_close_wait),
    Scenario::connections("linger_timeout", timeout),
    Scenario::narrow("linger_timeout_window_closed", timeout_window_closed),
    Scenario::connections("linger_timeout_nonblocking", timeout_nonblocking),
    Scenario::kind("linger_interrupted_by_signal", Kind::LingerInterrupted),
    Scenario::kind("linger_failed_by_reset", Kind::LingerFailed),
    Scenario::connections("linger_failed_by_late_data", failed_by_late_data),
    Scenario::connections("linger_suppressed_by_exit", suppressed_by_exit),
    Scenario::connections("linger_switched_off", switched_off),
    Scenario::connections("linger_many_at_once", many_at_once),
    Scenario::under("linger_thousands_at_once", &[], thousands_at_once),
    Scenario::connections("linger_in_a_shared_slot", shared_slot),
];

fn completes_without_wait(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = loopback.pair()?;
    client.set_linger(Some(LONG_LINGER))?;
    truth.tally.close(client, Outcome::Lingered)?;
    exercise::close_after_fin(&mut truth.tally, server)
}

fn completes_in_close_wait(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = loopback.pair()?;
    truth.tally.close(server, Outcome::Graceful)?;
    state::wait_for_state(&client, TcpState::CloseWait)?;
    client.set_linger(Some(LONG_LINGER))?;
    truth.tally.close(client, Outcome::Lingered)?;
    Ok(())
}

/// Closes a client with data outstanding, whose linger time runs out, then its peer once all data has arrived.
fn time_out(truth: &mut Truth, client: Socket, server: Socket, bytes: u64) -> io::Result<()> {
    client.set_linger(Some(LINGER))?;
    let left = state::queues(&client)?;
    let blocked = truth.tally.close(client, Outcome::LingerTimeout)?;
    truth.delivered(left);
    truth.waited(LINGER);
    if blocked + TICK < LINGER {
        return Err(io::Error::other(format!("close waited {blocked:?} only")));
    }
    // Nothing was discarded: the orphan goes on sending.
    tcp::accept_data(&server)?;
    let received = tcp::receive_all(&server)?;
    truth.tally.close(server, Outcome::Graceful)?;
    expect_bytes(received, bytes)
}

fn timeout(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = exercise::pair_with_unacked(loopback)?;
    time_out(truth, client, server, exercise::MESSAGE as u64)
}

fn timeout_window_closed(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let (Pair { client, server }, written) = close_window(loopback.pair()?)?;
    time_out(truth, client, server, written)
}

/// `O_NONBLOCK` makes no difference.
fn timeout_nonblocking(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = exercise::pair_with_unacked(loopback)?;
    client.set_nonblocking(true)?;
    time_out(truth, client, server, exercise::MESSAGE as u64)
}

/// The peer sends to the closed socket, which answers with an RST and dies.
fn failed_by_late_data(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = exercise::pair_with_unacked(loopback)?;
    client.set_linger(Some(LONG_LINGER))?;
    linger_wait::close_while(&mut truth.tally, client, Outcome::LingerFailed, || {
        tcp::send(&server, 1)
    })?;
    truth.late_aborts += 1;
    truth.tally.reset(Cause::LateData, 1);
    exercise::close_reset(&mut truth.tally, server)
}

fn suppressed_by_exit(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    tcp::drop_data(loopback.listener())?;
    let forked = Forked::start(loopback, |client| {
        tcp::send(client, exercise::MESSAGE)?;
        client.set_linger(Some(LONG_LINGER))
    })?;
    let server = loopback.accept()?;
    let took = forked.exit(truth, Outcome::Graceful)?;
    if took > LONG_LINGER / 2 {
        return Err(io::Error::other(format!("the exit waited {took:?}")));
    }
    truth.delivered(UNACKED_MESSAGE);
    tcp::accept_data(&server)?;
    exercise::close_after_fin(&mut truth.tally, server)
}

/// Switching it off leaves the zero time in place: only the flag counts.
fn switched_off(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let pair = loopback.pair()?;
    pair.client.set_linger(Some(Duration::ZERO))?;
    pair.client.set_linger(None)?;
    exercise::close_gracefully(&mut truth.tally, pair)
}

/// More threads wait in close than the kernel has kretprobe instances by default, and others close meanwhile: every
/// return is seen.
fn many_at_once(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    const THREADS: usize = 40;
    let pairs: Vec<_> = (0..THREADS)
        .map(|_| exercise::pair_with_unacked(loopback))
        .collect::<io::Result<_>>()?;
    let (clients, servers): (Vec<_>, Vec<_>) = pairs
        .into_iter()
        .map(|Pair { client, server }| (client, server))
        .unzip();
    // Connections of the listener above drop data.
    let others = Loopback::new()?;
    let last = tcp::port(clients.last().expect("many clients"))?;
    thread::scope(|scope| {
        let closers: Vec<_> = clients
            .into_iter()
            .map(|client| {
                client.set_linger(Some(LINGER))?;
                Ok(scope.spawn(move || {
                    let mut tally = Tally::default();
                    tally.close(client, Outcome::LingerTimeout).map(|_| tally)
                }))
            })
            .collect::<io::Result<_>>()?;
        state::wait_for_port_state(last, TcpState::FinWait1)?;
        for _ in 0..THREADS {
            exercise::close_gracefully(&mut truth.tally, others.pair()?)?;
        }
        for closer in closers {
            let tally = closer
                .join()
                .map_err(|_| io::Error::other("a closing thread panicked"))??;
            truth.tally.add(&tally);
            truth.waited(LINGER);
            truth.delivered(UNACKED_MESSAGE);
        }
        io::Result::Ok(())
    })?;
    truth
        .tally
        .close(others.into_listener(), Outcome::Listener)?;
    // All at once, as an orphan without acknowledgements retransmits at ever longer intervals.
    servers.iter().try_for_each(tcp::accept_data)?;
    servers
        .into_iter()
        .try_for_each(|server| exercise::close_after_fin(&mut truth.tally, server))
}

/// As many threads wait in close as kretprobe instances are possible, and no return is lost.
fn thousands_at_once(settings: Settings, truth: &mut Truth) -> io::Result<()> {
    /// `KRETPROBE_MAXACTIVE_MAX`, less a margin for other closes.
    const MOST: u64 = 4000;
    const STACK: usize = 64 * 1024;
    let threads = (settings.load / 40).min(MOST);
    let files = 2 * threads + 1000;
    setrlimit(Resource::RLIMIT_NOFILE, files, files)?;
    scenario::over(Loopback::new()?, truth, |loopback, truth| {
        let mut servers = Vec::new();
        let mut closers = Vec::new();
        for _ in 0..threads {
            let Pair { client, server } = exercise::pair_with_unacked(loopback)?;
            client.set_linger(Some(LONG_LINGER))?;
            servers.push(server);
            closers.push(thread::Builder::new().stack_size(STACK).spawn(move || {
                let mut tally = Tally::default();
                tally.close(client, Outcome::Lingered).map(|_| tally)
            })?);
        }
        state::wait_for("all threads to wait in close", || {
            let waiting = state::sockets()?.filter(|socket| socket.state == TcpState::FinWait1);
            Ok(waiting.count() as u64 == threads)
        })?;
        servers.iter().try_for_each(tcp::accept_data)?;
        for closer in closers {
            let tally = closer.join();
            let tally = tally.map_err(|_| io::Error::other("a closing thread panicked"))??;
            truth.tally.add(&tally);
        }
        servers
            .into_iter()
            .try_for_each(|server| exercise::close_after_fin(&mut truth.tally, server))
    })
}

/// A thread closes while another, whose in-flight close has the same slot, waits in close.
fn shared_slot(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = exercise::pair_with_unacked(loopback)?;
    client.set_linger(Some(LONG_LINGER))?;
    let port = tcp::port(&client)?;
    let (waiting, other) = loop {
        let (name, named) = mpsc::channel();
        let (give, given) = mpsc::channel::<Socket>();
        let waiting = thread::spawn(move || {
            let mut tally = Tally::default();
            name.send(own_id()).map_err(io::Error::other)?;
            let client = given.recv().map_err(io::Error::other)?;
            tally.close(client, Outcome::Lingered).map(|_| tally)
        });
        let taken = named.recv().map_err(io::Error::other)?;
        if let Some(other) = shares_slot_with(taken)? {
            give.send(client).map_err(io::Error::other)?;
            break (waiting, other);
        }
    };
    state::wait_for_port_state(port, TcpState::FinWait1)?;
    let closed = in_thread(other, close_some);
    tcp::accept_data(&server)?;
    truth.tally.add(&closed?);
    let waited = waiting.join();
    let waited = waited.map_err(|_| io::Error::other("the closing thread panicked"))??;
    truth.tally.add(&waited);
    exercise::close_after_fin(&mut truth.tally, server)
}

fn own_id() -> u32 {
    gettid().as_raw().cast_unsigned()
}

/// Returns the ID of a thread with the same slot as this one, if there is one.
fn shares_slot_with(thread: u32) -> io::Result<Option<u32>> {
    /// Lower IDs are not reused.
    const FIRST: u32 = 1000;
    let most = fs::read_to_string("/proc/sys/kernel/pid_max")?;
    let most: u32 = most.trim().parse().map_err(io::Error::other)?;
    let mut ids = (thread + 1..most).chain(FIRST..thread);
    Ok(ids.find(|&id| Slot::index(id) == Slot::index(thread)))
}

/// Does the work in a new thread with this ID.
fn in_thread<T: Send + 'static>(id: u32, work: fn() -> io::Result<T>) -> io::Result<T> {
    /// IDs are given in sequence, and from the first again after the last.
    const ATTEMPTS: u32 = 50_000;
    for _ in 0..ATTEMPTS {
        // This is quick where the kernel lets us choose the next ID.
        let _ = fs::write("/proc/sys/kernel/ns_last_pid", (id - 1).to_string());
        let done = thread::spawn(move || (own_id() == id).then(work)).join();
        if let Some(result) = done.map_err(|_| io::Error::other("the thread panicked"))? {
            return result;
        }
    }
    Err(io::Error::other(format!("no thread was given the id {id}")))
}

fn close_some() -> io::Result<Tally> {
    let mut tally = Tally::default();
    let loopback = Loopback::new()?;
    exercise::close_gracefully(&mut tally, loopback.pair()?)?;
    tally.close(loopback.into_listener(), Outcome::Listener)?;
    Ok(tally)
}
