//! `lingerd config`: checks and shows the configuration.

use std::iter;

use serde::Serialize;

use super::{Effective, Invalid, Sources, load};
use crate::table::{self, Column};

/// Checks the configuration; fails with all problems found.
pub fn check(sources: &Sources) -> Result<String, Invalid> {
    let effective = load(sources)?;
    let path = sources.path().display();
    Ok(if effective.has_file {
        format!("{path}: ok\n")
    } else {
        format!("{path}: ok (there is none: all settings are defaults, or given by flags)\n")
    })
}

/// A setting in effect.
#[derive(Serialize)]
pub struct Setting {
    key: String,
    value: toml::Value,
    origin: String,
}

impl Effective {
    /// Returns every setting.
    #[must_use]
    pub fn settings(&self) -> Vec<Setting> {
        let settings = self.config.settings().into_iter();
        let settings = settings.map(|(key, value)| Setting {
            origin: self.origin(&key).to_string(),
            key,
            value,
        });
        settings.collect()
    }
}

/// Formats every setting with its value and its origin as a table.
#[must_use]
pub fn table(effective: &Effective) -> String {
    let head = ["key", "value", "origin"].map(str::to_owned);
    let settings = effective.settings().into_iter();
    let rows = settings.map(|setting| [setting.key, setting.value.to_string(), setting.origin]);
    let rows: Vec<_> = iter::once(head).chain(rows).collect();
    table::table(&[Column::Left(0); 3], &rows)
}
