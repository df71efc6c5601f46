//! A `lingerd` that runs as a service, and its counts.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use linger_ebpf::Plan;
use linger_testkit::exposition::{Sample, Scrape};
use linger_testkit::http;

use crate::tools::{run, wait_for};

/// Its default address.
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10546);
const UNIT: &str = "lingerd.service";
/// Longest lag of counts behind a client's view: a server's close returns after its FIN is sent.
const LAG: Duration = Duration::from_secs(5);
/// Pause between two scrapes.
const PAUSE: Duration = Duration::from_millis(100);

/// Closes by outcome.
pub(crate) type Closes = BTreeMap<String, u64>;

/// The service, which counts nothing from before its start.
pub(crate) struct Lingerd {
    /// The hooks that it uses.
    pub(crate) plan: Plan,
    address: SocketAddr,
    unit: &'static str,
}

impl Lingerd {
    /// Returns the installed one, which runs with this plan.
    pub(crate) fn installed(plan: Plan) -> Self {
        Self {
            plan,
            address: ADDRESS,
            unit: UNIT,
        }
    }

    /// Starts it, and waits until it is ready.
    pub(crate) fn start(binary: &Path, plan: Plan) -> Result<Self> {
        let lingerd = Self::installed(plan);
        let binary = binary.to_str().context("the path of lingerd is no text")?;
        let unit = format!("--unit={}", lingerd.unit);
        let service = ["systemd-run", "--quiet", "--collect", &unit];
        let labels = ["--labels", "unit,slice,container,comm,exe"];
        let command = [&[binary, "run", "--plan", plan.name()][..], &labels].concat();
        run(&[&service[..], &command].concat())?;
        let mut readiness = http::Poll::new(lingerd.address, "/readyz");
        wait_for("lingerd to be ready", || readiness.is_ready().then_some(()))
            .with_context(|| lingerd.log())?;
        Ok(lingerd)
    }

    /// Returns its log.
    fn log(&self) -> String {
        let journal = ["journalctl", "--no-pager", "--output=cat", "--unit"];
        run(&[&journal[..], &[self.unit]].concat()).unwrap_or_else(|error| format!("{error:#}"))
    }

    /// Scrapes all metrics.
    pub(crate) fn scrape(&self) -> Result<Scrape> {
        let body = http::body(self.address, "/metrics")?;
        Scrape::parse(&body).map_err(anyhow::Error::msg)
    }

    /// Returns the closes of all groups with these labels together.
    pub(crate) fn closes(&self, labels: &[(&str, &str)]) -> Result<Closes> {
        Ok(closes_of(&self.scrape()?, labels))
    }

    /// Expects all groups with these labels together to have made exactly these closes, now or soon.
    pub(crate) fn expect(&self, labels: &[(&str, &str)], closes: &[(&str, u64)]) -> Result<()> {
        let expected: Closes = closes
            .iter()
            .map(|(outcome, count)| ((*outcome).to_owned(), *count))
            .collect();
        let start = Instant::now();
        loop {
            let scrape = self.scrape()?;
            let counted = closes_of(&scrape, labels);
            if counted == expected {
                return Ok(());
            }
            ensure!(
                start.elapsed() < LAG,
                "of {labels:?} are counted {counted:?} and not {expected:?}; others: {}",
                others(&scrape, labels)
            );
            thread::sleep(PAUSE);
        }
    }

    /// Stops it.
    pub(crate) fn stop(self) -> Result<()> {
        run(&["systemctl", "stop", self.unit]).map(drop)
    }
}

/// Returns the closes of the groups with all these labels.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are whole, positive and below 2^53"
)]
fn closes_of(scrape: &Scrape, labels: &[(&str, &str)]) -> Closes {
    let mut closes = Closes::new();
    for sample in scrape.of("linger_closes_total") {
        if labels
            .iter()
            .all(|(name, value)| sample.label(name) == *value)
        {
            *closes.entry(sample.label("outcome").into()).or_default() += sample.value as u64;
        }
    }
    closes
}

/// Returns the closes of groups with only some of these labels, in a line: missing ones may be there.
fn others(scrape: &Scrape, labels: &[(&str, &str)]) -> String {
    let carries = |sample: &Sample| {
        let carried = |(name, value): &(&str, &str)| sample.label(name) == *value;
        labels.iter().any(carried) && !labels.iter().all(carried)
    };
    let samples = scrape.of("linger_closes_total");
    let told = samples.filter(|sample| carries(sample)).map(|sample| {
        let labels = sample.labels.iter();
        let labels: Vec<_> = labels
            .map(|(name, value)| format!("{name}={value:?}"))
            .collect();
        format!("{} {}", labels.join(","), sample.value)
    });
    told.collect::<Vec<_>>().join("; ")
}
