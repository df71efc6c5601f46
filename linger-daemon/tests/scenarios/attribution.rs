//! Closes of real programs that run as services: counted for the unit and the program that closed.
//!
//! The counts are compared with what the clients saw of each connection: which side ended it, and how.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::parent_id;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use linger_daemon::exercise::state::Queues;
use linger_daemon::exercise::{self, Tally};
use linger_ebpf::Outcome;
use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

use crate::left::Bound;
use crate::needs::Need;
use crate::scenario::Scenario;
use crate::service::{self, Service, ServiceName};
use crate::truth::Truth;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::own("service_nginx", nginx)
        .by_plan_only()
        .needs(&[Need::Nginx]),
    Scenario::own("services_python", python)
        .by_plan_only()
        .needs(&[Need::Python]),
];

/// Free, as each scenario has its own network namespace.
const PORT: u16 = 8080;
/// Request to the servers in Python.
const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
/// Body of nginx's answer.
const BODY: &str = "closed by whom?";

/// Accepts a number of connections, closes each once a whole request has arrived, and exits. Reads the request if
/// `reads` is 1; otherwise only peeks at it (`MSG_PEEK`).
const PYTHON: &str = "
import socket, sys
port, connections, length, reads = map(int, sys.argv[1:])
listener = socket.create_server(('127.0.0.1', port))
for _ in range(connections):
    connection, _ = listener.accept()
    flags = socket.MSG_WAITALL if reads else socket.MSG_WAITALL | socket.MSG_PEEK
    assert len(connection.recv(length, flags)) == length
    connection.close()
listener.close()
";

fn nginx(truth: &mut Truth) -> io::Result<()> {
    /// Connections that nginx closes after its answer.
    const CLOSED: u64 = 40;
    /// Connections that nginx keeps alive, and the client closes.
    const KEPT: u64 = 25;
    /// Connections that nginx resets.
    const RESET: u64 = 10;
    let program = service::find("nginx")?;
    let folder = tempfile::tempdir()?;
    let unit = unit("web");
    // Each worker reads a request whole before it answers; with `lingering_close` off, it closes in one way only.
    let http = format!(
        "lingering_close off;
        server {{
            listen 127.0.0.1:{PORT};
            location / {{ return 200 '{BODY}'; }}
            location /reset {{ reset_timedout_connection on; return 444; }}
        }}"
    );
    let service = Service::start(
        &service::cgroup(&unit),
        PORT,
        &nginx_in(folder.path(), &program, &http)?,
    )?;
    let comm = service.comm()?;

    let mut answered = Bound::default();
    for _ in 0..CLOSED {
        // The client reads up to the FIN of nginx's close: nginx closes first, with nothing unread. Then the client
        // closes, too.
        let client = connect()?;
        ask(&client, "/", "close")?;
        let mut answer = String::new();
        (&client).read_to_string(&mut answer)?;
        expect_answer(&answer)?;
        exercise::close_after_fin(&mut truth.tally, client)?;
        answered.count(answer.len() as u64);
    }
    for _ in 0..KEPT {
        // The client has the whole answer but no FIN when it closes; its FIN makes nginx close.
        let client = connect()?;
        ask(&client, "/", "keep-alive")?;
        expect_answer(&read_to_body(&client)?)?;
        truth.tally.close(client, Outcome::Graceful)?;
    }
    for _ in 0..RESET {
        // nginx closes with SO_LINGER at zero, which resets the client.
        let client = connect()?;
        ask(&client, "/reset", "close")?;
        exercise::close_reset(&mut truth.tally, client)?;
    }

    // The workers exit when no connection is left. The last process to exit closes the listener.
    service.ask_to_end(Signal::SIGQUIT)?;
    let life = service.wait()?;
    let tally = closes(
        life,
        &[
            (Outcome::Graceful, CLOSED + KEPT),
            (Outcome::LingerAborted, RESET),
            (Outcome::Listener, 1),
        ],
    );
    // An answer may be acknowledged after the close.
    truth.chance.most.add(answered);
    truth.service(ServiceName { unit, comm }, tally);
    Ok(())
}

/// Runs one program in two cgroups: a worker below a service, and a cgroup that systemd does not know.
fn python(truth: &mut Truth) -> io::Result<()> {
    const READ: u64 = 7;
    const UNREAD: u64 = 5;
    let program = service::find("python3")?;
    let unit = unit("reader");
    let plain = service::cgroup(&format!("plain-{}", parent_id()));
    let reads = Server {
        cgroup: service::cgroup(&format!("{unit}/worker")),
        connections: READ,
        reads: true,
    };
    let peeks = Server {
        cgroup: plain.clone(),
        connections: UNREAD,
        reads: false,
    };
    // The client waits for the server to end the connection: with a FIN if the server has read everything, with an RST
    // if not.
    let (comm, life) = reads.serve(&program, || {
        let client = connect()?;
        (&client).write_all(REQUEST)?;
        exercise::close_after_fin(&mut truth.tally, client)
    })?;
    let tally = closes(life, &[(Outcome::Graceful, READ), (Outcome::Listener, 1)]);
    truth.service(ServiceName { unit, comm }, tally);

    let (comm, life) = peeks.serve(&program, || {
        let client = connect()?;
        (&client).write_all(REQUEST)?;
        exercise::close_reset(&mut truth.tally, client)
    })?;
    let mut tally = closes(
        life,
        &[(Outcome::UnreadAborted, UNREAD), (Outcome::Listener, 1)],
    );
    tally.unread = UNREAD * REQUEST.len() as u64;
    truth.service(ServiceName { unit: plain, comm }, tally);
    Ok(())
}

/// A run of [`PYTHON`].
struct Server {
    cgroup: String,
    connections: u64,
    reads: bool,
}

impl Server {
    /// Runs `client` for each connection. Returns the name of the program and how long it ran.
    fn serve(
        &self,
        python: &Path,
        mut client: impl FnMut() -> io::Result<()>,
    ) -> io::Result<(String, Duration)> {
        let mut command = Command::new(python);
        command.args(["-c", PYTHON]);
        let arguments = [
            PORT.into(),
            self.connections,
            REQUEST.len() as u64,
            self.reads.into(),
        ];
        command.args(arguments.map(|argument: u64| argument.to_string()));
        let service = Service::start(&self.cgroup, PORT, &command)?;
        let comm = service.comm()?;
        for _ in 0..self.connections {
            client()?;
        }
        Ok((comm, service.wait()?))
    }
}

/// Returns a unit name that is unique to this run.
pub(crate) fn unit(name: &str) -> String {
    format!("{name}-{}.service", parent_id())
}

/// Returns the tally of a service's closes, by number per outcome, with empty queues. The service ran for `life`.
pub(crate) fn closes(life: Duration, numbers: &[(Outcome, u64)]) -> Tally {
    let mut tally = Tally::default();
    for &(outcome, number) in numbers {
        for _ in 0..number {
            // No close can have blocked for longer.
            tally.count(outcome, Queues::default(), life);
        }
    }
    tally
}

/// Returns the command that runs nginx with all its files in `folder` and with `http` in its `http` block.
pub(crate) fn nginx_in(folder: &Path, program: &Path, http: &str) -> io::Result<Command> {
    let config = format!(
        "
        daemon off;
        user root;
        worker_processes 2;
        pid pid;
        error_log stderr;
        events {{}}
        http {{
            access_log off;
            client_body_temp_path body;
            proxy_temp_path proxy;
            fastcgi_temp_path fastcgi;
            uwsgi_temp_path uwsgi;
            scgi_temp_path scgi;
            {http}
        }}
        "
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, config)?;
    let mut command = Command::new(program);
    command.args(["-e", "stderr", "-p"]).arg(folder);
    command.arg("-c").arg(file);
    Ok(command)
}

fn connect() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)).into())?;
    Ok(socket)
}

/// Sends a whole request at once.
fn ask(mut client: &Socket, path: &str, connection: &str) -> io::Result<()> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\n\r\n");
    client.write_all(request.as_bytes())
}

/// Reads an answer up to the end of its body, not to the end of the connection.
fn read_to_body(mut client: &Socket) -> io::Result<String> {
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while !answer.ends_with(BODY.as_bytes()) {
        let length = client.read(&mut part)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&part[..length]);
    }
    String::from_utf8(answer).map_err(io::Error::other)
}

fn expect_answer(answer: &str) -> io::Result<()> {
    if answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(BODY) {
        Ok(())
    } else {
        Err(io::Error::other(format!("nginx answered {answer:?}")))
    }
}
