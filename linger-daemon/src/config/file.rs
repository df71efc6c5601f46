//! Reads files of settings as text.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::libc::O_NONBLOCK;
use nix::unistd::geteuid;
use thiserror::Error;

/// Maximum size of the file, bytes.
const LARGEST: u64 = 1 << 20;

/// A reason why a file cannot be used.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// A directory, a pipe, a device.
    #[error("is not a regular file, expected one of text")]
    NotAFile,
    /// Any user could control a daemon that runs as root.
    #[error(
        "is writable by everyone, expected only by its owner: `chmod o-w` it, and check who changed it"
    )]
    WorldWritable,
    /// Larger than any file written by hand.
    #[error("is larger than 1 MiB, expected a few lines of text")]
    TooLarge,
    /// Not UTF-8 in this line, from 1.
    #[error("is not UTF-8 in line {0}, expected text")]
    NotUtf8(usize),
}

/// Reads a file of settings as text.
pub(crate) fn text(path: &Path) -> Result<String, FileError> {
    const WRITABLE_BY_OTHERS: u32 = 0o002;
    // Do not block on a pipe without a writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(path)?;
    // Once it is open, it can no longer be replaced.
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(FileError::NotAFile);
    }
    if geteuid().is_root() && metadata.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(FileError::WorldWritable);
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(FileError::TooLarge);
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        FileError::NotUtf8(valid.split(|byte| *byte == b'\n').count())
    })
}
