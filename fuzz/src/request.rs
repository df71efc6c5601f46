//! Fuzzes the server with any bytes from a client. It is open if the first byte is even, else it asks for a password.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use linger_daemon::attribution::Dimension;
use linger_daemon::config::Access;
use linger_daemon::http::{self, Limits, Security, State};
use linger_daemon::ledger::Snapshot;
use linger_daemon::metrics::{Facts, Metrics};
use linger_ebpf::Plan;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex, split};
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut runtime = Builder::new_current_thread();
    runtime.enable_all().build().expect("there is a runtime")
});

static OPEN: LazyLock<Arc<State>> = LazyLock::new(|| serving(Security::none()));

static CLOSED: LazyLock<Arc<State>> = LazyLock::new(|| {
    let path = PathBuf::from(format!(
        "/dev/shm/linger-fuzz-users-{}.yml",
        std::process::id()
    ));
    // A hash in the right format, whose password no request has.
    let users =
        "basic_auth_users: {a: $2b$04$aaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}";
    fs::write(&path, users).expect("there is memory");
    let security = Security::load(&path).expect("it is right");
    // The rules stay as they were read.
    fs::remove_file(&path).expect("it was written");
    serving(security)
});

/// A server that has no counts.
fn serving(security: Security) -> Arc<State> {
    let source = || {
        Ok(Snapshot {
            dimensions: Dimension::DEFAULT.into(),
            ..Snapshot::default()
        })
    };
    let facts = Facts {
        plan: Plan::Fentry,
        kernel: "6.1.0".to_owned(),
        host: "test".to_owned(),
    };
    let state = Arc::new(State::new(security, Access::default()));
    state.attached(Metrics::new(Arc::new(source), facts));
    state
}

/// Sends a request to a server.
///
/// # Panics
///
/// If an answer is not HTTP, or if the server with a password reveals a metric.
pub fn check(bytes: &[u8]) {
    let Some((first, request)) = bytes.split_first() else {
        return;
    };
    let is_open = first.is_multiple_of(2);
    let state = Arc::clone(if is_open { &OPEN } else { &CLOSED });
    let answers = RUNTIME.block_on(async {
        let (client, server) = duplex(1 << 16);
        let (mut reads, mut writes) = split(client);
        let mut answers = Vec::new();
        let client = async {
            // The server may have closed the connection before this is written.
            let _ = writes.write_all(request).await;
            let _ = writes.shutdown().await;
        };
        let ((), (), read) = tokio::join!(
            http::serve_stream(server, state, Limits::DEFAULT),
            client,
            reads.read_to_end(&mut answers)
        );
        read.expect("memory does not fail");
        answers
    });
    assert!(answers.is_empty() || answers.starts_with(b"HTTP/1."));
    let has_metric = answers.windows(7).any(|seven| seven == b"linger_");
    assert!(
        is_open || !has_metric,
        "{}",
        String::from_utf8_lossy(&answers)
    );
}
