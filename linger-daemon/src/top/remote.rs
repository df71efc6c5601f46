//! Readings of a running lingerd, over HTTP.

mod tls;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Top;
use crate::live::Live;
use crate::text::escape_for_terminal;

/// Time from the start of a connection or request to the end of the response.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of a response, bytes; 200 groups and 100 closes take a tenth of it.
const MAX_ANSWER: usize = 4 << 20;
/// The path of readings.
const PATH: &str = "/live.json";

/// Reason why there is no reading.
#[derive(Debug, Error)]
pub(super) enum ReadError {
    /// Nothing listens at that address.
    #[error("cannot connect: {0}")]
    Unreachable(io::Error),
    /// The permissions of a Unix socket, or of a folder above it, forbid to connect.
    #[error(
        "no permission to connect: run as root, as the owner of the socket, or as a member of its group"
    )]
    NoPermission,
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("the connection broke: {0}")]
    Connection(#[from] hyper::Error),
    #[error("TLS: {0}")]
    Tls(io::Error),
    /// The response is not HTTP.
    #[error("does not speak plain HTTP: use https://")]
    NotHttp,
    #[error(
        "requires a user and a password: use --user, with the password in $LINGER_PASSWORD or --password-file"
    )]
    NoUser,
    #[error("rejects this user or password")]
    Unauthorized,
    #[error("has no /live.json: is it an older lingerd, or something else?")]
    NotFound,
    #[error("answers {status}: {text}")]
    Status { status: StatusCode, text: String },
    #[error("the answer is longer than {MAX_ANSWER} bytes, or ends early")]
    Length,
    #[error("the answer is not that of a lingerd: {0}")]
    NotLive(#[from] serde_json::Error),
}

/// The address to connect to.
#[derive(Debug, PartialEq, Eq)]
enum Address {
    /// Host, without brackets, and port.
    Tcp(String, u16),
    Unix(PathBuf),
}

/// A connection that takes requests.
type Connection = SendRequest<Empty<Bytes>>;

/// A running lingerd.
pub(super) struct Remote {
    pub(super) url: String,
    address: Address,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    request: Request<Empty<Bytes>>,
    /// Kept open for the next reading.
    connection: Option<Connection>,
}

impl Remote {
    /// Prepares to read the lingerd at this URL: `http:`, `https:`, or `unix:` and a path.
    pub(super) fn new(url: &str, options: &Top) -> Result<Self> {
        let endpoint = Endpoint::parse(url)?;
        let tls = match &endpoint.address {
            Address::Tcp(host, _) if endpoint.is_https => {
                let name = ServerName::try_from(host.clone());
                let name = name.with_context(|| format!("{url}: no name of a host"))?;
                Some((tls::connector(options.ca_file.as_deref())?, name))
            }
            _ => None,
        };
        let mut request = Request::get(endpoint.path)
            .header(header::HOST, endpoint.authority)
            .body(Empty::new())?;
        if let Some(user) = &options.user {
            let code = BASE64_STANDARD.encode(format!("{user}:{}", options.password()?));
            let mut value = HeaderValue::from_str(&format!("Basic {code}"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        Ok(Self {
            url: url.to_owned(),
            address: endpoint.address,
            tls,
            request,
            connection: None,
        })
    }

    pub(super) async fn read(&mut self) -> Result<Live, ReadError> {
        let reading = async {
            if let Some(connection) = self.connection.take() {
                match self.request_on(connection).await {
                    // The server closes idle connections.
                    Err(ReadError::Connection(_)) => {}
                    answered => return answered,
                }
            }
            let connection = self.connect().await?;
            self.request_on(connection).await
        };
        let read = timeout(TIMEOUT, reading).await;
        read.unwrap_or(Err(ReadError::Timeout))
    }

    /// Sends a request on this connection, and keeps the connection if it works.
    async fn request_on(&mut self, mut connection: Connection) -> Result<Live, ReadError> {
        connection.ready().await?;
        let answer = connection.send_request(self.request.clone()).await;
        let answer = answer.map_err(|error| match &self.tls {
            // A server that expects TLS answers with an alert.
            None if error.is_parse() => ReadError::NotHttp,
            _ => ReadError::Connection(error),
        })?;
        let live = self.decode(answer).await?;
        self.connection = Some(connection);
        Ok(live)
    }

    async fn decode(&self, answer: Response<Incoming>) -> Result<Live, ReadError> {
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => ReadError::Connection(*error),
            Err(error) => {
                debug_assert!(error.is::<LengthLimitError>());
                ReadError::Length
            }
        })?;
        let body = body.to_bytes();
        let is_anonymous = !self.request.headers().contains_key(header::AUTHORIZATION);
        match status {
            StatusCode::OK => Ok(serde_json::from_slice(&body)?),
            StatusCode::UNAUTHORIZED if is_anonymous => Err(ReadError::NoUser),
            StatusCode::UNAUTHORIZED => Err(ReadError::Unauthorized),
            StatusCode::NOT_FOUND => Err(ReadError::NotFound),
            _ => {
                let text = String::from_utf8_lossy(&body);
                let line = text.lines().next().unwrap_or_default();
                let text: String = line.chars().take(200).collect();
                let text = escape_for_terminal(&text);
                Err(ReadError::Status { status, text })
            }
        }
    }

    async fn connect(&self) -> Result<Connection, ReadError> {
        match &self.address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                let stream = stream.map_err(|error| match error.kind() {
                    io::ErrorKind::PermissionDenied => ReadError::NoPermission,
                    _ => ReadError::Unreachable(error),
                });
                start_http(stream?).await
            }
            Address::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await;
                let stream = stream.map_err(ReadError::Unreachable)?;
                let Some((tls, name)) = &self.tls else {
                    return start_http(stream).await;
                };
                let stream = tls.connect(name.clone(), stream).await;
                start_http(stream.map_err(ReadError::Tls)?).await
            }
        }
    }
}

async fn start_http(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<Connection, ReadError> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // The next request notices its end.
    tokio::spawn(connection);
    Ok(sender)
}

struct Endpoint {
    address: Address,
    is_https: bool,
    authority: String,
    path: String,
}

impl Endpoint {
    fn parse(url: &str) -> Result<Self> {
        if let Some(path) = url.strip_prefix("unix:") {
            if !path.starts_with('/') {
                bail!(
                    "{url}: a Unix socket has an absolute path, as in unix:/run/lingerd/lingerd.sock"
                );
            }
            return Ok(Self {
                address: Address::Unix(path.into()),
                is_https: false,
                authority: "localhost".to_owned(),
                path: PATH.to_owned(),
            });
        }
        let (is_https, full) = match url.split_once("://") {
            None => (false, format!("http://{url}")),
            Some((scheme @ ("http" | "https"), _)) => (scheme == "https", url.to_owned()),
            Some((scheme, _)) => bail!("{url}: found {scheme}, expected http, https or unix"),
        };
        let uri: Uri = full.parse().with_context(|| format!("{url}: not a URL"))?;
        let authority = uri.authority().with_context(|| format!("{url}: no host"))?;
        if authority.as_str().contains('@') {
            bail!(
                "everyone on the host can read a password in a URL: use --user, with the password in $LINGER_PASSWORD or --password-file"
            );
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        // A proxy may serve it below a path. The log names the URL of the metrics.
        let path = uri.path().trim_end_matches('/');
        let path = path.strip_suffix("/metrics").unwrap_or(path);
        Ok(Self {
            address: Address::Tcp(host, port),
            is_https,
            authority: authority.to_string(),
            path: format!("{}{PATH}", path.trim_end_matches(PATH)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed() {
        for (url, host, port, is_https, path) in [
            ("http://127.0.0.1:10546", "127.0.0.1", 10546, false, PATH),
            ("web1:10546", "web1", 10546, false, PATH),
            ("http://web1", "web1", 80, false, PATH),
            ("https://web1/", "web1", 443, true, PATH),
            (
                "http://[::1]:80/proxy",
                "::1",
                80,
                false,
                "/proxy/live.json",
            ),
            ("http://web1/live.json", "web1", 80, false, PATH),
            ("http://web1/metrics", "web1", 80, false, PATH),
        ] {
            let endpoint = Endpoint::parse(url).unwrap();
            assert_eq!(endpoint.address, Address::Tcp(host.to_owned(), port));
            assert_eq!(
                (endpoint.is_https, endpoint.path.as_str()),
                (is_https, path)
            );
        }
        let endpoint = Endpoint::parse("unix:/run/x.sock").unwrap();
        assert_eq!(endpoint.address, Address::Unix("/run/x.sock".into()));
    }

    #[test]
    fn invalid_urls_are_refused_with_a_reason() {
        for (url, words) in [
            ("ftp://web1", "found ftp, expected http, https or unix"),
            ("unix:x.sock", "absolute"),
            ("http://", "not a URL"),
            ("http://me:secret@web1", "everyone on the host"),
            ("a b", "not a URL"),
        ] {
            let error = format!("{:#}", Endpoint::parse(url).err().unwrap());
            assert!(error.contains(words), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
