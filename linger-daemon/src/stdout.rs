//! Output of the commands, and their messages.

use std::io::{self, ErrorKind, Write as _};

use serde::Serialize;

/// Prints to stdout. A closed pipe is not an error: its reader has read enough.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Prints a line to stderr. Unlike `eprintln!`, it does not panic if its reader is gone, as in `lingerd watch 2>&1 | head`.
pub fn print_message(message: &str) {
    // There is nobody to tell.
    let _ = io::stderr()
        .lock()
        .write_all(format!("{message}\n").as_bytes());
}

/// Prints a value as indented JSON.
pub fn print_json(value: &impl Serialize) -> io::Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}
