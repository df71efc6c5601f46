//! Who may read `/live.json`, which shows processes and addresses.

use std::fmt;
use std::str::FromStr;

/// Who may read `/live.json` without a password or a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Nobody, not even with them.
    No,
    /// Clients on this host that address it by IP address or by its own name.
    #[default]
    Loopback,
    /// Everyone.
    Yes,
}

impl Access {
    /// The value in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::No => "false",
            Self::Loopback => "loopback",
            Self::Yes => "true",
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Access {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let all = [Self::No, Self::Loopback, Self::Yes];
        all.into_iter()
            .find(|access| access.name() == text)
            .ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for access in [Access::No, Access::Loopback, Access::Yes] {
            assert_eq!(access.to_string().parse(), Ok(access));
        }
        assert_eq!("yes".parse::<Access>(), Err(()));
    }
}
