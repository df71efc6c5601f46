//! nginx: `lingering_close`, `reset_timedout_connection`, `keepalive_timeout`.

use std::fs;
use std::io;
use std::path::Path;

use linger_daemon::exercise::state::{self, Queues, TcpState};
use linger_ebpf::Outcome;
use nix::sys::signal::Signal;

use super::client::{Client, ask_all_deaf, hear_all, wait_for_servers};
use super::{PORT, ServerUnit, discard, keepalive, unexpected, unit};
use crate::attribution::nginx_in;
use crate::scenario::Settings;
use crate::service;
use crate::toolkit;
use crate::truth::Truth;

/// Connections in each phase.
const CLIENTS: u64 = 20;
/// Bytes of nginx's first read (`client_header_buffer_size`).
const FIRST_READ: u64 = 1024;

/// Runs nginx in a unit, with `http` in its `http` block, and a file `page` of `page` bytes.
fn start(unit: &str, http: &str, page: usize) -> io::Result<ServerUnit> {
    let program = service::find("nginx")?;
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("page"), vec![b'x'; page])?;
    let http = http.replace("FOLDER", &path(folder.path()));
    let command = nginx_in(folder.path(), &program, &http)?;
    ServerUnit::start(unit, &command, Signal::SIGQUIT, folder)
}

fn path(folder: &Path) -> String {
    folder.display().to_string()
}

/// An upload without a length, too large for nginx, which answers with an error page before it has read everything. A
/// deploy turns `lingering_close` off.
pub(super) fn lingering_close(settings: Settings, truth: &mut Truth) -> io::Result<()> {
    const PAGE: usize = 20_000;
    const BODY: usize = 30_000;
    let unit = unit("upload");
    let http = |lingering| {
        format!(
            "lingering_close {lingering};
            client_max_body_size 1k;
            server {{
                listen 127.0.0.1:{PORT};
                error_page 413 /page;
                location = /page {{ root FOLDER; }}
                location / {{ proxy_pass http://127.0.0.1:1; }}
            }}"
        )
    };
    let mut request = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    request.extend(format!("{BODY:x}\r\n").into_bytes());
    request.extend(vec![b'x'; BODY]);
    request.extend(b"\r\n0\r\n\r\n");

    let nginx = start(&unit, &http("always"), PAGE)?;
    let mut page = 0;
    for _ in 0..CLIENTS {
        settings.pause();
        page = Client::ask(&request)?.read_whole(&mut truth.tally)?;
        if page <= PAGE as u64 {
            return Err(unexpected(page));
        }
    }
    let (name, mut tally) = nginx.end(&[(Outcome::AlreadyClosed, CLIENTS)])?;

    let nginx = start(&unit, &http("off"), PAGE)?;
    for _ in 0..CLIENTS {
        settings.pause();
        // The client has received none of the answer when the RST overtakes it.
        let lost = Client::ask_deaf(&request)?.read_reset(&mut truth.tally)?;
        if lost > 0 {
            return Err(unexpected(lost));
        }
    }
    let (_, mut aborted) = nginx.end(&[(Outcome::UnreadAborted, CLIENTS)])?;
    aborted.unread = CLIENTS * (request.len() as u64 - FIRST_READ);
    discard(
        &mut aborted,
        Outcome::UnreadAborted,
        Queues {
            unacked: CLIENTS * page,
            ..Queues::default()
        },
    );
    tally.add(&aborted);
    truth.service(name, tally);
    Ok(())
}

/// Clients that take nothing of a long answer until nginx times out.
pub(super) fn timed_out(settings: Settings, truth: &mut Truth) -> io::Result<()> {
    const PAGE: usize = 8 << 20;
    const REQUEST: &[u8] = b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n";
    let http = |reset| {
        format!(
            "reset_timedout_connection {reset};
            send_timeout 3s;
            server {{
                listen 127.0.0.1:{PORT} sndbuf=64k;
                root FOLDER;
            }}"
        )
    };
    let ask = || ask_all_deaf(settings, CLIENTS, REQUEST);

    // The kernel goes on delivering what is in the queue: the client gets a part, and a FIN.
    let nginx = start(&unit("slow"), &http("off"), PAGE)?;
    let clients = ask()?;
    wait_for_servers(TcpState::FinWait1, CLIENTS)?;
    for (client, left) in hear_all(clients)? {
        let got = client.read_whole(&mut truth.tally)?;
        if got != left.outstanding() {
            return Err(unexpected((got, left)));
        }
        truth.delivered(left);
    }
    let (name, tally) = nginx.end(&[(Outcome::Graceful, CLIENTS)])?;
    truth.service(name, tally);

    let nginx = start(&unit("slow-reset"), &http("on"), PAGE)?;
    let clients = ask()?;
    let mut lost = Queues::default();
    for queue in last_queues(&clients)? {
        lost.unsent += queue.unsent;
        lost.unacked += queue.unacked;
    }
    for client in clients {
        client.read_reset(&mut truth.tally)?;
    }
    let (name, mut tally) = nginx.end(&[(Outcome::LingerAborted, CLIENTS)])?;
    discard(&mut tally, Outcome::LingerAborted, lost);
    truth.service(name, tally);
    Ok(())
}

/// Returns the servers' send queues just before they closed.
fn last_queues(clients: &[Client]) -> io::Result<Vec<Queues>> {
    /// Views of a server's queue: the latest, and the latest of two that agreed. One taken in the very moment of the
    /// close may show neither the state before nor the one after.
    #[derive(Clone, Copy, Default)]
    struct Seen {
        latest: Queues,
        twice: Queues,
    }
    let servers = clients.iter().map(|client| toolkit::peer_of(&client.0));
    let servers: Vec<_> = servers.collect::<Result<_, _>>()?;
    let mut seen = vec![Seen::default(); servers.len()];
    state::wait_for("the servers to close", || {
        let mut open = false;
        for (server, seen) in servers.iter().zip(&mut seen) {
            let now = toolkit::send_queue(*server)?;
            if now.outstanding() > 0 {
                if now == seen.latest {
                    seen.twice = now;
                }
                (seen.latest, open) = (now, true);
            }
        }
        let all_began = seen.iter().all(|seen| seen.twice.outstanding() > 0);
        Ok(all_began && !open)
    })?;
    Ok(seen.iter().map(|seen| seen.twice).collect())
}

/// Clients that reuse a connection just after nginx has closed it as idle: an RST answers, counted for the service that
/// closed.
pub(super) fn keepalive_timeout(settings: Settings, truth: &mut Truth) -> io::Result<()> {
    let http = |seconds| {
        format!(
            "keepalive_timeout {seconds}s;
            server {{
                listen 127.0.0.1:{PORT};
                location / {{ return 200 'x'; }}
            }}"
        )
    };
    let nginx = start(&unit("idle"), &http(1), 0)?;
    keepalive::server_closes(settings, truth)?;
    let (name, mut tally) = nginx.end(&[(Outcome::Graceful, keepalive::CLIENTS)])?;
    Truth::late_data_to_remnants(&mut tally, keepalive::CLIENTS);
    truth.service(name, tally);

    let nginx = start(&unit("idle-longer"), &http(75), 0)?;
    keepalive::clients_close(settings, truth)?;
    let (name, tally) = nginx.end(&[(Outcome::Graceful, keepalive::CLIENTS)])?;
    truth.service(name, tally);
    Ok(())
}
