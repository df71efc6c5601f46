//! Parses the web configuration file.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Mistake;

/// All keys of the file; unknown ones are mistakes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) tls_server_config: Option<Tls>,
    http_server_config: Option<Http>,
    pub(super) basic_auth_users: Option<BTreeMap<String, String>>,
    rate_limit: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Tls {
    pub(super) cert: String,
    pub(super) key: String,
    pub(super) client_ca: String,
    pub(super) cert_file: String,
    pub(super) key_file: String,
    pub(super) client_ca_file: String,
    pub(super) client_auth_type: String,
    pub(super) client_allowed_sans: Option<Vec<String>>,
    pub(super) min_version: Option<String>,
    pub(super) max_version: Option<String>,
    pub(super) cipher_suites: Option<Vec<String>>,
    pub(super) curve_preferences: Option<Vec<String>>,
    /// Ignored, as Go does.
    #[serde(rename = "prefer_server_cipher_suites")]
    _prefers_own_order: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Http {
    /// Permits HTTP/2, which is not supported.
    #[serde(rename = "http2")]
    _allows_http2: Option<bool>,
    headers: Option<BTreeMap<String, String>>,
}

pub(super) fn parse(text: &str) -> Result<File, Mistake> {
    // Quote nothing of the file, which has secrets, in errors, and keep it from expanding into a large document.
    let options = serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_depth: 16,
            max_nodes: 10_000,
        },
    };
    let file = serde_saphyr::from_str_with_options::<Option<File>>(text, options);
    let file = file.map_err(|error| {
        let message = error.to_string();
        let words: Vec<&str> = message.split_whitespace().collect();
        Mistake::Yaml(words.join(" "))
    })?;
    let file = file.unwrap_or_default();
    if file.rate_limit.is_some() {
        return Err(Mistake::Unsupported {
            key: "rate_limit",
            found: "limiting the rate of requests".to_owned(),
            instead: "connections and their times are limited always: remove it",
        });
    }
    let http = file.http_server_config.as_ref();
    let headers = http.and_then(|http| http.headers.as_ref());
    // Headers without a value do not count.
    let header = headers.and_then(|all| all.iter().find(|(_, value)| !value.is_empty()));
    if let Some((name, _)) = header {
        return Err(Mistake::Unsupported {
            key: "http_server_config: headers",
            found: name.clone(),
            instead: "lingerd sets the headers that its answers need: remove it",
        });
    }
    Ok(file)
}
