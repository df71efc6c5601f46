//! Grafana knows every field of the dashboards: its own types, of its oldest and newest version, keep them all.

use std::io::Write as _;
use std::process::{Command, Stdio};

use linger_testkit::tools::folder;
use serde_json::{Value, json};

use crate::files::dashboards;

/// Script that decodes a list of dashboards into Grafana's types, and encodes them again.
const RECODE: &str = "
import json, sys
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
plugins.register_default_plugins()
dashboards = [Dashboard.from_json(dashboard) for dashboard in json.load(sys.stdin)]
print(JSONEncoder().encode(dashboards))
";

/// Fields with another name in one version: heatmaps show tooltips by `show` until 10.2, then by `mode`.
const RENAMED: [(&str, &str); 2] = [
    ("grafana-sdk-oldest", ".options.tooltip.mode"),
    ("grafana-sdk-newest", ".options.tooltip.show"),
];

/// Returns dashboards as this version of Grafana understands them.
fn recoded(version: &str, dashboards: &[Value]) -> Vec<Value> {
    let mut python = Command::new("python3")
        .args(["-c", RECODE])
        .env("PYTHONPATH", folder().join(version))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = python.stdin.take().unwrap();
    stdin
        .write_all(json!(dashboards).to_string().as_bytes())
        .unwrap();
    drop(stdin);
    let output = python.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{version}: run `cargo xtask setup --for test`"
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Adds the paths of all fields of `before` that `after`, which may have more, lacks or changes.
fn losses(path: &str, before: &Value, after: &Value, lost: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (name, value) in before {
                let after = after.get(name).unwrap_or(&Value::Null);
                losses(&format!("{path}.{name}"), value, after, lost);
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (number, (before, after)) in before.iter().zip(after).enumerate() {
                losses(&format!("{path}[{number}]"), before, after, lost);
            }
        }
        _ if before == after => {}
        _ => lost.push(path.to_owned()),
    }
}

#[test]
fn grafanas_own_types_keep_every_field() {
    let mut dashboards = dashboards();
    for (version, renamed) in RENAMED {
        let mut lost = Vec::new();
        for (before, after) in dashboards.iter().zip(recoded(version, &dashboards)) {
            let title = before["title"].as_str().unwrap();
            losses(title, before, &after, &mut lost);
        }
        let count = lost.len();
        lost.retain(|path| !path.ends_with(renamed));
        assert!(lost.is_empty(), "{version}: {lost:#?}");
        assert!(count > 0, "{version}: {renamed} is no exception any more");
    }
    // A field that does not exist is found.
    dashboards[0]["panels"][1]["options"]["invented"] = json!(1);
    let after = recoded("grafana-sdk-newest", &dashboards[..1]);
    let mut lost = Vec::new();
    losses("", &dashboards[0], &after[0], &mut lost);
    lost.retain(|path| !path.ends_with(RENAMED[1].1));
    assert_eq!(lost, [".panels[1].options.invented"]);
}
