//! The command of a Prometheus, and queries to its API.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::http;
use crate::tools::tool;

/// Returns the command of a Prometheus with these settings that listens at `address` and keeps its data in `folder`.
///
/// # Errors
///
/// If the folder cannot be written to.
pub fn command(folder: &Path, settings: &Value, address: SocketAddr) -> Result<Command> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let file = folder.join("prometheus.yml");
    // JSON is valid YAML.
    fs::write(&file, format!("{settings:#}\n"))?;
    let data = folder.join("data");
    let mut command = Command::new(tool("prometheus"));
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", data.display()))
        .arg(format!("--web.listen-address={address}"))
        .arg("--log.level=warn");
    Ok(command)
}

/// Gets a path of its API with parameters, for instance `query`; returns the data of the answer.
///
/// # Errors
///
/// If it does not answer, or answers with an error.
pub fn ask(address: SocketAddr, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
    let parameters: Vec<_> = parameters
        .iter()
        .map(|(name, value)| format!("{name}={}", encoded(value)))
        .collect();
    let (_, body) = http::get(address, &format!("/api/v1/{path}?{}", parameters.join("&")))?;
    data(&body)
}

/// Returns the data in an answer of its API.
///
/// # Errors
///
/// If the answer is an error.
pub fn data(answer: &str) -> Result<Value> {
    let mut parsed: Value =
        serde_json::from_str(answer).with_context(|| format!("prometheus answers {answer}"))?;
    match parsed["status"].as_str() {
        Some("success") => Ok(parsed["data"].take()),
        _ => bail!("{answer}"),
    }
}

/// Percent-encodes a value for the query of a URL.
fn encoded(value: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    value.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_byte_by_byte() {
        assert_eq!(encoded("a{b=\"ü\"}"), "a%7Bb%3D%22%C3%BC%22%7D");
    }

    #[test]
    fn an_error_is_reported() {
        assert_eq!(data(r#"{"status":"success","data":1}"#).unwrap(), 1);
        let error = data(r#"{"status":"error","error":"no"}"#).unwrap_err();
        assert!(error.to_string().contains("no"));
    }
}
