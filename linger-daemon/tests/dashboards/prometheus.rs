//! A real Prometheus with the rules, which scrapes lingerd every second, and itself as a foreign target.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use linger_testkit::prometheus;
use linger_testkit::server::Server;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::files::{files, list};

/// Time that graphs go back, seconds.
const PAST: u64 = 120;

/// The server, and the folder with its data.
pub(crate) struct Prometheus {
    _server: Server,
    address: SocketAddr,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts one that scrapes the lingerd at this address.
    pub(crate) fn start(lingerd: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let command = |address: SocketAddr| {
            let job = |name: &str, target: SocketAddr| {
                let targets = [target.to_string()];
                json!({ "job_name": name, "static_configs": [{ "targets": targets }] })
            };
            let settings = json!({
                "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
                "rule_files": files("dashboards/rules", "yaml"),
                "scrape_configs": [job("lingerd", lingerd), job("prometheus", address)],
            });
            prometheus::command(folder.path(), &settings, address)
        };
        let started = Server::start_somewhere("prometheus", command, "/-/ready");
        let (server, address) = started.unwrap_or_else(|error| panic!("{error:#}"));
        Self {
            _server: server,
            address,
            _folder: folder,
        }
    }

    /// Returns the address that it serves, which is its name as a target.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns what a query finds now.
    pub(crate) fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        self.series("query", &[("query", query)])
    }

    /// Returns what a query finds over the last minutes.
    pub(crate) fn query_range(&self, query: &str) -> Result<Vec<Value>, String> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let [start, end] = [now - PAST, now].map(|time| time.to_string());
        let when = [("start", start.as_str()), ("end", &end), ("step", "5")];
        self.series("query_range", &[&[("query", query)][..], &when].concat())
    }

    /// Returns the values of a label in the series of a selector.
    pub(crate) fn label_values(&self, label: &str, selector: &str) -> Result<Vec<Value>, String> {
        let data = self.ask(&format!("label/{label}/values"), &[("match[]", selector)])?;
        Ok(list(&data).to_vec())
    }

    /// Returns all rules, with the results of their last evaluation.
    pub(crate) fn rules(&self) -> Vec<Value> {
        let data = self.ask("rules", &[]).unwrap();
        let groups = list(&data["groups"]).iter();
        groups
            .flat_map(|group| list(&group["rules"]).to_vec())
            .collect()
    }

    /// Returns the series of the answer that have a number.
    fn series(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Vec<Value>, String> {
        let data = self.ask(path, parameters)?;
        let series = list(&data["result"]).iter();
        Ok(series
            .filter(|series| has_number(series))
            .cloned()
            .collect())
    }

    fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        prometheus::ask(self.address, path, parameters).map_err(|error| format!("{error:#}"))
    }
}

/// Returns whether a series has a value at any time: NaN shows as nothing.
fn has_number(series: &Value) -> bool {
    let at_once = std::slice::from_ref(&series["value"]);
    let mut samples = list(&series["values"]).iter().chain(at_once);
    samples.any(|sample| sample[1].as_str().is_some_and(|value| value != "NaN"))
}
