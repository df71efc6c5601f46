//! Checks the manifests for Kubernetes: they follow the published schemas, and grant what lingerd needs and no more.

mod chart;
mod kustomize;
mod schema;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use linger_daemon::config::{self, Sources};
use linger_daemon::privileges;
use serde_json::{Value, json};

use crate::kustomize::{by_kubectl, list};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../linger-daemon/packaging/kubernetes")
        .canonicalize()
        .unwrap()
        .join(name)
}

fn components() -> Vec<String> {
    let entries = fs::read_dir(folder("components")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// Calls `use_of` with the objects of the base with each component, of the base alone, and of the example.
fn each(use_of: impl Fn(&str, &[Value], &Path)) {
    let kept = tempfile::tempdir().unwrap();
    let scratch = kept.path().canonicalize().unwrap();
    for name in components() {
        let path = scratch.join(&name);
        fs::create_dir(&path).unwrap();
        // Kustomize accepts relative paths only.
        let up = "../".repeat(path.components().count() - 1);
        let here = format!("{up}{}", folder("").strip_prefix("/").unwrap().display());
        let text = format!(
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n\
             resources: [{here}/base]\ncomponents: [{here}/components/{name}]\n"
        );
        fs::write(path.join("kustomization.yaml"), text).unwrap();
        use_of(&name, &kustomize::build(&path), &path);
    }
    for name in ["base", "overlays/monitored"] {
        let path = folder(name);
        use_of(name, &kustomize::build(&path), &path);
    }
}

/// Says which tool a test does without. Bypasses the harness, which shows the output of failed tests only.
fn not_asked(what: &str) {
    let _ = writeln!(io::stderr(), "not asked: {what}");
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let mut found = objects.iter().filter(|object| object["kind"] == kind);
    found.next().unwrap_or_else(|| panic!("there is no {kind}"))
}

fn pod(objects: &[Value]) -> &Value {
    &of_kind(objects, "DaemonSet")["spec"]["template"]
}

fn container(objects: &[Value]) -> &Value {
    &pod(objects)["spec"]["containers"][0]
}

#[test]
fn everything_is_valid_by_the_published_schemas() {
    each(|name, objects, _| {
        for object in objects {
            let result = schema::validate(object);
            assert_eq!(result, Ok(()), "{name}: {}", object["kind"]);
        }
    });
}

#[test]
fn a_field_that_is_not_in_the_schema_is_found() {
    let mut objects = kustomize::build(&folder("overlays/monitored"));
    for (kind, place, field) in [
        (
            "DaemonSet",
            "/spec/template/spec/containers/0",
            "readonlyRootFilesystem",
        ),
        (
            "DaemonSet",
            "/spec/template/spec/securityContext",
            "seccompProfil",
        ),
        ("NetworkPolicy", "/spec/ingress/0", "form"),
        (
            "PodMonitor",
            "/spec/podMetricsEndpoints/0/relabelings/0",
            "source",
        ),
    ] {
        let object = objects
            .iter_mut()
            .find(|object| object["kind"] == kind)
            .unwrap();
        let at = object.pointer_mut(place).unwrap();
        at[field] = json!("x");
        let error = schema::validate(object).unwrap_err();
        assert!(error.contains(field), "{error}");
        let at = object.pointer_mut(place).unwrap();
        at.as_object_mut().unwrap().remove(field);
        assert_eq!(schema::validate(object), Ok(()));
    }
    let daemon_set = objects
        .iter_mut()
        .find(|object| object["kind"] == "DaemonSet");
    let daemon_set = daemon_set.unwrap();
    daemon_set["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] =
        json!("x");
    assert!(schema::validate(daemon_set).is_err());
}

/// Runs only where kubectl is installed; the other tests use the result of [`kustomize::build`].
#[test]
fn kustomize_makes_the_same_of_it() {
    let sorted = |objects: &[Value]| {
        let mut texts: Vec<_> = objects.iter().map(Value::to_string).collect();
        texts.sort();
        texts
    };
    each(|name, objects, path| match by_kubectl(path) {
        Some(made) => assert_eq!(sorted(&made), sorted(objects), "{name}"),
        None => not_asked(&format!(
            "kubectl: there is none with components for {name}"
        )),
    });
}

#[test]
fn the_pod_has_the_capabilities_that_attaching_takes_and_nothing_else() {
    let needed = privileges::NEEDED.into_iter().map(|capability| {
        let name = capability.to_string();
        name.strip_prefix("CAP_").unwrap().to_owned()
    });
    let needed: BTreeSet<_> = needed.collect();
    each(|name, objects, _| {
        let context = &container(objects)["securityContext"];
        let added = list(&context["capabilities"], "add");
        let added: BTreeSet<_> = added
            .iter()
            .map(|name| name.as_str().unwrap().to_owned())
            .collect();
        assert_eq!(added, needed, "{name}");
        assert_eq!(context["capabilities"]["drop"], json!(["ALL"]), "{name}");
        assert_eq!(context["privileged"], false, "{name}");
        assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
        assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
        let spec = &pod(objects)["spec"];
        for host in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(spec[host].is_null(), "{name}: {host}");
        }
        assert_eq!(spec["automountServiceAccountToken"], false, "{name}");
    });
}

#[test]
fn the_base_mounts_only_the_cgroups_of_the_host_and_read_only() {
    let of_host = |objects: &[Value]| -> Vec<(String, bool)> {
        let volumes = list(&pod(objects)["spec"], "volumes");
        let mounts = list(container(objects), "volumeMounts");
        let mounted = |volume: &Value| {
            let path = volume["hostPath"]["path"].as_str()?.to_owned();
            let mount = mounts.iter().find(|mount| mount["name"] == volume["name"]);
            assert_eq!(mount.unwrap()["mountPath"], json!(path));
            Some((path, mount.unwrap()["readOnly"] == true))
        };
        volumes.iter().filter_map(mounted).collect()
    };
    each(|name, objects, _| {
        let mut expected = vec![("/sys/fs/cgroup".to_owned(), true)];
        match name {
            "persist" => expected.push(("/sys/fs/bpf".to_owned(), false)),
            "kprobe" => expected.push(("/sys/kernel/tracing".to_owned(), false)),
            _ => {}
        }
        assert_eq!(of_host(objects), expected, "{name}");
    });
}

#[test]
fn every_volume_is_mounted_and_every_mount_is_a_volume() {
    let names = |list: Vec<Value>| -> BTreeSet<String> {
        list.iter()
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect()
    };
    each(|name, objects, _| {
        let volumes = names(list(&pod(objects)["spec"], "volumes"));
        assert_eq!(
            volumes,
            names(list(container(objects), "volumeMounts")),
            "{name}"
        );
    });
}

#[test]
fn selectors_and_ports_match_the_pod() {
    each(|name, objects, _| {
        let selects = |selector: &Value| {
            let wanted = selector["matchLabels"].as_object().unwrap();
            let labels = pod(objects)["metadata"]["labels"].as_object().unwrap();
            wanted
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
        };
        let port = &container(objects)["ports"][0]["name"];
        for object in objects {
            let spec = &object["spec"];
            match object["kind"].as_str().unwrap() {
                "DaemonSet" => assert!(selects(&spec["selector"]), "{name}"),
                "NetworkPolicy" => {
                    assert!(selects(&spec["podSelector"]), "{name}");
                    assert_eq!(spec["ingress"][0]["ports"][0]["port"], *port, "{name}");
                }
                "PodMonitor" => {
                    assert!(selects(&spec["selector"]), "{name}");
                    assert_eq!(spec["podMetricsEndpoints"][0]["port"], *port, "{name}");
                }
                _ => {}
            }
        }
    });
}

/// The rules and dashboards sum by `unit`, and leave out `retired` by it.
#[test]
fn series_have_the_label_that_rules_and_dashboards_tell_units_by() {
    let objects = kustomize::build(&folder("overlays/monitored"));
    let settings = &of_kind(&objects, "ConfigMap")["data"]["lingerd.toml"];
    let monitor = of_kind(&objects, "PodMonitor");
    // Each sets what those before it left empty.
    let [pods, node] = &list(
        &monitor["spec"]["podMetricsEndpoints"][0],
        "metricRelabelings",
    )[..] else {
        panic!("{monitor}");
    };
    for relabeling in [pods, node] {
        assert_eq!(relabeling["targetLabel"], "unit");
    }
    assert_eq!(pods["sourceLabels"], json!(["unit", "pod"]));
    assert_eq!(pods["regex"], ";(.+)");
    assert_eq!(node["sourceLabels"], json!(["unit", "comm"]));
    assert_eq!(node["regex"], ";.+");
    assert_eq!(node["replacement"], "node");
    let labels = settings.as_str().unwrap();
    assert!(labels.contains("labels = [\"pod\", \"comm\"]"), "{labels}");
}

#[test]
fn everything_is_in_one_namespace() {
    each(|name, objects, _| {
        for object in objects
            .iter()
            .filter(|object| object["kind"] != "Namespace")
        {
            assert_eq!(
                object["metadata"]["namespace"], "linger",
                "{name}: {object}"
            );
        }
    });
}

#[test]
fn lingerd_takes_the_configuration_and_listens_at_the_port() {
    let objects = kustomize::build(&folder("base"));
    let text = of_kind(&objects, "ConfigMap")["data"]["lingerd.toml"]
        .as_str()
        .unwrap();
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    fs::write(file.path(), text).unwrap();
    let sources = Sources {
        file: Some(file.path().into()),
        ..Sources::default()
    };
    let effective = config::load(&sources).unwrap_or_else(|error| panic!("{error}"));
    let shown = serde_json::to_string_pretty(&effective.settings()).unwrap();
    let port = &container(&objects)["ports"][0]["containerPort"];
    assert!(shown.contains(&format!("0.0.0.0:{port}")), "{shown}");
}
