//! Sockets that a service manager opened before it started the daemon (`sd_listen_fds(3)`).

use std::os::fd::{FromRawFd as _, RawFd};

use socket2::{Domain, Socket, Type};

use super::{BindError, Listener, Listeners};
use crate::config::ListenAddr;

/// Takes the sockets passed to this process; `None` if there are none.
///
/// Call it once, before other threads are started: it removes the environment variables that announce the sockets.
pub fn passed() -> Result<Option<Listeners>, BindError> {
    // SAFETY: there are no other threads that could read the environment meanwhile.
    let descriptors = unsafe { sd_notify::listen_fds_and_unset_env() };
    let descriptors = descriptors
        .map_err(|error| BindError::Passed(format!("sockets that cannot be taken ({error})")))?;
    let listeners = descriptors.map(take).collect::<Result<Vec<_>, _>>()?;
    Ok((!listeners.is_empty()).then_some(Listeners(listeners)))
}

/// Takes a descriptor if it is a listening socket of a kind that can be served.
fn take(descriptor: RawFd) -> Result<Listener, BindError> {
    let useless = |what: &str| BindError::Passed(format!("descriptor {descriptor}, {what}"));
    // SAFETY: the descriptor was found open, is meant for this process, and nothing else takes it.
    let socket = unsafe { Socket::from_raw_fd(descriptor) };
    let stream = socket.r#type().is_ok_and(|kind| kind == Type::STREAM);
    if !stream || !socket.is_listener().unwrap_or(false) {
        return Err(useless("which is no listening socket"));
    }
    let address = socket.local_addr();
    let domain = socket.domain().ok();
    let place = address.ok().and_then(|address| match domain {
        Some(Domain::UNIX) => Some(ListenAddr::Unix(address.as_pathname()?.to_owned())),
        _ => address.as_socket().map(ListenAddr::Tcp),
    });
    let place = place.ok_or_else(|| useless("whose address is neither IP nor a path"))?;
    socket
        .set_nonblocking(true)
        .map_err(|error| useless(&format!("which cannot be used ({error})")))?;
    Ok(Listener {
        socket,
        place,
        file: None,
    })
}
