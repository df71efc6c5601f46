//! Access to `/live.json`, which shows processes and addresses.

use std::net::IpAddr;
use std::sync::LazyLock;

use hyper::Request;
use hyper::header::HOST;
use hyper::http::uri::Authority;
use nix::sys::utsname::uname;

use super::listen::Peer;
use crate::config::Access;

/// Returns the reason to refuse a request, if any. A `known` one carries a required password or certificate.
pub(super) fn refusal<B>(
    access: Access,
    request: &Request<B>,
    peer: Peer,
    known: bool,
) -> Option<&'static str> {
    match access {
        Access::No => Some("/live.json is disabled: live = false\n"),
        Access::Loopback if known => None,
        Access::Loopback if !is_loopback(peer) => Some(
            "/live.json shows processes and addresses, so it answers only clients on its own host: request it \
             there, authenticate (--web.config.file), or set live = true\n",
        ),
        // Any domain may resolve to this host (DNS rebinding), so the page of another site could read it.
        Access::Loopback if peer.is_some() && !asks_this_host(request) => Some(
            "/live.json answers only requests made to an address or to the host's own name: use one of them, \
             authenticate (--web.config.file), or set live = true\n",
        ),
        Access::Loopback | Access::Yes => None,
    }
}

/// Returns whether the client is on this host; clients of a Unix socket are.
fn is_loopback(peer: Peer) -> bool {
    peer.is_none_or(|address| address.to_canonical().is_loopback())
}

/// Returns whether a request names this host by an address, as `localhost`, or by its own name. A request that names
/// no host is not from a browser.
fn asks_this_host<B>(request: &Request<B>) -> bool {
    static NAME: LazyLock<String> = LazyLock::new(|| {
        let names = uname().ok();
        let name = names.and_then(|names| names.nodename().to_str().map(str::to_ascii_lowercase));
        name.unwrap_or_default()
    });
    let host = match (request.uri().authority(), request.headers().get(HOST)) {
        (Some(authority), _) => Ok(authority.clone()),
        (None, Some(host)) => Authority::try_from(host.as_bytes()),
        (None, None) => return true,
    };
    host.is_ok_and(|authority| is_own(authority.host(), &NAME))
}

/// Returns whether the host of a URI is an address, `localhost`, or this `name`, in full or up to its first dot.
fn is_own(host: &str, name: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let short = name.split('.').next().unwrap_or_default();
    address.parse::<IpAddr>().is_ok()
        || host == "localhost"
        || host.ends_with(".localhost")
        || (!host.is_empty() && (host == name || host == short))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(host: Option<&str>) -> Request<()> {
        let request = Request::builder().uri("/live.json");
        let request = host
            .into_iter()
            .fold(request, |request, host| request.header(HOST, host));
        request.body(()).unwrap()
    }

    #[test]
    fn addresses_and_its_own_name_are_this_host() {
        let own = |host| is_own(host, "db1.example.net");
        for host in [
            "127.0.0.1",
            "[::1]",
            "192.0.2.7",
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "db1",
            "DB1.example.net",
        ] {
            assert!(own(host), "{host}");
        }
        for host in [
            "",
            ".",
            "example.net",
            "db1.attacker.example",
            "localhost.attacker.example",
            "db",
        ] {
            assert!(!own(host), "{host}");
        }
    }

    #[test]
    fn clients_on_this_host_are_admitted() {
        let refused = |access: Access, host: Option<&str>, peer: Option<&str>, known| {
            let peer = peer.map(|peer| peer.parse().unwrap());
            refusal(access, &request(host), peer, known).is_some()
        };
        let (own, other) = (Some("127.0.0.1:10546"), Some("attacker.example:10546"));
        for here in [Some("127.0.0.1"), Some("::1"), Some("::ffff:127.0.0.1")] {
            assert!(!refused(Access::Loopback, own, here, false));
            assert!(refused(Access::Loopback, other, here, false));
            assert!(!refused(Access::Loopback, None, here, false));
        }
        // A Unix socket, which browsers cannot reach.
        assert!(!refused(Access::Loopback, other, None, false));
        let afar = Some("192.0.2.7");
        assert!(refused(Access::Loopback, own, afar, false));
        assert!(!refused(Access::Loopback, other, afar, true));
        assert!(!refused(Access::Yes, other, afar, false));
        assert!(refused(Access::No, own, None, true));
    }
}
