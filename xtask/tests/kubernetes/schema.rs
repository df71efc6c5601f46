//! The published schemas, as types made from them: of Kubernetes, and of the Prometheus operator.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kcr_monitoring_coreos_com::v1::podmonitors::PodMonitor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What is wrong with an object by the schema of its kind: a field that is missing, of a wrong type, or
/// that there is not.
pub(crate) fn validate(object: &Value) -> Result<(), String> {
    let kind = (object["apiVersion"].as_str(), object["kind"].as_str());
    match (kind.0.unwrap_or_default(), kind.1.unwrap_or_default()) {
        ("v1", "Namespace") => by_type::<Namespace>(object),
        ("v1", "ServiceAccount") => by_type::<ServiceAccount>(object),
        ("v1", "ConfigMap") => by_type::<ConfigMap>(object),
        ("apps/v1", "DaemonSet") => by_type::<DaemonSet>(object),
        ("networking.k8s.io/v1", "NetworkPolicy") => by_type::<NetworkPolicy>(object),
        ("monitoring.coreos.com/v1", "PodMonitor") => by_type::<PodMonitor>(object),
        kind => Err(format!("no schema for {kind:?}")),
    }
}

fn by_type<T: DeserializeOwned + Serialize>(object: &Value) -> Result<(), String> {
    let known: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    let known = serde_json::to_value(known).map_err(|error| error.to_string())?;
    contains(&known, object, "")
}

/// What the types do not know is not in what they write.
fn contains(known: &Value, object: &Value, place: &str) -> Result<(), String> {
    match (known, object) {
        (Value::Object(known), Value::Object(object)) => {
            object.iter().try_for_each(|(key, value)| {
                let place = format!("{place}/{key}");
                let is_empty = value.as_array().is_some_and(Vec::is_empty);
                match known.get(key) {
                    Some(known) => contains(known, value, &place),
                    None if is_empty => Ok(()),
                    None => Err(format!("unknown field {place}")),
                }
            })
        }
        (Value::Array(known), Value::Array(object)) if known.len() == object.len() => {
            let mut pairs = known.iter().zip(object).enumerate();
            pairs.try_for_each(|(index, (known, value))| {
                contains(known, value, &format!("{place}/{index}"))
            })
        }
        (known, object) if known == object => Ok(()),
        _ => Err(format!("{place} is read as {known}, not as {object}")),
    }
}
