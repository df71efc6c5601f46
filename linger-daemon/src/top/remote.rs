//! Readings of a lingerd that runs, over HTTP.

mod tls;

use std::fmt::Write as _;
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

/// From the request, or the start of a connection, to the end of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer; 200 groups and 100 closes take a tenth of it.
const MOST: usize = 4 << 20;
/// The path of readings.
const PATH: &str = "/live.json";

/// Why there is no reading.
#[derive(Debug, Error)]
pub(super) enum ReadError {
    /// There is nothing at that place.
    #[error("no one answers: {0}")]
    NoOne(io::Error),
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Late,
    #[error("the connection broke: {0}")]
    Broke(#[from] hyper::Error),
    #[error("TLS: {0}")]
    Tls(io::Error),
    /// What it answers is no HTTP.
    #[error("does not speak plain HTTP: ask for https://")]
    NotPlain,
    #[error(
        "asks for another password: give --user, and the password in $LINGER_PASSWORD or --password-file"
    )]
    Unauthorized,
    #[error("has no /live.json: is it an older lingerd, or something else?")]
    NotFound,
    #[error("answers {status}: {text}")]
    Status { status: StatusCode, text: String },
    #[error("the answer is longer than {MOST} bytes, or ends early")]
    Length,
    #[error("the answer is not that of a lingerd: {0}")]
    NotLive(#[from] serde_json::Error),
}

/// Where to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// A lingerd that is asked.
pub(super) struct Remote {
    name: String,
    address: Address,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    path: String,
    host: HeaderValue,
    password: Option<HeaderValue>,
    /// Open for the next reading.
    connection: Option<SendRequest<Empty<Bytes>>>,
}

impl Remote {
    /// The one at this URL: `http:`, `https:`, or `unix:` and a path.
    pub(super) fn new(url: &str, options: &Top, password: Option<String>) -> Result<Self> {
        let place = Endpoint::parse(url)?;
        let tls = if place.is_https {
            let name = place.host.trim_matches(['[', ']']).to_owned();
            let name =
                ServerName::try_from(name).with_context(|| format!("{url}: no name of a host"))?;
            Some((tls::connector(options.ca_file.as_deref())?, name))
        } else {
            None
        };
        Ok(Self {
            name: url.to_owned(),
            host: HeaderValue::from_str(&place.authority)?,
            path: place.path,
            address: place.address,
            tls,
            password: basic(options.user.as_deref(), password)?,
            connection: None,
        })
    }

    /// Its URL.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// One reading.
    pub(super) async fn read(&mut self) -> Result<Live, ReadError> {
        timeout(PATIENCE, self.ask())
            .await
            .unwrap_or(Err(ReadError::Late))
    }

    async fn ask(&mut self) -> Result<Live, ReadError> {
        if let Some(connection) = self.connection.take() {
            match self.ask_on(connection).await {
                // It ends connections that have waited for a while.
                Err(ReadError::Broke(_)) => {}
                answered => return answered,
            }
        }
        let connection = self.connect().await?;
        self.ask_on(connection).await
    }

    /// Asks on this connection, and keeps it if it works.
    async fn ask_on(
        &mut self,
        mut connection: SendRequest<Empty<Bytes>>,
    ) -> Result<Live, ReadError> {
        connection.ready().await?;
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = Uri::try_from(&self.path).unwrap_or_else(|_| Uri::from_static(PATH));
        let headers = request.headers_mut();
        headers.insert(header::HOST, self.host.clone());
        if let Some(password) = &self.password {
            headers.insert(header::AUTHORIZATION, password.clone());
        }
        let answer = connection.send_request(request).await;
        let answer = answer.map_err(|error| match &self.tls {
            // A server that expects TLS answers with an alert.
            None if error.is_parse() => ReadError::NotPlain,
            _ => ReadError::Broke(error),
        })?;
        let live = live(answer).await?;
        self.connection = Some(connection);
        Ok(live)
    }

    async fn connect(&self) -> Result<SendRequest<Empty<Bytes>>, ReadError> {
        match &self.address {
            Address::Unix(path) => {
                begin(UnixStream::connect(path).await.map_err(ReadError::NoOne)?).await
            }
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.trim_matches(['[', ']']), *port)).await;
                let stream = stream.map_err(ReadError::NoOne)?;
                match &self.tls {
                    None => begin(stream).await,
                    Some((tls, name)) => {
                        let stream = tls.connect(name.clone(), stream).await;
                        begin(stream.map_err(ReadError::Tls)?).await
                    }
                }
            }
        }
    }
}

/// Begins to speak HTTP.
async fn begin(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<SendRequest<Empty<Bytes>>, ReadError> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // Its end is seen by the next request.
    tokio::spawn(connection);
    Ok(sender)
}

/// What an answer says.
async fn live(answer: Response<Incoming>) -> Result<Live, ReadError> {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MOST).collect().await;
    let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
        Ok(error) => ReadError::Broke(*error),
        Err(error) => {
            debug_assert!(error.is::<LengthLimitError>());
            ReadError::Length
        }
    })?;
    let body = body.to_bytes();
    match status {
        StatusCode::OK => Ok(serde_json::from_slice(&body)?),
        StatusCode::UNAUTHORIZED => Err(ReadError::Unauthorized),
        StatusCode::NOT_FOUND => Err(ReadError::NotFound),
        _ => {
            let text = String::from_utf8_lossy(&body);
            let text = text
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .take(200)
                .collect();
            Err(ReadError::Status { status, text })
        }
    }
}

/// A URL, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Endpoint {
    address: Address,
    is_https: bool,
    host: String,
    authority: String,
    path: String,
}

impl Endpoint {
    fn parse(url: &str) -> Result<Self> {
        if let Some(path) = url.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            if !path.is_absolute() {
                bail!(
                    "{url}: a Unix socket has an absolute path, as in unix:/run/lingerd/lingerd.sock"
                );
            }
            return Ok(Self {
                address: Address::Unix(path),
                is_https: false,
                host: String::new(),
                authority: "localhost".to_owned(),
                path: PATH.to_owned(),
            });
        }
        let is_https = url.starts_with("https://");
        let full = match url.split_once("://") {
            None => format!("http://{url}"),
            Some(("http" | "https", _)) => url.to_owned(),
            Some((scheme, _)) => bail!("{url}: not {scheme}, but http, https or unix"),
        };
        let uri: Uri = full.parse().with_context(|| format!("{url}: no URL"))?;
        let authority = uri.authority().with_context(|| format!("{url}: no host"))?;
        if authority.as_str().contains('@') {
            bail!(
                "a password in a URL is for all to see: give --user, and it in $LINGER_PASSWORD or --password-file"
            );
        }
        let host = uri.host().unwrap_or_default().to_owned();
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        // A proxy may have it below a path.
        let mut path = uri.path().trim_end_matches('/').to_owned();
        if !path.ends_with(PATH) {
            let _ = write!(path, "{PATH}");
        }
        Ok(Self {
            address: Address::Tcp {
                host: host.clone(),
                port,
            },
            is_https,
            host,
            authority: authority.to_string(),
            path,
        })
    }
}

/// The header that says who asks.
fn basic(user: Option<&str>, password: Option<String>) -> Result<Option<HeaderValue>> {
    let (user, password) = match (user, password) {
        (None, None) => return Ok(None),
        (Some(user), Some(password)) => (user, password),
        (Some(_), None) => {
            bail!("--user goes with a password, in $LINGER_PASSWORD or --password-file")
        }
        (None, Some(_)) => bail!("a password goes with --user"),
    };
    let code = BASE64_STANDARD.encode(format!("{user}:{password}"));
    let mut value = HeaderValue::from_str(&format!("Basic {code}"))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp {
            host: host.to_owned(),
            port,
        }
    }

    #[test]
    fn urls_are_taken_apart() {
        for (url, address, is_https, path) in [
            (
                "http://127.0.0.1:10546",
                tcp("127.0.0.1", 10546),
                false,
                "/live.json",
            ),
            ("web1:10546", tcp("web1", 10546), false, "/live.json"),
            ("http://web1", tcp("web1", 80), false, "/live.json"),
            ("https://web1/", tcp("web1", 443), true, "/live.json"),
            (
                "http://[::1]:80/lingerd",
                tcp("[::1]", 80),
                false,
                "/lingerd/live.json",
            ),
            (
                "http://web1/live.json",
                tcp("web1", 80),
                false,
                "/live.json",
            ),
            (
                "unix:/run/x.sock",
                Address::Unix("/run/x.sock".into()),
                false,
                "/live.json",
            ),
        ] {
            let place = Endpoint::parse(url).unwrap();
            assert_eq!(
                (place.address, place.is_https, place.path.as_str()),
                (address, is_https, path)
            );
        }
    }

    #[test]
    fn what_is_no_url_is_refused_in_words() {
        for (url, words) in [
            ("ftp://web1", "not ftp, but http, https or unix"),
            ("unix:x.sock", "absolute"),
            ("http://", "no URL"),
            ("http://me:secret@web1", "for all to see"),
            ("a b", "no URL"),
        ] {
            let error = format!("{:#}", Endpoint::parse(url).unwrap_err());
            assert!(error.contains(words), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn user_and_password_go_together() {
        assert!(basic(None, None).unwrap().is_none());
        let header = basic(Some("me"), Some("secret".to_owned()))
            .unwrap()
            .unwrap();
        assert_eq!(header.to_str().unwrap(), "Basic bWU6c2VjcmV0");
        assert!(header.is_sensitive());
        basic(Some("me"), None).unwrap_err();
        basic(None, Some("secret".to_owned())).unwrap_err();
    }
}
