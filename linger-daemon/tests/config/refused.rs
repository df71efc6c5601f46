//! Mistakes, and the line that reports each.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;

use linger_daemon::config::{self, Sources};
use nix::unistd::geteuid;
use proptest::prelude::*;

use crate::fixture::{Dir, load};

/// Files with one mistake each, and its exact message.
const MISTAKES: &[(&str, &str)] = &[
    // Keys.
    (
        "\nmax-grops = 5",
        "2: max-grops: unknown key, did you mean max-groups?",
    ),
    (
        "max_groups = 5",
        "1: max_groups: unknown key, did you mean max-groups?",
    ),
    (
        "[allow]\nunit = []",
        "2: allow.unit: unknown key, did you mean allow.units?",
    ),
    (
        "[allow]\nsomething = []",
        "2: allow.something: unknown key, expected one of allow.units, allow.comms, allow.ports",
    ),
    (
        "[deny]\nplan = \"auto\"",
        "2: deny.plan: unknown key, plan belongs above the first line in [ ]",
    ),
    ("[denny]", "1: denny: unknown key, did you mean deny?"),
    (
        "\"allow.units\" = []",
        "1: \"allow.units\": unknown key, did you mean allow.units?",
    ),
    (
        "\"a\\nb\" = 1",
        "1: \"a\\nb\": unknown key, expected one of listen, web-config-file, live, plan, persist, pins, log-level, labels, ports, \
         max-groups, max-series, retire-after, max-orphans, orphan-ttl, allow.units, allow.comms, allow.ports, \
         deny.units, deny.comms, deny.ports",
    ),
    // Types.
    (
        "max-groups = \"4096\"",
        "1: max-groups: found \"4096\", expected a whole number from 1 to 65536",
    ),
    (
        "max-series = 1e5",
        "1: max-series: found 1e5, expected a whole number from 1000 to 4294967295",
    ),
    (
        "live = \"yes\"",
        "1: live: found \"yes\", expected true, false or \"loopback\"",
    ),
    (
        "max-orphans = true",
        "1: max-orphans: found true, expected a whole number from 1 to 4194304",
    ),
    (
        "web-config-file = 1979-05-27",
        "1: web-config-file: found 1979-05-27, expected the path of a file",
    ),
    (
        "labels = \"unit\"",
        "1: labels: found \"unit\", expected a list in [ ]",
    ),
    (
        "listen.port = 1",
        "1: listen: found a table, expected an address with its port such as 127.0.0.1:10546 or \
         [::]:10546, unix: and the path of a socket, or a list of these",
    ),
    (
        "plan = [\"auto\"]",
        "1: plan: found a list, expected one of auto, fentry, kprobe, tracepoint",
    ),
    (
        "allow = [\"a.service\"]",
        "1: allow: found a list, expected a table with units, comms, ports",
    ),
    // Values.
    (
        "listen = \"localhost:80\"",
        "1: listen: found \"localhost:80\", expected an address with its port such as \
         127.0.0.1:10546 or [::]:10546, unix: and the path of a socket, or a list of these",
    ),
    (
        "listen = [\n  \"127.0.0.1:1\",\n  \"unix:lingerd.sock\",\n]",
        "3: listen: found \"unix:lingerd.sock\", expected an address with its port such as \
         127.0.0.1:10546 or [::]:10546, unix: and the path of a socket, or a list of these",
    ),
    (
        "listen = []",
        "1: listen: found an empty list, expected an address with its port such as \
         127.0.0.1:10546 or [::]:10546, unix: and the path of a socket, or a list of these",
    ),
    (
        "plan = \"Fentry\"",
        "1: plan: found \"Fentry\", expected one of auto, fentry, kprobe, tracepoint",
    ),
    (
        "log-level = \"degub\"",
        "1: log-level: found \"degub\", expected a level (error, warn, info, debug or trace), or \
         levels by module as in info,linger_daemon::http=debug",
    ),
    (
        "labels = [\n  \"unit\",\n  \"pid\",\n]",
        "3: labels: found \"pid\", expected one of unit, slice, container, pod, comm, exe, port, \
         family",
    ),
    (
        "max-groups = 65537",
        "1: max-groups: found 65537, expected a whole number from 1 to 65536",
    ),
    (
        "max-groups = -1",
        "1: max-groups: found -1, expected a whole number from 1 to 65536",
    ),
    (
        "max-series = 999",
        "1: max-series: found 999, expected a whole number from 1000 to 4294967295",
    ),
    (
        "max-orphans = 0x1_0000_0000_0000_0000",
        "1: max-orphans: found 0x10000000000000000, expected a whole number from 1 to 4194304",
    ),
    (
        "retire-after = \"999ms\"",
        "1: retire-after: found \"999ms\", expected at least 1s: a number of seconds such as 90, \
         or a time such as \"1h 30m\"",
    ),
    (
        "orphan-ttl = 0",
        "1: orphan-ttl: found 0, expected at least 1s: a number of seconds such as 90, or a \
         time such as \"1h 30m\"",
    ),
    (
        "[allow]\nunits = [\"app-[0-9].service\"]",
        "2: allow.units: found \"app-[0-9].service\", expected a unit or the path of a cgroup, in \
         which * stands for any text and ? for one character, without any of [ ] { }",
    ),
    (
        "[deny]\ncomms = [\"kube-controller-manager\"]",
        "2: deny.comms: found \"kube-controller-manager\", expected the name of a process, of 1 to \
         15 bytes",
    ),
    (
        "[deny]\nports = [\"90-80\"]",
        "2: deny.ports: found \"90-80\", expected a port from 1 to 65535, or several in a row such \
         as \"8000-8099\"",
    ),
    (
        "[deny]\nports = [65536]",
        "2: deny.ports: found 65536, expected a port from 1 to 65535, or several in a row such as \
         \"8000-8099\"",
    ),
    // Duplicate entries.
    (
        "labels = [\"comm\", \"unit\", \"comm\"]",
        "1: labels: found \"comm\" again, expected it once",
    ),
    (
        "[allow]\nports = [80, \"80-80\"]",
        "2: allow.ports: found \"80-80\" again, expected it once",
    ),
    // Contradictions.
    (
        "labels = [\"port\"]",
        "1: labels: port has no effect without ports, expected the ports to distinguish in ports",
    ),
    (
        "ports = [443]",
        "1: ports: no effect without the label port, expected port among labels",
    ),
    (
        "max-groups = 3000\nmax-series = 2999",
        "2: max-series: found 2999, expected at least max-groups: 3000",
    ),
    (
        "[allow]\nunits = [\"a.service\", \"b-*\"]\n[deny]\nunits = [\"b-*\"]",
        "4: deny.units: \"b-*\" is both allowed and denied, expected it in one of the two",
    ),
    (
        "deny.comms = [\"sshd\"]\nallow.comms = [\"sshd\"]",
        "1: deny.comms: \"sshd\" is both allowed and denied, expected it in one of the two",
    ),
    (
        "[allow]\nports = [\"1-100\"]\n[deny]\nports = [\"90-200\"]",
        "4: deny.ports: \"90-100\" is both allowed and denied, expected it in one of the two",
    ),
    // Not TOML.
    (
        "\nlisten 1",
        "2: invalid TOML: key with no value, expected `=`",
    ),
    (
        "plan = auto",
        "1: invalid TOML: string values must be quoted, expected literal string",
    ),
    (
        "plan = \"auto\"\nplan = \"auto\"",
        "2: invalid TOML: duplicate key",
    ),
];

#[test]
fn every_mistake_is_answered_with_its_line() {
    for (text, answer) in MISTAKES {
        let expected = format!("lingerd.toml:{answer}");
        assert_eq!(load(text).unwrap_err(), [expected], "{text}");
    }
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_lines() {
    let text = "plan = 1\nmax-groups = 0\n[deny]\nunits = [\"\", \"a\", \"a\"]\n[zzz]\n";
    let lines = load(text).unwrap_err();
    let places: Vec<_> = lines
        .iter()
        .map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        places,
        [
            "lingerd.toml:1: plan:",
            "lingerd.toml:2: max-groups:",
            "lingerd.toml:4: deny.units:",
            "lingerd.toml:4: deny.units:",
            "lingerd.toml:5: zzz:",
        ]
    );
}

#[test]
fn too_many_process_names_are_refused() {
    let names = |first: usize, count| -> Vec<String> {
        let names = first..first + count;
        names.map(|name| name.to_string()).collect()
    };
    let text = |allowed, denied| {
        let (allow, deny) = (names(0, allowed), names(5000, denied));
        format!("[allow]\ncomms = {allow:?}\n[deny]\ncomms = {deny:?}\n")
    };
    assert!(load(text(1000, 24)).is_ok());
    for (allowed, denied, line) in [
        (1000, 25, "2: allow.comms: found 1025 names with deny.comms"),
        (0, 1025, "4: deny.comms: found 1025 names with allow.comms"),
    ] {
        let expected = format!("lingerd.toml:{line}, expected at most 1024");
        assert_eq!(load(text(allowed, denied)).unwrap_err(), [expected]);
    }
}

#[test]
fn unsupported_patterns_are_refused() {
    // With the escapes of TOML: what it cannot read would be refused for that.
    let refuses = |text: &str| load(format!("allow.units = [\"{text}\"]")).is_err();
    for text in ["", "{a,b}.service", r"a\nb", r"\u007f", &"a".repeat(4097)] {
        assert!(refuses(text), "{text:?}");
    }
    assert!(!refuses(r"/system.slice/dev-disk\\x2duuid.swap"));
}

#[test]
fn misspelt_levels_are_refused() {
    for text in ["", "info,wran", "linger_daemon=loud", "a=b=c"] {
        assert!(load(format!("log-level = {text:?}")).is_err(), "{text}");
    }
}

#[test]
fn a_value_that_is_wrong_contradicts_nothing() {
    let lines = load("labels = [\"port\"]\nports = [\"http\"]").unwrap_err();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("lingerd.toml:2: ports: found \"http\""));
}

#[test]
fn a_file_that_cannot_be_read_contradicts_nothing() {
    for bytes in ["labels = [\"port\"", "plan = auto"] {
        let dir = Dir::with(bytes);
        let lines = dir.load(&dir.told(&["--ports", "443"])).unwrap_err();
        let [line] = lines.as_slice() else {
            panic!("{lines:?}");
        };
        assert!(line.starts_with("lingerd.toml:1: invalid TOML: "), "{line}");
    }
}

#[test]
fn mistakes_in_flags_are_told_by_the_flag() {
    for (arguments, answer) in [
        (
            &["--max-groups", "many"][..],
            "--max-groups: found \"many\", expected a whole number from 1 to 65536",
        ),
        (
            &["--labels", "unit,,comm"],
            "--labels: found \"\", expected one of unit, slice, container, pod, comm, exe, port, \
             family",
        ),
        (
            &["--deny-comm", "a,b", "--deny-comm", "a"],
            "--deny-comm: found \"a\" again, expected it once",
        ),
        (
            &["--ports", "443"],
            "--ports: no effect without the label port, expected port among labels",
        ),
        (
            &["--log-level", "loud"],
            "--log-level: found \"loud\", expected a level (error, warn, info, debug or trace), or \
             levels by module as in info,linger_daemon::http=debug",
        ),
    ] {
        let error = config::load(&Dir::with("").told(arguments)).unwrap_err();
        assert_eq!(error.to_string(), answer);
    }
}

#[test]
fn mistakes_in_the_environment_are_told_by_the_variable() {
    for (bytes, found) in [(&b"loud"[..], "\"loud\""), (b"\xff", "what is not UTF-8")] {
        let environment = Some(OsString::from_vec(bytes.to_vec()));
        let dir = Dir::with("");
        let sources = Sources {
            environment,
            ..dir.sources()
        };
        let answer = format!("$LINGER_LOG: found {found}, expected a level");
        for error in [
            config::load(&sources).unwrap_err(),
            config::log_level(&sources).unwrap_err(),
        ] {
            assert!(error.to_string().starts_with(&answer), "{error}");
        }
    }
}

#[test]
fn files_that_cannot_be_settings_are_refused_as_a_whole() {
    let refused = |bytes: &[u8]| load(bytes).unwrap_err();
    assert_eq!(
        refused(b"plan = \"auto\"\n# \xff"),
        ["lingerd.toml: is not UTF-8 in line 2, expected text"]
    );
    let mut large = vec![b'#'; 1 << 20];
    assert!(load(&large).is_ok());
    large.push(b'#');
    assert_eq!(
        refused(&large),
        ["lingerd.toml: is larger than 1 MiB, expected a few lines of text"]
    );
    let dir = Dir::with("");
    let absent = Sources {
        file: Some(dir.file().with_file_name("absent.toml")),
        ..dir.sources()
    };
    assert_eq!(
        dir.load(&absent).unwrap_err(),
        ["absent.toml: cannot be read: No such file or directory (os error 2)"]
    );
    fs::remove_file(dir.file()).unwrap();
    fs::create_dir(dir.file()).unwrap();
    assert_eq!(
        dir.load(&dir.sources()).unwrap_err(),
        ["lingerd.toml: is not a regular file, expected one of text"]
    );
}

#[test]
fn root_takes_no_settings_from_everyone() {
    let dir = Dir::with("plan = \"auto\"");
    fs::set_permissions(dir.file(), Permissions::from_mode(0o646)).unwrap();
    let loaded = dir.load(&dir.sources());
    if geteuid().is_root() {
        assert_eq!(
            loaded.unwrap_err(),
            [
                "lingerd.toml: is writable by everyone, expected only by its owner: `chmod o-w` it, and \
                 check who changed it"
            ]
        );
    } else {
        assert!(loaded.is_ok());
    }
    fs::set_permissions(dir.file(), Permissions::from_mode(0o664)).unwrap();
    assert!(dir.load(&dir.sources()).is_ok());
}

/// Loads it without a panic; every problem has its own line, which begins with its place.
fn expect_an_answer(bytes: &[u8]) {
    if let Err(lines) = load(bytes) {
        assert!(!lines.is_empty());
        for line in lines {
            assert!(line.starts_with("lingerd.toml:"), "{line:?}");
            assert!(!line.contains(char::is_control), "{line:?}");
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        expect_an_answer(&bytes);
    }

    #[test]
    fn any_text_of_the_words_of_a_file_is_answered(
        words in proptest::collection::vec(
            prop_oneof![
                "(listen|plan|labels|ports|max-groups|max-series|orphan-ttl|allow|deny|units|\\PC)",
                "[=\\[\\]{}.,\"'#\n \\\\-]",
                "\"\\PC*\"",
                "-?[0-9]{1,20}",
            ],
            0..40,
        ),
    ) {
        expect_an_answer(words.concat().as_bytes());
    }

    #[test]
    fn any_word_for_any_flag_is_answered(flag in 0..config::keys().len(), word in "\\PC*") {
        let flag = config::flag(&config::keys()[flag]);
        let dir = Dir::with("");
        if let Err(invalid) = config::load(&dir.told(&[&format!("{flag}={word}")])) {
            for line in invalid.to_string().lines() {
                prop_assert!(line.starts_with(&format!("{flag}: ")), "{line}");
            }
        }
    }
}
