//! The source of the readings: a running lingerd, or probes of its own.

use anyhow::{Context as _, Result, bail};

use super::Top;
use super::local::LocalSource;
use super::remote::{ReadError, Remote};
use crate::config::{Config, ListenAddr};
use crate::live::Live;
use crate::privileges;

/// A source of readings.
pub(super) enum Source {
    Remote(Box<Remote>),
    Local(Box<LocalSource>),
}

impl Source {
    /// Opens the source given by the options, by default the lingerd of this host or, if none runs, probes attached
    /// while this program runs.
    pub(super) async fn open(options: &Top, config: &Config) -> Result<Self> {
        if let Some(url) = &options.url {
            let password = options.password()?;
            let mut remote = Remote::new(url, options, password)?;
            remote.read().await.with_context(|| url.clone())?;
            return Ok(Self::Remote(Box::new(remote)));
        }
        if options.own {
            return Ok(Self::Local(Box::new(LocalSource::attach(config)?)));
        }
        let mut refused = Vec::new();
        for place in &config.listen {
            let mut url = url(place);
            let mut remote = Remote::new(&url, options, options.password()?)?;
            let mut read = remote.read().await;
            if let (Err(ReadError::NotPlain), Some(host)) = (&read, url.strip_prefix("http://")) {
                url = format!("https://{host}");
                remote = Remote::new(&url, options, options.password()?)?;
                read = remote.read().await;
            }
            match read {
                Ok(_) => return Ok(Self::Remote(Box::new(remote))),
                Err(ReadError::NoOne(_)) => refused.push(place.to_string()),
                Err(error) => return Err(error).with_context(|| url.clone()),
            }
        }
        let places = refused.join(", ");
        if !privileges::missing().is_empty() {
            bail!(
                "no lingerd answers at {places}, and only root can attach probes for this view: start \
                 `lingerd run`, name one that runs with --url, or be root"
            );
        }
        let own = LocalSource::attach(config);
        let own =
            own.with_context(|| format!("no lingerd answers at {places}, and no probes attach"))?;
        Ok(Self::Local(Box::new(own)))
    }

    /// Takes a reading.
    pub(super) async fn read(&mut self) -> Result<Live> {
        match self {
            Self::Remote(remote) => Ok(remote.read().await?),
            Self::Local(own) => own.read(),
        }
    }

    /// A short description.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Remote(remote) => remote.name().to_owned(),
            Self::Local(_) => "own probes".to_owned(),
        }
    }
}

/// The URL of a lingerd that listens on this address of this host.
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
    fn a_place_to_listen_at_is_where_to_ask() {
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
