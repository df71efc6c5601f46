//! Unix sockets, and their files.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::{BindError, Listener, listen};
use crate::config::ListenAddr;

/// Permissions of the socket: the daemon's user and group may connect.
const MODE: u32 = 0o660;

/// The file of a socket that this process created; removed when dropped.
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode, which distinguish the file from one that has replaced it.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            let path = self.path.display();
            tracing::warn!(%error, "cannot remove {path}, the next lingerd will replace it");
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Listens on a path, and replaces the socket of a dead daemon there.
pub(super) fn bind(path: &Path) -> Result<Listener, BindError> {
    let place = || ListenAddr::Unix(path.to_owned());
    let address = SockAddr::unix(path).map_err(|_| BindError::TooLong(place()))?;
    remove_stale_socket(path, &address)?;
    let open = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&address)?;
        let file = SocketFile {
            path: path.to_owned(),
            identity: identity(path)?,
        };
        // Clients cannot connect before the socket listens, so wider permissions until here admit none.
        fs::set_permissions(path, Permissions::from_mode(MODE))?;
        listen(socket, place(), Some(file))
    };
    open().map_err(|source| BindError::of(place(), source))
}

/// Connects without waiting for room in the queue: a daemon that hangs would never make any.
fn connect(address: &SockAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(address)
}

/// Removes the socket of a dead daemon, and nothing else.
fn remove_stale_socket(path: &Path, address: &SockAddr) -> Result<(), BindError> {
    let place = || ListenAddr::Unix(path.to_owned());
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => Err(BindError::NotASocket(place())),
        Ok(_) => match connect(address) {
            Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(|source| BindError::of(place(), source))
            }
            // Also if its use is unknown, because its queue is full or it belongs to another user.
            _ => Err(BindError::InUse(place())),
        },
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(BindError::of(place(), source)),
    }
}
