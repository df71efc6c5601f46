//! The manual page of the settings, made of the annotated file of defaults.

use clap_mangen::roff::{Inline, Roff, bold, roman};

/// Makes the page of a file in which each key stands commented out, with its default, below the
/// comment that explains it; likewise each table.
pub(crate) fn page(file: &str) -> String {
    let mut blocks = file.split("\n\n");
    let mut page = Roff::new();
    page.control("TH", ["lingerd.toml", "5", "", "lingerd", "File formats"]);
    heading(&mut page, "NAME");
    page.text([roman("lingerd.toml - settings of lingerd(1)")]);
    heading(&mut page, "SYNOPSIS");
    page.text([roman("/etc/linger/lingerd.toml")]);
    heading(&mut page, "DESCRIPTION");
    page.text([roman(prose(blocks.next().unwrap_or_default()))]);
    heading(&mut page, "KEYS");
    let mut table = String::new();
    for block in blocks {
        let (text, setting) = split(block);
        let name = setting.trim_start_matches('#');
        if name.starts_with('[') {
            table = format!("{}.", name.trim_matches(['[', ']']));
        }
        // What takes effect in the file as it is shipped is no default.
        let who = if name == setting {
            "as shipped"
        } else {
            "default"
        };
        let title: Vec<Inline> = match name.split_once(" = ") {
            Some((key, value)) => vec![
                bold(format!("{table}{key}")),
                roman(format!(" ({who}: {value})")),
            ],
            None => vec![bold(name)],
        };
        page.control("TP", []);
        page.text(title);
        page.text([roman(text)]);
    }
    heading(&mut page, "SEE ALSO");
    page.text([
        bold("lingerd"),
        roman("(1), "),
        bold("lingerd-config-check"),
        roman("(1)"),
    ]);
    page.to_roff()
}

fn heading(page: &mut Roff, name: &str) {
    page.control("SH", [name]);
}

/// What explains a key, and the line that has it.
fn split(block: &str) -> (String, &str) {
    let block = block.trim_end();
    let (text, setting) = block.rsplit_once('\n').unwrap_or(("", block));
    (prose(text), setting)
}

/// The text of comments, as one paragraph.
fn prose(comments: &str) -> String {
    let lines = comments.lines();
    let words: Vec<_> = lines
        .map(|line| line.trim_start_matches('#').trim())
        .collect();
    words.join(" ")
}
