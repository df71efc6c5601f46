//! The source of the readings: a running lingerd, or probes of its own.

use anyhow::{Context as _, Result, bail};

use super::Top;
use super::remote::{ReadError, Remote};
use crate::config::{Config, ListenAddr};
use crate::live::Live;
use crate::metrics::Metrics;
use crate::probe::Attachment;
use crate::{privileges, run};

pub(super) enum Source {
    Remote(Box<Remote>),
    /// Own programs, which count until this is dropped, and their metrics.
    Local(Box<(Attachment, Metrics)>),
}

impl Source {
    /// Opens the source given by the options, by default the lingerd of this host or, if none runs, probes attached
    /// while this program runs. Probes cannot be attached once there are other threads.
    pub(super) async fn open(options: &Top, config: &Config) -> Result<Self> {
        let own = || Ok(Self::Local(Box::new(run::attach_standalone(config)?)));
        if let Some(url) = &options.url {
            let mut remote = Remote::new(url, options)?;
            remote.read().await.with_context(|| url.clone())?;
            return Ok(Self::Remote(Box::new(remote)));
        }
        if options.own {
            return own();
        }
        let mut forbidden = None;
        for address in &config.listen {
            let mut remote = Remote::new(&url(address), options)?;
            let mut read = remote.read().await;
            if let (Err(ReadError::NotHttp), Some(host)) =
                (&read, remote.url.strip_prefix("http://"))
            {
                remote = Remote::new(&format!("https://{host}"), options)?;
                read = remote.read().await;
            }
            match read {
                Ok(_) => return Ok(Self::Remote(Box::new(remote))),
                Err(ReadError::Unreachable(_)) => {}
                // Another address may answer.
                Err(ReadError::NoPermission) => forbidden = Some(remote.url.clone()),
                Err(error) => return Err(error).context(remote.url.clone()),
            }
        }
        if let Some(url) = forbidden {
            return Err(ReadError::NoPermission).context(url);
        }
        let places: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
        let places = places.join(", ");
        if !privileges::missing().is_empty() {
            bail!(
                "no lingerd answers at {places}, and only root can attach probes for this view: start \
                 `lingerd run`, use --url to read another lingerd, or run as root"
            );
        }
        own().with_context(|| {
            format!("no lingerd answers at {places}, and probes cannot be attached")
        })
    }

    pub(super) async fn read(&mut self) -> Result<Live> {
        match self {
            Self::Remote(remote) => Ok(remote.read().await?),
            Self::Local(own) => Ok(own.1.live(&own.1.read()?)),
        }
    }

    /// Returns a short description.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Remote(remote) => remote.url.clone(),
            Self::Local(_) => "own probes".to_owned(),
        }
    }
}

/// Returns the URL of a lingerd that listens on this address of this host.
fn url(place: &ListenAddr) -> String {
    match place {
        ListenAddr::Tcp(address) if address.ip().is_unspecified() => {
            let host = if address.is_ipv4() {
                "127.0.0.1"
            } else {
                "[::1]"
            };
            format!("http://{host}:{}", address.port())
        }
        ListenAddr::Tcp(address) => format!("http://{address}"),
        ListenAddr::Unix(_) => place.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses_become_urls() {
        for (place, expected) in [
            ("127.0.0.1:10546", "http://127.0.0.1:10546"),
            ("0.0.0.0:80", "http://127.0.0.1:80"),
            ("[::]:80", "http://[::1]:80"),
            ("[::1]:80", "http://[::1]:80"),
            ("unix:/run/x.sock", "unix:/run/x.sock"),
        ] {
            assert_eq!(url(&place.parse().unwrap()), expected);
        }
    }
}
