//! TLS: the client's `close_notify`, in answer to the server's, arrives after the server's close.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use linger_daemon::exercise::state::{self, TcpState};
use linger_ebpf::Outcome;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use socket2::Socket;

use super::client::{Client, wait_for_servers};
use super::python::Server;
use super::{expect_resets, unexpected, unit};
use crate::scenario::Settings;
use crate::truth::{Counters, Truth};

const CLIENTS: u64 = 20;
const HOST: &str = "localhost";

/// A server that closes as soon as it has sent its `close_notify`, and one that waits for the client's.
pub(super) fn close_notify(settings: Settings, truth: &mut Truth) -> io::Result<()> {
    let certified =
        rcgen::generate_simple_self_signed([HOST.to_owned()]).map_err(io::Error::other)?;
    let pem = certified.signing_key.serialize_pem() + &certified.cert.pem();
    let config = trusting(certified.cert.der())?;
    for (name, waits) in [("tls", false), ("tls-waits", true)] {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("closes.pem"), &pem)?;
        let server =
            Server::start_in(folder, unit(name), "close_notify", &[CLIENTS, waits.into()])?;
        let before = Counters::read()?.out_resets;
        for _ in 0..CLIENTS {
            settings.pause();
            let client = Client::connect()?.0;
            let socket = answer_close_notify(client, config.clone(), !waits)?;
            if waits {
                Client(socket).read_whole(&mut truth.tally)?;
            } else {
                state::wait_for_state(&socket, TcpState::Close)?;
                truth.tally.close(socket, Outcome::AlreadyClosed)?;
            }
        }
        expect_resets(before, CLIENTS, !waits)?;
        let (name, mut tally) = server.end()?;
        if !waits {
            Truth::late_data_to_remnants(&mut tally, CLIENTS);
        }
        truth.service(name, tally);
    }
    Ok(())
}

/// Returns the configuration of a client that trusts this certificate.
fn trusting(certificate: &CertificateDer<'static>) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).map_err(io::Error::other)?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Sends a request, reads the answer and the `close_notify` after it, and sends its own: if `late`, only once the
/// server has closed and has its FIN acknowledged.
fn answer_close_notify(
    socket: Socket,
    config: Arc<ClientConfig>,
    late: bool,
) -> io::Result<Socket> {
    let host = ServerName::try_from(HOST).map_err(io::Error::other)?;
    let session = ClientConnection::new(config, host).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(session, socket);
    stream.write_all(b"ask")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer != b"answer" {
        return Err(unexpected(answer));
    }
    let (mut session, mut socket) = stream.into_parts();
    if late {
        wait_for_servers(TcpState::FinWait2, 1)?;
    }
    session.send_close_notify();
    session.write_tls(&mut socket)?;
    Ok(socket)
}
