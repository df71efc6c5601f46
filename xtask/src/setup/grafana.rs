//! Grafana's types of a dashboard, for Python: of the oldest Grafana that there are any of, and of the newest.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use super::{cached_tool, link_tool};
use crate::cache;
use crate::shell::{command, run, tools};

/// The package on `PyPI`, and the module in it.
const PACKAGE: &str = "grafana-foundation-sdk";
const MODULE: &str = "grafana_foundation_sdk";

/// Where tests look, and which version that is.
const VERSIONS: [(&str, &str); 2] = [
    ("grafana-sdk-oldest", "1769699998!10.1.0"),
    ("grafana-sdk-newest", "1769699241"),
];

/// Where the cache has a version.
fn folder(version: &str) -> PathBuf {
    cached_tool(PACKAGE, version)
}

/// Whether all are where tests look.
pub(super) fn is_present() -> bool {
    VERSIONS.iter().all(|(name, version)| {
        let link = tools().join(name);
        let is_other = fs::read_link(&link).is_ok_and(|place| place != folder(version));
        link.join(MODULE).is_dir() && !is_other
    })
}

/// Takes them from `PyPI`, 0.3 MB each, into the cache.
pub(super) fn install() -> Result<()> {
    for (name, version) in VERSIONS {
        let folder = folder(version);
        if !folder.is_dir() {
            let partial = cache::partial(&cache::folder().join("tools"), PACKAGE)?;
            run(command("python3")
                .args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
                .arg(&partial)
                .arg(format!("{PACKAGE}=={version}"))
                .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
                .env("PIP_ROOT_USER_ACTION", "ignore"))?;
            fs::rename(&partial, &folder)?;
        }
        link_tool(name, &folder)?;
    }
    Ok(())
}
