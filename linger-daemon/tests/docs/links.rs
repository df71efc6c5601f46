//! Links of the pages, which must work on GitHub and in the book.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::package;

/// Prefix of the book's links to files outside it.
const REPOSITORY: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/");

fn root() -> PathBuf {
    package().join("..").canonicalize().unwrap()
}

fn docs() -> PathBuf {
    root().join("docs")
}

/// Returns all pages in a folder and its subfolders.
fn pages_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| match path.extension() {
            _ if path.is_dir() => pages_in(&path),
            Some(extension) if extension == "md" => vec![path],
            _ => Vec::new(),
        })
        .collect()
}

/// Returns the text without code blocks, which may look like links or headings.
fn prose(page: &Path) -> String {
    let text = fs::read_to_string(page).unwrap();
    let blocks = text.split("\n```").step_by(2);
    blocks.collect::<Vec<_>>().join("\n")
}

/// Returns the targets of a page's links.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let rest = text.split("](").skip(1);
    rest.filter_map(|rest| rest.split(')').next())
}

/// Returns the anchors of a page's headings.
fn headings(text: &str) -> impl Iterator<Item = String> {
    let headings = text.lines().filter_map(|line| line.strip_prefix('#'));
    headings.map(|line| {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        let kept = words
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

/// Returns the file and the heading that a link leads to; `None` for another site.
fn target<'a>(page: &Path, link: &'a str) -> Option<(PathBuf, &'a str)> {
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let file = match link.strip_prefix(REPOSITORY) {
        Some(_) => root().join(&file[REPOSITORY.len()..]),
        None if link.contains("://") => return None,
        None if file.is_empty() => page.to_owned(),
        None => page.parent().unwrap().join(file),
    };
    Some((file, heading))
}

#[test]
fn links_lead_somewhere() {
    let mut pages = pages_in(&docs());
    pages.extend(pages_in(&root().join("dashboards")));
    let others = [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "linger-daemon/tests/README.md",
        "linger-daemon/packaging/kubernetes/README.md",
    ];
    pages.extend(others.map(|page| root().join(page)));
    let mut count = 0;
    for page in pages {
        let text = prose(&page);
        for link in links(&text) {
            let Some((file, heading)) = target(&page, link) else {
                continue;
            };
            let shown = page.display();
            assert!(file.exists(), "{shown}: {link}");
            if !heading.is_empty() {
                let found = headings(&prose(&file)).any(|one| one == heading);
                assert!(found, "{shown}: {link}: no such heading");
            }
            count += 1;
        }
    }
    assert!(count > 150, "{count} links");
}

/// The book contains only its own folder.
#[test]
fn no_page_of_the_book_leads_out_of_it_by_a_relative_link() {
    for page in pages_in(&docs()) {
        let text = prose(&page);
        for link in links(&text).filter(|link| !link.contains("://")) {
            let (file, _) = target(&page, link).unwrap();
            let file = file.canonicalize().unwrap();
            let shown = page.display();
            assert!(
                file.starts_with(docs()) && file.is_file(),
                "{shown}: {link}: write {REPOSITORY}…"
            );
        }
    }
}

#[test]
fn every_page_is_in_the_table_of_contents_once() {
    let summary = docs().join("SUMMARY.md");
    let text = prose(&summary);
    let listed: Vec<_> = links(&text).map(|link| docs().join(link)).collect();
    let distinct: BTreeSet<_> = listed.iter().cloned().collect();
    assert_eq!(listed.len(), distinct.len(), "a page is listed twice");
    let mut pages: BTreeSet<_> = pages_in(&docs()).into_iter().collect();
    pages.remove(&summary);
    assert_eq!(distinct, pages, "those of SUMMARY.md, and those there are");
}

#[test]
fn the_readme_is_short_and_begins_with_two_commands() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(text.lines().count() <= 200);
    for command in ["\ncargo xtask run ", "\ncargo xtask test "] {
        assert!(text.contains(command), "{command}");
    }
}
