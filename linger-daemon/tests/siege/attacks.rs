//! Attacks of bad clients.

use std::io::{self, Read as _, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use nix::sys::socket::{setsockopt, sockopt};

use crate::besieged::{Besieged, Speech};
use crate::secure::{Authority, Client, Directory};

/// Starts a server with TLS and a password.
fn secured() -> Besieged {
    let authority = Authority::new("ours");
    let hash = bcrypt::hash("right", 10).unwrap();
    let users = format!("basic_auth_users:\n  prometheus: {hash}\n");
    let directory = Directory::tls(&authority.server(), &users);
    Besieged::start(Speech::Secured(
        directory,
        Box::new(authority),
        basic("right"),
    ))
}

fn basic(password: &str) -> String {
    let encoded = BASE64_STANDARD.encode(format!("prometheus:{password}"));
    format!("Authorization: Basic {encoded}\r\n")
}

impl Besieged {
    /// Adds to the number of things done.
    fn did(&self, count: u64) {
        self.done.fetch_add(count, Ordering::Relaxed);
    }

    /// Connects by TLS.
    fn secure(&self) -> io::Result<impl io::Read + Write + use<>> {
        let Speech::Secured(_, authority, _) = &self.speech else {
            panic!("it is plain");
        };
        Ok(Client::trusting(authority).over(self.connect()?))
    }

    /// Keeps `count` connections that have sent `beginning`, and then send at most one byte a second.
    fn occupy(&self, count: usize, beginning: &[u8], more: &[u8]) {
        let mut held: Vec<TcpStream> = Vec::new();
        while !self.is_over() {
            held.retain_mut(|stream| {
                is_open(stream) && (more.is_empty() || stream.write(more).is_ok())
            });
            while held.len() < count && !self.is_over() {
                let Ok(mut stream) = self.connect() else {
                    continue;
                };
                if stream.write_all(beginning).is_ok() {
                    self.did(1);
                    held.push(stream);
                }
            }
            sleep(Duration::from_secs(1));
        }
    }

    /// Sends `bytes` again and again, after `first` whenever the connection has ended.
    fn pour(&self, connect: impl Fn() -> io::Result<Box<dyn Write>>, first: &[u8], bytes: &[u8]) {
        while !self.is_over() {
            let Ok(mut stream) = connect() else {
                continue;
            };
            let _ = stream.write_all(first);
            while !self.is_over() && stream.write_all(bytes).is_ok() {
                self.did(1);
            }
        }
    }
}

fn is_open(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let read = stream.read(&mut [0; 64]);
    stream.set_nonblocking(false).unwrap();
    matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

#[test]
fn a_thousand_idle_connections() {
    Besieged::start(Speech::Plain).attack("1,000 idle connections", 1, |server, _| {
        server.occupy(1000, b"", b"");
    });
}

#[test]
fn connections_that_come_as_fast_as_they_can() {
    Besieged::start(Speech::Plain).attack("connections that say nothing", 2, |server, _| {
        let mut held = std::collections::VecDeque::new();
        while !server.is_over() {
            if let Ok(stream) = server.connect() {
                held.push_back(stream);
                server.did(1);
            }
            if held.len() > 500 {
                held.pop_front();
            }
        }
    });
}

#[test]
fn a_thousand_requests_of_a_byte_a_second() {
    Besieged::start(Speech::Plain).attack("1,000 requests of 1 byte a second", 1, |server, _| {
        server.occupy(1000, b"GET /metrics HTTP/1.1\r\nCookie: ", b"a");
    });
}

#[test]
fn heads_of_100_megabytes() {
    let megabyte = vec![b'a'; 1 << 20];
    Besieged::start(Speech::Plain).attack("heads of 100 MB, in MB", 4, |server, _| {
        let connect = || Ok(Box::new(server.connect()?) as Box<dyn Write>);
        server.pour(connect, b"GET /metrics HTTP/1.1\r\nCookie: ", &megabyte);
    });
}

/// Sends requests over kept connections, 16 at a time.
fn ask_on(server: &Besieged, connect: impl Fn() -> io::Result<Box<dyn Stream>>, request: &str) {
    const AT_ONCE: usize = 16;
    let requests = request.repeat(AT_ONCE);
    let mut buffer = vec![0; 1 << 16];
    while !server.is_over() {
        let Ok(mut stream) = connect() else {
            continue;
        };
        while !server.is_over() && stream.write_all(requests.as_bytes()).is_ok() {
            let mut answers = 0;
            while answers < AT_ONCE && !server.is_over() {
                let Ok(length @ 1..) = stream.read(&mut buffer) else {
                    break;
                };
                let heads = buffer[..length]
                    .windows(9)
                    .filter(|nine| nine == b"HTTP/1.1 ");
                let heads = heads.count();
                answers += heads;
                server.did(heads as u64);
            }
            if answers < AT_ONCE {
                break;
            }
        }
    }
}

/// A stream to read from and to write to.
trait Stream: io::Read + Write {}

impl<T: io::Read + Write> Stream for T {}

#[test]
fn more_requests_than_can_be_answered() {
    for path in ["/healthz", "/metrics", "/live.json"] {
        let server = Besieged::start(Speech::Plain);
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        server.attack(&format!("requests of {path}"), 32, |server, _| {
            ask_on(server, || Ok(Box::new(server.connect()?)), &request);
        });
    }
}

/// Slow readers all come from one address, which is not that of the good client.
#[test]
fn slow_readers_of_long_answers() {
    const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    /// Received at once: enough that nobody stalls, too little to have read everything in time.
    const PART: usize = 64 << 10;
    // Fewer and more than the server's connections, of which the further ones replace others.
    for count in [200, 500] {
        let server = Besieged::start(Speech::Large);
        server.attack(&format!("KiB read by {count} readers"), 1, |server, _| {
            let mut held: Vec<TcpStream> = Vec::new();
            let mut buffer = vec![0; PART];
            while !server.is_over() {
                while held.len() < count && !server.is_over() {
                    let stream = server.connect_elsewhere().unwrap();
                    setsockopt(&stream, sockopt::RcvBuf, &PART).unwrap();
                    stream.set_nonblocking(true).unwrap();
                    held.push(stream);
                }
                held.retain_mut(|stream| {
                    // Fails once its queue is full.
                    let _ = stream.write(REQUEST);
                    let read = stream.read(&mut buffer);
                    server.did(read.as_ref().map_or(0, |length| *length as u64 >> 10));
                    match read {
                        Ok(length) => length > 0,
                        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
                    }
                });
                sleep(Duration::from_millis(50));
            }
        });
    }
}

#[test]
fn half_of_a_greeting_by_tls() {
    // 5 bytes of a record of 512.
    let greeting = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3];
    secured().attack("1,000 half-open handshakes", 1, |server, _| {
        server.occupy(1000, &greeting, b"");
    });
}

#[test]
fn more_greetings_by_tls_than_can_be_answered() {
    secured().attack("handshakes", 4, |server, _| {
        while !server.is_over() {
            let Ok(mut stream) = server.secure() else {
                continue;
            };
            if stream.write_all(b"G").is_ok() {
                server.did(1);
            }
        }
    });
}

#[test]
fn more_passwords_than_can_be_checked() {
    secured().attack("wrong passwords", 16, |server, number| {
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
            basic(&format!("wrong {number}"))
        );
        ask_on(server, || Ok(Box::new(server.secure()?)), &request);
    });
}
