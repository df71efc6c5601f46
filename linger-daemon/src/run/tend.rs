//! The ledger while no one scrapes, and the signs of life that come of it.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::error;

use crate::notify::Manager;

/// How long the ledger goes unread before the daemon does it of its own accord: the only timer of a
/// daemon that no one scrapes.
const EVERY: Duration = Duration::from_secs(10);

/// Tends the ledger without end, by a `reading` that is made only if there was none for the time that
/// it is given. The service manager is told after each time that this worked: one that fails, or takes
/// too long, tells nothing, and makes the watchdog expire.
pub(super) async fn tend<E: Error + Send + Sync + 'static>(
    reading: impl Fn(Duration) -> Result<(), E> + Send + Sync + 'static,
    manager: Arc<Manager>,
) {
    let every = match manager.watchdog() {
        Some(patience) => EVERY.min(patience / 2),
        None => EVERY,
    };
    let reading = Arc::new(reading);
    loop {
        // Lasts longer than that: whatever reading is found was made since the last time.
        sleep(every).await;
        let reading = Arc::clone(&reading);
        match spawn_blocking(move || reading(every)).await {
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

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(10);

    /// Tends by this reading in the background; the socket of the manager that is told, and a message
    /// for each reading begun.
    fn tended(
        reading: impl Fn() -> io::Result<()> + Send + Sync + 'static,
    ) -> (UnixDatagram, Receiver<Duration>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = Manager::at(path.as_os_str(), Some(PATIENCE)).unwrap();
        let (begun, readings) = channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap();
            let reading = move |unread| {
                // The test may be over.
                let _ = begun.send(unread);
                reading()
            };
            runtime.block_on(tend(reading, Arc::new(manager)));
        });
        (socket, readings)
    }

    fn told(socket: &UnixDatagram) -> io::Result<String> {
        let mut bytes = [0; 100];
        let length = socket.recv(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }

    #[test]
    fn each_reading_that_works_is_a_sign_of_life() {
        let (socket, readings) = tended(|| Ok(()));
        for _ in 0..3 {
            assert_eq!(told(&socket).unwrap(), "WATCHDOG=1\n");
            assert_eq!(readings.recv().unwrap(), PATIENCE / 2);
        }
    }

    #[test]
    fn readings_that_fail_are_none() {
        let (socket, readings) = tended(|| Err(io::Error::other("the map is gone")));
        // The next reading begins when the one before has been dealt with.
        for _ in 0..3 {
            readings.recv().unwrap();
        }
        socket.set_nonblocking(true).unwrap();
        assert_eq!(told(&socket).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_reading_that_hangs_is_none_and_no_other_is_begun() {
        let (socket, readings) = tended(|| {
            loop {
                thread::park();
            }
        });
        readings.recv().unwrap();
        socket.set_read_timeout(Some(10 * PATIENCE)).unwrap();
        assert_eq!(told(&socket).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(readings.try_recv().is_err());
    }
}
