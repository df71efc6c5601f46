//! The published schemas of Kubernetes and of the Prometheus operator.

use jsonschema::Validator;
use serde_json::Value;

/// Schemas by `apiVersion` and `kind`.
const SCHEMAS: [(&str, &str, &str); 6] = [
    ("v1", "Namespace", include_str!("schemas/namespace-v1.json")),
    (
        "v1",
        "ServiceAccount",
        include_str!("schemas/serviceaccount-v1.json"),
    ),
    ("v1", "ConfigMap", include_str!("schemas/configmap-v1.json")),
    (
        "apps/v1",
        "DaemonSet",
        include_str!("schemas/daemonset-apps-v1.json"),
    ),
    (
        "networking.k8s.io/v1",
        "NetworkPolicy",
        include_str!("schemas/networkpolicy-networking-v1.json"),
    ),
    (
        "monitoring.coreos.com/v1",
        "PodMonitor",
        include_str!("schemas/podmonitor-monitoring-v1.json"),
    ),
];

/// Checks an object against the schema of its kind. The error names each field that is missing, unknown or of a wrong
/// type.
pub(crate) fn validate(object: &Value) -> Result<(), String> {
    let (version, kind) = (&object["apiVersion"], &object["kind"]);
    let schema = SCHEMAS
        .iter()
        .find(|schema| version == schema.0 && kind == schema.1)
        .ok_or_else(|| format!("no schema for {version} {kind}"))?;
    let schema: Value = serde_json::from_str(schema.2).map_err(|error| error.to_string())?;
    let validator = Validator::new(&schema).map_err(|error| error.to_string())?;
    let errors: Vec<_> = validator
        .iter_errors(object)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors.join("; "))
    }
}
