//! Closes by rarer interfaces, and ends of connections without a close.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::thread;
use std::time::Duration;

use linger_daemon::exercise::state::{self, TcpState};
use linger_daemon::exercise::tcp::{self, Loopback, Pair};
use linger_daemon::exercise::{self, End, Kind, MESSAGE, OrphanLimit, Tally};
use linger_ebpf::{Cause, Outcome};
use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

use crate::child;
use crate::ends;
use crate::left::UNACKED_MESSAGE;
use crate::needs::Need;
use crate::scenario::{self, Scenario};
use crate::truth::{Counters, Truth};
use linger_daemon::exercise::diag::Endpoints;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::kind("connect_af_unspec", Kind::Disconnected),
    Scenario::connections("sock_destroy", sock_destroy),
    Scenario::kind("linger2_negative", Kind::Linger2Aborted),
    Scenario::connections("linger2_negative_after_close", linger2_after_close),
    Scenario::kind("tcp_repair", Kind::Repaired),
    Scenario::connections("raw_socket", raw_socket),
    Scenario::host_wide("orphan_quota_exceeded", orphan_quota),
    Scenario::host_wide("orphan_quota_exceeded_unseen", orphan_quota_unseen),
    Scenario::host_wide(
        "orphan_quota_exceeded_in_fin_wait2",
        orphan_quota_in_fin_wait2,
    ),
    Scenario::host_wide("mptcp_graceful", mptcp_graceful).needs(&[Need::Mptcp]),
    Scenario::host_wide("mptcp_linger0", mptcp_linger0).needs(&[Need::Mptcp]),
];

fn sock_destroy(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = loopback.pair()?;
    destroy(Endpoints::of(&client)?)?;
    truth.tally.reset(Cause::Destroyed, 1);
    for socket in [client, server] {
        exercise::close_reset(&mut truth.tally, socket)?;
    }
    Ok(())
}

/// Has the kernel end a connection.
pub(crate) fn destroy(connection: Endpoints) -> io::Result<()> {
    connection.destroy()
}

/// The FIN is acknowledged only after the close: the kernel ends the orphan, without an RST of its own accord.
fn linger2_after_close(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = exercise::pair_with_unacked(loopback)?;
    tcp::set_linger2(&client, -1)?;
    truth.tally.close(client, Outcome::Graceful)?;
    truth.delivered(UNACKED_MESSAGE);
    tcp::accept_data(&server)?;
    truth.late_aborts += 1;
    exercise::close_reset(&mut truth.tally, server)
}

/// A raw socket with the protocol of TCP is not one of TCP: its close counts as nothing.
fn raw_socket(loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    for domain in [Domain::IPV4, Domain::IPV6] {
        let raw = Socket::new(domain, Type::RAW, Some(Protocol::TCP))?;
        tcp::close(raw)?;
    }
    exercise::close_gracefully(&mut truth.tally, loopback.pair()?)
}

fn orphan_quota(truth: &mut Truth) -> io::Result<()> {
    under_orphan_limit(truth, |limit, loopback, truth| {
        exercise::memory_aborted_under(&limit, loopback, &mut truth.tally, tcp::close)
    })
}

/// A plan that does not see these closes return counts the one that aborts before it does.
fn orphan_quota_unseen(truth: &mut Truth) -> io::Result<()> {
    under_orphan_limit(truth, |limit, loopback, truth| {
        let close = ends::close_by_dup2;
        exercise::memory_aborted_under(&limit, loopback, &mut truth.tally, close)
    })
}

/// A close under `SO_LINGER` that finds everything acknowledged, and does not wait.
fn orphan_quota_in_fin_wait2(truth: &mut Truth) -> io::Result<()> {
    under_orphan_limit(truth, |limit, loopback, truth| {
        let mut lingered = 0;
        exercise::until_aborted(loopback, &mut truth.tally, |tally| {
            let aborted = close_in_fin_wait2(&limit, loopback, tally, true)?;
            lingered += u64::from(!aborted);
            Ok(aborted)
        })?;
        truth.waited_for_nothing += lingered;
        Ok(())
    })
}

/// Closes in `FIN_WAIT2` while no orphan is allowed. Returns whether that aborted.
pub(crate) fn close_in_fin_wait2(
    limit: &OrphanLimit,
    loopback: &Loopback,
    tally: &mut Tally,
    lingers: bool,
) -> io::Result<bool> {
    let Pair { client, server } = loopback.pair()?;
    // Longer than a remnant in `TIME_WAIT`, which would replace the socket, lives.
    tcp::set_linger2(&client, 120)?;
    let otherwise = if lingers {
        client.set_linger(Some(Duration::from_secs(60)))?;
        Outcome::Lingered
    } else {
        Outcome::Graceful
    };
    client.shutdown(Shutdown::Write)?;
    state::wait_for_state(&client, TcpState::FinWait2)?;
    let queues = state::queues(&client)?;
    let blocked = limit.while_none_is_allowed(|| tcp::close(client))??;
    // Only the reception of the RST may be late.
    thread::sleep(Duration::from_millis(20));
    let aborted = state::state(&server)? == TcpState::Close;
    if aborted {
        tally.count(Outcome::MemoryAborted, queues, blocked);
        exercise::close_reset(tally, server)?;
    } else {
        tally.count(End::silent(otherwise), queues, blocked);
        exercise::close_after_fin(tally, server)?;
    }
    Ok(aborted)
}

/// Runs a script that may set the host's limit of orphans, in its own network namespace.
pub(crate) fn under_orphan_limit(
    truth: &mut Truth,
    script: impl FnOnce(OrphanLimit, &Loopback, &mut Truth) -> io::Result<()>,
) -> io::Result<()> {
    let limit = OrphanLimit::open()?;
    child::enter_network()?;
    scenario::over(Loopback::new()?, truth, |loopback, truth| {
        script(limit, loopback, truth)
    })
}

/// Returns both ends of an MPTCP connection, and the listener.
fn mptcp() -> io::Result<[Socket; 3]> {
    child::enter_network()?;
    let new = || Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP));
    let listener = new()?;
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    listener.listen(1)?;
    let client = new()?;
    client.connect(&listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    for (mut from, mut to) in [(&client, &server), (&server, &client)] {
        from.write_all(&[b'x'; MESSAGE])?;
        to.read_exact(&mut [0; MESSAGE])?;
    }
    Ok([client, server, listener])
}

/// Each of the three sockets has one subflow, which the kernel closes when MPTCP is done with it.
const SUBFLOWS: u64 = 3;

fn mptcp_graceful(truth: &mut Truth) -> io::Result<()> {
    for socket in mptcp()? {
        tcp::close(socket)?;
    }
    truth.any_outcome += SUBFLOWS;
    Ok(())
}

fn mptcp_linger0(truth: &mut Truth) -> io::Result<()> {
    let [client, server, listener] = mptcp()?;
    client.set_linger(Some(Duration::ZERO))?;
    let before = Counters::read()?;
    tcp::close(client)?;
    state::wait_for("the end of the connection at its peer", || {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        match server.recv_with_flags(&mut byte, libc::MSG_DONTWAIT) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            _ => Ok(true),
        }
    })?;
    for socket in [server, listener] {
        tcp::close(socket)?;
    }
    state::wait_for("the RST", || {
        Ok(Counters::read()?.out_resets > before.out_resets)
    })?;
    // The kernel counts the abort right after the RST.
    thread::sleep(Duration::from_millis(50));
    // MPTCP sends the RST at once. Linux 6.18 sends a FIN instead, and aborts the subflow later by SO_LINGER.
    let cause = match Counters::read()?.abort_on_data - before.abort_on_data {
        0 => Cause::Mptcp,
        _ => Cause::LingerAborted,
    };
    truth.tally.reset(cause, 1);
    truth.any_outcome += SUBFLOWS;
    Ok(())
}
