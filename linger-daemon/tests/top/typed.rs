//! Keys, and the screens that they lead to.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::LINGERD;
use crate::lingerd::{Lingerd, eventually, settings_of_none};
use crate::service::Service;

/// A terminal with a shell in tmux.
struct Terminal {
    folder: TempDir,
}

impl Terminal {
    fn new() -> Self {
        let terminal = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "80",
            "-y",
            "24",
            "bash --norc --noprofile",
        ]);
        terminal.tmux(&["set-option", "-g", "status", "off"]);
        // Wait for the prompt, without the echo of this line, which may come before the shell is ready.
        terminal.enter("PS1='ready%' ; clear");
        terminal.expect(|screen| screen.contains("ready%") && !screen.contains("PS1"));
        terminal
    }

    fn tmux(&self, words: &[&str]) -> String {
        let output = Command::new("tmux")
            .arg("-S")
            .arg(self.folder.path().join("socket"))
            .args(words)
            .env_remove("TMUX")
            .env("LC_ALL", "C.UTF-8")
            .env_remove("NO_COLOR")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tmux {words:?}: {told}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn enter(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        self.tmux(&["send-keys", "Enter"]);
    }

    /// Types keys by name, or letters.
    fn press(&self, keys: &[&str]) {
        let mut words = vec!["send-keys"];
        words.extend(keys);
        self.tmux(&words);
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until this holds of the screen. Returns the screen.
    fn expect(&self, holds: impl Fn(&str) -> bool) -> String {
        eventually(
            || Some(self.screen()).filter(|screen| holds(screen)),
            || format!("this is not expected:\n{}", self.screen()),
        )
    }

    /// Returns whether the shell's screen is back.
    fn is_restored(&self) -> bool {
        let flags = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        flags.trim() == "0 1"
    }

    /// Expects the shell to be back, in a terminal that echoes input.
    fn expect_shell(&self) {
        eventually(
            || self.is_restored().then_some(()),
            || "not restored".to_owned(),
        );
        self.enter("clear; stty -a | grep -oE -- '-?(icanon|echo|isig)\\b' | tr '\\n' ' '");
        self.expect(|screen| screen.contains("isig icanon echo ready%"));
    }

    /// Starts `lingerd top` with this configuration file and two readings a second.
    fn top(&self, settings: &Path, options: &str) {
        let settings = settings.display();
        self.enter(&format!(
            "clear; {LINGERD} top --config {settings} -d 0.5 {options}; echo ended $?"
        ));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux")
            .arg("-S")
            .arg(self.folder.path().join("socket"))
            .arg("kill-server")
            .output();
    }
}

/// Returns the words of the line with this name.
fn row<'a>(screen: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let line = screen.lines().find(|line| line.contains(name))?;
    Some(line.split_whitespace().collect())
}

/// Returns a unit's numbers of closes and aborts.
fn closes_and_aborts<'a>(screen: &'a str, unit: &str) -> Option<[&'a str; 2]> {
    let row = row(screen, unit)?;
    let numbers = row.len().checked_sub(6)?;
    Some([row[numbers], row[numbers + 1]])
}

/// Returns whether both are shown, one above the other.
fn stand_in_order(screen: &str, above: &str, below: &str) -> bool {
    let place = |name| screen.lines().position(|line| line.contains(name));
    matches!((place(above), place(below)), (Some(above), Some(below)) if above < below)
}

/// Returns the part of a unit's name that is visible at 80 columns.
fn seen(service: &Service) -> &str {
    &service.unit[..14]
}

#[test]
fn units_of_a_running_lingerd_are_shown_sorted_and_looked_into() {
    let lingerd = Lingerd::start(&[]);
    let [few, many] = [Service::new("a-few"), Service::new("b-many")];
    let terminal = Terminal::new();
    terminal.top(&lingerd.settings(), "--sort aborts");
    terminal.expect(|screen| screen.contains("plan ") && screen.contains("aborts/s"));
    few.close("linger_aborted_data", 2);
    many.close("linger_aborted_data", 7);
    let (few, many) = (seen(&few), seen(&many));

    // Totals, sorted by aborts: of the units alone, and exact. Both ends of each connection are closed, and then the
    // listener.
    terminal.press(&["t"]);
    terminal.expect(|screen| {
        screen.contains(" totals ")
            && stand_in_order(screen, many, few)
            && closes_and_aborts(screen, few) == Some(["5", "2"])
            && closes_and_aborts(screen, many) == Some(["15", "7"])
    });

    // By name, and in reverse.
    terminal.press(&["1"]);
    terminal.expect(|screen| stand_in_order(screen, few, many));
    terminal.press(&["r"]);
    terminal.expect(|screen| stand_in_order(screen, many, few));

    // One alone, and its details.
    terminal.press(&["/"]);
    terminal.tmux(&["send-keys", "-l", few]);
    terminal.press(&["Enter"]);
    terminal.expect(|screen| screen.contains("(1 of ") && !screen.contains(many));
    terminal.press(&["Enter"]);
    terminal.expect(|screen| {
        let outcome = row(screen, "linger_aborted ");
        outcome.is_some_and(|row| row[..2] == ["linger_aborted", "2"])
    });
    terminal.press(&["h", "Escape"]);
    terminal.expect(|screen| screen.contains(many));

    terminal.press(&["?"]);
    terminal.expect(|screen| screen.contains("any key goes back"));
    terminal.press(&["Space"]);
    terminal.expect(|screen| screen.contains(many) && !screen.contains("PAUSED"));
    terminal.press(&["Space"]);
    terminal.expect(|screen| screen.contains("PAUSED"));

    terminal.tmux(&["resize-window", "-x", "40", "-y", "10"]);
    terminal.expect(|screen| {
        let lines: Vec<_> = screen.lines().collect();
        lines.len() == 10 && lines[9].starts_with("q quit") && screen.contains(many)
    });
    terminal.press(&["q"]);
    terminal.expect(|screen| screen.contains("ended 0"));
    terminal.expect_shell();
}

#[test]
fn without_a_lingerd_probes_of_its_own_count_as_long_as_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::new("own");
    let terminal = Terminal::new();
    terminal.top(&settings_of_none(folder.path()), "");
    terminal.expect(|screen| screen.contains("own probes"));
    service.close("linger_aborted", 3);
    terminal.press(&["t"]);
    terminal.expect(|screen| closes_and_aborts(screen, seen(&service)) == Some(["7", "3"]));
    terminal.press(&["C-c"]);
    terminal.expect(|screen| screen.contains("ended 0"));
    terminal.expect_shell();
}

#[test]
fn the_shell_gets_its_terminal_back_when_top_is_stopped_goes_on_and_is_ended() {
    let lingerd = Lingerd::start(&[]);
    let terminal = Terminal::new();
    let is_shown = |screen: &str| screen.contains("plan ") && screen.contains("q quit");
    terminal.top(&lingerd.settings(), "");
    terminal.expect(is_shown);
    terminal.press(&["C-z"]);
    terminal.expect(|screen| screen.contains("Stopped"));
    terminal.expect_shell();
    terminal.enter("fg");
    terminal.expect(is_shown);
    terminal.press(&["?"]);
    terminal.expect(|screen| screen.contains("any key goes back"));
    terminal.press(&["q"]);
    terminal.expect_shell();

    // A signal from elsewhere.
    let (settings, file) = (lingerd.settings(), terminal.folder.path().join("pid"));
    let (settings, pid) = (settings.display(), file.display());
    terminal.enter(&format!(
        "sh -c 'echo $$ > {pid}; exec {LINGERD} top --config {settings}'"
    ));
    terminal.expect(is_shown);
    let pid = fs::read_to_string(&file).unwrap();
    let pid = Pid::from_raw(pid.trim().parse().unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    terminal.expect_shell();
}

#[test]
fn colours_are_left_out_with_no_color() {
    let lingerd = Lingerd::start(&[]);
    let terminal = Terminal::new();
    let settings = lingerd.settings();
    let service = Service::new("colour");
    service.close("linger_aborted", 3);
    for (environment, is_coloured) in [("", true), ("NO_COLOR=1", false)] {
        let settings = settings.display();
        terminal.enter(&format!(
            "clear; {environment} {LINGERD} top --config {settings} -d 0.5"
        ));
        terminal.expect(|screen| screen.contains("q quit"));
        terminal.press(&["t"]);
        // Only counts have colours, and there are none before the totals are shown.
        terminal.expect(|screen| closes_and_aborts(screen, seen(&service)) == Some(["7", "3"]));
        let styled = terminal.tmux(&["capture-pane", "-p", "-e"]);
        let colour = ["\u{1b}[3", "\u{1b}[9"].iter().any(|start| {
            let mut ends = styled
                .split(start)
                .skip(1)
                .filter_map(|rest| rest.chars().next());
            ends.any(|digit| ('0'..='8').contains(&digit))
        });
        assert_eq!(colour, is_coloured, "{styled:?}");
        terminal.press(&["q"]);
        terminal.expect_shell();
    }
}
