//! The file, key by key.

use std::collections::BTreeMap;

use hyper::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::Options;

use super::Mistake;

/// All that the file can say; unknown keys are mistakes.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) tls_server_config: Option<Tls>,
    pub(super) http_server_config: Option<Http>,
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
    pub(super) prefer_server_cipher_suites: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Http {
    /// Whether HTTP/2 may be spoken; it never is.
    #[serde(rename = "http2")]
    _allows_http2: Option<bool>,
    headers: Option<BTreeMap<String, String>>,
}

/// Reads the text of the file.
pub(super) fn parse(text: &str) -> Result<File, Mistake> {
    let file: Option<File> = serde_saphyr::from_str_with_options(text, options())
        .map_err(|error| Mistake::Yaml(one_line(&error.to_string())))?;
    let file = file.unwrap_or_default();
    if file.rate_limit.is_some() {
        return Err(Mistake::Unsupported {
            key: "rate_limit",
            found: "limiting the rate of requests".to_owned(),
            instead: "connections and their times are limited always: remove it",
        });
    }
    Ok(file)
}

/// Quotes nothing of the file, which has secrets, and lets no file of a few lines become large.
fn options() -> Options {
    serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_depth: 16,
            max_nodes: 10_000,
        },
    }
}

fn one_line(message: &str) -> String {
    let words: Vec<&str> = message.split_whitespace().collect();
    words.join(" ")
}

/// The headers that may be set, each with the values that it may have, and those in words: any if there
/// are none.
const HEADERS: &[(&str, &[&str], &str)] = &[
    ("Strict-Transport-Security", &[], ""),
    ("X-Content-Type-Options", &["nosniff"], "nosniff"),
    (
        "X-Frame-Options",
        &["deny", "sameorigin"],
        "deny or sameorigin",
    ),
    ("X-XSS-Protection", &[], ""),
    ("Content-Security-Policy", &[], ""),
];

impl Http {
    /// The headers of every answer.
    pub(super) fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, Mistake> {
        let headers = self.headers.iter().flatten();
        headers
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| header(name, value))
            .collect()
    }
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), Mistake> {
    let known = HEADERS.iter().find(|(known, ..)| *known == name);
    let Some((_, values, in_words)) = known else {
        return Err(Mistake::Value {
            key: "http_server_config: headers".to_owned(),
            found: name.to_owned(),
            expected: "one of Strict-Transport-Security, X-Content-Type-Options, \
                       X-Frame-Options, X-XSS-Protection, Content-Security-Policy",
        });
    };
    let wrong = |expected| Mistake::Value {
        key: format!("http_server_config: headers: {name}"),
        found: value.to_owned(),
        expected,
    };
    if !values.is_empty() && !values.contains(&value) {
        return Err(wrong(in_words));
    }
    let as_name = name.parse().map_err(|_| wrong("a header"))?;
    let as_value = value.parse().map_err(|_| wrong("printable text"))?;
    Ok((as_name, as_value))
}
