//! One server for all simulated hosts, each at a path of its own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result};

use super::fleet::Fleet;

/// Returns the path of a host's metrics.
pub(super) fn path(host: usize) -> String {
    format!("/{host}/metrics")
}

/// Serves for the rest of the process's life; returns the address.
pub(super) fn start(fleet: Arc<Fleet>) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let fleet = Arc::clone(&fleet);
            // An error only means that the client has gone.
            thread::spawn(move || answer(stream, &fleet));
        }
    });
    Ok(address)
}

/// Answers all requests of a connection.
fn answer(stream: TcpStream, fleet: &Fleet) -> Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut header = String::new();
        while reader.read_line(&mut header)? > 2 {
            header.clear();
        }
        let body = host(&request).and_then(|host| fleet.scrape(host));
        let body = body.with_context(|| format!("no such host: {request}"))?;
        write!(
            writer,
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )?;
        writer.write_all(body.as_bytes())?;
    }
}

/// Returns the host that a request is for.
fn host(request: &str) -> Option<usize> {
    let path = request.split(' ').nth(1)?.strip_prefix('/')?;
    path.strip_suffix("/metrics")?.parse().ok()
}

#[test]
fn a_host_is_found_by_its_path() {
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\n");
    assert_eq!(host(&request(&path(17))), Some(17));
    assert_eq!(host(&request("/metrics")), None);
    assert_eq!(host("\r\n"), None);
}
