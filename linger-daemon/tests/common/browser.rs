//! A headless Chromium, driven over pipes by its `DevTools` protocol.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest time for an answer or an effect, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Advice where there is no Chromium.
pub(crate) const MISSING: &str = "there is no chromium: `cargo xtask setup --for test` installs it";

/// A browser with one page at a time, ended when dropped.
pub(crate) struct Browser {
    process: Child,
    orders: Option<ChildStdin>,
    messages: Receiver<Value>,
    last: u64,
    session: Value,
    events: Vec<Value>,
    _profile: TempDir,
}

impl Browser {
    /// Starts one in the network namespace of the calling thread. Returns `None` if there is no Chromium.
    pub(crate) fn start() -> Result<Option<Self>> {
        let Some(chromium) = chromium() else {
            return Ok(None);
        };
        let profile = TempDir::new()?;
        // It reads descriptor 3 and writes 4.
        let mut process = Command::new("sh")
            .args(["-c", "exec 3<&0 4>&1 </dev/null >&2; exec \"$@\"", "sh"])
            .arg(chromium)
            .args(["--headless", "--remote-debugging-pipe", "--no-first-run"])
            // Its sandbox refuses root; it sees nothing but our own page.
            .args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let orders = process.stdin.take();
        let output = process.stdout.take().context("it has a pipe")?;
        let (send, messages) = channel();
        thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&message).unwrap_or_default();
                if send.send(message).is_err() {
                    break;
                }
            }
        });
        Ok(Some(Self {
            process,
            orders,
            messages,
            last: 0,
            session: Value::Null,
            events: Vec::new(),
            _profile: profile,
        }))
    }

    /// Opens a new page of this width, in the dark or the light colour scheme.
    pub(crate) fn open(&mut self, url: &str, width: u32, dark: bool) -> Result<()> {
        self.session = Value::Null;
        let page = self.call("Target.createTarget", &json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": page["targetId"], "flatten": true });
        let attached = self.call("Target.attachToTarget", &attach)?;
        self.session = attached["sessionId"].clone();
        self.events.clear();
        for domain in ["Runtime", "Log", "Page"] {
            self.call(&format!("{domain}.enable"), &json!({}))?;
        }
        let metrics = json!({
            "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500,
        });
        self.call("Emulation.setDeviceMetricsOverride", &metrics)?;
        let scheme = if dark { "dark" } else { "light" };
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call(
            "Emulation.setEmulatedMedia",
            &json!({ "features": [feature] }),
        )?;
        self.call("Page.navigate", &json!({ "url": url }))?;
        Ok(())
    }

    /// Returns the value of an expression in the page.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let order = json!({ "expression": expression, "returnByValue": true });
        let done = self.call("Runtime.evaluate", &order)?;
        let exception = &done["exceptionDetails"];
        ensure!(exception.is_null(), "{expression}: {exception}");
        Ok(done["result"]["value"].clone())
    }

    /// Waits until an expression is true.
    pub(crate) fn wait_for(&mut self, expression: &str) -> Result<()> {
        let started = Instant::now();
        // A page that is still loading may have nothing to evaluate.
        while !matches!(self.evaluate(expression), Ok(Value::Bool(true))) {
            if started.elapsed() > PATIENCE {
                let state = self.evaluate("document.getElementById('state')?.textContent");
                bail!(
                    "never: {expression}; the page says {state:?}; {:?}",
                    self.complaints()
                );
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Returns what the page's console reports: errors, exceptions, violations of the content security policy.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let told = [
            "Runtime.exceptionThrown",
            "Runtime.consoleAPICalled",
            "Log.entryAdded",
        ];
        let events = self.events.iter();
        let told = events.filter(|event| told.iter().any(|method| event["method"] == *method));
        told.map(|event| event["params"].to_string()).collect()
    }

    fn call(&mut self, method: &str, params: &Value) -> Result<Value> {
        self.last += 1;
        let mut order = json!({ "id": self.last, "method": method, "params": params });
        if !self.session.is_null() {
            order["sessionId"] = self.session.clone();
        }
        let mut bytes = order.to_string().into_bytes();
        bytes.push(0);
        let orders = self.orders.as_mut().context("it has a pipe")?;
        orders.write_all(&bytes).context("chromium ended")?;
        loop {
            let message = self.messages.recv_timeout(PATIENCE);
            let mut message = message.with_context(|| format!("chromium is silent at {method}"))?;
            if message["id"] == self.last {
                ensure!(message["error"].is_null(), "{method}: {}", message["error"]);
                return Ok(message["result"].take());
            }
            self.events.push(message);
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends with the pipe; kill it if it does not.
        drop(self.orders.take());
        let started = Instant::now();
        while matches!(self.process.try_wait(), Ok(None)) {
            if started.elapsed() > Duration::from_secs(10) {
                let _ = self.process.kill();
                let _ = self.process.wait();
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Returns the path of Chromium, if it is in `PATH`.
pub(crate) fn chromium() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let mut files = env::split_paths(&path).map(|folder| folder.join("chromium"));
    files.find(|file| file.is_file())
}
