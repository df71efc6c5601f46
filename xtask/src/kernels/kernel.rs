//! A kernel to boot: of the table, or of any file.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{Entry, TABLE, release};
use crate::architecture::Architecture;

/// A kernel to boot.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its name, for instance `6.1`.
    pub label: String,
    /// Its line in the table, if it has one.
    pub entry: Option<&'static Entry>,
    /// The bootable image.
    pub image: PathBuf,
    /// Its folder of modules, which has a `modules.dep`, if there is one.
    pub modules: Option<PathBuf>,
    /// Parameters added to its command line.
    pub parameters: String,
    /// The architecture that it is built for.
    pub architecture: Architecture,
}

impl Kernel {
    /// Returns the kernel with this label in the table, which must be unpacked.
    pub fn of_label(label: &str) -> Result<Self> {
        let entry = Entry::of(label).with_context(|| {
            let labels: Vec<_> = TABLE.iter().map(|entry| entry.label).collect();
            format!("there is no kernel {label}: {}", labels.join(", "))
        })?;
        let package = entry.unpacked().with_context(|| {
            let purpose = entry.architecture.purpose();
            format!("no kernel {label}: run `cargo xtask setup --for {purpose}`")
        })?;
        let name = package.file_name().unwrap_or_default().to_string_lossy();
        let release = release(&name);
        let places = [
            format!("boot/vmlinuz-{release}"),
            format!("lib/modules/{release}/vmlinuz"),
        ];
        let mut images = places.iter().map(|place| package.join(place));
        let image = images
            .find(|image| image.is_file())
            .with_context(|| format!("{} has no vmlinuz", package.display()))?;
        Ok(Self {
            label: label.to_owned(),
            entry: Some(entry),
            image,
            // Old kernels lack some of the modules that tests need.
            modules: (!entry.is_refused).then(|| package.join("lib/modules").join(release)),
            parameters: entry.parameters.to_owned(),
            architecture: entry.architecture,
        })
    }

    /// Returns its release, from the name of its folder of modules; without one, its label.
    pub fn release(&self) -> String {
        let modules = self.modules.as_ref().and_then(|folder| folder.file_name());
        modules.map_or_else(
            || self.label.clone(),
            |release| release.to_string_lossy().into_owned(),
        )
    }

    /// Adds parameters to its command line. It loses its line of the table, since the expected results no longer apply.
    pub fn with_parameters(self, parameters: &str) -> Self {
        if parameters.is_empty() {
            return self;
        }
        Self {
            entry: None,
            parameters: format!("{} {parameters}", self.parameters),
            ..self
        }
    }

    /// Returns the kernel in a file `…/boot/vmlinuz-VERSION` or `…/lib/modules/VERSION/vmlinuz`, with the modules in
    /// `…/lib/modules/VERSION` if that exists.
    pub fn of_image(image: &Path) -> Result<Self> {
        let image = image
            .canonicalize()
            .with_context(|| format!("the kernel {}", image.display()))?;
        let name = image.file_name().unwrap_or_default().to_string_lossy();
        let folder = image.parent().unwrap_or(Path::new("/"));
        let modules = match name.strip_prefix("vmlinuz-") {
            Some(version) => folder.join("../lib/modules").join(version),
            // Beside its modules, where Debian puts it since 7.2.
            None => folder.to_owned(),
        };
        let modules = modules
            .canonicalize()
            .ok()
            .filter(|folder| folder.join("modules.dep").is_file());
        let version = modules.as_deref().and_then(Path::file_name);
        let version = version.map(|version| version.to_string_lossy().into_owned());
        let label = version.unwrap_or_else(|| name.trim_start_matches("vmlinuz-").to_owned());
        // The names of Debian's releases end with the architecture.
        let is_arm64 = label.ends_with(Architecture::Arm64.debian());
        Ok(Self {
            label,
            entry: None,
            image,
            modules,
            parameters: String::new(),
            architecture: if is_arm64 {
                Architecture::Arm64
            } else {
                Architecture::Amd64
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn modules_of_an_image_are_found_beside_its_boot_folder_and_in_its_own() {
        let package = tempfile::tempdir().unwrap();
        let modules = package.path().join("lib/modules/6.6.1");
        let image = package.path().join("boot/vmlinuz-6.6.1");
        fs::create_dir_all(&modules).unwrap();
        fs::create_dir_all(package.path().join("boot")).unwrap();
        fs::write(&image, "").unwrap();
        assert_eq!(Kernel::of_image(&image).unwrap().modules, None);

        fs::write(modules.join("modules.dep"), "").unwrap();
        let within = modules.join("vmlinuz");
        fs::write(&within, "").unwrap();
        for image in [image, within] {
            let kernel = Kernel::of_image(&image).unwrap();
            assert_eq!(kernel.label, "6.6.1");
            assert_eq!(kernel.modules, Some(modules.canonicalize().unwrap()));
        }
    }
}
