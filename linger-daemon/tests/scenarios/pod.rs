//! `lingerd` as the Kubernetes manifests run it: in its own namespaces, with three capabilities, a seccomp filter, a
//! read-only root, and nothing of the host but its cgroups.

mod maker;

use std::env;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use linger_daemon::exercise::state;
use linger_daemon::exercise::tcp::{self, Loopback};
use linger_ebpf::Plan;
use linger_testkit::exposition::Scrape;
use linger_testkit::http;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::born::Cgroup;
use crate::closes;
use crate::netns;
use crate::scenario::Scenario;

pub(crate) use self::maker::run;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::daemon("as_in_a_pod", as_in_a_pod).once()];

/// Address in the configuration of the manifests.
const ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 10546);

/// UID of the pod that closes.
const POD: &str = "6b39a0ac-6e4b-4a5f-8f1c-0a2f4f1d7e11";

/// Returns the `kubepods-burstable-pod….slice` of a pod and its container's scope, as the systemd driver names them.
fn cgroups_of(pod: &str, container: char) -> [String; 2] {
    let pod = pod.replace('-', "_");
    let slice = format!("kubepods-burstable-pod{pod}.slice");
    let id: String = std::iter::repeat_n(container, 64).collect();
    [slice.clone(), format!("{slice}/cri-containerd-{id}.scope")]
}

fn as_in_a_pod(lingerd: &Path, plan: Plan) -> Result<()> {
    const CLOSES: u64 = 7;
    netns::in_own(|| {
        let mut cgroups: Vec<_> = [("11111111-2222-3333-4444-555555555555", 'b'), (POD, 'a')]
            .into_iter()
            .flat_map(|(pod, container)| cgroups_of(pod, container))
            .map(|name| Cgroup::new(&name))
            .collect::<io::Result<_>>()?;
        // The innermost must be removed first.
        cgroups.reverse();
        let [closer, _, own, _] = &cgroups[..] else {
            bail!("two pods have four cgroups");
        };
        if !is_usable(lingerd, plan, own)? {
            return cgroups
                .into_iter()
                .try_for_each(|cgroup| Ok(cgroup.remove()?));
        }

        let mut pod = Pod::start(
            lingerd,
            plan,
            own,
            &["run", "--config=/etc/linger/lingerd.toml"],
        )?;
        pod.wait_until_ready()?;
        pod.expect_no_privileges()?;
        let loopback = Loopback::new()?;
        // SAFETY: it only makes system calls.
        unsafe {
            closer.bear("in-a-pod", || {
                (0..CLOSES).try_for_each(|_| tcp::close(loopback.socket()?).map(drop))
            })
        }?;
        // A wrong count is not retried.
        let reached = state::wait_for("the closes to be counted", || {
            Ok(counted().map_err(io::Error::other)? == CLOSES)
        });
        ensure!(
            reached.is_ok(),
            "{} closes are counted, not {CLOSES}",
            counted()?
        );
        let said = pod.stop()?;
        ensure!(!said.contains("WARN"), "it warned: {said}");
        cgroups.into_iter().try_for_each(Cgroup::remove)?;
        Ok(())
    })
}

/// Returns whether the plan is usable in the pod, where nothing else may be a problem; if not, `lingerd check` must say
/// why.
fn is_usable(lingerd: &Path, plan: Plan, own: &Cgroup) -> Result<bool> {
    let mut pod = Pod::start(lingerd, plan, own, &["check", "--json"])?;
    let report: Value = serde_json::from_str(&pod.said()?).context("no report")?;
    let host = report["host"].as_array().context("nothing of the host")?;
    let problem = host.iter().find(|one| one["verdict"] == "problem");
    ensure!(
        problem.is_none(),
        "in a pod: {}",
        problem.unwrap_or(&Value::Null)
    );
    let plans = report["plans"].as_array().context("no plans")?;
    let [found] = &plans[..] else {
        bail!("not one plan: {plans:?}");
    };
    ensure!(found["plan"] == plan.name(), "another plan: {found}");
    let usable = found["usable"] == true;
    // Without CAP_SYS_ADMIN, only root may define kprobes there.
    let says_why = found["reason"]
        .as_str()
        .is_some_and(|why| why.contains("Permission denied"));
    ensure!(
        usable || plan == Plan::Kprobe && says_why,
        "not usable in a pod: {found}"
    );
    Ok(usable)
}

/// A process in its own pod, and the one that made that pod.
struct Pod {
    maker: Child,
    output: BufReader<std::process::ChildStdout>,
    process: Pid,
}

impl Pod {
    /// Starts it in the network namespace of the calling thread.
    fn start(lingerd: &Path, plan: Plan, own: &Cgroup, arguments: &[&str]) -> Result<Self> {
        let mut maker = Command::new(env::current_exe()?)
            .arg("pod")
            .arg(own.processes())
            .arg(lingerd)
            .args(arguments)
            .args(["--plan", plan.name()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut output = BufReader::new(maker.stdout.take().context("a pipe")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let process = line.trim().parse().context("the pod was not made")?;
        Ok(Self {
            maker,
            output,
            process: Pid::from_raw(process),
        })
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let start = Instant::now();
        let mut readiness = http::Poll::new(ADDRESS, "/readyz");
        while !readiness.is_ready() {
            if let Some(status) = self.maker.try_wait()? {
                bail!("it ended before it was ready: {status}: {}", self.said()?);
            }
            ensure!(
                start.elapsed() < Duration::from_secs(180),
                "it is not ready"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Expects that, once attached, it has no capabilities, no way to gain any, and is still filtered.
    fn expect_no_privileges(&self) -> Result<()> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process))?;
        for line in [
            "CapPrm:\t0000000000000000",
            "CapEff:\t0000000000000000",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
        ] {
            ensure!(status.contains(line), "no {line:?} in {status}");
        }
        Ok(())
    }

    /// Returns everything that it writes until it ends.
    fn said(&mut self) -> Result<String> {
        let mut said = String::new();
        self.output.read_to_string(&mut said)?;
        Ok(said)
    }

    /// Stops it as a kubelet does. Returns its output.
    fn stop(mut self) -> Result<String> {
        kill(self.process, Signal::SIGTERM)?;
        let said = self.said()?;
        let status = self.maker.wait()?;
        ensure!(status.success(), "it ended with {status}: {said}");
        Ok(said)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // After `stop` there is nothing to kill.
        let _ = kill(self.process, Signal::SIGKILL);
        let _ = self.maker.wait();
    }
}

/// Returns the closes counted for the pod that closes.
fn counted() -> Result<u64> {
    let body = http::body(ADDRESS, "/metrics")?;
    let scrape = Scrape::parse(&body).map_err(anyhow::Error::msg)?;
    Ok(closes::sum(&scrape, "linger_closes_total", |sample| {
        let is_own = sample.label("pod") == POD && sample.label("comm") == "in-a-pod";
        is_own && sample.label("outcome") == "not_connected"
    }))
}
