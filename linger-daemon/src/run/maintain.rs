//! The schedule of the ledger's maintenance, and the keep-alive messages to the service manager.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::error;

use crate::notify::Manager;

/// Maximum time between maintenances: the only timer of a daemon that is not scraped. Far shorter than the leases of
/// 60 seconds that maintenance has to renew, on sockets' returns and on the daemon's ring.
const EVERY: Duration = Duration::from_secs(10);

/// Delay of maintenance after a reading, for the response to be sent first. This is also the minimum time between
/// two maintenances, however fast the readings come.
const AFTER_READING: Duration = Duration::from_millis(100);

/// Maintains the ledger forever: soon after it has been `read`, and every 10 seconds if it is not read.
///
/// Maintenance after a reading costs no wake-up of its own, since the daemon is awake then, and the next scrape shows
/// what ended before the last one. Each success is reported to the service manager: maintenance that fails or takes
/// too long reports nothing, and lets the watchdog expire.
pub(super) async fn maintain<E: Error + Send + Sync + 'static>(
    maintenance: impl Fn() -> Result<(), E> + Send + Sync + 'static,
    read: Arc<Notify>,
    manager: Arc<Manager>,
) {
    let every = match manager.watchdog() {
        Some(patience) => EVERY.min(patience / 2),
        None => EVERY,
    };
    let maintenance = Arc::new(maintenance);
    loop {
        if timeout(every, read.notified()).await.is_ok() {
            sleep(AFTER_READING.min(every)).await;
        }
        let maintenance = Arc::clone(&maintenance);
        match spawn_blocking(move || maintenance()).await {
            Ok(Ok(())) => manager.alive(),
            Ok(Err(error)) => error!("{:#}", anyhow::Error::from(error)),
            // The runtime is shutting down.
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::unix::net::UnixDatagram;
    use std::sync::mpsc::{Receiver, channel};
    use std::thread;
    use std::time::Instant;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(10);

    /// Starts maintenance. Returns the socket of the service manager, a message for each maintenance that begins, and
    /// the notification of readings.
    fn start(
        patience: Option<Duration>,
        maintenance: impl Fn() -> io::Result<()> + Send + Sync + 'static,
    ) -> (UnixDatagram, Receiver<()>, Arc<Notify>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = Manager::at(path.as_os_str(), patience).unwrap();
        let (begins, begun) = channel();
        let read = Arc::new(Notify::new());
        let is_read = Arc::clone(&read);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap();
            let maintenance = move || {
                // The test may be over.
                let _ = begins.send(());
                maintenance()
            };
            runtime.block_on(maintain(maintenance, is_read, Arc::new(manager)));
        });
        (socket, begun, read)
    }

    #[test]
    fn each_successful_maintenance_is_reported() {
        let (socket, begun, _) = start(Some(PATIENCE), || Ok(()));
        for _ in 0..3 {
            let mut message = [0; 100];
            let length = socket.recv(&mut message).unwrap();
            assert_eq!(&message[..length], b"WATCHDOG=1\n");
            begun.recv().unwrap();
        }
    }

    fn expect_no_message(socket: &UnixDatagram) {
        socket.set_read_timeout(Some(10 * PATIENCE)).unwrap();
        let error = socket.recv(&mut [0; 100]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn failed_maintenance_is_not_reported() {
        let (socket, begun, _) = start(Some(PATIENCE), || Err(io::Error::other("the map is gone")));
        // Each begins after the one before has been handled.
        for _ in 0..3 {
            begun.recv().unwrap();
        }
        expect_no_message(&socket);
    }

    #[test]
    fn hanging_maintenance_is_not_reported_and_no_other_begins() {
        let (socket, begun, _) = start(Some(PATIENCE), || {
            loop {
                thread::park();
            }
        });
        begun.recv().unwrap();
        expect_no_message(&socket);
        assert!(begun.try_recv().is_err());
    }

    #[test]
    fn maintenance_follows_readings_at_a_limited_rate() {
        let (_, begun, read) = start(None, || Ok(()));
        assert!(begun.recv_timeout(10 * PATIENCE).is_err());
        let started = Instant::now();
        while begun.try_recv().is_err() {
            read.notify_one();
            thread::sleep(Duration::from_millis(1));
        }
        let taken = started.elapsed();
        assert!(taken >= AFTER_READING, "{taken:?}");
        // Long before the timer expires.
        assert!(taken < EVERY / 2, "{taken:?}");
    }
}
