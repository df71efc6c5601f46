//! The addresses that are served: several at once, Unix sockets, and sockets passed to the daemon.

use std::env;
use std::fs;
use std::iter;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use linger_daemon::config::ListenAddr;
use linger_daemon::http::{self, Limits};
use socket2::{Domain, SockAddr, Socket, Type};
use tempfile::TempDir;

use crate::server::{Answer, Server};

fn place(path: &Path) -> ListenAddr {
    ListenAddr::Unix(path.to_owned())
}

/// Requests an endpoint over a Unix socket. Returns the status.
fn ask(path: &Path) -> u16 {
    let mut stream = UnixStream::connect(path).unwrap();
    Answer::of(&mut stream, "GET /healthz", "").status
}

fn refused(path: &Path) -> String {
    match http::bind(&[place(path)]) {
        Ok(_) => panic!("bound to {}", path.display()),
        Err(error) => error.to_string(),
    }
}

fn socket() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("lingerd.sock");
    (directory, path)
}

#[test]
fn every_place_is_served() {
    let (_directory, path) = socket();
    let places = ["127.0.0.1:0", "[::1]:0"].map(|place| place.parse().unwrap());
    let places = [places.as_slice(), &[place(&path)]].concat();
    let server = Server::listening(http::bind(&places).unwrap(), Limits::DEFAULT);
    assert_eq!(server.places.len(), 3);
    for place in &server.places {
        match place {
            ListenAddr::Tcp(address) => assert_eq!(get(*address), 200, "{address}"),
            ListenAddr::Unix(path) => assert_eq!(ask(path), 200),
        }
    }
}

fn get(address: SocketAddr) -> u16 {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    Answer::of(&mut stream, "GET /healthz", "").status
}

#[test]
fn all_addresses_of_both_protocols_are_served() {
    // A free port. The kernel's choice for one address might be taken at another.
    let free = TcpListener::bind("[::]:0").unwrap().local_addr().unwrap();
    let port = free.port();
    let places = [format!("0.0.0.0:{port}"), format!("[::]:{port}")];
    let places = places.map(|place| place.parse().unwrap());
    let _server = Server::listening(http::bind(&places).unwrap(), Limits::DEFAULT);
    for host in ["127.0.0.1", "[::1]"] {
        assert_eq!(get(format!("{host}:{port}").parse().unwrap()), 200);
    }
}

#[test]
fn the_socket_is_open_to_user_and_group_and_gone_in_the_end() {
    let (_directory, path) = socket();
    let mut server = Server::listening(http::bind(&[place(&path)]).unwrap(), Limits::DEFAULT);
    let metadata = fs::metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    assert_eq!(ask(&path), 200);
    server.stop();
    assert!(!path.exists());
}

#[test]
fn the_socket_of_a_dead_daemon_is_replaced() {
    let (_directory, path) = socket();
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let _server = Server::listening(http::bind(&[place(&path)]).unwrap(), Limits::DEFAULT);
    assert_eq!(ask(&path), 200);
}

#[test]
fn the_socket_of_a_living_daemon_is_left_alone() {
    let (_directory, path) = socket();
    let first = Server::listening(http::bind(&[place(&path)]).unwrap(), Limits::DEFAULT);
    let error = refused(&path);
    assert!(
        error.starts_with(&format!("unix:{} is in use", path.display())),
        "{error}"
    );
    assert_eq!(ask(&path), 200);
    drop(first);
}

#[test]
fn the_socket_of_a_daemon_that_hangs_is_left_alone() {
    let (_directory, path) = socket();
    let address = SockAddr::unix(&path).unwrap();
    let new = || Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let hung = new();
    hung.bind(&address).unwrap();
    hung.listen(1).unwrap();
    // Fill its queue.
    let connect = || {
        let client = new();
        client.set_nonblocking(true).unwrap();
        client.connect(&address).map(|()| client)
    };
    let clients: Vec<_> = iter::repeat_with(connect).map_while(Result::ok).collect();
    assert!(!clients.is_empty());
    let error = refused(&path);
    assert!(error.contains("is in use"), "{error}");
    assert!(path.exists());
}

#[test]
fn the_socket_of_a_successor_is_not_removed() {
    let (_directory, path) = socket();
    let mut first = Server::listening(http::bind(&[place(&path)]).unwrap(), Limits::DEFAULT);
    fs::remove_file(&path).unwrap();
    let second = Server::listening(http::bind(&[place(&path)]).unwrap(), Limits::DEFAULT);
    first.stop();
    assert_eq!(ask(&path), 200);
    drop(second);
}

#[test]
fn no_other_file_is_replaced() {
    let (directory, path) = socket();
    fs::write(&path, "dear").unwrap();
    let error = refused(&path);
    assert!(error.contains("is a file, not a socket"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "dear");
    let error = refused(&directory.path().join("no/lingerd.sock"));
    assert!(error.contains("does not exist"), "{error}");
    let error = refused(&directory.path().join("l".repeat(200)));
    assert!(error.contains("too long"), "{error}");
}

/// Environment variable of the process that sockets are passed to.
const PASSED: &str = "LINGER_TEST_PASSED";

/// Serves in that process; the test that starts it makes the assertions.
#[test]
fn serve_what_was_passed() {
    if env::var_os(PASSED).is_none() {
        return;
    }
    let listeners = http::passed();
    assert_eq!(env::var_os("LISTEN_FDS"), None);
    match listeners {
        Ok(Some(listeners)) => {
            let _server = Server::listening(listeners, Limits::DEFAULT);
            // Until the other test has seen enough, and kills it.
            loop {
                std::thread::park();
            }
        }
        Ok(None) => println!("nothing was passed"),
        Err(error) => println!("{error}"),
    }
}

/// Starts a process that serves this socket as if systemd had opened it for the process `pid`.
fn pass(socket: impl Into<OwnedFd>, pid: &str) -> Child {
    let script = format!("exec 3<&0 </dev/null; LISTEN_PID={pid} LISTEN_FDS=1 exec \"$@\"");
    Command::new("sh")
        .args(["-c", &script, "sh"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", "listeners::serve_what_was_passed"])
        .args(["--nocapture", "--test-threads=1"])
        .env(PASSED, "")
        .stdin(socket.into())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn sockets_of_the_service_manager_are_served() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let child = pass(listener, "$$");
    assert_eq!(get(address), 200);
    end(child);

    let (_directory, path) = socket();
    let child = pass(UnixListener::bind(&path).unwrap(), "$$");
    assert_eq!(ask(&path), 200);
    end(child);
    assert!(path.exists(), "it belongs to the service manager");
}

#[test]
fn sockets_of_another_process_or_kind_are_not() {
    let output = |child: Child| {
        let output = child.wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = output(pass(listener, "1"));
    assert!(other.contains("nothing was passed"), "{other}");
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let useless = output(pass(datagrams, "$$"));
    assert!(useless.contains("no listening socket"), "{useless}");
}
