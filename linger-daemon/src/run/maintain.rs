//! When the ledger is maintained, and the signs of life that come of it.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::error;

use crate::notify::Manager;

/// How long the ledger may go without maintenance: the only timer of a daemon that no one scrapes. Far less than
/// what maintenance has to keep alive, the leases of 60 seconds on sockets' returns and on the daemon's ring.
const EVERY: Duration = Duration::from_secs(10);

/// How long after a reading the ledger is maintained: once its answer is on its way. This is also the least time
/// between two maintenances, however fast the readings come.
const AFTER_READING: Duration = Duration::from_millis(100);

/// Maintains the ledger without end, soon after each time it has been `read`, and every 10 seconds if nobody reads it.
///
/// Following the readings costs no wake-up of its own, since the daemon is awake then, and whoever scrapes again sees
/// what has ended before the last scrape. The service manager is told after each time that this worked: maintenance
/// that fails, or takes too long, tells nothing, and makes the watchdog expire.
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
            // Only at the daemon's end.
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

    struct Maintained {
        /// The socket of the manager that is told.
        socket: UnixDatagram,
        /// A message for each time it begins.
        begun: Receiver<()>,
        read: Arc<Notify>,
    }

    fn maintained(
        patience: Option<Duration>,
        maintenance: impl Fn() -> io::Result<()> + Send + Sync + 'static,
    ) -> Maintained {
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
        Maintained {
            socket,
            begun,
            read,
        }
    }

    fn told(socket: &UnixDatagram) -> io::Result<String> {
        let mut bytes = [0; 100];
        let length = socket.recv(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }

    #[test]
    fn each_maintenance_that_works_is_a_sign_of_life() {
        let Maintained { socket, begun, .. } = maintained(Some(PATIENCE), || Ok(()));
        for _ in 0..3 {
            assert_eq!(told(&socket).unwrap(), "WATCHDOG=1\n");
            begun.recv().unwrap();
        }
    }

    #[test]
    fn one_that_fails_is_none() {
        let Maintained { socket, begun, .. } =
            maintained(Some(PATIENCE), || Err(io::Error::other("the map is gone")));
        // The next one begins when the one before has been dealt with.
        for _ in 0..3 {
            begun.recv().unwrap();
        }
        socket.set_nonblocking(true).unwrap();
        assert_eq!(told(&socket).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn one_that_hangs_is_none_and_no_other_is_begun() {
        let Maintained { socket, begun, .. } = maintained(Some(PATIENCE), || {
            loop {
                thread::park();
            }
        });
        begun.recv().unwrap();
        socket.set_read_timeout(Some(10 * PATIENCE)).unwrap();
        assert_eq!(told(&socket).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(begun.try_recv().is_err());
    }

    #[test]
    fn it_follows_a_reading_and_not_each_of_many() {
        let Maintained { begun, read, .. } = maintained(None, || Ok(()));
        assert!(begun.recv_timeout(10 * PATIENCE).is_err());
        let started = Instant::now();
        while begun.try_recv().is_err() {
            read.notify_one();
            thread::sleep(Duration::from_millis(1));
        }
        let taken = started.elapsed();
        assert!(taken >= AFTER_READING, "{taken:?}");
        // Long before the timer.
        assert!(taken < EVERY / 2, "{taken:?}");
    }
}
