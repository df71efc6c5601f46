//! Checks the Helm chart. The rendered objects are in a file, so that they can be compared with the kustomization even
//! where Helm is not installed.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::kustomize::{self, parse, read};
use crate::{folder, not_asked, of_kind, schema};

/// The values that render to the objects of `overlays/monitored`.
const MONITORED: &[&str] = &[
    "--set=image.repository=registry.example.com/lingerd",
    "--set=podMonitor.enabled=true",
    "--set=networkPolicy.enabled=true",
];

/// Returns the text that Helm renders, or its error; `None` if Helm is not installed.
fn helm(values: &[&str]) -> Option<Result<String, String>> {
    let output = Command::new("helm")
        .args(["template", "lingerd", "--namespace=linger"])
        .arg(folder("chart"))
        .args(values)
        .output();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    match output {
        Ok(output) if output.status.success() => Some(Ok(text(output.stdout))),
        Ok(output) => Some(Err(text(output.stderr))),
        Err(_) => {
            not_asked("helm: there is none, so the chart is not rendered");
            None
        }
    }
}

fn objects(text: &str) -> Vec<Value> {
    let documents = text.split("---\n").filter(|text| !text.is_empty());
    documents.map(parse).collect()
}

#[test]
fn chart_renders_to_the_objects_of_kustomize() {
    let mut rendered = objects(include_str!("rendered.yaml"));
    let daemon_set = rendered
        .iter_mut()
        .find(|object| object["kind"] == "DaemonSet");
    // Kustomize puts the digest into the name of the ConfigMap.
    let pod = &mut daemon_set.unwrap()["spec"]["template"]["metadata"];
    assert!(pod["annotations"]["checksum/config"].is_string());
    pod.as_object_mut().unwrap().remove("annotations");

    let mut expected = kustomize::build(&folder("overlays/monitored"));
    // The user of Helm creates the namespace.
    expected.retain(|object| object["kind"] != "Namespace");
    assert_eq!(rendered.len(), expected.len());
    for object in &expected {
        let kind = object["kind"].as_str().unwrap();
        assert_eq!(of_kind(&rendered, kind), object);
    }
}

/// Needs no Helm: the lines of a template without an expression are those that are recorded, with nothing between them.
#[test]
fn templates_say_what_is_recorded() {
    let documents = include_str!("rendered.yaml").split("---\n# Source: lingerd/");
    assert_eq!(documents.clone().count(), 6, "five documents");
    for document in documents.skip(1) {
        let mut recorded = document.lines();
        let name = recorded.next().unwrap();
        let template = fs::read_to_string(folder("chart").join(name)).unwrap();
        let (mut after_expression, mut is_optional) = (false, false);
        for line in template.lines() {
            if line.contains("{{") {
                after_expression = true;
                is_optional = line.contains("{{- with") || is_optional && !line.contains("{{- end");
            } else if !is_optional {
                let between = recorded.position(|found| found == line);
                let is_recorded = between.is_some_and(|lines| lines == 0 || after_expression);
                assert!(is_recorded, "{name}: {line}");
                after_expression = false;
            }
        }
        assert!(after_expression || recorded.next().is_none(), "{name}");
    }
}

#[test]
fn chart_has_the_version_of_the_daemon() {
    let chart = read(&folder("chart/Chart.yaml"));
    for version in ["version", "appVersion"] {
        assert_eq!(chart[version], env!("CARGO_PKG_VERSION"));
    }
}

#[test]
fn helm_renders_the_recorded_objects() {
    let Some(rendered) = helm(MONITORED) else {
        return;
    };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes/rendered.yaml");
    if std::env::var_os("LINGER_BLESS").is_some() {
        fs::write(&file, rendered.as_deref().unwrap()).unwrap();
    }
    assert_eq!(rendered.unwrap(), fs::read_to_string(&file).unwrap());
}

#[test]
fn every_value_makes_valid_objects() {
    let values = [
        "--set=live=true",
        "--set=settings=max-groups = 100",
        "--set=image.tag=v1",
        "--set=seLinuxOptions.type=spc_t",
        "--set=seccompProfile.type=Unconfined",
        "--set=podMonitor.labels.release=prometheus",
        "--set=nodeSelector.pool=a",
    ];
    let Some(rendered) = helm(&[MONITORED, &values].concat()) else {
        return;
    };
    let rendered = objects(&rendered.unwrap());
    for object in &rendered {
        assert_eq!(schema::validate(object), Ok(()), "{object}");
    }
    let settings = of_kind(&rendered, "ConfigMap")["data"]["lingerd.toml"].as_str();
    assert!(
        settings
            .unwrap()
            .ends_with("\nlive = true\nmax-groups = 100\n")
    );
    let pod = &of_kind(&rendered, "DaemonSet")["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["seLinuxOptions"]["type"], "spc_t");
    assert_eq!(
        pod["securityContext"]["seccompProfile"]["type"],
        "Unconfined"
    );
    assert_eq!(
        pod["containers"][0]["image"],
        "registry.example.com/lingerd:v1"
    );
}

#[test]
fn misspelt_value_is_refused() {
    for (value, place) in [("--set=imag.tag=1", "imag"), ("--set=live=yes", "/live")] {
        let Some(rendered) = helm(&[value]) else {
            return;
        };
        let error = rendered.unwrap_err();
        assert!(error.contains(place), "{error}");
    }
}
