//! A Prometheus: its command, and what it answers.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::http;
use crate::tools::tool;

/// The command of one with these settings, which listens there and keeps all in a folder.
///
/// # Errors
///
/// The folder cannot be written to.
pub fn command(folder: &Path, settings: &Value, address: SocketAddr) -> Result<Command> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let file = folder.join("prometheus.yml");
    // What is JSON is YAML.
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

/// What its API answers this path with parameters, `query` for instance: the data.
///
/// # Errors
///
/// It does not answer, or with an error, which is told.
pub fn ask(address: SocketAddr, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
    let parameters: Vec<_> = parameters
        .iter()
        .map(|(name, value)| format!("{name}={}", encoded(value)))
        .collect();
    let (_, body) = http::get(address, &format!("/api/v1/{path}?{}", parameters.join("&")))?;
    data(&body)
}

/// The data in an answer of its API.
///
/// # Errors
///
/// It is an error.
pub fn data(answer: &str) -> Result<Value> {
    let mut parsed: Value =
        serde_json::from_str(answer).with_context(|| format!("prometheus answers {answer}"))?;
    match parsed["status"].as_str() {
        Some("success") => Ok(parsed["data"].take()),
        _ => bail!("{answer}"),
    }
}

/// A value as it stands in the query of an address.
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
    fn an_error_is_told() {
        assert_eq!(data(r#"{"status":"success","data":1}"#).unwrap(), 1);
        let error = data(r#"{"status":"error","error":"no"}"#).unwrap_err();
        assert!(error.to_string().contains("no"));
    }
}
