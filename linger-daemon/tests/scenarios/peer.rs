//! A peer whose segments a scenario chooses one by one, with any acknowledgement, flags and order; no kernel answers
//! for it.

use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use etherparse::{PacketBuilder, SlicedPacket, TcpHeader, TransportSlice};
use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::netns::run;

/// The host's end of the link, and the peer's, on which the kernel has no address.
const HOST: (&str, Ipv4Addr) = ("host", Ipv4Addr::new(10, 1, 0, 1));
const PEER: (&str, Ipv4Addr) = ("peer", Ipv4Addr::new(10, 1, 0, 9));
const PEER_PORT: u16 = 9;

/// The peer's first sequence number.
const FIRST: u32 = 1000;

/// Longest wait for a segment.
const PATIENCE: Duration = Duration::from_secs(20);

/// The peer, in the network namespace of the thread that creates it.
pub(crate) struct Peer {
    link: Socket,
    host: SockAddr,
}

/// A segment. Its numbers count from the first byte of payload in either direction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Segment {
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
    /// Offset of its payload.
    pub(crate) at: u32,
    /// Bytes that it acknowledges, if it has an ACK.
    pub(crate) acked: Option<u32>,
    pub(crate) payload: &'static [u8],
}

/// A connection of the host to the peer.
pub(crate) struct Connection<'a> {
    peer: &'a Peer,
    port: u16,
    /// The host's first sequence number.
    first: u32,
}

impl Peer {
    pub(crate) fn new() -> io::Result<Self> {
        let ((host, address), (peer, peer_address)) = (HOST, PEER);
        run(&format!("ip link add {host} type veth peer name {peer}"))?;
        run(&format!("ip addr add {address}/24 dev {host}"))?;
        for end in [host, peer] {
            run(&format!("ip link set {end} up"))?;
        }
        let (host_mac, peer_mac) = (mac_of(host)?, mac_of(peer)?);
        let neighbour = format!(
            "ip neigh add {peer_address} lladdr {} dev {host}",
            text(peer_mac)
        );
        run(&format!("{neighbour} nud permanent"))?;
        let ip = Protocol::from(i32::from(ETH_P_IP.to_be()));
        let link = Socket::new(Domain::PACKET, Type::DGRAM, Some(ip))?;
        link.bind(&link_address(peer, host_mac)?)?;
        link.set_read_timeout(Some(Duration::from_millis(10)))?;
        Ok(Self {
            link,
            host: link_address(peer, host_mac)?,
        })
    }

    /// Returns a connection that does not exist, to a local port of the host.
    pub(crate) fn stray(&self, port: u16) -> Connection<'_> {
        Connection {
            peer: self,
            port,
            first: 0,
        }
    }

    /// Has the host open a connection, which the peer has yet to answer.
    pub(crate) fn called(&self) -> io::Result<(Socket, Connection<'_>)> {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        client.set_nonblocking(true)?;
        let address = SocketAddrV4::new(PEER.1, PEER_PORT).into();
        match client.connect(&address) {
            Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => {}
            other => other?,
        }
        client.set_nonblocking(false)?;
        let port = client
            .local_addr()?
            .as_socket()
            .map_or(0, |address| address.port());
        let mut connection = Connection {
            peer: self,
            port,
            first: 0,
        };
        let syn = connection.next("its SYN", |seen| seen.syn)?;
        connection.first = syn.sequence_number.wrapping_add(1);
        Ok((client, connection))
    }

    /// Has the host open a connection, and accepts it.
    pub(crate) fn connected(&self) -> io::Result<(Socket, Connection<'_>)> {
        let (client, connection) = self.called()?;
        connection.send(Segment {
            syn: true,
            acked: Some(0),
            ..Segment::default()
        })?;
        connection.next("the host to be connected", |seen| seen.ack && !seen.syn)?;
        Ok((client, connection))
    }
}

impl Connection<'_> {
    /// Sends one segment.
    pub(crate) fn send(&self, segment: Segment) -> io::Result<()> {
        // A SYN precedes the first byte.
        let seq = FIRST.wrapping_add(1).wrapping_add(segment.at);
        let seq = seq.wrapping_sub(u32::from(segment.syn));
        let window = u16::MAX;
        let mut tcp = PacketBuilder::ipv4(PEER.1.octets(), HOST.1.octets(), 64)
            .tcp(PEER_PORT, self.port, seq, window);
        if let Some(acked) = segment.acked {
            tcp = tcp.ack(self.first.wrapping_add(acked));
        }
        if segment.syn {
            tcp = tcp.syn();
        }
        if segment.fin {
            tcp = tcp.fin();
        }
        if segment.rst {
            tcp = tcp.rst();
        }
        let mut packet = Vec::with_capacity(tcp.size(segment.payload.len()));
        tcp.write(&mut packet, segment.payload)
            .map_err(io::Error::other)?;
        let sent = self.peer.link.send_to(&packet, &self.peer.host)?;
        if sent == packet.len() {
            Ok(())
        } else {
            Err(io::Error::other("the segment was cut"))
        }
    }

    /// Waits for a segment of the host.
    pub(crate) fn next(
        &self,
        what: &str,
        wanted: impl Fn(&TcpHeader) -> bool,
    ) -> io::Result<TcpHeader> {
        let found = self.within(PATIENCE, wanted)?;
        found.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!("waited in vain for {what}"),
            )
        })
    }

    /// Returns whether the host sends an RST within this time.
    pub(crate) fn is_answered_by_rst(&self, time: Duration) -> io::Result<bool> {
        Ok(self.within(time, |seen| seen.rst)?.is_some())
    }

    fn within(
        &self,
        time: Duration,
        wanted: impl Fn(&TcpHeader) -> bool,
    ) -> io::Result<Option<TcpHeader>> {
        let start = Instant::now();
        while start.elapsed() < time {
            if let Some(seen) = self.peer.receive()?
                && seen.source_port == self.port
                && wanted(&seen)
            {
                return Ok(Some(seen));
            }
        }
        Ok(None)
    }
}

impl Peer {
    /// Returns the next segment of the host, if one arrives soon.
    fn receive(&self) -> io::Result<Option<TcpHeader>> {
        let mut buffer = vec![0; 1 << 16];
        let length = match (&self.link).read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            other => other?,
        };
        let packet = SlicedPacket::from_ip(&buffer[..length]).map_err(io::Error::other)?;
        Ok(match packet.transport {
            Some(TransportSlice::Tcp(tcp)) => Some(tcp.to_header()),
            _ => None,
        })
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a number of 16 bits")]
const ETH_P_IP: u16 = libc::ETH_P_IP as u16;

/// Returns the link-layer address to send frames to, or to bind a socket to, on a device.
fn link_address(device: &str, mac: [u8; 6]) -> io::Result<SockAddr> {
    let index = i32::try_from(if_nametoindex(device)?).map_err(io::Error::other)?;
    let family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    let size = size_of::<libc::sockaddr_ll>();
    let size = libc::socklen_t::try_from(size).map_err(io::Error::other)?;
    // SAFETY: an address of this family is written, with its own length.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let address = storage.cast::<libc::sockaddr_ll>();
            (*address).sll_family = family;
            (*address).sll_protocol = ETH_P_IP.to_be();
            (*address).sll_ifindex = index;
            (*address).sll_halen = 6;
            (&mut (*address).sll_addr)[..6].copy_from_slice(&mac);
            *length = size;
            Ok(())
        })
    }?;
    Ok(address)
}

fn mac_of(device: &str) -> io::Result<[u8; 6]> {
    let addresses = nix::ifaddrs::getifaddrs()?;
    let mut found = addresses.filter(|address| address.interface_name == device);
    let mac = found.find_map(|address| address.address?.as_link_addr()?.addr());
    mac.ok_or_else(|| io::Error::other(format!("{device} has no address")))
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
